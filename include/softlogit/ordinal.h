/*
 * ordinal.h - ordered classes 0 .. K-1 by a cumulative logit: m = K - 1 boundaries with scores
 * eta_k, P(y <= k) = sigmoid(eta_k), so that a larger score means a lower class. As a loss
 * under any network, and as a regression with weights of each boundary, which a penalty draws
 * towards one set for all (proportional odds).
 *
 * Paper: "Predicting Rare Events by Shrinking Towards Proportional Odds" (2023).
 */
#ifndef SOFTLOGIT_ORDINAL_H
#define SOFTLOGIT_ORDINAL_H

#include "softlogit/core.h"
#include "softlogit/loss.h"
#include "softlogit/solver.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The loss --------------------------------------------------------------------------- */

/* Options of slg_ordinal_cross_entropy. */
typedef struct slg_ordinal_cross_entropy_opts {
    uint32_t size;     /* sizeof(slg_ordinal_cross_entropy_opts), set by its _init */
    int32_t reduction; /* slg_reduction; default SLG_MEAN */
} slg_ordinal_cross_entropy_opts;

SLG_API void slg_ordinal_cross_entropy_opts_init(slg_ordinal_cross_entropy_opts *opts,
                                                 size_t size);

/* What else it returns. Tensors are f32, bf16, f16, written where not NULL, of ignored rows
   too; none may overlap another tensor of the call. */
typedef struct slg_ordinal_terms {
    uint32_t size;           /* sizeof(slg_ordinal_terms), set by slg_ordinal_terms_init */
    int32_t reserved;        /* 0 */
    slg_tensor *prob;        /* [rows, K]    sigmoid(eta_k) - sigmoid(eta_{k-1}): below 0 where
                                boundaries cross; a row sums to 1 */
    slg_tensor *log_prob;    /* [rows, K]    -inf where they cross or meet */
    slg_tensor *fisher_diag; /* [rows, m]    expected information of a row in eta: its diagonal
                                */
    slg_tensor *fisher_off;  /* [rows, m-1]  and the entries beside it; the others are 0.
                                Classes whose boundaries cross are left out */
    int64_t infeasible;      /* out: counted rows whose label has no probability */
} slg_ordinal_terms;

SLG_API void slg_ordinal_terms_init(slg_ordinal_terms *terms, size_t size);

/*
 * Ordinal cross-entropy: with b = eta_t, a = eta_{t-1} (left out for t = m, and t = 0),
 *
 *     p_t = sigmoid(b) - sigmoid(a),  loss = w (-log p_t)
 *     d loss / d b = -w (sigmoid(-b) + r),  d loss / d a = w (sigmoid(a) + r),
 *     r = 1 / expm1(b - a)
 *
 * at most two entries of a row; the others of its gradient are 0. Fisher information: with s_k
 * = sigmoid(eta_k) sigmoid(-eta_k), s_k^2 (1 / p_k + 1 / p_{k+1}) and -s_k s_{k+1} / p_{k+1}.
 *
 *   logits   in   eta: [rows, m] or the output layer that makes it (weight [m, dim], bias [m]);
 *                 mask NULL. K = m + 1
 *   targets  in   index, from 0 to m; row_weight; the rest NULL
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out; not NULL; lse must be NULL, correct is 0
 *   terms    out  NULL: not wanted
 *   grad     out  NULL: not wanted. dlogits may be the logits' own memory
 *
 * Two sigmoids are never subtracted: loss and gradient keep their relative precision, also far
 * out and for boundaries that nearly meet (tests/kernels/bounds.h). A row whose label has b <=
 * a is infeasible: loss +inf, gradient 0, counted; gaps that the label does not touch are not
 * looked at. eta = +-inf: p is 0 or 1 there. A NaN in a row: its loss and gradient NaN, and
 * those terms that it touches. m = 0: loss 0, p 1. No rows: value 0.
 *
 * Cost: one read of eta, one write of the gradient; three exponentials and a logarithm a row,
 * or as many a class where terms are wanted. Scratch some rows a thread. The same bits for any
 * number of threads, up to a fused source's products.
 *
 * Errors: as slg_cross_entropy; SLG_ERR_NULL for logits.mask or out.lse.
 *
 * Paper: "Predicting Rare Events by Shrinking Towards Proportional Odds" (2023). Since 0.1.
 */
SLG_API slg_status slg_ordinal_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                             const slg_targets *targets,
                                             const slg_ordinal_cross_entropy_opts *opts,
                                             slg_loss_out *out, slg_ordinal_terms *terms,
                                             slg_logits_grad *grad);

/* Between weights beta_k of boundaries and their differences psi: psi_0 = beta_0, psi_k =
   beta_k - beta_{k-1}. */
enum slg_ordinal_change {
    SLG_ORDINAL_TO_PSI = 0,   /* beta to psi */
    SLG_ORDINAL_FROM_PSI = 1, /* psi to beta: sums of rows 0 to k */
    SLG_ORDINAL_GRAD_PSI = 2  /* a gradient in beta to that in psi: sums of rows k to m-1 */
};

/*
 * Rows of x changed into rows of y, in double.
 *
 *   change  in   slg_ordinal_change
 *   x       in   [m, p]  f32, f64
 *   y       out  [m, p]  f32, f64: may be x's very memory
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE (change),
 * SLG_ERR_MEMORY. y is untouched then. Since 0.1.
 */
SLG_API slg_status slg_ordinal_differences(slg_ctx *ctx, int32_t change, const slg_tensor *x,
                                           slg_tensor *y);

/* ---- The regression --------------------------------------------------------------------- */

/* Options of the fits. */
typedef struct slg_ordinal_opts {
    uint32_t size;        /* sizeof(slg_ordinal_opts), set by slg_ordinal_opts_init */
    int32_t standardize;  /* default 1: columns less their mean, by their population standard
                              deviation; what is returned is on the scale of x. 0: as they are
                              */
    int32_t proportional; /* 1: all beta equal (proportional odds); default 0 */
    int32_t max_steps;    /* of Fisher scoring, from 1 to 1e6; default 100 */
    int32_t max_sweeps;   /* of coordinate descent in a step, from 1 to 1e6; default 100 */
    int32_t max_halvings; /* of a step, from 0 to 1000; default 40 */
    int32_t folds;        /* of slg_ordinal_cv, from 2 to rows; default 5 */
    int32_t reserved;     /* 0 */
    double mix;           /* a, from 0 to 1; default 1: all of the penalty absolute values */
    double base_penalty;  /* w0 >= 0, of psi_0 beside 1 of the differences; default 1 */
    double tolerance;     /* least relative decrease of F in a step, >= 0; default 1e-8 */
    double path_ratio;    /* least lambda of a path by the largest, in (0, 1); default 0.01 */
    const slg_tensor *penalty_factor; /* [p] f32, f64, >= 0: times the weights of a feature's
                                         coefficients; +inf leaves it out; NULL: ones */
    int32_t (*progress)(void *user, const slg_solver_report *report); /* after each step; not 0:
                                         stop */
    void *user;
} slg_ordinal_opts;

SLG_API void slg_ordinal_opts_init(slg_ordinal_opts *opts, size_t size);

/*
 * Fits alpha and beta, eta_k = alpha_k + x'beta_k, at one lambda: the minimum of
 *
 *     F = mean -log p_y + lambda sum_jl w_jl (a |psi_lj| + (1 - a) / 2 psi_lj^2)
 *
 * on the scale of standardised columns, w_jl = penalty_factor_j, times base_penalty for l = 0.
 * Intercepts are not penalised. By Fisher scoring: each step minimises the quadratic model by
 * coordinate descent over those that are not 0, with sweeps over all until none enters, and is
 * halved while F does not fall.
 *
 *   x        in   [n, p]  f32, f64, bf16, f16; n, p >= 1, all finite
 *   labels   in   [n]     i32, i64: from 0 below classes, each class at least once
 *   classes  in   K >= 2. 2: binary logistic regression
 *   lambda   in   >= 0; +inf: coefficients with a weight above 0 stay 0. So base_penalty = 0
 *                 and lambda = +inf is the proportional odds model, as opts.proportional with 0
 *                 is
 *   opts     in   NULL: the defaults
 *   alpha    out  [m]     f32, f64
 *   beta     out  [m, p]  f32, f64: row k is beta_k
 *   report   out  NULL: not wanted. reason: SLG_SOLVER_DECREASE is convergence,
 *                 SLG_SOLVER_STEPS is not, as with data that can be separated and lambda 0;
 *                 value F; solves the steps' models, products sweeps of coordinate descent,
 *                 radius the last step's length, grad_norm the largest violation of the
 *                 conditions of a minimum
 *
 * A constant column has coefficient 0 where standardised. Equal columns share theirs in no
 * particular way. In double throughout. Cost of a step: 2 m - 1 weighted squares of the rows
 * (one where proportional), n (p + 1)^2 each, since blocks of the Fisher matrix in psi depend
 * on the later boundary alone. Memory (2 m - 1) (p + 1)^2 + n (p + 4 m) doubles.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (n or p 0, too), SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for classes, a label, a class without a row,
 * x that is not finite, lambda, an option. Outputs are untouched then.
 *
 * Paper: "Predicting Rare Events by Shrinking Towards Proportional Odds" (2023). Since 0.1.
 */
SLG_API slg_status slg_ordinal_fit(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                                   int64_t classes, double lambda, const slg_ordinal_opts *opts,
                                   slg_tensor *alpha, slg_tensor *beta,
                                   slg_solver_report *report);

/*
 * The least lambda at which no penalised coefficient enters: the largest |gradient| by (max(a,
 * 0.01) w) over them, at the fit of what has no penalty (by default intercepts alone).
 * Operands and errors as slg_ordinal_fit. Since 0.1.
 */
SLG_API slg_status slg_ordinal_lambda_max(slg_ctx *ctx, const slg_tensor *x,
                                          const slg_tensor *labels, int64_t classes,
                                          const slg_ordinal_opts *opts, double *lambda);

/* What a path returns. Tensors are written where not NULL; none may overlap another. */
typedef struct slg_ordinal_path_out {
    uint32_t size;       /* sizeof(slg_ordinal_path_out), set by slg_ordinal_path_out_init */
    int32_t best;        /* out, of slg_ordinal_cv: index of the lambda chosen */
    slg_tensor *lambda;  /* [L]        f32, f64, as all but the last two */
    slg_tensor *alpha;   /* [L, m] */
    slg_tensor *beta;    /* [L, m, p] */
    slg_tensor *value;   /* [L]        F */
    slg_tensor *score;   /* [L]        slg_ordinal_cv: mean Brier score of rows left out */
    slg_tensor *nonzero; /* [L]        i32, i64: psi that are not 0 */
    slg_tensor *reason;  /* [L]        i32, i64: slg_solver_reason of each fit */
    double lambda_max;   /* out: slg_ordinal_lambda_max */
} slg_ordinal_path_out;

SLG_API void slg_ordinal_path_out_init(slg_ordinal_path_out *out, size_t size);

/*
 * Fits along lambdas, each from where the one before ended.
 *
 *   lambdas  in   [L]  f32, f64, each as lambda of slg_ordinal_fit, best from large to small;
 *                 NULL: `count` of them, evenly in the logarithm from lambda_max to path_ratio
 *                 of it
 *   count    in   L >= 1, also where lambdas is given
 *   out      out  not NULL
 *
 * The rest as slg_ordinal_fit. Errors: as there; SLG_ERR_RANGE for count; SLG_ERR_STOPPED where
 * progress says so. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_ordinal_path(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                                    int64_t classes, const slg_tensor *lambdas, int64_t count,
                                    const slg_ordinal_opts *opts, slg_ordinal_path_out *out);

/*
 * A path, and the choice of its lambda by cross-validation: for each fold a path of the rows
 * that are not in it, at the same lambdas, and the Brier score sum_c (1[y = c] - p_c)^2 of its
 * rows, by signed p. The lambda of the lowest mean over all rows is chosen, the largest of
 * equal ones; its fit of all rows is out.alpha[best], out.beta[best].
 *
 *   fold  in      [n]  i32, i64: the fold of each row, from 0 below opts.folds; NULL: every
 *                 opts.folds-th of a random permutation
 *   rng   in/out  of that; n numbers. NULL where fold is given
 *
 * The rest as slg_ordinal_path. Errors: as there; SLG_ERR_RANGE for fold, and where the rows
 * beside a fold lack a class. Since 0.1.
 */
SLG_API slg_status slg_ordinal_cv(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                                  int64_t classes, const slg_tensor *lambdas, int64_t count,
                                  const slg_tensor *fold, slg_rng *rng,
                                  const slg_ordinal_opts *opts, slg_ordinal_path_out *out);

/* What slg_ordinal_predict does where boundaries cross. */
enum slg_ordinal_crossing {
    SLG_ORDINAL_SIGNED = 0,  /* probabilities are differences, some below 0 */
    SLG_ORDINAL_CLIP = 1,    /* those become 0, and the others but the last class are scaled so
                               that all sum to 1: the last one's is what it was */
    SLG_ORDINAL_CLIP_ALL = 2 /* the last class is scaled too */
};

/*
 * Probabilities of a fit, in double.
 *
 *   x         in   [n, p]  f32, f64, bf16, f16
 *   alpha     in   [m]     f32, f64
 *   beta      in   [m, p]  f32, f64
 *   crossing  in   slg_ordinal_crossing
 *   prob      out  [n, K]  f32, f64; the last column is sigmoid(-eta_{m-1}), from 0 to 1
 *
 * n = 0: nothing is written. NaN in a row of x: NaN.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE
 * (crossing), SLG_ERR_MEMORY. prob is untouched then. Since 0.1.
 */
SLG_API slg_status slg_ordinal_predict(slg_ctx *ctx, const slg_tensor *x,
                                       const slg_tensor *alpha, const slg_tensor *beta,
                                       int32_t crossing, slg_tensor *prob);

/*
 * The mean -log p_y as an objective, for the solvers of solver.h. Its variable is [m, p + 1]:
 * row l is psi_l, and the difference of intercepts alpha_l - alpha_{l-1} (alpha_0 for l = 0),
 * which must be above 0 from l = 1 on where x0 is to be feasible.
 *
 *   x, labels, classes  in   as slg_ordinal_fit; columns as they are. Copied, as double
 *   ridge               in   >= 0: adds ridge / 2 |psi|^2
 *   o                   out  its dim is m (p + 1)
 *
 * SLG_HESSIAN: exact, and never indefinite. SLG_GAUSS_NEWTON: the expected Fisher information.
 * SLG_FISHER: the empirical one. Forms: dense, diagonal, product. +inf where a label's
 * boundaries meet or cross.
 *
 * Errors: as slg_ordinal_fit, SLG_ERR_RANGE for ridge; *o is untouched then. Since 0.1.
 */
SLG_API slg_status slg_ordinal_objective(slg_ctx *ctx, const slg_tensor *x,
                                         const slg_tensor *labels, int64_t classes,
                                         double ridge, slg_objective *o);

#ifdef __cplusplus
}
#endif

#endif
