/*
 * convert.c - bfloat16 and float16 rows to float32 and back, rounding to nearest even.
 */
#include "vec.h"

#define WIDEN(name, from)                                                                      \
    void KERNEL(name)(size_t n, const uint16_t *x, float *y)                                   \
    {                                                                                          \
        size_t i = 0;                                                                          \
        for (; i + VF_LEN <= n; i += VF_LEN) vf_store(y + i, from(x + i));                     \
        if (i < n) {                                                                           \
            uint16_t last[VF_LEN] = { 0 };                                                     \
            memcpy(last, x + i, (n - i) * sizeof *x);                                          \
            vf_store_n(y + i, from(last), n - i);                                              \
        }                                                                                      \
    }

#define NARROW(name, to)                                                                       \
    void KERNEL(name)(size_t n, const float *x, uint16_t *y)                                   \
    {                                                                                          \
        size_t i = 0;                                                                          \
        for (; i + VF_LEN <= n; i += VF_LEN) to(y + i, vf_load(x + i));                        \
        if (i < n) {                                                                           \
            uint16_t last[VF_LEN];                                                             \
            to(last, vf_load_n(x + i, n - i, 0.0f));                                           \
            memcpy(y + i, last, (n - i) * sizeof *y);                                          \
        }                                                                                      \
    }

WIDEN(widen_bf16, vf_from_bf16)
WIDEN(widen_f16, vf_from_f16)
NARROW(narrow_bf16, vf_to_bf16)
NARROW(narrow_f16, vf_to_f16)
