/*
 * one_step.c - a step of descent on prompts, and the rate that suits it best.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "prompts.h"

static const slg_one_step_opts opts_defaults = { .size = sizeof(slg_one_step_opts), .eta = 1 };
static const slg_one_step_eta_out eta_defaults = { .size = sizeof(slg_one_step_eta_out) };

void slg_one_step_opts_init(slg_one_step_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

void slg_one_step_eta_out_init(slg_one_step_eta_out *out, size_t size)
{
    options_init(out, size, &eta_defaults, sizeof eta_defaults);
}

/* ---- Prompts ----------------------------------------------------------------------------- */

slg_status prompts_open(prompts *p, const slg_tensor *x, const slg_tensor *y,
                        const slg_tensor *query, const slg_tensor *label,
                        const char *shape_name, const slg_tensor *shape, slg_tensor *w,
                        slg_tensor *y_hat)
{
    const unsigned real = DT_F32 | DT_F64;
    slg_ctx *ctx = p->ctx;
    SLG_TRY(tensor_in(ctx, "x", x, real, 3, 3));
    op_detail(ctx, x);
    p->count = x->shape[0], p->n = x->shape[1], p->d = x->shape[2], p->queries = 1;
    if (query) SLG_TRY(tensor_in(ctx, "query", query, real, 2, 3));
    p->many = query && query->ndim == 3;
    if (p->many) p->queries = query->shape[1];
    const int64_t b = p->count, m = p->queries, d = p->d;
    const int32_t axes = p->many ? 3 : 2;
    const operand in[] = {
        { "x", x, real, true, 3, { b, p->n, d }, &p->x, NULL },
        { "y", y, real, true, 2, { b, p->n }, &p->y, NULL },
        { "query",
          query,
          real,
          label || y_hat,
          axes,
          { b, p->many ? m : d, d },
          &p->query,
          NULL },
        { "label", label, real, false, axes - 1, { b, m }, &p->label, NULL },
        { shape_name, shape, real, false, 2, { d, d }, &p->shape, NULL },
    };
    const operand out[] = {
        { "w", w, real, false, 2, { b, d }, &p->w_out, NULL },
        { "y_hat", y_hat, real, false, axes - 1, { b, m }, &p->y_hat, NULL }
    };
    SLG_TRY(operands_in(ctx, in, sizeof in / sizeof *in));
    SLG_TRY(operands_out(ctx, out, 2, in, sizeof in / sizeof *in));
    p->w = arena_alloc(ctx, (size_t)b, (size_t)d * sizeof *p->w);
    return p->w ? SLG_OK : SLG_ERR_MEMORY;
}

double prompts_predict(const prompts *p, int64_t prompt, int64_t query, double *scratch)
{
    const double *w = p->w + prompt * p->d;
    double sum = 0;
    row_doubles(&p->query, prompt * p->queries + query, scratch);
    for (int64_t j = 0; j < p->d; j++) sum += w[j] * scratch[j];
    return sum;
}

typedef struct step_run {
    prompts *p;
    double *to, *rows; /* [count, d]: X'y; [d] a worker */
} step_run;

static void correlate(void *arg, int64_t prompt, int32_t worker)
{
    const step_run *s = arg;
    const prompts *p = s->p;
    double *z = s->to + prompt * p->d, *x = s->rows + worker * p->d;
    memset(z, 0, (size_t)p->d * sizeof *z);
    for (int64_t i = 0; i < p->n; i++) {
        const double y = rows_get(&p->y, prompt, i);
        row_doubles(&p->x, prompt * p->n + i, x);
        for (int64_t j = 0; j < p->d; j++) z[j] += y * x[j];
    }
}

slg_status prompts_step(prompts *p, double eta)
{
    slg_ctx *ctx = p->ctx;
    const int64_t d = p->d, b = p->count;
    double *gamma = NULL;
    step_run s = { p, p->w, NULL };
    s.rows = arena_alloc(ctx, (size_t)ctx->num_threads, (size_t)d * sizeof *s.rows);
    if (p->shape.data) s.to = arena_alloc(ctx, (size_t)b, (size_t)d * sizeof *s.to);
    if (!s.rows || !s.to) return SLG_ERR_MEMORY;
    pool_run(ctx, b, correlate, &s);
    if (p->shape.data) {
        SLG_TRY(matrix_doubles(ctx, &p->shape, d, &gamma));
        return blas_dgemm(ctx, false, true, b, d, d, eta, s.to, d, gamma, d, 0, p->w, d);
    }
    for (int64_t i = 0; i < b * d; i++) p->w[i] *= eta;
    return SLG_OK;
}

slg_status prompts_write(prompts *p)
{
    double *scratch = arena_alloc(p->ctx, (size_t)p->d, sizeof *scratch);
    if (!scratch) return SLG_ERR_MEMORY;
    for (int64_t b = 0; b < p->count; b++) {
        if (p->w_out.data) row_store(&p->w_out, b, p->w + b * p->d);
        for (int64_t q = 0; p->y_hat.data && q < p->queries; q++)
            rows_put(&p->y_hat, p->many ? b : 0, p->many ? q : b,
                     prompts_predict(p, b, q, scratch));
    }
    return SLG_OK;
}

static slg_status one_step(prompts *p, const slg_tensor *x, const slg_tensor *y,
                           const slg_tensor *query, const slg_tensor *gamma,
                           const slg_one_step_opts *opts, slg_tensor *w, slg_tensor *y_hat)
{
    slg_one_step_opts own = opts_defaults;
    SLG_TRY(options_read(p->ctx, "opts", opts, &own, sizeof own));
    SLG_TRY(option_reserved(p->ctx, "opts.reserved", own.reserved));
    if (!isfinite(own.eta))
        return slg_fail(p->ctx, SLG_ERR_RANGE, "eta is %g, must be finite", own.eta);
    SLG_TRY(prompts_open(p, x, y, query, NULL, "gamma", gamma, w, y_hat));
    SLG_TRY(prompts_step(p, own.eta));
    return prompts_write(p);
}

slg_status slg_one_step(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                        const slg_tensor *query, const slg_tensor *gamma,
                        const slg_one_step_opts *opts, slg_tensor *w, slg_tensor *y_hat)
{
    if (!ctx) return SLG_ERR_NULL;
    prompts p = { .ctx = ctx };
    op_begin(ctx, "slg_one_step");
    return op_end(ctx, one_step(&p, x, y, query, gamma, opts, w, y_hat));
}

/* ---- The best rate ----------------------------------------------------------------------- */

static slg_status eta_of_labels(prompts *p, slg_one_step_eta_out *out)
{
    double *scratch = arena_alloc(p->ctx, (size_t)p->d, sizeof *scratch);
    if (!scratch) return SLG_ERR_MEMORY;
    SLG_TRY(prompts_step(p, 1));
    for (int64_t b = 0; b < p->count; b++)
        for (int64_t q = 0; q < p->queries; q++) {
            const double f = prompts_predict(p, b, q, scratch);
            const double y = p->many ? rows_get(&p->label, b, q) : rows_get(&p->label, 0, b);
            out->numerator += f * y, out->denominator += f * f;
        }
    return SLG_OK;
}

static slg_status eta_of_ridge(prompts *p, double lambda, slg_one_step_eta_out *out)
{
    const int64_t size = p->count * p->d;
    SLG_TRY(prompts_ridge(p, lambda));
    double *ridge = p->w;
    p->w = arena_alloc(p->ctx, (size_t)p->count, (size_t)p->d * sizeof *p->w);
    if (!p->w) return SLG_ERR_MEMORY;
    SLG_TRY(prompts_step(p, 1));
    for (int64_t i = 0; i < size; i++) {
        out->numerator += ridge[i] * p->w[i];
        out->denominator += p->w[i] * p->w[i];
    }
    return SLG_OK;
}

static slg_status one_step_eta(prompts *p, const slg_tensor *x, const slg_tensor *y,
                               const slg_tensor *query, const slg_tensor *label,
                               const slg_tensor *gamma, const slg_ridge_opts *ridge,
                               slg_one_step_eta_out *given)
{
    slg_one_step_eta_out out = eta_defaults;
    slg_ridge_opts own;
    slg_ridge_opts_init(&own, sizeof own);
    if (!given) return slg_fail(p->ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(p->ctx, "out", given, &out, sizeof out));
    SLG_TRY(option_reserved(p->ctx, "out.reserved", out.reserved));
    SLG_TRY(options_read(p->ctx, "ridge", ridge, &own, sizeof own));
    SLG_TRY(option_reserved(p->ctx, "ridge.reserved", own.reserved));
    SLG_TRY(option_least(p->ctx, "ridge.lambda", own.lambda, 0));
    if (!label && (query || gamma))
        return slg_fail(p->ctx, SLG_ERR_NULL, "label is NULL, and %s is given",
                        query ? "query" : "gamma");
    SLG_TRY(prompts_open(p, x, y, query, label, "gamma", gamma, NULL, NULL));
    out.numerator = out.denominator = 0;
    SLG_TRY(label ? eta_of_labels(p, &out) : eta_of_ridge(p, own.lambda, &out));
    out.eta = out.denominator != 0 ? out.numerator / out.denominator : 0;
    options_write(given, &out, sizeof out);
    return SLG_OK;
}

slg_status slg_one_step_eta(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                            const slg_tensor *query, const slg_tensor *label,
                            const slg_tensor *gamma, const slg_ridge_opts *ridge,
                            slg_one_step_eta_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    prompts p = { .ctx = ctx };
    op_begin(ctx, "slg_one_step_eta");
    return op_end(ctx, one_step_eta(&p, x, y, query, label, gamma, ridge, out));
}
