/*
 * simulate.c - trajectories through a callback: see mdp.h. What they fill is kept aside until
 * all are done, in memory that outlives calls of the callback's own.
 */
#include <math.h>

#include "linear_mdp.h"
#include "softmax/parts.h"

static const char op_name[] = "slg_simulate";

slg_status read_draws(slg_ctx *ctx, int64_t *draws)
{
    if (*draws == 0) *draws = INT64_C(1) << 32;
    if (*draws > 0) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "draws is %lld, must be at least 0", (long long)*draws);
}

slg_status play_trajectory(slg_ctx *ctx, const char *op, slg_trajectory_fn fn, void *user,
                           int64_t episode, int64_t trajectory, uint64_t seed, uint64_t offset,
                           int64_t draws, double *visited, double *losses)
{
    slg_rng rng = { seed, offset };
    outside_begin(ctx);
    slg_status status = fn(user, episode, trajectory, &rng, visited, losses);
    SLG_TRY(outside_end(ctx, op, "fn", status));
    const uint64_t drawn = rng.offset - offset;
    if (drawn <= (uint64_t)draws) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "trajectory %lld drew %llu numbers, draws is %lld",
                    (long long)trajectory, (unsigned long long)drawn, (long long)draws);
}

typedef struct simulation {
    int64_t layers, count, width;
    slg_tensor visited, losses; /* the caller's structs, as they were checked */
    bool has_losses;
    double *row, *all, *lost; /* [H, width] of a trajectory; [H, M, width], [H, M] */
} simulation;

static slg_status check(slg_ctx *ctx, slg_trajectory_fn fn, const slg_rng *rng, int64_t *draws,
                        const slg_tensor *visited, const slg_tensor *losses, simulation *s)
{
    if (!fn || !rng) return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", fn ? "rng" : "fn");
    SLG_TRY(read_draws(ctx, draws));
    SLG_TRY(tensor_out(ctx, "visited", visited, DT_REAL | DT_INT, 3, 3));
    s->layers = visited->shape[0], s->count = visited->shape[1], s->width = visited->shape[2];
    s->visited = *visited, s->has_losses = losses;
    if (!losses) return SLG_OK;
    SLG_TRY(output_of(ctx, "losses", losses, DT_REAL, 2, visited->shape));
    s->losses = *losses;
    if (outputs_clash(visited, losses))
        return slg_fail(ctx, SLG_ERR_STRIDE, "visited and losses overlap");
    return SLG_OK;
}

static slg_status memory(slg_ctx *ctx, simulation *s, double **all)
{
    const int64_t layers = s->layers, width = s->width;
    int64_t size;
    *all = NULL;
    if (__builtin_mul_overflow(layers * (s->count + 1), width + 1, &size) ||
        size > INT64_MAX / 64)
        return slg_fail(ctx, SLG_ERR_SHAPE, "visited is too large");
    if (size == 0) return SLG_OK;
    *all = ctx_alloc(ctx, (size_t)size * sizeof **all);
    if (!*all) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < size; i++) (*all)[i] = 0;
    /* A trajectory, its losses; then all. */
    s->row = *all, s->all = s->row + layers * (width + 1);
    s->lost = s->all + layers * s->count * width;
    return SLG_OK;
}

static slg_status simulate(slg_ctx *ctx, slg_trajectory_fn fn, void *user, int64_t episode,
                           int64_t draws, slg_rng *rng, simulation *s)
{
    const slg_rng from = *rng;
    double *one = s->row + s->layers * s->width;
    for (int64_t m = 0; m < s->count; m++) {
        SLG_TRY(play_trajectory(ctx, op_name, fn, user, episode, m, from.seed,
                                from.offset + (uint64_t)m * (uint64_t)draws, draws, s->row,
                                s->has_losses ? one : NULL));
        for (int64_t h = 0; h < s->layers; h++) {
            const int64_t at = h * s->count + m;
            s->lost[at] = one[h];
            for (int64_t i = 0; i < s->width; i++)
                s->all[at * s->width + i] = s->row[h * s->width + i];
        }
    }
    doubles_write(&s->visited, s->all);
    if (s->has_losses) doubles_write(&s->losses, s->lost);
    rng->seed = from.seed, rng->offset = from.offset + (uint64_t)s->count * (uint64_t)draws;
    return SLG_OK;
}

slg_status slg_simulate(slg_ctx *ctx, slg_trajectory_fn fn, void *user, int64_t episode,
                        int64_t draws, slg_rng *rng, slg_tensor *visited, slg_tensor *losses)
{
    if (!ctx) return SLG_ERR_NULL;
    simulation s = { .layers = 0 };
    double *all = NULL;
    op_begin(ctx, op_name);
    slg_status status = check(ctx, fn, rng, &draws, visited, losses, &s);
    if (status == SLG_OK) status = memory(ctx, &s, &all);
    if (status == SLG_OK && all) status = simulate(ctx, fn, user, episode, draws, rng, &s);
    ctx_free(ctx, all);
    return op_end(ctx, status);
}
