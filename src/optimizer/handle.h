/*
 * handle.h - what an optimizer is made of, for the files that work on it.
 */
#ifndef SLG_OPTIMIZER_HANDLE_H
#define SLG_OPTIMIZER_HANDLE_H

#include "chain.h"
#include "rules.h"

struct slg_optimizer {
    slg_ctx *ctx;
    const rule *rule;
    rule_opts opts;
    slg_optimizer_setup setup;
    int64_t n, steps;
    double grad_scale;
    double memory;   /* see rule.advance */
    uint32_t arrays; /* bit i: state[i] is kept */
    char *state[STATE_ARRAYS_MAX];
    int64_t length[STATE_ARRAYS_MAX]; /* numbers that state[i] has; 0: state[i] is NULL */
    slg_tensor *shapes;               /* of the tensors of each step; NULL: any of n weights */
    int64_t shaped;                   /* so many */
    chain chain;
    slg_param_group *groups; /* of tensors 0 to grouped - 1 */
    int64_t grouped;
    chain_report report; /* of the last step */
};

/* Bytes of a number of state array i; of the array. */
static inline size_t state_item(const slg_optimizer *o, int32_t i)
{
    const bool wide = o->rule->whole && (o->rule->whole->wide >> i & 1);
    return o->setup.state_dtype == SLG_BF16 && !wide ? sizeof(uint16_t) : sizeof(float);
}

static inline size_t state_array_bytes(const slg_optimizer *o, int32_t i)
{
    return (size_t)o->length[i] * state_item(o, i);
}

/* Rows of a shape as a matrix, its last dimension the columns. */
static inline int64_t shape_rows(const slg_tensor *t)
{
    int64_t product = 1;
    for (int32_t i = 0; i + 1 < t->ndim; i++) product *= t->shape[i];
    return product > 0 ? product : 1;
}

#endif
