/*
 * top_k.h - the k largest of a row, in no order; and what a group of classes has
 * of the probability.
 */
#ifndef SLG_LOSS_TOP_K_H
#define SLG_LOSS_TOP_K_H

#include "engine.h"

typedef struct top_item {
    float x;
    int32_t index;
} top_item;

/* Items that top_k needs room for. */
int64_t top_k_room(int64_t cols, int64_t k);

/*
 * The k largest of x, -inf left out, no NaN; of equal ones those of lower index. Returns how
 * many; items in no order. Expected time O(cols + k log(cols / k)). cols <= INT32_MAX.
 */
int64_t top_k(const kernel_table *kernels, int64_t cols, const float *x, int64_t k,
              top_item *items);

/* A group of classes of a row (the target not among them): its probability, its share of the
   entropy -sum p log p, and the entropy of the group renormalised. */
typedef struct group {
    double mass, entropy, own_entropy;
} group;

/* x: n logits of the group; others -inf. Of a row that is settled. */
group group_of(const loss_call *call, const loss_row *r, int64_t n, const float *x);

static inline double top_softplus(double a)
{
    return a > 0 ? a + log1p(exp(-a)) : log1p(exp(a));
}

#endif
