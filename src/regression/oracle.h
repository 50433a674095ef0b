/*
 * oracle.h - softmax regression at a point: what slg_softmax_regression, the descent and the
 * shifts are made of. The vector form; all in double.
 */
#ifndef SLG_REGRESSION_ORACLE_H
#define SLG_REGRESSION_ORACLE_H

#include "panels.h"

/* Coefficients of rows of A that are carried back to columns. */
enum { BACK_GRAD, BACK_HESSIAN_P, BACK_GAUSS_P, BACK_F, BACK_VECTORS };

typedef struct oracle {
    slg_ctx *ctx;
    panels a;
    int64_t n, d;
    double *b, *w2;    /* [n]; w2: w^2 */
    double *z, *y, *f; /* [n]: A x, A p (0 without p), softmax */
    double s;          /* f.c */
    double loss, value;
    double *coef[BACK_VECTORS]; /* [n]; NULL: not wanted */
    double *back[BACK_VECTORS]; /* [d]: A' coef; NULL: not wanted */
} oracle;

/* A vector of the caller, checked, as doubles in scratch; t NULL: zeros. */
slg_status vector_read(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t size,
                       double **to);
void vector_write(const slg_tensor *to, const double *from); /* to NULL: nothing */

/* Checks a, b and w (which may be NULL) and takes scratch; want: bits 1 << BACK_GRAD and so
   on. */
slg_status oracle_open(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                       const slg_tensor *w, oracle *g);
slg_status oracle_want(oracle *g, unsigned want);

/* z, f, loss, value and the sums at x; y where p is not NULL. */
slg_status oracle_forward(oracle *g, const double *x, const double *p);

/* After it: coef and back of what is wanted. */
slg_status oracle_backward(oracle *g);

/* f = softmax(z): NaN throughout where z holds NaN or +inf, or is -inf throughout. */
void softmax_f64(const kernel_table *k, int64_t n, const double *z, double *f);

#endif
