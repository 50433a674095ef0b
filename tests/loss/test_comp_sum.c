/*
 * slg_comp_sum against its formula in double, its identities, and its edges.
 */
#include "row_loss_test.h"

static slg_status call(slg_ctx *ctx, const slg_logits *l, const slg_targets *t,
                       int32_t reduction, slg_loss_out *out, slg_logits_grad *g, void *arg)
{
    slg_comp_sum_opts o;
    slg_comp_sum_opts_init(&o, sizeof o);
    o.reduction = reduction;
    o.tau = *(double *)arg;
    return slg_comp_sum(ctx, l, t, &o, out, g);
}

static void row(int64_t cols, const double *z, int64_t t, void *arg, double *loss, double *dz,
                double *loss_size, double *dz_size)
{
    double tau = *(double *)arg, odds = log_odds_of(cols, z, t), v = log1p_exp(odds);
    double s = 1 - tau;
    /* A logit's float32 rounding is exact here; errors of v count |1 - tau| fold. */
    double more = 1 + fabs(s) * v;
    *loss = s == 0 ? v : expm1(s * v) / s;
    if (*loss > 3e38) more = 1e300;
    *loss_size = fabs(*loss) * more;
    for (int64_t k = 0; k < cols; k++) {
        if (z[k] == -INFINITY) continue;
        double log_p = k == t ? odds - v : z[k] - z[t] - v; /* of 1 - p for the target */
        double d = exp(s * v + log_p);
        dz[k] = (k == t ? -1 : 1) * (d > 3.4e38 ? INFINITY : d);
        dz_size[k] = d < 3e38 ? d * more : 1e300;
    }
}

static void test_forms(void **state)
{
    static double taus[] = { 0.5, 1, 1.5, 2, 3 };
    (void)state;
    for (int64_t i = 0; i < COUNT(taus); i++) {
        row_loss f = { call, row, &taus[i], 8e-7 };
        check_forms(&f);
        check_threads(&f);
    }
}

/* Rows of 5 at ordinary scale: loss and gradient. */
enum { N = 6, K = 5 };
typedef struct result {
    double loss[N], d[N][K], v[N];
} result;

static result run(slg_ctx *ctx, const float x[N][K], const int32_t *index, double tau)
{
    result y;
    float dx[N * K];
    slg_tensor tx = slg_tensor_2d((void *)(uintptr_t)x, SLG_F32, N, K);
    slg_tensor ti = slg_tensor_1d((void *)(uintptr_t)index, SLG_I32, N);
    slg_tensor td = slg_tensor_2d(dx, SLG_F32, N, K), tl = slg_tensor_1d(y.loss, SLG_F64, N);
    slg_tensor tv = slg_tensor_1d(y.v, SLG_F64, N);
    slg_logits l = slg_logits_dense(&tx);
    slg_targets t = slg_targets_index(&ti);
    slg_loss_out out = loss_out(&tl, NULL);
    slg_logits_grad g = slg_grad_dense(&td);
    slg_comp_sum_opts o;
    slg_comp_sum_opts_init(&o, sizeof o);
    o.reduction = SLG_SUM, o.tau = tau, o.neg_log_p = &tv;
    OK(ctx, slg_comp_sum(ctx, &l, &t, &o, &out, &g));
    for (int i = 0; i < N * K; i++) y.d[i / K][i % K] = (double)dx[i];
    return y;
}

static void near(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want) + 1e-37))
        fail_msg("%.9g, should be %.9g", got, want);
}

static void test_identities(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        float x[N][K], shifted[N][K];
        int32_t index[N];
        for (int i = 0; i < N; i++) {
            index[i] = (int32_t)below(K);
            for (int k = 0; k < K; k++) x[i][k] = rintf((float)normal() * 64) / 32;
            for (int k = 0; k < K; k++) shifted[i][k] = x[i][k] + 8;
        }
        const double taus[] = { 0, 0.5, 1, 1.5, 2, 2.5 };
        result ce = run(ctx, x, index, 1), before = ce;
        for (int64_t j = 0; j < COUNT(taus); j++) {
            result y = run(ctx, x, index, taus[j]), s = run(ctx, shifted, index, taus[j]);
            for (int i = 0; i < N; i++) {
                double sum = 0, p = exp(-ce.loss[i]);
                for (int k = 0; k < K; k++) {
                    sum += y.d[i][k];
                    near(y.d[i][k], pow(p, taus[j] - 1) * ce.d[i][k], 2e-6);
                    near(s.d[i][k], y.d[i][k], 3e-6);
                }
                if (!(fabs(sum) <= 1e-6 * fabs(y.d[i][index[i]]))) fail_msg("sum %g", sum);
                near(y.v[i], ce.loss[i], 1e-12);
                near(s.loss[i], y.loss[i], 2e-6);
                if (taus[j] == 0) near(y.loss[i], expm1(ce.loss[i]), 1e-6);
                if (taus[j] == 2) near(y.loss[i], 1 - p, 1e-6);
                if (j > 0) assert_true(y.loss[i] < before.loss[i]);
            }
            before = y;
        }
        result a = run(ctx, x, index, 1 - 0x1p-20), b = run(ctx, x, index, 1 + 0x1p-20);
        for (int i = 0; i < N; i++) {
            near(a.loss[i], ce.loss[i], 1e-5), near(b.loss[i], ce.loss[i], 1e-5);
            assert_true(a.loss[i] > ce.loss[i] && ce.loss[i] > b.loss[i]);
        }
    }
}

/* tau = 1 is cross-entropy to the bit. */
static void test_is_cross_entropy(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    enum { ROWS = 5, COLS = 700 };
    problem p = problem_of(ROWS, COLS);
    random_logits(&p, SLG_F32, 3);
    operands o;
    operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
    tensor l[2] = { vector(SLG_F32, ROWS, CONTIGUOUS), vector(SLG_F32, ROWS, CONTIGUOUS) };
    tensor d[2] = { matrix(SLG_F32, ROWS, COLS, CONTIGUOUS),
                    matrix(SLG_F32, ROWS, COLS, CONTIGUOUS) };
    slg_loss_out out = loss_out(&l[0].t, NULL), out2 = loss_out(&l[1].t, NULL);
    slg_logits_grad g = dense_grad(&d[0].t), g2 = dense_grad(&d[1].t);
    OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, NULL, &out, &g));
    OK(ctx, slg_comp_sum(ctx, &o.logits, &o.targets, NULL, &out2, &g2));
    assert_memory_equal(l[0].memory, l[1].memory, l[0].bytes);
    assert_memory_equal(d[0].memory, d[1].memory, d[0].bytes);
    assert_true(out.value == out2.value && out.correct == out2.correct);
    release(&l[0]), release(&l[1]), release(&d[0]), release(&d[1]);
    operands_free(&o), problem_free(&p), slg_ctx_free(ctx);
}

static void test_edges(void **state)
{
    (void)state;
    const float inf = INFINITY;
    FOR_EACH_ISA(ctx, 1)
    {
        const float x[N][K] = { { 200, 0, -inf, 1, 2 },
                                { -inf, 1, 2, 3, -inf },
                                { NAN, 1, 2, 3, 4 },
                                { 1, inf, 2, 3, 4 },
                                { -inf, -inf, -inf, -inf, -inf },
                                { -inf, -inf, 3, -inf, -inf } };
        const int32_t index[N] = { 1, 0, 2, 0, 0, 2 };
        for (int j = 0; j < 4; j++) {
            const double tau = j * 0.5;
            result y = run(ctx, x, index, tau);
            /* v = 200: exp((1 - tau) 200) beyond float32 for tau = 0 and 0.5. */
            near(y.loss[0], tau == 1 ? 200 : expm1((1 - tau) * 200) / (1 - tau), 1e-5);
            for (int k = 0; k < K; k++) assert_true(y.d[0][k] == y.d[0][k]);
            assert_true(y.d[0][2] == 0);
            if (tau == 0) {
                assert_true(y.d[0][0] == INFINITY && y.d[0][1] == -INFINITY);
                near(y.d[0][4], exp(2), 3e-5); /* exp(v) p[k] = exp(x[k] - x[t]) */
            }
            assert_true(y.loss[1] == (tau > 1 ? 1 / (tau - 1) : INFINITY) &&
                        y.v[1] == INFINITY);
            assert_true(y.d[1][0] == (tau < 1   ? -INFINITY
                                      : tau > 1 ? 0
                                                : -1) &&
                        y.d[1][4] == 0);
            assert_true(tau < 1   ? y.d[1][1] == INFINITY
                        : tau > 1 ? y.d[1][1] == 0
                                  : y.d[1][1] > 0);
            for (int i = 2; i < 4; i++) {
                assert_true(isnan(y.loss[i]) && isnan(y.v[i]));
                for (int k = 0; k < K; k++) assert_true(isnan(y.d[i][k]));
            }
            assert_true(y.loss[4] == INFINITY && y.v[4] == INFINITY);
            assert_true(y.loss[5] == 0 && y.v[5] == 0);
            for (int k = 0; k < K; k++) assert_true(y.d[4][k] == 0 && y.d[5][k] == 0);
        }
        const float sure[N][K] = { { 60, 0, -3, 0, 0 }, { 1e38f, -1e38f, 0, 0, 0 } };
        const int32_t first[N] = { 0 };
        for (double tau = 0; tau < 3; tau += 0.5) {
            result y = run(ctx, sure, first, tau);
            near(y.loss[0], (3 + exp(-3)) * exp(-60), 1e-5);
            near(y.d[0][0], -(3 + exp(-3)) * exp(-60), 1e-5);
            assert_true(y.loss[1] == 0 && y.d[1][0] == 0);
        }
    }
}

static double value(const float *x, void *arg)
{
    slg_tensor tx = slg_tensor_2d((void *)(uintptr_t)x, SLG_F32, N, K);
    int32_t index[N] = { 0, 1, 2, 3, 4, 0 };
    slg_tensor ti = slg_tensor_1d(index, SLG_I32, N);
    slg_logits l = slg_logits_dense(&tx);
    slg_targets t = slg_targets_index(&ti);
    slg_loss_out out = slg_loss_out_none();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    OK(ctx, call(ctx, &l, &t, SLG_SUM, &out, NULL, arg));
    slg_ctx_free(ctx);
    return out.value;
}

static void test_gradient(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    static double taus[] = { 0, 0.6, 1, 1.7, 2.5 };
    for (int64_t j = 0; j < COUNT(taus); j++) {
        float x[N][K], d[N * K];
        const int32_t index[N] = { 0, 1, 2, 3, 4, 0 };
        for (int i = 0; i < N * K; i++) x[i / K][i % K] = (float)normal();
        result y = run(ctx, x, index, taus[j]);
        for (int i = 0; i < N * K; i++) d[i] = (float)y.d[i / K][i % K];
        gradcheck_result r = gradcheck(value, &taus[j], x[0], N * K, d, NULL);
        assert_true(gradcheck_ok(&r, 1e-4, "comp-sum"));
    }
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float x[N * K] = { 0 }, d[N * K], v[N + 1];
    int32_t index[N] = { 0, 1, 2, 3, 4, -100 };
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, N, K), td = slg_tensor_2d(d, SLG_F32, N, K);
    slg_tensor ti = slg_tensor_1d(index, SLG_I32, N), tv = slg_tensor_1d(v, SLG_F32, N);
    slg_tensor loss = tv, over = slg_tensor_1d(x, SLG_F32, N),
               on_d = slg_tensor_1d(d, SLG_F32, N);
    slg_tensor longer = slg_tensor_1d(v, SLG_F32, N + 1), ints = slg_tensor_1d(v, SLG_I32, N);
    const struct {
        slg_status status;
        const char *says;
        double tau;
        slg_tensor *neg_log_p, *loss;
        int32_t index;
    } cases[] = {
        { SLG_ERR_RANGE, "tau is -1", -1, NULL, NULL, 0 },
        { SLG_ERR_RANGE, "tau is nan", NAN, NULL, NULL, 0 },
        { SLG_ERR_RANGE, "tau is inf", INFINITY, NULL, NULL, 0 },
        { SLG_ERR_SHAPE, "opts.neg_log_p", 1, &longer, NULL, 0 },
        { SLG_ERR_DTYPE, "opts.neg_log_p", 1, &ints, NULL, 0 },
        { SLG_ERR_STRIDE, "opts.neg_log_p overlaps an input", 1, &over, NULL, 0 },
        { SLG_ERR_STRIDE, "opts.neg_log_p overlaps another output", 1, &on_d, NULL, 0 },
        { SLG_ERR_STRIDE, "opts.neg_log_p overlaps another output", 1, &tv, &loss, 0 },
        { SLG_ERR_RANGE, "5", 1, &tv, NULL, 5 },
    };
    slg_logits l = slg_logits_dense(&tx);
    slg_targets t = slg_targets_index(&ti);
    slg_logits_grad g = slg_grad_dense(&td);
    for (int64_t i = 0; i < COUNT(cases) + 1; i++) {
        slg_comp_sum_opts o;
        slg_comp_sum_opts_init(&o, sizeof o);
        slg_loss_out out = slg_loss_out_none();
        memset(d, 0x5A, sizeof d), memset(v, 0x5A, sizeof v);
        if (i == COUNT(cases)) { /* and with nothing wrong; the ignored row has 0 */
            index[0] = 0, o.neg_log_p = &tv;
            OK(ctx, slg_comp_sum(ctx, &l, &t, &o, &out, &g));
            assert_true(v[N - 1] == 0 && v[0] > 1 && d[N * K - 1] == 0 && out.count == N - 1);
            break;
        }
        o.tau = cases[i].tau, o.neg_log_p = cases[i].neg_log_p, out.loss = cases[i].loss;
        index[0] = cases[i].index;
        assert_int_equal(slg_comp_sum(ctx, &l, &t, &o, &out, &g), cases[i].status);
        if (!strstr(slg_ctx_message(ctx), cases[i].says) ||
            !strstr(slg_ctx_message(ctx), "slg_comp_sum: "))
            fail_msg("case %d: %s", (int)i, slg_ctx_message(ctx));
        for (size_t j = 0; j < sizeof d; j++) assert_int_equal(((char *)d)[j], 0x5A);
        for (size_t j = 0; j < sizeof v; j++) assert_int_equal(((char *)v)[j], 0x5A);
    }
    assert_int_equal(slg_comp_sum(NULL, &l, &t, NULL, NULL, NULL), SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_is_cross_entropy),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
