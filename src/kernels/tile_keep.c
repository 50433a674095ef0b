/*
 * tile_keep.c - random numbers for dropout: Philox-4x32-10 of core/rng.c, a block a lane. The
 * bits are those of rng_number, so of slg_random.
 */
#include "vec.h"

enum { PIECE = 64 };

/* The four words of the blocks with counter words lo and hi. */
static inline void philox(const uint32_t *lo, const uint32_t *hi, uint64_t seed, vu word[4])
{
    const vu a = vu_set(0xD2511F53u), b = vu_set(0xCD9E8D57u);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    vu c0 = vu_load(lo), c1 = vu_load(hi), c2 = vu_set(0), c3 = c2;
    for (int round = 0; round < 10; round++) {
        vu high_a, high_b, low_a = vu_mul(c0, a, &high_a), low_b = vu_mul(c2, b, &high_b);
        c0 = vu_xor(vu_xor(high_b, c1), vu_set(k0));
        c2 = vu_xor(vu_xor(high_a, c3), vu_set(k1));
        c1 = low_b, c3 = low_a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

void KERNEL(tile_keep)(size_t n, uint64_t seed, uint64_t first, uint64_t per_row,
                       uint32_t threshold, float keep, float *out, size_t ld)
{
    const vu least = vu_set(threshold);
    for (size_t from = 0; from < n; from += PIECE) {
        uint32_t lo[PIECE], hi[PIECE];
        const size_t len = n - from < PIECE ? n - from : PIECE;
        for (size_t i = 0; i < len; i++) {
            const uint64_t block = first + (from + i) * per_row;
            lo[i] = (uint32_t)block, hi[i] = (uint32_t)(block >> 32);
        }
        for (size_t i = 0; i < len; i += VF_LEN) {
            vu word[4];
            philox(lo + i, hi + i, seed, word);
            for (size_t r = 0; r < 4; r++)
                vf_store(out + r * ld + from + i, vu_from(word[r], least, vf_set(keep)));
        }
    }
}
