/*
 * rotate.c - pairs of a row turned by angles. Products are rounded before they are added, so
 * that both layouts, and every ISA, give the same bits.
 */
#include "exp.h"

/* y may be x. */
void KERNEL(rope)(size_t pairs, const float *x, const float *cos, const float *sin,
                  int interleaved, float *y)
{
    if (interleaved) {
        for (size_t i = 0; i < pairs; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            y[2 * i] = a * cos[i] - b * sin[i];
            y[2 * i + 1] = a * sin[i] + b * cos[i];
        }
        return;
    }
    for (size_t i = 0; i < pairs; i += VF_LEN) {
        vf a = load_at(x, i, pairs, 0.0f), b = load_at(x + pairs, i, pairs, 0.0f);
        vf c = load_at(cos, i, pairs, 0.0f), s = load_at(sin, i, pairs, 0.0f);
        store_at(y, i, pairs, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        store_at(y + pairs, i, pairs, vf_add(vf_mul(a, s), vf_mul(b, c)));
    }
}
