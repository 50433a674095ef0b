/*
 * surrogate_kl.h - the divergence of softmax rows, for surrogate.c.
 */
#ifndef SLG_SOLVER_SURROGATE_KL_H
#define SLG_SOLVER_SURROGATE_KL_H

#include "target_rows.h"

enum { S_G, S_FROM, S_Z, S_GRAD };

/* The operands, and what a piece adds: sums = { <G, Z - Z_t>, |Z - Z_t|^2, |G|^2, KL }. */
typedef struct surrogate_run {
    target_operands o;
    int32_t kind;
    double inv;         /* 1 / eta */
    const rows *values; /* [n]; NULL: not wanted */
} surrogate_run;

/* D of one row, and grad where there is one. */
double surrogate_kl_row(const kernel_table *k, const surrogate_run *r, int64_t row,
                        float *scratch);

#endif
