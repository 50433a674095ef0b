/*
 * moe_combine.c - rows to the lists of experts and back. Every output row is written by one
 * task from a list of places, never added to by several: so the order of its sum is fixed.
 */
#include "moe_common.h"

enum { ROWS_A_TASK = 16 };

typedef struct move_call {
    slg_ctx *ctx;
    rows from, to, place, weight, dweight, dy;
    bool weighs, has_h, has_dweight;
    float *scratch; /* per worker: 3 rows */
    int64_t dim;
    unsigned char *held; /* [pairs]: a pair is there */
} move_call;

static int64_t tasks_of(int64_t count) { return (count + ROWS_A_TASK - 1) / ROWS_A_TASK; }

static slg_status scratch_of(move_call *c)
{
    c->scratch = arena_alloc(c->ctx, 3 * (size_t)(c->dim * c->ctx->num_threads), sizeof(float));
    return c->scratch ? SLG_OK : SLG_ERR_MEMORY;
}

static void zero_row(const move_call *c, int64_t r, float *scratch)
{
    float *to = rows_stage(&c->to, r, 0, scratch);
    memset(to, 0, (size_t)c->dim * sizeof *to);
    rows_commit(&c->ctx->k, &c->to, r, 0, c->dim, to);
}

static void gather_task(void *arg, int64_t task, int32_t worker)
{
    const move_call *c = arg;
    const kernel_table *k = &c->ctx->k;
    float *scratch = c->scratch + 3 * c->dim * worker;
    const int64_t end = moe_least(c->to.count, (task + 1) * ROWS_A_TASK);
    for (int64_t p = task * ROWS_A_TASK; p < end; p++) {
        const int32_t token = *moe_int(&c->place, 0, p);
        if (token < 0) {
            zero_row(c, p, scratch);
            continue;
        }
        const float *x = rows_fetch(k, &c->from, token, 0, c->dim, scratch);
        float *to = rows_stage(&c->to, p, 0, scratch);
        if (to != x) memcpy(to, x, (size_t)c->dim * sizeof *to);
        rows_commit(k, &c->to, p, 0, c->dim, to);
    }
}

static slg_status gather(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *token,
                         const slg_tensor *y)
{
    move_call c = { .ctx = ctx };
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 2, 2));
    SLG_TRY(moe_in_1d(ctx, "token", token, DT_I32, -1));
    SLG_TRY(moe_out(ctx, "y", y, DT_ROW, token->shape[0], x->shape[1]));
    const moe_operand in[] = { { "x", x }, { "token", token } }, out[] = { { "y", y } };
    SLG_TRY(moe_apart(ctx, 1, out, 2, in));
    SLG_TRY(moe_indices(ctx, "token", token, -1, x->shape[0]));
    op_detail(ctx, x), op_detail(ctx, y);
    c.dim = x->shape[1];
    c.from = rows_of(x), c.to = rows_of(y), c.place = rows_of(token);
    if (tensor_size(y) == 0) return SLG_OK;
    SLG_TRY(scratch_of(&c));
    pool_run(ctx, tasks_of(c.to.count), gather_task, &c);
    return SLG_OK;
}

slg_status slg_moe_gather(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *token,
                          slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_gather");
    return op_end(ctx, gather(ctx, x, token, y));
}

/* ---- Back -------------------------------------------------------------------------------- */

static void combine_task(void *arg, int64_t task, int32_t worker)
{
    const move_call *c = arg;
    const kernel_table *k = &c->ctx->k;
    float *scratch = c->scratch + 3 * c->dim * worker;
    const int64_t end = moe_least(c->to.count, (task + 1) * ROWS_A_TASK);
    for (int64_t r = task * ROWS_A_TASK; r < end; r++) {
        float *to = rows_stage(&c->to, r, 0, scratch + c->dim);
        bool first = true;
        for (int64_t j = 0; j < c->place.cols; j++) {
            const int32_t p = *moe_int(&c->place, r, j);
            if (p < 0) continue;
            const double w = c->weighs ? rows_get(&c->weight, r, j) : 1;
            const float *h = rows_fetch(k, &c->from, p, 0, c->dim, scratch);
            if (first)
                k->scale((size_t)c->dim, h, (float)w, to);
            else
                k->lincomb((size_t)c->dim, w, h, 1, to);
            first = false;
        }
        if (first) memset(to, 0, (size_t)c->dim * sizeof *to);
        rows_commit(k, &c->to, r, 0, c->dim, to);
    }
}

static slg_status combine(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *place,
                          const slg_tensor *weight, const slg_tensor *y)
{
    move_call c = { .ctx = ctx, .weighs = weight != NULL };
    SLG_TRY(tensor_in(ctx, "h", h, DT_ROW, 2, 2));
    SLG_TRY(tensor_in(ctx, "place", place, DT_I32, 2, 2));
    if (weight)
        SLG_TRY(moe_in(ctx, "weight", weight, DT_ROW, place->shape[0], place->shape[1]));
    SLG_TRY(moe_out(ctx, "y", y, DT_ROW, place->shape[0], h->shape[1]));
    const moe_operand in[] = { { "h", h }, { "place", place }, { "weight", weight } };
    const moe_operand out[] = { { "y", y } };
    SLG_TRY(moe_apart(ctx, 1, out, 3, in));
    SLG_TRY(moe_indices(ctx, "place", place, -1, h->shape[0]));
    op_detail(ctx, h), op_detail(ctx, y);
    c.dim = h->shape[1];
    c.from = rows_of(h), c.to = rows_of(y), c.place = rows_of(place);
    if (weight) c.weight = rows_of(weight);
    if (tensor_size(y) == 0) return SLG_OK;
    SLG_TRY(scratch_of(&c));
    pool_run(ctx, tasks_of(c.to.count), combine_task, &c);
    return SLG_OK;
}

slg_status slg_moe_combine(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *place,
                           const slg_tensor *weight, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_combine");
    return op_end(ctx, combine(ctx, h, place, weight, y));
}

/* ---- Gradient ---------------------------------------------------------------------------- */

static void back_task(void *arg, int64_t task, int32_t worker)
{
    const move_call *c = arg;
    const kernel_table *k = &c->ctx->k;
    float *scratch = c->scratch + 3 * c->dim * worker;
    const int64_t end = moe_least(c->dy.count, (task + 1) * ROWS_A_TASK);
    for (int64_t r = task * ROWS_A_TASK; r < end; r++) {
        const float *dy = rows_fetch(k, &c->dy, r, 0, c->dim, scratch);
        for (int64_t j = 0; j < c->place.cols; j++) {
            const int32_t p = *moe_int(&c->place, r, j);
            double slope[3] = { 0 };
            if (p >= 0 && c->has_dweight)
                k->dots((size_t)c->dim, dy,
                        rows_fetch(k, &c->from, p, 0, c->dim, scratch + c->dim), slope);
            if (c->has_dweight) rows_put(&c->dweight, r, j, slope[0]);
            if (p < 0 || !c->has_h) continue;
            float *to = rows_stage(&c->to, p, 0, scratch + 2 * c->dim);
            k->scale((size_t)c->dim, dy, c->weighs ? (float)rows_get(&c->weight, r, j) : 1.0f,
                     to);
            rows_commit(k, &c->to, p, 0, c->dim, to);
        }
    }
}

/* Which places are taken; none twice. */
static slg_status hold(move_call *c, const slg_tensor *place, int64_t pairs)
{
    c->held = arena_alloc(c->ctx, (size_t)pairs, 1);
    if (!c->held) return SLG_ERR_MEMORY;
    memset(c->held, 0, (size_t)pairs);
    const rows m = rows_of(place);
    for (int64_t r = 0; r < m.count; r++)
        for (int64_t j = 0; j < m.cols; j++) {
            const int32_t p = *moe_int(&m, r, j);
            if (p >= 0 && c->held[p])
                return slg_fail(c->ctx, SLG_ERR_RANGE, "place holds %d twice, row %lld last", p,
                                (long long)r);
            if (p >= 0) c->held[p] = 1;
        }
    return SLG_OK;
}

static slg_status backward(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *place,
                           const slg_tensor *weight, const slg_tensor *dy, const slg_tensor *dh,
                           const slg_tensor *dweight)
{
    move_call c = { .ctx = ctx, .weighs = weight, .has_h = dh, .has_dweight = dweight };
    SLG_TRY(tensor_in(ctx, "place", place, DT_I32, 2, 2));
    SLG_TRY(moe_in(ctx, "dy", dy, DT_ROW, place->shape[0], -1));
    c.dim = dy->shape[1];
    if (dweight || h) SLG_TRY(moe_in(ctx, "h", h, DT_ROW, -1, c.dim));
    if (dh) SLG_TRY(moe_out(ctx, "dh", dh, DT_ROW, h ? h->shape[0] : -1, c.dim));
    if (weight)
        SLG_TRY(moe_in(ctx, "weight", weight, DT_ROW, place->shape[0], place->shape[1]));
    if (dweight)
        SLG_TRY(moe_out(ctx, "dweight", dweight, DT_ROW, place->shape[0], place->shape[1]));
    if (!dh && !dweight) return SLG_OK;
    const moe_operand in[] = {
        { "h", h }, { "place", place }, { "weight", weight }, { "dy", dy }
    };
    const moe_operand out[] = { { "dh", dh }, { "dweight", dweight } };
    SLG_TRY(moe_apart(ctx, 2, out, 4, in));
    const int64_t pairs = h ? h->shape[0] : dh->shape[0];
    SLG_TRY(moe_indices(ctx, "place", place, -1, pairs));
    SLG_TRY(hold(&c, place, pairs));
    op_detail(ctx, dy);
    c.place = rows_of(place), c.dy = rows_of(dy);
    if (h) c.from = rows_of(h);
    if (dh) c.to = rows_of(dh);
    if (weight) c.weight = rows_of(weight);
    if (dweight) c.dweight = rows_of(dweight);
    SLG_TRY(scratch_of(&c));
    for (int64_t p = 0; dh && p < pairs; p++)
        if (!c.held[p]) zero_row(&c, p, c.scratch);
    pool_run(ctx, tasks_of(c.dy.count), back_task, &c);
    return SLG_OK;
}

slg_status slg_moe_combine_backward(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *place,
                                    const slg_tensor *weight, const slg_tensor *dy,
                                    slg_tensor *dh, slg_tensor *dweight)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_combine_backward");
    return op_end(ctx, backward(ctx, h, place, weight, dy, dh, dweight));
}
