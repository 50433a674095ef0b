/*
 * 40 - The Closeness of In-Context Learning and Weight Shifting for Softmax Regression (2023).
 *
 * Tasks of softmax regression with 20 rows of context and 20 of query. A head of softmax
 * attention is trained over many tasks to predict the queries' distribution; it is compared
 * with one step of descent from 0, which is done on each task by itself. Then the bounds: what
 * a move of the weights, and the change of data with the same effect, may do to a prediction.
 */
#include "papers.h"

enum { D = 5, N = 20, M = 20, BATCH = 256, HELD = 4096, WEIGHTS = D * D + 1 };

/* Tasks and what is computed of them. */
typedef struct tasks {
    int64_t count;
    double *a, *b, *c; /* [count, N, D], [count, N], [count, M, D]: context, target, queries */
    float *target;     /* [count, M]: softmax(c x*) */
    float *scores, *prob; /* [count, M] */
    float *gd_scores, *gd_prob;
    double *gd_x;   /* [count, D] */
    float *dscores; /* [count, M] */
    double *slope;  /* [count, M, D] */
} tasks;

typedef struct world {
    run_t *r;
    slg_ctx *ctx;
    rng g;
    float w[WEIGHTS], dw[WEIGHTS]; /* Q and p */
    double eta, uniform;
} world;

static tasks tasks_new(run_t *r, int64_t count)
{
    const size_t k = (size_t)count;
    return (tasks){ count,
                    run_doubles(r, k * N * D),
                    run_doubles(r, k * N),
                    run_doubles(r, k * M * D),
                    run_floats(r, k * M),
                    run_floats(r, k * M),
                    run_floats(r, k * M),
                    run_floats(r, k * M),
                    run_floats(r, k * M),
                    run_doubles(r, k * D),
                    run_floats(r, k * M),
                    run_doubles(r, k * M * D) };
}

/* n rows in [-1, 1], and softmax(rows x). */
static void draw_rows(rng *g, int n, const double *x, double *rows, double *p)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double z = 0;
        for (int j = 0; j < D; j++) z += (rows[i * D + j] = rng_uniform(g, -1, 1)) * x[j];
        sum += p[i] = exp(z);
    }
    for (int i = 0; i < n; i++) p[i] /= sum;
}

static void draw(world *w, tasks *t)
{
    for (int64_t k = 0; k < t->count; k++) {
        double x[D], p[M];
        for (int j = 0; j < D; j++) x[j] = rng_normal(&w->g, 0, 1);
        draw_rows(&w->g, N, x, t->a + k * N * D, t->b + k * N);
        draw_rows(&w->g, M, x, t->c + k * M * D, p);
        for (int i = 0; i < M; i++) t->target[k * M + i] = (float)p[i];
    }
}

static slg_tensor tensor_3d(void *data, int32_t type, int64_t n0, int64_t n1, int64_t n2)
{
    slg_tensor t = { data, type, 3, { n0, n1, n2, 1 }, { n1 * n2, n2, 1, 1 } };
    return t;
}

/* The layer, forward: t->scores; with a gradient, t->dscores (or ones for `slope`) back to
   dw. */
typedef enum pass { FORWARD, BACKWARD, SLOPES } pass;

static void attend(world *w, tasks *t, pass what)
{
    slg_tensor a = tensor_3d(t->a, SLG_F64, t->count, N, D),
               c = tensor_3d(t->c, SLG_F64, t->count, M, D);
    slg_tensor b = slg_tensor_2d(t->b, SLG_F64, t->count, N);
    slg_tensor q = slg_tensor_2d(w->w, SLG_F32, D, D),
               p = slg_tensor_1d(w->w + D * D, SLG_F32, 1);
    slg_tensor dq = slg_tensor_2d(w->dw, SLG_F32, D, D),
               dp = slg_tensor_1d(w->dw + D * D, SLG_F32, 1);
    slg_tensor ds = slg_tensor_2d(t->dscores, SLG_F32, t->count, M);
    slg_tensor scores = slg_tensor_2d(t->scores, SLG_F32, t->count, M);
    slg_tensor slope = tensor_3d(t->slope, SLG_F64, t->count, M, D);
    slg_attention_step_out o;
    slg_attention_step_out_init(&o, sizeof o);
    if (what == FORWARD) o.scores = &scores;
    if (what == BACKWARD) o.dq = &dq, o.dp = &dp;
    if (what == SLOPES) {
        o.dqueries = &slope;
        for (int64_t i = 0; i < t->count * M; i++) t->dscores[i] = 1;
    }
    must(
        w->r, w->ctx,
        slg_attention_step(w->ctx, &a, &b, &c, &q, &p, what == FORWARD ? NULL : &ds, NULL, &o));
}

/* One step of descent on each task. */
static void descend(world *w, tasks *t, double eta)
{
    slg_tensor a = tensor_3d(t->a, SLG_F64, t->count, N, D),
               c = tensor_3d(t->c, SLG_F64, t->count, M, D);
    slg_tensor b = slg_tensor_2d(t->b, SLG_F64, t->count, N),
               p = slg_tensor_1d(w->w + D * D, SLG_F32, 1);
    slg_tensor x = slg_tensor_2d(t->gd_x, SLG_F64, t->count, D);
    slg_tensor scores = slg_tensor_2d(t->gd_scores, SLG_F32, t->count, M);
    slg_attention_step_opts opts;
    slg_attention_step_out o;
    slg_attention_step_opts_init(&opts, sizeof opts);
    slg_attention_step_out_init(&o, sizeof o);
    opts.step = eta;
    o.step_x = &x, o.step_scores = &scores;
    must(w->r, w->ctx, slg_attention_step(w->ctx, &a, &b, &c, NULL, &p, NULL, &opts, &o));
}

/* Mean loss of the queries; prob and gradient where not NULL. */
static double loss(world *w, tasks *t, float *scores, float *prob, float *dscores)
{
    slg_tensor z = slg_tensor_2d(scores, SLG_F32, t->count, M);
    slg_tensor y = slg_tensor_2d(t->target, SLG_F32, t->count, M);
    slg_tensor p = slg_tensor_2d(prob, SLG_F32, t->count, M);
    slg_tensor d = slg_tensor_2d(dscores, SLG_F32, t->count, M);
    const slg_logits l = slg_logits_dense(&z);
    const slg_targets to = slg_targets_prob(&y);
    slg_logits_grad g = slg_grad_dense(&d);
    slg_loss_out out = slg_loss_out_none();
    slg_squared_softmax_opts o;
    slg_squared_softmax_opts_init(&o, sizeof o);
    if (prob) o.prob = &p;
    must(w->r, w->ctx, slg_squared_softmax(w->ctx, &l, &to, &o, &out, dscores ? &g : NULL));
    return out.value;
}

static double best_eta(world *w)
{
    tasks t = tasks_new(w->r, HELD);
    double best = 0, least = INFINITY;
    draw(w, &t);
    for (double eta = 0.1; eta < 2000; eta *= 2) {
        descend(w, &t, eta);
        const double l = loss(w, &t, t.gd_scores, NULL, NULL);
        if (l < least) least = l, best = eta;
    }
    return best;
}

typedef struct closeness {
    double difference, cosine, loss;
} closeness;

static closeness compare(world *w, tasks *t)
{
    closeness c = { 0 };
    attend(w, t, FORWARD);
    c.loss = loss(w, t, t->scores, t->prob, NULL);
    attend(w, t, SLOPES);
    for (int64_t k = 0; k < t->count; k++) {
        const double *x = t->gd_x + k * D;
        double square = 0, cosine = 0, xx = 0;
        for (int j = 0; j < D; j++) xx += x[j] * x[j];
        for (int i = 0; i < M; i++) {
            const double *s = t->slope + (k * M + i) * D;
            double e = (double)(t->prob[k * M + i] - t->gd_prob[k * M + i]), sx = 0, ss = 0;
            square += e * e;
            for (int j = 0; j < D; j++) sx += s[j] * x[j], ss += s[j] * s[j];
            cosine += sx / sqrt(ss * xx);
        }
        c.difference += sqrt(square) / (double)t->count;
        c.cosine += cosine / (double)(M * t->count);
    }
    return c;
}

static void train_step(world *w, tasks *t, slg_optimizer *opt)
{
    slg_tensor tw = slg_tensor_1d(w->w, SLG_F32, WEIGHTS),
               td = slg_tensor_1d(w->dw, SLG_F32, WEIGHTS);
    draw(w, t);
    attend(w, t, FORWARD);
    loss(w, t, t->scores, NULL, t->dscores);
    attend(w, t, BACKWARD);
    for (int i = 0; i < WEIGHTS; i++) w->dw[i] *= 100;
    must(w->r, w->ctx, slg_optimizer_step(opt, &tw, &td));
}

static void claim_step(world *w, int step, const closeness *c)
{
    static const struct {
        int step;
        const char *difference, *cosine, *loss;
    } said[] = {
        { 0, "0.202", "0.178", "0.0411" },
        { 50, "0.075", "0.970", "0.0212" },
        { 500, "0.043", "0.987", "0.0186" },
        { 1500, "0.036", "0.990", "0.0176" },
    };
    char what[120], reference[80];
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        if (said[i].step != step) continue;
        const bool barred = step == 500;
        snprintf(what, sizeof what, "step %d: attention and descent, prediction difference",
                 step);
        snprintf(reference, sizeof reference, "near 0 (expected: %s)", said[i].difference);
        claim(w->r, what, reference, c->difference, "", barred ? at_most(0.06) : no_bar());
        snprintf(what, sizeof what, "step %d: cosine of their models", step);
        snprintf(reference, sizeof reference, "near 1 (expected: %s)", said[i].cosine);
        claim(w->r, what, reference, c->cosine, "", barred ? at_least(0.97) : no_bar());
        snprintf(what, sizeof what, "step %d: attention's loss against a uniform prediction's",
                 step);
        snprintf(reference, sizeof reference, "(expected: %s / 0.0418)", said[i].loss);
        claim(w->r, what, reference, c->loss / w->uniform, "x",
              barred ? at_most(0.6) : no_bar());
    }
}

static void note_weights(world *w)
{
    double on = 0, off = 0;
    for (int i = 0; i < D * D; i++) {
        const double q = (double)w->w[i];
        if (i % (D + 1) == 0)
            on += q / D;
        else
            off += q * q / (D * D - D);
    }
    note(w->r, "Q: diagonal %.3f on average, the rest %.3f (root mean square); p = %.2f", on,
         sqrt(off), (double)w->w[D * D]);
}

static void train(world *w)
{
    static const int stops[] = { 0, 10, 20, 50, 100, 200, 500, 1000, 1500 };
    const int count = run_quick(w->r) ? 7 : 9;
    double at[9], difference[9], cosine[9];
    tasks held = tasks_new(w->r, HELD), batch = tasks_new(w->r, BATCH);
    slg_adamw_opts o;
    slg_optimizer *opt;
    draw(w, &held);
    descend(w, &held, w->eta);
    const double gd = loss(w, &held, held.gd_scores, held.gd_prob, NULL);
    memset(held.scores, 0, (size_t)(HELD * M) * sizeof *held.scores);
    w->uniform = loss(w, &held, held.scores, NULL, NULL);
    note(w->r, "unseen tasks: loss of one step of descent %.4f, of a uniform prediction %.4f",
         gd, w->uniform);
    slg_adamw_opts_init(&o, sizeof o);
    o.lr = 0.03, o.weight_decay = 0;
    must(w->r, w->ctx, slg_optimizer_create(w->ctx, SLG_ADAMW, WEIGHTS, &o, &opt));
    for (int i = 0, step = 0; i < count; i++) {
        for (; step < stops[i]; step++) train_step(w, &batch, opt);
        const closeness c = compare(w, &held);
        at[i] = step, difference[i] = c.difference, cosine[i] = c.cosine;
        claim_step(w, step, &c);
    }
    slg_optimizer_free(opt);
    note_weights(w);
    figure(w->r, "Attention against a step of descent", "steps of training", "", 0);
    series(w->r, "prediction difference", (size_t)count, at, difference);
    series(w->r, "cosine of models", (size_t)count, at, cosine);
}

/* Both bounds on random draws; the paper's wants small moves. */
static void bounds(world *w)
{
    enum { DRAWS = 2000, ROWS = 19, COLS = 5 };
    double a[ROWS * COLS], b[ROWS], x[COLS], y[COLS], target[ROWS], change[ROWS * COLS];
    double tight = 0, data = 0, theirs = 0, identity = 0, f[ROWS], f_new[ROWS];
    for (int k = 0; k < DRAWS; k++) {
        const int64_t n = 2 + rng_below(&w->g, 18), d = 1 + rng_below(&w->g, 5);
        const double size = pow(10, rng_uniform(&w->g, -4, 0.5));
        for (int i = 0; i < n * d; i++) a[i] = rng_normal(&w->g, 0, 1);
        for (int i = 0; i < n; i++) b[i] = rng_uniform(&w->g, 0, 1);
        for (int i = 0; i < d; i++)
            x[i] = rng_normal(&w->g, 0, 1), y[i] = x[i] + rng_normal(&w->g, 0, size);
        slg_tensor ta = slg_tensor_2d(a, SLG_F64, n, d), tb = slg_tensor_1d(b, SLG_F64, n);
        slg_tensor tx = slg_tensor_1d(x, SLG_F64, d), ty = slg_tensor_1d(y, SLG_F64, d);
        slg_tensor tt = slg_tensor_1d(target, SLG_F64, n),
                   tc = slg_tensor_2d(change, SLG_F64, n, d);
        slg_tensor tf = slg_tensor_1d(f, SLG_F64, n), tn = slg_tensor_1d(f_new, SLG_F64, n);
        slg_regression_shift_out o;
        slg_regression_shift_out_init(&o, sizeof o);
        o.implied_target = &tt, o.data_change = &tc, o.prob = &tf, o.prob_new = &tn;
        must(w->r, w->ctx, slg_regression_shift(w->ctx, &ta, &tb, &tx, &ty, NULL, &o));
        tight = fmax(tight, o.target_shift / (2 * o.weight_bound));
        data = fmax(data, o.target_shift / (2 * o.data_bound));
        if (o.small_move)
            theirs = fmax(theirs, fmax(o.target_shift / o.paper_weight_bound,
                                       o.target_shift / o.paper_data_bound));
        for (int i = 0; i < n; i++) {
            double z = 0, want = 0;
            for (int j = 0; j < d; j++) {
                z += (a[i * d + j] + change[i * d + j]) * x[j];
                want += a[i * d + j] * y[j];
            }
            identity = fmax(identity, fabs(f_new[i] - b[i] - (f[i] - target[i])));
            identity = fmax(identity, fabs(z - want));
        }
    }
    claim(w->r, "target's shift by (|A| times the weights' move), at most over 2000 draws",
          "at most M (expected: 1/2; 0.497 seen)", tight, "", at_most(0.5 + 1e-9));
    claim(w->r, "target's shift by (|x| times the data's change), at most",
          "at most M (expected: 1/2)", data, "", at_most(0.5 + 1e-9));
    claim(w->r, "small moves: target's shift by the paper's bounds, at most", "1", theirs, "",
          at_most(1));
    claim(w->r, "weight shift = implied target = data change: largest error", "exact", identity,
          "", at_most(1e-12));
}

static void run(run_t *r)
{
    world w = { .r = r, .ctx = run_ctx(r, SLG_ISA_AUTO, 0), .g = rng_seed(40) };
    for (int i = 0; i < D * D; i++) w.w[i] = (float)rng_normal(&w.g, 0, 0.1);
    w.w[D * D] = 1;
    bounds(&w);
    w.eta = best_eta(&w);
    note(r, "best step of descent: %.1f (expected: 51.2)", w.eta);
    train(&w);
}

const paper paper_40_softmax_regression = {
    40, "softmax-regression",
    "The Closeness of In-Context Learning and Weight Shifting for Softmax Regression", run
};
