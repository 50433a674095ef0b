/*
 * gbm.c - x exp(a h + b + c z) and what belongs to it: steps of a geometric Brownian motion and
 * of its reverse, logarithms of ratios, and sums of score-matching losses. See diffusion.h.
 *
 * Exponents up to 80 in magnitude go the fast way: one exponential and one product, which
 * overflows only where the result does. A vector with a larger one (or a NaN) is done in
 * double, where no x and no exponent that matters overflow half way.
 */
#include "elementary.h"

#define FAST_EXPONENT 80.0f

/* a h + b + c z of one vector; 0 past the end. */
static inline vf line_at(const line_arg *l, size_t i, size_t n, const float *h, const float *z)
{
    vf y = vf_set(l->b);
    if (l->bv) y = vf_mul(y, load_at(l->bv, i, n, 0.0f));
    if (h) {
        vf a = vf_set(l->a);
        if (l->av) a = vf_mul(a, load_at(l->av, i, n, 0.0f));
        y = vf_fma(a, load_at(h, i, n, 0.0f), y);
    }
    if (z) {
        vf c = vf_set(l->c);
        if (l->cv) c = vf_mul(c, load_at(l->cv, i, n, 0.0f));
        y = vf_fma(c, load_at(z, i, n, 0.0f), y);
    }
    return y;
}

bool KERNEL(positive)(size_t n, const float *x)
{
    const vf zero = vf_set(0.0f), inf = vf_set(INFINITY);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf v = load_at(x, i, n, 1.0f);
        if (!vm_all(vf_gt(v, zero)) || !vm_all(vf_gt(inf, v))) return false;
    }
    return true;
}

void KERNEL(line)(size_t n, const float *x, const float *h, const float *z, const line_arg *l,
                  float *y)
{
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf v = line_at(l, i, n, h, z);
        if (x) v = vf_add(load_at(x, i, n, 0.0f), v);
        store_at(y, i, n, v);
    }
}

/* ---- Logarithms -------------------------------------------------------------------------- */

void KERNEL(log_of)(size_t n, const float *x, float *y)
{
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf e, m = vf_frexp_all(load_at(x, i, n, 1.0f), &e);
        store_at(y, i, n, vf_log_of(m, e));
    }
}

/* Exponents are subtracted, mantissas divided: so the error is that of log(x / x0), not that of
   two logarithms, and no quotient overflows. */
void KERNEL(log_ratio)(size_t n, const float *x, const float *x0, float *y)
{
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf e, e0, more;
        vf m = vf_frexp_all(load_at(x, i, n, 1.0f), &e);
        vf m0 = vf_frexp_all(load_at(x0, i, n, 1.0f), &e0);
        m = vf_frexp(vf_div(m, m0), &more);
        store_at(y, i, n, vf_log_of(m, vf_add(vf_sub(e, e0), more)));
    }
}

/* ---- Steps ------------------------------------------------------------------------------- */

/* All of y other than 0, infinities and NaN. */
static inline bool ordinary(vf y)
{
    vf size = vf_abs(y), inf = vf_set(INFINITY);
    return vm_all(vf_gt(inf, vf_sel(vf_gt(size, vf_set(0.0f)), size, inf)));
}

/* How many of `lanes` results are inf or 0 though x is neither, nor NaN. */
static inline int64_t count_lost(vf x, vf y, size_t lanes)
{
    float from[VF_LEN], to[VF_LEN];
    int64_t count = 0;
    vf_store(from, x), vf_store(to, y);
    for (size_t i = 0; i < lanes; i++)
        count += from[i] != 0.0f && !isinf(from[i]) && !isnan(from[i]) &&
                 (to[i] == 0.0f || isinf(to[i]));
    return count;
}

/* Past e^700 nothing finite is left of any x, and 0 must stay 0. */
static inline vf step_in_double(vf x, vf e)
{
    float from[VF_LEN], by[VF_LEN];
    const vf most = vf_set(700.0f);
    vf_store(from, x), vf_store(by, vf_max(vf_neg(most), vf_min(most, e))); /* NaN passes */
    for (int i = 0; i < VF_LEN; i++) from[i] = (float)((double)from[i] * exp((double)by[i]));
    return vf_load(from);
}

void KERNEL(gbm_step)(size_t n, const float *x, const float *h, const float *z,
                      const line_arg *l, float *y, int64_t *lost)
{
    const exp_consts k = exp_setup_unit();
    const vf most = vf_set(FAST_EXPONENT);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf from = x ? load_at(x, i, n, 1.0f) : vf_set(1.0f), e = line_at(l, i, n, h, z), to;
        if (vm_all(vf_gt(most, vf_abs(e))))
            to = vf_mul(from, exp_vec(e, &k, true));
        else
            to = step_in_double(from, e);
        if (!ordinary(to)) *lost += count_lost(from, to, n - i < VF_LEN ? n - i : VF_LEN);
        store_at(y, i, n, to);
    }
}

/* How many of `lanes` factors are negative where x is not 0: NaN is not. */
static inline int64_t count_flips(vf x, vf factor, size_t lanes)
{
    float from[VF_LEN], by[VF_LEN];
    int64_t count = 0;
    vf_store(from, x), vf_store(by, factor);
    for (size_t i = 0; i < lanes; i++)
        count += by[i] < 0.0f && from[i] != 0.0f && !isnan(from[i]);
    return count;
}

void KERNEL(gbm_linear)(size_t n, const float *x, const float *h, const float *z,
                        const line_arg *l, float *y, int64_t lost[2])
{
    const vf one = vf_set(1.0f), zero = vf_set(0.0f);
    for (size_t i = 0; i < n; i += VF_LEN) {
        const size_t lanes = n - i < VF_LEN ? n - i : VF_LEN;
        vf from = load_at(x, i, n, 1.0f), f = vf_add(one, line_at(l, i, n, h, z));
        vf to = vf_mul(from, f);
        if (!ordinary(to)) lost[0] += count_lost(from, to, lanes);
        if (!vm_all(vf_gt(f, zero))) lost[1] += count_flips(from, f, lanes);
        store_at(y, i, n, to);
    }
}

/* ---- Sums -------------------------------------------------------------------------------- */

/* In two steps, so that rounding grows with the root of their number: GROUP terms a lane, then
   sums of them. */
enum { GROUP = 16 };

typedef struct group_sum {
    vf part, whole;
    size_t count;
} group_sum;

static inline void group_add(group_sum *s, vf term)
{
    s->part = vf_add(s->part, term);
    if (++s->count % GROUP) return;
    s->whole = vf_add(s->whole, s->part);
    s->part = vf_set(0.0f);
}

static inline double group_total(const group_sum *s)
{
    return (double)vf_hsum(vf_add(s->whole, s->part));
}

double KERNEL(score_grad)(size_t n, const float *r, float s, const float *v, const float *x,
                          float *d)
{
    double total = 0;
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        const size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        group_sum sum = { vf_set(0.0f), vf_set(0.0f), 0 };
        for (size_t i = b; i < end; i += VF_LEN) {
            vf at = load_at(r, i, end, 0.0f), g = vf_mul(vf_set(s), at);
            group_add(&sum, vf_mul(at, at));
            if (!d) continue;
            if (v) g = vf_mul(g, load_at(v, i, end, 0.0f));
            if (x) g = vf_mul(g, load_at(x, i, end, 0.0f));
            store_at(d, i, end, g);
        }
        total += group_total(&sum);
    }
    return total;
}

double KERNEL(score_sum)(size_t n, const float *h, const float *e, float s, float *d)
{
    const vf half = vf_set(0.5f), one = vf_set(1.0f), scale = vf_set(s);
    double total = 0;
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        const size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK;
        group_sum sum = { vf_set(0.0f), vf_set(0.0f), 0 };
        for (size_t i = b; i < end; i += VF_LEN) {
            vf v = load_at(h, i, end, 0.0f);
            /* h + h^2 / 2 = h (1 + h / 2) */
            vf term = vf_fma(v, vf_fma(half, v, one), load_at(e, i, end, 0.0f));
            group_add(&sum, term);
            if (d) store_at(d, i, end, vf_mul(scale, vf_add(one, v)));
        }
        total += group_total(&sum);
    }
    return total;
}
