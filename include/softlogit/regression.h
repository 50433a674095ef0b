/*
 * regression.h - objectives of regression through a softmax: values, gradients and curvature.
 */
#ifndef SOFTLOGIT_REGRESSION_H
#define SOFTLOGIT_REGRESSION_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What slg_softmax_regression returns. Tensors are f32 or f64, written where not NULL. */
typedef struct slg_softmax_regression_out {
    uint32_t size;              /* sizeof(slg_softmax_regression_out), set by its _init */
    int32_t reserved;           /* 0 */
    slg_tensor *prob;           /* [n]     f */
    slg_tensor *dx;             /* [d]     gradient in x */
    slg_tensor *da;             /* [n, d]  in A */
    slg_tensor *db;             /* [n]     in b */
    slg_tensor *hessian;        /* [d, d]  second derivative in x */
    slg_tensor *gauss_newton;   /* [d, d]  its part that is positive semidefinite */
    slg_tensor *hessian_p;      /* [d]     hessian times p, without forming it */
    slg_tensor *gauss_newton_p; /* [d]   gauss_newton times p */
    double loss;                /* out: 1/2 ||f - b||^2 */
    double value;               /* out: loss + 1/2 ||diag(w) A x||^2 */
} slg_softmax_regression_out;

SLG_API void slg_softmax_regression_out_init(slg_softmax_regression_out *out, size_t size);

/*
 * Softmax regression: with z = A x, f = softmax(z), c = f - b, s = f.c, q = f o (c - s),
 * v = 2 f - b, t = f.v, u = f o v,
 *
 *     value = 1/2 ||f - b||^2 + 1/2 ||w o z||^2
 *     dx = A'(q + w^2 o z),  dA = (q + w^2 o z) x',  db = -c
 *     hessian = A'(B + diag(w^2)) A,  B = diag(f o (v - s)) - u f' - f u' + (s + t) f f'
 *     gauss_newton = A'(J J + diag(w^2)) A,  J = diag(f) - f f'
 *
 *   a   in   [n, d]  f32, f64; n >= 1
 *   x   in   [d]     f32, f64
 *   b   in   [n]     f32, f64: the target; any numbers
 *   w   in   [n]     f32, f64; NULL: zeros, no regulariser
 *   p   in   [d]     f32, f64: direction of the products; NULL: none of them
 *   out out  no tensor may overlap another or an input
 *
 * The value is not convex; it is where w^2 >= 2 and b is a distribution. hessian equals
 * gauss_newton where c = 0. n = 1: f = 1 and no gradient but the regulariser's. d = 0: f
 * is uniform. Where f is one-hot the gradient vanishes, even if it is wrong. z = -inf: f and q
 * are 0 there. NaN or +inf in z, all z = -inf, or NaN in b: f (not for b), value, gradients and
 * curvature NaN.
 *
 * Computed in double. Cost: two passes over A; O(n d^2) for each dense matrix (a weighted
 * product of A with itself and a correction of rank two; symmetric to the last bit). Workspace
 * O(n + d^2).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (n = 0 too), SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY. Outputs are untouched then.
 *
 * Paper: "The Closeness of In-Context Learning and Weight Shifting for Softmax Regression"
 * (2023). Since 0.1.
 */
SLG_API slg_status slg_softmax_regression(slg_ctx *ctx, const slg_tensor *a,
                                          const slg_tensor *x, const slg_tensor *b,
                                          const slg_tensor *w, const slg_tensor *p,
                                          slg_softmax_regression_out *out);

#ifdef __cplusplus
}
#endif

#endif
