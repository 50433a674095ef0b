/* Losses of targets, their gradients, and Armijo's search along them. */
#include "support/gradcheck.h"
#include "surrogate_test.h"

static const struct {
    int64_t n, m;
    double scale;
} shapes[] = { { 1, 1, 1 },   { 6, 4, 2 },     { 300, 1, 3 },
               { 9, 33, 80 }, { 2, 40000, 1 }, { 70, 10, 2 } };

static void judge(const tensor *grad, const double *want, int32_t dtype)
{
    const int64_t m = grad->t.shape[1];
    for (int64_t i = 0; i < grad->t.shape[0] * m; i++) {
        const double got = get(grad, i / m, i % m);
        /* The gradient's own relative precision, at confident labels as well. */
        const double slack = 2e-6 * fabs(want[i]) + rounding(dtype, want[i]) + 1e-36;
        if (!near(got, want[i], slack))
            fail_msg("element %d: %.9g, should be %.9g", (int)i, got, want[i]);
    }
}

static void test_values(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int32_t kind = 0; kind < 3; kind++)
        for (int64_t s = 0; s < COUNT(shapes); s++)
            for (int t = 0; t < 12; t++) {
                const int64_t n = shapes[s].n, m = shapes[s].m;
                const int32_t dtype = t % 3;
                tensor z = random_matrix(dtype, n, m, (enum layout)(t % 4), shapes[s].scale);
                tensor grad = matrix(dtype, n, m, (enum layout)(t / 3));
                tensor data = random_data(kind, t % 2 ? SLG_F32 : dtype, n, m);
                double *want = malloc((size_t)(n * m) * sizeof *want), got;
                assert_non_null(want);
                const double loss = whole_loss(kind, &z, NULL, 0, &data, want);
                OK(ctx, slg_target_loss(ctx, kind, &z.t, &data.t, &got, &grad.t));
                assert_true(near(got, loss, 2e-6 * loss + 1e-30));
                judge(&grad, want, dtype);
                assert_gaps_intact(&grad);
                OK(ctx, slg_target_loss(ctx, kind, &z.t, &data.t, NULL, &z.t)); /* in place */
                judge(&z, want, dtype);
                free(want), release(&z), release(&grad), release(&data);
            }
    (void)state;
}

static void test_same_bits(void **state)
{
    for (int32_t kind = 0; kind < 3; kind++) {
        tensor z = random_matrix(SLG_F32, 400, 301, CONTIGUOUS, 2);
        tensor data = random_data(kind, SLG_F32, 400, 301);
        tensor want = matrix(SLG_F32, 400, 301, CONTIGUOUS), got = matrix(SLG_F32, 400, 301, 0);
        double value = 0, now;
        for (int32_t threads = 1; threads <= 8; threads++) {
            slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
            OK(ctx, slg_target_loss(ctx, kind, &z.t, &data.t, &now, &got.t));
            if (threads == 1) value = now, memcpy(want.memory, got.memory, got.bytes);
            assert_true(now == value);
            assert_memory_equal(got.memory, want.memory, got.bytes);
            slg_ctx_free(ctx);
        }
        release(&z), release(&data), release(&want), release(&got);
    }
    (void)state;
}

typedef struct checked {
    slg_ctx *ctx;
    int32_t kind;
    const tensor *data;
} checked;

static double value_at(const float *x, void *arg)
{
    const checked *c = arg;
    const slg_tensor z = slg_tensor_2d(x, SLG_F32, 5, 6);
    double value;
    OK(c->ctx, slg_target_loss(c->ctx, c->kind, &z, &c->data->t, &value, NULL));
    return value;
}

static void test_gradient(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t kind = 0; kind < 3; kind++) {
        tensor data = random_data(kind, SLG_F32, 5, 6);
        float x[30], g[30];
        for (int i = 0; i < 30; i++) x[i] = (float)normal();
        const slg_tensor z = slg_tensor_2d(x, SLG_F32, 5, 6);
        slg_tensor grad = slg_tensor_2d(g, SLG_F32, 5, 6);
        OK(ctx, slg_target_loss(ctx, kind, &z, &data.t, NULL, &grad));
        checked c = { ctx, kind, &data };
        const gradcheck_result r = gradcheck(value_at, &c, x, 30, g, NULL);
        assert_true(gradcheck_ok(&r, 1e-4, "target loss"));
        release(&data);
    }
    slg_ctx_free(ctx);
    (void)state;
}

/* Types of data; strided labels. */
static void test_data(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16, SLG_I32, SLG_I64 };
    tensor z = random_matrix(SLG_F32, 9, 3, CONTIGUOUS, 2);
    double want = NAN, got;
    for (int64_t t = 0; t < COUNT(types); t++) {
        tensor y = matrix(types[t], 9, 3, (enum layout)(t % 4));
        for (int i = 0; i < 27; i++) put(&y, i / 3, i % 3, i % 2 ? 1 : -1);
        OK(ctx, slg_target_loss(ctx, SLG_TARGET_LOGISTIC, &z.t, &y.t, &got, NULL));
        if (t == 0) want = got;
        if (!near(got, want, 2e-6 * want)) fail_msg("%d: %.9g, %.9g", types[t], got, want);
        release(&y);
        if (types[t] != SLG_I64) continue;
        y = vector(SLG_I64, 9, COL_GAPS);
        for (int i = 0; i < 9; i++) put(&y, 0, i, i % 3);
        OK(ctx, slg_target_loss(ctx, SLG_TARGET_SOFTMAX, &z.t, &y.t, &got, NULL));
        release(&y);
    }
    release(&z);
    slg_ctx_free(ctx);
    (void)state;
}

static void expect_row(slg_ctx *ctx, const float *z, int32_t label, int64_t m, double loss,
                       const double *grad)
{
    const slg_tensor tz = slg_tensor_2d(z, SLG_F32, 1, m),
                     ty = slg_tensor_1d(&label, SLG_I32, 1);
    float g[8];
    slg_tensor tg = slg_tensor_2d(g, SLG_F32, 1, m);
    double got;
    OK(ctx, slg_target_loss(ctx, SLG_TARGET_SOFTMAX, &tz, &ty, &got, &tg));
    assert_true(near(got, loss, 1e-6 * fabs(loss)));
    for (int64_t j = 0; j < m; j++) {
        assert_true(near((double)g[j], grad[j], 1e-6 * fabs(grad[j])));
        assert_false(g[j] == 0 && signbit(g[j]));
    }
}

static void test_edges(void **state)
{
    const float inf = INFINITY, nan_ = NAN;
    const double dinf = (double)INFINITY, dnan = (double)NAN;
#define ROW(m, label, loss, z, ...)                                                            \
    expect_row(ctx, (const float[])z, label, m, loss, (const double[])__VA_ARGS__)
#define V(...) { __VA_ARGS__ }
    FOR_EACH_ISA(ctx, 1)
    {
        ROW(1, 0, 0, V(3), { 0 });
        ROW(1, 0, dinf, V(-inf), { 0 });
        ROW(3, 0, 10000, V(-5000, 5000, -5000), { -1, 1, 0 });
        ROW(3, 1, 0, V(-5000, 5000, -5000), { 0, 0, 0 });
        ROW(3, 0, log1p(exp(-30)), V(30, 0, -inf), { -exp(-30), exp(-30), 0 });
        ROW(3, 2, dinf, V(0, 0, -inf), { 0.5, 0.5, 0 });
        ROW(3, 1, dinf, V(-inf, -inf, -inf), { 0, 0, 0 });
        ROW(3, 1, dnan, V(0, 0, nan_), { dnan, dnan, dnan });
        ROW(3, 1, dnan, V(0, nan_, 0), { dnan, dnan, dnan });
        ROW(3, 1, dnan, V(inf, 0, 0), { dnan, dnan, dnan });
        ROW(3, 0, dnan, V(inf, 0, 0), { dnan, dnan, dnan });
        ROW(2, 0, 1e6, V(2e6f, 3e6f), { -1, 1 }); /* beyond the kernels' whole steps */
        double value = 7;
        const slg_tensor none = slg_tensor_2d(NULL, SLG_F32, 0, 3),
                         labels = slg_tensor_1d(NULL, SLG_I32, 0);
        OK(ctx, slg_target_loss(ctx, SLG_TARGET_SOFTMAX, &none, &labels, &value, NULL));
        assert_true(value == 0);
        value = 7;
        OK(ctx, slg_target_loss(ctx, SLG_TARGET_SQUARED, &none, &none, &value, NULL));
        assert_true(value == 0);
    }
    (void)state;
}

/* ---- Search ------------------------------------------------------------------------------ */

static void test_search(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int32_t kind = 0; kind < 3; kind++)
        for (int trial = 0; trial < 12; trial++) {
            const int64_t n = trial % 2 ? 40 : 7, m = trial % 3 ? 6 : 1;
            tensor z = random_matrix(SLG_F32, n, m, (enum layout)(trial % 4), 2),
                   g = matrix(SLG_F32, n, m, (enum layout)(trial / 4));
            tensor data = random_data(kind, SLG_F32, n, m);
            slg_armijo_opts o;
            slg_target_search_out out = { .size = sizeof out };
            slg_armijo_opts_init(&o, sizeof o);
            o.c = 0.4 + 0.02 * trial;
            OK(ctx, slg_target_loss(ctx, kind, &z.t, &data.t, NULL, &g.t));
            const double step = pow(2, trial - 3.0),
                         at = whole_loss(kind, &z, NULL, 0, &data, NULL);
            double s = step * o.expand, square = 0, margin = INFINITY, loss = 0;
            for (int64_t i = 0; i < n * m; i++)
                square += get(&g, i / m, i % m) * get(&g, i / m, i % m);
            int64_t trials = 0;
            for (; trials < 100; s *= o.shrink) {
                trials++;
                loss = whole_loss(kind, &z, &g, s, &data, NULL);
                const double most = at - o.c * s * square;
                margin = fmin(margin, fabs(loss - most) / fmax(1, at));
                if (loss <= most) break;
            }
            OK(ctx, slg_target_search(ctx, kind, &z.t, &data.t, &g.t, step, &o, &out));
            assert_true(near(out.loss_at, at, 1e-6 * at));
            if (margin > 1e-5) { /* else rounding decides */
                assert_int_equal(out.trials, trials);
                assert_int_equal(out.reason, SLG_SEARCH_ACCEPTED);
                assert_true(near(out.step, fmin(fmax(s, 1e-4), 1e4), 1e-12 * s));
                assert_true(near(out.loss, loss, 2e-6 * (loss + 1e-3)));
            }
            release(&z), release(&g), release(&data);
        }
    (void)state;
}

static slg_target_search_out search(slg_ctx *ctx, const float *z, const float *g, double step,
                                    const slg_armijo_opts *o)
{
    static const float y[2] = { 1, -1 };
    const slg_tensor tz = slg_tensor_2d(z, SLG_F32, 2, 1), tg = slg_tensor_2d(g, SLG_F32, 2, 1),
                     ty = slg_tensor_2d(y, SLG_F32, 2, 1);
    slg_target_search_out out = { .size = sizeof out };
    OK(ctx, slg_target_search(ctx, SLG_TARGET_SQUARED, &tz, &ty, &tg, step, o, &out));
    return out;
}

static void test_search_edges(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const float z[2] = { 3, 3 }, up[2] = { -2, -4 }, none[2] = { 0, 0 }, bad[2] = { NAN, 0 };
    const float huge[2] = { 3e38f, 3e38f };
    slg_target_search_out out = search(ctx, z, none, 2, NULL); /* G = 0: at once */
    assert_true(out.reason == SLG_SEARCH_ACCEPTED && out.trials == 1 && out.step == 3.6);
    assert_true(out.loss == out.loss_at && out.loss_at == 10);
    out = search(ctx, z, up, 2, NULL); /* uphill: the smallest step */
    assert_true(out.reason == SLG_SEARCH_EXHAUSTED && out.trials == 100);
    assert_true(near(out.step, fmax(1e-4, 3.6 * pow(0.9, 100)), 1e-12));
    out = search(ctx, z, bad, 2, NULL);
    assert_true(out.reason == SLG_SEARCH_NOT_FINITE && out.trials == 0 && out.step == 2);
    out = search(ctx, bad, up, 1e9, NULL);
    assert_true(out.reason == SLG_SEARCH_NOT_FINITE && out.step == 1e4);
    out = search(ctx, huge, up, 1, NULL); /* the loss is 9e76: a double */
    assert_true(out.reason == SLG_SEARCH_EXHAUSTED || out.reason == SLG_SEARCH_ACCEPTED);
    slg_armijo_opts o;
    slg_armijo_opts_init(&o, sizeof o);
    o.max_trials = 3;
    out = search(ctx, z, up, 2, &o);
    assert_true(out.trials == 3 && near(out.step, 3.6 * 0.729, 1e-12));
    slg_armijo_opts_init_inner(&o, sizeof o);
    assert_true(o.step_min == 1e-6 && o.step_max == 1e6 && o.c == 0.5);
    slg_ctx_free(ctx);
    (void)state;
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float z[6] = { 1, 2, 3, 4, 5, 6 }, g[6] = { 7 }, y[6] = { 1, -1, 1, -1, 1, 1 };
    int32_t labels[3] = { 0, 1, 1 };
    slg_tensor tz = slg_tensor_2d(z, SLG_F32, 3, 2), tg = slg_tensor_2d(g, SLG_F32, 3, 2),
               ty = slg_tensor_2d(y, SLG_F32, 3, 2), tl = slg_tensor_1d(labels, SLG_I32, 3);
    const slg_tensor flat = slg_tensor_1d(z, SLG_F32, 6),
                     other = slg_tensor_2d(y, SLG_F32, 2, 3);
    slg_tensor off = slg_tensor_2d(z + 1, SLG_F32, 2, 2), shared = tg;
    slg_tensor pair = slg_tensor_2d(z, SLG_F32, 2, 2), pair_y = slg_tensor_2d(y, SLG_F32, 2, 2);
    shared.stride[0] = 0;
    double value = 3;
#define REFUSED(code, kind, target, data, grad)                                                \
    do {                                                                                       \
        assert_int_equal(slg_target_loss(ctx, kind, target, data, &value, grad), code);        \
        assert_true(value == 3 && g[0] == 7 && slg_ctx_message(ctx)[0] != 0);                  \
    } while (0)
    REFUSED(SLG_ERR_RANGE, 3, &tz, &ty, &tg);
    REFUSED(SLG_ERR_RANGE, -1, &tz, &ty, &tg);
    REFUSED(SLG_ERR_NULL, 0, NULL, &ty, &tg);
    REFUSED(SLG_ERR_NULL, 0, &tz, NULL, &tg);
    REFUSED(SLG_ERR_SHAPE, 0, &flat, &ty, &tg);
    REFUSED(SLG_ERR_SHAPE, 0, &tz, &other, &tg);
    REFUSED(SLG_ERR_DTYPE, 2, &tz, &ty, &tg);
    REFUSED(SLG_ERR_SHAPE, 2, &pair, &tl, &tg);
    REFUSED(SLG_ERR_DTYPE, 0, &tl, &ty, &tg);
    REFUSED(SLG_ERR_STRIDE, 0, &tz, &ty, &shared);
    REFUSED(SLG_ERR_STRIDE, 0, &pair, &pair_y, &off);
    REFUSED(SLG_ERR_STRIDE, 1, &tz, &ty, &ty);
    labels[1] = 2;
    REFUSED(SLG_ERR_RANGE, 2, &tz, &tl, &tg);
    labels[1] = -1;
    REFUSED(SLG_ERR_RANGE, 2, &tz, &tl, &tg);
    y[4] = 0.5f;
    REFUSED(SLG_ERR_RANGE, 1, &tz, &ty, &tg);
    slg_target_search_out out = { .size = sizeof out };
    slg_armijo_opts o;
    const double nan_ = (double)NAN, inf = (double)INFINITY;
#define SEARCH_REFUSED(code, last, field, number)                                              \
    do {                                                                                       \
        slg_armijo_opts_init(&o, sizeof o);                                                    \
        o.field = number;                                                                      \
        assert_int_equal(slg_target_search(ctx, 0, &tz, &ty, &tg, last, &o, &out), code);      \
        assert_true(out.step == 0);                                                            \
    } while (0)
    SEARCH_REFUSED(SLG_ERR_RANGE, 0, c, 0.5);
    SEARCH_REFUSED(SLG_ERR_RANGE, inf, c, 0.5);
    SEARCH_REFUSED(SLG_ERR_RANGE, 1, c, 1);
    SEARCH_REFUSED(SLG_ERR_RANGE, 1, c, nan_);
    SEARCH_REFUSED(SLG_ERR_RANGE, 1, expand, 0.9);
    SEARCH_REFUSED(SLG_ERR_RANGE, 1, shrink, 1);
    SEARCH_REFUSED(SLG_ERR_RANGE, 1, step_min, 0);
    SEARCH_REFUSED(SLG_ERR_RANGE, 1, step_max, 1e-5);
    SEARCH_REFUSED(SLG_ERR_RANGE, 1, max_trials, 0);
    SEARCH_REFUSED(SLG_ERR_RANGE, 1, max_trials, 1001);
    assert_int_equal(slg_target_search(ctx, 0, &tz, &ty, NULL, 1, NULL, &out), SLG_ERR_NULL);
    assert_int_equal(slg_target_search(ctx, 0, &tz, &ty, &tg, 1, NULL, NULL), SLG_ERR_NULL);
    out.size = 4;
    assert_int_equal(slg_target_search(ctx, 0, &tz, &ty, &tg, 1, NULL, &out), SLG_ERR_OPTIONS);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),       cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_gradient),     cmocka_unit_test(test_data),
        cmocka_unit_test(test_edges),        cmocka_unit_test(test_search),
        cmocka_unit_test(test_search_edges), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
