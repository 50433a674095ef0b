/*
 * optimizer.h - update rules for weights, behind one handle: a chain of transformations of the
 * gradient, a rule, and its state.
 */
#ifndef SOFTLOGIT_OPTIMIZER_H
#define SOFTLOGIT_OPTIMIZER_H

#include "softlogit/core.h"
#include "softlogit/gradient.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct slg_optimizer slg_optimizer;

/* Kinds of update rules, each with its options struct. */
enum slg_optimizer_kind {
    SLG_SGD = 1,        /* slg_sgd_opts */
    SLG_ADAMW = 2,      /* slg_adamw_opts: Adam, AdamW, AMSGrad */
    SLG_OPTIMISTIC = 3, /* slg_optimistic_opts */
    SLG_NADAM = 4,      /* slg_nadam_opts */
    SLG_RMSPROP = 5,    /* slg_rmsprop_opts */
    SLG_LION = 6,       /* slg_lion_opts */
    SLG_EGD = 7,        /* slg_egd_opts */
    SLG_ADAFACTOR = 8   /* slg_adafactor_opts */
};

/*
 * In the formulas below g is the gradient as the chain leaves it, of grad_scale * dw where
 * there is none, and w (1 - lr * decay) is decoupled weight decay.
 */

/*
 * Stochastic gradient descent with momentum, per weight:
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
 * AdamW, at step t = 1, 2, ...:
 *
 *     w = w (1 - lr * decay)             where decoupled; else g = g + decay * w (Adam)
 *     m = beta1 m + (1 - beta1) g
 *     v = beta2 v + (1 - beta2) g^2
 *     w = w - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * With amsgrad the largest v so far stands in the root.
 *
 * One pass: reads w, dw, m, v; writes w, m, v: 28 bytes a weight; AMSGrad 36.
 */
typedef struct slg_adamw_opts {
    uint32_t size;       /* sizeof(slg_adamw_opts), set by slg_adamw_opts_init */
    int32_t decoupled;   /* default 1 */
    int32_t amsgrad;     /* default 0 */
    int32_t reserved;    /* 0 */
    double lr;           /* from 0 to 1e18; default 1e-3 */
    double beta1, beta2; /* in [0, 1); default 0.9, 0.999 */
    double eps;          /* from 1e-30; default 1e-8 */
    double weight_decay; /* from 0 to 1e18; default 0.01 */
} slg_adamw_opts;

SLG_API void slg_adamw_opts_init(slg_adamw_opts *opts, size_t size);

/*
 * Optimistic gradient, g_t that of step t, g_0 = 0:
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
 * Adam with Nesterov's momentum, as torch.optim.NAdam documents it (1.13 has mu_t twice in
 * M_{t+1}): m, v as in Adam,
 *
 *     mu_t = beta1 (1 - 0.96^(t * momentum_decay) / 2),   M_t = mu_1 ... mu_t
 *     w = w - lr ( (1 - mu_t) / (1 - M_t) g  +  mu_{t+1} / (1 - M_{t+1}) m )
 *                / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * One pass, 28 bytes a weight.
 */
typedef struct slg_nadam_opts {
    uint32_t size;         /* sizeof(slg_nadam_opts), set by slg_nadam_opts_init */
    int32_t decoupled;     /* default 0: decay enters the gradient, as in PyTorch */
    double lr;             /* from 0 to 1e18; default 2e-3 */
    double beta1, beta2;   /* in [0, 1); default 0.9, 0.999 */
    double eps;            /* from 1e-30; default 1e-8 */
    double weight_decay;   /* from 0 to 1e18; default 0 */
    double momentum_decay; /* from 0 to 1e18; default 4e-3 */
} slg_nadam_opts;

SLG_API void slg_nadam_opts_init(slg_nadam_opts *opts, size_t size);

/*
 * RMSprop, as torch.optim.RMSprop:
 *
 *     v = alpha v + (1 - alpha) g^2
 *     c = alpha c + (1 - alpha) g                where centered; else c = 0
 *     b = momentum * b + g / (sqrt(v - c^2) + eps)
 *     w = w - lr * b
 *
 * v - c^2 below 0, by rounding, counts as 0. State: v, c where centered, b where momentum > 0.
 * One pass, 20 to 36 bytes a weight.
 */
typedef struct slg_rmsprop_opts {
    uint32_t size;       /* sizeof(slg_rmsprop_opts), set by slg_rmsprop_opts_init */
    int32_t centered;    /* default 0 */
    int32_t decoupled;   /* default 0: decay enters the gradient, as in PyTorch */
    int32_t reserved;    /* 0 */
    double lr;           /* from 0 to 1e18; default 1e-2 */
    double alpha;        /* in [0, 1); default 0.99 */
    double eps;          /* from 1e-30; default 1e-8 */
    double momentum;     /* in [0, 1); default 0 */
    double weight_decay; /* from 0 to 1e18; default 0 */
} slg_rmsprop_opts;

SLG_API void slg_rmsprop_opts_init(slg_rmsprop_opts *opts, size_t size);

/*
 * Lion: the sign of an average of gradients, so every weight moves by lr.
 *
 *     w = w (1 - lr * decay) - lr * sign(beta1 m + (1 - beta1) g)     (sign(0) = 0)
 *     m = beta2 m + (1 - beta2) g
 *
 * lr is 3 to 10 times smaller than AdamW's, decay as much larger. One pass, 20 bytes a weight.
 */
typedef struct slg_lion_opts {
    uint32_t size;       /* sizeof(slg_lion_opts), set by slg_lion_opts_init */
    int32_t decoupled;   /* default 1 */
    double lr;           /* from 0 to 1e18; default 1e-4 */
    double beta1, beta2; /* in [0, 1); default 0.9, 0.99 */
    double weight_decay; /* from 0 to 1e18; default 0 */
} slg_lion_opts;

SLG_API void slg_lion_opts_init(slg_lion_opts *opts, size_t size);

/*
 * Exponentiated gradient descent: multiplicative, so no weight changes its sign (Dale's law)
 * and 0 stays 0.
 *
 *     e = momentum * e - lr * g * sign(w)
 *     w = w (1 - lr * decay) exp(e)
 *     |w| = min(cap, max(floor, |w|))            where w is not 0
 *
 * |e| counts as at most 174 in one step. A weight that overflows is infinite, and NaN from the
 * next step on, unless cap prevents it; one that underflows is 0. Of weights that are positive
 * and are normalised to sum 1 after each step this is the exponentiated gradient of mirror
 * descent with entropy (online.h). lr * decay past 1 counts as 1. State: e where momentum > 0.
 *
 * One pass, 12 bytes a weight; 20 with momentum.
 * Paper: "Dale meets Langevin: A Multiplicative Denoising Diffusion Model" (2025).
 */
typedef struct slg_egd_opts {
    uint32_t size;       /* sizeof(slg_egd_opts), set by slg_egd_opts_init */
    int32_t reserved;    /* 0 */
    double lr;           /* from 0 to 1e18; default 1e-3 */
    double momentum;     /* in [0, 1); default 0 */
    double floor;        /* from 0; default 0 */
    double cap;          /* from floor; default INFINITY */
    double weight_decay; /* from 0 to 1e18; default 0 */
} slg_egd_opts;

SLG_API void slg_egd_opts_init(slg_egd_opts *opts, size_t size);

/*
 * Adafactor: Adam whose second moments v of a matrix [rows, cols] are kept as rows + cols
 * numbers, and steps in proportion to the weights. At step t = 1, 2, ..., for each tensor, its
 * last dimension the columns, those before it together the rows:
 *
 *     b = 1 - t^-decay_rate
 *     R_i = b R_i + (1 - b) mean over j (g_ij^2 + eps1)
 *     C_j = b C_j + (1 - b) mean over i (g_ij^2 + eps1)
 *     v_ij = R_i C_j / mean(R)
 *     u = g / sqrt(v)
 *     u = u / max(1, RMS(u) / clip_threshold)
 *     m = beta1 m + (1 - beta1) u                     where beta1 > 0; else m = u
 *     a = lr          or, with relative_step,         a = min(lr, 1 / sqrt(t))
 *     a = a max(eps2, RMS(w))                         where scale_parameter
 *     w = w (1 - a decay) - a m
 *
 * RMS: the root of the mean of squares, of a tensor. A vector, and what has one row or one
 * column, keeps v = b v + (1 - b) (g^2 + eps1) whole. Only slg_optimizer_create_list tells
 * shapes: of slg_optimizer_create each tensor of a step is a vector.
 *
 * It is Hugging Face's Adafactor but for beta1 > 0 with a rate that changes, as that averages a
 * u; its warmup_init is a schedule's affair (schedule.h). A group's lr_scale is a factor on a.
 *
 * A NaN in dw makes its whole tensor NaN, by mean(R) and RMS(u), and R and C of its row and
 * column until a reset; SLG_SKIP_NONFINITE prevents both. Other tensors are not touched. |g|
 * must be below 1e19, or its square is infinite in float32.
 *
 * State: R, C and v in float32, whatever the setup says; m where beta1 > 0. Three passes, 24
 * bytes a weight, 8 more for m; 4 fewer where RMS(w) is not wanted, or RMS(u), clip_threshold
 * being INFINITY. A chain costs 4 more, and its own.
 * Paper: "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost" (2018). Since 0.1.
 */
typedef struct slg_adafactor_opts {
    uint32_t size;           /* sizeof(slg_adafactor_opts), set by slg_adafactor_opts_init */
    int32_t relative_step;   /* default 1 */
    int32_t scale_parameter; /* default 1 */
    int32_t reserved;        /* 0 */
    double lr;               /* from 0 to 1e18; default 1e-2 */
    double beta1;            /* in [0, 1); default 0: no first moment is kept */
    double decay_rate;       /* from 0 to 1; default 0.8 */
    double eps1;             /* from 1e-30; default 1e-30 */
    double eps2;             /* from 0; default 1e-3 */
    double clip_threshold;   /* from 1e-30; INFINITY: not clipped; default 1 */
    double weight_decay;     /* from 0 to 1e18; default 0 */
} slg_adafactor_opts;

SLG_API void slg_adafactor_opts_init(slg_adafactor_opts *opts, size_t size);

/* ---- The handle ------------------------------------------------------------------------- */

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

/* What is the same for every kind. */
typedef struct slg_optimizer_setup {
    uint32_t size;       /* sizeof(slg_optimizer_setup), set by slg_optimizer_setup_init */
    int32_t state_dtype; /* SLG_F32 (default), or SLG_BF16: half the memory; see below */
    uint64_t seed;       /* of the rounding of bf16 state; default 0 */
} slg_optimizer_setup;

SLG_API void slg_optimizer_setup_init(slg_optimizer_setup *setup, size_t size);

/*
 * The same, with a setup (NULL: the defaults). State in bf16 is rounded at random, up or down
 * with the probability that makes the mean right: rounded to nearest, averages with a beta near
 * 1 would stand still. The random bits are a hash of seed, step and the weight's number, so
 * results are the same on any number of threads and after an import. AdamW moves 20 bytes a
 * weight then. Since 0.1.
 */
SLG_API slg_status slg_optimizer_create_with(slg_ctx *ctx, int32_t kind, int64_t n,
                                             const void *opts, const slg_optimizer_setup *setup,
                                             slg_optimizer **o);

/*
 * The same for a list of tensors whose shapes are told: SLG_ADAFACTOR keeps less for matrices
 * then. Each step must have these tensors, in this order.
 *
 *   w     [count]  in   pointers to float32 tensors of 1 to 4 dimensions; only shapes are read,
 *                       data may be NULL, strides do not matter
 *
 * Errors: also SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE of w, SLG_ERR_RANGE of count. Since
 * 0.1.
 */
SLG_API slg_status slg_optimizer_create_list(slg_ctx *ctx, int32_t kind, int64_t count,
                                             const slg_tensor *const *w, const void *opts,
                                             const slg_optimizer_setup *setup,
                                             slg_optimizer **o);

/* Frees; NULL is allowed. The context must still be there. */
SLG_API void slg_optimizer_free(slg_optimizer *o);

/*
 * One step: updates w from the gradient dw.
 *
 *   w   any shape, n elements, contiguous  in/out  f32
 *   dw  as w                               in      f32
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE (not contiguous, or w and
 * dw overlap), SLG_ERR_MEMORY (scratch); nothing has changed then. NaN in dw reaches that
 * weight and its state alone, but for Adafactor. Results do not depend on the number of
 * threads.
 */
SLG_API slg_status slg_optimizer_step(slg_optimizer *o, slg_tensor *w, const slg_tensor *dw);

/*
 * One step over a list of tensors that together have n elements, always in the same order.
 *
 *   w, dw  [count]  arrays of pointers to tensors
 *
 * Also SLG_ERR_MEMORY, with nothing changed: a step takes scratch of the context, none from the
 * second step of a shape on.
 */
SLG_API slg_status slg_optimizer_step_list(slg_optimizer *o, int64_t count,
                                           slg_tensor *const *w, const slg_tensor *const *dw);

/*
 * Sets the chain of transformations (gradient.h) that the next steps apply to the gradient, in
 * this order, before the rule; at first there is none, and count 0 takes it away. grad_scale
 * comes first, decay that enters the gradient last.
 *
 *   links  [count]  count at most 8, one SLG_CLIP_VALUE among them
 *
 * What a norm or a projection makes of the gradient g is a g + b w, so the update applies the
 * whole chain on its way: it costs one more read of w and dw (8 bytes a weight), and a second
 * one where a norm or a projection comes after SLG_CLIP_VALUE. Norms are over all tensors of
 * the step but frozen ones. Gradients stay as they are.
 * SLG_PERPENDICULAR leaves tensors with a NaN or an infinity alone, and those whose weights are
 * 1e38 times smaller than what is to be removed. Errors: SLG_ERR_NULL, SLG_ERR_RANGE,
 * SLG_ERR_OPTIONS; the chain stays as it was. Since 0.1.
 */
SLG_API slg_status slg_optimizer_set_chain(slg_optimizer *o, int64_t count,
                                           const slg_transform *links);

/* How a group of tensors differs from the others. */
typedef struct slg_param_group {
    uint32_t size;         /* sizeof(slg_param_group), set by slg_param_group_init */
    int32_t frozen;        /* default 0; 1: left alone, and no part of a norm */
    int32_t perpendicular; /* default 1; 0: SLG_PERPENDICULAR passes it over */
    int32_t reserved;      /* 0 */
    double lr_scale;       /* factor on lr, from 0 to 1e18; default 1 */
    double decay_scale;    /* factor on weight_decay; default 1. 0 for biases and norms */
} slg_param_group;

SLG_API void slg_param_group_init(slg_param_group *group, size_t size);

/*
 * Puts tensors first, first + 1, ..., first + count - 1 of the lists of the next steps into
 * a group; slg_optimizer_step's tensor is number 0. A later call wins. Tensors in no group are
 * as slg_param_group_init says.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (first, count, a field), SLG_ERR_OPTIONS, SLG_ERR_MEMORY;
 * groups stay as they were. Since 0.1.
 */
SLG_API slg_status slg_optimizer_set_group(slg_optimizer *o, int64_t first, int64_t count,
                                           const slg_param_group *group);

/* Learning rate of the next steps (a schedule, schedule.h, sets it before each). Error:
   SLG_ERR_RANGE. */
SLG_API slg_status slg_optimizer_set_lr(slg_optimizer *o, double lr);

/* Factor on dw in the next steps, finite in float32; default 1: averages over accumulated
   batches. Error: SLG_ERR_RANGE. */
SLG_API slg_status slg_optimizer_set_grad_scale(slg_optimizer *o, double scale);

/* What the chain saw and did in the last step. */
typedef struct slg_optimizer_report {
    uint32_t size;      /* sizeof(slg_optimizer_report), set by the init function */
    int32_t skipped;    /* 1: SLG_SKIP_NONFINITE prevented the step; it does not count */
    int64_t nonfinite;  /* tensors that SLG_SKIP_NONFINITE or SLG_PERPENDICULAR found to hold
                           a NaN or an infinity */
    int64_t zeroed;     /* tensors whose gradient SLG_PERPENDICULAR made 0 */
    double grad_norm;   /* before the first SLG_CLIP_NORM; -1 where there is none */
    double clip_factor; /* of that; 1 if it did not clip */
} slg_optimizer_report;

SLG_API void slg_optimizer_report_init(slg_optimizer_report *report, size_t size);

/* Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS. Before the first step: as after an empty chain. Since
   0.1. */
SLG_API slg_status slg_optimizer_last_step(const slg_optimizer *o,
                                           slg_optimizer_report *report);

/* Steps taken. */
SLG_API int64_t slg_optimizer_steps(const slg_optimizer *o);

/* Back to zero state and step 0; rate, chain and groups stay. */
SLG_API slg_status slg_optimizer_reset(slg_optimizer *o);

/*
 * State as bytes, little-endian, with kind, n, dtype and step in front and a checksum: imported
 * into an optimizer of the same kind, n, setup and options, for Adafactor also shapes of
 * matrices, it continues bit for bit. Options, rate, chain and groups are not stored.
 *
 *   bytes   out  needed, or written, number of bytes; buffer NULL: only tells
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (capacity too small), SLG_ERR_STATE (import: not such a
 * state, of another kind, n, dtype or other matrices, or damaged). The optimizer is untouched
 * then.
 */
SLG_API slg_status slg_optimizer_export(slg_optimizer *o, void *buffer, int64_t capacity,
                                        int64_t *bytes);
SLG_API slg_status slg_optimizer_import(slg_optimizer *o, const void *buffer, int64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
