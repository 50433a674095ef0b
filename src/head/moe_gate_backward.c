/*
 * moe_gate_backward.c - the gradient of the gate: K entries a row, and their sums by expert.
 * Rows go in chunks that depend on their number alone, each with sums of its own.
 */
#include "moe_gate.h"

enum { CHUNKS = 64 };

void gate_slopes(int64_t chosen, const float *weight, const float *dweight, float *dz)
{
    double dot = 0;
    bool nan = false;
    for (int64_t j = 0; j < chosen; j++) {
        nan |= isnan(weight[j]);
        if (weight[j] != 0) dot += (double)weight[j] * (double)dweight[j];
    }
    for (int64_t j = 0; j < chosen; j++)
        dz[j] = nan              ? NAN
                : weight[j] == 0 ? 0.0f
                                 : (float)((double)weight[j] * ((double)dweight[j] - dot));
}

typedef struct backward_call {
    slg_ctx *ctx;
    slg_moe_gate_opts opts;
    int64_t experts, chunk_rows;
    bool sums;
    rows index, weight, dweight, dscore;
    double *part; /* [chunks, experts] */
    float *scratch;
    int64_t per_worker;
} backward_call;

static void backward_row(const backward_call *c, int64_t r, float *scratch, double *sum)
{
    const kernel_table *k = &c->ctx->k;
    const int64_t chosen = c->opts.chosen, experts = c->experts;
    float *w = scratch, *d = w + chosen, *dz = d + chosen, *row = dz + chosen;
    const float *weight = rows_fetch(k, &c->weight, r, 0, chosen, w);
    const float *dweight = rows_fetch(k, &c->dweight, r, 0, chosen, d);
    gate_slopes(chosen, weight, dweight, dz);
    float *to = rows_stage(&c->dscore, r, 0, row);
    if (!c->opts.accumulate)
        memset(to, 0, (size_t)experts * sizeof *to);
    else
        rows_fetch(k, &c->dscore, r, 0, experts, to); /* to itself where it is plain */
    for (int64_t j = 0; j < chosen; j++) {
        const int32_t i = *moe_int(&c->index, r, j);
        to[i] += dz[j];
        if (sum) sum[i] += (double)dz[j];
    }
    rows_commit(k, &c->dscore, r, 0, experts, to);
}

static void backward_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const backward_call *c = arg;
    const int64_t first = chunk * c->chunk_rows;
    const int64_t end = moe_least(c->index.count, first + c->chunk_rows);
    double *sum = c->sums ? c->part + chunk * c->experts : NULL;
    for (int64_t i = 0; sum && i < c->experts; i++) sum[i] = 0;
    for (int64_t r = first; r < end; r++)
        backward_row(c, r, c->scratch + worker * c->per_worker, sum);
}

static slg_status check(backward_call *c, const slg_tensor *index, const slg_tensor *weight,
                        const slg_tensor *dweight, const slg_tensor *dscore,
                        const slg_tensor *dbias)
{
    slg_ctx *ctx = c->ctx;
    SLG_TRY(tensor_out(ctx, "dscore", dscore, DT_ROW, 2, 2));
    const int64_t count = dscore->shape[0], chosen = c->opts.chosen;
    c->experts = dscore->shape[1];
    if (chosen < 1 || chosen > c->experts)
        return slg_fail(ctx, SLG_ERR_RANGE, "chosen is %lld, must be from 1 to %lld experts",
                        (long long)chosen, (long long)c->experts);
    SLG_TRY(moe_in(ctx, "index", index, DT_I32, count, chosen));
    SLG_TRY(moe_in(ctx, "weight", weight, DT_ROW, count, chosen));
    SLG_TRY(moe_in(ctx, "dweight", dweight, DT_ROW, count, chosen));
    if (dbias) SLG_TRY(moe_out_1d(ctx, "dbias", dbias, DT_F32 | DT_F64, c->experts));
    const moe_operand in[] = { { "index", index },
                               { "weight", weight },
                               { "dweight", dweight } };
    const moe_operand out[] = { { "dscore", dscore }, { "dbias", dbias } };
    SLG_TRY(moe_apart(ctx, 2, out, 3, in));
    return moe_indices(ctx, "index", index, 0, c->experts);
}

static slg_status backward(slg_ctx *ctx, const slg_tensor *index, const slg_tensor *weight,
                           const slg_tensor *dweight, const slg_moe_gate_opts *opts,
                           const slg_tensor *dscore, const slg_tensor *dbias)
{
    backward_call c = { .ctx = ctx };
    SLG_TRY(gate_options(ctx, opts, &c.opts));
    SLG_TRY(check(&c, index, weight, dweight, dscore, dbias));
    op_detail(ctx, dscore);
    c.index = rows_of(index), c.weight = rows_of(weight), c.dweight = rows_of(dweight);
    c.dscore = rows_of(dscore);
    c.sums = dbias && c.opts.bias != SLG_MOE_BIAS_CHOICE;
    const int64_t count = c.index.count, experts = c.experts;
    c.chunk_rows = count > CHUNKS * MOE_ROWS ? (count + CHUNKS - 1) / CHUNKS : MOE_ROWS;
    const int64_t chunks = (count + c.chunk_rows - 1) / c.chunk_rows;
    c.per_worker = 3 * c.opts.chosen + experts;
    c.scratch = arena_alloc(ctx, (size_t)(c.per_worker * ctx->num_threads), sizeof(float));
    c.part = arena_alloc(ctx, c.sums ? (size_t)(chunks * experts) : 0, sizeof *c.part);
    double *total = moe_vector(ctx, NULL, experts);
    if (!c.scratch || !c.part || !total) return SLG_ERR_MEMORY;
    pool_run(ctx, chunks, backward_chunk, &c);
    for (int64_t chunk = 0; c.sums && chunk < chunks; chunk++)
        for (int64_t i = 0; i < experts; i++) total[i] += c.part[chunk * experts + i];
    moe_put(dbias, total, c.opts.accumulate);
    return SLG_OK;
}

slg_status slg_moe_gate_backward(slg_ctx *ctx, const slg_tensor *index,
                                 const slg_tensor *weight, const slg_tensor *dweight,
                                 const slg_moe_gate_opts *opts, slg_tensor *dscore,
                                 slg_tensor *dbias)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_gate_backward");
    return op_end(ctx, backward(ctx, index, weight, dweight, opts, dscore, dbias));
}
