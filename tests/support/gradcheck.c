#include "support/gradcheck.h"

#include <math.h>
#include <stdio.h>

/* (f(x + h) - f(x - h)) / 2h in element i, with h as float32 makes it. */
static double slope(gradcheck_fn f, void *arg, float *x, size_t i, double h)
{
    const float at = x[i], up = (float)(at + h), down = (float)(at - h);
    x[i] = up;
    double above = f(x, arg);
    x[i] = down;
    double below = f(x, arg);
    x[i] = at;
    return (above - below) / ((double)up - (double)down);
}

/* Richardson: the h^2 terms of two slopes cancel. */
static double quotient(gradcheck_fn f, void *arg, float *x, size_t i, double step)
{
    double h = fmax(step, fabs((double)x[i]) * 0x1p-12); /* else rounding of x + h shows */
    return (4 * slope(f, arg, x, i, h) - slope(f, arg, x, i, 2 * h)) / 3;
}

gradcheck_result gradcheck(gradcheck_fn f, void *arg, float *x, size_t n, const float *gradient,
                           const gradcheck_opts *opts)
{
    const gradcheck_opts none = { 0 };
    if (!opts) opts = &none;
    const double step = opts->step > 0 ? opts->step : 1.0 / 32;
    const double floor = opts->floor > 0 ? opts->floor : 1.0;
    const size_t every = opts->every ? opts->every : 1;
    gradcheck_result r = { -1, 0, 0, 0, 0 };
    for (size_t i = opts->first; i < n; i += every, r.checked++) {
        double g = (double)gradient[i], q = 0, error;
        if (isinf(x[i])) {
            error = g == 0 ? 0 : INFINITY;
        } else {
            q = quotient(f, arg, x, i, step);
            error = fabs(g - q) / fmax(floor, fabs(q));
            if (isnan(error)) error = INFINITY;
        }
        if (error > r.error) {
            r.error = error;
            r.index = i;
            r.gradient = g;
            r.quotient = q;
        }
    }
    if (!r.checked) r.error = 0;
    return r;
}

bool gradcheck_ok(const gradcheck_result *r, double tolerance, const char *what)
{
    if (r->checked && r->error <= tolerance) return true;
    fprintf(stderr,
            "gradcheck: %s: element %zu: gradient %.9g, difference quotient %.9g; error %.3g, "
            "allowed %.3g; %zu elements checked\n",
            what, r->index, r->gradient, r->quotient, r->error, tolerance, r->checked);
    return false;
}
