/*
 * No function of softmax.h touches a byte outside of the views it is given: each operand ends
 * where a page without access begins, or starts where one ends; inputs cannot be written.
 */
#include "softmax_test.h"

#include "softmax_calls.h"
#include "support/guard.h"

enum { MAX_COLS = 65 };

/* How a [rows, cols] or [rows] operand lies in its buffer: elements from one column to the next
   and from the end of one row to the start of the next. */
static const struct {
    int64_t col, gap;
} layouts[] = { { 1, 0 }, { 1, 3 }, { 2, 1 }, { -1, 0 }, { -2, 5 }, { 3, -2 } };

static size_t span(const slg_tensor *t) /* elements from the first to the last */
{
    size_t n = 1;
    for (int32_t i = 0; i < t->ndim; i++)
        n += (size_t)(llabs(t->stride[i]) * (t->shape[i] - 1));
    return n;
}

/* A tensor that fills its guarded buffer to both ends; what lies between its elements
   is left. */
static slg_tensor guarded(guard *g, int32_t dtype, bool is_matrix, int64_t rows, int64_t cols,
                          size_t layout, enum guard_side side)
{
    const int64_t step = layouts[layout].col, along = llabs(step);
    slg_tensor t =
        is_matrix ? slg_tensor_2d(NULL, dtype, rows, cols) : slg_tensor_1d(NULL, dtype, rows);
    t.stride[t.ndim - 1] = step;
    if (is_matrix) t.stride[0] = along * (cols - 1) + 1 + llabs(layouts[layout].gap);
    if (is_matrix && layouts[layout].gap < 0) t.stride[0] *= -1; /* last row first */
    *g = guard_create(span(&t) * item_size(dtype), side);
    int64_t start = 0;
    for (int32_t i = 0; i < t.ndim; i++)
        if (t.stride[i] < 0) start -= t.stride[i] * (t.shape[i] - 1);
    t.data = (char *)g->data + (size_t)start * item_size(dtype);
    return t;
}

/* Bytes of the buffer between the elements are as guard_create filled them. */
static void assert_between(const guard *g, const slg_tensor *t, const char *name)
{
    static unsigned char used[1 << 16];
    const size_t item = item_size(t->dtype);
    assert_true(g->bytes <= sizeof used);
    memset(used, 0, g->bytes);
    for (int64_t r = 0; r < (t->ndim > 1 ? t->shape[0] : 1); r++)
        for (int64_t c = 0; c < cols_in(t); c++)
            memset(used + ((char *)element(t, r, c) - (char *)g->data), 1, item);
    for (size_t i = 0; i < g->bytes; i++)
        if (!used[i] && ((unsigned char *)g->data)[i] != 0xA5)
            fail_msg("%s: byte %zu was written", name, i);
}

/* alias: the output `with` is given input `alias` to write to; or -1. */
static void one_call(slg_ctx *ctx, const function *f, const int64_t *shape,
                     const int32_t *types, const size_t *how, enum guard_side side,
                     const slg_softmax_opts *o, int output, int alias)
{
    guard g[OPERANDS] = { 0 };
    slg_tensor t[OPERANDS], *given[OPERANDS];
    for (int i = 0; i < f->count; i++) {
        const operand *with = &f->with[i];
        const bool matrix = is_rows(with);
        int32_t type = with->flags & HALVES                ? types[i % 2]
                       : with->flags & DOUBLES && types[1] ? SLG_F64
                                                           : SLG_F32;
        t[i] = guarded(&g[i], type, matrix, shape[0], shape[1], how[i % 2], side);
        given[i] = &t[i];
        for (int64_t r = 0; !is_output(with) && r < shape[0]; r++)
            for (int64_t c = 0; c < (matrix ? shape[1] : 1); c++)
                store(type, matrix ? element(&t[i], r, c) : per_row(&t[i], r),
                      (double)sensible(with, uniform(), 3.4 * (uniform() + uniform() - 1)));
        if (!is_output(with) && i != alias) guard_lock(&g[i]);
    }
    if (alias >= 0) given[output] = given[alias];
    ok(f->call(ctx, given, o));
    for (int i = 0; i < f->count; i++) {
        assert_true(guard_intact(&g[i]));
        if (is_output(&f->with[i]) || i == alias) assert_between(&g[i], &t[i], f->name);
        guard_free(&g[i]);
    }
}

static void test_functions(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const int32_t types[][2] = {
        { SLG_F32, SLG_F32 }, { SLG_BF16, SLG_F16 }, { SLG_F16, SLG_F32 }, { SLG_F32, SLG_BF16 }
    };
    const slg_softmax_opts cold = options(0.7, 0);
    for (size_t f = 0; f < COUNT(functions); f++)
        for (int64_t rows = 1; rows <= 3; rows++)
            for (int64_t cols = 1; cols <= MAX_COLS; cols++) {
                const int64_t shape[] = { rows, cols };
                const size_t n = (size_t)cols;
                for (int side = GUARD_AFTER; side <= GUARD_BEFORE; side++) {
                    const enum guard_side s = (enum guard_side)side;
                    /* Plain floats, at every length; then the layouts and types in turn. */
                    one_call(ctx, &functions[f], shape, types[0], (const size_t[]){ 0, 0 }, s,
                             NULL, 0, -1);
                    for (size_t k = 0; k < 3; k++)
                        one_call(ctx, &functions[f], shape, types[(n + k) % COUNT(types)],
                                 (const size_t[]){ (n + 2 * k) % COUNT(layouts),
                                                   (n / 2 + k) % COUNT(layouts) },
                                 s, k % 2 ? &cold : NULL, 0, -1);
                    for (int i = 0; f == 0 && i < 4;
                         i++) { /* algorithms, and softmax without lse */
                        const slg_softmax_opts o = options(1, i);
                        one_call(ctx, &functions[f], shape, types[i % 2],
                                 (const size_t[]){ 0, i > 1 }, s, &o, 0, -1);
                    }
                    for (int i = 0; i < functions[f].count; i++) /* in place */
                        for (int j = 0; j < i; j++)
                            if (functions[f].with[i].may_be >> j & 1)
                                one_call(ctx, &functions[f], shape, types[0],
                                         (const size_t[]){ n % 4, n % 4 }, s, NULL, i, j);
                }
            }
    slg_ctx_free(ctx);
}

/* Softmax without the log-sum-exp has ways of its own, for a few short rows and for many. */
static void softmax_alone(slg_ctx *ctx, const slg_softmax_opts *o)
{
    static const int64_t shapes[][2] = { { 1, 0 },    { 2, 0 },     { 3, 0 },
                                         { 70, 500 }, { 20, 3001 }, { 10, 9001 } };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int64_t cols = shapes[s][1] ? shapes[s][1] : 1;
             cols <= (shapes[s][1] ? shapes[s][1] : 300); cols++)
            for (int side = GUARD_AFTER; side <= GUARD_BEFORE; side++)
                for (int64_t gap = 0; gap < 2; gap++) {
                    const int64_t rows = shapes[s][0];
                    const size_t bytes =
                        (size_t)(rows * cols + gap * (rows - 1)) * sizeof(float);
                    guard gx = guard_create(bytes, (enum guard_side)side),
                          gy = guard_create(bytes, (enum guard_side)side);
                    slg_tensor x = slg_tensor_2d(gx.data, SLG_F32, rows, cols),
                               y = slg_tensor_2d(gy.data, SLG_F32, rows, cols);
                    x.stride[0] += gap, y.stride[0] += gap;
                    for (size_t i = 0; i < bytes / sizeof(float); i++)
                        ((float *)gx.data)[i] = (float)(i % 13);
                    guard_lock(&gx);
                    ok(slg_softmax(ctx, &x, o, &y, NULL));
                    assert_true(guard_intact(&gx) && guard_intact(&gy));
                    for (int64_t r = 0; gap && r + 1 < rows; r++)
                        assert_memory_equal((float *)gy.data + r * (cols + 1) + cols,
                                            "\xA5\xA5\xA5\xA5", 4);
                    guard_free(&gx), guard_free(&gy);
                }
}

static void test_softmax_alone(void **state)
{
    const slg_softmax_opts o = options(1, SLG_ALGORITHM_AUTO);
    slg_ctx *ctxs[] = { ctx_of(state), without_caches(ctx_of(state)) };
    softmax_alone(ctxs[0], NULL);
    softmax_alone(ctxs[1], &o); /* none of them is too small for streaming stores */
    for (int i = 0; i < 2; i++) slg_ctx_free(ctxs[i]);
}

static void test_merge(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int64_t k = 1; k <= 9; k++)
        for (int64_t rows = 1; rows <= 9; rows++)
            for (size_t how = 0; how < COUNT(layouts); how++)
                for (int side = GUARD_AFTER; side <= GUARD_BEFORE; side++) {
                    guard g[5];
                    slg_tensor t[5];
                    for (int i = 0; i < 5; i++)
                        t[i] = guarded(
                            &g[i], i == 4 && k % 2 ? SLG_F64 : SLG_F32, i < 2, i < 2 ? k : rows,
                            rows, (how + (size_t)i) % COUNT(layouts), (enum guard_side)side);
                    for (int i = 0; i < 2; i++) {
                        for (int64_t p = 0; p < k; p++)
                            for (int64_t r = 0; r < rows; r++)
                                store(SLG_F32, element(&t[i], p, r), (double)(p + r));
                        guard_lock(&g[i]);
                    }
                    ok(slg_partial_merge(ctx, &t[0], &t[1], &t[2], &t[3], &t[4]));
                    for (int i = 0; i < 5; i++) {
                        assert_true(guard_intact(&g[i]));
                        if (i >= 2) assert_between(&g[i], &t[i], "slg_partial_merge");
                        guard_free(&g[i]);
                    }
                }
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_functions),
        EACH_ISA(test_softmax_alone),
        EACH_ISA(test_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
