/*
 * ftrl.c - follow the regularised leader over d actions: see online.h. Losses are summed; the
 * distribution is made anew from the sums at each decision.
 */
#include <math.h>

#include "core/options.h"
#include "learner.h"
#include "log_barrier.h"

static const slg_ftrl_opts defaults = { .size = sizeof(slg_ftrl_opts),
                                        .rule = SLG_FTRL_LOG_BARRIER,
                                        .hint = SLG_HINT_ZERO,
                                        .eta = 0.1 };

void slg_ftrl_opts_init(slg_ftrl_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_learner *l, const void *opts)
{
    slg_ftrl_opts *o = &l->opts.ftrl;
    *o = defaults;
    SLG_TRY(options_read(l->ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(l->ctx, "rule", o->rule, SLG_FTRL_LOG_BARRIER, SLG_FTRL_ENTROPY));
    SLG_TRY(option_choice(l->ctx, "hint", o->hint, SLG_HINT_LAST, SLG_HINT_ZERO));
    SLG_TRY(option_choice(l->ctx, "decreasing", o->decreasing, 0, 1));
    SLG_TRY(option_positive(l->ctx, "eta", o->eta));
    l->hint = o->hint;
    l->count = experts_count(l->d);
    return SLG_OK;
}

static double rate(const slg_learner *l)
{
    const slg_ftrl_opts *o = &l->opts.ftrl;
    return o->decreasing ? o->eta / sqrt((double)l->rounds + 1) : o->eta;
}

static slg_status decide(const slg_learner *l, const double *m, double *x)
{
    const double *total = experts_totals(l);
    for (int64_t i = 0; i < l->d; i++) x[i] = total[i] + m[i];
    const double sum = barrier_gaps(l->d, rate(l), x, x);
    ftrl_distribution(&l->ctx->k, l->opts.ftrl.rule, l->d, x, sum, x);
    return SLG_OK;
}

static void info(const slg_learner *l, slg_learner_info_t *out)
{
    out->step = rate(l);
    out->variation = *experts_variation(l);
}

const learner_kind learner_ftrl = { SLG_FTRL,       open,          experts_start,
                                    experts_accept, decide,        experts_observe,
                                    info,           experts_shape, experts_read };
