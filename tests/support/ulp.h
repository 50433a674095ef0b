/*
 * ulp.h - how far a float32 result is from what it should be.
 *
 * For all of these a NaN that was expected, or an infinity of the expected sign, is an error of
 * 0; one that was not expected, or is missing, is an error of INFINITY (UINT32_MAX).
 */
#ifndef TESTS_SUPPORT_ULP_H
#define TESTS_SUPPORT_ULP_H

#include <stdbool.h>
#include <stdint.h>

/* Number of float32 steps from a to b. -0 and 0 are the same. */
uint32_t ulp_distance(float a, float b);

/* |got - want| in units of the spacing of float32 at want (2^-149 at least). A want beyond
   FLT_MAX, which float32 cannot hold, may have become an infinity of its sign. */
double ulp_error(float got, double want);

/* The same, where the code may flush: any got within [0, 2^-126) of want's sign will do for a
   |want| below 2^-126. */
double ulp_error_flush(float got, double want);

/* |got - want| / |want|; INFINITY where want is 0 and got is not. */
double relative_error(double got, double want);

/* |got - want| <= absolute + relative * |want|: the rule of golden vectors. */
bool within(double got, double want, double absolute, double relative);

#endif
