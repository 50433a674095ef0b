/*
 * attention_cache.c - the life of a cache, and what goes into it: see cache.h.
 */
#include "cache.h"

#include <string.h>

#include "core/options.h"
#include "problem.h"

/* What kernels read past the last row of V. */
#define SLACK ((size_t)64)
/* No cache is larger, so that no product overflows. */
#define MOST_BYTES 0x1p46
/* Windows beyond this are as good as it. */
#define FAR ((int64_t)1 << 60)

static const slg_attention_cache_opts defaults = { .size = sizeof(slg_attention_cache_opts),
                                                   .dtype = SLG_F32,
                                                   .batch = 1 };

void slg_attention_cache_opts_init(slg_attention_cache_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* ---- Memory ------------------------------------------------------------------------------ */

static int64_t groups_of(int64_t tokens) { return (tokens + GROUP - 1) / GROUP; }

/* Groups with which a ring never drops what n queries at its end see; FAR: a global head. */
static int64_t ring_groups(const key_head *h, int64_t n)
{
    if (h->window == 0 || h->window >= FAR / 2) return FAR;
    return groups_of(h->window - 1 + (n > ROLLBACK ? n : ROLLBACK) + GROUP - 1);
}

/* Groups that a head is to have for `length` tokens, the last n of them new. */
static int64_t wanted_groups(const key_head *h, int64_t length, int64_t n)
{
    const int64_t ring = ring_groups(h, n), all = groups_of(length);
    const int64_t need = ring < all ? ring : all, doubled = 2 * h->groups;
    if (h->groups > 2 * ring) return ring; /* after a large append */
    if (h->groups >= need) return h->groups;
    const int64_t grown = doubled > need ? doubled : need;
    return grown < ring ? grown : ring;
}

static size_t bytes_of(const slg_attention_cache *c, int64_t groups)
{
    return (size_t)groups * GROUP * (size_t)(c->dim + c->value_dim) * c->item;
}

/* A part whose heads have the groups given: memory, and where heads lie in it. */
static slg_status part_alloc(const slg_attention_cache *c, int part, const int64_t *groups,
                             cache_part *p, size_t *at)
{
    double total = 0;
    *p = (cache_part){ 0 };
    for (int64_t g = 0; g < c->key_heads; g++) {
        if (part_of(&c->head[g]) != part) continue;
        total += (double)groups[g] * GROUP * (double)(c->dim + c->value_dim) * (double)c->item;
        if (total * (double)c->batch > MOST_BYTES)
            return slg_fail(c->ctx, SLG_ERR_MEMORY, "the cache would have %.3g bytes",
                            total * (double)c->batch);
        at[g] = p->batch;
        p->batch += (bytes_of(c, groups[g]) + SLACK - 1) / SLACK * SLACK;
    }
    if (p->batch == 0) return SLG_OK;
    p->bytes = p->batch * (size_t)c->batch + SLACK;
    p->data = ctx_alloc(c->ctx, p->bytes);
    return p->data ? SLG_OK : SLG_ERR_MEMORY;
}

/* Tokens of a head, from `first` on, move to a copy of the cache with other groups. */
static void move_tokens(const slg_attention_cache *from, slg_attention_cache *to, int64_t g,
                        int64_t first)
{
    const size_t k = GROUP * (size_t)from->dim * from->item;
    const size_t v = GROUP * (size_t)from->value_dim * from->item;
    for (int64_t b = 0; b < from->batch; b++)
        for (int64_t t = first / GROUP * GROUP; t < from->length; t += GROUP) {
            memcpy(cache_k(to, b, g, t), cache_k(from, b, g, t), k);
            memcpy(cache_v(to, b, g, t), cache_v(from, b, g, t), v);
        }
}

/* The first token that a head with so many groups has, after one more has been written. */
static int64_t first_kept(const key_head *h, int64_t length)
{
    const int64_t group = groups_of(length) - h->groups;
    return group * GROUP > h->kept ? group * GROUP : h->kept;
}

/* Makes room for `length` tokens, the last n of them new; the cache is as it was where there is
   no memory. */
static slg_status make_room(slg_attention_cache *c, int64_t length, int64_t n)
{
    const size_t heads = (size_t)c->key_heads;
    int64_t *groups = arena_alloc(c->ctx, heads, sizeof *groups);
    size_t *at = arena_alloc(c->ctx, heads, sizeof *at);
    key_head *after = arena_alloc(c->ctx, heads, sizeof *after);
    slg_attention_cache next = *c;
    bool change[PARTS] = { false };
    slg_status status = SLG_OK;
    if (!groups || !at || !after) return SLG_ERR_MEMORY;
    for (int64_t g = 0; g < c->key_heads; g++) {
        groups[g] = wanted_groups(&c->head[g], length, n);
        change[part_of(&c->head[g])] |= groups[g] != c->head[g].groups;
    }
    for (int p = 0; p < PARTS && !status; p++)
        if (change[p]) status = part_alloc(c, p, groups, &next.part[p], at);
    if (status) {
        for (int p = 0; p < PARTS; p++)
            if (next.part[p].data != c->part[p].data) ctx_free(c->ctx, next.part[p].data);
        return status;
    }
    next.head = after;
    for (int64_t g = 0; g < c->key_heads; g++) {
        after[g] = c->head[g];
        if (!change[part_of(&after[g])]) continue;
        after[g].groups = groups[g], after[g].at = at[g];
        after[g].kept = first_kept(&after[g], length);
        move_tokens(c, &next, g, after[g].kept);
    }
    memcpy(c->head, after, heads * sizeof *after);
    for (int p = 0; p < PARTS; p++)
        if (change[p]) {
            ctx_free(c->ctx, c->part[p].data);
            c->part[p] = next.part[p];
        }
    return SLG_OK;
}

/* ---- Life -------------------------------------------------------------------------------- */

static slg_status read_options(slg_ctx *ctx, const slg_attention_cache_opts *opts,
                               slg_attention_cache_opts *o)
{
    *o = defaults;
    if (!opts) return slg_fail(ctx, SLG_ERR_NULL, "opts is NULL");
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    if (o->dtype != SLG_F32 && o->dtype != SLG_BF16 && o->dtype != SLG_F16)
        return slg_fail(ctx, SLG_ERR_DTYPE, "dtype is %s, must be f32, bf16 or f16",
                        dtype_name(o->dtype));
    if (o->key_heads == 0) o->key_heads = o->heads;
    if (o->value_dim == 0) o->value_dim = o->dim;
    const struct {
        const char *name;
        int32_t value, least;
    } fields[] = { { "batch", o->batch, 1 },         { "heads", o->heads, 1 },
                   { "key_heads", o->key_heads, 1 }, { "dim", o->dim, 1 },
                   { "value_dim", o->value_dim, 1 }, { "capacity", o->capacity, 0 } };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < fields[i].least)
            return slg_fail(ctx, SLG_ERR_RANGE, "%s is %d, must be at least %d", fields[i].name,
                            (int)fields[i].value, (int)fields[i].least);
    if (o->heads % o->key_heads)
        return slg_fail(ctx, SLG_ERR_SHAPE, "heads is %d, not a multiple of the %d key_heads",
                        (int)o->heads, (int)o->key_heads);
    return SLG_OK;
}

/* Windows of query heads, and of each key head the largest. */
static slg_status read_windows(slg_attention_cache *c, const slg_tensor *t)
{
    rows m = { 0 };
    if (t) {
        SLG_TRY(tensor_in(c->ctx, "window", t, DT_INT, 1, 1));
        SLG_TRY(tensor_shape_is(c->ctx, "window", t, 1, &c->heads));
        m = rows_of(t);
    }
    for (int64_t h = 0; h < c->heads; h++) {
        const int64_t w = t ? rows_get_int(&m, 0, h) : 0;
        if (w < 0)
            return slg_fail(c->ctx, SLG_ERR_RANGE, "window[%lld] is %lld, must be 0 or more",
                            (long long)h, (long long)w);
        c->window[h] = w;
    }
    const int64_t each = c->heads / c->key_heads;
    for (int64_t g = 0; g < c->key_heads; g++) {
        int64_t largest = c->window[g * each];
        for (int64_t h = g * each; h < (g + 1) * each && largest; h++)
            if (c->window[h] == 0 || c->window[h] > largest) largest = c->window[h];
        c->head[g].window = largest;
    }
    return SLG_OK;
}

/* A cache with its arrays, without parts. */
static slg_attention_cache *bare_cache(slg_ctx *ctx, const slg_attention_cache *like)
{
    const size_t heads = (size_t)like->heads, key_heads = (size_t)like->key_heads;
    slg_attention_cache *c = ctx_alloc(ctx, sizeof *c);
    if (!c) return NULL;
    *c = *like;
    memset(c->part, 0, sizeof c->part);
    c->window = ctx_alloc(ctx, heads * sizeof *c->window);
    c->head = c->window ? ctx_alloc(ctx, key_heads * sizeof *c->head) : NULL;
    if (!c->head) {
        slg_attention_cache_free(c);
        return NULL;
    }
    memset(c->head, 0, key_heads * sizeof *c->head);
    return c;
}

static slg_status create(slg_ctx *ctx, const slg_attention_cache_opts *opts,
                         slg_attention_cache **out)
{
    slg_attention_cache_opts o;
    SLG_TRY(read_options(ctx, opts, &o));
    const slg_attention_cache shape = { .ctx = ctx,
                                        .dtype = o.dtype,
                                        .item = dtype_size(o.dtype),
                                        .batch = o.batch,
                                        .heads = o.heads,
                                        .key_heads = o.key_heads,
                                        .dim = o.dim,
                                        .value_dim = o.value_dim };
    slg_attention_cache *c = bare_cache(ctx, &shape);
    if (!c) return SLG_ERR_MEMORY;
    slg_status status = read_windows(c, o.window);
    if (!status) status = make_room(c, o.capacity > 0 ? o.capacity : GROUP, 1);
    for (int64_t g = 0; g < c->key_heads; g++) c->head[g].kept = 0;
    if (status)
        slg_attention_cache_free(c);
    else
        *out = c;
    return status;
}

slg_status slg_attention_cache_create(slg_ctx *ctx, const slg_attention_cache_opts *opts,
                                      slg_attention_cache **cache)
{
    if (!ctx || !cache) return SLG_ERR_NULL;
    *cache = NULL;
    op_begin(ctx, "slg_attention_cache_create");
    return op_end(ctx, create(ctx, opts, cache));
}

void slg_attention_cache_free(slg_attention_cache *c)
{
    if (!c) return;
    slg_ctx *ctx = c->ctx;
    for (int p = 0; p < PARTS; p++) ctx_free(ctx, c->part[p].data);
    ctx_free(ctx, c->window);
    ctx_free(ctx, c->head);
    ctx_free(ctx, c);
}

static slg_status fork_cache(const slg_attention_cache *c, slg_attention_cache **out)
{
    slg_attention_cache *to = bare_cache(c->ctx, c);
    if (!to) return SLG_ERR_MEMORY;
    memcpy(to->window, c->window, (size_t)c->heads * sizeof *c->window);
    memcpy(to->head, c->head, (size_t)c->key_heads * sizeof *c->head);
    for (int p = 0; p < PARTS; p++) {
        if (!c->part[p].data) continue;
        char *data = ctx_alloc(c->ctx, c->part[p].bytes);
        if (!data) {
            slg_attention_cache_free(to);
            return SLG_ERR_MEMORY;
        }
        to->part[p] = c->part[p];
        to->part[p].data = data;
    }
    for (int64_t g = 0; g < c->key_heads; g++) move_tokens(c, to, g, c->head[g].kept);
    *out = to;
    return SLG_OK;
}

slg_status slg_attention_cache_fork(slg_attention_cache *cache, slg_attention_cache **copy)
{
    if (copy) *copy = NULL;
    if (!cache || !copy) return SLG_ERR_NULL;
    op_begin(cache->ctx, "slg_attention_cache_fork");
    return op_end(cache->ctx, fork_cache(cache, copy));
}

int64_t slg_attention_cache_length(const slg_attention_cache *c) { return c ? c->length : 0; }

int64_t slg_attention_cache_bytes(const slg_attention_cache *c)
{
    if (!c) return 0;
    size_t bytes = sizeof *c + (size_t)c->heads * sizeof *c->window;
    bytes += (size_t)c->key_heads * sizeof *c->head;
    for (int p = 0; p < PARTS; p++) bytes += c->part[p].bytes;
    return (int64_t)bytes;
}

/* ---- Append ------------------------------------------------------------------------------ */

typedef struct append_run {
    slg_attention_cache *c;
    heads_view k, v;
    int64_t n;
    float *scratch; /* of all workers */
    size_t per_worker;
} append_run;

static void to_item(const slg_attention_cache *c, size_t n, const float *x, char *to)
{
    if (c->dtype == SLG_F32)
        memcpy(to, x, n * sizeof *x);
    else if (c->dtype == SLG_BF16)
        c->ctx->k.narrow_bf16(n, x, (uint16_t *)(void *)to);
    else
        c->ctx->k.narrow_f16(n, x, (uint16_t *)(void *)to);
}

/* Elements of a token go to its lane of the group. */
static void scatter(const slg_attention_cache *c, const char *x, char *group, int64_t lane)
{
    const size_t dim = (size_t)c->dim;
    if (c->dtype == SLG_F32) {
        float *to = (float *)(void *)group + lane;
        for (size_t d = 0; d < dim; d++) memcpy(to + d * GROUP, x + d * sizeof *to, sizeof *to);
    } else {
        uint16_t *to = (uint16_t *)(void *)group + lane;
        for (size_t d = 0; d < dim; d++) memcpy(to + d * GROUP, x + d * sizeof *to, sizeof *to);
    }
}

/* m tokens of k into one group, from the i-th of those given on. */
static void put_keys(const append_run *r, int64_t b, int64_t g, int64_t i, int64_t m,
                     float *scratch)
{
    const slg_attention_cache *c = r->c;
    const kernel_table *f = &c->ctx->k;
    const size_t dim = (size_t)c->dim;
    const int64_t token = c->length + i, row = view_row(&r->k, b, g, i);
    char *group = cache_k(c, b, g, token);
    float *turned = scratch + GROUP * dim;
    if (m == GROUP) {
        for (int64_t j = 0; j < GROUP; j++) {
            float *to = scratch + (size_t)j * dim;
            const float *x = rows_fetch(f, &r->k.rows, row + j, 0, c->dim, to);
            if (x != to) memcpy(to, x, dim * sizeof *x);
        }
        f->transpose(GROUP, dim, scratch, (ptrdiff_t)dim, 1.0f, turned, GROUP);
        to_item(c, GROUP * dim, turned, group);
        return;
    }
    if (token % GROUP == 0) memset(group, 0, GROUP * dim * c->item);
    for (int64_t j = 0; j < m; j++) {
        const float *x = rows_fetch(f, &r->k.rows, row + j, 0, c->dim, scratch);
        to_item(c, dim, x, (char *)turned);
        scatter(c, (const char *)turned, group, token % GROUP + j);
    }
}

static void append_task(void *arg, int64_t task, int32_t worker)
{
    const append_run *r = arg;
    const slg_attention_cache *c = r->c;
    const int64_t b = task / c->key_heads, g = task % c->key_heads;
    float *scratch = r->scratch + (size_t)worker * r->per_worker;
    for (int64_t i = 0, m; i < r->n; i += m) {
        m = GROUP - (c->length + i) % GROUP;
        if (m > r->n - i) m = r->n - i;
        put_keys(r, b, g, i, m, scratch);
        for (int64_t j = i; j < i + m; j++)
            to_item(c, (size_t)c->value_dim,
                    rows_fetch(&c->ctx->k, &r->v.rows, view_row(&r->v, b, g, j), 0,
                               c->value_dim, scratch),
                    cache_v(c, b, g, c->length + j));
    }
}

static slg_status append(slg_attention_cache *c, const slg_tensor *k, const slg_tensor *v)
{
    append_run r = { .c = c };
    SLG_TRY(heads_view_open(c->ctx, "k", k, &r.k));
    SLG_TRY(heads_view_open(c->ctx, "v", v, &r.v));
    r.n = r.k.tokens;
    SLG_TRY(heads_view_is(c->ctx, "k", &r.k, c->batch, c->key_heads, r.n, c->dim));
    SLG_TRY(heads_view_is(c->ctx, "v", &r.v, c->batch, c->key_heads, r.n, c->value_dim));
    op_detail(c->ctx, k);
    if (r.n == 0) return SLG_OK;
    if (r.n > FAR / 4 - c->length)
        return slg_fail(c->ctx, SLG_ERR_RANGE, "%lld tokens are too many", (long long)r.n);
    const size_t wide = (size_t)(c->dim > c->value_dim ? c->dim : c->value_dim);
    r.per_worker = 2 * GROUP * wide;
    r.scratch = arena_alloc(c->ctx, (size_t)c->ctx->num_threads, r.per_worker * sizeof(float));
    if (!r.scratch) return SLG_ERR_MEMORY;
    SLG_TRY(make_room(c, c->length + r.n, r.n));
    pool_run(c->ctx, c->batch * c->key_heads, append_task, &r);
    c->length += r.n;
    for (int64_t g = 0; g < c->key_heads; g++)
        c->head[g].kept = first_kept(&c->head[g], c->length);
    return SLG_OK;
}

slg_status slg_attention_cache_append(slg_attention_cache *cache, const slg_tensor *k,
                                      const slg_tensor *v)
{
    if (!cache) return SLG_ERR_NULL;
    op_begin(cache->ctx, "slg_attention_cache_append");
    return op_end(cache->ctx, append(cache, k, v));
}

/* ---- Forgetting -------------------------------------------------------------------------- */

static slg_status truncate_to(slg_attention_cache *c, int64_t length)
{
    if (length < 0 || length > c->length)
        return slg_fail(c->ctx, SLG_ERR_RANGE, "length is %lld, must be from 0 to %lld",
                        (long long)length, (long long)c->length);
    for (int64_t g = 0; g < c->key_heads; g++) {
        const key_head *h = &c->head[g];
        const int64_t first = h->window && length > h->window ? length - h->window : 0;
        if (length > 0 && h->kept > first)
            return slg_fail(c->ctx, SLG_ERR_RANGE,
                            "length is %lld: the ring of key head %lld has dropped the tokens "
                            "before %lld, and needs them from %lld on",
                            (long long)length, (long long)g, (long long)h->kept,
                            (long long)first);
    }
    c->length = length;
    for (int64_t g = 0; g < c->key_heads && length == 0; g++) c->head[g].kept = 0;
    return SLG_OK;
}

slg_status slg_attention_cache_truncate(slg_attention_cache *cache, int64_t length)
{
    if (!cache) return SLG_ERR_NULL;
    op_begin(cache->ctx, "slg_attention_cache_truncate");
    return op_end(cache->ctx, truncate_to(cache, length));
}

slg_status slg_attention_cache_reset(slg_attention_cache *cache)
{
    if (!cache) return SLG_ERR_NULL;
    op_begin(cache->ctx, "slg_attention_cache_reset");
    return op_end(cache->ctx, truncate_to(cache, 0));
}
