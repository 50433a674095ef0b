/*
 * sign_sums.c - vectors of random signs that are never stored: bit i % 64 of word i / 64 is
 * that of element i, 1 for +1. A sign is a flip of the top bit. Sums in double over lanes of
 * their own: the same bits on every ISA.
 */
#include "vec.h"

enum { LANES = 16 };

/* x with the sign that the low bit of `bits` says. */
static inline double flip(double x, uint64_t bits)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    u ^= ~bits << 63;
    memcpy(&x, &u, sizeof x);
    return x;
}

double KERNEL(sign_dot)(size_t n, const uint64_t *signs, const float *x, const float *y)
{
    double lane[LANES] = { 0 }, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const uint64_t word = signs[i / 64] >> (i % 64);
        for (size_t j = 0; j < LANES; j++)
            lane[j] += flip((double)x[i + j] - (double)y[i + j], word >> j);
    }
    for (; i < n; i++)
        lane[i % LANES] += flip((double)x[i] - (double)y[i], signs[i / 64] >> (i % 64));
    for (size_t j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

void KERNEL(sign_add)(size_t n, const uint64_t *signs, double a, double *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const uint64_t word = signs[i / 64] >> (i % 64);
        for (size_t j = 0; j < LANES; j++) y[i + j] += flip(a, word >> j);
    }
    for (; i < n; i++) y[i] += flip(a, signs[i / 64] >> (i % 64));
}
