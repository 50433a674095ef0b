/*
 * project_ball.c - see softlogit/bandit.h. Squares are added up in double; where that is no
 * measure, for lengths that only float64 holds, once more at the scale of the largest element.
 */
#include <math.h>

#include "bandit_parts.h"
#include "core/options.h"

enum { TASK_BLOCKS = 8, LANES = 8 };

typedef struct ball_run {
    const kernel_table *k;
    const rows *t, *c;
    double scale;             /* of differences as they are measured */
    double radius, distance;  /* as they are pulled */
    int64_t per_row, blocks;  /* pieces of at most KERNEL_BLOCK elements of a row */
    double *sum, *most, *bad; /* a task's; bad: where it is not finite, or -1 */
} ball_run;

static ball_run ball_of(slg_ctx *ctx, const rows *t, const rows *c, double scale)
{
    const int64_t per_row = (t->cols + KERNEL_BLOCK - 1) / KERNEL_BLOCK;
    return (ball_run){ .k = &ctx->k,
                       .t = t,
                       .c = c,
                       .scale = scale,
                       .per_row = per_row,
                       .blocks = per_row * t->count };
}

/* Differences and centre of a block; returns its size. */
static int64_t block(const ball_run *g, int64_t b, double *e, double *centre)
{
    const int64_t r = b / g->per_row, col = b % g->per_row * KERNEL_BLOCK;
    const int64_t n = g->t->cols - col < KERNEL_BLOCK ? g->t->cols - col : KERNEL_BLOCK;
    row_part_doubles(g->t, r, col, n, e);
    for (int64_t i = 0; i < n; i++) centre[i] = 0;
    if (g->c) row_part_doubles(g->c, r, col, n, centre);
    for (int64_t i = 0; i < n; i++) e[i] -= centre[i];
    return n;
}

static void measure_task(void *arg, int64_t task, int32_t worker)
{
    const ball_run *g = arg;
    double e[KERNEL_BLOCK], centre[KERNEL_BLOCK], lane[LANES] = { 0 }, most = 0;
    (void)worker;
    g->bad[task] = -1;
    for (int64_t b = task * TASK_BLOCKS; b < (task + 1) * TASK_BLOCKS && b < g->blocks; b++) {
        const int64_t n = block(g, b, e, centre);
        for (int64_t i = 0; i < n; i++) {
            if (!isfinite(e[i]) && g->bad[task] < 0)
                g->bad[task] =
                    (double)(b / g->per_row * g->t->cols + b % g->per_row * KERNEL_BLOCK + i);
            most = fabs(e[i]) > most ? fabs(e[i]) : most;
            e[i] *= g->scale;
        }
        for (int64_t i = 0; i < n; i++) lane[i % LANES] += e[i] * e[i];
    }
    g->sum[task] = 0, g->most[task] = most;
    for (int j = 0; j < LANES; j++) g->sum[task] += lane[j];
}

static slg_status measure(slg_ctx *ctx, ball_run *g, double *sum, double *most)
{
    const int64_t tasks = (g->blocks + TASK_BLOCKS - 1) / TASK_BLOCKS;
    g->sum = arena_alloc(ctx, (size_t)tasks, 3 * sizeof *g->sum);
    if (!g->sum) return SLG_ERR_MEMORY;
    g->most = g->sum + tasks, g->bad = g->most + tasks;
    pool_run(ctx, tasks, measure_task, g);
    *sum = *most = 0;
    for (int64_t i = 0; i < tasks; i++) {
        *sum += g->sum[i], *most = fmax(*most, g->most[i]);
        if (g->bad[i] >= 0)
            return slg_fail(ctx, SLG_ERR_RANGE, "element %.0f of theta - theta0 is not finite",
                            g->bad[i]);
    }
    return SLG_OK;
}

slg_status ball_distance(slg_ctx *ctx, const rows *t, const rows *c, double *distance)
{
    ball_run g = ball_of(ctx, t, c, 1);
    double sum, most;
    SLG_TRY(measure(ctx, &g, &sum, &most));
    if (most > 0 && !(sum > 1e-280 && sum < 1e300)) {
        const double size = exp2(logb(most)); /* a power of two, so nothing is rounded by it */
        g.scale = 1 / size;
        if (!isfinite(g.scale)) g.scale = 0x1p1022;
        SLG_TRY(measure(ctx, &g, &sum, &most));
    }
    *distance = sqrt(sum) / g.scale;
    return isfinite(*distance)
               ? SLG_OK
               : slg_fail(ctx, SLG_ERR_RANGE, "|theta - theta0| is past float64");
}

static void pull_task(void *arg, int64_t task, int32_t worker)
{
    const ball_run *g = arg;
    double e[KERNEL_BLOCK], centre[KERNEL_BLOCK];
    (void)worker;
    for (int64_t b = task * TASK_BLOCKS; b < (task + 1) * TASK_BLOCKS && b < g->blocks; b++) {
        const int64_t r = b / g->per_row, col = b % g->per_row * KERNEL_BLOCK;
        const int64_t n = block(g, b, e, centre);
        for (int64_t i = 0; i < n; i++) e[i] = centre[i] + e[i] / g->distance * g->radius;
        row_part_store(g->t, r, col, n, e);
    }
}

void ball_pull(slg_ctx *ctx, const rows *t, const rows *c, double radius, double distance)
{
    ball_run g = ball_of(ctx, t, c, 1);
    g.radius = radius, g.distance = distance;
    pool_run(ctx, (g.blocks + TASK_BLOCKS - 1) / TASK_BLOCKS, pull_task, &g);
}

static slg_status run(slg_ctx *ctx, const slg_tensor *theta0, double radius, slg_tensor *theta,
                      double *distance)
{
    rows c = { 0 };
    double away;
    SLG_TRY(tensor_out(ctx, "theta", theta, DT_F32 | DT_F64, 1, 4));
    if (theta0) {
        SLG_TRY(tensor_in(ctx, "theta0", theta0, DT_ROW | DT_F64, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "theta0", theta0, "theta", theta));
        if (tensor_clash(theta, theta0))
            return slg_fail(ctx, SLG_ERR_STRIDE, "theta and theta0 overlap");
        c = rows_of(theta0);
    }
    if (!(radius >= 0))
        return slg_fail(ctx, SLG_ERR_RANGE, "radius is %g, must be at least 0", radius);
    op_detail(ctx, theta);
    const rows t = rows_of(theta);
    SLG_TRY(ball_distance(ctx, &t, theta0 ? &c : NULL, &away));
    if (away > radius) ball_pull(ctx, &t, theta0 ? &c : NULL, radius, away);
    if (distance) *distance = away;
    return SLG_OK;
}

slg_status slg_project_ball(slg_ctx *ctx, const slg_tensor *theta0, double radius,
                            slg_tensor *theta, double *distance)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_project_ball");
    return op_end(ctx, run(ctx, theta0, radius, theta, distance));
}
