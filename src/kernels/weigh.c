/*
 * weigh.c - sums and gradients of losses that weigh probabilities, which are at hand already,
 * by a row or by themselves: u = c p + b q. What counts are loads: both kernels are one fma and
 * a few operations for two of them.
 */
#include "emit_loop.h"

/* Floats after which sums start anew in a second sum. */
enum { LANE_BLOCK = 32 * VF_LEN };

static inline vf weigh(vf p, vf c, vf b, const float *q, size_t i, size_t end)
{
    const vf own = vf_mul(c, p);
    return q ? vf_fma(b, load_at(q, i, end, 0.0f), own) : own;
}

void KERNEL(weigh_sums)(size_t n, const float *p, float c, float b, const float *q,
                        double out[2])
{
    const vf zero = vf_set(0.0f), vc = vf_set(c), vb = vf_set(b);
    out[0] = out[1] = 0;
    for (size_t from = 0; from < n; from += KERNEL_BLOCK) {
        const size_t end = n - from < KERNEL_BLOCK ? n : from + KERNEL_BLOCK;
        vf s[2] = { zero, zero }, t[2] = { zero, zero }, all_s = zero, all_t = zero;
        for (size_t i = from; i < end; i += 2 * VF_LEN) {
            if ((i - from) % LANE_BLOCK == 0) {
                all_s = vf_add(all_s, vf_add(s[0], s[1])), s[0] = s[1] = zero;
                all_t = vf_add(all_t, vf_add(t[0], t[1])), t[0] = t[1] = zero;
            }
            if (q) vf_prefetch(q + i + AHEAD);
            for (size_t j = 0; j < 2 && i + j * VF_LEN < end; j++) {
                const vf v = load_at(p, i + j * VF_LEN, end, 0.0f);
                const vf u = weigh(v, vc, vb, q, i + j * VF_LEN, end);
                s[j] = vf_fma(u, u, s[j]);
                t[j] = vf_fma_live(v, u, t[j]);
            }
        }
        out[0] += (double)vf_hsum(vf_add(all_s, vf_add(s[0], s[1])));
        out[1] += (double)vf_hsum(vf_add(all_t, vf_add(t[0], t[1])));
    }
}

static inline vf slope(vf p, vf u, vf f, vf s)
{
    const vf zero = vf_set(0.0f);
    return vf_sel(vf_eq(p, zero), zero, vf_mul(vf_mul(f, p), vf_sub(u, s)));
}

void KERNEL(weigh_emit)(size_t n, const float *p, float c, float b, const float *q, float f,
                        float s, float *d, int store)
{
    const vf vc = vf_set(c), vb = vf_set(b), vf_f = vf_set(f), vs = vf_set(s);
    const float *x = p; /* what EMIT_LOOP fetches ahead */
#define VALUE(i, end)                                                                          \
    slope(load_at(p, i, end, 0.0f), weigh(load_at(p, i, end, 0.0f), vc, vb, q, i, end), vf_f,  \
          vs)
    EMIT_LOOP(VALUE);
#undef VALUE
}
