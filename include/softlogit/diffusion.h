/*
 * diffusion.h - multiplicative denoising diffusion: data x > 0 drowns in geometric Brownian
 * motion, a model learns the score of what is left, and a multiplicative update that keeps
 * signs runs the motion backwards.
 *
 *     dX = mu X dt + sigma X dW
 *     log x_t | x_0  ~  N(log x_0 + (mu - sigma^2 / 2) t, sigma^2 t)
 *
 * The model gives h(x, t) = x grad_x log p_t(x), element by element; grad log p of y = log x
 * is h + 1.
 *
 *     x_t from x_0                 slg_gbm_forward
 *     loss of h and its gradient   slg_mdsm, slg_nonnegative_score_matching
 *     one step back, a denoiser    slg_gbm_reverse
 *     the whole way back           slg_gbm_sample
 *
 * Images in [0, 1] are used as x_0 = image + 1; what is sampled is clipped to [1, 2] and
 * shifted back.
 *
 * Matrices are [n, d], n samples. Arithmetic is in float32, sums over a row in double beyond
 * 2048 terms. Subnormal numbers count as they are. Where noise is not given it is drawn:
 * element i of a matrix, in row-major order, is number rng->offset + i of slg_random's
 * SLG_NORMAL in float32, and n d is added to rng->offset. Results have the same bits for any
 * number of threads.
 *
 * Paper: "Dale meets Langevin: A Multiplicative Denoising Diffusion Model" (2025).
 */
#ifndef SOFTLOGIT_DIFFUSION_H
#define SOFTLOGIT_DIFFUSION_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The process. Columns may have parameters of their own. With log_state all operands that are
 * called x here, x_0 and x_t alike, hold log x: nothing overflows, and no logarithm or
 * exponential is taken where none is needed.
 */
typedef struct slg_gbm {
    uint32_t size;     /* sizeof(slg_gbm), set by slg_gbm_init */
    int32_t log_state; /* 0 or 1; default 0 */
    double sigma;      /* >= 0, default 0.8 */
    double mu;         /* default NaN: sigma^2 / 2, so that log x drifts nowhere */
    const slg_tensor *sigma_columns; /* [d], f32, f64: instead of sigma; default NULL */
    const slg_tensor *mu_columns;    /* [d], f32, f64: instead of mu; default NULL */
} slg_gbm;

SLG_API void slg_gbm_init(slg_gbm *process, size_t size);

/* What happened to elements that were finite and not 0. */
typedef struct slg_gbm_counts {
    uint32_t size;        /* sizeof(slg_gbm_counts), set by slg_gbm_counts_init */
    int32_t reserved;     /* 0 */
    int64_t saturated;    /* became an infinity or 0; never with log_state */
    int64_t sign_changes; /* got the other sign: SLG_GBM_UNCONSTRAINED alone */
} slg_gbm_counts;

SLG_API void slg_gbm_counts_init(slg_gbm_counts *counts, size_t size);

/*
 * Noised data:
 *
 *     x_t = x_0 exp((mu - sigma^2 / 2) t + sigma sqrt(t) z)
 *
 *   x0       [n, d]  in      f32, bf16, f16: > 0 and finite; with log_state any finite number
 *   t        [n]     in      f32, f64: >= 0
 *   z        [n, d]  in      f32, bf16, f16: the noise; NULL: drawn with rng
 *   rng              in/out  NULL where z is given
 *   process          in      NULL: the defaults
 *   x        [n, d]  out     f32, bf16, f16: x_t, always x itself; NULL: not wanted; may be x0
 *   log_x    [n, d]  out     the same of log x_t; may be x0
 *   noise    [n, d]  out     the same of z, as it was used in float32; may be z
 *   counts           out     NULL: not wanted
 *
 * At t = 0 x_t is x_0, exactly. sigma = 0 is allowed. x saturates to an infinity or 0, counted;
 * log_x does not. To start a sampler: x0 filled with m, log_state, t = 1, sigma = s and mu =
 * s^2 / 2 give log x ~ N(m, s^2).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for a parameter, a time, or an element of x0 out of its domain:
 * the message says where the first is and how many rows have one. Nothing has changed then.
 * Reads x0 once more for that. Since 0.1.
 */
SLG_API slg_status slg_gbm_forward(slg_ctx *ctx, const slg_tensor *x0, const slg_tensor *t,
                                   const slg_tensor *z, slg_rng *rng, const slg_gbm *process,
                                   slg_tensor *x, slg_tensor *log_x, slg_tensor *noise,
                                   slg_gbm_counts *counts);

/*
 * What slg_mdsm has h learn, sample by sample:
 *
 *     h* = -1 - (log x_t - log x_0 - (mu - sigma^2 / 2) t) / (sigma^2 t)
 *        = -1 - z / (sigma sqrt(t))
 *
 *   x, x0    [n, d]  in   f32, bf16, f16: x_t and x_0, > 0 and finite (any finite number with
 *                         log_state); both NULL where z is given
 *   z        [n, d]  in   f32, bf16, f16: the noise; NULL: from x and x0
 *   t        [n]     in   f32, f64: >= 0
 *   process          in   NULL: the defaults; sigma > 0
 *   h        [n, d]  out  f32, bf16, f16; may be x, x0 or z
 *
 * Rows with t = 0 are NaN: nothing is defined there. The logarithm of x_t / x_0 has an absolute
 * error of 2^-24 (1 + |log|), wherever x is.
 *
 * Errors: as slg_gbm_forward. Since 0.1.
 */
SLG_API slg_status slg_gbm_target(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *x0,
                                  const slg_tensor *z, const slg_tensor *t,
                                  const slg_gbm *process, slg_tensor *h);

/* How slg_mdsm weighs samples. */
enum slg_mdsm_weight {
    SLG_MDSM_PLAIN = 0,        /* as the paper: errors of h count sigma^4 t^2 */
    SLG_MDSM_UNIT_VARIANCE = 1 /* that by sigma^2 t: noise of every size counts alike. Rows with
                                  t = 0 are left out: loss and gradient 0. */
};

typedef struct slg_mdsm_opts {
    uint32_t size;     /* sizeof(slg_mdsm_opts), set by slg_mdsm_opts_init */
    int32_t weight;    /* slg_mdsm_weight; default SLG_MDSM_PLAIN */
    int32_t raw_score; /* 0: the model gives h = x s; 1: the score s itself; default 0 */
    int32_t reduction; /* SLG_MEAN (default) or SLG_SUM, over rows */
} slg_mdsm_opts;

SLG_API void slg_mdsm_opts_init(slg_mdsm_opts *opts, size_t size);

/*
 * Multiplicative denoising score matching:
 *
 *     r[i][j] = sigma^2 t h + log x_t - log x_0 + (3/2 sigma^2 - mu) t  =  sigma^2 t (h - h*)
 *     loss[i] = sum_j r[i][j]^2 (by sigma^2 t, SLG_MDSM_UNIT_VARIANCE)
 *     value   = mean or sum over i
 *     dh      = d value / dh = 2 sigma^2 t r (/ n) (by sigma^2 t);  ds = x dh
 *
 * With z known r is sigma^2 t (h + 1) + sigma sqrt(t) z, where nothing cancels: give z where
 * slg_gbm_forward drew it.
 *
 *   h        [n, d]  in   f32, bf16, f16: the model's output; with raw_score the score s
 *   x, x0    [n, d]  in   f32, bf16, f16: x_t and x_0, as slg_gbm_target. With z: x0 must be
 *                         NULL, x is used with raw_score alone
 *   z        [n, d]  in   f32, bf16, f16; NULL: from x and x0
 *   t        [n]     in   f32, f64: >= 0
 *   process          in   NULL: the defaults; sigma > 0
 *   opts             in   NULL: the defaults
 *   loss     [n]     out  f32, f64: of each row; NULL: not wanted
 *   value            out  NULL: not wanted
 *   dh       [n, d]  out  f32, bf16, f16: NULL: not wanted; may be any of the inputs
 *
 * x, x0 and t carry no gradient. With no rows value is 0. A NaN of h stays in its row's loss.
 * One pass over memory, but for the check of x and x0; no temporaries the size of x.
 *
 * Errors: as slg_gbm_forward. Since 0.1.
 */
SLG_API slg_status slg_mdsm(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *x,
                            const slg_tensor *x0, const slg_tensor *z, const slg_tensor *t,
                            const slg_gbm *process, const slg_mdsm_opts *opts, slg_tensor *loss,
                            double *value, slg_tensor *dh);

/*
 * Score matching of non-negative data without noise, what slg_mdsm is equivalent to:
 *
 *     loss[i] = sum_j h + x dh/dx + h^2 / 2
 *     dh = 1 + h, dxdh = 1 (/ n)
 *
 *   h, xdh     [n, d]  in   f32, bf16, f16: h, and x dh/dx of the same element
 *   reduction          in   SLG_MEAN or SLG_SUM
 *   loss       [n]     out  f32, f64; NULL: not wanted
 *   value              out  NULL: not wanted
 *   dh, dxdh   [n, d]  out  f32, bf16, f16; NULL: not wanted; may be h, or xdh
 *
 * With no rows value is 0.
 *
 * Errors: as slg_gbm_forward. Paper: "Some extensions of score matching" (2007), on which that
 * of this header builds. Since 0.1.
 */
SLG_API slg_status slg_nonnegative_score_matching(slg_ctx *ctx, const slg_tensor *h,
                                                  const slg_tensor *xdh, int32_t reduction,
                                                  slg_tensor *loss, double *value,
                                                  slg_tensor *dh, slg_tensor *dxdh);

enum slg_gbm_sampler {
    SLG_DALE_LANGEVIN = 0,    /* x exp(..): keeps every sign */
    SLG_GBM_UNCONSTRAINED = 1 /* x (1 + ..): agrees to first order, may change signs. Not with
                                 log_state. */
};

typedef struct slg_gbm_reverse_opts {
    uint32_t size;   /* sizeof(slg_gbm_reverse_opts), set by slg_gbm_reverse_opts_init */
    int32_t sampler; /* slg_gbm_sampler; default SLG_DALE_LANGEVIN */
    double delta;    /* step in time, >= 0; default 0.001 */
    double anneal;   /* a >= 0, of the noise; default 1. 0: the denoiser, which needs none. */
} slg_gbm_reverse_opts;

SLG_API void slg_gbm_reverse_opts_init(slg_gbm_reverse_opts *opts, size_t size);

/*
 * One step back in time:
 *
 *     x <- x exp(delta sigma^2 h - delta (mu - 3/2 sigma^2) + a sqrt(delta) sigma z)
 *     x <- x (1 + delta sigma^2 h - delta (mu - 2 sigma^2) + a sqrt(delta) sigma z)
 *
 * by Dale and Langevin, or unconstrained. With log_state the exponent is added to log x:
 * cheaper, and the one to use for long chains; one exponential is due at their end.
 *
 *   x        [n, d]  in/out  f32, bf16, f16: any numbers
 *   h        [n, d]  in      f32, bf16, f16: of x at the time before the step
 *   z        [n, d]  in      f32, bf16, f16; NULL: drawn with rng, unless anneal is 0
 *   rng              in/out  NULL where z is given or anneal is 0
 *   process, opts    in      NULL: the defaults
 *   counts           out     NULL: not wanted
 *
 * delta = 0 changes nothing unless h or z is not finite. x is saturated to an infinity or 0
 * where it must be, and that is counted. A NaN stays in its element.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for a parameter out of its domain. Nothing has changed then.
 * Since 0.1.
 */
SLG_API slg_status slg_gbm_reverse(slg_ctx *ctx, slg_tensor *x, const slg_tensor *h,
                                   const slg_tensor *z, slg_rng *rng, const slg_gbm *process,
                                   const slg_gbm_reverse_opts *opts, slg_gbm_counts *counts);

/*
 * The model: h of x (log x with log_state) at time t, which all rows share; writes all of h.
 * Runs on the caller's thread, between the library's own work: it may use the context. Anything
 * but SLG_OK ends the chain.
 */
typedef slg_status (*slg_gbm_model)(void *user, double t, const slg_tensor *x, slg_tensor *h);

typedef struct slg_gbm_sample_opts {
    uint32_t size;        /* sizeof(slg_gbm_sample_opts), set by slg_gbm_sample_opts_init */
    int32_t sampler;      /* slg_gbm_sampler; default SLG_DALE_LANGEVIN */
    int32_t steps;        /* N >= 0, default 1000: at times k start / N, k = N .. 1 */
    int32_t repeats;      /* L >= 1 updates at each of these, default 1 */
    int32_t denoise;      /* so many updates without noise at t = 0 follow, default 0 */
    int32_t reserved;     /* 0 */
    double start;         /* the time of x, > 0, default 1 */
    double delta;         /* of an update, >= 0; default NaN: start / N, the exact one */
    double anneal;        /* a >= 0 of the first step, default 1 */
    double anneal_factor; /* a is multiplied by it after each step; in [0, 1], default 1 */
} slg_gbm_sample_opts;

SLG_API void slg_gbm_sample_opts_init(slg_gbm_sample_opts *opts, size_t size);

/*
 * The reverse chain: for each time the model's h, then slg_gbm_reverse.
 *
 *   x        [n, d]  in/out  f32, bf16, f16: noise at time `start`; samples at the end
 *   h        [n, d]  out     f32, bf16, f16: what the model writes, apart from x; undefined
 *                            at the end
 *   rng              in/out  n d numbers an update with noise
 *   process, opts    in      NULL: the defaults
 *   model, user      in      see slg_gbm_model
 *   counts           out     sums over all updates; NULL: not wanted
 *
 * Errors: as slg_gbm_reverse, before anything has changed; what the model returned, and then x
 * and rng are as after the last whole update. Since 0.1.
 */
SLG_API slg_status slg_gbm_sample(slg_ctx *ctx, slg_tensor *x, slg_tensor *h, slg_rng *rng,
                                  const slg_gbm *process, const slg_gbm_sample_opts *opts,
                                  slg_gbm_model model, void *user, slg_gbm_counts *counts);

#ifdef __cplusplus
}
#endif

#endif
