/*
 * The linear layer and its gradients against double arithmetic, for every type and layout.
 */
#include "layer_test.h"

enum { IN = 23, OUT = 14 };

static void test_formulas(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const int64_t shapes[3][3] = { { 6, IN }, { 2, 3, IN } },
                         outs[3][3] = { { 6, OUT }, { 2, 3, OUT } };
    for (int k = 0; k < 6 * LAYOUTS; k++) {
        const int32_t ndim = 2 + k % 2, a = row_types[k % 3], b = row_types[k / 3 % 3],
                      c = row_types[k / 2 % 3];
        const enum layout one = (enum layout)(k % LAYOUTS),
                          other = (enum layout)((k / 3 + 2) % LAYOUTS);
        array x = random_array(a, ndim, shapes[ndim - 2], one, 1, 0),
              y = new_array(c, ndim, outs[ndim - 2], other);
        array weight = new_2d(b, OUT, IN, other), bias = random_vector(OUT, 1, 0);
        for (int64_t r = 0; r < OUT; r++)
            for (int64_t i = 0; i < IN; i++) put(&weight, r, i, normal());
        const slg_tensor *given = k % 4 < 2 ? &bias.t : NULL;
        ok(slg_linear(ctx, &x.t, &weight.t, given, &y.t));
        for (int64_t r = 0; r < 6; r++)
            for (int64_t o = 0; o < OUT; o++) {
                double want = given ? at(&bias, o) : 0, size = fabs(want);
                for (int64_t i = 0; i < IN; i++)
                    want += get(&x, r, i) * get(&weight, o, i),
                        size += fabs(get(&x, r, i) * get(&weight, o, i));
                assert_near(get(&y, r, o), want, 1e-6 * size + rounding(c, want), "y");
            }
        assert_gaps(&y);
        slg_linear_opts o;
        slg_linear_opts_init(&o, sizeof o);
        o.accumulate = k % 2;
        const double before = o.accumulate ? 4 : 0;
        array dx = new_array(a, ndim, shapes[ndim - 2], other),
              dweight = new_2d(SLG_F32, OUT, IN, k % 3 ? DENSE : GAPS),
              dbias = random_vector(OUT, 0, 4);
        for (int64_t r = 0; r < OUT; r++)
            for (int64_t i = 0; i < IN; i++) put(&dweight, r, i, 4);
        ok(slg_linear_backward(ctx, &x.t, &weight.t, &y.t, &o, &dx.t, &dweight.t, &dbias.t));
        for (int64_t r = 0; r < 6; r++)
            for (int64_t i = 0; i < IN; i++) {
                double want = 0, size = 0;
                for (int64_t q = 0; q < OUT; q++)
                    want += get(&y, r, q) * get(&weight, q, i),
                        size += fabs(get(&y, r, q) * get(&weight, q, i));
                assert_near(get(&dx, r, i), want, 1e-6 * size + rounding(a, want), "dx");
            }
        for (int64_t q = 0; q < OUT; q++) {
            double sum = before, most = before;
            for (int64_t r = 0; r < 6; r++) sum += get(&y, r, q), most += fabs(get(&y, r, q));
            assert_near(at(&dbias, q), sum, 1e-6 * most, "dbias");
            for (int64_t i = 0; i < IN; i++) {
                double want = before, size = before;
                for (int64_t r = 0; r < 6; r++)
                    want += get(&y, r, q) * get(&x, r, i),
                        size += fabs(get(&y, r, q) * get(&x, r, i));
                assert_near(get(&dweight, q, i), want, 1e-6 * size, "dweight");
            }
        }
        assert_gaps(&dx), assert_gaps(&dweight);
        ok(slg_linear_backward(ctx, &x.t, &weight.t, &y.t, NULL, NULL, NULL, NULL));
        array *all[] = { &x, &y, &weight, &bias, &dx, &dweight, &dbias };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

static void test_edges(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    array weight = new_2d(SLG_F32, 3, 4, DENSE), bias = random_vector(3, 0, 2),
          dweight = random_vector(12, 0, 5), y = new_2d(SLG_F32, 2, 3, DENSE);
    (void)state;
    fill(weight.t.data, 12, 1, 0);
    /* No rows: gradients of weights are 0. */
    slg_tensor none = slg_tensor_2d(NULL, SLG_F32, 0, 4),
               no_out = slg_tensor_2d(NULL, SLG_F32, 0, 3);
    slg_tensor dw = slg_tensor_2d(dweight.t.data, SLG_F32, 3, 4);
    ok(slg_linear(ctx, &none, &weight.t, &bias.t, &no_out));
    ok(slg_linear_backward(ctx, &none, &weight.t, &no_out, NULL, &none, &dw, &bias.t));
    for (int64_t i = 0; i < 12; i++) assert_true(get(&dweight, 0, i) == 0);
    for (int64_t i = 0; i < 3; i++) assert_true(at(&bias, i) == 0);
    /* No inputs: y is the bias. */
    slg_tensor thin = slg_tensor_2d(NULL, SLG_F32, 2, 0),
               flat = slg_tensor_2d(NULL, SLG_F32, 3, 0);
    put(&bias, 0, 1, 7);
    ok(slg_linear(ctx, &thin, &flat, &bias.t, &y.t));
    assert_true(get(&y, 0, 1) == 7 && get(&y, 1, 1) == 7 && get(&y, 1, 0) == 0);
    array *all[] = { &weight, &bias, &dweight, &y };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    array x = new_2d(SLG_F32, 2, 4, DENSE), weight = new_2d(SLG_F32, 3, 5, DENSE),
          y = new_2d(SLG_F32, 2, 3, DENSE);
    array right = new_2d(SLG_F32, 3, 4, DENSE), bias = random_vector(4, 1, 0);
    (void)state;
    fill(x.t.data, 8, 1, 0), fill(right.t.data, 12, 1, 0);
    assert_int_equal(slg_linear(NULL, &x.t, &right.t, NULL, &y.t), SLG_ERR_NULL);
    assert_refused(ctx, slg_linear(ctx, &x.t, &weight.t, NULL, &y.t), SLG_ERR_SHAPE,
                   "weight has 5 columns, x has 4", &y);
    assert_refused(ctx, slg_linear(ctx, &x.t, &right.t, &bias.t, &y.t), SLG_ERR_SHAPE, "bias",
                   &y);
    assert_refused(ctx, slg_linear(ctx, &x.t, &right.t, NULL, &x.t), SLG_ERR_SHAPE, "y", &x);
    slg_tensor inside = slg_tensor_2d(x.t.data, SLG_F32, 2, 3);
    assert_refused(ctx, slg_linear(ctx, &x.t, &right.t, NULL, &inside), SLG_ERR_STRIDE,
                   "y overlaps x", &x);
    assert_refused(ctx, slg_linear_backward(ctx, &x.t, &right.t, &x.t, NULL, NULL, NULL, NULL),
                   SLG_ERR_SHAPE, "dy", &x);
    assert_refused(ctx, slg_linear_backward(ctx, &x.t, &right.t, &y.t, NULL, &x.t, NULL, NULL),
                   SLG_ERR_STRIDE, "dx overlaps x", &x);
    slg_tensor across = right.t;
    across.stride[0] = 1, across.stride[1] = 3;
    assert_refused(ctx,
                   slg_linear_backward(ctx, &x.t, &weight.t, &y.t, NULL, NULL, &across, NULL),
                   SLG_ERR_SHAPE, "weight", &right);
    array other = new_2d(SLG_F32, 3, 4, DENSE);
    across.data = other.t.data;
    assert_refused(ctx,
                   slg_linear_backward(ctx, &x.t, &right.t, &y.t, NULL, NULL, &across, NULL),
                   SLG_ERR_STRIDE, "contiguous", &other);
    array *all[] = { &x, &weight, &y, &right, &bias, &other };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { EACH_ISA(test_formulas), cmocka_unit_test(test_edges),
                                        cmocka_unit_test(test_errors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
