/*
 * logsumexp_objective.c - see softlogit/solver.h. The Hessian is a covariance of rows under p,
 * so it is the weighted Gauss-Newton matrix of rows less their mean, which is the gradient.
 *
 * Rows are read once: a task keeps the largest z that it has seen, the sum of exp(z - largest)
 * over the others, and its part of the gradient relative to that largest one.
 */
#include <math.h>

#include "core/options.h"
#include "objective.h"

typedef struct logsumexp {
    built_in is;
    row_data a;
    double mu, *b, *p, *mean; /* [n], [n]: curvature's, [d] */
    row_curvature c;
    double *z; /* [n]: where forward leaves z; NULL: nowhere */
} logsumexp;

static void release(void *user)
{
    logsumexp *m = user;
    ctx_free(m->is.ctx, m->a.x), ctx_free(m->is.ctx, m->b);
}

/* sums: the largest z, and the sum of exp(z - largest) over all, less 1 for itself: so the
   logarithm loses no digits where that one is nearly all. */
enum { TOP, REST };

static void scaled_rows(const row_pass *p, row_block *b)
{
    const logsumexp *m = p->user;
    double *z = b->z, top = b->fresh ? -INFINITY : b->sums[TOP], rest;
    const double before = top;
    int64_t at = -1;
    for (int64_t i = 0; i < b->count; i++) {
        z[i] = (z[i] - m->b[b->first + i]) / m->mu;
        if (m->z) m->z[b->first + i] = z[i];
        if (!(z[i] <= top) && !isnan(top)) top = z[i], at = i; /* NaN too, which stays */
    }
    for (int64_t i = 0; i < b->count; i++) z[i] = top == -INFINITY ? top : z[i] - top;
    p->ctx->k.exp_f64((size_t)b->count, z, z);
    const double factor = at < 0 ? 1 : exp(before - top);
    rest = b->fresh ? at < 0 ? -1 : 0 : at < 0 ? b->sums[REST] : (1 + b->sums[REST]) * factor;
    for (int64_t i = 0; i < b->count; i++)
        if (i != at) rest += z[i];
    for (int64_t j = 0; b->part && factor != 1 && j < b->part_ld; j++) b->part[j] *= factor;
    b->sums[TOP] = top, b->sums[REST] = rest;
}

/* p and A'p where grad is not NULL, and f; z too where m->z is set. *top, *rest: of all rows.
   */
static slg_status evaluate(logsumexp *m, const double *x, double *grad, double *top,
                           double *rest)
{
    row_pass p = { .ctx = m->is.ctx,
                   .data = &m->a,
                   .k = 1,
                   .w = x,
                   .back = grad != NULL,
                   .fn = scaled_rows,
                   .user = m };
    SLG_TRY(row_pass_run(&p));
    double *weight = arena_alloc(p.ctx, (size_t)p.tasks, sizeof *weight);
    if (!weight) return SLG_ERR_MEMORY;
    *top = p.sums[TOP];
    for (int64_t t = 1; t < p.tasks; t++) {
        const double v = p.sums[t * PASS_SUMS + TOP];
        if (!(v <= *top) && !isnan(*top)) *top = v;
    }
    bool first = true;
    *rest = 0;
    for (int64_t t = 0; t < p.tasks; t++) {
        const double *sums = p.sums + t * PASS_SUMS;
        weight[t] = exp(sums[TOP] - *top);
        if (first && sums[TOP] == *top)
            *rest += sums[REST], first = false;
        else
            *rest += weight[t] * (1 + sums[REST]);
    }
    const bool bad = isnan(*top) || isinf(*top);
    if (bad) *rest = NAN;
    if (grad) row_pass_gather(&p, bad ? NAN : 1 / (1 + *rest), weight, grad);
    return SLG_OK;
}

static slg_status forward(void *user, const double *x, double *value, double *grad)
{
    logsumexp *m = user;
    double top, rest;
    SLG_TRY(evaluate(m, x, grad, &top, &rest));
    *value = m->mu * (top + log1p(rest));
    return SLG_OK;
}

static slg_status curve(void *user, const double *x, int32_t which, int32_t form, double *scale,
                        double *h)
{
    logsumexp *m = user;
    double top, rest;
    (void)scale;
    if ((which != SLG_HESSIAN && which != SLG_GAUSS_NEWTON) || form == SLG_FORM_RANK_ONE)
        return curvature_unsupported(m->is.ctx, which, form);
    m->z = m->p;
    slg_status status = evaluate(m, x, m->mean, &top, &rest);
    m->z = NULL;
    SLG_TRY(status);
    for (int64_t i = 0; i < m->a.n; i++) m->p[i] -= top;
    m->is.ctx->k.exp_f64((size_t)m->a.n, m->p, m->p);
    for (int64_t i = 0; i < m->a.n; i++) m->p[i] /= (1 + rest) * m->mu;
    m->c = (row_curvature){ .ctx = m->is.ctx, .a = &m->a, .w = m->p };
    m->c.mean = which == SLG_HESSIAN ? m->mean : NULL;
    return row_curvature_form(&m->c, form, h);
}

static slg_status multiply(void *user, const double *x, int32_t which, const double *v,
                           double *hv)
{
    const logsumexp *m = user;
    (void)x, (void)which;
    return row_curvature_product(&m->c, v, hv);
}

typedef struct arguments {
    const slg_tensor *a, *b;
    double mu;
} arguments;

static slg_status open(void *user, const void *given)
{
    logsumexp *m = user;
    const arguments *g = given;
    slg_ctx *ctx = m->is.ctx;
    SLG_TRY(row_data_copy(ctx, "a", g->a, false, -1, &m->a));
    const int64_t n = m->a.n;
    if (g->b) SLG_TRY(tensor_in(ctx, "b", g->b, DT_ROW | DT_F64, 1, 1));
    if (g->b) SLG_TRY(tensor_shape_is(ctx, "b", g->b, 1, &n));
    if (!(g->mu > 0) || !isfinite(g->mu))
        return slg_fail(ctx, SLG_ERR_RANGE, "mu is %g, must be above 0", g->mu);
    m->mu = g->mu;
    m->b = ctx_alloc(ctx, (size_t)(2 * n + m->a.d) * sizeof(double));
    if (!m->b) return SLG_ERR_MEMORY;
    m->p = m->b + n, m->mean = m->p + n;
    for (int64_t i = 0; i < n; i++) m->b[i] = 0;
    if (g->b) flat_read(g->b, m->b);
    m->is.dim = m->a.d;
    return SLG_OK;
}

static const objective_kind kind = {
    "slg_logsumexp_objective", sizeof(logsumexp), false, open, release, forward, curve, multiply
};

slg_status slg_logsumexp_objective(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                                   double mu, slg_objective *o)
{
    return objective_make(ctx, &kind, &(arguments){ a, b, mu }, o);
}
