/* The optimal temperature: entropy met, duality, edge cases, threads, errors. */
#include "robust_test.h"

static data a; /* large */

static void best(slg_ctx *ctx, int64_t rows, int64_t cols, const float *x, double rho,
                 double low, double high, double *tau, double *entropy)
{
    slg_tensor z = slg_tensor_2d(x, SLG_F32, rows, cols), t = slg_tensor_1d(tau, SLG_F64, rows);
    slg_tensor h = slg_tensor_1d(entropy, SLG_F64, rows);
    slg_logits l = slg_logits_dense(&z);
    slg_optimal_temperature_opts o;
    slg_optimal_temperature_opts_init(&o, sizeof o);
    o.rho = rho, o.tau_min = low, o.tau_max = high;
    OK(ctx, slg_optimal_temperature(ctx, &l, &o, &t, &h));
}

static void test_optimal(void **state)
{
    (void)state;
    double tau[ROWS], h[ROWS], *z = zeros(2 * COLS, sizeof *z), *p = z + COLS;
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 6; i++) {
        const int64_t cols = i % 2 ? 9 : COLS;
        const double rho = i < 2 ? 1.2 : i < 4 ? 0.05 : 1.9;
        refill(&a, cols, i < 4 ? 3 : 100);
        best(ctx, ROWS, cols, a.x, rho, 1e-3, 1e4, tau, h);
        for (int64_t r = 0; r < ROWS; r++) {
            for (int64_t k = 0; k < cols; k++) z[k] = (double)a.x[r * cols + k];
            double want = reference(cols, z, 0, tau[r], rho, p).entropy;
            near(h[r], want, 1e-5, "entropy at the optimum");
            near(want, log((double)cols) - rho, 1e-5, "optimum");
        }
    }
    free(z);
}

static void test_optimal_edges(void **state)
{
    (void)state;
    static const float x[6][3] = { { 1, 1, 1 },          { 2, -INFINITY, -INFINITY },
                                   { 0, 1, NAN },        { -INFINITY, -INFINITY, -INFINITY },
                                   { 1e30f, 0, -1e30f }, { 1e-3f, 0, 0 } };
    double tau[6], h[6];
    FOR_EACH_ISA(ctx, 1)
    {
        best(ctx, 6, 3, x[0], 0.5, 0.5, 5, tau, h);
        near(tau[0], 0.5, 0, "equal"), near(tau[1], 0.5, 0, "one class"),
            near(h[1], 0, 0, "one class");
        near(tau[2], (double)NAN, 0, "NaN"), near(tau[3], (double)NAN, 0, "masked");
        near(tau[4], 5, 0, "far apart"), near(tau[5], 0.5, 0, "close");
        best(ctx, 1, 3, x[4], 0.0, 0.5, 5, tau, h);
        near(tau[0], 5, 0, "rho 0");
        best(ctx, 1, 3, x[4], 1.2, 0.5, 5, tau, h);
        near(tau[0], 0.5, 0, "rho beyond log K");
    }
}

/* max over p, KL(p || uniform) <= rho, of sum p (z - z_t) - tau0 KL(p || uniform): mirror
   ascent, then back into the ball, to which the nearest point (in KL) is p^s, normalised. */
static double primal(const double *z, int t, double tau0, double rho)
{
    enum { K = 5 };
    double p[K], value = 0;
    for (int k = 0; k < K; k++) p[k] = 1.0 / K;
    for (int step = 0; step < 4000; step++) {
        double low = 0, high = 1, q[K], kl, logs[K];
        for (int k = 0; k < K; k++)
            logs[k] = log(p[k]) + 0.02 * (z[k] - tau0 * (log(p[k] * K) + 1));
        for (int half = 0; half < 60; half++) {
            double s = half ? (low + high) / 2 : 1, top = -INFINITY, sum = 0;
            for (int k = 0; k < K; k++) top = fmax(top, s * logs[k]);
            for (int k = 0; k < K; k++) sum += q[k] = exp(s * logs[k] - top);
            kl = 0;
            for (int k = 0; k < K; k++) q[k] /= sum, kl += q[k] > 0 ? q[k] * log(q[k] * K) : 0;
            if (half == 0 && kl <= rho) break;
            if (kl > rho)
                high = s;
            else
                low = s;
        }
        value = -tau0 * kl;
        for (int k = 0; k < K; k++) p[k] = fmax(q[k], 1e-300), value += q[k] * (z[k] - z[t]);
    }
    return value;
}

/* That maximum is the least loss over tau >= tau0, but for the constant tau0 rho. */
static void test_duality(void **state)
{
    (void)state;
    static const double tau0[] = { 0.2, 0.5, 3 }, rho[] = { 0.1, 0.4, 0.9, 1.3 };
    FOR_EACH_ISA(ctx, 1)
    for (int i = 0; i < 12; i++) {
        double tau, h, z[5];
        slg_loss_out out;
        memset(&a, 0, sizeof a);
        refill(&a, 5, 1.5);
        a.rho = rho[i % 4], a.reduction = SLG_SUM;
        for (int r = 0; r < ROWS; r++) a.weight[r] = r == 0, a.index[r] = i % 5;
        for (int k = 0; k < 5; k++) z[k] = (double)a.x[k];
        best(ctx, 1, 5, a.x, a.rho, tau0[i / 4], 1e4, &tau, &h);
        a.tau[0] = (float)tau;
        OK(ctx, call(ctx, &a, false, &out));
        near(out.sum - tau0[i / 4] * a.rho, primal(z, i % 5, tau0[i / 4], a.rho), 1e-4,
             "duality");
    }
}

/* Bits of any number of threads. */
static void test_threads(void **state)
{
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    double tau[ROWS], h[ROWS], first[2][ROWS];
    refill(&a, COLS, 3);
    for (int i = 0; i < 4; i++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
        best(ctx, ROWS, COLS, a.x, 1.2, 0.01, 100, tau, h);
        if (i == 0) memcpy(first[0], tau, sizeof tau), memcpy(first[1], h, sizeof h);
        assert_memory_equal(first[0], tau, sizeof tau);
        assert_memory_equal(first[1], h, sizeof h);
        slg_ctx_free(ctx);
    }
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    refill(&a, 9, 1);
    slg_tensor x = slg_tensor_2d(a.x, SLG_F32, ROWS, 9),
               t = slg_tensor_1d(a.dtau, SLG_F32, ROWS);
    slg_tensor few = slg_tensor_1d(a.dtau, SLG_F32, 2);
    slg_logits l = slg_logits_dense(&x);
    slg_optimal_temperature_opts o;
    slg_optimal_temperature_opts_init(&o, sizeof o);
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &few, NULL), SLG_ERR_SHAPE);
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &t, &t), SLG_ERR_STRIDE);
    l.temperature = 2;
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &t, NULL), SLG_ERR_RANGE);
    l.temperature = 1, o.tau_min = 6;
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &t, NULL), SLG_ERR_RANGE);
    o.tau_min = 0.5, o.rho = NAN;
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &t, NULL), SLG_ERR_RANGE);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_optimal), cmocka_unit_test(test_optimal_edges),
        cmocka_unit_test(test_duality), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
