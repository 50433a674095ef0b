/* Objectives: derivatives, identities between them, edges. */
#include "solver_test.h"

typedef struct reply {
    double value, grad[MOST], dense[MOST * MOST], diagonal[MOST], product[MOST];
} reply;

static void ask(slg_ctx *ctx, const slg_objective *o, const double *x, const double *v,
                int32_t which, reply *a)
{
    const int64_t d = o->dim;
    slg_tensor tx = slg_tensor_1d(x, SLG_F64, d), tv = slg_tensor_1d(v, SLG_F64, d),
               t[4] = { slg_tensor_1d(a->grad, SLG_F64, d),
                        slg_tensor_2d(a->dense, SLG_F64, d, d),
                        slg_tensor_1d(a->diagonal, SLG_F64, d),
                        slg_tensor_1d(a->product, SLG_F64, d) };
    slg_objective_out out;
    slg_objective_out_init(&out, sizeof out);
    out.which = which, out.grad = &t[0];
    if (which >= 0) out.dense = &t[1], out.diagonal = &t[2], out.product = &t[3];
    if (which < 0) out.which = 0;
    OK(ctx, slg_objective_evaluate(ctx, o, &tx, which < 0 ? NULL : &tv, &out));
    a->value = out.value;
}

/* Gradient, and the matrix where it is the Hessian, against differences; the forms agree. */
static void check_derivatives(slg_ctx *ctx, const dataset *p, int kind, int32_t which,
                              bool hessian)
{
    slg_objective o = objective_of(ctx, p, kind, 0.125);
    reply *a = calloc(3, sizeof *a), *up = a + 1, *down = a + 2;
    const int64_t d = o.dim;
    double x[MOST], v[MOST];
    for (int64_t i = 0; i < d; i++) x[i] = 0.5 * p->x[i], v[i] = normal();
    ask(ctx, &o, x, v, which, a);
    for (int64_t i = 0; i < d; i++) {
        const double keep = x[i], h = 1e-5;
        x[i] = keep + h, ask(ctx, &o, x, v, -1, up);
        x[i] = keep - h, ask(ctx, &o, x, v, -1, down);
        x[i] = keep;
        const double scale = 1 + fabs(a->value);
        NEAR((up->value - down->value) / (2 * h), a->grad[i], 1e-7 * scale);
        double sum = 0;
        for (int64_t j = 0; j < d; j++) {
            const double k = a->dense[i * d + j];
            if (hessian) NEAR((up->grad[j] - down->grad[j]) / (2 * h), k, 1e-7 * scale);
            NEAR(a->dense[j * d + i], k, 0);
            sum += k * v[j];
        }
        NEAR(a->product[i], sum, 1e-11 * scale);
        NEAR(a->diagonal[i], a->dense[i * d + i], 1e-12 * scale);
    }
    slg_objective_free(&o);
    assert_true(o.value == NULL && o.user == NULL);
    free(a);
}

static void test_derivatives(void **state)
{
    dataset *p = dataset_new();
    FOR_EACH_ISA(ctx, 2)
    {
        check_derivatives(ctx, p, LSE, SLG_HESSIAN, true);
        check_derivatives(ctx, p, LSE, SLG_GAUSS_NEWTON, false);
        check_derivatives(ctx, p, LOGISTIC, SLG_HESSIAN, true);
        check_derivatives(ctx, p, LOGISTIC, SLG_FISHER, false);
        check_derivatives(ctx, p, MULTINOMIAL, SLG_HESSIAN, true);
        check_derivatives(ctx, p, MULTINOMIAL, SLG_FISHER, false);
        check_derivatives(ctx, p, POWER, SLG_GAUSS_NEWTON, true); /* u is linear */
        check_derivatives(ctx, p, POWER, SLG_FISHER, false);
        check_derivatives(ctx, p, BENT, SLG_GAUSS_NEWTON, false);
        check_derivatives(ctx, p, REGRESSION, SLG_HESSIAN, true);
        check_derivatives(ctx, p, REGRESSION, SLG_GAUSS_NEWTON, false);
    }
    free(p);
    (void)state;
}

/* Values and matrices from their formulas, in plain loops. */
static void test_reference(void **state)
{
    dataset *p = dataset_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    reply *a = calloc(2, sizeof *a);
    const double ridge = 0.25;
    slg_objective o = objective_of(ctx, p, LOGISTIC, ridge);
    double f = 0, fisher[(D + 1) * (D + 1)] = { 0 };
    for (int i = 0; i < N; i++) {
        double row[D + 1], t = p->x[D], q;
        for (int j = 0; j < D; j++) t += p->x[j] * (row[j] = p->a[i * D + j]);
        row[D] = 1, t *= p->y[i], q = 1 / (1 + exp(t));
        f += log1p(exp(-t)) / N;
        for (int j = 0; j < (D + 1) * (D + 1); j++)
            fisher[j] += q * q * row[j / (D + 1)] * row[j % (D + 1)] / N;
    }
    for (int j = 0; j < D; j++)
        f += ridge / 2 * p->x[j] * p->x[j], fisher[j * (D + 2)] += ridge;
    ask(ctx, &o, p->x, p->x, SLG_FISHER, a);
    NEAR(a->value, f, 1e-13);
    for (int j = 0; j < (D + 1) * (D + 1); j++) NEAR(a->dense[j], fisher[j], 1e-13);
    slg_objective_free(&o);

    o = objective_of(ctx, p, MULTINOMIAL, ridge);
    f = 0;
    for (int i = 0; i < N; i++) {
        double z[CLASSES], sum = 0;
        for (int c = 0; c < CLASSES; c++) {
            z[c] = p->x[c * (D + 1) + D];
            for (int j = 0; j < D; j++) z[c] += p->x[c * (D + 1) + j] * p->a[i * D + j];
            sum += exp(z[c]);
        }
        f += (log(sum) - z[p->label[i]]) / N;
    }
    for (int j = 0; j < CLASSES * (D + 1); j++)
        f += j % (D + 1) == D ? 0 : ridge / 2 * p->x[j] * p->x[j];
    ask(ctx, &o, p->x, p->x, SLG_HESSIAN, a);
    NEAR(a->value, f, 1e-13);
    slg_objective_free(&o), slg_ctx_free(ctx), free(a), free(p);
    (void)state;
}

static void test_identities(void **state)
{
    dataset *p = dataset_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    reply *a = calloc(2, sizeof *a), *b = a + 1;
    slg_objective o = objective_of(ctx, p, LSE, 0), two;
    ask(ctx, &o, p->x, p->x, SLG_GAUSS_NEWTON, a);
    ask(ctx, &o, p->x, p->x, SLG_HESSIAN, b);
    for (int i = 0; i < D * D; i++)
        NEAR(a->dense[i] - b->dense[i], a->grad[i / D] * a->grad[i % D] / 0.7, 1e-13);
    slg_objective_free(&o);

    /* Two classes: logistic regression of x = w1 - w0. */
    int32_t label[N];
    double w[2 * D], x[D];
    slg_tensor tl = slg_tensor_1d(label, SLG_I32, N);
    for (int i = 0; i < N; i++) label[i] = p->y[i] > 0;
    for (int j = 0; j < D; j++) w[j] = p->x[j], w[D + j] = p->x[D + j], x[j] = w[D + j] - w[j];
    slg_objective_init(&o, sizeof o), slg_objective_init(&two, sizeof two);
    OK(ctx, slg_logistic_objective(ctx, &p->ta, &p->ty, NULL, &o));
    OK(ctx, slg_multinomial_objective(ctx, &p->ta, &tl, 2, NULL, &two));
    for (int32_t which = SLG_HESSIAN; which <= SLG_FISHER; which++) {
        ask(ctx, &o, x, x, which, a);
        ask(ctx, &two, w, w, which, b);
        NEAR(a->value, b->value, 1e-13);
        for (int i = 0; i < D; i++) {
            NEAR(b->grad[D + i], a->grad[i], 1e-14);
            NEAR(b->grad[i] + b->grad[D + i], 0, 1e-15);
            for (int j = 0; j < D; j++)
                NEAR(b->dense[(D + i) * 2 * D + D + j], a->dense[i * D + j], 1e-14);
        }
    }
    slg_objective_free(&o), slg_objective_free(&two);

    /* The same row added to all classes: no curvature; gradients sum to 0. */
    slg_objective_init(&o, sizeof o);
    OK(ctx, slg_multinomial_objective(ctx, &p->ta, &p->tlabel, CLASSES, NULL, &o));
    double v[CLASSES * D];
    for (int i = 0; i < CLASSES * D; i++) v[i] = p->b[i % D] * N;
    ask(ctx, &o, p->x, v, SLG_HESSIAN, a);
    for (int j = 0; j < D; j++) {
        double sum = 0;
        for (int c = 0; c < CLASSES; c++) {
            sum += a->grad[c * D + j];
            NEAR(a->product[c * D + j], 0, 1e-15);
        }
        NEAR(sum, 0, 1e-15);
    }
    slg_objective_free(&o), slg_ctx_free(ctx), free(a), free(p);
    (void)state;
}

/* Any type and strides; any number of threads: the same bits. */
static void test_inputs(void **state)
{
    dataset *p = dataset_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    reply *a = calloc(2, sizeof *a), *b = a + 1;
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    for (int t = 0; t < 3; t++) {
        float wide[N * 2 * D];
        double same[N * D];
        uint16_t half[N * 2 * D];
        slg_tensor in = slg_tensor_2d(types[t] == SLG_F32 ? (void *)wide : (void *)half,
                                      types[t], N, D),
                   ref = slg_tensor_2d(same, SLG_F64, N, D);
        in.stride[0] = 2 * D, in.stride[1] = 2;
        for (int i = 0; i < N * D; i++) {
            const int at = i * 2;
            wide[at] = (float)p->a[i];
            uint32_t bits;
            memcpy(&bits, &wide[at], 4);
            half[at] = types[t] == SLG_BF16 ? (uint16_t)(bits >> 16) : half_bits(p->a[i]);
            same[i] =
                get_item(types[t], types[t] == SLG_F32 ? (void *)&wide[at] : (void *)&half[at]);
        }
        slg_objective o[2];
        for (int k = 0; k < 2; k++) {
            slg_objective_init(&o[k], sizeof o[k]);
            OK(ctx, slg_multinomial_objective(ctx, k ? &ref : &in, &p->tlabel, CLASSES, NULL,
                                              &o[k]));
            ask(ctx, &o[k], p->x, p->x, SLG_HESSIAN, k ? b : a);
            slg_objective_free(&o[k]);
        }
        assert_memory_equal(a, b, sizeof *a);
    }
    for (int32_t threads = 1; threads <= 8; threads += threads < 3 ? 1 : 5) {
        slg_ctx *many = context(SLG_ISA_AUTO, threads);
        slg_objective o = objective_of(many, p, MULTINOMIAL, 0);
        ask(many, &o, p->x, p->x, SLG_HESSIAN, b);
        if (threads == 1) *a = *b;
        assert_memory_equal(a, b, sizeof *a);
        slg_objective_free(&o), slg_ctx_free(many);
    }
    slg_ctx_free(ctx), free(a), free(p);
    (void)state;
}

static void test_edges(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    reply *a = calloc(1, sizeof *a);
    slg_objective o;
    slg_objective_init(&o, sizeof o);
    /* t = -1000: softplus 1000, q 1, Fisher a a', Hessian 0 */
    double row[2] = { 1000, 0 }, x[2] = { -1, 0 };
    int32_t y[2] = { 1, 0 };
    slg_tensor ta = slg_tensor_2d(row, SLG_F64, 1, 2), ty = slg_tensor_1d(y, SLG_I32, 1);
    OK(ctx, slg_logistic_objective(ctx, &ta, &ty, NULL, &o));
    ask(ctx, &o, x, x, SLG_FISHER, a);
    assert_true(a->value == 1000 && a->dense[0] == 1e6 && a->grad[0] == -1000);
    ask(ctx, &o, x, x, SLG_HESSIAN, a);
    assert_true(a->dense[0] == 0);
    slg_objective_free(&o);
    /* One row: Hessian 0, H = a a' / mu. Ties: Hessian 0. Logits of 1e5: one-hot. */
    double many[6] = { 2, 3, 2, 3, 2, 3 }, far[4] = { 1e5, 0, 0, -1e5 };
    for (int64_t m = 1; m <= 3; m += 2) {
        slg_tensor t = slg_tensor_2d(many, SLG_F64, m, 2);
        OK(ctx, slg_logsumexp_objective(ctx, &t, NULL, 0.5, &o));
        ask(ctx, &o, x, x, SLG_HESSIAN, a);
        for (int i = 0; i < 4; i++) NEAR(a->dense[i], 0, 1e-30);
        ask(ctx, &o, x, x, SLG_GAUSS_NEWTON, a);
        NEAR(a->dense[1], 12, 1e-14);
        NEAR(a->value, -2 + 0.5 * log((double)m), 1e-14);
        slg_objective_free(&o);
    }
    slg_tensor tf = slg_tensor_2d(far, SLG_F64, 2, 2);
    OK(ctx, slg_logsumexp_objective(ctx, &tf, NULL, 1, &o));
    ask(ctx, &o, x, x, SLG_HESSIAN, a);
    for (int i = 0; i < 4; i++) assert_true(a->dense[i] == 0);
    x[0] = NAN; /* NaN in, NaN out, and no crash */
    ask(ctx, &o, x, x, SLG_HESSIAN, a);
    assert_true(isnan(a->value) && isnan(a->grad[0]));
    x[0] = -1;
    slg_objective_free(&o);
    /* One class */
    y[0] = 0;
    OK(ctx, slg_multinomial_objective(ctx, &ta, &ty, 1, NULL, &o));
    ask(ctx, &o, x, x, SLG_HESSIAN, a);
    assert_true(a->value == 0 && a->grad[0] == 0 && a->dense[0] == 0);
    slg_objective_free(&o);
    /* u = 0: J'J for p = 2, else 0 */
    dataset *p = dataset_new();
    memset(p->b, 0, sizeof p->b);
    double zero[D] = { 0 };
    o = objective_of(ctx, p, POWER, 0);
    ask(ctx, &o, zero, p->x, SLG_GAUSS_NEWTON, a);
    assert_true(a->value == 0 && a->dense[0] == 0 && a->grad[0] == 0);
    slg_objective_free(&o);
    o = objective_of(ctx, p, BENT, 0);
    ask(ctx, &o, zero, p->x, SLG_GAUSS_NEWTON, a);
    double square = 0;
    for (int i = 0; i < N; i++) square += p->a[i * D] * p->a[i * D];
    NEAR(a->dense[0], square, 1e-12 * square);
    slg_objective_free(&o), free(p), slg_ctx_free(ctx), free(a);
    (void)state;
}

static void test_errors(void **state)
{
    dataset *p = dataset_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_objective o, before;
    slg_logistic_opts opts;
    slg_objective_init(&o, sizeof o);
    slg_logistic_opts_init(&opts, sizeof opts);
    memset(&before, 0, sizeof before), before.size = sizeof before;
    slg_tensor none = slg_tensor_2d(p->a, SLG_F64, 0, D),
               thin = slg_tensor_2d(p->a, SLG_F64, N, 0);
    const slg_residuals bad = { .size = sizeof bad, .rows = 0, .dim = 1, .fn = residual };
#define REFUSED(call, code)                                                                    \
    do {                                                                                       \
        assert_int_equal(call, code);                                                          \
        assert_true(slg_ctx_message(ctx)[0] != 0);                                             \
        assert_memory_equal(&o, &before, sizeof o);                                            \
    } while (0)
    REFUSED(slg_logsumexp_objective(ctx, &p->ta, NULL, 0, &o), SLG_ERR_RANGE);
    REFUSED(slg_logsumexp_objective(ctx, &none, NULL, 1, &o), SLG_ERR_SHAPE);
    REFUSED(slg_logsumexp_objective(ctx, &thin, NULL, 1, &o), SLG_ERR_SHAPE);
    REFUSED(slg_logsumexp_objective(ctx, NULL, NULL, 1, &o), SLG_ERR_NULL);
    REFUSED(slg_logsumexp_objective(ctx, &p->ty, NULL, 1, &o), SLG_ERR_DTYPE);
    p->y[3] = 0;
    REFUSED(slg_logistic_objective(ctx, &p->ta, &p->ty, NULL, &o), SLG_ERR_RANGE);
    p->y[3] = 1, opts.ridge = -1;
    REFUSED(slg_logistic_objective(ctx, &p->ta, &p->ty, &opts, &o), SLG_ERR_RANGE);
    opts.ridge = 0, opts.intercept = 2;
    REFUSED(slg_logistic_objective(ctx, &p->ta, &p->ty, &opts, &o), SLG_ERR_RANGE);
    opts.intercept = 0, opts.precision = 2;
    REFUSED(slg_logistic_objective(ctx, &p->ta, &p->ty, &opts, &o), SLG_ERR_RANGE);
    opts.precision = 0, opts.reserved = 1;
    REFUSED(slg_logistic_objective(ctx, &p->ta, &p->ty, &opts, &o), SLG_ERR_OPTIONS);
    p->label[7] = CLASSES;
    REFUSED(slg_multinomial_objective(ctx, &p->ta, &p->tlabel, CLASSES, NULL, &o),
            SLG_ERR_RANGE);
    REFUSED(slg_multinomial_objective(ctx, &p->ta, &p->tlabel, 0, NULL, &o), SLG_ERR_RANGE);
    REFUSED(slg_multinomial_objective(ctx, &p->ta, &p->tb, 2, NULL, &o), SLG_ERR_DTYPE);
    REFUSED(slg_power_objective(ctx, &bad, 2, &o), SLG_ERR_RANGE);
    slg_tensor vast = slg_tensor_2d(p->a, SLG_BF16, INT64_C(1) << 31, INT64_C(1) << 30);
    vast.shape[0]--, vast.stride[0] = vast.stride[1] = 0;
    REFUSED(slg_logsumexp_objective(ctx, &vast, NULL, 1, &o), SLG_ERR_MEMORY);
    p->label[7] = 0;
    /* No matrix of this kind, form or size; outputs that overlap. */
    slg_objective_out out;
    double h[MOST * MOST] = { 7 };
    slg_tensor tx = slg_tensor_1d(p->x, SLG_F64, D), td = slg_tensor_2d(h, SLG_F64, D, D),
               tg = slg_tensor_1d(h + 1, SLG_F64, D);
    slg_objective_out_init(&out, sizeof out);
    out.dense = &td, out.which = SLG_FISHER;
    OK(ctx, slg_logsumexp_objective(ctx, &p->ta, NULL, 1, &o));
    assert_int_equal(slg_objective_evaluate(ctx, &o, &tx, NULL, &out), SLG_ERR_UNSUPPORTED);
    out.which = SLG_HESSIAN, out.grad = &tg;
    assert_int_equal(slg_objective_evaluate(ctx, &o, &tx, NULL, &out), SLG_ERR_STRIDE);
    out.grad = NULL, out.product = &tg;
    assert_int_equal(slg_objective_evaluate(ctx, &o, &tx, NULL, &out), SLG_ERR_STRIDE);
    out.dense = NULL;
    assert_int_equal(slg_objective_evaluate(ctx, &o, &tx, NULL, &out), SLG_ERR_NULL);
    assert_int_equal(slg_objective_evaluate(ctx, &o, &tg, NULL, NULL), SLG_ERR_NULL);
    tx.shape[0] = D - 1;
    assert_int_equal(slg_objective_evaluate(ctx, &o, &tx, NULL, &out), SLG_ERR_SHAPE);
    o.noise = 1;
    assert_int_equal(slg_objective_evaluate(ctx, &o, &tx, NULL, &out), SLG_ERR_RANGE);
    assert_true(h[0] == 7);
    slg_objective_free(&o), slg_objective_free(NULL), slg_ctx_free(ctx), free(p);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_derivatives), cmocka_unit_test(test_reference),
        cmocka_unit_test(test_identities),  cmocka_unit_test(test_inputs),
        cmocka_unit_test(test_edges),       cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
