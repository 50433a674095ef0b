/*
 * sigma_reparam.c - see softlogit/attention.h. Blocks of rows are tasks; what is summed over
 * rows is summed over a block, then over blocks in order.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "core/tensor.h"
#include "softlogit/attention.h"

enum { BLOCK = 64, MOST_BLOCKS = 32 };

static const slg_sigma_reparam_opts defaults = { .size = sizeof(slg_sigma_reparam_opts),
                                                 .iterations = 1,
                                                 .gamma = 1 };

void slg_sigma_reparam_opts_init(slg_sigma_reparam_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct sigma_run {
    slg_ctx *ctx;
    slg_sigma_reparam_opts o;
    rows w, dy, y;   /* y: or dw; data NULL: none */
    float *u, *v;    /* [rows], [cols] */
    double *product; /* [rows]: w v */
    double *sums;    /* [blocks, cols]: w' u */
    double *dots;    /* [blocks]: <dy, w> */
    float *scratch;  /* a worker: 3 rows */
    int64_t blocks;
    double sigma, dot;
} sigma_run;

static int64_t first_row(const sigma_run *r, int64_t block)
{
    return pool_range_start(r->w.count, r->blocks, block);
}

static float *scratch_of(const sigma_run *r, int32_t worker)
{
    return r->scratch + (int64_t)worker * 3 * r->w.cols;
}

/* ---- Power iteration --------------------------------------------------------------------- */

static void turned_task(void *arg, int64_t block, int32_t worker)
{
    const sigma_run *r = arg;
    double *sum = r->sums + block * r->w.cols;
    for (int64_t j = 0; j < r->w.cols; j++) sum[j] = 0;
    for (int64_t i = first_row(r, block); i < first_row(r, block + 1); i++) {
        const float *w = rows_fetch(&r->ctx->k, &r->w, i, 0, r->w.cols, scratch_of(r, worker));
        const double u = (double)r->u[i];
        for (int64_t j = 0; j < r->w.cols; j++) sum[j] += u * (double)w[j];
    }
}

static void product_task(void *arg, int64_t block, int32_t worker)
{
    const sigma_run *r = arg;
    for (int64_t i = first_row(r, block); i < first_row(r, block + 1); i++) {
        double sums[3];
        const float *w = rows_fetch(&r->ctx->k, &r->w, i, 0, r->w.cols, scratch_of(r, worker));
        r->ctx->k.dots((size_t)r->w.cols, w, r->v, sums);
        r->product[i] = sums[0];
    }
}

static double norm_of(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* x = y / |y|; false, and x stays, where that is 0. */
static bool normalise(const double *y, int64_t n, float *x)
{
    const double norm = norm_of(y, n);
    if (norm == 0) return false;
    for (int64_t i = 0; i < n; i++) x[i] = (float)(y[i] / norm);
    return true;
}

/* v from u: the first block's sums become those of all. */
static bool new_v(sigma_run *r)
{
    pool_run(r->ctx, r->blocks, turned_task, r);
    for (int64_t b = 1; b < r->blocks; b++)
        for (int64_t j = 0; j < r->w.cols; j++) r->sums[j] += r->sums[b * r->w.cols + j];
    return normalise(r->sums, r->w.cols, r->v);
}

/* Runs the iterations and sets sigma; false where it is 0 by a product that vanishes. */
static void iterate(sigma_run *r, int32_t iterations)
{
    bool live = true;
    r->sigma = 0;
    for (int32_t i = 0; i < iterations && live; i++) {
        live = new_v(r);
        if (!live) return;
        pool_run(r->ctx, r->blocks, product_task, r);
        live = normalise(r->product, r->w.count, r->u);
    }
    if (!live) return;
    if (iterations == 0) pool_run(r->ctx, r->blocks, product_task, r);
    for (int64_t i = 0; i < r->w.count; i++) r->sigma += (double)r->u[i] * r->product[i];
}

/* ---- Results ----------------------------------------------------------------------------- */

/* y = a x + b z of a row, through scratch: x may be y. */
static void put_row(const sigma_run *r, int64_t i, double a, const float *x, double b,
                    const float *z, float *s)
{
    const size_t cols = (size_t)r->w.cols;
    memcpy(s, x, cols * sizeof *s);
    r->ctx->k.lincomb(cols, b, z, a, s);
    float *to = rows_stage(&r->y, i, 0, s);
    if (to != s) memcpy(to, s, cols * sizeof *s);
    rows_commit(&r->ctx->k, &r->y, i, 0, r->w.cols, s);
}

static void forward_task(void *arg, int64_t block, int32_t worker)
{
    const sigma_run *r = arg;
    float *s = scratch_of(r, worker);
    const double a = r->sigma == 0 ? 0 : r->o.gamma / r->sigma;
    for (int64_t i = first_row(r, block); i < first_row(r, block + 1); i++) {
        const float *w = rows_fetch(&r->ctx->k, &r->w, i, 0, r->w.cols, s);
        put_row(r, i, a, w, 0, w, s + r->w.cols);
    }
}

static void dot_task(void *arg, int64_t block, int32_t worker)
{
    const sigma_run *r = arg;
    float *s = scratch_of(r, worker);
    double dot = 0;
    for (int64_t i = first_row(r, block); i < first_row(r, block + 1); i++) {
        double sums[3];
        const float *w = rows_fetch(&r->ctx->k, &r->w, i, 0, r->w.cols, s);
        const float *dy = rows_fetch(&r->ctx->k, &r->dy, i, 0, r->w.cols, s + r->w.cols);
        r->ctx->k.dots((size_t)r->w.cols, w, dy, sums);
        dot += sums[0];
    }
    r->dots[block] = dot;
}

static void backward_task(void *arg, int64_t block, int32_t worker)
{
    const sigma_run *r = arg;
    float *s = scratch_of(r, worker);
    const double a = r->sigma == 0 ? 0 : r->o.gamma / r->sigma;
    const double c = r->sigma == 0 ? 0 : -a * r->dot / r->sigma;
    for (int64_t i = first_row(r, block); i < first_row(r, block + 1); i++) {
        const float *dy = rows_fetch(&r->ctx->k, &r->dy, i, 0, r->w.cols, s);
        put_row(r, i, a, dy, c * (double)r->u[i], r->v, s + r->w.cols);
    }
}

/* ---- The calls --------------------------------------------------------------------------- */

static slg_status open_state(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t n,
                             bool written)
{
    SLG_TRY(written ? tensor_out(ctx, name, t, DT_F32, 1, 1)
                    : tensor_in(ctx, name, t, DT_F32, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &n));
    if (tensor_contiguous(t)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_STRIDE, "%s has stride %lld, must be contiguous", name,
                    (long long)t->stride[0]);
}

static bool shares(const slg_tensor *a, const slg_tensor *b)
{
    return a && b && tensor_size(a) && tensor_size(b) &&
           (a->data == b->data || tensor_clash(a, b));
}

static slg_status open(slg_ctx *ctx, const slg_tensor *w, const slg_tensor *u,
                       const slg_tensor *v, const slg_sigma_reparam_opts *opts, bool written,
                       sigma_run *r)
{
    *r = (sigma_run){ .ctx = ctx, .o = defaults };
    if (opts) SLG_TRY(options_read(ctx, "opts", opts, &r->o, sizeof r->o));
    SLG_TRY(option_choice(ctx, "iterations", r->o.iterations, 0, 1000));
    SLG_TRY(tensor_in(ctx, "w", w, DT_ROW, 2, 2));
    SLG_TRY(open_state(ctx, "u", u, w->shape[0], written));
    SLG_TRY(open_state(ctx, "v", v, w->shape[1], written));
    if (written && (shares(u, v) || shares(u, w) || shares(v, w)))
        return slg_fail(ctx, SLG_ERR_STRIDE, "u, v and w overlap");
    r->w = rows_of(w);
    r->u = u->data, r->v = v->data;
    if (tensor_size(w) == 0) r->w.count = 0;
    const int64_t blocks = (r->w.count + BLOCK - 1) / BLOCK;
    r->blocks = blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS;
    return SLG_OK;
}

static slg_status reserve(sigma_run *r)
{
    slg_ctx *ctx = r->ctx;
    const size_t cols = (size_t)r->w.cols;
    r->product = arena_alloc(ctx, (size_t)r->w.count, sizeof *r->product);
    r->sums = arena_alloc(ctx, (size_t)r->blocks, cols * sizeof *r->sums);
    r->dots = arena_alloc(ctx, (size_t)r->blocks, sizeof *r->dots);
    r->scratch = arena_alloc(ctx, (size_t)ctx->num_threads, 3 * cols * sizeof *r->scratch);
    return r->product && r->sums && r->dots && r->scratch ? SLG_OK : SLG_ERR_MEMORY;
}

static slg_status forward(slg_ctx *ctx, const slg_tensor *w, slg_tensor *u, slg_tensor *v,
                          const slg_sigma_reparam_opts *opts, slg_tensor *y, double *sigma)
{
    sigma_run r;
    SLG_TRY(open(ctx, w, u, v, opts, true, &r));
    if (y) {
        SLG_TRY(tensor_out(ctx, "y", y, DT_ROW, 2, 2));
        SLG_TRY(tensor_same_shape(ctx, "y", y, "w", w));
        if (shares(y, w) || shares(y, u) || shares(y, v))
            return slg_fail(ctx, SLG_ERR_STRIDE, "y overlaps w, u or v");
        r.y = rows_of(y);
    }
    op_detail(ctx, w);
    SLG_TRY(reserve(&r));
    iterate(&r, r.o.iterations);
    if (y) pool_run(ctx, r.blocks, forward_task, &r);
    if (sigma) *sigma = r.sigma;
    return SLG_OK;
}

static slg_status backward(slg_ctx *ctx, const slg_tensor *w, const slg_tensor *u,
                           const slg_tensor *v, const slg_sigma_reparam_opts *opts,
                           const slg_tensor *dy, slg_tensor *dw, double *dgamma)
{
    sigma_run r;
    SLG_TRY(open(ctx, w, u, v, opts, false, &r));
    SLG_TRY(tensor_in(ctx, "dy", dy, DT_ROW, 2, 2));
    SLG_TRY(tensor_same_shape(ctx, "dy", dy, "w", w));
    r.dy = rows_of(dy);
    if (dw) {
        SLG_TRY(tensor_out(ctx, "dw", dw, DT_ROW, 2, 2));
        SLG_TRY(tensor_same_shape(ctx, "dw", dw, "w", w));
        if (shares(dw, w) || shares(dw, u) || shares(dw, v) || tensor_clash(dw, dy))
            return slg_fail(ctx, SLG_ERR_STRIDE,
                            "dw overlaps w, u or v, or dy in another view");
        r.y = rows_of(dw);
    }
    op_detail(ctx, w);
    SLG_TRY(reserve(&r));
    iterate(&r, 0);
    pool_run(ctx, r.blocks, dot_task, &r);
    for (int64_t b = 0; b < r.blocks; b++) r.dot += r.dots[b];
    if (dw) pool_run(ctx, r.blocks, backward_task, &r);
    if (dgamma) *dgamma = r.sigma == 0 ? 0 : r.dot / r.sigma;
    return SLG_OK;
}

slg_status slg_sigma_reparam(slg_ctx *ctx, const slg_tensor *w, slg_tensor *u, slg_tensor *v,
                             const slg_sigma_reparam_opts *opts, slg_tensor *y, double *sigma)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_sigma_reparam");
    return op_end(ctx, forward(ctx, w, u, v, opts, y, sigma));
}

slg_status slg_sigma_reparam_backward(slg_ctx *ctx, const slg_tensor *w, const slg_tensor *u,
                                      const slg_tensor *v, const slg_sigma_reparam_opts *opts,
                                      const slg_tensor *dy, slg_tensor *dw, double *dgamma)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_sigma_reparam_backward");
    return op_end(ctx, backward(ctx, w, u, v, opts, dy, dw, dgamma));
}
