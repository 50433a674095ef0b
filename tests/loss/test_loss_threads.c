/*
 * What must not matter to a loss: threads, how far a row lies from a cache line, whether its
 * output goes past the caches, the caller's floating-point mode, memory around the tensors.
 */
#include "loss_test.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "support/guard.h"

void openblas_set_num_threads(int threads); /* cblas.h is not in every include path */

/* ---- A call and its results -------------------------------------------------------------- */

enum form { OUT_OF_PLACE, IN_PLACE, FUSED, FORMS };

typedef struct shape {
    int64_t rows, cols, dim;
    int32_t type, index_type;
    bool prob;
    double smoothing, softcap, temperature;
} shape;

/* All operands in memory of the caller's choice; outputs: gradient (of logits, or
   of the layer), loss, lse, numbers. */
enum { X, WEIGHT, BIAS, TARGET, ROW_WEIGHT, CLASS_WEIGHT, MASK, INPUTS };
enum { DX, DWEIGHT, DBIAS, LOSS, LSE, OUTPUTS };

typedef struct memory {
    void *in[INPUTS], *out[OUTPUTS];
    size_t in_bytes[INPUTS], out_bytes[OUTPUTS];
    slg_loss_out numbers;
} memory;

static void memory_sizes(const shape *s, enum form form, memory *m)
{
    size_t item = item_size(s->type), rows = (size_t)s->rows, cols = (size_t)s->cols;
    size_t dim = (size_t)s->dim;
    memset(m, 0, sizeof *m);
    m->in_bytes[X] = rows * (form == FUSED ? dim : cols) * item;
    m->in_bytes[WEIGHT] = form == FUSED ? cols * dim * item : 0;
    m->in_bytes[BIAS] = form == FUSED ? cols * item : 0;
    m->in_bytes[TARGET] = s->prob ? rows * cols * 4 : rows * item_size(s->index_type);
    m->in_bytes[ROW_WEIGHT] = rows * 4;
    m->in_bytes[CLASS_WEIGHT] = cols * 4;
    m->in_bytes[MASK] = cols * item_size(s->index_type);
    m->out_bytes[DX] = m->in_bytes[X];
    m->out_bytes[DWEIGHT] = form == FUSED ? cols * dim * 4 : 0;
    m->out_bytes[DBIAS] = form == FUSED ? cols * 4 : 0;
    m->out_bytes[LOSS] = m->out_bytes[LSE] = rows * 4;
}

static void fill_type(int32_t type, void *data, size_t bytes, double scale)
{
    for (size_t i = 0; i < bytes / item_size(type); i++)
        put_item(type, (char *)data + i * item_size(type), scale * normal());
}

/* The same for the same seed. */
static void memory_fill(const shape *s, enum form form, memory *m)
{
    fill_type(s->type, m->in[X], m->in_bytes[X], form == FUSED ? 1 : 3);
    fill_type(s->type, m->in[WEIGHT], m->in_bytes[WEIGHT], 0.7);
    fill_type(s->type, m->in[BIAS], m->in_bytes[BIAS], 1);
    for (int64_t r = 0; r < s->rows; r++) {
        int64_t t = below((s->cols + 4) / 5) * 5;
        float *q = (float *)m->in[TARGET] + (s->prob ? r * s->cols : 0);
        if (s->prob)
            for (int64_t c = 0; c < s->cols; c++) q[c] = c == t ? 0.75f : 0.0f;
        if (s->prob)
            q[s->cols / 2] += 0.25f;
        else
            put_item(s->index_type,
                     (char *)m->in[TARGET] + (size_t)r * item_size(s->index_type),
                     r % 7 == 4 ? -100 : (double)t);
        ((float *)m->in[ROW_WEIGHT])[r] = (float)uniform();
    }
    for (int64_t c = 0; c < s->cols; c++) {
        ((float *)m->in[CLASS_WEIGHT])[c] = (float)uniform();
        put_item(s->index_type, (char *)m->in[MASK] + (size_t)c * item_size(s->index_type),
                 c % 5 != 3 || c == s->cols / 2);
    }
}

static slg_status memory_run(slg_ctx *ctx, const shape *s, enum form form, memory *m)
{
    slg_logits l;
    slg_targets t;
    slg_cross_entropy_opts o;
    slg_logits_grad g;
    slg_logits_init(&l, sizeof l);
    slg_targets_init(&t, sizeof t);
    slg_cross_entropy_opts_init(&o, sizeof o);
    slg_logits_grad_init(&g, sizeof g);
    int64_t width = form == FUSED ? s->dim : s->cols;
    slg_tensor x = slg_tensor_2d(m->in[X], s->type, s->rows, width);
    slg_tensor weight = slg_tensor_2d(m->in[WEIGHT], s->type, s->cols, s->dim);
    slg_tensor bias = slg_tensor_1d(m->in[BIAS], s->type, s->cols);
    slg_tensor index = slg_tensor_1d(m->in[TARGET], s->index_type, s->rows);
    slg_tensor prob = slg_tensor_2d(m->in[TARGET], SLG_F32, s->rows, s->cols);
    slg_tensor row_weight = slg_tensor_1d(m->in[ROW_WEIGHT], SLG_F32, s->rows);
    slg_tensor class_weight = slg_tensor_1d(m->in[CLASS_WEIGHT], SLG_F32, s->cols);
    slg_tensor mask = slg_tensor_1d(m->in[MASK], s->index_type, s->cols);
    slg_tensor dx =
        slg_tensor_2d(form == IN_PLACE ? m->in[X] : m->out[DX], s->type, s->rows, width);
    slg_tensor dweight = slg_tensor_2d(m->out[DWEIGHT], SLG_F32, s->cols, s->dim);
    slg_tensor dbias = slg_tensor_1d(m->out[DBIAS], SLG_F32, s->cols);
    slg_tensor loss = slg_tensor_1d(m->out[LOSS], SLG_F32, s->rows);
    slg_tensor lse = slg_tensor_1d(m->out[LSE], SLG_F32, s->rows);
    if (form == FUSED) {
        l.hidden = &x, l.weight = &weight, l.bias = &bias;
        g.dhidden = &dx, g.dweight = &dweight, g.dbias = &dbias;
    } else {
        l.dense = &x;
        g.dlogits = &dx;
    }
    l.mask = &mask, l.softcap = s->softcap, l.temperature = s->temperature;
    if (s->prob)
        t.prob = &prob;
    else
        t.index = &index;
    t.row_weight = &row_weight, t.class_weight = &class_weight;
    o.label_smoothing = s->smoothing, o.z_loss = 1e-3;
    m->numbers = loss_out(&loss, &lse);
    slg_status status = slg_cross_entropy(ctx, &l, &t, &o, &m->numbers, &g);
    m->numbers.loss = m->numbers.lse = NULL;
    return status;
}

static void memory_alloc(memory *m)
{
    for (int i = 0; i < INPUTS; i++) m->in[i] = malloc(m->in_bytes[i] + 1);
    for (int i = 0; i < OUTPUTS; i++) m->out[i] = malloc(m->out_bytes[i] + 1);
}

static void memory_free(memory *m)
{
    for (int i = 0; i < INPUTS; i++) free(m->in[i]);
    for (int i = 0; i < OUTPUTS; i++) free(m->out[i]);
}

/* The same results as one has, bit for bit. */
static void assert_same(const char *what, enum form form, const memory *a, const memory *b)
{
    for (int i = 0; i < OUTPUTS; i++) {
        if (i == DX && form == IN_PLACE) continue;
        if (memcmp(a->out[i], b->out[i], a->out_bytes[i]) != 0)
            fail_msg("%s: output %d differs", what, i);
    }
    if (form == IN_PLACE && memcmp(a->in[X], b->in[X], a->in_bytes[X]) != 0)
        fail_msg("%s: gradient in place differs", what);
    if (memcmp(&a->numbers, &b->numbers, sizeof a->numbers) != 0)
        fail_msg("%s: out differs", what);
}

static const shape shapes[] = {
    { 300, 17, 9, SLG_F32, SLG_I32, false, 0, 0, 1 },
    { 40, 3001, 20, SLG_F32, SLG_I64, false, 0.1, 0, 2 },
    { 7, 50257, 8, SLG_F32, SLG_I64, false, 0, 0, 1 },   /* streams */
    { 9, 40001, 4, SLG_F32, SLG_I64, false, 0.1, 0, 1 }, /* streams a p - b q */
    { 9, 40001, 4, SLG_F32, SLG_I64, true, 0, 0, 1 },
    { 9, 40001, 4, SLG_F32, SLG_I64, true, 0.1, 5, 0.7 },
    { 9, 20001, 5, SLG_BF16, SLG_I32, false, 0, 0, 1 },
    { 33, 2049, 6, SLG_F16, SLG_I32, true, 0.1, 30, 1 },
    { 2100, 12, 3, SLG_F32, SLG_I32, false, 0, 5, 1 }, /* fused: several blocks */
};

/* ---- Threads ----------------------------------------------------------------------------- */

static void test_threads(void **state)
{
    (void)state;
    const int32_t threads[] = { 1, 2, 3, 8, 3 };
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++)
        for (int64_t i = 0; i < COUNT(shapes); i++)
            for (int form = 0; form < FORMS; form++) {
                memory one = { 0 };
                for (int64_t j = 0; j < COUNT(threads); j++) {
                    slg_ctx *ctx = context(isa, threads[j]);
                    if (!ctx) break;
                    memory m;
                    memory_sizes(&shapes[i], (enum form)form, &m);
                    memory_alloc(&m);
                    seed = 4711 + (uint64_t)i;
                    memory_fill(&shapes[i], (enum form)form, &m);
                    OK(ctx, memory_run(ctx, &shapes[i], (enum form)form, &m));
                    assert_true(isfinite(m.numbers.value) && m.numbers.value > 0);
                    char what[80];
                    snprintf(what, sizeof what, "isa %d, shape %lld, form %d, %d threads", isa,
                             (long long)i, form, threads[j]);
                    if (j == 0) {
                        one = m;
                    } else {
                        assert_same(what, (enum form)form, &one, &m);
                        memory_free(&m);
                    }
                    slg_ctx_free(ctx);
                }
                memory_free(&one);
            }
}

/* ---- Streaming --------------------------------------------------------------------------- */

/* Many rows at once go past the caches; each alone does not. Also from every place in
   a line. */
static void test_streaming(void **state)
{
    (void)state;
    enum { COLS = 50257 };
    FOR_EACH_ISA(ctx, 2)
    {
        slg_ctx_info_t info = { .size = sizeof info };
        OK(ctx, slg_ctx_info(ctx, &info));
        int64_t l2 = info.l2_bytes > 0 ? info.l2_bytes : 1 << 20;
        int64_t rows = l2 / (COLS * 8) + 2;
        for (int64_t off = 0; off < 17; off += off < 3 ? 1 : 6)
            for (int prob = 0; prob < 2; prob++) {
                size_t n = (size_t)(rows * COLS);
                float *x = malloc((n + 32) * 4), *all = aligned_alloc(64, (n + 63) / 16 * 64);
                float *alone = malloc(COLS * 4), *q = calloc(n, 4);
                int64_t *index = calloc((size_t)rows, sizeof *index);
                for (size_t i = 0; i < n; i++) x[i] = (float)normal();
                memset(all, 0x5A, (n + 32) * 4);
                for (int64_t r = 0; r < rows; r++)
                    q[r * COLS + r * 5] = 1, index[r] = COLS - 1 - r * 2047;
                slg_tensor xs = slg_tensor_2d(x, SLG_F32, rows, COLS);
                slg_tensor dx = slg_tensor_2d(all + off, SLG_F32, rows, COLS);
                slg_tensor qs = slg_tensor_2d(q, SLG_F32, rows, COLS);
                slg_tensor t = slg_tensor_1d(index, SLG_I64, rows);
                slg_logits l;
                slg_targets targets;
                slg_cross_entropy_opts o;
                slg_loss_out out = loss_out(NULL, NULL);
                slg_logits_grad g = dense_grad(&dx);
                slg_logits_init(&l, sizeof l);
                slg_targets_init(&targets, sizeof targets);
                slg_cross_entropy_opts_init(&o, sizeof o);
                o.reduction = SLG_SUM, o.label_smoothing = 0.1;
                l.dense = &xs;
                if (prob)
                    targets.prob = &qs;
                else
                    targets.index = &t;
                OK(ctx, slg_cross_entropy(ctx, &l, &targets, &o, &out, &g));
                double sum = 0;
                for (int64_t r = 0; r < rows; r++) {
                    xs = slg_tensor_2d(x + r * COLS, SLG_F32, 1, COLS);
                    qs = slg_tensor_2d(q + r * COLS, SLG_F32, 1, COLS);
                    t = slg_tensor_1d(index + r, SLG_I64, 1);
                    dx = slg_tensor_2d(alone, SLG_F32, 1, COLS);
                    slg_loss_out of_row = loss_out(NULL, NULL);
                    OK(ctx, slg_cross_entropy(ctx, &l, &targets, &o, &of_row, &g));
                    sum += of_row.sum;
                    if (memcmp(alone, all + off + r * COLS, COLS * 4) != 0)
                        fail_msg("row %lld, %lld floats off a line, differs", (long long)r,
                                 (long long)off);
                }
                assert_true(sum == out.sum);
                uint32_t word;
                for (size_t i = 0; i < n + 32; i++) { /* nothing beside it */
                    memcpy(&word, all + i, 4);
                    if (i < (size_t)off || i >= n + (size_t)off)
                        assert_int_equal(word, 0x5A5A5A5A);
                }
                free(x), free(all), free(alone), free(q), free(index);
            }
    }
}

/* ---- Allocations ------------------------------------------------------------------------- */

static int64_t allocations;

static void *counting_alloc(void *user, size_t alignment, size_t size)
{
    (void)user;
    allocations++;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void counting_free(void *user, void *p)
{
    (void)user;
    free(p);
}

static void test_allocations(void **state)
{
    (void)state;
    for (int64_t i = 0; i < COUNT(shapes); i++)
        for (int form = 0; form < FORMS; form++) {
            slg_ctx_opts o;
            slg_ctx *ctx;
            slg_ctx_opts_init(&o, sizeof o);
            o.alloc = counting_alloc, o.free = counting_free, o.num_threads = 2;
            assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
            memory m;
            memory_sizes(&shapes[i], (enum form)form, &m);
            memory_alloc(&m);
            seed = 99;
            memory_fill(&shapes[i], (enum form)form, &m);
            allocations = 0;
            OK(ctx, memory_run(ctx, &shapes[i], (enum form)form, &m));
            slg_ctx_info_t info = { .size = sizeof info };
            OK(ctx, slg_ctx_info(ctx, &info));
            assert_true(info.scratch_peak_bytes > 0);
            /* A first call may leave several pieces, which the next one joins. */
            memory_fill(&shapes[i], (enum form)form, &m);
            int64_t first = allocations;
            OK(ctx, memory_run(ctx, &shapes[i], (enum form)form, &m));
            if (allocations > first)
                fail_msg("shape %lld, form %d: second call: %lld allocations", (long long)i,
                         form, (long long)(allocations - first));
            memory_free(&m);
            slg_ctx_free(ctx);
        }
}

/* ---- The caller's floating-point mode ---------------------------------------------------- */

#if defined(__x86_64__)
static void test_mode(void **state)
{
    (void)state;
    /* Rounding up, down, to zero; flush to zero; denormals are zero; flags that are raised. */
    const unsigned modes[] = { 0x1F80, 0x5F80, 0x3F80,        0x7F80,
                               0x9F80, 0x1FC0, 0x1F80 | 0x3D, 0xFFC0 };
    const unsigned before = _mm_getcsr();
    FOR_EACH_ISA(ctx, 2)
    for (int form = 0; form < FORMS; form++) {
        const shape s = { 60, 700, 6, SLG_F32, SLG_I32, false, 0.1, 5, 2 };
        memory one = { 0 };
        for (int64_t i = 0; i < COUNT(modes); i++) {
            memory m;
            memory_sizes(&s, (enum form)form, &m);
            memory_alloc(&m);
            seed = 5;
            memory_fill(&s, (enum form)form, &m);
            _mm_setcsr(modes[i]);
            slg_status status = memory_run(ctx, &s, (enum form)form, &m);
            unsigned after = _mm_getcsr();
            shape bad = s;
            bad.temperature = -1;
            slg_loss_out numbers = m.numbers;
            slg_status refused = memory_run(ctx, &bad, (enum form)form, &m);
            unsigned after_error = _mm_getcsr();
            _mm_setcsr(before);
            m.numbers = numbers;
            OK(ctx, status);
            assert_int_equal(refused, SLG_ERR_RANGE);
            assert_int_equal(after, modes[i]);
            assert_int_equal(after_error, modes[i]);
            if (i == 0) {
                one = m;
            } else {
                assert_same("mode", (enum form)form, &one, &m);
                memory_free(&m);
            }
        }
        memory_free(&one);
    }
}
#else
static void test_mode(void **state)
{
    (void)state;
    skip();
}
#endif

/* ---- Guard pages ------------------------------------------------------------------------- */

static void guarded(slg_ctx *ctx, const shape *s, enum form form, enum guard_side side)
{
    memory m, plain;
    guard in[INPUTS], out[OUTPUTS];
    memory_sizes(s, form, &m);
    plain = m;
    memory_alloc(&plain);
    memory_fill(s, form, &plain);
    for (int i = 0; i < INPUTS; i++) {
        in[i] = guard_copy(plain.in[i], plain.in_bytes[i], side);
        if (!(i == X && form == IN_PLACE)) guard_lock(&in[i]);
        m.in[i] = in[i].data;
    }
    for (int i = 0; i < OUTPUTS; i++) {
        out[i] = guard_create(m.out_bytes[i], side);
        m.out[i] = out[i].data;
    }
    OK(ctx, memory_run(ctx, s, form, &m));
    OK(ctx, memory_run(ctx, s, form, &plain));
    assert_same("guard pages", form, &plain, &m);
    for (int i = 0; i < INPUTS; i++) {
        assert_true(guard_intact(&in[i]));
        guard_free(&in[i]);
    }
    for (int i = 0; i < OUTPUTS; i++) {
        assert_true(guard_intact(&out[i]));
        guard_free(&out[i]);
    }
    memory_free(&plain);
}

static void test_guard_pages(void **state)
{
    (void)state;
    const int64_t cols[] = { 1,  2,  3,  5,  8,   15,   16,   17,   31,
                             33, 63, 64, 65, 100, 2047, 2048, 2049, 2065 };
    const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    FOR_EACH_ISA(ctx, 1)
    {
        for (int64_t c = 0; c < COUNT(cols); c++)
            for (int i = 0; i < 3 * FORMS * 4; i++) {
                shape s = { 1 + below(3),
                            cols[c],
                            1 + below(20),
                            types[i % 3],
                            SLG_I64,
                            i / 9 % 2,
                            0,
                            0,
                            1 };
                if (i / 18)
                    s.smoothing = 0.1, s.softcap = 4, s.temperature = 3, s.index_type = SLG_I32;
                for (int side = GUARD_AFTER; side <= GUARD_BEFORE; side++)
                    guarded(ctx, &s, (enum form)(i / 3 % FORMS), (enum guard_side)side);
            }
        for (int form = 0; form < FORMS; form++)
            for (int prob = 0; prob < 2; prob++) { /* streams */
                shape s = { 7, 50257, 3, SLG_F32, SLG_I64, prob, 0, 0, 1 };
                guarded(ctx, &s, (enum form)form, GUARD_AFTER);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_allocations), cmocka_unit_test(test_mode),
        cmocka_unit_test(test_guard_pages),
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
