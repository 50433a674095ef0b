/* slg_attention_regression: against plain double arithmetic and the vector form; layouts,
   edges. */
#include "loss/loss_test.h"

enum { MOST = 48 };

typedef struct problem_x {
    int64_t n, m, d1, d2;
    tensor a1, a2, x, t;
    double value, *loss, *p, *dx, *da1, *da2; /* the reference */
} problem_x;

static double *doubles(int64_t n) { return zeros(n > 0 ? n : 1, sizeof(double)); }

static tensor random_matrix(int32_t type, int64_t r, int64_t c, enum layout layout,
                            double scale)
{
    tensor t = matrix(type, r, c, layout);
    for (int64_t i = 0; i < r * c; i++) put(&t, i / c, i % c, scale * normal());
    return t;
}

/* The formulas of the header, element by element. */
static void reference_x(problem_x *s)
{
    s->value = 0;
    for (int64_t i = 0; i < s->n; i++) {
        double z[MOST], q[MOST], h[MOST], top = -INFINITY, sum = 0, dot = 0;
        for (int64_t j = 0; j < s->d2; j++) {
            h[j] = 0;
            for (int64_t k = 0; k < s->d1; k++) h[j] += get(&s->a1, i, k) * get(&s->x, k, j);
        }
        for (int64_t k = 0; k < s->m; k++) {
            z[k] = 0;
            for (int64_t j = 0; j < s->d2; j++) z[k] += h[j] * get(&s->a2, k, j);
            top = fmax(top, z[k]);
        }
        for (int64_t k = 0; k < s->m; k++) sum += exp(z[k] - top);
        for (int64_t k = 0; k < s->m; k++) {
            double p = s->p[i * s->m + k] = exp(z[k] - top) / sum, c = p - get(&s->t, i, k);
            s->loss[i] += 0.5 * c * c, dot += p * c;
        }
        s->value += s->loss[i];
        for (int64_t k = 0; k < s->m; k++) {
            q[k] = s->p[i * s->m + k] * (s->p[i * s->m + k] - get(&s->t, i, k) - dot);
            for (int64_t j = 0; j < s->d2; j++) {
                s->da2[k * s->d2 + j] += q[k] * h[j];
                for (int64_t l = 0; l < s->d1; l++) {
                    s->dx[l * s->d2 + j] += get(&s->a1, i, l) * q[k] * get(&s->a2, k, j);
                    s->da1[i * s->d1 + l] += q[k] * get(&s->a2, k, j) * get(&s->x, l, j);
                }
            }
        }
    }
}

static problem_x problem_x_of(int32_t type, int64_t n, int64_t m, int64_t d1, int64_t d2,
                              enum layout layout)
{
    problem_x s = { .n = n, .m = m, .d1 = d1, .d2 = d2 };
    s.a1 = random_matrix(type, n, d1, layout, 1), s.a2 = random_matrix(type, m, d2, layout, 1);
    s.x = random_matrix(type, d1, d2, layout, 0.5),
    s.t = random_matrix(type, n, m, layout, 0.3);
    s.loss = doubles(n), s.p = doubles(n * m), s.dx = doubles(d1 * d2);
    s.da1 = doubles(n * d1), s.da2 = doubles(m * d2);
    reference_x(&s);
    return s;
}

static void free_x(problem_x *s)
{
    release(&s->a1), release(&s->a2), release(&s->x), release(&s->t);
    free(s->loss), free(s->p), free(s->dx), free(s->da1), free(s->da2);
}

static void close_to(const char *what, const tensor *got, const double *want)
{
    double most = 0;
    const int64_t cols = got->t.shape[1];
    for (int64_t i = 0; i < got->t.shape[0] * cols; i++)
        compare(what, i / cols, i % cols, get(got, i / cols, i % cols), want[i],
                4e-6 + rounding(got->t.dtype, want[i]), &most);
}

static void one_shape(int32_t type, int64_t n, int64_t m, int64_t d1, int64_t d2,
                      enum layout layout)
{
    problem_x s = problem_x_of(type, n, m, d1, d2, layout);
    for (int32_t threads = 1; threads <= 3; threads += 2) FOR_EACH_ISA(ctx, threads)
        {
            tensor p = matrix(type, n, m, layout), dx = matrix(type, d1, d2, layout);
            tensor da1 = matrix(type, n, d1, layout), da2 = matrix(type, m, d2, layout);
            tensor loss = vector(SLG_F64, n, CONTIGUOUS);
            slg_attention_regression_out o, alone;
            slg_attention_regression_out_init(&o, sizeof o);
            slg_attention_regression_out_init(&alone, sizeof alone);
            o.prob = &p.t, o.dx = &dx.t, o.da1 = &da1.t, o.da2 = &da2.t, o.loss = &loss.t;
            OK(ctx, slg_attention_regression(ctx, &s.a1.t, &s.a2.t, &s.x.t, &s.t.t, &o));
            OK(ctx, slg_attention_regression(ctx, &s.a1.t, &s.a2.t, &s.x.t, &s.t.t, &alone));
            assert_true(alone.value == o.value);
            assert_true(fabs(o.value - s.value) <= 2e-6 * (1 + s.value));
            for (int64_t i = 0; i < n; i++)
                assert_true(fabs(get(&loss, 0, i) - s.loss[i]) < 2e-6);
            close_to("prob", &p, s.p), close_to("dx", &dx, s.dx);
            close_to("da1", &da1, s.da1), close_to("da2", &da2, s.da2);
            release(&p), release(&dx), release(&da1), release(&da2), release(&loss);
        }
    free_x(&s);
}

static void test_against_double(void **state)
{
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    for (int i = 0; i < 3; i++)
        for (enum layout layout = CONTIGUOUS; layout <= UPSIDE_DOWN; layout++) {
            one_shape(types[i], 4, 5, 3, 3, layout);
            one_shape(types[i], 9, MOST - 1, 7, 2, layout);
            one_shape(types[i], 1, 6, 2, 4, layout);
        }
    one_shape(SLG_F32, 3, 1, 2, 2, CONTIGUOUS); /* one class: no gradient */
    one_shape(SLG_F32, 3, 4, 0, 2, CONTIGUOUS); /* uniform P */
    one_shape(SLG_F32, 3, 4, 2, 0, CONTIGUOUS);
    one_shape(SLG_F32, 0, 4, 2, 3, CONTIGUOUS);
    (void)state;
}

/* n = 1 is the vector form: A = a2, x = X' a1. */
static void test_vector_form(void **state)
{
    problem_x s = problem_x_of(SLG_F32, 1, 30, 4, 6, CONTIGUOUS);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double h[6] = { 0 }, dh[6];
    for (int j = 0; j < 6; j++)
        for (int k = 0; k < 4; k++) h[j] += get(&s.a1, 0, k) * get(&s.x, k, j);
    tensor da2 = matrix(SLG_F32, 30, 6, CONTIGUOUS), da = matrix(SLG_F32, 30, 6, CONTIGUOUS);
    tensor dx = matrix(SLG_F32, 4, 6, CONTIGUOUS);
    slg_tensor th = slg_tensor_1d(h, SLG_F64, 6), td = slg_tensor_1d(dh, SLG_F64, 6);
    slg_tensor tb = slg_tensor_1d(s.t.t.data, SLG_F32, 30);
    slg_softmax_regression_out v;
    slg_attention_regression_out o;
    slg_softmax_regression_out_init(&v, sizeof v);
    slg_attention_regression_out_init(&o, sizeof o);
    v.dx = &td, v.da = &da.t, o.da2 = &da2.t, o.dx = &dx.t;
    OK(ctx, slg_softmax_regression(ctx, &s.a2.t, &th, &tb, NULL, NULL, &v));
    OK(ctx, slg_attention_regression(ctx, &s.a1.t, &s.a2.t, &s.x.t, &s.t.t, &o));
    assert_true(fabs(o.value - v.value) < 1e-6);
    for (int i = 0; i < 180; i++)
        assert_true(fabs(get(&da, i / 6, i % 6) - get(&da2, i / 6, i % 6)) < 1e-6);
    for (int i = 0; i < 24; i++)
        assert_true(fabs(get(&dx, i / 6, i % 6) - get(&s.a1, 0, i / 6) * dh[i % 6]) < 1e-6);
    release(&da2), release(&da), release(&dx), free_x(&s), slg_ctx_free(ctx);
    (void)state;
}

#define CALL() slg_attention_regression(ctx, &s.a1.t, &s.a2.t, &s.x.t, &s.t.t, &o)

static void test_edges(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    problem_x s = problem_x_of(SLG_F32, 3, 4, 2, 2, CONTIGUOUS);
    tensor p = matrix(SLG_F32, 3, 4, CONTIGUOUS), da1 = matrix(SLG_F32, 3, 2, CONTIGUOUS);
    slg_attention_regression_out o;
    slg_attention_regression_out_init(&o, sizeof o);
    o.prob = &p.t, o.da1 = &da1.t;
    put(&s.a1, 1, 0, NAN);                       /* its row alone */
    put(&s.a1, 2, 0, 1e30), put(&s.a1, 2, 1, 0); /* one-hot, though wrong: no gradient */
    OK(ctx, CALL());
    assert_true(isnan(o.value) && isnan(get(&p, 1, 2)) && isnan(get(&da1, 1, 1)));
    assert_true(isfinite(get(&p, 0, 0)) && isfinite(get(&da1, 0, 0)));
    assert_true(get(&da1, 2, 0) == 0 && get(&da1, 2, 1) == 0);
    double sum = 0;
    for (int k = 0; k < 4; k++) sum += get(&p, 2, k);
    assert_true(sum == 1);
    put(&p, 0, 0, 7);
    s.t.t.shape[1] = 3;
    assert_int_equal(CALL(), SLG_ERR_SHAPE);
    assert_non_null(strstr(slg_ctx_message(ctx), "target"));
    s.t.t.shape[1] = 4, s.x.t.shape[0] = 1;
    assert_int_equal(CALL(), SLG_ERR_SHAPE);
    s.x.t.shape[0] = 2, s.a2.t.shape[0] = 0;
    assert_int_equal(CALL(), SLG_ERR_SHAPE);
    s.a2.t.shape[0] = 4, s.a1.t.dtype = SLG_F64;
    assert_int_equal(CALL(), SLG_ERR_DTYPE);
    s.a1.t.dtype = SLG_F32, o.reserved = 1;
    assert_int_equal(CALL(), SLG_ERR_OPTIONS);
    o.reserved = 0, o.dx = &s.x.t;
    assert_int_equal(CALL(), SLG_ERR_STRIDE);
    o.dx = NULL;
    assert_int_equal(slg_attention_regression(ctx, &s.a1.t, &s.a2.t, &s.x.t, NULL, &o),
                     SLG_ERR_NULL);
    assert_int_equal(slg_attention_regression(ctx, &s.a1.t, &s.a2.t, &s.x.t, &s.t.t, NULL),
                     SLG_ERR_NULL);
    assert_true(get(&p, 0, 0) == 7);
    release(&p), release(&da1), free_x(&s), slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_against_double),
                                        cmocka_unit_test(test_vector_form),
                                        cmocka_unit_test(test_edges) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
