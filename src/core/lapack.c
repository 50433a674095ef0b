/*
 * lapack.c - symmetric updates, solving and singular values: see blas.h. LAPACK is called by
 * its Fortran names: its matrices are column-major, so a row-major one is seen as its
 * transpose.
 */
#include "blas.h"

#include <math.h>
#include <string.h>

#include <cblas.h>

#include "fpenv.h"

/* gfortran passes the lengths of strings last. */
extern void dgetrf_(const int *m, const int *n, double *a, const int *lda, int *pivot,
                    int *info);
extern void dgetrs_(const char *trans, const int *n, const int *count, const double *a,
                    const int *lda, const int *pivot, double *b, const int *ldb, int *info,
                    size_t length);
extern void dgecon_(const char *norm, const int *n, const double *a, const int *lda,
                    const double *anorm, double *rcond, double *work, int *iwork, int *info,
                    size_t length);
extern void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info,
                    size_t length);
extern void dpotrs_(const char *uplo, const int *n, const int *count, const double *a,
                    const int *lda, double *b, const int *ldb, int *info, size_t length);
extern void dpocon_(const char *uplo, const int *n, const double *a, const int *lda,
                    const double *anorm, double *rcond, double *work, int *iwork, int *info,
                    size_t length);
extern void dgesdd_(const char *job, const int *m, const int *n, double *a, const int *lda,
                    double *s, double *u, const int *ldu, double *vt, const int *ldvt,
                    double *work, const int *lwork, int *iwork, int *info, size_t length);

static slg_status check(slg_ctx *ctx, int64_t n, int64_t k)
{
    if (n >= 0 && k >= 0 && n <= 1 << 20 && k <= INT32_MAX) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE,
                    "a matrix of %lld x %lld is more than LAPACK is asked for", (long long)n,
                    (long long)k);
}

/* The lower triangle from the upper. */
static void mirror(int64_t n, double *c)
{
    enum { TILE = 32 };
    for (int64_t i0 = 0; i0 < n; i0 += TILE)
        for (int64_t j0 = 0; j0 <= i0; j0 += TILE)
            for (int64_t i = i0; i < n && i < i0 + TILE; i++)
                for (int64_t j = j0; j < i && j < j0 + TILE; j++) c[i * n + j] = c[j * n + i];
}

slg_status blas_dsyrk(slg_ctx *ctx, int64_t n, int64_t k, double alpha, const double *a,
                      double *c)
{
    SLG_TRY(check(ctx, n, k));
    if (n == 0 || k == 0) return SLG_OK;
    fp_mode mode = fp_enter_ieee();
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n, (int)k, alpha, a, (int)n, 1, c,
                (int)n);
    mirror(n, c);
    fp_leave(mode);
    return SLG_OK;
}

slg_status blas_dsyr2k(slg_ctx *ctx, int64_t n, int64_t k, const double *a, const double *b,
                       double *c)
{
    SLG_TRY(check(ctx, n, k));
    if (n == 0 || k == 0) return SLG_OK;
    fp_mode mode = fp_enter_ieee();
    cblas_dsyr2k(CblasRowMajor, CblasUpper, CblasTrans, (int)n, (int)k, 1, a, (int)n, b, (int)n,
                 1, c, (int)n);
    mirror(n, c);
    fp_leave(mode);
    return SLG_OK;
}

/* The largest sum of magnitudes of a row: of the transpose, what dgecon calls the 1-norm. */
static double row_norm(int64_t n, const double *a)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += fabs(a[i * n + j]);
        if (!(sum <= most)) most = sum; /* NaN too */
        if (isnan(most)) break;
    }
    return most;
}

slg_status blas_dsolve(slg_ctx *ctx, int64_t n, double *a, int64_t count, double *b,
                       double least, double *rcond)
{
    SLG_TRY(check(ctx, n, count));
    *rcond = 1;
    if (n == 0) return SLG_OK;
    int *pivot = arena_alloc(ctx, (size_t)n, sizeof *pivot);
    int *iwork = arena_alloc(ctx, (size_t)n, sizeof *iwork);
    double *work = arena_alloc(ctx, 4 * (size_t)n, sizeof *work);
    if (!pivot || !iwork || !work) return SLG_ERR_MEMORY;
    const int size = (int)n, sides = (int)count;
    const double norm = row_norm(n, a);
    int info = 0;
    *rcond = 0;
    if (!isfinite(norm)) return SLG_OK;
    fp_mode mode = fp_enter_ieee();
    dgetrf_(&size, &size, a, &size, pivot, &info);
    if (info == 0) dgecon_("1", &size, a, &size, &norm, rcond, work, iwork, &info, 1);
    if (info != 0 || isnan(*rcond)) *rcond = 0;
    if (*rcond >= least && sides > 0)
        dgetrs_("T", &size, &sides, a, &size, pivot, b, &size, &info, 1);
    fp_leave(mode);
    return SLG_OK;
}

/* The same of a symmetric matrix, of which the upper triangle is there. sum: [n]. */
static double symmetric_norm(int64_t n, const double *a, double *sum)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) sum[i] = 0;
    for (int64_t i = 0; i < n; i++) {
        sum[i] += fabs(a[i * n + i]);
        for (int64_t j = i + 1; j < n; j++) {
            const double v = fabs(a[i * n + j]);
            sum[i] += v, sum[j] += v;
        }
    }
    for (int64_t i = 0; i < n && !isnan(most); i++)
        if (!(sum[i] <= most)) most = sum[i]; /* NaN too */
    return most;
}

/* Of the matrix that dpotrf made r of. */
static double cholesky_rcond(int64_t n, const double *r, double norm, double *work, int *iwork)
{
    const int size = (int)n;
    double rcond = 0;
    int info = 0;
    dpocon_("L", &size, r, &size, &norm, &rcond, work, iwork, &info, 1);
    return info == 0 && !isnan(rcond) ? rcond : 0;
}

/* Row-major upper is LAPACK's lower. */
slg_status blas_dpotrf(slg_ctx *ctx, int64_t n, double *a, bool *definite, double *rcond)
{
    SLG_TRY(check(ctx, n, n));
    *definite = true;
    if (rcond) *rcond = 1;
    if (n == 0) return SLG_OK;
    int *iwork = arena_alloc(ctx, rcond ? (size_t)n : 0, sizeof *iwork);
    double *work = arena_alloc(ctx, rcond ? 3 * (size_t)n : 0, sizeof *work), norm = 0;
    if (!iwork || !work) return SLG_ERR_MEMORY;
    const int size = (int)n;
    int info = 0;
    if (rcond) norm = symmetric_norm(n, a, work);
    fp_mode mode = fp_enter_ieee();
    if (isfinite(norm)) dpotrf_("L", &size, a, &size, &info, 1);
    *definite = isfinite(norm) && info == 0;
    for (int64_t i = 0; i < n && *definite; i++) /* NaN passes dpotrf of some builds */
        if (!(a[i * n + i] > 0) || !isfinite(a[i * n + i])) *definite = false;
    if (rcond) *rcond = *definite ? cholesky_rcond(n, a, norm, work, iwork) : 0;
    fp_leave(mode);
    return SLG_OK;
}

slg_status blas_dposv(slg_ctx *ctx, int64_t n, double *a, int64_t count, double *b,
                      double least, double *rcond)
{
    bool definite;
    SLG_TRY(check(ctx, n, count));
    SLG_TRY(blas_dpotrf(ctx, n, a, &definite, rcond));
    return definite && *rcond > 0 && *rcond >= least ? blas_dpotrs(ctx, n, a, count, b)
                                                     : SLG_OK;
}

slg_status blas_dpotrs(slg_ctx *ctx, int64_t n, const double *r, int64_t count, double *b)
{
    SLG_TRY(check(ctx, n, count));
    if (n == 0 || count == 0) return SLG_OK;
    const int size = (int)n, sides = (int)count;
    int info = 0;
    fp_mode mode = fp_enter_ieee();
    dpotrs_("L", &size, &sides, r, &size, b, &size, &info, 1);
    fp_leave(mode);
    return SLG_OK;
}

slg_status blas_dsvd(slg_ctx *ctx, int64_t n, double *a, double *values, double *left)
{
    SLG_TRY(check(ctx, n, n));
    if (n == 0) return SLG_OK;
    const int size = (int)n, query = -1;
    int info = 0;
    double best = 0;
    double *right = arena_alloc(ctx, (size_t)n * (size_t)n, sizeof *right);
    int *iwork = arena_alloc(ctx, 8 * (size_t)n, sizeof *iwork);
    if (!right || !iwork) return SLG_ERR_MEMORY;
    /* a' = X S Y': the rows of Y', as LAPACK stores them down columns, are a's left vectors. */
    dgesdd_("A", &size, &size, a, &size, values, right, &size, left, &size, &best, &query,
            iwork, &info, 1);
    const int lwork = (int)best + 1;
    double *work = arena_alloc(ctx, (size_t)lwork, sizeof *work);
    if (!work) return SLG_ERR_MEMORY;
    fp_mode mode = fp_enter_ieee();
    dgesdd_("A", &size, &size, a, &size, values, right, &size, left, &size, work, &lwork, iwork,
            &info, 1);
    for (int64_t i = 0; i < n; i++) /* to rows */
        for (int64_t j = 0; j < i; j++) {
            double t = left[i * n + j];
            left[i * n + j] = left[j * n + i], left[j * n + i] = t;
        }
    fp_leave(mode);
    if (info == 0) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "singular values of a %d x %d matrix did not converge",
                    size, size);
}
