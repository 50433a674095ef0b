/*
 * top_k.h - what a group of classes, such as the k largest, has of the probability.
 */
#ifndef SLG_LOSS_TOP_K_H
#define SLG_LOSS_TOP_K_H

#include "engine.h"
#include "softmax/top_items.h"

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
