/*
 * log_barrier.c - see log_barrier.h.
 *
 * S(nu) = sum 1 / (gap + nu) is convex, but its reciprocal, a harmonic mean, is concave, and
 * straight where the gaps are equal. Newton's steps on 1 / S from the left of the root are
 * S times those on S, rise, and never pass it. They start at 1, where the largest p would be 1,
 * or at n - the mean gap, if that is more: the root is not below it, by Jensen.
 */
#include "log_barrier.h"

#include <math.h>

#include "softlogit/online.h"

/* Some five are needed. */
enum { MOST_STEPS = 200 };

double barrier_root(const kernel_table *k, int64_t n, const double *gap, double gap_sum,
                    double *total)
{
    const double count = (double)n;
    double nu = fmax(1, count - gap_sum / count), sums[2];
    for (int step = 0;; step++) {
        k->barrier_sums((size_t)n, gap, nu, sums);
        const double over = sums[0] - 1;
        const double next = fmin(count, nu + over * sums[0] / sums[1]);
        if (over <= 1e-12 || !(next > nu) || step == MOST_STEPS) break;
        nu = next;
    }
    *total = sums[0];
    return nu;
}

double barrier_gaps(int64_t n, double eta, const double *c, double *gap)
{
    double least = INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) least = fmin(least, c[i]);
    for (int64_t i = 0; i < n; i++) {
        gap[i] = isinf(c[i]) ? INFINITY : eta * (c[i] - least);
        sum += gap[i];
    }
    return sum;
}

double ftrl_distribution(const kernel_table *k, int32_t rule, int64_t n, const double *gap,
                         double gap_sum, double *p)
{
    double total = 0;
    if (rule == SLG_FTRL_LOG_BARRIER) {
        const double nu = barrier_root(k, n, gap, gap_sum, &total);
        for (int64_t i = 0; i < n; i++) p[i] = 1 / (total * (gap[i] + nu));
        return nu;
    }
    for (int64_t i = 0; i < n; i++) total += p[i] = exp(-gap[i]);
    for (int64_t i = 0; i < n; i++) p[i] /= total;
    return log(total);
}
