/*
 * mdp_run.c - episodes one after the other: see mdp.h. What the caller's function fills lives
 * in memory of the run's own, for that function may use the context too.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "mdp_policy.h"

static const char op_name[] = "slg_mdp_run";
static const slg_mdp_world no_world = { .size = sizeof(slg_mdp_world) };

void slg_mdp_world_init(slg_mdp_world *world, size_t size)
{
    options_init(world, size, &no_world, sizeof no_world);
}

typedef struct mdp_run {
    slg_mdp_policy *p;
    slg_mdp_world w;
    slg_tensor transition, start, losses_out; /* the caller's structs, as they were checked */
    int64_t layers, width;                    /* width: 2, or d */
    double *memory;
    double *losses;  /* [H] */
    double *visited; /* [H, width] of the episode */
    double *row;     /* [H, width] of a simulation */
    double *samples; /* [H, M, d] */
    double *counts;  /* [H, S, A] */
    int64_t *pairs;  /* [H, 2] */
} mdp_run;

/* ---- Checks and memory ------------------------------------------------------------------ */

static slg_status check_world(mdp_run *r, const slg_mdp_world *given, const slg_rng *rng)
{
    slg_ctx *ctx = r->p->ctx;
    if (!given || !rng)
        return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", given ? "rng" : "world");
    r->w = no_world;
    SLG_TRY(options_read(ctx, "world", given, &r->w, sizeof r->w));
    SLG_TRY(option_reserved(ctx, "reserved", r->w.reserved));
    SLG_TRY(read_draws(ctx, &r->w.draws));
    if (!r->w.fn) return slg_fail(ctx, SLG_ERR_NULL, "world.fn is NULL");
    if (r->w.simulations < 0 || r->w.simulations > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_RANGE, "simulations is %lld, must be from 0 to 2^31 - 1",
                        (long long)r->w.simulations);
    if (!is_table(r->p) && (r->w.transition || r->w.start))
        return slg_fail(ctx, SLG_ERR_SHAPE, "%s is given: there is no table",
                        r->w.transition ? "transition" : "start");
    if (!is_table(r->p)) return SLG_OK;
    if (r->w.simulations == 0 || r->p->opts.beta > 0)
        SLG_TRY(transition_check(ctx, &r->p->shape, r->w.transition));
    if (r->w.transition) r->transition = *r->w.transition;
    if (!r->w.start) return SLG_OK;
    SLG_TRY(input_of(ctx, "start", r->w.start, DT_REAL, 1, &r->p->shape.states));
    r->start = *r->w.start;
    return SLG_OK;
}

static slg_status take_memory(mdp_run *r)
{
    const int64_t table = is_table(r->p) ? r->layers * pairs_of(r->p) : 0;
    const int64_t seen = r->layers * r->width;
    int64_t samples = 0, size;
    if (!is_table(r->p) && __builtin_mul_overflow(seen, r->w.simulations, &samples))
        samples = INT64_MAX / 8;
    if (__builtin_add_overflow(samples, 2 * seen + 3 * r->layers + table, &size))
        size = INT64_MAX;
    SLG_TRY(state_alloc(r->p->ctx, size, &r->memory));
    r->losses = r->memory, r->visited = r->losses + r->layers, r->row = r->visited + seen;
    r->pairs = (int64_t *)(void *)(r->row + seen);
    r->counts = r->row + seen + 2 * r->layers, r->samples = r->counts + table;
    return SLG_OK;
}

/* ---- An episode ------------------------------------------------------------------------- */

/* State and action of a layer, from what the function filled in. */
static slg_status pair_of(mdp_run *r, const double *visited, int64_t h, int64_t pair[2])
{
    const double most[2] = { (double)r->p->shape.states, (double)r->p->shape.actions };
    for (int i = 0; i < 2; i++) {
        const double x = visited[2 * h + i];
        if (!(x >= 0 && x < most[i] && x == floor(x)))
            return slg_fail(r->p->ctx, SLG_ERR_RANGE,
                            "fn: %s of layer %lld is %g, must be a number below %g",
                            i ? "action" : "state", (long long)h, x, most[i]);
        pair[i] = (int64_t)x;
    }
    return SLG_OK;
}

static slg_status count_pairs(mdp_run *r)
{
    for (int64_t h = 0; h < r->layers; h++) {
        int64_t pair[2];
        SLG_TRY(pair_of(r, r->row, h, pair));
        r->counts[h * pairs_of(r->p) + pair[0] * r->p->shape.actions + pair[1]] += 1;
    }
    return SLG_OK;
}

static slg_status simulate(mdp_run *r, int64_t episode, const slg_rng *rng)
{
    const int64_t draws = r->w.draws, count = r->w.simulations;
    if (is_table(r->p))
        memset(r->counts, 0, (size_t)(r->layers * pairs_of(r->p)) * sizeof *r->counts);
    for (int64_t m = 0; m < count; m++) {
        SLG_TRY(play_trajectory(r->p->ctx, op_name, r->w.fn, r->w.user, episode, m, rng->seed,
                                rng->offset + (uint64_t)(m + 1) * (uint64_t)draws, draws,
                                r->row, NULL));
        if (is_table(r->p)) {
            SLG_TRY(count_pairs(r));
            continue;
        }
        for (int64_t h = 0; h < r->layers; h++)
            memcpy(r->samples + (h * count + m) * r->width, r->row + h * r->width,
                   (size_t)r->width * sizeof *r->row);
    }
    return SLG_OK;
}

/* Without simulations: the model's own. */
static slg_status follow(mdp_run *r)
{
    const double *start = NULL;
    if (r->w.start && !(start = tensor_doubles(r->p->ctx, &r->start))) return SLG_ERR_MEMORY;
    table_policy(r->p);
    return occupy(r->p->ctx, &r->p->shape, r->w.transition ? &r->transition : NULL, r->p->p,
                  start, r->counts);
}

static slg_tensor cube(const double *data, int64_t a, int64_t b, int64_t c)
{
    slg_tensor t = slg_tensor_2d(data, SLG_F64, a, b);
    t.ndim = 3, t.shape[2] = c;
    t.stride[0] = b * c, t.stride[1] = c, t.stride[2] = 1;
    return t;
}

static slg_status learn(mdp_run *r)
{
    const table_shape *s = &r->p->shape;
    slg_mdp_episode e;
    slg_mdp_episode_init(&e, sizeof e);
    const slg_tensor losses = slg_tensor_1d(r->losses, SLG_F64, r->layers);
    slg_tensor visited = slg_tensor_2d(r->visited, SLG_F64, r->layers, r->width);
    const slg_tensor counts = cube(r->counts, s->layers, s->states, s->actions);
    const slg_tensor samples = cube(r->samples, r->layers, r->w.simulations, r->width);
    e.losses = &losses, e.visited = &visited;
    if (is_table(r->p)) {
        for (int64_t h = 0; h < r->layers; h++)
            SLG_TRY(pair_of(r, r->visited, h, r->pairs + 2 * h));
        visited = slg_tensor_2d(r->pairs, SLG_I64, r->layers, 2);
        e.occupancy = &counts;
        if (r->p->opts.beta > 0 && r->w.transition) e.transition = &r->transition;
    } else if (r->w.simulations > 0) {
        e.samples = &samples;
    }
    return policy_step(r->p, &e);
}

static slg_status one_episode(mdp_run *r, int64_t k, slg_rng *rng)
{
    slg_ctx *ctx = r->p->ctx;
    const slg_rng from = *rng;
    SLG_TRY(play_trajectory(ctx, op_name, r->w.fn, r->w.user, k, -1, from.seed, from.offset,
                            r->w.draws, r->visited, r->losses));
    SLG_TRY(simulate(r, k, &from));
    const arena_mark_t mark = arena_mark(ctx);
    if (is_table(r->p) && r->w.simulations == 0) SLG_TRY(follow(r));
    SLG_TRY(learn(r));
    arena_release(ctx, mark);
    rng->seed = from.seed;
    rng->offset = from.offset + (uint64_t)(r->w.simulations + 1) * (uint64_t)r->w.draws;
    return SLG_OK;
}

static slg_status episodes_run(mdp_run *r, int64_t episodes, slg_rng *rng,
                               const slg_tensor *losses)
{
    rows out = { .cols = 0 };
    if (losses) out = rows_of(&r->losses_out);
    for (int64_t k = 0; k < episodes; k++) {
        SLG_TRY(one_episode(r, k, rng));
        double sum = 0;
        for (int64_t h = 0; h < r->layers; h++) sum += r->losses[h];
        if (losses) rows_put(&out, 0, k, sum);
    }
    return SLG_OK;
}

static slg_status run(mdp_run *r, const slg_mdp_world *world, int64_t episodes, slg_rng *rng,
                      const slg_tensor *losses)
{
    slg_ctx *ctx = r->p->ctx;
    SLG_TRY(check_world(r, world, rng));
    if (episodes < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "episodes is %lld, must be at least 0",
                        (long long)episodes);
    if (losses) {
        SLG_TRY(output_of(ctx, "losses", losses, DT_REAL, 1, &episodes));
        r->losses_out = *losses;
    }
    SLG_TRY(take_memory(r));
    return episodes_run(r, episodes, rng, losses);
}

slg_status slg_mdp_run(slg_mdp_policy *p, const slg_mdp_world *world, int64_t episodes,
                       slg_rng *rng, slg_tensor *losses)
{
    if (!p) return SLG_ERR_NULL;
    mdp_run r = { .p = p, .layers = p->shape.layers, .width = is_table(p) ? 2 : p->d };
    op_begin(p->ctx, op_name);
    const slg_status status = run(&r, world, episodes, rng, losses);
    ctx_free(p->ctx, r.memory);
    return op_end(p->ctx, status);
}
