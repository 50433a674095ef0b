/*
 * Every refusal of every function of softmax.h: the status, a message that names the function,
 * the argument and its numbers, and outputs that nobody touched. A table says what each
 * function takes; each mistake is made with each operand for which it is one.
 */
#include "softmax_test.h"

#include "softmax_calls.h"

enum { ROWS = 3, COLS = 5 };

/* ---- A call that would succeed ----------------------------------------------------------- */

static slg_ctx *ctx;
static double memory[OPERANDS][64], before[OPERANDS][64]; /* operands start in the middle */
static slg_tensor tensors[OPERANDS], *given[OPERANDS];
static const function *now;

static bool is_out(int i) { return is_output(&now->with[i]); }

static void prepare(const function *f)
{
    now = f;
    memset(memory, 0x5C, sizeof memory);
    for (int i = 0; i < f->count; i++) {
        float *data = (float *)(void *)&memory[i][16];
        bool rows = is_rows(&f->with[i]);
        tensors[i] = rows ? slg_tensor_2d(data, SLG_F32, ROWS, COLS)
                          : slg_tensor_1d(data, SLG_F32, ROWS);
        for (int j = 0; j < ROWS * COLS && !is_out(i); j++) data[j] = (float)(j % 4);
        given[i] = &tensors[i];
    }
    memcpy(before, memory, sizeof before);
}

/* The call as it stands fails with this status; the message starts with the function's name and
   contains all of the words, which end with NULL; nothing was written anywhere. */
static void refused_at(int line, slg_status status, const slg_softmax_opts *o,
                       const char *const *words)
{
    slg_status got = now->call(ctx, given, o);
    const char *message = slg_ctx_message(ctx);
    bool right = got == status && strncmp(message, now->name, strlen(now->name)) == 0 &&
                 strncmp(message + strlen(now->name), ": ", 2) == 0;
    for (; *words && right; words++) right = strstr(message, *words) != NULL;
    if (!right)
        fail_msg("line %d: %s gave %d, not %d; \"%s\" lacks \"%s\"", line, now->name, got,
                 status, message, *words ? *words : now->name);
    if (memcmp(memory, before, sizeof before) != 0)
        fail_msg("line %d: %s wrote, and failed: %s", line, now->name, message);
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define refused(status, ...) refused_at(__LINE__, status, NULL, WORDS(__VA_ARGS__))
#define refused_opts(status, o, ...) refused_at(__LINE__, status, o, WORDS(__VA_ARGS__))

/* For each function, and each of its operands, anew. */
#define EACH_FUNCTION(f)                                                                       \
    for (const function *f = functions; f < functions + COUNT(functions); f++)
#define EACH_OPERAND(f, i)                                                                     \
    EACH_FUNCTION(f) for (int i = 0; i < f->count && (prepare(f), true); i++)

static int setup(void **state)
{
    (void)state;
    slg_ctx_opts o;
    slg_ctx_opts_init(&o, sizeof o);
    o.num_threads = 1;
    return slg_ctx_create(&o, &ctx);
}

static int teardown(void **state)
{
    (void)state;
    slg_ctx_free(ctx);
    return 0;
}

/* The table is right: as it stands each call succeeds, and writes its outputs alone. */
static void test_good_calls(void **state)
{
    (void)state;
    EACH_FUNCTION(f)
    {
        prepare(f);
        ok(f->call(ctx, given, NULL));
        assert_string_equal(slg_ctx_message(ctx), "");
        for (int i = 0; i < f->count; i++)
            assert_int_equal(memcmp(memory[i], before[i], sizeof before[i]) != 0, is_out(i));
        for (int i = 0; i < f->count; i++) {
            if (!(f->with[i].flags & OPTIONAL)) continue;
            prepare(f);
            given[i] = NULL;
            ok(f->call(ctx, given, NULL));
        }
    }
}

/* ---- Operands ---------------------------------------------------------------------------- */

static void test_null(void **state)
{
    (void)state;
    EACH_OPERAND(f, i)
    {
        const char *name = f->with[i].name;
        assert_int_equal(f->call(NULL, given, NULL), SLG_ERR_NULL);
        assert_memory_equal(memory, before, sizeof before);
        tensors[i].data = NULL;
        refused(SLG_ERR_NULL, name, "NULL", is_rows(&f->with[i]) ? "[3, 5]" : "[3]");
        if ((f->with[i].flags & OPTIONAL)) continue;
        given[i] = NULL;
        char text[40];
        snprintf(text, sizeof text, ": %s is NULL", name);
        refused(SLG_ERR_NULL, text);
    }
}

static void test_dtype(void **state)
{
    (void)state;
    static const struct {
        int32_t code;
        const char *name;
    } types[] = {
        { SLG_BF16, "bf16" }, { SLG_F16, "f16" },           { SLG_F64, "f64" },
        { SLG_I32, "i32" },   { SLG_I64, "i64" },           { 6, "6" },
        { -1, "-1" },         { INT32_MIN, "-2147483648" },
    };
    EACH_OPERAND(f, i)
    for (size_t t = 0; t < COUNT(types); t++) {
        const operand *with = &f->with[i];
        prepare(f);
        tensors[i].dtype = types[t].code;
        if (types[t].code == SLG_F64 && (with->flags & DOUBLES)) continue;
        if ((types[t].code == SLG_BF16 || types[t].code == SLG_F16) && (with->flags & HALVES))
            continue;
        refused(SLG_ERR_DTYPE, with->name, types[t].name);
    }
}

static void test_dimensions(void **state)
{
    (void)state;
    static const int32_t bad[] = { 0, 5, -1, INT32_MAX, INT32_MIN };
    EACH_OPERAND(f, i)
    for (size_t b = 0; b < COUNT(bad); b++) {
        char number[20];
        prepare(f);
        tensors[i].ndim = bad[b];
        snprintf(number, sizeof number, "%d", bad[b]);
        refused(SLG_ERR_SHAPE, f->with[i].name, number, "dimensions");
    }
}

static void test_shapes(void **state)
{
    (void)state;
    EACH_OPERAND(f, i)
    {
        const char *name = f->with[i].name;
        const bool rows = is_rows(&f->with[i]);
        const int32_t last = tensors[i].ndim - 1;
        tensors[i].shape[0] = -4;
        refused(SLG_ERR_SHAPE, name, "-4", "negative");
        prepare(f);
        tensors[i].shape[last] = INT64_MIN;
        refused(SLG_ERR_SHAPE, name, "-9223372036854775808");
        /* Another shape than its fellows. One of the two is named first; x is not always
           the wrong one. */
        prepare(f);
        if (rows) {
            tensors[i].shape[1] = COLS - 1;
            if (f->count > 1 && is_rows(&f->with[1]))
                refused(SLG_ERR_SHAPE, name, "[3, 4]", "[3, 5]");
            prepare(f);
            tensors[i].shape[0] = ROWS - 1;
            refused(SLG_ERR_SHAPE, name, "2", "3");
        } else {
            tensors[i].shape[0] = ROWS - 1;
            refused(SLG_ERR_SHAPE, name, "[2]", "[3]", "[3, 5]");
            prepare(f);
            tensors[i].ndim = 2, tensors[i].shape[1] = 1, tensors[i].stride[1] = 1;
            refused(SLG_ERR_SHAPE, name, "[3, 1]", "[3]");
        }
        prepare(f);
        if (i == 0) continue;
        tensors[i].ndim = rows ? 1 : 2; /* another number of axes */
        tensors[i].shape[0] = rows ? ROWS * COLS : ROWS;
        refused(SLG_ERR_SHAPE, name);
    }
}

static void test_sizes_that_overflow(void **state)
{
    (void)state;
    static const int64_t sizes[][4] = {
        /* extents and strides */
        { INT64_C(1) << 62, 4, 4, 1 }, { INT64_MAX, 2, 2, 1 },
        { INT64_C(1) << 61, 1, 1, 1 }, { INT64_C(1) << 32, INT64_C(1) << 32, 1, 1 },
        { 3, 5, INT64_MAX, 1 },        { 3, 5, INT64_MIN, 1 },
        { 3, 5, 5, INT64_MAX / 2 },    { 2, 3, INT64_MAX / 4, INT64_MAX / 4 },
        { 2, 5, INT64_C(1) << 61, 1 }, { INT64_C(1) << 33, INT64_C(1) << 33, 0, 0 },
    };
    EACH_OPERAND(f, i)
    for (size_t s = 0; s < COUNT(sizes); s++)
        for (int null = 0; null < 2; null++) {
            prepare(f);
            tensors[i].ndim = 2;
            memcpy(tensors[i].shape, sizes[s], 16), memcpy(tensors[i].stride, sizes[s] + 2, 16);
            if (null) tensors[i].data = NULL;
            refused(SLG_ERR_SHAPE, f->with[i].name, "overflows");
        }
}

static void test_alignment(void **state)
{
    (void)state;
    EACH_OPERAND(f, i)
    for (int off = 1; off < 4; off++) {
        prepare(f);
        tensors[i].data = (char *)tensors[i].data + off;
        refused(SLG_ERR_RANGE, f->with[i].name, "aligned", "4 bytes");
    }
}

static void test_strides_that_share(void **state)
{
    (void)state;
    EACH_OPERAND(f, i)
    {
        if (!is_out(i)) continue;
        static const int64_t strides[][2] = { { 0, 1 }, { 5, 0 },  { 1, 1 }, { 4, 1 },
                                              { 0, 0 }, { -4, 1 }, { 2, 1 }, { 1, 2 } };
        for (size_t s = 0; s < COUNT(strides); s++) {
            prepare(f);
            memcpy(tensors[i].stride, strides[s], 16);
            if (f->with[i].role == PER_ROW_OUT) tensors[i].stride[0] = 0;
            refused(SLG_ERR_STRIDE, f->with[i].name, "memory");
        }
    }
}

/* An output that shares some of another operand's memory, or all of it where it must not. */
static void test_overlap(void **state)
{
    (void)state;
    EACH_OPERAND(f, i)
    for (int j = 0; j < f->count; j++) {
        if (!is_out(i) || i == j) continue;
        for (int shift = -1; shift <= 1; shift++) {
            prepare(f);
            float *base = tensors[j].data;
            bool same_role = (is_rows(&f->with[i])) == (is_rows(&f->with[j]));
            if (shift == 0 && same_role && f->with[i].may_be >> j & 1) continue;
            tensors[i].data = base + shift;
            refused(SLG_ERR_STRIDE, f->with[i].name, "overlap");
        }
        /* The same memory by other strides, of another type, or upside down. */
        if (!(f->with[i].may_be >> j & 1)) continue;
        prepare(f);
        tensors[i].data = tensors[j].data;
        tensors[i].stride[0] = 6;
        refused(SLG_ERR_STRIDE, f->with[i].name, "overlap");
        prepare(f);
        tensors[i].data = (float *)tensors[j].data + (ROWS - 1) * COLS;
        tensors[i].stride[0] = -COLS;
        refused(SLG_ERR_STRIDE, f->with[i].name, "overlap");
        if (!(f->with[i].flags & HALVES)) continue;
        prepare(f);
        tensors[i].data = tensors[j].data;
        tensors[i].dtype = SLG_BF16;
        refused(SLG_ERR_STRIDE, f->with[i].name, "overlap");
    }
}

/* One element: views that are equal to the last field are still two outputs in one place. */
static void test_one_element(void **state)
{
    (void)state;
    float x = 1, a = 7, b = 8;
    slg_tensor tx = slg_tensor_1d(&x, SLG_F32, 1), ta = slg_tensor_1d(&a, SLG_F32, 1),
               tb = slg_tensor_1d(&b, SLG_F32, 1);
    assert_int_equal(slg_softmax(ctx, &tx, NULL, &ta, &ta), SLG_ERR_STRIDE);
    assert_int_equal(slg_log_softmax(ctx, &tx, NULL, &ta, &ta), SLG_ERR_STRIDE);
    assert_int_equal(slg_ext_exp(ctx, &tx, &ta, &ta), SLG_ERR_STRIDE);
    assert_int_equal(slg_partial_softmax(ctx, &tx, NULL, &ta, &ta), SLG_ERR_STRIDE);
    assert_int_equal(slg_partial_merge(ctx, &tx, &tx, &ta, &ta, NULL), SLG_ERR_STRIDE);
    assert_int_equal(slg_partial_merge(ctx, &tx, &tx, &ta, &tb, &ta), SLG_ERR_STRIDE);
    assert_int_equal(slg_partial_merge(ctx, &tx, &tx, &ta, &tb, &tb), SLG_ERR_STRIDE);
    assert_int_equal(slg_partial_merge(ctx, &tx, &ta, &tx, NULL, NULL), SLG_ERR_STRIDE);
    assert_true(x == 1 && a == 7 && b == 8);
}

/* ---- Options ----------------------------------------------------------------------------- */

static void test_option_values(void **state)
{
    (void)state;
    static const struct {
        double t;
        const char *said;
    } temperatures[] = {
        { 0, "0" },          { -1, "-1" },          { -0.0, "0" },      { NAN, "nan" },
        { INFINITY, "inf" }, { -INFINITY, "-inf" }, { 1e-40, "1e-40" }, { 1e40, "1e+40" },
    };
    EACH_FUNCTION(f)
    {
        if (!f->opts) continue;
        prepare(f);
        for (size_t i = 0; i < COUNT(temperatures); i++) {
            const slg_softmax_opts o = options(temperatures[i].t, 0);
            refused_opts(SLG_ERR_RANGE, &o, "temperature", temperatures[i].said);
        }
        slg_softmax_opts o = options(1, 4);
        refused_opts(SLG_ERR_RANGE, &o, "algorithm", "4", "0", "3");
        o.algorithm = -1;
        refused_opts(SLG_ERR_RANGE, &o, "algorithm", "-1");
        o = options(1, 0), o.reread = 2;
        refused_opts(SLG_ERR_RANGE, &o, "reread", "2");
        o.reread = -1;
        refused_opts(SLG_ERR_RANGE, &o, "reread", "-1");
        o = options(1, 0), o.reserved = 9;
        refused_opts(SLG_ERR_OPTIONS, &o, "reserved", "9");
    }
}

static void test_option_sizes(void **state)
{
    (void)state;
    static const uint32_t bad[] = { 0, 4, 7, 4097, UINT32_MAX };
    EACH_FUNCTION(f)
    {
        if (!f->opts) continue;
        prepare(f);
        for (size_t i = 0; i < COUNT(bad); i++) {
            char number[20];
            slg_softmax_opts o = options(1, 0);
            o.size = bad[i];
            snprintf(number, sizeof number, "%u", (unsigned)bad[i]);
            refused_opts(SLG_ERR_OPTIONS, &o, "size", number);
        }
        /* Longer than ours: allowed if all the rest is 0. */
        struct {
            slg_softmax_opts o;
            char more[40];
        } big; /* 24 bytes are known, the last is 63 */
        slg_softmax_opts_init(&big.o, sizeof big);
        assert_int_equal(big.o.size, sizeof big);
        ok(f->call(ctx, given, &big.o));
        prepare(f);
        big.more[39] = 1;
        refused_opts(SLG_ERR_OPTIONS, &big.o, "opts", "63", "24");
        big.more[39] = 0, big.more[0] = 1;
        refused_opts(SLG_ERR_OPTIONS, &big.o, "opts", "byte 24");
        /* Shorter: what it does not reach is the default, whatever lies there. */
        for (uint32_t size = 8; size < sizeof(slg_softmax_opts); size += 4) {
            slg_softmax_opts o = options(-5, 0);
            if (size < 16) o.reserved = 77;
            if (size < 12) o.reread = 77;
            o.size = size;
            if (size > 20) continue; /* half of a temperature */
            ok(f->call(ctx, given, &o));
        }
    }
    slg_softmax_opts o;
    memset(&o, 0xAA, sizeof o);
    slg_softmax_opts_init(&o, 8); /* an old caller's, of two fields */
    assert_true(o.size == 8 && o.algorithm == 0 && o.reread == (int32_t)0xAAAAAAAA);
    slg_softmax_opts_init(NULL, sizeof o);
}

/* ---- Merge ------------------------------------------------------------------------------- */

static double pieces[2][24], merged[3][8], merged_before[3][8];

static void merge_refused(int line, slg_status status, const slg_tensor *m, const slg_tensor *n,
                          slg_tensor *mo, slg_tensor *no, slg_tensor *lse,
                          const char *const *words)
{
    slg_status got = slg_partial_merge(ctx, m, n, mo, no, lse);
    const char *message = slg_ctx_message(ctx);
    bool right = got == status && strncmp(message, "slg_partial_merge: ", 19) == 0;
    for (; *words && right; words++) right = strstr(message, *words) != NULL;
    if (!right)
        fail_msg("line %d: %d, not %d; \"%s\" lacks \"%s\"", line, got, status, message,
                 *words ? *words : "");
    assert_memory_equal(merged, merged_before, sizeof merged);
}
#define MERGE_REFUSED(status, m, n, mo, no, lse, ...)                                          \
    merge_refused(__LINE__, status, m, n, mo, no, lse, WORDS(__VA_ARGS__))

static void test_merge(void **state)
{
    (void)state;
    memset(merged, 0x5C, sizeof merged), memset(pieces, 0, sizeof pieces);
    memcpy(merged_before, merged, sizeof merged);
    const slg_tensor m = slg_tensor_2d(pieces[0], SLG_F32, 4, 3),
                     n = slg_tensor_2d(pieces[1], SLG_F32, 4, 3);
    slg_tensor good[3], *out[] = { &good[0], &good[1], &good[2] }, bad;
    for (int i = 0; i < 3; i++) good[i] = slg_tensor_1d(merged[i], SLG_F32, 3);
    static const char *const names[] = { "m_out", "n_out", "lse" };
    assert_int_equal(slg_partial_merge(NULL, &m, &n, out[0], out[1], out[2]), SLG_ERR_NULL);
    for (int i = 0; i < 2; i++) { /* the inputs */
        const slg_tensor *in[] = { &m, &n };
        const char *name = i ? "n" : "m";
        in[i] = NULL;
        MERGE_REFUSED(SLG_ERR_NULL, in[0], in[1], out[0], out[1], out[2], name, "NULL");
        bad = i ? n : m, bad.dtype = SLG_F64, in[i] = &bad;
        MERGE_REFUSED(SLG_ERR_DTYPE, in[0], in[1], out[0], out[1], out[2], name, "f64", "f32");
        bad = i ? n : m, bad.ndim = 3;
        MERGE_REFUSED(SLG_ERR_SHAPE, in[0], in[1], out[0], out[1], out[2], name,
                      "3 dimensions");
        bad = i ? n : m, bad.shape[0] = 2;
        MERGE_REFUSED(SLG_ERR_SHAPE, in[0], in[1], out[0], out[1], out[2], "[2, 3]", "[4, 3]");
        bad = i ? n : m, bad.data = NULL;
        MERGE_REFUSED(SLG_ERR_NULL, in[0], in[1], out[0], out[1], out[2], name);
        bad = i ? n : m, bad.shape[0] = INT64_C(1) << 62;
        MERGE_REFUSED(SLG_ERR_SHAPE, in[0], in[1], out[0], out[1], out[2], name, "overflows");
    }
    for (int i = 0; i < 3; i++) { /* the outputs */
        slg_tensor *o[] = { &good[0], &good[1], &good[2] };
        o[i] = &bad;
        bad = good[i], bad.dtype = i < 2 ? SLG_F64 : SLG_BF16;
        MERGE_REFUSED(SLG_ERR_DTYPE, &m, &n, o[0], o[1], o[2], names[i],
                      i < 2 ? "f64" : "bf16");
        bad = good[i], bad.shape[0] = 2;
        MERGE_REFUSED(SLG_ERR_SHAPE, &m, &n, o[0], o[1], o[2], names[i], "[2]", "[3]");
        bad = slg_tensor_2d(merged[i], SLG_F32, 3, 1);
        MERGE_REFUSED(SLG_ERR_SHAPE, &m, &n, o[0], o[1], o[2], names[i], "2 dimensions");
        bad = good[i], bad.stride[0] = 0;
        MERGE_REFUSED(SLG_ERR_STRIDE, &m, &n, o[0], o[1], o[2], names[i], "memory");
        bad = good[i], bad.data = NULL;
        MERGE_REFUSED(SLG_ERR_NULL, &m, &n, o[0], o[1], o[2], names[i]);
        for (int j = 0; j < 5; j++) { /* over another output, or an input, wholly or in part */
            if (j == i) continue;
            void *base = j < 3 ? (void *)merged[j] : (void *)pieces[j - 3];
            for (int shift = -1; shift <= 1; shift++) {
                bad = good[i], bad.data = (float *)base + shift;
                MERGE_REFUSED(SLG_ERR_STRIDE, &m, &n, o[0], o[1], o[2], names[i], "overlap");
            }
        }
    }
    /* A vector of pairs is one row. */
    const slg_tensor m1 = slg_tensor_1d(pieces[0], SLG_F32, 4),
                     n1 = slg_tensor_1d(pieces[1], SLG_F32, 4);
    MERGE_REFUSED(SLG_ERR_SHAPE, &m1, &n1, out[0], NULL, NULL, "m_out", "[3]", "[1]");
    MERGE_REFUSED(SLG_ERR_SHAPE, &m1, &n, NULL, NULL, NULL, "n", "[4, 3]", "[4]");
    ok(slg_partial_merge(ctx, &m, &n, out[0], out[1], out[2]));
    ok(slg_partial_merge(ctx, &m, &n, NULL, NULL, NULL));
}

/* ---- Memory ------------------------------------------------------------------------------ */

static bool no_memory;

static void *may_fail(void *user, size_t alignment, size_t size)
{
    (void)user;
    return no_memory ? NULL
                     : aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void give_back(void *user, void *p)
{
    (void)user;
    free(p);
}

/* What needs scratch: a named algorithm on rows that are no plain floats; a row split over
   threads. */
static void test_out_of_memory(void **state)
{
    (void)state;
    slg_ctx_opts co;
    slg_ctx *c;
    slg_ctx_opts_init(&co, sizeof co);
    co.num_threads = 2, co.alloc = may_fail, co.free = give_back;
    ok(slg_ctx_create(&co, &c));
    for (int split = 0; split < 2; split++) {
        const int64_t cols = split ? 400000 : 1000;
        array x = random_array(split ? SLG_F32 : SLG_BF16, 2, (const int64_t[]){ 1, cols },
                               DENSE, 1, 0);
        array y = new_2d(SLG_F32, 1, cols, DENSE);
        const slg_softmax_opts o = options(1, split ? 0 : SLG_TWO_PASS);
        unsigned char *kept = malloc(y.bytes);
        memcpy(kept, y.memory, y.bytes);
        ok(slg_ctx_trim(c));
        no_memory = true;
        assert_int_equal(slg_softmax(c, &x.t, &o, &y.t, NULL), SLG_ERR_MEMORY);
        assert_int_equal(strncmp(slg_ctx_message(c), "slg_softmax: ", 13), 0);
        assert_memory_equal(y.memory, kept, y.bytes);
        no_memory = false;
        ok(slg_softmax(c, &x.t, &o, &y.t, NULL));
        check_softmax(&x, 1, &y, NULL, false, 0, "after no memory");
        free(kept), free_array(&x), free_array(&y);
    }
    slg_ctx_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_calls),    cmocka_unit_test(test_null),
        cmocka_unit_test(test_dtype),         cmocka_unit_test(test_dimensions),
        cmocka_unit_test(test_shapes),        cmocka_unit_test(test_sizes_that_overflow),
        cmocka_unit_test(test_alignment),     cmocka_unit_test(test_strides_that_share),
        cmocka_unit_test(test_overlap),       cmocka_unit_test(test_one_element),
        cmocka_unit_test(test_option_values), cmocka_unit_test(test_option_sizes),
        cmocka_unit_test(test_merge),         cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
