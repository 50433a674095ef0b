/*
 * Element by element.
 */
#include "kernel_spec.h"

static const float affine[][4] = {
    { 1, 0, 0.5f, 0 },
    { 1, 3, -2, 0.25f },
    { 0x1p-40f, 0, 1e-3f, 1 },
    { 0x1p40f, -7, 1, 1 },
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

static void run_lincomb(const kernel_table *k, call *c)
{
    k->lincomb(c->n, -0.3, in(c, 1), c->variant ? 1.7 : 1.0, out(c, 0));
}

static void check_lincomb(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        double want =
            -0.3 * flushed(in(c, 1)[i]) + (c->variant ? 1.7 : 1.0) * flushed(in(c, 0)[i]);
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
}

SPEC(lincomb, .variants = 2, .in = { F4, F4 }, .out = { F4 }, .update = 1,
     .special = { ANY_VALUE, ANY_VALUE });

/* The sums come from input 1, and go to output 1 as floats. */
static void run_accumulate(const kernel_table *k, call *c)
{
    double *sum = malloc((c->n + 1) * sizeof *sum);
    assert_non_null(sum);
    for (size_t i = 0; i < c->n; i++) sum[i] = flushed(in(c, 1)[i]);
    sum[c->n] = 7;
    k->accumulate(c->n, in(c, 0), sum, out(c, 0));
    assert_true(sum[c->n] == 7);
    for (size_t i = 0; i < c->n; i++) {
        const double want = flushed(in(c, 0)[i]) + flushed(in(c, 1)[i]);
        assert_true(sum[i] == want || (isnan(sum[i]) && isnan(want)));
        out(c, 1)[i] = (float)sum[i];
    }
    free(sum);
}

static void check_accumulate(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const double want = flushed(in(c, 0)[i]) + flushed(in(c, 1)[i]);
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
        note(w, i, (double)out(c, 1)[i], want, fabs(want));
    }
}

SPEC(accumulate, .variants = 1, .in = { F4, F4 }, .out = { F4, F4 },
     .special = { ANY_VALUE, ANY_VALUE });

/* The numbers that are added to come from input 0, and go to output 0 as floats. */
static void run_sign_add(const kernel_table *k, call *c)
{
    const size_t words = (c->n + 63) / 64;
    uint64_t *signs = malloc((words + 1) * sizeof *signs);
    double *y = malloc((c->n + 1) * sizeof *y);
    assert_non_null(signs), assert_non_null(y);
    for (size_t i = 0; i < words; i++) signs[i] = 0x9E3779B97F4A7C15u * (i + 1);
    for (size_t i = 0; i < c->n; i++) y[i] = flushed(in(c, 0)[i]);
    y[c->n] = 7;
    k->sign_add(c->n, signs, 0.3, y);
    assert_true(y[c->n] == 7);
    for (size_t i = 0; i < c->n; i++) {
        const bool plus = signs[i / 64] >> (i % 64) & 1;
        const double want = flushed(in(c, 0)[i]) + (plus ? 0.3 : -0.3);
        assert_true(y[i] == want || (isnan(y[i]) && isnan(want)));
        out(c, 0)[i] = (float)y[i];
    }
    free(signs), free(y);
}

static void check_sign_add(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const uint64_t word = 0x9E3779B97F4A7C15u * (i / 64 + 1);
        const double want = flushed(in(c, 0)[i]) + (word >> (i % 64) & 1 ? 0.3 : -0.3);
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
}

SPEC(sign_add, .variants = 1, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE });

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

KERNEL_TESTS(MAP)
