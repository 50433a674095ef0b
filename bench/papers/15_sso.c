/*
 * 15 - Target-based Surrogates for Stochastic Optimization (2023).
 *
 * A linear softmax model of the 8x8 digits with 250 gradients of the loss in the space of
 * logits, which are what is expensive: how far does the loss fall with the number of cheap
 * steps on each surrogate, and with descent, which takes one? The paper's own figures are
 * curves; what it claims is their order.
 */
#include "papers.h"

enum { ROWS = 1797, PIXELS = 64, D = PIXELS + 1, CLASSES = 10, CALLS = 250, BATCH = 125 };
enum { SEEDS = 3, FULL_CALLS = 100 };

typedef struct world {
    run_t *r;
    slg_ctx *ctx;
    float *x;
    int32_t *y;
    slg_tensor tx, ty;
    slg_target_model model;
    slg_target_oracle oracle;
    int seeds;
} world;

static void read_digits(world *w)
{
    csv t = csv_read(w->r, "digits.csv.gz", ',');
    if (t.rows != ROWS || t.cols != PIXELS + 1)
        run_fail(w->r, "digits: %zu rows of %zu", t.rows, t.cols);
    w->x = run_floats(w->r, (size_t)ROWS * D), w->y = run_memory(w->r, ROWS * sizeof *w->y);
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t k = 0; k < PIXELS; k++)
            w->x[i * D + k] = (float)(csv_number(&t, i, k) / 16);
        w->x[i * D + PIXELS] = 1;
        w->y[i] = (int32_t)csv_number(&t, i, PIXELS);
    }
    w->tx = slg_tensor_2d(w->x, SLG_F32, ROWS, D), w->ty = slg_tensor_1d(w->y, SLG_I32, ROWS);
}

/* Mean loss over all rows. */
static double mean_loss(world *w, const float *theta)
{
    static float z[ROWS * CLASSES];
    const slg_tensor tz = slg_tensor_2d(z, SLG_F32, ROWS, CLASSES);
    int64_t all[ROWS];
    double loss;
    for (int i = 0; i < ROWS; i++) all[i] = i;
    must(w->r, w->ctx, w->model.begin(w->model.user, ROWS, all));
    must(w->r, w->ctx, w->model.forward(w->model.user, theta, z));
    must(w->r, w->ctx, slg_target_loss(w->ctx, SLG_TARGET_SOFTMAX, &tz, &w->ty, &loss, NULL));
    return loss / ROWS;
}

/* The loss after so many oracle calls from 0. */
static double train(world *w, slg_sso_opts o, int calls, uint64_t seed)
{
    float theta[D * CLASSES] = { 0 };
    slg_tensor tw = slg_tensor_2d(theta, SLG_F32, D, CLASSES);
    slg_sso_report r = { .size = sizeof r };
    slg_sso *s;
    o.seed = seed;
    must(w->r, w->ctx, slg_sso_create(w->ctx, &w->model, &w->oracle, &o, &s));
    for (int t = 0; t < calls; t++) must(w->r, w->ctx, slg_sso_step(s, &tw, &r));
    slg_sso_free(s);
    if (r.oracle_calls != calls) run_fail(w->r, "%d calls", (int)r.oracle_calls);
    return mean_loss(w, theta);
}

static double average(world *w, slg_sso_opts o)
{
    double sum = 0;
    for (int s = 0; s < w->seeds; s++) sum += train(w, o, CALLS, (uint64_t)s) / w->seeds;
    return sum;
}

static slg_sso_opts surrogate(int32_t steps)
{
    slg_sso_opts o;
    slg_sso_opts_init(&o, sizeof o);
    o.inner_steps = steps, o.batch = BATCH;
    return o;
}

/* A fixed step on a surrogate is one of descent on the loss. */
static slg_sso_opts descent(double step)
{
    slg_sso_opts o = surrogate(1);
    o.inner = SLG_INNER_FIXED, o.step = step;
    return o;
}

static double baselines(world *w)
{
    static const struct {
        double step;
        const char *what, *said;
    } rows[] = {
        { 0.3, "descent, step 0.3 (about 1.5 / L): loss", "(expected: 0.324)" },
        { 3, "descent, step 3", "(expected: 0.107)" },
        { 10, "descent, step 10, the best of a grid", "(expected: 0.060)" },
    };
    double last = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        last = average(w, descent(rows[i].step));
        claim(w->r, rows[i].what, rows[i].said, last, "nats", no_bar());
    }
    return last;
}

static void surrogates(world *w, double best_descent)
{
    static const int steps[] = { 1, 5, 10, 20, 100 };
    static const char *const said[] = { "0.306", "0.140", "0.107", "0.083", "0.054" };
    double loss[5], at[5], rise = 0;
    char what[96], reference[64];
    for (int i = 0; i < 5; i++) {
        loss[i] = average(w, surrogate(steps[i])), at[i] = steps[i];
        if (i > 0) rise = fmax(rise, loss[i] / loss[i - 1]);
        snprintf(what, sizeof what, "surrogates, %d inner steps, nothing tuned", steps[i]);
        snprintf(reference, sizeof reference, "(expected: %s)", said[i]);
        claim(w->r, what, reference, loss[i], "nats",
              steps[i] == 100 ? at_most(0.07) : no_bar());
    }
    claim(w->r, "20 inner steps against 1", "falls with m (expected: 0.27)", loss[3] / loss[0],
          "x", at_most(0.5));
    claim(w->r, "loss against that of fewer inner steps, at most", "falls with m", rise, "x",
          at_most(0.95));
    claim(w->r, "100 inner steps against the best descent of a grid", "below it (0.90)",
          loss[4] / best_descent, "x", at_most(1));
    slg_sso_opts o = surrogate(20);
    o.eta = 8;
    claim(w->r, "20 inner steps, eta = 8", "(expected: 0.039)", average(w, o), "nats",
          at_most(0.05));
    figure(w->r, "Loss after 250 gradients", "steps on each surrogate", "mean cross-entropy",
           FIGURE_LOG_X | FIGURE_LOG_Y);
    series(w->r, "surrogates, eta = 1 / L", 5, at, loss);
}

/* What the library has beside the paper's rule. */
static void variants(world *w)
{
    slg_sso_opts o = surrogate(20);
    o.inner = SLG_INNER_CONJUGATE;
    claim(w->r, "20 inner steps of conjugate gradients", "", average(w, o), "nats", no_bar());
    o = surrogate(20), o.schedule = SLG_ETA_SEARCH;
    claim(w->r, "20 inner steps, eta searched in the target space", "", average(w, o), "nats",
          no_bar());
    o = surrogate(20), o.surrogate = SLG_SURROGATE_KL;
    claim(w->r, "20 inner steps, KL instead of the square", "", average(w, o), "nats",
          no_bar());
}

/* 1 / L of the loss in the parameters: of X'X / (2 n), by the power method. */
static double descent_step(const world *w)
{
    double v[D], u[D], norm = 0;
    for (int k = 0; k < D; k++) v[k] = 1;
    for (int t = 0; t < 60; t++) {
        memset(u, 0, sizeof u);
        for (int i = 0; i < ROWS; i++) {
            double z = 0;
            for (int k = 0; k < D; k++) z += (double)w->x[i * D + k] * v[k];
            for (int k = 0; k < D; k++) u[k] += z * (double)w->x[i * D + k] / (2 * ROWS);
        }
        norm = 0;
        for (int k = 0; k < D; k++) norm += u[k] * u[k];
        norm = sqrt(norm);
        for (int k = 0; k < D; k++) v[k] = u[k] / norm;
    }
    return 1 / norm;
}

static void full_batch(world *w)
{
    slg_sso_opts o = descent(descent_step(w));
    o.batch = 0;
    claim(w->r, "all rows, 100 gradients: descent at 1 / L", "(expected: 0.798)",
          train(w, o, FULL_CALLS, 0), "nats", no_bar());
    o = surrogate(20), o.batch = 0;
    claim(w->r, "all rows: surrogates, 20 inner steps", "(expected: 0.126)",
          train(w, o, FULL_CALLS, 0), "nats", at_most(0.2));
    if (run_quick(w->r)) return;
    o.inner_steps = 100;
    claim(w->r, "all rows: surrogates, 100 inner steps", "(expected: 0.084)",
          train(w, o, FULL_CALLS, 0), "nats", at_most(0.126));
}

static void run(run_t *r)
{
    world w = { .r = r, .ctx = run_ctx(r, SLG_ISA_AUTO, 1) };
    w.seeds = run_quick(r) ? 1 : SEEDS;
    read_digits(&w);
    slg_target_model_init(&w.model, sizeof w.model);
    slg_target_oracle_init(&w.oracle, sizeof w.oracle);
    must(r, w.ctx, slg_linear_model(w.ctx, &w.tx, CLASSES, &w.model));
    must(r, w.ctx, slg_loss_oracle(w.ctx, SLG_TARGET_SOFTMAX, &w.ty, CLASSES, &w.oracle));
    surrogates(&w, baselines(&w));
    variants(&w);
    full_batch(&w);
    slg_target_model_free(&w.model), slg_target_oracle_free(&w.oracle);
}

const paper paper_15_sso = { 15, "sso", "Target-based Surrogates for Stochastic Optimization",
                             run };
