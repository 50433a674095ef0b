/*
 * optimizer_test.h - helpers for tests of optimizers, over the rules of rule_table.h.
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

#include "rule_table.h"

#define COUNT(array) (int64_t)(sizeof(array) / sizeof *(array))
#define OK(ctx, call)                                                                          \
    do {                                                                                       \
        slg_status status_ = (call);                                                           \
        if (status_) fail_msg("%s: %d, %s", #call, status_, slg_ctx_message(ctx));             \
    } while (0)

/* The rule under test: *state of each test that run_over_rules runs. */
static const rule_case *rule = rule_cases;

/* Not for rules that see whole tensors: those have tests of their own. */
#define WEIGHT_BY_WEIGHT                                                                       \
    do                                                                                         \
        if (!rule->step) skip();                                                               \
    while (0)

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

static inline const any_opts *rule_options(int variant)
{
    static any_opts o;
    memset(&o, 0, sizeof o);
    rule->options(variant, &o);
    return &o;
}

static inline int rule_arrays(int variant) { return rule->arrays(rule_options(variant)); }

static inline slg_optimizer *create(slg_ctx *ctx, int64_t n, int variant)
{
    slg_optimizer *o;
    OK(ctx, slg_optimizer_create(ctx, rule->kind, n, rule_options(variant), &o));
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
        OK(ctx, slg_optimizer_set_lr(o, rule->lr / (1 + t)));
        OK(ctx, step(o, w, dw, n));
        free(dw);
    }
    slg_optimizer_free(o);
    return w;
}

/* The call gave `want` and a message that starts with `op` and holds `part`. */
static inline void expect_error(slg_ctx *ctx, int line, slg_status got, slg_status want,
                                const char *op, const char *part)
{
    const char *message = slg_ctx_message(ctx);
    if (got != want) fail_msg("line %d: status %d, should be %d: %s", line, got, want, message);
    if (strncmp(message, op, strlen(op)) != 0) fail_msg("line %d: %s", line, message);
    if (!strstr(message, part)) fail_msg("line %d: no '%s' in '%s'", line, part, message);
}

/* ---- The program ------------------------------------------------------------------------- */

/* Each test for each rule. */
static inline int run_over_rules(const struct CMUnitTest *tests, int64_t count)
{
    enum { MOST = 32 };
    static char names[COUNT(rule_cases) * MOST][64];
    struct CMUnitTest all[COUNT(rule_cases) * MOST];
    size_t n = 0;
    for (int64_t r = 0; r < COUNT(rule_cases); r++)
        for (int64_t t = 0; t < count; t++, n++) {
            snprintf(names[n], sizeof names[n], "%s, %s", tests[t].name, rule_cases[r].name);
            all[n] = tests[t];
            all[n].name = names[n];
            all[n].initial_state = (void *)(uintptr_t)&rule_cases[r];
        }
    return _cmocka_run_group_tests("rules", all, n, NULL, NULL);
}

#endif
