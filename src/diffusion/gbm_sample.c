/*
 * gbm_sample.c - slg_gbm_sample: the reverse chain, a model's call and a step in turn.
 */
#include <math.h>

#include "gbm_process.h"

static const slg_gbm_sample_opts defaults = { .size = sizeof(slg_gbm_sample_opts),
                                              .steps = 1000,
                                              .repeats = 1,
                                              .start = 1,
                                              .delta = NAN,
                                              .anneal = 1,
                                              .anneal_factor = 1 };

void slg_gbm_sample_opts_init(slg_gbm_sample_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status read_options(slg_ctx *ctx, const slg_gbm_sample_opts *given,
                               slg_gbm_sample_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(
        option_choice(ctx, "sampler", o->sampler, SLG_DALE_LANGEVIN, SLG_GBM_UNCONSTRAINED));
    SLG_TRY(option_choice(ctx, "steps", o->steps, 0, INT32_MAX));
    SLG_TRY(option_choice(ctx, "repeats", o->repeats, 1, INT32_MAX));
    SLG_TRY(option_choice(ctx, "denoise", o->denoise, 0, INT32_MAX));
    SLG_TRY(option_reserved(ctx, "reserved", o->reserved));
    if (!(o->start > 0) || !isfinite(o->start))
        return slg_fail(ctx, SLG_ERR_RANGE, "start is %g, must be > 0 and finite", o->start);
    if (!isnan(o->delta)) SLG_TRY(option_least(ctx, "delta", o->delta, 0));
    SLG_TRY(option_least(ctx, "anneal", o->anneal, 0));
    return option_range(ctx, "anneal_factor", o->anneal_factor, 0, 1);
}

/* All that could go wrong later, but for the model. */
static slg_status check(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *h,
                        const slg_rng *rng, const slg_gbm *given, slg_gbm_sample_opts *o,
                        slg_gbm_model model, const slg_gbm_counts *counts)
{
    motion p;
    const operand out[] = { { "x", x, 0 }, { "h", h, 0 } };
    if (!model) return slg_fail(ctx, SLG_ERR_NULL, "model is NULL");
    SLG_TRY(process_open(ctx, given, "x", x, NULL, false, &p));
    if (!h) return slg_fail(ctx, SLG_ERR_NULL, "h is NULL");
    SLG_TRY(process_operands(ctx, "x", x, 0, NULL, 2, out));
    SLG_TRY(process_noise(ctx, NULL, rng, o->anneal > 0 && o->steps > 0));
    if (p.log_state && o->sampler != SLG_DALE_LANGEVIN)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "log_state is 1: sampler must be SLG_DALE_LANGEVIN, which keeps signs");
    if (isnan(o->delta)) o->delta = o->steps ? o->start / o->steps : 0.001;
    return counts_check(ctx, counts);
}

typedef struct chain {
    slg_ctx *ctx;
    slg_tensor *x, *h;
    slg_rng *rng;
    const slg_gbm *process;
    slg_gbm_model model;
    void *user;
    slg_gbm_counts counts;
} chain;

static slg_status update(chain *c, double t, const slg_gbm_reverse_opts *step)
{
    slg_gbm_counts now;
    SLG_TRY(c->model(c->user, t, c->x, c->h));
    slg_gbm_counts_init(&now, sizeof now);
    slg_rng *rng = step->anneal > 0 ? c->rng : NULL;
    SLG_TRY(slg_gbm_reverse(c->ctx, c->x, c->h, NULL, rng, c->process, step, &now));
    c->counts.saturated += now.saturated;
    c->counts.sign_changes += now.sign_changes;
    return SLG_OK;
}

static slg_status run(chain *c, const slg_gbm_sample_opts *o)
{
    slg_gbm_reverse_opts step;
    slg_gbm_reverse_opts_init(&step, sizeof step);
    step.sampler = o->sampler, step.delta = o->delta, step.anneal = o->anneal;
    for (int32_t k = o->steps; k > 0; k--) {
        for (int32_t i = 0; i < o->repeats; i++)
            SLG_TRY(update(c, o->start * k / o->steps, &step));
        step.anneal *= o->anneal_factor;
    }
    step.anneal = 0;
    for (int32_t i = 0; i < o->denoise; i++) SLG_TRY(update(c, 0, &step));
    return SLG_OK;
}

slg_status slg_gbm_sample(slg_ctx *ctx, slg_tensor *x, slg_tensor *h, slg_rng *rng,
                          const slg_gbm *process, const slg_gbm_sample_opts *opts,
                          slg_gbm_model model, void *user, slg_gbm_counts *counts)
{
    slg_gbm_sample_opts o;
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_gbm_sample");
    slg_status status = read_options(ctx, opts, &o);
    if (!status) status = check(ctx, x, h, rng, process, &o, model, counts);
    status = op_end(ctx, status);
    if (status) return status;
    chain c = { ctx, x, h, rng, process, model, user, { .size = sizeof c.counts } };
    status = run(&c, &o);
    if (counts) options_write(counts, &c.counts, sizeof c.counts);
    return status;
}
