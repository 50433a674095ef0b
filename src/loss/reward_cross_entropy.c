/*
 * reward_cross_entropy.c - see reward.h. Without rewards for other classes it is cross-entropy
 * times a weight that counts as constant. With them the rows are taken whole: the row's
 * gradient is that of the tail, p (S - lambda_tail), and the few top classes are written over
 * it.
 */
#include "softlogit/reward.h"

#include <math.h>
#include <string.h>

#include "core/options.h"
#include "top_k.h"

static const slg_reward_cross_entropy_opts defaults = {
    .size = sizeof(slg_reward_cross_entropy_opts),
    .reduction = SLG_MEAN,
    .form = SLG_REWARD_OTHERS,
    .top_k = 100,
    .cap = 1e4,
};

void slg_reward_cross_entropy_opts_init(slg_reward_cross_entropy_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

enum { POSITIVE_WEIGHT, ENTROPY };

/* The label's weight; v = -log p[t]. */
static double label_weight(const slg_reward_cross_entropy_opts *o, const loss_row *r, double v)
{
    double w = 1;
    if (o->beta != 0)
        w = exp(o->beta * (o->form == SLG_REWARD_LABEL ? v : -top_softplus(-r->log_odds)));
    return w < o->cap ? w : o->cap;
}

static double product(double a, double b) { return a == 0 || b == 0 ? 0 : a * b; }

static void solve(const loss_call *c, loss_row *r)
{
    const slg_reward_cross_entropy_opts *o = c->opts;
    double v = top_softplus(r->log_odds), w = label_weight(o, r, v);
    r->extra[POSITIVE_WEIGHT] = w;
    r->loss = product(r->weight, product(w, v));
    r->a = r->weight * w;
    r->at_target = -r->a * r->other;
}

/* ---- Rows taken whole ------------------------------------------------------------------- */

/* A worker's scratch. */
typedef struct space {
    top_item *items; /* cols */
    float *top, *tail;
} space;

static int64_t scratch_floats(int64_t cols) { return 4 * cols; }

static space space_of(float *scratch, int64_t cols)
{
    return (space){ (top_item *)(void *)scratch, scratch + 2 * cols, scratch + 3 * cols };
}

static bool one_lambda(const slg_reward_cross_entropy_opts *o, int64_t cols)
{
    return o->lambda_top == o->lambda_tail || o->top_k == 0 || o->top_k >= cols;
}

/* Fills in the top (the target left out) and the tail, -inf where a class is not of it. */
static int64_t split(const loss_call *c, const loss_row *r, const float *x, const space *s)
{
    const slg_reward_cross_entropy_opts *o = c->opts;
    const int64_t cols = c->src.cols;
    int64_t found = 0, n = 0;
    if (!one_lambda(o, cols)) found = top_k(&c->ctx->k, cols, x, o->top_k, s->items);
    memcpy(s->tail, x, (size_t)cols * sizeof *x);
    if (r->target >= 0) s->tail[r->target] = -INFINITY;
    for (int64_t i = 0; i < found; i++) {
        if (s->items[i].index == r->target) continue;
        s->items[n] = s->items[i];
        s->top[n++] = s->items[i].x;
        s->tail[s->items[i].index] = -INFINITY;
    }
    return n;
}

static void write_grad(const loss_call *c, const loss_row *r, int64_t tops, double on_top,
                       double on_tail, double at_target, const float *x, const space *s,
                       float *d)
{
    const kernel_table *k = &c->ctx->k;
    const double factor = loss_factor(r) * r->weight;
    if (r->rest.kind == ROW_MASKED) {
        fill_f32(d, c->src.cols, 0.0f);
    } else {
        exp_out e = loss_softmax(c, r, on_tail * factor, 0.0f);
        k->exp_emit((size_t)c->src.cols, x, &e, d, STORE_CACHED);
        e = loss_softmax(c, r, on_top * factor, 0.0f);
        k->exp_emit((size_t)tops, s->top, &e, s->top, STORE_CACHED);
        for (int64_t i = 0; i < tops; i++) d[s->items[i].index] = s->top[i];
    }
    d[r->target] = loss_target_masked(c, r) ? 0.0f : (float)(at_target * factor);
}

static void whole(const loss_call *c, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const slg_reward_cross_entropy_opts *o = c->opts;
    const space s = space_of(scratch, c->src.cols);
    (void)t;
    int64_t tops = split(c, r, x, &s);
    group top = group_of(c, r, tops, s.top), tail = group_of(c, r, c->src.cols, s.tail);
    double v = r->target < 0 ? 0 : top_softplus(r->log_odds);
    r->extra[ENTROPY] = top.entropy + tail.entropy + product(r->p_target, v);
    r->extra[POSITIVE_WEIGHT] = 0;
    if (r->target < 0) return;
    /* All top, or no top: the only group is in s.tail. */
    double on_top = o->lambda_top,
           on_tail = o->top_k >= c->src.cols ? o->lambda_top : o->lambda_tail;
    double w = label_weight(o, r, v), others = on_top * top.mass + on_tail * tail.mass;
    r->extra[POSITIVE_WEIGHT] = w;
    r->loss = product(r->weight, product(w, v) + on_top * top.entropy + on_tail * tail.entropy);
    if (d)
        write_grad(c, r, tops, w + others - on_top, w + others - on_tail,
                   r->p_target * others - w * r->other, x, &s, d);
}

static slg_status open(loss_call *c)
{
    const slg_reward_cross_entropy_opts *o = c->opts;
    if (c->src.cols > INT32_MAX)
        return slg_fail(c->ctx, SLG_ERR_SHAPE,
                        "logits have %lld columns, at most %d are allowed",
                        (long long)c->src.cols, INT32_MAX);
    SLG_TRY(loss_open_extra(c, POSITIVE_WEIGHT, "opts.positive_weight", o->positive_weight));
    return loss_open_extra(c, ENTROPY, "opts.entropy", o->entropy);
}

#define USES (TARGET_INDEX | TARGET_ROW_WEIGHT)

static const loss_method label_only = {
    .uses = USES, .flags = LOSS_LABEL_OPEN, .open = open, .solve = solve
};
static const loss_method with_others = { .uses = USES,
                                         .flags = LOSS_LABEL_OPEN,
                                         .open = open,
                                         .whole = whole,
                                         .scratch_floats = scratch_floats };
static const loss_method with_entropy = { .uses = USES,
                                          .flags = LOSS_LABEL_OPEN | LOSS_SEES_IGNORED,
                                          .open = open,
                                          .whole = whole,
                                          .scratch_floats = scratch_floats };

static slg_status check(slg_ctx *ctx, const slg_reward_cross_entropy_opts *o)
{
    SLG_TRY(option_choice(ctx, "form", o->form, SLG_REWARD_OTHERS, SLG_REWARD_LABEL));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    if (o->top_k < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "top_k is %lld, must be at least 0",
                        (long long)o->top_k);
    SLG_TRY(option_range(ctx, "beta", o->beta, -100, 100));
    if (!(fabs(o->lambda_top) <= 1e6) || !(fabs(o->lambda_tail) <= 1e6))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "lambda_top is %g, lambda_tail %g, must be from -1e6 to 1e6",
                        o->lambda_top, o->lambda_tail);
    if (!(o->cap > 0) || isinf(o->cap))
        return slg_fail(ctx, SLG_ERR_RANGE, "cap is %g, must be finite and above 0", o->cap);
    return SLG_OK;
}

slg_status slg_reward_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                    const slg_targets *targets,
                                    const slg_reward_cross_entropy_opts *opts,
                                    slg_loss_out *out, slg_logits_grad *grad)
{
    slg_reward_cross_entropy_opts o = defaults;
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_reward_cross_entropy");
    slg_status status = options_read(ctx, "opts", opts, &o, sizeof o);
    if (!status) status = check(ctx, &o);
    bool plain = o.lambda_top == 0 && o.lambda_tail == 0;
    const loss_method *m = o.entropy ? &with_entropy : plain ? &label_only : &with_others;
    if (!status) status = loss_run(ctx, m, &o, o.reduction, logits, targets, out, grad);
    return op_end(ctx, status);
}
