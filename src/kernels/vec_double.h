/*
 * vec_double.h - vectors of doubles, half as many as of floats, for kernels whose sums must
 * hold more digits than float32 has. Beside these functions the operators of the compiler's
 * vector extension are used. As in vec.h they mean the same on every ISA.
 *
 *   vd_max(a, b), vd_min(a, b)   b if either is NaN
 *   vd_mad(a, b, c)              a * b + c, rounded once or twice, whichever is fast
 *   vd_load_n(p, n)              first n lanes from p, nothing else is read; the rest 0
 *   vd_widen(p), vd_widen_n      the same of floats, which are widened
 *   vd_narrow(p, a), vd_narrow_n the lanes, or the first n, rounded to floats at p
 *   vd_power2(k)                 2^k for whole k in [-1022, 1023]; 0 at -1023, inf at 1024
 *   vd_whole(a)                  nearest whole number, ties to even, |a| < 2^51
 *   vd_split(a, &e)              a >= 1 as m 2^e, m returned, in [sqrt(1/2), sqrt(2))
 */
#ifndef SLG_KERNELS_VEC_DOUBLE_H
#define SLG_KERNELS_VEC_DOUBLE_H

#include "vec.h"

#define VD_LEN (VF_LEN / 2)

/* 1.5 * 2^52: adding it rounds to a whole number, which is left in the low bits. */
#define VD_MAGIC 0x1.8p52

#if VF_LEN == 16
typedef __m512d vd;
typedef int64_t vl __attribute__((vector_size(64)));
static inline vd vd_set(double a) { return _mm512_set1_pd(a); }
static inline vd vd_load(const double *p) { return _mm512_loadu_pd(p); }
static inline void vd_store(double *p, vd a) { _mm512_storeu_pd(p, a); }
static inline __mmask8 vd_first_n(size_t n) { return (__mmask8)((1u << n) - 1u); }
static inline vd vd_load_n(const double *p, size_t n)
{
    return _mm512_maskz_loadu_pd(vd_first_n(n), p);
}
static inline void vd_store_n(double *p, vd a, size_t n)
{
    _mm512_mask_storeu_pd(p, vd_first_n(n), a);
}
static inline vd vd_widen(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
static inline vd vd_widen_n(const float *p, size_t n)
{
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(vd_first_n(n), p));
}
static inline void vd_narrow(float *p, vd a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a)); }
static inline void vd_narrow_n(float *p, vd a, size_t n)
{
    _mm256_mask_storeu_ps(p, vd_first_n(n), _mm512_cvtpd_ps(a));
}
static inline vd vd_mad(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
static inline vd vd_max(vd a, vd b) { return _mm512_max_pd(a, b); }
static inline vd vd_min(vd a, vd b) { return _mm512_min_pd(a, b); }
static inline double vd_hsum(vd a) { return _mm512_reduce_add_pd(a); }
#elif VF_LEN == 8
typedef __m256d vd;
typedef int64_t vl __attribute__((vector_size(32)));
static inline vd vd_set(double a) { return _mm256_set1_pd(a); }
static inline vd vd_load(const double *p) { return _mm256_loadu_pd(p); }
static inline void vd_store(double *p, vd a) { _mm256_storeu_pd(p, a); }
static inline __m256i vd_first_n(size_t n)
{
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x((int64_t)n), _mm256_setr_epi64x(0, 1, 2, 3));
}
static inline vd vd_load_n(const double *p, size_t n)
{
    return _mm256_maskload_pd(p, vd_first_n(n));
}
static inline void vd_store_n(double *p, vd a, size_t n)
{
    _mm256_maskstore_pd(p, vd_first_n(n), a);
}
static inline vd vd_widen(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
static inline vd vd_widen_n(const float *p, size_t n)
{
    const __m128i few = _mm_cmpgt_epi32(_mm_set1_epi32((int)n), _mm_setr_epi32(0, 1, 2, 3));
    return _mm256_cvtps_pd(_mm_maskload_ps(p, few));
}
static inline void vd_narrow(float *p, vd a) { _mm_storeu_ps(p, _mm256_cvtpd_ps(a)); }
static inline void vd_narrow_n(float *p, vd a, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = (float)a[i];
}
static inline vd vd_mad(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); }
static inline vd vd_max(vd a, vd b) { return _mm256_max_pd(a, b); }
static inline vd vd_min(vd a, vd b) { return _mm256_min_pd(a, b); }
static inline double vd_hsum(vd a)
{
    const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
#else
typedef double vd __attribute__((vector_size(16)));
typedef double vd_unaligned __attribute__((vector_size(16), aligned(8), may_alias));
typedef int64_t vl __attribute__((vector_size(16)));
static inline vd vd_set(double a) { return (vd){ a, a }; }
static inline vd vd_load(const double *p) { return (vd) * (const vd_unaligned *)p; }
static inline void vd_store(double *p, vd a) { *(vd_unaligned *)p = (vd_unaligned)a; }
static inline vd vd_load_n(const double *p, size_t n) { return (vd){ n > 0 ? p[0] : 0, 0 }; }
static inline void vd_store_n(double *p, vd a, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = a[i];
}
static inline vd vd_widen(const float *p) { return (vd){ (double)p[0], (double)p[1] }; }
static inline vd vd_widen_n(const float *p, size_t n)
{
    return (vd){ n > 0 ? (double)p[0] : 0, 0 };
}
static inline void vd_narrow(float *p, vd a) { p[0] = (float)a[0], p[1] = (float)a[1]; }
static inline void vd_narrow_n(float *p, vd a, size_t n)
{
    if (n > 0) p[0] = (float)a[0];
}
static inline vd vd_mad(vd a, vd b, vd c) { return a * b + c; }
static inline vd vd_max(vd a, vd b)
{
    const vl m = a > b;
    return (vd)((m & (vl)a) | (~m & (vl)b));
}
static inline vd vd_min(vd a, vd b)
{
    const vl m = a < b;
    return (vd)((m & (vl)a) | (~m & (vl)b));
}
static inline double vd_hsum(vd a) { return a[0] + a[1]; }
#endif

/* Of a whole number: the low bits of k + 1.5 * 2^52 + 1023 are the exponent. */
static inline vd vd_power2(vd k) { return (vd)((vl)(k + vd_set(VD_MAGIC + 1023)) << 52); }

static inline vd vd_whole(vd a)
{
    const vd magic = vd_set(VD_MAGIC);
    return (a + magic) - magic;
}

static inline vd vd_split(vd a, vd *e)
{
    const vl w = (vl)a, k = (w - 0x3FE6A09E667F3BCD) >> 52;
    *e = (vd)((vl)vd_set(VD_MAGIC) + k) - vd_set(VD_MAGIC);
    return (vd)(w - (k << 52));
}

#endif
