/*
 * softmax.h - softmax, log-softmax and log-sum-exp over the last axis, their gradients, and the
 * partial softmax: a pair (m, n), meaning m * 2^n, that stands for a piece of a row and merges
 * with the pairs of other pieces.
 *
 * All functions: float32, bfloat16 or float16 in and out, each tensor with its own type;
 * computed in float32 with sums across blocks in float64. 1 to 4 dimensions, any strides;
 * the axes before the last are rows.
 *
 * What holds for each row:
 *   -inf is a masked class: probability exactly 0, log-probability -inf.
 *   All classes masked: probabilities 0, log-probabilities -inf, log-sum-exp -inf.
 *   NaN anywhere: the row's results are NaN. +inf: results NaN, log-sum-exp +inf.
 *   No columns: log-sum-exp -inf. No other row is touched by any of this.
 *   Probabilities below 2^-126 are 0.
 */
#ifndef SOFTLOGIT_SOFTMAX_H
#define SOFTLOGIT_SOFTMAX_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * How softmax is computed. SLG_ALGORITHM_AUTO chooses by row length, number of rows, ISA and
 * caches. The others are the textbook forms that "The Two-Pass Softmax Algorithm" compares,
 * kept for that comparison: one thread a row.
 */
enum slg_algorithm {
    SLG_ALGORITHM_AUTO = 0,
    SLG_TWO_PASS = 1,             /* sum as (m, n) pairs; result. Reads x twice. */
    SLG_THREE_PASS_RECOMPUTE = 2, /* max; sum of exp(x - max); exp again. Reads x three
                                     times. */
    SLG_THREE_PASS_RELOAD = 3     /* max; store exp(x - max); scale what was stored. */
};

/* Options of this module. */
typedef struct slg_softmax_opts {
    uint32_t size;      /* sizeof(slg_softmax_opts), set by slg_softmax_opts_init */
    int32_t algorithm;  /* slg_algorithm; default SLG_ALGORITHM_AUTO. slg_softmax only. */
    int32_t reread;     /* 1: the output is read soon: keep it in the cache. Default 0: outputs
                           larger than the cache are streamed past it. */
    int32_t reserved;   /* 0 */
    double temperature; /* from 1e-30 to 1e30; default 1. The functions are
                           of x / temperature. */
} slg_softmax_opts;

SLG_API void slg_softmax_opts_init(slg_softmax_opts *opts, size_t size);

/*
 * Softmax:  y[r,c] = exp(x[r,c] / T) / sum_k exp(x[r,k] / T).
 *
 *   x     [..., cols]  in
 *   opts               in   NULL: the defaults
 *   y     [..., cols]  out  may be x itself (same memory, type and strides)
 *   lse   [...]        out  float32: log-sum-exp of x / T; NULL: not wanted
 *
 * Relative error of y below 1e-6 at any length, of results of at least 2^-126
 * (docs/numerics.md). Cost: one or two reads of x, one write of y.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_RANGE
 * (temperature, algorithm), SLG_ERR_OPTIONS, SLG_ERR_MEMORY.
 *
 * Paper: "The Two-Pass Softmax Algorithm" (2020). Since 0.1.
 */
SLG_API slg_status slg_softmax(slg_ctx *ctx, const slg_tensor *x, const slg_softmax_opts *opts,
                               slg_tensor *y, slg_tensor *lse);

/*
 * Log-softmax:  y[r,c] = x[r,c] / T - log(sum_k exp(x[r,k] / T)).
 * Arguments, errors and cost as slg_softmax. Absolute error below 4e-6 + 1e-6 |y|. Since 0.1.
 */
SLG_API slg_status slg_log_softmax(slg_ctx *ctx, const slg_tensor *x,
                                   const slg_softmax_opts *opts, slg_tensor *y,
                                   slg_tensor *lse);

/*
 * Log-sum-exp:  lse[r] = log(sum_k exp(x[r,k] / T)).
 *
 *   x     [..., cols]  in
 *   lse   [...]        out  float32 or float64; [1] where x has one dimension
 *
 * One read of x. Errors as slg_softmax. Since 0.1.
 */
SLG_API slg_status slg_logsumexp(slg_ctx *ctx, const slg_tensor *x,
                                 const slg_softmax_opts *opts, slg_tensor *lse);

/*
 * Gradient of softmax, from its result y:  dx = (y * (dy - sum_k y[k] dy[k])) / T.
 *
 *   y, dy  [..., cols]  in
 *   dx     [..., cols]  out  may be y or dy itself
 *
 * Where y is 0 (a masked class), dx is 0 whatever dy holds. A row of y with NaN gives NaN.
 * Two reads of y and dy, one write. Errors as slg_softmax. Since 0.1.
 */
SLG_API slg_status slg_softmax_backward(slg_ctx *ctx, const slg_tensor *y, const slg_tensor *dy,
                                        const slg_softmax_opts *opts, slg_tensor *dx);

/*
 * Gradient of log-softmax, from its result y:  dx = (dy - exp(y) * sum_k dy[k]) / T.
 * The sum leaves out masked classes (y = -inf), and dx is 0 there. Otherwise as
 * slg_softmax_backward. Since 0.1.
 */
SLG_API slg_status slg_log_softmax_backward(slg_ctx *ctx, const slg_tensor *y,
                                            const slg_tensor *dy, const slg_softmax_opts *opts,
                                            slg_tensor *dx);

/*
 * Gradient of log-sum-exp:  dx[r,c] = dlse[r] * exp(x[r,c] / T - lse[r]) / T.
 *
 *   x     [..., cols]  in
 *   lse   [...]        in   float32 or float64: the result of slg_logsumexp
 *   dlse  [...]        in   float32; NULL: all ones
 *   dx    [..., cols]  out  may be x itself
 *
 * lse in float32 carries an error of up to 2^-25 |lse| into dx; float64 does not. Since 0.1.
 */
SLG_API slg_status slg_logsumexp_backward(slg_ctx *ctx, const slg_tensor *x,
                                          const slg_tensor *lse, const slg_tensor *dlse,
                                          const slg_softmax_opts *opts, slg_tensor *dx);

/*
 * exp(x[i]) as a pair: exp(x[i]) = m[i] * 2^n[i], n a whole number, m within [0.70, 1.42] for
 * |x| <= 1000. Nothing overflows. x is clamped to [-2^21, 2^21]; NaN gives m = NaN.
 *
 *   x, m, n  the same shape; float32
 *
 * Paper: "The Two-Pass Softmax Algorithm" (2020). Since 0.1.
 */
SLG_API slg_status slg_ext_exp(slg_ctx *ctx, const slg_tensor *x, slg_tensor *m, slg_tensor *n);

/*
 * The partial softmax of a piece of each row:  m[r] * 2^n[r] = sum_k exp(x[r,k] / T).
 * Pieces may be computed by different threads, processes or machines, and merged.
 *
 *   x     [..., cols]  in
 *   m, n  [...]        out  float32; m is in [1, 2) and n a whole number; (0, -inf) for a piece
 *                           that is empty or masked; (NaN, 0) where x holds NaN or +inf, and
 *                           where |n| would be over 2^31 (x / T beyond +-1.4e9). Over 2^24,
 *                           float32 has not every whole n, and m takes the rest, up to 2^64
 *
 * Algorithm as slg_logsumexp. Paper: "The Two-Pass Softmax Algorithm" (2020). Since 0.1.
 */
SLG_API slg_status slg_partial_softmax(slg_ctx *ctx, const slg_tensor *x,
                                       const slg_softmax_opts *opts, slg_tensor *m,
                                       slg_tensor *n);

/*
 * Merges the pairs of K pieces into one:  m_out 2^n_out = sum_k m[k] 2^n[k].
 *
 *   m, n          [K] or [K, rows]  in   float32; m >= 0
 *   m_out, n_out  [1] or [rows]     out  float32; n_out is the largest n of a pair with m > 0;
 *                                        (0, -inf) if there is none. NULL: not wanted.
 *   lse           [1] or [rows]     out  float32 or float64: log(m_out) + n_out log(2); NULL
 *
 * Added in double, in the order of k. Since 0.1.
 */
SLG_API slg_status slg_partial_merge(slg_ctx *ctx, const slg_tensor *m, const slg_tensor *n,
                                     slg_tensor *m_out, slg_tensor *n_out, slg_tensor *lse);

/*
 * Pass 2 for a piece:  y[r,c] = exp(x[r,c] / T) / (m[r] * 2^n[r]), the pair being that of the
 * whole row. (0, -inf) gives a row of zeros, NaN a row of NaN.
 *
 *   x     [..., cols]  in
 *   m, n  [...]        in   float32
 *   y     [..., cols]  out  may be x itself
 *
 * Since 0.1.
 */
SLG_API slg_status slg_partial_finish(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *m,
                                      const slg_tensor *n, const slg_softmax_opts *opts,
                                      slg_tensor *y);

#ifdef __cplusplus
}
#endif

#endif
