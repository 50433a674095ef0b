/*
 * Dropout: the share that is dropped, what is left, the same mask for the same numbers in any
 * type and layout, rows, threads, and errors.
 */
#include "layer_test.h"

static slg_dropout_opts opts_of(double probability, int32_t rows)
{
    slg_dropout_opts o;
    slg_dropout_opts_init(&o, sizeof o);
    o.probability = probability;
    o.rows = rows;
    return o;
}

static void test_elements(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    const slg_rng rng = { 17, 5 };
    static const int64_t shape[3] = { 7, 9, 111 };
    const slg_dropout_opts o = opts_of(0.3, 0);
    array ones = random_array(SLG_F32, 3, shape, DENSE, 0, 1),
          mask = new_array(SLG_F32, 3, shape, DENSE);
    int64_t zeros = 0, pairs = 0;
    ok(slg_dropout(ctx, &ones.t, &rng, &o, &mask.t));
    for (int64_t i = 0; i < 63 * 111; i++) {
        double m = get(&mask, i / 111, i % 111),
               next = get(&mask, (i + 1) % 6993 / 111, (i + 1) % 111);
        assert_true(m == 0 || fabs(m - 1 / 0.7) < 1e-6);
        zeros += m == 0, pairs += m == 0 && next == 0;
    }
    assert_near((double)zeros / 6993, 0.3, 0.025, "dropped");
    assert_near((double)pairs / 6993, 0.09, 0.02, "neighbours dropped");
    for (int k = 0; k < 3 * LAYOUTS; k++) {
        array x = random_array(row_types[k % 3], 3, shape, (enum layout)(k % LAYOUTS), 1, 3);
        array y = new_array(row_types[k / 2 % 3], 3, shape, (enum layout)((k + 2) % LAYOUTS));
        ok(slg_dropout(ctx, &x.t, &rng, &o, &y.t));
        for (int64_t r = 0; r < 63; r++)
            for (int64_t c = 0; c < 111; c++) {
                double want = get(&mask, r, c) * get(&x, r, c);
                assert_near(get(&y, r, c), want, 2e-7 * fabs(want) + rounding(y.t.dtype, want),
                            "y");
            }
        assert_gaps(&y);
        array z = copy_array(&x), w = new_array(x.t.dtype, 3, shape, DENSE);
        ok(slg_dropout(ctx, &z.t, &rng, &o, &w.t));
        ok(slg_dropout(ctx, &z.t, &rng, &o, &z.t));
        assert_same(&z, &w);
        array *all[] = { &x, &y, &z, &w };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    free_array(&ones), free_array(&mask);
    slg_ctx_free(ctx);
}

/* A call that starts where another ended goes on with its numbers; NaN that is dropped is 0. */
static void test_rows_and_offsets(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    const slg_dropout_opts o = opts_of(0.5, 1), one = opts_of(0.5, 0), none = opts_of(0, 0);
    slg_rng rng = { 3, 0 };
    array x = new_2d(SLG_F32, 400, 6, DENSE), y = new_2d(SLG_F32, 400, 6, DENSE),
          z = new_2d(SLG_F32, 400, 6, DENSE);
    int64_t zeros = 0;
    fill(x.t.data, 2400, 1, 5);
    ok(slg_dropout(ctx, &x.t, &rng, &o, &y.t));
    for (int64_t r = 0; r < 400; r++) {
        zeros += get(&y, r, 0) == 0;
        for (int64_t c = 0; c < 6; c++)
            assert_true(get(&y, r, c) == (get(&y, r, 0) == 0 ? 0 : 2 * get(&x, r, c)));
    }
    assert_near((double)zeros / 400, 0.5, 0.1, "rows dropped");
    ok(slg_dropout(ctx, &x.t, &rng, &one, &y.t));
    slg_tensor half = x.t, out = z.t;
    half.shape[0] = out.shape[0] = 200;
    ok(slg_dropout(ctx, &half, &rng, &one, &out));
    half.data = (float *)x.t.data + 1200, out.data = (float *)z.t.data + 1200;
    rng.offset = 600;
    ok(slg_dropout(ctx, &half, &rng, &one, &out));
    assert_same(&y, &z);
    for (int64_t i = 0; i < 2400; i++) put(&x, i / 6, i % 6, NAN);
    rng.offset = 0;
    ok(slg_dropout(ctx, &x.t, &rng, &one, &z.t));
    for (int64_t i = 0; i < 2400; i++)
        assert_true(get(&y, i / 6, i % 6) == 0 ? get(&z, i / 6, i % 6) == 0
                                               : isnan(get(&z, i / 6, i % 6)));
    ok(slg_dropout(ctx, &y.t, &rng, &none, &z.t));
    assert_same(&y, &z);
    array *all[] = { &x, &y, &z };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

static void test_threads_and_errors(void **state)
{
    array x = new_2d(SLG_F32, 300, 37, DENSE), first = new_2d(SLG_F32, 300, 37, DENSE),
          y = new_2d(SLG_F32, 300, 37, DENSE);
    const slg_rng rng = { 1, 2 };
    (void)state;
    fill(x.t.data, 300 * 37, 1, 0);
    for (int32_t threads = 1; threads <= 8; threads = threads == 3 ? 8 : threads + 1) {
        slg_ctx *ctx = new_ctx(0, threads);
        ok(slg_dropout(ctx, &x.t, &rng, NULL, threads == 1 ? &first.t : &y.t));
        if (threads > 1) assert_same(&y, &first);
        slg_ctx_free(ctx);
    }
    slg_ctx *ctx = new_ctx(0, 1);
    slg_dropout_opts o = opts_of(1, 0);
    assert_int_equal(slg_dropout(NULL, &x.t, &rng, NULL, &y.t), SLG_ERR_NULL);
    assert_refused(ctx, slg_dropout(ctx, &x.t, &rng, &o, &y.t), SLG_ERR_RANGE,
                   "probability is 1", &y);
    o = opts_of(0.1, 2);
    assert_refused(ctx, slg_dropout(ctx, &x.t, &rng, &o, &y.t), SLG_ERR_RANGE, "rows is 2", &y);
    assert_refused(ctx, slg_dropout(ctx, &x.t, NULL, NULL, &y.t), SLG_ERR_NULL, "rng", &y);
    slg_tensor wide = slg_tensor_2d(y.t.data, SLG_F32, 37, 300);
    assert_refused(ctx, slg_dropout(ctx, &x.t, &rng, NULL, &wide), SLG_ERR_SHAPE, "y", &y);
    slg_tensor shifted = slg_tensor_2d((float *)x.t.data + 1, SLG_F32, 200, 37), start = x.t;
    start.shape[0] = 200;
    assert_refused(ctx, slg_dropout(ctx, &start, &rng, NULL, &shifted), SLG_ERR_STRIDE,
                   "y overlaps x", &x);
    free_array(&x), free_array(&first), free_array(&y);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { EACH_ISA(test_elements),
                                        EACH_ISA(test_rows_and_offsets),
                                        cmocka_unit_test(test_threads_and_errors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
