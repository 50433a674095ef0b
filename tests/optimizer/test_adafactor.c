/*
 * Adafactor against its formula in double, over lists of vectors, matrices and what lies
 * between; and lists whose shapes an optimizer is told, for every rule.
 */
#include "optimizer_test.h"
#include "support/guard.h"
#include "tensor_list.h"

/* ---- The formula ------------------------------------------------------------------------- */

typedef struct reference {
    double *w, *m, *v; /* v [rows, cols]: of vectors; of matrices r, c */
    double *r, *c;
} reference;

static double *doubles(int64_t n)
{
    double *x = calloc((size_t)n + 1, sizeof *x);
    assert_non_null(x);
    return x;
}

/* Step t of a tensor of n weights in `cols` columns (a vector: cols n, and it is factored where
   `matrix`, 1 row or column included), from its place in the arrays. */
static void formula(const slg_adafactor_opts *o, int t, double lr, double lr_scale, int64_t n,
                    int64_t cols, bool matrix, const double *g, reference *s)
{
    const int64_t rows = n / cols;
    const double b = 1 - pow(t, -o->decay_rate);
    double mean = 0, uu = 0, ww = 0, *u = doubles(n);
    if (matrix) {
        for (int64_t i = 0; i < rows; i++) s->r[i] *= b;
        for (int64_t j = 0; j < cols; j++) s->c[j] *= b;
        for (int64_t i = 0; i < n; i++) {
            const double x = (1 - b) * (g[i] * g[i] + o->eps1);
            s->r[i / cols] += x / (double)cols, s->c[i % cols] += x / (double)rows;
        }
        for (int64_t i = 0; i < rows; i++) mean += s->r[i] / (double)rows;
    }
    for (int64_t i = 0; i < n; i++) {
        s->v[i] = b * s->v[i] + (1 - b) * (g[i] * g[i] + o->eps1);
        if (matrix) s->v[i] = s->r[i / cols] * s->c[i % cols] / mean;
        u[i] = g[i] / sqrt(s->v[i]);
        uu += u[i] * u[i], ww += s->w[i] * s->w[i];
    }
    double a = lr_scale * (o->relative_step ? fmin(lr, 1 / sqrt(t)) : lr);
    if (o->scale_parameter) a *= fmax(o->eps2, sqrt(ww / (double)n));
    for (int64_t i = 0; i < n; i++) {
        const double move = u[i] / fmax(1, sqrt(uu / (double)n) / o->clip_threshold);
        s->m[i] = o->beta1 * s->m[i] + (1 - o->beta1) * move;
        s->w[i] = s->w[i] * (1 - a * o->weight_decay) - a * s->m[i];
    }
    free(u);
}

static void options(int variant, any_opts *o)
{
    memset(o, 0, sizeof *o);
    rule->options(variant, o);
}

static reference reference_at(const reference *all, int64_t at)
{
    return (reference){ all->w + at, all->m + at, all->v + at, all->r + at, all->c + at };
}

/* 60 steps, with rates on both sides of the relative one; a frozen tensor and one of other
   rates. Errors in units of a weight's largest value on the way. */
static void follow(slg_ctx *ctx, int variant, double *worst)
{
    any_opts opts;
    list l;
    slg_param_group group;
    options(variant, &opts);
    make(&l, mixed, COUNT(mixed));
    slg_optimizer *o = create_for(ctx, &l, &opts, 0);
    slg_param_group_init(&group, sizeof group);
    group.lr_scale = 0.25, group.decay_scale = 0;
    OK(ctx, slg_optimizer_set_group(o, 4, 1, &group));
    slg_param_group_init(&group, sizeof group);
    group.frozen = 1;
    OK(ctx, slg_optimizer_set_group(o, 1, 1, &group));
    double *g = doubles(l.n), *top = doubles(l.n);
    reference all = { doubles(l.n), doubles(l.n), doubles(l.n), doubles(l.n), doubles(l.n) };
    for (int64_t i = 0; i < l.n; i++) all.w[i] = (double)l.w[i];
    for (int t = 1; t <= 60; t++) {
        const double lr = t % 2 ? 0.01 : 0.5, scale = t % 3 ? 1 : 0.25;
        gradients(&l);
        for (int64_t i = 0; i < l.n; i++) g[i] = scale * (double)l.g[i];
        OK(ctx, slg_optimizer_set_lr(o, lr));
        OK(ctx, slg_optimizer_set_grad_scale(o, scale));
        OK(ctx, slg_optimizer_step_list(o, l.count, l.wp, l.gp));
        for (int64_t i = 0; i < l.count; i++) {
            const int64_t at = (float *)l.ws[i].data - l.w;
            const int64_t n = (i + 1 < l.count ? (float *)l.ws[i + 1].data - l.w : l.n) - at;
            reference s = reference_at(&all, at);
            slg_adafactor_opts now = opts.adafactor;
            if (i == 4) now.weight_decay = 0;
            if (i != 1 && n > 0)
                formula(&now, t, lr, i == 4 ? 0.25 : 1, n, l.ws[i].shape[l.ws[i].ndim - 1],
                        l.ws[i].ndim > 1, g + at, &s);
        }
        for (int64_t i = 0; i < l.n; i++) {
            top[i] = fmax(top[i], fabs(all.w[i]));
            const double e = fabs((double)l.w[i] - all.w[i]) / fmax(1, top[i]);
            if (!(e <= 5e-6))
                fail_msg("variant %d, step %d: w[%lld] is %.9g, should be %.9g", variant, t,
                         (long long)i, (double)l.w[i], all.w[i]);
            *worst = fmax(*worst, e);
        }
    }
    free(g), free(top), free(all.w), free(all.m), free(all.v), free(all.r), free(all.c);
    slg_optimizer_free(o);
    drop(&l);
}

static void test_formula(void **state)
{
    double worst = 0;
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int variant = 0; variant < RULE_VARIANTS; variant++) follow(ctx, variant, &worst);
    print_message("60 steps: error %.2g of 5e-6\n", worst);
}

/* ---- Shapes ------------------------------------------------------------------------------ */

/* Three steps of a list; the caller drops it. */
static list walk_list(slg_ctx *ctx, const int64_t (*shapes)[5], int64_t count, int variant)
{
    any_opts opts;
    list l;
    seed = 4711;
    options(variant, &opts);
    make(&l, shapes, count);
    slg_optimizer *o = create_for(ctx, &l, &opts, variant == 4);
    for (int t = 0; t < 3; t++) {
        gradients(&l);
        OK(ctx, slg_optimizer_step_list(o, count, l.wp, l.gp));
    }
    slg_optimizer_free(o);
    return l;
}

/* Leading dimensions are rows; one row or one column is a vector; of slg_optimizer_create all
   are vectors. */
static void test_shapes(void **state)
{
    static const int64_t same[][2][5] = {
        { { 4, 2, 3, 5, 7 }, { 2, 30, 7 } },
        { { 3, 1, 1, 40 }, { 1, 40 } },
        { { 2, 40, 1 }, { 1, 40 } },
        { { 4, 1, 6, 1, 5 }, { 2, 6, 5 } },
    };
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        for (int64_t i = 0; i < COUNT(same); i++) {
            list a = walk_list(ctx, &same[i][0], 1, variant);
            list b = walk_list(ctx, &same[i][1], 1, variant);
            assert_memory_equal(a.w, b.w, (size_t)a.n * sizeof *a.w);
            drop(&a), drop(&b);
        }
        if (variant == 4) continue; /* in bf16 there */
        static const int64_t vector[1][5] = { { 1, 300 } }, matrix[1][5] = { { 2, 20, 15 } };
        any_opts opts;
        list a = walk_list(ctx, vector, 1, variant), b;
        slg_optimizer *o;
        seed = 4711;
        options(variant, &opts);
        make(&b, matrix, 1);
        OK(ctx, slg_optimizer_create(ctx, rule->kind, b.n, &opts, &o));
        for (int t = 0; t < 3; t++) {
            gradients(&b);
            OK(ctx, slg_optimizer_step(o, b.wp[0], b.gp[0]));
        }
        assert_memory_equal(a.w, b.w, (size_t)a.n * sizeof *a.w);
        slg_optimizer_free(o);
        drop(&a), drop(&b);
    }
}

static void test_threads(void **state)
{
    static const int64_t large[][5] = { { 2, 700, 300 }, { 2, 3, 70001 }, { 2, 70001, 3 },
                                        { 2, 5000, 65 }, { 1, 140001 },   { 2, 17, 9000 } };
    const int32_t threads[] = { 2, 3, 8 };
    (void)state;
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++)
        for (int variant = 0; variant < RULE_VARIANTS; variant += 2) {
            slg_ctx *one = context(isa, 1);
            if (!one) continue;
            list want = walk_list(one, large, COUNT(large), variant);
            for (int64_t j = 0; j < COUNT(threads); j++) {
                slg_ctx *ctx = context(isa, threads[j]);
                list got = walk_list(ctx, large, COUNT(large), variant);
                assert_memory_equal(got.w, want.w, (size_t)got.n * sizeof *got.w);
                drop(&got);
                slg_ctx_free(ctx);
            }
            drop(&want);
            slg_ctx_free(one);
        }
}

static void test_guards(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int64_t rows = 1; rows < 6; rows++)
        for (int64_t cols = 1; cols < 40; cols++)
            for (int side = GUARD_AFTER; side <= GUARD_BEFORE; side++) {
                const int64_t shape[1][5] = { { 2, rows, cols } }, n = rows * cols;
                any_opts opts;
                list l;
                options(0, &opts);
                make(&l, shape, 1);
                slg_optimizer *o = create_for(ctx, &l, &opts, 1);
                slg_optimizer *p = create_for(ctx, &l, &opts, 1);
                guard gw = guard_copy(l.w, (size_t)n * 4, (enum guard_side)side);
                guard gg = guard_copy(l.g, (size_t)n * 4, (enum guard_side)side);
                guard_lock(&gg);
                slg_tensor w = l.ws[0], g = l.gs[0];
                w.data = gw.data, g.data = gg.data;
                for (int t = 0; t < 2; t++) {
                    OK(ctx, slg_optimizer_step(o, &w, &g));
                    OK(ctx, slg_optimizer_step(p, l.wp[0], l.gp[0]));
                }
                assert_memory_equal(gw.data, l.w, (size_t)n * 4);
                assert_true(guard_intact(&gw) && guard_intact(&gg));
                slg_optimizer_free(o), slg_optimizer_free(p);
                guard_free(&gw), guard_free(&gg);
                drop(&l);
            }
}

/* ---- Chains, NaN ------------------------------------------------------------------------- */

/* A chain does to matrices what the functions do before a step. */
static void test_chain(void **state)
{
    const slg_transform links[] = { { SLG_PERPENDICULAR, 1, 0, 0, 1e-6 },
                                    { SLG_CLIP_VALUE, 0, 0, 0, 2 },
                                    { SLG_CLIP_NORM, 0, 0, 0, 1 } };
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int variant = 0; variant < 4; variant++) {
        any_opts opts;
        list a, b;
        slg_perpendicular_opts perp;
        slg_tensor *gb[MOST];
        options(variant, &opts);
        slg_perpendicular_opts_init(&perp, sizeof perp);
        perp.rescale = 1, perp.skip_scalars = 0, perp.threshold = 1e-6;
        make(&a, mixed, COUNT(mixed)), make(&b, mixed, COUNT(mixed));
        memcpy(b.w, a.w, (size_t)a.n * sizeof *a.w);
        for (int64_t i = 0; i < b.count; i++) gb[i] = &b.gs[i];
        slg_optimizer *o = create_for(ctx, &a, &opts, 0), *p = create_for(ctx, &b, &opts, 0);
        OK(ctx, slg_optimizer_set_chain(o, 3, links));
        for (int t = 0; t < 4; t++) {
            slg_optimizer_report report;
            slg_optimizer_report_init(&report, sizeof report);
            gradients(&a);
            memcpy(b.g, a.g, (size_t)a.n * sizeof *a.g);
            OK(ctx, slg_perpendicular_gradient_list(ctx, b.count, b.wc, gb, &perp, NULL));
            OK(ctx, slg_clip_grad_value(ctx, b.count, gb, 2));
            OK(ctx, slg_clip_grad_norm(ctx, b.count, gb, 1, NULL));
            OK(ctx, slg_optimizer_step_list(o, a.count, a.wp, a.gp));
            OK(ctx, slg_optimizer_step_list(p, b.count, b.wp, b.gp));
            OK(ctx, slg_optimizer_last_step(o, &report));
            assert_true(report.grad_norm > 1 && report.clip_factor < 1 && !report.skipped);
            for (int64_t i = 0; i < a.n; i++)
                assert_true(fabs((double)(a.w[i] - b.w[i])) <= 2e-5);
            memcpy(b.w, a.w, (size_t)a.n * sizeof *a.w);
        }
        slg_optimizer_free(o), slg_optimizer_free(p);
        drop(&a), drop(&b);
    }
}

/* The numbers at the end of an exported state. */
static int64_t nans_in_state(slg_ctx *ctx, slg_optimizer *o, int64_t numbers)
{
    int64_t bytes, nans = 0;
    unsigned char *s = export_state(ctx, o, &bytes);
    for (int64_t i = 0; i < numbers; i++) {
        float x;
        memcpy(&x, s + bytes - 4 * (i + 1), 4);
        nans += isnan(x) != 0;
    }
    free(s);
    return nans;
}

/* A NaN reaches its tensor and no other, R and C of its row and column; none where such steps
   are skipped; and a reset heals the state. */
static void test_nan(void **state)
{
    static const int64_t shapes[][5] = { { 2, 6, 5 }, { 2, 7, 4 }, { 1, 9 } };
    const slg_transform skips = { SLG_SKIP_NONFINITE, 0, 0, 0, 0 };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int bad = 0; bad < 3; bad++) {
        any_opts opts;
        list a, b;
        options(1, &opts);
        make(&a, shapes, COUNT(shapes)), make(&b, shapes, COUNT(shapes));
        memcpy(b.w, a.w, (size_t)a.n * sizeof *a.w);
        slg_optimizer *o = create_for(ctx, &a, &opts, 0), *p = create_for(ctx, &b, &opts, 0);
        const int64_t from = (float *)a.ws[bad].data - a.w;
        const int64_t to = bad < 2 ? (float *)a.ws[bad + 1].data - a.w : a.n;
        gradients(&a);
        memcpy(b.g, a.g, (size_t)a.n * sizeof *a.g);
        b.g[from + 3] = NAN;
        OK(ctx, slg_optimizer_set_chain(p, 1, &skips));
        OK(ctx, slg_optimizer_step_list(p, b.count, b.wp, b.gp));
        assert_memory_equal(a.w, b.w, (size_t)a.n * sizeof *a.w);
        assert_int_equal(nans_in_state(ctx, p, 6 + 5 + 7 + 4 + 9), 0);
        OK(ctx, slg_optimizer_set_chain(p, 0, NULL));
        OK(ctx, slg_optimizer_step_list(p, b.count, b.wp, b.gp));
        OK(ctx, slg_optimizer_step_list(o, a.count, a.wp, a.gp));
        for (int64_t i = 0; i < a.n; i++)
            assert_true(i >= from && i < to ? isnan(b.w[i]) : a.w[i] == b.w[i]);
        assert_int_equal(nans_in_state(ctx, p, 6 + 5 + 7 + 4 + 9), bad < 2 ? 2 : 1);
        OK(ctx, slg_optimizer_reset(p));
        assert_int_equal(nans_in_state(ctx, p, 6 + 5 + 7 + 4 + 9), 0);
        slg_optimizer_free(o), slg_optimizer_free(p);
        drop(&a), drop(&b);
    }
}

/* No gradient, and the smallest and largest that are allowed: all is finite. */
static void test_extremes(void **state)
{
    static const int64_t shapes[][5] = { { 2, 6, 5 }, { 1, 9 } };
    const float sizes[] = { 0, 1e-38f, 1e-20f, 1e18f };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int64_t s = 0; s < COUNT(sizes); s++) {
        any_opts opts;
        list l;
        options(0, &opts);
        make(&l, shapes, COUNT(shapes));
        slg_optimizer *o = create_for(ctx, &l, &opts, 0);
        for (int t = 0; t < 5; t++) {
            float *before = malloc((size_t)l.n * sizeof *before);
            memcpy(before, l.w, (size_t)l.n * sizeof *before);
            for (int64_t i = 0; i < l.n; i++) l.g[i] = sizes[s] * (i % 3 == 1 ? -1.0f : 1.0f);
            OK(ctx, slg_optimizer_step_list(o, l.count, l.wp, l.gp));
            for (int64_t i = 0; i < l.n; i++)
                assert_true(isfinite(l.w[i]) && (sizes[s] > 0 || l.w[i] == before[i]));
            free(before);
        }
        slg_optimizer_free(o);
        drop(&l);
    }
}

/* ---- State ------------------------------------------------------------------------------- */

/* How much there is; it goes on bit for bit; other matrices and damage are refused. */
static void test_state(void **state)
{
    static const int64_t shapes[][5] = { { 2, 3, 4 }, { 1, 5 }, { 2, 6, 2 } };
    static const int64_t turned[][5] = { { 2, 4, 3 }, { 1, 5 }, { 2, 6, 2 } };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int half = 0; half < 2; half++) {
        any_opts opts;
        list l, m, other;
        int64_t bytes, none;
        options(0, &opts);
        make(&l, shapes, 3), make(&m, shapes, 3), make(&other, turned, 3);
        slg_optimizer *o = create_for(ctx, &l, &opts, half), *p, *q;
        p = create_for(ctx, &m, &opts, half), q = create_for(ctx, &other, &opts, half);
        for (int t = 0; t < 3; t++) {
            gradients(&l);
            OK(ctx, slg_optimizer_step_list(o, 3, l.wp, l.gp));
        }
        unsigned char *s = export_state(ctx, o, &bytes);
        slg_optimizer *empty = create_for(ctx, &(list){ .count = 0 }, &opts, half);
        OK(ctx, slg_optimizer_export(empty, NULL, 0, &none));
        assert_int_equal(bytes - none, 4 * (3 + 4 + 5 + 6 + 2) + (half ? 2 : 4) * 29);
        assert_int_equal(slg_optimizer_import(q, s, bytes), SLG_ERR_STATE);
        for (int64_t i = 0; i < 8 * bytes; i++) {
            s[i / 8] ^= (unsigned char)(1 << i % 8);
            assert_int_equal(slg_optimizer_import(p, s, bytes), SLG_ERR_STATE);
            s[i / 8] ^= (unsigned char)(1 << i % 8);
        }
        OK(ctx, slg_optimizer_import(p, s, bytes));
        memcpy(m.w, l.w, (size_t)l.n * sizeof *l.w);
        for (int t = 0; t < 3; t++) {
            gradients(&l);
            memcpy(m.g, l.g, (size_t)l.n * sizeof *l.g);
            OK(ctx, slg_optimizer_step_list(o, 3, l.wp, l.gp));
            OK(ctx, slg_optimizer_step_list(p, 3, m.wp, m.gp));
            assert_memory_equal(m.w, l.w, (size_t)l.n * sizeof *l.w);
        }
        free(s);
        slg_optimizer_free(o), slg_optimizer_free(p), slg_optimizer_free(q);
        slg_optimizer_free(empty);
        drop(&l), drop(&m), drop(&other);
    }
}

/* ---- Lists of shapes --------------------------------------------------------------------- */

/* For rules that do not see shapes it is the optimizer of as many weights, which a step's list
   must match. */
static void test_create_list(void **state)
{
    rule = *state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    list l, m;
    slg_optimizer *o, *p;
    const any_opts *opts = rule_options(0);
    const char *const op = "slg_optimizer_step";
    make(&l, mixed, COUNT(mixed)), make(&m, mixed, COUNT(mixed));
    memcpy(m.w, l.w, (size_t)l.n * sizeof *l.w), memcpy(m.g, l.g, (size_t)l.n * sizeof *l.g);
    for (int64_t i = 0; i < l.count; i++) l.ws[i].data = NULL, l.ws[i].stride[0] = 77;
    o = create_for(ctx, &l, opts, 0);
    for (int64_t i = 0; i < l.count; i++) l.ws[i] = m.ws[i];
    place(&l);
    OK(ctx, slg_optimizer_create(ctx, rule->kind, l.n, opts, &p));
    for (int t = 0; t < 2; t++) {
        OK(ctx, slg_optimizer_step_list(o, l.count, l.wp, l.gp));
        OK(ctx, slg_optimizer_step_list(p, m.count, m.wp, m.gp));
        if (rule->step) assert_memory_equal(l.w, m.w, (size_t)l.n * sizeof *l.w);
    }
    memcpy(m.w, l.w, (size_t)l.n * sizeof *l.w);
    slg_tensor w = slg_tensor_1d(l.w, SLG_F32, l.n), g = slg_tensor_1d(l.g, SLG_F32, l.n);
    expect_error(ctx, __LINE__, slg_optimizer_step(o, &w, &g), SLG_ERR_SHAPE, op, "made for 9");
    l.ws[7] = l.gs[7] = slg_tensor_2d(NULL, SLG_F32, 33, 40);
    l.ws[7].data = m.ws[7].data, l.gs[7].data = m.gs[7].data;
    expect_error(ctx, __LINE__, slg_optimizer_step_list(o, l.count, l.wp, l.gp), SLG_ERR_SHAPE,
                 op, "creation");
    assert_int_equal(slg_optimizer_steps(o), 2);
    assert_memory_equal(l.w, m.w, (size_t)l.n * sizeof *l.w);
    slg_optimizer_free(o), slg_optimizer_free(p);
#define LIST_REFUSED(count, w, status, part)                                                   \
    do {                                                                                       \
        o = (slg_optimizer *)(uintptr_t)1;                                                     \
        expect_error(ctx, __LINE__,                                                            \
                     slg_optimizer_create_list(ctx, rule->kind, count, w, NULL, NULL, &o),     \
                     status, "slg_optimizer_create: ", part);                                  \
        assert_null(o);                                                                        \
    } while (0)
    const slg_tensor *const missing[] = { l.wc[0], NULL };
    LIST_REFUSED(2, missing, SLG_ERR_NULL, "w[1]");
    LIST_REFUSED(1, NULL, SLG_ERR_NULL, "w is NULL");
    LIST_REFUSED(-1, l.wc, SLG_ERR_RANGE, "count is -1");
    LIST_REFUSED(INT64_MAX, l.wc, SLG_ERR_RANGE, "count");
    l.ws[0].dtype = SLG_F64;
    LIST_REFUSED(1, l.wc, SLG_ERR_DTYPE, "w");
    l.ws[0].dtype = SLG_F32, l.ws[0].ndim = 5;
    LIST_REFUSED(1, l.wc, SLG_ERR_SHAPE, "w");
    l.ws[0].ndim = 2, l.ws[0].shape[0] = -1;
    LIST_REFUSED(1, l.wc, SLG_ERR_SHAPE, "w");
    l.ws[0].shape[0] = INT64_MAX / 128, l.ws[0].shape[1] = 1;
    const slg_tensor *const many[] = { l.wc[0], l.wc[0], l.wc[0] };
    LIST_REFUSED(3, many, SLG_ERR_RANGE, "n is ");
#undef LIST_REFUSED
    assert_int_equal(slg_optimizer_create_list(NULL, rule->kind, 0, NULL, NULL, NULL, &o),
                     SLG_ERR_NULL);
    drop(&l), drop(&m);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest rules[] = { cmocka_unit_test(test_create_list) };
    const struct CMUnitTest single[] = {
        cmocka_unit_test(test_formula),  cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_threads),  cmocka_unit_test(test_guards),
        cmocka_unit_test(test_chain),    cmocka_unit_test(test_nan),
        cmocka_unit_test(test_extremes), cmocka_unit_test(test_state),
    };
    const int failed = run_over_rules(rules, COUNT(rules));
    for (int64_t i = 0; i < COUNT(rule_cases); i++)
        if (rule_cases[i].kind == SLG_ADAFACTOR) rule = &rule_cases[i];
    return failed + cmocka_run_group_tests(single, NULL, NULL);
}
