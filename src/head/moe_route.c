/*
 * moe_route.c - the gate of a linear router: scores a block of rows at a time, then the gate;
 * and back. A whole [rows, experts] is formed where the caller wants it, and never else in
 * forward; backward forms dz of a block.
 */
#include "moe_gate.h"

enum { BLOCK = 4096 };

static slg_status check_router(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *beta1)
{
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 2, 2));
    return moe_in(ctx, "beta1", beta1, DT_ROW, -1, x->shape[1]);
}

/* Rows [first, first + count) of m as contiguous float32. */
static const float *block_rows(const slg_ctx *ctx, const rows *m, int64_t first, int64_t count,
                               float *to)
{
    const bool dense = m->outer == 0 || (m->outer == 1 && m->stride[0] == m->cols);
    if (m->plain && dense) return (const float *)(const void *)rows_at(m, first);
    for (int64_t r = 0; r < count; r++) {
        float *row = to + r * m->cols;
        const float *from = rows_fetch(&ctx->k, m, first + r, 0, m->cols, row);
        if (from != row) memcpy(row, from, (size_t)m->cols * sizeof *row);
    }
    return to;
}

/* The rows from `first` on, count of them. */
static rows rows_from(const rows *m, int64_t first, int64_t count)
{
    rows part = *m;
    part.data = rows_at(m, first);
    part.count = count;
    return part;
}

static slg_status route(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *beta1,
                        const slg_tensor *bias, const slg_tensor *noise,
                        const slg_moe_gate_opts *opts, slg_tensor *score, slg_tensor *index,
                        slg_tensor *weight, slg_tensor *dense, slg_tensor *flag)
{
    gate_call whole = { .ctx = ctx };
    SLG_TRY(gate_options(ctx, opts, &whole.opts));
    SLG_TRY(check_router(ctx, x, beta1));
    const int64_t count = x->shape[0], dim = x->shape[1], k = beta1->shape[0];
    whole.experts = k;
    SLG_TRY(gate_open(&whole, count, bias, noise, index, weight, dense, flag));
    if (score) SLG_TRY(moe_out(ctx, "score", score, DT_F32, count, k));
    const moe_operand in[] = {
        { "x", x }, { "beta1", beta1 }, { "bias", bias }, { "noise", noise }
    };
    const moe_operand out[] = { { "score", score },
                                { "index", index },
                                { "weight", weight },
                                { "dense", dense },
                                { "flag", flag } };
    SLG_TRY(moe_apart(ctx, 5, out, 4, in));
    op_detail(ctx, x), op_detail(ctx, beta1);
    if (count == 0) return SLG_OK;
    SLG_TRY(gate_scratch(&whole, bias));
    const int64_t most = moe_least(count, BLOCK);
    const rows m = rows_of(x);
    rows all = score ? rows_of(score) : (rows){ 0 };
    const float *beta = moe_floats(ctx, beta1);
    float *x_block = arena_alloc(ctx, (size_t)(most * dim), sizeof *x_block);
    float *s_block = arena_alloc(ctx, (size_t)(most * k), sizeof *s_block);
    if (!beta || !x_block || !s_block) return SLG_ERR_MEMORY;
    for (int64_t first = 0; first < count; first += most) {
        const int64_t n = moe_least(most, count - first);
        const float *from = block_rows(ctx, &m, first, n, x_block);
        SLG_TRY(
            blas_sgemm(ctx, false, true, n, k, dim, 1, from, dim, beta, dim, 0, s_block, k));
        gate_call c = whole;
        const slg_tensor s = slg_tensor_2d(s_block, SLG_F32, n, k);
        c.score = rows_of(&s);
        c.index = rows_from(&whole.index, first, n);
        c.weight = rows_from(&whole.weight, first, n);
        if (c.noisy) c.noise = rows_from(&whole.noise, first, n);
        if (c.has_dense) c.dense = rows_from(&whole.dense, first, n);
        if (c.has_flag) c.flag = rows_from(&whole.flag, first, n);
        gate_run(&c);
        for (int64_t r = 0; score && r < n; r++) {
            float *row = s_block + r * k, *to = rows_stage(&all, first + r, 0, row);
            if (to != row) memcpy(to, row, (size_t)k * sizeof *to);
            rows_commit(&ctx->k, &all, first + r, 0, k, row);
        }
    }
    return SLG_OK;
}

slg_status slg_moe_route(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *beta1,
                         const slg_tensor *bias, const slg_tensor *noise,
                         const slg_moe_gate_opts *opts, slg_tensor *score, slg_tensor *index,
                         slg_tensor *weight, slg_tensor *dense, slg_tensor *flag)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_route");
    return op_end(ctx,
                  route(ctx, x, beta1, bias, noise, opts, score, index, weight, dense, flag));
}

/* ---- Backward ---------------------------------------------------------------------------- */

typedef struct back_call {
    slg_ctx *ctx;
    const slg_tensor *x, *beta1, *index, *weight, *dweight, *dscore, *dx, *dbeta1, *dbias;
    slg_moe_gate_opts opts;
    int64_t count, dim, experts;
} back_call;

static slg_status check_back(const back_call *c)
{
    slg_ctx *ctx = c->ctx;
    const int64_t chosen = c->opts.chosen;
    if (chosen < 1 || chosen > c->experts)
        return slg_fail(ctx, SLG_ERR_RANGE, "chosen is %lld, must be from 1 to %lld experts",
                        (long long)chosen, (long long)c->experts);
    SLG_TRY(moe_in(ctx, "index", c->index, DT_I32, c->count, chosen));
    SLG_TRY(moe_in(ctx, "weight", c->weight, DT_ROW, c->count, chosen));
    SLG_TRY(moe_in(ctx, "dweight", c->dweight, DT_ROW, c->count, chosen));
    if (c->dscore) SLG_TRY(moe_in(ctx, "dscore", c->dscore, DT_F32, c->count, c->experts));
    if (c->dx) SLG_TRY(moe_out(ctx, "dx", c->dx, DT_ROW, c->count, c->dim));
    if (c->dbeta1) SLG_TRY(moe_out(ctx, "dbeta1", c->dbeta1, DT_F32, c->experts, c->dim));
    if (c->dbias) SLG_TRY(moe_out_1d(ctx, "dbias", c->dbias, DT_F32 | DT_F64, c->experts));
    const moe_operand in[] = {
        { "x", c->x },           { "beta1", c->beta1 },     { "index", c->index },
        { "weight", c->weight }, { "dweight", c->dweight }, { "dscore", c->dscore }
    };
    const moe_operand out[] = { { "dx", c->dx },
                                { "dbeta1", c->dbeta1 },
                                { "dbias", c->dbias } };
    SLG_TRY(moe_apart(ctx, 3, out, 6, in));
    return moe_indices(ctx, "index", c->index, 0, c->experts);
}

/* dz of the block into dz [n, experts]; sums by expert. */
static void slopes(const back_call *c, int64_t first, int64_t n, float *dz, float *scratch,
                   double *sum)
{
    const kernel_table *k = &c->ctx->k;
    const int64_t chosen = c->opts.chosen;
    const rows index = rows_of(c->index), weight = rows_of(c->weight),
               dweight = rows_of(c->dweight);
    for (int64_t r = 0; r < n; r++) {
        float *to = dz + r * c->experts, *slope = scratch + 2 * chosen;
        const float *w = rows_fetch(k, &weight, first + r, 0, chosen, scratch);
        const float *d = rows_fetch(k, &dweight, first + r, 0, chosen, scratch + chosen);
        gate_slopes(chosen, w, d, slope);
        memset(to, 0, (size_t)c->experts * sizeof *to);
        if (c->dscore) {
            const rows given = rows_of(c->dscore);
            const float *from = rows_fetch(k, &given, first + r, 0, c->experts, to);
            if (from != to) memcpy(to, from, (size_t)c->experts * sizeof *to);
        }
        for (int64_t j = 0; j < chosen; j++) {
            const int32_t i = *moe_int(&index, first + r, j);
            to[i] += slope[j], sum[i] += (double)slope[j];
        }
    }
}

static void write_block(const back_call *c, const slg_tensor *t, int64_t first, int64_t n,
                        float *block)
{
    const kernel_table *k = &c->ctx->k;
    const rows m = rows_of(t);
    for (int64_t r = 0; r < n; r++) {
        float *from = block + r * m.cols;
        float *to = rows_stage(&m, first + r, 0, from);
        if (c->opts.accumulate) {
            for (int64_t i = 0; i < m.cols; i++) from[i] += (float)rows_get(&m, first + r, i);
        }
        if (to != from) memcpy(to, from, (size_t)m.cols * sizeof *to);
        rows_commit(k, &m, first + r, 0, m.cols, from);
    }
}

static slg_status route_backward(back_call *c, const slg_moe_gate_opts *opts)
{
    slg_ctx *ctx = c->ctx;
    SLG_TRY(gate_options(ctx, opts, &c->opts));
    SLG_TRY(check_router(ctx, c->x, c->beta1));
    c->count = c->x->shape[0], c->dim = c->x->shape[1], c->experts = c->beta1->shape[0];
    SLG_TRY(check_back(c));
    const int64_t most = c->count > 0 ? moe_least(c->count, BLOCK) : 1;
    const int64_t dim = c->dim, experts = c->experts;
    const rows m = rows_of(c->x);
    const float *beta = moe_floats(ctx, c->beta1);
    float *x_block = arena_alloc(ctx, (size_t)(most * dim), sizeof *x_block);
    float *dx_block = arena_alloc(ctx, (size_t)(most * dim), sizeof *dx_block);
    float *dz = arena_alloc(ctx, (size_t)(most * experts), sizeof *dz);
    float *dbeta = arena_alloc(ctx, (size_t)(experts * dim), sizeof *dbeta);
    float *scratch = arena_alloc(ctx, 3 * (size_t)c->opts.chosen, sizeof *scratch);
    double *sum = moe_vector(ctx, NULL, experts);
    if (!beta || !x_block || !dx_block || !dz || !dbeta || !scratch || !sum)
        return SLG_ERR_MEMORY;
    memset(dbeta, 0, (size_t)(experts * dim) * sizeof *dbeta);
    for (int64_t first = 0; first < c->count; first += most) {
        const int64_t n = moe_least(most, c->count - first);
        slopes(c, first, n, dz, scratch, sum);
        if (c->dbeta1) {
            const float *from = block_rows(ctx, &m, first, n, x_block);
            SLG_TRY(blas_sgemm(ctx, true, false, experts, dim, n, 1, dz, experts, from, dim, 1,
                               dbeta, dim));
        }
        if (!c->dx) continue;
        SLG_TRY(blas_sgemm(ctx, false, false, n, dim, experts, 1, dz, experts, beta, dim, 0,
                           dx_block, dim));
        write_block(c, c->dx, first, n, dx_block);
    }
    if (c->dbeta1) write_block(c, c->dbeta1, 0, experts, dbeta);
    for (int64_t i = 0; c->opts.bias == SLG_MOE_BIAS_CHOICE && i < experts; i++) sum[i] = 0;
    moe_put(c->dbias, sum, c->opts.accumulate);
    return SLG_OK;
}

slg_status slg_moe_route_backward(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *beta1,
                                  const slg_tensor *index, const slg_tensor *weight,
                                  const slg_tensor *dweight, const slg_tensor *dscore,
                                  const slg_moe_gate_opts *opts, slg_tensor *dx,
                                  slg_tensor *dbeta1, slg_tensor *dbias)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_route_backward");
    back_call c = { .ctx = ctx,
                    .x = x,
                    .beta1 = beta1,
                    .index = index,
                    .weight = weight,
                    .dweight = dweight,
                    .dscore = dscore,
                    .dx = dx,
                    .dbeta1 = dbeta1,
                    .dbias = dbias };
    return op_end(ctx, route_backward(&c, opts));
}
