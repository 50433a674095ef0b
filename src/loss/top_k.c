/*
 * top_k.c - see top_k.h.
 */
#include "top_k.h"

group group_of(const loss_call *call, const loss_row *r, int64_t n, const float *x)
{
    lse_part part = LSE_EMPTY;
    double dot[2] = { 0, 0 };
    const row_stat *rest = &r->rest;
    if (rest->kind != ROW_PLAIN || n == 0) return (group){ 0, 0, 0 };
    const float shift = rest->part.max;
    call->ctx->k.lse_dot((size_t)n, x, NULL, shift, &rest->arg, &part, dot);
    if (!(part.sum > 0)) return (group){ 0, 0, 0 };
    double log_sum = log(part.sum) + (double)part.ref * rest->arg.unit;
    double at_shift = ((double)rest->arg.pre - (double)shift) / r->temperature;
    double below = -dot[0] / part.sum / r->temperature; /* mean of (shift - x) / T, >= 0 */
    group g = { exp(log_sum - rest->lse_rel) * r->other, 0, log_sum + at_shift + below };
    g.entropy = g.mass * (top_softplus(-r->log_odds) + rest->lse_rel + at_shift + below);
    if (g.own_entropy < 0) g.own_entropy = 0;
    return g;
}
