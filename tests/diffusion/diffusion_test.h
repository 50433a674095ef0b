/*
 * diffusion_test.h - what the tests of diffusion share: shapes, processes of one kind for all
 * columns or by columns, and matrices filled at random.
 */
#ifndef TESTS_DIFFUSION_DIFFUSION_TEST_H
#define TESTS_DIFFUSION_DIFFUSION_TEST_H

#include "loss/loss_test.h"
#include "support/gradcheck.h"

static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };

/* Short rows that share pieces, rows that make one, rows of several pieces. */
static const int64_t shapes[][2] = { { 1, 1 },  { 3, 2 },   { 1500, 3 },
                                     { 9, 37 }, { 3, 256 }, { 3, 5000 } };

enum { COLUMNS_MAX = 5000, FORMS = 3 };

/* A process: defaults, sigma and mu of its own, or both by columns. */
typedef struct setup {
    slg_gbm p;
    tensor sigmas, mus;
} setup;

static inline void setup_open(setup *s, int form, int64_t cols)
{
    slg_gbm_init(&s->p, sizeof s->p);
    s->sigmas = vector(SLG_F32, cols, COL_GAPS), s->mus = vector(SLG_F64, cols, CONTIGUOUS);
    if (form == 1) s->p.sigma = 0.5, s->p.mu = 0.7;
    if (form == 2) s->p.sigma_columns = &s->sigmas.t, s->p.mu_columns = &s->mus.t;
    for (int64_t j = 0; j < cols; j++) {
        put(&s->sigmas, 0, j, 0.25 + 0.125 * (double)(j % 5));
        put(&s->mus, 0, j, 0.3 - 0.1 * (double)(j % 4));
    }
}

static inline void setup_free(setup *s) { release(&s->sigmas), release(&s->mus); }

static inline double sigma_at(const setup *s, int64_t j)
{
    return s->p.sigma_columns ? get(&s->sigmas, 0, j) : s->p.sigma;
}

static inline double mu_at(const setup *s, int64_t j)
{
    const double sigma = sigma_at(s, j);
    return s->p.mu_columns ? get(&s->mus, 0, j) : isnan(s->p.mu) ? sigma * sigma / 2 : s->p.mu;
}

static inline tensor random_matrix(int32_t dtype, int64_t rows, int64_t cols,
                                   enum layout layout, double mean, double sd, bool positive)
{
    tensor a = matrix(dtype, rows, cols, layout);
    for (int64_t i = 0; i < rows * cols; i++) {
        const double v = mean + sd * normal();
        put(&a, i / cols, i % cols, positive ? exp(v) : v);
    }
    return a;
}

/* From 0.05 to 1, but for the second, which is 0. */
static inline tensor times(int32_t dtype, int64_t rows)
{
    tensor t = vector(dtype, rows, rows % 2 ? COL_GAPS : CONTIGUOUS);
    for (int64_t i = 0; i < rows; i++) put(&t, 0, i, i == 1 ? 0 : 0.05 + 0.95 * uniform());
    return t;
}

#define assert_close(got, want, tolerance)                                                     \
    do {                                                                                       \
        const double got_ = (got), want_ = (want);                                             \
        if (got_ != want_ && !(isnan(got_) && isnan(want_)) &&                                 \
            !(fabs(got_ - want_) <= (tolerance)))                                              \
            fail_msg("%s is %.9g, should be %.9g within %.3g (line %d)", #got, got_, want_,    \
                     (double)(tolerance), __LINE__);                                           \
    } while (0)

#define assert_refused(ctx, call, status, words)                                               \
    do {                                                                                       \
        assert_int_equal(call, status);                                                        \
        if (!strstr(slg_ctx_message(ctx), words))                                              \
            fail_msg("\"%s\" does not say \"%s\"", slg_ctx_message(ctx), words);               \
    } while (0)

static inline void assert_same_bits(const tensor *a, const tensor *b)
{
    const int64_t cols = a->t.shape[a->t.ndim - 1], rows = a->t.ndim == 1 ? 1 : a->t.shape[0];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            if (memcmp(item_at(&a->t, r, c), item_at(&b->t, r, c), item_size(a->t.dtype)) != 0)
                fail_msg("row %d column %d: %.9g and %.9g", (int)r, (int)c, get(a, r, c),
                         get(b, r, c));
}

static inline void fill_value(tensor *a, double value)
{
    const int64_t cols = a->t.shape[a->t.ndim - 1], rows = a->t.ndim == 1 ? 1 : a->t.shape[0];
    for (int64_t i = 0; i < rows * cols; i++) put(a, i / cols, i % cols, value);
}

#endif
