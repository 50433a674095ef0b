/*
 * score_network.h - a small network for scores of diffusion.h, of the library's layers: (log x,
 * t, sqrt t) -> h sqrt(sigma^2 t + floor), SiLU between three layers, trained by multiplicative
 * denoising score matching with unit variance, in log states.
 */
#ifndef PAPERS_SCORE_NETWORK_H
#define PAPERS_SCORE_NETWORK_H

#include "papers.h"

enum { SCORE_LAYERS = 3, SCORE_BATCH = 256 };

#define SCORE_SIGMA 0.8

typedef struct score_network {
    run_t *r;
    slg_ctx *ctx;
    double floor;          /* of the variance that the output is scaled by */
    double least_t, power; /* t in training: from least_t up, as u^power, u uniform */
    int64_t sizes[SCORE_LAYERS + 1], dim, count, rows; /* rows: the most at once */
    float *w, *dw;                                     /* a layer: [out, in], then [out] */
    float *act[SCORE_LAYERS], *pre[SCORE_LAYERS], *dact, *dpre;
} score_network;

static inline score_network score_network_new(run_t *r, slg_ctx *ctx, rng *g, int64_t dim,
                                              int64_t hidden, int64_t rows)
{
    score_network n = { r,          ctx,         0.02,
                        0.005,      1,           { dim + 2, hidden, hidden, dim },
                        .dim = dim, .rows = rows };
    const size_t wide = (size_t)(rows * (hidden > dim + 2 ? hidden : dim + 2));
    for (int i = 0; i < SCORE_LAYERS; i++) n.count += n.sizes[i + 1] * (n.sizes[i] + 1);
    n.w = run_floats(r, (size_t)n.count), n.dw = run_floats(r, (size_t)n.count);
    float *w = n.w;
    for (int i = 0; i < SCORE_LAYERS; i++) {
        const double far = 1 / sqrt((double)n.sizes[i]);
        const int64_t count = n.sizes[i + 1] * (n.sizes[i] + 1);
        fill_uniform(g, (size_t)count, w, -far, far);
        n.act[i] = run_floats(r, wide), n.pre[i] = run_floats(r, wide);
        w += count;
    }
    n.dact = run_floats(r, wide), n.dpre = run_floats(r, wide);
    return n;
}

static inline slg_activation_opts score_silu(void)
{
    slg_activation_opts o;
    slg_activation_opts_init(&o, sizeof o);
    o.kind = SLG_SILU;
    return o;
}

static inline slg_tensor plane(const float *x, int64_t rows, int64_t cols)
{
    return slg_tensor_2d(x, SLG_F32, rows, cols);
}

/* What the output is divided by. */
static inline float score_scale(const score_network *n, double t)
{
    return (float)(1 / sqrt(SCORE_SIGMA * SCORE_SIGMA * t + n->floor));
}

/* h of rows of log x at times t[0], t[step], .. */
static inline void score_network_run(score_network *n, int64_t rows, const float *y,
                                     const double *t, int step, float *h)
{
    const slg_activation_opts o = score_silu();
    const float *at = n->w;
    for (int64_t i = 0; i < rows; i++) {
        float *in = n->act[0] + n->sizes[0] * i;
        memcpy(in, y + n->dim * i, (size_t)n->dim * sizeof *in);
        in[n->dim] = (float)t[i * step], in[n->dim + 1] = (float)sqrt(t[i * step]);
    }
    for (int i = 0; i < SCORE_LAYERS; i++) {
        const int64_t in = n->sizes[i], out = n->sizes[i + 1];
        slg_tensor x = plane(n->act[i], rows, in), weight = plane(at, out, in);
        slg_tensor bias = slg_tensor_1d(at + in * out, SLG_F32, out);
        slg_tensor pre = plane(n->pre[i], rows, out);
        must(n->r, n->ctx, slg_linear(n->ctx, &x, &weight, &bias, &pre));
        at += out * (in + 1);
        if (i + 1 == SCORE_LAYERS) break;
        slg_tensor act = plane(n->act[i + 1], rows, out);
        must(n->r, n->ctx, slg_activation(n->ctx, &pre, NULL, &o, &act));
    }
    const float *last = n->pre[SCORE_LAYERS - 1];
    for (int64_t i = 0; i < rows; i++) {
        const float scale = score_scale(n, t[i * step]);
        for (int64_t j = 0; j < n->dim; j++) h[n->dim * i + j] = last[n->dim * i + j] * scale;
    }
}

/* dw, from dh, which is overwritten by the gradient of the network's output. */
static inline void score_network_back(score_network *n, int64_t rows, float *dh,
                                      const double *t)
{
    const slg_activation_opts o = score_silu();
    float *from = dh;
    int64_t at = n->count;
    for (int64_t i = 0; i < rows * n->dim; i++) dh[i] *= score_scale(n, t[i / n->dim]);
    for (int i = SCORE_LAYERS - 1; i >= 0; i--) {
        const int64_t in = n->sizes[i], out = n->sizes[i + 1];
        at -= out * (in + 1);
        slg_tensor x = plane(n->act[i], rows, in), weight = plane(n->w + at, out, in);
        slg_tensor dy = plane(from, rows, out), dx = plane(n->dact, rows, in);
        slg_tensor dweight = plane(n->dw + at, out, in);
        slg_tensor dbias = slg_tensor_1d(n->dw + at + in * out, SLG_F32, out);
        must(n->r, n->ctx,
             slg_linear_backward(n->ctx, &x, &weight, &dy, NULL, i ? &dx : NULL, &dweight,
                                 &dbias));
        if (i == 0) return;
        slg_tensor pre = plane(n->pre[i - 1], rows, in), dpre = plane(n->dpre, rows, in);
        must(n->r, n->ctx, slg_activation_backward(n->ctx, &pre, NULL, &dx, &o, &dpre, NULL));
        from = n->dpre;
    }
}

/* Adam, from 2e-3 down to `last`; draw fills a batch of log x_0. */
static inline void score_network_train(score_network *n, rng *g, int steps, double last,
                                       void (*draw)(void *user, rng *g, float *y0), void *user)
{
    const size_t size = (size_t)(SCORE_BATCH * n->dim);
    float *y0 = run_floats(n->r, size), *y = run_floats(n->r, size);
    float *z = run_floats(n->r, size), *h = run_floats(n->r, size),
          *dh = run_floats(n->r, size);
    double t[SCORE_BATCH];
    slg_tensor y0t = plane(y0, SCORE_BATCH, n->dim), yt = plane(y, SCORE_BATCH, n->dim);
    slg_tensor zt = plane(z, SCORE_BATCH, n->dim), ht = plane(h, SCORE_BATCH, n->dim);
    slg_tensor dht = plane(dh, SCORE_BATCH, n->dim);
    slg_tensor tt = slg_tensor_1d(t, SLG_F64, SCORE_BATCH);
    slg_tensor weights = slg_tensor_1d(n->w, SLG_F32, n->count);
    slg_tensor gradient = slg_tensor_1d(n->dw, SLG_F32, n->count);
    slg_rng noise = { 41, 0 };
    slg_gbm p;
    slg_mdsm_opts o;
    slg_adamw_opts adam;
    slg_optimizer *opt = NULL;
    slg_gbm_init(&p, sizeof p), slg_mdsm_opts_init(&o, sizeof o);
    slg_adamw_opts_init(&adam, sizeof adam);
    p.log_state = 1, p.sigma = SCORE_SIGMA, o.weight = SLG_MDSM_UNIT_VARIANCE;
    adam.lr = 2e-3, adam.weight_decay = 0;
    must(n->r, n->ctx, slg_optimizer_create(n->ctx, SLG_ADAMW, n->count, &adam, &opt));
    for (int step = 0; step < steps; step++) {
        draw(user, g, y0);
        for (int i = 0; i < SCORE_BATCH; i++)
            t[i] = n->least_t + (1 - n->least_t) * pow(rng_uniform(g, 0, 1), n->power);
        must(n->r, n->ctx,
             slg_gbm_forward(n->ctx, &y0t, &tt, NULL, &noise, &p, NULL, &yt, &zt, NULL));
        score_network_run(n, SCORE_BATCH, y, t, 1, h);
        must(n->r, n->ctx,
             slg_mdsm(n->ctx, &ht, NULL, NULL, &zt, &tt, &p, &o, NULL, NULL, &dht));
        score_network_back(n, SCORE_BATCH, dh, t);
        must(n->r, n->ctx,
             slg_optimizer_set_lr(opt, 2e-3 * pow(last / 2e-3, (double)step / steps)));
        must(n->r, n->ctx, slg_optimizer_step(opt, &weights, &gradient));
    }
    slg_optimizer_free(opt);
}

/* As an slg_gbm_model whose user is the network; x are logarithms. */
static inline slg_status score_network_model(void *user, double t, const slg_tensor *x,
                                             slg_tensor *h)
{
    score_network_run(user, x->shape[0], x->data, &t, 0, h->data);
    return SLG_OK;
}

#endif
