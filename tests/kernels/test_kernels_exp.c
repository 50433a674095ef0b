/*
 * Exponentials of one row: log-sum-exp, pass 2, and both at once.
 */
#include "exp_spec.h"

static void run_lse(const kernel_table *k, call *c)
{
    const exp_arg arg = arg_of(c);
    lse_part p = LSE_EMPTY;
    size_t piece = c->variant < 6 ? 0 : c->n / 3; /* a row may come in pieces */
    k->lse(piece, in(c, 0), &arg, &p);
    k->lse(c->n - piece, in(c, 0) + piece, &arg, &p);
    c->got[0] = p.sum, c->got[1] = (double)p.ref, c->got[2] = (double)p.max;
}

static void check_lse(const call *c, worst_t *w)
{
    const exp_arg arg = arg_of(c);
    check_part(c, w, &arg);
}

SPEC(lse, .variants = 12, .in = { F4 }, .special = { ANY_VALUE }, .prepare = logits);

static void run_exp_emit(const kernel_table *k, call *c)
{
    const exp_out e = out_of(c);
    k->exp_emit(c->n, in(c, 0), &e, out(c, 0), store_of(c));
}

static void check_emitted(const call *c, worst_t *w, float b, const float *q)
{
    const exp_out e = out_of(c);
    for (size_t i = 0; i < c->n; i++) {
        float x = in(c, 0)[i];
        double p = (double)e.a * exp(reduced(c, x) - (double)e.ref * e.arg.unit);
        double add = q ? (double)b * (double)q[i] : (double)e.c;
        double zero = BOUND_zero * fmax(1, fabs((double)e.a)); /* what may be 0 */
        if (x == -INFINITY)
            note(w, i, (double)out(c, 0)[i], 0, 0);
        else if (fabs(p) >= zero ||
                 fabs((double)out(c, 0)[i] - add) > fabs(add) * 0x1p-24 + FLT_MIN)
            note(w, i, (double)out(c, 0)[i], p + add, fabs(p) + fabs(add) + (q ? FLUSHED : 0));
    }
}

static void check_exp_emit(const call *c, worst_t *w) { check_emitted(c, w, 0, NULL); }

SPEC(exp_emit, .variants = 14, .in = { F4 }, .out = { F4 }, .special = { NOT_ABOVE },
     .alias = { 1 }, .prepare = logits);

/*
 * Pass 2 of one row beside pass 1 of the next: the bits of exp_emit and of lse. y must lie on
 * a line, so the kernel writes to a buffer of its own; the lengths differ as blocks of a row
 * do.
 */
static size_t emitted(const call *c) { return c->variant % 3 == 1 ? c->n * 2 / 3 : c->n; }

static void run_emit_lse(const kernel_table *k, call *c)
{
    static _Alignas(64) float line[8192];
    const exp_arg arg = exp_arg_of(1.0, 0.0f);
    exp_out e = { .arg = arg, .ref = 3.0f, .a = 0.25f };
    size_t n_in = c->variant % 3 == 2 ? c->n * 2 / 3 : c->n, n_out = emitted(c);
    if (n_in > KERNEL_BLOCK) n_in = KERNEL_BLOCK;
    lse_part p = LSE_EMPTY, q = LSE_EMPTY;
    if (n_in == 0) return;
    line[n_out] = 77; /* must stay */
    k->emit_lse(n_out, in(c, 0), &e, line, n_in, in(c, 1), &arg, &p);
    k->lse(n_in, in(c, 1), &arg, &q);
    c->got[0] = memcmp(&p.sum, &q.sum, sizeof p.sum) == 0 || (isnan(p.sum) && isnan(q.sum));
    c->got[1] = memcmp(&p.ref, &q.ref, sizeof p.ref) == 0;
    c->got[2] = isnan(p.sum) || memcmp(&p.max, &q.max, sizeof p.max) == 0;
    k->exp_emit(n_out, in(c, 0), &e, out(c, 0), STORE_CACHED);
    c->got[3] = line[n_out] != 77;
    for (size_t i = 0; i < n_out; i++)
        c->got[3] += !(out(c, 0)[i] == line[i] || (isnan(out(c, 0)[i]) && isnan(line[i])));
    for (size_t i = n_out; i < c->n; i++) out(c, 0)[i] = 0;
}

static void check_emit_lse(const call *c, worst_t *w)
{
    if (c->n < 2) return;
    for (size_t i = 0; i < 3; i++) note(w, i, c->got[i], 1, 0);
    note(w, 3, c->got[3], 0, 0);
}

SPEC(emit_lse, .variants = 3, .in = { F4, F4 }, .out = { F4 },
     .special = { NOT_ABOVE, ANY_VALUE });

/* One exp an element, kept with its sum: c->got[0]. */
static void run_exp_store(const kernel_table *k, call *c)
{
    const exp_out e = out_of(c);
    c->got[0] = k->exp_store(c->n, in(c, 0), &e.arg, e.ref, out(c, 0), 0);
}

static void check_exp_store(const call *c, worst_t *w)
{
    const exp_out e = out_of(c);
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        float x = in(c, 0)[i];
        double p = x == -INFINITY ? 0 : exp(reduced(c, x) - (double)e.ref * e.arg.unit);
        sum += p;
        note(w, i, (double)out(c, 0)[i], p, p);
    }
    note(w, c->n, c->got[0], sum, sum + FLUSHED);
}

SPEC(exp_store, .variants = 14, .in = { F4 }, .out = { F4 }, .special = { NOT_ABOVE },
     .alias = { 1 }, .prepare = logits);

/* Where the tail ends: at a class of the row, itself of the tail or not. */
static float least_of(const call *c) { return c->n ? pristine[0][c->n / 3] : 0; }
static bool equal_of(const call *c) { return c->variant >= 7; }
static bool tail_of(const call *c, float x)
{
    return equal_of(c) ? x < least_of(c) : !(x > least_of(c));
}

static void run_exp_split(const kernel_table *k, call *c)
{
    const exp_out e = out_of(c);
    c->got[0] = c->got[1] = 0;
    k->exp_split(c->n, in(c, 0), &e.arg, e.ref, 0.5f, least_of(c), equal_of(c), out(c, 0),
                 c->got, 0);
}

static void check_exp_split(const call *c, worst_t *w)
{
    const exp_out e = out_of(c);
    double sum = 0, dot = 0, scale = 0;
    for (size_t i = 0; i < c->n; i++) {
        float x = in(c, 0)[i];
        double p = x == -INFINITY ? 0 : exp(reduced(c, x) - (double)e.ref * e.arg.unit);
        note(w, i, (double)out(c, 0)[i], p, p);
        if (!tail_of(c, x) || p < (double)FLT_MIN) continue;
        sum += p, dot += p * ((double)x - 0.5), scale += p * fabs((double)x - 0.5);
    }
    note(w, c->n, c->got[0], sum, sum + FLUSHED);
    note(w, c->n + 1, c->got[1], dot, scale + FLUSHED * 1e6);
}

SPEC(exp_split, .variants = 14, .in = { F4 }, .out = { F4 }, .special = { MINUS_INF | ZEROS },
     .prepare = logits);

/* x in input 0, probabilities in input 1. */
static void run_split_emit(const kernel_table *k, call *c)
{
    k->split_emit(c->n, in(c, 1), in(c, 0), least_of(c), equal_of(c), 3.0f, -0.25f, out(c, 0),
                  store_of(c));
}

static void check_split_emit(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double p = flushed(in(c, 1)[i]), want = p * (tail_of(c, in(c, 0)[i]) ? -0.25 : 3);
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
}

SPEC(split_emit, .variants = 14, .in = { F4, F4 }, .out = { F4 },
     .special = { MINUS_INF | ZEROS, MINUS_INF | ZEROS }, .alias = { 3 }, .prepare = logits);

static void run_exp_emit_q(const kernel_table *k, call *c)
{
    const exp_out e = out_of(c);
    k->exp_emit_q(c->n, in(c, 0), &e, q_factor, in(c, 1), out(c, 0), store_of(c));
}

static void check_exp_emit_q(const call *c, worst_t *w)
{
    check_emitted(c, w, q_factor, in(c, 1));
}

SPEC(exp_emit_q, .variants = 12, .in = { F4, F4 }, .out = { F4 },
     .special = { NOT_ABOVE, ANY_VALUE }, .alias = { 3 }, .prepare = logits);

KERNEL_TESTS(EXP)
