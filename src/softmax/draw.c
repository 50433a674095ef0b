/*
 * draw.c - see draw.h. One pass for the normaliser, one that walks the distribution function
 * past all points, which are sorted for it.
 */
#include "draw.h"

#include <math.h>
#include <stdlib.h>

static int by_u(const void *a, const void *b)
{
    const draw_point *p = a, *q = b;
    return p->u < q->u ? -1 : p->u > q->u;
}

/* The function that is walked; sum: of the classes before. */
typedef struct walk {
    double sum;
    int64_t last; /* a class that has probability */
    int64_t count, done;
    const draw_point *points;
    int64_t *index;
} walk;

static void walk_block(walk *w, int64_t col, int64_t n, const float *p)
{
    for (int64_t i = 0; i < n && w->done < w->count; i++) {
        if (!(p[i] > 0)) continue;
        w->sum += (double)p[i];
        w->last = col + i;
        while (w->done < w->count && w->points[w->done].u <= w->sum)
            w->index[w->points[w->done++].at] = w->last;
    }
}

void row_draw(const kernel_table *k, const exp_arg *arg, int64_t row, int64_t cols,
              row_fetch fetch, const void *source, int64_t count, draw_point *points,
              int64_t *index)
{
    float scratch[KERNEL_BLOCK], p[KERNEL_BLOCK];
    row_stat s;
    walk w = { .last = -1, .count = count, .points = points, .index = index };
    row_start(&s, arg);
    for (int64_t col = 0; col < cols; col += KERNEL_BLOCK) {
        int64_t n = cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK;
        row_reduce(k, &s, col, n, fetch(source, row, col, n, scratch));
    }
    row_finish(k, &s, row, cols, fetch, source);
    if (count > 1) qsort(points, (size_t)count, sizeof *points, by_u);

    double share = 1; /* of a class of +inf */
    for (int pass = s.kind == ROW_INF ? 0 : 1; pass < 2; pass++) {
        if (s.kind != ROW_PLAIN && s.kind != ROW_INF) break;
        double infinite = 0;
        for (int64_t col = 0; col < cols && w.done < count; col += KERNEL_BLOCK) {
            int64_t n = cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK;
            const float *x = fetch(source, row, col, n, scratch);
            if (s.kind == ROW_PLAIN) {
                const exp_out e = row_out(&s, 1, 0);
                k->exp_emit((size_t)n, x, &e, p, STORE_CACHED);
            } else {
                for (int64_t i = 0; i < n; i++) {
                    infinite += x[i] == INFINITY;
                    p[i] = x[i] == INFINITY ? (float)share : 0;
                }
            }
            if (pass == 1) walk_block(&w, col, n, p);
        }
        if (pass == 0) share = 1 / infinite;
    }
    /* What rounding leaves beyond the last sum; or a row without probabilities. */
    while (w.done < count) index[points[w.done++].at] = w.last;
}
