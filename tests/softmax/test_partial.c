/*
 * The partial softmax: pairs of pieces, their merge in any grouping, pass 2 of pieces, and exp
 * as a pair. Whatever a row is cut into, it is the row's softmax.
 */
#include "softmax_test.h"

enum { N = 120 };

/* log(m 2^n) */
static double log_of(double m, double n)
{
    return m == 0 ? -INFINITY : log(m) + n * 0.6931471805599453094;
}

/* What a pair may be off: the sum's error, m's rounding, n log(2) in double. */
static double pair_error(double want) { return 7e-7 + 0x1p-23 + 1e-15 * fabs(want); }

static void pair_of(slg_ctx *ctx, const float *x, int64_t n, const slg_softmax_opts *o,
                    float *m, float *e)
{
    slg_tensor tx = slg_tensor_1d(x, SLG_F32, n), tm = slg_tensor_1d(m, SLG_F32, 1);
    slg_tensor te = slg_tensor_1d(e, SLG_F32, 1);
    ok(slg_partial_softmax(ctx, &tx, o, &tm, &te));
}

/* Merges K pairs; any output may be NULL. */
static void merge(slg_ctx *ctx, int64_t k, const float *m, const float *n, float *m_out,
                  float *n_out, double *lse)
{
    slg_tensor tm = slg_tensor_1d(m, SLG_F32, k), tn = slg_tensor_1d(n, SLG_F32, k);
    slg_tensor to = slg_tensor_1d(m_out, SLG_F32, 1), te = slg_tensor_1d(n_out, SLG_F32, 1);
    slg_tensor tl = slg_tensor_1d(lse, SLG_F64, 1);
    ok(slg_partial_merge(ctx, &tm, &tn, m_out ? &to : NULL, n_out ? &te : NULL,
                         lse ? &tl : NULL));
}

/* ---- Pairs ------------------------------------------------------------------------------- */

static void test_pair(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    static const double temperatures[] = { 1, 0.03, 7 },
                        offsets[] = { 0, -90, 1e4, 1e6, -1e7, 1e9 };
    for (size_t o = 0; o < COUNT(offsets); o++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int k = 0; k < 3 * LAYOUTS; k++) {
                if (fabs(offsets[o]) > 60000 && types[k % 3] == SLG_F16) continue;
                if (fabs(offsets[o]) / temperatures[t] > 1.4e9)
                    continue; /* n, a float, is too coarse */
                const int64_t shape[] = { 2, 3,
                                          1 + (int64_t)(uniform() * (k % 5 ? 70 : 5000)) };
                const slg_softmax_opts opts = options(temperatures[t], SLG_ALGORITHM_AUTO);
                array x =
                    random_array(types[k % 3], 3, shape, (enum layout)(k / 3), 3, offsets[o]);
                array m = new_array(SLG_F32, 2, shape, (enum layout)((k + 2) % LAYOUTS));
                array n = new_array(SLG_F32, 2, shape, (enum layout)(k % LAYOUTS));
                for (int64_t c = 1; c < shape[2]; c += 2) put(&x, 1, c, -INFINITY);
                for (int64_t c = 0; c < shape[2]; c++) put(&x, 2, c, -INFINITY);
                put(&x, 3, shape[2] / 2, NAN);
                put(&x, 4, shape[2] - 1, INFINITY);
                ok(slg_partial_softmax(ctx, &x.t, &opts, &m.t, &n.t));
                for (int64_t r = 0; r < 6; r++) {
                    const double mr = get_row(&m, r), nr = get_row(&n, r);
                    const truth w = truth_of(&x, r, temperatures[t]);
                    if (r == 3 || r == 4) {
                        assert_true(isnan(mr) && !isnan(nr));
                    } else if (r == 2) {
                        assert_true(mr == 0 && nr == -INFINITY);
                    } else {
                        assert_near(log_of(mr, nr), w.lse, pair_error(w.lse), "T %g offset %g",
                                    temperatures[t], offsets[o]);
                        assert_true(nr == rint(nr) && mr > 0 && isfinite(mr));
                        if (fabs(nr) < 0x1p24) assert_true(mr >= 1 && mr < 2);
                    }
                }
                assert_gaps(&m), assert_gaps(&n);
                free_array(&x), free_array(&m), free_array(&n);
            }
    slg_ctx_free(ctx);
}

/* Past |n| = 2^31 a float32 pair cannot say it, and says so. */
static void test_beyond_pairs(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    const float far[] = { 1.5e9f, -1.6e9f, 1e20f, -3.4e38f, 3.4e38f };
    for (size_t i = 0; i < COUNT(far); i++) {
        const float x[] = { far[i], far[i] };
        float m, n;
        pair_of(ctx, x, 2, NULL, &m, &n);
        assert_true(isnan(m) && n == 0);
    }
    slg_ctx_free(ctx);
}

/* Sums that are powers of two, or just below: m does not become 2. */
static void test_powers_of_two(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    float x[4], m, n;
    for (int k = -40; k <= 40; k++)
        for (int64_t count = 1; count <= 4; count *= 2)
            for (int step = -2; step <= 2; step++) {
                float at = (float)(k * 0.6931471805599453094);
                for (int s = abs(step); s > 0; s--)
                    at = nextafterf(at, step > 0 ? INFINITY : -INFINITY);
                for (int64_t i = 0; i < count; i++) x[i] = at;
                pair_of(ctx, x, count, NULL, &m, &n);
                assert_true(m >= 1 && m < 2 && n == rintf(n));
                double want = (double)at + log((double)count);
                assert_near(log_of((double)m, (double)n), want, pair_error(want), "2^%d", k);
            }
    slg_ctx_free(ctx);
}

/* ---- Merging ----------------------------------------------------------------------------- */

static void test_every_split(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const double sds[] = { 3, 100, 1e5, 1e8 };
    for (size_t s = 0; s < COUNT(sds); s++)
        for (double t = 1; t > 0.2; t -= 0.5) {
            const slg_softmax_opts o = options(t, SLG_ALGORITHM_AUTO);
            float m[2], n[2], m_out, n_out;
            double lse;
            array x = random_array(SLG_F32, 1, (const int64_t[]){ N }, DENSE, sds[s], 0);
            for (int i = 0; i < 20; i++) put(&x, 0, i * i % N, -INFINITY);
            const float *p = x.t.data;
            const truth w = truth_of(&x, 0, t);
            for (int64_t cut = 0; cut <= N; cut++) { /* pieces may be empty */
                pair_of(ctx, p, cut, &o, &m[0], &n[0]);
                pair_of(ctx, p + cut, N - cut, &o, &m[1], &n[1]);
                merge(ctx, 2, m, n, &m_out, &n_out, &lse);
                assert_near(lse, w.lse, pair_error(w.lse), "cut at %d", (int)cut);
                assert_near(log_of((double)m_out, (double)n_out), w.lse,
                            1.5 * pair_error(w.lse), "pair, cut at %d", (int)cut);
                assert_true(n_out == fmaxf(n[0], n[1]));
            }
            free_array(&x);
        }
    slg_ctx_free(ctx);
}

/* In a line, in a tree, in another order: the same but for rounding. */
static void test_grouping(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    enum { K = 8 };
    float m[K], n[K], a[K], b[K], all_m, all_n, one_m, one_n;
    for (int round = 0; round < 300; round++) {
        for (int k = 0; k < K; k++) {
            m[k] = (float)(1 + uniform());
            n[k] = (float)rint((round % 3 ? 20 : 2000) * normal());
            if (uniform() < 0.1) m[k] = 0, n[k] = -INFINITY;
        }
        merge(ctx, K, m, n, &all_m, &all_n, NULL);
        /* line */
        a[0] = m[0], b[0] = n[0];
        for (int k = 1; k < K; k++) {
            a[1] = m[k], b[1] = n[k];
            merge(ctx, 2, a, b, &one_m, &one_n, NULL);
            a[0] = one_m, b[0] = one_n;
        }
        assert_near((double)a[0], (double)all_m, 8 * 0x1p-24 * (double)all_m, "line");
        assert_true(b[0] == all_n);
        /* tree */
        memcpy(a, m, sizeof a), memcpy(b, n, sizeof b);
        for (int width = K / 2; width >= 1; width /= 2)
            for (int k = 0; k < width; k++) {
                const float pm[] = { a[2 * k], a[2 * k + 1] },
                            pn[] = { b[2 * k], b[2 * k + 1] };
                merge(ctx, 2, pm, pn, &a[k], &b[k], NULL);
            }
        assert_near((double)a[0], (double)all_m, 4 * 0x1p-24 * (double)all_m, "tree");
        assert_true(b[0] == all_n);
        for (int k = 0; k < K; k++) a[k] = m[K - 1 - k], b[k] = n[K - 1 - k];
        merge(ctx, K, a, b, &one_m, &one_n, NULL);
        assert_near((double)one_m, (double)all_m, 2 * 0x1p-24 * (double)all_m, "order");
        /* A pair of nothing changes no bit, wherever it stands. */
        for (int at = 0; at <= K; at += 4) {
            float im[K + 1], in[K + 1];
            for (int k = 0; k <= K; k++)
                im[k] = k == at ? 0 : m[k - (k > at)],
                in[k] = k == at ? -INFINITY : n[k - (k > at)];
            merge(ctx, K + 1, im, in, &one_m, &one_n, NULL);
            assert_true(one_m == all_m && one_n == all_n);
        }
    }
    slg_ctx_free(ctx);
}

static void test_merge_edges(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const struct {
        float m[3], n[3];
        double m_out, n_out, lse;
    } cases[] = {
        { { 1, 1, 1.25f }, { 1000, -1000, 999 }, 1.625, 1000, 693.63268837572696 },
        { { 1.5f, 1.5f, 0.75f },
          { 1400000, 1399999, -1400000 },
          2.25,
          1400000,
          970406.86371413968 },
        { { 0, 1.25f, 0 }, { -INFINITY, -40, -INFINITY }, 1.25, -40, -27.502743671083604 },
        { { 0, 1, 0 },
          { 500, 3, 1e6f },
          1,
          3,
          3 * 0.6931471805599453 }, /* n of m = 0 counts for nothing */
        { { 0, 0, 0 }, { -INFINITY, -INFINITY, 7 }, 0, -INFINITY, -INFINITY },
        { { 1, 1, 0 },
          { 3e38f, 3e38f, 1 },
          2,
          (double)3e38f,
          (double)3e38f * 0.6931471805599453 },
        { { 1, 1, 0 },
          { -3e38f, 3e38f, 1 },
          1,
          (double)3e38f,
          (double)3e38f * 0.6931471805599453 },
        { { 1, 0x1p-60f, 0x1p60f }, { 0, 60, -60 }, 0x1p-60, 60, 1.0986122886681098 },
    };
    float m_out, n_out;
    double lse;
    for (size_t i = 0; i < COUNT(cases); i++) {
        merge(ctx, 3, cases[i].m, cases[i].n, &m_out, &n_out, &lse);
        const double want = i == 7 ? 3 * 0x1p-60 : cases[i].m_out;
        assert_near((double)m_out, want, 1e-7 * want, "case %zu", i);
        assert_near((double)n_out, cases[i].n_out, 0, "case %zu", i);
        assert_near(lse, cases[i].lse, 1e-15 * (fabs(cases[i].lse) + fabs(cases[i].n_out)),
                    "case %zu", i);
    }
    merge(ctx, 0, NULL, NULL, &m_out, &n_out, &lse); /* no pieces */
    assert_true(m_out == 0 && n_out == -INFINITY && lse == -INFINITY);
    const float m[] = { 1, NAN }, n[] = { 5, 0 };
    merge(ctx, 2, m, n, &m_out, &n_out, &lse);
    assert_true(isnan(m_out) && isnan(lse));
    slg_ctx_free(ctx);
}

/* [K, rows], any layout, any outputs; a NaN stays in its row. */
static void test_merge_rows(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int layout = 0; layout < LAYOUTS; layout++)
        for (int outputs = 0; outputs < 8; outputs++)
            for (int type = 0; type < 2; type++) {
                const int64_t shape[] = { 5, 7 };
                array m = new_array(SLG_F32, 2, shape, (enum layout)layout);
                array n =
                    new_array(SLG_F32, 2, shape, (enum layout)((layout + outputs) % LAYOUTS));
                array mo = new_array(SLG_F32, 1, shape + 1, (enum layout)layout);
                array no = new_array(SLG_F32, 1, shape + 1, STRIDED);
                array lse = new_array(type ? SLG_F64 : SLG_F32, 1, shape + 1, BACKWARDS);
                for (int64_t k = 0; k < 5; k++)
                    for (int64_t r = 0; r < 7; r++)
                        put(&m, k, r, 1 + uniform()), put(&n, k, r, rint(4 * normal()));
                put(&m, 3, 2, NAN);
                for (int64_t k = 0; k < 5; k++) put(&m, k, 4, 0);
                ok(slg_partial_merge(ctx, &m.t, &n.t, outputs & 1 ? &mo.t : NULL,
                                     outputs & 2 ? &no.t : NULL, outputs & 4 ? &lse.t : NULL));
                for (int64_t r = 0; r < 7; r++) {
                    double top = -INFINITY, sum = 0;
                    for (int64_t k = 0; k < 5; k++)
                        if (get(&m, k, r) != 0) top = fmax(top, get(&n, k, r));
                    for (int64_t k = 0; k < 5; k++)
                        if (get(&m, k, r) != 0)
                            sum += get(&m, k, r) * exp2(get(&n, k, r) - top);
                    if (outputs & 1) assert_near(get_row(&mo, r), sum, 0x1p-24 * sum, "m");
                    if ((outputs & 2) && !isnan(sum)) assert_near(get_row(&no, r), top, 0, "n");
                    double want = sum == 0 ? -INFINITY : log_of(sum, top);
                    if (outputs & 4)
                        assert_near(get_row(&lse, r), want, type ? 1e-14 : 1e-6, "lse");
                }
                assert_gaps(&mo), assert_gaps(&no), assert_gaps(&lse);
                free_array(&m), free_array(&n), free_array(&mo), free_array(&no),
                    free_array(&lse);
            }
    slg_ctx_free(ctx);
}

/* ---- Pass 2 ------------------------------------------------------------------------------ */

static void test_finish(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    static const double offsets[] = { 0, -90, 1e4, 1e6, -1e7, 1e8 };
    for (size_t o = 0; o < COUNT(offsets); o++)
        for (double t = 1; t > 0.2; t -= 0.3)
            for (int k = 0; k < 9; k++) {
                if (fabs(offsets[o]) > 60000 && types[k % 3] == SLG_F16) continue;
                const slg_softmax_opts opts = options(t, SLG_ALGORITHM_AUTO);
                const int64_t shape[] = { 2, 2, k ? 90 : 5000 }, cols = shape[2];
                array x = random_array(types[k % 3], 3, shape, (enum layout)(k % LAYOUTS), 3,
                                       offsets[o]);
                array y = new_array(types[k / 3], 3, shape, (enum layout)((k + 3) % LAYOUTS));
                array m = new_array(SLG_F32, 2, shape, (enum layout)(k % LAYOUTS)),
                      n = new_array(SLG_F32, 2, shape, GAPS);
                for (int64_t c = 1; c < cols; c += 2) put(&x, 1, c, -INFINITY);
                for (int64_t c = 0; c < cols; c++) put(&x, 2, c, -INFINITY);
                put(&x, 3, cols / 2, NAN);
                ok(slg_partial_softmax(ctx, &x.t, &opts, &m.t, &n.t));
                ok(slg_partial_finish(ctx, &x.t, &m.t, &n.t, &opts, &y.t));
                check_softmax(&x, t, &y, NULL, false, 4e-7 + 4e-15 * fabs(offsets[o]) / t,
                              "finish");
                /* A slice of the columns gets the bits that it has in the whole. */
                array part =
                    new_array(types[k / 3], 3, shape, (enum layout)((k + 3) % LAYOUTS));
                for (int piece = 0; piece < 3; piece++) {
                    slg_tensor sx = x.t, sy = part.t;
                    const int64_t from = piece * (cols / 3),
                                  to = piece == 2 ? cols : from + cols / 3;
                    sx.data = element(&x.t, 0, from), sy.data = element(&part.t, 0, from);
                    sx.shape[2] = sy.shape[2] = to - from;
                    ok(slg_partial_finish(ctx, &sx, &m.t, &n.t, &opts, &sy));
                }
                assert_memory_equal(part.memory, y.memory, y.bytes);
                array z = new_array(types[k % 3], 3, shape,
                                    (enum layout)(k % LAYOUTS)); /* in place */
                ok(slg_partial_finish(ctx, &x.t, &m.t, &n.t, &opts, &z.t));
                ok(slg_partial_finish(ctx, &x.t, &m.t, &n.t, &opts, &x.t));
                assert_memory_equal(x.memory, z.memory, z.bytes);
                free_array(&x), free_array(&y), free_array(&z), free_array(&part),
                    free_array(&m), free_array(&n);
            }
    slg_ctx_free(ctx);
}

/* Cut, reduced, merged, finished: the softmax. */
static void test_whole_way(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    enum { PIECES = 4, LONG = 9000 };
    static float x[LONG], y[LONG];
    for (int round = 0; round < 30; round++) {
        float m[PIECES], n[PIECES], m_all, n_all;
        const double spread[] = { 1, 30, 3000 };
        fill(x, LONG, spread[round % 3], 0);
        for (int k = 0; k < PIECES; k++)
            pair_of(ctx, x + k * LONG / PIECES, LONG / PIECES, NULL, &m[k], &n[k]);
        merge(ctx, PIECES, m, n, &m_all, &n_all, NULL);
        slg_tensor tm = slg_tensor_1d(&m_all, SLG_F32, 1),
                   tn = slg_tensor_1d(&n_all, SLG_F32, 1);
        for (int k = 0; k < PIECES; k++) {
            slg_tensor tx = slg_tensor_1d(x + k * LONG / PIECES, SLG_F32, LONG / PIECES),
                       ty = tx;
            ty.data = y + k * LONG / PIECES;
            ok(slg_partial_finish(ctx, &tx, &tm, &tn, NULL, &ty));
        }
        array whole = new_1d(SLG_F32, LONG), result = new_1d(SLG_F32, LONG);
        memcpy(whole.t.data, x, sizeof x), memcpy(result.t.data, y, sizeof y);
        check_softmax(&whole, 1, &result, NULL, false, 5e-7, "merged");
        free_array(&whole), free_array(&result);
    }
    slg_ctx_free(ctx);
}

static void test_finish_edges(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    float x[5][9], y[5][9], m[] = { 0, NAN, 1, 1, 0 }, n[] = { -INFINITY, 3, NAN, INFINITY, 5 };
    for (int r = 0; r < 5; r++) fill(x[r], 9, 1, 0);
    x[0][4] = NAN; /* a masked row is not looked at */
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, 5, 9), ty = slg_tensor_2d(y, SLG_F32, 5, 9);
    slg_tensor tm = slg_tensor_1d(m, SLG_F32, 5), tn = slg_tensor_1d(n, SLG_F32, 5);
    ok(slg_partial_finish(ctx, &tx, &tm, &tn, NULL, &ty));
    for (int r = 0; r < 5; r++)
        for (int c = 0; c < 9; c++)
            assert_near((double)y[r][c], r == 0 || r == 4 ? 0 : NAN, 0, "row %d", r);
    slg_tensor none = slg_tensor_2d(NULL, SLG_F32, 0, 9), no = slg_tensor_1d(NULL, SLG_F32, 0);
    ok(slg_partial_finish(ctx, &none, &no, &no, NULL, &none));
    ok(slg_partial_softmax(ctx, &none, NULL, &no, &no));
    slg_tensor none_k = slg_tensor_2d(NULL, SLG_F32, 3, 0);
    ok(slg_partial_merge(ctx, &none_k, &none_k, &no, &no, &no));
    ok(slg_ext_exp(ctx, &none, &none, &none));
    none = slg_tensor_2d(NULL, SLG_F32, INT64_C(1) << 60, 0);
    ok(slg_ext_exp(ctx, &none, &none, &none));
    tm = (slg_tensor){ m, SLG_F32, 1, { INT64_C(1) << 60 }, { 0 } };
    ok(slg_partial_finish(ctx, &none, &tm, &tm, NULL, &none));
    none = slg_tensor_2d(NULL, SLG_F32, 2, 0), tm = slg_tensor_1d(m + 1, SLG_F32, 2),
    tn = slg_tensor_1d(n + 1, SLG_F32, 2);
    ok(slg_partial_softmax(ctx, &none, NULL, &tm, &tn)); /* no columns */
    for (int r = 1; r < 3; r++) assert_true(m[r] == 0 && n[r] == -INFINITY);
    slg_ctx_free(ctx);
}

/* ---- exp as a pair ----------------------------------------------------------------------- */

static void test_ext_exp(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const struct {
        int32_t ndim;
        int64_t shape[4];
    } shapes[] = {
        { 1, { 37 } },
        { 2, { 3, 67 } },
        { 4, { 2, 2, 3, 9 } },
        { 2, { 2, 5000 } },
    };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int layout = 0; layout < LAYOUTS; layout++) {
            const int64_t *shape = shapes[s].shape;
            array x = random_array(SLG_F32, shapes[s].ndim, shape, (enum layout)layout, 200, 0);
            array m = new_array(SLG_F32, shapes[s].ndim, shape,
                                (enum layout)((layout + 2) % LAYOUTS));
            array n = new_array(SLG_F32, shapes[s].ndim, shape,
                                (enum layout)((layout + 5) % LAYOUTS));
            put(&x, 0, 0, NAN), put(&x, 0, 1, 1e6);
            ok(slg_ext_exp(ctx, &x.t, &m.t, &n.t));
            for (int64_t r = 0; r < rows_in(&x.t); r++)
                for (int64_t c = 0; c < cols_in(&x.t); c++) {
                    const double v = get(&x, r, c), mc = get(&m, r, c), nc = get(&n, r, c);
                    if (isnan(v))
                        assert_true(isnan(mc));
                    else
                        assert_near(log_of(mc, nc), v, 1.7e-7 + fabs(v) * 2e-12, "exp(%g)", v);
                }
            assert_gaps(&m), assert_gaps(&n);
            array kept =
                new_array(SLG_F32, shapes[s].ndim, shape, (enum layout)layout); /* m or n = x */
            memcpy(kept.memory, x.memory, x.bytes);
            ok(slg_ext_exp(ctx, &x.t, &x.t, &n.t));
            ok(slg_ext_exp(ctx, &kept.t, &m.t, &kept.t));
            for (int64_t r = 0; r < rows_in(&x.t); r++)
                for (int64_t c = 0; c < cols_in(&x.t); c++) {
                    assert_near(get(&x, r, c), get(&m, r, c), 0, "m in place");
                    assert_near(get(&kept, r, c), get(&n, r, c), 0, "n in place");
                }
            free_array(&x), free_array(&m), free_array(&n), free_array(&kept);
        }
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_pair),         EACH_ISA(test_beyond_pairs), EACH_ISA(test_powers_of_two),
        EACH_ISA(test_every_split),  EACH_ISA(test_grouping),     EACH_ISA(test_merge_edges),
        EACH_ISA(test_merge_rows),   EACH_ISA(test_finish),       EACH_ISA(test_whole_way),
        EACH_ISA(test_finish_edges), EACH_ISA(test_ext_exp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
