/*
 * What holds for every update rule: its formula, splits, threads, no weights, NaN, guard pages,
 * the floating-point mode. Trajectories of torch.optim are in tests/golden.
 */
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "optimizer_test.h"
#include "support/guard.h"

/* ---- The formula ------------------------------------------------------------------------- */

/* 200 steps, gradients from 1e-6 to 1e3; the error of a weight in units of its largest value
   on the way. */
static void formula(slg_ctx *ctx, int variant, double *worst)
{
    enum { N = 100, STEPS = 200 };
    slg_optimizer *o = create(ctx, N, variant);
    const any_opts *opts = rule_options(variant);
    float *w = random_floats(N);
    ref_state want[N] = { { 0 } };
    double top[N];
    for (int i = 0; i < N; i++) want[i].w = (double)w[i], top[i] = fmax(0.1, fabs(want[i].w));
    for (int t = 1; t <= STEPS; t++) {
        float *dw = random_floats(N);
        double lr = rule->lr / (1 + 0.02 * t), scale = t % 5 == 0 ? 0.25 : 1;
        /* Powers of ten where the rule divides by the gradient's size. */
        for (int i = 0; i < N && rule->lr <= 0.01 && rule->kind != SLG_EGD; i++)
            dw[i] *= rule->kind == SLG_SGD ? 1 : powf(10.0f, (float)(i % 10 - 6));
        OK(ctx, slg_optimizer_set_lr(o, lr));
        OK(ctx, slg_optimizer_set_grad_scale(o, scale));
        OK(ctx, step(o, w, dw, N));
        for (int i = 0; i < N; i++) {
            rule->step(opts, t, lr, scale * (double)dw[i], &want[i]);
            top[i] = fmax(top[i], fabs(want[i].w));
            double e = fabs((double)w[i] - want[i].w) / top[i];
            if (!(e <= rule->error))
                fail_msg("variant %d, step %d: w[%d] is %.9g, should be %.9g", variant, t, i,
                         (double)w[i], want[i].w);
            *worst = fmax(*worst, e);
        }
        free(dw);
    }
    assert_int_equal(slg_optimizer_steps(o), STEPS);
    free(w);
    slg_optimizer_free(o);
}

static void test_formula(void **state)
{
    double worst = 0;
    rule = *state;
    WEIGHT_BY_WEIGHT;
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < RULE_VARIANTS; variant++) formula(ctx, variant, &worst);
    print_message("%s, 200 steps: error %.2g of %.0e\n", rule->name, worst, rule->error);
}

/* ---- Splits ------------------------------------------------------------------------------ */

/* Any number of threads; any list; any shape of tensor: the same bits. */
static void test_threads(void **state)
{
    rule = *state;
    const int32_t threads[] = { 2, 3, 8 };
    const int64_t sizes[] = { 1, 17, 65536, 65537, 140001 };
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++)
        for (int variant = 0; variant < RULE_VARIANTS; variant++)
            for (int64_t s = 0; s < COUNT(sizes); s++) {
                slg_ctx *one = context(isa, 1);
                if (!one) continue;
                float *want = walk(one, sizes[s], variant, 3);
                for (int64_t j = 0; j < COUNT(threads); j++) {
                    if (variant > 0 && j != 1) continue;
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
    rule = *state;
    WEIGHT_BY_WEIGHT;
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

/* ---- Nothing to do ----------------------------------------------------------------------- */

static void test_empty(void **state)
{
    rule = *state;
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

/* One bad gradient, at any place: the others' weights have the bits they would have had. Lion
   and the exponentiated gradient take an infinity as a long way in its direction. */
static void test_nan(void **state)
{
    rule = *state;
    WEIGHT_BY_WEIGHT;
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
                const bool tamed = rule->kind == SLG_LION || rule->kind == SLG_EGD;
                bool as_it_should_be = v[i] == w[i];
                if (i == at)
                    as_it_should_be = !isfinite(v[i]) || (tamed && !isnan(bad[at % 3]));
                assert_true(as_it_should_be);
            }
            free(w);
            slg_optimizer_free(o), slg_optimizer_free(p);
        }
}

/* ---- Guard pages, the caller's floating-point mode --------------------------------------- */

static void test_guard_pages(void **state)
{
    rule = *state;
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
    rule = *state;
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
            OK(ctx, slg_optimizer_set_lr(o, rule->lr));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_list),    cmocka_unit_test(test_empty),
        cmocka_unit_test(test_nan),     cmocka_unit_test(test_guard_pages),
        cmocka_unit_test(test_mode),
    };
    return run_over_rules(tests, COUNT(tests));
}
