/*
 * lion.c - Lion: see optimizer.h.
 */
#include "rules.h"

static const slg_lion_opts defaults = {
    .size = sizeof(slg_lion_opts), .decoupled = 1, .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.99
};

void slg_lion_opts_init(slg_lion_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_lion_opts *o = &out->lion;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "decoupled", o->decoupled, 0, 1));
    SLG_TRY(rule_rates(ctx, o->lr, o->weight_decay));
    SLG_TRY(rule_below(ctx, "beta1", o->beta1, 0, 1));
    return rule_below(ctx, "beta2", o->beta2, 0, 1);
}

static uint32_t arrays(const rule_opts *o)
{
    (void)o;
    return 1;
}

RULE_FIELDS(lion)
RULE_UPDATE(lion)

static void prepare(const rule_opts *opts, int64_t t, double memory, rule_args *args)
{
    const slg_lion_opts *o = &opts->lion;
    lion_arg *a = (lion_arg *)args->kernel;
    (void)t, (void)memory;
    a->shrink = rule_decay(o->decoupled, o->lr, o->weight_decay, args);
    a->lr = (float)o->lr;
    a->beta1 = (float)o->beta1;
    a->one_beta1 = (float)(1 - o->beta1);
    a->beta2 = (float)o->beta2;
    a->one_beta2 = (float)(1 - o->beta2);
}

const rule rule_lion = {
    SLG_LION, "lion", open, arrays, lr, decay, prepare, NULL, update, NULL
};
