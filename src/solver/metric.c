/*
 * metric.c - norms by a symmetric positive definite B: |x|^2 = x'Bx, |g|_*^2 = g'B^-1 g.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "solve.h"

static slg_status open(slg_ctx *ctx, const slg_tensor *t, norm_metric *m)
{
    const int64_t d = m->d;
    const bool full = m->form == SLG_FORM_DENSE;
    m->b = doubles_alloc(ctx, d, full ? 2 * d : 1, 0);
    if (!m->b) return SLG_ERR_MEMORY;
    flat_read(t, m->b);
    bool definite = vector_finite(full ? d * d : d, m->b);
    if (full) {
        for (int64_t i = 0; i < d; i++) /* the upper triangle is the matrix */
            for (int64_t j = 0; j < i; j++) m->b[i * d + j] = m->b[j * d + i];
        m->factor = m->b + d * d;
        memcpy(m->factor, m->b, (size_t)(d * d) * sizeof *m->b);
        if (definite) SLG_TRY(blas_dpotrf(ctx, d, m->factor, &definite, NULL));
    } else
        for (int64_t i = 0; i < d; i++) definite = definite && m->b[i] > 0;
    if (definite) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "metric is not positive definite");
}

slg_status metric_open(slg_ctx *ctx, const slg_tensor *t, int64_t d, norm_metric *m)
{
    *m = (norm_metric){ .d = d };
    if (!t) return SLG_OK;
    SLG_TRY(tensor_in(ctx, "metric", t, DT_F32 | DT_F64, 1, 2));
    const int64_t shape[2] = { d, d };
    SLG_TRY(tensor_shape_is(ctx, "metric", t, t->ndim, shape));
    m->form = t->ndim == 2 ? SLG_FORM_DENSE : SLG_FORM_DIAGONAL;
    slg_status status = open(ctx, t, m);
    if (status) metric_close(ctx, m);
    return status;
}

void metric_close(slg_ctx *ctx, norm_metric *m)
{
    ctx_free(ctx, m->b);
    *m = (norm_metric){ .d = m->d };
}

static double largest(int64_t n, const double *x)
{
    double top = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, fabs(x[i]));
    return top;
}

slg_status metric_dual(slg_ctx *ctx, const norm_metric *m, const double *g, double *w,
                       double *norm)
{
    const int64_t d = m->d;
    const double top = largest(d, g);
    double sum = 0;
    *norm = 0;
    memset(w, 0, (size_t)d * sizeof *w);
    if (top == 0) return SLG_OK;
    for (int64_t i = 0; i < d; i++)
        w[i] = g[i] / top / (m->form == SLG_FORM_DIAGONAL ? m->b[i] : 1);
    if (m->form == SLG_FORM_DENSE) SLG_TRY(blas_dpotrs(ctx, d, m->factor, 1, w));
    for (int64_t i = 0; i < d; i++) sum += g[i] / top * w[i], w[i] *= top;
    *norm = top * sqrt(fmax(sum, 0));
    return SLG_OK;
}

double metric_norm(const norm_metric *m, const double *x)
{
    const int64_t d = m->d;
    const double top = largest(d, x);
    double sum = 0;
    if (top == 0) return 0;
    for (int64_t i = 0; i < d; i++) {
        double y = 0;
        if (m->form == SLG_FORM_DENSE)
            for (int64_t j = 0; j < d; j++) y += m->b[i * d + j] * (x[j] / top);
        else
            y = x[i] / top * (m->form == SLG_FORM_DIAGONAL ? m->b[i] : 1);
        sum += x[i] / top * y;
    }
    return top * sqrt(fmax(sum, 0));
}

double vector_dot(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

bool vector_finite(int64_t n, const double *x)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}
