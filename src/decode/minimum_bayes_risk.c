/*
 * minimum_bayes_risk.c - see softlogit/utility.h.
 */
#include <math.h>

#include "core/tensor.h"
#include "softlogit/utility.h"
#include "softmax/parts.h"

typedef struct risk_run {
    slg_ctx *ctx;
    double *prob;     /* [n] */
    double *expected; /* [m] */
    int64_t n, m, ranges;
    rows gain;
    rows expected_rows, best_rows; /* data NULL: not wanted */
} risk_run;

static void expect_range(void *arg, int64_t task, int32_t worker)
{
    const risk_run *r = arg;
    int64_t to = pool_range_start(r->m, r->ranges, task + 1);
    (void)worker;
    for (int64_t i = pool_range_start(r->m, r->ranges, task); i < to; i++) {
        double sum = 0;
        for (int64_t j = 0; j < r->n; j++)
            if (r->prob[j] != 0) sum += r->prob[j] * rows_get(&r->gain, i, j);
        r->expected[i] = sum;
    }
}

static slg_status open_run(risk_run *r, const slg_tensor *prob, const slg_tensor *gain,
                           slg_tensor *expected, slg_tensor *best)
{
    static const int64_t one = 1;
    slg_ctx *ctx = r->ctx;
    SLG_TRY(tensor_in(ctx, "prob", prob, DT_F32 | DT_F64, 1, 1));
    r->n = prob->shape[0];
    if (expected) {
        SLG_TRY(tensor_out(ctx, "expected", expected, DT_F32 | DT_F64, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "expected", expected, 1, &r->m));
        r->expected_rows = rows_of(expected);
    }
    if (best) {
        SLG_TRY(tensor_out(ctx, "best", best, DT_INT, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "best", best, 1, &one));
        r->best_rows = rows_of(best);
    }
    if (outputs_clash(expected, prob) || outputs_clash(expected, gain) ||
        outputs_clash(best, prob) || outputs_clash(best, gain) || outputs_clash(expected, best))
        return slg_fail(ctx, SLG_ERR_STRIDE, "expected or best overlaps another tensor");
    r->prob = arena_alloc(ctx, (size_t)r->n, sizeof *r->prob);
    r->expected = arena_alloc(ctx, (size_t)r->m, sizeof *r->expected);
    if (!r->prob || !r->expected) return SLG_ERR_MEMORY;
    const rows p = rows_of(prob);
    for (int64_t j = 0; j < r->n; j++) r->prob[j] = rows_get(&p, 0, j);
    return SLG_OK;
}

static slg_status finish(const risk_run *r)
{
    int64_t best = -1;
    for (int64_t i = 0; i < r->m; i++) {
        if (r->expected_rows.data) rows_put(&r->expected_rows, 0, i, r->expected[i]);
        if (!isnan(r->expected[i]) && (best < 0 || r->expected[i] > r->expected[best]))
            best = i;
    }
    if (r->best_rows.data) rows_put(&r->best_rows, 0, 0, (double)best);
    return SLG_OK;
}

static slg_status from_matrix(slg_ctx *ctx, const slg_tensor *prob, const slg_tensor *gain,
                              slg_tensor *expected, slg_tensor *best)
{
    risk_run r = { .ctx = ctx };
    SLG_TRY(tensor_in(ctx, "gain", gain, DT_F32 | DT_F64, 2, 2));
    r.m = gain->shape[0];
    SLG_TRY(open_run(&r, prob, gain, expected, best));
    if (gain->shape[1] != r.n)
        return slg_fail(ctx, SLG_ERR_SHAPE, "gain has %lld columns, prob %lld",
                        (long long)gain->shape[1], (long long)r.n);
    r.gain = rows_of(gain);
    r.ranges = pool_ranges(ctx, r.m, (1 << 12) / (r.n + 1) + 1);
    pool_run(ctx, r.ranges, expect_range, &r);
    return finish(&r);
}

slg_status slg_minimum_bayes_risk(slg_ctx *ctx, const slg_tensor *prob, const slg_tensor *gain,
                                  slg_tensor *expected, slg_tensor *best)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_minimum_bayes_risk");
    return op_end(ctx, from_matrix(ctx, prob, gain, expected, best));
}

/* ---- Gains from a function -------------------------------------------------------------- */

enum { GAIN_BLOCK = 8192 }; /* doubles asked for at a time */

static slg_status from_function(slg_ctx *ctx, const slg_tensor *prob, int64_t candidates,
                                slg_gain_fn gain, void *user, slg_tensor *expected,
                                slg_tensor *best)
{
    risk_run r = { .ctx = ctx, .m = candidates };
    if (!gain) return slg_fail(ctx, SLG_ERR_NULL, "gain is NULL");
    if (candidates < 0 || candidates > INT64_MAX / 64)
        return slg_fail(ctx, SLG_ERR_RANGE, "candidates is %lld, must be at least 0",
                        (long long)candidates);
    SLG_TRY(open_run(&r, prob, NULL, expected, best));
    const int64_t block = GAIN_BLOCK / (r.n + 1) + 1;
    double *g = arena_alloc(ctx, (size_t)block * (size_t)r.n, sizeof *g);
    if (!g) return SLG_ERR_MEMORY;
    for (int64_t first = 0; first < r.m; first += block) {
        int64_t count = r.m - first < block ? r.m - first : block;
        if (gain(user, first, count, r.n, g) != 0)
            return slg_fail(ctx, SLG_ERR_STOPPED, "gain stopped at candidate %lld",
                            (long long)first);
        for (int64_t i = 0; i < count; i++) {
            double sum = 0;
            for (int64_t j = 0; j < r.n; j++)
                if (r.prob[j] != 0) sum += r.prob[j] * g[i * r.n + j];
            r.expected[first + i] = sum;
        }
    }
    return finish(&r);
}

slg_status slg_minimum_bayes_risk_fn(slg_ctx *ctx, const slg_tensor *prob, int64_t candidates,
                                     slg_gain_fn gain, void *user, slg_tensor *expected,
                                     slg_tensor *best)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_minimum_bayes_risk_fn");
    return op_end(ctx, from_function(ctx, prob, candidates, gain, user, expected, best));
}
