/*
 * Softmax and log-softmax of whole rows, forward and backward.
 */
#include "exp_spec.h"

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
    if (c->got[0] == 0) { /* it need not refuse a maximum just below its limit */
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

KERNEL_TESTS(SOFTMAX)
