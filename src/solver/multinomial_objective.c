/*
 * multinomial_objective.c - see softlogit/solver.h. Value and gradient go through blocks of
 * rows of logits; curvature keeps P whole. What is left of 1 beside the likeliest class is kept
 * too, so 1 - p and p - 1 lose no digits where p is near 1.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "objective.h"

enum { BLOCK = 1 << 17 /* logits */, ROWS = 32 /* of a task */ };

typedef struct multinomial {
    slg_ctx *ctx;
    int64_t n, d, classes;
    slg_logistic_opts opts;
    double *x, *rest, *loss; /* [n, d], [n]: 1 - max p, [n] */
    int64_t *label, *top;    /* [n] */
    double *p, *u;           /* [n, classes]; NULL until curvature is asked for */
    int32_t which;
} multinomial;

static const char op[] = "slg_multinomial_objective";

static void release(void *user)
{
    multinomial *m = user;
    slg_ctx *ctx = m->ctx;
    ctx_free(ctx, m->x), ctx_free(ctx, m->rest), ctx_free(ctx, m->p), ctx_free(ctx, m);
}

/* ---- Rows ------------------------------------------------------------------------------- */

typedef struct row_run {
    multinomial *m;
    int64_t first, count;
    double *z; /* [count, classes]: of the rows from first on */
    void (*fn)(multinomial *m, int64_t i, double *z);
} row_run;

static void rows_task(void *arg, int64_t task, int32_t worker)
{
    const row_run *r = arg;
    (void)worker;
    for (int64_t i = task * ROWS; i < (task + 1) * ROWS && i < r->count; i++)
        r->fn(r->m, r->first + i, r->z + i * r->m->classes);
}

static void rows_all(multinomial *m, int64_t first, int64_t count, double *z,
                     void (*fn)(multinomial *m, int64_t i, double *z))
{
    row_run r = { m, first, count, z, fn };
    pool_run(m->ctx, (count + ROWS - 1) / ROWS, rows_task, &r);
}

/* Logits to probabilities; loss, top and rest. */
static void softmax(multinomial *m, int64_t i, double *z)
{
    const int64_t y = m->label[i];
    double top = -INFINITY, rest = 0;
    int64_t at = 0;
    for (int64_t c = 0; c < m->classes; c++)
        if (!(z[c] <= top) && !isnan(top)) top = z[c], at = c;
    const double own = z[y];
    for (int64_t c = 0; c < m->classes; c++) {
        z[c] = isfinite(top) ? exp(z[c] - top) : NAN;
        if (c != at) rest += z[c];
    }
    m->loss[i] = isfinite(top) ? top - own + log1p(rest) : NAN;
    m->top[i] = at;
    m->rest[i] = rest / (1 + rest);
    for (int64_t c = 0; c < m->classes; c++) z[c] /= 1 + rest;
}

static double other(const multinomial *m, int64_t i, int64_t c, double p)
{
    return c == m->top[i] ? m->rest[i] : 1 - p;
}

/* p - onehot */
static void residual(multinomial *m, int64_t i, double *z)
{
    z[m->label[i]] = -other(m, i, m->label[i], z[m->label[i]]);
}

static void diagonal_weight(multinomial *m, int64_t i, double *u)
{
    const double *p = m->p + i * m->classes;
    for (int64_t c = 0; c < m->classes; c++)
        u[c] = m->which == SLG_FISHER ? p[c] * p[c] : p[c] * other(m, i, c, p[c]);
}

/* X v' to what X' turns into the product. */
static void product_row(multinomial *m, int64_t i, double *u)
{
    const double *p = m->p + i * m->classes;
    double mean = 0;
    for (int64_t c = 0; c < m->classes; c++) mean += p[c] * u[c];
    for (int64_t c = 0; c < m->classes; c++)
        u[c] = m->which == SLG_FISHER ? p[c] * mean : p[c] * (u[c] - mean);
}

/* ---- Value ------------------------------------------------------------------------------ */

static slg_status logits(multinomial *m, int64_t first, int64_t count, const double *w,
                         double *z)
{
    SLG_TRY(blas_dgemm(m->ctx, false, true, count, m->classes, m->d, 1, m->x + first * m->d,
                       m->d, w, m->d, 0, z, m->classes));
    return SLG_OK;
}

static void add_ridge(const multinomial *m, const double *v, double *to)
{
    for (int64_t i = 0; i < m->classes * m->d && m->opts.ridge != 0; i++)
        if (has_ridge(i, m->d, m->opts.intercept)) to[i] += m->opts.ridge * v[i];
}

static slg_status forward(multinomial *m, const double *w, double *value, double *grad)
{
    const int64_t classes = m->classes, d = m->d;
    const int64_t block = classes < BLOCK ? BLOCK / classes : 1;
    double *z =
        arena_alloc(m->ctx, (size_t)(block < m->n ? block : m->n), (size_t)classes * sizeof *z);
    double loss = 0, square = 0;
    if (!z) return SLG_ERR_MEMORY;
    for (int64_t first = 0; first < m->n; first += block) {
        const int64_t count = m->n - first < block ? m->n - first : block;
        SLG_TRY(logits(m, first, count, w, z));
        rows_all(m, first, count, z, softmax);
        if (!grad) continue;
        rows_all(m, first, count, z, residual);
        SLG_TRY(blas_dgemm(m->ctx, true, false, classes, d, count, 1 / (double)m->n, z, classes,
                           m->x + first * d, d, first > 0, grad, d));
    }
    for (int64_t i = 0; i < m->n; i++) loss += m->loss[i];
    for (int64_t i = 0; i < classes * d; i++)
        if (has_ridge(i, d, m->opts.intercept)) square += w[i] * w[i];
    *value = loss / (double)m->n + 0.5 * m->opts.ridge * square;
    if (grad) add_ridge(m, w, grad);
    return SLG_OK;
}

static slg_status value(void *user, const double *x, double *f, double *grad)
{
    multinomial *m = user;
    op_begin(m->ctx, op);
    return op_end(m->ctx, forward(m, x, f, grad));
}

/* ---- Curvature -------------------------------------------------------------------------- */

/* Weight of x_i x_i' in the block of classes a and b. */
static double pair_weight(const multinomial *m, int64_t i, int64_t a, int64_t b)
{
    const double *p = m->p + i * m->classes;
    if (m->which == SLG_FISHER) return p[a] * p[b];
    return a == b ? p[a] * other(m, i, a, p[a]) : -p[a] * p[b];
}

static slg_status dense(multinomial *m, double *h)
{
    const int64_t n = m->n, d = m->d, classes = m->classes, size = classes * d;
    double *scaled = arena_alloc(m->ctx, (size_t)n, (size_t)d * sizeof *scaled);
    double *part = arena_alloc(m->ctx, (size_t)d, (size_t)d * sizeof *part);
    if (!scaled || !part) return SLG_ERR_MEMORY;
    for (int64_t a = 0; a < classes; a++)
        for (int64_t b = a; b < classes; b++) {
            for (int64_t i = 0; i < n; i++) {
                const double k = pair_weight(m, i, a, b) / (double)n;
                for (int64_t j = 0; j < d; j++)
                    scaled[i * d + j] = k == 0 ? 0 : k * m->x[i * d + j];
            }
            SLG_TRY(
                blas_dgemm(m->ctx, true, false, d, d, n, 1, m->x, d, scaled, d, 0, part, d));
            for (int64_t i = 0; i < d; i++)
                for (int64_t j = i; j < d; j++) { /* a symmetric block, at (a, b) and (b, a) */
                    const double v = part[i * d + j];
                    h[(a * d + i) * size + b * d + j] = h[(a * d + j) * size + b * d + i] = v;
                    h[(b * d + i) * size + a * d + j] = h[(b * d + j) * size + a * d + i] = v;
                }
        }
    for (int64_t i = 0; i < size; i++)
        if (has_ridge(i, d, m->opts.intercept)) h[i * size + i] += m->opts.ridge;
    return SLG_OK;
}

static slg_status diagonal(multinomial *m, double *h)
{
    const int64_t n = m->n, d = m->d, classes = m->classes;
    double *square = arena_alloc(m->ctx, (size_t)n, (size_t)d * sizeof *square);
    if (!square) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < n * d; i++) square[i] = m->x[i] * m->x[i];
    rows_all(m, 0, n, m->u, diagonal_weight);
    SLG_TRY(blas_dgemm(m->ctx, true, false, classes, d, n, 1 / (double)n, m->u, classes, square,
                       d, 0, h, d));
    for (int64_t i = 0; i < classes * d; i++)
        if (has_ridge(i, d, m->opts.intercept)) h[i] += m->opts.ridge;
    return SLG_OK;
}

static slg_status curve(multinomial *m, const double *x, int32_t which, int32_t form, double *h)
{
    if (which < SLG_HESSIAN || which > SLG_FISHER || form == SLG_FORM_RANK_ONE ||
        (form == SLG_FORM_DENSE && m->classes * m->d > m->opts.dense_limit))
        return curvature_unsupported(m->ctx, which, form);
    if (!m->p) m->p = doubles_alloc(m->ctx, 2 * m->n, m->classes, 0);
    if (!m->p) return SLG_ERR_MEMORY;
    m->u = m->p + m->n * m->classes, m->which = which;
    SLG_TRY(logits(m, 0, m->n, x, m->p));
    rows_all(m, 0, m->n, m->p, softmax);
    if (which == SLG_FISHER) rows_all(m, 0, m->n, m->p, residual);
    if (form == SLG_FORM_DENSE) return dense(m, h);
    return form == SLG_FORM_DIAGONAL ? diagonal(m, h) : SLG_OK;
}

static slg_status curvature(void *user, const double *x, int32_t which, int32_t form,
                            double *scale, double *h)
{
    multinomial *m = user;
    (void)scale;
    op_begin(m->ctx, op);
    return op_end(m->ctx, curve(m, x, which, form, h));
}

static slg_status multiply(multinomial *m, const double *v, double *hv)
{
    SLG_TRY(logits(m, 0, m->n, v, m->u));
    rows_all(m, 0, m->n, m->u, product_row);
    SLG_TRY(blas_dgemm(m->ctx, true, false, m->classes, m->d, m->n, 1 / (double)m->n, m->u,
                       m->classes, m->x, m->d, 0, hv, m->d));
    add_ridge(m, v, hv);
    return SLG_OK;
}

static slg_status product(void *user, const double *x, int32_t which, const double *v,
                          double *hv)
{
    multinomial *m = user;
    (void)x, (void)which;
    op_begin(m->ctx, op);
    return op_end(m->ctx, multiply(m, v, hv));
}

/* ---- Life ------------------------------------------------------------------------------- */

static slg_status open(multinomial *m, const slg_tensor *x, const slg_tensor *labels,
                       const slg_logistic_opts *opts)
{
    slg_ctx *ctx = m->ctx;
    SLG_TRY(logistic_options(ctx, opts, &m->opts));
    SLG_TRY(matrix_copy(ctx, "x", x, m->opts.intercept != 0, &m->x, &m->n, &m->d));
    SLG_TRY(tensor_in(ctx, "labels", labels, DT_INT, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "labels", labels, 1, &m->n));
    if (m->classes < 1 || m->classes > INT32_MAX / m->d)
        return slg_fail(ctx, SLG_ERR_RANGE, "classes is %lld, must be from 1 to %lld",
                        (long long)m->classes, (long long)(INT32_MAX / m->d));
    m->rest = ctx_alloc(ctx, (size_t)m->n * (2 * sizeof(double) + 2 * sizeof(int64_t)));
    if (!m->rest) return SLG_ERR_MEMORY;
    m->loss = m->rest + m->n;
    m->label = (int64_t *)(void *)(m->loss + m->n), m->top = m->label + m->n;
    const rows r = rows_of(labels);
    for (int64_t i = 0; i < m->n; i++) {
        m->label[i] = rows_get_int(&r, 0, i);
        if (m->label[i] < 0 || m->label[i] >= m->classes)
            return slg_fail(ctx, SLG_ERR_RANGE, "labels[%lld] is %lld, classes is %lld",
                            (long long)i, (long long)m->label[i], (long long)m->classes);
    }
    return SLG_OK;
}

slg_status slg_multinomial_objective(slg_ctx *ctx, const slg_tensor *x,
                                     const slg_tensor *labels, int64_t classes,
                                     const slg_logistic_opts *opts, slg_objective *o)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, op);
    slg_status status = objective_check(ctx, o);
    multinomial *m = status ? NULL : ctx_alloc(ctx, sizeof *m);
    if (!m) return op_end(ctx, status ? status : SLG_ERR_MEMORY);
    *m = (multinomial){ .ctx = ctx, .classes = classes };
    status = open(m, x, labels, opts);
    if (status)
        release(m);
    else
        objective_write(o, &(slg_objective){ .dim = m->classes * m->d,
                                             .user = m,
                                             .value = value,
                                             .curvature = curvature,
                                             .product = product,
                                             .free = release });
    return op_end(ctx, status);
}
