/*
 * softmax_options.h - the options that all functions of softmax.h share.
 */
#ifndef SLG_SOFTMAX_SOFTMAX_OPTIONS_H
#define SLG_SOFTMAX_SOFTMAX_OPTIONS_H

#include "core/options.h"
#include "softlogit/softmax.h"

/* Temperatures: so that T log(2) and its inverse are ordinary floats. */
#define TEMPERATURE_MIN 1e-30
#define TEMPERATURE_MAX 1e30

/* Reads opts (NULL: the defaults) into *o and checks every field. */
slg_status softmax_options(slg_ctx *ctx, const slg_softmax_opts *opts, slg_softmax_opts *o);

/* SLG_ERR_RANGE with a message unless it is within the two bounds. */
slg_status temperature_check(slg_ctx *ctx, double temperature);

#endif
