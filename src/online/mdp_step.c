/*
 * mdp_step.c - the end of an episode: see mdp.h. What it adds to the costs is made first, and
 * joins them where all of it is finite.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "mdp_policy.h"

static const slg_mdp_episode no_episode = { .size = sizeof(slg_mdp_episode) };

void slg_mdp_episode_init(slg_mdp_episode *episode, size_t size)
{
    options_init(episode, size, &no_episode, sizeof no_episode);
}

/* L_h, the losses from layer h on. */
static slg_status losses_to_go(slg_mdp_policy *p, const slg_tensor *losses, double **to)
{
    const int64_t layers = p->shape.layers;
    SLG_TRY(input_of(p->ctx, "losses", losses, DT_REAL, 1, &layers));
    double *l = *to = tensor_doubles(p->ctx, losses);
    if (!l) return SLG_ERR_MEMORY;
    for (int64_t h = layers - 1; h >= 0; h--) {
        if (!(l[h] >= 0 && l[h] <= 1))
            return slg_fail(p->ctx, SLG_ERR_RANGE, "losses[%lld] is %g, must be in [0, 1]",
                            (long long)h, l[h]);
        if (h < layers - 1) l[h] += l[h + 1];
    }
    return SLG_OK;
}

static slg_status finite_sums(slg_mdp_policy *p, int64_t n, const double *c, const double *more)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(c[i] + more[i]))
            return slg_fail(p->ctx, SLG_ERR_RANGE,
                            "costs would be %g: features and the sum of costs must be finite",
                            c[i] + more[i]);
    return SLG_OK;
}

/* ---- A table ---------------------------------------------------------------------------- */

typedef struct table_episode {
    double *to_go;     /* [H] */
    int64_t *pair;     /* [H] s A + a of what was visited */
    double *occupancy; /* [H, S, A], a layer sums to 1, or 0 */
    double *costs;     /* [H, S, A] what the episode adds */
    double *width;     /* as costs; NULL: no bonus */
} table_episode;

static slg_status visited_pairs(slg_mdp_policy *p, const slg_tensor *visited, int64_t **to)
{
    const int64_t shape[2] = { p->shape.layers, 2 };
    SLG_TRY(input_of(p->ctx, "visited", visited, DT_INT, 2, shape));
    const rows m = rows_of(visited);
    *to = arena_alloc(p->ctx, (size_t)shape[0], sizeof **to);
    if (!*to) return SLG_ERR_MEMORY;
    for (int64_t h = 0; h < shape[0]; h++) {
        const int64_t s = rows_get_int(&m, h, 0), a = rows_get_int(&m, h, 1);
        if (s < 0 || s >= p->shape.states || a < 0 || a >= p->shape.actions)
            return slg_fail(p->ctx, SLG_ERR_RANGE,
                            "visited[%lld] is state %lld, action %lld, of %lld and %lld",
                            (long long)h, (long long)s, (long long)a,
                            (long long)p->shape.states, (long long)p->shape.actions);
        (*to)[h] = s * p->shape.actions + a;
    }
    return SLG_OK;
}

static slg_status table_parts(slg_mdp_policy *p, const slg_mdp_episode *e, table_episode *t)
{
    const int64_t shape[3] = { p->shape.layers, p->shape.states, p->shape.actions };
    const int64_t pairs = pairs_of(p);
    const size_t all = (size_t)p->count;
    if (e->samples || e->weight)
        return slg_fail(p->ctx, SLG_ERR_SHAPE, "%s is given: a table takes occupancy",
                        e->samples ? "samples" : "weight");
    SLG_TRY(losses_to_go(p, e->losses, &t->to_go));
    SLG_TRY(visited_pairs(p, e->visited, &t->pair));
    SLG_TRY(input_of(p->ctx, "occupancy", e->occupancy, DT_REAL | DT_INT, 3, shape));
    if (p->opts.beta > 0) SLG_TRY(transition_check(p->ctx, &p->shape, e->transition));
    t->occupancy = tensor_doubles(p->ctx, e->occupancy);
    t->costs = arena_alloc(p->ctx, all, sizeof *t->costs);
    if (!t->occupancy || !t->costs) return SLG_ERR_MEMORY;
    if (p->opts.beta > 0 && !(t->width = arena_alloc(p->ctx, all, sizeof *t->width)))
        return SLG_ERR_MEMORY;
    for (int64_t h = 0; h < shape[0]; h++)
        SLG_TRY(weigh(p->ctx, "occupancy of a layer", pairs, true, t->occupancy + h * pairs));
    memset(t->costs, 0, all * sizeof *t->costs);
    return SLG_OK;
}

/* One-hot: S is diagonal, q is 0 but at the visit and nowhere negative, so that both
   estimators are one. */
static void one_hot(slg_mdp_policy *p, const table_episode *t)
{
    const int64_t pairs = pairs_of(p);
    for (int64_t h = 0; h < p->shape.layers; h++) {
        const int64_t at = h * pairs + t->pair[h];
        t->costs[at] = t->to_go[h] / (p->opts.gamma + t->occupancy[at]);
    }
    for (int64_t i = 0; t->width && i < p->count; i++)
        t->width[i] = 1 / (p->opts.gamma + t->occupancy[i]);
}

static slg_status by_features(slg_mdp_policy *p, const table_episode *t)
{
    slg_ctx *ctx = p->ctx;
    const int64_t d = p->d, pairs = pairs_of(p);
    double *sigma = arena_alloc(ctx, (size_t)(d * d), sizeof *sigma);
    double *inverse = arena_alloc(ctx, (size_t)(d * d), sizeof *inverse);
    if (!sigma || !inverse) return SLG_ERR_MEMORY;
    for (int64_t h = 0; h < p->shape.layers; h++) {
        double *phi = p->features + (p->per_layer ? h * pairs * d : 0);
        const slg_tensor view = slg_tensor_2d(phi, SLG_F64, pairs, d);
        const rows m = rows_of(&view);
        const bool reduced = p->opts.estimator == SLG_Q_REDUCED;
        double *costs = t->costs + h * pairs;
        q_problem q = { .phi = &m, .n = pairs, .d = d, .m = reduced ? pairs : 0 };
        SLG_TRY(covariance(ctx, &m, 0, pairs, t->occupancy + h * pairs, false, sigma));
        SLG_TRY(covariance_inverse(ctx, d, p->opts.gamma, sigma, inverse));
        q.visited = phi + t->pair[h] * d, q.inverse = inverse;
        q.samples = phi, q.weight = t->occupancy + h * pairs;
        q.loss = t->to_go[h], q.horizon = (double)p->shape.layers;
        q.plain = reduced ? NULL : costs, q.reduced = reduced ? costs : NULL;
        q.width = t->width ? t->width + h * pairs : NULL;
        SLG_TRY(linear_estimates(ctx, &q));
    }
    return SLG_OK;
}

/* Takes the dilated bonus off the costs. */
static slg_status less_bonus(slg_mdp_policy *p, const slg_tensor *transition,
                             const table_episode *t)
{
    const int64_t states = p->shape.layers * p->shape.states;
    double *value = arena_alloc(p->ctx, (size_t)states, sizeof *value);
    if (!value) return SLG_ERR_MEMORY;
    table_policy(p);
    bonus_from_widths(states, p->shape.actions, p->opts.beta, p->p, t->width, t->width);
    SLG_TRY(dilate(p->ctx, &p->shape, t->width, transition, p->p, 1 + p->opts.dilation,
                   t->width, value));
    for (int64_t i = 0; i < p->count; i++) t->costs[i] -= t->width[i];
    return SLG_OK;
}

static slg_status step_table(slg_mdp_policy *p, const slg_mdp_episode *e)
{
    table_episode t = { .width = NULL };
    SLG_TRY(table_parts(p, e, &t));
    if (p->d > 0)
        SLG_TRY(by_features(p, &t));
    else
        one_hot(p, &t);
    if (t.width) SLG_TRY(less_bonus(p, e->transition, &t));
    SLG_TRY(finite_sums(p, p->count, p->state, t.costs));
    for (int64_t i = 0; i < p->count; i++) p->state[i] += t.costs[i];
    p->current = false;
    return SLG_OK;
}

/* ---- Without a table -------------------------------------------------------------------- */

typedef struct linear_episode {
    double *to_go;   /* [H] */
    double *visited; /* [H, d] */
    rows samples;    /* [H M, d] */
    int64_t m;
    double *weight;  /* [H, M], a layer sums to 1; NULL: 1 / M each */
    double *inverse; /* [H, d, d] */
    double *vectors; /* [H, 1 + m, d]: S visited, then, where reduced, S phi_m */
    int64_t each;    /* vectors of a layer */
} linear_episode;

static slg_status linear_parts(slg_mdp_policy *p, const slg_mdp_episode *e, linear_episode *l)
{
    slg_ctx *ctx = p->ctx;
    const int64_t layers = p->shape.layers, d = p->d, shape[2] = { layers, d };
    if (e->occupancy || e->transition)
        return slg_fail(ctx, SLG_ERR_SHAPE, "%s is given: there is no table",
                        e->occupancy ? "occupancy" : "transition");
    SLG_TRY(losses_to_go(p, e->losses, &l->to_go));
    SLG_TRY(input_of(ctx, "visited", e->visited, DT_FEATURE, 2, shape));
    if (!(l->visited = tensor_doubles(ctx, e->visited))) return SLG_ERR_MEMORY;
    l->m = 0, l->weight = NULL;
    if (e->weight && !e->samples)
        return slg_fail(ctx, SLG_ERR_NULL, "weight is given, samples is NULL");
    if (!e->samples) return SLG_OK;
    SLG_TRY(tensor_in(ctx, "samples", e->samples, DT_FEATURE, 3, 3));
    const int64_t m = e->samples->shape[1], wanted[3] = { layers, m, d };
    SLG_TRY(tensor_shape_is(ctx, "samples", e->samples, 3, wanted));
    l->m = m, l->samples = rows_of(e->samples);
    if (!e->weight) return SLG_OK;
    SLG_TRY(input_of(ctx, "weight", e->weight, DT_REAL, 2, wanted));
    if (!(l->weight = tensor_doubles(ctx, e->weight))) return SLG_ERR_MEMORY;
    for (int64_t h = 0; h < layers; h++)
        SLG_TRY(weigh(ctx, "weight of a layer", m, true, l->weight + h * m));
    return SLG_OK;
}

/* S of a layer and S times its vectors. */
static slg_status layer_vectors(slg_mdp_policy *p, const linear_episode *l, int64_t h,
                                double *sigma, double *x)
{
    slg_ctx *ctx = p->ctx;
    const int64_t d = p->d;
    double *inverse = l->inverse + h * d * d;
    const double *w = l->weight ? l->weight + h * l->m : NULL;
    if (l->m > 0)
        SLG_TRY(covariance(ctx, &l->samples, h * l->m, l->m, w, !w, sigma));
    else
        memset(sigma, 0, (size_t)(d * d) * sizeof *sigma);
    SLG_TRY(covariance_inverse(ctx, d, p->opts.gamma, sigma, inverse));
    memcpy(x, l->visited + h * d, (size_t)d * sizeof *x);
    for (int64_t i = 1; i < l->each; i++) row_doubles(&l->samples, h * l->m + i - 1, x + i * d);
    return blas_dgemm(ctx, false, false, l->each, d, d, 1, x, d, inverse, d, 0,
                      l->vectors + h * l->each * d, d);
}

static slg_status all_vectors(slg_mdp_policy *p, linear_episode *l)
{
    slg_ctx *ctx = p->ctx;
    const int64_t d = p->d, layers = p->shape.layers;
    l->each = 1 + (p->kept ? l->m : 0);
    const size_t square = (size_t)(d * d), block = (size_t)l->each * (size_t)d;
    double *sigma = arena_alloc(ctx, square, sizeof *sigma);
    double *x = arena_alloc(ctx, block, sizeof *x);
    l->inverse = arena_alloc(ctx, square * (size_t)layers, sizeof(double));
    l->vectors = arena_alloc(ctx, block * (size_t)layers, sizeof(double));
    if (!sigma || !x || !l->inverse || !l->vectors) return SLG_ERR_MEMORY;
    for (int64_t h = 0; h < layers; h++) SLG_TRY(layer_vectors(p, l, h, sigma, x));
    for (int64_t i = 0; i < layers * l->each * d; i++)
        if (!isfinite(l->vectors[i]))
            return slg_fail(ctx, SLG_ERR_RANGE, "features must be finite");
    return SLG_OK;
}

static void keep(slg_mdp_policy *p, const linear_episode *l, int64_t h)
{
    const int64_t d = p->d;
    const double horizon = (double)p->shape.layers;
    for (int64_t i = 0; i < l->each; i++) {
        double *to = p->kept[h].v + (p->kept_count + i) * (d + 2);
        memcpy(to, l->vectors + (h * l->each + i) * d, (size_t)d * sizeof *to);
        const double w = i == 0      ? 0
                         : l->weight ? l->weight[h * l->m + i - 1]
                                     : 1 / (double)l->m;
        to[d] = i == 0 ? l->to_go[h] : 0;
        to[d + 1] = i == 0 ? l->to_go[h] - horizon : horizon * w;
    }
}

/* What joins the sums, laid out as p->state. */
static void new_sums(slg_mdp_policy *p, const linear_episode *l, double *more)
{
    const int64_t layers = p->shape.layers, d = p->d;
    if (!p->kept)
        for (int64_t h = 0; h < layers; h++)
            for (int64_t i = 0; i < d; i++)
                *more++ = l->to_go[h] * l->vectors[h * l->each * d + i];
    if (p->opts.beta > 0) memcpy(more, l->inverse, (size_t)(layers * d * d) * sizeof *more);
}

static slg_status step_linear(slg_mdp_policy *p, const slg_mdp_episode *e)
{
    linear_episode l = { .m = 0 };
    SLG_TRY(linear_parts(p, e, &l));
    SLG_TRY(all_vectors(p, &l));
    double *more = arena_alloc(p->ctx, (size_t)p->count, sizeof *more);
    if (!more) return SLG_ERR_MEMORY;
    new_sums(p, &l, more);
    SLG_TRY(finite_sums(p, p->count, p->state, more));
    if (p->kept) {
        SLG_TRY(keep_room(p, p->kept_count + l.each));
        for (int64_t h = 0; h < p->shape.layers; h++) keep(p, &l, h);
        p->kept_count += l.each;
    }
    for (int64_t i = 0; i < p->count; i++) p->state[i] += more[i];
    return SLG_OK;
}

/* ---- The call --------------------------------------------------------------------------- */

slg_status policy_step(slg_mdp_policy *p, const slg_mdp_episode *episode)
{
    slg_mdp_episode e = no_episode;
    if (!episode) return slg_fail(p->ctx, SLG_ERR_NULL, "episode is NULL");
    SLG_TRY(options_read(p->ctx, "episode", episode, &e, sizeof e));
    SLG_TRY(option_reserved(p->ctx, "reserved", e.reserved));
    SLG_TRY(is_table(p) ? step_table(p, &e) : step_linear(p, &e));
    p->episodes++;
    return SLG_OK;
}

slg_status slg_mdp_policy_step(slg_mdp_policy *p, const slg_mdp_episode *episode)
{
    if (!p) return SLG_ERR_NULL;
    op_begin(p->ctx, "slg_mdp_policy_step");
    return op_end(p->ctx, policy_step(p, episode));
}
