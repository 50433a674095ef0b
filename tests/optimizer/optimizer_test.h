/*
 * optimizer_test.h - what holds for every update rule, as tests that a rule's file runs with
 * its own options: splits, threads, state as bytes, errors, memory. The rule's file checks
 * the formula.
 */
#ifndef TESTS_OPTIMIZER_OPTIMIZER_TEST_H
#define TESTS_OPTIMIZER_OPTIMIZER_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "softlogit/softlogit.h"
#include "support/guard.h"

#define COUNT(array) (int64_t)(sizeof(array) / sizeof *(array))
#define OK(ctx, call)                                                                          \
    do {                                                                                       \
        slg_status status_ = (call);                                                           \
        if (status_) fail_msg("%s: %d, %s", #call, status_, slg_ctx_message(ctx));             \
    } while (0)

/* The rule under test: its file defines these. */
static const int32_t rule_kind;
static const int32_t rule_other_kind;
static const void *rule_options(int variant); /* variant 0 keeps the most state */
enum { RULE_VARIANTS = 6 };
static int rule_arrays(int variant);

/* ---- Helpers ----------------------------------------------------------------------------- */

static inline slg_ctx *context(int32_t isa, int32_t threads)
{
    slg_ctx_opts o;
    slg_ctx *ctx;
    slg_ctx_opts_init(&o, sizeof o);
    o.isa = isa;
    o.num_threads = threads;
    slg_status status = slg_ctx_create(&o, &ctx);
    if (status == SLG_ERR_UNSUPPORTED) return NULL;
    assert_int_equal(status, SLG_OK);
    return ctx;
}

#define FOR_EACH_ISA(ctx, threads)                                                             \
    for (int32_t isa_ = SLG_ISA_PORTABLE; isa_ <= SLG_ISA_AVX512; isa_++)                      \
        for (slg_ctx *ctx = context(isa_, threads); ctx; slg_ctx_free(ctx), ctx = NULL)

static uint64_t seed = 88172645463325252u;

static inline double uniform(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return ((double)(seed >> 11) + 0.5) * 0x1p-53;
}

static inline double normal(void)
{
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

static inline float *random_floats(int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x + 1);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)normal();
    return x;
}

static inline slg_optimizer *create(slg_ctx *ctx, int64_t n, int variant)
{
    slg_optimizer *o;
    OK(ctx, slg_optimizer_create(ctx, rule_kind, n, rule_options(variant), &o));
    return o;
}

/* A step over w[0..n) as one tensor. */
static inline slg_status step(slg_optimizer *o, float *w, const float *dw, int64_t n)
{
    slg_tensor ws = slg_tensor_1d(w, SLG_F32, n), dws = slg_tensor_1d(dw, SLG_F32, n);
    return slg_optimizer_step(o, &ws, &dws);
}

/* The state's bytes; the caller frees. */
static inline unsigned char *export_state(slg_ctx *ctx, slg_optimizer *o, int64_t *bytes)
{
    OK(ctx, slg_optimizer_export(o, NULL, 0, bytes));
    unsigned char *state = malloc((size_t)*bytes);
    assert_non_null(state);
    int64_t written = -1;
    OK(ctx, slg_optimizer_export(o, state, *bytes, &written));
    assert_int_equal(written, *bytes);
    return state;
}

/* `steps` steps from the same start, for any context; the caller frees the weights. */
static inline float *walk(slg_ctx *ctx, int64_t n, int variant, int steps)
{
    seed = 12345;
    float *w = random_floats(n);
    slg_optimizer *o = create(ctx, n, variant);
    for (int t = 0; t < steps; t++) {
        float *dw = random_floats(n);
        OK(ctx, slg_optimizer_set_lr(o, 0.01 / (1 + t)));
        OK(ctx, step(o, w, dw, n));
        free(dw);
    }
    slg_optimizer_free(o);
    return w;
}

/* ---- Splits ------------------------------------------------------------------------------ */

/* Any number of threads; any list; any shape of tensor: the same bits. */
static void test_threads(void **state)
{
    (void)state;
    const int32_t threads[] = { 2, 3, 8 };
    const int64_t sizes[] = { 1, 17, 65536, 65537, 300001 };
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++)
        for (int variant = 0; variant < RULE_VARIANTS; variant++)
            for (int64_t s = 0; s < COUNT(sizes); s++) {
                slg_ctx *one = context(isa, 1);
                if (!one) continue;
                float *want = walk(one, sizes[s], variant, 3);
                for (int64_t j = 0; j < COUNT(threads); j++) {
                    if (variant > 1 && j != 1) continue;
                    slg_ctx *ctx = context(isa, threads[j]);
                    float *got = walk(ctx, sizes[s], variant, 3);
                    assert_memory_equal(got, want, (size_t)sizes[s] * sizeof *want);
                    free(got);
                    slg_ctx_free(ctx);
                }
                free(want);
                slg_ctx_free(one);
            }
}

static void test_list(void **state)
{
    (void)state;
    enum { N = 70000, PARTS = 9 };
    const int64_t cuts[PARTS + 1] = { 0, 0, 1, 17, 17, 33, 100, 66000, 69999, N };
    FOR_EACH_ISA(ctx, 2)
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        slg_optimizer *a = create(ctx, N, variant), *b = create(ctx, N, variant);
        float *w = random_floats(N), *v = malloc(N * sizeof *v);
        memcpy(v, w, N * sizeof *v);
        for (int t = 0; t < 5; t++) {
            float *dw = random_floats(N);
            slg_tensor ws[PARTS], dws[PARTS], *wp[PARTS];
            const slg_tensor *dwp[PARTS];
            for (int i = 0; i < PARTS; i++) {
                ws[i] = slg_tensor_1d(v + cuts[i], SLG_F32, cuts[i + 1] - cuts[i]);
                dws[i] = slg_tensor_1d(dw + cuts[i], SLG_F32, cuts[i + 1] - cuts[i]);
                wp[i] = &ws[i], dwp[i] = &dws[i];
            }
            /* Of other shapes, with the same elements. */
            const slg_tensor cube = { NULL, SLG_F32, 4, { 2, 4, 4, 1 }, { 16, 4, 1, 1 } };
            if (cuts[5] - cuts[4] == 16) {
                ws[4] = dws[4] = cube;
                ws[4].shape[0] = dws[4].shape[0] = 1;
                ws[4].data = v + cuts[4], dws[4].data = dw + cuts[4];
            }
            OK(ctx, slg_optimizer_step_list(a, PARTS, wp, dwp));
            OK(ctx, step(b, w, dw, N));
            assert_memory_equal(v, w, N * sizeof *v);
            free(dw);
        }
        assert_int_equal(slg_optimizer_steps(a), 5);
        int64_t bytes_a, bytes_b;
        unsigned char *state_a = export_state(ctx, a, &bytes_a);
        unsigned char *state_b = export_state(ctx, b, &bytes_b);
        assert_int_equal(bytes_a, bytes_b);
        assert_memory_equal(state_a, state_b, (size_t)bytes_a);
        free(state_a), free(state_b), free(w), free(v);
        slg_optimizer_free(a), slg_optimizer_free(b);
    }
}

/* ---- State ------------------------------------------------------------------------------- */

/* Exported after any step and imported into another, on another ISA too: goes on as if nothing
   had been. A reset one starts anew. */
static void test_state(void **state)
{
    (void)state;
    enum { N = 1003, STEPS = 6 };
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < RULE_VARIANTS; variant++)
        for (int at = 0; at <= STEPS; at++) {
            seed = 7;
            float *w = random_floats(N), *v = malloc(N * sizeof *v),
                  *first = malloc(N * sizeof *v);
            slg_optimizer *o = create(ctx, N, variant), *p = create(ctx, N, variant);
            float *start = random_floats(N); /* p has seen something before */
            OK(ctx, step(p, start, w, N));
            free(start);
            memcpy(first, w, N * sizeof *v);
            for (int t = 0; t <= STEPS; t++) {
                float *dw = random_floats(N);
                if (t == at) {
                    int64_t bytes;
                    unsigned char *s = export_state(ctx, o, &bytes);
                    assert_true(bytes >= rule_arrays(variant) * N * 4);
                    assert_true(bytes <= rule_arrays(variant) * N * 4 + 64);
                    OK(ctx, slg_optimizer_import(p, s, bytes));
                    assert_int_equal(slg_optimizer_steps(p), t);
                    free(s);
                    memcpy(v, w, N * sizeof *v);
                }
                OK(ctx, step(o, w, dw, N));
                if (t >= at) OK(ctx, step(p, v, dw, N));
                free(dw);
            }
            assert_memory_equal(v, w, N * sizeof *v);
            int64_t a, b;
            unsigned char *sa = export_state(ctx, o, &a), *sb = export_state(ctx, p, &b);
            assert_true(a == b && memcmp(sa, sb, (size_t)a) == 0);
            free(sa), free(sb);

            OK(ctx, slg_optimizer_reset(p));
            assert_int_equal(slg_optimizer_steps(p), 0);
            seed = 7;
            free(random_floats(N)), free(random_floats(N));
            for (int t = 0; t <= STEPS; t++) {
                float *dw = random_floats(N);
                OK(ctx, step(p, first, dw, N));
                free(dw);
            }
            assert_memory_equal(first, w, N * sizeof *v);
            free(w), free(v), free(first);
            slg_optimizer_free(o), slg_optimizer_free(p);
        }
}

/* Imports that are refused leave the optimizer as it was. */
static void refused_import(slg_ctx *ctx, slg_optimizer *o, const void *bytes, int64_t n,
                           slg_status want, const char *what)
{
    int64_t before_n, after_n;
    unsigned char *before = export_state(ctx, o, &before_n);
    slg_status status = slg_optimizer_import(o, bytes, n);
    if (status != want) fail_msg("%s: status %d, should be %d", what, status, want);
    assert_true(strncmp(slg_ctx_message(ctx), "slg_optimizer_import: ", 22) == 0);
    unsigned char *after = export_state(ctx, o, &after_n);
    assert_true(before_n == after_n && memcmp(before, after, (size_t)before_n) == 0);
    free(before), free(after);
}

static void test_damage(void **state)
{
    (void)state;
    enum { N = 9 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        slg_optimizer *o = create(ctx, N, variant), *p = create(ctx, N, variant);
        float *w = random_floats(N), *dw = random_floats(N);
        for (int t = 0; t < 3; t++) OK(ctx, step(o, w, dw, N));
        OK(ctx, step(p, w, dw, N));
        int64_t n;
        unsigned char *s = export_state(ctx, o, &n);
        for (int64_t i = 0; i < 8 * n; i++) { /* each bit */
            char what[40];
            snprintf(what, sizeof what, "bit %lld", (long long)i);
            s[i / 8] ^= (unsigned char)(1 << i % 8);
            refused_import(ctx, p, s, n, SLG_ERR_STATE, what);
            s[i / 8] ^= (unsigned char)(1 << i % 8);
        }
        for (int64_t i = 0; i < n; i++) { /* each shorter one: nothing is read past its end */
            guard g = guard_copy(s, (size_t)i, GUARD_AFTER);
            refused_import(ctx, p, g.data, i, SLG_ERR_STATE, "truncated");
            guard_free(&g);
        }
        unsigned char *longer = calloc((size_t)n + 8, 1);
        memcpy(longer, s, (size_t)n);
        refused_import(ctx, p, longer, n + 1, SLG_ERR_STATE, "longer");
        refused_import(ctx, p, longer, n + 8, SLG_ERR_STATE, "longer");
        refused_import(ctx, p, s, -1, SLG_ERR_STATE, "negative");
        refused_import(ctx, p, s, INT64_MIN, SLG_ERR_STATE, "negative");
        refused_import(ctx, p, NULL, n, SLG_ERR_NULL, "NULL");
        const int64_t sizes[] = { 0, N - 1, N + 1, 2 * N };
        for (int i = 0; i < 4; i++) {
            slg_optimizer *q = create(ctx, sizes[i], variant);
            refused_import(ctx, q, s, n, SLG_ERR_STATE, "other n");
            slg_optimizer_free(q);
        }
        slg_optimizer *q;
        OK(ctx, slg_optimizer_create(ctx, rule_other_kind, N, NULL, &q));
        refused_import(ctx, q, s, n, SLG_ERR_STATE, "other kind");
        slg_optimizer_free(q);
        OK(ctx, slg_optimizer_import(p, s, n)); /* whole again */

        /* A buffer that is too small is not touched. */
        int64_t bytes = -1;
        memset(longer, 0x5A, (size_t)n + 8);
        assert_int_equal(slg_optimizer_export(o, longer, n - 1, &bytes), SLG_ERR_RANGE);
        assert_int_equal(bytes, n);
        assert_int_equal(slg_optimizer_export(o, longer, -1, &bytes), SLG_ERR_RANGE);
        for (int64_t i = 0; i < n + 8; i++) assert_int_equal(longer[i], 0x5A);
        OK(ctx, slg_optimizer_export(o, longer, n + 8, &bytes));
        for (int64_t i = 0; i < 8; i++) assert_int_equal(longer[n + i], 0x5A);
        assert_memory_equal(longer, s, (size_t)n);
        assert_int_equal(slg_optimizer_export(o, longer, n, NULL), SLG_ERR_NULL);
        free(longer), free(s), free(w), free(dw);
        slg_optimizer_free(o), slg_optimizer_free(p);
    }
    slg_ctx_free(ctx);
}

/* ---- Nothing to do ----------------------------------------------------------------------- */

static void test_empty(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        slg_optimizer *o = create(ctx, 0, variant);
        OK(ctx, step(o, NULL, NULL, 0));
        OK(ctx, slg_optimizer_step_list(o, 0, NULL, NULL));
        assert_int_equal(slg_optimizer_steps(o), 2);
        int64_t n;
        unsigned char *s = export_state(ctx, o, &n);
        OK(ctx, slg_optimizer_reset(o));
        OK(ctx, slg_optimizer_import(o, s, n));
        assert_int_equal(slg_optimizer_steps(o), 2);
        free(s);
        slg_optimizer_free(o);
    }
    slg_optimizer_free(NULL);
    assert_int_equal(slg_optimizer_steps(NULL), 0);
    slg_ctx_free(ctx);
}

/* ---- NaN, infinities --------------------------------------------------------------------- */

/* One bad gradient, at any place: the others' weights have the bits they would have had. */
static void test_nan(void **state)
{
    (void)state;
    enum { N = 70 };
    const float bad[] = { NAN, INFINITY, -INFINITY };
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < RULE_VARIANTS; variant++)
        for (int at = 0; at < N; at++) {
            slg_optimizer *o = create(ctx, N, variant), *p = create(ctx, N, variant);
            float *w = random_floats(N), v[N];
            memcpy(v, w, sizeof v);
            for (int t = 0; t < 3; t++) {
                float *dw = random_floats(N);
                OK(ctx, step(o, w, dw, N));
                if (t == 1) dw[at] = bad[at % 3];
                OK(ctx, step(p, v, dw, N));
                free(dw);
            }
            for (int i = 0; i < N; i++) {
                bool as_it_should_be = i == at ? !isfinite(v[i]) : v[i] == w[i];
                assert_true(as_it_should_be);
            }
            free(w);
            slg_optimizer_free(o), slg_optimizer_free(p);
        }
}

/* ---- Guard pages, the caller's floating-point mode --------------------------------------- */

static void test_guard_pages(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < RULE_VARIANTS; variant++)
        for (int64_t n = 0; n < 140; n++)
            for (int side = GUARD_AFTER; side <= GUARD_BEFORE; side++) {
                float *w = random_floats(n), *dw = random_floats(n);
                guard gw = guard_copy(w, (size_t)n * 4, (enum guard_side)side);
                guard gd = guard_copy(dw, (size_t)n * 4, (enum guard_side)side);
                guard_lock(&gd);
                slg_optimizer *o = create(ctx, n, variant), *p = create(ctx, n, variant);
                for (int t = 0; t < 2; t++) {
                    OK(ctx, step(o, gw.data, gd.data, n));
                    OK(ctx, step(p, w, dw, n));
                }
                assert_memory_equal(gw.data, w, (size_t)n * 4);
                assert_true(guard_intact(&gw) && guard_intact(&gd));
                slg_optimizer_free(o), slg_optimizer_free(p);
                guard_free(&gw), guard_free(&gd);
                free(w), free(dw);
            }
}

static void test_mode(void **state)
{
    (void)state;
#if defined(__x86_64__)
    const unsigned modes[] = { 0x1F80, 0x5F80, 0x3F80, 0x7F80, 0x9F80, 0x1FC0, 0x1FBD, 0xFFC0 };
    const unsigned before = _mm_getcsr();
    FOR_EACH_ISA(ctx, 3)
    {
        float *want = walk(ctx, 200000, 0, 1);
        for (int64_t i = 0; i < COUNT(modes); i++) {
            seed = 12345;
            float *w = random_floats(200000), *dw = random_floats(200000);
            slg_optimizer *o = create(ctx, 200000, 0);
            OK(ctx, slg_optimizer_set_lr(o, 0.01));
            _mm_setcsr(modes[i]);
            slg_status status = step(o, w, dw, 200000);
            unsigned after = _mm_getcsr();
            slg_status refused = step(o, w, dw, 3);
            unsigned after_error = _mm_getcsr();
            _mm_setcsr(before);
            OK(ctx, status);
            assert_int_equal(refused, SLG_ERR_SHAPE);
            assert_int_equal(after, modes[i]);
            assert_int_equal(after_error, modes[i]);
            assert_memory_equal(w, want, 200000 * sizeof *w);
            slg_optimizer_free(o);
            free(w), free(dw);
        }
        free(want);
    }
#else
    skip();
#endif
}

#define COMMON_TESTS                                                                           \
    cmocka_unit_test(test_threads), cmocka_unit_test(test_list), cmocka_unit_test(test_state), \
        cmocka_unit_test(test_damage), cmocka_unit_test(test_empty),                           \
        cmocka_unit_test(test_nan), cmocka_unit_test(test_guard_pages),                        \
        cmocka_unit_test(test_mode)

#endif
