/*
 * lse.c - pass 1: a piece of a row into (sum, ref), sum * 2^ref. One read of x, however long.
 *
 * The reference is kept from block to block and only raised, and the block done again, when a
 * block's maximum is more than 2^RISE above it: then nothing overflows, and for all but
 * the first block of a row the maximum costs one instruction a vector and no pass of its own.
 * Blocks add up in float32, over 4 x VF_LEN lanes; their sums in double: so the error does not
 * grow with n.
 *
 * Paper: "The Two-Pass Softmax Algorithm" (2020), whose pairs have a reference of their own
 * each.
 */
#include "lse_block.h"

static inline void lse_blocks(size_t n, const float *x, const exp_arg *arg, lse_part *part,
                              bool plain)
{
    if (n == 0) return;
    float ref = first_ref(n, x, arg, part);
    exp_consts k = exp_setup(arg, ref, 1.0f);
    for (size_t i = 0; i < n; i += KERNEL_BLOCK) {
        size_t m = n - i < KERNEL_BLOCK ? n - i : KERNEL_BLOCK;
        accept_block(m, x + i, arg, part, &ref, &k, sum_block(m, x + i, &k, plain), plain);
    }
    close_part(part, ref);
}

void KERNEL(lse)(size_t n, const float *x, const exp_arg *arg, lse_part *part)
{
    if (arg->plain)
        lse_blocks(n, x, arg, part, true);
    else
        lse_blocks(n, x, arg, part, false);
}
