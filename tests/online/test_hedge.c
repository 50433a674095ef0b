/* Optimistic Hedge and the ensemble of descents: against their formulas, edges. */
#include "online_test.h"

enum { N = 4, ROUNDS = 40 };

/* p from sums and hints, in the plainest way. */
static void reference(int n, double eps, const double *total, const double *hint, double *p)
{
    double sum = 0, top = -INFINITY;
    for (int i = 0; i < n; i++) top = fmax(top, -eps * (total[i] + hint[i]));
    for (int i = 0; i < n; i++) sum += p[i] = exp(-eps * (total[i] + hint[i]) - top);
    for (int i = 0; i < n; i++) p[i] /= sum;
}

/* Hints of the caller, the last losses, none. */
static void test_formula(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int way = 0; way < 3; way++) {
        slg_hedge_opts o;
        slg_hedge_opts_init(&o, sizeof o);
        o.bound = 0.5, o.hint = way == 2 ? SLG_HINT_ZERO : SLG_HINT_LAST;
        slg_learner *l = learner(ctx, SLG_HEDGE, N, &o);
        double total[N] = { 0 }, m[N] = { 0 }, v = 0, p[N], want[N];
        for (int t = 0; t < ROUNDS; t++) {
            float loss[N], hint[N];
            double most = 0;
            randoms(N, t % 7 ? 1 : 100, loss), randoms(N, 1, hint);
            for (int i = 0; i < N && way == 0; i++) m[i] = (double)hint[i];
            const double eps = sqrt(log(N) / (0.5 + v));
            assert_true(fabs(info_of(ctx, l).step - eps) <= 1e-14);
            decide(ctx, l, N, way == 0 ? hint : NULL, p);
            reference(N, eps, total, m, want);
            close_to(N, p, want, 1e-12);
            if (way) {
                part(ctx, l, SLG_LEARNER_WEIGHTS, N, p);
                close_to(N, p, want, 1e-12);
            }
            observe(ctx, l, N, way == 0 ? hint : NULL, loss);
            for (int i = 0; i < N; i++) {
                most = fmax(most, fabs((double)loss[i] - m[i]));
                total[i] += (double)loss[i];
                m[i] = way == 1 ? (double)loss[i] : 0;
            }
            v += most * most;
            part(ctx, l, SLG_LEARNER_TOTALS, N, p);
            close_to(N, p, total, 1e-13);
        }
        slg_learner_free(l);
    }
}

/* +inf: out for good, the others as if there were no such expert but for log N. */
static void test_infinite_losses(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_learner *l = learner(ctx, SLG_HEDGE, 3, NULL);
    const float first[3] = { 1, INFINITY, 2 }, later[3] = { 1, -5, 2 },
                nan_there[3] = { 0, NAN, 0 };
    double p[3], total[3] = { 1, INFINITY, 2 }, hint[3] = { 1, 0, 2 }, want[3];
    observe(ctx, l, 3, NULL, first);
    assert_true(info_of(ctx, l).variation == 4);
    for (int t = 0; t < 5; t++) {
        decide(ctx, l, 3, later, p);
        reference(3, sqrt(log(3) / 5), total, hint, want);
        assert_true(p[1] == 0 && want[1] == 0);
        close_to(3, p, want, 1e-12);
        observe(ctx, l, 3, later, later);
        total[0] += 1, total[2] += 2;
        observe(ctx, l, 3, nan_there, nan_there); /* not read where it is out */
    }
    /* The last ones cannot be taken out: nothing changes. */
    const float all[3] = { INFINITY, 0, INFINITY };
    slg_tensor t = slg_tensor_1d(all, SLG_F32, 3);
    int64_t bytes, same;
    unsigned char *before = export_state(ctx, l, &bytes);
    assert_int_equal(slg_learner_observe(l, NULL, &t), SLG_ERR_RANGE);
    assert_non_null(strstr(slg_ctx_message(ctx), "g is +inf for every expert"));
    unsigned char *after = export_state(ctx, l, &same);
    assert_memory_equal(before, after, (size_t)bytes);
    free(before), free(after);
    /* One of them may; what is left has all the weight. */
    const float one[3] = { INFINITY, 0, 7 };
    observe(ctx, l, 3, NULL, one);
    decide(ctx, l, 3, NULL, p);
    assert_true(p[0] == 0 && p[1] == 0 && p[2] == 1);
    slg_learner_free(l);
    slg_ctx_free(ctx);
}

static void test_one_expert(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_learner *l = learner(ctx, SLG_HEDGE, 1, NULL);
    for (int t = 0; t < 5; t++) {
        const float loss = (float)(100 * t);
        double p;
        decide(ctx, l, 1, NULL, &p);
        assert_true(p == 1 && info_of(ctx, l).step == 0);
        observe(ctx, l, 1, NULL, &loss);
    }
    const float inf = INFINITY;
    slg_tensor t = slg_tensor_1d(&inf, SLG_F32, 1);
    assert_int_equal(slg_learner_observe(l, NULL, &t), SLG_ERR_RANGE);
    slg_learner_free(l);
    slg_ctx_free(ctx);
}

/* Losses of 500 and 1e6 a round: no NaN, and the weights come back. */
static void test_large_losses(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_hedge_opts o;
    slg_hedge_opts_init(&o, sizeof o);
    o.bound = 1e-6;
    slg_learner *l = learner(ctx, SLG_HEDGE, 2, &o);
    const float there[2] = { 0, 1e6f }, back[2] = { 1e6f, 0 };
    double p[2];
    for (int t = 0; t < 100; t++) observe(ctx, l, 2, there, there); /* known: V stays 0 */
    decide(ctx, l, 2, there, p);
    assert_true(p[0] == 1 && p[1] == 0);
    for (int t = 0; t < 100; t++) observe(ctx, l, 2, back, back);
    const float none[2] = { 0 };
    decide(ctx, l, 2, none, p);
    assert_true(p[0] == 0.5 && p[1] == 0.5);
    slg_learner_free(l);
    slg_ctx_free(ctx);
}

/* ---- The ensemble ----------------------------------------------------------------------- */

enum { D = 3, EXPERTS = 6 };

/*
 * Ensemble = learners of constant steps and a Hedge, each of the library: in every domain, with
 * movement and without, with hints of the caller and without.
 */
static void test_ensemble(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < 20; variant++) {
        const int32_t domain = variant % 5;
        const bool given = variant >= 10;
        slg_omd_ensemble_opts o;
        slg_omd_ensemble_opts_init(&o, sizeof o);
        o.domain = domain, o.diameter = 2, o.grad_bound = 1.5, o.rounds = 500, o.lo = -1;
        o.movement = variant / 5 % 2 ? 0.25 : 0;
        o.cap = 0.75;
        slg_learner *l = learner(ctx, SLG_OMD_ENSEMBLE, D, &o), *e[EXPERTS];
        double eta = 2 / sqrt(8 * 1.5 * 1.5 * 500), steps[EXPERTS], v = 0;
        assert_int_equal(info_of(ctx, l).experts, EXPERTS);
        part(ctx, l, SLG_LEARNER_STEPS, EXPERTS, steps);
        for (int i = 0; i < EXPERTS; i++, eta *= 2) {
            slg_omd_opts c = omd_opts(domain, SLG_OMD_CONSTANT);
            c.eta = eta, c.lo = -1;
            assert_true(fabs(steps[i] - eta) <= 1e-15);
            e[i] = learner(ctx, SLG_OMD, D, &c);
        }
        assert_true(eta > 0.75 && eta / 2 <= 0.75);
        double total[EXPERTS] = { 0 }, last[EXPERTS][D] = { { 0 } }, m[D] = { 0 };
        for (int t = 0; t < ROUNDS; t++) {
            float g[D], h[D];
            double x[D], want[D] = { 0 }, play[EXPERTS][D], hint[EXPERTS], more[EXPERTS],
                         p[EXPERTS], most = 0;
            randoms(D, 1, g), randoms(D, 1, h);
            for (int j = 0; j < D && given; j++) m[j] = (double)h[j];
            for (int i = 0; i < EXPERTS; i++) {
                decide(ctx, e[i], D, given ? h : NULL, play[i]);
                more[i] = 0;
                for (int j = 0; j < D && t > 0; j++)
                    more[i] +=
                        o.movement * (play[i][j] - last[i][j]) * (play[i][j] - last[i][j]);
                hint[i] = dot(D, m, play[i]) + more[i];
            }
            reference(EXPERTS, sqrt(log(EXPERTS) / (4 * 2.25 + v)), total, hint, p);
            for (int i = 0; i < EXPERTS; i++)
                for (int j = 0; j < D; j++) want[j] += p[i] * play[i][j];
            decide(ctx, l, D, given ? h : NULL, x);
            close_to(D, x, want, 1e-11);
            observe(ctx, l, D, given ? h : NULL, g);
            for (int i = 0; i < EXPERTS; i++) {
                double loss = more[i];
                for (int j = 0; j < D; j++) loss += (double)g[j] * play[i][j];
                total[i] += loss;
                most = fmax(most, fabs(loss - hint[i]));
                observe(ctx, e[i], D, given ? h : NULL, g);
                memcpy(last[i], play[i], sizeof last[i]);
            }
            v += most * most;
            for (int j = 0; j < D; j++) m[j] = (double)g[j];
        }
        for (int i = 0; i < EXPERTS; i++) slg_learner_free(e[i]);
        slg_learner_free(l);
    }
}

/* One learner where the least step is past the cap; more rounds than were expected. */
static void test_grid(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_omd_ensemble_opts o;
    slg_omd_ensemble_opts_init(&o, sizeof o);
    o.rounds = 1, o.cap = 0.1;
    slg_learner *l = learner(ctx, SLG_OMD_ENSEMBLE, D, &o);
    double step, x[D], y[D];
    assert_int_equal(info_of(ctx, l).experts, 1);
    part(ctx, l, SLG_LEARNER_STEPS, 1, &step);
    assert_true(step == 0.1);
    slg_omd_opts c = omd_opts(SLG_DOMAIN_BALL, SLG_OMD_CONSTANT); /* eta 0.1 */
    slg_learner *k = learner(ctx, SLG_OMD, D, &c);
    for (int t = 0; t < 20; t++) {
        float g[D];
        randoms(D, 1, g);
        decide(ctx, l, D, NULL, x), decide(ctx, k, D, NULL, y);
        close_to(D, x, y, 1e-14);
        observe(ctx, l, D, NULL, g), observe(ctx, k, D, NULL, g);
    }
    assert_int_equal(slg_learner_rounds(l), 20);
    assert_int_equal(info_of(ctx, l).experts, 1);
    slg_learner_free(l), slg_learner_free(k);
    slg_omd_ensemble_opts_init(&o, sizeof o);
    o.radius = 0; /* a point */
    l = learner(ctx, SLG_OMD_ENSEMBLE, D, &o);
    const float g[D] = { 1, 2, 3 };
    observe(ctx, l, D, NULL, g);
    decide(ctx, l, D, NULL, x);
    for (int i = 0; i < D; i++) assert_true(x[i] == 0);
    slg_learner_free(l);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),    cmocka_unit_test(test_infinite_losses),
        cmocka_unit_test(test_one_expert), cmocka_unit_test(test_large_losses),
        cmocka_unit_test(test_ensemble),   cmocka_unit_test(test_grid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
