/*
 * The log-barrier's distribution. Gaps are doubles: they go in and out through memory of their
 * own.
 */
#include "kernel_spec.h"

static const double rates[] = { 0.25, 0, 1e3 };

static void run_least(const kernel_table *k, call *c)
{
    float least = -7;
    c->got[1] = k->least(c->n, in(c, 0), &least);
    c->got[0] = c->got[1] != 0 ? (double)least : 0;
}

static void check_least(const call *c, worst_t *w)
{
    double least = INFINITY;
    bool fine = true;
    for (size_t i = 0; i < c->n; i++) {
        const double x = flushed(in(c, 0)[i]);
        fine = fine && x > -INFINITY;
        least = x < least ? x : least;
    }
    note(w, 0, c->got[0], fine ? least : 0, 0);
    note(w, 1, c->got[1], fine, 0);
}

SPEC(least, .variants = 1, .in = { F4 }, .special = { ANY_VALUE });

/* Costs from 0 up, some infinite. */
static void costs(const call *c)
{
    float *x = c->in[0];
    for (size_t i = 0; i < c->n; i++) x[i] = i % 7 == 6 ? INFINITY : (float)(9 * uniform());
}

static double *doubles(const call *c)
{
    double *gap = malloc((c->n + 1) * sizeof *gap);
    assert_non_null(gap);
    gap[c->n] = 7;
    return gap;
}

/* The gaps go to output 0 as floats. */
static void run_barrier_gap(const kernel_table *k, call *c)
{
    double *gap = doubles(c);
    c->got[0] = k->barrier_gap(c->n, in(c, 0), -1.5, rates[c->variant], gap);
    assert_true(gap[c->n] == 7);
    for (size_t i = 0; i < c->n; i++) {
        const double x = flushed(in(c, 0)[i]);
        assert_true(gap[i] == (x == (double)INFINITY ? x : rates[c->variant] * (x + 1.5)));
        out(c, 0)[i] = (float)gap[i];
    }
    free(gap);
}

static void check_barrier_gap(const call *c, worst_t *w)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++)
        sum += isinf(in(c, 0)[i]) ? (double)INFINITY
                                  : rates[c->variant] * (flushed(in(c, 0)[i]) + 1.5);
    note(w, 0, c->got[0], sum, sum);
}

SPEC(barrier_gap, .variants = 3, .in = { F4 }, .out = { F4 },
     .special = { PLUS_INF | ZEROS | TINY | HUGE_UP }, .prepare = costs);

static const double nus[] = { 1, 12.5, 1e4 };

static double *gaps_of(const call *c)
{
    double *gap = doubles(c);
    for (size_t i = 0; i < c->n; i++) gap[i] = flushed(in(c, 0)[i]);
    return gap;
}

static void run_barrier_sums(const kernel_table *k, call *c)
{
    double *gap = gaps_of(c);
    k->barrier_sums(c->n, gap, nus[c->variant], c->got);
    free(gap);
}

static void check_barrier_sums(const call *c, worst_t *w)
{
    double s = 0, q = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double p = 1 / (flushed(in(c, 0)[i]) + nus[c->variant]);
        s += p, q += p * p;
    }
    note(w, 0, c->got[0], s, s);
    note(w, 1, c->got[1], q, q);
}

SPEC(barrier_sums, .variants = 3, .in = { F4 },
     .special = { PLUS_INF | ZEROS | TINY | HUGE_UP }, .prepare = costs);

static void run_barrier_emit(const kernel_table *k, call *c)
{
    double *gap = gaps_of(c);
    k->barrier_emit(c->n, gap, nus[c->variant], 0.75, out(c, 0));
    free(gap);
}

static void check_barrier_emit(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const double p = 0.75 / (flushed(in(c, 0)[i]) + nus[c->variant]);
        note(w, i, (double)out(c, 0)[i], p, p);
    }
}

SPEC(barrier_emit, .variants = 3, .in = { F4 }, .out = { F4 },
     .special = { PLUS_INF | ZEROS | TINY | HUGE_UP }, .prepare = costs);

static void run_barrier_dots(const kernel_table *k, call *c)
{
    k->barrier_dots(c->n, in(c, 0), in(c, 1), c->got);
}

static void check_barrier_dots(const call *c, worst_t *w)
{
    double s[2] = { 0 }, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double p = flushed(in(c, 0)[i]), d = flushed(in(c, 1)[i]);
        if (p == 0) continue;
        s[0] += p * p * d, s[1] += p * p, size += fabs(p * p * d);
    }
    note(w, 0, c->got[0], s[0], size + 1e-60);
    note(w, 1, c->got[1], s[1], s[1] + 1e-60);
}

SPEC(barrier_dots, .variants = 1, .in = { F4, F4 }, .special = { ZEROS | TINY, ANY_VALUE },
     .prepare = probabilities);

static void run_barrier_grad(const kernel_table *k, call *c)
{
    k->barrier_grad(c->n, in(c, 0), in(c, 1), -0.5, 0.125, out(c, 0));
}

static void check_barrier_grad(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const double p = flushed(in(c, 0)[i]), d = flushed(in(c, 1)[i]);
        const double want = p == 0 ? 0 : -0.5 * (p * p * (d - 0.125));
        note(w, i, (double)out(c, 0)[i], want, fabs(want) + FLUSHED);
    }
}

SPEC(barrier_grad, .variants = 1, .in = { F4, F4 }, .out = { F4 },
     .special = { ZEROS | TINY, ANY_VALUE }, .alias = { 3 }, .prepare = probabilities);

KERNEL_TESTS(BARRIER)
