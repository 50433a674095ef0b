/*
 * parts.c - see parts.h.
 */
#include "parts.h"

#include <math.h>

#define LN2 0.6931471805599453094
#define LOG2E 1.4426950408889634074

exp_arg exp_arg_of(double temperature, float pre)
{
    static const exp_arg unit = {
        0x1.715476p+0f, 0x1.62e430p-1f, 0, 1, 0, 1, 0x1.62e430p-1, 1
    };
    if (temperature == 1.0 && pre == 0.0f) return unit;
    double step = temperature * LN2;
    exp_arg a = { .temperature = temperature };
    a.log2e_t = (float)(LOG2E / temperature);
    a.step_hi = (float)step;
    a.step_lo = (float)(step - (double)a.step_hi);
    a.inv_t = (float)(1.0 / temperature);
    a.pre = pre;
    /* The kernels multiply by inv_t in float32; the steps are worth what they took off. */
    a.unit = ((double)a.step_hi + (double)a.step_lo) / temperature;
    return a;
}

void part_merge(lse_part *a, const lse_part *b)
{
    if (b->max > a->max) a->max = b->max;
    if (b->ref == -INFINITY) {
        a->sum += b->sum; /* 0, or a NaN that must not be lost */
        return;
    }
    if (a->ref == -INFINITY) {
        a->sum += b->sum;
        a->ref = b->ref;
        return;
    }
    float ref = a->ref > b->ref ? a->ref : b->ref;
    a->sum = ldexp(a->sum, (int)(a->ref - ref)) + ldexp(b->sum, (int)(b->ref - ref));
    a->ref = ref;
}

void row_start(row_stat *s, const exp_arg *arg)
{
    s->arg = *arg;
    s->segment = s->part = LSE_EMPTY;
}

void row_emit_reduce(const kernel_table *k, const exp_out *e, const float *x, float *y,
                     row_stat *now, const float *next, int64_t cols, int64_t col, int64_t n)
{
    int64_t from, to;
    line_cut(y, cols, col, n, &from, &to);
    int64_t head = col == 0 ? line_skew(y) : 0;
    if (head > to) head = to;
    if (head > 0) k->exp_emit((size_t)head, x, e, y, STORE_CACHED);
    from += head;
    row_segment(now, col);
    k->emit_lse((size_t)(to - from), x + from, e, y + from, (size_t)n, next + col, &now->arg,
                &now->segment);
}

/* NaN, +inf and the maximum of a row, looked at one by one: such rows are rare. */
static row_kind classify(int64_t row, int64_t cols, row_fetch fetch, const void *source,
                         float *max)
{
    float scratch[KERNEL_BLOCK];
    *max = -INFINITY;
    for (int64_t col = 0; col < cols; col += KERNEL_BLOCK) {
        int64_t n = cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK;
        const float *x = fetch(source, row, col, n, scratch);
        for (int64_t i = 0; i < n; i++) {
            if (isnan(x[i])) return ROW_NAN;
            if (x[i] > *max) *max = x[i];
        }
    }
    return *max == INFINITY ? ROW_INF : *max == -INFINITY ? ROW_MASKED : ROW_PLAIN;
}

static void reduce_all(const kernel_table *k, row_stat *s, int64_t row, int64_t cols,
                       row_fetch fetch, const void *source)
{
    float scratch[KERNEL_BLOCK];
    for (int64_t col = 0; col < cols; col += KERNEL_BLOCK) {
        int64_t n = cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK;
        row_reduce(k, s, col, n, fetch(source, row, col, n, scratch));
    }
    part_merge(&s->part, &s->segment);
}

void row_settle(const kernel_table *k, row_stat *s, const lse_part *part, int64_t row,
                int64_t cols, row_fetch fetch, const void *source)
{
    s->part = *part;
    if (isfinite(part->sum) && fabsf(part->max * s->arg.log2e_t) <= EXP_LIMIT) {
        s->kind = ROW_PLAIN;
    } else if (part->sum == 0 && part->max == -INFINITY) {
        s->kind = ROW_MASKED;
    } else {
        float max;
        s->kind = classify(row, cols, fetch, source, &max);
        if (s->kind == ROW_PLAIN) {
            /* Beyond the range of whole steps: around the maximum, as three passes do. */
            exp_arg arg = s->arg;
            arg.pre = max;
            arg.plain = 0;
            if (s->arg.plain) arg = exp_arg_of(1.0, max);
            row_start(s, &arg);
            reduce_all(k, s, row, cols, fetch, source);
        }
    }
    if (s->kind == ROW_PLAIN)
        s->lse_rel = log(s->part.sum) + (double)s->part.ref * s->arg.unit;
    else
        s->lse_rel = s->kind == ROW_MASKED ? -INFINITY : s->kind == ROW_INF ? INFINITY : NAN;
    s->lse =
        s->arg.pre == 0 ? s->lse_rel : s->lse_rel + (double)s->arg.pre / s->arg.temperature;
}

void row_finish(const kernel_table *k, row_stat *s, int64_t row, int64_t cols, row_fetch fetch,
                const void *source)
{
    lse_part whole = s->part;
    part_merge(&whole, &s->segment);
    row_settle(k, s, &whole, row, cols, fetch, source);
}

exp_out row_out(const row_stat *s, double weight, float c)
{
    return (exp_out){ s->arg, s->part.ref, (float)(weight / s->part.sum), c };
}

exp_out exp_out_of(const exp_arg *arg, double lse, double weight)
{
    /* Beyond EXP_LIMIT, with arg->pre, all results are 0. */
    lse = fmin(fmax(lse, -(double)EXP_LIMIT * arg->unit), (double)EXP_LIMIT * arg->unit);
    double ref = rint(lse / arg->unit);
    return (exp_out){ *arg, (float)ref, (float)(weight * exp(ref * arg->unit - lse)), 0.0f };
}

const float *rows_source_fetch(const void *source, int64_t row, int64_t col, int64_t n,
                               float *scratch)
{
    const rows_source *s = source;
    return rows_fetch(s->k, &s->x, row, col, n, scratch);
}

void fill_f32(float *y, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++) y[i] = value;
}
