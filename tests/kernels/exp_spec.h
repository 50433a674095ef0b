/*
 * exp_spec.h - specs of kernels with an exponential: arguments, references, rows of logits.
 */
#ifndef TESTS_KERNELS_EXP_SPEC_H
#define TESTS_KERNELS_EXP_SPEC_H

#include "kernel_spec.h"
#include "softmax/parts.h"

/* What the exponential is taken of; it grows with x. */
typedef double (*argument)(const call *c, float x);

/* sum exp(z(x)) = sum * exp(top), for a maximum that is finite */
typedef struct row_sum {
    double top, sum;
} row_sum;

static inline row_sum sum_of(const call *c, const float *x, argument z)
{
    row_sum s = { z(c, max_of(x, c->n)), 0 };
    for (size_t i = 0; i < c->n; i++) s.sum += exp(z(c, x[i]) - s.top);
    return s;
}

static inline double lse_of(row_sum s) { return s.top + log(s.sum); }

/* Temperatures and `pre` of the variants. */
static const struct {
    double t;
    float pre;
} args[] = {
    { 1, 0 }, { 0.7, 0 }, { 7, 50 }, { 0.03, 0 }, { 100, -3 }, { 1, 2.5f },
};

static inline exp_arg arg_of(const call *c)
{
    size_t v = (size_t)c->variant % COUNT(args);
    return exp_arg_of(args[v].t, args[v].pre);
}

static inline double reduced(const call *c, float x)
{
    size_t v = (size_t)c->variant % COUNT(args);
    return (double)(x - args[v].pre) / args[v].t;
}

/* Some of every kind: plain, wide, with masked classes. */
static inline void logits(const call *c)
{
    float *x = c->in[0];
    const double spread[] = { 1, 10, 300 };
    const double s = spread[(c->n + (size_t)c->variant) % 3];
    for (size_t i = 0; i < c->n; i++) {
        x[i] = (float)(s * (double)x[i]);
        if (c->n % 5 == 4 && i % 3 == 1) x[i] = -INFINITY;
    }
}

static inline void check_part(const call *c, worst_t *w, const exp_arg *arg)
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

/* y = a exp(z) 2^-ref + c, with z within 2^30 of ref, as pass 1 leaves it. */
static inline exp_out out_of(const call *c)
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

#endif
