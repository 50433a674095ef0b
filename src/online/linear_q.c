/*
 * linear_q.c - estimates of Q from one visit: see mdp.h. Actions go in blocks of rows, samples
 * in blocks of columns, so that workspace grows with d alone.
 */
#include <math.h>

#include "core/blas.h"
#include "core/options.h"
#include "linear_mdp.h"
#include "softmax/parts.h"

enum { ROWS = 256, SAMPLES = 256 };

static const slg_linear_q_opts defaults = { .size = sizeof(slg_linear_q_opts),
                                            .horizon = 1,
                                            .beta = 1 };

void slg_linear_q_opts_init(slg_linear_q_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

void slg_linear_q_out_init(slg_linear_q_out *out, size_t size)
{
    static const slg_linear_q_out none = { .size = sizeof none };
    options_init(out, size, &none, sizeof none);
}

/* ---- In double -------------------------------------------------------------------------- */

/* Scratch of a block of rows. */
typedef struct q_block {
    double *phi, *t; /* [ROWS, d]: phi, phi S */
    double *g;       /* [ROWS, SAMPLES] */
    double *q, *low; /* [ROWS]: phi'S visited; sum of w (phi'S phi_m)_- */
} q_block;

static slg_status block_of(slg_ctx *ctx, const q_problem *p, q_block *b)
{
    const size_t n = p->n < ROWS ? (size_t)p->n : ROWS, d = (size_t)p->d;
    b->phi = arena_alloc(ctx, n * d, sizeof(double));
    b->t = arena_alloc(ctx, n * d, sizeof(double));
    b->g = arena_alloc(ctx, n * SAMPLES, sizeof(double));
    b->q = arena_alloc(ctx, n, sizeof(double));
    b->low = arena_alloc(ctx, n, sizeof(double));
    return b->phi && b->t && b->g && b->q && b->low ? SLG_OK : SLG_ERR_MEMORY;
}

static slg_status lows(slg_ctx *ctx, const q_problem *p, const q_block *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) b->low[i] = 0;
    for (int64_t from = 0; from < p->m; from += SAMPLES) {
        const int64_t m = p->m - from < SAMPLES ? p->m - from : SAMPLES;
        SLG_TRY(blas_dgemm(ctx, false, true, n, m, p->d, 1, b->t, p->d,
                           p->samples + from * p->d, p->d, 0, b->g, m));
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < m; j++) {
                const double g = b->g[i * m + j];
                const double w = p->weight ? p->weight[from + j] : 1 / (double)p->m;
                if (!(g >= 0)) b->low[i] += w * g; /* NaN too */
            }
    }
    return SLG_OK;
}

static void emit(const q_problem *p, const q_block *b, int64_t from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double q = b->q[i], offset = p->horizon * b->low[i];
        const double least = q < 0 ? p->horizon * q : 0;
        if (p->plain) p->plain[from + i] = q * p->loss;
        if (p->offset) p->offset[from + i] = offset;
        if (p->reduced) p->reduced[from + i] = q * p->loss - least + offset;
        if (!p->width) continue;
        double sum = 0;
        for (int64_t k = 0; k < p->d; k++) sum += b->phi[i * p->d + k] * b->t[i * p->d + k];
        p->width[from + i] = sum;
    }
}

slg_status linear_estimates(slg_ctx *ctx, const q_problem *p)
{
    const arena_mark_t mark = arena_mark(ctx);
    const int64_t d = p->d;
    q_block b;
    SLG_TRY(block_of(ctx, p, &b));
    for (int64_t from = 0; from < p->n; from += ROWS) {
        const int64_t n = p->n - from < ROWS ? p->n - from : ROWS;
        for (int64_t i = 0; i < n; i++) {
            row_doubles(p->phi, p->first + from + i, b.phi + i * d);
            b.q[i] = b.low[i] = 0;
        }
        SLG_TRY(blas_dgemm(ctx, false, false, n, d, d, 1, b.phi, d, p->inverse, d, 0, b.t, d));
        if (p->visited) SLG_TRY(blas_dgemv(ctx, false, n, d, b.t, d, p->visited, false, b.q));
        if (p->offset || p->reduced) SLG_TRY(lows(ctx, p, &b, n));
        emit(p, &b, from, n);
    }
    arena_release(ctx, mark);
    return SLG_OK;
}

void bonus_from_widths(int64_t states, int64_t actions, double beta, const double *policy,
                       const double *width, double *b)
{
    for (int64_t s = 0; s < states; s++) {
        double mean = 0;
        for (int64_t i = s * actions; i < (s + 1) * actions; i++) mean += policy[i] * width[i];
        for (int64_t i = s * actions; i < (s + 1) * actions; i++)
            b[i] = beta * (width[i] + mean);
    }
}

/* ---- The call --------------------------------------------------------------------------- */

enum { OUTPUTS = 5 };

typedef struct q_call {
    slg_linear_q_opts opts;
    slg_tensor *out[OUTPUTS]; /* plain, offset, reduced, width, bonus */
    int32_t ndim;             /* of outputs */
    int64_t states, actions, d;
} q_call;

static slg_status check_options(slg_ctx *ctx, const slg_linear_q_opts *given,
                                slg_linear_q_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_reserved(ctx, "reserved", o->reserved));
    SLG_TRY(option_range(ctx, "horizon", o->horizon, 1e-300, 1e300));
    SLG_TRY(option_range(ctx, "loss_to_go", o->loss_to_go, 0, o->horizon));
    return option_least(ctx, "beta", o->beta, 0);
}

static slg_status check_inputs(slg_ctx *ctx, q_call *c, const slg_tensor *phi,
                               const slg_tensor *visited, const slg_tensor *inverse,
                               const slg_tensor *samples, const slg_tensor *weight)
{
    SLG_TRY(tensor_in(ctx, "phi", phi, DT_FEATURE, 2, 3));
    c->ndim = phi->ndim - 1;
    c->states = c->ndim == 2 ? phi->shape[0] : 1;
    c->actions = phi->shape[c->ndim - 1], c->d = phi->shape[c->ndim];
    const int64_t square[2] = { c->d, c->d };
    SLG_TRY(check_dim(ctx, c->d));
    SLG_TRY(input_of(ctx, "inverse", inverse, DT_REAL, 2, square));
    if (visited) SLG_TRY(input_of(ctx, "visited", visited, DT_FEATURE, 1, &c->d));
    if (samples) {
        SLG_TRY(tensor_in(ctx, "samples", samples, DT_FEATURE, 2, 2));
        if (samples->shape[1] != c->d)
            return slg_fail(ctx, SLG_ERR_SHAPE, "samples has %lld columns, phi has %lld",
                            (long long)samples->shape[1], (long long)c->d);
    }
    if (!weight) return SLG_OK;
    if (!samples) return slg_fail(ctx, SLG_ERR_NULL, "weight is given, samples is NULL");
    return input_of(ctx, "weight", weight, DT_REAL, 1, samples->shape);
}

static slg_status check_outputs(slg_ctx *ctx, q_call *c, const slg_linear_q_out *given,
                                const slg_tensor *const in[6])
{
    static const char *const names[OUTPUTS] = { "plain", "offset", "reduced", "width",
                                                "bonus" };
    slg_linear_q_out out = { .size = sizeof out };
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", given, &out, sizeof out));
    SLG_TRY(option_reserved(ctx, "out.reserved", out.reserved));
    slg_tensor *const all[OUTPUTS] = { out.plain, out.offset, out.reduced, out.width,
                                       out.bonus };
    const int64_t shape[2] = { c->ndim == 2 ? c->states : c->actions, c->actions };
    for (int i = 0; i < OUTPUTS; i++) {
        if (!(c->out[i] = all[i])) continue;
        SLG_TRY(output_of(ctx, names[i], all[i], DT_REAL, c->ndim, shape));
        for (int j = 0; j < i; j++)
            if (outputs_clash(all[i], all[j]))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s and %s overlap", names[i], names[j]);
        for (int j = 0; j < 6; j++)
            if (tensor_clash(all[i], in[j]))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps an input", names[i]);
    }
    if ((out.plain || out.reduced) && !in[1])
        return slg_fail(ctx, SLG_ERR_NULL, "visited is NULL: %s needs it",
                        out.plain ? names[0] : names[2]);
    if (!out.bonus) return SLG_OK;
    return input_of(ctx, "policy", in[5], DT_REAL, c->ndim, shape);
}

/* in: phi, visited, inverse, samples, weight, policy. */
static slg_status estimate(slg_ctx *ctx, q_call *c, const slg_tensor *const in[6])
{
    const rows phi = rows_of(in[0]);
    double *x[6] = { NULL }, *out[OUTPUTS] = { NULL };
    for (int i = 1; i < 6; i++)
        if (in[i] && !(x[i] = tensor_doubles(ctx, in[i]))) return SLG_ERR_MEMORY;
    const int64_t m = in[3] ? in[3]->shape[0] : 0;
    if (x[4]) SLG_TRY(weigh(ctx, "weight", m, true, x[4]));
    for (int i = 0; i < OUTPUTS; i++) {
        const bool wanted = c->out[i] || (i == 3 && c->out[4]);
        if (wanted && !(out[i] = arena_alloc(ctx, (size_t)phi.count, sizeof *out[i])))
            return SLG_ERR_MEMORY;
    }
    const q_problem q = { &phi,
                          0,
                          phi.count,
                          c->d,
                          m,
                          x[1],
                          x[2],
                          x[3],
                          x[4],
                          c->opts.loss_to_go,
                          c->opts.horizon,
                          out[0],
                          out[1],
                          out[2],
                          out[3] };
    SLG_TRY(linear_estimates(ctx, &q));
    if (out[4]) bonus_from_widths(c->states, c->actions, c->opts.beta, x[5], out[3], out[4]);
    for (int i = 0; i < OUTPUTS; i++) doubles_write(c->out[i], out[i]);
    return SLG_OK;
}

slg_status slg_linear_q(slg_ctx *ctx, const slg_tensor *phi, const slg_tensor *visited,
                        const slg_tensor *inverse, const slg_tensor *samples,
                        const slg_tensor *weight, const slg_tensor *policy,
                        const slg_linear_q_opts *opts, const slg_linear_q_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    const slg_tensor *const in[6] = { phi,     visited, inverse,
                                      samples, weight,  out && out->bonus ? policy : NULL };
    q_call c = { .opts = defaults };
    op_begin(ctx, "slg_linear_q");
    slg_status status = check_options(ctx, opts, &c.opts);
    if (status == SLG_OK)
        status = check_inputs(ctx, &c, phi, visited, inverse, samples, weight);
    if (status == SLG_OK) status = check_outputs(ctx, &c, out, in);
    op_detail(ctx, phi);
    if (status == SLG_OK) status = estimate(ctx, &c, in);
    return op_end(ctx, status);
}
