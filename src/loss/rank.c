/*
 * rank.c - see rank.h. A radix sort by the scores in float32, two or three scatters whatever
 * the scores are; classes that float32 cannot tell apart are few, and are then put in order by
 * their scores in double, computed anew.
 */
#include "rank.h"

#include <string.h>

enum {
    SMALL = 256,    /* classes up to here are merged: counters would cost more */
    INSERTION = 16, /* runs up to here are sorted by insertion */
    DIGITS = 3,
    DIGIT_BITS = 12, /* of two digits, or 11 of three */
    COUNTERS = DIGITS << DIGIT_BITS
};

typedef struct ranking {
    const float *x, *w;
    const rank_arg *arg;
} ranking;

static uint32_t class_of(uint64_t item) { return (uint32_t)item; }

static double score_of(const ranking *r, uint64_t item)
{
    return rank_score(r->arg, r->x[class_of(item)], r->w[class_of(item)]);
}

/* Whether b, of a higher class than a, goes before it all the same. */
static bool overtakes(const ranking *r, uint64_t b, uint64_t a)
{
    if (a >> 32 != b >> 32) return b >> 32 < a >> 32;
    return score_of(r, b) > score_of(r, a);
}

static void insertion(const ranking *r, uint64_t *a, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const uint64_t item = a[i];
        size_t j = i;
        for (; j > 0 && overtakes(r, item, a[j - 1]); j--) a[j] = a[j - 1];
        a[j] = item;
    }
}

static void merge(const ranking *r, uint64_t *a, size_t n, uint64_t *spare)
{
    if (n <= INSERTION) {
        insertion(r, a, n);
        return;
    }
    const size_t half = n / 2;
    merge(r, a, half, spare);
    merge(r, a + half, n - half, spare);
    memcpy(spare, a, half * sizeof *a);
    for (size_t i = 0, j = half, k = 0; i < half; k++)
        a[k] = j < n && overtakes(r, a[j], spare[i]) ? a[j++] : spare[i++];
}

/* Items of one key, in the order of classes so far. Equal scores are in order already. */
static void sort_run(const ranking *r, uint64_t *a, size_t n, uint64_t *spare)
{
    size_t i = 1;
    while (i < n && !overtakes(r, a[i], a[i - 1])) i++;
    if (i < n) merge(r, a, n, spare);
}

/* Least to most is the range of keys but for `far`, which are moved into it. */
static void find_keys(const kernel_table *k, size_t n, const ranking *r, const int64_t far[2],
                      uint32_t *keys, uint32_t range[2])
{
    size_t from = 0;
    const bool swap = far[1] >= 0 && far[1] < far[0];
    range[0] = UINT32_MAX, range[1] = 0;
    for (int i = 0; i < 2; i++) {
        const int64_t at = far[swap ? 1 - i : i];
        if (at < 0) continue;
        k->rank_keys((size_t)at - from, r->x + from, r->w + from, r->arg, keys + from, range);
        from = (size_t)at + 1;
    }
    k->rank_keys(n - from, r->x + from, r->w + from, r->arg, keys + from, range);
    for (int i = 0; i < 2; i++) {
        uint32_t none[2] = { UINT32_MAX, 0 };
        if (far[i] < 0) continue;
        const size_t at = (size_t)far[i];
        k->rank_keys(1, r->x + at, r->w + at, r->arg, keys + at, none);
        if (range[0] > range[1]) range[0] = range[1] = keys[at];
        if (keys[at] < range[0]) keys[at] = range[0];
        if (keys[at] > range[1]) keys[at] = range[1];
    }
}

/* Counts to places. */
static void add_up(uint32_t *count, uint32_t size)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < size; i++) {
        const uint32_t here = count[i];
        count[i] = sum;
        sum += here;
    }
}

typedef struct radix {
    uint32_t least, drop; /* digits are of (key - least) >> drop */
    int digits, bits;
} radix;

static radix radix_of(const uint32_t range[2])
{
    radix d = { range[0], 0, 2, DIGIT_BITS };
    int width = 0;
    while (width < 32 && (range[1] - range[0]) >> width) width++;
    if (width <= DIGIT_BITS) d.digits = 1;
    if (width > 2 * DIGIT_BITS + 2)
        d.digits = DIGITS, d.bits = 11;
    else if (width > 2 * DIGIT_BITS) /* a few more classes are left to the runs */
        d.drop = (uint32_t)(width - 2 * DIGIT_BITS);
    return d;
}

/* By key, items of one key in the order of classes. */
static uint64_t *sort_keys(size_t n, const uint32_t *keys, const radix *d, uint64_t *a,
                           uint64_t *b, uint32_t *count)
{
    const uint32_t size = 1u << d->bits, last = size - 1;
    memset(count, 0, (size_t)d->digits * size * sizeof *count);
    for (size_t i = 0; i < n; i++) {
        const uint32_t key = (keys[i] - d->least) >> d->drop;
        count[key & last]++;
        if (d->digits > 1) count[size + (key >> d->bits & last)]++;
        if (d->digits > 2) count[2 * size + (key >> 2 * d->bits & last)]++;
    }
    for (int j = 0; j < d->digits; j++) add_up(count + (size_t)j * size, size);
    for (size_t i = 0; i < n; i++) {
        const uint32_t key = (keys[i] - d->least) >> d->drop;
        a[count[key & last]++] = (uint64_t)key << 32 | i;
    }
    for (int j = 1; j < d->digits; j++) {
        uint32_t *place = count + (size_t)j * size;
        const int shift = 32 + j * d->bits;
        for (size_t i = 0; i < n; i++) b[place[a[i] >> shift & last]++] = a[i];
        uint64_t *swap = a;
        a = b, b = swap;
    }
    return a;
}

size_t rank_scratch(size_t n)
{
    const size_t counters = n > SMALL ? COUNTERS : 0;
    return n * (2 * sizeof(uint64_t) + sizeof(uint32_t)) + counters * sizeof(uint32_t) + 8;
}

const uint64_t *rank_order(const kernel_table *k, size_t n, const float *x, const float *w,
                           const rank_arg *arg, const int64_t far[2], void *scratch)
{
    const ranking r = { x, w, arg };
    uint64_t *a = scratch, *b = a + n;
    uint32_t *keys = (uint32_t *)(b + n), *count = keys + n, range[2];
    find_keys(k, n, &r, far, keys, range);
    if (n <= SMALL) {
        for (size_t i = 0; i < n; i++) a[i] = (uint64_t)keys[i] << 32 | i;
        merge(&r, a, n, b);
        return a;
    }
    const radix d = radix_of(range);
    uint64_t *sorted = sort_keys(n, keys, &d, a, b, count), *spare = sorted == a ? b : a;
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && sorted[j] >> 32 == sorted[i] >> 32;) j++;
        if (j > i + 1) sort_run(&r, sorted + i, j - i, spare);
    }
    return sorted;
}
