/*
 * ordinal_regression.c - see ordinal.h: a fit at one lambda, along a path, with
 * cross-validation.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "core/rng.h"
#include "ordinal_solve.h"
#include "softmax/parts.h"

static const slg_ordinal_path_out no_out = { .size = sizeof no_out };

void slg_ordinal_path_out_init(slg_ordinal_path_out *out, size_t size)
{
    options_init(out, size, &no_out, sizeof no_out);
}

/* ---- What the calls share --------------------------------------------------------------- */

typedef struct regression {
    slg_ctx *ctx;
    const char *op;
    slg_ordinal_opts opts;
    ordinal_model raw, model; /* raw: x as it is, for cross-validation */
    ordinal_fit fit;
    double *factor, *alpha, *beta; /* [p], and [m], [m, p] of the last fit */
    /* Paths: [count], [count, m], [count, m, p]. */
    int64_t count;
    double *lambda, *value, *score, *alphas, *betas, lambda_max;
    int64_t *nonzero, *reason;
    int32_t *fold; /* [n] */
    slg_ordinal_path_out out;
} regression;

static void close(regression *g)
{
    ordinal_fit_close(&g->fit);
    ordinal_close(&g->model), ordinal_close(&g->raw);
    ctx_free(g->ctx, g->factor), ctx_free(g->ctx, g->alpha), ctx_free(g->ctx, g->lambda);
    ctx_free(g->ctx, g->nonzero), ctx_free(g->ctx, g->fold);
}

static slg_status open(regression *g, const slg_tensor *x, const slg_tensor *labels,
                       int64_t classes, const slg_ordinal_opts *opts)
{
    g->raw.ctx = g->model.ctx = g->ctx;
    SLG_TRY(ordinal_options(g->ctx, opts, &g->opts));
    SLG_TRY(ordinal_open(g->ctx, x, labels, classes, &g->model));
    SLG_TRY(ordinal_factors(g->ctx, &g->opts, g->model.q - 1, &g->factor));
    g->alpha = doubles_alloc(g->ctx, g->model.m, g->model.q, 0);
    if (!g->alpha) return SLG_ERR_MEMORY;
    g->beta = g->alpha + g->model.m;
    return SLG_OK;
}

static slg_status output_check(slg_ctx *ctx, const char *name, const slg_tensor *t,
                               unsigned dtypes, int32_t ndim, const int64_t *shape)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(ctx, name, t, dtypes, ndim, ndim));
    return tensor_shape_is(ctx, name, t, ndim, shape);
}

static slg_status apart(slg_ctx *ctx, int count, const slg_tensor *const *all)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            if (outputs_clash(all[i], all[j]))
                return slg_fail(ctx, SLG_ERR_STRIDE, "outputs overlap each other");
    return SLG_OK;
}

/* ---- At one lambda ---------------------------------------------------------------------- */

static slg_status fit_one(regression *g, double lambda, const slg_tensor *alpha,
                          const slg_tensor *beta, const slg_solver_report *report)
{
    const int64_t shape[2] = { g->model.m, g->model.q - 1 };
    const slg_tensor *all[2] = { alpha, beta };
    size_t size;
    if (!alpha || !beta)
        return slg_fail(g->ctx, SLG_ERR_NULL, "%s is NULL", alpha ? "beta" : "alpha");
    SLG_TRY(output_check(g->ctx, "alpha", alpha, DT_F32 | DT_F64, 1, shape));
    SLG_TRY(output_check(g->ctx, "beta", beta, DT_F32 | DT_F64, 2, shape));
    SLG_TRY(apart(g->ctx, 2, all));
    SLG_TRY(ordinal_lambda_check(g->ctx, "lambda", lambda));
    if (report) SLG_TRY(options_size(g->ctx, "report", report, &size));
    SLG_TRY(ordinal_fit_open(&g->fit, &g->model, g->op, &g->opts, g->factor));
    SLG_TRY(ordinal_fit_run(&g->fit, lambda));
    ordinal_fit_result(&g->fit, g->alpha, g->beta);
    return SLG_OK;
}

slg_status slg_ordinal_fit(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                           int64_t classes, double lambda, const slg_ordinal_opts *opts,
                           slg_tensor *alpha, slg_tensor *beta, slg_solver_report *report)
{
    if (!ctx) return SLG_ERR_NULL;
    regression g = { .ctx = ctx, .op = "slg_ordinal_fit" };
    op_begin(ctx, g.op);
    slg_status status = open(&g, x, labels, classes, opts);
    if (status == SLG_OK) status = fit_one(&g, lambda, alpha, beta, report);
    if (status == SLG_OK) {
        flat_write(alpha, g.alpha), flat_write(beta, g.beta);
        if (report) options_write(report, &g.fit.report, sizeof g.fit.report);
    }
    close(&g);
    return op_end(ctx, status);
}

/* What has no penalty is fitted; the others' gradients then say when they enter. */
static slg_status find_lambda_max(regression *g)
{
    SLG_TRY(ordinal_fit_open(&g->fit, &g->model, g->op, &g->opts, g->factor));
    SLG_TRY(ordinal_fit_run(&g->fit, INFINITY));
    g->lambda_max = ordinal_fit_entry(&g->fit);
    if (g->fit.report.reason != SLG_SOLVER_CALLBACK) return SLG_OK;
    return slg_fail(g->ctx, SLG_ERR_STOPPED, "progress asked to stop");
}

slg_status slg_ordinal_lambda_max(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                                  int64_t classes, const slg_ordinal_opts *opts, double *lambda)
{
    if (!ctx) return SLG_ERR_NULL;
    regression g = { .ctx = ctx, .op = "slg_ordinal_lambda_max" };
    op_begin(ctx, g.op);
    slg_status status = lambda ? open(&g, x, labels, classes, opts)
                               : slg_fail(ctx, SLG_ERR_NULL, "lambda is NULL");
    if (status == SLG_OK) status = find_lambda_max(&g);
    if (status == SLG_OK) *lambda = g.lambda_max;
    close(&g);
    return op_end(ctx, status);
}

/* ---- A path ----------------------------------------------------------------------------- */

static slg_status path_outputs(regression *g, const slg_ordinal_path_out *given)
{
    slg_ctx *ctx = g->ctx;
    const int64_t shape[3] = { g->count, g->model.m, g->model.q - 1 };
    const unsigned real = DT_F32 | DT_F64;
    g->out = no_out;
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", given, &g->out, sizeof g->out));
    const slg_ordinal_path_out *o = &g->out;
    SLG_TRY(output_check(ctx, "out.lambda", o->lambda, real, 1, shape));
    SLG_TRY(output_check(ctx, "out.alpha", o->alpha, real, 2, shape));
    SLG_TRY(output_check(ctx, "out.beta", o->beta, real, 3, shape));
    SLG_TRY(output_check(ctx, "out.value", o->value, real, 1, shape));
    SLG_TRY(output_check(ctx, "out.score", o->score, real, 1, shape));
    SLG_TRY(output_check(ctx, "out.nonzero", o->nonzero, DT_INT, 1, shape));
    SLG_TRY(output_check(ctx, "out.reason", o->reason, DT_INT, 1, shape));
    const slg_tensor *all[] = { o->lambda, o->alpha,   o->beta,  o->value,
                                o->score,  o->nonzero, o->reason };
    return apart(ctx, 7, all);
}

static slg_status path_memory(regression *g, const slg_tensor *lambdas)
{
    const int64_t count = g->count;
    if (count < 1 || count > INT32_MAX)
        return slg_fail(g->ctx, SLG_ERR_RANGE, "count is %lld, must be from 1 to %d",
                        (long long)count, INT32_MAX);
    g->lambda = doubles_alloc(g->ctx, count, 3 + g->model.m * g->model.q, 0);
    g->nonzero = ctx_alloc(g->ctx, (size_t)count * 2 * sizeof *g->nonzero);
    if (!g->lambda || !g->nonzero) return SLG_ERR_MEMORY;
    g->value = g->lambda + count, g->score = g->value + count, g->alphas = g->score + count;
    g->betas = g->alphas + count * g->model.m, g->reason = g->nonzero + count;
    memset(g->score, 0, (size_t)count * sizeof *g->score);
    if (!lambdas) return SLG_OK;
    SLG_TRY(flat_check(g->ctx, "lambdas", lambdas, count, false));
    flat_read(lambdas, g->lambda);
    for (int64_t i = 0; i < count; i++)
        SLG_TRY(ordinal_lambda_check(g->ctx, "an entry of lambdas", g->lambda[i]));
    return SLG_OK;
}

static slg_status path_run(regression *g, const slg_tensor *lambdas)
{
    const int64_t count = g->count, m = g->model.m, p = g->model.q - 1;
    SLG_TRY(find_lambda_max(g));
    for (int64_t i = 0; i < count; i++) {
        const double part = count > 1 ? (double)i / (double)(count - 1) : 0;
        if (!lambdas) g->lambda[i] = g->lambda_max * pow(g->opts.path_ratio, part);
        SLG_TRY(ordinal_fit_run(&g->fit, g->lambda[i]));
        if (g->fit.report.reason == SLG_SOLVER_CALLBACK)
            return slg_fail(g->ctx, SLG_ERR_STOPPED, "progress asked to stop");
        g->value[i] = g->fit.report.value, g->reason[i] = g->fit.report.reason;
        g->nonzero[i] = ordinal_fit_nonzero(&g->fit);
        ordinal_fit_result(&g->fit, g->alphas + i * m, g->betas + i * m * p);
    }
    return SLG_OK;
}

static void write_whole(const slg_tensor *t, const int64_t *from)
{
    if (!t) return;
    const rows r = rows_of(t);
    for (int64_t i = 0; i < r.cols; i++) rows_put(&r, 0, i, (double)from[i]);
}

static void path_write(const regression *g, slg_ordinal_path_out *out)
{
    slg_ordinal_path_out o = g->out;
    flat_write(o.lambda, g->lambda), flat_write(o.value, g->value);
    flat_write(o.alpha, g->alphas), flat_write(o.beta, g->betas);
    flat_write(o.score, g->score);
    write_whole(o.nonzero, g->nonzero), write_whole(o.reason, g->reason);
    o.lambda_max = g->lambda_max, o.best = 0;
    for (int64_t i = 1; i < g->count; i++) {
        const double a = g->score[i], b = g->score[o.best];
        if (a < b || (a == b && g->lambda[i] > g->lambda[o.best])) o.best = (int32_t)i;
    }
    options_write(out, &o, sizeof o);
}

slg_status slg_ordinal_path(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                            int64_t classes, const slg_tensor *lambdas, int64_t count,
                            const slg_ordinal_opts *opts, slg_ordinal_path_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    regression g = { .ctx = ctx, .op = "slg_ordinal_path", .count = count };
    op_begin(ctx, g.op);
    slg_status status = open(&g, x, labels, classes, opts);
    if (status == SLG_OK) status = path_memory(&g, lambdas);
    if (status == SLG_OK) status = path_outputs(&g, out);
    if (status == SLG_OK) status = path_run(&g, lambdas);
    if (status == SLG_OK) path_write(&g, out);
    close(&g);
    return op_end(ctx, status);
}

/* ---- Cross-validation ------------------------------------------------------------------- */

static slg_status folds_of(regression *g, const slg_tensor *fold, const slg_rng *rng)
{
    const int64_t n = g->model.n;
    if (g->opts.folds > n)
        return slg_fail(g->ctx, SLG_ERR_RANGE, "opts.folds is %d, there are %lld rows",
                        g->opts.folds, (long long)n);
    g->fold = ctx_alloc(g->ctx, (size_t)n * 2 * sizeof *g->fold);
    if (!g->fold) return SLG_ERR_MEMORY;
    if (!fold) {
        int32_t *order = g->fold + n;
        if (!rng) return slg_fail(g->ctx, SLG_ERR_NULL, "fold and rng are NULL");
        for (int64_t i = 0; i < n; i++) {
            const int64_t at =
                (int64_t)(rng_number(rng->seed, rng->offset + (uint64_t)i) % (uint64_t)(i + 1));
            order[i] = order[at], order[at] = (int32_t)i;
        }
        for (int64_t i = 0; i < n; i++) g->fold[order[i]] = (int32_t)(i % g->opts.folds);
        return SLG_OK;
    }
    SLG_TRY(tensor_in(g->ctx, "fold", fold, DT_INT, 1, 1));
    SLG_TRY(tensor_shape_is(g->ctx, "fold", fold, 1, &n));
    const rows r = rows_of(fold);
    for (int64_t i = 0; i < n; i++) {
        const int64_t k = rows_get_int(&r, 0, i);
        if (k < 0 || k >= g->opts.folds)
            return slg_fail(g->ctx, SLG_ERR_RANGE, "fold[%lld] is %lld, opts.folds is %d",
                            (long long)i, (long long)k, g->opts.folds);
        g->fold[i] = (int32_t)k;
    }
    return SLG_OK;
}

/* Adds the Brier scores of a fold's rows, by the last fit, which did not see them. */
static slg_status score(regression *g, int32_t fold, double *sum)
{
    const ordinal_model *raw = &g->raw;
    const int64_t m = raw->m, p = raw->q - 1;
    const arena_mark_t mark = arena_mark(g->ctx);
    double *eta = arena_alloc(g->ctx, (size_t)m, 2 * sizeof *eta), *prob;
    if (!eta) return SLG_ERR_MEMORY;
    prob = arena_alloc(g->ctx, (size_t)(m + 1), sizeof *prob);
    if (!prob) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < raw->n; i++) {
        if (g->fold[i] != fold) continue;
        for (int64_t l = 0; l < m; l++)
            eta[l] = g->alpha[l] + vector_dot(p, raw->z + i * raw->q, g->beta + l * p);
        ordinal_probabilities(m, eta, prob);
        for (int64_t c = 0; c <= m; c++) {
            const double off = prob[c] - (raw->label[i] == c);
            *sum += off * off / (double)raw->n;
        }
    }
    arena_release(g->ctx, mark);
    return SLG_OK;
}

static slg_status fold_run(regression *g, int32_t fold, ordinal_model *part, ordinal_fit *fit)
{
    SLG_TRY(ordinal_subset(&g->raw, g->fold, fold, part));
    SLG_TRY(ordinal_fit_open(fit, part, g->op, &g->opts, g->factor));
    for (int64_t i = 0; i < g->count; i++) {
        SLG_TRY(ordinal_fit_run(fit, g->lambda[i]));
        if (fit->report.reason == SLG_SOLVER_CALLBACK)
            return slg_fail(g->ctx, SLG_ERR_STOPPED, "progress asked to stop");
        ordinal_fit_result(fit, g->alpha, g->beta);
        SLG_TRY(score(g, fold, g->score + i));
    }
    return SLG_OK;
}

static slg_status folds_run(regression *g)
{
    for (int32_t fold = 0; fold < g->opts.folds; fold++) {
        ordinal_model part = { .ctx = g->ctx };
        ordinal_fit fit = { 0 };
        slg_status status = fold_run(g, fold, &part, &fit);
        ordinal_fit_close(&fit), ordinal_close(&part);
        SLG_TRY(status);
    }
    return SLG_OK;
}

slg_status slg_ordinal_cv(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                          int64_t classes, const slg_tensor *lambdas, int64_t count,
                          const slg_tensor *fold, slg_rng *rng, const slg_ordinal_opts *opts,
                          slg_ordinal_path_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    regression g = { .ctx = ctx, .op = "slg_ordinal_cv", .count = count };
    op_begin(ctx, g.op);
    slg_status status = open(&g, x, labels, classes, opts);
    if (status == SLG_OK) status = path_memory(&g, lambdas);
    if (status == SLG_OK) status = path_outputs(&g, out);
    if (status == SLG_OK) status = folds_of(&g, fold, rng);
    if (status == SLG_OK) status = ordinal_open(ctx, x, labels, classes, &g.raw);
    if (status == SLG_OK) status = path_run(&g, lambdas);
    if (status == SLG_OK) status = folds_run(&g);
    if (status == SLG_OK) {
        path_write(&g, out);
        if (!fold) rng->offset += (uint64_t)g.model.n;
    }
    close(&g);
    return op_end(ctx, status);
}
