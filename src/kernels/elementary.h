/*
 * elementary.h - functions of the losses that work class by class: logarithm, softplus,
 * sigmoid, tanh. Each keeps its relative precision where its value is small. Errors in units
 * of 2^-24, as tests/kernels measures them: log 2, log1p 4, softplus 6, sigmoid 6.
 */
#ifndef SLG_KERNELS_ELEMENTARY_H
#define SLG_KERNELS_ELEMENTARY_H

#include "exp.h"

#define LOG_POLYNOMIAL                                                                         \
    0x1.555554p-2f, -0x1.000226p-2f, 0x1.99a008p-3f, -0x1.547244p-3f, 0x1.22da1cp-3f,          \
        -0x1.0d8542p-3f, 0x1.055b6cp-3f, -0x1.38b582p-4f

/*
 * log(a[j]) of `count` vectors (up to eight), positive, normal and finite, side by side: the
 * chain of one, some 60 cycles, hides behind the others'. log(1 + f) = f - f^2/2 + f^3 P(f),
 * relative error 2^-27.
 */
static inline void vf_log_many(vf *a, size_t count)
{
    static const float c[8] = { LOG_POLYNOMIAL };
    vf e[8], f[8], f2[8], p[8];
    for (size_t j = 0; j < count; j++) f[j] = vf_sub(vf_frexp(a[j], &e[j]), vf_set(1.0f));
    for (size_t j = 0; j < count; j++) p[j] = vf_mad(vf_set(c[7]), f[j], vf_set(c[6]));
    for (int i = 5; i >= 0; i--)
        for (size_t j = 0; j < count; j++) p[j] = vf_mad(p[j], f[j], vf_set(c[i]));
    for (size_t j = 0; j < count; j++) {
        f2[j] = vf_mul(f[j], f[j]);
        vf tail = vf_mad(vf_mul(p[j], f[j]), f2[j], vf_mul(vf_set(-0.5f), f2[j]));
        tail = vf_mad(e[j], vf_set(-0x1.05c610p-29f), tail); /* log(2) less its high part */
        a[j] = vf_fma(e[j], vf_set(0x1.62e430p-1f), vf_add(f[j], tail));
    }
}

static inline vf vf_log(vf a)
{
    vf_log_many(&a, 1);
    return a;
}

/* a = m 2^e, as vf_frexp, of subnormal numbers too in a mode that has them. */
static inline vf vf_frexp_all(vf a, vf *e)
{
    vm small = vf_gt(vf_set(0x1p-126f), a);
    vf m = vf_frexp(vf_sel(small, vf_mul(a, vf_set(0x1p24f)), a), e);
    *e = vf_sub(*e, vf_sel(small, vf_set(24.0f), vf_set(0.0f)));
    return m;
}

/* log(m 2^e), m within [sqrt(1/2), sqrt(2)), e a whole number; its relative precision holds
   near 1 too. */
static inline vf vf_log_of(vf m, vf e)
{
    static const float c[8] = { LOG_POLYNOMIAL };
    vf f = vf_sub(m, vf_set(1.0f)), f2 = vf_mul(f, f), p = vf_set(c[7]);
    for (int i = 6; i >= 0; i--) p = vf_mad(p, f, vf_set(c[i]));
    vf tail = vf_mad(vf_mul(p, f), f2, vf_mul(vf_set(-0.5f), f2));
    tail = vf_mad(e, vf_set(-0x1.05c610p-29f), tail);
    return vf_fma(e, vf_set(0x1.62e430p-1f), vf_add(f, tail));
}

/* log(1 + u), u >= 0 and finite: the rounding of 1 + u is put back. */
static inline vf vf_log1p(vf u)
{
    vf one = vf_set(1.0f), s = vf_add(one, u);
    vf lost = vf_sub(u, vf_sub(s, one));
    /* From 2^24 on, 1 + u is u. */
    lost = vf_sel(vf_gt(s, vf_set(0x1p24f)), vf_set(0.0f), lost);
    return vf_add(vf_log(s), vf_div(lost, s));
}

/* log(1 + exp(a)); k from exp_setup_unit. NaN gives NaN; -inf 0; +inf +inf. */
static inline vf vf_softplus(vf a, const exp_consts *k)
{
    vf up = vf_max(vf_set(0.0f), a); /* a NaN passes */
    return vf_add(up, vf_log1p(exp_vec(vf_neg(vf_abs(a)), k, true)));
}

/* 1 / (1 + exp(-a)). */
static inline vf vf_sigmoid(vf a, const exp_consts *k)
{
    vf one = vf_set(1.0f), e = exp_vec(vf_neg(vf_abs(a)), k, true);
    return vf_div(vf_sel(vf_gt(vf_set(0.0f), a), e, one), vf_add(one, e));
}

/* Below this |z| vf_tanh is an odd polynomial, since 1 - e would cancel. */
#define TANH_SMALL 0.35f

/* tanh(z) = (1 - e) / (1 + e), for e = exp(-2 |z|), which the caller may need too. Error below
   5e-7. */
static inline vf vf_tanh(vf z, vf e)
{
    vf one = vf_set(1.0f);
    vf big = vf_copysign(vf_div(vf_sub(one, e), vf_add(one, e)), z);
    vf s = vf_mul(z, z);
    vf p = vf_fma(s, vf_set(-1382.0f / 155925.0f), vf_set(62.0f / 2835.0f));
    p = vf_fma(p, s, vf_set(-17.0f / 315.0f));
    p = vf_fma(p, s, vf_set(2.0f / 15.0f));
    p = vf_fma(p, s, vf_set(-1.0f / 3.0f));
    vf small = vf_fma(vf_mul(p, s), z, z);
    return vf_sel(vf_gt(vf_set(TANH_SMALL), vf_abs(z)), small, big);
}

/* a + b x */
static inline vf straight_at(float a, float b, vf x) { return vf_mad(vf_set(b), x, vf_set(a)); }

/* (exp(d) - 1 - d) / d^2 for |d| <= 1, relative error 2^-26; d2 = d^2. Polynomials here are
   taken in pairs: a vector's chain of operations is what it waits for. */
static inline vf exp_beyond(vf d, vf d2)
{
    vf d4 = vf_mul(d2, d2);
    vf p0 = vf_mad(straight_at(0x1.55557ap-5f, 0x1.1110e0p-7f, d), d2,
                   straight_at(0x1p-1f, 0x1.555556p-3f, d));
    vf p4 = vf_mad(straight_at(0x1.a9622ap-16f, 0x1.7416c6p-19f, d), d2,
                   straight_at(0x1.6bffb0p-10f, 0x1.a028ccp-13f, d));
    return vf_mad(p4, d4, p0);
}

#endif
