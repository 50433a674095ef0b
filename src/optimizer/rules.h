/*
 * rules.h - an update rule: how many arrays of state it keeps, and how it updates a piece
 * of the weights. The handle (optimizer.c) owns the state, splits the work and counts steps.
 */
#ifndef SLG_OPTIMIZER_RULES_H
#define SLG_OPTIMIZER_RULES_H

#include "core/ctx.h"
#include "core/options.h"
#include "pieces.h"
#include "softlogit/optimizer.h"

enum { STATE_ARRAYS_MAX = 3, RULE_ARGS_MAX = 64 };

/* Rates and decays, so that they and their products are ordinary floats. */
#define RATE_MAX 1e18

/* Options of any rule, as the handle keeps them. */
typedef union rule_opts {
    slg_sgd_opts sgd;
    slg_adamw_opts adamw;
    slg_optimistic_opts optimistic;
    slg_nadam_opts nadam;
    slg_rmsprop_opts rmsprop;
    slg_lion_opts lion;
    slg_egd_opts egd;
    slg_adafactor_opts adafactor;
} rule_opts;

/* Scalars of a step for `update`: of the tensors of one group. */
typedef struct rule_args {
    float decay; /* what of w enters the gradient */
    _Alignas(16) char kernel[RULE_ARGS_MAX];
} rule_args;

/* What a rule needs that sees whole tensors, as matrices of n / rows columns; a vector, and any
   tensor of an optimizer made without shapes, has one row. */
typedef struct whole_rule {
    uint32_t wide; /* bit i: array i is float32, whatever the setup says */
    /* Numbers that an array keeps for a tensor of n weights: at most n. 0 for n = 0. */
    int64_t (*length)(int32_t array, int64_t n, int64_t rows);
    /* In place of `update`: all tensors of a step, args prepared. Takes its scratch before it
       changes anything: SLG_ERR_MEMORY is its only error. */
    slg_status (*step)(slg_optimizer *o, const step_pieces *p, uint32_t key);
} whole_rule;

typedef struct rule {
    int32_t kind;
    const char *name;

    /* Reads and checks opts (NULL: the defaults). */
    slg_status (*open)(slg_ctx *ctx, const void *opts, rule_opts *o);
    /* Bit i: state array i is kept, of n numbers unless `whole` has another length. */
    uint32_t (*arrays)(const rule_opts *o);
    /* The rate and the decay among the options: slg_optimizer_set_lr and groups change them. */
    double *(*lr)(rule_opts *o);
    double *(*decay)(rule_opts *o);
    /* Scalars of step t = 1, 2, ...; memory is the number that `advance` keeps. */
    void (*prepare)(const rule_opts *o, int64_t t, double memory, rule_args *args);
    /* The number that a rule keeps beside its arrays: from that of step t - 1 (0: none) to that
       of step t. NULL: no such number. */
    double (*advance)(const rule_opts *o, int64_t t, double memory);
    /* n weights; state[i] of the part is array i at the same offset. */
    void (*update)(const kernel_table *k, const void *args, size_t n, float *w, const float *dw,
                   const update_part *part);
    const whole_rule *whole; /* NULL: weights are updated one by one, by `update` */
} rule;

extern const rule rule_sgd, rule_adamw, rule_optimistic, rule_nadam, rule_rmsprop, rule_lion,
    rule_egd, rule_adafactor;

/* NULL if there is no such kind. A new rule is a file and a line in this function's table. */
const rule *rule_of(int32_t kind);

/* SLG_ERR_RANGE with the name and numbers unless low <= value < high. */
slg_status rule_below(slg_ctx *ctx, const char *name, double value, double low, double high);

/* lr and weight_decay, as all rules have them. */
slg_status rule_rates(slg_ctx *ctx, double lr, double weight_decay);

/* decoupled: its options' field of that name. The shrink of the kernel's arguments, and
   args->decay. */
static inline float rule_decay(int32_t decoupled, double lr, double decay, rule_args *args)
{
    args->decay = decoupled ? 0.0f : (float)decay;
    return decoupled ? (float)(lr * decay) : 0.0f;
}

/* The parts of a rule that are the same text for each: where lr and decay are; its kernel. */
#define RULE_FIELDS(name)                                                                      \
    static double *lr(rule_opts *o) { return &o->name.lr; }                                    \
    static double *decay(rule_opts *o) { return &o->name.weight_decay; }
#define RULE_UPDATE(function)                                                                  \
    static void update(const kernel_table *k, const void *args, size_t n, float *w,            \
                       const float *dw, const update_part *part)                               \
    {                                                                                          \
        k->function(n, w, dw, part, args);                                                     \
    }

#endif
