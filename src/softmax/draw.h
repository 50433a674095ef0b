/*
 * draw.h - samples of a row's softmax by inverting its distribution function.
 */
#ifndef SLG_SOFTMAX_DRAW_H
#define SLG_SOFTMAX_DRAW_H

#include "parts.h"

typedef struct draw_point {
    double u;   /* in: in (0, 1) */
    int64_t at; /* in: the caller's number of it; out, at that place of index: the class */
} draw_point;

/*
 * Draws `count` classes of row `row` at once: index[points[i].at] is the first class at which
 * the distribution function reaches points[i].u. Sorts points. -1 for rows of NaN or all
 * masked; classes of +inf share the probability.
 */
void row_draw(const kernel_table *k, const exp_arg *arg, int64_t row, int64_t cols,
              row_fetch fetch, const void *source, int64_t count, draw_point *points,
              int64_t *index);

#endif
