/* The regularised step and the solvers: identities, convergence, state, edges. */
#include <float.h>

#include "solver_test.h"

/* ---- One step --------------------------------------------------------------------------- */

typedef struct one_step {
    double h[D * D], g[D], b[D * D], dx[D];
    slg_tensor th, tg, tb, tdx;
    slg_step_opts opts;
    slg_step_out out;
} one_step;

static void random_spd(double *h, int rank)
{
    for (int i = 0; i < D * D; i++) h[i] = 0;
    for (int r = 0; r < rank; r++) {
        double v[D];
        for (int i = 0; i < D; i++) v[i] = normal();
        for (int i = 0; i < D * D; i++) h[i] += v[i / D] * v[i % D];
    }
}

static one_step step_new(int rank)
{
    one_step s = { .out = { .size = sizeof s.out } };
    random_spd(s.h, rank);
    random_spd(s.b, 3 * D);
    for (int i = 0; i < D; i++) s.g[i] = normal();
    slg_step_opts_init(&s.opts, sizeof s.opts);
    return s;
}

static void take(slg_ctx *ctx, one_step *s, double gamma, int metric_axes)
{
    const bool dense = s->opts.form == SLG_FORM_DENSE;
    s->th = dense ? slg_tensor_2d(s->h, SLG_F64, D, D) : slg_tensor_1d(s->h, SLG_F64, D);
    s->tb =
        metric_axes == 2 ? slg_tensor_2d(s->b, SLG_F64, D, D) : slg_tensor_1d(s->b, SLG_F64, D);
    s->tg = slg_tensor_1d(s->g, SLG_F64, D), s->tdx = slg_tensor_1d(s->dx, SLG_F64, D);
    OK(ctx, slg_regularized_step(ctx, &s->th, &s->tg, gamma, metric_axes ? &s->tb : NULL,
                                 &s->opts, &s->tdx, &s->out));
    assert_int_equal(s->out.solved, 1);
}

/* |(H + lambda B) dx + g|, B by its axes. */
static double residue(const one_step *s, const double *h, double lambda, int axes)
{
    double largest = 0;
    for (int i = 0; i < D; i++) {
        double sum = s->g[i];
        for (int j = 0; j < D; j++) {
            const double b = axes == 2 ? s->b[i * D + j] : i != j ? 0 : axes ? s->b[i] : 1;
            sum += (h[i * D + j] + lambda * b) * s->dx[j];
        }
        largest = fmax(largest, fabs(sum));
    }
    return largest;
}

static slg_status dense_product(void *user, const double *v, double *hv)
{
    const double *h = user;
    for (int i = 0; i < D; i++) {
        hv[i] = 0;
        for (int j = 0; j < D; j++) hv[i] += h[i * D + j] * v[j];
    }
    return SLG_OK;
}

static void test_step_forms(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int axes = 0; axes < 3; axes++)
        for (int trial = 0; trial < 20; trial++)
            for (int32_t form = SLG_FORM_ZERO; form <= SLG_FORM_PRODUCT; form++) {
                one_step s = step_new(trial % 4 ? 2 * D : 2);
                const double gamma = pow(10, trial % 5 - 2);
                double h[D * D] = { 0 };
                if (axes == 1)
                    for (int i = 0; i < D; i++) s.b[i] = 0.5 + uniform();
                s.opts.form = form, s.opts.tolerance = 1e-14, s.opts.scale = 1.5;
                s.opts.product = dense_product, s.opts.user = h;
                if (form == SLG_FORM_RANK_ONE && trial % 2) memcpy(s.h, s.g, sizeof s.g);
                if (form == SLG_FORM_DIAGONAL)
                    for (int i = 0; i < D; i++) s.h[i] = fabs(s.h[i]);
                for (int i = 0; i < D * D; i++) {
                    if (form == SLG_FORM_DENSE || form == SLG_FORM_PRODUCT) h[i] = s.h[i];
                    if (form == SLG_FORM_DIAGONAL && i % (D + 1) == 0) h[i] = s.h[i / D];
                    if (form == SLG_FORM_RANK_ONE) h[i] = 1.5 * s.h[i / D] * s.h[i % D];
                }
                take(ctx, &s, gamma, axes);
                assert_true(residue(&s, h, s.out.lambda, axes) < 1e-9 * (1 + s.out.lambda));
                assert_true(s.out.norm <= gamma * (1 + 1e-12));
                double square = 0;
                for (int i = 0; i < D * D; i++)
                    square += s.dx[i / D] * s.dx[i % D] *
                              (axes == 2          ? s.b[i]
                               : i % (D + 1) != 0 ? 0
                               : axes             ? s.b[i / D]
                                                  : 1);
                assert_true(fabs(sqrt(square) / s.out.norm - 1) < 1e-12);
                if (form == SLG_FORM_ZERO) assert_true(fabs(s.out.norm / gamma - 1) < 1e-12);
            }
    slg_ctx_free(ctx);
    (void)state;
}

/* (H, g) -> (sH, sg): the same dx. x = T z: dx = T dz. gamma -> infinity: Newton's. */
static void test_step_invariance(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int trial = 0; trial < 10; trial++) {
        one_step s = step_new(2 * D), z = s, n = s;
        take(ctx, &s, 0.7, 2);
        for (int i = 0; i < D * D; i++) z.h[i] *= 1e6;
        for (int i = 0; i < D; i++) z.g[i] *= 1e6;
        take(ctx, &z, 0.7, 2);
        for (int i = 0; i < D; i++) assert_true(fabs(z.dx[i] - s.dx[i]) < 1e-12);
        double t[D * D];
        for (int i = 0; i < D * D; i++) t[i] = normal() + 3 * (i % (D + 1) == 0);
        memset(z.h, 0, sizeof z.h), memset(z.b, 0, sizeof z.b), memset(z.g, 0, sizeof z.g);
        for (int i = 0; i < D; i++)
            for (int j = 0; j < D; j++) {
                z.g[i] += t[j * D + i] * s.g[j];
                for (int k = 0; k < D * D; k++) {
                    const double w = t[k / D * D + i] * t[k % D * D + j];
                    z.h[i * D + j] += w * s.h[k], z.b[i * D + j] += w * s.b[k];
                }
            }
        take(ctx, &z, 0.7, 2);
        for (int i = 0; i < D; i++) {
            double sum = 0;
            for (int j = 0; j < D; j++) sum += t[i * D + j] * z.dx[j];
            assert_true(fabs(sum - s.dx[i]) < 1e-9);
        }
        take(ctx, &n, 1e14, 0);
        assert_true(residue(&n, n.h, 0, 0) < 1e-10);
    }
    slg_ctx_free(ctx);
    (void)state;
}

static void test_step_edges(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    one_step s = step_new(2 * D);
    memset(s.g, 0, sizeof s.g), s.h[0] = NAN; /* g = 0: H is not looked at */
    take(ctx, &s, 1, 2);
    assert_true(s.out.lambda == 0 && s.out.norm == 0 && s.dx[0] == 0);
    s = step_new(2 * D), take(ctx, &s, 1, 0);
#define REFUSED(code, gamma, b)                                                                \
    do {                                                                                       \
        s.dx[0] = 7;                                                                           \
        assert_int_equal(                                                                      \
            slg_regularized_step(ctx, &s.th, &s.tg, gamma, b, &s.opts, &s.tdx, NULL), code);   \
        assert_true(s.dx[0] == 7);                                                             \
    } while (0)
    REFUSED(SLG_ERR_RANGE, 0, NULL);
    REFUSED(SLG_ERR_RANGE, NAN, NULL);
    s.b[0] = -1;
    REFUSED(SLG_ERR_RANGE, 1, &s.tb);
    s.tb = slg_tensor_2d(s.b, SLG_F64, D, D);
    REFUSED(SLG_ERR_RANGE, 1, &s.tb);
    s.h[1] = NAN;
    REFUSED(SLG_ERR_RANGE, 1, NULL);
    s.h[1] = 0, s.h[0] = -1e9; /* indefinite: no step, and the report says so */
    REFUSED(SLG_ERR_RANGE, 1, NULL);
    OK(ctx, slg_regularized_step(ctx, &s.th, &s.tg, 1, NULL, &s.opts, &s.tdx, &s.out));
    assert_true(s.out.solved == 0 && s.dx[0] == 7);
    s.opts.tolerance = 1;
    REFUSED(SLG_ERR_RANGE, 1, NULL);
    s.opts.tolerance = 0.5, s.opts.form = SLG_FORM_PRODUCT;
    REFUSED(SLG_ERR_NULL, 1, NULL);
    s.opts.form = SLG_FORM_DIAGONAL;
    REFUSED(SLG_ERR_SHAPE, 1, NULL);
    slg_ctx_free(ctx);
    (void)state;
}

/* ---- Runs ------------------------------------------------------------------------------- */

static slg_solver *solver_of(slg_ctx *ctx, int32_t kind, const slg_objective *o,
                             const double *x, const void *opts)
{
    slg_solver *s;
    slg_tensor t = slg_tensor_1d(x, SLG_F64, o->dim);
    OK(ctx, slg_solver_create(ctx, kind, o, &t, opts, &s));
    return s;
}

static const struct {
    int objective;
    int32_t which, form;
} ways[] = {
    { LSE, SLG_HESSIAN, SLG_FORM_DENSE },
    { LSE, SLG_GAUSS_NEWTON, SLG_FORM_PRODUCT },
    { LOGISTIC, SLG_HESSIAN, SLG_FORM_DENSE },
    { LOGISTIC, SLG_FISHER, SLG_FORM_DENSE },
    { LOGISTIC, SLG_HESSIAN, SLG_FORM_DIAGONAL },
    { LOGISTIC, SLG_HESSIAN, SLG_FORM_ZERO },
    { LOGISTIC, SLG_FISHER, SLG_FORM_PRODUCT },
    { MULTINOMIAL, SLG_HESSIAN, SLG_FORM_DENSE },
    { MULTINOMIAL, SLG_HESSIAN, SLG_FORM_PRODUCT },
    { MULTINOMIAL, SLG_FISHER, SLG_FORM_DENSE },
    { POWER, SLG_GAUSS_NEWTON, SLG_FORM_DENSE },
    { POWER, SLG_FISHER, SLG_FORM_RANK_ONE },
    { BENT, SLG_GAUSS_NEWTON, SLG_FORM_PRODUCT },
    { REGRESSION, SLG_GAUSS_NEWTON, SLG_FORM_DENSE },
    { REGRESSION, SLG_HESSIAN, SLG_FORM_DENSE },
};

/* Accepted steps decrease f by what the paper asks for; the ridge makes optima unique. */
static void test_newton_runs(void **state)
{
    dataset *p = dataset_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int i = 0; i < COUNT(ways); i++) {
        slg_objective o = objective_of(ctx, p, ways[i].objective, 0.05);
        slg_normalized_newton_opts opts;
        slg_normalized_newton_opts_init(&opts, sizeof opts);
        opts.which = ways[i].which, opts.form = ways[i].form;
        slg_solver *s = solver_of(ctx, SLG_NORMALIZED_NEWTON, &o, p->x, &opts);
        slg_solver_report r = { .size = sizeof r };
        double value = INFINITY, first = NAN;
        for (int step = 0; step < 300; step++) {
            OK(ctx, slg_solver_step(s, &r));
            if (r.reason != SLG_SOLVER_STEPPED) break;
            if (isfinite(value)) /* the rounding of the difference apart */
                assert_true(value - r.value >=
                            r.grad_norm * r.grad_norm / (8 * r.lambda) - 1e-15 * fabs(value));
            if (step == 0) first = r.grad_norm;
            assert_true(r.value <= value);
            value = r.value;
        }
        assert_true(r.steps > 0 && r.solves >= r.steps && r.values <= r.solves + 1);
        assert_true(r.values == r.gradients);
        assert_true(ways[i].form == SLG_FORM_ZERO || r.curvatures >= r.steps);
        assert_true((r.products > 0) == (ways[i].form == SLG_FORM_PRODUCT));
        if (ways[i].objective == LOGISTIC || ways[i].objective == MULTINOMIAL)
            assert_true(r.grad_norm < 1e-6);
        assert_true(r.grad_norm <= first);
        slg_solver_free(s), slg_objective_free(&o);
    }
    slg_ctx_free(ctx), free(p);
    (void)state;
}

/* Both solvers, and any metric, find the one optimum: |x - x*| <= |g| / ridge. */
static void test_same_optimum(void **state)
{
    dataset *p = dataset_new();
    for (int kind = LOGISTIC; kind <= MULTINOMIAL; kind++) {
        double first[MOST] = { 0 };
        FOR_EACH_ISA(ctx, 2)
        {
            for (int way = 0; way < 4; way++) {
                slg_objective o = objective_of(ctx, p, kind, 0.05);
                slg_normalized_newton_opts opts;
                slg_solver_run_opts run;
                slg_normalized_newton_opts_init(&opts, sizeof opts);
                slg_solver_run_opts_init(&run, sizeof run);
                run.grad_norm = 1e-10;
                double b[MOST], x[MOST];
                slg_tensor tb = slg_tensor_1d(b, SLG_F64, o.dim),
                           tx = slg_tensor_1d(x, SLG_F64, o.dim);
                for (int i = 0; i < MOST; i++) b[i] = 0.5 + uniform();
                if (way == 1) opts.metric = &tb;
                if (way == 2) opts.form = SLG_FORM_PRODUCT, opts.tolerance = 1e-10;
                slg_solver *s = way < 3 ? solver_of(ctx, SLG_NORMALIZED_NEWTON, &o, p->x, &opts)
                                        : solver_of(ctx, SLG_LBFGS, &o, p->x, NULL);
                slg_solver_report r = { .size = sizeof r };
                OK(ctx, slg_solver_run(s, &run, &r));
                assert_true(r.grad_norm < 1e-9);
                OK(ctx, slg_solver_get(s, &tx, NULL));
                /* A shift of all intercepts changes nothing: compared without it. */
                for (int c = 0; c < CLASSES && kind == MULTINOMIAL; c++)
                    x[c * (D + 1) + D] -= c ? x[D] : 0;
                if (kind == MULTINOMIAL) x[D] = 0;
                for (int64_t i = 0; i < o.dim; i++) {
                    if (isa_ == SLG_ISA_PORTABLE && way == 0) first[i] = x[i];
                    assert_true(fabs(x[i] - first[i]) < 1e-6);
                }
                slg_solver_free(s), slg_objective_free(&o);
            }
        }
    }
    free(p);
    (void)state;
}

/* ---- A caller's own objective ----------------------------------------------------------- */

typedef struct own {
    slg_ctx *ctx;
    int64_t calls, fail_at;
    double bad; /* curvature */
    bool wall;  /* f is not finite far from 0 */
} own;

/* Rosenbrock's valley; uses the solver's own context. */
static slg_status valley(void *user, const double *x, double *f, double *g)
{
    own *o = user;
    float row[4] = { 1, 2, 3, 4 };
    slg_tensor t = slg_tensor_1d(row, SLG_F32, 4);
    OK(o->ctx, slg_softmax(o->ctx, &t, NULL, &t, NULL));
    if (++o->calls == o->fail_at) return SLG_ERR_STOPPED;
    const double u = 1 - x[0], v = x[1] - x[0] * x[0];
    *f = o->wall && fabs(x[0]) + fabs(x[1]) > 3 ? NAN : u * u + 100 * v * v;
    g[0] = -2 * u - 400 * x[0] * v, g[1] = 200 * v;
    return SLG_OK;
}

static slg_status valley_curvature(void *user, const double *x, int32_t which, int32_t form,
                                   double *scale, double *h)
{
    const own *o = user;
    (void)which, (void)form, (void)scale;
    h[0] = 2 - 400 * (x[1] - 3 * x[0] * x[0]) + o->bad, h[1] = h[2] = -400 * x[0], h[3] = 200;
    return SLG_OK;
}

static slg_objective valley_objective(own *o)
{
    slg_objective f = {
        .size = sizeof f, .dim = 2, .user = o, .value = valley, .curvature = valley_curvature
    };
    return f;
}

static int32_t stop_at_three(void *user, const slg_solver_report *r)
{
    (void)user;
    return r->steps == 3;
}

static void test_own_objective(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const double start[2] = { -1.2, 1 };
    for (int32_t kind = SLG_NORMALIZED_NEWTON; kind <= SLG_LBFGS; kind++)
        for (int wall = 0; wall < 2; wall++) {
            own o = { .ctx = ctx, .wall = wall != 0 };
            slg_objective f = valley_objective(&o);
            slg_solver *s = solver_of(ctx, kind, &f, start, NULL);
            slg_solver_report r = { .size = sizeof r };
            slg_solver_run_opts run;
            double x[2];
            slg_tensor tx = slg_tensor_1d(x, SLG_F64, 2);
            slg_solver_run_opts_init(&run, sizeof run);
            run.progress = stop_at_three;
            OK(ctx, slg_solver_run(s, &run, &r));
            assert_true(r.reason == SLG_SOLVER_CALLBACK && r.steps == 3);
            run.progress = NULL, run.steps = 2;
            OK(ctx, slg_solver_run(s, &run, &r));
            assert_true(r.reason == SLG_SOLVER_STEPS && r.steps == 5);
            run.steps = 1000, run.value = 1e-2;
            OK(ctx, slg_solver_run(s, &run, &r));
            assert_true(r.reason == SLG_SOLVER_VALUE && r.value <= 1e-2);
            run.value = -INFINITY, run.grad_norm = 1e-8;
            OK(ctx, slg_solver_run(s, &run, &r));
            assert_true(r.reason == SLG_SOLVER_GRADIENT && r.grad_norm <= 1e-8);
            OK(ctx, slg_solver_get(s, &tx, NULL));
            assert_true(fabs(x[0] - 1) < 1e-6 && fabs(x[1] - 1) < 1e-6);
            assert_true(r.values == o.calls && r.steps < 200);
            slg_solver_free(s);
        }
    slg_ctx_free(ctx);
    (void)state;
}

/* The strong Wolfe conditions hold at each accepted step of L-BFGS. */
static void test_wolfe(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    own o = { .ctx = ctx };
    slg_objective f = valley_objective(&o);
    const double start[2] = { -1.2, 1 };
    slg_solver *s = solver_of(ctx, SLG_LBFGS, &f, start, NULL);
    slg_solver_report r = { .size = sizeof r };
    double x[2], g[2], x1[2], g1[2], value = 24.2;
    slg_tensor tx = slg_tensor_1d(x, SLG_F64, 2), tg = slg_tensor_1d(g, SLG_F64, 2),
               tx1 = slg_tensor_1d(x1, SLG_F64, 2), tg1 = slg_tensor_1d(g1, SLG_F64, 2);
    for (int step = 0; step < 25; step++) {
        OK(ctx, slg_solver_get(s, &tx, &tg));
        OK(ctx, slg_solver_step(s, &r));
        OK(ctx, slg_solver_get(s, &tx1, &tg1));
        const double dx[2] = { x1[0] - x[0], x1[1] - x[1] };
        const double before = dx[0] * g[0] + dx[1] * g[1],
                     after = dx[0] * g1[0] + dx[1] * g1[1];
        assert_true(before < 0 && r.value <= value + 1e-4 * before + 1e-13);
        assert_true(fabs(after) <= -0.9 * before * (1 + 1e-9));
        value = r.value;
    }
    slg_solver_free(s), slg_ctx_free(ctx);
    (void)state;
}

/* ---- State, edges ----------------------------------------------------------------------- */

static void test_state(void **state)
{
    dataset *p = dataset_new();
    for (int32_t kind = SLG_NORMALIZED_NEWTON; kind <= SLG_LBFGS; kind++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, 1), *other = context(SLG_ISA_AUTO, 8);
        slg_objective o = objective_of(ctx, p, MULTINOMIAL, 0.01),
                      q = objective_of(other, p, MULTINOMIAL, 0.01);
        double zero[MOST] = { 0 }, x[2][MOST];
        slg_solver *s = solver_of(ctx, kind, &o, p->x, NULL),
                   *t = solver_of(other, kind, &q, zero, NULL);
        slg_solver_report r = { .size = sizeof r }, u = { .size = sizeof u };
        int64_t bytes, wrote;
        for (int i = 0; i < 3; i++) OK(ctx, slg_solver_step(s, &r));
        OK(ctx, slg_solver_export(s, NULL, 0, &bytes));
        char *memory = malloc((size_t)bytes);
        assert_int_equal(slg_solver_export(s, memory, bytes - 1, &wrote), SLG_ERR_RANGE);
        OK(ctx, slg_solver_export(s, memory, bytes, &wrote));
        assert_true(wrote == bytes);
        memory[bytes - 3] ^= 4;
        assert_int_equal(slg_solver_import(t, memory, bytes), SLG_ERR_STATE);
        memory[bytes - 3] ^= 4;
        assert_int_equal(slg_solver_import(t, memory, bytes - 8), SLG_ERR_STATE);
        assert_int_equal(slg_solver_import(t, memory, 8), SLG_ERR_STATE);
        assert_int_equal(slg_solver_import(t, NULL, bytes), SLG_ERR_NULL);
        OK(other, slg_solver_import(t, memory, bytes));
        for (int i = 0; i < 3; i++) {
            OK(ctx, slg_solver_step(s, &r));
            OK(other, slg_solver_step(t, &u));
        }
        assert_memory_equal(&r, &u, sizeof r);
        slg_tensor a = slg_tensor_1d(x[0], SLG_F64, o.dim),
                   b = slg_tensor_1d(x[1], SLG_F64, o.dim);
        OK(ctx, slg_solver_get(s, &a, NULL));
        OK(other, slg_solver_get(t, &b, NULL));
        assert_memory_equal(x[0], x[1], (size_t)o.dim * sizeof(double));
        assert_int_equal(slg_solver_get(s, &a, &a), SLG_ERR_STRIDE);
        slg_solver_free(s), slg_solver_free(t), slg_objective_free(&o), slg_objective_free(&q);
        slg_ctx_free(ctx), slg_ctx_free(other), free(memory);
    }
    free(p);
    (void)state;
}

/* No way down: x and the state stay, and that is said. */
static void test_exhausted(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const double start[2] = { -1.2, 1 };
    own o = { .ctx = ctx, .bad = -1e300 }; /* indefinite, whatever lambda */
    slg_objective f = valley_objective(&o);
    slg_solver *s = solver_of(ctx, SLG_NORMALIZED_NEWTON, &f, start, NULL);
    slg_solver_report r = { .size = sizeof r };
    double x[2];
    slg_tensor tx = slg_tensor_1d(x, SLG_F64, 2);
    OK(ctx, slg_solver_run(s, NULL, &r));
    assert_true(r.reason == SLG_SOLVER_EXHAUSTED && r.steps == 0 && r.solves == 40);
    assert_true(r.radius == 1);
    OK(ctx, slg_solver_get(s, &tx, NULL));
    assert_memory_equal(x, start, sizeof x);
    o.bad = -5000; /* indefinite until lambda is large enough: failed trials, then a step */
    const int64_t calls = o.calls;
    OK(ctx, slg_solver_step(s, &r));
    assert_true(r.reason == SLG_SOLVER_STEPPED && r.solves - 40 > o.calls - calls);
    o.bad = NAN;
    assert_int_equal(slg_solver_step(s, &r), SLG_ERR_RANGE);
    o.bad = 0; /* the solver goes on */
    OK(ctx, slg_solver_step(s, &r));
    assert_true(r.reason == SLG_SOLVER_STEPPED && r.steps == 2);
    o.fail_at = o.calls + 1;
    assert_int_equal(slg_solver_step(s, &r), SLG_ERR_STOPPED);
    assert_true(strstr(slg_ctx_message(ctx), "slg_solver_step: objective.value") != NULL);
    slg_solver_free(s), slg_ctx_free(ctx);
    (void)state;
}

static void test_edges(void **state)
{
    dataset *p = dataset_new();
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_objective one;
    slg_solver_report r = { .size = sizeof r };
    slg_objective_init(&one, sizeof one);
    memset(p->label, 0, sizeof p->label);
    OK(ctx, slg_multinomial_objective(ctx, &p->ta, &p->tlabel, 1, NULL, &one));
    for (int32_t kind = SLG_NORMALIZED_NEWTON; kind <= SLG_LBFGS; kind++) { /* g = 0 */
        slg_solver *s = solver_of(ctx, kind, &one, p->x, NULL);
        OK(ctx, slg_solver_step(s, &r));
        assert_true(r.reason == SLG_SOLVER_GRADIENT && r.steps == 0 && r.curvatures == 0);
        assert_true(r.grad_norm == 0);
        slg_solver_free(s);
    }
    slg_solver *s = (slg_solver *)(void *)p;
    slg_tensor tx = slg_tensor_1d(p->x, SLG_F64, one.dim);
    slg_normalized_newton_opts o;
    slg_lbfgs_opts l;
#define BAD(kind, field, number, code)                                                         \
    do {                                                                                       \
        slg_normalized_newton_opts_init(&o, sizeof o), slg_lbfgs_opts_init(&l, sizeof l);      \
        field = number;                                                                        \
        assert_int_equal(                                                                      \
            slg_solver_create(ctx, kind, &one, &tx, kind == 1 ? (void *)&o : (void *)&l, &s),  \
            code);                                                                             \
        assert_null(s);                                                                        \
    } while (0)
    BAD(1, o.gamma0, 0, SLG_ERR_RANGE);
    BAD(1, o.gamma_min, -1, SLG_ERR_RANGE);
    BAD(1, o.growth, 0.5, SLG_ERR_RANGE);
    BAD(1, o.shrink, 1, SLG_ERR_RANGE);
    BAD(1, o.decrease, 0, SLG_ERR_RANGE);
    BAD(1, o.max_trials, 0, SLG_ERR_RANGE);
    BAD(1, o.form, 5, SLG_ERR_RANGE);
    BAD(1, o.which, -1, SLG_ERR_RANGE);
    BAD(1, o.reserved, 1, SLG_ERR_OPTIONS);
    BAD(2, l.memory, 0, SLG_ERR_RANGE);
    BAD(2, l.c1, 0.95, SLG_ERR_RANGE);
    BAD(2, l.c2, 1, SLG_ERR_RANGE);
    BAD(3, l.memory, 1, SLG_ERR_RANGE);
    p->x[0] = NAN; /* f at the start is not finite */
    BAD(2, l.memory, 3, SLG_ERR_RANGE);
    p->x[0] = 0, tx.shape[0] = 1;
    BAD(2, l.memory, 3, SLG_ERR_SHAPE);
    assert_int_equal(slg_solver_create(ctx, 1, NULL, &tx, NULL, &s), SLG_ERR_NULL);
    assert_int_equal(slg_solver_step(NULL, &r), SLG_ERR_NULL);
    slg_solver_free(NULL), slg_objective_free(&one), slg_ctx_free(ctx), free(p);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_forms),   cmocka_unit_test(test_step_invariance),
        cmocka_unit_test(test_step_edges),   cmocka_unit_test(test_newton_runs),
        cmocka_unit_test(test_same_optimum), cmocka_unit_test(test_own_objective),
        cmocka_unit_test(test_wolfe),        cmocka_unit_test(test_state),
        cmocka_unit_test(test_exhausted),    cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
