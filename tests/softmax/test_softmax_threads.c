/*
 * What must not depend on threads, on calls before, or on the caller's floating-point mode:
 * results, to the bit; and what must be as it was after a call: the mode, and the allocator.
 */
#include "softmax_test.h"

#include "softmax_calls.h"

#include <fenv.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

enum { MAX_THREADS = 4 };
static const int32_t thread_counts[MAX_THREADS] = { 1, 2, 3, 8 };

/* ---- One call, with memory of its own ---------------------------------------------------- */

typedef struct call {
    const function *f;
    slg_softmax_opts o;
    array a[OPERANDS];
    slg_tensor *t[OPERANDS];
} call;

/* all: optional operands too. Row 1 holds NaN, row 2 logits past all whole steps. */
static void new_call(call *c, const function *f, int64_t rows, int64_t cols, int32_t dtype,
                     const slg_softmax_opts *o, bool all, enum layout layout)
{
    enum { PERIOD = 4099 };
    *c = (call){ .f = f, .o = o ? *o : options(1, 0) };
    for (int i = 0; i < f->count; i++) {
        const operand *with = &f->with[i];
        const int32_t type = is_rows(with) && with->flags & HALVES ? dtype : SLG_F32;
        const int64_t shape[] = { rows, cols };
        double some[PERIOD]; /* and again from the start */
        uint64_t bits[PERIOD];
        for (int k = 0; k < PERIOD; k++) {
            some[k] = (double)sensible(with, uniform(), 3.4 * (uniform() + uniform() - 1));
            store(type, &bits[k], some[k]);
        }
        c->a[i] = new_array(type, is_rows(with) ? 2 : 1, shape, layout);
        for (int64_t r = 0, k = 0; !is_output(with) && r < rows; r++)
            for (int64_t at = 0; at < (is_rows(with) ? cols : 1); at++, k = (k + 1) % PERIOD)
                memcpy(is_rows(with) ? element(&c->a[i].t, r, at) : per_row(&c->a[i].t, r),
                       &bits[k], item_size(type));
        c->t[i] = with->flags & OPTIONAL && !all ? NULL : &c->a[i].t;
    }
    if (rows <= 2) return;
    put(&c->a[0], 1, cols / 2, NAN);
    const double far = f->with[0].name[0] == 'x' && dtype != SLG_F16 ? 2e5 : -1;
    for (int64_t k = 0; k < cols; k++) put(&c->a[0], 2, k, far);
}

static void free_call(call *c)
{
    for (int i = 0; i < c->f->count; i++) free_array(&c->a[i]);
}

static void clear_outputs(call *c)
{
    for (int i = 0; i < c->f->count; i++)
        if (is_output(&c->f->with[i])) memset(c->a[i].memory, FILL, c->a[i].bytes);
}

static void run(call *c, slg_ctx *ctx, bool with_opts)
{
    clear_outputs(c);
    ok(c->f->call(ctx, c->t, with_opts ? &c->o : NULL));
}

/* The outputs' memory, all in one, to compare. */
static unsigned char *results_of(const call *c, size_t *bytes)
{
    *bytes = 0;
    for (int i = 0; i < c->f->count; i++)
        if (is_output(&c->f->with[i])) *bytes += c->a[i].bytes;
    unsigned char *all = malloc(*bytes), *p = all;
    assert_non_null(all);
    for (int i = 0; i < c->f->count; i++)
        if (is_output(&c->f->with[i]))
            memcpy(p, c->a[i].memory, c->a[i].bytes), p += c->a[i].bytes;
    return all;
}

static void assert_results(const call *c, const unsigned char *want, const char *what,
                           int64_t number)
{
    size_t bytes;
    unsigned char *got = results_of(c, &bytes);
    if (memcmp(got, want, bytes) != 0)
        fail_msg("%s, %lld x %lld, algorithm %d: other bits %s %lld", c->f->name,
                 (long long)c->a[0].t.shape[0], (long long)c->a[0].t.shape[1],
                 (int)c->o.algorithm, what, (long long)number);
    free(got);
}

/* ---- Any number of threads --------------------------------------------------------------- */

/* A host that runs what it is given backwards, on one thread. */
static void backwards(void *user, int64_t n, slg_parallel_fn fn, void *arg)
{
    (void)user;
    for (int64_t i = n - 1; i >= 0; i--) fn(arg, i);
}

typedef struct contexts {
    slg_ctx *ctx[MAX_THREADS + 1];
} contexts;

static contexts all_contexts(int32_t isa, bool caches)
{
    contexts c;
    for (int i = 0; i < MAX_THREADS; i++) c.ctx[i] = new_ctx(isa, thread_counts[i]);
    slg_ctx_opts o;
    slg_ctx_opts_init(&o, sizeof o);
    o.isa = isa, o.num_threads = 5, o.parallel_for = backwards;
    ok(slg_ctx_create(&o, &c.ctx[MAX_THREADS]));
    for (int i = 0; i <= MAX_THREADS && !caches; i++) without_caches(c.ctx[i]);
    return c;
}

static void free_contexts(contexts *c)
{
    for (int i = 0; i <= MAX_THREADS; i++) slg_ctx_free(c->ctx[i]);
}

static void compare(contexts *c, call *one, bool with_opts)
{
    size_t bytes;
    run(one, c->ctx[0], with_opts);
    unsigned char *want = results_of(one, &bytes);
    for (int i = 0; i <= MAX_THREADS; i++)
        for (int again = 0; again < 2; again++) {
            run(one, c->ctx[i], with_opts);
            assert_results(one, want, "with threads:", i < MAX_THREADS ? thread_counts[i] : -1);
        }
    free(want);
}

static void same_bits(void **state, bool caches)
{
    contexts c = all_contexts(*(const int32_t *)*state, caches);
    static const int64_t shapes[][2] = {
        { 3, 17 },    { 1, 64 },    { 20, 1000 }, { 300, 300 },  { 100, 3001 }, { 20, 9000 },
        { 1, 65535 }, { 1, 65536 }, { 2, 70001 }, { 1, 131072 }, { 7, 70001 },  { 1, 600003 },
    };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t f = 0; f < COUNT(functions); f++) {
            const int64_t cells = shapes[s][0] * shapes[s][1];
            if (f > 2 && cells > 300000) continue; /* rows are not split there */
            /* The whole list for softmax; the rest of the functions have one way each. */
            for (int variant = 0; variant < (f == 0 ? 7 : 1 + (cells < 100000)); variant++) {
                slg_softmax_opts o =
                    options(variant == 6 ? 0.7 : 1,
                            variant >= 1 && variant <= 3 && f == 0 ? variant : 0);
                o.reread = variant == 4;
                if (o.algorithm && cells > 200000) continue;
                call one;
                new_call(&one, &functions[f], shapes[s][0], shapes[s][1],
                         variant == 6 ? SLG_BF16 : SLG_F32, &o, variant == 5 || f > 0,
                         s % 2 ? OFF_LINE : DENSE);
                compare(&c, &one, variant > 0);
                free_call(&one);
            }
        }
    free_contexts(&c);
}

static void test_same_bits(void **state) { same_bits(state, true); }
static void test_same_bits_past_the_caches(void **state) { same_bits(state, false); }

/* ---- Calls again, and memory ------------------------------------------------------------- */

static int allocations;

static void *count_alloc(void *user, size_t alignment, size_t size)
{
    (void)user;
    allocations++;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void count_free(void *user, void *p)
{
    (void)user;
    free(p);
}

static void test_second_call_allocates_nothing(void **state)
{
    static const int64_t shapes[][2] = { { 2, 30 }, { 100, 2000 }, { 1, 200000 } };
    for (int threads = 1; threads <= 2; threads++) {
        slg_ctx_opts co;
        slg_ctx *ctx;
        if (*(const int32_t *)*state > kernels_cpu_isa()) skip();
        slg_ctx_opts_init(&co, sizeof co);
        co.isa = *(const int32_t *)*state, co.num_threads = threads, co.alloc = count_alloc,
        co.free = count_free;
        ok(slg_ctx_create(&co, &ctx));
        for (size_t s = 0; s < COUNT(shapes); s++)
            for (size_t f = 0; f < COUNT(functions); f++)
                for (int a = 0; a < (f == 0 ? 4 : 1); a++)
                    for (int32_t dtype = SLG_F32; dtype <= SLG_F16; dtype++) {
                        const slg_softmax_opts o = options(1, a);
                        call one;
                        new_call(&one, &functions[f], shapes[s][0], shapes[s][1], dtype, &o,
                                 true, GAPS);
                        run(&one, ctx, true);
                        const int before = allocations;
                        run(&one, ctx, true), run(&one, ctx, true);
                        assert_int_equal(allocations, before);
                        free_call(&one);
                    }
        slg_ctx_free(ctx);
    }
}

/* ---- The caller's floating-point mode ---------------------------------------------------- */

#if defined(__SSE__)

/* Every rounding mode, flush modes, flags already raised, exceptions that would trap. */
static uint32_t mode_at(int i)
{
    uint32_t csr = 0x1F80u | (uint32_t)(i & 3) << 13;
    if (i & 4) csr |= 0x8000u;
    if (i & 8) csr |= 0x40u;
    if (i & 16) csr |= 0x15u;           /* invalid, divide by zero, underflow seen */
    if (i & 32) csr &= ~0x1F80u;        /* and none masked */
    return i & 32 ? csr & ~0x3Fu : csr; /* (a flag that is up would trap at once) */
}

enum { MODES = 64 };

static slg_status in_mode(uint32_t csr, call *c, slg_ctx *ctx, bool with_opts)
{
    const uint32_t old = _mm_getcsr();
    _mm_setcsr(csr);
    slg_status status = c->f->call(ctx, c->t, with_opts ? &c->o : NULL);
    const uint32_t after = _mm_getcsr();
    _mm_setcsr(old);
    if (after != csr)
        fail_msg("%s: MXCSR was %04x, is %04x; status %d", c->f->name, (unsigned)csr,
                 (unsigned)after, (int)status);
    return status;
}

static void test_mode(void **state)
{
    const int32_t isa = *(const int32_t *)*state;
    slg_ctx *ctxs[] = { new_ctx(isa, 1), new_ctx(isa, 2) };
    static const int64_t shapes[][2] = {
        { 1, 5 }, { 5, 100 }, { 1, 1000 }, { 1, 3000 }, { 2, 70001 }
    };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t f = 0; f < COUNT(functions); f++)
            for (int variant = 0; variant < (f == 0 ? 5 : 2); variant++) {
                const slg_softmax_opts o = options(1, f == 0 && variant ? variant - 1 : 0);
                call one;
                new_call(&one, &functions[f], shapes[s][0], shapes[s][1], SLG_F32, &o,
                         variant == 1, DENSE);
                /* Values that raise every flag there is, and make subnormals. */
                float *x = one.a[0].t.data;
                for (int64_t i = 0; i < shapes[s][1]; i += 3) x[i] *= 30;
                x[0] = 1e-40f, x[1] = -87, x[2] = -100;
                size_t bytes;
                run(&one, ctxs[0], variant > 0);
                unsigned char *want = results_of(&one, &bytes);
                for (int m = 0; m < MODES; m += s == 4 ? 7 : 1) {
                    clear_outputs(&one);
                    ok(in_mode(mode_at(m), &one, ctxs[m % 2], variant > 0));
                    assert_results(&one, want, "in floating-point mode", m);
                }
                free(want), free_call(&one);
            }
    for (int i = 0; i < 2; i++) slg_ctx_free(ctxs[i]);
}

static void test_mode_after_errors(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (size_t f = 0; f < COUNT(functions); f++)
        for (int mistake = 0; mistake < functions[f].count; mistake++)
            for (int m = 0; m < MODES; m++) {
                call one;
                new_call(&one, &functions[f], 2, 30, SLG_F32, NULL, true, DENSE);
                one.a[mistake].t.dtype = 99;
                assert_int_equal(in_mode(mode_at(m), &one, ctx, false), SLG_ERR_DTYPE);
                one.a[mistake].t.dtype = SLG_F32;
                one.o.temperature = -1;
                if (functions[f].opts)
                    assert_int_equal(in_mode(mode_at(m), &one, ctx, true), SLG_ERR_RANGE);
                free_call(&one);
            }
    slg_ctx_free(ctx);
}

static void test_mode_of_merge(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    const float m[] = { 1, 1.5f, 1 }, n[] = { 0, -100, 3e38f };
    float m_out = NAN, n_out = NAN, lse = NAN;
    slg_tensor tm = slg_tensor_1d(m, SLG_F32, 3), tn = slg_tensor_1d(n, SLG_F32, 3),
               to = slg_tensor_1d(&m_out, SLG_F32, 1);
    slg_tensor te = slg_tensor_1d(&n_out, SLG_F32, 1), tl = slg_tensor_1d(&lse, SLG_F32, 1);
    for (int i = 0; i < MODES; i++) {
        const uint32_t old = _mm_getcsr();
        _mm_setcsr(mode_at(i));
        slg_status status = slg_partial_merge(ctx, &tm, &tn, &to, &te, &tl);
        const uint32_t after = _mm_getcsr();
        _mm_setcsr(old);
        ok(status);
        assert_int_equal(after, mode_at(i));
        assert_true(m_out == 1 && n_out == 3e38f);
    }
    slg_ctx_free(ctx);
}

#else
static void test_mode(void **state) { (void)state, skip(); }
static void test_mode_after_errors(void **state) { (void)state, skip(); }
static void test_mode_of_merge(void **state) { (void)state, skip(); }
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_same_bits),
        EACH_ISA(test_same_bits_past_the_caches),
        EACH_ISA(test_second_call_allocates_nothing),
        EACH_ISA(test_mode),
        EACH_ISA(test_mode_after_errors),
        EACH_ISA(test_mode_of_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
