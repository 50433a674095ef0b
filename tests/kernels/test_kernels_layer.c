/*
 * Layers: activations, gates, normalisation of a row, rotary pairs.
 */
#include "kernel_spec.h"

#include "softlogit/layer.h"

enum { KINDS = 4 };

/* ---- Activations ------------------------------------------------------------------------- */

/* f(x), f'(x), and what an error of a unit in the argument of the exponential is worth. */
static double activation(int kind, double x, double *slope, double *size)
{
    const double a = 0.7978845608028654 * 2, b = a * 0.044715;
    double u = x, du = 1, e, s, bell;
    *size = 1;
    switch (kind) {
    case SLG_RELU:
        *slope = x > 0 ? 1 : isnan(x) ? x : 0;
        return x > 0 || isnan(x) ? x : 0;
    case SLG_GELU:
        s = 0.5 * erfc(-x * 0.7071067811865476);
        bell = exp(-x * x / 2) * 0.3989422804014327;
        *slope = isinf(x) ? s : s + x * bell;
        return x == -INFINITY ? 0 : x * s;
    case SLG_GELU_TANH:
        u = x * (a + b * x * x), du = a + 3 * b * x * x;
        *size += fabs(u) < 100 ? fabs(u) : 0;
        break;
    default:
        break;
    }
    e = exp(-fabs(u));
    s = (u > 0 ? 1 : e) / (1 + e);
    if (isnan(u)) s = u;
    *slope = isinf(x) ? s : s + (e > 0 ? x * du * e / ((1 + e) * (1 + e)) : 0);
    return x == -INFINITY ? 0 : x * s;
}

/* x + b as the kernel has it. */
static float moved(const call *c, size_t i, bool with_bias)
{
    float x = (float)flushed(in(c, 0)[i]);
    return with_bias ? x + (float)flushed(in(c, 1)[i]) : x;
}

static void run_act(const kernel_table *k, call *c)
{
    k->act(c->n, in(c, 0), c->variant / KINDS ? in(c, 1) : NULL, c->variant % KINDS, out(c, 0));
}

static void check_act(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double slope, size, x = (double)moved(c, i, c->variant / KINDS);
        double want = activation(c->variant % KINDS, x, &slope, &size);
        note(w, i, (double)out(c, 0)[i], want, fabs(want) * size + FLUSHED * fabs(x));
    }
}

SPEC(act, .variants = 2 * KINDS, .in = { F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_FINITE }, .alias = { 3 });

static void run_act_bwd(const kernel_table *k, call *c)
{
    k->act_bwd(c->n, in(c, 0), c->variant / KINDS ? in(c, 1) : NULL, in(c, 2),
               c->variant % KINDS, out(c, 0));
}

/* The two terms of a slope may cancel; an exponential that is 0 early is times x and more. */
static void check_act_bwd(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double slope, size, x = (double)moved(c, i, c->variant / KINDS);
        double f = activation(c->variant % KINDS, x, &slope, &size);
        double d = flushed(in(c, 2)[i]), share = isinf(x) || x == 0 ? 1 : fabs(f / x);
        note(w, i, (double)out(c, 0)[i], slope * d,
             fabs(d) * (share + fabs(slope - share)) * size + 0x1p10 * FLUSHED * (1 + fabs(d)));
    }
}

SPEC(act_bwd, .variants = 2 * KINDS, .in = { F4, F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_FINITE, ANY_FINITE & ~(HUGE_UP | HUGE_DOWN) }, .alias = { 7 });

static void run_act_gate(const kernel_table *k, call *c)
{
    k->act_gate(c->n, in(c, 0), in(c, 1), c->variant, out(c, 0));
}

static void check_act_gate(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double slope, size, x = flushed(in(c, 0)[i]), up = flushed(in(c, 1)[i]);
        double f = activation(c->variant, x, &slope, &size);
        note(w, i, (double)out(c, 0)[i], f * up,
             fabs(f * up) * size + FLUSHED * (1 + fabs(up)) * (1 + fabs(x)));
    }
}

SPEC(act_gate, .variants = KINDS, .in = { F4, F4 }, .out = { F4 },
     .special = { ANY_FINITE & ~(HUGE_UP | HUGE_DOWN), ANY_FINITE & ~(HUGE_UP | HUGE_DOWN) },
     .alias = { 3 });

static void run_act_gate_bwd(const kernel_table *k, call *c)
{
    k->act_gate_bwd(c->n, in(c, 0), in(c, 1), in(c, 2), c->variant, out(c, 0), out(c, 1));
}

static void check_act_gate_bwd(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double slope, size, x = flushed(in(c, 0)[i]), up = flushed(in(c, 1)[i]);
        double d = flushed(in(c, 2)[i]), f = activation(c->variant, x, &slope, &size);
        double share = x == 0 ? 1 : fabs(f / x), loose = 0x1p10 * FLUSHED * (1 + fabs(d));
        note(w, i, (double)out(c, 0)[i], slope * up * d,
             fabs(up * d) * (share + fabs(slope - share)) * size + loose * (1 + fabs(up)));
        note(w, i, (double)out(c, 1)[i], f * d, fabs(f * d) * size + loose);
    }
}

SPEC(act_gate_bwd, .variants = KINDS, .in = { F4, F4, F4 }, .out = { F4, F4 },
     .special = { ANY_FINITE & ~(HUGE_UP | HUGE_DOWN), ANY_FINITE & ~(HUGE_UP | HUGE_DOWN),
                  ANY_FINITE & ~(HUGE_UP | HUGE_DOWN) },
     .alias = { 1, 2 });

/* ---- Normalisation ----------------------------------------------------------------------- */

static const norm_arg norms[] = {
    { 0.5f, 1e-9f, 0.4f, 0.25f, -0.125f },
    { 0, 0, 3, 0, 0.5f },
};

static double normal_of(const norm_arg *a, float x, bool low)
{
    double m = (double)a->mean + (low ? (double)a->mean_low : 0);
    return (flushed(x) - m) * (double)a->rstd;
}

static double size_of(const norm_arg *a, float x)
{
    return (fabs(flushed(x)) + fabs((double)a->mean)) * (double)a->rstd;
}

static void run_norm_emit(const kernel_table *k, call *c)
{
    const float *w = c->variant & 1 ? in(c, 1) : NULL, *b = c->variant & 2 ? in(c, 2) : NULL;
    k->norm_emit(c->n, in(c, 0), &norms[c->variant / 4], w, b, out(c, 0));
}

static void check_norm_emit(const call *c, worst_t *w)
{
    const norm_arg *a = &norms[c->variant / 4];
    for (size_t i = 0; i < c->n; i++) {
        double f = c->variant & 1 ? flushed(in(c, 1)[i]) : 1;
        double b = c->variant & 2 ? flushed(in(c, 2)[i]) : 0;
        note(w, i, (double)out(c, 0)[i], normal_of(a, in(c, 0)[i], true) * f + b,
             size_of(a, in(c, 0)[i]) * fabs(f) + fabs(b) + FLUSHED * (1 + fabs(f)));
    }
}

enum { ORDINARY = ANY_FINITE & ~(HUGE_UP | HUGE_DOWN) };

SPEC(norm_emit, .variants = 8, .in = { F4, F4, F4 }, .out = { F4 },
     .special = { ORDINARY, ORDINARY, ORDINARY }, .alias = { 1 });

static void run_norm_sums(const kernel_table *k, call *c)
{
    k->norm_sums(c->n, in(c, 0), &norms[c->variant / 2], c->variant & 1 ? in(c, 1) : NULL,
                 in(c, 2), c->got);
}

static void check_norm_sums(const call *c, worst_t *w)
{
    const norm_arg *a = &norms[c->variant / 2];
    double sum[3] = { 0, 0, 0 }, size[3] = { FLUSHED, FLUSHED, FLUSHED };
    for (size_t i = 0; i < c->n; i++) {
        double f = c->variant & 1 ? flushed(in(c, 1)[i]) : 1, g = f * flushed(in(c, 2)[i]);
        double h = normal_of(a, in(c, 0)[i], false), h_size = size_of(a, in(c, 0)[i]);
        sum[0] += g, size[0] += fabs(g);
        sum[1] += g * h, size[1] += fabs(g) * h_size;
        sum[2] += h, size[2] += h_size;
    }
    for (size_t i = 0; i < 3; i++) note(w, i, c->got[i], sum[i], size[i]);
}

SPEC(norm_sums, .variants = 4, .in = { F4, F4, F4 },
     .special = { ORDINARY, ORDINARY, ORDINARY });

/* Outputs: dw, db as inputs 2 and 3 were, and dx. */
static void run_norm_bwd(const kernel_table *k, call *c)
{
    const int v = c->variant;
    k->norm_bwd(c->n, in(c, 2), &norms[v / 8], v & 1 ? in(c, 3) : NULL, in(c, 1),
                v & 2 ? in(c, 0) : NULL, v & 4 ? out(c, 0) : NULL, v & 4 ? out(c, 1) : NULL,
                out(c, 2));
}

static void check_norm_bwd(const call *c, worst_t *w)
{
    const int v = c->variant;
    const norm_arg *a = &norms[v / 8];
    for (size_t i = 0; i < c->n; i++) {
        double h = normal_of(a, in(c, 2)[i], true), h_size = size_of(a, in(c, 2)[i]);
        double dy = flushed(in(c, 1)[i]), g = dy * (v & 1 ? flushed(in(c, 3)[i]) : 1);
        double add = v & 2 ? flushed(in(c, 0)[i]) : 0, r = (double)a->rstd;
        double dw = flushed(in(c, 0)[i]), db = flushed(in(c, 1)[i]);
        double mg = (double)a->mean_g, mgh = (double)a->mean_gh;
        note(w, i, (double)out(c, 2)[i], r * (g - mg - h * mgh) + add,
             r * (fabs(g) + fabs(mg) + h_size * fabs(mgh)) + fabs(add) + FLUSHED * 4);
        if (!(v & 4)) continue;
        note(w, i, (double)out(c, 0)[i], dw + dy * h,
             fabs(dw) + fabs(dy) * h_size + FLUSHED * 4);
        note(w, i, (double)out(c, 1)[i], db + dy, fabs(db) + fabs(dy) + FLUSHED);
    }
}

SPEC(norm_bwd, .variants = 16, .in = { F4, F4, F4, F4 }, .out = { F4, F4, F4 }, .update = 2,
     .special = { ORDINARY, ORDINARY, ORDINARY, ORDINARY });

/* ---- Rotary pairs ------------------------------------------------------------------------ */

/* n floats are n / 2 pairs; what is left over is not touched. */
static void run_rope(const kernel_table *k, call *c)
{
    if (c->n % 2) out(c, 0)[c->n - 1] = in(c, 0)[c->n - 1];
    k->rope(c->n / 2, in(c, 0), in(c, 1), in(c, 2), c->variant, out(c, 0));
}

static void check_rope(const call *c, worst_t *w)
{
    const size_t pairs = c->n / 2;
    const float *x = in(c, 0);
    for (size_t i = 0; i < pairs; i++) {
        size_t p = c->variant ? 2 * i : i, q = c->variant ? 2 * i + 1 : i + pairs;
        double a = flushed(x[p]), b = flushed(x[q]);
        double u = flushed(in(c, 1)[i]), v = flushed(in(c, 2)[i]);
        note(w, p, (double)out(c, 0)[p], a * u - b * v, fabs(a * u) + fabs(b * v) + FLUSHED);
        note(w, q, (double)out(c, 0)[q], a * v + b * u, fabs(a * v) + fabs(b * u) + FLUSHED);
    }
}

SPEC(rope, .variants = 2, .in = { F4, F4, F4 }, .out = { F4 },
     .special = { ORDINARY, ORDINARY, ORDINARY }, .alias = { 1 });

KERNEL_TESTS(LAYER)
