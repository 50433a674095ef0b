/* Ordinal regression: references, conditions of a minimum, paths, folds, predictions, errors.
   */
#include "solver_test.h"

static double sg(double t) { return t < 0 ? exp(t) / (1 + exp(t)) : 1 / (1 + exp(-t)); }

#define NEAR(got, want, tolerance)                                                             \
    do {                                                                                       \
        const double got_ = (got), want_ = (want);                                             \
        if (!(fabs(got_ - want_) <= (tolerance)))                                              \
            fail_msg("line %d: %.17g, wanted %.17g", __LINE__, got_, want_);                   \
    } while (0)

enum { ROWS = 400, FEATURES = 4, BOUNDS = 4, SIZE = BOUNDS * FEATURES };

typedef struct table {
    int64_t n, p, m;
    double x[ROWS * FEATURES], alpha[BOUNDS], beta[SIZE];
    int32_t y[ROWS];
    slg_tensor tx, ty, ta, tb;
    slg_ordinal_opts opts;
    slg_solver_report report;
} table;

/* The numbers of make_proportional_odds.py. */
static table *table_new(int64_t n, int64_t p, int64_t classes, uint64_t s)
{
    table *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->n = n, t->p = p, t->m = classes - 1;
    for (int64_t i = 0; i < n; i++) {
        double u[FEATURES + 1], at = 0;
        for (int64_t j = 0; j <= p; j++) {
            s = s * 6364136223846793005u + 1442695040888963407u;
            u[j] = (double)(s >> 11) * 0x1p-53;
            if (j == p) break;
            t->x[i * p + j] = 2 * u[j] - 1;
            at += t->x[i * p + j] * 0.8 * (j % 2 ? -1 : 1) / (double)(1 + j);
        }
        for (int64_t l = 0; l < t->m; l++) t->y[i] += u[p] > sg(at + 1.5 * (double)l - 1);
    }
    t->tx = slg_tensor_2d(t->x, SLG_F64, n, p), t->ty = slg_tensor_1d(t->y, SLG_I32, n);
    t->ta = slg_tensor_1d(t->alpha, SLG_F64, t->m);
    t->tb = slg_tensor_2d(t->beta, SLG_F64, t->m, p);
    slg_ordinal_opts_init(&t->opts, sizeof t->opts);
    t->opts.tolerance = 1e-13, t->opts.max_sweeps = 1000;
    t->report.size = sizeof t->report;
    return t;
}

static void fit(slg_ctx *ctx, table *t, double lambda)
{
    OK(ctx, slg_ordinal_fit(ctx, &t->tx, &t->ty, t->m + 1, lambda, &t->opts, &t->ta, &t->tb,
                            &t->report));
}

/* By make_proportional_odds.py, with scipy. */
static const struct {
    int64_t n, p, classes;
    uint64_t seed;
    double value, at[BOUNDS + FEATURES];
} proportional[] = {
    { 200,
      3,
      4,
      1,
      1.3015469594216,
      { -1.14540177384, 0.302845776552, 1.60066168316, 1.01929209409, -0.201037285424,
        0.673485828006 } },
    { 300,
      2,
      3,
      7,
      1.0027546925052,
      { -1.00867261327, 0.714050878995, 1.29406221921, -0.664919111439 } },
    { 150,
      4,
      2,
      3,
      0.57354123541558,
      { -0.874249710456, 0.825319852241, -0.688287787114, 0.498411575824, 0.426988955493 } },
    { 400,
      1,
      5,
      11,
      1.2964923156197,
      { -1.09772909647, 0.681357858377, 2.4014221134, 4.10227255157, 0.705656057188 } },
};

static void test_proportional(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(proportional); i++)
        for (int way = 0; way < 2; way++) { /* by the option, and by an infinite lambda */
            table *t = table_new(proportional[i].n, proportional[i].p, proportional[i].classes,
                                 proportional[i].seed);
            t->opts.proportional = way == 0, t->opts.base_penalty = way == 0;
            fit(ctx, t, way == 0 ? 0 : INFINITY);
            assert_int_equal(t->report.reason, SLG_SOLVER_DECREASE);
            NEAR(t->report.value, proportional[i].value, 1e-11);
            for (int64_t l = 0; l < t->m; l++) {
                NEAR(t->alpha[l], proportional[i].at[l], 1e-5);
                for (int64_t j = 0; j < t->p; j++)
                    NEAR(t->beta[l * t->p + j], proportional[i].at[t->m + j], 1e-5);
            }
            free(t);
        }
    (void)state;
}

/* Gradient in psi of standardised columns, by plain loops. */
static void gradient(const table *t, double *g)
{
    memset(g, 0, SIZE * sizeof *g);
    for (int64_t j = 0; j < t->p; j++) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < t->n; i++) mean += t->x[i * t->p + j] / (double)t->n;
        for (int64_t i = 0; i < t->n; i++)
            square += pow(t->x[i * t->p + j] - mean, 2) / (double)t->n;
        for (int64_t i = 0; i < t->n; i++) {
            double eta[BOUNDS];
            for (int64_t l = 0; l < t->m; l++) {
                eta[l] = t->alpha[l];
                for (int64_t k = 0; k < t->p; k++)
                    eta[l] += t->x[i * t->p + k] * t->beta[l * t->p + k];
            }
            const int y = t->y[i];
            const double z = (t->x[i * t->p + j] - mean) / sqrt(square) / (double)t->n;
            const double r = y > 0 && y < t->m ? 1 / expm1(eta[y] - eta[y - 1]) : 0;
            for (int64_t l = 0; l < t->m; l++) {
                if (y > 0 && l <= y - 1) g[l * t->p + j] += (sg(eta[y - 1]) + r) * z;
                if (y < t->m && l <= y) g[l * t->p + j] -= (sg(-eta[y]) + r) * z;
            }
        }
    }
}

/* |G| <= lambda w where 0, else G = -lambda w sign - ridge. */
static void check_minimum(const table *t, double lambda)
{
    double g[SIZE], most = 0;
    gradient(t, g);
    for (int64_t l = 0; l < t->m; l++)
        for (int64_t j = 0; j < t->p; j++) {
            const double psi = t->beta[l * t->p + j] - (l ? t->beta[(l - 1) * t->p + j] : 0);
            const double w = lambda * t->opts.mix * (l ? 1 : t->opts.base_penalty);
            if (t->opts.mix < 1) continue;
            const double by = fabs(psi) < 1e-13 ? fmax(fabs(g[l * t->p + j]) - w, 0)
                                                : fabs(g[l * t->p + j] + copysign(w, psi));
            most = fmax(most, by);
        }
    NEAR(most, 0, 2e-7);
    assert_true(t->report.grad_norm < 2e-7);
}

static void test_minimum(void **state)
{
    static const double lambdas[] = { 0, 0.002, 0.01, 0.05 };
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(lambdas); i++)
        for (int kind = 0; kind < 4; kind++) {
            table *t = table_new(400, 4, kind == 1 ? 2 : 4, 5);
            if (kind == 2) t->opts.base_penalty = 0;
            if (kind == 3) t->opts.mix = 0.5;
            fit(ctx, t, lambdas[i]);
            assert_int_equal(t->report.reason, SLG_SOLVER_DECREASE);
            check_minimum(t, lambdas[i]);
            free(t);
        }
    (void)state;
}

/* A column scaled and shifted, constant, doubled: the same probabilities. */
static void test_columns(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    table *a = table_new(300, 3, 4, 9), *b = table_new(300, 3, 4, 9);
    double *p = calloc(2 * ROWS * 4, sizeof *p), *q = p + ROWS * 4;
    slg_tensor tp = slg_tensor_2d(p, SLG_F64, 300, 4), tq = slg_tensor_2d(q, SLG_F64, 300, 4);
    for (int i = 0; i < 300; i++) b->x[3 * i] = 40 * b->x[3 * i] - 7;
    fit(ctx, a, 0.004), fit(ctx, b, 0.004);
    OK(ctx, slg_ordinal_predict(ctx, &a->tx, &a->ta, &a->tb, SLG_ORDINAL_SIGNED, &tp));
    OK(ctx, slg_ordinal_predict(ctx, &b->tx, &b->ta, &b->tb, SLG_ORDINAL_SIGNED, &tq));
    for (int i = 0; i < 1200; i++) NEAR(p[i], q[i], 1e-6);
    const double value = a->report.value;
    for (int i = 0; i < 300; i++) b->x[3 * i] = a->x[3 * i + 1]; /* twice */
    fit(ctx, b, 0.004);
    assert_int_equal(b->report.reason, SLG_SOLVER_DECREASE);
    for (int i = 0; i < 300; i++) a->x[3 * i] = 0.1;
    fit(ctx, a, 0.004);
    NEAR(a->report.value, b->report.value, 1e-9);
    assert_true(a->report.value > value);
    for (int l = 0; l < 3; l++) assert_true(a->beta[3 * l] == 0);
    free(a), free(b), free(p), slg_ctx_free(ctx);
    (void)state;
}

static int32_t falls(void *user, const slg_solver_report *r)
{
    double *last = user;
    assert_true(r->value <= last[0] && r->steps == (int64_t)++last[1]);
    last[0] = r->value;
    return last[1] >= last[2];
}

/* lambda_max is where the first enters; F falls; separable data, and a callback, stop it. */
static void test_ends(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    table *t = table_new(300, 3, 4, 2);
    double most, last[3] = { INFINITY, 0, 1e9 };
    OK(ctx, slg_ordinal_lambda_max(ctx, &t->tx, &t->ty, 4, &t->opts, &most));
    t->opts.progress = falls, t->opts.user = last;
    fit(ctx, t, most * 1.0001);
    for (int i = 0; i < 9; i++) assert_true(t->beta[i] == 0);
    int below_y = 0;
    for (int l = 0; l < 3; l++) {
        for (int i = 0; i < 300; i++) below_y += t->y[i] == l;
        NEAR(t->alpha[l], log(below_y / (300.0 - below_y)), 1e-9);
    }
    last[0] = INFINITY, last[1] = 0;
    fit(ctx, t, most * 0.99);
    int nonzero = 0;
    for (int i = 0; i < 9; i++) nonzero += t->beta[i] != 0;
    assert_true(nonzero > 0);
    last[0] = INFINITY, last[1] = 0, last[2] = 2;
    fit(ctx, t, 0);
    assert_true(t->report.reason == SLG_SOLVER_CALLBACK && t->report.steps == 2);
    t->opts.progress = NULL;
    for (int i = 0; i < 300; i++)
        t->y[i] = t->x[3 * i] < -0.5 ? 3 : t->x[3 * i] < 0 ? 2 : t->x[3 * i] < 0.5;
    t->opts.max_steps = 15;
    fit(ctx, t, 0);
    assert_true(t->report.reason == SLG_SOLVER_STEPS && t->report.steps == 15);
    free(t), slg_ctx_free(ctx);
    (void)state;
}

/* A path is its fits; cross-validation is by hand; rng and threads. */
static void test_path(void **state)
{
    enum { L = 6 };
    double lambda[L], alpha[L * 3], beta[L * 9], value[L], score[L], first[L], again[L];
    int32_t nonzero[L], reason[L], fold[300];
    slg_tensor tl = slg_tensor_1d(lambda, SLG_F64, L), ta = slg_tensor_2d(alpha, SLG_F64, L, 3),
               tb = { beta, SLG_F64, 3, { L, 3, 3, 1 }, { 9, 3, 1, 1 } },
               tv = slg_tensor_1d(value, SLG_F64, L), ts = slg_tensor_1d(score, SLG_F64, L),
               tn = slg_tensor_1d(nonzero, SLG_I32, L), tr = slg_tensor_1d(reason, SLG_I32, L),
               tf = slg_tensor_1d(fold, SLG_I32, 300);
    table *t = table_new(300, 3, 4, 4);
    for (int32_t threads = 1; threads <= 8; threads += threads < 3 ? 1 : 5) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
        slg_ordinal_path_out out;
        slg_ordinal_path_out_init(&out, sizeof out);
        out.lambda = &tl, out.alpha = &ta, out.beta = &tb, out.value = &tv;
        out.nonzero = &tn, out.reason = &tr;
        OK(ctx, slg_ordinal_path(ctx, &t->tx, &t->ty, 4, NULL, L, &t->opts, &out));
        NEAR(lambda[0], out.lambda_max, 0);
        NEAR(lambda[L - 1], 0.01 * out.lambda_max, 1e-15);
        for (int i = 0; i < L; i++) {
            fit(ctx, t, lambda[i]);
            NEAR(value[i], t->report.value, 1e-11);
            for (int j = 0; j < 9; j++) NEAR(beta[9 * i + j], t->beta[j], 1e-5);
            assert_true(reason[i] == SLG_SOLVER_DECREASE && nonzero[i] <= 9);
            assert_true(i == 0 ? nonzero[0] == 0 : value[i] <= value[i - 1]);
        }
        slg_rng rng = { 3, 10 };
        out.score = &ts;
        OK(ctx, slg_ordinal_cv(ctx, &t->tx, &t->ty, 4, NULL, L, NULL, &rng, &t->opts, &out));
        assert_true(rng.offset == 310);
        for (int i = 0; i < L; i++) assert_true(score[out.best] <= score[i]);
        if (threads > 1) assert_memory_equal(first, score, sizeof score);
        memcpy(first, score, sizeof score);
        for (int i = 0; i < 300; i++) fold[i] = i % 5;
        OK(ctx, slg_ordinal_cv(ctx, &t->tx, &t->ty, 4, &tl, L, &tf, NULL, &t->opts, &out));
        memcpy(again, score, sizeof score);
        slg_ctx_free(ctx);
    }
    /* By hand: each fold's rows by a fit of the others. */
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double sum = 0, p[ROWS * 4];
    for (int k = 0; k < 5; k++) {
        table *part = table_new(300, 3, 4, 4);
        part->n = 0;
        for (int i = 0; i < 300; i++) {
            if (i % 5 == k) continue;
            memcpy(part->x + 3 * part->n, t->x + 3 * i, 3 * sizeof *t->x);
            part->y[part->n++] = t->y[i];
        }
        part->tx.shape[0] = part->ty.shape[0] = part->n;
        fit(ctx, part, lambda[3]);
        slg_tensor tp = slg_tensor_2d(p, SLG_F64, 300, 4);
        OK(ctx,
           slg_ordinal_predict(ctx, &t->tx, &part->ta, &part->tb, SLG_ORDINAL_SIGNED, &tp));
        for (int i = k; i < 300; i += 5)
            for (int c = 0; c < 4; c++) sum += pow(p[4 * i + c] - (t->y[i] == c), 2) / 300;
        free(part);
    }
    NEAR(again[3], sum, 1e-7);
    slg_ctx_free(ctx), free(t);
    (void)state;
}

static void test_predict(void **state)
{
    static const double alpha[3] = { 1, 0.5, 2 }, zero[3] = { 0 };
    double x[2] = { 0.3, NAN }, p[8];
    slg_tensor tx = slg_tensor_2d(x, SLG_F64, 2, 1), ta = slg_tensor_1d(alpha, SLG_F64, 3),
               tb = slg_tensor_2d(zero, SLG_F64, 3, 1), tp = slg_tensor_2d(p, SLG_F64, 2, 4);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    OK(ctx, slg_ordinal_predict(ctx, &tx, &ta, &tb, SLG_ORDINAL_SIGNED, &tp));
    const double want[4] = { sg(1), sg(0.5) - sg(1), sg(2) - sg(0.5), sg(-2) };
    for (int c = 0; c < 4; c++) NEAR(p[c], want[c], 1e-15);
    for (int c = 4; c < 8; c++) assert_true(isnan(p[c]));
    OK(ctx, slg_ordinal_predict(ctx, &tx, &ta, &tb, SLG_ORDINAL_CLIP, &tp));
    NEAR(p[0] + p[1] + p[2] + p[3], 1, 1e-15);
    NEAR(p[3], want[3], 1e-16);
    assert_true(p[1] == 0);
    NEAR(p[0] / p[2], want[0] / want[2], 1e-14);
    OK(ctx, slg_ordinal_predict(ctx, &tx, &ta, &tb, SLG_ORDINAL_CLIP_ALL, &tp));
    NEAR(p[0] + p[1] + p[2] + p[3], 1, 1e-15);
    NEAR(p[3], want[3] / (want[0] + want[2] + want[3]), 1e-15);
    assert_int_equal(slg_ordinal_predict(ctx, &tx, &ta, &tb, 3, &tp), SLG_ERR_RANGE);
    tp.shape[1] = 3;
    assert_int_equal(slg_ordinal_predict(ctx, &tx, &ta, &tb, 0, &tp), SLG_ERR_SHAPE);
    slg_ctx_free(ctx);
    (void)state;
}

/* The objective's derivatives against differences, and L-BFGS and Newton at the fit's minimum.
   */
static void test_objective(void **state)
{
    enum { DIM = 9 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    table *t = table_new(200, 2, 4, 6);
    slg_objective o;
    slg_objective_init(&o, sizeof o);
    OK(ctx, slg_ordinal_objective(ctx, &t->tx, &t->ty, 4, 0.01, &o));
    assert_int_equal(o.dim, DIM);
    double x[DIM] = { 0.2, -0.1, -1, 0.05, 0.1, 1.2, -0.1, 0.02, 1 }, g[2][DIM], f, at;
    double h[DIM * DIM], hv[DIM], v[DIM], diagonal[DIM], grad[DIM], scale;
    for (int i = 0; i < DIM; i++) v[i] = normal();
    for (int32_t which = SLG_HESSIAN; which <= SLG_FISHER; which++) {
        OK(ctx, o.value(o.user, x, &at, grad));
        OK(ctx, o.curvature(o.user, x, which, SLG_FORM_DENSE, &scale, h));
        OK(ctx, o.curvature(o.user, x, which, SLG_FORM_DIAGONAL, &scale, diagonal));
        OK(ctx, o.curvature(o.user, x, which, SLG_FORM_PRODUCT, &scale, NULL));
        OK(ctx, o.product(o.user, x, which, v, hv));
        for (int i = 0; i < DIM; i++) {
            const double keep = x[i], e = 1e-5;
            double side[2], sum = 0;
            for (int s = 0; s < 2; s++) {
                x[i] = keep + (s ? e : -e);
                OK(ctx, o.value(o.user, x, &side[s], g[s]));
            }
            x[i] = keep;
            NEAR((side[1] - side[0]) / (2 * e), grad[i], 1e-8);
            for (int j = 0; j < DIM; j++) {
                if (which == SLG_HESSIAN)
                    NEAR((g[1][j] - g[0][j]) / (2 * e), h[i * DIM + j], 1e-7);
                sum += h[i * DIM + j] * v[j];
            }
            NEAR(hv[i], sum, 1e-12);
            NEAR(diagonal[i], h[i * (DIM + 1)], 1e-13);
        }
    }
    slg_objective_free(&o);
    OK(ctx, slg_ordinal_objective(ctx, &t->tx, &t->ty, 4, 0, &o));
    fit(ctx, t, 0);
    for (int32_t kind = SLG_NORMALIZED_NEWTON; kind <= SLG_LBFGS; kind++) {
        slg_solver *s;
        slg_solver_report report = { .size = sizeof report };
        slg_solver_run_opts run;
        slg_tensor x0 = slg_tensor_1d(x, SLG_F64, DIM);
        slg_solver_run_opts_init(&run, sizeof run);
        run.grad_norm = 1e-9;
        OK(ctx, slg_solver_create(ctx, kind, &o, &x0, NULL, &s));
        OK(ctx, slg_solver_run(s, &run, &report));
        slg_solver_free(s);
        NEAR(report.value, t->report.value, 1e-11);
    }
    x[5] = -1; /* crosses */
    OK(ctx, o.value(o.user, x, &f, NULL));
    assert_true(f == INFINITY);
    slg_objective_free(&o), free(t), slg_ctx_free(ctx);
    (void)state;
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    table *t = table_new(50, 2, 3, 8);
    slg_rng rng = { 0, 0 };
    slg_ordinal_path_out out;
    slg_ordinal_path_out_init(&out, sizeof out);
    const double old = t->x[3];
    const int32_t kept = t->y[0];
#define REFUSED(text, call)                                                                    \
    do {                                                                                       \
        assert_true((call) < 0);                                                               \
        if (!strstr(slg_ctx_message(ctx), text)) fail_msg("%s", slg_ctx_message(ctx));         \
        assert_true(t->alpha[0] == 0 && t->beta[0] == 0);                                      \
    } while (0)
#define FIT(classes, lambda)                                                                   \
    slg_ordinal_fit(ctx, &t->tx, &t->ty, classes, lambda, &t->opts, &t->ta, &t->tb, &t->report)
    REFUSED("no row of class 3", FIT(4, 0));
    t->ta.shape[0] = t->tb.shape[0] = 1;
    REFUSED("classes is 1", FIT(1, 0));
    t->ta.shape[0] = t->tb.shape[0] = 2;
    REFUSED("lambda is -1", FIT(3, -1));
    REFUSED("lambda is nan", FIT(3, NAN));
    t->x[3] = NAN;
    REFUSED("NaN", FIT(3, 0));
    t->x[3] = old, t->y[0] = 3;
    REFUSED("labels[0] is 3", FIT(3, 0));
    t->y[0] = kept, t->opts.mix = 2;
    REFUSED("opts.mix is 2", FIT(3, 0));
    t->opts.mix = 1, t->opts.max_steps = 0;
    REFUSED("opts.max_steps", FIT(3, 0));
    t->opts.max_steps = 100, t->opts.path_ratio = 1;
    REFUSED("opts.path_ratio", FIT(3, 0));
    t->opts.path_ratio = 0.1;
    t->ta.shape[0] = 1;
    REFUSED("alpha", FIT(3, 0));
    t->ta.shape[0] = 2, t->opts.penalty_factor = &t->tb;
    REFUSED("penalty_factor", FIT(3, 0));
    t->opts.penalty_factor = NULL, t->tx.shape[0] = 0, t->ty.shape[0] = 0;
    REFUSED("x is 0 x 2", FIT(3, 0));
    t->tx.shape[0] = 50, t->ty.shape[0] = 50;
    REFUSED("count is 0", slg_ordinal_path(ctx, &t->tx, &t->ty, 3, NULL, 0, &t->opts, &out));
    REFUSED("fold and rng",
            slg_ordinal_cv(ctx, &t->tx, &t->ty, 3, NULL, 3, NULL, NULL, &t->opts, &out));
    t->opts.folds = 51;
    REFUSED("opts.folds is 51",
            slg_ordinal_cv(ctx, &t->tx, &t->ty, 3, NULL, 3, NULL, &rng, &t->opts, &out));
    t->opts.folds = 2;
    int32_t fold[50];
    slg_tensor tf = slg_tensor_1d(fold, SLG_I32, 50);
    for (int i = 0; i < 50; i++) fold[i] = t->y[i] == 2;
    REFUSED("beside fold 0",
            slg_ordinal_cv(ctx, &t->tx, &t->ty, 3, NULL, 3, &tf, NULL, &t->opts, &out));
    assert_true(rng.offset == 0);
    free(t), slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proportional), cmocka_unit_test(test_minimum),
        cmocka_unit_test(test_columns),      cmocka_unit_test(test_ends),
        cmocka_unit_test(test_path),         cmocka_unit_test(test_predict),
        cmocka_unit_test(test_objective),    cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
