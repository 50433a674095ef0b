/*
 * Class by class, with a sigmoid: binary cross-entropy and divergences.
 */
#include "kernel_spec.h"

static double softplus(double a) { return fmax(a, 0) + log1p(exp(-fabs(a))); }
static double sigmoid(double a) { return a > 0 ? 1 / (1 + exp(-a)) : exp(a) / (1 + exp(a)); }

/* Sums of a block that float32 cannot hold: the caller adds up class by class. */
static void note_sum(const call *c, worst_t *w, double sum)
{
    if (!(sum > 1e38)) note(w, 0, c->got[0], sum, sum + 1e-35);
    note(w, 0, c->got[1], c->got[0], 0); /* the same bits */
}

/* A slope, whose bound is another than the sum's: both are judged by the latter. */
#define NOTE_SLOPE(kernel, i, want, scale)                                                     \
    note(w, i, (double)out(c, 0)[i], want,                                                     \
         (scale) * (BOUND_##kernel##_slope / BOUND_##kernel) + FLUSHED)

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

static const float *weight_of(const call *c, int i)
{
    return c->variant & (1 << (i - 2)) ? in(c, i) : NULL;
}
static float bce_inv(const call *c) { return c->variant < 4 ? 1.0f : 0.4f; }

/* The sum without the gradient, which must have the same bits, in got[0]; its own in got[1]. */
static void run_bce(const kernel_table *k, call *c)
{
    const float *pos = weight_of(c, 2), *w = weight_of(c, 3);
    c->got[0] = k->bce(c->n, in(c, 0), bce_inv(c), in(c, 1), pos, w, -0.75f, NULL, 0);
    c->got[1] =
        k->bce(c->n, in(c, 0), bce_inv(c), in(c, 1), pos, w, -0.75f, out(c, 0), store_of(c));
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
        bool live = bce_terms(c, i, &z, &up, &down);
        double on = live ? down * sigmoid(z) : 0, off = live ? up * sigmoid(-z) : 0;
        NOTE_SLOPE(bce, i, -0.75 * (on - off), fabs(on) + fabs(off));
        if (!live) continue;
        if (up != 0) sum += up * softplus(-z);
        if (down != 0) sum += down * softplus(z);
        if (isnan(z)) sum = NAN;
    }
    note_sum(c, w, sum);
}

SPEC(bce, .variants = 8, .in = { F4, F4, F4, F4 }, .out = { F4 }, .special = { ANY_VALUE },
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
    c->got[0] = k->log_cosh(c->n, in(c, 0), in(c, 1), &p, 1.5f, NULL, 0);
    c->got[1] = k->log_cosh(c->n, in(c, 0), in(c, 1), &p, 1.5f, out(c, 0), store_of(c));
}

static void check_log_cosh(const call *c, worst_t *w)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        double d = apart(c, i), s = sinh(d / 4);
        double want = 1.5 * tanh(d / 2);
        NOTE_SLOPE(log_cosh, i, want, fabs(want));
        sum += fabs(d) < 2 ? log1p(2 * s * s) : fabs(d) / 2 + log1p(exp(-fabs(d))) - log(2);
    }
    note_sum(c, w, sum);
}

static void run_binary_kl(const kernel_table *k, call *c)
{
    const logit_pair p = logit_pair_of(c);
    c->got[0] = k->binary_kl(c->n, in(c, 0), in(c, 1), &p, -2.0f, NULL, 0);
    c->got[1] = k->binary_kl(c->n, in(c, 0), in(c, 1), &p, -2.0f, out(c, 0), store_of(c));
}

/* By log1p((1 - q) expm1(d)) - (1 - q) d of what is small; long double carries
   the cancellation. */
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

/* The slope relative to the difference itself, however near the two are. */
static void check_slope_of_kl(const call *c, size_t i, worst_t *w)
{
    const logit_pair p = logit_pair_of(c);
    double a = (double)(in(c, 0)[i] * p.inv_x), b = (double)(in(c, 1)[i] * p.inv_y);
    double d = apart(c, i), want;
    if (in(c, 0)[i] * p.ratio == in(c, 1)[i])
        want = 0;
    else if (d > 0 || isnan(d))
        want = sigmoid(a) * sigmoid(-b) * -expm1(-d);
    else
        want = sigmoid(-a) * sigmoid(b) * expm1(d);
    /* Of arguments that are large the rounding shows in the exponential. */
    double size =
        isfinite(a) && isfinite(b) ? 1 + 0.5 * (fmin(fabs(a), 90) + fmin(fabs(b), 90)) : 1;
    NOTE_SLOPE(binary_kl, i, -2 * want, 2 * fabs(want) * size);
}

static void check_binary_kl(const call *c, worst_t *w)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        sum += kl_of(c, i);
        check_slope_of_kl(c, i, w);
    }
    note_sum(c, w, sum);
}

SPEC(log_cosh, .variants = 6, .in = { F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_VALUE }, .alias = { 3 }, .prepare = teacher_like);
SPEC(binary_kl, .variants = 6, .in = { F4, F4 }, .out = { F4 },
     .special = { ANY_VALUE, ANY_VALUE }, .alias = { 3 }, .prepare = teacher_like);

/* Gaps of all sizes, some closed, some crossed. */
static void boundaries(const call *c)
{
    static const float gap[] = { 1, 1e-4f, 10, 0, 1e-7f, -1, 40, 1e-30f };
    const float *a = c->in[0];
    float *b = c->in[1];
    for (size_t i = 0; i < c->n; i++) b[i] = a[i] + fabsf(b[i]) * gap[(i + c->n) % COUNT(gap)];
}

/* Variants: each output is wanted, and is not. */
static void run_ordinal(const kernel_table *k, call *c)
{
    const ordinal_terms first = { .log_p = out(c, 0), .p = out(c, 1), .up = out(c, 2) },
                        then = { .down = out(c, 0), .slope = out(c, 1), .up = out(c, 2) };
    k->ordinal(c->n, in(c, 0), in(c, 1), c->variant ? &then : &first);
}

static double log_class(double a, double b, double d)
{
    const double gap = d < 0.5 ? log(-expm1(-d)) : log1p(-exp(-d));
    return d > 0 ? -softplus(-b) - softplus(a) + gap : isnan(d) ? NAN : -INFINITY;
}

static void check_ordinal(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n; i++) {
        const double a = flushed(in(c, 0)[i]), b = flushed(in(c, 1)[i]);
        const double d = a == b ? 0 : flushed((float)b - (float)a); /* as float32 has it */
        const double r = d > 0 ? 1 / expm1(d) : isnan(d) ? NAN : 0, s = sigmoid(-fabs(b));
        const double up = d <= 0 ? 0 : sigmoid(-b) + r, down = d <= 0 ? 0 : sigmoid(a) + r;
        const double log_p = log_class(a, b, d);
        const double p =
            d < 0 ? sigmoid(a) * sigmoid(-b) * expm1(d) : sigmoid(b) * sigmoid(-a) * -expm1(-d);
        note(w, i, (double)out(c, 2)[i], up, up + FLUSHED);
        if (c->variant) {
            note(w, i, (double)out(c, 0)[i], down, down + FLUSHED);
            note(w, i, (double)out(c, 1)[i], s * (1 - s), s);
        } else {
            note(w, i, (double)out(c, 0)[i], log_p, fabs(log_p));
            note(w, i, (double)out(c, 1)[i], p, fabs(p));
        }
    }
}

SPEC(ordinal, .variants = 2, .in = { F4, F4 }, .out = { F4, F4, F4 },
     .special = { ANY_VALUE, ANY_VALUE }, .prepare = boundaries);

KERNEL_TESTS(BINARY)
