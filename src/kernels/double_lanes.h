/*
 * double_lanes.h - sums in double over lanes of their own: the same bits on every ISA, and what
 * compilers make vectors of.
 */
#ifndef SLG_KERNELS_DOUBLE_LANES_H
#define SLG_KERNELS_DOUBLE_LANES_H

#include "vec.h"

enum { LANES = 16 };

typedef struct lanes {
    double v[LANES];
} lanes;

static inline double lanes_sum(const lanes *l)
{
    double sum = 0;
    for (size_t j = 0; j < LANES; j++) sum += l->v[j];
    return sum;
}

#endif
