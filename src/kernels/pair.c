/*
 * pair.c - two rows at once: a softmax and a second row (a teacher's logits, or the row itself), for
 * losses that compare two distributions. One read of each in either pass.
 *
 * lse_dot keeps its reference as lse.c does, and scales the weighted sums with the sum.
 */
#include "exp.h"

#define RISE 30.0f
#define SEED 256
#define AHEAD (6 * 1024 / 4)

/* Floats after which sums start anew in a second sum. */
enum { LANE_BLOCK = 16 * 2 * VF_LEN };

static inline vf load_at(const float *x, size_t i, size_t n, float fill)
{
    return n - i < VF_LEN ? vf_load_n(x + i, n - i, fill) : vf_load(x + i);
}

typedef struct sums { float max, sum, first, second; } sums;

/* Sums of p, p v, p v^2 over a block, p = exp(x) 2^-ref, v = x - y or x - shift; 0 where p is. */
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
            vf v = vf_sel(vf_eq(p, zero), zero, vf_sub(a, b)), pv = vf_mul(p, v);
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

/* Stores as exp_emit.c does: whole lines past the caches, partial ones by ordinary stores. */
#define EMIT_LOOP(value)                                                                           \
    do {                                                                                           \
        size_t i = 0, head = (size_t)(-(uintptr_t)d / sizeof *d) % 16;                             \
        if (store == STORE_STREAM)                                                                 \
            for (head = head < n ? head : n; i < head;) {                                          \
                size_t len = head - i < VF_LEN ? head - i : VF_LEN;                                \
                vf_store_n(d + i, value(i, i + len), len);                                         \
                i += len;                                                                          \
            }                                                                                      \
        for (; i + 16 <= n; i += 16) {                                                             \
            vf_prefetch(x + i + AHEAD);                                                            \
            for (size_t j = 0; j < 16; j += VF_LEN) {                                              \
                vf r = value(i + j, n);                                                            \
                if (store == STORE_STREAM)                                                         \
                    vf_stream(d + i + j, r);                                                       \
                else                                                                               \
                    vf_store(d + i + j, r);                                                        \
            }                                                                                      \
        }                                                                                          \
        for (; i < n; i += VF_LEN) {                                                               \
            size_t len = n - i < VF_LEN ? n - i : VF_LEN;                                          \
            vf_store_n(d + i, value(i, n), len);                                                   \
        }                                                                                          \
    } while (0)

static inline void emit2(size_t n, const float *x, const exp_out *ex, const float *y,
                         const exp_out *ey, float *d, int store, bool plain)
{
    const exp_consts kx = exp_setup(&ex->arg, ex->ref, ex->a);
    const exp_consts ky = exp_setup(&ey->arg, ey->ref, ey->a);
    const vf zero = vf_set(0.0f), masked = vf_set(-INFINITY);
#define BOTH(i, end)                                                                               \
    vf_sel(vf_eq(load_at(x, i, end, -INFINITY), masked), zero,                                     \
           vf_add(exp_vec(load_at(x, i, end, -INFINITY), &kx, plain),                              \
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

static inline void emit_linear(size_t n, const float *x, const exp_out *e, float b, const float *y,
                               float shift, float *d, int store, bool plain)
{
    const exp_consts k = exp_setup(&e->arg, e->ref, e->a);
    const vf off = vf_set(shift), slope = vf_set(b), c = vf_set(e->c);
#define LINEAR(i, end)                                                                             \
    linear_vec(load_at(x, i, end, -INFINITY), y ? load_at(y, i, end, 0.0f) : off, &k, slope, c,    \
               plain)
    EMIT_LOOP(LINEAR);
#undef LINEAR
}

void KERNEL(exp_emit_linear)(size_t n, const float *x, const exp_out *e, float b, const float *y,
                             float shift, float *d, int store)
{
    if (e->arg.plain)
        emit_linear(n, x, e, b, y, shift, d, store, true);
    else
        emit_linear(n, x, e, b, y, shift, d, store, false);
}
