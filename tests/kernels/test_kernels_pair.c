/*
 * Exponentials of a row beside another: divergences and their gradients.
 */
#include <float.h>

#include "exp_spec.h"

static double other_of(const call *c, size_t i)
{
    return c->variant % 2 ? 0.75 : (double)in(c, 1)[i];
}

/* A distribution, with zeros, in input 1. */
static void logits_and_target(const call *c)
{
    float *q = c->in[1];
    logits(c);
    for (size_t i = 0; i < c->n; i++) q[i] = i % 5 == 3 ? 0 : fabsf(q[i]);
}

static void run_lse_target(const kernel_table *k, call *c)
{
    const exp_arg arg = arg_of(c);
    lse_part p = LSE_EMPTY;
    double dot[2] = { 0, 0 };
    size_t piece = c->variant < 6 ? 0 : c->n / 3; /* a row may come in pieces */
    k->lse_target(piece, in(c, 0), in(c, 1), 0.75f, &arg, &p, dot);
    k->lse_target(c->n - piece, in(c, 0) + piece, in(c, 1) + piece, 0.75f, &arg, &p, dot);
    c->got[0] = p.sum, c->got[1] = (double)p.ref, c->got[2] = dot[0], c->got[3] = dot[1];
}

static void check_lse_target(const call *c, worst_t *w)
{
    const exp_arg arg = arg_of(c);
    const float *x = in(c, 0), *q = in(c, 1), max = max_of(x, c->n);
    double dot = 0, sum = 0, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (flushed(q[i]) == 0) continue;
        dot += (double)q[i] * ((double)x[i] - 0.75), sum += (double)q[i];
        size += (double)q[i] * fabs((double)x[i] - 0.75);
    }
    note(w, 2, c->got[2], dot, size + FLUSHED), note(w, 3, c->got[3], sum, sum + FLUSHED);
    if (has_nan(x, c->n))
        note(w, 0, c->got[0], NAN, 1);
    else if (max == -INFINITY)
        note(w, 0, c->got[0], 0, 1);
    else if (fabs((double)max * (double)arg.log2e_t) <= (double)EXP_LIMIT)
        note(w, 0, log(c->got[0]) + c->got[1] * arg.unit, lse_of(sum_of(c, x, reduced)), 1);
}

SPEC(lse_target, .variants = 12, .in = { F4, F4 }, .special = { NOT_ABOVE, ZEROS | TINY },
     .prepare = logits_and_target);

static void run_lse_dot(const kernel_table *k, call *c)
{
    const exp_arg arg = arg_of(c);
    const float *y = c->variant % 2 ? NULL : in(c, 1);
    lse_part p = LSE_EMPTY;
    double dot[2] = { 0, 0 };
    size_t piece = c->variant < 6 ? 0 : c->n / 3; /* a row may come in pieces */
    k->lse_dot(piece, in(c, 0), y, 0.75f, &arg, &p, dot);
    k->lse_dot(c->n - piece, in(c, 0) + piece, y ? y + piece : NULL, 0.75f, &arg, &p, dot);
    c->got[0] = p.sum, c->got[1] = (double)p.ref, c->got[2] = dot[0], c->got[3] = dot[1];
}

static void check_lse_dot(const call *c, worst_t *w)
{
    const exp_arg arg = arg_of(c);
    const float *x = in(c, 0), max = max_of(x, c->n);
    if (has_nan(x, c->n)) {
        note(w, 0, c->got[0], NAN, 1);
        return;
    }
    if (fabs((double)max * (double)arg.log2e_t) > (double)EXP_LIMIT && max != -INFINITY) return;
    if (max == -INFINITY) {
        note(w, 0, c->got[0], 0, 1), note(w, 1, c->got[2], 0, 1);
        return;
    }
    double sum = 0, first = 0, second = 0, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        double p = x[i] == -INFINITY ? 0 : exp(reduced(c, x[i]) - reduced(c, max));
        double v = p == 0 ? 0 : (double)x[i] - other_of(c, i);
        sum += p, first += p * v, second += p * v * v, size += p * fabs(v);
    }
    note(w, 0, log(c->got[0]) + c->got[1] * arg.unit, lse_of(sum_of(c, x, reduced)), 1);
    note(w, 1, c->got[2] / c->got[0], first / sum, size / sum + FLUSHED);
    note(w, 2, c->got[3] / c->got[0], second / sum, second / sum + FLUSHED);
}

SPEC(lse_dot, .variants = 12, .in = { F4, F4 }, .special = { NOT_ABOVE & ~A_NAN, ZEROS | TINY },
     .prepare = logits);

/* Both rows' log-sum-exps, and the sum beside them, under the second row. */
static int beside_of(const call *c) { return (c->variant + c->variant / 6) % 3; }

static void run_lse_pair(const kernel_table *k, call *c)
{
    const exp_arg arg = arg_of(c);
    const int beside = beside_of(c);
    lse_part x = LSE_EMPTY, y = LSE_EMPTY;
    double dot = 0, *to = beside == PAIR_SUMS ? NULL : &dot;
    size_t piece = c->variant < 6 ? 0 : c->n / 3;
    k->lse_pair(piece, in(c, 0), &arg, &x, in(c, 1), &arg, &y, beside, 0.75f, to);
    k->lse_pair(c->n - piece, in(c, 0) + piece, &arg, &x, in(c, 1) + piece, &arg, &y, beside,
                0.75f, to);
    c->got[0] = x.sum, c->got[1] = (double)x.ref, c->got[2] = y.sum, c->got[3] = (double)y.ref;
    c->got[4] = dot;
}

/* One row's sum; whether it is one that the kernel holds. */
static bool check_side(const call *c, worst_t *w, int side)
{
    const exp_arg arg = arg_of(c);
    const float *x = in(c, side), max = max_of(x, c->n);
    const double sum = c->got[2 * side], ref = c->got[2 * side + 1];
    if (has_nan(x, c->n)) {
        note(w, (size_t)side, sum, NAN, 1);
        return false;
    }
    if (max == -INFINITY) {
        note(w, (size_t)side, sum, 0, 1);
        return false;
    }
    if (fabs((double)max * (double)arg.log2e_t) > (double)EXP_LIMIT) return false;
    note(w, (size_t)side, log(sum) + ref * arg.unit, lse_of(sum_of(c, x, reduced)), 1);
    return true;
}

static void check_lse_pair(const call *c, worst_t *w)
{
    const float *x = in(c, 0), *y = in(c, 1), max = max_of(y, c->n);
    const int beside = beside_of(c);
    const bool first = check_side(c, w, 0), second = check_side(c, w, 1);
    double sum = 0, dot = 0, size = 0;
    double lost = 0; /* of a q that may be 0 */
    if (!first || !second || beside == PAIR_SUMS) return;
    for (size_t i = 0; i < c->n; i++) {
        double q = y[i] == -INFINITY ? 0 : exp(reduced(c, y[i]) - reduced(c, max));
        double v = (beside == PAIR_CROSS ? 0.75 : (double)y[i]) - (double)x[i];
        if (beside == PAIR_CROSS) v = -v;
        if (q == 0) continue;
        if (q < BOUND_zero) lost += q * fabs(v);
        if (isinf(v) && q < BOUND_zero) return;
        if (!isinf(v) && fabs(v) > (double)FLT_MAX / 0x1p32) return; /* q v may be inf */
        sum += q, dot += q * v, size += q * fabs(v);
    }
    if (isinf(dot))
        note(w, 2, c->got[4] / c->got[2], dot, 1);
    else
        note(w, 2, c->got[4] / c->got[2], dot / sum, (size + lost * 0x1p24) / sum + FLUSHED);
}

SPEC(lse_pair, .variants = 18, .in = { F4, F4 }, .special = { NOT_ABOVE, NOT_ABOVE },
     .prepare = logits);

/* Of the second row, at its own place. */
static exp_out second_of(const call *c)
{
    exp_out e = out_of(c);
    float max = max_of(pristine[1], c->n);
    e.a = -0.5f * e.a + 0.125f;
    e.ref = isfinite(max) ? rintf((max - e.arg.pre) * e.arg.log2e_t) : 0.0f;
    e.ref = fmaxf(fminf(e.ref, EXP_LIMIT), -EXP_LIMIT);
    e.c = 0;
    return e;
}

static double part_of(const call *c, const exp_out *e, float x)
{
    return x == -INFINITY ? 0
                          : (double)e->a * exp(reduced(c, x) - (double)e->ref * e->arg.unit);
}

static void run_exp_emit2(const kernel_table *k, call *c)
{
    exp_out ex = out_of(c);
    const exp_out ey = second_of(c);
    ex.c = 0;
    k->exp_emit2(c->n, in(c, 0), &ex, in(c, 1), &ey, out(c, 0), store_of(c));
}

static void check_exp_emit2(const call *c, worst_t *w)
{
    const exp_out ex = out_of(c), ey = second_of(c);
    double least = BOUND_zero * (fmax(1, fabs((double)ex.a)) + fmax(1, fabs((double)ey.a)));
    for (size_t i = 0; i < c->n; i++) {
        double p = part_of(c, &ex, in(c, 0)[i]), q = part_of(c, &ey, in(c, 1)[i]);
        if (in(c, 0)[i] == -INFINITY)
            note(w, i, (double)out(c, 0)[i], 0, 0);
        else
            note(w, i, (double)out(c, 0)[i], p + q, fabs(p) + fabs(q) + least * 0x1p24);
    }
}

SPEC(exp_emit2, .variants = 14, .in = { F4, F4 }, .out = { F4 },
     .special = { NOT_ABOVE, NOT_ABOVE }, .alias = { 3 }, .prepare = logits);

/* Probabilities of row i: at most 1. */
static exp_out share_of(const call *c, int i)
{
    exp_out e = { .arg = arg_of(c), .a = i ? 0.5f : 0.25f };
    float max = max_of(pristine[i], c->n);
    if (isfinite(max)) e.ref = rintf((max - e.arg.pre) * e.arg.log2e_t);
    e.ref = fmaxf(fminf(e.ref, EXP_LIMIT), -EXP_LIMIT);
    return e;
}

/* Not the extremes: the library keeps it within 0.001 of them. */
static double js_share(const call *c) { return c->variant % 3 ? 0.5 : 0.0625; }

static double log_over_mean(double p, double q, double share)
{
    return p > 0x1p-100 ? log(p / (share * q + (1 - share) * p)) : 0;
}

static void run_js_sums(const kernel_table *k, call *c)
{
    const exp_out ex = share_of(c, 0), ey = share_of(c, 1);
    double add[2] = { 1, 0 };
    k->js_sums(c->n, in(c, 0), &ex, in(c, 1), &ey, (float)js_share(c), add);
    c->got[0] = add[0], c->got[1] = add[1];
}

static void check_js_sums(const call *c, worst_t *w)
{
    const exp_out ex = share_of(c, 0), ey = share_of(c, 1);
    double first = 1, second = 0, size[2] = { 1, 1 }, s = js_share(c);
    for (size_t i = 0; i < c->n; i++) {
        double p = part_of(c, &ex, in(c, 0)[i]), q = part_of(c, &ey, in(c, 1)[i]);
        if (!(p <= 1 && q <= 1)) return; /* beyond EXP_LIMIT: modules do not ask for it */
        first += p * log_over_mean(p, q, s), second += q * log_over_mean(q, p, 1 - s);
        size[0] += p * (1 + fabs(log_over_mean(p, q, s)));
        size[1] += q * (1 + fabs(log_over_mean(q, p, 1 - s)));
    }
    note(w, 0, c->got[0], first, size[0]), note(w, 1, c->got[1], second, size[1]);
}

SPEC(js_sums, .variants = 14, .in = { F4, F4 },
     .special = { NOT_ABOVE & ~A_NAN, NOT_ABOVE & ~A_NAN }, .prepare = logits);

static void run_js_emit(const kernel_table *k, call *c)
{
    const exp_out ex = share_of(c, 0), ey = share_of(c, 1);
    k->js_emit(c->n, in(c, 0), &ex, in(c, 1), &ey, (float)js_share(c), 0.75f, -0.25f, out(c, 0),
               store_of(c));
}

static void check_js_emit(const call *c, worst_t *w)
{
    const exp_out ex = share_of(c, 0), ey = share_of(c, 1);
    for (size_t i = 0; i < c->n; i++) {
        double p = part_of(c, &ex, in(c, 0)[i]), q = part_of(c, &ey, in(c, 1)[i]);
        if (!(p <= 1 && q <= 1)) continue;
        double log_p = log_over_mean(p, q, js_share(c));
        note(w, i, (double)out(c, 0)[i], p * (0.75 * log_p - 0.25),
             p * (1 + 0.75 * fabs(log_p)) + 0x1p-74);
    }
}

SPEC(js_emit, .variants = 14, .in = { F4, F4 }, .out = { F4 },
     .special = { NOT_ABOVE & ~A_NAN, NOT_ABOVE & ~A_NAN }, .alias = { 3 }, .prepare = logits);

static void run_exp_emit_linear(const kernel_table *k, call *c)
{
    const exp_out e = out_of(c);
    const float *y = c->variant % 2 ? NULL : in(c, 1);
    k->exp_emit_linear(c->n, in(c, 0), &e, q_factor, y, 0.75f, out(c, 0),
                       c->variant % 4 < 2 ? STORE_CACHED : STORE_STREAM);
}

static void check_exp_emit_linear(const call *c, worst_t *w)
{
    const exp_out e = out_of(c);
    double least = BOUND_zero * fmax(1, fabs((double)e.a));
    for (size_t i = 0; i < c->n; i++) {
        float x = in(c, 0)[i];
        double p = part_of(c, &e, x), v = (double)x - other_of(c, i);
        double line = (double)e.c + (double)q_factor * v,
               size = fabs((double)e.c) + fabs((double)q_factor * v);
        if (x == -INFINITY || p == 0)
            note(w, i, (double)out(c, 0)[i], 0, 0);
        else if (fabs(p) >= least)
            note(w, i, (double)out(c, 0)[i], p * line, fabs(p) * size + FLUSHED);
    }
}

SPEC(exp_emit_linear, .variants = 14, .in = { F4, F4 }, .out = { F4 },
     .special = { NOT_ABOVE & ~A_NAN, ANY_FINITE }, .alias = { 3 }, .prepare = logits);

/* Like temperatures, and unlike ones. */
static const margin_arg margin_args[] = { { 1, 1, 2.5f, 2.5f }, { 0.7, 1 / 1.3, -3, 0.25f } };

static double margin_of(const call *c, size_t i)
{
    const margin_arg *m = &margin_args[c->variant / 2];
    const double a = flushed(in(c, 0)[i]), h = flushed(in(c, 1)[i]);
    if (a == -(double)INFINITY || h == -(double)INFINITY) return 0;
    const double pivot = (double)m->a * m->a_unit - (double)m->h * m->h_unit;
    return pivot - (a * m->a_unit - h * m->h_unit);
}

static void run_margin_sums(const kernel_table *k, call *c)
{
    k->margin_sums(c->n, in(c, 0), in(c, 1), &margin_args[c->variant / 2], c->got);
}

static void check_margin_sums(const call *c, worst_t *w)
{
    long double sum = 0, square = 0, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double e = margin_of(c, i);
        sum += (long double)e, size += fabsl((long double)e),
            square += (long double)e * (long double)e;
        if (!(in(c, 0)[i] < INFINITY) || !(in(c, 1)[i] < INFINITY)) sum = square = NAN;
    }
    note(w, 0, c->got[0], (double)sum, (double)size + 1e-30);
    note(w, 1, c->got[1], (double)square, (double)square + 1e-60);
}

SPEC(margin_sums, .variants = 3, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE });

static void run_margin_emit(const kernel_table *k, call *c)
{
    k->margin_emit(c->n, in(c, 0), in(c, 1), &margin_args[c->variant / 2], -0.3, out(c, 0),
                   store_of(c));
}

static void check_margin_emit(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const double want = -0.3 * margin_of(c, i);
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
}

SPEC(margin_emit, .variants = 4, .in = { F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_VALUE }, .alias = { 3 });

/* p less q, q alone, p alone. */
static const float weigh_c[] = { 1, 0, 1 }, weigh_b[] = { -1, 0.75f, 0 };

static const float *weigh_q(const call *c) { return c->variant % 3 == 2 ? NULL : in(c, 1); }

static double weigh_of(const call *c, size_t i, double *size)
{
    const double p = (double)weigh_c[c->variant % 3] * flushed(in(c, 0)[i]);
    const double q = weigh_q(c) ? (double)weigh_b[c->variant % 3] * flushed(in(c, 1)[i]) : 0;
    *size = fabs(p) + fabs(q);
    return p + q;
}

static void run_weigh_sums(const kernel_table *k, call *c)
{
    k->weigh_sums(c->n, in(c, 0), weigh_c[c->variant], weigh_b[c->variant], weigh_q(c), c->got);
}

static void check_weigh_sums(const call *c, worst_t *w)
{
    double square = 0, sum = 0, squares = 0, size = 0, own;
    for (size_t i = 0; i < c->n; i++) {
        const double p = flushed(in(c, 0)[i]), u = weigh_of(c, i, &own);
        square += u * u, squares += own * own;
        if (p != 0) sum += p * u, size += fabs(p) * own;
    }
    if (!(squares > 1e38)) note(w, 0, c->got[0], square, squares + (double)c->n * FLUSHED);
    if (!(size > 1e38)) note(w, 1, c->got[1], sum, size + (double)c->n * FLUSHED);
}

SPEC(weigh_sums, .variants = 3, .in = { F4, F4 }, .special = { ZEROS | TINY, ANY_VALUE },
     .prepare = probabilities);

static void run_weigh_emit(const kernel_table *k, call *c)
{
    const int v = c->variant / 2;
    k->weigh_emit(c->n, in(c, 0), weigh_c[v], weigh_b[v], v == 2 ? NULL : in(c, 1), -0.7f, 0.3f,
                  out(c, 0), store_of(c));
}

static void check_weigh_emit(const call *c, worst_t *w)
{
    call at = *c;
    at.variant = c->variant / 2;
    for (size_t i = 0; i < c->n; i++) {
        const double p = flushed(in(c, 0)[i]), s = (double)0.3f, f = (double)-0.7f;
        double size, u = weigh_of(&at, i, &size);
        note(w, i, (double)out(c, 0)[i], p == 0 ? 0 : f * p * (u - s),
             fabs(f * p) * (size + s) + FLUSHED);
    }
}

SPEC(weigh_emit, .variants = 6, .in = { F4, F4 }, .out = { F4 },
     .special = { ZEROS | TINY, ANY_VALUE & ~HUGE_UP & ~HUGE_DOWN }, .prepare = probabilities,
     .alias = { 3 });

KERNEL_TESTS(PAIR)
