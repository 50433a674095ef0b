/*
 * 16-bit types; values are the affair of test_convert.c.
 */
#include "kernel_spec.h"

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double from_bf16(uint16_t h) { return (double)float_of((uint32_t)h << 16); }

static double from_f16(uint16_t h)
{
    int e = h >> 10 & 31, f = h & 1023;
    double x = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return h >> 15 ? -x : x;
}

#define CONVERT(type)                                                                          \
    static void run_widen_##type(const kernel_table *k, call *c)                               \
    {                                                                                          \
        k->widen_##type(c->n, c->in[0], out(c, 0));                                            \
    }                                                                                          \
    static void check_widen_##type(const call *c, worst_t *w)                                  \
    {                                                                                          \
        const uint16_t *x = c->in[0];                                                          \
        for (size_t i = 0; i < c->n; i++)                                                      \
            note(w, i, (double)out(c, 0)[i], from_##type(x[i]), 0);                            \
    }                                                                                          \
    SPEC(widen_##type, .variants = 1, .in = { F2 }, .out = { F4 });                            \
    static void run_narrow_##type(const kernel_table *k, call *c)                              \
    {                                                                                          \
        k->narrow_##type(c->n, in(c, 0), c->out[0]);                                           \
    }                                                                                          \
    static void check_narrow_##type(const call *c, worst_t *w)                                 \
    {                                                                                          \
        const uint16_t *y = c->out[0];                                                         \
        for (size_t i = 0; i < c->n; i++) { /* nearest: both neighbours are no nearer */       \
            double x = (double)in(c, 0)[i], got = from_##type(y[i]), e = fabs(got - x);        \
            double up = from_##type((uint16_t)(y[i] + 1)),                                     \
                   down = from_##type((uint16_t)(y[i] - 1));                                   \
            bool right = isnan(x) ? isnan(got)                                                 \
                         : isinf(got) || isinf(x)                                              \
                             ? fabs(x) >= 65520                                                \
                             : !(fabs(up - x) < e) && !(fabs(down - x) < e);                   \
            note(w, i, right, 1, 0);                                                           \
        }                                                                                      \
    }                                                                                          \
    SPEC(narrow_##type, .variants = 1, .in = { F4 }, .out = { F2 },                            \
         .special = { ANY_VALUE & ~TINY });

CONVERT(bf16)
CONVERT(f16)

KERNEL_TESTS(CONVERT)
