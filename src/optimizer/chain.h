/*
 * chain.h - transformations of gradients as coefficients. Clipping by a norm, projections and
 * scales make of a gradient g a combination a g + b w, and know it by three sums: w.w, w.g,
 * g.g. So a chain of them costs one read of w and g, whatever its length, and the update takes
 * the coefficients along. Clipping by value is the one link that is no combination: what comes
 * before it is folded into what is clamped, what comes after needs new sums.
 */
#ifndef SLG_OPTIMIZER_CHAIN_H
#define SLG_OPTIMIZER_CHAIN_H

#include "pieces.h"
#include "softlogit/gradient.h"

enum { CHAIN_MOST = 8 };

typedef struct chain {
    int64_t count;
    slg_transform links[CHAIN_MOST];
} chain;

typedef struct chain_report {
    bool skip;         /* SLG_SKIP_NONFINITE says so */
    double norm;       /* before the first SLG_CLIP_NORM; -1: there is none */
    double factor;     /* of that; 1 where nothing was clipped */
    int64_t zeroed;    /* tensors of which the projection left nothing */
    int64_t nonfinite; /* tensors passed over since they hold a NaN or an infinity */
} chain_report;

/* Checks the links and copies them. */
slg_status chain_read(slg_ctx *ctx, const slg_transform *links, int64_t count, chain *out);

/* Sets the map of each tensor; grad_scale comes before the chain. Sums are in double, over
   pieces in order. */
slg_status chain_run(slg_ctx *ctx, const chain *c, double grad_scale, step_pieces *p,
                     chain_report *report);

/* A map as an update takes it, with decay that enters the gradient. */
update_grad chain_fold(const gradient_map *m, float decay);

#endif
