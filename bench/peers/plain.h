/*
 * plain.h - plain.c is compiled twice: as a user would (-O3 -ffast-math -march=native), and
 * for AVX2 alone (loop_..._avx2). The references for checks are in the first.
 */
#ifndef PEERS_PLAIN_H
#define PEERS_PLAIN_H

#include <stdint.h>

#define PLAIN_LOOPS(F, suffix)                                                                 \
    F void loop_softmax##suffix(int64_t rows, int64_t cols, const float *x, float *y);         \
    F void loop_log_softmax##suffix(int64_t rows, int64_t cols, const float *x, float *y);     \
    F void loop_logsumexp##suffix(int64_t rows, int64_t cols, const float *x, float *lse);     \
    F double loop_cross_entropy##suffix(int64_t rows, int64_t cols, const float *x,            \
                                        const int64_t *target, float *dx);                     \
    F void loop_attention##suffix(int64_t tokens, int64_t dim, int64_t window, const float *q, \
                                  const float *k, const float *v, float *o, float *a);         \
    F void loop_adamw##suffix(int64_t n, float *w, const float *g, float *m, float *v, int t);

PLAIN_LOOPS(extern, )
PLAIN_LOOPS(extern, _avx2)

/* References in float64; x may hold -inf. */
void ref_fill_normal(float *x, int64_t n, float sd, uint64_t seed);
double ref_logsumexp(int64_t n, const float *x);
/* Largest |y - p| / p over p = exp(x - lse) >= 2^-125. Counts in bad what is not a number, or
   should be below and is not. */
double ref_softmax_error(int64_t n, const float *x, double lse, const float *y, int64_t *bad);
/* Largest |scale dx - (p - [target])| / max(p, [target]), p as above. */
double ref_gradient_error(int64_t n, const float *x, double lse, int64_t target, double scale,
                          const float *dx, int64_t *bad);
/* Largest |y - (x - lse)| / (1 + |x - lse|). */
double ref_log_error(int64_t n, const float *x, double lse, const float *y, int64_t *bad);

#endif
