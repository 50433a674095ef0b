/* slg_regression_descent and slg_regression_shift: identities, bounds, line search, edges. */
#include "loss/loss_test.h"

enum { N = 40, D = 6 };

typedef struct setup {
    double a[N * D], b[N], w[N], x[D], y[D];
    double f[N], f_new[N], target[N], change[N * D], values[101];
    slg_tensor ta, tb, tw, tx, ty, tf, tn, tt, tc, tv;
    slg_regression_descent_opts opts;
    slg_regression_descent_out down;
    slg_regression_shift_out out;
} setup;

static void point(setup *s, int64_t n, int64_t d)
{
    s->ta = slg_tensor_2d(s->a, SLG_F64, n, d), s->tb = slg_tensor_1d(s->b, SLG_F64, n);
    s->tw = slg_tensor_1d(s->w, SLG_F64, n), s->tx = slg_tensor_1d(s->x, SLG_F64, d);
    s->ty = slg_tensor_1d(s->y, SLG_F64, d), s->tf = slg_tensor_1d(s->f, SLG_F64, n);
    s->tn = slg_tensor_1d(s->f_new, SLG_F64, n), s->tt = slg_tensor_1d(s->target, SLG_F64, n);
    s->tc = slg_tensor_2d(s->change, SLG_F64, n, d);
    s->tv = slg_tensor_1d(s->values, SLG_F64, s->opts.steps + 1);
}

static setup *setup_new(int64_t n, int64_t d)
{
    setup *s = zeros(1, sizeof *s);
    double sum = 0;
    for (int64_t i = 0; i < n * d; i++) s->a[i] = normal();
    for (int64_t i = 0; i < n; i++) sum += s->b[i] = exp(2 * normal());
    for (int64_t i = 0; i < n; i++) s->b[i] /= sum, s->w[i] = 0.1 * uniform();
    for (int64_t i = 0; i < d; i++) s->x[i] = normal(), s->y[i] = normal();
    slg_regression_descent_opts_init(&s->opts, sizeof s->opts);
    slg_regression_descent_out_init(&s->down, sizeof s->down);
    slg_regression_shift_out_init(&s->out, sizeof s->out);
    point(s, n, d);
    s->down.values = &s->tv, s->down.prob = &s->tf;
    s->out.prob = &s->tf, s->out.prob_new = &s->tn, s->out.implied_target = &s->tt;
    s->out.data_change = &s->tc;
    return s;
}

#define DOWN()                                                                                 \
    slg_regression_descent(ctx, &s->ta, &s->tb, &s->tw, &s->tx, &s->opts, &s->ty, &s->down)
#define SHIFT() slg_regression_shift(ctx, &s->ta, &s->tb, &s->tx, &s->ty, NULL, &s->out)

/* Step by step with slg_softmax_regression. */
static void test_fixed_steps(void **state)
{
    setup *s = setup_new(N, D);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    double x[D], dx[D];
    slg_tensor tx = slg_tensor_1d(x, SLG_F64, D), td = slg_tensor_1d(dx, SLG_F64, D);
    slg_softmax_regression_out o;
    slg_softmax_regression_out_init(&o, sizeof o);
    o.dx = &td;
    s->opts.steps = 7, s->opts.step = 0.7, point(s, N, D);
    OK(ctx, DOWN());
    assert_int_equal(s->down.steps, 7);
    assert_int_equal(s->down.evaluations, 8);
    assert_true(s->down.step == 0.7 && s->down.value == s->values[7]);
    memcpy(x, s->x, sizeof x);
    for (int k = 0; k <= 7; k++) {
        OK(ctx, slg_softmax_regression(ctx, &s->ta, &tx, &s->tb, &s->tw, NULL, &o));
        assert_true(fabs(o.value - s->values[k]) < 1e-13);
        for (int j = 0; k < 7 && j < D; j++) x[j] -= 0.7 * dx[j];
    }
    for (int j = 0; j < D; j++) assert_true(fabs(x[j] - s->y[j]) < 1e-13);
    s->ty.data = s->x; /* in place */
    OK(ctx, DOWN());
    assert_memory_equal(s->x, s->y, sizeof s->y);
    s->opts.steps = 0, point(s, N, D);
    OK(ctx, DOWN());
    assert_memory_equal(s->x, s->y, sizeof s->y);
    assert_true(s->down.steps == 0 && s->down.step == 0 && s->down.value == s->values[0]);
    slg_ctx_free(ctx), free(s);
    (void)state;
}

static void test_line_search(void **state)
{
    setup *s = setup_new(N, D);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    s->opts.steps = 100, s->opts.step = 4096, s->opts.line_search = 1, point(s, N, D);
    OK(ctx, DOWN());
    assert_true(s->down.steps > 10 && s->down.step < 4096 &&
                s->down.evaluations > s->down.steps);
    for (int k = 1; k <= s->down.steps; k++) assert_true(s->values[k] <= s->values[k - 1]);
    assert_true(s->values[100] == s->values[s->down.steps] && s->down.value == s->values[100]);
    s->opts.max_halvings = 0, s->opts.step = 1e6; /* no decrease to be found */
    memset(s->y, 0, sizeof s->y);
    OK(ctx, DOWN());
    assert_true(s->down.steps == 0 && s->values[100] == s->values[0] &&
                s->down.value == s->values[0]);
    assert_memory_equal(s->x, s->y, sizeof s->y);
    s->opts.max_halvings = 50, s->b[3] = NAN; /* not finite: no step */
    OK(ctx, DOWN());
    assert_true(s->down.steps == 0 && isnan(s->down.value));
    assert_memory_equal(s->x, s->y, sizeof s->y);
    slg_ctx_free(ctx), free(s);
    (void)state;
}

/* n and d of the specification, and moves from tiny to large. */
static void test_identities_and_bounds(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double ratio = 0;
    for (int round = 0; round < 2000; round++) {
        const int64_t n = 2 + below(18), d = 1 + below(5);
        const double size = pow(10, -6 + 7 * uniform());
        setup *s = setup_new(n, d);
        for (int64_t j = 0; j < d; j++) s->y[j] = s->x[j] + size * normal();
        OK(ctx, SHIFT());
        double shift = 0, square = 0, x2 = 0;
        for (int64_t j = 0; j < d; j++) x2 += s->x[j] * s->x[j];
        for (int64_t i = 0; i < n; i++) {
            double z = 0, moved = 0;
            assert_true(fabs(s->f_new[i] - s->b[i] - (s->f[i] - s->target[i])) < 1e-14);
            shift += pow(s->b[i] - s->target[i], 2);
            for (int64_t j = 0; j < d; j++) {
                z += (s->a[i * d + j] + s->change[i * d + j]) * s->x[j];
                moved += s->a[i * d + j] * s->y[j];
                square += s->change[i * d + j] * s->change[i * d + j];
            }
            assert_true(fabs(z - moved) < 1e-11 * (1 + size));
        }
        assert_true(fabs(sqrt(shift) - s->out.target_shift) < 1e-14);
        assert_true(fabs(sqrt(square) - s->out.data_move) < 1e-12 * (s->out.data_move + size));
        assert_true(fabs(s->out.data_bound - 0.5 * s->out.data_move * sqrt(x2)) <
                    1e-12 * (1 + size));
        assert_true(s->out.target_shift <= s->out.weight_bound * (1 + 1e-9));
        assert_true(s->out.target_shift <= s->out.data_bound * (1 + 1e-9));
        assert_true(s->out.weight_bound <= s->out.paper_weight_bound);
        assert_true(s->out.data_bound <= s->out.paper_data_bound);
        ratio = fmax(ratio, s->out.target_shift / s->out.weight_bound / 2);
        free(s);
    }
    assert_true(ratio > 0.4 && ratio <= 0.5); /* the bound is tight */
    slg_ctx_free(ctx);
    (void)state;
}

/* The shift of a move of 1e-12 to six digits: a difference of predictions would have three. */
static void test_small_move(void **state)
{
    setup *s = setup_new(9, 3);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const double at[3] = { 0.5, -0.25, 1 }, size = 0x1p-40;
    double big, unit[3] = { 1, 0.5, -1 };
    for (int j = 0; j < 3; j++) s->x[j] = at[j], s->y[j] = at[j] + 0x1p-20 * unit[j];
    OK(ctx, SHIFT());
    big = s->out.target_shift * 0x1p-20;
    assert_true(s->out.small_move == 1);
    for (int j = 0; j < 3; j++) s->y[j] = at[j] + size * unit[j];
    OK(ctx, SHIFT());
    assert_true(fabs(s->out.target_shift - big) < 1e-5 * big);
    for (int j = 0; j < 3; j++) s->y[j] = at[j] + unit[j];
    OK(ctx, SHIFT());
    assert_true(s->out.small_move == 0);
    slg_ctx_free(ctx), free(s);
    (void)state;
}

/* ||A||: of a diagonal, of rank one; tall, wide; both norms; the caller's. */
static void test_norm(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int wide = 0; wide < 2; wide++) {
        setup *s = setup_new(wide ? 2 : 6, wide ? 6 : 2);
        slg_regression_shift_opts o;
        slg_regression_shift_opts_init(&o, sizeof o);
        for (int i = 0; i < 12; i++) s->a[i] = 0;
        s->a[0] = 3e200, s->a[wide ? 7 : 3] = -4e200;
        for (int j = 0; j < 6; j++) s->x[j] = 1e-200, s->y[j] = 2e-200;
#define WITH() slg_regression_shift(ctx, &s->ta, &s->tb, &s->tx, &s->ty, &o, &s->out)
        OK(ctx, WITH());
        assert_true(fabs(s->out.a_norm / 4e200 - 1) < 1e-12);
        o.norm = SLG_NORM_FROBENIUS;
        OK(ctx, WITH());
        assert_true(fabs(s->out.a_norm / 5e200 - 1) < 1e-12);
        o.a_norm = 6e200;
        OK(ctx, WITH());
        assert_true(s->out.a_norm == 6e200);
        o.a_norm = -1;
        assert_int_equal(WITH(), SLG_ERR_RANGE);
        o.a_norm = 0, o.norm = 2;
        assert_int_equal(WITH(), SLG_ERR_RANGE);
        o.norm = 0;
        for (int i = 0; i < 12; i++) s->a[i] = 2 * (1 + i / (wide ? 6 : 2)); /* u 1' */
        OK(ctx, WITH());
        double want = 0;
        for (int i = 0; i < 12; i++) want += s->a[i] * s->a[i];
        assert_true(fabs(s->out.a_norm - sqrt(want)) < 1e-12 * want);
        free(s);
    }
    slg_ctx_free(ctx);
    (void)state;
}

static void test_edges(void **state)
{
    setup *s = setup_new(5, 2);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    memset(s->x, 0, sizeof s->x);
    s->f[0] = 7;
    assert_int_equal(SHIFT(), SLG_ERR_RANGE); /* x = 0: no data does it */
    assert_true(s->f[0] == 7);
    s->out.data_change = NULL;
    OK(ctx, SHIFT()); /* weights do */
    assert_true(isnan(s->out.data_move) && isnan(s->out.data_bound) &&
                isnan(s->out.paper_data_bound));
    assert_true(s->out.target_shift > 0 && s->out.target_shift <= s->out.weight_bound);
    s->out.data_change = &s->tc;
    s->x[0] = 1, s->y[0] = 2, s->a[0] = -INFINITY; /* a masked entry stays one */
    OK(ctx, SHIFT());
    assert_true(s->f[0] == 0 && s->f_new[0] == 0 && s->change[0] == 0 && s->change[1] == 0);
    assert_true(isfinite(s->out.target_shift) && s->target[0] == s->b[0] &&
                s->out.a_norm == INFINITY);
    memcpy(s->y, s->x, sizeof s->x), s->a[0] = 1; /* no move */
    OK(ctx, SHIFT());
    assert_true(s->out.target_shift == 0 && s->out.weight_bound == 0 &&
                s->out.paper_weight_bound == 0);
    s->a[0] = NAN;
    OK(ctx, SHIFT());
    assert_true(isnan(s->out.target_shift) && isnan(s->f[2]) && isnan(s->out.a_norm));
    slg_ctx_free(ctx), free(s);
    (void)state;
}

static void test_errors(void **state)
{
    setup *s = setup_new(5, 2);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    point(s, 0, 2);
    assert_int_equal(SHIFT(), SLG_ERR_SHAPE);
    assert_int_equal(DOWN(), SLG_ERR_SHAPE);
    point(s, 5, 2), s->ty.shape[0] = 1;
    assert_int_equal(SHIFT(), SLG_ERR_SHAPE);
    assert_int_equal(DOWN(), SLG_ERR_SHAPE);
    point(s, 5, 2), s->ta.dtype = SLG_BF16;
    assert_int_equal(SHIFT(), SLG_ERR_DTYPE);
    assert_int_equal(DOWN(), SLG_ERR_DTYPE);
    point(s, 5, 2), s->tf.data = s->b;
    assert_int_equal(SHIFT(), SLG_ERR_STRIDE);
    assert_int_equal(DOWN(), SLG_ERR_STRIDE);
    point(s, 5, 2), s->ty.data = s->b;
    assert_int_equal(DOWN(), SLG_ERR_STRIDE);
    point(s, 5, 2), s->opts.steps = -1;
    assert_int_equal(DOWN(), SLG_ERR_RANGE);
    s->opts.steps = 1, s->opts.step = 0;
    assert_int_equal(DOWN(), SLG_ERR_RANGE);
    s->opts.step = 1, s->opts.decrease = 1;
    assert_int_equal(DOWN(), SLG_ERR_RANGE);
    s->opts.decrease = 0.5, s->opts.line_search = 2;
    assert_int_equal(DOWN(), SLG_ERR_RANGE);
    s->opts.line_search = 0, s->opts.max_halvings = 1001;
    assert_int_equal(DOWN(), SLG_ERR_RANGE);
    assert_non_null(strstr(slg_ctx_message(ctx), "1001"));
    s->opts.max_halvings = 1;
    assert_int_equal(slg_regression_shift(ctx, &s->ta, &s->tb, &s->tx, NULL, NULL, &s->out),
                     SLG_ERR_NULL);
    assert_int_equal(slg_regression_shift(ctx, &s->ta, &s->tb, &s->tx, &s->ty, NULL, NULL),
                     SLG_ERR_NULL);
    assert_int_equal(
        slg_regression_descent(ctx, &s->ta, &s->tb, NULL, &s->tx, NULL, NULL, NULL),
        SLG_ERR_NULL);
    assert_true(s->f[0] == 0);
    OK(ctx, slg_regression_descent(ctx, &s->ta, &s->tb, NULL, &s->tx, NULL, &s->ty, NULL));
    slg_ctx_free(ctx), free(s);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed_steps),
        cmocka_unit_test(test_line_search),
        cmocka_unit_test(test_identities_and_bounds),
        cmocka_unit_test(test_small_move),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
