/*
 * moe_gate.h - the gate's forward and backward over rows that are given a block at a time: for
 * scores that are there, and for those of a product.
 */
#ifndef SLG_HEAD_MOE_GATE_H
#define SLG_HEAD_MOE_GATE_H

#include "moe_common.h"

/* A gate over the rows of `score`, of which row 0 is row `first` of the other tensors. */
typedef struct gate_call {
    slg_ctx *ctx;
    slg_moe_gate_opts opts;
    int64_t experts;
    const double *bias;   /* [experts]; NULL: zeros */
    const float *bias_32; /* the same */
    bool noisy, has_dense, has_flag;
    rows score, noise, index, weight, dense, flag;
    float *scratch; /* per worker: gate_scratch floats */
    int64_t per_worker;
} gate_call;

slg_status gate_options(slg_ctx *ctx, const slg_moe_gate_opts *given, slg_moe_gate_opts *o);

/* Checks and takes in all but score, of which experts and rows are known. */
slg_status gate_open(gate_call *c, int64_t rows_count, const slg_tensor *bias,
                     const slg_tensor *noise, slg_tensor *index, slg_tensor *weight,
                     slg_tensor *dense, slg_tensor *flag);
/* Scratch, when all has been checked. */
slg_status gate_scratch(gate_call *c, const slg_tensor *bias);
void gate_run(gate_call *c);

/* dz of row r: its K entries to dz (of NaN weights NaN). */
void gate_slopes(int64_t chosen, const float *weight, const float *dweight, float *dz);

#endif
