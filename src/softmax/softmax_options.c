/*
 * softmax_options.c - see softmax_options.h.
 */
#include "softmax_options.h"

static const slg_softmax_opts defaults = {
    .size = sizeof(slg_softmax_opts),
    .algorithm = SLG_ALGORITHM_AUTO,
    .temperature = 1.0,
};

void slg_softmax_opts_init(slg_softmax_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

slg_status temperature_check(slg_ctx *ctx, double temperature)
{
    if (temperature >= TEMPERATURE_MIN && temperature <= TEMPERATURE_MAX) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "temperature is %g, must be from %g to %g", temperature,
                    TEMPERATURE_MIN, TEMPERATURE_MAX);
}

slg_status softmax_options(slg_ctx *ctx, const slg_softmax_opts *opts, slg_softmax_opts *o)
{
    *o = defaults;
    if (!opts) return SLG_OK;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "algorithm", o->algorithm, SLG_ALGORITHM_AUTO,
                          SLG_THREE_PASS_RELOAD));
    SLG_TRY(option_choice(ctx, "reread", o->reread, 0, 1));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    return temperature_check(ctx, o->temperature);
}
