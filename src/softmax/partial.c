/*
 * partial.c - the partial softmax in public: a piece of a row as (m, n), the merge, and pass 2
 * of a piece, from a pair or from a log-sum-exp (which is the gradient of log-sum-exp).
 */
#include <math.h>

#include "pipeline.h"
#include "softmax_options.h"

#define LN2 0.6931471805599453094

/* ---- Pieces to pairs -------------------------------------------------------------------- */

typedef struct reduce_job {
    rows_source src;
    rows m, n;
    exp_arg arg;
} reduce_job;

static void reduce_start(void *self, int64_t row, void *s)
{
    (void)row;
    row_start(s, &((const reduce_job *)self)->arg);
}

static void reduce_block(void *self, int64_t row, void *s, int64_t col, int64_t n)
{
    const reduce_job *j = self;
    float scratch[KERNEL_BLOCK];
    row_reduce(j->src.k, s, col, n, rows_fetch(j->src.k, &j->src.x, row, col, n, scratch));
}

static void put_pair(void *self, int64_t row, void *state)
{
    const reduce_job *j = self;
    row_stat *s = state;
    row_finish(j->src.k, s, row, j->src.x.cols, rows_source_fetch, &j->src);
    double m = NAN, n = 0;
    if (s->kind == ROW_MASKED) {
        m = 0, n = -INFINITY;
    } else if (s->kind == ROW_PLAIN) {
        double log2_sum = s->lse / LN2, held;
        n = floor(log2_sum);
        held = (double)(float)n;            /* past 2^24 not n itself: then m takes the rest */
        n = fabs(n) <= 0x1p31 ? held : NAN; /* and past 2^31 nothing does */
        m = exp2(log2_sum - n);
        if ((float)m == 2.0f && fabs(n) < 0x1p24) m = 1, n += 1; /* rounded up to 2 */
        if (isnan(n)) n = 0;
    }
    rows_put(&j->m, row, 0, m);
    rows_put(&j->n, row, 0, n);
}

static const row_job reduce_rows = { sizeof(row_stat), reduce_start, reduce_block,
                                     put_pair,         NULL,         NULL };

static slg_status partial_softmax(slg_ctx *ctx, const slg_tensor *x,
                                  const slg_softmax_opts *opts, slg_tensor *m, slg_tensor *n)
{
    slg_softmax_opts o;
    SLG_TRY(softmax_options(ctx, opts, &o));
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 1, 4));
    SLG_TRY(tensor_out(ctx, "m", m, DT_F32, 1, 4));
    SLG_TRY(tensor_out(ctx, "n", n, DT_F32, 1, 4));
    SLG_TRY(tensor_is_per_row(ctx, "m", m, "x", x));
    SLG_TRY(tensor_is_per_row(ctx, "n", n, "x", x));
    if (tensor_clash(m, x) || tensor_clash(n, x) || outputs_clash(m, n))
        return slg_fail(ctx, SLG_ERR_STRIDE, "m and n overlap each other or x");
    op_detail(ctx, x);
    reduce_job j = { { &ctx->k, rows_of(x) },
                     rows_per_row(m),
                     rows_per_row(n),
                     exp_arg_of(o.temperature, 0.0f) };
    row_pipeline_run(ctx, &reduce_rows, &j, 0, j.src.x.count, j.src.x.cols);
    return SLG_OK;
}

slg_status slg_partial_softmax(slg_ctx *ctx, const slg_tensor *x, const slg_softmax_opts *opts,
                               slg_tensor *m, slg_tensor *n)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_partial_softmax");
    return op_end(ctx, partial_softmax(ctx, x, opts, m, n));
}

/* ---- Merge ------------------------------------------------------------------------------ */

/* Pair k of a row: m and n are [K] or [K, rows]. */
static double pair_at(const rows *t, bool one_row, int64_t k, int64_t row)
{
    return one_row ? rows_get(t, 0, k) : rows_get(t, k, row);
}

static void merge_row(const rows *m, const rows *n, bool one_row, int64_t pieces, int64_t row,
                      double *m_out, double *n_out)
{
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < pieces; k++)
        if (pair_at(m, one_row, k, row) != 0) top = fmax(top, pair_at(n, one_row, k, row));
    for (int64_t k = 0; k < pieces; k++) {
        double mk = pair_at(m, one_row, k, row);
        if (mk != 0) sum += mk * exp2(pair_at(n, one_row, k, row) - top);
    }
    *m_out = sum;
    *n_out = top;
}

static slg_status merge_out(slg_ctx *ctx, const char *name, const slg_tensor *t,
                            unsigned dtypes, int64_t count, const slg_tensor *m,
                            const slg_tensor *n)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(ctx, name, t, dtypes, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &count));
    if (outputs_clash(t, m) || outputs_clash(t, n))
        return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps m or n", name);
    return SLG_OK;
}

static slg_status partial_merge(slg_ctx *ctx, const slg_tensor *m, const slg_tensor *n,
                                slg_tensor *m_out, slg_tensor *n_out, slg_tensor *lse)
{
    SLG_TRY(tensor_in(ctx, "m", m, DT_F32, 1, 2));
    SLG_TRY(tensor_in(ctx, "n", n, DT_F32, 1, 2));
    SLG_TRY(tensor_same_shape(ctx, "n", n, "m", m));
    bool one_row = m->ndim == 1;
    int64_t count = one_row ? 1 : m->shape[1], pieces = m->shape[0];
    SLG_TRY(merge_out(ctx, "m_out", m_out, DT_F32, count, m, n));
    SLG_TRY(merge_out(ctx, "n_out", n_out, DT_F32, count, m, n));
    SLG_TRY(merge_out(ctx, "lse", lse, DT_F32 | DT_F64, count, m, n));
    if (outputs_clash(m_out, n_out) || outputs_clash(lse, m_out) || outputs_clash(lse, n_out))
        return slg_fail(ctx, SLG_ERR_STRIDE, "m_out, n_out and lse overlap each other");

    rows rm = rows_of(m), rn = rows_of(n), none = { 0 };
    rows mo = m_out ? rows_per_row(m_out) : none, no = n_out ? rows_per_row(n_out) : none;
    rows lo = lse ? rows_per_row(lse) : none;
    for (int64_t r = 0; r < count; r++) {
        double sum, top;
        merge_row(&rm, &rn, one_row, pieces, r, &sum, &top);
        if (m_out) rows_put(&mo, r, 0, sum);
        if (n_out) rows_put(&no, r, 0, top);
        if (lse) rows_put(&lo, r, 0, sum == 0 ? -INFINITY : log(sum) + top * LN2);
    }
    return SLG_OK;
}

slg_status slg_partial_merge(slg_ctx *ctx, const slg_tensor *m, const slg_tensor *n,
                             slg_tensor *m_out, slg_tensor *n_out, slg_tensor *lse)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_partial_merge");
    return op_end(ctx, partial_merge(ctx, m, n, m_out, n_out, lse));
}

/* ---- Pass 2 of a piece ------------------------------------------------------------------ */

typedef struct finish_job {
    rows_source src;
    rows y;
    rows lse, weight; /* of the gradient of log-sum-exp; weight.data NULL: ones */
    rows m, n;        /* of a piece */
    bool from_pair;
    double temperature;
} finish_job;

typedef struct finish_state {
    exp_out out;
    float fill; /* what the row is, where it is not `plain` */
    bool plain;
} finish_state;

static void finish_start(void *self, int64_t row, void *state)
{
    const finish_job *j = self;
    finish_state *s = state;
    double lse, weight = 1.0 / j->temperature;
    if (j->from_pair) {
        double m = rows_get(&j->m, row, 0);
        lse = m == 0 ? -INFINITY : log(m) + rows_get(&j->n, row, 0) * LN2;
        weight = 1.0;
    } else {
        lse = rows_get(&j->lse, row, 0);
        if (j->weight.data) weight *= rows_get(&j->weight, row, 0);
    }
    s->plain = isfinite(lse) && isfinite(weight);
    s->fill = lse == -INFINITY ? 0.0f : NAN;
    if (!s->plain) return;
    /* Beyond the range of whole steps: around the log-sum-exp itself. */
    double centre = lse * j->temperature;
    float pre = fabs(lse) > (double)EXP_LIMIT * LN2 ? (float)centre : 0.0f;
    exp_arg arg = exp_arg_of(j->temperature, pre);
    s->out = exp_out_of(&arg, (centre - (double)pre) / j->temperature, weight);
}

static void finish_reduce(void *self, int64_t row, void *s, int64_t col, int64_t n)
{
    (void)self, (void)row, (void)s, (void)col, (void)n;
}

static void finish_none(void *self, int64_t row, void *s) { (void)self, (void)row, (void)s; }

static void finish_emit(void *self, int64_t row, void *state, int64_t col, int64_t n)
{
    const finish_job *j = self;
    const finish_state *s = state;
    float xs[KERNEL_BLOCK], ys[KERNEL_BLOCK];
    float *y = rows_stage(&j->y, row, col, ys);
    if (s->plain) {
        const float *x = rows_fetch(j->src.k, &j->src.x, row, col, n, xs);
        j->src.k->exp_emit((size_t)n, x, &s->out, y, STORE_CACHED);
    } else {
        fill_f32(y, n, s->fill);
    }
    rows_commit(j->src.k, &j->y, row, col, n, ys);
}

static const row_job finish_rows = { sizeof(finish_state), finish_start, finish_reduce,
                                     finish_none,          finish_emit,  NULL };

/* Checks what both functions share, and sets up the job. */
static slg_status finish_begin(slg_ctx *ctx, const slg_tensor *x, const slg_softmax_opts *opts,
                               const char *name, const slg_tensor *y, finish_job *j)
{
    slg_softmax_opts o;
    SLG_TRY(softmax_options(ctx, opts, &o));
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 1, 4));
    SLG_TRY(tensor_out(ctx, name, y, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, name, y, "x", x));
    if (tensor_clash(y, x))
        return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps x, and is not x itself", name);
    op_detail(ctx, x);
    *j = (finish_job){ .src = { &ctx->k, rows_of(x) }, .y = rows_of(y) };
    j->temperature = o.temperature;
    return SLG_OK;
}

static slg_status finish_per_row(slg_ctx *ctx, const char *name, const slg_tensor *t,
                                 unsigned dtypes, const slg_tensor *x, const char *name_y,
                                 const slg_tensor *y, rows *r)
{
    SLG_TRY(tensor_in(ctx, name, t, dtypes, 1, 4));
    SLG_TRY(tensor_is_per_row(ctx, name, t, "x", x));
    if (tensor_clash(y, t))
        return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", name_y, name);
    *r = rows_per_row(t);
    return SLG_OK;
}

static slg_status partial_finish(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *m,
                                 const slg_tensor *n, const slg_softmax_opts *opts,
                                 slg_tensor *y)
{
    finish_job j;
    SLG_TRY(finish_begin(ctx, x, opts, "y", y, &j));
    SLG_TRY(finish_per_row(ctx, "m", m, DT_F32, x, "y", y, &j.m));
    SLG_TRY(finish_per_row(ctx, "n", n, DT_F32, x, "y", y, &j.n));
    if (tensor_size(y) == 0) return SLG_OK;
    j.from_pair = true;
    row_pipeline_run(ctx, &finish_rows, &j, 0, j.y.count, j.y.cols);
    return SLG_OK;
}

static slg_status logsumexp_backward(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *lse,
                                     const slg_tensor *dlse, const slg_softmax_opts *opts,
                                     slg_tensor *dx)
{
    finish_job j;
    SLG_TRY(finish_begin(ctx, x, opts, "dx", dx, &j));
    SLG_TRY(finish_per_row(ctx, "lse", lse, DT_F32 | DT_F64, x, "dx", dx, &j.lse));
    if (dlse) SLG_TRY(finish_per_row(ctx, "dlse", dlse, DT_F32, x, "dx", dx, &j.weight));
    if (tensor_size(dx) == 0) return SLG_OK;
    row_pipeline_run(ctx, &finish_rows, &j, 0, j.y.count, j.y.cols);
    return SLG_OK;
}

slg_status slg_partial_finish(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *m,
                              const slg_tensor *n, const slg_softmax_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_partial_finish");
    return op_end(ctx, partial_finish(ctx, x, m, n, opts, y));
}

slg_status slg_logsumexp_backward(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *lse,
                                  const slg_tensor *dlse, const slg_softmax_opts *opts,
                                  slg_tensor *dx)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_logsumexp_backward");
    return op_end(ctx, logsumexp_backward(ctx, x, lse, dlse, opts, dx));
}

/* ---- exp as a pair ---------------------------------------------------------------------- */

static slg_status ext_exp(slg_ctx *ctx, const slg_tensor *x, slg_tensor *m, slg_tensor *n)
{
    SLG_TRY(tensor_in(ctx, "x", x, DT_F32, 1, 4));
    SLG_TRY(tensor_out(ctx, "m", m, DT_F32, 1, 4));
    SLG_TRY(tensor_out(ctx, "n", n, DT_F32, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "m", m, "x", x));
    SLG_TRY(tensor_same_shape(ctx, "n", n, "x", x));
    if (tensor_clash(m, x) || tensor_clash(n, x) || outputs_clash(m, n))
        return slg_fail(ctx, SLG_ERR_STRIDE, "m and n overlap each other, or x");
    if (tensor_size(x) == 0) return SLG_OK;
    rows rx = rows_of(x), rm = rows_of(m), rn = rows_of(n);
    float xs[KERNEL_BLOCK], ms[KERNEL_BLOCK], ns[KERNEL_BLOCK];
    for (int64_t r = 0; r < rx.count; r++) {
        for (int64_t col = 0; col < rx.cols; col += KERNEL_BLOCK) {
            int64_t len = rx.cols - col < KERNEL_BLOCK ? rx.cols - col : KERNEL_BLOCK;
            const float *in = rows_fetch(&ctx->k, &rx, r, col, len, xs);
            float *mo = rows_stage(&rm, r, col, ms), *no = rows_stage(&rn, r, col, ns);
            ctx->k.ext_exp((size_t)len, in, mo, no);
            rows_commit(&ctx->k, &rm, r, col, len, ms);
            rows_commit(&ctx->k, &rn, r, col, len, ns);
        }
    }
    return SLG_OK;
}

slg_status slg_ext_exp(slg_ctx *ctx, const slg_tensor *x, slg_tensor *m, slg_tensor *n)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_ext_exp");
    return op_end(ctx, ext_exp(ctx, x, m, n));
}
