/*
 * engine.h - the machine that every loss over logits runs on. It walks the rows of a source over
 * the pool, reduces each to its log-sum-exp, asks the loss's `solve` for the row's value and the
 * form of its gradient, writes the gradient while the next row is read, adds values up in order,
 * and carries fused gradients back through the output layer.
 *
 * A loss is a loss_method: what it uses, solve, and for those whose gradient is not of the common
 * form, blocks of its own.
 */
#ifndef SLG_LOSS_ENGINE_H
#define SLG_LOSS_ENGINE_H

#include "source.h"
#include "targets.h"

/*
 * One row, between its two passes. With class indices the reduction leaves the target out: so the
 * others' share of the probability keeps its relative precision when the target dominates.
 */
typedef struct loss_row {
    /* Set by the engine before solve. x is after soft-cap and mask; T is the temperature. */
    int64_t row, target;  /* target: -1 where there is none */
    double weight;        /* of the row */
    double scale;         /* d(reduced loss) / d(row's loss times weight) */
    row_stat rest;        /* over all classes, or all but the target */
    float x_target;       /* -inf where there is no target */
    double lse;           /* log-sum-exp of x / T over all classes */
    double log_odds;      /* log(sum of the others / target): lse of the rest less x_target / T */
    double other;         /* 1 - p[target], to its own relative precision; 1 without a target */
    double p_target;
    double sums[8];       /* the method's own reduce adds to these; 0 at first */

    /* Set by solve. */
    double loss;          /* times weight */
    /* Gradient in x:  a p[k] + c  for live classes, 0 for masked ones; target's entry apart.
       The engine multiplies by scale and by 1 / T. */
    double a, c;
    double at_target;
} loss_row;

typedef struct loss_call loss_call;

typedef struct loss_method {
    unsigned uses; /* TARGET_ flags */

    /* Second reduction of a block, beside the log-sum-exp; NULL: none. first: whether it is the
       row's first block. */
    void (*reduce)(const loss_call *call, loss_row *r, int64_t col, int64_t n, const float *x);

    /* Ordinary rows alone: at least one live class, all finite or masked. */
    void (*solve)(const loss_call *call, loss_row *r);

    /* Gradient of a block (n <= EMIT_BLOCK), times scale and 1 / T; NULL: the common form. The
       target's entry is overwritten by the engine. */
    void (*emit)(const loss_call *call, const loss_row *r, int64_t col, int64_t n, const float *x,
                 float *d, int store);
} loss_method;

struct loss_call {
    slg_ctx *ctx;
    const loss_method *method;
    const void *opts;
    int32_t reduction;
    logit_source src;
    target_set target;
    source_grad grad;
    slg_loss_out out;
    double denominator; /* of a mean */
    int store;
    rows loss_rows, lse_rows; /* data NULL: not wanted */
    double *loss;             /* [rows] */
    bool *correct;            /* [rows] */
};

/*
 * Runs a loss. opts are the method's own, read and checked already; the reduction is among them.
 * Checks everything else before anything is written.
 */
slg_status loss_run(slg_ctx *ctx, const loss_method *method, const void *opts, int32_t reduction,
                    const slg_logits *logits, const slg_targets *targets, slg_loss_out *out,
                    slg_logits_grad *grad);

/* Pass 2's parameters for weight * p[k], p over all classes. */
exp_out loss_softmax(const loss_call *call, const loss_row *r, double weight, float c);

/* The block of the common form: for methods whose own emit is for some options only. */
void loss_emit_common(const loss_call *call, const loss_row *r, int64_t n, const float *x, float *d,
                      int store);

/* SLG_ERR_RANGE unless it is one of slg_reduction. */
slg_status reduction_check(slg_ctx *ctx, int32_t reduction);

#endif
