/*
 * 35 - To Cool or not to Cool? Temperature Network Meets Large Foundation Models via DRO
 * (2024).
 *
 * Contrastive learning of pairs: upper and lower halves of the digits' images. Two encoders
 * 32-128-32 with ReLU, features of length 1; the temperature fixed, of each sample, or
 * predicted by a temperature network. Retrieval among 597 held-out pairs, mean of both
 * directions and of seeds. The language half is in tempnet_language.c.
 */
#include "papers.h"

#include <cblas.h>

#include "tempnet_language.h"

enum {
    IN = 32,
    HIDDEN = 128,
    DIM = 32,
    TRAIN = 1200,
    TEST = 597,
    BATCH = 128,
    PROTOTYPES = 64
};
enum {
    W1 = 0,
    B1 = W1 + HIDDEN * IN,
    W2 = B1 + HIDDEN,
    B2 = W2 + DIM * HIDDEN,
    WEIGHTS = B2 + DIM
};
/* Of a temperature network, in one buffer. */
enum {
    N1 = 0,
    NB1 = N1 + DIM * DIM,
    N2 = NB1 + DIM,
    NC = N2 + PROTOTYPES * DIM,
    NB = NC + PROTOTYPES,
    NPHI = NB + 1,
    NET = NPHI + 1
};
enum { MAX_ROWS = TEST };
#define TAU_LOW 0.02
#define TAU_HIGH 0.4

typedef enum loss_kind { CLIP, GLOBAL, INDIVIDUAL, TEMPNET } loss_kind;

typedef struct variant {
    const char *name;
    loss_kind kind;
    double setting; /* tau, or rho */
    bool drop;      /* TEMPNET: half of its hidden units, in training */
} variant;

typedef struct scores {
    double r1, r5, class1, tau;
} scores;

/* An encoder or a temperature network with its optimizer. */
typedef struct encoder {
    float *w, *dw, *x, *h, *o, *y, *dy, *dh, *length;
    slg_optimizer *opt;
} encoder;

typedef struct tempnet {
    float *drop, *p, *d, *s, *v, *w, *tau, *dtau, *own; /* own: of each sample */
    slg_optimizer *opt;
} tempnet;

typedef struct world {
    run_t *r;
    slg_ctx *ctx;
    const variant *v;
    float *pixels; /* [1797, 64] */
    int *label;
    int64_t order[TRAIN + TEST];
    encoder enc[2];
    tempnet net[2];
    float *state[2], *sim, *dsim, *turned;
    int64_t *id;
    rng g;
    slg_rng noise; /* of dropout */
} world;

static void gemm(bool ta, bool tb, int m, int n, int k, const float *a, const float *b,
                 float beta, float *c)
{
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                m, n, k, 1.0f, a, ta ? m : k, b, tb ? k : n, beta, c, n);
}

/* ---- Encoders ---------------------------------------------------------------------------- */

static void encode(encoder *e, int rows)
{
    for (int r = 0; r < rows; r++) {
        memcpy(e->h + r * HIDDEN, e->w + B1, HIDDEN * sizeof(float));
        memcpy(e->o + r * DIM, e->w + B2, DIM * sizeof(float));
    }
    gemm(false, true, rows, HIDDEN, IN, e->x, e->w + W1, 1, e->h);
    for (int i = 0; i < rows * HIDDEN; i++) e->h[i] = fmaxf(e->h[i], 0);
    gemm(false, true, rows, DIM, HIDDEN, e->h, e->w + W2, 1, e->o);
    for (int r = 0; r < rows; r++) {
        float sum = 1e-12f;
        for (int i = 0; i < DIM; i++) sum += e->o[r * DIM + i] * e->o[r * DIM + i];
        e->length[r] = sqrtf(sum);
        for (int i = 0; i < DIM; i++) e->y[r * DIM + i] = e->o[r * DIM + i] / e->length[r];
    }
}

static void column_sums(const float *x, int rows, int cols, float *out)
{
    memset(out, 0, (size_t)cols * sizeof *out);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) out[c] += x[r * cols + c];
}

/* dy becomes the gradient by o. */
static void learn(world *w, encoder *e, int rows)
{
    for (int r = 0; r < rows; r++) {
        float *dy = e->dy + r * DIM, *y = e->y + r * DIM, along = 0;
        for (int i = 0; i < DIM; i++) along += y[i] * dy[i];
        for (int i = 0; i < DIM; i++) dy[i] = (dy[i] - along * y[i]) / e->length[r];
    }
    gemm(true, false, DIM, HIDDEN, rows, e->dy, e->h, 0, e->dw + W2);
    column_sums(e->dy, rows, DIM, e->dw + B2);
    gemm(false, false, rows, HIDDEN, DIM, e->dy, e->w + W2, 0, e->dh);
    for (int i = 0; i < rows * HIDDEN; i++)
        if (e->h[i] <= 0) e->dh[i] = 0;
    gemm(true, false, HIDDEN, IN, rows, e->dh, e->x, 0, e->dw + W1);
    column_sums(e->dh, rows, HIDDEN, e->dw + B1);
    slg_tensor p = slg_tensor_1d(e->w, SLG_F32, WEIGHTS),
               d = slg_tensor_1d(e->dw, SLG_F32, WEIGHTS);
    must(w->r, w->ctx, slg_optimizer_step(e->opt, &p, &d));
}

/* Halves of images; side 0: upper. */
static void load(world *w, int side, const int64_t *which, int rows, double noise)
{
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < IN; i++)
            w->enc[side].x[r * IN + i] =
                w->pixels[which[r] * 64 + side * IN + i] +
                (noise > 0 ? (float)rng_normal(&w->g, 0, noise) : 0.0f);
}

/* ---- Temperatures ------------------------------------------------------------------------ */

typedef struct net_view {
    slg_tensor x, p[6], d[6], drop, s, v, w, tau, dtau;
    slg_tempnet net;
    slg_tempnet_saved saved;
    slg_tempnet_grad grad;
} net_view;

static void view_net(world *w, int side, net_view *t)
{
    tempnet *n = &w->net[side];
    static const int at[6] = { N1, NB1, N2, NC, NB, NPHI };
    static const int64_t shape[6][2] = { { DIM, DIM },      { DIM, 0 }, { PROTOTYPES, DIM },
                                         { PROTOTYPES, 0 }, { 1, 0 },   { 1, 0 } };
    for (int i = 0; i < 6; i++) {
        bool flat = shape[i][1] == 0;
        t->p[i] = flat ? slg_tensor_1d(n->p + at[i], SLG_F32, shape[i][0])
                       : slg_tensor_2d(n->p + at[i], SLG_F32, shape[i][0], shape[i][1]);
        t->d[i] = t->p[i];
        t->d[i].data = n->d + at[i];
    }
    t->x = slg_tensor_2d(w->enc[side].y, SLG_F32, BATCH, DIM);
    t->drop = slg_tensor_2d(n->drop, SLG_F32, BATCH, DIM);
    t->s = slg_tensor_2d(n->s, SLG_F32, BATCH, DIM);
    t->v = slg_tensor_2d(n->v, SLG_F32, BATCH, PROTOTYPES);
    t->w = slg_tensor_2d(n->w, SLG_F32, BATCH, PROTOTYPES);
    t->tau = slg_tensor_1d(n->tau, SLG_F32, BATCH),
    t->dtau = slg_tensor_1d(n->dtau, SLG_F32, BATCH);
    slg_tempnet_init(&t->net, sizeof t->net);
    slg_tempnet_saved_init(&t->saved, sizeof t->saved);
    slg_tempnet_grad_init(&t->grad, sizeof t->grad);
    t->net.form = SLG_TEMPNET_FEATURES;
    t->net.w1 = &t->p[0], t->net.b1 = &t->p[1], t->net.w2 = &t->p[2], t->net.c = &t->p[3];
    t->net.b = &t->p[4], t->net.phi = &t->p[5];
    t->net.tau_min = TAU_LOW, t->net.tau_max = TAU_HIGH;
    t->net.drop = w->v->drop ? &t->drop : NULL;
    t->saved.s = &t->s, t->saved.v = &t->v, t->saved.w = &t->w;
    t->grad.dw1 = &t->d[0], t->grad.db1 = &t->d[1], t->grad.dw2 = &t->d[2],
    t->grad.dc = &t->d[3];
    t->grad.db = &t->d[4], t->grad.dphi = &t->d[5];
}

static void temperatures(world *w, const int64_t *which)
{
    for (int s = 0; s < 2; s++) {
        tempnet *n = &w->net[s];
        net_view t;
        if (w->v->kind == TEMPNET) {
            view_net(w, s, &t);
            if (w->v->drop)
                must(w->r, w->ctx, slg_tempnet_drop(w->ctx, &w->noise, 0.5, &t.drop));
            must(w->r, w->ctx, slg_tempnet_forward(w->ctx, &t.x, &t.net, &t.saved, &t.tau));
        } else {
            for (int i = 0; i < BATCH; i++)
                n->tau[i] = w->v->kind == GLOBAL ? (float)w->v->setting : n->own[which[i]];
        }
    }
}

static void learn_temperatures(world *w, const int64_t *which)
{
    for (int s = 0; s < 2; s++) {
        tempnet *n = &w->net[s];
        net_view t;
        if (w->v->kind == INDIVIDUAL)
            for (int i = 0; i < BATCH; i++) {
                double tau = (double)n->own[which[i]] - 0.01 * BATCH * (double)n->dtau[i];
                n->own[which[i]] = (float)fmin(fmax(tau, TAU_LOW), TAU_HIGH);
            }
        if (w->v->kind != TEMPNET) continue;
        view_net(w, s, &t);
        must(w->r, w->ctx,
             slg_tempnet_backward(w->ctx, &t.x, &t.net, &t.saved, &t.dtau, &t.grad));
        slg_tensor p = slg_tensor_1d(n->p, SLG_F32, NET), d = slg_tensor_1d(n->d, SLG_F32, NET);
        must(w->r, w->ctx, slg_optimizer_step(n->opt, &p, &d));
    }
}

/* ---- Steps ------------------------------------------------------------------------------- */

/* Cross-entropy of both directions, the partner being the class. */
static void clip_step(world *w)
{
    slg_tensor index = slg_tensor_1d(w->id, SLG_I64, BATCH); /* 0, 1, ... */
    slg_targets t = slg_targets_index(&index);
    gemm(false, true, BATCH, BATCH, DIM, w->enc[0].y, w->enc[1].y, 0, w->sim);
    for (int i = 0; i < BATCH; i++)
        for (int j = 0; j < BATCH; j++) w->turned[j * BATCH + i] = w->sim[i * BATCH + j];
    float *from[2] = { w->sim, w->turned };
    for (int s = 0; s < 2; s++) {
        slg_tensor x = slg_tensor_2d(from[s], SLG_F32, BATCH, BATCH);
        slg_logits l = slg_logits_dense(&x);
        slg_loss_out out = slg_loss_out_none();
        slg_logits_grad g = slg_grad_dense(&x);
        l.temperature = w->v->setting;
        must(w->r, w->ctx, slg_cross_entropy(w->ctx, &l, &t, NULL, &out, &g));
    }
    for (int i = 0; i < BATCH; i++)
        for (int j = 0; j < BATCH; j++) w->sim[i * BATCH + j] += w->turned[j * BATCH + i];
    gemm(false, false, BATCH, DIM, BATCH, w->sim, w->enc[1].y, 0, w->enc[0].dy);
    gemm(true, false, BATCH, DIM, BATCH, w->sim, w->enc[0].y, 0, w->enc[1].dy);
}

static void robust_step(world *w, const int64_t *which, bool first)
{
    slg_contrastive_pairs p;
    slg_contrastive_opts o;
    slg_contrastive_out out;
    slg_contrastive_pairs_init(&p, sizeof p);
    slg_contrastive_opts_init(&o, sizeof o);
    slg_contrastive_out_init(&out, sizeof out);
    slg_tensor y[2], dy[2], tau[2], dtau[2], state[2],
        id = slg_tensor_1d(which, SLG_I64, BATCH);
    temperatures(w, which);
    for (int s = 0; s < 2; s++) {
        y[s] = slg_tensor_2d(w->enc[s].y, SLG_F32, BATCH, DIM);
        dy[s] = slg_tensor_2d(w->enc[s].dy, SLG_F32, BATCH, DIM);
        tau[s] = slg_tensor_1d(w->net[s].tau, SLG_F32, BATCH);
        dtau[s] = slg_tensor_1d(w->net[s].dtau, SLG_F32, BATCH);
        state[s] = slg_tensor_1d(w->state[s], SLG_F32, TRAIN + TEST);
    }
    p.image = &y[0], p.text = &y[1], p.id = &id, p.tau_image = &tau[0], p.tau_text = &tau[1];
    o.first = first, o.rho = w->v->setting;
    out.dimage = &dy[0], out.dtext = &dy[1], out.dtau_image = &dtau[0],
    out.dtau_text = &dtau[1];
    must(w->r, w->ctx, slg_contrastive(w->ctx, &p, &o, &state[0], &state[1], &out));
    learn_temperatures(w, which);
}

/* Features of training samples of the other modality become prototypes. */
static void set_prototypes(world *w)
{
    for (int s = 0; s < 2; s++) {
        load(w, 1 - s, w->order, PROTOTYPES, 0);
        encode(&w->enc[1 - s], PROTOTYPES);
        memcpy(w->net[s].p + N2, w->enc[1 - s].y, PROTOTYPES * DIM * sizeof(float));
    }
}

static void start(world *w, uint64_t seed)
{
    w->g = rng_seed(seed), w->noise = (slg_rng){ seed, 0 };
    for (int64_t i = 0; i < TRAIN + TEST; i++) w->order[i] = i;
    rng_shuffle(&w->g, TRAIN + TEST, w->order);
    for (int s = 0; s < 2; s++) {
        encoder *e = &w->enc[s];
        tempnet *n = &w->net[s];
        const double a = 1 / sqrt(IN), b = 1 / sqrt(HIDDEN);
        fill_uniform(&w->g, W2, e->w, -a, a);
        fill_uniform(&w->g, WEIGHTS - W2, e->w + W2, -b, b);
        fill_uniform(&w->g, N2, n->p, -a, a);
        fill_normal(&w->g, NC - N2, n->p + N2, 0, 1);
        for (int i = NC; i < NB; i++) n->p[i] = 1;
        n->p[NB] = 0, n->p[NPHI] = (float)log(0.1);
        for (int i = 0; i < TRAIN + TEST; i++) n->own[i] = 0.1f, w->state[s][i] = -INFINITY;
        must(w->r, w->ctx, slg_optimizer_reset(e->opt));
        must(w->r, w->ctx, slg_optimizer_reset(n->opt));
    }
}

/* Ranks among the test pairs, both ways. */
static scores test(world *w)
{
    const int64_t *which = w->order + TRAIN;
    scores s = { 0, 0, 0, 0 };
    for (int side = 0; side < 2; side++) {
        load(w, side, which, TEST, 0);
        encode(&w->enc[side], TEST);
    }
    for (int side = 0; side < 2; side++) {
        gemm(false, true, TEST, TEST, DIM, w->enc[side].y, w->enc[1 - side].y, 0, w->sim);
        for (int i = 0; i < TEST; i++) {
            const float *x = w->sim + i * TEST;
            int above = 0, best = 0;
            for (int j = 0; j < TEST; j++) {
                above += x[j] > x[i];
                if (x[j] > x[best]) best = j;
            }
            s.r1 += above < 1, s.r5 += above < 5;
            s.class1 += w->label[which[best]] == w->label[which[i]];
        }
    }
    const double percent = 100.0 / (2 * TEST);
    s.r1 *= percent, s.r5 *= percent, s.class1 *= percent;
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < BATCH; i++) s.tau += (double)w->net[side].tau[i] / (2 * BATCH);
    return s;
}

static scores train(world *w, uint64_t seed, int epochs)
{
    start(w, seed);
    for (int epoch = 0; epoch < epochs; epoch++) {
        rng_shuffle(&w->g, TRAIN, w->order);
        if (epoch == 3 && w->v->kind == TEMPNET) set_prototypes(w);
        for (int at = 0; at + BATCH <= TRAIN; at += BATCH) {
            for (int s = 0; s < 2; s++) {
                load(w, s, w->order + at, BATCH, 0.1);
                encode(&w->enc[s], BATCH);
            }
            if (w->v->kind == CLIP)
                clip_step(w);
            else
                robust_step(w, w->order + at, epoch == 0);
            for (int s = 0; s < 2; s++) learn(w, &w->enc[s], BATCH);
        }
    }
    return test(w);
}

static void make(run_t *r, world *w)
{
    csv t = csv_read(r, "digits.csv.gz", ',');
    if (t.rows != TRAIN + TEST || t.cols != 65)
        run_fail(r, "digits: %zu rows of %zu", t.rows, t.cols);
    w->r = r;
    w->ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    w->pixels = run_floats(r, t.rows * 64);
    w->label = run_memory(r, t.rows * sizeof *w->label);
    w->id = run_memory(r, BATCH * sizeof *w->id);
    for (size_t i = 0; i < t.rows; i++) {
        for (size_t j = 0; j < 64; j++)
            w->pixels[i * 64 + j] = (float)(csv_number(&t, i, j) / 16);
        w->label[i] = (int)csv_number(&t, i, 64);
    }
    for (int i = 0; i < BATCH; i++) w->id[i] = i;
    w->sim = run_floats(r, TEST * TEST), w->turned = run_floats(r, BATCH * BATCH);
    slg_adamw_opts o;
    slg_adamw_opts_init(&o, sizeof o);
    for (int s = 0; s < 2; s++) {
        encoder *e = &w->enc[s];
        tempnet *n = &w->net[s];
        e->w = run_floats(r, WEIGHTS), e->dw = run_floats(r, WEIGHTS);
        e->x = run_floats(r, MAX_ROWS * IN), e->h = run_floats(r, MAX_ROWS * HIDDEN);
        e->o = run_floats(r, MAX_ROWS * DIM), e->y = run_floats(r, MAX_ROWS * DIM);
        e->dy = run_floats(r, MAX_ROWS * DIM), e->dh = run_floats(r, MAX_ROWS * HIDDEN);
        e->length = run_floats(r, MAX_ROWS);
        n->p = run_floats(r, NET), n->d = run_floats(r, NET), n->s = run_floats(r, BATCH * DIM);
        n->v = run_floats(r, BATCH * PROTOTYPES), n->w = run_floats(r, BATCH * PROTOTYPES);
        n->drop = run_floats(r, BATCH * DIM);
        n->tau = run_floats(r, BATCH), n->dtau = run_floats(r, BATCH);
        n->own = run_floats(r, TRAIN + TEST), w->state[s] = run_floats(r, TRAIN + TEST);
        o.lr = 2e-3, o.weight_decay = 1e-3;
        must(r, w->ctx, slg_optimizer_create(w->ctx, SLG_ADAMW, WEIGHTS, &o, &e->opt));
        o.lr = 5e-3, o.weight_decay = 0;
        must(r, w->ctx, slg_optimizer_create(w->ctx, SLG_ADAMW, NET, &o, &n->opt));
    }
}

enum { SEEDS = 6 };

/* Mean of a less b over seeds, which share data and starting weights; its standard error. */
static double difference(const double *a, const double *b, int seeds, double *error)
{
    double mean = 0, square = 0;
    for (int i = 0; i < seeds; i++) mean += (a[i] - b[i]) / seeds;
    for (int i = 0; i < seeds; i++) square += (a[i] - b[i] - mean) * (a[i] - b[i] - mean);
    *error = seeds > 1 ? sqrt(square / (seeds - 1) / seeds) : 0;
    return mean;
}

static void run(run_t *r)
{
    enum { INDIVIDUAL_AT = 7, NET_AT = 8 };
    static const variant variants[] = {
        { "CLIP, tau 0.03", CLIP, 0.03, false },
        { "CLIP, tau 0.05", CLIP, 0.05, false },
        { "CLIP, tau 0.1", CLIP, 0.1, false },
        { "CLIP, tau 0.2", CLIP, 0.2, false },
        { "global, tau 0.05", GLOBAL, 0.05, false },
        { "global, tau 0.1", GLOBAL, 0.1, false },
        { "global, tau 0.2", GLOBAL, 0.2, false },
        { "individual, rho 3", INDIVIDUAL, 3, false },
        { "TempNet, rho 2.5", TEMPNET, 2.5, true },
        { "TempNet, rho 3", TEMPNET, 3, true },
        { "TempNet, rho 3.5", TEMPNET, 3.5, true },
        { "TempNet, rho 2.5, no dropout", TEMPNET, 2.5, false },
        { "TempNet, rho 3, no dropout", TEMPNET, 3, false },
    };
    enum { VARIANTS = sizeof variants / sizeof *variants };
    const int seeds = run_quick(r) ? 1 : SEEDS, epochs = run_quick(r) ? 10 : 60;
    world *w = run_memory(r, sizeof *w);
    double r1[VARIANTS][SEEDS], mean[VARIANTS], error;
    int best = 0;
    openblas_set_num_threads(1);
    make(r, w);
    note(r, "%d seeds of %d epochs:              R@1 %%   R@5 %%   class %%   tau", seeds,
         epochs);
    for (int i = 0; i < VARIANTS; i++) {
        scores sum = { 0, 0, 0, 0 };
        w->v = &variants[i];
        for (int seed = 0; seed < seeds; seed++) {
            scores s = train(w, (uint64_t)seed + 1, epochs);
            r1[i][seed] = s.r1;
            sum.r1 += s.r1 / seeds, sum.r5 += s.r5 / seeds, sum.class1 += s.class1 / seeds;
            sum.tau += s.tau / seeds;
        }
        mean[i] = sum.r1;
        if (variants[i].kind <= GLOBAL && mean[i] > mean[best]) best = i;
        note(r, "  %-28s %6.2f  %6.2f  %6.2f  %6.3f", variants[i].name, sum.r1, sum.r5,
             sum.class1, variants[i].kind == CLIP ? variants[i].setting : sum.tau);
    }
    for (int s = 0; s < 2; s++)
        slg_optimizer_free(w->enc[s].opt), slg_optimizer_free(w->net[s].opt);
    const int rivals[2] = { best, INDIVIDUAL_AT };
    for (int j = 0; j < 2; j++)
        for (int i = NET_AT; i < NET_AT + 2; i++) {
            char what[96];
            double d = difference(r1[i], r1[rivals[j]], seeds, &error);
            snprintf(what, sizeof what, "R@1, %s less %s", variants[i].name,
                     j ? "individual temperatures" : "the best fixed tau");
            claim(r, what, "better", d, "%", run_quick(r) ? no_bar() : at_least(0));
            if (run_quick(r)) continue; /* one seed */
            note(r, "  standard error over seeds %.2f (%s)", error, variants[rivals[j]].name);
        }
    tempnet_language(r);
}

const paper paper_35_tempnet = { 35, "tempnet", "To Cool or not to Cool? Temperature Network",
                                 run };
