/*
 * update.c - weight updates in one pass over memory, in place: what counts is bytes. Scalars
 * of the step (bias corrections, rates) come folded, what a chain does to the gradient as a few
 * coefficients; a division and a square root a vector hide behind memory.
 *
 * Each rule is an inlined loop with `half` as a constant: state in float32 or in bf16.
 */
#include "exp.h"
#include "vec.h"
#include "vec_double.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- The gradient ------------------------------------------------------------------------ */

typedef struct grad_consts {
    vf scale, along, low, high, post, after, after_low, decay;
    bool plain;
} grad_consts;

static inline grad_consts grad_setup(const update_grad *g)
{
    return (grad_consts){ vf_set(g->scale),     vf_set(g->along), vf_set(-g->clip),
                          vf_set(g->clip),      vf_set(g->post),  vf_set(g->after),
                          vf_set(g->after_low), vf_set(g->decay), g->plain };
}

INLINE vf gradient(vf w, vf g, const grad_consts *k)
{
    if (!k->plain) {
        g = vf_mul(k->scale, vf_fma(k->along, w, g));
        g = vf_min(k->high, vf_max(k->low, g)); /* a NaN passes */
        g = vf_fma(k->after_low, w, vf_fma(k->after, w, g));
    }
    return vf_fma(k->decay, w, vf_mul(k->post, g));
}

/* ---- State ------------------------------------------------------------------------------- */

/* Two 16-bit random numbers a weight: a hash of its number, by two rounds of multiplication. */
static inline vu dither(const update_part *p, size_t i)
{
    static const uint32_t lanes[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    vu x = vu_add(vu_load(lanes), vu_set(p->first + (uint32_t)i));
    x = vu_mul_low(vu_xor(x, vu_set(p->key)), vu_set(0x9E3779B1u));
    x = vu_mul_low(vu_xor(x, vu_high16(x)), vu_set(0x85EBCA77u));
    return vu_xor(x, vu_high16(x));
}

INLINE vf state_at(const update_part *p, int array, size_t i, size_t n, const bool half)
{
    if (!half) return load_at(p->state[array], i, n, 0.0f);
    const uint16_t *x = (const uint16_t *)p->state[array] + i;
    if (n - i >= VF_LEN) return vf_from_bf16(x);
    uint16_t tail[VF_LEN] = { 0 };
    memcpy(tail, x, (n - i) * sizeof *x);
    return vf_from_bf16(tail);
}

/* bf16: a's bits plus 16 random ones, cut off: its mean is a, so that moments with a short step
   do not stand still. */
INLINE void keep_at(const update_part *p, int array, size_t i, size_t n, vf a, vu random,
                    const bool half)
{
    if (!half) {
        store_at(p->state[array], i, n, a);
        return;
    }
    vu bits = vu_add(vu_bits(a), vu_and(random, vu_set(0xFFFF)));
    bits = vu_bits(vf_sel(vf_eq(a, a), vu_float(bits), vf_set(NAN)));
    uint16_t *y = (uint16_t *)p->state[array] + i;
    if (n - i >= VF_LEN) {
        vu_store_high16(y, bits);
        return;
    }
    uint16_t tail[VF_LEN];
    vu_store_high16(tail, bits);
    memcpy(y, tail, (n - i) * sizeof *y);
}

/* A kernel: its loop for each kind of state. The part as a copy that nothing else can point to,
   so that it stays in registers. */
#define BY_HALF(run)                                                                           \
    const update_part part = *p;                                                               \
    if (part.half)                                                                             \
        run(n, w, g, &part, a, true);                                                          \
    else                                                                                       \
        run(n, w, g, &part, a, false)

/* What loops begin with: the weight and what has become of its gradient. */
#define WEIGHT_AND_GRADIENT                                                                    \
    const vf weight = load_at(w, i, n, 0.0f);                                                  \
    const vf grad = gradient(weight, load_at(g, i, n, 0.0f), &gk);                             \
    const vu random = half ? dither(p, i) : vu_set(0)

/* ---- Rules ------------------------------------------------------------------------------- */

INLINE void adam_run(size_t n, float *w, const float *g, const update_part *p,
                     const adam_arg *a, const bool half)
{
    const grad_consts gk = grad_setup(&p->grad);
    const vf shrink = vf_set(a->shrink), b1 = vf_set(a->beta1), o1 = vf_set(a->one_beta1);
    const vf b2 = vf_set(a->beta2), o2 = vf_set(a->one_beta2), root = vf_set(a->root);
    const vf step = vf_set(a->step), fresh = vf_set(a->fresh), eps = vf_set(a->eps);
    for (size_t i = 0; i < n; i += VF_LEN) {
        WEIGHT_AND_GRADIENT;
        vf first = vf_fma(b1, state_at(p, 0, i, n, half), vf_mul(o1, grad));
        vf second = vf_fma(b2, state_at(p, 1, i, n, half), vf_mul(vf_mul(o2, grad), grad));
        keep_at(p, 0, i, n, first, random, half);
        keep_at(p, 1, i, n, second, vu_high16(random), half);
        if (p->state[2]) {
            second = vf_max(state_at(p, 2, i, n, half), second); /* a NaN passes */
            keep_at(p, 2, i, n, second, vu_high16(random), half);
        }
        vf down = vf_fma(vf_sqrt(second), root, eps);
        vf ratio = vf_div(vf_fma(fresh, grad, vf_mul(step, first)), down);
        store_at(w, i, n, vf_sub(vf_fnma(shrink, weight, weight), ratio));
    }
}

void KERNEL(adam)(size_t n, float *w, const float *g, const update_part *p, const adam_arg *a)
{
    BY_HALF(adam_run);
}

INLINE void sgd_run(size_t n, float *w, const float *g, const update_part *p, const sgd_arg *a,
                    const bool half)
{
    const grad_consts gk = grad_setup(&p->grad);
    const vf shrink = vf_set(a->shrink), lr = vf_set(a->lr), mu = vf_set(a->momentum);
    const vf fresh = vf_set(a->one_dampening);
    for (size_t i = 0; i < n; i += VF_LEN) {
        WEIGHT_AND_GRADIENT;
        vf move = grad;
        if (p->state[0]) {
            vf mean = vf_fma(mu, state_at(p, 0, i, n, half), vf_mul(fresh, grad));
            keep_at(p, 0, i, n, mean, random, half);
            move = a->nesterov ? vf_fma(mu, mean, grad) : mean;
        }
        store_at(w, i, n, vf_sub(vf_fnma(shrink, weight, weight), vf_mul(lr, move)));
    }
}

void KERNEL(sgd)(size_t n, float *w, const float *g, const update_part *p, const sgd_arg *a)
{
    BY_HALF(sgd_run);
}

INLINE void optimistic_run(size_t n, float *w, const float *g, const update_part *p,
                           const optimistic_arg *a, const bool half)
{
    const grad_consts gk = grad_setup(&p->grad);
    const vf shrink = vf_set(a->shrink), step = vf_set(a->step), back = vf_set(a->back);
    for (size_t i = 0; i < n; i += VF_LEN) {
        WEIGHT_AND_GRADIENT;
        vf kept = vf_fnma(step, grad, vf_fnma(shrink, weight, weight));
        store_at(w, i, n, vf_fma(back, state_at(p, 0, i, n, half), kept));
        keep_at(p, 0, i, n, grad, random, half);
    }
}

void KERNEL(optimistic)(size_t n, float *w, const float *g, const update_part *p,
                        const optimistic_arg *a)
{
    BY_HALF(optimistic_run);
}

INLINE void rmsprop_run(size_t n, float *w, const float *g, const update_part *p,
                        const rmsprop_arg *a, const bool half)
{
    const grad_consts gk = grad_setup(&p->grad);
    const vf shrink = vf_set(a->shrink), lr = vf_set(a->lr), eps = vf_set(a->eps);
    const vf alpha = vf_set(a->alpha), fresh = vf_set(a->one_alpha), mu = vf_set(a->momentum);
    for (size_t i = 0; i < n; i += VF_LEN) {
        WEIGHT_AND_GRADIENT;
        vf square =
            vf_fma(alpha, state_at(p, 0, i, n, half), vf_mul(vf_mul(fresh, grad), grad));
        keep_at(p, 0, i, n, square, random, half);
        if (p->state[1]) {
            vf mean = vf_fma(alpha, state_at(p, 1, i, n, half), vf_mul(fresh, grad));
            keep_at(p, 1, i, n, mean, vu_high16(random), half);
            /* Rounding may leave less than 0 where the gradient hardly changes. */
            square = vf_max(vf_set(0.0f), vf_fnma(mean, mean, square));
        }
        vf move = vf_div(grad, vf_add(vf_sqrt(square), eps));
        if (p->state[2]) {
            move = vf_fma(mu, state_at(p, 2, i, n, half), move);
            keep_at(p, 2, i, n, move, vu_high16(random), half);
        }
        store_at(w, i, n, vf_fnma(lr, move, vf_fnma(shrink, weight, weight)));
    }
}

void KERNEL(rmsprop)(size_t n, float *w, const float *g, const update_part *p,
                     const rmsprop_arg *a)
{
    BY_HALF(rmsprop_run);
}

INLINE void lion_run(size_t n, float *w, const float *g, const update_part *p,
                     const lion_arg *a, const bool half)
{
    const grad_consts gk = grad_setup(&p->grad);
    const vf shrink = vf_set(a->shrink), lr = vf_set(a->lr), zero = vf_set(0.0f);
    const vf b1 = vf_set(a->beta1), o1 = vf_set(a->one_beta1);
    const vf b2 = vf_set(a->beta2), o2 = vf_set(a->one_beta2);
    for (size_t i = 0; i < n; i += VF_LEN) {
        WEIGHT_AND_GRADIENT;
        vf mean = state_at(p, 0, i, n, half);
        vf way = vf_fma(b1, mean, vf_mul(o1, grad));
        vf move = vf_sel(vf_eq(way, zero), zero, vf_copysign(lr, way));
        move = vf_sel(vf_eq(way, way), move, way);
        keep_at(p, 0, i, n, vf_fma(b2, mean, vf_mul(o2, grad)), random, half);
        store_at(w, i, n, vf_sub(vf_fnma(shrink, weight, weight), move));
    }
}

void KERNEL(lion)(size_t n, float *w, const float *g, const update_part *p, const lion_arg *a)
{
    BY_HALF(lion_run);
}

/* Half of an exponent and its factor twice, neither 0 nor infinite: a small weight gets nearly
   as far up as float32 does. */
#define EGD_MOST 174.0f

INLINE void egd_run(size_t n, float *w, const float *g, const update_part *p, const egd_arg *a,
                    const bool half)
{
    const grad_consts gk = grad_setup(&p->grad);
    const exp_consts k = exp_setup_unit();
    const vf keep = vf_set(1 - a->shrink), lr = vf_set(-a->lr), mu = vf_set(a->momentum);
    const vf floor = vf_set(a->floor), cap = vf_set(a->cap), zero = vf_set(0.0f);
    for (size_t i = 0; i < n; i += VF_LEN) {
        WEIGHT_AND_GRADIENT;
        vf power = vf_mul(lr, vf_flip(grad, weight));
        if (p->state[0]) {
            power = vf_fma(mu, state_at(p, 0, i, n, half), power);
            keep_at(p, 0, i, n, power, random, half);
        }
        power = vf_min(vf_set(EGD_MOST), vf_max(vf_set(-EGD_MOST), power));
        vf factor = exp_vec(vf_mul(power, vf_set(0.5f)), &k, true);
        vf size = vf_mul(vf_mul(vf_mul(vf_abs(weight), keep), factor), factor);
        size = vf_min(cap, vf_max(floor, size)); /* a NaN passes */
        /* 0 stays 0; but a NaN gradient is to be seen there too. */
        size = vf_sel(vf_eq(weight, zero), vf_mul(zero, factor), size);
        store_at(w, i, n, vf_copysign(size, weight));
    }
}

void KERNEL(egd)(size_t n, float *w, const float *g, const update_part *p, const egd_arg *a)
{
    BY_HALF(egd_run);
}

/* ---- Adafactor --------------------------------------------------------------------------- */

/* Squares of a vector of floats, in double. */
typedef struct squares {
    vd low, high;
} squares;

INLINE squares squares_add(squares s, vf a)
{
    float x[VF_LEN];
    vf_store(x, a);
    const vd low = vd_widen(x), high = vd_widen(x + VD_LEN);
    return (squares){ vd_mad(low, low, s.low), vd_mad(high, high, s.high) };
}

INLINE double squares_sum(squares s) { return vd_hsum(s.low + s.high); }

INLINE void column_add(double *column, size_t n, vd a)
{
    if (n >= VD_LEN)
        vd_store(column, vd_load(column) + a);
    else
        vd_store_n(column, vd_load_n(column, n) + a, n);
}

static const squares no_squares = { { 0 }, { 0 } };

void KERNEL(factor_squares)(size_t n, const float *w, const float *g, const update_grad *m,
                            double *columns, double out[2])
{
    const grad_consts gk = grad_setup(m);
    squares uu = no_squares, ww = no_squares;
    for (size_t i = 0; i < n; i += VF_LEN) {
        const vf weight = w ? load_at(w, i, n, 0.0f) : vf_set(0.0f);
        const vf u = gradient(weight, load_at(g, i, n, 0.0f), &gk);
        const squares s = squares_add(no_squares, u);
        column_add(columns + i, n - i, s.low);
        if (n - i > VD_LEN) column_add(columns + i + VD_LEN, n - i - VD_LEN, s.high);
        uu.low += s.low, uu.high += s.high;
        if (w) ww = squares_add(ww, weight);
    }
    out[0] = squares_sum(uu);
    out[1] = squares_sum(ww);
}

void KERNEL(factor_full)(size_t n, const float *w, const float *g, const update_grad *m,
                         float eps, float fresh, float *v, double out[2])
{
    const grad_consts gk = grad_setup(m);
    /* 1 - fresh in two parts: averages of a small `fresh` would have another sum of weights. */
    const float left = 1 - fresh;
    const vf keep = vf_set(left), keep_low = vf_set((1 - left) - fresh);
    const vf least = vf_set(eps), f = vf_set(fresh);
    squares uu = no_squares, ww = no_squares;
    for (size_t i = 0; i < n; i += VF_LEN) {
        const vf weight = w ? load_at(w, i, n, 0.0f) : vf_set(0.0f);
        const vf u = gradient(weight, load_at(g, i, n, 0.0f), &gk);
        const vf old = load_at(v, i, n, 1.0f), square = vf_fma(u, u, least);
        const vf now = vf_fma(keep, old, vf_fma(keep_low, old, vf_mul(f, square)));
        store_at(v, i, n, now);
        uu = squares_add(uu, vf_div(u, vf_sqrt(now)));
        if (w) ww = squares_add(ww, weight);
    }
    out[0] = squares_sum(uu);
    out[1] = squares_sum(ww);
}

double KERNEL(factor_norm)(size_t n, const float *w, const float *g, const update_grad *m,
                           float row, const float *v)
{
    const grad_consts gk = grad_setup(m);
    const vf r = vf_set(row);
    squares uu = no_squares;
    for (size_t i = 0; i < n; i += VF_LEN) {
        const vf weight = w ? load_at(w, i, n, 0.0f) : vf_set(0.0f);
        const vf u = gradient(weight, load_at(g, i, n, 0.0f), &gk);
        uu = squares_add(uu, vf_mul(r, vf_div(u, vf_sqrt(load_at(v, i, n, 1.0f)))));
    }
    return squares_sum(uu);
}

INLINE void factor_run(size_t n, float *w, const float *g, const update_part *p,
                       const factor_arg *a, const bool half)
{
    const grad_consts gk = grad_setup(&p->grad);
    const vf shrink = vf_set(a->shrink), step = vf_set(a->step), row = vf_set(a->row);
    const vf b1 = vf_set(a->beta1), o1 = vf_set(a->one_beta1);
    for (size_t i = 0; i < n; i += VF_LEN) {
        WEIGHT_AND_GRADIENT;
        vf move = vf_mul(row, vf_div(grad, vf_sqrt(load_at(p->state[0], i, n, 1.0f))));
        if (p->state[1]) {
            move = vf_fma(b1, state_at(p, 1, i, n, half), vf_mul(o1, move));
            keep_at(p, 1, i, n, move, random, half);
        }
        store_at(w, i, n, vf_fnma(step, move, vf_fnma(shrink, weight, weight)));
    }
}

void KERNEL(factor_step)(size_t n, float *w, const float *g, const update_part *p,
                         const factor_arg *a)
{
    BY_HALF(factor_run);
}

void KERNEL(clip)(size_t n, float limit, float *y)
{
    const vf low = vf_set(-limit), high = vf_set(limit);
    for (size_t i = 0; i < n; i += VF_LEN)
        store_at(y, i, n, vf_min(high, vf_max(low, load_at(y, i, n, 0.0f))));
}
