/*
 * linear.c - the linear layer: GEMMs of BLAS between tensors of any type and stride.
 */
#include <string.h>

#include "core/blas.h"
#include "column_sums.h"

static const slg_linear_opts defaults = { .size = sizeof(slg_linear_opts) };

void slg_linear_opts_init(slg_linear_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* A matrix as BLAS takes it. */
typedef struct matrix {
    rows m;
    float *at;
    int64_t ld;
    bool copy; /* at is scratch: m's rows, converted */
} matrix;

static bool blas_can(const rows *m)
{
    return m->plain && m->outer <= 1 &&
           (m->count <= 1 || m->outer == 0 || m->stride[0] >= m->cols);
}

/* The tensor's own memory, or scratch. */
static slg_status matrix_of(slg_ctx *ctx, const slg_tensor *t, matrix *a)
{
    *a = (matrix){ .m = rows_of(t) };
    if (blas_can(&a->m)) {
        a->at = (float *)(void *)a->m.data;
        a->ld = a->m.outer == 1 ? a->m.stride[0] : a->m.cols;
        return SLG_OK;
    }
    a->copy = true;
    a->ld = a->m.cols;
    a->at = arena_alloc(ctx, (size_t)a->m.count * (size_t)a->m.cols, sizeof(float));
    return a->at ? SLG_OK : SLG_ERR_MEMORY;
}

typedef struct copy_job {
    const kernel_table *k;
    const matrix *a;
    bool back;
} copy_job;

static void copy_row(void *arg, int64_t r, int32_t worker)
{
    const copy_job *j = arg;
    const matrix *a = j->a;
    float *to = a->at + r * a->ld;
    (void)worker;
    if (j->back) {
        if (a->m.plain)
            memcpy(rows_at(&a->m, r), to, (size_t)a->m.cols * sizeof *to);
        else
            rows_commit(j->k, &a->m, r, 0, a->m.cols, to);
        return;
    }
    const float *from = rows_fetch(j->k, &a->m, r, 0, a->m.cols, to);
    if (from != to) memcpy(to, from, (size_t)a->m.cols * sizeof *to);
}

static slg_status matrix_in(slg_ctx *ctx, const slg_tensor *t, matrix *a)
{
    SLG_TRY(matrix_of(ctx, t, a));
    if (a->copy) pool_run(ctx, a->m.count, copy_row, &(copy_job){ &ctx->k, a, false });
    return SLG_OK;
}

static void matrix_out(slg_ctx *ctx, const matrix *a)
{
    if (a->copy) pool_run(ctx, a->m.count, copy_row, &(copy_job){ &ctx->k, a, true });
}

/* ---- Checks ------------------------------------------------------------------------------ */

/* x [..., in] beside y [..., out]: the same but for the last axis. */
static slg_status check_pair(slg_ctx *ctx, const char *name, const slg_tensor *y, int64_t out,
                             const slg_tensor *x)
{
    int64_t shape[4];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = out;
    return tensor_shape_is(ctx, name, y, x->ndim, shape);
}

static slg_status check_weight(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *weight)
{
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 1, 4));
    SLG_TRY(tensor_in(ctx, "weight", weight, DT_ROW, 2, 2));
    if (weight->shape[1] == x->shape[x->ndim - 1]) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE, "weight has %lld columns, x has %lld",
                    (long long)weight->shape[1], (long long)x->shape[x->ndim - 1]);
}

/* ---- Forward ----------------------------------------------------------------------------- */

typedef struct bias_job {
    const matrix *y;
    const float *bias;
} bias_job;

static void bias_row(void *arg, int64_t r, int32_t worker)
{
    const bias_job *j = arg;
    (void)worker;
    memcpy(j->y->at + r * j->y->ld, j->bias, (size_t)j->y->m.cols * sizeof(float));
}

static slg_status linear(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *weight,
                         const slg_tensor *bias, slg_tensor *y)
{
    matrix a, w, c;
    const float *b;
    SLG_TRY(check_weight(ctx, x, weight));
    SLG_TRY(tensor_out(ctx, "y", y, DT_ROW, 1, 4));
    SLG_TRY(check_pair(ctx, "y", y, weight->shape[0], x));
    SLG_TRY(layer_apart(ctx, "y", y, "x", x, false));
    SLG_TRY(layer_apart(ctx, "y", y, "weight", weight, false));
    SLG_TRY(layer_apart(ctx, "y", y, "bias", bias, false));
    SLG_TRY(layer_vector(ctx, "bias", bias, weight->shape[0], &b));
    op_detail(ctx, x), op_detail(ctx, weight);
    if (tensor_size(y) == 0) return SLG_OK;
    SLG_TRY(matrix_in(ctx, x, &a));
    SLG_TRY(matrix_in(ctx, weight, &w));
    SLG_TRY(matrix_of(ctx, y, &c));
    if (b) pool_run(ctx, c.m.count, bias_row, &(bias_job){ &c, b });
    SLG_TRY(blas_sgemm(ctx, false, true, c.m.count, c.m.cols, a.m.cols, 1.0f, a.at, a.ld, w.at,
                       w.ld, b ? 1.0f : 0.0f, c.at, c.ld));
    matrix_out(ctx, &c);
    return SLG_OK;
}

slg_status slg_linear(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *weight,
                      const slg_tensor *bias, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_linear");
    return op_end(ctx, linear(ctx, x, weight, bias, y));
}

/* ---- Backward ---------------------------------------------------------------------------- */

typedef struct sum_job {
    const kernel_table *k;
    const matrix *dy;
    column_sums sums;
} sum_job;

static void sum_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const sum_job *j = arg;
    float *sum[2];
    int64_t r, end = column_sums_chunk(&j->sums, chunk, &r, sum);
    (void)worker;
    for (; r < end; r++) j->k->add((size_t)j->sums.dim, j->dy->at + r * j->dy->ld, sum[0]);
}

static slg_status check_grads(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *weight,
                              const slg_tensor *dy, const slg_tensor *dx,
                              const slg_tensor *dweight, const slg_tensor *dbias)
{
    const slg_tensor *const outs[] = { dx, dweight, dbias };
    static const char *const names[] = { "dx", "dweight", "dbias" };
    SLG_TRY(check_weight(ctx, x, weight));
    SLG_TRY(tensor_in(ctx, "dy", dy, DT_ROW, 1, 4));
    SLG_TRY(check_pair(ctx, "dy", dy, weight->shape[0], x));
    if (dx) {
        SLG_TRY(tensor_out(ctx, "dx", dx, DT_ROW, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "dx", dx, "x", x));
    }
    if (dweight) {
        SLG_TRY(tensor_out(ctx, "dweight", dweight, DT_F32, 2, 2));
        SLG_TRY(tensor_same_shape(ctx, "dweight", dweight, "weight", weight));
        const rows m = rows_of(dweight);
        if (!blas_can(&m))
            return slg_fail(ctx, SLG_ERR_STRIDE,
                            "rows of dweight must be contiguous, one after "
                            "the other");
    }
    SLG_TRY(layer_vector_out(ctx, "dbias", dbias, weight->shape[0]));
    for (int i = 0; i < 3; i++) {
        SLG_TRY(layer_apart(ctx, names[i], outs[i], "x", x, false));
        SLG_TRY(layer_apart(ctx, names[i], outs[i], "weight", weight, false));
        SLG_TRY(layer_apart(ctx, names[i], outs[i], "dy", dy, false));
        for (int k = 0; k < i; k++)
            SLG_TRY(layer_apart(ctx, names[i], outs[i], names[k], outs[k], false));
    }
    return SLG_OK;
}

static slg_status linear_backward(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *weight,
                                  const slg_tensor *dy, const slg_linear_opts *opts,
                                  slg_tensor *dx, slg_tensor *dweight, slg_tensor *dbias)
{
    slg_linear_opts o = defaults;
    matrix a, w, d, c;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_choice(ctx, "accumulate", o.accumulate, 0, 1));
    SLG_TRY(check_grads(ctx, x, weight, dy, dx, dweight, dbias));
    op_detail(ctx, x), op_detail(ctx, weight);
    const int64_t in = weight->shape[1], out = weight->shape[0];
    SLG_TRY(matrix_in(ctx, dy, &d));
    const int64_t count = d.m.count;
    sum_job s = { .k = &ctx->k, .dy = &d };
    SLG_TRY(column_sums_open(ctx, count, out, dbias != NULL, false, &s.sums));
    if (dx && tensor_size(dx) > 0) {
        SLG_TRY(matrix_in(ctx, weight, &w));
        SLG_TRY(matrix_of(ctx, dx, &c));
        SLG_TRY(blas_sgemm(ctx, false, false, count, in, out, 1.0f, d.at, d.ld, w.at, w.ld,
                           0.0f, c.at, c.ld));
        matrix_out(ctx, &c);
    }
    if (dweight && tensor_size(dweight) > 0) {
        SLG_TRY(matrix_in(ctx, x, &a));
        SLG_TRY(matrix_of(ctx, dweight, &c));
        SLG_TRY(blas_sgemm(ctx, true, false, out, in, count, 1.0f, d.at, d.ld, a.at, a.ld,
                           o.accumulate ? 1.0f : 0.0f, c.at, c.ld));
    }
    if (dbias && count > 0) pool_run(ctx, s.sums.chunks, sum_chunk, &s);
    column_sums_close(&s.sums, 0, o.accumulate, dbias);
    return SLG_OK;
}

slg_status slg_linear_backward(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *weight,
                               const slg_tensor *dy, const slg_linear_opts *opts,
                               slg_tensor *dx, slg_tensor *dweight, slg_tensor *dbias)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_linear_backward");
    return op_end(ctx, linear_backward(ctx, x, weight, dy, opts, dx, dweight, dbias));
}
