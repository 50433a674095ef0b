/*
 * optimistic.c - the optimistic gradient: see optimizer.h. The two-term form of optimistic
 * mirror descent without a set: xhat_t = w_t + lr g_{t-1} needs not be kept.
 */
#include "rules.h"

static const slg_optimistic_opts defaults = { .size = sizeof(slg_optimistic_opts),
                                              .lr = 1e-3,
                                              .optimism = 1 };

void slg_optimistic_opts_init(slg_optimistic_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_optimistic_opts *o = &out->optimistic;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "decoupled", o->decoupled, 0, 1));
    SLG_TRY(rule_rates(ctx, o->lr, o->weight_decay));
    return rule_below(ctx, "optimism", o->optimism, 0, RATE_MAX);
}

static uint32_t arrays(const rule_opts *o)
{
    (void)o;
    return 1;
}

RULE_FIELDS(optimistic)
RULE_UPDATE(optimistic)

static void prepare(const rule_opts *opts, int64_t t, double memory, rule_args *args)
{
    const slg_optimistic_opts *o = &opts->optimistic;
    optimistic_arg *a = (optimistic_arg *)args->kernel;
    (void)t, (void)memory;
    a->shrink = rule_decay(o->decoupled, o->lr, o->weight_decay, args);
    a->step = (float)(o->lr * (1 + o->optimism));
    a->back = (float)(o->lr * o->optimism);
}

const rule rule_optimistic = { SLG_OPTIMISTIC, "optimistic", open, arrays, lr,
                               decay,          prepare,      NULL, update, NULL };
