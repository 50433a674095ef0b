/*
 * binary_cross_entropy.c - see loss.h. Classes do not meet in a row: no log-sum-exp.
 */
#include "engine.h"

#include "core/options.h"
#include "softmax/pipeline.h"

static const slg_binary_cross_entropy_opts defaults = {
    .size = sizeof(slg_binary_cross_entropy_opts),
    .reduction = SLG_MEAN,
    .class_reduction = SLG_MEAN,
};

void slg_binary_cross_entropy_opts_init(slg_binary_cross_entropy_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct state {
    const float *pos; /* [cols] or NULL */
    double per_class; /* 1, or 1 by the number of classes that are not masked */
} state;

static slg_status open(loss_call *c)
{
    const slg_binary_cross_entropy_opts *o = c->opts;
    state *s = c->state = arena_alloc(c->ctx, 1, sizeof *s);
    if (!s) return SLG_ERR_MEMORY;
    SLG_TRY(targets_class_weight(c->ctx, "pos_weight", o->pos_weight, c->src.cols, &s->pos));
    int64_t classes = c->src.cols;
    for (int64_t i = 0; c->src.mask && i < c->src.cols; i++) classes -= c->src.mask[i] == 0;
    s->per_class = o->class_reduction == SLG_MEAN && classes > 0 ? 1.0 / (double)classes : 1.0;
    return SLG_OK;
}

/* What the kernels take of columns [col, col + n). */
typedef struct block {
    float inv_t;
    const float *q, *pos, *w;
} block;

static block block_of(const loss_call *c, const loss_row *r, int64_t col, int64_t n,
                      float *scratch)
{
    const state *s = c->state;
    const kernel_table *k = &c->ctx->k;
    const float *q = rows_fetch(k, &c->target.prob, r->row, col, n, scratch);
    if (c->src.mask) { /* its logit is -inf; with q = 0 the class is left out */
        for (int64_t i = 0; q != scratch && i < n; i++) scratch[i] = q[i];
        k->mul((size_t)n, c->src.mask + col, scratch);
        q = scratch;
    }
    return (block){ (float)(1 / r->temperature), q, s->pos ? s->pos + col : NULL,
                    c->target.class_weight ? c->target.class_weight + col : NULL };
}

static void at_once(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                    const float *teacher, float *d, int store)
{
    (void)teacher;
    float qs[KERNEL_BLOCK];
    const state *s = c->state;
    const kernel_table *k = &c->ctx->k;
    const block b = block_of(c, r, col, n, qs);
    float factor = (float)(r->weight * s->per_class * loss_factor(r));
    double sum = k->bce((size_t)n, x, b.inv_t, b.q, b.pos, b.w, factor, d, store);
    if (sum == INFINITY) { /* maybe only float32's range: class by class */
        sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += k->bce(1, x + i, b.inv_t, b.q + i, b.pos ? b.pos + i : NULL,
                          b.w ? b.w + i : NULL, 1.0f, NULL, 0);
    }
    r->sums[0] += sum;
}

static void solve(const loss_call *c, loss_row *r)
{
    const state *s = c->state;
    r->loss = isnan(r->sums[0]) ? NAN : loss_term(r->weight * s->per_class, r->sums[0]);
}

static const loss_method method = {
    .uses = TARGET_PROB | TARGET_LABELS | TARGET_ROW_WEIGHT | TARGET_CLASS_WEIGHT,
    .flags = LOSS_NO_LSE,
    .open = open,
    .at_once = at_once,
    .solve = solve,
};

static slg_status binary_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                       const slg_targets *targets,
                                       const slg_binary_cross_entropy_opts *opts,
                                       slg_loss_out *out, slg_logits_grad *grad)
{
    slg_binary_cross_entropy_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_choice(ctx, "class_reduction", o.class_reduction, SLG_MEAN, SLG_SUM));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o.reserved));
    return loss_run(ctx, &method, &o, o.reduction, logits, targets, out, grad);
}

slg_status slg_binary_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                    const slg_targets *targets,
                                    const slg_binary_cross_entropy_opts *opts,
                                    slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_binary_cross_entropy");
    return op_end(ctx, binary_cross_entropy(ctx, logits, targets, opts, out, grad));
}
