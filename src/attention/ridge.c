/*
 * ridge.c - ridge regression of a batch of prompts, by Cholesky of the smaller of the two Gram
 * matrices: w = (X'X + lambda P)^-1 X'y = X'(X X' + lambda I)^-1 y where P = I.
 */
#include <float.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "prompts.h"

static const slg_ridge_opts opts_defaults = { .size = sizeof(slg_ridge_opts) };

void slg_ridge_opts_init(slg_ridge_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

typedef struct problem {
    double *x, *y, *gram, *precision; /* precision NULL: the identity */
    double lambda;
} problem;

/* y = X'y; tall: X is [n, d]. */
static void carry_back(const prompts *p, const problem *s, const double *y, double *to)
{
    memset(to, 0, (size_t)p->d * sizeof *to);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->d; j++) to[j] += y[i] * s->x[i * p->d + j];
}

static slg_status solve(const prompts *p, const problem *s, int64_t prompt, double *w)
{
    slg_ctx *ctx = p->ctx;
    const int64_t n = p->n, d = p->d;
    const bool dual = n < d && !s->precision;
    const int64_t size = dual ? n : d;
    double rcond = 1;
    for (int64_t i = 0; i < n; i++) row_doubles(&p->x, prompt * n + i, s->x + i * d);
    if (n > 0) row_doubles(&p->y, prompt, s->y);
    memset(s->gram, 0, (size_t)(size * size) * sizeof *s->gram);
    if (dual)
        SLG_TRY(blas_dgemm(ctx, false, true, n, n, d, 1, s->x, d, s->x, d, 0, s->gram, n));
    else
        SLG_TRY(blas_dsyrk(ctx, d, n, 1, s->x, s->gram));
    for (int64_t i = 0; i < size * size && s->precision; i++)
        s->gram[i] += s->lambda * s->precision[i];
    for (int64_t i = 0; i < size && !s->precision; i++) s->gram[i * (size + 1)] += s->lambda;
    if (!dual) carry_back(p, s, s->y, w);
    const double least = DBL_EPSILON * (double)(size > 0 ? size : 1);
    SLG_TRY(blas_dposv(ctx, size, s->gram, 1, dual ? s->y : w, least, &rcond));
    if (!(rcond >= least))
        return slg_fail(
            ctx, SLG_ERR_RANGE,
            "prompt %lld: a %lld x %lld matrix is not positive definite (reciprocal "
            "condition %.2g)",
            (long long)prompt, (long long)size, (long long)size, rcond);
    if (dual) carry_back(p, s, s->y, w);
    return SLG_OK;
}

slg_status prompts_ridge(prompts *p, double lambda)
{
    slg_ctx *ctx = p->ctx;
    problem s = { .lambda = lambda };
    if (p->shape.data) {
        SLG_TRY(matrix_doubles(ctx, &p->shape, p->d, &s.precision));
        SLG_TRY(matrix_symmetric(ctx, "precision", p->d, s.precision));
    }
    const int64_t size = p->n < p->d && !s.precision ? p->n : p->d;
    s.x = arena_alloc(ctx, (size_t)p->n, (size_t)p->d * sizeof *s.x);
    s.y = arena_alloc(ctx, (size_t)p->n, sizeof *s.y);
    s.gram = arena_alloc(ctx, (size_t)size, (size_t)size * sizeof *s.gram);
    if (!s.x || !s.y || !s.gram) return SLG_ERR_MEMORY;
    if (p->n == 0) memset(p->w, 0, (size_t)(p->count * p->d) * sizeof *p->w);
    for (int64_t b = 0; b < p->count && p->n > 0; b++) {
        const arena_mark_t mark = arena_mark(ctx);
        SLG_TRY(solve(p, &s, b, p->w + b * p->d));
        arena_release(ctx, mark);
    }
    return SLG_OK;
}

static slg_status ridge(prompts *p, const slg_tensor *x, const slg_tensor *y,
                        const slg_tensor *query, const slg_tensor *precision,
                        const slg_ridge_opts *opts, slg_tensor *w, slg_tensor *y_hat)
{
    slg_ridge_opts own = opts_defaults;
    SLG_TRY(options_read(p->ctx, "opts", opts, &own, sizeof own));
    SLG_TRY(option_reserved(p->ctx, "opts.reserved", own.reserved));
    SLG_TRY(option_least(p->ctx, "lambda", own.lambda, 0));
    SLG_TRY(prompts_open(p, x, y, query, NULL, "precision", precision, w, y_hat));
    SLG_TRY(prompts_ridge(p, own.lambda));
    return prompts_write(p);
}

slg_status slg_ridge(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                     const slg_tensor *query, const slg_tensor *precision,
                     const slg_ridge_opts *opts, slg_tensor *w, slg_tensor *y_hat)
{
    if (!ctx) return SLG_ERR_NULL;
    prompts p = { .ctx = ctx };
    op_begin(ctx, "slg_ridge");
    return op_end(ctx, ridge(&p, x, y, query, precision, opts, w, y_hat));
}
