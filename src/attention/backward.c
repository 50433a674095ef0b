/*
 * backward.c - gradients of attention by tiles, from the log-sum-exp of the forward pass.
 *
 * Keys are cut into chunks that fit the L2 cache with their gradients, and a chunk is walked by
 * all queries that see it: a tile of logits is formed anew once, for all three gradients, by
 * five products. dk and dv of a chunk belong to its task. dq is summed over chunks; where heads
 * are few, chunks go to `parts` sums that are added in order afterwards. All of that follows
 * from the shape alone, so the bits do not depend on the number of threads.
 */
#include "backward.h"

#include <math.h>
#include <string.h>

/* Scratch of a worker. */
typedef struct chunk_space {
    tile_space tile;
    float *turned_dout; /* [value_dim, queries] */
    float *q, *dout; /* [queries, dim]: scaled rows of q; rows of dout where not as they are */
    float *dq;       /* [dim, queries] */
    float *slope;    /* [keys, queries] */
    float *dk, *dv;  /* [chunk, dim] */
} chunk_space;

static size_t space_of(const backward_run *r, float *base, chunk_space *c)
{
    const attention *a = &r->a;
    size_t used = tile_space_of(a, base, &c->tile);
    c->turned_dout = take(base, &used, (size_t)a->value_dim * QUERY_TILE);
    c->q = take(base, &used, QUERY_TILE * c->tile.k_step);
    c->dout = take(base, &used, QUERY_TILE * c->tile.v_step);
    c->dq = take(base, &used, (size_t)a->dim * QUERY_TILE);
    c->slope = take(base, &used, a->softcap > 0 ? (size_t)KEY_TILE * QUERY_TILE : 0);
    c->dk = take(base, &used, (size_t)r->chunk * c->tile.k_step);
    c->dv = take(base, &used, (size_t)r->chunk * c->tile.v_step);
    return used;
}

/* ---- Before: what a query brings --------------------------------------------------------- */

/* delta = <do, o> - dlse of a tile of queries, and its share of the sink's gradient. */
static void delta_task(void *arg, int64_t task, int32_t worker)
{
    const backward_run *r = arg;
    const attention *a = &r->a;
    chunk_space c;
    space_of(r, r->scratch + (size_t)worker * r->per_worker, &c);
    const sequence *s = sequence_of_tile(a, task / a->heads);
    const int64_t at = task - s->tile * a->heads;
    const tile t = queries_of(a, s, at % a->heads, at / a->heads * a->query_tile);
    const int64_t token = s->query + t.query;
    const int64_t first = view_row(&a->q, s->batch, t.head, token);
    ptrdiff_t ldo, ldd;
    const float *o = fetch_rows(a, &r->o, s->batch, t.head, token, t.queries, c.tile.rows,
                                c.tile.v_step, &ldo);
    const float *d = fetch_rows(a, &r->dout, s->batch, t.head, token, t.queries, c.dout,
                                c.tile.v_step, &ldd);
    const double sink = a->sinks ? (double)a->sinks[t.head] : -INFINITY;
    double share = 0;
    for (int64_t i = 0; i < t.queries; i++) {
        const double lse = rows_get(&r->lse, first + i, 0);
        double delta = a->ctx->k.dot((size_t)a->value_dim, o + i * ldo, d + i * ldd, 0.0f);
        if (r->dlse.data) delta -= rows_get(&r->dlse, first + i, 0);
        r->lse_rows[first + i] = (float)lse;
        r->delta[first + i] = (float)delta;
        if (sink != -INFINITY) share -= exp(sink - lse) * delta;
    }
    if (r->sink_parts) r->sink_parts[task] = share;
}

/* ---- A tile ------------------------------------------------------------------------------ */

/* A tile of queries as the products take it. */
typedef struct query_side {
    _Alignas(64) float lse[QUERY_TILE], delta[QUERY_TILE];
    const float *dout;
    ptrdiff_t ld_dout;
    bool finite_q, finite_dout;
} query_side;

static void open_queries(const backward_run *r, const tile *t, const chunk_space *c,
                         query_side *s)
{
    const attention *a = &r->a;
    const int64_t batch = t->seq->batch, token = t->seq->query + t->query;
    const int64_t first = view_row(&a->q, batch, t->head, token);
    const size_t step = c->tile.k_step;
    ptrdiff_t ld;
    memset(s->lse, 0, sizeof s->lse);
    memset(s->delta, 0, sizeof s->delta);
    memcpy(s->lse, r->lse_rows + first, (size_t)t->queries * sizeof(float));
    memcpy(s->delta, r->delta + first, (size_t)t->queries * sizeof(float));
    turn_queries(a, &a->q, t, a->scale[t->head], c->tile.rows, c->tile.q);
    turn_queries(a, &r->dout, t, 1.0f, c->tile.rows, c->turned_dout);
    const float *q =
        fetch_rows(a, &a->q, batch, t->head, token, t->queries, c->tile.rows, step, &ld);
    for (int64_t i = 0; i < t->queries; i++)
        a->ctx->k.scale((size_t)a->dim, q + i * ld, a->scale[t->head], c->q + (size_t)i * step);
    s->dout = fetch_rows(a, &r->dout, batch, t->head, token, t->queries, c->dout,
                         c->tile.v_step, &s->ld_dout);
    s->finite_q = rows_finite(&a->ctx->k, c->q, (ptrdiff_t)step, t->queries, a->dim);
    s->finite_dout = rows_finite(&a->ctx->k, s->dout, s->ld_dout, t->queries, a->value_dim);
    memset(c->dq, 0, (size_t)a->dim * QUERY_TILE * sizeof *c->dq);
}

/* da, turned back, is added to the bias's gradient. */
static void add_dbias(const backward_run *r, const tile *t, const tile_space *space)
{
    const attention *a = &r->a;
    const heads_view *v = &r->dbias;
    const kernel_table *k = &a->ctx->k;
    const int64_t batch = v->batch == 1 ? 0 : t->seq->batch, head = v->heads == 1 ? 0 : t->head;
    const int64_t row = view_row(v, batch, head, t->seq->query + t->query);
    const int64_t col = t->seq->key + t->key;
    k->transpose((size_t)t->keys, (size_t)t->queries, space->d, QUERY_TILE, 1.0f, space->y,
                 KEY_TILE);
    for (int64_t i = 0; i < t->queries; i++) {
        float part[KEY_TILE];
        float *to = rows_stage(&v->rows, row + i, col, part);
        if (to == part) rows_fetch(k, &v->rows, row + i, col, t->keys, part);
        k->add((size_t)t->keys, space->y + i * KEY_TILE, to);
        rows_commit(k, &v->rows, row + i, col, t->keys, part);
    }
}

/* first: of the chunk's keys. */
static void add_tile(const backward_run *r, const tile *t, const query_side *s,
                     const chunk_space *c, int64_t first)
{
    const attention *a = &r->a;
    const kernel_table *f = &a->ctx->k;
    const tile_space *space = &c->tile;
    const int64_t head = key_head_of(a, t->head), token = t->seq->key + t->key;
    const size_t keys = (size_t)t->keys, queries = (size_t)t->queries,
                 at = (size_t)(t->key - first);
    const size_t dim = (size_t)a->dim, wide = (size_t)a->value_dim;
    ptrdiff_t ldk, ldv;
    const float *k = fetch_rows(a, &a->k, t->seq->batch, head, token, t->keys, space->k,
                                space->k_step, &ldk);
    const float *v = fetch_rows(a, &a->v, t->seq->batch, head, token, t->keys, space->v,
                                space->v_step, &ldv);
    const bool hidden = tile_logits(a, t, k, ldk, space, a->softcap > 0 ? c->slope : NULL);
    gemm(a, keys, t->lanes, wide, v, ldv, 1, c->turned_dout, QUERY_TILE, space->d, QUERY_TILE,
         false, false);
    if (a->threshold) {
        tile_drop(a, t, space->x);
        f->mul(keys * QUERY_TILE, space->x, space->d);
    }
    f->tile_grad(keys, t->lanes, space->s, space->d, QUERY_TILE, s->lse, s->delta);
    if (a->threshold) f->mul(keys * QUERY_TILE, space->x, space->s);
    if (r->dv.rows.data)
        gemm(a, keys, wide, queries, space->s, QUERY_TILE, 1, s->dout, s->ld_dout,
             c->dv + at * space->v_step, (ptrdiff_t)space->v_step, true,
             hidden && !s->finite_dout);
    if (r->dbias.rows.data) add_dbias(r, t, space);
    if (a->softcap > 0) f->mul(keys * QUERY_TILE, c->slope, space->d);
    if (r->dk.rows.data)
        gemm(a, keys, dim, queries, space->d, QUERY_TILE, 1, c->q, (ptrdiff_t)space->k_step,
             c->dk + at * space->k_step, (ptrdiff_t)space->k_step, true,
             hidden && !s->finite_q);
    if (r->dq_wanted)
        gemm(a, dim, t->lanes, keys, k, 1, ldk, space->d, QUERY_TILE, c->dq, QUERY_TILE, true,
             hidden && !rows_finite(f, k, ldk, t->keys, a->dim));
}

/* ---- A chunk of keys --------------------------------------------------------------------- */

/* Where the sum of dq for a row is kept. */
static float *dq_row(const backward_run *r, int64_t part, int64_t row)
{
    if (!r->dq_parts) return (float *)(void *)rows_at(&r->dq.rows, row);
    const int64_t count = r->a.batch * r->a.heads * r->a.queries;
    return r->dq_parts + (part * count + row) * r->a.dim;
}

/* dq of a tile of queries from a chunk, to its sum; <dq, q> / scale. */
static double add_dq(const backward_run *r, const tile *t, const chunk_space *c, int64_t part)
{
    const attention *a = &r->a;
    const kernel_table *f = &a->ctx->k;
    const int64_t token = t->seq->query + t->query;
    const int64_t first = view_row(&a->q, t->seq->batch, t->head, token);
    const size_t step = c->tile.k_step, dim = (size_t)a->dim;
    float *sum = c->tile.rows, *whole = c->q; /* spent: q as it is, for the scale's gradient */
    ptrdiff_t ld;
    double dot = 0;
    f->transpose(dim, (size_t)t->queries, c->dq, QUERY_TILE, 1.0f, sum, (ptrdiff_t)step);
    if (r->scale_parts) {
        const float *q =
            fetch_rows(a, &a->q, t->seq->batch, t->head, token, t->queries, whole, step, &ld);
        for (int64_t i = 0; i < t->queries; i++)
            dot += f->dot(dim, sum + (size_t)i * step, q + i * ld, 0.0f);
    }
    if (!r->dq.rows.data) return dot;
    for (int64_t i = 0; i < t->queries; i++) {
        float *row = sum + (size_t)i * step;
        f->scale(dim, row, a->scale[t->head], row);
        f->add(dim, row, dq_row(r, part, first + i));
    }
    return dot;
}

/* All queries of a head over keys [first, end) of a sequence. */
static void walk_queries(const backward_run *r, const sequence *s, int64_t head, int64_t part,
                         int64_t first, int64_t end, const chunk_space *c)
{
    const attention *a = &r->a;
    double dot = 0;
    for (int64_t query = 0; query < s->queries; query += a->query_tile) {
        query_side side;
        int64_t from, to;
        tile t = queries_of(a, s, head, query);
        visible_keys(a, &t, &from, &to);
        if (from < first) from = first;
        if (to > end) to = end;
        if (from >= to) continue;
        open_queries(r, &t, c, &side);
        const int64_t tiles = (to - from + a->key_tile - 1) / a->key_tile;
        for (int64_t i = 0; i < tiles; i++) {
            t.key = from + pool_range_start(to - from, tiles, i);
            t.keys = from + pool_range_start(to - from, tiles, i + 1) - t.key;
            add_tile(r, &t, &side, c, first);
        }
        if (r->dq_wanted) dot += add_dq(r, &t, c, part);
    }
    if (r->scale_parts)
        r->scale_parts[(part * a->sequences + (s - a->sequence)) * a->heads + head] += dot;
}

static void put_rows(const backward_run *r, const heads_view *view, int64_t batch, int64_t head,
                     int64_t token, int64_t m, const float *x, size_t step)
{
    for (int64_t i = 0; i < m && view->rows.data && view->dim > 0; i++) {
        const int64_t row = view_row(view, batch, head, token + i);
        const float *from = x + (size_t)i * step;
        if (view->rows.plain)
            memcpy(rows_at(&view->rows, row), from, (size_t)view->dim * sizeof *x);
        else
            rows_commit(&r->a.ctx->k, &view->rows, row, 0, view->dim, from);
    }
}

/* The chunks of a part, of one key head of a sequence. */
static void key_head(const backward_run *r, const sequence *s, int64_t group, int64_t part,
                     const chunk_space *c)
{
    const attention *a = &r->a;
    const int64_t share = a->heads / a->key_heads,
                  keys = a->in.query_offsets ? s->keys : a->keys;
    for (int64_t h = group * share; r->dq.rows.data && h < (group + 1) * share; h++)
        for (int64_t i = 0; i < s->queries && a->dim > 0; i++)
            memset(dq_row(r, part, view_row(&a->q, s->batch, h, s->query + i)), 0,
                   (size_t)a->dim * sizeof(float));
    for (int64_t at = part; at * r->chunk < keys; at += r->parts) {
        const int64_t first = at * r->chunk;
        const int64_t end = first + r->chunk < keys ? first + r->chunk : keys;
        memset(c->dk, 0, (size_t)(end - first) * c->tile.k_step * sizeof(float));
        memset(c->dv, 0, (size_t)(end - first) * c->tile.v_step * sizeof(float));
        for (int64_t h = group * share; h < (group + 1) * share; h++)
            walk_queries(r, s, h, part, first, end, c);
        put_rows(r, &r->dk, s->batch, group, s->key + first, end - first, c->dk,
                 c->tile.k_step);
        put_rows(r, &r->dv, s->batch, group, s->key + first, end - first, c->dv,
                 c->tile.v_step);
    }
}

/* Of sequences and key heads: one, or all of them where the bias's gradient is a sum over
   them. */
static void chunk_task(void *arg, int64_t task, int32_t worker)
{
    const backward_run *r = arg;
    const attention *a = &r->a;
    chunk_space c;
    space_of(r, r->scratch + (size_t)worker * r->per_worker, &c);
    const int64_t part = task % r->parts, unit = task / r->parts;
    const int64_t group = unit % r->group_units, seq = unit / r->group_units;
    const int64_t groups = a->key_heads / r->group_units,
                  seqs = a->sequences / r->sequence_units;
    for (int64_t s = seq * seqs; s < (seq + 1) * seqs; s++)
        for (int64_t g = group * groups; g < (group + 1) * groups; g++)
            key_head(r, &a->sequence[s], g, part, &c);
}

/* ---- After: sums over parts -------------------------------------------------------------- */

enum { DQ_ROWS = 64 };

static void sum_dq(void *arg, int64_t task, int32_t worker)
{
    const backward_run *r = arg;
    const kernel_table *f = &r->a.ctx->k;
    const int64_t count = r->a.batch * r->a.heads * r->a.queries, dim = r->a.dim;
    const int64_t end = (task + 1) * DQ_ROWS < count ? (task + 1) * DQ_ROWS : count;
    (void)worker;
    for (int64_t row = task * DQ_ROWS; row < end; row++) {
        float *sum = dq_row(r, 0, row);
        for (int64_t p = 1; p < r->parts; p++) f->add((size_t)dim, dq_row(r, p, row), sum);
        if (r->dq.rows.plain)
            memcpy(rows_at(&r->dq.rows, row), sum, (size_t)dim * sizeof *sum);
        else
            rows_commit(f, &r->dq.rows, row, 0, dim, sum);
    }
}

static void put_sinks(const backward_run *r, const slg_tensor *out)
{
    const attention *a = &r->a;
    const rows to = rows_of(out);
    for (int64_t h = 0; h < a->heads; h++) {
        double sum = 0;
        for (int64_t i = h; i < a->tiles * a->heads; i += a->heads) sum += r->sink_parts[i];
        rows_put(&to, 0, h, sum);
    }
}

static void put_scale(const backward_run *r, const slg_tensor *out)
{
    const attention *a = &r->a;
    const rows to = rows_of(out);
    const int64_t count = r->parts * a->sequences * a->heads;
    double all = 0;
    for (int64_t h = 0; h < a->heads; h++) {
        double sum = 0;
        for (int64_t i = h; i < count; i += a->heads) sum += r->scale_parts[i];
        all += sum;
        if (to.cols == a->heads) rows_put(&to, 0, h, sum);
    }
    if (to.cols == 1) rows_put(&to, 0, 0, all);
}

/* ---- The call ---------------------------------------------------------------------------- */

slg_status backward_run_all(backward_run *r, const slg_attention_grad *grad)
{
    attention *a = &r->a;
    slg_ctx *ctx = a->ctx;
    const int64_t count = a->batch * a->heads * a->queries, tasks = a->tiles * a->heads;
    const size_t scales = (size_t)(r->parts * a->sequences * a->heads);
    chunk_space c;
    r->per_worker = space_of(r, NULL, &c);
    r->scratch = arena_alloc(ctx, (size_t)ctx->num_threads, r->per_worker * sizeof(float));
    r->lse_rows = arena_alloc(ctx, (size_t)count, sizeof(float));
    r->delta = arena_alloc(ctx, (size_t)count, sizeof(float));
    if (!r->scratch || !r->lse_rows || !r->delta) return SLG_ERR_MEMORY;
    if (r->dq.rows.data && (r->parts > 1 || !r->dq.rows.plain)) {
        r->dq_parts =
            arena_alloc(ctx, (size_t)(r->parts * count), (size_t)a->dim * sizeof(float));
        if (!r->dq_parts) return SLG_ERR_MEMORY;
    }
    if (grad->dsinks) {
        r->sink_parts = arena_alloc(ctx, (size_t)tasks, sizeof(double));
        if (!r->sink_parts) return SLG_ERR_MEMORY;
    }
    if (grad->dscale) {
        r->scale_parts = arena_alloc(ctx, scales, sizeof(double));
        if (!r->scale_parts) return SLG_ERR_MEMORY;
        for (size_t i = 0; i < scales; i++) r->scale_parts[i] = 0;
    }
    backward_clear(r);
    pool_run(ctx, tasks, delta_task, r);
    pool_run(ctx, r->sequence_units * r->group_units * r->parts, chunk_task, r);
    if (r->dq_parts) pool_run(ctx, (count + DQ_ROWS - 1) / DQ_ROWS, sum_dq, r);
    if (grad->dsinks) put_sinks(r, grad->dsinks);
    if (grad->dscale) put_scale(r, grad->dscale);
    return SLG_OK;
}
