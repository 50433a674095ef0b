/*
 * softmax_regression_objective.c - slg_softmax_regression as an objective in x.
 */
#include "core/options.h"
#include "objective.h"
#include "softlogit/regression.h"

typedef struct regression {
    built_in is;
    row_data a;
    double *b, *w, *square; /* [n], [n] or NULL, [d, d] once it was needed */
} regression;

static void release(void *user)
{
    regression *m = user;
    slg_ctx *ctx = m->is.ctx;
    ctx_free(ctx, m->a.x), ctx_free(ctx, m->b), ctx_free(ctx, m->square);
}

static slg_status call(const regression *m, const double *x, const double *p,
                       slg_softmax_regression_out *o)
{
    const int64_t n = m->a.n, d = m->a.d;
    slg_tensor a = slg_tensor_2d(m->a.x, SLG_F64, n, d);
    const slg_tensor b = slg_tensor_1d(m->b, SLG_F64, n), w = slg_tensor_1d(m->w, SLG_F64, n),
                     tx = slg_tensor_1d(x, SLG_F64, d), tp = slg_tensor_1d(p, SLG_F64, d);
    a.stride[0] = m->a.ld;
    return slg_softmax_regression(m->is.ctx, &a, &tx, &b, m->w ? &w : NULL, p ? &tp : NULL, o);
}

static slg_status forward(void *user, const double *x, double *f, double *grad)
{
    const regression *m = user;
    slg_softmax_regression_out o;
    slg_tensor t = slg_tensor_1d(grad, SLG_F64, m->a.d);
    slg_softmax_regression_out_init(&o, sizeof o);
    if (grad) o.dx = &t;
    SLG_TRY(call(m, x, NULL, &o));
    *f = o.value;
    return SLG_OK;
}

static slg_status check(regression *m, int32_t which, int32_t form)
{
    slg_ctx *ctx = m->is.ctx;
    if ((which != SLG_HESSIAN && which != SLG_GAUSS_NEWTON) || form == SLG_FORM_RANK_ONE)
        return curvature_unsupported(ctx, which, form);
    if (form == SLG_FORM_DIAGONAL && !m->square) {
        m->square = doubles_alloc(ctx, m->a.d, m->a.d, 0);
        if (!m->square) return SLG_ERR_MEMORY;
    }
    return SLG_OK;
}

static slg_status curve(void *user, const double *x, int32_t which, int32_t form, double *scale,
                        double *h)
{
    regression *m = user;
    const int64_t d = m->a.d;
    slg_softmax_regression_out o;
    (void)scale;
    op_begin(m->is.ctx, m->is.kind->op);
    SLG_TRY(op_end(m->is.ctx, check(m, which, form)));
    if (form != SLG_FORM_DENSE && form != SLG_FORM_DIAGONAL) return SLG_OK;
    slg_tensor t = slg_tensor_2d(form == SLG_FORM_DENSE ? h : m->square, SLG_F64, d, d);
    slg_softmax_regression_out_init(&o, sizeof o);
    if (which == SLG_HESSIAN)
        o.hessian = &t;
    else
        o.gauss_newton = &t;
    SLG_TRY(call(m, x, NULL, &o));
    for (int64_t i = 0; i < d && form == SLG_FORM_DIAGONAL; i++) h[i] = m->square[i * d + i];
    return SLG_OK;
}

static slg_status multiply(void *user, const double *x, int32_t which, const double *v,
                           double *hv)
{
    const regression *m = user;
    slg_softmax_regression_out o;
    slg_tensor t = slg_tensor_1d(hv, SLG_F64, m->a.d);
    slg_softmax_regression_out_init(&o, sizeof o);
    if (which == SLG_HESSIAN)
        o.hessian_p = &t;
    else
        o.gauss_newton_p = &t;
    return call(m, x, v, &o);
}

typedef struct arguments {
    const slg_tensor *a, *b, *w;
} arguments;

static slg_status open(void *user, const void *given)
{
    regression *m = user;
    const arguments *g = given;
    slg_ctx *ctx = m->is.ctx;
    SLG_TRY(row_data_copy(ctx, "a", g->a, false, SLG_F64, &m->a));
    const int64_t n = m->a.n;
    SLG_TRY(tensor_in(ctx, "b", g->b, DT_ROW | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "b", g->b, 1, &n));
    if (g->w) SLG_TRY(tensor_in(ctx, "w", g->w, DT_ROW | DT_F64, 1, 1));
    if (g->w) SLG_TRY(tensor_shape_is(ctx, "w", g->w, 1, &n));
    m->b = ctx_alloc(ctx, (size_t)n * 2 * sizeof(double));
    if (!m->b) return SLG_ERR_MEMORY;
    flat_read(g->b, m->b);
    if (g->w) flat_read(g->w, m->w = m->b + n);
    m->is.dim = m->a.d;
    return SLG_OK;
}

/* slg_softmax_regression is an op of its own. */
static const objective_kind kind = { "slg_softmax_regression_objective",
                                     sizeof(regression),
                                     true,
                                     open,
                                     release,
                                     forward,
                                     curve,
                                     multiply };

slg_status slg_softmax_regression_objective(slg_ctx *ctx, const slg_tensor *a,
                                            const slg_tensor *b, const slg_tensor *w,
                                            slg_objective *o)
{
    return objective_make(ctx, &kind, &(arguments){ a, b, w }, o);
}
