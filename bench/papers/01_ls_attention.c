/*
 * 01_ls_attention.c - nearness by windows instead of by logits. (1) One attention layer that
 * copies the last four symbols: how large logits grow. (2) A small language model on the bytes
 * of a text, at two learning rates: held-out perplexity with global heads, with normalised
 * queries and keys, and with local heads. (3) One step of decoding: time by the number of local
 * heads.
 */
#include "papers.h"

#include "docs/examples/transformer.h"

/* ---- 1: growth of logits ----------------------------------------------------------------- */

enum {
    SYMBOLS = 16,
    TOKENS = 128,
    ROWS = 4 * TOKENS, /* four sequences */
    WIDTH = 32,
    HEADS = 4,
    LAGS = 4,
    FIRST = 8, /* tokens before are not guessed */
    STEPS = 600,
    NEAR = 6 /* window of a local head */
};

typedef struct copier {
    float *w, *dw; /* words, places, q, k, v, out: one after the other */
    slg_tensor words, places, proj, out, dwords, dplaces, dproj, dout;
    int64_t size;
    float *x, *qkv, *o, *z, *dx, *dqkv, *do_, *lse;
    int32_t token[ROWS], place[ROWS], target[ROWS * LAGS];
} copier;

static slg_tensor piece(const float *at, int64_t *used, int64_t rows, int64_t cols)
{
    slg_tensor t = slg_tensor_2d(at + *used, SLG_F32, rows, cols);
    *used += rows * cols;
    return t;
}

static copier *make_copier(run_t *r, rng *g)
{
    copier *c = run_memory(r, sizeof *c);
    int64_t used = 0;
    c->size = (SYMBOLS + TOKENS + 3 * WIDTH + LAGS * SYMBOLS) * WIDTH;
    c->w = run_floats(r, (size_t)c->size), c->dw = run_floats(r, (size_t)c->size);
    c->words = piece(c->w, &used, SYMBOLS, WIDTH),
    c->places = piece(c->w, &used, TOKENS, WIDTH);
    c->proj = piece(c->w, &used, 3 * WIDTH, WIDTH);
    c->out = piece(c->w, &used, LAGS * SYMBOLS, WIDTH);
    used = 0;
    c->dwords = piece(c->dw, &used, SYMBOLS, WIDTH),
    c->dplaces = piece(c->dw, &used, TOKENS, WIDTH);
    c->dproj = piece(c->dw, &used, 3 * WIDTH, WIDTH);
    c->dout = piece(c->dw, &used, LAGS * SYMBOLS, WIDTH);
    fill_normal(g, (SYMBOLS + TOKENS) * WIDTH, c->words.data, 0, 1);
    fill_normal(g, 3 * WIDTH * WIDTH, c->proj.data, 0, 1 / sqrt(WIDTH));
    fill_normal(g, LAGS * SYMBOLS * WIDTH, c->out.data, 0, 0.1);
    c->x = run_floats(r, ROWS * WIDTH), c->dx = run_floats(r, ROWS * WIDTH);
    c->qkv = run_floats(r, ROWS * 3 * WIDTH), c->dqkv = run_floats(r, ROWS * 3 * WIDTH);
    c->o = run_floats(r, ROWS * WIDTH), c->do_ = run_floats(r, ROWS * WIDTH);
    c->z = run_floats(r, ROWS * LAGS * SYMBOLS), c->lse = run_floats(r, ROWS * HEADS);
    for (int i = 0; i < ROWS; i++) c->place[i] = i % TOKENS;
    return c;
}

static void new_tokens(copier *c, rng *g)
{
    for (int i = 0; i < ROWS; i++) c->token[i] = (int32_t)rng_below(g, SYMBOLS);
    for (int i = 0; i < ROWS; i++)
        for (int lag = 1; lag <= LAGS; lag++)
            c->target[i * LAGS + lag - 1] = i % TOKENS < FIRST ? -100 : c->token[i - lag];
}

static slg_tensor by_heads(const float *x, int64_t wide)
{
    const int64_t head = WIDTH / HEADS;
    return (slg_tensor){ (void *)(uintptr_t)x,
                         SLG_F32,
                         4,
                         { ROWS / TOKENS, HEADS, TOKENS, head },
                         { TOKENS * wide, head, wide, 1 } };
}

/* Loss of a batch and gradients of all weights; *logit: the largest that was seen. */
static double copy_step(run_t *r, slg_ctx *ctx, copier *c, int32_t *window, float *logit)
{
    slg_tensor token = slg_tensor_1d(c->token, SLG_I32, ROWS),
               place = slg_tensor_1d(c->place, SLG_I32, ROWS);
    slg_tensor x = slg_tensor_2d(c->x, SLG_F32, ROWS, WIDTH),
               dx = slg_tensor_2d(c->dx, SLG_F32, ROWS, WIDTH);
    slg_tensor qkv = slg_tensor_2d(c->qkv, SLG_F32, ROWS, 3 * WIDTH),
               dqkv = slg_tensor_2d(c->dqkv, SLG_F32, ROWS, 3 * WIDTH);
    slg_tensor o = slg_tensor_2d(c->o, SLG_F32, ROWS, WIDTH),
               do_ = slg_tensor_2d(c->do_, SLG_F32, ROWS, WIDTH);
    slg_tensor z = slg_tensor_2d(c->z, SLG_F32, ROWS, LAGS * SYMBOLS),
               each = slg_tensor_2d(c->z, SLG_F32, ROWS * LAGS, SYMBOLS);
    slg_tensor target = slg_tensor_1d(c->target, SLG_I32, ROWS * LAGS),
               windows = slg_tensor_1d(window, SLG_I32, HEADS);
    slg_tensor q = by_heads(c->qkv, 3 * WIDTH), k = by_heads(c->qkv + WIDTH, 3 * WIDTH),
               v = by_heads(c->qkv + 2 * WIDTH, 3 * WIDTH);
    slg_tensor dq = by_heads(c->dqkv, 3 * WIDTH), dk = by_heads(c->dqkv + WIDTH, 3 * WIDTH),
               dv = by_heads(c->dqkv + 2 * WIDTH, 3 * WIDTH);
    slg_tensor to = by_heads(c->o, WIDTH), dto = by_heads(c->do_, WIDTH);
    slg_tensor lse = {
        c->lse, SLG_F32, 3, { ROWS / TOKENS, HEADS, TOKENS }, { HEADS * TOKENS, TOKENS, 1 }
    };
    slg_tensor most = slg_tensor_1d(logit, SLG_F32, HEADS);
    slg_embedding_opts add;
    slg_attention_inputs in;
    slg_attention_out out;
    slg_attention_grad grad;
    slg_embedding_opts_init(&add, sizeof add);
    slg_attention_inputs_init(&in, sizeof in);
    slg_attention_out_init(&out, sizeof out);
    slg_attention_grad_init(&grad, sizeof grad);
    add.accumulate = 1;
    in.q = &q, in.k = &k, in.v = &v, in.window = &windows;
    out.o = &to, out.lse = &lse, out.max_logit = &most;
    grad.dq = &dq, grad.dk = &dk, grad.dv = &dv;
    must(r, ctx, slg_embedding(ctx, &c->words, &token, NULL, &x));
    must(r, ctx, slg_embedding(ctx, &c->places, &place, &add, &x));
    must(r, ctx, slg_linear(ctx, &x, &c->proj, NULL, &qkv));
    must(r, ctx, slg_attention(ctx, &in, NULL, &out));
    must(r, ctx, slg_linear(ctx, &o, &c->out, NULL, &z));
    const slg_logits logits = slg_logits_dense(&each);
    const slg_targets targets = slg_targets_index(&target);
    slg_loss_out loss = slg_loss_out_none();
    slg_logits_grad dz = slg_grad_dense(&each);
    must(r, ctx, slg_cross_entropy(ctx, &logits, &targets, NULL, &loss, &dz));
    must(r, ctx, slg_linear_backward(ctx, &o, &c->out, &z, NULL, &do_, &c->dout, NULL));
    must(r, ctx, slg_attention_backward(ctx, &in, NULL, &out, &dto, &grad));
    must(r, ctx, slg_linear_backward(ctx, &x, &c->proj, &dqkv, NULL, &dx, &c->dproj, NULL));
    memset(c->dw, 0, (SYMBOLS + TOKENS) * WIDTH * sizeof(float));
    must(r, ctx, slg_embedding_backward(ctx, &token, &dx, NULL, &c->dwords));
    must(r, ctx, slg_embedding_backward(ctx, &place, &dx, NULL, &c->dplaces));
    return loss.value;
}

static slg_optimizer *adam(run_t *r, slg_ctx *ctx, int64_t n, double rate)
{
    slg_optimizer *o;
    slg_adamw_opts a;
    slg_adamw_opts_init(&a, sizeof a);
    a.lr = rate, a.weight_decay = 0;
    must(r, ctx, slg_optimizer_create(ctx, SLG_ADAMW, n, &a, &o));
    return o;
}

enum { POINTS = 60 };

typedef struct curve {
    double step[POINTS], value[POINTS];
    size_t count;
    double largest, loss; /* of logits; the last, of a mean over the last steps */
} curve;

static curve copy_run(run_t *r, slg_ctx *ctx, int locals, uint64_t seed, int steps)
{
    rng g = rng_seed(seed);
    copier *c = make_copier(r, &g);
    slg_optimizer *o = adam(r, ctx, c->size, 1e-2);
    slg_tensor w = slg_tensor_1d(c->w, SLG_F32, c->size),
               dw = slg_tensor_1d(c->dw, SLG_F32, c->size);
    int32_t window[HEADS] = { 0 };
    curve h = { .count = 0 };
    for (int i = 0; i < locals; i++) window[i] = NEAR;
    for (int s = 0; s < steps; s++) {
        float logit[HEADS];
        double top = 0;
        new_tokens(c, &g);
        double loss = copy_step(r, ctx, c, window, logit);
        for (int i = 0; i < HEADS; i++) top = fmax(top, (double)logit[i]);
        h.largest = fmax(h.largest, top);
        if (s >= steps - 20) h.loss += loss / 20;
        if (s % (STEPS / POINTS) == 0 && h.count < POINTS)
            h.step[h.count] = s, h.value[h.count++] = top;
        must(r, ctx, slg_optimizer_step(o, &w, &dw));
    }
    slg_optimizer_free(o);
    return h;
}

static void growth(run_t *r, slg_ctx *ctx)
{
    static const int locals[] = { 0, 3, 2 };
    static const char *const names[] = { "all heads global", "three local, one global",
                                         "two and two" };
    const int steps = run_quick(r) ? 300 : STEPS, seeds = run_quick(r) ? 1 : 2;
    double largest[3] = { 0 }, loss[3] = { 0 };
    figure(r, "Largest logit while copying the last four symbols", "step", "largest |logit|",
           0);
    for (int k = 0; k < 3; k++)
        for (int s = 0; s < seeds; s++) {
            curve h = copy_run(r, ctx, locals[k], (uint64_t)(100 + s), steps);
            if (s == 0) series(r, names[k], h.count, h.step, h.value);
            largest[k] += h.largest / seeds;
            loss[k] = fmax(loss[k], h.loss);
        }
    note(r, "largest logits: MHSA %.1f, 3 local + 1 global %.1f, 2 + 2 %.1f", largest[0],
         largest[1], largest[2]);
    claim(r, "copying lags 1 to 4: largest logit of MHSA / of LS (3 local)", "logits explode",
          largest[0] / largest[1], "x", at_least(1.25));
    claim(r, "copying lags 1 to 4: largest loss at the end, MHSA", "", loss[0], "nats",
          run_quick(r) ? no_bar() : at_most(0.1));
    claim(r, "copying lags 1 to 4: largest loss at the end, LS (3 local)", "", loss[1], "nats",
          run_quick(r) ? no_bar() : at_most(0.1));
}

/* ---- 2: a language model of bytes -------------------------------------------------------- */

enum { BATCH = 8, BYTES = 256, TRAINING = 300 };

typedef enum form { MHSA, LOCAL_3, LOCAL_2, QK_NORM, FORMS } form;
static const char *const forms[FORMS] = { "MHSA", "LS, 3 local + 1 global", "LS, 2 + 2",
                                          "MHSA with QK norm" };

static transformer_opts model_of(form f)
{
    transformer_opts o = transformer_defaults(BYTES);
    o.context = TOKENS, o.layers = 1, o.heads = 4, o.width = 32, o.hidden = 4 * 32;
    o.rms = 1, o.activation = SLG_RELU;
    o.local_heads = f == LOCAL_3 ? 3 : f == LOCAL_2 ? 2 : 0, o.window = 8;
    o.qk_norm = f == QK_NORM;
    o.untied = 1;
    return o;
}

/* Sequences of the text, from these places. */
static void load_bytes(const char *text, const int64_t *from, int32_t *token, int32_t *target)
{
    for (int64_t i = 0; i < BATCH * TOKENS; i++) {
        token[i] = (unsigned char)text[from[i / TOKENS] + i % TOKENS];
        target[i] = (unsigned char)text[from[i / TOKENS] + i % TOKENS + 1];
    }
}

static double held_out(transformer *m, const char *text, int64_t from, int64_t to)
{
    double sum = 0;
    int count = 0;
    static int32_t token[BATCH * TOKENS], target[BATCH * TOKENS];
    for (int64_t at = from; at + TOKENS < to;) {
        int64_t place[BATCH];
        for (int i = 0; i < BATCH; i++) {
            place[i] = at + TOKENS < to ? at : to - TOKENS - 1;
            at += TOKENS;
        }
        load_bytes(text, place, token, target);
        sum += transformer_test(m, BATCH, TOKENS, token, target, NULL);
        count++;
    }
    return exp(sum / count);
}

typedef struct trained {
    curve loss, logit;
    double perplexity;
} trained;

static trained train(run_t *r, slg_ctx *ctx, form f, double rate, const char *text, int64_t n,
                     int steps)
{
    static int32_t token[BATCH * TOKENS], target[BATCH * TOKENS];
    const int64_t train_to = n * 9 / 10;
    const transformer_opts o = model_of(f);
    transformer *m = transformer_create(ctx, &o, BATCH, 1);
    slg_tensor w = transformer_weights(m), dw = transformer_gradients(m);
    slg_optimizer *opt = adam(r, ctx, w.shape[0], rate);
    trained t = { .perplexity = 0 };
    rng g = rng_seed(5);
    for (int s = 0; s < steps; s++) {
        int64_t place[BATCH];
        float head[8];
        double top = 0;
        for (int i = 0; i < BATCH; i++) place[i] = rng_below(&g, train_to - TOKENS - 1);
        load_bytes(text, place, token, target);
        double loss = transformer_train(m, BATCH, TOKENS, token, target, NULL);
        transformer_max_logit(m, 0, head);
        for (int i = 0; i < o.heads; i++) top = fmax(top, (double)head[i]);
        t.logit.largest = fmax(t.logit.largest, top);
        if (s % (TRAINING / POINTS) == 0 && t.loss.count < POINTS) {
            t.loss.step[t.loss.count] = t.logit.step[t.loss.count] = s;
            t.loss.value[t.loss.count] = loss, t.logit.value[t.loss.count++] = top;
        }
        must(r, ctx, slg_optimizer_step(opt, &w, &dw));
    }
    t.perplexity = held_out(m, text, train_to, n);
    slg_optimizer_free(opt);
    transformer_free(m);
    return t;
}

static void language(run_t *r, slg_ctx *ctx)
{
    static const double rates[] = { 3e-3, 3e-2 };
    static trained t[2][FORMS];
    size_t n = 0;
    if (!text_there("/usr/share/common-licenses/GPL-3")) {
        note(r, "the language model is left out: no /usr/share/common-licenses/GPL-3 here");
        return;
    }
    const char *text = text_read(r, "/usr/share/common-licenses/GPL-3", &n);
    const int steps = run_quick(r) ? 120 : TRAINING;
    for (int i = 0; i < 2; i++) {
        for (int f = 0; f < FORMS; f++)
            t[i][f] = train(r, ctx, (form)f, rates[i], text, (int64_t)n, steps);
        double best = fmin(t[i][LOCAL_3].perplexity, t[i][LOCAL_2].perplexity);
        char what[120];
        snprintf(what, sizeof what,
                 "bytes of a text, rate %g: perplexity of the best LS / of MHSA", rates[i]);
        claim(r, what, "down to 2/5 of one method", best / t[i][MHSA].perplexity, "",
              run_quick(r) ? no_bar() : at_most(0.93));
        snprintf(what, sizeof what, "bytes of a text, rate %g: the best LS / MHSA with QK norm",
                 rates[i]);
        claim(r, what, "", best / t[i][QK_NORM].perplexity, "",
              run_quick(r) ? no_bar() : at_most(0.93));
        note(r,
             "rate %g: perplexity MHSA %.2f, LS 3+1 %.2f, LS 2+2 %.2f, QK norm %.2f; largest "
             "logit %.0f, %.0f, %.0f, %.0f",
             rates[i], t[i][0].perplexity, t[i][1].perplexity, t[i][2].perplexity,
             t[i][3].perplexity, t[i][0].logit.largest, t[i][1].logit.largest,
             t[i][2].logit.largest, t[i][3].logit.largest);
    }
    figure(r, "Training loss, rate 0.03", "step", "nats a byte", 0);
    for (int f = 0; f < FORMS; f++)
        series(r, forms[f], t[1][f].loss.count, t[1][f].loss.step, t[1][f].loss.value);
    figure(r, "Largest logit, rate 0.03", "step", "largest |logit|", 0);
    for (int f = 0; f < FORMS; f++)
        series(r, forms[f], t[1][f].logit.count, t[1][f].logit.step, t[1][f].logit.value);
}

/* ---- 3: latency of decoding -------------------------------------------------------------- */

enum { CACHED = 4096, DECODERS = 8, HEAD = 64, LATEST = 64 };

typedef struct decoder {
    run_t *r;
    slg_ctx *ctx;
    slg_attention_cache *cache;
    slg_tensor q, o;
} decoder;

static void decode_once(void *arg)
{
    decoder *d = arg;
    slg_attention_inputs in;
    slg_attention_out out;
    slg_attention_inputs_init(&in, sizeof in);
    slg_attention_out_init(&out, sizeof out);
    in.q = &d->q, out.o = &d->o;
    must(d->r, d->ctx, slg_attention_decode(d->cache, &in, NULL, &out));
}

static decoder make_decoder(run_t *r, slg_ctx *ctx, int locals, slg_tensor *k, slg_tensor *v)
{
    int32_t window[DECODERS] = { 0 };
    slg_tensor windows = slg_tensor_1d(window, SLG_I32, DECODERS);
    slg_attention_cache_opts o;
    decoder d = { .r = r, .ctx = ctx };
    for (int i = 0; i < locals; i++) window[i] = LATEST;
    slg_attention_cache_opts_init(&o, sizeof o);
    o.heads = DECODERS, o.dim = HEAD, o.capacity = CACHED, o.window = &windows;
    must(r, ctx, slg_attention_cache_create(ctx, &o, &d.cache));
    must(r, ctx, slg_attention_cache_append(d.cache, k, v));
    d.q = (slg_tensor){
        run_floats(r, DECODERS * HEAD), SLG_F32, 3, { DECODERS, 1, HEAD }, { HEAD, HEAD, 1 }
    };
    d.o = d.q;
    d.o.data = run_floats(r, DECODERS * HEAD);
    return d;
}

static void latency(run_t *r)
{
    static const int locals[] = { 0, 4, 6 };
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    rng g = rng_seed(9);
    const size_t size = (size_t)DECODERS * CACHED * HEAD;
    slg_tensor k = { run_floats(r, size),
                     SLG_F32,
                     3,
                     { DECODERS, CACHED, HEAD },
                     { CACHED * HEAD, HEAD, 1 } },
               v = k;
    v.data = run_floats(r, size);
    fill_normal(&g, size, k.data, 0, 1), fill_normal(&g, size, v.data, 0, 1);
    decoder d[3];
    contender c[3];
    double ratio[3];
    for (int i = 0; i < 3; i++) {
        d[i] = make_decoder(r, ctx, locals[i], &k, &v);
        fill_normal(&g, DECODERS * HEAD, d[i].q.data, 0, 1);
        c[i] = (contender){ .name = "decode", .fn = decode_once, .arg = &d[i] };
    }
    race(r, c, 3, run_quick(r) ? 9 : 31, 1, ratio);
    claim(r, "decoding, 8 heads of 64, 4096 tokens: 4 heads local / all global",
          "up to 36 % less", ratio[1], "", at_most(0.6));
    claim(r, "decoding, 8 heads of 64, 4096 tokens: 6 heads local / all global", "", ratio[2],
          "", at_most(0.35));
    for (int i = 0; i < 3; i++) slg_attention_cache_free(d[i].cache);
}

static void run(run_t *r)
{
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 0);
    growth(r, ctx);
    language(r, ctx);
    latency(r);
}

const paper paper_01_ls_attention = { 1, "ls-attention",
                                      "Short-Range Dependency Effects on Transformer "
                                      "Instability and a Decomposed Attention Solution",
                                      run };
