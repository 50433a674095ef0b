/*
 * exp_emit.c - pass 2: y = a exp(x) 2^-ref, and what losses add to it. The factor a, which
 * holds the normalisation, is folded into the polynomial: no multiplication is left.
 *
 * Streaming stores go past the caches in whole lines: beyond the L2 they cost half of what an
 * ordinary store costs, which first reads the line that it will overwrite.
 */
#include "exp.h"

#define AHEAD (6 * 1024 / 4)

enum form { PLAIN, PLUS_C, PLUS_Q };

static inline vf emit_vec(vf x, vf q, const exp_consts *k, vf c, enum form form, bool plain)
{
    vf y = exp_vec(x, k, plain);
    if (form == PLAIN) return y;
    y = form == PLUS_C ? vf_add(y, c) : vf_fma(c, q, y);
    return vf_sel(vf_eq(x, vf_set(-INFINITY)), vf_set(0.0f), y);
}

static inline void emit(size_t n, const float *x, const exp_out *e, float cq, const float *q,
                        float *y, enum form form, bool plain, bool stream)
{
    const exp_consts k = exp_setup(&e->arg, e->ref, e->a);
    const vf c = vf_set(cq), none = vf_set(0.0f);
    size_t i = 0;
    if (stream) { /* up to a whole line of y */
        size_t head = (size_t)(-(uintptr_t)y / sizeof *y) % 16;
        for (head = head < n ? head : n; i < head; i += VF_LEN) {
            size_t m = head - i < VF_LEN ? head - i : VF_LEN;
            vf b = form == PLUS_Q ? vf_load_n(q + i, m, 0.0f) : none;
            vf_store_n(y + i, emit_vec(vf_load_n(x + i, m, -INFINITY), b, &k, c, form, plain),
                       m);
        }
        i = head;
    }
    for (; i + 4 * VF_LEN <= n; i += 4 * VF_LEN) {
        vf v[4];
        for (size_t p = 0; p < 4 * VF_LEN; p += 16) {
            vf_prefetch(x + i + p + AHEAD);
            if (form == PLUS_Q) vf_prefetch(q + i + p + AHEAD);
        }
        for (size_t j = 0; j < 4; j++) {
            vf b = form == PLUS_Q ? vf_load(q + i + j * VF_LEN) : none;
            v[j] = emit_vec(vf_load(x + i + j * VF_LEN), b, &k, c, form, plain);
        }
        for (size_t j = 0; j < 4; j++) {
            if (stream)
                vf_stream(y + i + j * VF_LEN, v[j]);
            else
                vf_store(y + i + j * VF_LEN, v[j]);
        }
    }
    for (; i < n; i += VF_LEN) {
        size_t m = n - i < VF_LEN ? n - i : VF_LEN;
        vf b = form == PLUS_Q ? vf_load_n(q + i, m, 0.0f) : none;
        vf_store_n(y + i, emit_vec(vf_load_n(x + i, m, -INFINITY), b, &k, c, form, plain), m);
    }
}

/* One copy of the loop for each form, so that no choice is left inside of it. */
#define EMIT(form, c, q)                                                                       \
    do {                                                                                       \
        bool stream = store == STORE_STREAM;                                                   \
        if (e->arg.plain && stream)                                                            \
            emit(n, x, e, c, q, y, form, true, true);                                          \
        else if (e->arg.plain)                                                                 \
            emit(n, x, e, c, q, y, form, true, false);                                         \
        else if (stream)                                                                       \
            emit(n, x, e, c, q, y, form, false, true);                                         \
        else                                                                                   \
            emit(n, x, e, c, q, y, form, false, false);                                        \
    } while (0)

void KERNEL(exp_emit)(size_t n, const float *x, const exp_out *e, float *y, int store)
{
    if (e->c != 0.0f)
        EMIT(PLUS_C, e->c, NULL);
    else
        EMIT(PLAIN, 0.0f, NULL);
}

void KERNEL(exp_emit_q)(size_t n, const float *x, const exp_out *e, float b, const float *q,
                        float *y, int store)
{
    EMIT(PLUS_Q, b, q);
}
