/*
 * rival_gradient.c - see softlogit/utility.h.
 */
#include <math.h>

#include "core/options.h"
#include "core/rng.h"
#include "engine.h"
#include "softlogit/utility.h"
#include "softmax/draw.h"

static const slg_rival_gradient_opts defaults = {
    .size = sizeof(slg_rival_gradient_opts),
    .reduction = SLG_SUM,
};

void slg_rival_gradient_opts_init(slg_rival_gradient_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct rival_run {
    slg_ctx *ctx;
    slg_rival_gradient_opts opts;
    target_set target;
    rows_source logits; /* x.data NULL: rivals are given */
    bool draws;
    uint64_t seed, offset;
    rows rivals, out;
    int64_t count, cols, samples, ranges;
    double scale;
    exp_arg arg;
    draw_point *points; /* samples a worker */
    int64_t *index;     /* the same */
} rival_run;

/* A row's rivals: drawn and written, or read. */
static void find_rivals(const rival_run *g, int64_t r, draw_point *points, int64_t *index)
{
    if (!g->draws) {
        for (int64_t j = 0; j < g->samples; j++) index[j] = rows_get_int(&g->rivals, r, j);
        return;
    }
    for (int64_t j = 0; j < g->samples; j++) {
        uint64_t number = g->offset + (uint64_t)(r * g->samples + j);
        points[j] = (draw_point){ rng_uniform(g->seed, number), j };
    }
    row_draw(&g->ctx->k, &g->arg, r, g->cols, rows_source_fetch, &g->logits, g->samples, points,
             index);
    for (int64_t j = 0; j < g->samples; j++) rows_put(&g->rivals, r, j, (double)index[j]);
}

static void add_to(const rival_run *g, int64_t r, int64_t c, double value)
{
    rows_put(&g->out, r, c, rows_get(&g->out, r, c) + value);
}

static bool has_nan(const rival_run *g, int64_t r)
{
    for (int64_t c = 0; c < g->cols; c++)
        if (isnan(rows_get(&g->logits.x, r, c))) return true;
    return false;
}

static void fill_row(const rival_run *g, int64_t r, float value)
{
    if (g->out.plain)
        fill_f32((float *)(void *)rows_at(&g->out, r), g->cols, value);
    else
        for (int64_t c = 0; c < g->cols; c++) rows_put(&g->out, r, c, (double)value);
}

static void one_row(const rival_run *g, int64_t r, draw_point *points, int64_t *index)
{
    const double w = targets_weight(&g->target, r) * g->scale;
    const int64_t label = targets_index(&g->target, r);
    find_rivals(g, r, points, index);
    const bool nan = g->draws && g->samples > 0 && index[0] < 0 && label >= 0 && has_nan(g, r);
    if (!g->opts.accumulate || nan) fill_row(g, r, nan ? NAN : 0.0f);
    if (label < 0 || index[0] < 0) return;
    int64_t others = 0;
    for (int64_t j = 0; j < g->samples; j++) {
        if (index[j] == label) continue;
        others++;
        add_to(g, r, index[j], w / (double)g->samples);
    }
    if (others) add_to(g, r, label, -w * (double)others / (double)g->samples);
}

static void some_rows(void *arg, int64_t task, int32_t worker)
{
    const rival_run *g = arg;
    int64_t to = pool_range_start(g->count, g->ranges, task + 1);
    for (int64_t r = pool_range_start(g->count, g->ranges, task); r < to; r++)
        one_row(g, r, g->points + worker * g->samples, g->index + worker * g->samples);
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_given(const rival_run *g)
{
    for (int64_t r = 0; r < g->count; r++)
        for (int64_t j = 0; j < g->samples; j++) {
            int64_t c = rows_get_int(&g->rivals, r, j);
            if (c >= 0 && c < g->cols) continue;
            return slg_fail(g->ctx, SLG_ERR_RANGE,
                            "rivals[%lld, %lld] is %lld, must be from 0 to %lld", (long long)r,
                            (long long)j, (long long)c, (long long)g->cols - 1);
        }
    return SLG_OK;
}

static slg_status check_tensors(rival_run *g, const slg_tensor *logits,
                                const slg_targets *targets, slg_tensor *rivals,
                                slg_tensor *dlogits)
{
    slg_ctx *ctx = g->ctx;
    SLG_TRY(tensor_out(ctx, "dlogits", dlogits, DT_F32, 2, 2));
    SLG_TRY(g->draws ? tensor_out(ctx, "rivals", rivals, DT_INT, 2, 2)
                     : tensor_in(ctx, "rivals", rivals, DT_INT, 2, 2));
    g->count = dlogits->shape[0], g->cols = dlogits->shape[1], g->samples = rivals->shape[1];
    if (rivals->shape[0] != g->count || g->samples < 1)
        return slg_fail(ctx, SLG_ERR_SHAPE,
                        "rivals has shape [%lld, %lld], dlogits %lld rows; at "
                        "least one rival a row is needed",
                        (long long)rivals->shape[0], (long long)g->samples,
                        (long long)g->count);
    if (outputs_clash(dlogits, rivals))
        return slg_fail(ctx, SLG_ERR_STRIDE, "dlogits overlaps rivals");
    if (targets_clash(targets, dlogits) || (g->draws && targets_clash(targets, rivals)))
        return slg_fail(ctx, SLG_ERR_STRIDE, "an output overlaps a target tensor");
    if (!g->draws) return SLG_OK;
    if (!logits)
        return slg_fail(ctx, SLG_ERR_NULL, "logits is NULL, and rivals are to be drawn");
    SLG_TRY(tensor_in(ctx, "logits", logits, DT_ROW, 2, 2));
    SLG_TRY(tensor_same_shape(ctx, "logits", logits, "dlogits", dlogits));
    if (outputs_clash(rivals, logits) ||
        (g->opts.accumulate ? outputs_clash(dlogits, logits) : tensor_clash(dlogits, logits)))
        return slg_fail(ctx, SLG_ERR_STRIDE, "an output overlaps logits");
    g->logits = (rows_source){ &ctx->k, rows_of(logits) };
    return SLG_OK;
}

static slg_status check_options(slg_ctx *ctx, const slg_rival_gradient_opts *o)
{
    SLG_TRY(reduction_check(ctx, o->reduction));
    SLG_TRY(option_choice(ctx, "accumulate", o->accumulate, 0, 1));
    SLG_TRY(option_reserved(ctx, "reserved", o->reserved));
    return SLG_OK;
}

static double scale_of(const rival_run *g)
{
    double weight = 0;
    if (g->opts.reduction != SLG_MEAN) return 1;
    for (int64_t r = 0; r < g->count; r++)
        if (!targets_ignored(&g->target, r)) weight += targets_weight(&g->target, r);
    return weight > 0 ? 1 / weight : 0;
}

static slg_status rival_gradient(slg_ctx *ctx, const slg_tensor *logits,
                                 const slg_targets *targets,
                                 const slg_rival_gradient_opts *opts, slg_rng *rng,
                                 slg_tensor *rivals, slg_tensor *dlogits)
{
    rival_run g = { .ctx = ctx, .opts = defaults, .draws = rng != NULL };
    SLG_TRY(options_read(ctx, "opts", opts, &g.opts, sizeof g.opts));
    SLG_TRY(check_options(ctx, &g.opts));
    SLG_TRY(check_tensors(&g, logits, targets, rivals, dlogits));
    SLG_TRY(targets_open(ctx, targets, TARGET_INDEX | TARGET_ROW_WEIGHT, g.count, g.cols,
                         &g.target));
    g.rivals = rows_of(rivals);
    g.out = rows_of(dlogits);
    if (!g.draws) SLG_TRY(check_given(&g));
    g.arg = exp_arg_of(1, 0);
    g.scale = scale_of(&g);
    const size_t room = (size_t)g.samples * (size_t)ctx->num_threads;
    g.points = arena_alloc(ctx, room, sizeof *g.points);
    g.index = arena_alloc(ctx, room, sizeof *g.index);
    if (!g.points || !g.index) return SLG_ERR_MEMORY;
    if (rng) g.seed = rng->seed, g.offset = rng->offset;
    g.ranges = pool_ranges(ctx, g.count, (1 << 14) / (g.cols + 1) + 1);
    pool_run(ctx, g.ranges, some_rows, &g);
    if (rng) rng->offset += (uint64_t)(g.count * g.samples);
    return SLG_OK;
}

slg_status slg_rival_gradient(slg_ctx *ctx, const slg_tensor *logits,
                              const slg_targets *targets, const slg_rival_gradient_opts *opts,
                              slg_rng *rng, slg_tensor *rivals, slg_tensor *dlogits)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_rival_gradient");
    return op_end(ctx, rival_gradient(ctx, logits, targets, opts, rng, rivals, dlogits));
}
