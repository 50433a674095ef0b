/*
 * 22 - Dual-Head Knowledge Distillation (2024), on the digits of scikit-learn.
 *
 * A student 64-16 (ReLU) with linear heads learns from labels (cross-entropy) and from
 * a teacher's logits (the normalised binary divergence, tau 2): with one head for both losses,
 * with two, and with two and aligned gradients. SGD with momentum 0.9, weight decay 5e-4,
 * cosine from 0.05, batches of 50, gradients clipped to norm 5. The last 800 images
 * of the seed's permutation are the test.
 *
 * What is claimed is the paper's analysis (on one head the two gradients oppose each other, on
 * the features of two heads they do not), and where one head hurts (a weak teacher, few
 * images). That two heads beat one with a strong teacher is not to be seen at this size.
 */
#include "papers.h"

#include <cblas.h>

enum { IN = 64, CLASSES = 10, IMAGES = 1797, TEST = 800, TEACHER_IMAGES = 900, BATCH = 50 };
enum { WIDE = 256, MAX_HIDDEN = 16, MAX_SEEDS = 24 };

enum mode { CE, KD, LOGIT, ONE, TWO, ALIGNED, MODES };

typedef struct data {
    int64_t order[IMAGES];
    float *x; /* [IMAGES, IN], in the seed's order, standardised */
    int32_t label[IMAGES];
    float *teacher; /* [IMAGES, CLASSES] logits */
} data;

/* ---- Layers ------------------------------------------------------------------------------ */

/* y [n, out] = x w' + b */
static void layer(int n, int in, int out, const float *x, const float *w, const float *b,
                  float *y)
{
    for (int i = 0; i < n; i++) memcpy(y + i * out, b, (size_t)out * sizeof *y);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, out, in, 1, x, in, w, in, 1, y,
                out);
}

/* dw = dy' x, db = sum dy; dx = dy w unless NULL */
static void layer_back(int n, int in, int out, const float *x, const float *w, const float *dy,
                       float *dw, float *db, float *dx)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, n, 1, dy, out, x, in, 0, dw,
                in);
    memset(db, 0, (size_t)out * sizeof *db);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < out; j++) db[j] += dy[i * out + j];
    if (dx)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, in, out, 1, dy, out, w, in, 0,
                    dx, in);
}

static void relu(size_t n, float *x)
{
    for (size_t i = 0; i < n; i++) x[i] = x[i] > 0 ? x[i] : 0;
}

static void relu_back(size_t n, const float *y, float *d)
{
    for (size_t i = 0; i < n; i++)
        if (!(y[i] > 0)) d[i] = 0;
}

/* A layer's weights, [out, in] and [out], as PyTorch starts them. */
static void start_layer(rng *g, int in, int out, float *w)
{
    const double bound = 1 / sqrt(in);
    fill_uniform(g, (size_t)(in + 1) * (size_t)out, w, -bound, bound);
}

static void sgd(size_t n, float *w, float *g, float *m, double lr)
{
    double norm = 0;
    for (size_t i = 0; i < n; i++) norm += (double)g[i] * (double)g[i];
    const float clip = norm > 25 ? (float)(5 / sqrt(norm)) : 1;
    for (size_t i = 0; i < n; i++) {
        m[i] = 0.9f * m[i] + clip * g[i] + 5e-4f * w[i];
        w[i] -= (float)lr * m[i];
    }
}

static double cosine_lr(int64_t step, int64_t steps)
{
    return 0.05 * 0.5 * (1 + cos(3.14159265358979 * (double)step / (double)steps));
}

static int best_of(const float *row)
{
    int at = 0;
    for (int c = 1; c < CLASSES; c++)
        if (row[c] > row[at]) at = c;
    return at;
}

static double accuracy(const data *d, const float *logits) /* of the test images */
{
    int right = 0;
    for (int i = 0; i < TEST; i++)
        right += best_of(logits + i * CLASSES) == d->label[IMAGES - TEST + i];
    return (double)right / TEST;
}

/* ---- Data -------------------------------------------------------------------------------- */

static void load(run_t *r, const csv *t, uint64_t seed, data *d)
{
    rng g = rng_seed(seed);
    d->x = run_floats(r, IMAGES * IN);
    d->teacher = run_floats(r, IMAGES * CLASSES);
    for (int64_t i = 0; i < IMAGES; i++) d->order[i] = i;
    rng_shuffle(&g, IMAGES, d->order);
    for (int i = 0; i < IMAGES; i++) {
        size_t row = (size_t)d->order[i];
        d->label[i] = (int32_t)csv_number(t, row, IN);
        for (size_t c = 0; c < IN; c++) d->x[i * IN + (int)c] = (float)csv_number(t, row, c);
    }
    for (int c = 0; c < IN; c++) {
        double sum = 0, square = 0;
        for (int i = 0; i < TEACHER_IMAGES; i++) sum += (double)d->x[i * IN + c];
        const double mean = sum / TEACHER_IMAGES;
        for (int i = 0; i < TEACHER_IMAGES; i++)
            square += pow((double)d->x[i * IN + c] - mean, 2);
        const double sd = sqrt(square / TEACHER_IMAGES) + 1e-3;
        for (int i = 0; i < IMAGES; i++) {
            double v = ((double)d->x[i * IN + c] - mean) / sd;
            d->x[i * IN + c] = (float)fmax(-4, fmin(4, v));
        }
    }
}

/* A batch of the first `images`, the epoch's order in pick. */
static void gather(const data *d, const int64_t *pick, int n, float *x, int32_t *y,
                   float *teacher)
{
    for (int i = 0; i < n; i++) {
        memcpy(x + i * IN, d->x + pick[i] * IN, IN * sizeof *x);
        memcpy(teacher + i * CLASSES, d->teacher + pick[i] * CLASSES,
               CLASSES * sizeof *teacher);
        y[i] = d->label[pick[i]];
    }
}

/* ---- Teachers ---------------------------------------------------------------------------- */

/* Hidden layers of WIDE (2 or 0); its logits times `scale` go to d->teacher. Returns its
   accuracy. */
static double teach(run_t *r, slg_ctx *ctx, data *d, int hidden, int images, int epochs,
                    double scale, uint64_t seed)
{
    const int size[4] = { IN, hidden ? WIDE : CLASSES, WIDE, CLASSES }, layers = hidden ? 3 : 1;
    size_t at[4] = { 0 };
    for (int l = 0; l < layers; l++)
        at[l + 1] = at[l] + (size_t)(size[l] + 1) * (size_t)size[l + 1];
    const size_t n = at[layers];
    float *w = run_floats(r, n), *g = run_floats(r, n), *m = run_floats(r, n);
    float *act[4], *back[4];
    rng random = rng_seed(seed + 1000);
    for (int l = 0; l <= layers; l++) {
        act[l] = run_floats(r, IMAGES * (size_t)size[l]);
        back[l] = run_floats(r, BATCH * (size_t)size[l]);
    }
    for (int l = 0; l < layers; l++) start_layer(&random, size[l], size[l + 1], w + at[l]);
    int64_t *pick = run_memory(r, (size_t)images * sizeof *pick);
    for (int64_t i = 0; i < images; i++) pick[i] = i;
    float unused[BATCH * CLASSES];
    int32_t y[BATCH];
    const int64_t steps = (int64_t)epochs * (images / BATCH);
    for (int64_t step = 0; step < steps; step++) {
        const int64_t in_epoch = step % (images / BATCH);
        if (in_epoch == 0) rng_shuffle(&random, (size_t)images, pick);
        gather(d, pick + in_epoch * BATCH, BATCH, act[0], y, unused);
        for (int l = 0; l < layers; l++) {
            const float *b = w + at[l] + size[l] * size[l + 1];
            layer(BATCH, size[l], size[l + 1], act[l], w + at[l], b, act[l + 1]);
            if (l + 1 < layers) relu(BATCH * (size_t)size[l + 1], act[l + 1]);
        }
        slg_tensor z = slg_tensor_2d(act[layers], SLG_F32, BATCH, CLASSES);
        slg_tensor dz = slg_tensor_2d(back[layers], SLG_F32, BATCH, CLASSES);
        slg_tensor ty = slg_tensor_1d(y, SLG_I32, BATCH);
        slg_logits logits = slg_logits_dense(&z);
        slg_targets targets = slg_targets_index(&ty);
        slg_loss_out out = slg_loss_out_none();
        slg_logits_grad grad = slg_grad_dense(&dz);
        must(r, ctx, slg_cross_entropy(ctx, &logits, &targets, NULL, &out, &grad));
        for (int l = layers - 1; l >= 0; l--) {
            float *db = g + at[l] + size[l] * size[l + 1];
            layer_back(BATCH, size[l], size[l + 1], act[l], w + at[l], back[l + 1], g + at[l],
                       db, l ? back[l] : NULL);
            if (l) relu_back(BATCH * (size_t)size[l], act[l], back[l]);
        }
        sgd(n, w, g, m, cosine_lr(step, steps));
    }
    memcpy(act[0], d->x, IMAGES * IN * sizeof *d->x);
    for (int l = 0; l < layers; l++) {
        const float *b = w + at[l] + size[l] * size[l + 1];
        layer(IMAGES, size[l], size[l + 1], act[l], w + at[l], b, act[l + 1]);
        if (l + 1 < layers) relu(IMAGES * (size_t)size[l + 1], act[l + 1]);
    }
    for (int i = 0; i < IMAGES * CLASSES; i++) d->teacher[i] = (float)scale * act[layers][i];
    return accuracy(d, d->teacher + (IMAGES - TEST) * CLASSES);
}

/* ---- Students ---------------------------------------------------------------------------- */

typedef struct student {
    int hidden, images, epochs;
    enum mode mode;
    uint64_t seed;
} student;

typedef struct outcome {
    double accuracy, head_cosine, feature_cosine; /* over the second half of training */
    double head_negative;                         /* share of its steps with a negative head
                                                     cosine */
} outcome;

/* Weights and gradients as one vector: backbone, main head, auxiliary head, with their
   biases. */
typedef struct net {
    int hidden;
    size_t main, auxiliary, n;
} net;

static net net_of(int hidden)
{
    net t = { .hidden = hidden };
    t.main = (size_t)(IN + 1) * (size_t)hidden;
    t.auxiliary = t.main + (size_t)(hidden + 1) * CLASSES;
    t.n = t.auxiliary + (size_t)(hidden + 1) * CLASSES;
    return t;
}

/* A head as the library takes it: weights or gradients at v, features or their gradient at
   f. */
typedef struct head {
    slg_tensor features, weight, bias;
} head;

static head head_of(const net *t, float *v, float *f)
{
    return (head){ slg_tensor_2d(f, SLG_F32, BATCH, t->hidden),
                   slg_tensor_2d(v, SLG_F32, CLASSES, t->hidden),
                   slg_tensor_1d(v + t->hidden * CLASSES, SLG_F32, CLASSES) };
}

typedef struct step {
    float x[BATCH * IN], teacher[BATCH * CLASSES], soft[BATCH * CLASSES];
    int32_t y[BATCH];
    float features[BATCH * MAX_HIDDEN], d1[BATCH * MAX_HIDDEN], d2[BATCH * MAX_HIDDEN];
} step;

/* Gradients of the step's losses: the main one into g1 and s->d1, the other into g2 and s->d2;
   what a loss does not reach is 0. */
static void losses(run_t *r, slg_ctx *ctx, const net *t, enum mode mode, float *w, step *s,
                   float *g1, float *g2)
{
    const bool two = mode == TWO || mode == ALIGNED;
    const size_t second = two ? t->auxiliary : t->main;
    head a = head_of(t, w + t->main, s->features), b = head_of(t, w + second, s->features);
    head da = head_of(t, g1 + t->main, s->d1), db = head_of(t, g2 + second, s->d2);
    slg_logits main = slg_logits_layer(&a.features, &a.weight, &a.bias);
    slg_logits other = slg_logits_layer(&b.features, &b.weight, &b.bias);
    slg_logits_grad dmain = slg_grad_layer(&da.features, &da.weight, &da.bias);
    slg_logits_grad dother = slg_grad_layer(&db.features, &db.weight, &db.bias);
    slg_tensor y = slg_tensor_1d(s->y, SLG_I32, BATCH);
    slg_tensor z = slg_tensor_2d(s->teacher, SLG_F32, BATCH, CLASSES);
    slg_tensor soft = slg_tensor_2d(s->soft, SLG_F32, BATCH, CLASSES);
    slg_logits teacher = slg_logits_dense(&z);
    slg_targets targets = slg_targets_index(&y), distil;
    slg_loss_out out = slg_loss_out_none(), more = slg_loss_out_none();
    memset(g1, 0, t->n * sizeof *g1), memset(g2, 0, t->n * sizeof *g2);
    memset(s->d1, 0, sizeof s->d1), memset(s->d2, 0, sizeof s->d2);
    slg_targets_init(&distil, sizeof distil);
    distil.teacher = &teacher;
    if (two) {
        targets.teacher = &teacher;
        must(r, ctx,
             slg_dual_head(ctx, &main, &other, &targets, NULL, &out, &more, &dmain, &dother));
        return;
    }
    if (mode == CE || mode == ONE)
        must(r, ctx, slg_cross_entropy(ctx, &main, &targets, NULL, &out, &dmain));
    if (mode == LOGIT || mode == ONE)
        must(r, ctx, slg_binary_kl_normalised(ctx, &other, &distil, NULL, &more, &dother));
    if (mode == KD) {
        slg_softmax_opts o;
        slg_softmax_opts_init(&o, sizeof o);
        o.temperature = main.temperature = 4;
        must(r, ctx, slg_softmax(ctx, &z, &o, &soft, NULL));
        slg_targets prob = slg_targets_prob(&soft);
        must(r, ctx, slg_cross_entropy(ctx, &main, &prob, NULL, &out, &dmain));
        for (size_t i = 0; i < t->n; i++) g1[i] *= 16;
        for (int i = 0; i < BATCH * t->hidden; i++) s->d1[i] *= 16;
    }
}

static double cosine(size_t n, const float *a, const float *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

/* Through the ReLU and the first layer. */
static void backbone_back(const net *t, step *s, const float *w, float *d, float *g)
{
    relu_back(BATCH * (size_t)t->hidden, s->features, d);
    layer_back(BATCH, IN, t->hidden, s->x, w, d, g, g + IN * t->hidden, NULL);
}

static void test_student(run_t *r, const net *t, const data *d, const float *w, outcome *o)
{
    const float *x = d->x + (IMAGES - TEST) * IN;
    float *f = run_floats(r, TEST * (size_t)t->hidden), *z = run_floats(r, TEST * CLASSES);
    layer(TEST, IN, t->hidden, x, w, w + IN * t->hidden, f);
    relu(TEST * (size_t)t->hidden, f);
    layer(TEST, t->hidden, CLASSES, f, w + t->main, w + t->main + t->hidden * CLASSES, z);
    o->accuracy = accuracy(d, z);
}

static outcome train(run_t *r, slg_ctx *ctx, const data *d, const student *p)
{
    const net t = net_of(p->hidden);
    float *w = run_floats(r, t.n), *g1 = run_floats(r, t.n), *g2 = run_floats(r, t.n);
    float *m = run_floats(r, t.n);
    step *s = run_memory(r, sizeof *s);
    int64_t pick[TEACHER_IMAGES];
    outcome o = { 0 };
    slg_align_gradients_opts merge;
    slg_align_gradients_opts_init(&merge, sizeof merge);
    merge.merge = 1;
    rng random = rng_seed(p->seed + 2000);
    start_layer(&random, IN, t.hidden, w);
    start_layer(&random, t.hidden, CLASSES, w + t.main);
    start_layer(&random, t.hidden, CLASSES, w + t.auxiliary);
    for (int64_t i = 0; i < p->images; i++) pick[i] = i;
    const int64_t batches = p->images / BATCH, steps = p->epochs * batches;
    for (int64_t i = 0; i < steps; i++) {
        if (i % batches == 0) rng_shuffle(&random, (size_t)p->images, pick);
        gather(d, pick + i % batches * BATCH, BATCH, s->x, s->y, s->teacher);
        layer(BATCH, IN, t.hidden, s->x, w, w + IN * t.hidden, s->features);
        relu(BATCH * (size_t)t.hidden, s->features);
        losses(r, ctx, &t, p->mode, w, s, g1, g2);
        if (i >= steps / 2) {
            double c = cosine(t.auxiliary - t.main, g1 + t.main, g2 + t.main);
            o.head_cosine += c / (double)(steps - steps / 2);
            o.head_negative += (c < 0) / (double)(steps - steps / 2);
            o.feature_cosine +=
                cosine(BATCH * (size_t)t.hidden, s->d1, s->d2) / (double)(steps - steps / 2);
        }
        backbone_back(&t, s, w, s->d1, g1);
        backbone_back(&t, s, w, s->d2, g2);
        if (p->mode == ALIGNED) {
            slg_tensor a = slg_tensor_1d(g1, SLG_F32, (int64_t)t.n),
                       b = slg_tensor_1d(g2, SLG_F32, (int64_t)t.n);
            slg_tensor *main = &a, *auxiliary = &b;
            must(r, ctx, slg_align_gradients(ctx, 1, &main, &auxiliary, &merge, NULL));
        } else {
            for (size_t k = 0; k < t.n; k++) g1[k] += g2[k];
        }
        sgd(t.n, w, g1, m, cosine_lr(i, steps));
    }
    test_student(r, &t, d, w, &o);
    return o;
}

/* ---- Claims ------------------------------------------------------------------------------ */

typedef struct experiment {
    const char *name;
    int teacher_hidden, teacher_images, teacher_epochs;
    double teacher_scale;
    int hidden, images, epochs, seeds;
} experiment;

static const char *const mode_name[MODES] = {
    "CE",       "KD (temperature 4)", "logit loss alone",
    "one head", "two heads",          "two heads, aligned"
};

/* Means over seeds; and of what two heads are above one, the standard error too: from seed
   to seed it differs by more than its mean. */
static void run_experiment(run_t *r, slg_ctx *ctx, const csv *t, const experiment *e,
                           outcome mean[MODES])
{
    const int seeds = run_quick(r) ? 2 : e->seeds;
    double teacher = 0, gap = 0, gap2 = 0;
    memset(mean, 0, MODES * sizeof *mean);
    for (int seed = 0; seed < seeds; seed++) {
        data d;
        load(r, t, (uint64_t)seed, &d);
        teacher += teach(r, ctx, &d, e->teacher_hidden, e->teacher_images, e->teacher_epochs,
                         e->teacher_scale, (uint64_t)seed) /
                   seeds;
        double accuracy_of[MODES];
        for (int mode = 0; mode < MODES; mode++) {
            const student p = { e->hidden, e->images, e->epochs, (enum mode)mode,
                                (uint64_t)seed };
            outcome o = train(r, ctx, &d, &p);
            accuracy_of[mode] = o.accuracy;
            mean[mode].accuracy += o.accuracy / seeds;
            mean[mode].head_cosine += o.head_cosine / seeds;
            mean[mode].head_negative += o.head_negative / seeds;
            mean[mode].feature_cosine += o.feature_cosine / seeds;
        }
        const double of_seed = 100 * (accuracy_of[TWO] - accuracy_of[ONE]);
        gap += of_seed / seeds, gap2 += of_seed * of_seed / seeds;
    }
    note(r, "%s, %d seeds: teacher %.3f", e->name, seeds, teacher);
    for (int mode = 0; mode < MODES; mode++)
        note(r, "  %-20s accuracy %.3f, cosine of the gradients on the features %+.2f",
             mode_name[mode], mean[mode].accuracy, mean[mode].feature_cosine);
    note(r, "  two heads above one: %+.2f +- %.2f points (standard error)", gap,
         sqrt(fmax(0, gap2 - gap * gap) / fmax(1, seeds - 1)));
}

static void run(run_t *r)
{
    static const experiment strong = {
        "strong teacher, 300 images", 1, TEACHER_IMAGES, 60, 0.2, 16, 300, 60, 4
    };
    static const experiment weak = {
        "weak teacher, 300 images", 0, 300, 4, 1, 16, 300, 60, MAX_SEEDS
    };
    static const experiment few = {
        "strong teacher, 150 images", 1, TEACHER_IMAGES, 60, 1, 12, 150, 40, 5
    };
    const csv t = csv_read(r, "digits.csv.gz", ',');
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    outcome m[MODES];
    if (t.rows != IMAGES || t.cols != IN + 1)
        run_fail(r, "digits.csv.gz is %zu x %zu", t.rows, t.cols);

    run_experiment(r, ctx, &t, &strong, m);
    claim(r, "one head: cosine of the two gradients on its weights", "they conflict",
          m[ONE].head_cosine, "", at_most(-0.5));
    claim(r, "one head: steps in which that cosine is negative", "", 100 * m[ONE].head_negative,
          "%", no_bar());
    claim(r, "two heads: cosine on the features", "they do not", m[TWO].feature_cosine, "",
          at_least(-0.05));
    claim(r, "strong teacher: two heads above CE", "", 100 * (m[TWO].accuracy - m[CE].accuracy),
          "points", at_least(0));

    run_experiment(r, ctx, &t, &weak, m);
    claim(r, "weak teacher: two heads above one head", "one head collapses",
          100 * (m[TWO].accuracy - m[ONE].accuracy), "points", at_least(1));
    claim(r, "weak teacher: aligned above one head", "",
          100 * (m[ALIGNED].accuracy - m[ONE].accuracy), "points", no_bar());

    run_experiment(r, ctx, &t, &few, m);
    claim(r, "150 images: two heads above CE", "", 100 * (m[TWO].accuracy - m[CE].accuracy),
          "points", at_least(3));
}

const paper paper_22_dhkd = { 22, "dhkd", "Dual-Head Knowledge Distillation", run };
