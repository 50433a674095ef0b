/* Optimistic mirror descent: optimality of its steps, what it reduces to, edges. Plays of an
   independent program are in tests/golden. */
#include "online_test.h"

enum { D = 5, FREE = SLG_DOMAIN_FREE, BALL, BOX, SIMPLEX, ENTROPY };

/* A random point of the set. */
static void point_of(const slg_omd_opts *o, double *y)
{
    double sum = 0;
    for (int i = 0; i < D; i++) {
        y[i] = o->domain < BOX    ? normal()
               : o->domain == BOX ? o->lo + (o->hi - o->lo) * uniform()
                                  : -log(uniform());
        sum += o->domain == BALL ? y[i] * y[i] : y[i];
    }
    for (int i = 0; i < D; i++) {
        if (o->domain == BALL) y[i] *= o->radius * pow(uniform(), 0.1) / sqrt(sum);
        if (o->domain >= SIMPLEX) y[i] /= sum;
    }
}

static void expect_inside(const slg_omd_opts *o, const double *x)
{
    double sum = 0, square = 0;
    for (int i = 0; i < D; i++) {
        sum += x[i], square += x[i] * x[i];
        if (o->domain == BOX) assert_true(x[i] >= o->lo && x[i] <= o->hi);
        if (o->domain >= SIMPLEX) assert_true(x[i] >= 0);
    }
    if (o->domain == BALL) assert_true(sqrt(square) <= o->radius * (1 + 1e-12));
    if (o->domain >= SIMPLEX) assert_true(fabs(sum - 1) <= 1e-12);
}

/* <eta m + grad psi(x) - grad psi(xhat), y - x> >= 0 for all y of the set. h: the metric. */
static void expect_optimal(const slg_omd_opts *o, const double *h, double eta, const float *m,
                           const double *center, const double *x)
{
    double slope[D], y[D];
    for (int i = 0; i < D; i++) {
        slope[i] = eta * (double)m[i];
        for (int j = 0; j < D; j++) slope[i] += h[i * D + j] * (x[j] - center[j]);
        if (o->domain == ENTROPY) slope[i] = eta * (double)m[i] + log(x[i]) - log(center[i]);
    }
    if (o->domain == FREE)
        for (int i = 0; i < D; i++) assert_true(fabs(slope[i]) <= 1e-9);
    for (int k = 0; k < 200; k++) {
        point_of(o, y);
        assert_true(dot(D, slope, y) - dot(D, slope, x) >= -1e-9);
    }
}

/* Every domain and mode, with hints of the caller; x_t and xhat_{t+1}, from xhat_t. */
static void test_optimality(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t mode = SLG_OMD_CONVEX; mode <= SLG_OMD_CONSTANT; mode++)
        for (int32_t domain = FREE; domain <= ENTROPY; domain++) {
            slg_omd_opts o = omd_opts(domain, mode);
            o.lo = -0.3, o.hi = 0.6, o.radius = 0.8, o.grad_bound = 1.5, o.beta = 0.7;
            if (mode == SLG_OMD_EXP_CONCAVE && domain > BALL) continue;
            slg_learner *l = learner(ctx, SLG_OMD, D, &o);
            double h[D * D] = { 0 }, x[D], before[D], after[D];
            const double first = mode == SLG_OMD_EXP_CONCAVE ? 1 + 0.35 * 2.25 : 1;
            float m[D], g[D];
            for (int i = 0; i < D; i++) h[i * D + i] = first;
            for (int t = 0; t < 60; t++) {
                randoms(D, t % 3 ? 1 : 10, m), randoms(D, t % 5 ? 1 : 10, g);
                const double eta = info_of(ctx, l).step;
                part(ctx, l, SLG_LEARNER_CENTER, D, before);
                decide(ctx, l, D, m, x);
                observe(ctx, l, D, m, g);
                part(ctx, l, SLG_LEARNER_CENTER, D, after);
                expect_inside(&o, x), expect_inside(&o, after);
                if (domain == ENTROPY && dot(D, x, x) > 0.999) continue; /* log of 0 */
                expect_optimal(&o, h, eta, m, before, x);
                expect_optimal(&o, h, eta, g, before, after);
                if (mode == SLG_OMD_EXP_CONCAVE)
                    for (int i = 0; i < D * D; i++)
                        h[i] += 0.35 * (double)g[i / D] * (double)g[i % D];
                /* The last gradients were long: what is left of the entropic state is small. */
                if (domain == ENTROPY && t % 10 == 9) OK(ctx, slg_learner_reset(l));
            }
            slg_learner_free(l);
        }
    slg_ctx_free(ctx);
}

/* H^-1 is the inverse of the sum of outer products, symmetric to the bit; beta from alpha. */
static void test_metric(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_omd_opts o = omd_opts(BALL, SLG_OMD_EXP_CONCAVE);
    o.radius = 2, o.grad_bound = 3, o.alpha = 0.5;
    const double beta = 0.5 / (4 * 3 * 4); /* 1 / (4 G diameter) is below alpha */
    slg_learner *l = learner(ctx, SLG_OMD, D, &o);
    double h[D * D] = { 0 }, inverse[D * D];
    float g[D];
    slg_tensor t = slg_tensor_2d(inverse, SLG_F64, D, D);
    for (int i = 0; i < D; i++) h[i * D + i] = 1 + beta * 9 / 2;
    for (int k = 0; k < 2000; k++) {
        randoms(D, 3, g);
        observe(ctx, l, D, NULL, g);
        for (int i = 0; i < D * D; i++) h[i] += beta / 2 * (double)g[i / D] * (double)g[i % D];
    }
    OK(ctx, slg_learner_read(l, SLG_LEARNER_INVERSE, &t));
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) {
            double sum = 0;
            for (int k = 0; k < D; k++) sum += inverse[i * D + k] * h[k * D + j];
            assert_true(fabs(sum - (i == j)) <= 1e-11);
            assert_true(inverse[i * D + j] == inverse[j * D + i]);
        }
    slg_learner_free(l);
    /* beta 0 is a constant step of 1, on the ball up to the rounding of its projection. */
    for (int32_t domain = FREE; domain <= BALL; domain++) {
        slg_omd_opts a = omd_opts(domain, SLG_OMD_EXP_CONCAVE);
        slg_omd_opts b = omd_opts(domain, SLG_OMD_CONSTANT);
        b.eta = 1;
        slg_learner *p = learner(ctx, SLG_OMD, D, &a), *q = learner(ctx, SLG_OMD, D, &b);
        double x[D], y[D];
        for (int k = 0; k < 50; k++) {
            randoms(D, 1, g);
            decide(ctx, p, D, NULL, x), decide(ctx, q, D, NULL, y);
            close_to(D, x, y, 1e-12);
            observe(ctx, p, D, NULL, g), observe(ctx, q, D, NULL, g);
        }
        slg_learner_free(p), slg_learner_free(q);
    }
    slg_ctx_free(ctx);
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* A step of plain mirror descent. */
static void plain_step(const slg_omd_opts *o, double eta, const float *g, double *x)
{
    double sorted[D], sum = 0, tau = 0;
    for (int i = 0; i < D; i++) {
        x[i] =
            o->domain == ENTROPY ? x[i] * exp(-eta * (double)g[i]) : x[i] - eta * (double)g[i];
        if (o->domain == BOX) x[i] = fmin(fmax(x[i], o->lo), o->hi);
        sum += o->domain == BALL ? x[i] * x[i] : x[i];
        sorted[i] = x[i];
    }
    for (int i = 0; i < D && o->domain == BALL && sum > 1; i++) x[i] /= sqrt(sum);
    for (int i = 0; i < D && o->domain == ENTROPY; i++) x[i] /= sum;
    if (o->domain != SIMPLEX) return;
    qsort(sorted, D, sizeof *sorted, descending);
    sum = -1;
    for (int i = 0; i < D; i++) {
        sum += sorted[i];
        if (sorted[i] > sum / (i + 1)) tau = sum / (i + 1);
    }
    for (int i = 0; i < D; i++) x[i] = fmax(x[i] - tau, 0);
}

/* Hint 0, by option or by the caller: projected descent, exponentiated gradient. */
static void test_plain(void **state)
{
    (void)state;
    const float zero[D] = { 0 };
    FOR_EACH_ISA(ctx, 1)
    for (int32_t domain = FREE; domain <= ENTROPY; domain++)
        for (int given = 0; given < 2; given++) {
            slg_omd_opts o = omd_opts(domain, SLG_OMD_CONVEX);
            o.lo = -0.5, o.hi = 0.75, o.hint = given ? SLG_HINT_LAST : SLG_HINT_ZERO;
            slg_learner *l = learner(ctx, SLG_OMD, D, &o);
            double want[D] = { 0 }, x[D], v = 0;
            float g[D];
            for (int i = 0; i < D && domain >= SIMPLEX; i++) want[i] = 1.0 / D;
            for (int t = 0; t < 50; t++) {
                double most = 0, sum = 0;
                randoms(D, 1, g);
                decide(ctx, l, D, given ? zero : NULL, x);
                close_to(D, x, want, 1e-10);
                assert_true(fabs(info_of(ctx, l).step - 2 / sqrt(1 + v)) <= 1e-12);
                observe(ctx, l, D, given ? zero : NULL, g);
                plain_step(&o, 2 / sqrt(1 + v), g, want);
                for (int i = 0; i < D; i++) {
                    const double e = (double)g[i] * (double)g[i];
                    sum += e, most = fmax(most, e);
                }
                v += domain == ENTROPY ? most : sum;
            }
            slg_learner_free(l);
        }
}

/* Free, constant step: x_{t+1} = x_t - 2 eta g_t + eta g_{t-1}. */
static void test_recursion(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_omd_opts o = omd_opts(FREE, SLG_OMD_CONSTANT);
    slg_learner *l = learner(ctx, SLG_OMD, D, &o);
    double x[D], want[D] = { 0 };
    float g[D], last[D] = { 0 };
    for (int t = 0; t < 100; t++) {
        decide(ctx, l, D, NULL, x);
        close_to(D, x, want, 1e-12);
        randoms(D, 1, g);
        observe(ctx, l, D, NULL, g);
        for (int i = 0; i < D; i++) want[i] += o.eta * ((double)last[i] - 2 * (double)g[i]);
        memcpy(last, g, sizeof g);
    }
    slg_learner_free(l);
    slg_ctx_free(ctx);
}

/* Constant gradients: V stops at that of round 1, the regret does not grow any more. */
static void test_constant_gradients(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t domain = BALL; domain <= ENTROPY; domain++) {
        slg_omd_opts o = omd_opts(domain, SLG_OMD_CONVEX);
        slg_learner *l = learner(ctx, SLG_OMD, D, &o);
        const float g[D] = { 0.5f, -1, 0.25f, 0, 2 };
        const double square = 0.25 + 1 + 0.0625 + 4, best = domain == BALL ? -sqrt(square) : -1;
        double x[D], gd[D], regret = 0, early = 0;
        for (int i = 0; i < D; i++) gd[i] = (double)g[i];
        for (int t = 0; t < 3000; t++) {
            decide(ctx, l, D, NULL, x);
            regret += dot(D, gd, x) - best;
            if (t == 99) early = regret;
            observe(ctx, l, D, NULL, g);
            assert_true(info_of(ctx, l).variation == (domain == ENTROPY ? 4 : square));
        }
        assert_true(regret <= early + 1e-3 && regret < 12);
        slg_learner_free(l);
    }
    slg_ctx_free(ctx);
}

/* A constant added to all coordinates of all gradients does not matter on a simplex. */
static void test_shift(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t domain = SIMPLEX; domain <= ENTROPY; domain++) {
        slg_omd_opts o = omd_opts(domain, SLG_OMD_CONSTANT);
        slg_learner *l = learner(ctx, SLG_OMD, D, &o), *k = learner(ctx, SLG_OMD, D, &o);
        float g[D], h[D];
        double x[D], y[D];
        for (int t = 0; t < 50; t++) {
            for (int i = 0; i < D; i++) g[i] = (float)below(64) / 16, h[i] = g[i] + 1000;
            decide(ctx, l, D, NULL, x), decide(ctx, k, D, NULL, y);
            close_to(D, x, y, 1e-11);
            observe(ctx, l, D, NULL, g), observe(ctx, k, D, NULL, h);
        }
        slg_learner_free(l), slg_learner_free(k);
    }
    slg_ctx_free(ctx);
}

/* The true gradient as a hint: nothing to pay for. Decisions change nothing. */
static void test_hints(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t domain = BALL; domain <= ENTROPY; domain++) {
        slg_omd_opts o = omd_opts(domain, SLG_OMD_CONVEX);
        slg_learner *l = learner(ctx, SLG_OMD, D, &o);
        float g[D], other[D];
        double x[D], y[D];
        for (int t = 0; t < 20; t++) {
            int64_t bytes, same;
            randoms(D, 1, g), randoms(D, 1, other);
            unsigned char *before = export_state(ctx, l, &bytes);
            decide(ctx, l, D, g, x);
            decide(ctx, l, D, other, y);
            decide(ctx, l, D, NULL, y);
            decide(ctx, l, D, g, y);
            assert_memory_equal(x, y, sizeof x);
            unsigned char *after = export_state(ctx, l, &same);
            assert_memory_equal(before, after, (size_t)bytes);
            free(before), free(after);
            observe(ctx, l, D, g, g);
            /* x_t was the next center: the same step with the same vector. */
            part(ctx, l, SLG_LEARNER_CENTER, D, y);
            assert_memory_equal(x, y, sizeof x);
        }
        assert_true(info_of(ctx, l).variation == 0);
        assert_true(slg_learner_rounds(l) == 20);
        slg_learner_free(l);
    }
    slg_ctx_free(ctx);
}

/* No gradient, one coordinate, ties, sets of one point. */
static void test_small(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const float zero[D] = { 0 };
    double x[D];
    for (int32_t domain = FREE; domain <= ENTROPY; domain++) {
        slg_omd_opts o = omd_opts(domain, SLG_OMD_CONVEX);
        slg_learner *l = learner(ctx, SLG_OMD, D, &o);
        for (int t = 0; t < 5; t++) {
            decide(ctx, l, D, NULL, x);
            for (int i = 0; i < D; i++)
                assert_true(fabs(x[i] - (domain >= SIMPLEX ? 1.0 / D : 0)) <= 1e-15);
            observe(ctx, l, D, NULL, zero);
            assert_true(info_of(ctx, l).variation == 0 && info_of(ctx, l).step == 2);
        }
        /* Equal coordinates stay equal. */
        for (int t = 0; t < 20; t++) {
            float g[D];
            randoms(D, 1, g);
            g[3] = g[1];
            observe(ctx, l, D, NULL, g);
            decide(ctx, l, D, NULL, x);
            assert_true(x[1] == x[3]);
        }
        slg_learner_free(l);
        if (domain < SIMPLEX) continue;
        o.numerator = NAN;
        l = learner(ctx, SLG_OMD, 1, &o); /* log(1) = 0 is no step: any other will do */
        for (int t = 0; t < 5; t++) {
            const float g = (float)(t * 1000 - 2000);
            decide(ctx, l, 1, NULL, x);
            assert_true(x[0] == 1 && info_of(ctx, l).step > 0);
            observe(ctx, l, 1, NULL, &g);
        }
        slg_learner_free(l);
    }
    slg_omd_opts ball = omd_opts(BALL, SLG_OMD_CONVEX), box = omd_opts(BOX, SLG_OMD_CONVEX);
    ball.radius = 0, box.lo = box.hi = 0.25;
    slg_omd_opts metric = ball;
    metric.mode = SLG_OMD_EXP_CONCAVE, metric.beta = 1;
    slg_learner *l[3] = { learner(ctx, SLG_OMD, D, &ball), learner(ctx, SLG_OMD, D, &box),
                          learner(ctx, SLG_OMD, D, &metric) };
    for (int t = 0; t < 5; t++)
        for (int k = 0; k < 3; k++) {
            float g[D];
            randoms(D, 1, g);
            decide(ctx, l[k], D, NULL, x);
            for (int i = 0; i < D; i++) assert_true(x[i] == (k == 1 ? 0.25 : 0));
            observe(ctx, l[k], D, NULL, g);
        }
    for (int k = 0; k < 3; k++) slg_learner_free(l[k]);
    slg_ctx_free(ctx);
}

/* Gradients of 2000 on the entropic simplex: one-hot, no NaN; and back when they reverse. */
static void test_large(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_omd_opts o = omd_opts(ENTROPY, SLG_OMD_CONSTANT);
    o.eta = 1;
    slg_learner *l = learner(ctx, SLG_OMD, 3, &o);
    const float g[3] = { 2000, 0, 1 }, back[3] = { -2000, 0, -1 };
    double x[3], logs[3];
    for (int t = 0; t < 4; t++) {
        observe(ctx, l, 3, NULL, g);
        decide(ctx, l, 3, NULL, x);
        assert_true(x[0] == 0 && x[1] > 0.7 && fabs(x[1] + x[2] - 1) <= 1e-12);
    }
    part(ctx, l, SLG_LEARNER_LOG_CENTER, 3, logs);
    assert_true(logs[0] < -7999 && isfinite(logs[0]));
    for (int t = 0; t < 4; t++) observe(ctx, l, 3, NULL, back);
    part(ctx, l, SLG_LEARNER_CENTER, 3, x);
    for (int i = 0; i < 3; i++) assert_true(fabs(x[i] - 1.0 / 3) <= 1e-10);
    slg_learner_free(l);
    /* The other sets, with the largest float32: finite, and still inside. */
    for (int32_t mode = SLG_OMD_CONVEX; mode <= SLG_OMD_CONSTANT; mode++)
        for (int32_t domain = BALL; domain <= ENTROPY; domain++) {
            slg_omd_opts p = omd_opts(domain, mode);
            if (mode == SLG_OMD_EXP_CONCAVE && domain > BALL) continue;
            p.beta = 0.5;
            l = learner(ctx, SLG_OMD, D, &p);
            for (int t = 0; t < 20; t++) {
                float h[D];
                double y[D];
                randoms(D, t % 2 ? 1 : 1e38f, h);
                for (int i = 0; i < D; i++) h[i] = fminf(fmaxf(h[i], -3e38f), 3e38f);
                observe(ctx, l, D, NULL, h);
                decide(ctx, l, D, NULL, y);
                expect_inside(&p, y);
            }
            slg_learner_free(l);
        }
    slg_ctx_free(ctx);
}

/* Euclidean simplex of many coordinates: against a sort. */
static void test_wide_simplex(void **state)
{
    (void)state;
    enum { N = 3001 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_omd_opts o = omd_opts(SIMPLEX, SLG_OMD_CONSTANT);
    float *g = malloc(N * sizeof *g);
    double *x = malloc(N * sizeof *x), *u = malloc(N * sizeof *u);
    for (int k = 0; k < 6; k++) {
        o.eta = pow(10, k - 4);
        slg_learner *l = learner(ctx, SLG_OMD, N, &o);
        randoms(N, 1, g);
        for (int i = 0; i < N; i++) u[i] = 1.0 / N - o.eta * (double)g[i];
        observe(ctx, l, N, NULL, g);
        part(ctx, l, SLG_LEARNER_CENTER, N, x);
        double sum = -1, tau = 0;
        qsort(u, N, sizeof *u, descending);
        for (int i = 0; i < N; i++) {
            sum += u[i];
            if (u[i] > sum / (i + 1)) tau = sum / (i + 1);
        }
        for (int i = 0; i < N; i++) {
            const double want = fmax(1.0 / N - o.eta * (double)g[i] - tau, 0);
            assert_true(fabs(x[i] - want) <= 1e-12);
        }
        slg_learner_free(l);
    }
    free(g), free(x), free(u);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_optimality),
        cmocka_unit_test(test_metric),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_recursion),
        cmocka_unit_test(test_constant_gradients),
        cmocka_unit_test(test_shift),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_wide_simplex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
