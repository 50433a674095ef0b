/* slg_perturbed_loss: the ridge that it is in expectation, gradients, signs, edges, errors. */
#include "core/rng.h"
#include "online_test.h"
#include "support/gradcheck.h"

enum { N = 5, P = 7, S = 3 };

static slg_perturbed_loss_opts opts_of(int32_t rule, double c_p, double width)
{
    slg_perturbed_loss_opts o;
    slg_perturbed_loss_opts_init(&o, sizeof o);
    o.rule = rule, o.c_p = c_p, o.width = width;
    return o;
}

static slg_perturbed_loss_out outputs(void)
{
    slg_perturbed_loss_out o;
    slg_perturbed_loss_out_init(&o, sizeof o);
    return o;
}

/* Over all 2^p sign vectors the squared loss is itself plus the ridge, and so is its slope. */
static void test_expectation(void **state)
{
    (void)state;
    enum { ALL = 1 << P };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const slg_perturbed_loss_opts o = opts_of(SLG_GAP_SQUARE, 0.5, 64);
    float f[N], y[N], theta[P], theta0[P], epsilon[ALL][P];
    double d[P] = { 0 }, want = 0, length = 0;
    randoms(N, 1, f), randoms(N, 1, y), randoms(P, 1, theta), randoms(P, 1, theta0);
    for (int s = 0; s < ALL; s++)
        for (int i = 0; i < P; i++) epsilon[s][i] = s >> i & 1 ? 1 : -1;
    for (int i = 0; i < P; i++) length += pow((double)theta[i] - (double)theta0[i], 2);
    for (int i = 0; i < N; i++) want += pow((double)f[i] - (double)y[i], 2) / 2 / N;
    const double ridge = 0.5 * 0.5 / sqrt(64);
    slg_tensor ft = slg_tensor_1d(f, SLG_F32, N), yt = slg_tensor_1d(y, SLG_F32, N);
    slg_tensor tt = slg_tensor_1d(theta, SLG_F32, P), t0 = slg_tensor_1d(theta0, SLG_F32, P);
    slg_tensor et = slg_tensor_2d(epsilon, SLG_F32, ALL, P), dt = slg_tensor_1d(d, SLG_F64, P);
    slg_perturbed_loss_out out = outputs();
    out.dtheta = &dt;
    OK(ctx, slg_perturbed_loss(ctx, &ft, &yt, &tt, &t0, &et, NULL, &o, &out));
    assert_true(fabs(out.value - (want + ridge / 2 * length)) <= 1e-12);
    for (int i = 0; i < P; i++)
        assert_true(fabs(d[i] - ridge * ((double)theta[i] - (double)theta0[i])) <= 1e-12);
    slg_ctx_free(ctx);
}

/* f linear in theta, so that its Jacobian is known. */
typedef struct linear {
    slg_ctx *ctx;
    const slg_perturbed_loss_opts *o;
    float jacobian[N][P], y[N], theta0[P], epsilon[S][P];
} linear;

static double linear_loss(const float *theta, void *arg)
{
    linear *l = arg;
    float f[N];
    double grad_f[N], exact[N];
    for (int n = 0; n < N; n++) {
        exact[n] = 0;
        for (int i = 0; i < P; i++) exact[n] += (double)l->jacobian[n][i] * (double)theta[i];
        f[n] = (float)exact[n];
    }
    slg_tensor ft = slg_tensor_1d(f, SLG_F32, N), yt = slg_tensor_1d(l->y, SLG_F32, N);
    slg_tensor tt = slg_tensor_1d(theta, SLG_F32, P), t0 = slg_tensor_1d(l->theta0, SLG_F32, P);
    slg_tensor et = slg_tensor_2d(l->epsilon, SLG_F32, S, P);
    slg_tensor dt = slg_tensor_1d(grad_f, SLG_F64, N);
    slg_perturbed_loss_out out = outputs();
    out.df = &dt;
    OK(l->ctx, slg_perturbed_loss(l->ctx, &ft, &yt, &tt, &t0, &et, NULL, l->o, &out));
    /* What rounding f took away. */
    for (int n = 0; n < N; n++) out.value += grad_f[n] * (exact[n] - (double)f[n]);
    return out.value;
}

static void test_gradient(void **state)
{
    (void)state;
    for (int32_t rule = 0; rule < 2; rule++) FOR_EACH_ISA(ctx, 1)
        {
            const slg_perturbed_loss_opts o = opts_of(rule, 0.9, 3);
            linear l = { .ctx = ctx, .o = &o };
            float f[N], theta[P], start[P], got[P];
            double df[N];
            randoms(N * P, 0.5f, l.jacobian[0]), randoms(P, 1, l.theta0), randoms(P, 1, theta);
            for (int i = 0; i < S * P; i++) l.epsilon[i / P][i % P] = below(2) ? 1 : -1;
            for (int n = 0; n < N; n++) {
                double sum = 0;
                for (int i = 0; i < P; i++) sum += (double)l.jacobian[n][i] * (double)theta[i];
                f[n] = (float)sum, l.y[n] = (float)uniform();
            }
            randoms(P, 1, start), memcpy(got, start, sizeof got); /* it is added to */
            slg_tensor ft = slg_tensor_1d(f, SLG_F32, N), yt = slg_tensor_1d(l.y, SLG_F32, N);
            slg_tensor tt = slg_tensor_1d(theta, SLG_F32, P);
            slg_tensor t0 = slg_tensor_1d(l.theta0, SLG_F32, P);
            slg_tensor et = slg_tensor_2d(l.epsilon, SLG_F32, S, P);
            slg_tensor ht = slg_tensor_1d(got, SLG_F32, P), dt = slg_tensor_1d(df, SLG_F64, N);
            slg_perturbed_loss_out out = outputs();
            out.df = &dt, out.dtheta = &ht;
            OK(ctx, slg_perturbed_loss(ctx, &ft, &yt, &tt, &t0, &et, NULL, &o, &out));
            for (int i = 0; i < P; i++) {
                double sum = (double)got[i] - (double)start[i];
                for (int n = 0; n < N; n++) sum += df[n] * (double)l.jacobian[n][i];
                got[i] = (float)sum;
            }
            gradcheck_result r = gradcheck(linear_loss, &l, theta, P, got, NULL);
            assert_true(gradcheck_ok(&r, 2e-5, "perturbed loss"));
        }
}

/*
 * Signs of the counter are those of the header, whatever the type of theta, the layout and the
 * number of threads; dtheta of float32 rounds that of float64.
 */
static void test_signs(void **state)
{
    (void)state;
    enum { LONG = 40000 };
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    const slg_rng rng = { 99, 5 };
    const slg_perturbed_loss_opts o = opts_of(SLG_GAP_FIRST_ORDER, 0.3, 100);
    float f[N], y[N];
    static double want[LONG], got[LONG];
    static float epsilon[2][LONG];
    randoms(N, 1, f);
    for (int i = 0; i < N; i++) y[i] = (float)uniform();
    for (int64_t s = 0; s < 2; s++)
        for (int64_t i = 0; i < LONG; i++) {
            const int64_t word = s * ((LONG + 63) / 64) + i / 64;
            const uint64_t bits = rng_number(rng.seed, rng.offset + (uint64_t)word);
            epsilon[s][i] = bits >> (i % 64) & 1 ? 1 : -1;
        }
    slg_tensor ft = slg_tensor_1d(f, SLG_F32, N), yt = slg_tensor_1d(y, SLG_F32, N);
    slg_tensor et = slg_tensor_2d(epsilon, SLG_F32, 2, LONG);
    for (int type = 0; type < 3; type++)
        for (int layout = 0; layout < 2; layout++) {
            tensor t = vector(types[type], LONG, layout ? COL_GAPS : CONTIGUOUS);
            tensor t0 = vector(types[type], LONG, layout ? COL_GAPS : CONTIGUOUS);
            double shift[2] = { 0 }, value = 0;
            for (int64_t i = 0; i < LONG; i++)
                put(&t, 0, i, normal()), put(&t0, 0, i, normal());
            for (int s = 0; s < 2; s++)
                for (int64_t i = 0; i < LONG; i++)
                    shift[s] += (double)epsilon[s][i] * (get(&t, 0, i) - get(&t0, 0, i));
            for (int32_t threads = 0; threads <= 8; threads += threads < 3 ? 1 : 5)
                FOR_EACH_ISA(ctx, threads ? threads : 1)
                {
                    double perturbed[2][N];
                    float narrow[LONG];
                    slg_tensor pt = slg_tensor_2d(perturbed, SLG_F64, 2, N);
                    slg_tensor dt = slg_tensor_1d(threads ? got : want, SLG_F64, LONG);
                    slg_tensor nt = slg_tensor_1d(narrow, SLG_F32, LONG);
                    slg_perturbed_loss_out out = outputs();
                    memset(dt.data, 0, sizeof got);
                    out.perturbed = &pt, out.dtheta = &dt;
                    OK(ctx, slg_perturbed_loss(ctx, &ft, &yt, &t.t, &t0.t, threads ? NULL : &et,
                                               &rng, &o, &out));
                    if (threads > 1) assert_true(out.value == value);
                    if (threads == 1) value = out.value;
                    if (threads) close_to(LONG, got, want, 1e-12);
                    for (int i = 0; i < 2 * N; i++) {
                        const double sum = (double)f[i % N] + 0.3 / sqrt(10) * shift[i / N];
                        assert_true(fabs(perturbed[i / N][i % N] - sum) <= 1e-11);
                    }
                    memset(narrow, 0, sizeof narrow);
                    out.perturbed = NULL, out.dtheta = &nt;
                    OK(ctx, slg_perturbed_loss(ctx, &ft, &yt, &t.t, &t0.t, threads ? NULL : &et,
                                               &rng, &o, &out));
                    for (int64_t i = 0; i < LONG; i++)
                        assert_true(narrow[i] == (float)((double *)dt.data)[i]);
                }
            release(&t), release(&t0);
        }
}

static void test_edges(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float theta[P], other[P], f[6] = { 500, -500, 0, 30, -30, 3e38f };
    float y[6] = { 1, 0, 0.5f, 0, 1, 0 };
    double loss[6], prediction[6], df[6], perturbed[6];
    randoms(P, 1, theta), memcpy(other, theta, sizeof theta);
    slg_tensor ft = slg_tensor_1d(f, SLG_F32, 6), yt = slg_tensor_1d(y, SLG_F32, 6);
    slg_tensor tt = slg_tensor_1d(theta, SLG_F32, P), t0 = slg_tensor_1d(other, SLG_F32, P);
    slg_tensor lt = slg_tensor_1d(loss, SLG_F64, 6), dt = slg_tensor_1d(df, SLG_F64, 6);
    slg_tensor pt = slg_tensor_1d(prediction, SLG_F64, 6);
    slg_tensor qt = slg_tensor_2d(perturbed, SLG_F64, 1, 6);
    const slg_rng rng = { 1, 0 };
    /* theta = theta0 with signs; S = 0, c_p = 0, no rows of epsilon without a generator. */
    for (int form = 0; form < 4; form++) {
        slg_perturbed_loss_opts o = opts_of(SLG_GAP_FIRST_ORDER, form == 2 ? 0 : 0.01, 100);
        slg_perturbed_loss_out out = outputs();
        slg_tensor none = slg_tensor_2d(NULL, SLG_F32, 0, P);
        o.signs = form != 1;
        if (form) randoms(P, 1, other);
        out.loss = &lt, out.prediction = &pt, out.df = &dt, out.perturbed = &qt;
        OK(ctx, slg_perturbed_loss(ctx, &ft, &yt, &tt, &t0, form == 3 ? &none : NULL,
                                   form ? NULL : &rng, &o, &out));
        for (int i = 0; i < 6; i++) assert_true(perturbed[i] == (double)f[i]);
        /* They keep their digits next to 0, and do not overflow. */
        const double e = exp(-500);
        assert_true(fabs(loss[0] - e) <= 1e-15 * e && fabs(loss[1] - e) <= 1e-15 * e);
        assert_true(fabs(df[0] * 6 + e) <= 1e-15 * e && fabs(df[1] * 6 - e) <= 1e-15 * e);
        assert_true(loss[2] == 0 && df[2] == 0 && prediction[2] == 0.5); /* y = q */
        assert_true(fabs(loss[3] - 30) <= 1e-12 && fabs(loss[4] - 30) <= 1e-12);
        assert_true(loss[5] == (double)3e38f && prediction[5] == 1 && df[5] * 6 == 1);
    }
    /* Predictions alone; no samples. */
    slg_perturbed_loss_out out = outputs();
    out.prediction = &pt;
    OK(ctx, slg_perturbed_loss(ctx, &ft, NULL, &tt, &t0, NULL, &rng, NULL, &out));
    assert_true(out.value == 0 && fabs(prediction[2] - 0.5) < 0.1);
    double d[P] = { 1, 2, 3 };
    slg_tensor nothing = slg_tensor_1d(NULL, SLG_F32, 0), ht = slg_tensor_1d(d, SLG_F64, P);
    out = outputs(), out.dtheta = &ht, out.value = 9;
    OK(ctx, slg_perturbed_loss(ctx, &nothing, &nothing, &tt, &t0, NULL, &rng, NULL, &out));
    assert_true(out.value == 0 && d[0] == 1 && d[2] == 3 && d[4] == 0);
    /* KL >= 2 (y - q)^2, slopes in [-1, 1]. */
    slg_perturbed_loss_opts o = opts_of(SLG_GAP_FIRST_ORDER, 0, 100);
    for (int trial = 0; trial < 200; trial++) {
        randoms(6, 10, f);
        for (int i = 0; i < 6; i++) y[i] = (float)uniform();
        out = outputs(), out.loss = &lt, out.prediction = &pt, out.df = &dt;
        OK(ctx, slg_perturbed_loss(ctx, &ft, &yt, &tt, &t0, NULL, NULL, &o, &out));
        for (int i = 0; i < 6; i++) {
            const double e = (double)y[i] - prediction[i];
            assert_true(loss[i] >= 2 * e * e - 1e-15 && fabs(df[i] * 6) <= 1);
            assert_true(fabs(df[i] * 6 + e) <= 1e-15);
        }
    }
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float f[N], y[N], theta[P], theta0[P], epsilon[S][P];
    double perturbed[S][N], prediction[N], loss[N], df[N], d[P];
    double *const outs[] = { perturbed[0], prediction, loss, df, d };
    const int sizes[] = { S * N, N, N, N, P };
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < sizes[i]; j++) outs[i][j] = -9;
    randoms(N, 1, f), randoms(P, 1, theta), randoms(P, 1, theta0),
        randoms(S * P, 1, epsilon[0]);
    for (int i = 0; i < N; i++) y[i] = 0.5f;
#define REFUSED(status, text, ...)                                                             \
    do {                                                                                       \
        slg_tensor ft = slg_tensor_1d(f, SLG_F32, N), yt = slg_tensor_1d(y, SLG_F32, N);       \
        slg_tensor tt = slg_tensor_1d(theta, SLG_F32, P);                                      \
        slg_tensor t0 = slg_tensor_1d(theta0, SLG_F32, P), *yp = &yt;                          \
        slg_tensor et = slg_tensor_2d(epsilon, SLG_F32, S, P), *ep = &et;                      \
        slg_tensor pt = slg_tensor_2d(perturbed, SLG_F64, S, N);                               \
        slg_tensor qt = slg_tensor_1d(prediction, SLG_F64, N);                                 \
        slg_tensor lt = slg_tensor_1d(loss, SLG_F64, N), dt = slg_tensor_1d(df, SLG_F64, N);   \
        slg_tensor ht = slg_tensor_1d(d, SLG_F64, P);                                          \
        slg_perturbed_loss_opts o = opts_of(SLG_GAP_FIRST_ORDER, 0.1, 100);                    \
        slg_perturbed_loss_out out = outputs();                                                \
        out.perturbed = &pt, out.prediction = &qt, out.loss = &lt, out.df = &dt;               \
        out.dtheta = &ht, out.value = -9;                                                      \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_perturbed_loss(ctx, &ft, yp, &tt, &t0, ep, NULL, &o, &out),       \
                         status);                                                              \
        assert_non_null(strstr(slg_ctx_message(ctx), text));                                   \
        assert_true(out.value == -9);                                                          \
    } while (0)
#define BAD(array, at, value, text)                                                            \
    do {                                                                                       \
        const float kept_ = (array)[at];                                                       \
        (array)[at] = value;                                                                   \
        REFUSED(SLG_ERR_RANGE, text, (void)0);                                                 \
        (array)[at] = kept_;                                                                   \
    } while (0)
    BAD(f, 2, NAN, "f[2]");
    BAD(theta, 3, INFINITY, "theta[3]");
    BAD(theta0, 1, NAN, "theta0[1]");
    BAD(epsilon[1], 1, NAN, "epsilon[8]");
    BAD(y, 4, 1.5f, "y[4] is 1.5");
    BAD(y, 4, -0.5f, "y[4]");
    BAD(y, 4, NAN, "y[4]");
    REFUSED(SLG_ERR_RANGE, "rule", o.rule = 2);
    REFUSED(SLG_ERR_RANGE, "signs", o.signs = -1);
    REFUSED(SLG_ERR_RANGE, "c_p", o.c_p = -1);
    REFUSED(SLG_ERR_RANGE, "c_p", o.c_p = NAN);
    REFUSED(SLG_ERR_RANGE, "width", o.width = 0);
    REFUSED(SLG_ERR_RANGE, "width", o.width = -1);
    REFUSED(SLG_ERR_OPTIONS, "reserved", o.reserved = 1);
    REFUSED(SLG_ERR_OPTIONS, "opts", o.size = 3);
    REFUSED(SLG_ERR_OPTIONS, "out.reserved", out.reserved = 1);
    REFUSED(SLG_ERR_NULL, "y is NULL", yp = NULL);
    REFUSED(SLG_ERR_NULL, "rng", ep = NULL; out.perturbed = NULL);
    REFUSED(SLG_ERR_SHAPE, "y", yt.shape[0] = N - 1);
    REFUSED(SLG_ERR_SHAPE, "theta0", t0.shape[0] = P - 1);
    REFUSED(SLG_ERR_SHAPE, "epsilon", et.shape[1] = P - 1);
    REFUSED(SLG_ERR_SHAPE, "out.perturbed", pt.shape[0] = S - 1);
    REFUSED(SLG_ERR_SHAPE, "out.dtheta", ht.shape[0] = N);
    REFUSED(SLG_ERR_SHAPE, "f", ft = slg_tensor_2d(f, SLG_F32, 1, N));
    REFUSED(SLG_ERR_DTYPE, "f", ft.dtype = SLG_I32);
    REFUSED(SLG_ERR_DTYPE, "out.loss", lt.dtype = SLG_BF16);
    REFUSED(SLG_ERR_STRIDE, "out.df", dt.stride[0] = 0);
    REFUSED(SLG_ERR_STRIDE, "out.df overlaps", dt.data = loss);
    REFUSED(SLG_ERR_STRIDE, "out.loss overlaps", lt = yt);
#undef BAD
#undef REFUSED
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < sizes[i]; j++) assert_true(outs[i][j] == -9);
    assert_int_equal(slg_perturbed_loss(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    slg_tensor ft = slg_tensor_1d(f, SLG_F32, N), tt = slg_tensor_1d(theta, SLG_F32, P);
    assert_int_equal(slg_perturbed_loss(ctx, &ft, NULL, &tt, &tt, NULL, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expectation), cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_signs),       cmocka_unit_test(test_edges),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
