/*
 * blas.h - the only door to BLAS and LAPACK. Called on the caller's thread alone, never from
 * pool tasks: OpenBLAS has threads of its own.
 */
#ifndef SLG_CORE_BLAS_H
#define SLG_CORE_BLAS_H

#include <stdbool.h>
#include <stdint.h>

#include "ctx.h"

/*
 * c = alpha * op(a) op(b) + beta * c, row-major; op(a) is m x k, op(b) k x n, op
 * is the transpose where trans_ is true. Leading dimensions are row strides. With beta 0, c
 * is overwritten even where it holds NaN. Empty products are handled (k = 0: c = beta c).
 * Dimensions beyond INT32_MAX are split along m where possible; else SLG_ERR_SHAPE with
 * a message.
 */
slg_status blas_sgemm(slg_ctx *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                      float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                      float beta, float *c, int64_t ldc);

/* The same in double. */
slg_status blas_dgemm(slg_ctx *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                      double alpha, const double *a, int64_t lda, const double *b, int64_t ldb,
                      double beta, double *c, int64_t ldc);

/*
 * y = a x, or a'x with trans; a is m x n, row-major. With add, it is added to y; else y is
 * overwritten even where it holds NaN. m and n at most INT32_MAX, else SLG_ERR_SHAPE.
 */
slg_status blas_dgemv(slg_ctx *ctx, bool trans, int64_t m, int64_t n, const double *a,
                      int64_t lda, const double *x, bool add, double *y);

/*
 * Symmetric updates of c (n x n), whole: c += alpha a'a, c += a'b + b'a, a and b being k x n.
 * ld: of all.
 */
slg_status blas_dsyrk(slg_ctx *ctx, int64_t n, int64_t k, double alpha, const double *a,
                      double *c);
slg_status blas_dsyr2k(slg_ctx *ctx, int64_t n, int64_t k, const double *a, const double *b,
                       double *c);

/*
 * Solves a x = b_j for `count` right-hand sides, which are the rows of b and become
 * the solutions; a is n x n, row-major, and is overwritten. *rcond: an estimate of its
 * reciprocal condition, 0 where it is singular or not finite; b is untouched where it is below
 * `least`.
 */
slg_status blas_dsolve(slg_ctx *ctx, int64_t n, double *a, int64_t count, double *b,
                       double least, double *rcond);

/*
 * Cholesky, of a symmetric positive definite a (n x n, row-major): the upper triangle, which
 * alone is read, becomes R with a = R'R, what is below it stays; *definite is false where there
 * is no R. *rcond: an estimate of the reciprocal condition, 0 where not definite; NULL: none is
 * made, which saves O(n^2). Then a x_j = b_j for the rows of b.
 */
slg_status blas_dpotrf(slg_ctx *ctx, int64_t n, double *a, bool *definite, double *rcond);
slg_status blas_dpotrs(slg_ctx *ctx, int64_t n, const double *r, int64_t count, double *b);

/* Both at once, as blas_dsolve: b is untouched where *rcond is 0 or below `least`. */
slg_status blas_dposv(slg_ctx *ctx, int64_t n, double *a, int64_t count, double *b,
                      double least, double *rcond);

/*
 * Singular values of a (n x n, row-major, overwritten), largest first, and the left singular
 * vectors as the rows of left. SLG_ERR_RANGE, with a message, where it does not converge.
 */
slg_status blas_dsvd(slg_ctx *ctx, int64_t n, double *a, double *values, double *left);

typedef struct blas_info_t {
    int32_t threads;
    int32_t parallel; /* how its threads are made: 0 none, 1 pthread, 2 OpenMP */
    int32_t mistaken; /* slg_blas_fit */
    const char *name, *core, *advice;
} blas_info_t;

/* slg_blas_fit of an OpenBLAS core on a CPU of this slg_isa. */
int32_t blas_mistaken(const char *core, int32_t cpu_isa);

/* cpu_isa: best slg_isa of the CPU. Mistaken: the core is none of those known to use AVX2 or
   better on a CPU that has them. */
blas_info_t blas_info(int32_t cpu_isa);

#endif
