/*
 * tile_softmax.c - what attention does with a tile of logits between its products. Queries lie
 * in the lanes and keys are rows, so that sums and maxima over keys are sums and maxima of
 * vectors.
 */
#include "elementary.h"

static inline size_t clamp_lane(int64_t lane, size_t n)
{
    return lane < 0 ? 0 : lane > (int64_t)n ? n : (size_t)lane;
}

static inline void hide(float *s, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) s[i] = -INFINITY;
}

void KERNEL(tile_band)(size_t m, size_t n, float *s, size_t ld, int64_t first, int64_t low,
                       int64_t high)
{
    for (size_t j = 0; j < m; j++, s += ld) {
        const int64_t at = first + (int64_t)j;
        const size_t from = clamp_lane(at + low, n), to = clamp_lane(at + high + 1, n);
        hide(s, 0, from);
        hide(s, to > from ? to : from, n);
    }
}

void KERNEL(tile_alibi)(size_t m, size_t n, float *s, size_t ld, int64_t first, float slope)
{
    static const float ramp[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    const vf lane = vf_load(ramp), down = vf_set(-slope);
    for (size_t j = 0; j < m; j++, s += ld)
        for (size_t i = 0; i < n; i += VF_LEN) {
            const int64_t shift = (int64_t)i - first - (int64_t)j;
            const vf far = vf_abs(vf_add(vf_set((float)shift), lane));
            vf_store(s + i, vf_fma(down, far, vf_load(s + i)));
        }
}

/* A tile's sum may be up to so many times e above the reference before that is raised. */
#define RISE 20.0f

/* The largest of a column of vectors; and of their magnitudes but for -inf, in *top. */
static inline vf column_max(size_t m, const float *s, size_t ld, vf *top)
{
    const vf none = vf_set(-INFINITY);
    vf m0 = none, m1 = none, m2 = none, m3 = none;
    size_t j = 0;
    if (top) {
        for (; j < m; j++) {
            const vf x = vf_load(s + j * ld);
            m0 = vf_max(x, m0);
            *top = vf_max(vf_sel(vf_eq(x, none), none, vf_abs(x)), *top);
        }
        return m0;
    }
    for (; j + 4 <= m; j += 4) {
        m0 = vf_max(vf_load(s + j * ld), m0);
        m1 = vf_max(vf_load(s + (j + 1) * ld), m1);
        m2 = vf_max(vf_load(s + (j + 2) * ld), m2);
        m3 = vf_max(vf_load(s + (j + 3) * ld), m3);
    }
    for (; j < m; j++) m0 = vf_max(vf_load(s + j * ld), m0);
    return vf_max(vf_max(m1, m0), vf_max(m3, m2));
}

/* x - ref and not the other forms of exp.h: a reference a lane, and logits of any size. */
static inline vf column_exp(size_t m, float *s, size_t ld, vf ref, const exp_consts *k)
{
    vf s0 = vf_set(0.0f), s1 = s0;
    size_t j = 0;
    for (; j + 2 <= m; j += 2) {
        const vf p0 = exp_vec(vf_sub(vf_load(s + j * ld), ref), k, true);
        const vf p1 = exp_vec(vf_sub(vf_load(s + (j + 1) * ld), ref), k, true);
        vf_store(s + j * ld, p0), vf_store(s + (j + 1) * ld, p1);
        s0 = vf_add(s0, p0), s1 = vf_add(s1, p1);
    }
    if (j < m) {
        const vf p0 = exp_vec(vf_sub(vf_load(s + j * ld), ref), k, true);
        vf_store(s + j * ld, p0);
        s0 = vf_add(s0, p0);
    }
    return vf_add(s0, s1);
}

/* sum + a in two parts, as after Kahan: a row may have many tiles. */
static inline void add_to_sum(const tile_lanes *state, size_t i, vf factor, vf a)
{
    const vf sum = vf_mul(vf_load(state->sum + i), factor);
    const vf y = vf_sub(a, vf_mul(vf_load(state->lost + i), factor)), t = vf_add(sum, y);
    vf_store(state->lost + i, vf_sub(vf_sub(t, sum), y));
    vf_store(state->sum + i, t);
}

bool KERNEL(tile_softmax)(size_t m, size_t n, float *s, size_t ld, const tile_lanes *state)
{
    const exp_consts k = exp_setup_unit();
    const vf none = vf_set(-INFINITY), zero = vf_set(0.0f), one = vf_set(1.0f);
    bool rose = false;
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf top = state->top ? vf_load(state->top + i) : none;
        const vf max = column_max(m, s + i, ld, state->top ? &top : NULL);
        if (state->top) vf_store(state->top + i, top);
        vf ref = vf_load(state->ref + i), factor = one;
        const vm rises = vf_gt(max, vf_add(ref, vf_set(RISE)));
        if (vm_any(rises)) {
            rose = true;
            factor = vf_sel(rises, exp_vec(vf_sub(ref, max), &k, true), one);
            ref = vf_sel(rises, max, ref);
            vf_store(state->ref + i, ref);
        }
        vf_store(state->factor + i, factor);
        const vf from = vf_sel(vf_eq(ref, none), zero, ref);
        add_to_sum(state, i, factor, column_exp(m, s + i, ld, from, &k));
    }
    return rose;
}

void KERNEL(tile_finish)(size_t n, const tile_lanes *state, float *inverse, float *lse)
{
    const vf zero = vf_set(0.0f), one = vf_set(1.0f), none = vf_set(-INFINITY);
    for (size_t i = 0; i < n; i += VF_LEN) {
        const vf sum = vf_load(state->sum + i), ref = vf_load(state->ref + i);
        const vm empty = vf_eq(sum, zero);
        /* A NaN sum: vf_log may make a number of it, so it is added again. */
        const vf log = vf_add(vf_log(vf_sel(empty, one, sum)), vf_sub(sum, sum));
        vf_store(inverse + i, vf_sel(empty, zero, vf_div(one, sum)));
        vf_store(lse + i, vf_sel(empty, none, vf_add(ref, log)));
    }
}

void KERNEL(tile_scale)(size_t m, size_t n, const float *x, float *y, size_t ld)
{
    for (size_t j = 0; j < m; j++, y += ld)
        for (size_t i = 0; i < n; i += VF_LEN)
            vf_store(y + i, vf_mul(vf_load(y + i), vf_load(x + i)));
}

void KERNEL(tile_grad)(size_t m, size_t n, float *s, float *d, size_t ld, const float *lse,
                       const float *delta)
{
    const exp_consts k = exp_setup_unit();
    const vf none = vf_set(-INFINITY), zero = vf_set(0.0f), all = vf_set(INFINITY);
    for (size_t i = 0; i < n; i += VF_LEN) {
        const vf l = vf_load(lse + i), from = vf_sel(vf_eq(l, none), all, l);
        const vf less = vf_load(delta + i);
        float *x = s + i, *y = d + i;
        for (size_t j = 0; j < m; j++, x += ld, y += ld) {
            const vf a = vf_load(x);
            const vf p = vf_sel(vf_eq(a, none), zero, exp_vec(vf_sub(a, from), &k, true));
            const vf g = vf_mul(p, vf_sub(vf_load(y), less));
            vf_store(x, p);
            vf_store(y, vf_sel(vf_eq(p, zero), zero, g));
        }
    }
}
