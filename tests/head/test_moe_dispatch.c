/*
 * Rows to experts and back: lists against a plain sort, capacity, gather and combine against
 * sums in double, their gradients as transposes, errors, threads.
 */
#include "layer/layer_test.h"

#include "softlogit/moe.h"

static int32_t *int_of(const array *a, int64_t r, int64_t c) { return element(&a->t, r, c); }

static int64_t offset_of(const array *a, int64_t i) { return *(int64_t *)element(&a->t, 0, i); }

static void fill_indices(array *index, int n, int k, int experts, int kind)
{
    for (int r = 0; r < n; r++)
        for (int j = 0; j < k; j++) {
            int i = (int)(uniform() * experts);
            if (kind == 1) i = 0;                     /* all one's */
            if (kind == 2 && uniform() < 0.3) i = -1; /* none */
            *int_of(index, r, j) = i;
        }
}

static void test_lists(void **state)
{
    static const int shapes[][3] = {
        { 1, 1, 1 }, { 20, 2, 5 }, { 9, 3, 40 }, { 30000, 2, 8 }, { 50, 16, 3 }
    };
    (void)state;
    for (int t = 0; t < 60; t++) {
        const int n = shapes[t % 5][0], k = shapes[t % 5][1], e = shapes[t % 5][2];
        slg_ctx *ctx = new_ctx(0, 1 + t / 5 % 3);
        const enum layout one = (enum layout)(t / 5 % LAYOUTS);
        array index = new_2d(SLG_I32, n, k, one), place = new_2d(SLG_I32, n, k, one),
              token = new_1d(SLG_I32, n * k), offset = new_1d(SLG_I64, e + 1);
        slg_moe_dispatch_opts o;
        slg_moe_dispatch_opts_init(&o, sizeof o);
        o.capacity = t % 2 ? n * k / e / 2 + 1 : 0;
        fill_indices(&index, n, k, e, t % 3);
        ok(slg_moe_dispatch(ctx, &index.t, &o, &offset.t, &token.t, t % 7 ? &place.t : NULL));
        /* Which pairs stay: first choices first. */
        char *kept = calloc((size_t)(n * k), 1);
        int64_t *room = calloc((size_t)e, sizeof *room), pairs = 0;
        for (int j = 0; j < k; j++)
            for (int r = 0; r < n; r++) {
                const int i = *int_of(&index, r, j);
                if (i < 0 || (o.capacity && room[i] >= o.capacity)) continue;
                room[i]++, pairs++, kept[r * k + j] = 1;
            }
        assert_int_equal(offset_of(&offset, 0), 0);
        assert_int_equal(offset_of(&offset, e), pairs);
        for (int i = 0; i < e; i++)
            assert_int_equal(offset_of(&offset, i + 1) - offset_of(&offset, i), room[i]);
        for (int i = 0; i < e; i++) room[i] = offset_of(&offset, i);
        for (int r = 0; r < n; r++)
            for (int j = 0; j < k; j++) {
                const int i = *int_of(&index, r, j);
                const int64_t want = kept[r * k + j] ? room[i]++ : -1;
                if (want >= 0) assert_int_equal(*int_of(&token, 0, want), r);
                if (t % 7) assert_int_equal(*int_of(&place, r, j), want);
            }
        for (int64_t p = pairs; p < n * k; p++) assert_int_equal(*int_of(&token, 0, p), -1);
        assert_gaps(&place);
        free(kept), free(room);
        array *all[] = { &index, &place, &token, &offset };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
        slg_ctx_free(ctx);
    }
}

static void test_there_and_back(void **state)
{
    enum { N = 37, K = 3, E = 5, D = 21 };
    for (int t = 0; t < 3 * LAYOUTS; t++) {
        slg_ctx *ctx = ctx_of(state);
        const enum layout one = (enum layout)(t % LAYOUTS),
                          other = (enum layout)((t / 3 + 2) % LAYOUTS);
        const int32_t type = row_types[t % 3], to = row_types[t / 3 % 3];
        const bool weighs = t % 4 != 0;
        slg_moe_dispatch_opts o;
        slg_moe_dispatch_opts_init(&o, sizeof o);
        o.capacity = t % 2 ? 15 : 0;
        array index = new_2d(SLG_I32, N, K, one), place = new_2d(SLG_I32, N, K, one),
              token = new_1d(SLG_I32, N * K), offset = new_1d(SLG_I64, E + 1);
        array x = random_array(type, 2, (int64_t[]){ N, D }, one, 1, 0),
              h = new_2d(type, N * K, D, other), y = new_2d(to, N, D, one),
              weight = random_array(SLG_F32, 2, (int64_t[]){ N, K }, other, 1, 0),
              dy = random_array(type, 2, (int64_t[]){ N, D }, other, 1, 0),
              dh = new_2d(to, N * K, D, one), dweight = new_2d(SLG_F32, N, K, one);
        fill_indices(&index, N, K, E, t % 3);
        ok(slg_moe_dispatch(ctx, &index.t, &o, &offset.t, &token.t, &place.t));
        ok(slg_moe_gather(ctx, &x.t, &token.t, &h.t));
        for (int p = 0; p < N * K; p++)
            for (int c = 0; c < D; c++) {
                const int r = *int_of(&token, 0, p);
                assert_near(get(&h, p, c), r < 0 ? 0 : get(&x, r, c), 0, "pair %d", p);
            }
        for (int p = 0; p < N * K; p++)
            for (int c = 0; c < D; c++) put(&h, p, c, normal());
        const slg_tensor *w = weighs ? &weight.t : NULL;
        ok(slg_moe_combine(ctx, &h.t, &place.t, w, &y.t));
        ok(slg_moe_combine_backward(ctx, &h.t, &place.t, w, &dy.t, &dh.t, &dweight.t));
        bool held[N * K] = { false };
        for (int r = 0; r < N; r++) {
            for (int c = 0; c < D; c++) {
                double sum = 0, size = 0;
                for (int j = 0; j < K; j++) {
                    const int p = *int_of(&place, r, j);
                    if (p < 0) continue;
                    const double term = (weighs ? get(&weight, r, j) : 1) * get(&h, p, c);
                    sum += term, size += fabs(term);
                }
                assert_near(get(&y, r, c), sum, 3e-7 * size + rounding(to, sum), "y");
            }
            for (int j = 0; j < K; j++) {
                const int p = *int_of(&place, r, j);
                double dot = 0;
                for (int c = 0; p >= 0 && c < D; c++) {
                    const double d = (weighs ? get(&weight, r, j) : 1) * get(&dy, r, c);
                    dot += get(&dy, r, c) * get(&h, p, c);
                    assert_near(get(&dh, p, c), d, 1e-7 * fabs(d) + rounding(to, d), "dh");
                    held[p] = true;
                }
                assert_near(get(&dweight, r, j), dot, 1e-6 * (1 + fabs(dot)), "dweight");
            }
        }
        for (int p = 0; p < N * K; p++)
            for (int c = 0; !held[p] && c < D; c++) assert_true(get(&dh, p, c) == 0);
        assert_gaps(&y), assert_gaps(&dh), assert_gaps(&h), assert_gaps(&dweight);
        ok(slg_moe_combine_backward(ctx, NULL, &place.t, w, &dy.t, &dh.t, NULL));
        array *all[] = { &index, &place, &token,  &offset, &x,      &h,
                         &y,     &dy,    &weight, &dh,     &dweight };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
        slg_ctx_free(ctx);
    }
}

static void test_errors(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    array index = new_2d(SLG_I32, 4, 2, DENSE), token = new_1d(SLG_I32, 8),
          offset = new_1d(SLG_I64, 4), place = new_2d(SLG_I32, 4, 2, DENSE),
          x = new_2d(SLG_F32, 4, 3, DENSE), h = new_2d(SLG_F32, 8, 3, DENSE),
          y = new_2d(SLG_F32, 4, 3, DENSE);
    slg_moe_dispatch_opts o;
    (void)state;
    slg_moe_dispatch_opts_init(&o, sizeof o);
    fill(x.t.data, 12, 1, 0), fill(h.t.data, 24, 1, 0);
    fill_indices(&index, 4, 2, 3, 0);
    *int_of(&index, 2, 1) = 3;
#define DISPATCH slg_moe_dispatch(ctx, &index.t, &o, &offset.t, &token.t, &place.t)
    assert_int_equal(slg_moe_dispatch(NULL, &index.t, &o, &offset.t, &token.t, NULL),
                     SLG_ERR_NULL);
    assert_refused(ctx, DISPATCH, SLG_ERR_RANGE, "index holds 3 at row 2", &h);
    *int_of(&index, 2, 1) = -2;
    assert_refused(ctx, DISPATCH, SLG_ERR_RANGE, "index holds -2 at row 2", &h);
    *int_of(&index, 2, 1) = 0;
    o.capacity = -1;
    assert_refused(ctx, DISPATCH, SLG_ERR_RANGE, "capacity is -1", &h);
    o.capacity = 0, o.reserved = 1;
    assert_refused(ctx, DISPATCH, SLG_ERR_OPTIONS, "reserved", &h);
    o.reserved = 0;
    ok(DISPATCH);
    assert_refused(ctx, slg_moe_gather(ctx, &x.t, &token.t, &y.t), SLG_ERR_SHAPE, "y", &y);
    assert_refused(ctx, slg_moe_gather(ctx, &x.t, &index.t, &h.t), SLG_ERR_SHAPE, "token", &h);
    *int_of(&token, 0, 1) = 4;
    assert_refused(ctx, slg_moe_gather(ctx, &x.t, &token.t, &h.t), SLG_ERR_RANGE,
                   "token holds 4", &h);
    assert_refused(ctx, slg_moe_combine(ctx, &h.t, &place.t, NULL, &h.t), SLG_ERR_SHAPE, "y",
                   &h);
    slg_tensor inside = slg_tensor_2d(h.t.data, SLG_F32, 4, 3);
    assert_refused(ctx, slg_moe_combine(ctx, &h.t, &place.t, NULL, &inside), SLG_ERR_STRIDE,
                   "y overlaps h", &h);
    *int_of(&place, 1, 1) = *int_of(&place, 0, 0);
    assert_refused(ctx, slg_moe_combine_backward(ctx, NULL, &place.t, NULL, &x.t, &h.t, NULL),
                   SLG_ERR_RANGE, "twice", &h);
    *int_of(&place, 1, 1) = 8;
    assert_refused(ctx, slg_moe_combine(ctx, &h.t, &place.t, NULL, &y.t), SLG_ERR_RANGE,
                   "place holds 8 at row 1", &y);
    array *all[] = { &index, &token, &offset, &place, &x, &h, &y };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lists),
                                        EACH_ISA(test_there_and_back),
                                        cmocka_unit_test(test_errors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
