/*
 * logsumexp_objective.c - see softlogit/solver.h. The Hessian is a covariance of rows under p,
 * so it is the weighted Gauss-Newton matrix of rows less their mean, which is the gradient.
 */
#include <math.h>

#include "core/blas.h"
#include "core/options.h"
#include "objective.h"

typedef struct logsumexp {
    slg_ctx *ctx;
    int64_t n, d;
    double mu, *a, *b, *p, *mean; /* [n, d], [n], [n], [d] */
    row_curvature c;
} logsumexp;

static void release(void *user)
{
    logsumexp *m = user;
    slg_ctx *ctx = m->ctx;
    ctx_free(ctx, m->a), ctx_free(ctx, m->b), ctx_free(ctx, m);
}

/* p, A'p where grad is not NULL, and f. */
static slg_status forward(logsumexp *m, const double *x, double *value, double *grad)
{
    double top = -INFINITY, rest = 0;
    int64_t at = 0;
    SLG_TRY(blas_dgemv(m->ctx, false, m->n, m->d, m->a, m->d, x, false, m->p));
    for (int64_t i = 0; i < m->n; i++) {
        m->p[i] = (m->p[i] - m->b[i]) / m->mu;
        if (!(m->p[i] <= top)) top = m->p[i], at = i; /* NaN too, which stays */
        if (isnan(top)) break;
    }
    *value = NAN;
    if (isnan(top) || isinf(top)) {
        for (int64_t j = 0; j < m->d && grad; j++) grad[j] = NAN;
        for (int64_t i = 0; i < m->n; i++) m->p[i] = NAN;
        return SLG_OK;
    }
    for (int64_t i = 0; i < m->n; i++) {
        m->p[i] = exp(m->p[i] - top);
        if (i != at) rest += m->p[i];
    }
    for (int64_t i = 0; i < m->n; i++) m->p[i] /= 1 + rest;
    *value = m->mu * (top + log1p(rest));
    return grad ? blas_dgemv(m->ctx, true, m->n, m->d, m->a, m->d, m->p, false, grad) : SLG_OK;
}

static slg_status value(void *user, const double *x, double *f, double *grad)
{
    logsumexp *m = user;
    op_begin(m->ctx, "slg_logsumexp_objective");
    return op_end(m->ctx, forward(m, x, f, grad));
}

static slg_status curve(logsumexp *m, const double *x, int32_t which, int32_t form, double *h)
{
    double f;
    if ((which != SLG_HESSIAN && which != SLG_GAUSS_NEWTON) || form == SLG_FORM_RANK_ONE)
        return curvature_unsupported(m->ctx, which, form);
    SLG_TRY(forward(m, x, &f, m->mean));
    for (int64_t i = 0; i < m->n; i++) m->p[i] /= m->mu;
    m->c = (row_curvature){ .ctx = m->ctx, .n = m->n, .d = m->d, .a = m->a, .w = m->p };
    m->c.mean = which == SLG_HESSIAN ? m->mean : NULL;
    return row_curvature_form(&m->c, form, h);
}

static slg_status curvature(void *user, const double *x, int32_t which, int32_t form,
                            double *scale, double *h)
{
    logsumexp *m = user;
    (void)scale;
    op_begin(m->ctx, "slg_logsumexp_objective");
    return op_end(m->ctx, curve(m, x, which, form, h));
}

static slg_status product(void *user, const double *x, int32_t which, const double *v,
                          double *hv)
{
    logsumexp *m = user;
    (void)x, (void)which;
    op_begin(m->ctx, "slg_logsumexp_objective");
    return op_end(m->ctx, row_curvature_product(&m->c, v, hv));
}

static slg_status open(logsumexp *m, const slg_tensor *a, const slg_tensor *b, double mu)
{
    SLG_TRY(matrix_copy(m->ctx, "a", a, false, &m->a, &m->n, &m->d));
    if (b) SLG_TRY(tensor_in(m->ctx, "b", b, DT_ROW | DT_F64, 1, 1));
    if (b) SLG_TRY(tensor_shape_is(m->ctx, "b", b, 1, &m->n));
    if (!(mu > 0) || !isfinite(mu))
        return slg_fail(m->ctx, SLG_ERR_RANGE, "mu is %g, must be above 0", mu);
    m->mu = mu;
    m->b = ctx_alloc(m->ctx, (size_t)(2 * m->n + m->d) * sizeof(double));
    if (!m->b) return SLG_ERR_MEMORY;
    m->p = m->b + m->n, m->mean = m->p + m->n;
    for (int64_t i = 0; i < m->n; i++) m->b[i] = 0;
    if (b) flat_read(b, m->b);
    return SLG_OK;
}

slg_status slg_logsumexp_objective(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                                   double mu, slg_objective *o)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_logsumexp_objective");
    slg_status status = objective_check(ctx, o);
    logsumexp *m = status ? NULL : ctx_alloc(ctx, sizeof *m);
    if (!m) return op_end(ctx, status ? status : SLG_ERR_MEMORY);
    *m = (logsumexp){ .ctx = ctx };
    status = open(m, a, b, mu);
    if (status)
        release(m);
    else
        objective_write(o, &(slg_objective){ .dim = m->d,
                                             .user = m,
                                             .value = value,
                                             .curvature = curvature,
                                             .product = product,
                                             .free = release });
    return op_end(ctx, status);
}
