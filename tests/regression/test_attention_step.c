/* slg_attention_step: its derivatives, its limit as a step of descent, edges. */
#include "loss/loss_test.h"

enum { TASKS = 70, N = 6, M = 4, D = 3 };

typedef struct setup {
    double a[TASKS * N * D], b[TASKS * N], c[TASKS * M * D], q[D * D], p[1], g[TASKS * M];
    double scores[TASKS * M], x1[TASKS * D], step[TASKS * M], dq[D * D], dp[1],
        dc[TASKS * M * D];
    slg_tensor ta, tb, tc, tq, tp, tg, t[6];
    slg_attention_step_opts opts;
    slg_attention_step_out out;
} setup;

static slg_tensor tensor_3d(void *data, int64_t n0, int64_t n1, int64_t n2)
{
    slg_tensor t = { data, SLG_F64, 3, { n0, n1, n2, 1 }, { n1 * n2, n2, 1, 1 } };
    return t;
}

static void point(setup *s)
{
    s->ta = tensor_3d(s->a, TASKS, N, D), s->tb = slg_tensor_2d(s->b, SLG_F64, TASKS, N);
    s->tc = tensor_3d(s->c, TASKS, M, D), s->tq = slg_tensor_2d(s->q, SLG_F64, D, D);
    s->tp = slg_tensor_1d(s->p, SLG_F64, 1), s->tg = slg_tensor_2d(s->g, SLG_F64, TASKS, M);
    s->t[0] = slg_tensor_2d(s->scores, SLG_F64, TASKS, M);
    s->t[1] = slg_tensor_2d(s->x1, SLG_F64, TASKS, D);
    s->t[2] = slg_tensor_2d(s->step, SLG_F64, TASKS, M);
    s->t[3] = slg_tensor_2d(s->dq, SLG_F64, D, D), s->t[4] = slg_tensor_1d(s->dp, SLG_F64, 1);
    s->t[5] = tensor_3d(s->dc, TASKS, M, D);
    s->out.scores = &s->t[0], s->out.step_x = &s->t[1], s->out.step_scores = &s->t[2];
    s->out.dq = &s->t[3], s->out.dp = &s->t[4], s->out.dqueries = &s->t[5];
}

static setup *setup_new(void)
{
    setup *s = zeros(1, sizeof *s);
    slg_attention_step_opts_init(&s->opts, sizeof s->opts);
    slg_attention_step_out_init(&s->out, sizeof s->out);
    for (int i = 0; i < TASKS * N * D; i++) s->a[i] = normal();
    for (int i = 0; i < TASKS * M * D; i++) s->c[i] = normal();
    for (int i = 0; i < TASKS * M; i++) s->g[i] = normal();
    for (int t = 0; t < TASKS; t++) {
        double sum = 0;
        for (int j = 0; j < N; j++) sum += s->b[t * N + j] = uniform();
        for (int j = 0; j < N; j++) s->b[t * N + j] /= sum;
    }
    for (int i = 0; i < D * D; i++) s->q[i] = 0.5 * normal();
    s->p[0] = 1.5, s->opts.step = 3;
    point(s);
    return s;
}

#define CALL(s)                                                                                \
    slg_attention_step(ctx, &(s)->ta, &(s)->tb, &(s)->tc, &(s)->tq, &(s)->tp, &(s)->tg,        \
                       &(s)->opts, &(s)->out)

/* sum g . scores */
static double weighed(slg_ctx *ctx, setup *s, double *at, double move)
{
    slg_attention_step_out o;
    double sum = 0;
    const double keep = *at;
    slg_attention_step_out_init(&o, sizeof o);
    o.scores = &s->t[0];
    *at += move;
    OK(ctx, slg_attention_step(ctx, &s->ta, &s->tb, &s->tc, &s->tq, &s->tp, NULL, NULL, &o));
    *at = keep;
    for (int i = 0; i < TASKS * M; i++) sum += s->g[i] * s->scores[i];
    return sum;
}

static double slope(slg_ctx *ctx, setup *s, double *at)
{
    return (weighed(ctx, s, at, 1e-5) - weighed(ctx, s, at, -1e-5)) / 2e-5;
}

static void test_derivatives(void **state)
{
    setup *s = setup_new(), *other = zeros(1, sizeof *other);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    OK(ctx, CALL(s));
    for (int i = 0; i < D * D; i++)
        assert_true(fabs(slope(ctx, s, &s->q[i]) - s->dq[i]) < 1e-6);
    for (int i = 0; i < TASKS * M * D; i += 97)
        assert_true(fabs(slope(ctx, s, &s->c[i]) - s->dc[i]) < 1e-7);
    assert_true(fabs(slope(ctx, s, s->p) - s->dp[0]) < 1e-7);
    OK(ctx, CALL(s));
    for (int32_t threads = 2; threads <= 8; threads += 3) { /* the same bits */
        slg_ctx *many = context(SLG_ISA_AUTO, threads);
        memcpy(other, s, sizeof *s);
        memset(other->scores, 0, sizeof other->scores), memset(other->dq, 0, sizeof other->dq);
        point(other);
        OK(many, slg_attention_step(many, &s->ta, &s->tb, &s->tc, &s->tq, &s->tp, &s->tg,
                                    &s->opts, &other->out));
        assert_memory_equal(other->scores, s->scores, sizeof s->scores);
        assert_memory_equal(other->dq, s->dq, sizeof s->dq);
        assert_true(other->dp[0] == s->dp[0]);
        slg_ctx_free(many);
    }
    slg_ctx_free(ctx), free(s), free(other);
    (void)state;
}

/* x1 is a step of slg_regression_descent from 0, and attention tends to it as p grows. */
static void test_equivalence(void **state)
{
    setup *s = setup_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double gap[3] = { 0 }, x[D], nothing[D] = { 0 };
    slg_tensor tx = slg_tensor_1d(x, SLG_F64, D), t0 = slg_tensor_1d(nothing, SLG_F64, D);
    for (int k = 0; k < 3; k++) {
        s->p[0] = pow(10, k + 1);
        s->out.dq = s->out.dp = s->out.dqueries = NULL;
        OK(ctx, slg_attention_step(ctx, &s->ta, &s->tb, &s->tc, NULL, &s->tp, NULL, &s->opts,
                                   &s->out));
        for (int i = 0; i < TASKS * M; i++)
            gap[k] = fmax(gap[k], fabs(s->scores[i] - s->p[0] - s->step[i]));
    }
    assert_true(gap[0] < 1 && gap[1] < gap[0] / 8 && gap[2] < gap[1] / 8); /* O(1 / p) */
    slg_regression_descent_opts o;
    slg_regression_descent_opts_init(&o, sizeof o);
    o.step = s->opts.step;
    for (int t = 0; t < TASKS; t++) {
        slg_tensor a = slg_tensor_2d(s->a + t * N * D, SLG_F64, N, D);
        slg_tensor b = slg_tensor_1d(s->b + t * N, SLG_F64, N);
        OK(ctx, slg_regression_descent(ctx, &a, &b, NULL, &t0, &o, &tx, NULL));
        for (int i = 0; i < D; i++) assert_true(fabs(x[i] - s->x1[t * D + i]) < 1e-14);
        double score = 0;
        for (int i = 0; i < D; i++) score += x[i] * s->c[t * M * D + i];
        assert_true(fabs(score - s->step[t * M]) < 1e-14);
    }
    slg_ctx_free(ctx), free(s);
    (void)state;
}

static void test_edges(void **state)
{
    setup *s = setup_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    s->c[0] = NAN;
    OK(ctx, CALL(s));
    assert_true(isnan(s->scores[0]) && isnan(s->step[0]) && isfinite(s->scores[1]));
    assert_true(isnan(s->dq[0]) && isfinite(s->dc[D]));
    s->scores[0] = 7;
    s->p[0] = 0;
    assert_int_equal(
        slg_attention_step(ctx, &s->ta, &s->tb, &s->tc, NULL, &s->tp, &s->tg, NULL, &s->out),
        SLG_ERR_RANGE);
    assert_int_equal(
        slg_attention_step(ctx, &s->ta, &s->tb, &s->tc, &s->tq, &s->tp, NULL, NULL, &s->out),
        SLG_ERR_NULL);
    assert_int_equal(
        slg_attention_step(ctx, &s->ta, &s->tb, &s->tc, &s->tq, NULL, &s->tg, NULL, &s->out),
        SLG_ERR_NULL);
    s->opts.step = INFINITY;
    assert_int_equal(CALL(s), SLG_ERR_RANGE);
    s->opts.step = 1, s->tb.shape[1] = 2;
    assert_int_equal(CALL(s), SLG_ERR_SHAPE);
    point(s), s->ta.shape[1] = 0;
    assert_int_equal(CALL(s), SLG_ERR_SHAPE);
    point(s), s->tq.dtype = SLG_BF16;
    assert_int_equal(CALL(s), SLG_ERR_DTYPE);
    point(s), s->t[0].data = s->g;
    assert_int_equal(CALL(s), SLG_ERR_STRIDE);
    point(s), s->out.reserved = 1;
    assert_int_equal(CALL(s), SLG_ERR_OPTIONS);
    s->out.reserved = 0;
    assert_true(s->scores[0] == 7);
    s->ta.shape[0] = s->tb.shape[0] = s->tc.shape[0] = s->tg.shape[0] = 0; /* no tasks */
    for (int i = 0; i < 6; i++)
        if (i != 3 && i != 4) s->t[i].shape[0] = 0;
    OK(ctx, CALL(s));
    assert_true(s->dq[0] == 0 && s->dp[0] == 0 && s->scores[0] == 7);
    slg_ctx_free(ctx), free(s);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_derivatives),
                                        cmocka_unit_test(test_equivalence),
                                        cmocka_unit_test(test_edges) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
