/*
 * hedge.c - optimistic Hedge: see online.h. Losses are summed, never weights: an expert whose
 * weight is below the smallest number can come back.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "learner.h"

static const slg_hedge_opts defaults = { .size = sizeof(slg_hedge_opts), .bound = 1 };

void slg_hedge_opts_init(slg_hedge_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

double hedge_rate(int64_t n, double bound, double variation)
{
    return sqrt(log((double)n) / (bound + variation));
}

void hedge_weights(int64_t n, double eps, const double *total, const double *m, double *p)
{
    double least = INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) least = fmin(least, total[i] + m[i]);
    for (int64_t i = 0; i < n; i++) {
        /* eps may be 0: 0 times infinity is not what is meant. */
        p[i] = isinf(total[i]) ? 0 : exp(-eps * (total[i] + m[i] - least));
        sum += p[i];
    }
    for (int64_t i = 0; i < n; i++) p[i] /= sum;
}

double hedge_surprise(int64_t n, const double *total, const double *m, const double *l)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isinf(total[i]) || isinf(l[i])) continue;
        most = fmax(most, fabs(l[i] - m[i]));
    }
    return most * most;
}

/* ---- Experts ---------------------------------------------------------------------------- */

double *experts_totals(const slg_learner *l) { return l->state + l->d; }
double *experts_variation(const slg_learner *l) { return l->state + 2 * l->d; }

void experts_start(slg_learner *l) { (void)l; }

slg_status experts_accept(const slg_learner *l, const char *name, double *v)
{
    const double *total = experts_totals(l);
    const bool loss = strcmp(name, "g") == 0;
    bool left = false;
    for (int64_t i = 0; i < l->d; i++) {
        if (isinf(total[i])) v[i] = 0;
        const bool out = loss && isinf(v[i]) && v[i] > 0;
        if (!isfinite(v[i]) && !out)
            return slg_fail(l->ctx, SLG_ERR_RANGE, "%s[%lld] is %g, must be finite%s", name,
                            (long long)i, v[i], loss ? " or +inf" : "");
        left = left || (!out && !isinf(total[i]));
    }
    if (left) return SLG_OK;
    return slg_fail(l->ctx, SLG_ERR_RANGE, "%s is +inf for every expert that is left", name);
}

slg_status experts_observe(slg_learner *l, const double *m, const double *g)
{
    double *total = experts_totals(l);
    *experts_variation(l) += hedge_surprise(l->d, total, m, g);
    for (int64_t i = 0; i < l->d; i++) total[i] += g[i];
    return SLG_OK;
}

int32_t experts_shape(const slg_learner *l, int32_t part, int64_t extents[2])
{
    extents[0] = l->d;
    return part == SLG_LEARNER_TOTALS || part == SLG_LEARNER_WEIGHTS ? 1 : 0;
}

slg_status experts_read(const slg_learner *l, int32_t part, double *out)
{
    if (part == SLG_LEARNER_WEIGHTS) return l->kind->decide(l, learner_hint(l), out);
    memcpy(out, experts_totals(l), (size_t)l->d * sizeof *out);
    return SLG_OK;
}

/* ---- Hedge ------------------------------------------------------------------------------ */

static slg_status open(slg_learner *l, const void *opts)
{
    slg_hedge_opts *o = &l->opts.hedge;
    *o = defaults;
    SLG_TRY(options_read(l->ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(l->ctx, "hint", o->hint, SLG_HINT_LAST, SLG_HINT_ZERO));
    SLG_TRY(option_positive(l->ctx, "bound", o->bound));
    l->hint = o->hint;
    l->count = experts_count(l->d);
    return SLG_OK;
}

static slg_status decide(const slg_learner *l, const double *m, double *x)
{
    const double eps = hedge_rate(l->d, l->opts.hedge.bound, *experts_variation(l));
    hedge_weights(l->d, eps, experts_totals(l), m, x);
    return SLG_OK;
}

static void info(const slg_learner *l, slg_learner_info_t *out)
{
    out->step = hedge_rate(l->d, l->opts.hedge.bound, *experts_variation(l));
    out->variation = *experts_variation(l);
}

const learner_kind learner_hedge = { SLG_HEDGE,      open,          experts_start,
                                     experts_accept, decide,        experts_observe,
                                     info,           experts_shape, experts_read };
