/*
 * mdp_forms.h - policies of every form, and episodes for them at random.
 */
#ifndef TESTS_ONLINE_MDP_FORMS_H
#define TESTS_ONLINE_MDP_FORMS_H

#include "mdp_test.h"

enum { H = 3, S = 4, A = 3, D = 5, N = H * S * A, M = 6 };

/* Forms of the policy: a table one-hot, of given features, of features by layer; no table. Each
   plain and reduced, without and with a bonus. */
enum { ONE_HOT, FEATURES, BY_LAYER, LINEAR, KINDS, FORMS = 4 * KINDS };

static double features[H * S * A * D], transition[N * S], start[S];

static inline bool linear(int form_) { return form_ % KINDS == LINEAR; }

static inline slg_mdp_policy_opts opts_of(int form_)
{
    slg_mdp_policy_opts o;
    slg_mdp_policy_opts_init(&o, sizeof o);
    o.horizon = H, o.eta = 0.3, o.gamma = 0.05;
    o.estimator = form_ / KINDS % 2, o.beta = form_ / KINDS / 2 ? 0.2 : 0;
    o.rule = form_ % 2;
    o.states = linear(form_) ? 0 : S, o.actions = A;
    o.dim = form_ % KINDS == ONE_HOT ? 0 : D;
    return o;
}

static inline slg_mdp_policy *policy_new(slg_ctx *ctx, const slg_mdp_policy_opts *o, int form_)
{
    slg_mdp_policy *p;
    const slg_tensor same = F64_3(features, S, A, D), own = F64_4(features, H, S, A, D);
    const slg_tensor *const f[KINDS] = { NULL, &same, &own, NULL };
    OK(ctx, slg_mdp_policy_create(ctx, o, f[form_ % KINDS], &p));
    return p;
}

static inline slg_mdp_policy *make(slg_ctx *ctx, int form_)
{
    const slg_mdp_policy_opts o = opts_of(form_);
    return policy_new(ctx, &o, form_);
}

static inline void random_world(void)
{
    unit_features(H * S * A, D, features);
    distributions(N, S, transition), distributions(1, S, start);
}

/* An episode at random, and its tensors. */
typedef struct episode {
    double losses[H], occupancy[N], visited[H * D], samples[H * M * D], weight[H * M];
    int32_t pair[H * 2];
    slg_tensor t_losses, t_visited, t_occupancy, t_samples, t_weight, t_transition;
    slg_mdp_episode e;
} episode;

static inline void random_episode(episode *x, int form_)
{
    uniforms(H, x->losses), uniforms(N, x->occupancy), uniforms(H * M, x->weight);
    unit_features(H, D, x->visited), unit_features(H * M, D, x->samples);
    for (int h = 0; h < H; h++)
        x->pair[2 * h] = (int32_t)below(S), x->pair[2 * h + 1] = (int32_t)below(A);
    x->t_losses = F64_1(x->losses, H);
    x->t_visited =
        linear(form_) ? F64_2(x->visited, H, D) : slg_tensor_2d(x->pair, SLG_I32, H, 2);
    x->t_occupancy = F64_3(x->occupancy, H, S, A), x->t_weight = F64_2(x->weight, H, M);
    x->t_samples = F64_3(x->samples, H, M, D), x->t_transition = F64_4(transition, H, S, A, S);
    slg_mdp_episode_init(&x->e, sizeof x->e);
    x->e.losses = &x->t_losses, x->e.visited = &x->t_visited;
    if (linear(form_))
        x->e.samples = &x->t_samples, x->e.weight = &x->t_weight;
    else
        x->e.occupancy = &x->t_occupancy, x->e.transition = &x->t_transition;
}

static inline void table_of(slg_ctx *ctx, slg_mdp_policy *p, double *pi, double *costs)
{
    slg_tensor a = F64_3(pi, H, S, A), b = F64_3(costs, H, S, A);
    OK(ctx, slg_mdp_policy_table(p, pi ? &a : NULL, costs ? &b : NULL));
}

/* At every state by its features. */
static inline void at_all(slg_ctx *ctx, slg_mdp_policy *p, const double *bonus, double *pi,
                          double *costs)
{
    for (int64_t h = 0; h < H; h++) {
        slg_tensor phi = F64_3(features + h * S * A * D, S, A, D);
        slg_tensor b = F64_2(bonus + (bonus ? h * S * A : 0), S, A);
        slg_tensor a = F64_2(pi + h * S * A, S, A), c = F64_2(costs + h * S * A, S, A);
        OK(ctx, slg_mdp_policy_at(p, h, &phi, bonus ? &b : NULL, &a, &c));
    }
}

static inline void both(slg_ctx *ctx, slg_mdp_policy *p, int form_, double *pi, double *costs)
{
    if (linear(form_))
        at_all(ctx, p, NULL, pi, costs);
    else
        table_of(ctx, p, pi, costs);
}

static inline unsigned char *exported(slg_ctx *ctx, slg_mdp_policy *p, int64_t *bytes)
{
    OK(ctx, slg_mdp_policy_export(p, NULL, 0, bytes));
    unsigned char *s = malloc((size_t)*bytes);
    assert_non_null(s);
    OK(ctx, slg_mdp_policy_export(p, s, *bytes, bytes));
    return s;
}

#endif
