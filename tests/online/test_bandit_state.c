/* slg_bandit: state as bytes, errors, memory. */
#include "bandit_test.h"

/* ---- State ------------------------------------------------------------------------------ */

static unsigned char *exported(slg_ctx *ctx, slg_bandit *b, int64_t *bytes)
{
    int64_t written = -1;
    OK(ctx, slg_bandit_export(b, NULL, 0, bytes));
    unsigned char *s = malloc((size_t)*bytes);
    assert_non_null(s);
    OK(ctx, slg_bandit_export(b, s, *bytes, &written));
    assert_int_equal(written, *bytes);
    return s;
}

static void rounds(slg_ctx *ctx, slg_bandit *b, uint64_t start, int n, double *trace)
{
    const uint64_t kept = seed;
    seed = start;
    for (int t = 0; t < n; t++) {
        float x[K * D];
        int64_t arm;
        randoms(K * D, 1, x);
        slg_tensor xt = slg_tensor_2d(x, SLG_F32, K, D);
        slg_tensor pt = slg_tensor_1d(trace + t * K, SLG_F64, K);
        OK(ctx, slg_bandit_choose(b, &xt, NULL, NULL, &arm, NULL, &pt));
        OK(ctx, slg_bandit_observe(b, &xt, arm, (double)(arm % 3) * 0.4));
    }
    seed = kept;
}

static void test_state(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1), *wide = context(SLG_ISA_AUTO, 3);
    for (int v = 0; v < 8; v++) {
        slg_bandit_opts o = opts_of(v & 1, v >> 1 & 1), other = o;
        o.signs = other.signs = v >> 2 & 1 ? 2 : 0;
        other.seed = 1; /* the seed is of the state */
        slg_bandit *b = bandit(ctx, &o), *k = bandit(wide, &other);
        double first[10 * K], want[10 * K], got[10 * K];
        int64_t bytes, same;
        rounds(ctx, b, 5, 10, first);
        unsigned char *s = exported(ctx, b, &bytes);
        rounds(ctx, b, 6, 10, want);
        OK(wide, slg_bandit_import(k, s, bytes));
        assert_true(info(wide, k).rounds == 10 && info(wide, k).draws == 10);
        rounds(wide, k, 6, 10, got);
        assert_memory_equal(got, want, sizeof want);
        unsigned char *one = exported(ctx, b, &bytes), *two = exported(wide, k, &same);
        assert_true(bytes == same);
        assert_memory_equal(one, two, (size_t)bytes);
        /* Any bit that is wrong is noticed, and nothing changes. */
        for (int64_t i = 0; i < bytes; i += 3) {
            one[i] ^= 1;
            assert_int_equal(slg_bandit_import(k, one, bytes), SLG_ERR_STATE);
            one[i] ^= 1;
        }
        assert_int_equal(slg_bandit_import(k, one, bytes - 4), SLG_ERR_STATE);
        assert_int_equal(slg_bandit_import(k, one, 7), SLG_ERR_STATE);
        assert_int_equal(slg_bandit_import(k, NULL, bytes), SLG_ERR_NULL);
        assert_int_equal(slg_bandit_export(k, one, bytes - 1, &same), SLG_ERR_RANGE);
        other = opts_of(!(v & 1), 0);
        slg_bandit *wrong = bandit(ctx, &other);
        assert_int_equal(slg_bandit_import(wrong, one, bytes), SLG_ERR_STATE);
        free(two);
        two = exported(wide, k, &same);
        assert_memory_equal(one, two, (size_t)bytes);
        OK(ctx, slg_bandit_reset(b));
        rounds(ctx, b, 5, 10, got);
        assert_memory_equal(got, first, sizeof first);
        free(s), free(one), free(two);
        slg_bandit_free(b), slg_bandit_free(k), slg_bandit_free(wrong);
    }
    slg_ctx_free(ctx), slg_ctx_free(wide);
}

/* ---- Errors ----------------------------------------------------------------------------- */

/* Never called. */
static slg_status no_predict(void *user, const float *theta, const slg_tensor *x, double *f)
{
    (void)user, (void)theta, (void)x, (void)f;
    return SLG_ERR_UNSUPPORTED;
}

static slg_status no_gradient(void *user, const float *theta, const slg_tensor *x, int64_t arm,
                              double *f, float *grad)
{
    (void)user, (void)theta, (void)x, (void)arm, (void)f, (void)grad;
    return SLG_ERR_UNSUPPORTED;
}

static void test_create(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float start[MOST];
    double read[MOST];
    randoms(MOST, 1, start);
#define REFUSED(status, text, ...)                                                             \
    do {                                                                                       \
        slg_bandit_opts o = opts_of(SLG_BANDIT_TWO_LAYER, SLG_GAP_FIRST_ORDER);                \
        slg_bandit *b_ = (slg_bandit *)(uintptr_t)1;                                           \
        slg_tensor t0 = slg_tensor_1d(start, SLG_F32, MOST), *t = NULL;                        \
        int64_t arms = K, dim = D;                                                             \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_bandit_create(ctx, arms, dim, t, &o, &b_), status);               \
        if (!strstr(slg_ctx_message(ctx), text)) fail_msg("%s", slg_ctx_message(ctx));         \
        assert_null(b_);                                                                       \
        (void)t0;                                                                              \
    } while (0)
    const double bad[] = { -1, NAN, INFINITY, 0, 1e-30 };
    for (int i = 0; i < 5; i++) {
        if (i < 1 || i == 2) REFUSED(SLG_ERR_RANGE, "gamma", o.gamma = bad[i]);
        if (i < 3) REFUSED(SLG_ERR_RANGE, "horizon", o.horizon = bad[i]);
        REFUSED(SLG_ERR_RANGE, "regret", o.regret = bad[i]);
        if (i < 4) REFUSED(SLG_ERR_RANGE, "delta", o.delta = bad[i]);
        if (i < 3) REFUSED(SLG_ERR_RANGE, "c_p", o.c_p = bad[i]);
        if (i != 1) REFUSED(SLG_ERR_RANGE, "step", o.step = bad[i]);
        REFUSED(SLG_ERR_RANGE, "mu", o.mu = bad[i]);
        if (i < 2) REFUSED(SLG_ERR_RANGE, "radius", o.radius = bad[i]);
        if (i < 3) REFUSED(SLG_ERR_RANGE, "variance", o.variance = bad[i]);
    }
    REFUSED(SLG_ERR_RANGE, "rule", o.rule = 2);
    REFUSED(SLG_ERR_RANGE, "model", o.model = 3);
    REFUSED(SLG_ERR_RANGE, "width", o.width = 0);
    REFUSED(SLG_ERR_RANGE, "width", o.width = -3);
    REFUSED(SLG_ERR_RANGE, "activation", o.activation = 4);
    REFUSED(SLG_ERR_RANGE, "shared", o.shared = 2);
    REFUSED(SLG_ERR_RANGE, "signs", o.signs = -1);
    REFUSED(SLG_ERR_RANGE, "schedule", o.schedule = 2);
    REFUSED(SLG_ERR_RANGE, "arms", arms = 0);
    REFUSED(SLG_ERR_RANGE, "dim", dim = 0);
    REFUSED(SLG_ERR_RANGE, "weights", arms = 1 << 20; dim = 1 << 20);
    REFUSED(SLG_ERR_OPTIONS, "opts", o.size = 3);
    REFUSED(SLG_ERR_SHAPE, "theta0", t = &t0; t0.shape[0] = MOST - 1);
    REFUSED(SLG_ERR_SHAPE, "theta0", t = &t0; t0 = slg_tensor_2d(start, SLG_F32, K, D * WIDTH));
    REFUSED(SLG_ERR_DTYPE, "theta0", t = &t0; t0.dtype = SLG_I32);
    REFUSED(SLG_ERR_RANGE, "theta0[3]", t = &t0; start[3] = NAN);
    start[3] = 1;
    REFUSED(SLG_ERR_NULL, "opts.predict", o.model = SLG_BANDIT_CALLBACKS; t = &t0);
    REFUSED(SLG_ERR_NULL, "theta0", o.model = SLG_BANDIT_CALLBACKS; o.predict = no_predict;
            o.gradient = no_gradient);
    REFUSED(SLG_ERR_RANGE, "step must", o.model = SLG_BANDIT_CALLBACKS; o.step = NAN; t = &t0);
#undef REFUSED
    /* First weights in their own shape, and flat. */
    for (int form = 0; form < 2; form++) {
        slg_bandit_opts o = opts_of(SLG_BANDIT_TWO_LAYER, SLG_GAP_FIRST_ORDER);
        slg_tensor t = slg_tensor_1d(start, SLG_F32, MOST);
        slg_bandit *b;
        if (form) {
            t.ndim = 3, t.shape[0] = K, t.shape[1] = D, t.shape[2] = WIDTH;
            t.stride[0] = D * WIDTH, t.stride[1] = WIDTH, t.stride[2] = 1;
        }
        OK(ctx, slg_bandit_create(ctx, K, D, &t, &o, &b));
        read_part(ctx, b, SLG_BANDIT_THETA, MOST, read);
        for (int i = 0; i < MOST; i++) assert_true(read[i] == (double)start[i]);
        slg_bandit_free(b);
    }
    /* The defaults do, and their steps are those of the header. */
    for (int v = 0; v < 4; v++) {
        slg_bandit_opts o;
        slg_bandit *b;
        slg_bandit_opts_init(&o, sizeof o);
        o.rule = v & 1, o.model = v >> 1;
        OK(ctx, slg_bandit_create(ctx, K, D, NULL, v == 3 ? NULL : &o, &b));
        const double steps[] = { 1, 5, 2, 10 };
        assert_true(info(ctx, b).step == steps[v] && info(ctx, b).gamma == 100);
        slg_bandit_free(b);
    }
    slg_bandit *b;
    assert_int_equal(slg_bandit_create(NULL, K, D, NULL, NULL, &b), SLG_ERR_NULL);
    assert_int_equal(slg_bandit_create(ctx, K, D, NULL, NULL, NULL), SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

static void test_calls(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int v = 0; v < 2; v++) {
        slg_bandit_opts o = opts_of(SLG_BANDIT_TWO_LAYER, SLG_GAP_FIRST_ORDER);
        o.shared = v;
        slg_bandit *b = bandit(ctx, &o);
        float x[K * D], kept[K * D];
        int32_t mask[K] = { 1, 1, 0, 1 };
        double cost[K], p[K], u = 0.5;
        int64_t bytes, arm = -9;
        unsigned char *before = exported(ctx, b, &bytes);
        for (int i = 0; i < K; i++) cost[i] = p[i] = -9;
        randoms(K * D, 1, x), memcpy(kept, x, sizeof x);
#define CHOOSE(status, text, ...)                                                              \
    do {                                                                                       \
        slg_tensor xt = slg_tensor_2d(x, SLG_F32, K, D), *xp = &xt;                            \
        slg_tensor mt = slg_tensor_1d(mask, SLG_I32, K);                                       \
        slg_tensor ct = slg_tensor_1d(cost, SLG_F64, K), pt = slg_tensor_1d(p, SLG_F64, K);    \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_bandit_choose(b, xp, &mt, &u, &arm, &ct, &pt), status);           \
        if (!strstr(slg_ctx_message(ctx), text)) fail_msg("%s", slg_ctx_message(ctx));         \
    } while (0)
#define OBSERVE(status, text, arm, y, ...)                                                     \
    do {                                                                                       \
        slg_tensor xt = slg_tensor_2d(x, SLG_F32, K, D), *xp = &xt;                            \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_bandit_observe(b, xp, arm, y), status);                           \
        if (!strstr(slg_ctx_message(ctx), text)) fail_msg("%s", slg_ctx_message(ctx));         \
    } while (0)
        CHOOSE(SLG_ERR_NULL, "x", xp = NULL);
        CHOOSE(SLG_ERR_SHAPE, "x", xt.shape[1] = D - 1);
        CHOOSE(SLG_ERR_SHAPE, "x", xt.shape[0] = K - 1);
        CHOOSE(SLG_ERR_DTYPE, "x", xt.dtype = SLG_F64);
        if (v) CHOOSE(SLG_ERR_SHAPE, "need a context each", xt = slg_tensor_1d(x, SLG_F32, D));
        CHOOSE(SLG_ERR_SHAPE, "mask", mt.shape[0] = K - 1);
        CHOOSE(SLG_ERR_DTYPE, "mask", mt.dtype = SLG_BF16);
        CHOOSE(SLG_ERR_SHAPE, "cost", ct.shape[0] = K - 1);
        CHOOSE(SLG_ERR_SHAPE, "p", pt.shape[0] = K - 1);
        CHOOSE(SLG_ERR_DTYPE, "p", pt.dtype = SLG_I32);
        CHOOSE(SLG_ERR_STRIDE, "p", pt.stride[0] = 0);
        CHOOSE(SLG_ERR_STRIDE, "overlaps", pt.data = cost);
        CHOOSE(SLG_ERR_STRIDE, "overlaps", ct.data = x; ct.dtype = SLG_F32);
        const double numbers[] = { 1, -0.1, NAN };
        for (int i = 0; i < 3; i++) CHOOSE(SLG_ERR_RANGE, "u is", u = numbers[i]);
        u = 0.5;
        mask[0] = mask[1] = mask[3] = 0;
        CHOOSE(SLG_ERR_RANGE, "mask leaves no arm", (void)0);
        mask[0] = 1;
        x[2 * D + 1] = NAN;
        CHOOSE(SLG_ERR_RANGE, "x[7] is nan", (void)0);
        OBSERVE(SLG_ERR_RANGE, "x[7] is nan", 2, 0.5, (void)0);
        x[2 * D + 1] = kept[2 * D + 1];
        OBSERVE(SLG_ERR_RANGE, "arm is 4", K, 0.5, (void)0);
        OBSERVE(SLG_ERR_RANGE, "arm is -1", -1, 0.5, (void)0);
        OBSERVE(SLG_ERR_RANGE, "cost", 0, 1.5, (void)0);
        OBSERVE(SLG_ERR_RANGE, "cost", 0, NAN, (void)0);
        OBSERVE(SLG_ERR_NULL, "x", 0, 0.5, xp = NULL);
        OBSERVE(SLG_ERR_SHAPE, "x", 0, 0.5, xt.shape[1] = D - 1);
        double part[MOST];
        slg_tensor out = slg_tensor_1d(part, SLG_F64, WIDTH);
        assert_int_equal(slg_bandit_read(b, 9, &out), SLG_ERR_RANGE);
        assert_int_equal(slg_bandit_read(b, SLG_BANDIT_THETA, &out), SLG_ERR_SHAPE);
        assert_int_equal(slg_bandit_read(b, SLG_BANDIT_OUTPUT, NULL), SLG_ERR_NULL);
        OK(ctx, slg_bandit_read(b, SLG_BANDIT_OUTPUT, &out));
        for (int j = 0; j < WIDTH; j++) assert_true(fabs(fabs(part[j]) - sqrt(1.0 / 6)) < 1e-7);
        unsigned char *after = exported(ctx, b, &bytes);
        assert_memory_equal(before, after, (size_t)bytes);
        assert_memory_equal(kept, x, sizeof x);
        assert_int_equal(arm, -9);
        for (int i = 0; i < K; i++) assert_true(cost[i] == -9 && p[i] == -9);
        free(before), free(after);
        slg_bandit_free(b);
    }
    /* A step past float32. */
    slg_bandit_opts o = opts_of(SLG_BANDIT_LINEAR, SLG_GAP_SQUARE);
    o.step = 1e18;
    slg_bandit *b = bandit(ctx, &o);
    float x[K * D];
    for (int i = 0; i < K * D; i++) x[i] = 1e15f;
    slg_tensor xt = slg_tensor_2d(x, SLG_F32, K, D), out = slg_tensor_1d(x, SLG_F32, WIDTH);
    assert_int_equal(slg_bandit_observe(b, &xt, 1, 1e20), SLG_ERR_RANGE);
    assert_non_null(strstr(slg_ctx_message(ctx), "smaller"));
    assert_true(info(ctx, b).rounds == 0 && info(ctx, b).distance == 0);
    assert_int_equal(slg_bandit_read(b, SLG_BANDIT_OUTPUT, &out), SLG_ERR_RANGE);
    assert_int_equal(slg_bandit_info(b, NULL), SLG_ERR_NULL);
    slg_bandit_free(b);
    slg_bandit_free(NULL);
    assert_int_equal(slg_bandit_choose(NULL, &xt, NULL, NULL, NULL, NULL, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_bandit_observe(NULL, &xt, 0, 0), SLG_ERR_NULL);
    assert_int_equal(slg_bandit_reset(NULL), SLG_ERR_NULL);
    assert_int_equal(slg_bandit_export(NULL, NULL, 0, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_bandit_import(NULL, x, 1), SLG_ERR_NULL);
    assert_int_equal(slg_bandit_read(NULL, 1, &xt), SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

/* Each allocation fails once, and none is lost; later rounds allocate nothing. */
static void test_memory(void **state)
{
    (void)state;
    slg_ctx_opts opts;
    slg_ctx *ctx;
    slg_ctx_opts_init(&opts, sizeof opts);
    opts.alloc = limited_alloc, opts.free = counted_free, opts.num_threads = 1;
    left = 1000;
    assert_int_equal(slg_ctx_create(&opts, &ctx), SLG_OK);
    const int64_t blocks = live_blocks;
    slg_bandit_opts o = opts_of(SLG_BANDIT_TWO_LAYER, SLG_GAP_FIRST_ORDER);
    slg_bandit *b = NULL;
    int64_t allowed = 0;
    for (; !b; allowed++) {
        left = allowed;
        if (slg_bandit_create(ctx, K, D, NULL, &o, &b) == SLG_OK) break;
        assert_null(b);
        assert_int_equal(live_blocks, blocks);
    }
    assert_int_equal(allowed, 8);
    float x[K * D];
    int64_t arm = 0;
    randoms(K * D, 1, x);
    slg_tensor xt = slg_tensor_2d(x, SLG_F32, K, D);
    left = 1000;
    OK(ctx, slg_ctx_trim(ctx));
    left = 0;
    assert_int_equal(slg_bandit_choose(b, &xt, NULL, NULL, &arm, NULL, NULL), SLG_ERR_MEMORY);
    assert_int_equal(slg_bandit_observe(b, &xt, 1, 1), SLG_ERR_MEMORY);
    left = 1000;
    assert_true(info(ctx, b).rounds == 0 && info(ctx, b).draws == 0);
    left = 1000;
    for (int t = 0; t < 4; t++) {
        OK(ctx, slg_bandit_choose(b, &xt, NULL, NULL, &arm, NULL, NULL));
        OK(ctx, slg_bandit_observe(b, &xt, arm, 1));
        left = t < 1 ? 1000 : 0;
    }
    slg_bandit_free(b);
    slg_ctx_free(ctx);
    assert_int_equal(live_blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_state),
                                        cmocka_unit_test(test_create),
                                        cmocka_unit_test(test_calls),
                                        cmocka_unit_test(test_memory) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
