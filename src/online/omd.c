/*
 * omd.c - optimistic online mirror descent: see online.h. A step of the lazy form keeps xhat
 * alone; x_t is made anew from it at each decision.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "learner.h"
#include "mirror.h"

static const slg_omd_opts defaults = {
    .size = sizeof(slg_omd_opts),
    .domain = SLG_DOMAIN_BALL,
    .radius = 1,
    .hi = 1,
    .numerator = NAN,
    .offset = 1,
    .lambda = 1,
    .eta = 0.1,
};

void slg_omd_opts_init(slg_omd_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* State: last gradient [d], xhat or its logarithm [d], V, and H^-1 [d, d] if exp-concave. */
static double *center(const slg_learner *l) { return l->state + l->d; }
static double *variation(const slg_learner *l) { return l->state + 2 * l->d; }
static double *inverse(const slg_learner *l) { return l->state + 2 * l->d + 1; }

static domain set_of(const slg_omd_opts *o)
{
    return (domain){ o->domain, o->radius, o->lo, o->hi };
}

static bool exp_concave(const slg_learner *l)
{
    return l->opts.omd.mode == SLG_OMD_EXP_CONCAVE;
}

/* ---- Options ---------------------------------------------------------------------------- */

static slg_status check(slg_ctx *ctx, const slg_omd_opts *o)
{
    const domain s = set_of(o);
    SLG_TRY(option_choice(ctx, "mode", o->mode, SLG_OMD_CONVEX, SLG_OMD_CONSTANT));
    SLG_TRY(option_choice(ctx, "hint", o->hint, SLG_HINT_LAST, SLG_HINT_ZERO));
    SLG_TRY(domain_check(ctx, &s));
    if (!isnan(o->numerator)) SLG_TRY(option_positive(ctx, "numerator", o->numerator));
    SLG_TRY(option_positive(ctx, "offset", o->offset));
    SLG_TRY(option_not_negative(ctx, "grad_bound", o->grad_bound));
    SLG_TRY(option_positive(ctx, "lambda", o->lambda));
    SLG_TRY(option_positive(ctx, "eta", o->eta));
    SLG_TRY(option_not_negative(ctx, "alpha", o->alpha));
    SLG_TRY(option_not_negative(ctx, "beta", o->beta));
    if (o->mode == SLG_OMD_CONVEX && isnan(o->numerator) && o->domain == SLG_DOMAIN_FREE)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "numerator must be given: a free domain has no diameter");
    return SLG_OK;
}

/* beta from alpha, and the domains that have a metric. */
static slg_status open_metric(slg_learner *l, slg_omd_opts *o)
{
    if (o->domain != SLG_DOMAIN_FREE && o->domain != SLG_DOMAIN_BALL)
        return slg_fail(l->ctx, SLG_ERR_RANGE,
                        "domain is %d, the exp-concave mode has free (0) and ball (1)",
                        o->domain);
    if (o->alpha > 0) {
        const domain s = set_of(o);
        const double wide = 4 * o->grad_bound * domain_diameter(&s, l->d);
        if (o->beta != 0 || !(wide > 0))
            return slg_fail(l->ctx, SLG_ERR_RANGE,
                            "alpha is %g, needs a ball, grad_bound > 0 and beta 0; they are "
                            "domain %d, radius %g, %g and %g",
                            o->alpha, o->domain, o->radius, o->grad_bound, o->beta);
        o->beta = fmin(1 / wide, o->alpha) / 2;
    }
    if (l->d > 1 << 24)
        return slg_fail(l->ctx, SLG_ERR_RANGE, "d is %lld, the exp-concave mode has d^2 state",
                        (long long)l->d);
    l->count += l->d * l->d;
    return SLG_OK;
}

static slg_status open(slg_learner *l, const void *opts)
{
    slg_omd_opts *o = &l->opts.omd;
    *o = defaults;
    SLG_TRY(options_read(l->ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(check(l->ctx, o));
    const domain s = set_of(o);
    if (isnan(o->numerator) && o->mode == SLG_OMD_CONVEX) {
        o->numerator = domain_diameter(&s, l->d);
        /* One point: any step will do, and log(1) is none. */
        if (domain_logs(&s)) o->numerator = l->d > 1 ? sqrt(log((double)l->d)) : 1;
    }
    l->hint = o->hint;
    l->count = 2 * l->d + 1;
    return o->mode == SLG_OMD_EXP_CONCAVE ? open_metric(l, o) : SLG_OK;
}

static void start(slg_learner *l)
{
    const slg_omd_opts *o = &l->opts.omd;
    const domain s = set_of(o);
    domain_start(&s, l->d, center(l));
    if (!exp_concave(l)) return;
    const double h = 1 + o->beta * o->grad_bound * o->grad_bound / 2;
    for (int64_t i = 0; i < l->d; i++) inverse(l)[i * l->d + i] = 1 / h;
}

/* ---- Rounds ----------------------------------------------------------------------------- */

static double eta(const slg_learner *l)
{
    const slg_omd_opts *o = &l->opts.omd;
    switch (o->mode) {
    case SLG_OMD_CONVEX:
        return o->numerator /
               sqrt(o->offset + 4 * o->grad_bound * o->grad_bound + *variation(l));
    case SLG_OMD_STRONGLY_CONVEX:
        return 2 / (o->lambda * ((double)l->rounds + 1));
    case SLG_OMD_EXP_CONCAVE:
        return 1;
    default:
        return o->eta;
    }
}

static double *scratch(const slg_learner *l)
{
    const domain s = set_of(&l->opts.omd);
    const size_t n = exp_concave(l) ? metric_scratch(&s, l->d) : (size_t)l->d;
    return arena_alloc(l->ctx, n, sizeof(double));
}

/* From xhat along g. */
static void step(const slg_learner *l, const double *g, double *to, double *work)
{
    const domain s = set_of(&l->opts.omd);
    if (exp_concave(l))
        metric_step(&s, l->d, inverse(l), center(l), g, to, work);
    else
        mirror_step(&s, l->d, center(l), eta(l), g, to, work);
}

static slg_status decide(const slg_learner *l, const double *m, double *x)
{
    const domain s = set_of(&l->opts.omd);
    double *work = scratch(l);
    if (!work) return SLG_ERR_MEMORY;
    step(l, m, x, work);
    mirror_point(&s, l->d, x);
    return SLG_OK;
}

static double surprise(const slg_learner *l, const double *m, const double *g)
{
    const domain s = set_of(&l->opts.omd);
    double sum = 0, most = 0;
    for (int64_t i = 0; i < l->d; i++) {
        const double e = (g[i] - m[i]) * (g[i] - m[i]);
        sum += e;
        most = e > most ? e : most;
    }
    return domain_logs(&s) ? most : sum;
}

static slg_status observe(slg_learner *l, const double *m, const double *g)
{
    double *work = scratch(l);
    if (!work) return SLG_ERR_MEMORY;
    step(l, g, center(l), work);
    *variation(l) += surprise(l, m, g);
    if (exp_concave(l)) metric_add(l->d, l->opts.omd.beta / 2, g, inverse(l), work);
    return SLG_OK;
}

/* ---- What it holds ---------------------------------------------------------------------- */

static void info(const slg_learner *l, slg_learner_info_t *out)
{
    out->step = eta(l);
    out->variation = *variation(l);
}

static int32_t shape(const slg_learner *l, int32_t part, int64_t extents[2])
{
    extents[0] = l->d;
    if (part == SLG_LEARNER_CENTER) return 1;
    if (part == SLG_LEARNER_LOG_CENTER)
        return l->opts.omd.domain == SLG_DOMAIN_SIMPLEX_ENTROPY ? 1 : 0;
    if (part != SLG_LEARNER_INVERSE || !exp_concave(l)) return 0;
    extents[1] = l->d;
    return 2;
}

static slg_status read(const slg_learner *l, int32_t part, double *out)
{
    const domain s = set_of(&l->opts.omd);
    const size_t n = (size_t)(part == SLG_LEARNER_INVERSE ? l->d * l->d : l->d);
    memcpy(out, part == SLG_LEARNER_INVERSE ? inverse(l) : center(l), n * sizeof *out);
    if (part == SLG_LEARNER_CENTER) mirror_point(&s, l->d, out);
    return SLG_OK;
}

const learner_kind learner_omd = { SLG_OMD, open, start, finite_vector, decide,
                                   observe, info, shape, read };
