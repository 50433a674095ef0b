/*
 * sgd.c - stochastic gradient descent with momentum: see optimizer.h.
 */
#include "rules.h"

static const slg_sgd_opts defaults = { .size = sizeof(slg_sgd_opts), .lr = 1e-3 };

void slg_sgd_opts_init(slg_sgd_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_sgd_opts *o = &out->sgd;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "nesterov", o->nesterov, 0, 1));
    SLG_TRY(option_choice(ctx, "decoupled", o->decoupled, 0, 1));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(rule_rates(ctx, o->lr, o->weight_decay));
    SLG_TRY(rule_below(ctx, "momentum", o->momentum, 0, 1));
    SLG_TRY(option_range(ctx, "dampening", o->dampening, 0, 1));
    if (o->nesterov && !(o->momentum > 0 && o->dampening == 0))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "nesterov needs momentum > 0 and dampening 0, they are %g and %g",
                        o->momentum, o->dampening);
    return SLG_OK;
}

static uint32_t arrays(const rule_opts *o) { return o->sgd.momentum > 0; }

RULE_FIELDS(sgd)
RULE_UPDATE(sgd)

static void prepare(const rule_opts *opts, int64_t t, double memory, rule_args *args)
{
    const slg_sgd_opts *o = &opts->sgd;
    sgd_arg *a = (sgd_arg *)args->kernel;
    (void)memory;
    a->shrink = rule_decay(o->decoupled, o->lr, o->weight_decay, args);
    a->lr = (float)o->lr;
    a->momentum = (float)o->momentum;
    a->one_dampening = t == 1 ? 1.0f : (float)(1 - o->dampening);
    a->nesterov = o->nesterov;
}

const rule rule_sgd = { SLG_SGD, "sgd", open, arrays, lr, decay, prepare, NULL, update, NULL };
