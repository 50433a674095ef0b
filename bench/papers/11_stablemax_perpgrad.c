/*
 * 11_stablemax_perpgrad.c - the StableMax half: addition modulo 37 by a network of two hidden
 * layers, full batch, no regularisation. With softmax it learns the training pairs, collapses
 * and stays there; with StableMax the held-out pairs follow.
 */
#include <cblas.h>

#include "papers.h"

enum { P = 37, IN = 2 * P, HIDDEN = 128, PAIRS = P * P, TRAIN = PAIRS * 85 / 100 };
enum { TENSORS = 3 };

typedef struct net {
    float *w[TENSORS], *dw[TENSORS]; /* [HIDDEN, IN], [HIDDEN, HIDDEN], [P, HIDDEN] */
    float *x, *a, *b, *z, *da, *db;  /* one-hot pairs, layers, logits, gradients */
    int32_t *y;
} net;

static const int out_of[TENSORS] = { HIDDEN, HIDDEN, P },
                 in_of[TENSORS] = { IN, HIDDEN, HIDDEN };

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

static net make_net(run_t *r, rng *g)
{
    net t = { .x = run_floats(r, PAIRS * IN), .a = run_floats(r, PAIRS * HIDDEN) };
    int64_t order[PAIRS];
    t.b = run_floats(r, PAIRS * HIDDEN), t.z = run_floats(r, PAIRS * P);
    t.da = run_floats(r, PAIRS * HIDDEN), t.db = run_floats(r, PAIRS * HIDDEN);
    t.y = run_memory(r, PAIRS * sizeof *t.y);
    for (int i = 0; i < PAIRS; i++) order[i] = i;
    rng_shuffle(g, PAIRS, order);
    for (int i = 0; i < PAIRS; i++) {
        int64_t a = order[i] / P, b = order[i] % P;
        t.x[(int64_t)i * IN + a] = t.x[(int64_t)i * IN + P + b] = 1;
        t.y[i] = (int32_t)((a + b) % P);
    }
    for (int i = 0; i < TENSORS; i++) {
        size_t n = (size_t)(out_of[i] * in_of[i]);
        double bound = 1 / sqrt(in_of[i]);
        t.w[i] = run_floats(r, n), t.dw[i] = run_floats(r, n);
        fill_uniform(g, n, t.w[i], -bound, bound);
    }
    return t;
}

static void forward(net *t, int from, int rows)
{
    gemm(false, true, rows, HIDDEN, IN, t->x + from * IN, t->w[0], t->a);
    relu((size_t)(rows * HIDDEN), t->a);
    gemm(false, true, rows, HIDDEN, HIDDEN, t->a, t->w[1], t->b);
    relu((size_t)(rows * HIDDEN), t->b);
    gemm(false, true, rows, P, HIDDEN, t->b, t->w[2], t->z);
}

/* t->z becomes its own gradient. Returns how many rows were right. */
static int64_t loss(run_t *r, slg_ctx *ctx, net *t, int from, int rows, bool stable, bool grad)
{
    slg_tensor z = slg_tensor_2d(t->z, SLG_F32, rows, P);
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
    slg_tensor z = slg_tensor_2d(t->z, SLG_F32, rows, P);
    must(r, ctx, slg_softmax(ctx, &z, NULL, &z, NULL));
    for (int i = 0; i < rows; i++) t->z[i * P + t->y[i]] -= 1.0f;
    for (int i = 0; i < rows * P; i++) t->z[i] /= (float)rows;
}

static void backward(net *t, int rows)
{
    gemm(true, false, P, HIDDEN, rows, t->z, t->b, t->dw[2]);
    gemm(false, false, rows, HIDDEN, P, t->z, t->w[2], t->db);
    relu_back((size_t)(rows * HIDDEN), t->b, t->db);
    gemm(true, false, HIDDEN, HIDDEN, rows, t->db, t->a, t->dw[1]);
    gemm(false, false, rows, HIDDEN, HIDDEN, t->db, t->w[1], t->da);
    relu_back((size_t)(rows * HIDDEN), t->a, t->da);
    gemm(true, false, HIDDEN, IN, rows, t->da, t->x, t->dw[0]);
}

static double accuracy(run_t *r, slg_ctx *ctx, net *t, int from, int rows)
{
    forward(t, from, rows);
    return (double)loss(r, ctx, t, from, rows, false, false) / rows;
}

typedef enum kind { STABLEMAX, SOFTMAX, SOFTMAX_ROUNDED, KINDS } kind;
static const char *const names[KINDS] = { "StableMax", "softmax, as the library has it",
                                          "softmax, rounded as in float32 frameworks" };
enum { POINTS = 32 };

typedef struct history {
    size_t count;
    double step[POINTS], test[POINTS], train, collapsed;
} history;

static history train(run_t *r, slg_ctx *ctx, kind k, int steps)
{
    rng g = rng_seed(11);
    net t = make_net(r, &g);
    slg_optimizer *o[TENSORS];
    slg_adamw_opts a;
    history h = { 0 };
    slg_adamw_opts_init(&a, sizeof a);
    a.lr = 0.02, a.beta1 = 0.9, a.beta2 = 0.999, a.eps = 1e-25, a.weight_decay = 0;
    for (int i = 0; i < TENSORS; i++)
        must(r, ctx, slg_optimizer_create(ctx, SLG_ADAMW, out_of[i] * in_of[i], &a, &o[i]));
    for (int s = 1; s <= steps; s++) {
        forward(&t, 0, TRAIN);
        if (k == SOFTMAX_ROUNDED)
            rounded_softmax(r, ctx, &t, TRAIN);
        else
            loss(r, ctx, &t, 0, TRAIN, k == STABLEMAX, true);
        backward(&t, TRAIN);
        for (int i = 0; i < TENSORS; i++) {
            slg_tensor w = slg_tensor_1d(t.w[i], SLG_F32, out_of[i] * in_of[i]);
            const slg_tensor dw = slg_tensor_1d(t.dw[i], SLG_F32, out_of[i] * in_of[i]);
            must(r, ctx, slg_optimizer_step(o[i], &w, &dw));
        }
        if (s % (steps / 10) != 0) continue;
        h.step[h.count] = s;
        h.test[h.count++] = accuracy(r, ctx, &t, TRAIN, PAIRS - TRAIN);
    }
    slg_collapse_out c;
    slg_collapse_out_init(&c, sizeof c);
    h.train = accuracy(r, ctx, &t, 0, TRAIN);
    const slg_tensor z = slg_tensor_2d(t.z, SLG_F32, TRAIN, P);
    must(r, ctx, slg_softmax_collapse(ctx, &z, NULL, &c));
    h.collapsed = c.collapsed_fraction;
    for (int i = 0; i < TENSORS; i++) slg_optimizer_free(o[i]);
    return h;
}

static void run(run_t *r)
{
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    const int steps = run_quick(r) ? 300 : 2500;
    char what[160];
    figure(r, "Addition modulo 37: held-out pairs", "step", "accuracy", 0);
    for (int k = 0; k < KINDS; k++) {
        if (run_quick(r) && k == SOFTMAX_ROUNDED) continue;
        history h = train(r, ctx, (kind)k, steps);
        double test = h.test[h.count - 1];
        series(r, names[k], h.count, h.step, h.test);
        snprintf(what, sizeof what, "%s: training accuracy at step %d", names[k], steps);
        claim(r, what, "1", h.train, "", no_bar());
        snprintf(what, sizeof what, "%s: held-out accuracy at step %d", names[k], steps);
        bar b = run_quick(r) ? no_bar() : k == STABLEMAX ? at_least(0.25) : at_most(0.05);
        claim(r, what,
              k == STABLEMAX ? "generalises (1 at p = 113, 80,000 steps)"
                             : "does not generalise",
              test, "", b);
        if (k == STABLEMAX) continue;
        snprintf(what, sizeof what, "%s: training rows collapsed", names[k]);
        claim(r, what, "collapse", 100 * h.collapsed, "%", no_bar());
    }
    note(r, "p = 37, 85 %% of pairs, 128-128, AdamW 0.02, eps 1e-25; bars of step 3000, asked "
            "at 2500");
}

const paper paper_11_stablemax_perpgrad = { 11, "stablemax-perpgrad",
                                            "Grokking at the Edge of Numerical Stability",
                                            run };
