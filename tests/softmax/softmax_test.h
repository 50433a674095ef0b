/*
 * softmax_test.h - what the tests of softmax.h share: contexts, arrays of any type and layout
 * with a watch on the memory between their elements, inputs, and the functions in long double.
 */
#ifndef TESTS_SOFTMAX_SOFTMAX_TEST_H
#define TESTS_SOFTMAX_SOFTMAX_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fpenv.h"
#include "core/ctx.h"
#include "softlogit/softmax.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A test for each ISA: its state is the level. */
static int32_t isa_levels[]
    __attribute__((unused)) = { SLG_ISA_PORTABLE, SLG_ISA_AVX2, SLG_ISA_AVX512 };
#define ISA_TEST(f, i, name)                                                                   \
    {                                                                                          \
#f " " name, f, NULL, NULL, &isa_levels[i]                                             \
    }
#define EACH_ISA(f) ISA_TEST(f, 0, "portable"), ISA_TEST(f, 1, "avx2"), ISA_TEST(f, 2, "avx512")

#define ok(call) assert_int_equal(call, SLG_OK)

/* The test is skipped where the CPU lacks the level. isa may be SLG_ISA_AUTO. */
static inline slg_ctx *new_ctx(int32_t isa, int32_t threads)
{
    slg_ctx *ctx = NULL;
    slg_ctx_opts o;
    if (isa > kernels_cpu_isa()) skip();
    slg_ctx_opts_init(&o, sizeof o);
    o.isa = isa;
    o.num_threads = threads;
    ok(slg_ctx_create(&o, &ctx));
    return ctx;
}

/* As on a machine with hardly any cache: so that small shapes go the ways of large ones, on any
   ISA (softmax.c chooses by these numbers). */
static inline slg_ctx *without_caches(slg_ctx *ctx)
{
    ctx->l2_bytes = ctx->l3_bytes = 1 << 14;
    ctx->isa = SLG_ISA_AVX512; /* of the choice alone: the kernels stay */
    return ctx;
}

static inline slg_ctx *ctx_of(void **state) { return new_ctx(*(const int32_t *)*state, 1); }

static inline slg_softmax_opts options(double temperature, int32_t algorithm)
{
    slg_softmax_opts o;
    slg_softmax_opts_init(&o, sizeof o);
    o.temperature = temperature;
    o.algorithm = algorithm;
    return o;
}

/* ---- Numbers ----------------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252u;

static inline double uniform(void) /* (0, 1) */
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return ((double)(seed >> 12) + 0.5) * 0x1p-52;
}

static inline double normal(void)
{
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* sd * normal + offset, kept finite. */
static inline void fill(float *x, size_t n, double sd, double offset)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)fmin(fmax(sd * normal() + offset, -3.4e38), 3.4e38);
}

/* ---- Types ------------------------------------------------------------------------------- */

static inline size_t item_size(int32_t dtype)
{
    return dtype == SLG_F64 || dtype == SLG_I64   ? 8
           : dtype == SLG_F32 || dtype == SLG_I32 ? 4
                                                  : 2;
}

static inline double half_value(int32_t dtype, uint16_t h)
{
    int e = h >> 7 & 255, m = h & 127, bits = 7, bias = 127, top = 255;
    if (dtype == SLG_F16) e = h >> 10 & 31, m = h & 1023, bits = 10, bias = 15, top = 31;
    double x = ldexp(e ? m + (1 << bits) : m, (e ? e : 1) - bias - bits);
    if (e == top) x = m ? NAN : INFINITY;
    return h >> 15 ? -x : x;
}

static inline double load(int32_t dtype, const void *p)
{
    float f;
    double d;
    uint16_t h;
    if (dtype == SLG_F64) return memcpy(&d, p, 8), d;
    if (dtype == SLG_F32) return memcpy(&f, p, 4), (double)f;
    memcpy(&h, p, 2);
    return half_value(dtype, h);
}

/* The nearest value of the type; of two, the one with the even pattern. */
static inline void store(int32_t dtype, void *p, double x)
{
    float f = (float)x;
    if (dtype == SLG_F64) {
        memcpy(p, &x, 8);
    } else if (dtype == SLG_F32) {
        memcpy(p, &f, 4);
    } else { /* patterns of one sign are in order: search */
        uint16_t low = 0, high = dtype == SLG_F16 ? 0x7C00 : 0x7F80,
                 sign = signbit(x) ? 0x8000 : 0;
        const double a = fabs(x);
        while (!isnan(a) && high - low > 1) {
            uint16_t middle = (uint16_t)((low + high) / 2);
            if (half_value(dtype, middle) <= a)
                low = middle;
            else
                high = middle;
        }
        double below = half_value(dtype, low), above = half_value(dtype, high);
        if (isinf(above)) above = dtype == SLG_F16 ? 65536.0 : 0x1p128;
        uint16_t h = a - below > above - a || (a - below == above - a && low & 1) ? high : low;
        if (isnan(a)) h = dtype == SLG_F16 ? 0x7E00 : 0x7FC0;
        if (isinf(a)) h = dtype == SLG_F16 ? 0x7C00 : 0x7F80;
        h |= sign;
        memcpy(p, &h, 2);
    }
}

/* What rounding to the type adds to an allowed error at want. */
static inline double rounding(int32_t dtype, double want)
{
    if (dtype == SLG_BF16) return fabs(want) * 0x1p-8 * 1.01 + 0x1p-133;
    if (dtype == SLG_F16) return fabs(want) * 0x1p-11 * 1.01 + 0x1p-25 * 1.01;
    return dtype == SLG_F32 ? fabs(want) * 0x1p-24 : 0;
}

/* ---- Arrays ------------------------------------------------------------------------------ */

enum layout {
    DENSE,
    GAPS,        /* 3 elements more between rows */
    OFF_LINE,    /* dense, from 3 elements after a cache line */
    STRIDED,     /* every other column */
    BACKWARDS,   /* last column first */
    UPSIDE_DOWN, /* last row first, with gaps */
    COLUMN_MAJOR,
    LAYOUTS
};

typedef struct array {
    slg_tensor t;
    unsigned char *memory, *used; /* used[i]: byte i belongs to an element */
    size_t bytes;
} array;

enum { FILL = 0x5C, MARGIN = 256 };

static inline int64_t rows_in(const slg_tensor *t)
{
    int64_t n = 1;
    for (int32_t i = 0; i + 1 < t->ndim; i++) n *= t->shape[i];
    return n;
}

static inline int64_t cols_in(const slg_tensor *t) { return t->shape[t->ndim - 1]; }

static inline void *element(const slg_tensor *t, int64_t row, int64_t col)
{
    int64_t offset = col * t->stride[t->ndim - 1];
    for (int32_t i = t->ndim - 2; i >= 0; i--) {
        offset += row % t->shape[i] * t->stride[i];
        row /= t->shape[i];
    }
    return (char *)t->data + offset * (int64_t)item_size(t->dtype);
}

/* Element i of a per-row array. */
static inline void *per_row(const slg_tensor *t, int64_t i)
{
    slg_tensor u = *t;
    if (u.ndim < 4) u.shape[u.ndim] = 1, u.stride[u.ndim] = 0, u.ndim++;
    return element(&u, i, 0);
}

static inline array new_array(int32_t dtype, int32_t ndim, const int64_t *shape,
                              enum layout layout)
{
    array a = { .t = { .dtype = dtype, .ndim = ndim } };
    const size_t item = item_size(dtype);
    int64_t step = 1, least = 0, count = 1;
    for (int32_t k = ndim - 1; k >= 0; k--) {
        int32_t i = layout == COLUMN_MAJOR ? ndim - 1 - k : k;
        int64_t s = k == ndim - 1 && layout == STRIDED ? 2 : step;
        a.t.shape[i] = shape[i];
        a.t.stride[i] = s;
        step = s * (shape[i] > 0 ? shape[i] : 1);
        if ((layout == GAPS || layout == UPSIDE_DOWN) && k == ndim - 1) step += 3;
        count *= shape[i];
    }
    if (layout == BACKWARDS) a.t.stride[ndim - 1] *= -1;
    if (layout == UPSIDE_DOWN && ndim > 1) a.t.stride[0] *= -1;
    for (int32_t i = 0; i < ndim; i++)
        if (a.t.stride[i] < 0 && shape[i] > 0) least += a.t.stride[i] * (shape[i] - 1);
    a.bytes = ((size_t)step * item + 2 * MARGIN + 64) / 64 * 64;
    a.memory = aligned_alloc(64, a.bytes);
    a.used = calloc(1, a.bytes);
    assert_non_null(a.memory);
    assert_non_null(a.used);
    memset(a.memory, FILL, a.bytes);
    a.t.data = a.memory + MARGIN + (size_t)((layout == OFF_LINE ? 3 : 0) - least) * item;
    for (int64_t r = 0; count && r < rows_in(&a.t); r++)
        for (int64_t c = 0; c < cols_in(&a.t); c++)
            memset(a.used + ((unsigned char *)element(&a.t, r, c) - a.memory), 1, item);
    return a;
}

static inline array new_2d(int32_t dtype, int64_t rows, int64_t cols, enum layout layout)
{
    return new_array(dtype, 2, (const int64_t[]){ rows, cols }, layout);
}

static inline array new_1d(int32_t dtype, int64_t n) { return new_array(dtype, 1, &n, DENSE); }

static inline double get(const array *a, int64_t row, int64_t col)
{
    return load(a->t.dtype, element(&a->t, row, col));
}

static inline void put(array *a, int64_t row, int64_t col, double x)
{
    store(a->t.dtype, element(&a->t, row, col), x);
}

static inline double get_row(const array *a, int64_t i)
{
    return load(a->t.dtype, per_row(&a->t, i));
}

/* Nothing was written but elements. */
static inline void assert_gaps(const array *a)
{
    for (size_t i = 0; i < a->bytes; i++)
        if (!a->used[i] && a->memory[i] != FILL)
            fail_msg("byte %zu of %zu, outside of the array, was written", i, a->bytes);
}

static inline void free_array(array *a)
{
    free(a->memory);
    free(a->used);
    memset(a, 0, sizeof *a);
}

/* An array with normal values; as free_array wants it. */
static inline array random_array(int32_t dtype, int32_t ndim, const int64_t *shape,
                                 enum layout layout, double sd, double offset)
{
    array a = new_array(dtype, ndim, shape, layout);
    float x;
    for (int64_t r = 0; r < rows_in(&a.t); r++)
        for (int64_t c = 0; c < cols_in(&a.t); c++)
            fill(&x, 1, sd, offset), put(&a, r, c, (double)x);
    return a;
}

/* ---- The functions ----------------------------------------------------------------------- */

typedef struct truth { /* of a row; top and sum by x / T */
    long double top, sum, t;
    double lse;
    bool nan;
} truth;

static inline truth truth_of(const array *x, int64_t row, double t)
{
    truth w = { -INFINITY, 0, (long double)t, 0, false };
    const int64_t cols = cols_in(&x->t);
    for (int64_t c = 0; c < cols; c++) {
        double v = get(x, row, c);
        w.nan |= isnan(v);
        if ((long double)v / w.t > w.top) w.top = (long double)v / w.t;
    }
    if (isfinite(w.top))
        for (int64_t c = 0; c < cols; c++) {
            long double z = (long double)get(x, row, c) / w.t - w.top;
            w.sum += cols > 5000 ? (long double)exp((double)z) : expl(z);
        }
    w.lse = w.nan ? NAN : w.sum > 0 ? (double)(w.top + logl(w.sum)) : (double)w.top;
    return w;
}

static inline double true_softmax(const truth *w, double x)
{
    if (w->nan || w->top == INFINITY) return NAN;
    if (w->top == -INFINITY) return 0;
    return (double)(expl((long double)x / w->t - w->top) / w->sum);
}

static inline double true_log_softmax(const truth *w, double x)
{
    if (w->nan || w->top == INFINITY) return NAN;
    if (w->top == -INFINITY) return -INFINITY;
    return (double)((long double)x / w->t - w->top - logl(w->sum));
}

/* Fails, saying where, unless got is want within the error, or both are NaN or the same
   infinity. */
#define assert_near(got, want, error, ...)                                                     \
    assert_near_at(got, want, error, __FILE__, __LINE__, __VA_ARGS__)

static inline void __attribute__((format(printf, 6, 7)))
assert_near_at(double got, double want, double error, const char *file, int line,
               const char *what, ...)
{
    char text[160];
    va_list args;
    if (isnan(want) ? isnan(got) : got == want || fabs(got - want) <= error) return;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    print_error("%s: %.9g, should be %.9g within %.3g, is off by %.3g\n", text, got, want,
                error, fabs(got - want));
    _fail(file, line);
}

/* The promise of softmax.h: 1e-6; less than 2^-124 may be 0. */
static inline double softmax_error(int32_t dtype, double want)
{
    return want < 0x1p-124 ? 0x1p-124 : 1e-6 * want + rounding(dtype, want);
}

static inline double log_softmax_error(int32_t dtype, double want)
{
    return 4e-6 + 1e-6 * fabs(want) + rounding(dtype, want);
}

/* Of the log-sum-exp, which softmax.h says nothing about: BOUND_lse. */
static inline double lse_error(int32_t dtype, double want)
{
    return 7e-7 + 1e-15 * fabs(want) + rounding(dtype, want);
}

/* False under valgrind, which does not emulate flushing to zero. */
static inline bool machine_flushes(void)
{
    volatile float least = FLT_MIN, half = 0.5f, result;
    fp_mode old = fp_enter();
    result = least * half;
    fp_leave(old);
    return result == 0;
}

/* y, if given, against x row by row, and lse too. */
static inline void check_softmax(const array *x, double t, const array *y, const array *lse,
                                 bool logs, double more, const char *what)
{
    const int64_t cols = cols_in(&x->t);
    for (int64_t r = 0; r < rows_in(&x->t); r++) {
        truth w = truth_of(x, r, t);
        for (int64_t c = 0; y && c < cols; c++) {
            double v = get(x, r, c), got = get(y, r, c);
            double want = logs ? true_log_softmax(&w, v) : true_softmax(&w, v);
            if (logs && want < -(double)FLT_MAX) want = -INFINITY;
            double error = logs ? log_softmax_error(y->t.dtype, want)
                                : softmax_error(y->t.dtype, want) + more * fabs(want);
            if (y->t.dtype == SLG_F16 && want < -65519) want = -INFINITY;
            if (v == -INFINITY && !isnan(want)) error = 0;
            if (!logs && y->t.dtype == SLG_F32 && got != 0 && fabs(got) < (double)FLT_MIN &&
                machine_flushes())
                fail_msg("%s T %g: %g is a subnormal number, at column %d of %d", what, t, got,
                         (int)c, (int)cols);
            assert_near(got, want, error, "%s T %g row %d of %d x %d, column %d", what, t,
                        (int)r, (int)rows_in(&x->t), (int)cols, (int)c);
        }
        if (lse && lse->t.dtype == SLG_F32 && fabs(w.lse) > (double)FLT_MAX)
            w.lse = copysign(INFINITY, w.lse);
        if (lse)
            assert_near(get_row(lse, r), w.lse, lse_error(lse->t.dtype, w.lse),
                        "%s T %g log-sum-exp of row %d of %d x %d", what, t, (int)r,
                        (int)rows_in(&x->t), (int)cols);
    }
    if (y) assert_gaps(y);
    if (lse) assert_gaps(lse);
}

#endif
