/*
 * row_curvature.c - a weighted square of rows, see objective.h: rows scaled by the roots of
 * their weights, a block at a time, then one symmetric update a block and sign.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "objective.h"

enum { BLOCK = 1 << 17 }; /* doubles of scaled rows: 1 MiB */

/* Adds the rows from `first` on, which are at `a`, to h. scaled: scratch. */
static slg_status dense_rows(const row_curvature *c, int64_t first, int64_t count,
                             const double *a, double *scaled, double *h)
{
    const int64_t d = c->a->d;
    for (int sign = 1; sign >= -1; sign -= 2) { /* weights above 0, then below */
        int64_t used = 0;
        for (int64_t i = 0; i < count; i++) {
            const double w = sign * c->w[first + i], *from = a + i * c->a->ld;
            if (!(w > 0) && !isnan(w)) continue;
            const double root = sqrt(w);
            double *to = scaled + used++ * d;
            for (int64_t j = 0; j < d; j++)
                to[j] = root * (c->mean ? from[j] - c->mean[j] : from[j]);
        }
        if (used > 0) SLG_TRY(blas_dsyrk(c->ctx, d, used, sign, scaled, h));
    }
    return SLG_OK;
}

static void diagonal_rows(const row_curvature *c, int64_t first, int64_t count, const double *a,
                          double *h)
{
    for (int64_t i = first; i < first + count; i++, a += c->a->ld) {
        if (c->w[i] == 0) continue;
        for (int64_t j = 0; j < c->a->d; j++) {
            const double v = c->mean ? a[j] - c->mean[j] : a[j];
            h[j] += c->w[i] * v * v;
        }
    }
}

slg_status row_curvature_form(const row_curvature *c, int32_t form, double *h)
{
    const int64_t n = c->a->n, d = c->a->d, ld = c->a->ld;
    const bool dense = form == SLG_FORM_DENSE;
    if (!dense && form != SLG_FORM_DIAGONAL) return SLG_OK;
    int64_t block = ld < BLOCK ? BLOCK / ld : 1;
    if (block > n) block = n;
    double *wide = arena_alloc(c->ctx, (size_t)block, (size_t)ld * sizeof *wide);
    double *scaled = arena_alloc(c->ctx, (size_t)block, (size_t)d * sizeof *scaled);
    if (!wide || !scaled) return SLG_ERR_MEMORY;
    memset(h, 0, (size_t)(dense ? d * d : d) * sizeof *h);
    for (int64_t first = 0; first < n; first += block) {
        const int64_t count = n - first < block ? n - first : block;
        const double *a = row_data_doubles(c->a, first, count, wide);
        if (dense)
            SLG_TRY(dense_rows(c, first, count, a, scaled, h));
        else
            diagonal_rows(c, first, count, a, h);
    }
    for (int64_t i = 0; c->extra && i < d; i++) {
        if (!dense) h[i] += c->extra_scale * (c->extra[i] * c->extra[i]);
        for (int64_t j = 0; dense && j < d; j++)
            h[i * d + j] += c->extra_scale * (c->extra[i] * c->extra[j]);
    }
    for (int64_t j = 0; j < d; j++)
        if (has_ridge(j, d, c->intercept)) h[dense ? j * d + j : j] += c->ridge;
    return SLG_OK;
}

typedef struct product {
    const row_curvature *c;
    double shift; /* mean'v */
} product;

static void product_rows(const row_pass *p, row_block *b)
{
    const product *t = p->user;
    const double *w = t->c->w + b->first;
    for (int64_t i = 0; i < b->count; i++) {
        b->z[i] = w[i] == 0 ? 0 : w[i] * (b->z[i] - t->shift);
        b->sums[0] += b->z[i];
    }
}

slg_status row_curvature_product(const row_curvature *c, const double *v, double *hv)
{
    const int64_t d = c->a->d;
    product t = { .c = c };
    row_pass p = { .ctx = c->ctx,
                   .data = c->a,
                   .k = 1,
                   .w = v,
                   .single = c->single,
                   .back = true,
                   .fn = product_rows,
                   .user = &t };
    double dot = 0;
    for (int64_t j = 0; j < d && c->mean; j++) t.shift += c->mean[j] * v[j];
    SLG_TRY(row_pass_run(&p));
    row_pass_gather(&p, 1, NULL, hv);
    const double sum = row_pass_sum(&p, 0);
    for (int64_t j = 0; j < d && c->extra; j++) dot += c->extra[j] * v[j];
    for (int64_t j = 0; j < d; j++) {
        if (c->mean) hv[j] -= sum * c->mean[j];
        if (c->extra) hv[j] += c->extra_scale * dot * c->extra[j];
        if (has_ridge(j, d, c->intercept)) hv[j] += c->ridge * v[j];
    }
    return SLG_OK;
}
