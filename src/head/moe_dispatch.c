/*
 * moe_dispatch.c - the rows of each expert: a counting sort of the pairs (row, choice). Rows go
 * in chunks that depend on their number alone: each counts its own, and then knows where in
 * every expert's list its pairs begin.
 */
#include "moe_common.h"

enum { CHUNK_PAIRS = 1 << 14, MOST_CHUNKS = 64 };

static const slg_moe_dispatch_opts defaults = { .size = sizeof(slg_moe_dispatch_opts) };

void slg_moe_dispatch_opts_init(slg_moe_dispatch_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct dispatch_call {
    slg_ctx *ctx;
    slg_moe_dispatch_opts opts;
    int64_t experts, chunk_rows, chunks;
    rows index, place, token;
    bool has_place;
    unsigned char *kept; /* [rows, K] with a capacity */
    int64_t *at;         /* [chunks, experts]: counts, then where the next pair goes */
} dispatch_call;

/* The expert of a pair, or -1. */
static int32_t expert_of(const dispatch_call *c, int64_t r, int64_t j)
{
    if (c->kept && !c->kept[r * c->index.cols + j]) return -1;
    return *moe_int(&c->index, r, j);
}

static void count_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const dispatch_call *c = arg;
    const int64_t first = chunk * c->chunk_rows;
    const int64_t end = moe_least(c->index.count, first + c->chunk_rows);
    int64_t *at = c->at + chunk * c->experts;
    (void)worker;
    for (int64_t i = 0; i < c->experts; i++) at[i] = 0;
    for (int64_t r = first; r < end; r++)
        for (int64_t j = 0; j < c->index.cols; j++) {
            const int32_t i = expert_of(c, r, j);
            if (i >= 0) at[i]++;
        }
}

static void place_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const dispatch_call *c = arg;
    const int64_t first = chunk * c->chunk_rows;
    const int64_t end = moe_least(c->index.count, first + c->chunk_rows);
    int64_t *at = c->at + chunk * c->experts;
    (void)worker;
    for (int64_t r = first; r < end; r++)
        for (int64_t j = 0; j < c->index.cols; j++) {
            const int32_t i = expert_of(c, r, j);
            const int64_t to = i < 0 ? -1 : at[i]++;
            if (i >= 0) *moe_int(&c->token, 0, to) = (int32_t)r;
            if (c->has_place) *moe_int(&c->place, r, j) = (int32_t)to;
        }
}

/* First choices of all rows, then second ones: as long as their expert has room. */
static void keep_within(dispatch_call *c)
{
    const int64_t cols = c->index.cols;
    int64_t *taken = c->at;
    for (int64_t i = 0; i < c->experts; i++) taken[i] = 0;
    for (int64_t j = 0; j < cols; j++)
        for (int64_t r = 0; r < c->index.count; r++) {
            const int32_t i = *moe_int(&c->index, r, j);
            c->kept[r * cols + j] = i >= 0 && taken[i] < c->opts.capacity;
            if (i >= 0) taken[i]++;
        }
}

static slg_status check(dispatch_call *c, const slg_tensor *index, const slg_tensor *offset,
                        const slg_tensor *token, const slg_tensor *place)
{
    slg_ctx *ctx = c->ctx;
    int64_t pairs;
    SLG_TRY(option_reserved(ctx, "reserved", c->opts.reserved));
    if (c->opts.capacity < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "capacity is %lld, must be at least 0",
                        (long long)c->opts.capacity);
    SLG_TRY(tensor_in(ctx, "index", index, DT_I32, 2, 2));
    SLG_TRY(moe_out_1d(ctx, "offset", offset, DT_I64, -1));
    if (offset->shape[0] < 1)
        return slg_fail(ctx, SLG_ERR_SHAPE, "offset has 0 entries, needs experts + 1");
    c->experts = offset->shape[0] - 1;
    if (__builtin_mul_overflow(index->shape[0], index->shape[1], &pairs) || pairs > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_SHAPE, "index has %lld x %lld pairs, at most %d can be",
                        (long long)index->shape[0], (long long)index->shape[1], INT32_MAX);
    SLG_TRY(moe_out_1d(ctx, "token", token, DT_I32, pairs));
    if (place) SLG_TRY(moe_out(ctx, "place", place, DT_I32, index->shape[0], index->shape[1]));
    const moe_operand in[] = { { "index", index } };
    const moe_operand out[] = { { "offset", offset }, { "token", token }, { "place", place } };
    SLG_TRY(moe_apart(ctx, 3, out, 1, in));
    return moe_indices(ctx, "index", index, -1, c->experts);
}

static slg_status dispatch(slg_ctx *ctx, const slg_tensor *index,
                           const slg_moe_dispatch_opts *opts, const slg_tensor *offset,
                           const slg_tensor *token, const slg_tensor *place)
{
    dispatch_call c = { .ctx = ctx, .opts = defaults, .has_place = place != NULL };
    SLG_TRY(options_read(ctx, "opts", opts, &c.opts, sizeof c.opts));
    SLG_TRY(check(&c, index, offset, token, place));
    op_detail(ctx, index);
    c.index = rows_of(index), c.token = rows_of(token);
    if (place) c.place = rows_of(place);
    const int64_t pairs = c.token.cols, cols = c.index.cols;
    int64_t chunks = pairs / CHUNK_PAIRS + 1;
    if (chunks > MOST_CHUNKS) chunks = MOST_CHUNKS;
    c.chunk_rows = (c.index.count + chunks - 1) / chunks;
    c.chunks = c.chunk_rows > 0 ? (c.index.count + c.chunk_rows - 1) / c.chunk_rows : 0;
    c.at = arena_alloc(ctx, (size_t)((c.chunks + 1) * c.experts), sizeof *c.at);
    if (!c.at) return SLG_ERR_MEMORY;
    if (c.opts.capacity > 0) {
        c.kept = arena_alloc(ctx, (size_t)(c.index.count * cols), 1);
        if (!c.kept) return SLG_ERR_MEMORY;
        keep_within(&c);
    }
    pool_run(ctx, c.chunks, count_chunk, &c);
    const rows out = rows_of(offset);
    int64_t next = 0;
    for (int64_t i = 0; i < c.experts; i++) {
        *((int64_t *)(void *)rows_at(&out, 0) + i * out.col_stride) = next;
        for (int64_t chunk = 0; chunk < c.chunks; chunk++) {
            const int64_t count = c.at[chunk * c.experts + i];
            c.at[chunk * c.experts + i] = next;
            next += count;
        }
    }
    *((int64_t *)(void *)rows_at(&out, 0) + c.experts * out.col_stride) = next;
    pool_run(ctx, c.chunks, place_chunk, &c);
    for (int64_t p = next; p < pairs; p++) *moe_int(&c.token, 0, p) = -1;
    return SLG_OK;
}

slg_status slg_moe_dispatch(slg_ctx *ctx, const slg_tensor *index,
                            const slg_moe_dispatch_opts *opts, slg_tensor *offset,
                            slg_tensor *token, slg_tensor *place)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_dispatch");
    return op_end(ctx, dispatch(ctx, index, opts, offset, token, place));
}
