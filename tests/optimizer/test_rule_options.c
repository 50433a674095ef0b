/*
 * Options of the rules: defaults, and what is refused.
 */
#include "optimizer_test.h"

/* Options whose field is `bad` must be refused; *o is NULL then. */
#define REFUSED_OPTIONS(ctx, kind, type, init, status, part, change)                           \
    do {                                                                                       \
        type opts;                                                                             \
        slg_optimizer *o_ = (slg_optimizer *)(uintptr_t)1;                                     \
        init(&opts, sizeof opts);                                                              \
        change;                                                                                \
        expect_error(ctx, __LINE__, slg_optimizer_create(ctx, kind, 4, &opts, &o_), status,    \
                     "slg_optimizer_create: ", part);                                          \
        assert_null(o_);                                                                       \
    } while (0)

/* Not in [0, most]. */
static const double bad[] = { -1, NAN, INFINITY, -INFINITY, -1e-300 };

#define EACH_BAD(field)                                                                        \
    for (int i = 0; i < 5; i++) REFUSED(SLG_ERR_RANGE, #field, opts.field = bad[i])
#define BAD_CHOICE(field)                                                                      \
    REFUSED(SLG_ERR_RANGE, #field, opts.field = 2);                                            \
    REFUSED(SLG_ERR_RANGE, #field, opts.field = -1)
#define RATES_AND_SIZE                                                                         \
    EACH_BAD(lr);                                                                              \
    EACH_BAD(weight_decay);                                                                    \
    REFUSED(SLG_ERR_RANGE, "lr", opts.lr = 1e18);                                              \
    REFUSED(SLG_ERR_OPTIONS, "opts", opts.size = 3)

static void test_sgd(void **state)
{
    slg_ctx *ctx = *state;
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, SLG_SGD, slg_sgd_opts, slg_sgd_opts_init, status, part, change)
    RATES_AND_SIZE;
    EACH_BAD(momentum);
    EACH_BAD(dampening);
    BAD_CHOICE(decoupled);
    REFUSED(SLG_ERR_RANGE, "momentum is 1", opts.momentum = 1);
    REFUSED(SLG_ERR_RANGE, "dampening is 1.5", opts.dampening = 1.5);
    REFUSED(SLG_ERR_RANGE, "nesterov", opts.nesterov = 1);
    REFUSED(SLG_ERR_RANGE, "nesterov", opts.nesterov = 1; opts.momentum = 0.9;
            opts.dampening = 0.1);
    REFUSED(SLG_ERR_RANGE, "nesterov", opts.nesterov = 2; opts.momentum = 0.9);
    REFUSED(SLG_ERR_OPTIONS, "reserved", opts.reserved = 1);
#undef REFUSED
    slg_sgd_opts o;
    slg_sgd_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && !o.nesterov && !o.decoupled && o.lr == 1e-3);
    assert_true(o.momentum == 0 && o.dampening == 0 && o.weight_decay == 0);
}

static void test_adam(void **state)
{
    slg_ctx *ctx = *state;
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, SLG_ADAMW, slg_adamw_opts, slg_adamw_opts_init, status, part, change)
    RATES_AND_SIZE;
    EACH_BAD(beta1);
    EACH_BAD(beta2);
    EACH_BAD(eps);
    BAD_CHOICE(decoupled);
    BAD_CHOICE(amsgrad);
    REFUSED(SLG_ERR_RANGE, "beta1 is 1", opts.beta1 = 1);
    REFUSED(SLG_ERR_RANGE, "beta2 is 1", opts.beta2 = 1);
    REFUSED(SLG_ERR_RANGE, "eps is 0", opts.eps = 0);
    REFUSED(SLG_ERR_OPTIONS, "reserved", opts.reserved = 1);
#undef REFUSED
    slg_adamw_opts o;
    memset(&o, 0x55, sizeof o);
    slg_adamw_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && o.decoupled == 1 && o.amsgrad == 0 && o.lr == 1e-3);
    assert_true(o.beta1 == 0.9 && o.beta2 == 0.999 && o.eps == 1e-8 && o.weight_decay == 0.01);
}

static void test_nadam(void **state)
{
    slg_ctx *ctx = *state;
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, SLG_NADAM, slg_nadam_opts, slg_nadam_opts_init, status, part, change)
    RATES_AND_SIZE;
    EACH_BAD(beta1);
    EACH_BAD(beta2);
    EACH_BAD(eps);
    EACH_BAD(momentum_decay);
    BAD_CHOICE(decoupled);
    REFUSED(SLG_ERR_RANGE, "beta1 is 1", opts.beta1 = 1);
#undef REFUSED
    slg_nadam_opts o;
    slg_nadam_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && o.decoupled == 0 && o.lr == 2e-3 && o.beta1 == 0.9);
    assert_true(o.beta2 == 0.999 && o.eps == 1e-8 && o.momentum_decay == 4e-3);
}

static void test_rmsprop(void **state)
{
    slg_ctx *ctx = *state;
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, SLG_RMSPROP, slg_rmsprop_opts, slg_rmsprop_opts_init, status, part,   \
                    change)
    RATES_AND_SIZE;
    EACH_BAD(alpha);
    EACH_BAD(eps);
    EACH_BAD(momentum);
    BAD_CHOICE(centered);
    BAD_CHOICE(decoupled);
    REFUSED(SLG_ERR_RANGE, "alpha is 1", opts.alpha = 1);
    REFUSED(SLG_ERR_OPTIONS, "reserved", opts.reserved = 1);
#undef REFUSED
    slg_rmsprop_opts o;
    slg_rmsprop_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && o.centered == 0 && o.lr == 1e-2 && o.alpha == 0.99);
    assert_true(o.eps == 1e-8 && o.momentum == 0 && o.weight_decay == 0);
}

static void test_lion(void **state)
{
    slg_ctx *ctx = *state;
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, SLG_LION, slg_lion_opts, slg_lion_opts_init, status, part, change)
    RATES_AND_SIZE;
    EACH_BAD(beta1);
    EACH_BAD(beta2);
    BAD_CHOICE(decoupled);
#undef REFUSED
    slg_lion_opts o;
    slg_lion_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && o.decoupled == 1 && o.lr == 1e-4 && o.beta1 == 0.9);
    assert_true(o.beta2 == 0.99 && o.weight_decay == 0);
}

static void test_egd(void **state)
{
    slg_ctx *ctx = *state;
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, SLG_EGD, slg_egd_opts, slg_egd_opts_init, status, part, change)
    RATES_AND_SIZE;
    EACH_BAD(momentum);
    EACH_BAD(floor);
    REFUSED(SLG_ERR_RANGE, "cap", opts.cap = NAN);
    REFUSED(SLG_ERR_RANGE, "cap", opts.cap = 0);
    REFUSED(SLG_ERR_RANGE, "cap is 1", opts.cap = 1; opts.floor = 2);
    REFUSED(SLG_ERR_OPTIONS, "reserved", opts.reserved = 1);
#undef REFUSED
    slg_egd_opts o;
    slg_egd_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && o.lr == 1e-3 && o.momentum == 0 && o.floor == 0);
    assert_true(isinf(o.cap) && o.weight_decay == 0);
}

static void test_optimistic(void **state)
{
    slg_ctx *ctx = *state;
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, SLG_OPTIMISTIC, slg_optimistic_opts, slg_optimistic_opts_init,        \
                    status, part, change)
    RATES_AND_SIZE;
    EACH_BAD(optimism);
    BAD_CHOICE(decoupled);
#undef REFUSED
    slg_optimistic_opts o;
    slg_optimistic_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && o.decoupled == 0 && o.lr == 1e-3 && o.optimism == 1);
    assert_true(o.weight_decay == 0);
}

static void test_adafactor(void **state)
{
    slg_ctx *ctx = *state;
#define REFUSED(status, part, change)                                                          \
    REFUSED_OPTIONS(ctx, SLG_ADAFACTOR, slg_adafactor_opts, slg_adafactor_opts_init, status,   \
                    part, change)
    RATES_AND_SIZE;
    EACH_BAD(beta1);
    EACH_BAD(decay_rate);
    EACH_BAD(eps1);
    EACH_BAD(eps2);
    BAD_CHOICE(relative_step);
    BAD_CHOICE(scale_parameter);
    REFUSED(SLG_ERR_RANGE, "beta1 is 1", opts.beta1 = 1);
    REFUSED(SLG_ERR_RANGE, "decay_rate is 1.5", opts.decay_rate = 1.5);
    REFUSED(SLG_ERR_RANGE, "eps1 is 0", opts.eps1 = 0);
    REFUSED(SLG_ERR_RANGE, "clip_threshold is 0", opts.clip_threshold = 0);
    REFUSED(SLG_ERR_RANGE, "clip_threshold", opts.clip_threshold = NAN);
    REFUSED(SLG_ERR_RANGE, "clip_threshold is -1", opts.clip_threshold = -1);
    REFUSED(SLG_ERR_OPTIONS, "reserved", opts.reserved = 1);
#undef REFUSED
    slg_adafactor_opts o;
    slg_adafactor_opts_init(&o, sizeof o);
    assert_true(o.size == sizeof o && o.relative_step == 1 && o.scale_parameter == 1);
    assert_true(o.lr == 1e-2 && o.beta1 == 0 && o.decay_rate == 0.8 && o.eps1 == 1e-30);
    assert_true(o.eps2 == 1e-3 && o.clip_threshold == 1 && o.weight_decay == 0);
}

static void test_setup(void **state)
{
    slg_ctx *ctx = *state;
    slg_optimizer_setup s;
    slg_optimizer *o;
    slg_optimizer_setup_init(&s, sizeof s);
    assert_true(s.size == sizeof s && s.state_dtype == SLG_F32 && s.seed == 0);
    const int32_t types[] = { SLG_F16, SLG_F64, SLG_I32, -1, 1000 };
    for (int i = 0; i < 5; i++) {
        s.state_dtype = types[i];
        expect_error(ctx, __LINE__, slg_optimizer_create_with(ctx, SLG_SGD, 4, NULL, &s, &o),
                     SLG_ERR_RANGE, "slg_optimizer_create: ", "state_dtype");
        assert_null(o);
    }
    s.size = 5;
    expect_error(ctx, __LINE__, slg_optimizer_create_with(ctx, SLG_SGD, 4, NULL, &s, &o),
                 SLG_ERR_OPTIONS, "slg_optimizer_create: ", "setup");
}

static int make_context(void **state)
{
    *state = context(SLG_ISA_AUTO, 1);
    return *state == NULL;
}

static int free_context(void **state)
{
    slg_ctx_free(*state);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_context, free_context)

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(test_sgd),        TEST(test_adam),
                                        TEST(test_nadam),      TEST(test_rmsprop),
                                        TEST(test_lion),       TEST(test_egd),
                                        TEST(test_optimistic), TEST(test_adafactor),
                                        TEST(test_setup) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
