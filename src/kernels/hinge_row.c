/*
 * hinge_row.c - h = max(0, (x - ref) + margin) over a piece of a row: sums of it and of its
 * square, the number above 0, the maximum of x; and the gradient. One read, no one-hot labels.
 */
#include "vec.h"

#define AHEAD (6 * 1024 / 4)

/* Floats after which sums start anew in a second sum. */
enum { LANE_BLOCK = 32 * VF_LEN };

/* A NaN passes; a masked class is at rest, also beside a reference of -inf. */
static inline vf hinge_vec(vf x, vf ref, vf margin)
{
    const vf zero = vf_set(0.0f);
    vf h = vf_max(zero, vf_add(vf_sub(x, ref), margin));
    return vf_sel(vf_eq(x, vf_set(-INFINITY)), zero, h);
}

void KERNEL(hinge_sum)(size_t n, const float *x, float ref, float margin, hinge_part *part)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f), r = vf_set(ref), m = vf_set(margin);
    vf max = vf_set(-INFINITY);
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        vf s = zero, q = zero, ss = zero, qs = zero, count = zero;
        for (size_t i = b; i < end; i += VF_LEN) {
            if ((i - b) % LANE_BLOCK == 0) ss = vf_add(ss, s), qs = vf_add(qs, q), s = q = zero;
            vf_prefetch(x + i + AHEAD);
            vf a = load_at(x, i, end, -INFINITY), h = hinge_vec(a, r, m);
            max = vf_max(max, a);
            s = vf_add(s, h);
            q = vf_fma(h, h, q);
            count = vf_add(count, vf_sel(vf_gt(h, zero), one, zero));
        }
        part->sum += (double)vf_hsum(vf_add(ss, s));
        part->square += (double)vf_hsum(vf_add(qs, q));
        part->count += (double)vf_hsum(count);
    }
    float top = vf_hmax(max);
    if (top > part->max) part->max = top;
}

static inline vf grad_vec(vf x, vf ref, vf margin, vf a, bool squared)
{
    const vf zero = vf_set(0.0f);
    vf h = hinge_vec(x, ref, margin);
    return squared ? vf_mul(a, h) : vf_sel(vf_gt(h, zero), a, zero);
}

static inline void grad(size_t n, const float *x, float ref, float margin, float a, float *y,
                        bool squared, bool stream)
{
    const vf r = vf_set(ref), m = vf_set(margin), f = vf_set(a);
    size_t i = 0, head = (size_t)(-(uintptr_t)y / sizeof *y) % 16;
    if (stream) /* up to a whole line of y */
        for (head = head < n ? head : n; i < head;) {
            size_t len = head - i < VF_LEN ? head - i : VF_LEN;
            vf_store_n(y + i, grad_vec(vf_load_n(x + i, len, 0.0f), r, m, f, squared), len);
            i += len;
        }
    for (; i + 16 <= n; i += 16) {
        vf_prefetch(x + i + AHEAD);
        for (size_t j = i; j < i + 16; j += VF_LEN) {
            vf v = grad_vec(vf_load(x + j), r, m, f, squared);
            if (stream)
                vf_stream(y + j, v);
            else
                vf_store(y + j, v);
        }
    }
    for (; i < n; i += VF_LEN) {
        size_t len = n - i < VF_LEN ? n - i : VF_LEN;
        vf_store_n(y + i, grad_vec(vf_load_n(x + i, len, 0.0f), r, m, f, squared), len);
    }
}

void KERNEL(hinge_grad)(size_t n, const float *x, float ref, float margin, float a, int power,
                        float *y, int store)
{
    const bool stream = store == STORE_STREAM;
    if (power == 2 && stream)
        grad(n, x, ref, margin, a, y, true, true);
    else if (power == 2)
        grad(n, x, ref, margin, a, y, true, false);
    else if (stream)
        grad(n, x, ref, margin, a, y, false, true);
    else
        grad(n, x, ref, margin, a, y, false, false);
}
