/*
 * power_objective.c - see softlogit/solver.h. Of the residuals it sees the callback alone.
 */
#include <math.h>

#include "core/blas.h"
#include "core/options.h"
#include "objective.h"

typedef struct power {
    built_in is;
    slg_residuals r;
    row_data j;            /* [n, d] */
    double p, *u, *w, *ju; /* [n], [n], [d]: J'u */
    double norm;           /* |u| */
    row_curvature c;
} power;

static void release(void *user)
{
    power *m = user;
    ctx_free(m->is.ctx, m->u);
}

/* u, |u|, and with `jacobian` J and J'u; fn runs outside of an op. */
static slg_status residuals(power *m, const double *x, bool jacobian)
{
    double top = 0, square = 0;
    SLG_TRY(m->r.fn(m->r.user, x, m->u, jacobian ? m->j.x : NULL));
    for (int64_t i = 0; i < m->r.rows; i++) top = fmax(top, fabs(m->u[i]));
    for (int64_t i = 0; i < m->r.rows && top > 0; i++) {
        const double v = m->u[i] / top;
        square += v * v;
    }
    m->norm = top * sqrt(square);
    if (!jacobian) return SLG_OK;
    op_begin(m->is.ctx, m->is.kind->op);
    return op_end(m->is.ctx, blas_dgemv(m->is.ctx, true, m->r.rows, m->r.dim, m->j.x, m->r.dim,
                                        m->u, false, m->ju));
}

static slg_status forward(void *user, const double *x, double *f, double *grad)
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

static slg_status form_of(power *m, int32_t which, int32_t form, double *scale, double *h)
{
    const bool fisher = which == SLG_FISHER;
    if ((!fisher && which != SLG_GAUSS_NEWTON) || (!fisher && form == SLG_FORM_RANK_ONE))
        return curvature_unsupported(m->is.ctx, which, form);
    if (form == SLG_FORM_RANK_ONE) {
        *scale = rank_factor(m);
        for (int64_t i = 0; i < m->r.dim; i++) h[i] = m->ju[i];
        return SLG_OK;
    }
    const double weight = fisher ? 0 : pow(m->norm, m->p - 2);
    for (int64_t i = 0; i < m->r.rows; i++) m->w[i] = weight;
    m->c = (row_curvature){
        .ctx = m->is.ctx, .a = &m->j, .w = m->w, .extra = m->ju, .extra_scale = rank_factor(m)
    };
    return row_curvature_form(&m->c, form, h);
}

static slg_status curve(void *user, const double *x, int32_t which, int32_t form, double *scale,
                        double *h)
{
    power *m = user;
    SLG_TRY(residuals(m, x, true));
    op_begin(m->is.ctx, m->is.kind->op);
    return op_end(m->is.ctx, form_of(m, which, form, scale, h));
}

static slg_status multiply(void *user, const double *x, int32_t which, const double *v,
                           double *hv)
{
    const power *m = user;
    (void)x, (void)which;
    op_begin(m->is.ctx, m->is.kind->op);
    return op_end(m->is.ctx, row_curvature_product(&m->c, v, hv));
}

typedef struct arguments {
    const slg_residuals *u;
    double p;
} arguments;

static slg_status open(void *user, const void *given)
{
    power *m = user;
    const arguments *g = given;
    slg_ctx *ctx = m->is.ctx;
    if (!g->u) return slg_fail(ctx, SLG_ERR_NULL, "u is NULL");
    SLG_TRY(options_read(ctx, "u", g->u, &m->r, sizeof m->r));
    SLG_TRY(option_reserved(ctx, "u.reserved", m->r.reserved));
    if (!m->r.fn) return slg_fail(ctx, SLG_ERR_NULL, "u.fn is NULL");
    const int64_t n = m->r.rows, d = m->r.dim;
    if (n < 1 || d < 1 || n > INT32_MAX || d > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_RANGE, "u has %lld rows and %lld variables: at least 1",
                        (long long)n, (long long)d);
    if (!(g->p >= 2) || !isfinite(g->p))
        return slg_fail(ctx, SLG_ERR_RANGE, "power is %g, must be at least 2", g->p);
    m->p = g->p;
    m->u = doubles_alloc(ctx, n, d + 2, d);
    if (!m->u) return SLG_ERR_MEMORY;
    m->w = m->u + n, m->ju = m->w + n;
    m->j = (row_data){ .n = n, .d = d, .ld = d, .dtype = SLG_F64, .x = m->ju + d };
    m->is.dim = d;
    return SLG_OK;
}

/* Residuals are the caller's, who may use the context. */
static const objective_kind kind = {
    "slg_power_objective", sizeof(power), true, open, release, forward, curve, multiply
};

slg_status slg_power_objective(slg_ctx *ctx, const slg_residuals *u, double p, slg_objective *o)
{
    return objective_make(ctx, &kind, &(arguments){ u, p }, o);
}
