/*
 * svm_layer.c - see hinge.h: the hinge loss fused with its layer, then one pass over
 * the weights.
 */
#include <math.h>

#include "core/options.h"
#include "core/pool.h"
#include "core/tensor.h"
#include "hinge_run.h"

static const slg_svm_layer_opts defaults = {
    .size = sizeof(slg_svm_layer_opts),
    .power = 2,
    .margin = 1,
    .penalty = 1,
};

void slg_svm_layer_opts_init(slg_svm_layer_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

double slg_svm_decay(int32_t scaling, int64_t classes, int64_t dim)
{
    if (classes <= 0 || dim <= 0) return 0;
    return scaling == SLG_SVM_SUM ? 1 : 2 / ((double)classes * (double)dim);
}

typedef struct decay_run {
    const kernel_table *k;
    rows weight, dweight; /* dweight.data NULL: none */
    float decay;
    int64_t ranges;
    double *squares; /* [classes] */
} decay_run;

static void decay_row(const decay_run *run, int64_t row)
{
    const kernel_table *k = run->k;
    float ws[KERNEL_BLOCK], share[KERNEL_BLOCK];
    run->squares[row] = 0;
    for (int64_t col = 0; col < run->weight.cols; col += KERNEL_BLOCK) {
        int64_t n =
            run->weight.cols - col < KERNEL_BLOCK ? run->weight.cols - col : KERNEL_BLOCK;
        const float *w = rows_fetch(k, &run->weight, row, col, n, ws);
        run->squares[row] += k->dot((size_t)n, w, w, 0.0f);
        if (!run->dweight.data) continue;
        k->scale((size_t)n, w, run->decay, share);
        k->add((size_t)n, share, (float *)(void *)rows_at(&run->dweight, row) + col);
    }
}

static void decay_range(void *arg, int64_t task, int32_t worker)
{
    const decay_run *run = arg;
    int64_t last = pool_range_start(run->weight.count, run->ranges, task + 1);
    (void)worker;
    for (int64_t r = pool_range_start(run->weight.count, run->ranges, task); r < last; r++)
        decay_row(run, r);
}

/* |weight|^2; adds decay * weight to dweight (NULL: none). */
static slg_status regularise(slg_ctx *ctx, const slg_tensor *weight, double decay,
                             const slg_tensor *dweight, double *square)
{
    decay_run run = { .k = &ctx->k, .weight = rows_of(weight), .decay = (float)decay };
    if (dweight) run.dweight = rows_of(dweight);
    run.ranges = pool_ranges(ctx, run.weight.count, (1 << 14) / (run.weight.cols + 1) + 1);
    run.squares = arena_alloc(ctx, (size_t)run.weight.count, sizeof *run.squares);
    if (!run.squares) return SLG_ERR_MEMORY;
    pool_run(ctx, run.ranges, decay_range, &run);
    *square = 0;
    for (int64_t r = 0; r < run.weight.count; r++) *square += run.squares[r];
    return SLG_OK;
}

static slg_status check_options(slg_ctx *ctx, const slg_svm_layer_opts *o)
{
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(option_choice(ctx, "scaling", o->scaling, SLG_SVM_MEAN, SLG_SVM_SUM));
    SLG_TRY(option_choice(ctx, "outer_decay", o->outer_decay, 0, 1));
    SLG_TRY(option_least(ctx, "penalty", o->penalty, 0));
    return SLG_OK;
}

static slg_status svm_layer(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                            const slg_svm_layer_opts *opts, slg_loss_out *out,
                            slg_logits_grad *grad)
{
    slg_svm_layer_opts o = defaults;
    slg_logits l;
    slg_logits_grad g;
    slg_logits_init(&l, sizeof l);
    slg_logits_grad_init(&g, sizeof g);
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(check_options(ctx, &o));
    if (!logits) return slg_fail(ctx, SLG_ERR_NULL, "logits is NULL");
    SLG_TRY(options_read(ctx, "logits", logits, &l, sizeof l));
    if (grad) SLG_TRY(options_read(ctx, "grad", grad, &g, sizeof g));
    if (!l.hidden)
        return slg_fail(ctx, SLG_ERR_NULL, "logits.hidden is NULL: a layer is needed");
    const bool mean = o.scaling == SLG_SVM_MEAN;
    const hinge_spec spec = { o.form, o.power, o.margin, o.penalty, mean };
    SLG_TRY(hinge_run(ctx, &spec, mean ? SLG_MEAN : SLG_SUM, logits, targets, out, grad));

    double square, decay = slg_svm_decay(o.scaling, l.weight->shape[0], l.weight->shape[1]);
    SLG_TRY(regularise(ctx, l.weight, decay, o.outer_decay ? NULL : g.dweight, &square));
    out->value += 0.5 * decay * square;
    return SLG_OK;
}

slg_status slg_svm_layer(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                         const slg_svm_layer_opts *opts, slg_loss_out *out,
                         slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_svm_layer");
    return op_end(ctx, svm_layer(ctx, logits, targets, opts, out, grad));
}
