/*
 * inverse_covariance.c - covariance of features and its regularised inverse, and what else
 * linear_mdp.h says of rows and weights. All in double: gamma may be small, and d^2 numbers are
 * few.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "linear_mdp.h"
#include "mirror.h"
#include "softmax/parts.h"

/* Numbers of a block of rows. */
enum { BLOCK = 1 << 16 };

/* gamma I + sigma may be no closer to singular than this. */
#define LEAST_RCOND 1e-15

static const slg_inverse_covariance_opts defaults = {
    .size = sizeof(slg_inverse_covariance_opts),
    .normalise = 1,
    .gamma = 0.01,
};

void slg_inverse_covariance_opts_init(slg_inverse_covariance_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* ---- Rows ------------------------------------------------------------------------------- */

double *tensor_doubles(slg_ctx *ctx, const slg_tensor *t)
{
    const rows m = rows_of(t);
    double *x = arena_alloc(ctx, (size_t)tensor_size(t), sizeof *x);
    if (!x) return NULL;
    for (int64_t r = 0; r < m.count && m.cols > 0; r++) row_doubles(&m, r, x + r * m.cols);
    return x;
}

void doubles_write(const slg_tensor *to, const double *from)
{
    if (!to) return;
    const rows m = rows_of(to);
    for (int64_t r = 0; r < m.count && m.cols > 0; r++) row_store(&m, r, from + r * m.cols);
}

slg_status input_of(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                    int32_t ndim, const int64_t *shape)
{
    SLG_TRY(tensor_in(ctx, name, t, dtypes, ndim, ndim));
    return tensor_shape_is(ctx, name, t, ndim, shape);
}

slg_status output_of(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                     int32_t ndim, const int64_t *shape)
{
    SLG_TRY(tensor_out(ctx, name, t, dtypes, ndim, ndim));
    return tensor_shape_is(ctx, name, t, ndim, shape);
}

slg_status check_dim(slg_ctx *ctx, int64_t d)
{
    if (d >= 1 && d <= 1 << 20) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE, "features have %lld numbers, must have from 1 to 2^20",
                    (long long)d);
}

slg_status weigh(slg_ctx *ctx, const char *name, int64_t count, bool normalise, double *w)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!(w[i] >= 0 && isfinite(w[i])))
            return slg_fail(ctx, SLG_ERR_RANGE, "%s [%lld] is %g, must be finite and >= 0",
                            name, (long long)i, w[i]);
        sum += w[i];
    }
    if (!isfinite(sum))
        return slg_fail(ctx, SLG_ERR_RANGE, "the sum of %s is not finite", name);
    for (int64_t i = 0; i < count && normalise && sum > 0; i++) w[i] /= sum;
    return SLG_OK;
}

/* ---- Covariance ------------------------------------------------------------------------- */

slg_status covariance(slg_ctx *ctx, const rows *phi, int64_t first, int64_t count,
                      const double *w, bool normalise, double *sigma)
{
    const int64_t d = phi->cols, block = d < BLOCK ? BLOCK / d : 1;
    const double alpha = !w && normalise && count > 0 ? 1 / (double)count : 1;
    const arena_mark_t mark = arena_mark(ctx);
    double *x =
        arena_alloc(ctx, (size_t)(block < count ? block : count) * (size_t)d, sizeof *x);
    if (!x) return SLG_ERR_MEMORY;
    memset(sigma, 0, (size_t)(d * d) * sizeof *sigma);
    for (int64_t from = 0; from < count; from += block) {
        const int64_t n = count - from < block ? count - from : block;
        for (int64_t r = 0; r < n; r++) {
            row_doubles(phi, first + from + r, x + r * d);
            const double root = w ? sqrt(w[from + r]) : 1;
            for (int64_t i = 0; i < d && w; i++) x[r * d + i] *= root;
        }
        SLG_TRY(blas_dsyrk(ctx, d, n, alpha, x, sigma));
    }
    arena_release(ctx, mark);
    for (int64_t i = 0; i < d * d; i++)
        if (!isfinite(sigma[i]))
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "sigma[%lld, %lld] is %g: features must be finite, and their "
                            "products",
                            (long long)(i / d), (long long)(i % d), sigma[i]);
    return SLG_OK;
}

slg_status covariance_inverse(slg_ctx *ctx, int64_t d, double gamma, const double *sigma,
                              double *inverse)
{
    const size_t size = (size_t)(d * d);
    const arena_mark_t mark = arena_mark(ctx);
    double rcond, *a = arena_alloc(ctx, size, sizeof *a);
    if (!a) return SLG_ERR_MEMORY;
    memcpy(a, sigma, size * sizeof *a);
    memset(inverse, 0, size * sizeof *inverse);
    for (int64_t i = 0; i < d; i++) a[i * d + i] += gamma, inverse[i * d + i] = 1;
    SLG_TRY(blas_dposv(ctx, d, a, d, inverse, LEAST_RCOND, &rcond));
    arena_release(ctx, mark);
    if (!(rcond >= LEAST_RCOND))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "gamma is %g, too small beside sigma: gamma I + sigma is singular",
                        gamma);
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < i; j++)
            inverse[i * d + j] = inverse[j * d + i] =
                (inverse[i * d + j] + inverse[j * d + i]) / 2;
    return SLG_OK;
}

static slg_status read_weights(slg_ctx *ctx, const slg_tensor *weight, int64_t count,
                               bool normalise, double **w)
{
    *w = NULL;
    if (!weight) return SLG_OK;
    SLG_TRY(input_of(ctx, "weight", weight, DT_REAL, 1, &count));
    *w = tensor_doubles(ctx, weight);
    return *w ? weigh(ctx, "weight", count, normalise, *w) : SLG_ERR_MEMORY;
}

static slg_status invert(slg_ctx *ctx, const slg_tensor *phi, const slg_tensor *weight,
                         const slg_inverse_covariance_opts *given, slg_tensor *sigma,
                         slg_tensor *inverse)
{
    slg_inverse_covariance_opts o = defaults;
    double *w;
    SLG_TRY(options_read(ctx, "opts", given, &o, sizeof o));
    SLG_TRY(option_choice(ctx, "normalise", o.normalise, 0, 1));
    SLG_TRY(option_range(ctx, "gamma", o.gamma, 1e-300, 1e300));
    SLG_TRY(tensor_in(ctx, "phi", phi, DT_FEATURE, 2, 2));
    const int64_t d = phi->shape[1], square[2] = { d, d };
    SLG_TRY(check_dim(ctx, d));
    if (sigma) SLG_TRY(output_of(ctx, "sigma", sigma, DT_REAL, 2, square));
    if (inverse) SLG_TRY(output_of(ctx, "inverse", inverse, DT_REAL, 2, square));
    if (tensor_clash(sigma, phi) || tensor_clash(inverse, phi) || tensor_clash(sigma, weight) ||
        tensor_clash(inverse, weight) || outputs_clash(sigma, inverse))
        return slg_fail(ctx, SLG_ERR_STRIDE, "sigma or inverse overlaps another tensor");
    SLG_TRY(read_weights(ctx, weight, phi->shape[0], o.normalise, &w));
    op_detail(ctx, phi);
    const rows m = rows_of(phi);
    double *s = arena_alloc(ctx, (size_t)(d * d), sizeof *s);
    double *out = arena_alloc(ctx, (size_t)(d * d), sizeof *out);
    if (!s || !out) return SLG_ERR_MEMORY;
    SLG_TRY(covariance(ctx, &m, 0, m.count, w, o.normalise, s));
    if (inverse) SLG_TRY(covariance_inverse(ctx, d, o.gamma, s, out));
    doubles_write(sigma, s), doubles_write(inverse, out);
    return SLG_OK;
}

slg_status slg_inverse_covariance(slg_ctx *ctx, const slg_tensor *phi, const slg_tensor *weight,
                                  const slg_inverse_covariance_opts *opts, slg_tensor *sigma,
                                  slg_tensor *inverse)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_inverse_covariance");
    return op_end(ctx, invert(ctx, phi, weight, opts, sigma, inverse));
}

/* ---- One sample more -------------------------------------------------------------------- */

static slg_status all_finite(slg_ctx *ctx, const char *name, int64_t n, const double *x)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return slg_fail(ctx, SLG_ERR_RANGE, "%s: number %lld is %g, must be finite", name,
                            (long long)i, x[i]);
    return SLG_OK;
}

static slg_status update(slg_ctx *ctx, const slg_tensor *phi, double weight,
                         slg_tensor *inverse)
{
    SLG_TRY(tensor_in(ctx, "phi", phi, DT_FEATURE, 2, 2));
    const int64_t d = phi->shape[1], square[2] = { d, d };
    SLG_TRY(check_dim(ctx, d));
    SLG_TRY(output_of(ctx, "inverse", inverse, DT_REAL, 2, square));
    if (!isfinite(weight))
        return slg_fail(ctx, SLG_ERR_RANGE, "weight is %g, must be finite", weight);
    if (tensor_clash(inverse, phi))
        return slg_fail(ctx, SLG_ERR_STRIDE, "inverse overlaps phi");
    op_detail(ctx, phi);
    double *x = tensor_doubles(ctx, phi), *s = tensor_doubles(ctx, inverse);
    double *scratch = arena_alloc(ctx, (size_t)d, sizeof *scratch);
    if (!x || !s || !scratch) return SLG_ERR_MEMORY;
    SLG_TRY(all_finite(ctx, "phi", phi->shape[0] * d, x));
    SLG_TRY(all_finite(ctx, "inverse", d * d, s));
    for (int64_t r = 0; r < phi->shape[0]; r++)
        if (!metric_add(d, weight, x + r * d, s, scratch))
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "weight is %g: without sample %lld nothing positive definite is "
                            "left",
                            weight, (long long)r);
    SLG_TRY(all_finite(ctx, "the new inverse", d * d, s));
    doubles_write(inverse, s);
    return SLG_OK;
}

slg_status slg_inverse_covariance_update(slg_ctx *ctx, const slg_tensor *phi, double weight,
                                         slg_tensor *inverse)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_inverse_covariance_update");
    return op_end(ctx, update(ctx, phi, weight, inverse));
}
