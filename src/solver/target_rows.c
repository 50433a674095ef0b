/*
 * target_rows.c - see target_rows.h. Pieces depend on the shape alone, each has its own sums,
 * and these are added in order: so threads change no bit.
 */
#include "target_rows.h"

#include <string.h>

/* Elements of a task. */
enum { TASK = 1 << 15 };

typedef struct walk_run {
    const target_walk *w;
    const kernel_table *k;
    int64_t pieces, per_row, per_task;
    double (*sums)[TARGET_SUMS];
    float *scratch;
} walk_run;

static void walk_task(void *arg, int64_t task, int32_t worker)
{
    const walk_run *r = arg;
    const target_walk *w = r->w;
    float *scratch = r->scratch + (int64_t)worker * TARGET_BLOCKS * KERNEL_BLOCK;
    int64_t last = (task + 1) * r->per_task;
    if (last > r->pieces) last = r->pieces;
    for (int64_t i = task * r->per_task; i < last; i++) {
        const int64_t row = i / r->per_row, col = i % r->per_row * ROW_SEGMENT;
        int64_t n = w->cols - col;
        if (!w->whole && n > ROW_SEGMENT) n = ROW_SEGMENT;
        memset(r->sums[i], 0, sizeof r->sums[i]);
        w->fn(r->k, w->arg, row, col, n, scratch, r->sums[i]);
        if (w->row_done) w->row_done(w->arg, row, r->sums[i]);
    }
}

slg_status target_walk_run(slg_ctx *ctx, const target_walk *w, double total[TARGET_SUMS])
{
    memset(total, 0, TARGET_SUMS * sizeof *total);
    walk_run r = { .w = w, .k = &ctx->k, .per_row = 1 };
    if (!w->whole) r.per_row = (w->cols + ROW_SEGMENT - 1) / ROW_SEGMENT;
    r.pieces = w->rows * r.per_row;
    if (r.pieces == 0) return SLG_OK;
    const int64_t size = w->cols / r.per_row + 1;
    r.per_task = size >= TASK ? 1 : TASK / size;
    const arena_mark_t mark = arena_mark(ctx);
    r.sums = arena_alloc(ctx, (size_t)r.pieces, sizeof *r.sums);
    r.scratch = arena_alloc(ctx, (size_t)ctx->num_threads * TARGET_BLOCKS * KERNEL_BLOCK,
                            sizeof *r.scratch);
    if (!r.sums || !r.scratch) return SLG_ERR_MEMORY;
    pool_run(ctx, (r.pieces + r.per_task - 1) / r.per_task, walk_task, &r);
    for (int64_t i = 0; i < r.pieces; i++)
        for (int j = 0; j < TARGET_SUMS; j++) total[j] += r.sums[i][j];
    arena_release(ctx, mark);
    return SLG_OK;
}

/* [n, m] as a vector, where it is one. */
static bool as_vector(const slg_tensor *t, slg_tensor *v)
{
    const int64_t n = t->shape[0], m = t->shape[1];
    if (!tensor_contiguous(t) && m != 1) return false;
    *v = (slg_tensor){ .data = t->data, .dtype = t->dtype, .ndim = 1 };
    v->shape[0] = n * m;
    v->stride[0] = m == 1 ? t->stride[0] : 1;
    return true;
}

void target_operands_open(target_operands *o, bool by_row)
{
    slg_tensor v[TARGET_OPERANDS];
    bool flat = !by_row;
    for (int i = 0; i < TARGET_OPERANDS && flat; i++)
        if (o->t[i]) flat = as_vector(o->t[i], &v[i]);
    for (int i = TARGET_OPERANDS - 1; i >= 0; i--) {
        if (!o->t[i]) continue;
        o->r[i] = rows_of(flat ? &v[i] : o->t[i]);
        o->count = o->r[i].count, o->cols = o->r[i].cols;
    }
}

slg_status target_like(slg_ctx *ctx, const char *name, const slg_tensor *t,
                       const slg_tensor *like, bool out)
{
    if (!t) return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", name);
    SLG_TRY(out ? tensor_out(ctx, name, t, DT_ROW, 2, 2)
                : tensor_in(ctx, name, t, DT_ROW, 2, 2));
    return like ? tensor_shape_is(ctx, name, t, 2, like->shape) : SLG_OK;
}
