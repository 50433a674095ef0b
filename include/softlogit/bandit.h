/*
 * bandit.h - choosing among arms whose costs a network predicts: inverse gap weighting.
 *
 * Paper: "Contextual Bandits with Online Neural Regression" (2024).
 */
#ifndef SOFTLOGIT_BANDIT_H
#define SOFTLOGIT_BANDIT_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

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

#ifdef __cplusplus
}
#endif

#endif
