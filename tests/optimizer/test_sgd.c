/*
 * SGD: against its formula in double. Trajectories of torch.optim are in tests/golden.
 */
#include "optimizer_errors.h"
#include "optimizer_test.h"

static const int32_t rule_kind = SLG_SGD, rule_other_kind = SLG_ADAMW;

static slg_sgd_opts variants[RULE_VARIANTS];

static const void *rule_options(int variant)
{
    for (int i = 0; i < RULE_VARIANTS; i++) {
        slg_sgd_opts_init(&variants[i], sizeof variants[i]);
        variants[i].lr = 0.05;
    }
    variants[0].momentum = 0.9, variants[0].dampening = 0.25, variants[0].weight_decay = 0.1;
    variants[1].weight_decay = 0; /* plain */
    variants[2].momentum = 0.9;
    variants[3].momentum = 0.95, variants[3].nesterov = 1, variants[3].weight_decay = 0.1;
    variants[3].decoupled = 1;
    variants[4].weight_decay = 0.2;
    variants[5].momentum = 0.5, variants[5].dampening = 1, variants[5].decoupled = 1;
    variants[5].weight_decay = 0.3;
    return &variants[variant];
}

static int rule_arrays(int variant) { return variant == 1 || variant == 4 ? 0 : 1; }

/* Step t = 1, 2, ... of the header's formula. */
static void reference(const slg_sgd_opts *o, int t, double lr, double scale, double dw,
                      double *w, double *v)
{
    double g = scale * dw;
    if (o->decoupled)
        *w *= 1 - lr * o->weight_decay;
    else
        g += o->weight_decay * *w;
    *v = t == 1 ? g : o->momentum * *v + (1 - o->dampening) * g;
    *w -= o->nesterov ? lr * (g + o->momentum * *v) : lr * *v;
}

/* 200 steps; the error of a weight in units of its largest value on the way. */
static void test_formula(void **state)
{
    (void)state;
    enum { N = 100, STEPS = 200 };
    double worst = 0;
    FOR_EACH_ISA(ctx, 1)
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        const slg_sgd_opts *opts = rule_options(variant);
        slg_optimizer *o = create(ctx, N, variant);
        float *w = random_floats(N);
        double want[N], v[N] = { 0 }, top[N];
        for (int i = 0; i < N; i++) want[i] = (double)w[i], top[i] = fabs(want[i]);
        for (int t = 1; t <= STEPS; t++) {
            float *dw = random_floats(N);
            double lr = 0.05 / (1 + 0.02 * t), scale = t % 5 == 0 ? 0.25 : 1;
            OK(ctx, slg_optimizer_set_lr(o, lr));
            OK(ctx, slg_optimizer_set_grad_scale(o, scale));
            OK(ctx, step(o, w, dw, N));
            for (int i = 0; i < N; i++) {
                reference(opts, t, lr, scale, (double)dw[i], &want[i], &v[i]);
                top[i] = fmax(top[i], fabs(want[i]));
                double e = fabs((double)w[i] - want[i]) / top[i];
                if (!(e <= 3e-6))
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
    print_message("SGD, 200 steps: error %.2g of 3e-06\n", worst);
}

static void test_defaults(void **state)
{
    (void)state;
    slg_sgd_opts o;
    memset(&o, 0x55, sizeof o);
    slg_sgd_opts_init(&o, sizeof o);
    assert_int_equal(o.size, sizeof o);
    assert_true(o.nesterov == 0 && o.decoupled == 0 && o.reserved == 0 && o.lr == 1e-3);
    assert_true(o.momentum == 0 && o.dampening == 0 && o.weight_decay == 0);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_optimizer *p;
    float w = 1, dw = 2;
    OK(ctx, slg_optimizer_create(ctx, SLG_SGD, 1, NULL, &p));
    OK(ctx, step(p, &w, &dw, 1));
    assert_true(fabs((double)w - 0.998) < 1e-7);
    OK(ctx, slg_optimizer_set_lr(p, 0)); /* nothing moves */
    w = 1;
    OK(ctx, step(p, &w, &dw, 1));
    assert_true(w == 1);
    OK(ctx, slg_optimizer_set_lr(p, 1));
    OK(ctx, slg_optimizer_set_grad_scale(p, -0.5)); /* uphill */
    OK(ctx, step(p, &w, &dw, 1));
    assert_true(w == 2);
    slg_optimizer_free(p);
    slg_ctx_free(ctx);
}

static void test_option_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, slg_sgd_opts, slg_sgd_opts_init, status, part, change)
    const double bad[] = { -1, NAN, INFINITY, -INFINITY, -1e-300 };
    for (int i = 0; i < 5; i++) {
        REFUSED(SLG_ERR_RANGE, "lr", opts.lr = bad[i]);
        REFUSED(SLG_ERR_RANGE, "momentum", opts.momentum = bad[i]);
        REFUSED(SLG_ERR_RANGE, "dampening", opts.dampening = bad[i]);
        REFUSED(SLG_ERR_RANGE, "weight_decay", opts.weight_decay = bad[i]);
    }
    REFUSED(SLG_ERR_RANGE, "momentum is 1", opts.momentum = 1);
    REFUSED(SLG_ERR_RANGE, "dampening is 1.5", opts.dampening = 1.5);
    REFUSED(SLG_ERR_RANGE, "nesterov", opts.nesterov = 1);
    REFUSED(SLG_ERR_RANGE, "nesterov", opts.nesterov = 1; opts.momentum = 0.9;
            opts.dampening = 0.1);
    REFUSED(SLG_ERR_RANGE, "nesterov", opts.nesterov = 2; opts.momentum = 0.9);
    REFUSED(SLG_ERR_RANGE, "nesterov", opts.nesterov = -1; opts.momentum = 0.9);
    REFUSED(SLG_ERR_RANGE, "decoupled", opts.decoupled = 2);
    REFUSED(SLG_ERR_OPTIONS, "reserved", opts.reserved = 1);
    REFUSED(SLG_ERR_OPTIONS, "opts", opts.size = 3);
#undef REFUSED
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_formula),
                                        cmocka_unit_test(test_defaults),
                                        cmocka_unit_test(test_option_errors), COMMON_TESTS,
                                        ERROR_TESTS };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
