/*
 * L-BFGS and Newton at scikit-learn's solutions, to 1e-6: digits, wine and breast_cancer, as
 * they are and scaled, with and without an intercept. The figures are in sklearn.golden, made
 * by make_sklearn.py.
 */
#include "solver_test.h"

#include "support/golden_reader.h"

static golden_file file;

static int open_file(void **state)
{
    char *error;
    (void)state;
    if (!golden_read(SKLEARN_GOLDEN, &file, &error)) fail_msg("%s", error);
    return 0;
}

static int close_file(void **state)
{
    (void)state;
    golden_free(&file);
    return 0;
}

typedef struct samples {
    int64_t n, d, classes;
    double *x; /* [n, d] */
    int32_t *y;
} samples;

/* Numbers of 8 digits to the base 17, the first one lowest. */
static void unpack(const golden_tensor *t, double *x)
{
    for (int64_t i = 0; i < t->size; i++) {
        int64_t v = (int64_t)t->values[i];
        for (int k = 0; k < 8; k++, v /= 17) x[8 * i + k] = (double)(v % 17);
    }
}

static samples samples_of(const char *name)
{
    char data[64];
    samples s = { 0 };
    snprintf(data, sizeof data, "%s/data", name);
    for (size_t i = 0; i < file.count; i++) {
        const golden_case *c = &file.cases[i];
        if (strcmp(c->name, data)) continue;
        const golden_tensor *x = golden_find_tensor(c, "x"), *y = golden_find_tensor(c, "y"),
                            *packed = golden_find_tensor(c, "packed");
        s.n = y->size, s.d = x ? x->shape[1] : 8 * packed->shape[1];
        s.x = calloc((size_t)(s.n * s.d), sizeof *s.x);
        s.y = calloc((size_t)s.n, sizeof *s.y);
        assert_true(s.x && s.y);
        if (x)
            memcpy(s.x, x->values, (size_t)x->size * sizeof *s.x);
        else
            unpack(packed, s.x);
        for (int64_t k = 0; k < s.n; k++) {
            s.y[k] = (int32_t)y->values[k];
            if (s.y[k] >= s.classes) s.classes = s.y[k] + 1;
        }
    }
    assert_true(s.n > 0);
    return s;
}

/* Columns less their means, over their standard deviations. */
static void scale(samples *s)
{
    for (int64_t j = 0; j < s->d; j++) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < s->n; i++) mean += s->x[i * s->d + j] / (double)s->n;
        for (int64_t i = 0; i < s->n; i++) {
            const double v = s->x[i * s->d + j] -= mean;
            square += v * v / (double)s->n;
        }
        for (int64_t i = 0; i < s->n; i++) s->x[i * s->d + j] /= sqrt(square);
    }
}

static slg_objective objective(slg_ctx *ctx, const samples *s, const golden_case *c)
{
    slg_objective o;
    slg_logistic_opts opts;
    slg_tensor x = slg_tensor_2d(s->x, SLG_F64, s->n, s->d),
               y = slg_tensor_1d(s->y, SLG_I32, s->n);
    slg_objective_init(&o, sizeof o);
    slg_logistic_opts_init(&opts, sizeof opts);
    opts.ridge = 1 / (golden_find_scalar(c, "C")->value * (double)s->n);
    opts.intercept = golden_find_scalar(c, "intercept")->value != 0;
    if (s->classes > 2) {
        OK(ctx, slg_multinomial_objective(ctx, &x, &y, s->classes, &opts, &o));
        return o;
    }
    for (int64_t i = 0; i < s->n; i++) s->y[i] = s->y[i] > 0 ? 1 : -1;
    OK(ctx, slg_logistic_objective(ctx, &x, &y, &opts, &o));
    return o;
}

/* The largest difference. A shift of all intercepts of several classes changes nothing. */
static double apart(const golden_case *c, const double *w, bool intercept)
{
    const golden_tensor *coef = golden_find_tensor(c, "expect.coef"),
                        *b = golden_find_tensor(c, "expect.intercept");
    const int64_t rows = coef->shape[0], d = coef->shape[1], width = d + intercept;
    double most = 0, shift = 0;
    for (int64_t i = 0; i < rows && intercept && rows > 1; i++)
        shift += (w[i * width + d] - b->values[i]) / (double)rows;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < d; j++)
            most = fmax(most, fabs(w[i * width + j] - coef->values[i * d + j]));
        if (intercept) most = fmax(most, fabs(w[i * width + d] - b->values[i] - shift));
    }
    return most;
}

static void solve(slg_ctx *ctx, const golden_case *c, const slg_objective *o, int32_t kind)
{
    double *w = calloc((size_t)o->dim, sizeof *w);
    slg_tensor t = slg_tensor_1d(w, SLG_F64, o->dim);
    slg_solver *s;
    slg_solver_run_opts run;
    slg_solver_report r = { .size = sizeof r };
    slg_solver_run_opts_init(&run, sizeof run);
    run.steps = 100000, run.grad_norm = 1e-12;
    OK(ctx, slg_solver_create(ctx, kind, o, &t, NULL, &s));
    OK(ctx, slg_solver_run(s, &run, &r));
    OK(ctx, slg_solver_get(s, &t, NULL));
    const double most = apart(c, w, golden_find_scalar(c, "intercept")->value != 0);
    print_message("%-32s %-6s %6lld steps, |g| %.1e, apart %.1e\n", c->name,
                  kind == SLG_LBFGS ? "L-BFGS" : "Newton", (long long)r.steps, r.grad_norm,
                  most);
    assert_true(most <= 1e-6);
    slg_solver_free(s), free(w);
}

static void check(const char *name)
{
    char prefix[64];
    const int length = snprintf(prefix, sizeof prefix, "%s/", name);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    int found = 0;
    for (size_t i = 0; i < file.count; i++) {
        const golden_case *c = &file.cases[i];
        if (strncmp(c->name, prefix, (size_t)length) || !golden_find_scalar(c, "C")) continue;
        samples s = samples_of(name);
        const bool scaled = golden_find_scalar(c, "scaled")->value != 0;
        if (scaled) scale(&s);
        slg_objective o = objective(ctx, &s, c);
        /* Of columns as they are it takes up to 40,000 steps: of those one C is enough. */
        if (scaled || golden_find_scalar(c, "C")->value == 1) solve(ctx, c, &o, SLG_LBFGS);
        solve(ctx, c, &o, SLG_NORMALIZED_NEWTON);
        slg_objective_free(&o), free(s.x), free(s.y);
        found++;
    }
    assert_true(found >= 4);
    slg_ctx_free(ctx);
}

static void test_digits(void **state) { (void)state, check("digits"); }
static void test_wine(void **state) { (void)state, check("wine"); }
static void test_breast_cancer(void **state) { (void)state, check("breast_cancer"); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digits),
        cmocka_unit_test(test_wine),
        cmocka_unit_test(test_breast_cancer),
    };
    return cmocka_run_group_tests(tests, open_file, close_file);
}
