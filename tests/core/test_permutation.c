/* Random permutations: distinct, uniform, the same everywhere; errors. */
#include "loss/loss_test.h"

static void test_permutations(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int64_t n = 0; n < 300; n = 2 * n + 1)
        for (int t = 0; t < 4; t++) {
            const int64_t count = t == 3 ? n / 2 : n;
            tensor out =
                vector(t % 2 ? SLG_I32 : SLG_I64, count, t / 2 ? COL_GAPS : CONTIGUOUS);
            char seen[300] = { 0 };
            slg_rng g = { 5, 17 };
            OK(ctx, slg_permutation(ctx, &g, n, &out.t));
            assert_true(g.seed == 5 && g.offset == 17 + (uint64_t)count);
            for (int64_t i = 0; i < count; i++) {
                const int64_t item = (int64_t)get(&out, 0, i);
                assert_true(item >= 0 && item < n && !seen[item]);
                seen[item] = 1;
            }
            assert_gaps_intact(&out);
            release(&out);
        }
    slg_ctx_free(ctx);
    (void)state;
}

/* Each of the 24 orders of 4, and of the 12 pairs of them, as often as another. */
static void test_uniform(void **state)
{
    enum { DRAWS = 48000 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int64_t count = 2; count <= 4; count += 2) {
        const int cells = count == 2 ? 12 : 24;
        int seen[256] = { 0 }, kinds = 0;
        double chi = 0;
        slg_rng g = { 3, 0 };
        for (int k = 0; k < DRAWS; k++) {
            int32_t item[4];
            slg_tensor out = slg_tensor_1d(item, SLG_I32, count);
            int key = 0;
            OK(ctx, slg_permutation(ctx, &g, 4, &out));
            for (int64_t i = 0; i < count; i++) key = 4 * key + item[i];
            seen[key]++;
        }
        for (int i = 0; i < 256; i++)
            if (seen[i]) {
                const double want = DRAWS / (double)cells, e = seen[i] - want;
                kinds++, chi += e * e / want;
            }
        assert_int_equal(kinds, cells);
        assert_true(chi < cells - 1 + 5 * sqrt(2.0 * (cells - 1)));
    }
    slg_ctx_free(ctx);
    (void)state;
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    int32_t item[4] = { 9 };
    float number[4];
    slg_tensor out = slg_tensor_1d(item, SLG_I32, 4), real = slg_tensor_1d(number, SLG_F32, 4);
    slg_tensor shared = out, square = slg_tensor_2d(item, SLG_I32, 2, 2);
    slg_rng g = { 1, 2 };
    shared.stride[0] = 0;
    assert_int_equal(slg_permutation(ctx, NULL, 4, &out), SLG_ERR_NULL);
    assert_int_equal(slg_permutation(ctx, &g, 4, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_permutation(NULL, &g, 4, &out), SLG_ERR_NULL);
    assert_int_equal(slg_permutation(ctx, &g, 4, &real), SLG_ERR_DTYPE);
    assert_int_equal(slg_permutation(ctx, &g, 4, &square), SLG_ERR_SHAPE);
    assert_int_equal(slg_permutation(ctx, &g, 4, &shared), SLG_ERR_STRIDE);
    assert_int_equal(slg_permutation(ctx, &g, 3, &out), SLG_ERR_RANGE);
    assert_int_equal(slg_permutation(ctx, &g, INT64_MAX, &out), SLG_ERR_RANGE);
    assert_int_equal(slg_permutation(ctx, &g, (int64_t)1 << 32, &out), SLG_ERR_RANGE);
    assert_true(g.offset == 2 && item[0] == 9);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutations),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
