/*
 * dropout.c - elements or rows that are dropped, by numbers of a counter: the gradient draws
 * them again instead of reading a mask.
 */
#include <string.h>

#include "column_sums.h"
#include "core/rng.h"

static const slg_dropout_opts defaults = { .size = sizeof(slg_dropout_opts),
                                           .probability = 0.1 };

enum { ROWS_A_TASK = 16, PIECE = 512 };

void slg_dropout_opts_init(slg_dropout_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct job {
    const kernel_table *k;
    rows x, y;
    slg_rng rng;
    bool whole_rows;
    double limit; /* dropped where a 32-bit number is below */
    float scale;
} job;

static bool dropped(const job *j, int64_t i)
{
    const uint64_t number = rng_number(j->rng.seed, j->rng.offset + (uint64_t)i / 2);
    return (double)(i % 2 ? number >> 32 : number & UINT32_MAX) < j->limit;
}

/* Columns [c, c + n) of row r; both halves of a number are used while it is at hand. */
static void drop_piece(const job *j, int64_t r, int64_t c, int64_t n)
{
    float from[PIECE], to[PIECE];
    const float *x = rows_fetch(j->k, &j->x, r, c, n, from);
    float *y = rows_stage(&j->y, r, c, to);
    const int64_t first = r * j->x.cols + c;
    uint64_t number = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = first + i;
        if (i == 0 || at % 2 == 0)
            number = rng_number(j->rng.seed, j->rng.offset + (uint64_t)at / 2);
        const double half = (double)(at % 2 ? number >> 32 : number & UINT32_MAX);
        y[i] = half < j->limit ? 0.0f : x[i] * j->scale;
    }
    rows_commit(j->k, &j->y, r, c, n, to);
}

static void keep_piece(const job *j, int64_t r, int64_t c, int64_t n, bool drop)
{
    float from[PIECE], to[PIECE];
    const float *x = rows_fetch(j->k, &j->x, r, c, n, from);
    float *y = rows_stage(&j->y, r, c, to);
    if (drop)
        memset(y, 0, (size_t)n * sizeof *y);
    else
        j->k->scale((size_t)n, x, j->scale, y);
    rows_commit(j->k, &j->y, r, c, n, to);
}

static void task(void *arg, int64_t number, int32_t worker)
{
    const job *j = arg;
    const int64_t first = number * ROWS_A_TASK, cols = j->x.cols;
    (void)worker;
    for (int64_t r = first; r < j->x.count && r < first + ROWS_A_TASK; r++) {
        const bool single = !j->whole_rows && j->limit > 0;
        const bool drop = !single && j->limit > 0 && dropped(j, r);
        for (int64_t c = 0; c < cols; c += PIECE) {
            const int64_t n = cols - c < PIECE ? cols - c : PIECE;
            if (single)
                drop_piece(j, r, c, n);
            else
                keep_piece(j, r, c, n, drop);
        }
    }
}

static slg_status dropout(slg_ctx *ctx, const slg_tensor *x, const slg_rng *rng,
                          const slg_dropout_opts *opts, slg_tensor *y)
{
    slg_dropout_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    if (o.rows < 0 || o.rows > 1)
        return slg_fail(ctx, SLG_ERR_RANGE, "rows is %d, must be 0 or 1", o.rows);
    if (!(o.probability >= 0 && o.probability < 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "probability is %g, must be from 0 to below 1",
                        o.probability);
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 1, 4));
    SLG_TRY(tensor_out(ctx, "y", y, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "y", y, "x", x));
    SLG_TRY(layer_apart(ctx, "y", y, "x", x, true));
    if (!rng) return slg_fail(ctx, SLG_ERR_NULL, "rng is NULL");
    op_detail(ctx, x);
    if (tensor_size(x) == 0) return SLG_OK;
    job j = { &ctx->k,
              rows_of(x),
              rows_of(y),
              *rng,
              o.rows,
              o.probability * 0x1p32,
              (float)(1 / (1 - o.probability)) };
    pool_run(ctx, (j.x.count + ROWS_A_TASK - 1) / ROWS_A_TASK, task, &j);
    return SLG_OK;
}

slg_status slg_dropout(slg_ctx *ctx, const slg_tensor *x, const slg_rng *rng,
                       const slg_dropout_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_dropout");
    return op_end(ctx, dropout(ctx, x, rng, opts, y));
}
