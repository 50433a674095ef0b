/*
 * From logistic regression to the perceptron: the rules as solvers.
 */
#include "solver_test.h"

enum { DIM = 3, MOST_STEPS = 20000 };

/* Separable by (1, -1, 0.5) with a margin of at least 0.3. */
typedef struct plane_data {
    double a[N * DIM];
    int32_t y[N];
    slg_tensor ta, ty;
} plane_data;

static const double normal_of[DIM] = { 2.0 / 3, -2.0 / 3, 1.0 / 3 };

static plane_data *problem_new(void)
{
    plane_data *p = calloc(1, sizeof *p);
    assert_non_null(p);
    for (int i = 0; i < N; i++) {
        double z = 0;
        for (int k = 0; k < DIM; k++)
            p->a[i * DIM + k] = (double)(float)normal(), z += p->a[i * DIM + k] * normal_of[k];
        p->y[i] = z > 0 ? 1 : -1;
        for (int k = 0; k < DIM; k++) p->a[i * DIM + k] += 0.3 * p->y[i] * normal_of[k];
    }
    p->ta = slg_tensor_2d(p->a, SLG_F64, N, DIM), p->ty = slg_tensor_1d(p->y, SLG_I32, N);
    return p;
}

static slg_separation_opts options(int32_t rule, double gamma)
{
    slg_separation_opts o;
    slg_separation_opts_init(&o, sizeof o);
    o.rule = rule, o.gamma = gamma;
    return o;
}

static slg_solver *solver(slg_ctx *ctx, const plane_data *p, const slg_separation_opts *o)
{
    slg_solver *s;
    OK(ctx, slg_separation_create(ctx, &p->ta, &p->ty, NULL, o, &s));
    return s;
}

static slg_solver_report run_it(slg_ctx *ctx, slg_solver *s, int64_t steps)
{
    slg_solver_run_opts o;
    slg_solver_report r = { .size = sizeof r };
    slg_solver_run_opts_init(&o, sizeof o);
    o.steps = steps;
    OK(ctx, slg_solver_run(s, &o, &r));
    return r;
}

static void theta_of(slg_ctx *ctx, slg_solver *s, double *x)
{
    slg_tensor t = slg_tensor_1d(x, SLG_F64, DIM);
    OK(ctx, slg_solver_get(s, &t, NULL));
}

/* Every rule separates, within the paper's bounds; what the report says is so. */
static void test_bounds(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    {
        plane_data *p = problem_new();
        double least = INFINITY, longest = 0;
        for (int i = 0; i < N; i++) {
            double m = 0, square = 0;
            for (int k = 0; k < DIM; k++) {
                m += p->y[i] * p->a[i * DIM + k] * normal_of[k];
                square += p->a[i * DIM + k] * p->a[i * DIM + k];
            }
            least = fmin(least, m), longest = fmax(longest, square);
        }
        const double ratio = longest / (least * least);
        const double gammas[] = { 0.1, 1, 100, 1e6 };
        for (int32_t rule = SLG_LOGISTIC_DESCENT; rule <= SLG_PERCEPTRON; rule++)
            for (int g = 0; g < 4; g++) {
                if (rule >= SLG_BATCH_PERCEPTRON && g > 0) continue;
                const slg_separation_opts o = options(rule, gammas[g]);
                slg_solver *s = solver(ctx, p, &o);
                const slg_solver_report r = run_it(ctx, s, MOST_STEPS);
                double x[DIM], bound = ratio, low = INFINITY;
                if (rule == SLG_NORMALIZED_LOGISTIC)
                    bound += 2 * log(2 * N - 1) / (gammas[g] * least * least);
                if (rule == SLG_BATCH_PERCEPTRON) bound *= N;
                if (rule == SLG_LOGISTIC_DESCENT) bound = MOST_STEPS;
                assert_int_equal(r.reason, SLG_SOLVER_SEPARATED);
                assert_true((double)r.steps <= bound && r.wrong == 0 &&
                            r.values == r.steps + 1);
                theta_of(ctx, s, x);
                for (int i = 0; i < N; i++) {
                    double m = 0;
                    for (int k = 0; k < DIM; k++) m += p->y[i] * p->a[i * DIM + k] * x[k];
                    low = fmin(low, m);
                }
                assert_true(low > 0 && fabs(low - r.min_margin) <= 1e-12 * fabs(low) + 1e-12);
                slg_solver_free(s);
            }
        free(p);
    }
}

/* theta / gamma at gamma 1e6 are the perceptrons' iterates. */
static void test_limits(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    plane_data *p = problem_new();
    for (int pair = 0; pair < 2; pair++) {
        const slg_separation_opts a = options(pair ? SLG_NORMALIZED_LOGISTIC
                                                   : SLG_LOGISTIC_DESCENT,
                                              1e6),
                                  b = options(pair ? SLG_NORMALIZED_BATCH_PERCEPTRON
                                                   : SLG_BATCH_PERCEPTRON,
                                              1);
        slg_solver *s = solver(ctx, p, &a), *t = solver(ctx, p, &b);
        slg_solver_report r = { .size = sizeof r }, q = { .size = sizeof q };
        for (int i = 0; i < 30; i++) {
            double x[DIM], z[DIM];
            OK(ctx, slg_solver_step(s, &r));
            OK(ctx, slg_solver_step(t, &q));
            theta_of(ctx, s, x), theta_of(ctx, t, z);
            for (int k = 0; k < DIM; k++) assert_true(fabs(x[k] / 1e6 - z[k]) < 1e-9);
            assert_true(r.reason == q.reason && r.wrong == q.wrong);
            if (r.reason == SLG_SOLVER_SEPARATED) break;
        }
        assert_int_equal(r.wrong, 0);
        slg_solver_free(s), slg_solver_free(t);
    }
    free(p);
    slg_ctx_free(ctx);
}

/* One perceptron step: the lowest index; drawn, each wrong sample in turn over the seeds. */
static void test_perceptron(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    plane_data *p = problem_new();
    slg_separation_opts o = options(SLG_PERCEPTRON, 1);
    slg_solver *s = solver(ctx, p, &o);
    double x[DIM];
    OK(ctx, slg_solver_step(s, NULL));
    theta_of(ctx, s, x);
    for (int k = 0; k < DIM; k++)
        assert_true(x[k] == p->y[0] * p->a[k]); /* all are wrong at 0 */
    slg_solver_free(s);
    int seen[N] = { 0 };
    o.draw = 1;
    for (o.seed = 0; o.seed < 1000; o.seed++) {
        s = solver(ctx, p, &o);
        OK(ctx, slg_solver_step(s, NULL));
        theta_of(ctx, s, x);
        for (int i = 0; i < N; i++) seen[i] += x[0] == p->y[i] * p->a[i * DIM];
        slg_solver_free(s);
    }
    for (int i = 0; i < N; i++) assert_true(seen[i] > 5 && seen[i] < 60);
    free(p);
    slg_ctx_free(ctx);
}

/* Goes on bit for bit from its bytes; any number of threads gives the same bits. */
static void test_state(void **state)
{
    (void)state;
    plane_data *p = problem_new();
    for (int32_t rule = SLG_LOGISTIC_DESCENT; rule <= SLG_PERCEPTRON; rule++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, 1), *three = context(SLG_ISA_AUTO, 3);
        slg_separation_opts o = options(rule, 0.5);
        o.draw = rule == SLG_PERCEPTRON;
        slg_solver *s = solver(ctx, p, &o), *t = solver(three, p, &o), *u = solver(ctx, p, &o);
        double x[DIM], z[DIM];
        for (int i = 0; i < 6; i++) {
            OK(ctx, slg_solver_step(s, NULL));
            OK(three, slg_solver_step(t, NULL));
            if (i == 2) {
                int64_t bytes;
                OK(ctx, slg_solver_export(s, NULL, 0, &bytes));
                void *buffer = malloc((size_t)bytes);
                OK(ctx, slg_solver_export(s, buffer, bytes, &bytes));
                OK(ctx, slg_solver_import(u, buffer, bytes));
                free(buffer);
            }
            if (i > 2) OK(ctx, slg_solver_step(u, NULL));
        }
        theta_of(ctx, s, x), theta_of(three, t, z);
        assert_memory_equal(x, z, sizeof x);
        theta_of(ctx, u, z);
        assert_memory_equal(x, z, sizeof x);
        slg_solver_free(s), slg_solver_free(t), slg_solver_free(u);
        slg_ctx_free(ctx), slg_ctx_free(three);
    }
    free(p);
}

/* Data that cannot be separated take all steps; no data none; an overflow changes nothing. */
static void test_ends(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    plane_data *p = problem_new();
    for (int k = 0; k < DIM; k++) p->a[5 * DIM + k] = 0; /* its margin stays 0 */
    for (int32_t rule = SLG_LOGISTIC_DESCENT; rule <= SLG_PERCEPTRON; rule++) {
        const slg_separation_opts o = options(rule, 10);
        slg_solver *s = solver(ctx, p, &o);
        const slg_solver_report r = run_it(ctx, s, 50);
        assert_true(r.reason == SLG_SOLVER_STEPS && r.steps == 50 && r.wrong >= 1);
        slg_solver_free(s);
    }
    slg_tensor a = p->ta, y = p->ty;
    slg_solver *s;
    a.shape[0] = y.shape[0] = 0;
    OK(ctx, slg_separation_create(ctx, &a, &y, NULL, NULL, &s));
    slg_solver_report r = run_it(ctx, s, 10);
    assert_true(r.reason == SLG_SOLVER_SEPARATED && r.steps == 0 && r.value == 0);
    slg_solver_free(s);
    /* stop = 0: goes on; the loss falls. */
    free(p);
    p = problem_new();
    slg_separation_opts o = options(SLG_NORMALIZED_LOGISTIC, 100);
    o.stop = 0;
    s = solver(ctx, p, &o);
    r = run_it(ctx, s, 200);
    assert_true(r.reason == SLG_SOLVER_STEPS && r.steps == 200 && r.wrong == 0);
    double x[DIM], z[DIM];
    slg_solver_free(s);
    o.gamma = 1e38;
    s = solver(ctx, p, &o);
    for (int i = 0; i < 1000; i++) {
        theta_of(ctx, s, x);
        OK(ctx, slg_solver_step(s, &r));
        if (r.reason == SLG_SOLVER_NOT_FINITE) break;
    }
    theta_of(ctx, s, z);
    assert_int_equal(r.reason, SLG_SOLVER_NOT_FINITE);
    assert_memory_equal(x, z, sizeof x);
    assert_int_equal(run_it(ctx, s, 5).reason, SLG_SOLVER_NOT_FINITE);
    slg_solver_free(s);
    free(p);
    slg_ctx_free(ctx);
}

/* The extension: three classes in a plane. */
static void test_classes(void **state)
{
    (void)state;
    enum { M = 60 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double a[M * 3], theta[9];
    int64_t label[M];
    for (int i = 0; i < M; i++) {
        const double angle = 2.0943951023932 * (i % 3);
        label[i] = i % 3;
        a[3 * i] = cos(angle) + 0.2 * normal(), a[3 * i + 1] = sin(angle) + 0.2 * normal();
        a[3 * i + 2] = 1;
    }
    const slg_tensor ta = slg_tensor_2d(a, SLG_F64, M, 3),
                     ty = slg_tensor_1d(label, SLG_I64, M);
    for (int32_t rule = SLG_LOGISTIC_DESCENT; rule <= SLG_PERCEPTRON; rule++) {
        slg_separation_opts o = options(rule, 100);
        slg_solver *s;
        o.classes = 3;
        OK(ctx, slg_separation_create(ctx, &ta, &ty, NULL, &o, &s));
        const slg_solver_report r = run_it(ctx, s, 2000);
        slg_tensor t = slg_tensor_2d(theta, SLG_F64, 3, 3);
        OK(ctx, slg_solver_get(s, &t, NULL));
        assert_int_equal(r.reason, SLG_SOLVER_SEPARATED);
        for (int i = 0; i < M; i++) {
            double z[3] = { 0 };
            for (int c = 0; c < 3; c++)
                for (int k = 0; k < 3; k++) z[c] += theta[3 * c + k] * a[3 * i + k];
            for (int c = 0; c < 3; c++) assert_true(c == label[i] || z[label[i]] > z[c]);
        }
        slg_solver_free(s);
    }
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    plane_data *p = problem_new();
    slg_separation_opts o;
    slg_solver *s;
#define REFUSED(status, part, ...)                                                             \
    do {                                                                                       \
        o = options(SLG_PERCEPTRON, 1);                                                        \
        __VA_ARGS__;                                                                           \
        s = (slg_solver *)(uintptr_t)1;                                                        \
        assert_int_equal(slg_separation_create(ctx, &p->ta, &p->ty, NULL, &o, &s), status);    \
        if (!strstr(slg_ctx_message(ctx), part)) fail_msg("%s", slg_ctx_message(ctx));         \
        assert_null(s);                                                                        \
    } while (0)
    REFUSED(SLG_ERR_RANGE, "rule", o.rule = 5);
    REFUSED(SLG_ERR_RANGE, "stop", o.stop = 2);
    REFUSED(SLG_ERR_RANGE, "draw", o.draw = -1);
    REFUSED(SLG_ERR_RANGE, "gamma", o.gamma = 0);
    REFUSED(SLG_ERR_RANGE, "gamma", o.gamma = NAN);
    REFUSED(SLG_ERR_RANGE, "classes", o.classes = 1);
    REFUSED(SLG_ERR_RANGE, "y[", o.classes = 2); /* -1 is no class */
    REFUSED(SLG_ERR_OPTIONS, "opts", o.size = 2);
    p->y[4] = 0;
    REFUSED(SLG_ERR_RANGE, "y[4] is 0", (void)0);
    p->y[4] = 1, p->a[3] = NAN;
    double x0[DIM] = { 1, 1, 1 };
    slg_tensor t0 = slg_tensor_1d(x0, SLG_F64, DIM);
    assert_int_equal(slg_separation_create(ctx, &p->ta, &p->ty, &t0, NULL, &s), SLG_ERR_RANGE);
    t0.shape[0] = 2;
    assert_int_equal(slg_separation_create(ctx, &p->ta, &p->ty, &t0, NULL, &s), SLG_ERR_SHAPE);
    assert_int_equal(slg_separation_create(ctx, &p->ta, &p->ty, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    assert_int_equal(slg_solver_create(ctx, SLG_SEPARATION, NULL, &t0, NULL, &s),
                     SLG_ERR_RANGE);
#undef REFUSED
    free(p);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_perceptron), cmocka_unit_test(test_state),
        cmocka_unit_test(test_ends),       cmocka_unit_test(test_classes),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
