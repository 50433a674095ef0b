/*
 * logistic_objective.c - see softlogit/solver.h.
 */
#include <math.h>

#include "core/options.h"
#include "objective.h"

typedef struct logistic {
    built_in is;
    row_data a;
    slg_logistic_opts opts;
    double *y, *w; /* [n]; w is curvature's, which products use */
    int32_t which;
    row_curvature c;
} logistic;

static void release(void *user)
{
    logistic *m = user;
    ctx_free(m->is.ctx, m->a.x), ctx_free(m->is.ctx, m->y);
}

/* Of a block, in scratch: t = y z, e = exp(-|t|). sigmoid(-t) is e / (1 + e) or 1 / (1 + e), so
   its relative precision holds on both sides. */
typedef struct margins {
    double *t, *e;
} margins;

static margins margins_of(const row_pass *p, const row_block *b)
{
    const logistic *m = p->user;
    const double *y = m->y + b->first;
    const margins v = { b->scratch, b->scratch + b->ld };
    for (int64_t i = 0; i < b->count; i++) {
        v.t[i] = b->z[i] * y[i];
        v.e[i] = -fabs(v.t[i]);
    }
    p->ctx->k.exp_f64((size_t)b->count, v.e, v.e);
    return v;
}

static double sigmoid_neg(double t, double e) { return (t > 0 ? e : 1) / (1 + e); }

static void loss_rows(const row_pass *p, row_block *b)
{
    const logistic *m = p->user;
    const double *y = m->y + b->first;
    const margins v = margins_of(p, b);
    double *log1p_e = b->scratch + 2 * b->ld, loss = 0;
    p->ctx->k.log1p_f64((size_t)b->count, v.e, log1p_e);
    for (int64_t i = 0; i < b->count; i++) {
        loss += fmax(-v.t[i], 0) + log1p_e[i];
        b->z[i] = -sigmoid_neg(v.t[i], v.e[i]) * y[i];
    }
    b->sums[0] += loss;
}

static slg_status forward(void *user, const double *x, double *value, double *grad)
{
    logistic *m = user;
    const double n = (double)m->a.n;
    row_pass p = { .ctx = m->is.ctx,
                   .data = &m->a,
                   .k = 1,
                   .w = x,
                   .single = m->opts.precision == SLG_PRECISION_SINGLE,
                   .back = grad != NULL,
                   .fn = loss_rows,
                   .user = m };
    SLG_TRY(row_pass_run(&p));
    *value = row_pass_sum(&p, 0) / n + ridge_value(&m->opts, m->a.d, 1, x);
    if (!grad) return SLG_OK;
    row_pass_gather(&p, 1 / n, NULL, grad);
    ridge_add(&m->opts, m->a.d, 1, x, grad);
    return SLG_OK;
}

static void weight_rows(const row_pass *p, row_block *b)
{
    const logistic *m = p->user;
    const margins v = margins_of(p, b);
    for (int64_t i = 0; i < b->count; i++) {
        const double t = v.t[i], e = v.e[i], q = sigmoid_neg(t, e);
        m->w[b->first + i] =
            q * (m->which == SLG_FISHER ? q : sigmoid_neg(-t, e)) / (double)m->a.n;
    }
}

static slg_status curve(void *user, const double *x, int32_t which, int32_t form, double *scale,
                        double *h)
{
    logistic *m = user;
    (void)scale;
    if (which < SLG_HESSIAN || which > SLG_FISHER || form == SLG_FORM_RANK_ONE ||
        (form == SLG_FORM_DENSE && m->a.d > m->opts.dense_limit))
        return curvature_unsupported(m->is.ctx, which, form);
    m->which = which;
    row_pass p = {
        .ctx = m->is.ctx, .data = &m->a, .k = 1, .w = x, .fn = weight_rows, .user = m
    };
    p.single = m->opts.precision == SLG_PRECISION_SINGLE;
    SLG_TRY(row_pass_run(&p));
    m->c = (row_curvature){ .ctx = m->is.ctx,
                            .a = &m->a,
                            .w = m->w,
                            .single = p.single,
                            .ridge = m->opts.ridge,
                            .intercept = m->opts.intercept != 0 };
    return row_curvature_form(&m->c, form, h);
}

static slg_status multiply(void *user, const double *x, int32_t which, const double *v,
                           double *hv)
{
    const logistic *m = user;
    (void)x, (void)which;
    return row_curvature_product(&m->c, v, hv);
}

typedef struct arguments {
    const slg_tensor *a, *y;
    const slg_logistic_opts *opts;
} arguments;

static slg_status open(void *user, const void *given)
{
    logistic *m = user;
    const arguments *g = given;
    slg_ctx *ctx = m->is.ctx;
    SLG_TRY(logistic_open(&m->is, g->opts, "a", g->a, &m->opts, &m->a));
    SLG_TRY(tensor_in(ctx, "y", g->y, DT_INT | DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "y", g->y, 1, &m->a.n));
    m->y = ctx_alloc(ctx, (size_t)m->a.n * 2 * sizeof(double));
    if (!m->y) return SLG_ERR_MEMORY;
    m->w = m->y + m->a.n;
    flat_read(g->y, m->y);
    for (int64_t i = 0; i < m->a.n; i++)
        if (m->y[i] != 1 && m->y[i] != -1)
            return slg_fail(ctx, SLG_ERR_RANGE, "y[%lld] is %g, must be -1 or 1", (long long)i,
                            m->y[i]);
    m->is.dim = m->a.d;
    return SLG_OK;
}

static const objective_kind kind = {
    "slg_logistic_objective", sizeof(logistic), false, open, release, forward, curve, multiply
};

slg_status slg_logistic_objective(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *y,
                                  const slg_logistic_opts *opts, slg_objective *o)
{
    return objective_make(ctx, &kind, &(arguments){ a, y, opts }, o);
}
