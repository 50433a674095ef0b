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

typedef vf v_float;
typedef vd v_double;
enum { LEN_float = VF_LEN, LEN_double = VD_LEN };

INLINE vf set_float(float a) { return vf_set(a); }
INLINE vd set_double(double a) { return vd_set(a); }
INLINE vf load_float_float(const float *p) { return vf_load(p); }
INLINE vd load_float_double(const float *p) { return vd_widen(p); }
INLINE vd load_double_double(const double *p) { return vd_load(p); }
INLINE vf load_n_float_float(const float *p, size_t n) { return vf_load_n(p, n, 0.0f); }
INLINE vd load_n_float_double(const float *p, size_t n) { return vd_widen_n(p, n); }
INLINE vd load_n_double_double(const double *p, size_t n) { return vd_load_n(p, n); }
INLINE vf mad_float(vf a, vf b, vf c) { return vf_mad(a, b, c); }
INLINE vd mad_double(vd a, vd b, vd c) { return vd_mad(a, b, c); }
INLINE double hsum_float(vf a) { return (double)vf_hsum(a); }
INLINE double hsum_double(vd a) { return vd_hsum(a); }

/* The first n elements of a, added to doubles. */
INLINE void add_to_double(double *to, vd a, size_t n)
{
    if (n < VD_LEN)
        vd_store_n(to, vd_load_n(to, n) + a, n);
    else
        vd_store(to, vd_load(to) + a);
}

INLINE void add_to_float(double *to, vf a, size_t n)
{
    float half[VF_LEN];
    vf_store(half, a);
    add_to_double(to, vd_widen(half), n);
    if (n > VD_LEN) add_to_double(to + VD_LEN, vd_widen(half + VD_LEN), n - VD_LEN);
}

/* Elements after which sums of lanes go to double. */
enum { DOT_PIECE = 128 * VF_LEN };

#define SUFFIX f32
#define X float
#define T float
#include "row_product_loops.h"

#define SUFFIX wide
#define X float
#define T double
#include "row_product_loops.h"

#define SUFFIX f64
#define X double
#define T double
#include "row_product_loops.h"
