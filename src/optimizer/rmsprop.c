/*
 * rmsprop.c - RMSprop: see optimizer.h.
 */
#include "rules.h"

static const slg_rmsprop_opts defaults = {
    .size = sizeof(slg_rmsprop_opts), .lr = 1e-2, .alpha = 0.99, .eps = 1e-8
};

void slg_rmsprop_opts_init(slg_rmsprop_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_rmsprop_opts *o = &out->rmsprop;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "centered", o->centered, 0, 1));
    SLG_TRY(option_choice(ctx, "decoupled", o->decoupled, 0, 1));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(rule_rates(ctx, o->lr, o->weight_decay));
    SLG_TRY(rule_below(ctx, "alpha", o->alpha, 0, 1));
    SLG_TRY(rule_below(ctx, "momentum", o->momentum, 0, 1));
    return rule_below(ctx, "eps", o->eps, 1e-30, RATE_MAX);
}

static uint32_t arrays(const rule_opts *o)
{
    return 1u | (o->rmsprop.centered ? 2u : 0) | (o->rmsprop.momentum > 0 ? 4u : 0);
}

RULE_FIELDS(rmsprop)
RULE_UPDATE(rmsprop)

static void prepare(const rule_opts *opts, int64_t t, double memory, rule_args *args)
{
    const slg_rmsprop_opts *o = &opts->rmsprop;
    rmsprop_arg *a = (rmsprop_arg *)args->kernel;
    (void)t, (void)memory;
    a->shrink = rule_decay(o->decoupled, o->lr, o->weight_decay, args);
    a->lr = (float)o->lr;
    a->alpha = (float)o->alpha;
    a->one_alpha = (float)(1 - o->alpha);
    a->eps = (float)o->eps;
    a->momentum = (float)o->momentum;
}

const rule rule_rmsprop = { SLG_RMSPROP, "rmsprop", open, arrays, lr,
                            decay,       prepare,   NULL, update, NULL };
