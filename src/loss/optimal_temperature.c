/*
 * optimal_temperature.c - see tempnet.h. With b = 1 / tau and p = softmax(b x), the divergence
 * KL(b) = log K - H grows with b: dKL/db = b Var_p(x). For small b it is b^2 Var/2, so its root
 * is nearly a line, on which Newton steps land within 4 to 8 passes; steps that leave
 * the bracket, or whose variance overflows, halve it (in log b) instead.
 */
#include <math.h>

#include "core/options.h"
#include "softlogit/tempnet.h"
#include "softmax/softmax_options.h"
#include "source.h"

static const slg_optimal_temperature_opts defaults = {
    .size = sizeof(slg_optimal_temperature_opts),
    .rho = 8.5,
    .entropy = -1,
    .tau_min = 0.5,
    .tau_max = 5,
};

void slg_optimal_temperature_opts_init(slg_optimal_temperature_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct best_run {
    logit_source src;
    slg_optimal_temperature_opts opts;
    rows tau, entropy; /* data NULL: not wanted */
    int64_t first, count, ranges;
} best_run;

/* A row at one temperature. */
typedef struct at_tau {
    double kl, variance, entropy; /* variance: of x under p */
} at_tau;

/* Maximum and number of live classes; false for a row of NaN or +inf, or all masked. */
static bool look(const best_run *run, int64_t row, float *max, double *live)
{
    float scratch[KERNEL_BLOCK];
    const kernel_table *k = &run->src.ctx->k;
    *max = -INFINITY;
    *live = 0;
    for (int64_t col = 0; col < run->src.cols; col += KERNEL_BLOCK) {
        int64_t n = run->src.cols - col < KERNEL_BLOCK ? run->src.cols - col : KERNEL_BLOCK;
        double sums[3];
        const float *x = source_fetch(&run->src, row, col, n, scratch);
        *max = fmaxf(*max, k->max((size_t)n, x));
        k->live_sums((size_t)n, x, NULL, 0.0f, sums);
        *live += sums[2];
    }
    return isfinite(*max);
}

static at_tau evaluate(const best_run *run, int64_t row, double tau, float max, double live)
{
    float scratch[KERNEL_BLOCK];
    const exp_arg arg = exp_arg_of(tau, max);
    lse_part part = LSE_EMPTY;
    double dot[2] = { 0, 0 };
    for (int64_t col = 0; col < run->src.cols; col += KERNEL_BLOCK) {
        int64_t n = run->src.cols - col < KERNEL_BLOCK ? run->src.cols - col : KERNEL_BLOCK;
        const float *x = source_fetch(&run->src, row, col, n, scratch);
        run->src.ctx->k.lse_dot((size_t)n, x, NULL, max, &arg, &part, dot);
    }
    double mean = dot[0] / part.sum; /* of x - max */
    double lse =
        log(part.sum) + (double)part.ref * arg.unit - ((double)max - (double)arg.pre) / tau;
    at_tau a = { .variance = dot[1] / part.sum - mean * mean };
    a.entropy = fmax(lse - mean / tau, 0.0);
    a.kl = isnan(part.sum) ? NAN : fmax(log(live) - a.entropy, 0.0);
    return a;
}

/* The next b within (low, high): KL(low) < wanted < KL(high). */
static double next_b(double b, const at_tau *a, double wanted, double low, double high)
{
    double slope = b * a->variance / (2 * sqrt(a->kl)); /* of sqrt(KL) */
    double next = b + (sqrt(wanted) - sqrt(a->kl)) / slope;
    return next > low && next < high ? next : sqrt(low) * sqrt(high);
}

/* Where KL(b) is `wanted`, strictly between the values at the two ends. */
static double solve(const best_run *run, int64_t row, float max, double live, double wanted,
                    at_tau *a)
{
    enum { PASSES = 60 };
    double low = 1 / run->opts.tau_max, high = 1 / run->opts.tau_min;
    double b = next_b(low, a, wanted, low, high);
    for (int pass = 0; pass < PASSES; pass++) {
        *a = evaluate(run, row, 1 / b, max, live);
        if (a->kl < wanted)
            low = b;
        else
            high = b;
        if (fabs(a->kl - wanted) < 3e-8 || high - low < 1e-7 * high) break;
        double next = next_b(b, a, wanted, low, high);
        if (fabs(next - b) < 1e-6 * b) break;
        b = next;
    }
    return 1 / b;
}

static double best_of_row(const best_run *run, int64_t row, double *entropy)
{
    const slg_optimal_temperature_opts *o = &run->opts;
    float max;
    double live, tau = o->tau_min;
    *entropy = NAN;
    if (!look(run, row, &max, &live)) return NAN;
    double wanted = o->entropy >= 0 ? log(live) - o->entropy : o->rho; /* of KL */
    at_tau a = evaluate(run, row, o->tau_min, max, live);
    if (isnan(a.kl)) return NAN;
    if (a.kl > wanted) {
        tau = o->tau_max;
        a = evaluate(run, row, tau, max, live);
        if (a.kl < wanted) tau = solve(run, row, max, live, wanted, &a);
    }
    *entropy = a.entropy;
    return tau;
}

static void best_range(void *arg, int64_t task, int32_t worker)
{
    const best_run *run = arg;
    int64_t to = run->first + pool_range_start(run->count, run->ranges, task + 1);
    (void)worker;
    for (int64_t r = run->first + pool_range_start(run->count, run->ranges, task); r < to;
         r++) {
        double entropy, tau = best_of_row(run, r, &entropy);
        rows_put(&run->tau, r, 0, tau);
        if (run->entropy.data) rows_put(&run->entropy, r, 0, entropy);
    }
}

/* ---- The call --------------------------------------------------------------------------- */

static slg_status check_opts(slg_ctx *ctx, const slg_optimal_temperature_opts *o)
{
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(option_least(ctx, "rho", o->rho, 0));
    if (!(o->entropy >= 0 || o->entropy == -1) || !isfinite(o->entropy))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "entropy is %g, must be finite and at least 0, or -1", o->entropy);
    if (o->tau_min >= TEMPERATURE_MIN && o->tau_max >= o->tau_min &&
        o->tau_max <= TEMPERATURE_MAX)
        return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE,
                    "tau_min is %g, tau_max %g: must be in order, from %g to %g", o->tau_min,
                    o->tau_max, TEMPERATURE_MIN, TEMPERATURE_MAX);
}

static slg_status check_out(slg_ctx *ctx, const char *name, const slg_tensor *t,
                            const slg_logits *l, int64_t rows_count, rows *out)
{
    SLG_TRY(tensor_out(ctx, name, t, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &rows_count));
    const slg_tensor *in[] = { l->dense, l->hidden, l->weight, l->bias, l->mask };
    for (size_t i = 0; i < 5; i++)
        if (outputs_clash(t, in[i]))
            return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps an input", name);
    *out = rows_per_row(t);
    return SLG_OK;
}

static slg_status optimal(slg_ctx *ctx, const slg_logits *logits,
                          const slg_optimal_temperature_opts *opts, slg_tensor *tau,
                          slg_tensor *entropy)
{
    best_run run = { .opts = defaults };
    slg_logits l;
    SLG_TRY(options_read(ctx, "opts", opts, &run.opts, sizeof run.opts));
    SLG_TRY(check_opts(ctx, &run.opts));
    SLG_TRY(source_open(ctx, "logits", logits, &run.src));
    slg_logits_init(&l, sizeof l);
    SLG_TRY(options_read(ctx, "logits", logits, &l, sizeof l));
    if (l.temperature != 1 || l.row_temperature)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "logits.temperature is %g, must be 1, and row_temperature "
                        "NULL: they are what is sought",
                        l.temperature);
    SLG_TRY(check_out(ctx, "tau", tau, &l, run.src.rows, &run.tau));
    if (entropy) SLG_TRY(check_out(ctx, "entropy", entropy, &l, run.src.rows, &run.entropy));
    if (outputs_clash(tau, entropy))
        return slg_fail(ctx, SLG_ERR_STRIDE, "tau and entropy overlap");
    SLG_TRY(source_reserve(&run.src, source_block_rows(&run.src)));
    for (; run.first < run.src.rows; run.first += run.src.block_rows) {
        run.count = run.src.rows - run.first;
        if (run.count > run.src.block_rows) run.count = run.src.block_rows;
        SLG_TRY(source_form(&run.src, run.first, run.count));
        run.ranges = pool_ranges(ctx, run.count, (1 << 12) / (run.src.cols + 1) + 1);
        pool_run(ctx, run.ranges, best_range, &run);
    }
    return SLG_OK;
}

slg_status slg_optimal_temperature(slg_ctx *ctx, const slg_logits *logits,
                                   const slg_optimal_temperature_opts *opts, slg_tensor *tau,
                                   slg_tensor *entropy)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_optimal_temperature");
    return op_end(ctx, optimal(ctx, logits, opts, tau, entropy));
}
