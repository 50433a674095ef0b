/*
 * forward.h - the forward and backward pass with tiles of any size up to the usual, for tests.
 */
#ifndef SLG_ATTENTION_FORWARD_H
#define SLG_ATTENTION_FORWARD_H

#include "softlogit/attention.h"

enum {
    QUERY_TILE = 64, /* the most queries of a tile, and the stride between its rows */
    KEY_TILE = 64,   /* the most keys of one */
    LANE_STEP = 16   /* lanes of a tile are a multiple of this: whole vectors on every ISA */
};

slg_status attention_forward(slg_ctx *ctx, const slg_attention_inputs *in,
                             const slg_attention_opts *opts, slg_attention_out *out,
                             int64_t query_tile, int64_t key_tile);

slg_status attention_backward(slg_ctx *ctx, const slg_attention_inputs *in,
                              const slg_attention_opts *opts, const slg_attention_out *out,
                              const slg_tensor *dout, slg_attention_grad *grad,
                              int64_t query_tile, int64_t key_tile);

#endif
