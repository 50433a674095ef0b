/*
 * adam.c - Adam, AdamW, AMSGrad: see optimizer.h. Bias corrections are two scalars of the step:
 * lr / (1 - beta1^t), and 1 / sqrt(1 - beta2^t) on the root.
 */
#include <math.h>

#include "adam.h"

static const slg_adamw_opts defaults = {
    .size = sizeof(slg_adamw_opts),
    .decoupled = 1,
    .lr = 1e-3,
    .beta1 = 0.9,
    .beta2 = 0.999,
    .eps = 1e-8,
    .weight_decay = 0.01,
};

void slg_adamw_opts_init(slg_adamw_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

slg_status adam_check(slg_ctx *ctx, double beta1, double beta2, double eps)
{
    SLG_TRY(rule_below(ctx, "beta1", beta1, 0, 1));
    SLG_TRY(rule_below(ctx, "beta2", beta2, 0, 1));
    return rule_below(ctx, "eps", eps, 1e-30, RATE_MAX);
}

void adam_moments(double beta1, double beta2, double eps, int64_t t, adam_arg *a)
{
    a->beta1 = (float)beta1;
    a->one_beta1 = (float)(1 - beta1);
    a->beta2 = (float)beta2;
    a->one_beta2 = (float)(1 - beta2);
    a->root = (float)(1 / sqrt(1 - pow(beta2, (double)t)));
    a->eps = (float)eps;
}

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_adamw_opts *o = &out->adamw;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "decoupled", o->decoupled, 0, 1));
    SLG_TRY(option_choice(ctx, "amsgrad", o->amsgrad, 0, 1));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(rule_rates(ctx, o->lr, o->weight_decay));
    return adam_check(ctx, o->beta1, o->beta2, o->eps);
}

static uint32_t arrays(const rule_opts *o) { return o->adamw.amsgrad ? 7 : 3; }

RULE_FIELDS(adamw)
RULE_UPDATE(adam)

static void prepare(const rule_opts *opts, int64_t t, double memory, rule_args *args)
{
    const slg_adamw_opts *o = &opts->adamw;
    adam_arg *a = (adam_arg *)args->kernel;
    (void)memory;
    adam_moments(o->beta1, o->beta2, o->eps, t, a);
    a->shrink = rule_decay(o->decoupled, o->lr, o->weight_decay, args);
    a->step = (float)(o->lr / (1 - pow(o->beta1, (double)t)));
    a->fresh = 0;
}

const rule rule_adamw = { SLG_ADAMW, "adamw", open, arrays, lr,
                          decay,     prepare, NULL, update, NULL };
