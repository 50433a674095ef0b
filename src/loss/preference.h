/*
 * preference.h - cross-entropy with the mean gap between the label's logit and the others', and
 * its variance: what slg_preference returns, and what slg_temperature_fit descends along.
 */
#ifndef SLG_LOSS_PREFERENCE_H
#define SLG_LOSS_PREFERENCE_H

#include "engine.h"
#include "softlogit/utility.h"

/* In: what is wanted. Out, in the arena: of x / T. Rows that are ignored: 0; NaN where
   undefined. */
typedef struct preference_rows {
    bool want;
    double *margin;   /* x[y] - E_p[x] */
    double *variance; /* Var_p[x] */
    int64_t rows;
} preference_rows;

slg_status preference_run(slg_ctx *ctx, int32_t reduction, const slg_logits *logits,
                          const slg_targets *targets, slg_loss_out *out, preference_rows *found,
                          const slg_tensor *margin, slg_logits_grad *grad);

#endif
