/*
 * act.c - GELU, its tanh form, SiLU and ReLU, and gates of them. One exponential each.
 *
 * P(x), the normal distribution function, is exp(-x^2 / 2) times a polynomial in (t - c) / (t +
 * c), t = |x|, over t + c: relative error 2^-29 at any t. The square is taken in two parts,
 * since exp would turn its rounding into an error of x^2 / 2 units.
 */
#include <float.h>

#include "exp.h"

#include "softlogit/layer.h"

/* P(-t) for t >= 0, and e = exp(-t^2 / 2). */
static inline vf normal_tail(vf t, const exp_consts *k, vf *e)
{
    static const float c[10] = { 0x1.84e44ap-1f,   -0x1.401104p-1f, 0x1.ac43d4p-2f,
                                 -0x1.c39d72p-3f,  0x1.5d46d0p-4f,  -0x1.3d50dep-6f,
                                 -0x1.8ada0ep-11f, 0x1.1e52b4p-9f,  -0x1.7b22c8p-12f,
                                 -0x1.e786a4p-13f };
    t = vf_min(vf_set(32.0f), t); /* a NaN passes; from 14 on, e is 0 */
    vf square = vf_mul(t, t), lost = vf_fma(t, t, vf_neg(square));
    vf main = exp_vec(vf_mul(square, vf_set(-0.5f)), k, true);
    *e = vf_mad(main, vf_mul(lost, vf_set(-0.5f)), main);
    vf r = vf_div(vf_set(1.0f), vf_add(t, vf_set(4.25f)));
    vf q = vf_mul(vf_sub(t, vf_set(4.25f)), r), p = vf_set(c[9]);
    for (int i = 8; i >= 0; i--) p = vf_mad(p, q, vf_set(c[i]));
    return vf_mul(*e, vf_mul(p, r));
}

/* f(x) / x = s, and f'(x) where slope is not NULL. kind: a constant of the caller. */
static inline vf share(vf x, int kind, const exp_consts *k, vf *slope)
{
    const vf one = vf_set(1.0f), zero = vf_set(0.0f), limit = vf_set(128.0f);
    vf near = vf_max(vf_neg(limit), vf_min(limit, x)),
       e; /* infinities would make 0 inf below */
    if (kind == SLG_GELU) {
        vf tail = normal_tail(vf_abs(x), k, &e);
        vf s = vf_sel(vf_gt(x, zero), vf_sub(one, tail), tail);
        if (slope)
            *slope = vf_mad(vf_mul(near, vf_set(0x1.988454p-2f)), e, s); /* 1 / sqrt(2 pi) */
        return s;
    }
    vf a = near, da = one;
    if (kind == SLG_GELU_TANH) { /* the sigmoid of 2 sqrt(2 / pi) (x + 0.044715 x^3) */
        vf square = vf_mul(near, near);
        a = vf_mul(near,
                   vf_mad(square, vf_set(0.0713548162726009f), vf_set(1.5957691216057308f)));
        da = vf_mad(square, vf_set(3 * 0.0713548162726009f), vf_set(1.5957691216057308f));
    }
    e = exp_vec(vf_neg(vf_abs(a)), k, true);
    vf r = vf_div(one, vf_add(one, e));
    vf s = vf_mul(vf_sel(vf_gt(a, zero), one, e), r);
    if (slope) *slope = vf_mad(vf_mul(near, vf_mul(e, da)), vf_mul(r, r), s);
    return s;
}

/* f(x); f'(x) too where slope is not NULL. */
static inline vf activate(vf x, int kind, const exp_consts *k, vf *slope)
{
    const vf zero = vf_set(0.0f);
    if (kind == SLG_RELU) {
        vf flat = vf_sel(vf_eq(x, x), zero, x);
        if (slope) *slope = vf_sel(vf_gt(x, zero), vf_set(1.0f), flat);
        return vf_max(zero, x);
    }
    vf s = share(x, kind, k, slope);
    return vf_mul(vf_max(vf_set(-FLT_MAX), x), s); /* -inf: 0 */
}

static inline vf shifted(const float *x, const float *b, size_t i, size_t n)
{
    vf v = load_at(x, i, n, 0.0f);
    return b ? vf_add(v, load_at(b, i, n, 0.0f)) : v;
}

static inline void act_loop(size_t n, const float *x, const float *b, int kind, float *y)
{
    const exp_consts k = exp_setup_unit();
    for (size_t i = 0; i < n; i += VF_LEN)
        store_at(y, i, n, activate(shifted(x, b, i, n), kind, &k, NULL));
}

static inline void act_bwd_loop(size_t n, const float *x, const float *b, const float *dy,
                                int kind, float *dx)
{
    const exp_consts k = exp_setup_unit();
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf slope;
        activate(shifted(x, b, i, n), kind, &k, &slope);
        store_at(dx, i, n, vf_mul(slope, load_at(dy, i, n, 0.0f)));
    }
}

static inline void act_gate_loop(size_t n, const float *x, const float *up, int kind, float *y)
{
    const exp_consts k = exp_setup_unit();
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf f = activate(load_at(x, i, n, 0.0f), kind, &k, NULL);
        store_at(y, i, n, vf_mul(f, load_at(up, i, n, 0.0f)));
    }
}

static inline void act_gate_bwd_loop(size_t n, const float *x, const float *up, const float *dy,
                                     int kind, float *dx, float *dup)
{
    const exp_consts k = exp_setup_unit();
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf slope, f = activate(load_at(x, i, n, 0.0f), kind, &k, &slope);
        vf u = load_at(up, i, n, 0.0f), d = load_at(dy, i, n, 0.0f);
        store_at(dx, i, n, vf_mul(vf_mul(slope, u), d));
        store_at(dup, i, n, vf_mul(f, d));
    }
}

/* The loop of a kind, which is a constant inside. */
#define FOR_KIND(CALL)                                                                         \
    switch (kind) {                                                                            \
    case SLG_GELU:                                                                             \
        CALL(SLG_GELU);                                                                        \
        break;                                                                                 \
    case SLG_GELU_TANH:                                                                        \
        CALL(SLG_GELU_TANH);                                                                   \
        break;                                                                                 \
    case SLG_SILU:                                                                             \
        CALL(SLG_SILU);                                                                        \
        break;                                                                                 \
    default:                                                                                   \
        CALL(SLG_RELU);                                                                        \
    }

void KERNEL(act)(size_t n, const float *x, const float *b, int kind, float *y)
{
#define CALL(constant) act_loop(n, x, b, constant, y)
    FOR_KIND(CALL)
#undef CALL
}

void KERNEL(act_bwd)(size_t n, const float *x, const float *b, const float *dy, int kind,
                     float *dx)
{
#define CALL(constant) act_bwd_loop(n, x, b, dy, constant, dx)
    FOR_KIND(CALL)
#undef CALL
}

void KERNEL(act_gate)(size_t n, const float *x, const float *up, int kind, float *y)
{
#define CALL(constant) act_gate_loop(n, x, up, constant, y)
    FOR_KIND(CALL)
#undef CALL
}

void KERNEL(act_gate_bwd)(size_t n, const float *x, const float *up, const float *dy, int kind,
                          float *dx, float *dup)
{
#define CALL(constant) act_gate_bwd_loop(n, x, up, dy, constant, dx, dup)
    FOR_KIND(CALL)
#undef CALL
}
