/*
 * tile_gemm.c - products of tiles that lie in cache: the inner part of attention, forward,
 * backward and decoding. C [m, n] = A [m, k] B [k, n] (or is added to).
 *
 * A block of C of mr rows and nv vectors stays in registers while k runs; elements of A are
 * broadcast one by one, so A may have any strides and be read as its transpose; rows of B are
 * vectors. Nothing is packed. mr nv is some 24 where there are 32 registers, so that the
 * multiplication ports never wait for a sum, and loads (mr + nv) stay below products. Each
 * element of C is one chain of k sums, in order, whatever the block: so results do not depend
 * on how C is cut.
 */
#include "vec.h"

#define INLINE static inline __attribute__((always_inline))

#if VF_LEN == 16
enum { NV = 4, MR4 = 6, MR3 = 8, MR2 = 12, MR1 = 12 };
#else
enum { NV = 2, MR2 = VF_LEN == 8 ? 6 : 4, MR1 = 8 };
#endif
enum { MOST = 12 };

/* One block. mr and nv are constants of the caller, so that acc is registers; last: lanes of
   the last vector, VF_LEN unless `part`. */
INLINE void block(const tile_product *t, size_t i, size_t j, const size_t mr, const size_t nv,
                  const bool part, size_t last)
{
    vf acc[MOST][NV];
    const float *a = t->a + (ptrdiff_t)i * t->row, *b = t->b + j;
#pragma GCC unroll 12
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < nv; c++) acc[r][c] = vf_set(0.0f);
    for (size_t p = 0; p < t->k; p++) {
        vf bv[NV];
#pragma GCC unroll 4
        for (size_t c = 0; c < nv; c++)
            bv[c] = part ? vf_load_n(b + c * VF_LEN, last, 0.0f) : vf_load(b + c * VF_LEN);
#pragma GCC unroll 12
        for (size_t r = 0; r < mr; r++) {
            const vf av = vf_set(a[(ptrdiff_t)r * t->row]);
#pragma GCC unroll 4
            for (size_t c = 0; c < nv; c++) acc[r][c] = vf_mad(av, bv[c], acc[r][c]);
        }
        a += t->col;
        b += t->ldb;
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < nv; c++) {
            float *to = t->c + (ptrdiff_t)(i + r) * t->ldc + (ptrdiff_t)(j + c * VF_LEN);
            if (part) {
                if (t->add) acc[r][c] = vf_add(acc[r][c], vf_load_n(to, last, 0.0f));
                vf_store_n(to, acc[r][c], last);
            } else {
                if (t->add) acc[r][c] = vf_add(acc[r][c], vf_load(to));
                vf_store(to, acc[r][c]);
            }
        }
}

/* A column of blocks nv vectors wide. */
INLINE void stripe(const tile_product *t, size_t j, const size_t mr, const size_t nv,
                   const bool part, size_t last)
{
    size_t i = 0;
    for (; i + mr <= t->m; i += mr) block(t, i, j, mr, nv, part, last);
    if (mr > 8 && i + 8 <= t->m) block(t, i, j, 8, nv, part, last), i += 8;
    if (mr > 4 && i + 4 <= t->m) block(t, i, j, 4, nv, part, last), i += 4;
    if (mr > 2 && i + 2 <= t->m) block(t, i, j, 2, nv, part, last), i += 2;
    if (i < t->m) block(t, i, j, 1, nv, part, last);
}

/* A product with a factor of 0 adds nothing, even where the other is NaN or infinite: pairs
   that are hidden have p = 0. The same sums in the same order, so the same bits where all is
   finite. */
static void keep_zeros(const tile_product *t)
{
    const vf zero = vf_set(0.0f);
    for (size_t i = 0; i < t->m; i++)
        for (size_t j = 0; j < t->n; j += VF_LEN) {
            const size_t len = t->n - j < VF_LEN ? t->n - j : VF_LEN;
            const float *a = t->a + (ptrdiff_t)i * t->row, *b = t->b + j;
            float *to = t->c + (ptrdiff_t)i * t->ldc + (ptrdiff_t)j;
            vf acc = zero;
            for (size_t p = 0; p < t->k; p++, a += t->col, b += t->ldb) {
                const vf bv = vf_load_n(b, len, 0.0f);
                if (*a != 0) acc = vf_sel(vf_eq(bv, zero), acc, vf_mad(vf_set(*a), bv, acc));
            }
            if (t->add) acc = vf_add(acc, vf_load_n(to, len, 0.0f));
            vf_store_n(to, acc, len);
        }
}

void KERNEL(tile_gemm)(const tile_product *t)
{
    if (t->keep_zeros) {
        keep_zeros(t);
        return;
    }
    size_t j = 0;
    const size_t whole = t->n - t->n % VF_LEN;
#if VF_LEN == 16
    for (; j + 4 * VF_LEN <= whole; j += 4 * VF_LEN) stripe(t, j, MR4, 4, false, 0);
    if (whole - j == 3 * VF_LEN) stripe(t, j, MR3, 3, false, 0), j = whole;
#endif
    for (; j + 2 * VF_LEN <= whole; j += 2 * VF_LEN) stripe(t, j, MR2, 2, false, 0);
    if (j < whole) stripe(t, j, MR1, 1, false, 0), j = whole;
    if (j < t->n) stripe(t, j, MR1, 1, true, t->n - j);
}

bool KERNEL(finite)(size_t n, const float *x)
{
    const vf zero = vf_set(0.0f);
    vf s0 = zero, s1 = zero;
    size_t i = 0;
    for (; i + 2 * VF_LEN <= n; i += 2 * VF_LEN) {
        s0 = vf_mad(zero, vf_load(x + i), s0);
        s1 = vf_mad(zero, vf_load(x + i + VF_LEN), s1);
    }
    for (; i < n; i += VF_LEN)
        s0 = vf_mad(zero, vf_load_n(x + i, n - i < VF_LEN ? n - i : VF_LEN, 0.0f), s0);
    return vf_hsum(vf_add(s0, s1)) == 0;
}

/* Blocks of VF_LEN by VF_LEN go through registers. */
void KERNEL(transpose)(size_t m, size_t n, const float *x, ptrdiff_t ldx, float a, float *y,
                       ptrdiff_t ldy)
{
    const vf factor = vf_set(a), zero = vf_set(0.0f);
    for (size_t i = 0; i < m; i += VF_LEN)
        for (size_t j = 0; j < n; j += VF_LEN) {
            const size_t rows = m - i < VF_LEN ? m - i : VF_LEN;
            const size_t cols = n - j < VF_LEN ? n - j : VF_LEN;
            const float *from = x + (ptrdiff_t)i * ldx + (ptrdiff_t)j;
            float *to = y + (ptrdiff_t)j * ldy + (ptrdiff_t)i;
            vf r[VF_LEN];
            if (rows == VF_LEN && cols == VF_LEN) {
#pragma GCC unroll 16
                for (size_t p = 0; p < VF_LEN; p++)
                    r[p] = vf_mul(factor, vf_load(from + (ptrdiff_t)p * ldx));
                vf_transpose(r);
#pragma GCC unroll 16
                for (size_t p = 0; p < VF_LEN; p++) vf_store(to + (ptrdiff_t)p * ldy, r[p]);
                continue;
            }
            for (size_t p = 0; p < VF_LEN; p++)
                r[p] = p < rows
                           ? vf_mul(factor, vf_load_n(from + (ptrdiff_t)p * ldx, cols, 0.0f))
                           : zero;
            vf_transpose(r);
            for (size_t p = 0; p < cols; p++) vf_store_n(to + (ptrdiff_t)p * ldy, r[p], rows);
        }
}
