/*
 * bfloat16 and float16 on every ISA: all 65536 patterns widened; narrowing from every 16-bit
 * value, from the midpoint to the next one, and from one float to either side of both: these
 * are all the cases of rounding there are. With subnormals flushed, as the library runs, and
 * not.
 */
#include "kernel_test.h"

enum { ALL = 1 << 16 };

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The value of a pattern, by its definition. */
static double value_of(uint32_t h, int exponent_bits, int fraction_bits)
{
    const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
    int e = (int)(h >> fraction_bits) & top, f = (int)h & ((1 << fraction_bits) - 1);
    double x = e == top ? (f ? NAN : INFINITY)
               : e      ? ldexp((1 << fraction_bits) + f, e - bias - fraction_bits)
                        : ldexp(f, 1 - bias - fraction_bits);
    return h >> (exponent_bits + fraction_bits) & 1 ? -x : x;
}

typedef struct format {
    int exponent_bits, fraction_bits;
    uint16_t infinity;
    void (*(*widen)(const kernel_table *k))(size_t, const uint16_t *, float *);
    void (*(*narrow)(const kernel_table *k))(size_t, const float *, uint16_t *);
} format;

static void (*widen_bf16(const kernel_table *k))(size_t, const uint16_t *, float *)
{
    return k->widen_bf16;
}
static void (*widen_f16(const kernel_table *k))(size_t, const uint16_t *, float *)
{
    return k->widen_f16;
}
static void (*narrow_bf16(const kernel_table *k))(size_t, const float *, uint16_t *)
{
    return k->narrow_bf16;
}
static void (*narrow_f16(const kernel_table *k))(size_t, const float *, uint16_t *)
{
    return k->narrow_f16;
}

static const format bf16 = { 8, 7, 0x7F80, widen_bf16, narrow_bf16 };
static const format f16 = { 5, 10, 0x7C00, widen_f16, narrow_f16 };

static double value(const format *f, uint32_t h)
{
    return value_of(h, f->exponent_bits, f->fraction_bits);
}

static uint16_t half[ALL];
static float wide[ALL];

static void widen_all(const kernel_table *k, const format *f, bool flush)
{
    for (uint32_t h = 0; h < ALL; h++) half[h] = (uint16_t)h;
    memset(wide, 0x5A, sizeof wide);
    fp_mode mode = fp_enter();
    if (!flush) fp_leave(mode);
    f->widen(k)(ALL, half, wide);
    fp_leave(mode);
    for (uint32_t h = 0; h < ALL; h++) {
        double want = value(f, h), got = (double)wide[h];
        if (isnan(want) ? !isnan(got) : got != want || signbit(got) != signbit(want))
            fail_msg("%04x is widened to %a, should be %a", (unsigned)h, got, want);
    }
}

static void narrow(const kernel_table *k, const format *f, bool flush)
{
    fp_mode mode = fp_enter();
    if (!flush) fp_leave(mode);
    f->narrow(k)(ALL, wide, half);
    fp_leave(mode);
}

static void wrong(uint32_t h, uint16_t want)
{
    fail_msg("%a is narrowed to %04x, should be %04x", (double)wide[h], (unsigned)half[h],
             (unsigned)want);
}

/* wide[h] = what lies `steps` floats from value h (half_way: from the midpoint to the value
   after), which must round to h plus `up` where it is finite. */
static void narrow_all(const kernel_table *k, const format *f, bool flush, bool half_way,
                       int steps)
{
    for (uint32_t h = 0; h < ALL; h++) {
        double low = value(f, h), high = value(f, (uint16_t)(h + 1));
        if ((h & 0x7FFF) == f->infinity - 1u) /* the next would be 2^(exponents) */
            high = low + (low - value(f, h - 1u));
        double at = half_way ? low + (high - low) / 2 : low;
        wide[h] = (float)at;
        for (int s = abs(steps); s > 0 && isfinite(wide[h]); s--)
            wide[h] = nextafterf(wide[h], (steps > 0) == !(h >> 15) ? INFINITY : -INFINITY);
    }
    narrow(k, f, flush);
    for (uint32_t h = 0; h < ALL; h++) {
        const uint32_t magnitude = h & 0x7FFF;
        uint16_t want = (uint16_t)h;
        if (magnitude >= f->infinity) {
            if (isnan(value(f, h)) && !isnan(value(f, half[h]))) wrong(h, want);
            if (!isnan(value(f, h)) && half[h] != h && !half_way) wrong(h, want);
            continue;
        }
        if (half_way && (steps > 0 || (steps == 0 && (h & 1)))) want++;
        if (magnitude == 0 && !half_way && steps < 0) continue; /* across 0 */
        /* Inputs that are subnormal floats may be read as 0: the mode says so. */
        if (flush && fabsf(wide[h]) < FLT_MIN && half[h] == (h & 0x8000)) continue;
        if (half[h] != want) wrong(h, want);
    }
}

static void check(const kernel_table *k, const format *f)
{
    for (int flush = 0; flush < 2; flush++) {
        widen_all(k, f, flush);
        for (int half_way = 0; half_way < 2; half_way++)
            for (int steps = -1; steps <= 1; steps++) narrow_all(k, f, flush, half_way, steps);
    }
    /* Far beyond, infinite, and every kind of NaN. */
    const uint32_t odd[] = { 0x7F7FFFFF, 0x7F800000, 0x7FC00000,
                             0x7F800001, 0x7FFFFFFF, 0x7F8FFFFF };
    const double largest = value(f, f->infinity - 1u);
    for (uint32_t h = 0; h < ALL; h++)
        wide[h] = float_of(odd[h % COUNT(odd)] | (h & 1024) << 21);
    narrow(k, f, true);
    for (uint32_t h = 0; h < ALL; h++) {
        double got = value(f, half[h]), x = (double)wide[h];
        if (isnan(x)                               ? !isnan(got)
            : fabs(x) > 1.01 * largest || isinf(x) ? got != copysign(INFINITY, x)
                                                   : fabs(got) != INFINITY)
            wrong(h, f->infinity);
    }
}

static void test_bf16(void **state)
{
    const kernel_table k = kernels_at(*(const int32_t *)*state);
    check(&k, &bf16);
}

static void test_f16(void **state)
{
    const kernel_table k = kernels_at(*(const int32_t *)*state);
    check(&k, &f16);
}

/* All ISAs give the same bits, for random floats of all kinds too. */
static void test_isas_agree(void **state)
{
    static uint16_t other[ALL];
    const format *formats[] = { &bf16, &f16 };
    kernel_table portable = kernels_at(SLG_ISA_PORTABLE), k = kernels_at(kernels_cpu_isa());
    (void)state;
    for (int round = 0; round < 32; round++)
        for (int i = 0; i < 2; i++) {
            for (uint32_t h = 0; h < ALL; h++)
                wide[h] = float_of((uint32_t)(uniform() * 4294967296.0));
            narrow(&portable, formats[i], true);
            memcpy(other, half, sizeof half);
            narrow(&k, formats[i], true);
            for (uint32_t h = 0; h < ALL; h++)
                if (other[h] != half[h] && !isnan(wide[h])) wrong(h, other[h]);
        }
}

int main(void)
{
    static int32_t levels[] = { SLG_ISA_PORTABLE, SLG_ISA_AVX2, SLG_ISA_AVX512 };
#define AT(f, i, level)                                                                        \
    {                                                                                          \
#f " " level, f, NULL, NULL, &levels[i]                                                \
    }
#define EACH(f) AT(f, 0, "portable"), AT(f, 1, "avx2"), AT(f, 2, "avx512")
    const struct CMUnitTest tests[] = {
        EACH(test_bf16),
        EACH(test_f16),
        cmocka_unit_test(test_isas_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
