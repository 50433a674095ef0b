/*
 * An optimizer's state as bytes: exact, refused where it does not fit or is damaged.
 */
#include "optimizer_test.h"
#include "support/guard.h"

/* ---- State ------------------------------------------------------------------------------- */

/* Exported after any step and imported into another, on another ISA too: goes on as if nothing
   had been. A reset one starts anew. */
static void test_state(void **state)
{
    rule = *state;
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
    rule = *state;
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
        OK(ctx, slg_optimizer_create(ctx, rule->other_kind, N, NULL, &q));
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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_state),
                                        cmocka_unit_test(test_damage) };
    return run_over_rules(tests, COUNT(tests));
}
