/*
 * attention.h - exact scaled dot-product attention, forward and backward, in tiles: no matrix
 * of queries by keys is stored. One call serves heads that see everything and heads that see a
 * window of their neighbours (long-short attention), grouped keys, masks, biases, sinks and
 * dropout.
 */
#ifndef SOFTLOGIT_ATTENTION_H
#define SOFTLOGIT_ATTENTION_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Attention ------------------------------------------------------------------------- */

/*
 * What attention reads; NULL is absent. The same struct goes to forward and backward. Below, T
 * are the queries and S the keys of a sequence. For the logits of query i and key j of head h,
 *
 *     x = scale <q_i, k_j>
 *     x = softcap * tanh(x / softcap)             where softcap > 0
 *     a_ij = x + bias[i, j] - slope[h] |p_i - j|   with p_i = query_position + i
 *
 * and key j is visible to query i if, all of it,
 *
 *     j <= p_i                                    where causal
 *     window[h] = 0, or |p_i - j| < window[h]     causal: w keys, itself among them
 *     key_valid[j] != 0,  j < key_length,  a_ij > -inf
 *
 * q, k, v may have any strides: packed projections [batch, tokens, 3, heads, dim] are views.
 * Query head h reads key head floor(h * key_heads / heads).
 *
 * Packed sequences: with query_offsets and key_offsets batch is 1, sequence s are the queries
 * [query_offsets[s], query_offsets[s + 1]) and keys alike, and i, j count from its start. bias
 * is then indexed by the token in the packed tensors.
 */
typedef struct slg_attention_inputs {
    uint32_t size;            /* sizeof(slg_attention_inputs), set by its _init */
    int32_t reserved;         /* 0 */
    const slg_tensor *q;      /* [batch, heads, T, dim], or [heads, T, dim]  f32, bf16, f16 */
    const slg_tensor *k;      /* [batch, key_heads, S, dim]  heads a multiple of it */
    const slg_tensor *v;      /* [batch, key_heads, S, value_dim]  as q */
    const slg_tensor *window; /* [heads]     i32, i64, >= 0; 0: global; NULL: all global */
    const slg_tensor *scale;  /* [heads] or [1]  f32: a learned scale; NULL: opts->scale */
    const slg_tensor *slopes; /* [heads]     f32, finite: of a linear bias (ALiBi) */
    const slg_tensor *sinks;  /* [heads]     f32: a logit of the denominator; -inf: none */
    const slg_tensor *bias;   /* [heads, T, S], [batch, heads, T, S]  f32, bf16, f16; batch and
                                 heads may be 1: the same for all */
    const slg_tensor *key_valid;      /* [batch, S], or [S]  i32, i64, f32: 0 hides a key */
    const slg_tensor *key_length;     /* [batch]     i32, i64, from 0 to S: keys from there on
                                         are hidden; not with offsets */
    const slg_tensor *query_position; /* [batch]     i32, i64: place of query 0 among keys;
                                         NULL: S - T, so that queries are the last T;
                                         not with offsets */
    const slg_tensor *query_offsets;  /* [sequences + 1]  i32, i64, from 0 to T, not falling */
    const slg_tensor *key_offsets;    /* [sequences + 1]  the same up to S; goes with it */
    const slg_rng *rng; /* for dropout: not advanced, so that backward drops the same; see
                           slg_attention_out.rng_next */
} slg_attention_inputs;

SLG_API void slg_attention_inputs_init(slg_attention_inputs *inputs, size_t size);

/* Options of slg_attention. */
typedef struct slg_attention_opts {
    uint32_t size;   /* sizeof(slg_attention_opts), set by its _init */
    int32_t causal;  /* 1 (default): a query sees no later key; 0: it does */
    double scale;    /* of logits; default 0: 1 / sqrt(dim). For 0 itself: inputs->scale */
    double softcap;  /* from 1e-30 to 1e30; default 0: none */
    double dropout;  /* in [0, 1), default 0: probability to drop a p_ij; the rest is divided by
                        1 - dropout */
} slg_attention_opts;

SLG_API void slg_attention_opts_init(slg_attention_opts *opts, size_t size);

/* Results of the forward pass. A NULL tensor is not wanted; backward needs o and lse. */
typedef struct slg_attention_out {
    uint32_t size;         /* sizeof(slg_attention_out), set by its _init */
    int32_t reserved;      /* 0 */
    slg_tensor *o;         /* [batch, heads, T, value_dim], ndim of q  f32, bf16, f16 */
    slg_tensor *lse;       /* [batch, heads, T], [heads, T]  f32: log-sum-exp, sink included */
    slg_tensor *max_logit; /* [heads]  f32: max |a_ij| over visible pairs; 0 without any, NaN
                              with a NaN */
    uint64_t rng_next;     /* set by slg_attention: the offset of rng for the next call */
} slg_attention_out;

SLG_API void slg_attention_out_init(slg_attention_out *out, size_t size);

/*
 * Attention:
 *
 *     p_ij = exp(a_ij) / (exp(sink) + sum_j exp(a_ij)),  over the visible j
 *     o_i  = sum_j p_ij v_j
 *
 *   in    in   see slg_attention_inputs: q, k, v
 *   opts  in   NULL: the defaults
 *   out   out  not NULL, nor o; must not overlap the inputs
 *
 * A query that sees no key: o = 0, lse = -inf (the sink, if there is one). Huge logits stay
 * finite: rows become one-hot, ties share. A NaN in q, k or v touches only queries that see it;
 * a logit of +inf makes its query NaN. T = 0 or batch = 0: nothing to do (max_logit and
 * gradients are 0).
 *
 * Dropout of p_ij of batch entry b and head h, in row r = (b * heads + h) * T + i, uses number
 * n0 + r * 2 ceil(S / 4) + j / 2 of rng, its low half for even j, its high half for odd j, with
 * n0 = offset rounded up to even; p_ij is dropped where that half is below dropout * 2^32.
 * (Packed: i and j are tokens of the tensors.) It does not change lse.
 *
 * Cost: 2 T S (dim + value_dim) operations a global head, half of it where causal; a local head
 * in proportion to its window plus 64. Tiles that are hidden are skipped. Workspace O(tile^2 +
 * tile dim) a thread.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_OPTIONS; SLG_ERR_STRIDE, also for
 * outputs that overlap inputs; SLG_ERR_SHAPE for S < T of a sequence, where causal or with
 * windows or slopes, and no query_position; SLG_ERR_RANGE for a negative window, offsets that
 * fall, options outside of their domain. Outputs are untouched then.
 *
 * "Short-Range Dependency Effects on Transformer Instability and a Decomposed Attention
 * Solution" (LS-attention), 2025; tiles and recomputation after Dao et al., "FlashAttention",
 * 2022. Since 0.1.
 */
SLG_API slg_status slg_attention(slg_ctx *ctx, const slg_attention_inputs *in,
                                 const slg_attention_opts *opts, slg_attention_out *out);

/* Where gradients go. A NULL tensor is not computed. None may overlap an input or another. */
typedef struct slg_attention_grad {
    uint32_t size;          /* sizeof(slg_attention_grad), set by its _init */
    int32_t reserved;       /* 0 */
    const slg_tensor *dlse; /* in: shape of lse  f32: gradient with respect to it; NULL: 0 */
    slg_tensor *dq;         /* shape of q  f32, bf16, f16 */
    slg_tensor *dk;         /* shape of k: summed over the query heads that read it */
    slg_tensor *dv;         /* shape of v, likewise */
    slg_tensor *dbias;      /* shape of bias  f32: a sum over batch, heads where these are 1 */
    slg_tensor *dsinks;     /* [heads]  f32 */
    slg_tensor *dscale;     /* shape of in->scale, [1] without  f32: also of a fixed scale */
} slg_attention_grad;

SLG_API void slg_attention_grad_init(slg_attention_grad *grad, size_t size);

/*
 * Gradient of attention, by recomputing tiles of p from lse:
 *
 *     D_i = <do_i, o_i> - dlse_i,  da_ij = p_ij (<do_i, v_j> - D_i)
 *     dv_j = sum_i p_ij do_i,  dk_j = scale sum_i da_ij q_i,  dq_i = scale sum_j da_ij k_j
 *     dbias_ij = da_ij,  dscale = sum_ij da_ij <q_i, k_j>
 *     dsink = -sum_i exp(sink - lse_i) D_i
 *
 * with the slope of the soft-cap and the dropped pairs in their places. Deterministic: the same
 * bits for any number of threads.
 *
 *   in, opts  in   as in the forward call
 *   out       in   o and lse of the forward call
 *   dout      in   shape of o  f32, bf16, f16: gradient with respect to o
 *   grad      out  not NULL
 *
 * A pair that is not visible has no gradient, whatever q, k, v and dout hold; nor has a query
 * that sees no key.
 *
 * Cost: 2.5 times the forward pass. Workspace as forward, k and v of 512 keys a thread (of dim
 * 64), and dq in float32: up to 16 times where batch * key_heads < 16 or dbias is a sum over
 * batch or heads, once where dq is not contiguous float32.
 *
 * Errors: as slg_attention; SLG_ERR_NULL for a gradient of an input that is absent. Since 0.1.
 */
SLG_API slg_status slg_attention_backward(slg_ctx *ctx, const slg_attention_inputs *in,
                                          const slg_attention_opts *opts,
                                          const slg_attention_out *out, const slg_tensor *dout,
                                          slg_attention_grad *grad);

/* ---- Against exploding logits: QK-normalisation and sigma-reparametrisation -------------- */

enum slg_qk_norm_form {
    SLG_QK_NORM_L2 = 0, /* r = sqrt(|x|^2 + eps) */
    SLG_QK_NORM_RMS = 1 /* r = sqrt(mean x^2 + eps) */
};

/* Options of slg_qk_norm. */
typedef struct slg_qk_norm_opts {
    uint32_t size; /* sizeof(slg_qk_norm_opts), set by its _init */
    int32_t form;  /* slg_qk_norm_form; default SLG_QK_NORM_L2 */
    double eps;    /* from 0 to 1, default 1e-6 */
} slg_qk_norm_opts;

SLG_API void slg_qk_norm_opts_init(slg_qk_norm_opts *opts, size_t size);

/*
 * Normalises queries or keys per head before attention:  y = gain * x / r.  With the L2 form
 * and a learned scale g (slg_attention_inputs.scale; start at sqrt(dim)) no |logit| exceeds g.
 *
 *   x     [..., dim]  in   f32, bf16, f16; 1 to 4 dimensions, any strides
 *   gain  [dim]       in   f32; NULL: ones
 *   opts              in   NULL: the defaults
 *   y     [..., dim]  out  f32, bf16, f16; may be x itself
 *
 * A row of zeros gives zeros (eps = 0 too). A row with NaN or an infinity is NaN. Norms are
 * taken in double.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_RANGE. Henry et al., "Query-Key Normalization for Transformers", 2020. Since 0.1.
 */
SLG_API slg_status slg_qk_norm(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *gain,
                               const slg_qk_norm_opts *opts, slg_tensor *y);

/*
 * Its gradient, from x:  dx = (u - n <n, u> w) / r  with u = gain dy, n = x / r, and w = 1 for
 * L2, 1 / dim for RMS;  dgain = sum over rows of dy x / r.
 *
 *   x, gain, opts     in   as in slg_qk_norm
 *   dy    [..., dim]  in   f32, bf16, f16
 *   dx    [..., dim]  out  f32, bf16, f16; may be dy or x itself; NULL: not wanted
 *   dgain [dim]       out  f32; NULL: not wanted
 */
SLG_API slg_status slg_qk_norm_backward(slg_ctx *ctx, const slg_tensor *x,
                                        const slg_tensor *gain, const slg_qk_norm_opts *opts,
                                        const slg_tensor *dy, slg_tensor *dx,
                                        slg_tensor *dgain);

/* Options of slg_sigma_reparam. */
typedef struct slg_sigma_reparam_opts {
    uint32_t size;      /* sizeof(slg_sigma_reparam_opts), set by its _init */
    int32_t iterations; /* from 0 to 1000, default 1; 0: u, v as they are */
    double gamma;       /* default 1: the learned gain */
} slg_sigma_reparam_opts;

SLG_API void slg_sigma_reparam_opts_init(slg_sigma_reparam_opts *opts, size_t size);

/*
 * Sigma-reparametrisation:  y = (gamma / sigma) w  with sigma = u' w v, u and v the leading
 * singular vectors by power iteration (v = w' u / |w' u|, u = w v / |w v|), kept from call to
 * call.
 *
 *   w     [rows, cols]  in      f32, bf16, f16
 *   u     [rows]        in/out  f32, contiguous; start with random numbers: not all 0
 *   v     [cols]        in/out  f32, contiguous; set by the first iteration
 *   opts                in      NULL: the defaults
 *   y     [rows, cols]  out     f32, bf16, f16; NULL: only u, v and sigma are wanted
 *   sigma               out     a number; NULL: not wanted
 *
 * Where w' u = 0 or w v = 0 (w = 0, or a u at right angles to it) the state stays, sigma is 0
 * and y is 0. Norms and products are taken in double.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS;
 * SLG_ERR_RANGE for iterations outside of its domain, or y that overlaps w. State and outputs
 * are untouched then. Zhai et al., "Stabilizing Transformer Training by Preventing Attention
 * Entropy Collapse", 2023. Since 0.1.
 */
SLG_API slg_status slg_sigma_reparam(slg_ctx *ctx, const slg_tensor *w, slg_tensor *u,
                                     slg_tensor *v, const slg_sigma_reparam_opts *opts,
                                     slg_tensor *y, double *sigma);

/*
 * Its gradient, u and v held fixed:
 *
 *     dw = (gamma / sigma) (dy - (<dy, w> / sigma) u v'),  dgamma = <dy, w> / sigma
 *
 *   w, u, v, opts       in   after slg_sigma_reparam; sigma = u' w v is taken anew
 *   dy    [rows, cols]  in   f32, bf16, f16
 *   dw    [rows, cols]  out  f32, bf16, f16; may be dy itself; NULL: not wanted
 *   dgamma              out  a number; NULL: not wanted
 *
 * sigma = 0: both are 0.
 */
SLG_API slg_status slg_sigma_reparam_backward(slg_ctx *ctx, const slg_tensor *w,
                                              const slg_tensor *u, const slg_tensor *v,
                                              const slg_sigma_reparam_opts *opts,
                                              const slg_tensor *dy, slg_tensor *dw,
                                              double *dgamma);

#ifdef __cplusplus
}
#endif

#endif
