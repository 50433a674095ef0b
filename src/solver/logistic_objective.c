/*
 * logistic_objective.c - see softlogit/solver.h.
 */
#include <math.h>

#include "core/blas.h"
#include "core/options.h"
#include "objective.h"

typedef struct logistic {
    slg_ctx *ctx;
    int64_t n, d;
    slg_logistic_opts opts;
    double *a, *y, *t, *w; /* [n, d], and [n] each */
    row_curvature c;
} logistic;

static const char op[] = "slg_logistic_objective";

static void release(void *user)
{
    logistic *m = user;
    slg_ctx *ctx = m->ctx;
    ctx_free(ctx, m->a), ctx_free(ctx, m->y), ctx_free(ctx, m);
}

/* sigmoid(-t), whose relative precision holds on both sides. */
static double sigmoid_neg(double t)
{
    const double e = exp(-fabs(t));
    return t > 0 ? e / (1 + e) : 1 / (1 + e);
}

static slg_status margins(logistic *m, const double *x)
{
    SLG_TRY(blas_dgemv(m->ctx, false, m->n, m->d, m->a, m->d, x, false, m->t));
    for (int64_t i = 0; i < m->n; i++) m->t[i] *= m->y[i];
    return SLG_OK;
}

static slg_status forward(logistic *m, const double *x, double *value, double *grad)
{
    const double n = (double)m->n, ridge = m->opts.ridge;
    double loss = 0, square = 0;
    SLG_TRY(margins(m, x));
    for (int64_t i = 0; i < m->n; i++) {
        const double t = m->t[i];
        loss += fmax(-t, 0) + log1p(exp(-fabs(t)));
        if (isnan(t)) loss = NAN;
        m->w[i] = -sigmoid_neg(t) * m->y[i] / n;
    }
    for (int64_t j = 0; j < m->d; j++)
        if (has_ridge(j, m->d, m->opts.intercept)) square += x[j] * x[j];
    *value = loss / n + 0.5 * ridge * square;
    if (!grad) return SLG_OK;
    SLG_TRY(blas_dgemv(m->ctx, true, m->n, m->d, m->a, m->d, m->w, false, grad));
    for (int64_t j = 0; j < m->d; j++)
        if (has_ridge(j, m->d, m->opts.intercept)) grad[j] += ridge * x[j];
    return SLG_OK;
}

static slg_status value(void *user, const double *x, double *f, double *grad)
{
    logistic *m = user;
    op_begin(m->ctx, op);
    return op_end(m->ctx, forward(m, x, f, grad));
}

static slg_status curve(logistic *m, const double *x, int32_t which, int32_t form, double *h)
{
    if (which < SLG_HESSIAN || which > SLG_FISHER || form == SLG_FORM_RANK_ONE ||
        (form == SLG_FORM_DENSE && m->d > m->opts.dense_limit))
        return curvature_unsupported(m->ctx, which, form);
    SLG_TRY(margins(m, x));
    for (int64_t i = 0; i < m->n; i++) {
        const double t = m->t[i], q = sigmoid_neg(t);
        m->w[i] = q * (which == SLG_FISHER ? q : sigmoid_neg(-t)) / (double)m->n;
    }
    m->c = (row_curvature){ .ctx = m->ctx,
                            .n = m->n,
                            .d = m->d,
                            .a = m->a,
                            .w = m->w,
                            .ridge = m->opts.ridge,
                            .intercept = m->opts.intercept != 0 };
    return row_curvature_form(&m->c, form, h);
}

static slg_status curvature(void *user, const double *x, int32_t which, int32_t form,
                            double *scale, double *h)
{
    logistic *m = user;
    (void)scale;
    op_begin(m->ctx, op);
    return op_end(m->ctx, curve(m, x, which, form, h));
}

static slg_status product(void *user, const double *x, int32_t which, const double *v,
                          double *hv)
{
    logistic *m = user;
    (void)x, (void)which;
    op_begin(m->ctx, op);
    return op_end(m->ctx, row_curvature_product(&m->c, v, hv));
}

static slg_status open(logistic *m, const slg_tensor *a, const slg_tensor *y,
                       const slg_logistic_opts *opts)
{
    slg_ctx *ctx = m->ctx;
    SLG_TRY(logistic_options(ctx, opts, &m->opts));
    SLG_TRY(matrix_copy(ctx, "a", a, m->opts.intercept != 0, &m->a, &m->n, &m->d));
    SLG_TRY(tensor_in(ctx, "y", y, DT_INT | DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "y", y, 1, &m->n));
    m->y = ctx_alloc(ctx, (size_t)m->n * 3 * sizeof(double));
    if (!m->y) return SLG_ERR_MEMORY;
    m->t = m->y + m->n, m->w = m->t + m->n;
    flat_read(y, m->y);
    for (int64_t i = 0; i < m->n; i++)
        if (m->y[i] != 1 && m->y[i] != -1)
            return slg_fail(ctx, SLG_ERR_RANGE, "y[%lld] is %g, must be -1 or 1", (long long)i,
                            m->y[i]);
    return SLG_OK;
}

slg_status slg_logistic_objective(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *y,
                                  const slg_logistic_opts *opts, slg_objective *o)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, op);
    slg_status status = objective_check(ctx, o);
    logistic *m = status ? NULL : ctx_alloc(ctx, sizeof *m);
    if (!m) return op_end(ctx, status ? status : SLG_ERR_MEMORY);
    *m = (logistic){ .ctx = ctx };
    status = open(m, a, y, opts);
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
