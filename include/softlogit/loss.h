/*
 * loss.h - losses over rows of logits, with their gradients in the same call.
 *
 * Every loss has one shape:
 *
 *     slg_NAME(ctx, logits, targets, opts, out, grad)
 *
 * Logits are a source: a matrix [rows, cols], or the output layer that makes it (hidden states,
 * weights, bias), whose product is formed a block of rows at a time in scratch memory and never
 * stored whole. The gradient mirrors the source. So every loss exists dense, in place, and
 * fused with its output layer.
 */
#ifndef SOFTLOGIT_LOSS_H
#define SOFTLOGIT_LOSS_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Logits ---------------------------------------------------------------------------- */

/*
 * Where logits come from: `dense`, or `hidden` and `weight` (and `bias`). Then, in this order:
 *
 *     x = dense   or   x = hidden weight' + bias
 *     x = softcap * tanh(x / softcap)        where softcap > 0; -inf stays -inf, +inf is capped
 *     x[:, c] = -inf                         where mask[c] = 0
 *     x[r] = x[r] / (temperature * row_temperature[r])
 *
 * Gradients are with respect to what the caller gave: they go back through all of these.
 */
typedef struct slg_logits {
    uint32_t size;            /* sizeof(slg_logits), set by slg_logits_init */
    int32_t reserved;         /* 0 */
    const slg_tensor *dense;  /* [rows, cols]  f32, bf16, f16 */
    const slg_tensor *hidden; /* [rows, dim]   f32, bf16, f16; or NULL */
    const slg_tensor *weight; /* [cols, dim]   f32, bf16, f16; goes with hidden */
    const slg_tensor *bias;   /* [cols]        f32, bf16, f16; NULL: none */
    const slg_tensor *mask;   /* [cols]        i32, i64 or f32: 0 leaves a class out; NULL:
                                 none */
    const slg_tensor *row_temperature; /* [rows] f32: times temperature; NULL: all ones */
    double temperature;                /* from 1e-30 to 1e30; default 1 */
    double softcap;                    /* from 1e-30 to 1e30; default 0: none */
} slg_logits;

/* Fills in the defaults: all tensors NULL. */
SLG_API void slg_logits_init(slg_logits *logits, size_t size);

enum slg_accumulate {
    SLG_ACCUMULATE_WEIGHTS = 1, /* dweight, dbias */
    SLG_ACCUMULATE_INPUTS = 2   /* dlogits (not in place), dhidden */
};

/*
 * Where gradients go. A NULL tensor is not computed. Strides must not overlap.
 * dlogits may be the memory of logits->dense itself; the others must not overlap any input.
 * With weights tied to an embedding, let the loss write dweight first, then add the embedding's
 * share; or zero dweight and set accumulate.
 */
typedef struct slg_logits_grad {
    uint32_t size;       /* sizeof(slg_logits_grad), set by slg_logits_grad_init */
    int32_t accumulate;  /* of slg_accumulate: what is added to, not overwritten; default 0 */
    slg_tensor *dlogits; /* [rows, cols]  f32, bf16, f16; for a dense source */
    slg_tensor *dhidden; /* [rows, dim]   f32, bf16, f16; these three for a fused source */
    slg_tensor *dweight; /* [cols, dim]   f32, each row contiguous */
    slg_tensor *dbias;   /* [cols]        f32 */
} slg_logits_grad;

SLG_API void slg_logits_grad_init(slg_logits_grad *grad, size_t size);

/* The common sources, for C and C++. */
static inline slg_logits slg_logits_dense(const slg_tensor *dense)
{
    slg_logits l;
    slg_logits_init(&l, sizeof l);
    l.dense = dense;
    return l;
}

static inline slg_logits slg_logits_layer(const slg_tensor *hidden, const slg_tensor *weight,
                                          const slg_tensor *bias)
{
    slg_logits l;
    slg_logits_init(&l, sizeof l);
    l.hidden = hidden;
    l.weight = weight;
    l.bias = bias;
    return l;
}

static inline slg_logits_grad slg_grad_dense(slg_tensor *dlogits)
{
    slg_logits_grad g;
    slg_logits_grad_init(&g, sizeof g);
    g.dlogits = dlogits;
    return g;
}

static inline slg_logits_grad slg_grad_layer(slg_tensor *dhidden, slg_tensor *dweight,
                                             slg_tensor *dbias)
{
    slg_logits_grad g;
    slg_logits_grad_init(&g, sizeof g);
    g.dhidden = dhidden;
    g.dweight = dweight;
    g.dbias = dbias;
    return g;
}

/* ---- Targets --------------------------------------------------------------------------- */

/*
 * What a row is compared with. A loss says which of these it uses; those that it does not use
 * must be NULL.
 */
typedef struct slg_targets {
    uint32_t size;                  /* sizeof(slg_targets), set by slg_targets_init */
    int32_t reserved;               /* 0 */
    const slg_tensor *index;        /* [rows]        i32, i64: the class, or ignore_index */
    const slg_tensor *prob;         /* [rows, cols]  f32, bf16, f16: >= 0, a row sums to 1; for
                                       losses that take each class by itself:
                                       from 0 to 1 each */
    const slg_tensor *row_weight;   /* [rows]        f32, >= 0; NULL: all ones */
    const slg_tensor *class_weight; /* [cols]        f32, >= 0; NULL: all ones */
    const slg_logits *teacher;      /* logits of a teacher, over the same classes */
    int64_t ignore_index;           /* default -100: rows with this index count for nothing */
} slg_targets;

SLG_API void slg_targets_init(slg_targets *targets, size_t size);

static inline slg_targets slg_targets_index(const slg_tensor *index)
{
    slg_targets t;
    slg_targets_init(&t, sizeof t);
    t.index = index;
    return t;
}

static inline slg_targets slg_targets_prob(const slg_tensor *prob)
{
    slg_targets t;
    slg_targets_init(&t, sizeof t);
    t.prob = prob;
    return t;
}

/* ---- Results --------------------------------------------------------------------------- */

/* What a loss returns beside gradients. The numbers are set by the library. */
typedef struct slg_loss_out {
    uint32_t size;    /* sizeof(slg_loss_out), set by slg_loss_out_init */
    int32_t reserved; /* 0 */
    slg_tensor *loss; /* in: NULL, or [rows] f32, f64: each row's loss times its weights,
                         unreduced; 0 for ignored rows, and for a weight of 0, also
                         where the loss is infinite. A NaN stays NaN, whatever the weight */
    slg_tensor *lse;  /* in: NULL, or [rows] f32, f64: log-sum-exp of the (capped, masked,
                         divided) logits, of ignored rows too */
    double value;     /* out: the reduced loss; with SLG_NONE the sum. 0 where no row counts. */
    double sum;       /* out: sum over counted rows of loss times weights */
    double weight;    /* out: what a mean divides by: the weights of counted rows */
    int64_t count;    /* out: rows not ignored */
    int64_t correct;  /* out: of these, rows whose arg-max (the first, on a tie) is the target;
                         with distributions: is the target's arg-max */
} slg_loss_out;

SLG_API void slg_loss_out_init(slg_loss_out *out, size_t size);

static inline slg_loss_out slg_loss_out_none(void)
{
    slg_loss_out o;
    slg_loss_out_init(&o, sizeof o);
    return o;
}

/* ---- Cross-entropy --------------------------------------------------------------------- */

/* Options of slg_cross_entropy. */
typedef struct slg_cross_entropy_opts {
    uint32_t size;          /* sizeof(slg_cross_entropy_opts), set by its _init */
    int32_t reduction;      /* slg_reduction; default SLG_MEAN */
    double label_smoothing; /* in [0, 1]; default 0: mixes the target with the uniform
                               distribution over the classes that are not masked */
    double z_loss;          /* >= 0, default 0: adds z_loss * lse^2 to each row */
} slg_cross_entropy_opts;

SLG_API void slg_cross_entropy_opts_init(slg_cross_entropy_opts *opts, size_t size);

/*
 * Cross-entropy of softmax(x) against class indices or distributions, with p = softmax(x),
 * e = label_smoothing and K classes that are not masked:
 *
 *     index:  loss = w * ( class_weight[t] (1-e) (-log p[t])
 *                          + (e/K) sum_k class_weight[k] (-log p[k]) )
 *     prob:   loss = w * sum_k class_weight[k] ((1-e) q[k] + e/K) (-log p[k]) with target q
 *     both:   + w * z_loss * lse^2
 *
 * The gradient is that of the reduced loss (of the sum, with SLG_NONE). It uses that p sums
 * to 1: no one-hot labels and no log-probabilities are formed. A mean divides, as PyTorch does,
 * by the sum of w * class_weight[t] over counted rows, or of w with distributions.
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index or prob, one of the two; row_weight, class_weight; teacher NULL
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out; not NULL
 *   grad     out  NULL: not wanted
 *
 * A target that is a masked class: loss +inf, gradient 0 at the target and p[k] times its
 * weight at the others, as the formula gives for p[t] = 0. A row with NaN or +inf: its loss
 * and gradient are NaN, masked classes too. All classes masked: loss +inf, gradient 0. In all
 * other rows a masked class has gradient 0. Where a class index dominates, loss and gradient
 * keep their relative precision (log1p of the others' share, not 1 - p); with distributions
 * the loss is good to 1e-7 of the largest of its terms.
 *
 * Cost: one read of logits and one write of the gradient where two rows fit the L2 cache.
 * Fused: three GEMMs (two without dweight, one without gradients), scratch for a block of rows.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an index outside of [0, cols) that is not ignore_index, a
 * negative, infinite or NaN weight, a row of prob that does not sum to 1 within 1e-3 (1e-2 for
 * bf16 and f16) or holds a negative or NaN entry, an option outside of its domain. Outputs are
 * untouched then.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                     const slg_targets *targets,
                                     const slg_cross_entropy_opts *opts, slg_loss_out *out,
                                     slg_logits_grad *grad);

/* ---- Comp-sum losses ------------------------------------------------------------------- */

/* Options of slg_comp_sum. */
typedef struct slg_comp_sum_opts {
    uint32_t size;         /* sizeof(slg_comp_sum_opts), set by its _init */
    int32_t reduction;     /* slg_reduction; default SLG_MEAN */
    slg_tensor *neg_log_p; /* out: NULL, or [rows] f32, f64: v of each row, without weights; 0
                              for ignored rows */
    double tau;            /* from 0 to 1e6; default 1 */
} slg_comp_sum_opts;

SLG_API void slg_comp_sum_opts_init(slg_comp_sum_opts *opts, size_t size);

/*
 * The comp-sum family: with p = softmax(x), v = -log p[t] = log(1 + u), u the sum of
 * exp(x[k] - x[t]) over the other classes,
 *
 *     loss = w * ((1 + u)^(1 - tau) - 1) / (1 - tau) = w * expm1((1 - tau) v) / (1 - tau)
 *     d loss / d x[k] = w * p[t]^(tau - 1) (p[k] - [k = t])
 *
 * tau = 0: sum-exponential (u). 1: cross-entropy (v). From 1 to 2: generalised cross-entropy,
 * (1 - p[t]^(tau - 1)) / (tau - 1), more robust to wrong labels. 2: 1 - p[t], half the mean
 * absolute error; larger ones are allowed. Bounded by 1 / (tau - 1) for tau > 1. Continuous in
 * tau.
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index; row_weight; the rest NULL
 *   opts     in   NULL: the defaults. What opts->neg_log_p points to is written.
 *   out      out  see slg_loss_out; not NULL
 *   grad     out  NULL: not wanted
 *
 * Relative precision where the target dominates, also of v (4e-18, not 0). For tau > 1 the
 * gradient vanishes on rows that are hopeless. For tau < 1 loss and gradient are infinite
 * where they exceed float32, entry by entry; never NaN (but a fused source's GEMM makes NaN of
 * infinities). A target that is a masked class: v = +inf; the loss +inf (tau <= 1) or 1 / (tau
 * - 1), the others' gradient +inf (tau < 1), p (tau = 1) or 0; the target's is -inf, -1 or 0
 * (times w) where its own logit is -inf, and 0 where logits.mask leaves it out. Other masked
 * classes: 0. No other class: loss 0, gradient 0. A row with NaN or +inf: NaN, also neg_log_p.
 * All classes masked: loss and neg_log_p +inf, gradient 0.
 *
 * Cost and errors: as slg_cross_entropy; SLG_ERR_RANGE for tau outside of its domain.
 *
 * Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
 * 2023. Adversarial form and bounds: robust.h. Since 0.1.
 */
SLG_API slg_status slg_comp_sum(slg_ctx *ctx, const slg_logits *logits,
                                const slg_targets *targets, const slg_comp_sum_opts *opts,
                                slg_loss_out *out, slg_logits_grad *grad);

/* ---- Squared error of the softmax ------------------------------------------------------- */

/* Options of slg_squared_softmax. */
typedef struct slg_squared_softmax_opts {
    uint32_t size;     /* sizeof(slg_squared_softmax_opts), set by its _init */
    int32_t reduction; /* slg_reduction; default SLG_MEAN */
    slg_tensor *prob;  /* out: NULL, or [rows, cols] f32, bf16, f16: p, of ignored rows too;
                          overlaps nothing else. NaN in a row with NaN or +inf, 0 where all
                          classes are masked */
} slg_squared_softmax_opts;

SLG_API void slg_squared_softmax_opts_init(slg_squared_softmax_opts *opts, size_t size);

/*
 * Least squares through the softmax (half the Brier score): with p = softmax(x), c = p - b and
 * s = sum_k p[k] c[k],
 *
 *     loss = w * 1/2 sum_k c[k]^2
 *     d loss / d x[k] = w * p[k] (c[k] - s)
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index (b is 1 there, 0 elsewhere) or prob, one of the two; row_weight;
 *                 the others NULL. prob is b, and here need not be a distribution: any numbers
 *   opts     in   NULL: the defaults. What opts->prob points to is written.
 *   out      out  see slg_loss_out; not NULL
 *   grad     out  NULL: not wanted
 *
 * The gradient sums to 0 over a row, and vanishes where p is one-hot even if it is wrong: that
 * is this loss. A masked class has p = 0 and gradient 0, but its b counts in the loss; a masked
 * label: loss 1/2 (1 + sum p^2). NaN in b: loss and gradient NaN for live classes of that row.
 * A row with NaN or +inf: loss and gradient NaN. All classes masked: loss +inf, gradient 0.
 * With an index, 1 - p[t] keeps its relative precision; else c is good to 1e-7.
 *
 * Cost: two exponentials an element where there is a gradient, one more read of b, a row
 * of scratch.
 *
 * Errors: as slg_cross_entropy, but prob is not checked.
 *
 * Paper: "The Closeness of In-Context Learning and Weight Shifting for Softmax Regression"
 * (2023). Since 0.1.
 */
SLG_API slg_status slg_squared_softmax(slg_ctx *ctx, const slg_logits *logits,
                                       const slg_targets *targets,
                                       const slg_squared_softmax_opts *opts, slg_loss_out *out,
                                       slg_logits_grad *grad);

/* ---- Binary cross-entropy -------------------------------------------------------------- */

/* Options of slg_binary_cross_entropy. */
typedef struct slg_binary_cross_entropy_opts {
    uint32_t size;                /* sizeof(slg_binary_cross_entropy_opts), set by its _init */
    int32_t reduction;            /* slg_reduction, over rows; default SLG_MEAN */
    int32_t class_reduction;      /* SLG_MEAN or SLG_SUM, over a row's classes that are not
                                     masked; default SLG_MEAN */
    int32_t reserved;             /* 0 */
    const slg_tensor *pos_weight; /* [cols] f32, >= 0, finite; NULL: all ones */
} slg_binary_cross_entropy_opts;

SLG_API void slg_binary_cross_entropy_opts_init(slg_binary_cross_entropy_opts *opts,
                                                size_t size);

/*
 * Binary cross-entropy with logits, for rows that have any number of labels: each class is a
 * yes-or-no question of its own, with sp(x) = log(1 + exp(x)):
 *
 *     loss = w * mean_k class_weight[k] (pos_weight[k] q[k] sp(-x[k]) + (1 - q[k]) sp(x[k]))
 *     dloss/dx[k] = w / K * class_weight[k] ((1 - q[k]) sigmoid(x[k])
 *                   - pos_weight[k] q[k] sigmoid(-x[k]))
 *
 * With both means it is PyTorch's BCEWithLogitsLoss and Keras's
 * BinaryCrossentropy(from_logits).
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   prob: entries from 0 to 1, of any sum; row_weight, class_weight; the rest
 *                 NULL
 *   opts     in   NULL: the defaults. pos_weight is read before anything is written.
 *   out      out  see slg_loss_out; lse must be NULL, correct is 0. A mean divides by the sum
 *                 of the row weights, not of the class weights.
 *   grad     out  NULL: not wanted
 *
 * The terms of the loss are added, never subtracted: it keeps its relative precision (1e-6), as
 * does each entry of the gradient where q is 0 or 1. A logit of -inf costs 0 where q is 0, else
 * +inf; +inf likewise where q is 1; gradients are their limits. A class that is masked, or
 * whose weight is 0, adds nothing, and its gradient is 0, whatever q. A NaN makes its row's
 * loss and gradient NaN. With no class at all the loss is 0.
 *
 * Cost: a read of logits and two of prob (one checks it), one write of the gradient, an
 * exponential and a logarithm a class. Fused as slg_cross_entropy.
 *
 * Errors: as slg_cross_entropy; SLG_ERR_RANGE also for an entry of prob that is not from 0
 * to 1.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_binary_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                            const slg_targets *targets,
                                            const slg_binary_cross_entropy_opts *opts,
                                            slg_loss_out *out, slg_logits_grad *grad);

/* ---- Focal loss ------------------------------------------------------------------------ */

/* Options of slg_focal. */
typedef struct slg_focal_opts {
    uint32_t size;     /* sizeof(slg_focal_opts), set by slg_focal_opts_init */
    int32_t reduction; /* slg_reduction; default SLG_MEAN */
    double gamma;      /* >= 0, finite; default 2. 0 is cross-entropy */
} slg_focal_opts;

SLG_API void slg_focal_opts_init(slg_focal_opts *opts, size_t size);

/*
 * Focal loss: cross-entropy in which rows that are right already count for less. With
 * p = softmax(x) and t the target:
 *
 *     loss = w * class_weight[t] (1 - p[t])^gamma (-log p[t])
 *     dloss/dx[k] = w * class_weight[t] G (p[k] - [k = t]),
 *     G = (1 - p[t])^gamma (1 + gamma p[t] (-log p[t]) / (1 - p[t]))
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index; row_weight, class_weight (the paper's alpha); the rest NULL
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out. A mean divides as that of slg_cross_entropy, by the sum of
 *                 w * class_weight[t].
 *   grad     out  NULL: not wanted
 *
 * 1 - p[t] keeps its relative precision however small it is, and so do loss and gradient (1e-6
 * times 1 + gamma). Masked classes, NaN, +inf, ignored rows, cost and errors: as
 * slg_cross_entropy; SLG_ERR_RANGE for a gamma that is negative or not finite.
 *
 * Paper: "Focal Loss for Dense Object Detection" (2017), its softmax form. Since 0.1.
 */
SLG_API slg_status slg_focal(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                             const slg_focal_opts *opts, slg_loss_out *out,
                             slg_logits_grad *grad);

/* ---- Poly-1 ---------------------------------------------------------------------------- */

/* Options of slg_poly1. */
typedef struct slg_poly1_opts {
    uint32_t size;     /* sizeof(slg_poly1_opts), set by slg_poly1_opts_init */
    int32_t reduction; /* slg_reduction; default SLG_MEAN */
    double epsilon;    /* >= -1, finite; default 1. 0 is cross-entropy */
} slg_poly1_opts;

SLG_API void slg_poly1_opts_init(slg_poly1_opts *opts, size_t size);

/*
 * Poly-1: cross-entropy whose first term in powers of 1 - p[t] has another weight. With
 * p = softmax(x) and t the target:
 *
 *     loss = w * class_weight[t] (-log p[t] + epsilon (1 - p[t]))
 *     dloss/dx[k] = w * class_weight[t] (1 + epsilon p[t]) (p[k] - [k = t])
 *
 * Operands, masked classes, NaN, +inf, mean, precision, cost and errors: as slg_focal;
 * SLG_ERR_RANGE for an epsilon below -1 (from where on the gradient would turn round) or not
 * finite.
 *
 * Paper: "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions"
 * (2022). Since 0.1.
 */
SLG_API slg_status slg_poly1(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                             const slg_poly1_opts *opts, slg_loss_out *out,
                             slg_logits_grad *grad);

#ifdef __cplusplus
}
#endif

#endif
