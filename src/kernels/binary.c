/*
 * binary.c - losses that take each class by itself, through a sigmoid: binary cross-entropy,
 * and the two binary divergences of "Dual-Head Knowledge Distillation" (2024). Each in two
 * kernels: the sum of the values, and the gradient.
 *
 * Values are sums of terms that are not negative, each to its own relative precision (1e-5 at
 * worst, near a minimum): nothing is clamped, and 0 is exactly 0. With e = exp(-|z|),
 * softplus(z) is max(z, 0) + log1p(e).
 */
#include "elementary.h"
#include "emit_loop.h"

/* Floats after which sums start anew in a second sum. */
enum { LANE_BLOCK = 16 * 2 * VF_LEN };

/* sum over [0, n) of value(i, end): float32 within a block, double across. */
#define SUM_LOOP(value, sum)                                                                   \
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {                                             \
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;                              \
        vf part = vf_set(0.0f), all = part;                                                    \
        for (size_t i = b; i < end; i += VF_LEN) {                                             \
            if (i % LANE_BLOCK == 0) all = vf_add(all, part), part = vf_set(0.0f);             \
            part = vf_add(part, value(i, end));                                                \
        }                                                                                      \
        sum += (double)vf_hsum(vf_add(all, part));                                             \
    }

static inline vf exp_neg_abs(vf a, const exp_consts *k)
{
    return exp_vec(vf_neg(vf_abs(a)), k, true);
}

/* a b, 0 where a is: also of an infinite b. */
static inline vf mul_live(vf a, vf b)
{
    return vf_sel(vf_eq(a, vf_set(0.0f)), vf_set(0.0f), vf_mul(a, b));
}

/* ---- Binary cross-entropy ---------------------------------------------------------------- */

/* w (up softplus(-z) + down softplus(z)): up = pos q, down = 1 - q. Nothing cancels. */
static inline vf bce_vec(vf z, vf q, vf pos, vf w, const exp_consts *k)
{
    vf up = vf_mul(pos, q), down = vf_sub(vf_set(1.0f), q);
    vf small = vf_mul(vf_add(up, down), vf_log1p(exp_neg_abs(z, k)));
    vf side = vf_sel(vf_gt(z, vf_set(0.0f)), down, up);
    return mul_live(w, vf_add(small, mul_live(side, vf_abs(z))));
}

/* w (down sigmoid(z) - up sigmoid(-z)) */
static inline vf bce_slope(vf z, vf q, vf pos, vf w, const exp_consts *k)
{
    vf one = vf_set(1.0f), up = vf_mul(pos, q), down = vf_sub(one, q);
    vf e = exp_neg_abs(z, k), large = vf_div(one, vf_add(one, e)), small = vf_mul(e, large);
    vm below = vf_gt(vf_set(0.0f), z);
    vf on = vf_sel(below, small, large), off = vf_sel(below, large, small);
    return mul_live(w, vf_sub(vf_mul(down, on), vf_mul(up, off)));
}

/* A masked class, and what lies past the end: -inf with q = 0, whose value and slope are 0. */
#define BCE(fn, i, end)                                                                        \
    fn(vf_mul(load_at(x, i, end, -INFINITY), inv), load_at(q, i, end, 0.0f),                   \
       pos ? load_at(pos, i, end, 0.0f) : one, w ? load_at(w, i, end, 0.0f) : one, &k)

static inline double bce_sum(size_t n, const float *x, float inv_t, const float *q,
                             const float *pos, const float *w)
{
    const exp_consts k = exp_setup_unit();
    const vf inv = vf_set(inv_t), one = vf_set(1.0f);
    double sum = 0;
#define VALUE(i, end) BCE(bce_vec, i, end)
    SUM_LOOP(VALUE, sum)
#undef VALUE
    return sum;
}

double KERNEL(bce)(size_t n, const float *x, float inv_t, const float *q, const float *pos,
                   const float *w)
{
    return pos || w ? bce_sum(n, x, inv_t, q, pos, w) : bce_sum(n, x, inv_t, q, NULL, NULL);
}

static inline void bce_write(size_t n, const float *x, float inv_t, const float *q,
                             const float *pos, const float *w, float factor, float *d,
                             int store)
{
    const exp_consts k = exp_setup_unit();
    const vf inv = vf_set(inv_t), one = vf_set(1.0f), f = vf_set(factor);
#define SLOPE(i, end) vf_mul(f, BCE(bce_slope, i, end))
    EMIT_LOOP(SLOPE);
#undef SLOPE
}

void KERNEL(bce_emit)(size_t n, const float *x, float inv_t, const float *q, const float *pos,
                      const float *w, float factor, float *d, int store)
{
    if (pos || w)
        bce_write(n, x, inv_t, q, pos, w, factor, d, store);
    else
        bce_write(n, x, inv_t, q, NULL, NULL, factor, d, store);
}

/* ---- Two rows ---------------------------------------------------------------------------- */

/* x / Tx - y / Ty: exactly 0 where the rows are equal and the temperatures are. */
static inline vf difference(vf x, vf y, const logit_pair *p)
{
    return vf_mul(vf_sub(vf_mul(x, vf_set(p->ratio)), y), vf_set(p->inv_y));
}

/*
 * log cosh(D / 2) = KL( Bernoulli(1/2) || Bernoulli(sigmoid(D)) ). With t = tanh(D / 2) it is
 * log1p(t^2 / (1 - t^2)) / 2, which keeps its relative precision near 0; else |D| / 2 - log 2 +
 * log1p(exp(-|D|)). One logarithm serves both.
 */
static inline vf log_cosh_vec(vf d, const exp_consts *k)
{
    const vf one = vf_set(1.0f), half = vf_set(0.5f);
    vf e = exp_neg_abs(d, k), z = vf_mul(half, vf_abs(d)), t = vf_tanh(z, e), t2 = vf_mul(t, t);
    vm near = vf_gt(vf_set(TANH_SMALL), z);
    vf l = vf_log1p(vf_sel(near, vf_div(t2, vf_sub(one, t2)), e));
    return vf_sel(near, vf_mul(half, l), vf_add(vf_sub(z, vf_set(0x1.62e430p-1f)), l));
}

double KERNEL(log_cosh)(size_t n, const float *x, const float *y, const logit_pair *p)
{
    const exp_consts k = exp_setup_unit();
    double sum = 0;
#define VALUE(i, end)                                                                          \
    log_cosh_vec(difference(load_at(x, i, end, 0.0f), load_at(y, i, end, 0.0f), p), &k)
    SUM_LOOP(VALUE, sum)
#undef VALUE
    return sum;
}

static inline vf tanh_half(vf d, const exp_consts *k)
{
    return vf_tanh(vf_mul(vf_set(0.5f), d), exp_neg_abs(d, k));
}

void KERNEL(tanh_emit)(size_t n, const float *x, const float *y, const logit_pair *p,
                       float factor, float *d, int store)
{
    const exp_consts k = exp_setup_unit();
    const vf f = vf_set(factor);
#define SLOPE(i, end)                                                                          \
    vf_mul(f, tanh_half(difference(load_at(x, i, end, 0.0f), load_at(y, i, end, 0.0f), p), &k))
    EMIT_LOOP(SLOPE);
#undef SLOPE
}

/* Bernoulli cumulants beyond the mean, over v = q (1 - q), g = 1 - 2 q: the divergence is
   v d^2 (1/2 + g d / 6 + ...), for |d| < 1/2. */
static inline vf kl_near(vf d, vf v, vf g)
{
#define C(a) vf_set((float)(a))
    vf c8 = vf_mad(vf_mad(vf_mad(C(-5040), v, C(1680)), v, C(-126)), v, C(1));
    vf c7 = vf_mul(g, vf_mad(vf_mad(C(360), v, C(-60)), v, C(1)));
    vf c6 = vf_mad(vf_mad(C(120), v, C(-30)), v, C(1));
    vf c5 = vf_mul(g, vf_mad(C(-12), v, C(1)));
    vf c4 = vf_mad(C(-6), v, C(1));
    vf p = vf_mad(vf_mul(c8, C(1.0 / 40320)), d, vf_mul(c7, C(1.0 / 5040)));
    p = vf_mad(p, d, vf_mul(c6, C(1.0 / 720)));
    p = vf_mad(p, d, vf_mul(c5, C(1.0 / 120)));
    p = vf_mad(p, d, vf_mul(c4, C(1.0 / 24)));
    p = vf_mad(p, d, vf_mul(g, C(1.0 / 6)));
    p = vf_mad(p, d, C(0.5));
#undef C
    return vf_mul(vf_mul(v, d), vf_mul(d, p));
}

/*
 * KL( Bernoulli(q) || Bernoulli(sigmoid(a)) ), q = sigmoid(b), a = x / Tx, b = y / Ty. Signs
 * are turned so that b <= 0 and q <= 1/2; then it is softplus(a) - softplus(b) - q (a - b),
 * written so that the large terms are never subtracted. An infinite a that is not b: +inf;
 * equal: 0.
 */
static inline vf binary_kl_vec(vf x, vf y, const logit_pair *p, const exp_consts *k)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f);
    vf d = difference(x, y, p), b = vf_mul(y, vf_set(p->inv_y)),
       a = vf_mul(x, vf_set(p->inv_x));
    vm up = vf_gt(b, zero);
    a = vf_sel(up, vf_neg(a), a);
    d = vf_sel(up, vf_neg(d), d);
    b = vf_neg(vf_abs(b));
    vf e = exp_vec(b, k, true), other = vf_div(one, vf_add(one, e)), q = vf_mul(e, other);
    vf near = kl_near(d, vf_mul(q, other), vf_mul(vf_sub(one, e), other));
    /* q is 0 long before -200: a finite stand-in for a b that may be -inf. */
    b = vf_max(vf_set(-200.0f), b);
    vf above = vf_mad(other, a, vf_mul(q, b)), below = vf_mul(q, vf_sub(b, a));
    vf logs = vf_sub(vf_log1p(exp_neg_abs(a, k)), vf_log1p(e));
    vf far = vf_add(logs, vf_sel(vf_gt(a, zero), above, below));
    vf kl = vf_sel(vf_gt(vf_set(0.5f), vf_abs(d)), near, far);
    kl = vf_sel(vf_eq(vf_abs(x), vf_set(INFINITY)), vf_abs(d), kl);
    return vf_sel(vf_eq(vf_mul(x, vf_set(p->ratio)), y), zero, kl);
}

double KERNEL(binary_kl)(size_t n, const float *x, const float *y, const logit_pair *p)
{
    const exp_consts k = exp_setup_unit();
    double sum = 0;
#define VALUE(i, end) binary_kl_vec(load_at(x, i, end, 0.0f), load_at(y, i, end, 0.0f), p, &k)
    SUM_LOOP(VALUE, sum)
#undef VALUE
    return sum;
}

/* sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)) for a >= b: a product. */
static inline vf sigmoid_difference(vf x, vf y, const logit_pair *p, const exp_consts *k)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f);
    vf d = difference(x, y, p), b = vf_mul(y, vf_set(p->inv_y)),
       a = vf_mul(x, vf_set(p->inv_x));
    vm down = vf_gt(zero, d);
    a = vf_sel(down, vf_neg(a), a);
    b = vf_sel(down, vf_neg(b), b);
    vf ea = exp_neg_abs(a, k), eb = exp_neg_abs(b, k), size = vf_abs(d);
    vf top = vf_mul(vf_sel(vf_gt(zero, a), ea, one), vf_sel(vf_gt(b, zero), eb, one));
    vf bottom = vf_mul(vf_add(one, ea), vf_add(one, eb));
    vf r = vf_mul(vf_div(top, bottom), vf_one_less_exp(size, exp_neg_abs(d, k)));
    return vf_sel(vf_eq(vf_mul(x, vf_set(p->ratio)), y), zero, vf_copysign(r, d));
}

void KERNEL(binary_kl_emit)(size_t n, const float *x, const float *y, const logit_pair *p,
                            float factor, float *d, int store)
{
    const exp_consts k = exp_setup_unit();
    const vf f = vf_set(factor);
#define SLOPE(i, end)                                                                          \
    vf_mul(f, sigmoid_difference(load_at(x, i, end, 0.0f), load_at(y, i, end, 0.0f), p, &k))
    EMIT_LOOP(SLOPE);
#undef SLOPE
}
