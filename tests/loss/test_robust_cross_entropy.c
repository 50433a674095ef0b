/* Robust cross-entropy and the optimal temperature: against plain double arithmetic, identities
   of the paper, edge cases, errors. */
#include "loss_test.h"
#include "support/gradcheck.h"

enum { ROWS = 9, COLS = 2100, DIM = 3 };

/* One row in double: x after soft-cap and mask. */
typedef struct answer_t {
    double loss, dtau, entropy;
} answer_t;

static answer_t reference(int64_t n, const double *x, int64_t t, double tau, double rho,
                          double *p)
{
    double top = -INFINITY, sum = 0, live = 0, h = 0;
    for (int64_t k = 0; k < n; k++) top = fmax(top, x[k]), live += x[k] > -INFINITY;
    for (int64_t k = 0; k < n; k++) sum += exp((x[k] - top) / tau);
    for (int64_t k = 0; k < n; k++) {
        p[k] = exp((x[k] - top) / tau) / sum;
        if (p[k] > 0) h -= p[k] * ((x[k] - top) / tau - log(sum));
    }
    double loss = tau * (log(sum) - (x[t] - top) / tau) + (rho - log(live)) * tau;
    return (answer_t){ loss, h - log(live) + rho, h };
}

static void near(double got, double want, double absolute, const char *what)
{
    if (isnan(want) ? !isnan(got) : !(got == want || fabs(got - want) <= absolute))
        fail_msg("%s is %.9g, should be %.9g", what, got, want);
}

typedef struct data {
    float x[ROWS * COLS], d[ROWS * COLS], tau[ROWS], weight[ROWS], dtau[ROWS], entropy[ROWS];
    double loss[ROWS];
    int32_t index[ROWS], mask[COLS];
    int64_t cols;
    double softcap, rho;
    bool masked;
    int32_t reduction;
} data;

static void refill(data *a, int64_t cols, double scale)
{
    a->cols = cols;
    for (int64_t i = 0; i < ROWS * cols; i++) a->x[i] = (float)(scale * normal());
    for (int64_t i = 0; i < cols; i++) a->mask[i] = i % 5 != 3;
    for (int64_t r = 0; r < ROWS; r++) {
        a->tau[r] = (float)exp(normal()), a->weight[r] = r == 4 ? 0.0f : (float)uniform();
        a->index[r] = r == 2 ? -100 : (int32_t)(below(cols) / 5 * 5);
    }
}

static slg_status call(slg_ctx *ctx, data *a, bool in_place, slg_loss_out *out)
{
    slg_tensor x = slg_tensor_2d(a->x, SLG_F32, ROWS, a->cols);
    slg_tensor d = slg_tensor_2d(in_place ? a->x : a->d, SLG_F32, ROWS, a->cols);
    slg_tensor tau = slg_tensor_1d(a->tau, SLG_F32, ROWS),
               w = slg_tensor_1d(a->weight, SLG_F32, ROWS);
    slg_tensor index = slg_tensor_1d(a->index, SLG_I32, ROWS);
    slg_tensor mask = slg_tensor_1d(a->mask, SLG_I32, a->cols);
    slg_tensor loss = slg_tensor_1d(a->loss, SLG_F64, ROWS);
    slg_tensor dtau = slg_tensor_1d(a->dtau, SLG_F32, ROWS);
    slg_tensor entropy = slg_tensor_1d(a->entropy, SLG_F32, ROWS);
    slg_logits l = slg_logits_dense(&x);
    slg_targets t = slg_targets_index(&index);
    slg_robust_cross_entropy_opts o;
    slg_logits_grad g = slg_grad_dense(&d);
    slg_robust_cross_entropy_opts_init(&o, sizeof o);
    o.rho = a->rho, o.reduction = a->reduction;
    l.row_temperature = &tau, l.softcap = a->softcap, l.mask = a->masked ? &mask : NULL;
    t.row_weight = &w;
    *out = slg_loss_out_none();
    out->loss = &loss;
    return slg_robust_cross_entropy(ctx, &l, &t, &o, out, &g, &dtau, &entropy);
}

static void check(slg_ctx *ctx, data *a, bool in_place)
{
    double *x = zeros(2 * ROWS * COLS, sizeof *x), *p = x + ROWS * COLS, total = 0, weight = 0;
    slg_loss_out out;
    for (int64_t i = 0; i < ROWS * a->cols; i++) {
        x[i] = (double)a->x[i];
        if (a->softcap > 0 && isfinite(x[i])) x[i] = a->softcap * tanh(x[i] / a->softcap);
        if (a->masked && !a->mask[i % a->cols]) x[i] = -INFINITY;
    }
    OK(ctx, call(ctx, a, in_place, &out));
    for (int64_t r = 0; r < ROWS; r++) weight += r == 2 ? 0 : (double)a->weight[r];
    double scale = a->reduction == SLG_MEAN ? 1 / weight : 1;
    for (int64_t r = 0; r < ROWS; r++) {
        const double w = (double)a->weight[r], tau = (double)a->tau[r];
        const float *d = (in_place ? a->x : a->d) + r * a->cols;
        answer_t want = { 0, 0, 0 };
        if (a->index[r] >= 0)
            want = reference(a->cols, x + r * a->cols, a->index[r], tau, a->rho, p);
        double loss = w * want.loss, size = tau * 10 + fabs(want.loss);
        near(a->loss[r], loss, 1e-5 * size, "loss");
        near((double)a->dtau[r], w * scale * want.dtau, 1e-5 * w * scale, "dtau");
        near((double)a->entropy[r], want.entropy, 1e-5, "entropy");
        total += loss;
        for (int64_t k = 0; k < a->cols; k++) {
            double z = x[r * a->cols + k] / a->softcap;
            double slope = a->softcap > 0 && isfinite(z) ? 1 - z * z : 1;
            double e = a->index[r] < 0 ? 0 : w * scale * (p[k] - (k == a->index[r])) * slope;
            near((double)d[k], e == 0 ? 0 : e, 2e-6 * w * scale + 1e-12, "dlogits");
        }
    }
    near(out.sum, total, 1e-4, "sum");
    free(x);
}

static data a; /* large */

static void test_reference(void **state)
{
    (void)state;
    static const struct {
        int64_t cols;
        double scale, softcap;
        bool masked;
        int32_t reduction;
    } forms[] = { { 9, 3, 0, false, SLG_SUM },
                  { 6, 1, 0, true, SLG_MEAN },
                  { 300, 2, 4, true, SLG_NONE },
                  { COLS, 5, 0, true, SLG_MEAN },
                  { COLS, 1e6, 0, false, SLG_SUM } };
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 10; i++) {
        memset(&a, 0, sizeof a);
        refill(&a, forms[i / 2].cols, forms[i / 2].scale);
        a.softcap = forms[i / 2].softcap, a.masked = forms[i / 2].masked;
        a.reduction = forms[i / 2].reduction, a.rho = 1.2;
        check(ctx, &a, i % 2);
    }
}

static void test_edges(void **state)
{
    (void)state;
    slg_loss_out out;
    FOR_EACH_ISA(ctx, 1)
    {
        memset(&a, 0, sizeof a);
        refill(&a, 4, 1);
        a.rho = 0.5, a.reduction = SLG_SUM;
        for (int r = 0; r < ROWS; r++) a.weight[r] = 1, a.tau[r] = 1, a.index[r] = 0;
        const float rows[ROWS][4] = {
            { 0, 0, 0, 0 },                                 /* all equal: H = log 4 */
            { -INFINITY, 2, -INFINITY, -INFINITY },         /* masked target, one class */
            { 3, -INFINITY, -INFINITY, -INFINITY },         /* one class, the target */
            { -INFINITY, -INFINITY, -INFINITY, -INFINITY }, /* NaN */
            { NAN, 0, 0, 0 },
            { INFINITY, 0, 0, 0 },
            { 1, 5, 5, 0 },              /* tiny tau: two maxima */
            { 1e30f, -1e30f, 0, 1e30f }, /* huge */
            { -INFINITY, 1, 1, -INFINITY }
        }; /* masked target */
        memcpy(a.x, rows, sizeof rows);
        a.tau[6] = 1e-30f;
        OK(ctx, call(ctx, &a, false, &out));
        near(a.loss[0], 0.5, 1e-6, "equal: loss"),
            near((double)a.dtau[0], 0.5, 1e-6, "equal: dtau");
        near(a.loss[1], INFINITY, 0, "masked target");
        near((double)a.d[4], -1, 0, "masked target: d"), near((double)a.d[5], 1, 1e-6, "its p");
        near((double)a.dtau[1], 0.5, 1e-6, "masked target: dtau");
        near(a.loss[2], 0.5, 1e-6, "one class"), near((double)a.d[8], 0, 0, "one class: d");
        for (int r = 3; r < 6; r++) {
            near(a.loss[r], (double)NAN, 0, "loss of NaN"),
                near((double)a.dtau[r], (double)NAN, 0, "dtau");
            near((double)a.entropy[r], (double)NAN, 0, "entropy");
            near((double)a.d[4 * r + 1], (double)NAN, 0, "gradient of NaN");
        }
        near(a.loss[6], 4, 1e-5, "tiny tau"),
            near((double)a.entropy[6], log(2), 1e-6, "two maxima");
        near((double)a.dtau[6], log(2) - log(4) + 0.5, 1e-6, "tiny tau: dtau");
        near((double)a.d[25], 0.5, 1e-6, "tiny tau: d");
        near((double)a.entropy[7], log(2), 1e-6, "huge"),
            near((double)a.d[28], -0.5, 1e-6, "huge: d");
        near((double)a.entropy[8], log(2), 1e-6, "masked"),
            near((double)a.dtau[8], 0.5, 1e-6, "masked");
    }
}

/* tau = 1 and rho = log K is cross-entropy; a shift changes nothing; scaling z and tau scales
   L. */
static void test_identities(void **state)
{
    (void)state;
    slg_loss_out out, ce = slg_loss_out_none();
    static data b;
    FOR_EACH_ISA(ctx, 1)
    {
        memset(&a, 0, sizeof a);
        refill(&a, 50, 2);
        a.rho = log(50), a.reduction = SLG_MEAN;
        b = a;
        for (int r = 0; r < ROWS; r++) a.tau[r] = 1;
        OK(ctx, call(ctx, &a, false, &out));
        slg_tensor x = slg_tensor_2d(a.x, SLG_F32, ROWS, 50);
        slg_tensor t = slg_tensor_1d(a.index, SLG_I32, ROWS),
                   w = slg_tensor_1d(a.weight, SLG_F32, ROWS);
        slg_logits l = slg_logits_dense(&x);
        slg_targets targets = slg_targets_index(&t);
        targets.row_weight = &w;
        OK(ctx, slg_cross_entropy(ctx, &l, &targets, NULL, &ce, NULL));
        near(out.value, ce.value, 1e-6, "cross-entropy");
        a = b;
        OK(ctx, call(ctx, &a, false, &out));
        for (int64_t i = 0; i < ROWS * 50; i++) b.x[i] = 4 * b.x[i];
        for (int r = 0; r < ROWS; r++) b.tau[r] *= 4;
        slg_loss_out scaled;
        OK(ctx, call(ctx, &b, false, &scaled));
        near(scaled.value, 4 * out.value, 1e-5 * fabs(out.value) + 1e-6, "scaled");
        for (int64_t i = 0; i < ROWS * 50; i++)
            near((double)b.d[i], (double)a.d[i], 1e-7, "scaled: d");
    }
}

static void test_threads(void **state)
{
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    static data first;
    for (int i = 0; i < 4; i++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
        slg_loss_out out;
        seed = 1234567;
        memset(&a, 0, sizeof a);
        refill(&a, COLS, 3);
        a.rho = 2, a.reduction = SLG_MEAN;
        OK(ctx, call(ctx, &a, false, &out));
        if (i == 0) first = a;
        assert_memory_equal(&a, &first, sizeof a);
        slg_ctx_free(ctx);
    }
}

/* ---- Optimal temperature ----------------------------------------------------------------- */

static void best(slg_ctx *ctx, int64_t rows, int64_t cols, const float *x, double rho,
                 double low, double high, double *tau, double *entropy)
{
    slg_tensor z = slg_tensor_2d(x, SLG_F32, rows, cols), t = slg_tensor_1d(tau, SLG_F64, rows);
    slg_tensor h = slg_tensor_1d(entropy, SLG_F64, rows);
    slg_logits l = slg_logits_dense(&z);
    slg_optimal_temperature_opts o;
    slg_optimal_temperature_opts_init(&o, sizeof o);
    o.rho = rho, o.tau_min = low, o.tau_max = high;
    OK(ctx, slg_optimal_temperature(ctx, &l, &o, &t, &h));
}

static void test_optimal(void **state)
{
    (void)state;
    double tau[ROWS], h[ROWS], *z = zeros(2 * COLS, sizeof *z), *p = z + COLS;
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 6; i++) {
        const int64_t cols = i % 2 ? 9 : COLS;
        const double rho = i < 2 ? 1.2 : i < 4 ? 0.05 : 1.9;
        refill(&a, cols, i < 4 ? 3 : 100);
        best(ctx, ROWS, cols, a.x, rho, 1e-3, 1e4, tau, h);
        for (int64_t r = 0; r < ROWS; r++) {
            for (int64_t k = 0; k < cols; k++) z[k] = (double)a.x[r * cols + k];
            double want = reference(cols, z, 0, tau[r], rho, p).entropy;
            near(h[r], want, 1e-5, "entropy at the optimum");
            near(want, log((double)cols) - rho, 1e-5, "optimum");
        }
    }
    free(z);
}

static void test_optimal_edges(void **state)
{
    (void)state;
    static const float x[6][3] = { { 1, 1, 1 },          { 2, -INFINITY, -INFINITY },
                                   { 0, 1, NAN },        { -INFINITY, -INFINITY, -INFINITY },
                                   { 1e30f, 0, -1e30f }, { 1e-3f, 0, 0 } };
    double tau[6], h[6];
    FOR_EACH_ISA(ctx, 1)
    {
        best(ctx, 6, 3, x[0], 0.5, 0.5, 5, tau, h);
        near(tau[0], 0.5, 0, "equal"), near(tau[1], 0.5, 0, "one class"),
            near(h[1], 0, 0, "one class");
        near(tau[2], (double)NAN, 0, "NaN"), near(tau[3], (double)NAN, 0, "masked");
        near(tau[4], 5, 0, "far apart"), near(tau[5], 0.5, 0, "close");
        best(ctx, 1, 3, x[4], 0.0, 0.5, 5, tau, h);
        near(tau[0], 5, 0, "rho 0");
        best(ctx, 1, 3, x[4], 1.2, 0.5, 5, tau, h);
        near(tau[0], 0.5, 0, "rho beyond log K");
    }
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_loss_out out;
    memset(&a, 0, sizeof a);
    refill(&a, 9, 1);
    a.rho = -1, a.reduction = SLG_SUM, a.dtau[0] = 7;
    assert_int_equal(call(ctx, &a, false, &out), SLG_ERR_RANGE);
    a.rho = 1, a.tau[3] = 0;
    assert_int_equal(call(ctx, &a, false, &out), SLG_ERR_RANGE);
    a.tau[3] = NAN;
    assert_int_equal(call(ctx, &a, false, &out), SLG_ERR_RANGE);
    a.tau[3] = 1, a.index[1] = 9;
    assert_int_equal(call(ctx, &a, false, &out), SLG_ERR_RANGE);
    assert_true(a.dtau[0] == 7);
    slg_tensor x = slg_tensor_2d(a.x, SLG_F32, ROWS, 9),
               t = slg_tensor_1d(a.dtau, SLG_F32, ROWS);
    slg_tensor few = slg_tensor_1d(a.dtau, SLG_F32, 2);
    slg_logits l = slg_logits_dense(&x);
    slg_optimal_temperature_opts o;
    slg_optimal_temperature_opts_init(&o, sizeof o);
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &few, NULL), SLG_ERR_SHAPE);
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &t, &t), SLG_ERR_STRIDE);
    l.temperature = 2;
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &t, NULL), SLG_ERR_RANGE);
    l.temperature = 1, o.tau_min = 6;
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &t, NULL), SLG_ERR_RANGE);
    o.tau_min = 0.5, o.rho = NAN;
    assert_int_equal(slg_optimal_temperature(ctx, &l, &o, &t, NULL), SLG_ERR_RANGE);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),  cmocka_unit_test(test_edges),
        cmocka_unit_test(test_identities), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_optimal),    cmocka_unit_test(test_optimal_edges),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
