/*
 * sso_inner.c - steps on one surrogate. Where Z is linear in w and the surrogate quadratic, all
 * that is kept is its gradient R = G + (Z - Z_t) / eta: along w - s p it falls by s / eta J p,
 * and S by s <R, J p> - s^2 |J p|^2 / (2 eta), which neither costs a forward nor cancels.
 * Elsewhere S is evaluated at each trial. All is divided by the rows of the batch.
 */
#include <math.h>
#include <string.h>

#include "sso.h"

typedef struct inner {
    slg_sso *s;
    float *w;
    size_t dim, size;          /* of w, of Z */
    double rows, step, square; /* square: |d|^2 */
} inner;

/* Tells of S at a point; whether to stop there. */
static bool told(inner *i, double value)
{
    slg_sso_report *r = &i->s->report;
    r->value = value;
    if (!i->s->opts.progress) return false;
    const slg_sso_report now = *r;
    outside_begin(i->s->ctx);
    const int32_t stop = i->s->opts.progress(i->s->opts.user, &now);
    outside_end(i->s->ctx, "slg_sso_step", "progress", SLG_OK);
    if (stop) r->reason = SLG_SSO_CALLBACK;
    return stop != 0;
}

/* d at w from dz; false: the loop ends. */
static slg_status descend(inner *i, const float *dz, bool *go)
{
    slg_sso *s = i->s;
    double sums[3];
    SLG_TRY(sso_backward(s, i->w, dz, s->d));
    s->ctx->k.scale(i->dim, s->d, (float)(1 / i->rows), s->d);
    s->ctx->k.dots(i->dim, s->d, s->d, sums);
    i->square = sums[1];
    s->report.inner_norm = sqrt(i->square);
    *go = false;
    if (!isfinite(i->square))
        s->report.reason = SLG_SSO_NOT_FINITE;
    else if (s->report.inner_norm <= s->opts.grad_norm || i->square == 0)
        s->report.reason = SLG_SSO_GRADIENT;
    else
        *go = true;
    return SLG_OK;
}

static void stepped(inner *i, double step)
{
    i->step = i->s->report.inner_step = step;
    i->s->report.taken++, i->s->report.inner_steps++;
}

/* ---- Along a line ----------------------------------------------------------------------- */

/* S(w - s p) - S(w) = -s slope + s^2 curve / 2. */
typedef struct line {
    double slope, curve;
} line;

/* Whether a trial is accepted; the search's next one is s. */
static bool line_accepts(const inner *i, const line *l, double s)
{
    return s * l->curve / 2 <= l->slope - i->s->inner.c * i->square;
}

static bool line_search(inner *i, const line *l, double *step)
{
    const slg_armijo_opts *o = &i->s->inner;
    double s = fmin(o->expand * i->step, o->step_max);
    for (int32_t t = 0; t < o->max_trials && s >= o->step_min; t++, s *= o->shrink) {
        i->s->report.trials++;
        *step = s;
        if (line_accepts(i, l, s)) return true;
    }
    i->s->report.reason = SLG_SSO_EXHAUSTED;
    return false;
}

static bool line_step(inner *i, const line *l, double *step)
{
    const int32_t kind = i->s->opts.inner;
    *step = i->s->opts.step;
    if (kind == SLG_INNER_ARMIJO) return line_search(i, l, step);
    if (kind == SLG_INNER_FIXED) return true;
    *step = l->slope / l->curve;
    if (l->curve > 0 && *step > 0 && isfinite(*step)) return true;
    i->s->report.reason = SLG_SSO_GRADIENT; /* nothing to gain along p */
    return false;
}

/* The direction: d, or conjugate to those before. */
static const float *direction(inner *i, double before)
{
    slg_sso *s = i->s;
    if (s->opts.inner != SLG_INNER_CONJUGATE) return s->d;
    if (s->report.taken == 0)
        memcpy(s->to, s->d, i->dim * sizeof *s->to);
    else
        s->ctx->k.lincomb(i->dim, 1, s->d, i->square / before, s->to);
    return s->to;
}

static slg_status on_lines(inner *i)
{
    slg_sso *s = i->s;
    const kernel_table *k = &s->ctx->k;
    const double eta = s->report.eta;
    float *r = s->z, *q = s->from; /* R; J p: Z_t is not needed */
    double value = 0, before = 0, step;
    bool go;
    memcpy(r, s->g, i->size * sizeof *r);
    if (told(i, value)) return SLG_OK;
    while (s->report.taken < s->opts.inner_steps) {
        double sums[3];
        SLG_TRY(descend(i, r, &go));
        if (!go) return SLG_OK;
        const float *p = direction(i, before);
        before = i->square;
        SLG_TRY(sso_tangent(s, p, q));
        k->dots(i->size, r, q, sums);
        const line l = { sums[0] / i->rows, sums[2] / i->rows / eta };
        if (!line_step(i, &l, &step)) return SLG_OK;
        k->shifted(i->dim, i->w, p, step, i->w);
        k->shifted(i->size, r, q, step / eta, r);
        value += step * (step * l.curve / 2 - l.slope);
        stepped(i, step);
        if (!isfinite(value)) s->report.reason = SLG_SSO_NOT_FINITE;
        if (!isfinite(value) || told(i, value)) return SLG_OK;
        if (isinf(eta) && s->opts.inner == SLG_INNER_ARMIJO && step >= s->inner.step_max) {
            s->report.reason = SLG_SSO_UNBOUNDED;
            return SLG_OK;
        }
    }
    return SLG_OK;
}

/* ---- With a forward a trial ------------------------------------------------------------- */

/* S at z, and where grad its gradient over it. */
static slg_status surrogate_at(inner *i, bool grad, double *value)
{
    slg_sso *s = i->s;
    slg_tensor t[3];
    float *const data[3] = { s->g, s->from, s->z };
    for (int j = 0; j < 3; j++)
        t[j] = slg_tensor_2d(data[j], SLG_F32, s->report.batch, s->model.targets);
    slg_surrogate_opts o;
    slg_surrogate_out out;
    slg_surrogate_opts_init(&o, sizeof o);
    slg_surrogate_out_init(&out, sizeof out);
    o.kind = s->opts.surrogate, o.eta = s->report.eta;
    outside_begin(s->ctx);
    slg_status status =
        slg_surrogate(s->ctx, &t[0], &t[1], &t[2], &o, grad ? &t[2] : NULL, &out);
    SLG_TRY(outside_end(s->ctx, "slg_sso_step", "slg_surrogate", status));
    *value = out.value / i->rows;
    return SLG_OK;
}

/* w and z move on; false: no trial was accepted. */
static slg_status trial_search(inner *i, double *value, bool *found)
{
    slg_sso *s = i->s;
    const slg_armijo_opts *o = &s->inner;
    double step = fmin(o->expand * i->step, o->step_max), at;
    *found = false;
    for (int32_t t = 0; t < o->max_trials && step >= o->step_min; t++, step *= o->shrink) {
        s->report.trials++;
        s->ctx->k.shifted(i->dim, i->w, s->d, step, s->to);
        SLG_TRY(sso_forward(s, s->to, s->z));
        SLG_TRY(surrogate_at(i, false, &at));
        if (!(at <= *value - o->c * step * i->square)) continue;
        *found = true, *value = at;
        memcpy(i->w, s->to, i->dim * sizeof *i->w);
        stepped(i, step);
        return SLG_OK;
    }
    s->report.reason = SLG_SSO_EXHAUSTED;
    return SLG_OK;
}

static slg_status plain_step(inner *i)
{
    slg_sso *s = i->s;
    if (s->opts.inner == SLG_INNER_FIXED) {
        s->ctx->k.shifted(i->dim, i->w, s->d, s->opts.step, i->w);
    } else {
        const int64_t dim = (int64_t)i->dim;
        slg_tensor w = slg_tensor_1d(i->w, SLG_F32, dim), d = slg_tensor_1d(s->d, SLG_F32, dim);
        outside_begin(s->ctx);
        slg_status status = slg_optimizer_step(s->opts.optimizer, &w, &d);
        SLG_TRY(outside_end(s->ctx, "slg_sso_step", "slg_optimizer_step", status));
    }
    stepped(i, s->opts.inner == SLG_INNER_FIXED ? s->opts.step : 0);
    return SLG_OK;
}

/* At a point that is not w_t: Z where it is not at hand, S, and its gradient where a step
   follows. */
static slg_status arrive(inner *i, bool searched, bool last, double *value)
{
    slg_sso *s = i->s;
    if (last && searched) return SLG_OK;
    if (last && !s->opts.final_value) {
        *value = NAN;
        return SLG_OK;
    }
    if (!searched) SLG_TRY(sso_forward(s, i->w, s->z));
    return surrogate_at(i, !last, value);
}

static slg_status on_trials(inner *i)
{
    slg_sso *s = i->s;
    const bool searched = s->opts.inner == SLG_INNER_ARMIJO;
    double value = 0;
    bool go;
    memcpy(s->z, s->g, i->size * sizeof *s->z); /* the gradient at Z_t */
    for (;;) {
        const bool last = s->report.taken >= s->opts.inner_steps;
        if (s->report.taken > 0) SLG_TRY(arrive(i, searched, last, &value));
        if (!isfinite(value) && !(last && !searched && !s->opts.final_value)) {
            s->report.reason = SLG_SSO_NOT_FINITE;
            return SLG_OK;
        }
        if (!isnan(value) && told(i, value)) return SLG_OK;
        s->report.value = value;
        if (last) return SLG_OK;
        SLG_TRY(descend(i, s->z, &go));
        if (!go) return SLG_OK;
        if (searched)
            SLG_TRY(trial_search(i, &value, &go));
        else
            SLG_TRY(plain_step(i));
        if (!go) return SLG_OK;
        if (searched && isinf(s->report.eta) && i->step >= s->inner.step_max) {
            s->report.reason = SLG_SSO_UNBOUNDED;
            told(i, value);
            return SLG_OK;
        }
    }
}

slg_status sso_inner(slg_sso *s, float *w)
{
    inner i = { .s = s, .w = w, .step = s->opts.step, .rows = (double)s->report.batch };
    i.dim = (size_t)s->model.dim;
    i.size = (size_t)(s->report.batch * s->model.targets);
    s->report.reason = SLG_SSO_STEPS;
    const bool lines = s->model.tangent && s->opts.surrogate == SLG_SURROGATE_SQUARED &&
                       s->opts.inner != SLG_INNER_OPTIMIZER;
    SLG_TRY(lines ? on_lines(&i) : on_trials(&i));
    float bad = 0; /* w may be past float32 where S was not evaluated */
    for (size_t j = 0; j < i.dim; j++) bad += w[j] - w[j];
    if (bad != 0) s->report.reason = SLG_SSO_NOT_FINITE;
    return SLG_OK;
}
