/*
 * row_curvature.c - a weighted square of rows, see objective.h: rows scaled by the roots of
 * their weights, a block at a time, then one symmetric update a block.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "objective.h"

enum { BLOCK = 1 << 17 }; /* doubles of scaled rows: 1 MiB */

static slg_status dense(const row_curvature *c, double *h)
{
    const int64_t d = c->d, block = d < BLOCK ? BLOCK / d : 1;
    double *scaled =
        arena_alloc(c->ctx, (size_t)(block < c->n ? block : c->n), (size_t)d * sizeof *scaled);
    if (!scaled) return SLG_ERR_MEMORY;
    memset(h, 0, (size_t)(d * d) * sizeof *h);
    for (int64_t first = 0; first < c->n; first += block) {
        int64_t count = c->n - first < block ? c->n - first : block, used = 0;
        for (int64_t i = first; i < first + count; i++) {
            if (c->w[i] == 0) continue;
            const double root = sqrt(c->w[i]), *a = c->a + i * d;
            double *to = scaled + used++ * d;
            for (int64_t j = 0; j < d; j++) to[j] = root * (c->mean ? a[j] - c->mean[j] : a[j]);
        }
        SLG_TRY(blas_dsyrk(c->ctx, d, used, 1, scaled, h));
    }
    if (c->extra)
        for (int64_t i = 0; i < d; i++)
            for (int64_t j = 0; j < d; j++)
                h[i * d + j] += c->extra_scale * (c->extra[i] * c->extra[j]);
    for (int64_t j = 0; j < d; j++)
        if (has_ridge(j, d, c->intercept)) h[j * d + j] += c->ridge;
    return SLG_OK;
}

static void diagonal(const row_curvature *c, double *h)
{
    const int64_t d = c->d;
    for (int64_t j = 0; j < d; j++) h[j] = 0;
    for (int64_t i = 0; i < c->n; i++) {
        const double w = c->w[i], *a = c->a + i * d;
        if (w == 0) continue;
        for (int64_t j = 0; j < d; j++) {
            const double v = c->mean ? a[j] - c->mean[j] : a[j];
            h[j] += w * v * v;
        }
    }
    for (int64_t j = 0; j < d; j++) {
        if (c->extra) h[j] += c->extra_scale * c->extra[j] * c->extra[j];
        if (has_ridge(j, d, c->intercept)) h[j] += c->ridge;
    }
}

slg_status row_curvature_form(const row_curvature *c, int32_t form, double *h)
{
    if (form == SLG_FORM_DENSE) return dense(c, h);
    if (form == SLG_FORM_DIAGONAL) diagonal(c, h);
    return SLG_OK;
}

slg_status row_curvature_product(const row_curvature *c, const double *v, double *hv)
{
    const int64_t d = c->d;
    double *t = arena_alloc(c->ctx, (size_t)c->n, sizeof *t), shift = 0, sum = 0, dot = 0;
    if (!t) return SLG_ERR_MEMORY;
    SLG_TRY(blas_dgemv(c->ctx, false, c->n, d, c->a, d, v, false, t));
    for (int64_t j = 0; j < d && c->mean; j++) shift += c->mean[j] * v[j];
    for (int64_t i = 0; i < c->n; i++) {
        t[i] = c->w[i] == 0 ? 0 : c->w[i] * (t[i] - shift);
        sum += t[i];
    }
    SLG_TRY(blas_dgemv(c->ctx, true, c->n, d, c->a, d, t, false, hv));
    for (int64_t j = 0; j < d && c->extra; j++) dot += c->extra[j] * v[j];
    for (int64_t j = 0; j < d; j++) {
        if (c->mean) hv[j] -= sum * c->mean[j];
        if (c->extra) hv[j] += c->extra_scale * dot * c->extra[j];
        if (has_ridge(j, d, c->intercept)) hv[j] += c->ridge * v[j];
    }
    return SLG_OK;
}
