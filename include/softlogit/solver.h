/*
 * solver.h - objectives and what minimises them. An objective is a struct of callbacks: value
 * and gradient, and where asked curvature. A solver sees that struct alone; built-in objectives
 * fill it in. Everything here computes in double, but for SLG_PRECISION_SINGLE.
 */
#ifndef SOFTLOGIT_SOLVER_H
#define SOFTLOGIT_SOLVER_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Objectives ------------------------------------------------------------------------- */

/* Which matrix stands for the Hessian. What an objective has is said at each. */
enum slg_curvature {
    SLG_HESSIAN = 0,
    SLG_GAUSS_NEWTON = 1,
    SLG_FISHER = 2 /* the empirical one: mean of gradients' outer products */
};

/* In which form it is asked for. */
enum slg_curvature_form {
    SLG_FORM_ZERO = 0,     /* H = 0: a gradient method */
    SLG_FORM_DENSE = 1,    /* [dim, dim], symmetric */
    SLG_FORM_DIAGONAL = 2, /* [dim]: its diagonal */
    SLG_FORM_RANK_ONE = 3, /* scale u u', u [dim] */
    SLG_FORM_PRODUCT = 4   /* v -> H v; solved by conjugate gradients */
};

/*
 * A function of dim numbers to be minimised. Callbacks return 0, or a code that ends what asked
 * for it and is handed on; they run on the caller's thread and may use any context, the
 * solver's too.
 *
 *   value      *value = f(x), grad [dim] its gradient; grad NULL: not wanted. Values that are
 *              not finite are allowed: a solver takes a shorter step then.
 *   curvature  NULL: none. h as the form says; scale for SLG_FORM_RANK_ONE alone. With
 *              SLG_FORM_PRODUCT h is NULL, and products at x follow. SLG_ERR_UNSUPPORTED where
 *              there is no such matrix or form.
 *   product    NULL: none. hv = H v at the x of the last curvature(SLG_FORM_PRODUCT).
 *   free       NULL, or frees user; slg_objective_free calls it.
 */
typedef struct slg_objective {
    uint32_t size;    /* sizeof(slg_objective), set by slg_objective_init */
    int32_t reserved; /* 0 */
    int64_t dim;      /* >= 1 */
    void *user;
    slg_status (*value)(void *user, const double *x, double *value, double *grad);
    slg_status (*curvature)(void *user, const double *x, int32_t which, int32_t form,
                            double *scale, double *h);
    slg_status (*product)(void *user, const double *x, int32_t which, const double *v,
                          double *hv);
    void (*free)(void *user);
    double noise; /* rounding of values, relative, in [0, 1): a solver that sees no more
                     decrease than that looks at gradients alone; 0: that of double, 1e-14 */
} slg_objective;

SLG_API void slg_objective_init(slg_objective *objective, size_t size);

/* Frees what a built-in objective holds and makes it empty. NULL is allowed. The context that
   made it must still be there. */
SLG_API void slg_objective_free(slg_objective *objective);

/*
 * Log-sum-exp: with z = (A x - b) / mu, p = softmax(z),
 *
 *     f = mu logsumexp(z),  grad = A'p
 *     SLG_HESSIAN = (A' diag(p) A - grad grad') / mu,  SLG_GAUSS_NEWTON = A' diag(p) A / mu
 *
 *   a   in   [m, d]  f32, f64, bf16, f16; m, d >= 1. Copied: f64 as that, the others as f32
 *   b   in   [m]     as a; NULL: zeros
 *   mu  in   > 0
 *   o   out  its dim is d
 *
 * Forms: dense, diagonal, product. The Hessian is that of rows less grad, so equal rows make
 * it 0. Cost: a value and gradient, and a product, read A once, for 4 m d operations; O(m d^2)
 * for the dense one. Memory 4 m d or 8 m d bytes, as A is kept, and up to two cache lines a
 * row; workspace up to 32 gradients, and O(m) for products. The same bits for any number of
 * threads.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE (m or d = 0 too), SLG_ERR_DTYPE, SLG_ERR_RANGE (mu),
 * SLG_ERR_OPTIONS (o->size), SLG_ERR_MEMORY; *o is untouched then. Since 0.1.
 */
SLG_API slg_status slg_logsumexp_objective(slg_ctx *ctx, const slg_tensor *a,
                                           const slg_tensor *b, double mu, slg_objective *o);

/* In what the products with the data are computed, which is nearly all of an evaluation. */
enum slg_precision {
    SLG_PRECISION_DOUBLE = 0,
    /* float32, added up in double over blocks of rows; data are kept as float32. Two thirds of
       the time. Gradients are exact to some 1e-7 of the mean size of their terms, values to
       2^-24. */
    SLG_PRECISION_SINGLE = 1
};

/* Options of slg_logistic_objective and slg_multinomial_objective. */
typedef struct slg_logistic_opts {
    uint32_t size;       /* sizeof(slg_logistic_opts), set by slg_logistic_opts_init */
    int32_t intercept;   /* default 0; 1: a further feature that is 1, the last one of x (of
                            each class), which the ridge leaves out */
    double ridge;        /* >= 0; default 0: adds ridge / 2 |x|^2 */
    int64_t dense_limit; /* most numbers of x for which a dense matrix is made; default 4096 */
    int32_t precision;   /* slg_precision; default SLG_PRECISION_DOUBLE */
    int32_t reserved;    /* 0 */
} slg_logistic_opts;

SLG_API void slg_logistic_opts_init(slg_logistic_opts *opts, size_t size);

/*
 * Binary logistic regression: with t = y (A x), q = sigmoid(-t),
 *
 *     f = mean softplus(-t) + ridge / 2 |x|^2,  grad = -mean q y a + ridge x
 *     SLG_HESSIAN = SLG_GAUSS_NEWTON = mean q (1 - q) a a' + ridge I
 *     SLG_FISHER = mean q^2 a a' + ridge I
 *
 *   a     in   [n, d]  f32, f64, bf16, f16; n, d >= 1. Copied: f64 as that, the others as f32
 *   y     in   [n]     i32, i64, f32, f64: -1 or 1
 *   opts  in   NULL: the defaults
 *   o     out  its dim is d, or d + 1 with an intercept
 *
 * Forms: dense, diagonal, product. 1 - q is sigmoid(t), so neither loses digits far out. Cost
 * and memory as slg_logsumexp_objective. scikit-learn's C is 1 / (n ridge).
 *
 * Errors: as there; SLG_ERR_RANGE for y or an option, too. Since 0.1.
 */
SLG_API slg_status slg_logistic_objective(slg_ctx *ctx, const slg_tensor *a,
                                          const slg_tensor *y, const slg_logistic_opts *opts,
                                          slg_objective *o);

/*
 * Multinomial logistic regression: x is W [classes, d], row by row; P = softmax of the rows of
 * X W', R = P - onehot,
 *
 *     f = mean (logsumexp(z_i) - z_i[label_i]) + ridge / 2 |W|^2,  grad = R'X / n + ridge W
 *     SLG_HESSIAN = SLG_GAUSS_NEWTON = mean (diag(p_i) - p_i p_i') kron x_i x_i' + ridge I
 *     SLG_FISHER = mean (r_i r_i') kron x_i x_i' + ridge I
 *
 *   x        in   [n, d]  f32, f64, bf16, f16; n, d >= 1. Copied: f64 as that, the others as
 *                         f32
 *   labels   in   [n]     i32, i64: from 0 below classes
 *   classes  in   >= 1
 *   opts     in   NULL: the defaults
 *   o        out  its dim is classes * d, or classes * (d + 1) with an intercept
 *
 * Forms: dense (up to opts->dense_limit), diagonal, product: no matrix. One class: f = 0 but
 * for the ridge. A value and gradient, and a product, read X once, for 4 n d classes
 * operations. Memory 4 n d or 8 n d bytes, as X is kept, and up to two cache lines a row; 16 n
 * classes for products and matrices; workspace up to 32 gradients, no more than n d numbers.
 * The same bits for any number of threads.
 *
 * Errors: as slg_logsumexp_objective; SLG_ERR_RANGE for a label, classes or an option. Since
 * 0.1.
 */
SLG_API slg_status slg_multinomial_objective(slg_ctx *ctx, const slg_tensor *x,
                                             const slg_tensor *labels, int64_t classes,
                                             const slg_logistic_opts *opts, slg_objective *o);

/*
 * u(x) of rows numbers for dim: fills u [rows] and, where not NULL, its Jacobian j [rows,
 * dim].
 */
typedef struct slg_residuals {
    uint32_t size;    /* sizeof(slg_residuals) */
    int32_t reserved; /* 0 */
    int64_t rows, dim;
    void *user;
    slg_status (*fn)(void *user, const double *x, double *u, double *j);
} slg_residuals;

/*
 * Power of residuals: f = 1/p |u(x)|^p,  grad = |u|^(p-2) J'u
 *
 *     SLG_GAUSS_NEWTON = |u|^(p-2) J'J + (p-2) |u|^(p-4) (J'u)(J'u)'
 *     SLG_FISHER = (p-2) / |u|^p grad grad'
 *
 *   u      in   not NULL; copied
 *   power  in   p >= 2
 *   o      out  its dim is u->dim
 *
 * Gauss-Newton is the Hessian where u is linear (SLG_HESSIAN is unsupported). At u = 0 it
 * is J'J for p = 2, else 0. Forms: dense, diagonal, product; SLG_FISHER: rank-one as well.
 * Memory 8 rows dim bytes, for J.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS, SLG_ERR_RANGE (rows, dim, power), SLG_ERR_MEMORY.
 * Since 0.1.
 */
SLG_API slg_status slg_power_objective(slg_ctx *ctx, const slg_residuals *u, double power,
                                       slg_objective *o);

/*
 * slg_softmax_regression's value of x, with its hessian (SLG_HESSIAN, which may be indefinite)
 * and gauss_newton (SLG_GAUSS_NEWTON). Forms: dense, diagonal, product.
 *
 *   a, b, w  in   as there, bf16 and f16 too; w may be NULL. Copied, as double
 *   o        out  its dim is d; d >= 1
 *
 * Errors: as slg_logsumexp_objective. Since 0.1.
 */
SLG_API slg_status slg_softmax_regression_objective(slg_ctx *ctx, const slg_tensor *a,
                                                    const slg_tensor *b, const slg_tensor *w,
                                                    slg_objective *o);

/* What slg_objective_evaluate returns. Tensors are f32 or f64, written where not NULL. */
typedef struct slg_objective_out {
    uint32_t size;        /* sizeof(slg_objective_out), set by slg_objective_out_init */
    int32_t which;        /* in: slg_curvature of the following; default SLG_HESSIAN */
    slg_tensor *grad;     /* [dim], or any shape of dim elements; so the next but one, too */
    slg_tensor *dense;    /* [dim, dim] */
    slg_tensor *diagonal; /* [dim] */
    slg_tensor *product;  /* [dim]: H p */
    double value;         /* out */
} slg_objective_out;

SLG_API void slg_objective_out_init(slg_objective_out *out, size_t size);

/*
 * An objective at a point.
 *
 *   x    in   dim elements of any shape, f32, f64
 *   p    in   as x: direction of the product; NULL: none
 *   out  out  no tensor may overlap another or an input
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY, and what a callback returns. Outputs are untouched then. Since 0.1.
 */
SLG_API slg_status slg_objective_evaluate(slg_ctx *ctx, const slg_objective *o,
                                          const slg_tensor *x, const slg_tensor *p,
                                          slg_objective_out *out);

/* ---- One regularised step --------------------------------------------------------------- */

/* H, for slg_regularized_step. */
typedef struct slg_step_opts {
    uint32_t size;        /* sizeof(slg_step_opts), set by slg_step_opts_init */
    int32_t form;         /* slg_curvature_form; default SLG_FORM_DENSE */
    int32_t max_products; /* of conjugate gradients, >= 1; default 1000 */
    int32_t reserved;     /* 0 */
    double scale;         /* of SLG_FORM_RANK_ONE, >= 0; default 1 */
    double tolerance;     /* of conjugate gradients, relative, in (0, 1); default 1e-6 */
    slg_status (*product)(void *user, const double *v, double *hv); /* SLG_FORM_PRODUCT */
    void *user;
} slg_step_opts;

SLG_API void slg_step_opts_init(slg_step_opts *opts, size_t size);

typedef struct slg_step_out {
    uint32_t size;    /* sizeof(slg_step_out), set by the caller */
    int32_t solved;   /* out: 0 where H + lambda B is not positive definite: dx untouched */
    double lambda;    /* out: |g|_* / gamma */
    double norm;      /* out: |dx| */
    int64_t products; /* out: of conjugate gradients */
} slg_step_out;

/*
 * dx = -(H + lambda B)^-1 g, lambda = |g|_* / gamma,  with |x|^2 = x'Bx, |g|_*^2 = g'B^-1 g.
 * |dx| <= gamma for H >= 0.
 *
 *   h       in   [d, d], or [d] for a diagonal or rank-one, f32, f64; NULL for the others
 *   g       in   [d]  f32, f64
 *   gamma   in   > 0, finite
 *   metric  in   B: [d, d] (symmetric positive definite), or [d]: a diagonal; NULL: I
 *   opts    in   NULL: the defaults
 *   dx      out  [d]  f32, f64: may be g's very memory
 *   out     out  may be NULL; H + lambda B that is not positive definite is an error then
 *
 * g = 0: dx = 0, lambda 0, and H is not looked at. Only the upper triangles of H and B are
 * read. Where conjugate gradients meet max_products the step so far is taken: it is shorter.
 *
 * Cost: d^3 / 3 for a dense H or B, else O(d) or the products.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for an option, NaN or an infinity in H or g, a metric that is
 * not positive definite. Outputs are untouched then.
 *
 * Paper: "Gradient-Normalized Smoothness for Optimization with Approximate Hessians" (2025).
 * Since 0.1.
 */
SLG_API slg_status slg_regularized_step(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *g,
                                        double gamma, const slg_tensor *metric,
                                        const slg_step_opts *opts, slg_tensor *dx,
                                        slg_step_out *out);

/* ---- Solvers ---------------------------------------------------------------------------- */

typedef struct slg_solver slg_solver;

enum slg_solver_kind {
    SLG_NORMALIZED_NEWTON = 1, /* slg_normalized_newton_opts */
    SLG_LBFGS = 2,             /* slg_lbfgs_opts */
    SLG_SEPARATION = 3         /* made by slg_separation_create of separation.h instead */
};

/*
 * Gradient-normalised Newton. From x with gradient g and a radius gamma, each trial is
 * slg_regularized_step, accepted where
 *
 *     f(x) - f(x+) >= |g+|_*^2 / (decrease lambda)
 *
 * then gamma = max(growth gamma, gamma_min); else gamma = shrink gamma, and again. Values that
 * are not finite, and H + lambda B that is not positive definite, are failed trials. H is
 * found once a step.
 *
 * Paper: "Gradient-Normalized Smoothness for Optimization with Approximate Hessians" (2025).
 */
typedef struct slg_normalized_newton_opts {
    uint32_t size;            /* sizeof(slg_normalized_newton_opts), set by its _init */
    int32_t which;            /* slg_curvature; default SLG_HESSIAN */
    int32_t form;             /* slg_curvature_form; default SLG_FORM_DENSE */
    int32_t max_trials;       /* of a step, from 1 to 1000; default 40 */
    int32_t max_products;     /* of conjugate gradients in a trial; default 1000 */
    int32_t reserved;         /* 0 */
    double gamma0;            /* > 0; default 1 */
    double gamma_min;         /* > 0; default 1e-9 */
    double growth;            /* >= 1; default 2 */
    double shrink;            /* in (0, 1); default 0.5 */
    double decrease;          /* > 0; default 8 */
    double tolerance;         /* of conjugate gradients, in (0, 1); default 1e-6 */
    const slg_tensor *metric; /* B as slg_regularized_step's; copied; default NULL */
} slg_normalized_newton_opts;

SLG_API void slg_normalized_newton_opts_init(slg_normalized_newton_opts *opts, size_t size);

/*
 * Limited-memory BFGS with a line search for the strong Wolfe conditions
 *
 *     f(x + a d) <= f(x) + c1 a d'g,   |d'g+| <= c2 |d'g|
 *
 * by cubic interpolation in a bracket. Where values differ by their rounding alone (1e-14 of
 * |f|, or objective->noise) slopes alone decide, and the first gives way to d'g+ <= (2 c1 - 1)
 * d'g (Hager and Zhang's approximate one), so gradients fall to what double holds. Pairs
 * without positive curvature are left out.
 *
 * Paper: Liu and Nocedal, "On the limited memory BFGS method for large scale optimization"
 * (1989).
 */
typedef struct slg_lbfgs_opts {
    uint32_t size;      /* sizeof(slg_lbfgs_opts), set by slg_lbfgs_opts_init */
    int32_t memory;     /* pairs kept, from 1 to 1000; default 10 */
    int32_t max_trials; /* of a step, from 1 to 1000; default 40 */
    int32_t reserved;   /* 0 */
    double c1, c2;      /* 0 < c1 < c2 < 1; default 1e-4, 0.9; c1 below 1/2 */
} slg_lbfgs_opts;

SLG_API void slg_lbfgs_opts_init(slg_lbfgs_opts *opts, size_t size);

/* Why a solver came back. */
enum slg_solver_reason {
    SLG_SOLVER_STEPPED = 0,  /* a step was accepted */
    SLG_SOLVER_GRADIENT = 1, /* the gradient's norm is small enough, or 0 */
    SLG_SOLVER_VALUE = 2,    /* the value is */
    SLG_SOLVER_STEPS = 3,    /* as many steps as were allowed */
    SLG_SOLVER_CALLBACK = 4, /* the progress callback said so */
    SLG_SOLVER_EXHAUSTED = 5, /* no trial was accepted: x and the state are as before */
    SLG_SOLVER_SEPARATED = 6, /* SLG_SEPARATION alone, as the next: every margin is above 0 */
    SLG_SOLVER_NOT_FINITE = 7, /* the step would have overflowed: all is as before */
    SLG_SOLVER_DECREASE = 8   /* the value falls by little enough (fits of ordinal.h) */
};

typedef struct slg_solver_report {
    uint32_t size;  /* in: sizeof(slg_solver_report), set by the caller; the rest is out */
    int32_t reason; /* slg_solver_reason */
    int64_t steps;  /* accepted since creation; so the next ones, tries included */
    int64_t values; /* evaluations of the value; each has its gradient */
    int64_t gradients;
    int64_t curvatures; /* matrices, or preparations for products */
    int64_t solves;     /* linear systems */
    int64_t products;   /* of conjugate gradients */
    double value;       /* f(x) */
    double grad_norm;   /* |g|_*; L-BFGS: the 2-norm */
    double step_norm;   /* |dx| of the last accepted step; 0: none yet */
    double radius;      /* gamma of the next step; L-BFGS: the last step length a */
    double lambda;      /* of the last accepted step; L-BFGS: 0 */
    int64_t wrong;      /* SLG_SEPARATION, as the rest; else 0: see separation.h */
    double min_margin;
    double log_beta;
} slg_solver_report;

/*
 * Makes a solver and evaluates the objective at x0.
 *
 *   kind       in   slg_solver_kind
 *   objective  in   the struct is copied; what it points to must outlive the solver
 *   x0         in   objective->dim elements of any shape, f32, f64
 *   opts       in   the kind's options struct; NULL: its defaults
 *   s          out  NULL on an error
 *
 * Memory 8 dim (7 + 2 dim) bytes for dense curvature, 8 dim (7 + 2 memory) for L-BFGS.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_OPTIONS, SLG_ERR_MEMORY;
 * SLG_ERR_RANGE for kind, dim, an option, or a value or gradient at x0 that is not finite;
 * what a callback returns. Since 0.1.
 */
SLG_API slg_status slg_solver_create(slg_ctx *ctx, int32_t kind, const slg_objective *objective,
                                     const slg_tensor *x0, const void *opts, slg_solver **s);

/* Frees; NULL is allowed. The context must still be there; the objective need not. */
SLG_API void slg_solver_free(slg_solver *s);

/*
 * One accepted step. report may be NULL. g = 0: nothing changes, SLG_SOLVER_GRADIENT (but see
 * separation.h).
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS (report->size), SLG_ERR_MEMORY, SLG_ERR_RANGE for
 * curvature with NaN or an infinity, what a callback returns. x is as it was then; so it is
 * after SLG_SOLVER_EXHAUSTED, which is no error.
 */
SLG_API slg_status slg_solver_step(slg_solver *s, slg_solver_report *report);

/* When slg_solver_run stops. */
typedef struct slg_solver_run_opts {
    uint32_t size;    /* sizeof(slg_solver_run_opts), set by slg_solver_run_opts_init */
    int32_t reserved; /* 0 */
    int64_t steps;    /* in this call, >= 0; default 1000 */
    double grad_norm; /* at or below: done; >= 0; default 1e-6; not for SLG_SEPARATION */
    double value;     /* at or below: done; not NaN; default -inf */
    int32_t (*progress)(void *user, const slg_solver_report *report); /* after each step; not
                         0: stop */
    void *user;
} slg_solver_run_opts;

SLG_API void slg_solver_run_opts_init(slg_solver_run_opts *opts, size_t size);

/* Steps until a reason to stop. Errors as slg_solver_step, and SLG_ERR_RANGE. */
SLG_API slg_status slg_solver_run(slg_solver *s, const slg_solver_run_opts *opts,
                                  slg_solver_report *report);

/* Copies x, and its gradient: dim elements of any shape, f32, f64; either may be NULL. */
SLG_API slg_status slg_solver_get(slg_solver *s, slg_tensor *x, slg_tensor *grad);

/*
 * State as bytes, with kind, dim and counters in front and a checksum: imported into a solver
 * of the same kind, dim, options and objective it continues bit for bit. Options and objective
 * are not stored.
 *
 *   bytes   out  needed, or written, number of bytes; buffer NULL: only tells
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (capacity too small), SLG_ERR_STATE (not such a state,
 * of another kind or dim, or damaged). The solver is untouched then.
 */
SLG_API slg_status slg_solver_export(slg_solver *s, void *buffer, int64_t capacity,
                                     int64_t *bytes);
SLG_API slg_status slg_solver_import(slg_solver *s, const void *buffer, int64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
