/*
 * layer_test.h - what the tests of layers share: tensors as those of softmax have them,
 * vectors, and one loop over types and layouts.
 */
#ifndef TESTS_LAYER_LAYER_TEST_H
#define TESTS_LAYER_LAYER_TEST_H

#include "softmax/softmax_test.h"
#include "support/gradcheck.h"

#include "softlogit/layer.h"

static const int32_t row_types[] = { SLG_F32, SLG_BF16, SLG_F16 };

/* Shapes, types and layouts of case k; k in [0, LAYER_CASES). */
enum { LAYER_CASES = 42 };

typedef struct layer_case {
    int32_t ndim, in, out; /* dtypes */
    int64_t shape[4];
    enum layout layout, other;
} layer_case;

static inline layer_case case_of(int k)
{
    static const struct {
        int32_t ndim;
        int64_t shape[4];
    } shapes[] = {
        { 1, { 37 } },      { 2, { 3, 67 } },  { 3, { 2, 3, 22 } }, { 4, { 2, 2, 3, 9 } },
        { 2, { 40, 600 } }, { 2, { 300, 5 } }, { 2, { 4, 1 } },
    };
    layer_case c = { .ndim = shapes[k % 7].ndim,
                     .in = row_types[k % 3],
                     .out = row_types[k / 3 % 3],
                     .layout = (enum layout)(k % LAYOUTS),
                     .other = (enum layout)((k / 5 + 3) % LAYOUTS) };
    memcpy(c.shape, shapes[k % 7].shape, sizeof c.shape);
    if (k >= 21) c.layout = c.other;
    return c;
}

static inline array random_vector(int64_t n, double sd, double offset)
{
    return random_array(SLG_F32, 1, &n, DENSE, sd, offset);
}

static inline double at(const array *v, int64_t i) { return v->t.data ? get(v, 0, i) : 0; }

static inline array copy_array(const array *a)
{
    array b = new_array(a->t.dtype, a->t.ndim, a->t.shape, DENSE);
    for (int64_t r = 0; r < rows_in(&a->t); r++)
        for (int64_t c = 0; c < cols_in(&a->t); c++) put(&b, r, c, get(a, r, c));
    return b;
}

static inline void assert_same(const array *a, const array *b)
{
    for (int64_t r = 0; r < rows_in(&a->t); r++)
        for (int64_t c = 0; c < cols_in(&a->t); c++) {
            double x = get(a, r, c), y = get(b, r, c);
            if (!(isnan(x) && isnan(y)) && x != y)
                fail_msg("row %d column %d: %.9g and %.9g", (int)r, (int)c, x, y);
        }
}

/* The call fails with this status, says these words, and leaves out untouched. */
#define assert_refused(ctx, call, wanted, words, out)                                          \
    do {                                                                                       \
        array before_ = copy_array(out);                                                       \
        assert_int_equal(call, wanted);                                                        \
        if (!strstr(slg_ctx_message(ctx), words))                                              \
            fail_msg("\"%s\" does not say \"%s\"", slg_ctx_message(ctx), words);               \
        assert_same(out, &before_);                                                            \
        free_array(&before_);                                                                  \
    } while (0)

#endif
