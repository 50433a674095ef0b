/*
 * margins.h - one pass over samples: their margins, what is summed over them, and a weighted
 * sum of the samples, which is a direction.
 */
#ifndef SLG_SOLVER_MARGINS_H
#define SLG_SOLVER_MARGINS_H

#include <math.h>
#include <stdbool.h>

#include "core/tensor.h"

typedef struct margin_data {
    rows a; /* [n, d]; d = 0: the n margins, before their signs */
    int64_t n, d, classes;
    const int32_t *y; /* [n]: signs where classes is 0, else labels; NULL: ones */
} margin_data;

/* Checks a [n, d] and y [n] and describes them, but for y's values: these margin_targets checks
   and converts. */
slg_status margin_data_read(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *y,
                            int64_t classes, margin_data *m);
slg_status margin_targets(slg_ctx *ctx, const slg_tensor *y, const margin_data *m, int32_t *to);

/* Rows of theta. */
static inline int64_t margin_outputs(const margin_data *m)
{
    return m->classes ? m->classes : 1;
}

typedef enum margin_weights {
    MARGIN_NONE,  /* no direction */
    MARGIN_SOFT,  /* q_i e^-ref */
    MARGIN_WRONG, /* 1 where the margin is not above 0 */
    MARGIN_EVEN   /* 1 */
} margin_weights;

typedef struct margin_query {
    const double *theta; /* [outputs, d] */
    margin_weights weights;
    int64_t first, count; /* samples */
    bool draw;            /* picks by random numbers from `number` on, one a sample */
    uint64_t seed, number;
    double *margins; /* [count]: m_i; NULL: not wanted */
} margin_query;

/* q_i = sigmoid(-m_i) is summed as numbers relative to e^ref, the largest -max(m_i, 0): which
   is 0 as soon as one margin is not above 0, and else no q_i but the small ones underflow. */
typedef struct margin_sums {
    double loss, least; /* sum of softplus(-m_i); smallest margin */
    double ref, sum;    /* sum q_i = sum e^ref; ref -inf: all m_i +inf, or none */
    int64_t wrong, nans;
    int64_t pick; /* one that is wrong; -1: none */
    uint64_t rank;
} margin_sums;

/* direction [outputs, d] = sum of weight times onehot(y_i) less the others' softmax (or less
   the first largest, for MARGIN_WRONG), times a_i; a sign instead where there are no classes.
   Samples of weight 0 are not looked at. Takes scratch of the context. */
slg_status margin_pass(slg_ctx *ctx, const margin_data *m, const margin_query *q,
                       margin_sums *sums, double *direction);

/* q e^-ref for e = exp(-|m|); NaN where m is. */
static inline double margin_weight(double m, double e, double ref)
{
    if (!(m > 0)) return 1 / (1 + e); /* ref is 0 */
    if (m == (double)INFINITY) return 0;
    return (ref == 0 ? e : exp(-m - ref)) / (1 + e);
}

/* -log of the mean of q. */
static inline double margin_log_beta(const margin_sums *s, int64_t n)
{
    if (n == 0) return 0;
    return s->nans ? (double)NAN : log((double)n / s->sum) - s->ref;
}

#endif
