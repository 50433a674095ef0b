/*
 * Activations and gated linear units: against double arithmetic, with their gradients, biases,
 * tails, types and layouts, in place, and for any number of threads.
 */
#include "layer_test.h"

enum { KINDS = SLG_RELU + 1 };
#define LOOSE 2e-6 /* relative, and of x or its slope's terms */

static double gelu_tanh(double x) { return 0.7978845608028654 * (x + 0.044715 * x * x * x); }

static double activation(int kind, double x)
{
    switch (kind) {
    case SLG_GELU:
        return x * 0.5 * erfc(-x / sqrt(2));
    case SLG_GELU_TANH:
        return 0.5 * x * (1 + tanh(gelu_tanh(x)));
    case SLG_SILU:
        return x / (1 + exp(-x));
    default:
        return fmax(x, 0);
    }
}

/* By the difference of the double function: good to 1e-9. */
static double slope(int kind, double x)
{
    const double h = 1e-5;
    if (kind == SLG_RELU) return x > 0;
    return (activation(kind, x + h) - activation(kind, x - h)) / (2 * h);
}

static slg_activation_opts opts_of(int kind)
{
    slg_activation_opts o;
    slg_activation_opts_init(&o, sizeof o);
    assert_int_equal(o.kind, SLG_GELU);
    o.kind = kind;
    return o;
}

static void test_formulas(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int k = 0; k < LAYER_CASES * KINDS; k++) {
        const int kind = k % KINDS;
        const layer_case c = case_of(k / KINDS);
        slg_activation_opts o = opts_of(kind);
        array x = random_array(c.in, c.ndim, c.shape, c.layout, 2, 0),
              y = new_array(c.out, c.ndim, c.shape, c.other);
        const int64_t n = cols_in(&x.t), count = rows_in(&x.t);
        array bias = random_vector(n, 1, 0),
              dy = random_array(c.out, c.ndim, c.shape, c.layout, 1, 0);
        array dx = new_array(c.in, c.ndim, c.shape, c.other), dbias = random_vector(n, 0, 3);
        const slg_tensor *b = k / KINDS % 2 ? &bias.t : NULL;
        o.accumulate = k % 3 == 0;
        ok(slg_activation(ctx, &x.t, b, &o, &y.t));
        ok(slg_activation_backward(ctx, &x.t, b, &dy.t, &o, &dx.t, &dbias.t));
        for (int64_t i = 0; i < n; i++) {
            double sum = o.accumulate ? 3 : 0, size = 1;
            for (int64_t r = 0; r < count; r++) {
                double u = get(&x, r, i) + (b ? at(&bias, i) : 0), want = activation(kind, u);
                u = (double)(float)u;
                assert_near(get(&y, r, i), want, LOOSE * fabs(u) + rounding(c.out, want),
                            "kind %d at %g", kind, u);
                double d = get(&dy, r, i), want_d = slope(kind, u) * d;
                if (kind == SLG_RELU && u == 0) want_d = 0;
                assert_near(get(&dx, r, i), want_d,
                            2 * LOOSE * fabs(d) + rounding(c.in, want_d), "slope %d at %g",
                            kind, u);
                sum += want_d, size += fabs(d);
            }
            assert_near(at(&dbias, i), sum, 2 * LOOSE * size, "dbias");
        }
        assert_gaps(&y), assert_gaps(&dx);
        /* In place: y = x; dx = x; dx = dy. */
        array in_x = copy_array(&x), to = new_array(c.in, c.ndim, c.shape, DENSE);
        ok(slg_activation(ctx, &x.t, b, &o, &to.t));
        ok(slg_activation(ctx, &in_x.t, b, &o, &in_x.t));
        assert_same(&in_x, &to);
        array again = copy_array(&x), in_dy = copy_array(&dy),
              to_dy = new_array(c.out, c.ndim, c.shape, DENSE);
        ok(slg_activation_backward(ctx, &again.t, b, &dy.t, &o, &again.t, NULL));
        assert_same(&again, &dx);
        ok(slg_activation_backward(ctx, &x.t, b, &dy.t, &o, &to_dy.t, NULL));
        ok(slg_activation_backward(ctx, &x.t, b, &in_dy.t, &o, &in_dy.t, NULL));
        assert_same(&in_dy, &to_dy);
        array *all[] = { &x, &y, &bias, &dy, &dx, &dbias, &in_x, &to, &again, &in_dy, &to_dy };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

static void test_gates(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int k = 0; k < LAYER_CASES * KINDS; k++) {
        const int kind = k % KINDS;
        const layer_case c = case_of(k / KINDS);
        const slg_activation_opts o = opts_of(kind), *given = kind == SLG_SILU ? NULL : &o;
        array gate = random_array(c.in, c.ndim, c.shape, c.layout, 2, 0),
              up = random_array(c.out, c.ndim, c.shape, c.other, 1, 0);
        array dy = random_array(c.in, c.ndim, c.shape, c.other, 1, 0),
              y = new_array(c.out, c.ndim, c.shape, c.layout);
        array dgate = new_array(c.in, c.ndim, c.shape, c.other),
              dup = new_array(c.out, c.ndim, c.shape, c.layout);
        ok(slg_gated_activation(ctx, &gate.t, &up.t, given, &y.t));
        ok(slg_gated_activation_backward(ctx, &gate.t, &up.t, &dy.t, given, &dgate.t, &dup.t));
        for (int64_t r = 0; r < rows_in(&gate.t); r++)
            for (int64_t i = 0; i < cols_in(&gate.t); i++) {
                double g = get(&gate, r, i), u = get(&up, r, i), d = get(&dy, r, i),
                       f = activation(kind, g);
                assert_near(get(&y, r, i), f * u, LOOSE * fabs(g * u) + rounding(c.out, f * u),
                            "gate");
                double want = slope(kind, g) * u * d;
                assert_near(get(&dgate, r, i), want,
                            2 * LOOSE * fabs(u * d) + rounding(c.in, want), "dgate");
                assert_near(get(&dup, r, i), f * d,
                            LOOSE * fabs(g * d) + rounding(c.out, f * d), "dup");
            }
        assert_gaps(&y), assert_gaps(&dgate), assert_gaps(&dup);
        array g = copy_array(&gate), u = copy_array(&up),
              to = new_array(c.in, c.ndim, c.shape, DENSE);
        ok(slg_gated_activation(ctx, &gate.t, &up.t, given, &to.t));
        ok(slg_gated_activation(ctx, &g.t, &up.t, given, &g.t));
        assert_same(&g, &to);
        ok(slg_gated_activation(ctx, &gate.t, &u.t, given, &u.t));
        assert_same(&u, &y);
        array g2 = copy_array(&gate), u2 = copy_array(&up);
        ok(slg_gated_activation_backward(ctx, &g2.t, &u2.t, &dy.t, given, &g2.t, &u2.t));
        assert_same(&g2, &dgate), assert_same(&u2, &dup);
        array *all[] = { &gate, &up, &dy, &y, &dgate, &dup, &g, &u, &to, &g2, &u2 };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

/* Far tails keep their relative precision; infinities, NaN, zeros. */
static void test_edges(void **state)
{
    static const float points[] = { -INFINITY, -1e30f, -12, -5,    -1,       0,
                                    1,         5,      40,  1e30f, INFINITY, NAN };
    slg_ctx *ctx = ctx_of(state);
    array x = new_1d(SLG_F32, 12), y = new_1d(SLG_F32, 12), dx = new_1d(SLG_F32, 12),
          one = random_vector(12, 0, 1);
    memcpy(x.t.data, points, sizeof points);
    for (int kind = 0; kind < KINDS; kind++) {
        const slg_activation_opts o = opts_of(kind);
        ok(slg_activation(ctx, &x.t, NULL, &o, &y.t));
        ok(slg_activation_backward(ctx, &x.t, NULL, &one.t, &o, &dx.t, NULL));
        assert_true(get(&y, 0, 0) == 0 && get(&y, 0, 10) == INFINITY && isnan(get(&y, 0, 11)));
        assert_true(get(&dx, 0, 0) == 0 && get(&dx, 0, 10) == 1 && isnan(get(&dx, 0, 11)));
        assert_true(get(&y, 0, 1) == 0 && get(&y, 0, 5) == 0 && get(&dx, 0, 8) == 1);
        assert_near(get(&dx, 0, 5), kind == SLG_RELU ? 0 : 0.5, 1e-7, "slope at 0");
        if (kind == SLG_RELU) continue;
        double want = kind == SLG_GELU
                          ? -5 * 0.5 * erfc(5 / sqrt(2))
                          : -5 / (1 + exp(kind == SLG_SILU ? 5 : 2 * gelu_tanh(5)));
        assert_near(get(&y, 0, 3), want, fabs(want) * 2e-6, "tail of kind %d", kind);
    }
    array *all[] = { &x, &y, &dx, &one };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

static void test_threads(void **state)
{
    array first[2];
    (void)state;
    array x = new_2d(SLG_F32, 900, 70, DENSE), dy = new_2d(SLG_F32, 900, 70, DENSE);
    fill(x.t.data, 900 * 70, 2, 0), fill(dy.t.data, 900 * 70, 1, 0);
    for (int32_t threads = 1; threads <= 8; threads = threads == 3 ? 8 : threads + 1) {
        slg_ctx *ctx = new_ctx(0, threads);
        array out[2] = { new_2d(SLG_F32, 900, 70, DENSE), random_vector(70, 0, 0) };
        ok(slg_activation_backward(ctx, &x.t, NULL, &dy.t, NULL, &out[0].t, &out[1].t));
        for (int i = 0; i < 2; i++) {
            if (threads == 1) {
                first[i] = out[i];
                continue;
            }
            assert_same(&out[i], &first[i]);
            free_array(&out[i]);
        }
        slg_ctx_free(ctx);
    }
    array *all[] = { &x, &dy, &first[0], &first[1] };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
}

static void test_errors(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    array x = new_2d(SLG_F32, 3, 8, DENSE), y = new_2d(SLG_F32, 3, 8, DENSE),
          wide = new_2d(SLG_F32, 3, 9, DENSE);
    array bias = random_vector(9, 1, 0);
    slg_activation_opts o = opts_of(7);
    (void)state;
    fill(x.t.data, 24, 1, 0);
    assert_int_equal(slg_activation(NULL, &x.t, NULL, NULL, &y.t), SLG_ERR_NULL);
    assert_refused(ctx, slg_activation(ctx, &x.t, NULL, &o, &y.t), SLG_ERR_RANGE, "kind is 7",
                   &y);
    o.kind = 0, o.accumulate = -1;
    assert_refused(ctx, slg_activation(ctx, &x.t, NULL, &o, &y.t), SLG_ERR_RANGE,
                   "accumulate is -1", &y);
    assert_refused(ctx, slg_activation(ctx, &x.t, NULL, NULL, &wide.t), SLG_ERR_SHAPE, "y",
                   &wide);
    assert_refused(ctx, slg_activation(ctx, NULL, NULL, NULL, &y.t), SLG_ERR_NULL, "x", &y);
    assert_refused(ctx, slg_activation(ctx, &x.t, &bias.t, NULL, &y.t), SLG_ERR_SHAPE, "bias",
                   &y);
    assert_refused(ctx, slg_activation_backward(ctx, &x.t, NULL, &wide.t, NULL, &y.t, NULL),
                   SLG_ERR_SHAPE, "dy", &y);
    assert_refused(ctx, slg_activation_backward(ctx, &x.t, NULL, &x.t, NULL, &y.t, &bias.t),
                   SLG_ERR_SHAPE, "dbias", &y);
    assert_refused(ctx, slg_gated_activation(ctx, &x.t, &wide.t, NULL, &y.t), SLG_ERR_SHAPE,
                   "up", &y);
    slg_tensor shifted = y.t;
    shifted.data = (float *)y.t.data + 1, shifted.shape[0] = 2;
    slg_tensor two = y.t;
    two.shape[0] = 2;
    assert_refused(ctx, slg_activation(ctx, &two, NULL, NULL, &shifted), SLG_ERR_STRIDE,
                   "y overlaps x", &y);
    assert_refused(ctx, slg_gated_activation_backward(ctx, &x.t, &x.t, &x.t, NULL, &y.t, &y.t),
                   SLG_ERR_STRIDE, "dup overlaps dgate", &y);
    array *all[] = { &x, &y, &wide, &bias };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_formulas),        EACH_ISA(test_gates),          EACH_ISA(test_edges),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
