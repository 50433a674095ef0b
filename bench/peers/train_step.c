/*
 * train_step.c - a training step of a GPT-2-like model: forward, backward, AdamW. The library's
 * is the transformer of docs/examples, PyTorch's is in torch_train.py; both start from the
 * weights in x. rows are tokens of all sequences, cols words, dim the width.
 *
 * Where the library's time goes is told by its own lines, a call each: see "Profile".
 */
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "docs/examples/transformer.h"
#include "race.h"

enum { HEAD = 64, MAX_CALLS = 1024, MAX_PRODUCTS = 1024 };

/* A call of the library, the same one in every step: least times in nanoseconds. */
typedef struct call {
    char op[32];
    double span; /* from the end of the call before it */
    double gap;  /* of that, before it began */
} call;

/* What candidates share, beside what the race has. */
typedef struct train_step {
    transformer_opts opts;
    int64_t batch, size;     /* of the weights */
    int32_t *token, *target; /* [rows] */
    double loss;             /* of the library's first step */
    int64_t scratch;         /* bytes that the library took */
    int64_t at, num_calls;
    call calls[MAX_CALLS];
    double clock, wall; /* where the last call ended */
    double product[MAX_PRODUCTS];
    int64_t num_products, num_linear; /* products of linear layers come first */
} train_step;

/* ---- Set-up ------------------------------------------------------------------------------ */

/* Multiplications and additions: 6 a weight and token for products with weights, 3.5 times 4
   dim a pair for attention. */
static double flops_of(const race *r, const transformer_opts *o)
{
    const double d = o->width, tokens = o->context, rows = (double)r->rows;
    const double products = (double)o->layers * d * (4 * d + 2.0 * o->hidden) + o->vocab * d;
    const double pairs = rows * (tokens + 1) / 2;
    return 6 * products * rows + 3.5 * 4 * d * pairs * o->layers;
}

static void tell_parts(const race *r, result *res);

static void setup(race *r)
{
    r->tokens = 256, r->layers = 6;
    if (r->quick) r->rows = 64, r->cols = 500, r->dim = 128, r->tokens = 32, r->layers = 2;
    train_step *t = race_memory(r, sizeof *t);
    t->opts = transformer_defaults((int32_t)r->cols);
    t->opts.context = (int32_t)r->tokens;
    t->opts.layers = (int32_t)r->layers;
    t->opts.width = (int32_t)r->dim;
    t->opts.heads = (int32_t)(r->dim / HEAD);
    t->opts.hidden = (int32_t)(4 * r->dim);
    t->batch = r->rows / r->tokens;
    fill_targets(r);
    t->token = race_memory(r, (size_t)r->rows * sizeof *t->token);
    t->target = race_memory(r, (size_t)r->rows * sizeof *t->target);
    for (int64_t i = 0; i < r->rows; i++) {
        t->target[i] = (int32_t)r->target[i];
        t->token[i] = i ? (int32_t)r->target[i - 1] : 0;
    }
    /* The weights' start is the example's own. */
    transformer *m = transformer_create(r->ctx, &t->opts, 1, 8);
    const slg_tensor w = transformer_weights(m);
    t->size = w.shape[0];
    r->x = race_floats(r, t->size);
    r->grad = race_floats(r, t->size);
    r->y = race_floats(r, t->size);
    memcpy(r->x, w.data, (size_t)t->size * sizeof(float));
    transformer_free(m);
    r->flops = flops_of(r, &t->opts);
    r->train = t;
    r->parts = tell_parts;
}

static void reset(race *r) { memset(r->y, 0xFF, (size_t)r->train->size * sizeof *r->y); }

/* ---- Profile ----------------------------------------------------------------------------- */

static double least(double a, double b) { return a > 0 && a < b ? a : b; }

/* "softlogit,OP,SHAPES,ISA,THREADS,MS", as the call ends. Its time is what the clock of the
   race says from the end of the call before, but for the gap between the two: the line has
   wall-clock time, and the machine may be shared. */
static void called(void *user, int32_t level, const char *text)
{
    race *r = user;
    train_step *t = r->train;
    const char *op = strchr(text, ','), *ms = strrchr(text, ',');
    if (level != SLG_LOG_CALL || !op || t->at == MAX_CALLS) return;
    const double clock = race_clock(r), wall = wall_clock();
    call *c = &t->calls[t->at++];
    snprintf(c->op, sizeof c->op, "%.*s", (int)strcspn(op + 1, ","), op + 1);
    c->span = least(c->span, clock - t->clock);
    c->gap = least(c->gap, fmax(wall - t->wall - 1e6 * strtod(ms + 1, NULL), 1));
    t->clock = race_clock(r);
    t->wall = wall_clock();
}

static const char *part_name(const char *op)
{
    static const char *const names[][2] = {
        { "slg_linear", "linear layers: the rest" },
        { "slg_cross_entropy", "output and loss: the rest" },
        { "slg_attention", "attention" },
        { "slg_layer_norm", "norms" },
        { "slg_activation", "activation" },
        { "slg_embedding", "embedding" },
        { "slg_optimizer_step", "optimizer" },
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strncmp(op, names[i][0], strlen(names[i][0]))) return names[i][1];
    return "other calls";
}

static double *part_of(result *res, const char *name)
{
    int i = 0;
    while (i < res->num_parts && strcmp(res->parts[i].name, name)) i++;
    if (i == res->num_parts) res->parts[res->num_parts++] = (share){ name, 0 };
    return &res->parts[i].ns;
}

/* By operation; products apart, where the floor has told their time. */
static void tell_parts(const race *r, result *res)
{
    const train_step *t = r->train;
    double *linear = part_of(res, "linear layers: products");
    double *output = part_of(res, "output and loss: products");
    for (int64_t i = 0; i < t->num_products; i++)
        *(i < t->num_linear ? linear : output) += t->product[i];
    for (int64_t i = 0; i < t->num_calls; i++) {
        *part_of(res, part_name(t->calls[i].op)) += t->calls[i].span - t->calls[i].gap;
        *part_of(res, "between calls") += t->calls[i].gap;
    }
    *part_of(res, "linear layers: the rest") -= *linear;
    *part_of(res, "output and loss: the rest") -= *output;
}

/* ---- Ours -------------------------------------------------------------------------------- */

typedef struct state {
    slg_ctx *ctx;
    transformer *model;
    slg_optimizer *optimizer;
    slg_tensor w, dw;
} state;

static void *prepare(race *r, const char *arg)
{
    state *s = calloc(1, sizeof *s);
    slg_ctx_opts o;
    (void)arg;
    slg_ctx_opts_init(&o, sizeof o);
    o.isa = r->w->isa;
    o.num_threads = r->w->threads;
    o.verbose = 1;
    o.log = called;
    o.log_user = r;
    stop(r, slg_ctx_create(&o, &s->ctx), "ctx_create");
    s->model = transformer_create(s->ctx, &r->train->opts, r->train->batch, 8);
    s->w = transformer_weights(s->model);
    s->dw = transformer_gradients(s->model);
    memcpy(s->w.data, r->x, (size_t)r->train->size * sizeof(float));
    stop(r, slg_optimizer_create(s->ctx, SLG_ADAMW, r->train->size, NULL, &s->optimizer),
         "optimizer_create");
    return s;
}

static void run(race *r, void *given, int64_t times)
{
    state *s = given;
    train_step *t = r->train;
    while (times--) {
        t->at = 0;
        t->clock = race_clock(r);
        t->wall = wall_clock();
        r->loss = transformer_train(s->model, t->batch, r->tokens, t->token, t->target, NULL);
        stop(r, slg_optimizer_step(s->optimizer, &s->w, &s->dw), "optimizer_step");
        t->num_calls = t->at;
    }
}

/* Its loss and gradients are what PyTorch's are compared with, too. */
static void fetch(race *r, void *given)
{
    state *s = given;
    slg_ctx_info_t info = { .size = sizeof info };
    memcpy(r->grad, s->dw.data, (size_t)r->train->size * sizeof(float));
    r->train->loss = r->loss;
    stop(r, slg_ctx_info(s->ctx, &info), "ctx_info");
    r->train->scratch = info.scratch_peak_bytes;
    r->memory = (double)info.scratch_peak_bytes;
}

static void release(race *r, void *given)
{
    state *s = given;
    (void)r;
    slg_optimizer_free(s->optimizer);
    transformer_free(s->model);
    slg_ctx_free(s->ctx);
    free(s);
}

static const candidate ours = { "ours", OURS, NULL, prepare, run, fetch, release, NULL };

/* ---- Check ------------------------------------------------------------------------------- */

static double loss_at(race *r, transformer *m, double step)
{
    train_step *t = r->train;
    float *w = transformer_weights(m).data;
    for (int64_t i = 0; i < t->size; i++) w[i] = r->x[i] + (float)(step * (double)r->grad[i]);
    return transformer_test(m, t->batch, r->tokens, t->token, t->target, NULL);
}

static double square(int64_t n, const float *x, const float *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)x[i] - (y ? (double)y[i] : 0);
        sum += d * d;
    }
    return sum;
}

/* The loss at x, and its slope along the gradient, which is the gradient's square, by
   differences. */
static double slope_error(race *r)
{
    train_step *t = r->train;
    const double slope = square(t->size, r->grad, NULL), step = 0.01 / slope;
    transformer *m = transformer_create(r->ctx, &t->opts, t->batch, 8);
    const double at = loss_at(r, m, 0), more = loss_at(r, m, step), less = loss_at(r, m, -step);
    transformer_free(m);
    return fmax(fabs(at / t->loss - 1), fabs((more - less) / (2 * step) / slope - 1));
}

/* Losses, and the gradients of each tensor, relative to their length. */
static double difference(race *r)
{
    double worst = fabs(r->loss / r->train->loss - 1);
    int64_t sizes[MAX_TENSORS], count = train_sizes(r, sizes, MAX_TENSORS), at = 0;
    for (int64_t i = 0; i < count; at += sizes[i++]) {
        const double d = sqrt(square(sizes[i], r->grad + at, r->y + at) /
                              square(sizes[i], r->grad + at, NULL));
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static double check(race *r) { return r->checked == &ours ? slope_error(r) : difference(r); }

/* ---- The products with weights ----------------------------------------------------------- */

int64_t train_sizes(const race *r, int64_t *sizes, int64_t max)
{
    const int64_t d = r->dim;
    const int64_t block[] = { d, d, 3 * d * d, 3 * d, d * d,     d,
                              d, d, 4 * d * d, 4 * d, 4 * d * d, d };
    enum { BLOCK = sizeof block / sizeof *block };
    const int64_t all = 2 + BLOCK * r->layers + 2;
    for (int64_t i = 0; i < all && i < max; i++)
        sizes[i] = i == 0         ? r->cols * d
                   : i == 1       ? r->tokens * d
                   : i >= all - 2 ? d
                                  : block[(i - 2) % BLOCK];
    return all < max ? all : max;
}

typedef struct gemms {
    float *a, *b, *c; /* [rows, 4 dim]: operands and results */
    float *logits;
    int64_t block;
    double clock;
    int64_t at;
} gemms;

/* Blocks of rows as the library takes them for the output layer: from its scratch. */
static void *gemms_prepare(race *r, const char *arg)
{
    gemms *g = race_memory(r, sizeof *g);
    (void)arg;
    g->block = r->train->scratch / (r->cols * (int64_t)sizeof(float));
    if (g->block > 64) g->block -= g->block % 64;
    if (g->block > r->rows) g->block = r->rows;
    if (g->block < 1) g->block = 1;
    g->a = race_floats(r, 4 * r->rows * r->dim);
    g->b = race_floats(r, 4 * r->rows * r->dim);
    g->c = race_floats(r, 4 * r->rows * r->dim);
    g->logits = race_floats(r, g->block * r->cols);
    fill_normal(g->a, 4 * r->rows * r->dim, 1.0f, 9);
    fill_normal(g->b, 4 * r->rows * r->dim, 1.0f, 10);
    return g;
}

/* c [m, n] = a b or, by what is transposed, a b', a' b; contiguous. */
static void product(race *r, gemms *g, int m, int n, int k, const float *a, bool ta,
                    const float *b, bool tb, bool add, float *c)
{
    train_step *t = r->train;
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                m, n, k, 1.0f, a, ta ? m : k, b, tb ? k : n, add ? 1.0f : 0.0f, c, n);
    const double clock = race_clock(r);
    if (g->at < MAX_PRODUCTS) t->product[g->at] = least(t->product[g->at], clock - g->clock);
    g->at++;
    g->clock = race_clock(r);
}

static void linear_products(race *r, gemms *g)
{
    int64_t sizes[MAX_TENSORS], count = train_sizes(r, sizes, MAX_TENSORS), at = 0;
    const int rows = (int)r->rows;
    for (int64_t i = 0; i < count; at += sizes[i++]) {
        const int64_t which = (i - 2) % 12; /* matrices of a block: qkv, out, up, down */
        if (i < 2 || i >= count - 2 || (which != 2 && which != 4 && which != 8 && which != 10))
            continue;
        const int in = (int)(which == 10 ? 4 * r->dim : r->dim), out = (int)(sizes[i] / in);
        product(r, g, rows, out, in, g->a, false, r->x + at, true, false, g->c);
        product(r, g, rows, in, out, g->b, false, r->x + at, false, false, g->c);
        product(r, g, out, in, rows, g->b, true, g->a, false, false, r->y + at);
    }
}

static void output_products(race *r, gemms *g)
{
    const int cols = (int)r->cols, dim = (int)r->dim;
    for (int64_t at = 0; at < r->rows; at += g->block) {
        const int rows = (int)(r->rows - at < g->block ? r->rows - at : g->block);
        const float *h = g->a + at * dim;
        float *dh = g->c + at * dim;
        product(r, g, rows, cols, dim, h, false, r->x, true, false, g->logits);
        product(r, g, rows, dim, cols, g->logits, false, r->x, false, false, dh);
        product(r, g, cols, dim, rows, g->logits, true, h, false, at > 0, r->y);
    }
}

static void gemms_run(race *r, void *given, int64_t times)
{
    gemms *g = given;
    while (times--) {
        g->at = 0;
        g->clock = race_clock(r);
        linear_products(r, g);
        r->train->num_linear = g->at;
        output_products(r, g);
        r->train->num_products = g->at;
    }
}

static const candidate floor_products = { "gemms",   FLOOR, NULL, gemms_prepare,
                                          gemms_run, NULL,  NULL, NULL };

/* ---- Field ------------------------------------------------------------------------------- */

static const candidate *const field[] = { &ours,           &torch_train, &torch_train_kept,
                                          &floor_products, &floor_peak,  NULL };

const operation op_train_step = {
    "train_step", setup, check, reset, 1e-3, 0, "fma-peak", field
};
