/*
 * optimizer.h - update rules for weights, behind one handle.
 */
#ifndef SOFTLOGIT_OPTIMIZER_H
#define SOFTLOGIT_OPTIMIZER_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct slg_optimizer slg_optimizer;

/* Kinds of update rules, each with its options struct. */
enum slg_optimizer_kind {
    SLG_SGD = 1,       /* slg_sgd_opts */
    SLG_ADAMW = 2,     /* slg_adamw_opts */
    SLG_OPTIMISTIC = 3 /* slg_optimistic_opts */
};

/*
 * Stochastic gradient descent with momentum, per weight, with g = grad_scale * dw:
 *
 *     w = w (1 - lr * decay)                       where decoupled
 *     g = g + decay * w                            where not
 *     v = momentum * v + (1 - dampening) * g       (v = g at the first step)
 *     w = w - lr * v           or, with nesterov,  w = w - lr * (g + momentum * v)
 */
typedef struct slg_sgd_opts {
    uint32_t size;       /* sizeof(slg_sgd_opts), set by slg_sgd_opts_init */
    int32_t nesterov;    /* default 0; 1 needs momentum > 0 and dampening 0 */
    int32_t decoupled;   /* default 0: decay enters the gradient, as in PyTorch's SGD */
    int32_t reserved;    /* 0 */
    double lr;           /* from 0 to 1e18; default 1e-3 */
    double momentum;     /* in [0, 1); default 0: no state is kept */
    double dampening;    /* in [0, 1]; default 0 */
    double weight_decay; /* from 0 to 1e18; default 0 */
} slg_sgd_opts;

SLG_API void slg_sgd_opts_init(slg_sgd_opts *opts, size_t size);

/*
 * AdamW, at step t = 1, 2, ..., with g = grad_scale * dw:
 *
 *     w = w (1 - lr * decay)             where decoupled; else g = g + decay * w (Adam)
 *     m = beta1 m + (1 - beta1) g
 *     v = beta2 v + (1 - beta2) g^2
 *     w = w - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * One pass: reads w, dw, m, v; writes w, m, v: 28 bytes a weight.
 */
typedef struct slg_adamw_opts {
    uint32_t size;       /* sizeof(slg_adamw_opts), set by slg_adamw_opts_init */
    int32_t decoupled;   /* default 1 */
    double lr;           /* from 0 to 1e18; default 1e-3 */
    double beta1, beta2; /* in [0, 1); default 0.9, 0.999 */
    double eps;          /* from 1e-30; default 1e-8 */
    double weight_decay; /* from 0 to 1e18; default 0.01 */
} slg_adamw_opts;

SLG_API void slg_adamw_opts_init(slg_adamw_opts *opts, size_t size);

/*
 * Optimistic gradient, with g_t = grad_scale * dw and g_0 = 0:
 *
 *     w = w (1 - lr * decay)                      where decoupled; else g_t = g_t + decay * w
 *     w = w - lr * (g_t + optimism * (g_t - g_{t-1}))
 *
 * With optimism 1 this is w - 2 lr g_t + lr g_{t-1}: what slg_learner (online.h) of a free
 * domain and a constant step plays, for a vector of weights. It converges where plain descent
 * turns in circles: in games, min over x, max over y.
 *
 * One pass: reads w, dw and g_{t-1}; writes w and g_t: 20 bytes a weight.
 * Paper: "Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online
 * Convex Optimization" (2023).
 */
typedef struct slg_optimistic_opts {
    uint32_t size;       /* sizeof(slg_optimistic_opts), set by slg_optimistic_opts_init */
    int32_t decoupled;   /* default 0: decay enters the gradient */
    double lr;           /* from 0 to 1e18; default 1e-3 */
    double optimism;     /* from 0 (plain descent) to 1e18; default 1 */
    double weight_decay; /* from 0 to 1e18; default 0 */
} slg_optimistic_opts;

SLG_API void slg_optimistic_opts_init(slg_optimistic_opts *opts, size_t size);

/*
 * Makes an optimizer for n weights: those of one tensor, or of several that a step takes as a
 * list. State is float32, zero at first.
 *
 *   kind  in   slg_optimizer_kind
 *   n     in   number of weights, >= 0
 *   opts  in   the kind's options struct; NULL: its defaults
 *   o     out  the handle; NULL on an error
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (kind, n, an option), SLG_ERR_OPTIONS, SLG_ERR_MEMORY.
 */
SLG_API slg_status slg_optimizer_create(slg_ctx *ctx, int32_t kind, int64_t n, const void *opts,
                                        slg_optimizer **o);

/* Frees; NULL is allowed. The context must still be there. */
SLG_API void slg_optimizer_free(slg_optimizer *o);

/*
 * One step: updates w from the gradient dw.
 *
 *   w   any shape, n elements, contiguous  in/out  f32
 *   dw  as w                               in      f32
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE. NaN in dw reaches that
 * weight and its state alone. Results do not depend on the number of threads.
 */
SLG_API slg_status slg_optimizer_step(slg_optimizer *o, slg_tensor *w, const slg_tensor *dw);

/*
 * One step over a list of tensors that together have n elements, always in the same order.
 *
 *   w, dw  [count]  arrays of pointers to tensors
 */
SLG_API slg_status slg_optimizer_step_list(slg_optimizer *o, int64_t count,
                                           slg_tensor *const *w, const slg_tensor *const *dw);

/* Learning rate of the next steps (a schedule sets it before each). Error: SLG_ERR_RANGE. */
SLG_API slg_status slg_optimizer_set_lr(slg_optimizer *o, double lr);

/* Factor on dw in the next steps; default 1: averages over accumulated batches, clips. */
SLG_API slg_status slg_optimizer_set_grad_scale(slg_optimizer *o, double scale);

/* Steps taken. */
SLG_API int64_t slg_optimizer_steps(const slg_optimizer *o);

/* Back to zero state and step 0. */
SLG_API slg_status slg_optimizer_reset(slg_optimizer *o);

/*
 * State as bytes, little-endian, with kind, n and step in front and a checksum: imported into
 * an optimizer of the same kind, n and options it continues bit for bit. Options are not
 * stored.
 *
 *   bytes   out  needed, or written, number of bytes; buffer NULL: only tells
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (capacity too small), SLG_ERR_STATE (import: not such a
 * state, of another kind or n, or damaged). The optimizer is untouched then.
 */
SLG_API slg_status slg_optimizer_export(slg_optimizer *o, void *buffer, int64_t capacity,
                                        int64_t *bytes);
SLG_API slg_status slg_optimizer_import(slg_optimizer *o, const void *buffer, int64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
