/*
 * barrier.c - the log-barrier's distribution p = 1 / (gap + nu), whose nu is found by some
 * five sums of a row: see online/log_barrier.h. Divisions in double are what it costs, two
 * cycles an element on any vector length; plain loops over lanes of their own, so the same bits
 * on every ISA.
 */
#include "vec.h"

/* Sums have LANES lanes on every ISA, of whatever vectors it has. */
enum { LANES = 16, VD_LEN = VF_LEN / 2, PARTS = LANES / VD_LEN };
typedef double vd __attribute__((vector_size(VF_LEN * sizeof(float))));
typedef double vd_unaligned
    __attribute__((vector_size(VF_LEN * sizeof(float)), aligned(8), may_alias));

typedef int64_t vl __attribute__((vector_size(VF_LEN * sizeof(float))));

/* x, or 0 where the mask is. */
static inline vd vd_where(vl mask, vd x) { return (vd)((vl)x & mask); }

typedef struct lanes {
    vd v[PARTS];
} lanes;

/* By halves: short rows are mostly this. */
static inline double lanes_sum(const lanes *l)
{
    double v[LANES];
    memcpy(v, l, sizeof v);
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++) v[j] += v[j + half];
    return v[0];
}

/* n of LANES numbers, then fill. */
static inline lanes lanes_load(size_t n, const double *x, double fill)
{
    lanes l;
    if (n >= LANES) {
        for (size_t j = 0; j < PARTS; j++)
            l.v[j] = *(const vd_unaligned *)(const void *)(x + j * VD_LEN);
    } else {
        double copy[LANES];
        for (size_t j = 0; j < LANES; j++) copy[j] = j < n ? x[j] : fill;
        memcpy(&l, copy, sizeof l);
    }
    return l;
}

static inline lanes lanes_widen(size_t n, const float *x, float fill)
{
    float copy[LANES];
    lanes l;
    if (n < LANES)
        for (size_t j = 0; j < LANES; j++) copy[j] = j < n ? x[j] : fill;
    else
        memcpy(copy, x, sizeof copy);
    for (size_t j = 0; j < PARTS; j++)
        for (size_t i = 0; i < VD_LEN; i++) l.v[j][i] = (double)copy[j * VD_LEN + i];
    return l;
}

bool KERNEL(least)(size_t n, const float *x, float *least)
{
    const vf inf = vf_set(INFINITY), low = vf_set(-INFINITY);
    vf m[4] = { inf, inf, inf, inf };
    bool fine = true;
    size_t i = 0;
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN) {
        vm good[4];
        for (size_t j = 0; j < 4; j++) {
            vf v = vf_load(x + i + j * VF_LEN);
            good[j] = vf_gt(v, low); /* not where v is NaN */
            m[j] = vf_min(m[j], v);
        }
        for (size_t j = 0; j < 4; j++) fine = fine & vm_all(good[j]);
    }
    for (; i < n; i += VF_LEN) {
        vf v = load_at(x, i, n, INFINITY);
        fine = fine & vm_all(vf_gt(v, low));
        m[0] = vf_min(m[0], v);
    }
    m[0] = vf_min(vf_min(m[0], m[1]), vf_min(m[2], m[3]));
    *least = -vf_hmax(vf_neg(m[0]));
    return fine;
}

static inline double gap_of(float x, double least, double rate)
{
    const double gap = rate * ((double)x - least);
    return x == INFINITY ? (double)INFINITY : gap; /* of rate 0, too */
}

double KERNEL(barrier_gap)(size_t n, const float *x, double least, double rate, double *gap)
{
    lanes sum = { { { 0 } } };
    for (size_t i = 0; i < n; i++) gap[i] = gap_of(x[i], least, rate);
    for (size_t i = 0; i < n; i += LANES) {
        const lanes g = lanes_load(n - i, gap + i, 0);
        for (size_t j = 0; j < PARTS; j++) sum.v[j] += g.v[j];
    }
    return lanes_sum(&sum);
}

/* Up to four: as the lanes would add them, the rest of which are 0. */
static inline void few_sums(size_t n, const double *gap, double nu, double out[2])
{
    double p[4] = { 0 };
    for (size_t j = 0; j < n; j++) p[j] = 1 / (gap[j] + nu);
    out[0] = (p[0] + p[2]) + (p[1] + p[3]);
    out[1] = (p[0] * p[0] + p[2] * p[2]) + (p[1] * p[1] + p[3] * p[3]);
}

void KERNEL(barrier_sums)(size_t n, const double *gap, double nu, double out[2])
{
    lanes s = { { { 0 } } }, q = { { { 0 } } };
    if (n <= 4) {
        few_sums(n, gap, nu, out);
        return;
    }
    for (size_t i = 0; i < n; i += LANES) {
        const lanes g = lanes_load(n - i, gap + i, (double)INFINITY);
        for (size_t j = 0; j < PARTS; j++) {
            const vd p = 1 / (g.v[j] + nu);
            s.v[j] += p;
            q.v[j] += p * p;
        }
    }
    out[0] = lanes_sum(&s), out[1] = lanes_sum(&q);
}

void KERNEL(barrier_emit)(size_t n, const double *gap, double nu, double scale, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = (float)(scale / (gap[i] + nu));
}

void KERNEL(barrier_dots)(size_t n, const float *p, const float *dp, double out[2])
{
    lanes d = { { { 0 } } }, q = { { { 0 } } };
    for (size_t i = 0; i < n; i += LANES) {
        const lanes a = lanes_widen(n - i, p + i, 0), b = lanes_widen(n - i, dp + i, 0);
        for (size_t j = 0; j < PARTS; j++) {
            const vd square = a.v[j] * a.v[j];
            d.v[j] += vd_where(a.v[j] != 0, square * b.v[j]);
            q.v[j] += square;
        }
    }
    out[0] = lanes_sum(&d), out[1] = lanes_sum(&q);
}

void KERNEL(barrier_grad)(size_t n, const float *p, const float *dp, double factor, double mean,
                          float *dx)
{
    for (size_t i = 0; i < n; i++) {
        const double a = (double)p[i], d = factor * (a * a * ((double)dp[i] - mean));
        dx[i] = a == 0 ? 0 : (float)d;
    }
}
