/*
 * bandit.h - contextual bandits by online regression: each round has a context for each arm, a
 * network predicts the arms' costs, inverse gap weighting makes probabilities of them, an arm
 * is drawn, its cost seen, and the network takes one step of regression.
 *
 *     for each round
 *         slg_bandit_choose(b, &x, NULL, NULL, &arm, NULL, NULL);
 *         ... the cost of the arm
 *         slg_bandit_observe(b, &x, arm, cost);
 *
 * The pieces of it are there on their own too.
 *
 * Paper: "Contextual Bandits with Online Neural Regression" (2024).
 */
#ifndef SOFTLOGIT_BANDIT_H
#define SOFTLOGIT_BANDIT_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Inverse gap weighting -------------------------------------------------------------- */

enum slg_gap_rule {
    SLG_GAP_SQUARE = 0,     /* for predictions learnt by the squared loss (SquareCB) */
    SLG_GAP_FIRST_ORDER = 1 /* for predictions learnt by the binary KL loss (FastCB) */
};

/* Options of slg_inverse_gap. */
typedef struct slg_inverse_gap_opts {
    uint32_t size; /* sizeof(slg_inverse_gap_opts), set by slg_inverse_gap_opts_init */
    int32_t rule;  /* slg_gap_rule; default SLG_GAP_FIRST_ORDER */
    double gamma;  /* >= 0 and finite, default 100: the larger, the greedier; 0: uniform */
} slg_inverse_gap_opts;

SLG_API void slg_inverse_gap_opts_init(slg_inverse_gap_opts *opts, size_t size);

/*
 * Probabilities of K arms, a row for each decision, with b = the arm of the least predicted
 * cost c (the first on a tie), and an arm drawn from them:
 *
 *     square:       p[a] = 1 / (K + gamma (c[a] - c[b]))                  a != b
 *     first order:  p[a] = c[b] / (K c[b] + gamma (c[a] - c[b]))          a != b
 *     p[b] = 1 - the sum of the others, at least 1 / K
 *
 *   costs  [rows, K]  in      f32, bf16, f16; +inf: an arm that may not be chosen, p = 0
 *   u      [rows]     in      f32, f64: uniform numbers in [0, 1) to draw by; NULL: rng
 *   opts              in      NULL: the defaults
 *   rng               in/out  number offset + i is row i's; offset grows by rows. Not looked
 *                             at, and may be NULL, where u is given or arm is NULL
 *   p      [rows, K]  out     f32, f64, bf16, f16; NULL: not wanted. May be costs itself.
 *   arm    [rows]     out     i32, i64: the first arm at which the sum of p up to it is above
 *                             u; NULL: not wanted
 *
 * Any strides. First order: c[a] = c[b] = 0 has p = 1 / K, c[b] = 0 < c[a] has 0. K = 1: 1.
 * Computed in double: same bits on every ISA and for any number of threads. Cost: O(K) a row,
 * no workspace.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (K = 0 with rows too), SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_OPTIONS; SLG_ERR_RANGE for an option outside of its domain, u outside of [0, 1), a
 * cost of NaN or -inf, negative in first order, or a row all +inf. Outputs and rng are
 * untouched then. Since 0.1.
 */
SLG_API slg_status slg_inverse_gap(slg_ctx *ctx, const slg_tensor *costs, const slg_tensor *u,
                                   const slg_inverse_gap_opts *opts, slg_rng *rng,
                                   slg_tensor *p, slg_tensor *arm);

/*
 * The gamma of theory, for K arms:
 *
 *     square:       sqrt(K horizon / (regret + log(2 / delta)))    horizon: T, all rounds
 *     first order:  max(sqrt(K horizon / (3 regret)), 10 K)        horizon: L*, a bound of what
 *                                                                  the best policy costs in all
 *
 *   rule     in   slg_gap_rule
 *   arms     in   K >= 1
 *   horizon  in   >= 0
 *   regret   in   of the regression, over all rounds: >= 0, first order > 0
 *   delta    in   in (0, 1]: the bound may fail so often; not looked at in first order
 *   gamma    out
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (an infinite gamma, too). *gamma is untouched then.
 * Since 0.1.
 */
SLG_API slg_status slg_inverse_gap_gamma(slg_ctx *ctx, int32_t rule, int64_t arms,
                                         double horizon, double regret, double delta,
                                         double *gamma);

/* ---- Perturbed regression --------------------------------------------------------------- */

/* Options of slg_perturbed_loss. */
typedef struct slg_perturbed_loss_opts {
    uint32_t size;    /* sizeof(slg_perturbed_loss_opts), set by slg_perturbed_loss_opts_init */
    int32_t rule;     /* slg_gap_rule: whose loss; default SLG_GAP_FIRST_ORDER, binary KL */
    int32_t signs;    /* S, from 0 to 65536; default 2. 0: not perturbed, as c_p = 0. Not looked
                         at where epsilon is given */
    int32_t reserved; /* 0 */
    double c_p;       /* from 0 to 1e18; default 0.01. Keep it small: a step of the squared loss
                         moves a shift by step c_p^2 p / (S sqrt(m)) of its residual: from 2 on
                         that diverges, and it is noise long before */
    double width;     /* m, from 1e-18 to 1e18; default 100 */
} slg_perturbed_loss_opts;

SLG_API void slg_perturbed_loss_opts_init(slg_perturbed_loss_opts *opts, size_t size);

/* What slg_perturbed_loss gives: tensors NULL are not wanted. None may overlap another one, or
   an input. */
typedef struct slg_perturbed_loss_out {
    uint32_t size;          /* sizeof(slg_perturbed_loss_out), set by its _init */
    int32_t reserved;       /* 0 */
    double value;           /* mean of the losses; 0 for no samples, or with no y */
    slg_tensor *perturbed;  /* [S, N] f32, f64: F_s; [1, N], f itself, where S is 0 */
    slg_tensor *prediction; /* [N] f32, f64: mean over s of the prediction */
    slg_tensor *loss;       /* [N] f32, f64: mean over s of the loss */
    slg_tensor *df;         /* [N] f32, f64: gradient of value in f */
    slg_tensor *dtheta;     /* [p] f32, f64: what the shift adds to value's gradient in theta is
                               added to it */
} slg_perturbed_loss_out;

SLG_API void slg_perturbed_loss_out_init(slg_perturbed_loss_out *out, size_t size);

/*
 * Loss of predictions that are perturbed along S vectors of random signs of the weights:
 *
 *     shift_s = (c_p / m^(1/4)) <theta - theta0, eps_s>,    F_s = f + shift_s
 *     square:       loss = (F_s - y)^2 / 2, prediction F_s, r = F_s - y
 *     first order:  loss = y log(y / q) + (1 - y) log((1 - y) / (1 - q)),
 *                   prediction q = sigmoid(F_s), r = q - y
 *
 * all averaged over s. df[n] = mean_s r[s, n] / N, which the network carries back, and
 * dtheta += (c_p / m^(1/4)) mean_s (mean_n r[s, n]) eps_s. Over all signs the squared loss is
 * that without them plus c_p^2 / (2 sqrt m) |theta - theta0|^2: a ridge that makes the minimum
 * unique.
 *
 *   f        [N]     in  f32, bf16, f16
 *   y        [N]     in  f32, bf16, f16; within [0, 1] in first order. NULL: predictions
 *                        alone; loss, df and dtheta must be NULL then
 *   theta    [p]     in  f32, bf16, f16
 *   theta0   [p]     in  f32, bf16, f16: where theta started
 *   epsilon  [S, p]  in  f32, bf16, f16, finite; NULL: the signs of rng
 *   rng              in  sign i of eps_s is bit i mod 64 (1: +1) of number
 *                        offset + s ceil(p / 64) + i / 64. Not advanced: a run keeps its signs.
 *                        May be NULL where epsilon is given or nothing is perturbed
 *   opts             in  NULL: the defaults
 *   out              out not NULL
 *
 * Any strides. F of 500 does not overflow, and its loss keeps its digits. Signs are made anew
 * in each call, never stored. Computed in double: same bits on every ISA and for any number of
 * threads. Cost O(S (N + p)).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an option or y outside of its domain, or f, y, theta,
 * theta0 or epsilon not finite. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_perturbed_loss(slg_ctx *ctx, const slg_tensor *f, const slg_tensor *y,
                                      const slg_tensor *theta, const slg_tensor *theta0,
                                      const slg_tensor *epsilon, const slg_rng *rng,
                                      const slg_perturbed_loss_opts *opts,
                                      slg_perturbed_loss_out *out);

/*
 * Nearest point of the ball of `radius` about theta0, in place:
 * theta0 + (theta - theta0) min(1, radius / |theta - theta0|).
 *
 *   theta     [...]  in/out  f32, f64, 1 to 4 axes; untouched where it is inside
 *   theta0    [...]  in      f32, f64, bf16, f16, of theta's shape; NULL: zeros
 *   radius           in      >= 0; infinite: all of space. 0: theta becomes theta0
 *   distance         out     |theta - theta0| before; NULL: not wanted
 *
 * Any strides. Rounded once, so in the ball up to that. No overflow, whatever the length. Same
 * bits on every ISA and for any number of threads. Cost O(p), no more than two reads.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY;
 * SLG_ERR_RANGE for radius, or theta or theta0 not finite. theta is untouched then. Since 0.1.
 */
SLG_API slg_status slg_project_ball(slg_ctx *ctx, const slg_tensor *theta0, double radius,
                                    slg_tensor *theta, double *distance);

/* ---- Bandits ---------------------------------------------------------------------------- */

typedef struct slg_bandit slg_bandit;

/* What predicts f, a number for each arm; its cost is f (square) or sigmoid(f) (first order).
   Weights are per arm, which is one network over block contexts, or shared by all arms. */
enum slg_bandit_model {
    SLG_BANDIT_LINEAR = 0,    /* f = <w, x>; theta [arms, dim], or [dim] */
    SLG_BANDIT_TWO_LAYER = 1, /* f = <v, act(x W)>, v = +-1 / sqrt(width) fixed, the same for
                                 all arms; theta is W [arms, dim, width], or [dim, width] */
    SLG_BANDIT_CALLBACKS = 2  /* the caller's; theta [dim] */
};

/* The step eta_t of round t = 1, 2, ... */
enum slg_bandit_step {
    SLG_BANDIT_CONSTANT = 0, /* step */
    SLG_BANDIT_INVERSE = 1   /* 1 / (mu t) */
};

/*
 * Options of slg_bandit_create. NeuFastCB is rule SLG_GAP_FIRST_ORDER, NeuSquareCB
 * SLG_GAP_SQUARE.
 *
 * Callbacks return 0, or a code that ends the call and is handed on. They run on the caller's
 * thread and may use any context, the bandit's too, but not the bandit. x is the caller's own
 * tensor, unread; theta [dim].
 *
 *   predict   f[arms], finite
 *   gradient  *f = f[arm], grad [dim] = its gradient in theta
 */
typedef struct slg_bandit_opts {
    uint32_t size;      /* sizeof(slg_bandit_opts), set by slg_bandit_opts_init */
    int32_t rule;       /* slg_gap_rule, of weights and loss; default SLG_GAP_FIRST_ORDER */
    int32_t model;      /* slg_bandit_model; default SLG_BANDIT_TWO_LAYER */
    int32_t width;      /* m, from 1; default 100: hidden units, and m of perturbed losses */
    int32_t activation; /* slg_activation_kind; default SLG_RELU */
    int32_t shared;     /* 1: all arms have the same weights; default 0 */
    int32_t signs;      /* S, from 0 to 65536; default 2: see slg_perturbed_loss_opts */
    int32_t schedule;   /* slg_bandit_step; default SLG_BANDIT_CONSTANT */
    uint64_t seed;      /* of weights, signs and draws; default 0 */
    double gamma;       /* >= 0; default 100. NAN: slg_inverse_gap_gamma of the next three */
    double horizon;     /* >= 0; default 1000 */
    double regret;      /* > 0; default 1 */
    double delta;       /* in (0, 1]; default 0.05 */
    double c_p;         /* from 0 to 1e18; default 0.01; 0: not perturbed */
    double step;   /* > 0; default NAN: first order 10, square 2 with two layers; 5 and 1 if
                           linear, for contexts of length 1. Must be given with callbacks */
    double mu;     /* > 0; default 1 */
    double radius; /* >= 0; default infinite: of the ball about theta0 that theta is held in */
    double variance; /* >= 0; default 2: of the first weights of two layers */
    void *user;      /* for callbacks */
    slg_status (*predict)(void *user, const float *theta, const slg_tensor *x, double *f);
    slg_status (*gradient)(void *user, const float *theta, const slg_tensor *x, int64_t arm,
                           double *f, float *grad);
} slg_bandit_opts;

SLG_API void slg_bandit_opts_init(slg_bandit_opts *opts, size_t size);

/*
 * Makes a bandit in its first round.
 *
 *   arms    in   K, from 1
 *   dim     in   features of an arm's context; with callbacks the number p of weights; from 1
 *   theta0  in   f32, bf16, f16, the weights' shape, or [p]: first weights. NULL: two layers
 *                normal numbers of `variance`, linear zeros; must be given with callbacks
 *   opts    in   NULL: the defaults
 *   b       out  the handle; NULL on an error
 *
 * Streams of opts->seed: with r_i = { number i of the stream of seed, 0 }, weights are the
 * normal numbers of r_0 (slg_random) times sqrt(variance), unit j's output is + where bit j of
 * number j / 64 of r_1 is 1 (j mod 64), perturbations are those of r_2, and draw t (from 0) is
 * uniform number t of r_3.
 *
 * Memory: 12 p bytes, and 4 more for each weight of an arm.
 *
 * Errors: SLG_ERR_NULL (callbacks too), SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for arms, dim, an option outside of its domain (> 0: from 1e-18
 * to 1e18), whether it is used or not, or theta0 not finite.
 */
SLG_API slg_status slg_bandit_create(slg_ctx *ctx, int64_t arms, int64_t dim,
                                     const slg_tensor *theta0, const slg_bandit_opts *opts,
                                     slg_bandit **b);

/* Frees; NULL is allowed. The context must still be there. */
SLG_API void slg_bandit_free(slg_bandit *b);

/*
 * Predicts costs, makes probabilities of them, draws an arm. Nothing of the bandit changes but
 * the number of draws, and that only where arm is wanted and u is NULL.
 *
 *   x     [arms, dim]  in   f32, bf16, f16, finite: a context for each arm; or [dim]: the same
 *                           for all, with weights per arm. Callbacks: any tensor, handed on
 *   mask  [arms]       in   i32, i64, f32: 0 leaves an arm out; NULL: all may be chosen
 *   u                  in   in [0, 1): what the arm is drawn by; NULL: the bandit's own
 *   arm                out  the arm; NULL: not wanted
 *   cost  [arms]       out  f32, f64: predicted costs, mean over perturbations; +inf for arms
 *                           left out; NULL: not wanted
 *   p     [arms]       out  f32, f64: see slg_inverse_gap; NULL: not wanted
 *
 * Any strides. Cost: the model, O(arms), and after each step O(S p) if perturbed. The same bits
 * for any number of threads; those of two layers, through products in float32, may differ
 * between ISA levels.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY, what a
 * callback returns; SLG_ERR_RANGE for u, x or a prediction not finite, or all arms left out.
 * Outputs and bandit are untouched then.
 */
SLG_API slg_status slg_bandit_choose(slg_bandit *b, const slg_tensor *x, const slg_tensor *mask,
                                     const double *u, int64_t *arm, slg_tensor *cost,
                                     slg_tensor *p);

/*
 * Ends a round: one step down the gradient of the loss of the arm's prediction, and back to the
 * ball. Any arm, however chosen.
 *
 *   x     in  as in slg_bandit_choose; only the arm's context is read
 *   arm   in  from 0 below arms
 *   cost  in  what it cost: finite; within [0, 1] in first order
 *
 * Cost: the model, and O(arm's weights); O(S p) if perturbed, O(p) with a radius.
 *
 * Errors: as slg_bandit_choose; SLG_ERR_RANGE for arm, cost, or a step that is not finite in
 * float32. The bandit is untouched then.
 */
SLG_API slg_status slg_bandit_observe(slg_bandit *b, const slg_tensor *x, int64_t arm,
                                      double cost);

/* Back to the first weights and round; draws start again. */
SLG_API slg_status slg_bandit_reset(slg_bandit *b);

/* What slg_bandit_info tells. */
typedef struct slg_bandit_info_t {
    uint32_t size; /* sizeof(slg_bandit_info_t), set by slg_bandit_info_init */
    int32_t model; /* slg_bandit_model */
    int64_t arms, dim;
    int64_t weights;     /* p */
    int64_t rounds;      /* observed */
    int64_t draws;       /* arms drawn by the bandit's own numbers */
    int64_t projections; /* steps that left the ball */
    double cost;         /* of all rounds observed */
    double loss;         /* of the regression, each before its step */
    double gamma;
    double step;     /* eta of the next round */
    double distance; /* |theta - theta0| */
} slg_bandit_info_t;

SLG_API void slg_bandit_info_init(slg_bandit_info_t *info, size_t size);

/* Cost O(p). Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS (info->size), SLG_ERR_MEMORY. */
SLG_API slg_status slg_bandit_info(slg_bandit *b, slg_bandit_info_t *info);

/* Parts of a bandit's state. */
enum slg_bandit_part {
    SLG_BANDIT_THETA = 1,  /* [p] */
    SLG_BANDIT_THETA0 = 2, /* [p] */
    SLG_BANDIT_OUTPUT = 3  /* [width] v of two layers */
};

/*
 * Copies a part of the state.
 *
 *   part  in   slg_bandit_part
 *   out   out  f32, f64, bf16, f16; one axis
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE; SLG_ERR_RANGE for a part
 * that this bandit has not.
 */
SLG_API slg_status slg_bandit_read(slg_bandit *b, int32_t part, slg_tensor *out);

/*
 * State as bytes, little-endian, with a checksum: weights, first weights, seed, counters.
 * Imported into a bandit of the same arms, dim and options (the seed apart) it continues bit
 * for bit. Options are not stored.
 *
 *   bytes   out  needed, or written, number of bytes; buffer NULL: only tells
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (capacity too small), SLG_ERR_STATE (import: not such a
 * state, of another model or size, or damaged). The bandit is untouched then.
 *
 * All of this part: since 0.1.
 */
SLG_API slg_status slg_bandit_export(slg_bandit *b, void *buffer, int64_t capacity,
                                     int64_t *bytes);
SLG_API slg_status slg_bandit_import(slg_bandit *b, const void *buffer, int64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
