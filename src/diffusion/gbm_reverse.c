/*
 * gbm_reverse.c - slg_gbm_reverse: a step back in time, in place, by either sampler.
 */
#include <math.h>

#include "gbm_process.h"

enum { MODEL = 3, NOISE, STATE, OUT }; /* buffers after the coefficients' */

static const slg_gbm_reverse_opts defaults = { .size = sizeof(slg_gbm_reverse_opts),
                                               .delta = 0.001,
                                               .anneal = 1 };

void slg_gbm_reverse_opts_init(slg_gbm_reverse_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static double exponent_of(double sigma, double mu) { return 1.5 * sigma * sigma - mu; }
static double factor_of(double sigma, double mu) { return 2 * sigma * sigma - mu; }

typedef struct reverse_job {
    line_terms line;
    rows x, h;
    noise_source z;
    bool noisy, exponential;
} reverse_job;

static void reverse_piece(void *arg, const motion *p, const piece *q)
{
    const reverse_job *j = arg;
    const float *h = piece_fetch(p, &j->h, q, piece_buffer(p, q, MODEL));
    const float *z = j->noisy ? piece_noise(p, &j->z, q, piece_buffer(p, q, NOISE)) : NULL;
    const float *x = piece_fetch(p, &j->x, q, piece_buffer(p, q, STATE));
    float *to = piece_stage(&j->x, q, piece_buffer(p, q, OUT));
    int64_t *lost = p->lost + q->worker * COUNT_GAP;
    const line_arg l = line_over(p, &j->line, q);
    if (p->log_state)
        p->k->line(q->n, x, h, z, &l, to);
    else if (j->exponential)
        p->k->gbm_step(q->n, x, h, z, &l, to, lost);
    else
        p->k->gbm_linear(q->n, x, h, z, &l, to, lost);
    piece_put(p, &j->x, q, to);
}

static slg_status read_options(slg_ctx *ctx, const slg_gbm_reverse_opts *given,
                               slg_gbm_reverse_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(
        option_choice(ctx, "sampler", o->sampler, SLG_DALE_LANGEVIN, SLG_GBM_UNCONSTRAINED));
    SLG_TRY(option_least(ctx, "delta", o->delta, 0));
    return option_least(ctx, "anneal", o->anneal, 0);
}

static slg_status reverse(slg_ctx *ctx, slg_tensor *x, const slg_tensor *h, const slg_tensor *z,
                          slg_rng *rng, const slg_gbm *given, const slg_gbm_reverse_opts *opts,
                          slg_gbm_counts *counts)
{
    motion p;
    slg_gbm_reverse_opts o;
    const operand in[] = { { "h", h, 0 }, { "z", z, 0 } }, out = { "x", x, 0 };
    SLG_TRY(read_options(ctx, opts, &o));
    SLG_TRY(process_open(ctx, given, "x", x, NULL, false, &p));
    if (!h) return slg_fail(ctx, SLG_ERR_NULL, "h is NULL");
    SLG_TRY(process_noise(ctx, z, rng, o.anneal > 0));
    SLG_TRY(process_operands(ctx, "x", x, 2, in, 1, &out));
    SLG_TRY(counts_check(ctx, counts));
    reverse_job j = { .x = rows_of(x),
                      .h = rows_of(h),
                      .z = noise_of(z, rng),
                      .noisy = o.anneal > 0,
                      .exponential = o.sampler == SLG_DALE_LANGEVIN };
    if (p.log_state && !j.exponential)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "log_state is 1: sampler must be SLG_DALE_LANGEVIN, which keeps signs");
    SLG_TRY(term_open(ctx, &p, 0, variance_of, o.delta, &j.line.a));
    SLG_TRY(term_open(ctx, &p, 0, j.exponential ? exponent_of : factor_of, o.delta, &j.line.b));
    SLG_TRY(term_open(ctx, &p, 0, sigma_of, o.anneal * sqrt(o.delta), &j.line.c));
    process_run(ctx, &p, reverse_piece, &j);
    if (rng && j.noisy) rng->offset += (uint64_t)(p.rows * p.cols);
    counts_write(&p, counts);
    return SLG_OK;
}

slg_status slg_gbm_reverse(slg_ctx *ctx, slg_tensor *x, const slg_tensor *h,
                           const slg_tensor *z, slg_rng *rng, const slg_gbm *process,
                           const slg_gbm_reverse_opts *opts, slg_gbm_counts *counts)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_gbm_reverse");
    return op_end(ctx, reverse(ctx, x, h, z, rng, process, opts, counts));
}
