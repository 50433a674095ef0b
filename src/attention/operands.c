/*
 * operands.c - see operands.h.
 */
#include "operands.h"

#include <math.h>

#include "softmax/parts.h"

static slg_status fits(slg_ctx *ctx, const operand *o)
{
    SLG_TRY(tensor_shape_is(ctx, o->name, o->t, o->axes, o->shape));
    if (o->rows) *o->rows = rows_of(o->t);
    return SLG_OK;
}

slg_status operands_in(slg_ctx *ctx, const operand *in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (in[i].rows) *in[i].rows = (rows){ 0 };
        if (!in[i].t && !in[i].needed) continue;
        SLG_TRY(tensor_in(ctx, in[i].name, in[i].t, in[i].dtypes, in[i].axes, in[i].axes));
        SLG_TRY(fits(ctx, &in[i]));
    }
    return SLG_OK;
}

/* b may be NULL. */
static bool overlap(const slg_tensor *a, const slg_tensor *b)
{
    return b && tensor_size(a) > 0 && tensor_size(b) > 0 && outputs_clash(a, b);
}

slg_status operands_out(slg_ctx *ctx, const operand *out, size_t count, const operand *in,
                        size_t inputs)
{
    for (size_t i = 0; i < count; i++) {
        const operand *o = &out[i];
        if (o->rows) *o->rows = (rows){ 0 };
        if (!o->t && !o->needed) continue;
        SLG_TRY(tensor_out(ctx, o->name, o->t, o->dtypes, o->axes, o->axes));
        SLG_TRY(fits(ctx, o));
        for (size_t j = 0; j < inputs; j++) {
            const bool same = in[j].t && in[j].t == o->may_be;
            if (same ? tensor_clash(o->t, in[j].t) : overlap(o->t, in[j].t))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", o->name, in[j].name);
        }
        for (size_t j = 0; j < i; j++)
            if (out[j].t && overlap(o->t, out[j].t))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", o->name, out[j].name);
    }
    return SLG_OK;
}

slg_status matrix_doubles(slg_ctx *ctx, const rows *m, int64_t d, double **to)
{
    *to = arena_alloc(ctx, (size_t)d * (size_t)d, sizeof **to);
    if (!*to) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < d; i++) {
        if (m->data) row_doubles(m, i, *to + i * d);
        for (int64_t j = 0; j < d && !m->data; j++) (*to)[i * d + j] = i == j ? 1 : 0;
    }
    return SLG_OK;
}

slg_status matrix_symmetric(slg_ctx *ctx, const char *name, int64_t d, const double *a)
{
    double most = 0;
    for (int64_t i = 0; i < d * d; i++) {
        if (!isfinite(a[i]))
            return slg_fail(ctx, SLG_ERR_RANGE, "%s[%lld, %lld] is %g, must be finite", name,
                            (long long)(i / d), (long long)(i % d), a[i]);
        most = fmax(most, fabs(a[i]));
    }
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < i; j++)
            if (fabs(a[i * d + j] - a[j * d + i]) > 1e-5 * most)
                return slg_fail(ctx, SLG_ERR_RANGE,
                                "%s is not symmetric: [%lld, %lld] is %g, [%lld, %lld] is %g",
                                name, (long long)i, (long long)j, a[i * d + j], (long long)j,
                                (long long)i, a[j * d + i]);
    return SLG_OK;
}
