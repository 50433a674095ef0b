/*
 * solve.h - the inside of a solver: a handle, a method, and the regularised step.
 */
#ifndef SLG_SOLVER_SOLVE_H
#define SLG_SOLVER_SOLVE_H

#include "objective.h"

/* ---- Metric ----------------------------------------------------------------------------- */

typedef struct norm_metric {
    int32_t form; /* SLG_FORM_ZERO: the identity; _DIAGONAL; _DENSE */
    int64_t d;
    double *b;      /* [d] or [d, d], from ctx_alloc; NULL: the identity */
    double *factor; /* of a dense one: see blas_dpotrf */
} norm_metric;

slg_status metric_open(slg_ctx *ctx, const slg_tensor *t, int64_t d, norm_metric *m);
void metric_close(slg_ctx *ctx, norm_metric *m);

/* w = B^-1 g, *norm = sqrt(g'w); to and from huge and tiny g. */
slg_status metric_dual(slg_ctx *ctx, const norm_metric *m, const double *g, double *w,
                       double *norm);
double metric_norm(const norm_metric *m, const double *x);

/* ---- (H + lambda B) dx = -g ------------------------------------------------------------- */

typedef struct step_problem {
    slg_ctx *ctx;
    const char *op;
    int32_t form;
    double *h; /* [d, d] or [d]; dense: the upper triangle is read */
    double scale;
    slg_status (*product)(void *user, const double *v, double *hv);
    void *user;
    double tolerance;
    int64_t max_products;
    const norm_metric *b;
    const double *g, *w; /* w = B^-1 g */
    double *work;        /* d * step_work doubles, from ctx_alloc */
} step_problem;

int64_t step_work(int32_t form, const norm_metric *b);

/* SLG_ERR_RANGE where h holds NaN or an infinity. */
slg_status step_check(const step_problem *s);

/* *solved false: H + lambda B is not positive definite, or dx not finite. Inside of an op,
   which it leaves for products. */
slg_status step_solve(const step_problem *s, double lambda, double *dx, bool *solved,
                      int64_t *products);

/* ---- Handle ----------------------------------------------------------------------------- */

/* slg_solver_report is the numbers of the state; vectors are in one array, x and g first. */
typedef struct method {
    int32_t kind;
    /* Reads options, sets s->extra and whatever of the handle it needs. */
    slg_status (*open)(slg_solver *s, const void *opts);
    /* One accepted step, or report.reason says why not. */
    slg_status (*step)(slg_solver *s);
    /* |g| of x. */
    slg_status (*norm)(slg_solver *s);

    /* For those without an objective of the caller; the others leave them NULL. `open` sets
       s->d then. f and g at xt, as solver_try, inside of the op: */
    slg_status (*evaluate)(slg_solver *s, double *value);
    /* Why no step is left to be taken, or SLG_SOLVER_STEPPED; instead of |g|. */
    int32_t (*rest)(slg_solver *s);
    /* Frees s->own. */
    void (*close)(slg_solver *s);
} method;

extern const method method_normalized_newton, method_lbfgs;

struct slg_solver {
    slg_ctx *ctx;
    const method *m;
    const char *op;
    slg_objective objective;
    int64_t d, extra; /* doubles of state after x and g */
    void *own;        /* the method's */
    union {
        slg_normalized_newton_opts newton;
        slg_lbfgs_opts lbfgs;
    } opts;
    slg_solver_report report;
    double *state;                 /* x, g, extra */
    double *x, *g;                 /* [d] */
    double *dx, *w, *wt, *gt, *xt; /* [d]: the direction; B^-1 g, and of a trial; a trial */
    norm_metric metric;
    double *h, *work; /* curvature at x; scratch of step_solve */
};

/* slg_solver_create of a method; objective NULL where it needs none, x0 NULL: zeros there. */
slg_status solver_create(slg_ctx *ctx, const char *op, const method *m,
                         const slg_objective *objective, const slg_tensor *x0, const void *opts,
                         slg_solver **out);

/* f and g at xt, which may be a callback; counted. */
slg_status solver_try(slg_solver *s, double *value);

/* xt and gt become x and g. */
void solver_accept(slg_solver *s, double value);

double vector_dot(int64_t n, const double *x, const double *y);
bool vector_finite(int64_t n, const double *x);

#endif
