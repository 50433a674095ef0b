/*
 * binary_kl.c - see dual_head.h. Two losses of one shape: each a sum over classes of a function
 * of student's and teacher's logit, by one kernel for value and slope.
 */
#include "methods.h"

#include <string.h>

#include "core/options.h"
#include "softlogit/dual_head.h"
#include "softmax/pipeline.h"

static const slg_binary_kl_opts defaults = {
    .size = sizeof(slg_binary_kl_opts),
    .reduction = SLG_MEAN,
    .temperature = 2,
};

void slg_binary_kl_opts_init(slg_binary_kl_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* 1 / t within float32: of temperatures that multiply up. */
static double inverse(double t) { return fmin(fmax(1 / t, 1e-37), 1e37); }

static logit_pair pair_of(const loss_call *c, const loss_row *r)
{
    const slg_binary_kl_opts *o = c->opts;
    double x = inverse(o->temperature * r->temperature);
    double y = inverse(o->temperature * source_temperature(&c->teacher, r->row));
    return (logit_pair){ (float)x, (float)y, (float)(x / y) };
}

/* A masked class: 0 in both rows, which is worth 0 and has slope 0. */
static const float *masked(const loss_call *c, int64_t col, int64_t n, const float *x,
                           float *scratch)
{
    if (!c->src.mask) return x;
    memcpy(scratch, x, (size_t)n * sizeof *scratch);
    c->ctx->k.mul((size_t)n, c->src.mask + col, scratch);
    return scratch;
}

typedef double (*pair_kernel)(size_t n, const float *x, const float *y, const logit_pair *p,
                              float factor, float *d, int store);

/* share: of the slope in that of the loss. */
static void run_pair(pair_kernel kernel, double share, const loss_call *c, loss_row *r,
                     int64_t col, int64_t n, const float *x, const float *t, float *d,
                     int store)
{
    const slg_binary_kl_opts *o = c->opts;
    float xs[KERNEL_BLOCK], ts[KERNEL_BLOCK];
    const logit_pair p = pair_of(c, r);
    float factor = (float)(share * r->weight * o->temperature * loss_factor(r));
    x = masked(c, col, n, x, xs);
    t = masked(c, col, n, t, ts);
    double sum = kernel((size_t)n, x, t, &p, factor, d, store);
    if (sum == INFINITY) { /* maybe only float32's range: class by class */
        sum = 0;
        for (int64_t i = 0; i < n; i++) sum += kernel(1, x + i, t + i, &p, 1.0f, NULL, 0);
    }
    r->sums[0] += sum;
}

static void at_once_kl(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                       const float *t, float *d, int store)
{
    run_pair(c->ctx->k.binary_kl, 1, c, r, col, n, x, t, d, store);
}

static void at_once_normalised(const loss_call *c, loss_row *r, int64_t col, int64_t n,
                               const float *x, const float *t, float *d, int store)
{
    run_pair(c->ctx->k.log_cosh, 0.5, c, r, col, n, x, t, d, store);
}

static void solve(const loss_call *c, loss_row *r)
{
    const slg_binary_kl_opts *o = c->opts;
    double sum = r->sums[0], t = o->temperature;
    r->loss = isnan(sum) ? NAN : loss_term(r->weight, t * t * sum);
}

const loss_method binary_kl_method = {
    .uses = TARGET_TEACHER | TARGET_ROW_WEIGHT,
    .flags = LOSS_NO_LSE,
    .at_once = at_once_kl,
    .solve = solve,
};

const loss_method binary_kl_normalised_method = {
    .uses = TARGET_TEACHER | TARGET_ROW_WEIGHT,
    .flags = LOSS_NO_LSE,
    .at_once = at_once_normalised,
    .solve = solve,
};

static slg_status run(slg_ctx *ctx, const loss_method *method, const slg_logits *logits,
                      const slg_targets *targets, const slg_binary_kl_opts *opts,
                      slg_loss_out *out, slg_logits_grad *grad)
{
    slg_binary_kl_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_range(ctx, "temperature", o.temperature, 1e-6, 1e6));
    return loss_run(ctx, method, &o, o.reduction, logits, targets, out, grad);
}

slg_status slg_binary_kl(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                         const slg_binary_kl_opts *opts, slg_loss_out *out,
                         slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_binary_kl");
    return op_end(ctx, run(ctx, &binary_kl_method, logits, targets, opts, out, grad));
}

slg_status slg_binary_kl_normalised(slg_ctx *ctx, const slg_logits *logits,
                                    const slg_targets *targets, const slg_binary_kl_opts *opts,
                                    slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_binary_kl_normalised");
    return op_end(ctx,
                  run(ctx, &binary_kl_normalised_method, logits, targets, opts, out, grad));
}
