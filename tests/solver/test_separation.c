/*
 * The parts of the logistic loss by margins, and the weights alone: against long double, far
 * out, the paper's identities, edge cases, errors.
 */
#include "solver_test.h"

/* ---- The reference ----------------------------------------------------------------------- */

typedef struct parts_ref {
    double margins[N], weights[N], gradient[D], direction[D], loss, log_beta, least;
    int64_t wrong;
} parts_ref;

static long double softplus(long double t) { return fmaxl(t, 0) + log1pl(expl(-fabsl(t))); }

static void reference(const dataset *p, const double *theta, parts_ref *r)
{
    long double s[N], top = -INFINITY, sum = 0, loss = 0, grad[D] = { 0 }, dir[D] = { 0 };
    r->wrong = 0, r->least = INFINITY;
    for (int i = 0; i < N; i++) {
        long double z = 0;
        for (int k = 0; k < D; k++) z += (long double)p->a[i * D + k] * theta[k];
        const long double m = p->y[i] * z;
        r->margins[i] = (double)m;
        loss += softplus(-m), s[i] = -softplus(m), top = fmaxl(top, s[i]);
        r->wrong += !(m > 0), r->least = fmin(r->least, (double)m);
    }
    for (int i = 0; i < N; i++) sum += expl(s[i] - top);
    for (int i = 0; i < N; i++) {
        const long double w = expl(s[i] - top) / sum;
        r->weights[i] = (double)w;
        for (int k = 0; k < D; k++) {
            const long double a = p->y[i] * (long double)p->a[i * D + k];
            dir[k] += w * a, grad[k] -= expl(s[i]) * a / N;
        }
    }
    for (int k = 0; k < D; k++)
        r->direction[k] = (double)dir[k], r->gradient[k] = (double)grad[k];
    r->loss = (double)(loss / N), r->log_beta = (double)(logl(N) - top - logl(sum));
}

typedef struct parts_got {
    double margins[N], weights[N], gradient[D], direction[D];
    slg_tensor t[4];
    slg_separation_out out;
} parts_got;

static void prepare(parts_got *g)
{
    memset(g, 0x7E, sizeof *g);
    slg_separation_out_init(&g->out, sizeof g->out);
    g->t[0] = slg_tensor_1d(g->margins, SLG_F64, N);
    g->t[1] = slg_tensor_1d(g->weights, SLG_F64, N);
    g->t[2] = slg_tensor_1d(g->gradient, SLG_F64, D);
    g->t[3] = slg_tensor_1d(g->direction, SLG_F64, D);
    g->out.margins = &g->t[0], g->out.weights = &g->t[1];
    g->out.gradient = &g->t[2], g->out.direction = &g->t[3];
}

static void near(const double *got, const double *want, int n, double error, const char *what)
{
    for (int i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= error * (1 + fabs(want[i]))))
            fail_msg("%s[%d] is %.17g, should be %.17g", what, i, got[i], want[i]);
}

/* From theta = 0 to where every q underflows even in double. */
static void test_parts(void **state)
{
    (void)state;
    const double scales[] = { 0, 1e-3, 1, 30, 1e4, -1e4 };
    FOR_EACH_ISA(ctx, 2)
    {
        dataset *p = dataset_new();
        for (int64_t s = 0; s < COUNT(scales); s++) {
            double theta[D];
            parts_ref want;
            parts_got got;
            prepare(&got);
            for (int k = 0; k < D; k++) theta[k] = scales[s] * p->x[k];
            const slg_tensor t = slg_tensor_1d(theta, SLG_F64, D);
            OK(ctx, slg_separation_parts(ctx, &p->ta, &p->ty, &t, &got.out));
            reference(p, theta, &want);
            /* A margin's error is of the products that it adds up, and so is a weight's. */
            const double size = 1e-14 * fmax(1, fabs(scales[s]));
            near(got.margins, want.margins, N, size, "margins");
            near(got.weights, want.weights, N, 1e-12 + size, "weights");
            near(got.gradient, want.gradient, D, size, "gradient");
            near(got.direction, want.direction, D, 1e-12 + size, "direction");
            near(&got.out.loss, &want.loss, 1, size, "loss");
            near(&got.out.log_beta, &want.log_beta, 1, 1e-13 + size, "log_beta");
            near(&got.out.min_margin, &want.least, 1, size, "min_margin");
            assert_int_equal(got.out.wrong, want.wrong);
            double sum = 0;
            for (int i = 0; i < N; i++) sum += got.weights[i];
            assert_true(fabs(sum - 1) < 1e-14 && got.out.log_beta >= 0);
            for (int k = 0; k < D; k++)
                if (got.out.log_beta < 500)
                    assert_true(fabs(got.direction[k] +
                                     exp(got.out.log_beta) * got.gradient[k]) <= 1e-12);
            if (scales[s] == 0) assert_true(fabs(got.out.log_beta - log(2)) < 1e-15);
        }
        free(p);
    }
}

/* The gradient is that of the loss; far out in the separated region the direction still is the
   mean over the smallest margins, ties sharing. */
static void test_identities(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    dataset *p = dataset_new();
    parts_got got;
    slg_separation_out value;
    slg_separation_out_init(&value, sizeof value);
    const slg_tensor t = slg_tensor_1d(p->x, SLG_F64, D);
    prepare(&got);
    OK(ctx, slg_separation_parts(ctx, &p->ta, &p->ty, &t, &got.out));
    for (int k = 0; k < D; k++) {
        const double x = p->x[k], h = 1e-6;
        double f[2];
        for (int s = 0; s < 2; s++) {
            p->x[k] = x + (s ? h : -h);
            OK(ctx, slg_separation_parts(ctx, &p->ta, &p->ty, &t, &value));
            f[s] = value.loss;
        }
        p->x[k] = x;
        assert_true(fabs((f[1] - f[0]) / (2 * h) - got.gradient[k]) < 1e-8);
    }
    double a[] = { 1, 2, 2, 1, -1, -2 }, theta[] = { 1e6, 1e6 }, w[3], dir[2];
    int32_t y[] = { 1, 1, -1 };
    const slg_tensor ta = slg_tensor_2d(a, SLG_F64, 3, 2), ty = slg_tensor_1d(y, SLG_I32, 3);
    const slg_tensor tt = slg_tensor_1d(theta, SLG_F64, 2);
    slg_tensor tw = slg_tensor_1d(w, SLG_F64, 3), td = slg_tensor_1d(dir, SLG_F64, 2);
    value.weights = &tw, value.direction = &td;
    OK(ctx, slg_separation_parts(ctx, &ta, &ty, &tt, &value));
    assert_true(value.loss == 0 && value.wrong == 0 && value.min_margin == 3e6);
    assert_true(fabs(value.log_beta - 3e6) < 1e-6);
    for (int i = 0; i < 3; i++) assert_true(fabs(w[i] - 1.0 / 3) < 1e-15);
    assert_true(fabs(dir[0] - 4.0 / 3) < 1e-14 && fabs(dir[1] - 5.0 / 3) < 1e-14);
    theta[0] = theta[1] = -1e6; /* all wrong: q = 1 */
    OK(ctx, slg_separation_parts(ctx, &ta, &ty, &tt, &value));
    assert_true(fabs(value.loss - 3e6) < 1e-6 && value.log_beta == 0 && value.wrong == 3);
    theta[0] = 1e6, theta[1] = -0.5e6; /* ties and zeros: margins 0, 1.5e6, 0 */
    OK(ctx, slg_separation_parts(ctx, &ta, &ty, &tt, &value));
    assert_true(value.wrong == 2 && w[1] == 0 && w[0] == 0.5 && value.min_margin == 0);
    free(p);
    slg_ctx_free(ctx);
}

/* Blocks and ranges; any number of threads, the same bits. */
static void test_sizes(void **state)
{
    (void)state;
    const int64_t rows[] = { 1, 7, 600, 5000 }, cols[] = { 1, 3, 100, 700 };
    for (int64_t r = 0; r < COUNT(rows); r++)
        for (int64_t c = 0; c < COUNT(cols); c++) {
            const int64_t n = rows[r], d = cols[c];
            float *a = malloc((size_t)(n * d) * 4);
            double *theta = malloc((size_t)d * 8), *dir[4], *sum = calloc((size_t)d, 8);
            float *y = malloc((size_t)n * 4);
            for (int64_t i = 0; i < n * d; i++) a[i] = (float)normal();
            for (int64_t i = 0; i < n; i++) y[i] = uniform() < 0.5 ? -1 : 1;
            for (int64_t k = 0; k < d; k++) theta[k] = normal();
            const slg_tensor ta = slg_tensor_2d(a, SLG_F32, n, d),
                             ty = slg_tensor_1d(y, SLG_F32, n),
                             tt = slg_tensor_1d(theta, SLG_F64, d);
            const int32_t threads[] = { 1, 2, 3, 8 };
            double loss[4];
            for (int j = 0; j < 4; j++) {
                slg_ctx *ctx = context(SLG_ISA_AUTO, threads[j]);
                slg_separation_out out;
                slg_separation_out_init(&out, sizeof out);
                dir[j] = malloc((size_t)d * 8);
                slg_tensor td = slg_tensor_1d(dir[j], SLG_F64, d);
                out.direction = &td;
                OK(ctx, slg_separation_parts(ctx, &ta, &ty, &tt, &out));
                loss[j] = out.loss;
                slg_ctx_free(ctx);
                assert_true(loss[j] == loss[0]);
                assert_memory_equal(dir[j], dir[0], (size_t)d * 8);
            }
            /* Plainly. */
            double top = -INFINITY, total = 0, *s = malloc((size_t)n * 8);
            for (int64_t i = 0; i < n; i++) {
                double z = 0;
                for (int64_t k = 0; k < d; k++) z += (double)a[i * d + k] * theta[k];
                s[i] = -(double)softplus((long double)((double)y[i] * z));
                top = fmax(top, s[i]);
            }
            for (int64_t i = 0; i < n; i++) total += exp(s[i] - top);
            for (int64_t i = 0; i < n; i++)
                for (int64_t k = 0; k < d; k++)
                    sum[k] += exp(s[i] - top) / total * (double)(y[i] * a[i * d + k]);
            for (int64_t k = 0; k < d; k++) assert_true(fabs(sum[k] - dir[0][k]) <= 1e-11);
            for (int j = 0; j < 4; j++) free(dir[j]);
            free(a), free(theta), free(sum), free(y), free(s);
        }
}

/* Data of any type and layout give the bits of the same numbers as contiguous doubles; outputs
   are written where they are and nowhere else. */
static void test_types(void **state)
{
    static const int32_t types[] = { SLG_F32, SLG_F64, SLG_BF16, SLG_F16 },
                         signs[] = { SLG_I32, SLG_I64, SLG_F32, SLG_F64 };
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int type = 0; type < COUNT(types); type++)
        for (int at = CONTIGUOUS; at <= UPSIDE_DOWN; at++) {
            const enum layout layout = (enum layout)at;
            dataset *p = dataset_new();
            parts_got got;
            prepare(&got);
            tensor a = matrix(types[type], N, D, layout), y = vector(signs[type], N, layout),
                   theta = vector(type % 2 ? SLG_F64 : SLG_F32, D, layout),
                   w = vector(SLG_F32, N, layout), dir = vector(SLG_F32, D, layout);
            for (int i = 0; i < N * D; i++) {
                p->a[i] = as_dtype(types[type], p->a[i]);
                put(&a, i / D, i % D, p->a[i]);
            }
            for (int i = 0; i < N; i++) put(&y, 0, i, p->y[i]);
            for (int k = 0; k < D; k++) put(&theta, 0, k, p->x[k] = as_dtype(SLG_F32, p->x[k]));
            const slg_tensor t = slg_tensor_1d(p->x, SLG_F64, D);
            OK(ctx, slg_separation_parts(ctx, &p->ta, &p->ty, &t, &got.out));
            slg_separation_out o;
            slg_separation_out_init(&o, sizeof o);
            o.weights = &w.t, o.direction = &dir.t;
            OK(ctx, slg_separation_parts(ctx, &a.t, &y.t, &theta.t, &o));
            assert_true(o.loss == got.out.loss && o.log_beta == got.out.log_beta);
            for (int i = 0; i < N; i++) assert_true(get(&w, 0, i) == single(got.weights[i]));
            for (int k = 0; k < D; k++)
                assert_true(get(&dir, 0, k) == single(got.direction[k]));
            assert_gaps_intact(&w), assert_gaps_intact(&dir);
            release(&a), release(&y), release(&theta), release(&w), release(&dir);
            free(p);
        }
}

/* Duplicated samples: weights halve, the direction stays. (A, theta) by (c, 1 / c): the
   same. */
static void test_invariances(void **state)
{
    (void)state;
    enum { M = 9 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double a[2 * M * 2], theta[2] = { 0.7, -1.3 }, w[2 * M], v[M], dir[2], again[2];
    int32_t y[2 * M];
    for (int i = 0; i < M; i++) {
        a[2 * i] = a[2 * (M + i)] = normal(), a[2 * i + 1] = a[2 * (M + i) + 1] = normal();
        y[i] = y[M + i] = i % 2 ? 1 : -1;
    }
    slg_separation_out o;
    slg_separation_out_init(&o, sizeof o);
    const slg_tensor tt = slg_tensor_1d(theta, SLG_F64, 2);
    slg_tensor ta = slg_tensor_2d(a, SLG_F64, M, 2), ty = slg_tensor_1d(y, SLG_I32, M);
    slg_tensor tv = slg_tensor_1d(v, SLG_F64, M), td = slg_tensor_1d(dir, SLG_F64, 2);
    o.weights = &tv, o.direction = &td;
    OK(ctx, slg_separation_parts(ctx, &ta, &ty, &tt, &o));
    slg_tensor tw = slg_tensor_1d(w, SLG_F64, 2 * M), te = slg_tensor_1d(again, SLG_F64, 2);
    ta.shape[0] = ty.shape[0] = 2 * M;
    o.weights = &tw, o.direction = &te;
    OK(ctx, slg_separation_parts(ctx, &ta, &ty, &tt, &o));
    for (int i = 0; i < M; i++) assert_true(fabs(w[i] - v[i] / 2) < 1e-15);
    near(again, dir, 2, 1e-14, "direction");
    for (int i = 0; i < 4 * M; i++) a[i] *= 8;
    theta[0] /= 8, theta[1] /= 8;
    OK(ctx, slg_separation_parts(ctx, &ta, &ty, &tt, &o));
    for (int i = 0; i < M; i++) assert_true(fabs(w[i] - v[i] / 2) < 1e-15);
    slg_ctx_free(ctx);
}

/* ---- Edges ------------------------------------------------------------------------------- */

static void test_edges(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double m[4] = { 2, INFINITY, -1, 0 }, w[4], ds[4];
    int32_t y[4] = { 1, -1, 1, -1 };
    slg_tensor tm = slg_tensor_1d(m, SLG_F64, 4), tw = slg_tensor_1d(w, SLG_F64, 4),
               td = slg_tensor_1d(ds, SLG_F64, 4);
    const slg_tensor ty = slg_tensor_1d(y, SLG_I32, 4);
    slg_separation_out o;
    slg_separation_out_init(&o, sizeof o);
    o.weights = &tw, o.dscores = &td;
    OK(ctx, slg_separation_weights(ctx, &tm, &ty, 3, &o));
    const double q[4] = { 1 / (1 + exp(2)), 0, 1 / (1 + exp(-1)), 0.5 };
    const double sum = q[0] + q[2] + q[3];
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(w[i] - q[i] / sum) < 1e-15);
        assert_true(fabs(ds[i] + 3 * w[i] * y[i]) < 1e-15);
    }
    assert_true(o.wrong == 2 && o.min_margin == -1 && fabs(o.log_beta + log(sum / 4)) < 1e-15);
    for (int i = 0; i < 4; i++) m[i] = INFINITY; /* none weighs */
    OK(ctx, slg_separation_weights(ctx, &tm, NULL, 1, &o));
    for (int i = 0; i < 4; i++) assert_true(w[i] == 0.25 && ds[i] == -0.25);
    assert_true(o.loss == 0 && isinf(o.log_beta) && o.wrong == 0);
    m[2] = -INFINITY;
    OK(ctx, slg_separation_weights(ctx, &tm, NULL, 1, &o));
    assert_true(w[2] == 1 && w[0] == 0 && isinf(o.loss) && fabs(o.log_beta - log(4)) < 1e-15);
    m[1] = NAN;
    OK(ctx, slg_separation_weights(ctx, &tm, NULL, 1, &o));
    assert_true(isnan(w[0]) && isnan(w[2]) && isnan(o.loss) && isnan(o.log_beta));
    assert_true(isnan(o.min_margin) && o.wrong == 2);
    tm.shape[0] = tw.shape[0] = td.shape[0] = 0; /* no samples */
    OK(ctx, slg_separation_weights(ctx, &tm, NULL, 1, &o));
    assert_true(o.loss == 0 && o.log_beta == 0 && o.wrong == 0 && isinf(o.min_margin));
    tm.shape[0] = tw.shape[0] = td.shape[0] = 1; /* one */
    m[0] = 1e5;
    OK(ctx, slg_separation_weights(ctx, &tm, NULL, 1, &o));
    assert_true(w[0] == 1);
    slg_ctx_free(ctx);
}

/* NaN in theta or a row: everything that depends on it, and no read past it. */
static void test_nan(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    dataset *p = dataset_new();
    parts_got got;
    prepare(&got);
    const slg_tensor t = slg_tensor_1d(p->x, SLG_F64, D);
    p->a[7 * D + 2] = NAN;
    OK(ctx, slg_separation_parts(ctx, &p->ta, &p->ty, &t, &got.out));
    assert_true(isnan(got.margins[7]) && !isnan(got.margins[6]));
    assert_true(isnan(got.out.loss) && isnan(got.weights[0]) && isnan(got.direction[0]));
    assert_true(isnan(got.gradient[D - 1]) && isnan(got.out.log_beta));
    free(p);
    slg_ctx_free(ctx);
}

/* Two classes of the extension are the binary case; more: by differences. */
static void test_classes(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    dataset *p = dataset_new();
    double theta[CLASSES * D], dir[CLASSES * D], grad[CLASSES * D], m[N], two[D];
    int32_t label[N];
    for (int k = 0; k < CLASSES * D; k++) theta[k] = normal();
    for (int i = 0; i < N; i++) label[i] = (p->y[i] + 1) / 2;
    for (int k = 0; k < D; k++) two[k] = theta[D + k] - theta[k];
    parts_got got;
    prepare(&got);
    const slg_tensor t1 = slg_tensor_1d(two, SLG_F64, D),
                     t2 = slg_tensor_2d(theta, SLG_F64, 2, D),
                     t3 = slg_tensor_2d(theta, SLG_F64, CLASSES, D),
                     tl = slg_tensor_1d(label, SLG_I32, N);
    OK(ctx, slg_separation_parts(ctx, &p->ta, &p->ty, &t1, &got.out));
    slg_separation_out o;
    slg_separation_out_init(&o, sizeof o);
    slg_tensor td = slg_tensor_2d(dir, SLG_F64, 2, D), tg = slg_tensor_2d(grad, SLG_F64, 2, D);
    slg_tensor tm = slg_tensor_1d(m, SLG_F64, N);
    o.direction = &td, o.gradient = &tg, o.margins = &tm;
    OK(ctx, slg_separation_parts(ctx, &p->ta, &tl, &t2, &o));
    near(m, got.margins, N, 1e-13, "margins");
    near(dir + D, got.direction, D, 1e-13, "direction");
    near(grad + D, got.gradient, D, 1e-13, "gradient");
    for (int k = 0; k < D; k++) assert_true(fabs(dir[k] + dir[D + k]) < 1e-15);
    assert_true(fabs(o.loss - got.out.loss) < 1e-14 && o.wrong == got.out.wrong);
    /* Three: cross-entropy. */
    td.shape[0] = tg.shape[0] = CLASSES;
    OK(ctx, slg_separation_parts(ctx, &p->ta, &p->tlabel, &t3, &o));
    double loss = 0;
    for (int i = 0; i < N; i++) {
        double z[CLASSES] = { 0 }, sum = 0;
        for (int c = 0; c < CLASSES; c++)
            for (int k = 0; k < D; k++) z[c] += theta[c * D + k] * p->a[i * D + k];
        for (int c = 0; c < CLASSES; c++) sum += exp(z[c] - z[p->label[i]]);
        loss += log(sum) / N;
    }
    assert_true(fabs(o.loss - loss) < 1e-13);
    slg_separation_out value;
    slg_separation_out_init(&value, sizeof value);
    for (int k = 0; k < CLASSES * D; k++) {
        const double x = theta[k], h = 1e-6;
        double f[2];
        for (int s = 0; s < 2; s++) {
            theta[k] = x + (s ? h : -h);
            OK(ctx, slg_separation_parts(ctx, &p->ta, &p->tlabel, &t3, &value));
            f[s] = value.loss;
        }
        theta[k] = x;
        assert_true(fabs((f[1] - f[0]) / (2 * h) - grad[k]) < 1e-8);
        assert_true(fabs(dir[k] + exp(o.log_beta) * grad[k]) < 1e-12);
    }
    free(p);
    slg_ctx_free(ctx);
}

/* ---- Errors ------------------------------------------------------------------------------ */

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    dataset *p = dataset_new();
    parts_got got, kept;
    prepare(&got);
    kept = got;
    slg_tensor a, y, t;
    slg_separation_out o;
#define REFUSED(status, part, ...)                                                             \
    do {                                                                                       \
        a = p->ta, y = p->ty, t = slg_tensor_1d(p->x, SLG_F64, D), o = got.out;                \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_separation_parts(ctx, &a, &y, &t, &o), status);                   \
        if (!strstr(slg_ctx_message(ctx), part)) fail_msg("%s", slg_ctx_message(ctx));         \
        assert_memory_equal(got.margins, kept.margins, sizeof got.margins);                    \
        assert_memory_equal(got.direction, kept.direction, sizeof got.direction);              \
    } while (0)
    REFUSED(SLG_ERR_NULL, "a", a.data = NULL);
    REFUSED(SLG_ERR_SHAPE, "y", y.shape[0] = N - 1);
    REFUSED(SLG_ERR_SHAPE, "theta", t.shape[0] = D - 1);
    REFUSED(SLG_ERR_SHAPE, "theta", t = slg_tensor_2d(p->x, SLG_F64, 1, D));
    REFUSED(SLG_ERR_DTYPE, "theta", t.dtype = SLG_I32);
    REFUSED(SLG_ERR_DTYPE, "a", a.dtype = SLG_I64);
    REFUSED(SLG_ERR_RANGE, "y[3] is 2", y = slg_tensor_1d(p->label, SLG_I32, N);
            for (int i = 0; i < N; i++) p->label[i] = i == 3 ? 2 : 1);
    REFUSED(SLG_ERR_RANGE, "dscores", o.dscores = &got.t[0]; o.margins = NULL);
    REFUSED(SLG_ERR_STRIDE, "overlap", o.weights = &got.t[0]);
    REFUSED(SLG_ERR_SHAPE, "out.margins", got.t[0].shape[0] = N - 1);
    got.t[0].shape[0] = N;
    REFUSED(SLG_ERR_OPTIONS, "reserved", o.reserved = 1);
    REFUSED(SLG_ERR_OPTIONS, "out", o.size = 3);
#undef REFUSED
    assert_int_equal(slg_separation_parts(NULL, &a, &y, &t, &o), SLG_ERR_NULL);
    slg_separation_out_init(&o, sizeof o);
    const slg_tensor m = slg_tensor_1d(p->x, SLG_F64, D);
    const double bad[] = { 0, -1, NAN, INFINITY };
    for (int i = 0; i < 4; i++) {
        assert_int_equal(slg_separation_weights(ctx, &m, NULL, bad[i], &o), SLG_ERR_RANGE);
        assert_non_null(strstr(slg_ctx_message(ctx), "gamma"));
    }
    assert_int_equal(slg_separation_weights(ctx, &m, NULL, 1, NULL), SLG_ERR_NULL);
    free(p);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),       cmocka_unit_test(test_identities),
        cmocka_unit_test(test_sizes),       cmocka_unit_test(test_types),
        cmocka_unit_test(test_invariances), cmocka_unit_test(test_edges),
        cmocka_unit_test(test_nan),         cmocka_unit_test(test_classes),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
