/*
 * rank.h - the order of a row's classes by score: see rank_arg. The highest comes first, and of
 * equal scores the lower class.
 */
#ifndef SLG_LOSS_RANK_H
#define SLG_LOSS_RANK_H

#include "kernels/kernels.h"

/* Bytes of scratch for n classes; scratch is aligned to 8. */
size_t rank_scratch(size_t n);

/*
 * The classes in their order: of element i of the result, which is within scratch, the low 32
 * bits are the class of rank i. far: up to two classes whose scores may be far from all others
 * (-1: none). n < 2^31.
 */
const uint64_t *rank_order(const kernel_table *k, size_t n, const float *x, const float *w,
                           const rank_arg *arg, const int64_t far[2], void *scratch);

#endif
