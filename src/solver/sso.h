/*
 * sso.h - the inside of a driver of surrogate steps: sso.c takes outer steps, sso_inner.c inner
 * ones.
 */
#ifndef SLG_SOLVER_SSO_H
#define SLG_SOLVER_SSO_H

#include "objective.h"
#include "target_rows.h"

struct slg_sso {
    slg_ctx *ctx;
    slg_target_model model;
    slg_target_oracle oracle;
    slg_sso_opts opts;
    slg_armijo_opts search, inner;
    slg_sso_report report; /* counters, state of the schedule, and the step's numbers */
    int64_t batch;         /* rows of a batch, at most */
    int64_t *items;        /* [rows]: an order, and [batch]: a batch that was drawn */
    int64_t epoch;         /* whose order items holds; -1: 0, 1, .. */
    float *g, *from, *z;   /* [batch, targets]: G, Z_t, and scratch */
    float *start, *d, *to; /* [dim]: w_t, a gradient, scratch */
};

/* Callbacks, outside of the op, counted. */
slg_status sso_forward(slg_sso *s, const float *w, float *z);
slg_status sso_backward(slg_sso *s, const float *w, const float *dz, float *dw);
slg_status sso_tangent(slg_sso *s, const float *dw, float *dz);

/* G, Z_t, eta and batch are set; z, d and to are scratch. Sets reason and the numbers of the
   inner loop; w is to be put back where reason is SLG_SSO_NOT_FINITE. */
slg_status sso_inner(slg_sso *s, float *w);

#endif
