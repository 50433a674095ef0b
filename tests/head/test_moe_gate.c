/*
 * The top-K gate, its gradient, the router, and the losses of the load: against double
 * arithmetic for every type and layout, identities, edge cases, errors, threads.
 */
#include "layer/layer_test.h"

#include "softlogit/moe.h"

enum { MOST = 400 };

static double want_g[MOST];
static int want_i[MOST];

/* By the formula, of scores s. Returns slg_moe_flag. */
static int reference(int k, int chosen, int role, const double *s, const double *b)
{
    bool taken[MOST] = { false }, nan = false, infinite = false;
    double z[MOST], top = -(double)INFINITY, sum = 0;
    for (int i = 0; i < k; i++) nan |= isnan(s[i]);
    for (int j = 0; j < chosen; j++) {
        int best = -1;
        for (int i = 0; i < k; i++) {
            double a = s[i], c = best < 0 ? 0 : s[best];
            if (role)
                a = (double)(float)(a + b[i]), c = best < 0 ? 0 : (double)(float)(c + b[best]);
            if (!taken[i] && (best < 0 || a > c)) best = i;
        }
        if (nan) best = j;
        taken[best] = true, want_i[j] = best;
        z[j] = s[best] + (role == SLG_MOE_BIAS_CHOICE ? 0 : b[best]);
        infinite |= z[j] == (double)INFINITY;
        if (z[j] > top) top = z[j];
    }
    nan |= infinite;
    for (int j = 0; j < chosen; j++) want_g[j] = nan ? NAN : 0;
    if (nan) return SLG_MOE_ROW_NAN;
    if (top == -(double)INFINITY) return SLG_MOE_ROW_MASKED;
    for (int j = 0; j < chosen; j++) sum += want_g[j] = exp(z[j] - top);
    for (int j = 0; j < chosen; j++) want_g[j] /= sum;
    return SLG_MOE_ROW;
}

static int32_t int_at(const array *a, int64_t r, int64_t c)
{
    return *(const int32_t *)element(&a->t, r, c);
}

static slg_moe_gate_opts gate_opts(int chosen, int role)
{
    slg_moe_gate_opts o;
    slg_moe_gate_opts_init(&o, sizeof o);
    o.chosen = chosen, o.bias = role;
    return o;
}

/* Entries that a score may hold beside ordinary ones, by kind. */
static double odd(int kind)
{
    const double u = uniform();
    if (kind == 1 && u < 0.6) return -(double)INFINITY;
    if (kind == 2 && u < 0.02) return NAN;
    if (kind == 3 && u < 0.1) return (double)INFINITY;
    if (kind == 4) return floor(3 * u); /* ties */
    if (kind == 5) return normal() * 1e4;
    if (kind == 6) return -(double)INFINITY;
    return normal();
}

static void test_formula(void **state)
{
    static const int shapes[][3] = { { 3, 1, 1 },   { 40, 8, 2 },   { 17, 64, 3 },
                                     { 70, 33, 8 }, { 5, 200, 16 }, { 4, 300, 40 },
                                     { 6, 9, 9 },   { 3, 40, 33 } };
    slg_ctx *ctx = ctx_of(state);
    for (int t = 0; t < 8 * 42; t++) {
        const int n = shapes[t % 8][0], k = shapes[t % 8][1], chosen = shapes[t % 8][2];
        const int role = t / 8 % 3, kind = t / 8 % 7;
        const int32_t in = row_types[t / 3 % 3], out = row_types[t / 5 % 3];
        const enum layout one = (enum layout)(t / 8 % LAYOUTS),
                          other = (enum layout)((t / 2 + 1) % LAYOUTS);
        array score = new_2d(in, n, k, one), noise = new_2d(SLG_F32, n, k, other),
              bias = random_vector(k, 1, 0), index = new_2d(SLG_I32, n, chosen, other),
              weight = new_2d(out, n, chosen, one), dense = new_2d(out, n, k, other),
              flag = new_1d(SLG_I32, n);
        const bool noisy = t % 3 == 0, biased = t % 5 != 0;
        for (int r = 0; r < n; r++)
            for (int i = 0; i < k; i++)
                put(&score, r, i, odd(kind)), put(&noise, r, i, normal());
        slg_moe_gate_opts o = gate_opts(chosen, role);
        ok(slg_moe_gate(ctx, &score.t, biased ? &bias.t : NULL, noisy ? &noise.t : NULL, &o,
                        &index.t, &weight.t, &dense.t, &flag.t));
        for (int r = 0; r < n; r++) {
            double s[MOST], b[MOST], found[MOST] = { 0 };
            for (int i = 0; i < k; i++) {
                s[i] = get(&score, r, i), b[i] = biased ? at(&bias, i) : 0;
                if (noisy) s[i] = (double)(float)(s[i] + get(&noise, r, i));
            }
            const int wanted = reference(k, chosen, biased ? role : 0, s, b);
            assert_int_equal(((int32_t *)flag.t.data)[r], wanted);
            for (int j = 0; j < chosen; j++) {
                assert_int_equal(int_at(&index, r, j), want_i[j]);
                assert_near(get(&weight, r, j), want_g[j],
                            2e-6 * want_g[j] + rounding(out, want_g[j]) + 0x1p-124,
                            "case %d row %d slot %d", t, r, j);
                found[want_i[j]] = get(&weight, r, j);
            }
            for (int i = 0; i < k; i++)
                assert_near(get(&dense, r, i), found[i], 0, "case %d row %d dense %d", t, r, i);
        }
        assert_gaps(&index), assert_gaps(&weight), assert_gaps(&dense);
        array *all[] = { &score, &noise, &bias, &index, &weight, &dense, &flag };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

/* dz against the formula; rows sum to 0; accumulation; a weight of 0. */
static void test_backward(void **state)
{
    enum { N = 150, K = 11, S = 4 };
    slg_ctx *ctx = ctx_of(state);
    for (int t = 0; t < 3 * LAYOUTS; t++) {
        const int32_t type = row_types[t % 3];
        const enum layout one = (enum layout)(t % LAYOUTS);
        slg_moe_gate_opts o = gate_opts(S, t % 2 ? SLG_MOE_BIAS_CHOICE : SLG_MOE_BIAS_WEIGHT);
        array score = new_2d(SLG_F32, N, K, DENSE), index = new_2d(SLG_I32, N, S, one),
              weight = new_2d(SLG_F32, N, S, one), dweight = new_2d(type, N, S, one),
              dscore = new_2d(type, N, K, one), dbias = random_vector(K, 0, 2);
        for (int r = 0; r < N; r++)
            for (int i = 0; i < K; i++) {
                put(&score, r, i, 2 * normal()), put(&dscore, r, i, 1);
                if (r == 3 && i > 1) put(&score, r, i, -(double)INFINITY);
                if (i < S) put(&dweight, r, i, normal());
            }
        ok(slg_moe_gate(ctx, &score.t, NULL, NULL, &o, &index.t, &weight.t, NULL, NULL));
        for (int j = 2; j < S; j++) put(&dweight, 3, j, NAN); /* weights 0 */
        o.accumulate = t / 3 % 2;
        ok(slg_moe_gate_backward(ctx, &index.t, &weight.t, &dweight.t, &o, &dscore.t,
                                 &dbias.t));
        double sums[K] = { 0 };
        for (int r = 0; r < N; r++) {
            double dot = 0, want[K] = { 0 }, total = 0;
            for (int j = 0; j < S; j++)
                if (get(&weight, r, j) > 0) dot += get(&weight, r, j) * get(&dweight, r, j);
            for (int j = 0; j < S; j++)
                if (get(&weight, r, j) > 0)
                    want[int_at(&index, r, j)] =
                        get(&weight, r, j) * (get(&dweight, r, j) - dot);
            for (int i = 0; i < K; i++) {
                const double full = want[i] + (o.accumulate ? 1 : 0);
                assert_near(get(&dscore, r, i), full, 1e-6 + rounding(type, full), "row %d %d",
                            r, i);
                sums[i] += want[i], total += want[i];
            }
            assert_near(total, 0, 1e-6, "sum of row %d", r);
        }
        for (int i = 0; i < K; i++)
            assert_near(at(&dbias, i), (o.bias ? 0 : sums[i]) + (o.accumulate ? 2 : 0), 1e-5,
                        "dbias %d", i);
        assert_gaps(&dscore);
        array *all[] = { &score, &index, &weight, &dweight, &dscore, &dbias };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

/* A small router: sum over rows and choices of c weight, of x, beta1 and bias. */
typedef struct router {
    slg_ctx *ctx;
    float v[200], c[100]; /* x, beta1, bias; coefficients */
    int32_t index[100];
} router;
enum { N = 12, D = 5, K = 7, S = 3, VARIABLES = N * D + K * D + K };

static double router_value(const float *v, void *arg)
{
    router *q = arg;
    float weight[N * S];
    double value = 0;
    slg_tensor x = slg_tensor_2d(v, SLG_F32, N, D),
               b1 = slg_tensor_2d(v + N * D, SLG_F32, K, D),
               b0 = slg_tensor_1d(v + N * D + K * D, SLG_F32, K),
               index = slg_tensor_2d(q->index, SLG_I32, N, S),
               w = slg_tensor_2d(weight, SLG_F32, N, S);
    slg_moe_gate_opts o = gate_opts(S, SLG_MOE_BIAS_WEIGHT);
    ok(slg_moe_route(q->ctx, &x, &b1, &b0, NULL, &o, NULL, &index, &w, NULL, NULL));
    for (int i = 0; i < N * S; i++) value += (double)weight[i] * (double)q->c[q->index[i]];
    return value;
}

static void test_route(void **state)
{
    static router q;
    static float d[VARIABLES], weight[N * S], dweight[N * S], score[N * K];
    q.ctx = ctx_of(state);
    seed = 77; /* scores that lie apart */
    fill(q.v, VARIABLES, 1, 0), fill(q.c, K, 1, 0);
    slg_tensor x = slg_tensor_2d(q.v, SLG_F32, N, D),
               b1 = slg_tensor_2d(q.v + N * D, SLG_F32, K, D),
               b0 = slg_tensor_1d(q.v + N * D + K * D, SLG_F32, K),
               index = slg_tensor_2d(q.index, SLG_I32, N, S),
               w = slg_tensor_2d(weight, SLG_F32, N, S),
               dw = slg_tensor_2d(dweight, SLG_F32, N, S),
               s = slg_tensor_2d(score, SLG_F32, N, K), dx = slg_tensor_2d(d, SLG_F32, N, D),
               db1 = slg_tensor_2d(d + N * D, SLG_F32, K, D),
               db0 = slg_tensor_1d(d + N * D + K * D, SLG_F32, K);
    slg_moe_gate_opts o = gate_opts(S, SLG_MOE_BIAS_WEIGHT);
    ok(slg_moe_route(q.ctx, &x, &b1, &b0, NULL, &o, &s, &index, &w, NULL, NULL));
    for (int r = 0; r < N; r++)
        for (int i = 0; i < K; i++) {
            double sum = 0;
            for (int c = 0; c < D; c++)
                sum += (double)q.v[r * D + c] * (double)q.v[N * D + i * D + c];
            assert_near((double)score[r * K + i], sum, 2e-6, "score");
        }
    for (int i = 0; i < N * S; i++) dweight[i] = q.c[q.index[i]];
    ok(slg_moe_route_backward(q.ctx, &x, &b1, &index, &w, &dw, NULL, &o, &dx, &db1, &db0));
    /* Steps so small that no choice changes: none of these scores is so near another. */
    gradcheck_opts g = { .step = 1.0 / 1024, .floor = 1 };
    gradcheck_result res = gradcheck(router_value, &q, q.v, VARIABLES, d, &g);
    assert_true(gradcheck_ok(&res, 2e-3, "router"));
    /* A gradient of scores that is given comes on top: that of z scores, as linear layer. */
    static float more[N * K], base[VARIABLES];
    memcpy(base, d, sizeof base);
    fill(more, N * K, 1, 0);
    slg_tensor given = slg_tensor_2d(more, SLG_F32, N, K);
    o.accumulate = 1;
    ok(slg_moe_route_backward(q.ctx, &x, &b1, &index, &w, &dw, &given, &o, &dx, &db1, &db0));
    for (int i = 0; i < VARIABLES; i++) {
        double want = 2 * (double)base[i];
        for (int r = 0; r < N && i < N * D + K * D; r++)
            for (int j = 0; j < K; j++) {
                const double m = (double)more[r * K + j];
                if (i < N * D && i / D == r) want += m * (double)q.v[N * D + j * D + i % D];
                if (i >= N * D && (i - N * D) / D == j) want += m * (double)q.v[r * D + i % D];
            }
        assert_near((double)d[i], want, 2e-5, "gradient %d on top", i);
    }
    slg_ctx_free(q.ctx);
}

/* ---- Identities -------------------------------------------------------------------------- */

static void test_identities(void **state)
{
    enum { ROWS = 50, E = 12 };
    static float s[ROWS * E], moved[ROWS * E], b[E], b2[E], g[ROWS * E], g2[ROWS * E],
        p[ROWS * E];
    static int32_t index[ROWS * E], other[ROWS * E];
    slg_ctx *ctx = ctx_of(state);
    fill(s, ROWS * E, 2, 0), fill(b, E, 1, 0);
    slg_tensor ts = slg_tensor_2d(s, SLG_F32, ROWS, E), tm = ts,
               tb = slg_tensor_1d(b, SLG_F32, E), tb2 = tb, td = ts, td2 = ts, tp = ts;
    tm.data = moved, tb2.data = b2, td.data = g, td2.data = g2, tp.data = p;
    for (int chosen = 1; chosen <= E; chosen++) {
        static float w[ROWS * E];
        slg_tensor ti = slg_tensor_2d(index, SLG_I32, ROWS, chosen), to = ti,
                   tw = slg_tensor_2d(w, SLG_F32, ROWS, chosen);
        to.data = other;
        slg_moe_gate_opts o = gate_opts(chosen, SLG_MOE_BIAS_WEIGHT);
        ok(slg_moe_gate(ctx, &ts, &tb, NULL, &o, &ti, &tw, &td, NULL));
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            int live = 0;
            for (int i = 0; i < E; i++) {
                sum += (double)g[r * E + i], live += g[r * E + i] != 0;
                moved[r * E + i] = s[r * E + i] + 3, b2[i] = b[i] - 2;
            }
            assert_near(sum, 1, 1e-6, "sum of row %d", r);
            assert_int_equal(live, chosen);
        }
        /* A shift of all scores and all biases. */
        ok(slg_moe_gate(ctx, &tm, &tb2, NULL, &o, &to, &tw, &td2, NULL));
        assert_memory_equal(index, other, sizeof(int32_t) * (size_t)(ROWS * chosen));
        for (int i = 0; i < ROWS * E; i++)
            assert_near((double)g2[i], (double)g[i], 2e-6, "shifted %d", i);
        /* Experts in another order. */
        for (int i = 0; i < E; i++) {
            b2[i] = b[(i * 5 + 3) % E];
            for (int r = 0; r < ROWS; r++) moved[r * E + i] = s[r * E + (i * 5 + 3) % E];
        }
        ok(slg_moe_gate(ctx, &tm, &tb2, NULL, &o, &to, &tw, &td2, NULL));
        for (int r = 0; r < ROWS; r++)
            for (int i = 0; i < E; i++)
                assert_near((double)g2[r * E + i], (double)g[r * E + (i * 5 + 3) % E], 1e-7,
                            "row %d expert %d", r, i);
        /* The bias of one that row 0 did not choose: nothing there changes. */
        memcpy(b2, b, sizeof b);
        for (int i = 0; i < E; i++)
            if (g[i] == 0) b2[i] += 5;
        ok(slg_moe_gate(ctx, &ts, &tb2, NULL, &o, &to, &tw, &td2, NULL));
        assert_memory_equal(g, g2, E * sizeof *g);
    }
    /* All chosen: softmax(s + bias). */
    for (int i = 0; i < ROWS * E; i++) moved[i] = s[i] + b[i % E];
    ok(slg_softmax(ctx, &tm, NULL, &tp, NULL));
    for (int i = 0; i < ROWS * E; i++)
        assert_near((double)g[i], (double)p[i], 1e-6, "softmax %d", i);
    slg_ctx_free(ctx);
}

/* Scores of 1e38: one of those chosen; an infinity among them is an error row. */
static void test_edges(void **state)
{
    static float s[6][4] = { { 1e38f, -1e38f, 3e38f, 1 },
                             { INFINITY, INFINITY, 0, 1 },
                             { -INFINITY, -INFINITY, -INFINITY, -INFINITY },
                             { 5, NAN, 1, 2 },
                             { -INFINITY, 2, -INFINITY, -INFINITY },
                             { 7, 7, 7, 7 } };
    static const int32_t flags[6] = { 0, 2, 1, 2, 0, 0 };
    static const int32_t wanted[6][2] = { { 2, 0 }, { 0, 1 }, { 0, 1 },
                                          { 0, 1 }, { 1, 0 }, { 0, 1 } };
    static const double weights[6][2] = { { 1, 0 },     { NAN, NAN }, { 0, 0 },
                                          { NAN, NAN }, { 1, 0 },     { .5, .5 } };
    int32_t index[6][2], flag[6];
    float w[6][2];
    slg_ctx *ctx = ctx_of(state);
    slg_tensor ts = slg_tensor_2d(s, SLG_F32, 6, 4), ti = slg_tensor_2d(index, SLG_I32, 6, 2),
               tw = slg_tensor_2d(w, SLG_F32, 6, 2), tf = slg_tensor_1d(flag, SLG_I32, 6);
    ok(slg_moe_gate(ctx, &ts, NULL, NULL, NULL, &ti, &tw, NULL, &tf));
    for (int r = 0; r < 6; r++)
        for (int j = 0; j < 2; j++) {
            assert_int_equal(index[r][j], wanted[r][j]);
            assert_near((double)w[r][j], weights[r][j], 1e-7, "row %d slot %d", r, j);
            assert_int_equal(flag[r], flags[r]);
        }
    /* No rows. */
    slg_tensor none = slg_tensor_2d(NULL, SLG_F32, 0, 4), no_index = none, no_weight = none;
    float db[4] = { 1, 1, 1, 1 };
    slg_tensor tb = slg_tensor_1d(db, SLG_F32, 4);
    no_index.dtype = SLG_I32, no_index.shape[1] = no_weight.shape[1] = 2;
    ok(slg_moe_gate(ctx, &none, NULL, NULL, NULL, &no_index, &no_weight, NULL, NULL));
    ok(slg_moe_gate_backward(ctx, &no_index, &no_weight, &no_weight, NULL, &none, &tb));
    for (int i = 0; i < 4; i++) assert_true(db[i] == 0);
    slg_ctx_free(ctx);
}

static void test_threads(void **state)
{
    enum { ROWS = 700, E = 40, FEW = 4 };
    static float s[ROWS * E], w[2][ROWS * FEW], d[2][ROWS * E], db[2][E], pw[ROWS * FEW];
    static int32_t index[2][ROWS * FEW];
    static const int counts[] = { 1, 2, 3, 8 };
    (void)state;
    fill(s, ROWS * E, 2, 0), fill(pw, ROWS * FEW, 1, 0);
    for (size_t t = 0; t < COUNT(counts); t++) {
        const int at = t > 0;
        slg_ctx *ctx = new_ctx(0, counts[t]);
        slg_moe_gate_opts o = gate_opts(FEW, 0);
        slg_moe_balance_out b;
        slg_moe_balance_out_init(&b, sizeof b);
        slg_tensor ts = slg_tensor_2d(s, SLG_F32, ROWS, E),
                   ti = slg_tensor_2d(index[at], SLG_I32, ROWS, FEW),
                   tw = slg_tensor_2d(w[at], SLG_F32, ROWS, FEW),
                   tp = slg_tensor_2d(pw, SLG_F32, ROWS, FEW),
                   td = slg_tensor_2d(d[at], SLG_F32, ROWS, E),
                   tb = slg_tensor_1d(db[at], SLG_F32, E);
        ok(slg_moe_gate(ctx, &ts, NULL, NULL, &o, &ti, &tw, NULL, NULL));
        ok(slg_moe_gate_backward(ctx, &ti, &tw, &tp, &o, &td, &tb));
        slg_moe_balance_opts more;
        slg_moe_balance_opts_init(&more, sizeof more);
        more.accumulate = 1, b.dscore = &td, b.dbias = &tb;
        ok(slg_moe_balance(ctx, &ts, NULL, &ti, &tw, &more, &b));
        assert_memory_equal(index[0], index[at], sizeof index[0]);
        assert_memory_equal(w[0], w[at], sizeof w[0]);
        assert_memory_equal(d[0], d[at], sizeof d[0]);
        assert_memory_equal(db[0], db[at], sizeof db[0]);
        slg_ctx_free(ctx);
    }
}

/* ---- Load -------------------------------------------------------------------------------- */

typedef struct load_case {
    slg_ctx *ctx;
    int32_t index[N * S];
    float weight[N * S], v[N * K + K]; /* scores, bias */
    bool importance;                   /* of weights, which are the variables then */
} load_case;

static double load_value(const float *v, void *arg)
{
    load_case *c = arg;
    slg_moe_balance_opts o;
    slg_moe_balance_out out;
    slg_moe_balance_opts_init(&o, sizeof o), slg_moe_balance_out_init(&out, sizeof out);
    o.balance = 3, o.z = 2, o.importance = 5;
    slg_tensor index = slg_tensor_2d(c->index, SLG_I32, N, S),
               s = slg_tensor_2d(c->importance ? c->v : v, SLG_F32, N, K),
               b = slg_tensor_1d((c->importance ? c->v : v) + N * K, SLG_F32, K),
               w = slg_tensor_2d(c->importance ? v : c->weight, SLG_F32, N, S);
    ok(slg_moe_balance(c->ctx, &s, &b, &index, &w, &o, &out));
    return out.loss;
}

static void test_balance(void **state)
{
    static load_case c;
    static float d[N * K + K], dw[N * S];
    double total[K], probability[K], p[N][K], lse[N], mass[K] = { 0 }, mean_p[K] = { 0 };
    int64_t count[K], n[K] = { 0 };
    c.ctx = ctx_of(state);
    c.importance = false;
    fill(c.v, N * K + K, 1, 0);
    slg_tensor s = slg_tensor_2d(c.v, SLG_F32, N, K),
               b = slg_tensor_1d(c.v + N * K, SLG_F32, K),
               index = slg_tensor_2d(c.index, SLG_I32, N, S),
               w = slg_tensor_2d(c.weight, SLG_F32, N, S), ds = slg_tensor_2d(d, SLG_F32, N, K),
               db = slg_tensor_1d(d + N * K, SLG_F32, K),
               tdw = slg_tensor_2d(dw, SLG_F32, N, S), tc = slg_tensor_1d(count, SLG_I64, K),
               tt = slg_tensor_1d(total, SLG_F64, K),
               tp = slg_tensor_1d(probability, SLG_F64, K);
    slg_moe_gate_opts o = gate_opts(S, SLG_MOE_BIAS_BOTH);
    ok(slg_moe_gate(c.ctx, &s, &b, NULL, &o, &index, &w, NULL, NULL));
    slg_moe_balance_opts lo;
    slg_moe_balance_out out;
    slg_moe_balance_opts_init(&lo, sizeof lo), slg_moe_balance_out_init(&out, sizeof out);
    lo.balance = 3, lo.z = 2, lo.importance = 5;
    out.dscore = &ds, out.dbias = &db, out.dweight = &tdw;
    out.count = &tc, out.total = &tt, out.probability = &tp;
    ok(slg_moe_balance(c.ctx, &s, &b, &index, &w, &lo, &out));
    double balance = 0, z = 0, most = 0, importance = 0, load = 0;
    for (int r = 0; r < N; r++) {
        double sum = 0;
        for (int i = 0; i < K; i++)
            sum += p[r][i] = exp((double)c.v[r * K + i] + (double)c.v[N * K + i]);
        lse[r] = log(sum), z += lse[r] * lse[r] / N;
        for (int i = 0; i < K; i++) mean_p[i] += p[r][i] / sum / N;
        for (int j = 0; j < S; j++)
            n[c.index[r * S + j]]++, mass[c.index[r * S + j]] += (double)c.weight[r * S + j];
    }
    for (int i = 0; i < K; i++) {
        const double share = (double)n[i] / (N * S);
        balance += K * share * mean_p[i], most = fmax(most, K * share);
        importance += pow(mass[i] / ((double)N / K) - 1, 2) / K;
        load += pow((double)n[i] / ((double)N * S / K) - 1, 2) / K;
        assert_int_equal(count[i], n[i]);
        assert_near(total[i], mass[i], 1e-6, "importance of %d", i);
        assert_near(probability[i], mean_p[i], 1e-6, "probability of %d", i);
    }
    assert_near(out.balance, balance, 1e-6, "balance");
    assert_near(out.z, z, 1e-5, "z");
    assert_near(out.most, most, 1e-9, "most");
    assert_near(out.importance, importance, 1e-6, "importance");
    assert_near(out.load, load, 1e-9, "load");
    assert_near(out.loss, 3 * balance + 2 * z + 5 * importance, 1e-4, "loss");
    assert_int_equal(out.rows, N);
    gradcheck_result res = gradcheck(load_value, &c, c.v, N * K + K, d, NULL);
    assert_true(gradcheck_ok(&res, 1e-4, "balance and z"));
    c.importance = true;
    res = gradcheck(load_value, &c, c.weight, N * S, dw, NULL);
    assert_true(gradcheck_ok(&res, 1e-4, "importance"));
    /* Even scores: 1, whatever was chosen. A row that does not count changes nothing. */
    for (int i = 0; i < K + N * K; i++) c.v[i] = 0;
    ok(slg_moe_balance(c.ctx, &s, &b, &index, &w, &lo, &out));
    assert_near(out.balance, 1, 1e-6, "even");
    c.v[3] = NAN, c.v[K] = INFINITY;
    for (int i = 0; i < K; i++) c.v[2 * K + i] = -INFINITY;
    ok(slg_moe_balance(c.ctx, &s, NULL, &index, &w, &lo, &out));
    assert_int_equal(out.rows, N - 3);
    assert_near(out.balance, 1, 1e-6, "even, without three rows");
    for (int i = 0; i < 3 * K; i++) assert_true(d[i] == 0);
    /* Logits of 1e5 are as good as others. */
    for (int i = 0; i < N * K; i++) c.v[i] = i % K == 2 ? 3e5f : -3e38f;
    ok(slg_moe_balance(c.ctx, &s, NULL, &index, &w, &lo, &out));
    assert_near(out.z, 9e10, 1e4, "z of large logits");
    slg_ctx_free(c.ctx);
}

static void test_errors(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    array score = new_2d(SLG_F32, 3, 5, DENSE), bias = random_vector(4, 1, 0),
          index = new_2d(SLG_I32, 3, 2, DENSE), weight = new_2d(SLG_F32, 3, 2, DENSE),
          wide = new_2d(SLG_F32, 3, 5, DENSE);
    slg_moe_balance_out out;
    slg_moe_balance_out_init(&out, sizeof out);
    (void)state;
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < 5; i++) put(&score, r, i, normal());
    slg_moe_gate_opts o = gate_opts(2, 0);
#define GATE(s, b, i, w, d) slg_moe_gate(ctx, s, b, NULL, &o, i, w, d, NULL)
    assert_int_equal(
        slg_moe_gate(NULL, &score.t, NULL, NULL, NULL, &index.t, &weight.t, NULL, NULL),
        SLG_ERR_NULL);
    assert_refused(ctx, GATE(NULL, NULL, &index.t, &weight.t, NULL), SLG_ERR_NULL, "score",
                   &weight);
    assert_refused(ctx, GATE(&score.t, NULL, NULL, &weight.t, NULL), SLG_ERR_NULL, "index",
                   &weight);
    assert_refused(ctx, GATE(&score.t, &bias.t, &index.t, &weight.t, NULL), SLG_ERR_SHAPE,
                   "bias", &weight);
    assert_refused(ctx, GATE(&score.t, NULL, &weight.t, &weight.t, NULL), SLG_ERR_DTYPE,
                   "index", &weight);
    assert_refused(ctx, GATE(&score.t, NULL, &index.t, &wide.t, NULL), SLG_ERR_SHAPE, "weight",
                   &wide);
    assert_refused(ctx, GATE(&score.t, NULL, &index.t, &weight.t, &score.t), SLG_ERR_STRIDE,
                   "dense overlaps score", &weight);
    static const int bad[] = { 0, -1, 6 };
    for (size_t i = 0; i < COUNT(bad); i++) {
        o.chosen = bad[i];
        assert_refused(ctx, GATE(&score.t, NULL, &index.t, &weight.t, NULL), SLG_ERR_RANGE,
                       "must be from 1 to 5 experts", &weight);
    }
    o = gate_opts(2, 3);
    assert_refused(ctx, GATE(&score.t, NULL, &index.t, &weight.t, NULL), SLG_ERR_RANGE, "bias",
                   &weight);
    o = gate_opts(2, 0);
    ok(GATE(&score.t, NULL, &index.t, &weight.t, NULL));
    ((int32_t *)index.t.data)[3] = 5;
    assert_refused(
        ctx, slg_moe_gate_backward(ctx, &index.t, &weight.t, &weight.t, &o, &wide.t, NULL),
        SLG_ERR_RANGE, "index holds 5 at row 1", &wide);
    assert_refused(ctx, slg_moe_balance(ctx, &score.t, NULL, &index.t, NULL, NULL, &out),
                   SLG_ERR_RANGE, "index holds 5", &wide);
    assert_refused(ctx, slg_moe_balance(ctx, &score.t, NULL, &index.t, NULL, NULL, NULL),
                   SLG_ERR_NULL, "out", &wide);
    slg_moe_balance_opts lo;
    slg_moe_balance_opts_init(&lo, sizeof lo);
    lo.z = -1;
    assert_refused(ctx, slg_moe_balance(ctx, &score.t, NULL, &index.t, NULL, &lo, &out),
                   SLG_ERR_RANGE, "z is -1", &wide);
    assert_refused(ctx,
                   slg_moe_route(ctx, &score.t, &weight.t, NULL, NULL, &o, NULL, &index.t,
                                 &weight.t, NULL, NULL),
                   SLG_ERR_SHAPE, "beta1", &weight);
    array *all[] = { &score, &bias, &index, &weight, &wide };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_formula),         EACH_ISA(test_backward),      EACH_ISA(test_route),
        EACH_ISA(test_identities),      EACH_ISA(test_edges),         EACH_ISA(test_balance),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_errors)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
