/* slg_softmax_regression: derivatives against differences, identities, edges. */
#include "loss/loss_test.h"

enum { N = 150, D = 5 };

typedef struct setup {
    double a[N * D], x[D], b[N], w[N], p[D];
    double prob[N], dx[D], da[N * D], db[N], h[D * D], gn[D * D], hp[D], gp[D];
    slg_tensor ta, tx, tb, tw, tp, t[8];
    slg_softmax_regression_out out;
} setup;

static void prepare(setup *s, int64_t n)
{
    for (int i = 0; i < N * D; i++) s->a[i] = normal();
    for (int i = 0; i < D; i++) s->x[i] = normal(), s->p[i] = normal();
    for (int i = 0; i < N; i++) s->b[i] = 0.3 * normal(), s->w[i] = 0.2 * normal();
    s->ta = slg_tensor_2d(s->a, SLG_F64, n, D), s->tx = slg_tensor_1d(s->x, SLG_F64, D);
    s->tb = slg_tensor_1d(s->b, SLG_F64, n), s->tw = slg_tensor_1d(s->w, SLG_F64, n);
    s->tp = slg_tensor_1d(s->p, SLG_F64, D);
    slg_softmax_regression_out_init(&s->out, sizeof s->out);
    s->t[0] = slg_tensor_1d(s->prob, SLG_F64, n), s->t[1] = slg_tensor_1d(s->dx, SLG_F64, D);
    s->t[2] = slg_tensor_2d(s->da, SLG_F64, n, D), s->t[3] = slg_tensor_1d(s->db, SLG_F64, n);
    s->t[4] = slg_tensor_2d(s->h, SLG_F64, D, D), s->t[5] = slg_tensor_2d(s->gn, SLG_F64, D, D);
    s->t[6] = slg_tensor_1d(s->hp, SLG_F64, D), s->t[7] = slg_tensor_1d(s->gp, SLG_F64, D);
    s->out.prob = &s->t[0], s->out.dx = &s->t[1], s->out.da = &s->t[2], s->out.db = &s->t[3];
    s->out.hessian = &s->t[4], s->out.gauss_newton = &s->t[5];
    s->out.hessian_p = &s->t[6], s->out.gauss_newton_p = &s->t[7];
}

static double value_at(slg_ctx *ctx, setup *s, double *at, double step)
{
    slg_softmax_regression_out o;
    slg_softmax_regression_out_init(&o, sizeof o);
    const double keep = *at;
    *at += step;
    OK(ctx, slg_softmax_regression(ctx, &s->ta, &s->tx, &s->tb, &s->tw, NULL, &o));
    *at = keep;
    return o.value;
}

static double slope(slg_ctx *ctx, setup *s, double *at)
{
    return (value_at(ctx, s, at, 1e-5) - value_at(ctx, s, at, -1e-5)) / 2e-5;
}

static void test_derivatives(void **state)
{
    setup *s = zeros(1, sizeof *s), *other = zeros(1, sizeof *other);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1), *many = context(SLG_ISA_AUTO, 3);
    prepare(s, N);
    OK(ctx, slg_softmax_regression(ctx, &s->ta, &s->tx, &s->tb, &s->tw, &s->tp, &s->out));
    for (int j = 0; j < D; j++) {
        double dx[2][D], hp = 0, gp = 0;
        assert_true(fabs(slope(ctx, s, &s->x[j]) - s->dx[j]) < 1e-8);
        assert_true(fabs(slope(ctx, s, &s->a[j * 7]) - s->da[j * 7]) < 1e-8);
        assert_true(fabs(slope(ctx, s, &s->b[j]) - s->db[j]) < 1e-8);
        for (int side = 0; side < 2; side++) { /* a column of the Hessian from the gradient */
            slg_tensor td = slg_tensor_1d(dx[side], SLG_F64, D);
            slg_softmax_regression_out o;
            slg_softmax_regression_out_init(&o, sizeof o);
            o.dx = &td;
            const double keep = s->x[j];
            s->x[j] += side ? 1e-5 : -1e-5;
            OK(ctx, slg_softmax_regression(ctx, &s->ta, &s->tx, &s->tb, &s->tw, NULL, &o));
            s->x[j] = keep;
        }
        for (int i = 0; i < D; i++) {
            assert_true(fabs((dx[1][i] - dx[0][i]) / 2e-5 - s->h[i * D + j]) < 1e-7);
            assert_true(s->h[i * D + j] == s->h[j * D + i] &&
                        s->gn[i * D + j] == s->gn[j * D + i]);
            hp += s->h[j * D + i] * s->p[i], gp += s->gn[j * D + i] * s->p[i];
        }
        assert_true(fabs(hp - s->hp[j]) < 1e-11 && fabs(gp - s->gp[j]) < 1e-11);
    }
    memcpy(other, s, sizeof *s);
    for (int i = 0; i < 8; i++)
        other->t[i].data = (char *)other + ((char *)s->t[i].data - (char *)s);
    other->out.prob = &other->t[0], other->out.dx = &other->t[1], other->out.da = &other->t[2];
    other->out.db = &other->t[3], other->out.hessian = &other->t[4],
    other->out.gauss_newton = &other->t[5];
    other->out.hessian_p = &other->t[6], other->out.gauss_newton_p = &other->t[7];
    OK(many, slg_softmax_regression(many, &s->ta, &s->tx, &s->tb, &s->tw, &s->tp, &other->out));
    assert_memory_equal(other->dx, s->dx, sizeof s->dx);
    assert_memory_equal(other->hp, s->hp, sizeof s->hp);
    slg_ctx_free(ctx), slg_ctx_free(many), free(s), free(other);
    (void)state;
}

/* A perfect fit: no gradient, and the Hessian is Gauss and Newton's. Shifts, one row, no
   columns. */
static void test_identities(void **state)
{
    setup *s = zeros(1, sizeof *s);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    prepare(s, 20);
#define CALL() slg_softmax_regression(ctx, &s->ta, &s->tx, &s->tb, NULL, &s->tp, &s->out)
    OK(ctx, CALL());
    memcpy(s->b, s->prob, sizeof s->b);
    OK(ctx, CALL());
    assert_true(s->out.value == 0 && s->out.loss == 0);
    for (int i = 0; i < D; i++) assert_true(s->dx[i] == 0);
    for (int i = 0; i < D * D; i++) assert_true(fabs(s->h[i] - s->gn[i]) < 1e-15);
    for (int i = 0; i < 20; i++) s->a[i * D] = 1e30; /* a large common offset */
    s->x[0] = 1, s->b[0] = 3;
    OK(ctx, CALL());
    assert_true(isfinite(s->out.value) && fabs(s->prob[0] - 0.05) < 1e-9);
    prepare(s, 1);
    s->b[0] = 0.25;
    OK(ctx, CALL());
    assert_true(s->out.loss == 0.28125 && s->prob[0] == 1 && s->dx[0] == 0 && s->h[3] == 0);
    prepare(s, 4);
    for (int j = 0; j < D; j++) s->a[j] = j ? 0 : -INFINITY; /* z[0] = -inf */
    s->x[0] = 1;
    OK(ctx, CALL());
    assert_true(s->prob[0] == 0 && s->da[0] == 0 && isfinite(s->dx[0]) && isfinite(s->h[0]) &&
                isfinite(s->hp[0]));
    s->a[0] = INFINITY;
    OK(ctx, CALL());
    assert_true(isnan(s->prob[1]) && isnan(s->out.value) && isnan(s->dx[1]));
    slg_ctx_free(ctx), free(s);
    (void)state;
}

/* Panels: f32 and f64, with gaps, upside down, several panels; all give what contiguous f64
   gives. A row whose logit is -inf counts for nothing in any. */
static void test_layouts(void **state)
{
    enum { ROWS = 30000, COLS = 11 }; /* three panels */
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    double *x = zeros(COLS, sizeof *x), *b = zeros(ROWS, sizeof *b),
           *w = zeros(ROWS, sizeof *w);
    slg_tensor tx = slg_tensor_1d(x, SLG_F64, COLS), tb = slg_tensor_1d(b, SLG_F64, ROWS);
    slg_tensor tw = slg_tensor_1d(w, SLG_F64, ROWS);
    tensor plain = matrix(SLG_F64, ROWS, COLS, CONTIGUOUS);
    for (int i = 0; i < ROWS * COLS; i++)
        put(&plain, i / COLS, i % COLS, as_dtype(SLG_F32, normal()));
    for (int i = 0; i < ROWS; i++) b[i] = uniform() / ROWS, w[i] = i % 3 ? 0 : 0.01;
    for (int j = 0; j < COLS; j++) x[j] = fabs(normal()) + 0.1;
    put(&plain, 20000, 2, -INFINITY), put(&plain, 7, 0, -INFINITY);
    w[20000] = w[7] = 0;
    double first[3][COLS * COLS], value = 0;
    for (int kind = 0; kind < 8; kind++) {
        const int32_t type = kind % 2 ? SLG_F32 : SLG_F64;
        const enum layout layout = (enum layout)(kind / 2);
        tensor a = matrix(type, ROWS, COLS, layout), da = matrix(type, ROWS, COLS, layout);
        for (int i = 0; i < ROWS * COLS; i++)
            put(&a, i / COLS, i % COLS, get(&plain, i / COLS, i % COLS));
        double got[3][COLS * COLS], most = 0;
        slg_tensor h = slg_tensor_2d(got[0], SLG_F64, COLS, COLS);
        slg_tensor dx = slg_tensor_1d(got[1], SLG_F64, COLS),
                   hp = slg_tensor_1d(got[2], SLG_F64, COLS);
        slg_softmax_regression_out o;
        slg_softmax_regression_out_init(&o, sizeof o);
        o.hessian = &h, o.dx = &dx, o.hessian_p = &hp, o.da = &da.t;
        OK(ctx, slg_softmax_regression(ctx, &a.t, &tx, &tb, &tw, &tx, &o));
        if (kind == 0) memcpy(first, got, sizeof got), value = o.value;
        assert_true(fabs(o.value - value) < 1e-12 * value);
        for (int i = 0; i < COLS * COLS; i++) {
            compare("hessian", 0, i, got[0][i], first[0][i], 1e-11, &most);
            if (i < COLS) compare("dx", 0, i, got[1][i], first[1][i], 1e-11, &most);
            if (i < COLS) compare("hessian_p", 0, i, got[2][i], first[2][i], 1e-11, &most);
        }
        for (int i = 0; i < ROWS * COLS; i += 1009) /* dA = q x': of rank one */
            assert_true(fabs(get(&da, i / COLS, i % COLS) * x[0] -
                             get(&da, i / COLS, 0) * x[i % COLS]) < 1e-7);
        assert_true(get(&da, 7, 1) == 0 && get(&da, 20000, 3) == 0);
        release(&a), release(&da);
    }
    release(&plain), free(x), free(b), free(w), slg_ctx_free(ctx);
    (void)state;
}

/* Columns of A moved by a common offset: z shifts, and all but dA's products with it stay.
   B 1 = 0. */
static void test_common_offset(void **state)
{
    setup *s = zeros(1, sizeof *s);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double h[D * D], gn[D * D], dx[D];
    prepare(s, 20);
    for (int i = 0; i < N * D; i++)
        s->a[i] = ldexp(rint(ldexp(s->a[i], 12)), -12); /* exact sums */
    for (int j = 0; j < D; j++) s->x[j] = ldexp(rint(ldexp(s->x[j], 8)), -8);
    OK(ctx, CALL());
    memcpy(h, s->h, sizeof h), memcpy(gn, s->gn, sizeof gn), memcpy(dx, s->dx, sizeof dx);
    double sum = 0;
    for (int i = 0; i < 20; i++) sum += s->da[i * D] / s->x[0];
    assert_true(fabs(sum) < 1e-15); /* sum q = 0 */
    for (int i = 0; i < 20; i++)
        for (int j = 0; j < D; j++) s->a[i * D + j] += j % 2 ? 65536 : -4096;
    OK(ctx, CALL());
    for (int j = 0; j < D; j++) assert_true(fabs(s->dx[j] - dx[j]) < 1e-10);
    for (int i = 0; i < D * D; i++)
        assert_true(fabs(s->h[i] - h[i]) < 1e-10 && fabs(s->gn[i] - gn[i]) < 1e-10);
    for (int i = 0; i < 20 * D; i++) s->a[i] = 0.5; /* equal rows: f uniform, no curvature */
    OK(ctx, CALL());
    for (int i = 0; i < 20; i++) assert_true(fabs(s->prob[i] - 0.05) < 1e-16);
    for (int i = 0; i < D * D; i++)
        assert_true(fabs(s->h[i]) < 1e-16 && fabs(s->gn[i]) < 1e-16);
    s->a[0] = 1e38, s->x[0] = 1; /* one-hot and wrong: nothing pulls */
    OK(ctx, CALL());
    assert_true(s->prob[0] == 1 && s->da[D] == 0);
    for (int j = 0; j < D; j++) assert_true(s->dx[j] == 0 && s->hp[j] == 0);
    s->b[3] = NAN;
    OK(ctx, CALL());
    assert_true(isnan(s->out.value) && isnan(s->dx[0]) && isnan(s->h[0]) && s->prob[0] == 1);
    slg_ctx_free(ctx), free(s);
    (void)state;
}

/* w^2 >= 2 and a distribution: positive definite along any direction. d = 0: f uniform. */
static void test_convex(void **state)
{
    setup *s = zeros(1, sizeof *s);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int round = 0; round < 300; round++) {
        double sum = 0, curve = 0, gauss = 0;
        prepare(s, 12);
        for (int i = 0; i < 12; i++) sum += s->b[i] = exp(3 * normal()), s->w[i] = sqrt(2);
        for (int i = 0; i < 12; i++) s->b[i] /= sum;
        OK(ctx, slg_softmax_regression(ctx, &s->ta, &s->tx, &s->tb, &s->tw, &s->tp, &s->out));
        for (int j = 0; j < D; j++) curve += s->p[j] * s->hp[j];
        assert_true(curve > 0);
        OK(ctx, CALL());
        for (int j = 0; j < D; j++) gauss += s->p[j] * s->gp[j];
        assert_true(gauss >= -1e-15);
    }
    s->ta.shape[1] = s->tx.shape[0] = s->tp.shape[0] = 0;
    s->t[1].shape[0] = s->t[2].shape[1] = s->t[6].shape[0] = s->t[7].shape[0] = 0;
    for (int i = 4; i < 6; i++) s->t[i].shape[0] = s->t[i].shape[1] = 0;
    OK(ctx, CALL());
    for (int i = 0; i < 12; i++) assert_true(fabs(s->prob[i] - 1.0 / 12) < 1e-16);
    slg_ctx_free(ctx), free(s);
    (void)state;
}

static void test_errors(void **state)
{
    setup *s = zeros(1, sizeof *s);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    prepare(s, 0);
    assert_int_equal(CALL(), SLG_ERR_SHAPE);
    prepare(s, 4);
    s->tx.shape[0] = 3;
    assert_int_equal(CALL(), SLG_ERR_SHAPE);
    prepare(s, 4);
    assert_int_equal(slg_softmax_regression(ctx, &s->ta, &s->tx, &s->tb, NULL, NULL, &s->out),
                     SLG_ERR_NULL);
    assert_int_equal(slg_softmax_regression(ctx, NULL, &s->tx, &s->tb, NULL, NULL, &s->out),
                     SLG_ERR_NULL);
    assert_int_equal(slg_softmax_regression(ctx, &s->ta, &s->tx, &s->tb, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    s->t[1].data = s->x;
    assert_int_equal(CALL(), SLG_ERR_STRIDE);
    assert_true(s->prob[0] == 0);
    slg_ctx_free(ctx), free(s);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_derivatives), cmocka_unit_test(test_identities),
        cmocka_unit_test(test_layouts),     cmocka_unit_test(test_common_offset),
        cmocka_unit_test(test_convex),      cmocka_unit_test(test_errors)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
