/*
 * egd.c - exponentiated gradient descent: see optimizer.h.
 */
#include <math.h>

#include "rules.h"

static const slg_egd_opts defaults = { .size = sizeof(slg_egd_opts),
                                       .lr = 1e-3,
                                       .cap = INFINITY };

void slg_egd_opts_init(slg_egd_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_egd_opts *o = &out->egd;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(rule_rates(ctx, o->lr, o->weight_decay));
    SLG_TRY(rule_below(ctx, "momentum", o->momentum, 0, 1));
    SLG_TRY(option_least(ctx, "floor", o->floor, 0));
    if (!(o->cap >= o->floor && o->cap > 0))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "cap is %g, must be positive and at least floor, %g", o->cap, o->floor);
    return SLG_OK;
}

static uint32_t arrays(const rule_opts *o) { return o->egd.momentum > 0; }

RULE_FIELDS(egd)
RULE_UPDATE(egd)

static void prepare(const rule_opts *opts, int64_t t, double memory, rule_args *args)
{
    const slg_egd_opts *o = &opts->egd;
    egd_arg *a = (egd_arg *)args->kernel;
    (void)t, (void)memory;
    /* Decay past 1 would change signs: it takes all. */
    a->shrink = fminf(1.0f, rule_decay(1, o->lr, o->weight_decay, args));
    a->lr = (float)o->lr;
    a->momentum = (float)o->momentum;
    a->floor = (float)o->floor;
    a->cap = (float)o->cap;
}

const rule rule_egd = { SLG_EGD, "egd", open, arrays, lr, decay, prepare, NULL, update, NULL };
