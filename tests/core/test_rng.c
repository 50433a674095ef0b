/* Philox-4x32-10 against the known answers of its authors (Random123, kat_vectors);
   slg_random. */
#include "loss/loss_test.h"

#include "core/rng.h"

static void test_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (int64_t i = 0; i < COUNT(known); i++) {
        uint32_t got[4];
        philox4x32(known[i].counter, known[i].key, got);
        assert_memory_equal(got, known[i].want, sizeof got);
    }
    (void)state;
}

/* The words' order in numbers: part of the promise of the same bits. */
static void test_numbers(void **state)
{
    assert_true(rng_number(0, 0) == 0xe169c58d6627e8d5u);
    assert_true(rng_number(0, 1) == 0x9b00dbd8bc57ac4cu);
    const uint64_t key_seed = 0x299f31d0a4093822u, index = 0x85a308d3243f6a88u;
    const uint32_t counter[4] = { (uint32_t)(index >> 1), (uint32_t)(index >> 33), 0, 0 };
    const uint32_t key[2] = { (uint32_t)key_seed, (uint32_t)(key_seed >> 32) };
    uint32_t word[4];
    philox4x32(counter, key, word);
    uint64_t many[7];
    for (uint64_t first = 0; first < 4; first++)
        for (int64_t n = 0; n <= 6; n++) {
            many[n] = 7;
            rng_numbers(key_seed, index + first, n, many);
            for (int64_t i = 0; i < n; i++)
                assert_true(many[i] == rng_number(key_seed, index + first + (uint64_t)i));
            assert_true(many[n] == 7);
        }
    assert_true(rng_number(key_seed, index) == (word[0] | (uint64_t)word[1] << 32));
    (void)state;
}

static void fill_with(slg_ctx *ctx, int32_t distribution, tensor *out, slg_rng *g)
{
    OK(ctx, slg_random(ctx, g, distribution, &out->t));
}

static void test_same_bits(void **state)
{
    enum { ROWS = 37, COLS = 501 };
    for (int32_t d = SLG_UNIFORM; d <= SLG_GUMBEL; d++)
        for (int type = 0; type < 2; type++) {
            const int32_t dtype = type ? SLG_F64 : SLG_F32;
            tensor want = matrix(dtype, ROWS, COLS, CONTIGUOUS);
            slg_ctx *plain = context(SLG_ISA_PORTABLE, 1);
            slg_rng g = { 7, 1000 };
            fill_with(plain, d, &want, &g);
            assert_true(g.seed == 7 && g.offset == 1000 + ROWS * COLS);
            slg_ctx_free(plain);
            for (int32_t threads = 1; threads <= 8; threads = threads * 2 + 1)
                FOR_EACH_ISA(ctx, threads)
                {
                    tensor got = matrix(dtype, ROWS, COLS, COL_GAPS);
                    tensor part = matrix(dtype, 1, 77, CONTIGUOUS);
                    slg_rng h = { 7, 1000 }, jump = { 7, 1000 + 123 };
                    fill_with(ctx, d, &got, &h);
                    fill_with(ctx, d, &part, &jump);
                    for (int64_t i = 0; i < ROWS * COLS; i++)
                        assert_true(get(&got, i / COLS, i % COLS) ==
                                    get(&want, i / COLS, i % COLS));
                    for (int64_t i = 0; i < 77; i++)
                        assert_true(get(&part, 0, i) ==
                                    get(&want, (i + 123) / COLS, (i + 123) % COLS));
                    assert_gaps_intact(&got);
                    release(&got), release(&part);
                }
            release(&want);
        }
    (void)state;
}

/* Mean and variance within 5 standard errors; uniform numbers inside of (0, 1). */
static void test_moments(void **state)
{
    enum { N = 200000 };
    static const double mean[] = { 0.5, 0, 0.57721566490153286 };
    static const double variance[] = { 1.0 / 12, 1, 1.6449340668482264 };
    static const double fourth[] = { 1.0 / 80, 3, 14.6 }; /* central moment */
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int32_t d = SLG_UNIFORM; d <= SLG_GUMBEL; d++) {
        tensor x = vector(SLG_F32, N, CONTIGUOUS);
        slg_rng g = { 12345, 0 };
        double sum = 0, square = 0;
        fill_with(ctx, d, &x, &g);
        for (int64_t i = 0; i < N; i++) {
            double v = get(&x, 0, i);
            assert_true(isfinite(v) && (d != SLG_UNIFORM || (v > 0 && v < 1)));
            sum += v - mean[d];
            square += (v - mean[d]) * (v - mean[d]);
        }
        assert_true(fabs(sum / N) < 5 * sqrt(variance[d] / N));
        assert_true(fabs(square / N - variance[d]) <
                    5 * sqrt((fourth[d] - variance[d] * variance[d]) / N));
        release(&x);
    }
    slg_ctx_free(ctx);
    (void)state;
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    int32_t whole[4] = { 1, 2, 3, 4 };
    float data[4] = { 1, 2, 3, 4 };
    slg_tensor x = slg_tensor_1d(data, SLG_F32, 4), shared = x, ints = x, none = x;
    slg_rng g = { 1, 2 };
    shared.stride[0] = 0;
    ints.dtype = SLG_I32, ints.data = whole;
    none.shape[0] = 0;
    assert_int_equal(slg_random(NULL, &g, SLG_UNIFORM, &x), SLG_ERR_NULL);
    assert_int_equal(slg_random(ctx, NULL, SLG_UNIFORM, &x), SLG_ERR_NULL);
    assert_int_equal(slg_random(ctx, &g, SLG_UNIFORM, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_random(ctx, &g, 3, &x), SLG_ERR_RANGE);
    assert_int_equal(slg_random(ctx, &g, -1, &x), SLG_ERR_RANGE);
    assert_int_equal(slg_random(ctx, &g, SLG_UNIFORM, &ints), SLG_ERR_DTYPE);
    assert_int_equal(slg_random(ctx, &g, SLG_UNIFORM, &shared), SLG_ERR_STRIDE);
    assert_true(g.seed == 1 && g.offset == 2 && data[0] == 1 && data[3] == 4);
    OK(ctx, slg_random(ctx, &g, SLG_UNIFORM, &none));
    assert_true(g.offset == 2);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_same_bits),     cmocka_unit_test(test_moments),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
