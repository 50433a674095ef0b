/*
 * rope.c - rotary positions: pairs of a row turned by angles from a table.
 */
#include <math.h>
#include <string.h>

#include "column_sums.h"

enum { ROWS_A_TASK = 64 };

static const slg_rope_opts defaults = { .size = sizeof(slg_rope_opts),
                                        .base = 1e4,
                                        .scale = 1 };

void slg_rope_opts_init(slg_rope_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open_options(slg_ctx *ctx, const slg_rope_opts *given, slg_rope_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "interleaved", o->interleaved, 0, 1));
    SLG_TRY(option_choice(ctx, "inverse", o->inverse, 0, 1));
    if (o->offset < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "offset is %d, must be at least 0", o->offset);
    if (!(o->base > 0 && o->base <= 1e30))
        return slg_fail(ctx, SLG_ERR_RANGE, "base is %g, must be above 0, to 1e30", o->base);
    SLG_TRY(option_range(ctx, "scale", o->scale, -1e30, 1e30));
    return SLG_OK;
}

/* ---- The table --------------------------------------------------------------------------- */

static slg_status table(slg_ctx *ctx, const slg_rope_opts *opts, slg_tensor *cosines,
                        slg_tensor *sines)
{
    slg_rope_opts o;
    SLG_TRY(open_options(ctx, opts, &o));
    SLG_TRY(tensor_out(ctx, "cos", cosines, DT_F32, 2, 2));
    SLG_TRY(tensor_out(ctx, "sin", sines, DT_F32, 2, 2));
    SLG_TRY(tensor_same_shape(ctx, "sin", sines, "cos", cosines));
    SLG_TRY(layer_apart(ctx, "sin", sines, "cos", cosines, false));
    if (tensor_size(cosines) == 0) return SLG_OK;
    const rows c = rows_of(cosines), s = rows_of(sines);
    for (int64_t i = 0; i < c.cols; i++) {
        const double speed = o.scale * pow(o.base, -(double)i / (double)c.cols);
        for (int64_t p = 0; p < c.count; p++) {
            rows_put(&c, p, i, cos((double)p * speed));
            rows_put(&s, p, i, sin((double)p * speed));
        }
    }
    return SLG_OK;
}

slg_status slg_rope_table(slg_ctx *ctx, const slg_rope_opts *opts, slg_tensor *cos,
                          slg_tensor *sin)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_rope_table");
    return op_end(ctx, table(ctx, opts, cos, sin));
}

/* ---- The turn ---------------------------------------------------------------------------- */

typedef struct job {
    const kernel_table *k;
    rows x, y, cos, sin, position; /* position.data NULL: none */
    int64_t tokens;
    int32_t interleaved, offset;
    float *back; /* [positions, pairs]: -sin, where inverse; else NULL */
    float *scratch;
} job;

static int64_t position_of(const job *j, int64_t token)
{
    return j->position.data ? rows_get_int(&j->position, token, 0) : j->offset + token;
}

static void turn(void *arg, int64_t task, int32_t worker)
{
    const job *j = arg;
    const int64_t n = j->x.cols, pairs = j->cos.cols, first = task * ROWS_A_TASK;
    float *in = j->scratch + 2 * n * worker, *out = in + n;
    for (int64_t r = first; r < j->x.count && r < first + ROWS_A_TASK; r++) {
        const int64_t p = position_of(j, r % j->tokens);
        const float *c = (const float *)(const void *)rows_at(&j->cos, p);
        const float *s =
            j->back ? j->back + p * pairs : (const float *)(const void *)rows_at(&j->sin, p);
        const float *x = rows_fetch(j->k, &j->x, r, 0, n, in);
        float *y = rows_stage(&j->y, r, 0, out);
        j->k->rope((size_t)pairs, x, c, s, j->interleaved, y);
        if (y != x && n > 2 * pairs)
            memcpy(y + 2 * pairs, x + 2 * pairs, (size_t)(n - 2 * pairs) * sizeof *y);
        rows_commit(j->k, &j->y, r, 0, n, out);
    }
}

static slg_status check_positions(slg_ctx *ctx, const slg_tensor *position, int64_t tokens,
                                  int64_t positions, int32_t offset)
{
    if (!position) {
        if (tokens <= positions - offset) return SLG_OK;
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "%lld tokens from offset %d on, cos has %lld positions",
                        (long long)tokens, offset, (long long)positions);
    }
    const rows m = rows_per_row(position);
    for (int64_t t = 0; t < tokens; t++) {
        const int64_t p = rows_get_int(&m, t, 0);
        if (p < 0 || p >= positions)
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "position[%lld] is %lld, cos has %lld positions", (long long)t,
                            (long long)p, (long long)positions);
    }
    return SLG_OK;
}

static slg_status check(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *cosines,
                        const slg_tensor *sines, const slg_tensor *position, int32_t offset,
                        const slg_tensor *y)
{
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 2, 4));
    SLG_TRY(tensor_in(ctx, "cos", cosines, DT_F32, 2, 2));
    SLG_TRY(tensor_in(ctx, "sin", sines, DT_F32, 2, 2));
    SLG_TRY(tensor_same_shape(ctx, "sin", sines, "cos", cosines));
    SLG_TRY(tensor_out(ctx, "y", y, DT_ROW, 2, 4));
    SLG_TRY(tensor_same_shape(ctx, "y", y, "x", x));
    const int64_t dim = x->shape[x->ndim - 1], tokens = x->shape[x->ndim - 2];
    const int64_t pairs = cosines->shape[1];
    if (pairs > dim / 2)
        return slg_fail(ctx, SLG_ERR_SHAPE,
                        "cos has %lld columns, x has %lld: at most half of it",
                        (long long)pairs, (long long)dim);
    if (pairs > 1 && (cosines->stride[1] != 1 || sines->stride[1] != 1))
        return slg_fail(ctx, SLG_ERR_STRIDE, "rows of cos and sin must be contiguous");
    if (position) {
        SLG_TRY(tensor_in(ctx, "position", position, DT_INT, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "position", position, 1, &tokens));
    }
    SLG_TRY(layer_apart(ctx, "y", y, "x", x, true));
    SLG_TRY(layer_apart(ctx, "y", y, "cos", cosines, false));
    SLG_TRY(layer_apart(ctx, "y", y, "sin", sines, false));
    SLG_TRY(layer_apart(ctx, "y", y, "position", position, false));
    return check_positions(ctx, position, tokens, cosines->shape[0], offset);
}

static slg_status turn_back(slg_ctx *ctx, job *j)
{
    const int64_t pairs = j->cos.cols;
    j->back = arena_alloc(ctx, (size_t)j->sin.count * (size_t)pairs, sizeof *j->back);
    if (!j->back) return SLG_ERR_MEMORY;
    for (int64_t p = 0; p < j->sin.count; p++) {
        const float *s = (const float *)(const void *)rows_at(&j->sin, p);
        for (int64_t i = 0; i < pairs; i++) j->back[p * pairs + i] = -s[i];
    }
    return SLG_OK;
}

static slg_status rotate(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *cosines,
                         const slg_tensor *sines, const slg_tensor *position,
                         const slg_rope_opts *opts, slg_tensor *y)
{
    slg_rope_opts o;
    SLG_TRY(open_options(ctx, opts, &o));
    SLG_TRY(check(ctx, x, cosines, sines, position, o.offset, y));
    op_detail(ctx, x);
    if (tensor_size(x) == 0) return SLG_OK;
    job j = { .k = &ctx->k,
              .x = rows_of(x),
              .y = rows_of(y),
              .cos = rows_of(cosines),
              .sin = rows_of(sines),
              .tokens = x->shape[x->ndim - 2],
              .interleaved = o.interleaved,
              .offset = o.offset };
    if (position) j.position = rows_per_row(position);
    if (o.inverse) SLG_TRY(turn_back(ctx, &j));
    j.scratch =
        arena_alloc(ctx, (size_t)ctx->num_threads * 2 * (size_t)j.x.cols, sizeof(float));
    if (!j.scratch) return SLG_ERR_MEMORY;
    pool_run(ctx, (j.x.count + ROWS_A_TASK - 1) / ROWS_A_TASK, turn, &j);
    return SLG_OK;
}

slg_status slg_rope(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *cos,
                    const slg_tensor *sin, const slg_tensor *position,
                    const slg_rope_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_rope");
    return op_end(ctx, rotate(ctx, x, cos, sin, position, opts, y));
}
