/*
 * gbm_forward.c - slg_gbm_forward, slg_gbm_target: noised data and what a model is to learn
 * of it.
 */
#include <math.h>

#include "gbm_process.h"

enum { IN = 3, NOISE, LOGS, OUT }; /* buffers after the coefficients' */

static double drift_of(double sigma, double mu) { return mu - 0.5 * sigma * sigma; }

/* ---- Forward ----------------------------------------------------------------------------- */

typedef struct forward_job {
    line_terms line;
    rows x0, x, log_x, out;
    noise_source z;
    bool want_x, want_log, want_noise;
} forward_job;

/* log x_t, in a buffer: log_x may be x0, which is still needed. */
static float *forward_logs(const motion *p, const piece *q, const float *x0, const float *z,
                           const line_arg *l)
{
    float *logs = piece_buffer(p, q, LOGS);
    if (!p->log_state) p->k->log_of(q->n, x0, logs);
    p->k->line(q->n, p->log_state ? x0 : logs, NULL, z, l, logs);
    return logs;
}

static void forward_piece(void *arg, const motion *p, const piece *q)
{
    const forward_job *j = arg;
    const float *x0 = piece_fetch(p, &j->x0, q, piece_buffer(p, q, IN));
    const float *z = piece_noise(p, &j->z, q, piece_buffer(p, q, NOISE));
    const line_arg l = line_over(p, &j->line, q), exponent = { .a = 1.0f };
    const float *logs = j->want_log || p->log_state ? forward_logs(p, q, x0, z, &l) : NULL;
    if (j->want_x) {
        float *x = piece_stage(&j->x, q, piece_buffer(p, q, OUT));
        int64_t *lost = p->lost + q->worker * COUNT_GAP;
        if (p->log_state)
            p->k->gbm_step(q->n, NULL, logs, NULL, &exponent, x, lost);
        else
            p->k->gbm_step(q->n, x0, NULL, z, &l, x, lost);
        piece_put(p, &j->x, q, x);
    }
    if (j->want_log) piece_put(p, &j->log_x, q, logs);
    if (j->want_noise) piece_put(p, &j->out, q, z);
}

static slg_status forward(slg_ctx *ctx, const slg_tensor *x0, const slg_tensor *t,
                          const slg_tensor *z, slg_rng *rng, const slg_gbm *given,
                          slg_tensor *x, slg_tensor *log_x, slg_tensor *out,
                          slg_gbm_counts *counts)
{
    motion p;
    forward_job j = { .want_x = x, .want_log = log_x, .want_noise = out };
    const operand in[] = { { "x0", x0, 0 }, { "z", z, 0 } };
    const operand outs[] = { { "x", x, 1 }, { "log_x", log_x, 1 }, { "noise", out, 2 } };
    if (!t) return slg_fail(ctx, SLG_ERR_NULL, "t is NULL");
    SLG_TRY(process_open(ctx, given, "x0", x0, t, false, &p));
    SLG_TRY(process_noise(ctx, z, rng, true));
    SLG_TRY(process_operands(ctx, "x0", x0, 2, in, 3, outs));
    SLG_TRY(process_apart(ctx, "t", t, 3, outs));
    SLG_TRY(counts_check(ctx, counts));
    SLG_TRY(process_domain(ctx, &p, "x0", x0));
    SLG_TRY(term_open(ctx, &p, 0, one_of, 0, &j.line.a));
    SLG_TRY(term_open(ctx, &p, 2, drift_of, 1, &j.line.b));
    SLG_TRY(term_open(ctx, &p, 1, sigma_of, 1, &j.line.c));
    j.x0 = rows_of(x0), j.z = noise_of(z, rng);
    if (x) j.x = rows_of(x);
    if (log_x) j.log_x = rows_of(log_x);
    if (out) j.out = rows_of(out);
    process_run(ctx, &p, forward_piece, &j);
    if (rng) rng->offset += (uint64_t)(p.rows * p.cols);
    counts_write(&p, counts);
    return SLG_OK;
}

slg_status slg_gbm_forward(slg_ctx *ctx, const slg_tensor *x0, const slg_tensor *t,
                           const slg_tensor *z, slg_rng *rng, const slg_gbm *process,
                           slg_tensor *x, slg_tensor *log_x, slg_tensor *noise,
                           slg_gbm_counts *counts)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_gbm_forward");
    return op_end(ctx, forward(ctx, x0, t, z, rng, process, x, log_x, noise, counts));
}

/* ---- Target ------------------------------------------------------------------------------ */

static double offset_of(double sigma, double mu) { return 1.5 - mu / (sigma * sigma); }
static double inverse_square_of(double sigma, double mu)
{
    (void)mu;
    return 1 / (sigma * sigma);
}

typedef struct target_job {
    line_terms line;
    denoised from;
    rows h;
} target_job;

static void target_piece(void *arg, const motion *p, const piece *q)
{
    const target_job *j = arg;
    const float *step =
        piece_step(p, &j->from, q, piece_buffer(p, q, IN), piece_buffer(p, q, NOISE));
    const line_arg l = line_over(p, &j->line, q);
    float *h = piece_stage(&j->h, q, piece_buffer(p, q, OUT));
    p->k->line(q->n, NULL, NULL, step, &l, h);
    for (int64_t r = 0; r < q->rows; r++)
        for (int64_t c = 0; p->t[q->row + r] == 0 && c < q->cols; c++) h[r * q->cols + c] = NAN;
    piece_put(p, &j->h, q, h);
}

static slg_status target(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *x0,
                         const slg_tensor *z, const slg_tensor *t, const slg_gbm *given,
                         slg_tensor *h)
{
    motion p;
    target_job j;
    const operand in[] = { { "x", x, 0 }, { "x0", x0, 0 }, { "z", z, 0 } };
    const operand out = { "h", h, 7 };
    if (!t || !h) return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", t ? "h" : "t");
    SLG_TRY(process_open(ctx, given, "h", h, t, true, &p));
    SLG_TRY(denoised_check(ctx, x, x0, z, false));
    SLG_TRY(process_operands(ctx, "h", h, 3, in, 1, &out));
    SLG_TRY(process_apart(ctx, "t", t, 1, &out));
    SLG_TRY(denoised_open(ctx, &p, x, x0, z, &j.from));
    SLG_TRY(term_open(ctx, &p, 0, one_of, 0, &j.line.a));
    if (z) {
        SLG_TRY(term_open(ctx, &p, 0, one_of, -1, &j.line.b));
        SLG_TRY(term_open(ctx, &p, -1, inverse_of, -1, &j.line.c));
    } else {
        SLG_TRY(term_open(ctx, &p, 0, offset_of, -1, &j.line.b));
        SLG_TRY(term_open(ctx, &p, -2, inverse_square_of, -1, &j.line.c));
    }
    j.h = rows_of(h);
    process_run(ctx, &p, target_piece, &j);
    return SLG_OK;
}

slg_status slg_gbm_target(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *x0,
                          const slg_tensor *z, const slg_tensor *t, const slg_gbm *process,
                          slg_tensor *h)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_gbm_target");
    return op_end(ctx, target(ctx, x, x0, z, t, process, h));
}
