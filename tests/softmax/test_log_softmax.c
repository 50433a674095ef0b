/*
 * slg_log_softmax and slg_logsumexp: against long double at all lengths, spreads and
 * temperatures; masks, NaN, infinities; types and layouts; and that they agree with
 * slg_softmax.
 */
#include "softmax_test.h"

/* Both functions on x: y and lse of the one, lse in both types of the other. */
static void check_both(slg_ctx *ctx, const array *x, double t, int32_t y_type,
                       enum layout layout)
{
    const slg_softmax_opts o = options(t, SLG_ALGORITHM_AUTO);
    const int64_t none = 1, *lead = x->t.ndim > 1 ? x->t.shape : &none;
    const int32_t dims = x->t.ndim > 1 ? x->t.ndim - 1 : 1;
    array y = new_array(y_type, x->t.ndim, x->t.shape, layout);
    array lse = new_array(SLG_F64, dims, lead, layout),
          narrow = new_array(SLG_F32, dims, lead, layout);
    ok(slg_log_softmax(ctx, &x->t, &o, &y.t, &narrow.t));
    check_softmax(x, t, &y, &narrow, true, 0, "log-softmax");
    ok(slg_logsumexp(ctx, &x->t, &o, &lse.t));
    check_softmax(x, t, NULL, &lse, true, 0, "logsumexp");
    ok(slg_logsumexp(ctx, &x->t, &o, &narrow.t));
    check_softmax(x, t, NULL, &narrow, true, 0, "logsumexp");
    free_array(&y), free_array(&lse), free_array(&narrow);
}

static void test_lengths(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const double sds[] = { 1, 3, 30, 1e4, 1e38 };
    static const double temperatures[] = { 1, 0.03, 7, 100, 1e-30, 1e-10, 1e10, 1e30 };
    for (size_t s = 0; s < COUNT(sds); s++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int64_t n = 1; n <= 300; n += 1 + (int64_t)(2 * t)) {
                array x = random_array(SLG_F32, 1, &n, DENSE, sds[s], 0);
                if (n % 4 == 3) put(&x, 0, n / 2, -INFINITY);
                check_both(ctx, &x, temperatures[t], SLG_F32, DENSE);
                free_array(&x);
            }
    slg_ctx_free(ctx);
}

static void test_offsets(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const double offsets[] = { 1e5, -1e5, 1e6, -3e6, 1e20, -3e38 },
                        temperatures[] = { 1, 0.03, 7, 3e4 };
    for (size_t i = 0; i < COUNT(offsets); i++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int64_t n = 1; n <= 100; n += 9) {
                array x = random_array(SLG_F32, 1, &n, DENSE, 3 * fmax(1, temperatures[t]),
                                       offsets[i]);
                check_both(ctx, &x, temperatures[t], SLG_F32, DENSE);
                free_array(&x);
            }
    slg_ctx_free(ctx);
}

static void test_paths(void **state)
{
    const int32_t isa = *(const int32_t *)*state;
    slg_ctx *ctxs[] = { new_ctx(isa, 1), without_caches(new_ctx(isa, 8)) };
    static const int64_t shapes[][2] = {
        { 5, 100 }, { 400, 1000 }, { 30, 20001 }, { 3, 100003 }
    };
    for (size_t s = 0; s < COUNT(shapes); s++) {
        array x = random_array(SLG_F32, 2, shapes[s], OFF_LINE, 5, 0);
        put(&x, 1, 7, NAN);
        put(&x, 2, shapes[s][1] - 1, INFINITY);
        for (int64_t c = 0; c < shapes[s][1]; c += 2) put(&x, 0, c, -INFINITY);
        for (int64_t c = 0; shapes[s][0] > 4 && c < shapes[s][1]; c++)
            put(&x, 3, c, -INFINITY), put(&x, 4, c, 5e5 + get(&x, 4, c));
        for (int c = 0; c < 2; c++) check_both(ctxs[c], &x, 1, SLG_F32, c ? OFF_LINE : DENSE);
        free_array(&x);
    }
    for (int c = 0; c < 2; c++) slg_ctx_free(ctxs[c]);
}

/* Rows of several segments (ROW_SEGMENT), one of which is out of the ordinary. */
static void test_segments(void **state)
{
    const int32_t isa = *(const int32_t *)*state;
    slg_ctx *ctxs[] = { new_ctx(isa, 1), new_ctx(isa, 3) };
    static const float odd[] = { 1e6f, -1e6f, 3e38f, NAN, INFINITY, -INFINITY, 50 };
    const int64_t n = 100001, starts[] = { 0, 32768, 65536, 98304 };
    for (size_t v = 0; v < COUNT(odd); v++)
        for (int where = 0; where < 4; where++)
            for (int all = 0; all < 2; all++) { /* a whole segment, or one class of it */
                array x = new_1d(SLG_F32, n);
                float *p = x.t.data;
                for (int64_t i = 0; i < n; i++) p[i] = (float)(4 * uniform());
                const int64_t end = where < 3 ? starts[where + 1] : n;
                for (int64_t i = starts[where]; i < (all ? end : starts[where] + 1); i++)
                    p[all ? i : (starts[where] + end) / 2] = odd[v];
                for (int c = 0; c < 2; c++) {
                    double lse = NAN;
                    slg_tensor tl = slg_tensor_1d(&lse, SLG_F64, 1);
                    ok(slg_logsumexp(ctxs[c], &x.t, NULL, &tl));
                    const double want = truth_of(&x, 0, 1).lse;
                    assert_near(lse, want, lse_error(SLG_F64, want), "%g in segment %d",
                                (double)odd[v], where);
                }
                free_array(&x);
            }
    for (int c = 0; c < 2; c++) slg_ctx_free(ctxs[c]);
}

static void test_special_values(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const float values[] = { -INFINITY, NAN, INFINITY, 0.0f, 1e-40f, 3.4e38f, -3.4e38f };
    static const int64_t lengths[] = { 1, 2, 16, 17, 65, 300, 2049 };
    static const double temperatures[] = { 1, 1e-10, 2, 1e10 };
    for (size_t v = 0; v < COUNT(values); v++)
        for (size_t l = 0; l < COUNT(lengths); l++)
            for (int where = 0; where < 7; where++) {
                const int64_t n = lengths[l], at[] = { 0, n / 2, n - 1, n - n % 16 };
                array x = random_array(SLG_F32, 2, (const int64_t[]){ 3, n }, DENSE, 3, 0);
                if (where < 4 && at[where] < n) put(&x, 1, at[where], (double)values[v]);
                for (int64_t c = 0; where >= 4 && c < n; c++) /* all; all but one; half */
                    if (where == 4 || (where == 5 && c != n / 2) || (where == 6 && c % 2))
                        put(&x, 1, c, (double)values[v]);
                check_both(ctx, &x, temperatures[(where + (int)v) % 4], SLG_F32, GAPS);
                free_array(&x);
            }
    slg_ctx_free(ctx);
}

/* Differences beyond FLT_MAX, and ties: exact to the last bit of what float32 can say. */
static void test_end_of_range(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    const float x[] = { 3e38f, -3e38f, 3e38f, -INFINITY };
    float y[4];
    double lse = NAN;
    slg_tensor tx = slg_tensor_1d(x, SLG_F32, 4), ty = slg_tensor_1d(y, SLG_F32, 4);
    slg_tensor tl = slg_tensor_1d(&lse, SLG_F64, 1);
    for (double t = 0.5; t < 5; t *= 2) {
        const slg_softmax_opts o = options(t, SLG_ALGORITHM_AUTO);
        ok(slg_log_softmax(ctx, &tx, &o, &ty, &tl));
        assert_near((double)y[0], -log(2), 1e-6, "tie");
        assert_true(y[0] == y[2] && y[3] == -INFINITY);
        double want = 2 * (double)x[1] / t;
        assert_near((double)y[1], want < -(double)FLT_MAX ? -INFINITY : want, 1e-6 * fabs(want),
                    "T %g", t);
        assert_near(lse, (double)x[0] / t, 1e-15 * fabs(lse), "T %g", t);
    }
    slg_ctx_free(ctx);
}

static void test_long_rows(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int bits = 20; bits <= 24; bits += 4) {
        const size_t n = (size_t)1 << bits;
        float *x = malloc(n * sizeof *x);
        double lse[2];
        long double all = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = (float)(6 * (uniform() + uniform() + uniform() - 1.5));
            all += (long double)exp((double)x[i]);
        }
        slg_tensor tx = slg_tensor_1d(x, SLG_F32, (int64_t)n);
        slg_tensor tl = slg_tensor_1d(lse, SLG_F64, 1),
                   second = slg_tensor_1d(lse + 1, SLG_F64, 1);
        ok(slg_logsumexp(ctx, &tx, NULL, &tl));
        assert_near(lse[0], (double)logl(all), 7e-7, "2^%d", bits);
        float *y = malloc(n * sizeof *y);
        slg_tensor ty = slg_tensor_1d(y, SLG_F32, (int64_t)n);
        ok(slg_log_softmax(ctx, &tx, NULL, &ty, &second));
        assert_true(lse[1] == lse[0]);
        for (size_t i = 0; i < n; i++) {
            double want = (double)x[i] - (double)logl(all);
            if (i % 64 == 0)
                assert_near((double)y[i], want, 4e-6 + 1e-6 * fabs(want), "2^%d", bits);
        }
        free(x), free(y);
    }
    slg_ctx_free(ctx);
}

static void test_types_and_layouts(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    static const struct {
        int32_t ndim;
        int64_t shape[4];
    } shapes[] = {
        { 1, { 37 } },          { 2, { 3, 67 } },   { 3, { 2, 3, 21 } },
        { 4, { 2, 2, 3, 70 } }, { 2, { 2, 2500 } },
    };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int in = 0; in < 3; in++)
            for (int out = 0; out < 3; out++)
                for (int layout = 0; layout < LAYOUTS; layout++) {
                    array x = random_array(types[in], shapes[s].ndim, shapes[s].shape,
                                           (enum layout)layout, 4, 0);
                    put(&x, 0, 3, -INFINITY);
                    check_both(ctx, &x, layout % 2 ? 1 : 0.7, types[out],
                               (enum layout)((layout * 3 + out) % LAYOUTS));
                    array z = new_array(types[in], shapes[s].ndim, shapes[s].shape,
                                        (enum layout)layout);
                    ok(slg_log_softmax(ctx, &x.t, NULL, &z.t, NULL));
                    ok(slg_log_softmax(ctx, &x.t, NULL, &x.t, NULL));
                    assert_memory_equal(x.memory, z.memory, x.bytes);
                    free_array(&x), free_array(&z);
                }
    slg_ctx_free(ctx);
}

static void test_agrees_with_softmax(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    enum { N = 2500 };
    static float x[N], y[N], logs[N];
    for (int64_t n = 1; n <= N; n = n * 2 + 1)
        for (double t = 0.1; t < 200; t *= 9) {
            const slg_softmax_opts o = options(t, SLG_ALGORITHM_AUTO);
            fill(x, (size_t)n, 3, 0);
            slg_tensor tx = slg_tensor_1d(x, SLG_F32, n), ty = slg_tensor_1d(y, SLG_F32, n);
            slg_tensor tl = slg_tensor_1d(logs, SLG_F32, n);
            ok(slg_softmax(ctx, &tx, &o, &ty, NULL));
            ok(slg_log_softmax(ctx, &tx, &o, &tl, NULL));
            for (int64_t i = 0; i < n; i++)
                if (y[i] > 0)
                    assert_near((double)logs[i], log((double)y[i]),
                                5e-6 + 2e-6 * fabs((double)logs[i]), "T %g", t);
        }
    slg_ctx_free(ctx);
}

static void test_none(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    float lse[3] = { 1, 2, 3 };
    slg_tensor none = slg_tensor_2d(NULL, SLG_F32, 3, 0), tl = slg_tensor_1d(lse, SLG_F32, 3);
    ok(slg_logsumexp(ctx, &none, NULL, &tl));
    for (int i = 0; i < 3; i++) assert_true(lse[i] == -INFINITY);
    memset(lse, 0, sizeof lse);
    ok(slg_log_softmax(ctx, &none, NULL, &none, &tl));
    for (int i = 0; i < 3; i++) assert_true(lse[i] == -INFINITY);
    none = slg_tensor_2d(NULL, SLG_F32, 0, 3), tl = slg_tensor_1d(NULL, SLG_F32, 0);
    ok(slg_logsumexp(ctx, &none, NULL, &tl));
    ok(slg_log_softmax(ctx, &none, NULL, &none, &tl));
    none = slg_tensor_2d(NULL, SLG_F32, INT64_C(1) << 60, 0);
    ok(slg_log_softmax(ctx, &none, NULL, &none, NULL));
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_lengths),
        EACH_ISA(test_offsets),
        EACH_ISA(test_paths),
        EACH_ISA(test_segments),
        EACH_ISA(test_special_values),
        EACH_ISA(test_end_of_range),
        EACH_ISA(test_long_rows),
        EACH_ISA(test_types_and_layouts),
        EACH_ISA(test_agrees_with_softmax),
        EACH_ISA(test_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
