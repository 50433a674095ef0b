/*
 * regression_tasks.c - prompts of regression from a counter: each number has its place in the
 * stream by prompt, token and coordinate, so prompts are drawn in any order by any thread.
 */
#include <float.h>
#include <math.h>

#include "core/blas.h"
#include "core/options.h"
#include "core/rng.h"
#include "operands.h"
#include "softlogit/linear_attention.h"

enum { MOST_UNITS = 4096 };

static const slg_regression_tasks_opts opts_defaults = {
    .size = sizeof(slg_regression_tasks_opts),
    .units = 16,
    .noisy_label = 1,
};
static const slg_regression_tasks_out out_defaults = {
    .size = sizeof(slg_regression_tasks_out),
};

void slg_regression_tasks_opts_init(slg_regression_tasks_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

void slg_regression_tasks_out_init(slg_regression_tasks_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

enum { OUT_TOKENS, OUT_X, OUT_Y, OUT_QUERY, OUT_LABEL, OUT_WEIGHTS, OUTPUTS };

typedef struct tasks {
    slg_ctx *ctx;
    slg_regression_tasks_opts opts;
    slg_rng rng;
    int64_t count, n, d, params; /* params: numbers of a function */
    uint64_t stride;             /* numbers of a prompt */
    rows to[OUTPUTS];
    double *root_sigma, *root_lambda; /* Cholesky factors; NULL: the identity */
    double *scratch;
    int64_t worker_doubles;
} tasks;

static double number(const tasks *s, int64_t prompt, int64_t at)
{
    return rng_normal(s->rng.seed, s->rng.offset + (uint64_t)prompt * s->stride + (uint64_t)at);
}

/* x = L z over z; L lower triangular, so from the last row up. */
static void shape(int64_t d, const double *root, double *z)
{
    for (int64_t i = d - 1; root && i >= 0; i--) {
        double sum = 0;
        for (int64_t j = 0; j <= i; j++) sum += root[i * d + j] * z[j];
        z[i] = sum;
    }
}

/* The function's numbers, from their place on: w, or W and r. */
static void draw_function(const tasks *s, int64_t prompt, double *f)
{
    const int64_t first = (s->n + 1) * (s->d + 1), units = s->opts.units;
    for (int64_t i = 0; i < s->params; i++) f[i] = number(s, prompt, first + i);
    if (s->opts.function == SLG_TASK_LINEAR) {
        shape(s->d, s->root_lambda, f);
        return;
    }
    const double w = 1 / sqrt((double)(s->d > 0 ? s->d : 1)), r = 1 / sqrt((double)units);
    for (int64_t i = 0; i < s->d * units; i++) f[i] *= w;
    for (int64_t i = 0; i < units; i++) f[s->d * units + i] *= r;
}

static double value(const tasks *s, const double *f, const double *x)
{
    const int64_t units = s->opts.units;
    double y = 0;
    if (s->opts.function == SLG_TASK_LINEAR) {
        for (int64_t j = 0; j < s->d; j++) y += f[j] * x[j];
        return y;
    }
    for (int64_t u = 0; u < units; u++) {
        double z = 0;
        for (int64_t j = 0; j < s->d; j++) z += f[j * units + u] * x[j];
        if (z > 0) y += f[s->d * units + u] * z;
    }
    return y;
}

static void write_token(const tasks *s, int64_t prompt, int64_t i, double *x, double y)
{
    const rows *to = s->to;
    const bool query = i == s->n;
    if (to[OUT_X].data && !query) row_store(&to[OUT_X], prompt * s->n + i, x);
    if (to[OUT_Y].data && !query) rows_put(&to[OUT_Y], prompt, i, y);
    if (to[OUT_QUERY].data && query) row_store(&to[OUT_QUERY], prompt, x);
    if (to[OUT_LABEL].data && query) rows_put(&to[OUT_LABEL], 0, prompt, y);
    x[s->d] = query ? 0 : y;
    if (to[OUT_TOKENS].data) row_store(&to[OUT_TOKENS], prompt * (s->n + 1) + i, x);
}

static void one_prompt(void *arg, int64_t prompt, int32_t worker)
{
    const tasks *s = arg;
    double *f = s->scratch + worker * s->worker_doubles, *x = f + s->params;
    draw_function(s, prompt, f);
    if (s->to[OUT_WEIGHTS].data) row_store(&s->to[OUT_WEIGHTS], prompt, f);
    for (int64_t i = 0; i <= s->n; i++) {
        const int64_t first = i * (s->d + 1);
        for (int64_t j = 0; j < s->d; j++) x[j] = number(s, prompt, first + j);
        shape(s->d, s->root_sigma, x);
        double y = value(s, f, x);
        if (s->opts.noise > 0 && (i < s->n || s->opts.noisy_label))
            y += s->opts.noise * number(s, prompt, first + s->d);
        write_token(s, prompt, i, x, y);
    }
}

/* ---- A call ------------------------------------------------------------------------------ */

static slg_status read_options(tasks *s, const slg_regression_tasks_opts *opts)
{
    slg_ctx *ctx = s->ctx;
    s->opts = opts_defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &s->opts, sizeof s->opts));
    SLG_TRY(option_choice(ctx, "function", s->opts.function, SLG_TASK_LINEAR, SLG_TASK_RELU));
    SLG_TRY(option_choice(ctx, "units", s->opts.units, 1, MOST_UNITS));
    SLG_TRY(option_choice(ctx, "noisy_label", s->opts.noisy_label, 0, 1));
    return option_least(ctx, "noise", s->opts.noise, 0);
}

static slg_status read_sizes(tasks *s, const slg_regression_tasks_out *out)
{
    const slg_tensor *t = out->tokens ? out->tokens : out->x;
    if (!t) return slg_fail(s->ctx, SLG_ERR_NULL, "out.tokens and out.x are NULL");
    SLG_TRY(tensor_out(s->ctx, out->tokens ? "out.tokens" : "out.x", t, DT_F32 | DT_F64, 3, 3));
    op_detail(s->ctx, t);
    s->count = t->shape[0], s->n = t->shape[1], s->d = t->shape[2];
    if (out->tokens) s->n--, s->d--;
    if (s->n < 0 || s->d < 0 || s->n >= INT32_MAX || s->d >= INT32_MAX)
        return slg_fail(s->ctx, SLG_ERR_SHAPE, "there are %lld tokens of %lld a prompt",
                        (long long)s->n + 1, (long long)s->d + 1);
    s->params = s->opts.function == SLG_TASK_LINEAR ? s->d : (s->d + 1) * s->opts.units;
    s->stride = (uint64_t)((s->n + 1) * (s->d + 1) + s->params);
    return SLG_OK;
}

static slg_status root_of(tasks *s, const char *name, const rows *m, double **root)
{
    const int64_t d = s->d;
    double rcond;
    bool definite;
    *root = NULL;
    if (!m->data) return SLG_OK;
    SLG_TRY(matrix_doubles(s->ctx, m, s->d, root));
    SLG_TRY(matrix_symmetric(s->ctx, name, s->d, *root));
    SLG_TRY(blas_dpotrf(s->ctx, d, *root, &definite, &rcond));
    for (int64_t i = 0; i < d; i++) /* L = R' */
        for (int64_t j = 0; j < i; j++)
            (*root)[i * d + j] = (*root)[j * d + i], (*root)[j * d + i] = 0;
    if (rcond > DBL_EPSILON) return SLG_OK;
    return slg_fail(s->ctx, SLG_ERR_RANGE,
                    "%s is not positive definite (reciprocal condition %.2g)", name, rcond);
}

static slg_status check(tasks *s, const slg_tensor *sigma, const slg_tensor *lambda,
                        const slg_regression_tasks_out *o)
{
    const unsigned real = DT_F32 | DT_F64;
    const int64_t b = s->count, n = s->n, d = s->d;
    rows rs, rl;
    const operand in[] = { { "sigma", sigma, real, false, 2, { d, d }, &rs, NULL },
                           { "lambda", lambda, real, false, 2, { d, d }, &rl, NULL } };
    const operand out[] = {
        { "out.tokens",
          o->tokens,
          real,
          false,
          3,
          { b, n + 1, d + 1 },
          &s->to[OUT_TOKENS],
          NULL },
        { "out.x", o->x, real, false, 3, { b, n, d }, &s->to[OUT_X], NULL },
        { "out.y", o->y, real, false, 2, { b, n }, &s->to[OUT_Y], NULL },
        { "out.query", o->query, real, false, 2, { b, d }, &s->to[OUT_QUERY], NULL },
        { "out.label", o->label, real, false, 1, { b }, &s->to[OUT_LABEL], NULL },
        { "out.weights", o->weights, real, false, 2, { b, d }, &s->to[OUT_WEIGHTS], NULL },
    };
    SLG_TRY(operands_in(s->ctx, in, 2));
    SLG_TRY(operands_out(s->ctx, out, OUTPUTS, in, 2));
    if (s->opts.function != SLG_TASK_LINEAR && (lambda || o->weights))
        return slg_fail(s->ctx, SLG_ERR_OPTIONS, "%s is of SLG_TASK_LINEAR alone",
                        lambda ? "lambda" : "out.weights");
    SLG_TRY(root_of(s, "sigma", &rs, &s->root_sigma));
    return root_of(s, "lambda", &rl, &s->root_lambda);
}

static slg_status run(tasks *s, const slg_tensor *sigma, const slg_tensor *lambda,
                      const slg_regression_tasks_opts *opts, slg_rng *rng,
                      const slg_regression_tasks_out *given)
{
    slg_regression_tasks_out out = out_defaults;
    if (!rng || !given)
        return slg_fail(s->ctx, SLG_ERR_NULL, "%s is NULL", rng ? "out" : "rng");
    SLG_TRY(read_options(s, opts));
    SLG_TRY(options_read(s->ctx, "out", given, &out, sizeof out));
    SLG_TRY(option_reserved(s->ctx, "out.reserved", out.reserved));
    SLG_TRY(read_sizes(s, &out));
    SLG_TRY(check(s, sigma, lambda, &out));
    s->rng = *rng;
    s->worker_doubles = (s->params + s->d + 1 + 7) / 8 * 8 + 8;
    s->scratch = arena_alloc(s->ctx, (size_t)s->ctx->num_threads,
                             (size_t)s->worker_doubles * sizeof *s->scratch);
    if (!s->scratch) return SLG_ERR_MEMORY;
    pool_run(s->ctx, s->count, one_prompt, s);
    rng->offset += (uint64_t)s->count * s->stride;
    return SLG_OK;
}

slg_status slg_regression_tasks(slg_ctx *ctx, const slg_tensor *sigma, const slg_tensor *lambda,
                                const slg_regression_tasks_opts *opts, slg_rng *rng,
                                slg_regression_tasks_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    tasks s = { .ctx = ctx };
    op_begin(ctx, "slg_regression_tasks");
    return op_end(ctx, run(&s, sigma, lambda, opts, rng, out));
}
