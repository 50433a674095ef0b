/*
 * problem.h - a call of attention, checked: what forward and backward (and decoding) share.
 *
 * Work is cut into sequences (a batch entry, or a piece of packed tensors), heads, tiles of
 * queries and tiles of keys. A tile of logits is stored with queries in the lanes: s [keys,
 * QUERY_TILE].
 */
#ifndef SLG_ATTENTION_PROBLEM_H
#define SLG_ATTENTION_PROBLEM_H

#include "core/tensor.h"

#include "forward.h"

/* A tensor [batch, heads, tokens, dim] and where its rows are. */
typedef struct heads_view {
    rows rows;
    int64_t batch, heads, tokens, dim;
    ptrdiff_t step; /* elements from a token to the next */
} heads_view;

typedef struct sequence {
    int64_t batch;
    int64_t query, queries; /* first token of q; how many */
    int64_t key, keys;      /* of k and v; those past a key_length left out */
    int64_t position;       /* of query 0 among the keys */
    int64_t tile;           /* tiles of queries of the sequences before this one */
} sequence;

/* Keys j that a query at position p sees: low <= p - j <= high. */
typedef struct band {
    int64_t low, high;
} band;

typedef struct attention {
    slg_ctx *ctx;
    slg_attention_inputs in; /* as given, in our size */
    heads_view q, k, v;
    int64_t batch, heads, key_heads, queries, keys, dim, value_dim;
    bool flat;                    /* q has 3 dimensions */
    int64_t query_tile, key_tile; /* at most QUERY_TILE and KEY_TILE: tests make them smaller */

    int64_t sequences, tiles; /* tiles of queries of all sequences, of one head */
    sequence *sequence;
    band *band;            /* [heads] */
    float *scale;          /* [heads] */
    float *slopes, *sinks; /* [heads]; NULL: none */
    unsigned char *valid;  /* [batch, keys]: 0 hides a key; NULL: none is hidden */
    heads_view bias;       /* rows.data NULL: none; batch or heads may be 1 */
    float softcap;         /* 0: none */
    bool causal;
    float keep;         /* 1 / (1 - dropout) */
    uint32_t threshold; /* dropped below; 0: no dropout */
    uint64_t seed, offset, next;
} attention;

/* ---- attention_options.c, problem.c ------------------------------------------------------ */

slg_status attention_options(slg_ctx *ctx, const slg_attention_opts *opts,
                             slg_attention_opts *o);

/* Checks inputs and options, reads the small tensors into the arena. */
slg_status attention_open(slg_ctx *ctx, const slg_attention_inputs *in,
                          const slg_attention_opts *o, int64_t query_tile, int64_t key_tile,
                          attention *a);

/* A tensor of the dimensions of q, [batch, heads, tokens, dim], which must fit. */
slg_status heads_view_open(slg_ctx *ctx, const char *name, const slg_tensor *t,
                           heads_view *view);
slg_status heads_view_is(slg_ctx *ctx, const char *name, const heads_view *view, int64_t batch,
                         int64_t heads, int64_t tokens, int64_t dim);

/* Checks that an output overlaps none of the inputs. */
slg_status attention_apart(const attention *a, const char *name, const slg_tensor *out);

/* Checks outputs of the forward pass. lse is left as it is where it is not wanted. */
slg_status attention_open_out(const attention *a, const slg_attention_out *out, heads_view *o,
                              rows *lse);

/* A tensor [batch, heads, tokens], [heads, tokens] where q has 3 dimensions. */
slg_status attention_per_query(const attention *a, const char *name, const slg_tensor *t);

static inline int64_t view_row(const heads_view *v, int64_t batch, int64_t head, int64_t token)
{
    return (batch * v->heads + head) * v->tokens + token;
}

/* The sequence of a tile of queries. */
const sequence *sequence_of_tile(const attention *a, int64_t tile);

static inline int64_t key_head_of(const attention *a, int64_t head)
{
    return head * a->key_heads / a->heads; /* heads is a multiple */
}

#endif
