/*
 * normals.c - normal numbers of a counter: Philox-4x32-10 of core/rng.c and Box and Muller's
 * transformation, number i out of the 64 bits of number i alone, low word u, high word v:
 * sqrt(-2 log((u + 1/2) 2^-32)) cos(2 pi (v + 1/2) 2^-32).
 *
 * A block of the generator makes two numbers, in lanes 2 i and 2 i + 1: words 0 and 2 in one
 * vector, 1 and 3 in the other are what a lane each needs, and the two products of a round are
 * one multiplication of vectors with neighbours exchanged.
 *
 * Multiplications and additions are rounded each by itself, and nothing is summed: so the bits
 * are the same on every ISA and in every floating-point mode that rounds to nearest. Relative
 * error below 5 units of 2^-24: angles are reduced as whole numbers, and near u = 1 the
 * logarithm is that of 1 - (1 - u).
 */
#include "elementary.h"

/* What all calls share: in even lanes for word 0 of a block, in odd lanes for word 2. */
typedef struct pairs_consts {
    vu factor, key, grow, step, even; /* step: 0, _, 1, _, ..; even: all bits of even lanes */
} pairs_consts;

static inline vu alternate(uint32_t even, uint32_t odd)
{
    uint32_t w[VF_LEN];
    for (int i = 0; i < VF_LEN; i += 2) w[i] = even, w[i + 1] = odd;
    return vu_load(w);
}

static inline pairs_consts pairs_setup(uint64_t seed)
{
    uint32_t step[VF_LEN];
    for (int i = 0; i < VF_LEN; i++) step[i] = (uint32_t)i / 2;
    return (pairs_consts){ alternate(0xD2511F53u, 0xCD9E8D57u),
                           alternate((uint32_t)seed, (uint32_t)(seed >> 32)),
                           alternate(0x9E3779B9u, 0xBB67AE85u), vu_load(step),
                           alternate(UINT32_MAX, 0) };
}

/* Words 0 and 1 of the counters of the blocks from `block` on. Blocks wrap around at 2^63. */
static inline vu counters(uint64_t block, const pairs_consts *k, vu *high)
{
    if ((uint32_t)block <= UINT32_MAX - VF_LEN) {
        *high = vu_and(vu_set((uint32_t)(block >> 32)), k->even);
        return vu_and(vu_add(vu_set((uint32_t)block), k->step), k->even);
    }
    uint32_t w0[VF_LEN] = { 0 }, w1[VF_LEN] = { 0 };
    for (int i = 0; i < VF_LEN; i += 2) {
        const uint64_t counter = (block + (uint64_t)(i / 2)) & INT64_MAX;
        w0[i] = (uint32_t)counter, w1[i] = (uint32_t)(counter >> 32);
    }
    *high = vu_load(w1);
    return vu_load(w0);
}

/* Low and high words of the numbers of the blocks from `block` on, two a block. */
static inline vu philox_pairs(uint64_t block, const pairs_consts *c, vu *high_words)
{
    vu odd, even = counters(block, c, &odd), key = c->key;
    for (int round = 0; round < 10; round++) {
        vu high, low = vu_mul_cross(even, c->factor, &high);
        even = vu_xor(vu_xor(high, odd), key);
        odd = low;
        key = vu_add(key, c->grow);
    }
    *high_words = odd;
    return even;
}

static inline vf times_add(vf a, vf b, float c) { return vf_add(vf_mul(a, b), vf_set(c)); }

/* w + 1/2, rounded once. */
static inline vf half_up(vu w)
{
    vf low = vf_add(vu_signed(vu_and(w, vu_set(0xFFFF))), vf_set(0.5f));
    return vf_add(vf_mul(vu_signed(vu_high16(w)), vf_set(0x1p16f)), low);
}

/* -log((w + 1/2) 2^-32) */
static inline vf minus_log(vu w)
{
    static const float c[8] = { LOG_POLYNOMIAL };
    vf u = vf_mul(half_up(w), vf_set(0x1p-32f)), e;
    vf left = vf_mul(half_up(vu_xor(w, vu_set(UINT32_MAX))), vf_set(0x1p-32f)); /* 1 - u */
    vf f = vf_sub(vf_frexp(u, &e), vf_set(1.0f));
    vm near = vf_gt(u, vf_set(0.75f)); /* e is 0 there */
    f = vf_sel(near, vf_neg(left), f);
    vf f2 = vf_mul(f, f), p = vf_set(c[7]);
    for (int i = 6; i >= 0; i--) p = times_add(p, f, c[i]);
    vf tail = vf_add(vf_mul(vf_mul(p, f), f2), vf_mul(vf_set(-0.5f), f2));
    tail = vf_add(vf_mul(e, vf_set(0x1.7f7d1cp-20f)), tail); /* log(2), less 16 bits of it */
    return vf_neg(vf_add(vf_mul(e, vf_set(0x1.62e4p-1f)), vf_add(f, tail)));
}

/* cos(2 pi (w + 1/2) 2^-32): a whole number of quarter turns, and y of a quarter, |y| <=
   1/2. */
static inline vf cos_turn(vu w)
{
    const vu bit = vu_set(1u << 30);
    vu from = vu_add(w, vu_set(1u << 29)), odd = vu_and(from, bit);
    vu rest = vu_add(vu_and(from, vu_set((1u << 30) - 1)), vu_set(0u - (1u << 29)));
    vf y = vf_mul(vf_add(vu_signed(rest), vf_set(0.5f)), vf_set(0x1p-30f)), s = vf_mul(y, y);
    vf sine = times_add(s, vf_set(0x1.4bc256p-13f), -0x1.32ca86p-8f);
    sine = times_add(sine, s, 0x1.466bbap-4f);
    sine = times_add(sine, s, -0x1.4abbcep-1f);
    sine = vf_mul(times_add(sine, s, 0x1.921fb6p+0f), y);
    vf cosine = times_add(s, vf_set(0x1.d99f54p-11f), -0x1.55c4eap-6f);
    cosine = times_add(cosine, s, 0x1.03c1dap-2f);
    cosine = times_add(cosine, s, -0x1.3bd3ccp+0f);
    cosine = times_add(cosine, s, 1.0f);
    vf value = vf_add(vu_from(odd, bit, sine), vu_from(vu_xor(odd, bit), bit, cosine));
    return vf_flip(value, vu_float(vu_add(from, bit))); /* quarters 1 and 2 are negative */
}

/* The numbers of VF_LEN / 2 blocks. */
static inline vf normal_vec(uint64_t block, const pairs_consts *c)
{
    vu v, u = philox_pairs(block, c, &v);
    vf far = minus_log(u);
    return vf_mul(vf_sqrt(vf_add(far, far)), cos_turn(v));
}

void KERNEL(normals)(size_t n, uint64_t seed, uint64_t first, float *z)
{
    const pairs_consts c = pairs_setup(seed);
    size_t i = 0;
    if (n > 0 && first % 2) { /* the second of a block */
        float pair[VF_LEN];
        vf_store(pair, normal_vec(first / 2, &c));
        z[i++] = pair[1];
    }
    for (; i < n; i += VF_LEN) store_at(z, i, n, normal_vec((first + i) / 2, &c));
}
