/*
 * spherical.h - the spherical family of losses: those that see a row of outputs o only through its
 * sum s, its sum of squares q and the target's entry. On logits, and on the sums alone.
 *
 * For one row of D classes with target c:
 *
 *     SLG_SPHERICAL_SQUARED   q - 2 o_c + 1                                squared error to one-hot
 *     SLG_SPHERICAL_TAYLOR    log(D + s + q/2) - log(1 + o_c + o_c^2/2)    log-Taylor softmax
 *     SLG_SPHERICAL_LOG       log(q + D eps) - log(o_c^2 + eps)            log-spherical softmax
 *     SLG_SPHERICAL_Z         softplus(a (b - z)) / a,  z = (o_c - mu) / sigma        the Z-loss
 *
 * with mu = s/D and sigma^2 = q/D - mu^2. The Z-loss does not change under o -> x o + y, x > 0; its
 * gradient sums to 0, and so does its product with o. a large makes it the hinge max(0, b - z). It
 * ranks, and gives no probabilities; with two classes z is +-1 and the gradient 0. A row of constant
 * outputs has z = 0 and gradient 0. The log-spherical softmax ignores signs: it ranks by |o|.
 *
 * Papers: "The Z-loss: a shift and scale invariant classification loss belonging to the spherical
 * family" (2016); "Efficient exact gradient update for training deep networks with very large
 * sparse targets" (2015); "An exploration of softmax alternatives belonging to the spherical loss
 * family" (2016). Since 0.1.
 */
#ifndef SOFTLOGIT_SPHERICAL_H
#define SOFTLOGIT_SPHERICAL_H

#include "softlogit/core.h"
#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

enum slg_spherical_kind {
    SLG_SPHERICAL_SQUARED = 0,
    SLG_SPHERICAL_TAYLOR = 1,
    SLG_SPHERICAL_LOG = 2,
    SLG_SPHERICAL_Z = 3
};

/* ---- On logits ------------------------------------------------------------------------- */

/* Options of slg_spherical and slg_spherical_terms. */
typedef struct slg_spherical_opts {
    uint32_t size;     /* sizeof(slg_spherical_opts), set by its _init */
    int32_t kind;      /* slg_spherical_kind; default SLG_SPHERICAL_Z */
    int32_t reduction; /* slg_reduction; default SLG_MEAN; slg_spherical alone */
    int32_t reserved;  /* 0 */
    double a;          /* of the Z-loss: sharpness, from 1e-30 to 1e30; default 1 */
    double b;          /* of the Z-loss: location, finite; default 0. A small a with a b of some
                          tens favours the first rank, a = 1 with a small b the first hundred. */
    double eps;        /* of the log-spherical softmax, from 1e-30 to 1e30; default 1e-3 */
    slg_tensor *z;     /* out: NULL, or [rows] f32, f64: the target's z; 0 for ignored rows, NaN
                          for rows with NaN; slg_spherical alone */
} slg_spherical_opts;

SLG_API void slg_spherical_opts_init(slg_spherical_opts *opts, size_t size);

/*
 * A loss of the family on logits: its row's loss, times w, and its gradient.
 *
 *   logits   in   [rows, cols] or an output layer; any temperature, softcap; no mask
 *   targets  in   index; row_weight; prob, class_weight, teacher NULL
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out; not NULL; lse must be NULL, correct is 0
 *   grad     out  NULL: not wanted; may be in place
 *
 * Rows may be as large as 1e38 or as small as 1e-38 and may lie far from 0 (1 + 1e-6): the mean is
 * taken off before squares are, and the gradient's factors do not overflow with sigma^2. Gradients
 * that are themselves beyond float32 are infinite or 0.
 *
 * Masked classes are no part of the family: logits.mask must be NULL, and a row with -inf, +inf or
 * NaN has loss and gradient NaN, and touches no other row.
 *
 * Cost: one read of logits and one write of the gradient where two rows fit the L2 cache, and no
 * exponential. Fused: as slg_cross_entropy.
 *
 * Errors: those of slg_cross_entropy; SLG_ERR_UNSUPPORTED for a mask; SLG_ERR_RANGE for kind, a, b,
 * eps. Outputs are untouched then.
 */
SLG_API slg_status slg_spherical(slg_ctx *ctx, const slg_logits *logits,
                                 const slg_targets *targets, const slg_spherical_opts *opts,
                                 slg_loss_out *out, slg_logits_grad *grad);

/*
 * The same from the sums alone: the loss of each row, and its derivatives by the three of them. The
 * gradient in o is then  dsum + 2 dsum_squares o,  plus dtarget_output at the target.
 *
 *   sum, sum_squares, target_output  [rows]  in   f32, f64: s, q, o_c
 *   classes                                  in   D, from 1 to 2^52
 *   opts                                     in   NULL: the defaults
 *   loss, dsum, dsum_squares, dtarget_output [rows]  out  f32, f64; NULL: not wanted
 *
 * Double inside. A variance q/D - (s/D)^2 that is not positive counts as 0 (the Z-loss's z = 0 and
 * gradient 0); use f64 sums where the mean is large beside sigma. An output may be an input's memory
 * if it is the very same view.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS, SLG_ERR_RANGE.
 */
SLG_API slg_status slg_spherical_terms(slg_ctx *ctx, const slg_tensor *sum,
                                       const slg_tensor *sum_squares,
                                       const slg_tensor *target_output, int64_t classes,
                                       const slg_spherical_opts *opts, slg_tensor *loss,
                                       slg_tensor *dsum, slg_tensor *dsum_squares,
                                       slg_tensor *dtarget_output);

#ifdef __cplusplus
}
#endif

#endif
