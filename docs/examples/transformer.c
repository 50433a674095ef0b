/*
 * transformer.c - see transformer.h. In this order: memory, weights, the parts of a block
 * forward and backward, the passes over the whole model, generation, files.
 */
#include "transformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Memory ------------------------------------------------------------------------------ */

/* The weights of a block, and their gradients alike. */
typedef struct block_weights {
    slg_tensor norm1, norm1_bias; /* [width] */
    slg_tensor qkv, qkv_bias;     /* [3 width, width], [3 width] */
    slg_tensor qk_scale;          /* [heads]; where qk_norm */
    slg_tensor out, out_bias;     /* [width, width], [width] */
    slg_tensor norm2, norm2_bias; /* [width] */
    slg_tensor up, up_bias;       /* [hidden, width], [hidden] */
    slg_tensor down, down_bias;   /* [width, hidden], [width] */
} block_weights;

typedef struct model_weights {
    slg_tensor words, places;   /* [vocab, width], [context, width] */
    slg_tensor output;          /* as words; words itself where tied */
    slg_tensor norm, norm_bias; /* [width] */
    block_weights *block;
    float *all;
    int64_t size;
} model_weights;

/* What a block keeps from forward for backward. Rows are tokens of all sequences. */
typedef struct block_state {
    float *x1, *stats1, *n1; /* what was normalised, its statistics, the result */
    float *qkv, *qk;         /* [rows, 3 width]; queries and keys normalised, [rows, 2 width] */
    float *o, *lse;          /* [rows, width], [rows, heads] */
    float *x2, *stats2, *n2;
    float *up, *act;  /* [rows, hidden] */
    float *max_logit; /* [heads] */
} block_state;

struct transformer {
    slg_ctx *ctx;
    transformer_opts o;
    model_weights w, dw;
    int64_t rows; /* the most */
    block_state *block;
    float *scratch;                    /* of all that follows, and of the blocks */
    float *branch;                     /* [rows, width]: what a block adds to x */
    float *x, *stats, *h;              /* before the last norm, and after it */
    float *dx, *dn, *dqkv, *dqk, *dup; /* gradients of x, a norm, ... */
    int32_t *window;                   /* [heads] */
    float *cos, *sin;                  /* [context, head / 2] */
    slg_rng rng;                       /* of dropout */
    slg_attention_cache **cache;       /* a layer\'s; NULL before the first generation */
    bool generates;                    /* keys and values go through the caches */
    int64_t past;                      /* tokens in the caches */
};

/* A status other than 0 is a mistake in this file. */
static void must(const transformer *m, slg_status status)
{
    if (status == SLG_OK) return;
    fprintf(stderr, "transformer: %s\n", slg_ctx_message(m->ctx));
    exit(1);
}

static void *memory(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (!p) {
        fprintf(stderr, "transformer: out of memory\n");
        exit(1);
    }
    return p;
}

/* Views of consecutive parts of one array; at NULL, it only counts. */
typedef struct carver {
    float *at;
    int64_t used;
} carver;

static float *take(carver *c, int64_t count)
{
    float *p = c->at ? c->at + c->used : NULL;
    c->used += (count + 15) / 16 * 16; /* each starts a cache line */
    return p;
}

static slg_tensor take_1d(carver *c, int64_t n)
{
    return slg_tensor_1d(take(c, n), SLG_F32, n);
}

static slg_tensor take_2d(carver *c, int64_t rows, int64_t cols)
{
    return slg_tensor_2d(take(c, rows * cols), SLG_F32, rows, cols);
}

static slg_tensor rows_of(const float *x, int64_t rows, int64_t cols)
{
    return slg_tensor_2d(x, SLG_F32, rows, cols);
}

static void carve_weights(const transformer_opts *o, carver *c, model_weights *w)
{
    const int64_t d = o->width;
    w->words = take_2d(c, o->vocab, d);
    w->places = take_2d(c, o->rotary ? 0 : o->context, d);
    w->output = o->untied ? take_2d(c, o->vocab, d) : w->words;
    for (int32_t i = 0; i < o->layers; i++) {
        block_weights *b = &w->block[i];
        b->norm1 = take_1d(c, d), b->norm1_bias = take_1d(c, o->rms ? 0 : d);
        b->qkv = take_2d(c, 3 * d, d), b->qkv_bias = take_1d(c, 3 * d);
        b->qk_scale = take_1d(c, o->qk_norm ? o->heads : 0);
        b->out = take_2d(c, d, d), b->out_bias = take_1d(c, d);
        b->norm2 = take_1d(c, d), b->norm2_bias = take_1d(c, o->rms ? 0 : d);
        b->up = take_2d(c, o->hidden, d), b->up_bias = take_1d(c, o->hidden);
        b->down = take_2d(c, d, o->hidden), b->down_bias = take_1d(c, d);
    }
    w->norm = take_1d(c, d), w->norm_bias = take_1d(c, o->rms ? 0 : d);
}

static void make_weights(const transformer_opts *o, model_weights *w)
{
    carver count = { NULL, 0 }, c;
    w->block = memory((size_t)o->layers, sizeof *w->block);
    carve_weights(o, &count, w);
    w->size = count.used;
    w->all = memory((size_t)w->size, sizeof *w->all);
    c = (carver){ w->all, 0 };
    carve_weights(o, &c, w);
}

static void carve_state(transformer *m, carver *c)
{
    const transformer_opts *o = &m->o;
    const int64_t n = m->rows, d = o->width, qk = o->qk_norm ? 2 * d : 0;
    for (int32_t i = 0; i < o->layers; i++) {
        block_state *b = &m->block[i];
        b->x1 = take(c, n * d), b->stats1 = take(c, n * 2), b->n1 = take(c, n * d);
        b->qkv = take(c, n * 3 * d), b->qk = take(c, n * qk);
        b->o = take(c, n * d), b->lse = take(c, n * o->heads);
        b->x2 = take(c, n * d), b->stats2 = take(c, n * 2), b->n2 = take(c, n * d);
        b->up = take(c, n * o->hidden), b->act = take(c, n * o->hidden);
        b->max_logit = take(c, o->heads);
    }
    m->branch = take(c, n * d);
    m->x = take(c, n * d), m->stats = take(c, n * 2), m->h = take(c, n * d);
    m->dx = take(c, n * d), m->dn = take(c, n * d), m->dqkv = take(c, n * 3 * d);
    m->dqk = take(c, n * qk), m->dup = take(c, n * o->hidden);
}

/* ---- Creation ---------------------------------------------------------------------------- */

transformer_opts transformer_defaults(int32_t vocab)
{
    return (transformer_opts){ .vocab = vocab,
                               .context = 256,
                               .layers = 6,
                               .heads = 6,
                               .width = 384,
                               .hidden = 4 * 384,
                               .window = 64,
                               .activation = SLG_GELU_TANH };
}

static void fill_normal(transformer *m, slg_tensor t, double sd)
{
    float *x = t.data;
    int64_t n = t.shape[0] * (t.ndim > 1 ? t.shape[1] : 1);
    must(m, slg_random(m->ctx, &m->rng, SLG_NORMAL, &t));
    for (int64_t i = 0; i < n; i++) x[i] *= (float)sd;
}

static void fill_with(slg_tensor t, double value)
{
    float *x = t.data;
    for (int64_t i = 0; i < t.shape[0]; i++) x[i] = (float)value;
}

/* As GPT-2: what is added to x starts smaller, the more blocks there are. Biases start at 0. */
static void start_weights(transformer *m)
{
    const double sd = 1 / sqrt((double)m->o.width), less = 1 / sqrt(2.0 * m->o.layers);
    fill_normal(m, m->w.words, sd);
    fill_normal(m, m->w.places, 0.25 * sd);
    if (m->o.untied) fill_normal(m, m->w.output, 0.5 * sd);
    for (int32_t i = 0; i < m->o.layers; i++) {
        block_weights *b = &m->w.block[i];
        fill_with(b->norm1, 1), fill_with(b->norm2, 1);
        fill_with(b->qk_scale, sqrt((double)(m->o.width / m->o.heads)));
        fill_normal(m, b->qkv, sd);
        fill_normal(m, b->out, sd * less);
        fill_normal(m, b->up, sd);
        fill_normal(m, b->down, less / sqrt((double)m->o.hidden));
    }
    fill_with(m->w.norm, 1);
}

transformer *transformer_create(slg_ctx *ctx, const transformer_opts *opts, int64_t batch,
                                uint64_t seed)
{
    transformer *m = memory(1, sizeof *m);
    const int32_t head = opts->width / opts->heads;
    carver count = { NULL, 0 }, c;
    m->ctx = ctx;
    m->o = *opts;
    m->rows = batch * opts->context;
    m->rng = (slg_rng){ seed, 0 };
    m->block = memory((size_t)opts->layers, sizeof *m->block);
    make_weights(opts, &m->w);
    make_weights(opts, &m->dw);
    carve_state(m, &count);
    m->scratch = memory((size_t)count.used, sizeof *m->scratch);
    c = (carver){ m->scratch, 0 };
    carve_state(m, &c);
    m->window = memory((size_t)opts->heads, sizeof *m->window);
    for (int32_t h = 0; h < opts->local_heads; h++) m->window[h] = opts->window;
    m->cos = memory((size_t)opts->context * (size_t)head, sizeof *m->cos);
    m->sin = m->cos + (int64_t)opts->context * (head / 2);
    slg_tensor cosines = rows_of(m->cos, opts->context, head / 2);
    slg_tensor sines = rows_of(m->sin, opts->context, head / 2);
    must(m, slg_rope_table(ctx, NULL, &cosines, &sines));
    start_weights(m);
    return m;
}

void transformer_free(transformer *m)
{
    if (!m) return;
    for (int32_t i = 0; m->cache && i < m->o.layers; i++) slg_attention_cache_free(m->cache[i]);
    free(m->cache), free(m->cos), free(m->window), free(m->scratch), free(m->block);
    free(m->w.all), free(m->w.block), free(m->dw.all), free(m->dw.block);
    free(m);
}

const transformer_opts *transformer_opts_of(const transformer *m) { return &m->o; }

slg_tensor transformer_weights(transformer *m)
{
    return slg_tensor_1d(m->w.all, SLG_F32, m->w.size);
}

slg_tensor transformer_gradients(transformer *m)
{
    return slg_tensor_1d(m->dw.all, SLG_F32, m->w.size);
}

void transformer_max_logit(const transformer *m, int32_t layer, float *head)
{
    memcpy(head, m->block[layer].max_logit, (size_t)m->o.heads * sizeof *head);
}

/* ---- Parts ------------------------------------------------------------------------------- */

/* s = x + residual, y = its norm. With residual NULL: s is x. */
static void norm(transformer *m, int64_t n, const slg_tensor *weight, const slg_tensor *bias,
                 const float *x, const float *residual, float *s, float *y, float *stats)
{
    const int64_t d = m->o.width;
    slg_tensor tx = rows_of(x, n, d), tr = rows_of(residual, n, d), ts = rows_of(s, n, d);
    slg_tensor ty = rows_of(y, n, d), rms = slg_tensor_1d(stats, SLG_F32, n);
    slg_tensor both = rows_of(stats, n, 2), *r = residual ? &tr : NULL,
               *to = residual ? &ts : NULL;
    if (m->o.rms)
        must(m, slg_rms_norm(m->ctx, &tx, r, weight, NULL, to, &ty, &rms));
    else
        must(m, slg_layer_norm(m->ctx, &tx, r, weight, bias, NULL, to, &ty, &both));
}

/* dx += the gradient through the norm of s, dy being that of its result. */
static void norm_backward(transformer *m, int64_t n, const slg_tensor *weight, const float *s,
                          const float *stats, const float *dy, bool first, float *dx,
                          slg_tensor *dweight, slg_tensor *dbias)
{
    const int64_t d = m->o.width;
    slg_tensor ts = rows_of(s, n, d), tdy = rows_of(dy, n, d), tdx = rows_of(dx, n, d);
    slg_tensor rms = slg_tensor_1d(stats, SLG_F32, n), both = rows_of(stats, n, 2);
    const slg_tensor *past = first ? NULL : &tdx;
    if (m->o.rms)
        must(m,
             slg_rms_norm_backward(m->ctx, &ts, weight, &rms, &tdy, past, NULL, &tdx, dweight));
    else
        must(m, slg_layer_norm_backward(m->ctx, &ts, weight, &both, &tdy, past, NULL, &tdx,
                                        dweight, dbias));
}

static void linear(transformer *m, int64_t n, const slg_tensor *weight, const slg_tensor *bias,
                   const float *x, float *y)
{
    slg_tensor tx = rows_of(x, n, weight->shape[1]), ty = rows_of(y, n, weight->shape[0]);
    must(m, slg_linear(m->ctx, &tx, weight, bias, &ty));
}

static void linear_backward(transformer *m, int64_t n, const slg_tensor *weight, const float *x,
                            const float *dy, float *dx, slg_tensor *dweight, slg_tensor *dbias)
{
    slg_tensor tx = rows_of(x, n, weight->shape[1]), tdy = rows_of(dy, n, weight->shape[0]);
    slg_tensor tdx = rows_of(dx, n, weight->shape[1]);
    must(m, slg_linear_backward(m->ctx, &tx, weight, &tdy, NULL, &tdx, dweight, dbias));
}

/* Drops elements of x, or whole rows; `place` keeps calls of one pass apart. */
static void drop(transformer *m, int64_t n, int32_t place, bool whole_rows, float *x)
{
    slg_tensor t = rows_of(x, n, m->o.width);
    const slg_rng rng = { m->rng.seed, m->rng.offset + ((uint64_t)place << 32) };
    slg_dropout_opts o;
    slg_dropout_opts_init(&o, sizeof o);
    o.rows = whole_rows;
    o.probability = m->o.dropout;
    must(m, slg_dropout(m->ctx, &t, &rng, &o, &t));
}

/* Head by head, [batch, heads, tokens, head], a view of rows of `wide` floats, from column `at`
   on. */
static slg_tensor heads_of(const transformer *m, const float *x, int64_t batch, int64_t tokens,
                           int64_t wide, int64_t at)
{
    const int64_t head = m->o.width / m->o.heads;
    return (slg_tensor){ (void *)(uintptr_t)(x + at),
                         SLG_F32,
                         4,
                         { batch, m->o.heads, tokens, head },
                         { tokens * wide, head, wide, 1 } };
}

/* Queries and keys turned by their positions, from `past` on; back again for gradients. */
static void turn(transformer *m, slg_tensor *q, slg_tensor *k, int64_t past, bool back)
{
    const int32_t head = m->o.width / m->o.heads;
    slg_tensor cosines = rows_of(m->cos, m->o.context, head / 2);
    slg_tensor sines = rows_of(m->sin, m->o.context, head / 2);
    slg_rope_opts o;
    slg_rope_opts_init(&o, sizeof o);
    o.offset = (int32_t)past;
    o.inverse = back;
    must(m, slg_rope(m->ctx, q, &cosines, &sines, NULL, &o, q));
    must(m, slg_rope(m->ctx, k, &cosines, &sines, NULL, &o, k));
}

/* Queries, keys and values as attention takes them: views of qkv, or of qk where they are
   normalised. */
typedef struct attention_views {
    slg_tensor q, k, v, window, scale;
    slg_attention_inputs in;
} attention_views;

static void view(transformer *m, int32_t layer, int64_t batch, int64_t tokens,
                 attention_views *a)
{
    const int64_t d = m->o.width;
    const float *qkv = m->block[layer].qkv, *qk = m->block[layer].qk;
    a->q = heads_of(m, m->o.qk_norm ? qk : qkv, batch, tokens, m->o.qk_norm ? 2 * d : 3 * d, 0);
    a->k = heads_of(m, m->o.qk_norm ? qk : qkv, batch, tokens, m->o.qk_norm ? 2 * d : 3 * d, d);
    a->v = heads_of(m, qkv, batch, tokens, 3 * d, 2 * d);
    a->window = slg_tensor_1d(m->window, SLG_I32, m->o.heads);
    slg_attention_inputs_init(&a->in, sizeof a->in);
    a->in.q = &a->q, a->in.k = &a->k, a->in.v = &a->v;
    a->in.window = &a->window;
    if (m->o.qk_norm) a->in.scale = &m->w.block[layer].qk_scale;
}

/* n1 -> o. In generation, keys and values go into the layer's cache first. */
static void attend(transformer *m, int32_t layer, int64_t batch, int64_t tokens)
{
    block_state *b = &m->block[layer];
    attention_views a;
    slg_attention_out out;
    slg_tensor o = heads_of(m, b->o, batch, tokens, m->o.width, 0);
    slg_tensor lse = {
        b->lse, SLG_F32, 3, { batch, m->o.heads, tokens }, { m->o.heads * tokens, tokens, 1 }
    };
    slg_tensor max_logit = slg_tensor_1d(b->max_logit, SLG_F32, m->o.heads);
    view(m, layer, batch, tokens, &a);
    if (m->o.qk_norm) {
        const int64_t d = m->o.width;
        slg_tensor q = heads_of(m, b->qkv, batch, tokens, 3 * d, 0);
        slg_tensor k = heads_of(m, b->qkv, batch, tokens, 3 * d, d);
        must(m, slg_qk_norm(m->ctx, &q, NULL, NULL, &a.q));
        must(m, slg_qk_norm(m->ctx, &k, NULL, NULL, &a.k));
    }
    if (m->o.rotary) turn(m, &a.q, &a.k, m->past, false);
    slg_attention_out_init(&out, sizeof out);
    out.o = &o;
    if (m->generates) {
        must(m, slg_attention_cache_append(m->cache[layer], &a.k, &a.v));
        a.in.k = a.in.v = a.in.window = NULL;
        must(m, slg_attention_decode(m->cache[layer], &a.in, NULL, &out));
        return;
    }
    out.lse = &lse;
    out.max_logit = &max_logit;
    must(m, slg_attention(m->ctx, &a.in, NULL, &out));
}

/* dn (gradient of o) -> dqkv. */
static void attend_backward(transformer *m, int32_t layer, int64_t batch, int64_t tokens)
{
    const int64_t d = m->o.width, wide = m->o.qk_norm ? 2 * d : 3 * d;
    block_state *b = &m->block[layer];
    attention_views a;
    slg_attention_out out;
    slg_attention_grad grad;
    slg_tensor o = heads_of(m, b->o, batch, tokens, d, 0);
    slg_tensor lse = {
        b->lse, SLG_F32, 3, { batch, m->o.heads, tokens }, { m->o.heads * tokens, tokens, 1 }
    };
    slg_tensor dout = heads_of(m, m->dn, batch, tokens, d, 0);
    float *dqk = m->o.qk_norm ? m->dqk : m->dqkv;
    slg_tensor dq = heads_of(m, dqk, batch, tokens, wide, 0);
    slg_tensor dk = heads_of(m, dqk, batch, tokens, wide, d);
    slg_tensor dv = heads_of(m, m->dqkv, batch, tokens, 3 * d, 2 * d);
    view(m, layer, batch, tokens, &a);
    slg_attention_out_init(&out, sizeof out);
    slg_attention_grad_init(&grad, sizeof grad);
    out.o = &o, out.lse = &lse;
    grad.dq = &dq, grad.dk = &dk, grad.dv = &dv;
    if (m->o.qk_norm) grad.dscale = &m->dw.block[layer].qk_scale;
    must(m, slg_attention_backward(m->ctx, &a.in, NULL, &out, &dout, &grad));
    if (m->o.rotary) turn(m, &dq, &dk, 0, true);
    if (!m->o.qk_norm) return;
    slg_tensor q = heads_of(m, b->qkv, batch, tokens, 3 * d, 0), to_q = q;
    slg_tensor k = heads_of(m, b->qkv, batch, tokens, 3 * d, d), to_k = k;
    to_q.data = m->dqkv, to_k.data = m->dqkv + d;
    must(m, slg_qk_norm_backward(m->ctx, &q, NULL, NULL, &dq, &to_q, NULL));
    must(m, slg_qk_norm_backward(m->ctx, &k, NULL, NULL, &dk, &to_k, NULL));
}

/* ---- The model --------------------------------------------------------------------------- */

enum { AT_WORDS = 0, AT_LAST = 1, AT_BLOCKS = 2 }; /* where dropout is */

static void embed(transformer *m, int64_t batch, int64_t tokens, const int32_t *token, float *x)
{
    const int64_t n = batch * tokens, d = m->o.width;
    slg_tensor index = slg_tensor_1d(token, SLG_I32, n), to = rows_of(x, n, d);
    must(m, slg_embedding(m->ctx, &m->w.words, &index, NULL, &to));
}

/* x[b, t] += places[past + t] */
static void add_places(transformer *m, int64_t batch, int64_t tokens, float *x)
{
    const int64_t d = m->o.width;
    const float *places = (const float *)m->w.places.data + m->past * d;
    for (int64_t i = 0; i < batch * tokens * d; i++) x[i] += places[i % (tokens * d)];
}

/* From tokens to h. Each norm takes in what the part before it has left in `branch`. */
static void forward(transformer *m, int64_t batch, int64_t tokens, const int32_t *token,
                    bool training)
{
    const int64_t n = batch * tokens;
    const bool drops = training && m->o.dropout > 0;
    const float *stream = NULL; /* x but for the branch */
    embed(m, batch, tokens, token, m->branch);
    if (drops) drop(m, n, AT_WORDS, true, m->branch);
    if (!m->o.rotary) add_places(m, batch, tokens, m->branch);
    for (int32_t i = 0; i < m->o.layers; i++) {
        const block_weights *w = &m->w.block[i];
        block_state *b = &m->block[i];
        slg_tensor up = rows_of(b->up, n, m->o.hidden), act = rows_of(b->act, n, m->o.hidden);
        slg_activation_opts kind;
        slg_activation_opts_init(&kind, sizeof kind);
        kind.kind = m->o.activation;
        if (!stream) memcpy(b->x1, m->branch, (size_t)(n * m->o.width) * sizeof(float));
        norm(m, n, &w->norm1, &w->norm1_bias, stream ? m->branch : b->x1, stream, b->x1, b->n1,
             b->stats1);
        linear(m, n, &w->qkv, &w->qkv_bias, b->n1, b->qkv);
        attend(m, i, batch, tokens);
        linear(m, n, &w->out, &w->out_bias, b->o, m->branch);
        if (drops) drop(m, n, AT_BLOCKS + 2 * i, false, m->branch);
        norm(m, n, &w->norm2, &w->norm2_bias, m->branch, b->x1, b->x2, b->n2, b->stats2);
        linear(m, n, &w->up, NULL, b->n2, b->up);
        must(m, slg_activation(m->ctx, &up, &w->up_bias, &kind, &act));
        linear(m, n, &w->down, &w->down_bias, b->act, m->branch);
        if (drops) drop(m, n, AT_BLOCKS + 2 * i + 1, false, m->branch);
        stream = b->x2;
    }
    norm(m, n, &m->w.norm, &m->w.norm_bias, m->branch, stream, m->x, m->h, m->stats);
    if (drops) drop(m, n, AT_LAST, false, m->h);
}

/* Output layer and loss in one: logits are never stored. Gradients of h and of words where
   wanted. */
static double loss_of(transformer *m, int64_t n, const int32_t *target, float *loss,
                      bool training)
{
    slg_tensor h = rows_of(m->h, n, m->o.width), dh = rows_of(m->dn, n, m->o.width);
    slg_tensor index = slg_tensor_1d(target, SLG_I32, n),
               each = slg_tensor_1d(loss, SLG_F32, n);
    slg_logits logits = slg_logits_layer(&h, &m->w.output, NULL);
    slg_targets targets = slg_targets_index(&index);
    slg_logits_grad grad = slg_grad_layer(&dh, &m->dw.output, NULL);
    slg_loss_out out = slg_loss_out_none();
    targets.ignore_index = -1;
    if (loss) out.loss = &each;
    must(m, slg_cross_entropy(m->ctx, &logits, &targets, NULL, &out, training ? &grad : NULL));
    return out.value;
}

static void block_backward(transformer *m, int32_t i, int64_t batch, int64_t tokens, bool drops)
{
    const int64_t n = batch * tokens, size = n * m->o.width;
    const block_weights *w = &m->w.block[i];
    block_weights *dw = &m->dw.block[i];
    const block_state *b = &m->block[i];
    slg_tensor up = rows_of(b->up, n, m->o.hidden), dup = rows_of(m->dup, n, m->o.hidden);
    slg_activation_opts kind;
    slg_activation_opts_init(&kind, sizeof kind);
    kind.kind = m->o.activation;
    /* m->dx is the gradient of x, and so of what the branch added to it. */
    memcpy(m->branch, m->dx, (size_t)size * sizeof(float));
    if (drops) drop(m, n, AT_BLOCKS + 2 * i + 1, false, m->branch);
    linear_backward(m, n, &w->down, b->act, m->branch, m->dup, &dw->down, &dw->down_bias);
    must(m, slg_activation_backward(m->ctx, &up, &w->up_bias, &dup, &kind, &dup, &dw->up_bias));
    linear_backward(m, n, &w->up, b->n2, m->dup, m->dn, &dw->up, NULL);
    norm_backward(m, n, &w->norm2, b->x2, b->stats2, m->dn, false, m->dx, &dw->norm2,
                  &dw->norm2_bias);
    memcpy(m->branch, m->dx, (size_t)size * sizeof(float));
    if (drops) drop(m, n, AT_BLOCKS + 2 * i, false, m->branch);
    linear_backward(m, n, &w->out, b->o, m->branch, m->dn, &dw->out, &dw->out_bias);
    attend_backward(m, i, batch, tokens);
    linear_backward(m, n, &w->qkv, b->n1, m->dqkv, m->dn, &dw->qkv, &dw->qkv_bias);
    norm_backward(m, n, &w->norm1, b->x1, b->stats1, m->dn, false, m->dx, &dw->norm1,
                  &dw->norm1_bias);
}

/* From dn, the gradient of h, to those of all weights. words has the output layer's share
   already. */
static void backward(transformer *m, int64_t batch, int64_t tokens, const int32_t *token)
{
    const int64_t n = batch * tokens, d = m->o.width;
    const bool drops = m->o.dropout > 0;
    slg_tensor index = slg_tensor_1d(token, SLG_I32, n), dx = rows_of(m->dx, n, d);
    if (drops) drop(m, n, AT_LAST, false, m->dn);
    norm_backward(m, n, &m->w.norm, m->x, m->stats, m->dn, true, m->dx, &m->dw.norm,
                  &m->dw.norm_bias);
    for (int32_t i = m->o.layers - 1; i >= 0; i--) block_backward(m, i, batch, tokens, drops);
    if (!m->o.rotary) {
        float *places = m->dw.places.data;
        memset(places, 0, (size_t)(m->o.context * d) * sizeof *places);
        for (int64_t i = 0; i < n * d; i++) places[i % (tokens * d)] += m->dx[i];
    }
    if (drops) drop(m, n, AT_WORDS, true, m->dx);
    if (m->o.untied) memset(m->dw.words.data, 0, (size_t)(m->o.vocab * d) * sizeof(float));
    must(m, slg_embedding_backward(m->ctx, &index, &dx, NULL, &m->dw.words));
}

double transformer_train(transformer *m, int64_t batch, int64_t tokens, const int32_t *token,
                         const int32_t *target, float *loss)
{
    transformer_restart(m);
    forward(m, batch, tokens, token, true);
    double mean = loss_of(m, batch * tokens, target, loss, true);
    backward(m, batch, tokens, token);
    m->rng.offset += UINT64_C(1) << 40; /* other numbers for the next call's dropout */
    return mean;
}

double transformer_test(transformer *m, int64_t batch, int64_t tokens, const int32_t *token,
                        const int32_t *target, float *loss)
{
    transformer_restart(m);
    forward(m, batch, tokens, token, false);
    return loss_of(m, batch * tokens, target, loss, false);
}

/* ---- Generation -------------------------------------------------------------------------- */

void transformer_restart(transformer *m)
{
    for (int32_t i = 0; m->cache && i < m->o.layers; i++)
        must(m, slg_attention_cache_reset(m->cache[i]));
    m->generates = false;
    m->past = 0;
}

static void open_caches(transformer *m)
{
    slg_tensor window = slg_tensor_1d(m->window, SLG_I32, m->o.heads);
    slg_attention_cache_opts o;
    slg_attention_cache_opts_init(&o, sizeof o);
    o.heads = o.key_heads = m->o.heads;
    o.dim = m->o.width / m->o.heads;
    o.capacity = m->o.context;
    o.window = &window;
    m->cache = memory((size_t)m->o.layers, sizeof *m->cache);
    for (int32_t i = 0; i < m->o.layers; i++)
        must(m, slg_attention_cache_create(m->ctx, &o, &m->cache[i]));
}

void transformer_next(transformer *m, int64_t tokens, const int32_t *token, float *logits)
{
    const int64_t d = m->o.width;
    if (!m->cache) open_caches(m);
    m->generates = true;
    forward(m, 1, tokens, token, false);
    m->past += tokens;
    linear(m, 1, &m->w.output, NULL, m->h + (tokens - 1) * d, logits);
}

/* ---- Files ------------------------------------------------------------------------------- */

static const char magic[8] = "slgtrf1";

bool transformer_save(const transformer *m, const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    bool done = fwrite(magic, sizeof magic, 1, f) == 1 &&
                fwrite(&m->o, sizeof m->o, 1, f) == 1 &&
                fwrite(m->w.all, sizeof(float), (size_t)m->w.size, f) == (size_t)m->w.size;
    return fclose(f) == 0 && done;
}

transformer *transformer_load(slg_ctx *ctx, const char *path, int64_t batch)
{
    char start[sizeof magic];
    transformer_opts o;
    transformer *m = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    if (fread(start, sizeof start, 1, f) == 1 && memcmp(start, magic, sizeof magic) == 0 &&
        fread(&o, sizeof o, 1, f) == 1 && o.width > 0 && o.heads > 0 &&
        o.width % o.heads == 0 && o.vocab > 0 && o.context > 0 && o.layers > 0 &&
        o.hidden > 0) {
        m = transformer_create(ctx, &o, batch, 0);
        if (fread(m->w.all, sizeof(float), (size_t)m->w.size, f) != (size_t)m->w.size) {
            transformer_free(m);
            m = NULL;
        }
    }
    fclose(f);
    return m;
}
