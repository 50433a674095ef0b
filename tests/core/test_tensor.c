/* Checks on tensors: every refusal and its words, which strides may be written, what overlaps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/tensor.h"

static slg_ctx *ctx;
static double memory[4096]; /* aligned for any type */

static int setup(void **state)
{
    (void)state;
    if (slg_ctx_create(NULL, &ctx)) return -1;
    op_begin(ctx, "slg_test");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    op_end(ctx, SLG_OK);
    slg_ctx_free(ctx);
    return 0;
}

static slg_tensor tensor(int32_t ndim, const int64_t *shape, const int64_t *stride)
{
    slg_tensor t = { memory + 2048, SLG_F32, ndim, { 0 }, { 0 } };
    memcpy(t.shape, shape, (size_t)ndim * sizeof *shape);
    memcpy(t.stride, stride, (size_t)ndim * sizeof *stride);
    return t;
}

#define SHAPE(...) ((const int64_t[]){ __VA_ARGS__ })
#define T1(a, sa) tensor(1, SHAPE(a), SHAPE(sa))
#define T2(a, b, sa, sb) tensor(2, SHAPE(a, b), SHAPE(sa, sb))
#define T3(a, b, c, sa, sb, sc) tensor(3, SHAPE(a, b, c), SHAPE(sa, sb, sc))

/* Both checks say the same, but for strides. */
static void refused(const slg_tensor *t, unsigned dtypes, int32_t min, int32_t max,
                    slg_status status, const char *message)
{
    assert_int_equal(tensor_in(ctx, "x", t, dtypes, min, max), status);
    if (message) assert_string_equal(slg_ctx_message(ctx), message);
    assert_int_equal(tensor_out(ctx, "x", t, dtypes, min, max), status);
    if (message) assert_string_equal(slg_ctx_message(ctx), message);
}

static void test_refused(void **state)
{
    (void)state;
    char text[200];
    refused(NULL, DT_F32, 1, 4, SLG_ERR_NULL, "slg_test: x is NULL");

    slg_tensor t = T2(3, 4, 4, 1);
    t.dtype = 6;
    refused(&t, DT_ROW, 1, 4, SLG_ERR_DTYPE, "slg_test: x has unknown dtype 6");
    t.dtype = -1;
    refused(&t, DT_ROW, 1, 4, SLG_ERR_DTYPE, "slg_test: x has unknown dtype -1");
    t.dtype = SLG_I64;
    refused(&t, DT_ROW, 1, 4, SLG_ERR_DTYPE,
            "slg_test: x has dtype i64, must be one of: f32, bf16, f16");
    t.dtype = SLG_F32;
    refused(&t, DT_F64, 1, 4, SLG_ERR_DTYPE, "slg_test: x has dtype f32, must be one of: f64");

    refused(&t, DT_ROW, 1, 1, SLG_ERR_SHAPE, "slg_test: x has 2 dimensions, must have 1");
    refused(&t, DT_ROW, 3, 4, SLG_ERR_SHAPE, "slg_test: x has 2 dimensions, must have 3 to 4");
    const int32_t ndims[] = { 0, -1, 5, INT32_MAX, INT32_MIN };
    for (int i = 0; i < 5; i++) {
        t.ndim = ndims[i];
        refused(&t, DT_ROW, 1, 4, SLG_ERR_SHAPE, NULL);
    }

    t = T2(3, -4, 4, 1);
    refused(&t, DT_ROW, 1, 4, SLG_ERR_SHAPE, "slg_test: x has shape [3, -4]: -4 is negative");
    t = T2(0, -4, 4, 1);
    refused(&t, DT_ROW, 1, 4, SLG_ERR_SHAPE, "slg_test: x has shape [0, -4]: -4 is negative");

    t = T2(3, 4, 4, 1);
    t.data = NULL;
    refused(&t, DT_ROW, 1, 4, SLG_ERR_NULL,
            "slg_test: x has shape [3, 4], but its data is NULL");
    t.data = (char *)memory + 2;
    snprintf(text, sizeof text, "slg_test: x has data at %p, not aligned to the 4 bytes of f32",
             t.data);
    refused(&t, DT_ROW, 1, 4, SLG_ERR_RANGE, text);
    t.dtype = SLG_BF16;
    assert_int_equal(tensor_in(ctx, "x", &t, DT_ROW, 1, 4), SLG_OK);
}

static void test_overflow(void **state)
{
    (void)state;
    const int64_t max = INT64_MAX, min = INT64_MIN;
    const slg_tensor bad[] = {
        T2(max, 2, 2, 1),
        T2(2, max, 1, 2),
        T2(max, max, 0, 0),
        T2(INT64_C(1) << 32, INT64_C(1) << 31, 1, 1),
        T2(3, 4, max, 1),
        T2(3, 4, min, 1),
        T2(2, 4, min, 1),
        T2(2, 4, max, 1),
        T2(2, 2, max / 2, max / 2 + 2),
        T2(2, 2, -(max / 2), max / 2 + 2),
        T1(max, 1),
        T1(max / 4 + 1, 1),
        T1(max / 4, 0x7FFFFFFF),
        T1(max / 4 + 1, 0),
        T3(0, max, max, 1, 1, 1),
        T3(max, 0, max, 1, 1, 1),
        T3(max, max, 0, 1, 1, 1),
        T1(2, max / 4 + 1),
        T1(2, min),
        T1(3, min / 2),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (tensor_in(ctx, "x", &bad[i], DT_ROW, 1, 4) != SLG_ERR_SHAPE)
            fail_msg("case %zu", i);
        assert_non_null(strstr(slg_ctx_message(ctx), "its size overflows"));
    }
    slg_tensor t = T2(3, 4, max, 1);
    refused(
        &t, DT_ROW, 1, 4, SLG_ERR_SHAPE,
        "slg_test: x has shape [3, 4], strides [9223372036854775807, 1]: its size overflows");
    /* Longest text possible. */
    t = tensor(4, SHAPE(max, max, max, max), SHAPE(min, min, min, min));
    refused(&t, DT_ROW, 1, 4, SLG_ERR_SHAPE, NULL);

    /* Strides of axes that have one element, or of no elements, are not looked at. */
    t = T2(1, 4, max, 1);
    assert_int_equal(tensor_out(ctx, "x", &t, DT_ROW, 1, 4), SLG_OK);
    t = T2(1, 1, min, min);
    assert_int_equal(tensor_out(ctx, "x", &t, DT_ROW, 1, 4), SLG_OK);
    t = T2(0, 5, 0, 0);
    t.data = NULL;
    assert_int_equal(tensor_out(ctx, "x", &t, DT_ROW, 1, 4), SLG_OK);
    /* The largest that fits. */
    t = T1(max / 4, 1);
    assert_int_equal(tensor_out(ctx, "x", &t, DT_ROW, 1, 4), SLG_OK);
}

/* The rule is sufficient: whatever passes has elements at different places. And it takes what
   slices and transposes of arrays look like. */
static void test_strides(void **state)
{
    (void)state;
    const slg_tensor good[] = {
        T1(5, 1),
        T1(5, -1),
        T1(5, 3),
        T2(3, 4, 4, 1),
        T2(3, 4, 1, 3),
        T2(3, 4, -4, 1),
        T2(3, 4, 4, -1),
        T2(3, 4, -9, 2),
        T3(2, 3, 4, 12, 4, 1),
        T3(2, 3, 4, 1, 8, 2),
        T3(2, 1, 4, 4, 0, 1),
        T1(1, 0),
    };
    const slg_tensor bad[] = {
        T1(2, 0),       T2(3, 4, 3, 1),  T2(3, 4, 0, 1),        T2(3, 4, 4, 0),
        T2(2, 2, 1, 1), T2(2, 2, 1, -1), T3(2, 3, 4, 11, 4, 1), T3(2, 2, 2, 4, 1, 1),
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (tensor_out(ctx, "y", &good[i], DT_ROW, 1, 4)) fail_msg("%s", slg_ctx_message(ctx));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tensor_in(ctx, "y", &bad[i], DT_ROW, 1, 4), SLG_OK);
        if (tensor_out(ctx, "y", &bad[i], DT_ROW, 1, 4) != SLG_ERR_STRIDE)
            fail_msg("bad %zu", i);
    }
    tensor_out(ctx, "y", &bad[1], DT_ROW, 1, 4);
    assert_string_equal(slg_ctx_message(ctx),
                        "slg_test: y has shape [3, 4], strides [3, 1]: its "
                        "elements may share memory");

    for (int64_t a = -7; a <= 7; a++)
        for (int64_t b = -7; b <= 7; b++)
            for (int64_t c = -7; c <= 7; c++) {
                slg_tensor t = T3(2, 3, 2, a, b, c);
                int seen[64] = { 0 }, most = 0;
                for (int i = 0; i < 12; i++) {
                    int *s = &seen[32 + i / 6 * a + i / 2 % 3 * b + i % 2 * c];
                    if (++*s > most) most = *s;
                }
                if (tensor_out(ctx, "y", &t, DT_ROW, 1, 4) == SLG_OK) assert_int_equal(most, 1);
            }
}

static void test_shapes(void **state)
{
    (void)state;
    slg_tensor x = T2(3, 5, 5, 1), y = T2(3, 4, 4, 1), l = T1(3, 1), v = T1(5, 1), s = T1(1, 1);
    assert_int_equal(tensor_same_shape(ctx, "y", &x, "x", &x), SLG_OK);
    assert_int_equal(tensor_same_shape(ctx, "y", &y, "x", &x), SLG_ERR_SHAPE);
    assert_string_equal(slg_ctx_message(ctx), "slg_test: y has shape [3, 4], x has [3, 5]");
    assert_int_equal(tensor_same_shape(ctx, "lse", &l, "x", &x), SLG_ERR_SHAPE);
    assert_string_equal(slg_ctx_message(ctx), "slg_test: lse has shape [3], x has [3, 5]");

    assert_int_equal(tensor_shape_is(ctx, "x", &x, 2, SHAPE(3, 5)), SLG_OK);
    assert_int_equal(tensor_shape_is(ctx, "x", &x, 1, SHAPE(3)), SLG_ERR_SHAPE);
    assert_string_equal(slg_ctx_message(ctx), "slg_test: x has shape [3, 5], must have [3]");

    assert_int_equal(tensor_is_per_row(ctx, "lse", &l, "x", &x), SLG_OK);
    assert_int_equal(tensor_is_per_row(ctx, "lse", &s, "x", &v), SLG_OK);
    assert_int_equal(tensor_is_per_row(ctx, "lse", &v, "x", &x), SLG_ERR_SHAPE);
    assert_string_equal(
        slg_ctx_message(ctx),
        "slg_test: lse has shape [5], must have [3]: one for each row of x [3, 5]");
    assert_int_equal(tensor_is_per_row(ctx, "lse", &v, "x", &v), SLG_ERR_SHAPE);

    assert_int_equal(tensor_size(&x), 15);
    x.shape[0] = 0;
    assert_int_equal(tensor_size(&x), 0);
    assert_int_equal(dtype_size(SLG_F64), 8);
    assert_int_equal(dtype_size(-1), 0);
    assert_int_equal(dtype_size(99), 0);
    assert_string_equal(dtype_name(SLG_BF16), "bf16");
    assert_string_equal(dtype_name(99), "unknown");
}

static void test_contiguous(void **state)
{
    (void)state;
    const slg_tensor yes[] = {
        T1(5, 1),       T1(1, 7),       T2(3, 4, 4, 1),        T2(1, 4, 9, 1),
        T2(3, 1, 1, 9), T2(0, 4, 9, 9), T3(2, 3, 4, 12, 4, 1), T3(2, 0, 4, 1, 1, 1)
    };
    const slg_tensor no[] = { T1(5, 2),       T1(5, -1),      T2(3, 4, 5, 1),
                              T2(3, 4, 1, 3), T2(3, 4, 0, 1), T3(2, 3, 4, 13, 4, 1) };
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        assert_true(tensor_contiguous(&yes[i]));
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) assert_false(tensor_contiguous(&no[i]));
}

static void test_clash(void **state)
{
    (void)state;
    slg_tensor a = T2(3, 4, 4, 1), b = a;
    assert_false(tensor_clash(NULL, &a));
    assert_false(tensor_clash(&a, NULL));
    assert_false(tensor_clash(&a, &b)); /* the very same view */
    b.data = (float *)a.data + 1;
    assert_true(tensor_clash(&a, &b));
    assert_true(tensor_clash(&b, &a));
    b.data = (float *)a.data + 12; /* side by side */
    assert_false(tensor_clash(&a, &b));
    assert_false(tensor_clash(&b, &a));
    b.data = (float *)a.data + 11;
    assert_true(tensor_clash(&a, &b));
    b = T2(4, 3, 3, 1);
    assert_true(tensor_clash(&a, &b));
    b = T2(3, 4, 1, 3);
    assert_true(tensor_clash(&a, &b));
    b = T2(0, 4, 1, 3);
    assert_false(tensor_clash(&a, &b));
    b = T1(4, -1); /* ends at a's first element */
    assert_true(tensor_clash(&a, &b));
    b.data = (float *)a.data - 1;
    assert_false(tensor_clash(&a, &b));
    b = T1(2, -3);
    b.data = (float *)a.data + 14; /* 14 and 11 */
    assert_true(tensor_clash(&a, &b));
    a = T2(1, 4, 99, 1);
    b = T2(1, 4, 7, 1);
    assert_false(tensor_clash(&a, &b)); /* differ in a stride that is not used */
    b.dtype = SLG_I32;
    assert_true(tensor_clash(&a, &b));
}

/* Views of one packed array clash just where they share an element: against each element. */
static bool share(const slg_tensor *a, const slg_tensor *b)
{
    for (int64_t i = 0; i < tensor_size(a); i++)
        for (int64_t j = 0; j < tensor_size(b); j++) {
            int64_t at[2] = { 0, 0 };
            const slg_tensor *t[2] = { a, b };
            for (int k = 0; k < 2; k++)
                for (int64_t d = t[k]->ndim - 1, n = k ? j : i; d >= 0; n /= t[k]->shape[d--])
                    at[k] += n % t[k]->shape[d] * t[k]->stride[d];
            if ((const float *)a->data + at[0] == (const float *)b->data + at[1]) return true;
        }
    return false;
}

static void test_clash_packed(void **state)
{
    static float packed[400];
    (void)state;
    /* [batch 2, heads 3, tokens 4, dim 5] in [batch, tokens, 3, heads, dim]: 45 a token */
    slg_tensor q = { packed, SLG_F32, 4, { 2, 3, 4, 5 }, { 180, 5, 45, 1 } };
    for (int64_t ahead = 0; ahead < 40; ahead++)
        for (int view = 0; view < 4; view++) {
            slg_tensor k = q;
            if (view == 1) k.shape[1] = 2;                           /* fewer heads */
            if (view == 2) k.stride[2] = -45, k.data = packed + 135; /* backwards */
            if (view == 3) k.shape[3] = 2, k.stride[3] = 2;          /* every other column */
            k.data = (float *)k.data + ahead;
            const bool same = ahead == 0 && view == 0;
            /* Never false where they share; and of whole lanes true only there. */
            if (!same && share(&q, &k)) assert_true(tensor_clash(&q, &k));
            if (!same && share(&q, &k)) assert_true(tensor_clash(&k, &q));
            if (ahead >= 15 && ahead <= 30) assert_false(tensor_clash(&q, &k));
            if (ahead >= 15 && ahead <= 30) assert_false(tensor_clash(&k, &q));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_strides),      cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_contiguous),   cmocka_unit_test(test_clash),
        cmocka_unit_test(test_clash_packed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
