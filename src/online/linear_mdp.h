/*
 * linear_mdp.h - estimates from linear features, on doubles: what the functions of mdp.h and
 * its policy share.
 */
#ifndef SLG_ONLINE_LINEAR_MDP_H
#define SLG_ONLINE_LINEAR_MDP_H

#include "core/tensor.h"
#include "softlogit/mdp.h"

/* Features, or numbers of a table, of any type and strides. */
enum { DT_FEATURE = DT_ROW | DT_F64, DT_REAL = DT_F32 | DT_F64 };

/* All of a checked tensor, in row-major order, in the arena; NULL (the message is set) where
   memory is out. */
double *tensor_doubles(slg_ctx *ctx, const slg_tensor *t);

/* Writes n numbers to an output of that size; to NULL: nothing. */
void doubles_write(const slg_tensor *to, const double *from);

/* A handful of checks in one: NULL is refused too. Shape of ndim extents. */
slg_status input_of(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                    int32_t ndim, const int64_t *shape);
slg_status output_of(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                     int32_t ndim, const int64_t *shape);

/* SLG_ERR_SHAPE unless d is from 1 to what LAPACK is asked for. */
slg_status check_dim(slg_ctx *ctx, int64_t d);

/* Weights [count] that must be finite and >= 0, divided by their sum where `normalise` and it
   is not 0; the name says whose row it is in messages. */
slg_status weigh(slg_ctx *ctx, const char *name, int64_t count, bool normalise, double *w);

/* sigma [d, d] = sum of w[i] times the square of row first + i, over count rows; w NULL: each
   1 / count where normalise, else 1. SLG_ERR_RANGE where it is not finite. */
slg_status covariance(slg_ctx *ctx, const rows *phi, int64_t first, int64_t count,
                      const double *w, bool normalise, double *sigma);

/* inverse = (gamma I + sigma)^-1 */
slg_status covariance_inverse(slg_ctx *ctx, int64_t d, double gamma, const double *sigma,
                              double *inverse);

/* See slg_linear_q. Row i of phi is first + i. Outputs [n], NULL: not wanted. */
typedef struct q_problem {
    const rows *phi;
    int64_t first, n, d, m;
    const double *visited; /* [d]; NULL: plain and reduced are not wanted */
    const double *inverse;
    const double *samples; /* [m, d] */
    const double *weight;  /* [m]; NULL: 1 / m each */
    double loss, horizon;
    double *plain, *offset, *reduced, *width;
} q_problem;
slg_status linear_estimates(slg_ctx *ctx, const q_problem *q);

/* b[i] = beta (width[i] + sum of policy width over the actions of the state), for n = states *
   actions; b may be width. */
void bonus_from_widths(int64_t states, int64_t actions, double beta, const double *policy,
                       const double *width, double *b);

/* ---- Tables: tables.c ------------------------------------------------------------------- */

typedef struct table_shape {
    int64_t layers, states, actions;
} table_shape;

/* Fails where H S A, or a transition, would overflow. */
slg_status table_check(slg_ctx *ctx, const table_shape *t);

/* transition may be NULL where there is one layer. */
slg_status transition_check(slg_ctx *ctx, const table_shape *t, const slg_tensor *transition);

/* total may be bonus. value [H, S] */
slg_status dilate(slg_ctx *ctx, const table_shape *t, const double *bonus,
                  const slg_tensor *transition, const double *policy, double factor,
                  double *total, double *value);

/* start [S]; NULL: state 0. */
slg_status occupy(slg_ctx *ctx, const table_shape *t, const slg_tensor *transition,
                  const double *policy, const double *start, double *occupancy);

/* ---- Simulation: simulate.c ------------------------------------------------------------- */

/* Plays one trajectory outside of the operation `op`, which must hold nothing in the arena.
   draws > 0; the generator starts at `offset`. */
slg_status play_trajectory(slg_ctx *ctx, const char *op, slg_trajectory_fn fn, void *user,
                           int64_t episode, int64_t trajectory, uint64_t seed, uint64_t offset,
                           int64_t draws, double *visited, double *losses);

/* draws as the caller gave it: 0 becomes 2^32; SLG_ERR_RANGE where it is negative. */
slg_status read_draws(slg_ctx *ctx, int64_t *draws);

#endif
