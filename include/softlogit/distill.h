/*
 * distill.h - losses that teach a student's logits by a teacher's. Called as those of loss.h
 * are; the teacher is targets->teacher, a source of logits as the student's: a matrix, or
 * hidden states and an output layer of any width. It is a constant: no gradient goes to it.
 */
#ifndef SOFTLOGIT_DISTILL_H
#define SOFTLOGIT_DISTILL_H

#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Divergences ----------------------------------------------------------------------- */

enum slg_divergence {
    SLG_FORWARD_KL = 0,    /* KL(q || p): the student covers what the teacher does */
    SLG_REVERSE_KL = 1,    /* KL(p || q): the student keeps to where the teacher is */
    SLG_JENSEN_SHANNON = 2 /* s KL(q || m) + (1 - s) KL(p || m), m = s q + (1 - s) p, s
                              teacher_share */
};

/* Options of slg_distillation. */
typedef struct slg_distillation_opts {
    uint32_t size;        /* sizeof(slg_distillation_opts), set by its _init */
    int32_t reduction;    /* slg_reduction; default SLG_MEAN */
    int32_t kind;         /* slg_divergence; default SLG_FORWARD_KL */
    int32_t tau_squared;  /* 1 (default): times temperature^2, so that the gradient's size does
                             not fall with it; 0: not */
    double temperature;   /* from 1e-4 to 1e4, default 1: of student and teacher, on top
                             of theirs */
    double weight;        /* >= 0, default 1: of the divergence */
    double cross_entropy; /* >= 0, default 0: weight of -log p[t] at the student's own
                             temperature */
    double teacher_share; /* from 0.001 to 0.999, default 0.5: of Jensen-Shannon alone */
} slg_distillation_opts;

SLG_API void slg_distillation_opts_init(slg_distillation_opts *opts, size_t size);

/*
 * Knowledge distillation. With x and y the student's and the teacher's logits (each after its
 * own soft-cap, mask and temperature), tau the temperature, p = softmax(x / tau),
 * q = softmax(y / tau):
 *
 *     loss = w * ( weight * tau^2 * D(q, p) + cross_entropy * (-log softmax(x)[t]) )
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   teacher: as many rows and columns; index: needed if cross_entropy > 0, else
 *                 it may be NULL, or say which rows to ignore; row_weight; the rest NULL
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out; not NULL. lse is of x / tau where cross_entropy is 0, else
 *                 of x. correct is 0 without index.
 *   grad     out  NULL: not wanted
 *
 * A class with p = 0 has gradient 0. Forward KL is +inf where the teacher has mass on a class
 * that the student masks; reverse KL is +inf, and the row's gradient NaN, where the student has
 * mass on a class that the teacher masks: give both the same mask. Jensen-Shannon is finite, at
 * most the entropy of (s, 1 - s). A teacher's row with NaN, +inf, or nothing but -inf makes
 * loss and gradient NaN; the student's rows are as in slg_cross_entropy. The divergence is good
 * to about 1e-6 of the largest |x - y| / tau that has mass, and is not below 0.
 *
 * Cost: one read of each and one write of the gradient where four rows fit the L2 cache.
 * Student and teacher at unlike temperatures of their own, or cross_entropy with a tau that
 * is not 1, cost some arithmetic more.
 *
 * Errors: as slg_cross_entropy; SLG_ERR_SHAPE for a teacher of another shape; SLG_ERR_RANGE for
 * options outside of their domains. Outputs are untouched then.
 *
 * Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015; Agarwal et al.,
 * "On-Policy Distillation of Language Models", 2023 (the family with teacher_share). Since 0.1.
 */
SLG_API slg_status slg_distillation(slg_ctx *ctx, const slg_logits *logits,
                                    const slg_targets *targets,
                                    const slg_distillation_opts *opts, slg_loss_out *out,
                                    slg_logits_grad *grad);

/* ---- NKD --------------------------------------------------------------------------------- */

/* Options of slg_nkd. */
typedef struct slg_nkd_opts {
    uint32_t size;           /* sizeof(slg_nkd_opts), set by its _init */
    int32_t reduction;       /* slg_reduction; default SLG_MEAN */
    double temperature;      /* tau, from 1e-4 to 1e4, default 1: of the non-target classes */
    double gamma;            /* >= 0, default 1.5: weight of the non-target part */
    double target_weight;    /* >= 0, default 1: of the target part */
    double cross_entropy;    /* >= 0, default 0: of ordinary cross-entropy, added in the same
                                pass; the paper trains with 1 */
    slg_tensor *target_loss; /* out: NULL, or [rows] f32, f64: target part, before any weight */
    slg_tensor *other_loss;  /* out: NULL, or [rows] f32, f64: non-target part, gamma tau^2 in
                                it */
} slg_nkd_opts;

SLG_API void slg_nkd_opts_init(slg_nkd_opts *opts, size_t size);

/*
 * Normalised knowledge distillation: the target's and the other classes' shares of distillation
 * apart, the others of student and teacher normalised to sum 1. With p = softmax(x),
 * q = softmax(y), y the teacher's logits, and P, Q the softmax of x / tau, y / tau over
 * the classes but t:
 *
 *     target_loss = q[t] (-log p[t])
 *     other_loss  = gamma tau^2 sum_{k != t} Q[k] (-log P[k])
 *     loss = w * ( target_weight * target_loss + other_loss + cross_entropy * (-log p[t]) )
 *
 *     d / d x[k] = (target_weight q[t] + cross_entropy) (p[k] - [k = t])
 *                  + [k != t] gamma tau (P[k] - Q[k])
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index; teacher; row_weight; the rest NULL
 *   opts     in   NULL: the defaults. What its tensors point to is written.
 *   out      out  see slg_loss_out; not NULL
 *   grad     out  NULL: not wanted
 *
 * Not 0 at x = y (cross-entropies, not divergences), though the gradient of other_loss is. Two
 * classes, one, or no other that is live in student or teacher: other_loss 0, gradient 0. An
 * other class with -inf in x and mass in Q: other_loss +inf. A target with -inf in x:
 * target_loss +inf unless q[t] is 0, the gradient there 0 (as at all classes with -inf). A
 * teacher's row with NaN or +inf, or nothing but -inf: NaN. Huge logits stay finite. Ignored
 * rows: 0 in target_loss and other_loss.
 *
 * Cost: one read of each source and one write; at a tau that is not 1 three exponentials
 * a class more. Errors: as slg_distillation.
 *
 * Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach
 * with Normalized Loss and Customized Soft Labels", 2023. Since 0.1.
 */
SLG_API slg_status slg_nkd(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                           const slg_nkd_opts *opts, slg_loss_out *out, slg_logits_grad *grad);

/* ---- USKD -------------------------------------------------------------------------------- */

enum slg_uskd_score {
    SLG_USKD_LOG = 0,        /* r = log p, as the authors' code has it */
    SLG_USKD_PROBABILITY = 1 /* r = p, as their text has it */
};

/* Options of slg_uskd. */
typedef struct slg_uskd_opts {
    uint32_t size;           /* sizeof(slg_uskd_opts), set by its _init */
    int32_t reduction;       /* slg_reduction; default SLG_MEAN */
    int32_t score;           /* slg_uskd_score; default SLG_USKD_LOG */
    int32_t reserved;        /* 0 */
    double alpha;            /* >= 0, default 1: of the target part (0.1 for small images) */
    double beta;             /* >= 0, default 0.1: of the non-target part */
    double mu;               /* >= 0, default 0.005: of the weak head's part (0.1 for small
                                images) */
    double smoothing;        /* from 0 to 1, default 0.1: of the weak head's labels */
    double cross_entropy;    /* >= 0, default 0: of ordinary cross-entropy, added in the same
                                pass; the paper trains with 1 */
    double mean_square;      /* at most 1; default -1 (any negative): the mean of p[t]^2
                                is taken over the rows of this call. Else the mean of a batch in
                                several calls: p[t] is exp(-loss) of slg_cross_entropy */
    double mean_square2;     /* the same of the second target of label matrices */
    slg_tensor *target_loss; /* out: these NULL, or [rows] f32, f64. Target part, before
                                alpha */
    slg_tensor *other_loss;  /* out: non-target part, before beta */
    slg_tensor *weak_loss;   /* out: weak head's part, mu in it */
    slg_tensor *soft_target; /* out: P of the (first) target */
    slg_tensor *rank;        /* out: NULL, or [rows, cols] i32, i64: 0 for the highest score; -1
                                in rows that are ignored or not finite */
} slg_uskd_opts;

SLG_API void slg_uskd_opts_init(slg_uskd_opts *opts, size_t size);

/*
 * Universal self-knowledge distillation: soft labels without a teacher, from the student itself
 * and from a weak head (logits v from an inner layer). With p = softmax(x), w = softmax(v):
 *
 *     P = p[t]^2 + 1 - mean over the batch of p[t]^2          target_loss = -P log p[t]
 *     score[k] = w[k] / (1 - w[t] + 1e-6) + r[k] / (1 - r[t] + 1e-6)
 *     Z[k] = 1 / (1 + rank of score[k]) over k != t, divided by their sum
 *     other_loss = -sum_{k != t} Z[k] log P[k],  P[k] = softmax of x over k != t
 *     weak_loss = -mu sum q log w,  q = (1 - smoothing) onehot(t) + smoothing / cols
 *     loss = row_weight (alpha target_loss + beta other_loss + weak_loss
 *                        + cross_entropy (-log p[t]))
 *
 * P, Z and the ranks are constants to the gradients. Ties of scores: the lower class first.
 * With labels as a matrix (mixup, cutmix) the two largest entries l1 >= l2 of a row are two
 * targets: P = p^2 + l - batch mean of that place's p^2, 0 where l is; both are left out
 * of the others, and the sums of w and r over both stand for w[t], r[t].
 *
 *   logits     in   [rows, cols] or an output layer
 *   targets    in   index or prob, one of the two; teacher: the weak head's logits; row_weight
 *   opts       in   NULL: the defaults. What its tensors point to is written.
 *   out        out  see slg_loss_out; not NULL
 *   grad       out  gradient of logits; NULL: not wanted
 *   weak_grad  out  gradient of targets->teacher, dense or through its layer; NULL: not wanted
 *
 * One class, or with an index two: other_loss 0. One row: P = 1. The mean is over rows that are
 * not ignored, without weights. A row of logits with NaN, +inf or nothing but -inf makes
 * the mean NaN and with it the losses of all rows (give mean_square to prevent that); one
 * of the weak head, its row alone. A class with -inf in x is left out of Z; one with -inf in v
 * makes weak_loss +inf where q has mass on it.
 *
 * Cost: two reads of logits (one with mean_square given), one of the weak head's, a radix
 * sort of the classes by scores in double; 14 floats of scratch a class and thread. Errors: as
 * slg_distillation.
 *
 * Paper: as slg_nkd. Since 0.1.
 */
SLG_API slg_status slg_uskd(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                            const slg_uskd_opts *opts, slg_loss_out *out, slg_logits_grad *grad,
                            slg_logits_grad *weak_grad);

#ifdef __cplusplus
}
#endif

#endif
