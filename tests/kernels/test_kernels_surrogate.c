/*
 * Surrogates in a target space: rows g, from, z.
 */
#include "kernel_spec.h"

static const double inverses[] = { 0.5, 4, 0, 1 };

/* Variant 2: without d; 3: without g. */
static void run_surrogate(const kernel_table *k, call *c)
{
    double sums[3] = { 0.5, 0.25, 0.125 };
    k->surrogate(c->n, c->variant == 3 ? NULL : in(c, 0), in(c, 1), in(c, 2),
                 inverses[c->variant], c->variant == 2 ? NULL : out(c, 0), sums);
    for (int i = 0; i < 3; i++) c->got[i] = sums[i];
}

static void note_sum(worst_t *w, size_t i, double got, long double want, long double size)
{
    /* In double: some 2^-50 of the magnitudes, far below what u can say. */
    note(w, i, got, (double)want, (double)size * 1e4 + 1e-300);
}

static void check_surrogate(const call *c, worst_t *w)
{
    long double sums[3] = { 0.5L, 0.25L, 0.125L }, size = 0.5L;
    for (size_t i = 0; i < c->n; i++) {
        const double g = c->variant == 3 ? 0 : flushed(in(c, 0)[i]);
        const double from = flushed(in(c, 1)[i]), z = flushed(in(c, 2)[i]);
        const double e = z == from ? 0 : z - from, d = g + e * inverses[c->variant];
        if (c->variant != 2) note(w, i, (double)out(c, 0)[i], d, fabs(d));
        const long double term = g == 0 ? 0 : (long double)g * (long double)e;
        sums[0] += term, size += fabsl(term);
        sums[1] += (long double)e * (long double)e, sums[2] += (long double)g * (long double)g;
    }
    note_sum(w, 0, c->got[0], sums[0], size);
    note_sum(w, 1, c->got[1], sums[1], sums[1]);
    note_sum(w, 2, c->got[2], sums[2], sums[2]);
}

SPEC(surrogate, .variants = 4, .in = { F4, F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_VALUE, ANY_VALUE }, .alias = { 7 });

static void run_shifted(const kernel_table *k, call *c)
{
    k->shifted(c->n, in(c, 0), in(c, 1), c->variant ? 1e-3 : 0, out(c, 0));
}

static void check_shifted(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const double z = flushed(in(c, 0)[i]), g = flushed(in(c, 1)[i]);
        const double want = z - (c->variant ? 1e-3 : 0) * g;
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
}

SPEC(shifted, .variants = 2, .in = { F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_VALUE }, .alias = { 3 });

/* from: logits; z: close to them (variant 0), farther (1), or far off where p is small. */
static void close_rows(const call *c)
{
    float *from = c->in[0], *z = c->in[1];
    for (size_t i = 0; i < c->n; i++) {
        from[i] = fminf(from[i], 6.0f);
        if (c->variant == 3 && i % 3 == 0) from[i] = -120;
        const double move = c->variant == 0 ? 1e-3 : c->variant == 1 ? 0.3 : 2;
        z[i] = from[i] + (float)(move * normal());
        if (c->variant == 3 && i % 3 == 0) z[i] = -5;
    }
}

static exp_out around(double lse)
{
    const exp_arg arg = { 0x1.715476p+0f, 0x1.62e430p-1f, 0, 1, 0, 1, 0x1.62e430p-1, 1 };
    const double ref = rint(lse / arg.unit);
    return (exp_out){ arg, (float)ref, (float)exp(ref * arg.unit - lse), 0 };
}

static const float kl_mean = 0.125f;

static void run_kl_beyond(const kernel_table *k, call *c)
{
    const exp_out p = around(3), moved = around(3 + (double)kl_mean);
    c->got[0] = k->kl_beyond(c->n, in(c, 0), in(c, 1), kl_mean, &p, &moved);
}

static void check_kl_beyond(const call *c, worst_t *w)
{
    double sum = 0, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double from = flushed(in(c, 0)[i]), z = flushed(in(c, 1)[i]);
        const double e = z - from - (double)kl_mean, p = exp(from - 3);
        if (from == -(double)INFINITY || z == -(double)INFINITY || fabs(e) >= 1) {
            const double moved = exp(z - 3 - (double)kl_mean), own = p == 0 ? 0 : p * (1 + e);
            if (p > 0 && p < 0x1p-110 && fabs(own) < 0x1p-100) { /* p may be 0 */
                sum += moved, size += moved + 0x1p-76;
                continue;
            }
            sum += moved - own, size += moved + p + fabs(own);
        } else {
            const double term = p * (expm1(e) - e);
            sum += term, size += fabs(term);
        }
    }
    note(w, 0, c->got[0], sum, size + 0x1p-90);
}

SPEC(kl_beyond, .variants = 4, .in = { F4, F4 }, .special = { MINUS_INF, 0 },
     .prepare = close_rows);

KERNEL_TESTS(SURROGATE)
