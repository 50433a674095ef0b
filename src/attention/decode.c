/*
 * decode.c - attention of the newest tokens to a cache. A block is some rows of queries, tokens
 * by heads, that read one key head; the keys that they see are cut into pieces, and a task is a
 * piece: tiles of keys, with an exact softmax that is carried along. Then a block's pieces are
 * put together by their log-sum-exp.
 */
#include "cache.h"

#include <math.h>
#include <string.h>

#include "core/options.h"
#include "problem.h"

enum {
    ROWS = 32,     /* the most of a block */
    LOGITS = 2048, /* the most of a tile: rows by keys */
    TILE = 512,    /* the most keys of one */
    PIECE = 512,   /* keys of a task */
    ENOUGH = 64,   /* blocks from which on keys are not cut */
    PAD = 16       /* floats: rows of o are multiples */
};

typedef struct block {
    int64_t batch, head; /* of keys */
    int64_t row, rows;   /* row: token * heads that share a key head + which of them */
    int64_t from, to;    /* keys that any row sees; from is a multiple of GROUP */
    int64_t task, tasks; /* its pieces */
    int64_t at;          /* where its rows of pieces start */
} block;

typedef struct decode_run {
    attention a;
    slg_attention_cache *c;
    heads_view o;
    rows lse;     /* data NULL: not wanted */
    int64_t each; /* heads that share a key head */
    int64_t blocks, tasks, most_tasks;
    block *block;
    int64_t *of_task; /* its block */
    /* Of pieces, a row at a time: */
    float *acc; /* [wide] */
    float *ref, *top;
    double *sum;
    size_t wide;
    float *scratch; /* of all workers */
    size_t per_worker;
    bool want_top;
} decode_run;

static size_t round_up(int64_t n) { return ((size_t)n + PAD - 1) / PAD * PAD; }

static int64_t head_of(const decode_run *r, const block *b, int64_t row)
{
    return b->head * r->each + row % r->each;
}

/* ---- What is visible --------------------------------------------------------------------- */

typedef struct span {
    int64_t from, to;
} span;

static span visible(const decode_run *r, const block *b, int64_t row)
{
    const sequence *s = &r->a.sequence[b->batch];
    const band w = r->a.band[head_of(r, b, row)];
    const int64_t p = s->position + row / r->each;
    span v = { p - w.high > 0 ? p - w.high : 0,
               p - w.low + 1 < s->keys ? p - w.low + 1 : s->keys };
    if (v.to < v.from) v.to = v.from;
    return v;
}

/* That part of s which lies within [from, to). */
static span within(span s, int64_t from, int64_t to)
{
    if (s.from < from) s.from = from;
    if (s.to > to) s.to = to;
    if (s.to < s.from) s.to = s.from;
    return s;
}

/* The spans of all rows of a block, in one. */
static span visible_to_any(const decode_run *r, const block *b, int64_t from, int64_t to)
{
    span all = { to, from };
    for (int64_t i = 0; i < b->rows; i++) {
        const span s = within(visible(r, b, b->row + i), from, to);
        if (s.from == s.to) continue;
        if (s.from < all.from) all.from = s.from;
        if (s.to > all.to) all.to = s.to;
    }
    if (all.to < all.from) all.to = all.from;
    return all;
}

/* ---- A tile ------------------------------------------------------------------------------ */

typedef struct work { /* of a worker */
    float *q;         /* [ROWS, dim], times the scale */
    float *s;         /* [rows, the tile's keys] */
    float *o;         /* [wide] */
    float *w;         /* [most_tasks] */
} work;

static size_t take(float *base, size_t *used, size_t n, float **to)
{
    *to = base ? base + *used : NULL;
    return *used += (n + PAD - 1) / PAD * PAD;
}

static size_t work_of(const decode_run *r, float *base, work *w)
{
    size_t used = 0;
    take(base, &used, ROWS * (size_t)r->a.dim, &w->q);
    take(base, &used, LOGITS, &w->s);
    take(base, &used, r->wide, &w->o);
    return take(base, &used, (size_t)r->most_tasks, &w->w);
}

static void fill_queries(const decode_run *r, const block *b, float *q)
{
    const attention *a = &r->a;
    for (int64_t i = 0; i < b->rows; i++, q += a->dim) {
        const int64_t row = b->row + i, h = head_of(r, b, row);
        const float *x = rows_fetch(&a->ctx->k, &a->q.rows,
                                    view_row(&a->q, b->batch, h, row / r->each), 0, a->dim, q);
        for (int64_t d = 0; d < a->dim; d++) q[d] = x[d] * a->scale[h];
    }
}

static void add_bias(const decode_run *r, const block *b, int64_t row, span keys, float *s)
{
    const attention *a = &r->a;
    const heads_view *v = &a->bias;
    const int64_t n = keys.to - keys.from;
    float part[TILE];
    const int64_t at = view_row(v, v->batch == 1 ? 0 : b->batch,
                                v->heads == 1 ? 0 : head_of(r, b, row), row / r->each);
    a->ctx->k.add((size_t)n, rows_fetch(&a->ctx->k, &v->rows, at, keys.from, n, part), s);
}

/* Bias, masks and their kin of a row of logits of n keys from `key` on, of which it sees `see`.
   True if some of `any` are hidden from it. */
static bool row_logits(const decode_run *r, const block *b, int64_t row, int64_t key, int64_t n,
                       span see, span any, float *s)
{
    const attention *a = &r->a;
    const kernel_table *f = &a->ctx->k;
    const int64_t h = head_of(r, b, row);
    const int64_t p = a->sequence[b->batch].position + row / r->each;
    bool hidden = see.from != any.from || see.to != any.to;
    if (a->softcap > 0) f->softcap((size_t)n, s, a->softcap, s, NULL);
    if (a->bias.rows.data && see.to > see.from) {
        add_bias(r, b, row, see, s + (see.from - key));
        hidden = true;
    }
    if (a->slopes) f->tile_alibi(1, (size_t)n, s, (size_t)n, p - key, a->slopes[h]);
    if (see.from > key || see.to < key + n)
        f->tile_band(1, (size_t)n, s, (size_t)n, see.from - key, 0, see.to - see.from - 1);
    if (!a->valid) return hidden;
    const unsigned char *valid = a->valid + b->batch * a->keys;
    for (int64_t j = see.from; j < see.to; j++)
        if (!valid[j]) s[j - key] = -INFINITY, hidden = true;
    return hidden;
}

/* Kernels by what is kept. */
static void product(const decode_run *r, const cache_scores *t)
{
    const kernel_table *f = &r->a.ctx->k;
    if (r->c->dtype == SLG_F32)
        f->cache_scores_f32(t);
    else if (r->c->dtype == SLG_BF16)
        f->cache_scores_bf16(t);
    else
        f->cache_scores_f16(t);
}

static void add_values(const decode_run *r, const cache_values *t)
{
    const kernel_table *f = &r->a.ctx->k;
    if (r->c->dtype == SLG_F32)
        f->cache_values_f32(t);
    else if (r->c->dtype == SLG_BF16)
        f->cache_values_bf16(t);
    else
        f->cache_values_f16(t);
}

/* Rows of a piece: where what they carry is. */
typedef struct carried {
    float factor[ROWS];
    cache_state state;
    float *acc; /* [rows, wide] */
} carried;

static void add_tile(const decode_run *r, const block *b, int64_t key, int64_t n, const work *w,
                     carried *c)
{
    const slg_attention_cache *kept = r->c;
    const kernel_table *f = &r->a.ctx->k;
    const span any = visible_to_any(r, b, key, key + n);
    const size_t lines = (size_t)b->rows;
    bool hidden = false;
    if (any.from == any.to) return;
    const cache_scores k = { .rows = lines,
                             .groups = (size_t)(n / GROUP),
                             .dim = (size_t)r->a.dim,
                             .q = w->q,
                             .ldq = (size_t)r->a.dim,
                             .k = cache_k(kept, b->batch, b->head, key),
                             .s = w->s,
                             .lds = (size_t)n };
    product(r, &k);
    for (int64_t i = 0; i < b->rows; i++) {
        const span see = within(visible(r, b, b->row + i), key, key + n);
        hidden |= row_logits(r, b, b->row + i, key, n, see, any, w->s + i * n);
    }
    if (f->cache_softmax(lines, (size_t)n, w->s, (size_t)n, &c->state))
        for (size_t i = 0; i < lines; i++)
            for (size_t d = 0; d < r->wide && c->factor[i] != 1; d++)
                c->acc[i * r->wide + d] *= c->factor[i];
    const cache_values v = { .rows = lines,
                             .keys = (size_t)(any.to - any.from),
                             .dim = (size_t)r->a.value_dim,
                             .p = w->s + (any.from - key),
                             .ldp = (size_t)n,
                             .v = cache_v(kept, b->batch, b->head, any.from),
                             .ldv = (size_t)r->a.value_dim,
                             .o = c->acc,
                             .ldo = r->wide,
                             .skip_zeros = hidden };
    add_values(r, &v);
}

/* ---- A piece, and a block ---------------------------------------------------------------- */

static void piece_task(void *arg, int64_t task, int32_t worker)
{
    const decode_run *r = arg;
    const block *b = &r->block[r->of_task[task]];
    const int64_t groups = (b->to - b->from + GROUP - 1) / GROUP, i = task - b->task;
    const int64_t from = b->from + pool_range_start(groups, b->tasks, i) * GROUP;
    const int64_t end = b->from + pool_range_start(groups, b->tasks, i + 1) * GROUP;
    const int64_t to = end < b->to ? end : b->to, ring = r->c->head[b->head].groups;
    const size_t at = (size_t)(b->at + i * b->rows);
    work w;
    carried c;
    const int64_t tile = b->rows <= LOGITS / TILE ? TILE : LOGITS / ROWS;
    work_of(r, r->scratch + (size_t)worker * r->per_worker, &w);
    c.acc = r->acc + at * r->wide;
    c.state =
        (cache_state){ r->ref + at, c.factor, r->sum + at, r->want_top ? r->top + at : NULL };
    memset(c.acc, 0, (size_t)b->rows * r->wide * sizeof *c.acc);
    for (int64_t row = 0; row < b->rows; row++) {
        c.state.ref[row] = r->top[at + (size_t)row] = -INFINITY;
        c.state.sum[row] = 0;
    }
    fill_queries(r, b, w.q);
    for (int64_t key = from, n; key < to; key += n) {
        const int64_t left = (to - key + GROUP - 1) / GROUP * GROUP;
        const int64_t wrap = (ring - key / GROUP % ring) * GROUP;
        n = left < tile ? left : tile;
        if (n > wrap) n = wrap;
        add_tile(r, b, key, n, &w, &c);
    }
}

/* Weights of a row's pieces, and the row's log-sum-exp. */
static double merge_row(const decode_run *r, const block *b, int64_t row, float *w)
{
    const float sink = r->a.sinks ? r->a.sinks[head_of(r, b, b->row + row)] : -INFINITY;
    double ref = (double)sink, sum = 0;
    for (int64_t i = 0; i < b->tasks; i++) {
        const double x = (double)r->ref[b->at + i * b->rows + row];
        if (x > ref || isnan(x)) ref = x;
    }
    for (int64_t i = 0; i < b->tasks; i++) {
        const int64_t at = b->at + i * b->rows + row;
        const double lost = (double)r->ref[at] - ref;
        w[i] = ref == -INFINITY ? 1.0f : (float)exp(lost);
        sum += (double)w[i] * r->sum[at];
    }
    if (sink > -INFINITY || isnan(sink)) sum += exp((double)sink - ref);
    for (int64_t i = 0; i < b->tasks; i++) w[i] = sum == 0 ? 0.0f : (float)((double)w[i] / sum);
    return sum == 0 ? -INFINITY : ref + log(sum);
}

static void block_task(void *arg, int64_t task, int32_t worker)
{
    const decode_run *r = arg;
    const attention *a = &r->a;
    const block *b = &r->block[task];
    work w;
    work_of(r, r->scratch + (size_t)worker * r->per_worker, &w);
    for (int64_t row = 0; row < b->rows; row++) {
        const int64_t h = head_of(r, b, b->row + row), token = (b->row + row) / r->each;
        const int64_t to = view_row(&r->o, b->batch, h, token);
        const double lse = merge_row(r, b, row, w.w);
        float top = -INFINITY;
        memset(w.o, 0, r->wide * sizeof *w.o);
        const cache_values v = { .rows = 1,
                                 .keys = (size_t)b->tasks,
                                 .dim = (size_t)a->value_dim,
                                 .p = w.w,
                                 .ldp = (size_t)b->tasks,
                                 .v = r->acc + (size_t)(b->at + row) * r->wide,
                                 .ldv = (size_t)b->rows * r->wide,
                                 .o = w.o,
                                 .ldo = r->wide };
        a->ctx->k.cache_values_f32(&v);
        if (r->o.rows.plain)
            memcpy(rows_at(&r->o.rows, to), w.o, (size_t)a->value_dim * sizeof *w.o);
        else
            rows_commit(&a->ctx->k, &r->o.rows, to, 0, a->value_dim, w.o);
        if (r->lse.data) rows_put(&r->lse, to, 0, lse);
        for (int64_t i = 0; i < b->tasks; i++)
            top = fmaxf(top, r->top[b->at + i * b->rows + row]);
        if (isnan(lse) && !isinf(top)) top = NAN;
        r->top[b->at + row] = top;
    }
}

/* ---- The call ---------------------------------------------------------------------------- */

static slg_status absent(slg_ctx *ctx, const char *name, const void *given)
{
    if (!given) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_OPTIONS, "%s must be NULL", name);
}

/* The checks of slg_attention, with tensors of the shape of what was appended in place of k and
   v: of no extent in memory, since they are not read. */
static slg_status open_inputs(decode_run *r, const slg_attention_inputs *given,
                              const slg_attention_opts *opts)
{
    slg_attention_cache *c = r->c;
    slg_attention_inputs in = { .size = sizeof in };
    slg_attention_opts o;
    if (!given) return slg_fail(c->ctx, SLG_ERR_NULL, "in is NULL");
    SLG_TRY(options_read(c->ctx, "in", given, &in, sizeof in));
    SLG_TRY(attention_options(c->ctx, opts, &o));
    SLG_TRY(absent(c->ctx, "k", in.k));
    SLG_TRY(absent(c->ctx, "v", in.v));
    SLG_TRY(absent(c->ctx, "window", in.window));
    SLG_TRY(absent(c->ctx, "query_position", in.query_position));
    SLG_TRY(absent(c->ctx, "query_offsets", in.query_offsets));
    SLG_TRY(absent(c->ctx, "key_offsets", in.key_offsets));
    SLG_TRY(absent(c->ctx, "rng", in.rng));
    if (o.dropout > 0)
        return slg_fail(c->ctx, SLG_ERR_OPTIONS, "dropout is %g, must be 0", o.dropout);
    SLG_TRY(tensor_in(c->ctx, "q", in.q, DT_ROW, 3, 4));
    const slg_tensor window = slg_tensor_1d(c->window, SLG_I64, c->heads);
    slg_tensor k = { c, SLG_F32, 4, { c->batch, c->key_heads, c->length, c->dim }, { 0 } };
    if (in.q->ndim == 3 && c->batch == 1)
        k = (slg_tensor){ c, SLG_F32, 3, { c->key_heads, c->length, c->dim, 1 }, { 0 } };
    slg_tensor v = k;
    v.shape[k.ndim - 1] = c->value_dim;
    heads_view q;
    SLG_TRY(heads_view_open(c->ctx, "q", in.q, &q));
    SLG_TRY(heads_view_is(c->ctx, "q", &q, c->batch, c->heads, q.tokens, c->dim));
    if (q.tokens > c->length)
        return slg_fail(c->ctx, SLG_ERR_SHAPE, "q has %lld tokens, the cache has %lld",
                        (long long)q.tokens, (long long)c->length);
    in.k = &k, in.v = &v, in.window = &window;
    SLG_TRY(attention_open(c->ctx, &in, &o, QUERY_TILE, KEY_TILE, &r->a));
    r->a.in.k = r->a.in.v = r->a.in.window = NULL;
    return SLG_OK;
}

/* Rings still have what the first query sees. */
static slg_status check_rings(const decode_run *r)
{
    const slg_attention_cache *c = r->c;
    for (int64_t h = 0; h < c->heads && r->a.queries > 0; h++) {
        const key_head *head = &c->head[h / r->each];
        const int64_t first = c->length - r->a.queries - r->a.band[h].high;
        if (head->kept > (first > 0 ? first : 0))
            return slg_fail(c->ctx, SLG_ERR_RANGE,
                            "the ring of head %lld has dropped the tokens before %lld, and "
                            "%lld queries see them from %lld on",
                            (long long)h, (long long)head->kept, (long long)r->a.queries,
                            (long long)(first > 0 ? first : 0));
    }
    return SLG_OK;
}

/* Blocks of a key head and batch entry: as many as rows need, of about the same size. */
static slg_status make_blocks(decode_run *r)
{
    const attention *a = &r->a;
    slg_ctx *ctx = a->ctx;
    const int64_t lines = a->queries * r->each, per = (lines + ROWS - 1) / ROWS;
    r->blocks = a->batch * a->key_heads * per;
    r->block = arena_alloc(ctx, (size_t)r->blocks, sizeof *r->block);
    if (!r->block) return SLG_ERR_MEMORY;
    const int64_t piece = r->blocks >= ENOUGH ? (int64_t)1 << 61 : PIECE;
    int64_t at = 0;
    for (int64_t i = 0; i < r->blocks; i++) {
        block *b = &r->block[i];
        const int64_t first = pool_range_start(lines, per, i % per);
        *b = (block){ .batch = i / per / a->key_heads, .head = i / per % a->key_heads };
        b->row = first, b->rows = pool_range_start(lines, per, i % per + 1) - first;
        const span s = visible_to_any(r, b, 0, a->keys);
        b->from = s.from / GROUP * GROUP, b->to = s.to > s.from ? s.to : b->from;
        b->tasks = (b->to - b->from + piece - 1) / piece;
        if (b->tasks == 0) b->tasks = 1;
        b->task = r->tasks, b->at = at;
        r->tasks += b->tasks, at += b->tasks * b->rows;
        if (b->tasks > r->most_tasks) r->most_tasks = b->tasks;
    }
    r->of_task = arena_alloc(ctx, (size_t)r->tasks, sizeof *r->of_task);
    r->acc = arena_alloc(ctx, (size_t)at, r->wide * sizeof *r->acc);
    r->ref = arena_alloc(ctx, (size_t)at, sizeof *r->ref);
    r->top = arena_alloc(ctx, (size_t)at, sizeof *r->top);
    r->sum = arena_alloc(ctx, (size_t)at, sizeof *r->sum);
    if (!r->of_task || !r->acc || !r->ref || !r->top || !r->sum) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < r->blocks; i++)
        for (int64_t t = 0; t < r->block[i].tasks; t++) r->of_task[r->block[i].task + t] = i;
    work w;
    r->per_worker = work_of(r, NULL, &w);
    r->scratch = arena_alloc(ctx, (size_t)ctx->num_threads, r->per_worker * sizeof(float));
    return r->scratch ? SLG_OK : SLG_ERR_MEMORY;
}

static void put_max(const decode_run *r, const slg_tensor *out)
{
    const rows to = rows_of(out);
    for (int64_t h = 0; h < r->a.heads; h++) rows_put(&to, 0, h, 0);
    for (int64_t i = 0; i < r->blocks; i++) {
        const block *b = &r->block[i];
        for (int64_t row = 0; row < b->rows; row++) {
            const int64_t h = head_of(r, b, b->row + row);
            const double x = (double)r->top[b->at + row], old = rows_get(&to, 0, h);
            if (isnan(x) || x > old) rows_put(&to, 0, h, x);
        }
    }
}

static slg_status decode(slg_attention_cache *c, const slg_attention_inputs *in,
                         const slg_attention_opts *opts, slg_attention_out *given)
{
    decode_run r = { .c = c, .each = c->heads / c->key_heads, .wide = round_up(c->value_dim) };
    slg_attention_out out = { .size = sizeof out };
    if (!given) return slg_fail(c->ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(c->ctx, "out", given, &out, sizeof out));
    SLG_TRY(open_inputs(&r, in, opts));
    SLG_TRY(attention_open_out(&r.a, &out, &r.o, &r.lse));
    SLG_TRY(check_rings(&r));
    op_detail(c->ctx, r.a.in.q);
    r.want_top = out.max_logit != NULL;
    SLG_TRY(make_blocks(&r));
    pool_run(c->ctx, r.tasks, piece_task, &r);
    pool_run(c->ctx, r.blocks, block_task, &r);
    if (r.want_top) put_max(&r, out.max_logit);
    out.rng_next = 0;
    options_write(given, &out, sizeof out);
    return SLG_OK;
}

slg_status slg_attention_decode(slg_attention_cache *cache, const slg_attention_inputs *in,
                                const slg_attention_opts *opts, slg_attention_out *out)
{
    if (!cache) return SLG_ERR_NULL;
    op_begin(cache->ctx, "slg_attention_decode");
    return op_end(cache->ctx, decode(cache, in, opts, out));
}
