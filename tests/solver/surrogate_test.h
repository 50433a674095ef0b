/*
 * surrogate_test.h - target losses in plain double arithmetic, and data of targets.
 */
#ifndef TESTS_SOLVER_SURROGATE_TEST_H
#define TESTS_SOLVER_SURROGATE_TEST_H

#include "loss/loss_test.h"

/* 1 / L. */
static const double eta_of[3] = { 1, 4, 2 };

/* A matrix of normal numbers, sd scale. */
static inline tensor random_matrix(int32_t dtype, int64_t n, int64_t m, enum layout layout,
                                   double scale)
{
    tensor a = matrix(dtype, n, m, layout);
    for (int64_t i = 0; i < n * m; i++) put(&a, i / m, i % m, scale * normal());
    return a;
}

/* Of a kind: numbers, signs or labels. */
static inline tensor random_data(int32_t kind, int32_t dtype, int64_t n, int64_t m)
{
    if (kind == SLG_TARGET_SQUARED) return random_matrix(dtype, n, m, CONTIGUOUS, 1);
    tensor a = kind == SLG_TARGET_LOGISTIC ? matrix(dtype, n, m, CONTIGUOUS)
                                           : vector(SLG_I32, n, CONTIGUOUS);
    if (kind == SLG_TARGET_LOGISTIC)
        for (int64_t i = 0; i < n * m; i++) put(&a, i / m, i % m, uniform() < 0.5 ? -1 : 1);
    else
        for (int64_t i = 0; i < n; i++) put(&a, 0, i, (double)below(m));
    return a;
}

/* The loss of row r of z, and its gradient. */
static inline double row_loss(int32_t kind, const double *z, const tensor *data, int64_t r,
                              int64_t m, double *g)
{
    double sum = 0, top = -INFINITY, loss = 0;
    if (kind == SLG_TARGET_SOFTMAX) {
        const int64_t y = (int64_t)get(data, 0, r);
        for (int64_t j = 0; j < m; j++) top = fmax(top, z[j]);
        for (int64_t j = 0; j < m; j++) sum += j == y ? 0 : exp(z[j] - z[y]);
        for (int64_t j = 0; j < m; j++) {
            const double rest = isinf(sum) ? 1 : sum / (1 + sum);
            if (j == y)
                g[j] = -rest;
            else
                g[j] = isinf(sum) ? exp(z[j] - top) : exp(z[j] - z[y]) / (1 + sum);
        }
        return isinf(sum) ? top - z[y] : log1p(sum);
    }
    for (int64_t j = 0; j < m; j++) {
        const double y = get(data, r, j), t = y * z[j], e = exp(-fabs(t));
        if (kind == SLG_TARGET_SQUARED) {
            loss += (z[j] - y) * (z[j] - y) / 2, g[j] = z[j] - y;
        } else {
            loss += fmax(-t, 0) + log1p(e);
            g[j] = -y * (t > 0 ? e : 1) / (1 + e);
        }
    }
    return loss;
}

/* Of z - s g (g NULL: z). */
static inline double whole_loss(int32_t kind, const tensor *z, const tensor *g, double s,
                                const tensor *data, double *grad)
{
    const int64_t n = z->t.shape[0], m = z->t.shape[1];
    double *row = malloc(2 * (size_t)(m + 1) * sizeof *row), sum = 0;
    assert_non_null(row);
    for (int64_t r = 0; r < n; r++) {
        for (int64_t j = 0; j < m; j++)
            row[j] = g ? single(get(z, r, j) - s * get(g, r, j)) : get(z, r, j);
        sum += row_loss(kind, row, data, r, m, grad ? grad + r * m : row + m);
    }
    free(row);
    return sum;
}

static inline bool near(double got, double want, double tolerance)
{
    return got == want || (isnan(got) && isnan(want)) || fabs(got - want) <= tolerance;
}

#endif
