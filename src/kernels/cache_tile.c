/*
 * cache_tile.c - attention of few queries to many keys that are kept: decoding. Time is the one
 * read of K and V, so what is read is laid out for it: K in groups of 32 keys, [dim, 32], so
 * that a vector holds the same element of several keys, logits need no sum across lanes, and an
 * element of q serves 32 keys; V in rows. Both are read from end to end. 16-bit keys and values
 * are widened in registers, and fetched ahead: at twice the instructions a byte, what the CPU
 * looks ahead by itself is too little. (__builtin_prefetch and not vf_prefetch: GCC 12 drops
 * that in a function which is inlined.)
 */
#include "exp.h"

#define INLINE static inline __attribute__((always_inline))

enum { F32, BF16, F16 };
enum {
    GV = CACHE_GROUP / VF_LEN,   /* vectors of a group */
    WIDE = VF_LEN == 16 ? 4 : 2, /* vectors of V at once */
    LINE = 64,
    AHEAD = 16384 /* bytes */
};

INLINE size_t item(const int type) { return type == F32 ? sizeof(float) : sizeof(uint16_t); }

INLINE vf load(const char *p, const int type)
{
    const void *at = p;
    return type == F32 ? vf_load(at) : type == BF16 ? vf_from_bf16(at) : vf_from_f16(at);
}

/* ---- Logits ------------------------------------------------------------------------------ */

/* The most sums of a block. */
enum { SUMS = VF_LEN == 16 ? 16 : 8 };

/* mr rows times a group. Elements are dealt to `chains` sums where there are few. `first`: no
   row came before, so what follows is fetched. */
INLINE void score_block(const cache_scores *a, size_t r, size_t g, const int type,
                        const size_t mr, const size_t chains, const bool first)
{
    const size_t line = CACHE_GROUP * item(type);
    const char *k = (const char *)a->k + g * line * a->dim;
    const float *q = a->q + r * a->ldq;
    vf acc[SUMS];
#pragma GCC unroll 16
    for (size_t i = 0; i < chains * mr * GV; i++) acc[i] = vf_set(0.0f);
    size_t d = 0;
#define ELEMENT(u)                                                                             \
    do {                                                                                       \
        const char *at = k + (d + (u)) * line;                                                 \
        vf x[GV];                                                                              \
        _Pragma("GCC unroll 8") for (size_t c = 0; c < GV; c++)                                \
        {                                                                                      \
            x[c] = load(at + c * VF_LEN * item(type), type);                                   \
            if (first && type != F32 && c * VF_LEN * item(type) % LINE == 0)                   \
                __builtin_prefetch((const void *)(at + AHEAD + c * VF_LEN * item(type)));      \
        }                                                                                      \
        _Pragma("GCC unroll 8") for (size_t i = 0; i < mr; i++)                                \
        {                                                                                      \
            const vf w = vf_set(q[i * a->ldq + d + (u)]);                                      \
            _Pragma("GCC unroll 8") for (size_t c = 0; c < GV; c++)                            \
                acc[((u)*mr + i) * GV + c] = vf_mad(w, x[c], acc[((u)*mr + i) * GV + c]);      \
        }                                                                                      \
    } while (0)
    for (; d + chains <= a->dim; d += chains) {
        ELEMENT(0);
        if (chains > 1) ELEMENT(1);
        if (chains > 2) ELEMENT(2);
        if (chains > 2) ELEMENT(3);
    }
    for (; chains > 1 && d < a->dim; d++) ELEMENT(0);
#undef ELEMENT
#pragma GCC unroll 8
    for (size_t i = 0; i < mr; i++)
#pragma GCC unroll 8
        for (size_t c = 0; c < GV; c++) {
            vf sum = acc[i * GV + c];
            if (chains > 1) sum = vf_add(sum, acc[(mr + i) * GV + c]);
            if (chains > 2)
                sum =
                    vf_add(sum, vf_add(acc[(2 * mr + i) * GV + c], acc[(3 * mr + i) * GV + c]));
            vf_store(a->s + (r + i) * a->lds + g * CACHE_GROUP + c * VF_LEN, sum);
        }
}

INLINE void score_rows(const cache_scores *a, size_t r, size_t g, const int type,
                       const size_t mr, const size_t chains)
{
    if (r == 0)
        score_block(a, r, g, type, mr, chains, true);
    else
        score_block(a, r, g, type, mr, chains, false);
}

INLINE void scores(const cache_scores *a, const int type)
{
    for (size_t g = 0; g < a->groups; g++) {
        size_t r = 0;
#if VF_LEN == 16
        for (; r + 8 <= a->rows; r += 8) score_rows(a, r, g, type, 8, 1);
        if (r + 4 <= a->rows) score_rows(a, r, g, type, 4, 2), r += 4;
#endif
#if VF_LEN > 4
        for (; r + 2 <= a->rows; r += 2) score_rows(a, r, g, type, 2, VF_LEN == 16 ? 2 : 1);
#endif
        for (; r < a->rows; r++) score_rows(a, r, g, type, 1, VF_LEN / 4);
    }
}

void KERNEL(cache_scores_f32)(const cache_scores *a) { scores(a, F32); }
void KERNEL(cache_scores_bf16)(const cache_scores *a) { scores(a, BF16); }
void KERNEL(cache_scores_f16)(const cache_scores *a) { scores(a, F16); }

/* ---- Softmax ----------------------------------------------------------------------------- */

/* A tile's logits may be up to so many times e above the reference before that is raised. */
#define RISE 20.0f

static inline vf row_max(size_t n, const float *s, vf *top)
{
    const vf none = vf_set(-INFINITY);
    vf max = none;
    for (size_t j = 0; j < n; j += VF_LEN) {
        const vf x = vf_load(s + j);
        max = vf_max(x, max);
        if (top) *top = vf_max(vf_sel(vf_eq(x, none), none, vf_abs(x)), *top);
    }
    return max;
}

bool KERNEL(cache_softmax)(size_t rows, size_t n, float *s, size_t ld, const cache_state *state)
{
    const exp_consts k = exp_setup_unit();
    bool rose = false;
    for (size_t r = 0; r < rows; r++, s += ld) {
        vf top = vf_set(-INFINITY), sum = vf_set(0.0f);
        const vf max = row_max(n, s, state->top ? &top : NULL);
        float ref = state->ref[r];
        if (state->top) {
            const float t = vf_hmax(top);
            if (t > state->top[r]) state->top[r] = t;
        }
        state->factor[r] = 1.0f;
        if (vm_any(vf_gt(max, vf_set(ref + RISE)))) {
            const float rise = vf_hmax(max);
            float factor[VF_LEN];
            vf_store(factor, exp_vec(vf_set(ref - rise), &k, true));
            rose = true;
            state->ref[r] = ref = rise;
            state->factor[r] = factor[0];
            state->sum[r] *= (double)factor[0];
        }
        const vf from = vf_set(ref == -INFINITY ? 0.0f : ref);
        for (size_t j = 0; j < n; j += VF_LEN) {
            const vf p = exp_vec(vf_sub(vf_load(s + j), from), &k, true);
            vf_store(s + j, p);
            sum = vf_add(sum, p);
        }
        state->sum[r] += (double)vf_hsum(sum);
    }
    return rose;
}

/* ---- Values ------------------------------------------------------------------------------ */

/* mr rows of o, nv vectors at column j: keys are dealt to several chains where sums are few. */
INLINE void value_block(const cache_values *a, size_t r, size_t j, const int type,
                        const size_t mr, const size_t nv, const bool first)
{
    const size_t most = 2 * WIDE * 2 / (mr * nv), chains = most > 4 ? 4 : most < 1 ? 1 : most;
    const size_t step = a->ldv * item(type);
    const char *v = (const char *)a->v + j * item(type);
    const float *p = a->p + r * a->ldp;
    vf acc[4 * WIDE][WIDE];
#pragma GCC unroll 16
    for (size_t i = 0; i < mr * chains; i++)
#pragma GCC unroll 4
        for (size_t c = 0; c < nv; c++)
            acc[i][c] =
                i < mr ? vf_load(a->o + (r + i) * a->ldo + j + c * VF_LEN) : vf_set(0.0f);
    size_t key = 0;
#define KEY(u)                                                                                 \
    do {                                                                                       \
        vf x[WIDE];                                                                            \
        _Pragma("GCC unroll 4") for (size_t c = 0; c < nv; c++)                                \
        {                                                                                      \
            const size_t at = c * VF_LEN * item(type);                                         \
            x[c] = load(v + (key + (u)) * step + at, type);                                    \
            if (first && type != F32 && at % LINE == 0)                                        \
                __builtin_prefetch((const void *)(v + (key + (u)) * step + at + AHEAD));       \
        }                                                                                      \
        _Pragma("GCC unroll 8") for (size_t i = 0; i < mr; i++)                                \
        {                                                                                      \
            const vf w = vf_set(p[i * a->ldp + key + (u)]);                                    \
            _Pragma("GCC unroll 4") for (size_t c = 0; c < nv; c++) acc[(u)*mr + i][c] =       \
                vf_mad(w, x[c], acc[(u)*mr + i][c]);                                           \
        }                                                                                      \
    } while (0)
    for (; key + chains <= a->keys; key += chains)
#pragma GCC unroll 4
        for (size_t u = 0; u < chains; u++) KEY(u);
    for (; key < a->keys; key++) KEY(0);
#undef KEY
#pragma GCC unroll 8
    for (size_t i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (size_t c = 0; c < nv; c++) {
            vf sum = acc[i][c];
            if (chains >= 2) sum = vf_add(sum, acc[mr + i][c]);
            if (chains >= 4) sum = vf_add(sum, vf_add(acc[2 * mr + i][c], acc[3 * mr + i][c]));
            vf_store(a->o + (r + i) * a->ldo + j + c * VF_LEN, sum);
        }
}

INLINE void value_stripe(const cache_values *a, size_t j, const int type, const size_t nv)
{
    size_t r = 0;
    if (a->rows >= 4)
        value_block(a, r, j, type, 4, nv, true), r += 4;
    else if (a->rows >= 2)
        value_block(a, r, j, type, 2, nv, true), r += 2;
    else if (a->rows == 1)
        value_block(a, r, j, type, 1, nv, true), r += 1;
    for (; r + 4 <= a->rows; r += 4) value_block(a, r, j, type, 4, nv, false);
    if (r + 2 <= a->rows) value_block(a, r, j, type, 2, nv, false), r += 2;
    if (r < a->rows) value_block(a, r, j, type, 1, nv, false);
}

/* Row by row, and what has p = 0 is not looked at. */
INLINE void careful_values(const cache_values *a, const int type)
{
    for (size_t r = 0; r < a->rows; r++)
        for (size_t j = 0; j < a->dim; j += VF_LEN) {
            float *o = a->o + r * a->ldo + j;
            vf acc = vf_load(o);
            for (size_t key = 0; key < a->keys; key++) {
                const float p = a->p[r * a->ldp + key];
                const char *v = (const char *)a->v + (key * a->ldv + j) * item(type);
                if (p != 0) acc = vf_mad(vf_set(p), load(v, type), acc);
            }
            vf_store(o, acc);
        }
}

INLINE void values(const cache_values *a, const int type)
{
    if (a->skip_zeros) {
        careful_values(a, type);
        return;
    }
    size_t j = 0;
    for (; j + WIDE * VF_LEN <= a->dim; j += WIDE * VF_LEN) value_stripe(a, j, type, WIDE);
    for (; j < a->dim; j += VF_LEN) value_stripe(a, j, type, 1);
}

void KERNEL(cache_values_f32)(const cache_values *a) { values(a, F32); }
void KERNEL(cache_values_bf16)(const cache_values *a) { values(a, BF16); }
void KERNEL(cache_values_f16)(const cache_values *a) { values(a, F16); }
