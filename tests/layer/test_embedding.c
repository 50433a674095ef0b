/*
 * Embedding: rows by index, added where asked; padding; the gradient in the order of rows, with
 * the same index many times, for any number of threads; bad indices.
 */
#include "layer_test.h"

static int64_t index_at(const slg_tensor *t, int64_t i)
{
    return t->dtype == SLG_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

static void test_rows(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    int64_t wide[30];
    int32_t narrow[30];
    for (int i = 0; i < 30; i++) wide[i] = (i * i + 2) % 9, narrow[i] = (int32_t)wide[i];
    for (int k = 0; k < 9 * LAYOUTS; k++) {
        const int32_t from = row_types[k % 3], to = row_types[k / 3 % 3], ndim = 1 + k % 3;
        const int64_t dim = k % 2 ? 700 : 13,
                      shapes[3][4] = { { 30, dim }, { 5, 6, dim }, { 2, 3, 5, dim } };
        slg_embedding_opts o;
        slg_embedding_opts_init(&o, sizeof o);
        slg_tensor index = slg_tensor_1d(narrow, SLG_I32, 30);
        if (k % 2) index = slg_tensor_1d(wide, SLG_I64, 30);
        index.ndim = ndim;
        for (int64_t i = ndim - 1, step = 1; i >= 0; i--) {
            index.shape[i] = shapes[ndim - 1][i], index.stride[i] = step;
            step *= index.shape[i];
        }
        array weight = new_2d(from, 9, dim, (enum layout)(k % LAYOUTS));
        for (int64_t r = 0; r < 9; r++)
            for (int64_t c = 0; c < dim; c++) put(&weight, r, c, normal());
        array y = random_array(to, ndim + 1, shapes[ndim - 1], (enum layout)((k + 3) % LAYOUTS),
                               1, 0),
              before = copy_array(&y);
        o.accumulate = k % 5 == 1;
        o.padding = k % 4 == 2 ? 3 : -1;
        ok(slg_embedding(ctx, &weight.t, &index, &o, &y.t));
        for (int64_t i = 0; i < 30; i++)
            for (int64_t c = 0; c < dim; c++) {
                double want =
                    index_at(&index, i) == o.padding ? 0 : get(&weight, index_at(&index, i), c);
                if (o.accumulate) want += get(&before, i, c);
                assert_near(get(&y, i, c), want, rounding(to, want), "row %d", (int)i);
            }
        assert_gaps(&y);
        /* Back. */
        array dweight = new_2d(SLG_F32, 9, dim, k % 3 ? DENSE : GAPS);
        for (int64_t r = 0; r < 9; r++)
            for (int64_t c = 0; c < dim; c++) put(&dweight, r, c, 2);
        ok(slg_embedding_backward(ctx, &index, &y.t, &o, &dweight.t));
        for (int64_t r = 0; r < 9; r++)
            for (int64_t c = 0; c < dim; c++) {
                double want = 2, size = 2;
                for (int64_t i = 0; i < 30; i++)
                    if (index_at(&index, i) == r && r != o.padding)
                        want += get(&y, i, c), size += fabs(get(&y, i, c));
                assert_near(get(&dweight, r, c), want, 1e-6 * size, "dweight");
            }
        assert_gaps(&dweight);
        array *all[] = { &weight, &y, &before, &dweight };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

static void test_threads(void **state)
{
    array first = new_1d(SLG_F32, 1);
    int32_t places[500];
    (void)state;
    array dy = new_2d(SLG_F32, 500, 300, DENSE);
    fill(dy.t.data, 500 * 300, 1, 0);
    for (int i = 0; i < 500; i++) places[i] = i * i % 7;
    const slg_tensor index = slg_tensor_1d(places, SLG_I32, 500);
    for (int32_t threads = 1; threads <= 8; threads = threads == 3 ? 8 : threads + 1) {
        slg_ctx *ctx = new_ctx(0, threads);
        array dweight = new_2d(SLG_F32, 7, 300, DENSE);
        memset(dweight.t.data, 0, 7 * 300 * 4);
        ok(slg_embedding_backward(ctx, &index, &dy.t, NULL, &dweight.t));
        if (threads == 1) {
            free_array(&first);
            first = dweight;
        } else {
            assert_same(&dweight, &first);
            free_array(&dweight);
        }
        slg_ctx_free(ctx);
    }
    free_array(&first), free_array(&dy);
}

static void test_errors(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    array weight = new_2d(SLG_F32, 4, 3, DENSE), y = new_2d(SLG_F32, 2, 3, DENSE),
          wide = new_2d(SLG_F32, 2, 4, DENSE);
    int32_t places[2] = { 1, 4 };
    slg_tensor index = slg_tensor_1d(places, SLG_I32, 2), strided = weight.t;
    slg_embedding_opts o;
    (void)state;
    slg_embedding_opts_init(&o, sizeof o);
    fill(weight.t.data, 12, 1, 0);
    assert_int_equal(slg_embedding(NULL, &weight.t, &index, NULL, &y.t), SLG_ERR_NULL);
    assert_refused(ctx, slg_embedding(ctx, &weight.t, &index, NULL, &y.t), SLG_ERR_RANGE,
                   "index[1] is 4, weight has 4 entries", &y);
    places[1] = -1;
    assert_refused(ctx,
                   slg_embedding_backward(ctx, &index, &y.t,
                                          &(slg_embedding_opts){ sizeof o, 0, 2 }, &weight.t),
                   SLG_ERR_RANGE, "index[1] is -1", &weight);
    places[1] = 0;
    assert_refused(ctx, slg_embedding(ctx, &weight.t, &index, NULL, &wide.t), SLG_ERR_SHAPE,
                   "y", &wide);
    strided.stride[1] = 2, strided.shape[1] = 2;
    slg_tensor two = y.t;
    two.shape[1] = 2;
    assert_refused(ctx, slg_embedding_backward(ctx, &index, &two, NULL, &strided),
                   SLG_ERR_STRIDE, "contiguous", &weight);
    o.accumulate = 3;
    assert_refused(ctx, slg_embedding(ctx, &weight.t, &index, &o, &y.t), SLG_ERR_RANGE,
                   "accumulate is 3", &y);
    slg_tensor inside = slg_tensor_2d(weight.t.data, SLG_F32, 2, 3);
    assert_refused(ctx, slg_embedding(ctx, &weight.t, &index, NULL, &inside), SLG_ERR_STRIDE,
                   "y overlaps weight", &weight);
    slg_tensor none = slg_tensor_1d(NULL, SLG_I32, 0),
               no_rows = slg_tensor_2d(NULL, SLG_F32, 0, 3);
    ok(slg_embedding(ctx, &weight.t, &none, NULL, &no_rows));
    ok(slg_embedding_backward(ctx, &none, &no_rows, NULL, &weight.t));
    array *all[] = { &weight, &y, &wide };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { EACH_ISA(test_rows), cmocka_unit_test(test_threads),
                                        cmocka_unit_test(test_errors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
