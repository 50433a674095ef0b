/*
 * tempnet_drop.c - see tempnet.h. One number a factor, by its place alone.
 */
#include "core/rng.h"
#include "core/tensor.h"
#include "softlogit/tempnet.h"

/* Factors a task makes. */
enum { PIECE = 1 << 12 };

typedef struct drop_run {
    slg_rng rng;
    double rate;
    rows out;
    int64_t count;
} drop_run;

static void drop_piece(void *arg, int64_t task, int32_t worker)
{
    const drop_run *d = arg;
    const double kept = 1 / (1 - d->rate);
    int64_t to = (task + 1) * PIECE < d->count ? (task + 1) * PIECE : d->count;
    (void)worker;
    for (int64_t i = task * PIECE; i < to; i++) {
        double u = rng_uniform(d->rng.seed, d->rng.offset + (uint64_t)i);
        rows_put(&d->out, i / d->out.cols, i % d->out.cols, u < d->rate ? 0 : kept);
    }
}

static slg_status make(slg_ctx *ctx, slg_rng *rng, double rate, slg_tensor *drop)
{
    if (!rng) return slg_fail(ctx, SLG_ERR_NULL, "rng is NULL");
    if (!(rate >= 0 && rate < 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "rate is %g, must be at least 0 and below 1", rate);
    SLG_TRY(tensor_out(ctx, "drop", drop, DT_F32, 1, 4));
    drop_run d = { *rng, rate, rows_of(drop), tensor_size(drop) };
    pool_run(ctx, (d.count + PIECE - 1) / PIECE, drop_piece, &d);
    rng->offset += (uint64_t)d.count;
    return SLG_OK;
}

slg_status slg_tempnet_drop(slg_ctx *ctx, slg_rng *rng, double rate, slg_tensor *drop)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_tempnet_drop");
    return op_end(ctx, make(ctx, rng, rate, drop));
}
