/*
 * linear_attention.h - attention without softmax: causal linear attention with a state, and
 * what one layer of it learns in context: a step of gradient descent, whose optimum, risk and
 * baselines are here too, with a generator of tasks.
 *
 * Paper: "One Step of Gradient Descent is Provably the Optimal In-Context Learner with One
 * Layer of Linear Self-Attention" (2023).
 */
#ifndef SOFTLOGIT_LINEAR_ATTENTION_H
#define SOFTLOGIT_LINEAR_ATTENTION_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Linear attention -------------------------------------------------------------------- */

enum slg_linear_form {
    SLG_LINEAR_INCLUSIVE = 0, /* token t sees itself and those before */
    SLG_LINEAR_EXCLUSIVE = 1, /* only those before: o_1 = S_0' q_1 */
    SLG_LINEAR_FULL = 2       /* every token sees all: not causal */
};

/* Options of slg_linear_attention, its backward pass and its step. */
typedef struct slg_linear_attention_opts {
    uint32_t size;    /* sizeof(slg_linear_attention_opts), set by its _init */
    int32_t form;     /* slg_linear_form; default SLG_LINEAR_INCLUSIVE */
    int32_t chunk;    /* tokens of a chunk, from 1 to 4096; default 64. Results depend on it by
                         rounding alone */
    int32_t reserved; /* 0 */
} slg_linear_attention_opts;

SLG_API void slg_linear_attention_opts_init(slg_linear_attention_opts *opts, size_t size);

/*
 * Linear attention, for each head:
 *
 *     S_t = S_{t-1} + k_t v_t'    o_t = S_t' q_t    (exclusive: S_{t-1}' q_t; full: S_T' q_t)
 *
 * There is no scale and no feature map: they are the caller's.
 *
 *   q          in   [heads, T, d], or [batch, heads, T, d]  f32, bf16, f16
 *   k          in   as q, its shape
 *   v          in   [.., T, e]     f32, bf16, f16
 *   state      in   [.., d, e]     f32, f64: S_0; NULL: zeros
 *   opts       in   NULL: the defaults
 *   o          out  [.., T, e]     f32, bf16, f16; NULL: not wanted
 *   state_out  out  [.., d, e]     f32, f64: S_T; NULL: not wanted; may be state's very memory
 *
 * T = 0: state_out = state. A NaN or an infinity reaches the tokens that see it, no others.
 *
 * Within a chunk (Q K', masked) V in float32; between chunks the state, which is held in
 * double: a state of f64 keeps that from call to call. O(T d e + T chunk (d + e)), never
 * O(T^2); reads each token once. With fewer than 8 heads long sequences are cut into up to 8
 * segments, whose sums are found first: a quarter more work, and threads have something to
 * share. Workspace of a thread: d e and chunk (d + e) numbers; with segments their states.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE (an output overlaps an
 * input or the other output), SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for an option
 * outside of its domain. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_linear_attention(slg_ctx *ctx, const slg_tensor *q, const slg_tensor *k,
                                        const slg_tensor *v, const slg_tensor *state,
                                        const slg_linear_attention_opts *opts, slg_tensor *o,
                                        slg_tensor *state_out);

/* Gradients. A NULL tensor is not wanted. */
typedef struct slg_linear_attention_grad {
    uint32_t size;      /* sizeof(slg_linear_attention_grad), set by its _init */
    int32_t reserved;   /* 0 */
    slg_tensor *dq;     /* as q  f32, bf16, f16 */
    slg_tensor *dk;     /* as k */
    slg_tensor *dv;     /* as v */
    slg_tensor *dstate; /* as state  f32, f64 */
} slg_linear_attention_grad;

SLG_API void slg_linear_attention_grad_init(slg_linear_attention_grad *grad, size_t size);

/*
 * Its backward pass, with R_t = dS_T + the sum of q_s do_s' over s that see token t:
 *
 *     dq_t = S_t do_t    dk_t = R_t v_t    dv_t = R_t' k_t    dS_0 = dS_T + sum_t q_t do_t'
 *
 *   q, k, v, state, opts  in  as forward had them
 *   dout        in   [.., T, e]  f32, bf16, f16: gradient in o
 *   dstate_out  in   [.., d, e]  f32, f64: gradient in state_out; NULL: zeros
 *   grad        out  no tensor may overlap another or an input
 *
 * S is rebuilt from the first token on and R from the last: each gradient is linear attention
 * too, of other operands or from the end, so nothing is kept from the forward pass and nothing
 * is subtracted. NaN, T = 0, cost (of each of dq, dk, dv: that of a forward pass) and errors
 * are as there. Since 0.1.
 */
SLG_API slg_status slg_linear_attention_backward(
    slg_ctx *ctx, const slg_tensor *q, const slg_tensor *k, const slg_tensor *v,
    const slg_tensor *state, const slg_tensor *dout, const slg_tensor *dstate_out,
    const slg_linear_attention_opts *opts, slg_linear_attention_grad *grad);

/*
 * One token more, for decoding: an update of rank one, and a product with the state.
 *
 *   q      in      [heads, d], or [batch, heads, d]  f32, bf16, f16; NULL where o is
 *   k      in      as q
 *   v      in      [.., e]     f32, bf16, f16
 *   opts   in      form: SLG_LINEAR_EXCLUSIVE reads the state before the update, the others
 *                  after; chunk is not used
 *   state  in/out  [.., d, e]  f32, f64: computed in its own type
 *   o      out     [.., e]     f32, bf16, f16; NULL: not wanted
 *
 * Reads and writes the state once or twice: O(d e). Errors: as slg_linear_attention; nothing
 * has changed then. Since 0.1.
 */
SLG_API slg_status slg_linear_attention_step(slg_ctx *ctx, const slg_tensor *q,
                                             const slg_tensor *k, const slg_tensor *v,
                                             const slg_linear_attention_opts *opts,
                                             slg_tensor *state, slg_tensor *o);

/* ---- The in-context predictor ------------------------------------------------------------ */

/* A layer of linear self-attention and its prompts: tokens, or x, y and query. */
typedef struct slg_in_context_inputs {
    uint32_t size;            /* sizeof(slg_in_context_inputs), set by its _init */
    int32_t reserved;         /* 0 */
    const slg_tensor *tokens; /* [B, n + 1, d + 1]  f32, bf16, f16: rows (x_i, y_i), then the
                                 query with whatever stands for its label, usually 0 */
    const slg_tensor *x;      /* [B, n, d]  f32, bf16, f16; not with tokens */
    const slg_tensor *y;      /* [B, n]     goes with x */
    const slg_tensor *query;  /* [B, d], or [B, m, d]: m queries a prompt; goes with x. Their
                                 label is 0 */
    const slg_tensor *a;      /* [d + 1]         f32, f64: W_V' h */
    const slg_tensor *m;      /* [d + 1, d + 1]  f32, f64: W_K' W_Q */
} slg_in_context_inputs;

SLG_API void slg_in_context_inputs_init(slg_in_context_inputs *in, size_t size);

/* Options of slg_in_context and its backward pass. */
typedef struct slg_in_context_opts {
    uint32_t size;     /* sizeof(slg_in_context_opts), set by its _init */
    int32_t normalise; /* 0 (default): c = 1; 1: c = 1 / n */
} slg_in_context_opts;

SLG_API void slg_in_context_opts_init(slg_in_context_opts *opts, size_t size);

/*
 * What a layer of linear self-attention predicts for the query's label, read out by a vector:
 *
 *     y_hat = c a' G M q,    G = sum of v_i v_i' over the n examples v_i = (x_i, y_i)
 *
 * The query is not in the sum. a = (0, 1), M = [Gamma', 0; 0, 0] is a step of descent with the
 * preconditioner Gamma: see slg_one_step.
 *
 *   in     in
 *   opts   in   NULL: the defaults
 *   y_hat  out  [B]; with query [B, m, d]: [B, m]  f32, f64
 *
 * n = 0: y_hat is 0. A NaN stays in its prompt. G is never formed: y_hat = c q' M' (V' (V a)),
 * for any number of queries, O(n d + m d + d^2) a prompt. Products v_i' a and sums over 64
 * examples in float32, all else in double; what is beyond their range is an infinity or NaN.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS (tokens
 * with x, y or query), SLG_ERR_RANGE (normalise), SLG_ERR_MEMORY. Outputs are untouched then.
 * Since 0.1.
 */
SLG_API slg_status slg_in_context(slg_ctx *ctx, const slg_in_context_inputs *in,
                                  const slg_in_context_opts *opts, slg_tensor *y_hat);

/* Gradients. A NULL tensor is not wanted; those of prompts are f32, bf16 or f16. */
typedef struct slg_in_context_grad {
    uint32_t size;       /* sizeof(slg_in_context_grad), set by its _init */
    int32_t reserved;    /* 0 */
    slg_tensor *da;      /* [d + 1]         f32, f64: summed over prompts */
    slg_tensor *dm;      /* [d + 1, d + 1]  f32, f64: summed over prompts */
    slg_tensor *dtokens; /* as tokens */
    slg_tensor *dx;      /* as x */
    slg_tensor *dy;      /* as y */
    slg_tensor *dquery;  /* as query */
} slg_in_context_grad;

SLG_API void slg_in_context_grad_init(slg_in_context_grad *grad, size_t size);

/*
 * Its backward pass. With g = sum_j dout_j q_j, k = M g, s_i = v_i' a, r_i = v_i' k, u = V's:
 *
 *     da = c sum_i r_i v_i    dM = c u g'    dq_j = c dout_j M'u    dv_i = c (s_i k + r_i a)
 *
 *   in, opts  in   as forward had them
 *   dout      in   as y_hat  f32, f64: gradient in it
 *   grad      out  no tensor may overlap another or an input
 *
 * n = 0: gradients are 0. A NaN in a prompt reaches da and dM, no other prompt's gradients. dM
 * is one product over all prompts. Cost and errors as forward. Since 0.1.
 */
SLG_API slg_status slg_in_context_backward(slg_ctx *ctx, const slg_in_context_inputs *in,
                                           const slg_in_context_opts *opts,
                                           const slg_tensor *dout, slg_in_context_grad *grad);

/* ---- What it is compared with ------------------------------------------------------------ */

/* Options of slg_one_step. */
typedef struct slg_one_step_opts {
    uint32_t size;    /* sizeof(slg_one_step_opts), set by its _init */
    int32_t reserved; /* 0 */
    double eta;       /* finite; default 1 */
} slg_one_step_opts;

SLG_API void slg_one_step_opts_init(slg_one_step_opts *opts, size_t size);

/*
 * One step of descent from w = 0 on 1/2 |X w - y|^2, preconditioned where gamma is given:
 *
 *     w = eta gamma X'y,    y_hat = w' q
 *
 *   x      in   [B, n, d]  f32, f64
 *   y      in   [B, n]     f32, f64
 *   query  in   [B, d], or [B, m, d]  f32, f64; NULL where y_hat is
 *   gamma  in   [d, d]     f32, f64; NULL: the identity
 *   opts   in   NULL: the defaults
 *   w      out  [B, d]     f32, f64; NULL: not wanted
 *   y_hat  out  [B], with query [B, m, d]: [B, m]  f32, f64; NULL: not wanted
 *
 * n = 0: zeros. In double; O(n d + d^2 + m d) a prompt.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_RANGE (eta), SLG_ERR_MEMORY. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_one_step(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                                const slg_tensor *query, const slg_tensor *gamma,
                                const slg_one_step_opts *opts, slg_tensor *w,
                                slg_tensor *y_hat);

/* Options of slg_ridge. */
typedef struct slg_ridge_opts {
    uint32_t size;    /* sizeof(slg_ridge_opts), set by its _init */
    int32_t reserved; /* 0 */
    double lambda;    /* >= 0; default 0. noise^2: Bayes optimal for w ~ N(0, precision^-1) */
} slg_ridge_opts;

SLG_API void slg_ridge_opts_init(slg_ridge_opts *opts, size_t size);

/*
 * Ridge regression:  w = (X'X + lambda P)^-1 X'y,  y_hat = w' q.
 *
 *   x, y, query, w, y_hat  as slg_one_step's
 *   precision  in  [d, d]  f32, f64: P, symmetric; NULL: the identity
 *   opts       in  NULL: the defaults
 *
 * By Cholesky of d x d, or with n < d and no precision of n x n: then lambda = 0 gives the
 * shortest w with X w = y. n = 0: zeros. In double. O(n d min(n, d) + min(n, d)^3) a prompt.
 *
 * Errors: as slg_one_step; SLG_ERR_RANGE for lambda, and where a prompt's matrix is not
 * positive definite in double (singular, indefinite or not finite): the message names the
 * prompt.
 * Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_ridge(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                             const slg_tensor *query, const slg_tensor *precision,
                             const slg_ridge_opts *opts, slg_tensor *w, slg_tensor *y_hat);

/* What slg_one_step_eta returns: sums, so that batches can be added up. */
typedef struct slg_one_step_eta_out {
    uint32_t size;      /* sizeof(slg_one_step_eta_out), set by its _init */
    int32_t reserved;   /* 0 */
    double numerator;   /* out */
    double denominator; /* out */
    double eta;         /* out: their quotient; 0 where the denominator is 0 */
} slg_one_step_eta_out;

SLG_API void slg_one_step_eta_out_init(slg_one_step_eta_out *out, size_t size);

/*
 * The best rate of a step, estimated from prompts. With labels, the coefficient of regression
 * of the label on the step's prediction, right for any family of functions:
 *
 *     eta = sum <gamma X'y, q> label / sum <gamma X'y, q>^2
 *
 * Without (label and query NULL), the paper's form for linear tasks with w ~ N(0, I):
 *
 *     eta = sum <w_ridge, X'y> / sum |X'y|^2,    w_ridge = (X'X + lambda I)^-1 X'y
 *
 *   x, y, query, gamma  in  as slg_one_step's; gamma with labels alone
 *   label  in   [B], with query [B, m, d]: [B, m]  f32, f64; NULL: the paper's form
 *   ridge  in   lambda of the paper's form: noise^2; NULL: the defaults
 *   out    out
 *
 * Errors: as slg_ridge. Since 0.1.
 */
SLG_API slg_status slg_one_step_eta(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                                    const slg_tensor *query, const slg_tensor *label,
                                    const slg_tensor *gamma, const slg_ridge_opts *ridge,
                                    slg_one_step_eta_out *out);

/* ---- The optimum ------------------------------------------------------------------------- */

/* What slg_in_context_optimum returns beside gamma. Risks are without noise of the query's
   label. */
typedef struct slg_in_context_optimum_out {
    uint32_t size;    /* sizeof(slg_in_context_optimum_out), set by its _init */
    int32_t reserved; /* 0 */
    double risk;      /* out: of gamma */
    double eta;       /* out: the best rate of a plain step, gamma = eta I */
    double eta_risk;  /* out: its risk */
    double zero_risk; /* out: of the prediction 0 */
} slg_in_context_optimum_out;

SLG_API void slg_in_context_optimum_out_init(slg_in_context_optimum_out *out, size_t size);

/*
 * The best layer of linear self-attention for x ~ N(0, sigma), w ~ N(0, lambda),
 * y_i = <w, x_i> + noise N(0, 1): it predicts q' Gamma X'y with
 *
 *     Gamma = lambda sigma ((n + 1) lambda sigma + (tr(lambda sigma) + noise^2) I)^-1 sigma^-1
 *
 * sigma = lambda = I: eta I with eta = 1 / (n + d + 1 + noise^2), one step of descent;
 * lambda = sigma^-1: eta sigma^-1, one preconditioned step. Its risk is then
 * d (1 - n / (n + d + 1 + noise^2)).
 *
 *   sigma   in   [d, d]  f32, f64: symmetric, positive definite; NULL: the identity
 *   lambda  in   [d, d]  f32, f64: symmetric, positive semidefinite; NULL: the identity
 *   d       in   where both are NULL; else 0 or their size
 *   n       in   examples of a prompt, >= 0
 *   noise   in   >= 0
 *   gamma   out  [d, d]  f32, f64; NULL: not wanted
 *   out     out  NULL: not wanted
 *
 * In double, without sigma^-1: the product is ((n + 1) lambda sigma + ..)^-1 lambda. O(d^3).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for d, n or noise, a sigma that is singular, a matrix that is
 * not finite or not symmetric (within 1e-5 of its largest entry), lambda and noise both 0.
 * Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_in_context_optimum(slg_ctx *ctx, const slg_tensor *sigma,
                                          const slg_tensor *lambda, int64_t d, int64_t n,
                                          double noise, slg_tensor *gamma,
                                          slg_in_context_optimum_out *out);

/*
 * The risk of any gamma in that setting: the mean of (q' gamma X'y - w'q)^2,
 *
 *     tr(sigma lambda) - 2 n tr(sigma gamma sigma lambda) + tr(sigma gamma C gamma'),
 *     C = n (n + 1) sigma lambda sigma + n (tr(lambda sigma) + noise^2) sigma
 *
 *   gamma               in   [d, d]  f32, f64; any
 *   sigma, lambda, n, noise  in  as there; sigma may be singular
 *   risk                out
 *
 * Errors: as slg_in_context_optimum. Since 0.1.
 */
SLG_API slg_status slg_in_context_risk(slg_ctx *ctx, const slg_tensor *gamma,
                                       const slg_tensor *sigma, const slg_tensor *lambda,
                                       int64_t n, double noise, double *risk);

/* ---- Tasks ------------------------------------------------------------------------------- */

enum slg_task_function {
    SLG_TASK_LINEAR = 0, /* f(x) = w'x, w ~ N(0, lambda) */
    SLG_TASK_RELU = 1    /* f(x) = r' relu(W'x), W ~ N(0, 1/d), r ~ N(0, 1/units) */
};

/* Options of slg_regression_tasks. */
typedef struct slg_regression_tasks_opts {
    uint32_t size;       /* sizeof(slg_regression_tasks_opts), set by its _init */
    int32_t function;    /* slg_task_function; default SLG_TASK_LINEAR */
    int32_t units;       /* of SLG_TASK_RELU: from 1 to 4096; default 16 */
    int32_t noisy_label; /* 1 (default): the query's label has noise too; 0: it is f */
    double noise;        /* >= 0; default 0: standard deviation of the noise of y */
} slg_regression_tasks_opts;

SLG_API void slg_regression_tasks_opts_init(slg_regression_tasks_opts *opts, size_t size);

/* What is generated: f32 or f64, written where not NULL. tokens or x is needed. */
typedef struct slg_regression_tasks_out {
    uint32_t size;       /* sizeof(slg_regression_tasks_out), set by its _init */
    int32_t reserved;    /* 0 */
    slg_tensor *tokens;  /* [B, n + 1, d + 1]: rows (x_i, y_i), then (query, 0) */
    slg_tensor *x;       /* [B, n, d] */
    slg_tensor *y;       /* [B, n] */
    slg_tensor *query;   /* [B, d] */
    slg_tensor *label;   /* [B]: the query's */
    slg_tensor *weights; /* [B, d]: w; SLG_TASK_LINEAR alone */
} slg_regression_tasks_out;

SLG_API void slg_regression_tasks_out_init(slg_regression_tasks_out *out, size_t size);

/*
 * Prompts of regression: x ~ N(0, sigma), a function of its own for each prompt,
 * y_i = f(x_i) + noise N(0, 1).
 *
 *   sigma   in      [d, d]  f32, f64: positive definite; NULL: the identity
 *   lambda  in      [d, d]  f32, f64: positive definite, of w; NULL: the identity;
 *                   SLG_TASK_LINEAR alone
 *   opts    in      NULL: the defaults
 *   rng     in/out  not NULL
 *   out     out     no tensor may overlap another
 *
 * Number ((b, i), j) of the stream of SLG_NORMAL numbers, from offset on, is coordinate j of
 * token i of prompt b, at offset + b P + i (d + 1) + j: j < d makes x (by sigma's Cholesky
 * factor), j = d the noise. The function's numbers follow, at offset + b P + (n + 1)(d + 1): d
 * for w, or d units for W, by rows, and units for r. P is the sum, and B P is added to
 * rng->offset. So a prompt is the same whatever else is drawn, and on any ISA and number of
 * threads.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an option outside of its domain, a matrix that is not
 * symmetric or not positive definite. Nothing has changed then. Since 0.1.
 */
SLG_API slg_status slg_regression_tasks(slg_ctx *ctx, const slg_tensor *sigma,
                                        const slg_tensor *lambda,
                                        const slg_regression_tasks_opts *opts, slg_rng *rng,
                                        slg_regression_tasks_out *out);

#ifdef __cplusplus
}
#endif

#endif
