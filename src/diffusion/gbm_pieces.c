/*
 * gbm_pieces.c - see gbm_process.h: pieces of matrices, and coefficients over them.
 */
#include <math.h>
#include <string.h>

#include "gbm_process.h"

float *piece_buffer(const motion *p, const piece *q, int which)
{
    return p->scratch + ((size_t)q->worker * PIECE_BUFFERS + (size_t)which) * PIECE_SIZE;
}

/* All rows lie end to end. */
static bool joined(const rows *m)
{
    return m->plain && (m->outer == 0 || (m->outer == 1 && m->stride[0] == m->cols));
}

const float *piece_fetch(const motion *p, const rows *m, const piece *q, float *scratch)
{
    if (q->rows == 1) return rows_fetch(p->k, m, q->row, q->col, q->cols, scratch);
    if (joined(m)) return (const float *)(const void *)rows_at(m, q->row);
    for (int64_t r = 0; r < q->rows; r++) {
        float *to = scratch + r * q->cols;
        const float *from = rows_fetch(p->k, m, q->row + r, 0, q->cols, to);
        if (from != to) memcpy(to, from, (size_t)q->cols * sizeof *to);
    }
    return scratch;
}

float *piece_stage(const rows *m, const piece *q, float *scratch)
{
    if (q->rows == 1) return rows_stage(m, q->row, q->col, scratch);
    return joined(m) ? (float *)(void *)rows_at(m, q->row) : scratch;
}

/* Of a row: what is plain is copied, unless it is there. */
static void put_row(const motion *p, const rows *m, int64_t row, int64_t col, int64_t n,
                    const float *from)
{
    if (!m->plain) {
        rows_commit(p->k, m, row, col, n, from);
        return;
    }
    float *at = (float *)(void *)rows_at(m, row) + col;
    if (at != from) memcpy(at, from, (size_t)n * sizeof *from);
}

void piece_put(const motion *p, const rows *m, const piece *q, const float *values)
{
    if (joined(m) || q->rows == 1) {
        put_row(p, m, q->row, q->col, (int64_t)q->n, values);
        return;
    }
    for (int64_t r = 0; r < q->rows; r++)
        put_row(p, m, q->row + r, 0, q->cols, values + r * q->cols);
}

noise_source noise_of(const slg_tensor *z, const slg_rng *rng)
{
    noise_source n = { .given = z };
    if (z)
        n.z = rows_of(z);
    else if (rng)
        n.rng = *rng;
    return n;
}

const float *piece_noise(const motion *p, const noise_source *from, const piece *q,
                         float *scratch)
{
    if (from->given) return piece_fetch(p, &from->z, q, scratch);
    const uint64_t first = from->rng.offset + (uint64_t)(q->row * p->cols + q->col);
    p->k->normals(q->n, from->rng.seed, first, scratch);
    return scratch;
}

const float *piece_step(const motion *p, const denoised *d, const piece *q, float *scratch,
                        float *more)
{
    const line_arg minus = { .a = -1.0f };
    if (d->given) return piece_fetch(p, &d->z, q, scratch);
    const float *x = piece_fetch(p, &d->x, q, scratch);
    const float *x0 = piece_fetch(p, &d->x0, q, more);
    if (p->log_state)
        p->k->line(q->n, x, x0, NULL, &minus, more);
    else
        p->k->log_ratio(q->n, x, x0, more);
    return more;
}

/* ---- Coefficients ------------------------------------------------------------------------ */

double one_of(double sigma, double mu)
{
    (void)sigma, (void)mu;
    return 1;
}

double sigma_of(double sigma, double mu)
{
    (void)mu;
    return sigma;
}

double variance_of(double sigma, double mu)
{
    (void)mu;
    return sigma * sigma;
}

double inverse_of(double sigma, double mu)
{
    (void)mu;
    return 1 / sigma;
}

slg_status term_open(slg_ctx *ctx, const motion *p, int half_powers, term_fn f, double scale,
                     term *out)
{
    *out = (term){ .half_powers = half_powers, .value = scale * f(p->sigma, p->mu) };
    if (!p->sigmas || f == one_of) {
        if (f == one_of) out->value = scale;
        return SLG_OK;
    }
    double *values = arena_alloc(ctx, (size_t)p->cols, sizeof *values);
    float *narrow = arena_alloc(ctx, (size_t)p->cols, sizeof *narrow);
    if (!values || !narrow) return SLG_ERR_MEMORY;
    for (int64_t j = 0; j < p->cols; j++) {
        values[j] = scale * f(p->sigmas[j], p->mus[j]);
        narrow[j] = (float)values[j];
    }
    out->values = values, out->narrow = narrow;
    return SLG_OK;
}

static double power_of(double t, int half_powers)
{
    switch (half_powers) {
    case 0:
        return 1;
    case 1:
        return sqrt(t);
    case 2:
        return t;
    case -1:
        return 1 / sqrt(t);
    default:
        return 1 / t;
    }
}

float term_over(const motion *p, const term *c, const piece *q, float *scratch,
                const float **at)
{
    *at = NULL;
    if (q->rows == 1) {
        const double factor = c->half_powers ? power_of(p->t[q->row], c->half_powers) : 1;
        if (!c->values) return (float)(factor * c->value);
        *at = c->narrow + q->col;
        return (float)factor;
    }
    if (!c->values && c->half_powers == 0) return (float)c->value;
    for (int64_t r = 0; r < q->rows; r++) {
        const double factor = c->half_powers ? power_of(p->t[q->row + r], c->half_powers) : 1;
        const float whole = (float)(factor * c->value);
        float *to = scratch + r * q->cols;
        for (int64_t j = 0; j < q->cols; j++)
            to[j] = c->values ? (float)(factor * c->values[j]) : whole;
    }
    *at = scratch;
    return 1.0f;
}

line_arg line_over(const motion *p, const line_terms *terms, const piece *q)
{
    line_arg l;
    l.a = term_over(p, &terms->a, q, piece_buffer(p, q, 0), &l.av);
    l.b = term_over(p, &terms->b, q, piece_buffer(p, q, 1), &l.bv);
    l.c = term_over(p, &terms->c, q, piece_buffer(p, q, 2), &l.cv);
    return l;
}
