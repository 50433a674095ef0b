/*
 * regularized_step.c - (H + lambda B) dx = -g by the form of H, and slg_regularized_step.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "solve.h"
#include "softmax/parts.h"

static const char op[] = "slg_regularized_step";

static bool is_dense(int32_t form, const norm_metric *b)
{
    return form == SLG_FORM_DENSE || (form == SLG_FORM_DIAGONAL && b->form == SLG_FORM_DENSE);
}

int64_t step_work(int32_t form, const norm_metric *b)
{
    if (is_dense(form, b)) return b->d;
    return form == SLG_FORM_PRODUCT ? 4 : 1;
}

slg_status step_check(const step_problem *s)
{
    const int64_t d = s->b->d;
    bool finite = true;
    if (s->form == SLG_FORM_DENSE)
        for (int64_t i = 0; i < d && finite; i++)
            finite = vector_finite(d - i, s->h + i * d + i);
    if (s->form == SLG_FORM_DIAGONAL || s->form == SLG_FORM_RANK_ONE)
        finite = vector_finite(d, s->h);
    if (s->form == SLG_FORM_RANK_ONE) finite = finite && isfinite(s->scale);
    return finite ? SLG_OK : slg_fail(s->ctx, SLG_ERR_RANGE, "curvature is not finite");
}

static slg_status solve_dense(const step_problem *s, double lambda, double *dx, bool *solved)
{
    const int64_t d = s->b->d;
    double *k = s->work;
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = i; j < d; j++) {
            double v = 0;
            if (s->form == SLG_FORM_DENSE) v = s->h[i * d + j];
            if (s->form == SLG_FORM_DIAGONAL && i == j) v = s->h[i];
            if (s->b->form == SLG_FORM_DENSE)
                v += lambda * s->b->b[i * d + j];
            else if (i == j)
                v += lambda * (s->b->b ? s->b->b[i] : 1);
            k[i * d + j] = v;
        }
    SLG_TRY(blas_dpotrf(s->ctx, d, k, solved, NULL));
    if (!*solved) return SLG_OK;
    for (int64_t i = 0; i < d; i++) dx[i] = -s->g[i];
    return blas_dpotrs(s->ctx, d, k, 1, dx);
}

static bool solve_diagonal(const step_problem *s, double lambda, double *dx)
{
    for (int64_t i = 0; i < s->b->d; i++) {
        const double k = s->h[i] + lambda * (s->b->b ? s->b->b[i] : 1);
        if (!(k > 0)) return false;
        dx[i] = -s->g[i] / k;
    }
    return true;
}

/* B^-1 g = part v + the rest, v = B^-1 u, u'rest = 0: H acts on the first alone. Where g is
   along u the rest is rounding, and lambda may be too small to let it pass. */
static slg_status solve_rank_one(const step_problem *s, double lambda, double *dx, bool *solved)
{
    const int64_t d = s->b->d;
    double *v = s->work, norm;
    SLG_TRY(metric_dual(s->ctx, s->b, s->h, v, &norm));
    const double square = norm * norm,
                 part = square > 0 ? vector_dot(d, s->h, s->w) / square : 0;
    const double k = lambda + s->scale * square;
    *solved = k > 0 && s->scale >= 0;
    for (int64_t i = 0; i < d && *solved; i++) {
        double rest = s->w[i] - part * v[i];
        if (fabs(rest) <= 16 * DBL_EPSILON * fabs(s->w[i])) rest = 0;
        dx[i] = -(rest / lambda + part * v[i] / k);
    }
    return SLG_OK;
}

/* Conjugate gradients, preconditioned by B; |dx| grows from 0 to the solution's. */
static slg_status solve_product(const step_problem *s, double lambda, double *dx, bool *solved,
                                int64_t *products)
{
    const int64_t d = s->b->d;
    double *r = s->work, *z = r + d, *p = z + d, *q = p + d, norm, first = 0, rz;
    for (int64_t i = 0; i < d; i++) r[i] = -s->g[i], dx[i] = 0;
    SLG_TRY(metric_dual(s->ctx, s->b, r, z, &norm));
    memcpy(p, z, (size_t)d * sizeof *p);
    first = norm;
    for (int64_t k = 0; k < s->max_products && norm > s->tolerance * first; k++) {
        outside_begin(s->ctx);
        slg_status status = s->product(s->user, p, q);
        SLG_TRY(outside_end(s->ctx, s->op, "objective.product", status));
        (*products)++;
        if (!vector_finite(d, q))
            return slg_fail(s->ctx, SLG_ERR_RANGE, "curvature is not finite");
        for (int64_t i = 0; i < d; i++) {
            if (s->b->form != SLG_FORM_DENSE) {
                q[i] += lambda * (s->b->b ? s->b->b[i] : 1) * p[i];
                continue;
            }
            q[i] += lambda * vector_dot(d, s->b->b + i * d, p);
        }
        const double curve = vector_dot(d, p, q);
        *solved = curve > 0;
        if (!*solved) return SLG_OK;
        rz = norm * norm;
        for (int64_t i = 0; i < d; i++) {
            dx[i] += rz / curve * p[i];
            r[i] -= rz / curve * q[i];
        }
        SLG_TRY(metric_dual(s->ctx, s->b, r, z, &norm));
        const double beta = norm * norm / rz;
        for (int64_t i = 0; i < d; i++) p[i] = z[i] + beta * p[i];
    }
    return SLG_OK;
}

slg_status step_solve(const step_problem *s, double lambda, double *dx, bool *solved,
                      int64_t *products)
{
    *solved = true;
    if (s->form == SLG_FORM_PRODUCT)
        SLG_TRY(solve_product(s, lambda, dx, solved, products));
    else if (is_dense(s->form, s->b))
        SLG_TRY(solve_dense(s, lambda, dx, solved));
    else if (s->form == SLG_FORM_RANK_ONE)
        SLG_TRY(solve_rank_one(s, lambda, dx, solved));
    else if (s->form == SLG_FORM_DIAGONAL)
        *solved = solve_diagonal(s, lambda, dx);
    else
        for (int64_t i = 0; i < s->b->d; i++) dx[i] = -s->w[i] / lambda;
    *solved = *solved && vector_finite(s->b->d, dx);
    return SLG_OK;
}

/* ---- slg_regularized_step --------------------------------------------------------------- */

static const slg_step_opts defaults = { .size = sizeof defaults,
                                        .form = SLG_FORM_DENSE,
                                        .max_products = 1000,
                                        .scale = 1,
                                        .tolerance = 1e-6 };

void slg_step_opts_init(slg_step_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct step_call {
    step_problem s;
    slg_step_opts opts;
    slg_step_out out;
    norm_metric b;
    double *memory, *dx;
} step_call;

static slg_status read_opts(slg_ctx *ctx, const slg_step_opts *given, slg_step_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "opts.form", o->form, SLG_FORM_ZERO, SLG_FORM_PRODUCT));
    SLG_TRY(option_range(ctx, "opts.max_products", o->max_products, 1, INT32_MAX));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(option_least(ctx, "opts.scale", o->scale, 0));
    if (!(o->tolerance > 0 && o->tolerance < 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "opts.tolerance is %g, must be between 0 and 1",
                        o->tolerance);
    if (o->form == SLG_FORM_PRODUCT && !o->product)
        return slg_fail(ctx, SLG_ERR_NULL, "opts.product is NULL");
    return SLG_OK;
}

static slg_status check_step(step_call *c, const slg_tensor *h, const slg_tensor *g,
                             double gamma, slg_tensor *dx)
{
    slg_ctx *ctx = c->s.ctx;
    const int64_t shape[2] = { g->shape[0], g->shape[0] };
    const bool needs = c->opts.form != SLG_FORM_ZERO && c->opts.form != SLG_FORM_PRODUCT;
    if (!(gamma > 0) || !isfinite(gamma))
        return slg_fail(ctx, SLG_ERR_RANGE, "gamma is %g, must be above 0", gamma);
    if (shape[0] < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "g is empty");
    SLG_TRY(tensor_out(ctx, "dx", dx, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "dx", dx, 1, shape));
    if (needs) {
        const int32_t axes = c->opts.form == SLG_FORM_DENSE ? 2 : 1;
        SLG_TRY(tensor_in(ctx, "h", h, DT_F32 | DT_F64, axes, axes));
        SLG_TRY(tensor_shape_is(ctx, "h", h, axes, shape));
    }
    if (tensor_clash(dx, g) || (needs && outputs_clash(dx, h)))
        return slg_fail(ctx, SLG_ERR_STRIDE, "dx overlaps an input");
    return SLG_OK;
}

static slg_status run_step(step_call *c, const slg_tensor *h, const slg_tensor *g, double gamma,
                           const slg_tensor *metric, const slg_step_opts *opts, slg_tensor *dx,
                           slg_step_out *out)
{
    slg_ctx *ctx = c->s.ctx;
    size_t size;
    SLG_TRY(read_opts(ctx, opts, &c->opts));
    if (out) SLG_TRY(options_size(ctx, "out", out, &size));
    SLG_TRY(tensor_in(ctx, "g", g, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(check_step(c, h, g, gamma, dx));
    const int64_t d = g->shape[0];
    const bool needs = c->opts.form != SLG_FORM_ZERO && c->opts.form != SLG_FORM_PRODUCT;
    SLG_TRY(metric_open(ctx, metric, d, &c->b));
    const int64_t part = c->opts.form == SLG_FORM_DENSE ? d : 1;
    c->memory = doubles_alloc(ctx, d, 3 + part + step_work(c->opts.form, &c->b), 0);
    if (!c->memory) return SLG_ERR_MEMORY;
    double *vg = c->memory, *w = vg + d;
    c->dx = w + d;
    step_problem *s = &c->s;
    *s = (step_problem){ ctx,
                         op,
                         c->opts.form,
                         c->dx + d,
                         c->opts.scale,
                         c->opts.product,
                         c->opts.user,
                         c->opts.tolerance,
                         c->opts.max_products,
                         &c->b,
                         vg,
                         w,
                         c->dx + d + d * part };
    flat_read(g, vg);
    if (!vector_finite(d, vg)) return slg_fail(ctx, SLG_ERR_RANGE, "g is not finite");
    double norm;
    SLG_TRY(metric_dual(ctx, &c->b, vg, w, &norm));
    memset(c->dx, 0, (size_t)d * sizeof(double));
    bool solved = true;
    if (norm > 0) {
        if (needs) flat_read(h, s->h);
        SLG_TRY(step_check(s));
        SLG_TRY(step_solve(s, norm / gamma, c->dx, &solved, &c->out.products));
    }
    if (!solved && !out)
        return slg_fail(ctx, SLG_ERR_RANGE, "h + lambda metric is not positive definite");
    c->out.solved = solved, c->out.lambda = norm / gamma;
    c->out.norm = solved ? metric_norm(&c->b, c->dx) : 0;
    if (solved) flat_write(dx, c->dx);
    if (out) options_write(out, &c->out, sizeof c->out);
    return SLG_OK;
}

slg_status slg_regularized_step(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *g,
                                double gamma, const slg_tensor *metric,
                                const slg_step_opts *opts, slg_tensor *dx, slg_step_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    step_call c = { .s = { .ctx = ctx }, .out = { .size = sizeof c.out } };
    op_begin(ctx, op);
    slg_status status = run_step(&c, h, g, gamma, metric, opts, dx, out);
    metric_close(ctx, &c.b);
    ctx_free(ctx, c.memory);
    return op_end(ctx, status);
}
