/*
 * moe_sample.c - draws from a Gaussian mixture of experts: two numbers a row.
 */
#include "core/rng.h"
#include "moe_mixture.h"

static slg_status sample(slg_ctx *ctx, const slg_tensor *x, const slg_moe_mixture *given,
                         slg_rng *rng, const slg_tensor *y, const slg_tensor *expert)
{
    mix_params m;
    mix_rows b;
    SLG_TRY(mixture_read(ctx, "mixture", given, &m));
    SLG_TRY(moe_in(ctx, "x", x, DT_REAL, -1, m.dim));
    const int64_t count = x->shape[0];
    if (count < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "x has no rows");
    if (!rng) return slg_fail(ctx, SLG_ERR_NULL, "rng is NULL");
    SLG_TRY(moe_out_1d(ctx, "y", y, DT_REAL, count));
    if (expert) SLG_TRY(moe_out_1d(ctx, "expert", expert, DT_I32, count));
    const moe_operand in[] = {
        { "x", x },        { "beta1", given->beta1 }, { "beta0", given->beta0 },
        { "a", given->a }, { "b", given->b },         { "log_variance", given->log_variance }
    };
    const moe_operand out[] = { { "y", y }, { "expert", expert } };
    SLG_TRY(moe_apart(ctx, 2, out, 6, in));
    op_detail(ctx, x);
    const double *data = moe_doubles(ctx, x);
    if (!data) return SLG_ERR_MEMORY;
    SLG_TRY(mix_alloc(ctx, &m, moe_least(count, MIX_BLOCK), &b));
    const rows to = rows_per_row(y);
    for (int64_t first = 0; first < count; first += MIX_BLOCK) {
        b.count = moe_least(MIX_BLOCK, count - first), b.x = data + first * m.dim;
        SLG_TRY(mix_evaluate(&b));
        for (int64_t n = 0; n < b.count; n++) {
            const uint64_t at = rng->offset + 2 * (uint64_t)(first + n);
            double u = rng_uniform(rng->seed, at);
            int64_t j = 0;
            while (j < m.chosen - 1 && u >= b.g[n * m.chosen + j]) u -= b.g[n * m.chosen + j++];
            const int32_t i = b.index[n * m.chosen + j];
            rows_put(&to, first + n, 0,
                     b.mu[n * m.experts + i] + m.b[i] +
                         exp(0.5 * m.log_v[i]) * rng_normal(rng->seed, at + 1));
            if (!expert) continue;
            const rows who = rows_per_row(expert);
            *moe_int(&who, first + n, 0) = i;
        }
    }
    rng->offset += 2 * (uint64_t)count;
    return SLG_OK;
}

slg_status slg_moe_sample(slg_ctx *ctx, const slg_tensor *x, const slg_moe_mixture *mixture,
                          slg_rng *rng, slg_tensor *y, slg_tensor *expert)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_sample");
    return op_end(ctx, sample(ctx, x, mixture, rng, y, expert));
}
