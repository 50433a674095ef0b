/*
 * margin.c - how margins change between two rows of scores: see margin_arg. Plain loops in
 * double, 16 classes at a time: the same bits on every ISA. What is masked is replaced by the
 * target's scores before it is widened, which costs half as much as in double.
 */
#include "vec.h"

#define AHEAD (6 * 1024 / 4)

enum { LANES = 16, STAGE = 256 };

typedef struct margin {
    double a_unit, h_unit, pivot;
    float a, h; /* what stands for a masked class: e is 0 there */
} margin;

static inline margin margin_of(const margin_arg *m)
{
    const double pivot = (double)m->a * m->a_unit - (double)m->h * m->h_unit;
    return (margin){ m->a_unit, m->h_unit, pivot, m->a, m->h };
}

static inline double change(float a, float h, const margin *m)
{
    const bool masked = a == -INFINITY || h == -INFINITY;
    const double x = (double)(masked ? m->a : a), y = (double)(masked ? m->h : h);
    return m->pivot - (x * m->a_unit - y * m->h_unit);
}

/* odd: 1 where an entry is NaN or +inf. */
typedef struct lanes {
    double e[LANES], ee[LANES];
    float odd[LANES];
} lanes;

static inline void add_lanes(size_t n, const float *a, const float *h, const margin *m,
                             lanes *l)
{
    for (size_t j = 0; j < n; j++) {
        const double e = change(a[j], h[j], m);
        const bool fine = a[j] < INFINITY && h[j] < INFINITY;
        l->odd[j] = fine ? l->odd[j] : 1.0f;
        l->e[j] += e;
        l->ee[j] += e * e;
    }
}

void KERNEL(margin_sums)(size_t n, const float *a, const float *h, const margin_arg *m,
                         double out[2])
{
    const margin arg = margin_of(m);
    lanes l = { { 0 }, { 0 }, { 0 } };
    float odd = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf_prefetch(a + i + AHEAD);
        vf_prefetch(h + i + AHEAD);
        add_lanes(LANES, a + i, h + i, &arg, &l);
    }
    add_lanes(n - i, a + i, h + i, &arg, &l);
    out[0] = out[1] = 0;
    for (size_t j = 0; j < LANES; j++) {
        odd += l.odd[j];
        out[0] += l.e[j], out[1] += l.ee[j];
    }
    if (odd > 0) out[0] = out[1] = NAN;
}

static inline void emit(size_t n, const float *a, const float *h, const margin *m,
                        double factor, float *d)
{
    for (size_t j = 0; j < n; j++) d[j] = (float)(factor * change(a[j], h[j], m));
}

/* Through a stage in L1 where it is to go past the caches. */
void KERNEL(margin_emit)(size_t n, const float *a, const float *h, const margin_arg *m,
                         double factor, float *d, int store)
{
    const margin arg = margin_of(m);
    size_t i = 0, head = (size_t)(-(uintptr_t)d / sizeof *d) % 16;
    if (store == STORE_STREAM) {
        float stage[STAGE];
        i = head < n ? head : n;
        emit(i, a, h, &arg, factor, d);
        for (; i + STAGE <= n; i += STAGE) {
            for (size_t j = 0; j < STAGE; j += 16) {
                vf_prefetch(a + i + j + AHEAD);
                vf_prefetch(h + i + j + AHEAD);
            }
            emit(STAGE, a + i, h + i, &arg, factor, stage);
            for (size_t j = 0; j < STAGE; j += VF_LEN) vf_stream(d + i + j, vf_load(stage + j));
        }
    }
    emit(n - i, a + i, h + i, &arg, factor, d + i);
}
