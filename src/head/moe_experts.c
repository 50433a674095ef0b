/*
 * moe_experts.c - the M-step of experts: weighted least squares by the normal matrix, formed as
 * one symmetric update of the rows times the root of their weight, and Cholesky.
 */
#include "moe_mixture.h"

const slg_moe_em_opts moe_em_defaults = { .size = sizeof(slg_moe_em_opts),
                                          .max_steps = 200,
                                          .halvings = 12,
                                          .tolerance = 1e-8,
                                          .variance_floor = 1e-4,
                                          .ridge = 1e-9,
                                          .gate_ridge = 1e-6,
                                          .least = 1e-8 };

void slg_moe_em_opts_init(slg_moe_em_opts *opts, size_t size)
{
    options_init(opts, size, &moe_em_defaults, sizeof moe_em_defaults);
}

slg_status em_options(slg_ctx *ctx, const slg_moe_em_opts *given, slg_moe_em_opts *o)
{
    *o = moe_em_defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "max_steps", o->max_steps, 0, INT32_MAX));
    SLG_TRY(option_choice(ctx, "block_diagonal", o->block_diagonal, 0, 1));
    SLG_TRY(option_choice(ctx, "halvings", o->halvings, 0, 1000));
    SLG_TRY(option_least(ctx, "tolerance", o->tolerance, 0));
    SLG_TRY(option_least(ctx, "variance_floor", o->variance_floor, 1e-300));
    SLG_TRY(option_least(ctx, "ridge", o->ridge, 0));
    SLG_TRY(option_least(ctx, "gate_ridge", o->gate_ridge, 1e-300));
    return option_least(ctx, "least", o->least, 0);
}

/* The normal matrix of [x, 1, y]: into c [dim + 2, dim + 2]; sum of weights. */
static slg_status normal_matrix(slg_ctx *ctx, int64_t count, int64_t dim, const double *x,
                                const double *y, const double *weight, double *c, double *total)
{
    const int64_t wide = dim + 2;
    double *z = arena_alloc(ctx, (size_t)(moe_least(count, MIX_BLOCK) * wide), sizeof *z);
    if (!z) return SLG_ERR_MEMORY;
    memset(c, 0, (size_t)(wide * wide) * sizeof *c);
    *total = 0;
    for (int64_t n = 0; n < count;) {
        int64_t held = 0;
        for (; n < count && held < MIX_BLOCK; n++) {
            if (weight[n] == 0) continue;
            const double root = sqrt(weight[n]);
            double *row = z + held++ * wide;
            for (int64_t i = 0; i < dim; i++) row[i] = root * x[n * dim + i];
            row[dim] = root, row[dim + 1] = root * y[n];
            *total += weight[n];
        }
        SLG_TRY(blas_dsyrk(ctx, wide, held, 1, z, c));
    }
    return SLG_OK;
}

slg_status expert_solve(slg_ctx *ctx, int64_t count, int64_t dim, const double *x,
                        const double *y, const double *weight, const slg_moe_em_opts *o,
                        expert_fit *fit, int32_t *kept)
{
    const int64_t d = dim + 1, wide = dim + 2;
    double *c = arena_alloc(ctx, (size_t)(wide * wide), sizeof *c);
    double *h = arena_alloc(ctx, (size_t)(d * d), sizeof *h);
    double *theta = arena_alloc(ctx, (size_t)d, sizeof *theta), total, sum = 0;
    double rcond;
    if (!c || !h || !theta) return SLG_ERR_MEMORY;
    *kept = SLG_MOE_EXPERT_KEPT;
    SLG_TRY(normal_matrix(ctx, count, dim, x, y, weight, c, &total));
    if (!(total > 0 && total >= o->least * (double)count)) return SLG_OK;
    for (int64_t i = 0; i < d; i++) {
        for (int64_t j = 0; j < d; j++) h[i * d + j] = c[i * wide + j];
        h[i * d + i] += o->ridge * (double)count;
        theta[i] = c[i * wide + d];
    }
    SLG_TRY(blas_dposv(ctx, d, h, 1, theta, 0, &rcond));
    if (!(rcond > 0)) return SLG_OK;
    for (int64_t n = 0; n < count; n++) {
        if (weight[n] == 0) continue;
        double e = y[n] - theta[dim];
        for (int64_t i = 0; i < dim; i++) e -= theta[i] * x[n * dim + i];
        sum += weight[n] * e * e;
    }
    memcpy(fit->theta, theta, (size_t)d * sizeof *theta);
    fit->variance = fmax(sum / total, o->variance_floor);
    *kept = sum / total > o->variance_floor ? SLG_MOE_EXPERT_FITTED : SLG_MOE_EXPERT_FLOOR;
    return SLG_OK;
}

static slg_status experts(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                          const slg_tensor *r, const slg_moe_em_opts *opts, const slg_tensor *a,
                          const slg_tensor *b, const slg_tensor *variance,
                          const slg_tensor *kept)
{
    slg_moe_em_opts o;
    SLG_TRY(em_options(ctx, opts, &o));
    SLG_TRY(tensor_in(ctx, "x", x, DT_REAL, 2, 2));
    const int64_t count = x->shape[0], dim = x->shape[1];
    if (count < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "x has no rows");
    SLG_TRY(moe_in_1d(ctx, "y", y, DT_REAL, count));
    SLG_TRY(moe_in(ctx, "responsibility", r, DT_REAL, count, -1));
    const int64_t k = r->shape[1];
    SLG_TRY(moe_out(ctx, "a", a, DT_REAL, k, dim));
    SLG_TRY(moe_out_1d(ctx, "b", b, DT_REAL, k));
    SLG_TRY(moe_out_1d(ctx, "variance", variance, DT_REAL, k));
    if (kept) SLG_TRY(moe_out_1d(ctx, "kept", kept, DT_I32, k));
    const moe_operand in[] = { { "x", x }, { "y", y }, { "responsibility", r } };
    const moe_operand out[] = {
        { "a", a }, { "b", b }, { "variance", variance }, { "kept", kept }
    };
    SLG_TRY(moe_apart(ctx, 4, out, 3, in));
    const double *data = moe_doubles(ctx, x), *target = moe_vector(ctx, y, count);
    double *weight = arena_alloc(ctx, (size_t)(count * k), sizeof *weight);
    double *theta = moe_vector(ctx, NULL, dim + 1);
    if (!data || !target || !weight || !theta) return SLG_ERR_MEMORY;
    const rows m = rows_of(r), to_a = rows_of(a), to_b = rows_of(b), to_v = rows_of(variance);
    for (int64_t n = 0; n < count; n++)
        for (int64_t i = 0; i < k; i++) {
            const double w = weight[i * count + n] = rows_get(&m, n, i);
            if (!(w >= 0 && isfinite(w)))
                return slg_fail(ctx, SLG_ERR_RANGE, "responsibility is %g at row %lld", w,
                                (long long)n);
        }
    for (int64_t i = 0; i < k; i++) {
        const arena_mark_t mark = arena_mark(ctx);
        expert_fit fit = { .theta = theta };
        int32_t how;
        SLG_TRY(
            expert_solve(ctx, count, dim, data, target, weight + i * count, &o, &fit, &how));
        arena_release(ctx, mark);
        if (kept) {
            const rows to = rows_of(kept);
            *moe_int(&to, 0, i) = how;
        }
        if (how == SLG_MOE_EXPERT_KEPT) continue;
        for (int64_t c = 0; c < dim; c++) rows_put(&to_a, i, c, theta[c]);
        rows_put(&to_b, 0, i, theta[dim]);
        rows_put(&to_v, 0, i, fit.variance);
    }
    return SLG_OK;
}

slg_status slg_moe_experts(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                           const slg_tensor *responsibility, const slg_moe_em_opts *opts,
                           slg_tensor *a, slg_tensor *b, slg_tensor *variance, slg_tensor *kept)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_experts");
    return op_end(ctx, experts(ctx, x, y, responsibility, opts, a, b, variance, kept));
}
