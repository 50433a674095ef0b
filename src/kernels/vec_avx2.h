/* vec_avx2.h - vec.h with AVX2, FMA, F16C: 8 floats. */
#ifndef SLG_KERNELS_VEC_AVX2_H
#define SLG_KERNELS_VEC_AVX2_H

#include <immintrin.h>

#define VF_LEN 8
typedef __m256 vf;
typedef __m256 vm;

/* 1.5 * 2^23 + 127: the low bits of VF_MAGIC + k are the exponent of 2^k. */
#define VF_MAGIC 0x1.8000FEp23f
#define VF_MIN_K (-127) /* exponent bits 0: the float 0 */

static inline vf vf_set(float a) { return _mm256_set1_ps(a); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline void vf_stream(float *p, vf a) { _mm256_stream_ps(p, a); }
static inline void vf_prefetch(const float *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

static inline __m256i vm_first_n(size_t n)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}
static inline vf vf_load_n(const float *p, size_t n, float fill)
{
    __m256i m = vm_first_n(n);
    return _mm256_blendv_ps(vf_set(fill), _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
}
static inline void vf_store_n(float *p, vf a, size_t n)
{
    _mm256_maskstore_ps(p, vm_first_n(n), a);
}

static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_mad(vf a, vf b, vf c) { return vf_fma(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_neg(vf a) { return _mm256_xor_ps(a, vf_set(-0.0f)); }
static inline vf vf_abs(vf a) { return _mm256_andnot_ps(vf_set(-0.0f), a); }
static inline vf vf_copysign(vf a, vf sign)
{
    return _mm256_or_ps(vf_abs(a), _mm256_and_ps(sign, vf_set(-0.0f)));
}

static inline vm vf_gt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
static inline vm vf_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vf vf_sel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
static inline bool vm_all(vm m) { return _mm256_movemask_ps(m) == 0xFF; }
static inline bool vm_any(vm m) { return _mm256_movemask_ps(m) != 0; }
static inline size_t vm_first(vm m)
{
    return (size_t)__builtin_ctz((unsigned)_mm256_movemask_ps(m));
}

static inline vf vf_flip(vf a, vf b)
{
    return _mm256_xor_ps(a, _mm256_and_ps(b, vf_set(-0.0f)));
}
static inline vf vf_fma_live(vf a, vf b, vf c)
{
    __m256 zero = _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_EQ_OQ);
    return _mm256_blendv_ps(_mm256_fmadd_ps(a, b, c), c, zero);
}

static inline size_t vm_count(vm m)
{
    return (size_t)__builtin_popcount((unsigned)_mm256_movemask_ps(m));
}
/* The numbers of the lanes, a byte each, packed by pext and widened to what permutes them. */
static inline vf vf_pack(vm m, vf a)
{
    __m256i bytes = _mm256_packs_epi32(_mm256_castps_si256(m), _mm256_setzero_si256());
    bytes = _mm256_packs_epi16(bytes, _mm256_setzero_si256());
    uint64_t low = (uint32_t)_mm256_extract_epi32(bytes, 0);
    uint64_t keep = low | (uint64_t)(uint32_t)_mm256_extract_epi32(bytes, 4) << 32;
    uint64_t lanes = _pext_u64(0x0706050403020100u, keep);
    __m256i at = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)lanes));
    return _mm256_permutevar8x32_ps(a, at);
}

static inline vf vf_shift2(vf p, vf t)
{
    __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(bits));
}

/* p 2^k + sum */
static inline vf vf_shift2_add(vf p, vf t, vf sum)
{
    __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_fmadd_ps(p, _mm256_castsi256_ps(bits), sum);
}

static inline vf vf_round_whole(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* d is clamped to where the exponent bits are 0, which make a factor of 0. */
static inline vf vf_scale2(vf m, vf d)
{
    return vf_shift2(m, vf_add(vf_max(vf_set((float)VF_MIN_K), d), vf_set(VF_MAGIC)));
}
static inline vf vf_scale2_add(vf m, vf d, vf sum)
{
    return vf_shift2_add(m, vf_add(vf_max(vf_set((float)VF_MIN_K), d), vf_set(VF_MAGIC)), sum);
}

/* a = m 2^e, m in [sqrt(1/2), sqrt(2)), e a whole number; a positive and normal. */
static inline vf vf_frexp(vf a, vf *e)
{
    __m256i w = _mm256_castps_si256(a);
    __m256i k = _mm256_srai_epi32(_mm256_sub_epi32(w, _mm256_set1_epi32(0x3F3504F3)), 23);
    *e = _mm256_cvtepi32_ps(k);
    return _mm256_castsi256_ps(_mm256_sub_epi32(w, _mm256_slli_epi32(k, 23)));
}

typedef struct vsplice {
    __m256i lane;
    __m256 second; /* sign set: of b */
} vsplice;
static inline vsplice vsplice_at(size_t lane)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i at = _mm256_add_epi32(lanes, _mm256_set1_epi32((int32_t)lane));
    return (vsplice){ at, _mm256_castsi256_ps(_mm256_slli_epi32(at, 28)) };
}
static inline vf vf_splice(vf a, vf b, vsplice s)
{
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, s.lane),
                            _mm256_permutevar8x32_ps(b, s.lane), s.second);
}

static inline vf vf_pairs(vf a, vf b, bool high)
{
    const __m256d p = _mm256_castps_pd(a), q = _mm256_castps_pd(b);
    return _mm256_castpd_ps(high ? _mm256_unpackhi_pd(p, q) : _mm256_unpacklo_pd(p, q));
}
static inline void vf_transpose(vf r[VF_LEN])
{
    for (int i = 0; i < 8; i += 4) {
        vf lo = _mm256_unpacklo_ps(r[i], r[i + 1]), hi = _mm256_unpackhi_ps(r[i], r[i + 1]);
        vf lo2 = _mm256_unpacklo_ps(r[i + 2], r[i + 3]),
           hi2 = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        r[i] = vf_pairs(lo, lo2, false), r[i + 1] = vf_pairs(lo, lo2, true);
        r[i + 2] = vf_pairs(hi, hi2, false), r[i + 3] = vf_pairs(hi, hi2, true);
    }
    for (int c = 0; c < 4; c++) {
        vf a = r[c], b = r[4 + c];
        r[c] = _mm256_permute2f128_ps(a, b, 0x20),
        r[4 + c] = _mm256_permute2f128_ps(a, b, 0x31);
    }
}

static inline float vf_hmax(vf a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
static inline float vf_hsum(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* Whole numbers of 32 bits without sign. */
typedef __m256i vu;
static inline vu vu_set(uint32_t a) { return _mm256_set1_epi32((int)a); }
static inline vu vu_load(const uint32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline vu vu_xor(vu a, vu b) { return _mm256_xor_si256(a, b); }
static inline vu vu_and(vu a, vu b) { return _mm256_and_si256(a, b); }
static inline vu vu_add(vu a, vu b) { return _mm256_add_epi32(a, b); }
static inline vu vu_mul_low(vu a, vu b) { return _mm256_mullo_epi32(a, b); }
static inline vu vu_high16(vu a) { return _mm256_srli_epi32(a, 16); }
static inline void vu_store_high16(uint16_t *p, vu a)
{
    vu b = vu_high16(a);
    b = _mm256_permute4x64_epi64(_mm256_packus_epi32(b, b), 0xD8);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(b));
}
static inline vu vu_bits(vf a) { return _mm256_castps_si256(a); }
static inline vf vu_float(vu a) { return _mm256_castsi256_ps(a); }
static inline vu vu_mul(vu a, vu b, vu *high)
{
    vu even = _mm256_mul_epu32(a, b);
    vu odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}
static inline vu vu_mul_cross(vu a, vu b, vu *high)
{
    vu even = _mm256_mul_epu32(a, b);
    vu odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    *high = _mm256_blend_epi32(_mm256_srli_epi64(odd, 32), even, 0xAA);
    return _mm256_blend_epi32(odd, _mm256_slli_epi64(even, 32), 0xAA);
}
static inline vf vu_signed(vu a) { return _mm256_cvtepi32_ps(a); }
static inline vf vu_from(vu a, vu least, vf value)
{
    __m256i reaches = _mm256_cmpeq_epi32(_mm256_max_epu32(a, least), a);
    return _mm256_and_ps(_mm256_castsi256_ps(reaches), value);
}

/* bfloat16 and float16. Rounding to nearest even; NaN stays NaN (made quiet). */
static inline vf vf_from_bf16(const uint16_t *p)
{
    __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}
static inline void vf_to_bf16(uint16_t *p, vf a)
{
    __m256i w = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(w, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(w, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    __m256i quiet = _mm256_or_si256(w, _mm256_set1_epi32(0x400000));
    __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
    r = _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(nan));
    r = _mm256_srli_epi32(r, 16);
    r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0xD8);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(r));
}
static inline vf vf_from_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline void vf_to_f16(uint16_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

#endif
