/* Objectives on many rows: blocks, tasks, precisions, threads. */
#include "solver_test.h"

/* Rows of several blocks and tasks, in both precisions: against plain sums in long double. */
enum { MANY = 1500, WIDE = 21 };

typedef struct many_rows {
    float x[MANY * WIDE];
    int32_t label[MANY], y[MANY];
    double w[CLASSES * (WIDE + 1)], grad[CLASSES * (WIDE + 1)], value;
} many_rows;

static many_rows *many_new(void)
{
    many_rows *p = calloc(1, sizeof *p);
    assert_non_null(p);
    for (int i = 0; i < MANY * WIDE; i++) p->x[i] = (float)normal();
    for (int i = 0; i < MANY; i++) {
        p->label[i] = (int32_t)below(CLASSES);
        p->y[i] = uniform() < 0.5 ? -1 : 1;
    }
    for (int i = 0; i < CLASSES * (WIDE + 1); i++) p->w[i] = 0.3 * normal();
    return p;
}

/* Fills value and grad: multinomial, or logistic with the first row of w. */
static void many_reference(many_rows *p, bool logistic)
{
    const int width = WIDE + 1, rows = logistic ? 1 : CLASSES;
    long double f = 0, g[CLASSES * (WIDE + 1)] = { 0 };
    for (int i = 0; i < MANY; i++) {
        long double z[CLASSES], r[CLASSES], sum = 0;
        for (int c = 0; c < rows; c++) {
            z[c] = p->w[c * width + WIDE];
            for (int j = 0; j < WIDE; j++)
                z[c] += p->w[c * width + j] * (double)p->x[i * WIDE + j];
            sum += expl(z[c]);
        }
        for (int c = 0; c < rows; c++) r[c] = expl(z[c]) / sum - (c == p->label[i]);
        if (logistic) r[0] = -p->y[i] / (1 + expl(p->y[i] * z[0]));
        f += logistic ? log1pl(expl(-p->y[i] * z[0])) : logl(sum) - z[p->label[i]];
        for (int c = 0; c < rows; c++)
            for (int j = 0; j <= WIDE; j++)
                g[c * width + j] += r[c] * (j < WIDE ? p->x[i * WIDE + j] : 1);
    }
    p->value = (double)(f / MANY);
    for (int j = 0; j < rows * width; j++) p->grad[j] = (double)(g[j] / MANY);
}

static slg_objective many_objective(slg_ctx *ctx, many_rows *p, bool logistic,
                                    int32_t precision)
{
    slg_objective o;
    slg_logistic_opts opts;
    slg_tensor x = slg_tensor_2d(p->x, SLG_F32, MANY, WIDE),
               y = slg_tensor_1d(logistic ? p->y : p->label, SLG_I32, MANY);
    slg_objective_init(&o, sizeof o);
    slg_logistic_opts_init(&opts, sizeof opts);
    opts.intercept = 1, opts.precision = precision;
    if (logistic)
        OK(ctx, slg_logistic_objective(ctx, &x, &y, &opts, &o));
    else
        OK(ctx, slg_multinomial_objective(ctx, &x, &y, CLASSES, &opts, &o));
    return o;
}

static void test_many_rows(void **state)
{
    many_rows *p = many_new();
    double grad[CLASSES * (WIDE + 1)], first[CLASSES * (WIDE + 1)], value, first_value = 0;
    for (int way = 0; way < 4; way++) {
        const bool logistic = way & 1;
        const int32_t precision = way / 2;
        const double bound = precision == SLG_PRECISION_SINGLE ? 1e-7 : 1e-15;
        many_reference(p, logistic);
        FOR_EACH_ISA(ctx, 1)
        {
            for (int32_t threads = 1; threads <= 8; threads += threads < 3 ? 1 : 5) {
                slg_ctx *own = context(isa_, threads);
                slg_objective o = many_objective(own, p, logistic, precision);
                assert_true((o.noise > 0) == (precision == SLG_PRECISION_SINGLE));
                OK(own, o.value(o.user, p->w, &value, grad));
                NEAR(value, p->value, 3 * bound);
                for (int64_t i = 0; i < o.dim; i++) NEAR(grad[i], p->grad[i], bound);
                if (threads == 1) memcpy(first, grad, sizeof first), first_value = value;
                assert_memory_equal(first, grad, (size_t)o.dim * sizeof *grad);
                assert_true(first_value == value);
                slg_objective_free(&o), slg_ctx_free(own);
            }
        }
    }
    free(p);
    (void)state;
}

/* Products are those of the last curvature, whatever values were asked for since: a solver asks
   so after a trial that failed. */
static void test_products_stay(void **state)
{
    dataset *p = dataset_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int kind = LSE; kind <= MULTINOMIAL; kind++) {
        slg_objective o = objective_of(ctx, p, kind, 0.1);
        double hv[2][MOST], elsewhere[MOST], grad[MOST], f;
        for (int i = 0; i < MOST; i++) elsewhere[i] = 3 * p->x[i] + 1;
        OK(ctx, o.curvature(o.user, p->x, SLG_HESSIAN, SLG_FORM_PRODUCT, &f, NULL));
        OK(ctx, o.product(o.user, p->x, SLG_HESSIAN, p->x, hv[0]));
        OK(ctx, o.value(o.user, elsewhere, &f, grad));
        OK(ctx, o.product(o.user, p->x, SLG_HESSIAN, p->x, hv[1]));
        assert_memory_equal(hv[0], hv[1], (size_t)o.dim * sizeof(double));
        slg_objective_free(&o);
    }
    slg_ctx_free(ctx), free(p);
    (void)state;
}

/* Log-sum-exp over several tasks, whose largest lie anywhere; some rows count for nothing. */
static void test_many_logsumexp(void **state)
{
    many_rows *p = many_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 3);
    for (int way = 0; way < 3; way++) {
        slg_objective o;
        slg_objective_init(&o, sizeof o);
        const double mu = way == 0 ? 0.5 : 0.01;
        for (int i = 0; i < MANY; i++) /* rising, falling */
            p->x[i * WIDE] = way == 1 ? (float)i / 100 : way == 2 ? -(float)i / 100 : 0;
        slg_tensor x = slg_tensor_2d(p->x, SLG_F32, MANY, WIDE);
        long double top = -INFINITY, sum = 0, g[WIDE] = { 0 }, z[MANY];
        for (int i = 0; i < MANY; i++) {
            z[i] = 0;
            for (int j = 0; j < WIDE; j++) z[i] += p->w[j] * (double)p->x[i * WIDE + j];
            z[i] /= mu, top = fmaxl(top, z[i]);
        }
        for (int i = 0; i < MANY; i++) {
            const long double e = expl(z[i] - top);
            sum += e;
            for (int j = 0; j < WIDE; j++) g[j] += e * p->x[i * WIDE + j];
        }
        OK(ctx, slg_logsumexp_objective(ctx, &x, NULL, mu, &o));
        double grad[WIDE], f;
        OK(ctx, o.value(o.user, p->w, &f, grad));
        NEAR(f, (double)(mu * (top + logl(sum))), 1e-14 * (1 + fabs(f)));
        for (int j = 0; j < WIDE; j++) NEAR(grad[j], (double)(g[j] / sum), 1e-12);
        slg_objective_free(&o);
    }
    slg_ctx_free(ctx), free(p);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_products_stay),
        cmocka_unit_test(test_many_logsumexp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
