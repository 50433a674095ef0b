/*
 * attention_cache.h - decoding: attention of the newest tokens to keys and values that are
 * kept. Key heads that only heads with a window read keep a ring of the last tokens.
 */
#ifndef SOFTLOGIT_ATTENTION_CACHE_H
#define SOFTLOGIT_ATTENTION_CACHE_H

#include "softlogit/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct slg_attention_cache slg_attention_cache;

/* Options of slg_attention_cache_create. */
typedef struct slg_attention_cache_opts {
    uint32_t size;     /* sizeof(slg_attention_cache_opts), set by its _init */
    int32_t dtype;     /* what is kept: SLG_F32 (default), SLG_BF16, SLG_F16 */
    int32_t batch;     /* >= 1, default 1: sequences, all of one length */
    int32_t heads;     /* >= 1: of queries */
    int32_t key_heads; /* of which heads is a multiple; default 0: heads */
    int32_t dim;       /* >= 1: of keys */
    int32_t value_dim; /* default 0: dim */
    int32_t capacity;  /* tokens that a head has room for at first; default 0: few. Then it
                                 grows by doubling */
    const slg_tensor *window; /* [heads]  i32, i64, >= 0; 0: global; NULL: all global. Copied */
} slg_attention_cache_opts;

SLG_API void slg_attention_cache_opts_init(slg_attention_cache_opts *opts, size_t size);

/*
 * A cache without tokens. It belongs to ctx, must be freed before it, and reports through its
 * message; calls that take the cache count as calls of ctx.
 *
 * A key head that a global query head reads keeps all tokens. Any other keeps what queries of
 * the last append can see: window - 1 + n of the largest window that reads it for an append of
 * n, or 16 if that is more, so that slg_attention_cache_truncate can take back 15. Memory:
 * (dim + value_dim) elements of dtype a token, batch and key head, in groups of 32 tokens.
 *
 *   opts   in   not NULL: heads and dim have no default
 *   cache  out  NULL after an error
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_MEMORY;
 * SLG_ERR_RANGE for options outside of their domain. Since 0.1.
 */
SLG_API slg_status slg_attention_cache_create(slg_ctx *ctx,
                                              const slg_attention_cache_opts *opts,
                                              slg_attention_cache **cache);

SLG_API void slg_attention_cache_free(slg_attention_cache *cache);

/*
 * Adds n tokens, n >= 0. Rotary or other codes of absolute positions come before: token i of k
 * has position slg_attention_cache_length + i.
 *
 *   k  [batch, key_heads, n, dim], [key_heads, n, dim] where batch is 1   in  f32, bf16, f16
 *   v  [batch, key_heads, n, value_dim], likewise                         in
 *
 * Rounded to the cache's dtype, to nearest even. Several tokens and then their queries at once
 * is right for any n, also where n is more than a window.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY. The cache
 * stays as it was then. Since 0.1.
 */
SLG_API slg_status slg_attention_cache_append(slg_attention_cache *cache, const slg_tensor *k,
                                              const slg_tensor *v);

/*
 * Attention of the last n tokens: slg_attention over all that was ever appended, with the
 * cache's windows, as long as a ring keeps what the queries see.
 *
 *   in    in   q [batch, heads, n, dim], or [heads, n, dim] where batch is 1: of the positions
 *              [length - n, length). k, v and window are NULL. scale, slopes, sinks, bias,
 *              key_valid, key_length as in slg_attention, with S = length; query_position,
 *              offsets and rng must be NULL
 *   opts  in   as in slg_attention; dropout must be 0
 *   out   out  as in slg_attention; rng_next is 0
 *
 * Up to 32 rows of queries, tokens by heads, that read one key head share one read of it. The
 * keys of a head are cut into pieces that threads share, and that are put together by their
 * log-sum-exp: the same bits for any number of threads.
 *
 * Cost: one read of the keys and values that are visible, for a few rows of queries; with more
 * of them arithmetic, slower than slg_attention's. Workspace: n heads (value_dim + 4) floats
 * for each 512 keys; once where n is large.
 *
 * Errors: as slg_attention; SLG_ERR_OPTIONS for what must be absent; SLG_ERR_SHAPE for n above
 * length; SLG_ERR_RANGE where a ring has dropped what the queries see. Outputs are untouched
 * then. Since 0.1.
 */
SLG_API slg_status slg_attention_decode(slg_attention_cache *cache,
                                        const slg_attention_inputs *in,
                                        const slg_attention_opts *opts, slg_attention_out *out);

/*
 * Forgets the tokens from `length` on, 0 <= length <= the present one: drafts not accepted.
 * SLG_ERR_RANGE, and nothing changes, where a ring has dropped what a query at length - 1 sees.
 */
SLG_API slg_status slg_attention_cache_truncate(slg_attention_cache *cache, int64_t length);

/* Forgets all tokens; memory is kept. */
SLG_API slg_status slg_attention_cache_reset(slg_attention_cache *cache);

/* Tokens appended, less those taken back; 0 for NULL. */
SLG_API int64_t slg_attention_cache_length(const slg_attention_cache *cache);

/* Bytes that the cache holds; 0 for NULL. */
SLG_API int64_t slg_attention_cache_bytes(const slg_attention_cache *cache);

/* An independent copy on the same context: for beams, and prompts that are shared. NULL after
   an error: SLG_ERR_NULL, SLG_ERR_MEMORY. */
SLG_API slg_status slg_attention_cache_fork(slg_attention_cache *cache,
                                            slg_attention_cache **copy);

#ifdef __cplusplus
}
#endif

#endif
