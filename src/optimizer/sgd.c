/*
 * sgd.c - stochastic gradient descent with momentum: see optimizer.h.
 */
#include <math.h>

#include "core/options.h"
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
    SLG_TRY(rule_range(ctx, "lr", o->lr, 0, RATE_MAX, true));
    SLG_TRY(rule_range(ctx, "momentum", o->momentum, 0, 1, true));
    SLG_TRY(rule_range(ctx, "dampening", o->dampening, 0, 1, false));
    SLG_TRY(rule_range(ctx, "weight_decay", o->weight_decay, 0, RATE_MAX, true));
    if (o->nesterov && !(o->momentum > 0 && o->dampening == 0))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "nesterov needs momentum > 0 and dampening 0, they are %g and %g",
                        o->momentum, o->dampening);
    return SLG_OK;
}

static int32_t arrays(const rule_opts *o) { return o->sgd.momentum > 0 ? 1 : 0; }

static double *lr(rule_opts *o) { return &o->sgd.lr; }

static void prepare(const rule_opts *opts, int64_t t, double grad_scale, void *args)
{
    const slg_sgd_opts *o = &opts->sgd;
    sgd_arg *a = args;
    a->grad_scale = (float)grad_scale;
    a->decay_grad = o->decoupled ? 0.0f : (float)o->weight_decay;
    a->shrink = o->decoupled ? (float)(o->lr * o->weight_decay) : 0.0f;
    a->lr = (float)o->lr;
    a->momentum = (float)o->momentum;
    a->one_dampening = t == 1 ? 1.0f : (float)(1 - o->dampening);
    a->nesterov = o->nesterov;
}

static void update(const kernel_table *k, const void *args, size_t n, float *w, const float *dw,
                   float *const *state)
{
    k->sgd(n, w, dw, state[0], args);
}

const rule rule_sgd = { SLG_SGD, "sgd", open, arrays, lr, prepare, update };
