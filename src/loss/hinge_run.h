/*
 * hinge_run.h - hinge losses for slg_hinge and for the layer's objective.
 */
#ifndef SLG_LOSS_HINGE_RUN_H
#define SLG_LOSS_HINGE_RUN_H

#include "core/ctx.h"
#include "softlogit/hinge.h"

typedef struct hinge_spec {
    int32_t form, power;
    double margin;
    double factor;  /* of every row's loss */
    bool per_entry; /* ... and 1 / cols */
} hinge_spec;

/* Checks form, power and margin; then as loss_run. */
slg_status hinge_run(slg_ctx *ctx, const hinge_spec *spec, int32_t reduction,
                     const slg_logits *logits, const slg_targets *targets, slg_loss_out *out,
                     slg_logits_grad *grad);

#endif
