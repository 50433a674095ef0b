/*
 * kernel_spec.h - what the files of specs share. test_kernels_<family>.c has a spec of each
 * kernel of a family of kernels.h and ends with KERNEL_TESTS(<FAMILY>): a test of each on every
 * ISA. That names the specs, so a kernel without one does not compile; and CMake stops at
 * a family without such a file.
 */
#ifndef TESTS_KERNELS_KERNEL_SPEC_H
#define TESTS_KERNELS_KERNEL_SPEC_H

#include "kernel_test.h"

enum { F8 = sizeof(double), F4 = sizeof(float), F2 = sizeof(uint16_t) };

/* Added to the scale where terms below 2^-126 are flushed and the sum need not be: 1 u
   of it. */
#define FLUSHED 0x1p-101

#define SPEC(kernel, ...) SPEC_OF(kernel, __VA_ARGS__)
#define SPEC_OF(kernel, ...)                                                                   \
    static const spec spec_##kernel = { .name = #kernel,                                       \
                                        .bound = BOUND_##kernel,                               \
                                        .run = run_##kernel,                                   \
                                        .check = check_##kernel,                               \
                                        __VA_ARGS__ }

static inline const float *in(const call *c, int i) { return c->in[i]; }
static inline float *out(const call *c, int j) { return c->out[j]; }

static inline bool has_nan(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(x[i])) return true;
    return false;
}

static inline float max_of(const float *x, size_t n)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (x[i] > max) max = x[i];
    return max;
}

/* As kernels read it: subnormals are 0. */
static inline double flushed(float x) { return fabsf(x) < FLT_MIN ? 0 : (double)x; }

static inline int store_of(const call *c)
{
    return c->variant % 2 ? STORE_STREAM : STORE_CACHED;
}

/* ---- Inputs ------------------------------------------------------------------------------ */

/* Probabilities, some 0, in input 0; or their logarithms, some -inf. */
static inline void probabilities(const call *c)
{
    float *y = c->in[0];
    for (size_t i = 0; i < c->n; i++)
        y[i] = c->n == 2048 ? y[0] : i % 4 == 2 ? 0.0f : (float)uniform();
}

static inline void log_probabilities(const call *c)
{
    float *y = c->in[0];
    for (size_t i = 0; i < c->n; i++)
        y[i] = i % 4 == 2 ? -INFINITY : (float)(50 * log(uniform()));
}

/* ---- The program ------------------------------------------------------------------------- */

#define KERNEL_TEST_AT(kernel, level, text)                                                    \
    {                                                                                          \
        .name = #kernel " " text, .test_func = check_kernel, .initial_state = &(kernel_item)   \
        {                                                                                      \
            &spec_##kernel, level                                                              \
        }                                                                                      \
    }
#define KERNEL_TEST(result, kernel, args)                                                      \
    KERNEL_TEST_AT(kernel, SLG_ISA_PORTABLE, "portable"),                                      \
        KERNEL_TEST_AT(kernel, SLG_ISA_AVX2, "avx2"),                                          \
        KERNEL_TEST_AT(kernel, SLG_ISA_AVX512, "avx512"),
#define KERNEL_TESTS(family)                                                                   \
    int main(void)                                                                             \
    {                                                                                          \
        const struct CMUnitTest tests[] = { SLG_KERNELS_##family(KERNEL_TEST) };               \
        return cmocka_run_group_tests(tests, NULL, NULL);                                      \
    }

#endif
