/*
 * moe_balance.c - how evenly experts are used, and losses of it: see softlogit/moe.h. Pass 1
 * adds up probabilities, counts and importance; pass 2 forms each row's softmax again for its
 * gradient. Sums go by chunks that depend on the number of rows alone.
 */
#include "moe_common.h"

#include "softmax/parts.h"

enum { CHUNKS = 64 };

static const slg_moe_balance_opts defaults = { .size = sizeof(slg_moe_balance_opts),
                                               .balance = 0.01,
                                               .z = 0.001 };
static const slg_moe_balance_out nothing = { .size = sizeof(slg_moe_balance_out) };

void slg_moe_balance_opts_init(slg_moe_balance_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

void slg_moe_balance_out_init(slg_moe_balance_out *out, size_t size)
{
    options_init(out, size, &nothing, sizeof nothing);
}

typedef struct balance_call {
    slg_ctx *ctx;
    slg_moe_balance_opts opts;
    slg_moe_balance_out out;
    int64_t experts, chosen, chunk_rows, chunks, counted;
    bool weighs, grads;
    rows score, index, weight, dscore;
    const double *bias; /* NULL: zeros */
    double *part;       /* [chunks, 3 experts + 2]: probability, count, importance, z, rows */
    double *share;      /* [experts] */
    double *dbias;      /* [chunks, experts] */
    float *scratch;     /* per worker: two rows */
} balance_call;

static double *part_of(const balance_call *c, int64_t chunk)
{
    return c->part + chunk * (3 * c->experts + 2);
}

/* The row's softmax to p, its log-sum-exp to *lse; false where it is not to be counted. */
static bool row_softmax(const balance_call *c, int64_t r, float *p, double *lse)
{
    enum { FAR = -10000 }; /* exp of it is 0 */
    const kernel_table *k = &c->ctx->k;
    const size_t n = (size_t)c->experts;
    const exp_arg arg = exp_arg_of(1.0, 0.0f);
    lse_part part = LSE_EMPTY;
    const float *x = rows_fetch(k, &c->score, r, 0, c->experts, p);
    double top = -(double)INFINITY;
    bool nan = false;
    for (size_t i = 0; i < n; i++) {
        const double z = (double)x[i] + (c->bias ? c->bias[i] : 0);
        nan |= isnan(z);
        if (z > top) top = z;
    }
    if (nan || !isfinite(top)) return false;
    for (size_t i = 0; i < n; i++)
        p[i] = (float)fmax((double)x[i] + (c->bias ? c->bias[i] : 0) - top, FAR);
    if (!k->softmax_row(n, p, &arg, p, &part)) return false;
    *lse = top + log(part.sum) + (double)part.ref * arg.unit;
    return true;
}

static void count_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const balance_call *c = arg;
    const int64_t k = c->experts, first = chunk * c->chunk_rows;
    const int64_t end = moe_least(c->score.count, first + c->chunk_rows);
    float *p = c->scratch + 2 * k * worker;
    double *sum = part_of(c, chunk), *count = sum + k, *total = count + k, *rest = total + k;
    double lse;
    memset(sum, 0, (size_t)(3 * k + 2) * sizeof *sum);
    for (int64_t r = first; r < end; r++) {
        if (!row_softmax(c, r, p, &lse)) continue;
        for (int64_t i = 0; i < k; i++) sum[i] += (double)p[i];
        for (int64_t j = 0; j < c->chosen; j++) {
            const int32_t i = *moe_int(&c->index, r, j);
            count[i] += 1;
            if (c->weighs) total[i] += rows_get(&c->weight, r, j);
        }
        rest[0] += lse * lse, rest[1] += 1;
    }
}

static void grad_row(const balance_call *c, int64_t r, float *p, double *sum)
{
    const int64_t k = c->experts;
    const double n = (double)c->counted, b = c->opts.balance * (double)k / n;
    double lse = 0, dot = 0;
    float *row = p + k;
    const bool counted = row_softmax(c, r, p, &lse);
    for (int64_t i = 0; counted && i < k; i++) dot += c->share[i] * (double)p[i];
    const double z = 2 * c->opts.z * lse / n;
    for (int64_t i = 0; i < k; i++) {
        const double d = counted ? (double)p[i] * (b * (c->share[i] - dot) + z) : 0;
        row[i] = (float)d;
        sum[i] += d;
    }
    if (!c->out.dscore) return;
    if (c->opts.accumulate)
        c->ctx->k.add((size_t)k, rows_fetch(&c->ctx->k, &c->dscore, r, 0, k, p), row);
    float *to = rows_stage(&c->dscore, r, 0, row);
    if (to != row) memcpy(to, row, (size_t)k * sizeof *to);
    rows_commit(&c->ctx->k, &c->dscore, r, 0, k, row);
}

static void grad_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const balance_call *c = arg;
    const int64_t first = chunk * c->chunk_rows;
    const int64_t end = moe_least(c->score.count, first + c->chunk_rows);
    double *sum = c->dbias + chunk * c->experts;
    memset(sum, 0, (size_t)c->experts * sizeof *sum);
    for (int64_t r = first; r < end; r++)
        grad_row(c, r, c->scratch + 2 * c->experts * worker, sum);
}

/* (standard deviation / mean)^2; 0 where the mean is. */
static double variation(int64_t n, const double *x, double *mean, double *square)
{
    *mean = *square = 0;
    for (int64_t i = 0; i < n; i++) *mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) *square += (x[i] - *mean) * (x[i] - *mean) / (double)n;
    return *mean == 0 ? 0 : *square / (*mean * *mean);
}

/* The figures, from the sums in chunk 0. */
static void figures(balance_call *c)
{
    const int64_t k = c->experts;
    const double *sum = part_of(c, 0), *count = sum + k, *total = count + k;
    slg_moe_balance_out *o = &c->out;
    double mean, square;
    o->rows = c->counted = (int64_t)total[k + 1];
    o->balance = o->most = 0;
    const double n = c->counted > 0 ? (double)c->counted : 1;
    for (int64_t i = 0; i < k; i++) {
        c->share[i] = count[i] / (n * (double)c->chosen);
        o->balance += (double)k * c->share[i] * (sum[i] / n);
        o->most = fmax(o->most, (double)k * c->share[i]);
    }
    o->z = total[k] / n;
    o->load = variation(k, count, &mean, &square);
    o->importance = variation(k, total, &mean, &square);
    o->loss =
        c->opts.balance * o->balance + c->opts.z * o->z + c->opts.importance * o->importance;
}

/* d importance / d total[i], with the mean square E[x^2] = square + mean^2. */
static void importance_grad(const balance_call *c)
{
    const int64_t k = c->experts;
    const double *total = part_of(c, 0) + 2 * k;
    const rows out = rows_of(c->out.dweight);
    double mean, square;
    variation(k, total, &mean, &square);
    for (int64_t r = 0; r < out.count; r++)
        for (int64_t j = 0; j < out.cols; j++) {
            const double x = total[*moe_int(&c->index, r, j)];
            double d =
                mean == 0 ? 0
                          : 2 / ((double)k * mean * mean) * (x - (square + mean * mean) / mean);
            const double w = c->weighs ? rows_get(&c->weight, r, j) : 0;
            d = isnan(w) ? 0 : d * c->opts.importance;
            if (c->opts.accumulate) d += rows_get(&out, r, j);
            rows_put(&out, r, j, d);
        }
}

static void write_sums(const balance_call *c)
{
    const int64_t k = c->experts;
    const double n = c->counted > 0 ? (double)c->counted : 1;
    double *sum = part_of(c, 0);
    moe_put(c->out.count, sum + k, false);
    moe_put(c->out.total, sum + 2 * k, false);
    for (int64_t i = 0; i < k; i++) sum[i] /= n;
    moe_put(c->out.probability, sum, false);
}

static slg_status check(balance_call *c, const slg_tensor *score, const slg_tensor *bias,
                        const slg_tensor *index, const slg_tensor *weight)
{
    slg_ctx *ctx = c->ctx;
    const slg_moe_balance_out *o = &c->out;
    SLG_TRY(option_choice(ctx, "accumulate", c->opts.accumulate, 0, 1));
    SLG_TRY(option_least(ctx, "balance", c->opts.balance, 0));
    SLG_TRY(option_least(ctx, "z", c->opts.z, 0));
    SLG_TRY(option_least(ctx, "importance", c->opts.importance, 0));
    SLG_TRY(option_reserved(ctx, "reserved", o->reserved));
    SLG_TRY(tensor_in(ctx, "score", score, DT_ROW, 2, 2));
    const int64_t count = score->shape[0], k = c->experts = score->shape[1];
    if (bias) SLG_TRY(moe_in_1d(ctx, "bias", bias, DT_F32 | DT_F64, k));
    SLG_TRY(moe_in(ctx, "index", index, DT_I32, count, -1));
    c->chosen = index->shape[1];
    if (c->chosen < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "index has no columns");
    if (weight) SLG_TRY(moe_in(ctx, "weight", weight, DT_ROW, count, c->chosen));
    if (o->count) SLG_TRY(moe_out_1d(ctx, "out->count", o->count, DT_I64, k));
    if (o->total) SLG_TRY(moe_out_1d(ctx, "out->total", o->total, DT_F64, k));
    if (o->probability) SLG_TRY(moe_out_1d(ctx, "out->probability", o->probability, DT_F64, k));
    if (o->dscore) SLG_TRY(moe_out(ctx, "out->dscore", o->dscore, DT_ROW, count, k));
    if (o->dbias) SLG_TRY(moe_out_1d(ctx, "out->dbias", o->dbias, DT_F32 | DT_F64, k));
    if (o->dweight) SLG_TRY(moe_out(ctx, "out->dweight", o->dweight, DT_ROW, count, c->chosen));
    const moe_operand in[] = {
        { "score", score }, { "bias", bias }, { "index", index }, { "weight", weight }
    };
    const moe_operand out[] = { { "out->count", o->count },
                                { "out->total", o->total },
                                { "out->probability", o->probability },
                                { "out->dscore", o->dscore },
                                { "out->dbias", o->dbias },
                                { "out->dweight", o->dweight } };
    SLG_TRY(moe_apart(ctx, 6, out, 4, in));
    return moe_indices(ctx, "index", index, 0, k);
}

static slg_status balance(balance_call *c, const slg_tensor *score, const slg_tensor *bias,
                          const slg_tensor *index, const slg_tensor *weight)
{
    slg_ctx *ctx = c->ctx;
    SLG_TRY(check(c, score, bias, index, weight));
    op_detail(ctx, score);
    const int64_t k = c->experts, width = 3 * k + 2;
    c->score = rows_of(score), c->index = rows_of(index), c->weighs = weight != NULL;
    if (weight) c->weight = rows_of(weight);
    if (c->out.dscore) c->dscore = rows_of(c->out.dscore);
    const int64_t count = c->score.count;
    c->chunk_rows = count > CHUNKS * MOE_ROWS ? (count + CHUNKS - 1) / CHUNKS : MOE_ROWS;
    c->chunks = count > 0 ? (count + c->chunk_rows - 1) / c->chunk_rows : 1;
    c->bias = bias ? moe_vector(ctx, bias, k) : NULL;
    c->part = arena_alloc(ctx, (size_t)(c->chunks * width), sizeof *c->part);
    c->dbias = arena_alloc(ctx, (size_t)(c->chunks * k), sizeof *c->dbias);
    c->share = arena_alloc(ctx, (size_t)k, sizeof *c->share);
    c->scratch = arena_alloc(ctx, 2 * (size_t)(k * ctx->num_threads), sizeof(float));
    if ((bias && !c->bias) || !c->part || !c->dbias || !c->share || !c->scratch)
        return SLG_ERR_MEMORY;
    pool_run(ctx, c->chunks, count_chunk, c);
    for (int64_t chunk = 1; chunk < c->chunks; chunk++)
        for (int64_t i = 0; i < width; i++) c->part[i] += part_of(c, chunk)[i];
    figures(c);
    if (c->out.dscore || c->out.dbias) {
        pool_run(ctx, c->chunks, grad_chunk, c);
        for (int64_t chunk = 1; chunk < c->chunks; chunk++)
            for (int64_t i = 0; i < k; i++) c->dbias[i] += c->dbias[chunk * k + i];
        moe_put(c->out.dbias, c->dbias, c->opts.accumulate);
    }
    if (c->out.dweight) importance_grad(c);
    write_sums(c);
    return SLG_OK;
}

slg_status slg_moe_balance(slg_ctx *ctx, const slg_tensor *score, const slg_tensor *bias,
                           const slg_tensor *index, const slg_tensor *weight,
                           const slg_moe_balance_opts *opts, slg_moe_balance_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_balance");
    balance_call c = { .ctx = ctx, .opts = defaults, .out = nothing };
    slg_status status = out ? SLG_OK : slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    if (!status) status = options_read(ctx, "opts", opts, &c.opts, sizeof c.opts);
    if (!status) status = options_read(ctx, "out", out, &c.out, sizeof c.out);
    if (!status) status = balance(&c, score, bias, index, weight);
    if (!status) options_write(out, &c.out, sizeof c.out);
    return op_end(ctx, status);
}
