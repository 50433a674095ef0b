/*
 * reward.h - next-token prediction as one-step policy gradient: cross-entropy with a shaped
 * reward, the gradient of an expected reward, and the entropies that tell what they do.
 *
 * "Diversity or Precision? A Deep Dive into Next Token Prediction", 2025.
 */
#ifndef SOFTLOGIT_REWARD_H
#define SOFTLOGIT_REWARD_H

#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the label's weight depends on its probability. */
enum slg_reward_form {
    SLG_REWARD_OTHERS = 0, /* (1 - p[t])^beta */
    SLG_REWARD_LABEL = 1   /* p[t]^(-beta) */
};

/* Options of slg_reward_cross_entropy. */
typedef struct slg_reward_cross_entropy_opts {
    uint32_t size;               /* sizeof(slg_reward_cross_entropy_opts), set by its _init */
    int32_t reduction;           /* slg_reduction; default SLG_MEAN */
    int32_t form;                /* slg_reward_form; default SLG_REWARD_OTHERS */
    int32_t reserved;            /* 0 */
    slg_tensor *positive_weight; /* out: NULL, or [rows] f32, f64: w_t; 0 for ignored rows */
    slg_tensor *entropy;         /* out: NULL, or [rows] f32, f64: of p, of ignored rows too */
    int64_t top_k;               /* >= 0, default 100: so many classes are the top; the label,
                                    if it is among them, counts. Ties: the lower index. */
    double beta;                 /* from -100 to 100, default 0; < 0: precision, > 0:
                                    diversity */
    double lambda_top;           /* reward of the top's others, |.| <= 1e6; default 0 */
    double lambda_tail;          /* reward of the rest, the same; below 0 pushes them down */
    double cap;                  /* of the label's weight, > 0, finite; default 1e4 */
} slg_reward_cross_entropy_opts;

SLG_API void slg_reward_cross_entropy_opts_init(slg_reward_cross_entropy_opts *opts,
                                                size_t size);

/*
 * Cross-entropy as policy gradient with shaped rewards. With p = softmax(x), label t:
 *
 *     w_t = min(cap, (1 - p[t])^beta)  or  min(cap, p[t]^(-beta))
 *     w_k = lambda_top p[k] or lambda_tail p[k] for k != t, S = sum w
 *     loss = -w * sum_k w_k log p[k],   d loss / d x[k] = w * (p[k] S - w_k)
 *
 * The gradient is that of the loss with all w_k taken as constants. beta = 0, lambdas 0: the
 * bits of slg_cross_entropy (a label with a logit of -inf apart). beta < 0 concentrates, beta
 * > 0 keeps entropy. With a negative lambda the loss is negative in part: its gradient alone
 * has meaning.
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index; row_weight; the rest NULL
 *   opts     in   NULL: the defaults. What its tensors point to is written.
 *   out      out  see slg_loss_out; not NULL
 *   grad     out  NULL: not wanted
 *
 * 1 - p[t] keeps its relative precision; if no other class is left, it is 0: w_t = 0 (beta >
 * 0), 1 or cap (beta < 0), loss and gradient 0. A label that is a masked class: w_t = 1 or
 * min(cap, ..) as the formula gives, loss +inf unless w_t is 0; the gradient is the formula's,
 * with -w w_t at a label whose own logit is -inf, 0 at one that logits.mask leaves out. Other
 * masked classes: weight and gradient 0. A row with NaN or +inf: NaN, all of it. All classes
 * masked: loss +inf, the rest 0.
 *
 * Cost: as slg_cross_entropy where both lambdas are 0 and entropy is NULL. Else the rows are
 * taken whole: their exponentials in scratch, one more pass, and a selection (no sort) where
 * the lambdas differ. Errors: as slg_cross_entropy; SLG_ERR_RANGE for an option outside of its
 * domain. Since 0.1.
 */
SLG_API slg_status slg_reward_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                            const slg_targets *targets,
                                            const slg_reward_cross_entropy_opts *opts,
                                            slg_loss_out *out, slg_logits_grad *grad);

/* Options of slg_expected_reward. */
typedef struct slg_expected_reward_opts {
    uint32_t size;            /* sizeof(slg_expected_reward_opts), set by its _init */
    int32_t reduction;        /* slg_reduction; default SLG_MEAN */
    const slg_tensor *reward; /* not NULL: [rows, cols] f32, bf16, f16, of each class; or, with
                                 targets->index, [rows] f32, f64: of that class, all others 0 */
} slg_expected_reward_opts;

SLG_API void slg_expected_reward_opts_init(slg_expected_reward_opts *opts, size_t size);

/*
 * One-step policy gradient of a reward table, which is the exact gradient of the expected
 * reward:
 *
 *     loss = -w * sum_k p[k] reward[k]
 *     d loss / d x[k] = w * p[k] (sum_a p[a] reward[a] - reward[k])
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index or nothing; row_weight; the rest NULL. Not NULL.
 *   opts     in   not NULL, for the reward
 *   out, grad     as of any loss
 *
 * Rewards of masked classes do not matter unless NaN. Precision: 1e-6 of the largest |reward|;
 * with an index relative. All classes masked: loss +inf as of any loss, gradient 0. NaN or
 * infinity in a reward: a row of NaN. Cost: with an index as slg_cross_entropy; a table is read
 * twice. Errors: as slg_cross_entropy. Since 0.1.
 */
SLG_API slg_status slg_expected_reward(slg_ctx *ctx, const slg_logits *logits,
                                       const slg_targets *targets,
                                       const slg_expected_reward_opts *opts, slg_loss_out *out,
                                       slg_logits_grad *grad);

/* Options of slg_entropy. */
typedef struct slg_entropy_opts {
    uint32_t size;           /* sizeof(slg_entropy_opts), set by its _init */
    int32_t reserved;        /* 0 */
    slg_tensor *top_entropy; /* out: NULL, or [rows] f32, f64: of the top classes,
                                renormalised */
    slg_tensor *top_mass;    /* out: NULL, or [rows] f32, f64: their probability */
    int64_t top_k;           /* >= 1, default 100: so many classes are the top */
} slg_entropy_opts;

SLG_API void slg_entropy_opts_init(slg_entropy_opts *opts, size_t size);

/*
 * Entropy of p = softmax(x) of each row (global), and of its top_k classes renormalised
 * (local).
 *
 *   logits   in   [rows, cols] or an output layer
 *   opts     in   NULL: the defaults, no top
 *   entropy  out  NULL, or [rows] f32, f64, in nats
 *
 * Good to 1e-6 (1 + entropy). NaN for a row with NaN or +inf; 0, and top_mass 0, where all
 * classes are masked. Errors: as slg_cross_entropy; SLG_ERR_RANGE for top_k < 1. Since 0.1.
 */
SLG_API slg_status slg_entropy(slg_ctx *ctx, const slg_logits *logits,
                               const slg_entropy_opts *opts, slg_tensor *entropy);

#ifdef __cplusplus
}
#endif

#endif
