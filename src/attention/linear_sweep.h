/*
 * linear_sweep.h - linear attention by chunks, from either end: what forward and the three
 * gradients are.
 *
 *     o_t = S' q_t,   S = init + the sum of k_s v_s' over the s that t sees
 */
#ifndef SLG_ATTENTION_LINEAR_SWEEP_H
#define SLG_ATTENTION_LINEAR_SWEEP_H

#include "core/tensor.h"
#include "softlogit/linear_attention.h"

/* [.., tokens, dim], heads and whatever is before them as one axis. rows.data NULL: none. */
typedef struct linear_view {
    rows rows;
    int64_t tokens, dim;
    ptrdiff_t step; /* elements from a token to the next */
} linear_view;

/* [.., d, e]. turned: it is read, or written, as its transpose. */
typedef struct linear_state {
    rows rows; /* data NULL: zeros, or not wanted */
    bool turned;
} linear_state;

typedef struct linear_sweep {
    linear_view q, k, v, o;
    linear_state init, final;
    bool reverse; /* tokens see those after them */
} linear_sweep;

enum { LINEAR_SWEEPS = 3 };

typedef struct linear_job {
    slg_ctx *ctx;
    int32_t form;
    int64_t heads, tokens, chunk;
    int64_t sweeps;
    linear_sweep sweep[LINEAR_SWEEPS];
    /* linear_run's own: */
    int64_t chunks, segments;
    double *states[LINEAR_SWEEPS]; /* [heads, segments, k.dim, v.dim] where segments are summed
                                      first */
    char *scratch;
    size_t worker_bytes;
} linear_job;

/* From 3 or 4 axes; t NULL: none. */
linear_view linear_view_of(const slg_tensor *t);

/* Whether sums of segments come first. */
bool linear_in_phases(const linear_job *job);

slg_status linear_run(linear_job *job);

#endif
