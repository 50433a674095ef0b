/*
 * 11_stablemax_perpgrad.c - addition modulo p by a network of two hidden layers, full batch, no
 * regularisation. With softmax it learns the training pairs, collapses and stays there; with
 * StableMax, or with the perpendicular gradient, the held-out pairs follow.
 */
#include <cblas.h>

#include "papers.h"

enum { TENSORS = 3, POINTS = 32 };

typedef enum kind { STABLEMAX, SOFTMAX, SOFTMAX_ROUNDED, PLAIN, PERPENDICULAR, KINDS } kind;
static const char *const names[KINDS] = { "StableMax", "softmax, as the library has it",
                                          "softmax, rounded as in float32 frameworks",
                                          "plain gradient", "perpendicular gradient" };

/* p, width, how many of 100 pairs are for training; AdamW's rate and beta2. */
typedef struct setting {
    int p, hidden, percent, steps;
    double lr, beta2;
} setting;

typedef struct net {
    setting s;
    int in, pairs, train;
    int out_of[TENSORS], in_of[TENSORS];
    float *w[TENSORS], *dw[TENSORS]; /* [hidden, in], [hidden, hidden], [p, hidden] */
    float *x, *a, *b, *z, *da, *db;  /* one-hot pairs, layers, logits, gradients */
    int32_t *y;
} net;

static void gemm(bool ta, bool tb, int m, int n, int k, const float *a, const float *b,
                 float *c)
{
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                m, n, k, 1, a, ta ? m : k, b, tb ? k : n, 0, c, n);
}

static void relu(size_t n, float *x)
{
    for (size_t i = 0; i < n; i++) x[i] = x[i] > 0 ? x[i] : 0.0f;
}

static void relu_back(size_t n, const float *y, float *d)
{
    for (size_t i = 0; i < n; i++) d[i] = y[i] > 0 ? d[i] : 0.0f;
}

static float *floats(run_t *r, int rows, int cols)
{
    return run_floats(r, (size_t)rows * (size_t)cols);
}

static net make_net(run_t *r, const setting *s, rng *g)
{
    const int p = s->p, in = 2 * p, pairs = p * p, h = s->hidden;
    net t = { .s = *s,
              .in = in,
              .pairs = pairs,
              .train = pairs * s->percent / 100,
              .out_of = { h, h, p },
              .in_of = { in, h, h } };
    int64_t *order = run_memory(r, (size_t)pairs * sizeof *order);
    t.x = floats(r, pairs, in), t.z = floats(r, pairs, p);
    t.a = floats(r, pairs, h), t.b = floats(r, pairs, h);
    t.da = floats(r, pairs, h), t.db = floats(r, pairs, h);
    t.y = run_memory(r, (size_t)pairs * sizeof *t.y);
    for (int i = 0; i < pairs; i++) order[i] = i;
    rng_shuffle(g, (size_t)pairs, order);
    for (int i = 0; i < pairs; i++) {
        int64_t a = order[i] / p, b = order[i] % p;
        t.x[(int64_t)i * in + a] = t.x[(int64_t)i * in + p + b] = 1;
        t.y[i] = (int32_t)((a + b) % p);
    }
    for (int i = 0; i < TENSORS; i++) {
        double bound = 1 / sqrt(t.in_of[i]);
        t.w[i] = floats(r, t.out_of[i], t.in_of[i]);
        t.dw[i] = floats(r, t.out_of[i], t.in_of[i]);
        fill_uniform(g, (size_t)(t.out_of[i] * t.in_of[i]), t.w[i], -bound, bound);
    }
    return t;
}

static void forward(net *t, int from, int rows)
{
    const int h = t->s.hidden;
    gemm(false, true, rows, h, t->in, t->x + (int64_t)from * t->in, t->w[0], t->a);
    relu((size_t)(rows * h), t->a);
    gemm(false, true, rows, h, h, t->a, t->w[1], t->b);
    relu((size_t)(rows * h), t->b);
    gemm(false, true, rows, t->s.p, h, t->b, t->w[2], t->z);
}

/* t->z becomes its own gradient. Returns how many rows were right. */
static int64_t loss(run_t *r, slg_ctx *ctx, net *t, int from, int rows, bool stable, bool grad)
{
    slg_tensor z = slg_tensor_2d(t->z, SLG_F32, rows, t->s.p);
    const slg_tensor y = slg_tensor_1d(t->y + from, SLG_I32, rows);
    const slg_logits l = slg_logits_dense(&z);
    const slg_targets target = slg_targets_index(&y);
    slg_loss_out out = slg_loss_out_none();
    slg_logits_grad d = slg_grad_dense(&z);
    if (stable)
        must(r, ctx, slg_stablemax_loss(ctx, &l, &target, NULL, &out, grad ? &d : NULL));
    else
        must(r, ctx, slg_cross_entropy(ctx, &l, &target, NULL, &out, grad ? &d : NULL));
    return out.correct;
}

/*
 * The softmax of the claim is that of float32 frameworks, whose loss and gradient are rounded
 * off: the gradient at the target is p - 1, with p in float32. The library's own keeps 1 - p.
 */
static void rounded_softmax(run_t *r, slg_ctx *ctx, net *t, int rows)
{
    slg_tensor z = slg_tensor_2d(t->z, SLG_F32, rows, t->s.p);
    must(r, ctx, slg_softmax(ctx, &z, NULL, &z, NULL));
    for (int i = 0; i < rows; i++) t->z[i * t->s.p + t->y[i]] -= 1.0f;
    for (int i = 0; i < rows * t->s.p; i++) t->z[i] /= (float)rows;
}

static void backward(net *t, int rows)
{
    const int p = t->s.p, h = t->s.hidden;
    gemm(true, false, p, h, rows, t->z, t->b, t->dw[2]);
    gemm(false, false, rows, h, p, t->z, t->w[2], t->db);
    relu_back((size_t)(rows * h), t->b, t->db);
    gemm(true, false, h, h, rows, t->db, t->a, t->dw[1]);
    gemm(false, false, rows, h, h, t->db, t->w[1], t->da);
    relu_back((size_t)(rows * h), t->a, t->da);
    gemm(true, false, h, t->in, rows, t->da, t->x, t->dw[0]);
}

static double accuracy(run_t *r, slg_ctx *ctx, net *t, int from, int rows)
{
    forward(t, from, rows);
    return (double)loss(r, ctx, t, from, rows, false, false) / rows;
}

typedef struct history {
    size_t count;
    double step[POINTS], test[POINTS], train, collapsed;
} history;

static slg_optimizer *make_optimizer(run_t *r, slg_ctx *ctx, const net *t, kind k)
{
    slg_optimizer *o;
    slg_adamw_opts a;
    int64_t weights = 0;
    const slg_transform link = slg_transform_of(SLG_PERPENDICULAR, 1e-6);
    slg_adamw_opts_init(&a, sizeof a);
    a.lr = t->s.lr, a.beta1 = 0.9, a.beta2 = t->s.beta2, a.eps = 1e-25, a.weight_decay = 0;
    for (int i = 0; i < TENSORS; i++) weights += t->out_of[i] * t->in_of[i];
    must(r, ctx, slg_optimizer_create(ctx, SLG_ADAMW, weights, &a, &o));
    if (k == PERPENDICULAR) must(r, ctx, slg_optimizer_set_chain(o, 1, &link));
    return o;
}

static void step(run_t *r, slg_ctx *ctx, slg_optimizer *o, net *t)
{
    slg_tensor w[TENSORS], dw[TENSORS], *ws[TENSORS];
    const slg_tensor *dws[TENSORS];
    for (int i = 0; i < TENSORS; i++) {
        w[i] = slg_tensor_2d(t->w[i], SLG_F32, t->out_of[i], t->in_of[i]);
        dw[i] = slg_tensor_2d(t->dw[i], SLG_F32, t->out_of[i], t->in_of[i]);
        ws[i] = &w[i], dws[i] = &dw[i];
    }
    must(r, ctx, slg_optimizer_step_list(o, TENSORS, ws, dws));
}

static history train(run_t *r, slg_ctx *ctx, kind k, const setting *s)
{
    rng g = rng_seed(11);
    net t = make_net(r, s, &g);
    slg_optimizer *o = make_optimizer(r, ctx, &t, k);
    history h = { 0 };
    for (int i = 1; i <= s->steps; i++) {
        forward(&t, 0, t.train);
        if (k == SOFTMAX_ROUNDED)
            rounded_softmax(r, ctx, &t, t.train);
        else
            loss(r, ctx, &t, 0, t.train, k == STABLEMAX, true);
        backward(&t, t.train);
        step(r, ctx, o, &t);
        if (i % (s->steps / 10) != 0) continue;
        h.step[h.count] = i;
        h.test[h.count++] = accuracy(r, ctx, &t, t.train, t.pairs - t.train);
    }
    slg_collapse_out c;
    slg_collapse_out_init(&c, sizeof c);
    h.train = accuracy(r, ctx, &t, 0, t.train);
    const slg_tensor z = slg_tensor_2d(t.z, SLG_F32, t.train, s->p);
    must(r, ctx, slg_softmax_collapse(ctx, &z, NULL, &c));
    h.collapsed = c.collapsed_fraction;
    slg_optimizer_free(o);
    return h;
}

/* One line of training and one of held-out accuracy. */
static history claims(run_t *r, slg_ctx *ctx, kind k, const setting *s, const char *paper_says,
                      bar b)
{
    char what[160];
    history h = train(r, ctx, k, s);
    series(r, names[k], h.count, h.step, h.test);
    snprintf(what, sizeof what, "%s: training accuracy at step %d", names[k], s->steps);
    claim(r, what, "1", h.train, "", no_bar());
    snprintf(what, sizeof what, "%s: held-out accuracy at step %d", names[k], s->steps);
    claim(r, what, paper_says, h.test[h.count - 1], "", b);
    return h;
}

static void stablemax(run_t *r, slg_ctx *ctx)
{
    const bool quick = run_quick(r);
    const setting s = { 37, 128, 85, quick ? 300 : 2500, 0.02, 0.999 };
    char what[160];
    figure(r, "Addition modulo 37: held-out pairs", "step", "accuracy", 0);
    claims(r, ctx, STABLEMAX, &s, "generalises (1 at p = 113, 80,000 steps)",
           quick ? no_bar() : at_least(0.25));
    for (int k = SOFTMAX; k <= (quick ? SOFTMAX : SOFTMAX_ROUNDED); k++) {
        history h = claims(r, ctx, (kind)k, &s, "does not generalise",
                           quick ? no_bar() : at_most(0.05));
        snprintf(what, sizeof what, "%s: training rows collapsed", names[k]);
        claim(r, what, "collapse", 100 * h.collapsed, "%", no_bar());
    }
    note(r, "p = 37, 85 %% of pairs, 128-128, AdamW 0.02, eps 1e-25; bars of step 3000, asked "
            "at 2500");
}

static void perpendicular(run_t *r, slg_ctx *ctx)
{
    const bool quick = run_quick(r);
    const setting s = { 59, 200, 40, quick ? 50 : 300, 0.005, 0.99 };
    figure(r, "Addition modulo 59: held-out pairs", "step", "accuracy", 0);
    claims(r, ctx, PLAIN, &s, "does not generalise (p = 113)", quick ? no_bar() : at_most(0.2));
    claims(r, ctx, PERPENDICULAR, &s, "1 within some hundred steps (p = 113)",
           quick ? no_bar() : at_least(0.95));
    note(r, "p = 59, 40 %% of pairs, 200-200, softmax, AdamW 0.005 (0.9, 0.99), eps 1e-25");
}

static void run(run_t *r)
{
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    perpendicular(r, ctx);
    stablemax(r, ctx);
}

const paper paper_11_stablemax_perpgrad = { 11, "stablemax-perpgrad",
                                            "Grokking at the Edge of Numerical Stability",
                                            run };
