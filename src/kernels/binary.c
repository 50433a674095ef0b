/*
 * binary.c - losses that take each class by itself, through a sigmoid: binary cross-entropy,
 * and the two binary divergences of "Dual-Head Knowledge Distillation" (2024). Value and
 * gradient need nothing of the rest of the row, so one read makes both: they share an
 * exponential and a division.
 *
 * Values are sums of terms that are not negative, each to its own relative precision (1e-5 at
 * worst, near a minimum): nothing is clamped, and 0 is exactly 0. With e = exp(-|z|),
 * softplus(z) is max(z, 0) + log1p(e); a sum of log1p(e) is log1p(u) for 1 + u the product of
 * the 1 + e. u itself is kept, u + e + u e for one more: nothing cancels, and no small e is
 * lost. So sixteen vectors share a logarithm.
 */
#include <float.h>

#include "elementary.h"
#include "emit_loop.h"

enum { GROUP = 16 * VF_LEN };
/* Vectors whose instructions may mix. */
enum { SIDE = 2 };
/* Groups after which sums start anew in a second sum. */
enum { GROUPS = 8 };

/* What a group adds up: terms that are no logarithms, and products of 1 + e, less 1. */
typedef struct terms {
    vf line, up, down;
} terms;

static inline terms terms_none(void)
{
    const vf zero = vf_set(0.0f);
    return (terms){ zero, zero, zero };
}

/*
 * sum = that of the values over [0, n), and the gradient into d, unless that is NULL:
 * float32 within a block, double across. slope(i, end, whole, add) adds the values of a vector
 * to *add, and is its slope; total(add) is the values that are in it.
 */
#define CLASS_LOOP(slope, total, sum)                                                          \
    do {                                                                                       \
        line_writer out = writer_open(d, store);                                               \
        size_t done = 0;                                                                       \
        vf rest = vf_set(0.0f);                                                                \
        for (size_t b = 0; b < n; b += KERNEL_BLOCK) {                                         \
            size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK, groups = 0;              \
            vf part = vf_set(0.0f), all = part;                                                \
            for (size_t i = b; i < end; i += GROUP) {                                          \
                terms add = terms_none();                                                      \
                size_t to = end - i < GROUP ? end : i + GROUP;                                 \
                size_t j = i;                                                                  \
                for (; j + SIDE * VF_LEN <= to; j += SIDE * VF_LEN) {                          \
                    vf v[SIDE];                                                                \
                    for (size_t s = 0; s < SIDE; s++)                                          \
                        v[s] = slope(j + s * VF_LEN, end, true, &add);                         \
                    for (size_t s = 0; d && s < SIDE; s++)                                     \
                        writer_put(&out, j + s * VF_LEN, v[s]);                                \
                }                                                                              \
                for (; j + VF_LEN <= to; j += VF_LEN) {                                        \
                    vf v = slope(j, end, true, &add);                                          \
                    if (d) writer_put(&out, j, v);                                             \
                }                                                                              \
                done = j;                                                                      \
                if (done < to) rest = slope(done, end, false, &add);                           \
                if (groups++ % GROUPS == 0) all = vf_add(all, part), part = vf_set(0.0f);      \
                part = vf_add(part, total(&add));                                              \
            }                                                                                  \
            sum += (double)vf_hsum(vf_add(all, part));                                         \
        }                                                                                      \
        if (d) writer_close(&out, done, rest, n - done);                                       \
    } while (0)

#define LOAD(p, i, end, whole, fill) ((whole) ? vf_load((p) + (i)) : load_at(p, i, end, fill))

static inline vf exp_neg_abs(vf a, const exp_consts *k)
{
    return exp_vec(vf_neg(vf_abs(a)), k, true);
}

/* (1 + u) (1 + e) - 1 */
static inline vf times(vf u, vf e) { return vf_mad(u, e, vf_add(u, e)); }

/* a b, 0 where a is: also of an infinite b. */
static inline vf mul_live(vf a, vf b)
{
    return vf_sel(vf_eq(a, vf_set(0.0f)), vf_set(0.0f), vf_mul(a, b));
}

/* ---- Binary cross-entropy ---------------------------------------------------------------- */

/* softplus(z) - q z, and sigmoid(z) - q times f. side is 1 - q for z > 0, else q; the sigmoid
   of -|z| is s: nothing cancels that is not small in both terms of the slope. */
static inline vf bce_plain(vf z, vf q, vf f, terms *add, const exp_consts *k)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f);
    vf e = exp_neg_abs(z, k), s = vf_div(e, vf_add(one, e));
    vm above = vf_gt(z, zero);
    vf side = vf_sel(above, vf_sub(one, q), q);
    add->up = times(add->up, e);
    add->line = vf_fma_live(side, vf_abs(z), add->line);
    return vf_mul(vf_sel(above, f, vf_neg(f)), vf_sub(side, s));
}

/* w (up softplus(-z) + down softplus(z)): up = pos q, down = 1 - q; and f w (down sigmoid(z) -
   up sigmoid(-z)). */
static inline vf bce_weighted(vf z, vf q, vf pos, vf w, vf f, terms *add, const exp_consts *k)
{
    const vf one = vf_set(1.0f), up = vf_mul(pos, q), down = vf_sub(one, q);
    vf e = exp_neg_abs(z, k), large = vf_div(one, vf_add(one, e)), small = vf_mul(e, large);
    vm above = vf_gt(z, vf_set(0.0f));
    vf both = vf_mul(vf_add(up, down), vf_log1p(e));
    vf line = mul_live(vf_sel(above, down, up), vf_abs(z));
    add->line = vf_add(add->line, mul_live(w, vf_add(both, line)));
    vf on = vf_sel(above, large, small), off = vf_sel(above, small, large);
    return vf_mul(f, mul_live(w, vf_sub(vf_mul(down, on), vf_mul(up, off))));
}

static inline vf bce_total(const terms *add) { return vf_add(add->line, vf_log1p(add->up)); }
static inline vf bce_line(const terms *add) { return add->line; }

/* A masked class, and what lies past the end: -inf with q = 0, whose value and slope are 0. */
static inline double bce_row(size_t n, const float *x, float inv_t, const float *q,
                             float factor, float *d, int store)
{
    const exp_consts k = exp_setup_unit();
    const vf inv = vf_set(inv_t), f = vf_set(factor);
    double sum = 0;
#define SLOPE(i, end, whole, add)                                                              \
    (vf_prefetch(x + (i) + AHEAD), vf_prefetch(q + (i) + AHEAD),                               \
     bce_plain(vf_mul(LOAD(x, i, end, whole, -INFINITY), inv), LOAD(q, i, end, whole, 0.0f),   \
               f, add, &k))
    CLASS_LOOP(SLOPE, bce_total, sum);
#undef SLOPE
    return sum;
}

static inline double bce_weighted_row(size_t n, const float *x, float inv_t, const float *q,
                                      const float *pos, const float *w, float factor, float *d,
                                      int store)
{
    const exp_consts k = exp_setup_unit();
    const vf inv = vf_set(inv_t), f = vf_set(factor), one = vf_set(1.0f);
    double sum = 0;
#define SLOPE(i, end, whole, add)                                                              \
    bce_weighted(vf_mul(LOAD(x, i, end, whole, -INFINITY), inv), LOAD(q, i, end, whole, 0.0f), \
                 pos ? LOAD(pos, i, end, whole, 0.0f) : one,                                   \
                 w ? LOAD(w, i, end, whole, 0.0f) : one, f, add, &k)
    CLASS_LOOP(SLOPE, bce_line, sum);
#undef SLOPE
    return sum;
}

double KERNEL(bce)(size_t n, const float *x, float inv_t, const float *q, const float *pos,
                   const float *w, float factor, float *d, int store)
{
    if (pos || w) return bce_weighted_row(n, x, inv_t, q, pos, w, factor, d, store);
    return d ? bce_row(n, x, inv_t, q, factor, d, store)
             : bce_row(n, x, inv_t, q, factor, NULL, store);
}

/* ---- Two rows ---------------------------------------------------------------------------- */

/* x / Tx - y / Ty: exactly 0 where the rows are equal and the temperatures are. even: ratio is
   1, a constant of the caller. */
static inline vf difference(vf x, vf y, const logit_pair *p, vf inv_y, bool even)
{
    return vf_mul(vf_sub(even ? x : vf_mul(x, vf_set(p->ratio)), y), inv_y);
}

/* One copy of the loop for each form. */
#define PAIR_ROW(row)                                                                          \
    (p->ratio == 1.0f ? (d ? row(n, x, y, p, factor, d, store, true)                           \
                           : row(n, x, y, p, factor, NULL, store, true))                       \
                      : (d ? row(n, x, y, p, factor, d, store, false)                          \
                           : row(n, x, y, p, factor, NULL, store, false)))

/*
 * log cosh(D / 2) = KL( Bernoulli(1/2) || Bernoulli(sigmoid(D)) ). Below |D| = 2 it is
 * log1p(sinh(D / 2)^2) / 2, and keeps its relative precision down to 0; beyond |D| / 2 - log 2
 * + log1p(e), twice that of (1 + e)^2 - 1 = e (2 + e). One product serves both.
 */
#define LOG_COSH_FAR 2.0f

/* tanh(D / 2) with e = exp(-|D|) and s = D^2: an odd polynomial where 1 - e would cancel. */
static inline vf tanh_half(vf d, vf s, vf e, vf size)
{
    const vf one = vf_set(1.0f);
    vf p = vf_mad(vf_set(-1382.0f / 155925.0f / 2048), s, vf_set(62.0f / 2835.0f / 512));
    p = vf_mad(p, s, vf_set(-17.0f / 315.0f / 128));
    p = vf_mad(p, s, vf_set(2.0f / 15.0f / 32));
    p = vf_mad(p, s, vf_set(-1.0f / 3.0f / 8));
    p = vf_mad(p, s, vf_set(0.5f));
    vf big = vf_copysign(vf_div(vf_sub(one, e), vf_add(one, e)), d);
    return vf_sel(vf_gt(vf_set(2 * TANH_SMALL), size), vf_mul(p, d), big);
}

static inline vf log_cosh_vec(vf d, vf f, terms *add, const exp_consts *k)
{
    const vf size = vf_abs(d), e = exp_neg_abs(d, k), s = vf_mul(d, d);
    vf p = vf_mad(vf_set(0x1.3ec4f4p-23f), s, vf_set(0x1.9edc72p-17f));
    p = vf_mad(p, s, vf_set(0x1.6c1db2p-11f));
    p = vf_mad(p, s, vf_set(0x1.55553ap-6f));
    p = vf_mad(p, s, vf_set(0x1p-2f));
    vm near = vf_gt(vf_set(LOG_COSH_FAR), size);
    vf line = vf_mad(vf_set(0.5f), size, vf_set(-0x1.62e430p-1f));
    add->line = vf_add(add->line, vf_sel(near, vf_set(0.0f), line));
    add->up = times(add->up, vf_sel(near, vf_mul(p, s), vf_mul(e, vf_add(vf_set(2.0f), e))));
    return vf_mul(f, tanh_half(d, s, e, size));
}

static inline vf log_cosh_total(const terms *add)
{
    return vf_mad(vf_set(0.5f), vf_log1p(add->up), add->line);
}

static inline double log_cosh_row(size_t n, const float *x, const float *y, const logit_pair *p,
                                  float factor, float *d, int store, bool even)
{
    const exp_consts k = exp_setup_unit();
    const vf f = vf_set(factor), inv = vf_set(p->inv_y);
    double sum = 0;
#define SLOPE(i, end, whole, add)                                                              \
    (vf_prefetch(x + (i) + AHEAD), vf_prefetch(y + (i) + AHEAD),                               \
     log_cosh_vec(                                                                             \
         difference(LOAD(x, i, end, whole, 0.0f), LOAD(y, i, end, whole, 0.0f), p, inv, even), \
         f, add, &k))
    CLASS_LOOP(SLOPE, log_cosh_total, sum);
#undef SLOPE
    return sum;
}

double KERNEL(log_cosh)(size_t n, const float *x, const float *y, const logit_pair *p,
                        float factor, float *d, int store)
{
    return PAIR_ROW(log_cosh_row);
}

/* (h - log(1 + h)) / h^2 for h in [-0.316, 0.859], relative error 2^-23.8; h2 = h^2. */
static inline vf log_beyond(vf h, vf h2)
{
    vf h4 = vf_mul(h2, h2);
    vf p0 = vf_mad(straight_at(0x1.0001c6p-2f, -0x1.99941ap-3f, h), h2,
                   straight_at(0x1.fffffep-2f, -0x1.555568p-2f, h));
    vf p4 = vf_mad(straight_at(0x1.064b96p-3f, -0x1.e6fd8ap-4f, h), h2,
                   straight_at(0x1.54cb42p-3f, -0x1.2417aap-3f, h));
    vf p8 = vf_mad(vf_set(0x1.a6e0bap-7f), h2, straight_at(0x1.8bcd32p-4f, -0x1.ac87e0p-5f, h));
    return vf_mad(vf_mad(p8, h4, p4), h4, p0);
}

/* softplus(a) - softplus(b) - q (a - b) less its logarithms, and what its limits are: q is 0
   long before b is -200, and an infinite a that is not b has +inf. */
static inline vf kl_line(vf a, vf b, vf q)
{
    return vf_mad(q, vf_sub(b, a), vf_max(vf_set(0.0f), a)); /* a NaN passes */
}

static inline vf kl_limit(vf x, vf y, vf a, vf q)
{
    vf line = kl_line(a, vf_set(-200.0f), q), inf = vf_set(INFINITY);
    return vf_sel(vf_eq(x, y), vf_set(0.0f), vf_sel(vf_eq(vf_abs(a), inf), inf, line));
}

/*
 * KL( Bernoulli(q) || Bernoulli(sigmoid(a)) ), q = sigmoid(b), a = x / Tx, b = y / Ty, d = a -
 * b. Signs are turned so that b <= 0 and q <= 1/2. With h = q (exp(d) - 1) it is
 *
 *     log(1 + h) - q d = q (exp(d) - 1 - d) - (h - log(1 + h)),       |d| < 1,
 *
 * both of the order of d^2, the second at most 2/3 of the first; and beyond softplus(a) -
 * softplus(b) - q d.
 *
 * The slope sigmoid(a) - sigmoid(b) is (exp(d) - 1) exp(b) or, for a > 0, (exp(d) - 1) exp(b -
 * a) by the product of the 1 + e: to its own relative precision.
 *
 * The inverse temperatures and f come negated: what is flipped by the sign of y is then turned
 * as said.
 */
static inline vf binary_kl_vec(vf x, vf y, const logit_pair *p, vf inv_x, vf inv_y, vf f,
                               terms *add, const exp_consts *k, bool even)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f);
    vf b = vf_neg(vf_abs(vf_mul(y, inv_y))), a = vf_flip(vf_mul(x, inv_x), y);
    vf d = vf_flip(difference(x, y, p, inv_y, even), y);
    vf ea = exp_neg_abs(a, k), eb = exp_vec(b, k, true), sa = vf_add(one, ea);
    vf r = vf_div(one, vf_mul(sa, vf_add(one, eb))), q = vf_mul(eb, vf_mul(sa, r));
    vf size = vf_abs(d);
    vm near = vf_gt(one, size);

    vf d2 = vf_mul(d, d), more = vf_mul(d2, exp_beyond(d, d2)), rise = vf_add(d, more);
    vf h = vf_mul(q, rise), h2 = vf_mul(h, h);
    vf close = vf_sub(vf_mul(q, more), vf_mul(h2, log_beyond(h, h2)));
    vf line = vf_sel(near, close, kl_line(a, b, q));
    if (!vm_all(vf_gt(vf_set(FLT_MAX), size))) { /* an infinity or a NaN, or it overflowed */
        vf limit = kl_limit(even ? x : vf_mul(x, vf_set(p->ratio)), y, a, q);
        line = vf_sel(vf_gt(vf_set(FLT_MAX), size), line, limit);
    }
    add->line = vf_add(add->line, line);
    add->up = times(add->up, vf_sel(near, zero, ea));
    add->down = times(add->down, vf_sel(near, zero, eb));

    vm right = vf_gt(a, zero);
    vf mixed = vf_mul(ea, eb);
    vf apart = vf_sel(right, vf_sub(one, mixed), vf_sub(ea, eb));
    vf top = vf_sel(near, vf_mul(rise, vf_sel(right, mixed, eb)), apart);
    return vf_mul(vf_flip(f, y), vf_mul(top, r));
}

static inline vf kl_total(const terms *add)
{
    return vf_add(add->line, vf_sub(vf_log1p(add->up), vf_log1p(add->down)));
}

static inline double binary_kl_row(size_t n, const float *x, const float *y,
                                   const logit_pair *p, float factor, float *d, int store,
                                   bool even)
{
    const exp_consts k = exp_setup_unit();
    const vf f = vf_set(-factor), inv_x = vf_set(-p->inv_x), inv_y = vf_set(-p->inv_y);
    double sum = 0;
#define SLOPE(i, end, whole, add)                                                              \
    (vf_prefetch(x + (i) + AHEAD), vf_prefetch(y + (i) + AHEAD),                               \
     binary_kl_vec(LOAD(x, i, end, whole, 0.0f), LOAD(y, i, end, whole, 0.0f), p, inv_x,       \
                   inv_y, f, add, &k, even))
    CLASS_LOOP(SLOPE, kl_total, sum);
#undef SLOPE
    return sum;
}

double KERNEL(binary_kl)(size_t n, const float *x, const float *y, const logit_pair *p,
                         float factor, float *d, int store)
{
    return PAIR_ROW(binary_kl_row);
}
