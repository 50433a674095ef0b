/*
 * AdamW: against its formula in double. Trajectories of torch.optim are in tests/golden.
 */
#include "optimizer_errors.h"
#include "optimizer_test.h"

static const int32_t rule_kind = SLG_ADAMW, rule_other_kind = SLG_SGD;

static slg_adamw_opts variants[RULE_VARIANTS];

static const void *rule_options(int variant)
{
    for (int i = 0; i < RULE_VARIANTS; i++) {
        slg_adamw_opts_init(&variants[i], sizeof variants[i]);
        variants[i].lr = 0.01;
    }
    variants[1].decoupled = 0, variants[1].weight_decay = 0.1;
    variants[2].weight_decay = 0;
    variants[3].beta1 = 0, variants[3].beta2 = 0, variants[3].eps = 0.1;
    variants[4].beta1 = 0.99, variants[4].beta2 = 0.9, variants[4].weight_decay = 0.5;
    variants[5].beta1 = 0.5, variants[5].eps = 1e-3, variants[5].decoupled = 0;
    return &variants[variant];
}

static int rule_arrays(int variant)
{
    (void)variant;
    return 2;
}

/* Step t = 1, 2, ... of the header's formula. */
static void reference(const slg_adamw_opts *o, int t, double lr, double scale, double dw,
                      double *w, double *m, double *v)
{
    double g = scale * dw;
    if (o->decoupled)
        *w *= 1 - lr * o->weight_decay;
    else
        g += o->weight_decay * *w;
    *m = o->beta1 * *m + (1 - o->beta1) * g;
    *v = o->beta2 * *v + (1 - o->beta2) * g * g;
    *w -= lr * (*m / (1 - pow(o->beta1, t))) / (sqrt(*v / (1 - pow(o->beta2, t))) + o->eps);
}

/* 200 steps, gradients from 1e-6 to 1e3; the error of a weight in units of its largest
   value. */
static void test_formula(void **state)
{
    (void)state;
    enum { N = 100, STEPS = 200 };
    double worst = 0;
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        const slg_adamw_opts *opts = rule_options(variant);
        slg_optimizer *o = create(ctx, N, variant);
        float *w = random_floats(N);
        double want[N], m[N] = { 0 }, v[N] = { 0 }, top[N];
        for (int i = 0; i < N; i++) want[i] = (double)w[i], top[i] = fmax(0.1, fabs(want[i]));
        for (int t = 1; t <= STEPS; t++) {
            float *dw = random_floats(N);
            double lr = 0.01 / (1 + 0.02 * t), scale = t % 5 == 0 ? 0.25 : 1;
            for (int i = 0; i < N; i++) dw[i] *= powf(10.0f, (float)(i % 10 - 6));
            OK(ctx, slg_optimizer_set_lr(o, lr));
            OK(ctx, slg_optimizer_set_grad_scale(o, scale));
            OK(ctx, step(o, w, dw, N));
            for (int i = 0; i < N; i++) {
                reference(opts, t, lr, scale, (double)dw[i], &want[i], &m[i], &v[i]);
                top[i] = fmax(top[i], fabs(want[i]));
                double e = fabs((double)w[i] - want[i]) / top[i];
                if (!(e <= 5e-6))
                    fail_msg("variant %d, step %d: w[%d] is %.9g, should be %.9g", variant, t,
                             i, (double)w[i], want[i]);
                worst = fmax(worst, e);
            }
            free(dw);
        }
        assert_int_equal(slg_optimizer_steps(o), STEPS);
        free(w);
        slg_optimizer_free(o);
    }
    print_message("AdamW, 200 steps: error %.2g of 5e-06\n", worst);
}

/* Bias corrections far on: after a million steps they are 1, and not NaN. */
static void test_many_steps(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        slg_optimizer *o = create(ctx, 1, 2);
        float w = 0, dw = 1;
        for (int t = 0; t < 100000; t++) OK(ctx, step(o, &w, &dw, 1));
        assert_int_equal(slg_optimizer_steps(o), 100000);
        float last = w = 0;
        OK(ctx, step(o, &w, &dw, 1)); /* m and v are at 1: a step of lr */
        assert_true(fabs((double)(w - last) + 0.01) < 1e-6);
        slg_optimizer_free(o);
    }
}

static void test_defaults(void **state)
{
    (void)state;
    slg_adamw_opts o;
    memset(&o, 0x55, sizeof o);
    slg_adamw_opts_init(&o, sizeof o);
    assert_int_equal(o.size, sizeof o);
    assert_true(o.decoupled == 1 && o.lr == 1e-3 && o.beta1 == 0.9 && o.beta2 == 0.999);
    assert_true(o.eps == 1e-8 && o.weight_decay == 0.01);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_optimizer *p;
    float w = 1, dw = 2;
    OK(ctx, slg_optimizer_create(ctx, SLG_ADAMW, 1, NULL, &p));
    OK(ctx, step(p, &w, &dw, 1));
    assert_true(fabs((double)w - (1 - 1e-5 - 1e-3)) < 1e-7);
    dw = 0; /* no gradient yet: no 0 / 0 */
    OK(ctx, slg_optimizer_reset(p));
    w = 1;
    OK(ctx, step(p, &w, &dw, 1));
    assert_true(fabs((double)w - (1 - 1e-5)) < 1e-7);
    slg_optimizer_free(p);
    slg_ctx_free(ctx);
}

static void test_option_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, slg_adamw_opts, slg_adamw_opts_init, status, part, change)
    const double bad[] = { -1, NAN, INFINITY, -INFINITY, -1e-300 };
    for (int i = 0; i < 5; i++) {
        REFUSED(SLG_ERR_RANGE, "lr", opts.lr = bad[i]);
        REFUSED(SLG_ERR_RANGE, "beta1", opts.beta1 = bad[i]);
        REFUSED(SLG_ERR_RANGE, "beta2", opts.beta2 = bad[i]);
        REFUSED(SLG_ERR_RANGE, "eps", opts.eps = bad[i]);
        REFUSED(SLG_ERR_RANGE, "weight_decay", opts.weight_decay = bad[i]);
    }
    REFUSED(SLG_ERR_RANGE, "beta1 is 1", opts.beta1 = 1);
    REFUSED(SLG_ERR_RANGE, "beta2 is 1", opts.beta2 = 1);
    REFUSED(SLG_ERR_RANGE, "eps is 0", opts.eps = 0);
    REFUSED(SLG_ERR_RANGE, "decoupled", opts.decoupled = 2);
    REFUSED(SLG_ERR_RANGE, "decoupled", opts.decoupled = -1);
    REFUSED(SLG_ERR_OPTIONS, "opts", opts.size = 3);
#undef REFUSED
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_formula),
                                        cmocka_unit_test(test_many_steps),
                                        cmocka_unit_test(test_defaults),
                                        cmocka_unit_test(test_option_errors),
                                        COMMON_TESTS,
                                        ERROR_TESTS };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
