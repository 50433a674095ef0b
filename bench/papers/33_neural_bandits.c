/*
 * 33 - Contextual Bandits with Online Neural Regression (2023, at ICLR 2024).
 *
 * The digits as a bandit: ten arms, a cost of 1 for an arm that is not the class, T rounds in a
 * random order (twice through the data). A network of width 100 for each arm, one step of
 * regression on the arm that was pulled. Total cost is regret: the best policy costs nothing.
 * Inverse gap weighting against uniform and epsilon-greedy choices of the same networks.
 */
#include "papers.h"

enum { ROWS = 1797, PIXELS = 64, ARMS = 10, WIDTH = 100, METHODS = 9, MOST_SEEDS = 12 };
enum {
    UNIFORM,
    GREEDY_SQUARE,
    GREEDY_KL,
    SQUARE,
    FAST,
    SQUARE_PERTURBED,
    FAST_PERTURBED,
    SQUARE_LESS,
    FAST_LESS
};

static const struct method {
    const char *name, *said;
    int32_t rule;
    double epsilon; /* < 0: inverse gap weighting */
    double step, c_p;
} methods[METHODS] = {
    { "uniform", "3231", SLG_GAP_SQUARE, 1, 2, 0 },
    { "epsilon-greedy 0.05, squared loss", "1349 / 1367 / 1355", SLG_GAP_SQUARE, 0.05, 2, 0 },
    { "epsilon-greedy 0.02, KL loss", "932 / 700 / 721", SLG_GAP_FIRST_ORDER, 0.02, 20, 0 },
    { "NeuSquareCB", "1194 / 1346 / 1179", SLG_GAP_SQUARE, -1, 2, 0 },
    { "NeuFastCB", "762 / 691 / 664", SLG_GAP_FIRST_ORDER, -1, 10, 0 },
    { "NeuSquareCB, perturbed (c_p 0.01, S 2)", "1198 / 1189 / 1268", SLG_GAP_SQUARE, -1, 2,
      0.01 },
    { "NeuFastCB, perturbed (c_p 0.01, S 2)", "710 / 750 / 623", SLG_GAP_FIRST_ORDER, -1, 10,
      0.01 },
    { "NeuSquareCB, perturbed (c_p 0.003, S 2)", "-", SLG_GAP_SQUARE, -1, 2, 0.003 },
    { "NeuFastCB, perturbed (c_p 0.003, S 2)", "-", SLG_GAP_FIRST_ORDER, -1, 10, 0.003 },
};

typedef struct world {
    run_t *r;
    slg_ctx *ctx;
    float *x; /* [ROWS, PIXELS], rows of length 1 */
    int32_t *label;
    int rounds, seeds;
    int64_t *order;
    double *curve[METHODS]; /* cost so far, of seed 0 */
} world;

static void read_data(world *w)
{
    const csv t = csv_read(w->r, "digits.csv.gz", ',');
    if (t.rows < ROWS || t.cols < PIXELS + 1)
        run_fail(w->r, "digits.csv.gz is %zu x %zu", t.rows, t.cols);
    w->x = run_floats(w->r, ROWS * PIXELS);
    w->label = run_memory(w->r, ROWS * sizeof *w->label);
    for (size_t i = 0; i < ROWS; i++) {
        double length = 0;
        float *x = w->x + i * PIXELS;
        for (size_t j = 0; j < PIXELS; j++) length += pow(csv_number(&t, i, j), 2);
        for (size_t j = 0; j < PIXELS; j++) x[j] = (float)(csv_number(&t, i, j) / sqrt(length));
        w->label[i] = (int32_t)csv_number(&t, i, PIXELS);
    }
}

static slg_bandit *bandit(world *w, const struct method *m, int seed)
{
    slg_bandit_opts o;
    slg_bandit *b;
    slg_bandit_opts_init(&o, sizeof o);
    o.rule = m->rule, o.step = m->step, o.c_p = m->c_p, o.width = WIDTH, o.gamma = 100;
    o.seed = (uint64_t)seed;
    must(w->r, w->ctx, slg_bandit_create(w->ctx, ARMS, PIXELS, NULL, &o, &b));
    return b;
}

/* Both passes in an order of their own, the same for all methods of a seed. */
static void shuffle(world *w, int seed)
{
    rng g = rng_seed(33 + (uint64_t)seed);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < ROWS; i++) w->order[pass * ROWS + i] = i;
        rng_shuffle(&g, ROWS, w->order + pass * ROWS);
    }
}

static int64_t pull(world *w, slg_bandit *b, const struct method *m, const slg_tensor *x,
                    rng *g)
{
    double cost[ARMS];
    int64_t arm = 0;
    slg_tensor t = slg_tensor_1d(cost, SLG_F64, ARMS);
    if (m->epsilon < 0) {
        must(w->r, w->ctx, slg_bandit_choose(b, x, NULL, NULL, &arm, NULL, NULL));
        return arm;
    }
    if (rng_uniform(g, 0, 1) < m->epsilon) return rng_below(g, ARMS);
    must(w->r, w->ctx, slg_bandit_choose(b, x, NULL, NULL, NULL, &t, NULL));
    for (int64_t a = 1; a < ARMS; a++) arm = cost[a] < cost[arm] ? a : arm;
    return arm;
}

static double play(world *w, int method, int seed)
{
    const struct method *m = &methods[method];
    slg_bandit *b = bandit(w, m, seed);
    slg_bandit_info_t info;
    rng g = rng_seed(1000 + (uint64_t)seed);
    double cost = 0;
    shuffle(w, seed);
    for (int t = 0; t < w->rounds; t++) {
        const int64_t i = w->order[t];
        const slg_tensor x = slg_tensor_1d(w->x + i * PIXELS, SLG_F32, PIXELS);
        const int64_t arm = pull(w, b, m, &x, &g);
        const double one = w->label[i] != arm;
        cost += one;
        if (method != UNIFORM) must(w->r, w->ctx, slg_bandit_observe(b, &x, arm, one));
        if (seed == 0) w->curve[method][t] = cost;
    }
    slg_bandit_info_init(&info, sizeof info);
    must(w->r, w->ctx, slg_bandit_info(b, &info));
    if (method != UNIFORM && info.cost != cost)
        run_fail(w->r, "the bandit counted %g, not %g", info.cost, cost);
    slg_bandit_free(b);
    return cost;
}

/*
 * A step of the squared loss moves a shift by step c_p^2 p / (S sqrt(width)) of its residual:
 * 0.64 of it with c_p 0.01, 0.06 with 0.003, but 64 with 0.1, which is no descent any more.
 * Rounds until a step leaves float32; all of them if none does.
 */
static double last_round(world *w, int seed)
{
    struct method m = methods[SQUARE];
    m.c_p = 0.1;
    slg_bandit *b = bandit(w, &m, seed);
    slg_status status = SLG_OK;
    int t = 0;
    shuffle(w, seed);
    while (status == SLG_OK && t < w->rounds) {
        const int64_t i = w->order[t];
        const slg_tensor x = slg_tensor_1d(w->x + i * PIXELS, SLG_F32, PIXELS);
        int64_t arm;
        status = slg_bandit_choose(b, &x, NULL, NULL, &arm, NULL, NULL);
        if (status == SLG_OK) status = slg_bandit_observe(b, &x, arm, w->label[i] != arm);
        t += status == SLG_OK;
    }
    if (status != SLG_ERR_RANGE) must(w->r, w->ctx, status);
    slg_bandit_free(b);
    return t;
}

static void too_much(world *w)
{
    double rounds = 0;
    for (int seed = 0; seed < w->seeds; seed++) rounds = fmax(rounds, last_round(w, seed));
    claim(w->r, "NeuSquareCB, c_p 0.1: rounds until steps leave float32, at most",
          "suitable small c_p (NumPy: cost 2315 to 2538)", rounds, "", at_most(w->rounds - 1));
}

static void draw(world *w)
{
    enum { POINTS = 60 };
    static const int shown[] = { GREEDY_SQUARE, GREEDY_KL, SQUARE, FAST, FAST_PERTURBED };
    double x[POINTS], y[POINTS];
    figure(w->r, "Cost so far, digits, seed 0", "rounds", "cost", 0);
    for (size_t m = 0; m < sizeof shown / sizeof *shown; m++) {
        for (int i = 0; i < POINTS; i++) {
            const int at = (i + 1) * w->rounds / POINTS - 1;
            x[i] = at + 1, y[i] = w->curve[shown[m]][at];
        }
        series(w->r, methods[shown[m]].name, POINTS, x, y);
    }
}

static void compare(world *w, const double *mean)
{
    claim(w->r, "NeuFastCB by NeuSquareCB", "best", mean[FAST] / mean[SQUARE], "x",
          at_most(0.75));
    claim(w->r, "NeuFastCB by epsilon-greedy, squared loss", "best",
          mean[FAST] / mean[GREEDY_SQUARE], "x", at_most(0.7));
    claim(w->r, "NeuSquareCB by epsilon-greedy, squared loss", "below 1",
          mean[SQUARE] / mean[GREEDY_SQUARE], "x", at_most(1));
    claim(w->r, "NeuFastCB by epsilon-greedy, KL loss", "below 1 (0.90 of three seeds)",
          mean[FAST] / mean[GREEDY_KL], "x", w->seeds >= 5 ? at_most(1) : no_bar());
    const int perturbed[] = { FAST_PERTURBED, SQUARE_PERTURBED, FAST_LESS, SQUARE_LESS };
    for (int i = 0; i < 4; i++) {
        char what[120];
        const int without = i % 2 ? SQUARE : FAST;
        snprintf(what, sizeof what, "%s by the same without", methods[perturbed[i]].name);
        claim(w->r, what, i < 2 ? "1 (0.98)" : "1", mean[perturbed[i]] / mean[without], "x",
              at_most(1.1));
    }
}

static void run(run_t *r)
{
    world w = { .r = r,
                .ctx = run_ctx(r, SLG_ISA_AUTO, 1),
                .rounds = 2 * ROWS,
                .seeds = run_quick(r) ? 2 : MOST_SEEDS };
    double mean[METHODS] = { 0 };
    char what[160], said[80];
    read_data(&w);
    w.order = run_memory(r, 2 * ROWS * sizeof *w.order);
    for (int m = 0; m < METHODS; m++) {
        double square = 0;
        w.curve[m] = run_doubles(r, 2 * ROWS);
        for (int seed = 0; seed < w.seeds; seed++) {
            const double cost = play(&w, m, seed);
            mean[m] += cost / w.seeds, square += cost * cost / w.seeds;
        }
        const double spread = sqrt(fmax(0, square - mean[m] * mean[m]));
        snprintf(what, sizeof what, "%s: total cost, mean of %d seeds (sd %.0f)",
                 methods[m].name, w.seeds, spread);
        snprintf(said, sizeof said, "curves (NumPy: %s)", methods[m].said);
        claim(r, what, said, mean[m], "", no_bar());
    }
    compare(&w, mean);
    too_much(&w);
    draw(&w);
}

const paper paper_33_neural_bandits = { 33, "neural-bandits",
                                        "Contextual Bandits with Online Neural Regression",
                                        run };
