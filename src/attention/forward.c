/*
 * forward.c - attention by tiles. A task is a tile of queries of a head: it walks the tiles of
 * keys that these see, with an exact softmax that is carried along (reference, sum) and the
 * output that goes with it. All tiles have queries in the lanes: s' = k q', p' = exp(s' - ref),
 * o' += v' p'.
 */
#include "core/options.h"
#include "tile.h"

#include <math.h>
#include <string.h>

typedef struct forward_run {
    attention a;
    heads_view o;
    rows lse;          /* data NULL: not wanted */
    float *top;        /* [tasks]: the largest |logit|; NULL: not wanted */
    float *scratch;    /* of all workers */
    size_t per_worker; /* floats */
} forward_run;

/* What a tile of queries carries from keys to keys. */
typedef struct carried {
    _Alignas(64) float ref[QUERY_TILE], sum[QUERY_TILE], lost[QUERY_TILE], factor[QUERY_TILE];
    float top[QUERY_TILE], inverse[QUERY_TILE], lse[QUERY_TILE];
    tile_lanes state;
    float *o; /* [value_dim, queries] */
} carried;

static size_t space_of(const attention *a, float *base, tile_space *t, float **o)
{
    size_t used = tile_space_of(a, base, t);
    *o = take(base, &used, (size_t)a->value_dim * QUERY_TILE);
    return used;
}

static void begin(const attention *a, int64_t head, bool top, carried *c)
{
    const float sink = a->sinks ? a->sinks[head] : -INFINITY;
    for (size_t i = 0; i < QUERY_TILE; i++) {
        c->ref[i] = sink;
        c->sum[i] = sink == -INFINITY ? 0.0f : 1.0f;
        c->lost[i] = 0.0f;
        c->top[i] = -INFINITY;
    }
    c->state = (tile_lanes){ c->ref, c->sum, c->lost, c->factor, top ? c->top : NULL };
    memset(c->o, 0, (size_t)a->value_dim * QUERY_TILE * sizeof *c->o);
}

static void add_keys(const attention *a, const tile *t, const tile_space *space, carried *c)
{
    const kernel_table *f = &a->ctx->k;
    const int64_t head = key_head_of(a, t->head), token = t->seq->key + t->key;
    ptrdiff_t ldk, ldv;
    const float *k = fetch_rows(a, &a->k, t->seq->batch, head, token, t->keys, space->k,
                                space->k_step, &ldk);
    const bool hidden = tile_logits(a, t, k, ldk, space, NULL);
    const size_t keys = (size_t)t->keys, wide = (size_t)a->value_dim;
    if (f->tile_softmax(keys, t->lanes, space->s, QUERY_TILE, &c->state))
        f->tile_scale(wide, t->lanes, c->factor, c->o, QUERY_TILE);
    if (a->threshold) {
        tile_drop(a, t, space->x);
        f->mul(keys * QUERY_TILE, space->x, space->s);
    }
    const float *v = fetch_rows(a, &a->v, t->seq->batch, head, token, t->keys, space->v,
                                space->v_step, &ldv);
    const bool careful = hidden && !rows_finite(f, v, ldv, t->keys, a->value_dim);
    gemm(a, wide, t->lanes, keys, v, 1, ldv, space->s, QUERY_TILE, c->o, QUERY_TILE, true,
         careful);
}

static void finish(const forward_run *r, const tile *t, const tile_space *space, carried *c)
{
    const attention *a = &r->a;
    const kernel_table *f = &a->ctx->k;
    const int64_t token = t->seq->query + t->query;
    const size_t wide = (size_t)a->value_dim, step = (wide + 15) / 16 * 16;
    ptrdiff_t ld;
    f->tile_finish(t->lanes, &c->state, c->inverse, c->lse);
    f->tile_scale(wide, t->lanes, c->inverse, c->o, QUERY_TILE);
    if (wide > 0) {
        float *to = stage_rows(&r->o, t->seq->batch, t->head, token, space->rows, step, &ld);
        f->transpose(wide, (size_t)t->queries, c->o, QUERY_TILE, 1.0f, to, ld);
        commit_rows(a, &r->o, t->seq->batch, t->head, token, t->queries, space->rows, step);
    }
    if (!r->lse.data) return;
    const int64_t row = (t->seq->batch * a->heads + t->head) * a->queries + token;
    for (int64_t i = 0; i < t->queries; i++) rows_put(&r->lse, row + i, 0, (double)c->lse[i]);
}

/* The largest |logit| of the queries, 0 where nothing is visible; a NaN counts. */
static float largest(const tile *t, const carried *c)
{
    float top = 0.0f;
    for (int64_t i = 0; i < t->queries; i++) {
        if (isnan(c->lse[i]) && !isinf(c->top[i])) return NAN;
        if (c->top[i] > top) top = c->top[i];
    }
    return top;
}

/* Tasks go by sequence, head, and from the last tile of queries to the first: where causal,
   the long ones come first. */
static tile tile_of_task(const attention *a, int64_t task)
{
    const sequence *s = sequence_of_tile(a, task / a->heads);
    const int64_t tiles = (s->queries + a->query_tile - 1) / a->query_tile;
    const int64_t at = task - s->tile * a->heads;
    return queries_of(a, s, at / tiles, (tiles - 1 - at % tiles) * a->query_tile);
}

static void forward_task(void *arg, int64_t task, int32_t worker)
{
    const forward_run *r = arg;
    const attention *a = &r->a;
    tile_space space;
    carried c;
    int64_t from, to;
    space_of(a, r->scratch + (size_t)worker * r->per_worker, &space, &c.o);
    tile t = tile_of_task(a, task);
    begin(a, t.head, r->top != NULL, &c);
    turn_queries(a, &a->q, &t, a->scale[t.head], space.rows, space.q);
    visible_keys(a, &t, &from, &to);
    /* Tiles of keys of about the same size: a short one costs nearly as much as a whole one. */
    const int64_t tiles = (to - from + a->key_tile - 1) / a->key_tile;
    for (int64_t i = 0; i < tiles; i++) {
        t.key = from + pool_range_start(to - from, tiles, i);
        t.keys = from + pool_range_start(to - from, tiles, i + 1) - t.key;
        add_keys(a, &t, &space, &c);
    }
    finish(r, &t, &space, &c);
    if (r->top) r->top[task] = largest(&t, &c);
}

/* ---- The call ---------------------------------------------------------------------------- */

slg_status attention_open_out(const attention *a, const slg_attention_out *out, heads_view *o,
                              rows *lse)
{
    slg_ctx *ctx = a->ctx;
    SLG_TRY(tensor_out(ctx, "o", out->o, DT_ROW, 3, 4));
    SLG_TRY(heads_view_open(ctx, "o", out->o, o));
    if (out->o->ndim != a->in.q->ndim)
        return slg_fail(ctx, SLG_ERR_SHAPE, "o has %d dimensions, q has %d", (int)out->o->ndim,
                        (int)a->in.q->ndim);
    SLG_TRY(heads_view_is(ctx, "o", o, a->batch, a->heads, a->queries, a->value_dim));
    SLG_TRY(attention_apart(a, "o", out->o));
    if (out->lse) {
        SLG_TRY(tensor_out(ctx, "lse", out->lse, DT_F32, 2, 3));
        SLG_TRY(attention_per_query(a, "lse", out->lse));
        SLG_TRY(attention_apart(a, "lse", out->lse));
        *lse = rows_per_row(out->lse);
    }
    if (out->max_logit) {
        SLG_TRY(tensor_out(ctx, "max_logit", out->max_logit, DT_F32, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "max_logit", out->max_logit, 1, &a->heads));
        SLG_TRY(attention_apart(a, "max_logit", out->max_logit));
    }
    return SLG_OK;
}

/* Queries of packed tensors that belong to no sequence. */
static void clear_rest(const forward_run *r)
{
    const attention *a = &r->a;
    if (!a->in.query_offsets) return;
    const sequence *last = a->sequences ? &a->sequence[a->sequences - 1] : NULL;
    for (int64_t h = 0; h < a->heads; h++)
        for (int64_t i = last ? last->query + last->queries : 0; i < a->queries; i++) {
            const int64_t row = h * a->queries + i;
            for (int64_t c = 0; c < a->value_dim; c++) rows_put(&r->o.rows, row, c, 0);
            if (r->lse.data) rows_put(&r->lse, row, 0, -INFINITY);
        }
}

static void put_max(const forward_run *r, const slg_tensor *out, int64_t tasks)
{
    const attention *a = &r->a;
    const rows to = rows_of(out);
    for (int64_t h = 0; h < a->heads; h++) rows_put(&to, 0, h, 0);
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t h = tile_of_task(a, task).head;
        const double x = (double)r->top[task], old = rows_get(&to, 0, h);
        if (isnan(x) || x > old) rows_put(&to, 0, h, x);
    }
}

slg_status attention_forward(slg_ctx *ctx, const slg_attention_inputs *in,
                             const slg_attention_opts *opts, slg_attention_out *given,
                             int64_t query_tile, int64_t key_tile)
{
    slg_attention_opts o;
    slg_attention_out out = { .size = sizeof out };
    forward_run r = { .scratch = NULL };
    attention *a = &r.a;
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", given, &out, sizeof out));
    SLG_TRY(option_reserved(ctx, "out.reserved", out.reserved));
    SLG_TRY(attention_options(ctx, opts, &o));
    SLG_TRY(attention_open(ctx, in, &o, query_tile, key_tile, a));
    SLG_TRY(attention_open_out(a, &out, &r.o, &r.lse));
    op_detail(ctx, in->q);
    op_detail(ctx, in->k);

    const int64_t tasks = a->tiles * a->heads;
    tile_space space;
    float *acc;
    r.per_worker = space_of(a, NULL, &space, &acc);
    r.scratch = arena_alloc(ctx, (size_t)ctx->num_threads, r.per_worker * sizeof(float));
    if (out.max_logit) r.top = arena_alloc(ctx, (size_t)tasks, sizeof *r.top);
    if (!r.scratch || (out.max_logit && !r.top)) return SLG_ERR_MEMORY;
    pool_run(ctx, tasks, forward_task, &r);
    clear_rest(&r);
    if (out.max_logit) put_max(&r, out.max_logit, tasks);
    out.rng_next = a->next;
    options_write(given, &out, sizeof out);
    return SLG_OK;
}

slg_status slg_attention(slg_ctx *ctx, const slg_attention_inputs *in,
                         const slg_attention_opts *opts, slg_attention_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_attention");
    return op_end(ctx, attention_forward(ctx, in, opts, out, QUERY_TILE, KEY_TILE));
}
