/*
 * Identities of single rules, and state in bf16.
 */
#include "optimizer_test.h"

static const rule_case *rule_named(const char *name)
{
    for (int64_t i = 0; i < COUNT(rule_cases); i++)
        if (strcmp(rule_cases[i].name, name) == 0) return &rule_cases[i];
    fail_msg("no rule %s", name);
    return NULL;
}

/* ---- Optimistic -------------------------------------------------------------------------- */

/* The same points as the learner's of a free domain and a constant step. */
static void test_learner(void **state)
{
    (void)state;
    enum { N = 40 };
    rule = rule_named("optimistic");
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_omd_opts opts;
    slg_learner *l;
    slg_omd_opts_init(&opts, sizeof opts);
    opts.domain = SLG_DOMAIN_FREE, opts.mode = SLG_OMD_CONSTANT, opts.eta = 0.05;
    OK(ctx, slg_learner_create(ctx, SLG_OMD, N, &opts, &l));
    slg_optimizer *o = create(ctx, N, 0);
    OK(ctx, slg_optimizer_set_lr(o, 0.05));
    float w[N] = { 0 }, x[N];
    slg_tensor xt = slg_tensor_1d(x, SLG_F32, N);
    for (int t = 0; t < 100; t++) {
        float *dw = random_floats(N);
        slg_tensor g = slg_tensor_1d(dw, SLG_F32, N);
        OK(ctx, slg_learner_decide(l, NULL, &xt));
        for (int i = 0; i < N; i++) assert_true(fabs((double)(x[i] - w[i])) <= 2e-6);
        OK(ctx, slg_learner_observe(l, NULL, &g));
        OK(ctx, step(o, w, dw, N));
        free(dw);
    }
    slg_learner_free(l);
    slg_optimizer_free(o);
    slg_ctx_free(ctx);
}

/* min over x, max over y of x y: descent leaves the saddle, this comes to it. */
static void test_game(void **state)
{
    (void)state;
    rule = rule_named("optimistic");
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double far[2];
    for (int variant = 0; variant < 4; variant += 3) { /* optimism 1, and 0 */
        slg_optimizer *o = create(ctx, 2, variant);
        float w[2] = { 1, 1 };
        OK(ctx, slg_optimizer_set_lr(o, 0.3));
        for (int t = 0; t < 300; t++) {
            const float dw[2] = { w[1], -w[0] };
            OK(ctx, step(o, w, dw, 2));
        }
        far[variant / 3] = hypot((double)w[0], (double)w[1]);
        slg_optimizer_free(o);
    }
    assert_true(far[0] < 1e-3 && far[1] > 100);
    slg_ctx_free(ctx);
}

/* ---- Adam, SGD --------------------------------------------------------------------------- */

/* Bias corrections far on: after many steps they are 1, and not NaN. */
static void test_many_steps(void **state)
{
    (void)state;
    const char *const names[] = { "adamw", "nadam" };
    for (int i = 0; i < 2; i++) {
        rule = rule_named(names[i]);
        FOR_EACH_ISA(ctx, 1)
        {
            slg_optimizer *o = create(ctx, 1, i ? 5 : 2);
            float w = 0, dw = 1;
            OK(ctx, slg_optimizer_set_lr(o, 0.01));
            for (int t = 0; t < 100000; t++) OK(ctx, step(o, &w, &dw, 1));
            assert_int_equal(slg_optimizer_steps(o), 100000);
            float last = w = 0;
            OK(ctx, step(o, &w, &dw, 1)); /* m and v are at 1: a step of lr */
            assert_true(fabs((double)(w - last) + 0.01) < 1e-6);
            slg_optimizer_free(o);
        }
    }
}

/* No gradient yet: no 0 / 0. A rate of 0 moves nothing; a negative scale goes uphill. */
static void test_small_things(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    rule = *state;
    for (int64_t i = 0; i < COUNT(rule_cases); i++) {
        slg_optimizer *o;
        float w = 1, dw = 0;
        OK(ctx, slg_optimizer_create(ctx, rule_cases[i].kind, 1, NULL, &o));
        OK(ctx, step(o, &w, &dw, 1));
        assert_true(fabs((double)w - 1) < 2e-5); /* AdamW's decay */
        OK(ctx, slg_optimizer_set_lr(o, 0));
        w = 1, dw = 2;
        OK(ctx, step(o, &w, &dw, 1));
        assert_true(w == 1);
        OK(ctx, slg_optimizer_set_lr(o, 1e-3));
        OK(ctx, slg_optimizer_set_grad_scale(o, -1));
        OK(ctx, slg_optimizer_reset(o));
        OK(ctx, step(o, &w, &dw, 1));
        assert_true(w > 1);
        slg_optimizer_free(o);
    }
    slg_ctx_free(ctx);
}

/* Gradients of 1e-20, and an eps of 1e-30: Adam does not stand still. */
static void test_tiny_eps(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        slg_adamw_opts opts;
        slg_optimizer *o;
        float w = 0, dw = 1e-15f;
        slg_adamw_opts_init(&opts, sizeof opts);
        opts.eps = 1e-30;
        OK(ctx, slg_optimizer_create(ctx, SLG_ADAMW, 1, &opts, &o));
        for (int t = 0; t < 10; t++) OK(ctx, step(o, &w, &dw, 1));
        assert_true(fabs((double)w + 0.01) < 1e-5);
        slg_optimizer_free(o);
    }
}

/* ---- Exponentiated gradient -------------------------------------------------------------- */

/* Signs stay, zeros stay, whatever comes; past the cap and below the floor nothing goes. */
static void test_signs(void **state)
{
    (void)state;
    enum { N = 67 };
    rule = rule_named("egd");
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        slg_optimizer *o = create(ctx, N, variant);
        const slg_egd_opts opts = rule_options(variant)->egd;
        float *w = random_floats(N), first[N];
        w[3] = 0.0f, w[4] = -0.0f, w[5] = 1e-30f, w[6] = -1e30f;
        memcpy(first, w, sizeof first);
        for (int t = 0; t < 20; t++) {
            float *dw = random_floats(N);
            for (int i = 0; i < N; i++) dw[i] *= powf(10.0f, (float)(i % 9));
            OK(ctx, step(o, w, dw, N));
            free(dw);
            for (int i = 0; i < N; i++) {
                if (!isfinite(w[i])) w[i] = copysignf(1, first[i]); /* has overflowed */
                assert_int_equal(signbit(w[i]), signbit(first[i]));
                if (first[i] == 0) assert_true(w[i] == 0);
                if (first[i] != 0 && w[i] != 0)
                    assert_true(fabs((double)w[i]) >= opts.floor * (1 - 1e-6));
                assert_true(fabs((double)w[i]) <= opts.cap * (1 + 1e-6));
            }
        }
        free(w);
        slg_optimizer_free(o);
    }
}

/* Positive weights, normalised after each step: the entropic learner with a constant step. */
static void test_multiplicative_weights(void **state)
{
    (void)state;
    enum { N = 30 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_omd_opts opts;
    slg_learner *l;
    slg_optimizer *o;
    slg_omd_opts_init(&opts, sizeof opts);
    opts.domain = SLG_DOMAIN_SIMPLEX_ENTROPY, opts.mode = SLG_OMD_CONSTANT, opts.eta = 0.2;
    opts.hint = SLG_HINT_ZERO;
    OK(ctx, slg_learner_create(ctx, SLG_OMD, N, &opts, &l));
    slg_egd_opts e;
    slg_egd_opts_init(&e, sizeof e);
    e.lr = 0.2;
    OK(ctx, slg_optimizer_create(ctx, SLG_EGD, N, &e, &o));
    float w[N], x[N];
    for (int i = 0; i < N; i++) w[i] = 1.0f / N;
    slg_tensor xt = slg_tensor_1d(x, SLG_F32, N);
    for (int t = 0; t < 50; t++) {
        float *dw = random_floats(N);
        slg_tensor g = slg_tensor_1d(dw, SLG_F32, N);
        OK(ctx, slg_learner_decide(l, NULL, &xt));
        for (int i = 0; i < N; i++) assert_true(fabs((double)(x[i] - w[i])) <= 3e-6);
        OK(ctx, slg_learner_observe(l, NULL, &g));
        OK(ctx, step(o, w, dw, N));
        double sum = 0;
        for (int i = 0; i < N; i++) sum += (double)w[i];
        for (int i = 0; i < N; i++) w[i] = (float)((double)w[i] / sum);
        free(dw);
    }
    slg_learner_free(l);
    slg_optimizer_free(o);
    slg_ctx_free(ctx);
}

/* ---- bf16 -------------------------------------------------------------------------------- */

static slg_optimizer *create_half(slg_ctx *ctx, int64_t n, const any_opts *opts, uint64_t with)
{
    slg_optimizer_setup setup;
    slg_optimizer *o;
    slg_optimizer_setup_init(&setup, sizeof setup);
    setup.state_dtype = SLG_BF16, setup.seed = with;
    OK(ctx, slg_optimizer_create_with(ctx, rule->kind, n, opts, &setup, &o));
    return o;
}

/* Every rule: half the bytes; the same bits on any number of threads and after an import; near
   the steps of float32 state, closer on average than one weight by itself. */
static void test_half(void **state)
{
    (void)state;
    enum { N = 70001, STEPS = 30 };
    for (int64_t r = 0; r < COUNT(rule_cases); r++) FOR_EACH_ISA(ctx, 1)
        {
            rule = &rule_cases[r];
            slg_ctx *three = context(isa_, 3);
            const any_opts opts = *rule_options(0);
            slg_optimizer *o = create_half(ctx, N, &opts, 7),
                          *p = create_half(three, N, &opts, 7),
                          *q = create_half(ctx, N, &opts, 7), *full = create(ctx, N, 0);
            float *start = random_floats(N), *w[4];
            for (int j = 0; j < 4; j++) {
                w[j] = malloc(N * sizeof **w);
                memcpy(w[j], start, N * sizeof **w);
            }
            for (int t = 0; t < STEPS; t++) {
                float *dw = random_floats(N);
                slg_optimizer *all[] = { o, p, q, full };
                for (int j = 0; j < 4; j++) {
                    OK(ctx, slg_optimizer_set_lr(all[j], rule->lr));
                    OK(ctx, step(all[j], w[j], dw, N));
                }
                if (t == 10) { /* q goes on from o's bytes */
                    int64_t bytes;
                    unsigned char *s = export_state(ctx, o, &bytes);
                    /* Second moments of a whole tensor stay float32. */
                    const int64_t each = 2 * rule_arrays(0) + (rule->step ? 0 : 2);
                    assert_true(bytes <= each * N + 64);
                    slg_optimizer_free(q);
                    q = create_half(ctx, N, &opts, 7);
                    OK(ctx, slg_optimizer_import(q, s, bytes));
                    assert_int_equal(slg_optimizer_import(full, s, bytes), SLG_ERR_STATE);
                    free(s);
                }
                free(dw);
            }
            assert_memory_equal(w[0], w[1], N * sizeof **w);
            assert_memory_equal(w[0], w[2], N * sizeof **w);
            double off = 0, moved = 0;
            for (int i = 0; i < N; i++) {
                off += fabs((double)(w[0][i] - w[3][i]));
                moved += fabs((double)(w[3][i] - start[i]));
            }
            assert_true(rule_arrays(0) == 0 || off > 0);
            if (!(off < 0.03 * moved)) fail_msg("%s: %g of %g", rule->name, off, moved);
            for (int j = 0; j < 4; j++) free(w[j]);
            free(start);
            slg_optimizer_free(o), slg_optimizer_free(p), slg_optimizer_free(q);
            slg_optimizer_free(full);
            slg_ctx_free(three);
        }
}

/* The second moment of a constant gradient reaches its square: rounded to nearest it would
   stand still at a third of it, since a step of 0.001 is less than half a unit of bf16. */
static void test_half_moves_on(void **state)
{
    (void)state;
    enum { N = 4096 };
    rule = rule_named("adamw");
    FOR_EACH_ISA(ctx, 1)
    {
        any_opts opts;
        slg_adamw_opts_init(&opts.adamw, sizeof opts.adamw);
        slg_optimizer *o = create_half(ctx, N, &opts, 1);
        static float w[N], dw[N];
        for (int i = 0; i < N; i++) w[i] = 0, dw[i] = 1;
        for (int t = 0; t < 5000; t++) OK(ctx, step(o, w, dw, N));
        int64_t bytes;
        unsigned char *s = export_state(ctx, o, &bytes);
        const unsigned char *second = s + bytes - N * 2;
        double mean = 0;
        for (int i = 0; i < N; i++) {
            uint32_t bits = (uint32_t)(second[2 * i] | second[2 * i + 1] << 8) << 16;
            float v;
            memcpy(&v, &bits, sizeof v);
            mean += (double)v / N;
        }
        const double want = 1 - pow(0.999, 5000);
        if (fabs(mean - want) > 2e-3) fail_msg("mean %g, should be %g", mean, want);
        free(s);
        slg_optimizer_free(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_learner),
                                        cmocka_unit_test(test_game),
                                        cmocka_unit_test(test_many_steps),
                                        cmocka_unit_test_prestate(
                                            test_small_things, (void *)(uintptr_t)rule_cases),
                                        cmocka_unit_test(test_tiny_eps),
                                        cmocka_unit_test(test_signs),
                                        cmocka_unit_test(test_multiplicative_weights),
                                        cmocka_unit_test(test_half),
                                        cmocka_unit_test(test_half_moves_on) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
