/*
 * dots.c - sums of products in double, for gradients whose squares float32 cannot hold, and
 * a linear combination rounded once, running sums, and the keys of an order. Plain loops over
 * lanes of their own: the same bits on every ISA.
 */
#include "vec.h"

enum { LANES = 16 };

typedef struct lanes {
    double v[LANES];
} lanes;

static inline double lanes_sum(const lanes *l)
{
    double sum = 0;
    for (size_t j = 0; j < LANES; j++) sum += l->v[j];
    return sum;
}

void KERNEL(dots)(size_t n, const float *x, const float *y, double out[3])
{
    lanes xy = { { 0 } }, xx = { { 0 } }, yy = { { 0 } };
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            double a = (double)x[i + j], b = (double)y[i + j];
            xy.v[j] += a * b;
            xx.v[j] += a * a;
            yy.v[j] += b * b;
        }
    for (; i < n; i++) {
        double a = (double)x[i], b = (double)y[i];
        xy.v[i % LANES] += a * b;
        xx.v[i % LANES] += a * a;
        yy.v[i % LANES] += b * b;
    }
    out[0] = lanes_sum(&xy);
    out[1] = lanes_sum(&xx);
    out[2] = lanes_sum(&yy);
}

static inline double mapped(double w, double g, const gradient_map *m)
{
    double u = m->scale * (g + m->along * w);
    u = u > m->clip ? m->clip : u < -m->clip ? -m->clip : u; /* a NaN passes */
    return m->post * (u + m->after * w);
}

void KERNEL(update_dots)(size_t n, const float *w, const float *g, const gradient_map *map,
                         double out[3])
{
    const gradient_map m = *map;
    lanes wu = { { 0 } }, ww = { { 0 } }, uu = { { 0 } };
    for (size_t i = 0; i < n; i += LANES) {
        const size_t count = n - i < LANES ? n - i : LANES;
        for (size_t j = 0; j < count; j++) {
            double a = (double)w[i + j], u = mapped(a, (double)g[i + j], &m);
            wu.v[j] += a * u;
            ww.v[j] += a * a;
            uu.v[j] += u * u;
        }
    }
    out[0] = lanes_sum(&wu);
    out[1] = lanes_sum(&ww);
    out[2] = lanes_sum(&uu);
}

void KERNEL(lincomb)(size_t n, double a, const float *x, double b, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = (float)(a * (double)x[i] + b * (double)y[i]);
}

void KERNEL(accumulate)(size_t n, const float *restrict x, double *restrict sum,
                        float *restrict y)
{
    for (size_t i = 0; i < n; i++) {
        sum[i] += (double)x[i];
        y[i] = (float)sum[i];
    }
}

void KERNEL(rank_keys)(size_t n, const float *x, const float *w, const rank_arg *a,
                       uint32_t *keys, uint32_t range[2])
{
    const rank_arg arg = *a;
    uint32_t least = range[0], most = range[1];
    for (size_t i = 0; i < n; i++) {
        float s = (float)rank_score(&arg, x[i], w[i]) + 0.0f; /* no -0 */
        uint32_t bits;
        memcpy(&bits, &s, sizeof bits);
        keys[i] = (int32_t)bits < 0 ? bits : 0x7fffffffu - bits;
    }
    for (size_t i = 0; i < n; i++) {
        least = keys[i] < least ? keys[i] : least;
        most = keys[i] > most ? keys[i] : most;
    }
    range[0] = least, range[1] = most;
}
