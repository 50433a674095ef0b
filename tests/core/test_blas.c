/* Products against plain loops: transposes, strides, edge cases, refusals, rounding mode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fenv.h>
#include <math.h>
#include <string.h>

#include "core/blas.h"

enum { M = 5, N = 7, K = 6, LD = 9 };

static slg_ctx *ctx;

static int setup(void **state)
{
    (void)state;
    return slg_ctx_create(NULL, &ctx);
}

static int teardown(void **state)
{
    (void)state;
    slg_ctx_free(ctx);
    return 0;
}

/* Small whole numbers: all results are exact. */
#define TEST_GEMM(name, T, gemm)                                                               \
    static void name(void **state)                                                             \
    {                                                                                          \
        (void)state;                                                                           \
        T a[LD * LD], b[LD * LD], c[LD * LD];                                                  \
        for (int i = 0; i < LD * LD; i++) a[i] = (T)(i % 5 - 2), b[i] = (T)(i % 7 - 3);        \
        for (int kind = 0; kind < 8; kind++) {                                                 \
            bool ta = kind & 1, tb = kind & 2;                                                 \
            T beta = (T)(kind & 4 ? 2 : 0);                                                    \
            for (int i = 0; i < LD * LD; i++) c[i] = beta != 0 ? (T)(i % 3) : (T)NAN;          \
            assert_int_equal(gemm(ctx, ta, tb, M, N, K, 3, a, LD, b, LD, beta, c, LD),         \
                             SLG_OK);                                                          \
            for (int i = 0; i < M; i++)                                                        \
                for (int j = 0; j < N; j++) {                                                  \
                    T want = beta != 0 ? beta * (T)((i * LD + j) % 3) : 0;                     \
                    for (int k = 0; k < K; k++)                                                \
                        want += 3 * a[ta ? k * LD + i : i * LD + k] *                          \
                                b[tb ? j * LD + k : k * LD + j];                               \
                    assert_true(c[i * LD + j] == want);                                        \
                }                                                                              \
            assert_true(beta != 0 ? c[N] == (T)(N % 3) : isnan(c[N])); /* a gap */             \
        }                                                                                      \
        /* No terms. */                                                                        \
        c[0] = (T)NAN, c[1] = 4;                                                               \
        assert_int_equal(gemm(ctx, false, false, 1, 2, 0, 1, a, 0, b, 2, 0, c, 2), SLG_OK);    \
        assert_true(c[0] == 0 && c[1] == 0);                                                   \
        c[1] = 4;                                                                              \
        assert_int_equal(gemm(ctx, false, false, 1, 2, 0, 1, a, 0, b, 2, 3, c, 2), SLG_OK);    \
        assert_true(c[1] == 12);                                                               \
        assert_int_equal(gemm(ctx, false, false, 0, 2, 3, 1, a, 3, b, 2, 0, c, 2), SLG_OK);    \
        assert_int_equal(gemm(ctx, false, false, 2, 0, 3, 1, a, 3, b, 0, 0, c, 0), SLG_OK);    \
        assert_true(c[1] == 12);                                                               \
        /* One row: its stride means nothing. */                                               \
        assert_int_equal(gemm(ctx, false, false, 1, 2, 1, 1, a, INT64_MAX, b, -5, 0, c, 0),    \
                         SLG_OK);                                                              \
        assert_true(c[0] == a[0] * b[0] && c[1] == a[0] * b[1]);                               \
        /* Refused, before BLAS prints. */                                                     \
        const int64_t big = (int64_t)INT32_MAX + 1;                                            \
        op_begin(ctx, "slg_test");                                                             \
        assert_int_equal(gemm(ctx, false, false, 2, big, 1, 1, a, 1, b, big, 0, c, big),       \
                         SLG_ERR_SHAPE);                                                       \
        assert_int_equal(gemm(ctx, false, false, 2, 2, big, 1, a, big, b, 2, 0, c, 2),         \
                         SLG_ERR_SHAPE);                                                       \
        assert_int_equal(gemm(ctx, true, false, big, 2, 2, 1, a, big, b, 2, 0, c, 2),          \
                         SLG_ERR_SHAPE);                                                       \
        assert_int_equal(gemm(ctx, false, false, 2, 2, 2, 1, a, 1, b, 2, 0, c, 2),             \
                         SLG_ERR_SHAPE);                                                       \
        assert_int_equal(gemm(ctx, false, false, -2, 2, 2, 1, a, 2, b, 2, 0, c, 2),            \
                         SLG_ERR_SHAPE);                                                       \
        assert_non_null(strstr(slg_ctx_message(ctx), "slg_test: "));                           \
        op_end(ctx, SLG_OK);                                                                   \
    }

TEST_GEMM(test_sgemm, float, blas_sgemm)
TEST_GEMM(test_dgemm, double, blas_dgemm)

static void test_dgemv(void **state)
{
    (void)state;
    double a[LD * LD], x[LD], y[LD];
    for (int i = 0; i < LD * LD; i++) a[i] = i % 5 - 2;
    for (int kind = 0; kind < 4; kind++) {
        const bool trans = kind & 1, add = kind & 2;
        const int in = trans ? M : N, out = trans ? N : M;
        for (int i = 0; i < LD; i++) x[i] = i - 3, y[i] = add ? 10.0 * i : (double)NAN;
        assert_int_equal(blas_dgemv(ctx, trans, M, N, a, LD, x, add, y), SLG_OK);
        for (int i = 0; i < out; i++) {
            double want = add ? 10.0 * i : 0;
            for (int k = 0; k < in; k++) want += a[trans ? k * LD + i : i * LD + k] * x[k];
            assert_true(y[i] == want);
        }
        assert_true(add ? y[out] == 10 * out : isnan(y[out]));
    }
    y[0] = NAN, y[1] = 4;
    assert_int_equal(blas_dgemv(ctx, false, 1, 0, a, 0, x, false, y), SLG_OK);
    assert_true(y[0] == 0 && y[1] == 4);
    assert_int_equal(blas_dgemv(ctx, true, 0, 2, a, 2, x, true, y), SLG_OK);
    assert_true(y[0] == 0 && y[1] == 4);
    const int64_t big = (int64_t)INT32_MAX + 1;
    assert_int_equal(blas_dgemv(ctx, false, big, 1, a, 1, x, false, y), SLG_ERR_SHAPE);
    assert_int_equal(blas_dgemv(ctx, false, 1, big, a, big, x, false, y), SLG_ERR_SHAPE);
    assert_int_equal(blas_dgemv(ctx, false, 2, 2, a, 1, x, false, y), SLG_ERR_SHAPE);
    assert_true(y[0] == 0);
}

static void test_mode(void **state)
{
    (void)state;
    const int modes[] = { FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO };
    float a[64], b[64], first[64], c[64];
    for (int i = 0; i < 64; i++) a[i] = 1.0f / (float)(i + 3), b[i] = 1.0f / (float)(i + 7);
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i]);
        blas_sgemm(ctx, false, false, 8, 8, 8, 1, a, 8, b, 8, 0, c, 8);
        int after = fegetround();
        fesetround(FE_TONEAREST);
        assert_int_equal(after, modes[i]);
        if (i == 0) memcpy(first, c, sizeof c);
        assert_memory_equal(first, c, sizeof c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sgemm),
        cmocka_unit_test(test_dgemm),
        cmocka_unit_test(test_dgemv),
        cmocka_unit_test(test_mode),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
