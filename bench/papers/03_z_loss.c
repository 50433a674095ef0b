/*
 * 03 - The Z-loss: a shift and scale invariant classification loss belonging to the spherical
 * family (2016).
 *
 * Speed: a training step of the factorised output layer over the number of classes, against
 * the same step of our dense layer: fused cross-entropy with dhidden and dweight, then plain
 * SGD. One thread, BLAS too; CPU time. And both leave the same weights, where the loss
 * is the same. Ranking: a small word model on the texts of /usr/share/common-licenses, trained
 * with each loss of the family at equal epochs; share of held-out targets among the first k.
 */
#include <cblas.h>
#include <ctype.h>
#include <dirent.h>
#include <sys/stat.h>
#include <time.h>

#include "papers.h"

/* ---- Speed ------------------------------------------------------------------------------- */

enum { M = 64, SIZES = 4, POOL = 1 << 20 };

static const int64_t sizes[SIZES] = { 10000, 50000, 200000, 793471 };

typedef struct speed {
    run_t *r;
    slg_ctx *ctx;
    int64_t classes, dim;
    slg_spherical_layer *layer;
    slg_optimizer *sgd;
    float *h, *dh, *w, *dw;
    int64_t *target;
    const float *normal; /* [POOL] */
    rng pick;            /* of targets: other rows of V at each step, as in training */
} speed;

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* 0.1 normal, rows out of a table by turns. */
static void fill_weights(const speed *s, float *w)
{
    const size_t d = (size_t)s->dim;
    for (size_t i = 0; i < (size_t)s->classes; i++)
        for (size_t j = 0; j < d; j++)
            w[i * d + j] = 0.1f * s->normal[(i * 7919 + j * (2 * (i >> 8) + 1)) % POOL];
}

static void speed_open(speed *s, rng *g)
{
    const int64_t n = M * s->dim;
    s->h = run_floats(s->r, (size_t)n), s->dh = run_floats(s->r, (size_t)n);
    s->target = run_memory(s->r, M * sizeof *s->target);
    fill_normal(g, (size_t)n, s->h, 0, 1);
    s->pick = rng_seed((uint64_t)s->classes);
    for (int i = 0; i < M; i++) s->target[i] = rng_below(&s->pick, s->classes);
    float *w = run_floats(s->r, (size_t)(s->classes * s->dim));
    fill_weights(s, w);
    slg_tensor t = slg_tensor_2d(w, SLG_F32, s->classes, s->dim);
    must(s->r, s->ctx,
         slg_spherical_layer_create(s->ctx, s->classes, s->dim, &t, NULL, &s->layer));
    run_release(s->r, w);
}

static void layer_step(void *arg)
{
    speed *s = arg;
    slg_tensor h = slg_tensor_2d(s->h, SLG_F32, M, s->dim),
               dh = slg_tensor_2d(s->dh, SLG_F32, M, s->dim);
    slg_tensor c = slg_tensor_1d(s->target, SLG_I64, M);
    slg_spherical_batch b;
    slg_spherical_layer_out out;
    slg_spherical_batch_init(&b, sizeof b);
    slg_spherical_layer_out_init(&out, sizeof out);
    b.hidden = &h, b.target = &c, out.dhidden = &dh;
    for (int i = 0; i < M; i++) s->target[i] = rng_below(&s->pick, s->classes);
    must(s->r, s->ctx, slg_spherical_layer_step(s->layer, &b, 0.1, &out));
}

static void dense_step(speed *s)
{
    slg_tensor h = slg_tensor_2d(s->h, SLG_F32, M, s->dim),
               dh = slg_tensor_2d(s->dh, SLG_F32, M, s->dim);
    slg_tensor w = slg_tensor_2d(s->w, SLG_F32, s->classes, s->dim);
    slg_tensor dw = slg_tensor_2d(s->dw, SLG_F32, s->classes, s->dim);
    slg_tensor c = slg_tensor_1d(s->target, SLG_I64, M);
    slg_logits l = slg_logits_layer(&h, &w, NULL);
    slg_targets t = slg_targets_index(&c);
    slg_logits_grad g = slg_grad_layer(&dh, &dw, NULL);
    slg_loss_out out = slg_loss_out_none();
    must(s->r, s->ctx, slg_cross_entropy(s->ctx, &l, &t, NULL, &out, &g));
    must(s->r, s->ctx, slg_optimizer_step(s->sgd, &w, &dw));
}

/* Median CPU time of a dense step. */
static double dense_time(speed *s)
{
    const int64_t n = s->classes * s->dim;
    const int trials = n > 50000000 ? 3 : 5;
    double t[5];
    slg_sgd_opts o;
    slg_sgd_opts_init(&o, sizeof o);
    o.lr = 0.1;
    s->w = run_floats(s->r, (size_t)n), s->dw = run_floats(s->r, (size_t)n);
    fill_weights(s, s->w);
    must(s->r, s->ctx, slg_optimizer_create(s->ctx, SLG_SGD, n, &o, &s->sgd));
    for (int i = -1; i < trials; i++) {
        double from = cpu_seconds();
        dense_step(s);
        if (i >= 0) t[i] = cpu_seconds() - from;
    }
    slg_optimizer_free(s->sgd);
    run_release(s->r, s->w), run_release(s->r, s->dw);
    return median((size_t)trials, t);
}

static void speed_at(run_t *r, slg_ctx *ctx, int64_t dim, size_t count, const float *normal)
{
    speed s[SIZES] = { 0 };
    contender c[SIZES] = { 0 };
    double ratio[SIZES], dense[SIZES], layer[SIZES], gain[SIZES], x[SIZES];
    double most = 0, least = 1e9;
    rng g = rng_seed(3);
    char what[160];
    for (size_t i = 0; i < count; i++) {
        s[i] = (speed){ .r = r, .ctx = ctx, .classes = sizes[i], .dim = dim, .normal = normal };
        speed_open(&s[i], &g);
        c[i] = (contender){ .name = "factorised", .fn = layer_step, .arg = &s[i] };
    }
    race(r, c, count, 25, 1, ratio);
    note(r, "d = %d, m = %d, one thread: ms a step", (int)dim, M);
    note(r, "   classes    factorised (by the first)      dense   speed-up");
    int64_t steps = 0, moved = 0, refactorised = 0;
    for (size_t i = 0; i < count; i++) {
        slg_spherical_layer_info_t info;
        slg_spherical_layer_info_init(&info, sizeof info);
        must(r, ctx, slg_spherical_layer_info(s[i].layer, &info));
        steps += info.steps, moved += info.moved, refactorised += info.refactorised;
        slg_spherical_layer_free(s[i].layer);
        dense[i] = 1e3 * dense_time(&s[i]), layer[i] = 1e3 * c[i].median,
        x[i] = (double)sizes[i];
        gain[i] = dense[i] / layer[i];
        most = fmax(most, ratio[i]), least = fmin(least, ratio[i]);
        note(r, "%10lld  %10.3f  %10.2f    %12.2f   %8.1f", (long long)sizes[i], layer[i],
             ratio[i], dense[i], gain[i]);
    }
    /* What would cost classes x dim for each value, classes x dim^2 for each time. */
    note(r, "in %lld steps %lld singular values were brought back, %lld times refactorised",
         (long long)steps, (long long)moved, (long long)refactorised);
    snprintf(what, sizeof what, "d = %d: slowest of D = 10,000 to %lld by fastest", (int)dim,
             (long long)sizes[count - 1]);
    claim(r, what, "independent of D", most / least, "x", at_most(1.2));
    for (size_t i = 0; i < count; i++) {
        snprintf(what, sizeof what,
                 "d = %d, D = %lld: dense log-softmax step by factorised Z-loss step", (int)dim,
                 (long long)sizes[i]);
        const bool bar_here = dim == 128 && sizes[i] == 50000;
        claim(r, what, sizes[i] == 793471 ? "40 (GPU, whole model)" : "", gain[i], "x",
              bar_here ? at_least(25) : no_bar());
    }
    figure(r, dim == 128 ? "a step, d = 128" : "a step, d = 512", "classes", "ms",
           FIGURE_LOG_X | FIGURE_LOG_Y);
    series(r, "factorised Z-loss", count, x, layer);
    series(r, "dense log-softmax", count, x, dense);
}

/* The Z-loss's dense step in double: outputs, gradient and update over all classes. */
static void same_weights(run_t *r, slg_ctx *ctx)
{
    enum { D = 3000, d = 32, B = 16 };
    const int steps = run_quick(r) ? 200 : 1000;
    const double lr = 30;
    rng g = rng_seed(7);
    float *w0 = run_floats(r, D * d);
    double *w = run_doubles(r, D * d), *h = run_doubles(r, B * d), *o = run_doubles(r, B * D);
    double *got = run_doubles(r, D * d), terms[7][B], off = 0;
    int64_t c[B];
    fill_normal(&g, D * d, w0, 0, 0.1);
    for (int i = 0; i < D * d; i++) w[i] = (double)w0[i];
    slg_tensor ws = slg_tensor_2d(w0, SLG_F32, D, d), hs = slg_tensor_2d(h, SLG_F64, B, d);
    slg_tensor cs = slg_tensor_1d(c, SLG_I64, B), t[7], out = slg_tensor_2d(got, SLG_F64, D, d);
    for (int i = 0; i < 7; i++) t[i] = slg_tensor_1d(terms[i], SLG_F64, B);
    slg_spherical_layer *l;
    must(r, ctx, slg_spherical_layer_create(ctx, D, d, &ws, NULL, &l));
    slg_spherical_batch b;
    slg_spherical_batch_init(&b, sizeof b);
    b.hidden = &hs, b.target = &cs;
    for (int step = 0; step < steps; step++) {
        for (int i = 0; i < B * d; i++) h[i] = rng_normal(&g, 0, 1);
        for (int i = 0; i < B; i++) c[i] = rng_below(&g, D);
        must(r, ctx, slg_spherical_layer_step(l, &b, lr, NULL));
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, B, D, d, 1, h, d, w, d, 0, o, D);
        for (int i = 0; i < B; i++) {
            double s = 0, q = 0;
            for (int k = 0; k < D; k++) s += o[i * D + k], q += o[i * D + k] * o[i * D + k];
            terms[0][i] = s, terms[1][i] = q, terms[2][i] = o[i * D + (int)c[i]];
        }
        must(
            r, ctx,
            slg_spherical_terms(ctx, &t[0], &t[1], &t[2], D, NULL, &t[3], &t[4], &t[5], &t[6]));
        for (int i = 0; i < B; i++) {
            for (int k = 0; k < D; k++)
                o[i * D + k] = terms[4][i] + 2 * terms[5][i] * o[i * D + k];
            o[i * D + (int)c[i]] += terms[6][i];
        }
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, D, d, B, -lr / B, o, D, h, d, 1, w,
                    d);
    }
    must(r, ctx, slg_spherical_layer_rows(l, NULL, &out));
    for (int i = 0; i < D * d; i++) off = fmax(off, fabs(got[i] - w[i]));
    slg_spherical_layer_free(l);
    char what[120];
    snprintf(what, sizeof what,
             "weights after %d steps: largest difference from float64 dense SGD", steps);
    claim(r, what, "exact", off, "", at_most(1e-5));
}

/* ---- Ranking: the text ------------------------------------------------------------------- */

enum {
    CONTEXT = 3,
    EMBED = 32,
    IN = CONTEXT * EMBED,
    HIDDEN = 64,
    BATCH = 100,
    BLOCK = 500,
    KS = 5
};

static const int ks[KS] = { 1, 5, 10, 20, 50 };

typedef struct text {
    int32_t *word; /* of each token, by frequency */
    int64_t tokens, words;
    int64_t *train, *test, trains, tests; /* places of targets */
} text;

typedef struct entry {
    char name[48];
    int64_t count, first, id;
} entry;

static int by_count(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    return x->first < y->first ? -1 : 1;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The next token at *s in name, [a-z]+ or one of .,;:() ; false at the end. */
static bool next_token(const char **s, char name[48])
{
    size_t n = 0;
    while (**s && !isalpha((unsigned char)**s) && !strchr(".,;:()", **s)) ++*s;
    if (!**s) return false;
    if (!isalpha((unsigned char)**s)) {
        name[0] = *(*s)++, name[1] = 0;
        return true;
    }
    for (; isalpha((unsigned char)**s); ++*s)
        if (n < 47) name[n++] = (char)tolower((unsigned char)**s);
    name[n] = 0;
    return true;
}

static uint32_t hash_of(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 16777619u;
    return h;
}

static text read_text(run_t *r)
{
    enum { SLOTS = 1 << 16, MOST = 1 << 20 };
    static const char folder[] = "/usr/share/common-licenses";
    struct dirent **list;
    text t = { .word = run_memory(r, MOST * sizeof *t.word) };
    entry *table = run_memory(r, SLOTS * sizeof *table);
    int files = scandir(folder, &list, NULL, by_name);
    if (files < 0) run_skip(r, "%s is not on this machine", folder);
    for (int i = 0; i < files; i++) {
        char path[512], name[48];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        bool regular = lstat(path, &st) == 0 && S_ISREG(st.st_mode);
        free(list[i]);
        if (!regular) continue;
        const char *s = text_read(r, path, NULL);
        while (next_token(&s, name) && t.tokens < MOST) {
            uint32_t at = hash_of(name) % SLOTS;
            while (table[at].count && strcmp(table[at].name, name)) at = (at + 1) % SLOTS;
            if (!table[at].count) {
                memcpy(table[at].name, name, sizeof name);
                table[at].first = t.tokens, table[at].id = t.words++;
            }
            table[at].count++;
            t.word[t.tokens++] = (int32_t)table[at].id;
        }
    }
    free(list);
    if (t.tokens < 10 * BLOCK) run_skip(r, "%s holds too little text", folder);
    int32_t *number = run_memory(r, (size_t)t.words * sizeof *number);
    qsort(table, SLOTS, sizeof *table, by_count);
    for (int64_t i = 0; i < t.words; i++) number[table[i].id] = (int32_t)i;
    for (int64_t i = 0; i < t.tokens; i++) t.word[i] = number[t.word[i]];
    t.train = run_memory(r, (size_t)t.tokens * sizeof *t.train);
    t.test = run_memory(r, (size_t)t.tokens * sizeof *t.test);
    for (int64_t i = CONTEXT; i < t.tokens; i++) {
        if ((i - CONTEXT) / BLOCK % 5 == 4)
            t.test[t.tests++] = i;
        else
            t.train[t.trains++] = i;
    }
    run_release(r, table), run_release(r, number);
    return t;
}

/* ---- Ranking: the model ------------------------------------------------------------------ */

typedef struct model {
    run_t *r;
    slg_ctx *ctx;
    const text *t;
    int32_t kind; /* slg_spherical_kind; -1: log-softmax */
    double a, b, eps;
    float *all, *dall; /* embedding [words, 32], layer [64, 96], bias [64], output [words,
                          64] */
    float *embed, *layer, *bias, *out;
    float *dembed, *dlayer, *dbias, *dout;
    int64_t weights;
    float x[BATCH * IN], h[BATCH * HIDDEN], dh[BATCH * HIDDEN], dx[BATCH * IN];
    int32_t target[BATCH];
} model;

static void model_open(model *m, rng *g)
{
    const int64_t words = m->t->words;
    m->weights = words * EMBED + HIDDEN * IN + HIDDEN + words * HIDDEN;
    m->all = run_floats(m->r, (size_t)m->weights),
    m->dall = run_floats(m->r, (size_t)m->weights);
    m->embed = m->all, m->dembed = m->dall;
    m->layer = m->embed + words * EMBED, m->dlayer = m->dembed + words * EMBED;
    m->bias = m->layer + HIDDEN * IN, m->dbias = m->dlayer + HIDDEN * IN;
    m->out = m->bias + HIDDEN, m->dout = m->dbias + HIDDEN;
    fill_normal(g, (size_t)(words * EMBED), m->embed, 0, 0.1);
    fill_normal(g, HIDDEN * IN, m->layer, 0, sqrt(2.0 / IN));
    fill_normal(g, (size_t)(words * HIDDEN), m->out, 0, 0.1);
}

static void model_hidden(model *m, const int64_t *at, int n)
{
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < CONTEXT; k++)
            memcpy(m->x + i * IN + k * EMBED,
                   m->embed + (int64_t)m->t->word[at[i] - CONTEXT + k] * EMBED,
                   EMBED * sizeof *m->x);
        memcpy(m->h + i * HIDDEN, m->bias, HIDDEN * sizeof *m->h);
        m->target[i] = m->t->word[at[i]];
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, HIDDEN, IN, 1, m->x, IN, m->layer,
                IN, 1, m->h, HIDDEN);
    for (int i = 0; i < n * HIDDEN; i++) m->h[i] = fmaxf(m->h[i], 0);
}

static void model_gradient(model *m, const int64_t *at, int n)
{
    memset(m->dembed, 0, (size_t)(m->t->words * EMBED) * sizeof *m->dembed);
    memset(m->dbias, 0, HIDDEN * sizeof *m->dbias);
    model_hidden(m, at, n);
    slg_tensor h = slg_tensor_2d(m->h, SLG_F32, n, HIDDEN),
               dh = slg_tensor_2d(m->dh, SLG_F32, n, HIDDEN);
    slg_tensor w = slg_tensor_2d(m->out, SLG_F32, m->t->words, HIDDEN);
    slg_tensor dw = slg_tensor_2d(m->dout, SLG_F32, m->t->words, HIDDEN);
    slg_tensor c = slg_tensor_1d(m->target, SLG_I32, n);
    slg_logits l = slg_logits_layer(&h, &w, NULL);
    slg_targets t = slg_targets_index(&c);
    slg_logits_grad g = slg_grad_layer(&dh, &dw, NULL);
    slg_loss_out out = slg_loss_out_none();
    slg_spherical_opts o;
    slg_spherical_opts_init(&o, sizeof o);
    o.kind = m->kind < 0 ? o.kind : m->kind, o.a = m->a, o.b = m->b, o.eps = m->eps;
    must(m->r, m->ctx,
         m->kind < 0 ? slg_cross_entropy(m->ctx, &l, &t, NULL, &out, &g)
                     : slg_spherical(m->ctx, &l, &t, &o, &out, &g));
    for (int i = 0; i < n * HIDDEN; i++) {
        if (m->h[i] <= 0) m->dh[i] = 0;
        m->dbias[i % HIDDEN] += m->dh[i];
    }
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, HIDDEN, IN, n, 1, m->dh, HIDDEN, m->x,
                IN, 0, m->dlayer, IN);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, IN, HIDDEN, 1, m->dh, HIDDEN,
                m->layer, IN, 0, m->dx, IN);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < IN; k++)
            m->dembed[(int64_t)m->t->word[at[i] - CONTEXT + k / EMBED] * EMBED + k % EMBED] +=
                m->dx[i * IN + k];
}

/* Shares of held-out targets among the first k; ties count against. */
static void model_score(model *m, double share[KS])
{
    const int64_t words = m->t->words;
    float *o = run_floats(m->r, (size_t)(BATCH * words));
    int64_t hits[KS] = { 0 };
    for (int64_t from = 0; from < m->t->tests; from += BATCH) {
        const int n = m->t->tests - from < BATCH ? (int)(m->t->tests - from) : BATCH;
        model_hidden(m, m->t->test + from, n);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, (int)words, HIDDEN, 1, m->h,
                    HIDDEN, m->out, HIDDEN, 0, o, (int)words);
        for (int i = 0; i < n; i++) {
            const float *x = o + i * words;
            int64_t rank = 0;
            const bool magnitude = m->kind == SLG_SPHERICAL_LOG;
            const float own = magnitude ? fabsf(x[m->target[i]]) : x[m->target[i]];
            for (int64_t c = 0; c < words; c++) rank += (magnitude ? fabsf(x[c]) : x[c]) >= own;
            for (int k = 0; k < KS; k++) hits[k] += rank <= ks[k];
        }
    }
    for (int k = 0; k < KS; k++) share[k] = (double)hits[k] / (double)m->t->tests;
    run_release(m->r, o);
}

static void train(run_t *r, slg_ctx *ctx, const text *t, const char *name, int32_t kind,
                  double a, double b, double eps, int epochs, double share[KS])
{
    model *m = run_memory(r, sizeof *m);
    rng g = rng_seed(11);
    *m = (model){ .r = r, .ctx = ctx, .t = t, .kind = kind, .a = a, .b = b, .eps = eps };
    model_open(m, &g);
    slg_adamw_opts o;
    slg_optimizer *adam;
    slg_adamw_opts_init(&o, sizeof o);
    o.lr = 3e-3, o.weight_decay = 0;
    must(r, ctx, slg_optimizer_create(ctx, SLG_ADAMW, m->weights, &o, &adam));
    slg_tensor w = slg_tensor_1d(m->all, SLG_F32, m->weights);
    slg_tensor dw = slg_tensor_1d(m->dall, SLG_F32, m->weights);
    int64_t *order = run_memory(r, (size_t)t->trains * sizeof *order);
    memcpy(order, t->train, (size_t)t->trains * sizeof *order);
    for (int e = 0; e < epochs; e++) {
        rng_shuffle(&g, (size_t)t->trains, order);
        for (int64_t from = 0; from + BATCH <= t->trains; from += BATCH) {
            model_gradient(m, order + from, BATCH);
            must(r, ctx, slg_optimizer_step(adam, &w, &dw));
        }
    }
    slg_optimizer_free(adam);
    model_score(m, share);
    note(r, "%-28s %8.3f %8.3f %8.3f %8.3f %8.3f", name, share[0], share[1], share[2], share[3],
         share[4]);
    run_release(r, m->all), run_release(r, m->dall), run_release(r, order), run_release(r, m);
}

/* The least of x[k] - y[k] over the first n of ks. */
static double lead(const double *x, const double *y, int n)
{
    double least = 1;
    for (int k = 0; k < n; k++) least = fmin(least, x[k] - y[k]);
    return 100 * least;
}

static void ranking(run_t *r, slg_ctx *ctx)
{
    text t = read_text(r);
    const int epochs = run_quick(r) ? 1 : 4;
    double soft[KS], z2[KS], z6[KS], taylor[KS], log_[KS], square[KS], z1[KS], z10[KS],
        best[KS];
    note(r, "%lld tokens, %lld words, %d epochs: held-out targets among the first",
         (long long)t.tokens, (long long)t.words, epochs);
    note(r, "%-28s %8d %8d %8d %8d %8d", "", 1, 5, 10, 20, 50);
    train(r, ctx, &t, "log-softmax", -1, 1, 0, 1, epochs, soft);
    train(r, ctx, &t, "Z-loss a=1, b=2", SLG_SPHERICAL_Z, 1, 2, 1, epochs, z2);
    if (run_quick(r)) {
        claim(r, "1 epoch: Z-loss a=1, b=2 over log-softmax, top 50", "",
              100 * (z2[4] - soft[4]), "points", no_bar());
        return;
    }
    train(r, ctx, &t, "Z-loss a=0.3, b=6", SLG_SPHERICAL_Z, 0.3, 6, 1, epochs, z6);
    train(r, ctx, &t, "Z-loss a=1, b=0", SLG_SPHERICAL_Z, 1, 0, 1, epochs, z1);
    train(r, ctx, &t, "Z-loss a=0.3, b=10", SLG_SPHERICAL_Z, 0.3, 10, 1, epochs, z10);
    train(r, ctx, &t, "log-Taylor softmax", SLG_SPHERICAL_TAYLOR, 1, 0, 1, epochs, taylor);
    train(r, ctx, &t, "log-spherical, eps .01", SLG_SPHERICAL_LOG, 1, 0, 0.01, epochs, log_);
    train(r, ctx, &t, "squared error", SLG_SPHERICAL_SQUARED, 1, 0, 1, epochs, square);
    for (int k = 0; k < KS; k++) best[k] = fmax(fmax(z1[k], z2[k]), fmax(z6[k], z10[k]));
    claim(r, "Z-loss a=1, b=2 over log-softmax, top 50", "better at larger k",
          100 * (z2[4] - soft[4]), "points", at_least(2));
    claim(r, "log-softmax over the best Z-loss, top 1", "", 100 * (soft[0] - best[0]), "points",
          at_least(0));
    claim(r, "log-softmax over the best Z-loss, top 5", "", 100 * (soft[1] - best[1]), "points",
          at_least(0));
    claim(r, "best Z-loss, top 50", "", 100 * best[4], "%", no_bar());
    claim(r, "Z-loss a=0.3, b=6 over log-Taylor, least over k", "best of the spherical losses",
          lead(z6, taylor, KS), "points", at_least(0));
    claim(r, "Z-loss a=0.3, b=6 over log-spherical, least over k <= 20",
          "best of the spherical losses", lead(z6, log_, 4), "points", at_least(0));
    claim(r, "Z-loss a=0.3, b=6 over squared error, least over k",
          "best of the spherical losses", lead(z6, square, KS), "points", at_least(0));
}

static void run(run_t *r)
{
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    const int threads = openblas_get_num_threads();
    openblas_set_num_threads(1);
    float *normal = run_floats(r, POOL);
    rng g = rng_seed(1);
    fill_normal(&g, POOL, normal, 0, 1);
    speed_at(r, ctx, 128, run_quick(r) ? 2 : SIZES, normal);
    if (!run_quick(r)) speed_at(r, ctx, 512, SIZES, normal);
    same_weights(r, ctx);
    ranking(r, ctx);
    openblas_set_num_threads(threads);
}

const paper paper_03_z_loss = { 3, "z-loss", "The Z-loss", run };
