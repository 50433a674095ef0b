/*
 * dual_head.h - distillation on logits, through a head of its own: the student's main head
 * learns from labels, an auxiliary head on the same features learns the teacher's logits and
 * is dropped after training. On one head the two losses would pull against each other.
 *
 * Paper: "Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an Auxiliary
 * Head" (2024).
 */
#ifndef SOFTLOGIT_DUAL_HEAD_H
#define SOFTLOGIT_DUAL_HEAD_H

#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Logit-level losses ---------------------------------------------------------------- */

/* Options of slg_binary_kl and slg_binary_kl_normalised. */
typedef struct slg_binary_kl_opts {
    uint32_t size;      /* sizeof(slg_binary_kl_opts), set by slg_binary_kl_opts_init */
    int32_t reduction;  /* slg_reduction; default SLG_MEAN: over rows. Classes are added. */
    double temperature; /* tau, from 1e-6 to 1e6; default 2 */
} slg_binary_kl_opts;

SLG_API void slg_binary_kl_opts_init(slg_binary_kl_opts *opts, size_t size);

/*
 * Binary divergence of two rows of logits, class by class. S are the logits, T the teacher's
 * (each after its own soft-cap and temperature), tau the loss's temperature:
 *
 *     loss = w tau^2 sum_c KL( Bernoulli(sigmoid(T_c / tau)) || Bernoulli(sigmoid(S_c / tau)) )
 *     dloss/dS_c = w tau (sigmoid(S_c / tau) - sigmoid(T_c / tau))
 *
 *   logits   in   S: [rows, cols] or an output layer
 *   targets  in   teacher: T, of the same shape; row_weight; the rest NULL. No gradient goes
 *                 to T.
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out; lse must be NULL, correct is 0
 *   grad     out  NULL: not wanted
 *
 * Nothing is clamped: the loss keeps its relative precision (1e-5) also where S is near T,
 * the gradient too (2e-6). S = T: both exactly 0, also where both are infinite alike. An
 * infinite S_c that is not T_c: loss +inf, the gradient is its limit. A class masked in logits
 * adds nothing and has gradient 0. A NaN makes its row's loss and gradient NaN.
 *
 * Cost: a read of S and T, one write of the gradient; two exponentials a class.
 *
 * Errors: as slg_cross_entropy; SLG_ERR_SHAPE where the teacher differs in shape, SLG_ERR_RANGE
 * for a temperature outside of its domain. Outputs are untouched then.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_binary_kl(slg_ctx *ctx, const slg_logits *logits,
                                 const slg_targets *targets, const slg_binary_kl_opts *opts,
                                 slg_loss_out *out, slg_logits_grad *grad);

/*
 * The normalised form, which the paper trains with: it depends on the difference alone. With
 * D_c = (S_c - T_c) / tau:
 *
 *     loss = w tau^2 sum_c KL( Bernoulli(1/2) || Bernoulli(sigmoid(D_c)) )
 *            = w tau^2 sum_c log cosh(D_c / 2)
 *     dloss/dS_c = w (tau / 2) tanh(D_c / 2)
 *
 * Near 0 it is (S - T)^2 / 8, far away tau |S - T| / 2: a regression of logits that bears
 * outliers.
 *
 * Operands, masks, errors: as slg_binary_kl. The loss keeps its relative precision (2e-6), as
 * does the gradient (1e-6). Where S - T overflows float32 the loss is +inf and the gradient w
 * tau / 2; so it is for one infinite logit. Both infinite alike: NaN, as a NaN is, for
 * the whole row. Costs two exponentials and a logarithm a class with gradient, one and one
 * without.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_binary_kl_normalised(slg_ctx *ctx, const slg_logits *logits,
                                            const slg_targets *targets,
                                            const slg_binary_kl_opts *opts, slg_loss_out *out,
                                            slg_logits_grad *grad);

/* ---- A step with two heads ------------------------------------------------------------- */

/* Options of slg_dual_head. */
typedef struct slg_dual_head_opts {
    uint32_t size;           /* sizeof(slg_dual_head_opts), set by slg_dual_head_opts_init */
    int32_t reduction;       /* slg_reduction, of both losses; default SLG_MEAN */
    int32_t normalised;      /* 1 (default): slg_binary_kl_normalised; 0: slg_binary_kl */
    int32_t reserved;        /* 0 */
    double main_weight;      /* gamma >= 0, finite; default 1 */
    double auxiliary_weight; /* alpha >= 0, finite; default 1 */
    double temperature;      /* tau of the auxiliary loss, from 1e-6 to 1e6; default 2 */
} slg_dual_head_opts;

SLG_API void slg_dual_head_opts_init(slg_dual_head_opts *opts, size_t size);

/*
 * Both losses of a student with two heads, and their gradients:
 *
 *     total = main_weight * cross_entropy(main, targets)
 *             + auxiliary_weight * binary_kl(auxiliary, teacher)
 *
 *   main           in   logits of the head that predicts: dense, or features and W1 (and b1)
 *   auxiliary      in   logits of the auxiliary head: features and W2 (and b2); or dense, for
 *                       a head that is a network of its own
 *   targets        in   index; teacher, over the auxiliary head's classes; row_weight,
 *                       class_weight (of the main loss); prob NULL. Rows with ignore_index
 *                       count for the auxiliary loss all the same: it needs no label.
 *   opts           in   NULL: the defaults
 *   main_out       out  the cross-entropy, without main_weight; see slg_loss_out
 *   auxiliary_out  out  the distillation loss, without auxiliary_weight; its lse must be NULL
 *   main_grad      out  gradients of main_weight times the first; NULL: not wanted
 *   auxiliary_grad out  gradients of auxiliary_weight times the second; NULL: not wanted
 *
 * The heads' gradients never mix. auxiliary_grad->dhidden may be the very view that
 * main_grad->dhidden is: then it holds the sum of both, the gradient of the total for
 * the features. Apart, the two are what slg_align_gradients takes. No other output may overlap
 * an output or an input of the other head. With auxiliary_weight 0 and finite logits all is as
 * in slg_cross_entropy, and the auxiliary head's gradient is 0.
 *
 * Cost: as the two losses, one after the other; six GEMMs for two fused heads.
 * Errors: those of the two losses, SLG_ERR_RANGE for a weight that is negative or not finite.
 * Everything of both is checked before anything is written.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_dual_head(slg_ctx *ctx, const slg_logits *main,
                                 const slg_logits *auxiliary, const slg_targets *targets,
                                 const slg_dual_head_opts *opts, slg_loss_out *main_out,
                                 slg_loss_out *auxiliary_out, slg_logits_grad *main_grad,
                                 slg_logits_grad *auxiliary_grad);

/* ---- Gradient alignment ---------------------------------------------------------------- */

/* Options of slg_align_gradients. */
typedef struct slg_align_gradients_opts {
    uint32_t size;       /* sizeof(slg_align_gradients_opts), set by its _init */
    int32_t merge;       /* 1: g1 becomes g1 + g2'. 0 (default): g2 becomes g2' */
    int32_t shared_only; /* 1: only tensors that both losses reach take part. Default 0 */
    int32_t reserved;    /* 0 */
} slg_align_gradients_opts;

SLG_API void slg_align_gradients_opts_init(slg_align_gradients_opts *opts, size_t size);

/* What slg_align_gradients found; set by the library, size by slg_align_gradients_out_init. */
typedef struct slg_align_gradients_out {
    uint32_t size;
    int32_t aligned;        /* 1 where dot < 0: g2 was changed */
    double dot;             /* g1 . g2 */
    double main_norm2;      /* g1 . g1 */
    double auxiliary_norm2; /* g2 . g2, as it came */
} slg_align_gradients_out;

SLG_API void slg_align_gradients_out_init(slg_align_gradients_out *out, size_t size);

/*
 * Takes out of one gradient what works against another. g1 and g2 are lists of tensors, as one
 * long vector each:
 *
 *     g2' = g2 - (g1 . g2 / g1 . g1) g1   where g1 . g2 < 0,   else g2
 *
 * so that g1 . g2' >= 0 (but for rounding). One-sided: g1 is what must not suffer. The step
 * is g1 + g2'.
 *
 *   count      in      tensors of each list, >= 0
 *   main       in/out  g1: tensors of f32, bf16, f16, 1 to 4 axes; changed only with merge. An
 *                      entry may be NULL: zeros, for parameters that the loss does not reach
 *   auxiliary  in/out  g2: likewise, of the same shapes; changed only without merge
 *   opts       in      NULL: the defaults
 *   out        out     NULL: not wanted
 *
 * Without merge g2' replaces g2. Where the auxiliary loss does not reach a tensor that the main
 * loss does, g2' is not 0 there, but a multiple of g1: such a NULL needs merge or shared_only.
 * With merge, where both are given, main becomes g1 + g2' and auxiliary stays; where auxiliary
 * is NULL main becomes (1 + |g1 . g2| / g1 . g1) g1, as in the published code; where main
 * is NULL, the sum is auxiliary's as it is. With shared_only, tensors that one list lacks stay
 * as they are and do not enter the products.
 *
 * Products and sums are in float64, in an order of their own: the same bits on every ISA for
 * float32, for any number of threads. g1 = 0: nothing is taken out. A NaN or an infinity in
 * either: dot is NaN or infinite; only a finite, negative dot with a finite g1 . g1 acts.
 * Tensors must not overlap each other.
 *
 * Errors: SLG_ERR_NULL, also for a NULL auxiliary entry as above; SLG_ERR_SHAPE, SLG_ERR_DTYPE,
 * SLG_ERR_STRIDE for tensors that overlap; SLG_ERR_RANGE for count < 0 or an option that is not
 * 0 or 1; SLG_ERR_MEMORY. Nothing is changed then. Cost: two reads and one write; no workspace
 * but 1/1000 of it.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_align_gradients(slg_ctx *ctx, int64_t count, slg_tensor *const *main,
                                       slg_tensor *const *auxiliary,
                                       const slg_align_gradients_opts *opts,
                                       slg_align_gradients_out *out);

#ifdef __cplusplus
}
#endif

#endif
