/*
 * qk_norm.c - see softlogit/attention.h. Rows are short, so a row is taken at once; what is
 * linear in it is computed in double and rounded once.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "core/tensor.h"
#include "softlogit/attention.h"

/* Rows of a task: sums over rows are sums over tasks. */
enum { BLOCK = 256, MOST_BLOCKS = 64 };

static const slg_qk_norm_opts defaults = { .size = sizeof(slg_qk_norm_opts),
                                           .form = SLG_QK_NORM_L2,
                                           .eps = 1e-6 };

void slg_qk_norm_opts_init(slg_qk_norm_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct norm_run {
    const kernel_table *k;
    rows x, dy, y;     /* y: or dx; dy.data NULL in the forward pass; y.data NULL: not wanted */
    const float *gain; /* NULL: ones */
    double eps, weight; /* of |x|^2: 1, or 1 / dim */
    int64_t blocks;
    double *dgain;  /* [blocks, dim]; NULL: not wanted */
    float *scratch; /* a worker: 3 rows */
} norm_run;

/* 1 / r of a row; 0 where r is. NaN for a row that is not finite. */
static double inverse_norm(const norm_run *r, const float *x)
{
    double sums[3];
    r->k->dots((size_t)r->x.cols, x, x, sums);
    const double square = r->weight * sums[1] + r->eps;
    if (!isfinite(square)) return NAN;
    return square > 0 ? 1 / sqrt(square) : 0;
}

static void forward_row(const norm_run *r, int64_t row, float *s)
{
    const size_t dim = (size_t)r->x.cols;
    const float *x = rows_fetch(r->k, &r->x, row, 0, r->x.cols, s);
    const double inverse = inverse_norm(r, x);
    float *y = s + 2 * dim;
    memcpy(y, x, dim * sizeof *y);
    r->k->lincomb(dim, inverse, x, 0, y);
    if (r->gain) r->k->mul(dim, r->gain, y);
    float *to = rows_stage(&r->y, row, 0, y);
    if (to != y) memcpy(to, y, dim * sizeof *y);
    rows_commit(r->k, &r->y, row, 0, r->y.cols, y);
}

static void backward_row(const norm_run *r, int64_t row, float *s, double *dgain)
{
    const size_t dim = (size_t)r->x.cols;
    const float *x = rows_fetch(r->k, &r->x, row, 0, r->x.cols, s);
    const float *dy = rows_fetch(r->k, &r->dy, row, 0, r->x.cols, s + dim);
    const double inverse = inverse_norm(r, x);
    float *dx = s + 2 * dim;
    double sums[3];
    for (size_t j = 0; dgain && j < dim; j++)
        dgain[j] += (double)dy[j] * (double)x[j] * inverse;
    if (!r->y.data) return;
    memcpy(dx, dy, dim * sizeof *dx);
    if (r->gain) r->k->mul(dim, r->gain, dx);
    r->k->dots(dim, x, dx, sums);
    r->k->lincomb(dim, -r->weight * sums[0] * inverse * inverse * inverse, x, inverse, dx);
    float *to = rows_stage(&r->y, row, 0, dx);
    if (to != dx) memcpy(to, dx, dim * sizeof *dx);
    rows_commit(r->k, &r->y, row, 0, r->y.cols, dx);
}

static void norm_task(void *arg, int64_t task, int32_t worker)
{
    const norm_run *r = arg;
    const int64_t dim = r->x.cols;
    float *s = r->scratch + (int64_t)worker * 3 * dim;
    double *dgain = r->dgain ? r->dgain + task * dim : NULL;
    const int64_t end = pool_range_start(r->x.count, r->blocks, task + 1);
    for (int64_t j = 0; dgain && j < dim; j++) dgain[j] = 0;
    for (int64_t i = pool_range_start(r->x.count, r->blocks, task); i < end; i++) {
        if (r->dy.data)
            backward_row(r, i, s, dgain);
        else
            forward_row(r, i, s);
    }
}

static slg_status open_gain(slg_ctx *ctx, const slg_tensor *gain, int64_t dim,
                            const float **out)
{
    *out = NULL;
    if (!gain) return SLG_OK;
    SLG_TRY(tensor_in(ctx, "gain", gain, DT_F32, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "gain", gain, 1, &dim));
    float *copy = arena_alloc(ctx, (size_t)dim, sizeof *copy);
    if (!copy) return SLG_ERR_MEMORY;
    const rows m = rows_of(gain);
    for (int64_t j = 0; j < dim; j++) copy[j] = (float)rows_get(&m, 0, j);
    *out = copy;
    return SLG_OK;
}

/* y or dx. */
static slg_status open_result(slg_ctx *ctx, const char *name, slg_tensor *y,
                              const slg_tensor *x, const slg_tensor *dy, const slg_tensor *gain)
{
    SLG_TRY(tensor_out(ctx, name, y, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, name, y, "x", x));
    if (tensor_clash(y, x) || tensor_clash(y, dy))
        return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps an input, and is not the same view",
                        name);
    if (gain && (gain->data == y->data || tensor_clash(y, gain)))
        return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps gain", name);
    return SLG_OK;
}

static slg_status norm(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *gain,
                       const slg_qk_norm_opts *opts, const slg_tensor *dy, bool backward,
                       slg_tensor *y, slg_tensor *dgain)
{
    slg_qk_norm_opts o = defaults;
    norm_run r = { .k = &ctx->k };
    if (opts) SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_choice(ctx, "form", o.form, SLG_QK_NORM_L2, SLG_QK_NORM_RMS));
    SLG_TRY(option_range(ctx, "eps", o.eps, 0, 1));
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 1, 4));
    const int64_t dim = x->shape[x->ndim - 1];
    if (backward) {
        SLG_TRY(tensor_in(ctx, "dy", dy, DT_ROW, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "dy", dy, "x", x));
    }
    if (y || !backward) SLG_TRY(open_result(ctx, backward ? "dx" : "y", y, x, dy, gain));
    if (dgain) {
        SLG_TRY(tensor_out(ctx, "dgain", dgain, DT_F32, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "dgain", dgain, 1, &dim));
        if (tensor_clash(dgain, x) || tensor_clash(dgain, dy) || tensor_clash(dgain, y) ||
            (gain && gain->data == dgain->data) || tensor_clash(dgain, gain))
            return slg_fail(ctx, SLG_ERR_STRIDE, "dgain overlaps an input, or dx");
    }
    SLG_TRY(open_gain(ctx, gain, dim, &r.gain));
    op_detail(ctx, x);

    r.x = rows_of(x);
    if (backward) r.dy = rows_of(dy);
    if (y) r.y = rows_of(y);
    r.eps = o.eps;
    r.weight = o.form == SLG_QK_NORM_RMS && dim > 0 ? 1.0 / (double)dim : 1;
    const int64_t count = tensor_size(x) > 0 ? r.x.count : 0;
    r.blocks =
        (count + BLOCK - 1) / BLOCK < MOST_BLOCKS ? (count + BLOCK - 1) / BLOCK : MOST_BLOCKS;
    r.scratch = arena_alloc(ctx, (size_t)ctx->num_threads, 3 * (size_t)dim * sizeof(float));
    if (dgain) r.dgain = arena_alloc(ctx, (size_t)r.blocks, (size_t)dim * sizeof(double));
    if (!r.scratch || (dgain && !r.dgain)) return SLG_ERR_MEMORY;
    pool_run(ctx, r.blocks, norm_task, &r);
    const rows to = dgain ? rows_of(dgain) : (rows){ 0 };
    for (int64_t j = 0; dgain && j < dim; j++) {
        double sum = 0;
        for (int64_t b = 0; b < r.blocks; b++) sum += r.dgain[b * dim + j];
        rows_put(&to, 0, j, sum);
    }
    return SLG_OK;
}

slg_status slg_qk_norm(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *gain,
                       const slg_qk_norm_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_qk_norm");
    return op_end(ctx, norm(ctx, x, gain, opts, NULL, false, y, NULL));
}

slg_status slg_qk_norm_backward(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *gain,
                                const slg_qk_norm_opts *opts, const slg_tensor *dy,
                                slg_tensor *dx, slg_tensor *dgain)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_qk_norm_backward");
    return op_end(ctx, norm(ctx, x, gain, opts, dy, true, dx, dgain));
}
