/*
 * attack.c - see robust.h: a step of projected gradient ascent on inputs, and a random start.
 */
#include <math.h>

#include "core/options.h"
#include "core/pool.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "softlogit/robust.h"

static const slg_attack_opts defaults = {
    .size = sizeof(slg_attack_opts),
    .ball = SLG_BALL_LINF,
    .radius = 8.0 / 255,
    .step = 2.0 / 255,
    .low = 0.0,
    .high = 1.0,
};

void slg_attack_opts_init(slg_attack_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct attack {
    slg_attack_opts o;
    rows x, dx, x0, y;
    const slg_rng *rng; /* NULL: a step */
    int64_t ranges;
} attack;

/* Where element c of a row goes before any projection, less x0. length: of dx. */
static double moved(const attack *a, int64_t row, int64_t c, double x0, double length)
{
    if (a->rng) {
        uint64_t at = a->rng->offset + (uint64_t)(row * a->x0.cols + c);
        return a->o.radius * (2 * rng_uniform(a->rng->seed, at) - 1);
    }
    double x = rows_get(&a->x, row, c), d = rows_get(&a->dx, row, c), unit;
    if (a->o.ball == SLG_BALL_LINF)
        unit = (d > 0) - (d < 0);
    else
        unit = length == 0 ? 0 : d / length;
    return x + a->o.step * unit - x0;
}

static void attack_row(const attack *a, int64_t row)
{
    const slg_attack_opts *o = &a->o;
    const int64_t cols = a->x0.cols;
    double length = 0, distance = 0;
    if (o->ball == SLG_BALL_L2) {
        for (int64_t c = 0; c < cols && !a->rng; c++) {
            double d = rows_get(&a->dx, row, c);
            length += d * d;
        }
        length = sqrt(length);
        for (int64_t c = 0; c < cols; c++) {
            double d = moved(a, row, c, rows_get(&a->x0, row, c), length);
            distance += d * d;
        }
        distance = sqrt(distance);
    }
    double shrink = distance > o->radius ? o->radius / distance : 1;
    if (isnan(distance)) shrink = NAN;
    for (int64_t c = 0; c < cols; c++) {
        double x0 = rows_get(&a->x0, row, c), d = shrink * moved(a, row, c, x0, length);
        if (o->ball == SLG_BALL_LINF)
            d = d > o->radius ? o->radius : d < -o->radius ? -o->radius : d;
        double y = x0 + d;
        rows_put(&a->y, row, c, y < o->low ? o->low : y > o->high ? o->high : y);
    }
}

static void attack_range(void *arg, int64_t task, int32_t worker)
{
    const attack *a = arg;
    int64_t to = pool_range_start(a->x0.count, a->ranges, task + 1);
    (void)worker;
    for (int64_t r = pool_range_start(a->x0.count, a->ranges, task); r < to; r++)
        attack_row(a, r);
}

static slg_status check_options(slg_ctx *ctx, const slg_attack_opts *opts, slg_attack_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "ball", o->ball, SLG_BALL_LINF, SLG_BALL_L2));
    SLG_TRY(option_least(ctx, "radius", o->radius, 0));
    if (!isfinite(o->step))
        return slg_fail(ctx, SLG_ERR_RANGE, "step is %g, must be finite", o->step);
    if (!(o->low <= o->high))
        return slg_fail(ctx, SLG_ERR_RANGE, "low is %g, high %g: low must not be above high",
                        o->low, o->high);
    return SLG_OK;
}

static slg_status input_rows(slg_ctx *ctx, const char *name, const slg_tensor *t,
                             const slg_tensor *x0, rows *out)
{
    SLG_TRY(tensor_in(ctx, name, t, DT_F32, 2, 2));
    SLG_TRY(tensor_same_shape(ctx, name, t, "x0", x0));
    *out = rows_of(t);
    return SLG_OK;
}

static slg_status run(slg_ctx *ctx, attack *a, const slg_tensor *x0, slg_tensor *y)
{
    SLG_TRY(tensor_out(ctx, "y", y, DT_F32, 2, 2));
    SLG_TRY(tensor_same_shape(ctx, "y", y, "x0", x0));
    if (tensor_clash(y, x0) || (y->data == x0->data && tensor_size(y) > 0))
        return slg_fail(ctx, SLG_ERR_STRIDE, "y overlaps x0");
    a->y = rows_of(y);
    if (tensor_size(y) == 0) return SLG_OK;
    a->ranges = pool_ranges(ctx, a->x0.count, (1 << 12) / (a->x0.cols + 1) + 1);
    pool_run(ctx, a->ranges, attack_range, a);
    return SLG_OK;
}

static slg_status step(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *dx,
                       const slg_tensor *x0, const slg_attack_opts *opts, slg_tensor *y)
{
    attack a = { .rng = NULL };
    SLG_TRY(check_options(ctx, opts, &a.o));
    SLG_TRY(tensor_in(ctx, "x0", x0, DT_F32, 2, 2));
    a.x0 = rows_of(x0);
    SLG_TRY(input_rows(ctx, "x", x, x0, &a.x));
    SLG_TRY(input_rows(ctx, "dx", dx, x0, &a.dx));
    if (y && (tensor_clash(y, x) || tensor_clash(y, dx)))
        return slg_fail(ctx, SLG_ERR_STRIDE, "y overlaps x or dx, and is not the same view");
    return run(ctx, &a, x0, y);
}

slg_status slg_attack_step(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *dx,
                           const slg_tensor *x0, const slg_attack_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_attack_step");
    return op_end(ctx, step(ctx, x, dx, x0, opts, y));
}

static slg_status start(slg_ctx *ctx, const slg_tensor *x0, slg_rng *rng,
                        const slg_attack_opts *opts, slg_tensor *y)
{
    attack a = { .rng = rng };
    if (!rng) return slg_fail(ctx, SLG_ERR_NULL, "rng is NULL");
    SLG_TRY(check_options(ctx, opts, &a.o));
    SLG_TRY(tensor_in(ctx, "x0", x0, DT_F32, 2, 2));
    a.x0 = rows_of(x0);
    SLG_TRY(run(ctx, &a, x0, y));
    rng->offset += (uint64_t)tensor_size(x0);
    return SLG_OK;
}

slg_status slg_attack_start(slg_ctx *ctx, const slg_tensor *x0, slg_rng *rng,
                            const slg_attack_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_attack_start");
    return op_end(ctx, start(ctx, x0, rng, opts, y));
}
