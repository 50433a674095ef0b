/* Rows: all dtypes, strides of both signs, blocks; rounding of single elements. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/tensor.h"

enum { COLS = 1100, N = 4 * COLS * 3 };

static slg_ctx *ctxs[3]; /* one for each ISA that the CPU has */
static int levels;

static int setup(void **state)
{
    (void)state;
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= kernels_cpu_isa(); isa++) {
        slg_ctx_opts o;
        slg_ctx_opts_init(&o, sizeof o);
        o.isa = isa;
        o.num_threads = 1;
        if (slg_ctx_create(&o, &ctxs[levels++])) return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    while (levels) slg_ctx_free(ctxs[--levels]);
    return 0;
}

static int64_t memory[N]; /* room for any dtype */

/* Small whole numbers, exact in every dtype. */
static double value(int64_t r, int64_t c) { return (double)((r * 7 + c) % 251 - 125); }

/* A [2, 2, COLS] tensor inside of memory, with these strides; negative ones start at the end.
 */
static slg_tensor view(int32_t dtype, int64_t s0, int64_t s1, int64_t s2)
{
    slg_tensor t = { NULL, dtype, 3, { 2, 2, COLS }, { s0, s1, s2 } };
    int64_t start = 0;
    for (int i = 0; i < 3; i++)
        if (t.stride[i] < 0) start -= t.stride[i] * (t.shape[i] - 1);
    t.data = (char *)memory + start * (int64_t)dtype_size(dtype);
    return t;
}

static void one_view(const kernel_table *k, slg_tensor t)
{
    static float scratch[COLS], back[COLS];
    rows m = rows_of(&t);
    assert_int_equal(m.count, 4);
    assert_int_equal(m.cols, COLS);
    assert_int_equal(m.plain, t.dtype == SLG_F32 && t.stride[2] == 1);
    memset(memory, 0x5A, sizeof memory);
    for (int64_t r = 0; r < 4; r++) {
        int64_t at = r / 2 * t.stride[0] + r % 2 * t.stride[1];
        assert_ptr_equal(rows_at(&m, r), (char *)t.data + at * (int64_t)m.item);
        /* In blocks of odd size, so that starts and tails are of all kinds. */
        for (int64_t c = 0; c < COLS; c += 547) {
            int64_t n = COLS - c < 547 ? COLS - c : 547;
            float *y = rows_stage(&m, r, c, scratch);
            assert_int_equal(y != scratch, m.plain);
            for (int64_t i = 0; i < n; i++) y[i] = (float)value(r, c + i);
            rows_commit(k, &m, r, c, n, y);
        }
    }
    for (int64_t r = 0; r < 4; r++) {
        for (int64_t c = 0; c < COLS; c += 3) {
            assert_true(rows_get(&m, r, c) == value(r, c));
            assert_int_equal(rows_get_int(&m, r, c), (int64_t)value(r, c));
        }
        for (int64_t c = 5; c < COLS; c += 600) {
            int64_t n = COLS - c < 600 ? COLS - c : 600;
            const float *x = rows_fetch(k, &m, r, c, n, back);
            assert_int_equal(x != back, m.plain);
            for (int64_t i = 0; i < n; i++) assert_true(x[i] == (float)value(r, c + i));
        }
        rows_put(&m, r, 1, 3.0);
        assert_true(rows_get(&m, r, 1) == 3.0);
    }
    /* Nothing but the view was written: the gaps are as they were. */
    size_t item = m.item, kept = 0;
    const unsigned char *bytes = (const void *)memory;
    for (size_t i = 0; i < sizeof memory; i++) kept += bytes[i] == 0x5A;
    assert_true(kept >= sizeof memory - 4 * COLS * item);
}

static void test_views(void **state)
{
    (void)state;
    const int64_t strides[][3] = {
        { 2 * COLS, COLS, 1 },  { 2 * COLS + 9, COLS + 2, 1 }, { 4 * COLS, 2 * COLS, 2 },
        { 2 * COLS, COLS, -1 }, { -2 * COLS, -COLS, 1 },       { 1, 2, 4 },
        { -4 * COLS, 1, -2 },   { COLS, 2 * COLS, 1 },         { 1, -2, 5 },
    };
    for (int level = 0; level < levels; level++)
        for (int32_t dtype = SLG_F32; dtype <= SLG_I64; dtype++)
            for (size_t i = 0; i < sizeof strides / sizeof *strides; i++)
                one_view(&ctxs[level]->k,
                         view(dtype, strides[i][0], strides[i][1], strides[i][2]));
}

static void test_layout(void **state)
{
    (void)state;
    float x[64] = { 0 };
    slg_tensor t = slg_tensor_2d(x, SLG_F32, 8, 8);
    rows m = rows_of(&t);
    assert_int_equal(m.outer, 1);
    assert_true(m.plain);
    t = (slg_tensor){ x, SLG_F32, 4, { 2, 1, 4, 8 }, { 32, 99, 8, 1 } };
    m = rows_of(&t);
    assert_int_equal(m.outer, 1); /* joined */
    assert_int_equal(m.count, 8);
    assert_ptr_equal(rows_at(&m, 7), x + 56);
    t = (slg_tensor){ x, SLG_F32, 4, { 2, 2, 2, 1 }, { 1, 16, 4, 77 } };
    m = rows_of(&t);
    assert_int_equal(m.outer, 3);
    assert_true(m.plain); /* one column is contiguous */
    assert_ptr_equal(rows_at(&m, 5), x + 1 + 4);
    t = slg_tensor_1d(x, SLG_F32, 8);
    m = rows_of(&t);
    assert_int_equal(m.count, 1);
    assert_ptr_equal(rows_at(&m, 0), x);
    m = rows_per_row(&t);
    assert_int_equal(m.count, 8);
    assert_int_equal(m.cols, 1);
    assert_ptr_equal(rows_at(&m, 7), x + 7);
    t = (slg_tensor){ x, SLG_I32, 3, { 2, 2, 2 }, { 4, -2, 8 } };
    m = rows_per_row(&t);
    assert_false(m.plain);
    assert_ptr_equal(rows_at(&m, 7), x + 4 - 2 + 8);
    /* No elements: strides may be anything, and are not computed with. */
    t = (slg_tensor){ NULL, SLG_F32, 3, { 1 << 30, 1 << 30, 0 }, { INT64_MAX, INT64_MAX, 1 } };
    m = rows_of(&t);
    assert_int_equal(m.count, INT64_C(1) << 60);
    assert_int_equal(m.cols, 0);
    t.shape[1] = 0;
    m = rows_per_row(&t);
    assert_int_equal(m.count, 0);
    /* A row repeated: stride 0, as inputs may have. */
    t = (slg_tensor){ x, SLG_F32, 2, { 5, 8 }, { 0, 1 } };
    m = rows_of(&t);
    assert_int_equal(m.count, 5);
    assert_ptr_equal(rows_at(&m, 4), x);
}

/* Every 16-bit pattern to double and back; and to float as the kernels do. */
static void test_halves(void **state)
{
    (void)state;
    for (int32_t dtype = SLG_BF16; dtype <= SLG_F16; dtype++)
        for (uint32_t bits = 0; bits < 65536; bits++) {
            uint16_t h = (uint16_t)bits, back = 0, want = h;
            float wide[1];
            slg_tensor from = slg_tensor_1d(&h, dtype, 1), to = slg_tensor_1d(&back, dtype, 1);
            rows a = rows_of(&from), b = rows_of(&to);
            double x = rows_get(&a, 0, 0);
            rows_put(&b, 0, 0, x);
            if (isnan(x)) {
                rows_put(&b, 0, 0, x);
                assert_true(isnan(rows_get(&b, 0, 0)));
                assert_true(isnan(rows_fetch(&ctxs[0]->k, &a, 0, 0, 1, wide)[0]));
                continue;
            }
            assert_int_equal(back, want);
            float y = rows_fetch(&ctxs[0]->k, &a, 0, 0, 1, wide)[0];
            if ((double)y != x) fail_msg("dtype %d bits %04x", (int)dtype, (unsigned)bits);
        }
}

static double put_get(int32_t dtype, double x)
{
    int64_t store = 0;
    slg_tensor t = slg_tensor_1d(&store, dtype, 1);
    rows m = rows_of(&t);
    rows_put(&m, 0, 0, x);
    return rows_get(&m, 0, 0);
}

static void test_rounding(void **state)
{
    (void)state;
    /* bf16 has 8 bits, f16 has 11: half way goes to even, and rounding happens once. */
    assert_true(put_get(SLG_BF16, 1.0 + 0x1p-8) == 1.0);
    assert_true(put_get(SLG_BF16, 1.0 + 0x1.8p-7) == 1.0 + 0x1p-6);
    assert_true(put_get(SLG_BF16, 1.0 + 0x1p-8 + 0x1p-40) == 1.0 + 0x1p-7);
    assert_true(put_get(SLG_BF16, -1.0 - 0x1p-8 - 0x1p-40) == -1.0 - 0x1p-7);
    assert_true(put_get(SLG_BF16, 1.0 + 0x1.8p-7 - 0x1p-40) == 1.0 + 0x1p-7);
    assert_true(put_get(SLG_BF16, 1e39) == INFINITY);
    assert_true(put_get(SLG_BF16, -1e300) == -INFINITY);
    assert_true(put_get(SLG_BF16, 0x1.FEp127) == 0x1.FEp127);
    assert_true(isnan(put_get(SLG_BF16, NAN)));
    assert_true(signbit(put_get(SLG_BF16, -0.0)));

    assert_true(put_get(SLG_F16, 1.0 + 0x1p-11) == 1.0);
    assert_true(put_get(SLG_F16, 1.0 + 0x1p-11 + 0x1p-40) == 1.0 + 0x1p-10);
    assert_true(put_get(SLG_F16, 1.0 + 0x1.8p-10) == 1.0 + 0x1p-9);
    assert_true(put_get(SLG_F16, 65519.999) == 65504.0);
    assert_true(put_get(SLG_F16, 65520.0) == INFINITY);
    assert_true(put_get(SLG_F16, -1e10) == -INFINITY);
    assert_true(put_get(SLG_F16, 0x1p-24) == 0x1p-24);
    assert_true(put_get(SLG_F16, 0x1p-25) == 0.0);
    assert_true(put_get(SLG_F16, 0x1p-25 + 0x1p-40) == 0x1p-24);
    assert_true(put_get(SLG_F16, 0x1p-14 - 0x1p-26) == 0x1p-14);
    assert_true(put_get(SLG_F16, 2.0 - 0x1p-12) == 2.0);
    assert_true(isnan(put_get(SLG_F16, NAN)));
    assert_true(signbit(put_get(SLG_F16, -0.0)));

    assert_true(put_get(SLG_F32, 0.1) == (double)0.1f);
    assert_true(put_get(SLG_F64, 0.1) == 0.1);
    assert_true(put_get(SLG_I32, 2.5) == 2.0);
    assert_true(put_get(SLG_I32, 1e10) == INT32_MAX);
    assert_true(put_get(SLG_I32, -1e10) == INT32_MIN);
    assert_true(put_get(SLG_I32, NAN) == 0.0);
    assert_true(put_get(SLG_I64, -3.7) == -4.0);
    int64_t store = 0;
    slg_tensor t = slg_tensor_1d(&store, SLG_I64, 1);
    rows m = rows_of(&t);
    rows_put(&m, 0, 0, 1e30);
    assert_true(rows_get_int(&m, 0, 0) == INT64_MAX);
    store = INT64_MIN + 1; /* is no double */
    assert_true(rows_get_int(&m, 0, 0) == INT64_MIN + 1);
    double d = NAN;
    t = slg_tensor_1d(&d, SLG_F64, 1);
    m = rows_of(&t);
    assert_int_equal(rows_get_int(&m, 0, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_rounding),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
