/*
 * squared_softmax.c - see loss.h. Three looks at a row that stays in cache: the normaliser,
 * which is the engine's; p with the sums of c^2 and p c, c = p - b; and the gradient p (c - s).
 *
 * Paper: "The Closeness of In-Context Learning and Weight Shifting for Softmax Regression"
 * (2023).
 */
#include <math.h>

#include "core/options.h"
#include "methods.h"

static const slg_squared_softmax_opts defaults = {
    .size = sizeof(slg_squared_softmax_opts),
    .reduction = SLG_MEAN,
};

void slg_squared_softmax_opts_init(slg_squared_softmax_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* p of a block. The label may be the only live class: then the others' sum is nothing to divide
   by. */
static void block_p(const loss_call *c, const loss_row *r, int64_t col, int64_t n,
                    const float *x, float *p)
{
    if (r->rest.kind == ROW_MASKED) {
        fill_f32(p, n, 0.0f);
    } else {
        const exp_out e = loss_softmax(c, r, 1, 0.0f);
        c->ctx->k.exp_emit((size_t)n, x, &e, p, STORE_CACHED);
    }
    if (r->target >= col && r->target < col + n) p[r->target - col] = (float)r->p_target;
}

/* b of a block; NULL where it is a label: that is added by itself, since 1 - p has a precision
   of its own there. */
static const float *block_b(const loss_call *call, const loss_row *r, int64_t col, int64_t n,
                            float *scratch)
{
    return call->target.has_prob
               ? rows_fetch(&call->ctx->k, &call->target.prob, r->row, col, n, scratch)
               : NULL;
}

static rows *prob_of(const loss_call *call) { return call->state; }

/* A row's probabilities to where the caller wants them; p NULL: all of them `same`. */
static void put_prob(const loss_call *call, int64_t row, const float *p, float same)
{
    const rows *to = prob_of(call);
    float scratch[KERNEL_BLOCK];
    for (int64_t col = 0; col < to->cols; col += KERNEL_BLOCK) {
        const int64_t n = to->cols - col < KERNEL_BLOCK ? to->cols - col : KERNEL_BLOCK;
        float *y = rows_stage(to, row, col, scratch);
        for (int64_t i = 0; i < n; i++) y[i] = p ? p[col + i] : same;
        rows_commit(&call->ctx->k, to, row, col, n, scratch);
    }
}

static void unusual(const loss_call *call, const loss_row *r)
{
    put_prob(call, r->row, NULL, r->lse == -INFINITY ? 0 : NAN);
}

/* Sums over the row of c^2 and p c, with p into scratch. */
static void sums_of(const loss_call *call, const loss_row *r, const float *x, float *p,
                    double sums[2])
{
    const kernel_table *k = &call->ctx->k;
    const int64_t cols = call->src.cols;
    float scratch[KERNEL_BLOCK];
    sums[0] = sums[1] = 0;
    for (int64_t col = 0; col < cols; col += KERNEL_BLOCK) {
        const int64_t n = cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK;
        double part[2];
        block_p(call, r, col, n, x + col, p + col);
        const float *b = block_b(call, r, col, n, scratch);
        const bool here = r->target >= col && r->target < col + n;
        if (here) p[r->target] = 0;
        k->weigh_sums((size_t)n, p + col, 1.0f, -1.0f, b, part);
        sums[0] += part[0], sums[1] += part[1];
        if (!here) continue;
        p[r->target] = (float)r->p_target;
        sums[0] += r->other * r->other, sums[1] -= r->p_target * r->other;
    }
}

static void whole(const loss_call *call, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const kernel_table *k = &call->ctx->k;
    const int64_t cols = call->src.cols;
    const int store = loss_store(call, &call->grad);
    float b[EMIT_BLOCK], *p = scratch;
    double sums[2];
    (void)t;
    sums_of(call, r, x, p, sums);
    r->loss = r->weight == 0 ? 0 : r->weight * 0.5 * sums[0];
    if (prob_of(call)) put_prob(call, r->row, p, 0);
    if (!d) return;
    const double factor = r->weight * loss_factor(r);
    for (int64_t col = 0, from, to; col < cols; col += KERNEL_BLOCK) {
        line_cut(d, cols, col, cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK, &from,
                 &to);
        if (from >= to) continue;
        k->weigh_emit((size_t)(to - from), p + from, 1.0f, -1.0f,
                      block_b(call, r, from, to - from, b), (float)factor, (float)sums[1],
                      d + from, store);
    }
    if (r->target >= 0) d[r->target] = (float)(-factor * r->p_target * (r->other + sums[1]));
}

static int64_t scratch_floats(int64_t cols) { return cols; }

static slg_status open(loss_call *call)
{
    const slg_squared_softmax_opts *o = call->opts;
    const int64_t shape[2] = { call->src.rows, call->src.cols };
    rows *to = arena_alloc(call->ctx, 1, sizeof *to);
    if (!to) return SLG_ERR_MEMORY;
    SLG_TRY(tensor_out(call->ctx, "opts.prob", o->prob, DT_ROW, 2, 2));
    SLG_TRY(tensor_shape_is(call->ctx, "opts.prob", o->prob, 2, shape));
    SLG_TRY(loss_open_apart(call, "opts.prob", o->prob));
    *to = rows_of(o->prob);
    call->state = to;
    return SLG_OK;
}

#define USES (TARGET_INDEX | TARGET_PROB | TARGET_ANY_PROB | TARGET_ROW_WEIGHT)

static const loss_method method = { .uses = USES,
                                    .whole = whole,
                                    .scratch_floats = scratch_floats };
static const loss_method with_prob = { .uses = USES,
                                       .flags = LOSS_SEES_IGNORED,
                                       .open = open,
                                       .whole = whole,
                                       .scratch_floats = scratch_floats,
                                       .unusual = unusual };

slg_status squared_softmax_run(slg_ctx *ctx, const slg_logits *logits,
                               const slg_targets *targets, const slg_squared_softmax_opts *o,
                               slg_loss_out *out, slg_logits_grad *grad)
{
    return loss_run(ctx, o->prob ? &with_prob : &method, o, o->reduction, logits, targets, out,
                    grad);
}

static slg_status squared_softmax(slg_ctx *ctx, const slg_logits *logits,
                                  const slg_targets *targets,
                                  const slg_squared_softmax_opts *opts, slg_loss_out *out,
                                  slg_logits_grad *grad)
{
    slg_squared_softmax_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    return squared_softmax_run(ctx, logits, targets, &o, out, grad);
}

slg_status slg_squared_softmax(slg_ctx *ctx, const slg_logits *logits,
                               const slg_targets *targets, const slg_squared_softmax_opts *opts,
                               slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_squared_softmax");
    return op_end(ctx, squared_softmax(ctx, logits, targets, opts, out, grad));
}
