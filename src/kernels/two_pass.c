/*
 * two_pass.c - the three forms that "The Two-Pass Softmax Algorithm" (2020) compares, as
 * the paper and its official code have them. For the comparison and as a reference: slg_softmax
 * by itself uses other kernels.
 *
 *   two-pass   exp(x) = m 2^n, with n a float of its own, summed as pairs; then (m / sum)
 *              2^(n - E)
 *   recompute  maximum; sum of exp(x - max); exp(x - max) again, times 1 / sum
 *   reload     maximum; exp(x - max) stored and summed; what was stored, times 1 / sum
 *
 * They advance six vectors a step, each operation for all of them, so that one's latency hides
 * behind the others. A step takes the maximum of its n's and of the sum's once, and scales
 * the sum once; its own terms are added up first. Sums: float32 within a block, double across.
 *
 * Beside the paper's code: -inf makes 0 (it is clamped; there it makes NaN), and a temperature
 * is folded into the reduction. Error of m: 2 ulp for |x| <= 1000. Relative error of results
 * from 2^-125 up: 7e-7 for |x / T| <= 1000 (seen: 6.2e-7), at any n.
 */
#include "vec.h"

#define LIMIT 0x1p+21f      /* for |x| up to here round(x / ln2) is exact in float32 */
#define BEYOND 256.0f       /* masked classes are put this far below it: 2^-BEYOND is 0 */
#define NOTHING (-0x1p+23f) /* n of an empty sum: below every other, and finite */
#define LOG2E 0x1.715476p+0f
#define LN2 0.6931471805599453094

/* 1 / temperature outside of these would leave the range of float32 on the way. */
#define SCALE_MIN 0x1p-60
#define SCALE_MAX 0x1p+60

/* Vectors a step, and accumulators among them; by measurement, which is flat from 5 to 8. */
enum { PAIR_STEP = 6, PAIR_ACCS = 2, OUT_STEP = 6, SUM_STEP = 6, MUL_STEP = 4 };

/* As many vectors on every ISA: so a lane adds up some 43 numbers in float32. */
enum { BLOCK = 256 * VF_LEN };

/*
 * The statement for j = 0 .. count - 1, written out: as a loop, compilers unroll it too late
 * to keep the arrays of a step in registers.
 */
enum { STEP_MAX = 16 }; /* 8; the rest is for indices in statements that are left out */
#define EACH_AT(i, count, ...)                                                                 \
    if (i < (count)) {                                                                         \
        enum { j = i };                                                                        \
        __VA_ARGS__;                                                                           \
    }
#define EACH(count, ...)                                                                       \
    do {                                                                                       \
        EACH_AT(0, count, __VA_ARGS__)                                                         \
        EACH_AT(1, count, __VA_ARGS__)                                                         \
        EACH_AT(2, count, __VA_ARGS__)                                                         \
        EACH_AT(3, count, __VA_ARGS__)                                                         \
        EACH_AT(4, count, __VA_ARGS__)                                                         \
        EACH_AT(5, count, __VA_ARGS__)                                                         \
        EACH_AT(6, count, __VA_ARGS__)                                                         \
        EACH_AT(7, count, __VA_ARGS__)                                                         \
    } while (0)

#define STEP_INLINE static inline __attribute__((always_inline))

/*
 * How the argument is reduced; always a constant, so that no choice is left inside of a loop.
 *   PLAIN   n = round(x log2(e)), ln2 in two parts
 *   FAR     of x - pre, ln2 in one part: |n| <= 289, an error of 2^-29 |n|
 *   SCALED  of (x - pre) / T: steps of T ln2 in two parts, and what is left times 1 / T
 */
enum form { PLAIN, FAR, SCALED };

typedef struct consts {
    vf pre, low, log2e, step_hi, step_lo, inv_t;
    vf c[6];  /* of exp(t), |t| <= ln2/2: minimax, relative error 1.5 * 2^-24; times a factor */
    vf shift; /* n of the result's scale */
} consts;

static inline consts make_consts(double scale, double factor)
{
    static const float c[6] = { 1.0f,           0x1.fffff6p-1f, 0x1.fffdc6p-2f,
                                0x1.555a6cp-3f, 0x1.573a6cp-5f, 0x1.0fa820p-7f };
    const double step = LN2 / scale;
    consts k = {
        .pre = vf_set(0.0f),
        .low = vf_set((float)(-(double)(LIMIT + BEYOND) / scale)),
        .log2e = vf_set((float)((double)LOG2E * scale)),
        .step_hi = vf_set(-(float)step),
        .step_lo = vf_set(-(float)(step - (double)(float)step)),
        .inv_t = vf_set((float)scale),
        .shift = vf_set(0.0f),
    };
    for (int i = 0; i < 6; i++) k.c[i] = vf_set((float)((double)c[i] * factor));
    return k;
}

/* exp(x[j]) = m[j] 2^n[j] of count vectors. A NaN passes the clamp. */
STEP_INLINE void ext_exp(const vf *x, const consts *k, enum form form, int count, vf *m, vf *n)
{
    vf t[STEP_MAX];
    EACH(count, t[j] = vf_max(k->low, form == PLAIN ? x[j] : vf_sub(x[j], k->pre)));
    EACH(count, n[j] = vf_round_whole(vf_mul(t[j], k->log2e)));
    EACH(count, t[j] = vf_fma(n[j], k->step_hi, t[j]));
    if (form != FAR) EACH(count, t[j] = vf_fma(n[j], k->step_lo, t[j]));
    if (form == SCALED) EACH(count, t[j] = vf_mul(t[j], k->inv_t));
    EACH(count, m[j] = vf_fma(k->c[5], t[j], k->c[4]));
    EACH(count, m[j] = vf_fma(m[j], t[j], k->c[3]));
    EACH(count, m[j] = vf_fma(m[j], t[j], k->c[2]));
    EACH(count, m[j] = vf_fma(m[j], t[j], k->c[1]));
    EACH(count, m[j] = vf_fma(m[j], t[j], k->c[0]));
}

STEP_INLINE void load_step(const float *x, int count, vf *v)
{
    EACH(count, v[j] = vf_load(x + j * VF_LEN));
}

void KERNEL(ext_exp)(size_t n, const float *x, float *m, float *e)
{
    consts k = make_consts(1.0, 1.0);
    k.low = vf_set(-LIMIT);
    for (size_t i = 0; i < n; i += VF_LEN) {
        size_t len = n - i < VF_LEN ? n - i : VF_LEN;
        vf v = vf_min(vf_set(LIMIT), vf_load_n(x + i, len, 0.0f)), p, at;
        ext_exp(&v, &k, PLAIN, 1, &p, &at);
        vf_store_n(m + i, p, len);
        vf_store_n(e + i, at, len);
    }
}

/* ---- Two passes ------------------------------------------------------------------------- */

/* sum + what count vectors hold, at the largest n of all: a term can only shrink. */
STEP_INLINE void add_pairs(const vf *m, const vf *n, int first, int by, int count, vf *sum,
                           vf *top)
{
    vf high = *top;
    EACH(count, if (j % by == first) high = vf_max(n[j], high)); /* forgets a NaN; m has it */
    vf s = vf_scale2(m[first], vf_sub(n[first], high));
    EACH(count,
         if (j % by == first && j > first) s = vf_scale2_add(m[j], vf_sub(n[j], high), s));
    *sum = vf_scale2_add(*sum, vf_sub(*top, high), s);
    *top = high;
}

STEP_INLINE float sum_pairs(size_t len, const float *x, const consts *k, enum form form,
                            float *top)
{
    vf sum[PAIR_ACCS], at[PAIR_ACCS], v[STEP_MAX], m[STEP_MAX], n[STEP_MAX];
    EACH(PAIR_ACCS, sum[j] = vf_set(0.0f), at[j] = vf_set(NOTHING));
    size_t i = 0;
    for (; i + PAIR_STEP * VF_LEN <= len; i += PAIR_STEP * VF_LEN) {
        load_step(x + i, PAIR_STEP, v);
        ext_exp(v, k, form, PAIR_STEP, m, n);
        EACH(PAIR_ACCS, add_pairs(m, n, j, PAIR_ACCS, PAIR_STEP, &sum[j], &at[j]));
    }
    for (; i < len; i += VF_LEN) {
        v[0] = len - i < VF_LEN ? vf_load_n(x + i, len - i, -INFINITY) : vf_load(x + i);
        ext_exp(v, k, form, 1, m, n);
        add_pairs(m, n, 0, 1, 1, &sum[0], &at[0]);
    }
    vf high = at[0], s = vf_set(0.0f);
    EACH(PAIR_ACCS, high = vf_max(high, at[j]));
    high = vf_set(vf_hmax(high));
    EACH(PAIR_ACCS, s = vf_scale2_add(sum[j], vf_sub(at[j], high), s));
    *top = vf_hmax(high);
    return vf_hsum(s);
}

/* m 2^(n - shift) */
STEP_INLINE void emit_pairs(size_t len, const float *x, const consts *k, enum form form, vf inv,
                            float *y)
{
    vf v[STEP_MAX], m[STEP_MAX], n[STEP_MAX];
    size_t i = 0;
    for (; i + OUT_STEP * VF_LEN <= len; i += OUT_STEP * VF_LEN) {
        load_step(x + i, OUT_STEP, v);
        ext_exp(v, k, form, OUT_STEP, m, n);
        EACH(OUT_STEP, m[j] = vf_mul(m[j], inv));
        EACH(OUT_STEP, n[j] = vf_sub(n[j], k->shift));
        EACH(OUT_STEP, vf_store(y + i + j * VF_LEN, vf_scale2(m[j], n[j])));
    }
    for (; i < len; i += VF_LEN) {
        size_t l = len - i < VF_LEN ? len - i : VF_LEN;
        v[0] = l < VF_LEN ? vf_load_n(x + i, l, -INFINITY) : vf_load(x + i);
        ext_exp(v, k, form, 1, m, n);
        vf_store_n(y + i, vf_scale2(vf_mul(m[0], inv), vf_sub(n[0], k->shift)), l);
    }
}

STEP_INLINE bool two_pass(size_t len, const float *x, double scale, enum form form, float *y,
                          double *lse)
{
    const float limit = rintf(LIMIT * LOG2E);
    consts k = make_consts(scale, 1.0);
    double total = 0;
    float top = NOTHING;
    for (size_t b = 0; b < len; b += BLOCK) {
        float at, sum = sum_pairs(len - b < BLOCK ? len - b : BLOCK, x + b, &k, form, &at);
        if (!(at <= limit)) return false;
        float high = at > top ? at : top;
        total = ldexp(total, (int)(top - high)) + ldexp((double)sum, (int)(at - high));
        top = high;
    }
    if (!(total > 0) || top < -limit) return false; /* NaN; all masked, or too low to tell */
    *lse = log(total) + (double)top * LN2;
    k.shift = vf_set(top);
    emit_pairs(len, x, &k, form, vf_set((float)(1.0 / total)), y);
    return true;
}

static inline bool usable(double scale) { return scale >= SCALE_MIN && scale <= SCALE_MAX; }

bool KERNEL(softmax_two_pass)(size_t n, const float *x, double scale, float *y, double *lse)
{
    if (!usable(scale)) return false;
    return scale == 1.0 ? two_pass(n, x, scale, PLAIN, y, lse)
                        : two_pass(n, x, scale, SCALED, y, lse);
}

/* ---- Three passes ----------------------------------------------------------------------- */

/*
 * For exp((x - top) / T). Where top / T is far from 0, x - top is exact for all that does not
 * underflow. Nearer to 0 it would be rounded, by as much as 2^-18, and results with it: there
 * the reduction is of x itself, top is taken off the exponent in whole steps, and the rest
 * of it is a factor in the coefficients. T = 1 is PLAIN then, and FAR otherwise.
 */
static inline consts three_pass_consts(float top, double scale, enum form form)
{
    const double a = (double)top * scale, reach = 200.0 / scale;
    if (form == FAR || fabs(a) >= 176.0) {
        consts k = make_consts(scale, 1.0);
        k.pre = vf_set(top);
        k.low = vf_set((float)-reach);
        return k;
    }
    const float log2e = (float)((double)LOG2E * scale), e = rintf(top * log2e);
    consts k = make_consts(scale, exp((double)e * LN2 - a));
    k.low = vf_set((float)((double)top - reach));
    k.shift = vf_set(e);
    return k;
}

STEP_INLINE void exp_step(const vf *x, const consts *k, enum form form, int count, vf *e)
{
    vf n[STEP_MAX];
    ext_exp(x, k, form, count, e, n);
    if (form != FAR) EACH(count, n[j] = vf_sub(n[j], k->shift));
    EACH(count, e[j] = vf_scale2(e[j], n[j]));
}

/* The sum of a block, and where keep, the exponentials. */
STEP_INLINE float exp_sum(size_t len, const float *x, const consts *k, enum form form,
                          bool keep, float *y)
{
    vf sum = vf_set(0.0f), v[STEP_MAX], e[STEP_MAX];
    size_t i = 0;
    for (; i + SUM_STEP * VF_LEN <= len; i += SUM_STEP * VF_LEN) {
        load_step(x + i, SUM_STEP, v);
        exp_step(v, k, form, SUM_STEP, e);
        if (keep) EACH(SUM_STEP, vf_store(y + i + j * VF_LEN, e[j]));
        EACH(SUM_STEP / 2, e[j] = vf_add(e[2 * j], e[2 * j + 1]));
        EACH(SUM_STEP / 2 - 1, e[0] = vf_add(e[0], e[j + 1]));
        sum = vf_add(sum, e[0]);
    }
    for (; i < len; i += VF_LEN) {
        size_t l = len - i < VF_LEN ? len - i : VF_LEN;
        v[0] = l < VF_LEN ? vf_load_n(x + i, l, -INFINITY) : vf_load(x + i);
        exp_step(v, k, form, 1, e);
        sum = vf_add(sum, e[0]);
        if (keep) vf_store_n(y + i, e[0], l);
    }
    return vf_hsum(sum);
}

STEP_INLINE double exp_sum_row(size_t len, const float *x, const consts *k, enum form form,
                               bool keep, float *y)
{
    double sum = 0;
    for (size_t b = 0; b < len; b += BLOCK) {
        size_t l = len - b < BLOCK ? len - b : BLOCK;
        sum += (double)exp_sum(l, x + b, k, form, keep, keep ? y + b : NULL);
    }
    return sum;
}

STEP_INLINE void emit_exp(size_t len, const float *x, const consts *k, enum form form, vf inv,
                          float *y)
{
    vf v[STEP_MAX], e[STEP_MAX];
    size_t i = 0;
    for (; i + OUT_STEP * VF_LEN <= len; i += OUT_STEP * VF_LEN) {
        load_step(x + i, OUT_STEP, v);
        exp_step(v, k, form, OUT_STEP, e);
        EACH(OUT_STEP, vf_store(y + i + j * VF_LEN, vf_mul(e[j], inv)));
    }
    for (; i < len; i += VF_LEN) {
        size_t l = len - i < VF_LEN ? len - i : VF_LEN;
        v[0] = l < VF_LEN ? vf_load_n(x + i, l, -INFINITY) : vf_load(x + i);
        exp_step(v, k, form, 1, e);
        vf_store_n(y + i, vf_mul(e[0], inv), l);
    }
}

STEP_INLINE void multiply(size_t len, float a, float *y)
{
    const vf f = vf_set(a);
    size_t i = 0;
    for (; i + MUL_STEP * VF_LEN <= len; i += MUL_STEP * VF_LEN)
        EACH(MUL_STEP, vf_store(y + i + j * VF_LEN, vf_mul(f, vf_load(y + i + j * VF_LEN))));
    for (; i < len; i += VF_LEN) {
        size_t l = len - i < VF_LEN ? len - i : VF_LEN;
        vf_store_n(y + i, vf_mul(f, vf_load_n(y + i, l, 0.0f)), l);
    }
}

STEP_INLINE void three_pass(size_t len, const float *x, const consts *k, enum form form,
                            bool reload, float *y, double *sum)
{
    *sum = exp_sum_row(len, x, k, form, reload, y);
    const float inv = (float)(1.0 / *sum);
    if (reload)
        multiply(len, inv, y);
    else
        emit_exp(len, x, k, form, vf_set(inv), y);
}

STEP_INLINE bool softmax3(size_t len, const float *x, double scale, bool reload, float *y,
                          double *lse)
{
    const float top = KERNEL(max)(len, x);
    if (!isfinite(top) || !usable(scale)) return false;
    const enum form form = scale != 1.0 ? SCALED : fabsf(top) >= 176.0f ? FAR : PLAIN;
    const consts k = three_pass_consts(top, scale, form);
    double sum;
    switch (form) {
    case PLAIN:
        three_pass(len, x, &k, PLAIN, reload, y, &sum);
        break;
    case FAR:
        three_pass(len, x, &k, FAR, reload, y, &sum);
        break;
    default:
        three_pass(len, x, &k, SCALED, reload, y, &sum);
        break;
    }
    *lse = (double)top * scale + log(sum);
    return true;
}

bool KERNEL(softmax_recompute)(size_t n, const float *x, double scale, float *y, double *lse)
{
    return softmax3(n, x, scale, false, y, lse);
}

bool KERNEL(softmax_reload)(size_t n, const float *x, double scale, float *y, double *lse)
{
    return softmax3(n, x, scale, true, y, lse);
}
