/* vec_avx512.h - vec.h with AVX-512 F, DQ, BW, VL: 16 floats. */
#ifndef SLG_KERNELS_VEC_AVX512_H
#define SLG_KERNELS_VEC_AVX512_H

#include <immintrin.h>

#define VF_LEN 16
typedef __m512 vf;
typedef __mmask16 vm;

/* 1.5 * 2^23: adding it rounds to a whole number, which is left in the low bits. */
#define VF_MAGIC 0x1.8p23f
#define VF_MIN_K (-160) /* scalef makes 0 of it */

/* 2^(k/16) from a table of 16 in a register: see exp.h. */
#define VF_POW16 1

static inline vf vf_set(float a) { return _mm512_set1_ps(a); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline void vf_stream(float *p, vf a) { _mm512_stream_ps(p, a); }
static inline void vf_prefetch(const float *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

static inline vm vm_first_n(size_t n) { return (vm)((1u << n) - 1u); }
static inline vf vf_load_n(const float *p, size_t n, float fill)
{
    return _mm512_mask_loadu_ps(vf_set(fill), vm_first_n(n), p);
}
static inline void vf_store_n(float *p, vf a, size_t n)
{
    _mm512_mask_storeu_ps(p, vm_first_n(n), a);
}

static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_mad(vf a, vf b, vf c) { return vf_fma(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_neg(vf a) { return _mm512_xor_ps(a, vf_set(-0.0f)); }
static inline vf vf_abs(vf a) { return _mm512_andnot_ps(vf_set(-0.0f), a); }
static inline vf vf_copysign(vf a, vf sign)
{
    return _mm512_or_ps(vf_abs(a), _mm512_and_ps(sign, vf_set(-0.0f)));
}

static inline vf vf_flip(vf a, vf b)
{
    __m512i r = _mm512_ternarylogic_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b),
                                          _mm512_set1_epi32(INT32_MIN), 0x78); /* a ^ (b & c) */
    return _mm512_castsi512_ps(r);
}
static inline vf vf_fma_live(vf a, vf b, vf c)
{
    __mmask16 live = _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    return _mm512_mask3_fmadd_ps(a, b, c, live);
}

static inline vm vf_gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vf vf_sel(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
static inline bool vm_all(vm m) { return m == 0xFFFF; }
static inline bool vm_any(vm m) { return m != 0; }
static inline size_t vm_first(vm m) { return (size_t)__builtin_ctz(m); }

static inline size_t vm_count(vm m) { return (size_t)__builtin_popcount(m); }
static inline vf vf_pack(vm m, vf a) { return _mm512_maskz_compress_ps(m, a); }

static inline vf vf_shift2(vf p, vf t)
{
    return _mm512_scalef_ps(p, _mm512_sub_ps(t, vf_set(VF_MAGIC)));
}

static inline vf vf_round_whole(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_scale2(vf m, vf d) { return _mm512_scalef_ps(m, d); }
static inline vf vf_scale2_add(vf m, vf d, vf sum) { return vf_add(sum, vf_scale2(m, d)); }

/* a 2^(k/16) for t = VF_MAGIC + k, the table holding the bits of a 2^(j/16) less j << 19:
   a shift, a permutation (which looks at the low 4 bits of t alone) and an integer addition. */
static inline vf vf_pow16(vf t, vf table)
{
    __m512i w = _mm512_castps_si512(t);
    __m512i base = _mm512_permutexvar_epi32(w, _mm512_castps_si512(table));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(w, 19), base));
}
/* a * b + c where x > low or NaN, else 0. */
static inline vf vf_fma_above(vf x, vf low, vf a, vf b, vf c)
{
    return _mm512_maskz_fmadd_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLE_UQ), a, b, c);
}

/* a = m 2^e, m in [sqrt(1/2), sqrt(2)), e a whole number; a positive and normal. */
static inline vf vf_frexp(vf a, vf *e)
{
    __m512i w = _mm512_castps_si512(a);
    __m512i k = _mm512_srai_epi32(_mm512_sub_epi32(w, _mm512_set1_epi32(0x3F3504F3)), 23);
    *e = _mm512_cvtepi32_ps(k);
    return _mm512_castsi512_ps(_mm512_sub_epi32(w, _mm512_slli_epi32(k, 23)));
}

typedef __m512i vsplice;
static inline vsplice vsplice_at(size_t lane)
{
    const __m512i lanes =
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_epi32(lanes, _mm512_set1_epi32((int32_t)lane));
}
static inline vf vf_splice(vf a, vf b, vsplice s) { return _mm512_permutex2var_ps(a, s, b); }

static inline vf vf_pairs(vf a, vf b, bool high)
{
    const __m512d p = _mm512_castps_pd(a), q = _mm512_castps_pd(b);
    return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(p, q) : _mm512_unpacklo_pd(p, q));
}
/* Quarters of 4 by 4 first: then r[4 i + c] holds rows 4 i.. of columns c, 4 + c, 8 + c and
   12 + c. */
static inline void vf_transpose(vf r[VF_LEN])
{
    for (int i = 0; i < 16; i += 4) {
        vf lo = _mm512_unpacklo_ps(r[i], r[i + 1]), hi = _mm512_unpackhi_ps(r[i], r[i + 1]);
        vf lo2 = _mm512_unpacklo_ps(r[i + 2], r[i + 3]),
           hi2 = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        r[i] = vf_pairs(lo, lo2, false), r[i + 1] = vf_pairs(lo, lo2, true);
        r[i + 2] = vf_pairs(hi, hi2, false), r[i + 3] = vf_pairs(hi, hi2, true);
    }
    for (int c = 0; c < 4; c++) {
        vf a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x44),
           b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xEE);
        vf d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x44);
        vf e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xEE);
        r[c] = _mm512_shuffle_f32x4(a, d, 0x88), r[4 + c] = _mm512_shuffle_f32x4(a, d, 0xDD);
        r[8 + c] = _mm512_shuffle_f32x4(b, e, 0x88),
              r[12 + c] = _mm512_shuffle_f32x4(b, e, 0xDD);
    }
}

static inline float vf_hmax(vf a) { return _mm512_reduce_max_ps(a); }
static inline float vf_hsum(vf a) { return _mm512_reduce_add_ps(a); }

/* Whole numbers of 32 bits without sign. */
typedef __m512i vu;
static inline vu vu_set(uint32_t a) { return _mm512_set1_epi32((int)a); }
static inline vu vu_load(const uint32_t *p) { return _mm512_loadu_si512(p); }
static inline vu vu_xor(vu a, vu b) { return _mm512_xor_si512(a, b); }
static inline vu vu_and(vu a, vu b) { return _mm512_and_si512(a, b); }
static inline vu vu_add(vu a, vu b) { return _mm512_add_epi32(a, b); }
static inline vu vu_mul_low(vu a, vu b) { return _mm512_mullo_epi32(a, b); }
static inline vu vu_high16(vu a) { return _mm512_srli_epi32(a, 16); }
static inline void vu_store_high16(uint16_t *p, vu a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(vu_high16(a)));
}
static inline vu vu_bits(vf a) { return _mm512_castps_si512(a); }
static inline vf vu_float(vu a) { return _mm512_castsi512_ps(a); }
static inline vu vu_mul(vu a, vu b, vu *high)
{
    vu even = _mm512_mul_epu32(a, b);
    vu odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    *high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
    return _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}
static inline vu vu_mul_cross(vu a, vu b, vu *high)
{
    vu even = _mm512_mul_epu32(a, b);
    vu odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    *high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(odd, 32), even);
    return _mm512_mask_blend_epi32(0xAAAA, odd, _mm512_slli_epi64(even, 32));
}
static inline vf vu_signed(vu a) { return _mm512_cvtepi32_ps(a); }
static inline vf vu_from(vu a, vu least, vf value)
{
    return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(a, least), value);
}

/* bfloat16 and float16. Rounding to nearest even; NaN stays NaN (made quiet). */
static inline vf vf_from_bf16(const uint16_t *p)
{
    __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
static inline void vf_to_bf16(uint16_t *p, vf a)
{
    __m512i w = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(w, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(w, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, w, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}
static inline vf vf_from_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline void vf_to_f16(uint16_t *p, vf a)
{
    __m256i h = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256((__m256i *)p, h);
}

#endif
