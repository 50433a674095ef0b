/*
 * slg_softmax: every path and algorithm against long double; masks, NaN, infinities; types,
 * layouts, in place; the log-sum-exp beside it; what softmax is invariant to.
 */
#include "softmax_test.h"

static const char *const algorithms[] = { "auto", "two-pass", "recompute", "reload" };

/* The two-pass form reduces x itself: its error grows with |x / T| (ext_exp in bounds.h). */
static double extra_error(int algorithm, double largest)
{
    return algorithm == SLG_TWO_PASS && largest < 0x1p21 ? 2.5e-12 * largest : 0;
}

static double largest_of(const float *x, size_t n, double t)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)x[i]) / t);
    return largest;
}

/* ---- Accuracy ---------------------------------------------------------------------------- */

static void one_row(slg_ctx *ctx, const float *data, int64_t n, double t)
{
    array x = new_1d(SLG_F32, n), y = new_1d(SLG_F32, n), lse = new_1d(SLG_F64, 1);
    memcpy(x.t.data, data, (size_t)n * sizeof *data);
    for (int a = 0; a < 4; a++) {
        const slg_softmax_opts o = options(t, a);
        ok(slg_softmax(ctx, &x.t, a == 0 && t == 1 ? NULL : &o, &y.t, a % 2 ? &lse.t : NULL));
        check_softmax(&x, t, &y, NULL, false, extra_error(a, largest_of(data, (size_t)n, t)),
                      algorithms[a]);
        if (a % 2)
            check_softmax(&x, t, NULL, a == SLG_TWO_PASS ? NULL : &lse, false, 0,
                          algorithms[a]);
    }
    free_array(&x), free_array(&y), free_array(&lse);
}

static void test_lengths(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const double sds[] = { 1, 3, 30, 1e4, 1e38 }, temperatures[] = { 1, 0.03, 7, 100 };
    float x[300];
    for (size_t s = 0; s < COUNT(sds); s++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int64_t n = 1; n <= 300; n += 1 + (int64_t)t) {
                fill(x, (size_t)n, sds[s], 0);
                one_row(ctx, x, n, temperatures[t]);
            }
    slg_ctx_free(ctx);
}

static void test_offsets(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const double offsets[] = {
        1e5, -1e5, 1e6, -1e6, 2097140, -2097140, 3e6, -3e6, 1e20
    };
    static const double temperatures[] = { 1, 0.03, 7, 100, 1e-20, 1e20 };
    float x[150];
    for (size_t i = 0; i < COUNT(offsets); i++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int64_t n = 1; n <= 150; n += 5) {
                fill(x, (size_t)n, 3 * fmax(1, temperatures[t]), offsets[i]);
                one_row(ctx, x, n, temperatures[t]);
            }
    slg_ctx_free(ctx);
}

/* Values that are hard on the reference of a row: it starts with the first ones. */
static void test_shapes_of_rows(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    enum { N = 9000 };
    static float x[N];
    for (int kind = 0; kind < 8; kind++)
        for (int64_t n = 1; n <= N; n = n < 130 ? n + 9 : n * 3) {
            for (int64_t i = 0; i < n; i++) {
                double u = (double)i / (double)n;
                const double v[] = {
                    2.5,                                 /* all the same */
                    400 * u - 200,                       /* rising */
                    200 - 400 * u,                       /* falling */
                    i == n - 1 ? 60 : normal(),          /* the maximum is last */
                    i == n / 2 ? 1e6 : -1e6,             /* one alone */
                    i < 3000 ? (double)-INFINITY : -500, /* a masked start, then far down */
                    i < 3000 ? 200 : normal(),           /* the rest does not count */
                    i % 2 ? 89000 + 100 * u : 92000 + u, /* around the end of whole steps */
                };
                x[i] = (float)v[kind];
            }
            one_row(ctx, x, n, 1);
        }
    slg_ctx_free(ctx);
}

/* Shapes that take each way through softmax.c, with and without lse, with all kinds of rows. */
static void test_paths(void **state)
{
    const int32_t isa = *(const int32_t *)*state;
    slg_ctx *ctxs[] = { new_ctx(isa, 1), new_ctx(isa, 8), without_caches(new_ctx(isa, 1)),
                        without_caches(new_ctx(isa, 3)) };
    static const int64_t shapes[][2] = {
        { 7, 100 },   { 300, 100 }, { 100, 255 }, { 61, 257 },  { 40, 3001 },
        { 21, 4096 }, { 17, 9003 }, { 3, 40000 }, { 2, 70001 },
    };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int variant = 0; variant < 4; variant++) {
            const int64_t rows = shapes[s][0], cols = shapes[s][1];
            const bool want_lse = variant & 1, other = variant & 2;
            array x = new_2d(SLG_F32, rows, cols, want_lse ? OFF_LINE : DENSE);
            array y = new_2d(SLG_F32, rows, cols, other ? OFF_LINE : variant ? GAPS : DENSE);
            array lse = new_1d(SLG_F32, rows);
            for (int64_t r = 0; r < rows; r++) {
                float *p = element(&x.t, r, 0);
                for (int64_t c = 0; c < cols; c++) p[c] = (float)(6 * uniform() - 3);
                if (r % 5 == 1) p[cols / 3] = NAN;
                if (r % 5 == 2) p[cols - 1] = INFINITY;
                if (r % 7 == 3)
                    for (int64_t c = 0; c < cols; c++) p[c] = -INFINITY;
                if (r % 7 == 4)
                    for (int64_t c = 0; c < cols; c++) p[c] += 3e5f;
                if (r % 3 == 0)
                    for (int64_t c = r % 2; c < cols; c += 2) p[c] = -INFINITY;
            }
            slg_softmax_opts o = options(1, SLG_ALGORITHM_AUTO);
            o.reread = other;
            for (size_t c = 0; c < COUNT(ctxs); c++) {
                memset(y.memory, FILL, y.bytes);
                ok(slg_softmax(ctxs[c], &x.t, other ? &o : NULL, &y.t,
                               want_lse ? &lse.t : NULL));
                check_softmax(&x, 1, &y, want_lse ? &lse : NULL, false, 0, "paths");
            }
            array z = new_2d(SLG_F32, rows, cols, want_lse ? OFF_LINE : DENSE);
            memcpy(z.memory, x.memory, x.bytes);
            ok(slg_softmax(ctxs[2], &z.t, NULL, &z.t, want_lse ? &lse.t : NULL));
            check_softmax(&x, 1, &z, want_lse ? &lse : NULL, false, 0, "paths, in place");
            free_array(&x), free_array(&y), free_array(&z), free_array(&lse);
        }
    for (size_t c = 0; c < COUNT(ctxs); c++) slg_ctx_free(ctxs[c]);
}

/* Errors do not grow with the length. */
static void test_long_rows(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int bits = 20; bits <= 24; bits += 4) {
        const size_t n = (size_t)1 << bits;
        float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
        double lse = 0, sum = 0;
        for (size_t i = 0; i < n; i++) /* normal enough, and fast */
            x[i] = (float)(6 * (uniform() + uniform() + uniform() - 1.5));
        slg_tensor tx = slg_tensor_1d(x, SLG_F32, (int64_t)n),
                   ty = slg_tensor_1d(y, SLG_F32, (int64_t)n);
        slg_tensor tl = slg_tensor_1d(&lse, SLG_F64, 1);
        long double all = 0;
        for (size_t i = 0; i < n; i++) all += (long double)exp((double)x[i]);
        const double inv = (double)(1 / all);
        const double want = (double)logl(all);
        for (int a = 0; a < (bits == 20 ? 4 : 1); a++) {
            const slg_softmax_opts o = options(1, a);
            ok(slg_softmax(ctx, &tx, &o, &ty, &tl));
            assert_near(lse, want, lse_error(SLG_F64, want), "2^%d %s", bits, algorithms[a]);
            sum = 0;
            for (size_t i = 0; i < n; i++) {
                double p = exp((double)x[i]) * inv;
                sum += (double)y[i];
                if (!(fabs((double)y[i] - p) <= 1e-6 * p))
                    fail_msg("2^%d %s: %g at %zu, should be %g", bits, algorithms[a],
                             (double)y[i], i, p);
            }
            assert_near(sum, 1, 1e-6, "sum of 2^%d %s", bits, algorithms[a]);
        }
        free(x), free(y);
    }
    slg_ctx_free(ctx);
}

/* The same value over and over is what float32 sums bear least. */
static void test_flat_rows(void **state)
{
    slg_ctx *ctxs[] = { ctx_of(state), without_caches(ctx_of(state)) };
    static const int64_t lengths[] = { 700, 2048, 32768, 100000, 400000 };
    float *x = malloc(400000 * sizeof *x), *y = malloc(400000 * sizeof *y);
    for (int round = 0; round < 40; round++)
        for (size_t l = 0; l < COUNT(lengths); l++) {
            const int64_t n = lengths[l];
            const slg_softmax_opts o = options(round % 3 ? 1 : 0.7, round % 4);
            const float value = (float)(20 * uniform() - 10);
            slg_ctx *ctx = ctxs[round / 4 % 2];
            double lse = NAN;
            if (n > 50000 && round > 15) continue;
            for (int64_t i = 0; i < n; i++) x[i] = value;
            slg_tensor tx = slg_tensor_1d(x, SLG_F32, n), ty = slg_tensor_1d(y, SLG_F32, n),
                       tl = slg_tensor_1d(&lse, SLG_F64, 1);
            ok(slg_softmax(ctx, &tx, &o, &ty, round % 2 ? &tl : NULL));
            for (int64_t i = 0; i < n; i++) assert_true(y[i] == y[0]);
            assert_near((double)y[0] * (double)n, 1, 1e-6, "%s T %g, %d times %a",
                        algorithms[round % 4], o.temperature, (int)n, (double)value);
            ok(slg_logsumexp(ctx, &tx, &o, &tl));
            assert_near(lse, (double)value / o.temperature + log((double)n), 7e-7,
                        "%d times %a", (int)n, (double)value);
        }
    free(x), free(y);
    slg_ctx_free(ctxs[0]), slg_ctx_free(ctxs[1]);
}

/* ---- Values that are no numbers ---------------------------------------------------------- */

/* Three rows; the middle one gets `value` at first, middle or last, or everywhere but there. */
static void test_special_values(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const float values[] = { -INFINITY, NAN,    -NAN,    INFINITY, 0.0f,
                                    -0.0f,     1e-40f, 3.4e38f, -3.4e38f };
    static const int64_t lengths[] = { 1, 2, 5, 16, 17, 64, 65, 100, 300, 2049, 5000 };
    for (size_t v = 0; v < COUNT(values); v++)
        for (size_t l = 0; l < COUNT(lengths); l++)
            for (int where = 0; where < 8; where++) {
                const int64_t n = lengths[l], at[] = { 0, n / 2, n - 1, n - n % 16 };
                array x = random_array(SLG_F32, 2, (const int64_t[]){ 3, n }, GAPS, 3, 0);
                array y = new_2d(SLG_F32, 3, n, DENSE), lse = new_1d(SLG_F32, 3);
                if (where < 4 && at[where] < n) put(&x, 1, at[where], (double)values[v]);
                for (int64_t c = 0; where >= 4 && c < n; c++) /* all; all but one; half */
                    if (where == 4 || (where == 5 && c != n / 2) || (where == 6 && c > 0) ||
                        (where == 7 && c % 2))
                        put(&x, 1, c, (double)values[v]);
                const int a = (where + (int)l) % 4; /* all four, in turn */
                const slg_softmax_opts o = options(1, a);
                ok(slg_softmax(ctx, &x.t, a ? &o : NULL, &y.t, where % 2 ? &lse.t : NULL));
                check_softmax(&x, 1, &y, where % 2 ? &lse : NULL, false, 0, algorithms[a]);
                /* In place, where a row that has to be done again was written to already. */
                ok(slg_softmax(ctx, &x.t, &o, &x.t, NULL));
                for (int64_t r = 0; r < 3; r++)
                    for (int64_t c = 0; c < n; c++)
                        assert_near(get(&x, r, c), get(&y, r, c), 0, "in place");
                free_array(&x), free_array(&y), free_array(&lse);
            }
    slg_ctx_free(ctx);
}

static void test_ties_at_the_end_of_range(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    const float rows[][4] = {
        { 3e38f, 3e38f, -3e38f, 1 },
        { -3e38f, -3.2e38f, -3e38f, -3.4e38f },
        { 2e7f, 2e7f, -2e7f, -INFINITY },
    };
    for (size_t r = 0; r < COUNT(rows); r++)
        for (int a = 0; a < 4; a++)
            for (int t = 0; t < 3; t++) {
                static const double temperatures[] = { 1, 0.03, 100 };
                const slg_softmax_opts o = options(temperatures[t], a);
                float y[4];
                slg_tensor tx = slg_tensor_1d(rows[r], SLG_F32, 4),
                           ty = slg_tensor_1d(y, SLG_F32, 4);
                ok(slg_softmax(ctx, &tx, &o, &ty, NULL));
                for (int i = 0; i < 4; i++)
                    assert_near((double)y[i], rows[r][i] == rows[r][0] ? 0.5 : 0, 1e-7,
                                "%s row %d", algorithms[a], (int)r);
            }
    slg_ctx_free(ctx);
}

static void test_one_class_and_none(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    const float ones[] = { 0, -1e30f, 1e30f, -INFINITY, 88, 1e-40f };
    float x[6], y[6], lse[6];
    double wide[6];
    for (int a = 0; a < 4; a++) {
        const slg_softmax_opts o = options(1, a);
        memcpy(x, ones, sizeof x);
        slg_tensor tx = slg_tensor_2d(x, SLG_F32, 6, 1), ty = slg_tensor_2d(y, SLG_F32, 6, 1);
        slg_tensor tl = slg_tensor_1d(lse, SLG_F32, 6);
        ok(slg_softmax(ctx, &tx, &o, &ty, &tl));
        for (int i = 0; i < 6; i++) {
            assert_near((double)y[i], i != 3, 1e-7, "one class");
            assert_near((double)lse[i], (double)x[i], 7e-7 + 1e-7 * fabs((double)x[i]),
                        "one class");
        }
        /* No columns: nothing but the log-sum-exp; no rows: nothing. Memory may be NULL
           then. */
        slg_tensor none = slg_tensor_2d(NULL, SLG_F32, 6, 0),
                   l64 = slg_tensor_1d(wide, SLG_F64, 6);
        for (int i = 0; i < 6; i++) wide[i] = 5;
        ok(slg_softmax(ctx, &none, &o, &none, &l64));
        for (int i = 0; i < 6; i++) assert_true(wide[i] == -INFINITY);
        none = slg_tensor_2d(NULL, SLG_F32, 0, 9);
        slg_tensor no_lse = slg_tensor_1d(NULL, SLG_F32, 0);
        ok(slg_softmax(ctx, &none, &o, &none, &no_lse));
        /* A great number of empty rows takes no time. */
        none = slg_tensor_2d(NULL, SLG_F32, INT64_C(1) << 60, 0);
        ok(slg_softmax(ctx, &none, &o, &none, NULL));
    }
    slg_ctx_free(ctx);
}

/* ---- Types and layouts ------------------------------------------------------------------- */

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
                    const int a = (int)(s + (size_t)(in + out + layout)) % 4;
                    const slg_softmax_opts o = options(layout % 2 ? 1 : 0.7, a);
                    const int64_t none = 1,
                                  *lead = shapes[s].ndim > 1 ? shapes[s].shape : &none;
                    const int32_t lead_dims = shapes[s].ndim > 1 ? shapes[s].ndim - 1 : 1;
                    array x = random_array(types[in], shapes[s].ndim, shapes[s].shape,
                                           (enum layout)layout, 4, 0);
                    array y = new_array(types[out], shapes[s].ndim, shapes[s].shape,
                                        (enum layout)((layout * 3 + out) % LAYOUTS));
                    array lse = new_array(layout % 3 ? SLG_F64 : SLG_F32, lead_dims, lead,
                                          (enum layout)((layout + in) % LAYOUTS));
                    ok(slg_softmax(ctx, &x.t, &o, &y.t, layout % 4 ? &lse.t : NULL));
                    check_softmax(&x, o.temperature, &y, layout % 4 ? &lse : NULL, false, 0,
                                  algorithms[a]);
                    /* In place gives the bits that x would give beside a y of its own. */
                    array z = new_array(types[in], shapes[s].ndim, shapes[s].shape,
                                        (enum layout)layout);
                    ok(slg_softmax(ctx, &x.t, &o, &z.t, NULL));
                    ok(slg_softmax(ctx, &x.t, &o, &x.t, NULL));
                    assert_memory_equal(x.memory, z.memory, x.bytes);
                    free_array(&x), free_array(&y), free_array(&z), free_array(&lse);
                }
    slg_ctx_free(ctx);
}

/* ---- Invariances ------------------------------------------------------------------------- */

static void test_invariances(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    enum { N = 777 };
    static float x[N], y[N], moved[N], z[N];
    const float shifts[] = { 0.5f, -1024, 65536, -98304, 131072 };
    slg_tensor tx = slg_tensor_1d(x, SLG_F32, N), ty = slg_tensor_1d(y, SLG_F32, N);
    slg_tensor tm = slg_tensor_1d(moved, SLG_F32, N), tz = slg_tensor_1d(z, SLG_F32, N);
    for (int a = 0; a < 4; a++) {
        const slg_softmax_opts o = options(1, a);
        size_t top = 0;
        double sum = 0;
        for (size_t i = 0; i < N; i++)
            x[i] = (float)rint(64 * 3 * normal()) / 64; /* shifts are exact */
        ok(slg_softmax(ctx, &tx, &o, &ty, NULL));
        for (size_t i = 0; i < N; i++) sum += (double)y[i], top = x[i] > x[top] ? i : top;
        assert_near(sum, 1, 1e-6, "sum");
        for (size_t i = 0; i < N; i++) assert_true(y[i] <= y[top]);
        for (size_t s = 0; s < COUNT(shifts); s++) {
            for (size_t i = 0; i < N; i++) moved[i] = x[i] + shifts[s];
            ok(slg_softmax(ctx, &tm, &o, &tz, NULL));
            double more = extra_error(a, fabs((double)shifts[s]) + 20);
            for (size_t i = 0; i < N; i++)
                assert_near((double)z[i], (double)y[i], (1.5e-6 + more) * (double)y[i],
                            "shift %g", (double)shifts[s]);
        }
        for (size_t i = 0; i < N; i++) moved[i] = x[i * 5 % N];
        ok(slg_softmax(ctx, &tm, &o, &tz, NULL));
        for (size_t i = 0; i < N; i++)
            assert_near((double)z[i], (double)y[i * 5 % N], 1.5e-6 * (double)z[i],
                        "permutation");
    }
    slg_ctx_free(ctx);
}

/* Equal logits have equal probabilities, to the bit, wherever they stand. */
static void test_equal_logits(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    enum { N = 3000 };
    static float x[N], y[N];
    for (int64_t n = 1; n <= N; n = n * 3 / 2 + 1)
        for (int a = 0; a < 4; a++) {
            const slg_softmax_opts o = options(0.7, a);
            for (int64_t i = 0; i < n; i++) x[i] = i % 7 == 3 ? 1.25f : -3.5f;
            slg_tensor tx = slg_tensor_1d(x, SLG_F32, n), ty = slg_tensor_1d(y, SLG_F32, n);
            ok(slg_softmax(ctx, &tx, &o, &ty, NULL));
            for (int64_t i = 7; i < n; i++) assert_true(y[i] == y[i % 7]);
        }
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_lengths),
        EACH_ISA(test_offsets),
        EACH_ISA(test_shapes_of_rows),
        EACH_ISA(test_paths),
        EACH_ISA(test_long_rows),
        EACH_ISA(test_flat_rows),
        EACH_ISA(test_special_values),
        EACH_ISA(test_ties_at_the_end_of_range),
        EACH_ISA(test_one_class_and_none),
        EACH_ISA(test_types_and_layouts),
        EACH_ISA(test_invariances),
        EACH_ISA(test_equal_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
