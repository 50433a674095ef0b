/*
 * top_items.h - the k largest of a long row, in no order.
 */
#ifndef SLG_SOFTMAX_TOP_ITEMS_H
#define SLG_SOFTMAX_TOP_ITEMS_H

#include "kernels/kernels.h"

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

#endif
