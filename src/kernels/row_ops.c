/*
 * row_ops.c - what rows need beside the exponential: maximum, search, sums, affine forms. All
 * bound by loads and stores. Sums: float32 within a block, double across.
 */
#include "exp.h"

#define AHEAD (6 * 1024 / 4)

/* Floats after which sums start anew in a second sum: the more a lane adds up, the more it
   errs. */
enum { LANE_BLOCK = 64 * VF_LEN };

float KERNEL(max)(size_t n, const float *x)
{
    vf m0 = vf_set(-INFINITY), m1 = m0, m2 = m0, m3 = m0;
    size_t i = 0;
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN) {
        for (size_t p = 0; p < 4 * VF_LEN; p += 16) vf_prefetch(x + i + p + AHEAD);
        m0 = vf_max(m0, vf_load(x + i)), m1 = vf_max(m1, vf_load(x + i + VF_LEN));
        m2 = vf_max(m2, vf_load(x + i + 2 * VF_LEN)),
        m3 = vf_max(m3, vf_load(x + i + 3 * VF_LEN));
    }
    for (; i < n; i += VF_LEN) m0 = vf_max(m0, load_at(x, i, n, -INFINITY));
    return vf_hmax(vf_max(vf_max(m0, m1), vf_max(m2, m3)));
}

int64_t KERNEL(find)(size_t n, const float *x, float value)
{
    const vf v = vf_set(value);
    size_t i = 0;
    for (; i + VF_LEN <= n; i += VF_LEN) {
        vm m = vf_eq(vf_load(x + i), v);
        if (vm_any(m)) return (int64_t)(i + vm_first(m));
    }
    while (i < n && x[i] != value) i++;
    return (int64_t)i;
}

double KERNEL(dot)(size_t n, const float *x, const float *y, float shift)
{
    double sum = 0;
    const vf zero = vf_set(0.0f), off = vf_set(shift);
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        vf s0 = zero, s1 = zero, s = zero;
        for (size_t i = b; i < end; i += 2 * VF_LEN) {
            if (i % LANE_BLOCK == 0) s = vf_add(s, vf_add(s0, s1)), s0 = s1 = zero;
            vf u = load_at(x, i, end, 0.0f), v = vf_sub(load_at(y, i, end, 0.0f), off);
            s0 = vf_fma(u, vf_sel(vf_eq(u, zero), zero, v), s0);
            if (i + VF_LEN < end) {
                u = load_at(x, i + VF_LEN, end, 0.0f);
                v = vf_sub(load_at(y, i + VF_LEN, end, 0.0f), off);
                s1 = vf_fma(u, vf_sel(vf_eq(u, zero), zero, v), s1);
            }
        }
        sum += (double)vf_hsum(vf_add(s, vf_add(s0, s1)));
    }
    return sum;
}

int64_t KERNEL(count)(size_t n, const float *x, float limit)
{
    enum { FEW = 1 << 20 }; /* vectors whose count a float holds */
    const vf zero = vf_set(0.0f), one = vf_set(1.0f), t = vf_set(limit);
    int64_t all = 0;
    for (size_t b = 0; b < n; b += (size_t)FEW * VF_LEN) {
        size_t end = n - b < (size_t)FEW * VF_LEN ? n : b + (size_t)FEW * VF_LEN, i = b;
        vf s[2] = { zero, zero };
        for (; i + 2 * VF_LEN <= end; i += 2 * VF_LEN)
            for (size_t j = 0; j < 2; j++)
                s[j] = vf_add(s[j], vf_sel(vf_gt(vf_load(x + i + j * VF_LEN), t), one, zero));
        for (; i < end; i += VF_LEN)
            s[0] = vf_add(s[0], vf_sel(vf_gt(load_at(x, i, end, -INFINITY), t), one, zero));
        all += (int64_t)vf_hsum(s[0]) + (int64_t)vf_hsum(s[1]);
    }
    return all;
}

/* y may be x: what is written has been read. Every vector is stored: a branch on whether it has
   any would be mispredicted too often. */
int64_t KERNEL(above)(size_t n, const float *x, float limit, float *y)
{
    const vf t = vf_set(limit);
    size_t found = 0, i = 0;
    for (; i + VF_LEN <= n; i += VF_LEN) {
        vf v = vf_load(x + i);
        vm m = vf_gt(v, t);
        vf_store(y + found, vf_pack(m, v));
        found += vm_count(m);
    }
    if (i < n) {
        vf v = vf_load_n(x + i, n - i, -INFINITY);
        vm m = vf_gt(v, t);
        vf_store_n(y + found, vf_pack(m, v), vm_count(m));
        found += vm_count(m);
    }
    return (int64_t)found;
}

bool KERNEL(within)(size_t n, const float *x, float limit, double *sum)
{
    enum { STEP = 4 * VF_LEN };
    const vf zero = vf_set(0.0f);
    vf low = zero, high = zero;
    *sum = 0;
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK, i = b;
        vf s[4] = { zero, zero, zero, zero };
        for (; i + STEP <= end; i += STEP) {
            for (size_t p = 0; p < STEP; p += 16) vf_prefetch(x + i + p + AHEAD);
            for (size_t j = 0; j < 4; j++) {
                vf v = vf_load(x + i + j * VF_LEN);
                s[j] = vf_add(s[j], v);
                low = vf_min(v, low),
                high = vf_max(v, high); /* forget a NaN: the sum does not */
            }
        }
        for (; i < end; i += VF_LEN) {
            vf v = load_at(x, i, end, 0.0f);
            s[0] = vf_add(s[0], v);
            low = vf_min(v, low), high = vf_max(v, high);
        }
        *sum += (double)vf_hsum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
    }
    return -vf_hmax(vf_neg(low)) >= 0 && vf_hmax(high) <= limit && !isnan(*sum);
}

void KERNEL(live_sums)(size_t n, const float *x, const float *w, float shift, double out[3])
{
    const vf off = vf_set(shift);
    const vf zero = vf_set(0.0f), one = vf_set(1.0f), masked = vf_set(-INFINITY);
    out[0] = out[1] = out[2] = 0;
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        vf sx = zero, sw = zero, bx = zero, bw = zero, count = zero;
        for (size_t i = b; i < end; i += VF_LEN) {
            if (i % LANE_BLOCK == 0) bx = vf_add(bx, sx), bw = vf_add(bw, sw), sx = sw = zero;
            vf v = load_at(x, i, end, -INFINITY);
            vf u = w ? load_at(w, i, end, 0.0f) : one;
            vm dead = vf_eq(v, masked);
            u = vf_sel(dead, zero, u);
            sx = vf_fma(u, vf_sel(vf_eq(u, zero), zero, vf_sub(v, off)), sx);
            sw = vf_add(sw, u);
            count = vf_add(count, vf_sel(dead, zero, one));
        }
        out[0] += (double)vf_hsum(vf_add(bx, sx));
        out[1] += (double)vf_hsum(vf_add(bw, sw));
        out[2] += (double)vf_hsum(count);
    }
}

void KERNEL(target_mix)(size_t n, const float *x, const float *q, float p, float u,
                        const float *w, float *out)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f), masked = vf_set(-INFINITY);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf live = vf_sel(vf_eq(load_at(x, i, n, 0.0f), masked), zero, vf_set(u));
        vf t = q ? vf_fma(vf_set(p), load_at(q, i, n, 0.0f), live) : live;
        store_at(out, i, n, vf_mul(w ? load_at(w, i, n, 0.0f) : one, t));
    }
}

/* A y whose lines are written past the caches, up to the first whole line. */
static inline size_t stream_head(const float *y, size_t n)
{
    size_t head = (size_t)(-(uintptr_t)y / sizeof *y) % 16;
    return head < n ? head : n;
}

/* In the low part -inf * 0 would be NaN, and an infinity could meet one of the other sign:
   there x is clamped to where the high part is finite. */
static inline float log_low(const log_arg *a)
{
    return -3.0e38f / (a->s_hi > 1 ? a->s_hi : 1.0f);
}

static inline vf log_vec(vf x, const log_arg *a, float low)
{
    x = vf_mad(x, vf_set(a->unit), vf_set(-a->pre));
    vf hi = vf_fma(x, vf_set(a->s_hi), vf_set(-a->lse_hi));
    vf lo = vf_fma(vf_max(vf_set(low), x), vf_set(a->s_lo), vf_set(-a->lse_lo));
    return vf_add(hi, lo);
}

static inline void log_part(size_t from, size_t to, const float *x, const log_arg *a, float low,
                            float *y)
{
    size_t i = from;
    for (; i + VF_LEN <= to; i += VF_LEN) vf_store(y + i, log_vec(vf_load(x + i), a, low));
    if (i < to) vf_store_n(y + i, log_vec(vf_load_n(x + i, to - i, 0.0f), a, low), to - i);
}

void KERNEL(log_emit)(size_t n, const float *x, const log_arg *arg, float *y, int store)
{
    const log_arg a = *arg;
    const float low = log_low(&a);
    if (store != STORE_STREAM) {
        log_part(0, n, x, &a, low, y);
        return;
    }
    size_t i = stream_head(y, n);
    log_part(0, i, x, &a, low, y);
    for (; i + 16 <= n; i += 16) {
        vf_prefetch(x + i + AHEAD);
        for (size_t j = 0; j < 16; j += VF_LEN)
            vf_stream(y + i + j, log_vec(vf_load(x + i + j), &a, low));
    }
    log_part(i, n, x, &a, low, y);
}

void KERNEL(softmax_bwd)(size_t n, const float *y, const float *dy, float dot, float s,
                         float *dx)
{
    const vf zero = vf_set(0.0f), d = vf_set(dot), f = vf_set(s);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf p = load_at(y, i, n, 0.0f);
        vf g = vf_mul(vf_mul(f, p), vf_sub(load_at(dy, i, n, 0.0f), d));
        store_at(dx, i, n, vf_sel(vf_eq(p, zero), zero, g));
    }
}

void KERNEL(log_softmax_bwd)(size_t n, const float *y, const float *dy, float sum, float s,
                             float *dx)
{
    const exp_consts k = exp_setup_unit();
    const vf zero = vf_set(0.0f), d = vf_set(-sum), f = vf_set(s), masked = vf_set(-INFINITY);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf ly = load_at(y, i, n, -INFINITY);
        vf g = vf_mul(f, vf_fma(exp_vec(ly, &k, true), d, load_at(dy, i, n, 0.0f)));
        store_at(dx, i, n, vf_sel(vf_eq(ly, masked), zero, g));
    }
}

void KERNEL(mask)(size_t n, const float *x, const float *m, float *y)
{
    const vf zero = vf_set(0.0f), masked = vf_set(-INFINITY);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vm out = vf_eq(load_at(m, i, n, 0.0f), zero);
        store_at(y, i, n, vf_sel(out, masked, load_at(x, i, n, 0.0f)));
    }
}

void KERNEL(add)(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += VF_LEN)
        store_at(y, i, n, vf_add(load_at(y, i, n, 0.0f), load_at(x, i, n, 0.0f)));
}

void KERNEL(stream)(size_t n, const float *x, float a, float *y)
{
    const vf f = vf_set(a);
    for (size_t i = 0; i < n; i += VF_LEN) vf_stream(y + i, vf_mul(f, vf_load(x + i)));
}

void KERNEL(mul)(size_t n, const float *x, float *y)
{
    const vf zero = vf_set(0.0f);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf a = load_at(x, i, n, 0.0f);
        store_at(y, i, n, vf_sel(vf_eq(a, zero), zero, vf_mul(load_at(y, i, n, 0.0f), a)));
    }
}

void KERNEL(scale)(size_t n, const float *x, float a, float *y)
{
    const vf f = vf_set(a);
    size_t i = 0;
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN)
        for (size_t j = 0; j < 4; j++)
            vf_store(y + i + j * VF_LEN, vf_mul(f, vf_load(x + i + j * VF_LEN)));
    for (; i < n; i += VF_LEN) store_at(y, i, n, vf_mul(f, load_at(x, i, n, 0.0f)));
}
