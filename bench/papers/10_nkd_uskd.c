/*
 * 10 - From Knowledge Distillation to Self-Knowledge Distillation: normalised loss (NKD) and
 * customised soft labels (USKD) (2023).
 *
 * The claims at the size of the digits of scikit-learn: a student of 12 hidden units, taught by
 * a teacher of 256-256, does better with NKD beside cross-entropy than with cross-entropy
 * alone, or with plain distillation at NKD's own temperature; without a teacher, USKD beats
 * cross-entropy. That distillation at a tuned temperature does as well as NKD is reported,
 * without a bar.
 */
#include "papers.h"

enum {
    PIXELS = 64,
    CLASSES = 10,
    IMAGES = 1797,
    TEACH = 900,
    LEARN = 150,
    TEST = 800,
    BATCH = 50,
    LAYERS = 4,
    SEEDS = 6,
    WIDEST = 256
};

typedef struct data {
    float x[IMAGES][PIXELS];
    int32_t y[IMAGES];
    int64_t order[IMAGES];
} data;

/* Layers of a multilayer perceptron; the last gives logits. Beside it, a weak head on
   the first. */
typedef struct net {
    int layers, width[LAYERS + 1];
    bool weak;
    size_t size;
    float *w, *g, *m; /* weights, gradient, momentum: of a layer [out, in], then its bias
                         [out] */
    float *h[LAYERS + 1], *d[LAYERS + 1]; /* [TEACH, width]: activations, and their gradients */
    float *weak_logits, *weak_d;
} net;

static size_t layer_size(const net *n, int l)
{
    return (size_t)n->width[l + 1] * (size_t)(n->width[l] + 1);
}

static size_t layer_at(const net *n, int l)
{
    size_t at = 0;
    for (int i = 0; i < l; i++) at += layer_size(n, i);
    return at;
}

/* The weak head's weights [CLASSES, width of the first hidden layer] and bias lie after
   the layers'. */
static net *net_make(run_t *r, rng *g, int layers, const int *width, bool weak)
{
    net *n = run_memory(r, sizeof *n);
    n->layers = layers, n->weak = weak;
    memcpy(n->width, width, (size_t)(layers + 1) * sizeof *width);
    n->size = layer_at(n, layers) + (weak ? (size_t)CLASSES * (size_t)(width[1] + 1) : 0);
    n->w = run_floats(r, n->size), n->g = run_floats(r, n->size), n->m = run_floats(r, n->size);
    for (int l = 0; l <= layers; l++) {
        n->h[l] = run_floats(r, (size_t)TEACH * (size_t)width[l]);
        n->d[l] = run_floats(r, (size_t)TEACH * (size_t)width[l]);
    }
    n->weak_logits = run_floats(r, TEACH * CLASSES), n->weak_d = run_floats(r, TEACH * CLASSES);
    for (int l = 0; l < layers; l++)
        fill_normal(g, (size_t)width[l] * (size_t)width[l + 1], n->w + layer_at(n, l), 0,
                    sqrt(2.0 / width[l]));
    if (weak)
        fill_normal(g, (size_t)width[1] * CLASSES, n->w + layer_at(n, layers), 0,
                    sqrt(2.0 / width[1]));
    return n;
}

static void net_free(run_t *r, net *n)
{
    run_release(r, n->w), run_release(r, n->g), run_release(r, n->m);
    for (int l = 0; l <= n->layers; l++) run_release(r, n->h[l]), run_release(r, n->d[l]);
    run_release(r, n->weak_logits), run_release(r, n->weak_d);
    run_release(r, n);
}

/* y = x w' + b; with relu, of that. */
static void affine(int rows, int in, int out, const float *x, const float *w, float *y,
                   bool relu)
{
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            const float *a = x + (size_t)r * (size_t)in, *b = w + (size_t)o * (size_t)in;
            float lane[16] = { 0 };
            for (int i = 0; i + 16 <= in; i += 16)
                for (int j = 0; j < 16; j++) lane[j] += a[i + j] * b[i + j];
            for (int i = in / 16 * 16; i < in; i++) lane[0] += a[i] * b[i];
            float s = w[(size_t)in * (size_t)out + (size_t)o];
            for (int j = 0; j < 16; j++) s += lane[j];
            y[(size_t)r * (size_t)out + (size_t)o] = relu && s < 0 ? 0 : s;
        }
}

/* g += of w and b; dx = or += of x. */
static void affine_back(int rows, int in, int out, const float *x, const float *w,
                        const float *dy, float *g, float *dx, bool add)
{
    for (int r = 0; r < rows; r++) {
        const float *a = x + (size_t)r * (size_t)in;
        float *d = dx ? dx + (size_t)r * (size_t)in : NULL;
        if (d && !add) memset(d, 0, (size_t)in * sizeof *d);
        for (int o = 0; o < out; o++) {
            const float e = dy[(size_t)r * (size_t)out + (size_t)o],
                        *b = w + (size_t)o * (size_t)in;
            float *gw = g + (size_t)o * (size_t)in;
            if (e == 0) continue;
            for (int i = 0; i < in; i++) gw[i] += e * a[i];
            for (int i = 0; d && i < in; i++) d[i] += e * b[i];
            g[(size_t)in * (size_t)out + (size_t)o] += e;
        }
    }
}

static void forward(net *n, int rows)
{
    for (int l = 0; l < n->layers; l++)
        affine(rows, n->width[l], n->width[l + 1], n->h[l], n->w + layer_at(n, l), n->h[l + 1],
               l + 1 < n->layers);
    if (n->weak)
        affine(rows, n->width[1], CLASSES, n->h[1], n->w + layer_at(n, n->layers),
               n->weak_logits, false);
}

static void backward(net *n, int rows, bool weak)
{
    memset(n->g, 0, n->size * sizeof *n->g);
    for (int l = n->layers; l-- > 0;) {
        affine_back(rows, n->width[l], n->width[l + 1], n->h[l], n->w + layer_at(n, l),
                    n->d[l + 1], n->g + layer_at(n, l), l ? n->d[l] : NULL, false);
        if (l == 1 && weak)
            affine_back(rows, n->width[1], CLASSES, n->h[1], n->w + layer_at(n, n->layers),
                        n->weak_d, n->g + layer_at(n, n->layers), n->d[1], true);
        for (size_t i = 0; l && i < (size_t)rows * (size_t)n->width[l]; i++)
            if (n->h[l][i] <= 0) n->d[l][i] = 0;
    }
}

/* SGD with momentum 0.9, decay 5e-4, the gradient's norm clipped to 5. */
static void step(net *n, double lr)
{
    double norm = 0;
    for (size_t i = 0; i < n->size; i++) norm += (double)n->g[i] * (double)n->g[i];
    float clip = norm > 25 ? (float)(5 / sqrt(norm)) : 1.0f;
    for (size_t i = 0; i < n->size; i++) {
        n->m[i] = 0.9f * n->m[i] + clip * n->g[i] + 5e-4f * n->w[i];
        n->w[i] -= (float)lr * n->m[i];
    }
}

/* ---- Losses ------------------------------------------------------------------------------ */

enum kind { CE, KD1, NKD, KD4, USKD, USKD_SMALL, KINDS };

typedef struct job {
    run_t *r;
    slg_ctx *ctx;
    const data *d;
} job;

static void loss(const job *j, enum kind kind, net *n, const int32_t *y, const float *teacher)
{
    slg_tensor x = slg_tensor_2d(n->h[n->layers], SLG_F32, BATCH, CLASSES);
    slg_tensor dx = slg_tensor_2d(n->d[n->layers], SLG_F32, BATCH, CLASSES);
    slg_tensor t =
        slg_tensor_2d(kind >= USKD ? n->weak_logits : teacher, SLG_F32, BATCH, CLASSES);
    slg_tensor dt = slg_tensor_2d(n->weak_d, SLG_F32, BATCH, CLASSES);
    slg_tensor index = slg_tensor_1d(y, SLG_I32, BATCH);
    slg_logits lx = slg_logits_dense(&x), lt = slg_logits_dense(&t);
    slg_targets targets = slg_targets_index(&index);
    slg_logits_grad g = slg_grad_dense(&dx), gt = slg_grad_dense(&dt);
    slg_loss_out out = slg_loss_out_none();
    if (kind == CE) {
        must(j->r, j->ctx, slg_cross_entropy(j->ctx, &lx, &targets, NULL, &out, &g));
        return;
    }
    targets.teacher = &lt;
    if (kind == NKD) {
        slg_nkd_opts o;
        slg_nkd_opts_init(&o, sizeof o);
        o.cross_entropy = 1;
        must(j->r, j->ctx, slg_nkd(j->ctx, &lx, &targets, &o, &out, &g));
    } else if (kind < USKD) {
        slg_distillation_opts o;
        slg_distillation_opts_init(&o, sizeof o);
        o.cross_entropy = 1, o.temperature = kind == KD4 ? 4 : 1;
        must(j->r, j->ctx, slg_distillation(j->ctx, &lx, &targets, &o, &out, &g));
    } else {
        slg_uskd_opts o;
        slg_uskd_opts_init(&o, sizeof o);
        o.cross_entropy = 1;
        if (kind == USKD_SMALL) o.alpha = 0.1, o.mu = 0.1;
        must(j->r, j->ctx, slg_uskd(j->ctx, &lx, &targets, &o, &out, &g, &gt));
    }
}

static void gather(const data *d, const int64_t *rows, int count, float *x, int32_t *y)
{
    for (int i = 0; i < count; i++) {
        memcpy(x + (size_t)i * PIXELS, d->x[rows[i]], sizeof d->x[0]);
        y[i] = d->y[rows[i]];
    }
}

/* teacher: logits by image, or NULL. */
static void train(const job *j, rng *g, net *n, enum kind kind, int images, int epochs,
                  const float *teacher)
{
    int64_t order[TEACH];
    int32_t y[BATCH];
    float t[BATCH * CLASSES];
    const int batches = images / BATCH;
    for (int i = 0; i < images; i++) order[i] = j->d->order[i];
    for (int s = 0; s < epochs * batches; s++) {
        const int64_t *rows = order + s % batches * BATCH;
        if (s % batches == 0) rng_shuffle(g, (size_t)images, order);
        gather(j->d, rows, BATCH, n->h[0], y);
        for (int i = 0; teacher && i < BATCH; i++)
            memcpy(t + i * CLASSES, teacher + rows[i] * CLASSES, CLASSES * sizeof *t);
        forward(n, BATCH);
        loss(j, kind, n, y, t);
        backward(n, BATCH, kind >= USKD);
        step(n, 0.025 * (1 + cos(3.141592653589793 * s / (epochs * batches))));
    }
}

static double accuracy(const job *j, net *n)
{
    int32_t y[TEST];
    int right = 0;
    gather(j->d, j->d->order + IMAGES - TEST, TEST, n->h[0], y);
    forward(n, TEST);
    for (int i = 0; i < TEST; i++) {
        const float *x = n->h[n->layers] + (size_t)i * CLASSES;
        int best = 0;
        for (int k = 1; k < CLASSES; k++)
            if (x[k] > x[best]) best = k;
        right += best == y[i];
    }
    return (double)right / TEST;
}

/* ---- The run ----------------------------------------------------------------------------- */

/* Columns less their mean over deviation + 1e-3, clipped to +-4. */
static data *read_digits(run_t *r)
{
    csv t = csv_read(r, "digits.csv.gz", ',');
    data *d = run_memory(r, sizeof *d);
    if (t.rows != IMAGES || t.cols != PIXELS + 1)
        run_fail(r, "digits.csv.gz is %zu x %zu", t.rows, t.cols);
    for (size_t k = 0; k <= PIXELS; k++) {
        double mean = 0, square = 0;
        for (size_t i = 0; i < IMAGES; i++) mean += csv_number(&t, i, k) / IMAGES;
        for (size_t i = 0; i < IMAGES; i++)
            square += pow(csv_number(&t, i, k) - mean, 2) / IMAGES;
        for (size_t i = 0; i < IMAGES; i++) {
            double v = csv_number(&t, i, k);
            if (k == PIXELS)
                d->y[i] = (int32_t)v;
            else
                d->x[i][k] = (float)fmin(fmax((v - mean) / (sqrt(square) + 1e-3), -4), 4);
        }
    }
    return d;
}

static double mean_of(int n, const double *v)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    return sum / n;
}

static double spread_of(int n, const double *v)
{
    double sum = 0, mean = mean_of(n, v);
    for (int i = 0; i < n; i++) sum += (v[i] - mean) * (v[i] - mean);
    return sqrt(sum / n);
}

/* Accuracies of a seed: the teacher's, and of each kind of student. */
static double one_seed(const job *j, uint64_t seed, double *with, double *weak_ce)
{
    static const int teacher_width[] = { PIXELS, WIDEST, WIDEST, CLASSES };
    static const int student[] = { PIXELS, 12, CLASSES }, two[] = { PIXELS, 12, 12, CLASSES };
    rng g = rng_seed(seed);
    float *logits = run_floats(j->r, (size_t)IMAGES * CLASSES);
    net *teacher = net_make(j->r, &g, 3, teacher_width, false);
    train(j, &g, teacher, CE, TEACH, 25, NULL);
    for (int64_t i = 0; i < LEARN; i++) {
        int64_t row = j->d->order[i];
        memcpy(teacher->h[0], j->d->x[row], sizeof j->d->x[0]);
        forward(teacher, 1);
        memcpy(logits + row * CLASSES, teacher->h[3], CLASSES * sizeof *logits);
    }
    double best = accuracy(j, teacher);
    net_free(j->r, teacher);
    for (int k = 0; k <= KINDS; k++) { /* the last: cross-entropy for the deeper student */
        rng own = rng_seed(1000 + seed);
        bool deep = k >= USKD;
        net *n = net_make(j->r, &own, deep ? 3 : 2, deep ? two : student, deep);
        train(j, &own, n, k == KINDS ? CE : (enum kind)k, LEARN, 40, logits);
        *(k == KINDS ? weak_ce : &with[k]) = accuracy(j, n);
        net_free(j->r, n);
    }
    run_release(j->r, logits);
    return best;
}

static void run(run_t *r)
{
    static const char *const names[KINDS] = { "CE",
                                              "CE + KD, tau 1",
                                              "CE + NKD",
                                              "CE + KD, tau 4",
                                              "CE + USKD (1, 0.1, 0.005)",
                                              "CE + USKD (0.1, 0.1, 0.1)" };
    const int seeds = run_quick(r) ? 2 : SEEDS;
    double with[KINDS][SEEDS], weak_ce[SEEDS], best[SEEDS], mean[KINDS];
    data *d = read_digits(r);
    job j = { r, run_ctx(r, SLG_ISA_AUTO, 1), d };
    for (int s = 0; s < seeds; s++) {
        double one[KINDS];
        rng g = rng_seed(100 + (uint64_t)s);
        for (int64_t i = 0; i < IMAGES; i++) d->order[i] = i;
        rng_shuffle(&g, IMAGES, d->order);
        best[s] = one_seed(&j, (uint64_t)s, one, &weak_ce[s]);
        for (int k = 0; k < KINDS; k++) with[k][s] = one[k];
    }
    note(r, "test accuracy over %d seeds: teacher %.3f", seeds, mean_of(seeds, best));
    for (int k = 0; k < KINDS; k++) {
        mean[k] = mean_of(seeds, with[k]);
        note(r, "%-26s %.3f +- %.3f", names[k], mean[k], spread_of(seeds, with[k]));
    }
    double base = mean_of(seeds, weak_ce);
    note(r, "%-26s %.3f +- %.3f", "CE, the deeper student", base, spread_of(seeds, weak_ce));
    bool full = !run_quick(r);
    claim(r, "NKD beside cross-entropy, over cross-entropy alone", "+2.06 points (ResNet-18)",
          100 * (mean[NKD] - mean[CE]), "points", full ? at_least(2.5) : no_bar());
    claim(r, "NKD over distillation at its own temperature, 1", "",
          100 * (mean[NKD] - mean[KD1]), "points", full ? at_least(0) : no_bar());
    claim(r, "NKD over distillation at a tuned temperature, 4", "",
          100 * (mean[NKD] - mean[KD4]), "points", no_bar());
    claim(r, "USKD without a teacher, over cross-entropy alone", "+0.89 points (ResNet-18)",
          100 * (mean[USKD] - base), "points", full ? at_least(1.5) : no_bar());
    claim(r, "USKD, (0.1, 0.1, 0.1)", "", 100 * (mean[USKD_SMALL] - base), "points", no_bar());
}

const paper paper_10_nkd_uskd = {
    10, "nkd-uskd", "From Knowledge Distillation to Self-Knowledge Distillation (NKD, USKD)",
    run
};
