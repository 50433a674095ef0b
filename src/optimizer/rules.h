/*
 * rules.h - an update rule: how many arrays of state it keeps, and how it updates a piece
 * of the weights. The handle (optimizer.c) owns the state, splits the work and counts steps.
 */
#ifndef SLG_OPTIMIZER_RULES_H
#define SLG_OPTIMIZER_RULES_H

#include "core/ctx.h"
#include "softlogit/optimizer.h"

enum { STATE_ARRAYS_MAX = 2, RULE_ARGS_MAX = 64 };

/* Rates and decays, so that they and their products are ordinary floats. */
#define RATE_MAX 1e18

/* Options of any rule, as the handle keeps them. */
typedef union rule_opts {
    slg_sgd_opts sgd;
    slg_adamw_opts adamw;
    slg_optimistic_opts optimistic;
} rule_opts;

typedef struct rule {
    int32_t kind;
    const char *name;

    /* Reads and checks opts (NULL: the defaults). */
    slg_status (*open)(slg_ctx *ctx, const void *opts, rule_opts *o);
    /* State arrays of n floats that these options need. */
    int32_t (*arrays)(const rule_opts *o);
    /* The learning rate among the options: slg_optimizer_set_lr writes it. */
    double *(*lr)(rule_opts *o);
    /* Scalars of step t = 1, 2, ..., for `update`. At most RULE_ARGS_MAX bytes. */
    void (*prepare)(const rule_opts *o, int64_t t, double grad_scale, void *args);
    /* n weights; state[i] is array i at the same offset. */
    void (*update)(const kernel_table *k, const void *args, size_t n, float *w, const float *dw,
                   float *const *state);
} rule;

extern const rule rule_sgd, rule_adamw, rule_optimistic;

/* NULL if there is no such kind. A new rule is a file and a line in this function's table. */
const rule *rule_of(int32_t kind);

/* SLG_ERR_RANGE with the name and numbers unless low <= value <= high (or < high: open). */
slg_status rule_range(slg_ctx *ctx, const char *name, double value, double low, double high,
                      bool open);

#endif
