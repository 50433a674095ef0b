/*
 * preference.c - see softlogit/utility.h. The margin is minus the mean of x[r] - x[y] over
 * rivals, so sums leave the label out and take differences from its logit: nothing cancels
 * where it dominates.
 */
#include "preference.h"

#include <math.h>

#include "core/options.h"

static const slg_preference_opts defaults = {
    .size = sizeof(slg_preference_opts),
    .reduction = SLG_MEAN,
};

void slg_preference_opts_init(slg_preference_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* What the engine carries for us. */
typedef struct preference_call {
    preference_rows *found;
    const slg_tensor *margin; /* NULL: not wanted */
} preference_call;

/* Sums over rivals of p v and p v^2, v = x - the label's x; that x, or 0 where it is not
   finite. */
enum { FIRST, SECOND, SHIFT };

static void add_rivals(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x)
{
    const kernel_table *k = &c->ctx->k;
    const float shift = (float)r->sums[SHIFT];
    const int64_t t = r->target - col;
    const bool here = t >= 0 && t < n;
    k->lse_dot((size_t)(here ? t : n), x, NULL, shift, &r->rest.arg, &r->parts[0], r->sums);
    if (here)
        k->lse_dot((size_t)(n - t - 1), x + t + 1, NULL, shift, &r->rest.arg, &r->parts[0],
                   r->sums);
}

/* The rivals' log-sum-exp is the engine's own: one exponential for both. */
static void reduce_all(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                       const float *teacher)
{
    (void)teacher;
    if (col == 0 && r->target >= 0) {
        float scratch[1], label = *source_fetch(&c->src, r->row, r->target, 1, scratch);
        r->sums[SHIFT] = isfinite(label) ? (double)label : 0;
    }
    add_rivals(c, r, col, n, x);
    r->rest.segment = r->parts[0];
}

/* Where logits are too large for sums without a shift of the exponent: around the rivals'
   maximum. */
static void reduce_again(const loss_call *c, loss_row *r)
{
    float scratch[KERNEL_BLOCK];
    r->parts[0] = LSE_EMPTY;
    r->sums[FIRST] = r->sums[SECOND] = 0;
    for (int64_t col = 0; col < c->src.cols; col += KERNEL_BLOCK) {
        int64_t n = c->src.cols - col < KERNEL_BLOCK ? c->src.cols - col : KERNEL_BLOCK;
        add_rivals(c, r, col, n, source_fetch(&c->src, r->row, col, n, scratch));
    }
}

static void find_margin(const loss_call *c, loss_row *r, preference_rows *found)
{
    double *margin = &found->margin[r->row], *variance = &found->variance[r->row];
    *margin = *variance = 0;
    if (r->x_target == -INFINITY) {
        *margin = -INFINITY;
        *variance = NAN;
        return;
    }
    if (r->other == 0 || r->rest.kind == ROW_MASKED) return; /* no rival counts */
    if (r->rest.arg.pre != 0) reduce_again(c, r);
    const double share = r->other / r->parts[0].sum, t = r->temperature;
    const double mean = share * r->sums[FIRST];
    *margin = -mean / t;
    *variance = fmax(share * r->sums[SECOND] - mean * mean, 0) / (t * t);
}

static void solve(const loss_call *c, loss_row *r)
{
    const preference_call *p = c->opts;
    const double odds = r->log_odds;
    const double loss = odds > 0 ? odds + log1p(exp(-odds)) : log1p(exp(odds));
    r->loss = r->weight == 0 ? 0 : r->weight * loss;
    r->a = r->weight;
    r->at_target = -r->weight * r->other;
    if (!p->found->want) return;
    find_margin(c, r, p->found);
    r->extra[0] = p->found->margin[r->row];
}

static slg_status open(loss_call *c)
{
    const preference_call *p = c->opts;
    preference_rows *f = p->found;
    SLG_TRY(loss_open_extra(c, 0, "opts.margin", p->margin));
    if (!f->want) return SLG_OK;
    f->rows = c->src.rows;
    f->margin = arena_alloc(c->ctx, (size_t)f->rows, sizeof *f->margin);
    f->variance = arena_alloc(c->ctx, (size_t)f->rows, sizeof *f->variance);
    if (!f->margin || !f->variance) return SLG_ERR_MEMORY;
    for (int64_t r = 0; r < f->rows; r++)
        f->margin[r] = f->variance[r] = targets_ignored(&c->target, r) ? 0 : NAN;
    return SLG_OK;
}

#define PREFERENCE                                                                             \
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT, .flags = LOSS_LABEL_OPEN, .open = open,          \
    .solve = solve, .extra_masked = { NAN }

static const loss_method method = { PREFERENCE };
static const loss_method with_margin = { PREFERENCE, .reduce_all = reduce_all };

slg_status preference_run(slg_ctx *ctx, int32_t reduction, const slg_logits *logits,
                          const slg_targets *targets, slg_loss_out *out, preference_rows *found,
                          const slg_tensor *margin, slg_logits_grad *grad)
{
    const preference_call p = { found, margin };
    return loss_run(ctx, found->want ? &with_margin : &method, &p, reduction, logits, targets,
                    out, grad);
}

static slg_status preference(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                             const slg_preference_opts *opts, slg_loss_out *out,
                             slg_logits_grad *grad)
{
    slg_preference_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    preference_rows found = { .want = o.margin != NULL };
    return preference_run(ctx, o.reduction, logits, targets, out, &found, o.margin, grad);
}

slg_status slg_preference(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                          const slg_preference_opts *opts, slg_loss_out *out,
                          slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_preference");
    return op_end(ctx, preference(ctx, logits, targets, opts, out, grad));
}
