/*
 * bandit_handle.h - the inside of an slg_bandit. bandit.c is its life and its rounds,
 * bandit_model.c what predicts, bandit_state.c what it tells and stores.
 */
#ifndef SLG_ONLINE_BANDIT_HANDLE_H
#define SLG_ONLINE_BANDIT_HANDLE_H

#include "bandit_parts.h"

/* What is counted; part of the state. */
typedef struct bandit_counters {
    int64_t rounds, draws, projections;
    double cost, loss;
} bandit_counters;

/* Streams of the seed. */
enum { STREAM_WEIGHTS, STREAM_OUTPUT, STREAM_SIGNS, STREAM_DRAWS };

struct slg_bandit {
    slg_ctx *ctx;
    slg_bandit_opts opts; /* step and gamma as they are used */
    int64_t arms, dim;
    int64_t size, block; /* weights; weights of an arm */
    signs signs;         /* count 0: not perturbed */
    double scale;        /* c_p / m^(1/4) */
    bandit_counters counters;
    bool shift_known;
    double *shift;         /* [count], of theta */
    double *f;             /* [arms], of the callbacks */
    float *theta, *theta0; /* [size] */
    float *next;           /* [size] where a step is made before anyone sees it */
    float *grad;           /* [block] */
    float *output;         /* [width] v, two layers */
};

slg_rng bandit_stream(const slg_bandit *b, int stream);

/* All of theta as a row. */
rows bandit_row(const slg_bandit *b, float *weights);

/* eta of the round that comes. */
double bandit_step(const slg_bandit *b);

/* Signs and outputs as the seed says. */
void bandit_seed(slg_bandit *b);

/* ---- bandit_model.c --------------------------------------------------------------------- */

/* Sets size and block: SLG_ERR_RANGE where there are too many. */
slg_status model_size(slg_bandit *b);

/* The first weights where the caller gives none. */
void model_start(slg_bandit *b);

/* f of all arms. Nothing of the arena lives through it. */
slg_status model_predict(slg_bandit *b, const char *op, const slg_tensor *x, double *f);

/* f of an arm, and its gradient to b->grad. The same. */
slg_status model_gradient(slg_bandit *b, const char *op, const slg_tensor *x, int64_t arm,
                          double *f);

#endif
