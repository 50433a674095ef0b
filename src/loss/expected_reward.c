/*
 * expected_reward.c - see reward.h. A table of rewards: p in scratch, then p (a - mean),
 * softmax's own backward pass. A reward of one class alone: the engine's
 * common form.
 */
#include <math.h>

#include "core/options.h"
#include "engine.h"
#include "softlogit/reward.h"

static const slg_expected_reward_opts defaults = {
    .size = sizeof(slg_expected_reward_opts),
    .reduction = SLG_MEAN,
};

void slg_expected_reward_opts_init(slg_expected_reward_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct reward {
    slg_expected_reward_opts o;
    rows table;
} reward;

static slg_status open(loss_call *c)
{
    reward *w = c->state = (reward *)(uintptr_t)c->opts;
    const slg_tensor *t = w->o.reward;
    const int64_t shape[2] = { c->src.rows, c->src.cols };
    const bool one = c->target.has_index;
    SLG_TRY(tensor_in(c->ctx, "opts.reward", t, one ? DT_F32 | DT_F64 : DT_ROW, one ? 1 : 2,
                      one ? 1 : 2));
    SLG_TRY(tensor_shape_is(c->ctx, "opts.reward", t, one ? 1 : 2, shape));
    SLG_TRY(loss_check_input(c, "opts.reward", t));
    w->table = one ? rows_per_row(t) : rows_of(t);
    return SLG_OK;
}

static void solve(const loss_call *c, loss_row *r)
{
    const reward *w = c->state;
    double value =
        r->weight == 0 ? 0 : r->weight * r->p_target * rows_get(&w->table, r->row, 0);
    r->loss = -value;
    r->a = value;
    r->at_target = -value * r->other;
}

static int64_t scratch_floats(int64_t cols) { return cols; }

/* Sum of p a, with p into scratch; NaN where a reward is not finite, also of a class whose p
   is 0. */
static double mean_reward(const loss_call *c, const loss_row *r, const float *x, float *p)
{
    const reward *w = c->state;
    const kernel_table *k = &c->ctx->k;
    const exp_out e = loss_softmax(c, r, 1.0, 0.0f);
    float kept[KERNEL_BLOCK];
    double mean = 0;
    for (int64_t col = 0; col < c->src.cols; col += KERNEL_BLOCK) {
        int64_t n = c->src.cols - col < KERNEL_BLOCK ? c->src.cols - col : KERNEL_BLOCK;
        const float *a = rows_fetch(k, &w->table, r->row, col, n, kept);
        double sums[2];
        k->exp_emit((size_t)n, x + col, &e, p + col, STORE_CACHED);
        k->weigh_sums((size_t)n, p + col, 0.0f, 1.0f, a, sums);
        mean += k->finite((size_t)n, a) ? sums[1] : (double)NAN;
    }
    return mean;
}

static void whole(const loss_call *c, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const reward *w = c->state;
    const kernel_table *k = &c->ctx->k;
    const int64_t cols = c->src.cols;
    const int store = loss_store(c, &c->grad);
    const double weight = r->weight, mean = mean_reward(c, r, x, scratch);
    float kept[EMIT_BLOCK];
    (void)t;
    r->loss = weight == 0 ? 0 : -weight * mean;
    if (!d) return;
    if (isnan(mean) || weight == 0) {
        fill_f32(d, cols, weight == 0 ? 0.0f : NAN);
        return;
    }
    for (int64_t col = 0, from, to; col < cols; col += KERNEL_BLOCK) {
        line_cut(d, cols, col, cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK, &from,
                 &to);
        if (from >= to) continue;
        const float *a = rows_fetch(k, &w->table, r->row, from, to - from, kept);
        k->weigh_emit((size_t)(to - from), scratch + from, 0.0f, 1.0f, a,
                      (float)(-weight * loss_factor(r)), (float)mean, d + from, store);
    }
}

static const loss_method one_class = { .uses = TARGET_INDEX | TARGET_ROW_WEIGHT,
                                       .open = open,
                                       .solve = solve };
static const loss_method all_classes = {
    .uses = TARGET_ROW_WEIGHT, .open = open, .whole = whole, .scratch_floats = scratch_floats
};

static slg_status expected(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                           const slg_expected_reward_opts *opts, slg_loss_out *out,
                           slg_logits_grad *grad)
{
    reward w = { .o = defaults };
    slg_targets t;
    slg_targets_init(&t, sizeof t);
    SLG_TRY(options_read(ctx, "opts", opts, &w.o, sizeof w.o));
    if (targets) SLG_TRY(options_read(ctx, "targets", targets, &t, sizeof t));
    const loss_method *m = t.index ? &one_class : &all_classes;
    return loss_run(ctx, m, &w, w.o.reduction, logits, targets, out, grad);
}

slg_status slg_expected_reward(slg_ctx *ctx, const slg_logits *logits,
                               const slg_targets *targets, const slg_expected_reward_opts *opts,
                               slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_expected_reward");
    return op_end(ctx, expected(ctx, logits, targets, opts, out, grad));
}
