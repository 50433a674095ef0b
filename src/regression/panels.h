/*
 * panels.h - a matrix of any layout as panels of rows of contiguous doubles, for BLAS: where
 * it lies if it is that already, else converted a panel at a time. A panel fits the L2 cache,
 * so several products with it cost one read of memory.
 */
#ifndef SLG_REGRESSION_PANELS_H
#define SLG_REGRESSION_PANELS_H

#include "core/tensor.h"

typedef struct panels {
    slg_ctx *ctx;
    rows m;
    int64_t rows, cols, ld;
    int64_t size;    /* rows of a panel, the last but; from the shape alone */
    bool direct;     /* float64 with contiguous rows */
    double *scratch; /* [size, cols] */
    int64_t held;    /* the row whose panel is in scratch; -1: none */
} panels;

/* Of a checked f32 or f64 matrix. Takes scratch. */
slg_status panels_open(slg_ctx *ctx, const slg_tensor *t, panels *p);

/*
 * Rows [first, first + count), first a multiple of p->size; row stride *ld. z: NULL, or a
 * number a row of the whole matrix: rows for which it is -inf become zeros, whatever they
 * hold.
 */
const double *panels_get(panels *p, int64_t first, int64_t count, const double *z, int64_t *ld);

static inline int64_t panels_count(const panels *p, int64_t first)
{
    return p->rows - first < p->size ? p->rows - first : p->size;
}

/* y[v] = A x[v], for `count` vectors; x[v] NULL: left out. */
slg_status panels_forward(panels *p, int count, const double *const *x, double *const *y);

/* y[v] = A' q[v]; q[v] NULL: left out. z as for panels_get. */
slg_status panels_backward(panels *p, int count, const double *const *q, const double *z,
                           double *const *y);

#endif
