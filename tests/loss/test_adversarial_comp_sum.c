/*
 * slg_adversarial_comp_sum, slg_margin_change, attack steps and bounds: against their formulas
 * in double, differences, and the edges.
 */
#include "row_loss_test.h"

enum { N = 5, K = 6 };

typedef struct scores {
    float h[N * K], a[N * K], dh[N * K], da[N * K];
    int32_t index[N];
    double loss[N], r[N], value;
    slg_adversarial_comp_sum_opts o;
} scores;

static void fill_scores(scores *s)
{
    for (int i = 0; i < N * K; i++) {
        s->h[i] = (float)normal() * 2;
        s->a[i] = s->h[i] + (float)normal() / 2;
        s->index[i % N] = (int32_t)below(K);
    }
    slg_adversarial_comp_sum_opts_init(&s->o, sizeof s->o);
    s->o.reduction = SLG_SUM, s->o.tau = 1.3, s->o.rho = 0.7, s->o.nu = 2;
}

static slg_status run(slg_ctx *ctx, scores *s, bool in_place)
{
    slg_tensor h = slg_tensor_2d(s->h, SLG_F32, N, K), a = slg_tensor_2d(s->a, SLG_F32, N, K);
    slg_tensor dh = slg_tensor_2d(in_place ? s->h : s->dh, SLG_F32, N, K);
    slg_tensor da = slg_tensor_2d(in_place ? s->a : s->da, SLG_F32, N, K);
    slg_tensor i = slg_tensor_1d(s->index, SLG_I32, N),
               loss = slg_tensor_1d(s->loss, SLG_F64, N);
    slg_tensor r = slg_tensor_1d(s->r, SLG_F64, N);
    slg_logits clean = slg_logits_dense(&h), perturbed = slg_logits_dense(&a);
    slg_targets t = slg_targets_index(&i);
    slg_loss_out out = loss_out(&loss, NULL);
    slg_logits_grad gh = slg_grad_dense(&dh), ga = slg_grad_dense(&da);
    t.teacher = &perturbed, s->o.margin_change = &r;
    slg_status status = slg_adversarial_comp_sum(ctx, &clean, &t, &s->o, &out, &gh, &ga);
    s->o.margin_change = NULL, s->value = out.sum;
    return status;
}

static double reference(const scores *s, int row, double *r)
{
    double z[K], squares = 0, t = 1 - s->o.tau;
    const float *h = s->h + row * K, *a = s->a + row * K;
    int y = s->index[row];
    for (int k = 0; k < K; k++) z[k] = (double)h[k] / s->o.rho;
    double v = log1p_exp(log_odds_of(K, z, y));
    for (int k = 0; k < K; k++) {
        double e = (double)a[y] - (double)a[k] - (double)h[y] + (double)h[k];
        squares += e * e;
    }
    *r = sqrt(squares);
    return (t == 0 ? v : expm1(t * v) / t) + s->o.nu * *r;
}

static void test_values(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int round = 0; round < 20; round++) {
        scores s, same;
        fill_scores(&s);
        s.o.tau = (round % 5) * 0.5;
        OK(ctx, run(ctx, &s, false));
        for (int i = 0; i < N; i++) {
            double r, sum[2] = { 0, 0 }, want = reference(&s, i, &r), seen = 0;
            compare("loss", i, 0, s.loss[i], want, 3e-6 * want, &seen);
            compare("r", i, 0, s.r[i], r, 1e-12 * r, &seen);
            for (int k = 0; k < K; k++) {
                double before[4], at[] = { -2, -1, 1, 2 }, step = 1.0 / 64;
                for (int side = 0; side < 2; side++) {
                    float *x = (side ? s.a : s.h) + i * K + k, kept = *x;
                    for (int j = 0; j < 4; j++) {
                        *x = (float)((double)kept + at[j] * step);
                        before[j] = reference(&s, i, &r);
                    }
                    *x = kept;
                    double d =
                        (before[0] - 8 * before[1] + 8 * before[2] - before[3]) / (12 * step);
                    double got = (double)(side ? s.da : s.dh)[i * K + k];
                    compare("gradient", i, k, got, d, 1e-3 * (1 + fabs(d)), &seen);
                    sum[side] += got;
                }
            }
            assert_true(fabs(sum[0]) < 1e-4 * (1 + want) && fabs(sum[1]) < 1e-5);
        }
        same = s;
        OK(ctx, run(ctx, &same, true)); /* in place, both */
        assert_memory_equal(same.h, s.dh, sizeof s.dh);
        assert_memory_equal(same.a, s.da, sizeof s.da);
    }
}

static void test_edges(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        scores s;
        fill_scores(&s);
        memcpy(s.a, s.h, sizeof s.a);
        for (int i = 0; i < N * K; i++) s.h[i] = rintf(s.h[i] * 8), s.a[i] = s.h[i] + 4;
        s.index[1] = -100;
        s.h[2 * K] = s.a[2 * K] = -INFINITY, s.index[2] = 1;
        s.a[3 * K] = NAN;
        s.h[4 * K + 2] = INFINITY;
        OK(ctx, run(ctx, &s, false));
        assert_true(s.r[0] == 0 && s.loss[1] == 0 && s.r[1] == 0 && s.r[2] == 0);
        assert_true(s.dh[2 * K] == 0 && s.da[2 * K] == 0);
        for (int k = 0; k < 3 * K; k++) assert_true(s.da[k] == 0);
        for (int k = K; k < 2 * K; k++) assert_true(s.dh[k] == 0);
        for (int i = 3; i < N; i++) {
            assert_true(isnan(s.loss[i]) && isnan(s.r[i]));
            for (int k = 0; k < K; k++)
                if (!isnan(s.dh[i * K + k]) || !isnan(s.da[i * K + k])) fail_msg("not NaN");
        }
    }
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    scores s;
    fill_scores(&s);
    const slg_adversarial_comp_sum_opts good = s.o;
#define FAILS(field, value, says)                                                              \
    s.o = good, s.o.field = value;                                                             \
    memset(s.dh, 0x5A, sizeof s.dh), memset(s.da, 0x5A, sizeof s.da);                          \
    assert_int_equal(run(ctx, &s, false), SLG_ERR_RANGE);                                      \
    if (!strstr(slg_ctx_message(ctx), says)) fail_msg("%s", slg_ctx_message(ctx));             \
    for (size_t i = 0; i < sizeof s.dh; i++)                                                   \
        assert_true(((char *)s.dh)[i] == 0x5A && ((char *)s.da)[i] == 0x5A);
    FAILS(tau, -1, "tau is -1")
    FAILS(rho, 0, "rho is 0")
    FAILS(nu, -0.5, "nu is -0.5")
    FAILS(nu, NAN, "nu is nan")
    slg_tensor h = slg_tensor_2d(s.h, SLG_F32, N, K), i = slg_tensor_1d(s.index, SLG_I32, N);
    slg_tensor a = slg_tensor_2d(s.a, SLG_F32, N, K), d = slg_tensor_2d(s.dh, SLG_F32, N, K);
    slg_logits clean = slg_logits_dense(&h), perturbed = slg_logits_dense(&a);
    slg_targets t = slg_targets_index(&i);
    slg_loss_out out = slg_loss_out_none();
    slg_logits_grad over = slg_grad_dense(&h), g = slg_grad_dense(&d);
    assert_int_equal(slg_adversarial_comp_sum(ctx, &clean, &t, NULL, &out, NULL, NULL),
                     SLG_ERR_NULL);
    t.teacher = &perturbed;
    assert_int_equal(slg_adversarial_comp_sum(ctx, &clean, &t, NULL, &out, NULL, &over),
                     SLG_ERR_STRIDE);
    assert_int_equal(slg_adversarial_comp_sum(ctx, &clean, &t, NULL, &out, &g, &g),
                     SLG_ERR_STRIDE);
    OK(ctx, slg_margin_change(ctx, &clean, &t, NULL, &out, &g));
    slg_ctx_free(ctx);
}

static void test_attack(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    enum { ROWS = 40, DIM = 7 };
    float x0[ROWS * DIM], x[ROWS * DIM], dx[ROWS * DIM], once[ROWS * DIM];
    slg_tensor t0 = slg_tensor_2d(x0, SLG_F32, ROWS, DIM),
               tx = slg_tensor_2d(x, SLG_F32, ROWS, DIM);
    slg_tensor td = slg_tensor_2d(dx, SLG_F32, ROWS, DIM);
    for (int ball = 0; ball < 2; ball++) {
        slg_rng rng = { 7, 5 };
        slg_attack_opts o;
        slg_attack_opts_init(&o, sizeof o);
        o.ball = ball, o.radius = 0.3, o.step = 0.25;
        for (int i = 0; i < ROWS * DIM; i++) x0[i] = (float)uniform(), dx[i] = (float)normal();
        OK(ctx, slg_attack_start(ctx, &t0, &rng, &o, &tx));
        assert_true(rng.offset == 5 + ROWS * DIM);
        memcpy(once, x, sizeof once);
        for (int n = 0; n < 3; n++) {
            for (int r = 0; r < ROWS; r++) {
                double far = 0, norm = 0, most = 0;
                for (int c = r * DIM; c < r * DIM + DIM; c++) {
                    double e = (double)x[c] - (double)x0[c];
                    norm += e * e, most = fmax(most, fabs(e)),
                                   far += fabs((double)x[c] - (double)once[c]);
                    assert_true(x[c] >= 0 && x[c] <= 1);
                }
                assert_true((ball ? sqrt(norm) : most) <= 0.3 + 1e-6 && most > 0.01);
                if (n > 0) assert_true(far > 0);
            }
            OK(ctx, slg_attack_step(ctx, &tx, &td, &t0, &o, &tx));
        }
        for (int i = 0; i < ROWS * DIM && ball == SLG_BALL_LINF; i++) /* at the wall by now */
            assert_true(fabs((double)x[i] -
                             fmin(fmax((double)x0[i] + (dx[i] > 0 ? 0.3 : -0.3), 0), 1)) <
                        1e-6);
        o.radius = -1;
        assert_int_equal(slg_attack_step(ctx, &tx, &td, &t0, &o, &tx), SLG_ERR_RANGE);
        assert_int_equal(slg_attack_step(ctx, &tx, &td, &t0, NULL, &t0), SLG_ERR_STRIDE);
    }
    slg_ctx_free(ctx);
}

static void test_bounds(void **state)
{
    (void)state;
    static const double table[][2] = { { 0, 0.133975 },   { 0.5, 0.125628 }, { 1, 0.130812 },
                                       { 1.5, 0.074651 }, { 1.9, 0.055890 }, { 2, 0.05 } };
    for (int64_t i = 0; i < COUNT(table); i++) {
        double tau = table[i][0];
        if (fabs(slg_comp_sum_transform(tau, 10, 0.5) - table[i][1]) > 1e-6)
            fail_msg("T at tau %g is %.7g", tau, slg_comp_sum_transform(tau, 10, 0.5));
        for (double b = 0.001; b <= 1; b += 0.037) {
            double t = slg_comp_sum_transform(tau, 10, b),
                   back = slg_comp_sum_bound(tau, 10, t);
            double simple = tau < 1   ? sqrt(pow(2, tau) * (2 - tau) * t)
                            : tau < 2 ? sqrt(2 * pow(10, tau - 1) * t)
                                      : (tau - 1) * pow(10, tau - 1) * t;
            if (fabs(back - b) > 1e-9 || simple < back - 1e-9)
                fail_msg("tau %g b %g: %g", tau, b, back);
            if (tau == 0 && fabs(t - (1 - sqrt(1 - b * b))) > 1e-12) fail_msg("T_0");
        }
    }
    for (double b = 0; b <= 1; b += 0.25) { /* continuous at 1, finite near 2 */
        double one = slg_comp_sum_transform(1, 7, b);
        assert_true(fabs(slg_comp_sum_transform(1 - 1e-7, 7, b) - one) < 1e-6);
        assert_true(fabs(slg_comp_sum_transform(1 + 1e-7, 7, b) - one) < 1e-6);
        assert_true(fabs(slg_comp_sum_transform(2 - 1e-9, 7, b) - b / 7) < 1e-6);
    }
    double bad[] = { slg_comp_sum_transform(-1, 3, 0.5), slg_comp_sum_transform(1, 0, 0.5),
                     slg_comp_sum_transform(1, 3, 1.5), slg_comp_sum_bound(1, 3, -1) };
    for (int i = 0; i < 4; i++) assert_true(bad[i] != bad[i]);
    assert_true(slg_comp_sum_bound(1, 3, 10) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_edges),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_attack),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
