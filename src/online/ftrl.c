/*
 * ftrl.c - follow the regularised leader over d actions: see online.h. Losses are summed; the
 * distribution is made anew from the sums at each decision.
 */
#include <math.h>
#include <string.h>

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

/* State: last losses [d], sums of losses [d], V. */
static double *totals(const slg_learner *l) { return l->state + l->d; }
static double *variation(const slg_learner *l) { return l->state + 2 * l->d; }

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
    l->count = 2 * l->d + 1;
    return SLG_OK;
}

static void start(slg_learner *l) { (void)l; }

static slg_status accept(const slg_learner *l, const char *name, double *v)
{
    return accept_losses(l, totals(l), name, v);
}

static double rate(const slg_learner *l)
{
    const slg_ftrl_opts *o = &l->opts.ftrl;
    return o->decreasing ? o->eta / sqrt((double)l->rounds + 1) : o->eta;
}

static slg_status decide(const slg_learner *l, const double *m, double *x)
{
    for (int64_t i = 0; i < l->d; i++) x[i] = totals(l)[i] + m[i];
    const double sum = barrier_gaps(l->d, rate(l), x, x);
    ftrl_distribution(&l->ctx->k, l->opts.ftrl.rule, l->d, x, sum, x);
    return SLG_OK;
}

static slg_status observe(slg_learner *l, const double *m, const double *g)
{
    *variation(l) += hedge_surprise(l->d, totals(l), m, g);
    for (int64_t i = 0; i < l->d; i++) totals(l)[i] += g[i];
    return SLG_OK;
}

static void info(const slg_learner *l, slg_learner_info_t *out)
{
    out->step = rate(l);
    out->variation = *variation(l);
}

static int32_t shape(const slg_learner *l, int32_t part, int64_t extents[2])
{
    extents[0] = l->d;
    return part == SLG_LEARNER_TOTALS || part == SLG_LEARNER_WEIGHTS ? 1 : 0;
}

static slg_status read(const slg_learner *l, int32_t part, double *out)
{
    if (part == SLG_LEARNER_WEIGHTS) return decide(l, learner_hint(l), out);
    memcpy(out, totals(l), (size_t)l->d * sizeof *out);
    return SLG_OK;
}

const learner_kind learner_ftrl = { SLG_FTRL, open, start, accept, decide,
                                    observe,  info, shape, read };
