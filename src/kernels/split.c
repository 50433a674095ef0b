/*
 * split.c - a softmax whose classes are of two groups, those above a value and the tail: sums
 * over the tail, then a gradient with a factor for each. The exponential is stored in between.
 */
#include "emit_loop.h"
#include "exp.h"

/* Floats after which sums start anew in a second sum. */
enum { LANE_BLOCK = 32 * VF_LEN };

/* a where x is above least (equal: or is it), else b. */
static inline vf of_group(vf x, vf least, bool equal, vf a, vf b)
{
    return equal ? vf_sel(vf_gt(least, x), b, a) : vf_sel(vf_gt(x, least), a, b);
}

typedef struct tail_sums {
    vf s, d;
} tail_sums;

static inline vf tail_add(tail_sums *t, vf x, const exp_consts *k, vf off, vf limit, bool equal,
                          bool plain)
{
    vf p = exp_vec(x, k, plain), tail = of_group(x, limit, equal, vf_set(0.0f), p);
    t->s = vf_add(t->s, tail);
    t->d = vf_fma_live(tail, vf_sub(x, off), t->d);
    return p;
}

static inline void split(size_t n, const float *x, const exp_arg *arg, float ref, float shift,
                         float least, bool equal, float *y, double sums[2], size_t ahead,
                         bool plain)
{
    const exp_consts k = exp_setup(arg, ref, 1.0f);
    const vf zero = vf_set(0.0f), off = vf_set(shift), limit = vf_set(least);
    for (size_t b = 0; b < n; b += KERNEL_BLOCK) {
        size_t end = n - b < KERNEL_BLOCK ? n : b + KERNEL_BLOCK, i = b;
        tail_sums t[2] = { { zero, zero }, { zero, zero } };
        vf all_s = zero, all_d = zero;
        for (; i + 2 * VF_LEN <= end; i += 2 * VF_LEN) {
            if (i % LANE_BLOCK == 0) {
                all_s = vf_add(all_s, vf_add(t[0].s, t[1].s));
                all_d = vf_add(all_d, vf_add(t[0].d, t[1].d));
                t[0] = t[1] = (tail_sums){ zero, zero };
            }
            for (size_t p = 0; p < 2 * VF_LEN; p += 16) vf_prefetch(x + i + p + ahead);
            vf p0 = tail_add(&t[0], vf_load(x + i), &k, off, limit, equal, plain);
            vf p1 = tail_add(&t[1], vf_load(x + i + VF_LEN), &k, off, limit, equal, plain);
            vf_store(y + i, p0), vf_store(y + i + VF_LEN, p1);
        }
        for (; i < end; i += VF_LEN) {
            vf v = load_at(x, i, end, -INFINITY);
            vf p = tail_add(&t[0], v, &k, off, limit, equal, plain);
            vf_store_n(y + i, p, end - i < VF_LEN ? end - i : VF_LEN);
        }
        sums[0] += (double)vf_hsum(vf_add(all_s, vf_add(t[0].s, t[1].s)));
        sums[1] += (double)vf_hsum(vf_add(all_d, vf_add(t[0].d, t[1].d)));
    }
}

void KERNEL(exp_split)(size_t n, const float *x, const exp_arg *arg, float ref, float shift,
                       float least, bool equal, float *y, double sums[2], size_t ahead)
{
    if (arg->plain && !equal)
        split(n, x, arg, ref, shift, least, false, y, sums, ahead, true);
    else if (arg->plain)
        split(n, x, arg, ref, shift, least, true, y, sums, ahead, true);
    else
        split(n, x, arg, ref, shift, least, equal, y, sums, ahead, false);
}

static inline void emit(size_t n, const float *p, const float *x, float least, bool equal,
                        float a, float b, float *d, int store)
{
    const vf limit = vf_set(least), top = vf_set(a), tail = vf_set(b);
#define VALUE(i, end)                                                                          \
    vf_mul(load_at(p, i, end, 0.0f),                                                           \
           of_group(load_at(x, i, end, -INFINITY), limit, equal, top, tail))
    EMIT_LOOP(VALUE);
#undef VALUE
}

void KERNEL(split_emit)(size_t n, const float *p, const float *x, float least, bool equal,
                        float a, float b, float *d, int store)
{
    if (equal)
        emit(n, p, x, least, true, a, b, d, store);
    else
        emit(n, p, x, least, false, a, b, d, store);
}
