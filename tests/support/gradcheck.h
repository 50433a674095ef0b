/*
 * gradcheck.h - is this the gradient of that function? Central differences of a function of
 * float32 variables whose value is a double.
 */
#ifndef TESTS_SUPPORT_GRADCHECK_H
#define TESTS_SUPPORT_GRADCHECK_H

#include <stdbool.h>
#include <stddef.h>

typedef double (*gradcheck_fn)(const float *x, void *arg);

/* All zeros: the defaults. */
typedef struct gradcheck_opts {
    double
        step; /* default 1/32: for functions that bend on a scale of 1, as losses of logits */
    double floor; /* default 1: errors are relative to max(floor, |difference quotient|) */
    size_t every; /* default 1: only elements first, first + every, ... are checked */
    size_t first;
} gradcheck_opts;

typedef struct gradcheck_result {
    double error; /* worst |gradient - quotient| / max(floor, |quotient|); INFINITY for a NaN */
    size_t index; /* where */
    double gradient, quotient;
    size_t checked; /* how many elements */
} gradcheck_result;

/*
 * Compares gradient[0..n) with difference quotients of f at x. x is changed on the way, and on
 * return is as it was. Where x is -inf (a masked class) the gradient must be exactly 0.
 *
 * Four points an element: the quotient's error is step^4 / 30 of the fifth derivative, and
 * 1.5 e / step for values with an error of e. For a loss that is summed in double from float32
 * parts (e = 1e-7, the value being about 1) the default makes that 1e-7 and 5e-6: a tolerance
 * of 1e-4 is ample, 2e-5 mostly holds. Do not let f be a mean over many rows: it hides errors.
 */
gradcheck_result gradcheck(gradcheck_fn f, void *arg, float *x, size_t n, const float *gradient,
                           const gradcheck_opts *opts);

/* True if the error is at most tolerance and anything was checked; else says so on stderr. */
bool gradcheck_ok(const gradcheck_result *result, double tolerance, const char *what);

#endif
