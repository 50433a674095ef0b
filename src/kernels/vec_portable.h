/*
 * vec_portable.h - vec.h in plain C: 4 floats by the compiler's vector extension, which becomes
 * SSE2, NEON or scalar code. No instruction beyond the target's baseline.
 */
#ifndef SLG_KERNELS_VEC_PORTABLE_H
#define SLG_KERNELS_VEC_PORTABLE_H

#define VF_LEN 4
typedef float vf __attribute__((vector_size(16)));
typedef float vf_unaligned __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t vm __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));

#define VF_MAGIC 0x1.8000FEp23f /* as for AVX2 */
#define VF_MIN_K (-127)

static inline vf vf_set(float a) { return (vf){ a, a, a, a }; }
static inline vf vf_load(const float *p) { return (vf) * (const vf_unaligned *)p; }
static inline void vf_store(float *p, vf a) { *(vf_unaligned *)p = (vf_unaligned)a; }
#if defined(__SSE2__)
#include <emmintrin.h>
static inline void vf_stream(float *p, vf a) { _mm_stream_ps(p, (__m128)a); }
#else
static inline void vf_stream(float *p, vf a) { vf_store(p, a); }
#endif
static inline void vf_prefetch(const float *p) { __builtin_prefetch(p); }

static inline vf vf_load_n(const float *p, size_t n, float fill)
{
    vf a = vf_set(fill);
    for (size_t i = 0; i < n; i++) a[i] = p[i];
    return a;
}
static inline void vf_store_n(float *p, vf a, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = a[i];
}

static inline vf vf_sel(vm m, vf a, vf b) { return (vf)((m & (vm)a) | (~m & (vm)b)); }
static inline vm vf_gt(vf a, vf b) { return a > b; }
static inline vm vf_eq(vf a, vf b) { return a == b; }
static inline bool vm_all(vm m) { return (m[0] & m[1] & m[2] & m[3]) != 0; }
static inline bool vm_any(vm m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
static inline size_t vm_first(vm m)
{
    size_t i = 0;
    while (i < VF_LEN && !m[i]) i++;
    return i;
}

static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
static inline vf vf_neg(vf a) { return -a; }
static inline vf vf_abs(vf a) { return (vf)((vm)a & 0x7FFFFFFF); }
static inline vf vf_copysign(vf a, vf sign)
{
    return (vf)(((vm)a & 0x7FFFFFFF) | ((vm)sign & (vm)vf_set(-0.0f)));
}
static inline vf vf_sqrt(vf a)
{
    for (int i = 0; i < VF_LEN; i++) a[i] = sqrtf(a[i]);
    return a;
}
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
static inline vf vf_fma(vf a, vf b, vf c)
{
    for (int i = 0; i < VF_LEN; i++) a[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return a;
}
static inline vf vf_mad(vf a, vf b, vf c) { return vf_fma(a, b, c); }
#else
/* The product is exact in double; the sum is rounded to double, then to float: within 2^-29 ulp
   of one rounding. */
#if defined(__SSE2__)
static inline vf vf_fma(vf a, vf b, vf c)
{
    __m128 p = (__m128)a, q = (__m128)b, r = (__m128)c;
    __m128d lo = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(p), _mm_cvtps_pd(q)), _mm_cvtps_pd(r));
    p = _mm_movehl_ps(p, p), q = _mm_movehl_ps(q, q), r = _mm_movehl_ps(r, r);
    __m128d hi = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(p), _mm_cvtps_pd(q)), _mm_cvtps_pd(r));
    return (vf)_mm_movelh_ps(_mm_cvtpd_ps(lo), _mm_cvtpd_ps(hi));
}
#else
static inline vf vf_fma(vf a, vf b, vf c)
{
    for (int i = 0; i < VF_LEN; i++) a[i] = (float)((double)a[i] * (double)b[i] + (double)c[i]);
    return a;
}
#endif
static inline vf vf_mad(vf a, vf b, vf c) { return a * b + c; }
#endif
static inline vf vf_flip(vf a, vf b) { return (vf)((vm)a ^ ((vm)b & (vm)vf_set(-0.0f))); }
static inline vf vf_fma_live(vf a, vf b, vf c)
{
    return vf_sel(a == vf_set(0.0f), c, vf_mad(a, b, c));
}
static inline size_t vm_count(vm m) { return (size_t) - (m[0] + m[1] + m[2] + m[3]); }
static inline vf vf_pack(vm m, vf a)
{
    vf b = a;
    for (int i = 0, to = 0; i < VF_LEN; i++)
        if (m[i]) b[to++] = a[i];
    return b;
}
static inline vf vf_max(vf a, vf b) { return vf_sel(a > b, a, b); }
static inline vf vf_min(vf a, vf b) { return vf_sel(a < b, a, b); }

static inline vf vf_shift2(vf p, vf t) { return p * (vf)((vu)t << 23); }

static inline vf vf_shift2_add(vf p, vf t, vf sum) { return vf_shift2(p, t) + sum; }

static inline vf vf_round_whole(vf a)
{
    const vf magic = vf_set(0x1.8p23f);
    return (a + magic) - magic;
}
static inline vf vf_scale2(vf m, vf d)
{
    return vf_shift2(m, vf_max(vf_set((float)VF_MIN_K), d) + vf_set(VF_MAGIC));
}
static inline vf vf_scale2_add(vf m, vf d, vf sum) { return vf_scale2(m, d) + sum; }

/* a = m 2^e, m in [sqrt(1/2), sqrt(2)), e a whole number; a positive and normal. Of other a
   anything, but without overflow. */
static inline vf vf_frexp(vf a, vf *e)
{
    vm k = (vm)((vu)a - 0x3F3504F3u) >> 23;
    *e = __builtin_convertvector(k, vf);
    return (vf)((vu)a - ((vu)k << 23));
}

typedef size_t vsplice;
static inline vsplice vsplice_at(size_t lane) { return lane; }
static inline vf vf_splice(vf a, vf b, vsplice s)
{
    float both[2 * VF_LEN];
    vf_store(both, a), vf_store(both + VF_LEN, b);
    return vf_load(both + s);
}

static inline void vf_transpose(vf r[VF_LEN])
{
    const vf a = r[0], b = r[1], c = r[2], d = r[3];
    for (int i = 0; i < VF_LEN; i++) r[i] = (vf){ a[i], b[i], c[i], d[i] };
}

static inline float vf_hmax(vf a)
{
    float m = a[0] > a[2] ? a[0] : a[2], n = a[1] > a[3] ? a[1] : a[3];
    return m > n ? m : n;
}
static inline float vf_hsum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }

/* Whole numbers of 32 bits without sign: vu. */
static inline vu vu_set(uint32_t a) { return (vu){ a, a, a, a }; }
static inline vu vu_load(const uint32_t *p) { return (vu){ p[0], p[1], p[2], p[3] }; }
static inline vu vu_xor(vu a, vu b) { return a ^ b; }
static inline vu vu_and(vu a, vu b) { return a & b; }
static inline vu vu_add(vu a, vu b) { return a + b; }
static inline vu vu_mul_low(vu a, vu b) { return a * b; }
static inline vu vu_high16(vu a) { return a >> 16; }
static inline void vu_store_high16(uint16_t *p, vu a)
{
    for (int i = 0; i < VF_LEN; i++) p[i] = (uint16_t)(a[i] >> 16);
}
static inline vu vu_bits(vf a) { return (vu)a; }
static inline vf vu_float(vu a) { return (vf)a; }
static inline vu vu_mul(vu a, vu b, vu *high)
{
    vu h = { 0 };
    for (int i = 0; i < VF_LEN; i++) h[i] = (uint32_t)((uint64_t)a[i] * b[i] >> 32);
    *high = h;
    return a * b;
}
static inline vu vu_mul_cross(vu a, vu b, vu *high)
{
    vu h, low = vu_mul(a, b, &h);
    *high = (vu){ h[1], h[0], h[3], h[2] };
    return (vu){ low[1], low[0], low[3], low[2] };
}
static inline vf vu_signed(vu a) { return __builtin_convertvector((vm)a, vf); }
static inline vf vu_from(vu a, vu least, vf value)
{
    return (vf)((vm)(a >= least) & (vm)value);
}

/* bfloat16 and float16. Rounding to nearest even; NaN stays NaN (made quiet). */
static inline vf vf_from_bf16(const uint16_t *p)
{
    return (vf)((vu){ p[0], p[1], p[2], p[3] } << 16);
}
static inline void vf_to_bf16(uint16_t *p, vf a)
{
    vu w = (vu)a, r = w + 0x7FFF + ((w >> 16) & 1);
    r = (vu)vf_sel(a == a, (vf)r, (vf)(w | 0x400000)) >> 16;
    for (int i = 0; i < VF_LEN; i++) p[i] = (uint16_t)r[i];
}

static inline float f16_widen(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, frac = h & 0x3FF, w;
    if (exp == 0) { /* zero, or subnormal: frac * 2^-24 */
        float small = (float)frac * 0x1p-24f;
        memcpy(&w, &small, 4);
    } else if (exp == 31) {
        w = 0x7F800000 | frac << 13 | (frac ? 0x400000 : 0);
    } else {
        w = (exp + 112) << 23 | frac << 13;
    }
    w |= sign;
    float x;
    memcpy(&x, &w, 4);
    return x;
}
static inline uint16_t f16_narrow(float x)
{
    uint32_t w, sign;
    memcpy(&w, &x, 4);
    sign = (w >> 16) & 0x8000;
    w &= 0x7FFFFFFF;
    if (w > 0x7F800000) return (uint16_t)(sign | 0x7E00 | ((w >> 13) & 0x3FF)); /* NaN */
    if (w >= 0x477FF000)
        return (uint16_t)(sign | 0x7C00); /* to
                                                                                   infinity */
    if (w < 0x38800000) {                 /* subnormal: adding 0.5 rounds at 2^-24 */
        float y;
        memcpy(&y, &w, 4);
        y += 0.5f;
        memcpy(&w, &y, 4);
        return (uint16_t)(sign | (w - 0x3F000000));
    }
    w += 0xFFF + ((w >> 13) & 1);
    return (uint16_t)(sign | ((w - 0x38000000) >> 13));
}
static inline vf vf_from_f16(const uint16_t *p)
{
    return (vf){ f16_widen(p[0]), f16_widen(p[1]), f16_widen(p[2]), f16_widen(p[3]) };
}
static inline void vf_to_f16(uint16_t *p, vf a)
{
    for (int i = 0; i < VF_LEN; i++) p[i] = f16_narrow(a[i]);
}

#endif
