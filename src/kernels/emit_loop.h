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

/* d[0, n) = value(i, end), a vector at i of which those before end count; of the caller's n, x,
   d and store. */
#define EMIT_LOOP(value)                                                                       \
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
            for (size_t j = 0; j < EMIT_STEP; j += VF_LEN)                                     \
                r[j / VF_LEN] = value(i + j, i + EMIT_STEP);                                   \
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
