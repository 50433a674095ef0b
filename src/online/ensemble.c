/*
 * ensemble.c - optimistic descents with a grid of constant steps, combined by optimistic Hedge:
 * see online.h. What each would play is made from its xhat where it is needed, one at a time:
 * d numbers of scratch, whatever N.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "learner.h"
#include "mirror.h"

static const slg_omd_ensemble_opts defaults = {
    .size = sizeof(slg_omd_ensemble_opts),
    .domain = SLG_DOMAIN_BALL,
    .rounds = 1000,
    .radius = 1,
    .hi = 1,
    .diameter = NAN,
    .grad_bound = 1,
    .cap = 1,
};

void slg_omd_ensemble_opts_init(slg_omd_ensemble_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* State: last gradient [d], V, sums of losses [N], xhat [N, d], and what was played last [N, d]
   where movement counts. */
static double *variation(const slg_learner *l) { return l->state + l->d; }
static double *totals(const slg_learner *l) { return variation(l) + 1; }
static double *center(const slg_learner *l, int64_t i)
{
    return totals(l) + l->experts + i * l->d;
}
static double *played(const slg_learner *l, int64_t i) { return center(l, l->experts + i); }

static domain set_of(const slg_learner *l)
{
    const slg_omd_ensemble_opts *o = &l->opts.ensemble;
    return (domain){ o->domain, o->radius, o->lo, o->hi };
}

/* ---- Options ---------------------------------------------------------------------------- */

static double least_step(const slg_omd_ensemble_opts *o)
{
    return o->diameter / (o->grad_bound * sqrt(8.0 * o->rounds));
}

static double eta(const slg_learner *l, int64_t i)
{
    const slg_omd_ensemble_opts *o = &l->opts.ensemble;
    return fmin(ldexp(least_step(o), (int)i), o->cap);
}

static slg_status open(slg_learner *l, const void *opts)
{
    slg_omd_ensemble_opts *o = &l->opts.ensemble;
    slg_ctx *ctx = l->ctx;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    const domain s = set_of(l);
    SLG_TRY(option_choice(ctx, "hint", o->hint, SLG_HINT_LAST, SLG_HINT_ZERO));
    SLG_TRY(domain_check(ctx, &s));
    if (o->rounds < 1)
        return slg_fail(ctx, SLG_ERR_RANGE, "rounds is %d, must be at least 1", o->rounds);
    if (!isnan(o->diameter)) SLG_TRY(option_positive(ctx, "diameter", o->diameter));
    SLG_TRY(option_positive(ctx, "grad_bound", o->grad_bound));
    SLG_TRY(option_positive(ctx, "cap", o->cap));
    SLG_TRY(option_not_negative(ctx, "movement", o->movement));
    if (isnan(o->diameter)) o->diameter = domain_diameter(&s, l->d);
    if (isnan(o->diameter))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "diameter must be given: a free domain has none of its own");
    /* A set of one point: any step. */
    if (o->diameter < ONLINE_LEAST) o->diameter = ONLINE_LEAST;
    l->experts = 1;
    while (ldexp(least_step(o), l->experts) <= o->cap) l->experts++;
    l->hint = o->hint;
    l->count = l->d + 1 + l->experts + l->experts * l->d * (o->movement > 0 ? 2 : 1);
    return SLG_OK;
}

static void start(slg_learner *l)
{
    const domain s = set_of(l);
    for (int64_t i = 0; i < l->experts; i++) domain_start(&s, l->d, center(l, i));
}

/* ---- Rounds ----------------------------------------------------------------------------- */

/* Scratch of a call: x[d], work[d], and a number an expert. */
typedef struct ensemble_run {
    double *x, *work, *hint, *loss, *p;
} ensemble_run;

static slg_status run_open(const slg_learner *l, ensemble_run *r)
{
    double *memory = arena_alloc(l->ctx, (size_t)(2 * l->d + 3 * l->experts), sizeof *memory);
    if (!memory) return SLG_ERR_MEMORY;
    r->x = memory, r->work = r->x + l->d, r->hint = r->work + l->d;
    r->loss = r->hint + l->experts, r->p = r->loss + l->experts;
    return SLG_OK;
}

/* What expert i plays. */
static void play(const slg_learner *l, int64_t i, const double *m, ensemble_run *r)
{
    const domain s = set_of(l);
    mirror_step(&s, l->d, center(l, i), eta(l, i), m, r->x, r->work);
    mirror_point(&s, l->d, r->x);
}

static double dot(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* movement |x - what it played last|^2. */
static double moved(const slg_learner *l, int64_t i, const double *x)
{
    double sum = 0;
    if (!(l->opts.ensemble.movement > 0) || l->rounds == 0) return 0;
    for (int64_t j = 0; j < l->d; j++)
        sum += (x[j] - played(l, i)[j]) * (x[j] - played(l, i)[j]);
    return l->opts.ensemble.movement * sum;
}

static double rate(const slg_learner *l)
{
    const double size = l->opts.ensemble.diameter * l->opts.ensemble.grad_bound;
    return hedge_rate(l->experts, size * size, *variation(l));
}

static slg_status weights(const slg_learner *l, const double *m, ensemble_run *r)
{
    SLG_TRY(run_open(l, r));
    for (int64_t i = 0; i < l->experts; i++) {
        play(l, i, m, r);
        r->hint[i] = dot(l->d, m, r->x) + moved(l, i, r->x);
    }
    hedge_weights(l->experts, rate(l), totals(l), r->hint, r->p);
    return SLG_OK;
}

static slg_status decide(const slg_learner *l, const double *m, double *x)
{
    ensemble_run r;
    SLG_TRY(weights(l, m, &r));
    memset(x, 0, (size_t)l->d * sizeof *x);
    for (int64_t i = 0; i < l->experts; i++) {
        play(l, i, m, &r);
        for (int64_t j = 0; j < l->d; j++) x[j] += r.p[i] * r.x[j];
    }
    return SLG_OK;
}

static slg_status observe(slg_learner *l, const double *m, const double *g)
{
    const domain s = set_of(l);
    ensemble_run r;
    SLG_TRY(run_open(l, &r));
    for (int64_t i = 0; i < l->experts; i++) {
        play(l, i, m, &r);
        const double more = moved(l, i, r.x);
        r.hint[i] = dot(l->d, m, r.x) + more;
        r.loss[i] = dot(l->d, g, r.x) + more;
        if (l->opts.ensemble.movement > 0)
            memcpy(played(l, i), r.x, (size_t)l->d * sizeof *r.x);
        mirror_step(&s, l->d, center(l, i), eta(l, i), g, center(l, i), r.work);
    }
    *variation(l) += hedge_surprise(l->experts, totals(l), r.hint, r.loss);
    for (int64_t i = 0; i < l->experts; i++) totals(l)[i] += r.loss[i];
    return SLG_OK;
}

/* ---- What it holds ---------------------------------------------------------------------- */

static void info(const slg_learner *l, slg_learner_info_t *out)
{
    out->step = rate(l);
    out->variation = *variation(l);
}

static int32_t shape(const slg_learner *l, int32_t part, int64_t extents[2])
{
    extents[0] = l->experts;
    return part == SLG_LEARNER_TOTALS || part == SLG_LEARNER_WEIGHTS ||
                   part == SLG_LEARNER_STEPS
               ? 1
               : 0;
}

static slg_status read(const slg_learner *l, int32_t part, double *out)
{
    ensemble_run r;
    if (part == SLG_LEARNER_WEIGHTS) SLG_TRY(weights(l, learner_hint(l), &r));
    for (int64_t i = 0; i < l->experts; i++)
        out[i] = part == SLG_LEARNER_STEPS    ? eta(l, i)
                 : part == SLG_LEARNER_TOTALS ? totals(l)[i]
                                              : r.p[i];
    return SLG_OK;
}

const learner_kind learner_ensemble = { SLG_OMD_ENSEMBLE, open, start, finite_vector, decide,
                                        observe,          info, shape, read };
