/* Robust cross-entropy: against plain double arithmetic, every form of a source, differences,
   identities of the paper, edge cases, errors. */
#include "row_loss_test.h"

#include "robust_test.h" /* after it: names of its own */

void openblas_set_num_threads(int threads); /* cblas.h is not in every include path */

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

/* ---- Every form of a loss ---------------------------------------------------------------- */

typedef struct form_arg {
    double tau, rho;
} form_arg;

static slg_status form_call(slg_ctx *ctx, const slg_logits *l, const slg_targets *t,
                            int32_t reduction, slg_loss_out *out, slg_logits_grad *g, void *arg)
{
    form_arg *f = arg;
    slg_robust_cross_entropy_opts o;
    slg_robust_cross_entropy_opts_init(&o, sizeof o);
    o.rho = f->rho, o.reduction = reduction;
    f->tau = l->temperature; /* the row below is of logits that are divided by it */
    return slg_robust_cross_entropy(ctx, l, t, &o, out, g, NULL, NULL);
}

static void form_row(int64_t cols, const double *z, int64_t t, void *arg, double *loss,
                     double *dz, double *loss_size, double *dz_size)
{
    const form_arg *f = arg;
    answer_t want = reference(cols, z, t, 1, f->rho, dz); /* dz: p */
    double far = 0;
    for (int64_t k = 0; k < cols; k++) {
        if (z[k] > -INFINITY) far = fmax(far, fabs(z[k]));
        dz_size[k] = f->tau * (dz[k] * (1 + far) + (k == t));
        dz[k] = f->tau * (dz[k] - (k == t));
    }
    *loss = f->tau * want.loss;
    *loss_size = f->tau * (fabs(want.loss) + far + f->rho + log((double)cols) + 1);
}

/* Dense, in place and fused; float32, bf16 and f16; any number of threads. */
static void test_forms(void **state)
{
    (void)state;
    form_arg arg = { 1, 1.3 };
    const row_loss f = { form_call, form_row, &arg, 8e-7 };
    check_forms(&f);
    check_threads(&f);
}

/* An output layer with a temperature a row: loss, dtau and entropy as of the same logits
   stored, gradients as theirs carried back; bits of any number of threads. Dense: in place as
   out of place. */
static void test_sources(void **state)
{
    (void)state;
    enum { WIDE = 700 };
    static float h[ROWS * DIM], w[WIDE * DIM], dh[ROWS * DIM], dw[WIDE * DIM],
        first[4][WIDE * DIM];
    static data b;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    memset(&a, 0, sizeof a);
    refill(&a, WIDE, 1);
    a.rho = 1.5, a.reduction = SLG_MEAN, a.masked = true;
    for (int i = 0; i < ROWS * DIM; i++) h[i] = (float)normal();
    for (int i = 0; i < WIDE * DIM; i++) w[i] = (float)normal();
    for (int i = 0; i < ROWS * WIDE; i++) {
        const float *x = h + i / WIDE * DIM, *y = w + i % WIDE * DIM;
        a.x[i] = x[0] * y[0] + x[1] * y[1] + x[2] * y[2];
    }
    for (int n = 0; n < 4; n++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[n]);
        slg_loss_out out, fused = slg_loss_out_none();
        b = a;
        OK(ctx, call(ctx, &b, true, &out));
        OK(ctx, call(ctx, &a, false, &out));
        assert_memory_equal(b.x, a.d, sizeof a.d);
        slg_tensor x = slg_tensor_2d(h, SLG_F32, ROWS, DIM),
                   y = slg_tensor_2d(w, SLG_F32, WIDE, DIM);
        slg_tensor dx = x, dy = y, tau = slg_tensor_1d(a.tau, SLG_F32, ROWS);
        slg_tensor mask = slg_tensor_1d(a.mask, SLG_I32, WIDE);
        slg_tensor index = slg_tensor_1d(a.index, SLG_I32, ROWS);
        slg_tensor weight = slg_tensor_1d(a.weight, SLG_F32, ROWS);
        slg_tensor loss = slg_tensor_1d(b.loss, SLG_F64, ROWS);
        slg_tensor dtau = slg_tensor_1d(b.dtau, SLG_F32, ROWS);
        slg_tensor entropy = slg_tensor_1d(b.entropy, SLG_F32, ROWS);
        dx.data = dh, dy.data = dw;
        slg_logits l = slg_logits_layer(&x, &y, NULL);
        slg_targets t = slg_targets_index(&index);
        slg_logits_grad g = slg_grad_layer(&dx, &dy, NULL);
        slg_robust_cross_entropy_opts o;
        slg_robust_cross_entropy_opts_init(&o, sizeof o);
        o.rho = a.rho, l.row_temperature = &tau, l.mask = &mask, t.row_weight = &weight;
        fused.loss = &loss;
        OK(ctx, slg_robust_cross_entropy(ctx, &l, &t, &o, &fused, &g, &dtau, &entropy));
        near(fused.value, out.value, 1e-5, "fused: value");
        for (int r = 0; r < ROWS; r++) {
            near(b.loss[r], a.loss[r], 1e-5 * (1 + fabs(a.loss[r])), "fused: loss");
            near((double)b.dtau[r], (double)a.dtau[r], 1e-5, "fused: dtau");
            near((double)b.entropy[r], (double)a.entropy[r], 2e-5, "fused: entropy");
            for (int i = 0; i < DIM; i++) {
                double d = 0;
                for (int k = 0; k < WIDE; k++)
                    d += (double)a.d[r * WIDE + k] * (double)w[k * DIM + i];
                near((double)dh[r * DIM + i], d, 2e-6, "fused: dhidden");
            }
        }
        for (int i = 0; i < WIDE * DIM; i++) {
            double d = 0;
            for (int r = 0; r < ROWS; r++)
                d += (double)a.d[r * WIDE + i / DIM] * (double)h[r * DIM + i % DIM];
            near((double)dw[i], d, 2e-6, "fused: dweight");
        }
        const void *now[4] = { dh, dw, b.dtau, b.entropy };
        const size_t bytes[4] = { sizeof dh, sizeof dw, sizeof b.dtau, sizeof b.entropy };
        for (int i = 0; i < 4; i++) {
            if (n == 0) memcpy(first[i], now[i], bytes[i]);
            assert_memory_equal(first[i], now[i], bytes[i]);
        }
        slg_ctx_free(ctx);
    }
}

/* Rows of bf16: as the same numbers in float32, but for the rounding of the gradient. */
static void test_bf16(void **state)
{
    (void)state;
    enum { WIDE = 300 };
    slg_loss_out out;
    FOR_EACH_ISA(ctx, 2)
    {
        memset(&a, 0, sizeof a);
        refill(&a, WIDE, 2);
        a.rho = 1.1, a.reduction = SLG_SUM;
        tensor x = matrix(SLG_BF16, ROWS, WIDE, ROW_GAPS);
        double loss[ROWS], dtau[ROWS], entropy[ROWS];
        for (int i = 0; i < ROWS * WIDE; i++) {
            a.x[i] = (float)as_dtype(SLG_BF16, (double)a.x[i]);
            put(&x, i / WIDE, i % WIDE, (double)a.x[i]);
        }
        OK(ctx, call(ctx, &a, false, &out));
        slg_tensor tau = slg_tensor_1d(a.tau, SLG_F32, ROWS);
        slg_tensor index = slg_tensor_1d(a.index, SLG_I32, ROWS);
        slg_tensor weight = slg_tensor_1d(a.weight, SLG_F32, ROWS);
        slg_tensor to[3] = { slg_tensor_1d(loss, SLG_F64, ROWS),
                             slg_tensor_1d(dtau, SLG_F64, ROWS),
                             slg_tensor_1d(entropy, SLG_F64, ROWS) };
        slg_logits l = slg_logits_dense(&x.t);
        slg_targets t = slg_targets_index(&index);
        slg_logits_grad g = slg_grad_dense(&x.t); /* in place */
        slg_robust_cross_entropy_opts o;
        slg_robust_cross_entropy_opts_init(&o, sizeof o);
        o.rho = a.rho, o.reduction = SLG_SUM, l.row_temperature = &tau, t.row_weight = &weight;
        slg_loss_out half = loss_out(&to[0], NULL);
        OK(ctx, slg_robust_cross_entropy(ctx, &l, &t, &o, &half, &g, &to[1], &to[2]));
        for (int r = 0; r < ROWS; r++) {
            near(loss[r], a.loss[r], 1e-6 * (1 + fabs(a.loss[r])), "bf16: loss");
            near(dtau[r], (double)a.dtau[r], 2e-6, "bf16: dtau");
            near(entropy[r], (double)a.entropy[r], 2e-6, "bf16: entropy");
            for (int k = 0; k < WIDE; k++) {
                double want = (double)a.d[r * WIDE + k];
                near(get(&x, r, k), want, rounding(SLG_BF16, want) + 1e-7, "bf16: dlogits");
            }
        }
        assert_gaps_intact(&x);
        release(&x);
    }
}

/* ---- Differences ------------------------------------------------------------------------- */

/* The sum of losses; what is varied is in a. */
static double sum_of(const float *x, void *arg)
{
    static data b;
    slg_loss_out out;
    (void)x;
    b = a; /* outputs aside */
    OK((slg_ctx *)arg, call(arg, &b, false, &out));
    return out.sum;
}

static void test_gradient(void **state)
{
    (void)state;
    slg_loss_out out;
    FOR_EACH_ISA(ctx, 1)
    for (int i = 0; i < 2; i++) {
        memset(&a, 0, sizeof a);
        refill(&a, 11, 2);
        a.rho = 0.9, a.reduction = SLG_SUM, a.masked = i == 1, a.softcap = i == 1 ? 5 : 0;
        for (int r = 0; r < ROWS; r++) a.tau[r] = (float)(1 + uniform());
        a.x[3] = -INFINITY;
        a.index[0] = 0;
        OK(ctx, call(ctx, &a, false, &out));
        gradcheck_result g = gradcheck(sum_of, ctx, a.x, ROWS * 11, a.d, NULL);
        assert_true(gradcheck_ok(&g, 5e-5, "dlogits"));
        g = gradcheck(sum_of, ctx, a.tau, ROWS, a.dtau, NULL);
        assert_true(gradcheck_ok(&g, 5e-5, "dtau"));
    }
}

/* One row at ROWS temperatures evenly apart: second differences in tau are those of a function
   whose second derivative is Var_p(z) / tau^3, so never negative. */
static void test_convexity(void **state)
{
    (void)state;
    slg_loss_out out;
    FOR_EACH_ISA(ctx, 1)
    for (int i = 0; i < 12; i++) {
        const double low = i % 3 == 0 ? 0.05 : i % 3 == 1 ? 0.5 : 5, gap = low / 16;
        double z[20], p[20];
        memset(&a, 0, sizeof a);
        refill(&a, 20, i < 6 ? 1 : 6);
        a.rho = 0.7, a.reduction = SLG_SUM;
        for (int k = 0; k < 20; k++) z[k] = (double)a.x[k];
        for (int r = 0; r < ROWS; r++) {
            memcpy(a.x + r * 20, a.x, 20 * sizeof(float));
            a.index[r] = i % 20, a.weight[r] = 1, a.tau[r] = (float)(low + gap * r);
        }
        OK(ctx, call(ctx, &a, false, &out));
        for (int r = 1; r < ROWS - 1; r++) {
            double tau = (double)a.tau[r], mean = 0, square = 0;
            reference(20, z, 0, tau, 0, p);
            for (int k = 0; k < 20; k++) mean += p[k] * z[k], square += p[k] * z[k] * z[k];
            double bend = (square - mean * mean) / (tau * tau * tau);
            double left = (a.loss[r] - a.loss[r - 1]) / (double)(a.tau[r] - a.tau[r - 1]);
            double right = (a.loss[r + 1] - a.loss[r]) / (double)(a.tau[r + 1] - a.tau[r]);
            double noise = 4e-6 * (1 + fabs(a.loss[r])) / gap;
            assert_true(right - left >= -noise);
            near((right - left) / gap, bend, 0.02 * bend + noise / gap, "bend");
            assert_true(a.dtau[r + 1] >= a.dtau[r] - 2e-6f);
            /* Between the slopes on both sides. */
            assert_true((double)a.dtau[r] >= left - noise &&
                        (double)a.dtau[r] <= right + noise);
        }
    }
}

/* Logits all higher by 8 (exact): the same loss and gradients. */
static void test_shift(void **state)
{
    (void)state;
    static data b;
    slg_loss_out out, shifted;
    FOR_EACH_ISA(ctx, 1)
    for (int i = 0; i < 3; i++) {
        memset(&a, 0, sizeof a);
        refill(&a, i ? 50 : COLS, 3);
        a.rho = 1, a.reduction = SLG_MEAN, a.masked = i == 1;
        for (int64_t k = 0; k < ROWS * a.cols; k++)
            a.x[k] = (float)as_dtype(SLG_BF16, (double)a.x[k] / 64) + 0.0f;
        for (int r = 0; r < ROWS; r++) a.tau[r] /= 64;
        b = a;
        for (int64_t k = 0; k < ROWS * a.cols; k++) {
            a.x[k] = rintf(a.x[k] * 65536) / 65536;
            b.x[k] = a.x[k] + 8;
        }
        OK(ctx, call(ctx, &a, false, &out));
        OK(ctx, call(ctx, &b, false, &shifted));
        near(shifted.value, out.value, 2e-6 * (1 + fabs(out.value)), "shift: value");
        for (int r = 0; r < ROWS; r++) {
            near(b.loss[r], a.loss[r], 2e-6 * (1 + fabs(a.loss[r])), "shift: loss");
            near((double)b.entropy[r], (double)a.entropy[r], 4e-6, "shift: entropy");
            near((double)b.dtau[r], (double)a.dtau[r], 4e-6, "shift: dtau");
        }
        for (int64_t k = 0; k < ROWS * a.cols; k++)
            near((double)b.d[k], (double)a.d[k], 1e-6, "shift: dlogits");
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
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),  cmocka_unit_test(test_edges),
        cmocka_unit_test(test_identities), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_sources),
        cmocka_unit_test(test_bf16),       cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_convexity),  cmocka_unit_test(test_shift),
        cmocka_unit_test(test_errors),
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
