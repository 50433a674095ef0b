/*
 * ordinal_model.c - see ordinal_model.h. Of class c with boundaries a < b, score vectors have
 * two entries, up at b and -down at a, whose sum up - down = sigmoid(-b) - sigmoid(a) loses the
 * part 1 / expm1(b - a) that grows as they meet. In psi all boundaries from l on move together:
 * so a class above l gives that sum, and weights are sums of squares, with nothing to cancel.
 */
#include "ordinal_model.h"

#include <math.h>
#include <string.h>

#include "core/blas.h"

enum { ROWS = 64 /* of a task */ };

/* ---- One class -------------------------------------------------------------------------- */

typedef struct class_terms {
    double loss, p, up, down, slope_a, slope_b, r; /* all but loss 0 where b <= a */
} class_terms;

static double sigmoid(double t)
{
    const double e = exp(-fabs(t));
    return t < 0 ? e / (1 + e) : 1 / (1 + e);
}

static class_terms class_at(double a, double b)
{
    const double d = b - a, ea = exp(-fabs(a)), eb = exp(-fabs(b));
    if (!(d > 0)) return (class_terms){ .loss = isnan(a) || isnan(b) ? NAN : INFINITY };
    const double ed = exp(-d), rest = -expm1(-d), r = ed / rest;
    const double u = ((ea + eb) + (ea * eb + ed)) / rest;
    class_terms c = { .loss = fmax(-b, 0) + fmax(a, 0) + log1p(u), .r = r };
    c.slope_a = ea / ((1 + ea) * (1 + ea)), c.slope_b = eb / ((1 + eb) * (1 + eb));
    c.up = sigmoid(-b) + r, c.down = sigmoid(a) + r;
    c.p = sigmoid(b) * sigmoid(-a) * rest;
    return c;
}

static double bound(const double *eta, int64_t m, int64_t k)
{
    return k < 0 ? -INFINITY : k >= m ? INFINITY : eta[k];
}

void ordinal_probabilities(int64_t m, const double *eta, double *p)
{
    for (int64_t c = 0; c <= m; c++) {
        const double a = bound(eta, m, c - 1), b = bound(eta, m, c);
        p[c] = b == a  ? 0
               : b < a ? sigmoid(a) * sigmoid(-b) * expm1(b - a)
                       : -sigmoid(b) * sigmoid(-a) * expm1(a - b);
    }
}

/* A class's part of a row's matrix: of (a, a), (a, b), (b, b); of b with both; of both with
   both. */
typedef struct class_part {
    double aa, ab, bb, hb, s;
} class_part;

static class_part part_of(const class_terms *c, double a, double b, int32_t which)
{
    const double t = sigmoid(-b) - sigmoid(a);
    const double rho = c->r * (1 + c->r);
    if (which == SLG_GAUSS_NEWTON)
        return (class_part){ c->slope_a * c->down, -c->slope_b * c->down, c->slope_b * c->up,
                             c->slope_b * t, c->p * t * t };
    if (which == SLG_FISHER)
        return (class_part){ c->down * c->down, -c->up * c->down, c->up * c->up, c->up * t,
                             t * t };
    return (class_part){ c->slope_a + rho, -rho, c->slope_b + rho, c->slope_b,
                         c->slope_a + c->slope_b };
}

/* ---- Rows ------------------------------------------------------------------------------- */

typedef struct row_job {
    ordinal_model *m;
    const double *eta;
    int32_t which;
    bool tri;
    void (*fn)(const struct row_job *j, int64_t i);
} row_job;

static void row_task(void *arg, int64_t task, int32_t worker)
{
    const row_job *j = arg;
    (void)worker;
    for (int64_t i = task * ROWS; i < (task + 1) * ROWS && i < j->m->n; i++) j->fn(j, i);
}

static void each_row(row_job j)
{
    pool_run(j.m->ctx, (j.m->n + ROWS - 1) / ROWS, row_task, &j);
}

static class_terms own_class(const row_job *j, int64_t i)
{
    const double *eta = j->eta + i * j->m->m;
    const int64_t t = j->m->label[i], m = j->m->m;
    return class_at(bound(eta, m, t - 1), bound(eta, m, t));
}

static void value_row(const row_job *j, int64_t i) { j->m->loss[i] = own_class(j, i).loss; }

static void gradient_row(const row_job *j, int64_t i)
{
    const class_terms c = own_class(j, i);
    const int64_t m = j->m->m, t = j->m->label[i];
    double *g = j->m->g + i * m;
    memset(g, 0, (size_t)m * sizeof *g);
    if (t > 0) g[t - 1] = c.down;
    if (t < m) g[t] = -c.up;
}

static void weights_row(const row_job *j, int64_t i)
{
    const int64_t m = j->m->m, n = j->m->n;
    const double *eta = j->eta + i * m, share = 1 / (double)n;
    double *w = j->m->weight + i, above = 0, beside = 0; /* (a, a) and (a, b) of the class above
                                                            */
    for (int64_t c = m; c >= 0; c--) {
        class_part p = { 0 };
        if (j->which == SLG_GAUSS_NEWTON || c == j->m->label[i]) {
            const double a = bound(eta, m, c - 1), b = bound(eta, m, c);
            const class_terms terms = class_at(a, b);
            if (isfinite(terms.loss)) p = part_of(&terms, a, b, j->which);
        }
        if (c < m) {
            w[c * n] = (p.bb + above) * share;
            if (j->tri && c + 1 < m) w[(m + c) * n] = beside * share;
            if (!j->tri && c > 0) w[(m - 1 + c) * n] = (p.hb + above) * share;
        }
        above = j->tri ? p.aa : above + p.s;
        beside = p.ab;
    }
}

double ordinal_value(ordinal_model *m, const double *eta)
{
    double sum = 0;
    each_row((row_job){ .m = m, .eta = eta, .fn = value_row });
    for (int64_t i = 0; i < m->n; i++) sum += m->loss[i];
    return sum / (double)m->n;
}

void ordinal_weights(ordinal_model *m, const double *eta, int32_t which, bool tri)
{
    each_row((row_job){ .m = m, .eta = eta, .which = which, .tri = tri, .fn = weights_row });
}

/* ---- Through the data ------------------------------------------------------------------- */

void ordinal_prefix(int64_t m, int64_t q, const double *from, double *to)
{
    if (to != from) memcpy(to, from, (size_t)(m * q) * sizeof *to);
    for (int64_t i = q; i < m * q; i++) to[i] += to[i - q];
}

void ordinal_suffix(int64_t m, int64_t q, double *x)
{
    for (int64_t i = (m - 1) * q - 1; i >= 0; i--) x[i] += x[i + q];
}

slg_status ordinal_scores(const ordinal_model *m, const double *theta, double *eta)
{
    const arena_mark_t mark = arena_mark(m->ctx);
    double *b = arena_alloc(m->ctx, (size_t)(m->m * m->q), sizeof *b);
    if (!b) return SLG_ERR_MEMORY;
    ordinal_prefix(m->m, m->q, theta, b);
    SLG_TRY(blas_dgemm(m->ctx, false, true, m->n, m->m, m->q, 1, m->z, m->q, b, m->q, 0, eta,
                       m->m));
    arena_release(m->ctx, mark);
    return SLG_OK;
}

slg_status ordinal_gradient(ordinal_model *m, const double *eta, double *grad)
{
    each_row((row_job){ .m = m, .eta = eta, .fn = gradient_row });
    SLG_TRY(blas_dgemm(m->ctx, true, false, m->m, m->q, m->n, 1 / (double)m->n, m->g, m->m,
                       m->z, m->q, 0, grad, m->q));
    ordinal_suffix(m->m, m->q, grad);
    return SLG_OK;
}

slg_status ordinal_curvature(ordinal_model *m)
{
    const int64_t blocks = 2 * m->m - 1, full = m->proportional ? 1 : blocks;
    for (int64_t b = 0; b < full; b++) {
        const arena_mark_t mark = arena_mark(m->ctx);
        const row_data z = {
            .n = m->n, .d = m->q, .ld = m->q, .dtype = SLG_F64, .x = m->z
        };
        const row_curvature c = { .ctx = m->ctx, .a = &z, .w = m->weight + b * m->n };
        SLG_TRY(row_curvature_form(&c, SLG_FORM_DENSE, m->h + b * m->q * m->q));
        arena_release(m->ctx, mark);
    }
    if (full == blocks) return SLG_OK;
    return blas_dgemm(m->ctx, false, false, blocks - 1, m->q, m->n, 1, m->weight + m->n, m->n,
                      m->z, m->q, 0, m->h + m->q * m->q, m->q);
}

/* ---- Life ------------------------------------------------------------------------------- */

void ordinal_close(ordinal_model *m)
{
    ctx_free(m->ctx, m->z), ctx_free(m->ctx, m->eta), ctx_free(m->ctx, m->h);
    ctx_free(m->ctx, m->label), ctx_free(m->ctx, m->mean);
    m->z = m->eta = m->h = m->mean = NULL, m->label = NULL;
}

slg_status ordinal_reserve(ordinal_model *m, bool curvature)
{
    const int64_t q = m->q, blocks = 2 * m->m - 1;
    m->eta = doubles_alloc(m->ctx, m->n, 4 * m->m, 0); /* eta, g, weights, losses */
    m->mean = doubles_alloc(m->ctx, q, 2, 0);
    if (curvature)
        m->h = doubles_alloc(m->ctx, q, m->proportional ? q + blocks - 1 : q * blocks, 0);
    if (!m->eta || !m->mean || (curvature && !m->h)) return SLG_ERR_MEMORY;
    m->g = m->eta + m->n * m->m, m->weight = m->g + m->n * m->m;
    m->loss = m->weight + m->n * blocks, m->sd = m->mean + q;
    for (int64_t j = 0; j < q; j++) m->mean[j] = 0, m->sd[j] = 1;
    return SLG_OK;
}

slg_status ordinal_open(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                        int64_t classes, ordinal_model *m)
{
    *m = (ordinal_model){ .ctx = ctx };
    row_data z = { 0 };
    const slg_status copied = row_data_copy(ctx, "x", x, true, SLG_F64, &z);
    m->z = z.x, m->n = z.n, m->q = z.d;
    SLG_TRY(copied);
    for (int64_t i = 0; i < z.n; i++) /* without what fills up its rows */
        memmove(m->z + i * z.d, m->z + i * z.ld, (size_t)z.d * sizeof *m->z);
    SLG_TRY(tensor_in(ctx, "labels", labels, DT_INT, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "labels", labels, 1, &m->n));
    if (classes < 2 || classes > m->n)
        return slg_fail(ctx, SLG_ERR_RANGE, "classes is %lld, must be from 2 to %lld, the rows",
                        (long long)classes, (long long)m->n);
    if (!vector_finite(m->n * m->q, m->z))
        return slg_fail(ctx, SLG_ERR_RANGE, "x holds NaN or an infinity");
    m->m = classes - 1;
    int64_t *rows_in = arena_alloc(ctx, (size_t)classes, sizeof *rows_in);
    m->label = ctx_alloc(ctx, (size_t)m->n * sizeof *m->label);
    if (!rows_in || !m->label) return SLG_ERR_MEMORY;
    memset(rows_in, 0, (size_t)classes * sizeof *rows_in);
    const rows r = rows_of(labels);
    for (int64_t i = 0; i < m->n; i++) {
        const int64_t y = rows_get_int(&r, 0, i);
        if (y < 0 || y >= classes)
            return slg_fail(ctx, SLG_ERR_RANGE, "labels[%lld] is %lld, classes is %lld",
                            (long long)i, (long long)y, (long long)classes);
        m->label[i] = (int32_t)y, rows_in[y]++;
    }
    for (int64_t c = 0; c < classes; c++)
        if (rows_in[c] == 0)
            return slg_fail(ctx, SLG_ERR_RANGE, "labels has no row of class %lld",
                            (long long)c);
    return SLG_OK;
}

slg_status ordinal_subset(const ordinal_model *from, const int32_t *fold, int32_t out,
                          ordinal_model *m)
{
    *m = (ordinal_model){
        .ctx = from->ctx, .q = from->q, .m = from->m, .proportional = from->proportional
    };
    for (int64_t i = 0; i < from->n; i++) m->n += fold[i] != out;
    if (m->n > 0) {
        m->z = doubles_alloc(m->ctx, m->n, m->q, 0);
        m->label = ctx_alloc(m->ctx, (size_t)m->n * sizeof *m->label);
        if (!m->z || !m->label) return SLG_ERR_MEMORY;
    }
    int64_t at = 0;
    for (int64_t i = 0; i < from->n; i++) {
        if (fold[i] == out) continue;
        memcpy(m->z + at * m->q, from->z + i * m->q, (size_t)m->q * sizeof *m->z);
        m->label[at++] = from->label[i];
    }
    for (int64_t c = 0; c <= m->m; c++) {
        bool there = false;
        for (int64_t i = 0; i < m->n && !there; i++) there = m->label[i] == c;
        if (!there)
            return slg_fail(m->ctx, SLG_ERR_RANGE,
                            "the rows beside fold %d have none of class %lld", out,
                            (long long)c);
    }
    return SLG_OK;
}

void ordinal_standardize(ordinal_model *m)
{
    const double n = (double)m->n;
    for (int64_t j = 0; j + 1 < m->q; j++) {
        double sum = 0, square = 0, first = m->z[j];
        bool constant = true;
        for (int64_t i = 0; i < m->n; i++) {
            sum += m->z[i * m->q + j];
            constant = constant && m->z[i * m->q + j] == first;
        }
        m->mean[j] = constant ? first : sum / n;
        for (int64_t i = 0; i < m->n; i++) {
            double *x = m->z + i * m->q + j;
            *x -= m->mean[j];
            square += *x * *x;
        }
        m->sd[j] = square > 0 ? sqrt(square / n) : 1;
        for (int64_t i = 0; i < m->n; i++) m->z[i * m->q + j] /= m->sd[j];
    }
}

void ordinal_start(const ordinal_model *m, double *theta)
{
    int64_t below = 0;
    double last = 0;
    memset(theta, 0, (size_t)(m->m * m->q) * sizeof *theta);
    for (int64_t l = 0; l < m->m; l++) {
        for (int64_t i = 0; i < m->n; i++) below += m->label[i] == l;
        const double alpha = log((double)below) - log((double)(m->n - below));
        theta[l * m->q + m->q - 1] = l ? alpha - last : alpha;
        last = alpha;
    }
}
