/*
 * slg_gbm_forward and slg_gbm_target against double arithmetic; moments of the noise; exactness
 * at t = 0; subnormal numbers; errors.
 */
#include "diffusion_test.h"

static double exponent(const setup *s, int64_t j, double t, double z)
{
    const double sigma = sigma_at(s, j);
    return (mu_at(s, j) - sigma * sigma / 2) * t + sigma * sqrt(t) * z;
}

/* One shape, type, layout, form, and state. */
static void check_forward(slg_ctx *ctx, int k, bool log_state)
{
    const int64_t rows = shapes[k % 6][0], cols = shapes[k % 6][1];
    const int32_t in = types[k % 3], out = types[k / 2 % 3];
    const enum layout layout = (enum layout)(k % 4), other = (enum layout)(k / 3 % 4);
    setup s;
    setup_open(&s, k / 6 % FORMS, cols);
    s.p.log_state = log_state;
    tensor x0 = random_matrix(in, rows, cols, layout, 0, 1, !log_state);
    tensor z = random_matrix(in, rows, cols, other, 0, 1, false);
    tensor t = times(k % 2 ? SLG_F64 : SLG_F32, rows);
    tensor x = matrix(out, rows, cols, other), log_x = matrix(SLG_F32, rows, cols, layout);
    tensor noise = matrix(SLG_F32, rows, cols, layout);
    slg_gbm_counts counts;
    slg_gbm_counts_init(&counts, sizeof counts);
    OK(ctx,
       slg_gbm_forward(ctx, &x0.t, &t.t, &z.t, NULL, &s.p, &x.t, &log_x.t, &noise.t, &counts));
    assert_int_equal(counts.saturated, 0);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            const double e = exponent(&s, j, get(&t, 0, i), get(&z, i, j));
            const double from = get(&x0, i, j), y = (log_state ? from : log(from)) + e;
            const double tolerance = 4e-7 * (1 + fabs(e) + (log_state ? fabs(y) : 0));
            assert_close(get(&x, i, j), exp(y), exp(y) * tolerance + rounding(out, exp(y)));
            assert_close(get(&log_x, i, j), y, 3e-7 * (1 + fabs(y) + fabs(e)));
            assert_true(get(&noise, i, j) == get(&z, i, j));
        }
    if (in == SLG_F32) { /* in place */
        tensor want = matrix(SLG_F32, rows, cols, CONTIGUOUS);
        OK(ctx, slg_gbm_forward(ctx, &x0.t, &t.t, &z.t, NULL, &s.p, &want.t, NULL, NULL, NULL));
        OK(ctx, slg_gbm_forward(ctx, &x0.t, &t.t, &z.t, NULL, &s.p, &x0.t, NULL, &z.t, NULL));
        assert_same_bits(&x0, &want);
        release(&want);
    }
    tensor *all[] = { &x0, &z, &t, &x, &log_x, &noise };
    for (int i = 3; i < 6; i++) assert_gaps_intact(all[i]);
    for (int i = 0; i < 6; i++) release(all[i]);
    setup_free(&s);
}

static void test_values(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int k = 0; k < 36; k++) check_forward(ctx, k, k % 5 == 3);
    (void)state;
}

/* Rows that are drawn: the numbers of slg_random, moments, and two times in turn as one. */
static void test_law(void **state)
{
    enum { ROWS = 20000, COLS = 3 };
    static const double at[][2] = { { 0.3, 0 }, { 1, 0 }, { 0.25, 0.75 } };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    setup s;
    setup_open(&s, 1, COLS);
    tensor x = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS),
           z = matrix(SLG_F32, ROWS, COLS, COL_GAPS);
    tensor t = vector(SLG_F64, ROWS, CONTIGUOUS);
    slg_rng rng = { 3, 7 };
    for (int k = 0; k < 3; k++) {
        double sum = 0, square = 0, time = at[k][0] + at[k][1];
        fill_value(&x, 1);
        for (int step = 0; step < 2; step++) {
            fill_value(&t, at[k][step]);
            slg_rng from = rng;
            tensor drawn = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
            OK(ctx, slg_gbm_forward(ctx, &x.t, &t.t, NULL, &rng, &s.p, &x.t, NULL, &z.t, NULL));
            OK(ctx, slg_random(ctx, &from, SLG_NORMAL, &drawn.t));
            assert_true(from.offset == rng.offset);
            assert_same_bits(&z, &drawn);
            release(&drawn);
        }
        for (int64_t i = 0; i < ROWS * COLS; i++) {
            const double y = log(get(&x, i / COLS, i % COLS));
            sum += y, square += y * y;
        }
        const double n = ROWS * COLS, mean = sum / n, variance = square / n - mean * mean;
        const double want = 0.25 * time;
        assert_close(mean, (0.7 - 0.125) * time, 5 * sqrt(want / n));
        assert_close(variance, want, 5 * want * sqrt(2 / n));
    }
    release(&x), release(&z), release(&t);
    setup_free(&s);
    slg_ctx_free(ctx);
    (void)state;
}

/* t = 0 leaves all bits; subnormal x are numbers like others; sigma = 0 draws no noise in. */
static void test_edges(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    {
        static const float special[] = { 1e-45f, 3e-42f, 1e-38f, 1e-30f, 1.0f, 1e30f, 3.4e38f };
        enum { N = COUNT(special) };
        float x[N], y[N], zero[N] = { 0 }, z[N];
        double now = 0, later = 1;
        slg_tensor x0 = slg_tensor_2d(special, SLG_F32, 1, N), xt = x0, yt = x0, zt = x0,
                   nt = x0;
        slg_tensor t = slg_tensor_1d(&now, SLG_F64, 1);
        slg_gbm p;
        slg_gbm_counts counts;
        slg_gbm_init(&p, sizeof p), slg_gbm_counts_init(&counts, sizeof counts);
        xt.data = x, yt.data = y, zt.data = z, nt.data = zero;
        for (int i = 0; i < N; i++) z[i] = 3;
        OK(ctx, slg_gbm_forward(ctx, &x0, &t, &zt, NULL, &p, &xt, &yt, NULL, &counts));
        assert_memory_equal(x, special, sizeof x);
        assert_int_equal(counts.saturated, 0);
        for (int i = 0; i < N; i++) assert_close((double)y[i], log((double)special[i]), 1e-5);
        t.data = &later, p.mu = 100; /* all up: by e^99.7 */
        OK(ctx, slg_gbm_forward(ctx, &x0, &t, &nt, NULL, &p, &xt, &yt, NULL, &counts));
        for (int i = 0; i < N; i++) {
            const double want = (double)special[i] * exp(100 - 0.32);
            if (want > 3.4e38) /* saturated, but not its logarithm */
                assert_true(isinf(x[i]));
            else
                assert_close((double)x[i], want, 2e-5 * want);
            assert_close((double)y[i], log((double)special[i]) + 100 - 0.32, 2e-5);
        }
        assert_int_equal(counts.saturated, 3);
        p.mu = -100; /* all down */
        OK(ctx, slg_gbm_forward(ctx, &x0, &t, &nt, NULL, &p, &xt, NULL, NULL, &counts));
        assert_int_equal(counts.saturated, 4);
        assert_true(x[3] == 0.0f && x[4] > 0.0f);
        p.sigma = 0, p.mu = 1;
        OK(ctx, slg_gbm_forward(ctx, &x0, &t, &zt, NULL, &p, &xt, NULL, NULL, NULL));
        assert_close((double)x[4], exp(1), 1e-6);
        x0.shape[0] = 0, t.shape[0] = 0, xt.shape[0] = 0, zt.shape[0] = 0;
        OK(ctx, slg_gbm_forward(ctx, &x0, &t, &zt, NULL, &p, &xt, NULL, NULL, NULL));
        x0.shape[0] = 1, t.shape[0] = 1, xt.shape[0] = 1, zt.shape[0] = 1;
        x0.shape[1] = xt.shape[1] = zt.shape[1] = 0;
        OK(ctx, slg_gbm_forward(ctx, &x0, &t, &zt, NULL, &p, &xt, NULL, NULL, NULL));
    }
    (void)state;
}

/* From x and x0, and from z; NaN at t = 0. */
static void test_target(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int k = 0; k < 18; k++) {
        const int64_t rows = shapes[k % 6][0], cols = shapes[k % 6][1];
        setup s;
        setup_open(&s, k / 6, cols);
        s.p.log_state = k % 4 == 1;
        tensor x0 =
            random_matrix(SLG_F32, rows, cols, (enum layout)(k % 4), 0, 1, !s.p.log_state);
        tensor z = random_matrix(SLG_F32, rows, cols, CONTIGUOUS, 0, 1, false);
        tensor t = times(SLG_F32, rows), x = matrix(SLG_F32, rows, cols, ROW_GAPS);
        tensor h = matrix(SLG_F32, rows, cols, CONTIGUOUS),
               g = matrix(SLG_F32, rows, cols, COL_GAPS);
        OK(ctx, slg_gbm_forward(ctx, &x0.t, &t.t, &z.t, NULL, &s.p, s.p.log_state ? NULL : &x.t,
                                s.p.log_state ? &x.t : NULL, NULL, NULL));
        OK(ctx, slg_gbm_target(ctx, &x.t, &x0.t, NULL, &t.t, &s.p, &h.t));
        OK(ctx, slg_gbm_target(ctx, NULL, NULL, &z.t, &t.t, &s.p, &g.t));
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++) {
                const double sd = sigma_at(&s, j) * sqrt(get(&t, 0, i));
                const double want = sd > 0 ? -1 - get(&z, i, j) / sd : NAN;
                const double size = 1 + fabs(get(&x, i, j)) / 4;
                assert_close(get(&g, i, j), want, 1e-6 * fabs(want) + 1e-6);
                assert_close(get(&h, i, j), want,
                             1e-6 *
                                 (fabs(want) + (s.p.log_state ? 4 * size : 1.5) / (sd * sd)));
            }
        release(&x0), release(&z), release(&t), release(&x), release(&h), release(&g);
        setup_free(&s);
    }
    (void)state;
}

/* Outputs of every kind, on 1, 2, 3 and 8 threads. */
static void test_threads(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int k = 0; k < 6; k++) {
        const int64_t rows = k == 5 ? 30 : shapes[k][0] * 40, cols = shapes[k][1];
        setup s;
        setup_open(&s, k % FORMS, cols);
        tensor x0 = random_matrix(SLG_F32, rows, cols, CONTIGUOUS, 0, 1, true);
        tensor t = times(SLG_F64, rows), want[3], got[3];
        slg_rng rng = { 5, 3 }, again;
        for (int i = 0; i < 3; i++)
            want[i] = matrix(SLG_F32, rows, cols, CONTIGUOUS), got[i] = want[i],
            got[i] = matrix(SLG_F32, rows, cols, CONTIGUOUS);
        OK(ctx, slg_gbm_forward(ctx, &x0.t, &t.t, NULL, &rng, &s.p, &want[0].t, &want[1].t,
                                &want[2].t, NULL));
        for (int32_t threads = 2; threads <= 8; threads += threads == 2 ? 1 : 5) {
            slg_ctx *many = context(isa_, threads);
            again = (slg_rng){ 5, 3 };
            OK(many, slg_gbm_forward(many, &x0.t, &t.t, NULL, &again, &s.p, &got[0].t,
                                     &got[1].t, &got[2].t, NULL));
            for (int i = 0; i < 3; i++) assert_same_bits(&got[i], &want[i]);
            slg_ctx_free(many);
        }
        for (int i = 0; i < 3; i++) release(&want[i]), release(&got[i]);
        release(&x0), release(&t), setup_free(&s);
    }
    (void)state;
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    setup s;
    setup_open(&s, 2, 3);
    slg_gbm one, bad;
    slg_gbm_init(&one, sizeof one);
    tensor x0 = random_matrix(SLG_F32, 4, 3, CONTIGUOUS, 0, 1, true),
           z = random_matrix(SLG_F32, 4, 3, CONTIGUOUS, 0, 1, false);
    tensor x = matrix(SLG_F32, 4, 3, CONTIGUOUS), t = times(SLG_F64, 4),
           wide = matrix(SLG_F32, 4, 4, CONTIGUOUS);
    slg_rng rng = { 1, 2 };
    fill_value(&x, 7);
#define FORWARD(process, z, rng)                                                               \
    slg_gbm_forward(ctx, &x0.t, &t.t, z, rng, process, &x.t, NULL, NULL, NULL)
    assert_int_equal(
        slg_gbm_forward(NULL, &x0.t, &t.t, &z.t, NULL, NULL, &x.t, NULL, NULL, NULL),
        SLG_ERR_NULL);
    assert_refused(ctx, FORWARD(NULL, NULL, NULL), SLG_ERR_NULL, "z and rng");
    assert_refused(ctx, FORWARD(NULL, &z.t, &rng), SLG_ERR_OPTIONS, "z and rng");
    assert_refused(ctx, FORWARD(NULL, &wide.t, NULL), SLG_ERR_SHAPE, "z");
    assert_refused(ctx,
                   slg_gbm_forward(ctx, &x0.t, NULL, &z.t, NULL, NULL, &x.t, NULL, NULL, NULL),
                   SLG_ERR_NULL, "t is NULL");
    assert_refused(ctx,
                   slg_gbm_forward(ctx, &x0.t, &t.t, &z.t, NULL, NULL, &z.t, NULL, NULL, NULL),
                   SLG_ERR_STRIDE, "x overlaps z");
    assert_refused(ctx,
                   slg_gbm_forward(ctx, &x0.t, &t.t, &z.t, NULL, NULL, &x.t, &x.t, NULL, NULL),
                   SLG_ERR_STRIDE, "log_x overlaps x");
    static const struct {
        double sigma, mu;
        const char *words;
    } values[] = { { -1, 0, "sigma is -1" },
                   { NAN, 0, "sigma is" },
                   { INFINITY, 0, "sigma is" },
                   { 1, INFINITY, "mu is" } };
    for (int i = 0; i < 4; i++) {
        bad = one, bad.sigma = values[i].sigma, bad.mu = values[i].mu;
        assert_refused(ctx, FORWARD(&bad, NULL, &rng), SLG_ERR_RANGE, values[i].words);
    }
    bad = one, bad.log_state = 2;
    assert_refused(ctx, FORWARD(&bad, NULL, &rng), SLG_ERR_RANGE, "log_state");
    bad = one, bad.size = 4;
    assert_refused(ctx, FORWARD(&bad, NULL, &rng), SLG_ERR_OPTIONS, "process");
    put(&s.sigmas, 0, 1, -0.5);
    assert_refused(ctx, FORWARD(&s.p, NULL, &rng), SLG_ERR_RANGE, "sigma of column 1 is -0.5");
    bad = one, bad.sigma_columns = &wide.t;
    assert_refused(ctx, FORWARD(&bad, NULL, &rng), SLG_ERR_SHAPE, "sigma_columns");
    static const double wrong[] = { 0, -1, NAN, INFINITY };
    for (int i = 0; i < 4; i++) {
        const double keep = get(&x0, 2, 1);
        put(&x0, 2, 1, wrong[i]), put(&x0, 3, 0, wrong[i]), put(&x0, 3, 2, wrong[i]);
        assert_refused(ctx, FORWARD(NULL, NULL, &rng), SLG_ERR_RANGE,
                       "at row 2, column 1, must be positive and finite: 2 of 4 rows");
        put(&x0, 2, 1, keep), put(&x0, 3, 0, 1), put(&x0, 3, 2, 1);
        const double time = get(&t, 0, 3);
        put(&t, 0, 3, i ? wrong[i] : -0.25);
        assert_refused(ctx, FORWARD(NULL, NULL, &rng), SLG_ERR_RANGE, "at row 3");
        put(&t, 0, 3, time);
    }
    assert_refused(ctx, slg_gbm_target(ctx, &x0.t, NULL, NULL, &t.t, NULL, &x.t), SLG_ERR_NULL,
                   "x0");
    assert_refused(ctx, slg_gbm_target(ctx, &x0.t, &x0.t, &z.t, &t.t, NULL, &x.t),
                   SLG_ERR_OPTIONS, "x0");
    bad = one, bad.sigma = 0;
    assert_refused(ctx, slg_gbm_target(ctx, &x0.t, &x0.t, NULL, &t.t, &bad, &x.t),
                   SLG_ERR_RANGE, "> 0");
    assert_refused(ctx, slg_gbm_target(ctx, &x0.t, &x0.t, NULL, &t.t, NULL, NULL), SLG_ERR_NULL,
                   "h is NULL");
    assert_true(rng.offset == 2);
    for (int i = 0; i < 12; i++) assert_true(get(&x, i / 3, i % 3) == 7);
    release(&x0), release(&z), release(&x), release(&t), release(&wide), setup_free(&s);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),  cmocka_unit_test(test_law),
        cmocka_unit_test(test_edges),   cmocka_unit_test(test_target),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
