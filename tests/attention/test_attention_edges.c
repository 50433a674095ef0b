/*
 * What attention does at its edges: values that are not finite and whom they reach, huge
 * logits, queries that see nothing, identities of the method, finite differences, and what is
 * refused.
 */
#include "attention_test.h"

#include "support/gradcheck.h"
#include "support/guard.h"

static bool same_bits(const float *x, const float *y, int64_t n)
{
    return memcmp(x, y, (size_t)n * sizeof *x) == 0;
}

/* ---- NaN reaches those who see it -------------------------------------------------------- */

static const setting mixed = { "mixed",      1, 2, 2, 150, 150, 20, 24, .window = { 0, 9 },
                               .valid = true };

/* Query i sees key j by position, window and mask. */
static bool sees(const call *c, int64_t h, int64_t i, int64_t j)
{
    const place p = { .h = h, .g = h, .nq = c->s.queries, .nk = c->s.keys };
    double slope, dot;
    return logit(c, &p, i, j, &slope, &dot) != -INFINITY;
}

/* One of q, k, v, dout gets a bad value in one row of head h. */
static void put_bad(trial *t, int which, int64_t h, int64_t row, float bad)
{
    float *const x[4] = { t->c.q, t->c.k, t->c.v, t->c.dout };
    const int64_t dim = which == 2 || which == 3 ? t->c.s.value_dim : t->c.s.dim;
    for (int64_t n = 0; n < dim; n++) x[which][(h * t->c.s.queries + row) * dim + n] = bad;
}

/* Row `row` of output i (a row a query or key) of head h: has its bits of before. */
static bool row_kept(const trial *t, const trial *before, int i, int64_t h, int64_t row,
                     int64_t dim)
{
    const int64_t at = (h * t->c.s.queries + row) * dim;
    return same_bits(t->y.x[i] + at, before->y.x[i] + at, dim);
}

static void check_reach(slg_ctx *ctx, int which, int64_t h, int64_t row, float bad)
{
    trial t, before;
    const uint64_t kept = seed;
    trial_open(&before, &mixed);
    trial_run(ctx, &before, true);
    seed = kept;
    trial_open(&t, &mixed);
    put_bad(&t, which, h, row, bad);
    trial_run(ctx, &t, true);
    const bool a_key = which == 1 || which == 2;
    const int64_t n = mixed.queries;
    for (int64_t g = 0; g < mixed.heads; g++)
        for (int64_t i = 0; i < n; i++) {
            /* A query is touched by a key that it sees, or by itself. */
            const bool touched = g == h && (a_key ? sees(&before.c, h, i, row) : i == row);
            if (touched) continue;
            assert_true(row_kept(&t, &before, 0, g, i, mixed.value_dim));
            assert_true(row_kept(&t, &before, 1, g, i, 1));
            assert_true(row_kept(&t, &before, 3, g, i, mixed.dim));
        }
    for (int64_t g = 0; g < mixed.heads; g++)
        for (int64_t j = 0; j < n; j++) {
            /* A key is touched by a query that sees it and is touched. */
            bool touched = false;
            for (int64_t i = 0; i < n && g == h; i++)
                touched |=
                    sees(&before.c, h, i, j) && (a_key ? sees(&before.c, h, i, row) : i == row);
            if (touched || (a_key && g == h && j == row)) continue;
            assert_true(row_kept(&t, &before, 4, g, j, mixed.dim));
            assert_true(row_kept(&t, &before, 5, g, j, mixed.value_dim));
        }
    /* And those who see it do not hide it. */
    if (which < 2 && isnan(bad))
        for (int64_t i = 0; i < n; i++)
            if (which == 1 ? sees(&before.c, h, i, row)
                           : i == row && before.y.x[1][h * n + i] > -INFINITY)
                assert_true(isnan(t.y.x[0][(h * n + i) * mixed.value_dim]) &&
                            isnan(t.y.x[1][h * n + i]));
    trial_close(&t);
    trial_close(&before);
}

static void test_reach(void **state)
{
    static const int64_t rows[] = { 0, 63, 64, 100, 149 };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int which = 0; which < 4; which++)
        for (int64_t i = 0; i < COUNT(rows); i++) {
            check_reach(ctx, which, i % 2, rows[i], NAN);
            check_reach(ctx, which, (i + 1) % 2, rows[i], INFINITY);
        }
}

/* ---- Huge logits, and none --------------------------------------------------------------- */

static void test_huge(void **state)
{
    static const setting s = { "huge", 1, 1, 1, 3, 3, 2, 2, .all_ways = true, .scale = 1 };
    static const float sizes[] = { 100, 1e4f, 1e6f, 1e15f };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(sizes); i++) {
        trial t;
        trial_open(&t, &s);
        const float big = sizes[i];
        /* Query 0 prefers key 0, query 1 shares between keys 1 and 2, query 2 has equal
           logits. */
        const float q[] = { big, 0, 0, big, 0, 0 }, k[] = { 1, 0, -1, 1, -1, 1 };
        memcpy(t.c.q, q, sizeof q);
        memcpy(t.c.k, k, sizeof k);
        trial_run(ctx, &t, true);
        const float *o = t.y.x[0], *v = t.c.v, *lse = t.y.x[1];
        for (int n = 0; n < 2; n++) {
            assert_float_equal(o[n], v[n], 1e-6);
            assert_float_equal(o[2 + n], (v[2 + n] + v[4 + n]) / 2, 1e-6);
            assert_float_equal(o[4 + n], (v[n] + v[2 + n] + v[4 + n]) / 3, 1e-6);
        }
        assert_float_equal(lse[0] / big, 1, 1e-6);
        assert_true(t.y.x[2][0] == big);
        for (int j = 3; j < 6; j++)
            for (int64_t n = 0; n < t.r.n[j]; n++) assert_true(isfinite(t.y.x[j][n]));
        trial_close(&t);
    }
}

/* A logit of +inf: NaN, for its query alone. -inf by a key: as if it were hidden. */
static void test_infinite_logits(void **state)
{
    static const setting s = { "infinite", 1, 1, 1, 4, 4, 1, 2, .all_ways = true, .scale = 1 };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        trial t;
        trial_open(&t, &s);
        const float q[] = { 1, -1, 1, -1 }, k[] = { 2, INFINITY, 1, 2 };
        memcpy(t.c.q, q, sizeof q);
        memcpy(t.c.k, k, sizeof k);
        trial_run(ctx, &t, false);
        for (int i = 0; i < 4; i++) assert_true(!isnan(t.y.x[0][2 * i]) == (i % 2 == 1));
        assert_float_equal(t.y.x[1][1], log(exp(-2) + exp(-1) + exp(-2)), 1e-6);
        trial_close(&t);
    }
}

static void test_nothing_visible(void **state)
{
    static const setting s = { "hidden",     1, 2, 1, 70, 70, 8, 8, .window = { 3, 0 },
                               .valid = true };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        trial t;
        trial_open(&t, &s);
        for (int64_t j = 0; j < s.keys; j++) t.c.valid[j] = j >= 20 && j < 40;
        for (int64_t j = 0; j < 8 * s.keys; j++)
            if (t.c.valid[j / 8] == 0) t.c.k[j] = t.c.v[j] = NAN;
        t.c.dout[3] = NAN;
        trial_run(ctx, &t, true);
        for (int64_t i = 0; i < s.queries; i++) {
            if (i >= 20 && i < 42) continue; /* of the head with a window */
            assert_true(t.y.x[1][i] == -INFINITY);
            for (int n = 0; n < 8; n++) {
                assert_true(t.y.x[0][8 * i + n] == 0);
                assert_true(t.y.x[3][8 * i + n] == 0);
            }
        }
        for (int64_t j = 0; j < 8 * s.keys; j++) {
            assert_true(isfinite(t.y.x[4][j]) && isfinite(t.y.x[5][j]));
            if (t.c.valid[j / 8] == 0) assert_true(t.y.x[4][j] == 0 && t.y.x[5][j] == 0);
        }
        trial_close(&t);
    }
}

/* ---- Identities -------------------------------------------------------------------------- */

static void test_window_of_one(void **state)
{
    static const setting s = { "one", 1, 1, 1, 70, 70, 8, 12, .window = { 1 } };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        trial t;
        trial_open(&t, &s);
        trial_run(ctx, &t, true);
        assert_true(same_bits(t.y.x[0], t.c.v, t.r.n[0]));
        for (int64_t i = 0; i < t.r.n[3]; i++) {
            assert_float_equal(t.y.x[3][i], 0, 1e-5);
            assert_float_equal(t.y.x[4][i], 0, 1e-5);
        }
        for (int64_t i = 0; i < t.r.n[5]; i++)
            assert_float_equal(t.y.x[5][i], t.c.dout[i], 1e-6);
        trial_close(&t);
    }
}

/* By hand: q = k = 0, so a query is the mean of the values of the two last tokens. */
static void test_window_of_two(void **state)
{
    static const setting s = { "two", 1, 1, 1, 4, 4, 1, 1, .window = { 2 } };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    trial t;
    trial_open(&t, &s);
    for (int i = 0; i < 4; i++) t.c.q[i] = t.c.k[i] = 0, t.c.v[i] = (float)(1 << i);
    trial_run(ctx, &t, false);
    const float want[] = { 1, 1.5f, 3, 6 };
    for (int i = 0; i < 4; i++) assert_float_equal(t.y.x[0][i], want[i], 1e-6);
    trial_close(&t);
    slg_ctx_free(ctx);
}

/* Runs a setting from a seed, with something done to the call before. */
static void run_changed(slg_ctx *ctx, const setting *s, void (*change)(call *c), trial *t)
{
    seed = 12345;
    trial_open(t, s);
    if (change) change(&t->c);
    trial_run(ctx, t, true);
}

static void wide_windows(call *c) { c->windows[0] = 130, c->windows[1] = INT32_MAX; }
static void later_keys(call *c)
{
    for (int64_t h = 0; h < 2; h++)
        for (int64_t n = 100 * 16; n < 130 * 16; n++)
            c->k[h * 130 * 16 + n] = c->v[h * 130 * 16 + n] = 3;
}
static void ones(call *c)
{
    for (int64_t n = 0; n < c->s.key_heads * c->s.keys * c->s.value_dim; n++) c->v[n] = 1;
}

static void test_identities(void **state)
{
    static const setting s = { "global", 1, 2, 2, 130, 130, 16, 16, .window = { 0 } };
    static const setting open = { "open", 1, 2, 2, 130, 130, 16, 16, .all_ways = true };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        trial base, wide, later, one, both;
        run_changed(ctx, &s, NULL, &base);
        run_changed(ctx, &s, wide_windows, &wide);
        run_changed(ctx, &s, later_keys, &later);
        run_changed(ctx, &s, ones, &one);
        run_changed(ctx, &open, NULL, &both);
        for (int i = 0; i < 6; i++)
            assert_true(same_bits(base.y.x[i], wide.y.x[i], base.r.n[i]));
        for (int64_t h = 0; h < 2; h++) /* no query before token 100 sees what changed */
            assert_true(
                same_bits(base.y.x[0] + h * 130 * 16, later.y.x[0] + h * 130 * 16, 1600));
        for (int64_t n = 0; n < one.r.n[0]; n++) assert_float_equal(one.y.x[0][n], 1, 1e-6);
        /* A vector added to all keys changes nothing, where all see all. */
        for (int64_t h = 0; h < 2; h++)
            for (int64_t c = 0; c < 16; c++) {
                double sum = 0;
                for (int64_t j = 0; j < 130; j++)
                    sum += (double)both.y.x[4][(h * 130 + j) * 16 + c];
                assert_true(fabs(sum) < 1e-4);
            }
        trial_close(&base), trial_close(&wide), trial_close(&later), trial_close(&one);
        trial_close(&both);
    }
}

/* Causal is a bias of -inf above the diagonal; a scale of 0 is the mean. */
static void test_same_by_other_means(void **state)
{
    static const setting masked = {
        "masked", 1, 2, 2, 90, 90, 16, 16, .all_ways = true, .bias = BIAS_SHARED
    };
    static const setting causal = { "causal", 1, 2, 2, 90, 90, 16, 16, .window = { 0 } };
    static const setting flat = { "flat", 1, 2, 2, 90, 90, 16, 16, .scales = true };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        trial a, b, z;
        seed = 99;
        trial_open(&a, &causal);
        seed = 99;
        trial_open(&b, &masked);
        for (int64_t i = 0; i < 90; i++)
            for (int64_t j = 0; j < 90; j++) b.c.bias[i * 90 + j] = j > i ? -INFINITY : 0;
        seed = 99;
        trial_open(&z, &flat);
        z.c.scales[0] = z.c.scales[1] = 0;
        trial_run(ctx, &a, true);
        trial_run(ctx, &b, true);
        trial_run(ctx, &z, true);
        for (int i = 0; i < 6; i++)
            for (int64_t n = 0; n < a.r.n[i]; n++)
                assert_float_equal(a.y.x[i][n], b.y.x[i][n], 2e-5);
        double sum = 0;
        for (int64_t i = 0; i < 90; i++) {
            sum += (double)z.c.v[i * 16];
            assert_float_equal(z.y.x[0][i * 16], (float)(sum / (double)(i + 1)), 1e-5);
        }
        for (int64_t n = 0; n < z.r.n[3]; n++)
            assert_true(z.y.x[3][n] == 0 && z.y.x[4][n] == 0);
        trial_close(&a), trial_close(&b), trial_close(&z);
    }
}

/* Packed sequences: the bits of each by itself. */
static void test_packed(void **state)
{
    static const setting packed = { "packed",
                                    1,
                                    2,
                                    2,
                                    100,
                                    120,
                                    16,
                                    16,
                                    .window = { 0, 5 },
                                    .offsets = { 0, 30, 100 },
                                    .key_offsets = { 0, 45, 120 } };
    static const setting parts[] = { { "first", 1, 2, 2, 30, 45, 16, 16, .window = { 0, 5 } },
                                     { "second", 1, 2, 2, 70, 75, 16, 16,
                                       .window = { 0, 5 } } };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        trial t;
        trial_open(&t, &packed);
        trial_run(ctx, &t, true);
        for (int s = 0; s < 2; s++) {
            trial u;
            const int64_t q0 = packed.offsets[s], k0 = packed.key_offsets[s];
            const int64_t nq = parts[s].queries, nk = parts[s].keys;
            trial_open(&u, &parts[s]);
            for (int64_t h = 0; h < 2; h++) {
                memcpy(u.c.q + h * nq * 16, t.c.q + (h * 100 + q0) * 16, (size_t)nq * 64);
                memcpy(u.c.dout + h * nq * 16, t.c.dout + (h * 100 + q0) * 16, (size_t)nq * 64);
                memcpy(u.c.k + h * nk * 16, t.c.k + (h * 120 + k0) * 16, (size_t)nk * 64);
                memcpy(u.c.v + h * nk * 16, t.c.v + (h * 120 + k0) * 16, (size_t)nk * 64);
            }
            trial_run(ctx, &u, true);
            for (int64_t h = 0; h < 2; h++) {
                assert_true(
                    same_bits(u.y.x[0] + h * nq * 16, t.y.x[0] + (h * 100 + q0) * 16, nq * 16));
                assert_true(
                    same_bits(u.y.x[3] + h * nq * 16, t.y.x[3] + (h * 100 + q0) * 16, nq * 16));
                assert_true(
                    same_bits(u.y.x[4] + h * nk * 16, t.y.x[4] + (h * 120 + k0) * 16, nk * 16));
                assert_true(
                    same_bits(u.y.x[5] + h * nk * 16, t.y.x[5] + (h * 120 + k0) * 16, nk * 16));
            }
            trial_close(&u);
        }
        trial_close(&t);
    }
}

/* ---- Finite differences ------------------------------------------------------------------ */

static const setting differentiated = { "differentiated",
                                        2,
                                        2,
                                        1,
                                        6,
                                        7,
                                        4,
                                        3,
                                        .window = { 0, 4 },
                                        .slopes = true,
                                        .sinks = true,
                                        .valid = true,
                                        .scales = true,
                                        .bias = BIAS_SHARED,
                                        .softcap = 4,
                                        .dropout = 0.2 };

typedef struct probe {
    slg_ctx *ctx;
    trial t;
} probe;

static double value_of(const float *x, void *arg)
{
    probe *p = arg;
    double sum = 0;
    (void)x; /* the call's own memory */
    OK(p->ctx, slg_attention(p->ctx, &p->t.c.in, &p->t.c.opts, &p->t.y.out));
    for (int64_t i = 0; i < p->t.r.n[0]; i++)
        sum += (double)p->t.y.x[0][i] * (double)p->t.c.dout[i];
    for (int64_t i = 0; i < p->t.r.n[1]; i++)
        if (p->t.y.x[1][i] > -INFINITY) sum += (double)p->t.y.x[1][i] * (double)p->t.c.dlse[i];
    return sum;
}

static void test_gradients(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        probe p = { .ctx = ctx };
        trial_open(&p.t, &differentiated);
        p.t.c.sinks[1] = 0.3f;
        p.t.y.grad.dlse = &p.t.y.dlse;
        trial_run(ctx, &p.t, true);
        float *const x[] = { p.t.c.q, p.t.c.k, p.t.c.v, p.t.c.bias, p.t.c.sinks, p.t.c.scales };
        for (int i = 0; i < 6; i++) {
            const gradcheck_result g =
                gradcheck(value_of, &p, x[i], (size_t)p.t.r.n[3 + i], p.t.y.x[3 + i], NULL);
            assert_true(gradcheck_ok(&g, 2e-4, output_names[3 + i]));
        }
        trial_close(&p.t);
    }
}

/* ---- What is not wanted, and memory outside ---------------------------------------------- */

/* Each output by itself has the bits that it has among all. */
static void test_some_outputs(void **state)
{
    static const setting s = {
        "some", 2, 4, 2, 70, 80, 16, 20, .window = { 0, 9 }, .sinks = true, .bias = BIAS_HEADS
    };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    trial t;
    outputs one;
    trial_open(&t, &s);
    trial_run(ctx, &t, true);
    outputs_open(&t.c, &t.r, &one);
    const slg_attention_grad all = one.grad;
    one.out.lse = one.out.max_logit = NULL;
    OK(ctx, slg_attention(ctx, &t.c.in, &t.c.opts, &one.out));
    assert_true(same_bits(one.x[0], t.y.x[0], t.r.n[0]));
    slg_tensor *const each[] = { all.dq, all.dk, all.dv, all.dbias, all.dsinks, all.dscale };
    for (int i = 0; i < 6; i++) {
        slg_attention_grad_init(&one.grad, sizeof one.grad);
        slg_tensor **const at[] = { &one.grad.dq,    &one.grad.dk,     &one.grad.dv,
                                    &one.grad.dbias, &one.grad.dsinks, &one.grad.dscale };
        *at[i] = each[i];
        OK(ctx,
           slg_attention_backward(ctx, &t.c.in, &t.c.opts, &t.y.out, &t.y.dout, &one.grad));
        for (int64_t n = 0; n < t.r.n[3 + i]; n++)
            assert_float_equal(one.x[3 + i][n], t.y.x[3 + i][n], 1e-5);
    }
    outputs_close(&one);
    trial_close(&t);
    slg_ctx_free(ctx);
}

static void test_guards(void **state)
{
    static const setting s = { "guarded", 1, 2, 2, 37, 37, 7, 5, .window = { 0, 5 } };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int side = GUARD_AFTER; side <= GUARD_BEFORE; side++) {
        trial t;
        guard in[4], out[5];
        trial_open(&t, &s);
        const int of[5] = { 0, 1, 3, 4, 5 };
        float *const x[4] = { t.c.q, t.c.k, t.c.v, t.c.dout };
        slg_tensor *const to[4] = { &t.c.t[0], &t.c.t[1], &t.c.t[2], &t.y.dout };
        const int64_t n[4] = { t.r.n[3], t.r.n[4], t.r.n[5], t.r.n[0] };
        for (int i = 0; i < 4; i++) {
            in[i] = guard_copy(x[i], (size_t)n[i] * sizeof(float), (enum guard_side)side);
            guard_lock(&in[i]);
            to[i]->data = in[i].data;
        }
        for (int i = 0; i < 5; i++) {
            out[i] = guard_create((size_t)t.r.n[of[i]] * sizeof(float), (enum guard_side)side);
            t.y.t[of[i]].data = out[i].data;
        }
        trial_run(ctx, &t, true);
        for (int i = 0; i < 5; i++) assert_true(guard_intact(&out[i])), guard_free(&out[i]);
        for (int i = 0; i < 4; i++) guard_free(&in[i]);
        trial_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reach),           cmocka_unit_test(test_huge),
        cmocka_unit_test(test_infinite_logits), cmocka_unit_test(test_nothing_visible),
        cmocka_unit_test(test_window_of_one),   cmocka_unit_test(test_window_of_two),
        cmocka_unit_test(test_identities),      cmocka_unit_test(test_same_by_other_means),
        cmocka_unit_test(test_packed),          cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_some_outputs),    cmocka_unit_test(test_guards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
