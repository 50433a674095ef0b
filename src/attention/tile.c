/*
 * tile.c - see tile.h.
 */
#include "tile.h"

#include <string.h>

static size_t round_up(int64_t n)
{
    return ((size_t)n + LANE_STEP - 1) / LANE_STEP * LANE_STEP;
}

size_t tile_space_of(const attention *a, float *base, tile_space *t)
{
    const int64_t wide = a->dim > a->value_dim ? a->dim : a->value_dim;
    const size_t scores = (size_t)KEY_TILE * QUERY_TILE;
    size_t used = 0;
    t->k_step = round_up(a->dim), t->v_step = round_up(a->value_dim);
    t->q = take(base, &used, (size_t)a->dim * QUERY_TILE);
    t->s = take(base, &used, scores);
    t->d = take(base, &used, scores);
    t->x = take(base, &used, scores);
    t->y = take(base, &used, scores);
    t->k = take(base, &used, KEY_TILE * t->k_step);
    t->v = take(base, &used, KEY_TILE * t->v_step);
    t->rows = take(base, &used, QUERY_TILE * round_up(wide));
    return used;
}

/* ---- Rows -------------------------------------------------------------------------------- */

const float *fetch_rows(const attention *a, const heads_view *view, int64_t batch, int64_t head,
                        int64_t token, int64_t m, float *scratch, size_t step, ptrdiff_t *ld)
{
    const int64_t row = view_row(view, batch, head, token);
    if (view->rows.plain) {
        *ld = view->step;
        return (const float *)(const void *)rows_at(&view->rows, row);
    }
    *ld = (ptrdiff_t)step;
    for (int64_t i = 0; i < m; i++)
        rows_fetch(&a->ctx->k, &view->rows, row + i, 0, view->dim, scratch + (size_t)i * step);
    return scratch;
}

float *stage_rows(const heads_view *view, int64_t batch, int64_t head, int64_t token,
                  float *scratch, size_t step, ptrdiff_t *ld)
{
    *ld = view->rows.plain ? view->step : (ptrdiff_t)step;
    return rows_stage(&view->rows, view_row(view, batch, head, token), 0, scratch);
}

void commit_rows(const attention *a, const heads_view *view, int64_t batch, int64_t head,
                 int64_t token, int64_t m, const float *scratch, size_t step)
{
    const int64_t row = view_row(view, batch, head, token);
    if (view->rows.plain) return;
    for (int64_t i = 0; i < m; i++)
        rows_commit(&a->ctx->k, &view->rows, row + i, 0, view->dim, scratch + (size_t)i * step);
}

void turn_queries(const attention *a, const heads_view *view, const tile *t, float factor,
                  float *scratch, float *to)
{
    ptrdiff_t ld;
    const float *x = fetch_rows(a, view, t->seq->batch, t->head, t->seq->query + t->query,
                                t->queries, scratch, round_up(view->dim), &ld);
    if ((size_t)t->queries < t->lanes)
        memset(to, 0, (size_t)view->dim * QUERY_TILE * sizeof *to);
    a->ctx->k.transpose((size_t)t->queries, (size_t)view->dim, x, ld, factor, to, QUERY_TILE);
}

bool rows_finite(const kernel_table *k, const float *x, ptrdiff_t ld, int64_t m, int64_t n)
{
    bool all = true;
    for (int64_t i = 0; i < m; i++) all &= k->finite((size_t)n, x + i * ld);
    return all;
}

tile queries_of(const attention *a, const sequence *s, int64_t head, int64_t query)
{
    tile t = { .seq = s, .head = head, .query = query };
    t.queries = s->queries - query < a->query_tile ? s->queries - query : a->query_tile;
    t.lanes = round_up(t.queries);
    return t;
}

/* ---- What is visible --------------------------------------------------------------------- */

void visible_keys(const attention *a, const tile *t, int64_t *from, int64_t *to)
{
    const band b = a->band[t->head];
    const int64_t first = t->seq->position + t->query, last = first + t->queries - 1;
    *from = first - b.high > 0 ? first - b.high : 0;
    *to = last - b.low + 1 < t->seq->keys ? last - b.low + 1 : t->seq->keys;
    if (*to < *from) *to = *from;
}

/* Some query of t does not see some key of it, by the band. */
static bool at_edge(const attention *a, const tile *t)
{
    const band b = a->band[t->head];
    const int64_t first = t->seq->position + t->query, last = first + t->queries - 1;
    return first - (t->key + t->keys - 1) < b.low || last - t->key > b.high;
}

/* Rows of keys that are not valid; true if there were any. */
static bool hide_keys(const attention *a, const tile *t, float *s)
{
    bool any = false;
    if (!a->valid) return false;
    const unsigned char *valid = a->valid + t->seq->batch * a->keys + t->seq->key + t->key;
    for (int64_t j = 0; j < t->keys; j++, s += QUERY_TILE) {
        if (valid[j]) continue;
        any = true;
        for (size_t i = 0; i < t->lanes; i++) s[i] = -INFINITY;
    }
    return any;
}

/* ---- Logits ------------------------------------------------------------------------------ */

/* The bias lies by query: a tile of it is turned, and added. */
static void add_bias(const attention *a, const tile *t, const tile_space *space)
{
    const heads_view *v = &a->bias;
    const int64_t batch = v->batch == 1 ? 0 : t->seq->batch, head = v->heads == 1 ? 0 : t->head;
    const int64_t row = view_row(v, batch, head, t->seq->query + t->query);
    const kernel_table *k = &a->ctx->k;
    float part[KEY_TILE];
    memset(space->x, 0, (size_t)t->keys * QUERY_TILE * sizeof *space->x);
    for (int64_t i = 0; i < t->queries; i++) {
        const float *x = rows_fetch(k, &v->rows, row + i, t->seq->key + t->key, t->keys, part);
        memcpy(space->y + i * KEY_TILE, x, (size_t)t->keys * sizeof *x);
    }
    k->transpose((size_t)t->queries, (size_t)t->keys, space->y, KEY_TILE, 1.0f, space->x,
                 QUERY_TILE);
    k->add((size_t)t->keys * QUERY_TILE, space->x, space->s);
}

bool tile_logits(const attention *a, const tile *t, const float *k, ptrdiff_t ldk,
                 const tile_space *space, float *slope)
{
    const kernel_table *f = &a->ctx->k;
    const size_t keys = (size_t)t->keys;
    const int64_t first = t->key - (t->seq->position + t->query);
    float *s = space->s;
    gemm(a, keys, t->lanes, (size_t)a->dim, k, ldk, 1, space->q, QUERY_TILE, s, QUERY_TILE,
         false, false);
    if (a->softcap > 0)
        for (size_t j = 0; j < keys; j++)
            f->softcap(t->lanes, s + j * QUERY_TILE, a->softcap, s + j * QUERY_TILE,
                       slope ? slope + j * QUERY_TILE : NULL);
    if (a->bias.rows.data) add_bias(a, t, space);
    if (a->slopes) f->tile_alibi(keys, t->lanes, s, QUERY_TILE, first, a->slopes[t->head]);
    const bool edge = at_edge(a, t);
    if (edge) {
        const band b = a->band[t->head];
        f->tile_band(keys, t->lanes, s, QUERY_TILE, first, b.low, b.high);
    }
    return hide_keys(a, t, s) || edge || a->bias.rows.data;
}

/* ---- Dropout ----------------------------------------------------------------------------- */

void tile_drop(const attention *a, const tile *t, float *to)
{
    const int64_t query = t->seq->query + t->query, key = t->seq->key + t->key;
    const uint64_t per_row = (uint64_t)((a->keys + 3) / 4); /* groups of four keys */
    const uint64_t row = (uint64_t)((t->seq->batch * a->heads + t->head) * a->queries + query);
    float group[4 * QUERY_TILE];
    for (int64_t j = 0; j < t->keys;) {
        const int64_t at = (key + j) % 4, n = 4 - at < t->keys - j ? 4 - at : t->keys - j;
        const uint64_t first = a->offset / 2 + row * per_row + (uint64_t)((key + j) / 4);
        a->ctx->k.tile_keep(t->lanes, a->seed, first, per_row, a->threshold, a->keep, group,
                            QUERY_TILE);
        memcpy(to + j * QUERY_TILE, group + at * QUERY_TILE,
               (size_t)n * QUERY_TILE * sizeof *to);
        j += n;
    }
}
