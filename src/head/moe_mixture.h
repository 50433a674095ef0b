/*
 * moe_mixture.h - the inside of the Gaussian mixture of experts: parameters in double, and
 * blocks of rows with their scores, means, choices and responsibilities.
 */
#ifndef SLG_HEAD_MOE_MIXTURE_H
#define SLG_HEAD_MOE_MIXTURE_H

#include "moe_common.h"

enum { MIX_BLOCK = 1024, DT_REAL = DT_F32 | DT_F64 };

typedef struct mix_params {
    int64_t experts, dim, chosen;
    const double *beta1, *beta0, *a, *b, *log_v;
} mix_params;

/* Checks and takes in what is given. */
slg_status mixture_read(slg_ctx *ctx, const char *name, const slg_moe_mixture *given,
                        mix_params *m);

/* Of rows [first, first + count): [count, K] or [count]. NULL y: no loglik and r. */
typedef struct mix_rows {
    slg_ctx *ctx;
    const mix_params *m;
    const double *x, *y;
    int64_t count;
    double *score, *mu; /* [count, experts] */
    int32_t *index;     /* [count, K] */
    double *g, *log_g, *r;
    double *loglik; /* [count] */
} mix_rows;

/* Buffers for up to `most` rows. */
slg_status mix_alloc(slg_ctx *ctx, const mix_params *m, int64_t most, mix_rows *b);
/* Fills them in. */
slg_status mix_evaluate(mix_rows *b);

/* K largest of s, in decreasing order, of equal ones the first; NaN: the first K. */
void mix_choose(int64_t k, int64_t chosen, const double *s, int32_t *index);

/* Weighted least squares of one expert; weight [rows]. slg_moe_expert. */
typedef struct expert_fit {
    double *theta; /* [dim + 1]: a, b; kept where it says so */
    double variance;
} expert_fit;
slg_status expert_solve(slg_ctx *ctx, int64_t count, int64_t dim, const double *x,
                        const double *y, const double *weight, const slg_moe_em_opts *o,
                        expert_fit *fit, int32_t *kept);

extern const slg_moe_em_opts moe_em_defaults;
slg_status em_options(slg_ctx *ctx, const slg_moe_em_opts *given, slg_moe_em_opts *o);

/* One Newton step of the gate; r [rows, K] beside index, with beta [experts, dim + 1]: beta1
   and beta0 side by side, changed where the step is taken. */
slg_status em_gate_step(slg_ctx *ctx, int64_t count, const double *x, const mix_params *m,
                        const int32_t *index, const double *r, const slg_moe_em_opts *o,
                        double *beta);

#endif
