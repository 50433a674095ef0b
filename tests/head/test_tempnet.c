/* Temperature network: gradients of both forms by differences, bounds, scale, NaN, errors. */
#include "loss/loss_test.h"
#include "support/gradcheck.h"

void openblas_set_num_threads(int threads); /* cblas.h is not in every include path */

enum { ROWS = 6, COLS = 7, HIDDEN = 5, M = 4 };
enum { W1, B1, W2, B2, C, B, PHI, PARAMS };

static const int64_t sizes[PARAMS] = { HIDDEN * COLS, HIDDEN, M *HIDDEN, M, M, 1, 1 };
static const char *const names[PARAMS] = { "w1", "b1", "w2", "b2", "c", "b", "phi" };

typedef struct data {
    slg_ctx *ctx;
    int32_t form;
    bool drop;
    float x[ROWS * COLS], mask[ROWS * HIDDEN], p[PARAMS][HIDDEN * COLS],
        d[PARAMS][HIDDEN * COLS];
    float s[ROWS * HIDDEN], v[ROWS * M], w[ROWS * M];
    double tau[ROWS], dtau[ROWS];
} data;

typedef struct view {
    slg_tensor x, p[PARAMS], d[PARAMS], mask, s, v, w, tau, dtau;
    slg_tempnet net;
    slg_tempnet_saved saved;
    slg_tempnet_grad grad;
} view;

static void view_of(data *a, view *t)
{
    static const int64_t shape[PARAMS][2] = { { HIDDEN, COLS }, { HIDDEN, 0 }, { M, HIDDEN },
                                              { M, 0 },         { M, 0 },      { 1, 0 },
                                              { 1, 0 } };
    for (int i = 0; i < PARAMS; i++) {
        bool flat = shape[i][1] == 0;
        t->p[i] = flat ? slg_tensor_1d(a->p[i], SLG_F32, shape[i][0])
                       : slg_tensor_2d(a->p[i], SLG_F32, shape[i][0], shape[i][1]);
        t->d[i] = t->p[i];
        t->d[i].data = a->d[i];
    }
    t->x = slg_tensor_2d(a->x, SLG_F32, ROWS, COLS);
    t->mask = slg_tensor_2d(a->mask, SLG_F32, ROWS, HIDDEN);
    t->s = slg_tensor_2d(a->s, SLG_F32, ROWS, HIDDEN);
    t->v = slg_tensor_2d(a->v, SLG_F32, ROWS, M), t->w = slg_tensor_2d(a->w, SLG_F32, ROWS, M);
    t->tau = slg_tensor_1d(a->tau, SLG_F64, ROWS),
    t->dtau = slg_tensor_1d(a->dtau, SLG_F64, ROWS);
    slg_tempnet_init(&t->net, sizeof t->net);
    slg_tempnet_saved_init(&t->saved, sizeof t->saved);
    slg_tempnet_grad_init(&t->grad, sizeof t->grad);
    bool logits = a->form == SLG_TEMPNET_LOGITS;
    t->net.form = a->form;
    t->net.w1 = &t->p[W1], t->net.b1 = &t->p[B1], t->net.w2 = &t->p[W2];
    t->net.b2 = logits ? &t->p[B2] : NULL;
    t->net.c = &t->p[C], t->net.b = &t->p[B], t->net.phi = &t->p[PHI];
    t->net.drop = a->drop ? &t->mask : NULL;
    t->saved.s = &t->s, t->saved.v = &t->v, t->saved.w = &t->w;
    t->grad.dw1 = &t->d[W1], t->grad.db1 = &t->d[B1], t->grad.dw2 = &t->d[W2];
    t->grad.db2 = logits ? &t->d[B2] : NULL;
    t->grad.dc = &t->d[C], t->grad.db = &t->d[B], t->grad.dphi = &t->d[PHI];
}

static void refill(data *a, slg_ctx *ctx, int32_t form, bool drop)
{
    memset(a, 0, sizeof *a);
    a->ctx = ctx, a->form = form, a->drop = drop;
    for (int i = 0; i < ROWS * COLS; i++) a->x[i] = (float)normal();
    for (int i = 0; i < ROWS * HIDDEN; i++) a->mask[i] = below(2) ? 2.0f : 0.0f;
    for (int i = 0; i < PARAMS; i++)
        for (int64_t j = 0; j < sizes[i]; j++) a->p[i][j] = (float)(0.7 * normal());
    for (int j = 0; j < M; j++) a->p[C][j] += 1;
    for (int r = 0; r < ROWS; r++) a->dtau[r] = normal();
}

static void forward(data *a)
{
    view t;
    view_of(a, &t);
    OK(a->ctx, slg_tempnet_forward(a->ctx, &t.x, &t.net, &t.saved, &t.tau));
}

static double value(const float *x, void *arg)
{
    data *a = arg;
    double sum = 0;
    (void)x; /* is among a's parameters */
    forward(a);
    for (int r = 0; r < ROWS; r++) sum += a->tau[r] * a->dtau[r];
    return sum;
}

static void test_gradient(void **state)
{
    (void)state;
    data a;
    view t;
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 4; i++) {
        refill(&a, ctx, i % 2 ? SLG_TEMPNET_FEATURES : SLG_TEMPNET_LOGITS, i / 2);
        forward(&a);
        view_of(&a, &t);
        OK(ctx, slg_tempnet_backward(ctx, &t.x, &t.net, &t.saved, &t.dtau, &t.grad));
        for (int p = 0; p < PARAMS; p++) {
            if (p == B2 && a.form == SLG_TEMPNET_FEATURES) continue;
            gradcheck_result r = gradcheck(value, &a, a.p[p], (size_t)sizes[p], a.d[p], NULL);
            assert_true(gradcheck_ok(&r, 2e-4, names[p]));
        }
        float before = a.d[W2][3], phi = a.d[PHI][0];
        t.grad.accumulate = 1;
        forward(&a);
        OK(ctx, slg_tempnet_backward(ctx, &t.x, &t.net, &t.saved, &t.dtau, &t.grad));
        assert_true(fabs((double)(a.d[W2][3] - 2 * before)) <= 1e-5);
        assert_true(fabs((double)(a.d[PHI][0] - 2 * phi)) <= 1e-5);
    }
}

/* Within the bounds whatever x; the scale of logits does not matter; rows are apart. */
static void test_forward(void **state)
{
    (void)state;
    data a;
    double tau[ROWS];
    FOR_EACH_ISA(ctx, 1)
    for (int32_t form = SLG_TEMPNET_LOGITS; form <= SLG_TEMPNET_FEATURES; form++) {
        static const float scales[] = { 1, 1e-9f, 1e30f, 1e3f };
        for (int i = 0; i < 4; i++) {
            refill(&a, ctx, form, false);
            seed = 99;
            for (int j = 0; j < ROWS * COLS; j++) a.x[j] = (float)normal() * scales[i];
            for (int p = 0; p < PARAMS; p++)
                for (int64_t j = 0; j < sizes[p]; j++)
                    a.p[p][j] = (float)sin((double)(7 * j + p));
            forward(&a);
            for (int r = 0; r < ROWS; r++) {
                assert_true(a.tau[r] >= 0.5 && a.tau[r] <= 5);
                if (i > 0 && form == SLG_TEMPNET_LOGITS)
                    assert_true(fabs(a.tau[r] - tau[r]) <= 1e-5);
                if (i == 0) tau[r] = a.tau[r];
            }
        }
        a.x[COLS] = NAN;
        memset(a.x, 0, COLS * sizeof(float)); /* zeros: u = 0 */
        double third = a.tau[2];
        forward(&a);
        assert_true(isfinite(a.tau[0]) && isnan(a.tau[1]) && a.tau[2] == third);
        a.x[COLS] = -INFINITY;
        forward(&a);
        assert_true(isnan(a.tau[1]) == (form == SLG_TEMPNET_FEATURES));
        /* dtau 0 leaves a row of NaN out. */
        view t;
        a.x[COLS] = NAN, a.dtau[1] = 0;
        forward(&a);
        view_of(&a, &t);
        OK(ctx, slg_tempnet_backward(ctx, &t.x, &t.net, &t.saved, &t.dtau, &t.grad));
        for (int p = 0; p < PARAMS; p++)
            for (int64_t j = 0; j < sizes[p]; j++) assert_true(isfinite(a.d[p][j]));
    }
}

/* ---- More rows than a block ------------------------------------------------------------ */

enum { TALL = 600, WIDE = 40, UNITS = 64, PROTOTYPES = 48, MOST = UNITS * UNITS };

typedef struct tall {
    float x[TALL * WIDE], mask[TALL * UNITS], p[PARAMS][MOST], d[PARAMS][MOST];
    float s[TALL * UNITS], v[TALL * PROTOTYPES], w[TALL * PROTOTYPES];
    double tau[TALL], dtau[TALL];
} tall;

static const int64_t tall_shape[PARAMS][2] = {
    { UNITS, WIDE }, { UNITS, 0 }, { PROTOTYPES, UNITS }, { PROTOTYPES, 0 }, { PROTOTYPES, 0 },
    { 1, 0 },        { 1, 0 }
};

/* Forward and backward of rows [from, from + n). */
static void tall_run(slg_ctx *ctx, tall *a, int32_t form, int64_t from, int64_t n,
                     int32_t accumulate)
{
    slg_tensor p[PARAMS], d[PARAMS];
    for (int i = 0; i < PARAMS; i++) {
        const int64_t *size = tall_shape[i];
        p[i] = size[1] == 0 ? slg_tensor_1d(a->p[i], SLG_F32, size[0])
                            : slg_tensor_2d(a->p[i], SLG_F32, size[0], size[1]);
        d[i] = p[i];
        d[i].data = a->d[i];
    }
    slg_tensor x = slg_tensor_2d(a->x + from * WIDE, SLG_F32, n, WIDE);
    slg_tensor mask = slg_tensor_2d(a->mask + from * UNITS, SLG_F32, n, UNITS);
    slg_tensor s = slg_tensor_2d(a->s + from * UNITS, SLG_F32, n, UNITS);
    slg_tensor v = slg_tensor_2d(a->v + from * PROTOTYPES, SLG_F32, n, PROTOTYPES);
    slg_tensor w = slg_tensor_2d(a->w + from * PROTOTYPES, SLG_F32, n, PROTOTYPES);
    slg_tensor tau = slg_tensor_1d(a->tau + from, SLG_F64, n);
    slg_tensor dtau = slg_tensor_1d(a->dtau + from, SLG_F64, n);
    slg_tempnet net;
    slg_tempnet_saved saved;
    slg_tempnet_grad grad;
    slg_tempnet_init(&net, sizeof net);
    slg_tempnet_saved_init(&saved, sizeof saved);
    slg_tempnet_grad_init(&grad, sizeof grad);
    const bool logits = form == SLG_TEMPNET_LOGITS;
    net.form = form, net.drop = &mask, grad.accumulate = accumulate;
    net.w1 = &p[W1], net.b1 = &p[B1], net.w2 = &p[W2], net.b2 = logits ? &p[B2] : NULL;
    net.c = &p[C], net.b = &p[B], net.phi = &p[PHI];
    saved.s = &s, saved.v = &v, saved.w = &w;
    grad.dw1 = &d[W1], grad.db1 = &d[B1], grad.dw2 = &d[W2], grad.db2 = logits ? &d[B2] : NULL;
    grad.dc = &d[C], grad.db = &d[B], grad.dphi = &d[PHI];
    OK(ctx, slg_tempnet_forward(ctx, &x, &net, &saved, &tau));
    OK(ctx, slg_tempnet_backward(ctx, &x, &net, &saved, &dtau, &grad));
}

static void tall_refill(tall *a)
{
    memset(a, 0, sizeof *a);
    for (int i = 0; i < TALL * WIDE; i++) a->x[i] = (float)normal();
    for (int i = 0; i < TALL * UNITS; i++) a->mask[i] = below(2) ? 2.0f : 0.0f;
    for (int i = 0; i < PARAMS; i++)
        for (int j = 0; j < MOST; j++) a->p[i][j] = (float)(0.3 * normal());
    for (int r = 0; r < TALL; r++) a->dtau[r] = r % 7 == 3 ? 0 : normal();
}

/* Bits of any number of threads; the same in other portions, gradients added up. */
static void test_threads(void **state)
{
    (void)state;
    static tall a, first;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    for (int32_t form = SLG_TEMPNET_LOGITS; form <= SLG_TEMPNET_FEATURES; form++) {
        tall_refill(&a);
        for (int i = 0; i < 4; i++) {
            slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
            tall_run(ctx, &a, form, 0, TALL, 0);
            if (i == 0) first = a;
            assert_memory_equal(&a, &first, sizeof a);
            slg_ctx_free(ctx);
        }
        FOR_EACH_ISA(ctx, 2)
        {
            static const int64_t cuts[] = { 0, 1, 300, 301, TALL };
            memset(a.d, 0, sizeof a.d), memset(a.tau, 0, sizeof a.tau);
            for (int i = 0; i < 4; i++)
                tall_run(ctx, &a, form, cuts[i], cuts[i + 1] - cuts[i], i > 0);
            for (int r = 0; r < TALL; r++) assert_true(fabs(a.tau[r] - first.tau[r]) <= 2e-5);
            for (int i = 0; i < PARAMS; i++)
                for (int j = 0; j < MOST; j++)
                    assert_true(fabsf(a.d[i][j] - first.d[i][j]) <=
                                1e-4f * (1 + fabsf(first.d[i][j])));
        }
    }
}

/* All that a network is lies in the caller's memory: written to a file and read back elsewhere
   it gives the same bits, forward and backward. As it is exported, with a lower upper bound:
   the same place in another range. */
static void test_export(void **state)
{
    (void)state;
    static data a, b;
    for (int i = 0; i < 2; i++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, 2), *other = context(SLG_ISA_AUTO, 1);
        view t;
        FILE *file = tmpfile();
        assert_non_null(file);
        refill(&a, ctx, i ? SLG_TEMPNET_FEATURES : SLG_TEMPNET_LOGITS, false);
        forward(&a);
        for (int p = 0; p < PARAMS; p++)
            assert_int_equal(fwrite(a.p[p], sizeof(float), (size_t)sizes[p], file), sizes[p]);
        rewind(file);
        memset(&b, 0xA5, sizeof b);
        for (int p = 0; p < PARAMS; p++)
            assert_int_equal(fread(b.p[p], sizeof(float), (size_t)sizes[p], file), sizes[p]);
        fclose(file);
        b.ctx = other, b.form = a.form, b.drop = false;
        memcpy(b.x, a.x, sizeof a.x), memcpy(b.dtau, a.dtau, sizeof a.dtau);
        forward(&b);
        assert_memory_equal(a.tau, b.tau, sizeof a.tau);
        view_of(&a, &t);
        OK(ctx, slg_tempnet_backward(ctx, &t.x, &t.net, &t.saved, &t.dtau, &t.grad));
        view_of(&b, &t);
        OK(other, slg_tempnet_backward(other, &t.x, &t.net, &t.saved, &t.dtau, &t.grad));
        for (int p = 0; p < PARAMS; p++)
            if (!(i && p == B2))
                assert_memory_equal(a.d[p], b.d[p], (size_t)sizes[p] * sizeof(float));
        t.net.tau_max = 1.2; /* another range, the same place in it */
        OK(other, slg_tempnet_forward(other, &t.x, &t.net, NULL, &t.tau));
        for (int r = 0; r < ROWS; r++)
            assert_true(fabs((b.tau[r] - 0.5) / 0.7 - (a.tau[r] - 0.5) / 4.5) <= 1e-12);
        slg_ctx_free(ctx), slg_ctx_free(other);
    }
}

/* Numbers below the rate are 0, by place alone; the rest keep the mean at 1. */
static void test_drop(void **state)
{
    (void)state;
    enum { N = 101, EACH = 97 };
    static float drop[4][N * EACH], apart[N * EACH * 2];
    static const int32_t threads[] = { 1, 2, 3, 8 };
    for (int i = 0; i < 4; i++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
        slg_rng g = { 5, 1000 };
        slg_tensor t = slg_tensor_2d(drop[i], SLG_F32, N, EACH);
        OK(ctx, slg_tempnet_drop(ctx, &g, 0.25, &t));
        assert_true(g.offset == 1000 + N * EACH && g.seed == 5);
        assert_memory_equal(drop[i], drop[0], sizeof drop[0]);
        slg_ctx_free(ctx);
    }
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    static double u[N * EACH];
    slg_rng g = { 5, 1000 };
    slg_tensor numbers = slg_tensor_1d(u, SLG_F64, N * EACH);
    OK(ctx, slg_random(ctx, &g, SLG_UNIFORM, &numbers));
    int kept = 0;
    for (int i = 0; i < N * EACH; i++) {
        assert_true(drop[0][i] == (u[i] < 0.25 ? 0.0f : (float)(1 / 0.75)));
        kept += drop[0][i] > 0;
    }
    assert_true(abs(kept - N * EACH * 3 / 4) < 5 * 43); /* 5 standard deviations */
    slg_tensor t = slg_tensor_2d(apart, SLG_F32, N, EACH);
    t.stride[1] = 2, t.stride[0] = 2 * EACH, g.offset = 1000;
    OK(ctx, slg_tempnet_drop(ctx, &g, 0.25, &t));
    for (int i = 0; i < N * EACH; i++)
        assert_true(apart[2 * i] == drop[0][i] && apart[2 * i + 1] == 0);
    OK(ctx, slg_tempnet_drop(ctx, &g, 0, &t));
    for (int i = 0; i < N * EACH; i++) assert_true(apart[2 * i] == 1);
    const slg_rng before = g;
    static const double bad[] = { 1, -0.1, NAN, INFINITY };
    for (int i = 0; i < 4; i++)
        assert_int_equal(slg_tempnet_drop(ctx, &g, bad[i], &t), SLG_ERR_RANGE);
    assert_int_equal(slg_tempnet_drop(ctx, NULL, 0.5, &t), SLG_ERR_NULL);
    assert_int_equal(slg_tempnet_drop(ctx, &g, 0.5, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_tempnet_drop(ctx, &g, 0.5, &numbers), SLG_ERR_DTYPE);
    t.stride[0] = 1;
    assert_int_equal(slg_tempnet_drop(ctx, &g, 0.5, &t), SLG_ERR_STRIDE);
    assert_int_equal(slg_tempnet_drop(NULL, &g, 0.5, &t), SLG_ERR_NULL);
    assert_memory_equal(&g, &before, sizeof g);
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    data a;
    view t;
    refill(&a, ctx, SLG_TEMPNET_LOGITS, false);
    view_of(&a, &t);
#define FORWARD() slg_tempnet_forward(ctx, &t.x, &t.net, &t.saved, &t.tau)
    assert_int_equal(slg_tempnet_forward(ctx, &t.x, NULL, NULL, &t.tau), SLG_ERR_NULL);
    t.net.form = 3;
    assert_int_equal(FORWARD(), SLG_ERR_RANGE);
    t.net.form = SLG_TEMPNET_FEATURES; /* has no b2 */
    assert_int_equal(FORWARD(), SLG_ERR_NULL);
    t.net.form = SLG_TEMPNET_LOGITS, t.net.tau_min = 6;
    assert_int_equal(FORWARD(), SLG_ERR_RANGE);
    t.net.tau_min = 0.5, a.p[PHI][0] = NAN;
    assert_int_equal(FORWARD(), SLG_ERR_RANGE);
    a.p[PHI][0] = 0, t.net.c = &t.p[B1];
    assert_int_equal(FORWARD(), SLG_ERR_SHAPE);
    t.net.c = &t.p[C], t.saved.v = &t.w;
    assert_int_equal(FORWARD(), SLG_ERR_STRIDE);
    t.saved.v = &t.v;
    OK(ctx, FORWARD());
    t.grad.accumulate = 2;
    assert_int_equal(slg_tempnet_backward(ctx, &t.x, &t.net, &t.saved, &t.dtau, &t.grad),
                     SLG_ERR_RANGE);
    t.grad.accumulate = 0, t.grad.dc = &t.p[C];
    assert_int_equal(slg_tempnet_backward(ctx, &t.x, &t.net, &t.saved, &t.dtau, &t.grad),
                     SLG_ERR_STRIDE);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient), cmocka_unit_test(test_forward),
        cmocka_unit_test(test_threads),  cmocka_unit_test(test_export),
        cmocka_unit_test(test_drop),     cmocka_unit_test(test_errors)
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
