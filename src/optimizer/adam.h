/*
 * adam.h - what Adam's kin share: their moments and the root of the second.
 */
#ifndef SLG_OPTIMIZER_ADAM_H
#define SLG_OPTIMIZER_ADAM_H

#include "rules.h"

slg_status adam_check(slg_ctx *ctx, double beta1, double beta2, double eps);

/* All of adam_arg but shrink, step and fresh. */
void adam_moments(double beta1, double beta2, double eps, int64_t t, adam_arg *a);

#endif
