/*
 * softmax_backward.c - gradients of softmax and log-softmax from their results, and
 * of log-sum-exp from its input and result. Each is a sum over the row and a pass that uses it.
 */
#include <math.h>

#include "pipeline.h"
#include "softmax_options.h"

enum kind { OF_SOFTMAX, OF_LOG_SOFTMAX };

typedef struct job {
    const kernel_table *k;
    rows y, dy, dx;
    enum kind kind;
    float inv_t;
} job;

typedef struct state {
    double sum;
} state;

static void start(void *self, int64_t row, void *s)
{
    (void)self, (void)row;
    ((state *)s)->sum = 0;
}

static void reduce(void *self, int64_t row, void *s, int64_t col, int64_t n)
{
    const job *j = self;
    float ys[KERNEL_BLOCK], ds[KERNEL_BLOCK];
    const float *y = rows_fetch(j->k, &j->y, row, col, n, ys);
    const float *dy = rows_fetch(j->k, &j->dy, row, col, n, ds);
    double sums[3];
    if (j->kind == OF_SOFTMAX) {
        ((state *)s)->sum += j->k->dot((size_t)n, y, dy, 0.0f);
    } else {
        j->k->live_sums((size_t)n, y, dy, 0.0f, sums);
        ((state *)s)->sum += sums[1];
    }
}

static void finish(void *self, int64_t row, void *s) { (void)self, (void)row, (void)s; }

static void emit(void *self, int64_t row, void *s, int64_t col, int64_t n)
{
    const job *j = self;
    float ys[KERNEL_BLOCK], ds[KERNEL_BLOCK], xs[KERNEL_BLOCK];
    const float *y = rows_fetch(j->k, &j->y, row, col, n, ys);
    const float *dy = rows_fetch(j->k, &j->dy, row, col, n, ds);
    float *dx = rows_stage(&j->dx, row, col, xs), sum = (float)((state *)s)->sum;
    if (j->kind == OF_SOFTMAX)
        j->k->softmax_bwd((size_t)n, y, dy, sum, j->inv_t, dx);
    else
        j->k->log_softmax_bwd((size_t)n, y, dy, sum, j->inv_t, dx);
    rows_commit(j->k, &j->dx, row, col, n, xs);
}

static const row_job both_passes = { sizeof(state), start, reduce, finish, emit, NULL };

static slg_status backward(slg_ctx *ctx, const slg_tensor *y, const slg_tensor *dy,
                           const slg_softmax_opts *opts, slg_tensor *dx, enum kind kind)
{
    slg_softmax_opts o;
    SLG_TRY(softmax_options(ctx, opts, &o));
    SLG_TRY(tensor_in(ctx, "y", y, DT_ROW, 1, 4));
    SLG_TRY(tensor_in(ctx, "dy", dy, DT_ROW, 1, 4));
    SLG_TRY(tensor_out(ctx, "dx", dx, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "dy", dy, "y", y));
    SLG_TRY(tensor_same_shape(ctx, "dx", dx, "y", y));
    if (tensor_clash(dx, y) || tensor_clash(dx, dy))
        return slg_fail(ctx, SLG_ERR_STRIDE, "dx overlaps y or dy, and is not the same view");
    op_detail(ctx, y);
    if (tensor_size(y) == 0) return SLG_OK;
    job j = {
        &ctx->k, rows_of(y), rows_of(dy), rows_of(dx), kind, (float)(1.0 / o.temperature)
    };
    row_pipeline_run(ctx, &both_passes, &j, 0, j.y.count, j.y.cols);
    return SLG_OK;
}

slg_status slg_softmax_backward(slg_ctx *ctx, const slg_tensor *y, const slg_tensor *dy,
                                const slg_softmax_opts *opts, slg_tensor *dx)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_softmax_backward");
    return op_end(ctx, backward(ctx, y, dy, opts, dx, OF_SOFTMAX));
}

slg_status slg_log_softmax_backward(slg_ctx *ctx, const slg_tensor *y, const slg_tensor *dy,
                                    const slg_softmax_opts *opts, slg_tensor *dx)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_log_softmax_backward");
    return op_end(ctx, backward(ctx, y, dy, opts, dx, OF_LOG_SOFTMAX));
}
