/* slg_inverse_gap: bounds and invariances, edges, frequencies, errors, threads. */
#include "online_test.h"

enum { K = 6 };

static slg_inverse_gap_opts opts_of(int32_t rule, double gamma)
{
    slg_inverse_gap_opts o;
    slg_inverse_gap_opts_init(&o, sizeof o);
    o.rule = rule, o.gamma = gamma;
    return o;
}

static void weigh(slg_ctx *ctx, const slg_inverse_gap_opts *o, int64_t k, const float *costs,
                  double *p)
{
    slg_tensor c = slg_tensor_2d(costs, SLG_F32, 1, k), t = slg_tensor_2d(p, SLG_F64, 1, k);
    OK(ctx, slg_inverse_gap(ctx, &c, NULL, o, NULL, &t, NULL));
}

static void test_properties(void **state)
{
    (void)state;
    static const double gammas[] = { 0, 1, 100, 1e30 };
    FOR_EACH_ISA(ctx, 1)
    for (int trial = 0; trial < 200; trial++) {
        const int32_t rule = trial % 2;
        const slg_inverse_gap_opts o = opts_of(rule, gammas[trial / 2 % 4]);
        float c[K], other[K];
        double p[K], q[K], sum = 0;
        for (int i = 0; i < K; i++) c[i] = (float)(1 + below(1000)) / 1024;
        int best = 0;
        for (int i = 1; i < K; i++) best = c[i] < c[best] ? i : best;
        /* Square: a shift of costs does not matter; first order: a scale. */
        for (int i = 0; i < K; i++) other[i] = rule ? 8 * c[i] : c[i] - 3;
        weigh(ctx, &o, K, c, p), weigh(ctx, &o, K, other, q);
        close_to(K, p, q, 1e-12);
        for (int i = 0; i < K; i++) {
            sum += p[i];
            assert_true(p[i] >= 0);
            assert_true(i == best ? p[i] >= 1.0 / K - 1e-15 : p[i] <= 1.0 / K + 1e-15);
            const double gap = (double)c[i] - (double)c[best], least = (double)c[best];
            const double want =
                rule ? least / (K * least + o.gamma * gap) : 1 / (K + o.gamma * gap);
            if (i != best) assert_true(fabs(p[i] - want) <= 1e-14);
            for (int j = 0; j < K; j++) assert_true(!(c[i] < c[j]) || p[i] >= p[j] - 1e-15);
        }
        assert_true(fabs(sum - 1) <= 1e-14);
    }
}

static void test_edges(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const float inf = INFINITY;
    const struct {
        int32_t rule;
        double gamma;
        float c[4];
        double p[4];
    } cases[] = {
        { 1, 100, { 0, 0, 0.5f, 1 }, { 0.75, 0.25, 0, 0 } },
        { 1, 100, { 0, 0, 0, 0 }, { 0.25, 0.25, 0.25, 0.25 } },
        { 1, 0, { 0, 1, 2, 3 }, { 0.25, 0.25, 0.25, 0.25 } },
        { 0, 0, { -5, 1, 2, 3 }, { 0.25, 0.25, 0.25, 0.25 } },
        { 0, 1e30, { 2, 1, 1, 3 }, { 0, 0.75, 0.25, 0 } },
        { 0, 10, { inf, 1, 1, inf }, { 0, 0.75, 0.25, 0 } },
        { 1, 0, { inf, 1, inf, inf }, { 0, 1, 0, 0 } },
        { 0, 1e308, { -3e38f, 3e38f, 3e38f, 3e38f }, { 1, 0, 0, 0 } },
    };
    for (int64_t i = 0; i < COUNT(cases); i++) {
        const slg_inverse_gap_opts o = opts_of(cases[i].rule, cases[i].gamma);
        double p[4];
        weigh(ctx, &o, 4, cases[i].c, p);
        for (int k = 0; k < 4; k++) assert_true(fabs(p[k] - cases[i].p[k]) <= 1e-15);
    }
    const float one = 0;
    double p;
    weigh(ctx, NULL, 1, &one, &p);
    assert_true(p == 1);
    slg_ctx_free(ctx);
}

/* 1e5 arms drawn by the counter: chi-square of 5 degrees of freedom; threads do not matter. */
static void test_draws(void **state)
{
    (void)state;
    enum { ROWS = 100000 };
    const float c[K] = { 0.5f, 0.1f, 0.2f, INFINITY, 0.15f, 0.9f };
    const slg_inverse_gap_opts o = opts_of(SLG_GAP_FIRST_ORDER, 3);
    int32_t *arm = malloc(ROWS * sizeof *arm), *again = malloc(ROWS * sizeof *again);
    slg_tensor costs = slg_tensor_2d(c, SLG_F32, ROWS, K),
               t = slg_tensor_1d(arm, SLG_I32, ROWS);
    costs.stride[0] = 0; /* the same row */
    for (int32_t threads = 1; threads <= 8; threads += threads + 1) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
        slg_rng rng = { 7, 11 };
        double p[K], chi = 0;
        int64_t seen[K] = { 0 };
        OK(ctx, slg_inverse_gap(ctx, &costs, NULL, &o, &rng, NULL, &t));
        assert_true(rng.seed == 7 && rng.offset == 11 + ROWS);
        if (threads > 1) assert_memory_equal(arm, again, ROWS * sizeof *arm);
        memcpy(again, arm, ROWS * sizeof *arm);
        weigh(ctx, &o, K, c, p);
        for (int i = 0; i < ROWS; i++) seen[arm[i]]++;
        assert_int_equal(seen[3], 0);
        for (int k = 0; k < K; k++)
            if (p[k] > 0) chi += pow((double)seen[k] - ROWS * p[k], 2) / (ROWS * p[k]);
        assert_true(chi < 23.5); /* once in 10,000 */
        slg_ctx_free(ctx);
    }
    free(arm), free(again);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float c[2 * K], u[2] = { 0, 0.5f }, p[2 * K];
    int32_t arm[2] = { -7, -7 };
    slg_rng rng = { 1, 2 };
    slg_inverse_gap_opts o;
    slg_tensor tc, tu, tp, ta;
    for (int i = 0; i < 2 * K; i++) c[i] = 0.5f, p[i] = -9;
#define REFUSED(status, text, ...)                                                             \
    do {                                                                                       \
        slg_tensor *ut = &tu;                                                                  \
        slg_rng *g = &rng;                                                                     \
        o = opts_of(1, 10);                                                                    \
        tc = slg_tensor_2d(c, SLG_F32, 2, K), tp = slg_tensor_2d(p, SLG_F32, 2, K);            \
        tu = slg_tensor_1d(u, SLG_F32, 2), ta = slg_tensor_1d(arm, SLG_I32, 2);                \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_inverse_gap(ctx, &tc, ut, &o, g, &tp, &ta), status);              \
        assert_non_null(strstr(slg_ctx_message(ctx), text));                                   \
    } while (0)
    REFUSED(SLG_ERR_RANGE, "gamma", o.gamma = -1);
    REFUSED(SLG_ERR_RANGE, "gamma", o.gamma = INFINITY);
    REFUSED(SLG_ERR_RANGE, "rule", o.rule = 2);
    REFUSED(SLG_ERR_OPTIONS, "opts", o.size = 3);
    REFUSED(SLG_ERR_NULL, "rng", ut = NULL; g = NULL);
    REFUSED(SLG_ERR_SHAPE, "u", tu.shape[0] = 1);
    REFUSED(SLG_ERR_SHAPE, "p", tp.shape[1] = K - 1);
    REFUSED(SLG_ERR_SHAPE, "arm", ta.shape[0] = 3);
    REFUSED(SLG_ERR_SHAPE, "no columns", tc.shape[1] = 0);
    REFUSED(SLG_ERR_SHAPE, "costs", tc = slg_tensor_1d(c, SLG_F32, K));
    REFUSED(SLG_ERR_DTYPE, "costs", tc.dtype = SLG_F64);
    REFUSED(SLG_ERR_DTYPE, "arm", ta.dtype = SLG_F32);
    REFUSED(SLG_ERR_STRIDE, "p", tp.stride[1] = 0);
    REFUSED(SLG_ERR_STRIDE, "overlaps", tp.data = c + 1);
    const float bad[] = { NAN, -INFINITY, -1 };
    for (int i = 0; i < 3; i++) {
        c[K + 2] = bad[i];
        REFUSED(SLG_ERR_RANGE, "costs[1, 2]", (void)0);
        c[K + 2] = 0.5f;
    }
    for (int i = 0; i < K; i++) c[K + i] = INFINITY;
    REFUSED(SLG_ERR_RANGE, "row 1 are all +inf", (void)0);
    for (int i = 0; i < K; i++) c[K + i] = 0.5f;
    const float bad_u[] = { NAN, 1, -0.1f };
    for (int i = 0; i < 3; i++) {
        u[1] = bad_u[i];
        REFUSED(SLG_ERR_RANGE, "u[1]", (void)0);
        u[1] = 0.5f;
    }
#undef REFUSED
    assert_int_equal(slg_inverse_gap(NULL, &tc, &tu, NULL, NULL, &tp, &ta), SLG_ERR_NULL);
    assert_true(arm[0] == -7 && arm[1] == -7 && rng.offset == 2);
    for (int i = 0; i < 2 * K; i++) assert_true(p[i] == -9);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_properties),
                                        cmocka_unit_test(test_edges),
                                        cmocka_unit_test(test_draws),
                                        cmocka_unit_test(test_errors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
