/*
 * objective.h - what the built-in objectives share: data as doubles, and a Hessian that is
 * a weighted square of rows.
 */
#ifndef SLG_SOLVER_OBJECTIVE_H
#define SLG_SOLVER_OBJECTIVE_H

#include <stdbool.h>

#include "core/tensor.h"
#include "softlogit/solver.h"

/* dim numbers of a tensor of any shape, f32 or f64, in row-major order. */
slg_status flat_check(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t dim,
                      bool out);
void flat_read(const slg_tensor *t, double *to);
void flat_write(const slg_tensor *to, const double *from); /* to NULL: nothing */

/* ctx_alloc of count * each + more doubles; NULL where that overflows, too. */
double *doubles_alloc(slg_ctx *ctx, int64_t count, int64_t each, int64_t more);

/* A checked copy of t [n, d] as doubles, from ctx_alloc, with a column of ones after it where
   `ones`. */
slg_status matrix_copy(slg_ctx *ctx, const char *name, const slg_tensor *t, bool ones,
                       double **to, int64_t *n, int64_t *d);

/* Checks the options of the logistic objectives. */
slg_status logistic_options(slg_ctx *ctx, const slg_logistic_opts *given,
                            slg_logistic_opts *opts);

/* Checks o, then fills it in. */
slg_status objective_check(slg_ctx *ctx, const slg_objective *o);
slg_status objective_read(slg_ctx *ctx, const slg_objective *given, slg_objective *o);
void objective_write(slg_objective *given, const slg_objective *o);

slg_status curvature_unsupported(slg_ctx *ctx, int32_t which, int32_t form);

/*
 * H = sum_i w_i (a_i - mean)(a_i - mean)' + extra_scale extra extra' + ridge I, where the ridge
 * leaves out the last variable where `intercept`. sum_i w_i (a_i - mean) = 0 where mean is not
 * NULL, w >= 0.
 */
typedef struct row_curvature {
    slg_ctx *ctx;
    int64_t n, d;
    const double *a;            /* [n, d] */
    double *w;                  /* [n] */
    const double *mean, *extra; /* [d]; NULL: none */
    double extra_scale, ridge;
    bool intercept;
} row_curvature;

/* Dense, diagonal, or nothing for products. Inside of an op: takes scratch. */
slg_status row_curvature_form(const row_curvature *c, int32_t form, double *h);
slg_status row_curvature_product(const row_curvature *c, const double *v, double *hv);

/* Index of the ridge's variables: all but every width-th where there is an intercept. */
static inline bool has_ridge(int64_t i, int64_t width, bool intercept)
{
    return !intercept || (i + 1) % width != 0;
}

#endif
