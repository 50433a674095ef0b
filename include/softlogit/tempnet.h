/*
 * tempnet.h - a temperature for every input, learnt by distributionally robust optimisation:
 * the robust cross-entropy and its optimal temperature, the network that predicts temperatures,
 * and the robust global contrastive loss with a temperature for each image and each text.
 *
 * Training step of a language model: tau from slg_tempnet_forward on its logits; that tau as
 * row_temperature of slg_robust_cross_entropy, which gives the logits' gradient and dtau; dtau
 * to slg_tempnet_backward. Inference: softmax of logits / tau.
 *
 * Paper: "To Cool or not to Cool? Temperature Network Meets Large Foundation Models via DRO"
 * (2024).
 */
#ifndef SOFTLOGIT_TEMPNET_H
#define SOFTLOGIT_TEMPNET_H

#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Robust cross-entropy -------------------------------------------------------------- */

/* Options of slg_robust_cross_entropy. */
typedef struct slg_robust_cross_entropy_opts {
    uint32_t size;     /* sizeof(slg_robust_cross_entropy_opts), set by its _init */
    int32_t reduction; /* slg_reduction; default SLG_MEAN */
    double rho;        /* >= 0 and finite, default 8.5: the radius of the constraint on
                          KL(p || uniform), in nats; log(K) - rho is the entropy aimed at */
} slg_robust_cross_entropy_opts;

SLG_API void slg_robust_cross_entropy_opts_init(slg_robust_cross_entropy_opts *opts,
                                                size_t size);

/*
 * Cross-entropy made robust by its temperature: with z the logits, t the target, tau the row's
 * temperature (logits->temperature times row_temperature), p = softmax(z / tau), H the entropy
 * of p and K the number of classes of the row that are not masked (nor -inf):
 *
 *     loss    = tau (-log p[t]) + (rho - log K) tau
 *     dlogits = p - onehot(t)          (the factor tau cancels)
 *     dtau    = H - log K + rho        (knows nothing of t)
 *
 * It is convex in tau; tau = 1 with rho = log K is plain cross-entropy. Its minimum over
 * tau >= tau0 is, but for a constant, the largest mean of z[k] - z[t] over distributions within
 * KL <= rho of the uniform one. Gradients are of the reduced loss (of the sum, with SLG_NONE),
 * dtau too.
 *
 *   logits   in   [rows, cols] or an output layer, with its temperatures
 *   targets  in   index; row_weight
 *   opts     in   NULL: the defaults
 *   out      out  see slg_loss_out; lse is that of z / tau
 *   grad     out  NULL: not wanted
 *   dtau     out  [rows] f32, f64: gradient by the row's tau; NULL: not wanted
 *   entropy  out  [rows] f32, f64: H, in nats, neither weighted nor reduced; NULL: not wanted
 *
 * A target that is a masked class: loss +inf, dlogits = p - onehot (-1 at the target too, but 0
 * with a soft-cap), dtau finite. One live class: loss rho tau, gradient 0. A row whose classes
 * are all masked is a row of NaN here, as one that holds NaN or +inf is: loss, gradients,
 * entropy. Ignored rows: all 0. Of logits that lie far apart beside tau, p is shared by
 * the maxima: no overflow. dtau and entropy are good to some 1e-6 of log K.
 *
 * Cost: one read of logits and one write of the gradient where two rows fit the L2 cache; one
 * exponential a class more than cross-entropy if dtau or entropy is wanted.
 *
 * Errors: as slg_cross_entropy; SLG_ERR_RANGE for a temperature that is not from 1e-30 to 1e30.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_robust_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                            const slg_targets *targets,
                                            const slg_robust_cross_entropy_opts *opts,
                                            slg_loss_out *out, slg_logits_grad *grad,
                                            slg_tensor *dtau, slg_tensor *entropy);

/* Options of slg_optimal_temperature. */
typedef struct slg_optimal_temperature_opts {
    uint32_t size;    /* sizeof(slg_optimal_temperature_opts), set by its _init */
    int32_t reserved; /* 0 */
    double rho;       /* >= 0 and finite, default 8.5 */
    double entropy;   /* >= 0: the entropy aimed at, in nats, whatever rho; default -1: log
                         K - rho */
    double tau_min;   /* from 1e-30, default 0.5 */
    double tau_max;   /* from tau_min to 1e30, default 5 */
} slg_optimal_temperature_opts;

SLG_API void slg_optimal_temperature_opts_init(slg_optimal_temperature_opts *opts, size_t size);

/*
 * The temperature in [tau_min, tau_max] at which each row's robust cross-entropy is least:
 * where the entropy of softmax(z / tau) is log K - rho, or the bound that is nearer to that.
 * Needs no target; also calibrates rows to one entropy.
 *
 *   logits   in   [rows, cols] or an output layer; temperature 1, row_temperature NULL
 *   opts     in   NULL: the defaults
 *   tau      out  [rows] f32, f64
 *   entropy  out  [rows] f32, f64: of softmax(z / tau), in nats; NULL: not wanted
 *
 * All live classes equal, or one alone: tau_min (for an entropy aimed at of at most log K). A
 * row of NaN or +inf, or all masked: NaN. Inside of the bounds the entropy is met within 1e-5.
 *
 * Cost: a row is read 4 to 8 times (safeguarded Newton steps on 1 / tau), mostly from
 * the cache.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an option outside of its domain, or a temperature
 * of logits.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_optimal_temperature(slg_ctx *ctx, const slg_logits *logits,
                                           const slg_optimal_temperature_opts *opts,
                                           slg_tensor *tau, slg_tensor *entropy);

/* ---- Temperature network --------------------------------------------------------------- */

enum slg_tempnet_form {
    SLG_TEMPNET_LOGITS = 1,  /* of language models: x are logits */
    SLG_TEMPNET_FEATURES = 2 /* of contrastive models: x are features, w2 prototypes */
};

/*
 * A temperature network: its parameters, which stay the caller's (an optimizer steps them).
 *
 *     LOGITS:    s = drop * sigmoid(w1 x / max(|x|, 1e-12) + b1);  v = w2 s + b2;   f = v
 *     FEATURES:  s = drop * sigmoid(w1 x + b1);    v[m] = w2[m] s / |w2[m]|;   f = sigmoid(v)
 *     both:      w = softmax(v exp(-phi));   t = sum_m c[m] (w[m] - 1/M) f[m] + b
 *                tau = tau_min + (tau_max - tau_min) sigmoid(t)
 *
 * Paper's start: c ones, b 0, phi 0 (FEATURES: log 0.01), hidden = M = 256; FEATURES:
 * hidden = cols, and w2 from features of M samples of the other modality.
 */
typedef struct slg_tempnet {
    uint32_t size;          /* sizeof(slg_tempnet), set by slg_tempnet_init */
    int32_t form;           /* slg_tempnet_form; default SLG_TEMPNET_LOGITS */
    const slg_tensor *w1;   /* [hidden, cols]  f32; all parameters contiguous */
    const slg_tensor *b1;   /* [hidden]        f32 */
    const slg_tensor *w2;   /* [M, hidden]     f32 */
    const slg_tensor *b2;   /* [M]             f32; NULL for FEATURES */
    const slg_tensor *c;    /* [M]             f32 */
    const slg_tensor *b;    /* [1]             f32 */
    const slg_tensor *phi;  /* [1]             f32; at least -80 and at most 80 */
    const slg_tensor *drop; /* [rows, hidden]  f32, contiguous: factors, 0 or 1 / (1 - rate), as
                               slg_tempnet_drop makes them; NULL: all ones. The paper's rate is
                               0.5 in training. */
    double tau_min;         /* > 0; default 0.5 (the paper's: 0.005 for FEATURES) */
    double tau_max;         /* > tau_min, up to 1e30; default 5 (0.05) */
} slg_tempnet;

SLG_API void slg_tempnet_init(slg_tempnet *net, size_t size);

/* What forward keeps for backward: all three, f32, contiguous. */
typedef struct slg_tempnet_saved {
    uint32_t size;    /* sizeof(slg_tempnet_saved), set by slg_tempnet_saved_init */
    int32_t reserved; /* 0 */
    slg_tensor *s;    /* [rows, hidden]  the sigmoid, before drop */
    slg_tensor *v;    /* [rows, M] */
    slg_tensor *w;    /* [rows, M] */
} slg_tempnet_saved;

SLG_API void slg_tempnet_saved_init(slg_tempnet_saved *saved, size_t size);

/* Gradients of the parameters; shapes as theirs, f32, contiguous. A NULL tensor is not
   computed. */
typedef struct slg_tempnet_grad {
    uint32_t size;      /* sizeof(slg_tempnet_grad), set by slg_tempnet_grad_init */
    int32_t accumulate; /* 1: added to what is there; default 0 */
    slg_tensor *dw1, *db1, *dw2, *db2, *dc, *db, *dphi;
} slg_tempnet_grad;

SLG_API void slg_tempnet_grad_init(slg_tempnet_grad *grad, size_t size);

/*
 * Temperatures of rows.
 *
 *   x      in   [rows, cols]  f32, bf16, f16: logits or features
 *   net    in
 *   saved  out  NULL: no backward will follow
 *   tau    out  [rows]  f32, f64
 *
 * tau is within [tau_min, tau_max] for any finite x, however large. With LOGITS it does not
 * depend on the scale of x; a row of zeros takes its tau from the biases; -inf (a masked class)
 * counts as 0 in x. A row with NaN or +inf (FEATURES: -inf too): tau NaN, and no other row's.
 *
 * Cost: a GEMM of rows x hidden x cols and one of rows x M x hidden.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE (a parameter that is not
 * contiguous, outputs that overlap), SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for form,
 * phi or the bounds. Outputs are untouched then.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_tempnet_forward(slg_ctx *ctx, const slg_tensor *x,
                                       const slg_tempnet *net, slg_tempnet_saved *saved,
                                       slg_tensor *tau);

/*
 * Gradients of the parameters from dtau; none of x, which the paper detaches.
 *
 *   x, net, saved  in   as forward had and left them
 *   dtau           in   [rows]  f32, f64
 *   grad           out
 *
 * Where the sigmoid is saturated, tau is at a bound and the row's gradient is 0. A row whose
 * dtau is 0 adds nothing, whatever it holds: the way to leave out a row of NaN.
 *
 * Cost: twice forward's. Errors: as forward.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_tempnet_backward(slg_ctx *ctx, const slg_tensor *x,
                                        const slg_tempnet *net, const slg_tempnet_saved *saved,
                                        const slg_tensor *dtau, slg_tempnet_grad *grad);

/*
 * The factors of dropout for slg_tempnet.drop: each is 0 with probability `rate`, else
 * 1 / (1 - rate). Element i, in row-major order, is 0 where number rng->offset + i of the
 * stream is less than rate; advances rng->offset by the number of elements. So the mask of a
 * step is the same on any machine, and can be drawn again.
 *
 *   rng   in/out  not NULL
 *   rate  in      at least 0 and below 1
 *   drop  out     f32, any shape and strides
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE; SLG_ERR_RANGE for rate.
 * Nothing has changed then. Since 0.1.
 */
SLG_API slg_status slg_tempnet_drop(slg_ctx *ctx, slg_rng *rng, double rate, slg_tensor *drop);

/* ---- Robust global contrastive loss ---------------------------------------------------- */

/* A batch of B pairs. `sim`, or `image` and `text`. */
typedef struct slg_contrastive_pairs {
    uint32_t size;               /* sizeof(slg_contrastive_pairs), set by its _init */
    int32_t reserved;            /* 0 */
    const slg_tensor *sim;       /* [B, B]    f32: similarity of image i (row) and text j
                                    (column) */
    const slg_tensor *image;     /* [B, dim]  f32; sim = image text' */
    const slg_tensor *text;      /* [B, dim]  f32 */
    const slg_tensor *id;        /* [B]       i32, i64: place in the state; NULL: 0, 1, ...,
                                    B-1 */
    const slg_tensor *tau_image; /* [B]       f32: temperatures, from 1e-6 to 1e30 */
    const slg_tensor *tau_text;  /* [B]       f32 */
} slg_contrastive_pairs;

SLG_API void slg_contrastive_pairs_init(slg_contrastive_pairs *pairs, size_t size);

/* Options of slg_contrastive. */
typedef struct slg_contrastive_opts {
    uint32_t size; /* sizeof(slg_contrastive_opts), set by its _init */
    int32_t first; /* 1: no history yet, as in the first epoch; default 0 */
    double gamma;  /* in (0, 1]: weight of the batch in the running sums; default 0.8 */
    double rho;    /* finite; default 8 */
} slg_contrastive_opts;

SLG_API void slg_contrastive_opts_init(slg_contrastive_opts *opts, size_t size);

/* What slg_contrastive returns. A NULL tensor is not computed. */
typedef struct slg_contrastive_out {
    uint32_t size;          /* sizeof(slg_contrastive_out), set by its _init */
    int32_t reserved;       /* 0 */
    slg_tensor *dsim;       /* [B, B]    f32; may be sim itself; for sim */
    slg_tensor *dimage;     /* [B, dim]  f32; these two for features */
    slg_tensor *dtext;      /* [B, dim]  f32 */
    slg_tensor *dtau_image; /* [B]      f32 */
    slg_tensor *dtau_text;  /* [B]       f32 */
    double value;           /* out: the loss */
} slg_contrastive_out;

SLG_API void slg_contrastive_out_init(slg_contrastive_out *out, size_t size);

/*
 * Robust global contrastive loss of a batch, and an update of its memory over the data set.
 * Image side, of row i (the text side is the same on sim', with the text's tau and state):
 *
 *     diff[j] = sim[i,j] - sim[i,i],  j != i;      g = sum_j exp(diff[j] / tau[i])
 *     logS[id[i]] = log((1 - gamma) S + gamma g)   or log(g) where there is no history
 *     w[j] = exp(diff[j] / tau[i] - logS)          (held constant; the row need not sum to 1)
 *     value[i] = sum_j w[j] diff[j];               loss = mean of value, of both sides
 *     dsim[i,j] += w[j] / B;                       dsim[i,i] -= sum_j w[j] / B
 *     dtau[i] = (logS - log(B - 1) + rho - value[i] / tau[i]) / B
 *
 *   pairs        in
 *   opts         in      NULL: the defaults
 *   state_image  in/out  [N] f32, contiguous: logS of each image of the data set. Start it with
 *                        -inf (or NaN): that is no history.
 *   state_text   in/out  [N] the same of texts
 *   out          out     not NULL
 *
 * B = 1, or a row whose negatives are all -inf: it adds no loss and no gradient, dtau 0, and
 * its state stays. An id twice in a batch: both start from the same history, the later one
 * is kept. A row (image side) or column (text side) with NaN or +inf: NaN in all that depends
 * on it, and its state NaN, which is no history. Results do not depend on the number
 * of threads.
 *
 * Cost: two reads of sim and one write, a few rows at a time; no transposed copy. Features:
 * a GEMM, scratch for B x B, and two GEMMs for the gradients.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE (a tensor that is not
 * contiguous or outputs that overlap), SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for a tau
 * that is not from 1e-6 to 1e30, an id outside of [0, N), gamma, rho. Outputs and states are
 * untouched then.
 *
 * Since 0.1.
 */
SLG_API slg_status slg_contrastive(slg_ctx *ctx, const slg_contrastive_pairs *pairs,
                                   const slg_contrastive_opts *opts, slg_tensor *state_image,
                                   slg_tensor *state_text, slg_contrastive_out *out);

#ifdef __cplusplus
}
#endif

#endif
