/*
 * lse_block.h - pass 1 of a block: see lse.c. Also a step at a time, for a kernel that does
 * pass 1 of one row between steps of pass 2 of another; the same sums in the same order, so
 * the same bits.
 */
#ifndef SLG_KERNELS_LSE_BLOCK_H
#define SLG_KERNELS_LSE_BLOCK_H

#include "exp.h"

#define RISE 30.0f           /* 2^30 * KERNEL_BLOCK is far from overflow */
#define SEED 256             /* floats whose maximum is the first reference */
#define AHEAD (6 * 1024 / 4) /* prefetch distance in floats: past the page that is being read */

enum { STEP = 4 * VF_LEN };

/* Floats after which sums start anew in a second sum: the same value 16 times over, added up in
   a lane, errs by up to 5 * 2^-24; 32 times over by twice that. */
enum { LANE_BLOCK = 16 * STEP };

typedef struct block_sum {
    float sum, max;
} block_sum;

typedef struct lanes {
    vf s0, s1, s2, s3, sum;
    vf m0, m1, m2, m3;
} lanes;

static inline lanes lanes_none(void)
{
    const vf z = vf_set(0.0f), m = vf_set(-INFINITY);
    return (lanes){ z, z, z, z, z, m, m, m, m };
}

/* STEP floats at x + i of a block. */
static inline void lanes_step(lanes *l, const float *x, size_t i, const exp_consts *k,
                              bool plain)
{
    if (i % LANE_BLOCK == 0) {
        l->sum = vf_add(l->sum, vf_add(vf_add(l->s0, l->s1), vf_add(l->s2, l->s3)));
        l->s0 = l->s1 = l->s2 = l->s3 = vf_set(0.0f);
    }
    vf x0 = vf_load(x + i), x1 = vf_load(x + i + VF_LEN);
    vf x2 = vf_load(x + i + 2 * VF_LEN), x3 = vf_load(x + i + 3 * VF_LEN);
    for (size_t p = 0; p < STEP; p += 16) vf_prefetch(x + i + p + AHEAD);
    l->m0 = vf_max(l->m0, x0), l->m1 = vf_max(l->m1, x1);
    l->m2 = vf_max(l->m2, x2), l->m3 = vf_max(l->m3, x3);
    l->s0 = exp_add(l->s0, x0, k, plain), l->s1 = exp_add(l->s1, x1, k, plain);
    l->s2 = exp_add(l->s2, x2, k, plain), l->s3 = exp_add(l->s3, x3, k, plain);
}

/* The rest of a block of n floats, from i on, a multiple of STEP. */
static inline block_sum lanes_rest(lanes *l, size_t n, const float *x, size_t i,
                                   const exp_consts *k, bool plain)
{
    for (; i + STEP <= n; i += STEP) lanes_step(l, x, i, k, plain);
    for (; i < n; i += VF_LEN) {
        vf a = n - i < VF_LEN ? vf_load_n(x + i, n - i, -INFINITY) : vf_load(x + i);
        l->m0 = vf_max(l->m0, a);
        l->s0 = exp_add(l->s0, a, k, plain);
    }
    vf all = vf_add(l->sum, vf_add(vf_add(l->s0, l->s1), vf_add(l->s2, l->s3)));
    return (block_sum){ vf_hsum(all),
                        vf_hmax(vf_max(vf_max(l->m0, l->m1), vf_max(l->m2, l->m3))) };
}

static inline block_sum sum_block(size_t n, const float *x, const exp_consts *k, bool plain)
{
    lanes l = lanes_none();
    return lanes_rest(&l, n, x, 0, k, plain);
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

/* The reference to take a block of a row at. */
static inline float first_ref(size_t n, const float *x, const exp_arg *arg,
                              const lse_part *part)
{
    return part->ref == -INFINITY ? ref_of(KERNEL(max)(n < SEED ? n : SEED, x), arg)
                                  : part->ref;
}

/* Adds a block's sums, taken with k at *ref, to part; takes them again where the maximum
   rose. */
static inline void accept_block(size_t n, const float *x, const exp_arg *arg, lse_part *part,
                                float *ref, exp_consts *k, block_sum b, bool plain)
{
    float wanted = ref_of(b.max, arg);
    if (wanted > *ref + RISE) {
        part->sum = part->sum == 0 ? 0 : ldexp(part->sum, (int)(*ref - wanted));
        *ref = wanted;
        *k = exp_setup(arg, *ref, 1.0f);
        b = sum_block(n, x, k, plain);
    }
    part->sum += (double)b.sum;
    if (b.max > part->max) part->max = b.max;
}

static inline void close_part(lse_part *part, float ref)
{
    part->ref = part->max == -INFINITY && part->sum == 0 ? -INFINITY : ref;
}

#endif
