/* What slg_mdp_policy_* refuse, and what they do where memory is out. */
#include "mdp_forms.h"

static void test_create_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_mdp_policy_opts o;
    slg_mdp_policy *p;
    slg_tensor f;
#define BAD(form_, status, text, ...)                                                          \
    do {                                                                                       \
        const slg_tensor *ft = (form_) == FEATURES ? &f : NULL;                                \
        o = opts_of(form_), f = F64_3(features, S, A, D);                                      \
        __VA_ARGS__;                                                                           \
        p = (slg_mdp_policy *)(uintptr_t)1;                                                    \
        REFUSED_AS(ctx, slg_mdp_policy_create(ctx, &o, ft, &p), status, text);                 \
        assert_null(p);                                                                        \
    } while (0)
    const double bad[] = { -1, NAN, INFINITY, 0 };
    for (int i = 0; i < 4; i++) {
        if (i < 3) BAD(ONE_HOT, SLG_ERR_RANGE, "eta", o.eta = bad[i]);
        BAD(ONE_HOT, SLG_ERR_RANGE, "gamma", o.gamma = bad[i]);
        if (i < 3) BAD(ONE_HOT, SLG_ERR_RANGE, "beta", o.beta = bad[i]);
    }
    BAD(ONE_HOT, SLG_ERR_RANGE, "dilation", o.dilation = -1);
    BAD(ONE_HOT, SLG_ERR_RANGE, "rule", o.rule = 2);
    BAD(ONE_HOT, SLG_ERR_RANGE, "estimator", o.estimator = -1);
    BAD(ONE_HOT, SLG_ERR_RANGE, "horizon", o.horizon = 0);
    BAD(ONE_HOT, SLG_ERR_RANGE, "states", o.states = -1);
    BAD(ONE_HOT, SLG_ERR_RANGE, "actions", o.actions = 0);
    BAD(LINEAR, SLG_ERR_RANGE, "dim", o.dim = 0);
    BAD(ONE_HOT, SLG_ERR_OPTIONS, "reserved", o.reserved = 1);
    BAD(ONE_HOT, SLG_ERR_OPTIONS, "opts", o.size = 3);
    BAD(ONE_HOT, SLG_ERR_SHAPE, "overflows", o.states = o.actions = INT32_MAX);
    BAD(ONE_HOT, SLG_ERR_SHAPE, "one-hot", ft = &f);
    BAD(LINEAR, SLG_ERR_SHAPE, "no table", ft = &f);
    BAD(FEATURES, SLG_ERR_NULL, "features", ft = NULL);
    BAD(FEATURES, SLG_ERR_SHAPE, "features", f.shape[2] = D - 1);
    BAD(FEATURES, SLG_ERR_DTYPE, "features", f.dtype = SLG_I32);
#undef BAD
    REFUSED_AS(ctx, slg_mdp_policy_create(ctx, NULL, NULL, &p), SLG_ERR_NULL, "opts");
    assert_int_equal(slg_mdp_policy_create(NULL, &o, NULL, &p), SLG_ERR_NULL);
    assert_int_equal(slg_mdp_policy_create(ctx, &o, NULL, NULL), SLG_ERR_NULL);
    slg_mdp_policy_free(NULL);
    assert_int_equal(slg_mdp_policy_episodes(NULL), 0);
    slg_ctx_free(ctx);
}

static void test_step_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    random_world();
    for (int form_ = 0; form_ < FORMS; form_++) {
        slg_mdp_policy *p = make(ctx, form_);
        const bool table = !linear(form_), bonus = form_ >= 2 * KINDS;
        episode x;
        int64_t bytes, same;
        random_episode(&x, form_);
        OK(ctx, slg_mdp_policy_step(p, &x.e));
        unsigned char *before = exported(ctx, p, &bytes);
#define BAD(status, text, ...)                                                                 \
    do {                                                                                       \
        random_episode(&x, form_);                                                             \
        __VA_ARGS__;                                                                           \
        REFUSED_AS(ctx, slg_mdp_policy_step(p, &x.e), status, text);                           \
    } while (0)
        const double bad[] = { 1.5, -0.1, NAN };
        for (int i = 0; i < 3; i++) BAD(SLG_ERR_RANGE, "losses[1]", x.losses[1] = bad[i]);
        BAD(SLG_ERR_NULL, "losses", x.e.losses = NULL);
        BAD(SLG_ERR_NULL, "visited", x.e.visited = NULL);
        BAD(SLG_ERR_SHAPE, "losses", x.t_losses.shape[0] = 2);
        BAD(SLG_ERR_SHAPE, "visited", x.t_visited.shape[0] = 2);
        BAD(SLG_ERR_DTYPE, "losses", x.t_losses.dtype = SLG_I32);
        BAD(SLG_ERR_DTYPE, "visited", x.t_visited.dtype = table ? SLG_F32 : SLG_I32);
        BAD(SLG_ERR_OPTIONS, "reserved", x.e.reserved = 1);
        if (table) {
            BAD(SLG_ERR_RANGE, "visited[2] is state 4", x.pair[4] = S);
            BAD(SLG_ERR_RANGE, "visited[0]", x.pair[1] = -1);
            BAD(SLG_ERR_RANGE, "occupancy", x.occupancy[N - 1] = -1);
            BAD(SLG_ERR_NULL, "occupancy", x.e.occupancy = NULL);
            BAD(SLG_ERR_SHAPE, "occupancy", x.t_occupancy.shape[1] = 1);
            BAD(SLG_ERR_SHAPE, "samples is given", x.e.samples = &x.t_samples);
            if (bonus) BAD(SLG_ERR_NULL, "transition", x.e.transition = NULL);
        } else {
            BAD(SLG_ERR_RANGE, "finite", x.visited[3] = NAN);
            BAD(SLG_ERR_RANGE, "finite", x.samples[3] = INFINITY);
            BAD(SLG_ERR_RANGE, "weight of a layer [1]", x.weight[1] = -1);
            BAD(SLG_ERR_NULL, "weight is given", x.e.samples = NULL);
            BAD(SLG_ERR_SHAPE, "samples", x.t_samples.shape[2] = D - 1);
            BAD(SLG_ERR_SHAPE, "weight", x.t_weight.shape[1] = M - 1);
            BAD(SLG_ERR_SHAPE, "no table", x.e.occupancy = &x.t_occupancy);
        }
#undef BAD
        REFUSED_AS(ctx, slg_mdp_policy_step(p, NULL), SLG_ERR_NULL, "episode");
        unsigned char *after = exported(ctx, p, &same);
        assert_true(bytes == same && memcmp(before, after, (size_t)same) == 0);
        free(before), free(after), slg_mdp_policy_free(p);
    }
    assert_int_equal(slg_mdp_policy_step(NULL, NULL), SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

static void test_play_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    random_world();
    slg_mdp_policy *p = make(ctx, ONE_HOT), *q = make(ctx, LINEAR);
    double pi[N], costs[N], bonus[S * A] = { 0 };
    slg_tensor a, b, c, phi;
    int64_t layer;
    for (int i = 0; i < N; i++) pi[i] = costs[i] = -9;
#define BAD(call, status, text, ...)                                                           \
    do {                                                                                       \
        a = F64_2(pi, S, A), b = F64_2(costs, S, A), c = F64_2(bonus, S, A);                   \
        phi = F64_3(features, S, A, D), layer = 1;                                             \
        __VA_ARGS__;                                                                           \
        REFUSED_AS(ctx, call, status, text);                                                   \
    } while (0)
#define AT(policy) slg_mdp_policy_at(policy, layer, &phi, &c, &a, &b)
    BAD(AT(p), SLG_ERR_STATE, "has a table", (void)0);
    BAD(AT(q), SLG_ERR_RANGE, "layer", layer = H);
    BAD(AT(q), SLG_ERR_RANGE, "layer", layer = -1);
    BAD(AT(q), SLG_ERR_SHAPE, "phi has 4 columns", phi.shape[2] = 4);
    BAD(AT(q), SLG_ERR_SHAPE, "no actions", phi.shape[1] = a.shape[1] = 0);
    BAD(AT(q), SLG_ERR_SHAPE, "bonus", c.shape[1] = 1);
    BAD(AT(q), SLG_ERR_SHAPE, "p has", a.shape[1] = 1);
    BAD(AT(q), SLG_ERR_SHAPE, "costs", b.shape[1] = 1);
    BAD(AT(q), SLG_ERR_DTYPE, "p has dtype", a.dtype = SLG_BF16);
    BAD(AT(q), SLG_ERR_STRIDE, "overlap", a.data = costs);
    bonus[3] = NAN;
    BAD(AT(q), SLG_ERR_RANGE, "pair 3", (void)0);
#undef AT
#define TABLE(policy) slg_mdp_policy_table(policy, &a, &b)
    BAD(TABLE(q), SLG_ERR_STATE, "no table", (void)0);
    BAD(TABLE(p), SLG_ERR_SHAPE, "p has", (void)0);
    BAD(TABLE(p), SLG_ERR_STRIDE, "overlap", a = b = F64_3(pi, H, S, A));
#undef TABLE
#undef BAD
    assert_int_equal(slg_mdp_policy_table(NULL, &a, &b), SLG_ERR_NULL);
    assert_int_equal(slg_mdp_policy_at(NULL, 0, &phi, NULL, &a, &b), SLG_ERR_NULL);
    assert_int_equal(slg_mdp_policy_reset(NULL), SLG_ERR_NULL);
    for (int i = 0; i < N; i++) assert_true(pi[i] == -9 && costs[i] == -9);
    slg_mdp_policy_free(p), slg_mdp_policy_free(q);
    slg_ctx_free(ctx);
}

/* ---- Memory ------------------------------------------------------------------------------ */

/* Each allocation of a creation and of a step fails once; none is lost, nothing has changed. */
static void test_memory(void **state)
{
    (void)state;
    slg_ctx *ctx = limited_context();
    random_world();
    for (int form_ = 0; form_ < FORMS; form_++) {
        const slg_tensor same = F64_3(features, S, A, D), own = F64_4(features, H, S, A, D);
        const slg_tensor *const f[KINDS] = { NULL, &same, &own, NULL };
        const slg_mdp_policy_opts o = opts_of(form_);
        slg_mdp_policy *p = NULL;
        OK(ctx, slg_ctx_trim(ctx));
        const int64_t blocks = live_blocks;
        for (int64_t allowed = 0; !p; allowed++) {
            left = allowed;
            if (slg_mdp_policy_create(ctx, &o, f[form_ % KINDS], &p) == SLG_OK) break;
            assert_null(p);
            left = 1000;
            OK(ctx, slg_ctx_trim(ctx));
            assert_int_equal(live_blocks, blocks);
        }
        episode x;
        random_episode(&x, form_);
        for (int64_t allowed = 0;; allowed++) {
            left = 1000;
            OK(ctx, slg_ctx_trim(ctx));
            left = allowed;
            const slg_status status = slg_mdp_policy_step(p, &x.e);
            if (status == SLG_OK) break;
            assert_int_equal(status, SLG_ERR_MEMORY);
            assert_int_equal(slg_mdp_policy_episodes(p), 0);
        }
        left = 1000;
        assert_int_equal(slg_mdp_policy_episodes(p), 1);
        double a[N], b[N];
        both(ctx, p, form_, a, b);
        slg_mdp_policy_free(p);
    }
    slg_ctx_free(ctx);
    assert_int_equal(live_blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_errors),
        cmocka_unit_test(test_step_errors),
        cmocka_unit_test(test_play_errors),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
