/*
 * layer_norm.c - layer and RMS normalisation, with the addition before them, and their
 * gradients.
 *
 * A row is fetched once; its statistics and its result are made while it is in the cache.
 * Backward, the mean that was saved as one float is put right by the mean of what is left, so
 * that a row far from 0 loses nothing.
 */
#include <math.h>
#include <string.h>

#include "column_sums.h"

static const slg_norm_opts defaults = { .size = sizeof(slg_norm_opts), .eps = 1e-5 };

void slg_norm_opts_init(slg_norm_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open_options(slg_ctx *ctx, const slg_norm_opts *given, slg_norm_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "accumulate", o->accumulate, 0, 1));
    SLG_TRY(option_range(ctx, "eps", o->eps, 0, 1e30));
    return SLG_OK;
}

/* stats: of x's shape, the last axis being 2; or, of an RMS norm, without it. */
static slg_status check_stats(slg_ctx *ctx, bool rms, const slg_tensor *stats, bool out,
                              const char *name_x, const slg_tensor *x)
{
    int64_t shape[4];
    if (!stats) return SLG_OK;
    SLG_TRY(out ? tensor_out(ctx, "stats", stats, DT_F32, 1, 4)
                : tensor_in(ctx, "stats", stats, DT_F32, 1, 4));
    if (rms) return tensor_is_per_row(ctx, "stats", stats, name_x, x);
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = 2;
    return tensor_shape_is(ctx, "stats", stats, x->ndim, shape);
}

static rows stats_rows(bool rms, const slg_tensor *stats)
{
    return !stats ? (rows){ 0 } : rms ? rows_per_row(stats) : rows_of(stats);
}

/* ---- Forward ----------------------------------------------------------------------------- */

typedef struct forward_job {
    const kernel_table *k;
    bool rms;
    double eps;
    int64_t chunk_rows;
    rows x, residual, sum, y, stats; /* data NULL: none */
    const float *weight, *bias;
    float *scratch; /* [threads, 2 dim] */
} forward_job;

/* Mean of squares; in double where float32 cannot hold their sum. */
static double mean_square(const kernel_table *k, int64_t n, const float *x)
{
    double sum = k->dot((size_t)n, x, x, 0.0f), exact[3];
    if (!(sum < 1e36 && sum > 1e-30)) {
        k->dots((size_t)n, x, x, exact);
        sum = exact[0];
    }
    return sum / (double)n;
}

static norm_arg statistics(const forward_job *j, const float *x)
{
    double m[2];
    norm_arg a = { 0 };
    if (j->rms) {
        a.rstd = (float)(1 / sqrt(mean_square(j->k, j->x.cols, x) + j->eps));
        return a;
    }
    j->k->moments((size_t)j->x.cols, x, m);
    a.mean = (float)m[0];
    a.mean_low = isfinite(a.mean) ? (float)(m[0] - (double)a.mean) : 0.0f;
    a.rstd = (float)(1 / sqrt(m[1] / (double)j->x.cols + j->eps));
    return a;
}

/* The row to be normalised: x, or x + residual, which is stored and as it was rounded. */
static const float *row_sum(const forward_job *j, int64_t r, float *scratch, float *scratch2)
{
    const int64_t n = j->x.cols;
    const float *x = rows_fetch(j->k, &j->x, r, 0, n, scratch);
    if (!j->residual.data) return x;
    const float *other = rows_fetch(j->k, &j->residual, r, 0, n, scratch2);
    float *s = scratch;
    if (x != s) memcpy(s, x, (size_t)n * sizeof *s);
    j->k->add((size_t)n, other, s);
    if (!j->sum.data) return s;
    rows_commit(j->k, &j->sum, r, 0, n, s);
    if (!j->sum.plain) return rows_fetch(j->k, &j->sum, r, 0, n, scratch);
    return memcpy(rows_at(&j->sum, r), s, (size_t)n * sizeof *s);
}

static void forward_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const forward_job *j = arg;
    const int64_t n = j->x.cols, first = chunk * j->chunk_rows;
    float *scratch = j->scratch + 2 * n * worker;
    for (int64_t r = first; r < j->x.count && r < first + j->chunk_rows; r++) {
        const float *s = row_sum(j, r, scratch, scratch + n);
        const norm_arg a = statistics(j, s);
        float *y = rows_stage(&j->y, r, 0, scratch + n);
        j->k->norm_emit((size_t)n, s, &a, j->weight, j->bias, y);
        rows_commit(j->k, &j->y, r, 0, n, scratch + n);
        if (!j->stats.data) continue;
        if (!j->rms) rows_put(&j->stats, r, 0, (double)a.mean);
        rows_put(&j->stats, r, j->rms ? 0 : 1, (double)a.rstd);
    }
}

typedef struct forward_args {
    const slg_tensor *x, *residual, *weight, *bias;
    slg_tensor *sum, *y, *stats;
} forward_args;

static slg_status forward_check(slg_ctx *ctx, bool rms, const forward_args *g)
{
    SLG_TRY(tensor_in(ctx, "x", g->x, DT_ROW, 1, 4));
    SLG_TRY(tensor_out(ctx, "y", g->y, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "y", g->y, "x", g->x));
    if (g->residual) {
        SLG_TRY(tensor_in(ctx, "residual", g->residual, DT_ROW, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "residual", g->residual, "x", g->x));
    }
    if (g->sum) {
        if (!g->residual)
            return slg_fail(ctx, SLG_ERR_NULL,
                            "sum is given, residual is NULL: sum would be x");
        SLG_TRY(tensor_out(ctx, "sum", g->sum, DT_ROW, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "sum", g->sum, "x", g->x));
    }
    SLG_TRY(check_stats(ctx, rms, g->stats, true, "x", g->x));
    const struct {
        const char *name;
        const slg_tensor *t;
        bool may_x, may_residual;
    } outs[] = { { "sum", g->sum, true, true },
                 { "y", g->y, true, false },
                 { "stats", g->stats, false, false } };
    for (size_t i = 0; i < 3; i++) {
        const char *name = outs[i].name;
        const slg_tensor *t = outs[i].t;
        SLG_TRY(layer_apart(ctx, name, t, "x", g->x, outs[i].may_x));
        SLG_TRY(layer_apart(ctx, name, t, "residual", g->residual, outs[i].may_residual));
        SLG_TRY(layer_apart(ctx, name, t, "weight", g->weight, false));
        SLG_TRY(layer_apart(ctx, name, t, "bias", g->bias, false));
        for (size_t o = 0; o < i; o++)
            SLG_TRY(layer_apart(ctx, name, t, outs[o].name, outs[o].t, false));
    }
    return SLG_OK;
}

static slg_status forward(slg_ctx *ctx, bool rms, const forward_args *g,
                          const slg_norm_opts *opts)
{
    slg_norm_opts o;
    column_sums chunks;
    SLG_TRY(open_options(ctx, opts, &o));
    SLG_TRY(forward_check(ctx, rms, g));
    const int64_t dim = g->x->shape[g->x->ndim - 1];
    forward_job j = { .k = &ctx->k, .rms = rms, .eps = o.eps };
    SLG_TRY(layer_vector(ctx, "weight", g->weight, dim, &j.weight));
    SLG_TRY(layer_vector(ctx, "bias", g->bias, dim, &j.bias));
    op_detail(ctx, g->x);
    if (tensor_size(g->x) == 0) return SLG_OK;
    j.x = rows_of(g->x), j.y = rows_of(g->y), j.stats = stats_rows(rms, g->stats);
    if (g->residual) j.residual = rows_of(g->residual);
    if (g->sum) j.sum = rows_of(g->sum);
    SLG_TRY(column_sums_open(ctx, j.x.count, dim, false, false, &chunks));
    j.chunk_rows = chunks.chunk_rows;
    j.scratch = arena_alloc(ctx, (size_t)ctx->num_threads * 2 * (size_t)dim, sizeof(float));
    if (!j.scratch) return SLG_ERR_MEMORY;
    pool_run(ctx, chunks.chunks, forward_chunk, &j);
    return SLG_OK;
}

slg_status slg_layer_norm(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *residual,
                          const slg_tensor *weight, const slg_tensor *bias,
                          const slg_norm_opts *opts, slg_tensor *sum, slg_tensor *y,
                          slg_tensor *stats)
{
    const forward_args g = { x, residual, weight, bias, sum, y, stats };
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_layer_norm");
    return op_end(ctx, forward(ctx, false, &g, opts));
}

slg_status slg_rms_norm(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *residual,
                        const slg_tensor *weight, const slg_norm_opts *opts, slg_tensor *sum,
                        slg_tensor *y, slg_tensor *stats)
{
    const forward_args g = { x, residual, weight, NULL, sum, y, stats };
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_rms_norm");
    return op_end(ctx, forward(ctx, true, &g, opts));
}

/* ---- Backward ---------------------------------------------------------------------------- */

typedef struct backward_job {
    const kernel_table *k;
    bool rms;
    rows s, dy, dsum, ds, stats; /* data NULL: none */
    const float *weight;
    column_sums sums;
    float *scratch; /* [threads, 4 dim] */
} backward_job;

/* The row's statistics, and the two means that its gradient needs. */
static norm_arg row_means(const backward_job *j, int64_t r, const float *s, const float *dy)
{
    const double n = (double)j->s.cols;
    double sum[3];
    norm_arg a = { .rstd = (float)rows_get(&j->stats, r, j->rms ? 0 : 1) };
    if (!j->rms) a.mean = (float)rows_get(&j->stats, r, 0);
    j->k->norm_sums((size_t)j->s.cols, s, &a, j->weight, dy, sum);
    if (j->rms) {
        a.mean_gh = (float)(sum[1] / n);
        return a;
    }
    const double rest = sum[2] / n; /* of h, which the float mean has left */
    a.mean_low = a.rstd > 0 && isfinite(rest) ? (float)(rest / (double)a.rstd) : 0.0f;
    a.mean_g = (float)(sum[0] / n);
    a.mean_gh = (float)((sum[1] - rest * sum[0]) / n);
    return a;
}

static void backward_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const backward_job *j = arg;
    const int64_t n = j->s.cols;
    float *f = j->scratch + 4 * n * worker, *sum[2];
    int64_t r, end = column_sums_chunk(&j->sums, chunk, &r, sum);
    for (; r < end; r++) {
        const float *s = rows_fetch(j->k, &j->s, r, 0, n, f);
        const float *dy = rows_fetch(j->k, &j->dy, r, 0, n, f + n);
        const float *add = j->dsum.data ? rows_fetch(j->k, &j->dsum, r, 0, n, f + 2 * n) : NULL;
        const norm_arg a = row_means(j, r, s, dy);
        float *ds = j->ds.data ? rows_stage(&j->ds, r, 0, f + 3 * n) : NULL;
        j->k->norm_bwd((size_t)n, s, &a, j->weight, dy, add, sum[0], sum[1], ds);
        if (ds) rows_commit(j->k, &j->ds, r, 0, n, f + 3 * n);
    }
}

typedef struct backward_args {
    const slg_tensor *s, *weight, *stats, *dy, *dsum;
    slg_tensor *ds, *dweight, *dbias;
} backward_args;

static slg_status backward_check(slg_ctx *ctx, bool rms, const backward_args *g)
{
    SLG_TRY(tensor_in(ctx, "s", g->s, DT_ROW, 1, 4));
    SLG_TRY(tensor_in(ctx, "dy", g->dy, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "dy", g->dy, "s", g->s));
    SLG_TRY(tensor_in(ctx, "stats", g->stats, DT_F32, 1, 4));
    SLG_TRY(check_stats(ctx, rms, g->stats, false, "s", g->s));
    if (g->dsum) {
        SLG_TRY(tensor_in(ctx, "dsum", g->dsum, DT_ROW, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "dsum", g->dsum, "s", g->s));
    }
    if (g->ds) {
        SLG_TRY(tensor_out(ctx, "ds", g->ds, DT_ROW, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "ds", g->ds, "s", g->s));
    }
    const int64_t dim = g->s->shape[g->s->ndim - 1];
    SLG_TRY(layer_vector_out(ctx, "dweight", g->dweight, dim));
    SLG_TRY(layer_vector_out(ctx, "dbias", g->dbias, dim));
    const struct {
        const char *name;
        const slg_tensor *t;
        bool may_be;
    } outs[] = { { "ds", g->ds, true },
                 { "dweight", g->dweight, false },
                 { "dbias", g->dbias, false } };
    for (size_t i = 0; i < 3; i++) {
        const char *name = outs[i].name;
        const slg_tensor *t = outs[i].t;
        SLG_TRY(layer_apart(ctx, name, t, "s", g->s, false));
        SLG_TRY(layer_apart(ctx, name, t, "weight", g->weight, false));
        SLG_TRY(layer_apart(ctx, name, t, "stats", g->stats, false));
        SLG_TRY(layer_apart(ctx, name, t, "dy", g->dy, outs[i].may_be));
        SLG_TRY(layer_apart(ctx, name, t, "dsum", g->dsum, outs[i].may_be));
        for (size_t o = 0; o < i; o++)
            SLG_TRY(layer_apart(ctx, name, t, outs[o].name, outs[o].t, false));
    }
    return SLG_OK;
}

static slg_status backward(slg_ctx *ctx, bool rms, const backward_args *g,
                           const slg_norm_opts *opts)
{
    slg_norm_opts o;
    SLG_TRY(open_options(ctx, opts, &o));
    SLG_TRY(backward_check(ctx, rms, g));
    const int64_t dim = g->s->shape[g->s->ndim - 1];
    const int64_t count = dim ? tensor_size(g->s) / dim : 0;
    backward_job j = { .k = &ctx->k, .rms = rms };
    SLG_TRY(layer_vector(ctx, "weight", g->weight, dim, &j.weight));
    SLG_TRY(column_sums_open(ctx, count, dim, g->dweight != NULL, g->dbias != NULL, &j.sums));
    op_detail(ctx, g->s);
    if (count > 0) {
        j.s = rows_of(g->s), j.dy = rows_of(g->dy), j.stats = stats_rows(rms, g->stats);
        if (g->dsum) j.dsum = rows_of(g->dsum);
        if (g->ds) j.ds = rows_of(g->ds);
        j.scratch = arena_alloc(ctx, (size_t)ctx->num_threads * 4 * (size_t)dim, sizeof(float));
        if (!j.scratch) return SLG_ERR_MEMORY;
        pool_run(ctx, j.sums.chunks, backward_chunk, &j);
    }
    column_sums_close(&j.sums, 0, o.accumulate, g->dweight);
    column_sums_close(&j.sums, 1, o.accumulate, g->dbias);
    return SLG_OK;
}

slg_status slg_layer_norm_backward(slg_ctx *ctx, const slg_tensor *s, const slg_tensor *weight,
                                   const slg_tensor *stats, const slg_tensor *dy,
                                   const slg_tensor *dsum, const slg_norm_opts *opts,
                                   slg_tensor *ds, slg_tensor *dweight, slg_tensor *dbias)
{
    const backward_args g = { s, weight, stats, dy, dsum, ds, dweight, dbias };
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_layer_norm_backward");
    return op_end(ctx, backward(ctx, false, &g, opts));
}

slg_status slg_rms_norm_backward(slg_ctx *ctx, const slg_tensor *s, const slg_tensor *weight,
                                 const slg_tensor *stats, const slg_tensor *dy,
                                 const slg_tensor *dsum, const slg_norm_opts *opts,
                                 slg_tensor *ds, slg_tensor *dweight)
{
    const backward_args g = { s, weight, stats, dy, dsum, ds, dweight, NULL };
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_rms_norm_backward");
    return op_end(ctx, backward(ctx, true, &g, opts));
}
