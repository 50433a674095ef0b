/* Surrogate steps: edges and errors. */
#include "sso_test.h"

static void test_no_move(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int built_in = 0; built_in < 2; built_in++) {
        float theta[DIM], from[DIM];
        /* No inner steps. */
        world *w = world_new(ctx, SLG_TARGET_SOFTMAX, N, M);
        slg_sso_opts o = options(SLG_INNER_ARMIJO, 0);
        slg_sso *s = driver(w, built_in, &o);
        start(w, theta), memcpy(from, theta, sizeof from);
        slg_sso_report r = advance(w, s, theta);
        assert_true(r.reason == SLG_SSO_STEPS && r.taken == 0 && r.value == 0 && r.loss > 0);
        assert_true(r.oracle_calls == 1 && r.backwards == 0 && r.steps == 1);
        assert_memory_equal(theta, from, sizeof from);
        slg_sso_free(s), world_free(w);
        /* One class: G = 0, also with another schedule. */
        for (int32_t schedule = SLG_ETA_CONSTANT; schedule <= SLG_ETA_SEARCH; schedule++) {
            if (schedule == SLG_ETA_EXPONENTIAL) continue;
            w = world_new(ctx, SLG_TARGET_SOFTMAX, N, 1);
            o = options(SLG_INNER_ARMIJO, 5), o.schedule = schedule;
            s = driver(w, built_in, &o);
            r = advance(w, s, theta);
            assert_true(r.reason == SLG_SSO_GRADIENT && r.loss == 0 && r.gradient_norm == 0);
            assert_memory_equal(theta, from, sizeof from);
            slg_sso_free(s), world_free(w);
        }
        /* No rows. */
        w = world_new(ctx, SLG_TARGET_SQUARED, 0, M);
        o = options(SLG_INNER_ARMIJO, 5);
        s = driver(w, built_in, &o);
        r = advance(w, s, theta);
        assert_true(r.reason == SLG_SSO_EMPTY && r.loss == 0 && r.steps == 0 &&
                    r.oracle_calls == 0);
        assert_memory_equal(theta, from, sizeof from);
        slg_sso_free(s), world_free(w);
    }
    slg_ctx_free(ctx);
    (void)state;
}

static void test_unbounded(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int built_in = 0; built_in < 2; built_in++) {
        world *w = world_new(ctx, SLG_TARGET_LOGISTIC, N, M);
        slg_sso_opts o = options(SLG_INNER_ARMIJO, 500);
        slg_armijo_opts line;
        slg_armijo_opts_init_inner(&line, sizeof line);
        line.step_max = 1e3;
        o.eta = INFINITY, o.inner_search = &line;
        slg_sso *s = driver(w, built_in, &o);
        float theta[DIM], from[DIM];
        start(w, theta), memcpy(from, theta, sizeof from);
        slg_sso_report r = advance(w, s, theta);
        assert_true(r.reason == SLG_SSO_UNBOUNDED && r.inner_step == 1e3 && r.value < 0);
        assert_true(r.taken < 20);
        slg_sso_free(s);
        o = options(SLG_INNER_FIXED, 4), o.eta = INFINITY, o.final_value = 1;
        s = driver(w, built_in, &o);
        memcpy(theta, from, sizeof from);
        r = advance(w, s, theta);
        assert_true(r.reason == SLG_SSO_STEPS && r.taken == 4);
        /* Four steps along the same gradient. */
        assert_true(near(r.value, -4 * 0.25 * r.inner_norm * r.inner_norm, 1e-5));
        slg_sso_free(s), world_free(w);
    }
    slg_ctx_free(ctx);
    (void)state;
}

/* A loss that is none, a step too long, a search without success: w stays. */
static void test_not_finite(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int way = 0; way < 6; way++) {
        world *w = world_new(ctx, SLG_TARGET_SQUARED, N, M);
        const bool built_in = way % 2;
        slg_sso_opts o = options(SLG_INNER_ARMIJO, 60);
        if (way < 2) w->spoil = way ? NAN : INFINITY, o.schedule = SLG_ETA_ADAGRAD;
        if (way == 2 || way == 3) o.inner = SLG_INNER_FIXED, o.step = 1e6;
        slg_armijo_opts line;
        slg_armijo_opts_init_inner(&line, sizeof line);
        line.max_trials = 2, line.shrink = 0.99;
        if (way > 3) o.inner_search = &line, o.step = 1e6;
        slg_sso *s = driver(w, built_in, &o);
        float theta[DIM], from[DIM];
        start(w, theta), memcpy(from, theta, sizeof from);
        slg_sso_report r = advance(w, s, theta);
        assert_int_equal(r.reason, way < 4 ? SLG_SSO_NOT_FINITE : SLG_SSO_EXHAUSTED);
        assert_memory_equal(theta, from, sizeof from);
        assert_true(r.steps == 1 && r.oracle_calls == 1 && r.state == 0);
        if (way > 3) assert_int_equal(r.trials, 2);
        if (way < 2) { /* the next step is as the first would have been */
            w->spoil = 0;
            r = advance(w, s, theta);
            assert_true(r.steps == 2 && r.value < 0);
        }
        slg_sso_free(s), world_free(w);
    }
    slg_ctx_free(ctx);
    (void)state;
}

static int32_t stop_at_two(void *user, const slg_sso_report *r)
{
    double *values = user;
    values[r->taken] = r->value;
    return r->taken == 2;
}

static void test_callbacks(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    world *w = world_new(ctx, SLG_TARGET_SOFTMAX, N, M);
    float theta[DIM], from[DIM];
    slg_tensor t = slg_tensor_1d(theta, SLG_F32, DIM);
    slg_sso_report r = { .size = sizeof r };
    start(w, theta), memcpy(from, theta, sizeof from);
    /* A backward fails in the middle: w and counters as before, and what it returned. */
    slg_sso_opts o = options(SLG_INNER_ARMIJO, 6);
    slg_sso *s = driver(w, false, &o);
    w->fail_at = 3;
    assert_int_equal(slg_sso_step(s, &t, &r), SLG_ERR_STOPPED);
    assert_non_null(strstr(slg_ctx_message(ctx), "model.backward"));
    assert_memory_equal(theta, from, sizeof from);
    assert_true(r.steps == 0 && r.loss == 0);
    w->fail_at = 0;
    r = advance(w, s, theta);
    assert_true(r.steps == 1 && r.oracle_calls == 1 && r.backwards == 6);
    slg_sso_free(s);
    for (int way = 0; way < 3; way++) { /* progress sees S from 0 on, and may end it */
        double values[8] = { 1, 1, 1, 1 };
        o = options(way == 2 ? SLG_INNER_FIXED : SLG_INNER_ARMIJO, 6);
        o.progress = stop_at_two, o.user = values;
        s = driver(w, way == 0, &o);
        r = advance(w, s, theta);
        assert_true(r.reason == SLG_SSO_CALLBACK && r.taken == 2);
        assert_true(values[0] == 0 && values[1] < 0 && values[2] < values[1] && values[3] == 1);
        assert_true(r.value == values[2]);
        slg_sso_free(s);
    }
    world_free(w);
    slg_ctx_free(ctx);
    (void)state;
}

/* Rows of X with gaps, of 16 bits; far logits. */
static void test_linear_model(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int t = 0; t < 12; t++) {
        const int32_t dtype = t % 3;
        tensor x = random_matrix(dtype, N, D, (enum layout)(t / 3), 1);
        slg_target_model model;
        slg_target_model_init(&model, sizeof model);
        OK(ctx, slg_linear_model(ctx, &x.t, M, &model));
        float theta[DIM], z[N * M], dw[DIM];
        int64_t all[N], some[5] = { 7, 2, 29, 0, 11 };
        for (int i = 0; i < N; i++) all[i] = i;
        for (int i = 0; i < DIM; i++) theta[i] = (float)normal();
        for (int part = 0; part < 2; part++) {
            const int64_t n = part ? 5 : N, *rows = part ? some : all;
            double want[DIM] = { 0 };
            OK(ctx, model.begin(model.user, n, rows));
            OK(ctx, model.forward(model.user, theta, z));
            for (int64_t i = 0; i < n * M; i++) {
                double sum = 0;
                for (int k = 0; k < D; k++)
                    sum += get(&x, rows[i / M], k) * (double)theta[k * M + i % M];
                assert_true(near((double)z[i], sum, 1e-5));
                for (int k = 0; k < D; k++)
                    want[k * M + i % M] += get(&x, rows[i / M], k) * (double)z[i];
            }
            OK(ctx, model.backward(model.user, theta, z, dw));
            for (int i = 0; i < DIM; i++) assert_true(near((double)dw[i], want[i], 1e-4));
        }
        some[2] = N;
        assert_int_equal(model.begin(model.user, 5, some), SLG_ERR_RANGE);
        slg_target_model_free(&model);
        assert_null(model.forward);
        release(&x);
    }
    (void)state;
}

static void test_create_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    world *w = world_new(ctx, SLG_TARGET_SQUARED, N, M);
    slg_sso *s;
    const double nan_ = (double)NAN, inf = (double)INFINITY;
#define REFUSED(code, field, number)                                                           \
    do {                                                                                       \
        slg_sso_opts o = options(SLG_INNER_ARMIJO, 5);                                         \
        o.field = number;                                                                      \
        s = (slg_sso *)1;                                                                      \
        assert_int_equal(slg_sso_create(ctx, &w->model, &w->oracle, &o, &s), code);            \
        assert_null(s);                                                                        \
        assert_true(slg_ctx_message(ctx)[0] != 0);                                             \
    } while (0)
    REFUSED(SLG_ERR_OPTIONS, size, 4);
    REFUSED(SLG_ERR_OPTIONS, reserved, 1);
    REFUSED(SLG_ERR_RANGE, surrogate, 2);
    REFUSED(SLG_ERR_RANGE, surrogate, SLG_SURROGATE_KL); /* L is unknown */
    REFUSED(SLG_ERR_RANGE, schedule, 5);
    REFUSED(SLG_ERR_RANGE, schedule, SLG_ETA_EXPONENTIAL);
    REFUSED(SLG_ERR_RANGE, inner, 4);
    REFUSED(SLG_ERR_RANGE, inner, SLG_INNER_FIXED); /* step must be given */
    REFUSED(SLG_ERR_NULL, inner, SLG_INNER_OPTIMIZER);
    REFUSED(SLG_ERR_UNSUPPORTED, inner, SLG_INNER_CONJUGATE);
    REFUSED(SLG_ERR_RANGE, inner_steps, -1);
    REFUSED(SLG_ERR_RANGE, order, 3);
    REFUSED(SLG_ERR_RANGE, final_value, 2);
    REFUSED(SLG_ERR_RANGE, batch, -1);
    REFUSED(SLG_ERR_RANGE, total_steps, -1);
    REFUSED(SLG_ERR_RANGE, eta, 0);
    REFUSED(SLG_ERR_RANGE, eta, -1);
    REFUSED(SLG_ERR_RANGE, step, 0);
    REFUSED(SLG_ERR_RANGE, step, inf);
    REFUSED(SLG_ERR_RANGE, grad_norm, nan_);
    slg_armijo_opts bad;
    slg_armijo_opts_init(&bad, sizeof bad);
    bad.c = 2;
    REFUSED(SLG_ERR_RANGE, search, &bad);
    REFUSED(SLG_ERR_RANGE, inner_search, &bad);
#define BROKEN(code, change, undo)                                                             \
    do {                                                                                       \
        change;                                                                                \
        assert_int_equal(slg_sso_create(ctx, &w->model, &w->oracle, NULL, &s), code);          \
        undo;                                                                                  \
    } while (0)
    BROKEN(SLG_ERR_NULL, w->model.forward = NULL, w->model.forward = forward);
    BROKEN(SLG_ERR_NULL, w->model.backward = NULL, w->model.backward = backward);
    BROKEN(SLG_ERR_NULL, w->oracle.evaluate = NULL, w->oracle.evaluate = spoiled);
    BROKEN(SLG_ERR_SHAPE, w->model.rows = N - 1, w->model.rows = N);
    BROKEN(SLG_ERR_SHAPE, w->model.targets = 1, w->model.targets = M);
    BROKEN(SLG_ERR_RANGE, w->model.dim = 0, w->model.dim = DIM);
    BROKEN(SLG_ERR_RANGE, w->oracle.smoothness[0] = 0, w->oracle.smoothness[0] = 1);
    BROKEN(SLG_ERR_OPTIONS, w->model.reserved = 1, w->model.reserved = 0);
    slg_sso_opts o = options(SLG_INNER_ARMIJO, 5);
    o.schedule = SLG_ETA_SEARCH, w->oracle.shifted = NULL;
    assert_int_equal(slg_sso_create(ctx, &w->model, &w->oracle, &o, &s), SLG_ERR_UNSUPPORTED);
    assert_int_equal(slg_sso_create(ctx, NULL, &w->oracle, NULL, &s), SLG_ERR_NULL);
    assert_int_equal(slg_sso_create(ctx, &w->model, NULL, NULL, &s), SLG_ERR_NULL);
    assert_int_equal(slg_sso_create(NULL, &w->model, &w->oracle, NULL, &s), SLG_ERR_NULL);
    assert_int_equal(slg_sso_create(ctx, &w->model, &w->oracle, NULL, NULL), SLG_ERR_NULL);
    world_free(w);
    slg_ctx_free(ctx);
    (void)state;
}

static void test_step_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    world *w = world_new(ctx, SLG_TARGET_SQUARED, N, M);
    slg_sso *s = driver(w, true, NULL);
    float theta[2 * DIM] = { 0 };
    slg_tensor t = slg_tensor_1d(theta, SLG_F32, DIM), bad = t;
    slg_sso_report r = { .size = sizeof r };
    assert_int_equal(slg_sso_step(NULL, &t, &r), SLG_ERR_NULL);
    assert_int_equal(slg_sso_step(s, NULL, &r), SLG_ERR_NULL);
    bad.dtype = SLG_BF16;
    assert_int_equal(slg_sso_step(s, &bad, &r), SLG_ERR_DTYPE);
    bad = t, bad.shape[0] = DIM - 1;
    assert_int_equal(slg_sso_step(s, &bad, &r), SLG_ERR_SHAPE);
    bad = t, bad.stride[0] = 2;
    assert_int_equal(slg_sso_step(s, &bad, &r), SLG_ERR_STRIDE);
    r.size = 4;
    assert_int_equal(slg_sso_step(s, &t, &r), SLG_ERR_OPTIONS);
    r = advance(w, s, theta);
    assert_int_equal(r.steps, 1); /* none of those before counted */
    slg_sso_report changed = r;
    changed.steps = -1;
    assert_int_equal(slg_sso_restore(s, &changed), SLG_ERR_RANGE);
    changed = r, changed.state = NAN;
    assert_int_equal(slg_sso_restore(s, &changed), SLG_ERR_RANGE);
    assert_int_equal(slg_sso_restore(s, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_sso_restore(NULL, &r), SLG_ERR_NULL);
    OK(ctx, slg_sso_restore(s, &r));
    slg_sso_free(s), slg_sso_free(NULL);

    slg_target_model model = { .size = 4 };
    slg_target_oracle oracle = { .size = 4 };
    assert_int_equal(slg_linear_model(ctx, &w->tx, M, &model), SLG_ERR_OPTIONS);
    assert_int_equal(slg_loss_oracle(ctx, 0, &w->data.t, M, &oracle), SLG_ERR_OPTIONS);
    slg_target_model_init(&model, sizeof model);
    slg_target_oracle_init(&oracle, sizeof oracle);
    assert_int_equal(slg_linear_model(ctx, NULL, M, &model), SLG_ERR_NULL);
    assert_int_equal(slg_linear_model(ctx, &w->tx, M, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_linear_model(ctx, &w->tx, 0, &model), SLG_ERR_RANGE);
    assert_int_equal(slg_linear_model(ctx, &t, M, &model), SLG_ERR_SHAPE);
    assert_int_equal(slg_loss_oracle(ctx, 3, &w->data.t, M, &oracle), SLG_ERR_RANGE);
    assert_int_equal(slg_loss_oracle(ctx, 0, NULL, M, &oracle), SLG_ERR_NULL);
    assert_int_equal(slg_loss_oracle(ctx, 0, &w->data.t, M + 1, &oracle), SLG_ERR_SHAPE);
    assert_int_equal(slg_loss_oracle(ctx, 1, &w->data.t, M, &oracle), SLG_ERR_RANGE);
    assert_int_equal(slg_loss_oracle(ctx, 0, &w->data.t, 0, &oracle), SLG_ERR_RANGE);
    assert_true(!model.forward && !oracle.evaluate);
    slg_target_model_free(NULL), slg_target_oracle_free(NULL);
    world_free(w);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_move),      cmocka_unit_test(test_unbounded),
        cmocka_unit_test(test_not_finite),   cmocka_unit_test(test_callbacks),
        cmocka_unit_test(test_linear_model), cmocka_unit_test(test_create_errors),
        cmocka_unit_test(test_step_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
