/*
 * ordinal_solve.h - a fit of ordinal regression that goes on from lambda to lambda.
 */
#ifndef SLG_SOLVER_ORDINAL_SOLVE_H
#define SLG_SOLVER_ORDINAL_SOLVE_H

#include "ordinal_model.h"

typedef struct ordinal_fit {
    ordinal_model *m;
    const char *op;
    slg_ordinal_opts opts;
    const double *factor; /* [p] */
    double *memory;
    double *theta;       /* [m, q] */
    double *trial, *eta; /* of a step: [m, q], [n, m] */
    double *g, *r;       /* gradient at theta; that of the model at trial */
    double *weight;      /* of the penalty by lambda; +inf: the coefficient stays 0 */
    slg_solver_report report;
} ordinal_fit;

/* Checks, with p features; factor gets ones, or penalty_factor's copy, from ctx_alloc. */
slg_status ordinal_options(slg_ctx *ctx, const slg_ordinal_opts *given, slg_ordinal_opts *opts);
slg_status ordinal_factors(slg_ctx *ctx, const slg_ordinal_opts *opts, int64_t p,
                           double **factor);
slg_status ordinal_lambda_check(slg_ctx *ctx, const char *name, double lambda);

/* Standardises m where wanted, and starts at its class frequencies. */
slg_status ordinal_fit_open(ordinal_fit *f, ordinal_model *m, const char *op,
                            const slg_ordinal_opts *opts, const double *factor);
void ordinal_fit_close(ordinal_fit *f);

/* From theta to the minimum at lambda; f->report says how it ended. Ends and begins the op
   around callbacks. */
slg_status ordinal_fit_run(ordinal_fit *f, double lambda);

/* The largest |gradient| by weight after a fit at lambda = inf. */
double ordinal_fit_entry(ordinal_fit *f);

/* alpha [m] and beta [m, p] on the scale of x; psi that are not 0. */
void ordinal_fit_result(const ordinal_fit *f, double *alpha, double *beta);
int64_t ordinal_fit_nonzero(const ordinal_fit *f);

#endif
