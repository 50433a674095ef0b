/*
 * reward_cross_entropy.c - see reward.h. Without rewards for other classes it is cross-entropy
 * times a weight that counts as constant. With them the rows are taken whole: the
 * exponentials are stored while the tail is summed, then multiplied by a factor for the tail
 * and one for the top. Which a class is of, a comparison tells.
 */
#include "softlogit/reward.h"

#include <math.h>

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

/* A worker's scratch: exponentials of the row, and values of its top. */
static int64_t scratch_floats(int64_t cols) { return 2 * cols; }

static bool one_lambda(const slg_reward_cross_entropy_opts *o, int64_t cols)
{
    return o->lambda_top == o->lambda_tail || o->top_k == 0 || o->top_k >= cols;
}

/* The columns, in parts that have all classes equal to cut->least on one side, and the target
   in none: [from[i], to[i]). */
enum { PARTS = 3 };
typedef struct part {
    int64_t from, to;
    bool equal;
} part;

static int parts_of(int64_t cols, int64_t target, int64_t end, part out[PARTS])
{
    part whole[2] = { { 0, end, true }, { end, cols, false } };
    int n = 0;
    for (int i = 0; i < 2; i++) {
        part p = whole[i];
        bool here = target >= p.from && target < p.to;
        if (here && target > p.from) out[n++] = (part){ p.from, target, p.equal };
        if (here) p.from = target + 1;
        if (p.from < p.to) out[n++] = p;
    }
    return n;
}

/* The groups of a row, and its exponentials. */
typedef struct split {
    top_cut cut;
    group top, tail;
    float *p;
} split;

/* A tail that is nothing beside the top: by itself. */
static group small_tail(const loss_call *c, const loss_row *r, const float *x,
                        const top_cut *cut, float *own)
{
    for (int64_t i = 0; i < c->src.cols; i++)
        own[i] = i == r->target || top_has(cut, x[i], i) ? -INFINITY : x[i];
    return group_of(c, r, c->src.cols, own);
}

static split split_row(const loss_call *c, const loss_row *r, const float *x, float *scratch)
{
    const slg_reward_cross_entropy_opts *o = c->opts;
    const kernel_table *k = &c->ctx->k;
    const int64_t cols = c->src.cols;
    const row_stat *rest = &r->rest;
    split s = { .cut = { INFINITY, 0 }, .p = scratch };
    float *top = scratch + cols;
    if (rest->kind != ROW_PLAIN) return s;
    int64_t n = one_lambda(o, cols) ? 0 : top_values(k, cols, x, o->top_k, top, &s.cut);
    if (r->target >= 0 && n > 0 && top_has(&s.cut, x[r->target], r->target)) {
        int64_t at = k->find((size_t)n, top, x[r->target]);
        top[at] = top[--n]; /* the label is of no group */
    }
    s.top = group_of(c, r, n, top);

    /* While there is more to compute than to read: the next row, most likely. */
    const size_t ahead = r->store == STORE_STREAM ? (size_t)cols : 0;
    part parts[PARTS];
    double sums[2] = { 0, 0 };
    int count = parts_of(cols, r->target, s.cut.end, parts);
    for (int i = 0; i < count; i++) {
        const part *p = &parts[i];
        k->exp_split((size_t)(p->to - p->from), x + p->from, &rest->arg, rest->part.ref,
                     rest->part.max, s.cut.least, p->equal, s.p + p->from, sums, ahead);
    }
    s.tail = sums[0] > 0x1p-60 ? group_from(r, sums[0], rest->part.ref, sums[1])
                               : small_tail(c, r, x, &s.cut, top);
    return s;
}

static void write_grad(const loss_call *c, const loss_row *r, const split *s, double on_top,
                       double on_tail, double at_target, const float *x, float *d)
{
    const double factor = loss_factor(r) * r->weight;
    const int64_t cols = c->src.cols, end = s->cut.end;
    if (r->rest.kind == ROW_MASKED) {
        fill_f32(d, cols, 0.0f);
    } else {
        const exp_out a = loss_softmax(c, r, on_top * factor, 0.0f);
        const exp_out b = loss_softmax(c, r, on_tail * factor, 0.0f);
        const float least = s->cut.least;
        s->p[r->target] = 0;
        c->ctx->k.split_emit((size_t)end, s->p, x, least, true, a.a, b.a, d, r->store);
        c->ctx->k.split_emit((size_t)(cols - end), s->p + end, x + end, least, false, a.a, b.a,
                             d + end, r->store);
    }
    d[r->target] = loss_target_masked(c, r) ? 0.0f : (float)(at_target * factor);
}

static void whole(const loss_call *c, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const slg_reward_cross_entropy_opts *o = c->opts;
    (void)t;
    const split s = split_row(c, r, x, scratch);
    double v = r->target < 0 ? 0 : top_softplus(r->log_odds);
    r->extra[ENTROPY] = s.top.entropy + s.tail.entropy + product(r->p_target, v);
    r->extra[POSITIVE_WEIGHT] = 0;
    if (r->target < 0) return;
    /* All top, or no top: the only group is the tail. */
    double on_top = o->lambda_top,
           on_tail = o->top_k >= c->src.cols ? o->lambda_top : o->lambda_tail;
    double w = label_weight(o, r, v), others = on_top * s.top.mass + on_tail * s.tail.mass;
    r->extra[POSITIVE_WEIGHT] = w;
    r->loss =
        product(r->weight, product(w, v) + on_top * s.top.entropy + on_tail * s.tail.entropy);
    if (d)
        write_grad(c, r, &s, w + others - on_top, w + others - on_tail,
                   r->p_target * others - w * r->other, x, d);
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
