/*
 * conv.c - see conv.h. A convolution is a GEMM of filters by the patches of one image.
 */
#include "conv.h"

#include <cblas.h>
#include <string.h>

static size_t area(const conv_shape *s) { return (size_t)s->side * (size_t)s->side; }
static size_t depth(const conv_shape *s)
{
    return (size_t)s->channels * (size_t)s->width * (size_t)s->width;
}

size_t conv_in_floats(const conv_shape *s)
{
    return (size_t)s->images * (size_t)s->channels * area(s);
}
size_t conv_out_floats(const conv_shape *s)
{
    return (size_t)s->images * (size_t)s->filters * area(s);
}
size_t conv_filter_floats(const conv_shape *s) { return (size_t)s->filters * depth(s); }
size_t conv_scratch_floats(const conv_shape *s) { return depth(s) * area(s); }

/* For each (channel, row of filter, column of filter) a row of `side` x `side` entries
   of the image; back: adds them to where they came from. */
static void patches(const conv_shape *s, float *image, float *rows, int back)
{
    const int half = s->width / 2, side = s->side;
    for (int c = 0; c < s->channels; c++)
        for (int k = 0; k < s->width * s->width; k++) {
            const int down = k / s->width - half, right = k % s->width - half;
            float *plane = image + (size_t)c * area(s);
            for (int i = 0; i < side; i++)
                for (int j = 0; j < side; j++, rows++) {
                    const int r = i + down, q = j + right;
                    const int inside = r >= 0 && r < side && q >= 0 && q < side;
                    if (!back)
                        *rows = inside ? plane[r * side + q] : 0.0f;
                    else if (inside)
                        plane[r * side + q] += *rows;
                }
        }
}

void conv_forward(const conv_shape *s, const float *x, const float *filters, const float *bias,
                  float *y, float *scratch)
{
    const int n = (int)area(s), d = (int)depth(s);
    for (int i = 0; i < s->images; i++) {
        float *to = y + (size_t)i * (size_t)s->filters * area(s);
        const float *from = x + (size_t)i * (size_t)s->channels * area(s);
        patches(s, (float *)(uintptr_t)from, scratch, 0);
        for (int f = 0; f < s->filters; f++)
            for (int j = 0; j < n; j++) to[f * n + j] = bias[f];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, s->filters, n, d, 1, filters, d,
                    scratch, n, 1, to, n);
    }
}

void conv_backward(const conv_shape *s, const float *x, const float *filters, const float *dy,
                   float *dx, float *dfilters, float *dbias, float *scratch)
{
    const int n = (int)area(s), d = (int)depth(s);
    memset(dfilters, 0, conv_filter_floats(s) * sizeof *dfilters);
    memset(dbias, 0, (size_t)s->filters * sizeof *dbias);
    if (dx) memset(dx, 0, conv_in_floats(s) * sizeof *dx);
    for (int i = 0; i < s->images; i++) {
        const float *g = dy + (size_t)i * (size_t)s->filters * area(s);
        const size_t at = (size_t)i * (size_t)s->channels * area(s);
        patches(s, (float *)(uintptr_t)(x + at), scratch, 0);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s->filters, d, n, 1, g, n, scratch,
                    n, 1, dfilters, d);
        for (int f = 0; f < s->filters; f++)
            for (int j = 0; j < n; j++) dbias[f] += g[f * n + j];
        if (!dx) continue;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, d, n, s->filters, 1, filters, d, g,
                    n, 0, scratch, n);
        patches(s, dx + at, scratch, 1);
    }
}

void relu_forward(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : 0.0f;
}

void relu_backward(size_t n, const float *y, const float *dy, float *dx)
{
    for (size_t i = 0; i < n; i++) dx[i] = y[i] > 0 ? dy[i] : 0.0f;
}

void pool_forward(size_t planes, int side, int pool, const float *x, float *y, int32_t *at)
{
    const int tiles = side / pool;
    for (size_t p = 0; p < planes; p++, x += side * side)
        for (int t = 0; t < tiles * tiles; t++) {
            const int first = t / tiles * pool * side + t % tiles * pool;
            int best = first;
            for (int k = 1; k < pool * pool; k++) {
                const int i = first + k / pool * side + k % pool;
                if (x[i] > x[best]) best = i;
            }
            *y++ = x[best];
            *at++ = best;
        }
}

void pool_backward(size_t planes, int side, int pool, const float *dy, const int32_t *at,
                   float *dx)
{
    const int tiles = side / pool;
    memset(dx, 0, planes * (size_t)(side * side) * sizeof *dx);
    for (size_t p = 0; p < planes; p++, dx += side * side)
        for (int t = 0; t < tiles * tiles; t++) dx[*at++] += *dy++;
}

/* splitmix64 of a counter. */
static uint64_t bits_of(uint64_t seed, uint64_t i)
{
    uint64_t z = (seed + i + 1) * 0x9E3779B97F4A7C15u + seed;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

void dropout(size_t n, const float *x, double rate, uint64_t seed, float *y)
{
    const float keep = (float)(1 / (1 - rate));
    for (size_t i = 0; i < n; i++)
        y[i] = (double)(bits_of(seed, i) >> 11) * 0x1p-53 >= rate ? x[i] * keep : 0.0f;
}
