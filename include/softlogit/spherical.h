/*
 * spherical.h - the spherical family of losses: those that see a row of outputs o only through
 * its sum s, its sum of squares q and the target's entry. On logits, on the sums alone, and
 * with an output layer whose training step costs the same for any number of classes.
 *
 * For one row of D classes with target c:
 *
 *     SLG_SPHERICAL_SQUARED   q - 2 o_c + 1                              squared error
 *     SLG_SPHERICAL_TAYLOR    log(D + s + q/2) - log(1 + o_c + o_c^2/2)  log-Taylor softmax
 *     SLG_SPHERICAL_LOG       log(q + D eps) - log(o_c^2 + eps)          log-spherical softmax
 *     SLG_SPHERICAL_Z         softplus(a (b - z)) / a, z = (o_c - mu) / sigma  the Z-loss
 *
 * with mu = s/D and sigma^2 = q/D - mu^2. The Z-loss does not change under o -> x o + y, x > 0;
 * its gradient sums to 0, and so does its product with o. a large makes it the hinge max(0,
 * b - z). It ranks, and gives no probabilities; with two classes z is +-1 and the gradient 0. A
 * row of constant outputs has z = 0 and gradient 0. The log-spherical softmax ignores signs: it
 * ranks by |o|.
 *
 * Papers: "The Z-loss: a shift and scale invariant classification loss belonging
 * to the spherical family" (2016); "Efficient exact gradient update for training deep networks
 * with very large sparse targets" (2015); "An exploration of softmax alternatives belonging
 * to the spherical loss family" (2016). Since 0.1.
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
                          tens favours the first rank, a = 1 with a small b the first
                          hundred. */
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
 * Rows may be as large as 1e38 or as small as 1e-38 and may lie far from 0 (1 + 1e-6): the mean
 * is taken off before squares are, and the gradient's factors do not overflow with sigma^2.
 * Gradients that are themselves beyond float32 are infinite or 0.
 *
 * Masked classes are no part of the family: logits.mask must be NULL, and a row with -inf, +inf
 * or NaN has loss and gradient NaN, and touches no other row.
 *
 * Cost: one read of logits and one write of the gradient where two rows fit the L2 cache, and
 * no exponential. Fused: as slg_cross_entropy.
 *
 * Errors: those of slg_cross_entropy; SLG_ERR_UNSUPPORTED for a mask; SLG_ERR_RANGE for kind,
 * a, b, eps. Outputs are untouched then.
 */
SLG_API slg_status slg_spherical(slg_ctx *ctx, const slg_logits *logits,
                                 const slg_targets *targets, const slg_spherical_opts *opts,
                                 slg_loss_out *out, slg_logits_grad *grad);

/*
 * The same from the sums alone: the loss of each row, and its derivatives by the three of them.
 * The
 * gradient in o is then  dsum + 2 dsum_squares o,  plus dtarget_output at the target.
 *
 *   sum, sum_squares, target_output  [rows]  in   f32, f64: s, q, o_c
 *   classes                                  in   D, from 1 to 2^52
 *   opts                                     in   NULL: the defaults
 *   loss, dsum, dsum_squares, dtarget_output [rows]  out  f32, f64; NULL: not wanted
 *
 * Double inside. A variance q/D - (s/D)^2 that is not positive counts as 0 (the Z-loss's z = 0
 * and gradient 0); use f64 sums where the mean is large beside sigma. An output may be an
 * input's memory if it is the very same view.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_RANGE.
 */
SLG_API slg_status slg_spherical_terms(slg_ctx *ctx, const slg_tensor *sum,
                                       const slg_tensor *sum_squares,
                                       const slg_tensor *target_output, int64_t classes,
                                       const slg_spherical_opts *opts, slg_tensor *loss,
                                       slg_tensor *dsum, slg_tensor *dsum_squares,
                                       slg_tensor *dtarget_output);

/* ---- The factorised output layer -------------------------------------------------------- */

/*
 * An output layer o = W h, W [classes, dim], trained by plain gradient descent on a loss of the
 * family. W is kept as V U + 1 omega' (V [classes, dim], U [dim, dim]) with Q = W'W, the column
 * sums w = W'1, and P = U^-1: loss, gradient in h and the exact update of W then need the rows
 * of V that are targets and no others. The step is, up to rounding, the dense one,
 *
 *     W <- W - lr sum_i rho_i dloss_i/dW,
 *
 * for any classes in about 14 rows dim^2 + O(rows^2 dim + rows^3) operations, against
 * 6 rows dim classes. V is float32, all else float64: 24 dim^2 bytes and a work space of 96
 * rows dim. A dense optimizer state (momentum, Adam on W) has no such form.
 */
typedef struct slg_spherical_layer slg_spherical_layer;

typedef struct slg_spherical_layer_opts {
    uint32_t size;    /* sizeof(slg_spherical_layer_opts), set by its _init */
    int32_t kind;     /* slg_spherical_kind; default SLG_SPHERICAL_Z */
    int32_t period;   /* steps between looks at U's condition; default 10; 0: never */
    int32_t refresh;  /* steps between computing Q and w anew from V; default 0: never */
    double a, b, eps; /* as slg_spherical_opts */
    double low, high; /* singular values of U outside of [low, high] are brought back to 1; low
                         in (0, 1), high above 1 and at most 1e6; default 1/2 and 2 */
} slg_spherical_layer_opts;

SLG_API void slg_spherical_layer_opts_init(slg_spherical_layer_opts *opts, size_t size);

/*
 *   classes, dim            in   D from 1 to 2^31 - 1, d from 1 to 32767
 *   weight  [classes, dim]  in   f32, bf16, f16, f64 (rounded to float32); NULL: all zeros
 *   opts                    in   NULL: the defaults
 *   layer                   out  NULL on an error
 *
 * Cost: Q once, classes dim^2 operations. Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE,
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY, SLG_ERR_RANGE (an extent, an option, a weight that is not
 * finite or beyond 1e30).
 */
SLG_API slg_status slg_spherical_layer_create(slg_ctx *ctx, int64_t classes, int64_t dim,
                                              const slg_tensor *weight,
                                              const slg_spherical_layer_opts *opts,
                                              slg_spherical_layer **layer);

/* Frees; NULL is allowed. The context must still be there. */
SLG_API void slg_spherical_layer_free(slg_spherical_layer *layer);

/* A batch. */
typedef struct slg_spherical_batch {
    uint32_t size;                  /* sizeof(slg_spherical_batch), set by its _init */
    int32_t reserved;               /* 0 */
    const slg_tensor *hidden;       /* [rows, dim]      f32, bf16, f16, f64 */
    const slg_tensor *target;       /* [rows] or [rows, K]  i32, i64: classes, or
                                                            ignore_index */
    const slg_tensor *target_value; /* [rows, K] as target  f32, f64; NULL: see below */
    const slg_tensor *row_weight;   /* [rows]  f32, f64: rho; NULL: 1 / rows that count */
    int64_t ignore_index;           /* default -100: such a target is not there */
} slg_spherical_batch;

SLG_API void slg_spherical_batch_init(slg_spherical_batch *batch, size_t size);

/* What a batch gives. Tensors are NULL where not wanted; they must not overlap an input or
   another. */
typedef struct slg_spherical_layer_out {
    uint32_t size;             /* sizeof(slg_spherical_layer_out), set by its _init */
    int32_t reserved;          /* 0 */
    slg_tensor *loss;          /* [rows]  f32, f64: without rho; 0 for rows without a target */
    slg_tensor *sum;           /* [rows]  f32, f64: s */
    slg_tensor *sum_squares;   /* [rows]  f32, f64: q */
    slg_tensor *target_output; /* as target, f32, f64: o; 0 where a target is not there */
    slg_tensor *dhidden;       /* [rows, dim]  f32, bf16, f16, f64: with rho; by the weights
                                               before
                                  the update */
    double value;              /* out: sum of rho loss */
    int64_t count;             /* out: rows with a target */
} slg_spherical_layer_out;

SLG_API void slg_spherical_layer_out_init(slg_spherical_layer_out *out, size_t size);

/*
 * Loss and gradient of a batch; the layer's weights stay. What an update needs is kept.
 *
 * Several targets a row, with values t: the squared error is to the sparse vector t (default 1
 * each), q - 2 sum t_j o_j + sum t_j^2, a class named twice counting as two targets; the others
 * are sum t_j loss_j, default 1 / (their number). Repeated targets across rows are allowed.
 *
 * A row without targets counts for nothing. rows = 0: nothing happens. A hidden state of zeros
 * is a row like any other.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for a target outside of [0, classes) that is not ignore_index;
 * for a hidden state, a row weight or a target value that is not finite; or where a result
 * is not finite or beyond 1e100. No output is written then, and no update is pending.
 */
SLG_API slg_status slg_spherical_layer_forward(slg_spherical_layer *layer,
                                               const slg_spherical_batch *batch,
                                               slg_spherical_layer_out *out);

/*
 * The step on the batch of the last _forward, which it uses up. lr >= 0 and finite; 0 leaves
 * the state, bit for bit. After each `period` steps the next _forward looks at the condition
 * of U, and does as _stabilise does where bounds on the singular values, kept from step
 * to step, allow one to be outside.
 *
 * Errors: SLG_ERR_STATE without a pending forward; SLG_ERR_RANGE for lr, or where the step
 * would erase a direction of W: the matrix I - 2 lr H'diag(beta)H is singular or its reciprocal
 * condition under 1e-7, or a result is not finite. The layer is as it was then, and the forward
 * still pending: a lower lr may follow. Changing the weights otherwise (decay, import) drops
 * it.
 */
SLG_API slg_status slg_spherical_layer_update(slg_spherical_layer *layer, double lr);

/* Both in one. All or nothing: where the update fails no output is written either. */
SLG_API slg_status slg_spherical_layer_step(slg_spherical_layer *layer,
                                            const slg_spherical_batch *batch, double lr,
                                            slg_spherical_layer_out *out);

/* W <- factor W, factor from 1e-3 to 1e3, in O(dim^2): weight decay. V is touched only once
   the product of all factors leaves [1e-6, 1e6]. Errors: SLG_ERR_RANGE, SLG_ERR_MEMORY. */
SLG_API slg_status slg_spherical_layer_decay(slg_spherical_layer *layer, double factor);

/*
 * Computes P anew and brings singular values of U that are outside of [low, high] (times
 * the product of decays) back to 1: O(dim^3 + classes dim) for each; W, Q and w stay. Where
 * more than dim / 3 are outside it refactorises. moved (NULL: not wanted): how many.
 * Errors: SLG_ERR_MEMORY; SLG_ERR_RANGE where U is singular: nothing has changed then.
 */
SLG_API slg_status slg_spherical_layer_stabilise(slg_spherical_layer *layer, int64_t *moved);

/* V <- V U + 1 omega', U = P = I, omega = 0; Q and w from V. classes dim^2 operations, in
   place. */
SLG_API slg_status slg_spherical_layer_refactorise(slg_spherical_layer *layer);

/*
 * Rows of W.
 *
 *   index   [n]       in   i32, i64: classes, in any order; NULL: all
 *   weight  [n, dim]  out  f32, bf16, f16, f64
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE (an index),
 * SLG_ERR_MEMORY.
 */
SLG_API slg_status slg_spherical_layer_rows(slg_spherical_layer *layer, const slg_tensor *index,
                                            slg_tensor *weight);

/*
 * Ranks: for each row the place of its target among all classes, and the k first classes.
 * Outputs are computed in float32 a block of classes at a time, no [rows, classes] matrix;
 * ordered by o, or by |o| for the log-spherical softmax.
 *
 *   hidden      [rows, dim]  in   f32, bf16, f16, f64
 *   target      [rows]       in   i32, i64; NULL: no ranks. A negative one: rank and ties 0.
 *   rank, ties  [rows]       out  i32, i64: 1 + number of classes strictly above the target;
 *                                 number of others that equal it
 *   top_index   [rows, k]    out  i32, i64: best first, the smaller class on a tie;
 *                                 k <= classes
 *   top_output  [rows, k]    out  f32, f64: their o
 *
 * All outputs may be NULL. Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_MEMORY, SLG_ERR_RANGE (a target, a hidden state or an output that is not finite).
 */
SLG_API slg_status slg_spherical_layer_rank(slg_spherical_layer *layer,
                                            const slg_tensor *hidden, const slg_tensor *target,
                                            slg_tensor *rank, slg_tensor *ties,
                                            slg_tensor *top_index, slg_tensor *top_output);

/* The parts of the state, and how it is. */
typedef struct slg_spherical_layer_info_t {
    uint32_t size;           /* in: sizeof(slg_spherical_layer_info_t), set by its _init */
    int32_t pending;         /* out: 1 where a forward waits for its update */
    slg_tensor *gram;        /* in: NULL, or [dim, dim]  f32, f64: gets Q = W'W */
    slg_tensor *column_sums; /* in: NULL, or [dim]  f32, f64: gets W'1 */
    slg_tensor *singular;    /* in: NULL, or [dim]  f32, f64: gets the singular values of U by
                                                     the
                                 product of decays, largest first: O(dim^3) */
    int64_t classes, dim;    /* out */
    int64_t steps;           /* out: updates made */
    int64_t moved;           /* out: singular values brought back so far */
    int64_t refactorised;    /* out: how often */
    double low_bound, high_bound; /* out: all singular values of U are within, as kept step by
                                     step */
    double drift; /* out: of P U x from x for a fixed x of +-1, the largest entry */
} slg_spherical_layer_info_t;

SLG_API void slg_spherical_layer_info_init(slg_spherical_layer_info_t *info, size_t size);

/* Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
   SLG_ERR_MEMORY. */
SLG_API slg_status slg_spherical_layer_info(slg_spherical_layer *layer,
                                            slg_spherical_layer_info_t *info);

/*
 * State as bytes, little-endian, with a checksum. Imported into a layer of the same classes and
 * dim, all goes on bit for bit as it would have (options are the layer's own). export: buffer
 * NULL only sets *bytes. Errors: SLG_ERR_NULL; SLG_ERR_RANGE for a capacity that is too small;
 * import: SLG_ERR_STATE for a damaged state or one of another layer: nothing has changed then.
 */
SLG_API slg_status slg_spherical_layer_export(slg_spherical_layer *layer, void *buffer,
                                              int64_t capacity, int64_t *bytes);
SLG_API slg_status slg_spherical_layer_import(slg_spherical_layer *layer, const void *buffer,
                                              int64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
