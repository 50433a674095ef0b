/*
 * attention_options.c - defaults and domains of what softlogit/attention.h takes.
 */
#include "core/options.h"
#include "problem.h"

static const slg_attention_inputs no_inputs = { .size = sizeof(slg_attention_inputs) };
static const slg_attention_out no_out = { .size = sizeof(slg_attention_out) };
static const slg_attention_grad no_grad = { .size = sizeof(slg_attention_grad) };
static const slg_attention_opts defaults = { .size = sizeof(slg_attention_opts), .causal = 1 };

void slg_attention_inputs_init(slg_attention_inputs *inputs, size_t size)
{
    options_init(inputs, size, &no_inputs, sizeof no_inputs);
}

void slg_attention_out_init(slg_attention_out *out, size_t size)
{
    options_init(out, size, &no_out, sizeof no_out);
}

void slg_attention_grad_init(slg_attention_grad *grad, size_t size)
{
    options_init(grad, size, &no_grad, sizeof no_grad);
}

void slg_attention_opts_init(slg_attention_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

slg_status attention_options(slg_ctx *ctx, const slg_attention_opts *opts,
                             slg_attention_opts *o)
{
    *o = defaults;
    if (opts) SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "causal", o->causal, 0, 1));
    SLG_TRY(option_range(ctx, "scale", o->scale, -1e30, 1e30));
    if (o->softcap != 0) SLG_TRY(option_range(ctx, "softcap", o->softcap, 1e-30, 1e30));
    if (!(o->dropout >= 0 && o->dropout < 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "dropout is %g, must be in [0, 1)", o->dropout);
    return SLG_OK;
}
