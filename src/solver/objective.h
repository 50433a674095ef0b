/*
 * objective.h - what the built-in objectives share: data as doubles, and a Hessian that is
 * a weighted square of rows.
 */
#ifndef SLG_SOLVER_OBJECTIVE_H
#define SLG_SOLVER_OBJECTIVE_H

#include <stdbool.h>

#include "core/tensor.h"
#include "softlogit/solver.h"

#include "row_pass.h"

/* dim numbers of a tensor of any shape, f32 or f64, in row-major order. */
slg_status flat_check(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t dim,
                      bool out);
void flat_read(const slg_tensor *t, double *to);
void flat_write(const slg_tensor *to, const double *from); /* to NULL: nothing */

/* ctx_alloc of count * each + more doubles; NULL where that overflows, too. */
double *doubles_alloc(slg_ctx *ctx, int64_t count, int64_t each, int64_t more);

/* ---- Built-in objectives ---------------------------------------------------------------- */

/* `outside`: forward, curve and multiply are not run inside of an op. multiply's x and which
   are those of the last curve. */
typedef struct objective_kind {
    const char *op; /* the function that makes one */
    size_t size;
    bool outside;
    /* Fills in what `is` lacks, and the rest, of zeros; release copes with what it left. */
    slg_status (*open)(void *m, const void *args);
    void (*release)(void *m);
    slg_status (*forward)(void *m, const double *x, double *value, double *grad);
    slg_status (*curve)(void *m, const double *x, int32_t which, int32_t form, double *scale,
                        double *h);
    slg_status (*multiply)(void *m, const double *x, int32_t which, const double *v,
                           double *hv);
} objective_kind;

/* What each begins with. */
typedef struct built_in {
    slg_ctx *ctx;
    const objective_kind *kind;
    int64_t dim;
    double noise; /* of slg_objective */
} built_in;

/* The whole of a public function that makes one. */
slg_status objective_make(slg_ctx *ctx, const objective_kind *kind, const void *args,
                          slg_objective *o);

slg_status objective_read(slg_ctx *ctx, const slg_objective *given, slg_objective *o);

slg_status curvature_unsupported(slg_ctx *ctx, int32_t which, int32_t form);

/*
 * H = sum_i w_i (a_i - mean)(a_i - mean)' + extra_scale extra extra' + ridge I, where the ridge
 * leaves out the last variable where `intercept`. sum_i w_i (a_i - mean) = 0 where mean is not
 * NULL. w may be negative.
 */
typedef struct row_curvature {
    slg_ctx *ctx;
    const row_data *a;
    double *w;                  /* [n] */
    const double *mean, *extra; /* [d]; NULL: none */
    double extra_scale, ridge;
    bool intercept, single; /* single: products in float32 */
} row_curvature;

/* Dense, diagonal, or nothing for products. Inside of an op: takes scratch. */
slg_status row_curvature_form(const row_curvature *c, int32_t form, double *h);
slg_status row_curvature_product(const row_curvature *c, const double *v, double *hv);

/* ---- Options of the logistic objectives ------------------------------------------------- */

/* Checks them, and copies the data as they say. */
slg_status logistic_open(built_in *is, const slg_logistic_opts *given, const char *name,
                         const slg_tensor *t, slg_logistic_opts *opts, row_data *data);

/* Of x [count, width]: the ridge's term, and its gradient added. */
double ridge_value(const slg_logistic_opts *o, int64_t width, int64_t count, const double *x);
void ridge_add(const slg_logistic_opts *o, int64_t width, int64_t count, const double *x,
               double *grad);

/* Index of the ridge's variables: all but every width-th where there is an intercept. */
static inline bool has_ridge(int64_t i, int64_t width, bool intercept)
{
    return !intercept || (i + 1) % width != 0;
}

#endif
