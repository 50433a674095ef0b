/*
 * Updates: input 0 is w, input 1 the gradient, the others state; outputs 0.. are w and the
 * state. Variants 3 i + j: arguments i, gradient j. State in bf16 is tests/optimizer's affair.
 */
#include "kernel_spec.h"

/* Plain; with decay; all that a chain can do. */
static const update_grad grads[] = {
    { true, 1, 0, INFINITY, 1, 0, 0, 0 },
    { true, 1, 0, INFINITY, 0.125f, 0, 0, 0.01f },
    { false, 0.75f, -0.25f, 2, 0.5f, 0.125f, 1e-9f, 0.02f },
};

enum { GRADS = COUNT(grads) };

static const void *args_of(const call *c, const void *args, size_t size)
{
    return (const char *)args + (size_t)(c->variant / GRADS) * size;
}

#define ARGS(type, table) const type *a = args_of(c, table, sizeof *a)

/* The part for arrays of state that are outputs 1 to 3, those whose bit is set. */
static update_part part_of(call *c, uint32_t arrays)
{
    update_part p = { .grad = grads[c->variant % GRADS] };
    for (int i = 0; i < 3; i++) p.state[i] = arrays >> i & 1 ? c->out[i + 1] : NULL;
    return p;
}

/* The gradient that a rule sees; *size: of what was added up. */
static double seen(const call *c, size_t i, double *size)
{
    const update_grad *m = &grads[c->variant % GRADS];
    const double w = (double)in(c, 0)[i], g = (double)in(c, 1)[i];
    double u = g, s = fabs(g);
    if (!m->plain) {
        u = (double)m->scale * (g + (double)m->along * w);
        s = fabs((double)m->scale) * (fabs(g) + fabs((double)m->along * w));
        if (fabs(u) > (double)m->clip) u = copysign((double)m->clip, u);
        u += ((double)m->after + (double)m->after_low) * w;
        s += fabs((double)m->after * w);
    }
    *size = fabs((double)m->post) * s + fabs((double)m->decay * w);
    return (double)m->post * u + (double)m->decay * w;
}

/* How much larger a rounding is beside a gradient that has cancelled. */
static double loss(double g, double size) { return size > fabs(g) ? size / fabs(g) : 1; }

/* Squares, as second moments are, in inputs 3 and 4; not below the square of a mean. */
static void square_moments(const call *c)
{
    float *v = c->in[3], *top = c->in[4];
    for (size_t i = 0; i < c->n; i++) v[i] *= v[i], top[i] *= top[i];
}

static void untouched(const call *c, worst_t *w, int array)
{
    for (size_t i = 0; i < c->n; i++)
        note(w, i, (double)out(c, array)[i], (double)in(c, array + 1)[i], 1e-30);
}

/* ---- Adam -------------------------------------------------------------------------------- */

static const adam_arg adam_args[] = {
    { 1e-4f, 0.9f, 0.1f, 0.999f, 0.001f, 1e-3f, 0, 1, 1e-8f },
    { 0, 0.9f, 0.1f, 0.95f, 0.05f, 2e-3f, 1e-3f, 4.4721f, 1e-8f },
    { 0, 0, 1, 0, 1, 1e-3f, 0, 1, 0.5f }, /* with the largest second moment */
};

static bool largest(const call *c) { return c->variant / GRADS == 2; }

/* Outputs: w, m, v, top; inputs w, g, m, v, top. */
static void copy_state(call *c, int arrays)
{
    for (int i = 1; i <= arrays; i++) memcpy(c->out[i], c->in[i + 1], c->n * F4);
}

static void run_adam(const kernel_table *k, call *c)
{
    ARGS(adam_arg, adam_args);
    copy_state(c, 3);
    const update_part p = part_of(c, largest(c) ? 7 : 3);
    k->adam(c->n, out(c, 0), in(c, 1), &p, a);
}

static void check_adam(const call *c, worst_t *w)
{
    ARGS(adam_arg, adam_args);
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), weight = (double)in(c, 0)[i];
        double m = (double)a->beta1 * (double)in(c, 2)[i];
        double v = (double)a->beta2 * (double)in(c, 3)[i] + (double)a->one_beta2 * g * g;
        double first = m + (double)a->one_beta1 * g;
        double first_size = fabs(m) + (double)a->one_beta1 * size, worse = loss(g, size);
        note(w, i, (double)out(c, 1)[i], first, first_size);
        note(w, i, (double)out(c, 2)[i], v, fabs(v) * worse);
        if (largest(c)) {
            v = isnan(v) || v > (double)in(c, 4)[i] ? v : (double)in(c, 4)[i];
            note(w, i, (double)out(c, 3)[i], v, fabs(v) * worse);
        }
        double down = sqrt(v) * (double)a->root + (double)a->eps;
        double keep = (1 - (double)a->shrink) * weight;
        double up = (double)a->step * first + (double)a->fresh * g;
        double up_size = (double)a->step * first_size + (double)a->fresh * size;
        note(w, i, (double)out(c, 0)[i], keep - up / down, fabs(keep) + up_size / down * worse);
    }
    if (!largest(c)) untouched(c, w, 3);
}

SPEC(adam, .variants = 9, .in = { F4, F4, F4, F4, F4 }, .out = { F4, F4, F4, F4 }, .update = 1,
     .special = { A_NAN, A_NAN, A_NAN | ZEROS, ZEROS | TINY, ZEROS },
     .prepare = square_moments);

/* ---- SGD --------------------------------------------------------------------------------- */

static const sgd_arg sgd_args[] = {
    { 0, 0.1f, 0, 1, 0 },
    { 0.001f, 0.1f, 0.9f, 0.1f, 0 },
    { 0, 0.1f, 0.9f, 1, 1 },
};

static bool with_momentum(const call *c) { return c->variant >= GRADS; }

static void run_sgd(const kernel_table *k, call *c)
{
    ARGS(sgd_arg, sgd_args);
    copy_state(c, 1);
    const update_part p = part_of(c, with_momentum(c));
    k->sgd(c->n, out(c, 0), in(c, 1), &p, a);
}

static void check_sgd(const call *c, worst_t *w)
{
    ARGS(sgd_arg, sgd_args);
    const double mu = (double)a->momentum, fresh = (double)a->one_dampening;
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), keep = (1 - (double)a->shrink) * in(c, 0)[i];
        double v = mu * (double)in(c, 2)[i], mean = v + fresh * g;
        double mean_size = fabs(v) + fabs(fresh) * size, move = g, move_size = size;
        if (with_momentum(c)) {
            move = a->nesterov ? mu * mean + g : mean;
            move_size = a->nesterov ? mu * mean_size + size : mean_size;
            note(w, i, (double)out(c, 1)[i], mean, mean_size);
        }
        note(w, i, (double)out(c, 0)[i], keep - (double)a->lr * move,
             fabs(keep) + (double)a->lr * move_size);
    }
    if (!with_momentum(c)) untouched(c, w, 1);
}

SPEC(sgd, .variants = 9, .in = { F4, F4, F4 }, .out = { F4, F4 }, .update = 1,
     .special = { A_NAN | ZEROS | TINY, A_NAN | ZEROS | TINY, A_NAN | ZEROS });

/* ---- Optimistic -------------------------------------------------------------------------- */

static const optimistic_arg optimistic_args[] = {
    { 0, 0.2f, 0.1f },
    { 0.001f, 0.125f, 0.025f },
};

static void run_optimistic(const kernel_table *k, call *c)
{
    ARGS(optimistic_arg, optimistic_args);
    copy_state(c, 1);
    const update_part p = part_of(c, 1);
    k->optimistic(c->n, out(c, 0), in(c, 1), &p, a);
}

static void check_optimistic(const call *c, worst_t *w)
{
    ARGS(optimistic_arg, optimistic_args);
    const double step = (double)a->step, back = (double)a->back;
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), last = (double)in(c, 2)[i];
        double keep = (1 - (double)a->shrink) * in(c, 0)[i];
        note(w, i, (double)out(c, 1)[i], g, size);
        note(w, i, (double)out(c, 0)[i], keep - step * g + back * last,
             fabs(keep) + step * size + back * fabs(last));
    }
}

SPEC(optimistic, .variants = 6, .in = { F4, F4, F4 }, .out = { F4, F4 }, .update = 1,
     .special = { A_NAN | ZEROS | TINY, A_NAN | ZEROS | TINY, A_NAN | ZEROS });

/* ---- RMSprop ----------------------------------------------------------------------------- */

static const rmsprop_arg rmsprop_args[] = {
    { 1e-4f, 1e-2f, 0.99f, 0.01f, 1e-8f, 0 },
    { 0, 1e-2f, 0.5f, 0.5f, 1e-3f, 0.9f },  /* momentum */
    { 0, 1e-2f, 0.9f, 0.1f, 0.125f, 0.9f }, /* and centred */
};

static uint32_t rmsprop_arrays(const call *c)
{
    static const uint32_t arrays[] = { 1, 5, 7 };
    return arrays[c->variant / GRADS];
}

/* Inputs w, g, mean of squares, mean, momentum: the mean of squares is no less than the
   mean's, so that their difference is well away from 0. */
static void rmsprop_moments(const call *c)
{
    float *square = c->in[2];
    const float *mean = c->in[3];
    for (size_t i = 0; i < c->n; i++)
        square[i] = square[i] * square[i] + 2 * mean[i] * mean[i] + 1;
}

static void run_rmsprop(const kernel_table *k, call *c)
{
    ARGS(rmsprop_arg, rmsprop_args);
    copy_state(c, 3);
    const update_part p = part_of(c, rmsprop_arrays(c));
    k->rmsprop(c->n, out(c, 0), in(c, 1), &p, a);
}

static void check_rmsprop(const call *c, worst_t *w)
{
    ARGS(rmsprop_arg, rmsprop_args);
    const uint32_t arrays = rmsprop_arrays(c);
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), worse = loss(g, size);
        double keep = (1 - (double)a->shrink) * in(c, 0)[i];
        double v = (double)a->alpha * in(c, 2)[i] + (double)a->one_alpha * g * g, root = v;
        note(w, i, (double)out(c, 1)[i], v, v * worse);
        if (arrays & 2) {
            double m = (double)a->alpha * in(c, 3)[i], mean = m + (double)a->one_alpha * g;
            double mean_size = fabs(m) + (double)a->one_alpha * size;
            note(w, i, (double)out(c, 2)[i], mean, mean_size);
            worse *= (v + mean_size * mean_size) / (v - mean * mean);
            root = v - mean * mean;
        }
        double move = g / (sqrt(root) + (double)a->eps);
        double move_size = size / (sqrt(root) + (double)a->eps) * worse;
        if (arrays & 4) {
            double b = (double)a->momentum * in(c, 4)[i];
            move += b, move_size += fabs(b);
            note(w, i, (double)out(c, 3)[i], move, move_size);
        }
        note(w, i, (double)out(c, 0)[i], keep - (double)a->lr * move,
             fabs(keep) + (double)a->lr * move_size);
    }
    if (!(arrays & 2)) untouched(c, w, 2);
    if (!(arrays & 4)) untouched(c, w, 3);
}

SPEC(rmsprop, .variants = 9, .in = { F4, F4, F4, F4, F4 }, .out = { F4, F4, F4, F4 },
     .update = 1, .special = { A_NAN | ZEROS, A_NAN | ZEROS, 0, ZEROS, A_NAN | ZEROS },
     .prepare = rmsprop_moments);

/* ---- Lion -------------------------------------------------------------------------------- */

static const lion_arg lion_args[] = {
    { 1e-3f, 0.125f, 0.9f, 0.1f, 0.99f, 0.01f },
    { 0, 0.25f, 0, 1, 0.5f, 0.5f },
};

static void run_lion(const kernel_table *k, call *c)
{
    ARGS(lion_arg, lion_args);
    copy_state(c, 1);
    const update_part p = part_of(c, 1);
    k->lion(c->n, out(c, 0), in(c, 1), &p, a);
}

static void check_lion(const call *c, worst_t *w)
{
    ARGS(lion_arg, lion_args);
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), m = (double)in(c, 2)[i];
        double keep = (1 - (double)a->shrink) * in(c, 0)[i], lr = (double)a->lr;
        double way = (double)a->beta1 * m + (double)a->one_beta1 * g;
        double way_size = fabs((double)a->beta1 * m) + (double)a->one_beta1 * size;
        double move = way == 0 || isnan(way) ? way : copysign(lr, way), got = out(c, 0)[i];
        note(w, i, (double)out(c, 1)[i], (double)a->beta2 * m + (double)a->one_beta2 * g,
             fabs((double)a->beta2 * m) + (double)a->one_beta2 * size);
        /* A sum that cancels down to its rounding may have either sign. */
        if (fabs(way) < way_size * 0x1p-21 && fabs(got - keep) <= lr * (1 + 1e-6)) continue;
        note(w, i, got, keep - move, fabs(keep) + lr);
    }
}

SPEC(lion, .variants = 6, .in = { F4, F4, F4 }, .out = { F4, F4 }, .update = 1,
     .special = { A_NAN | ZEROS, A_NAN | ZEROS | PLUS_INF | MINUS_INF, A_NAN | ZEROS });

/* ---- Exponentiated gradient -------------------------------------------------------------- */

static const egd_arg egd_args[] = {
    { 0, 0.5f, 0, 0, INFINITY },
    { 0.01f, 4, 0.5f, 0.001f, 100 },
    { 0, 30, 0, 0, INFINITY },
};

static bool egd_momentum(const call *c) { return c->variant / GRADS == 1; }

static void run_egd(const kernel_table *k, call *c)
{
    ARGS(egd_arg, egd_args);
    copy_state(c, 1);
    const update_part p = part_of(c, egd_momentum(c));
    k->egd(c->n, out(c, 0), in(c, 1), &p, a);
}

static void check_egd(const call *c, worst_t *w)
{
    ARGS(egd_arg, egd_args);
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), weight = (double)in(c, 0)[i];
        const bool zero = fabs(weight) < (double)FLT_MIN;
        double power = -(double)a->lr * g * (signbit(weight) ? -1 : 1);
        double power_size = (double)a->lr * size;
        if (egd_momentum(c)) {
            double e = (double)a->momentum * in(c, 2)[i];
            power += e, power_size += fabs(e);
            note(w, i, (double)out(c, 1)[i], power, power_size);
        }
        if (fabs(power) > 174) power = copysign(174, power);
        double want = fabs(weight) * (1 - (double)a->shrink) * exp(power);
        double scale = want * (1 + power_size);
        if (want > (double)a->cap) want = (double)a->cap;
        if (want < (double)a->floor) want = (double)a->floor;
        if (zero) want = 0 * exp(power / 2);
        note(w, i, (double)out(c, 0)[i], copysign(want, weight), scale);
        if (!isnan(want) && signbit(out(c, 0)[i]) != signbit(in(c, 0)[i]))
            note(w, i, -1, 1, 1e-30); /* a sign has changed */
    }
    if (!egd_momentum(c)) untouched(c, w, 1);
}

SPEC(egd, .variants = 9, .in = { F4, F4, F4 }, .out = { F4, F4 }, .update = 1,
     .special = { A_NAN | ZEROS, A_NAN | ZEROS | HUGE_UP | HUGE_DOWN, A_NAN | ZEROS });

/* ---- Adafactor --------------------------------------------------------------------------- */

static const factor_arg factor_args[] = {
    { 0, 0.01f, 1.5f, 0, 1 },
    { 1e-3f, 0.1f, 0.25f, 0.9f, 0.1f },
};

/* Input 2 is the second moment by columns, and not too near 0. */
static void factor_moments(const call *c)
{
    float *v = c->in[2];
    for (size_t i = 0; i < c->n; i++) v[i] = v[i] * v[i] + 1e-3f;
}

static bool factor_momentum(const call *c) { return c->variant / GRADS == 1; }

static void run_factor_step(const kernel_table *k, call *c)
{
    ARGS(factor_arg, factor_args);
    copy_state(c, 2);
    update_part p = part_of(c, factor_momentum(c) ? 3 : 1);
    k->factor_step(c->n, out(c, 0), in(c, 1), &p, a);
}

static void check_factor_step(const call *c, worst_t *w)
{
    ARGS(factor_arg, factor_args);
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), root = sqrt((double)in(c, 2)[i]);
        double keep = (1 - (double)a->shrink) * in(c, 0)[i];
        double move = (double)a->row * g / root, move_size = (double)a->row * size / root;
        if (factor_momentum(c)) {
            double m = (double)a->beta1 * in(c, 3)[i];
            move = m + (double)a->one_beta1 * move;
            move_size = fabs(m) + (double)a->one_beta1 * move_size;
            note(w, i, (double)out(c, 2)[i], move, move_size);
        }
        note(w, i, (double)out(c, 0)[i], keep - (double)a->step * move,
             fabs(keep) + (double)a->step * move_size);
    }
    untouched(c, w, 1);
    if (!factor_momentum(c)) untouched(c, w, 2);
}

SPEC(factor_step, .variants = 6, .in = { F4, F4, F4, F4 }, .out = { F4, F4, F4 }, .update = 1,
     .special = { A_NAN | ZEROS, A_NAN | ZEROS, 0, A_NAN | ZEROS }, .prepare = factor_moments);

/* Variants past GRADS: a plain gradient, without the weights. */
static const float *factor_weights(const call *c)
{
    return c->variant < GRADS ? in(c, 0) : NULL;
}

/* The sums: of moves, and of the weights' squares where they are wanted. */
static void check_factor_sums(const call *c, worst_t *w, double sum, double size)
{
    long double squares = 0; /* its own rounding must not show */
    for (size_t i = 0; i < c->n && factor_weights(c); i++)
        squares += (long double)in(c, 0)[i] * in(c, 0)[i];
    note(w, 0, c->got[0], sum, size);
    note(w, 1, c->got[1], (double)squares, (double)squares * 0x1p-25); /* of 2^-49 */
}

static void run_factor_squares(const kernel_table *k, call *c)
{
    memcpy(c->out[0], c->in[2], c->n * F8);
    k->factor_squares(c->n, factor_weights(c), in(c, 1), &grads[c->variant % GRADS], c->out[0],
                      c->got);
}

static void check_factor_squares(const call *c, worst_t *w)
{
    const double *before = c->in[2], *after = c->out[0];
    double sum = 0, all = 0;
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size);
        if (!factor_weights(c)) size = fabs(g = (double)in(c, 1)[i]);
        note(w, i, after[i], before[i] + g * g, fabs(before[i]) * 0x1p-28 + fabs(g) * size);
        sum += g * g, all += fabs(g) * size;
    }
    check_factor_sums(c, w, sum, all);
}

SPEC(factor_squares, .variants = GRADS + 1, .in = { F4, F4, F8 }, .out = { F8 },
     .special = { A_NAN | ZEROS, A_NAN | ZEROS });

static const float factor_fresh[] = { 1, 0.125f, 1e-4f, 0.5f };

static void run_factor_full(const kernel_table *k, call *c)
{
    memcpy(c->out[0], c->in[2], c->n * F4);
    k->factor_full(c->n, factor_weights(c), in(c, 1), &grads[c->variant % GRADS], 1e-30f,
                   factor_fresh[c->variant], c->out[0], c->got);
}

static void check_factor_full(const call *c, worst_t *w)
{
    const double fresh = (double)factor_fresh[c->variant];
    double sum = 0, all = 0;
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), old = (double)in(c, 2)[i];
        if (!factor_weights(c)) size = fabs(g = (double)in(c, 1)[i]);
        double square = g * g + 1e-30, v = (1 - fresh) * old + fresh * square;
        /* What the gradient's rounding does to v, and v's to the sum. */
        double v_size = v + fresh * fabs(g) * size;
        note(w, i, (double)out(c, 0)[i], v, v_size);
        sum += g * g / v, all += fabs(g) * size / v + g * g / v * (v_size / v);
    }
    check_factor_sums(c, w, sum, all);
}

SPEC(factor_full, .variants = GRADS + 1, .in = { F4, F4, F4 }, .out = { F4 },
     .special = { A_NAN | ZEROS, A_NAN | ZEROS, A_NAN }, .prepare = factor_moments);

static void run_factor_norm(const kernel_table *k, call *c)
{
    c->got[0] = k->factor_norm(c->n, factor_weights(c), in(c, 1), &grads[c->variant % GRADS],
                               1.5f, in(c, 2));
}

static void check_factor_norm(const call *c, worst_t *w)
{
    double sum = 0, all = 0;
    for (size_t i = 0; i < c->n; i++) {
        double size, g = seen(c, i, &size), by = 2.25 / (double)in(c, 2)[i];
        if (!factor_weights(c)) size = fabs(g = (double)in(c, 1)[i]);
        sum += g * g * by, all += fabs(g) * size * by;
    }
    note(w, 0, c->got[0], sum, all);
}

SPEC(factor_norm, .variants = GRADS + 1, .in = { F4, F4, F4 },
     .special = { A_NAN | ZEROS, A_NAN | ZEROS, A_NAN }, .prepare = factor_moments);

/* ---- What chains need -------------------------------------------------------------------- */

static const gradient_map maps[] = {
    { 1, 0, INFINITY, 1, 0 },
    { 0.75, -0.25, 2, 0.5, 0.125 },
    { 1, 0, INFINITY, 3, -0.3 },
};

static void run_update_dots(const kernel_table *k, call *c)
{
    k->update_dots(c->n, in(c, 0), in(c, 1), &maps[c->variant], c->got);
}

static void check_update_dots(const call *c, worst_t *w)
{
    const gradient_map *m = &maps[c->variant];
    long double want[3] = { 0 }, size = 0; /* its own rounding must not show */
    for (size_t i = 0; i < c->n; i++) {
        double weight = (double)in(c, 0)[i], u = m->scale * (in(c, 1)[i] + m->along * weight);
        if (fabs(u) > m->clip) u = copysign(m->clip, u);
        u = m->post * (u + m->after * weight);
        want[0] += (long double)weight * u, want[1] += (long double)weight * weight;
        want[2] += (long double)u * u, size += fabsl((long double)weight * u);
    }
    /* In double: units of 2^-53. */
    note(w, 0, c->got[0], (double)want[0], (double)size * 0x1p-29);
    note(w, 1, c->got[1], (double)want[1], (double)want[1] * 0x1p-29);
    note(w, 2, c->got[2], (double)want[2], (double)want[2] * 0x1p-29);
}

SPEC(update_dots, .variants = 3, .in = { F4, F4 }, .special = { A_NAN | ZEROS, ANY_FINITE });

static void run_clip(const kernel_table *k, call *c)
{
    k->clip(c->n, c->variant ? 0.0f : 2.5f, out(c, 0));
}

static void check_clip(const call *c, worst_t *w)
{
    const double limit = c->variant ? 0 : 2.5;
    for (size_t i = 0; i < c->n; i++) {
        double x = (double)in(c, 0)[i], want = fabs(x) > limit ? copysign(limit, x) : x;
        note(w, i, (double)out(c, 0)[i], want, 1e-30);
    }
}

SPEC(clip, .variants = 2, .in = { F4 }, .out = { F4 }, .update = 1, .special = { ANY_VALUE });

KERNEL_TESTS(UPDATE)
