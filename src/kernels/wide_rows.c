/*
 * wide_rows.c - a block of rows times a vector, and a weighted sum of its rows, in double: for
 * solvers that read float32 data and must not lose the sign of a margin. Plain loops over lanes
 * of their own: the same bits on every ISA.
 */
#include "vec.h"

enum { LANES = 16, TOGETHER = 4 };

typedef struct lanes {
    double v[LANES];
} lanes;

static inline double lanes_sum(lanes *l)
{
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++) l->v[j] += l->v[j + half];
    return l->v[0];
}

/* Two rows at a time share what is read of x, TOGETHER what is read and written of y. */
#define ROWS_OF(type, name)                                                                    \
    static inline void dot_##name(size_t n, const type *restrict a, const type *restrict b,    \
                                  const double *restrict x, double y[2])                       \
    {                                                                                          \
        lanes p = { { 0 } }, q = { { 0 } };                                                    \
        size_t i = 0;                                                                          \
        for (; i + LANES <= n; i += LANES)                                                     \
            for (size_t j = 0; j < LANES; j++) {                                               \
                p.v[j] += (double)a[i + j] * x[i + j];                                         \
                q.v[j] += (double)b[i + j] * x[i + j];                                         \
            }                                                                                  \
        for (size_t j = 0; i + j < n; j++) {                                                   \
            p.v[j] += (double)a[i + j] * x[i + j];                                             \
            q.v[j] += (double)b[i + j] * x[i + j];                                             \
        }                                                                                      \
        y[0] = lanes_sum(&p), y[1] = lanes_sum(&q);                                            \
    }                                                                                          \
                                                                                               \
    static inline void add_##name(size_t n, size_t rows, const type *const *a,                 \
                                  const double *w, double *restrict y)                         \
    {                                                                                          \
        const type *restrict a0 = a[0], *restrict a1 = a[1], *restrict a2 = a[2],              \
                             *restrict a3 = a[3];                                              \
        const double w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];                               \
        for (size_t i = 0; rows == TOGETHER && i < n; i++)                                     \
            y[i] += (w0 * (double)a0[i] + w1 * (double)a1[i]) +                                \
                    (w2 * (double)a2[i] + w3 * (double)a3[i]);                                 \
        for (size_t r = 0; rows < TOGETHER && r < rows; r++)                                   \
            for (size_t i = 0; i < n; i++) y[i] += w[r] * (double)a[r][i];                     \
    }                                                                                          \
                                                                                               \
    static inline void dots_##name(const wide_rows *r, const double *x, double *y)             \
    {                                                                                          \
        const type *a = r->a;                                                                  \
        for (size_t i = 0; i < r->rows; i += 2, a += 2 * r->ld) {                              \
            double pair[2];                                                                    \
            const bool last = i + 1 == r->rows;                                                \
            dot_##name(r->cols, a, last ? a : a + r->ld, x, pair);                             \
            y[i] = pair[0];                                                                    \
            if (last) return;                                                                  \
            y[i + 1] = pair[1];                                                                \
        }                                                                                      \
    }                                                                                          \
                                                                                               \
    static inline void sums_##name(const wide_rows *r, const double *w, double *y)             \
    {                                                                                          \
        const type *a = r->a, *at[TOGETHER] = { a, a, a, a };                                  \
        double weight[TOGETHER] = { 0 };                                                       \
        size_t held = 0;                                                                       \
        for (size_t i = 0; i < r->rows; i++) {                                                 \
            if (w[i] == 0) continue;                                                           \
            at[held] = a + (ptrdiff_t)i * r->ld, weight[held++] = w[i];                        \
            if (held < TOGETHER) continue;                                                     \
            add_##name(r->cols, held, at, weight, y);                                          \
            held = 0;                                                                          \
        }                                                                                      \
        add_##name(r->cols, held, at, weight, y);                                              \
    }

ROWS_OF(float, f32)
ROWS_OF(double, f64)

void KERNEL(rows_dot)(const wide_rows *a, const double *x, double *y)
{
    if (a->wide)
        dots_f64(a, x, y);
    else
        dots_f32(a, x, y);
}

void KERNEL(rows_sum)(const wide_rows *a, const double *w, double *y)
{
    if (a->wide)
        sums_f64(a, w, y);
    else
        sums_f32(a, w, y);
}
