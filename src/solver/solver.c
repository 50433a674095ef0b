/*
 * solver.c - the handle: an objective, a method and its state. Callbacks run outside of the op,
 * so they may use the solver's context; so nothing here is in the arena.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "solve.h"

static const slg_solver_run_opts run_defaults = {
    .size = sizeof run_defaults, .steps = 1000, .grad_norm = 1e-6, .value = -INFINITY
};

void slg_solver_run_opts_init(slg_solver_run_opts *opts, size_t size)
{
    options_init(opts, size, &run_defaults, sizeof run_defaults);
}

/* ---- For methods ------------------------------------------------------------------------ */

slg_status solver_try(slg_solver *s, double *value)
{
    outside_begin(s->ctx);
    slg_status status = s->objective.value(s->objective.user, s->xt, value, s->gt);
    SLG_TRY(outside_end(s->ctx, s->op, "objective.value", status));
    s->report.values++, s->report.gradients++;
    return SLG_OK;
}

void solver_accept(slg_solver *s, double value)
{
    memcpy(s->x, s->xt, (size_t)s->d * sizeof *s->x);
    memcpy(s->g, s->gt, (size_t)s->d * sizeof *s->g);
    s->report.value = value;
    s->report.steps++;
}

/* ---- Life ------------------------------------------------------------------------------- */

static const method *method_of(int32_t kind)
{
    static const method *const all[] = { &method_normalized_newton, &method_lbfgs };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->kind == kind) return all[i];
    return NULL;
}

static slg_status create(slg_solver *s, int32_t kind, const slg_objective *objective,
                         const slg_tensor *x0, const void *opts)
{
    slg_ctx *ctx = s->ctx;
    s->m = method_of(kind);
    if (!s->m) return slg_fail(ctx, SLG_ERR_RANGE, "kind is %d, there is no such solver", kind);
    SLG_TRY(objective_read(ctx, objective, &s->objective));
    s->d = s->objective.dim;
    SLG_TRY(flat_check(ctx, "x0", x0, s->d, false));
    SLG_TRY(s->m->open(s, opts));
    const size_t d = (size_t)s->d;
    s->state = doubles_alloc(ctx, s->d, 7, s->extra);
    if (!s->state) return SLG_ERR_MEMORY;
    memset(s->state, 0, (7 * d + (size_t)s->extra) * sizeof *s->state);
    s->x = s->state, s->g = s->x + d;
    s->dx = s->g + d + s->extra, s->w = s->dx + d, s->wt = s->w + d;
    s->gt = s->wt + d, s->xt = s->gt + d;
    flat_read(x0, s->xt);
    double value;
    SLG_TRY(solver_try(s, &value));
    if (!isfinite(value) || !vector_finite(s->d, s->gt))
        return slg_fail(ctx, SLG_ERR_RANGE, "value (%g) or gradient at x0 is not finite",
                        value);
    solver_accept(s, value);
    s->report.steps = 0;
    return s->m->norm(s);
}

slg_status slg_solver_create(slg_ctx *ctx, int32_t kind, const slg_objective *objective,
                             const slg_tensor *x0, const void *opts, slg_solver **out)
{
    if (!ctx || !out) return SLG_ERR_NULL;
    *out = NULL;
    op_begin(ctx, "slg_solver_create");
    slg_solver *s = ctx_alloc(ctx, sizeof *s);
    if (!s) return op_end(ctx, SLG_ERR_MEMORY);
    *s = (slg_solver){ .ctx = ctx, .op = "slg_solver_create" };
    s->report.size = sizeof s->report;
    slg_status status = create(s, kind, objective, x0, opts);
    if (status)
        slg_solver_free(s);
    else
        *out = s;
    return op_end(ctx, status);
}

void slg_solver_free(slg_solver *s)
{
    if (!s) return;
    slg_ctx *ctx = s->ctx;
    metric_close(ctx, &s->metric);
    ctx_free(ctx, s->h), ctx_free(ctx, s->state), ctx_free(ctx, s);
}

/* ---- Steps ------------------------------------------------------------------------------ */

static slg_status one_step(slg_solver *s)
{
    s->report.reason = SLG_SOLVER_STEPPED;
    if (s->report.grad_norm > 0) return s->m->step(s);
    s->report.reason = SLG_SOLVER_GRADIENT;
    return SLG_OK;
}

static slg_status report_check(slg_solver *s, slg_solver_report *report)
{
    size_t size;
    return report ? options_size(s->ctx, "report", report, &size) : SLG_OK;
}

slg_status slg_solver_step(slg_solver *s, slg_solver_report *report)
{
    if (!s) return SLG_ERR_NULL;
    s->op = "slg_solver_step";
    op_begin(s->ctx, s->op);
    slg_status status = report_check(s, report);
    if (status == SLG_OK) status = one_step(s);
    if (status == SLG_OK && report) options_write(report, &s->report, sizeof s->report);
    return op_end(s->ctx, status);
}

static bool done(slg_solver *s, const slg_solver_run_opts *o, int64_t steps)
{
    int32_t *reason = &s->report.reason;
    if (*reason == SLG_SOLVER_EXHAUSTED) return true;
    if (s->report.grad_norm <= o->grad_norm)
        *reason = SLG_SOLVER_GRADIENT;
    else if (s->report.value <= o->value)
        *reason = SLG_SOLVER_VALUE;
    else if (*reason != SLG_SOLVER_CALLBACK && steps >= o->steps)
        *reason = SLG_SOLVER_STEPS;
    return *reason != SLG_SOLVER_STEPPED;
}

static slg_status run(slg_solver *s, const slg_solver_run_opts *given)
{
    slg_ctx *ctx = s->ctx;
    slg_solver_run_opts o = run_defaults;
    SLG_TRY(options_read(ctx, "opts", given, &o, sizeof o));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o.reserved));
    if (o.steps < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "opts.steps is %lld, must be at least 0",
                        (long long)o.steps);
    SLG_TRY(option_least(ctx, "opts.grad_norm", o.grad_norm, 0));
    if (isnan(o.value)) return slg_fail(ctx, SLG_ERR_RANGE, "opts.value is NaN");
    s->report.reason = SLG_SOLVER_STEPPED;
    for (int64_t steps = 0; !done(s, &o, steps); steps++) {
        SLG_TRY(one_step(s));
        if (s->report.reason != SLG_SOLVER_STEPPED || !o.progress) continue;
        const slg_solver_report now = s->report; /* the callback's own copy */
        outside_begin(ctx);
        const int32_t stop = o.progress(o.user, &now);
        SLG_TRY(outside_end(ctx, s->op, "progress", SLG_OK));
        if (stop) s->report.reason = SLG_SOLVER_CALLBACK;
    }
    return SLG_OK;
}

slg_status slg_solver_run(slg_solver *s, const slg_solver_run_opts *opts,
                          slg_solver_report *report)
{
    if (!s) return SLG_ERR_NULL;
    s->op = "slg_solver_run";
    op_begin(s->ctx, s->op);
    slg_status status = report_check(s, report);
    if (status == SLG_OK) status = run(s, opts);
    if (status == SLG_OK && report) options_write(report, &s->report, sizeof s->report);
    return op_end(s->ctx, status);
}
