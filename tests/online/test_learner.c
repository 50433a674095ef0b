/* The handle of online learners: state as bytes, types and strides, errors, memory. */
#include "online_test.h"

enum { D = 6, VARIANTS = 7 };

static slg_omd_opts omd[4];
static slg_hedge_opts hedge;
static slg_omd_ensemble_opts ensemble;
static slg_ftrl_opts ftrl;

static int32_t kind_at(int variant)
{
    static const int32_t others[] = { SLG_HEDGE, SLG_OMD_ENSEMBLE, SLG_FTRL };
    return variant < 4 ? SLG_OMD : others[variant - 4];
}

/* Each kind and mode. */
static slg_learner *make(slg_ctx *ctx, int variant)
{
    for (int32_t i = 0; i < 4; i++) omd[i] = omd_opts(i == 2 ? 1 : i + 1, i);
    omd[2].beta = 0.5, omd[0].domain = SLG_DOMAIN_SIMPLEX_ENTROPY;
    slg_hedge_opts_init(&hedge, sizeof hedge);
    slg_omd_ensemble_opts_init(&ensemble, sizeof ensemble);
    ensemble.movement = 0.5;
    slg_ftrl_opts_init(&ftrl, sizeof ftrl);
    const void *const others[] = { &hedge, &ensemble, &ftrl };
    return learner(ctx, kind_at(variant), D,
                   variant < 4 ? (const void *)&omd[variant] : others[variant - 4]);
}

/* Halfway into a learner of another context and ISA: the same bits. And from a reset. */
static void test_state(void **state)
{
    (void)state;
    slg_ctx *base = context(SLG_ISA_PORTABLE, 1);
    FOR_EACH_ISA(ctx, 3)
    for (int variant = 0; variant < VARIANTS; variant++) {
        slg_learner *l = make(base, variant), *k = make(ctx, variant),
                    *back = make(ctx, variant);
        float g[20][D];
        double x[20][D], y[D];
        for (int t = 0; t < 20; t++) {
            randoms(D, 1, g[t]);
            if (t == 11) {
                int64_t bytes;
                unsigned char *s = export_state(base, l, &bytes);
                OK(ctx, slg_learner_import(k, s, bytes));
                assert_int_equal(slg_learner_rounds(k), 11);
                free(s);
            }
            decide(base, l, D, NULL, x[t]);
            if (t >= 11) {
                decide(ctx, k, D, NULL, y);
                assert_memory_equal(x[t], y, sizeof y);
                observe(ctx, k, D, NULL, g[t]);
            }
            observe(base, l, D, NULL, g[t]);
            observe(ctx, back, D, NULL, g[t]);
        }
        OK(ctx, slg_learner_reset(back));
        assert_int_equal(slg_learner_rounds(back), 0);
        for (int t = 0; t < 20; t++) {
            decide(ctx, back, D, NULL, y);
            assert_memory_equal(x[t], y, sizeof y);
            observe(ctx, back, D, NULL, g[t]);
        }
        slg_learner_free(l), slg_learner_free(k), slg_learner_free(back);
    }
    slg_ctx_free(base);
}

static void test_damage(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int variant = 0; variant < VARIANTS; variant++) {
        slg_learner *l = make(ctx, variant), *k = make(ctx, variant);
        slg_learner *other = make(ctx, (variant + 1) % VARIANTS);
        float g[D];
        int64_t bytes, same, written;
        for (int t = 0; t < 4; t++) {
            randoms(D, 1, g);
            observe(ctx, l, D, NULL, g), observe(ctx, k, D, NULL, g);
        }
        observe(ctx, k, D, NULL, g);
        unsigned char *s = export_state(ctx, l, &bytes), *before = export_state(ctx, k, &same);
        for (int64_t i = 0; i < bytes; i++) {
            s[i] ^= 0x10;
            assert_int_equal(slg_learner_import(k, s, bytes), SLG_ERR_STATE);
            s[i] ^= 0x10;
        }
        for (int64_t i = 0; i < bytes; i += 7)
            assert_int_equal(slg_learner_import(k, s, i), SLG_ERR_STATE);
        assert_int_equal(slg_learner_import(k, s, -1), SLG_ERR_STATE);
        assert_int_equal(slg_learner_import(k, NULL, bytes), SLG_ERR_NULL);
        assert_int_equal(slg_learner_export(l, s, bytes - 1, &written), SLG_ERR_RANGE);
        assert_int_equal(written, bytes);
        if (kind_at(variant) != kind_at((variant + 1) % VARIANTS))
            assert_int_equal(slg_learner_import(other, s, bytes), SLG_ERR_STATE);
        unsigned char *after = export_state(ctx, k, &same);
        assert_memory_equal(before, after, (size_t)same);
        OK(ctx, slg_learner_import(k, s, bytes));
        free(s), free(before), free(after);
        slg_learner_free(l), slg_learner_free(k), slg_learner_free(other);
    }
    slg_ctx_free(ctx);
}

/* Gradients and plays of every type, elements apart or from last to first. */
static void test_types(void **state)
{
    (void)state;
    static const int32_t in[] = { SLG_F32, SLG_BF16, SLG_F16 };
    static const int32_t out[] = { SLG_F32, SLG_F64, SLG_BF16, SLG_F16 };
    static const double rounding[] = { 0x1p-24, 0, 0x1p-8, 0x1p-11 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int variant = 0; variant < VARIANTS; variant++)
        for (int i = 0; i < 3; i++)
            for (int o = 0; o < 4; o++)
                for (int64_t stride = -2; stride <= 3; stride++) {
                    if (stride == 0) continue;
                    slg_learner *l = make(ctx, variant), *k = make(ctx, variant);
                    char g[3 * D * 8] = { 0 }, x[3 * D * 8] = { 0 };
                    const int64_t first = stride < 0 ? -stride * (D - 1) : 0;
                    slg_tensor gt = { g + first * (int64_t)item_size(in[i]),
                                      in[i],
                                      1,
                                      { D, 1, 1, 1 },
                                      { stride, 1, 1, 1 } };
                    slg_tensor xt = { x + first * (int64_t)item_size(out[o]),
                                      out[o],
                                      1,
                                      { D, 1, 1, 1 },
                                      { stride, 1, 1, 1 } };
                    float plain[D];
                    double want[D];
                    for (int j = 0; j < D; j++) {
                        char *at = (char *)gt.data + j * stride * (int64_t)item_size(in[i]);
                        put_item(in[i], at, plain[j] = (float)(below(256) - 128) / 128);
                    }
                    observe(ctx, k, D, plain, plain);
                    decide(ctx, k, D, NULL, want);
                    OK(ctx, slg_learner_observe(l, &gt, &gt));
                    OK(ctx, slg_learner_decide(l, NULL, &xt));
                    for (int j = 0; j < D; j++) {
                        char *at = (char *)xt.data + j * stride * (int64_t)item_size(out[o]);
                        double e = fabs(get_item(out[o], at) - want[j]);
                        assert_true(e <=
                                    rounding[o] * fabs(want[j]) + (rounding[o] > 0) * 1e-7);
                    }
                    slg_learner_free(l), slg_learner_free(k);
                }
    slg_ctx_free(ctx);
}

/* ---- Errors ------------------------------------------------------------------------------ */

static void expect_error(slg_ctx *ctx, int line, slg_status got, slg_status want,
                         const char *op, const char *text)
{
    const char *message = slg_ctx_message(ctx);
    if (got != want) fail_msg("line %d: status %d, should be %d: %s", line, got, want, message);
    if (strncmp(message, op, strlen(op)) != 0) fail_msg("line %d: %s", line, message);
    if (!strstr(message, text)) fail_msg("line %d: no '%s' in '%s'", line, text, message);
}

#define REFUSED(kind, type, status, text, ...)                                                 \
    do {                                                                                       \
        type o;                                                                                \
        slg_learner *l_ = (slg_learner *)(uintptr_t)1;                                         \
        type##_init(&o, sizeof o);                                                             \
        __VA_ARGS__;                                                                           \
        expect_error(ctx, __LINE__, slg_learner_create(ctx, kind, 4, &o, &l_), status,         \
                     "slg_learner_create: ", text);                                            \
        assert_null(l_);                                                                       \
    } while (0)
#define OMD(text, ...) REFUSED(SLG_OMD, slg_omd_opts, SLG_ERR_RANGE, text, __VA_ARGS__)
#define ENSEMBLE(text, ...)                                                                    \
    REFUSED(SLG_OMD_ENSEMBLE, slg_omd_ensemble_opts, SLG_ERR_RANGE, text, __VA_ARGS__)

static void test_options(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const double bad[] = { -1, INFINITY, -INFINITY, 1e-30, 0, NAN };
    for (int i = 0; i < 6; i++) {
        if (i < 4) OMD("radius", o.radius = bad[i]);
        if (i < 5) OMD("numerator", o.numerator = bad[i]);
        OMD("offset", o.offset = bad[i]);
        OMD("lambda", o.lambda = bad[i]);
        OMD("eta", o.eta = bad[i]);
        if (i < 3) OMD("grad_bound", o.grad_bound = bad[i]);
        if (i < 3) OMD("alpha", o.alpha = bad[i]);
        if (i < 3) OMD("beta", o.beta = bad[i]);
        REFUSED(SLG_HEDGE, slg_hedge_opts, SLG_ERR_RANGE, "bound", o.bound = bad[i]);
        REFUSED(SLG_FTRL, slg_ftrl_opts, SLG_ERR_RANGE, "eta", o.eta = bad[i]);
        if (i < 5) ENSEMBLE("diameter", o.diameter = bad[i]);
        ENSEMBLE("grad_bound", o.grad_bound = bad[i]);
        ENSEMBLE("cap", o.cap = bad[i]);
        if (i < 3) ENSEMBLE("movement", o.movement = bad[i]);
    }
    OMD("lo is 2, must be at most hi, which is 1", o.domain = 2; o.lo = 2);
    OMD("lo", o.lo = NAN);
    OMD("hi", o.hi = INFINITY);
    OMD("domain", o.domain = 5);
    OMD("domain", o.domain = -1);
    OMD("mode", o.mode = 4);
    OMD("hint", o.hint = 2);
    OMD("numerator must be given", o.domain = SLG_DOMAIN_FREE);
    OMD("domain is 2", o.domain = 2; o.mode = SLG_OMD_EXP_CONCAVE);
    OMD("alpha", o.mode = SLG_OMD_EXP_CONCAVE; o.alpha = 1);
    OMD("alpha", o.mode = SLG_OMD_EXP_CONCAVE; o.alpha = 1; o.grad_bound = 1; o.beta = 1);
    OMD("alpha", o.mode = SLG_OMD_EXP_CONCAVE; o.alpha = 1; o.grad_bound = 1; o.domain = 0);
    ENSEMBLE("rounds", o.rounds = 0);
    ENSEMBLE("diameter must be given", o.domain = SLG_DOMAIN_FREE);
    ENSEMBLE("hint", o.hint = -1);
    REFUSED(SLG_HEDGE, slg_hedge_opts, SLG_ERR_RANGE, "hint", o.hint = 3);
    REFUSED(SLG_FTRL, slg_ftrl_opts, SLG_ERR_RANGE, "rule", o.rule = 2);
    REFUSED(SLG_FTRL, slg_ftrl_opts, SLG_ERR_RANGE, "hint", o.hint = -1);
    REFUSED(SLG_FTRL, slg_ftrl_opts, SLG_ERR_RANGE, "decreasing", o.decreasing = 2);
    REFUSED(SLG_OMD, slg_omd_opts, SLG_ERR_OPTIONS, "opts", o.size = 3);
    REFUSED(0, slg_omd_opts, SLG_ERR_RANGE, "kind is 0", (void)0);
    REFUSED(9, slg_omd_opts, SLG_ERR_RANGE, "kind is 9", (void)0);
    slg_learner *l;
    const int64_t sizes[] = { 0, -1, INT64_MIN, INT64_MAX };
    for (int i = 0; i < 4; i++)
        expect_error(ctx, __LINE__, slg_learner_create(ctx, SLG_OMD, sizes[i], NULL, &l),
                     SLG_ERR_RANGE, "slg_learner_create: ", "d is ");
    assert_int_equal(slg_learner_create(NULL, SLG_OMD, 4, NULL, &l), SLG_ERR_NULL);
    assert_int_equal(slg_learner_create(ctx, SLG_OMD, 4, NULL, NULL), SLG_ERR_NULL);
    for (int32_t kind = SLG_OMD; kind <= SLG_FTRL; kind++)
        slg_learner_free(learner(ctx, kind, 4, NULL)); /* the defaults do */
    slg_ctx_free(ctx);
}

/* Calls that are refused: the learner and x stay. */
static void test_calls(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int variant = 0; variant < VARIANTS; variant++) {
        slg_learner *l = make(ctx, variant);
        float g[2 * D], x[2 * D], kept[2 * D];
        slg_tensor gt, xt;
        int64_t bytes, same;
        randoms(2 * D, 1, g), randoms(2 * D, 1, x);
        observe(ctx, l, D, NULL, g);
        memcpy(kept, x, sizeof x);
        unsigned char *before = export_state(ctx, l, &bytes);
#define CALL(status, text, call, ...)                                                          \
    do {                                                                                       \
        gt = slg_tensor_1d(g, SLG_F32, D), xt = slg_tensor_1d(x, SLG_F32, D);                  \
        __VA_ARGS__;                                                                           \
        expect_error(ctx, __LINE__, call, status, "slg_learner_", text);                       \
    } while (0)
        for (int i = 0; i < 3; i++) {
            const float bad[] = { NAN, -INFINITY, INFINITY };
            const float good = g[3];
            if ((variant != 4 && variant != 6) || i < 2) {
                g[3] = bad[i];
                CALL(SLG_ERR_RANGE, "g[3]", slg_learner_observe(l, NULL, &gt), (void)0);
            }
            g[3] = bad[i];
            CALL(SLG_ERR_RANGE, "hint[3]", slg_learner_decide(l, &gt, &xt), (void)0);
            slg_tensor ht = slg_tensor_1d(g + D, SLG_F32, D);
            CALL(SLG_ERR_RANGE, "hint[3]", slg_learner_observe(l, &gt, &ht), (void)0);
            g[3] = good;
        }
        CALL(SLG_ERR_NULL, "g", slg_learner_observe(l, NULL, NULL), (void)0);
        CALL(SLG_ERR_NULL, "x", slg_learner_decide(l, NULL, NULL), (void)0);
        CALL(SLG_ERR_SHAPE, "g", slg_learner_observe(l, NULL, &gt), gt.shape[0] = D - 1);
        CALL(SLG_ERR_SHAPE, "x", slg_learner_decide(l, NULL, &xt), xt.shape[0] = D + 1);
        CALL(SLG_ERR_SHAPE, "x", slg_learner_decide(l, NULL, &xt),
             xt = slg_tensor_2d(x, SLG_F32, 1, D));
        CALL(SLG_ERR_SHAPE, "hint", slg_learner_decide(l, &gt, &xt), gt.shape[0] = 1);
        CALL(SLG_ERR_DTYPE, "g", slg_learner_observe(l, NULL, &gt), gt.dtype = SLG_F64);
        CALL(SLG_ERR_DTYPE, "x", slg_learner_decide(l, NULL, &xt), xt.dtype = SLG_I32);
        CALL(SLG_ERR_STRIDE, "x", slg_learner_decide(l, NULL, &xt), xt.stride[0] = 0);
        CALL(SLG_ERR_STRIDE, "overlap", slg_learner_decide(l, &gt, &xt), gt.data = x + 1);
        CALL(SLG_ERR_RANGE, "part is 77", slg_learner_read(l, 77, &xt), (void)0);
        if (variant >= 4)
            CALL(SLG_ERR_RANGE, "part", slg_learner_read(l, SLG_LEARNER_CENTER, &xt), (void)0);
        if (variant != 2)
            CALL(SLG_ERR_RANGE, "part", slg_learner_read(l, SLG_LEARNER_INVERSE, &xt), (void)0);
#undef CALL
        assert_int_equal(slg_learner_decide(NULL, NULL, &xt), SLG_ERR_NULL);
        assert_int_equal(slg_learner_observe(NULL, NULL, &gt), SLG_ERR_NULL);
        assert_int_equal(slg_learner_info(l, NULL), SLG_ERR_NULL);
        assert_int_equal(slg_learner_reset(NULL), SLG_ERR_NULL);
        assert_int_equal(slg_learner_export(NULL, NULL, 0, &same), SLG_ERR_NULL);
        assert_int_equal(slg_learner_import(NULL, before, bytes), SLG_ERR_NULL);
        assert_int_equal(slg_learner_read(NULL, 1, &xt), SLG_ERR_NULL);
        unsigned char *after = export_state(ctx, l, &same);
        assert_memory_equal(before, after, (size_t)bytes);
        assert_memory_equal(kept, x, sizeof x);
        free(before), free(after);
        /* x in place of the hint. */
        double want[D];
        decide(ctx, l, D, g, want);
        gt = slg_tensor_1d(g, SLG_F32, D);
        OK(ctx, slg_learner_decide(l, &gt, &gt));
        for (int i = 0; i < D; i++) assert_true(g[i] == (float)want[i]);
        slg_learner_free(l);
    }
    slg_learner_free(NULL);
    assert_int_equal(slg_learner_rounds(NULL), 0);
    slg_ctx_free(ctx);
}

/* Each allocation fails once; none is lost. A second round allocates nothing. */
static void test_memory(void **state)
{
    (void)state;
    slg_ctx *ctx = limited_context();
    for (int32_t kind = SLG_OMD; kind <= SLG_FTRL; kind++) {
        slg_learner *l;
        const int64_t blocks = live_blocks;
        for (int64_t allowed = 0; allowed < 2; allowed++) {
            left = allowed;
            assert_int_equal(slg_learner_create(ctx, kind, D, NULL, &l), SLG_ERR_MEMORY);
            assert_null(l);
            assert_int_equal(live_blocks, blocks);
        }
        left = 1000;
        OK(ctx, slg_learner_create(ctx, kind, D, NULL, &l));
        float g[D];
        double x[D];
        slg_tensor gt = slg_tensor_1d(g, SLG_F32, D), xt = slg_tensor_1d(x, SLG_F64, D);
        randoms(D, 1, g);
        OK(ctx, slg_ctx_trim(ctx));
        left = 0;
        assert_int_equal(slg_learner_decide(l, NULL, &xt), SLG_ERR_MEMORY);
        assert_int_equal(slg_learner_observe(l, NULL, &gt), SLG_ERR_MEMORY);
        assert_int_equal(slg_learner_rounds(l), 0);
        left = 1000;
        for (int t = 0; t < 3; t++) {
            OK(ctx, slg_learner_decide(l, &gt, &xt));
            OK(ctx, slg_learner_observe(l, &gt, &gt));
            left = 0;
        }
        slg_learner_free(l);
    }
    slg_ctx_free(ctx);
    assert_int_equal(live_blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_types), cmocka_unit_test(test_options),
        cmocka_unit_test(test_calls), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
