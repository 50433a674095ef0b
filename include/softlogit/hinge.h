/*
 * hinge.h - support-vector output layers: hinge losses over several classes, and the objective
 * of a layer with its regulariser.
 *
 * Paper: "An Architecture Combining Convolutional Neural Network (CNN) and Support Vector
 * Machine (SVM) for Image Classification" (2017); max-margin: Crammer and Singer (2001);
 * sum-margin: Weston and Watkins (1999).
 */
#ifndef SOFTLOGIT_HINGE_H
#define SOFTLOGIT_HINGE_H

#include "softlogit/core.h"
#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

enum slg_hinge_form {
    SLG_ONE_VS_REST = 0, /* a machine a class */
    SLG_MAX_MARGIN = 1,  /* the worst rival */
    SLG_SUM_MARGIN = 2   /* every rival */
};

/* Options of slg_hinge. */
typedef struct slg_hinge_opts {
    uint32_t size;     /* sizeof(slg_hinge_opts), set by its _init */
    int32_t form;      /* slg_hinge_form; default SLG_ONE_VS_REST */
    int32_t power;     /* 1 or 2; default 2 */
    int32_t reduction; /* slg_reduction; default SLG_MEAN */
    int32_t per_entry; /* 1: a row's loss is divided by cols, so that a mean is one over
                          entries; default 0 */
    int32_t reserved;  /* 0 */
    double margin;     /* m, finite, >= 0; default 1 */
} slg_hinge_opts;

SLG_API void slg_hinge_opts_init(slg_hinge_opts *opts, size_t size);

/*
 * Hinge losses. z: the scores (after soft-cap, mask, temperature), y: the row's class, p:
 * power, w = row_weight class_weight[y]:
 *
 *     one against the rest:  w ( max(0, m - z[y])^p + sum_{k != y} max(0, m + z[k])^p )
 *     max-margin:            w max_{k != y} max(0, m + z[k] - z[y])^p
 *     sum-margin:            w sum_{k != y} max(0, m + z[k] - z[y])^p
 *
 * Where every margin is met, loss and gradient are exactly 0; on the margin the gradient is 0
 * as well. The first of tied rivals takes the gradient of max-margin. A mean divides by the sum
 * of w, as slg_cross_entropy does. sum-margin, p = 1, per_entry is PyTorch's multi_margin_loss.
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index; row_weight, class_weight; prob and teacher NULL
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out; not NULL. out.lse must be NULL. correct counts arg-max
 *                 z = y
 *   grad     out  NULL: not wanted
 *
 * -inf: a masked class, no loss as a rival, gradient 0; at the target: loss +inf, gradient 0
 * there, the rivals' as the formula gives (in the joint forms +inf for p = 2). +inf at a
 * rival: loss +inf; at such rows the gradient is that of the formula, and infinite for p = 2.
 * NaN: loss and gradient of the row NaN. One class: the joint forms are 0. Squares are added
 * up in double where float32 overflows: out.value and an f64 out.loss are finite up to scores
 * of 3e38.
 *
 * Predict by arg-max of the scores: of their signs, as the paper's program does, all that are
 * positive tie.
 *
 * Cost: as slg_cross_entropy, without exponentials. Errors: as slg_cross_entropy; SLG_ERR_RANGE
 * for an option outside of its domain. Since 0.1.
 */
SLG_API slg_status slg_hinge(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                             const slg_hinge_opts *opts, slg_loss_out *out,
                             slg_logits_grad *grad);

/* ---- The layer's objective --------------------------------------------------------------- */

enum slg_svm_scaling {
    SLG_SVM_MEAN = 0, /* mean of W^2 + penalty * mean over rows and classes: the published
                         program */
    SLG_SVM_SUM = 1   /* |W|^2 / 2 + penalty * sum: the paper's text */
};

/* Options of slg_svm_layer. */
typedef struct slg_svm_layer_opts {
    uint32_t size;       /* sizeof(slg_svm_layer_opts), set by its _init */
    int32_t form;        /* slg_hinge_form; default SLG_ONE_VS_REST */
    int32_t power;       /* 1 or 2; default 2 */
    int32_t scaling;     /* slg_svm_scaling; default SLG_SVM_MEAN */
    int32_t outer_decay; /* 1: the regulariser's gradient is left out of dweight, and to the
                            optimizer: SLG_SGD or SLG_ADAMW with decoupled = 0 and
                            weight_decay = slg_svm_decay(scaling, classes, dim); default 0 */
    int32_t reserved;    /* 0 */
    double margin;       /* finite, >= 0; default 1 */
    double penalty;      /* C, finite, >= 0; default 1 */
} slg_svm_layer_opts;

SLG_API void slg_svm_layer_opts_init(slg_svm_layer_opts *opts, size_t size);

/* What multiplies W in the regulariser's gradient: 2 / (classes dim), or 1; 0 where there is no
   W. */
SLG_API double slg_svm_decay(int32_t scaling, int64_t classes, int64_t dim);

/*
 * Objective of an output layer z = hidden weight' + bias:
 *
 *     SLG_SVM_MEAN  mean of weight^2 + penalty * mean over rows and classes of slg_hinge's
 *                   terms
 *     SLG_SVM_SUM   |weight|^2 / 2   + penalty * sum  over rows and classes
 *
 * The weights alone are regularised, not the bias, not what made hidden.
 *
 *   logits   in   an output layer: hidden, weight, bias; no dense
 *   targets  in   as slg_hinge
 *   opts     in   NULL: the defaults
 *   out      out  value: the objective. The rest is of the hinge part: rows' losses (times
 *                 penalty, and divided by the classes with SLG_SVM_MEAN), their sum, weight,
 *                 count, correct
 *   grad     out  dhidden, dweight, dbias; with SLG_ACCUMULATE_WEIGHTS the regulariser's share
 *                 is added too
 *
 * No rows: the regulariser alone. Edge cases, cost and errors as slg_hinge, and one read
 * of weight (and of dweight). SLG_ERR_NULL where logits have no hidden. Since 0.1.
 */
SLG_API slg_status slg_svm_layer(slg_ctx *ctx, const slg_logits *logits,
                                 const slg_targets *targets, const slg_svm_layer_opts *opts,
                                 slg_loss_out *out, slg_logits_grad *grad);

#ifdef __cplusplus
}
#endif

#endif
