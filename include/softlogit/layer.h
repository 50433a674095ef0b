/*
 * layer.h - the pieces of a transformer around attention and the loss: normalisation,
 * activations, rotary positions, embedding, linear layers; each forward and backward.
 *
 * All functions, unless they say otherwise: float32, bfloat16 or float16 in and out, each
 * tensor with its own type; computed in float32. 1 to 4 dimensions, any strides; the axes
 * before the last are rows. NaN and infinities stay in their row, or element. With no elements
 * nothing is written, gradients of weights apart, which are 0 then. The same bits for any
 * number of threads.
 *
 * An output may be an input itself (same memory, type and strides) where its line says so.
 */
#ifndef SOFTLOGIT_LAYER_H
#define SOFTLOGIT_LAYER_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Normalisation --------------------------------------------------------------------- */

/* Options of slg_layer_norm and slg_rms_norm, and of their gradients. */
typedef struct slg_norm_opts {
    uint32_t size;      /* sizeof(slg_norm_opts), set by slg_norm_opts_init */
    int32_t accumulate; /* backward; 1: dweight and dbias are added to. Default 0 */
    double eps;         /* from 0 to 1e30; default 1e-5 */
} slg_norm_opts;

SLG_API void slg_norm_opts_init(slg_norm_opts *opts, size_t size);

/*
 * Layer normalisation of each row, after an optional addition:
 *
 *     s = x + residual;   y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias
 *
 * with var the mean square about the mean. The addition saves the pass over memory that a
 * residual connection costs before its norm.
 *
 *   x         [..., dim]  in
 *   residual  [..., dim]  in   NULL: s is x
 *   weight    [dim]       in   NULL: ones
 *   bias      [dim]       in   NULL: zeros
 *   opts                  in   NULL: the defaults
 *   sum       [..., dim]  out  s, rounded to its type, from which y is computed; NULL: not
 *                              wanted. May be x or residual itself. Needs residual.
 *   y         [..., dim]  out  may be x itself; not sum
 *   stats     [..., 2]    out  float32: mean and 1 / sqrt(var + eps), for the gradient; NULL:
 *                              not wanted
 *
 * eps 0 and a constant row: NaN or infinite. Mean and variance keep their relative precision
 * wherever the row lies. One read of x and residual, one write of sum and y.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE (outputs that overlap what
 * they may not), SLG_ERR_RANGE (eps), SLG_ERR_OPTIONS, SLG_ERR_MEMORY. Since 0.1.
 */
SLG_API slg_status slg_layer_norm(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *residual,
                                  const slg_tensor *weight, const slg_tensor *bias,
                                  const slg_norm_opts *opts, slg_tensor *sum, slg_tensor *y,
                                  slg_tensor *stats);

/*
 * Its gradient, with h = (s - mean) rstd and g = dy * weight:
 *
 *     ds = rstd (g - mean(g) - h mean(g h)) + dsum,   dweight = sum over rows of dy h,
 *     dbias = sum over rows of dy
 *
 *   s         [..., dim]  in   what was normalised: x, or sum
 *   weight    [dim]       in   NULL: ones
 *   stats     [..., 2]    in   float32, as slg_layer_norm gave them
 *   dy        [..., dim]  in
 *   dsum      [..., dim]  in   the gradient that reaches s past the norm, by the residual
 *                              connection; NULL: none
 *   opts                  in   NULL: the defaults
 *   ds        [..., dim]  out  gradient of x and of residual alike; NULL: not wanted. May be dy
 *                              or dsum itself
 *   dweight   [dim]       out  float32; NULL: not wanted
 *   dbias     [dim]       out  float32; NULL: not wanted
 *
 * One read of s, dy and dsum, one write of ds. Errors as slg_layer_norm. Since 0.1.
 */
SLG_API slg_status slg_layer_norm_backward(slg_ctx *ctx, const slg_tensor *s,
                                           const slg_tensor *weight, const slg_tensor *stats,
                                           const slg_tensor *dy, const slg_tensor *dsum,
                                           const slg_norm_opts *opts, slg_tensor *ds,
                                           slg_tensor *dweight, slg_tensor *dbias);

/*
 * Root mean square normalisation:  s = x + residual;  y = s / sqrt(mean(s^2) + eps) * weight.
 * As slg_layer_norm; stats [...] holds 1 / sqrt(mean(s^2) + eps) alone ([1] where x has one
 * dimension). Since 0.1.
 */
SLG_API slg_status slg_rms_norm(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *residual,
                                const slg_tensor *weight, const slg_norm_opts *opts,
                                slg_tensor *sum, slg_tensor *y, slg_tensor *stats);

/*
 * Its gradient, with h = s rstd and g = dy * weight:  ds = rstd (g - h mean(g h)) + dsum,
 * dweight = sum over rows of dy h. As slg_layer_norm_backward. Since 0.1.
 */
SLG_API slg_status slg_rms_norm_backward(slg_ctx *ctx, const slg_tensor *s,
                                         const slg_tensor *weight, const slg_tensor *stats,
                                         const slg_tensor *dy, const slg_tensor *dsum,
                                         const slg_norm_opts *opts, slg_tensor *ds,
                                         slg_tensor *dweight);

/* ---- Activations ----------------------------------------------------------------------- */

enum slg_activation_kind {
    SLG_GELU = 0,      /* x P(x), P the distribution function of the standard normal */
    SLG_GELU_TANH = 1, /* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): GPT-2's */
    SLG_SILU = 2,      /* x / (1 + exp(-x)) */
    SLG_RELU = 3       /* max(0, x); its slope at 0 is 0 */
};

typedef struct slg_activation_opts {
    uint32_t size;      /* sizeof(slg_activation_opts), set by slg_activation_opts_init */
    int32_t kind;       /* slg_activation_kind; default SLG_GELU; of slg_gated_activation with
                           opts NULL: SLG_SILU */
    int32_t accumulate; /* backward; 1: dbias is added to. Default 0 */
    int32_t reserved;   /* 0 */
} slg_activation_opts;

SLG_API void slg_activation_opts_init(slg_activation_opts *opts, size_t size);

/*
 * y = f(x + bias), f by opts: GELU, SiLU, ReLU. The bias of the linear layer before comes in
 * here, which saves a pass over memory.
 *
 *   x     [..., dim]  in
 *   bias  [dim]       in   NULL: zeros
 *   opts              in   NULL: the defaults
 *   y     [..., dim]  out  may be x itself
 *
 * Relative precision is kept in the far tails (docs/numerics.md). -inf gives 0, +inf +inf.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE (kind),
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY. Since 0.1.
 */
SLG_API slg_status slg_activation(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *bias,
                                  const slg_activation_opts *opts, slg_tensor *y);

/*
 * Its gradient:  dx = f'(x + bias) dy;  dbias = sum over rows of dx.
 *
 *   x, bias           in   as slg_activation took them
 *   dy    [..., dim]  in
 *   opts              in   NULL: the defaults
 *   dx    [..., dim]  out  may be x or dy itself
 *   dbias [dim]       out  float32; NULL: not wanted
 *
 * An infinite x has slope 0 or 1. Errors as slg_activation. Since 0.1.
 */
SLG_API slg_status slg_activation_backward(slg_ctx *ctx, const slg_tensor *x,
                                           const slg_tensor *bias, const slg_tensor *dy,
                                           const slg_activation_opts *opts, slg_tensor *dx,
                                           slg_tensor *dbias);

/*
 * Gated linear unit:  y = f(gate) * up. With SLG_SILU this is SwiGLU, with SLG_GELU GEGLU.
 * A packed [rows, 2 dim] product is taken as two views of it.
 *
 *   gate, up  [..., dim]  in
 *   opts                  in   NULL: SLG_SILU
 *   y         [..., dim]  out  may be gate or up itself
 *
 * Errors as slg_activation. Since 0.1.
 */
SLG_API slg_status slg_gated_activation(slg_ctx *ctx, const slg_tensor *gate,
                                        const slg_tensor *up, const slg_activation_opts *opts,
                                        slg_tensor *y);

/*
 * Its gradient:  dgate = f'(gate) up dy,  dup = f(gate) dy.
 *
 *   dgate, dup  [..., dim]  out  dgate may be gate itself, dup up itself
 *
 * Errors as slg_activation. Since 0.1.
 */
SLG_API slg_status slg_gated_activation_backward(slg_ctx *ctx, const slg_tensor *gate,
                                                 const slg_tensor *up, const slg_tensor *dy,
                                                 const slg_activation_opts *opts,
                                                 slg_tensor *dgate, slg_tensor *dup);

/* ---- Dropout --------------------------------------------------------------------------- */

typedef struct slg_dropout_opts {
    uint32_t size;      /* sizeof(slg_dropout_opts), set by slg_dropout_opts_init */
    int32_t rows;       /* 1: whole rows are dropped, as words; default 0: single elements */
    double probability; /* in [0, 1); default 0.1 */
} slg_dropout_opts;

SLG_API void slg_dropout_opts_init(slg_dropout_opts *opts, size_t size);

/*
 * Dropout: each element (or row) is 0 with the given probability, else x / (1 - probability).
 * No mask is kept: the same call, with the same rng, is the gradient (dx from dy).
 *
 *   x     [..., dim]  in
 *   rng               in   not advanced. Element (row) number i takes half of number
 *                          offset + i / 2, the low one for even i; so the next call goes
 *                          (number of elements or rows + 1) / 2 further
 *   opts              in   NULL: the defaults
 *   y     [..., dim]  out  may be x itself
 *
 * What is dropped is 0 also where x is NaN. With probability 0 all is copied.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE,
 * SLG_ERR_OPTIONS, SLG_ERR_MEMORY. Since 0.1.
 */
SLG_API slg_status slg_dropout(slg_ctx *ctx, const slg_tensor *x, const slg_rng *rng,
                               const slg_dropout_opts *opts, slg_tensor *y);

/* ---- Rotary positions ------------------------------------------------------------------ */

typedef struct slg_rope_opts {
    uint32_t size;       /* sizeof(slg_rope_opts), set by slg_rope_opts_init */
    int32_t interleaved; /* pairs: 0, default: (i, i + rotary / 2), as GPT-NeoX and Llama in
                            PyTorch have it; 1: (2 i, 2 i + 1), as the paper has it */
    int32_t inverse;     /* 1: turns back. This is the gradient: dx from dy. Default 0 */
    int32_t offset;      /* position of token 0 where `position` is NULL, >= 0; default 0 */
    double base;         /* slg_rope_table: > 0; default 10000 */
    double scale;        /* slg_rope_table: position times this (linear interpolation); default
                            1 */
} slg_rope_opts;

SLG_API void slg_rope_opts_init(slg_rope_opts *opts, size_t size);

/*
 * The angles' cosines and sines, once for a model: at [p, i] of p scale base^(-2 i / rotary).
 *
 *   opts                           in   NULL: the defaults
 *   cos, sin  [positions, rotary / 2]  out  float32; computed in double
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE. Since 0.1.
 */
SLG_API slg_status slg_rope_table(slg_ctx *ctx, const slg_rope_opts *opts, slg_tensor *cos,
                                  slg_tensor *sin);

/*
 * Turns each pair of a row by its position's angle:
 *
 *     y[a] = x[a] cos - x[b] sin,   y[b] = x[a] sin + x[b] cos
 *
 *   x         [..., tokens, dim]       in   as queries or keys [batch, heads, tokens, dim]; at
 *                                           least 2 dimensions
 *   cos, sin  [positions, rotary / 2]  in   float32, rows contiguous; a table of the caller's
 *                                           own gives any other scheme. rotary <= dim; what is
 *                                           beyond stays as it is
 *   position  [tokens]                 in   int32 or int64, in [0, positions); NULL: offset,
 *                                           offset + 1, ...
 *   opts                               in   NULL: the defaults
 *   y         [..., tokens, dim]       out  may be x itself
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE (a position
 * outside of the table, an option), SLG_ERR_OPTIONS. y is untouched then.
 *
 * Paper: "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021). Since 0.1.
 */
SLG_API slg_status slg_rope(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *cos,
                            const slg_tensor *sin, const slg_tensor *position,
                            const slg_rope_opts *opts, slg_tensor *y);

/* ---- Embedding ------------------------------------------------------------------------- */

typedef struct slg_embedding_opts {
    uint32_t size;      /* sizeof(slg_embedding_opts), set by slg_embedding_opts_init */
    int32_t accumulate; /* forward; 1: y is added to, as positions to words. Default 0 */
    int64_t padding;    /* an index that reads zeros, and whose row gets no gradient; default
                           -1: none */
} slg_embedding_opts;

SLG_API void slg_embedding_opts_init(slg_embedding_opts *opts, size_t size);

/*
 * Rows of a table:  y[i, :] = weight[index[i], :].
 *
 *   weight  [entries, dim]  in
 *   index   [...]           in   int32 or int64, in [0, entries); or `padding`
 *   opts                    in   NULL: the defaults
 *   y       [..., dim]      out  of index's shape, and dim behind
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE (an index),
 * SLG_ERR_OPTIONS. y is untouched then. Since 0.1.
 */
SLG_API slg_status slg_embedding(slg_ctx *ctx, const slg_tensor *weight,
                                 const slg_tensor *index, const slg_embedding_opts *opts,
                                 slg_tensor *y);

/*
 * Its gradient, added to dweight:  dweight[index[i], :] += dy[i, :], in the order of i. With
 *                                  the
 * table shared by the output layer, dweight may hold that layer's gradient before.
 *
 *   index    [...]           in      as slg_embedding took it
 *   dy       [..., dim]      in
 *   dweight  [entries, dim]  in/out  float32, rows contiguous
 *
 * Costs a read of dy and what it touches of dweight. Errors as slg_embedding. Since 0.1.
 */
SLG_API slg_status slg_embedding_backward(slg_ctx *ctx, const slg_tensor *index,
                                          const slg_tensor *dy, const slg_embedding_opts *opts,
                                          slg_tensor *dweight);

/* ---- Linear layer ---------------------------------------------------------------------- */

typedef struct slg_linear_opts {
    uint32_t size;      /* sizeof(slg_linear_opts), set by slg_linear_opts_init */
    int32_t accumulate; /* backward; 1: dweight and dbias are added to. Default 0 */
} slg_linear_opts;

SLG_API void slg_linear_opts_init(slg_linear_opts *opts, size_t size);

/*
 * y = x weight' + bias, a GEMM of BLAS.
 *
 *   x       [..., in]   in
 *   weight  [out, in]   in
 *   bias    [out]       in   NULL: zeros. (slg_activation can add it for less.)
 *   y       [..., out]  out
 *
 * float32 rows at one stride go to BLAS as they are; all else is converted in scratch. Same
 * bits for any number of the library's threads; OpenBLAS has threads of its own.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY. Since
 * 0.1.
 */
SLG_API slg_status slg_linear(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *weight,
                              const slg_tensor *bias, slg_tensor *y);

/*
 * Its gradient:  dx = dy weight,  dweight = dy' x,  dbias = sum over rows of dy.
 *
 *   x, weight           in   as slg_linear took them
 *   dy       [..., out] in
 *   opts                in   NULL: the defaults
 *   dx       [..., in]  out  NULL: not wanted
 *   dweight  [out, in]  out  float32; NULL: not wanted
 *   dbias    [out]      out  float32; NULL: not wanted
 *
 * No output may overlap an input. Errors as slg_linear, and SLG_ERR_OPTIONS. Since 0.1.
 */
SLG_API slg_status slg_linear_backward(slg_ctx *ctx, const slg_tensor *x,
                                       const slg_tensor *weight, const slg_tensor *dy,
                                       const slg_linear_opts *opts, slg_tensor *dx,
                                       slg_tensor *dweight, slg_tensor *dbias);

#ifdef __cplusplus
}
#endif

#endif
