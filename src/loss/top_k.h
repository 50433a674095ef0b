/*
 * top_k.h - the k largest of a row, in no order; and what a group of classes has
 * of the probability.
 */
#ifndef SLG_LOSS_TOP_K_H
#define SLG_LOSS_TOP_K_H

#include "engine.h"

/* A class is of the top if x > least, or x == least and its index is below end. */
typedef struct top_cut {
    float least;
    int64_t end;
} top_cut;

static inline bool top_has(const top_cut *cut, float x, int64_t index)
{
    return x > cut->least || (x == cut->least && index < cut->end);
}

/*
 * The k largest of x, -inf left out, no NaN; of equal ones those of lower index. Returns how
 * many; their values in no order in top, of cols floats; and where they end. Expected time: a
 * read of x at the speed of memory. softmax/top_items.h has them with their places.
 */
int64_t top_values(const kernel_table *kernels, int64_t cols, const float *x, int64_t k,
                   float *top, top_cut *cut);

/* A group of classes of a row (the target not among them): its probability, its share of the
   entropy -sum p log p, and the entropy of the group renormalised. */
typedef struct group {
    double mass, entropy, own_entropy;
} group;

/* x: n logits of the group; others -inf. Of a row that is settled. */
group group_of(const loss_call *call, const loss_row *r, int64_t n, const float *x);

/* From the sums of p = exp(x / T) less 2^ref, and of p (x - the row's maximum). */
group group_from(const loss_row *r, double sum, float ref, double dot);

static inline double top_softplus(double a)
{
    return a > 0 ? a + log1p(exp(-a)) : log1p(exp(a));
}

#endif
