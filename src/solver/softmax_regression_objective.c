/*
 * softmax_regression_objective.c - slg_softmax_regression as an objective in x.
 */
#include "core/options.h"
#include "objective.h"
#include "softlogit/regression.h"

typedef struct regression {
    slg_ctx *ctx;
    int64_t n, d;
    double *a, *b, *w, *square; /* [n, d], [n], [n] or NULL, [d, d] once it was needed */
} regression;

static const char op[] = "slg_softmax_regression_objective";

static void release(void *user)
{
    regression *m = user;
    slg_ctx *ctx = m->ctx;
    ctx_free(ctx, m->a), ctx_free(ctx, m->b), ctx_free(ctx, m->square), ctx_free(ctx, m);
}

static slg_status call(regression *m, const double *x, const double *p,
                       slg_softmax_regression_out *o)
{
    const slg_tensor a = slg_tensor_2d(m->a, SLG_F64, m->n, m->d),
                     b = slg_tensor_1d(m->b, SLG_F64, m->n),
                     w = slg_tensor_1d(m->w, SLG_F64, m->n),
                     tx = slg_tensor_1d(x, SLG_F64, m->d), tp = slg_tensor_1d(p, SLG_F64, m->d);
    return slg_softmax_regression(m->ctx, &a, &tx, &b, m->w ? &w : NULL, p ? &tp : NULL, o);
}

static slg_status value(void *user, const double *x, double *f, double *grad)
{
    regression *m = user;
    slg_softmax_regression_out o;
    slg_tensor t = slg_tensor_1d(grad, SLG_F64, m->d);
    slg_softmax_regression_out_init(&o, sizeof o);
    if (grad) o.dx = &t;
    SLG_TRY(call(m, x, NULL, &o));
    *f = o.value;
    return SLG_OK;
}

static slg_status check(regression *m, int32_t which, int32_t form)
{
    if ((which != SLG_HESSIAN && which != SLG_GAUSS_NEWTON) || form == SLG_FORM_RANK_ONE)
        return curvature_unsupported(m->ctx, which, form);
    if (form == SLG_FORM_DIAGONAL && !m->square) {
        m->square = doubles_alloc(m->ctx, m->d, m->d, 0);
        if (!m->square) return SLG_ERR_MEMORY;
    }
    return SLG_OK;
}

static slg_status curvature(void *user, const double *x, int32_t which, int32_t form,
                            double *scale, double *h)
{
    regression *m = user;
    slg_softmax_regression_out o;
    (void)scale;
    op_begin(m->ctx, op);
    SLG_TRY(op_end(m->ctx, check(m, which, form)));
    if (form != SLG_FORM_DENSE && form != SLG_FORM_DIAGONAL) return SLG_OK;
    slg_tensor t = slg_tensor_2d(form == SLG_FORM_DENSE ? h : m->square, SLG_F64, m->d, m->d);
    slg_softmax_regression_out_init(&o, sizeof o);
    if (which == SLG_HESSIAN)
        o.hessian = &t;
    else
        o.gauss_newton = &t;
    SLG_TRY(call(m, x, NULL, &o));
    for (int64_t i = 0; i < m->d && form == SLG_FORM_DIAGONAL; i++)
        h[i] = m->square[i * m->d + i];
    return SLG_OK;
}

static slg_status product(void *user, const double *x, int32_t which, const double *v,
                          double *hv)
{
    regression *m = user;
    slg_softmax_regression_out o;
    slg_tensor t = slg_tensor_1d(hv, SLG_F64, m->d);
    slg_softmax_regression_out_init(&o, sizeof o);
    if (which == SLG_HESSIAN)
        o.hessian_p = &t;
    else
        o.gauss_newton_p = &t;
    return call(m, x, v, &o);
}

static slg_status open(regression *m, const slg_tensor *a, const slg_tensor *b,
                       const slg_tensor *w)
{
    slg_ctx *ctx = m->ctx;
    SLG_TRY(matrix_copy(ctx, "a", a, false, &m->a, &m->n, &m->d));
    SLG_TRY(tensor_in(ctx, "b", b, DT_ROW | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "b", b, 1, &m->n));
    if (w) SLG_TRY(tensor_in(ctx, "w", w, DT_ROW | DT_F64, 1, 1));
    if (w) SLG_TRY(tensor_shape_is(ctx, "w", w, 1, &m->n));
    m->b = ctx_alloc(ctx, (size_t)m->n * 2 * sizeof(double));
    if (!m->b) return SLG_ERR_MEMORY;
    flat_read(b, m->b);
    if (w) flat_read(w, m->w = m->b + m->n);
    return SLG_OK;
}

slg_status slg_softmax_regression_objective(slg_ctx *ctx, const slg_tensor *a,
                                            const slg_tensor *b, const slg_tensor *w,
                                            slg_objective *o)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, op);
    slg_status status = objective_check(ctx, o);
    regression *m = status ? NULL : ctx_alloc(ctx, sizeof *m);
    if (!m) return op_end(ctx, status ? status : SLG_ERR_MEMORY);
    *m = (regression){ .ctx = ctx };
    status = open(m, a, b, w);
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
