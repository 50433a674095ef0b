/*
 * in_context_optimum.c - the optimum of a layer of linear self-attention and its risk. Gamma is
 * found without sigma^-1: with N = (n + 1) lambda sigma + t I, N^-1 commutes with lambda sigma,
 * so lambda sigma N^-1 sigma^-1 = N^-1 lambda, which is symmetric. The condition of N is n + 2
 * at most (in sigma's metric), whatever sigma's is.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "operands.h"
#include "softlogit/linear_attention.h"

static const slg_in_context_optimum_out out_defaults = {
    .size = sizeof(slg_in_context_optimum_out),
};

void slg_in_context_optimum_out_init(slg_in_context_optimum_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

typedef struct setting {
    slg_ctx *ctx;
    int64_t d;
    double n, noise2;
    double *sigma, *lambda, *ls; /* [d, d]; ls: lambda sigma */
    double t;                    /* tr(lambda sigma) + noise^2 */
} setting;

static double *matrix(const setting *s)
{
    return arena_alloc(s->ctx, (size_t)s->d, (size_t)s->d * sizeof(double));
}

static slg_status product(const setting *s, const double *a, const double *b, double *c)
{
    const int64_t d = s->d;
    return blas_dgemm(s->ctx, false, false, d, d, d, 1, a, d, b, d, 0, c, d);
}

static double trace(int64_t d, const double *a)
{
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += a[i * (d + 1)];
    return sum;
}

/* tr(a b'). */
static double inner(int64_t d, const double *a, const double *b)
{
    double sum = 0;
    for (int64_t i = 0; i < d * d; i++) sum += a[i] * b[i];
    return sum;
}

static slg_status open_setting(setting *s, const rows *sigma, const rows *lambda, int64_t n,
                               double noise)
{
    slg_ctx *ctx = s->ctx;
    if (n < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "n is %lld, must be 0 or more", (long long)n);
    SLG_TRY(option_least(ctx, "noise", noise, 0));
    s->n = (double)n, s->noise2 = noise * noise;
    SLG_TRY(matrix_doubles(ctx, sigma, s->d, &s->sigma));
    SLG_TRY(matrix_doubles(ctx, lambda, s->d, &s->lambda));
    SLG_TRY(matrix_symmetric(ctx, "sigma", s->d, s->sigma));
    SLG_TRY(matrix_symmetric(ctx, "lambda", s->d, s->lambda));
    s->ls = matrix(s);
    if (!s->ls) return SLG_ERR_MEMORY;
    SLG_TRY(product(s, s->lambda, s->sigma, s->ls));
    s->t = trace(s->d, s->ls) + s->noise2;
    return SLG_OK;
}

/* The risk is zero - 2 n b + c for gamma; its parts, so that gamma can be scaled. */
static slg_status risk_parts(const setting *s, const double *gamma, double *b, double *c)
{
    const int64_t d = s->d;
    double *sg = matrix(s), *sl = matrix(s), *cov = matrix(s), *x = matrix(s);
    if (!sg || !sl || !cov || !x) return SLG_ERR_MEMORY;
    SLG_TRY(product(s, s->sigma, gamma, sg));
    for (int64_t i = 0; i < d; i++) /* sigma lambda, the transpose of ls */
        for (int64_t j = 0; j < d; j++) sl[i * d + j] = s->ls[j * d + i];
    SLG_TRY(product(s, sl, s->sigma, cov));
    for (int64_t i = 0; i < d * d; i++)
        cov[i] = s->n * (s->n + 1) * cov[i] + s->n * s->t * s->sigma[i];
    *b = inner(d, sg, s->ls); /* tr(sigma gamma sigma lambda) */
    SLG_TRY(product(s, sg, cov, x));
    *c = inner(d, x, gamma);
    return SLG_OK;
}

static slg_status check_sigma(const setting *s)
{
    double rcond;
    bool definite;
    double *copy = matrix(s);
    if (!copy) return SLG_ERR_MEMORY;
    memcpy(copy, s->sigma, (size_t)(s->d * s->d) * sizeof *copy);
    SLG_TRY(blas_dpotrf(s->ctx, s->d, copy, &definite, &rcond));
    if (rcond > DBL_EPSILON) return SLG_OK;
    return slg_fail(s->ctx, SLG_ERR_RANGE,
                    "sigma is singular or not positive definite (reciprocal condition %.2g)",
                    rcond);
}

/* Rows of lambda are right-hand sides, and become rows of gamma. */
static slg_status solve(const setting *s, double *gamma)
{
    const int64_t d = s->d;
    double rcond = 0;
    double *a = matrix(s);
    if (!a) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < d * d; i++) a[i] = (s->n + 1) * s->ls[i];
    for (int64_t i = 0; i < d; i++) a[i * (d + 1)] += s->t;
    memcpy(gamma, s->lambda, (size_t)(d * d) * sizeof *gamma);
    SLG_TRY(blas_dsolve(s->ctx, d, a, d, gamma, DBL_MIN, &rcond));
    if (rcond < DBL_MIN)
        return slg_fail(s->ctx, SLG_ERR_RANGE,
                        "tr(lambda sigma) + noise^2 is %g: there is no optimum", s->t);
    for (int64_t i = 0; i < d; i++) /* symmetric to the last bit */
        for (int64_t j = 0; j < i; j++)
            gamma[i * d + j] = gamma[j * d + i] = 0.5 * (gamma[i * d + j] + gamma[j * d + i]);
    return SLG_OK;
}

static slg_status write_out(const setting *s, const double *gamma,
                            slg_in_context_optimum_out *out)
{
    double b, c;
    const rows none = { 0 };
    double *plain;
    out->zero_risk = s->t - s->noise2;
    SLG_TRY(risk_parts(s, gamma, &b, &c));
    out->risk = out->zero_risk - 2 * s->n * b + c;
    SLG_TRY(matrix_doubles(s->ctx, &none, s->d, &plain));
    SLG_TRY(risk_parts(s, plain, &b, &c));
    /* Without examples a step changes nothing: the rate is what it tends to, of n as a real. */
    out->eta = c > 0 ? s->n * b / c : 0;
    out->eta_risk = out->zero_risk - s->n * b * out->eta;
    return SLG_OK;
}

/* Sizes: d where sigma and lambda are both NULL. */
static slg_status size_of(slg_ctx *ctx, const slg_tensor *sigma, const slg_tensor *lambda,
                          int64_t d, int64_t *size)
{
    const slg_tensor *t = sigma ? sigma : lambda;
    if (t) {
        SLG_TRY(tensor_in(ctx, sigma ? "sigma" : "lambda", t, DT_F32 | DT_F64, 2, 2));
        *size = t->shape[0];
        if (d == 0 || d == *size) return SLG_OK;
        return slg_fail(ctx, SLG_ERR_SHAPE, "d is %lld, %s has %lld rows", (long long)d,
                        sigma ? "sigma" : "lambda", (long long)*size);
    }
    *size = d;
    if (d > 0 && d <= 1 << 20) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "d is %lld, must be from 1 to 2^20", (long long)d);
}

static slg_status optimum(slg_ctx *ctx, const slg_tensor *sigma, const slg_tensor *lambda,
                          int64_t d, int64_t n, double noise, slg_tensor *gamma,
                          slg_in_context_optimum_out *given)
{
    slg_in_context_optimum_out out = out_defaults;
    setting s = { .ctx = ctx };
    rows rs, rl, to;
    if (given) {
        SLG_TRY(options_read(ctx, "out", given, &out, sizeof out));
        SLG_TRY(option_reserved(ctx, "out.reserved", out.reserved));
    }
    SLG_TRY(size_of(ctx, sigma, lambda, d, &s.d));
    const operand in[] = {
        { "sigma", sigma, DT_F32 | DT_F64, false, 2, { s.d, s.d }, &rs, NULL },
        { "lambda", lambda, DT_F32 | DT_F64, false, 2, { s.d, s.d }, &rl, NULL },
    };
    const operand result = {
        "gamma", gamma, DT_F32 | DT_F64, false, 2, { s.d, s.d }, &to, NULL
    };
    SLG_TRY(operands_in(ctx, in, 2));
    SLG_TRY(operands_out(ctx, &result, 1, in, 2));
    SLG_TRY(open_setting(&s, &rs, &rl, n, noise));
    SLG_TRY(check_sigma(&s));
    double *g = matrix(&s);
    if (!g) return SLG_ERR_MEMORY;
    SLG_TRY(solve(&s, g));
    if (given) SLG_TRY(write_out(&s, g, &out));
    for (int64_t i = 0; gamma && i < s.d; i++) row_store(&to, i, g + i * s.d);
    if (given) options_write(given, &out, sizeof out);
    return SLG_OK;
}

slg_status slg_in_context_optimum(slg_ctx *ctx, const slg_tensor *sigma,
                                  const slg_tensor *lambda, int64_t d, int64_t n, double noise,
                                  slg_tensor *gamma, slg_in_context_optimum_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_in_context_optimum");
    return op_end(ctx, optimum(ctx, sigma, lambda, d, n, noise, gamma, out));
}

static slg_status risk_of(slg_ctx *ctx, const slg_tensor *gamma, const slg_tensor *sigma,
                          const slg_tensor *lambda, int64_t n, double noise, double *risk)
{
    setting s = { .ctx = ctx };
    rows rg, rs, rl;
    double *g, b, c;
    if (!risk) return slg_fail(ctx, SLG_ERR_NULL, "risk is NULL");
    SLG_TRY(tensor_in(ctx, "gamma", gamma, DT_F32 | DT_F64, 2, 2));
    s.d = gamma->shape[0];
    const operand in[] = {
        { "gamma", gamma, DT_F32 | DT_F64, true, 2, { s.d, s.d }, &rg, NULL },
        { "sigma", sigma, DT_F32 | DT_F64, false, 2, { s.d, s.d }, &rs, NULL },
        { "lambda", lambda, DT_F32 | DT_F64, false, 2, { s.d, s.d }, &rl, NULL },
    };
    SLG_TRY(operands_in(ctx, in, 3));
    SLG_TRY(open_setting(&s, &rs, &rl, n, noise));
    SLG_TRY(matrix_doubles(ctx, &rg, s.d, &g));
    SLG_TRY(risk_parts(&s, g, &b, &c));
    *risk = s.t - s.noise2 - 2 * s.n * b + c;
    return SLG_OK;
}

slg_status slg_in_context_risk(slg_ctx *ctx, const slg_tensor *gamma, const slg_tensor *sigma,
                               const slg_tensor *lambda, int64_t n, double noise, double *risk)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_in_context_risk");
    return op_end(ctx, risk_of(ctx, gamma, sigma, lambda, n, noise, risk));
}
