/*
 * lbfgs.c - see softlogit/solver.h. State beside x and g: number of pairs, place of the next
 * one, and a ring of pairs s, y with s'y.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "solve.h"

static const slg_lbfgs_opts defaults = {
    .size = sizeof defaults, .memory = 10, .max_trials = 40, .c1 = 1e-4, .c2 = 0.9
};

/* Values that differ by less, relatively, say nothing. */
static const double noise = 1e-14;

void slg_lbfgs_opts_init(slg_lbfgs_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_solver *s, const void *given)
{
    slg_lbfgs_opts *o = &s->opts.lbfgs;
    *o = defaults;
    SLG_TRY(options_read(s->ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_range(s->ctx, "opts.memory", o->memory, 1, 1000));
    SLG_TRY(option_range(s->ctx, "opts.max_trials", o->max_trials, 1, 1000));
    SLG_TRY(option_reserved(s->ctx, "opts.reserved", o->reserved));
    if (!(o->c1 > 0 && o->c1 < 0.5 && o->c1 < o->c2 && o->c2 < 1))
        return slg_fail(s->ctx, SLG_ERR_RANGE,
                        "opts.c1 is %g and c2 %g: 0 < c1 < c2 < 1, c1 < 1/2", o->c1, o->c2);
    s->extra = 2 + (int64_t)o->memory * (2 * s->d + 1);
    s->metric = (norm_metric){ .d = s->d };
    return SLG_OK;
}

static slg_status norm(slg_solver *s)
{
    return metric_dual(s->ctx, &s->metric, s->g, s->w, &s->report.grad_norm);
}

typedef struct ring {
    double *count, *next, *sy, *pairs;
} ring;

static ring ring_of(slg_solver *s)
{
    double *e = s->state + 2 * s->d;
    return (ring){ e, e + 1, e + 2, e + 2 + s->opts.lbfgs.memory };
}

/* dx = -(approximate Hessian)^-1 g by the two loops; w is scratch. */
static void direction(slg_solver *s)
{
    const int64_t d = s->d, memory = s->opts.lbfgs.memory;
    ring r = ring_of(s);
    const int64_t count = (int64_t)*r.count, next = (int64_t)*r.next;
    double alpha[1000];
    for (int64_t i = 0; i < d; i++) s->dx[i] = -s->g[i];
    for (int64_t k = 1; k <= count; k++) {
        const int64_t at = (next - k + memory) % memory;
        const double *ps = r.pairs + at * 2 * d, *py = ps + d;
        alpha[k - 1] = vector_dot(d, ps, s->dx) / r.sy[at];
        for (int64_t i = 0; i < d; i++) s->dx[i] -= alpha[k - 1] * py[i];
    }
    if (count > 0) {
        const int64_t at = (next - 1 + memory) % memory;
        const double *py = r.pairs + at * 2 * d + d, scale = r.sy[at] / vector_dot(d, py, py);
        for (int64_t i = 0; i < d; i++) s->dx[i] *= scale;
    }
    for (int64_t k = count; k >= 1; k--) {
        const int64_t at = (next - k + memory) % memory;
        const double *ps = r.pairs + at * 2 * d, *py = ps + d;
        const double beta = vector_dot(d, py, s->dx) / r.sy[at];
        for (int64_t i = 0; i < d; i++) s->dx[i] += (alpha[k - 1] - beta) * ps[i];
    }
}

/* ---- Line search ------------------------------------------------------------------------ */

typedef struct point {
    double a, f, slope;
} point;

/* Where the cubic through both ends has its minimum, kept off the ends; where there is none,
   or an end is not finite, near `lo`. Values that differ by no more than `slack` say nothing:
   then where the slope is 0. */
static double between(point lo, point hi, double slack)
{
    const double width = hi.a - lo.a;
    if (!isfinite(hi.f) || !isfinite(hi.slope)) return lo.a + 0.1 * width;
    if (fabs(hi.f - lo.f) <= slack) {
        const double zero = lo.slope / (lo.slope - hi.slope);
        return lo.a + (zero >= 0.05 && zero <= 0.95 ? zero : 0.5) * width;
    }
    const double t = lo.slope + hi.slope - 3 * (hi.f - lo.f) / width;
    const double root = sqrt(fmax(t * t - lo.slope * hi.slope, 0)) * (width < 0 ? -1 : 1);
    const double part = (hi.slope + root - t) / (hi.slope - lo.slope + 2 * root);
    if (!isfinite(part)) return lo.a + 0.5 * width;
    return lo.a + fmin(fmax(1 - part, 0.05), 0.95) * width;
}

/* A step along dx under both conditions; *found false after max_trials. */
static slg_status search(slg_solver *s, double a, point *at, bool *found)
{
    const slg_lbfgs_opts *o = &s->opts.lbfgs;
    const point start = { 0, s->report.value, vector_dot(s->d, s->g, s->dx) };
    const double slack = fmax(noise, s->objective.noise) * fabs(start.f);
    point lo = start, hi = start;
    bool bracket = false;
    *found = false;
    for (int32_t trial = 0; trial < o->max_trials && !*found; trial++) {
        for (int64_t i = 0; i < s->d; i++) s->xt[i] = s->x[i] + a * s->dx[i];
        SLG_TRY(solver_try(s, &at->f));
        at->a = a, at->slope = vector_dot(s->d, s->gt, s->dx);
        const bool finite = isfinite(at->f) && vector_finite(s->d, s->gt);
        if (!finite) at->f = INFINITY;
        /* Where values say nothing slopes decide, as in Hager and Zhang's approximate
           condition; and a point is no end of the bracket for its value alone. */
        const bool flat = at->f <= start.f + slack,
                   decrease = at->f <= start.f + o->c1 * a * start.slope,
                   rounding = flat && at->slope <= (2 * o->c1 - 1) * start.slope;
        if (!finite || !(decrease || flat) || at->f > lo.f + slack)
            hi = *at, bracket = true;
        else if ((decrease || rounding) && fabs(at->slope) <= -o->c2 * start.slope)
            *found = true;
        else {
            if (at->slope * (bracket ? hi.a - lo.a : 1) >= 0) hi = lo, bracket = true;
            lo = *at;
        }
        a = bracket ? between(lo, hi, slack) : 4 * a;
    }
    return SLG_OK;
}

/* The pair of this step, from the trial that was accepted. */
static void remember(slg_solver *s)
{
    const int64_t d = s->d, memory = s->opts.lbfgs.memory;
    ring r = ring_of(s);
    const int64_t at = (int64_t)*r.next;
    double *ps = r.pairs + at * 2 * d, *py = ps + d, sy = 0, yy = 0;
    for (int64_t i = 0; i < d; i++) {
        const double v = s->xt[i] - s->x[i], y = s->gt[i] - s->g[i];
        sy += v * y, yy += y * y;
    }
    if (!(sy > DBL_EPSILON * yy) || !isfinite(yy)) return;
    for (int64_t i = 0; i < d; i++) ps[i] = s->xt[i] - s->x[i], py[i] = s->gt[i] - s->g[i];
    r.sy[at] = sy;
    *r.next = (double)((at + 1) % memory);
    *r.count = fmin(*r.count + 1, (double)memory);
}

static slg_status step(slg_solver *s)
{
    ring r = ring_of(s);
    const double count = *r.count;
    point at;
    bool found = false;
    direction(s);
    if (vector_dot(s->d, s->dx, s->g) < 0)
        SLG_TRY(search(s, count > 0 ? 1 : fmin(1, 1 / s->report.grad_norm), &at, &found));
    if (!found && count > 0) { /* the pairs mislead: once more, down the gradient */
        *r.count = 0;
        direction(s);
        slg_status status = search(s, fmin(1, 1 / s->report.grad_norm), &at, &found);
        if (!found) *r.count = count;
        SLG_TRY(status);
    }
    if (!found) {
        s->report.reason = SLG_SOLVER_EXHAUSTED;
        return SLG_OK;
    }
    remember(s);
    s->report.step_norm = at.a * metric_norm(&s->metric, s->dx);
    s->report.radius = at.a;
    solver_accept(s, at.f);
    return norm(s);
}

const method method_lbfgs = { .kind = SLG_LBFGS, .open = open, .step = step, .norm = norm };
