/*
 * lse.c - pass 1: a piece of a row into (sum, ref), sum * 2^ref. One read of x, however long.
 *
 * The reference is kept from block to block and only raised, and the block done again, when a
 * block's maximum is more than 2^RISE above it: then nothing overflows, and for all but the first
 * block of a row the maximum costs one instruction a vector and no pass of its own. Blocks add up
 * in float32, over 4 x VF_LEN lanes; their sums in double: so the error does not grow with n.
 *
 * Paper: "The Two-Pass Softmax Algorithm" (2020), whose pairs have a reference of their own each.
 */
#include "exp.h"

#define RISE 30.0f          /* 2^30 * KERNEL_BLOCK is far from overflow */
#define SEED 256            /* floats whose maximum is the first reference */
#define AHEAD (6 * 1024 / 4) /* prefetch distance in floats: past the page that is being read */

/* Floats after which sums start anew in a second sum: the same value 16 times over, added up in a
   lane, errs by up to 5 * 2^-24; 32 times over by twice that. */
enum { LANE_BLOCK = 16 * 4 * VF_LEN };

typedef struct block_sum { float sum, max; } block_sum;

static inline block_sum sum_block(size_t n, const float *x, const exp_consts *k, bool plain)
{
    vf s0 = vf_set(0.0f), s1 = s0, s2 = s0, s3 = s0, sum = s0;
    vf m0 = vf_set(-INFINITY), m1 = m0, m2 = m0, m3 = m0;
    size_t i = 0;
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN) {
        if (i % LANE_BLOCK == 0) {
            sum = vf_add(sum, vf_add(vf_add(s0, s1), vf_add(s2, s3)));
            s0 = s1 = s2 = s3 = vf_set(0.0f);
        }
        vf x0 = vf_load(x + i), x1 = vf_load(x + i + VF_LEN);
        vf x2 = vf_load(x + i + 2 * VF_LEN), x3 = vf_load(x + i + 3 * VF_LEN);
        for (size_t p = 0; p < 4 * VF_LEN; p += 16) vf_prefetch(x + i + p + AHEAD);
        m0 = vf_max(m0, x0), m1 = vf_max(m1, x1), m2 = vf_max(m2, x2), m3 = vf_max(m3, x3);
        s0 = exp_add(s0, x0, k, plain), s1 = exp_add(s1, x1, k, plain);
        s2 = exp_add(s2, x2, k, plain), s3 = exp_add(s3, x3, k, plain);
    }
    for (; i < n; i += VF_LEN) {
        vf a = n - i < VF_LEN ? vf_load_n(x + i, n - i, -INFINITY) : vf_load(x + i);
        m0 = vf_max(m0, a);
        s0 = exp_add(s0, a, k, plain);
    }
    return (block_sum){ vf_hsum(vf_add(sum, vf_add(vf_add(s0, s1), vf_add(s2, s3)))),
                        vf_hmax(vf_max(vf_max(m0, m1), vf_max(m2, m3))) };
}

static inline float clamp_ref(float ref)
{
    return ref > EXP_LIMIT ? EXP_LIMIT : ref > -EXP_LIMIT ? ref : -EXP_LIMIT; /* of a NaN too */
}

/* The whole reference that puts max at 1, within what exp_setup takes. */
static inline float ref_of(float max, const exp_arg *arg)
{
    return clamp_ref(rintf((max - arg->pre) * arg->log2e_t));
}

static inline void lse_blocks(size_t n, const float *x, const exp_arg *arg, lse_part *part,
                              bool plain)
{
    float ref = part->ref;
    exp_consts k = { 0 };
    bool ready = false;
    for (size_t i = 0; i < n; i += KERNEL_BLOCK) {
        size_t m = n - i < KERNEL_BLOCK ? n - i : KERNEL_BLOCK;
        if (!ready) {
            if (ref == -INFINITY) ref = ref_of(KERNEL(max)(m < SEED ? m : SEED, x + i), arg);
            k = exp_setup(arg, ref, 1.0f);
            ready = true;
        }
        block_sum b = sum_block(m, x + i, &k, plain);
        float wanted = ref_of(b.max, arg);
        if (wanted > ref + RISE) {
            part->sum = part->sum == 0 ? 0 : ldexp(part->sum, (int)(ref - wanted));
            ref = wanted;
            k = exp_setup(arg, ref, 1.0f);
            b = sum_block(m, x + i, &k, plain);
        }
        part->sum += (double)b.sum;
        if (b.max > part->max) part->max = b.max;
    }
    part->ref = part->max == -INFINITY && part->sum == 0 ? -INFINITY : ref;
}

void KERNEL(lse)(size_t n, const float *x, const exp_arg *arg, lse_part *part)
{
    if (arg->plain)
        lse_blocks(n, x, arg, part, true);
    else
        lse_blocks(n, x, arg, part, false);
}
