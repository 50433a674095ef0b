/*
 * moe.h - mixtures of experts: a sparse softmax gate that chooses K of k experts for each row,
 * the figures and losses that keep experts evenly used, rows sorted by expert and brought back;
 * and the Gaussian mixture of experts with such a gate: likelihood, gradients, expectation
 * maximisation, and losses between parameters.
 *
 * Paper: "Statistical Perspective of Top-K Sparse Softmax Gating Mixture of Experts" (ICLR
 * 2024). Results have the same bits for any number of threads.
 */
#ifndef SOFTLOGIT_MOE_H
#define SOFTLOGIT_MOE_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The gate -------------------------------------------------------------------------- */

enum slg_moe_bias {
    SLG_MOE_BIAS_WEIGHT = 0, /* the bias enters the weights, not the choice: the paper's gate */
    SLG_MOE_BIAS_BOTH = 1,   /* both: a linear router's bias */
    SLG_MOE_BIAS_CHOICE = 2  /* the choice alone, as where it is moved to balance the load */
};

/* What is to be said of a row of scores. */
enum slg_moe_flag {
    SLG_MOE_ROW = 0,
    SLG_MOE_ROW_MASKED = 1, /* all scores are -inf: weights 0 */
    SLG_MOE_ROW_NAN = 2     /* NaN, or +inf among those chosen: weights NaN */
};

/* Options of the gate and of its gradient. */
typedef struct slg_moe_gate_opts {
    uint32_t size;      /* sizeof(slg_moe_gate_opts), set by slg_moe_gate_opts_init */
    int32_t chosen;     /* K, from 1 to the number of experts; default 2 */
    int32_t bias;       /* slg_moe_bias; default SLG_MOE_BIAS_WEIGHT */
    int32_t accumulate; /* backward; 1: outputs are added to. Default 0 */
} slg_moe_gate_opts;

SLG_API void slg_moe_gate_opts_init(slg_moe_gate_opts *opts, size_t size);

/*
 * Top-K sparse softmax: with s = score + noise, S the K largest of s in a row (of equal ones
 * those of lower index),
 *
 *     weight[i] = exp(s[i] + bias[i]) / sum over S of exp(s[j] + bias[j]),  i in S;  else 0
 *
 *   score   [rows, experts]  in   f32, bf16, f16
 *   bias    [experts]        in   f32, f64; NULL: zeros
 *   noise   [rows, experts]  in   f32, bf16, f16: added to the scores first; NULL: none
 *   opts                     in   NULL: the defaults
 *   index   [rows, K]        out  i32: those chosen, in decreasing order of what they are
 *                                 chosen by
 *   weight  [rows, K]        out  f32, bf16, f16: beside index
 *   dense   [rows, experts]  out  f32, bf16, f16: the same, with zeros; NULL: not wanted
 *   flag    [rows]           out  i32: slg_moe_flag; NULL: not wanted
 *
 * K = experts is the softmax of s + bias. An expert with score -inf is not chosen while another
 * is left, and has weight 0. NaN: weights NaN, indices the first K. Scores are read once; of
 * [rows, experts] nothing else is kept. Up to K = 16 by insertion, at 6 to 20 times a read;
 * beyond, the K largest are sorted.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE (an output that overlaps
 * another tensor), SLG_ERR_RANGE (chosen, bias, accumulate), SLG_ERR_OPTIONS, SLG_ERR_MEMORY.
 * Since 0.1.
 */
SLG_API slg_status slg_moe_gate(slg_ctx *ctx, const slg_tensor *score, const slg_tensor *bias,
                                const slg_tensor *noise, const slg_moe_gate_opts *opts,
                                slg_tensor *index, slg_tensor *weight, slg_tensor *dense,
                                slg_tensor *flag);

/*
 * Its gradient, the choice held:  dz[i] = weight[i] (dweight[i] - sum of weight dweight) where
 * chosen, else 0;  dscore = dz,  dbias = sum of dz over rows (0 with SLG_MOE_BIAS_CHOICE).
 *
 *   index    [rows, K]        in   i32, as slg_moe_gate gave it
 *   weight   [rows, K]        in   f32, bf16, f16
 *   dweight  [rows, K]        in   f32, bf16, f16
 *   opts                      in   as for slg_moe_gate; chosen must be K
 *   dscore   [rows, experts]  out  f32, bf16, f16
 *   dbias    [experts]        out  f32, f64; NULL: not wanted
 *
 * Exact wherever no two scores at the boundary are equal. K = 1: zeros. A weight of 0 gives 0,
 * whatever dweight is; weights of NaN give NaN.
 *
 * Errors: as slg_moe_gate; SLG_ERR_RANGE also for an index that is no expert. Since 0.1.
 */
SLG_API slg_status slg_moe_gate_backward(slg_ctx *ctx, const slg_tensor *index,
                                         const slg_tensor *weight, const slg_tensor *dweight,
                                         const slg_moe_gate_opts *opts, slg_tensor *dscore,
                                         slg_tensor *dbias);

/*
 * The gate of a linear router:  score = x beta1', by one product, then slg_moe_gate.
 *
 *   x      [rows, dim]     in   f32, bf16, f16
 *   beta1  [experts, dim]  in   f32, bf16, f16
 *   score  [rows, experts] out  f32: without noise and bias; NULL: scratch
 *
 * The others, and errors, as slg_moe_gate. Since 0.1.
 */
SLG_API slg_status slg_moe_route(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *beta1,
                                 const slg_tensor *bias, const slg_tensor *noise,
                                 const slg_moe_gate_opts *opts, slg_tensor *score,
                                 slg_tensor *index, slg_tensor *weight, slg_tensor *dense,
                                 slg_tensor *flag);

/*
 * Its gradient:  dbeta1 = dz' x,  dx = dz beta1,  with dz as in slg_moe_gate_backward, and
 * with the gradient that losses of the load have in the scores added to dz.
 *
 *   dscore  [rows, experts]  in   f32: of slg_moe_balance and the like; NULL: none
 *   dx      [rows, dim]      out  f32, bf16, f16; NULL: not wanted
 *   dbeta1  [experts, dim]   out  f32; NULL: not wanted
 *   dbias   [experts]        out  f32, f64: of dz alone; NULL: not wanted
 *
 * Since 0.1.
 */
SLG_API slg_status slg_moe_route_backward(slg_ctx *ctx, const slg_tensor *x,
                                          const slg_tensor *beta1, const slg_tensor *index,
                                          const slg_tensor *weight, const slg_tensor *dweight,
                                          const slg_tensor *dscore,
                                          const slg_moe_gate_opts *opts, slg_tensor *dx,
                                          slg_tensor *dbeta1, slg_tensor *dbias);

/* ---- Load ------------------------------------------------------------------------------ */

/* Options of slg_moe_balance: what the losses count. */
typedef struct slg_moe_balance_opts {
    uint32_t size;      /* sizeof(slg_moe_balance_opts), set by slg_moe_balance_opts_init */
    int32_t accumulate; /* 1: gradients are added to. Default 0 */
    double balance;     /* coefficient of the balance loss, >= 0; default 0.01 */
    double z;           /* of the router z-loss, >= 0; default 0.001 */
    double importance;  /* of the squared variation of importance, >= 0; default 0 */
} slg_moe_balance_opts;

SLG_API void slg_moe_balance_opts_init(slg_moe_balance_opts *opts, size_t size);

/* What slg_moe_balance gives. Tensors: NULL where not wanted. */
typedef struct slg_moe_balance_out {
    uint32_t size;           /* sizeof(slg_moe_balance_out), set by slg_moe_balance_out_init */
    int32_t reserved;        /* 0 */
    double loss;             /* the three, each times its coefficient */
    double balance;          /* experts * sum of share * probability; 1 where even */
    double z;                /* mean over rows of logsumexp(score + bias)^2 */
    double importance;       /* (standard deviation / mean)^2 of importance over experts */
    double load;             /* the same of counts */
    double most;             /* the largest share times experts; 1 where even */
    int64_t rows;            /* those counted */
    slg_tensor *count;       /* [experts] i64: rows that chose it */
    slg_tensor *total;       /* [experts] f64: importance, the sum of its weights */
    slg_tensor *probability; /* [experts] f64: mean of softmax(score + bias) over rows */
    slg_tensor *dscore;      /* [rows, experts] f32, bf16, f16 */
    slg_tensor *dbias;       /* [experts] f32, f64 */
    slg_tensor *dweight;     /* [rows, K] f32, bf16, f16: of importance alone */
} slg_moe_balance_out;

SLG_API void slg_moe_balance_out_init(slg_moe_balance_out *out, size_t size);

/*
 * How evenly experts are used, and losses that make it more even. With p = softmax of a whole
 * row of score + bias, share[i] = count[i] / (rows K), probability[i] = mean of p[i]:
 *
 *     balance = experts * sum share[i] probability[i]   (Switch Transformer; GShard's likewise)
 *     z       = mean of logsumexp(score + bias)^2       (ST-MoE)
 *
 * Shares are held: the gradient of balance is that of the probabilities. Some programs take K
 * times this balance. Rows all of -inf, or with NaN or +inf, count for nothing, and their
 * gradient is 0: check flags of the gate.
 *
 *   score   [rows, experts]  in   f32, bf16, f16: what the router puts out, noise included if
 *                                 it is to count
 *   bias    [experts]        in   f32, f64; NULL: zeros
 *   index   [rows, K]        in   i32
 *   weight  [rows, K]        in   f32, bf16, f16; NULL: importance is 0 and none wanted
 *   opts                     in   NULL: the defaults
 *   out                      out
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE (a
 * coefficient; an index that is no expert), SLG_ERR_OPTIONS, SLG_ERR_MEMORY. Since 0.1.
 */
SLG_API slg_status slg_moe_balance(slg_ctx *ctx, const slg_tensor *score,
                                   const slg_tensor *bias, const slg_tensor *index,
                                   const slg_tensor *weight, const slg_moe_balance_opts *opts,
                                   slg_moe_balance_out *out);

/* ---- Dispatch -------------------------------------------------------------------------- */

typedef struct slg_moe_dispatch_opts {
    uint32_t size;    /* sizeof(slg_moe_dispatch_opts), set by slg_moe_dispatch_opts_init */
    int32_t reserved; /* 0 */
    int64_t capacity; /* most rows an expert takes, >= 0; default 0: no limit */
} slg_moe_dispatch_opts;

SLG_API void slg_moe_dispatch_opts_init(slg_moe_dispatch_opts *opts, size_t size);

/*
 * The rows of each expert, by a counting sort of the indices: expert i's are token[offset[i]]
 * to token[offset[i + 1] - 1], in increasing order.
 *
 *   index   [rows, K]      in   i32, from 0 to experts - 1; -1: no one
 *   opts                   in   NULL: the defaults
 *   offset  [experts + 1]  out  i64: offset[experts] is the number of pairs
 *   token   [rows * K]     out  i32: the row of each pair; -1 past the last pair
 *   place   [rows, K]      out  i32: where in token a pair is; -1: dropped. NULL: not wanted
 *
 * With a capacity, places go to first choices (column 0 of index) in order of rows, then to
 * second choices, and so on; pairs that find their expert full are dropped.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (rows * K over 2^31 - 1 too), SLG_ERR_DTYPE,
 * SLG_ERR_STRIDE, SLG_ERR_RANGE (an index, capacity), SLG_ERR_OPTIONS, SLG_ERR_MEMORY.
 * Since 0.1.
 */
SLG_API slg_status slg_moe_dispatch(slg_ctx *ctx, const slg_tensor *index,
                                    const slg_moe_dispatch_opts *opts, slg_tensor *offset,
                                    slg_tensor *token, slg_tensor *place);

/*
 * Rows in the order of a list:  y[p] = x[token[p]], 0 where token is -1. Its gradient is
 * slg_moe_combine without weights: dx[r] = sum of dy[place[r, j]].
 *
 *   x      [rows, dim]   in   f32, bf16, f16
 *   token  [pairs]       in   i32, from -1 to rows - 1
 *   y      [pairs, dim]  out  f32, bf16, f16
 *
 * Errors: as slg_moe_dispatch. Since 0.1.
 */
SLG_API slg_status slg_moe_gather(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *token,
                                  slg_tensor *y);

/*
 * What experts put out, brought back:  y[r] = sum over j of weight[r, j] h[place[r, j]], in
 * order of j, each term added in double and rounded; dropped pairs add nothing.
 *
 *   h       [pairs, dim]  in   f32, bf16, f16
 *   place   [rows, K]     in   i32, from -1 to pairs - 1
 *   weight  [rows, K]     in   f32, bf16, f16; NULL: ones
 *   y       [rows, dim]   out  f32, bf16, f16
 *
 * Errors: as slg_moe_dispatch. Since 0.1.
 */
SLG_API slg_status slg_moe_combine(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *place,
                                   const slg_tensor *weight, slg_tensor *y);

/*
 * Its gradient:  dh[place[r, j]] = weight[r, j] dy[r],  0 where no pair is;
 * dweight[r, j] = <dy[r], h[place[r, j]]>,  0 where dropped.
 *
 *   h        [pairs, dim]  in   may be NULL where dweight is
 *   place    [rows, K]     in   i32; no place twice
 *   weight   [rows, K]     in   NULL: ones
 *   dy       [rows, dim]   in   f32, bf16, f16
 *   dh       [pairs, dim]  out  f32, bf16, f16; NULL: not wanted
 *   dweight  [rows, K]     out  f32, bf16, f16; NULL: not wanted
 *
 * Errors: as slg_moe_dispatch; SLG_ERR_RANGE also for a place that stands twice. Since 0.1.
 */
SLG_API slg_status slg_moe_combine_backward(slg_ctx *ctx, const slg_tensor *h,
                                            const slg_tensor *place, const slg_tensor *weight,
                                            const slg_tensor *dy, slg_tensor *dh,
                                            slg_tensor *dweight);

/* ---- Gaussian mixture of experts ------------------------------------------------------- */

/*
 * Parameters. Row x has the scores s[i] = <beta1[i], x>; S are the K largest, of equal ones
 * those of lower index, and with g the softmax of s + beta0 over S,
 *
 *     p(y | x) = sum over S of g[i] N(y; <a[i], x> + b[i], exp(log_variance[i]))
 *
 * f32 or f64; all is computed in double. Any strides.
 */
typedef struct slg_moe_mixture {
    uint32_t size;                  /* sizeof(slg_moe_mixture), set by slg_moe_mixture_init */
    int32_t chosen;                 /* K, from 1 to the number of experts; default 2 */
    const slg_tensor *beta1;        /* [experts, dim] */
    const slg_tensor *beta0;        /* [experts] */
    const slg_tensor *a;            /* [experts, dim] */
    const slg_tensor *b;            /* [experts] */
    const slg_tensor *log_variance; /* [experts] */
} slg_moe_mixture;

SLG_API void slg_moe_mixture_init(slg_moe_mixture *mixture, size_t size);

/* What slg_moe_density gives. f32 or f64; NULL where not wanted. */
typedef struct slg_moe_density_out {
    uint32_t size;              /* sizeof(slg_moe_density_out), set by its _init */
    int32_t reserved;           /* 0 */
    double nll;                 /* -mean of loglik */
    slg_tensor *loglik;         /* [rows] log p(y | x) */
    slg_tensor *index;          /* [rows, K] i32: those chosen, by decreasing score */
    slg_tensor *weight;         /* [rows, K] g */
    slg_tensor *responsibility; /* [rows, K] r[i] = g[i] N_i(y) / p(y | x) */
    slg_tensor *mean;           /* [rows] sum of g[i] (<a[i], x> + b[i]) */
    slg_tensor *dbeta1;         /* gradients of nll */
    slg_tensor *dbeta0;
    slg_tensor *da;
    slg_tensor *db;
    slg_tensor *dlog_variance;
} slg_moe_density_out;

SLG_API void slg_moe_density_out_init(slg_moe_density_out *out, size_t size);

/*
 * Log-density, responsibilities, prediction, and the gradients of the mean negative
 * log-likelihood, the choice held.
 *
 *   x        [rows, dim]  in   f32, f64; rows >= 1
 *   y        [rows]       in   f32, f64; NULL: only index, weight and mean are wanted
 *   mixture               in
 *   out                   out
 *
 * Responsibilities are formed from logarithms: outliers of any size have some. Where y lies so
 * far that every expert's density is 0 even as a logarithm, loglik is -inf, r is an
 * equal share of each, and gradients are finite or infinite, not NaN. Rows with NaN
 * have NaN in loglik, and so has the gradient.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (no rows too), SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_RANGE (chosen), SLG_ERR_OPTIONS, SLG_ERR_MEMORY. Since 0.1.
 */
SLG_API slg_status slg_moe_density(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                                   const slg_moe_mixture *mixture, slg_moe_density_out *out);

/*
 * Draws y given x: an expert by one uniform number, then one normal number. Row r takes numbers
 * rng->offset + 2 r and + 2 r + 1; offset grows by 2 rows.
 *
 *   x       [rows, dim]  in      f32, f64
 *   rng                  in/out
 *   y       [rows]       out     f32, f64
 *   expert  [rows]       out     i32: whose draw it is; NULL: not wanted
 *
 * Errors: as slg_moe_density. Since 0.1.
 */
SLG_API slg_status slg_moe_sample(slg_ctx *ctx, const slg_tensor *x,
                                  const slg_moe_mixture *mixture, slg_rng *rng, slg_tensor *y,
                                  slg_tensor *expert);

/* ---- Expectation maximisation ---------------------------------------------------------- */

typedef struct slg_moe_em_opts {
    uint32_t size;          /* sizeof(slg_moe_em_opts), set by slg_moe_em_opts_init */
    int32_t max_steps;      /* of slg_moe_em_fit, >= 0; default 200 */
    int32_t block_diagonal; /* 1: the gate's Hessian without its blocks between experts, for
                               many experts and columns. Default 0 */
    int32_t halvings;       /* most of a step of the gate, >= 0; default 12 */
    double tolerance;       /* fit stops where the mean log-likelihood gains less, >= 0; default
                               1e-8 */
    double variance_floor;  /* > 0; default 1e-4 */
    double ridge;           /* of an expert's normal matrix, times rows, >= 0; default 1e-9 */
    double gate_ridge;      /* of the gate's Hessian, > 0; default 1e-6 */
    double least;           /* experts with less responsibility, times rows, keep their values,
                               >= 0; default 1e-8 */
} slg_moe_em_opts;

SLG_API void slg_moe_em_opts_init(slg_moe_em_opts *opts, size_t size);

/* What became of an expert. */
enum slg_moe_expert {
    SLG_MOE_EXPERT_FITTED = 0,
    SLG_MOE_EXPERT_FLOOR = 1, /* fitted, its variance is the floor */
    SLG_MOE_EXPERT_KEPT = 2   /* too little weight, or singular: its values are as before */
};

/*
 * The M-step of experts: for each a least squares fit of y on [x, 1] with weights r, and
 * v = max(sum r e^2 / sum r, variance_floor).
 *
 *   x               [rows, dim]      in      f32, f64; rows >= 1
 *   y               [rows]           in      f32, f64
 *   responsibility  [rows, experts]  in      f32, f64, >= 0
 *   opts                             in      NULL: the defaults
 *   a               [experts, dim]   in/out  f32, f64: kept where an expert has no weight
 *   b               [experts]        in/out  f32, f64
 *   variance        [experts]        in/out  f32, f64
 *   kept            [experts]        out     i32: slg_moe_expert; NULL: not wanted
 *
 * Errors: as slg_moe_density. Since 0.1.
 */
SLG_API slg_status slg_moe_experts(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                                   const slg_tensor *responsibility,
                                   const slg_moe_em_opts *opts, slg_tensor *a, slg_tensor *b,
                                   slg_tensor *variance, slg_tensor *kept);

/*
 * Maximum likelihood by expectation maximisation. The state is the parameters, in double, the
 * number of steps, and the mean log-likelihood that the last step or fit ended at. The last
 * expert is the gate's reference: its beta is moved to 0, and the others' with it, which
 * changes no density. A step forms responsibilities, fits experts (slg_moe_experts), and makes
 * one damped Newton step of the gate, with the choice held in gradient and Hessian and made
 * anew where the step is judged: halved until the expected log-weight is not lower, else not
 * taken. Work O(rows K^2 dim^2), memory O(rows K + experts^2 dim^2).
 */
typedef struct slg_moe_em slg_moe_em;

/* From start, copied. *em is NULL after an error. Free before ctx. Since 0.1. */
SLG_API slg_status slg_moe_em_create(slg_ctx *ctx, const slg_moe_mixture *start,
                                     const slg_moe_em_opts *opts, slg_moe_em **em);
SLG_API void slg_moe_em_free(slg_moe_em *em); /* NULL is allowed */

/*
 * One step on x [rows, dim] and y [rows] (f32, f64), or as many as opts allow and the tolerance
 * wants. *loglik: mean log-likelihood after it; NULL: not wanted. *steps: those made.
 * SLG_ERR_RANGE where data or parameters make the likelihood NaN: the state is as before the
 * step. Since 0.1.
 */
SLG_API slg_status slg_moe_em_step(slg_moe_em *em, const slg_tensor *x, const slg_tensor *y,
                                   double *loglik);
SLG_API slg_status slg_moe_em_fit(slg_moe_em *em, const slg_tensor *x, const slg_tensor *y,
                                  double *loglik, int64_t *steps);

/* The parameters: tensors as in slg_moe_mixture, f32 or f64; NULL where not wanted. */
SLG_API slg_status slg_moe_em_mixture(slg_moe_em *em, slg_tensor *beta1, slg_tensor *beta0,
                                      slg_tensor *a, slg_tensor *b, slg_tensor *log_variance);

/*
 * The whole state, exactly: state [2 + experts (2 dim + 3)] f64, contiguous or not: steps,
 * log-likelihood, then beta1, beta0, a, b, log_variance. Restored into an object of the same
 * sizes it goes on with the same bits. SLG_ERR_STATE where the numbers are no state. Since 0.1.
 */
SLG_API slg_status slg_moe_em_save(slg_moe_em *em, slg_tensor *state);
SLG_API slg_status slg_moe_em_restore(slg_moe_em *em, const slg_tensor *state);

/* ---- Losses between parameters --------------------------------------------------------- */

typedef struct slg_moe_voronoi_opts {
    uint32_t size;          /* sizeof(slg_moe_voronoi_opts), set by slg_moe_voronoi_opts_init */
    int32_t chosen;         /* K of the true gate; default 0: that of truth */
    int32_t over_specified; /* 1: D2, 0: D1. Default 0 */
    int32_t reserved;       /* 0 */
} slg_moe_voronoi_opts;

SLG_API void slg_moe_voronoi_opts_init(slg_moe_voronoi_opts *opts, size_t size);

/*
 * Voronoi losses. Each fitted expert belongs to the true one that is nearest in (beta1, a, b,
 * variance), of equal ones the first. A cell C of true expert i, with differences d, has
 *
 *     sum over C of exp(beta0[j]) (|dbeta1| + |da| + |db| + |dv|)
 *                   + |sum over C of exp(beta0[j]) - exp(beta0*[i])|
 *
 * and D1 is the sum of the K largest. In D2 a cell of m >= 2 has |dbeta1|^r + |da|^(r/2) +
 * |db|^r + |dv|^(r/2) in the bracket, with r = 4, 6, 7 for m = 2, 3 and more.
 *
 *   fit, truth            in   slg_moe_mixture of the same dim
 *   opts                  in   NULL: the defaults
 *   cell       [fitted]   out  i32: the true expert; NULL: not wanted
 *   cell_loss  [true]     out  f32, f64; NULL: not wanted
 *   loss                  out  NULL: not wanted
 *
 * Gates are to be aligned before: they are defined up to a shift. Errors: as slg_moe_density.
 * Since 0.1.
 */
SLG_API slg_status slg_moe_voronoi(slg_ctx *ctx, const slg_moe_mixture *fit,
                                   const slg_moe_mixture *truth,
                                   const slg_moe_voronoi_opts *opts, slg_tensor *cell,
                                   slg_tensor *cell_loss, double *loss);

#ifdef __cplusplus
}
#endif

#endif
