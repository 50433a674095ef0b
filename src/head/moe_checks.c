/*
 * moe_checks.c - see moe_common.h: checks of operands, and operands as vectors and matrices.
 */
#include "moe_common.h"

slg_status moe_apart(slg_ctx *ctx, size_t outs, const moe_operand *out, size_t ins,
                     const moe_operand *in)
{
    for (size_t i = 0; i < outs; i++) {
        const slg_tensor *t = out[i].t;
        if (!t || tensor_size(t) == 0) continue;
        for (size_t j = 0; j < ins + i; j++) {
            const moe_operand *other = j < ins ? &in[j] : &out[j - ins];
            if (!other->t || tensor_size(other->t) == 0) continue;
            if (tensor_clash(t, other->t) || t->data == other->t->data)
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", out[i].name,
                                other->name);
        }
    }
    return SLG_OK;
}

static slg_status shape_is(slg_ctx *ctx, const char *name, const slg_tensor *t, int32_t ndim,
                           int64_t rows_count, int64_t cols)
{
    const int64_t shape[2] = { rows_count < 0 ? t->shape[0] : rows_count,
                               ndim < 2 || cols < 0 ? t->shape[1] : cols };
    return tensor_shape_is(ctx, name, t, ndim, shape);
}

slg_status moe_in(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                  int64_t rows_count, int64_t cols)
{
    SLG_TRY(tensor_in(ctx, name, t, dtypes, 2, 2));
    return shape_is(ctx, name, t, 2, rows_count, cols);
}

slg_status moe_out(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                   int64_t rows_count, int64_t cols)
{
    SLG_TRY(tensor_out(ctx, name, t, dtypes, 2, 2));
    return shape_is(ctx, name, t, 2, rows_count, cols);
}

slg_status moe_in_1d(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                     int64_t size)
{
    SLG_TRY(tensor_in(ctx, name, t, dtypes, 1, 1));
    return shape_is(ctx, name, t, 1, size, -1);
}

slg_status moe_out_1d(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                      int64_t size)
{
    SLG_TRY(tensor_out(ctx, name, t, dtypes, 1, 1));
    return shape_is(ctx, name, t, 1, size, -1);
}

slg_status moe_indices(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t low,
                       int64_t high)
{
    const rows m = rows_of(t);
    for (int64_t r = 0; r < m.count; r++)
        for (int64_t c = 0; c < m.cols; c++) {
            const int32_t i = *moe_int(&m, r, c);
            if (i < low || i >= high)
                return slg_fail(ctx, SLG_ERR_RANGE,
                                "%s holds %d at row %lld, must be from %lld to %lld", name, i,
                                (long long)r, (long long)low, (long long)high - 1);
        }
    return SLG_OK;
}

double *moe_vector(slg_ctx *ctx, const slg_tensor *t, int64_t size)
{
    double *to = arena_alloc(ctx, (size_t)size, sizeof *to);
    if (!to) return NULL;
    for (int64_t i = 0; i < size; i++) to[i] = 0;
    if (!t) return to;
    const rows m = rows_of(t);
    for (int64_t i = 0; i < size; i++) to[i] = rows_get(&m, 0, i);
    return to;
}

const float *moe_floats(slg_ctx *ctx, const slg_tensor *t)
{
    if (t->dtype == SLG_F32 && tensor_contiguous(t)) return t->data;
    const rows m = rows_of(t);
    float *to = arena_alloc(ctx, (size_t)(m.count * m.cols), sizeof *to);
    for (int64_t r = 0; to && r < m.count; r++) {
        float *row = to + r * m.cols;
        const float *from = rows_fetch(&ctx->k, &m, r, 0, m.cols, row);
        if (from != row) memcpy(row, from, (size_t)m.cols * sizeof *row);
    }
    return to;
}

const double *moe_doubles(slg_ctx *ctx, const slg_tensor *t)
{
    if (t->dtype == SLG_F64 && tensor_contiguous(t)) return t->data;
    const rows m = rows_of(t);
    double *to = arena_alloc(ctx, (size_t)(m.count * m.cols), sizeof *to);
    for (int64_t r = 0; to && r < m.count; r++)
        for (int64_t c = 0; c < m.cols; c++) to[r * m.cols + c] = rows_get(&m, r, c);
    return to;
}

void moe_put(const slg_tensor *t, const double *from, bool add)
{
    if (!t) return;
    const rows m = rows_of(t);
    for (int64_t r = 0; r < m.count; r++)
        for (int64_t c = 0; c < m.cols; c++)
            rows_put(&m, r, c, from[r * m.cols + c] + (add ? rows_get(&m, r, c) : 0));
}
