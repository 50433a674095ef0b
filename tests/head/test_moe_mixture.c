/*
 * The Gaussian mixture of experts: density against the formula and by quadrature, gradients by
 * differences, outliers, sampling; expectation maximisation: monotone, fixed point, state;
 * Voronoi losses: identities.
 */
#include "layer/layer_test.h"

#include "core/rng.h"
#include "softlogit/moe.h"

enum { K = 5, D = 2, N = 60, PARAMS = K * (2 * D + 3) };

/* beta1, beta0, a, b, log_variance, one after the other. */
typedef struct params {
    int k, d;
    double v[64];
    slg_tensor t[5];
    slg_moe_mixture m;
} params;

static void view(params *p, int k, int d, int chosen)
{
    double *at = p->v;
    p->k = k, p->d = d;
    for (int i = 0; i < 5; i++) {
        const bool wide = i == 0 || i == 2;
        p->t[i] = wide ? slg_tensor_2d(at, SLG_F64, k, d) : slg_tensor_1d(at, SLG_F64, k);
        at += wide ? k * d : k;
    }
    slg_moe_mixture_init(&p->m, sizeof p->m);
    p->m.chosen = chosen;
    p->m.beta1 = &p->t[0], p->m.beta0 = &p->t[1], p->m.a = &p->t[2], p->m.b = &p->t[3];
    p->m.log_variance = &p->t[4];
}

static void draw(params *p, int k, int d, int chosen)
{
    view(p, k, d, chosen);
    for (int i = 0; i < k * (2 * d + 3); i++) p->v[i] = 0.7 * normal();
}

static double *part(const params *p, int i) { return p->t[i].data; }

static void draw_data(double *x, double *y, int n, int d)
{
    for (int i = 0; i < n * d; i++) x[i] = 2 * uniform() - 1;
    for (int i = 0; i < n; i++) y[i] = normal();
}

/* log p, g and r of row x by the formula. */
static double reference(const params *p, const double *x, double y, double *g, double *r)
{
    double s[K], top = -1e300, sum = 0, density = 0;
    bool chosen[K] = { false };
    for (int i = 0; i < p->k; i++) {
        s[i] = 0, g[i] = r[i] = 0;
        for (int c = 0; c < p->d; c++) s[i] += part(p, 0)[i * p->d + c] * x[c];
    }
    for (int j = 0; j < p->m.chosen; j++) {
        int best = -1;
        for (int i = 0; i < p->k; i++)
            if (!chosen[i] && (best < 0 || s[i] > s[best])) best = i;
        chosen[best] = true;
        top = fmax(top, s[best] + part(p, 1)[best]);
    }
    for (int i = 0; i < p->k; i++)
        if (chosen[i]) sum += g[i] = exp(s[i] + part(p, 1)[i] - top);
    for (int i = 0; i < p->k; i++) {
        double mu = part(p, 3)[i], v = exp(part(p, 4)[i]);
        for (int c = 0; c < p->d; c++) mu += part(p, 2)[i * p->d + c] * x[c];
        g[i] /= sum;
        density += r[i] = g[i] * exp(-0.5 * (y - mu) * (y - mu) / v) / sqrt(2 * M_PI * v);
    }
    for (int i = 0; i < p->k; i++) r[i] /= density;
    return log(density);
}

static void test_formula(void **state)
{
    slg_ctx *ctx = new_ctx(0, 2);
    (void)state;
    for (int chosen = 1; chosen <= K; chosen++) {
        params p;
        double x[N * D], y[N], l[N], w[N * K], r[N * K], mean[N], nll = 0;
        int32_t index[N * K];
        draw(&p, K, D, chosen), draw_data(x, y, N, D);
        slg_tensor tx = slg_tensor_2d(x, SLG_F64, N, D), ty = slg_tensor_1d(y, SLG_F64, N),
                   tl = slg_tensor_1d(l, SLG_F64, N), tm = slg_tensor_1d(mean, SLG_F64, N),
                   tw = slg_tensor_2d(w, SLG_F64, N, chosen),
                   tr = slg_tensor_2d(r, SLG_F64, N, chosen),
                   ti = slg_tensor_2d(index, SLG_I32, N, chosen);
        slg_moe_density_out o;
        slg_moe_density_out_init(&o, sizeof o);
        o.loglik = &tl, o.weight = &tw, o.responsibility = &tr, o.index = &ti, o.mean = &tm;
        ok(slg_moe_density(ctx, &tx, &ty, &p.m, &o));
        for (int n = 0; n < N; n++) {
            double g[K], q[K], sum = 0, total = 0, m = 0;
            const double want = reference(&p, x + n * D, y[n], g, q);
            assert_near(l[n], want, 1e-12 * (1 + fabs(want)), "log p of row %d", n);
            nll -= want / N;
            for (int j = 0; j < chosen; j++) {
                const int i = index[n * chosen + j];
                assert_near(w[n * chosen + j], g[i], 1e-13, "g");
                assert_near(r[n * chosen + j], q[i], 1e-12, "r");
                sum += w[n * chosen + j], total += r[n * chosen + j];
            }
            for (int i = 0; i < K; i++) {
                double mu = part(&p, 3)[i];
                for (int c = 0; c < D; c++) mu += part(&p, 2)[i * D + c] * x[n * D + c];
                m += g[i] * mu;
            }
            assert_near(mean[n], m, 1e-12, "mean");
            assert_near(sum, 1, 1e-14, "sum of g"), assert_near(total, 1, 1e-13, "sum of r");
        }
        assert_near(o.nll, nll, 1e-12, "nll");
        /* What an expert does not take part in it does not change. */
        for (int i = 0; i < K; i++) {
            bool chose = false;
            for (int j = 0; j < chosen; j++) chose |= index[j] == i;
            if (!chose) part(&p, 1)[i] += 3, part(&p, 2)[i * D] += 1, part(&p, 3)[i] -= 4;
        }
        const double first = l[0];
        ok(slg_moe_density(ctx, &tx, &ty, &p.m, &o));
        assert_true(l[0] == first);
    }
    slg_ctx_free(ctx);
}

/* The density of a row integrates to 1 over y. */
static void test_integral(void **state)
{
    enum { POINTS = 4001 };
    static double x[POINTS * D], y[POINTS], l[POINTS];
    slg_ctx *ctx = new_ctx(0, 1);
    params p;
    double sum = 0;
    (void)state;
    draw(&p, K, D, 3);
    for (int i = 0; i < POINTS; i++) x[i * D] = 0.3, x[i * D + 1] = -0.8, y[i] = -40 + 0.02 * i;
    slg_tensor tx = slg_tensor_2d(x, SLG_F64, POINTS, D),
               ty = slg_tensor_1d(y, SLG_F64, POINTS), tl = slg_tensor_1d(l, SLG_F64, POINTS);
    slg_moe_density_out o;
    slg_moe_density_out_init(&o, sizeof o);
    o.loglik = &tl;
    ok(slg_moe_density(ctx, &tx, &ty, &p.m, &o));
    for (int i = 0; i < POINTS; i++) sum += 0.02 * exp(l[i]);
    assert_near(sum, 1, 1e-10, "integral");
    slg_ctx_free(ctx);
}

static void test_gradient(void **state)
{
    static double x[N * D], y[N], d[PARAMS];
    slg_ctx *ctx = new_ctx(0, 2);
    (void)state;
    for (int chosen = 1; chosen <= K; chosen++) {
        params p, grad;
        seed = 1234567;
        draw(&p, K, D, chosen), draw_data(x, y, N, D);
        view(&grad, K, D, chosen);
        slg_tensor tx = slg_tensor_2d(x, SLG_F64, N, D), ty = slg_tensor_1d(y, SLG_F64, N);
        slg_moe_density_out o;
        slg_moe_density_out_init(&o, sizeof o);
        o.dbeta1 = &grad.t[0], o.dbeta0 = &grad.t[1], o.da = &grad.t[2], o.db = &grad.t[3];
        o.dlog_variance = &grad.t[4];
        ok(slg_moe_density(ctx, &tx, &ty, &p.m, &o));
        memcpy(d, grad.v, sizeof d);
        slg_moe_density_out_init(&o, sizeof o);
        for (int i = 0; i < PARAMS; i++) {
            const double h = 1e-6, kept = p.v[i];
            double value[2];
            for (int side = 0; side < 2; side++) {
                p.v[i] = kept + (side ? h : -h);
                ok(slg_moe_density(ctx, &tx, &ty, &p.m, &o));
                value[side] = o.nll;
            }
            p.v[i] = kept;
            assert_near(d[i], (value[1] - value[0]) / (2 * h), 1e-7, "chosen %d gradient %d",
                        chosen, i);
            if (chosen == 1 && i < K * (D + 1)) assert_true(fabs(d[i]) < 1e-15);
        }
    }
    slg_ctx_free(ctx);
}

/* Outliers of 60 standard deviations and of 1e30; types and strides; NaN. */
static void test_extremes(void **state)
{
    static const double far[] = { 60, -60, 1e30, -1e30, 1e200 };
    slg_ctx *ctx = new_ctx(0, 1);
    (void)state;
    for (size_t t = 0; t < COUNT(far); t++) {
        params p, grad;
        double x[2 * D] = { .5, -.5, .1, .2 }, y[2] = { 0, far[t] }, l[2], r[4];
        draw(&p, K, D, 2), view(&grad, K, D, 2);
        slg_tensor tx = slg_tensor_2d(x, SLG_F64, 2, D), ty = slg_tensor_1d(y, SLG_F64, 2),
                   tl = slg_tensor_1d(l, SLG_F64, 2), tr = slg_tensor_2d(r, SLG_F64, 2, 2);
        slg_moe_density_out o;
        slg_moe_density_out_init(&o, sizeof o);
        o.loglik = &tl, o.responsibility = &tr;
        o.dbeta1 = &grad.t[0], o.dbeta0 = &grad.t[1], o.da = &grad.t[2], o.db = &grad.t[3];
        o.dlog_variance = &grad.t[4];
        ok(slg_moe_density(ctx, &tx, &ty, &p.m, &o));
        assert_true(l[1] < -100);
        assert_near(r[2] + r[3], 1, 1e-12, "r");
        for (int i = 0; i < PARAMS; i++) assert_true(!isnan(grad.v[i]));
        y[0] = NAN;
        ok(slg_moe_density(ctx, &tx, &ty, &p.m, &o));
        assert_true(isnan(l[0]) && !isnan(l[1]) && isnan(o.nll));
    }
    slg_ctx_free(ctx);
}

static void test_sample(void **state)
{
    enum { DRAWS = 60000 };
    static double x[DRAWS * D], y[DRAWS], again[DRAWS];
    static int32_t who[DRAWS];
    params p;
    slg_ctx *ctx = new_ctx(0, 2);
    slg_rng rng = { 5, 100 };
    double mean = 0, square = 0, share[K] = { 0 }, g[K], r[K], want = 0, want2 = 0;
    (void)state;
    draw(&p, K, D, 3);
    for (int i = 0; i < DRAWS * D; i++) x[i] = i % D ? -0.4 : 0.9;
    slg_tensor tx = slg_tensor_2d(x, SLG_F64, DRAWS, D), ty = slg_tensor_1d(y, SLG_F64, DRAWS),
               tw = slg_tensor_1d(who, SLG_I32, DRAWS);
    ok(slg_moe_sample(ctx, &tx, &p.m, &rng, &ty, &tw));
    assert_true(rng.offset == 100 + 2 * DRAWS);
    for (int n = 0; n < DRAWS; n++)
        mean += y[n] / DRAWS, square += y[n] * y[n] / DRAWS, share[who[n]] += 1.0 / DRAWS;
    reference(&p, x, 0, g, r);
    for (int i = 0; i < K; i++) {
        double mu = part(&p, 3)[i];
        for (int c = 0; c < D; c++) mu += part(&p, 2)[i * D + c] * x[c];
        want += g[i] * mu, want2 += g[i] * (mu * mu + exp(part(&p, 4)[i]));
        assert_near(share[i], g[i], 0.01, "share of %d", i);
    }
    assert_near(mean, want, 0.03, "mean");
    assert_near(square, want2, 0.1, "mean square");
    /* Rows from 1000 on, drawn alone: by the counter they are the same. */
    slg_tensor tail = slg_tensor_2d(x + 1000 * D, SLG_F64, 10, D),
               ta = slg_tensor_1d(again, SLG_F64, 10);
    rng = (slg_rng){ 5, 100 + 2000 };
    ok(slg_moe_sample(ctx, &tail, &p.m, &rng, &ta, NULL));
    assert_memory_equal(again, y + 1000, 10 * sizeof *y);
    slg_ctx_free(ctx);
}

/* ---- Expectation maximisation ------------------------------------------------------------ */

static void true_model(params *p)
{
    static const double v[] = { 6, -6, 0, 1, -0.5, 0, -4, 4, 1, 3, 1, -2, -1.6, -1.2, -1.9 };
    view(p, 3, 1, 2);
    memcpy(p->v, v, sizeof v);
}

static void test_em(void **state)
{
    enum { ROWS = 1500, SIZE = 2 + 3 * 5 };
    static double x[ROWS], y[ROWS];
    params p, found, grad;
    slg_ctx *ctx = new_ctx(0, 2);
    slg_moe_em *em, *other;
    slg_rng rng = { 9, 0 };
    double before = -1e300, now, saved[SIZE], last[2][SIZE];
    int64_t steps;
    (void)state;
    seed = 4321;
    for (int i = 0; i < ROWS; i++) x[i] = 2 * uniform() - 1;
    slg_tensor tx = slg_tensor_2d(x, SLG_F64, ROWS, 1), ty = slg_tensor_1d(y, SLG_F64, ROWS),
               ts = slg_tensor_1d(saved, SLG_F64, SIZE);
    true_model(&p);
    ok(slg_moe_sample(ctx, &tx, &p.m, &rng, &ty, NULL));
    for (int i = 0; i < 15; i++) p.v[i] += 0.1 * normal();
    slg_moe_em_opts o;
    slg_moe_em_opts_init(&o, sizeof o);
    o.max_steps = 600, o.tolerance = 1e-13;
    ok(slg_moe_em_create(ctx, &p.m, &o, &em));
    for (int i = 0; i < 10; i++) {
        ok(slg_moe_em_step(em, &tx, &ty, &now));
        assert_true(now >= before - 1e-7);
        before = now;
    }
    /* Saved and restored elsewhere it goes on with the same bits. */
    ok(slg_moe_em_save(em, &ts));
    assert_true(saved[0] == 10 && saved[1] == now);
    ok(slg_moe_em_create(ctx, &p.m, &o, &other));
    ok(slg_moe_em_restore(other, &ts));
    for (int i = 0; i < 2; i++) {
        slg_tensor tl = slg_tensor_1d(last[i], SLG_F64, SIZE);
        for (int k = 0; k < 5; k++) ok(slg_moe_em_step(i ? other : em, &tx, &ty, NULL));
        ok(slg_moe_em_save(i ? other : em, &tl));
    }
    assert_memory_equal(last[0], last[1], sizeof last[0]);
    ok(slg_moe_em_fit(em, &tx, &ty, &now, &steps));
    assert_true(now >= before - 1e-7 && steps > 0);
    /* Its fixed point: the gradient of the likelihood is 0 but for what the choice does. */
    view(&found, 3, 1, 2), view(&grad, 3, 1, 2);
    ok(slg_moe_em_mixture(em, &found.t[0], &found.t[1], &found.t[2], &found.t[3], &found.t[4]));
    assert_true(part(&found, 0)[2] == 0 && part(&found, 1)[2] == 0);
    slg_moe_density_out d;
    slg_moe_density_out_init(&d, sizeof d);
    d.dbeta1 = &grad.t[0], d.dbeta0 = &grad.t[1], d.da = &grad.t[2], d.db = &grad.t[3];
    d.dlog_variance = &grad.t[4];
    ok(slg_moe_density(ctx, &tx, &ty, &found.m, &d));
    assert_near(-d.nll, now, 1e-12, "log-likelihood");
    for (int i = 6; i < 15; i++) assert_near(grad.v[i], 0, 1e-5, "gradient of experts, %d", i);
    /* The truth is near. */
    true_model(&p);
    for (int i = 6; i < 12; i++) assert_near(found.v[i], p.v[i], 0.4, "parameter %d", i);
    saved[0] = -1;
    assert_int_equal(slg_moe_em_restore(em, &ts), SLG_ERR_STATE);
    y[3] = NAN;
    assert_int_equal(slg_moe_em_step(em, &tx, &ty, NULL), SLG_ERR_RANGE);
    slg_moe_em_free(em), slg_moe_em_free(other), slg_moe_em_free(NULL);
    slg_ctx_free(ctx);
}

/* K = 1, and experts that none chooses; the dense gate's fixed point has no gradient at all. */
static void test_em_kinds(void **state)
{
    enum { ROWS = 400 };
    static double x[ROWS], y[ROWS];
    slg_ctx *ctx = new_ctx(0, 1);
    (void)state;
    seed = 99;
    for (int i = 0; i < ROWS; i++)
        x[i] = 2 * uniform() - 1, y[i] = (x[i] > 0 ? 3 * x[i] : 1 - x[i]) + 0.3 * normal();
    slg_tensor tx = slg_tensor_2d(x, SLG_F64, ROWS, 1), ty = slg_tensor_1d(y, SLG_F64, ROWS);
    for (int chosen = 1; chosen <= 3; chosen += 2)
        for (int blocks = 0; blocks < 2; blocks++) {
            params p, found, grad;
            slg_moe_em *em;
            double l;
            draw(&p, 3, 1, chosen);
            slg_moe_em_opts o;
            slg_moe_em_opts_init(&o, sizeof o);
            o.max_steps = 3000, o.tolerance = 1e-15, o.block_diagonal = blocks;
            ok(slg_moe_em_create(ctx, &p.m, &o, &em));
            ok(slg_moe_em_fit(em, &tx, &ty, &l, NULL));
            view(&found, 3, 1, chosen), view(&grad, 3, 1, chosen);
            ok(slg_moe_em_mixture(em, &found.t[0], &found.t[1], &found.t[2], &found.t[3],
                                  &found.t[4]));
            slg_moe_density_out d;
            slg_moe_density_out_init(&d, sizeof d);
            d.dbeta1 = &grad.t[0], d.dbeta0 = &grad.t[1], d.da = &grad.t[2], d.db = &grad.t[3],
            d.dlog_variance = &grad.t[4];
            ok(slg_moe_density(ctx, &tx, &ty, &found.m, &d));
            for (int i = 0; i < 15; i++)
                assert_near(grad.v[i], 0, blocks ? 2e-3 : 2e-5, /* its last steps are small */
                            "chosen %d blocks %d gradient %d", chosen, blocks, i);
            slg_moe_em_free(em);
        }
    slg_ctx_free(ctx);
}

/* Weighted least squares against exact data; floor, and experts without weight. */
static void test_experts(void **state)
{
    enum { ROWS = 30 };
    double x[ROWS * D], y[ROWS], r[ROWS * 3], a[3 * D], b[3], v[3];
    int32_t kept[3];
    slg_ctx *ctx = new_ctx(0, 1);
    (void)state;
    for (int n = 0; n < ROWS; n++) {
        const int i = n % 2;
        for (int c = 0; c < D; c++) x[n * D + c] = normal();
        y[n] = i ? 2 * x[n * D] - x[n * D + 1] + 3 : x[n * D + 1] - 5 + normal();
        r[n * 3] = 1 - i, r[n * 3 + 1] = 0.5 * i, r[n * 3 + 2] = 0;
    }
    for (int i = 0; i < 3; i++) a[i * D] = a[i * D + 1] = b[i] = v[i] = 7;
    slg_tensor tx = slg_tensor_2d(x, SLG_F64, ROWS, D), ty = slg_tensor_1d(y, SLG_F64, ROWS),
               tr = slg_tensor_2d(r, SLG_F64, ROWS, 3), ta = slg_tensor_2d(a, SLG_F64, 3, D),
               tb = slg_tensor_1d(b, SLG_F64, 3), tv = slg_tensor_1d(v, SLG_F64, 3),
               tk = slg_tensor_1d(kept, SLG_I32, 3);
    ok(slg_moe_experts(ctx, &tx, &ty, &tr, NULL, &ta, &tb, &tv, &tk));
    assert_near(a[D], 2, 1e-6, "a"), assert_near(a[D + 1], -1, 1e-6, "a");
    assert_near(b[1], 3, 1e-6, "b"), assert_near(v[1], 1e-4, 0, "variance at the floor");
    assert_true(kept[0] == SLG_MOE_EXPERT_FITTED && kept[1] == SLG_MOE_EXPERT_FLOOR);
    assert_true(kept[2] == SLG_MOE_EXPERT_KEPT && a[2 * D] == 7 && b[2] == 7 && v[2] == 7);
    r[4] = -1;
    assert_int_equal(slg_moe_experts(ctx, &tx, &ty, &tr, NULL, &ta, &tb, &tv, &tk),
                     SLG_ERR_RANGE);
    slg_ctx_free(ctx);
}

/* ---- Voronoi losses ---------------------------------------------------------------------- */

static void test_voronoi(void **state)
{
    params real, split;
    slg_ctx *ctx = new_ctx(0, 1);
    double loss;
    int32_t cell[4];
    slg_tensor tc = slg_tensor_1d(cell, SLG_I32, 4), t3 = slg_tensor_1d(cell, SLG_I32, 3);
    slg_moe_voronoi_opts o;
    (void)state;
    slg_moe_voronoi_opts_init(&o, sizeof o);
    true_model(&real), view(&split, 4, 1, 3);
    for (int over = 0; over < 2; over++) {
        o.over_specified = over;
        ok(slg_moe_voronoi(ctx, &real.m, &real.m, &o, &t3, NULL, &loss));
        assert_true(loss == 0 && cell[0] == 0 && cell[1] == 1 && cell[2] == 2);
        for (int twin = 0; twin < 3; twin++) {
            for (int q = 0; q < 5; q++)
                for (int i = 0; i < 4; i++)
                    part(&split, q)[i] = part(&real, q)[i < 3 ? i : twin];
            part(&split, 1)[twin] -= log(2), part(&split, 1)[3] -= log(2);
            ok(slg_moe_voronoi(ctx, &split.m, &real.m, &o, &tc, NULL, &loss));
            assert_near(loss, 0, 1e-14, "split");
            assert_int_equal(cell[3], twin);
        }
    }
    /* An empty cell: exp(beta0*) of it. */
    params one;
    double losses[3];
    slg_tensor tl = slg_tensor_1d(losses, SLG_F64, 3), t1 = slg_tensor_1d(cell, SLG_I32, 1);
    view(&one, 1, 1, 1);
    for (int q = 0; q < 5; q++) part(&one, q)[0] = part(&real, q)[0];
    ok(slg_moe_voronoi(ctx, &one.m, &real.m, NULL, &t1, &tl, &loss));
    assert_near(losses[1], exp(-0.5), 1e-15, "empty"), assert_near(losses[2], 1, 0, "empty");
    assert_near(loss, 1 + exp(-0.5), 1e-15, "the two largest");
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    params p, other;
    slg_moe_em *em = NULL;
    double x[N * D], y[N];
    slg_moe_density_out o;
    (void)state;
    draw(&p, K, D, 2), draw(&other, 3, 1, 2), draw_data(x, y, N, D);
    slg_moe_density_out_init(&o, sizeof o);
    slg_tensor tx = slg_tensor_2d(x, SLG_F64, N, D), ty = slg_tensor_1d(y, SLG_F64, N),
               none = slg_tensor_2d(NULL, SLG_F64, 0, D),
               no_y = slg_tensor_1d(NULL, SLG_F64, 0);
    array keep = random_vector(2, 1, 0);
    assert_int_equal(slg_moe_density(NULL, &tx, &ty, &p.m, &o), SLG_ERR_NULL);
    assert_refused(ctx, slg_moe_density(ctx, &tx, &ty, NULL, &o), SLG_ERR_NULL, "mixture",
                   &keep);
    assert_refused(ctx, slg_moe_density(ctx, &tx, &ty, &other.m, &o), SLG_ERR_SHAPE, "x",
                   &keep);
    assert_refused(ctx, slg_moe_density(ctx, &none, &no_y, &p.m, &o), SLG_ERR_SHAPE, "no rows",
                   &keep);
    o.loglik = &ty;
    assert_refused(ctx, slg_moe_density(ctx, &tx, &ty, &p.m, &o), SLG_ERR_STRIDE,
                   "loglik overlaps y", &keep);
    assert_refused(ctx, slg_moe_density(ctx, &tx, NULL, &p.m, &o), SLG_ERR_NULL, "y is NULL",
                   &keep);
    p.m.chosen = 6;
    assert_refused(ctx, slg_moe_em_create(ctx, &p.m, NULL, &em), SLG_ERR_RANGE, "chosen is 6",
                   &keep);
    assert_null(em);
    p.m.chosen = 2;
    slg_moe_em_opts eo;
    slg_moe_em_opts_init(&eo, sizeof eo);
    eo.variance_floor = 0;
    assert_refused(ctx, slg_moe_em_create(ctx, &p.m, &eo, &em), SLG_ERR_RANGE, "variance_floor",
                   &keep);
    assert_refused(ctx, slg_moe_voronoi(ctx, &p.m, &other.m, NULL, NULL, NULL, NULL),
                   SLG_ERR_SHAPE, "fit has 2 columns, truth has 1", &keep);
    free_array(&keep);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),  cmocka_unit_test(test_integral),
        cmocka_unit_test(test_gradient), cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_sample),   cmocka_unit_test(test_em),
        cmocka_unit_test(test_em_kinds), cmocka_unit_test(test_experts),
        cmocka_unit_test(test_voronoi),  cmocka_unit_test(test_errors)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
