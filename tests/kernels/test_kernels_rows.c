/*
 * Products of rows with a few vectors, and functions in double: the n elements of an array are
 * as many rows as fit.
 */
#include "kernel_spec.h"

/* Rows, vectors, and elements of each in n: matrices of x, w and out must all fit. */
static row_products product_of(const call *c, bool back)
{
    static const size_t shapes[][2] = { { 1, 1 }, { 9, 1 }, { 17, 2 }, { 6, 11 }, { 23, 23 } };
    row_products t = { .rows = shapes[c->variant][0], .k = shapes[c->variant][1] };
    while (t.rows * t.k > c->n && t.rows > 1) t.rows--;
    while (t.rows * t.k > c->n && t.k > 0) t.k--;
    t.dim = c->n / (t.rows > t.k ? t.rows : t.k);
    t.x = c->in[1], t.w = c->in[2], t.out = c->out[0];
    t.ldx = t.ldw = (ptrdiff_t)t.dim, t.ldo = (ptrdiff_t)t.rows;
    if (back) t.ldw = (ptrdiff_t)t.rows, t.ldo = (ptrdiff_t)t.dim;
    return t;
}

static double item(const void *p, bool wide, ptrdiff_t at)
{
    return wide ? ((const double *)p)[at] : flushed(((const float *)p)[at]);
}

/* x_wide, w_wide: which of them are double. */
static void check_dots(const call *c, worst_t *w, bool x_wide, bool w_wide)
{
    const row_products t = product_of(c, false);
    for (size_t i = 0; i < t.rows; i++)
        for (size_t v = 0; v < t.k; v++) {
            long double sum = 0, size = 0;
            for (size_t p = 0; p < t.dim; p++) {
                const double a = item(t.x, x_wide, (ptrdiff_t)(i * t.dim + p)),
                             b = item(t.w, w_wide, (ptrdiff_t)(v * t.dim + p));
                sum += a * b, size += fabs(a * b);
            }
            note(w, v * t.rows + i, item(t.out, w_wide, (ptrdiff_t)(v * t.rows + i)),
                 (double)sum, (double)size);
        }
}

static void check_sums(const call *c, worst_t *w, bool x_wide, bool w_wide)
{
    const row_products t = product_of(c, true);
    const double *before = c->in[0], *out = t.out;
    for (size_t v = 0; v < t.k; v++)
        for (size_t j = 0; j < t.dim; j++) {
            long double sum = before[v * t.dim + j], size = fabsl(sum);
            for (size_t i = 0; i < t.rows; i++) {
                const double a = item(t.x, x_wide, (ptrdiff_t)(i * t.dim + j)),
                             b = item(t.w, w_wide, (ptrdiff_t)(v * t.rows + i));
                sum += a * b, size += fabs(a * b);
            }
            note(w, v * t.dim + j, out[v * t.dim + j], (double)sum, (double)size);
        }
    for (size_t i = t.k * t.dim; i < c->n; i++) note(w, i, out[i], before[i], 0);
}

/* ahead: no more than a hint, wherever it points. */
#define PRODUCTS(suffix, X, W, x_wide, w_wide)                                                 \
    static void run_row_dots_##suffix(const kernel_table *k, call *c)                          \
    {                                                                                          \
        row_products t = product_of(c, false);                                                 \
        t.ahead = c->variant == 3 ? 1000 : 0;                                                  \
        k->row_dots_##suffix(&t);                                                              \
    }                                                                                          \
    static void check_row_dots_##suffix(const call *c, worst_t *w)                             \
    {                                                                                          \
        check_dots(c, w, x_wide, w_wide);                                                      \
    }                                                                                          \
    SPEC(row_dots_##suffix, .variants = 5, .in = { 0, X, W }, .out = { W },                    \
         .special = { 0, A_NAN | ZEROS | PLUS_INF, A_NAN | ZEROS | MINUS_INF });               \
    static void run_row_sums_##suffix(const kernel_table *k, call *c)                          \
    {                                                                                          \
        row_products t = product_of(c, true);                                                  \
        t.ahead = c->variant == 3 ? 1000 : 0;                                                  \
        k->row_sums_##suffix(&t);                                                              \
    }                                                                                          \
    static void check_row_sums_##suffix(const call *c, worst_t *w)                             \
    {                                                                                          \
        check_sums(c, w, x_wide, w_wide);                                                      \
    }                                                                                          \
    SPEC(row_sums_##suffix, .variants = 5, .in = { F8, X, W }, .out = { F8 }, .update = 1,     \
         .special = { A_NAN, A_NAN | ZEROS | PLUS_INF, A_NAN | ZEROS | MINUS_INF })

PRODUCTS(f32, F4, F4, false, false);
PRODUCTS(wide, F4, F8, false, true);
PRODUCTS(f64, F8, F8, true, true);

/* ---- Functions --------------------------------------------------------------------------- */

/* Of all sizes, and those near where they end. */
static void exponents(const call *c)
{
    double *x = c->in[0];
    static const double edges[] = { 0, -0.0, -708.3, -708.5, -745.2, -1e6, 709.3, 709.79, 1e6 };
    for (size_t i = 0; i < c->n; i++) {
        x[i] = c->variant ? x[i] * 100 : x[i];
        if (i % 5 == 4) x[i] = edges[i / 5 % COUNT(edges)];
    }
}

static void run_exp_f64(const kernel_table *k, call *c)
{
    k->exp_f64(c->n, c->in[0], c->out[0]);
}

static void check_exp_f64(const call *c, worst_t *w)
{
    const double *x = c->in[0], *y = c->out[0];
    for (size_t i = 0; i < c->n; i++) {
        const double want = (double)expl(x[i]);
        if (x[i] < -708.39 && y[i] == 0) continue;
        if (x[i] > 709.08 && y[i] == INFINITY) continue;
        note(w, i, y[i] == want ? 1 : y[i] / want, isnan(want) ? want : 1, 1);
    }
}

SPEC(exp_f64, .variants = 2, .in = { F8 }, .out = { F8 }, .alias = { 1 }, .prepare = exponents,
     .special = { ANY_VALUE });

static void magnitudes(const call *c)
{
    double *x = c->in[0];
    for (size_t i = 0; i < c->n; i++)
        x[i] = c->variant == 0   ? fabs(x[i])
               : c->variant == 1 ? exp(3 * x[i])
                                 : exp(fmin(fmax(100 * x[i], -690), 690));
}

static void run_log1p_f64(const kernel_table *k, call *c)
{
    k->log1p_f64(c->n, c->in[0], c->out[0]);
}

static void check_log1p_f64(const call *c, worst_t *w)
{
    const double *x = c->in[0], *y = c->out[0];
    for (size_t i = 0; i < c->n; i++) {
        const double want = (double)log1pl(x[i]);
        note(w, i, y[i] == want ? 1 : y[i] / want, isnan(want) ? want : 1, 1);
    }
}

SPEC(log1p_f64, .variants = 3, .in = { F8 }, .out = { F8 }, .alias = { 1 },
     .prepare = magnitudes, .special = { A_NAN | ZEROS | HUGE_UP });

KERNEL_TESTS(ROWS)
