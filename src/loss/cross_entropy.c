/*
 * cross_entropy.c - see loss.h. With an index the gradient is a p[k] + c and one entry apart;
 * class weights under smoothing, and distributions, make it a p[k] - q[k].
 */
#include "methods.h"

#include <math.h>

#include "core/options.h"
#include "softmax/pipeline.h"

static const slg_cross_entropy_opts defaults = {
    .size = sizeof(slg_cross_entropy_opts),
    .reduction = SLG_MEAN,
};

void slg_cross_entropy_opts_init(slg_cross_entropy_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/*
 * With w the class weights and q the target distribution, sums over classes, and over live
 * classes: of w q (x - SHIFT), w q; w (x - SHIFT), w, 1. SHIFT is the row's maximum so far (the
 * target may be left out), so that differences keep their precision under a large common
 * offset.
 */
enum { Q_X, Q_W, LIVE_X, LIVE_W, LIVE, SHIFT, SHIFTED };

static void move_shift(loss_row *r)
{
    const row_stat *rest = &r->rest;
    double *s = r->sums;
    double max = (double)fmaxf(rest->part.max, rest->segment.max);
    if (!isfinite(max) || (s[SHIFTED] != 0 && max <= s[SHIFT])) return;
    s[Q_X] += s[Q_W] * (s[SHIFT] - max);
    s[LIVE_X] += s[LIVE_W] * (s[SHIFT] - max);
    s[SHIFT] = max;
    s[SHIFTED] = 1;
}

static void reduce_prob(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                        const float *w, float shift)
{
    const kernel_table *k = &c->ctx->k;
    float qs[KERNEL_BLOCK], mixed[KERNEL_BLOCK];
    double sums[3];
    const float *q = rows_fetch(k, &c->target.prob, r->row, col, n, qs);
    if (w) {
        k->target_mix((size_t)n, x, q, 1.0f, 0.0f, w, mixed);
        q = mixed;
    }
    r->sums[Q_X] += k->dot((size_t)n, q, x, shift);
    k->live_sums((size_t)n, q, NULL, 0.0f, sums); /* no entry of q is -inf: a plain sum */
    r->sums[Q_W] += sums[0];
}

static void reduce(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                   const float *teacher)
{
    (void)teacher;
    const slg_cross_entropy_opts *o = c->opts;
    const kernel_table *k = &c->ctx->k;
    const float *w = c->target.class_weight ? c->target.class_weight + col : NULL;
    if (o->label_smoothing > 0 || c->target.has_prob) move_shift(r);
    if (c->target.has_prob) reduce_prob(c, r, col, n, x, w, (float)r->sums[SHIFT]);
    if (o->label_smoothing > 0) {
        double live[3];
        k->live_sums((size_t)n, x, w, (float)r->sums[SHIFT], live);
        for (int i = 0; i < 3; i++) r->sums[LIVE_X + i] += live[i];
    }
}

/* Distributions without class weights: with the log-sum-exp, in one loop. */
static void reduce_target(const loss_call *c, loss_row *r, int64_t col, int64_t n,
                          const float *x, const float *teacher)
{
    const slg_cross_entropy_opts *o = c->opts;
    const kernel_table *k = &c->ctx->k;
    float qs[KERNEL_BLOCK];
    double dot[2] = { 0, 0 }, live[3];
    (void)teacher;
    const float *q = rows_fetch(k, &c->target.prob, r->row, col, n, qs);
    row_segment(&r->rest, col);
    k->lse_target((size_t)n, x, q, (float)r->sums[SHIFT], &r->rest.arg, &r->rest.segment, dot);
    const double before = r->sums[SHIFT];
    move_shift(r);
    if (r->sums[SHIFT] != before) dot[0] = k->dot((size_t)n, q, x, (float)r->sums[SHIFT]);
    r->sums[Q_X] += dot[0];
    r->sums[Q_W] += dot[1];
    if (o->label_smoothing == 0) return;
    k->live_sums((size_t)n, x, NULL, (float)r->sums[SHIFT], live);
    for (int i = 0; i < 3; i++) r->sums[LIVE_X + i] += live[i];
}

static void solve(const loss_call *c, loss_row *r)
{
    const slg_cross_entropy_opts *o = c->opts;
    const double *s = r->sums, t = r->temperature, keep = 1 - o->label_smoothing;
    double even = s[LIVE] > 0 ? o->label_smoothing / s[LIVE] : 0; /* of the smoothed target */
    double above = r->lse - s[SHIFT] / t;                         /* -log p of the shift */
    double loss = loss_term(even, s[LIVE_W] * above - s[LIVE_X] / t);
    double both = even * s[LIVE_W] + 2 * o->z_loss * r->lse;
    if (c->target.has_prob) {
        loss += loss_term(keep, s[Q_W] * above - s[Q_X] / t);
        r->a = r->weight * (keep * s[Q_W] + both);
    } else {
        double w = loss_class_weight(c, r);
        /* log(1 + others / target): no 1 - p, no log of a p near 1. */
        loss += loss_term(keep * w, loss_softplus(r->log_odds));
        r->a = r->weight * (keep * w + both);
        r->c = -r->weight * even;
        r->at_target = r->weight * (both * r->p_target - keep * w * r->other - even * w);
    }
    if (o->z_loss > 0) loss += o->z_loss * r->lse * r->lse;
    r->loss = loss_term(r->weight, loss);
}

static bool common(const loss_call *c, const loss_row *r)
{
    return !c->target.has_prob && !(c->target.class_weight && r->sums[LIVE] > 0);
}

/* a p - b q, where q is not constant over classes. */
static void emit(const loss_call *c, const loss_row *r, int64_t col, int64_t n, const float *x,
                 const float *teacher, float *d, int store)
{
    (void)teacher;
    const slg_cross_entropy_opts *o = c->opts;
    const kernel_table *k = &c->ctx->k;
    const float *w = c->target.class_weight ? c->target.class_weight + col : NULL;
    double factor = loss_factor(r), even = 0;
    if (r->sums[LIVE] > 0) even = o->label_smoothing / r->sums[LIVE];
    if (common(c, r)) {
        loss_emit_common(c, r, n, x, d, store);
        return;
    }
    if (r->rest.kind == ROW_MASKED) {
        fill_f32(d, n, 0.0f);
        return;
    }
    exp_out e = loss_softmax(c, r, r->a * factor, 0.0f);
    if (!c->target.has_prob) {
        k->exp_emit_q((size_t)n, x, &e, (float)(r->c * factor), w, d, store);
        return;
    }
    float qs[EMIT_BLOCK], mixed[EMIT_BLOCK];
    const float *q = rows_fetch(k, &c->target.prob, r->row, col, n, qs);
    if (w || even > 0) {
        float keep = (float)(1 - o->label_smoothing);
        k->target_mix((size_t)n, x, q, keep, (float)even, w, mixed);
        q = mixed;
    }
    k->exp_emit_q((size_t)n, x, &e, (float)(-r->weight * factor), q, d, store);
}

const loss_method cross_entropy_method = {
    .uses = TARGET_INDEX | TARGET_PROB | TARGET_ROW_WEIGHT | TARGET_CLASS_WEIGHT,
    .reduce = reduce,
    .solve = solve,
    .emit = emit,
    .common = common,
};

static slg_status cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                const slg_targets *targets, const slg_cross_entropy_opts *opts,
                                slg_loss_out *out, slg_logits_grad *grad)
{
    slg_cross_entropy_opts o = defaults;
    slg_targets t;
    loss_method method = cross_entropy_method;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_range(ctx, "label_smoothing", o.label_smoothing, 0, 1));
    SLG_TRY(option_least(ctx, "z_loss", o.z_loss, 0));
    slg_targets_init(&t, sizeof t);
    if (targets) SLG_TRY(options_read(ctx, "targets", targets, &t, sizeof t));
    if (t.prob && !t.class_weight) method.reduce_all = reduce_target;
    return loss_run(ctx, &method, &o, o.reduction, logits, targets, out, grad);
}

slg_status slg_cross_entropy(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                             const slg_cross_entropy_opts *opts, slg_loss_out *out,
                             slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_cross_entropy");
    return op_end(ctx, cross_entropy(ctx, logits, targets, opts, out, grad));
}
