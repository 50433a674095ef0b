/*
 * column_sums.c - sums over rows, by chunks; and the checks of column_sums.h.
 */
#include <string.h>

#include "column_sums.h"

enum { CHUNK_ROWS = 16, CHUNKS_MAX = 256 };

slg_status layer_apart(slg_ctx *ctx, const char *out_name, const slg_tensor *out,
                       const char *in_name, const slg_tensor *in, bool may_be)
{
    if (!out || !in || tensor_size(out) == 0 || tensor_size(in) == 0) return SLG_OK;
    if (!tensor_clash(out, in) && (may_be || out->data != in->data)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s%s", out_name, in_name,
                    may_be ? ", and is not the same view" : "");
}

static slg_status vector_shape(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t dim)
{
    return tensor_shape_is(ctx, name, t, 1, &dim);
}

slg_status layer_vector(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t dim,
                        const float **at)
{
    *at = NULL;
    if (!t) return SLG_OK;
    SLG_TRY(tensor_in(ctx, name, t, DT_ROW, 1, 1));
    SLG_TRY(vector_shape(ctx, name, t, dim));
    const rows m = rows_of(t);
    float *scratch = NULL;
    if (!m.plain && !(scratch = arena_alloc(ctx, (size_t)dim, sizeof *scratch)))
        return SLG_ERR_MEMORY;
    *at = rows_fetch(&ctx->k, &m, 0, 0, dim, scratch);
    return SLG_OK;
}

slg_status layer_vector_out(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t dim)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(ctx, name, t, DT_F32, 1, 1));
    return vector_shape(ctx, name, t, dim);
}

slg_status column_sums_open(slg_ctx *ctx, int64_t count, int64_t dim, bool first, bool second,
                            column_sums *s)
{
    const int64_t least = (count + CHUNKS_MAX - 1) / CHUNKS_MAX;
    const bool wanted[2] = { first, second };
    *s = (column_sums){ .count = count, .dim = dim };
    s->chunk_rows = least > CHUNK_ROWS ? least : CHUNK_ROWS;
    s->chunks = (count + s->chunk_rows - 1) / s->chunk_rows;
    for (int i = 0; i < 2; i++) {
        if (!wanted[i]) continue;
        s->part[i] = arena_alloc(ctx, (size_t)s->chunks * (size_t)dim, sizeof(float));
        if (!s->part[i]) return SLG_ERR_MEMORY;
    }
    return SLG_OK;
}

int64_t column_sums_chunk(const column_sums *s, int64_t chunk, int64_t *first, float *sum[2])
{
    const int64_t end = (chunk + 1) * s->chunk_rows;
    *first = chunk * s->chunk_rows;
    for (int i = 0; i < 2; i++) {
        sum[i] = s->part[i] ? s->part[i] + chunk * s->dim : NULL;
        if (sum[i]) memset(sum[i], 0, (size_t)s->dim * sizeof(float));
    }
    return end < s->count ? end : s->count;
}

void column_sums_close(const column_sums *s, int which, bool accumulate, const slg_tensor *out)
{
    enum { BLOCK = 256 };
    if (!out) return;
    const rows m = rows_of(out);
    for (int64_t c = 0; c < s->dim; c += BLOCK) {
        const int64_t n = s->dim - c < BLOCK ? s->dim - c : BLOCK;
        double sum[BLOCK] = { 0 };
        for (int64_t j = 0; j < s->chunks; j++) {
            const float *part = s->part[which] + j * s->dim + c;
            for (int64_t i = 0; i < n; i++) sum[i] += (double)part[i];
        }
        for (int64_t i = 0; i < n; i++) {
            if (accumulate) sum[i] += rows_get(&m, 0, c + i);
            rows_put(&m, 0, c + i, sum[i]);
        }
    }
}
