/*
 * permutation.c - see rng.h and slg_permutation in softlogit/core.h. Fisher and Yates's swaps,
 * each from a number of its own: item i of a draw is a function of (seed, offset) and i alone.
 */
#include "rng.h"
#include "tensor.h"

/* A number below n: the bias, n / 2^64, is none that could be seen. */
static int64_t below(uint64_t seed, uint64_t index, int64_t n)
{
    return (int64_t)((unsigned __int128)rng_number(seed, index) * (uint64_t)n >> 64);
}

void rng_draw_rows(uint64_t seed, uint64_t offset, int64_t n, int64_t count, int64_t *items)
{
    for (int64_t i = 0; i < count; i++) {
        const int64_t j = i + below(seed, offset + (uint64_t)i, n - i), item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}

static slg_status permute(slg_ctx *ctx, slg_rng *rng, int64_t n, slg_tensor *out)
{
    if (!rng) return slg_fail(ctx, SLG_ERR_NULL, "rng is NULL");
    SLG_TRY(tensor_out(ctx, "out", out, DT_INT, 1, 1));
    const int64_t count = out->shape[0];
    const int64_t most = out->dtype == SLG_I32 ? INT32_MAX : (int64_t)1 << 53;
    if (n < count || n > most)
        return slg_fail(ctx, SLG_ERR_RANGE, "n is %lld, must be from %lld, out's size, to %lld",
                        (long long)n, (long long)count, (long long)most);
    int64_t *items = arena_alloc(ctx, (size_t)n, sizeof *items);
    if (!items) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++) items[i] = i;
    rng_draw_rows(rng->seed, rng->offset, n, count, items);
    const rows r = rows_of(out);
    for (int64_t i = 0; i < count; i++) rows_put(&r, 0, i, (double)items[i]);
    rng->offset += (uint64_t)count;
    return SLG_OK;
}

slg_status slg_permutation(slg_ctx *ctx, slg_rng *rng, int64_t n, slg_tensor *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_permutation");
    return op_end(ctx, permute(ctx, rng, n, out));
}
