/*
 * exp.h - the exponential inside of every kernel of this library: exp((x - pre) / T) * 2^-ref.
 *
 * n = round(x log2(e) / T) comes out of an addition of VF_MAGIC - ref, which also leaves
 * n - ref in the low bits, where the exponent of 2^(n - ref) is made of it; r = x - n T log(2)
 * is one fma; a polynomial gives exp(r). The reference is a whole number, one for a block and
 * not one a vector: the (m, n) pair of "The Two-Pass Softmax Algorithm" with n shared.
 *
 * AVX-512: n counts 1/16 octaves, 2^(j/16) comes from a table in a register, and degree 3 is
 * enough: 10 instructions, 6 of them on the two multiplication ports. Otherwise degree 5: 10
 * instructions, 8 of them multiplications. One more makes 0 of -inf and of all that underflows.
 *
 * Relative error below 3.5e-7, however far x is from the reference; 2e-7 within e^20 of it.
 */
#ifndef SLG_KERNELS_EXP_H
#define SLG_KERNELS_EXP_H

#include "vec.h"

#if defined(VF_POW16)
enum { EXP_STEPS = 16 };
#else
enum { EXP_STEPS = 1 };
#endif

typedef struct exp_consts {
    vf log2e_t, step_hi, step_lo, inv_t, pre, shift, low;
#if defined(VF_POW16)
    vf table;
#else
    vf c[6]; /* of exp(r), times the factor */
#endif
} exp_consts;

/*
 * The result is multiplied by factor, finite. ref is a whole number, |ref| <= EXP_LIMIT + 128.
 * Below `low` the result, without the factor where that is more than 1, is under 2^-126 times
 * [1, 2), and is 0.
 */
static inline exp_consts exp_setup(const exp_arg *arg, float ref, float factor)
{
    exp_consts k = {
        .log2e_t = vf_set(arg->log2e_t * EXP_STEPS),
        .step_hi = vf_set(arg->step_hi / EXP_STEPS),
        .step_lo = vf_set(arg->step_lo / EXP_STEPS),
        .inv_t = vf_set(arg->inv_t),
        .pre = vf_set(arg->pre),
        .shift = vf_set(VF_MAGIC - ref * EXP_STEPS),
    };
#if defined(VF_POW16)
    static const float pow16[16] = {
        /* 2^(j/16) */
        0x1.000000p+0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f,
        0x1.306fe0p+0f, 0x1.3dea64p+0f, 0x1.4bfdaep+0f, 0x1.5ab07ep+0f,
        0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
        0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f,
    };
    uint32_t bits;
    memcpy(&bits, &factor, sizeof bits);
    int32_t exponent = (int32_t)(bits >> 23 & 255) - 127; /* of factor; -127 for 0 */
    __m512i step = _mm512_slli_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 19);
    __m512i base = _mm512_castps_si512(vf_mul(vf_load(pow16), vf_set(factor)));
    k.table = _mm512_castsi512_ps(_mm512_sub_epi32(base, step));
    float low = exponent == -127 ? INFINITY : (ref - 126.0f - (float)exponent) * arg->step_hi;
    k.low = vf_set(low);
#else
    /* exp(r) = 1 + c1 r + ... on |r| <= log(2)/2, relative error 1.6 * 2^-24. */
    static const float c[6] = { 1.0f,           0x1.fffff6p-1f, 0x1.fffdc6p-2f,
                                0x1.555a6cp-3f, 0x1.573a6cp-5f, 0x1.0fa820p-7f };
    for (int i = 0; i < 6; i++) k.c[i] = vf_set(c[i] * factor);
    k.low = vf_set((ref + (float)VF_MIN_K) * arg->step_hi);
#endif
    return k;
}

#if defined(VF_POW16)
/* (exp(r) - 1) / r on |r| <= log(2)/32, relative error of 1 + r p(r): 2^-29. */
static inline vf exp_tail(vf r)
{
    vf p = vf_mad(vf_set(0x1.55559cp-3f), r, vf_set(0x1.000220p-1f));
    return vf_mul(vf_mad(p, r, vf_set(1.0f)), r);
}
#else
static inline vf exp_poly(vf r, const exp_consts *k)
{
    vf p = vf_mad(k->c[5], r, k->c[4]);
    p = vf_mad(p, r, k->c[3]);
    p = vf_mad(p, r, k->c[2]);
    p = vf_mad(p, r, k->c[1]);
    return vf_mad(p, r, k->c[0]);
}
#endif

/* r from x, and t = VF_MAGIC + steps (n - ref). plain: exp_arg.plain, a constant
   of the caller. */
static inline vf exp_reduce(vf x, const exp_consts *k, bool plain, vf *t)
{
    *t = vf_fma(x, k->log2e_t, k->shift);
    vf n = vf_sub(*t, k->shift);
    vf r = vf_fnma(n, k->step_hi, x);
    return plain ? r : vf_mul(vf_fnma(n, k->step_lo, r), k->inv_t);
}

/* Needs (x - pre) log2(e) / T < ref + 127. */
static inline vf exp_vec(vf x, const exp_consts *k, bool plain)
{
    vf t;
    if (!plain) x = vf_sub(x, k->pre);
#if defined(VF_POW16)
    vf q = exp_tail(exp_reduce(x, k, plain, &t));
    vf base = vf_pow16(t, k->table);
    return vf_fma_above(x, k->low, base, q, base);
#else
    vf p = exp_poly(exp_reduce(vf_max(k->low, x), k, plain, &t), k); /* a NaN passes
                                                                        the clamp */
    return vf_shift2(p, t);
#endif
}

/* sum + exp, for a factor of 1. */
static inline vf exp_add(vf sum, vf x, const exp_consts *k, bool plain)
{
#if defined(VF_POW16)
    return vf_add(sum, exp_vec(x, k, plain));
#else
    vf t;
    if (!plain) x = vf_sub(x, k->pre);
    vf p = exp_poly(exp_reduce(vf_max(k->low, x), k, plain, &t), k);
    return vf_shift2_add(p, t, sum);
#endif
}

/* exp(x) with T = 1, for use inside of other functions. */
static inline exp_consts exp_setup_unit(void)
{
    const exp_arg unit = { .log2e_t = 0x1.715476p+0f,
                           .step_hi = 0x1.62e430p-1f,
                           .inv_t = 1.0f };
    return exp_setup(&unit, 0.0f, 1.0f);
}

#endif
