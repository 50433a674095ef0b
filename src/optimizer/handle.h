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
    chain chain;
    slg_param_group *groups; /* of tensors 0 to grouped - 1 */
    int64_t grouped;
    chain_report report; /* of the last step */
};

/* Bytes of a number of state, of an array. */
static inline size_t state_item(const slg_optimizer *o)
{
    return o->setup.state_dtype == SLG_BF16 ? sizeof(uint16_t) : sizeof(float);
}

static inline size_t state_array_bytes(const slg_optimizer *o)
{
    return (size_t)o->n * state_item(o);
}

#endif
