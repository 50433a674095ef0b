/*
 * second.h - a second softmax beside the engine's own: a teacher's, or the row's at another
 * temperature. It is reduced in the method's `reduce`, ended in `solve`, and written in `emit`
 * from its log-sum-exp alone.
 */
#ifndef SLG_LOSS_SECOND_H
#define SLG_LOSS_SECOND_H

#include "engine.h"

typedef struct second {
    const logit_source *src;
    double temperature; /* softmax(ratio x / temperature) */
    float ratio;        /* 1 unless two sources of unlike temperatures must meet at one */
    int64_t without;    /* a class that is left out; -1: none */
} second;

/* The columns that are left, times ratio: a row_fetch. */
const float *second_fetch(const void *self, int64_t row, int64_t col, int64_t n,
                          float *scratch);

/* Adds a block (times ratio already) to part. */
void second_reduce(const kernel_table *k, const second *s, int64_t col, int64_t n,
                   const float *x, const exp_arg *arg, lse_part *part);

/* Ends pass 1: kind and log-sum-exp. */
void second_finish(const loss_call *c, int64_t row, const second *s, const lse_part *part,
                   row_stat *out);

/* Mean of a - b, of a - shift where b is NULL, under the softmax of s, in double: for rows
   whose sums the kernels cannot hold. Nothing is added where the softmax is 0. */
double second_mean(const loss_call *c, int64_t row, const second *s, const row_stat *stat,
                   const second *a, const second *b, double shift);

/* Pass 2:  weight * softmax, from what second_finish gave. */
exp_out second_out(double temperature, double lse_rel, double pre, double weight);

#endif
