/* slg_utility_transform, slg_utility_sample, slg_minimum_bayes_risk: identities, edges,
   errors. */
#include "loss/loss_test.h"

static void transform_of(slg_ctx *ctx, int64_t n, const double *u, const int32_t *group,
                         int64_t groups, double tau, double *log_prob, int64_t *best,
                         double *entropy)
{
    slg_tensor tu = slg_tensor_1d(u, SLG_F64, n), tg = slg_tensor_1d(group, SLG_I32, n);
    slg_tensor tp = slg_tensor_1d(log_prob, SLG_F64, n),
               tb = slg_tensor_1d(best, SLG_I64, groups);
    slg_tensor te = slg_tensor_1d(entropy, SLG_F64, groups);
    slg_utility_transform_opts o;
    slg_utility_transform_opts_init(&o, sizeof o);
    o.temperature = tau;
    OK(ctx, slg_utility_transform(ctx, &tu, NULL, group ? &tg : NULL, groups, &o, &tp, NULL,
                                  &tb, &te));
}

static void test_transform_edges(void **state)
{
    static const double u[] = { 1, 3,   3, -INFINITY, INFINITY, INFINITY,
                                7, NAN, 2, -INFINITY, 1e38 };
    static const int32_t group[] = { 0, 0, 0, 0, 1, 1, 1, 2, 2, 4, 5 };
    static const double taus[] = { 1, 1e-3, 1e-30, 1e-310, 0 };
    static const int64_t want[] = { 1, 4, -1, -1, -1, 10 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int64_t i = 0; i < COUNT(taus); i++) {
        double lp[11], h[6];
        int64_t best[6];
        transform_of(ctx, 11, u, group, 6, taus[i], lp, best, h);
        assert_memory_equal(best, want, sizeof want);
        double e = taus[i] < 1e-300 ? 0 : exp(-2 / taus[i]), s = 2 + e;
        assert_true(fabs(exp(lp[0]) - e / s) < 1e-15 && fabs(exp(lp[1]) - 1 / s) < 1e-15);
        assert_true(lp[1] == lp[2] && lp[3] == -INFINITY && lp[9] == -INFINITY && lp[10] == 0);
        assert_true(fabs(lp[4] + log(2)) < 1e-15 && lp[5] == lp[4] && lp[6] == -INFINITY);
        assert_true(isnan(lp[7]) && isnan(lp[8]) && isnan(h[2]) && h[3] == 0 && h[4] == 0 &&
                    h[5] == 0);
        double plain = -2 / s * log(1 / s) - (e > 0 ? e / s * log(e / s) : 0);
        assert_true(fabs(h[0] - plain) < 1e-14 && fabs(h[1] - log(2)) < 1e-15);
    }
    slg_ctx_free(ctx);
    (void)state;
}

/* Offsets and ids agree, a shift changes nothing, and the gradient is that of differences. */
static void test_transform_identities(void **state)
{
    enum { N = 12, G = 4 };
    static const int32_t ids[N] = { 0, 0, 0, 2, 2, 2, 2, 2, 3, 3, 3, 3 },
                         starts[G + 1] = { 0, 3, 3, 8, N };
    static const int64_t length[N] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
    double u[N], c[N], lp[3][N], d[N];
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int i = 0; i < N; i++) u[i] = -5 * uniform(), c[i] = normal();
    u[5] = -INFINITY;
    slg_tensor tu = slg_tensor_1d(u, SLG_F64, N), tl = slg_tensor_1d(length, SLG_I64, N);
    slg_tensor ti = slg_tensor_1d(ids, SLG_I32, N), ts = slg_tensor_1d(starts, SLG_I32, G + 1);
    slg_tensor tp = slg_tensor_1d(lp[0], SLG_F64, N), tc = slg_tensor_1d(c, SLG_F64, N);
    slg_tensor td = slg_tensor_1d(d, SLG_F64, N);
    slg_utility_transform_opts o;
    slg_utility_transform_opts_init(&o, sizeof o);
    o.length_power = 0.7, o.temperature = 0.8;
    OK(ctx, slg_utility_transform(ctx, &tu, &tl, &ti, G, &o, &tp, NULL, NULL, NULL));
    OK(ctx, slg_utility_transform_backward(ctx, &tp, &tc, &tl, &ti, G, &o, &td));
    slg_utility_transform_opts by_starts = o;
    by_starts.offsets = 1;
    tp.data = lp[1];
    OK(ctx, slg_utility_transform(ctx, &tu, &tl, &ts, G, &by_starts, &tp, NULL, NULL, NULL));
    assert_memory_equal(lp[0], lp[1], sizeof lp[0]);
    for (int j = 0; j < N; j++) {
        double keep = u[j], value[2] = { 0, 0 };
        if (j == 5) {
            assert_true(d[j] == 0);
            continue;
        }
        for (int side = 0; side < 2; side++) {
            u[j] = keep + (side ? 1e-5 : -1e-5);
            OK(ctx, slg_utility_transform(ctx, &tu, &tl, &ti, G, &o, &tp, NULL, NULL, NULL));
            for (int i = 0; i < N; i++)
                if (i != 5) value[side] += c[i] * lp[1][i];
        }
        u[j] = keep;
        assert_true(fabs((value[1] - value[0]) / 2e-5 - d[j]) < 1e-7);
    }
    slg_ctx_free(ctx);
    (void)state;
}

static void test_transform_errors(void **state)
{
    double u[3] = { 1, 2, 3 }, p[3] = { 7, 7, 7 };
    int32_t g[3] = { 0, 2, 1 }, length[3] = { 1, -1, 1 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_tensor tu = slg_tensor_1d(u, SLG_F64, 3), tp = slg_tensor_1d(p, SLG_F64, 3);
    slg_tensor tg = slg_tensor_1d(g, SLG_I32, 3), tl = slg_tensor_1d(length, SLG_I32, 3);
    slg_utility_transform_opts o;
    slg_utility_transform_opts_init(&o, sizeof o);
#define CALL(len, group, n)                                                                    \
    slg_utility_transform(ctx, &tu, len, group, n, &o, &tp, NULL, NULL, NULL)
    assert_int_equal(CALL(NULL, &tg, 2), SLG_ERR_RANGE);
    assert_int_equal(CALL(&tl, NULL, 1), SLG_ERR_RANGE);
    assert_int_equal(CALL(NULL, NULL, 2), SLG_ERR_RANGE);
    o.offsets = 1;
    assert_int_equal(CALL(NULL, &tg, 2), SLG_ERR_RANGE); /* descends */
    assert_int_equal(CALL(NULL, &tg, 3), SLG_ERR_SHAPE);
    o.offsets = 0;
    const double bad[] = { -1, NAN, INFINITY };
    for (int i = 0; i < 3; i++) {
        o.temperature = bad[i];
        assert_int_equal(CALL(NULL, NULL, 1), SLG_ERR_RANGE);
        o.temperature = 1, o.length_power = bad[i];
        assert_int_equal(CALL(NULL, NULL, 1), SLG_ERR_RANGE);
        o.length_power = 0;
    }
    slg_tensor shifted = slg_tensor_1d(u + 1, SLG_F64, 2), two = slg_tensor_1d(u, SLG_F64, 2);
    assert_int_equal(
        slg_utility_transform(ctx, &two, NULL, NULL, 1, &o, &shifted, NULL, NULL, NULL),
        SLG_ERR_STRIDE);
    assert_true(p[0] == 7 && p[2] == 7 && u[0] == 1 && u[1] == 2);
    slg_ctx_free(ctx);
    (void)state;
}

/* ---- Sampling --------------------------------------------------------------------------- */

static void sample_rows(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *noise, double tau,
                        int32_t top, slg_rng *g, int64_t *index)
{
    slg_tensor ti = slg_tensor_1d(index, SLG_I64, x->shape[0]);
    slg_utility_sample_opts o;
    slg_utility_sample_opts_init(&o, sizeof o);
    o.temperature = tau, o.top = top;
    OK(ctx, slg_utility_sample(ctx, x, noise, &o, g, &ti));
}

/* Frequencies of the inverse and of Gumbel noise are those of softmax(x / tau), and of the top
   3. */
static void test_frequencies(void **state)
{
    enum { ROWS = 20000, COLS = 6 };
    static const float row[COLS] = { 0.5f, -INFINITY, 1, 2, -1, 1 };
    float *x = malloc(sizeof(float[ROWS][COLS]));
    float *noise = malloc(sizeof(float[ROWS][COLS]));
    int64_t *index = malloc(ROWS * sizeof *index), *again = malloc(ROWS * sizeof *again);
    assert_true(x && noise && index && again);
    for (int i = 0; i < ROWS * COLS; i++) x[i] = row[i % COLS];
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, ROWS, COLS),
               tn = slg_tensor_2d(noise, SLG_F32, ROWS, COLS);
    FOR_EACH_ISA(ctx, 2)
    {
        slg_rng g = { 5, 0 };
        OK(ctx, slg_random(ctx, &g, SLG_GUMBEL, &tn));
        for (int form = 0; form < 6; form++) {
            const double tau = form % 2 ? 1 : 0.5;
            const int32_t top = form >= 4 ? 3 : 0;
            double sum = 0, seen[COLS] = { 0 };
            slg_rng before = g;
            sample_rows(ctx, &tx, form / 2 == 1 ? &tn : NULL, tau, top, &g, index);
            assert_true(g.offset == before.offset + (form / 2 == 1 ? 0 : ROWS));
            if (form / 2 != 1) {
                slg_ctx *other = context(SLG_ISA_PORTABLE, 3);
                sample_rows(other, &tx, NULL, tau, top, &before, again);
                assert_memory_equal(index, again, ROWS * sizeof *index);
                slg_ctx_free(other);
            }
            for (int i = 0; i < ROWS; i++) seen[index[i]]++;
            for (int k = 0; k < COLS; k++)
                if (!top || row[k] >= 1) sum += exp((double)row[k] / tau);
            for (int k = 0; k < COLS; k++) {
                double p = top && row[k] < 1 ? 0 : exp((double)row[k] / tau) / sum;
                assert_true(fabs(seen[k] / ROWS - p) <= 5 * sqrt(p * (1 - p) / ROWS));
            }
        }
    }
    free(x), free(noise), free(index), free(again);
    (void)state;
}

static void test_sample_edges(void **state)
{
    enum { ROWS = 6, COLS = 3 };
    static const float x[ROWS][COLS] = {
        { 1, 3, 3 },
        { -INFINITY, -INFINITY, -INFINITY },
        { 1, NAN, 9 },
        { 0, INFINITY, INFINITY },
        { -INFINITY, -7, -INFINITY },
        { 3e38f, -3e38f, 3e38f },
    };
    static const float noise[ROWS][COLS] = { { 9, 0, 1 }, { 0 },       { 0 },
                                             { 9, 1, 2 }, { 9, 0, 9 }, { 0, 0, 0 } };
    static const int64_t cold[ROWS] = { 1, -1, -1, 1, 1, 0 },
                         noisy[ROWS] = { 0, -1, -1, 2, 1, 0 };
    int64_t index[ROWS];
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, ROWS, COLS),
               tn = slg_tensor_2d(noise, SLG_F32, ROWS, COLS);
    FOR_EACH_ISA(ctx, 1)
    {
        sample_rows(ctx, &tx, NULL, 0, 0, NULL, index);
        assert_memory_equal(index, cold, sizeof cold);
        sample_rows(ctx, &tx, &tn, 1, 0, NULL, index);
        assert_memory_equal(index, noisy, sizeof noisy);
        int seen[COLS] = { 0 };
        slg_rng g = { 3, 0 };
        for (int i = 0; i < 200; i++) {
            sample_rows(ctx, &tx, NULL, 1e-30, i % 4, &g, index);
            assert_true(index[0] == 1 || index[0] == 2);
            assert_true(index[1] == -1 && index[2] == -1 && index[4] == 1 && index[5] != 1);
            if (i % 4 == 0) seen[index[3]]++;
            if (i % 4 == 1) assert_true(index[0] == 1 && index[3] == 1 && index[5] == 0);
        }
        assert_true(seen[0] == 0 && seen[1] > 5 && seen[2] > 5);
        slg_tensor ti = slg_tensor_1d(index, SLG_I64, ROWS);
        slg_utility_sample_opts o;
        slg_utility_sample_opts_init(&o, sizeof o);
        assert_int_equal(slg_utility_sample(ctx, &tx, NULL, &o, NULL, &ti), SLG_ERR_NULL);
        o.temperature = -1;
        assert_int_equal(slg_utility_sample(ctx, &tx, &tn, &o, NULL, &ti), SLG_ERR_RANGE);
        o.temperature = 1, o.top = -1;
        assert_int_equal(slg_utility_sample(ctx, &tx, &tn, &o, NULL, &ti), SLG_ERR_RANGE);
    }
    (void)state;
}

/* ---- Minimum Bayes risk ----------------------------------------------------------------- */

static int32_t identity(void *user, int64_t first, int64_t count, int64_t n, double *gain)
{
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < n; j++) gain[i * n + j] = first + i == j;
    return first >= *(int64_t *)user;
}

/* With the identity as gain it is the arg-max of prob. */
static void test_risk(void **state)
{
    enum { N = 300 };
    static double p[N], g[N][N], e[N];
    int64_t best = 0, stop = N, top = 0;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int i = 0; i < N; i++) p[i] = uniform(), g[i][i] = 1;
    for (int i = 0; i < N; i++)
        if (p[i] > p[top]) top = i;
    slg_tensor tp = slg_tensor_1d(p, SLG_F64, N), tg = slg_tensor_2d(g, SLG_F64, N, N);
    slg_tensor te = slg_tensor_1d(e, SLG_F64, N), tb = slg_tensor_1d(&best, SLG_I64, 1);
    OK(ctx, slg_minimum_bayes_risk(ctx, &tp, &tg, &te, &tb));
    assert_true(best == top);
    assert_memory_equal(e, p, sizeof p);
    best = -7, memset(e, 0, sizeof e);
    OK(ctx, slg_minimum_bayes_risk_fn(ctx, &tp, N, identity, &stop, &te, &tb));
    assert_true(best == top);
    assert_memory_equal(e, p, sizeof p);
    stop = 100, e[0] = 42;
    assert_int_equal(slg_minimum_bayes_risk_fn(ctx, &tp, N, identity, &stop, &te, &tb),
                     SLG_ERR_STOPPED);
    assert_int_equal(slg_minimum_bayes_risk_fn(ctx, &tp, N, NULL, &stop, &te, &tb),
                     SLG_ERR_NULL);
    assert_int_equal(slg_minimum_bayes_risk_fn(ctx, &tp, -1, identity, &stop, NULL, &tb),
                     SLG_ERR_RANGE);
    assert_true(e[0] == 42 && best == top);
    p[3] = 0, g[0][3] = NAN; /* not looked at */
    for (int j = 0; j < N; j++) g[1][j] = NAN;
    OK(ctx, slg_minimum_bayes_risk(ctx, &tp, &tg, &te, &tb));
    assert_true(!isnan(e[0]) && isnan(e[1]));
    tp.shape[0] = N - 1;
    assert_int_equal(slg_minimum_bayes_risk(ctx, &tp, &tg, &te, &tb), SLG_ERR_SHAPE);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transform_edges),  cmocka_unit_test(test_transform_identities),
        cmocka_unit_test(test_transform_errors), cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_sample_edges),     cmocka_unit_test(test_risk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
