/*
 * Chains and groups: a chain does in the step what the functions of gradient.h do before it.
 */
#include "optimizer_test.h"

enum { PARTS = 4, N = 70100 };
static const int64_t cuts[PARTS + 1] = { 0, 1, 40, 66000, N };

/* A copy of weights and gradients as lists. */
typedef struct lists {
    float *w, *g;
    slg_tensor ws[PARTS], gs[PARTS], *wp[PARTS], *gp[PARTS];
    const slg_tensor *wc[PARTS], *gc[PARTS];
} lists;

static void fill(lists *l, const float *w, const float *g)
{
    l->w = malloc(N * sizeof *w), l->g = malloc(N * sizeof *g);
    memcpy(l->w, w, N * sizeof *w), memcpy(l->g, g, N * sizeof *g);
    for (int i = 0; i < PARTS; i++) {
        l->ws[i] = slg_tensor_1d(l->w + cuts[i], SLG_F32, cuts[i + 1] - cuts[i]);
        l->gs[i] = slg_tensor_1d(l->g + cuts[i], SLG_F32, cuts[i + 1] - cuts[i]);
        l->wp[i] = &l->ws[i], l->gp[i] = &l->gs[i];
        l->wc[i] = &l->ws[i], l->gc[i] = &l->gs[i];
    }
}

static void drop(lists *l) { free(l->w), free(l->g); }

/* What a link does, by the function, in place. */
static void apply(slg_ctx *ctx, const slg_transform *t, lists *l)
{
    if (t->kind == SLG_CLIP_NORM)
        OK(ctx, slg_clip_grad_norm(ctx, PARTS, l->gp, t->value, NULL));
    if (t->kind == SLG_CLIP_VALUE) OK(ctx, slg_clip_grad_value(ctx, PARTS, l->gp, t->value));
    if (t->kind != SLG_PERPENDICULAR) return;
    slg_perpendicular_opts o;
    slg_perpendicular_opts_init(&o, sizeof o);
    o.rescale = t->rescale, o.skip_scalars = t->skip_scalars, o.threshold = t->value;
    OK(ctx, slg_perpendicular_gradient_list(ctx, PARTS, l->wc, l->gp, &o, NULL));
}

static void same(const float *got, const float *want, double error, const char *what)
{
    for (int64_t i = 0; i < N; i++)
        if (!(fabs((double)(got[i] - want[i])) <= error * fmax(1, fabs((double)want[i]))))
            fail_msg("%s, %s: w[%lld] is %.9g, should be %.9g", rule->name, what, (long long)i,
                     (double)got[i], (double)want[i]);
}

static const slg_transform norm_1 = { SLG_CLIP_NORM, 0, 0, 0, 1.0 };
static const slg_transform norm_100 = { SLG_CLIP_NORM, 0, 0, 0, 100.0 };
static const slg_transform value = { SLG_CLIP_VALUE, 0, 0, 0, 0.75 };
static const slg_transform small_value = { SLG_CLIP_VALUE, 0, 0, 0, 0.003 };
static const slg_transform perp = { SLG_PERPENDICULAR, 1, 1, 0, 1e-6 };
static const slg_transform plain_perp = { SLG_PERPENDICULAR, 0, 0, 0, 1e-6 };
static const slg_transform skip_bad = { SLG_SKIP_NONFINITE, 0, 0, 0, 0 };

typedef struct chain_case {
    const char *name;
    const slg_transform *links[5];
} chain_case;

static const chain_case chains[] = {
    { "clip by norm", { &norm_1 } },
    { "clip by a large norm", { &norm_100 } },
    { "clip by value", { &value } },
    { "perpendicular", { &perp } },
    { "perpendicular, not rescaled", { &plain_perp } },
    { "norm, perpendicular", { &norm_1, &perp } },
    { "perpendicular, norm", { &plain_perp, &norm_1 } },
    { "value, norm", { &value, &norm_1 } },
    { "value, perpendicular", { &value, &perp } },
    { "norm, value", { &norm_1, &small_value } },
    { "perpendicular, value", { &perp, &value } },
    { "perpendicular, value, norm, perpendicular", { &perp, &value, &norm_1, &perp } },
    { "skip, norm, perpendicular, norm", { &skip_bad, &norm_100, &perp, &norm_1 } },
};

/* Every rule, every chain: as the functions and then a step. The error is float32's. */
static void test_chains(void **state)
{
    rule = *state;
    FOR_EACH_ISA(ctx, 2)
    for (int64_t c = 0; c < COUNT(chains); c++) {
        slg_transform links[5];
        int64_t count = 0;
        while (count < 5 && chains[c].links[count]) {
            links[count] = *chains[c].links[count];
            count++;
        }
        slg_optimizer *a = create(ctx, N, 1), *b = create(ctx, N, 1);
        OK(ctx, slg_optimizer_set_chain(a, count, links));
        float *w = random_floats(N);
        for (int t = 0; t < 2; t++) {
            float *g = random_floats(N);
            lists one, two;
            fill(&one, w, g), fill(&two, w, g);
            for (int64_t i = 0; i < count; i++) apply(ctx, &links[i], &two);
            OK(ctx, slg_optimizer_set_lr(a, rule->lr));
            OK(ctx, slg_optimizer_set_lr(b, rule->lr));
            OK(ctx, slg_optimizer_step_list(a, PARTS, one.wp, one.gc));
            OK(ctx, slg_optimizer_step_list(b, PARTS, two.wp, two.gc));
            assert_memory_equal(one.g, g, N * sizeof *g); /* gradients stay */
            /* Lion takes signs: of a few sums that cancel another one. */
            same(one.w, two.w, rule->kind == SLG_LION ? 2.1 * rule->lr : 2e-5, chains[c].name);
            memcpy(w, two.w, N * sizeof *w);
            drop(&one), drop(&two), free(g);
            if (rule->kind == SLG_LION) break;
        }
        free(w);
        slg_optimizer_free(a), slg_optimizer_free(b);
    }
}

/* grad_scale comes before the chain: a norm is that of the scaled gradient. */
static void test_report(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    rule = rule_cases;
    slg_optimizer *o = create(ctx, 4, 1);
    slg_optimizer_report r;
    slg_optimizer_report_init(&r, sizeof r);
    assert_true(r.size == sizeof r && r.grad_norm == -1 && r.clip_factor == 1);
    float w[4] = { 1, 0, 0, 0 }, g[4] = { 0, 3, 0, 4 };
    const slg_transform links[] = { norm_1 };
    OK(ctx, step(o, w, g, 4));
    OK(ctx, slg_optimizer_last_step(o, &r));
    assert_true(r.grad_norm == -1 && r.clip_factor == 1 && !r.skipped && r.zeroed == 0);
    OK(ctx, slg_optimizer_set_chain(o, 1, links));
    OK(ctx, slg_optimizer_set_grad_scale(o, 2));
    OK(ctx, slg_optimizer_set_lr(o, 1));
    memset(w, 0, sizeof w);
    OK(ctx, step(o, w, g, 4));
    OK(ctx, slg_optimizer_last_step(o, &r));
    assert_true(r.grad_norm == 10 && fabs(r.clip_factor - 0.1) < 1e-7);
    assert_true(fabs((double)w[1] + 0.6) < 1e-6 && fabs((double)w[3] + 0.8) < 1e-6);
    /* A norm below the limit, and a gradient along the weights. */
    const slg_transform both[] = { norm_100, plain_perp };
    OK(ctx, slg_optimizer_set_chain(o, 2, both));
    memcpy(w, g, sizeof w);
    OK(ctx, step(o, w, g, 4));
    OK(ctx, slg_optimizer_last_step(o, &r));
    assert_true(r.grad_norm == 10 && r.clip_factor == 1 && r.zeroed == 1 && r.nonfinite == 0);
    assert_true(w[1] == 3 && w[3] == 4);
    OK(ctx, slg_optimizer_set_chain(o, 0, NULL)); /* away with it */
    OK(ctx, step(o, w, g, 4));
    assert_true(w[1] == -3 && w[3] == -4);
    slg_optimizer_free(o);
    slg_ctx_free(ctx);
}

/* A bad gradient: no step, nothing changed, for any rule; without that link the norm leaves all
   as it is and only that weight suffers. */
static void test_nonfinite(void **state)
{
    rule = *state;
    const float bad[] = { NAN, INFINITY, -INFINITY };
    FOR_EACH_ISA(ctx, 1)
    for (int i = 0; i < 3; i++) {
        enum { M = 20 };
        slg_optimizer *o = create(ctx, M, 0), *p = create(ctx, M, 0);
        slg_optimizer_report r;
        slg_optimizer_report_init(&r, sizeof r);
        const slg_transform skips[] = { skip_bad, norm_100 }, norms[] = { norm_100, perp };
        float *w = random_floats(M), *g = random_floats(M), kept[M], v[M];
        OK(ctx, step(o, w, g, M));
        OK(ctx, slg_optimizer_set_chain(o, 2, skips));
        memcpy(kept, w, sizeof kept);
        int64_t before, after;
        unsigned char *s = export_state(ctx, o, &before);
        g[7] = bad[i];
        OK(ctx, step(o, w, g, M));
        OK(ctx, slg_optimizer_last_step(o, &r));
        assert_true(r.skipped == 1 && r.nonfinite == 1 && slg_optimizer_steps(o) == 1);
        assert_memory_equal(kept, w, sizeof kept);
        unsigned char *t = export_state(ctx, o, &after);
        assert_true(before == after && memcmp(s, t, (size_t)before) == 0);
        free(s), free(t);
        /* Not asked to skip. */
        memcpy(v, w, sizeof v);
        OK(ctx, slg_optimizer_reset(o));
        OK(ctx, slg_optimizer_set_chain(o, 2, norms));
        OK(ctx, step(o, w, g, M));
        OK(ctx, slg_optimizer_last_step(o, &r));
        assert_true(!r.skipped && r.nonfinite == 1 && r.clip_factor == 1);
        assert_true(isnan(bad[i]) ? isnan(r.grad_norm) : isinf(r.grad_norm));
        OK(ctx, step(p, v, g, M));
        for (int j = 0; j < M; j++)
            assert_true((rule->step && v[j] == w[j]) ||
                        ((!rule->step || j == 7) && isnan(v[j]) && isnan(w[j])));
        free(w), free(g);
        slg_optimizer_free(o), slg_optimizer_free(p);
    }
}

/* A group is what an optimizer of its own with other rates is; a frozen one stays, and its
   gradient counts in no norm. */
static void test_groups(void **state)
{
    rule = *state;
    FOR_EACH_ISA(ctx, 2)
    {
        slg_optimizer *o = create(ctx, N, 2), *alone[PARTS];
        slg_param_group group;
        float *w = random_floats(N);
        lists l, m;
        for (int i = 0; i < PARTS; i++) {
            any_opts opts = *rule_options(2);
            if (i == 2 && rule->kind == SLG_ADAMW) opts.adamw.weight_decay = 0;
            if (i == 2 && rule->kind == SLG_SGD) opts.sgd.weight_decay = 0;
            if (i == 2 && rule->kind == SLG_EGD) opts.egd.weight_decay = 0;
            if (i == 2 && rule->kind == SLG_LION) opts.lion.weight_decay = 0;
            if (i == 2 && rule->kind == SLG_NADAM) opts.nadam.weight_decay = 0;
            if (i == 2 && rule->kind == SLG_RMSPROP) opts.rmsprop.weight_decay = 0;
            if (i == 2 && rule->kind == SLG_OPTIMISTIC) opts.optimistic.weight_decay = 0;
            if (i == 2 && rule->kind == SLG_ADAFACTOR) opts.adafactor.weight_decay = 0;
            OK(ctx,
               slg_optimizer_create(ctx, rule->kind, cuts[i + 1] - cuts[i], &opts, &alone[i]));
            OK(ctx, slg_optimizer_set_lr(alone[i], rule->lr * (i == 2 ? 0.25 : 1)));
        }
        OK(ctx, slg_optimizer_set_lr(o, rule->lr));
        slg_param_group_init(&group, sizeof group);
        group.lr_scale = 0.25, group.decay_scale = 0;
        OK(ctx, slg_optimizer_set_group(o, 1, 2, &group));
        slg_param_group_init(&group, sizeof group);
        group.frozen = 1;
        OK(ctx, slg_optimizer_set_group(o, 1, 1, &group)); /* a later call wins */
        const slg_transform links[] = { norm_1 };
        OK(ctx, slg_optimizer_set_chain(o, 1, links));
        for (int t = 0; t < 3; t++) {
            float *g = random_floats(N);
            fill(&l, w, g), fill(&m, w, g);
            double norm = 0, factor;
            for (int64_t i = 0; i < N; i++)
                norm += i >= cuts[1] && i < cuts[2] ? 0 : (double)g[i] * (double)g[i];
            factor = fmin(1, 1 / (sqrt(norm) + 1e-6));
            OK(ctx, slg_optimizer_step_list(o, PARTS, l.wp, l.gc));
            for (int i = 0; i < PARTS; i++) {
                if (i == 1) continue;
                OK(ctx, slg_optimizer_set_grad_scale(alone[i], factor));
                OK(ctx, slg_optimizer_step(alone[i], m.wp[i], m.gc[i]));
            }
            same(l.w, m.w, rule->kind == SLG_LION ? 2.1 * rule->lr : 1e-6, "groups");
            assert_memory_equal(l.w + cuts[1], w + cuts[1],
                                (size_t)(cuts[2] - cuts[1]) * sizeof *w);
            memcpy(w, m.w, N * sizeof *w);
            drop(&l), drop(&m), free(g);
        }
        free(w);
        for (int i = 0; i < PARTS; i++) slg_optimizer_free(alone[i]);
        slg_optimizer_free(o);
    }
}

/* A group can be passed over by the projection. */
static void test_group_perpendicular(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    rule = rule_cases;
    slg_optimizer *o = create(ctx, 4, 1);
    slg_param_group group;
    slg_param_group_init(&group, sizeof group);
    assert_true(group.size == sizeof group && group.perpendicular == 1 && group.frozen == 0);
    assert_true(group.lr_scale == 1 && group.decay_scale == 1);
    group.perpendicular = 0;
    const slg_transform links[] = { plain_perp };
    OK(ctx, slg_optimizer_set_chain(o, 1, links));
    OK(ctx, slg_optimizer_set_lr(o, 1));
    OK(ctx, slg_optimizer_set_group(o, 1, 1, &group));
    float w[4] = { 1, 0, 1, 0 }, g[4] = { 1, 1, 1, 1 };
    slg_tensor ws[2] = { slg_tensor_1d(w, SLG_F32, 2), slg_tensor_1d(w + 2, SLG_F32, 2) };
    slg_tensor gs[2] = { slg_tensor_1d(g, SLG_F32, 2), slg_tensor_1d(g + 2, SLG_F32, 2) };
    slg_tensor *wp[2] = { &ws[0], &ws[1] };
    const slg_tensor *gp[2] = { &gs[0], &gs[1] };
    OK(ctx, slg_optimizer_step_list(o, 2, wp, gp));
    assert_true(w[0] == 1 && w[1] == -1 && w[2] == 0 && w[3] == -1);
    slg_optimizer_free(o);
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    rule = rule_cases;
    slg_optimizer *o = create(ctx, 4, 1);
    slg_transform links[9];
    for (int i = 0; i < 9; i++) links[i] = norm_1;
#define CHAIN_REFUSED(count, status, part)                                                     \
    expect_error(ctx, __LINE__, slg_optimizer_set_chain(o, count, links), status,              \
                 "slg_optimizer_set_chain: ", part)
    CHAIN_REFUSED(9, SLG_ERR_RANGE, "count is 9");
    CHAIN_REFUSED(-1, SLG_ERR_RANGE, "count is -1");
    links[1].kind = 99;
    CHAIN_REFUSED(2, SLG_ERR_RANGE, "kind is 99");
    links[1] = links[2] = value;
    CHAIN_REFUSED(3, SLG_ERR_RANGE, "at most once");
    links[1] = norm_1, links[1].value = -1;
    CHAIN_REFUSED(2, SLG_ERR_RANGE, "max_norm");
    links[1] = value, links[1].value = NAN;
    CHAIN_REFUSED(2, SLG_ERR_RANGE, "limit");
    links[1] = perp, links[1].value = 2;
    CHAIN_REFUSED(2, SLG_ERR_RANGE, "threshold");
    links[1] = perp, links[1].rescale = 2;
    CHAIN_REFUSED(2, SLG_ERR_RANGE, "rescale");
    links[1] = norm_1, links[1].rescale = 1;
    CHAIN_REFUSED(2, SLG_ERR_RANGE, "rescale");
    links[1] = norm_1, links[1].reserved = 1;
    CHAIN_REFUSED(2, SLG_ERR_OPTIONS, "reserved");
    expect_error(ctx, __LINE__, slg_optimizer_set_chain(o, 1, NULL), SLG_ERR_NULL,
                 "slg_optimizer_set_chain: ", "links");
    assert_int_equal(slg_optimizer_set_chain(NULL, 0, NULL), SLG_ERR_NULL);
#undef CHAIN_REFUSED
    slg_param_group g;
#define GROUP_REFUSED(first, count, status, part, change)                                      \
    do {                                                                                       \
        slg_param_group_init(&g, sizeof g);                                                    \
        change;                                                                                \
        expect_error(ctx, __LINE__, slg_optimizer_set_group(o, first, count, &g), status,      \
                     "slg_optimizer_set_group: ", part);                                       \
    } while (0)
    GROUP_REFUSED(-1, 1, SLG_ERR_RANGE, "first", );
    GROUP_REFUSED(0, -1, SLG_ERR_RANGE, "count", );
    GROUP_REFUSED(INT64_MAX, 1, SLG_ERR_RANGE, "first", );
    GROUP_REFUSED(1, INT64_MAX / 2, SLG_ERR_RANGE, "first", );
    GROUP_REFUSED(0, 1, SLG_ERR_RANGE, "frozen", g.frozen = 2);
    GROUP_REFUSED(0, 1, SLG_ERR_RANGE, "perpendicular", g.perpendicular = -1);
    GROUP_REFUSED(0, 1, SLG_ERR_RANGE, "lr_scale", g.lr_scale = -1);
    GROUP_REFUSED(0, 1, SLG_ERR_RANGE, "decay_scale", g.decay_scale = NAN);
    GROUP_REFUSED(0, 1, SLG_ERR_OPTIONS, "reserved", g.reserved = 3);
    GROUP_REFUSED(0, 1, SLG_ERR_OPTIONS, "group", g.size = 3);
#undef GROUP_REFUSED
    expect_error(ctx, __LINE__, slg_optimizer_set_group(o, 0, 1, NULL), SLG_ERR_NULL,
                 "slg_optimizer_set_group: ", "group");
    slg_optimizer_report r;
    slg_optimizer_report_init(&r, sizeof r);
    r.size = 1;
    assert_int_equal(slg_optimizer_last_step(o, &r), SLG_ERR_OPTIONS);
    assert_int_equal(slg_optimizer_last_step(NULL, &r), SLG_ERR_NULL);
    assert_int_equal(slg_optimizer_last_step(o, NULL), SLG_ERR_NULL);
    /* None of it has come into force. */
    float w[4] = { 0 }, dw[4] = { 300, 400, 0, 0 };
    OK(ctx, slg_optimizer_set_lr(o, 1));
    OK(ctx, step(o, w, dw, 4));
    assert_true(w[0] == -300 && w[1] == -400);
    slg_optimizer_free(o);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest rules[] = { cmocka_unit_test(test_chains),
                                        cmocka_unit_test(test_nonfinite),
                                        cmocka_unit_test(test_groups) };
    const struct CMUnitTest single[] = { cmocka_unit_test(test_report),
                                         cmocka_unit_test(test_group_perpendicular),
                                         cmocka_unit_test(test_errors) };
    const int failed = run_over_rules(rules, COUNT(rules));
    return failed + cmocka_run_group_tests(single, NULL, NULL);
}
