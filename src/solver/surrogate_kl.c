/*
 * surrogate_kl.c - KL(softmax(from) || softmax(z)) of a row, and its gradient in z. With p =
 * softmax(from), m = <p, z - from> and lse the log-sum-exps it is
 *
 *     lse(z) - lse(from) - m,      or      log(1 + sum p (exp(e) - 1 - e)),  e = z - from - m,
 *
 * the second where rows are close: the first cancels there. An error of m counts in its square
 * alone.
 */
#include "surrogate_kl.h"

#include <math.h>
#include <string.h>

#include "softmax/parts.h"

/* Below it the second form is used, whose terms cannot overflow then. */
#define CLOSE 0.25

typedef struct kl_row {
    const kernel_table *k;
    const surrogate_run *r;
    int64_t row, cols;
    row_stat from, z;
    double mean;
} kl_row;

/* Both log-sum-exps and the mean of z - from. */
static void reduce(kl_row *l, float *scratch)
{
    const rows *o = l->r->o.r;
    const exp_arg unit = exp_arg_of(1.0, 0.0f);
    lse_part from = LSE_EMPTY, z = LSE_EMPTY;
    double dot = 0;
    for (int64_t col = 0; col < l->cols; col += KERNEL_BLOCK) {
        const int64_t n = l->cols - col < KERNEL_BLOCK ? l->cols - col : KERNEL_BLOCK;
        const float *a = rows_fetch(l->k, &o[S_Z], l->row, col, n, scratch);
        const float *b = rows_fetch(l->k, &o[S_FROM], l->row, col, n, scratch + KERNEL_BLOCK);
        l->k->lse_pair((size_t)n, a, &unit, &z, b, &unit, &from, PAIR_DIFFERENCE, 0, &dot);
    }
    const rows_source sz = { l->k, o[S_Z] }, sf = { l->k, o[S_FROM] };
    row_start(&l->z, &unit), row_start(&l->from, &unit);
    row_settle(l->k, &l->z, &z, l->row, l->cols, rows_source_fetch, &sz);
    row_settle(l->k, &l->from, &from, l->row, l->cols, rows_source_fetch, &sf);
    l->mean = -dot / from.sum;
}

/* Rows that are not of the kernels' range: one by one, in double. */
static double far_mean(const kl_row *l)
{
    const rows *o = l->r->o.r;
    double mean = 0;
    for (int64_t c = 0; c < l->cols; c++) {
        const double from = rows_get(&o[S_FROM], l->row, c), z = rows_get(&o[S_Z], l->row, c);
        const double p = exp(from - l->from.lse);
        if (p > 0) mean += p * (z - from);
    }
    return mean;
}

static double close_value(const kl_row *l, float *scratch)
{
    const rows *o = l->r->o.r;
    const exp_arg *arg = &l->from.arg;
    const exp_out p = row_out(&l->from, 1, 0);
    const exp_out moved = exp_out_of(arg, l->from.lse_rel + l->mean, 1);
    double sum = 0;
    for (int64_t col = 0; col < l->cols; col += KERNEL_BLOCK) {
        const int64_t n = l->cols - col < KERNEL_BLOCK ? l->cols - col : KERNEL_BLOCK;
        const float *a = rows_fetch(l->k, &o[S_FROM], l->row, col, n, scratch);
        const float *b = rows_fetch(l->k, &o[S_Z], l->row, col, n, scratch + KERNEL_BLOCK);
        sum += l->k->kl_beyond((size_t)n, a, b, (float)l->mean, &p, &moved);
    }
    return log1p(sum);
}

/* grad = G + (softmax(z) - softmax(from)) / eta. */
static void gradient(const kl_row *l, double divergence, float *scratch)
{
    const rows *o = l->r->o.r;
    const bool live = isfinite(divergence) && l->z.kind == ROW_PLAIN;
    const exp_out ez = live ? row_out(&l->z, l->r->inv, 0) : (exp_out){ 0 };
    const exp_out ef = live ? row_out(&l->from, -l->r->inv, 0) : (exp_out){ 0 };
    float *b0 = scratch, *b1 = b0 + KERNEL_BLOCK, *b2 = b1 + KERNEL_BLOCK,
          *move = b2 + KERNEL_BLOCK, *own = move + KERNEL_BLOCK;
    for (int64_t col = 0; col < l->cols; col += KERNEL_BLOCK) {
        const int64_t n = l->cols - col < KERNEL_BLOCK ? l->cols - col : KERNEL_BLOCK;
        const float *g = rows_fetch(l->k, &o[S_G], l->row, col, n, b0);
        const float *z = rows_fetch(l->k, &o[S_Z], l->row, col, n, b1);
        const float *from = rows_fetch(l->k, &o[S_FROM], l->row, col, n, b2);
        float *to = rows_stage(&o[S_GRAD], l->row, col, own);
        if (live)
            l->k->exp_emit2((size_t)n, z, &ez, from, &ef, move, STORE_CACHED);
        else
            fill_f32(move, n, isnan(divergence) ? NAN : 0.0f);
        l->k->add((size_t)n, g, move);
        memcpy(to, move, (size_t)n * sizeof *to);
        if (to == own) rows_commit(l->k, &o[S_GRAD], l->row, col, n, own);
    }
}

static double value(kl_row *l, float *scratch)
{
    if (l->z.kind == ROW_MASKED && l->from.kind == ROW_MASKED) return 0;
    if (l->z.kind != ROW_PLAIN || l->from.kind != ROW_PLAIN) return NAN;
    const bool near = l->z.arg.plain && l->from.arg.plain;
    if (!near) l->mean = far_mean(l);
    const double apart = l->z.lse - l->from.lse - l->mean;
    if (!(apart < CLOSE) || !near) return fmax(apart, 0);
    return fmax(close_value(l, scratch), 0);
}

double surrogate_kl_row(const kernel_table *k, const surrogate_run *r, int64_t row,
                        float *scratch)
{
    kl_row l = { .k = k, .r = r, .row = row, .cols = r->o.r[S_Z].cols };
    reduce(&l, scratch);
    const double divergence = value(&l, scratch);
    if (r->o.t[S_GRAD]) gradient(&l, divergence, scratch);
    return divergence;
}
