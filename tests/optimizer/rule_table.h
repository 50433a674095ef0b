/*
 * rule_table.h - every update rule with six sets of options and its formula in double: what
 * the tests of this directory run over. A new rule is a struct, a reference and a line of
 * the table.
 */
#ifndef TESTS_OPTIMIZER_RULE_TABLE_H
#define TESTS_OPTIMIZER_RULE_TABLE_H

#include <math.h>

#include "softlogit/softlogit.h"

enum { RULE_VARIANTS = 6 };

typedef union any_opts {
    slg_sgd_opts sgd;
    slg_adamw_opts adamw;
    slg_optimistic_opts optimistic;
    slg_nadam_opts nadam;
    slg_rmsprop_opts rmsprop;
    slg_lion_opts lion;
    slg_egd_opts egd;
    slg_adafactor_opts adafactor;
} any_opts;

/* A weight and its state, of the formulas. */
typedef struct ref_state {
    double w, a, b, c, product;
} ref_state;

typedef struct rule_case {
    const char *name;
    int32_t kind, other_kind;
    /* Options; variant 0 keeps the most state. */
    void (*options)(int variant, any_opts *o);
    int (*arrays)(const any_opts *o);
    /* Step t = 1, 2, ... of the header's formula for a gradient g. NULL: a rule that sees whole
       tensors, whose formula is in a test of its own. */
    void (*step)(const any_opts *o, int t, double lr, double g, ref_state *s);
    double error; /* of a weight after 200 steps, of its largest value on the way */
    double lr;    /* about which the tests vary it */
} rule_case;

static inline int one_array(const any_opts *o)
{
    (void)o;
    return 1;
}

static inline int two_arrays(const any_opts *o)
{
    (void)o;
    return 2;
}

/* What weight decay does to w, and to g where it enters that. */
static inline double decayed(int decoupled, double lr, double decay, double g, double *w)
{
    if (!decoupled) return g + decay * *w;
    *w *= 1 - lr * decay;
    return g;
}

/* ---- SGD --------------------------------------------------------------------------------- */

static inline void sgd_options(int variant, any_opts *any)
{
    slg_sgd_opts *o = &any->sgd;
    slg_sgd_opts_init(o, sizeof *o);
    if (variant != 1 && variant != 5) o->momentum = 0.9;
    if (variant == 2) o->dampening = 0.3, o->weight_decay = 0.1;
    if (variant == 3) o->nesterov = 1, o->weight_decay = 0.1;
    if (variant == 4) o->nesterov = 1, o->decoupled = 1, o->weight_decay = 0.5;
    if (variant == 5) o->decoupled = 1, o->weight_decay = 0.1;
}

static inline int sgd_arrays(const any_opts *o) { return o->sgd.momentum > 0; }

static inline void sgd_step(const any_opts *any, int t, double lr, double g, ref_state *s)
{
    const slg_sgd_opts *o = &any->sgd;
    g = decayed(o->decoupled, lr, o->weight_decay, g, &s->w);
    s->a = t == 1 ? g : o->momentum * s->a + (1 - o->dampening) * g;
    if (o->momentum == 0) s->a = g;
    s->w -= lr * (o->nesterov ? g + o->momentum * s->a : s->a);
}

/* ---- Adam -------------------------------------------------------------------------------- */

static inline void adamw_options(int variant, any_opts *any)
{
    slg_adamw_opts *o = &any->adamw;
    slg_adamw_opts_init(o, sizeof *o);
    if (variant == 0) o->amsgrad = 1;
    if (variant == 1) o->decoupled = 0, o->weight_decay = 0.1;
    if (variant == 2) o->weight_decay = 0;
    if (variant == 3) o->beta1 = 0, o->beta2 = 0, o->eps = 0.1;
    if (variant == 4) o->beta1 = 0.99, o->beta2 = 0.9, o->weight_decay = 0.5;
    if (variant == 5) o->beta1 = 0.5, o->eps = 1e-3, o->decoupled = 0, o->amsgrad = 1;
}

static inline int adamw_arrays(const any_opts *o) { return 2 + o->adamw.amsgrad; }

static inline void moments(double b1, double b2, double g, ref_state *s)
{
    s->a = b1 * s->a + (1 - b1) * g;
    s->b = b2 * s->b + (1 - b2) * g * g;
}

static inline void adamw_step(const any_opts *any, int t, double lr, double g, ref_state *s)
{
    const slg_adamw_opts *o = &any->adamw;
    g = decayed(o->decoupled, lr, o->weight_decay, g, &s->w);
    moments(o->beta1, o->beta2, g, s);
    s->c = fmax(s->c, s->b);
    const double v = o->amsgrad ? s->c : s->b;
    s->w -= lr * (s->a / (1 - pow(o->beta1, t))) / (sqrt(v / (1 - pow(o->beta2, t))) + o->eps);
}

static inline void nadam_options(int variant, any_opts *any)
{
    slg_nadam_opts *o = &any->nadam;
    slg_nadam_opts_init(o, sizeof *o);
    if (variant == 1) o->weight_decay = 0.1;
    if (variant == 2) o->weight_decay = 0.3, o->decoupled = 1;
    if (variant == 3) o->beta1 = 0, o->eps = 0.01;
    if (variant == 4) o->momentum_decay = 1, o->beta2 = 0.9;
    if (variant == 5) o->momentum_decay = 0, o->beta1 = 0.5;
}

static inline void nadam_step(const any_opts *any, int t, double lr, double g, ref_state *s)
{
    const slg_nadam_opts *o = &any->nadam;
    const double mu = o->beta1 * (1 - 0.5 * pow(0.96, t * o->momentum_decay));
    const double next = o->beta1 * (1 - 0.5 * pow(0.96, (t + 1) * o->momentum_decay));
    g = decayed(o->decoupled, lr, o->weight_decay, g, &s->w);
    moments(o->beta1, o->beta2, g, s);
    s->product = (t == 1 ? 1 : s->product) * mu;
    const double down = sqrt(s->b / (1 - pow(o->beta2, t))) + o->eps;
    s->w -=
        lr * ((1 - mu) / (1 - s->product) * g + next / (1 - s->product * next) * s->a) / down;
}

/* ---- Others ------------------------------------------------------------------------------ */

static inline void optimistic_options(int variant, any_opts *any)
{
    slg_optimistic_opts *o = &any->optimistic;
    slg_optimistic_opts_init(o, sizeof *o);
    if (variant == 1) o->weight_decay = 0.1;
    if (variant == 2) o->weight_decay = 0.1, o->decoupled = 1;
    if (variant == 3) o->optimism = 0;
    if (variant == 4) o->optimism = 0.5;
    if (variant == 5) o->optimism = 3, o->weight_decay = 0.3;
}

static inline void optimistic_step(const any_opts *any, int t, double lr, double g,
                                   ref_state *s)
{
    const slg_optimistic_opts *o = &any->optimistic;
    (void)t;
    g = decayed(o->decoupled, lr, o->weight_decay, g, &s->w);
    s->w -= lr * (g + o->optimism * (g - s->a));
    s->a = g;
}

static inline void rmsprop_options(int variant, any_opts *any)
{
    slg_rmsprop_opts *o = &any->rmsprop;
    slg_rmsprop_opts_init(o, sizeof *o);
    o->eps = 1e-3;
    if (variant == 0) o->centered = 1, o->momentum = 0.9;
    if (variant == 1) o->weight_decay = 0.1;
    if (variant == 2) o->momentum = 0.5, o->decoupled = 1, o->weight_decay = 0.1;
    if (variant == 3) o->alpha = 0.5;
    if (variant == 4) o->centered = 1, o->weight_decay = 0.2, o->alpha = 0.9;
    if (variant == 5) o->alpha = 0, o->eps = 0.1;
}

static inline int rmsprop_arrays(const any_opts *o)
{
    return 1 + o->rmsprop.centered + (o->rmsprop.momentum > 0);
}

static inline void rmsprop_step(const any_opts *any, int t, double lr, double g, ref_state *s)
{
    const slg_rmsprop_opts *o = &any->rmsprop;
    (void)t;
    g = decayed(o->decoupled, lr, o->weight_decay, g, &s->w);
    s->a = o->alpha * s->a + (1 - o->alpha) * g * g;
    s->b = o->alpha * s->b + (1 - o->alpha) * g;
    const double square = o->centered ? fmax(0, s->a - s->b * s->b) : s->a;
    s->c = o->momentum * s->c + g / (sqrt(square) + o->eps);
    s->w -= lr * s->c;
}

static inline void lion_options(int variant, any_opts *any)
{
    slg_lion_opts *o = &any->lion;
    slg_lion_opts_init(o, sizeof *o);
    if (variant == 1) o->weight_decay = 1;
    if (variant == 2) o->weight_decay = 0.1, o->decoupled = 0;
    if (variant == 3) o->beta1 = 0;
    if (variant == 4) o->beta1 = 0.5, o->beta2 = 0.5;
    if (variant == 5) o->beta2 = 0, o->weight_decay = 3;
}

static inline void lion_step(const any_opts *any, int t, double lr, double g, ref_state *s)
{
    const slg_lion_opts *o = &any->lion;
    (void)t;
    g = decayed(o->decoupled, lr, o->weight_decay, g, &s->w);
    const double way = o->beta1 * s->a + (1 - o->beta1) * g;
    s->w -= way == 0 ? 0 : copysign(lr, way);
    s->a = o->beta2 * s->a + (1 - o->beta2) * g;
}

static inline void egd_options(int variant, any_opts *any)
{
    slg_egd_opts *o = &any->egd;
    slg_egd_opts_init(o, sizeof *o);
    if (variant == 0) o->momentum = 0.5;
    if (variant == 2) o->weight_decay = 0.1;
    if (variant == 3) o->floor = 0.1, o->cap = 2;
    if (variant == 4) o->momentum = 0.9, o->weight_decay = 1;
    if (variant == 5) o->cap = 1;
}

static inline int egd_arrays(const any_opts *o) { return o->egd.momentum > 0; }

static inline void egd_step(const any_opts *any, int t, double lr, double g, ref_state *s)
{
    const slg_egd_opts *o = &any->egd;
    (void)t;
    s->w *= 1 - lr * o->weight_decay;
    s->a = o->momentum * s->a - lr * g * (s->w < 0 ? -1 : 1);
    s->w *= exp(s->a);
    if (s->w != 0) s->w = copysign(fmin(o->cap, fmax(o->floor, fabs(s->w))), s->w);
}

static inline void adafactor_options(int variant, any_opts *any)
{
    slg_adafactor_opts *o = &any->adafactor;
    slg_adafactor_opts_init(o, sizeof *o);
    if (variant == 0) o->beta1 = 0.9;
    if (variant == 2) o->relative_step = 0, o->weight_decay = 0.1;
    if (variant == 3) o->scale_parameter = 0, o->clip_threshold = INFINITY;
    if (variant == 4) o->beta1 = 0.5, o->decay_rate = 0.5, o->clip_threshold = 0.5;
    if (variant == 4) o->relative_step = 0, o->weight_decay = 0.3;
    if (variant == 5) o->decay_rate = 0, o->eps1 = 1e-3, o->eps2 = 2, o->relative_step = 0;
}

static inline int adafactor_arrays(const any_opts *o) { return 1 + (o->adafactor.beta1 > 0); }

/* ---- The table --------------------------------------------------------------------------- */

static const rule_case rule_cases[] = {
    { "sgd", SLG_SGD, SLG_ADAMW, sgd_options, sgd_arrays, sgd_step, 5e-6, 0.01 },
    { "adamw", SLG_ADAMW, SLG_SGD, adamw_options, adamw_arrays, adamw_step, 5e-6, 0.01 },
    { "optimistic", SLG_OPTIMISTIC, SLG_SGD, optimistic_options, one_array, optimistic_step,
      3e-6, 0.05 },
    { "nadam", SLG_NADAM, SLG_ADAMW, nadam_options, two_arrays, nadam_step, 5e-6, 0.01 },
    { "rmsprop", SLG_RMSPROP, SLG_SGD, rmsprop_options, rmsprop_arrays, rmsprop_step, 3e-5,
      0.001 },
    { "lion", SLG_LION, SLG_SGD, lion_options, one_array, lion_step, 5e-6, 0.001 },
    { "egd", SLG_EGD, SLG_SGD, egd_options, egd_arrays, egd_step, 1e-5, 0.01 },
    { "adafactor", SLG_ADAFACTOR, SLG_ADAMW, adafactor_options, adafactor_arrays, NULL, 0,
      0.01 },
};

#endif
