/*
 * surrogate_row.c - surrogates in a target space: value, gradient and norms of a quadratic in
 * one pass, a row moved along its gradient, and the part of a Kullback-Leibler divergence that
 * is left when rows are close. The first two are plain loops in double, rounded once: the same
 * bits on every ISA, and what counts there is loads.
 */
#include "double_lanes.h"
#include "elementary.h"

/* Adds to lane j; the gradient. */
static inline double surrogate_at(double g, double from, double z, double inv, lanes *dot,
                                  lanes *move, lanes *norm, size_t j)
{
    const double e = z == from ? 0 : z - from;
    dot->v[j] += g == 0 ? 0 : g * e;
    move->v[j] += e * e;
    norm->v[j] += g * g;
    return g + e * inv;
}

/* g and d may be NULL: constants of the caller. */
static inline void surrogate_loop(size_t n, const float *g, const float *from, const float *z,
                                  double inv, float *d, double sums[3])
{
    lanes dot = { { 0 } }, move = { { 0 } }, norm = { { 0 } };
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        float out[LANES];
        for (size_t j = 0; j < LANES; j++)
            out[j] = (float)surrogate_at(g ? (double)g[i + j] : 0, (double)from[i + j],
                                         (double)z[i + j], inv, &dot, &move, &norm, j);
        if (d) memcpy(d + i, out, sizeof out);
    }
    for (size_t j = 0; i < n; i++, j++) {
        double v = surrogate_at(g ? (double)g[i] : 0, (double)from[i], (double)z[i], inv, &dot,
                                &move, &norm, j);
        if (d) d[i] = (float)v;
    }
    sums[0] += lanes_sum(&dot);
    sums[1] += lanes_sum(&move);
    sums[2] += lanes_sum(&norm);
}

void KERNEL(surrogate)(size_t n, const float *g, const float *from, const float *z, double inv,
                       float *d, double sums[3])
{
    if (g && d)
        surrogate_loop(n, g, from, z, inv, d, sums);
    else if (g)
        surrogate_loop(n, g, from, z, inv, NULL, sums);
    else if (d)
        surrogate_loop(n, NULL, from, z, inv, d, sums);
    else
        surrogate_loop(n, NULL, from, z, inv, NULL, sums);
}

void KERNEL(shifted)(size_t n, const float *z, const float *g, double s, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = (float)((double)z[i] - s * (double)g[i]);
}

/* p (exp(e) - 1 - e), p = exp(from ..): where |e| < 1 by a polynomial, else from moved = exp(z
   ..) = p exp(e); nothing of p where it is 0. */
static inline vf beyond_at(vf from, vf z, vf mean, const exp_consts *k, const exp_consts *kz)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f);
    vf e = vf_sub(vf_sub(z, from), mean);
    vf p = exp_vec(from, k, true), moved = exp_vec(z, kz, true);
    vf e2 = vf_mul(e, e), near = vf_mul(vf_mul(p, e2), exp_beyond(e, e2));
    vf own = vf_sel(vf_eq(p, zero), zero, vf_mul(p, vf_add(one, e)));
    return vf_sel(vf_gt(one, vf_abs(e)), near, vf_sub(moved, own));
}

double KERNEL(kl_beyond)(size_t n, const float *from, const float *z, float mean,
                         const exp_out *p, const exp_out *moved)
{
    const exp_consts k = exp_setup(&p->arg, p->ref, p->a);
    const exp_consts kz = exp_setup(&moved->arg, moved->ref, moved->a);
    const vf m = vf_set(mean);
    double total = 0;
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        vf all = vf_set(0.0f), part = all;
        for (size_t i = b; i < end; i += VF_LEN) {
            if ((i - b) % (16 * VF_LEN) == 0) all = vf_add(all, part), part = vf_set(0.0f);
            part = vf_add(part, beyond_at(load_at(from, i, end, -INFINITY),
                                          load_at(z, i, end, -INFINITY), m, &k, &kz));
        }
        total += (double)vf_hsum(vf_add(all, part));
    }
    return total;
}
