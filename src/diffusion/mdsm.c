/*
 * mdsm.c - slg_mdsm: the residual r, a line in h and in what is known of the noise; its squares
 * are the loss, and a multiple of it is the gradient.
 */
#include <string.h>

#include "gbm_process.h"

enum { MODEL = 3, STATE, NOISE, SCALED, RESIDUAL, OUT }; /* buffers after the coefficients' */
enum { SHORT = 16 }; /* rows shorter than this are summed one by one */

static const slg_mdsm_opts defaults = { .size = sizeof(slg_mdsm_opts), .reduction = SLG_MEAN };

void slg_mdsm_opts_init(slg_mdsm_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct mdsm_job {
    line_terms line;
    term slope;
    denoised from;
    rows h, dh;
    bool raw, skip_zero, want_dh;
    double *sums;
} mdsm_job;

/* Rows with t = 0 count for nothing. */
static void leave_out(const motion *p, const piece *q, float *r)
{
    for (int64_t i = 0; i < q->rows; i++)
        if (p->t[q->row + i] == 0) memset(r + i * q->cols, 0, (size_t)q->cols * sizeof *r);
}

static double square_sum(const motion *p, int64_t n, const float *r)
{
    double sum = 0;
    if (n >= SHORT) return p->k->score_grad((size_t)n, r, 0.0f, NULL, NULL, NULL);
    for (int64_t i = 0; i < n; i++) sum += (double)r[i] * (double)r[i];
    return sum;
}

/* x, where the model gives s, and x s in place of h. */
static const float *unscaled(const mdsm_job *j, const motion *p, const piece *q,
                             const float **h)
{
    const line_arg exponent = { .a = 1.0f };
    int64_t lost = 0;
    float *state = piece_buffer(p, q, STATE), *product = piece_buffer(p, q, SCALED);
    const float *x = piece_fetch(p, &j->from.x, q, state);
    if (p->log_state) {
        p->k->gbm_step(q->n, NULL, x, NULL, &exponent, state, &lost);
        x = state;
    }
    memcpy(product, *h, q->n * sizeof *product);
    p->k->mul(q->n, x, product);
    *h = product;
    return x;
}

static void mdsm_piece(void *arg, const motion *p, const piece *q)
{
    const mdsm_job *j = arg;
    float *r = piece_buffer(p, q, RESIDUAL);
    const float *step = piece_step(p, &j->from, q, r, piece_buffer(p, q, NOISE));
    const float *h = piece_fetch(p, &j->h, q, piece_buffer(p, q, MODEL)), *over;
    const float *x = j->raw ? unscaled(j, p, q, &h) : NULL;
    const line_arg l = line_over(p, &j->line, q);
    p->k->line(q->n, NULL, h, step, &l, r);
    if (j->skip_zero) leave_out(p, q, r);
    for (int64_t i = 0; i < q->rows; i++)
        *piece_sum(p, q, j->sums, i) = square_sum(p, q->cols, r + i * q->cols);
    if (!j->want_dh) return;
    const float slope = term_over(p, &j->slope, q, piece_buffer(p, q, 0), &over);
    float *dh = piece_stage(&j->dh, q, piece_buffer(p, q, OUT));
    p->k->score_grad(q->n, r, slope, over, x, dh);
    piece_put(p, &j->dh, q, dh);
}

/* ---- Coefficients ------------------------------------------------------------------------ */

static double offset_of(double sigma, double mu) { return 1.5 * sigma * sigma - mu; }
static double offset_share_of(double sigma, double mu) { return 1.5 * sigma - mu / sigma; }

/* r, or with unit variance r / (sigma sqrt(t)); and d value / dh = scale 2 a r. */
static slg_status terms_open(slg_ctx *ctx, const motion *p, bool unit, bool given, double scale,
                             mdsm_job *j)
{
    line_terms *l = &j->line;
    const int half = unit ? 1 : 2;
    const term_fn a = unit ? sigma_of : variance_of;
    SLG_TRY(term_open(ctx, p, half, a, 1, &l->a));
    SLG_TRY(term_open(ctx, p, half, a, 2 * scale, &j->slope));
    if (given) {
        SLG_TRY(term_open(ctx, p, half, a, 1, &l->b));
        return term_open(ctx, p, unit ? 0 : 1, unit ? one_of : sigma_of, 1, &l->c);
    }
    SLG_TRY(term_open(ctx, p, half, unit ? offset_share_of : offset_of, 1, &l->b));
    return term_open(ctx, p, unit ? -1 : 0, unit ? inverse_of : one_of, 1, &l->c);
}

/* ---- The function ------------------------------------------------------------------------ */

static slg_status read_options(slg_ctx *ctx, const slg_mdsm_opts *given, slg_mdsm_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "weight", o->weight, SLG_MDSM_PLAIN, SLG_MDSM_UNIT_VARIANCE));
    SLG_TRY(option_choice(ctx, "raw_score", o->raw_score, 0, 1));
    return option_choice(ctx, "reduction", o->reduction, SLG_MEAN, SLG_SUM);
}

static slg_status mdsm(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *x,
                       const slg_tensor *x0, const slg_tensor *z, const slg_tensor *t,
                       const slg_gbm *given, const slg_mdsm_opts *opts, slg_tensor *loss,
                       double *value, slg_tensor *dh)
{
    motion p;
    slg_mdsm_opts o;
    const operand in[] = { { "h", h, 0 }, { "x", x, 0 }, { "x0", x0, 0 }, { "z", z, 0 } };
    const operand out[] = { { "dh", dh, 15 } }, per_row[] = { { "loss", loss, 0 } };
    SLG_TRY(read_options(ctx, opts, &o));
    if (!t) return slg_fail(ctx, SLG_ERR_NULL, "t is NULL");
    SLG_TRY(process_open(ctx, given, "h", h, t, true, &p));
    SLG_TRY(denoised_check(ctx, x, x0, z, o.raw_score));
    SLG_TRY(process_operands(ctx, "h", h, 4, in, 1, out));
    SLG_TRY(process_row_output(ctx, &p, "loss", loss));
    SLG_TRY(process_apart(ctx, "t", t, 1, out));
    SLG_TRY(process_apart(ctx, "t", t, 1, per_row));
    for (int i = 0; i < 5; i++) {
        const operand *other = i < 4 ? &in[i] : &out[0];
        if (other->t) SLG_TRY(process_apart(ctx, other->name, other->t, 1, per_row));
    }
    mdsm_job j = { .raw = o.raw_score,
                   .skip_zero = o.weight == SLG_MDSM_UNIT_VARIANCE,
                   .want_dh = dh,
                   .h = rows_of(h) };
    const bool unused_x = z && !o.raw_score;
    SLG_TRY(denoised_open(ctx, &p, unused_x ? NULL : x, x0, z, &j.from));
    const double scale = o.reduction == SLG_MEAN && p.rows > 0 ? 1 / (double)p.rows : 1;
    SLG_TRY(terms_open(ctx, &p, j.skip_zero, z, scale, &j));
    if (dh) j.dh = rows_of(dh);
    j.sums = process_sums(ctx, &p);
    if (!j.sums) return SLG_ERR_MEMORY;
    process_run(ctx, &p, mdsm_piece, &j);
    process_rows_out(&p, j.sums, o.reduction, loss, value);
    return SLG_OK;
}

slg_status slg_mdsm(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *x,
                    const slg_tensor *x0, const slg_tensor *z, const slg_tensor *t,
                    const slg_gbm *process, const slg_mdsm_opts *opts, slg_tensor *loss,
                    double *value, slg_tensor *dh)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_mdsm");
    return op_end(ctx, mdsm(ctx, h, x, x0, z, t, process, opts, loss, value, dh));
}
