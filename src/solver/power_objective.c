/*
 * power_objective.c - see softlogit/solver.h. Of the residuals it sees the callback alone.
 */
#include <math.h>

#include "core/blas.h"
#include "core/options.h"
#include "objective.h"

typedef struct power {
    slg_ctx *ctx;
    slg_residuals r;
    double p, *u, *j, *w, *ju; /* [n], [n, d], [n], [d]: J'u */
    double norm;               /* |u| */
    row_curvature c;
} power;

static const char op[] = "slg_power_objective";

static void release(void *user)
{
    power *m = user;
    slg_ctx *ctx = m->ctx;
    ctx_free(ctx, m->u), ctx_free(ctx, m);
}

/* u, |u|, and with `jacobian` J and J'u; fn runs outside of an op. */
static slg_status residuals(power *m, const double *x, bool jacobian)
{
    double top = 0, square = 0;
    SLG_TRY(m->r.fn(m->r.user, x, m->u, jacobian ? m->j : NULL));
    for (int64_t i = 0; i < m->r.rows; i++) top = fmax(top, fabs(m->u[i]));
    for (int64_t i = 0; i < m->r.rows && top > 0; i++) {
        const double v = m->u[i] / top;
        square += v * v;
    }
    m->norm = top * sqrt(square);
    if (!jacobian) return SLG_OK;
    op_begin(m->ctx, op);
    return op_end(m->ctx, blas_dgemv(m->ctx, true, m->r.rows, m->r.dim, m->j, m->r.dim, m->u,
                                     false, m->ju));
}

static slg_status value(void *user, const double *x, double *f, double *grad)
{
    power *m = user;
    SLG_TRY(residuals(m, x, grad != NULL));
    *f = pow(m->norm, m->p) / m->p;
    const double factor = pow(m->norm, m->p - 2); /* 1 for p = 2, whatever the norm */
    for (int64_t i = 0; i < m->r.dim && grad; i++) grad[i] = factor * m->ju[i];
    return SLG_OK;
}

/* (p - 2) |u|^(p - 4): 0 for p = 2, and at u = 0 where J'u is 0 as well. */
static double rank_factor(const power *m)
{
    return m->p == 2 || m->norm == 0 ? 0 : (m->p - 2) * pow(m->norm, m->p - 4);
}

static slg_status curve(power *m, int32_t which, int32_t form, double *scale, double *h)
{
    const bool fisher = which == SLG_FISHER;
    if ((!fisher && which != SLG_GAUSS_NEWTON) || (!fisher && form == SLG_FORM_RANK_ONE))
        return curvature_unsupported(m->ctx, which, form);
    if (form == SLG_FORM_RANK_ONE) {
        *scale = rank_factor(m);
        for (int64_t i = 0; i < m->r.dim; i++) h[i] = m->ju[i];
        return SLG_OK;
    }
    const double weight = fisher ? 0 : pow(m->norm, m->p - 2);
    for (int64_t i = 0; i < m->r.rows; i++) m->w[i] = weight;
    m->c = (row_curvature){ .ctx = m->ctx,
                            .n = m->r.rows,
                            .d = m->r.dim,
                            .a = m->j,
                            .w = m->w,
                            .extra = m->ju,
                            .extra_scale = rank_factor(m) };
    return row_curvature_form(&m->c, form, h);
}

static slg_status curvature(void *user, const double *x, int32_t which, int32_t form,
                            double *scale, double *h)
{
    power *m = user;
    SLG_TRY(residuals(m, x, true));
    op_begin(m->ctx, op);
    return op_end(m->ctx, curve(m, which, form, scale, h));
}

static slg_status product(void *user, const double *x, int32_t which, const double *v,
                          double *hv)
{
    power *m = user;
    (void)x, (void)which;
    op_begin(m->ctx, op);
    return op_end(m->ctx, row_curvature_product(&m->c, v, hv));
}

static slg_status open(power *m, const slg_residuals *u, double p)
{
    slg_ctx *ctx = m->ctx;
    if (!u) return slg_fail(ctx, SLG_ERR_NULL, "u is NULL");
    SLG_TRY(options_read(ctx, "u", u, &m->r, sizeof m->r));
    SLG_TRY(option_reserved(ctx, "u.reserved", m->r.reserved));
    if (!m->r.fn) return slg_fail(ctx, SLG_ERR_NULL, "u.fn is NULL");
    const int64_t n = m->r.rows, d = m->r.dim;
    if (n < 1 || d < 1 || n > INT32_MAX || d > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_RANGE, "u has %lld rows and %lld variables: at least 1",
                        (long long)n, (long long)d);
    if (!(p >= 2) || !isfinite(p))
        return slg_fail(ctx, SLG_ERR_RANGE, "power is %g, must be at least 2", p);
    m->p = p;
    m->u = doubles_alloc(ctx, n, d + 2, d);
    if (!m->u) return SLG_ERR_MEMORY;
    m->w = m->u + n, m->ju = m->w + n, m->j = m->ju + d;
    return SLG_OK;
}

slg_status slg_power_objective(slg_ctx *ctx, const slg_residuals *u, double p, slg_objective *o)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, op);
    slg_status status = objective_check(ctx, o);
    power *m = status ? NULL : ctx_alloc(ctx, sizeof *m);
    if (!m) return op_end(ctx, status ? status : SLG_ERR_MEMORY);
    *m = (power){ .ctx = ctx };
    status = open(m, u, p);
    if (status)
        release(m);
    else
        objective_write(o, &(slg_objective){ .dim = m->r.dim,
                                             .user = m,
                                             .value = value,
                                             .curvature = curvature,
                                             .product = product,
                                             .free = release });
    return op_end(ctx, status);
}
