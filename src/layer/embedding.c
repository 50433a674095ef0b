/*
 * embedding.c - rows of a table by index, and their gradient added back. Backward, threads
 * share out columns and not rows: each weight adds up its terms in the order of the rows.
 */
#include <string.h>

#include "column_sums.h"

enum { ROWS_A_TASK = 64, COLS_A_TASK = 128, PIECE = 512 };

static const slg_embedding_opts defaults = { .size = sizeof(slg_embedding_opts),
                                             .padding = -1 };

void slg_embedding_opts_init(slg_embedding_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open_options(slg_ctx *ctx, const slg_embedding_opts *given,
                               slg_embedding_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "accumulate", o->accumulate, 0, 1));
    return SLG_OK;
}

/* Checks the table's, the index's and the rows' shapes, and every index. */
static slg_status check(slg_ctx *ctx, const slg_tensor *index, const char *name,
                        const slg_tensor *x, const slg_tensor *table, int64_t padding)
{
    SLG_TRY(tensor_in(ctx, "index", index, DT_INT, 1, 3));
    int64_t shape[4] = { 0 };
    memcpy(shape, index->shape, (size_t)index->ndim * sizeof *shape);
    shape[index->ndim] = table->shape[1];
    SLG_TRY(tensor_shape_is(ctx, name, x, index->ndim + 1, shape));
    const rows m = rows_per_row(index);
    for (int64_t i = 0; i < m.count; i++) {
        const int64_t at = rows_get_int(&m, i, 0);
        if ((at < 0 || at >= table->shape[0]) && at != padding)
            return slg_fail(ctx, SLG_ERR_RANGE, "index[%lld] is %lld, weight has %lld entries",
                            (long long)i, (long long)at, (long long)table->shape[0]);
    }
    return SLG_OK;
}

typedef struct job {
    const kernel_table *k;
    rows index, table, x; /* x: y, or dy */
    bool accumulate;
    int64_t padding;
} job;

/* ---- Forward ----------------------------------------------------------------------------- */

static void gather_row(const job *j, int64_t r)
{
    const int64_t at = rows_get_int(&j->index, r, 0), cols = j->x.cols;
    if (at == j->padding && j->accumulate) return;
    for (int64_t c = 0; c < cols; c += PIECE) {
        const int64_t n = cols - c < PIECE ? cols - c : PIECE;
        float zeros[PIECE], from[PIECE], to[PIECE];
        const float *w = at == j->padding ? memset(zeros, 0, sizeof zeros)
                                          : rows_fetch(j->k, &j->table, at, c, n, from);
        float *y = rows_stage(&j->x, r, c, to);
        if (!j->accumulate) {
            memcpy(y, w, (size_t)n * sizeof *y);
        } else {
            if (!j->x.plain) rows_fetch(j->k, &j->x, r, c, n, to);
            j->k->add((size_t)n, w, y);
        }
        rows_commit(j->k, &j->x, r, c, n, to);
    }
}

static void gather(void *arg, int64_t task, int32_t worker)
{
    const job *j = arg;
    const int64_t first = task * ROWS_A_TASK;
    (void)worker;
    for (int64_t r = first; r < j->x.count && r < first + ROWS_A_TASK; r++) gather_row(j, r);
}

static slg_status embedding(slg_ctx *ctx, const slg_tensor *weight, const slg_tensor *index,
                            const slg_embedding_opts *opts, slg_tensor *y)
{
    slg_embedding_opts o;
    SLG_TRY(open_options(ctx, opts, &o));
    SLG_TRY(tensor_in(ctx, "weight", weight, DT_ROW, 2, 2));
    SLG_TRY(tensor_out(ctx, "y", y, DT_ROW, 2, 4));
    SLG_TRY(check(ctx, index, "y", y, weight, o.padding));
    SLG_TRY(layer_apart(ctx, "y", y, "weight", weight, false));
    SLG_TRY(layer_apart(ctx, "y", y, "index", index, false));
    op_detail(ctx, y);
    if (tensor_size(y) == 0) return SLG_OK;
    job j = {
        &ctx->k, rows_per_row(index), rows_of(weight), rows_of(y), o.accumulate, o.padding
    };
    pool_run(ctx, (j.x.count + ROWS_A_TASK - 1) / ROWS_A_TASK, gather, &j);
    return SLG_OK;
}

slg_status slg_embedding(slg_ctx *ctx, const slg_tensor *weight, const slg_tensor *index,
                         const slg_embedding_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_embedding");
    return op_end(ctx, embedding(ctx, weight, index, opts, y));
}

/* ---- Backward ---------------------------------------------------------------------------- */

static void scatter(void *arg, int64_t task, int32_t worker)
{
    const job *j = arg;
    const int64_t c = task * COLS_A_TASK;
    const int64_t n = j->x.cols - c < COLS_A_TASK ? j->x.cols - c : COLS_A_TASK;
    (void)worker;
    for (int64_t r = 0; r < j->x.count; r++) {
        const int64_t at = rows_get_int(&j->index, r, 0);
        float from[COLS_A_TASK];
        if (at == j->padding) continue;
        const float *dy = rows_fetch(j->k, &j->x, r, c, n, from);
        j->k->add((size_t)n, dy, rows_stage(&j->table, at, c, NULL));
    }
}

static slg_status embedding_backward(slg_ctx *ctx, const slg_tensor *index,
                                     const slg_tensor *dy, const slg_embedding_opts *opts,
                                     slg_tensor *dweight)
{
    slg_embedding_opts o;
    SLG_TRY(open_options(ctx, opts, &o));
    SLG_TRY(tensor_in(ctx, "dy", dy, DT_ROW, 2, 4));
    SLG_TRY(tensor_out(ctx, "dweight", dweight, DT_F32, 2, 2));
    if (dweight->shape[1] > 1 && dweight->stride[1] != 1)
        return slg_fail(ctx, SLG_ERR_STRIDE, "rows of dweight must be contiguous");
    SLG_TRY(check(ctx, index, "dy", dy, dweight, o.padding));
    SLG_TRY(layer_apart(ctx, "dweight", dweight, "dy", dy, false));
    SLG_TRY(layer_apart(ctx, "dweight", dweight, "index", index, false));
    op_detail(ctx, dy);
    if (tensor_size(dy) == 0) return SLG_OK;
    job j = { &ctx->k, rows_per_row(index), rows_of(dweight), rows_of(dy), true, o.padding };
    pool_run(ctx, (j.x.cols + COLS_A_TASK - 1) / COLS_A_TASK, scatter, &j);
    return SLG_OK;
}

slg_status slg_embedding_backward(slg_ctx *ctx, const slg_tensor *index, const slg_tensor *dy,
                                  const slg_embedding_opts *opts, slg_tensor *dweight)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_embedding_backward");
    return op_end(ctx, embedding_backward(ctx, index, dy, opts, dweight));
}
