/*
 * optimistic.c - the optimistic gradient: see optimizer.h. The two-term form of optimistic
 * mirror descent without a set: xhat_t = w_t + lr g_{t-1} needs not be kept.
 */
#include "core/options.h"
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
    SLG_TRY(rule_range(ctx, "lr", o->lr, 0, RATE_MAX, true));
    SLG_TRY(rule_range(ctx, "optimism", o->optimism, 0, RATE_MAX, true));
    return rule_range(ctx, "weight_decay", o->weight_decay, 0, RATE_MAX, true);
}

static int32_t arrays(const rule_opts *o)
{
    (void)o;
    return 1;
}

static double *lr(rule_opts *o) { return &o->optimistic.lr; }

static void prepare(const rule_opts *opts, int64_t t, double grad_scale, void *args)
{
    const slg_optimistic_opts *o = &opts->optimistic;
    optimistic_arg *a = args;
    (void)t;
    a->grad_scale = (float)grad_scale;
    a->decay_grad = o->decoupled ? 0.0f : (float)o->weight_decay;
    a->shrink = o->decoupled ? (float)(o->lr * o->weight_decay) : 0.0f;
    a->step = (float)(o->lr * (1 + o->optimism));
    a->back = (float)(o->lr * o->optimism);
}

static void update(const kernel_table *k, const void *args, size_t n, float *w, const float *dw,
                   float *const *state)
{
    k->optimistic(n, w, dw, state[0], args);
}

const rule rule_optimistic = {
    SLG_OPTIMISTIC, "optimistic", open, arrays, lr, prepare, update
};
