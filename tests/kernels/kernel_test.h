/*
 * kernel_test.h - one test for all kernels. A spec says what a kernel reads and writes, how
 * to call it and what double arithmetic makes of the same input; check_kernel does the rest:
 * every length with guard pages on both sides, every alignment, special values everywhere, in
 * place.
 *
 * Errors are in u = 2^-24, half a unit in the last place at 1: |got - want| / (scale u), where
 * the spec says what the scale is: |want|, or the sum of magnitudes that cancelled.
 */
#ifndef TESTS_KERNELS_KERNEL_TEST_H
#define TESTS_KERNELS_KERNEL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fpenv.h"
#include "kernels/kernels.h"
#include "softlogit/core.h"
#include "support/guard.h"

#include "bounds.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const isa_names[] = { "", "portable", "avx2", "avx512" };

/* The kernels of a level; the test is skipped where the CPU lacks it. */
static inline kernel_table kernels_at(int32_t isa)
{
    kernel_table k;
    if (isa > kernels_cpu_isa()) skip();
    kernels_fill(&k, isa);
    return k;
}

/* ---- Random numbers ---------------------------------------------------------------------- */

static uint64_t seed = 1;

static inline double uniform(void) /* (0, 1) */
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return ((double)(seed >> 12) + 0.5) * 0x1p-52;
}

/* Standard normal, from a table: most of a test's time would go there. */
static inline double normal(void)
{
    static float table[1 << 16];
    static size_t at = COUNT(table), step;
    while (step == 0) {
        for (size_t i = 0; i < COUNT(table); i++)
            table[i] = (float)(sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform()));
        step = 1;
    }
    if (at >= COUNT(table)) at -= COUNT(table), step = 2 * (size_t)(uniform() * 100) + 1;
    at += step;
    return (double)table[at - step];
}

/* ---- Errors ------------------------------------------------------------------------------ */

typedef struct worst_t {
    double u;
    double got, want;
    size_t n, i;
    int variant;
    char what[80];
} worst_t;

/* An error of got, in u of scale. NaN and infinities must be those wanted. What is wanted below
   2^-126 may be anything below, below BOUND_zero it may be 0; past FLT_MAX it may be
   infinite. */
static inline double error_u(double got, double want, double scale)
{
    const double tiny = FLT_MIN * (1 + 1e-6);
    if (fabs(want) < BOUND_zero && got == 0) return 0;
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want) ? 0 : INFINITY;
    if (got == want) return 0;
    if (isinf(got)) return fabs(want) > FLT_MAX * (1 - 1e-6) && got * want > 0 ? 0 : INFINITY;
    if (fabs(want) < tiny && fabs(got) < tiny) return 0;
    double e = fabs(got - want) / scale * 0x1p24;
    return isnan(e) ? INFINITY : e;
}

static inline void note(worst_t *w, size_t i, double got, double want, double scale)
{
    double e = error_u(got, want, scale);
    if (e <= w->u) return;
    w->u = e, w->got = got, w->want = want, w->i = i;
}

/* ---- Specs ------------------------------------------------------------------------------- */

enum { MAX_IN = 5, MAX_OUT = 4, MAX_N = 5000 };

typedef struct call {
    size_t n;
    int variant;
    void *in[MAX_IN], *out[MAX_OUT];
    double got[5]; /* what else it returned */
} call;

enum special { /* values that an input may hold */
               MINUS_INF = 1,
               A_NAN = 2,
               PLUS_INF = 4,
               ZEROS = 8,
               TINY = 16,
               HUGE_UP = 32,
               HUGE_DOWN = 64,
               ANY_VALUE = 127,
               ANY_FINITE = ANY_VALUE & ~(MINUS_INF | PLUS_INF),
               NOT_ABOVE = MINUS_INF | A_NAN | ZEROS | TINY | HUGE_DOWN
};

typedef struct spec {
    const char *name;
    double bound; /* in u, of bounds.h */
    int variants;
    size_t in[MAX_IN], out[MAX_OUT]; /* bytes of an element; 0: no such array */
    int update;                      /* so many of the outputs start as copies of the inputs */
    unsigned special[MAX_IN];        /* which special values each input may hold */
    unsigned alias[2]; /* which inputs output 0, and 1, may be: bit i for input i */
    void (*prepare)(const call *c); /* puts inputs into their domain; NULL: normal, sd 3 */
    void (*run)(const kernel_table *k, call *c);
    void (*check)(const call *c,
                  worst_t *w); /* c->in as before the call, c->out and got after */
} spec;

static const float special_values[][2] = {
    { -INFINITY, -INFINITY }, { NAN, -NAN },      { INFINITY, INFINITY }, { 0.0f, -0.0f },
    { 1e-40f, -1e-45f },      { 1e38f, 3.4e38f }, { -1e38f, -3.4e38f },
};

/* ---- The driver -------------------------------------------------------------------------- */

/* Inputs as they were: room for doubles. */
static _Alignas(8) float pristine[MAX_IN][2 * MAX_N];

static void put(const spec *s, int i, size_t j, double v)
{
    if (s->in[i] == sizeof v)
        memcpy(&pristine[i][2 * j], &v, sizeof v);
    else
        pristine[i][j] = (float)v;
}

static void new_inputs(const spec *s, size_t n, int variant)
{
    call c = { .n = n, .variant = variant };
    for (int i = 0; i < MAX_IN; i++) {
        c.in[i] = pristine[i];
        if (s->in[i] == sizeof(float))
            for (size_t j = 0; j < n; j++) /* n = 2048: all the same, which is hard on sums */
                pristine[i][j] = n == 2048 && j > 0 ? pristine[i][0] : (float)(3 * normal());
        else if (s->in[i] == sizeof(double))
            for (size_t j = 0; j < n; j++) put(s, i, j, 3 * normal());
        else if (s->in[i])
            for (size_t j = 0; j < n; j++)
                ((uint16_t *)(void *)pristine[i])[j] = (uint16_t)(uniform() * 65536);
    }
    if (s->prepare) s->prepare(&c);
}

static void run_it(const spec *s, const kernel_table *k, call *c)
{
    for (int j = 0; j < s->update; j++) memcpy(c->out[j], pristine[j], c->n * s->out[j]);
    fp_mode mode = fp_enter();
    s->run(k, c);
    fp_leave(mode);
}

/* Compares c's outputs, with in set to the inputs as they were. */
static void judge(const spec *s, call *c, worst_t *w, const char *what, int a, int b)
{
    worst_t now = { .u = -1 };
    for (int i = 0; i < MAX_IN; i++) c->in[i] = pristine[i];
    s->check(c, &now);
    if (now.u > w->u || !(now.u <= s->bound)) {
        *w = now, w->n = c->n, w->variant = c->variant;
        snprintf(w->what, sizeof w->what, what, a, b);
    }
    if (!(w->u <= s->bound))
        fail_msg(
            "%s, variant %d, n %zu, %s: element %zu is %.9g, should be %.9g: %.4g u, bound %g",
            s->name, w->variant, w->n, w->what, w->i, w->got, w->want, w->u, s->bound);
}

static void guarded(const spec *s, const kernel_table *k, size_t n, int variant, worst_t *w)
{
    for (int side = GUARD_AFTER; side <= GUARD_BEFORE; side++) {
        guard in[MAX_IN] = { 0 }, out[MAX_OUT] = { 0 };
        call c = { .n = n, .variant = variant };
        new_inputs(s, n, variant);
        for (int i = 0; i < MAX_IN; i++) {
            if (!s->in[i]) continue;
            in[i] = guard_copy(pristine[i], n * s->in[i], (enum guard_side)side);
            guard_lock(&in[i]);
            c.in[i] = in[i].data;
        }
        for (int j = 0; j < MAX_OUT; j++) {
            if (!s->out[j]) continue;
            out[j] = guard_create(n * s->out[j], (enum guard_side)side);
            c.out[j] = out[j].data;
        }
        run_it(s, k, &c);
        judge(s, &c, w, side ? "guard page before" : "guard page after", 0, 0);
        for (int j = 0; j < MAX_OUT; j++) {
            if (s->out[j]) assert_true(guard_intact(&out[j]));
            guard_free(&out[j]);
        }
        for (int i = 0; i < MAX_IN; i++) guard_free(&in[i]);
    }
}

static _Alignas(64) double area[MAX_IN + MAX_OUT][MAX_N + 64];

/* In ordinary memory; array number a starts a_offset(a) elements off a cache line, and what
   lies around the outputs must stay. alias >= 0: output `which` is that input. */
static void placed(const spec *s, const kernel_table *k, size_t n, int variant, int offset,
                   int which, int alias, worst_t *w, const char *what, int a, int b)
{
    call c = { .n = n, .variant = variant };
    const size_t used = (n + 48) * sizeof(double);
    for (int i = 0; i < MAX_IN + MAX_OUT; i++) memset(area[i], 0x6E, used);
    for (int i = 0; i < MAX_IN; i++) {
        if (!s->in[i]) continue;
        c.in[i] = (char *)area[i] + (size_t)((offset + 5 * i) % 16 + 16) * s->in[i];
        memcpy(c.in[i], pristine[i], n * s->in[i]);
    }
    for (int j = 0; j < MAX_OUT; j++)
        if (s->out[j])
            c.out[j] =
                (char *)area[MAX_IN + j] + (size_t)((offset * 7 + 3 * j) % 16 + 16) * s->out[j];
    if (alias >= 0) c.out[which] = c.in[alias];
    void *out[MAX_OUT];
    memcpy(out, c.out, sizeof out);
    run_it(s, k, &c);
    judge(s, &c, w, what, a, b);
    for (int j = 0; j < MAX_OUT; j++) {
        if (!s->out[j]) continue;
        const unsigned char *row = (void *)area[MAX_IN + j], *p = out[j];
        if (alias >= 0 && j == which) row = (void *)area[alias];
        for (const unsigned char *q = row; q < row + used; q++)
            if ((q < p || q >= p + n * s->out[j]) && *q != 0x6E)
                fail_msg("%s, variant %d, n %zu, %s: wrote at byte %td", s->name, variant, n,
                         what, q - p);
    }
}

static void inject(const spec *s, const kernel_table *k, int variant, worst_t *w)
{
    const size_t lengths[] = { 1, 5, 16, 17, 65, 100, 2049 };
    for (int i = 0; i < MAX_IN; i++)
        for (size_t v = 0; v < 2 * COUNT(special_values); v++) {
            if (!(s->special[i] >> v / 2 & 1)) continue;
            for (size_t l = 0; l < COUNT(lengths); l++) {
                size_t n = lengths[l];
                const size_t at[] = { 0, n / 2, n - 1, n - n % 4, n - n % 16 };
                for (size_t p = 0; p < COUNT(at); p++) {
                    if (at[p] >= n) continue;
                    new_inputs(s, n, variant);
                    put(s, i, at[p], (double)special_values[v / 2][v % 2]);
                    placed(s, k, n, variant, (int)p, 0, -1, w, "special value %d at %d", (int)v,
                           (int)at[p]);
                }
                /* Everywhere, and everywhere but in one place. */
                for (size_t but = 0; but < 2; but++) {
                    new_inputs(s, n, variant);
                    for (size_t j = 0; j < n; j++)
                        if (!but || j != n / 2)
                            put(s, i, j, (double)special_values[v / 2][v % 2]);
                    placed(s, k, n, variant, 0, 0, -1, w, "special value %d all but %d", (int)v,
                           (int)but);
                }
            }
        }
}

static inline size_t length_at(size_t i) /* 0 to 65, 100, ...; 0 ends the list */
{
    const size_t more[] = { 100, 255, 2047, 2048, 2049, MAX_N, 0 };
    return i <= 65 ? i : more[i - 66];
}

static void check_variant(const spec *s, const kernel_table *k, int variant, worst_t *w)
{
    for (size_t i = 0; i == 0 || length_at(i); i++) guarded(s, k, length_at(i), variant, w);
    const size_t lengths[] = { 1, 3, 7, 15, 16, 17, 31, 63, 64, 65, 100, 2049 };
    for (int offset = 0; offset < 16; offset++)
        for (size_t l = 0; l < COUNT(lengths); l++) {
            new_inputs(s, lengths[l], variant);
            placed(s, k, lengths[l], variant, offset, 0, -1, w, "offset %d", offset, 0);
            for (int which = 0; which < 2; which++)
                for (int i = 0; i < MAX_IN; i++)
                    if (s->alias[which] >> i & 1)
                        placed(s, k, lengths[l], variant, offset, which, i, w,
                               "output %d in place of input %d", which, i);
        }
    inject(s, k, variant, w);
}

typedef struct kernel_item {
    const spec *s;
    int32_t isa;
} kernel_item;

static inline void check_kernel(void **state)
{
    const kernel_item *item = *state;
    const kernel_table k = kernels_at(item->isa);
    worst_t all = { .u = 0 };
    seed = 88172645463325252u;
    for (int v = 0; v < item->s->variants; v++) check_variant(item->s, &k, v, &all);
    print_message("%-18s %-9s %8.3f u of %g (n %zu, variant %d, %s)\n", item->s->name,
                  isa_names[item->isa], all.u, item->s->bound, all.n, all.variant, all.what);
}

#endif
