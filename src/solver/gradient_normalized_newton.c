/*
 * gradient_normalized_newton.c - see softlogit/solver.h: a radius gamma, halved until the step
 * decreases f enough, doubled after. H is kept over the trials of a step.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "solve.h"

static const slg_normalized_newton_opts defaults = { .size = sizeof defaults,
                                                     .which = SLG_HESSIAN,
                                                     .form = SLG_FORM_DENSE,
                                                     .max_trials = 40,
                                                     .max_products = 1000,
                                                     .gamma0 = 1,
                                                     .gamma_min = 1e-9,
                                                     .growth = 2,
                                                     .shrink = 0.5,
                                                     .decrease = 8,
                                                     .tolerance = 1e-6 };

void slg_normalized_newton_opts_init(slg_normalized_newton_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status above(slg_ctx *ctx, const char *name, double value, double low, double high)
{
    if (value > low && value < high) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "%s is %g, must be above %g and below %g", name, value,
                    low, high);
}

static slg_status check(slg_ctx *ctx, const slg_normalized_newton_opts *o)
{
    SLG_TRY(option_choice(ctx, "opts.which", o->which, SLG_HESSIAN, SLG_FISHER));
    SLG_TRY(option_choice(ctx, "opts.form", o->form, SLG_FORM_ZERO, SLG_FORM_PRODUCT));
    SLG_TRY(option_range(ctx, "opts.max_trials", o->max_trials, 1, 1000));
    SLG_TRY(option_range(ctx, "opts.max_products", o->max_products, 1, INT32_MAX));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(above(ctx, "opts.gamma0", o->gamma0, 0, INFINITY));
    SLG_TRY(above(ctx, "opts.gamma_min", o->gamma_min, 0, INFINITY));
    SLG_TRY(option_least(ctx, "opts.growth", o->growth, 1));
    SLG_TRY(above(ctx, "opts.shrink", o->shrink, 0, 1));
    SLG_TRY(above(ctx, "opts.decrease", o->decrease, 0, INFINITY));
    return above(ctx, "opts.tolerance", o->tolerance, 0, 1);
}

static slg_status open(slg_solver *s, const void *given)
{
    slg_ctx *ctx = s->ctx;
    slg_normalized_newton_opts *o = &s->opts.newton;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(check(ctx, o));
    if (o->form != SLG_FORM_ZERO && !s->objective.curvature)
        return slg_fail(ctx, SLG_ERR_NULL, "objective.curvature is NULL");
    if (o->form == SLG_FORM_PRODUCT && !s->objective.product)
        return slg_fail(ctx, SLG_ERR_NULL, "objective.product is NULL");
    SLG_TRY(metric_open(ctx, o->metric, s->d, &s->metric));
    o->metric = NULL; /* copied */
    const int64_t part = o->form == SLG_FORM_DENSE ? s->d : 1;
    s->h = doubles_alloc(ctx, s->d, part + step_work(o->form, &s->metric), 0);
    if (!s->h) return SLG_ERR_MEMORY;
    s->work = s->h + s->d * part;
    s->report.radius = o->gamma0;
    return SLG_OK;
}

static slg_status norm(slg_solver *s)
{
    return metric_dual(s->ctx, &s->metric, s->g, s->w, &s->report.grad_norm);
}

static slg_status multiply(void *user, const double *v, double *hv)
{
    slg_solver *s = user;
    return s->objective.product(s->objective.user, s->x, s->opts.newton.which, v, hv);
}

static slg_status prepare(slg_solver *s, step_problem *p)
{
    const slg_normalized_newton_opts *o = &s->opts.newton;
    *p = (step_problem){ s->ctx,       s->op,           o->form,    s->h, 0,    multiply, s,
                         o->tolerance, o->max_products, &s->metric, s->g, s->w, s->work };
    double scale = 0;
    if (o->form == SLG_FORM_ZERO) return SLG_OK;
    outside_begin(s->ctx);
    slg_status status =
        s->objective.curvature(s->objective.user, s->x, o->which, o->form, &scale,
                               o->form == SLG_FORM_PRODUCT ? NULL : s->h);
    SLG_TRY(outside_end(s->ctx, s->op, "objective.curvature", status));
    s->report.curvatures++;
    p->scale = scale;
    return step_check(p);
}

static slg_status step(slg_solver *s)
{
    const slg_normalized_newton_opts *o = &s->opts.newton;
    step_problem p;
    double gamma = s->report.radius;
    SLG_TRY(norm(s)); /* w as well, which an import does not bring */
    SLG_TRY(prepare(s, &p));
    for (int32_t trial = 0; trial < o->max_trials; trial++, gamma *= o->shrink) {
        const double lambda = s->report.grad_norm / gamma;
        double value, next;
        bool solved;
        s->report.solves++;
        SLG_TRY(step_solve(&p, lambda, s->dx, &solved, &s->report.products));
        if (!solved) continue;
        for (int64_t i = 0; i < s->d; i++) s->xt[i] = s->x[i] + s->dx[i];
        SLG_TRY(solver_try(s, &value));
        if (!isfinite(value) || !vector_finite(s->d, s->gt)) continue;
        SLG_TRY(metric_dual(s->ctx, &s->metric, s->gt, s->wt, &next));
        if (!(s->report.value - value >= next * next / (o->decrease * lambda))) continue;
        s->report.step_norm = metric_norm(&s->metric, s->dx);
        s->report.lambda = lambda;
        s->report.radius = fmax(o->growth * gamma, o->gamma_min);
        solver_accept(s, value);
        return norm(s);
    }
    s->report.reason = SLG_SOLVER_EXHAUSTED;
    return SLG_OK;
}

const method method_normalized_newton = {
    .kind = SLG_NORMALIZED_NEWTON, .open = open, .step = step, .norm = norm
};
