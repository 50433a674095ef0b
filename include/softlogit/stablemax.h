/*
 * stablemax.h - StableMax, a softmax whose losses do not run dry: s(z) in place of exp(z),
 *
 *     s(z) = z + 1       for z >= 0,        log s(z) = sign(z) log(1 + |z|),
 *     s(z) = 1 / (1 - z) for z < 0,         d log s / dz = 1 / (1 + |z|)
 *
 * and when softmax itself has: its collapse in float32.
 *
 * Paper: "Grokking at the Edge of Numerical Stability" (2025).
 */
#ifndef SOFTLOGIT_STABLEMAX_H
#define SOFTLOGIT_STABLEMAX_H

#include "softlogit/core.h"
#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Probabilities ---------------------------------------------------------------------- */

/* Options of slg_stablemax and slg_log_stablemax. */
typedef struct slg_stablemax_opts {
    uint32_t size;      /* sizeof(slg_stablemax_opts), set by its _init */
    int32_t reserved;   /* 0 */
    double temperature; /* from 1e-30 to 1e30; default 1: z = x / temperature */
} slg_stablemax_opts;

SLG_API void slg_stablemax_opts_init(slg_stablemax_opts *opts, size_t size);

/*
 * Over the last axis, z = x / temperature:
 *
 *     slg_stablemax      y[k] = s(z[k]) / sum_j s(z[j])
 *     slg_log_stablemax  y[k] = log s(z[k]) - log sum_j s(z[j])
 *
 *   x     in   [..., cols]  f32, bf16, f16; 1 to 4 axes
 *   opts  in   NULL: the defaults
 *   y     out  [..., cols]  f32, bf16, f16; may be x itself
 *
 * Neither shift nor scale invariant: the maximum is not taken off, and z up to 3e38 is fine
 * (the log-probabilities are finite there; probabilities below 2^-126 are 0). Relative error
 * of a probability under 1e-6; of a log-probability 4e-7 of 1 + |log s| absolute.
 *
 * -inf: a masked class, probability 0, log-probability -inf. +inf (or a quotient past float32):
 * all such share the row, 1 / their number each. A row with a NaN, or with -inf alone: NaN.
 *
 * Cost: one read and one write. Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE,
 * SLG_ERR_STRIDE, SLG_ERR_OPTIONS, SLG_ERR_RANGE for temperature. y is untouched then. Since
 * 0.1.
 */
SLG_API slg_status slg_stablemax(slg_ctx *ctx, const slg_tensor *x,
                                 const slg_stablemax_opts *opts, slg_tensor *y);
SLG_API slg_status slg_log_stablemax(slg_ctx *ctx, const slg_tensor *x,
                                     const slg_stablemax_opts *opts, slg_tensor *y);

/* ---- Cross-entropy ---------------------------------------------------------------------- */

/* Options of slg_stablemax_loss. */
typedef struct slg_stablemax_loss_opts {
    uint32_t size;     /* sizeof(slg_stablemax_loss_opts), set by its _init */
    int32_t reduction; /* slg_reduction; default SLG_MEAN */
} slg_stablemax_loss_opts;

SLG_API void slg_stablemax_loss_opts_init(slg_stablemax_loss_opts *opts, size_t size);

/*
 * Cross-entropy of StableMax probabilities p, with a gradient that stays where softmax's
 * is rounded off: of a row that is right by a gap of x, loss and gradient fall as 1 / x and
 * 1 / x^2, not e^-x.
 *
 *     index:  loss = -w log p[t]
 *             d loss / d z[k] = w (p[k] - [k = t]) / (1 + |z[k]|)
 *     prob:   loss = -w sum_k q[k] log p[k]
 *             d loss / d z[k] = w (p[k] sum(q) - q[k]) / (1 + |z[k]|)
 *
 *   logits   in   [rows, cols] or an output layer; temperature, soft-cap, mask as everywhere
 *   targets  in   index or prob, one of the two; row_weight; class_weight and teacher NULL
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out; not NULL. out.lse must be NULL
 *   grad     out  NULL: not wanted
 *
 * With an index, loss and gradient keep their relative precision however sure the row is:
 * 1 - p[t] is the sum of the others, the loss log1p of their odds. The sums are taken in a way
 * that neither overflows nor vanishes, up to +-3e38: the loss is then 177 or so.
 *
 * -inf or masked: probability and gradient 0, a target there: loss +inf. +inf: the target among
 * them: loss log(their number), gradient 0; the target elsewhere: loss +inf, gradient at
 * the target -w / (1 + |z|), 0 elsewhere. NaN, or no live class: loss and gradient of the row
 * NaN (here other than in slg_cross_entropy). One class: loss and gradient 0.
 *
 * Cost: as cross-entropy; with prob a logarithm a class. Errors: as slg_cross_entropy. Since
 * 0.1.
 */
SLG_API slg_status slg_stablemax_loss(slg_ctx *ctx, const slg_logits *logits,
                                      const slg_targets *targets,
                                      const slg_stablemax_loss_opts *opts, slg_loss_out *out,
                                      slg_logits_grad *grad);

/* ---- Collapse of softmax ---------------------------------------------------------------- */

/* What slg_softmax_collapse returns. Numbers are set by the library. */
typedef struct slg_collapse_out {
    uint32_t size;             /* sizeof(slg_collapse_out), set by its _init */
    int32_t reserved;          /* 0 */
    slg_tensor *collapsed;     /* in: NULL, or [rows] i32: 1 where the row has collapsed */
    slg_tensor *zero_loss;     /* in: NULL, or [rows] i32: 1 where its loss is exactly 0
                                  besides */
    int64_t count;             /* out: rows not ignored */
    int64_t collapsed_rows;    /* out */
    int64_t zero_loss_rows;    /* out */
    double collapsed_fraction; /* out: of count; 0 where that is 0 */
    double zero_loss_fraction; /* out: of count; 0 where that is 0 */
} slg_collapse_out;

SLG_API void slg_collapse_out_init(slg_collapse_out *out, size_t size);

/*
 * Softmax collapse: in float32, sum_j exp(x[j] - max x) is 1 exactly, since the others together
 * come to no more than 2^-24. Where the maximum is the target, loss and the gradient there are
 * exactly 0 in any float32 softmax that subtracts the maximum: such rows have stopped teaching.
 * (The cross-entropy of this library keeps a gradient in such rows, until it underflows.)
 *
 *   logits   in   [rows, cols]  f32, bf16, f16
 *   targets  in   index (and ignore_index); NULL: none, and no row has loss 0
 *   out      out  not NULL; its tensors may not overlap an input or each other
 *
 * The others are summed by themselves, largest left out, in double: in no order that could lose
 * them. A row with NaN or +inf, or with nothing but -inf, has not collapsed; a single class
 * has. Ignored rows are 0 and count for nothing.
 *
 * Cost: two reads, the second from the cache. Errors: SLG_ERR_NULL, SLG_ERR_SHAPE,
 * SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for an index
 * out of range. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_softmax_collapse(slg_ctx *ctx, const slg_tensor *logits,
                                        const slg_targets *targets, slg_collapse_out *out);

#ifdef __cplusplus
}
#endif

#endif
