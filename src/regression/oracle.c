/*
 * oracle.c - see oracle.h. Every n x n matrix is a diagonal and a correction of rank two, so a
 * product with it is a few vectors of n numbers; one pass over A makes A x and A p, another
 * carries all coefficient vectors back at once.
 */
#include "oracle.h"

#include <math.h>

slg_status vector_read(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t size,
                       double **to)
{
    *to = arena_alloc(ctx, (size_t)size, sizeof **to);
    if (!*to) return SLG_ERR_MEMORY;
    if (!t) {
        for (int64_t i = 0; i < size; i++) (*to)[i] = 0;
        return SLG_OK;
    }
    SLG_TRY(tensor_in(ctx, name, t, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &size));
    const rows m = rows_of(t);
    for (int64_t i = 0; i < size; i++) (*to)[i] = rows_get(&m, 0, i);
    return SLG_OK;
}

void vector_write(const slg_tensor *to, const double *from)
{
    if (!to) return;
    const rows m = rows_of(to);
    for (int64_t i = 0; i < m.cols; i++) rows_put(&m, 0, i, from[i]);
}

slg_status oracle_open(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                       const slg_tensor *w, oracle *g)
{
    *g = (oracle){ .ctx = ctx };
    SLG_TRY(tensor_in(ctx, "a", a, DT_F32 | DT_F64, 2, 2));
    if (!b) return slg_fail(ctx, SLG_ERR_NULL, "b is NULL");
    op_detail(ctx, a);
    g->n = a->shape[0], g->d = a->shape[1];
    if (g->n < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "a has no rows");
    if (g->d > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_SHAPE, "a has %lld columns: at most %d", (long long)g->d,
                        INT32_MAX);
    SLG_TRY(vector_read(ctx, "b", b, g->n, &g->b));
    SLG_TRY(vector_read(ctx, "w", w, g->n, &g->w2));
    for (int64_t i = 0; i < g->n; i++) g->w2[i] *= g->w2[i];
    SLG_TRY(panels_open(ctx, a, &g->a));
    double *of_n = arena_alloc(ctx, (size_t)g->n, 3 * sizeof(double));
    if (!of_n) return SLG_ERR_MEMORY;
    g->z = of_n, g->y = of_n + g->n, g->f = of_n + 2 * g->n;
    return SLG_OK;
}

slg_status oracle_want(oracle *g, unsigned want)
{
    for (int v = 0; v < BACK_VECTORS; v++) {
        if (!(want & (1u << v))) continue;
        g->coef[v] = arena_alloc(g->ctx, (size_t)g->n, sizeof(double));
        g->back[v] = arena_alloc(g->ctx, (size_t)g->d, sizeof(double));
        if (!g->coef[v] || !g->back[v]) return SLG_ERR_MEMORY;
    }
    return SLG_OK;
}

void softmax_f64(const kernel_table *k, int64_t n, const double *z, double *f)
{
    double max = -INFINITY, sum = 0;
    bool bad = false;
    for (int64_t i = 0; i < n; i++) {
        bad = bad || isnan(z[i]) || z[i] == INFINITY;
        max = z[i] > max ? z[i] : max;
    }
    bad = bad || max == -INFINITY;
    for (int64_t i = 0; i < n; i++) f[i] = bad ? NAN : z[i] - max;
    k->exp_f64((size_t)n, f, f);
    for (int64_t i = 0; i < n; i++) sum += f[i];
    for (int64_t i = 0; i < n; i++) f[i] /= sum;
}

/* Where f is 0 and the regulariser is off, a row of A counts for nothing, whatever it holds. */
static double ridge(const oracle *g, int64_t i, double v)
{
    return g->w2[i] == 0 ? 0 : g->w2[i] * v;
}

slg_status oracle_forward(oracle *g, const double *x, const double *p)
{
    const double *const in[2] = { x, p };
    double *const out[2] = { g->z, g->y };
    double loss = 0, reg = 0;
    if (!p)
        for (int64_t i = 0; i < g->n; i++) g->y[i] = 0;
    SLG_TRY(panels_forward(&g->a, 2, in, out));
    softmax_f64(&g->ctx->k, g->n, g->z, g->f);
    g->s = 0;
    for (int64_t i = 0; i < g->n; i++) {
        const double f = g->f[i], c = f - g->b[i];
        loss += c * c;
        reg += ridge(g, i, g->z[i] * g->z[i]);
        g->s += f * c;
    }
    g->loss = 0.5 * loss;
    g->value = 0.5 * (loss + reg);
    return SLG_OK;
}

/* Products of B and of J J with y. Rows of both sum to 0, so y may be taken from its mean
   under f: what has a factor f.y then falls away, and a common offset costs no digits. */
static void curvature_products(const oracle *g, double *hessian, double *gauss)
{
    double mean = 0, uy = 0, ffy = 0;
    for (int64_t i = 0; i < g->n; i++)
        if (g->f[i] != 0) mean += g->f[i] * g->y[i];
    for (int64_t i = 0; i < g->n; i++) {
        const double f = g->f[i], y = f == 0 ? 0 : g->y[i] - mean;
        uy += f * (2 * f - g->b[i]) * y;
        ffy += f * f * y;
    }
    for (int64_t i = 0; i < g->n; i++) {
        const double f = g->f[i], v = 2 * f - g->b[i], y = f == 0 ? 0 : g->y[i] - mean;
        const double reg = ridge(g, i, g->y[i]);
        if (hessian) hessian[i] = f * ((v - g->s) * y - uy) + reg;
        if (gauss) gauss[i] = f * (f * y - ffy) + reg;
    }
}

slg_status oracle_backward(oracle *g)
{
    double *const *coef = g->coef;
    for (int64_t i = 0; i < g->n; i++) {
        const double f = g->f[i], c = f - g->b[i];
        if (coef[BACK_GRAD]) coef[BACK_GRAD][i] = f * (c - g->s) + ridge(g, i, g->z[i]);
        if (coef[BACK_F]) coef[BACK_F][i] = f;
    }
    if (coef[BACK_HESSIAN_P] || coef[BACK_GAUSS_P])
        curvature_products(g, coef[BACK_HESSIAN_P], coef[BACK_GAUSS_P]);
    return panels_backward(&g->a, BACK_VECTORS, (const double *const *)g->coef, g->z, g->back);
}
