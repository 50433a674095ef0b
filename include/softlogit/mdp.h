/*
 * mdp.h - episodes whose losses an adversary chooses: policies by follow-the-regularised-leader
 * (FTRL) on estimates of Q that are linear in features, with bonuses for what is seldom seen.
 *
 * An episode passes H layers; in state s_h action a_h costs l_h in [0, 1], and only the costs
 * along the way are seen. Q_h(s, a) = phi(s, a)'theta_h is linear in features of length d.
 *
 *     for each episode
 *         play the policy                         slg_mdp_policy_table, slg_mdp_policy_at
 *         simulate it, or follow a known model    slg_simulate, slg_occupancy
 *         slg_mdp_policy_step                     estimates of Q less bonus join the costs
 *
 * slg_mdp_run is that loop. The parts are functions of their own: slg_ftrl_policy,
 * slg_inverse_covariance, slg_linear_q, slg_dilated_bonus.
 *
 * Estimates, bonuses and sums are in double. Whatever has no product of matrices has the same
 * bits on every ISA, but for the entropy's policies in float32; all of it has for any number of
 * threads.
 *
 * Paper: "Refined Regret for Adversarial MDPs with Linear Function Approximation" (2023).
 */
#ifndef SOFTLOGIT_MDP_H
#define SOFTLOGIT_MDP_H

#include "softlogit/core.h"
#include "softlogit/online.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Policies from costs ---------------------------------------------------------------- */

/* Options of slg_ftrl_policy and its backward. */
typedef struct slg_ftrl_policy_opts {
    uint32_t size; /* sizeof(slg_ftrl_policy_opts), set by slg_ftrl_policy_opts_init */
    int32_t rule;  /* slg_ftrl_rule; default SLG_FTRL_LOG_BARRIER */
    double eta;    /* >= 0 and finite; default 1; 0: uniform */
} slg_ftrl_policy_opts;

SLG_API void slg_ftrl_policy_opts_init(slg_ftrl_policy_opts *opts, size_t size);

/*
 * The distribution over A actions that FTRL plays, a row for each state; g = eta (c - min c):
 *
 *     log barrier:  p = argmin eta <p, c> + sum log(1 / p[a]),  p[a] = 1 / (g[a] + nu)
 *     entropy:      p = argmin eta <p, c> + sum p[a] log p[a],  p[a] = exp(-g[a] - nu)
 *
 * nu makes the sum 1: in [1, A] of the log barrier, in [0, log A] of the entropy, which is
 * Hedge. The log barrier gives every action its share, at least about 1 / g, so it is a heavier
 * tailed softmax of -eta c.
 *
 *   costs  [.., A]  in   f32, f64, bf16, f16; any axes. +inf: an action that may not be taken,
 *                        p = 0. Sums of costs may lie anywhere: differences alone count, taken
 *                        in double
 *   opts            in   NULL: the defaults
 *   p      [.., A]  out  f32, f64, bf16, f16; NULL: not wanted. May be costs itself
 *   nu     [..]     out  f32, f64: [1] where costs has one axis; NULL: not wanted
 *
 * Any strides. Log barrier: nu by Newton's method on 1 / sum p, whose steps rise to the root
 * and never pass it, until the sum is within 1e-12 of 1; then p is divided by the sum. Some
 * five sums of A divisions in double a row, and 8 A bytes of workspace a thread. Entropy: one
 * softmax in float32, where g is rounded and p so far off as g is, or in double where p is. A =
 * 1: p = 1.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (A = 0 with rows too), SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for an option outside of its domain, a cost of
 * NaN or -inf, or a row all +inf. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_ftrl_policy(slg_ctx *ctx, const slg_tensor *costs,
                                   const slg_ftrl_policy_opts *opts, slg_tensor *p,
                                   slg_tensor *nu);

/*
 * The gradient of the costs from that of the policy:
 *
 *     log barrier:  dcosts = -eta p^2 (dp - <p^2, dp> / sum p^2)
 *     entropy:      dcosts = -eta p (dp - <p, dp>)
 *
 *   p       [.., A]  in   f32, bf16, f16: what slg_ftrl_policy gave
 *   dp      [.., A]  in   f32, bf16, f16; not looked at where p is 0
 *   opts             in   as there
 *   dcosts  [.., A]  out  f32, bf16, f16; may be dp or p itself. 0 where p is 0
 *
 * Two passes over a row. Errors: as there, but no value is refused: NaN makes NaN. Since 0.1.
 */
SLG_API slg_status slg_ftrl_policy_backward(slg_ctx *ctx, const slg_tensor *p,
                                            const slg_tensor *dp,
                                            const slg_ftrl_policy_opts *opts,
                                            slg_tensor *dcosts);

/* ---- Covariance of features ------------------------------------------------------------- */

/* Options of slg_inverse_covariance. */
typedef struct slg_inverse_covariance_opts {
    uint32_t size;     /* sizeof(slg_inverse_covariance_opts), set by its _init */
    int32_t normalise; /* default 1: weights are divided by their sum; 0: taken as they are */
    double gamma;      /* > 0 and finite; default 0.01 */
} slg_inverse_covariance_opts;

SLG_API void slg_inverse_covariance_opts_init(slg_inverse_covariance_opts *opts, size_t size);

/*
 *     sigma = sum_m w[m] phi_m phi_m',    inverse = (gamma I + sigma)^-1
 *
 *   phi      [M, d]  in   f32, f64, bf16, f16; d >= 1. M = 0: sigma = 0
 *   weight   [M]     in   f32, f64, >= 0; NULL: ones, a mean where normalised. Weights whose
 *                         sum is 0 make sigma = 0
 *   opts             in   NULL: the defaults
 *   sigma    [d, d]  out  f32, f64; NULL: not wanted
 *   inverse  [d, d]  out  f32, f64; NULL: not wanted
 *
 * Rank-deficient sigma is as good as any: all is in double, by a symmetric update of blocks of
 * rows and Cholesky; both outputs are symmetric to the bit. O(M d^2 + d^3).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an option outside of its domain, a weight that is negative
 * or not finite, features whose products are not finite, or a gamma below 1e-15 or so of sigma.
 * Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_inverse_covariance(slg_ctx *ctx, const slg_tensor *phi,
                                          const slg_tensor *weight,
                                          const slg_inverse_covariance_opts *opts,
                                          slg_tensor *sigma, slg_tensor *inverse);

/*
 * Takes further samples into an inverse, one after the other (Sherman-Morrison):
 *
 *     inverse = (inverse^-1 + weight phi_m phi_m')^-1
 *
 *   phi      [M, d]  in      f32, f64, bf16, f16
 *   weight           in      finite; negative: samples are taken out again
 *   inverse  [d, d]  in/out  f32, f64; symmetric and positive definite. In f32 each call
 *                            rounds it once
 *
 * For a running mean, which every sample shrinks, see slg_inverse_covariance. O(M d^2).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY;
 * SLG_ERR_RANGE for a number that is not finite, or a sample whose removal leaves nothing
 * positive definite. The inverse is untouched then. Since 0.1.
 */
SLG_API slg_status slg_inverse_covariance_update(slg_ctx *ctx, const slg_tensor *phi,
                                                 double weight, slg_tensor *inverse);

/* ---- Estimates of Q --------------------------------------------------------------------- */

/* Options of slg_linear_q. */
typedef struct slg_linear_q_opts {
    uint32_t size;     /* sizeof(slg_linear_q_opts), set by slg_linear_q_opts_init */
    int32_t reserved;  /* 0 */
    double horizon;    /* H > 0; default 1 */
    double loss_to_go; /* L in [0, H], the sum of losses from this layer on; default 0 */
    double beta;       /* >= 0; default 1: scale of the bonus */
} slg_linear_q_opts;

SLG_API void slg_linear_q_opts_init(slg_linear_q_opts *opts, size_t size);

/* What slg_linear_q gives, of f32 or f64; NULL: not wanted. */
typedef struct slg_linear_q_out {
    uint32_t size;       /* sizeof(slg_linear_q_out), set by slg_linear_q_out_init */
    int32_t reserved;    /* 0 */
    slg_tensor *plain;   /* [.., A] */
    slg_tensor *offset;  /* [.., A] */
    slg_tensor *reduced; /* [.., A] */
    slg_tensor *width;   /* [.., A] */
    slg_tensor *bonus;   /* [.., A] */
} slg_linear_q_out;

SLG_API void slg_linear_q_out_init(slg_linear_q_out *out, size_t size);

/*
 * Estimates of Q at one layer from one visit, S being the inverse covariance and (x)_- =
 * min(x, 0):
 *
 *     q         = phi(s, a)'S visited
 *     plain     = q L                                           from -H/gamma to H/gamma
 *     offset    = H sum_m w[m] (phi(s, a)'S phi_m)_-            w: weights, divided by their
 *                                                               sum
 *     reduced   = q L - H (q)_- + offset                        at least offset
 *     width     = phi(s, a)'S phi(s, a)
 *     bonus     = beta (width + sum_a' policy(a') width(s, a'))
 *
 * Over visits drawn as the samples are, reduced has plain's expectation, but falls only to
 * about -H / sqrt(gamma): that is what Hedge needs.
 *
 *   phi      [A, d], [S, A, d]  in  f32, f64, bf16, f16: features of the actions at a state, or
 *                                   at S states
 *   visited  [d]                in  as phi; NULL where only offset, width, bonus are wanted
 *   inverse  [d, d]             in  f32, f64; symmetric
 *   samples  [M, d]             in  as phi; for offset and reduced; NULL: M = 0, offset 0
 *   weight   [M]                in  f32, f64, >= 0; NULL: ones
 *   policy   [A], [S, A]        in  f32, f64; for bonus
 *   opts                        in  NULL: the defaults
 *   out                         out of shape [A] or [S, A]
 *
 * One product of A by M, in blocks. Features that are not finite make NaN.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE,
 * SLG_ERR_STRIDE (outputs that overlap each other or an input, too), SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an option outside of its domain or a weight that is
 * negative or not finite. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_linear_q(slg_ctx *ctx, const slg_tensor *phi, const slg_tensor *visited,
                                const slg_tensor *inverse, const slg_tensor *samples,
                                const slg_tensor *weight, const slg_tensor *policy,
                                const slg_linear_q_opts *opts, const slg_linear_q_out *out);

/* ---- Tables ----------------------------------------------------------------------------- */

/* Options of slg_dilated_bonus. */
typedef struct slg_dilated_bonus_opts {
    uint32_t size;    /* sizeof(slg_dilated_bonus_opts), set by slg_dilated_bonus_opts_init */
    int32_t reserved; /* 0 */
    double dilation;  /* >= 0; default NAN: 1 / H. 0: of losses, Q itself */
} slg_dilated_bonus_opts;

SLG_API void slg_dilated_bonus_opts_init(slg_dilated_bonus_opts *opts, size_t size);

/*
 * Bonuses of what may follow, by recursion from the last layer back:
 *
 *     value_h(s)   = sum_a policy_h(a | s) total_h(s, a)
 *     total_h(s,a) = bonus_h(s, a) + (1 + dilation) sum_s' transition_h(s' | s, a)
 *                                                                value_{h+1}(s')
 *
 *   bonus       [H, S, A]     in   f32, f64, bf16, f16
 *   transition  [H, S, A, S]  in   as bonus; or [H - 1, S, A, S]: the last layer has no next.
 *                                  Its stride over layers may be 0. NULL: H = 1
 *   policy      [H, S, A]     in   as bonus
 *   opts                      in   NULL: the defaults
 *   total       [H, S, A]     out  f32, f64; may be bonus itself; NULL: not wanted
 *   value       [H, S]        out  f32, f64; NULL: not wanted
 *
 * Each transition is read once. The inputs are not checked to be distributions.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY, SLG_ERR_RANGE (dilation). Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_dilated_bonus(slg_ctx *ctx, const slg_tensor *bonus,
                                     const slg_tensor *transition, const slg_tensor *policy,
                                     const slg_dilated_bonus_opts *opts, slg_tensor *total,
                                     slg_tensor *value);

/*
 * How often a policy comes to each state and action, by recursion from the first layer on:
 *
 *     reach_0 = start,    occupancy_h(s, a) = reach_h(s) policy_h(a | s)
 *     reach_{h+1}(s') = sum occupancy_h(s, a) transition_h(s' | s, a)
 *
 *   transition, policy        in   as in slg_dilated_bonus
 *   start       [S]           in   f32, f64; NULL: state 0
 *   occupancy   [H, S, A]     out  f32, f64
 *
 * What no way leads to is 0, whatever policy and transition hold there. Errors: as there.
 * Since 0.1.
 */
SLG_API slg_status slg_occupancy(slg_ctx *ctx, const slg_tensor *transition,
                                 const slg_tensor *policy, const slg_tensor *start,
                                 slg_tensor *occupancy);

/* ---- Simulation ------------------------------------------------------------------------- */

/*
 * Plays one trajectory of the policy: on the caller's thread, and free to call the library with
 * any context.
 *
 *   episode     as slg_simulate was told; of slg_mdp_run, from 0
 *   trajectory  from 0; -1 is the episode itself, which slg_mdp_run plays for its losses
 *   rng         of this trajectory alone: draws are to be taken from it, and it be advanced
 *   visited     [H, width] to be filled: features of the pairs that were met; or, of width 2
 *               in a table, the numbers of state and action
 *   losses      [H] to be filled, each in [0, 1]; NULL: not wanted
 *
 * Returns 0, or a status that ends what called it and is handed on.
 */
typedef slg_status (*slg_trajectory_fn)(void *user, int64_t episode, int64_t trajectory,
                                        slg_rng *rng, double *visited, double *losses);

/*
 * M trajectories. Trajectory m draws from number offset + m draws on, so none depends on what
 * another drew.
 *
 *   fn, user               in      called with trajectories 0 to M - 1, in order
 *   episode                in      handed to fn
 *   draws                  in      numbers kept for each trajectory; 0: 2^32
 *   rng                    in/out  offset grows by M draws
 *   visited  [H, M, width] out     f32, f64, i32, i64: layer by layer, as slg_linear_q and
 *                                  slg_inverse_covariance take samples
 *   losses   [H, M]        out     f32, f64; NULL: not wanted
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY; what fn
 * returns; SLG_ERR_RANGE for draws < 0 or a trajectory that drew more than that. Outputs and
 * rng are untouched then. Since 0.1.
 */
SLG_API slg_status slg_simulate(slg_ctx *ctx, slg_trajectory_fn fn, void *user, int64_t episode,
                                int64_t draws, slg_rng *rng, slg_tensor *visited,
                                slg_tensor *losses);

/* ---- The policy ------------------------------------------------------------------------- */

enum slg_q_estimator { SLG_Q_PLAIN = 0, SLG_Q_REDUCED = 1 };

/* Options of slg_mdp_policy_create. */
typedef struct slg_mdp_policy_opts {
    uint32_t size;     /* sizeof(slg_mdp_policy_opts), set by slg_mdp_policy_opts_init */
    int32_t rule;      /* slg_ftrl_rule; default SLG_FTRL_LOG_BARRIER */
    int32_t estimator; /* slg_q_estimator; default SLG_Q_PLAIN */
    int32_t reserved;  /* 0 */
    int64_t horizon;   /* H from 1 to 2^20; default 1 */
    int64_t states;  /* S: a table; default 0: states without number, features of the caller */
    int64_t actions; /* A >= 1 of a table; else not looked at; default 1 */
    int64_t dim;     /* d >= 1 of features; default 0: those of a table are one-hot */
    double eta;      /* >= 0 and finite; default 0.1. Theory: 1 / sqrt(K) of K episodes, up to
                          factors of d, H, A, as the next two */
    double gamma;    /* > 0 and finite; default 0.01 */
    double beta;     /* >= 0 and finite; default 0: no bonus */
    double dilation; /* >= 0; default NAN: 1 / H */
} slg_mdp_policy_opts;

SLG_API void slg_mdp_policy_opts_init(slg_mdp_policy_opts *opts, size_t size);

typedef struct slg_mdp_policy slg_mdp_policy;

/*
 * A policy by FTRL on costs C = the sum over episodes of (estimate of Q - bonus).
 *
 * In a table (states > 0) C [H, S, A] is kept, and features are one-hot in (s, a), or given.
 * Without a table (states = 0) C is kept as what it is made of: plain, a vector of d a layer,
 * the sum of S visited L; with a bonus, the sum of S, d^2 a layer; reduced, 1 + M vectors an
 * episode and layer, with the slopes on both sides of 0.
 *
 *   opts                                     in   not NULL: there are no sizes by default
 *   features  [S, A, d], [H, S, A, d]        in   f32, f64, bf16, f16: of a table with dim > 0,
 *                                                 copied as double; else NULL
 *   policy                                   out  NULL on an error
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (sizes that overflow too), SLG_ERR_DTYPE,
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for an option outside of its domain. Since
 * 0.1.
 */
SLG_API slg_status slg_mdp_policy_create(slg_ctx *ctx, const slg_mdp_policy_opts *opts,
                                         const slg_tensor *features, slg_mdp_policy **policy);

/* Frees; NULL is allowed. The context must still be there. */
SLG_API void slg_mdp_policy_free(slg_mdp_policy *policy);

/* Back to before the first episode: uniform. */
SLG_API slg_status slg_mdp_policy_reset(slg_mdp_policy *policy);

/* Episodes stepped; 0 for NULL. */
SLG_API int64_t slg_mdp_policy_episodes(const slg_mdp_policy *policy);

/*
 * The whole policy of a table, and its costs.
 *
 *   p      [H, S, A]  out  f32, f64; NULL: not wanted
 *   costs  [H, S, A]  out  f32, f64: C; NULL: not wanted
 *
 * Errors: SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY; SLG_ERR_STATE where
 * there is no table. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_mdp_policy_table(slg_mdp_policy *policy, slg_tensor *p,
                                        slg_tensor *costs);

/*
 * The policy at states of a layer, by their features (no table).
 *
 *   layer                    in   from 0 below H
 *   phi    [A, d], [R, A, d] in   f32, f64, bf16, f16
 *   bonus  [A], [R, A]       in   f32, f64: taken off the costs: the sum over episodes of the
 *                                 dilated part of the bonus, (1 + 1 / H) E[B of the next
 *                                 layer], where the caller simulates it; NULL: zeros
 *   p      [A], [R, A]       out  f32, f64; NULL: not wanted
 *   costs  [A], [R, A]       out  f32, f64; NULL: not wanted. Up to a number that the actions
 *                                 of a state share: beta sum_a' policy(a') width(s, a') is left
 *                                 out, for it moves no policy
 *
 * O(A d) a state, O(A d^2) with a bonus; reduced: O(A d) for each vector kept.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY,
 * SLG_ERR_RANGE (layer; costs that are not finite); SLG_ERR_STATE where there is a table.
 * Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_mdp_policy_at(slg_mdp_policy *policy, int64_t layer,
                                     const slg_tensor *phi, const slg_tensor *bonus,
                                     slg_tensor *p, slg_tensor *costs);

/* What an episode of the policy showed. */
typedef struct slg_mdp_episode {
    uint32_t size;                /* sizeof(slg_mdp_episode), set by slg_mdp_episode_init */
    int32_t reserved;             /* 0 */
    const slg_tensor *losses;     /* [H] f32, f64, in [0, 1] */
    const slg_tensor *visited;    /* of a table [H, 2] i32, i64: states and actions; else [H, d]
                                     f32, f64, bf16, f16: features of what was met */
    const slg_tensor *occupancy;  /* of a table [H, S, A] f32, f64, i32, i64, >= 0: how often
                                     the policy comes there, exact or counted; a layer is
                                     divided by its sum, where that is not 0 */
    const slg_tensor *samples;    /* no table: [H, M, d] as visited: what simulation met; NULL:
                                     none */
    const slg_tensor *weight;     /* [H, M] f32, f64, >= 0, of samples; NULL: ones */
    const slg_tensor *transition; /* of a table with beta > 0: as in slg_dilated_bonus */
} slg_mdp_episode;

SLG_API void slg_mdp_episode_init(slg_mdp_episode *episode, size_t size);

/*
 * Ends an episode. L_h is the sum of losses from layer h on; with S_h from occupancy or
 * samples, the estimates of slg_linear_q are added to the costs; then, in a table with beta >
 * 0, the dilated bonus is taken off; without a table, beta width.
 *
 * Cost: a table with one-hot features O(H S A), and a reading of the transitions where there is
 * a bonus; otherwise O(d^3) a layer for S_h, and the products.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for a loss outside of [0, 1], a state or action that there is
 * not, an occupancy or weight that is negative or not finite, features that are not finite, or
 * costs that would not be. The policy is untouched then. Since 0.1.
 */
SLG_API slg_status slg_mdp_policy_step(slg_mdp_policy *policy, const slg_mdp_episode *episode);

/*
 * State as bytes, little-endian, with a checksum: imported into a policy of the same sizes and
 * options it continues bit for bit. Of the options, sizes, rule and estimator are checked, the
 * numbers are not stored.
 *
 *   bytes  out  needed, or written, number of bytes; buffer NULL: only tells
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (capacity too small), SLG_ERR_STATE (import: not such a
 * state, of other sizes, or damaged), SLG_ERR_MEMORY. The policy is untouched then. Since 0.1.
 */
SLG_API slg_status slg_mdp_policy_export(slg_mdp_policy *policy, void *buffer, int64_t capacity,
                                         int64_t *bytes);
SLG_API slg_status slg_mdp_policy_import(slg_mdp_policy *policy, const void *buffer,
                                         int64_t bytes);

/* What slg_mdp_run plays against. */
typedef struct slg_mdp_world {
    uint32_t size;        /* sizeof(slg_mdp_world), set by slg_mdp_world_init */
    int32_t reserved;     /* 0 */
    int64_t simulations;  /* M >= 0: trajectories an episode; default 0. Some 1 / gamma of them:
                             fewer do not see what is seldom played, and estimates of that are
                             too high */
    int64_t draws;        /* as in slg_simulate; default 0: 2^32 */
    slg_trajectory_fn fn; /* asks slg_mdp_policy_table or _at what to do */
    void *user;
    const slg_tensor *transition; /* of a table: the model. With simulations = 0 its occupancy
                                     is followed instead; also for a bonus. NULL: not known */
    const slg_tensor *start;      /* [S] f32, f64; NULL: state 0 */
} slg_mdp_world;

SLG_API void slg_mdp_world_init(slg_mdp_world *world, size_t size);

/*
 * Plays and learns: for each episode fn plays it (trajectory -1), M simulations are made, and
 * the policy steps. Episode k, the k-th of this call, draws from number offset + k (M + 1)
 * draws on; so a run in pieces is the run in one, if fn counts on by itself.
 *
 *   episodes  in      K >= 0
 *   rng       in/out  offset grows by (M + 1) draws for each episode that was stepped
 *   losses    out     [K] f32, f64: what each episode cost; NULL: not wanted
 *
 * Errors: those of slg_simulate, slg_occupancy and slg_mdp_policy_step, and what fn returns.
 * The policy has stepped through the episodes before then, and no further; losses of those are
 * written. Since 0.1.
 */
SLG_API slg_status slg_mdp_run(slg_mdp_policy *policy, const slg_mdp_world *world,
                               int64_t episodes, slg_rng *rng, slg_tensor *losses);

#ifdef __cplusplus
}
#endif

#endif
