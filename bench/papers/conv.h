/*
 * conv.h - the small pieces of a convolutional network that a re-run trains: convolution
 * (stride 1, zero padding that keeps the size), max-pooling with its arg-max kept, dropout.
 * Also linked into the golden runner, whose conv cases test them. All memory is the caller's;
 * nothing here fails.
 */
#ifndef PAPERS_CONV_H
#define PAPERS_CONV_H

#include <stddef.h>
#include <stdint.h>

/* Images [images, channels, side, side]; filters [filters, channels, width, width], width
   odd. */
typedef struct conv_shape {
    int images, channels, side, filters, width;
} conv_shape;

size_t conv_in_floats(const conv_shape *s);      /* of images */
size_t conv_out_floats(const conv_shape *s);     /* [images, filters, side, side] */
size_t conv_filter_floats(const conv_shape *s);  /* of filters */
size_t conv_scratch_floats(const conv_shape *s); /* patches of one image */

/* y = convolution of x + bias[filter]. */
void conv_forward(const conv_shape *s, const float *x, const float *filters, const float *bias,
                  float *y, float *scratch);

/* From dy: dfilters and dbias are overwritten; dx too, where it is not NULL. */
void conv_backward(const conv_shape *s, const float *x, const float *filters, const float *dy,
                   float *dx, float *dfilters, float *dbias, float *scratch);

/* y = max(0, x); then in the way back dx = 0 where y is. In place is allowed. */
void relu_forward(size_t n, const float *x, float *y);
void relu_backward(size_t n, const float *y, const float *dy, float *dx);

/* Maxima over pool x pool tiles of planes of side x side (a multiple of pool); at: where each
   was found in its plane, the first in row-major order of the tile. */
void pool_forward(size_t planes, int side, int pool, const float *x, float *y, int32_t *at);
void pool_backward(size_t planes, int side, int pool, const float *dy, const int32_t *at,
                   float *dx);

/* Inverted dropout from bits that are a function of (seed, i): y = x / (1 - rate), or 0. The
   way back is the same call on the gradient. */
void dropout(size_t n, const float *x, double rate, uint64_t seed, float *y);

#endif
