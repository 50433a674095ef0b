/*
 * tile.h - a tile of queries and a tile of keys: their logits, as forward and backward form
 * them, by the same operations in the same order.
 */
#ifndef SLG_ATTENTION_TILE_H
#define SLG_ATTENTION_TILE_H

#include "problem.h"

typedef struct tile {
    const sequence *seq;
    int64_t head;
    int64_t query, queries; /* within the sequence */
    int64_t key, keys;
    size_t lanes; /* queries, rounded up to LANE_STEP: the rest are queries of zeros */
} tile;

/* Scratch of a worker. Rows of tiles over queries are QUERY_TILE apart. */
typedef struct tile_space {
    float *q;              /* [dim, queries]: q' times the scale */
    float *s, *d;          /* [keys, queries] */
    float *x, *y;          /* the same: for what is turned, and for drops */
    float *k, *v;          /* [keys, dim]: where k, v cannot be used as they are */
    float *rows;           /* [queries, the larger dim]: rows of q, o, do */
    size_t k_step, v_step; /* between their rows */
} tile_space;

/* Floats of scratch: a tile_space for a worker at base, if that is not NULL. */
size_t tile_space_of(const attention *a, float *base, tile_space *t);

/* The next n floats of scratch; the spaces between keep arrays out of each other's cache
   sets. */
static inline float *take(float *base, size_t *used, size_t n)
{
    float *p = base ? base + *used : NULL;
    *used += (n + 15) / 16 * 16 + 32;
    return p;
}

/* Rows [token, token + m) of a head as float32, columns contiguous: as they are, or in
   scratch with rows `step` apart. */
const float *fetch_rows(const attention *a, const heads_view *view, int64_t batch, int64_t head,
                        int64_t token, int64_t m, float *scratch, size_t step, ptrdiff_t *ld);

/* Rows of an output: where to write them, and the same back after it. */
float *stage_rows(const heads_view *view, int64_t batch, int64_t head, int64_t token,
                  float *scratch, size_t step, ptrdiff_t *ld);
void commit_rows(const attention *a, const heads_view *view, int64_t batch, int64_t head,
                 int64_t token, int64_t m, const float *scratch, size_t step);

/* to [view.dim, queries] = factor times rows of queries, turned; lanes past them 0. */
void turn_queries(const attention *a, const heads_view *view, const tile *t, float factor,
                  float *scratch, float *to);

/* A tile of queries of a head, from the query given on, without keys yet. */
tile queries_of(const attention *a, const sequence *s, int64_t head, int64_t query);

/* Keys [*from, *to) of its sequence that a tile of queries may see. */
void visible_keys(const attention *a, const tile *t, int64_t *from, int64_t *to);

/* Logits of t in space->s, from space->q and rows of k; hidden pairs are -inf. slope: the
   derivative of the soft-cap, NULL: not wanted. True if any pair of the tile may be hidden. */
bool tile_logits(const attention *a, const tile *t, const float *k, ptrdiff_t ldk,
                 const tile_space *space, float *slope);

/* What p is to be multiplied by for dropout: [keys, queries]. */
void tile_drop(const attention *a, const tile *t, float *to);

/* True if no element of m rows of n is NaN or infinite. */
bool rows_finite(const kernel_table *k, const float *x, ptrdiff_t ld, int64_t m, int64_t n);

/* C (+)= A B on the kernels of a. */
static inline void gemm(const attention *a, size_t m, size_t n, size_t k, const float *x,
                        ptrdiff_t row, ptrdiff_t col, const float *b, ptrdiff_t ldb, float *c,
                        ptrdiff_t ldc, bool add, bool keep_zeros)
{
    const tile_product t = { m, n, k, x, row, col, b, ldb, c, ldc, add, keep_zeros };
    a->ctx->k.tile_gemm(&t);
}

#endif
