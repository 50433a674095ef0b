/*
 * multinomial_objective.c - see softlogit/solver.h. All goes through row_pass.h: blocks of
 * rows, a row in a column of z [classes, rows], so that what is done to each class is a loop
 * over rows. Curvature keeps p whole, and 1 - p: what is left of 1 beside the likeliest class
 * is summed from the others, so 1 - p and p - 1 lose no digits where p is near 1.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "objective.h"

typedef struct multinomial {
    built_in is;
    row_data x;
    int64_t classes;
    slg_logistic_opts opts;
    int32_t *label; /* [n] */
    double *p, *q; /* [classes, n]: p, or p - onehot for SLG_FISHER; 1 - p. NULL until curvature
                       is asked for */
    int32_t which;
} multinomial;

static void release(void *user)
{
    multinomial *m = user;
    slg_ctx *ctx = m->is.ctx;
    ctx_free(ctx, m->x.x), ctx_free(ctx, m->label), ctx_free(ctx, m->p);
}

static row_pass pass_of(const multinomial *m, const double *w, bool back,
                        void (*fn)(const row_pass *p, row_block *b))
{
    return (row_pass){ .ctx = m->is.ctx,
                       .data = &m->x,
                       .k = m->classes,
                       .w = w,
                       .single = m->opts.precision == SLG_PRECISION_SINGLE,
                       .back = back,
                       .fn = fn,
                       .user = m };
}

/* ---- Softmax of a block ----------------------------------------------------------------- */

/* Numbers a row, in scratch: the largest logit, the sum of exp(z - top) less one 1 of those
   that are 1, and 1 / (1 + rest). */
typedef struct lanes {
    double *top, *rest, *inverse;
} lanes;

static lanes lanes_of(const row_block *b)
{
    return (lanes){ b->scratch, b->scratch + b->ld, b->scratch + 2 * b->ld };
}

static double larger(double a, double b) { return a > b ? a : b; } /* NaN: shows in exp */

/* z = exp(z - top), rest and inverse. */
static lanes exponentials(const row_pass *p, const row_block *b)
{
    const int64_t n = b->count, ld = b->ld;
    const lanes r = lanes_of(b);
    for (int64_t i = 0; i < n; i++) r.top[i] = b->z[i], r.rest[i] = -1;
    for (int64_t c = 1; c < p->k; c++)
        for (int64_t i = 0; i < n; i++) r.top[i] = larger(b->z[c * ld + i], r.top[i]);
    for (int64_t c = 0; c < p->k; c++) {
        double *z = b->z + c * ld;
        for (int64_t i = 0; i < n; i++) z[i] -= r.top[i];
        p->ctx->k.exp_f64((size_t)n, z, z);
    }
    /* The ones, of which one is cancelled, are added before the rest. */
    for (int64_t c = 0; c < p->k; c++)
        for (int64_t i = 0; i < n; i++) r.rest[i] += b->z[c * ld + i] == 1 ? 1 : 0;
    for (int64_t c = 0; c < p->k; c++)
        for (int64_t i = 0; i < n; i++) {
            const double e = b->z[c * ld + i];
            r.rest[i] += e == 1 ? 0 : e;
        }
    for (int64_t i = 0; i < n; i++) r.inverse[i] = 1 / (1 + r.rest[i]);
    return r;
}

/* 1 - p for exp(z - top) = e. */
static double other(double e, double rest, double inverse)
{
    return (e == 1 ? rest : 1 + (rest - e)) * inverse;
}

/* The sum of losses; z = p - onehot. */
static void loss_rows(const row_pass *p, row_block *b)
{
    const multinomial *m = p->user;
    const int32_t *label = m->label + b->first;
    const int64_t n = b->count, ld = b->ld;
    double loss = 0, *own = b->scratch + 3 * ld;
    for (int64_t i = 0; i < n; i++) own[i] = b->z[label[i] * ld + i];
    const lanes r = exponentials(p, b);
    for (int64_t i = 0; i < n; i++) own[i] = r.top[i] - own[i];
    p->ctx->k.log1p_f64((size_t)n, r.rest, r.top); /* top is not needed any more */
    for (int64_t i = 0; i < n; i++) loss += own[i] + r.top[i];
    b->sums[0] += loss;
    if (!p->back) return;
    for (int64_t i = 0; i < n; i++)
        own[i] = -other(b->z[label[i] * ld + i], r.rest[i], r.inverse[i]);
    for (int64_t c = 0; c < p->k; c++)
        for (int64_t i = 0; i < n; i++) b->z[c * ld + i] *= r.inverse[i];
    for (int64_t i = 0; i < n; i++) b->z[label[i] * ld + i] = own[i];
}

static slg_status forward(void *user, const double *w, double *value, double *grad)
{
    const multinomial *m = user;
    const double n = (double)m->x.n;
    row_pass p = pass_of(m, w, grad != NULL, loss_rows);
    SLG_TRY(row_pass_run(&p));
    *value = row_pass_sum(&p, 0) / n + ridge_value(&m->opts, m->x.d, m->classes, w);
    if (!grad) return SLG_OK;
    row_pass_gather(&p, 1 / n, NULL, grad);
    ridge_add(&m->opts, m->x.d, m->classes, w, grad);
    return SLG_OK;
}

/* ---- Curvature -------------------------------------------------------------------------- */

static void keep_rows(const row_pass *p, row_block *b)
{
    const multinomial *m = p->user;
    const int64_t n = m->x.n;
    const lanes r = exponentials(p, b);
    for (int64_t c = 0; c < p->k; c++)
        for (int64_t i = 0; i < b->count; i++) {
            const double e = b->z[c * b->ld + i], q = other(e, r.rest[i], r.inverse[i]);
            const int64_t at = c * n + b->first + i;
            const bool own = m->which == SLG_FISHER && m->label[b->first + i] == c;
            m->q[at] = q;
            m->p[at] = own ? -q : e * r.inverse[i];
        }
}

/* X v' to what X' turns into the product. */
static void product_rows(const row_pass *p, row_block *b)
{
    const multinomial *m = p->user;
    const double *prob = m->p + b->first;
    double *mean = b->scratch;
    memset(mean, 0, (size_t)b->count * sizeof *mean);
    for (int64_t c = 0; c < p->k; c++)
        for (int64_t i = 0; i < b->count; i++)
            mean[i] += prob[c * m->x.n + i] * b->z[c * b->ld + i];
    for (int64_t c = 0; c < p->k; c++)
        for (int64_t i = 0; i < b->count; i++) {
            double *z = &b->z[c * b->ld + i];
            *z = prob[c * m->x.n + i] * (m->which == SLG_FISHER ? mean[i] : *z - mean[i]);
        }
}

/* Weight of x_i x_i' in the block of classes a and b. */
static double pair_weight(const multinomial *m, int64_t i, int64_t a, int64_t b)
{
    const double pa = m->p[a * m->x.n + i], pb = m->p[b * m->x.n + i];
    if (m->which == SLG_FISHER) return pa * pb;
    return a == b ? pa * m->q[a * m->x.n + i] : -pa * pb;
}

static slg_status dense(multinomial *m, double *h)
{
    slg_ctx *ctx = m->is.ctx;
    const int64_t n = m->x.n, d = m->x.d, ld = m->x.ld, classes = m->classes,
                  size = classes * d;
    double *wide = arena_alloc(ctx, (size_t)n, (size_t)ld * sizeof *wide);
    double *scaled = arena_alloc(ctx, (size_t)n, (size_t)d * sizeof *scaled);
    double *part = arena_alloc(ctx, (size_t)d, (size_t)d * sizeof *part);
    if (!wide || !scaled || !part) return SLG_ERR_MEMORY;
    const double *x = row_data_doubles(&m->x, 0, n, wide);
    for (int64_t a = 0; a < classes; a++)
        for (int64_t b = a; b < classes; b++) {
            for (int64_t i = 0; i < n; i++) {
                const double k = pair_weight(m, i, a, b) / (double)n;
                for (int64_t j = 0; j < d; j++)
                    scaled[i * d + j] = k == 0 ? 0 : k * x[i * ld + j];
            }
            SLG_TRY(blas_dgemm(ctx, true, false, d, d, n, 1, x, ld, scaled, d, 0, part, d));
            for (int64_t i = 0; i < d; i++)
                for (int64_t j = i; j < d; j++) { /* a symmetric block, at (a, b) and (b, a) */
                    const double v = part[i * d + j];
                    h[(a * d + i) * size + b * d + j] = h[(a * d + j) * size + b * d + i] = v;
                    h[(b * d + i) * size + a * d + j] = h[(b * d + j) * size + a * d + i] = v;
                }
        }
    return SLG_OK;
}

static slg_status diagonal(multinomial *m, double *h)
{
    enum { ROWS = 64 };
    slg_ctx *ctx = m->is.ctx;
    const int64_t n = m->x.n, ld = m->x.ld, size = m->classes * m->x.d;
    double *wide = arena_alloc(ctx, ROWS, (size_t)ld * sizeof *wide);
    if (!wide) return SLG_ERR_MEMORY;
    memset(h, 0, (size_t)size * sizeof *h);
    for (int64_t first = 0; first < n; first += ROWS) {
        const int64_t count = n - first < ROWS ? n - first : ROWS;
        const double *x = row_data_doubles(&m->x, first, count, wide);
        for (int64_t i = 0; i < size; i++) {
            const int64_t c = i / m->x.d, j = i % m->x.d;
            const double *p = m->p + c * n + first, *q = m->q + c * n + first;
            for (int64_t r = 0; r < count; r++) {
                const double v = x[r * ld + j];
                h[i] += p[r] * (m->which == SLG_FISHER ? p[r] : q[r]) / (double)n * v * v;
            }
        }
    }
    return SLG_OK;
}

static slg_status curve(void *user, const double *x, int32_t which, int32_t form, double *scale,
                        double *h)
{
    multinomial *m = user;
    slg_ctx *ctx = m->is.ctx;
    const int64_t size = m->is.dim;
    (void)scale;
    if (which < SLG_HESSIAN || which > SLG_FISHER || form == SLG_FORM_RANK_ONE ||
        (form == SLG_FORM_DENSE && size > m->opts.dense_limit))
        return curvature_unsupported(ctx, which, form);
    if (!m->p) m->p = doubles_alloc(ctx, 2 * m->x.n, m->classes, 0);
    if (!m->p) return SLG_ERR_MEMORY;
    m->q = m->p + m->x.n * m->classes, m->which = which;
    row_pass p = pass_of(m, x, false, keep_rows);
    SLG_TRY(row_pass_run(&p));
    if (form != SLG_FORM_DENSE && form != SLG_FORM_DIAGONAL) return SLG_OK;
    SLG_TRY(form == SLG_FORM_DENSE ? dense(m, h) : diagonal(m, h));
    const int64_t step = form == SLG_FORM_DENSE ? size + 1 : 1;
    for (int64_t i = 0; i < size; i++)
        if (has_ridge(i, m->x.d, m->opts.intercept)) h[i * step] += m->opts.ridge;
    return SLG_OK;
}

static slg_status multiply(void *user, const double *x, int32_t which, const double *v,
                           double *hv)
{
    const multinomial *m = user;
    (void)x, (void)which;
    row_pass p = pass_of(m, v, true, product_rows);
    SLG_TRY(row_pass_run(&p));
    row_pass_gather(&p, 1 / (double)m->x.n, NULL, hv);
    ridge_add(&m->opts, m->x.d, m->classes, v, hv);
    return SLG_OK;
}

/* ---- Life ------------------------------------------------------------------------------- */

typedef struct arguments {
    const slg_tensor *x, *labels;
    int64_t classes;
    const slg_logistic_opts *opts;
} arguments;

static slg_status open(void *user, const void *given)
{
    multinomial *m = user;
    const arguments *g = given;
    slg_ctx *ctx = m->is.ctx;
    m->classes = g->classes;
    SLG_TRY(logistic_open(&m->is, g->opts, "x", g->x, &m->opts, &m->x));
    SLG_TRY(tensor_in(ctx, "labels", g->labels, DT_INT, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "labels", g->labels, 1, &m->x.n));
    if (m->classes < 1 || m->classes > INT32_MAX / m->x.d)
        return slg_fail(ctx, SLG_ERR_RANGE, "classes is %lld, must be from 1 to %lld",
                        (long long)m->classes, (long long)(INT32_MAX / m->x.d));
    m->label = ctx_alloc(ctx, (size_t)m->x.n * sizeof *m->label);
    if (!m->label) return SLG_ERR_MEMORY;
    const rows r = rows_of(g->labels);
    for (int64_t i = 0; i < m->x.n; i++) {
        const int64_t label = rows_get_int(&r, 0, i);
        if (label < 0 || label >= m->classes)
            return slg_fail(ctx, SLG_ERR_RANGE, "labels[%lld] is %lld, classes is %lld",
                            (long long)i, (long long)label, (long long)m->classes);
        m->label[i] = (int32_t)label;
    }
    m->is.dim = m->classes * m->x.d;
    return SLG_OK;
}

static const objective_kind kind = { "slg_multinomial_objective",
                                     sizeof(multinomial),
                                     false,
                                     open,
                                     release,
                                     forward,
                                     curve,
                                     multiply };

slg_status slg_multinomial_objective(slg_ctx *ctx, const slg_tensor *x,
                                     const slg_tensor *labels, int64_t classes,
                                     const slg_logistic_opts *opts, slg_objective *o)
{
    return objective_make(ctx, &kind, &(arguments){ x, labels, classes, opts }, o);
}
