#include "support/ulp.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Bits of a float as a whole number that counts up with the value, -0 and 0 both 0. */
static int64_t ordered(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits < 0 ? (int64_t)INT32_MIN - bits : bits;
}

uint32_t ulp_distance(float a, float b)
{
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b) ? 0 : UINT32_MAX;
    int64_t d = ordered(a) - ordered(b);
    return (uint32_t)(d < 0 ? -d : d);
}

/* Spacing of float32 at a finite x. */
static double spacing(double x)
{
    int e;
    frexp(x, &e);
    return ldexp(1.0, x == 0 || e < -125 ? -149 : e - 24);
}

double ulp_error(float got, double want)
{
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want) ? 0 : INFINITY;
    if (isinf(want)) return (double)got == want ? 0 : INFINITY;
    if (isinf(got)) return fabs(want) > FLT_MAX && (got > 0) == (want > 0) ? 0 : INFINITY;
    return fabs((double)got - want) / spacing(want);
}

double ulp_error_flush(float got, double want)
{
    if (fabs(want) < FLT_MIN && fabs((double)got) < FLT_MIN && (double)got * want >= 0)
        return 0;
    return ulp_error(got, want);
}

double relative_error(double got, double want)
{
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want) ? 0 : INFINITY;
    if (got == want) return 0;
    if (isinf(got) || isinf(want) || want == 0) return INFINITY;
    return fabs(got - want) / fabs(want);
}

bool within(double got, double want, double absolute, double relative)
{
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want);
    if (isinf(got) || isinf(want)) return got == want;
    return fabs(got - want) <= absolute + relative * fabs(want);
}
