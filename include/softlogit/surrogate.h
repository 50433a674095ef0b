/*
 * surrogate.h - losses whose gradient in the targets (logits, predictions) is expensive, while
 * the model's own forward and backward are cheap: one expensive call makes a surrogate in the
 * target space, and many cheap steps of the parameters minimise it.
 *
 * Targets are a matrix Z = f(w) of n rows and m columns, the loss is the sum over rows l(Z),
 * G = dl/dZ at Z_t = f(w_t). The surrogate is
 *
 *     S(Z) = <G, Z - Z_t> + D(Z, Z_t) / eta
 *     SLG_SURROGATE_SQUARED   D = |Z - Z_t|^2 / 2                         dD/dZ = Z - Z_t
 *     SLG_SURROGATE_KL        D = sum_i KL(softmax(z_ti) || softmax(z_i))   softmax(Z) -
 *                                                                         softmax(Z_t)
 *
 * Where l is L-smooth (in the second: relative to the log-sum-exp) and eta <= 1 / L, l(Z) <=
 * l(Z_t) + S(Z) for all Z. L is 1, 1/4 and 1/2 for squared error, logistic loss and softmax
 * cross-entropy; for the last and KL it is 1, and with eta = 1 the two sides are equal.
 *
 * Paper: "Target-based Surrogates for Stochastic Optimization" (2023). KL is a variant of its
 * official code.
 */
#ifndef SOFTLOGIT_SURROGATE_H
#define SOFTLOGIT_SURROGATE_H

#include "softlogit/core.h"
#include "softlogit/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Surrogate -------------------------------------------------------------------------- */

enum slg_surrogate_kind { SLG_SURROGATE_SQUARED = 0, SLG_SURROGATE_KL = 1 };

/* Options of slg_surrogate. */
typedef struct slg_surrogate_opts {
    uint32_t size; /* sizeof(slg_surrogate_opts), set by slg_surrogate_opts_init */
    int32_t kind;  /* slg_surrogate_kind; default SLG_SURROGATE_SQUARED */
    double eta;    /* > 0, +inf: the linear term alone; default 1 */
} slg_surrogate_opts;

SLG_API void slg_surrogate_opts_init(slg_surrogate_opts *opts, size_t size);

typedef struct slg_surrogate_out {
    uint32_t size;          /* in: sizeof(slg_surrogate_out), set by slg_surrogate_out_init */
    int32_t reserved;       /* 0 */
    slg_tensor *row_values; /* in: [n] f32, f64, written: S of each row; NULL: not wanted */
    double value;           /* out: S(Z); so the next ones */
    double linear;          /* <G, Z - Z_t> */
    double divergence;      /* D(Z, Z_t) */
    double gradient_norm;   /* |G| */
    double move_norm;       /* |Z - Z_t| */
} slg_surrogate_out;

SLG_API void slg_surrogate_out_init(slg_surrogate_out *out, size_t size);

/*
 * Value and gradient of a surrogate, and the norms that schedules need.
 *
 *   g         [n, m]  in   f32, bf16, f16: G; so the next three
 *   target_t  [n, m]  in   Z_t
 *   target    [n, m]  in   Z
 *   opts              in   NULL: the defaults
 *   grad      [n, m]  out  G + (dD/dZ) / eta; NULL: not wanted; may be g or target itself
 *   out               out  may be NULL
 *
 * A pair of equal infinities has the difference 0, so masked classes cost nothing. G = 0 adds
 * nothing to the linear term, however far Z is. NaN stays in its row. Z = Z_t: S is exactly 0
 * and the gradient is G. In KL a class masked in Z alone makes its row's D infinite and its
 * gradient G; a row with every class masked on one side alone is NaN.
 *
 * Cost: one pass, 3 reads and 1 write, sums in double; KL: two, in the cache. Workspace 32
 * bytes for each 2^15 elements, or each row where operands are not contiguous. The same bits
 * for any number of threads.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for kind or eta. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_surrogate(slg_ctx *ctx, const slg_tensor *g, const slg_tensor *target_t,
                                 const slg_tensor *target, const slg_surrogate_opts *opts,
                                 slg_tensor *grad, slg_surrogate_out *out);

/* ---- Losses of targets ------------------------------------------------------------------ */

/* The built-in losses, each a sum over rows. */
enum slg_target_loss_kind {
    SLG_TARGET_SQUARED = 0,  /* |z - y|^2 / 2; data [n, m]: y */
    SLG_TARGET_LOGISTIC = 1, /* sum log(1 + exp(-y z)); data [n, m]: y, -1 or 1 */
    SLG_TARGET_SOFTMAX = 2   /* logsumexp(z) - z[y]; data [n]: y, from 0 below m */
};

/*
 * Loss of targets and its gradient.
 *
 *   kind            in   slg_target_loss_kind
 *   target  [n, m]  in   f32, bf16, f16: Z
 *   data            in   as said at the kind: f32, bf16, f16, for signs i32, i64 too; labels
 *                        i32, i64
 *   value           out  the sum over rows; may be NULL
 *   grad    [n, m]  out  f32, bf16, f16: G; NULL: not wanted; may be target itself
 *
 * No rows: 0. One class: 0, G = 0. Softmax: a logit of -inf is a masked class, its gradient 0;
 * a label's makes the loss +inf; NaN or +inf makes NaN of the row. At a confident target p - 1
 * keeps its relative precision.
 *
 * Cost: one pass; softmax: two, in the cache. Data are checked before: O(n), signs O(n m).
 *
 * Errors: as slg_surrogate; SLG_ERR_RANGE for kind, a sign that is neither -1 nor 1, a label
 * that is no class. Since 0.1.
 */
SLG_API slg_status slg_target_loss(slg_ctx *ctx, int32_t kind, const slg_tensor *target,
                                   const slg_tensor *data, double *value, slg_tensor *grad);

/* Options of searches by Armijo's condition, in the target space and for the parameters. */
typedef struct slg_armijo_opts {
    uint32_t size;      /* sizeof(slg_armijo_opts), set by slg_armijo_opts_init */
    int32_t max_trials; /* from 1 to 1000; default 100 */
    double c;           /* in (0, 1); default 0.5 */
    double expand;      /* >= 1: the first trial is expand times the last step; default 1.8 */
    double shrink;      /* in (0, 1); default 0.9 */
    double step_min;    /* > 0; default 1e-4; inner searches 1e-6 */
    double step_max;    /* >= step_min, finite; default 1e4; inner searches 1e6 */
} slg_armijo_opts;

SLG_API void slg_armijo_opts_init(slg_armijo_opts *opts, size_t size);

/* The same with what is default for inner searches. */
SLG_API void slg_armijo_opts_init_inner(slg_armijo_opts *opts, size_t size);

enum slg_search_reason {
    SLG_SEARCH_ACCEPTED = 0,
    SLG_SEARCH_EXHAUSTED = 1, /* no trial was: the step is the smallest one */
    SLG_SEARCH_NOT_FINITE = 2 /* the loss at Z, or |G|, is not finite: no trial was made */
};

typedef struct slg_target_search_out {
    uint32_t size;  /* in: sizeof(slg_target_search_out), set by the caller; the rest is out */
    int32_t reason; /* slg_search_reason */
    int64_t trials;
    double step;    /* in [step_min, step_max] */
    double loss;    /* at the last trial */
    double loss_at; /* at Z */
} slg_target_search_out;

/*
 * Armijo's search in the target space: s = expand * step; while
 *
 *     l(Z - s G) > l(Z) - c s |G|^2,    s = shrink s
 *
 * then s is brought into [step_min, step_max], so the loss of the step taken may be another
 * than that of the last trial. Z - s G is made block by block: no n x m workspace.
 *
 *   kind            in   slg_target_loss_kind
 *   target, data    in   as slg_target_loss
 *   g       [n, m]  in   f32, bf16, f16: G
 *   step            in   > 0, finite: the last search's
 *   opts            in   NULL: the defaults
 *   out             out
 *
 * G = 0 is accepted at once. A trial whose loss is not finite fails.
 *
 * Cost: a pass over Z, G and data a trial, and one at Z.
 *
 * Errors: as slg_target_loss; SLG_ERR_RANGE for step or an option. Since 0.1.
 */
SLG_API slg_status slg_target_search(slg_ctx *ctx, int32_t kind, const slg_tensor *target,
                                     const slg_tensor *data, const slg_tensor *g, double step,
                                     const slg_armijo_opts *opts, slg_target_search_out *out);

/* ---- Models and oracles ----------------------------------------------------------------- */

/*
 * Z = f(w) for some rows of the data: callbacks on the caller's thread, which may use any
 * context, the driver's too. Each returns 0, or a code that ends the step and is handed on.
 *
 *   begin     NULL: none. Says which rows the following calls are about: count indices, which
 *             stay where they are until the next begin. count = rows: they are 0, 1, ..
 *   forward   z [count, targets] = f(w)
 *   backward  dw [dim] = J(w)' dz, at the w of the call; dz [count, targets] is not to be kept
 *   tangent   NULL, or for a model that is linear in w: dz = J dw. Line searches need no
 *             forward then: S along a line is known from one product.
 *   free      NULL, or frees user; slg_target_model_free calls it.
 */
typedef struct slg_target_model {
    uint32_t size;    /* sizeof(slg_target_model), set by slg_target_model_init */
    int32_t reserved; /* 0 */
    int64_t rows, targets, dim;
    void *user;
    slg_status (*begin)(void *user, int64_t count, const int64_t *rows);
    slg_status (*forward)(void *user, const float *w, float *z);
    slg_status (*backward)(void *user, const float *w, const float *dz, float *dw);
    slg_status (*tangent)(void *user, const float *dw, float *dz);
    void (*free)(void *user);
} slg_target_model;

SLG_API void slg_target_model_init(slg_target_model *model, size_t size);

/* Frees what a built-in model holds and makes it empty. NULL is allowed. The context that made
   it must still be there. */
SLG_API void slg_target_model_free(slg_target_model *model);

/*
 * The expensive part: loss and gradient of targets.
 *
 *   smoothness  L for each slg_surrogate_kind, of which eta's default is the inverse; 0:
 *               unknown
 *   begin       as a model's
 *   evaluate    *loss = l(z), summed over rows, and g [count, targets] its gradient
 *   shifted     NULL, or *loss = l(z - s g): what SLG_ETA_SEARCH needs
 */
typedef struct slg_target_oracle {
    uint32_t size;    /* sizeof(slg_target_oracle), set by slg_target_oracle_init */
    int32_t reserved; /* 0 */
    int64_t rows, targets;
    double smoothness[2];
    void *user;
    slg_status (*begin)(void *user, int64_t count, const int64_t *rows);
    slg_status (*evaluate)(void *user, const float *z, double *loss, float *g);
    slg_status (*shifted)(void *user, const float *z, const float *g, double s, double *loss);
    void (*free)(void *user);
} slg_target_oracle;

SLG_API void slg_target_oracle_init(slg_target_oracle *oracle, size_t size);
SLG_API void slg_target_oracle_free(slg_target_oracle *oracle);

/*
 * The linear model Z = X W, W [d, targets] row by row. Two products a step of a line search, a
 * fixed step or conjugate gradients.
 *
 *   x        in   [n, d]  f32, bf16, f16; not copied, must outlive the model
 *   targets  in   >= 1
 *   model    out  its dim is d * targets
 *
 * Memory: 4 d bytes a row of the largest batch; none for all rows of a float32 matrix whose
 * columns are contiguous. Products are in float32.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_OPTIONS (model->size),
 * SLG_ERR_MEMORY, SLG_ERR_RANGE (targets); *model is untouched then. Since 0.1.
 */
SLG_API slg_status slg_linear_model(slg_ctx *ctx, const slg_tensor *x, int64_t targets,
                                    slg_target_model *model);

/*
 * A built-in loss as an oracle.
 *
 *   kind     in   slg_target_loss_kind
 *   data     in   as slg_target_loss; not copied, must outlive the oracle
 *   targets  in   m >= 1: classes, or columns of data
 *   oracle   out
 *
 * Memory: the data of the largest batch.
 *
 * Errors: as slg_linear_model; SLG_ERR_RANGE for kind or data, which are checked here. Since
 * 0.1.
 */
SLG_API slg_status slg_loss_oracle(slg_ctx *ctx, int32_t kind, const slg_tensor *data,
                                   int64_t targets, slg_target_oracle *oracle);

/* ---- Driver ----------------------------------------------------------------------------- */

typedef struct slg_sso slg_sso;

/* eta_t at step t = 0, 1, .. */
enum slg_eta_schedule {
    SLG_ETA_CONSTANT = 0,
    SLG_ETA_ROOT = 1,        /* eta / sqrt(t + 1): without interpolation */
    SLG_ETA_EXPONENTIAL = 2, /* eta (1 / T)^((t + 1) / T), T = total_steps */
    SLG_ETA_ADAGRAD = 3,     /* eta / (sqrt(sum over steps of |G|^2) + 1e-6) */
    SLG_ETA_SEARCH = 4       /* as slg_target_search, from eta at first, then the last step */
};

/* How a step's surrogate is minimised: up to inner_steps steps on S(f(w)) / rows of batch. */
enum slg_inner_kind {
    SLG_INNER_ARMIJO = 0,    /* descent; S(w - s d) <= S(w) - c s |d|^2; the step starts anew
                               at each surrogate */
    SLG_INNER_FIXED = 1,     /* w = w - step d */
    SLG_INNER_OPTIMIZER = 2, /* slg_optimizer_step(optimizer, w, d) */
    SLG_INNER_CONJUGATE = 3  /* conjugate gradients: needs a tangent, and SLG_SURROGATE_SQUARED
                               with finite eta; the exact minimum in at most dim steps */
};

enum slg_batch_order {
    SLG_BATCH_DRAWN = 0,    /* each batch anew, without replacement within it */
    SLG_BATCH_SHUFFLED = 1, /* all rows once an epoch, in random order; the last is smaller */
    SLG_BATCH_IN_ORDER = 2  /* the same, in their order */
};

/* Why the inner loop ended. */
enum slg_sso_reason {
    SLG_SSO_STEPS = 0,      /* as many steps as were allowed */
    SLG_SSO_GRADIENT = 1,   /* |d| is small enough, or 0 */
    SLG_SSO_EXHAUSTED = 2,  /* no trial was accepted; w stays at the last one that was */
    SLG_SSO_UNBOUNDED = 3,  /* the inner search is at step_max and could go on: eta is inf */
    SLG_SSO_NOT_FINITE = 4, /* loss or G is not finite, or w would not be: w is as before */
    SLG_SSO_CALLBACK = 5,   /* the progress callback said so */
    SLG_SSO_EMPTY = 6       /* no rows: nothing was done */
};

typedef struct slg_sso_report {
    uint32_t size;  /* in: sizeof(slg_sso_report), set by the caller; the rest is out */
    int32_t reason; /* slg_sso_reason */
    int64_t steps;  /* t, since creation; so the next six */
    int64_t oracle_calls;
    int64_t inner_steps;
    int64_t forwards;
    int64_t backwards;
    int64_t tangents;
    int64_t losses;       /* evaluations by SLG_ETA_SEARCH */
    int64_t batch;        /* rows of this step's batch; so the rest: of this step */
    int64_t taken;        /* inner steps */
    int64_t trials;       /* of inner searches */
    double loss;          /* of the batch, summed over its rows, before the step */
    double eta;           /* eta_t */
    double gradient_norm; /* |G| */
    double value;         /* S / batch at w; NaN where it was not evaluated: see final_value */
    double inner_norm;    /* |d| where it was last found: of S / batch in w */
    double inner_step;    /* the last s */
    double state;         /* of the schedule: the sum of |G|^2, or the last search's step */
} slg_sso_report;

/* Options of slg_sso_create. */
typedef struct slg_sso_opts {
    uint32_t size;       /* sizeof(slg_sso_opts), set by slg_sso_opts_init */
    int32_t surrogate;   /* slg_surrogate_kind; default SLG_SURROGATE_SQUARED */
    int32_t schedule;    /* slg_eta_schedule; default SLG_ETA_CONSTANT */
    int32_t inner;       /* slg_inner_kind; default SLG_INNER_ARMIJO */
    int32_t inner_steps; /* m >= 0; default 10; 0: w stays */
    int32_t order;       /* slg_batch_order; default SLG_BATCH_DRAWN */
    int32_t final_value; /* default 0; 1: S is evaluated at the end too where that takes a
                            forward of its own (SLG_INNER_OPTIMIZER; SLG_INNER_FIXED without
                            a tangent) */
    int32_t reserved;    /* 0 */
    int64_t batch;       /* rows of a batch, >= 0; default 0: all */
    int64_t total_steps; /* T of SLG_ETA_EXPONENTIAL, >= 1 there; default 0 */
    uint64_t seed;       /* of the order; default 0 */
    double eta;          /* > 0, +inf for SLG_ETA_CONSTANT; default NaN: 1 / smoothness */
    double step;         /* > 0, finite: SLG_INNER_FIXED's; what SLG_INNER_ARMIJO starts from;
                            default NaN: 10 for the latter, the former must be given it */
    double grad_norm;    /* |d| at or below ends the inner loop; >= 0; default 1e-6 */
    const slg_armijo_opts *search;       /* of SLG_ETA_SEARCH; copied; default NULL */
    const slg_armijo_opts *inner_search; /* of SLG_INNER_ARMIJO; copied; default NULL */
    slg_optimizer *optimizer;            /* of SLG_INNER_OPTIMIZER, for dim weights; the
                                            caller's */
    int32_t (*progress)(void *user, const slg_sso_report *report); /* wherever S is found,
                            w_t included: taken, value; not 0: the inner loop ends there */
    void *user;
} slg_sso_opts;

SLG_API void slg_sso_opts_init(slg_sso_opts *opts, size_t size);

/*
 * Surrogate steps: a loop of slg_sso_step is the paper's algorithm. A step draws a batch, calls
 * the oracle once at Z_t = f(w_t), and takes inner steps on the surrogate from w_t on.
 *
 *   model, oracle  in   the structs are copied; what they point to must outlive the driver.
 *                       rows and targets must be equal; rows >= 0, targets, dim >= 1
 *   opts           in   NULL: the defaults
 *   s              out  NULL on an error
 *
 * With a tangent and the squared divergence a search, fixed steps and conjugate gradients run
 * on the gradient R = G + (Z - Z_t) / eta alone: Z is not made again, S along w - s d is s
 * <R, J d> and s^2 |J d|^2 / (2 eta), so no trial costs a product or loses digits, and inner
 * steps cost a backward and a tangent. Elsewhere a trial costs a forward.
 *
 * Memory: 12 bytes a target of a batch, 12 a parameter, 8 a row of the data.
 *
 * Errors: SLG_ERR_NULL (also a missing callback or optimizer), SLG_ERR_SHAPE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY, SLG_ERR_RANGE (an option); SLG_ERR_UNSUPPORTED for SLG_ETA_SEARCH without
 * shifted, SLG_INNER_CONJUGATE without a tangent. Since 0.1.
 */
SLG_API slg_status slg_sso_create(slg_ctx *ctx, const slg_target_model *model,
                                  const slg_target_oracle *oracle, const slg_sso_opts *opts,
                                  slg_sso **s);

/* Frees; NULL is allowed. The context must still be there; model and oracle need not. */
SLG_API void slg_sso_free(slg_sso *s);

/*
 * One outer step.
 *
 *   w       any shape, dim elements, contiguous  in/out  f32
 *   report                                       out     may be NULL
 *
 * G = 0: the surrogate has its minimum at Z_t: nothing moves. An empty batch: SLG_SSO_EMPTY,
 * loss 0, nothing is counted. Where l is L-smooth and eta <= 1 / L, all but SLG_INNER_FIXED and
 * SLG_INNER_OPTIMIZER end with S <= 0: the batch's loss does not rise.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS
 * (report->size), SLG_ERR_MEMORY, what a callback or slg_optimizer_step returns. w, t and
 * counters are as they were then; an optimizer has made its steps.
 */
SLG_API slg_status slg_sso_step(slg_sso *s, slg_tensor *w, slg_sso_report *report);

/*
 * Continues from a report, for a driver of the same options bit for bit: t, counters and state
 * are all that it holds.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS; SLG_ERR_RANGE for a negative count or a state that is
 * negative or not finite. The driver is untouched then.
 */
SLG_API slg_status slg_sso_restore(slg_sso *s, const slg_sso_report *report);

#ifdef __cplusplus
}
#endif

#endif
