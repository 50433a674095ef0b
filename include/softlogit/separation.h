/*
 * separation.h - linear scorers that are to separate their data: the parts of the logistic loss
 * by its margins, far out too, and the rules that large steps lead to, from logistic regression
 * to the perceptron. Data may be float32 or less; everything here computes in double.
 *
 * Paper: "From Logistic Regression to the Perceptron Algorithm: Exploring Gradient Descent with
 * Large Step Sizes" (2024).
 */
#ifndef SOFTLOGIT_SEPARATION_H
#define SOFTLOGIT_SEPARATION_H

#include "softlogit/core.h"
#include "softlogit/solver.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What slg_separation_parts and slg_separation_weights return. Tensors are written where not
   NULL. */
typedef struct slg_separation_out {
    uint32_t size;         /* sizeof(slg_separation_out), set by slg_separation_out_init */
    int32_t reserved;      /* 0 */
    slg_tensor *margins;   /* [n]  f32, f64; slg_separation_parts alone, as the next two */
    slg_tensor *gradient;  /* as theta, f32, f64 */
    slg_tensor *direction; /* as theta, f32, f64 */
    slg_tensor *weights;   /* f32, f64: [n], or as the margins that were given; so dscores */
    slg_tensor *dscores;   /* slg_separation_weights alone */
    double loss;           /* out, as the rest: mean softplus(-m) */
    double log_beta;       /* -log(mean sigmoid(-m)), >= 0 */
    double min_margin;     /* +inf for no samples */
    int64_t wrong;         /* samples with a margin that is not above 0: ties and NaN too */
} slg_separation_out;

SLG_API void slg_separation_out_init(slg_separation_out *out, size_t size);

/*
 * The logistic loss by its margins m_i = y_i a_i'theta:
 *
 *     loss = mean softplus(-m),   gradient = -mean q_i y_i a_i,   q_i = sigmoid(-m_i)
 *     w = softmax(s),  s_i = log q_i = -softplus(m_i),   log beta = log n - logsumexp(s)
 *     direction = sum w_i y_i a_i = -beta gradient,      beta = 1 / mean q
 *
 * w and direction are found by logarithms, so they are exact where every q_i underflows and
 * beta overflows. The direction is a mean of samples: no longer than the longest. It is not the
 * descent of log(loss): beta is 1 / mean(q), not 1 / loss.
 *
 *   a      in   [n, d]  f32, f64, bf16, f16; d >= 1. A bias is a column of ones
 *   y      in   [n]     i32, i64, f32, f64: -1 or 1
 *   theta  in   [d]     f32, f64
 *   out    out  no tensor may overlap another or an input
 *
 * Extension (of ours, not of the paper) to classes: theta [classes, d] with classes >= 2 and y
 * i32 or i64, from 0 below classes. With z = theta a_i and p = softmax(z), m_i = log p_y -
 * log(1 - p_y), so q_i = 1 - p_y, and loss is cross-entropy;
 *
 *     direction = sum w_i (onehot(y_i) - p) / (1 - p_y) a_i'
 *
 * where the fraction is onehot(y_i) less the softmax over the other classes. min_margin and
 * wrong are by z_y - max of the others there. Two classes: the binary case with theta_1 -
 * theta_0, direction in the row of 1 and its opposite in the row of 0.
 *
 * A margin of +inf has w = 0; if all are, w = 1/n. With a NaN among the margins loss, log_beta,
 * min_margin, w, gradient and direction are NaN. n = 0: loss, log_beta, gradient, direction 0.
 *
 * One read of a: a block of rows gives its margins, and while it is in cache adds to the
 * direction; blocks merge as partial softmaxes do. The same bits for any number of threads.
 * Workspace: blocks, 32 sums like theta (8 d bytes a row of theta) at most, and 8 n bytes for
 * margins or weights.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for y, or an output that is not of this function. Outputs are
 * untouched then. Since 0.1.
 */
SLG_API slg_status slg_separation_parts(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *y,
                                        const slg_tensor *theta, slg_separation_out *out);

/*
 * The weights alone, for a scorer of any kind: from its margins, what its own backward pass is
 * to start from. A step of size 1 along the result is the normalised one of size gamma.
 *
 *     weights = softmax(-softplus(m)),   dscores_i = -gamma w_i y_i
 *
 *   margins  in   1 to 4 axes, f32, f64, bf16, f16
 *   y        in   as margins, i32, i64, f32, f64: -1 or 1; NULL: ones (dscores is then by
 *                 margins, not by scores)
 *   gamma    in   > 0, finite
 *   out      out  weights, dscores: as margins, no overlap; loss, log_beta, min_margin, wrong
 *
 * Edge cases and errors as slg_separation_parts; SLG_ERR_RANGE for gamma. Since 0.1.
 */
SLG_API slg_status slg_separation_weights(slg_ctx *ctx, const slg_tensor *margins,
                                          const slg_tensor *y, double gamma,
                                          slg_separation_out *out);

/*
 * What is added to theta in a step. S is the samples with a margin that is not above 0: ties
 * are wrong. The last three are the limits of the first two, divided by gamma, as gamma grows;
 * they do not depend on gamma.
 */
enum slg_separation_rule {
    SLG_LOGISTIC_DESCENT = 0,            /* gamma mean q_i y_i a_i */
    SLG_NORMALIZED_LOGISTIC = 1,         /* gamma sum w_i y_i a_i */
    SLG_BATCH_PERCEPTRON = 2,            /* 1/n sum_S y_i a_i; half of it from theta = 0 */
    SLG_NORMALIZED_BATCH_PERCEPTRON = 3, /* 1/|S| sum_S y_i a_i */
    SLG_PERCEPTRON = 4                   /* y_j a_j, one j of S */
};

/* Options of slg_separation_create. New fields are only ever added at the end. */
typedef struct slg_separation_opts {
    uint32_t size;   /* sizeof(slg_separation_opts), set by slg_separation_opts_init */
    int32_t rule;    /* slg_separation_rule; default SLG_NORMALIZED_LOGISTIC */
    int32_t stop;    /* default 1: at separation; 0: the first two rules go on after it */
    int32_t draw;    /* SLG_PERCEPTRON: 0, the default: lowest index; 1: drawn evenly from S */
    int64_t classes; /* default 0: y is signs; >= 2: labels, the extension above */
    double gamma;    /* > 0, finite; default 100: larger steps separate sooner, if not each
                        one lowers the loss */
    uint64_t seed; /* of the draws, which it and the number of evaluations decide; default 0 */
} slg_separation_opts;

SLG_API void slg_separation_opts_init(slg_separation_opts *opts, size_t size);

/*
 * Makes a solver of kind SLG_SEPARATION: slg_solver_step, _run, _get, _export, _import, _free
 * of solver.h are for it.
 *
 *   a, y  in   as slg_separation_parts. a is kept, not copied: it must outlive s as it is; y
 *              is copied
 *   x0    in   d, or classes * d, elements of any shape, f32, f64; NULL: zeros, as the paper
 *   opts  in   NULL: the defaults
 *   s     out  NULL on an error
 *
 * Each step ends with a pass over a at the new theta, which fills the report: value is the
 * loss, wrong, min_margin and log_beta as above; grad_norm is the length of the step divided by
 * gamma, and slg_solver_get's grad what is taken back by the rule: -direction, and for
 * SLG_LOGISTIC_DESCENT the gradient. Runs end (reason) at separation (SLG_SOLVER_SEPARATED:
 * every margin above 0; the perceptrons have no step left then, whatever opts.stop), by their
 * number of steps, the value or the callback; grad_norm is not looked at, and data that cannot
 * be separated, as with a sample of zeros, take all the steps. Where a weight would leave
 * float32's range (3.4e38), or a value, weight or direction would not be finite, nothing
 * changes: SLG_SOLVER_NOT_FINITE.
 *
 * On data with margin mu (the largest min of y_i a_i'u over unit u) and R = max |a_i|, from 0:
 * at most R^2/mu^2 + 2 log(2n - 1) / (gamma mu^2) steps of SLG_NORMALIZED_LOGISTIC, R^2/mu^2
 * of its limit and of the perceptron, n R^2/mu^2 of SLG_BATCH_PERCEPTRON. The loss says little:
 * the larger gamma, the higher it peaks on the way.
 *
 * With classes the perceptrons add a_j to the label's row and take it from that of the highest
 * other score, the first of equal ones.
 *
 * No samples: separated, no step. Cost: a read of a, and 4 n d operations, a step. Memory 56
 * bytes an element of theta, 4 a sample. The same bits for any number of threads.
 *
 * Errors: as slg_separation_parts; SLG_ERR_RANGE for an option, or a loss at x0 that is not
 * finite. Since 0.1.
 */
SLG_API slg_status slg_separation_create(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *y,
                                         const slg_tensor *x0, const slg_separation_opts *opts,
                                         slg_solver **s);

#ifdef __cplusplus
}
#endif

#endif
