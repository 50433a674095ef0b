/*
 * softmax_regression.c - see softlogit/regression.h. Every n x n matrix is a diagonal and
 * a correction of rank two, so a product with it is a few vectors of n numbers; pass 1 over A
 * makes A x and A p, pass 2 carries all coefficient vectors back at once.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "softlogit/regression.h"
#include "softmax/parts.h"

enum { VECTORS = 6, BLOCK = 64 /* rows of A in double at a time */ };

/* Coefficients of rows of A that are carried back to columns. */
enum { BACK_GRAD, BACK_HESSIAN_P, BACK_GAUSS_P, BACK_F, BACK_U, BACK_FF };

static const slg_softmax_regression_out defaults = { .size =
                                                         sizeof(slg_softmax_regression_out) };

void slg_softmax_regression_out_init(slg_softmax_regression_out *out, size_t size)
{
    options_init(out, size, &defaults, sizeof defaults);
}

typedef struct regression {
    slg_ctx *ctx;
    rows a;
    int64_t n, d;
    bool has_p;
    double *x, *b, *w2, *p; /* w2: w^2 */
    double *z, *y, *f;      /* [n]: A x, A p, softmax */
    double s, t;
    double *coef[VECTORS];  /* [n]; NULL: not needed */
    double *back[VECTORS];  /* [d]: A' coef */
    double *block, *scaled; /* [BLOCK, d] */
    double *square;         /* [d, d] */
    slg_softmax_regression_out out;
} regression;

static void forward_block(void *arg, int64_t task, int32_t worker)
{
    const regression *g = arg;
    const int64_t to = (task + 1) * BLOCK < g->n ? (task + 1) * BLOCK : g->n;
    (void)worker;
    for (int64_t i = task * BLOCK; i < to; i++) {
        double z = 0, y = 0;
        for (int64_t j = 0; j < g->d; j++) {
            const double a = rows_get(&g->a, i, j);
            z += a * g->x[j];
            if (g->has_p) y += a * g->p[j];
        }
        g->z[i] = z;
        g->y[i] = y;
    }
}

static void softmax(regression *g)
{
    double max = -INFINITY, sum = 0;
    bool bad = false;
    for (int64_t i = 0; i < g->n; i++) {
        bad = bad || isnan(g->z[i]) || g->z[i] == INFINITY;
        max = g->z[i] > max ? g->z[i] : max;
    }
    bad = bad || max == -INFINITY;
    for (int64_t i = 0; i < g->n; i++) sum += g->f[i] = bad ? NAN : exp(g->z[i] - max);
    for (int64_t i = 0; i < g->n; i++) g->f[i] /= sum;
}

/* Where f is 0 and the regulariser is off, a row of A counts for nothing, whatever it holds. */
static double ridge(const regression *g, int64_t i, double v)
{
    return g->w2[i] == 0 ? 0 : g->w2[i] * v;
}

static void value_and_coefficients(regression *g)
{
    double loss = 0, reg = 0, ff = 0, fy = 0, uy = 0, ffy = 0;
    g->s = g->t = 0;
    for (int64_t i = 0; i < g->n; i++) {
        const double f = g->f[i], c = f - g->b[i], v = 2 * f - g->b[i];
        loss += c * c;
        reg += ridge(g, i, g->z[i] * g->z[i]);
        g->s += f * c;
        g->t += f * v;
        ff += f * f;
        if (f == 0) continue;
        fy += f * g->y[i];
        uy += f * v * g->y[i];
        ffy += f * f * g->y[i];
    }
    g->out.loss = 0.5 * loss;
    g->out.value = 0.5 * (loss + reg);
    for (int64_t i = 0; i < g->n; i++) {
        const double f = g->f[i], c = f - g->b[i], v = 2 * f - g->b[i],
                     y = f == 0 ? 0 : g->y[i];
        g->coef[BACK_GRAD][i] = f * (c - g->s) + ridge(g, i, g->z[i]);
        g->coef[BACK_F][i] = f;
        g->coef[BACK_U][i] = f * v;
        g->coef[BACK_FF][i] = f * f;
        g->coef[BACK_HESSIAN_P][i] = f * (v - g->s) * y - f * v * fy - f * uy +
                                     (g->s + g->t) * f * fy + ridge(g, i, g->y[i]);
        g->coef[BACK_GAUSS_P][i] =
            f * f * y - f * f * fy - f * ffy + ff * f * fy + ridge(g, i, g->y[i]);
    }
}

/* Columns [task * BLOCK, ...) of A' coef: each by one task, its rows in order. */
static void backward_block(void *arg, int64_t task, int32_t worker)
{
    const regression *g = arg;
    const int64_t from = task * BLOCK, to = from + BLOCK < g->d ? from + BLOCK : g->d;
    (void)worker;
    for (int v = 0; v < VECTORS; v++)
        for (int64_t j = from; j < to; j++) g->back[v][j] = 0;
    for (int64_t i = 0; i < g->n; i++)
        for (int64_t j = from; j < to; j++) {
            const double a = rows_get(&g->a, i, j);
            for (int v = 0; v < VECTORS; v++) {
                const double q = g->coef[v][i];
                if (q != 0) g->back[v][j] += q * a;
            }
        }
}

/* square = A' diag(k) A, k = f o (v - s) or f o f, plus w^2; blocks of rows in order. */
static slg_status weighted_square(regression *g, bool hessian)
{
    const int64_t d = g->d;
    memset(g->square, 0, (size_t)(d * d) * sizeof *g->square);
    for (int64_t first = 0; first < g->n; first += BLOCK) {
        const int64_t count = g->n - first < BLOCK ? g->n - first : BLOCK;
        for (int64_t r = 0; r < count; r++) {
            const int64_t i = first + r;
            const double f = g->f[i], k = hessian ? f * (2 * f - g->b[i] - g->s) : f * f;
            const double weight = k + g->w2[i];
            for (int64_t j = 0; j < d; j++) {
                const double a = weight == 0 ? 0 : rows_get(&g->a, i, j);
                g->block[r * d + j] = a;
                g->scaled[r * d + j] = weight * a;
            }
        }
        SLG_TRY(blas_dgemm(g->ctx, true, false, d, d, count, 1, g->scaled, d, g->block, d, 1,
                           g->square, d));
    }
    return SLG_OK;
}

static slg_status write_matrix(regression *g, bool hessian, const slg_tensor *to)
{
    if (!to) return SLG_OK;
    SLG_TRY(weighted_square(g, hessian));
    const rows m = rows_of(to);
    const double *f = g->back[BACK_F], *u = g->back[hessian ? BACK_U : BACK_FF];
    double both = g->s + g->t;
    if (!hessian) {
        both = 0;
        for (int64_t i = 0; i < g->n; i++) both += g->f[i] * g->f[i];
    }
    for (int64_t i = 0; i < g->d; i++)
        for (int64_t j = 0; j <= i; j++) {
            double h = g->square[i * g->d + j] - u[i] * f[j] - f[i] * u[j] + both * f[i] * f[j];
            rows_put(&m, i, j, h);
            rows_put(&m, j, i, h);
        }
    return SLG_OK;
}

static void write_vector(const slg_tensor *to, const double *from)
{
    if (!to) return;
    const rows m = rows_of(to);
    for (int64_t i = 0; i < m.cols; i++) rows_put(&m, 0, i, from[i]);
}

static slg_status write_all(regression *g)
{
    const slg_softmax_regression_out *o = &g->out;
    SLG_TRY(write_matrix(g, true, o->hessian));
    SLG_TRY(write_matrix(g, false, o->gauss_newton));
    write_vector(o->prob, g->f);
    write_vector(o->dx, g->back[BACK_GRAD]);
    write_vector(o->hessian_p, g->back[BACK_HESSIAN_P]);
    write_vector(o->gauss_newton_p, g->back[BACK_GAUSS_P]);
    if (o->da) {
        const rows m = rows_of(o->da);
        for (int64_t i = 0; i < g->n; i++)
            for (int64_t j = 0; j < g->d; j++)
                rows_put(&m, i, j, g->coef[BACK_GRAD][i] * g->x[j]);
    }
    if (o->db) {
        const rows m = rows_of(o->db);
        for (int64_t i = 0; i < g->n; i++) rows_put(&m, 0, i, g->b[i] - g->f[i]);
    }
    return SLG_OK;
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status read_vector(regression *g, const char *name, const slg_tensor *t,
                              int64_t size, double **to)
{
    *to = arena_alloc(g->ctx, (size_t)size, sizeof **to);
    if (!*to) return SLG_ERR_MEMORY;
    if (!t) {
        for (int64_t i = 0; i < size; i++) (*to)[i] = 0;
        return SLG_OK;
    }
    SLG_TRY(tensor_in(g->ctx, name, t, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(g->ctx, name, t, 1, &size));
    const rows m = rows_of(t);
    for (int64_t i = 0; i < size; i++) (*to)[i] = rows_get(&m, 0, i);
    return SLG_OK;
}

static slg_status check_outputs(regression *g, const slg_tensor *const in[5])
{
    const slg_softmax_regression_out *o = &g->out;
    const int64_t n = g->n, d = g->d;
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
        SLG_TRY(tensor_out(g->ctx, out[i].name, out[i].t, DT_F32 | DT_F64, out[i].axes,
                           out[i].axes));
        SLG_TRY(tensor_shape_is(g->ctx, out[i].name, out[i].t, out[i].axes, out[i].shape));
        bool clash = false;
        for (int k = 0; k < 5; k++) clash = clash || outputs_clash(out[i].t, in[k]);
        for (size_t k = 0; k < i; k++) clash = clash || outputs_clash(out[i].t, out[k].t);
        if (clash)
            return slg_fail(g->ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", out[i].name);
    }
    if ((o->hessian_p || o->gauss_newton_p) && !in[4])
        return slg_fail(g->ctx, SLG_ERR_NULL, "p is NULL, and a product with it is asked for");
    return SLG_OK;
}

static slg_status reserve(regression *g)
{
    const bool dense = g->out.hessian || g->out.gauss_newton;
    const size_t n = (size_t)g->n, d = (size_t)g->d;
    double *of_n = arena_alloc(g->ctx, n * (VECTORS + 3), sizeof(double));
    double *of_d = arena_alloc(g->ctx, d * VECTORS, sizeof(double));
    if (!of_n || !of_d) return SLG_ERR_MEMORY;
    g->z = of_n, g->y = of_n + n, g->f = of_n + 2 * n;
    for (size_t v = 0; v < VECTORS; v++)
        g->coef[v] = of_n + (3 + v) * n, g->back[v] = of_d + v * d;
    if (!dense) return SLG_OK;
    g->block = arena_alloc(g->ctx, BLOCK * d, sizeof(double));
    g->scaled = arena_alloc(g->ctx, BLOCK * d, sizeof(double));
    g->square = arena_alloc(g->ctx, d, d * sizeof(double));
    return g->block && g->scaled && g->square ? SLG_OK : SLG_ERR_MEMORY;
}

static slg_status regress(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *x,
                          const slg_tensor *b, const slg_tensor *w, const slg_tensor *p,
                          slg_softmax_regression_out *out)
{
    regression g = { .ctx = ctx, .out = defaults, .has_p = p != NULL };
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", out, &g.out, sizeof g.out));
    if (g.out.reserved != 0)
        return slg_fail(ctx, SLG_ERR_OPTIONS, "out.reserved is %d, must be 0", g.out.reserved);
    SLG_TRY(tensor_in(ctx, "a", a, DT_F32 | DT_F64, 2, 2));
    if (!x || !b) return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", x ? "b" : "x");
    op_detail(ctx, a);
    g.a = rows_of(a);
    g.n = a->shape[0], g.d = a->shape[1];
    if (g.n < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "a has no rows");
    SLG_TRY(read_vector(&g, "x", x, g.d, &g.x));
    SLG_TRY(read_vector(&g, "b", b, g.n, &g.b));
    SLG_TRY(read_vector(&g, "w", w, g.n, &g.w2));
    SLG_TRY(read_vector(&g, "p", p, g.d, &g.p));
    for (int64_t i = 0; i < g.n; i++) g.w2[i] *= g.w2[i];
    const slg_tensor *in[5] = { a, x, b, w, p };
    SLG_TRY(check_outputs(&g, in));
    SLG_TRY(reserve(&g));

    pool_run(ctx, (g.n + BLOCK - 1) / BLOCK, forward_block, &g);
    softmax(&g);
    value_and_coefficients(&g);
    pool_run(ctx, (g.d + BLOCK - 1) / BLOCK, backward_block, &g);
    SLG_TRY(write_all(&g));
    options_write(out, &g.out, sizeof g.out);
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
