/*
 * spherical_layer.h - inside of the factorised output layer, see softlogit/spherical.h.
 *
 * W = V U + 1 omega'; P = U^-1, Q = W'W, wbar = W'1. A batch H (m x d) with loss F(s, q, o) per
 * row has the gradient G = alpha 1' + 2 diag(beta) H W' + Gamma in its outputs, Gamma with an
 * entry a target. Nothing with a row for each class but V is ever formed.
 */
#ifndef SLG_HEAD_SPHERICAL_LAYER_H
#define SLG_HEAD_SPHERICAL_LAYER_H

#include "core/blas.h"
#include "core/tensor.h"
#include "softmax/spherical_terms.h"

/* Beyond it a step is refused: sums of products of two such numbers are finite. */
#define LAYER_LIMIT 1e100

/* Rows of V that are turned to double at once. */
enum { V_BLOCK = 512 };

/* A batch, from forward to update. Matrices are row-major, [rows, dim] unless said. */
typedef struct layer_batch {
    int64_t rows, slots; /* m, K */
    double *h, *hq, *hu; /* H, H Q, H U' */
    double *e;           /* Gamma W */
    double *dh;
    double *s, *q, *loss, *rho;       /* [rows] */
    double *alpha, *beta, *gamma_sum; /* [rows], with rho */
    double *gamma, *output, *value;   /* [rows, slots] */
    int64_t *target;                  /* [rows, slots]; -1: not there */
    double sum;                       /* sum of rho loss */
    int64_t count;                    /* rows with a target */
    void *memory;
    size_t bytes;
} layer_batch;

struct slg_spherical_layer {
    slg_ctx *ctx;
    slg_spherical_layer_opts opts;
    spherical_form form;
    int64_t classes, dim;
    float *v;
    double *u, *p, *q, *omega, *wbar;
    /* U's singular values lie in target * [low, high]; target is the product of decays. */
    double target, low, high;
    int64_t steps, moved, refactorised;
    int64_t looked, refreshed; /* at step so many */
    bool pending;
    layer_batch batch;
};

/* Row r of V. */
static inline float *layer_v(const slg_spherical_layer *l, int64_t r)
{
    return l->v + r * l->dim;
}

/* spherical_step.c: what forward and update are made of. layer_evaluate leaves the layer's
   numbers. */
slg_status layer_evaluate(slg_spherical_layer *l, const slg_spherical_batch *given);
slg_status layer_update(slg_spherical_layer *l, double lr);

/* spherical_state.c */
void layer_start(slg_spherical_layer *l);          /* U = P = I, omega = 0, all bounds 1 */
slg_status layer_gram(slg_spherical_layer *l);     /* Q and wbar from V, where U = I,
                                                      omega = 0 */
slg_status layer_maintain(slg_spherical_layer *l); /* the look that is due, if one is */
double layer_drift(const slg_spherical_layer *l, double *scratch); /* 2 dim doubles */
slg_status layer_singular(slg_spherical_layer *l, double *values, double *left);
/* W's rows index[0..n) (NULL: first, ...) in out, with v as scratch: n x dim each. */
slg_status layer_w_rows(slg_spherical_layer *l, const int64_t *index, int64_t first, int64_t n,
                        double *v, double *out);

/* n elements of row r, from column 0, as double and back. */
void layer_read(const slg_ctx *ctx, const rows *m, int64_t r, int64_t n, double *out,
                float *scratch);
void layer_write(const slg_ctx *ctx, const rows *m, int64_t r, int64_t n, const double *x,
                 float *scratch);

#endif
