/*
 * softmax_regression.c - see softlogit/regression.h; oracle.h does the work. Dense curvature
 * is A' diag(k) A and a correction of rank two, which is nothing where A's columns are taken
 * from their means under f (rows of B and of J J sum to 0): so a symmetric update of such
 * rows, times sqrt |k|.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "oracle.h"
#include "softlogit/regression.h"
#include "softmax/parts.h"

static const slg_softmax_regression_out defaults = { .size =
                                                         sizeof(slg_softmax_regression_out) };

void slg_softmax_regression_out_init(slg_softmax_regression_out *out, size_t size)
{
    options_init(out, size, &defaults, sizeof defaults);
}

typedef struct regression {
    oracle o;
    double *x, *p;
    double *scaled;          /* [panel, d] */
    double *zeros;           /* [d]; NULL: no regulariser */
    double *hessian, *gauss; /* [d, d]; NULL: not wanted */
    slg_softmax_regression_out out;
} regression;

enum { OF_HESSIAN, OF_GAUSS_NEWTON, OF_RIDGE };

static double weight_of(const oracle *g, int64_t i, int part)
{
    const double f = g->f[i];
    if (part == OF_RIDGE) return g->w2[i];
    return part == OF_HESSIAN ? f * (2 * f - g->b[i] - g->s) : f * f;
}

/* square += A' diag(k) A, A's columns less `mean`, panels in order. In `scaled` rows with k
   > 0 (or NaN) go first, those with k < 0 last: an update adds the former, another takes the
   latter off. */
static slg_status add_square(regression *r, int part, const double *mean, double *square)
{
    oracle *g = &r->o;
    const int64_t d = g->d;
    for (int64_t first = 0, ld; first < g->n; first += g->a.size) {
        const int64_t count = panels_count(&g->a, first);
        const double *a = panels_get(&g->a, first, count, g->z, &ld);
        int64_t up = 0, down = count;
        for (int64_t i = 0; i < count; i++) {
            const double k = weight_of(g, first + i, part), root = sqrt(fabs(k));
            if (k == 0) continue;
            double *to = r->scaled + (k < 0 ? --down : up++) * d;
            for (int64_t j = 0; j < d; j++) to[j] = root * (a[i * ld + j] - mean[j]);
        }
        SLG_TRY(blas_dsyrk(g->ctx, d, up, 1, r->scaled, square));
        SLG_TRY(blas_dsyrk(g->ctx, d, count - down, -1, r->scaled + down * d, square));
    }
    return SLG_OK;
}

static slg_status make_matrix(regression *r, int part, double *h)
{
    const oracle *g = &r->o;
    if (!h) return SLG_OK;
    memset(h, 0, (size_t)(g->d * g->d) * sizeof *h);
    SLG_TRY(add_square(r, part, g->back[BACK_F], h));
    return r->zeros ? add_square(r, OF_RIDGE, r->zeros, h) : SLG_OK;
}

static void write_matrix(const slg_tensor *to, const double *from)
{
    if (!to) return;
    const rows m = rows_of(to);
    for (int64_t i = 0; i < m.count; i++)
        for (int64_t j = 0; j < m.cols; j++) rows_put(&m, i, j, from[i * m.cols + j]);
}

typedef struct outer_product {
    rows to;
    const double *q, *x;
} outer_product;

/* A row of dA = q x'. */
static void outer_row(void *arg, int64_t i, int32_t worker)
{
    const outer_product *o = arg;
    const double q = o->q[i];
    char *row = rows_at(&o->to, i);
    (void)worker;
    if (o->to.plain)
        for (int64_t j = 0; j < o->to.cols; j++)
            ((float *)(void *)row)[j] = (float)(q * o->x[j]);
    else if (o->to.dtype == SLG_F64 && o->to.col_stride == 1)
        for (int64_t j = 0; j < o->to.cols; j++) ((double *)(void *)row)[j] = q * o->x[j];
    else
        for (int64_t j = 0; j < o->to.cols; j++) rows_put(&o->to, i, j, q * o->x[j]);
}

static void write_all(regression *r)
{
    const slg_softmax_regression_out *o = &r->out;
    oracle *g = &r->o;
    write_matrix(o->hessian, r->hessian);
    write_matrix(o->gauss_newton, r->gauss);
    vector_write(o->prob, g->f);
    vector_write(o->dx, g->back[BACK_GRAD]);
    vector_write(o->hessian_p, g->back[BACK_HESSIAN_P]);
    vector_write(o->gauss_newton_p, g->back[BACK_GAUSS_P]);
    if (o->da) {
        outer_product outer = { rows_of(o->da), g->coef[BACK_GRAD], r->x };
        pool_run(g->ctx, g->n, outer_row, &outer);
    }
    if (o->db) {
        for (int64_t i = 0; i < g->n; i++) g->y[i] = g->b[i] - g->f[i];
        vector_write(o->db, g->y);
    }
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_outputs(regression *r, const slg_tensor *const in[5])
{
    const slg_softmax_regression_out *o = &r->out;
    slg_ctx *ctx = r->o.ctx;
    const int64_t n = r->o.n, d = r->o.d;
    const struct {
        const char *name;
        const slg_tensor *t;
        int32_t axes;
        int64_t shape[2];
    } out[] = {
        { "out.prob", o->prob, 1, { n, 0 } },
        { "out.dx", o->dx, 1, { d, 0 } },
        { "out.da", o->da, 2, { n, d } },
        { "out.db", o->db, 1, { n, 0 } },
        { "out.hessian", o->hessian, 2, { d, d } },
        { "out.gauss_newton", o->gauss_newton, 2, { d, d } },
        { "out.hessian_p", o->hessian_p, 1, { d, 0 } },
        { "out.gauss_newton_p", o->gauss_newton_p, 1, { d, 0 } },
    };
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        if (!out[i].t) continue;
        SLG_TRY(
            tensor_out(ctx, out[i].name, out[i].t, DT_F32 | DT_F64, out[i].axes, out[i].axes));
        SLG_TRY(tensor_shape_is(ctx, out[i].name, out[i].t, out[i].axes, out[i].shape));
        bool clash = false;
        for (int k = 0; k < 5; k++) clash = clash || outputs_clash(out[i].t, in[k]);
        for (size_t k = 0; k < i; k++) clash = clash || outputs_clash(out[i].t, out[k].t);
        if (clash)
            return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", out[i].name);
    }
    if ((o->hessian_p || o->gauss_newton_p) && !in[4])
        return slg_fail(ctx, SLG_ERR_NULL, "p is NULL, and a product with it is asked for");
    return SLG_OK;
}

static slg_status reserve(regression *r, bool ridge)
{
    const slg_softmax_regression_out *o = &r->out;
    const size_t d = (size_t)r->o.d;
    const bool dense = o->hessian || o->gauss_newton;
    unsigned want = 0;
    if (o->dx || o->da) want |= 1u << BACK_GRAD;
    if (o->hessian_p) want |= 1u << BACK_HESSIAN_P;
    if (o->gauss_newton_p) want |= 1u << BACK_GAUSS_P;
    if (dense) want |= 1u << BACK_F;
    SLG_TRY(oracle_want(&r->o, want));
    if (!dense) return SLG_OK;
    r->scaled = arena_alloc(r->o.ctx, (size_t)r->o.a.size * d, sizeof(double));
    if (!r->scaled) return SLG_ERR_MEMORY;
    if (ridge) SLG_TRY(vector_read(r->o.ctx, "zeros", NULL, r->o.d, &r->zeros));
    if (o->hessian && !(r->hessian = arena_alloc(r->o.ctx, d, d * sizeof(double))))
        return SLG_ERR_MEMORY;
    if (o->gauss_newton && !(r->gauss = arena_alloc(r->o.ctx, d, d * sizeof(double))))
        return SLG_ERR_MEMORY;
    return SLG_OK;
}

static slg_status regress(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *x,
                          const slg_tensor *b, const slg_tensor *w, const slg_tensor *p,
                          slg_softmax_regression_out *out)
{
    regression r = { .out = defaults };
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", out, &r.out, sizeof r.out));
    SLG_TRY(option_reserved(ctx, "out.reserved", r.out.reserved));
    SLG_TRY(oracle_open(ctx, a, b, w, &r.o));
    if (!x) return slg_fail(ctx, SLG_ERR_NULL, "x is NULL");
    SLG_TRY(vector_read(ctx, "x", x, r.o.d, &r.x));
    if (p) SLG_TRY(vector_read(ctx, "p", p, r.o.d, &r.p));
    const slg_tensor *in[5] = { a, x, b, w, p };
    SLG_TRY(check_outputs(&r, in));
    SLG_TRY(reserve(&r, w != NULL));

    SLG_TRY(oracle_forward(&r.o, r.x, r.p));
    SLG_TRY(oracle_backward(&r.o));
    SLG_TRY(make_matrix(&r, OF_HESSIAN, r.hessian));
    SLG_TRY(make_matrix(&r, OF_GAUSS_NEWTON, r.gauss));
    r.out.loss = r.o.loss, r.out.value = r.o.value;
    write_all(&r);
    options_write(out, &r.out, sizeof r.out);
    return SLG_OK;
}

slg_status slg_softmax_regression(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *x,
                                  const slg_tensor *b, const slg_tensor *w, const slg_tensor *p,
                                  slg_softmax_regression_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_softmax_regression");
    return op_end(ctx, regress(ctx, a, x, b, w, p, out));
}
