/* Symmetric updates, solving and singular values against plain loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/blas.h"

enum { N = 7, K = 4 };

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

static void fill(double *a, int n, int salt)
{
    for (int i = 0; i < n; i++) a[i] = (double)((i * 37 + salt * 11) % 17 - 8) / 4;
}

/* Small fractions: all results are exact. */
static void test_symmetric(void **state)
{
    (void)state;
    double a[K * N], b[K * N], c[N * N], e[N * N];
    fill(a, K * N, 1), fill(b, K * N, 2);
    for (int i = 0; i < N * N; i++) c[i] = e[i] = (double)(i / N + i % N);
    assert_int_equal(blas_dsyrk(ctx, N, K, -2, a, c), SLG_OK);
    assert_int_equal(blas_dsyr2k(ctx, N, K, a, b, e), SLG_OK);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double one = i + j, two = i + j;
            for (int k = 0; k < K; k++) {
                one -= 2 * a[k * N + i] * a[k * N + j];
                two += a[k * N + i] * b[k * N + j] + b[k * N + i] * a[k * N + j];
            }
            assert_true(c[i * N + j] == one && e[i * N + j] == two);
        }
    assert_int_equal(blas_dsyrk(ctx, 0, K, 1, a, c), SLG_OK);
    assert_int_equal(blas_dsyrk(ctx, -1, K, 1, a, c), SLG_ERR_SHAPE);
}

static void test_solve(void **state)
{
    (void)state;
    double a[N * N], lu[N * N], b[2 * N], x[2 * N], rcond;
    fill(a, N * N, 3), fill(b, 2 * N, 4);
    for (int i = 0; i < N; i++) a[i * N + i] += 5;
    memcpy(lu, a, sizeof a), memcpy(x, b, sizeof b);
    arena_begin(ctx);
    assert_int_equal(blas_dsolve(ctx, N, lu, 2, x, 1e-7, &rcond), SLG_OK);
    assert_true(rcond > 1e-3 && rcond < 1);
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < N; i++) {
            double sum = 0;
            for (int j = 0; j < N; j++) sum += a[i * N + j] * x[s * N + j];
            assert_true(fabs(sum - b[s * N + i]) < 1e-12);
        }
    /* Singular, and not finite: nothing is solved. */
    memset(lu, 0, sizeof lu), memcpy(x, b, sizeof b);
    assert_int_equal(blas_dsolve(ctx, N, lu, 2, x, 1e-7, &rcond), SLG_OK);
    assert_true(rcond == 0 && !memcmp(x, b, sizeof b));
    memcpy(lu, a, sizeof a), lu[8] = NAN;
    assert_int_equal(blas_dsolve(ctx, N, lu, 2, x, 1e-7, &rcond), SLG_OK);
    assert_true(rcond == 0 && !memcmp(x, b, sizeof b));
    arena_end(ctx);
}

/* |L a| rows: left vectors are orthonormal, and the rows of L a have the singular values as
   norms. */
static void test_svd(void **state)
{
    (void)state;
    double a[N * N], work[N * N], s[N], left[N * N];
    fill(a, N * N, 5);
    memcpy(work, a, sizeof a);
    arena_begin(ctx);
    assert_int_equal(blas_dsvd(ctx, N, work, s, left), SLG_OK);
    arena_end(ctx);
    for (int p = 0; p < N; p++) {
        double row[N] = { 0 }, norm = 0;
        assert_true(p == 0 || s[p] <= s[p - 1]);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) row[j] += left[p * N + i] * a[i * N + j];
        for (int j = 0; j < N; j++) norm += row[j] * row[j];
        assert_true(fabs(sqrt(norm) - s[p]) < 1e-12);
        for (int q = 0; q < N; q++) {
            double dot = 0;
            for (int i = 0; i < N; i++) dot += left[p * N + i] * left[q * N + i];
            assert_true(fabs(dot - (p == q)) < 1e-12);
        }
    }
}

/* a = B'B + I, by its upper triangle; where it is not positive definite nothing is solved. */
static void test_cholesky(void **state)
{
    (void)state;
    double b[N * N], a[N * N], copy[N * N], root[N * N], x[2 * N], y[2 * N], rcond;
    bool definite;
    fill(b, N * N, 5), fill(y, 2 * N, 6);
    for (int i = 0; i < N * N; i++) a[i] = i % (N + 1) == 0;
    assert_int_equal(blas_dsyrk(ctx, N, N, 1, b, a), SLG_OK);
    memcpy(copy, a, sizeof a), memcpy(root, a, sizeof a), memcpy(x, y, sizeof x);
    for (int i = 0; i < N; i++) /* what it needs and what it must not depend on */
        for (int j = 0; j < i; j++) copy[i * N + j] = a[j * N + i];
    arena_begin(ctx);
    assert_int_equal(blas_dposv(ctx, N, copy, 2, x, 1e-12, &rcond), SLG_OK);
    assert_true(rcond > 1e-6 && rcond < 1);
    double same, *const wanted[] = { NULL, &same };
    for (int with = 0; with < 2; with++) { /* a condition; below R all is as it was */
        memcpy(root, a, sizeof a);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < i; j++) root[i * N + j] = 1e3;
        assert_int_equal(blas_dpotrf(ctx, N, root, &definite, wanted[with]), SLG_OK);
        assert_true(definite && (!with || same == rcond));
        for (int i = 0; i < N; i++)
            for (int j = i; j < N; j++) {
                double sum = 0;
                for (int k = 0; k <= i; k++) sum += root[k * N + i] * root[k * N + j];
                assert_true(fabs(sum - a[i * N + j]) < 1e-12 * (1 + fabs(sum)));
                if (j > i) assert_true(root[j * N + i] == 1e3);
            }
    }
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < N; i++) {
            double sum = 0;
            for (int j = 0; j < N; j++) sum += a[i * N + j] * x[s * N + j];
            assert_true(fabs(sum - y[s * N + i]) < 1e-11);
        }
    static const double bad[] = { -1, 0, NAN, INFINITY };
    for (int i = 0; i < 4; i++) {
        memcpy(copy, a, sizeof a), memcpy(root, a, sizeof a), memcpy(x, y, sizeof x);
        copy[3 * (N + 1)] = root[3 * (N + 1)] = bad[i];
        assert_int_equal(blas_dposv(ctx, N, copy, 2, x, 0, &rcond), SLG_OK);
        assert_true(rcond == 0);
        assert_memory_equal(x, y, sizeof x);
        assert_int_equal(blas_dpotrf(ctx, N, root, &definite, i % 2 ? &rcond : NULL), SLG_OK);
        assert_true(!definite && rcond == 0);
    }
    assert_int_equal(blas_dposv(ctx, 0, copy, 2, x, 0, &rcond), SLG_OK);
    assert_int_equal(blas_dpotrf(ctx, -1, copy, &definite, &rcond), SLG_ERR_SHAPE);
    arena_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_symmetric),
        cmocka_unit_test(test_solve),
        cmocka_unit_test(test_svd),
        cmocka_unit_test(test_cholesky),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
