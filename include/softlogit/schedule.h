/*
 * schedule.h - learning rates as functions of the step: pass the result to
 * slg_optimizer_set_lr before each step. Plain functions of plain numbers; they keep no state
 * and need no context.
 *
 * step counts from 0: the step about to be taken. All of them rise linearly over the first
 * `warmup` steps, to (step + 1) / warmup of the peak: the first step already moves, step
 * warmup - 1 is at the peak. warmup 0 starts there. A negative step counts as 0, a negative
 * warmup as 0; a NaN argument gives NaN.
 */
#ifndef SOFTLOGIT_SCHEDULE_H
#define SOFTLOGIT_SCHEDULE_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* peak after the warm-up. Since 0.1. */
SLG_API double slg_lr_constant(double peak, int64_t step, int64_t warmup);

/* From peak at the end of the warm-up down to `last` at step total - 1, in a straight line, and
   `last` from there on. Since 0.1. */
SLG_API double slg_lr_linear(double peak, double last, int64_t step, int64_t warmup,
                             int64_t total);

/*
 * Half a cosine:  last + (peak - last) (1 + cos(pi x)) / 2,  x rising from 0 at step warmup - 1
 * (or 0) to 1 at step total - 1; `last` from there on. Since 0.1.
 */
SLG_API double slg_lr_cosine(double peak, double last, int64_t step, int64_t warmup,
                             int64_t total);

/* peak sqrt(warmup / (step + 1)) after the warm-up (warmup 0 counts as 1): no end needs to be
   known. Since 0.1. */
SLG_API double slg_lr_inverse_sqrt(double peak, int64_t step, int64_t warmup);

#ifdef __cplusplus
}
#endif

#endif
