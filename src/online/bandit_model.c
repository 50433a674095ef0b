/*
 * bandit_model.c - what predicts the arms' costs: a linear model, two layers, or callbacks.
 * Hidden units are columns of products, cut where the shape says, so bits do not depend on
 * threads.
 */
#include <math.h>
#include <string.h>

#include "bandit_handle.h"
#include "core/rng.h"

enum {
    COLUMNS = 256,      /* hidden units of a task */
    WORTH_IT = 1 << 18, /* products below which threads cost more than they save */
    MOST_WEIGHTS = 1 << 30
};

slg_status model_size(slg_bandit *b)
{
    const slg_bandit_opts *o = &b->opts;
    const int64_t width = o->model == SLG_BANDIT_TWO_LAYER ? o->width : 1;
    const int64_t sets = o->shared || o->model == SLG_BANDIT_CALLBACKS ? 1 : b->arms;
    int64_t block, size;
    if (__builtin_mul_overflow(b->dim, width, &block) ||
        __builtin_mul_overflow(block, sets, &size) || size > MOST_WEIGHTS)
        return slg_fail(b->ctx, SLG_ERR_RANGE,
                        "%lld arms of %lld features have more than %d weights",
                        (long long)b->arms, (long long)b->dim, MOST_WEIGHTS);
    b->block = block, b->size = size;
    return SLG_OK;
}

void model_start(slg_bandit *b)
{
    const slg_rng g = bandit_stream(b, STREAM_WEIGHTS);
    const double sd = sqrt(b->opts.variance);
    memset(b->theta0, 0, (size_t)b->size * sizeof *b->theta0);
    if (b->opts.model != SLG_BANDIT_TWO_LAYER) return;
    for (int64_t i = 0; i < b->size; i++)
        b->theta0[i] = (float)(sd * rng_normal(g.seed, g.offset + (uint64_t)i));
}

static float *weights_of(const slg_bandit *b, int64_t arm)
{
    return b->theta + (b->opts.shared ? 0 : arm * b->block);
}

/* ---- Contexts --------------------------------------------------------------------------- */

static slg_status check_context(slg_bandit *b, const slg_tensor *x)
{
    slg_ctx *ctx = b->ctx;
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 1, 2));
    if (x->ndim == 1 && b->opts.shared && b->arms > 1)
        return slg_fail(ctx, SLG_ERR_SHAPE,
                        "x has one axis: arms that share weights need a context each");
    const int64_t shape[2] = { b->arms, b->dim };
    return tensor_shape_is(ctx, "x", x, x->ndim, x->ndim == 2 ? shape : shape + 1);
}

/* Row r (of an arm, or of all) as contiguous float32; scratch [dim]. */
static slg_status context_row(slg_bandit *b, const rows *x, int64_t r, float *scratch,
                              const float **to)
{
    const float *row = rows_fetch(&b->ctx->k, x, r, 0, b->dim, scratch);
    *to = row;
    if (b->ctx->k.finite((size_t)b->dim, row)) return SLG_OK;
    int64_t i = 0;
    while (isfinite(row[i])) i++;
    return slg_fail(b->ctx, SLG_ERR_RANGE, "x[%lld] is %g, must be finite",
                    (long long)(r * b->dim + i), (double)row[i]);
}

/* ---- Forward ---------------------------------------------------------------------------- */

typedef struct hidden_run {
    const slg_bandit *b;
    const float *x; /* [arms, dim], or one row for all */
    int64_t step;   /* from an arm's row to the next: dim or 0 */
    int64_t first;  /* arm */
    int64_t pieces; /* of the hidden units */
    float *hidden;  /* [arms, width] x W */
} hidden_run;

static void hidden_task(void *arg, int64_t task, int32_t worker)
{
    const hidden_run *g = arg;
    const slg_bandit *b = g->b;
    const int64_t width = b->opts.width, arm = task / g->pieces;
    const int64_t from = task % g->pieces * COLUMNS;
    const int64_t n = width - from < COLUMNS ? width - from : COLUMNS;
    const tile_product t = { .m = 1,
                             .n = (size_t)n,
                             .k = (size_t)b->dim,
                             .a = g->x + arm * g->step,
                             .row = 0,
                             .col = 1,
                             .b = weights_of(b, g->first + arm) + from,
                             .ldb = width,
                             .c = g->hidden + arm * width + from,
                             .ldc = width };
    (void)worker;
    b->ctx->k.tile_gemm(&t);
}

static void run_tasks(slg_ctx *ctx, int64_t tasks, double work, pool_fn fn, void *arg)
{
    if (work >= WORTH_IT)
        pool_run(ctx, tasks, fn, arg);
    else
        for (int64_t i = 0; i < tasks; i++) fn(arg, i, 0);
}

/* f of `count` arms from `first` on; hidden [count, width] for two layers. */
static void forward(const slg_bandit *b, const float *x, int64_t step, int64_t first,
                    int64_t count, float *hidden, float *unit, double *f)
{
    const kernel_table *k = &b->ctx->k;
    const int64_t width = b->opts.width;
    if (b->opts.model == SLG_BANDIT_LINEAR) {
        for (int64_t a = 0; a < count; a++)
            f[a] = k->dot((size_t)b->dim, x + a * step, weights_of(b, first + a), 0);
        return;
    }
    hidden_run g = { b, x, step, first, (width + COLUMNS - 1) / COLUMNS, hidden };
    run_tasks(b->ctx, count * g.pieces, (double)count * (double)b->block, hidden_task, &g);
    for (int64_t a = 0; a < count; a++) {
        k->act((size_t)width, hidden + a * width, NULL, b->opts.activation, unit);
        f[a] = k->dot((size_t)width, unit, b->output, 0);
    }
}

static slg_status predict(slg_bandit *b, const slg_tensor *x, double *f)
{
    SLG_TRY(check_context(b, x));
    const rows m = rows_of(x);
    const size_t width = (size_t)b->opts.width;
    const bool two = b->opts.model == SLG_BANDIT_TWO_LAYER;
    float *all = arena_alloc(b->ctx, (size_t)m.count, (size_t)b->dim * sizeof *all);
    float *hidden = arena_alloc(b->ctx, two ? (size_t)b->arms : 0, width * sizeof *hidden);
    float *unit = arena_alloc(b->ctx, two ? width : 0, sizeof *unit);
    if (!all || !hidden || !unit) return SLG_ERR_MEMORY;
    for (int64_t r = 0; r < m.count; r++) {
        const float *row;
        SLG_TRY(context_row(b, &m, r, all + r * b->dim, &row));
        if (row != all + r * b->dim)
            memcpy(all + r * b->dim, row, (size_t)b->dim * sizeof *all);
    }
    forward(b, all, x->ndim == 2 ? b->dim : 0, 0, b->arms, hidden, unit, f);
    return SLG_OK;
}

/* ---- Backward --------------------------------------------------------------------------- */

/* The gradient of f = <v, act(x W)> in W is x times act'(x W) v. */
static slg_status gradient(slg_bandit *b, const slg_tensor *x, int64_t arm, double *f)
{
    SLG_TRY(check_context(b, x));
    const rows m = rows_of(x);
    const kernel_table *k = &b->ctx->k;
    const size_t width = (size_t)b->opts.width, dim = (size_t)b->dim;
    const float *row;
    float *scratch = arena_alloc(b->ctx, dim + 2 * width, sizeof *scratch);
    if (!scratch) return SLG_ERR_MEMORY;
    float *hidden = scratch + dim, *unit = hidden + width;
    SLG_TRY(context_row(b, &m, x->ndim == 2 ? arm : 0, scratch, &row));
    forward(b, row, 0, arm, 1, hidden, unit, f);
    if (b->opts.model == SLG_BANDIT_LINEAR) {
        memcpy(b->grad, row, dim * sizeof *b->grad);
        return SLG_OK;
    }
    k->act_bwd(width, hidden, NULL, b->output, b->opts.activation, unit);
    for (size_t i = 0; i < dim; i++) k->scale(width, unit, row[i], b->grad + i * width);
    return SLG_OK;
}

/* ---- Either ----------------------------------------------------------------------------- */

slg_status model_predict(slg_bandit *b, const char *op, const slg_tensor *x, double *f)
{
    if (b->opts.model != SLG_BANDIT_CALLBACKS) return predict(b, x, f);
    outside_begin(b->ctx);
    const slg_status status = b->opts.predict(b->opts.user, b->theta, x, f);
    return outside_end(b->ctx, op, "opts.predict", status);
}

slg_status model_gradient(slg_bandit *b, const char *op, const slg_tensor *x, int64_t arm,
                          double *f)
{
    if (b->opts.model != SLG_BANDIT_CALLBACKS) return gradient(b, x, arm, f);
    outside_begin(b->ctx);
    const slg_status status = b->opts.gradient(b->opts.user, b->theta, x, arm, f, b->grad);
    return outside_end(b->ctx, op, "opts.gradient", status);
}
