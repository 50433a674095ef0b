/*
 * engine.h - the machine that every loss over logits runs on. It walks the rows of a source
 * over the pool, reduces each to its log-sum-exp, asks the loss's `solve` for the row's value
 * and the form of its gradient, writes the gradient while the next row is read, adds values up
 * in order, and carries fused gradients back through the output layer.
 *
 * A loss is a loss_method: what it uses, solve, and for those whose gradient is not
 * of the common form, blocks of its own.
 */
#ifndef SLG_LOSS_ENGINE_H
#define SLG_LOSS_ENGINE_H

#include <math.h>

#include "source.h"
#include "targets.h"

enum { LOSS_EXTRA = 4 };

/*
 * One row, between its two passes. With class indices the reduction leaves the target out: so
 * the others' share of the probability keeps its relative precision when the target dominates.
 */
typedef struct loss_row {
    /* Set by the engine before solve. x is after soft-cap and mask; T is the row's
       temperature. */
    int64_t row, target; /* target: -1 where there is none */
    double weight;       /* of the row */
    double scale;        /* d(reduced loss) / d(row's loss times weight) */
    double temperature;  /* T */
    row_stat rest;       /* over all classes, or all but the target */
    float x_target;      /* -inf where there is no target */
    double lse;          /* log-sum-exp of x / T over all classes */
    double log_odds;     /* log(sum of the others / target): lse of the rest less
                            x_target / T */
    double other;        /* 1 - p[target], to its own relative precision; 1 without a target */
    double p_target;
    lse_part parts[3]; /* for the method's own reductions (kernel lse_dot); LSE_EMPTY at
                          first */
    double sums[12];   /* the method's own reductions add to these; 0 at first */

    /* Set by solve. */
    double loss; /* times weight */
    /* Gradient in x:  a p[k] + c  for live classes, 0 for masked ones; target's entry apart.
       The engine multiplies by scale and by 1 / T. */
    double a, c;
    double at_target;
    double more[4]; /* what the method's emit needs beside */
    int store;      /* for whole: how its gradient is written */
    float *dt;      /* for whole: the teacher's gradient; NULL where it is not wanted */
    double extra[LOSS_EXTRA]; /* what the method returns beside the loss, see
                                 loss_open_extra */
} loss_row;

typedef struct loss_call loss_call;

enum {
    LOSS_NO_LSE = 1, /* no log-sum-exp: the method's own reduce alone. NaN and infinities are
                        its own affair, out.lse is refused, out.correct is 0. */
    LOSS_KEEP_TARGET = 2,  /* emit and row write the target's entry themselves */
    LOSS_SEES_IGNORED = 4, /* solve and whole also get ignored rows (target -1, no d), for
                              extras */
    LOSS_EMPTY_NAN = 8, /* a row with every class masked: loss and gradient NaN, as of a NaN */
    /* With LOSS_NO_LSE: reduce keeps rest.part.max, as the log-sum-exp would, so out.correct is
       known; not of rows whose loss is NaN. */
    LOSS_HAS_MAX = 16,
    /* A target whose own logit is -inf (the mask left it in) has at_target for a gradient, as
       the formula gives with p[target] = 0; else it has 0, as all masked classes have. */
    LOSS_LABEL_OPEN = 32
};

typedef struct loss_method {
    unsigned uses;  /* TARGET_ flags */
    unsigned flags; /* LOSS_ flags */

    /* Checks what is the method's own, once shapes are known and before anything is written
       (the tensors in its options, say), and sets up call->state; NULL: nothing to do. */
    slg_status (*open)(loss_call *call);

    /* Second reduction of a block, beside the log-sum-exp; NULL: none. t: the teacher's block,
       where the method uses one. */
    void (*reduce)(const loss_call *call, loss_row *r, int64_t col, int64_t n, const float *x,
                   const float *t);

    /* Instead of both, for kernels that do several sums in one loop: also adds the block, less
       the target's entry, to r->rest (row_segment first). */
    void (*reduce_all)(const loss_call *call, loss_row *r, int64_t col, int64_t n,
                       const float *x, const float *t);

    /* Instead of reduce and emit, with LOSS_NO_LSE, where the gradient needs nothing of the row
       but what is known at its start (weight, scale, temperature): adds the block's values to
       r->sums, and where d is not NULL writes the gradient, times loss_factor(r). Blocks may be
       whole rows. Where solve then leaves r->loss NaN, the engine makes the gradient NaN. */
    void (*at_once)(const loss_call *call, loss_row *r, int64_t col, int64_t n, const float *x,
                    const float *t, float *d, int store);

    /* Value and form of the gradient. Ordinary rows alone: at least one live class, all finite
       or masked (of x; the teacher's are the method's affair). */
    void (*solve)(const loss_call *call, loss_row *r);

    /* Gradient of a block (n <= EMIT_BLOCK), times scale and 1 / T; NULL: the common form. The
       target's entry is overwritten by the engine. */
    void (*emit)(const loss_call *call, const loss_row *r, int64_t col, int64_t n,
                 const float *x, const float *t, float *d, int store);

    /* With emit: whether this row's gradient is of the common form after all, and emit would be
       loss_emit_common; NULL: never. */
    bool (*common)(const loss_call *call, const loss_row *r);

    /* Instead of solve and emit, for a method that must see the row whole (a sort, a third
       pass): x and t are whole rows, lse and the rest are known; it sets r->loss, and where d
       is not NULL writes the gradient, times loss_factor(r). scratch is scratch_floats(cols)
       floats. */
    void (*whole)(const loss_call *call, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch);
    int64_t (*scratch_floats)(int64_t cols);

    /* Instead of all of them, for rows so short that many are taken side by side, with
       LOSS_NO_LSE: rows [first, first + count) of the source's block, which it splits over the
       pool itself. It sets call->loss, and where call->grad is wanted stages, writes and
       commits the gradients. */
    void (*rows)(loss_call *call, int64_t first, int64_t count);
    int64_t more_classes; /* than the source has columns */

    /* Rows that solve and whole do not get, since r->lse is NaN or infinite, for a method
       that writes outputs of its own; NULL: nothing to do. Ignored rows too with
       LOSS_SEES_IGNORED. */
    void (*unusual)(const loss_call *call, const loss_row *r);

    /* The extras of a row with every class masked. They are NaN where the row holds NaN or
       +inf, and 0 where it is ignored and the method does not see ignored rows. */
    double extra_masked[LOSS_EXTRA];
} loss_method;

struct loss_call {
    slg_ctx *ctx;
    const loss_method *method;
    const void *opts;
    void *state; /* the method's own, see open */
    int32_t reduction;
    double gain; /* what gradients, not values, are multiplied by */
    logit_source src, teacher;
    bool has_teacher;
    const slg_logits *given_logits; /* as the caller gave them, for open */
    const slg_targets *given_targets;
    const slg_logits_grad *given_grad, *given_teacher_grad;
    target_set target;
    source_grad grad, teacher_grad;
    slg_loss_out out;
    double denominator; /* of a mean */
    int store;
    rows loss_rows, lse_rows; /* data NULL: not wanted */
    rows extra[LOSS_EXTRA];   /* the same */
    const slg_tensor *extra_tensor[LOSS_EXTRA];
    double *loss;  /* [rows] */
    bool *correct; /* [rows] */
    float *worker; /* for whole rows: worker_floats a worker */
    int64_t worker_floats;
};

/*
 * Runs a loss. opts are the method's own, read and checked already; the reduction is among
 * them. Checks everything else before anything is written.
 */
slg_status loss_run(slg_ctx *ctx, const loss_method *method, const void *opts,
                    int32_t reduction, const slg_logits *logits, const slg_targets *targets,
                    slg_loss_out *out, slg_logits_grad *grad);

/*
 * For open: the caller's tensor t (NULL: not wanted) gets loss_row.extra[i] of each row. Checks
 * that it is [rows] f32 or f64, and shares no memory with what else was given.
 */
slg_status loss_open_extra(loss_call *call, int i, const char *name, const slg_tensor *t);

/* For open: an input tensor of a method's options shares no memory with what is written. */
slg_status loss_check_input(loss_call *call, const char *name, const slg_tensor *t);
/* The check of the latter alone, for outputs of another shape. */
slg_status loss_open_apart(loss_call *call, const char *name, const slg_tensor *t);

/* Reads and checks the caller's out; for the engine. */
slg_status loss_open_out(loss_call *call, const slg_loss_out *given, const slg_targets *targets,
                         const slg_logits *logits, const slg_logits_grad *grad);

/*
 * loss_run with a gradient of the teacher as well, for methods with `whole` and TARGET_TEACHER:
 * they write it to loss_row.dt, in the teacher's logits before the division by their
 * temperature.
 */
slg_status loss_run_pair(slg_ctx *ctx, const loss_method *method, const void *opts,
                         int32_t reduction, const slg_logits *logits,
                         const slg_targets *targets, slg_loss_out *out, slg_logits_grad *grad,
                         slg_logits_grad *teacher_grad);

/* For the engine: checks teacher_grad against all else; whether the row's target is its
   arg-max. */
slg_status loss_open_teacher_grad(loss_call *call, const slg_logits_grad *given);
bool loss_leads(const loss_call *call, const loss_row *r);

/*
 * Its two halves, for an operation that is several losses: all are opened, which checks
 * everything and takes scratch, before the first is run. In between call->gain may be set.
 */
slg_status loss_open(slg_ctx *ctx, const loss_method *method, const void *opts,
                     int32_t reduction, const slg_logits *logits, const slg_targets *targets,
                     slg_loss_out *out, slg_logits_grad *grad, slg_logits_grad *teacher_grad,
                     loss_call *call);
slg_status loss_execute(loss_call *call, slg_loss_out *out);

/* How whole rows are best written to where source_grad_stage said, for `whole`. */
static inline int loss_store(const loss_call *call, const source_grad *g)
{
    return g->dlogits.plain && !g->in_place ? call->store : STORE_CACHED;
}

/* weight * value, 0 where the weight is, also of an infinite value. */
static inline double loss_term(double weight, double value)
{
    return weight == 0 ? 0 : weight * value;
}

/* The class's weight in targets, for rows that have a target. */
static inline double loss_class_weight(const loss_call *call, const loss_row *r)
{
    const float *w = call->target.class_weight;
    return w ? (double)w[r->target] : 1.0;
}

/* log(1 + exp(a)): of log_odds it is -log p[target]. */
static inline double loss_softplus(double a)
{
    return a > 0 ? a + log1p(exp(-a)) : log1p(exp(a));
}

/* Whether the target's entry of the gradient is 0 whatever the formula says. */
static inline bool loss_target_masked(const loss_call *c, const loss_row *r)
{
    bool by_mask = c->src.mask && c->src.mask[r->target] == 0;
    return r->x_target == -INFINITY && (by_mask || !(c->method->flags & LOSS_LABEL_OPEN));
}

/* What a gradient in x / T is multiplied by: scale / T. */
static inline double loss_factor(const loss_row *r) { return r->scale / r->temperature; }

/* Pass 2's parameters for weight * p[k], p over all classes. */
exp_out loss_softmax(const loss_call *call, const loss_row *r, double weight, float c);

/* The block of the common form: for methods whose own emit is for some options only. */
void loss_emit_common(const loss_call *call, const loss_row *r, int64_t n, const float *x,
                      float *d, int store);

/* SLG_ERR_RANGE unless it is one of slg_reduction. */
slg_status reduction_check(slg_ctx *ctx, int32_t reduction);

#endif
