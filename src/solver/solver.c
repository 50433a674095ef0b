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
    if (s->m->evaluate) return s->m->evaluate(s, value);
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

static slg_status create(slg_solver *s, const slg_objective *objective, const slg_tensor *x0,
                         const void *opts)
{
    slg_ctx *ctx = s->ctx;
    if (!s->m->evaluate) {
        SLG_TRY(objective_read(ctx, objective, &s->objective));
        s->d = s->objective.dim;
        SLG_TRY(flat_check(ctx, "x0", x0, s->d, false));
    }
    SLG_TRY(s->m->open(s, opts));
    if (x0) SLG_TRY(flat_check(ctx, "x0", x0, s->d, false));
    const size_t d = (size_t)s->d;
    s->state = doubles_alloc(ctx, s->d, 7, s->extra);
    if (!s->state) return SLG_ERR_MEMORY;
    memset(s->state, 0, (7 * d + (size_t)s->extra) * sizeof *s->state);
    s->x = s->state, s->g = s->x + d;
    s->dx = s->g + d + s->extra, s->w = s->dx + d, s->wt = s->w + d;
    s->gt = s->wt + d, s->xt = s->gt + d;
    if (x0) flat_read(x0, s->xt);
    double value;
    SLG_TRY(solver_try(s, &value));
    if (!isfinite(value) || !vector_finite(s->d, s->gt))
        return slg_fail(ctx, SLG_ERR_RANGE, "value (%g) or gradient at x0 is not finite",
                        value);
    solver_accept(s, value);
    s->report.steps = 0;
    return s->m->norm(s);
}

slg_status solver_create(slg_ctx *ctx, const char *op, const method *m,
                         const slg_objective *objective, const slg_tensor *x0, const void *opts,
                         slg_solver **out)
{
    if (!ctx || !out) return SLG_ERR_NULL;
    *out = NULL;
    op_begin(ctx, op);
    slg_solver *s = ctx_alloc(ctx, sizeof *s);
    if (!s) return op_end(ctx, SLG_ERR_MEMORY);
    *s = (slg_solver){ .ctx = ctx, .m = m, .op = op };
    s->report.size = sizeof s->report;
    slg_status status = create(s, objective, x0, opts);
    if (status)
        slg_solver_free(s);
    else
        *out = s;
    return op_end(ctx, status);
}

slg_status slg_solver_create(slg_ctx *ctx, int32_t kind, const slg_objective *objective,
                             const slg_tensor *x0, const void *opts, slg_solver **out)
{
    static const char op[] = "slg_solver_create";
    const method *m = method_of(kind);
    if (m || !ctx || !out) return solver_create(ctx, op, m, objective, x0, opts, out);
    *out = NULL;
    op_begin(ctx, op);
    return op_end(ctx,
                  slg_fail(ctx, SLG_ERR_RANGE, "kind is %d, there is no such solver", kind));
}

void slg_solver_free(slg_solver *s)
{
    if (!s) return;
    slg_ctx *ctx = s->ctx;
    if (s->m->close) s->m->close(s);
    metric_close(ctx, &s->metric);
    ctx_free(ctx, s->h), ctx_free(ctx, s->state), ctx_free(ctx, s);
}

/* ---- Steps ------------------------------------------------------------------------------ */

/* Why no step is to be taken from x, or SLG_SOLVER_STEPPED. */
static int32_t rest(slg_solver *s, double grad_norm)
{
    if (s->m->rest) return s->m->rest(s);
    return s->report.grad_norm <= grad_norm ? SLG_SOLVER_GRADIENT : SLG_SOLVER_STEPPED;
}

static slg_status one_step(slg_solver *s)
{
    s->report.reason = rest(s, 0);
    return s->report.reason == SLG_SOLVER_STEPPED ? s->m->step(s) : SLG_OK;
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
    if (*reason == SLG_SOLVER_EXHAUSTED || *reason == SLG_SOLVER_NOT_FINITE) return true;
    const int32_t at_rest = rest(s, o->grad_norm);
    if (at_rest != SLG_SOLVER_STEPPED)
        *reason = at_rest;
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
