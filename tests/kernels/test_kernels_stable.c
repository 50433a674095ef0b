/*
 * StableMax.
 */
#include "kernel_spec.h"

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

SPEC(stable_dot, .variants = 3, .in = { F4, F4 },
     .special = { ANY_VALUE, ZEROS | TINY | A_NAN }, .prepare = wide);

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

SPEC(stable_prob, .variants = 6, .in = { F4 }, .out = { F4 },
     .special = { ANY_VALUE & ~PLUS_INF }, .alias = { 1 }, .prepare = wide);

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
    k->stable_grad(c->n, in(c, 0), &e, -0.5f, q, out(c, 0),
                   c->n % 2 ? STORE_STREAM : STORE_CACHED);
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

KERNEL_TESTS(STABLE)
