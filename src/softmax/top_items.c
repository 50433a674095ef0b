/*
 * top_items.c - see top_items.h. Candidates above the least of the best k so far are kept; when
 * there is no more room, a selection throws out all but k. Runs of columns without a candidate
 * are passed over at the speed of the kernel `max`.
 */
#include "top_items.h"

enum { RUN = 64 };

int64_t top_k_room(int64_t cols, int64_t k) { return k < cols / 2 - RUN ? 2 * k + RUN : cols; }

static bool before(top_item a, top_item b)
{
    return a.x > b.x || (a.x == b.x && a.index < b.index);
}

static void swap(top_item *a, top_item *b)
{
    top_item t = *a;
    *a = *b;
    *b = t;
}

/* Moves the k best of n to the front, 0 < k < n; the k-th of them to place k - 1. */
static void keep_best(top_item *a, int64_t n, int64_t k)
{
    int64_t low = 0, high = n - 1, want = k - 1;
    while (low < high) {
        int64_t mid = low + (high - low) / 2, i = low, j = high;
        if (before(a[mid], a[low])) swap(&a[mid], &a[low]);
        if (before(a[high], a[mid])) swap(&a[high], &a[mid]);
        if (before(a[mid], a[low])) swap(&a[mid], &a[low]);
        const top_item pivot = a[mid];
        while (i <= j) {
            while (before(a[i], pivot)) i++;
            while (before(pivot, a[j])) j--;
            if (i <= j) swap(&a[i++], &a[j--]);
        }
        if (want <= j)
            high = j;
        else if (want >= i)
            low = i;
        else
            return;
    }
}

int64_t top_k(const kernel_table *kernels, int64_t cols, const float *x, int64_t k,
              top_item *items)
{
    const int64_t room = top_k_room(cols, k);
    int64_t count = 0;
    float least = -INFINITY; /* what a candidate must exceed: later equal ones come after */
    if (k <= 0) return 0;
    for (int64_t from = 0; from < cols; from += RUN) {
        int64_t to = cols - from < RUN ? cols : from + RUN;
        if (kernels->max((size_t)(to - from), x + from) <= least) continue;
        for (int64_t i = from; i < to; i++) {
            if (!(x[i] > least)) continue;
            if (count == room) {
                keep_best(items, count, k);
                count = k;
                least = items[k - 1].x;
                if (!(x[i] > least)) continue;
            }
            items[count++] = (top_item){ x[i], (int32_t)i };
        }
    }
    if (count <= k) return count;
    keep_best(items, count, k);
    return k;
}
