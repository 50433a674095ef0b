/*
 * methods.h - losses that other operations are made of: they run on loss_open and loss_execute
 * with the loss's own options.
 */
#ifndef SLG_LOSS_METHODS_H
#define SLG_LOSS_METHODS_H

#include "engine.h"

extern const loss_method cross_entropy_method; /* slg_cross_entropy_opts */
extern const loss_method binary_kl_method;     /* slg_binary_kl_opts, as the next */
extern const loss_method binary_kl_normalised_method;

/* slg_squared_softmax within an operation, its options read already. */
slg_status squared_softmax_run(slg_ctx *ctx, const slg_logits *logits,
                               const slg_targets *targets, const slg_squared_softmax_opts *opts,
                               slg_loss_out *out, slg_logits_grad *grad);

#endif
