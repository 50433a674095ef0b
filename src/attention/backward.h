/*
 * backward.h - a call of the backward pass: backward_open.c checks it, backward.c runs it.
 */
#ifndef SLG_ATTENTION_BACKWARD_H
#define SLG_ATTENTION_BACKWARD_H

#include "tile.h"

typedef struct backward_run {
    attention a;
    heads_view o, dout;
    rows lse, dlse;               /* dlse.data NULL: none */
    heads_view dq, dk, dv, dbias; /* rows.data NULL: not wanted */
    bool dq_wanted;               /* dq or the scale's gradient */

    int64_t chunk;                       /* keys of one */
    int64_t parts;                       /* chunk i goes to the sum i % parts */
    int64_t sequence_units, group_units; /* tasks over sequences and key heads */

    float *lse_rows, *delta; /* [batch, heads, T] */
    float *dq_parts;     /* [parts, batch, heads, T, dim]; NULL: sums are kept in dq itself */
    double *sink_parts;  /* a tile of queries each; NULL: not wanted */
    double *scale_parts; /* [parts, sequences, heads]; NULL: not wanted */
    float *scratch;
    size_t per_worker; /* floats */
} backward_run;

/* Zeroes what no task will write. */
void backward_clear(const backward_run *r);

slg_status backward_run_all(backward_run *r, const slg_attention_grad *grad);

#endif
