/*
 * ordinal_predict.c - see ordinal.h: probabilities of a fit, and its weights as differences.
 */
#include <math.h>

#include "ordinal_model.h"
#include "softmax/parts.h"

typedef struct prediction {
    rows x, prob;
    int64_t m, p;
    const double *alpha, *beta;
    int32_t crossing;
    double *scratch; /* [m + 1, 2] a worker */
} prediction;

/* What is below 0 becomes 0; `most` is what the first `count` are to sum to. */
static void clip(int64_t count, double *p, double most)
{
    double sum = 0;
    for (int64_t c = 0; c < count; c++) {
        if (p[c] < 0) p[c] = 0;
        sum += p[c];
    }
    for (int64_t c = 0; c < count && sum > 0; c++) p[c] *= most / sum;
}

static void predict_row(void *arg, int64_t i, int32_t worker)
{
    const prediction *j = arg;
    const int64_t m = j->m;
    double *eta = j->scratch + worker * 2 * (m + 1), *p = eta + m + 1;
    for (int64_t l = 0; l < m; l++) {
        eta[l] = j->alpha[l];
        for (int64_t k = 0; k < j->p; k++)
            eta[l] += rows_get(&j->x, i, k) * j->beta[l * j->p + k];
    }
    ordinal_probabilities(m, eta, p);
    if (j->crossing == SLG_ORDINAL_CLIP) {
        /* 1 - p[m] is sigmoid of the last score. */
        const double e = exp(-fabs(eta[m - 1]));
        clip(m, p, eta[m - 1] < 0 ? e / (1 + e) : 1 / (1 + e));
    }
    if (j->crossing == SLG_ORDINAL_CLIP_ALL) clip(m + 1, p, 1);
    for (int64_t c = 0; c <= m; c++) rows_put(&j->prob, i, c, p[c]);
}

static slg_status predict(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *alpha,
                          const slg_tensor *beta, int32_t crossing, slg_tensor *prob)
{
    const unsigned real = DT_F32 | DT_F64;
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW | DT_F64, 2, 2));
    SLG_TRY(tensor_in(ctx, "alpha", alpha, real, 1, 1));
    SLG_TRY(tensor_in(ctx, "beta", beta, real, 2, 2));
    const int64_t n = x->shape[0], m = alpha->shape[0], p = x->shape[1];
    const int64_t weights[2] = { m, p }, shape[2] = { n, m + 1 };
    if (m < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "alpha has no entry");
    SLG_TRY(tensor_shape_is(ctx, "beta", beta, 2, weights));
    SLG_TRY(tensor_out(ctx, "prob", prob, real, 2, 2));
    SLG_TRY(tensor_shape_is(ctx, "prob", prob, 2, shape));
    if (outputs_clash(prob, x) || outputs_clash(prob, alpha) || outputs_clash(prob, beta))
        return slg_fail(ctx, SLG_ERR_STRIDE, "prob overlaps an input");
    if (crossing < SLG_ORDINAL_SIGNED || crossing > SLG_ORDINAL_CLIP_ALL)
        return slg_fail(ctx, SLG_ERR_RANGE, "crossing is %d, must be from 0 to 2", crossing);
    double *a = arena_alloc(ctx, (size_t)m, (size_t)(p + 1) * sizeof *a);
    double *scratch =
        arena_alloc(ctx, (size_t)ctx->num_threads, (size_t)(m + 1) * 2 * sizeof *scratch);
    if (!a || !scratch) return SLG_ERR_MEMORY;
    flat_read(alpha, a), flat_read(beta, a + m);
    prediction j = { rows_of(x), rows_of(prob), m, p, a, a + m, crossing, scratch };
    pool_run(ctx, n, predict_row, &j);
    return SLG_OK;
}

slg_status slg_ordinal_predict(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *alpha,
                               const slg_tensor *beta, int32_t crossing, slg_tensor *prob)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_ordinal_predict");
    return op_end(ctx, predict(ctx, x, alpha, beta, crossing, prob));
}

static slg_status differences(slg_ctx *ctx, int32_t change, const slg_tensor *x, slg_tensor *y)
{
    SLG_TRY(tensor_in(ctx, "x", x, DT_F32 | DT_F64, 2, 2));
    SLG_TRY(tensor_out(ctx, "y", y, DT_F32 | DT_F64, 2, 2));
    SLG_TRY(tensor_same_shape(ctx, "y", y, "x", x));
    if (tensor_clash(y, x))
        return slg_fail(ctx, SLG_ERR_STRIDE, "y overlaps x, and is not the same view");
    if (change < SLG_ORDINAL_TO_PSI || change > SLG_ORDINAL_GRAD_PSI)
        return slg_fail(ctx, SLG_ERR_RANGE, "change is %d, must be from 0 to 2", change);
    const int64_t m = x->shape[0], p = x->shape[1];
    if (tensor_size(x) == 0) return SLG_OK;
    double *v = arena_alloc(ctx, (size_t)m, (size_t)p * sizeof *v);
    if (!v) return SLG_ERR_MEMORY;
    flat_read(x, v);
    if (change == SLG_ORDINAL_FROM_PSI) ordinal_prefix(m, p, v, v);
    if (change == SLG_ORDINAL_GRAD_PSI) ordinal_suffix(m, p, v);
    for (int64_t i = m * p - 1; i >= p && change == SLG_ORDINAL_TO_PSI; i--) v[i] -= v[i - p];
    flat_write(y, v);
    return SLG_OK;
}

slg_status slg_ordinal_differences(slg_ctx *ctx, int32_t change, const slg_tensor *x,
                                   slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_ordinal_differences");
    return op_end(ctx, differences(ctx, change, x, y));
}
