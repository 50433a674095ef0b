/*
 * nadam.c - Adam with Nesterov's momentum: see optimizer.h. The product of the momenta so far
 * is the number that it keeps beside its moments.
 */
#include <math.h>

#include "adam.h"

static const slg_nadam_opts defaults = {
    .size = sizeof(slg_nadam_opts),
    .lr = 2e-3,
    .beta1 = 0.9,
    .beta2 = 0.999,
    .eps = 1e-8,
    .momentum_decay = 4e-3,
};

void slg_nadam_opts_init(slg_nadam_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_nadam_opts *o = &out->nadam;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "decoupled", o->decoupled, 0, 1));
    SLG_TRY(rule_rates(ctx, o->lr, o->weight_decay));
    SLG_TRY(rule_below(ctx, "momentum_decay", o->momentum_decay, 0, RATE_MAX));
    return adam_check(ctx, o->beta1, o->beta2, o->eps);
}

static uint32_t arrays(const rule_opts *o)
{
    (void)o;
    return 3;
}

RULE_FIELDS(nadam)
RULE_UPDATE(adam)

static double momentum(const slg_nadam_opts *o, int64_t t)
{
    return o->beta1 * (1 - 0.5 * pow(0.96, (double)t * o->momentum_decay));
}

static double advance(const rule_opts *opts, int64_t t, double product)
{
    return (t == 1 ? 1 : product) * momentum(&opts->nadam, t);
}

static void prepare(const rule_opts *opts, int64_t t, double product, rule_args *args)
{
    const slg_nadam_opts *o = &opts->nadam;
    adam_arg *a = (adam_arg *)args->kernel;
    const double next = momentum(o, t + 1);
    adam_moments(o->beta1, o->beta2, o->eps, t, a);
    a->shrink = rule_decay(o->decoupled, o->lr, o->weight_decay, args);
    a->step = (float)(o->lr * next / (1 - product * next));
    a->fresh = (float)(o->lr * (1 - momentum(o, t)) / (1 - product));
}

const rule rule_nadam = { SLG_NADAM, "nadam", open,    arrays, lr,
                          decay,     prepare, advance, update, NULL };
