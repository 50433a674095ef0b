/*
 * 06 - Gradient-Normalized Smoothness for Optimization with Approximate Hessians (2025).
 *
 * Log-sum-exp as in the paper's first experiment, at n = m = 200, then logistic regression on
 * breast_cancer: accepted steps of one rule with the exact Hessian, with approximations of it
 * and with none, beside descent with a line search. And the baseline that users expect, L-BFGS,
 * against scikit-learn's optimum. The paper has curves of these experiments, no table: figures
 * marked NumPy are of a plain double implementation of its algorithm.
 */
#include "papers.h"

/* ---- NumPy's RandomState(seed).rand: the experiment is fixed to the bit ------------- */

typedef struct mersenne {
    uint32_t s[624];
    int at;
} mersenne;

static void mersenne_seed(mersenne *m, uint32_t seed)
{
    m->s[0] = seed;
    for (uint32_t i = 1; i < 624; i++)
        m->s[i] = 1812433253u * (m->s[i - 1] ^ m->s[i - 1] >> 30) + i;
    m->at = 624;
}

static uint32_t mersenne_next(mersenne *m)
{
    if (m->at == 624) {
        for (int i = 0; i < 624; i++) {
            uint32_t y = (m->s[i] & 0x80000000u) | (m->s[(i + 1) % 624] & 0x7FFFFFFFu);
            m->s[i] = m->s[(i + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908B0DFu : 0);
        }
        m->at = 0;
    }
    uint32_t y = m->s[m->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9D2C5680u;
    y ^= y << 15 & 0xEFC60000u;
    return y ^ y >> 18;
}

static double mersenne_uniform(mersenne *m)
{
    const uint32_t a = mersenne_next(m) >> 5, b = mersenne_next(m) >> 6;
    return (a * 67108864.0 + b) / 9007199254740992.0;
}

/* ---- Runs ---------------------------------------------------------------------------- */

typedef struct world {
    run_t *r;
    slg_ctx *ctx;
    slg_objective o;
    slg_tensor x0;
    const slg_tensor *metric;
    double grad_norm, value; /* where to stop */
} world;

static slg_solver_report newton(world *w, int32_t which, int32_t form, int64_t steps)
{
    slg_normalized_newton_opts opts;
    slg_solver_run_opts run;
    slg_solver *s;
    slg_solver_report r = { .size = sizeof r };
    slg_normalized_newton_opts_init(&opts, sizeof opts);
    slg_solver_run_opts_init(&run, sizeof run);
    opts.which = which, opts.form = form, opts.metric = w->metric;
    run.steps = steps, run.grad_norm = w->grad_norm, run.value = w->value;
    must(w->r, w->ctx,
         slg_solver_create(w->ctx, SLG_NORMALIZED_NEWTON, &w->o, &w->x0, &opts, &s));
    slg_status status = slg_solver_run(s, &run, &r);
    slg_solver_free(s);
    must(w->r, w->ctx, status);
    return r;
}

/* x <- x - B^-1 g / M; M doubles until f falls by |g|_*^2 / (2 M), and is halved after. */
static int64_t descend(world *w, int64_t most, double *value)
{
    const int64_t d = w->o.dim;
    double *x = run_doubles(w->r, (size_t)(4 * d)), *g = x + d, *dx = g + d, *next = dx + d;
    double m = 1;
    int64_t steps = 0;
    slg_step_opts opts;
    slg_step_out out = { .size = sizeof out };
    slg_tensor tg = slg_tensor_1d(g, SLG_F64, d), tdx = slg_tensor_1d(dx, SLG_F64, d),
               tx = slg_tensor_1d(x, SLG_F64, d), tn = slg_tensor_1d(next, SLG_F64, d);
    slg_step_opts_init(&opts, sizeof opts);
    opts.form = SLG_FORM_ZERO;
    memcpy(x, w->x0.data, (size_t)d * sizeof *x);
    for (;; steps++) {
        slg_objective_out at, then;
        slg_objective_out_init(&at, sizeof at), slg_objective_out_init(&then, sizeof then);
        at.grad = &tg;
        must(w->r, w->ctx, slg_objective_evaluate(w->ctx, &w->o, &tx, NULL, &at));
        /* gamma 1: dx = -B^-1 g / |g|_*, and lambda = |g|_* */
        must(w->r, w->ctx,
             slg_regularized_step(w->ctx, NULL, &tg, 1, w->metric, &opts, &tdx, &out));
        *value = at.value;
        if (steps >= most || out.lambda <= w->grad_norm || at.value <= w->value) return steps;
        for (int trial = 0; trial < 60; trial++, m *= 2) {
            for (int64_t i = 0; i < d; i++) next[i] = x[i] + dx[i] * out.lambda / m;
            must(w->r, w->ctx, slg_objective_evaluate(w->ctx, &w->o, &tn, NULL, &then));
            if (at.value - then.value >= out.lambda * out.lambda / (2 * m)) break;
        }
        memcpy(x, next, (size_t)d * sizeof *x);
        m /= 2;
    }
}

/* ---- Log-sum-exp ---------------------------------------------------------------------- */

static void logsumexp(run_t *r, slg_ctx *ctx)
{
    enum { N = 200 };
    double *a = run_doubles(r, N * N), *rows = run_doubles(r, N * N),
           *metric = run_doubles(r, N * N), *x = run_doubles(r, 3 * N), *b = x + N,
           *mean = b + N, sum = 0, value, zero = 0;
    mersenne g;
    mersenne_seed(&g, 3124);
    for (int i = 0; i < N * N; i++) a[i] = mersenne_uniform(&g) * 2 - 1;
    for (int i = 0; i < N; i++) b[i] = mersenne_uniform(&g) * 2 - 1, x[i] = 1;
    for (int i = 0; i < N; i++) sum += exp(-b[i]);
    for (int j = 0; j < N; j++)
        for (int i = 0; i < N; i++) mean[j] += a[j * N + i] * exp(-b[i]) / sum;
    for (int i = 0; i < N; i++) /* rows are columns of A, and 0 is the optimum */
        for (int j = 0; j < N; j++) rows[i * N + j] = a[j * N + i] - mean[j];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            for (int k = 0; k < N; k++) metric[i * N + j] += a[i * N + k] * a[j * N + k];
    zero = log(sum);
    slg_tensor ta = slg_tensor_2d(rows, SLG_F64, N, N), tb = slg_tensor_1d(b, SLG_F64, N),
               tm = slg_tensor_2d(metric, SLG_F64, N, N);
    world w = { .r = r,
                .ctx = ctx,
                .x0 = slg_tensor_1d(x, SLG_F64, N),
                .metric = &tm,
                .value = zero + 1e-8 };
    slg_objective_init(&w.o, sizeof w.o);
    must(r, ctx, slg_logsumexp_objective(ctx, &ta, &tb, 1, &w.o));
    const double start = seconds();
    const slg_solver_report exact = newton(&w, SLG_HESSIAN, SLG_FORM_DENSE, 1000);
    const slg_solver_report gauss = newton(&w, SLG_GAUSS_NEWTON, SLG_FORM_DENSE, 1000);
    const double took = seconds() - start;
    const int64_t gradient = descend(&w, 1000, &value);
    claim(r, "log-sum-exp, f - f* <= 1e-8: steps, exact Hessian",
          "NumPy: 18, 28 solves (200 rows)", (double)exact.steps, "", at_most(30));
    claim(r, "  weighted Gauss-Newton", "NumPy: 30, 54 solves", (double)gauss.steps, "",
          at_most(45));
    claim(r, "  gradient method in the same metric", "NumPy: 74", (double)gradient, "",
          at_least(60));
    claim(r, "  Gauss-Newton's steps by the Hessian's", "nearly as fast",
          (double)gauss.steps / (double)exact.steps, "x", at_most(2));
    claim(r, "  gradient method's steps by Gauss-Newton's", "far faster",
          (double)gradient / (double)gauss.steps, "x", at_least(2));
    claim(r, "  time of both Newton runs", "", took, "s", at_most(1));
    w.metric = NULL;
    claim(r, "  Euclidean gradient method: f - f* after 1000 steps", "NumPy: 2.5e-4",
          (descend(&w, 1000, &value), value - zero), "", at_least(1e-8));
    note(r, "log-sum-exp: %lld and %lld solves", (long long)exact.solves,
         (long long)gauss.solves);
    slg_objective_free(&w.o);
}

/* ---- Logistic regression ------------------------------------------------------------- */

typedef struct table {
    int64_t rows, cols;
    double *x;
    int32_t *y;
} table;

static table table_read(run_t *r, const char *name, size_t first_row, bool standard)
{
    csv t = csv_read(r, name, ',');
    table d = { (int64_t)(t.rows - first_row), (int64_t)t.cols - 1, NULL, NULL };
    if (first_row) d.cols = 30; /* the header of breast_cancer.csv is shorter */
    d.x = run_doubles(r, (size_t)(d.rows * d.cols));
    d.y = run_memory(r, (size_t)d.rows * sizeof *d.y);
    for (int64_t i = 0; i < d.rows; i++) {
        for (int64_t j = 0; j < d.cols; j++)
            d.x[i * d.cols + j] = csv_number(&t, first_row + (size_t)i, (size_t)j);
        d.y[i] = (int32_t)csv_number(&t, first_row + (size_t)i, (size_t)d.cols);
    }
    for (int64_t j = 0; j < d.cols && standard; j++) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < d.rows; i++) mean += d.x[i * d.cols + j] / (double)d.rows;
        for (int64_t i = 0; i < d.rows; i++) {
            d.x[i * d.cols + j] -= mean;
            square += d.x[i * d.cols + j] * d.x[i * d.cols + j] / (double)d.rows;
        }
        for (int64_t i = 0; i < d.rows; i++) d.x[i * d.cols + j] /= sqrt(square);
    }
    return d;
}

/* The column of ones under the ridge as well, as in the specification. */
static void logistic_objective(world *w, const table *t, double *ones, int32_t *sign,
                               double ridge)
{
    const int64_t d = t->cols + 1;
    for (int64_t i = 0; i < t->rows; i++) {
        memcpy(ones + i * d, t->x + i * t->cols, (size_t)t->cols * sizeof *ones);
        ones[i * d + t->cols] = 1, sign[i] = 2 * t->y[i] - 1;
    }
    slg_tensor ta = slg_tensor_2d(ones, SLG_F64, t->rows, d),
               ty = slg_tensor_1d(sign, SLG_I32, t->rows);
    slg_logistic_opts opts;
    slg_logistic_opts_init(&opts, sizeof opts);
    opts.ridge = ridge;
    slg_objective_init(&w->o, sizeof w->o);
    must(w->r, w->ctx, slg_logistic_objective(w->ctx, &ta, &ty, &opts, &w->o));
}

static void logistic(run_t *r, slg_ctx *ctx)
{
    const table t = table_read(r, "breast_cancer.csv", 1, true);
    const int64_t d = t.cols + 1;
    double *zero = run_doubles(r, (size_t)d), *ones = run_doubles(r, (size_t)(t.rows * d)), f;
    int32_t *sign = run_memory(r, (size_t)t.rows * sizeof *sign);
    world w = { .r = r,
                .ctx = ctx,
                .x0 = slg_tensor_1d(zero, SLG_F64, d),
                .grad_norm = 1e-5,
                .value = -INFINITY };
    logistic_objective(&w, &t, ones, sign, 1e-3);
    const slg_solver_report exact = newton(&w, SLG_HESSIAN, SLG_FORM_DENSE, 2000),
                            fisher = newton(&w, SLG_FISHER, SLG_FORM_DENSE, 2000),
                            diagonal = newton(&w, SLG_HESSIAN, SLG_FORM_DIAGONAL, 2000),
                            nothing = newton(&w, SLG_HESSIAN, SLG_FORM_ZERO, 2000),
                            product = newton(&w, SLG_HESSIAN, SLG_FORM_PRODUCT, 2000);
    const int64_t gradient = descend(&w, 2000, &f);
    slg_objective_free(&w.o);
    claim(r, "breast_cancer, |g| < 1e-5: steps, exact Hessian", "NumPy: 9, 10 solves",
          (double)exact.steps, "", at_most(15));
    claim(r, "  empirical Fisher", "NumPy: 96, 202 solves", (double)fisher.steps, "",
          at_most(150));
    claim(r, "  descent with a line search, by the Fisher's", "NumPy: 236 / 96",
          (double)gradient / (double)fisher.steps, "x", at_least(1.0001));
    claim(r, "  Hessian's diagonal", "NumPy: 308, 628 solves", (double)diagonal.steps, "",
          no_bar());
    claim(r, "  H = 0", "NumPy: 255, 522 solves", (double)nothing.steps, "", no_bar());
    claim(r, "  products, conjugate gradients", "", (double)product.steps, "", at_most(15));
    note(r,
         "breast_cancer solves: exact %lld, Fisher %lld, diagonal %lld, H = 0 %lld; %lld "
         "products; descent %lld steps",
         (long long)exact.solves, (long long)fisher.solves, (long long)diagonal.solves,
         (long long)nothing.solves, (long long)product.products, (long long)gradient);
    logistic_objective(&w, &t, ones, sign, 0);
    const int64_t most = run_quick(r) ? 200 : 2000;
    const slg_solver_report sharp = newton(&w, SLG_HESSIAN, SLG_FORM_DENSE, 2000),
                            slow = newton(&w, SLG_FISHER, SLG_FORM_DENSE, most);
    slg_objective_free(&w.o);
    claim(r, "  without ridge (f* = 0): steps, exact", "NumPy: 39", (double)sharp.steps, "",
          at_most(60));
    claim(r, run_quick(r) ? "  Fisher after 200 steps: |g|" : "  Fisher after 2000 steps: |g|",
          "NumPy: 2.2e-4 after 2000", slow.grad_norm, "", no_bar());
}

/* ---- L-BFGS and scikit-learn --------------------------------------------------------- */

/* sklearn 1.x LogisticRegression(C=1), Newton solvers, tolerance 1e-12. */
static const double cancer_value = 0.0663601862247381;
static const double cancer[31] = { -0.3630925319, -0.3876754424, -0.3510621187, -0.4356098033,
                                   -0.1618311028, 0.5626540337,  -0.8599171196, -0.9622802235,
                                   0.07620903148, 0.322226237,   -1.29094229,   0.2689219014,
                                   -0.6599745966, -1.012557732,  -0.2772129589, 0.7363240128,
                                   0.1105393208,  -0.3334076189, 0.2957930259,  0.6809196731,
                                   -1.029262262,  -1.314607634,  -0.8233473826, -1.010706832,
                                   -0.6706819628, 0.04456425179, -0.8733339165, -0.9120031219,
                                   -0.8878373243, -0.479818908,  0.2145027174 };
static const double digits_value = 0.199526403858632;
static const double digits[5] = { 0.574368537, 0.8088056849, -1.112973634, -2.506221239e-06,
                                  -0.1337689836 };

static void lbfgs(run_t *r, slg_ctx *ctx, const char *what, const slg_objective *o, int64_t n,
                  const double *at, const int64_t *index, int count, double value)
{
    double *x = run_doubles(r, (size_t)o->dim), worst = 0;
    slg_tensor tx = slg_tensor_1d(x, SLG_F64, o->dim);
    slg_solver *s;
    slg_solver_report report = { .size = sizeof report };
    slg_solver_run_opts run;
    char text[128];
    slg_solver_run_opts_init(&run, sizeof run);
    run.grad_norm = 1e-10, run.steps = 20000;
    must(r, ctx, slg_solver_create(ctx, SLG_LBFGS, o, &tx, NULL, &s));
    const double start = seconds();
    slg_status status = slg_solver_run(s, &run, &report);
    const double took = seconds() - start;
    if (status == SLG_OK) status = slg_solver_get(s, &tx, NULL);
    slg_solver_free(s);
    must(r, ctx, status);
    for (int i = 0; i < count; i++) worst = fmax(worst, fabs(x[index[i]] - at[i]));
    snprintf(text, sizeof text, "L-BFGS, %s: farthest weight from scikit-learn's", what);
    claim(r, text, "", worst, "", at_most(1e-6));
    claim(r, "  value from scikit-learn's", "", fabs(report.value - value), "", at_most(1e-10));
    note(r, "L-BFGS, %s, %lld rows: %lld steps, %lld values, |g| %.1e, %.2f s", what,
         (long long)n, (long long)report.steps, (long long)report.values, report.grad_norm,
         took);
}

static void against_sklearn(run_t *r, slg_ctx *ctx)
{
    table t = table_read(r, "breast_cancer.csv", 1, true);
    slg_objective o;
    slg_logistic_opts opts;
    int64_t index[31];
    slg_objective_init(&o, sizeof o);
    slg_logistic_opts_init(&opts, sizeof opts);
    for (int i = 0; i < 31; i++) index[i] = i;
    for (int64_t i = 0; i < t.rows; i++) t.y[i] = 2 * t.y[i] - 1;
    opts.intercept = 1, opts.ridge = 1 / (double)t.rows;
    slg_tensor ta = slg_tensor_2d(t.x, SLG_F64, t.rows, t.cols),
               ty = slg_tensor_1d(t.y, SLG_I32, t.rows);
    must(r, ctx, slg_logistic_objective(ctx, &ta, &ty, &opts, &o));
    lbfgs(r, ctx, "breast_cancer", &o, t.rows, cancer, index, 31, cancer_value);
    slg_objective_free(&o);

    t = table_read(r, "digits.csv.gz", 0, false);
    for (int64_t i = 0; i < t.rows * t.cols; i++) t.x[i] /= 16;
    opts.ridge = 1 / (double)t.rows;
    slg_tensor tx = slg_tensor_2d(t.x, SLG_F64, t.rows, t.cols),
               tl = slg_tensor_1d(t.y, SLG_I32, t.rows);
    must(r, ctx, slg_multinomial_objective(ctx, &tx, &tl, 10, &opts, &o));
    for (int i = 0; i < 5; i++) index[i] = 3 * 65 + 10 * (i + 1);
    lbfgs(r, ctx, "digits", &o, t.rows, digits, index, 5, digits_value);
    slg_objective_free(&o);
}

static void run(run_t *r)
{
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 0);
    logsumexp(r, ctx);
    logistic(r, ctx);
    against_sklearn(r, ctx);
}

const paper paper_06_gns = { 6, "gns",
                             "Gradient-Normalized Smoothness for Optimization with Approximate "
                             "Hessians",
                             run };
