/*
 * separation_rules.c - from logistic regression to the perceptron, as a method of the solvers'
 * handle: see softlogit/separation.h. g is minus the direction of the rule at x, which the pass
 * over the samples finds along with what is reported of x: so a step is one pass.
 */
#include "softlogit/separation.h"

#include <float.h>
#include <string.h>

#include "core/options.h"
#include "margins.h"
#include "solve.h"

static const slg_separation_opts defaults = {
    .size = sizeof defaults, .rule = SLG_NORMALIZED_LOGISTIC, .stop = 1, .gamma = 100
};

void slg_separation_opts_init(slg_separation_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct separation {
    margin_data m;
    slg_separation_opts opts;
    int32_t *y;       /* [n] */
    margin_sums sums; /* of the last evaluation */
} separation;

static bool is_perceptron(const separation *o) { return o->opts.rule >= SLG_BATCH_PERCEPTRON; }

/* ---- Direction -------------------------------------------------------------------------- */

/* Of the pass's sum of samples. */
static double scale_of(const separation *o)
{
    const double n = (double)o->m.n;
    switch (o->opts.rule) {
    case SLG_LOGISTIC_DESCENT:
        return exp(o->sums.ref) / n;
    case SLG_NORMALIZED_LOGISTIC:
        return 1 / o->sums.sum;
    case SLG_BATCH_PERCEPTRON:
        return 1 / n;
    default:
        return 1 / (double)o->sums.wrong; /* SLG_PERCEPTRON: of one sample alone */
    }
}

/* The loss at xt; gt = minus the direction. Random numbers of step t start at t n. */
static slg_status evaluate(slg_solver *s, double *value)
{
    separation *o = s->own;
    const bool one = o->opts.rule == SLG_PERCEPTRON;
    margin_query q = { .theta = s->xt, .count = o->m.n, .seed = o->opts.seed };
    q.weights = one ? MARGIN_NONE : is_perceptron(o) ? MARGIN_WRONG : MARGIN_SOFT;
    q.draw = one && o->opts.draw;
    q.number = (uint64_t)s->report.values * (uint64_t)o->m.n;
    s->report.values++, s->report.gradients++;
    SLG_TRY(margin_pass(s->ctx, &o->m, &q, &o->sums, s->gt));
    *value = o->m.n ? o->sums.loss / (double)o->m.n : 0;
    double scale = o->m.n ? -scale_of(o) : 0;
    const bool still = o->m.n == 0 || (is_perceptron(o) && o->sums.wrong == 0);
    if (still || one) memset(s->gt, 0, (size_t)s->d * sizeof *s->gt);
    if (still) return SLG_OK;
    if (one) {
        margin_sums ignored;
        q.weights = MARGIN_WRONG, q.first = o->sums.pick, q.count = 1, scale = -1;
        SLG_TRY(margin_pass(s->ctx, &o->m, &q, &ignored, s->gt));
    }
    for (int64_t i = 0; i < s->d; i++) s->gt[i] *= scale;
    return SLG_OK;
}

/* What the last evaluation, which was of x, says. */
static slg_status norm(slg_solver *s)
{
    const separation *o = s->own;
    s->report.wrong = o->sums.wrong;
    s->report.min_margin = o->sums.least;
    s->report.log_beta = o->sums.ref == -(double)INFINITY && o->m.n
                             ? INFINITY
                             : margin_log_beta(&o->sums, o->m.n);
    return metric_dual(s->ctx, &s->metric, s->g, s->w, &s->report.grad_norm);
}

/* ---- Steps ------------------------------------------------------------------------------ */

static int32_t rest(slg_solver *s)
{
    const separation *o = s->own;
    const bool separated = s->report.wrong == 0;
    return separated && (o->opts.stop || is_perceptron(o)) ? SLG_SOLVER_SEPARATED
                                                           : SLG_SOLVER_STEPPED;
}

/* At x = 0 the limit of descent counts each sample with q = 1/2. */
static double step_size(const slg_solver *s)
{
    const separation *o = s->own;
    if (!is_perceptron(o)) return o->opts.gamma;
    if (o->opts.rule != SLG_BATCH_PERCEPTRON || s->report.steps > 0) return 1;
    for (int64_t i = 0; i < s->d; i++)
        if (s->x[i] != 0) return 1;
    return 0.5;
}

static bool in_range(int64_t n, const double *x)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(x[i]) <= (double)FLT_MAX)) return false;
    return true;
}

static slg_status step(slg_solver *s)
{
    const double size = step_size(s);
    double value = NAN;
    for (int64_t i = 0; i < s->d; i++) s->xt[i] = s->x[i] - size * s->g[i];
    if (in_range(s->d, s->xt)) SLG_TRY(solver_try(s, &value));
    if (!isfinite(value) || !vector_finite(s->d, s->gt)) {
        s->report.reason = SLG_SOLVER_NOT_FINITE;
        return SLG_OK;
    }
    s->report.step_norm = size * s->report.grad_norm;
    solver_accept(s, value);
    return norm(s);
}

/* ---- Life ------------------------------------------------------------------------------- */

static slg_status options(slg_ctx *ctx, const slg_separation_opts *given,
                          slg_separation_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "opts.rule", o->rule, SLG_LOGISTIC_DESCENT, SLG_PERCEPTRON));
    SLG_TRY(option_choice(ctx, "opts.stop", o->stop, 0, 1));
    SLG_TRY(option_choice(ctx, "opts.draw", o->draw, 0, 1));
    if (o->classes != 0 && (o->classes < 2 || o->classes > INT32_MAX))
        return slg_fail(ctx, SLG_ERR_RANGE, "opts.classes is %lld, must be 0, or from 2 to %d",
                        (long long)o->classes, INT32_MAX);
    if (o->gamma > 0 && o->gamma <= DBL_MAX) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "opts.gamma is %g, must be above 0 and finite",
                    o->gamma);
}

/* The operands, through what `open` of a method gets. */
typedef struct given {
    const slg_tensor *a, *y;
    const slg_separation_opts *opts;
} given;

static slg_status open(slg_solver *s, const void *operands)
{
    const given *g = operands;
    slg_ctx *ctx = s->ctx;
    separation *o = s->own = ctx_alloc(ctx, sizeof *o);
    if (!o) return SLG_ERR_MEMORY;
    *o = (separation){ .y = NULL };
    SLG_TRY(options(ctx, g->opts, &o->opts));
    SLG_TRY(margin_data_read(ctx, g->a, g->y, o->opts.classes, &o->m));
    if (__builtin_mul_overflow(margin_outputs(&o->m), o->m.d, &s->d))
        return slg_fail(ctx, SLG_ERR_SHAPE, "%lld classes of %lld columns are too many",
                        (long long)o->opts.classes, (long long)o->m.d);
    o->y = ctx_alloc(ctx, ((size_t)o->m.n + 1) * sizeof *o->y);
    if (!o->y) return SLG_ERR_MEMORY;
    SLG_TRY(margin_targets(ctx, g->y, &o->m, o->y));
    o->m.y = o->y;
    s->metric = (norm_metric){ .d = s->d };
    s->report.radius = is_perceptron(o) ? 1 : o->opts.gamma;
    return SLG_OK;
}

static void close(slg_solver *s)
{
    separation *o = s->own;
    if (o) ctx_free(s->ctx, o->y);
    ctx_free(s->ctx, o);
}

static const method method_separation = { .kind = SLG_SEPARATION,
                                          .open = open,
                                          .step = step,
                                          .norm = norm,
                                          .evaluate = evaluate,
                                          .rest = rest,
                                          .close = close };

slg_status slg_separation_create(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *y,
                                 const slg_tensor *x0, const slg_separation_opts *opts,
                                 slg_solver **s)
{
    const given g = { a, y, opts };
    return solver_create(ctx, "slg_separation_create", &method_separation, NULL, x0, &g, s);
}
