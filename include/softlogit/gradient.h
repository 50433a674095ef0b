/*
 * gradient.h - transformations of gradients: as functions that work in place, and as a chain
 * that an optimizer (optimizer.h) applies on the way, without a pass of its own.
 */
#ifndef SOFTLOGIT_GRADIENT_H
#define SOFTLOGIT_GRADIENT_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Functions -------------------------------------------------------------------------- */

/*
 * Perpendicular gradient: removes the gradient's component along the weights, which for
 * a network homogeneous in them only scales its logits. For a tensor and its gradient, both
 * as one vector:
 *
 *     o = g - (w.g) / (w.w) w,      g = o, or with rescale  g = o |g| / |o|
 *
 * Sums in double, so entries of 1e20 and of 1e-25 do no harm. w = 0 leaves g; g = 0 stays 0.
 * g (almost) parallel to w, |o| <= threshold |g|: g becomes 0, and not rounding noise blown up
 * to full length; a tensor of one element always is so. If w or g holds a NaN or an infinity,
 * g is left as it is and the cosine is NaN.
 * Stateless: composes with every optimizer. Momenta bring a component along w back in.
 *
 * Paper: "Grokking at the Edge of Numerical Stability" (2025).
 */
typedef struct slg_perpendicular_opts {
    uint32_t size;        /* sizeof(slg_perpendicular_opts), set by the init function */
    int32_t rescale;      /* default 1: keeps the length of g; 0: the plain projection */
    int32_t skip_scalars; /* default 0; 1 leaves tensors of one element alone */
    int32_t reserved;     /* 0 */
    double threshold;     /* in [0, 1]; default 1e-6 */
} slg_perpendicular_opts;

SLG_API void slg_perpendicular_opts_init(slg_perpendicular_opts *opts, size_t size);

/*
 *   w       any shape, contiguous   in      f32
 *   g       as w                    in/out  f32; must not overlap w
 *   opts                            in      NULL: the defaults
 *   cosine                          out     w.g / (|w| |g|) of g as it was; 0 if w or g is 0;
 *                                           NULL: not wanted
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_DTYPE, SLG_ERR_SHAPE, SLG_ERR_STRIDE (not contiguous,
 * overlap), SLG_ERR_RANGE and SLG_ERR_OPTIONS (opts), SLG_ERR_MEMORY. Results do not depend on
 * the number of threads. Two passes. Since 0.1.
 */
SLG_API slg_status slg_perpendicular_gradient(slg_ctx *ctx, const slg_tensor *w, slg_tensor *g,
                                              const slg_perpendicular_opts *opts,
                                              double *cosine);

/* The same for each of a list of tensors; cosine [count] or NULL. No gradient is touched if one
   of them is refused. Since 0.1. */
SLG_API slg_status slg_perpendicular_gradient_list(slg_ctx *ctx, int64_t count,
                                                   const slg_tensor *const *w,
                                                   slg_tensor *const *g,
                                                   const slg_perpendicular_opts *opts,
                                                   double *cosine);

/*
 * Clips a list of gradients by their common norm, as PyTorch's clip_grad_norm_:
 *
 *     norm = sqrt(sum over all of g^2),      g = g min(1, max_norm / (norm + 1e-6))
 *
 *   g         [count] tensors, contiguous  in/out  f32
 *   max_norm  >= 0 and finite
 *   norm                                   out     of g as they were; NULL: not wanted
 *
 * A norm that is NaN or infinite leaves the gradients as they are: look at it. Sums in double.
 * Errors: as slg_perpendicular_gradient. Since 0.1.
 */
SLG_API slg_status slg_clip_grad_norm(slg_ctx *ctx, int64_t count, slg_tensor *const *g,
                                      double max_norm, double *norm);

/* Clips each element to [-limit, limit], limit >= 0; NaN stays. Since 0.1. */
SLG_API slg_status slg_clip_grad_value(slg_ctx *ctx, int64_t count, slg_tensor *const *g,
                                       double limit);

/* ---- A chain ---------------------------------------------------------------------------- */

enum slg_transform_kind {
    SLG_CLIP_NORM = 1,     /* value: max_norm, over all tensors of the step that take part */
    SLG_CLIP_VALUE = 2,    /* value: limit; at most one in a chain */
    SLG_PERPENDICULAR = 3, /* value: threshold; each tensor by itself */
    SLG_SKIP_NONFINITE = 4 /* no step at all if a gradient holds a NaN or an infinity */
};

/* A link of a chain; make it with slg_transform_of. */
typedef struct slg_transform {
    int32_t kind;         /* slg_transform_kind */
    int32_t rescale;      /* SLG_PERPENDICULAR: as in slg_perpendicular_opts; else 0 */
    int32_t skip_scalars; /* SLG_PERPENDICULAR; else 0 */
    int32_t reserved;     /* 0 */
    double value;
} slg_transform;

/* A link with its value; SLG_PERPENDICULAR with rescale, its usual threshold being 1e-6. */
static inline slg_transform slg_transform_of(int32_t kind, double value)
{
    slg_transform t = { kind, kind == SLG_PERPENDICULAR, 0, 0, value };
    return t;
}

#ifdef __cplusplus
}
#endif

#endif
