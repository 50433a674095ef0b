/*
 * Hinges.
 */
#include "kernel_spec.h"

static const struct {
    float ref, margin;
} hinges[] = { { 0, 1 }, { 2.5f, 1 }, { -3, 0 } };

static double hinge_of(const call *c, size_t i)
{
    float x = in(c, 0)[i];
    if (x == -INFINITY) return 0;
    if (fabsf(x) < FLT_MIN) x = 0;
    float h = (x - hinges[c->variant % 3].ref) + hinges[c->variant % 3].margin;
    return isnan(h) ? NAN
           : h > 0  ? (double)h
                    : 0; /* as float32 has it: sums are what is tested */
}

static void run_hinge_sum(const kernel_table *k, call *c)
{
    hinge_part p = HINGE_EMPTY;
    size_t piece = c->n / 3;
    k->hinge_sum(piece, in(c, 0), hinges[c->variant].ref, hinges[c->variant].margin, &p);
    k->hinge_sum(c->n - piece, in(c, 0) + piece, hinges[c->variant].ref,
                 hinges[c->variant].margin, &p);
    c->got[0] = p.sum, c->got[1] = p.square, c->got[2] = p.count, c->got[3] = (double)p.max;
}

static void check_hinge_sum(const call *c, worst_t *w)
{
    double sum = 0, square = 0, count = 0;
    for (size_t i = 0; i < c->n; i++) {
        double h = hinge_of(c, i);
        sum += h, square += h * h, count += h > 0;
    }
    if (isnan(sum)) {
        note(w, 0, c->got[0], NAN, 1);
        return;
    }
    if (sum < 3e38 || isinf(sum)) note(w, 0, c->got[0], sum, sum);
    if (square < 3e38 || isinf(square))
        note(w, 1, c->got[1], square, square + (double)c->n * FLUSHED);
    note(w, 2, c->got[2], count, 0);
    note(w, 3, c->got[3], (double)max_of(in(c, 0), c->n), 0);
}

SPEC(hinge_sum, .variants = 3, .in = { F4 }, .special = { ANY_VALUE });

static void run_hinge_grad(const kernel_table *k, call *c)
{
    const int v = c->variant % 3;
    k->hinge_grad(c->n, in(c, 0), hinges[v].ref, hinges[v].margin, 0.3f, c->variant < 3 ? 2 : 1,
                  out(c, 0), c->n % 2 ? STORE_STREAM : STORE_CACHED);
}

static void check_hinge_grad(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double h = hinge_of(c, i), d = (double)0.3f * (c->variant < 3 ? h : h > 0);
        if (isnan(h) && c->variant >= 3) continue; /* not asked of a row with a NaN */
        note(w, i, (double)out(c, 0)[i], d, fabs(d));
    }
}

SPEC(hinge_grad, .variants = 6, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE },
     .alias = { 1 });

KERNEL_TESTS(HINGE)
