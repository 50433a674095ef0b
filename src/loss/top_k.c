/*
 * top_k.c - see top_k.h. No class is moved but those that may be of the top: a sample of the
 * row tells a value that a few more than k exceed; these are packed; and the value that k of
 * them exceed is found by counting, by bisection over the floats between.
 */
#include "top_k.h"

#include <string.h>

/* Floats of the sample, in pieces that the row has at equal distances. */
enum { SAMPLE = 1024, PIECE = 16, LEAST_COLS = 8 * SAMPLE };

/* Floats in their order as whole numbers, and back. */
static int64_t key_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 31 ? -(int64_t)(bits & INT32_MAX) - 1 : (int64_t)bits;
}

static float float_of(int64_t key)
{
    uint32_t bits = key < 0 ? (uint32_t)(-key - 1) | 1u << 31 : (uint32_t)key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Two neighbours, of which more than k of x exceed low, and fewer than k high; or one value,
   which k exceed. */
typedef struct bracket {
    float low, high;
    int64_t above_low, above_high;
} bracket;

/* Where the k-th largest of x lies, for more than k that exceed low. */
static bracket bisect(const kernel_table *kernels, int64_t n, const float *x, int64_t k,
                      float low)
{
    float max = kernels->max((size_t)n, x);
    bracket b = { low, max, n, 0 };
    int64_t from = key_of(low), to = key_of(max);
    for (int step = 0; to - from > 1; step++) {
        int64_t mid = from + (to - from) / 2;
        if (step % 2) { /* as if values lay evenly */
            double share = (double)(b.above_low - k) / (double)(b.above_low - b.above_high);
            mid = from + 1 + (int64_t)((double)(to - from - 2) * share);
        }
        float limit = float_of(mid);
        int64_t count = kernels->count((size_t)n, x, limit);
        if (count == k) return (bracket){ limit, limit, k, k };
        if (count > k)
            from = mid, b.low = limit, b.above_low = count;
        else
            to = mid, b.high = limit, b.above_high = count;
    }
    return b;
}

/* A value that more than k of x exceed, but not many more: most likely. */
static float guess(const kernel_table *kernels, int64_t cols, const float *x, int64_t k)
{
    if (cols < LEAST_COLS) return -INFINITY;
    float sample[SAMPLE];
    const int64_t pieces = SAMPLE / PIECE;
    for (int64_t i = 0; i < pieces; i++)
        memcpy(sample + i * PIECE, x + i * (cols - PIECE) / (pieces - 1), PIECE * sizeof *x);
    double mean = (double)k * SAMPLE / (double)cols, rank = mean + 4 * sqrt(mean) + 4;
    if (rank > 0.9 * SAMPLE) return -INFINITY;
    int64_t live = kernels->count(SAMPLE, sample, -INFINITY);
    if (live <= (int64_t)rank) return -INFINITY;
    return bisect(kernels, SAMPLE, sample, (int64_t)rank, -INFINITY).low;
}

/* One past the place of the n-th class of this value. */
static int64_t end_of(const kernel_table *kernels, int64_t cols, const float *x, float value,
                      int64_t n)
{
    int64_t at = 0;
    while (n-- > 0) at += kernels->find((size_t)(cols - at), x + at, value) + 1;
    return at;
}

int64_t top_values(const kernel_table *kernels, int64_t cols, const float *x, int64_t k,
                   float *top, top_cut *cut)
{
    *cut = (top_cut){ INFINITY, 0 };
    if (k <= 0) return 0;
    float low = guess(kernels, cols, x, k);
    int64_t n = kernels->above((size_t)cols, x, low, top);
    if (n < k && low > -INFINITY) {
        low = -INFINITY;
        n = kernels->above((size_t)cols, x, low, top);
    }
    if (n <= k) {
        *cut = (top_cut){ low, 0 };
        return n;
    }
    bracket b = bisect(kernels, n, top, k, low);
    int64_t found = kernels->above((size_t)n, top, b.high, top);
    *cut = (top_cut){ b.high, found == k ? 0 : end_of(kernels, cols, x, b.high, k - found) };
    while (found < k) top[found++] = b.high;
    return found;
}

group group_from(const loss_row *r, double sum, float ref, double dot)
{
    const row_stat *rest = &r->rest;
    if (!(sum > 0)) return (group){ 0, 0, 0 };
    double log_sum = log(sum) + (double)ref * rest->arg.unit;
    double at_shift = ((double)rest->arg.pre - (double)rest->part.max) / r->temperature;
    double below = -dot / sum / r->temperature; /* mean of (max - x) / T, >= 0 */
    group g = { exp(log_sum - rest->lse_rel) * r->other, 0, log_sum + at_shift + below };
    g.entropy = g.mass * (top_softplus(-r->log_odds) + rest->lse_rel + at_shift + below);
    if (g.own_entropy < 0) g.own_entropy = 0;
    return g;
}

group group_of(const loss_call *call, const loss_row *r, int64_t n, const float *x)
{
    lse_part part = LSE_EMPTY;
    double dot[2] = { 0, 0 };
    const row_stat *rest = &r->rest;
    if (rest->kind != ROW_PLAIN || n == 0) return (group){ 0, 0, 0 };
    call->ctx->k.lse_dot((size_t)n, x, NULL, rest->part.max, &rest->arg, &part, dot);
    return group_from(r, part.sum, part.ref, dot[0]);
}
