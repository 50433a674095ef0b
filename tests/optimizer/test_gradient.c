/*
 * Transformations of gradients as functions: identities, edge cases, errors.
 */
#include "optimizer_test.h"

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* g of the formula, in double. */
static void reference(const float *w, const float *g, int64_t n, int rescale, double *out)
{
    const double ww = dot(w, w, n), c = ww > 0 ? dot(w, g, n) / ww : 0, gg = dot(g, g, n);
    double oo = 0;
    for (int64_t i = 0; i < n; i++) {
        out[i] = (double)g[i] - c * (double)w[i];
        oo += out[i] * out[i];
    }
    for (int64_t i = 0; rescale && oo > 0 && i < n; i++) out[i] *= sqrt(gg / oo);
}

static slg_status project(slg_ctx *ctx, const float *w, float *g, int64_t n,
                          const slg_perpendicular_opts *opts, double *cosine)
{
    slg_tensor ws = slg_tensor_1d((float *)(uintptr_t)w, SLG_F32, n);
    slg_tensor gs = slg_tensor_1d(g, SLG_F32, n);
    return slg_perpendicular_gradient(ctx, &ws, &gs, opts, cosine);
}

/* Sizes over pieces and threads, magnitudes that float32 cannot square. */
static void test_projection(void **state)
{
    (void)state;
    const int64_t sizes[] = { 2, 3, 17, 1000, 70000, 200001 };
    const float scales[][2] = {
        { 1, 1 }, { 1e20f, 1 }, { 1e-25f, 1 }, { 1e20f, 1e25f }, { 1, 1e-25f }
    };
    FOR_EACH_ISA(ctx, 3)
    for (int64_t s = 0; s < COUNT(sizes); s++)
        for (int64_t m = 0; m < COUNT(scales); m++)
            for (int rescale = 0; rescale < 2; rescale++) {
                const int64_t n = sizes[s];
                float *w = random_floats(n), *g = random_floats(n), *o = malloc((size_t)n * 4);
                double *want = malloc((size_t)n * 8), cosine;
                for (int64_t i = 0; i < n; i++) w[i] *= scales[m][0], g[i] *= scales[m][1];
                memcpy(o, g, (size_t)n * 4);
                slg_perpendicular_opts opts;
                slg_perpendicular_opts_init(&opts, sizeof opts);
                opts.rescale = rescale;
                OK(ctx, project(ctx, w, o, n, &opts, &cosine));
                reference(w, g, n, rescale, want);
                double top = 0;
                for (int64_t i = 0; i < n; i++) top = fmax(top, fabs(want[i]));
                for (int64_t i = 0; i < n; i++)
                    assert_true(fabs((double)o[i] - want[i]) <= 1e-6 * top);
                const double norms = sqrt(dot(w, w, n)) * sqrt(dot(g, g, n));
                assert_true(fabs(dot(w, o, n)) <= 1e-6 * norms);
                assert_true(fabs(cosine - dot(w, g, n) / norms) <= 1e-12);
                if (rescale) assert_true(fabs(dot(o, o, n) / dot(g, g, n) - 1) <= 1e-6);
                /* Again: nothing is left to remove. */
                memcpy(g, o, (size_t)n * 4);
                OK(ctx, project(ctx, w, o, n, &opts, NULL));
                for (int64_t i = 0; i < n; i++)
                    assert_true(fabs((double)(o[i] - g[i])) <= 1e-6 * top);
                free(w), free(g), free(o), free(want);
            }
}

/* Scaling w changes nothing; with plain descent |w|^2 grows by lr^2 |g|^2. */
static void test_projection_identities(void **state)
{
    (void)state;
    enum { N = 5000 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float *w = random_floats(N), *g = random_floats(N), a[N], b[N];
    memcpy(a, g, sizeof a), memcpy(b, g, sizeof b);
    OK(ctx, project(ctx, w, a, N, NULL, NULL));
    for (int i = 0; i < N; i++) w[i] *= -8;
    OK(ctx, project(ctx, w, b, N, NULL, NULL));
    assert_memory_equal(a, b, sizeof a);
    const double before = dot(w, w, N);
    for (int i = 0; i < N; i++) w[i] -= 0.5f * a[i];
    assert_true(fabs(dot(w, w, N) - before - 0.25 * dot(g, g, N)) <= 1e-6 * before);
    free(w), free(g);
    slg_ctx_free(ctx);
}

static void test_projection_edges(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_perpendicular_opts opts;
    double cosine;
    float zero[3] = { 0, -0.0f, 0 }, w[3] = { 1, -2, 0.5f }, g[3] = { 0.25f, 3, -1 }, o[3];
    memcpy(o, g, sizeof o);
    OK(ctx, project(ctx, zero, o, 3, NULL, &cosine)); /* w = 0 */
    assert_memory_equal(o, g, sizeof o);
    assert_true(cosine == 0);
    memset(o, 0, sizeof o);
    OK(ctx, project(ctx, w, o, 3, NULL, &cosine)); /* g = 0 */
    assert_true(o[0] == 0 && o[1] == 0 && o[2] == 0 && cosine == 0);
    for (int i = 0; i < 3; i++) o[i] = -3 * w[i]; /* parallel */
    OK(ctx, project(ctx, w, o, 3, NULL, &cosine));
    assert_true(o[0] == 0 && o[1] == 0 && o[2] == 0 && fabs(cosine + 1) < 1e-15);
    /* Nearly parallel: below the threshold, and just above it. */
    const double angles[] = { 0.5e-6, 2e-6, 1e-3 };
    for (int a = 0; a < 3; a++) {
        float u[2] = { 1, 0 }, v[2] = { 1, (float)angles[a] };
        OK(ctx, project(ctx, u, v, 2, NULL, NULL));
        assert_true(v[0] == 0 && fabs((double)v[1] - (a > 0)) < 1e-6);
    }
    /* One element: 0, or left alone. */
    float one = 3;
    slg_perpendicular_opts_init(&opts, sizeof opts);
    opts.skip_scalars = 1;
    OK(ctx, project(ctx, w, &one, 1, &opts, &cosine));
    assert_true(one == 3 && cosine == 1);
    OK(ctx, project(ctx, w, &one, 1, NULL, NULL));
    assert_true(one == 0);
    /* NaN, infinity: left as it is, and said. */
    const float bad[] = { NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 3; i++) {
        float h[3] = { 1, bad[i], 2 }, kept[3];
        memcpy(kept, h, sizeof h);
        OK(ctx, project(ctx, w, h, 3, NULL, &cosine));
        assert_memory_equal(h, kept, sizeof h);
        assert_true(isnan(cosine));
        float x[3] = { 1, bad[i], 2 };
        memcpy(o, g, sizeof o);
        OK(ctx, project(ctx, x, o, 3, NULL, &cosine));
        assert_memory_equal(o, g, sizeof o);
        assert_true(isnan(cosine));
    }
    OK(ctx, project(ctx, NULL, NULL, 0, NULL, &cosine));
    assert_true(cosine == 0);
    OK(ctx, slg_perpendicular_gradient_list(ctx, 0, NULL, NULL, NULL, NULL));
    slg_ctx_free(ctx);
}

/* A list is each by itself; any number of threads gives the same bits. */
static void test_projection_list(void **state)
{
    (void)state;
    enum { N = 150000, PARTS = 5 };
    const int64_t cuts[PARTS + 1] = { 0, 1, 100, 100, 80000, N };
    float *w = random_floats(N), *g = random_floats(N), *last = NULL;
    for (int32_t threads = 1; threads < 9; threads = threads == 3 ? 8 : threads + 1) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
        float *one = malloc(N * sizeof *one), *list = malloc(N * sizeof *list);
        slg_tensor ws[PARTS], gs[PARTS], *gp[PARTS];
        const slg_tensor *wp[PARTS];
        double cosine[PARTS], alone;
        memcpy(one, g, N * sizeof *one), memcpy(list, g, N * sizeof *one);
        for (int i = 0; i < PARTS; i++) {
            const int64_t n = cuts[i + 1] - cuts[i];
            ws[i] = slg_tensor_1d(w + cuts[i], SLG_F32, n);
            gs[i] = slg_tensor_1d(list + cuts[i], SLG_F32, n);
            wp[i] = &ws[i], gp[i] = &gs[i];
        }
        OK(ctx, slg_perpendicular_gradient_list(ctx, PARTS, wp, gp, NULL, cosine));
        for (int i = 0; i < PARTS; i++) {
            OK(ctx,
               project(ctx, w + cuts[i], one + cuts[i], cuts[i + 1] - cuts[i], NULL, &alone));
            assert_true(alone == cosine[i]);
        }
        assert_memory_equal(one, list, N * sizeof *one);
        if (last) assert_memory_equal(last, list, N * sizeof *one);
        free(last), free(one);
        last = list;
        slg_ctx_free(ctx);
    }
    free(last), free(w), free(g);
}

/* ---- Clipping ---------------------------------------------------------------------------- */

static void test_clip_norm(void **state)
{
    (void)state;
    enum { N = 70000, CUT = 60 };
    FOR_EACH_ISA(ctx, 2)
    {
        float *g = random_floats(N), *kept = malloc(N * sizeof *kept);
        slg_tensor parts[2] = { slg_tensor_1d(g, SLG_F32, CUT),
                                slg_tensor_1d(g + CUT, SLG_F32, N - CUT) };
        slg_tensor *list[2] = { &parts[0], &parts[1] };
        double norm, want = sqrt(dot(g, g, N));
        memcpy(kept, g, N * sizeof *g);
        OK(ctx, slg_clip_grad_norm(ctx, 2, list, 1000, &norm)); /* not reached */
        assert_memory_equal(kept, g, N * sizeof *g);
        assert_true(fabs(norm / want - 1) < 1e-12);
        OK(ctx, slg_clip_grad_norm(ctx, 2, list, 2, NULL));
        const double factor = 2 / (want + 1e-6);
        for (int i = 0; i < N; i++)
            assert_true(fabs((double)g[i] - factor * (double)kept[i]) <=
                        1e-7 * fabs((double)g[i]));
        OK(ctx, slg_clip_grad_norm(ctx, 2, list, 0, NULL));
        for (int i = 0; i < N; i++) assert_true(g[i] == 0);
        OK(ctx, slg_clip_grad_norm(ctx, 2, list, 1, &norm)); /* of zeros */
        assert_true(norm == 0 && g[0] == 0);
        const float bad[] = { NAN, INFINITY, -INFINITY };
        for (int i = 0; i < 3; i++) {
            memcpy(g, kept, N * sizeof *g);
            g[CUT] = bad[i];
            OK(ctx, slg_clip_grad_norm(ctx, 2, list, 1, &norm));
            assert_true(g[0] == kept[0] && g[N - 1] == kept[N - 1]);
            assert_true(i == 0 ? isnan(norm) : isinf(norm));
        }
        memcpy(g, kept, N * sizeof *g);
        for (int i = 0; i < N; i++) g[i] *= 1e30f; /* squares overflow float32 */
        OK(ctx, slg_clip_grad_norm(ctx, 2, list, 1, &norm));
        assert_true(fabs(norm / (1e30 * want) - 1) < 1e-6);
        assert_true(fabs(sqrt(dot(g, g, N)) - 1) < 1e-6);
        free(g), free(kept);
    }
}

static void test_clip_value(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        float g[] = { 1, -3, 0.5f, NAN, INFINITY, -INFINITY, -0.0f, 2, -2 };
        const float want[] = { 1, -2, 0.5f, NAN, 2, -2, -0.0f, 2, -2 };
        slg_tensor t = slg_tensor_1d(g, SLG_F32, 9), *list = &t;
        OK(ctx, slg_clip_grad_value(ctx, 1, &list, 2));
        for (int i = 0; i < 9; i++)
            assert_true(isnan(want[i]) ? isnan(g[i]) : memcmp(&g[i], &want[i], 4) == 0);
        OK(ctx, slg_clip_grad_value(ctx, 0, NULL, 2));
    }
}

/* ---- Errors ------------------------------------------------------------------------------ */

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float w[8] = { 1, 2, 3, 4 }, g[8] = { 4, 3, 2, -1 }, kept[8];
    memcpy(kept, g, sizeof g);
    slg_tensor a, b, *list[2] = { &b, &b };
    slg_perpendicular_opts o;
    double cosine[2] = { 7, 7 };
#define REFUSED(status, part, ...)                                                             \
    do {                                                                                       \
        a = slg_tensor_1d(w, SLG_F32, 4), b = slg_tensor_1d(g, SLG_F32, 4);                    \
        slg_perpendicular_opts_init(&o, sizeof o);                                             \
        __VA_ARGS__;                                                                           \
        expect_error(ctx, __LINE__, slg_perpendicular_gradient(ctx, &a, &b, &o, cosine),       \
                     status, "slg_perpendicular_gradient: ", part);                            \
        assert_memory_equal(kept, g, sizeof g);                                                \
        assert_true(cosine[0] == 7);                                                           \
    } while (0)
    REFUSED(SLG_ERR_NULL, "w", a.data = NULL);
    REFUSED(SLG_ERR_NULL, "g", b.data = NULL);
    REFUSED(SLG_ERR_DTYPE, "w", a.dtype = SLG_BF16);
    REFUSED(SLG_ERR_DTYPE, "g", b.dtype = SLG_F64);
    REFUSED(SLG_ERR_SHAPE, "g", b.shape[0] = 3);
    REFUSED(SLG_ERR_STRIDE, "contiguous", b.stride[0] = 2; b.shape[0] = a.shape[0] = 2);
    REFUSED(SLG_ERR_STRIDE, "overlap", b.data = w + 1);
    REFUSED(SLG_ERR_STRIDE, "overlap", b.data = w);
    REFUSED(SLG_ERR_RANGE, "rescale", o.rescale = 2);
    REFUSED(SLG_ERR_RANGE, "skip_scalars", o.skip_scalars = -1);
    REFUSED(SLG_ERR_RANGE, "threshold", o.threshold = -1);
    REFUSED(SLG_ERR_RANGE, "threshold", o.threshold = NAN);
    REFUSED(SLG_ERR_RANGE, "threshold", o.threshold = 1.5);
    REFUSED(SLG_ERR_OPTIONS, "reserved", o.reserved = 1);
    REFUSED(SLG_ERR_OPTIONS, "opts", o.size = 2);
#undef REFUSED
    b = slg_tensor_1d(g, SLG_F32, 4);
    const double bad[] = { -1, NAN, INFINITY };
    for (int i = 0; i < 3; i++) {
        expect_error(ctx, __LINE__, slg_clip_grad_norm(ctx, 1, list, bad[i], cosine),
                     SLG_ERR_RANGE, "slg_clip_grad_norm: ", "max_norm");
        expect_error(ctx, __LINE__, slg_clip_grad_value(ctx, 1, list, bad[i]), SLG_ERR_RANGE,
                     "slg_clip_grad_value: ", "limit");
    }
    expect_error(ctx, __LINE__, slg_clip_grad_norm(ctx, -1, list, 1, cosine), SLG_ERR_RANGE,
                 "slg_clip_grad_norm: ", "count");
    expect_error(ctx, __LINE__, slg_clip_grad_norm(ctx, 1, NULL, 1, cosine), SLG_ERR_NULL,
                 "slg_clip_grad_norm: ", "g");
    assert_int_equal(slg_clip_grad_norm(NULL, 1, list, 1, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_perpendicular_gradient(NULL, &a, &b, NULL, NULL), SLG_ERR_NULL);
    assert_true(cosine[0] == 7);
    assert_memory_equal(kept, g, sizeof g);
    slg_ctx_free(ctx);
}

/* ---- Schedules --------------------------------------------------------------------------- */

static void test_schedules(void **state)
{
    (void)state;
    for (int64_t t = 0; t < 10; t++) { /* the warm-up is the same in all */
        const double want = 0.5 * (double)(t + 1) / 10;
        assert_true(slg_lr_constant(0.5, t, 10) == want);
        assert_true(slg_lr_linear(0.5, 0.1, t, 10, 110) == want);
        assert_true(slg_lr_cosine(0.5, 0.1, t, 10, 110) == want);
        assert_true(slg_lr_inverse_sqrt(0.5, t, 10) == want);
    }
    assert_true(slg_lr_constant(0.5, 1000, 10) == 0.5);
    assert_true(fabs(slg_lr_linear(0.5, 0.1, 59, 10, 110) - 0.3) < 1e-15);
    assert_true(fabs(slg_lr_cosine(0.5, 0.1, 59, 10, 110) - 0.3) < 1e-15);
    assert_true(fabs(slg_lr_cosine(1, 0, 34, 10, 110) - 0.5 * (1 + sqrt(0.5))) < 1e-15);
    for (int64_t t = 109; t < 120; t++) {
        assert_true(fabs(slg_lr_linear(0.5, 0.1, t, 10, 110) - 0.1) < 1e-15);
        assert_true(fabs(slg_lr_cosine(0.5, 0.1, t, 10, 110) - 0.1) < 1e-15);
    }
    assert_true(slg_lr_inverse_sqrt(0.5, 39, 10) == 0.25);
    assert_true(slg_lr_inverse_sqrt(0.5, 3, 0) == 0.25);
    /* No warm-up; one step; nothing sensible. */
    assert_true(slg_lr_cosine(1, 0, 0, 0, 100) == 1 && slg_lr_linear(1, 0, 0, 0, 2) == 1);
    assert_true(slg_lr_cosine(1, 0.25, 0, 0, 1) == 0.25);
    assert_true(slg_lr_cosine(1, 0.25, 5, 0, -3) == 0.25);
    assert_true(slg_lr_constant(1, -5, 4) == 0.25 && slg_lr_constant(1, 0, -4) == 1);
    assert_true(slg_lr_cosine(1, 0, INT64_MAX, 0, INT64_MAX) == 0);
    assert_true(isnan(slg_lr_cosine(NAN, 0, 0, 0, 10)));
    for (int64_t t = 1; t < 200; t++) /* down, never up */
        assert_true(slg_lr_cosine(1, 0, t, 0, 100) <= slg_lr_cosine(1, 0, t - 1, 0, 100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_projection),       cmocka_unit_test(test_projection_identities),
        cmocka_unit_test(test_projection_edges), cmocka_unit_test(test_projection_list),
        cmocka_unit_test(test_clip_norm),        cmocka_unit_test(test_clip_value),
        cmocka_unit_test(test_errors),           cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
