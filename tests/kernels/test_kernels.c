/*
 * Every kernel of kernels.h on every ISA: see kernel_test.h. The table at the end is made of
 * SLG_KERNELS, so a kernel without a spec here does not compile.
 */
#include "kernel_test.h"
#include "softmax/parts.h"

enum { F4 = sizeof(float), F2 = sizeof(uint16_t) };

/* Added to the scale where terms below 2^-126 are flushed and the sum need not be: one u of it. */
#define FLUSHED 0x1p-101

#define SPEC(kernel, ...) SPEC_OF(kernel, __VA_ARGS__)
#define SPEC_OF(kernel, ...)                                                                   \
    static const spec spec_##kernel = { .name = #kernel,                                       \
                                        .bound = BOUND_##kernel,                               \
                                        .run = run_##kernel,                                   \
                                        .check = check_##kernel,                               \
                                        __VA_ARGS__ }

static const float *in(const call *c, int i) { return c->in[i]; }
static float *out(const call *c, int j) { return c->out[j]; }

static bool has_nan(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(x[i])) return true;
    return false;
}

static float max_of(const float *x, size_t n)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (x[i] > max) max = x[i];
    return max;
}

/* What the exponential is taken of; it grows with x. */
typedef double (*argument)(const call *c, float x);

/* sum exp(z(x)) = sum * exp(top), for a maximum that is finite */
typedef struct row_sum {
    double top, sum;
} row_sum;

static row_sum sum_of(const call *c, const float *x, argument z)
{
    row_sum s = { z(c, max_of(x, c->n)), 0 };
    for (size_t i = 0; i < c->n; i++) s.sum += exp(z(c, x[i]) - s.top);
    return s;
}

static double lse_of(row_sum s) { return s.top + log(s.sum); }

/* ---- The exponential --------------------------------------------------------------------- */

/* Temperatures and `pre` of the variants. */
static const struct {
    double t;
    float pre;
} args[] = {
    { 1, 0 }, { 0.7, 0 }, { 7, 50 }, { 0.03, 0 }, { 100, -3 }, { 1, 2.5f },
};

static exp_arg arg_of(const call *c)
{
    size_t v = (size_t)c->variant % COUNT(args);
    return exp_arg_of(args[v].t, args[v].pre);
}

static double reduced(const call *c, float x)
{
    size_t v = (size_t)c->variant % COUNT(args);
    return (double)(x - args[v].pre) / args[v].t;
}

/* Some of every kind: plain, wide, with masked classes. */
static void logits(const call *c)
{
    float *x = c->in[0];
    const double spread[] = { 1, 10, 300 };
    const double s = spread[(c->n + (size_t)c->variant) % 3];
    for (size_t i = 0; i < c->n; i++) {
        x[i] = (float)(s * (double)x[i]);
        if (c->n % 5 == 4 && i % 3 == 1) x[i] = -INFINITY;
    }
}

static void run_lse(const kernel_table *k, call *c)
{
    const exp_arg arg = arg_of(c);
    lse_part p = LSE_EMPTY;
    size_t piece = c->variant < 6 ? 0 : c->n / 3; /* a row may come in pieces */
    k->lse(piece, in(c, 0), &arg, &p);
    k->lse(c->n - piece, in(c, 0) + piece, &arg, &p);
    c->got[0] = p.sum, c->got[1] = (double)p.ref, c->got[2] = (double)p.max;
}

static void check_part(const call *c, worst_t *w, const exp_arg *arg)
{
    const float *x = in(c, 0), max = max_of(x, c->n);
    const double sum = c->got[0], ref = c->got[1];
    if (has_nan(x, c->n)) {
        note(w, 0, sum, NAN, 1);
    } else if (max == -INFINITY) {
        note(w, 0, sum, 0, 1), note(w, 1, ref, -INFINITY, 1),
            note(w, 2, c->got[2], -INFINITY, 1);
    } else if (fabs((double)max * (double)arg->log2e_t) > (double)EXP_LIMIT) {
        /* To be seen by row_settle. */
        bool seen =
            !isfinite(sum) || fabs(c->got[2] * (double)arg->log2e_t) > (double)EXP_LIMIT;
        note(w, 0, seen, 1, 1);
    } else {
        note(w, 0, log(sum) + ref * arg->unit, lse_of(sum_of(c, x, reduced)), 1);
        note(w, 1, rint(ref), ref, 0), note(w, 2, c->got[2], (double)max, 0);
    }
}

static void check_lse(const call *c, worst_t *w)
{
    const exp_arg arg = arg_of(c);
    check_part(c, w, &arg);
}

SPEC(lse, .variants = 12, .in = { F4 }, .special = { ANY_VALUE }, .prepare = logits);

/* y = a exp(z) 2^-ref + c, with z within 2^30 of ref, as pass 1 leaves it. */
static exp_out out_of(const call *c)
{
    static const float factors[] = { 1.0f, 0.37f, 3e-7f, -0.9f, 0.0f, 5.0f, 1e5f };
    exp_out e = { .arg = arg_of(c) };
    e.a = factors[c->variant % 7];
    e.c = c->variant % 5 == 2 ? 0.25f : 0.0f;
    float max = max_of(pristine[0], c->n);
    if (isfinite(max)) e.ref = rintf((max - e.arg.pre) * e.arg.log2e_t);
    e.ref = fmaxf(e.ref - (c->variant % 4 == 3 ? 30 : 0), -EXP_LIMIT);
    return e;
}

static const float q_factor = -1.75f;

static int store_of(const call *c) { return c->variant % 2 ? STORE_STREAM : STORE_CACHED; }

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

/* ---- Two rows ------------------------------------------------------------------------------ */

static double other_of(const call *c, size_t i)
{
    return c->variant % 2 ? 0.75 : (double)in(c, 1)[i];
}

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

static const spec spec_lse_dot = {
    .name = "lse_dot",
    .bound = BOUND_lse_dot,
    .variants = 12,
    .in = { F4, F4 },
    .special = { NOT_ABOVE & ~A_NAN, ZEROS | TINY },
    .prepare = logits,
    .run = run_lse_dot,
    .check = check_lse_dot,
};

/* The same of y - shift. NaN and infinities of y where p is not 0 are left to the modules. */
static void run_lse_cross(const kernel_table *k, call *c)
{
    const exp_arg arg = arg_of(c);
    lse_part p = LSE_EMPTY;
    double dot[2] = { 0, 0 };
    size_t piece = c->variant < 6 ? 0 : c->n / 3;
    k->lse_cross(piece, in(c, 0), in(c, 1), 0.75f, &arg, &p, dot);
    k->lse_cross(c->n - piece, in(c, 0) + piece, in(c, 1) + piece, 0.75f, &arg, &p, dot);
    c->got[0] = p.sum, c->got[1] = (double)p.ref, c->got[2] = dot[0], c->got[3] = dot[1];
}

static void check_lse_cross(const call *c, worst_t *w)
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
        double v = p == 0 ? 0 : (double)in(c, 1)[i] - 0.75;
        sum += p, first += p * v, second += p * v * v, size += p * fabs(v);
    }
    note(w, 0, log(c->got[0]) + c->got[1] * arg.unit, lse_of(sum_of(c, x, reduced)), 1);
    note(w, 1, c->got[2] / c->got[0], first / sum, size / sum + FLUSHED);
    note(w, 2, c->got[3] / c->got[0], second / sum, second / sum + FLUSHED);
}

static const spec spec_lse_cross = {
    .name = "lse_cross",
    .bound = BOUND_lse_cross,
    .variants = 12,
    .in = { F4, F4 },
    .special = { NOT_ABOVE & ~A_NAN, ZEROS | TINY },
    .prepare = logits,
    .run = run_lse_cross,
    .check = check_lse_cross,
};

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

static const spec spec_exp_emit2 = {
    .name = "exp_emit2",
    .bound = BOUND_exp_emit2,
    .variants = 14,
    .in = { F4, F4 },
    .out = { F4 },
    .special = { NOT_ABOVE, NOT_ABOVE },
    .alias = { 3 },
    .prepare = logits,
    .run = run_exp_emit2,
    .check = check_exp_emit2,
};

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

static const spec spec_js_sums = {
    .name = "js_sums",
    .bound = BOUND_js_sums,
    .variants = 14,
    .in = { F4, F4 },
    .special = { NOT_ABOVE & ~A_NAN, NOT_ABOVE & ~A_NAN },
    .prepare = logits,
    .run = run_js_sums,
    .check = check_js_sums,
};

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

static const spec spec_js_emit = {
    .name = "js_emit",
    .bound = BOUND_js_emit,
    .variants = 14,
    .in = { F4, F4 },
    .out = { F4 },
    .special = { NOT_ABOVE & ~A_NAN, NOT_ABOVE & ~A_NAN },
    .alias = { 3 },
    .prepare = logits,
    .run = run_js_emit,
    .check = check_js_emit,
};

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

static const spec spec_exp_emit_linear = {
    .name = "exp_emit_linear",
    .bound = BOUND_exp_emit_linear,
    .variants = 14,
    .in = { F4, F4 },
    .out = { F4 },
    .special = { NOT_ABOVE & ~A_NAN, ANY_FINITE },
    .alias = { 3 },
    .prepare = logits,
    .run = run_exp_emit_linear,
    .check = check_exp_emit_linear,
};

/*
 * Pass 2 of one row beside pass 1 of the next: the bits of exp_emit and of lse. y must lie on a line,
 * so the kernel writes to a buffer of its own; the lengths differ as blocks of a row do.
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

/* ---- Class by class: binary.c -------------------------------------------------------------- */

static double softplus(double a) { return fmax(a, 0) + log1p(exp(-fabs(a))); }
static double sigmoid(double a) { return a > 0 ? 1 / (1 + exp(-a)) : exp(a) / (1 + exp(a)); }

/* Sums of a block that float32 cannot hold: the caller adds up class by class. */
static void note_sum(const call *c, worst_t *w, double sum)
{
    if (!(sum > 1e38)) note(w, 0, c->got[0], sum, sum + 1e-35);
}

/* Probabilities in x1, weights in x2 and x3, with zeros and ones among them. */
static void labels(const call *c)
{
    for (int j = 1; j < 4; j++)
        for (size_t i = 0; i < c->n; i++) {
            float *v = (float *)c->in[j] + i;
            *v = (float)sigmoid((double)*v);
            if (i % 7 == (size_t)j) *v = 0;
            if (i % 7 == 2) *v = 1;
        }
}

static const float *weight_of(const call *c, int i) { return c->variant & (1 << (i - 2)) ? in(c, i) : NULL; }
static float bce_inv(const call *c) { return c->variant < 4 ? 1.0f : 0.4f; }

static void run_bce(const kernel_table *k, call *c)
{
    c->got[0] = k->bce(c->n, in(c, 0), bce_inv(c), in(c, 1), weight_of(c, 2), weight_of(c, 3));
}

static void run_bce_emit(const kernel_table *k, call *c)
{
    k->bce_emit(c->n, in(c, 0), bce_inv(c), in(c, 1), weight_of(c, 2), weight_of(c, 3), -0.75f,
                out(c, 0), store_of(c));
}

/* z, and the weights of softplus(-z) and softplus(z). False for a weight of 0. */
static bool bce_terms(const call *c, size_t i, double *z, double *up, double *down)
{
    const float *pos = weight_of(c, 2), *w = weight_of(c, 3);
    double q = (double)in(c, 1)[i], all = w ? (double)w[i] : 1;
    *z = (double)(in(c, 0)[i] * bce_inv(c));
    *up = all * (pos ? (double)pos[i] : 1) * q;
    *down = all * (1 - q);
    return all != 0;
}

static void check_bce(const call *c, worst_t *w)
{
    double sum = 0, z, up, down;
    for (size_t i = 0; i < c->n; i++) {
        if (!bce_terms(c, i, &z, &up, &down)) continue;
        if (up != 0) sum += up * softplus(-z);
        if (down != 0) sum += down * softplus(z);
        if (isnan(z)) sum = NAN;
    }
    note_sum(c, w, sum);
}

static void check_bce_emit(const call *c, worst_t *w)
{
    double z, up, down;
    for (size_t i = 0; i < c->n; i++) {
        bool live = bce_terms(c, i, &z, &up, &down);
        double on = live ? down * sigmoid(z) : 0, off = live ? up * sigmoid(-z) : 0;
        note(w, i, (double)out(c, 0)[i], -0.75 * (on - off), fabs(on) + fabs(off) + FLUSHED);
    }
}

SPEC(bce, .variants = 8, .in = { F4, F4, F4, F4 }, .special = { ANY_VALUE }, .prepare = labels);
SPEC(bce_emit, .variants = 8, .in = { F4, F4, F4, F4 }, .out = { F4 }, .special = { ANY_VALUE },
     .alias = { 1 }, .prepare = labels);

static logit_pair logit_pair_of(const call *c)
{
    static const logit_pair pairs[] = { { 0.5f, 0.5f, 1 }, { 1, 1, 1 }, { 0.25f, 0.5f, 0.5f } };
    return pairs[c->variant % 3];
}

/* Far apart, near each other, equal. */
static void teacher_like(const call *c)
{
    const float *x = c->in[0];
    float *y = c->in[1];
    for (size_t i = 0; i < c->n; i++) {
        if (!isfinite(x[i]) || !isfinite(y[i])) continue;
        if (i % 3 == 1) y[i] = (float)((double)x[i] * (1 + 1e-4 * (double)y[i]));
        if (i % 17 == 2) y[i] = x[i];
    }
}

/* The difference as float32 has it: it may overflow there. */
static double apart(const call *c, size_t i)
{
    const logit_pair p = logit_pair_of(c);
    return (double)((in(c, 0)[i] * p.ratio - in(c, 1)[i]) * p.inv_y);
}

static void run_log_cosh(const kernel_table *k, call *c)
{
    const logit_pair p = logit_pair_of(c);
    c->got[0] = k->log_cosh(c->n, in(c, 0), in(c, 1), &p);
}

static void check_log_cosh(const call *c, worst_t *w)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        double d = apart(c, i), s = sinh(d / 4);
        sum += fabs(d) < 2 ? log1p(2 * s * s) : fabs(d) / 2 + log1p(exp(-fabs(d))) - log(2);
    }
    note_sum(c, w, sum);
}

static void run_tanh_emit(const kernel_table *k, call *c)
{
    const logit_pair p = logit_pair_of(c);
    k->tanh_emit(c->n, in(c, 0), in(c, 1), &p, 1.5f, out(c, 0), store_of(c));
}

static void check_tanh_emit(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double want = 1.5 * tanh(apart(c, i) / 2);
        note(w, i, (double)out(c, 0)[i], want, fabs(want) + FLUSHED);
    }
}

static void run_binary_kl(const kernel_table *k, call *c)
{
    const logit_pair p = logit_pair_of(c);
    c->got[0] = k->binary_kl(c->n, in(c, 0), in(c, 1), &p);
}

/* By log1p((1 - q) expm1(d)) - (1 - q) d of what is small; long double carries the cancellation. */
static double kl_of(const call *c, size_t i)
{
    const logit_pair p = logit_pair_of(c);
    long double a = in(c, 0)[i] * p.inv_x, b = in(c, 1)[i] * p.inv_y;
    if (in(c, 0)[i] * p.ratio == in(c, 1)[i]) return 0;
    if (isnan(a) || isnan(b)) return NAN;
    if (isinf(a)) return INFINITY;
    if (b > 0) a = -a, b = -b;
    if (b < -11000) return softplus((double)a); /* q is 0 in long double too */
    long double q = expl(b) / (1 + expl(b)), d = a - b;
    if (fabsl(d) < 1e-3L) {
        long double v = q * (1 - q);
        return (double)(v * d * d * (0.5L + (1 - 2 * q) * d / 6 + (1 - 6 * v) * d * d / 24));
    }
    if (a <= 80) return (double)(log1pl(q * expm1l(d)) - (q > 0 ? q * d : 0));
    return (double)((1 - q) * a + (q > 0 ? q * b : 0) - log1pl(expl(b)));
}

static void check_binary_kl(const call *c, worst_t *w)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) sum += kl_of(c, i);
    note_sum(c, w, sum);
}

static void run_binary_kl_emit(const kernel_table *k, call *c)
{
    const logit_pair p = logit_pair_of(c);
    k->binary_kl_emit(c->n, in(c, 0), in(c, 1), &p, -2.0f, out(c, 0), store_of(c));
}

/* Relative to the difference itself, however near the two are. */
static void check_binary_kl_emit(const call *c, worst_t *w)
{
    const logit_pair p = logit_pair_of(c);
    for (size_t i = 0; i < c->n; i++) {
        double a = (double)(in(c, 0)[i] * p.inv_x), b = (double)(in(c, 1)[i] * p.inv_y);
        double d = apart(c, i), want;
        if (in(c, 0)[i] * p.ratio == in(c, 1)[i])
            want = 0;
        else if (d > 0 || isnan(d))
            want = sigmoid(a) * sigmoid(-b) * -expm1(-d);
        else
            want = sigmoid(-a) * sigmoid(b) * expm1(d);
        /* Of arguments that are large the rounding shows in the exponential. */
        double size = isfinite(a) && isfinite(b) ? 1 + 0.5 * (fmin(fabs(a), 90) + fmin(fabs(b), 90)) : 1;
        note(w, i, (double)out(c, 0)[i], -2 * want, 2 * fabs(want) * size + FLUSHED);
    }
}

SPEC(log_cosh, .variants = 3, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE },
     .prepare = teacher_like);
SPEC(tanh_emit, .variants = 6, .in = { F4, F4 }, .out = { F4 }, .special = { ANY_VALUE, ANY_VALUE },
     .alias = { 3 }, .prepare = teacher_like);
SPEC(binary_kl, .variants = 3, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE },
     .prepare = teacher_like);
SPEC(binary_kl_emit, .variants = 6, .in = { F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_VALUE }, .alias = { 3 }, .prepare = teacher_like);

static void run_dots(const kernel_table *k, call *c) { k->dots(c->n, in(c, 0), in(c, 1), c->got); }

static double flushed(float x) { return fabsf(x) < FLT_MIN ? 0 : (double)x; }

static void check_dots(const call *c, worst_t *w)
{
    long double s[3] = { 0 }, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        double x = flushed(in(c, 0)[i]), y = flushed(in(c, 1)[i]);
        s[0] += x * y, s[1] += x * x, s[2] += y * y;
        size += fabs(x * y);
    }
    note(w, 0, c->got[0], (double)s[0], (double)size + 1e-60);
    note(w, 1, c->got[1], (double)s[1], (double)s[1] + 1e-60);
    note(w, 2, c->got[2], (double)s[2], (double)s[2] + 1e-60);
}

SPEC(dots, .variants = 1, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE });

static void run_lincomb(const kernel_table *k, call *c)
{
    k->lincomb(c->n, -0.3, in(c, 1), c->variant ? 1.7 : 1.0, out(c, 0));
}

static void check_lincomb(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double want = -0.3 * flushed(in(c, 1)[i]) + (c->variant ? 1.7 : 1.0) * flushed(in(c, 0)[i]);
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
}

SPEC(lincomb, .variants = 2, .in = { F4, F4 }, .out = { F4 }, .update = 1,
     .special = { ANY_VALUE, ANY_VALUE });

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

/* ---- Rows at once ------------------------------------------------------------------------ */

static void check_softmax(const call *c, worst_t *w, argument z, row_sum s)
{
    for (size_t i = 0; i < c->n; i++) {
        double want = exp(z(c, in(c, 0)[i]) - s.top) / s.sum;
        note(w, i, (double)out(c, 0)[i], want, want);
    }
}

static void run_softmax_row(const kernel_table *k, call *c)
{
    const exp_arg arg = arg_of(c);
    lse_part p = LSE_EMPTY;
    c->got[3] = k->softmax_row(c->n, in(c, 0), &arg, out(c, 0), &p);
    c->got[0] = p.sum, c->got[1] = (double)p.ref, c->got[2] = (double)p.max;
}

static void check_softmax_row(const call *c, worst_t *w)
{
    const exp_arg arg = arg_of(c);
    const float *x = in(c, 0), max = max_of(x, c->n);
    bool ordinary = c->n > 0 && !has_nan(x, c->n) && arg.pre == 0 &&
                    fabs((double)max * (double)arg.log2e_t) <= (double)EXP_LIMIT;
    note(w, 0, c->got[3], ordinary, 0);
    if (!ordinary) return;
    check_part(c, w, &arg);
    check_softmax(c, w, reduced, sum_of(c, x, reduced));
}

SPEC(softmax_row, .variants = 5, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE },
     .alias = { 1 }, .prepare = logits);

static const double factors[] = { 1, 1 / 0.7, 1 / 7.0 };

static double scaled(const call *c, float x) { return (double)x * factors[c->variant]; }

static void check_named(const call *c, worst_t *w, bool two_pass)
{
    const float *x = in(c, 0), max = max_of(x, c->n);
    const double factor = factors[c->variant];
    const bool nan = has_nan(x, c->n);
    if (!c->got[0]) { /* it need not refuse a maximum just below its limit */
        bool may = c->n == 0 || nan || !isfinite(max) ||
                   (two_pass && fabs((double)max * factor) > 0x1p21 - 256);
        note(w, 0, may, 1, 0);
        return;
    }
    if (nan) {
        note(w, 0, two_pass, 0, 0), note(w, 1, c->got[1], NAN, 1);
        for (size_t i = 0; i < c->n; i++) note(w, i, (double)out(c, 0)[i], NAN, 1);
        return;
    }
    const row_sum s = sum_of(c, x, scaled);
    check_softmax(c, w, scaled, s);
    note(w, c->n, c->got[1], lse_of(s), 1 + fabs(lse_of(s)) * 0x1p-20);
}

#define NAMED(kernel, two)                                                                     \
    static void run_##kernel(const kernel_table *k, call *c)                                   \
    {                                                                                          \
        c->got[0] = k->kernel(c->n, in(c, 0), factors[c->variant], out(c, 0), &c->got[1]);     \
    }                                                                                          \
    static void check_##kernel(const call *c, worst_t *w) { check_named(c, w, two); }          \
    SPEC(kernel, .variants = 3, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE },         \
         .alias = { 1 }, .prepare = logits);

NAMED(softmax_two_pass, true)
NAMED(softmax_recompute, false)
NAMED(softmax_reload, false)

static void run_ext_exp(const kernel_table *k, call *c)
{
    k->ext_exp(c->n, in(c, 0), out(c, 0), out(c, 1));
}

static void check_ext_exp(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const double x = fmin(fmax((double)in(c, 0)[i], -0x1p21), 0x1p21);
        const double m = (double)out(c, 0)[i], n = (double)out(c, 1)[i];
        if (isnan(in(c, 0)[i])) {
            note(w, i, m, NAN, 1);
            continue;
        }
        /* n is the nearest whole number, or next to it where x log2(e) was rounded. */
        double want = exp(x - n * 0.69314718055994531);
        note(w, i, m, want, fabs(x) <= 1000 ? want : want * 16);
        note(w, i, rint(n), n, 0);
        note(w, i, fabs(n - x * 1.4426950408889634) <= 0.5 + fabs(x) * 0x1p-23, 1, 0);
    }
}

SPEC(ext_exp, .variants = 3, .in = { F4 }, .out = { F4, F4 }, .special = { ANY_VALUE },
     .alias = { 1, 1 }, .prepare = logits);

static log_arg log_arg_of(const call *c)
{
    static const struct {
        double s, lse;
        float pre;
    } v[] = {
        { 1, 4.25, 0 },
        { 1 / 0.7, -3.1, 0 },
        { 1 / 7.0, 1e4 / 3, 50 },
        { 1e20, 1e21, 0 },
    };
    const double s = v[c->variant / 2].s, lse = v[c->variant / 2].lse;
    log_arg a = { .s_hi = (float)s, .lse_hi = (float)lse, .pre = v[c->variant / 2].pre };
    a.s_lo = (float)(s - (double)a.s_hi), a.lse_lo = (float)(lse - (double)a.lse_hi);
    a.unit = a.pre == 0 ? 1.0f : 0.5f;
    return a;
}

static void run_log_emit(const kernel_table *k, call *c)
{
    const log_arg a = log_arg_of(c);
    k->log_emit(c->n, in(c, 0), &a, out(c, 0), store_of(c));
}

static void check_log_emit(const call *c, worst_t *w)
{
    const log_arg a = log_arg_of(c);
    for (size_t i = 0; i < c->n; i++) {
        const double x = (double)(in(c, 0)[i] * a.unit - a.pre);
        const double z = x * ((double)a.s_hi + (double)a.s_lo);
        const double lse = (double)a.lse_hi + (double)a.lse_lo;
        note(w, i, (double)out(c, 0)[i], z - lse,
             fabs(z - lse) + (fabs(z) + fabs(lse)) * 0x1p-24);
    }
}

SPEC(log_emit, .variants = 8, .in = { F4 }, .out = { F4 },
     .special = { MINUS_INF | A_NAN | ZEROS | TINY | HUGE_DOWN }, .alias = { 1 },
     .prepare = logits);

/* ---- Gradients --------------------------------------------------------------------------- */

static const float slopes[][2] = { { 1.0f, 0.75f },
                                   { 0.125f, -2.5f },
                                   { 30.0f, 0.0f } }; /* s, d */

/* Probabilities, some 0, in input 0; or their logarithms, some -inf. */
static void probabilities(const call *c)
{
    float *y = c->in[0];
    for (size_t i = 0; i < c->n; i++)
        y[i] = c->n == 2048 ? y[0] : i % 4 == 2 ? 0.0f : (float)uniform();
}

static void log_probabilities(const call *c)
{
    float *y = c->in[0];
    for (size_t i = 0; i < c->n; i++)
        y[i] = i % 4 == 2 ? -INFINITY : (float)(50 * log(uniform()));
}

static void run_softmax_bwd(const kernel_table *k, call *c)
{
    const float *f = slopes[c->variant];
    k->softmax_bwd(c->n, in(c, 0), in(c, 1), f[1], f[0], out(c, 0));
}

static void check_softmax_bwd(const call *c, worst_t *w)
{
    const double s = (double)slopes[c->variant][0], dot = (double)slopes[c->variant][1];
    for (size_t i = 0; i < c->n; i++) {
        const double y = (double)in(c, 0)[i], dy = (double)in(c, 1)[i];
        double want = y != 0 ? s * y * (dy - dot) : 0;
        note(w, i, (double)out(c, 0)[i], want, fabs(s * y) * (fabs(dy) + fabs(dot)) + FLUSHED);
    }
}

SPEC(softmax_bwd, .variants = 3, .in = { F4, F4 }, .out = { F4 },
     .special = { A_NAN | ZEROS, ANY_VALUE }, .alias = { 3 }, .prepare = probabilities);

static void run_log_softmax_bwd(const kernel_table *k, call *c)
{
    const float *f = slopes[c->variant];
    k->log_softmax_bwd(c->n, in(c, 0), in(c, 1), f[1], f[0], out(c, 0));
}

static void check_log_softmax_bwd(const call *c, worst_t *w)
{
    const double s = (double)slopes[c->variant][0], sum = (double)slopes[c->variant][1];
    for (size_t i = 0; i < c->n; i++) {
        const double y = (double)in(c, 0)[i], dy = (double)in(c, 1)[i], p = exp(y) * sum;
        double want = y == -INFINITY ? 0 : s * (dy - p);
        note(w, i, (double)out(c, 0)[i], isnan(y) ? NAN : want,
             fabs(s) * (fabs(dy) + fabs(p) + FLUSHED));
    }
}

SPEC(log_softmax_bwd, .variants = 3, .in = { F4, F4 }, .out = { F4 },
     .special = { NOT_ABOVE, ANY_VALUE }, .alias = { 3 }, .prepare = log_probabilities);

/* ---- Sums and searches ------------------------------------------------------------------- */

static void run_max(const kernel_table *k, call *c)
{
    c->got[0] = (double)k->max(c->n, in(c, 0));
}

static void check_max(const call *c, worst_t *w)
{
    if (has_nan(in(c, 0), c->n)) return;
    note(w, 0, c->got[0], (double)max_of(in(c, 0), c->n), 0);
}

SPEC(max, .variants = 1, .in = { F4 }, .special = { ANY_VALUE });

/* What is looked for: something of the row, at several places; or of no row. */
static float sought(const call *c)
{
    const float *x = pristine[0];
    if (c->variant == 3 || c->n == 0) return 1e30f;
    return x[c->variant == 0 ? 0 : c->variant == 1 ? c->n - 1 : c->n / 2];
}

static void run_find(const kernel_table *k, call *c)
{
    c->got[0] = (double)k->find(c->n, in(c, 0), sought(c));
}

static void check_find(const call *c, worst_t *w)
{
    const float value = sought(c);
    size_t i = 0;
    while (i < c->n && in(c, 0)[i] != value) i++;
    note(w, 0, c->got[0], (double)i, 0);
}

static void few_values(const call *c) /* so that the first of several is asked for */
{
    float *x = c->in[0];
    for (size_t i = 0; i < c->n; i++) x[i] = rintf(x[i] * 20) + 1000;
}

SPEC(find, .variants = 4, .in = { F4 }, .special = { ANY_VALUE & ~TINY },
     .prepare = few_values);

static const float shifts[] = { 0.0f, 1.5f };

static void run_dot(const kernel_table *k, call *c)
{
    c->got[0] = k->dot(c->n, in(c, 0), in(c, 1), shifts[c->variant]);
}

static void check_dot(const call *c, worst_t *w)
{
    double sum = 0, scale = 0;
    for (size_t i = 0; i < c->n; i++) {
        double x = (double)in(c, 0)[i], y = (double)in(c, 1)[i], s = (double)shifts[c->variant];
        if (fabs(x) < (double)FLT_MIN) continue; /* read as 0 */
        sum += x * (y - s), scale += fabs(x) * (fabs(y) + fabs(s));
    }
    if (scale > 3e38 && !isnan(sum)) return; /* overflows within a block */
    note(w, 0, c->got[0], sum, scale + (double)c->n * FLUSHED);
}

SPEC(dot, .variants = 2, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE },
     .prepare = probabilities);

static void run_live_sums(const kernel_table *k, call *c)
{
    const float *w = c->variant & 1 ? in(c, 1) : NULL;
    k->live_sums(c->n, in(c, 0), w, shifts[c->variant / 2], c->got);
}

static void check_live_sums(const call *c, worst_t *w)
{
    double sum[3] = { 0 }, scale[2] = { 0 };
    for (size_t i = 0; i < c->n; i++) {
        double x = (double)in(c, 0)[i], u = c->variant & 1 ? (double)in(c, 1)[i] : 1;
        double s = (double)shifts[c->variant / 2];
        if (x == -INFINITY) continue;
        if (fabs(u) < (double)FLT_MIN) u = 0;
        sum[0] += u == 0 ? 0 : u * (x - s),
            scale[0] += u == 0 ? 0 : fabs(u) * (fabs(x) + fabs(s));
        sum[1] += u, scale[1] += fabs(u);
        sum[2]++;
    }
    for (size_t i = 0; i < 2; i++)
        if (!(scale[i] > 3e38) || isnan(sum[i]))
            note(w, i, c->got[i], sum[i], scale[i] + (double)c->n * FLUSHED);
    note(w, 2, c->got[2], sum[2], 0);
}

SPEC(live_sums, .variants = 4, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE },
     .prepare = log_probabilities);

static void run_moments(const kernel_table *k, call *c) { k->moments(c->n, in(c, 0), c->got); }

/* Entries near each other, with an offset, an outlier; tiny or huge. */
static void offsets(const call *c)
{
    static const double scale[] = { 1, 1e-3, 1e-25, 1e30, 1 }, offset[] = { 0, 1000, 0, 0, 1 };
    float *x = c->in[0];
    for (size_t i = 0; i < c->n; i++)
        x[i] = (float)(offset[c->variant] + scale[c->variant] * (double)x[i]);
    if (c->variant == 4 && c->n > 2) x[0] = 1e4f;
}

static void check_moments(const call *c, worst_t *w)
{
    static long double x[MAX_N];
    long double mean = 0, spread = 0, most = 0;
    for (size_t i = 0; i < c->n; i++) {
        x[i] = (long double)in(c, 0)[i];
        if (fabsl(x[i]) < (long double)FLT_MIN) x[i] = 0; /* read as 0 */
        mean += x[i] - x[0];
        if (fabsl(x[i]) > most) most = fabsl(x[i]);
    }
    if (c->n) mean = x[0] + mean / (long double)c->n;
    for (size_t i = 0; i < c->n; i++) spread += (x[i] - mean) * (x[i] - mean);
    if (!(fabsl(spread) <= 1e300L)) spread = NAN; /* an infinity */
    note(w, 1, c->got[1], (double)spread, (double)spread + 1e-30 * (double)(most * most));
    if (isfinite(c->got[1])) note(w, 0, c->got[0], (double)mean, (double)most + 1e-300);
}

SPEC(moments, .variants = 5, .in = { F4 }, .special = { ANY_VALUE }, .prepare = offsets);

static const float affine[][4] = {
    { 1, 0, 0.5f, 0 }, { 1, 3, -2, 0.25f }, { 0x1p-40f, 0, 1e-3f, 1 }, { 0x1p40f, -7, 1, 1 },
};

static void run_affine_emit(const kernel_table *k, call *c)
{
    const float *f = affine[c->variant / 2];
    k->affine_emit(c->n, in(c, 0), f[0], f[1], f[2], f[3], out(c, 0), store_of(c));
}

static void check_affine_emit(const call *c, worst_t *w)
{
    const float *f = affine[c->variant / 2];
    for (size_t i = 0; i < c->n; i++) {
        double u = (double)in(c, 0)[i] * (double)f[0] - (double)f[1];
        double y = (double)f[2] * u + (double)f[3];
        double scale = fabs((double)f[2]) * fabs(u) + fabs((double)f[3]) + FLUSHED;
        if (fabs(u) > (double)FLT_MAX) continue; /* overflows */
        note(w, i, (double)out(c, 0)[i], y, scale);
    }
}

SPEC(affine_emit, .variants = 8, .in = { F4 }, .out = { F4 }, .special = { ANY_FINITE },
     .alias = { 1 });

/* ---- Element by element ------------------------------------------------------------------ */

static void run_target_mix(const kernel_table *k, call *c)
{
    const float *q = c->variant & 1 ? in(c, 1) : NULL, *w = c->variant & 2 ? in(c, 2) : NULL;
    k->target_mix(c->n, in(c, 0), q, 0.9f, 0.1f / 3, w, out(c, 0));
}

static void check_target_mix(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double q = c->variant & 1 ? (double)in(c, 1)[i] : 0;
        double f = c->variant & 2 ? (double)in(c, 2)[i] : 1;
        double u = in(c, 0)[i] == -INFINITY ? 0 : (double)(0.1f / 3);
        q *= (double)0.9f;
        note(w, i, (double)out(c, 0)[i], f * (q + u), fabs(f) * (fabs(q) + fabs(u)));
    }
}

SPEC(target_mix, .variants = 4, .in = { F4, F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_VALUE & ~TINY, ANY_VALUE & ~TINY }, .alias = { 7 },
     .prepare = log_probabilities);

static const float caps[] = { 30.0f, 1.0f, 0.5f };

static void run_softcap(const kernel_table *k, call *c)
{
    k->softcap(c->n, in(c, 0), caps[c->variant], out(c, 0), out(c, 1));
}

/* The slope to its own relative precision, down to where it is flushed. */
static void check_softcap(const call *c, worst_t *w)
{
    const double cap = (double)caps[c->variant];
    for (size_t i = 0; i < c->n; i++) {
        float x = in(c, 0)[i];
        double want = x == -INFINITY ? -INFINITY : cap * tanh((double)x / cap);
        double e = exp(-2 * fabs((double)x / cap)), slope = 4 * e / ((1 + e) * (1 + e));
        if (x == -INFINITY) slope = 0;
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
        if (isnan(slope) || slope > 0x1p-120)
            note(w, i, (double)out(c, 1)[i], slope, slope * (2 + 2 * fabs((double)x / cap)));
        else
            note(w, i, out(c, 1)[i] <= 0x1p-118f ? 0 : 1, 0, 0);
    }
}

SPEC(softcap, .variants = 3, .in = { F4 }, .out = { F4, F4 }, .special = { ANY_VALUE },
     .alias = { 1, 0 });

static void run_mul(const kernel_table *k, call *c) { k->mul(c->n, in(c, 1), out(c, 0)); }

static void check_mul(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double x = (double)in(c, 1)[i], y = (double)in(c, 0)[i], want = x == 0 ? 0 : x * y;
        note(w, i, (double)out(c, 0)[i], want, fabs(want) + FLUSHED);
    }
}

SPEC(mul, .variants = 1, .in = { F4, F4 }, .out = { F4 }, .update = 1,
     .special = { ANY_FINITE, ANY_FINITE });

static void run_mask(const kernel_table *k, call *c)
{
    k->mask(c->n, in(c, 0), in(c, 1), out(c, 0));
}

static void check_mask(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        bool live = isnan(in(c, 1)[i]) || fabsf(in(c, 1)[i]) >= FLT_MIN;
        note(w, i, (double)out(c, 0)[i], live ? (double)in(c, 0)[i] : (double)-INFINITY, 0);
    }
}

static void some_zero(const call *c)
{
    float *m = c->in[1];
    for (size_t i = 0; i < c->n; i++) m[i] = uniform() < 0.4 ? 0.0f : 1.0f;
}

SPEC(mask, .variants = 1, .in = { F4, F4 }, .out = { F4 }, .special = { ANY_VALUE, ANY_VALUE },
     .alias = { 3 }, .prepare = some_zero);

static void run_scale(const kernel_table *k, call *c)
{
    k->scale(c->n, in(c, 0), c->variant ? -2.0f : 1.0f / 3, out(c, 0));
}

static void check_scale(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double want = (double)in(c, 0)[i] * (double)(c->variant ? -2.0f : 1.0f / 3);
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
}

SPEC(scale, .variants = 2, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE },
     .alias = { 1 });

static void run_add(const kernel_table *k, call *c) { k->add(c->n, in(c, 1), out(c, 0)); }

static void check_add(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double want = (double)in(c, 0)[i] + (double)in(c, 1)[i];
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
}

SPEC(add, .variants = 1, .in = { F4, F4 }, .out = { F4 }, .update = 1,
     .special = { ANY_VALUE, ANY_VALUE });

/* ---- StableMax and hinges ------------------------------------------------------------------ */

static const float inv_ts[] = { 1.0f, 0.25f, 8.0f };

/* s(z) in double of the float z that the kernels see. */
static double s_of(double z) { return z >= 0 ? 1 + z : 1 / (1 - z); }
static double log_s_of(double z) { return copysign(log1p(fabs(z)), z); }

static double z_of(const call *c, size_t i, float inv_t)
{
    float x = in(c, 0)[i];
    return fabsf(x) < FLT_MIN ? 0 : (double)(x * inv_t);
}

static void wide(const call *c)
{
    static const double spread[] = { 0.01, 1, 1e4, 1e20 };
    float *x = c->in[0];
    for (size_t i = 0; i < c->n; i++) {
        x[i] *= (float)spread[c->n % COUNT(spread)];
        if (c->n % 7 == 3) x[i] = -fabsf(x[i]);
    }
    if (c->in[1])
        for (size_t i = 0; i < c->n; i++) {
            float *q = c->in[1];
            q[i] = i % 5 == 2 ? 0.0f : fabsf(q[i]);
        }
}

static void run_stable_sum(const kernel_table *k, call *c)
{
    stable_part p = STABLE_EMPTY;
    size_t piece = c->n / 3; /* a row may come in pieces */
    k->stable_sum(piece, in(c, 0), inv_ts[c->variant], &p);
    k->stable_sum(c->n - piece, in(c, 0) + piece, inv_ts[c->variant], &p);
    c->got[0] = p.up, c->got[1] = p.down, c->got[2] = (double)p.max;
}

static void check_stable_sum(const call *c, worst_t *w)
{
    double up = 0, down = 0;
    for (size_t i = 0; i < c->n; i++) {
        double z = z_of(c, i, inv_ts[c->variant]);
        if (z < 0)
            down += s_of(z) * (double)STABLE_SCALE;
        else
            up += s_of(z) / (double)STABLE_SCALE;
    }
    if (isnan(up)) { /* what else it is does not matter */
        note(w, 0, c->got[0], NAN, 1);
        return;
    }
    note(w, 0, c->got[0], up, up);
    note(w, 1, c->got[1], down, down);
    note(w, 2, c->got[2], (double)max_of(in(c, 0), c->n), 0);
}

SPEC(stable_sum, .variants = 3, .in = { F4 }, .special = { ANY_VALUE }, .prepare = wide);

static void run_stable_dot(const kernel_table *k, call *c)
{
    k->stable_dot(c->n, in(c, 0), inv_ts[c->variant], in(c, 1), c->got);
}

static void check_stable_dot(const call *c, worst_t *w)
{
    double dot = 0, scale = 0, sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        double q = (double)in(c, 1)[i], z = z_of(c, i, inv_ts[c->variant]);
        if (fabs(q) < (double)FLT_MIN || z == INFINITY) {
            if (z == INFINITY && q > 0) return; /* the caller's affair */
            continue;
        }
        dot += q * log_s_of(z), scale += q * fabs(log_s_of(z)), sum += q;
    }
    if (sum > 3e36) return;
    note(w, 0, c->got[0], dot, scale + (double)c->n * FLUSHED);
    note(w, 1, c->got[1], sum, sum);
}

SPEC(stable_dot, .variants = 3, .in = { F4, F4 }, .special = { ANY_VALUE, ZEROS | TINY | A_NAN },
     .prepare = wide);

/* As stablemax.c makes it, for a factor of 0.7 and a sum as rows of this size may have. */
static stable_out stable_out_for(const call *c)
{
    bool below = c->variant >= 3;
    double a = below ? 0.7e30 : 0.7 / 5000, num = below ? (double)STABLE_SCALE : 1;
    return (stable_out){ .inv_t = inv_ts[c->variant % 3],
                         .up = (float)a,
                         .up_scaled = (float)(a * (double)STABLE_SCALE),
                         .num = (float)num,
                         .down = (float)(a / num),
                         .log_hi = 8.5f,
                         .log_lo = 2e-7f };
}

static double a_of(const stable_out *e) { return (double)e->down * (double)e->num; }

static void run_stable_prob(const kernel_table *k, call *c)
{
    const stable_out e = stable_out_for(c);
    k->stable_prob(c->n, in(c, 0), &e, out(c, 0), c->n % 2 ? STORE_STREAM : STORE_CACHED);
}

static void check_stable_prob(const call *c, worst_t *w)
{
    const stable_out e = stable_out_for(c);
    for (size_t i = 0; i < c->n; i++) {
        double z = z_of(c, i, e.inv_t), p = a_of(&e) * s_of(z);
        if (c->variant >= 3 && z >= 0) continue; /* rows of z < 0 alone */
        note(w, i, (double)out(c, 0)[i], p, p);
    }
}

SPEC(stable_prob, .variants = 6, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE & ~PLUS_INF },
     .alias = { 1 }, .prepare = wide);

static void run_stable_log(const kernel_table *k, call *c)
{
    const stable_out e = stable_out_for(c);
    k->stable_log(c->n, in(c, 0), &e, out(c, 0), c->n % 2 ? STORE_STREAM : STORE_CACHED);
}

static void check_stable_log(const call *c, worst_t *w)
{
    const stable_out e = stable_out_for(c);
    for (size_t i = 0; i < c->n; i++) {
        double l = log_s_of(z_of(c, i, e.inv_t)), lse = (double)e.log_hi + (double)e.log_lo;
        if (l == INFINITY) continue;
        note(w, i, (double)out(c, 0)[i], l - lse, fabs(l) + fabs(lse));
    }
}

SPEC(stable_log, .variants = 3, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE },
     .alias = { 1 }, .prepare = wide);

static void run_stable_grad(const kernel_table *k, call *c)
{
    const stable_out e = stable_out_for(c);
    const float *q = c->n % 3 ? in(c, 1) : NULL;
    k->stable_grad(c->n, in(c, 0), &e, -0.5f, q, out(c, 0), c->n % 2 ? STORE_STREAM : STORE_CACHED);
}

static void check_stable_grad(const call *c, worst_t *w)
{
    const stable_out e = stable_out_for(c);
    for (size_t i = 0; i < c->n; i++) {
        double z = z_of(c, i, e.inv_t), u = 1 + fabs(z), q = c->n % 3 ? (double)in(c, 1)[i] : 0;
        double p = z >= 0 ? a_of(&e) : a_of(&e) / u / u, b = -0.5 * q / u;
        if (isnan(z) || (c->variant >= 3 && z >= 0)) continue; /* a is NaN then; z < 0 alone */
        if (fabs(q) < (double)FLT_MIN) b = 0;
        note(w, i, (double)out(c, 0)[i], p + b, p + fabs(b) + FLUSHED);
    }
}

SPEC(stable_grad, .variants = 6, .in = { F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ZEROS | TINY }, .alias = { 1 }, .prepare = wide);

static const struct {
    float ref, margin;
} hinges[] = { { 0, 1 }, { 2.5f, 1 }, { -3, 0 } };

static double hinge_of(const call *c, size_t i)
{
    float x = in(c, 0)[i];
    if (x == -INFINITY) return 0;
    if (fabsf(x) < FLT_MIN) x = 0;
    float h = (x - hinges[c->variant % 3].ref) + hinges[c->variant % 3].margin;
    return isnan(h) ? NAN : h > 0 ? (double)h : 0; /* as float32 has it: sums are what is tested */
}

static void run_hinge_sum(const kernel_table *k, call *c)
{
    hinge_part p = HINGE_EMPTY;
    size_t piece = c->n / 3;
    k->hinge_sum(piece, in(c, 0), hinges[c->variant].ref, hinges[c->variant].margin, &p);
    k->hinge_sum(c->n - piece, in(c, 0) + piece, hinges[c->variant].ref, hinges[c->variant].margin, &p);
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
    if (square < 3e38 || isinf(square)) note(w, 1, c->got[1], square, square + (double)c->n * FLUSHED);
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
static const float stream_factor = -0.75f;

static void run_stream(const kernel_table *k, call *c)
{
    /* Whole lines alone: what lies before and after is made here. */
    const size_t n = c->n, skew = (uintptr_t)c->in[0] / 4 % 16, head = skew ? 16 - skew : 0;
    const float *x = in(c, 0);
    float *y = out(c, 0);
    bool lines = n >= 16 + head && ((uintptr_t)y & 63) == ((uintptr_t)x & 63);
    const size_t whole = lines ? (n - head) / 16 * 16 : 0;
    for (size_t i = 0; i < n; i++)
        if (!lines || i < head || i >= head + whole) y[i] = stream_factor * x[i];
    if (lines) k->stream(whole, x + head, stream_factor, y + head);
}

static void check_stream(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double want = (double)stream_factor * (double)in(c, 0)[i];
        note(w, i, (double)out(c, 0)[i], want, fabs(want) + FLUSHED);
    }
}

SPEC(stream, .variants = 1, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE });

/* ---- 16-bit types: values are the affair of test_convert.c -------------------------------- */

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

/* ---- Updates: inputs w, m, v (and g) become outputs w, m, v ------------------------------------ */

static const adamw_arg adam_args[] = {
    { 1, 0, 0.9f, 0.1f, 0.999f, 0.001f, 1e-4f, 1e-3f, 1, 1e-8f },
    { 0.125f, 0.01f, 0.9f, 0.1f, 0.95f, 0.05f, 0, 2e-3f, 4.4721f, 1e-8f },
    { 1, 0, 0, 1, 0, 1, 0, 1e-3f, 1, 0.5f },
};

static void squares(const call *c)
{
    float *v = c->in[2];
    for (size_t i = 0; i < c->n; i++) v[i] *= v[i];
}

static void run_adamw(const kernel_table *k, call *c)
{
    k->adamw(c->n, out(c, 0), in(c, 3), out(c, 1), out(c, 2), &adam_args[c->variant]);
}

static void check_adamw(const call *c, worst_t *w)
{
    const adamw_arg *a = &adam_args[c->variant];
    for (size_t i = 0; i < c->n; i++) {
        double weight = (double)in(c, 0)[i], m = (double)in(c, 1)[i], v = (double)in(c, 2)[i];
        double g1 = (double)a->grad_scale * (double)in(c, 3)[i],
               g2 = (double)a->decay_grad * weight;
        double g = g1 + g2, first = (double)a->beta1 * m + (double)a->one_beta1 * g;
        double second = (double)a->beta2 * v + (double)a->one_beta2 * g * g;
        double down = sqrt(second) * (double)a->root + (double)a->eps;
        double ratio = (double)a->step * first / down, keep = (1 - (double)a->shrink) * weight;
        /* A gradient that cancels leaves its rounding in all three. */
        double loss =
            (fabs(g1) + fabs(g2)) / fabs(g) - 1 > 0 ? (fabs(g1) + fabs(g2)) / fabs(g) : 1;
        double first_size =
            fabs((double)a->beta1 * m) + fabs((double)a->one_beta1) * (fabs(g1) + fabs(g2));
        note(w, i, (double)out(c, 1)[i], first, first_size);
        note(w, i, (double)out(c, 2)[i], second, fabs(second) * loss);
        note(w, i, (double)out(c, 0)[i], keep - ratio,
             fabs(keep) + fabs((double)a->step) * first_size / down * loss);
    }
}

SPEC(adamw, .variants = 3, .in = { F4, F4, F4, F4 }, .out = { F4, F4, F4 }, .update = 3,
     .special = { A_NAN, A_NAN | ZEROS, ZEROS | TINY, A_NAN }, .prepare = squares);

static const sgd_arg sgd_args[] = {
    { 1, 0, 0, 0.1f, 0, 1, 0 },
    { 0.5f, 0.01f, 0.001f, 0.1f, 0.9f, 0.1f, 0 },
    { 0.5f, 0.01f, 0, 0.1f, 0.9f, 1, 1 },
};

static void run_sgd(const kernel_table *k, call *c)
{
    k->sgd(c->n, out(c, 0), in(c, 2), c->variant ? out(c, 1) : NULL, &sgd_args[c->variant]);
}

static void check_sgd(const call *c, worst_t *w)
{
    const sgd_arg *a = &sgd_args[c->variant];
    const double mu = (double)a->momentum, fresh = (double)a->one_dampening;
    for (size_t i = 0; i < c->n; i++) {
        double weight = (double)in(c, 0)[i], v = (double)in(c, 1)[i];
        double g1 = (double)a->grad_scale * (double)in(c, 2)[i],
               g2 = (double)a->decay_grad * weight;
        double g = g1 + g2, size = fabs(g1) + fabs(g2), mean = mu * v + fresh * g;
        double mean_size = fabs(mu * v) + fabs(fresh) * size;
        double move = !c->variant ? g : a->nesterov ? mu * mean + g : mean;
        double move_size = !c->variant ? size : a->nesterov ? mu * mean_size + size : mean_size;
        if (!c->variant) mean = v;
        note(w, i, (double)out(c, 1)[i], mean, mean_size);
        note(w, i, (double)out(c, 0)[i],
             (1 - (double)a->shrink) * weight - (double)a->lr * move,
             fabs((1 - (double)a->shrink) * weight) + (double)a->lr * move_size);
    }
}

SPEC(sgd, .variants = 3, .in = { F4, F4, F4 }, .out = { F4, F4 }, .update = 2,
     .special = { A_NAN | ZEROS | TINY, A_NAN | ZEROS | TINY, ANY_VALUE });

/* ---- All of them -------------------------------------------------------------------------- */

int main(void)
{
#define AT(kernel, level, text)                                                                \
    {                                                                                          \
#kernel " " text, check_kernel, NULL, NULL, &(kernel_item) { &spec_##kernel, level }   \
    }
#define K(result, kernel, args)                                                                \
    AT(kernel, SLG_ISA_PORTABLE, "portable"), AT(kernel, SLG_ISA_AVX2, "avx2"),                \
        AT(kernel, SLG_ISA_AVX512, "avx512"),
    const struct CMUnitTest tests[] = { SLG_KERNELS(K) };
#undef K
#undef AT
    return cmocka_run_group_tests(tests, NULL, NULL);
}
