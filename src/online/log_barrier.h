/*
 * log_barrier.h - the distribution that FTRL plays with the log barrier: p = 1 / (gap + nu).
 */
#ifndef SLG_ONLINE_LOG_BARRIER_H
#define SLG_ONLINE_LOG_BARRIER_H

#include "core/ctx.h"

/*
 * The nu at which 1 / (gap[i] + nu) sum to 1, from 1 to n, within 1e-12 of the sum; *total: the
 * sum at nu, by which p is to be divided. The least gap is 0, others may be +inf; gap_sum is
 * their sum; n >= 1.
 */
double barrier_root(const kernel_table *k, int64_t n, const double *gap, double gap_sum,
                    double *total);

/* gap[i] = eta (c[i] - min c), +inf where c is, whatever eta; returns their sum. Some c is
   finite. */
double barrier_gaps(int64_t n, double eta, const double *c, double *gap);

/* p of slg_ftrl_rule from gaps, in double; p may be gap. Returns nu. */
double ftrl_distribution(const kernel_table *k, int32_t rule, int64_t n, const double *gap,
                         double gap_sum, double *p);

#endif
