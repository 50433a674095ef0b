/*
 * surrogate_row.c - surrogates in a target space: value, gradient and norms of a quadratic in
 * one pass, a row moved along its gradient, and the part of a Kullback-Leibler divergence that
 * is left when rows are close. The first two compute in double and round once: what counts
 * there is loads, and line searches need sums that hold more digits than float32 has.
 */
#include "elementary.h"
#include "vec_double.h"

/* Vectors side by side, so that sums do not wait for each other. */
enum { SIDE = 4 };

typedef struct surrogate_sums {
    vd dot, move, norm;
} surrogate_sums;

/* Adds a vector's terms; its gradient. */
static inline vd surrogate_add(surrogate_sums *s, vd g, vd from, vd z, vd inv)
{
    const vl same = z == from, none = g == vd_set(0);
    const vd e = (vd)(~same & (vl)(z - from));
    s->dot += (vd)(~none & (vl)(g * e));
    s->move = vd_mad(e, e, s->move);
    s->norm = vd_mad(g, g, s->norm);
    return vd_mad(e, inv, g);
}

/* g and d may be NULL: constants of the caller. */
static inline void surrogate_loop(size_t n, const float *g, const float *from, const float *z,
                                  double inv, float *d, double sums[3])
{
    const vd zero = vd_set(0), vi = vd_set(inv);
    surrogate_sums s[SIDE] = {
        { zero, zero, zero }, { zero, zero, zero }, { zero, zero, zero }, { zero, zero, zero }
    };
    size_t i = 0;
    for (; i + SIDE * VD_LEN <= n; i += SIDE * VD_LEN)
        for (size_t j = 0; j < SIDE; j++) {
            const size_t at = i + j * VD_LEN;
            const vd v = surrogate_add(&s[j], g ? vd_widen(g + at) : zero, vd_widen(from + at),
                                       vd_widen(z + at), vi);
            if (d) vd_narrow(d + at, v);
        }
    for (; i + VD_LEN <= n; i += VD_LEN) {
        const vd v = surrogate_add(&s[0], g ? vd_widen(g + i) : zero, vd_widen(from + i),
                                   vd_widen(z + i), vi);
        if (d) vd_narrow(d + i, v);
    }
    if (i < n) {
        const vd v = surrogate_add(&s[1], g ? vd_widen_n(g + i, n - i) : zero,
                                   vd_widen_n(from + i, n - i), vd_widen_n(z + i, n - i), vi);
        if (d) vd_narrow_n(d + i, v, n - i);
    }
    sums[0] += vd_hsum((s[0].dot + s[1].dot) + (s[2].dot + s[3].dot));
    sums[1] += vd_hsum((s[0].move + s[1].move) + (s[2].move + s[3].move));
    sums[2] += vd_hsum((s[0].norm + s[1].norm) + (s[2].norm + s[3].norm));
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
