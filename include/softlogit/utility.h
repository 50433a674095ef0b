/*
 * utility.h - a softmax network seen as a utility: a ranking of outputs, of which maximum
 * likelihood teaches preferences, and which becomes a probability only by a choice of scale.
 * The preference view of cross-entropy, utilities to probabilities, the scale's fit, and
 * decisions made from them.
 *
 * Paper: "Utility-Probability Duality of Neural Networks" (2023).
 */
#ifndef SOFTLOGIT_UTILITY_H
#define SOFTLOGIT_UTILITY_H

#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Training: preferences --------------------------------------------------------------- */

/* Options of slg_preference. */
typedef struct slg_preference_opts {
    uint32_t size;      /* sizeof(slg_preference_opts), set by its _init */
    int32_t reduction;  /* slg_reduction; default SLG_MEAN */
    slg_tensor *margin; /* out: NULL, or [rows] f32, f64: margin of each row, without weights */
} slg_preference_opts;

SLG_API void slg_preference_opts_init(slg_preference_opts *opts, size_t size);

/*
 * Cross-entropy as a preference for the label y over every rival r, with u the logits (divided
 * by their temperature), p = softmax(u), e_k the unit vectors:
 *
 *     loss     = w * (-log p[y])
 *     gradient = w * sum_r p[r] (e_r - e_y) = w * (p - e_y)
 *     margin   = u[y] - sum_r p[r] u[r]
 *
 * The margin is the mean preference gap; above 0, y beats what the network chooses on average.
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index; row_weight; the others NULL
 *   opts     in   NULL: the defaults. What opts->margin points to is written.
 *   out      out  see slg_loss_out; not NULL
 *   grad     out  NULL: not wanted
 *
 * A label whose logit is -inf: loss +inf, margin -inf, gradient p - e_y, so -w at the label;
 * the same where logits.mask leaves it out, but 0 at the label then. A row with NaN or +inf:
 * all NaN. All classes masked: loss +inf, gradient 0, margin NaN. Ignored rows: 0, 0, 0. One
 * live class, the label: 0, 0, 0. Loss, gradient and margin keep their relative precision
 * where the label dominates.
 *
 * Cost: as slg_cross_entropy, and one more exponential an element where margin is wanted.
 *
 * Errors: as slg_cross_entropy. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_preference(slg_ctx *ctx, const slg_logits *logits,
                                  const slg_targets *targets, const slg_preference_opts *opts,
                                  slg_loss_out *out, slg_logits_grad *grad);

/* Options of slg_rival_gradient. */
typedef struct slg_rival_gradient_opts {
    uint32_t size;      /* sizeof(slg_rival_gradient_opts), set by its _init */
    int32_t reduction;  /* slg_reduction; default SLG_SUM: rows as they are (so does SLG_NONE);
                           SLG_MEAN divides by the weights of the rows that count */
    int32_t accumulate; /* 1: adds to dlogits, of which only samples + 1 columns a row are
                           touched; default 0: dlogits is zeroed first */
    int32_t reserved;   /* 0 */
} slg_rival_gradient_opts;

SLG_API void slg_rival_gradient_opts_init(slg_rival_gradient_opts *opts, size_t size);

/*
 * The sampled form of that gradient, from rivals r_1 .. r_s of each row:
 *
 *     dlogits[row] = w * (1/s) sum_j (e_{r_j} - e_y)
 *
 * Rivals drawn from p make it an unbiased estimate of slg_preference's gradient. A rival equal
 * to y adds nothing.
 *
 *   logits   in      [rows, cols] f32, bf16, f16: what rivals are drawn from; not looked at,
 *                    and may be NULL, where rivals are given by the caller (rng NULL)
 *   targets  in      index; row_weight; the others NULL
 *   opts     in      NULL: the defaults
 *   rng      in/out  NULL: rivals are given. Else they are drawn, with replacement, by
 *                    inverting the distribution function: draw j of row i is number
 *                    offset + i * s + j; offset grows by rows * s.
 *   rivals   in/out  [rows, s] i32, i64, s >= 1: given, or those that were drawn
 *   dlogits  out     [rows, cols] f32; may be logits itself where accumulate is 0
 *
 * Drawing: a row with NaN, or with every class masked, has rivals -1 and gradient NaN or 0;
 * classes of +inf share the probability; a masked class is never drawn. Ignored rows draw too,
 * and have gradient 0. Where given, a rival of an ignored row is checked all the same.
 *
 * Cost: O(s) a row, and O(cols) to zero or to draw.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for a label or a given rival outside of [0, cols). Outputs and
 * rng are untouched then. Since 0.1.
 */
SLG_API slg_status slg_rival_gradient(slg_ctx *ctx, const slg_tensor *logits,
                                      const slg_targets *targets,
                                      const slg_rival_gradient_opts *opts, slg_rng *rng,
                                      slg_tensor *rivals, slg_tensor *dlogits);

/* ---- Utilities to probabilities ---------------------------------------------------------- */

/* Options of slg_utility_transform. */
typedef struct slg_utility_transform_opts {
    uint32_t size;       /* sizeof(slg_utility_transform_opts), set by its _init */
    int32_t offsets;     /* default 0: group says each candidate's group; 1: where groups
                            start */
    double length_power; /* alpha >= 0, default 0: none; 1: mean score of a token */
    double temperature;  /* tau >= 0, default 1; 0: all to the best, ties share */
} slg_utility_transform_opts;

SLG_API void slg_utility_transform_opts_init(slg_utility_transform_opts *opts, size_t size);

/*
 * Probabilities of the candidates of each group, from their utilities:
 *
 *     s[i]        = utility[i] / max(length[i], 1)^length_power
 *     log_prob[i] = s[i] / temperature - log sum over the group of exp(s / temperature)
 *
 *   utility   in   [N] f32, f64: as the log-probability of a sequence
 *   length    in   [N] i32, i64, >= 0; NULL: all 1
 *   group     in   [N] i32, i64 in [0, groups), in any order; with offsets [groups + 1], from 0
 *                  to N without descent: group g holds [group[g], group[g + 1]). NULL: all
 *                  of one group
 *   groups    in   number of groups; 1 where group is NULL
 *   opts      in   NULL: the defaults
 *   log_prob  out  [N] f32, f64; NULL: not wanted; may be utility itself
 *   prob      out  [N] f32, f64; NULL: not wanted
 *   best      out  [groups] i32, i64: candidate of the largest s, the first on a tie; -1: none;
 *                  or NULL
 *   entropy   out  [groups] f32, f64, in nats; NULL: not wanted
 *
 * utility = -inf is no candidate: probability 0, log_prob -inf. A group without candidates:
 * best -1, entropy 0. +inf: those share the probability, and the first is best. A NaN:
 * log_prob, prob and entropy of the group NaN, best -1. The group's maximum is subtracted
 * before the division by the temperature, so nothing overflows.
 *
 * Cost: O(N) with one exponential; workspace 3 doubles and an index a group. Computed in
 * double.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for a group or length outside of its range, length_power or
 * temperature negative, infinite or NaN. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_utility_transform(slg_ctx *ctx, const slg_tensor *utility,
                                         const slg_tensor *length, const slg_tensor *group,
                                         int64_t groups, const slg_utility_transform_opts *opts,
                                         slg_tensor *log_prob, slg_tensor *prob,
                                         slg_tensor *best, slg_tensor *entropy);

/*
 * Its gradient: dutility[j] = (dlog_prob[j] - P[j] sum over the group of dlog_prob) /
 * (max(length[j], 1)^length_power temperature). log_prob is what the forward call gave; length,
 * group, groups and opts are the same. Where log_prob is -inf, dlog_prob is not looked at and
 * dutility is 0.
 *
 *   log_prob   in   [N] f32, f64
 *   dlog_prob  in   [N] f32, f64
 *   dutility   out  [N] f32, f64; may be dlog_prob itself
 *
 * Errors: as slg_utility_transform; SLG_ERR_RANGE for a temperature of 0 too. Since 0.1.
 */
SLG_API slg_status slg_utility_transform_backward(slg_ctx *ctx, const slg_tensor *log_prob,
                                                  const slg_tensor *dlog_prob,
                                                  const slg_tensor *length,
                                                  const slg_tensor *group, int64_t groups,
                                                  const slg_utility_transform_opts *opts,
                                                  slg_tensor *dutility);

/* ---- The scale's fit --------------------------------------------------------------------- */

/* Options of slg_temperature_fit. */
typedef struct slg_temperature_fit_opts {
    uint32_t size;      /* sizeof(slg_temperature_fit_opts), set by its _init */
    int32_t iterations; /* at most, >= 1; default 100 (6 are usual) */
    double least, most; /* of the inverse temperature; in [1e-20, 1e20]; default 1e-3 and 1e3 */
} slg_temperature_fit_opts;

SLG_API void slg_temperature_fit_opts_init(slg_temperature_fit_opts *opts, size_t size);

/* What the fit found. */
typedef struct slg_temperature_fit_out {
    uint32_t size;              /* sizeof(slg_temperature_fit_out), set by its _init */
    int32_t evaluations;        /* passes over logits */
    double inverse_temperature; /* beta: 1 / temperature */
    double nll_before;          /* mean negative log-likelihood at beta = 1 */
    double nll_after;           /* and at the beta found */
} slg_temperature_fit_out;

SLG_API void slg_temperature_fit_out_init(slg_temperature_fit_out *out, size_t size);

/*
 * The inverse temperature that makes labels most likely, with z the logits (already divided by
 * the temperatures that they come with):
 *
 *     beta = arg min over [least, most] of  mean( logsumexp(beta z) - beta z[y] )
 *
 * Convex; by Newton's method kept inside of a bracket, to a step of 1e-9 of beta or until
 * iterations have been made. Where the optimum is outside, the nearer bound; least, where beta
 * does not matter. The mean is weighted by row_weight. No rows that count: beta 1.
 *
 *   logits   in   [rows, cols] or an output layer
 *   targets  in   index; row_weight; the others NULL
 *   opts     in   NULL: the defaults
 *   out      out  not NULL
 *
 * Cost: a pass over the logits with two exponentials an element for each evaluation.
 *
 * Errors: as slg_cross_entropy; SLG_ERR_RANGE also where a row that counts holds NaN or +inf,
 * or its label is masked. Since 0.1.
 */
SLG_API slg_status slg_temperature_fit(slg_ctx *ctx, const slg_logits *logits,
                                       const slg_targets *targets,
                                       const slg_temperature_fit_opts *opts,
                                       slg_temperature_fit_out *out);

/* ---- Decisions --------------------------------------------------------------------------- */

/* Options of slg_utility_sample. */
typedef struct slg_utility_sample_opts {
    uint32_t size;      /* sizeof(slg_utility_sample_opts), set by its _init */
    int32_t top;        /* > 0: among the largest so many of a row (the first of equals);
                           default 0: all */
    double temperature; /* 0, or from 1e-30 to 1e30; default 1; 0: the arg-max, the first on
                           a tie */
} slg_utility_sample_opts;

SLG_API void slg_utility_sample_opts_init(slg_utility_sample_opts *opts, size_t size);

/*
 * A sample of softmax(utility / temperature) a row:
 *
 *     noise given: index = arg max_i utility[i] + temperature * noise[i], the first on a tie
 *     else:        the first index at which the distribution function reaches a uniform number
 *
 * Gumbel noise (slg_random) makes the first a sample too. The second draws one number a row.
 *
 *   utility  in      [rows, cols] f32, bf16, f16: utilities, logits or log-probabilities
 *   noise    in      [rows, cols] f32, f64; NULL: rng is used
 *   opts     in      NULL: the defaults
 *   rng      in/out  row i uses number offset + i; offset grows by rows. Not looked at, and may
 *                    be NULL, where noise is given or temperature is 0
 *   index    out     [rows] i32, i64: -1 for a row with NaN, without columns or with every
 *                    class masked
 *
 * -inf is never chosen. Classes of +inf share the probability (with noise: the largest noise of
 * them). NaN noise is not chosen. Probabilities are exact to 2^-20; so, once in some 10^6 rows,
 * ISA levels may differ in which of two neighbours is chosen.
 *
 * Cost: a read of the row, and up to one more; with top, a partial sort.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an option outside of its domain. Since 0.1.
 */
SLG_API slg_status slg_utility_sample(slg_ctx *ctx, const slg_tensor *utility,
                                      const slg_tensor *noise,
                                      const slg_utility_sample_opts *opts, slg_rng *rng,
                                      slg_tensor *index);

/*
 * Minimum Bayes risk: the candidate of the largest expected gain,
 *
 *     expected[i] = sum_j prob[j] gain[i, j]
 *     best = arg max_i expected[i], the first on a tie
 *
 * With candidates that were drawn from the network, equal probabilities already stand for it.
 *
 *   prob      in   [n] f32, f64: the references' weights
 *   gain      in   [m, n] f32, f64: how good candidate i is if reference j is right; mostly
 *                  m = n
 *   expected  out  [m] f32, f64; NULL: not wanted
 *   best      out  [1] i32, i64: -1 where m is 0 or every expectation NaN; NULL: not wanted
 *
 * Where prob[j] is 0, gain[i, j] is not looked at. Sums in double.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY. Outputs
 * are untouched then. Since 0.1.
 */
SLG_API slg_status slg_minimum_bayes_risk(slg_ctx *ctx, const slg_tensor *prob,
                                          const slg_tensor *gain, slg_tensor *expected,
                                          slg_tensor *best);

/* Writes gain[i, j] for i in [first, first + count) and all j to gain[(i - first) * n + j].
   Returns 0, or another number to stop. */
typedef int32_t (*slg_gain_fn)(void *user, int64_t first, int64_t count, int64_t n,
                               double *gain);

/*
 * The same, with the gains made by a function, on the caller's thread, some 64 KiB at a time:
 * so [m, n] need not be in memory. The function must not call the library with ctx.
 *
 * Errors: as above; SLG_ERR_RANGE for candidates < 0, SLG_ERR_STOPPED where the function says
 * so. Since 0.1.
 */
SLG_API slg_status slg_minimum_bayes_risk_fn(slg_ctx *ctx, const slg_tensor *prob,
                                             int64_t candidates, slg_gain_fn gain, void *user,
                                             slg_tensor *expected, slg_tensor *best);

#ifdef __cplusplus
}
#endif

#endif
