/*
 * bandit_parts.h - what bandits are made of: weighing of arms, random signs that are never
 * stored, the loss at a point, the ball. Each is a function of bandit.h by itself, too.
 */
#ifndef SLG_ONLINE_BANDIT_PARTS_H
#define SLG_ONLINE_BANDIT_PARTS_H

#include "core/tensor.h"
#include "softlogit/bandit.h"

/* Bounds of options that are > 0. */
#define BANDIT_LEAST 1e-18
#define BANDIT_MOST 1e18

enum { SIGNS_MOST = 1 << 16 };

/* Row r of costs -> p (NULL: not wanted), and the arm at u; costs as slg_inverse_gap checks
   them. */
int64_t gap_draw(int32_t rule, double gamma, const rows *costs, int64_t r, double u,
                 const rows *p);

/* slg_inverse_gap_gamma inside of another function. */
slg_status gap_gamma(slg_ctx *ctx, int32_t rule, int64_t arms, double horizon, double regret,
                     double delta, double *gamma);

/* ---- signs.c ---------------------------------------------------------------------------- */

/* `count` vectors of `size` signs, of rng (see slg_perturbed_loss) or given. */
typedef struct signs {
    int64_t count, size;
    bool given;
    rows epsilon;
    slg_rng rng;
} signs;

/* sum[s] = <x - y, eps_s>; x and y have one row. */
slg_status signs_dot(slg_ctx *ctx, const signs *e, const rows *x, const rows *y, double *sum);

/* y[i] += sum over s of a[s] eps_s[first + i]; n <= KERNEL_BLOCK, first a multiple of it. */
void signs_add(const kernel_table *k, const signs *e, const double *a, int64_t first, int64_t n,
               double *y);

/* A prediction, its loss, and the loss's slope in f. */
typedef struct regress_point {
    double prediction, loss, slope;
} regress_point;

regress_point regress_at(int32_t rule, double f, double y);

/* ---- project_ball.c --------------------------------------------------------------------- */

/* |t - c|; c NULL: zeros. SLG_ERR_RANGE where something is not finite. */
slg_status ball_distance(slg_ctx *ctx, const rows *t, const rows *c, double *distance);

/* Moves t, which is `distance` away, to `radius` from c. */
void ball_pull(slg_ctx *ctx, const rows *t, const rows *c, double radius, double distance);

#endif
