/*
 * mirror.h - the step that mirror descent is made of: argmin over a set of
 * eta <g, x> + D(x, center).
 */
#ifndef SLG_ONLINE_MIRROR_H
#define SLG_ONLINE_MIRROR_H

#include "core/ctx.h"

typedef struct domain {
    int32_t kind; /* slg_domain */
    double radius, lo, hi;
} domain;

slg_status domain_check(slg_ctx *ctx, const domain *s);

/* The largest distance of two points; NaN if free. */
double domain_diameter(const domain *s, int64_t n);

/* Whether centers are kept as logarithms. */
bool domain_logs(const domain *s);

/* xhat_1; the array is zero. */
void domain_start(const domain *s, int64_t n, double *center);

/* *to = the step; logarithms where the domain keeps them. `to` may be center. scratch: n. */
void mirror_step(const domain *s, int64_t n, const double *center, double eta, const double *g,
                 double *to, double *scratch);

/* x from the result of mirror_step, in place. */
void mirror_point(const domain *s, int64_t n, double *x);

/*
 * The same in the metric H with eta 1, of which the inverse is given: free and ball. scratch:
 * metric_scratch(s, n) doubles.
 */
void metric_step(const domain *s, int64_t n, const double *inverse, const double *center,
                 const double *g, double *to, double *scratch);
size_t metric_scratch(const domain *s, int64_t n);

/* H += c g g', on the inverse, which stays symmetric to the bit. scratch: n. False, and nothing
   changed, where c < 0 leaves H not positive definite. */
bool metric_add(int64_t n, double c, const double *g, double *inverse, double *scratch);

/* Nearest point of the simplex, in place. heap: n doubles. */
void project_simplex(int64_t n, double *u, double *heap);

#endif
