/*
 * The optimistic gradient: against its formula in double, and against the learner of online.h.
 */
#include "optimizer_errors.h"
#include "optimizer_test.h"

static const int32_t rule_kind = SLG_OPTIMISTIC, rule_other_kind = SLG_SGD;

static slg_optimistic_opts variants[RULE_VARIANTS];

static const void *rule_options(int variant)
{
    for (int i = 0; i < RULE_VARIANTS; i++) {
        slg_optimistic_opts_init(&variants[i], sizeof variants[i]);
        variants[i].lr = 0.05;
    }
    variants[1].weight_decay = 0.1;
    variants[2].weight_decay = 0.1, variants[2].decoupled = 1;
    variants[3].optimism = 0;
    variants[4].optimism = 0.5;
    variants[5].optimism = 3, variants[5].weight_decay = 0.3;
    return &variants[variant];
}

static int rule_arrays(int variant)
{
    (void)variant;
    return 1;
}

/* 200 steps; the error of a weight in units of its largest value on the way. */
static void test_formula(void **state)
{
    (void)state;
    enum { N = 100, STEPS = 200 };
    double worst = 0;
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        const slg_optimistic_opts *opts = rule_options(variant);
        slg_optimizer *o = create(ctx, N, variant);
        float *w = random_floats(N);
        double want[N], last[N] = { 0 }, top[N];
        for (int i = 0; i < N; i++) want[i] = (double)w[i], top[i] = fabs(want[i]);
        for (int t = 1; t <= STEPS; t++) {
            float *dw = random_floats(N);
            double lr = 0.05 / (1 + 0.02 * t), scale = t % 5 == 0 ? 0.25 : 1;
            OK(ctx, slg_optimizer_set_lr(o, lr));
            OK(ctx, slg_optimizer_set_grad_scale(o, scale));
            OK(ctx, step(o, w, dw, N));
            for (int i = 0; i < N; i++) {
                double g = scale * (double)dw[i], decay = opts->weight_decay;
                if (!opts->decoupled) g += decay * want[i];
                if (opts->decoupled) want[i] *= 1 - lr * decay;
                want[i] -= lr * (g + opts->optimism * (g - last[i]));
                last[i] = g;
                top[i] = fmax(top[i], fabs(want[i]));
                double e = fabs((double)w[i] - want[i]) / top[i];
                if (!(e <= 3e-6))
                    fail_msg("variant %d, step %d: w[%d] is %.9g, should be %.9g", variant, t,
                             i, (double)w[i], want[i]);
                worst = fmax(worst, e);
            }
            free(dw);
        }
        free(w);
        slg_optimizer_free(o);
    }
    print_message("optimistic, 200 steps: error %.2g of 3e-06\n", worst);
}

/* The same points as the learner's of a free domain and a constant step. */
static void test_learner(void **state)
{
    (void)state;
    enum { N = 40 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_omd_opts opts;
    slg_learner *l;
    slg_omd_opts_init(&opts, sizeof opts);
    opts.domain = SLG_DOMAIN_FREE, opts.mode = SLG_OMD_CONSTANT, opts.eta = 0.05;
    OK(ctx, slg_learner_create(ctx, SLG_OMD, N, &opts, &l));
    slg_optimizer *o = create(ctx, N, 0);
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

static void test_option_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, slg_optimistic_opts, slg_optimistic_opts_init, status, part, change)
    const double bad[] = { -1, NAN, INFINITY, -INFINITY, -1e-300 };
    for (int i = 0; i < 5; i++) {
        REFUSED(SLG_ERR_RANGE, "lr", opts.lr = bad[i]);
        REFUSED(SLG_ERR_RANGE, "optimism", opts.optimism = bad[i]);
        REFUSED(SLG_ERR_RANGE, "weight_decay", opts.weight_decay = bad[i]);
    }
    REFUSED(SLG_ERR_RANGE, "decoupled", opts.decoupled = 2);
    REFUSED(SLG_ERR_OPTIONS, "opts", opts.size = 3);
#undef REFUSED
    slg_optimistic_opts o;
    slg_optimistic_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && o.decoupled == 0 && o.lr == 1e-3 && o.optimism == 1 &&
                o.weight_decay == 0);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_formula),
                                        cmocka_unit_test(test_learner),
                                        cmocka_unit_test(test_game),
                                        cmocka_unit_test(test_option_errors),
                                        COMMON_TESTS,
                                        ERROR_TESTS };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
