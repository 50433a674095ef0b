/*
 * ordinal_objective.c - see ordinal.h. Products go through the scores of all rows; a matrix is
 * made of the blocks that ordinal_model.h has.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "ordinal_model.h"

typedef struct objective {
    built_in is;
    ordinal_model m;
    double ridge;
} objective;

static void release(void *user)
{
    objective *o = user;
    if (o->m.ctx) ordinal_close(&o->m);
}

/* The ridge leaves the intercepts out. */
static double ridge_at(const objective *o, int64_t i)
{
    return has_ridge(i, o->m.q, true) ? o->ridge : 0;
}

static slg_status forward(void *user, const double *x, double *f, double *grad)
{
    objective *o = user;
    ordinal_model *m = &o->m;
    SLG_TRY(ordinal_scores(m, x, m->eta));
    *f = ordinal_value(m, m->eta);
    for (int64_t i = 0; i < m->m * m->q; i++) *f += 0.5 * ridge_at(o, i) * x[i] * x[i];
    if (!grad) return SLG_OK;
    SLG_TRY(ordinal_gradient(m, m->eta, grad));
    for (int64_t i = 0; i < m->m * m->q; i++) grad[i] += ridge_at(o, i) * x[i];
    return SLG_OK;
}

static slg_status dense(objective *o, double *h)
{
    ordinal_model *m = &o->m;
    const int64_t q = m->q, d = m->m * q;
    if (!m->h) m->h = doubles_alloc(o->is.ctx, q, q * (2 * m->m - 1), 0);
    if (!m->h) return SLG_ERR_MEMORY;
    SLG_TRY(ordinal_curvature(m));
    for (int64_t l = 0; l < m->m; l++)
        for (int64_t k = 0; k < m->m; k++)
            for (int64_t j = 0; j < q; j++)
                memcpy(h + (l * q + j) * d + k * q, m->h + (ordinal_block(m, l, k) * q + j) * q,
                       (size_t)q * sizeof *h);
    for (int64_t i = 0; i < d; i++) h[i * d + i] += ridge_at(o, i);
    return SLG_OK;
}

static void diagonal(objective *o, double *h)
{
    const ordinal_model *m = &o->m;
    for (int64_t i = 0; i < m->m * m->q; i++) {
        const int64_t l = i / m->q, j = i % m->q;
        h[i] = ridge_at(o, i);
        for (int64_t r = 0; r < m->n; r++)
            h[i] += m->weight[l * m->n + r] * m->z[r * m->q + j] * m->z[r * m->q + j];
    }
}

static slg_status curve(void *user, const double *x, int32_t which, int32_t form, double *scale,
                        double *h)
{
    objective *o = user;
    (void)scale;
    if (which < SLG_HESSIAN || which > SLG_FISHER || form == SLG_FORM_RANK_ONE)
        return curvature_unsupported(o->is.ctx, which, form);
    SLG_TRY(ordinal_scores(&o->m, x, o->m.eta));
    ordinal_weights(&o->m, o->m.eta, which, form == SLG_FORM_PRODUCT);
    if (form == SLG_FORM_DENSE) return dense(o, h);
    if (form == SLG_FORM_DIAGONAL) diagonal(o, h);
    return SLG_OK;
}

static slg_status multiply(void *user, const double *x, int32_t which, const double *v,
                           double *hv)
{
    const objective *o = user;
    (void)x, (void)which;
    const ordinal_model *m = &o->m;
    const int64_t n = m->n, k = m->m;
    SLG_TRY(ordinal_scores(m, v, m->eta));
    for (int64_t i = 0; i < n; i++) {
        const double *u = m->eta + i * k;
        for (int64_t l = 0; l < k; l++) {
            double t = m->weight[l * n + i] * u[l];
            if (l > 0) t += m->weight[(k + l - 1) * n + i] * u[l - 1];
            if (l + 1 < k) t += m->weight[(k + l) * n + i] * u[l + 1];
            m->g[i * k + l] = t;
        }
    }
    SLG_TRY(blas_dgemm(m->ctx, true, false, k, m->q, n, 1, m->g, k, m->z, m->q, 0, hv, m->q));
    ordinal_suffix(k, m->q, hv);
    for (int64_t i = 0; i < k * m->q; i++) hv[i] += ridge_at(o, i) * v[i];
    return SLG_OK;
}

typedef struct arguments {
    const slg_tensor *x, *labels;
    int64_t classes;
    double ridge;
} arguments;

static slg_status open(void *user, const void *given)
{
    objective *o = user;
    const arguments *g = given;
    SLG_TRY(option_least(o->is.ctx, "ridge", g->ridge, 0));
    o->ridge = g->ridge;
    SLG_TRY(ordinal_open(o->is.ctx, g->x, g->labels, g->classes, &o->m));
    o->is.dim = o->m.m * o->m.q;
    return ordinal_reserve(&o->m, false);
}

static const objective_kind kind = {
    "slg_ordinal_objective", sizeof(objective), false, open, release, forward, curve, multiply
};

slg_status slg_ordinal_objective(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                                 int64_t classes, double ridge, slg_objective *o)
{
    return objective_make(ctx, &kind, &(arguments){ x, labels, classes, ridge }, o);
}
