/*
 * softcap.c - cap * tanh(x / cap), and its derivative from the result.
 *
 * tanh(z) = (1 - e) / (1 + e) with e = exp(-2 |z|); below |z| = 0.35 an odd polynomial, since 1 - e
 * would cancel. Relative error below 4e-7. NaN stays NaN; -inf (a masked class) stays -inf.
 */
#include "exp.h"

static inline vf tanh_vec(vf z, const exp_consts *k)
{
    vf a = vf_abs(z), e = exp_vec(vf_mul(vf_set(-2.0f), a), k, true), one = vf_set(1.0f);
    vf big = vf_copysign(vf_div(vf_sub(one, e), vf_add(one, e)), z);
    vf s = vf_mul(z, z);
    vf p = vf_fma(s, vf_set(-1382.0f / 155925.0f), vf_set(62.0f / 2835.0f));
    p = vf_fma(p, s, vf_set(-17.0f / 315.0f));
    p = vf_fma(p, s, vf_set(2.0f / 15.0f));
    p = vf_fma(p, s, vf_set(-1.0f / 3.0f));
    vf small = vf_fma(vf_mul(p, s), z, z);
    return vf_sel(vf_gt(vf_set(0.35f), a), small, big);
}

void KERNEL(softcap)(size_t n, const float *x, float cap, float *y)
{
    const exp_consts k = exp_setup_unit();
    const vf c = vf_set(cap), inv = vf_set(1.0f / cap), masked = vf_set(-INFINITY);
    for (size_t i = 0; i < n; i += VF_LEN) {
        size_t len = n - i < VF_LEN ? n - i : VF_LEN;
        vf a = vf_load_n(x + i, len, 0.0f);
        vf y_vec = vf_mul(c, tanh_vec(vf_mul(a, inv), &k));
        vf_store_n(y + i, vf_sel(vf_eq(a, masked), masked, y_vec), len);
    }
}

void KERNEL(softcap_bwd)(size_t n, const float *y, const float *dy, float cap, float *dx)
{
    const vf inv = vf_set(1.0f / cap), one = vf_set(1.0f), zero = vf_set(0.0f);
    const vf masked = vf_set(-INFINITY);
    for (size_t i = 0; i < n; i += VF_LEN) {
        size_t len = n - i < VF_LEN ? n - i : VF_LEN;
        vf a = vf_load_n(y + i, len, 0.0f), t = vf_mul(a, inv);
        vf d = vf_mul(vf_sub(one, t), vf_add(one, t));
        vf g = vf_mul(vf_load_n(dy + i, len, 0.0f), d);
        vf_store_n(dx + i, vf_sel(vf_eq(a, masked), zero, g), len);
    }
}
