/* mlp.h - a small ReLU network for re-runs: any number of passes (activations) over one set
   of weights. */
#ifndef PAPERS_MLP_H
#define PAPERS_MLP_H

#include <cblas.h>

#include "papers.h"

enum { MLP_LAYERS = 3 };

typedef struct mlp {
    int layers, size[MLP_LAYERS + 1]; /* size[0]: inputs */
    int64_t count;
    float *w, *dw; /* a layer: [out, in], then [out] */
} mlp;

typedef struct mlp_pass {
    int rows;
    const float *x;
    float *act[MLP_LAYERS], *dact[MLP_LAYERS]; /* of each layer: the last are logits */
} mlp_pass;

static inline mlp mlp_of(run_t *r, int layers, const int *size)
{
    mlp m = { .layers = layers };
    for (int i = 0; i <= layers; i++) m.size[i] = size[i];
    for (int i = 0; i < layers; i++) m.count += (int64_t)size[i + 1] * (size[i] + 1);
    m.w = run_floats(r, (size_t)m.count), m.dw = run_floats(r, (size_t)m.count);
    return m;
}

static inline mlp_pass mlp_pass_of(run_t *r, const mlp *m, int rows)
{
    mlp_pass p = { .rows = rows };
    for (int i = 0; i < m->layers; i++) {
        p.act[i] = run_floats(r, (size_t)rows * (size_t)m->size[i + 1]);
        p.dact[i] = run_floats(r, (size_t)rows * (size_t)m->size[i + 1]);
    }
    return p;
}

/* Uniform in +-gain / sqrt(inputs); gain 1: PyTorch's default, sqrt(6): He's. Biases: within
   1 / sqrt. */
static inline void mlp_seed(mlp *m, rng *g, double gain)
{
    float *w = m->w;
    for (int i = 0; i < m->layers; i++) {
        size_t in = (size_t)m->size[i], out = (size_t)m->size[i + 1];
        double far = 1 / sqrt((double)in);
        fill_uniform(g, in * out, w, -gain * far, gain * far);
        fill_uniform(g, out, w + in * out, -far, far);
        w += out * (in + 1);
    }
}

static inline float *mlp_forward(const mlp *m, mlp_pass *p, const float *x, int rows)
{
    const float *w = m->w, *from = x;
    p->x = x, p->rows = rows;
    for (int i = 0; i < m->layers; i++) {
        const int in = m->size[i], out = m->size[i + 1];
        float *y = p->act[i];
        for (int j = 0; j < rows * out; j++) y[j] = w[in * out + j % out];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, out, in, 1, from, in, w, in,
                    1, y, out);
        for (int j = 0; j < rows * out && i + 1 < m->layers; j++) y[j] = y[j] > 0 ? y[j] : 0;
        from = y, w += (int64_t)out * (in + 1);
    }
    return p->act[m->layers - 1];
}

/* From dact of the last layer. dx NULL: not wanted. weights: adds to m->dw. */
static inline void mlp_backward(mlp *m, mlp_pass *p, float *dx, bool weights)
{
    int64_t at = m->count;
    for (int i = m->layers - 1; i >= 0; i--) {
        const int in = m->size[i], out = m->size[i + 1], rows = p->rows;
        const float *from = i ? p->act[i - 1] : p->x, *d = p->dact[i];
        float *back = i ? p->dact[i - 1] : dx;
        at -= (int64_t)out * (in + 1);
        if (weights) {
            float *dw = m->dw + at, *db = dw + in * out;
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, rows, 1, d, out, from,
                        in, 1, dw, in);
            for (int j = 0; j < rows * out; j++) db[j % out] += d[j];
        }
        if (!back) return;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, in, out, 1, d, out,
                    m->w + at, in, 0, back, in);
        for (int j = 0; j < rows * in && i; j++)
            if (!(from[j] > 0)) back[j] = 0;
    }
}

/* Scales the gradient to a norm of at most `most`; a gradient that is not finite becomes 0. */
static inline void mlp_clip(mlp *m, double most)
{
    double norm = 0;
    for (int64_t i = 0; i < m->count; i++) norm += (double)m->dw[i] * (double)m->dw[i];
    norm = sqrt(norm);
    if (!isfinite(norm))
        memset(m->dw, 0, (size_t)m->count * sizeof *m->dw);
    else if (norm > most)
        for (int64_t i = 0; i < m->count; i++) m->dw[i] *= (float)(most / norm);
}

#endif
