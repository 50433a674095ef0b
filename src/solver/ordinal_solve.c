/*
 * ordinal_solve.c - Fisher scoring with coordinate descent. The descent keeps r, the gradient
 * of the quadratic model at the trial: a coefficient that moves costs a row of each block, one
 * that stays costs nothing. Sweeps go over what is not 0 until that rests, then once over all.
 */
#include "ordinal_solve.h"

#include <math.h>
#include <string.h>

#include "core/options.h"

static const slg_ordinal_opts defaults = { .size = sizeof(slg_ordinal_opts),
                                           .standardize = 1,
                                           .max_steps = 100,
                                           .max_sweeps = 100,
                                           .max_halvings = 40,
                                           .folds = 5,
                                           .mix = 1,
                                           .base_penalty = 1,
                                           .tolerance = 1e-8,
                                           .path_ratio = 0.01 };

void slg_ordinal_opts_init(slg_ordinal_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

slg_status ordinal_options(slg_ctx *ctx, const slg_ordinal_opts *given, slg_ordinal_opts *opts)
{
    *opts = defaults;
    SLG_TRY(options_read(ctx, "opts", given, opts, sizeof *opts));
    SLG_TRY(option_choice(ctx, "opts.standardize", opts->standardize, 0, 1));
    SLG_TRY(option_choice(ctx, "opts.proportional", opts->proportional, 0, 1));
    SLG_TRY(option_range(ctx, "opts.max_steps", opts->max_steps, 1, 1e6));
    SLG_TRY(option_range(ctx, "opts.max_sweeps", opts->max_sweeps, 1, 1e6));
    SLG_TRY(option_range(ctx, "opts.max_halvings", opts->max_halvings, 0, 1000));
    SLG_TRY(option_range(ctx, "opts.folds", opts->folds, 2, INT32_MAX));
    SLG_TRY(option_reserved(ctx, "opts.reserved", opts->reserved));
    SLG_TRY(option_range(ctx, "opts.mix", opts->mix, 0, 1));
    SLG_TRY(option_least(ctx, "opts.base_penalty", opts->base_penalty, 0));
    SLG_TRY(option_least(ctx, "opts.tolerance", opts->tolerance, 0));
    if (opts->path_ratio > 0 && opts->path_ratio < 1) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "opts.path_ratio is %g, must be above 0 and below 1",
                    opts->path_ratio);
}

slg_status ordinal_factors(slg_ctx *ctx, const slg_ordinal_opts *opts, int64_t p,
                           double **factor)
{
    *factor = doubles_alloc(ctx, p, 1, 0);
    if (!*factor) return SLG_ERR_MEMORY;
    for (int64_t j = 0; j < p; j++) (*factor)[j] = 1;
    if (!opts->penalty_factor) return SLG_OK;
    SLG_TRY(flat_check(ctx, "opts.penalty_factor", opts->penalty_factor, p, false));
    flat_read(opts->penalty_factor, *factor);
    for (int64_t j = 0; j < p; j++)
        if (!((*factor)[j] >= 0))
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "opts.penalty_factor[%lld] is %g, must be at least 0", (long long)j,
                            (*factor)[j]);
    return SLG_OK;
}

slg_status ordinal_lambda_check(slg_ctx *ctx, const char *name, double lambda)
{
    if (lambda >= 0) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "%s is %g, must be at least 0", name, lambda);
}

/* ---- Penalty ---------------------------------------------------------------------------- */

static double weight_of(const ordinal_fit *f, int64_t l, int64_t j)
{
    if (j == f->m->q - 1) return 0; /* an intercept */
    if (l > 0 && f->opts.proportional) return INFINITY;
    if (isinf(f->factor[j])) return INFINITY;
    return f->factor[j] * (l == 0 ? f->opts.base_penalty : 1);
}

static void set_lambda(ordinal_fit *f, double lambda)
{
    for (int64_t l = 0; l < f->m->m; l++)
        for (int64_t j = 0; j < f->m->q; j++) {
            const double w = weight_of(f, l, j);
            const int64_t at = l * f->m->q + j;
            f->weight[at] = w == 0 ? 0 : isinf(w) ? INFINITY : lambda * w;
            if (isinf(f->weight[at])) f->theta[at] = 0;
        }
    f->report.lambda = lambda;
}

static double penalty(const ordinal_fit *f, const double *theta)
{
    const double a = f->opts.mix;
    double sum = 0;
    for (int64_t i = 0; i < f->m->m * f->m->q; i++) {
        const double t = theta[i];
        if (t != 0) sum += f->weight[i] * (a * fabs(t) + (1 - a) / 2 * t * t);
    }
    return sum;
}

/* How far theta is from the conditions of a minimum. */
static double violation(const ordinal_fit *f)
{
    const double a = f->opts.mix;
    double worst = 0;
    for (int64_t i = 0; i < f->m->m * f->m->q; i++) {
        const double w = f->weight[i], t = f->theta[i];
        if (isinf(w)) continue;
        const double by = t == 0 ? fmax(fabs(f->g[i]) - w * a, 0)
                                 : fabs(f->g[i] + w * (copysign(a, t) + (1 - a) * t));
        worst = fmax(worst, by);
    }
    return worst;
}

/* ---- Coordinate descent ----------------------------------------------------------------- */

/* r = r + by times H's column (l, j). */
static void move(ordinal_fit *f, int64_t l, int64_t j, double by)
{
    const int64_t q = f->m->q;
    for (int64_t k = 0; k < f->m->m; k++) {
        const double *entry, *row = ordinal_row(f->m, ordinal_block(f->m, l, k), j, &entry);
        double *r = f->r + k * q;
        if (!row)
            r[q - 1] += by * *entry;
        else if (f->m->proportional && k > 0)
            r[q - 1] += by * row[q - 1];
        else
            for (int64_t i = 0; i < q; i++) r[i] += by * row[i];
    }
}

/* The largest decrease that a move of this sweep meant, times two. */
static double sweep(ordinal_fit *f, bool all)
{
    const int64_t q = f->m->q;
    const double a = f->opts.mix;
    double most = 0;
    f->report.products++;
    for (int64_t l = 0; l < f->m->m; l++)
        for (int64_t j = 0; j < q; j++) {
            const int64_t at = l * q + j;
            const double w = f->weight[at], t = f->trial[at], *entry, *row;
            if (isinf(w) || (!all && t == 0 && w > 0)) continue;
            row = ordinal_row(f->m, ordinal_block(f->m, l, l), j, &entry);
            const double h = row[j];
            if (!(h > 0)) continue;
            const double z = h * t - f->r[at], rest = fabs(z) - w * a;
            const double to = rest > 0 ? copysign(rest, z) / (h + w * (1 - a)) : 0;
            if (to == t) continue;
            move(f, l, j, to - t);
            f->trial[at] = to;
            most = fmax(most, (to - t) * (to - t) * h);
        }
    return most;
}

/* trial = the minimum of the quadratic model with the penalty. */
static void descend(ordinal_fit *f)
{
    const size_t bytes = (size_t)(f->m->m * f->m->q) * sizeof *f->r;
    const double least = 1e-8 * f->opts.tolerance * fabs(f->report.value);
    double first = 0;
    bool all = true;
    memcpy(f->trial, f->theta, bytes);
    memcpy(f->r, f->g, bytes);
    f->report.solves++;
    for (int32_t i = 0; i < f->opts.max_sweeps; i++) {
        const double most = sweep(f, all);
        first = fmax(first, most);
        const bool rests = most <= fmax(least, 1e-18 * first);
        if (rests && all) return;
        all = rests;
    }
}

/* ---- Steps ------------------------------------------------------------------------------ */

/* F at `theta`, whose scores go to eta. */
static slg_status evaluate(ordinal_fit *f, const double *theta, double *eta, double *value)
{
    SLG_TRY(ordinal_scores(f->m, theta, eta));
    *value = ordinal_value(f->m, eta) + penalty(f, theta);
    f->report.values++;
    return SLG_OK;
}

static slg_status derive(ordinal_fit *f)
{
    SLG_TRY(ordinal_gradient(f->m, f->m->eta, f->g));
    f->report.gradients++;
    f->report.grad_norm = violation(f);
    return SLG_OK;
}

/* What the model says that the whole step is worth, without its square. */
static double promise(const ordinal_fit *f)
{
    double sum = penalty(f, f->theta) - penalty(f, f->trial);
    for (int64_t i = 0; i < f->m->m * f->m->q; i++)
        sum -= f->g[i] * (f->trial[i] - f->theta[i]);
    return sum;
}

/* A step, halved while F does not fall. */
static slg_status step(ordinal_fit *f)
{
    const int64_t size = f->m->m * f->m->q;
    const double before = f->report.value;
    ordinal_weights(f->m, f->m->eta, SLG_GAUSS_NEWTON, false);
    SLG_TRY(ordinal_curvature(f->m));
    f->report.curvatures++;
    descend(f);
    const double hope = promise(f);
    double length = 1, square = 0, value;
    for (int32_t i = 0; i <= f->opts.max_halvings; i++, length /= 2) {
        if (i > 0)
            for (int64_t j = 0; j < size; j++)
                f->trial[j] = f->theta[j] + 0.5 * (f->trial[j] - f->theta[j]);
        SLG_TRY(evaluate(f, f->trial, f->eta, &value));
        if (!(value <= before)) continue;
        for (int64_t j = 0; j < size; j++)
            square += (f->trial[j] - f->theta[j]) * (f->trial[j] - f->theta[j]);
        memcpy(f->theta, f->trial, (size_t)size * sizeof *f->theta);
        memcpy(f->m->eta, f->eta, (size_t)(f->m->n * f->m->m) * sizeof *f->eta);
        f->report.value = value, f->report.step_norm = sqrt(square), f->report.radius = length;
        f->report.steps++;
        if (length == 1 && before - value <= f->opts.tolerance * fabs(before))
            f->report.reason = SLG_SOLVER_DECREASE;
        return derive(f);
    }
    /* No trial is better: where none could be, by rounding, this is the minimum. */
    f->report.reason =
        hope <= 1e-12 * fabs(before) ? SLG_SOLVER_DECREASE : SLG_SOLVER_EXHAUSTED;
    return SLG_OK;
}

slg_status ordinal_fit_run(ordinal_fit *f, double lambda)
{
    slg_ctx *ctx = f->m->ctx;
    f->report = (slg_solver_report){ .size = sizeof f->report };
    set_lambda(f, lambda);
    SLG_TRY(evaluate(f, f->theta, f->m->eta, &f->report.value));
    SLG_TRY(derive(f));
    while (f->report.reason == SLG_SOLVER_STEPPED) {
        const int64_t steps = f->report.steps;
        SLG_TRY(step(f));
        if (f->report.steps > steps && f->opts.progress) {
            const slg_solver_report now = f->report;
            outside_begin(ctx);
            const int32_t stop = f->opts.progress(f->opts.user, &now);
            SLG_TRY(outside_end(ctx, f->op, "progress", SLG_OK));
            if (stop) f->report.reason = SLG_SOLVER_CALLBACK;
        }
        if (f->report.reason == SLG_SOLVER_STEPPED && f->report.steps >= f->opts.max_steps)
            f->report.reason = SLG_SOLVER_STEPS;
    }
    return SLG_OK;
}

/* ---- Life, results ---------------------------------------------------------------------- */

slg_status ordinal_fit_open(ordinal_fit *f, ordinal_model *m, const char *op,
                            const slg_ordinal_opts *opts, const double *factor)
{
    *f = (ordinal_fit){ .m = m, .op = op, .opts = *opts, .factor = factor };
    m->proportional = opts->proportional != 0;
    SLG_TRY(ordinal_reserve(m, true));
    if (opts->standardize) ordinal_standardize(m);
    const int64_t size = m->m * m->q;
    f->memory = doubles_alloc(m->ctx, size, 5, m->n * m->m);
    if (!f->memory) return SLG_ERR_MEMORY;
    f->theta = f->memory, f->trial = f->theta + size, f->g = f->trial + size;
    f->r = f->g + size, f->weight = f->r + size, f->eta = f->weight + size;
    ordinal_start(m, f->theta);
    return SLG_OK;
}

void ordinal_fit_close(ordinal_fit *f)
{
    if (f->m) ctx_free(f->m->ctx, f->memory);
    f->memory = NULL;
}

double ordinal_fit_entry(ordinal_fit *f)
{
    double most = 0;
    for (int64_t l = 0; l < f->m->m; l++)
        for (int64_t j = 0; j < f->m->q; j++) {
            const double w = weight_of(f, l, j) * fmax(f->opts.mix, 0.01);
            if (w > 0 && isfinite(w)) most = fmax(most, fabs(f->g[l * f->m->q + j]) / w);
        }
    return most;
}

void ordinal_fit_result(const ordinal_fit *f, double *alpha, double *beta)
{
    const ordinal_model *m = f->m;
    const int64_t p = m->q - 1;
    for (int64_t l = 0; l < m->m; l++) {
        const double *psi = f->theta + l * m->q;
        alpha[l] = psi[p];
        for (int64_t j = 0; j < p; j++) {
            const double d = psi[j] / m->sd[j];
            alpha[l] -= m->mean[j] * d;
            beta[l * p + j] = d;
        }
    }
    ordinal_prefix(m->m, 1, alpha, alpha);
    ordinal_prefix(m->m, p, beta, beta);
}

int64_t ordinal_fit_nonzero(const ordinal_fit *f)
{
    int64_t count = 0;
    for (int64_t i = 0; i < f->m->m * f->m->q; i++)
        count += i % f->m->q != f->m->q - 1 && f->theta[i] != 0;
    return count;
}
