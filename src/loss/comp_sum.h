/*
 * comp_sum.h - the comp-sum family as functions of v = -log p[t]: for the loss itself and its
 * adversarial form.
 */
#ifndef SLG_LOSS_COMP_SUM_H
#define SLG_LOSS_COMP_SUM_H

#include "engine.h"

/* (exp((1 - tau) v) - 1) / (1 - tau), v at tau = 1; for v in [0, inf]. */
double comp_sum_value(double tau, double v);

/* log of its derivative: (1 - tau) v. */
double comp_sum_log_slope(double tau, double v);

/* v from the engine's log_odds. */
double comp_sum_v(double log_odds);

/* Gradients whose factor is above this are written by comp_sum_emit_large. */
#define LARGE_SLOPE 1e30

/* d[k] = exp(log_a) p[k] in double; infinite only where the product is. */
void comp_sum_emit_large(const loss_row *r, double log_a, int64_t n, const float *x, float *d);

slg_status comp_sum_check_tau(slg_ctx *ctx, double tau);

#endif
