/*
 * norm.c - layer and RMS normalisation of a row whose mean and deviation are known, and its
 * gradient. The mean comes in two parts: one float would leave 2^-24 of it in every result.
 */
#include "exp.h"

/* (x - mean) rstd */
static inline vf normal_of(vf x, const norm_arg *a)
{
    x = vf_sub(vf_sub(x, vf_set(a->mean)), vf_set(a->mean_low));
    return vf_mul(x, vf_set(a->rstd));
}

void KERNEL(norm_emit)(size_t n, const float *x, const norm_arg *a, const float *w,
                       const float *b, float *y)
{
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf h = normal_of(load_at(x, i, n, 0.0f), a);
        if (w) h = vf_mul(h, load_at(w, i, n, 0.0f));
        if (b) h = vf_add(h, load_at(b, i, n, 0.0f));
        store_at(y, i, n, h);
    }
}

void KERNEL(norm_sums)(size_t n, const float *x, const norm_arg *a, const float *w,
                       const float *dy, double out[3])
{
    const vf zero = vf_set(0.0f), mean = vf_set(a->mean), rstd = vf_set(a->rstd);
    out[0] = out[1] = out[2] = 0;
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        vf s[2][3] = { { zero, zero, zero }, { zero, zero, zero } };
        for (size_t i = b, j = 0; i < end; i += VF_LEN, j ^= 1) {
            vf h = vf_mul(vf_sub(load_at(x, i, end, a->mean), mean), rstd);
            vf g = load_at(dy, i, end, 0.0f);
            if (w) g = vf_mul(g, load_at(w, i, end, 0.0f));
            s[j][0] = vf_add(s[j][0], g);
            s[j][1] = vf_fma(g, h, s[j][1]);
            s[j][2] = vf_add(s[j][2], h);
        }
        for (size_t k = 0; k < 3; k++) out[k] += (double)vf_hsum(vf_add(s[0][k], s[1][k]));
    }
}

void KERNEL(norm_bwd)(size_t n, const float *x, const norm_arg *a, const float *w,
                      const float *dy, const float *add, float *dw, float *db, float *dx)
{
    const vf mean_g = vf_set(a->mean_g), mean_gh = vf_set(a->mean_gh), rstd = vf_set(a->rstd);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf h = normal_of(load_at(x, i, n, 0.0f), a), g = load_at(dy, i, n, 0.0f);
        if (dw) store_at(dw, i, n, vf_fma(g, h, load_at(dw, i, n, 0.0f)));
        if (db) store_at(db, i, n, vf_add(g, load_at(db, i, n, 0.0f)));
        if (!dx) continue;
        if (w) g = vf_mul(g, load_at(w, i, n, 0.0f));
        vf d = vf_mul(rstd, vf_fnma(h, mean_gh, vf_sub(g, mean_g)));
        store_at(dx, i, n, add ? vf_add(d, load_at(add, i, n, 0.0f)) : d);
    }
}
