/*
 * mdp_policy.h - the inside of slg_mdp_policy. mdp_policy.c makes it and says what it plays,
 * mdp_step.c ends an episode, mdp_state.c turns it into bytes, mdp_run.c is the loop.
 */
#ifndef SLG_ONLINE_MDP_POLICY_H
#define SLG_ONLINE_MDP_POLICY_H

#include "linear_mdp.h"

/*
 * Of the reduced estimator without a table, a layer keeps vectors (g, up, down), d + 2 numbers
 * each: the pair phi costs up x where x = phi'g > 0, and down x elsewhere. A visit is
 * (S visited, L, L - H), a sample (S phi_m, 0, H w_m).
 */
typedef struct kept_layer {
    double *v;
    int64_t capacity; /* vectors */
} kept_layer;

struct slg_mdp_policy {
    slg_ctx *ctx;
    slg_mdp_policy_opts opts;
    table_shape shape; /* states, actions 0 without a table */
    int64_t d;         /* 0: one-hot */
    int64_t episodes;
    int64_t count; /* numbers of `state` */
    double
        *state; /* C [H, S, A]; or sums of S visited L [H, d] where plain, then of S [H, d, d]
                      where there is a bonus */
    double *p;  /* [H, S, A], of the costs as they are, where `current` */
    bool current;
    double *features; /* [S, A, d], or a layer each; NULL where one-hot */
    bool per_layer;
    kept_layer *kept; /* [H]; NULL: not reduced, or a table */
    int64_t kept_count;
};

static inline bool is_table(const slg_mdp_policy *p) { return p->shape.states > 0; }

static inline int64_t pairs_of(const slg_mdp_policy *p)
{
    return p->shape.states * p->shape.actions;
}

/* Where the sums of a layer are. */
static inline double *vector_sum(const slg_mdp_policy *p, int64_t h)
{
    return p->state + h * p->d;
}
static inline double *matrix_sum(const slg_mdp_policy *p, int64_t h)
{
    return p->state + (p->kept ? 0 : p->shape.layers * p->d) + h * p->d * p->d;
}

/* Brings p->p up to date. */
void table_policy(slg_mdp_policy *p);

/* Room for so many vectors a layer, of which kept_count stay. */
slg_status keep_room(slg_mdp_policy *p, int64_t count);

slg_status state_alloc(slg_ctx *ctx, int64_t count, double **to);

/* An episode's parts, checked; see slg_mdp_policy_step. */
slg_status policy_step(slg_mdp_policy *p, const slg_mdp_episode *episode);

#endif
