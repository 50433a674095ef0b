/*
 * Updates: inputs w, m, v (and g) become outputs w, m, v.
 */
#include "kernel_spec.h"

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

static const optimistic_arg optimistic_args[] = {
    { 1, 0, 0, 0.2f, 0.1f },
    { 0.5f, 0.01f, 0.001f, 0.125f, 0.025f },
};

static void run_optimistic(const kernel_table *k, call *c)
{
    k->optimistic(c->n, out(c, 0), in(c, 2), out(c, 1), &optimistic_args[c->variant]);
}

static void check_optimistic(const call *c, worst_t *w)
{
    const optimistic_arg *a = &optimistic_args[c->variant];
    const double step = (double)a->step, back = (double)a->back;
    for (size_t i = 0; i < c->n; i++) {
        double weight = (double)in(c, 0)[i], last = (double)in(c, 1)[i];
        double g1 = (double)a->grad_scale * (double)in(c, 2)[i],
               g2 = (double)a->decay_grad * weight;
        double g = g1 + g2, size = fabs(g1) + fabs(g2);
        double keep = (1 - (double)a->shrink) * weight;
        note(w, i, (double)out(c, 1)[i], g, size);
        note(w, i, (double)out(c, 0)[i], keep - step * g + back * last,
             fabs(keep) + step * size + back * fabs(last));
    }
}

SPEC(optimistic, .variants = 2, .in = { F4, F4, F4 }, .out = { F4, F4 }, .update = 2,
     .special = { A_NAN | ZEROS | TINY, A_NAN | ZEROS | TINY, ANY_VALUE });

KERNEL_TESTS(UPDATE)
