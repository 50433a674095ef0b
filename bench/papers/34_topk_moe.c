/*
 * 34 Statistical Perspective of Top-K Sparse Softmax Gating Mixture of Experts: how fast fitted
 * densities and parameters come near the truth as data grow, with the right number of experts
 * and with one too many; and that K must hold all experts of a split cell.
 *
 * X uniform on (-1, 1); 3 experts, K = 2. Expectation maximisation starts near the truth. The
 * Hellinger distance is a mean over 201 x, by 1201 points of y in [-9, 9].
 */
#include "papers.h"

enum { MOST = 4, XS = 201, YS = 1201, SIZES = 4 };

typedef struct model {
    int k;
    double v[5][MOST]; /* beta1, beta0, a, b, log variance */
    slg_tensor t[5];
    slg_moe_mixture m;
} model;

static void model_view(model *q, int k, int chosen)
{
    q->k = k;
    for (int i = 0; i < 5; i++)
        q->t[i] = i == 0 || i == 2 ? slg_tensor_2d(q->v[i], SLG_F64, k, 1)
                                   : slg_tensor_1d(q->v[i], SLG_F64, k);
    slg_moe_mixture_init(&q->m, sizeof q->m);
    q->m.chosen = chosen;
    q->m.beta1 = &q->t[0], q->m.beta0 = &q->t[1], q->m.a = &q->t[2], q->m.b = &q->t[3];
    q->m.log_variance = &q->t[4];
}

static void model_true(model *q)
{
    static const double v[5][3] = {
        { 6, -6, 0 }, { 1, -0.5, 0 }, { -4, 4, 1 }, { 3, 1, -2 }, { .2, .3, .15 }
    };
    model_view(q, 3, 2);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 3; j++) q->v[i][j] = i == 4 ? log(v[i][j]) : v[i][j];
}

/* The third expert twice, each with half its weight. */
static void model_split(model *q, int chosen)
{
    model_true(q);
    model_view(q, 4, chosen);
    for (int i = 0; i < 5; i++) q->v[i][3] = q->v[i][2];
    q->v[1][2] -= log(2), q->v[1][3] -= log(2);
}

typedef struct grid {
    double *x, *y, *truth, *density;
} grid;

static void densities(run_t *r, slg_ctx *ctx, const grid *g, const model *q, double *out)
{
    slg_tensor x = slg_tensor_2d(g->x, SLG_F64, XS * YS, 1),
               y = slg_tensor_1d(g->y, SLG_F64, XS * YS),
               l = slg_tensor_1d(out, SLG_F64, XS * YS);
    slg_moe_density_out o;
    slg_moe_density_out_init(&o, sizeof o);
    o.loglik = &l;
    must(r, ctx, slg_moe_density(ctx, &x, &y, &q->m, &o));
}

/* Mean over x, but for x = 0 where `skip`, of sqrt(1/2 int (sqrt p - sqrt q)^2 dy). */
static double hellinger(run_t *r, slg_ctx *ctx, const grid *g, const model *q, bool skip)
{
    const double step = 18.0 / (YS - 1);
    double mean = 0;
    densities(r, ctx, g, q, g->density);
    for (int i = 0; i < XS; i++) {
        double sum = 0;
        if (skip && i == XS / 2) continue;
        for (int j = 0; j < YS; j++) {
            const int at = i * YS + j;
            const double d = exp(0.5 * g->density[at]) - exp(0.5 * g->truth[at]);
            sum += 0.5 * step * d * d;
        }
        mean += sqrt(sum) / (skip ? XS - 1 : XS);
    }
    return mean;
}

/* Gates so that the cell of the third true expert has mean beta1 0 and mass 1. */
static void align(run_t *r, slg_ctx *ctx, model *fit, const model *truth)
{
    int32_t cell[MOST];
    slg_tensor t = slg_tensor_1d(cell, SLG_I32, fit->k);
    double mean = 0, mass = 0;
    int count = 0;
    must(r, ctx, slg_moe_voronoi(ctx, &fit->m, &truth->m, NULL, &t, NULL, NULL));
    for (int j = 0; j < fit->k; j++) {
        if (cell[j] != 2) continue;
        mean += fit->v[0][j], mass += exp(fit->v[1][j]), count++;
    }
    if (!count) return;
    for (int j = 0; j < fit->k; j++) fit->v[0][j] -= mean / count, fit->v[1][j] -= log(mass);
}

/* n rows drawn from the truth, a fit from near it: D1 and the Hellinger distance. */
static void fit_once(run_t *r, slg_ctx *ctx, const grid *g, int64_t n, bool over, uint64_t seed,
                     double *d1, double *distance)
{
    model truth, q;
    rng random = rng_seed(seed);
    double *x = run_doubles(r, (size_t)n), *y = run_doubles(r, (size_t)n);
    slg_tensor tx = slg_tensor_2d(x, SLG_F64, n, 1), ty = slg_tensor_1d(y, SLG_F64, n);
    slg_rng draws = { seed, 0 };
    slg_moe_em *em;
    slg_moe_em_opts o;
    model_true(&truth);
    for (int64_t i = 0; i < n; i++) x[i] = rng_uniform(&random, -1, 1);
    must(r, ctx, slg_moe_sample(ctx, &tx, &truth.m, &draws, &ty, NULL));
    if (over)
        model_split(&q, 3);
    else
        model_true(&q);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < q.k; j++) {
            if (i < 4)
                q.v[i][j] += rng_normal(&random, 0, 0.1);
            else
                q.v[i][j] = log(fmax(exp(q.v[i][j]) + rng_normal(&random, 0, 0.03), 0.02));
        }
    slg_moe_em_opts_init(&o, sizeof o);
    o.max_steps = over ? 400 : 200;
    must(r, ctx, slg_moe_em_create(ctx, &q.m, &o, &em));
    slg_status status = slg_moe_em_fit(em, &tx, &ty, NULL, NULL);
    if (!status) status = slg_moe_em_mixture(em, &q.t[0], &q.t[1], &q.t[2], &q.t[3], &q.t[4]);
    slg_moe_em_free(em);
    must(r, ctx, status);
    *distance = hellinger(r, ctx, g, &q, false);
    align(r, ctx, &q, &truth);
    must(r, ctx, slg_moe_voronoi(ctx, &q.m, &truth.m, NULL, NULL, NULL, d1));
    run_release(r, x), run_release(r, y);
}

/* Least squares slope of log y on log n. */
static double slope(int count, const double *n, const double *y)
{
    double mx = 0, my = 0, xy = 0, xx = 0;
    for (int i = 0; i < count; i++) mx += log(n[i]) / count, my += log(y[i]) / count;
    for (int i = 0; i < count; i++) {
        xy += (log(n[i]) - mx) * (log(y[i]) - my);
        xx += (log(n[i]) - mx) * (log(n[i]) - mx);
    }
    return xy / xx;
}

static void rates(run_t *r, slg_ctx *ctx, const grid *g, bool over)
{
    static const double sizes[SIZES] = { 500, 2000, 8000, 32000 };
    const int count = over ? 3 : run_quick(r) ? 3 : SIZES;
    const int repeats = run_quick(r) ? (over ? 5 : 12) : over ? 41 : 12;
    double d1[SIZES], far[SIZES];
    for (int s = 0; s < count; s++) {
        double loss[48], distance[48], mean[2] = { 0 };
        for (int i = 0; i < repeats; i++) {
            fit_once(r, ctx, g, (int64_t)sizes[s], over, (uint64_t)(1000 * s + i + 1), &loss[i],
                     &distance[i]);
            mean[0] += loss[i] / repeats, mean[1] += distance[i] / repeats;
        }
        d1[s] = over ? median((size_t)repeats, loss) : mean[0];
        far[s] = over ? median((size_t)repeats, distance) : mean[1];
        note(r, "%s, n = %g: D1 %.3g, Hellinger %.4f (%s of %d)",
             over ? "4 experts" : "3 experts", sizes[s], d1[s], far[s],
             over ? "median" : "mean", repeats);
    }
    const double rate = slope(count, sizes, far), loss_rate = slope(count, sizes, d1);
    if (over) {
        claim(r, "one expert too many, K = 3: slope of the Hellinger distance in n", "-1/2",
              rate, "", at_most(-0.35));
        claim(r, "one expert too many: slope of the loss D1, which is slower",
              "far slower than -1/2", loss_rate, "", at_least(-0.40));
    } else {
        claim(r, "exact number of experts: slope of the Voronoi loss D1 in n", "-1/2",
              loss_rate, "", between(-0.65, -0.35));
        claim(r, "exact number of experts: slope of the Hellinger distance", "-1/2", rate, "",
              between(-0.65, -0.35));
    }
    figure(r, over ? "4 experts for 3" : "3 experts for 3", "rows", "distance to the truth",
           FIGURE_LOG_X | FIGURE_LOG_Y);
    series(r, "Voronoi loss D1", (size_t)count, sizes, d1);
    series(r, "Hellinger distance", (size_t)count, sizes, far);
}

static void run(run_t *r)
{
    const size_t points = (size_t)XS * YS;
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 0);
    grid g = { run_doubles(r, points), run_doubles(r, points), run_doubles(r, points),
               run_doubles(r, points) };
    model truth, split;
    for (int i = 0; i < XS; i++)
        for (int j = 0; j < YS; j++) {
            g.x[i * YS + j] = -1 + 2.0 * i / (XS - 1);
            g.y[i * YS + j] = -9 + 18.0 * j / (YS - 1);
        }
    model_true(&truth);
    densities(r, ctx, &g, &truth, g.truth);
    model_split(&split, 3);
    claim(r, "third expert doubled, K = 3: Hellinger distance to the truth (x = 0 left out)",
          "0: K covers the cells", hellinger(r, ctx, &g, &split, true), "", at_most(0.002));
    model_split(&split, 2);
    claim(r, "third expert doubled, K = 2: Hellinger distance to the truth",
          "not 0: K is too small", hellinger(r, ctx, &g, &split, false), "", at_least(0.03));
    rates(r, ctx, &g, false);
    rates(r, ctx, &g, true);
}

const paper paper_34_topk_moe = {
    34, "topk-moe", "Statistical Perspective of Top-K Sparse Softmax Gating Mixture of Experts",
    run
};
