/* Recursions over a table and simulation: slg_dilated_bonus, slg_occupancy, slg_simulate. */
#include "mdp_test.h"

typedef struct world {
    int64_t h, s, a;
    double *bonus, *transition, *policy, *start; /* the transitions of all layers */
} world;

static world world_new(int64_t h, int64_t s, int64_t a)
{
    world w = {
        h, s, a, zeros(h * s * a, 8), zeros(h * s * a * s, 8), zeros(h * s * a, 8), zeros(s, 8)
    };
    uniforms(h * s * a, w.bonus), distributions(h * s * a, s, w.transition);
    distributions(h * s, a, w.policy), distributions(1, s, w.start);
    return w;
}

static void world_free(world *w)
{
    free(w->bonus), free(w->transition), free(w->policy), free(w->start);
}

/* dilation NAN: 1 / H. layers: of the transitions that are given. */
static void dilated(slg_ctx *ctx, const world *w, int64_t layers, double dilation,
                    double *total, double *value)
{
    slg_dilated_bonus_opts o;
    slg_dilated_bonus_opts_init(&o, sizeof o);
    o.dilation = dilation;
    slg_tensor b = F64_3(w->bonus, w->h, w->s, w->a), pi = F64_3(w->policy, w->h, w->s, w->a);
    slg_tensor p = F64_4(w->transition, w->h, w->s, w->a, w->s);
    slg_tensor t = F64_3(total, w->h, w->s, w->a), v = F64_2(value, w->h, w->s);
    p.shape[0] = layers;
    OK(ctx, slg_dilated_bonus(ctx, &b, layers >= 0 ? &p : NULL, &pi, &o, &t, &v));
}

/* B(s, a) by walking the whole tree below it. */
static double walk(const world *w, int64_t h, int64_t s, int64_t a, double factor)
{
    const int64_t at = (h * w->s + s) * w->a + a;
    double sum = w->bonus[at];
    for (int64_t t = 0; t < w->s && h < w->h - 1; t++)
        for (int64_t b = 0; b < w->a; b++)
            sum += factor * w->transition[at * w->s + t] *
                   w->policy[((h + 1) * w->s + t) * w->a + b] * walk(w, h + 1, t, b, factor);
    return sum;
}

static void test_tree(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = { { 3, 4, 3 }, { 1, 5, 2 }, { 5, 2, 2 }, { 4, 1, 1 } };
    FOR_EACH_ISA(ctx, 2)
    for (int trial = 0; trial < 12; trial++) {
        const int64_t *z = sizes[trial % 4];
        world w = world_new(z[0], z[1], z[2]);
        const int64_t n = w.h * w.s * w.a;
        const double dilation = trial < 4 ? NAN : trial < 8 ? 0 : 0.7;
        double *total = zeros(n, 8), *value = zeros(w.h * w.s, 8), *again = zeros(n, 8);
        dilated(ctx, &w, w.h, dilation, total, value);
        for (int64_t i = 0; i < n; i++) {
            const double factor = 1 + (isnan(dilation) ? 1 / (double)w.h : dilation);
            const double want = walk(&w, i / (w.s * w.a), i / w.a % w.s, i % w.a, factor);
            assert_true(fabs(total[i] - want) <= 1e-13 * want);
            if (w.h == 1) assert_true(total[i] == w.bonus[i]);
        }
        for (int64_t i = 0; i < w.h * w.s; i++)
            assert_true(fabs(value[i] - dot(w.a, w.policy + i * w.a, total + i * w.a)) <=
                        1e-14 * value[i]);
        /* The last layer's transitions are not read. */
        for (int64_t i = (w.h - 1) * w.s * w.a * w.s; i < n * w.s; i++) w.transition[i] = NAN;
        dilated(ctx, &w, w.h - 1, dilation, again, value);
        assert_memory_equal(total, again, (size_t)n * 8);
        if (w.h == 1) dilated(ctx, &w, -1, dilation, again, value);
        assert_memory_equal(total, again, (size_t)n * 8);
        free(total), free(value), free(again), world_free(&w);
    }
}

/* Two ways to one number: sum of occupancy times loss, and the value at the start. */
static void test_occupancy(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int trial = 0; trial < 12; trial++) {
        world w = world_new(1 + trial % 4, 6, 3);
        const int64_t n = w.h * w.s * w.a, each = w.s * w.a;
        double *total = zeros(n, 8), *value = zeros(w.h * w.s, 8), *q = zeros(n, 8);
        const bool given = trial >= 4;
        slg_tensor p = F64_4(w.transition, w.h, w.s, w.a, w.s), s = F64_1(w.start, w.s);
        slg_tensor pi = F64_3(w.policy, w.h, w.s, w.a), out = F64_3(q, w.h, w.s, w.a);
        if (trial >= 8) { /* a state that nothing leads to: nothing there is looked at */
            w.start[2] = 0;
            for (int64_t i = 0; i < n; i++) w.transition[i * w.s + 2] = 0;
            for (int64_t i = 0; i < n; i++)
                if (i / w.a % w.s == 2) w.transition[i * w.s] = w.policy[i] = NAN;
        }
        OK(ctx, slg_occupancy(ctx, &p, &pi, given ? &s : NULL, &out));
        for (int64_t i = 0; i < n; i++)
            assert_true(trial < 8 || i / w.a % w.s != 2 || q[i] == 0);
        for (int64_t h = 0; h < w.h && trial < 8; h++) {
            double sum = 0;
            for (int64_t i = 0; i < each; i++) sum += q[h * each + i];
            assert_true(fabs(sum - 1) <= 1e-14);
        }
        if (trial < 8) {
            dilated(ctx, &w, w.h, 0, total, value);
            const double want = given ? dot(w.s, w.start, value) : value[0];
            assert_true(fabs(dot(n, q, w.bonus) - want) <= 1e-14 * want);
        }
        free(total), free(value), free(q), world_free(&w);
    }
}

/* Types; one transition for all layers; in place. */
static void test_table_types(void **state)
{
    (void)state;
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16, SLG_F64 };
    enum { H = 3, S = 4, A = 2, N = H * S * A };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int k = 0; k < 4; k++) {
        world w = world_new(H, S, A), exact = world_new(H, S, A);
        char p[S * A * S * 8], pi[N * 8], b[N * 8];
        const size_t item = item_size(types[k]);
        for (int64_t i = 0; i < S * A * S; i++) {
            put_item(types[k], p + (size_t)i * item, w.transition[i]);
            for (int64_t h = 0; h < H; h++)
                exact.transition[h * S * A * S + i] = get_item(types[k], p + (size_t)i * item);
        }
        for (int64_t i = 0; i < N; i++) {
            put_item(types[k], pi + (size_t)i * item, w.policy[i]);
            put_item(types[k], b + (size_t)i * item, w.bonus[i]);
            exact.policy[i] = get_item(types[k], pi + (size_t)i * item);
            exact.bonus[i] = get_item(types[k], b + (size_t)i * item);
        }
        double want[N], value[H * S], got[N], q[N], wanted_q[N];
        slg_tensor pt = view(p, types[k], H, S, A, S), it = view(pi, types[k], H, S, A, 0);
        slg_tensor bt = view(b, types[k], H, S, A, 0), out = F64_3(got, H, S, A);
        slg_tensor qt = F64_3(q, H, S, A), st = slg_tensor_1d(NULL, SLG_F32, S);
        float start[S] = { 0, 0.5f, 0.25f, 0.25f };
        st.data = start;
        pt.stride[0] = 0;
        OK(ctx, slg_dilated_bonus(ctx, &bt, &pt, &it, NULL, &out, NULL));
        dilated(ctx, &exact, H, NAN, want, value);
        assert_memory_equal(got, want, sizeof got);
        OK(ctx, slg_occupancy(ctx, &pt, &it, &st, &qt));
        slg_tensor ep = F64_4(exact.transition, H, S, A, S), ei = F64_3(exact.policy, H, S, A);
        slg_tensor wq = F64_3(wanted_q, H, S, A);
        OK(ctx, slg_occupancy(ctx, &ep, &ei, &st, &wq));
        assert_memory_equal(q, wanted_q, sizeof q);
        if (types[k] == SLG_F32 || types[k] == SLG_F64) {
            OK(ctx, slg_dilated_bonus(ctx, &bt, &pt, &it, NULL, &bt, NULL));
            for (int64_t i = 0; i < N; i++)
                assert_true(get_item(types[k], b + (size_t)i * item) ==
                            as_dtype(types[k], want[i]));
        }
        world_free(&w), world_free(&exact);
    }
    slg_ctx_free(ctx);
}

static void test_table_threads(void **state)
{
    (void)state;
    enum { H = 3, S = 700, A = 2, N = H * S * A };
    world w = world_new(H, S, A);
    double *t = zeros(N, 8), *v = zeros(H * S, 8), *q = zeros(N, 8), *first = zeros(2 * N, 8);
    slg_tensor p = F64_4(w.transition, H, S, A, S), pi = F64_3(w.policy, H, S, A);
    slg_tensor out = F64_3(q, H, S, A);
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++)
        for (int32_t threads = 1; threads <= 8; threads += threads > 2 ? 5 : 1) {
            slg_ctx *ctx = context(isa, threads);
            if (!ctx) continue;
            dilated(ctx, &w, H, NAN, t, v);
            OK(ctx, slg_occupancy(ctx, &p, &pi, NULL, &out));
            if (isa + threads == 2) memcpy(first, t, N * 8), memcpy(first + N, q, N * 8);
            assert_memory_equal(first, t, N * 8);
            assert_memory_equal(first + N, q, N * 8);
            slg_ctx_free(ctx);
        }
    free(t), free(v), free(q), free(first), world_free(&w);
}

static void test_table_errors(void **state)
{
    (void)state;
    enum { H = 2, S = 3, A = 2, N = H * S * A };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    world w = world_new(H, S, A);
    double total[N], value[H * S], q[N];
    for (int i = 0; i < N; i++) total[i] = q[i] = value[i % (H * S)] = -9;
    slg_dilated_bonus_opts o;
    slg_tensor b, p, pi, t, v, s, out;
    const slg_tensor *pp;
#define RESET(...)                                                                             \
    slg_dilated_bonus_opts_init(&o, sizeof o);                                                 \
    b = F64_3(w.bonus, H, S, A), p = F64_4(w.transition, H, S, A, S), pp = &p;                 \
    pi = F64_3(w.policy, H, S, A), t = F64_3(total, H, S, A), v = F64_2(value, H, S);          \
    s = F64_1(w.start, S), out = F64_3(q, H, S, A);                                            \
    __VA_ARGS__
#define BAD(status, text, ...)                                                                 \
    do {                                                                                       \
        RESET(__VA_ARGS__);                                                                    \
        REFUSED_AS(ctx, slg_dilated_bonus(ctx, &b, pp, &pi, &o, &t, &v), status, text);        \
    } while (0)
#define BAD_Q(status, text, ...)                                                               \
    do {                                                                                       \
        RESET(__VA_ARGS__);                                                                    \
        REFUSED_AS(ctx, slg_occupancy(ctx, pp, &pi, &s, &out), status, text);                  \
    } while (0)
    BAD(SLG_ERR_RANGE, "dilation", o.dilation = -1);
    BAD(SLG_ERR_RANGE, "dilation", o.dilation = INFINITY);
    BAD(SLG_ERR_OPTIONS, "reserved", o.reserved = 1);
    BAD(SLG_ERR_NULL, "transition", pp = NULL);
    BAD(SLG_ERR_SHAPE, "transition", p.shape[0] = 4);
    BAD(SLG_ERR_SHAPE, "transition", p.shape[3] = 2);
    BAD(SLG_ERR_SHAPE, "policy", pi.shape[2] = 1);
    BAD(SLG_ERR_SHAPE, "a table of 0", b.shape[0] = 0);
    BAD(SLG_ERR_SHAPE, "total", t.shape[1] = 2);
    BAD(SLG_ERR_SHAPE, "value", v.shape[1] = 2);
    BAD(SLG_ERR_DTYPE, "total", t.dtype = SLG_F16);
    BAD(SLG_ERR_DTYPE, "transition", p.dtype = SLG_I32);
    BAD(SLG_ERR_STRIDE, "overlaps", t.data = w.policy + 1);
    BAD(SLG_ERR_STRIDE, "overlaps", v.data = total);
    BAD_Q(SLG_ERR_NULL, "transition", pp = NULL);
    BAD_Q(SLG_ERR_SHAPE, "start", s.shape[0] = 2);
    BAD_Q(SLG_ERR_SHAPE, "occupancy", out.shape[0] = 1);
    BAD_Q(SLG_ERR_SHAPE, "transition", p.shape[1] = 2);
    BAD_Q(SLG_ERR_DTYPE, "policy", pi.dtype = SLG_I64);
    BAD_Q(SLG_ERR_STRIDE, "overlaps", out.data = w.policy + 1);
#undef RESET
#undef BAD
#undef BAD_Q
    assert_int_equal(slg_dilated_bonus(NULL, &b, &p, &pi, &o, &t, &v), SLG_ERR_NULL);
    assert_int_equal(slg_occupancy(NULL, &p, &pi, &s, &out), SLG_ERR_NULL);
    for (int i = 0; i < N; i++)
        assert_true(total[i] == -9 && q[i] == -9 && value[i % (H * S)] == -9);
    world_free(&w);
    slg_ctx_free(ctx);
}

/* ---- Simulation -------------------------------------------------------------------------- */

enum { LAYERS = 3, WIDTH = 2 };

typedef struct player {
    slg_ctx *ctx;
    int64_t fail_at, calls;
    int64_t extra; /* numbers drawn beyond those needed by odd trajectories */
} player;

/* Uniform numbers, by the library; odd trajectories draw more. */
static slg_status trajectory(void *user, int64_t episode, int64_t m, slg_rng *rng,
                             double *visited, double *losses)
{
    player *p = user;
    p->calls++;
    if (m == p->fail_at) return SLG_ERR_STOPPED;
    slg_tensor v = F64_2(visited, LAYERS, WIDTH), l = F64_1(losses, LAYERS);
    slg_status status = slg_random(p->ctx, rng, SLG_UNIFORM, &v);
    if (status == SLG_OK && losses) status = slg_random(p->ctx, rng, SLG_UNIFORM, &l);
    visited[0] += (double)episode;
    if (m % 2) rng->offset += (uint64_t)p->extra;
    return status;
}

static void test_simulate(void **state)
{
    (void)state;
    enum { M = 5 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    player p = { .ctx = ctx, .fail_at = -5, .extra = 7 };
    double v[LAYERS][M][WIDTH], l[LAYERS][M], one[LAYERS * WIDTH + LAYERS];
    slg_tensor vt = F64_3(v, LAYERS, M, WIDTH), lt = F64_2(l, LAYERS, M);
    for (int64_t draws = 0; draws <= 100; draws += 100) {
        slg_rng rng = { 3, 40 };
        OK(ctx, slg_simulate(ctx, trajectory, &p, 9, draws, &rng, &vt, &lt));
        const uint64_t each = draws ? (uint64_t)draws : UINT64_C(1) << 32;
        assert_true(rng.seed == 3 && rng.offset == 40 + M * each);
        for (int m = 0; m < M; m++) {
            slg_rng own = { 3, 40 + (uint64_t)m * each };
            slg_tensor t = F64_1(one, LAYERS * WIDTH + LAYERS);
            OK(ctx, slg_random(ctx, &own, SLG_UNIFORM, &t));
            one[0] += 9;
            for (int h = 0; h < LAYERS; h++) {
                assert_true(l[h][m] == one[LAYERS * WIDTH + h]);
                for (int i = 0; i < WIDTH; i++) assert_true(v[h][m][i] == one[h * WIDTH + i]);
            }
        }
    }
    /* Pairs of a table are whole numbers; without losses; none at all. */
    int32_t pair[LAYERS][M][WIDTH];
    slg_rng rng = { 3, 40 };
    slg_tensor pt = view(pair, SLG_I32, LAYERS, M, WIDTH, 0);
    OK(ctx, slg_simulate(ctx, trajectory, &p, 4, 100, &rng, &pt, NULL));
    for (int m = 0; m < M; m++) assert_true(pair[0][m][0] == 4 || pair[0][m][0] == 5);
    p.calls = 0, rng.offset = 1;
    slg_tensor none = F64_3(v, LAYERS, M, WIDTH);
    none.shape[1] = 0;
    OK(ctx, slg_simulate(ctx, trajectory, &p, 4, 100, &rng, &none, NULL));
    assert_true(p.calls == 0 && rng.offset == 1);
    slg_ctx_free(ctx);
}

static void test_simulate_errors(void **state)
{
    (void)state;
    enum { M = 4 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    player p = { .ctx = ctx, .fail_at = -5 };
    double v[LAYERS][M][WIDTH], l[LAYERS][M];
    memset(v, 0x41, sizeof v), memset(l, 0x41, sizeof l);
    double kept_v[LAYERS][M][WIDTH], kept_l[LAYERS][M];
    memcpy(kept_v, v, sizeof v), memcpy(kept_l, l, sizeof l);
    slg_rng rng = { 3, 40 };
    slg_tensor vt, lt;
    slg_rng *r;
    int64_t draws;
#define BAD(status, text, ...)                                                                 \
    do {                                                                                       \
        vt = F64_3(v, LAYERS, M, WIDTH), lt = F64_2(l, LAYERS, M);                             \
        p.fail_at = -5, p.extra = 0, draws = 100, r = &rng;                                    \
        __VA_ARGS__;                                                                           \
        REFUSED_AS(ctx, slg_simulate(ctx, trajectory, &p, 0, draws, r, &vt, &lt), status,      \
                   text);                                                                      \
    } while (0)
    BAD(SLG_ERR_STOPPED, "fn returned -11", p.fail_at = 2);
    BAD(SLG_ERR_RANGE, "trajectory 1 drew 109", p.extra = 100);
    BAD(SLG_ERR_RANGE, "trajectory 0 drew 9", draws = 8);
    BAD(SLG_ERR_RANGE, "draws", draws = -1);
    BAD(SLG_ERR_NULL, "rng", r = NULL);
    BAD(SLG_ERR_SHAPE, "losses", lt.shape[1] = 2);
    BAD(SLG_ERR_SHAPE, "visited", vt = F64_2(v, LAYERS, M));
    BAD(SLG_ERR_DTYPE, "visited", vt.dtype = SLG_F16);
    BAD(SLG_ERR_DTYPE, "losses", lt.dtype = SLG_I32);
    BAD(SLG_ERR_STRIDE, "overlap", lt.data = v);
#undef BAD
    REFUSED_AS(ctx, slg_simulate(ctx, NULL, NULL, 0, 0, &rng, &vt, &lt), SLG_ERR_NULL, "fn");
    assert_int_equal(slg_simulate(NULL, trajectory, &p, 0, 0, &rng, &vt, &lt), SLG_ERR_NULL);
    assert_memory_equal(v, kept_v, sizeof v);
    assert_memory_equal(l, kept_l, sizeof l);
    assert_true(rng.offset == 40);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_occupancy),
        cmocka_unit_test(test_table_types),
        cmocka_unit_test(test_table_threads),
        cmocka_unit_test(test_table_errors),
        cmocka_unit_test(test_simulate),
        cmocka_unit_test(test_simulate_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
