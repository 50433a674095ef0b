/*
 * pair.c - two rows at once: a softmax and a second row (a teacher's logits, or the row
 * itself), for losses that compare two distributions. One read of each in either pass.
 *
 * lse_dot keeps its reference as lse.c does, and scales the weighted sums with the sum.
 */
#include "elementary.h"
#include "emit_loop.h"

#define RISE 30.0f
#define SEED 256

/* Floats after which sums start anew in a second sum. */
enum { LANE_BLOCK = 16 * 2 * VF_LEN };
/* The same for Jensen-Shannon, whose sums start anew in double. */
enum { JS_BLOCK = 32 * VF_LEN };

typedef struct sums {
    float max, sum, first, second;
} sums;

/* Sums of p, p v, p v^2 over a block, p = exp(x) 2^-ref; 0 where p is. */
static inline sums sum_block(size_t n, const float *x, const float *y, float shift,
                             const exp_consts *k, bool plain)
{
    const vf zero = vf_set(0.0f), off = vf_set(shift);
    vf s[2] = { zero, zero }, d[2] = { zero, zero }, q[2] = { zero, zero };
    vf m = vf_set(-INFINITY), all_s = zero, all_d = zero, all_q = zero;
    for (size_t i = 0; i < n; i += 2 * VF_LEN) {
        if (i % LANE_BLOCK == 0) { /* as in lse.c */
            all_s = vf_add(all_s, vf_add(s[0], s[1])), s[0] = s[1] = zero;
            all_d = vf_add(all_d, vf_add(d[0], d[1])), d[0] = d[1] = zero;
            all_q = vf_add(all_q, vf_add(q[0], q[1])), q[0] = q[1] = zero;
        }
        vf_prefetch(x + i + AHEAD);
        if (y) vf_prefetch(y + i + AHEAD);
        for (size_t j = 0; j < 2 && i + j * VF_LEN < n; j++) {
            vf a = load_at(x, i + j * VF_LEN, n, -INFINITY);
            vf b = y ? load_at(y, i + j * VF_LEN, n, 0.0f) : off;
            vf p = exp_vec(a, k, plain);
            vf v = vf_sel(vf_eq(p, zero), zero, vf_sub(a, b));
            vf pv = vf_mul(p, v);
            m = vf_max(m, a);
            s[j] = vf_add(s[j], p);
            d[j] = vf_add(d[j], pv);
            q[j] = vf_fma(pv, v, q[j]);
        }
    }
    return (sums){ vf_hmax(m), vf_hsum(vf_add(all_s, vf_add(s[0], s[1]))),
                   vf_hsum(vf_add(all_d, vf_add(d[0], d[1]))),
                   vf_hsum(vf_add(all_q, vf_add(q[0], q[1]))) };
}

static inline float ref_of(float max, const exp_arg *arg)
{
    float ref = rintf((max - arg->pre) * arg->log2e_t);
    return ref > EXP_LIMIT ? EXP_LIMIT : ref > -EXP_LIMIT ? ref : -EXP_LIMIT;
}

static inline void dot_blocks(size_t n, const float *x, const float *y, float shift,
                              const exp_arg *arg, lse_part *part, double dot[2], bool plain)
{
    for (size_t i = 0; i < n; i += KERNEL_BLOCK) {
        size_t m = n - i < KERNEL_BLOCK ? n - i : KERNEL_BLOCK;
        const float *other = y ? y + i : NULL;
        float ref = part->ref;
        if (ref == -INFINITY) ref = ref_of(KERNEL(max)(m < SEED ? m : SEED, x + i), arg);
        exp_consts k = exp_setup(arg, ref, 1.0f);
        sums b = sum_block(m, x + i, other, shift, &k, plain);
        float wanted = ref_of(b.max, arg);
        if (wanted > ref + RISE) {
            int down = (int)(ref - wanted);
            part->sum = part->sum == 0 ? 0 : ldexp(part->sum, down);
            dot[0] = dot[0] == 0 ? 0 : ldexp(dot[0], down);
            dot[1] = dot[1] == 0 ? 0 : ldexp(dot[1], down);
            ref = wanted;
            k = exp_setup(arg, ref, 1.0f);
            b = sum_block(m, x + i, other, shift, &k, plain);
        }
        part->sum += (double)b.sum;
        dot[0] += (double)b.first;
        dot[1] += (double)b.second;
        if (b.max > part->max) part->max = b.max;
        part->ref = part->max == -INFINITY && part->sum == 0 ? -INFINITY : ref;
    }
}

void KERNEL(lse_dot)(size_t n, const float *x, const float *y, float shift, const exp_arg *arg,
                     lse_part *part, double dot[2])
{
    if (arg->plain)
        dot_blocks(n, x, y, shift, arg, part, dot, true);
    else
        dot_blocks(n, x, y, shift, arg, part, dot, false);
}

/* ---- A row and its target distribution --------------------------------------------------- */

typedef struct target_lanes {
    vf m, s, d, q;
} target_lanes;

static inline void target_add(target_lanes *l, vf x, vf q, vf off, const exp_consts *k,
                              bool plain)
{
    l->m = vf_max(l->m, x);
    l->s = exp_add(l->s, x, k, plain);
    l->d = vf_fma_live(q, vf_sub(x, off), l->d);
    l->q = vf_add(l->q, q);
}

static inline sums target_block(size_t n, const float *x, const float *y, float shift,
                                const exp_consts *k, bool plain)
{
    const vf zero = vf_set(0.0f), off = vf_set(shift);
    const target_lanes none = { vf_set(-INFINITY), zero, zero, zero };
    target_lanes l[2] = { none, none };
    vf s = zero, d = zero, q = zero;
    size_t i = 0;
    for (; i + 2 * VF_LEN <= n; i += 2 * VF_LEN) {
        if (i % LANE_BLOCK == 0) { /* as in lse.c */
            s = vf_add(s, vf_add(l[0].s, l[1].s)), l[0].s = l[1].s = zero;
            d = vf_add(d, vf_add(l[0].d, l[1].d)), l[0].d = l[1].d = zero;
            q = vf_add(q, vf_add(l[0].q, l[1].q)), l[0].q = l[1].q = zero;
        }
        for (size_t p = 0; p < 2 * VF_LEN; p += 16) {
            vf_prefetch(x + i + p + AHEAD);
            vf_prefetch(y + i + p + AHEAD);
        }
        for (size_t j = 0; j < 2; j++)
            target_add(&l[j], vf_load(x + i + j * VF_LEN), vf_load(y + i + j * VF_LEN), off, k,
                       plain);
    }
    for (; i < n; i += VF_LEN)
        target_add(&l[0], load_at(x, i, n, -INFINITY), load_at(y, i, n, 0.0f), off, k, plain);
    return (sums){ vf_hmax(vf_max(l[0].m, l[1].m)), vf_hsum(vf_add(s, vf_add(l[0].s, l[1].s))),
                   vf_hsum(vf_add(d, vf_add(l[0].d, l[1].d))),
                   vf_hsum(vf_add(q, vf_add(l[0].q, l[1].q))) };
}

static inline void target_blocks(size_t n, const float *x, const float *q, float shift,
                                 const exp_arg *arg, lse_part *part, double dot[2], bool plain)
{
    for (size_t i = 0; i < n; i += KERNEL_BLOCK) {
        size_t m = n - i < KERNEL_BLOCK ? n - i : KERNEL_BLOCK;
        float ref = part->ref;
        if (ref == -INFINITY) ref = ref_of(KERNEL(max)(m < SEED ? m : SEED, x + i), arg);
        exp_consts k = exp_setup(arg, ref, 1.0f);
        sums b = target_block(m, x + i, q + i, shift, &k, plain);
        float wanted = ref_of(b.max, arg);
        if (wanted > ref + RISE) {
            part->sum = part->sum == 0 ? 0 : ldexp(part->sum, (int)(ref - wanted));
            ref = wanted;
            k = exp_setup(arg, ref, 1.0f);
            b = target_block(m, x + i, q + i, shift, &k, plain);
        }
        part->sum += (double)b.sum;
        dot[0] += (double)b.first;
        dot[1] += (double)b.second;
        if (b.max > part->max) part->max = b.max;
        part->ref = part->max == -INFINITY && part->sum == 0 ? -INFINITY : ref;
    }
}

void KERNEL(lse_target)(size_t n, const float *x, const float *q, float shift,
                        const exp_arg *arg, lse_part *part, double dot[2])
{
    if (arg->plain)
        target_blocks(n, x, q, shift, arg, part, dot, true);
    else
        target_blocks(n, x, q, shift, arg, part, dot, false);
}

/* ---- Both log-sum-exps of a pair --------------------------------------------------------- */

typedef struct pair_sums {
    float max_x, max_y, x, y, dot;
} pair_sums;

typedef struct pair_lanes {
    vf x[2], y[2], d[2], max_x[2], max_y[2];
} pair_lanes;

static inline void pair_add(pair_lanes *l, size_t j, vf a, vf b, vf off, const exp_consts *kx,
                            const exp_consts *ky, int beside, bool plain)
{
    vf q = exp_vec(b, ky, plain);
    l->max_x[j] = vf_max(l->max_x[j], a), l->max_y[j] = vf_max(l->max_y[j], b);
    l->x[j] = exp_add(l->x[j], a, kx, plain);
    l->y[j] = vf_add(l->y[j], q);
    if (beside == PAIR_SUMS) return;
    const vf zero = vf_set(0.0f);
    vf v = beside == PAIR_CROSS ? vf_sub(a, off) : vf_sub(b, a);
    l->d[j] = vf_fma(q, vf_sel(vf_eq(q, zero), zero, v), l->d[j]);
}

static inline pair_sums pair_block(size_t n, const float *x, const float *y, float shift,
                                   const exp_consts *kx, const exp_consts *ky, int beside,
                                   bool plain)
{
    const vf z = vf_set(0.0f), low = vf_set(-INFINITY), off = vf_set(shift);
    pair_lanes l = { { z, z }, { z, z }, { z, z }, { low, low }, { low, low } };
    vf all_x = z, all_y = z, all_d = z;
    size_t i = 0;
    for (; i + 2 * VF_LEN <= n; i += 2 * VF_LEN) {
        if (i % LANE_BLOCK == 0) { /* as in lse.c */
            all_x = vf_add(all_x, vf_add(l.x[0], l.x[1])), l.x[0] = l.x[1] = z;
            all_y = vf_add(all_y, vf_add(l.y[0], l.y[1])), l.y[0] = l.y[1] = z;
            all_d = vf_add(all_d, vf_add(l.d[0], l.d[1])), l.d[0] = l.d[1] = z;
        }
        for (size_t p = 0; p < 2 * VF_LEN; p += 16) {
            vf_prefetch(x + i + p + AHEAD);
            vf_prefetch(y + i + p + AHEAD);
        }
        for (size_t j = 0; j < 2; j++)
            pair_add(&l, j, vf_load(x + i + j * VF_LEN), vf_load(y + i + j * VF_LEN), off, kx,
                     ky, beside, plain);
    }
    for (; i < n; i += VF_LEN)
        pair_add(&l, 0, load_at(x, i, n, -INFINITY), load_at(y, i, n, -INFINITY), off, kx, ky,
                 beside, plain);
    return (pair_sums){ vf_hmax(vf_max(l.max_x[0], l.max_x[1])),
                        vf_hmax(vf_max(l.max_y[0], l.max_y[1])),
                        vf_hsum(vf_add(all_x, vf_add(l.x[0], l.x[1]))),
                        vf_hsum(vf_add(all_y, vf_add(l.y[0], l.y[1]))),
                        vf_hsum(vf_add(all_d, vf_add(l.d[0], l.d[1]))) };
}

/* One row's side of a pair: what it is reduced with, and into. */
typedef struct side {
    const exp_arg *arg;
    lse_part *part;
    float ref;
    exp_consts k;
} side;

static inline side side_of(size_t n, const float *x, const exp_arg *arg, lse_part *part)
{
    side s = { .arg = arg, .part = part, .ref = part->ref };
    if (s.ref == -INFINITY) s.ref = ref_of(KERNEL(max)(n < SEED ? n : SEED, x), arg);
    s.k = exp_setup(arg, s.ref, 1.0f);
    return s;
}

/* Whether the block must be done again, at a higher reference; dot: what else is at it. */
static inline bool side_rises(side *s, float max, double *dot)
{
    float wanted = ref_of(max, s->arg);
    if (!(wanted > s->ref + RISE)) return false;
    int down = (int)(s->ref - wanted);
    s->part->sum = s->part->sum == 0 ? 0 : ldexp(s->part->sum, down);
    if (dot) *dot = *dot == 0 ? 0 : ldexp(*dot, down);
    s->ref = wanted;
    s->k = exp_setup(s->arg, wanted, 1.0f);
    return true;
}

static inline void side_close(side *s, float sum, float max)
{
    s->part->sum += (double)sum;
    if (max > s->part->max) s->part->max = max;
    s->part->ref = s->part->max == -INFINITY && s->part->sum == 0 ? -INFINITY : s->ref;
}

static inline void pair_blocks(size_t n, const float *x, const exp_arg *arg_x, lse_part *part_x,
                               const float *y, const exp_arg *arg_y, lse_part *part_y,
                               float shift, double *dot, int beside, bool plain)
{
    for (size_t i = 0; i < n; i += KERNEL_BLOCK) {
        size_t m = n - i < KERNEL_BLOCK ? n - i : KERNEL_BLOCK;
        side sx = side_of(m, x + i, arg_x, part_x), sy = side_of(m, y + i, arg_y, part_y);
        pair_sums b = pair_block(m, x + i, y + i, shift, &sx.k, &sy.k, beside, plain);
        bool up_x = side_rises(&sx, b.max_x, NULL), up_y = side_rises(&sy, b.max_y, dot);
        if (up_x || up_y) b = pair_block(m, x + i, y + i, shift, &sx.k, &sy.k, beside, plain);
        side_close(&sx, b.x, b.max_x);
        side_close(&sy, b.y, b.max_y);
        if (beside != PAIR_SUMS) *dot += (double)b.dot;
    }
}

void KERNEL(lse_pair)(size_t n, const float *x, const exp_arg *arg_x, lse_part *part_x,
                      const float *y, const exp_arg *arg_y, lse_part *part_y, int beside,
                      float shift, double *dot)
{
#define BLOCKS(what, plain)                                                                    \
    pair_blocks(n, x, arg_x, part_x, y, arg_y, part_y, shift, dot, what, plain)
#define FORMS(plain)                                                                           \
    do {                                                                                       \
        if (beside == PAIR_DIFFERENCE)                                                         \
            BLOCKS(PAIR_DIFFERENCE, plain);                                                    \
        else if (beside == PAIR_CROSS)                                                         \
            BLOCKS(PAIR_CROSS, plain);                                                         \
        else                                                                                   \
            BLOCKS(PAIR_SUMS, plain);                                                          \
    } while (0)
    if (arg_x->plain && arg_y->plain)
        FORMS(true);
    else
        FORMS(false);
#undef FORMS
#undef BLOCKS
}

static inline void emit2(size_t n, const float *x, const exp_out *ex, const float *y,
                         const exp_out *ey, float *d, int store, bool plain)
{
    const exp_consts kx = exp_setup(&ex->arg, ex->ref, ex->a);
    const exp_consts ky = exp_setup(&ey->arg, ey->ref, ey->a);
    const vf zero = vf_set(0.0f), masked = vf_set(-INFINITY);
#define BOTH(i, end)                                                                           \
    vf_sel(vf_eq(load_at(x, i, end, -INFINITY), masked), zero,                                 \
           vf_add(exp_vec(load_at(x, i, end, -INFINITY), &kx, plain),                          \
                  exp_vec(load_at(y, i, end, -INFINITY), &ky, plain)))
    EMIT_LOOP(BOTH);
#undef BOTH
}

void KERNEL(exp_emit2)(size_t n, const float *x, const exp_out *ex, const float *y,
                       const exp_out *ey, float *d, int store)
{
    if (ex->arg.plain && ey->arg.plain)
        emit2(n, x, ex, y, ey, d, store, true);
    else
        emit2(n, x, ex, y, ey, d, store, false);
}

/* p (c + slope (x - y)), 0 where p is. */
static inline vf linear_vec(vf x, vf y, const exp_consts *k, vf slope, vf c, bool plain)
{
    const vf zero = vf_set(0.0f), p = exp_vec(x, k, plain);
    /* p first: a huge difference must not overflow before p makes it small. */
    vf line = vf_fma(vf_mul(p, slope), vf_sub(x, y), vf_mul(p, c));
    return vf_sel(vf_eq(p, zero), zero, line);
}

static inline void emit_linear(size_t n, const float *x, const exp_out *e, float b,
                               const float *y, float shift, float *d, int store, bool plain)
{
    const exp_consts k = exp_setup(&e->arg, e->ref, e->a);
    const vf off = vf_set(shift), slope = vf_set(b), c = vf_set(e->c);
#define LINEAR(i, end)                                                                         \
    linear_vec(load_at(x, i, end, -INFINITY), y ? load_at(y, i, end, 0.0f) : off, &k, slope,   \
               c, plain)
    EMIT_LOOP(LINEAR);
#undef LINEAR
}

void KERNEL(exp_emit_linear)(size_t n, const float *x, const exp_out *e, float b,
                             const float *y, float shift, float *d, int store)
{
    if (e->arg.plain)
        emit_linear(n, x, e, b, y, shift, d, store, true);
    else
        emit_linear(n, x, e, b, y, shift, d, store, false);
}

/* ---- Jensen-Shannon ---------------------------------------------------------------------- */

/* p / m, m = share q + rest p, whose logarithm is wanted: 1 where p is too small to count, as
   its quotient has no digits. */
static inline vf over_mean(vf p, vf m)
{
    return vf_sel(vf_gt(p, vf_set(0x1p-100f)), vf_div(p, m), vf_set(1.0f));
}

/* Both sums of `count` vectors at i, up to four. */
static inline void js_add(vf add[2], size_t count, const float *x, const exp_consts *kx,
                          const float *y, const exp_consts *ky, size_t i, size_t n, vf share,
                          vf rest, bool plain)
{
    vf p[4], q[4], logs[8];
    for (size_t j = 0; j < count; j++) {
        p[j] = exp_vec(load_at(x, i + j * VF_LEN, n, -INFINITY), kx, plain);
        q[j] = exp_vec(load_at(y, i + j * VF_LEN, n, -INFINITY), ky, plain);
        vf m = vf_fma(share, q[j], vf_mul(rest, p[j]));
        logs[2 * j] = over_mean(p[j], m);
        logs[2 * j + 1] = over_mean(q[j], m);
    }
    vf_log_many(logs, 2 * count);
    for (size_t j = 0; j < count; j++) {
        add[0] = vf_fma(p[j], logs[2 * j], add[0]);
        add[1] = vf_fma(q[j], logs[2 * j + 1], add[1]);
    }
}

static inline void js_block(size_t n, const float *x, const exp_consts *kx, const float *y,
                            const exp_consts *ky, float share, double add[2], bool plain)
{
    const vf w = vf_set(share), rest = vf_set(1.0f - share);
    vf total[2] = { vf_set(0.0f), vf_set(0.0f) };
    size_t i = 0;
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN)
        js_add(total, 4, x, kx, y, ky, i, i + 4 * VF_LEN, w, rest, plain);
    for (; i < n; i += VF_LEN) js_add(total, 1, x, kx, y, ky, i, n, w, rest, plain);
    add[0] += (double)vf_hsum(total[0]);
    add[1] += (double)vf_hsum(total[1]);
}

void KERNEL(js_sums)(size_t n, const float *x, const exp_out *ex, const float *y,
                     const exp_out *ey, float share, double add[2])
{
    const exp_consts kx = exp_setup(&ex->arg, ex->ref, ex->a);
    const exp_consts ky = exp_setup(&ey->arg, ey->ref, ey->a);
    const bool plain = ex->arg.plain && ey->arg.plain;
    for (size_t i = 0; i < n; i += JS_BLOCK) {
        size_t m = n - i < JS_BLOCK ? n - i : JS_BLOCK;
        if (plain)
            js_block(m, x + i, &kx, y + i, &ky, share, add, true);
        else
            js_block(m, x + i, &kx, y + i, &ky, share, add, false);
    }
}

/* d of `count` vectors at i, up to four. */
static inline void js_vecs(vf *d, size_t count, const float *x, const exp_consts *kx,
                           const float *y, const exp_consts *ky, size_t i, size_t n, vf share,
                           vf rest, vf b, vf c, bool plain)
{
    vf p[4];
    for (size_t j = 0; j < count; j++) {
        p[j] = exp_vec(load_at(x, i + j * VF_LEN, n, -INFINITY), kx, plain);
        vf q = exp_vec(load_at(y, i + j * VF_LEN, n, -INFINITY), ky, plain);
        d[j] = over_mean(p[j], vf_fma(share, q, vf_mul(rest, p[j])));
    }
    vf_log_many(d, count);
    for (size_t j = 0; j < count; j++)
        d[j] = vf_sel(vf_gt(p[j], vf_set(0x1p-100f)), vf_mul(p[j], vf_fma(b, d[j], c)),
                      vf_set(0.0f));
}

static inline vf js_vec(const float *x, const exp_consts *kx, const float *y,
                        const exp_consts *ky, size_t i, size_t n, vf share, vf rest, vf b, vf c,
                        bool plain)
{
    vf d;
    js_vecs(&d, 1, x, kx, y, ky, i, n, share, rest, b, c, plain);
    return d;
}

static inline void js_row(size_t n, const float *x, const exp_out *ex, const float *y,
                          const exp_out *ey, float share, float b, float c, float *d, int store,
                          bool plain)
{
    const exp_consts kx = exp_setup(&ex->arg, ex->ref, ex->a);
    const exp_consts ky = exp_setup(&ey->arg, ey->ref, ey->a);
    const vf w = vf_set(share), rest = vf_set(1.0f - share), vb = vf_set(b), vc = vf_set(c);
#define JS(i, end) js_vec(x, &kx, y, &ky, i, end, w, rest, vb, vc, plain)
#define JS_STEP(r, i, value)                                                                   \
    for (size_t j = 0; j < EMIT_STEP / VF_LEN; j += 4)                                         \
    js_vecs(r + j, 4, x, &kx, y, &ky, i + j * VF_LEN, i + EMIT_STEP, w, rest, vb, vc, plain)
    EMIT_LOOP_BY(JS, JS_STEP);
#undef JS_STEP
#undef JS
}

void KERNEL(js_emit)(size_t n, const float *x, const exp_out *ex, const float *y,
                     const exp_out *ey, float share, float b, float c, float *d, int store)
{
    if (ex->arg.plain && ey->arg.plain)
        js_row(n, x, ex, y, ey, share, b, c, d, store, true);
    else
        js_row(n, x, ex, y, ey, share, b, c, d, store, false);
}
