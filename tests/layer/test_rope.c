/*
 * Rotary positions: against double arithmetic; turning back; products depend on the distance of
 * positions alone; part of a row; positions given; errors.
 */
#include "layer_test.h"

static slg_rope_opts opts_of(int32_t interleaved, int32_t inverse)
{
    slg_rope_opts o;
    slg_rope_opts_init(&o, sizeof o);
    o.interleaved = interleaved;
    o.inverse = inverse;
    return o;
}

typedef struct tables {
    array cos, sin;
} tables;

static tables tables_of(slg_ctx *ctx, int64_t positions, int64_t pairs, double base,
                        double scale)
{
    slg_rope_opts o = opts_of(0, 0);
    tables t = { new_2d(SLG_F32, positions, pairs, GAPS),
                 new_2d(SLG_F32, positions, pairs, DENSE) };
    o.base = base, o.scale = scale;
    ok(slg_rope_table(ctx, &o, &t.cos.t, &t.sin.t));
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < pairs; i++) {
            double a = (double)p * scale * pow(base, -2.0 * (double)i / (double)(2 * pairs));
            assert_near(get(&t.cos, p, i), cos(a), 1e-7, "cos");
            assert_near(get(&t.sin, p, i), sin(a), 1e-7, "sin");
        }
    assert_gaps(&t.cos);
    return t;
}

static void free_tables(tables *t) { free_array(&t->cos), free_array(&t->sin); }

static void test_formulas(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const int64_t shape[4] = { 2, 3, 11, 38 };
    for (int k = 0; k < 9 * LAYOUTS; k++) {
        const int32_t in = row_types[k % 3], to = row_types[k / 3 % 3], ndim = 2 + k % 3;
        const int64_t *s = shape + 4 - ndim, pairs = k % 5 == 4 ? 7 : 19;
        slg_rope_opts o = opts_of(k % 2, 0);
        tables t = tables_of(ctx, 40, pairs, k % 2 ? 1e4 : 500, k % 3 ? 1 : 0.25);
        array x = random_array(in, ndim, s, (enum layout)(k % LAYOUTS), 1, 0);
        array y = new_array(to, ndim, s, (enum layout)((k + 2) % LAYOUTS)),
              back = new_array(to, ndim, s, DENSE);
        int64_t given[11];
        slg_tensor position = slg_tensor_1d(given, SLG_I64, 11);
        for (int i = 0; i < 11; i++) given[i] = (i * 7 + 3) % 40;
        o.offset = 9;
        const slg_tensor *places = k % 4 == 3 ? &position : NULL;
        ok(slg_rope(ctx, &x.t, &t.cos.t, &t.sin.t, places, &o, &y.t));
        for (int64_t r = 0; r < rows_in(&x.t); r++)
            for (int64_t i = 0; i < 38; i++) {
                const int64_t p = places ? given[r % 11] : 9 + r % 11;
                int64_t j = i, other = i;
                double want = get(&x, r, i);
                if (i < 2 * pairs) {
                    bool second = o.interleaved ? i % 2 : i >= pairs;
                    j = o.interleaved ? i / 2 : i % pairs;
                    other = o.interleaved ? i ^ 1 : second ? i - pairs : i + pairs;
                    double c = get(&t.cos, p, j), q = get(&t.sin, p, j);
                    want = get(&x, r, i) * c + (second ? q : -q) * get(&x, r, other);
                }
                assert_near(get(&y, r, i), want,
                            3e-7 * (fabs(get(&x, r, i)) + fabs(get(&x, r, other))) +
                                rounding(to, want),
                            "row %d column %d", (int)r, (int)i);
            }
        assert_gaps(&y);
        /* Back again; in place. */
        o.inverse = 1;
        ok(slg_rope(ctx, &y.t, &t.cos.t, &t.sin.t, places, &o, &back.t));
        for (int64_t r = 0; r < rows_in(&x.t); r++)
            for (int64_t i = 0; i < 38; i++)
                assert_near(get(&back, r, i), get(&x, r, i), 1e-6 * 8 + 6 * rounding(to, 3),
                            "back");
        o.inverse = 0;
        array z = copy_array(&x), want = new_array(in, ndim, s, DENSE);
        ok(slg_rope(ctx, &z.t, &t.cos.t, &t.sin.t, places, &o, &want.t));
        ok(slg_rope(ctx, &z.t, &t.cos.t, &t.sin.t, places, &o, &z.t));
        assert_same(&z, &want);
        array *all[] = { &x, &y, &back, &z, &want };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
        free_tables(&t);
    }
    slg_ctx_free(ctx);
}

/* <turned q, turned k> depends on the difference of positions alone. */
static void test_relative(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    tables t = tables_of(ctx, 600, 16, 1e4, 1);
    array q = new_2d(SLG_F32, 1, 32, DENSE), k = new_2d(SLG_F32, 1, 32, DENSE),
          a = new_2d(SLG_F32, 1, 32, DENSE), b = new_2d(SLG_F32, 1, 32, DENSE);
    fill(q.t.data, 32, 1, 0), fill(k.t.data, 32, 1, 0);
    for (int32_t interleaved = 0; interleaved < 2; interleaved++) {
        double first = 0;
        for (int32_t p = 0; p < 500; p += 37) {
            slg_rope_opts o = opts_of(interleaved, 0);
            double product = 0;
            o.offset = p + 50;
            ok(slg_rope(ctx, &q.t, &t.cos.t, &t.sin.t, NULL, &o, &a.t));
            o.offset = p;
            ok(slg_rope(ctx, &k.t, &t.cos.t, &t.sin.t, NULL, &o, &b.t));
            for (int64_t i = 0; i < 32; i++) product += get(&a, 0, i) * get(&b, 0, i);
            if (p == 0) first = product;
            assert_near(product, first, 1e-4, "position %d", p);
        }
    }
    array *all[] = { &q, &k, &a, &b };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    free_tables(&t);
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    tables t = tables_of(ctx, 5, 4, 1e4, 1);
    array x = new_2d(SLG_F32, 3, 8, DENSE), y = new_2d(SLG_F32, 3, 8, DENSE),
          thin = new_2d(SLG_F32, 3, 7, DENSE);
    int32_t places[3] = { 0, 5, 1 };
    slg_tensor position = slg_tensor_1d(places, SLG_I32, 3), strided = t.cos.t;
    slg_rope_opts o = opts_of(0, 0);
    (void)state;
    fill(x.t.data, 24, 1, 0), fill(thin.t.data, 21, 1, 0);
    assert_int_equal(slg_rope(NULL, &x.t, &t.cos.t, &t.sin.t, NULL, NULL, &y.t), SLG_ERR_NULL);
    assert_refused(ctx, slg_rope(ctx, &thin.t, &t.cos.t, &t.sin.t, NULL, NULL, &thin.t),
                   SLG_ERR_SHAPE, "cos has 4 columns, x has 7", &thin);
    assert_refused(ctx, slg_rope(ctx, &x.t, &t.cos.t, &t.sin.t, &position, NULL, &y.t),
                   SLG_ERR_RANGE, "position[1] is 5", &y);
    o.offset = 3;
    assert_refused(ctx, slg_rope(ctx, &x.t, &t.cos.t, &t.sin.t, NULL, &o, &y.t), SLG_ERR_RANGE,
                   "3 tokens from offset 3", &y);
    o.offset = -1;
    assert_refused(ctx, slg_rope(ctx, &x.t, &t.cos.t, &t.sin.t, NULL, &o, &y.t), SLG_ERR_RANGE,
                   "offset is -1", &y);
    o = opts_of(2, 0);
    assert_refused(ctx, slg_rope(ctx, &x.t, &t.cos.t, &t.sin.t, NULL, &o, &y.t), SLG_ERR_RANGE,
                   "interleaved is 2", &y);
    strided.stride[1] = 2, strided.shape[1] = 2;
    slg_tensor half = t.sin.t;
    half.shape[1] = 2;
    assert_refused(ctx, slg_rope(ctx, &x.t, &strided, &half, NULL, NULL, &y.t), SLG_ERR_STRIDE,
                   "contiguous", &y);
    o = opts_of(0, 0), o.base = 0;
    assert_refused(ctx, slg_rope_table(ctx, &o, &t.cos.t, &t.sin.t), SLG_ERR_RANGE, "base is 0",
                   &t.cos);
    assert_refused(ctx, slg_rope_table(ctx, NULL, &t.cos.t, &t.cos.t), SLG_ERR_STRIDE,
                   "sin overlaps cos", &t.cos);
    array *all[] = { &x, &y, &thin };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    free_tables(&t);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { EACH_ISA(test_formulas), EACH_ISA(test_relative),
                                        cmocka_unit_test(test_errors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
