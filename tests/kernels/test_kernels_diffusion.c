/*
 * Noise, and steps and losses of diffusion. x and x0 are positive where a logarithm is taken.
 */
#include "kernel_spec.h"

#include "core/rng.h"

/* ---- normals ----------------------------------------------------------------------------- */

/* Even and odd firsts; low words that carry, and the stream's end, on the way. */
static const struct {
    uint64_t seed, first;
} streams[] = {
    { 7, 1000 }, { 0x299f31d0a4093822u, 1000001 }, { 1, 0x1FFFFFFE1u }, { 2, UINT64_MAX - 20 }
};

static void run_normals(const kernel_table *k, call *c)
{
    k->normals(c->n, streams[c->variant].seed, streams[c->variant].first, out(c, 0));
}

static void check_normals(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double z = rng_normal(streams[c->variant].seed, streams[c->variant].first + i);
        note(w, i, (double)out(c, 0)[i], z, fabs(z));
    }
}

SPEC(normals, .variants = 4, .out = { F4 });

/* ---- Lines ------------------------------------------------------------------------------- */

/* Inputs x, h, z, and v for all coefficients; b 3 in magnitude at most. */
static line_arg line_of(const call *c)
{
    line_arg l = { 0.7f, -0.3f, 0.9f, NULL, NULL, NULL };
    if (c->variant == 1) l.av = l.bv = l.cv = in(c, 3);
    if (c->variant == 2) l = (line_arg){ 30.0f, 1.0f, 30.0f, NULL, NULL, NULL };
    return l;
}

static const float *h_of(const call *c) { return c->variant == 3 ? NULL : in(c, 1); }
static const float *z_of(const call *c) { return c->variant == 4 ? NULL : in(c, 2); }

static double line_sum(const call *c, size_t i, double *size)
{
    const line_arg l = line_of(c);
    const double v = c->variant == 1 ? (double)in(c, 3)[i] : 1;
    const double a = h_of(c) ? (double)l.a * v * (double)in(c, 1)[i] : 0;
    const double b = (double)l.b * v, e = z_of(c) ? (double)l.c * v * (double)in(c, 2)[i] : 0;
    *size = fabs(a) + fabs(b) + fabs(e);
    return a + b + e;
}

static void run_line(const kernel_table *k, call *c)
{
    const line_arg l = line_of(c);
    k->line(c->n, c->variant == 4 ? NULL : in(c, 0), h_of(c), z_of(c), &l, out(c, 0));
}

static void check_line(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const double x = c->variant == 4 ? 0 : (double)in(c, 0)[i];
        double size, e = line_sum(c, i, &size);
        note(w, i, (double)out(c, 0)[i], x + e, fabs(x) + size);
    }
}

SPEC(line, .variants = 5, .in = { F4, F4, F4, F4 }, .out = { F4 },
     .special = { A_NAN | MINUS_INF | ZEROS, A_NAN | ZEROS, ZEROS, ZEROS }, .alias = { 7 });

/* ---- Steps ------------------------------------------------------------------------------- */

static void run_gbm_step(const kernel_table *k, call *c)
{
    const line_arg l = line_of(c);
    int64_t lost = 100;
    k->gbm_step(c->n, in(c, 0), h_of(c), z_of(c), &l, out(c, 0), &lost);
    c->got[0] = (double)(lost - 100);
}

/* Whether a result of x, finite and not 0, is inf or 0. */
static double is_lost(float x, float y)
{
    return flushed(x) != 0 && isfinite(x) && (flushed(y) == 0 || isinf(y));
}

static void check_gbm_step(const call *c, worst_t *w)
{
    double lost = 0;
    for (size_t i = 0; i < c->n; i++) {
        double size, e = line_sum(c, i, &size), y = flushed(in(c, 0)[i]) * exp(e);
        if (isnan(e)) y = NAN;
        note(w, i, (double)out(c, 0)[i], y, fabs(y) * (1 + size));
        lost += is_lost(in(c, 0)[i], out(c, 0)[i]);
    }
    note(w, 0, c->got[0], lost, 1);
}

SPEC(gbm_step, .variants = 5, .in = { F4, F4, F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, A_NAN | ZEROS | TINY, A_NAN | ZEROS | TINY, ZEROS },
     .alias = { 7 });

static void run_gbm_linear(const kernel_table *k, call *c)
{
    const line_arg l = line_of(c);
    int64_t lost[2] = { 10, 20 };
    k->gbm_linear(c->n, in(c, 0), h_of(c), z_of(c), &l, out(c, 0), lost);
    c->got[0] = (double)(lost[0] - 10), c->got[1] = (double)(lost[1] - 20);
}

static void check_gbm_linear(const call *c, worst_t *w)
{
    double lost = 0, flips = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double x = flushed(in(c, 0)[i]), got = (double)out(c, 0)[i];
        double size, f = 1 + line_sum(c, i, &size);
        note(w, i, got, x * f, fabs(x) * (1 + size));
        lost += is_lost(in(c, 0)[i], out(c, 0)[i]);
        flips += x != 0 && !isnan(x) && f < 0;
    }
    note(w, 0, c->got[0], lost, 1);
    note(w, 0, c->got[1], flips, 1);
}

SPEC(gbm_linear, .variants = 5, .in = { F4, F4, F4, F4 }, .out = { F4 },
     .special = { A_NAN | ZEROS | TINY | MINUS_INF, A_NAN | ZEROS, ZEROS, ZEROS },
     .alias = { 7 });

/* ---- Logarithms -------------------------------------------------------------------------- */

static void positive_inputs(const call *c)
{
    for (int j = 0; j < 2; j++)
        for (size_t i = 0; c->in[j] && i < c->n; i++) {
            float *x = c->in[j];
            x[i] = (float)exp(c->variant ? 0.01 * (double)x[i] : 5 * (double)x[i]);
        }
}

static void run_positive(const kernel_table *k, call *c)
{
    c->got[0] = k->positive(c->n, in(c, 0));
}

static void check_positive(const call *c, worst_t *w)
{
    bool all = true;
    for (size_t i = 0; i < c->n; i++)
        all = all && flushed(in(c, 0)[i]) > 0 && !isinf(in(c, 0)[i]);
    note(w, 0, c->got[0], all, 1);
}

SPEC(positive, .variants = 1, .in = { F4 }, .special = { ANY_VALUE },
     .prepare = positive_inputs);

static void run_log_of(const kernel_table *k, call *c) { k->log_of(c->n, in(c, 0), out(c, 0)); }

static void check_log_of(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double y = log((double)in(c, 0)[i]);
        note(w, i, (double)out(c, 0)[i], y, fabs(y));
    }
}

SPEC(log_of, .variants = 2, .in = { F4 }, .out = { F4 }, .special = { HUGE_UP },
     .prepare = positive_inputs, .alias = { 1 });

static void run_log_ratio(const kernel_table *k, call *c)
{
    k->log_ratio(c->n, in(c, 0), in(c, 1), out(c, 0));
}

static void check_log_ratio(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double y = log((double)in(c, 0)[i] / (double)in(c, 1)[i]);
        note(w, i, (double)out(c, 0)[i], y, 0.5 + fabs(y));
    }
}

SPEC(log_ratio, .variants = 2, .in = { F4, F4 }, .out = { F4 }, .special = { HUGE_UP, HUGE_UP },
     .prepare = positive_inputs, .alias = { 3 });

/* ---- Sums -------------------------------------------------------------------------------- */

static void run_score_grad(const kernel_table *k, call *c)
{
    const bool plain = c->variant == 1;
    c->got[0] = k->score_grad(c->n, in(c, 0), 0.3f, plain ? NULL : in(c, 1),
                              plain ? NULL : in(c, 2), c->variant == 2 ? NULL : out(c, 0));
}

static void check_score_grad(const call *c, worst_t *w)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double r = (double)in(c, 0)[i];
        const double by = c->variant == 1 ? 1 : (double)in(c, 1)[i] * (double)in(c, 2)[i];
        sum += r * r;
        if (c->variant < 2)
            note(w, i, (double)out(c, 0)[i], (double)0.3f * r * by,
                 fabs((double)0.3f * r * by));
    }
    note(w, 0, c->got[0], sum, sum);
}

SPEC(score_grad, .variants = 3, .in = { F4, F4, F4 }, .out = { F4 },
     .special = { A_NAN | ZEROS, A_NAN | ZEROS, ZEROS }, .alias = { 7 });

static void run_score_sum(const kernel_table *k, call *c)
{
    c->got[0] = k->score_sum(c->n, in(c, 0), in(c, 1), -0.3f, c->variant ? NULL : out(c, 0));
}

static void check_score_sum(const call *c, worst_t *w)
{
    double sum = 0, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double h = (double)in(c, 0)[i], e = (double)in(c, 1)[i], s = -(double)0.3f;
        sum += h + e + h * h / 2, size += fabs(h) + fabs(e) + h * h / 2;
        if (!c->variant) note(w, i, (double)out(c, 0)[i], s * (1 + h), fabs(s) * (1 + fabs(h)));
    }
    note(w, 0, c->got[0], sum, size);
}

SPEC(score_sum, .variants = 2, .in = { F4, F4 }, .out = { F4 },
     .special = { A_NAN | ZEROS, A_NAN | ZEROS }, .alias = { 1 });

KERNEL_TESTS(DIFFUSION)
