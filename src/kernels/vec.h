/*
 * vec.h - vectors of floats that mean the same on every ISA. A kernel file is compiled once for
 * each; what it calls here is inlined. Kernels differ between ISAs by the order of their sums
 * and by results that underflow, in nothing else.
 *
 *   vf_max(a, b), vf_min(a, b)   b if either is NaN: so vf_max(limit, x) lets a NaN x pass, and
 *                                vf_max(acc, x) forgets an earlier NaN of acc
 *   vf_fma(a, b, c)              a * b + c, rounded once; vf_fnma: c - a * b
 *   vf_shift2(p, t)              p * 2^k for t = VF_MAGIC + k, k a whole number in [VF_MIN_K,
 *                                127]; 0 at VF_MIN_K; p finite
 *   vf_round_whole(a)            nearest whole number, ties to even, for |a| < 2^22; a larger
 *                                a, inf and NaN stay as large, inf and NaN
 *   vf_scale2(m, d)              m * 2^d for d a whole number <= 0; 0 for d = -inf; below -126
 *                                it may be 0 early. Finite m; NaN if m is NaN and d > -inf or
 *                                NaN
 *   vf_scale2_add(m, d, sum)     vf_scale2(m, d) + sum
 *   vf_frexp(a, &e)              a as m * 2^e, m returned, within [sqrt(1/2), sqrt(2))
 *   vf_load_n(p, n, fill)        first n lanes from p, nothing else is read; the rest fill
 *   vf_stream(p, v)              store past the caches; p aligned to a vector
 *   vf_mad(a, b, c)              a * b + c, rounded once or twice, whichever is fast
 *   vf_flip(a, b)                a, negated where the sign of b is set
 *   vf_fma_live(a, b, c)         a * b + c, or c where a is 0 (whatever b is)
 *   vf_splice(a, b, s)           lanes lane, lane + 1, .. of a, then 0, 1, .. of b, for s =
 *                                vsplice_at(lane), lane < VF_LEN
 *   vf_transpose(r)              r[i] lane j and r[j] lane i change places, for VF_LEN vectors
 *   vu                           unsigned 32 bits: vu_set, vu_load, vu_xor, vu_and, vu_add;
 *                                vu_mul(a, b, &h): low half of the product, h the high;
 *                                vu_mul_low(a, b): the low half alone; vu_mul_cross: both
 *                                halves, lanes 2 i and 2 i + 1 exchanged; vu_high16(a): a
 *                                >> 16, vu_store_high16 stores it in 16 bits a lane;
 *                                vu_from(a, least, x): x where a >= least, else 0; vu_bits,
 *                                vu_float: a float's bits; vu_signed(a): the float nearest to
 *                                a, a number with sign
 *   vf_pack(m, a)                the lanes of a where m, in their order, vm_count(m) of them;
 *                                then anything
 *   vm                           a lane mask: vf_gt, vf_eq; vf_sel(m, a, b) is a where m
 */
#ifndef SLG_KERNELS_VEC_H
#define SLG_KERNELS_VEC_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#define KERNEL_JOIN2(a, b) slg_##a##_##b
#define KERNEL_JOIN(a, b) KERNEL_JOIN2(a, b)
/* The name of a kernel in this ISA's object, as slg_lse_avx2. */
#define KERNEL(name) KERNEL_JOIN(name, KERNEL_ISA)

#if defined(KERNEL_ISA_avx512)
#include "vec_avx512.h"
#elif defined(KERNEL_ISA_avx2)
#include "vec_avx2.h"
#else
#include "vec_portable.h"
#endif

static inline vf vf_fnma(vf a, vf b, vf c) { return vf_fma(vf_neg(a), b, c); }

/* A vector at i, fill past the end at n; for loops that step by whole vectors. */
static inline vf load_at(const float *x, size_t i, size_t n, float fill)
{
    return n - i < VF_LEN ? vf_load_n(x + i, n - i, fill) : vf_load(x + i);
}

static inline void store_at(float *y, size_t i, size_t n, vf a)
{
    if (n - i < VF_LEN)
        vf_store_n(y + i, a, n - i);
    else
        vf_store(y + i, a);
}

#endif
