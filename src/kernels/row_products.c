/*
 * row_products.c - a block of rows of data times a few vectors, and back: what an objective
 * that is linear in its rows does with each block while it lies in the cache.
 *
 * With few vectors (classes) a product that packs its operands spends its time packing, and
 * lanes over vectors stay empty. Here lanes run along the rows of x, which is contiguous, in
 * both directions: dots keep sums of lanes apart until the end of a row, sums over rows keep
 * a stripe of the result in registers. Nothing is packed, and rows of float32 are widened in
 * registers where sums are double.
 */
#include "vec_double.h"

#define INLINE static inline __attribute__((always_inline))

#if VF_LEN == 16
enum { DOT_ROWS = 4, DOT_COLS = 5, SUM_ROWS = 6, SUM_VECS = 4 };
#else
enum { DOT_ROWS = 4, DOT_COLS = 2, SUM_ROWS = 4, SUM_VECS = 2 };
#endif

INLINE void doubles_add_to(double *to, vd a, size_t n)
{
    if (n < VD_LEN)
        vd_store_n(to, vd_load_n(to, n) + a, n);
    else
        vd_store(to, vd_load(to) + a);
}

INLINE void floats_add_to(double *to, vf a, size_t n)
{
    float half[VF_LEN];
    vf_store(half, a);
    doubles_add_to(to, vd_widen(half), n);
    if (n > VD_LEN) doubles_add_to(to + VD_LEN, vd_widen(half + VD_LEN), n - VD_LEN);
}

/* Elements after which sums of lanes go to double. */
enum { DOT_PIECE = 128 * VF_LEN };

#define SUFFIX f32
#define X float
#define T float
#define V vf
#define LEN VF_LEN
#define V_ZERO vf_set(0.0f)
#define V_SET vf_set
#define V_LOAD vf_load
#define V_LOAD_N(p, n) vf_load_n(p, n, 0.0f)
#define V_ADD_TO floats_add_to
#define V_MAD vf_mad
#define V_HSUM vf_hsum
#define X_LOAD vf_load
#define X_LOAD_N(p, n) vf_load_n(p, n, 0.0f)
#include "row_product_loops.h"

#define SUFFIX wide
#define X float
#define T double
#define V vd
#define LEN VD_LEN
#define V_ZERO vd_set(0)
#define V_SET vd_set
#define V_LOAD vd_load
#define V_LOAD_N vd_load_n
#define V_ADD_TO doubles_add_to
#define V_MAD vd_mad
#define V_HSUM vd_hsum
#define X_LOAD vd_widen
#define X_LOAD_N vd_widen_n
#include "row_product_loops.h"

#define SUFFIX f64
#define X double
#define T double
#define V vd
#define LEN VD_LEN
#define V_ZERO vd_set(0)
#define V_SET vd_set
#define V_LOAD vd_load
#define V_LOAD_N vd_load_n
#define V_ADD_TO doubles_add_to
#define V_MAD vd_mad
#define V_HSUM vd_hsum
#define X_LOAD vd_load
#define X_LOAD_N vd_load_n
#include "row_product_loops.h"
