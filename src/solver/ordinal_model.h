/*
 * ordinal_model.h - the inside of ordinal regression: data, and the likelihood with its
 * derivatives in psi, the differences of the boundaries' weights. theta is [m, q], q = p + 1:
 * row l is psi_l and, last, the difference of intercepts.
 */
#ifndef SLG_SOLVER_ORDINAL_MODEL_H
#define SLG_SOLVER_ORDINAL_MODEL_H

#include "objective.h"
#include "softlogit/ordinal.h"
#include "solve.h"

typedef struct ordinal_model {
    slg_ctx *ctx;
    int64_t n, q, m;
    bool proportional; /* psi but the first are 0: H has less */
    double *z;         /* [n, q]: x, and ones */
    double *mean, *sd; /* [q]: 0 and 1 until standardised */
    double *eta, *g;   /* [n, m] */
    double *loss;      /* [n] */
    double *weight;    /* [2 m - 1, n] */
    double *h;         /* 2 m - 1 blocks of [q, q], see ordinal_entry; proportional: all but the
                          first are last rows, [q] */
    int32_t *label;    /* [n] */
} ordinal_model;

/* Copies and checks; h only where asked for. To be closed after an error, too. */
slg_status ordinal_open(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *labels,
                        int64_t classes, ordinal_model *m);
/* The rows with keep[i], of an open model. fold: for a message. */
slg_status ordinal_subset(const ordinal_model *from, const int32_t *fold, int32_t out,
                          ordinal_model *m);
slg_status ordinal_reserve(ordinal_model *m, bool curvature);
void ordinal_close(ordinal_model *m);
void ordinal_standardize(ordinal_model *m);

/* The logits of class frequencies, and psi = 0. */
void ordinal_start(const ordinal_model *m, double *theta);

/* Inside of an op; they give scratch back. eta = scores at theta; its mean loss; the gradient
   of that in theta. */
slg_status ordinal_scores(const ordinal_model *m, const double *theta, double *eta);
double ordinal_value(ordinal_model *m, const double *eta);
slg_status ordinal_gradient(ordinal_model *m, const double *eta, double *grad);

/*
 * Weights of rows in a matrix of slg_curvature, by n. In psi: m of the diagonal blocks, then
 * those of blocks (l', l), l' < l, which depend on l alone. tri: in eta, diagonal and beside
 * it.
 */
void ordinal_weights(ordinal_model *m, const double *eta, int32_t which, bool tri);
slg_status ordinal_curvature(ordinal_model *m); /* h from those in psi */

/* sigmoid(eta) differences; raw, with a sign. */
void ordinal_probabilities(int64_t m, const double *eta, double *p);

/* Rows of [m, q] to sums of rows 0 to l, or l to m - 1. */
void ordinal_prefix(int64_t m, int64_t q, const double *from, double *to);
void ordinal_suffix(int64_t m, int64_t q, double *x);

/* Block (l, k) of h. */
static inline int64_t ordinal_block(const ordinal_model *m, int64_t l, int64_t k)
{
    return l == k ? l : m->m - 1 + (l > k ? l : k);
}

/* Its row j: [q]; or NULL where only its last row is there and j is not that: then the block's
   column j has one entry, the last, *entry. */
static inline const double *ordinal_row(const ordinal_model *m, int64_t block, int64_t j,
                                        const double **entry)
{
    const int64_t q = m->q;
    *entry = NULL;
    if (!m->proportional || block == 0) return m->h + (block * q + j) * q;
    const double *last = m->h + (q + block - 1) * q;
    *entry = last + j;
    return j == q - 1 ? last : NULL;
}

#endif
