/*
 * softmax_row.c - softmax of a row that is in the cache and stays there: maximum, then one exp
 * an element, stored as it is, then one multiplication. Loads and stores are cheap there, and
 * the exponential is all that counts. Rows of up to 4 vectors never leave the registers.
 */
#include "exp.h"

#include <float.h>

/* Rows up to here are short enough that the next one, if there is one, should be on its way. */
enum { NEXT_ROW = 4096 };

/* Is the row one that the plain path is right for? */
static inline bool ordinary(float max, const exp_arg *arg)
{
    return fabsf(max * arg->log2e_t) <= EXP_LIMIT;
}

/* e / sum; 0 where that would be subnormal, in any floating-point mode. */
typedef struct share {
    vf inv, least;
} share;

static inline share share_of(float sum)
{
    return (share){ vf_set(1.0f / sum), vf_set(0x1.00001p-126f * (sum > 1.0f ? sum : 1.0f)) };
}

static inline vf share_vec(vf e, const share *s)
{
    return vf_mul(vf_sel(vf_gt(s->least, e), vf_set(0.0f), e), s->inv);
}

/*
 * A row of so few vectors is all latency. The reference is taken from x[0], so that
 * exponentials need not wait for the maximum; where that is more than 2^RISE above, all is done
 * again.
 */
#define RISE 30.0f

static inline float small_exp(size_t vecs, const vf *v, const exp_arg *arg, float ref, vf *e,
                              bool plain)
{
    const exp_consts k = exp_setup(arg, ref, 1.0f);
    vf s = vf_set(0.0f);
    for (size_t j = 0; j < vecs; j++) e[j] = exp_vec(v[j], &k, plain), s = vf_add(s, e[j]);
    return vf_hsum(s);
}

static inline bool small_row(size_t n, const float *x, const exp_arg *arg, float *y,
                             lse_part *part, size_t vecs, bool plain)
{
    vf v[4], e[4], m;
    size_t tail = n - (vecs - 1) * VF_LEN;
    for (size_t j = 0; j + 1 < vecs; j++) v[j] = vf_load(x + j * VF_LEN);
    v[vecs - 1] = vf_load_n(x + (vecs - 1) * VF_LEN, tail, -INFINITY);
    float ref = rintf(x[0] * arg->log2e_t);
    bool fits = fabsf(ref) <= EXP_LIMIT;
    float sum = small_exp(vecs, v, arg, fits ? ref : 0.0f, e, plain);

    m = v[0];
    for (size_t j = 1; j < vecs; j++) m = vf_max(m, v[j]);
    part->max = vf_hmax(m);
    if (!ordinary(part->max, arg)) return false;
    if (!fits || part->max * arg->log2e_t > ref + RISE) {
        ref = rintf(part->max * arg->log2e_t);
        sum = small_exp(vecs, v, arg, ref, e, plain);
    }
    part->ref = ref;
    part->sum = (double)sum;
    const share s = share_of(sum);
    for (size_t j = 0; j < vecs; j++) e[j] = share_vec(e[j], &s);
    for (size_t j = 0; j + 1 < vecs; j++) vf_store(y + j * VF_LEN, e[j]);
    vf_store_n(y + (vecs - 1) * VF_LEN, e[vecs - 1], tail);
    return sum == sum;
}

/* As in lse.c: floats after which sums start anew in a second sum. */
enum { LANE_BLOCK = 16 * 4 * VF_LEN };

/* ahead: where the next row is. It is fetched here, where memory would else be idle. */
static inline float exp_block(size_t n, const float *x, const exp_consts *k, float *y,
                              bool plain, size_t ahead)
{
    vf s0 = vf_set(0.0f), s1 = s0, s2 = s0, s3 = s0, sum = s0;
    size_t i = 0;
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN) {
        if (i % LANE_BLOCK == 0) {
            sum = vf_add(sum, vf_add(vf_add(s0, s1), vf_add(s2, s3)));
            s0 = s1 = s2 = s3 = vf_set(0.0f);
        }
        vf a = exp_vec(vf_load(x + i), k, plain),
           b = exp_vec(vf_load(x + i + VF_LEN), k, plain);
        vf c = exp_vec(vf_load(x + i + 2 * VF_LEN), k, plain),
           d = exp_vec(vf_load(x + i + 3 * VF_LEN), k, plain);
        for (size_t p = 0; p < 4 * VF_LEN; p += 16) vf_prefetch(x + ahead + i + p);
        s0 = vf_add(s0, a), s1 = vf_add(s1, b), s2 = vf_add(s2, c), s3 = vf_add(s3, d);
        vf_store(y + i, a), vf_store(y + i + VF_LEN, b);
        vf_store(y + i + 2 * VF_LEN, c), vf_store(y + i + 3 * VF_LEN, d);
    }
    for (; i < n; i += VF_LEN) {
        size_t m = n - i < VF_LEN ? n - i : VF_LEN;
        vf a = exp_vec(vf_load_n(x + i, m, -INFINITY), k, plain);
        s0 = vf_add(s0, a);
        vf_store_n(y + i, a, m);
    }
    return vf_hsum(vf_add(sum, vf_add(vf_add(s0, s1), vf_add(s2, s3))));
}

static inline double exp_segment(size_t n, const float *x, const exp_consts *k, float *y,
                                 bool plain, size_t ahead)
{
    double sum = 0;
    for (size_t i = 0; i < n; i += KERNEL_BLOCK) {
        size_t m = n - i < KERNEL_BLOCK ? n - i : KERNEL_BLOCK;
        sum += (double)exp_block(m, x + i, k, y + i, plain, ahead);
    }
    return sum;
}

double KERNEL(exp_store)(size_t n, const float *x, const exp_arg *arg, float ref, float *y,
                         size_t ahead)
{
    const exp_consts k = exp_setup(arg, ref, 1.0f);
    return arg->plain ? exp_segment(n, x, &k, y, true, ahead)
                      : exp_segment(n, x, &k, y, false, ahead);
}

static inline void share_row(size_t n, float *y, float sum)
{
    const share s = share_of(sum);
    size_t i = 0;
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN)
        for (size_t j = 0; j < 4; j++)
            vf_store(y + i + j * VF_LEN, share_vec(vf_load(y + i + j * VF_LEN), &s));
    for (; i + VF_LEN <= n; i += VF_LEN) vf_store(y + i, share_vec(vf_load(y + i), &s));
    if (i < n) vf_store_n(y + i, share_vec(vf_load_n(y + i, n - i, 0.0f), &s), n - i);
}

static inline bool any_row(size_t n, const float *x, const exp_arg *arg, float *y,
                           lse_part *part, bool plain)
{
    if (n <= VF_LEN) return small_row(n, x, arg, y, part, 1, plain);
    if (n <= 2 * VF_LEN) return small_row(n, x, arg, y, part, 2, plain);
    if (n <= 3 * VF_LEN) return small_row(n, x, arg, y, part, 3, plain);
    if (n <= 4 * VF_LEN) return small_row(n, x, arg, y, part, 4, plain);

    part->max = KERNEL(max)(n, x);
    if (!ordinary(part->max, arg)) return false;
    part->ref = rintf(part->max * arg->log2e_t);
    const exp_consts k = exp_setup(arg, part->ref, 1.0f);
    part->sum = 0;
    for (size_t i = 0; i < n; i += ROW_SEGMENT) {
        size_t m = n - i < ROW_SEGMENT ? n - i : ROW_SEGMENT;
        part->sum += exp_segment(m, x + i, &k, y + i, plain, n <= NEXT_ROW ? n : 0);
    }
    if (n <= SHORT_ROW)
        share_row(n, y, (float)part->sum);
    else
        KERNEL(scale)(n, y, (float)(1.0 / part->sum), y);
    return part->sum == part->sum;
}

bool KERNEL(softmax_row)(size_t n, const float *x, const exp_arg *arg, float *y, lse_part *part)
{
    if (n == 0 || arg->pre != 0.0f) return false;
    return arg->plain ? any_row(n, x, arg, y, part, true) : any_row(n, x, arg, y, part, false);
}
