/* Surrogate steps: what they converge to, and what the two ways of taking them share. */
#include "sso_test.h"

static const int32_t inners[] = { SLG_INNER_ARMIJO, SLG_INNER_FIXED, SLG_INNER_CONJUGATE };

/* One fixed step is a step of gradient descent on the loss. */
static void test_one_step(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind < 3; kind++)
        for (int way = 0; way < 4; way++) {
            world *w = world_new(ctx, kind, N, M);
            w->bent = way == 3;
            float theta[DIM], from[DIM], z[N * M], g[N * M], d[DIM];
            slg_sso_opts o = options(SLG_INNER_FIXED, 1);
            o.surrogate = kind == SLG_TARGET_SOFTMAX && way == 2;
            o.eta = 1;
            slg_sso *s = driver(w, way == 0, &o);
            start(w, theta);
            memcpy(from, theta, sizeof from);
            const slg_sso_report r = advance(w, s, theta);
            const double loss = loss_at(w, kind, from, z, g);
            backward(w, from, g, d);
            assert_true(near(r.loss, loss, 1e-5 * loss) && r.taken == 1 && r.batch == N);
            double norm = 0;
            for (int i = 0; i < DIM; i++) {
                norm += (double)d[i] * (double)d[i];
                assert_true(
                    near((double)theta[i], (double)from[i] - 0.25 * (double)d[i] / N, 1e-6));
            }
            assert_true(near(r.inner_norm, sqrt(norm) / N, 1e-5));
            slg_sso_free(s), world_free(w);
        }
    (void)state;
}

/* The built-in model on lines, and the same as callbacks with forwards. */
static void test_ways_agree(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind < 3; kind++)
        for (int inner = 0; inner < 2; inner++) {
            world *w = world_new(ctx, kind, N, M);
            slg_sso_opts o = options(inners[inner], 4);
            o.final_value = 1, o.batch = 11, o.seed = 3;
            slg_sso *a = driver(w, true, &o), *b = driver(w, false, &o);
            float p[DIM], q[DIM];
            start(w, p), start(w, q);
            for (int t = 0; t < 5; t++) {
                const slg_sso_report x = advance(w, a, p), y = advance(w, b, q);
                assert_true(near(x.loss, y.loss, 1e-4 * y.loss));
                assert_true(near(x.value, y.value, 1e-4 * fabs(y.value) + 1e-6));
                assert_int_equal(x.taken, 4), assert_int_equal(y.taken, 4);
                if (t == 0) assert_int_equal(x.trials, y.trials);
                assert_int_equal(x.batch, 11);
                for (int i = 0; i < DIM; i++)
                    assert_true(near((double)p[i], (double)q[i], 2e-4));
                memcpy(q, p, sizeof q);
            }
            slg_sso_free(a), slg_sso_free(b), world_free(w);
        }
    (void)state;
}

/* W_t - eta X^+ G in double, for tall X (n > D) and wide. */
static void minimiser(world *w, int32_t kind, const float *theta, double eta, double *best)
{
    float z[N * M], g[N * M];
    double a[N * N] = { 0 }, b[N * M] = { 0 };
    const int64_t n = w->n, m = w->m, size = n > D ? D : n;
    loss_at(w, kind, theta, z, g);
    for (int64_t i = 0; i < n * D; i++)
        for (int64_t k = 0; k < (n > D ? D : n); k++) {
            const double x = (double)w->x[i];
            if (n > D)
                a[i % D * D + k] += x * (double)w->x[i / D * D + k];
            else
                a[i / D * n + k] += x * (double)w->x[k * D + i % D];
        }
    for (int64_t i = 0; i < n * m; i++) {
        if (n <= D) b[i] = (double)g[i];
        for (int64_t k = 0; k < D && n > D; k++)
            b[k * m + i % m] += (double)w->x[i / m * D + k] * (double)g[i];
    }
    solve(size, m, a, b);
    for (int64_t j = 0; j < D * m; j++) {
        double move = n > D ? b[j] : 0;
        for (int64_t i = 0; i < n && n <= D; i++)
            move += (double)w->x[i * D + j / m] * b[i * m + j % m];
        best[j] = (double)theta[j] - eta * move;
    }
}

static void test_minimiser(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind < 3; kind++)
        for (int wide = 0; wide < 2; wide++)
            for (int inner = 0; inner < 3; inner++) {
                world *w = world_new(ctx, kind, wide ? 3 : N, M);
                slg_sso_opts o = options(inners[inner], inner == 2 ? 30 : 3000);
                o.eta = eta_of[kind] / 2, o.step = inner ? 0.05 * o.eta : 10;
                float theta[DIM], z[N * M], g[N * M];
                double best[DIM];
                start(w, theta);
                minimiser(w, kind, theta, o.eta, best);
                slg_sso *s = driver(w, true, &o);
                const slg_sso_report r = advance(w, s, theta);
                for (int i = 0; i < DIM; i++)
                    if (!near((double)theta[i], best[i], 1e-4))
                        fail_msg("kind %d, wide %d, inner %d: %g, should be %g (%d, %d steps)",
                                 kind, wide, inner, (double)theta[i], best[i], r.reason,
                                 (int)r.taken);
                assert_true(r.value < 0);
                if (inner == 2) assert_true(r.taken <= 2 * D);
                /* Squared error, eta = 1: the least squares solution, where J'G = 0. */
                if (kind == SLG_TARGET_SQUARED) {
                    o.eta = 1;
                    slg_sso *one = driver(w, true, &o);
                    start(w, theta);
                    advance(w, one, theta);
                    loss_at(w, kind, theta, z, g);
                    float d[DIM];
                    backward(w, theta, g, d);
                    for (int i = 0; i < DIM; i++) assert_true(fabs((double)d[i]) < 2e-3);
                    slg_sso_free(one);
                }
                slg_sso_free(s), world_free(w);
            }
    (void)state;
}

/* Full batch, eta = 1 / L: the loss falls monotonically, bent models and KL included. */
static void test_monotone(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind < 3; kind++)
        for (int way = 0; way < 5; way++) {
            world *w = world_new(ctx, kind, N, M);
            w->bent = way >= 3;
            slg_sso_opts o = options(way == 1 ? SLG_INNER_CONJUGATE : SLG_INNER_ARMIJO, 8);
            if (way % 2 == 0 && kind == SLG_TARGET_SOFTMAX) o.surrogate = SLG_SURROGATE_KL;
            slg_sso *s = driver(w, way < 2, &o);
            float theta[DIM], z[N * M], g[N * M];
            start(w, theta);
            double last = INFINITY, first = loss_at(w, kind, theta, z, g);
            for (int t = 0; t < 25; t++) {
                const slg_sso_report r = advance(w, s, theta);
                assert_true(r.loss <= last * (1 + 1e-6) && r.value <= 1e-6);
                assert_true(r.eta == (o.surrogate ? 1 : eta_of[kind]));
                last = r.loss;
            }
            assert_true(loss_at(w, kind, theta, z, g) <= last * (1 + 1e-6));
            assert_true(last < first);
            slg_sso_free(s), world_free(w);
        }
    (void)state;
}

/* Any optimizer as the inner one. */
static void test_optimizer(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    world *w = world_new(ctx, SLG_TARGET_SOFTMAX, N, M);
    slg_sgd_opts sgd;
    slg_sgd_opts_init(&sgd, sizeof sgd);
    sgd.lr = 0.25;
    slg_optimizer *opt, *adam;
    OK(ctx, slg_optimizer_create(ctx, SLG_SGD, DIM, &sgd, &opt));
    OK(ctx, slg_optimizer_create(ctx, SLG_ADAMW, DIM, NULL, &adam));
    slg_sso_opts o = options(SLG_INNER_FIXED, 7), p = options(SLG_INNER_OPTIMIZER, 7), q = p;
    p.optimizer = opt, q.optimizer = adam, q.final_value = 1, q.inner_steps = 100;
    slg_sso *fixed = driver(w, true, &o), *same = driver(w, true, &p),
            *other = driver(w, 0, &q);
    float a[DIM], b[DIM];
    start(w, a), start(w, b);
    advance(w, fixed, a);
    slg_sso_report r = advance(w, same, b);
    for (int i = 0; i < DIM; i++) assert_true(near((double)a[i], (double)b[i], 1e-6));
    assert_true(isnan(r.value) && r.taken == 7 && r.forwards == 7 && r.backwards == 7);
    assert_int_equal(slg_optimizer_steps(opt), 7);
    r = advance(w, other, b);
    assert_true(r.value < 0 && r.taken == 100 && r.forwards == 101);
    slg_sso_free(fixed), slg_sso_free(same), slg_sso_free(other);
    slg_optimizer_free(opt), slg_optimizer_free(adam);
    world_free(w);
    slg_ctx_free(ctx);
    (void)state;
}

/* ---- Schedules and batches --------------------------------------------------------------- */

static void test_schedules(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t schedule = SLG_ETA_CONSTANT; schedule <= SLG_ETA_SEARCH; schedule++) {
        world *w = world_new(ctx, SLG_TARGET_LOGISTIC, N, 1);
        slg_sso_opts o = options(SLG_INNER_ARMIJO, 3);
        o.schedule = schedule, o.eta = 3, o.total_steps = 8;
        slg_sso *s = driver(w, true, &o);
        float theta[DIM], z[N], g[N];
        double squares = 0, last = 3;
        start(w, theta);
        for (int t = 0; t < 8; t++) {
            loss_at(w, SLG_TARGET_LOGISTIC, theta, z, g);
            slg_target_search_out out = { .size = sizeof out };
            const slg_tensor tz = slg_tensor_2d(z, SLG_F32, N, 1),
                             tg = slg_tensor_2d(g, SLG_F32, N, 1);
            OK(ctx, slg_target_search(ctx, SLG_TARGET_LOGISTIC, &tz, &w->data.t, &tg, last,
                                      NULL, &out));
            const slg_sso_report r = advance(w, s, theta);
            squares += r.gradient_norm * r.gradient_norm;
            const double want[] = { 3, 3 / sqrt(t + 1.0), 3 * pow(1.0 / 8, (t + 1) / 8.0),
                                    3 / (sqrt(squares) + 1e-6), out.step };
            if (!near(r.eta, want[schedule], 1e-6 * r.eta))
                fail_msg("schedule %d, step %d: %g, should be %g", schedule, t, r.eta,
                         want[schedule]);
            assert_int_equal(r.losses > 0, schedule == SLG_ETA_SEARCH);
            last = r.eta;
        }
        slg_sso_free(s), world_free(w);
    }
    slg_ctx_free(ctx);
    (void)state;
}

static void test_batches(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t order = SLG_BATCH_DRAWN; order <= SLG_BATCH_IN_ORDER; order++) {
        world *w = world_new(ctx, SLG_TARGET_SQUARED, N, M);
        slg_sso_opts o = options(SLG_INNER_ARMIJO, 1);
        o.order = order, o.batch = 8, o.seed = 9;
        slg_sso *s = driver(w, false, &o);
        float theta[DIM];
        int64_t seen[N] = { 0 }, first[8], moved = 0;
        start(w, theta);
        for (int t = 0; t < 400; t++) {
            const slg_sso_report r = advance(w, s, theta);
            const int64_t want = order && t % 4 == 3 ? N - 24 : 8;
            int64_t own[N] = { 0 };
            assert_true(r.batch == want && w->count == want && r.steps == t + 1);
            for (int64_t i = 0; i < want; i++) {
                assert_true(w->batch[i] >= 0 && w->batch[i] < N && !own[w->batch[i]]++);
                seen[w->batch[i]]++;
                if (t == 0) first[i] = w->batch[i];
                moved += t == 4 && w->batch[i] != first[i];
                if (order == SLG_BATCH_IN_ORDER) assert_true(w->batch[i] == t % 4 * 8 + i);
            }
        }
        for (int i = 0; i < N; i++) /* 100 epochs; drawn: 106.7 each, sd 8.9 */
            assert_true(order ? seen[i] == 100 : fabs((double)seen[i] - 106.7) < 40);
        assert_int_equal(moved > 0, order != SLG_BATCH_IN_ORDER);
        slg_sso_free(s), world_free(w);
    }
    slg_ctx_free(ctx);
    (void)state;
}

/* From a report on: the same bits; threads change none. */
static void test_restore(void **state)
{
    for (int32_t order = 0; order < 3; order++)
        for (int32_t schedule = SLG_ETA_ADAGRAD; schedule <= SLG_ETA_SEARCH; schedule++) {
            float want[DIM], got[DIM];
            for (int32_t threads = 1; threads <= 8; threads = threads * 2 + 1)
                for (int cut = 0; cut < 8; cut += 3) {
                    slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
                    seed = 77;
                    world *w = world_new(ctx, SLG_TARGET_SOFTMAX, N, M);
                    slg_sso_opts o = options(SLG_INNER_ARMIJO, 3);
                    o.order = order, o.schedule = schedule, o.batch = 7, o.seed = 1;
                    slg_sso *s = driver(w, true, &o);
                    slg_sso_report r = { .size = sizeof r };
                    start(w, got);
                    for (int t = 0; t < 12; t++) {
                        if (t == cut && cut) {
                            slg_sso_free(s);
                            s = driver(w, true, &o);
                            OK(ctx, slg_sso_restore(s, &r));
                        }
                        r = advance(w, s, got);
                    }
                    assert_true(r.steps == 12 && r.oracle_calls == 12 && r.forwards == 12);
                    assert_true(r.inner_steps == r.tangents && r.backwards >= r.tangents);
                    if (threads == 1 && cut == 0) memcpy(want, got, sizeof want);
                    assert_memory_equal(want, got, sizeof want);
                    slg_sso_free(s), world_free(w);
                    slg_ctx_free(ctx);
                }
        }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_step),  cmocka_unit_test(test_ways_agree),
        cmocka_unit_test(test_minimiser), cmocka_unit_test(test_monotone),
        cmocka_unit_test(test_optimizer), cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_batches),   cmocka_unit_test(test_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
