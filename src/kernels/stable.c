/*
 * stable.c - StableMax: s(z) = 1 + z for z >= 0 and 1 / (1 - z) below, in place of exp(z).
 *
 * With u = 1 + |z|: s is u or 1 / u, log s is +-log u, and d log s / dz is 1 / u. s spans
 * 2^-128 to 2^128, and a row has no maximum that could be taken off (s is not shift invariant):
 * sums are kept in two parts, each scaled to where float32 neither overflows nor flushes.
 *
 * Paper: "Grokking at the Edge of Numerical Stability" (2025). Errors: tests/kernels/bounds.h.
 */
#include "elementary.h"

#define AHEAD (6 * 1024 / 4)

/* Floats after which sums start anew in a second sum. */
enum { LANE_BLOCK = 32 * VF_LEN };

void KERNEL(stable_sum)(size_t n, const float *x, float inv_t, stable_part *part)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f), scale = vf_set(inv_t);
    const vf small = vf_set(1 / STABLE_SCALE), big = vf_set(STABLE_SCALE);
    vf max = vf_set(-INFINITY);
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        vf up = zero, down = zero, ups = zero, downs = zero;
        for (size_t i = b; i < end; i += VF_LEN) {
            if ((i - b) % LANE_BLOCK == 0) {
                ups = vf_add(ups, up), downs = vf_add(downs, down);
                up = down = zero;
            }
            vf_prefetch(x + i + AHEAD);
            vf a = load_at(x, i, end, -INFINITY), z = vf_mul(a, scale);
            vf u = vf_add(one, vf_abs(z));
            vm below = vf_gt(zero, z); /* a NaN goes up */
            max = vf_max(max, a);
            up = vf_add(up, vf_sel(below, zero, vf_mul(u, small)));
            down = vf_add(down, vf_sel(below, vf_div(big, u), zero));
        }
        part->up += (double)vf_hsum(vf_add(ups, up));
        part->down += (double)vf_hsum(vf_add(downs, down));
    }
    float top = vf_hmax(max);
    if (top > part->max) part->max = top;
}

/* log s(z); -inf of -inf; z = +inf is the caller's affair. */
static inline vf log_s(vf z)
{
    vf l = vf_copysign(vf_log1p(vf_abs(z)), z), masked = vf_set(-INFINITY);
    return vf_sel(vf_eq(z, masked), masked, l);
}

void KERNEL(stable_dot)(size_t n, const float *x, float inv_t, const float *q, double out[2])
{
    const vf zero = vf_set(0.0f), scale = vf_set(inv_t);
    out[0] = out[1] = 0;
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        vf d = zero, s = zero, ds = zero, ss = zero;
        for (size_t i = b; i < end; i += VF_LEN) {
            if ((i - b) % LANE_BLOCK == 0) ds = vf_add(ds, d), ss = vf_add(ss, s), d = s = zero;
            vf t = load_at(q, i, end, 0.0f), z = vf_mul(load_at(x, i, end, 0.0f), scale);
            d = vf_fma(t, vf_sel(vf_eq(t, zero), zero, log_s(z)), d);
            s = vf_add(s, t);
        }
        out[0] += (double)vf_hsum(vf_add(ds, d));
        out[1] += (double)vf_hsum(vf_add(ss, s));
    }
}

/* ---- Pass 2: whole lines past the caches, or ordinary stores ----------------------------- */

enum form { PROB, LOG, GRAD, GRAD_Q };

static inline vf emit_vec(vf a, vf q, const stable_out *e, vf b, enum form form)
{
    const vf zero = vf_set(0.0f);
    vf z = vf_mul(a, vf_set(e->inv_t));
    if (form == LOG) return vf_sub(vf_sub(log_s(z), vf_set(e->log_hi)), vf_set(e->log_lo));
    vf u = vf_add(vf_set(1.0f), vf_abs(z)), r = vf_div(vf_set(e->num), u);
    vm below = vf_gt(zero, z);
    vf low = vf_mul(r, vf_set(e->down)); /* a s(z) for z < 0 */
    if (form == PROB)
        return vf_sel(below, low,
                      vf_mul(vf_mul(u, vf_set(1 / STABLE_SCALE)), vf_set(e->up_scaled)));
    vf slope = vf_mul(r, vf_set(1 / e->num));
    vf d = vf_sel(below, vf_mul(low, slope),
                  vf_set(e->up)); /* s times its slope is 1 for z >= 0 */
    return form == GRAD ? d : vf_fma(vf_mul(b, q), slope, d);
}

static inline void emit(size_t n, const float *x, const stable_out *e, float bq, const float *q,
                        float *y, enum form form, bool stream)
{
    const vf b = vf_set(bq), none = vf_set(0.0f);
    size_t i = 0, head = (size_t)(-(uintptr_t)y / sizeof *y) % 16;
    if (stream) /* up to a whole line of y */
        for (head = head < n ? head : n; i < head;) {
            size_t m = head - i < VF_LEN ? head - i : VF_LEN;
            vf t = form == GRAD_Q ? vf_load_n(q + i, m, 0.0f) : none;
            vf_store_n(y + i, emit_vec(vf_load_n(x + i, m, 0.0f), t, e, b, form), m);
            i += m;
        }
    for (; i + 16 <= n; i += 16) {
        vf_prefetch(x + i + AHEAD);
        if (form == GRAD_Q) vf_prefetch(q + i + AHEAD);
        for (size_t j = i; j < i + 16; j += VF_LEN) {
            vf t = form == GRAD_Q ? vf_load(q + j) : none;
            vf v = emit_vec(vf_load(x + j), t, e, b, form);
            if (stream)
                vf_stream(y + j, v);
            else
                vf_store(y + j, v);
        }
    }
    for (; i < n; i += VF_LEN) {
        size_t m = n - i < VF_LEN ? n - i : VF_LEN;
        vf t = form == GRAD_Q ? vf_load_n(q + i, m, 0.0f) : none;
        vf_store_n(y + i, emit_vec(vf_load_n(x + i, m, 0.0f), t, e, b, form), m);
    }
}

/* One copy of the loop for each form and way to store. */
#define EMIT(form, b, q)                                                                       \
    do {                                                                                       \
        if (store == STORE_STREAM)                                                             \
            emit(n, x, e, b, q, y, form, true);                                                \
        else                                                                                   \
            emit(n, x, e, b, q, y, form, false);                                               \
    } while (0)

void KERNEL(stable_prob)(size_t n, const float *x, const stable_out *e, float *y, int store)
{
    EMIT(PROB, 0.0f, NULL);
}

void KERNEL(stable_log)(size_t n, const float *x, const stable_out *e, float *y, int store)
{
    EMIT(LOG, 0.0f, NULL);
}

void KERNEL(stable_grad)(size_t n, const float *x, const stable_out *e, float b, const float *q,
                         float *y, int store)
{
    if (q)
        EMIT(GRAD_Q, b, q);
    else
        EMIT(GRAD, 0.0f, NULL);
}
