/*
 * softmax_collapse.c - see stablemax.h. The largest entry is left out of the sum, so that what
 * it would swallow is seen.
 */
#include <math.h>

#include "core/options.h"
#include "softlogit/stablemax.h"
#include "softmax/pipeline.h"
#include "targets.h"

/* 1 + this is 1 in float32: half a unit in the last place, and ties go to even. */
#define SWALLOWED 0x1p-24

static const slg_collapse_out defaults = { .size = sizeof(slg_collapse_out) };

void slg_collapse_out_init(slg_collapse_out *out, size_t size)
{
    options_init(out, size, &defaults, sizeof defaults);
}

enum { LIVES = 0, COLLAPSED = 1, ZERO_LOSS = 2 };

typedef struct collapse_run {
    const slg_ctx *ctx;
    rows x;
    const target_set *target; /* NULL: none */
    int64_t ranges;
    unsigned char *flags; /* [rows] */
} collapse_run;

/* The first largest entry; false where the row has a NaN, +inf, or nothing but -inf. */
static bool find_top(const collapse_run *run, int64_t row, float *top, int64_t *at)
{
    const kernel_table *k = &run->ctx->k;
    float xs[KERNEL_BLOCK];
    double sums[3];
    bool nan = false;
    *top = -INFINITY;
    for (int64_t col = 0; col < run->x.cols; col += KERNEL_BLOCK) {
        int64_t n = run->x.cols - col < KERNEL_BLOCK ? run->x.cols - col : KERNEL_BLOCK;
        const float *x = rows_fetch(k, &run->x, row, col, n, xs);
        float max = k->max((size_t)n, x);
        k->live_sums((size_t)n, x, NULL, 0.0f, sums); /* max may forget a NaN */
        nan = nan || isnan(sums[0]);
        if (!(max > *top)) continue;
        *top = max;
        *at = col + k->find((size_t)n, x, max);
    }
    return !nan && isfinite(*top);
}

/* sum of exp(x - top) over all others. */
static double sum_others(const collapse_run *run, int64_t row, float top, int64_t at)
{
    const kernel_table *k = &run->ctx->k;
    const exp_arg arg = exp_arg_of(1.0, top);
    float xs[KERNEL_BLOCK];
    lse_part part = LSE_EMPTY;
    for (int64_t col = 0; col < run->x.cols; col += KERNEL_BLOCK) {
        int64_t n = run->x.cols - col < KERNEL_BLOCK ? run->x.cols - col : KERNEL_BLOCK;
        int64_t t = at - col, head = t >= 0 && t < n ? t : n;
        const float *x = rows_fetch(k, &run->x, row, col, n, xs);
        k->lse((size_t)head, x, &arg, &part);
        if (head < n) k->lse((size_t)(n - head - 1), x + head + 1, &arg, &part);
    }
    return part.sum == 0 ? 0 : exp(log(part.sum) + (double)part.ref * arg.unit);
}

static void collapse_row(const collapse_run *run, int64_t row)
{
    float top, x_target;
    int64_t at = 0;
    run->flags[row] = LIVES;
    if (run->target && targets_ignored(run->target, row)) return;
    if (!find_top(run, row, &top, &at) || !(sum_others(run, row, top, at) <= SWALLOWED)) return;
    run->flags[row] = COLLAPSED;
    if (!run->target) return;
    x_target = (float)rows_get(&run->x, row, targets_index(run->target, row));
    if (x_target == top) run->flags[row] = COLLAPSED | ZERO_LOSS;
}

static void collapse_range(void *arg, int64_t task, int32_t worker)
{
    const collapse_run *run = arg;
    int64_t last = pool_range_start(run->x.count, run->ranges, task + 1);
    (void)worker;
    for (int64_t r = pool_range_start(run->x.count, run->ranges, task); r < last; r++)
        collapse_row(run, r);
}

static slg_status open_flags(slg_ctx *ctx, const char *name, const slg_tensor *t,
                             const slg_tensor *logits, const slg_targets *targets, rows *out)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(ctx, name, t, DT_I32, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, logits->shape));
    if (tensor_clash(t, logits) || (targets && targets_clash(targets, t)))
        return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps an input", name);
    *out = rows_per_row(t);
    return SLG_OK;
}

static void add_up(const collapse_run *run, const rows *collapsed, const rows *zero,
                   slg_collapse_out *o)
{
    for (int64_t r = 0; r < run->x.count; r++) {
        if (!run->target || !targets_ignored(run->target, r)) o->count++;
        int is_collapsed = run->flags[r] & COLLAPSED,
            is_zero = (run->flags[r] & ZERO_LOSS) != 0;
        o->collapsed_rows += is_collapsed;
        o->zero_loss_rows += is_zero;
        if (collapsed->data) rows_put(collapsed, r, 0, is_collapsed);
        if (zero->data) rows_put(zero, r, 0, is_zero);
    }
    if (o->count == 0) return;
    o->collapsed_fraction = (double)o->collapsed_rows / (double)o->count;
    o->zero_loss_fraction = (double)o->zero_loss_rows / (double)o->count;
}

static slg_status collapse(slg_ctx *ctx, const slg_tensor *logits, const slg_targets *targets,
                           slg_collapse_out *out)
{
    slg_collapse_out o = defaults;
    target_set target;
    rows collapsed = { 0 }, zero = { 0 };
    SLG_TRY(tensor_in(ctx, "logits", logits, DT_ROW, 2, 2));
    if (targets)
        SLG_TRY(targets_open(ctx, targets, TARGET_INDEX, logits->shape[0], logits->shape[1],
                             &target));
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", out, &o, sizeof o));
    SLG_TRY(option_reserved(ctx, "out.reserved", o.reserved));
    SLG_TRY(open_flags(ctx, "out.collapsed", o.collapsed, logits, targets, &collapsed));
    SLG_TRY(open_flags(ctx, "out.zero_loss", o.zero_loss, logits, targets, &zero));
    if (outputs_clash(o.collapsed, o.zero_loss))
        return slg_fail(ctx, SLG_ERR_STRIDE, "out.collapsed and out.zero_loss overlap");
    op_detail(ctx, logits);
    collapse_run run = { .ctx = ctx, .x = rows_of(logits), .target = targets ? &target : NULL };
    run.ranges = pool_ranges(ctx, run.x.count, (1 << 14) / (run.x.cols + 1) + 1);
    run.flags = arena_alloc(ctx, (size_t)run.x.count, 1);
    if (!run.flags) return SLG_ERR_MEMORY;
    pool_run(ctx, run.ranges, collapse_range, &run);
    o.count = o.collapsed_rows = o.zero_loss_rows = 0;
    o.collapsed_fraction = o.zero_loss_fraction = 0;
    add_up(&run, &collapsed, &zero, &o);
    options_write(out, &o, sizeof o);
    return SLG_OK;
}

slg_status slg_softmax_collapse(slg_ctx *ctx, const slg_tensor *logits,
                                const slg_targets *targets, slg_collapse_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_softmax_collapse");
    return op_end(ctx, collapse(ctx, logits, targets, out));
}
