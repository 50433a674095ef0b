/*
 * emit_loop.h - the loop of kernels that write a gradient class by class. Stores as exp_emit.c
 * does: whole lines past the caches, partial ones by ordinary stores.
 */
#ifndef SLG_KERNELS_EMIT_LOOP_H
#define SLG_KERNELS_EMIT_LOOP_H

#include "vec.h"

#define AHEAD (6 * 1024 / 4)

/* Four vectors at a time, whole lines: their chains run beside each other. */
enum { EMIT_STEP = 4 * VF_LEN < 16 ? 16 : 4 * VF_LEN };

/*
 * A row d written vector after vector, from the first on, where sums must not depend on how d
 * is aligned: those past the caches are made of two that follow each other.
 */
typedef struct line_writer {
    float *d; /* NULL: nothing is written */
    bool stream;
    size_t head; /* floats before the first place that a vector may be streamed to */
    vsplice at;
    vf last; /* its lanes from head on are still to be written */
} line_writer;

static inline line_writer writer_open(float *d, int store)
{
    size_t head = (size_t)(-(uintptr_t)d / sizeof *d) % VF_LEN;
    return (line_writer){ d, d && store == STORE_STREAM, head, vsplice_at(head), vf_set(0.0f) };
}

/* A whole vector, at d + i. */
static inline void writer_put(line_writer *w, size_t i, vf v)
{
    if (!w->stream)
        vf_store(w->d + i, v);
    else if (i == 0)
        vf_store_n(w->d, v, w->head);
    else
        vf_stream(w->d + (i - VF_LEN + w->head), vf_splice(w->last, v, w->at));
    w->last = v;
}

/* What is left, with the row's last n < VF_LEN floats: of v, at d + i. */
static inline void writer_close(line_writer *w, size_t i, vf v, size_t n)
{
    if (w->stream && i > 0)
        vf_store_n(w->d + (i - VF_LEN + w->head), vf_splice(w->last, v, w->at),
                   VF_LEN - w->head);
    vf_store_n(w->d + i, v, n);
}

/* d[0, n) = value(i, end), a vector at i of which those before end count; of the caller's n, x,
   d and store. */
#define EMIT_LOOP(value) EMIT_LOOP_BY(value, EMIT_EACH)
#define EMIT_EACH(r, i, value)                                                                 \
    for (size_t j = 0; j < EMIT_STEP; j += VF_LEN) r[j / VF_LEN] = value(i + j, i + EMIT_STEP)

/* The same, with step(r, i, value) for the EMIT_STEP floats from i on. */
#define EMIT_LOOP_BY(value, step)                                                              \
    do {                                                                                       \
        size_t i = 0, head = (size_t)(-(uintptr_t)d / sizeof *d) % 16;                         \
        if (store == STORE_STREAM)                                                             \
            for (head = head < n ? head : n; i < head;) {                                      \
                size_t len = head - i < VF_LEN ? head - i : VF_LEN;                            \
                vf_store_n(d + i, value(i, i + len), len);                                     \
                i += len;                                                                      \
            }                                                                                  \
        for (; i + EMIT_STEP <= n; i += EMIT_STEP) {                                           \
            vf r[EMIT_STEP / VF_LEN];                                                          \
            for (size_t j = 0; j < EMIT_STEP; j += 16) vf_prefetch(x + i + j + AHEAD);         \
            step(r, i, value);                                                                 \
            for (size_t j = 0; j < EMIT_STEP; j += VF_LEN) {                                   \
                if (store == STORE_STREAM)                                                     \
                    vf_stream(d + i + j, r[j / VF_LEN]);                                       \
                else                                                                           \
                    vf_store(d + i + j, r[j / VF_LEN]);                                        \
            }                                                                                  \
        }                                                                                      \
        for (; i < n; i += VF_LEN) {                                                           \
            size_t len = n - i < VF_LEN ? n - i : VF_LEN;                                      \
            vf_store_n(d + i, value(i, n), len);                                               \
        }                                                                                      \
    } while (0)

#endif
