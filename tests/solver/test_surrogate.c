/* Surrogates: values and gradients, identities, edges, errors. */
#include "support/gradcheck.h"
#include "surrogate_test.h"

/* S of a row, and its gradient. */
static double row_surrogate(int32_t kind, const double *g, const double *from, const double *z,
                            int64_t m, double eta, double *grad)
{
    double dot = 0, d = 0, top[2] = { -INFINITY, -INFINITY }, sum[2] = { 0 }, mean = 0;
    for (int64_t j = 0; j < m; j++) {
        const double e = z[j] == from[j] ? 0 : z[j] - from[j];
        dot += g[j] == 0 ? 0 : g[j] * e;
        if (kind == SLG_SURROGATE_SQUARED) d += e * e / 2, grad[j] = g[j] + e / eta;
        top[0] = fmax(top[0], from[j]), top[1] = fmax(top[1], z[j]);
    }
    if (kind == SLG_SURROGATE_SQUARED) return dot + d / eta;
    for (int64_t j = 0; j < m; j++)
        sum[0] += exp(from[j] - top[0]), sum[1] += exp(z[j] - top[1]);
    for (int64_t j = 0; j < m; j++) {
        const double p = exp(from[j] - top[0]) / sum[0], q = exp(z[j] - top[1]) / sum[1];
        grad[j] = g[j] + (q - p) / eta;
        if (p > 0) mean += p * (z[j] - from[j]);
    }
    for (int64_t j = 0; j < m; j++) {
        const double e = z[j] - from[j] - mean, p = exp(from[j] - top[0]) / sum[0];
        if (p > 0)
            d += p * (fabs(e) < 1e-2 ? e * e / 2 * (1 + e / 3 + e * e / 12) : expm1(e) - e);
    }
    if (d < 1e-3) return dot + log1p(d) / eta;
    return dot + (top[1] + log(sum[1]) - top[0] - log(sum[0]) - mean) / eta;
}

typedef struct trio {
    tensor g, from, z, grad, values;
    int64_t n, m;
} trio;

static trio trio_new(int32_t dtype, int64_t n, int64_t m, enum layout layout, double move)
{
    trio o = { .n = n, .m = m };
    o.g = random_matrix(dtype, n, m, layout, 0.5),
    o.from = random_matrix(dtype, n, m, layout, 3);
    o.z = matrix(dtype, n, m, layout), o.grad = matrix(dtype, n, m, layout);
    o.values = vector(SLG_F64, n, layout);
    for (int64_t i = 0; i < n * m; i++)
        put(&o.z, i / m, i % m, get(&o.from, i / m, i % m) + move * normal());
    return o;
}

static void trio_free(trio *o)
{
    release(&o->g), release(&o->from), release(&o->z), release(&o->grad), release(&o->values);
}

static void judge(trio *o, int32_t kind, double eta, const slg_surrogate_out *out, bool values,
                  double slack)
{
    const int64_t n = o->n, m = o->m;
    double *row = malloc(4 * (size_t)(m + 1) * sizeof *row), total = 0, size = 0;
    assert_non_null(row);
    for (int64_t r = 0; r < n; r++) {
        for (int64_t j = 0; j < m; j++)
            row[j] = get(&o->g, r, j), row[m + j] = get(&o->from, r, j),
            row[2 * m + j] = get(&o->z, r, j);
        const double s = row_surrogate(kind, row, row + m, row + 2 * m, m, eta, row + 3 * m);
        double own = 0;
        for (int64_t j = 0; j < m; j++) {
            const double got = get(&o->grad, r, j), want = row[3 * m + j];
            const double e = fabs(row[2 * m + j] - row[m + j]);
            own += fabs(row[j] * e) + e * e / 2 / eta;
            if (!near(got, want, 4e-7 * (fabs(row[j]) + 1 / eta) + slack * fabs(want)))
                fail_msg("kind %d, row %d, %d: %g, should be %g", kind, (int)r, (int)j, got,
                         want);
        }
        if (values && !near(get(&o->values, 0, r), s, 1e-6 * own + 1e-13))
            fail_msg("kind %d, row %d of %d: %.12g, should be %.12g", kind, (int)r, (int)m,
                     get(&o->values, 0, r), s);
        total += s, size += own;
    }
    assert_true(near(out->value, total, 1e-6 * size + 1e-12));
    assert_true(near(out->linear + out->divergence / eta, out->value, 1e-12 * (1 + size)));
    free(row);
}

static const struct {
    int64_t n, m;
} shapes[] = { { 1, 1 }, { 5, 4 }, { 33, 1 }, { 3, 70000 }, { 200, 10 }, { 7, 33 } };

static void test_values(void **state)
{
    static const double moves[] = { 1e-4, 0.1, 2, 30 }, etas[] = { 1, 2, 0.25, 8 };
    static const double slack[] = { 2e-7, 5e-3, 6e-4 };
    FOR_EACH_ISA(ctx, 2)
    for (int32_t kind = 0; kind < 2; kind++)
        for (int64_t s = 0; s < COUNT(shapes); s++)
            for (int t = 0; t < 12; t++) {
                const int32_t dtype = (int32_t)(t % 3);
                trio o = trio_new(dtype, shapes[s].n, shapes[s].m, (enum layout)(t % 4),
                                  moves[(t / 4 + s) % 4]);
                slg_surrogate_opts opts;
                slg_surrogate_out out;
                slg_surrogate_opts_init(&opts, sizeof opts);
                slg_surrogate_out_init(&out, sizeof out);
                opts.kind = kind, opts.eta = etas[t % 4];
                if (t % 2) out.row_values = &o.values.t;
                OK(ctx, slg_surrogate(ctx, &o.g.t, &o.from.t, &o.z.t, &opts, &o.grad.t, &out));
                judge(&o, kind, opts.eta, &out, t % 2, slack[dtype]);
                assert_gaps_intact(&o.grad);
                trio_free(&o);
            }
    (void)state;
}

/* In place of G and of Z: the same bits. Any number of threads, too. */
static void test_same_bits(void **state)
{
    for (int32_t kind = 0; kind < 2; kind++)
        for (int32_t dtype = SLG_F32; dtype <= SLG_BF16; dtype++) {
            trio want = trio_new(dtype, 300, 257, CONTIGUOUS, 1);
            double value = 0;
            for (int32_t threads = 1; threads <= 8; threads++)
                for (int place = 0; place < 3; place++) {
                    slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
                    slg_surrogate_opts opts;
                    slg_surrogate_out out;
                    slg_surrogate_opts_init(&opts, sizeof opts);
                    slg_surrogate_out_init(&out, sizeof out);
                    opts.kind = kind, opts.eta = 2;
                    trio o = trio_new(dtype, 300, 257, CONTIGUOUS, 1);
                    memcpy(o.g.memory, want.g.memory, want.g.bytes);
                    memcpy(o.from.memory, want.from.memory, want.g.bytes);
                    memcpy(o.z.memory, want.z.memory, want.g.bytes);
                    tensor *to = place == 0 ? &o.grad : place == 1 ? &o.g : &o.z;
                    OK(ctx, slg_surrogate(ctx, &o.g.t, &o.from.t, &o.z.t, &opts, &to->t, &out));
                    if (threads == 1 && place == 0)
                        value = out.value, memcpy(want.grad.memory, to->memory, to->bytes);
                    assert_true(out.value == value);
                    assert_memory_equal(to->memory, want.grad.memory, to->bytes);
                    trio_free(&o);
                    slg_ctx_free(ctx);
                }
            trio_free(&want);
        }
    (void)state;
}

static slg_surrogate_out take(slg_ctx *ctx, trio *o, int32_t kind, double eta)
{
    slg_surrogate_opts opts;
    slg_surrogate_out out;
    slg_surrogate_opts_init(&opts, sizeof opts);
    slg_surrogate_out_init(&out, sizeof out);
    opts.kind = kind, opts.eta = eta, out.row_values = &o->values.t;
    OK(ctx, slg_surrogate(ctx, &o->g.t, &o->from.t, &o->z.t, &opts, &o->grad.t, &out));
    return out;
}

static void test_identities(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind < 2; kind++) {
        trio o = trio_new(SLG_F32, 20, 12, CONTIGUOUS, 0);
        slg_surrogate_out out = take(ctx, &o, kind, 2); /* at Z_t: S = 0, the gradient is G */
        double square = 0;
        for (int64_t i = 0; i < 240; i++) square += get(&o.g, 0, i) * get(&o.g, 0, i);
        assert_true(out.linear == 0 && out.move_norm == 0);
        assert_true(kind ? fabs(out.value) < 1e-12 : out.value == 0);
        assert_true(fabs(out.gradient_norm - sqrt(square)) < 1e-12 * square);
        for (int64_t i = 0; i < 240; i++)
            assert_true(near(get(&o.grad, 0, i), get(&o.g, 0, i), kind ? 1.5e-7 : 0));
        trio_free(&o);
        /* G and 1 / eta scaled by 4. */
        o = trio_new(SLG_F32, 20, 12, CONTIGUOUS, 1);
        out = take(ctx, &o, kind, 2);
        tensor grad = o.grad;
        o.grad = matrix(SLG_F32, 20, 12, CONTIGUOUS);
        for (int64_t i = 0; i < 240; i++) put(&o.g, 0, i, 4 * get(&o.g, 0, i));
        slg_surrogate_out more = take(ctx, &o, kind, 0.5);
        assert_true(near(more.value, 4 * out.value, 1e-9 * fabs(more.value)));
        for (int64_t i = 0; i < 240; i++)
            assert_true(near(get(&o.grad, 0, i), 4 * get(&grad, 0, i), 1e-6));
        release(&grad);
        /* Rows change places: so do their gradients. */
        trio p = trio_new(SLG_F32, 20, 12, CONTIGUOUS, 1);
        for (int64_t i = 0; i < 240; i++) {
            const int64_t r = (i / 12 + 7) % 20, c = i % 12;
            put(&p.g, i / 12, c, get(&o.g, r, c)), put(&p.z, i / 12, c, get(&o.z, r, c));
            put(&p.from, i / 12, c, get(&o.from, r, c));
        }
        take(ctx, &p, kind, 0.5);
        for (int64_t i = 0; i < 240; i++)
            assert_true(get(&p.grad, i / 12, i % 12) ==
                        get(&o.grad, (i / 12 + 7) % 20, i % 12));
        trio_free(&o), trio_free(&p);
    }
    (void)state;
}

/* l(Z) <= l(Z_t) + S(Z) for eta <= 1 / L; equal for squared error at eta = 1 and for softmax
   and KL at eta = 1. */
static void test_majorisation(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t kind = 0; kind < 4; kind++)
        for (int trial = 0; trial < 60; trial++) {
            const int32_t loss = kind == 3 ? SLG_TARGET_SOFTMAX : kind;
            trio o = trio_new(SLG_F32, 5, 4, CONTIGUOUS, pow(10, trial % 4 - 2.0));
            tensor data = random_data(loss, SLG_F32, 5, 4);
            double at, from;
            OK(ctx, slg_target_loss(ctx, loss, &o.from.t, &data.t, &from, &o.g.t));
            OK(ctx, slg_target_loss(ctx, loss, &o.z.t, &data.t, &at, NULL));
            const double eta = kind == 3 ? 1 : eta_of[kind] / (1 + trial % 2);
            const slg_surrogate_out out = take(ctx, &o, kind == 3, eta);
            assert_true(at <= from + out.value + 1e-6 * (1 + at));
            if (kind == 3 || (kind == 0 && eta == 1))
                assert_true(near(at, from + out.value, 2e-6 * (1 + at + out.move_norm)));
            trio_free(&o), release(&data);
        }
    slg_ctx_free(ctx);
    (void)state;
}

/* The divergence of close rows keeps its relative precision. */
static void test_close_rows(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int exponent = -6; exponent < 0; exponent++)
        for (int64_t m = 2; m < 5000; m *= 7) {
            trio o = trio_new(SLG_F32, 1, m, CONTIGUOUS, pow(10, exponent));
            double *row = calloc(4 * (size_t)m, sizeof *row);
            assert_non_null(row);
            for (int64_t j = 0; j < m; j++)
                row[m + j] = get(&o.from, 0, j), row[2 * m + j] = get(&o.z, 0, j);
            const double want = row_surrogate(1, row, row + m, row + 2 * m, m, 1, row + 3 * m);
            const double got = take(ctx, &o, 1, 1).divergence;
            if (!near(got, want, 5e-6 * want))
                fail_msg("m %d, 1e%d: %.9g, should be %.9g", (int)m, exponent, got, want);
            free(row), trio_free(&o);
        }
    (void)state;
}

typedef struct checked {
    slg_ctx *ctx;
    trio *o;
    int32_t kind;
} checked;

static double value_at(const float *x, void *arg)
{
    checked *c = arg;
    for (int64_t i = 0; i < c->o->n * c->o->m; i++) put(&c->o->z, 0, i, (double)x[i]);
    return take(c->ctx, c->o, c->kind, 1.5).value;
}

static void test_gradient(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t kind = 0; kind < 2; kind++) {
        trio o = trio_new(SLG_F32, 6, 5, CONTIGUOUS, 1);
        float x[30], g[30];
        checked c = { ctx, &o, kind };
        take(ctx, &o, kind, 1.5);
        for (int i = 0; i < 30; i++)
            x[i] = (float)get(&o.z, 0, i), g[i] = (float)get(&o.grad, 0, i);
        const gradcheck_result r = gradcheck(value_at, &c, x, 30, g, NULL);
        assert_true(gradcheck_ok(&r, 2e-5, "surrogate"));
        trio_free(&o);
    }
    slg_ctx_free(ctx);
    (void)state;
}

static void test_edges(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind < 2; kind++) {
        trio o = trio_new(SLG_F32, 6, 5, CONTIGUOUS, 1);
        put(&o.from, 1, 2, -INFINITY), put(&o.z, 1, 2, -INFINITY); /* masked: no difference */
        put(&o.g, 1, 2, 0);
        put(&o.z, 2, 3, NAN), put(&o.g, 3, 0, NAN);
        for (int c = 0; c < 5; c++) /* far logits; a row that is masked altogether */
            put(&o.from, 4, c, c == 1 ? 5000 : -5000), put(&o.z, 4, c, c == 2 ? 5000 : -5000),
                put(&o.from, 5, c, -INFINITY), put(&o.z, 5, c, -INFINITY), put(&o.g, 5, c, 0);
        slg_surrogate_out out = take(ctx, &o, kind, 2);
        assert_true(isnan(out.value));
        for (int r = 0; r < 6; r++) {
            assert_true(!!isnan(get(&o.values, 0, r)) == (r == 2 || r == 3));
            if (r == 2 || r == 3) continue;
            for (int c = 0; c < 5; c++) assert_true(isfinite(get(&o.grad, r, c)));
        }
        assert_true(get(&o.grad, 1, 2) == 0 && get(&o.values, 0, 5) == 0);
        assert_true(isnan(get(&o.grad, 3, 0)) && !isnan(get(&o.grad, 3, 1)));
        /* A class masked in Z alone. */
        trio_free(&o);
        o = trio_new(SLG_F32, 2, 3, CONTIGUOUS, 1);
        put(&o.z, 1, 1, -INFINITY), put(&o.g, 1, 1, 0);
        out = take(ctx, &o, kind, 2);
        assert_true(out.value == (double)INFINITY);
        if (kind) assert_true(get(&o.grad, 1, 0) == get(&o.g, 1, 0));
        /* eta = inf: the linear term, whatever the divergence. */
        out = take(ctx, &o, kind, INFINITY);
        assert_true(isfinite(out.value) && out.value == out.linear);
        assert_true(get(&o.grad, 0, 1) == get(&o.g, 0, 1));
        /* KL past the range of the kernels' steps: the divergence of -5e5 and 0 is 5e5. */
        if (kind) {
            for (int c = 0; c < 3; c++)
                put(&o.from, 0, c, c ? 0 : 5e5), put(&o.z, 0, c, c == 1 ? 5e5 : 0);
            out = take(ctx, &o, kind, 1);
            const double linear = 5e5 * (get(&o.g, 0, 1) - get(&o.g, 0, 0));
            assert_true(near(get(&o.values, 0, 0), 5e5 + linear, 1));
        }
        trio_free(&o);
        /* No rows, no columns, one class. */
        o = trio_new(SLG_F32, 0, 3, CONTIGUOUS, 1);
        assert_true(take(ctx, &o, kind, 2).value == 0);
        trio_free(&o);
        o = trio_new(SLG_F32, 3, 0, CONTIGUOUS, 1);
        assert_true(take(ctx, &o, kind, 2).value == 0);
        trio_free(&o);
    }
    (void)state;
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    trio o = trio_new(SLG_F32, 4, 3, CONTIGUOUS, 1), p = trio_new(SLG_F32, 3, 4, 0, 1);
    slg_surrogate_opts opts;
    slg_surrogate_out out;
    slg_surrogate_out_init(&out, sizeof out);
    const slg_tensor *t[3] = { &o.g.t, &o.from.t, &o.z.t };
    slg_tensor *grad = &o.grad.t;
    put(&o.grad, 0, 0, 7);
    slg_surrogate_opts_init(&opts, sizeof opts);
#define REFUSED(code, change, undo)                                                            \
    do {                                                                                       \
        change;                                                                                \
        out.value = 3;                                                                         \
        assert_int_equal(slg_surrogate(ctx, t[0], t[1], t[2], &opts, grad, &out), code);       \
        assert_true(strstr(slg_ctx_message(ctx), "slg_surrogate: ") == slg_ctx_message(ctx));  \
        assert_true(get(&o.grad, 0, 0) == 7 && out.value == 3);                                \
        undo;                                                                                  \
    } while (0)
    for (int i = 0; i < 3; i++) {
        const slg_tensor *kept = t[i];
        slg_tensor bad = *kept;
        REFUSED(SLG_ERR_NULL, t[i] = NULL, t[i] = kept);
        REFUSED(SLG_ERR_DTYPE, t[i] = &bad; bad.dtype = SLG_I32, t[i] = kept);
        bad = *kept;
        REFUSED(SLG_ERR_SHAPE, t[i] = &bad; bad.ndim = 1, t[i] = kept);
        REFUSED(SLG_ERR_SHAPE, t[i] = &p.z.t, t[i] = kept);
    }
    REFUSED(SLG_ERR_SHAPE, grad = &p.z.t, grad = &o.grad.t);
    slg_tensor part = o.grad.t;
    part.stride[0] = 0;
    REFUSED(SLG_ERR_STRIDE, grad = &part, grad = &o.grad.t);
    REFUSED(SLG_ERR_RANGE, opts.eta = 0, opts.eta = 1);
    REFUSED(SLG_ERR_RANGE, opts.eta = -1, opts.eta = 1);
    REFUSED(SLG_ERR_RANGE, opts.eta = NAN, opts.eta = 1);
    REFUSED(SLG_ERR_RANGE, opts.kind = 2, opts.kind = 0);
    REFUSED(SLG_ERR_OPTIONS, opts.size = 3, opts.size = sizeof opts);
    REFUSED(SLG_ERR_OPTIONS, out.reserved = 1, out.reserved = 0);
    REFUSED(SLG_ERR_SHAPE, out.row_values = &p.values.t, out.row_values = NULL);
    slg_tensor over = slg_tensor_1d(o.grad.t.data, SLG_F32, 4);
    REFUSED(SLG_ERR_STRIDE, out.row_values = &over, out.row_values = NULL);
    slg_tensor beside = slg_tensor_2d((float *)o.z.t.data + 1, SLG_F32, 4, 3);
    REFUSED(SLG_ERR_STRIDE, grad = &beside, grad = &o.grad.t);
    assert_int_equal(slg_surrogate(NULL, t[0], t[1], t[2], NULL, NULL, NULL), SLG_ERR_NULL);
    OK(ctx, slg_surrogate(ctx, t[0], t[1], t[2], NULL, NULL, NULL));
    trio_free(&o), trio_free(&p);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),     cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_identities), cmocka_unit_test(test_majorisation),
        cmocka_unit_test(test_close_rows), cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_edges),      cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
