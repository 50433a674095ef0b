/*
 * QK-normalisation and sigma-reparametrisation, forward and backward, against double
 * arithmetic, finite differences and what the methods promise.
 */
#include "loss/loss_test.h"

#include "support/gradcheck.h"

enum { MOST = 40000 };

/* ---- QK-normalisation -------------------------------------------------------------------- */

typedef struct norm_call {
    slg_ctx *ctx;
    int64_t rows, dim;
    slg_qk_norm_opts o;
    float x[MOST], dy[MOST], gain[256], y[MOST], dx[MOST], dgain[256];
    bool with_gain;
} norm_call;

static slg_tensor of(float *x, int64_t m, int64_t n) { return slg_tensor_2d(x, SLG_F32, m, n); }

static void norm_fill(norm_call *c, slg_ctx *ctx, int64_t m, int64_t n, int32_t form, bool gain)
{
    c->ctx = ctx, c->rows = m, c->dim = n, c->with_gain = gain;
    slg_qk_norm_opts_init(&c->o, sizeof c->o);
    assert_true(c->o.form == SLG_QK_NORM_L2 && c->o.eps == 1e-6);
    c->o.form = form;
    for (int64_t i = 0; i < m * n; i++)
        c->x[i] = (float)(3 * normal()), c->dy[i] = (float)normal();
    for (int64_t j = 0; j < n; j++) c->gain[j] = (float)(0.5 + uniform());
}

static void norm_run(norm_call *c)
{
    slg_tensor x = of(c->x, c->rows, c->dim), y = of(c->y, c->rows, c->dim);
    slg_tensor dy = of(c->dy, c->rows, c->dim), dx = of(c->dx, c->rows, c->dim);
    slg_tensor gain = slg_tensor_1d(c->gain, SLG_F32, c->dim);
    slg_tensor dgain = slg_tensor_1d(c->dgain, SLG_F32, c->dim);
    const slg_tensor *g = c->with_gain ? &gain : NULL;
    OK(c->ctx, slg_qk_norm(c->ctx, &x, g, &c->o, &y));
    OK(c->ctx, slg_qk_norm_backward(c->ctx, &x, g, &c->o, &dy, &dx, &dgain));
}

static void norm_check(const norm_call *c)
{
    double dgain[256] = { 0 };
    const double w = c->o.form == SLG_QK_NORM_RMS ? 1 / (double)c->dim : 1;
    for (int64_t i = 0; i < c->rows; i++) {
        const float *x = c->x + i * c->dim, *dy = c->dy + i * c->dim;
        double square = 0, dot = 0;
        for (int64_t j = 0; j < c->dim; j++) square += (double)x[j] * (double)x[j];
        const double r = sqrt(w * square + c->o.eps);
        for (int64_t j = 0; j < c->dim; j++) {
            const double gain = c->with_gain ? (double)c->gain[j] : 1;
            dot += (double)x[j] / r * gain * (double)dy[j];
            dgain[j] += (double)dy[j] * (double)x[j] / r;
        }
        for (int64_t j = 0; j < c->dim; j++) {
            const double gain = c->with_gain ? (double)c->gain[j] : 1, n = (double)x[j] / r;
            const double y = gain * n, dx = (gain * (double)dy[j] - n * dot * w) / r;
            assert_true(fabs((double)c->y[i * c->dim + j] - y) <= 2e-7 * fabs(y) + 1e-30);
            assert_true(fabs((double)c->dx[i * c->dim + j] - dx) <=
                        1e-6 * (1 + fabs(dx)) / fmin(r, 1));
        }
    }
    for (int64_t j = 0; j < c->dim; j++)
        assert_true(fabs((double)c->dgain[j] - dgain[j]) <= 1e-6 * (1 + fabs(dgain[j])));
}

static double norm_value(const float *x, void *arg)
{
    norm_call *c = arg;
    double sum = 0;
    (void)x;
    norm_run(c);
    for (int64_t i = 0; i < c->rows * c->dim; i++) sum += (double)c->y[i] * (double)c->dy[i];
    return sum;
}

static void test_qk_norm(void **state)
{
    static norm_call c;
    static const int64_t shapes[][2] = {
        { 5, 1 }, { 7, 3 }, { 600, 64 }, { 3, 129 }, { 0, 4 }
    };
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(shapes); i++)
        for (int32_t form = 0; form < 2; form++)
            for (int gain = 0; gain < 2; gain++) {
                norm_fill(&c, ctx, shapes[i][0], shapes[i][1], form, gain);
                norm_run(&c);
                norm_check(&c);
            }
}

static void test_qk_norm_gradient(void **state)
{
    static norm_call c;
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t form = 0; form < 2; form++) {
        norm_fill(&c, ctx, 4, 6, form, true);
        norm_run(&c);
        float dx[24], dgain[6];
        memcpy(dx, c.dx, sizeof dx), memcpy(dgain, c.dgain, sizeof dgain);
        const gradcheck_result g = gradcheck(norm_value, &c, c.x, 24, dx, NULL);
        const gradcheck_result h = gradcheck(norm_value, &c, c.gain, 6, dgain, NULL);
        assert_true(gradcheck_ok(&g, 2e-4, "dx") && gradcheck_ok(&h, 2e-4, "dgain"));
    }
    slg_ctx_free(ctx);
}

/* Zeros give zeros, NaN and infinity stay in their row; in place; bf16 by strides. */
static void test_qk_norm_edges(void **state)
{
    static norm_call c;
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        norm_fill(&c, ctx, 4, 5, SLG_QK_NORM_L2, false);
        for (int j = 0; j < 5; j++) c.x[j] = 0, c.x[5 + j] *= 1e30f;
        c.x[12] = NAN, c.x[18] = INFINITY;
        for (int eps = 0; eps < 2; eps++) {
            c.o.eps = eps ? 1e-6 : 0;
            norm_run(&c);
            double size = 0;
            for (int j = 0; j < 5; j++) {
                assert_true(c.y[j] == 0 && isfinite(c.dx[j]));
                size += (double)c.y[5 + j] * (double)c.y[5 + j];
                assert_true(isnan(c.y[10 + j]) && isnan(c.y[15 + j]));
            }
            assert_true(fabs(size - 1) < 1e-6);
        }
        norm_fill(&c, ctx, 30, 16, SLG_QK_NORM_RMS, true);
        norm_run(&c);
        float y[480];
        memcpy(y, c.y, sizeof y);
        slg_tensor x = of(c.x, 30, 16), gain = slg_tensor_1d(c.gain, SLG_F32, 16);
        tensor half = matrix(SLG_BF16, 30, 16, COL_GAPS),
               out = matrix(SLG_BF16, 30, 16, UPSIDE_DOWN);
        for (int64_t i = 0; i < 480; i++) put(&half, i / 16, i % 16, (double)c.x[i]);
        OK(ctx, slg_qk_norm(ctx, &half.t, &gain, &c.o, &out.t));
        for (int64_t i = 0; i < 480; i++)
            assert_true(fabs(get(&out, i / 16, i % 16) - (double)y[i]) <
                        0.02 * (1 + fabs((double)y[i])));
        assert_gaps_intact(&out);
        OK(ctx, slg_qk_norm(ctx, &x, &gain, &c.o, &x));
        assert_memory_equal(c.x, y, sizeof y);
        release(&half), release(&out);
    }
}

static void test_qk_norm_threads(void **state)
{
    static norm_call a, b;
    (void)state;
    slg_ctx *one = context(SLG_ISA_AUTO, 1), *three = context(SLG_ISA_AUTO, 3);
    seed = 7;
    norm_fill(&a, one, 600, 64, 0, true);
    seed = 7;
    norm_fill(&b, three, 600, 64, 0, true);
    norm_run(&a), norm_run(&b);
    assert_memory_equal(a.y, b.y, 600 * 64 * sizeof(float));
    assert_memory_equal(a.dx, b.dx, 600 * 64 * sizeof(float));
    assert_memory_equal(a.dgain, b.dgain, 64 * sizeof(float));
    slg_ctx_free(one), slg_ctx_free(three);
}

/* ---- Sigma-reparametrisation ------------------------------------------------------------- */

typedef struct sigma_call {
    slg_ctx *ctx;
    int64_t rows, cols;
    slg_sigma_reparam_opts o;
    float w[MOST], dy[MOST], y[MOST], dw[MOST], u[256], v[256];
    double sigma, dgamma;
} sigma_call;

static void sigma_fill(sigma_call *c, slg_ctx *ctx, int64_t m, int64_t n)
{
    c->ctx = ctx, c->rows = m, c->cols = n;
    slg_sigma_reparam_opts_init(&c->o, sizeof c->o);
    assert_true(c->o.iterations == 1 && c->o.gamma == 1);
    c->o.gamma = 1.7;
    for (int64_t i = 0; i < m * n; i++) c->w[i] = (float)normal(), c->dy[i] = (float)normal();
    for (int64_t i = 0; i < m; i++) c->u[i] = (float)normal();
    for (int64_t j = 0; j < n; j++) c->v[j] = 0;
}

static void sigma_run(sigma_call *c)
{
    slg_tensor w = of(c->w, c->rows, c->cols), y = of(c->y, c->rows, c->cols);
    slg_tensor u = slg_tensor_1d(c->u, SLG_F32, c->rows),
               v = slg_tensor_1d(c->v, SLG_F32, c->cols);
    OK(c->ctx, slg_sigma_reparam(c->ctx, &w, &u, &v, &c->o, &y, &c->sigma));
}

static void sigma_back(sigma_call *c)
{
    slg_tensor w = of(c->w, c->rows, c->cols), dy = of(c->dy, c->rows, c->cols);
    slg_tensor u = slg_tensor_1d(c->u, SLG_F32, c->rows),
               v = slg_tensor_1d(c->v, SLG_F32, c->cols);
    slg_tensor dw = of(c->dw, c->rows, c->cols);
    OK(c->ctx, slg_sigma_reparam_backward(c->ctx, &w, &u, &v, &c->o, &dy, &dw, &c->dgamma));
}

/* One iteration in double, then y and the gradient. */
static void sigma_check(const sigma_call *c, const float *u0)
{
    double v[256] = { 0 }, u[256] = { 0 }, nv = 0, nu = 0, sigma = 0, dot = 0;
    const int64_t m = c->rows, n = c->cols;
    for (int64_t i = 0; i < m * n; i++) v[i % n] += (double)u0[i / n] * (double)c->w[i];
    for (int64_t j = 0; j < n; j++) nv += v[j] * v[j];
    for (int64_t j = 0; j < n; j++) v[j] /= sqrt(nv);
    for (int64_t i = 0; i < m * n; i++) u[i / n] += v[i % n] * (double)c->w[i];
    for (int64_t i = 0; i < m; i++) nu += u[i] * u[i];
    sigma = sqrt(nu);
    for (int64_t i = 0; i < m; i++) u[i] /= sigma;
    assert_true(fabs(c->sigma - sigma) < 1e-6 * sigma);
    for (int64_t i = 0; i < m; i++) assert_true(fabs((double)c->u[i] - u[i]) < 1e-6);
    for (int64_t j = 0; j < n; j++) assert_true(fabs((double)c->v[j] - v[j]) < 1e-6);
    const double a = c->o.gamma / sigma;
    for (int64_t i = 0; i < m * n; i++) dot += (double)c->w[i] * (double)c->dy[i];
    assert_true(fabs(c->dgamma - dot / sigma) < 1e-5);
    for (int64_t i = 0; i < m * n; i++) {
        const double dw = a * ((double)c->dy[i] - dot / sigma * u[i / n] * v[i % n]);
        assert_true(fabs((double)c->y[i] - a * (double)c->w[i]) < 2e-6);
        assert_true(fabs((double)c->dw[i] - dw) < 5e-6);
    }
}

static void test_sigma(void **state)
{
    static sigma_call c;
    static const int64_t shapes[][2] = { { 1, 1 }, { 3, 5 }, { 200, 70 }, { 65, 130 } };
    float u0[256];
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(shapes); i++) {
        sigma_fill(&c, ctx, shapes[i][0], shapes[i][1]);
        memcpy(u0, c.u, sizeof u0);
        sigma_run(&c);
        sigma_back(&c);
        sigma_check(&c, u0);
    }
}

static double sigma_value(const float *x, void *arg)
{
    sigma_call *c = arg;
    double sum = 0;
    (void)x;
    sigma_run(c);
    for (int64_t i = 0; i < c->rows * c->cols; i++) sum += (double)c->y[i] * (double)c->dy[i];
    return sum;
}

/* With u, v held fixed; the largest singular value after many steps; a matrix of zeros. */
static void test_sigma_edges(void **state)
{
    static sigma_call c;
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    sigma_fill(&c, ctx, 4, 3);
    sigma_run(&c);
    sigma_back(&c);
    c.o.iterations = 0;
    const gradcheck_result g = gradcheck(sigma_value, &c, c.w, 12, c.dw, NULL);
    assert_true(gradcheck_ok(&g, 2e-4, "dw"));

    sigma_fill(&c, ctx, 30, 20);
    for (int i = 0; i < 600; i++) /* singular values 5 and 1, on the first axes */
        c.w[i] = i == 0 ? 3 : i == 1 ? 4 : i == 20 ? 0.8f : i == 21 ? -0.6f : 0;
    c.o.iterations = 50;
    sigma_run(&c);
    assert_true(fabs(c.sigma - 5) < 1e-5);
    assert_true(fabs((double)c.y[1] - 4 * 1.7 / 5) < 1e-5);

    memset(c.w, 0, sizeof c.w);
    float u[30];
    memcpy(u, c.u, sizeof u);
    sigma_run(&c);
    sigma_back(&c);
    assert_true(c.sigma == 0 && c.dgamma == 0);
    assert_memory_equal(u, c.u, sizeof u);
    for (int i = 0; i < 600; i++) assert_true(c.y[i] == 0 && c.dw[i] == 0);
    slg_ctx_free(ctx);
}

/* ---- What is refused --------------------------------------------------------------------- */

static void test_refused(void **state)
{
    static float x[64], y[64], u[8], v[8];
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_tensor tx = of(x, 8, 8), ty = of(y, 8, 8), tu = slg_tensor_1d(u, SLG_F32, 8);
    slg_tensor tv = slg_tensor_1d(v, SLG_F32, 8), shifted = of(x + 1, 7, 8), short_v = tv;
    slg_qk_norm_opts o;
    slg_sigma_reparam_opts p;
    double sigma = 42;
    (void)state;
    slg_qk_norm_opts_init(&o, sizeof o);
    slg_sigma_reparam_opts_init(&p, sizeof p);
    short_v.shape[0] = 7;
    y[0] = 42;
    assert_int_equal(slg_qk_norm(ctx, NULL, NULL, &o, &ty), SLG_ERR_NULL);
    assert_int_equal(slg_qk_norm(ctx, &tx, NULL, &o, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_qk_norm(ctx, &tx, &short_v, &o, &ty), SLG_ERR_SHAPE);
    assert_int_equal(slg_qk_norm(ctx, &shifted, NULL, &o, &ty), SLG_ERR_SHAPE);
    shifted.shape[0] = 7, tx.shape[0] = 7;
    assert_int_equal(slg_qk_norm(ctx, &tx, NULL, &o, &shifted), SLG_ERR_STRIDE);
    tx.shape[0] = 8;
    o.form = 2;
    assert_int_equal(slg_qk_norm(ctx, &tx, NULL, &o, &ty), SLG_ERR_RANGE);
    o.form = 0, o.eps = -1;
    assert_int_equal(slg_qk_norm(ctx, &tx, NULL, &o, &ty), SLG_ERR_RANGE);
    assert_int_equal(slg_qk_norm_backward(ctx, &tx, NULL, NULL, NULL, &ty, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_sigma_reparam(ctx, &tx, &tu, &short_v, &p, &ty, &sigma),
                     SLG_ERR_SHAPE);
    assert_int_equal(slg_sigma_reparam(ctx, &tx, &tu, NULL, &p, &ty, &sigma), SLG_ERR_NULL);
    assert_int_equal(slg_sigma_reparam(ctx, &tx, &tu, &tv, &p, &tx, &sigma), SLG_ERR_STRIDE);
    p.iterations = -1;
    assert_int_equal(slg_sigma_reparam(ctx, &tx, &tu, &tv, &p, &ty, &sigma), SLG_ERR_RANGE);
    assert_true(sigma == 42 && y[0] == 42);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qk_norm),       cmocka_unit_test(test_qk_norm_gradient),
        cmocka_unit_test(test_qk_norm_edges), cmocka_unit_test(test_qk_norm_threads),
        cmocka_unit_test(test_sigma),         cmocka_unit_test(test_sigma_edges),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
