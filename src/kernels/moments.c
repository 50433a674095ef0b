/*
 * moments.c - mean and sum of squares about it, and the affine map that goes back: what losses
 * made of a row's sums need. Both are bound by memory: the second sweep over a block finds it
 * in L1.
 *
 * The first sweep finds the mean about the block's first entry; the second adds up squares
 * about that mean, rounded, and puts right what the rounding left. So neither an offset of all
 * entries nor an outlier costs precision. Blocks are merged in double. Squares that would leave
 * float32's range send a block to plain double arithmetic.
 */
#include "vec.h"

#define AHEAD (6 * 1024 / 4)

/* Sum of x - shift, and of its square where that is wanted. n <= KERNEL_BLOCK */
static inline float sums_about(size_t n, const float *x, float shift, float *squares)
{
    const vf off = vf_set(shift), zero = vf_set(0.0f);
    vf s[4] = { zero, zero, zero, zero }, q[4] = { zero, zero, zero, zero };
    size_t i = 0;
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN) {
        if (!squares)
            for (size_t p = 0; p < 4 * VF_LEN; p += 16) vf_prefetch(x + i + p + AHEAD);
        for (size_t j = 0; j < 4; j++) {
            vf u = vf_sub(vf_load(x + i + j * VF_LEN), off);
            s[j] = vf_add(s[j], u);
            if (squares) q[j] = vf_fma(u, u, q[j]);
        }
    }
    for (; i < n; i += VF_LEN) {
        vf u = vf_sub(load_at(x, i, n, shift), off);
        s[0] = vf_add(s[0], u);
        if (squares) q[0] = vf_fma(u, u, q[0]);
    }
    if (squares) *squares = vf_hsum(vf_add(vf_add(q[0], q[1]), vf_add(q[2], q[3])));
    return vf_hsum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

/* The same block where float32 cannot hold the squares; constant blocks come here too. */
static void block_in_double(size_t n, const float *x, double *mean, double *spread)
{
    enum { LANES = 8 };
    double s[LANES] = { 0 }, q[LANES] = { 0 };
    const double first = (double)x[0];
    for (size_t i = 0; i < n; i++) s[i % LANES] += (double)x[i] - first;
    for (size_t j = 1; j < LANES; j++) s[0] += s[j];
    const double m = first + s[0] / (double)n;
    for (size_t i = 0; i < n; i++) {
        double u = (double)x[i] - m;
        q[i % LANES] += u * u;
    }
    for (size_t j = 1; j < LANES; j++) q[0] += q[j];
    *mean = m, *spread = q[0];
}

static void block_moments(size_t n, const float *x, double *mean, double *spread)
{
    const double count = (double)n;
    float squares = 0;
    const float about = (float)((double)x[0] + (double)sums_about(n, x, x[0], NULL) / count);
    const double rest = (double)sums_about(n, x, about, &squares);
    if (squares >= (float)n * 0x1p-80f && squares < 1e37f) {
        *mean = (double)about + rest / count;
        *spread = (double)squares - rest * rest / count;
    } else {
        block_in_double(n, x, mean, spread);
    }
}

void KERNEL(moments)(size_t n, const float *x, double out[2])
{
    double mean = 0, spread = 0;
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        const size_t m = n - b < KERNEL_BLOCK ? n - b : KERNEL_BLOCK;
        double block[2];
        block_moments(m, x + b, &block[0], &block[1]);
        const double delta = block[0] - mean, all = (double)(b + m);
        mean += delta * (double)m / all;
        spread += block[1] + delta * delta * (double)b * (double)m / all;
    }
    out[0] = mean, out[1] = spread;
}

void KERNEL(affine_emit)(size_t n, const float *x, float unit, float pivot, float a, float c,
                         float *y, int store)
{
    const vf scale = vf_set(unit), off = vf_set(-pivot), va = vf_set(a), vc = vf_set(c);
    size_t i = 0, head = 0;
    if (store == STORE_STREAM) {
        head = (size_t)(-(uintptr_t)y / sizeof *y) % 16;
        if (head > n) head = n;
    }
    for (; i < head; i += VF_LEN) {
        size_t m = head - i < VF_LEN ? head - i : VF_LEN;
        vf_store_n(y + i, vf_fma(va, vf_fma(vf_load_n(x + i, m, 0.0f), scale, off), vc), m);
    }
    for (i = head; i + 4 * VF_LEN <= n; i += 4 * VF_LEN) {
        vf v[4];
        for (size_t p = 0; p < 4 * VF_LEN; p += 16) vf_prefetch(x + i + p + AHEAD);
        for (size_t j = 0; j < 4; j++)
            v[j] = vf_fma(va, vf_fma(vf_load(x + i + j * VF_LEN), scale, off), vc);
        for (size_t j = 0; j < 4; j++) {
            if (store == STORE_STREAM)
                vf_stream(y + i + j * VF_LEN, v[j]);
            else
                vf_store(y + i + j * VF_LEN, v[j]);
        }
    }
    for (; i < n; i += VF_LEN) {
        size_t m = n - i < VF_LEN ? n - i : VF_LEN;
        vf_store_n(y + i, vf_fma(va, vf_fma(vf_load_n(x + i, m, 0.0f), scale, off), vc), m);
    }
}
