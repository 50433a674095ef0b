/*
 * adamw.c - Adam with decoupled weight decay: see optimizer.h. Bias corrections are two scalars
 * of the step: lr / (1 - beta1^t), and 1 / sqrt(1 - beta2^t) on the root.
 */
#include <math.h>

#include "core/options.h"
#include "rules.h"

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

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_adamw_opts *o = &out->adamw;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "decoupled", o->decoupled, 0, 1));
    SLG_TRY(rule_range(ctx, "lr", o->lr, 0, RATE_MAX, true));
    SLG_TRY(rule_range(ctx, "beta1", o->beta1, 0, 1, true));
    SLG_TRY(rule_range(ctx, "beta2", o->beta2, 0, 1, true));
    SLG_TRY(rule_range(ctx, "eps", o->eps, 1e-30, RATE_MAX, true));
    return rule_range(ctx, "weight_decay", o->weight_decay, 0, RATE_MAX, true);
}

static int32_t arrays(const rule_opts *o)
{
    (void)o;
    return 2;
}

static double *lr(rule_opts *o) { return &o->adamw.lr; }

static void prepare(const rule_opts *opts, int64_t t, double grad_scale, void *args)
{
    const slg_adamw_opts *o = &opts->adamw;
    adamw_arg *a = args;
    a->grad_scale = (float)grad_scale;
    a->decay_grad = o->decoupled ? 0.0f : (float)o->weight_decay;
    a->shrink = o->decoupled ? (float)(o->lr * o->weight_decay) : 0.0f;
    a->beta1 = (float)o->beta1;
    a->one_beta1 = (float)(1 - o->beta1);
    a->beta2 = (float)o->beta2;
    a->one_beta2 = (float)(1 - o->beta2);
    a->step = (float)(o->lr / (1 - pow(o->beta1, (double)t)));
    a->root = (float)(1 / sqrt(1 - pow(o->beta2, (double)t)));
    a->eps = (float)o->eps;
}

static void update(const kernel_table *k, const void *args, size_t n, float *w, const float *dw,
                   float *const *state)
{
    k->adamw(n, w, dw, state[0], state[1], args);
}

const rule rule_adamw = { SLG_ADAMW, "adamw", open, arrays, lr, prepare, update };
