/*
 * temperature_fit.c - see softlogit/utility.h. In beta, the mean loss has the derivative
 * -margin and the second derivative Var(z): both from the pass that gives the loss.
 */
#include <math.h>

#include "core/options.h"
#include "preference.h"

static const slg_temperature_fit_opts defaults = {
    .size = sizeof(slg_temperature_fit_opts),
    .iterations = 100,
    .least = 1e-3,
    .most = 1e3,
};

static const slg_temperature_fit_out out_defaults = { .size = sizeof(slg_temperature_fit_out) };

void slg_temperature_fit_opts_init(slg_temperature_fit_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

void slg_temperature_fit_out_init(slg_temperature_fit_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

typedef struct fit {
    slg_ctx *ctx;
    slg_logits logits;
    const slg_targets *targets;
    double temperature; /* that logits come with */
    int32_t evaluations;
    const slg_tensor *row_weight; /* NULL: ones */
    /* At the last beta: mean loss; sums of beta and beta^2 times the derivatives. */
    double value, slope, curve;
    int64_t count;
} fit;

static slg_status evaluate(fit *f, double beta)
{
    slg_loss_out out = slg_loss_out_none();
    preference_rows found = { .want = true };
    const arena_mark_t mark = arena_mark(f->ctx);
    f->logits.temperature = f->temperature / beta;
    SLG_TRY(preference_run(f->ctx, SLG_MEAN, &f->logits, f->targets, &out, &found, NULL, NULL));
    f->evaluations++;
    f->value = out.value;
    f->count = out.weight > 0 ? out.count : 0;
    f->slope = f->curve = 0;
    rows weight = { .data = NULL };
    if (f->row_weight) weight = rows_per_row(f->row_weight);
    for (int64_t r = 0; r < found.rows; r++) {
        double w = weight.data ? rows_get(&weight, r, 0) : 1;
        if (w == 0) continue;
        f->slope -= w * found.margin[r];
        f->curve += w * found.variance[r];
    }
    arena_release(f->ctx, mark);
    if (isfinite(f->value) && !isnan(f->slope)) return SLG_OK;
    return slg_fail(f->ctx, SLG_ERR_RANGE,
                    "the loss at inverse temperature %g is %g: a row holds NaN "
                    "or +inf, or its label is masked",
                    beta, f->value);
}

/* Newton's step from beta where it stays inside of the bracket, else its middle on a log
   scale. */
static slg_status search(fit *f, const slg_temperature_fit_opts *o, double *found)
{
    double low = o->least, high = o->most, beta = fmin(fmax(1, low), high);
    for (int32_t i = 0; i < o->iterations; i++) {
        SLG_TRY(evaluate(f, beta));
        *found = beta;
        if (f->slope == 0) return SLG_OK;
        if (f->slope < 0)
            low = beta;
        else
            high = beta;
        double next = beta * (1 - f->slope / f->curve);
        if (!(next > low && next < high)) next = sqrt(low) * sqrt(high);
        if (fabs(next - beta) <= 1e-9 * beta) return SLG_OK;
        beta = next;
    }
    return SLG_OK;
}

static slg_status fit_beta(fit *f, const slg_temperature_fit_opts *o, double *beta)
{
    SLG_TRY(evaluate(f, o->least));
    *beta = o->least;
    if (f->slope >= 0) return SLG_OK;
    SLG_TRY(evaluate(f, o->most));
    *beta = o->most;
    if (f->slope <= 0) return SLG_OK;
    return search(f, o, beta);
}

static slg_status check_options(slg_ctx *ctx, const slg_temperature_fit_opts *o)
{
    if (o->iterations < 1)
        return slg_fail(ctx, SLG_ERR_RANGE, "iterations is %d, must be at least 1",
                        o->iterations);
    if (o->least >= 1e-20 && o->least <= o->most && o->most <= 1e20) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE,
                    "least is %g, most %g: must be from 1e-20 to 1e20, in order", o->least,
                    o->most);
}

static slg_status temperature_fit(slg_ctx *ctx, const slg_logits *logits,
                                  const slg_targets *targets,
                                  const slg_temperature_fit_opts *opts,
                                  slg_temperature_fit_out *out)
{
    slg_temperature_fit_opts o = defaults;
    slg_temperature_fit_out result = out_defaults;
    slg_targets t;
    fit f = { .ctx = ctx, .targets = targets };
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(check_options(ctx, &o));
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", out, &result, sizeof result));
    slg_logits_init(&f.logits, sizeof f.logits);
    slg_targets_init(&t, sizeof t);
    SLG_TRY(options_read(ctx, "logits", logits, &f.logits, sizeof f.logits));
    SLG_TRY(options_read(ctx, "targets", targets, &t, sizeof t));
    f.temperature = f.logits.temperature;
    f.row_weight = t.row_weight;

    SLG_TRY(evaluate(&f, 1)); /* checks the tensors too */
    result.nll_before = result.nll_after = f.value;
    result.inverse_temperature = 1;
    if (f.count > 0) {
        SLG_TRY(fit_beta(&f, &o, &result.inverse_temperature));
        result.nll_after = f.value;
    }
    result.evaluations = f.evaluations;
    options_write(out, &result, sizeof result);
    return SLG_OK;
}

slg_status slg_temperature_fit(slg_ctx *ctx, const slg_logits *logits,
                               const slg_targets *targets, const slg_temperature_fit_opts *opts,
                               slg_temperature_fit_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_temperature_fit");
    return op_end(ctx, temperature_fit(ctx, logits, targets, opts, out));
}
