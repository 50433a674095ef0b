/*
 * spherical_terms.h - the spherical family (see softlogit/spherical.h) as a function of a row's
 * sums: what the loss on logits and the factorised output layer share.
 */
#ifndef SLG_SOFTMAX_SPHERICAL_TERMS_H
#define SLG_SOFTMAX_SPHERICAL_TERMS_H

#include "core/ctx.h"
#include "softlogit/spherical.h"

typedef struct spherical_form {
    int32_t kind;
    double a, b, eps;
} spherical_form;

/* A row's sums. spread is sum (o - mean)^2 = q - s^2 / D; only the Z-loss looks at it, and only
   the log-softmaxes at s and q. */
typedef struct spherical_sums {
    double classes, s, q, spread, target;
} spherical_sums;

/* Loss, its derivatives by s, q and the target's output, and the target's z (0 for other
   kinds). */
typedef struct spherical_value {
    double loss, ds, dq, dt, z;
} spherical_value;

/* SLG_ERR_RANGE, with a message, unless the form is one of those that the header allows. */
slg_status spherical_form_check(slg_ctx *ctx, const spherical_form *f);

spherical_value spherical_evaluate(const spherical_form *f, const spherical_sums *sums);

/* z = (target - mean) / sigma; 0 where sigma is. NaN where a sum is not finite. */
double spherical_z(const spherical_sums *sums);

/* Of the Z-loss: dloss/dz, in (-1, 0), and its value. */
double spherical_z_slope(const spherical_form *f, double z);
double spherical_z_loss(const spherical_form *f, double z);

#endif
