/* slg_spherical and slg_spherical_terms: against double arithmetic, identities, edges,
   errors. */
#include "loss_test.h"

#include "support/gradcheck.h"

static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/* The loss of a row in long double, and its gradient; *size: of the terms that cancel in it. */
static double reference(const slg_spherical_opts *o, int64_t n, const double *x, int64_t c,
                        double *d, double *size)
{
    long double s = 0, q = 0, m2 = 0, D = (long double)n;
    for (int64_t k = 0; k < n; k++)
        s += (long double)x[k], q += (long double)x[k] * (long double)x[k];
    long double mu = s / D;
    for (int64_t k = 0; k < n; k++) m2 += ((long double)x[k] - mu) * ((long double)x[k] - mu);
    double den, num, oc = x[c];
    *size = 0;
    switch (o->kind) {
    case SLG_SPHERICAL_SQUARED:
        for (int64_t k = 0; k < n; k++) d[k] = 2 * x[k] - 2 * (k == c);
        return (double)q - 2 * oc + 1;
    case SLG_SPHERICAL_TAYLOR:
        den = (double)(D + s + q / 2), num = 1 + oc + oc * oc / 2;
        for (int64_t k = 0; k < n; k++) d[k] = (1 + x[k]) / den - (k == c ? (1 + oc) / num : 0);
        return log(den) - log(num);
    case SLG_SPHERICAL_LOG:
        den = (double)(q + D * (long double)o->eps), num = oc * oc + o->eps;
        for (int64_t k = 0; k < n; k++) d[k] = 2 * x[k] / den - (k == c ? 2 * oc / num : 0);
        return log(den) - log(num);
    default:
        break;
    }
    double sigma = (double)sqrtl(m2 / D),
           z = sigma > 0 ? (double)((long double)oc - mu) / sigma : 0;
    double g = -1 / (1 + exp(-o->a * (o->b - z)));
    *size = sigma > 0 ? -g / (sigma * (double)n) * (1 + fabs(z) * fmin(4, sqrt((double)n))) : 0;
    for (int64_t k = 0; k < n; k++) {
        double zk = sigma > 0 ? (double)((long double)x[k] - mu) / sigma : 0;
        d[k] = sigma > 0 ? g / sigma * ((k == c) - 1 / (double)n - zk * z / (double)n) : 0;
    }
    return softplus(o->a * (o->b - z)) / o->a;
}

static slg_spherical_opts options(int32_t kind, double a, double b)
{
    slg_spherical_opts o;
    slg_spherical_opts_init(&o, sizeof o);
    o.kind = kind, o.a = a, o.b = b, o.reduction = SLG_SUM;
    return o;
}

/* Every kind, lengths around blocks, offsets and scales, types, in place or not. */
static void one_problem(slg_ctx *ctx, int32_t kind, int64_t cols, int32_t type, double scale,
                        double offset, double temperature, bool in_place)
{
    enum { ROWS = 5 };
    slg_spherical_opts o = options(kind, 0.5, 1.5);
    tensor x = matrix(type, ROWS, cols, cols % 2 ? ROW_GAPS : CONTIGUOUS);
    tensor d = matrix(SLG_F32, ROWS, cols, CONTIGUOUS), t = vector(SLG_I64, ROWS, CONTIGUOUS);
    tensor w = vector(SLG_F32, ROWS, CONTIGUOUS), l = vector(SLG_F64, ROWS, CONTIGUOUS);
    double *row = zeros(ROWS * cols, sizeof *row), *want = zeros(cols, sizeof *want);
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t k = 0; k < cols; k++) {
            put(&x, r, k, offset + scale * normal());
            row[r * cols + k] = get(&x, r, k) / temperature;
        }
        put(&t, 0, r, r == 2 ? -100 : (double)below(cols));
        put(&w, 0, r, 0.5 + (double)r);
    }
    slg_logits src = slg_logits_dense(&x.t);
    src.temperature = temperature;
    slg_targets targets = slg_targets_index(&t.t);
    targets.row_weight = &w.t;
    slg_loss_out out = slg_loss_out_none();
    out.loss = &l.t;
    slg_logits_grad grad = slg_grad_dense(in_place ? &x.t : &d.t);
    OK(ctx, slg_spherical(ctx, &src, &targets, &o, &out, &grad));
    for (int64_t r = 0; r < ROWS; r++) {
        double size = 0, weight = get(&w, 0, r), loss = 0;
        for (int64_t k = 0; k < cols; k++) want[k] = 0;
        if (r != 2)
            loss = weight *
                   reference(&o, cols, row + r * cols, (int64_t)get(&t, 0, r), want, &size);
        if (!(fabs(get(&l, 0, r) - loss) <= 3e-6 * (fabs(loss) + weight)))
            fail_msg("kind %d, cols %lld, scale %g, offset %g: loss %.9g, not %.9g", kind,
                     (long long)cols, scale, offset, get(&l, 0, r), loss);
        for (int64_t k = 0; k < cols; k++) want[k] *= weight / temperature;
        for (int64_t k = 0; k < cols; k++) {
            double got = get(in_place ? &x : &d, r, k);
            double tolerance = 2e-6 * (fabs(want[k]) + size * weight / temperature) + 1e-37;
            if (in_place) tolerance += rounding(type, want[k]);
            if (!(fabs(got - want[k]) <= tolerance))
                fail_msg(
                    "kind %d, cols %lld, scale %g, offset %g: gradient %lld is %.9g, not %.9g",
                    kind, (long long)cols, scale, offset, (long long)k, got, want[k]);
        }
    }
    free(row), free(want);
    release(&x), release(&d), release(&t), release(&w), release(&l);
}

static void test_values(void **state)
{
    (void)state;
    static const int64_t cols[] = { 3, 17, 2048, 2049, 5000 };
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind <= 3; kind++)
        for (int64_t i = 0; i < COUNT(cols); i++) {
            one_problem(ctx, kind, cols[i], SLG_F32, 1, 0, 1, false);
            one_problem(ctx, kind, cols[i], SLG_F32, 2, -3, 0.5, true);
            one_problem(ctx, kind, cols[i], SLG_BF16, 1, 0.5, 1, i % 2);
            if (kind != SLG_SPHERICAL_Z) continue;
            one_problem(ctx, kind, cols[i], SLG_F32, 1e-3, 100, 1, false);
            one_problem(ctx, kind, cols[i], SLG_F32, 1e30, 0, 1, false);
            one_problem(ctx, kind, cols[i], SLG_F32, 1e-27, 0, 1, true);
        }
}

/* Loss of one row, its gradient in d. */
static double call(slg_ctx *ctx, const slg_spherical_opts *o, int64_t n, const float *x,
                   int32_t c, float *d)
{
    slg_tensor xs = slg_tensor_2d(x, SLG_F32, 1, n), ds = slg_tensor_2d(d, SLG_F32, 1, n);
    slg_tensor ts = slg_tensor_1d(&c, SLG_I32, 1);
    slg_logits l = slg_logits_dense(&xs);
    slg_targets t = slg_targets_index(&ts);
    slg_loss_out out = slg_loss_out_none();
    slg_logits_grad g = slg_grad_dense(&ds);
    OK(ctx, slg_spherical(ctx, &l, &t, o, &out, d ? &g : NULL));
    return out.value;
}

enum { N = 40 };

typedef struct value_arg {
    slg_ctx *ctx;
    slg_spherical_opts o;
} value_arg;

static double value_at(const float *x, void *arg)
{
    const value_arg *v = arg;
    return call(v->ctx, &v->o, N, x, 7, NULL);
}

static void test_gradient(void **state)
{
    (void)state;
    float x[N], d[N];
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind <= 3; kind++) {
        value_arg v = { ctx, options(kind, 0.7, 1) };
        v.o.eps = 0.5;
        for (int i = 0; i < N; i++) x[i] = (float)normal();
        x[7] = 0.8f;
        call(ctx, &v.o, N, x, 7, d);
        /* A parabola bears any step; its value is about N. */
        const gradcheck_opts step = { .step = kind == SLG_SPHERICAL_SQUARED ? 0.5 : 1.0 / 32 };
        gradcheck_result r = gradcheck(value_at, &v, x, N, d, &step);
        assert_true(gradcheck_ok(&r, 1e-4, "spherical"));
    }
}

static void test_identities(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        float x[N], y[N], d[N];
        double sum = 0, product = 0, q = 0, z;
        for (int i = 0; i < N; i++) x[i] = (float)normal(), y[i] = 8 * x[i] - 2;
        slg_spherical_opts o = options(SLG_SPHERICAL_Z, 1, 0),
                           hinge = options(SLG_SPHERICAL_Z, 1e6, 2);
        double loss = call(ctx, &o, N, x, 3, d);
        for (int i = 0; i < N; i++)
            sum += (double)d[i], product += (double)d[i] * (double)x[i],
                q += fabs((double)d[i]);
        assert_true(fabs(sum) < 1e-6 * q && fabs(product) < 1e-6 * q);
        assert_true(fabs(call(ctx, &o, N, y, 3, NULL) - loss) < 1e-6); /* shift and scale */
        z = -log(expm1(loss));                                         /* a = 1, b = 0 */
        assert_true(fabs(call(ctx, &hinge, N, x, 3, NULL) - fmax(0, 2 - z)) < 1e-5);
        slg_spherical_opts small = options(SLG_SPHERICAL_Z, 1e-6, 1);
        assert_true(fabs(call(ctx, &small, N, x, 3, NULL) - (log(2) / 1e-6 + (1 - z) / 2)) <
                    1e-3);

        /* Two classes: z is +-1; constant rows; one class; a one-hot row. */
        const float two[] = { 2, -1 }, same[N] = { 0 }, hot[4] = { 0, 5, 0, 0 };
        assert_true(fabs(call(ctx, &o, 2, two, 1, d) - softplus(1)) < 1e-6);
        assert_true(fabsf(d[0]) < 1e-6f && fabsf(d[1]) < 1e-6f);
        assert_true(fabs(call(ctx, &hinge, N, same, 1, d) - 2) < 1e-9);
        for (int i = 0; i < N; i++) assert_true(d[i] == 0);
        call(ctx, &hinge, 1, two, 0, d);
        assert_true(d[0] == 0);
        call(ctx, &o, 4, hot, 1, d);
        for (int i = 0; i < 4; i++) assert_true(fabsf(d[i]) < 1e-7f);
    }
}

/* NaN and infinities stay in their rows; ignored rows are 0, whatever they hold. */
static void test_edges(void **state)
{
    (void)state;
    static const float odd[] = { NAN, INFINITY, -INFINITY };
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind <= 3; kind++)
        for (int v = 0; v < 6; v++) {
            float x[3 * N], d[3 * N], loss[3], z[3];
            for (int i = 0; i < 3 * N; i++) x[i] = (float)normal();
            x[N + 5] = odd[v % 3];
            const int32_t index[3] = { 4, v < 3 ? 6 : 5, 2 };
            const int32_t skip[3] = { 4, -100, 2 };
            slg_tensor xs = slg_tensor_2d(x, SLG_F32, 3, N),
                       ds = slg_tensor_2d(d, SLG_F32, 3, N);
            slg_tensor ls = slg_tensor_1d(loss, SLG_F32, 3), zs = slg_tensor_1d(z, SLG_F32, 3);
            for (int ignore = 0; ignore < 2; ignore++) {
                slg_tensor ts = slg_tensor_1d(ignore ? skip : index, SLG_I32, 3);
                slg_logits l = slg_logits_dense(&xs);
                slg_targets t = slg_targets_index(&ts);
                slg_loss_out out = slg_loss_out_none();
                slg_logits_grad g = slg_grad_dense(&ds);
                slg_spherical_opts o = options(kind, 1, 0);
                o.z = &zs, out.loss = &ls;
                OK(ctx, slg_spherical(ctx, &l, &t, &o, &out, &g));
                assert_true(ignore ? loss[1] == 0 && z[1] == 0 : isnan(loss[1]) && isnan(z[1]));
                for (int i = 0; i < 3 * N; i++)
                    assert_true(i / N != 1 ? isfinite(d[i]) : ignore ? d[i] == 0 : isnan(d[i]));
                assert_true(isfinite(loss[0]) && isfinite(loss[2]) && isfinite(z[0]));
            }
        }
}

/* Dense = fused, and the same bits for any number of threads. */
static void test_fused_and_threads(void **state)
{
    (void)state;
    enum { ROWS = 9, COLS = 3000, DIM = 6 };
    static float h[ROWS * DIM], w[COLS * DIM], x[ROWS * COLS], d[5][ROWS * COLS],
        dh[ROWS * DIM];
    int32_t index[ROWS];
    const int32_t threads[] = { 1, 2, 3, 8 };
    for (int i = 0; i < ROWS * DIM; i++) h[i] = (float)normal();
    for (int i = 0; i < COLS * DIM; i++) w[i] = (float)normal();
    for (int r = 0; r < ROWS; r++) {
        index[r] = (int32_t)below(COLS);
        for (int c = 0; c < COLS; c++) {
            double sum = 0;
            for (int i = 0; i < DIM; i++)
                sum += (double)h[r * DIM + i] * (double)w[c * DIM + i];
            x[r * COLS + c] = (float)sum;
        }
    }
    slg_tensor hs = slg_tensor_2d(h, SLG_F32, ROWS, DIM),
               ws = slg_tensor_2d(w, SLG_F32, COLS, DIM);
    slg_tensor xs = slg_tensor_2d(x, SLG_F32, ROWS, COLS),
               ts = slg_tensor_1d(index, SLG_I32, ROWS);
    slg_targets t = slg_targets_index(&ts);
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++) {
        double value = 0;
        for (int j = 0; j < 4; j++) {
            slg_ctx *ctx = context(isa, threads[j]);
            if (!ctx) return;
            slg_tensor ds = slg_tensor_2d(d[j], SLG_F32, ROWS, COLS);
            slg_tensor dhs = slg_tensor_2d(dh, SLG_F32, ROWS, DIM);
            slg_logits l = slg_logits_dense(&xs), fused = slg_logits_layer(&hs, &ws, NULL);
            slg_logits_grad g = slg_grad_dense(&ds), gf = slg_grad_layer(&dhs, NULL, NULL);
            slg_loss_out out = slg_loss_out_none(), of = out;
            OK(ctx, slg_spherical(ctx, &l, &t, NULL, &out, &g));
            assert_true(j == 0 || (out.value == value && !memcmp(d[0], d[j], sizeof d[0])));
            value = out.value;
            OK(ctx, slg_spherical(ctx, &fused, &t, NULL, &of, &gf));
            assert_true(fabs(of.value - value) < 1e-6);
            for (int r = 0; r < ROWS; r++)
                for (int i = 0; i < DIM; i++) {
                    double sum = 0;
                    for (int c = 0; c < COLS; c++)
                        sum += (double)d[j][r * COLS + c] * (double)w[c * DIM + i];
                    assert_true(fabs((double)dh[r * DIM + i] - sum) < 1e-6);
                }
            slg_ctx_free(ctx);
        }
    }
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float x[6] = { 1, 2, 3, 4, 5, 6 }, z[2] = { 7, 7 }, mask[3] = { 1, 1, 0 };
    int32_t index[2] = { 0, 1 };
    slg_tensor xs = slg_tensor_2d(x, SLG_F32, 2, 3), ts = slg_tensor_1d(index, SLG_I32, 2);
    slg_tensor zs = slg_tensor_1d(z, SLG_F32, 2), ms = slg_tensor_1d(mask, SLG_F32, 3);
    slg_tensor in_x = slg_tensor_1d(x, SLG_F32, 2), three = slg_tensor_1d(x, SLG_F32, 3);
    slg_logits l = slg_logits_dense(&xs), masked = l;
    masked.mask = &ms;
    slg_targets t = slg_targets_index(&ts);
    slg_loss_out out = slg_loss_out_none(), lse = out;
    lse.lse = &zs;
    slg_spherical_opts o = options(SLG_SPHERICAL_Z, 1, 0), bad[7];
    for (int i = 0; i < 7; i++) bad[i] = o;
    bad[0].kind = 4, bad[1].a = 0, bad[2].a = NAN, bad[3].b = INFINITY, bad[4].eps = 0;
    bad[5].reduction = 9, bad[6].kind = -1;
    for (int i = 0; i < 7; i++)
        assert_int_equal(slg_spherical(ctx, &l, &t, &bad[i], &out, NULL), SLG_ERR_RANGE);
    assert_int_equal(slg_spherical(ctx, &masked, &t, &o, &out, NULL), SLG_ERR_UNSUPPORTED);
    assert_int_equal(slg_spherical(ctx, &l, &t, &o, &lse, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_spherical(NULL, &l, &t, &o, &out, NULL), SLG_ERR_NULL);
    o.z = &in_x;
    assert_int_equal(slg_spherical(ctx, &l, &t, &o, &out, NULL), SLG_ERR_STRIDE);
    o.z = &zs, index[1] = 3;
    assert_int_equal(slg_spherical(ctx, &l, &t, &o, &out, NULL), SLG_ERR_RANGE);
    assert_true(z[0] == 7 && z[1] == 7);
    o.z = NULL, o.reserved = 1;
    assert_int_equal(slg_spherical(ctx, &l, &t, &o, &out, NULL), SLG_ERR_OPTIONS);
    o.reserved = 0;
    assert_int_equal(
        slg_spherical_terms(ctx, &in_x, &zs, &three, 3, &o, NULL, NULL, NULL, NULL),
        SLG_ERR_SHAPE);
    assert_int_equal(slg_spherical_terms(ctx, &in_x, &zs, &zs, 0, &o, NULL, NULL, NULL, NULL),
                     SLG_ERR_RANGE);
    assert_int_equal(slg_spherical_terms(ctx, &in_x, &zs, NULL, 3, &o, NULL, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    assert_int_equal(slg_spherical_terms(ctx, &zs, &zs, &zs, 3, &o, &in_x, &in_x, NULL, NULL),
                     SLG_ERR_STRIDE);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_fused_and_threads),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
