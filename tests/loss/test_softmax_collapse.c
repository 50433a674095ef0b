/*
 * Collapse of softmax in float32: rows by hand, many small others, errors.
 */
#include "loss_test.h"

static void test_collapse(void **state)
{
    (void)state;
    float x[] = { 30,
                  0,
                  0,
                  /**/ 10,
                  0,
                  0,
                  /**/ 100,
                  0,
                  100,
                  /**/ 0,
                  50,
                  0,
                  /**/ -INFINITY,
                  3,
                  -INFINITY,
                  NAN,
                  90,
                  0,
                  /**/ INFINITY,
                  0,
                  0,
                  /**/ -INFINITY,
                  -INFINITY,
                  -INFINITY,
                  /**/ 60,
                  1,
                  0,
                  1e38f,
                  -3e38f,
                  0 };
    static const int collapsed[] = { 1, 0, 0, 1, 1, 0, 0, 0, 0, 1 },
                     zero[] = { 1, 0, 0, 0, 1, 0, 0, 0, 0, 0 };
    int64_t y[] = { 0, 0, 0, 2, 1, 1, 0, 0, -100, 1 };
    FOR_EACH_ISA(ctx, 2)
    {
        int32_t c[10], z[10];
        const slg_tensor tx = slg_tensor_2d(x, SLG_F32, 10, 3),
                         ty = slg_tensor_1d(y, SLG_I64, 10);
        slg_tensor tc = slg_tensor_1d(c, SLG_I32, 10), tz = slg_tensor_1d(z, SLG_I32, 10);
        const slg_targets t = slg_targets_index(&ty);
        slg_collapse_out out;
        slg_collapse_out_init(&out, sizeof out);
        out.collapsed = &tc, out.zero_loss = &tz;
        OK(ctx, slg_softmax_collapse(ctx, &tx, &t, &out));
        for (int i = 0; i < 10; i++) assert_true(c[i] == collapsed[i] && z[i] == zero[i]);
        assert_true(out.count == 9 && out.collapsed_rows == 4 && out.zero_loss_rows == 2);
        assert_true(out.collapsed_fraction == 4.0 / 9 && out.zero_loss_fraction == 2.0 / 9);
        OK(ctx, slg_softmax_collapse(ctx, &tx, NULL, &out));
        assert_true(out.count == 10 && out.collapsed_rows == 5 && out.zero_loss_rows == 0);
        y[0] = 3;
        assert_int_equal(slg_softmax_collapse(ctx, &tx, &t, &out), SLG_ERR_RANGE);
        y[0] = 0;
        assert_int_equal(slg_softmax_collapse(ctx, &tx, &t, NULL), SLG_ERR_NULL);
        out.zero_loss = &tc;
        assert_int_equal(slg_softmax_collapse(ctx, &tx, &t, &out), SLG_ERR_STRIDE);
    }
}

/* Many small others that one by one would be lost in 1 are still seen. */
static void test_collapse_wide(void **state)
{
    (void)state;
    const int64_t cols = 5000;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    tensor x = matrix(SLG_F32, 2, cols, COL_GAPS);
    slg_collapse_out out;
    for (int64_t k = 0; k < cols; k++)
        put(&x, 0, k, k == 4000 ? 20 : 0), put(&x, 1, k, k == 4000 ? 26 : 0);
    slg_collapse_out_init(&out, sizeof out);
    OK(ctx, slg_softmax_collapse(ctx, &x.t, NULL, &out));
    assert_int_equal(out.collapsed_rows, 1); /* 5000 e^-20 is 1e-5, 5000 e^-26 is 2.6e-8 */
    release(&x);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collapse),
        cmocka_unit_test(test_collapse_wide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
