/*
 * 29 - Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online Convex
 * Optimization (2023). A paper of theory: what is run are its bounds.
 *
 * 1. Linear losses about a fixed direction with noise sigma: regret is constant without noise
 *    and grows as sigma sqrt(T). 2. The direction changes 20 times: an ensemble of steps
 *    follows best. 3. Strongly convex losses: regret grows as sigma^2 log T.
 *
 * Regret is in expectation: losses without their noise. Means of 2 seeds, 8 where there is
 * time.
 */
#include "papers.h"

enum { D = 10, CURVED = 20, CHANGES = 20, SIZES = 3, NOISES = 4, MOST = 8000 };
enum { OPTIMISTIC, WORST_CASE, DECREASING, ENSEMBLE, METHODS };

static const int sizes[SIZES] = { 500, 2000, 8000 };
static const double noises[NOISES] = { 0, 0.1, 0.5, 2 };

typedef struct world {
    run_t *r;
    slg_ctx *ctx;
    int seeds;
    float x[CURVED], g[CURVED];
} world;

/* ---- Players ---------------------------------------------------------------------------- */

typedef struct player {
    slg_learner *l; /* NULL: gradient descent, projected to the unit ball */
    bool decreasing;
    double x[D], bound;
    int rounds;
} player;

static player player_new(world *w, int method, int rounds, double bound)
{
    player p = { NULL, method == DECREASING, { 0 }, bound, rounds };
    slg_omd_opts omd;
    slg_omd_ensemble_opts ensemble;
    slg_omd_opts_init(&omd, sizeof omd);
    slg_omd_ensemble_opts_init(&ensemble, sizeof ensemble);
    omd.numerator = 2, omd.offset = 1, omd.grad_bound = bound;
    ensemble.rounds = rounds, ensemble.grad_bound = bound;
    if (method == OPTIMISTIC)
        must(w->r, w->ctx, slg_learner_create(w->ctx, SLG_OMD, D, &omd, &p.l));
    if (method == ENSEMBLE)
        must(w->r, w->ctx, slg_learner_create(w->ctx, SLG_OMD_ENSEMBLE, D, &ensemble, &p.l));
    return p;
}

static void player_decide(world *w, player *p)
{
    slg_tensor x = slg_tensor_1d(p->x, SLG_F64, D);
    if (p->l) must(w->r, w->ctx, slg_learner_decide(p->l, NULL, &x));
}

static void player_observe(world *w, player *p, const float *g, int t)
{
    const double step = 2 / (p->bound * sqrt(p->decreasing ? t : p->rounds));
    slg_tensor gt = slg_tensor_1d((void *)(uintptr_t)g, SLG_F32, D);
    double sum = 0;
    if (p->l) {
        must(w->r, w->ctx, slg_learner_observe(p->l, NULL, &gt));
        return;
    }
    for (int i = 0; i < D; i++) {
        p->x[i] -= step * (double)g[i];
        sum += p->x[i] * p->x[i];
    }
    for (int i = 0; i < D && sum > 1; i++) p->x[i] /= sqrt(sum);
}

/* ---- Linear losses ---------------------------------------------------------------------- */

static void unit_vector(rng *g, double *c)
{
    double sum = 0;
    for (int i = 0; i < D; i++) c[i] = rng_normal(g, 0, 1), sum += c[i] * c[i];
    for (int i = 0; i < D; i++) c[i] /= sqrt(sum);
}

/* All players see the same losses. regret[METHODS] grows by this seed's. */
static void linear_seed(world *w, uint64_t seed, int rounds, double sigma, int changes,
                        double *regret)
{
    rng random = rng_seed(seed), directions = rng_seed(1000 + seed);
    const double sd = sigma / sqrt(D), bound = 1 + 3 * sd * sqrt(D);
    player p[METHODS];
    double c[D];
    for (int m = 0; m < METHODS; m++) p[m] = player_new(w, m, rounds, bound);
    for (int t = 1; t <= rounds; t++) {
        if ((t - 1) % (rounds / changes) == 0) unit_vector(&directions, c);
        for (int i = 0; i < D; i++) w->g[i] = (float)(c[i] + rng_normal(&random, 0, sd));
        for (int m = 0; m < METHODS; m++) {
            player_decide(w, &p[m]);
            regret[m] += 1; /* the best point, -c, loses -1 */
            for (int i = 0; i < D; i++) regret[m] += c[i] * p[m].x[i];
            player_observe(w, &p[m], w->g, t);
        }
    }
    for (int m = 0; m < METHODS; m++) slg_learner_free(p[m].l);
}

typedef struct table {
    double regret[METHODS][NOISES][SIZES];
} table;

static void linear(world *w, int changes, table *out)
{
    memset(out, 0, sizeof *out);
    for (int n = 0; n < NOISES; n++)
        for (int s = 0; s < SIZES; s++) {
            double sum[METHODS] = { 0 };
            for (int seed = 0; seed < w->seeds; seed++)
                linear_seed(w, (uint64_t)seed, sizes[s], noises[n], changes, sum);
            for (int m = 0; m < METHODS; m++) out->regret[m][n][s] = sum[m] / w->seeds;
        }
}

/* Largest quotient of two methods over all entries. */
static double largest(const table *t, int method, int other)
{
    double most = 0;
    for (int n = 0; n < NOISES; n++)
        for (int s = 0; s < SIZES; s++)
            most = fmax(most, t->regret[method][n][s] / t->regret[other][n][s]);
    return most;
}

static void say(world *w, const char *what, const char *const said[NOISES], const table *t,
                int method)
{
    char text[200], reference[120];
    for (int n = 0; n < NOISES; n++) {
        snprintf(text, sizeof text, "%s, sigma %g, T = 8000 (500: %.1f, 2000: %.1f)", what,
                 noises[n], t->regret[method][n][0], t->regret[method][n][1]);
        snprintf(reference, sizeof reference, "no experiments (NumPy: %s)", said[n]);
        claim(w->r, text, reference, t->regret[method][n][2], "", no_bar());
    }
}

static void draw(world *w, const char *title, const table *t, int noise)
{
    static const char *const names[] = { "optimistic", "descent, D / (G sqrt T)",
                                         "descent, D / (G sqrt t)", "ensemble" };
    double x[SIZES], y[SIZES];
    figure(w->r, title, "rounds", "regret", FIGURE_LOG_X | FIGURE_LOG_Y);
    for (int m = 0; m < METHODS; m++) {
        for (int s = 0; s < SIZES; s++) x[s] = sizes[s], y[s] = t->regret[m][noise][s];
        series(w->r, names[m], SIZES, x, y);
    }
}

static void fixed_direction(world *w)
{
    static const char *const said[] = { "1.0 / 1.0 / 1.0", "1.9 / 3.5 / 7.3",
                                        "8.2 / 16.8 / 33.2", "31 / 61 / 125" };
    static const char *const other[] = { "6.1 / 11.7 / 22.9", "7.9 / 15.2 / 29.9",
                                         "15.6 / 30.6 / 61.0", "47 / 93 / 184" };
    table t;
    linear(w, 1, &t);
    const double(*o)[SIZES] = t.regret[OPTIMISTIC];
    say(w, "fixed direction, optimistic", said, &t, OPTIMISTIC);
    say(w, "fixed direction, descent with D/(G sqrt T)", other, &t, WORST_CASE);
    claim(w->r, "no noise: regret of 8000 rounds by that of 500", "constant", o[0][2] / o[0][0],
          "x", at_most(1.5));
    claim(w->r, "sigma 0.5: regret of 8000 rounds by that of 2000", "sqrt(4)",
          o[2][2] / o[2][1], "x", between(1.6, 2.4));
    claim(w->r, "T = 8000: regret at sigma 2 by that at 0.5", "4", o[3][2] / o[2][2], "x",
          no_bar());
    claim(w->r, "optimistic by the worst-case step, largest of 12", "below 1",
          largest(&t, OPTIMISTIC, WORST_CASE), "x", at_most(1));
    draw(w, "Fixed direction, sigma 0.5", &t, 2);
}

static void moving_direction(world *w)
{
    static const char *const said[] = { "39 / 39 / 39", "44 / 53 / 80", "101 / 179 / 356",
                                        "272 / 655 / 1406" };
    static const char *const ensemble[] = { "35 / 35 / 35", "31 / 34 / 48", "58 / 108 / 210",
                                            "196 / 388 / 795" };
    static const char *const constant[] = { "187 / 364 / 714", "232 / 469 / 924",
                                            "343 / 858 / 1772", "414 / 1494 / 4461" };
    table t;
    linear(w, CHANGES, &t);
    say(w, "20 directions, optimistic", said, &t, OPTIMISTIC);
    say(w, "20 directions, ensemble", ensemble, &t, ENSEMBLE);
    say(w, "20 directions, descent with D/(G sqrt T)", constant, &t, WORST_CASE);
    claim(w->r, "ensemble by optimistic, largest of 12", "below 1",
          largest(&t, ENSEMBLE, OPTIMISTIC), "x", at_most(1));
    claim(w->r, "optimistic by descent with D/(G sqrt T), largest of 12", "below 1",
          largest(&t, OPTIMISTIC, WORST_CASE), "x", at_most(1));
    claim(w->r, "optimistic by descent with D/(G sqrt t), largest of 12", "below 1",
          largest(&t, OPTIMISTIC, DECREASING), "x", at_most(1));
    claim(w->r, "no noise, optimistic: regret of 8000 rounds by that of 500",
          "only changes count", t.regret[OPTIMISTIC][0][2] / t.regret[OPTIMISTIC][0][0], "x",
          between(0.8, 1.25));
    claim(w->r, "no noise, ensemble: regret of 8000 rounds by that of 500",
          "only changes count", t.regret[ENSEMBLE][0][2] / t.regret[ENSEMBLE][0][0], "x",
          between(0.8, 1.25));
    draw(w, "20 directions, sigma 0.5", &t, 2);
}

/* ---- Strongly convex losses ------------------------------------------------------------- */

static double curved_seed(world *w, uint64_t seed, int rounds, double sigma)
{
    rng random = rng_seed(seed);
    slg_omd_opts o;
    slg_learner *l;
    double x[CURVED], c[CURVED], length = 0, regret = 0;
    slg_tensor xt = slg_tensor_1d(x, SLG_F64, CURVED);
    slg_tensor gt = slg_tensor_1d(w->g, SLG_F32, CURVED);
    for (int i = 0; i < CURVED; i++) c[i] = rng_normal(&random, 0, 1), length += c[i] * c[i];
    for (int i = 0; i < CURVED; i++) c[i] *= 0.7 / sqrt(length);
    slg_omd_opts_init(&o, sizeof o);
    o.mode = SLG_OMD_STRONGLY_CONVEX, o.lambda = 0.5;
    must(w->r, w->ctx, slg_learner_create(w->ctx, SLG_OMD, CURVED, &o, &l));
    for (int t = 0; t < rounds; t++) {
        must(w->r, w->ctx, slg_learner_decide(l, NULL, &xt));
        for (int i = 0; i < CURVED; i++) {
            const double a = 0.5 + 0.5 * i / (CURVED - 1), e = x[i] - c[i];
            regret += a * e * e / 2;
            w->g[i] = (float)(a * e + rng_normal(&random, 0, sigma / sqrt(CURVED)));
        }
        must(w->r, w->ctx, slg_learner_observe(l, NULL, &gt));
    }
    slg_learner_free(l);
    return regret;
}

static void strongly_convex(world *w)
{
    static const double sigmas[] = { 0, 0.5, 2 };
    static const char *const said[] = { "0.92 / 0.92 / 0.92", "3.89 / 4.35 / 4.72",
                                        "27.4 / 34.7 / 40.7" };
    double regret[3][SIZES] = { 0 };
    char text[120], reference[120];
    const int seeds = 4 * w->seeds;
    for (int n = 0; n < 3; n++) {
        for (int s = 0; s < SIZES; s++)
            for (int seed = 0; seed < seeds; seed++)
                regret[n][s] += curved_seed(w, (uint64_t)seed, sizes[s], sigmas[n]) / seeds;
        snprintf(text, sizeof text,
                 "strongly convex, sigma %g, T = 8000 (500: %.2f, 2000: %.2f)", sigmas[n],
                 regret[n][0], regret[n][1]);
        snprintf(reference, sizeof reference, "no experiments (NumPy: %s)", said[n]);
        claim(w->r, text, reference, regret[n][2], "", no_bar());
    }
    const double late = regret[2][2] - regret[2][1], early = regret[2][1] - regret[2][0];
    claim(w->r, "strongly convex, no noise: regret of 8000 rounds by that of 500", "constant",
          regret[0][2] / regret[0][0], "x", at_most(1.01));
    claim(w->r, "sigma 2: growth from 2000 to 8000 by that from 500 to 2000", "1 (log T)",
          late / early, "x", between(0.5, 1.5));
    claim(w->r, "growth from 500 to 8000 rounds at sigma 2 by that at 0.5", "16 (sigma^2)",
          (late + early) / (regret[1][2] - regret[1][0]), "x", between(11, 22));
}

static void run(run_t *r)
{
    world w = { .r = r, .ctx = run_ctx(r, SLG_ISA_AUTO, 1), .seeds = run_quick(r) ? 2 : 8 };
    fixed_direction(&w);
    moving_direction(&w);
    strongly_convex(&w);
    note(r, "means of %d seeds (strongly convex: %d); the NumPy figures are means of 2",
         w.seeds, 4 * w.seeds);
}

const paper paper_29_optimistic_omd = {
    29, "optimistic-omd",
    "Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online Convex "
    "Optimization",
    run
};
