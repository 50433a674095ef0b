/*
 * loss_test.h - what tests of losses share: tensors of any type and layout, and cross-entropy
 * in plain double arithmetic, written from the formulas of loss.h and from nothing
 * of the library.
 */
#ifndef TESTS_LOSS_LOSS_TEST_H
#define TESTS_LOSS_LOSS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "softlogit/softlogit.h"

#define COUNT(array) (int64_t)(sizeof(array) / sizeof *(array))

/* ---- Contexts ---------------------------------------------------------------------------- */

/* A context of a level; NULL where the CPU lacks it. */
static inline slg_ctx *context(int32_t isa, int32_t threads)
{
    slg_ctx_opts o;
    slg_ctx *ctx;
    slg_ctx_opts_init(&o, sizeof o);
    o.isa = isa;
    o.num_threads = threads;
    slg_status status = slg_ctx_create(&o, &ctx);
    if (status == SLG_ERR_UNSUPPORTED) return NULL;
    assert_int_equal(status, SLG_OK);
    return ctx;
}

/* For each level of this CPU. */
#define FOR_EACH_ISA(ctx, threads)                                                             \
    for (int32_t isa_ = SLG_ISA_PORTABLE; isa_ <= SLG_ISA_AVX512; isa_++)                      \
        for (slg_ctx *ctx = context(isa_, threads); ctx; slg_ctx_free(ctx), ctx = NULL)

#define OK(ctx, call)                                                                          \
    do {                                                                                       \
        slg_status status_ = (call);                                                           \
        if (status_) fail_msg("%s: %d, %s", #call, status_, slg_ctx_message(ctx));             \
    } while (0)

/* ---- Random numbers ---------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252u;

static inline uint64_t random_bits(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed >> 11;
}

static inline double uniform(void) { return ((double)random_bits() + 0.5) * 0x1p-53; }

static inline int64_t below(int64_t n) { return (int64_t)(random_bits() % (uint64_t)n); }

static inline double normal(void)
{
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* ---- Tensors ----------------------------------------------------------------------------- */

static inline size_t item_size(int32_t dtype)
{
    return dtype == SLG_BF16 || dtype == SLG_F16  ? 2
           : dtype == SLG_F64 || dtype == SLG_I64 ? 8
                                                  : 4;
}

static inline double half_value(uint16_t h)
{
    int e = h >> 10 & 31, f = h & 1023;
    double x = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(f + 1024, e - 25) : ldexp(f, -24);
    return h >> 15 ? -x : x;
}

static inline uint16_t half_bits(double x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    int e;
    x = fabs(x);
    if (isnan(x)) return 0x7E00;
    if (x >= 65520) return sign | 0x7C00;
    if (x < 0x1p-14) return (uint16_t)(sign | (int)rint(x * 0x1p24));
    double f = frexp(x, &e);
    return (uint16_t)(sign | ((int)rint(f * 2048) + (e + 13) * 1024));
}

static inline double get_item(int32_t dtype, const void *p)
{
    uint32_t bits;
    float f;
    switch (dtype) {
    case SLG_F32:
        return (double)*(const float *)p;
    case SLG_F64:
        return *(const double *)p;
    case SLG_I32:
        return *(const int32_t *)p;
    case SLG_I64:
        return (double)*(const int64_t *)p;
    case SLG_F16:
        return half_value(*(const uint16_t *)p);
    default:
        bits = (uint32_t) * (const uint16_t *)p << 16;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
}

static inline void put_item(int32_t dtype, void *p, double x)
{
    uint32_t bits;
    float f = (float)x;
    switch (dtype) {
    case SLG_F32:
        *(float *)p = f;
        break;
    case SLG_F64:
        *(double *)p = x;
        break;
    case SLG_I32:
        *(int32_t *)p = (int32_t)x;
        break;
    case SLG_I64:
        *(int64_t *)p = (int64_t)x;
        break;
    case SLG_F16:
        *(uint16_t *)p = half_bits(x);
        break;
    default:
        memcpy(&bits, &f, sizeof f);
        *(uint16_t *)p =
            isnan(x) ? 0x7FC0 : (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
}

/* x as the type holds it. */
static inline double as_dtype(int32_t dtype, double x)
{
    double slot = 0;
    put_item(dtype, &slot, x);
    return get_item(dtype, &slot);
}

/* Half a step of a type around x: what rounding of a result to it may add. */
static inline double rounding(int32_t dtype, double x)
{
    if (dtype == SLG_BF16) return fabs(x) * 0x1p-8 + 1.2e-38;
    if (dtype == SLG_F16) return fabs(x) * 0x1p-11 + 0x1p-25;
    return fabs(x) * 0x1p-24 + 1.2e-38; /* subnormal results may be 0 */
}

enum layout {
    CONTIGUOUS,
    ROW_GAPS,   /* rows apart by more than a row */
    COL_GAPS,   /* every third element, rows apart */
    UPSIDE_DOWN /* negative row stride */
};

/* A tensor and its memory, whose gaps hold 0x7E. */
typedef struct tensor {
    slg_tensor t;
    unsigned char *memory;
    size_t bytes;
} tensor;

static inline char *item_at(const slg_tensor *t, int64_t r, int64_t c)
{
    int64_t at = t->ndim == 1 ? c * t->stride[0] : r * t->stride[0] + c * t->stride[1];
    return (char *)t->data + at * (int64_t)item_size(t->dtype);
}

static inline double get(const tensor *a, int64_t r, int64_t c)
{
    return get_item(a->t.dtype, item_at(&a->t, r, c));
}

static inline void put(const tensor *a, int64_t r, int64_t c, double x)
{
    put_item(a->t.dtype, item_at(&a->t, r, c), x);
}

static inline tensor matrix(int32_t dtype, int64_t rows, int64_t cols, enum layout layout)
{
    tensor a = { .t = slg_tensor_2d(NULL, dtype, rows, cols) };
    int64_t *stride = a.t.stride;
    if (layout == ROW_GAPS || layout == UPSIDE_DOWN) stride[0] = cols + 5;
    if (layout == COL_GAPS) stride[1] = 3, stride[0] = 3 * cols + 2;
    a.bytes = (size_t)(rows * stride[0] + 16) * item_size(dtype);
    a.memory = malloc(a.bytes);
    assert_non_null(a.memory);
    memset(a.memory, 0x7E, a.bytes);
    a.t.data = a.memory + 8 * item_size(dtype);
    if (layout == UPSIDE_DOWN && rows > 0) {
        a.t.data = item_at(&a.t, rows - 1, 0);
        stride[0] = -stride[0];
    }
    return a;
}

/* One axis; any layout but CONTIGUOUS has gaps. */
static inline tensor vector(int32_t dtype, int64_t n, enum layout layout)
{
    tensor a = matrix(dtype, 1, n, layout == CONTIGUOUS ? CONTIGUOUS : COL_GAPS);
    a.t.ndim = 1;
    a.t.shape[0] = n, a.t.stride[0] = a.t.stride[1];
    return a;
}

static inline void release(tensor *a)
{
    free(a->memory);
    memset(a, 0, sizeof *a);
}

/* Everything beside the elements is 0x7E still. Destroys the elements. */
static inline void assert_gaps_intact(tensor *a)
{
    int64_t rows = a->t.ndim == 1 ? 1 : a->t.shape[0], cols = a->t.shape[a->t.ndim - 1];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            memset(item_at(&a->t, r, c), 0x7E, item_size(a->t.dtype));
    for (size_t i = 0; i < a->bytes; i++)
        if (a->memory[i] != 0x7E) fail_msg("byte %zu beside a tensor was written", i);
}

/* Through memory: gcc 12 drops the rounding of `condition ? 0 : (float)x` where that becomes
   a double again. */
static inline double single(double x)
{
    volatile float f = (float)x;
    return (double)f;
}

/* ---- A problem --------------------------------------------------------------------------- */

typedef struct problem {
    int64_t rows, cols;
    bool has_prob;
    double *x;      /* [rows, cols] */
    double *q;      /* [rows, cols]; NULL: index */
    int64_t *index; /* [rows] */
    int64_t ignore_index;
    double *row_weight, *class_weight; /* NULL: ones */
    int *mask;                         /* NULL: none */
    double temperature, softcap, smoothing, z_loss;
    int32_t reduction;
} problem;

static inline void *zeros(int64_t n, size_t size)
{
    void *p = calloc((size_t)n + 1, size);
    assert_non_null(p);
    return p;
}

static inline problem problem_of(int64_t rows, int64_t cols)
{
    problem p = { .rows = rows, .cols = cols, .ignore_index = -100, .temperature = 1 };
    p.reduction = SLG_SUM;
    p.x = zeros(rows * cols, sizeof *p.x);
    p.index = zeros(rows, sizeof *p.index);
    return p;
}

static inline void problem_free(problem *p)
{
    free(p->x), free(p->q), free(p->index), free(p->row_weight), free(p->class_weight);
    free(p->mask);
    memset(p, 0, sizeof *p);
}

static inline bool live(const problem *p, int64_t r, int64_t c)
{
    return !(p->mask && p->mask[c] == 0) && p->x[r * p->cols + c] != -INFINITY;
}

/* ---- Cross-entropy in double ------------------------------------------------------------- */

typedef struct answer {
    double *loss, *lse;   /* [rows] */
    double *loss_size;    /* sums of magnitudes of what a loss is the sum of */
    double *dx, *dx_size; /* [rows, cols] and the same */
    double value, sum, weight;
    double sum_size;
    int64_t count, correct;
    bool close_call; /* softcap brings logits so close that `correct` is open */
} answer;

static inline void answer_free(answer *a)
{
    free(a->loss), free(a->lse), free(a->loss_size), free(a->dx), free(a->dx_size);
}

/* The logit after softcap, mask, temperature; *slope is its derivative. */
static inline double transform(const problem *p, int64_t c, double x, double *slope)
{
    *slope = 1 / p->temperature;
    if (p->mask && p->mask[c] == 0) return *slope = 0, -INFINITY;
    if (p->softcap > 0 && x != -INFINITY) {
        double y = x / p->softcap, e = exp(-2 * fabs(y));
        *slope *= 4 * e / ((1 + e) * (1 + e)); /* 1 / cosh^2 */
        x = p->softcap * tanh(y);
    }
    return x / p->temperature;
}

static inline int64_t first_max(const double *z, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
        if (z[i] > z[at]) at = i;
    return at;
}

/* One row that counts: z are its transformed logits, slope their derivatives. */
static inline void answer_row(const problem *p, int64_t r, const double *z, const double *slope,
                              double scale, answer *a)
{
    const int64_t cols = p->cols, t = p->has_prob ? -1 : p->index[r];
    const double e = p->smoothing, w = p->row_weight ? p->row_weight[r] : 1;
    double *dx = a->dx + r * cols, *size = a->dx_size + r * cols;
    double rest = 0, top = -INFINITY, lse = a->lse[r], classes = 0;
    for (int64_t k = 0; k < cols; k++) classes += z[k] != -INFINITY;
    for (int64_t k = 0; k < cols; k++)
        if (k != t && z[k] > top) top = z[k];
    for (int64_t k = 0; k < cols && top > -INFINITY; k++)
        if (k != t) rest += exp(z[k] - top);
    /* -log p[t] and 1 - p[t] without cancellation. */
    double odds = t < 0 || z[t] == -INFINITY ? INFINITY
                  : rest == 0                ? 0
                                             : exp(log(rest) + top - z[t]);
    double log_odds = t < 0 || z[t] == -INFINITY ? INFINITY : log(rest) + top - z[t];
    double nll_t = log_odds > 30 ? log_odds : log1p(odds);
    double other = odds == INFINITY ? 1 : odds / (1 + odds);

    double loss = 0, loss_size = 0, total = 0; /* total: of the weighted target */
    for (int64_t k = 0; k < cols; k++) {
        double cw = p->class_weight ? p->class_weight[k] : 1;
        double hot = t < 0 ? p->q[r * cols + k] : k == t;
        double even = z[k] > -INFINITY && classes > 0 ? e / classes : 0;
        double target = cw * ((1 - e) * hot + even);
        double nll = k == t ? nll_t : lse - z[k];
        if (target != 0) {
            loss += target * nll;
            double hot_size = k == t ? nll : fabs(lse) + fabs(z[k]) + 1;
            loss_size += cw * (1 - e) * hot * hot_size;
            loss_size += cw * even * (fabs(lse) + fabs(z[k]) + 1);
        }
        total += target;
    }
    loss += p->z_loss * lse * lse;
    loss_size += p->z_loss * (lse * lse + fabs(lse));
    a->loss[r] = w == 0 ? 0 : w * loss;
    a->loss_size[r] = w == 0 ? 0 : w * loss_size;
    double factor = total + 2 * p->z_loss * lse;
    for (int64_t k = 0; k < cols; k++) {
        double cw = p->class_weight ? p->class_weight[k] : 1;
        double hot = t < 0 ? p->q[r * cols + k] : k == t;
        double prob = exp(z[k] - lse);
        double even = cw * e / classes, d;
        if (k == t) /* (1-e) cw (p - 1) + (other terms) p - e/K cw */
            d = -(1 - e) * cw * other + (factor - (1 - e) * cw) * prob - even;
        else
            d = factor * prob - cw * (1 - e) * hot - even;
        if (z[k] == -INFINITY) continue;
        dx[k] = w * d * scale * slope[k];
        double terms = k == t ? (1 - e) * cw * other + fabs(factor - (1 - e) * cw) * prob + even
                              : fabs(factor) * prob + cw * (1 - e) * hot + even;
        size[k] = w * terms * scale / p->temperature;
    }
}

static inline answer answer_of(const problem *p)
{
    const int64_t rows = p->rows, cols = p->cols;
    answer a = { .loss = zeros(rows, sizeof(double)), .lse = zeros(rows, sizeof(double)) };
    a.loss_size = zeros(rows, sizeof(double));
    a.dx = zeros(rows * cols, sizeof(double)), a.dx_size = zeros(rows * cols, sizeof(double));
    double *z = zeros(cols, sizeof *z), *slope = zeros(cols, sizeof *slope);
    for (int64_t r = 0; r < rows; r++) {
        if (!p->has_prob && p->index[r] == p->ignore_index) continue;
        double w = p->row_weight ? p->row_weight[r] : 1;
        a.count++;
        a.weight += !p->has_prob && p->class_weight ? w * p->class_weight[p->index[r]] : w;
    }
    double scale = p->reduction != SLG_MEAN ? 1 : a.weight > 0 ? 1 / a.weight : 0;
    for (int64_t r = 0; r < rows; r++) {
        double top = -INFINITY, sum = 0;
        bool nan = false, ignored = !p->has_prob && p->index[r] == p->ignore_index;
        for (int64_t k = 0; k < cols; k++) {
            z[k] = transform(p, k, p->x[r * cols + k], &slope[k]);
            nan = nan || isnan(z[k]);
            if (z[k] > top) top = z[k];
        }
        bool bad = nan || top == INFINITY;
        for (int64_t k = 0; k < cols && isfinite(top); k++) sum += exp(z[k] - top);
        a.lse[r] = nan ? NAN : isinf(top) ? top : top + log(sum);
        if (ignored) continue;
        if (bad) {
            a.loss[r] = NAN;
            for (int64_t k = 0; k < cols; k++) a.dx[r * cols + k] = NAN;
        } else if (top == -INFINITY) {
            a.loss[r] = p->row_weight && p->row_weight[r] == 0 ? 0 : INFINITY;
        } else {
            answer_row(p, r, z, slope, scale, &a);
            int64_t best = first_max(z, cols);
            a.correct += best == (p->has_prob ? first_max(p->q + r * cols, cols) : p->index[r]);
            for (int64_t k = 0; k < cols && p->softcap > 0; k++)
                if (k != best && z[best] - z[k] < 1e-5 * fabs(z[best]) &&
                    p->x[r * cols + k] != p->x[r * cols + best])
                    a.close_call = true;
        }
        a.sum += a.loss[r];
        a.sum_size += a.loss_size[r];
    }
    a.value = a.count == 0 || (p->reduction == SLG_MEAN && a.weight == 0) ? 0 : a.sum * scale;
    free(z), free(slope);
    return a;
}

/* ---- A call ------------------------------------------------------------------------------ */

/* A problem's tensors, as the library takes them. */
typedef struct operands {
    tensor x, q, index, row_weight, class_weight, mask;
    slg_logits logits;
    slg_targets targets;
    slg_cross_entropy_opts opts;
} operands;

static inline void fill(tensor *a, const double *from)
{
    int64_t rows = a->t.ndim == 1 ? 1 : a->t.shape[0], cols = a->t.shape[a->t.ndim - 1];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) put(a, r, c, from[r * cols + c]);
}

/* x, and q, must be what their types hold. The pointers in o point into o. */
static inline void operands_of(const problem *p, int32_t x_type, int32_t q_type,
                               int32_t index_type, int32_t mask_type, enum layout layout,
                               operands *o)
{
    memset(o, 0, sizeof *o);
    slg_logits_init(&o->logits, sizeof o->logits);
    slg_targets_init(&o->targets, sizeof o->targets);
    slg_cross_entropy_opts_init(&o->opts, sizeof o->opts);
    o->x = matrix(x_type, p->rows, p->cols, layout);
    fill(&o->x, p->x);
    o->logits.dense = &o->x.t;
    o->logits.temperature = p->temperature;
    o->logits.softcap = p->softcap;
    if (p->mask) {
        o->mask = vector(mask_type, p->cols, layout);
        for (int64_t c = 0; c < p->cols; c++) put(&o->mask, 0, c, p->mask[c]);
        o->logits.mask = &o->mask.t;
    }
    if (p->has_prob) {
        o->q = matrix(q_type, p->rows, p->cols, layout);
        fill(&o->q, p->q);
        o->targets.prob = &o->q.t;
    } else {
        o->index = vector(index_type, p->rows, layout);
        for (int64_t r = 0; r < p->rows; r++) put(&o->index, 0, r, (double)p->index[r]);
        o->targets.index = &o->index.t;
        o->targets.ignore_index = p->ignore_index;
    }
    if (p->row_weight) {
        o->row_weight = vector(SLG_F32, p->rows, layout);
        fill(&o->row_weight, p->row_weight);
        o->targets.row_weight = &o->row_weight.t;
    }
    if (p->class_weight) {
        o->class_weight = vector(SLG_F32, p->cols, layout);
        fill(&o->class_weight, p->class_weight);
        o->targets.class_weight = &o->class_weight.t;
    }
    o->opts.reduction = p->reduction;
    o->opts.label_smoothing = p->smoothing;
    o->opts.z_loss = p->z_loss;
}

static inline void operands_free(operands *o)
{
    release(&o->x), release(&o->q), release(&o->index), release(&o->row_weight);
    release(&o->class_weight), release(&o->mask);
}

static inline slg_loss_out loss_out(slg_tensor *loss, slg_tensor *lse)
{
    slg_loss_out out;
    slg_loss_out_init(&out, sizeof out);
    out.loss = loss, out.lse = lse;
    return out;
}

static inline slg_logits_grad dense_grad(slg_tensor *dlogits)
{
    slg_logits_grad g;
    slg_logits_grad_init(&g, sizeof g);
    g.dlogits = dlogits;
    return g;
}

/* ---- Comparison -------------------------------------------------------------------------- */

typedef struct worst {
    double loss, lse, grad, value; /* in units of the tolerance; at most 1 */
} worst;

/* Fails unless |got - want| <= allowed, where NaN and infinities are their like. */
static inline void compare(const char *what, int64_t r, int64_t c, double got, double want,
                           double allowed, double *most)
{
    if ((isnan(got) && isnan(want)) || got == want) return;
    double e = fabs(got - want) / allowed;
    if (!(e <= 1))
        fail_msg("%s[%lld, %lld] is %.9g, should be %.9g: %.3g times what is allowed", what,
                 (long long)r, (long long)c, got, want, e);
    if (e > *most) *most = e;
}

/* How much errors of the logits, made by softcap, add: relative in p. */
static inline double allowance(const problem *p)
{
    return p->softcap > 0 ? 1 + p->softcap / p->temperature : 1;
}

#define LOSS_TOLERANCE 8e-7 /* of the sum of magnitudes */
#define GRAD_TOLERANCE 8e-7 /* of the sum of magnitudes */
#define LSE_TOLERANCE 3e-7  /* absolute, and relative */

static inline void compare_out(const problem *p, const answer *a, const slg_loss_out *out,
                               const tensor *loss, const tensor *lse, worst *w)
{
    double more = allowance(p);
    for (int64_t r = 0; r < p->rows; r++) {
        if (loss)
            compare("loss", r, 0, get(loss, 0, r), a->loss[r],
                    LOSS_TOLERANCE * more * a->loss_size[r] + 1.2e-38, &w->loss);
        if (lse)
            compare("lse", r, 0, get(lse, 0, r), a->lse[r],
                    LSE_TOLERANCE * more * (1 + fabs(a->lse[r])), &w->lse);
    }
    double scale = a->sum != 0 && isfinite(a->sum) ? fabs(a->value / a->sum) : 1;
    compare("sum", 0, 0, out->sum, a->sum, LOSS_TOLERANCE * more * a->sum_size + 1e-300,
            &w->value);
    compare("value", 0, 0, out->value, a->value,
            LOSS_TOLERANCE * more * a->sum_size * scale + 1e-300, &w->value);
    compare("weight", 0, 0, out->weight, a->weight, 1e-12 * a->weight, &w->value);
    assert_int_equal(out->count, a->count);
    if (!a->close_call) assert_int_equal(out->correct, a->correct);
}

static inline void compare_grad(const problem *p, const answer *a, const tensor *dx, worst *w)
{
    double more = allowance(p), rounded = 0; /* the latter says how good float32 is no more */
    double *most = dx->t.dtype == SLG_F32 ? &w->grad : &rounded;
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t c = 0; c < p->cols; c++) {
            int64_t i = r * p->cols + c;
            compare("dlogits", r, c, get(dx, r, c), a->dx[i],
                    GRAD_TOLERANCE * more * a->dx_size[i] + rounding(dx->t.dtype, a->dx[i]),
                    most);
        }
}

#endif
