/*
 * regression.h - objectives of regression through a softmax: values, gradients and curvature;
 * the matrix form that attention has; and what a step of descent does to a prediction, beside
 * what a change of data or a step of attention does.
 *
 * Paper: "The Closeness of In-Context Learning and Weight Shifting for Softmax Regression"
 * (2023).
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
 * gauss_newton where c = 0. n = 1: f = 1 and no gradient but the regulariser's. d = 0: f is
 * uniform. Where f is one-hot the gradient vanishes, even if it is wrong. z = -inf: f and q
 * are 0 there. NaN or +inf in z, all z = -inf, or NaN in b: f (not for b), value, gradients
 * and curvature NaN.
 *
 * Computed in double: a common offset of a column of A costs no digits. Cost: two passes over
 * A, by BLAS, where it lies if it is f64 with contiguous rows, else converted a panel of 1 MiB
 * at a time; O(n d^2) for each dense matrix (a symmetric update, another with w; symmetric to
 * the last bit). Workspace O(n + d^2). The same bits at a fixed number of BLAS threads.
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

/* ---- The matrix form -------------------------------------------------------------------- */

/* What slg_attention_regression returns. Tensors are written where not NULL. */
typedef struct slg_attention_regression_out {
    uint32_t size;    /* sizeof(slg_attention_regression_out), set by its _init */
    int32_t reserved; /* 0 */
    slg_tensor *loss; /* [n]       f32, f64: of each row */
    slg_tensor *prob; /* [n, m]    f32, bf16, f16, as the next ones: P */
    slg_tensor *dx;   /* [d1, d2] */
    slg_tensor *da1;  /* [n, d1] */
    slg_tensor *da2;  /* [m, d2] */
    double value;     /* out: 1/2 ||P - T||_F^2 */
} slg_attention_regression_out;

SLG_API void slg_attention_regression_out_init(slg_attention_regression_out *out, size_t size);

/*
 * Softmax regression in the form that attention has: with P = the softmax of each row of
 * A1 X A2', C = P - T, s_i = P_i . C_i, Q = rows P_i o (C_i - s_i),
 *
 *     value = 1/2 ||P - T||_F^2
 *     dx = A1' Q A2,  da1 = Q A2 X',  da2 = Q' A1 X
 *
 * With n = 1 it is slg_softmax_regression of A = a2 at X' a1. The gradient in T is T - P.
 *
 *   a1      in   [n, d1]   f32, bf16, f16
 *   a2      in   [m, d2]   f32, bf16, f16; m >= 1
 *   x       in   [d1, d2]  f32, bf16, f16
 *   target  in   [n, m]    f32, bf16, f16: T; any numbers
 *   out     out  no tensor may overlap another or an input
 *
 * n = 0: value 0, dx and da2 zeros. d1 or d2 = 0: P is uniform. A row of logits with NaN or
 * +inf: P and loss of that row NaN, and so value, dx and da2. NaN in T: the same, save P.
 * One-hot rows of P have no gradient, even where they are wrong.
 *
 * Logits in float32, a block of rows at a time: the n x m matrices are never stored, save
 * prob. Cost: two products for the value, up to six with gradients. Workspace n (d1 + 2 d2)
 * floats and a block of logits.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (m = 0 too), SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_attention_regression(slg_ctx *ctx, const slg_tensor *a1,
                                            const slg_tensor *a2, const slg_tensor *x,
                                            const slg_tensor *target,
                                            slg_attention_regression_out *out);

/* ---- Weight shift: steps of descent ----------------------------------------------------- */

/* Options of slg_regression_descent. */
typedef struct slg_regression_descent_opts {
    uint32_t size;        /* sizeof(slg_regression_descent_opts), set by its _init */
    int32_t steps;        /* from 0 to 1e6; default 1 */
    int32_t line_search;  /* default 0: every step is `step`. 1: halved until the value falls by
                             decrease * step * |gradient|^2 at least */
    int32_t max_halvings; /* from 0 to 1000, default 50: of a step; then the descent ends */
    double step;          /* eta > 0; default 1. With line_search where each step begins */
    double decrease;      /* in (0, 1); default 1e-4 */
} slg_regression_descent_opts;

SLG_API void slg_regression_descent_opts_init(slg_regression_descent_opts *opts, size_t size);

/* What it returns beside x. */
typedef struct slg_regression_descent_out {
    uint32_t size;       /* sizeof(slg_regression_descent_out), set by its _init */
    int32_t steps;       /* out: taken; fewer than asked for where the line search found no
                            decrease */
    slg_tensor *values;  /* in: NULL, or [opts->steps + 1] f32, f64: the value before each step
                            and at the end; after an early end the rest is its last */
    slg_tensor *prob;    /* in: NULL, or [n] f32, f64: f at the end */
    double loss, value;  /* out: at the end, as slg_softmax_regression's */
    double step;         /* out: the last step taken; 0 if none was */
    int64_t evaluations; /* out: of the value */
} slg_regression_descent_out;

SLG_API void slg_regression_descent_out_init(slg_regression_descent_out *out, size_t size);

/*
 * Steps of gradient descent on slg_softmax_regression's value:  x <- x - eta dx.
 *
 *   a, b, w  in   as there; w may be NULL
 *   x0       in   [d]  f32, f64
 *   opts     in   NULL: the defaults
 *   x        out  [d]  f32, f64: may be x0's very memory
 *   out      out  NULL: not wanted. No tensor may overlap another
 *
 * Between steps x is held in double. Values that are not finite: fixed steps go on with NaN,
 * the line search takes no step. Where the gradient vanishes steps are taken and change
 * nothing.
 *
 * Cost: two passes over A a step, and one for each halving. Workspace O(n + d).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an option outside of its domain. Outputs are untouched
 * then. Since 0.1.
 */
SLG_API slg_status slg_regression_descent(slg_ctx *ctx, const slg_tensor *a,
                                          const slg_tensor *b, const slg_tensor *w,
                                          const slg_tensor *x0,
                                          const slg_regression_descent_opts *opts,
                                          slg_tensor *x, slg_regression_descent_out *out);

/* ---- Weight shift and data shift -------------------------------------------------------- */

enum slg_matrix_norm { SLG_NORM_SPECTRAL = 0, SLG_NORM_FROBENIUS = 1 };

/* Options of slg_regression_shift. */
typedef struct slg_regression_shift_opts {
    uint32_t size; /* sizeof(slg_regression_shift_opts), set by its _init */
    int32_t norm;  /* slg_matrix_norm: how ||A|| is found; default SLG_NORM_SPECTRAL. The other
                      is larger, so bounds remain true, and cheaper: O(n d) */
    double a_norm; /* > 0: ||A||, or more, which the caller knows; default 0: found */
} slg_regression_shift_opts;

SLG_API void slg_regression_shift_opts_init(slg_regression_shift_opts *opts, size_t size);

/* What it returns. Tensors are f32 or f64, written where not NULL. */
typedef struct slg_regression_shift_out {
    uint32_t size;      /* sizeof(slg_regression_shift_out), set by its _init */
    int32_t small_move; /* out: 1 where max |A (x+ - x)| < 0.01, which the paper wants */
    slg_tensor *implied_target; /* [n]     b~ = b + f(A x) - f(A x+) */
    slg_tensor *data_change;    /* [n, d]  Delta = A (x+ - x) x' / (x.x) */
    slg_tensor *prob;           /* [n]     f(A x) */
    slg_tensor *prob_new;       /* [n]     f(A x+) */
    double loss, loss_new;      /* out: 1/2 ||f - b||^2 at x and at x+ */
    double target_shift;        /* out: ||b - b~|| */
    double weight_move;         /* out: ||x+ - x|| */
    double data_move;           /* out: ||Delta||; NaN where x = 0 */
    double a_norm;              /* out: ||A|| as used */
    double weight_bound;        /* out: 1/2 ||A|| ||x+ - x|| >= target_shift */
    double data_bound;          /* out: 1/2 ||Delta|| ||x|| >= target_shift; NaN where x = 0 */
    double log_weight_factor;   /* out: log M, M = n^1.5 exp(10 R^2), with
                                   R = max(4, ||A||, ||x||, ||x+||) */
    double log_data_factor;     /* out: log M with R = max(4, ||A|| + ||Delta||, ||x||) */
    double paper_weight_bound;  /* out: M ||x+ - x||; inf where it is beyond double */
    double paper_data_bound;    /* out: M ||Delta||; NaN where x = 0 */
} slg_regression_shift_out;

SLG_API void slg_regression_shift_out_init(slg_regression_shift_out *out, size_t size);

/*
 * A move of the weights from x to x+ seen in two other ways. The new prediction errs on the
 * target b as the old one does on the implied target b~:
 *
 *     f(A x+) - b = f(A x) - b~
 *
 * and it is what the old weights predict from changed data: (A + Delta) x = A x+, Delta of rank
 * one and the smallest such change in the Frobenius and the spectral norm. Both moves bound how
 * far the target shifts: tightly, since the softmax is 1/2-Lipschitz in the 2-norm, and as the
 * paper does.
 *
 *   a      in   [n, d]  f32, f64; n >= 1
 *   b      in   [n]     f32, f64: any numbers
 *   x      in   [d]     f32, f64
 *   x_new  in   [d]     f32, f64: x+
 *   opts   in   NULL: the defaults
 *   out    out  not NULL; no tensor may overlap another or an input
 *
 * target_shift keeps its relative precision for small moves. Where a logit is -inf at x and at
 * x+ that row of Delta is 0. NaN or +inf among logits: NaN. The norm of a matrix with NaN is
 * NaN, with an infinity +inf.
 *
 * Cost: three passes over A. The spectral norm: O(n d s + s^3) with s = min(n, d), workspace
 * O(s^2).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (n = 0 too), SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for x = 0 where data_change is wanted, an
 * option outside of its domain, a norm that LAPACK does not find. Outputs are untouched then.
 * Since 0.1.
 */
SLG_API slg_status slg_regression_shift(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                                        const slg_tensor *x, const slg_tensor *x_new,
                                        const slg_regression_shift_opts *opts,
                                        slg_regression_shift_out *out);

/* ---- A step of attention as a step of descent ------------------------------------------- */

/* Options of slg_attention_step. */
typedef struct slg_attention_step_opts {
    uint32_t size;    /* sizeof(slg_attention_step_opts), set by its _init */
    int32_t reserved; /* 0 */
    double step;      /* eta, finite; default 1: of step_x, step_scores, and of attention where
                         q is NULL */
} slg_attention_step_opts;

SLG_API void slg_attention_step_opts_init(slg_attention_step_opts *opts, size_t size);

/* What it returns. Tensors are f32 or f64, written where not NULL. */
typedef struct slg_attention_step_out {
    uint32_t size;           /* sizeof(slg_attention_step_out), set by its _init */
    int32_t reserved;        /* 0 */
    slg_tensor *scores;      /* [tasks, m] */
    slg_tensor *step_x;      /* [tasks, d]  x1 */
    slg_tensor *step_scores; /* [tasks, m]  queries times x1 */
    slg_tensor *dq;       /* [d, d]      of sum over tasks of dscores . scores, as the next */
    slg_tensor *dp;       /* [1] */
    slg_tensor *dqueries; /* [tasks, m, d] */
} slg_attention_step_out;

SLG_API void slg_attention_step_out_init(slg_attention_step_out *out, size_t size);

/*
 * One head of softmax attention over a context of rows a_j with targets b_j, for query rows
 * c_i, beside the step of descent that it resembles; a batch of tasks, each with its own
 * context:
 *
 *     scores[i] = p n sum_j softmax_j(c_i' Q a_j) b_j
 *     x1 = (eta / n) sum_j b_j (a_j - mean a)            one step of descent from x = 0
 *     step_scores[i] = c_i' x1
 *
 * For small Q scores are p sum(b) + p sum_j (c_i' Q (a_j - mean a)) b_j + O(p |Q|^2): so with
 * Q = (eta / (n p)) I they are step_scores up to a constant, which a softmax over the queries
 * ignores, and the more exactly the larger p is.
 *
 *   a        in   [tasks, n, d]  f32, f64; n >= 1
 *   b        in   [tasks, n]     f32, f64
 *   queries  in   [tasks, m, d]  f32, f64: c
 *   q        in   [d, d]         f32, f64; NULL: (eta / (n p)) I
 *   p        in   [1]            f32, f64
 *   dscores  in   [tasks, m]     f32, f64: gradient in scores; NULL: no gradients. Of ones,
 *                                dqueries is the model at each query: its score's slope
 *   opts     in   NULL: the defaults
 *   out      out  not NULL; no tensor may overlap another or an input
 *
 * Where q is NULL, dq and dp treat Q as a constant. NaN or +inf among a query's products: its
 * score is NaN; all -inf: 0.
 *
 * Computed in double. Cost: O(tasks d n (d + m)). Workspace O(n d + d^2) a thread. The same
 * bits for any number of threads.
 *
 * Errors: SLG_ERR_NULL (a gradient without dscores, too), SLG_ERR_SHAPE (n = 0 too),
 * SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for a step
 * that is not finite, or p = 0 with q NULL. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_attention_step(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                                      const slg_tensor *queries, const slg_tensor *q,
                                      const slg_tensor *p, const slg_tensor *dscores,
                                      const slg_attention_step_opts *opts,
                                      slg_attention_step_out *out);

#ifdef __cplusplus
}
#endif

#endif
