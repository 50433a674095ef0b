/*
 * attention_regression.c - see softlogit/regression.h. A1 X A2' are the logits of an output
 * layer with hidden states H = A1 X and weights A2, so the squared loss of such a layer gives
 * the loss, E = dL/dH = Q A2 and dL/dA2 = Q' H, a block of rows at a time; three products
 * remain around it.
 *
 * Paper: "The Closeness of In-Context Learning and Weight Shifting for Softmax Regression"
 * (2023).
 */
#include "core/blas.h"
#include "core/options.h"
#include "methods.h"
#include "softlogit/regression.h"

static const slg_attention_regression_out defaults = {
    .size = sizeof(slg_attention_regression_out),
};

void slg_attention_regression_out_init(slg_attention_regression_out *out, size_t size)
{
    options_init(out, size, &defaults, sizeof defaults);
}

/* A matrix as BLAS takes it: where it lies, or float32 in scratch. */
typedef struct matrix {
    float *data;
    int64_t rows, cols, ld;
} matrix;

typedef struct attention {
    slg_ctx *ctx;
    int64_t n, m, d1, d2;
    const slg_tensor *in[4]; /* a1, a2, x, target */
    slg_attention_regression_out out;
    matrix a1, x, h, e;
    matrix dx, da1, da2; /* data NULL: not wanted */
} attention;

static bool lies_well(const rows *m)
{
    return m->plain && m->outer <= 1 && (m->count <= 1 || m->stride[0] >= m->cols);
}

static int64_t leading(const rows *m)
{
    const int64_t least = m->cols > 1 ? m->cols : 1;
    return m->outer == 1 && m->count > 1 ? m->stride[0] : least;
}

static slg_status scratch(slg_ctx *ctx, int64_t n, int64_t cols, matrix *to)
{
    *to = (matrix){ .rows = n, .cols = cols, .ld = cols > 1 ? cols : 1 };
    to->data = arena_alloc(ctx, (size_t)n * (size_t)to->ld, sizeof(float));
    return to->data ? SLG_OK : SLG_ERR_MEMORY;
}

typedef struct copy {
    const kernel_table *k;
    const rows *outside;
    const matrix *inside;
    bool in;
} copy;

static void copy_row(void *arg, int64_t r, int32_t worker)
{
    const copy *c = arg;
    float *row = c->inside->data + r * c->inside->ld;
    (void)worker;
    for (int64_t col = 0; col < c->outside->cols; col += KERNEL_BLOCK) {
        int64_t n =
            c->outside->cols - col < KERNEL_BLOCK ? c->outside->cols - col : KERNEL_BLOCK;
        if (c->in) {
            const float *x = rows_fetch(c->k, c->outside, r, col, n, row + col);
            for (int64_t i = 0; x != row + col && i < n; i++) row[col + i] = x[i];
            continue;
        }
        float own[KERNEL_BLOCK], *y = rows_stage(c->outside, r, col, own);
        for (int64_t i = 0; i < n; i++) y[i] = row[col + i];
        rows_commit(c->k, c->outside, r, col, n, own);
    }
}

/* An input or an output of the call; it is read only where `in`. */
static slg_status open_matrix(attention *a, const slg_tensor *t, bool in, matrix *to)
{
    if (!t) return SLG_OK;
    const rows m = rows_of(t);
    if (lies_well(&m)) {
        *to = (matrix){ (float *)(void *)m.data, m.count, m.cols, leading(&m) };
        return SLG_OK;
    }
    SLG_TRY(scratch(a->ctx, t->shape[0], t->shape[1], to));
    if (!in) return SLG_OK;
    copy c = { &a->ctx->k, &m, to, true };
    pool_run(a->ctx, to->rows, copy_row, &c);
    return SLG_OK;
}

static void close_matrix(attention *a, const slg_tensor *t, const matrix *from)
{
    if (!t || from->data == t->data) return;
    const rows m = rows_of(t);
    copy c = { &a->ctx->k, &m, from, false };
    pool_run(a->ctx, from->rows, copy_row, &c);
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_inputs(attention *a)
{
    static const char *const name[4] = { "a1", "a2", "x", "target" };
    for (int i = 0; i < 4; i++) SLG_TRY(tensor_in(a->ctx, name[i], a->in[i], DT_ROW, 2, 2));
    a->n = a->in[0]->shape[0], a->d1 = a->in[0]->shape[1];
    a->m = a->in[1]->shape[0], a->d2 = a->in[1]->shape[1];
    if (a->m < 1) return slg_fail(a->ctx, SLG_ERR_SHAPE, "a2 has no rows");
    const int64_t x[2] = { a->d1, a->d2 }, target[2] = { a->n, a->m };
    SLG_TRY(tensor_shape_is(a->ctx, "x", a->in[2], 2, x));
    SLG_TRY(tensor_shape_is(a->ctx, "target", a->in[3], 2, target));
    const int64_t all[4] = { a->n, a->m, a->d1, a->d2 };
    for (int i = 0; i < 4; i++)
        if (all[i] > INT32_MAX)
            return slg_fail(a->ctx, SLG_ERR_SHAPE, "an extent is %lld: at most %d",
                            (long long)all[i], INT32_MAX);
    return SLG_OK;
}

static slg_status check_outputs(attention *a)
{
    const slg_attention_regression_out *o = &a->out;
    const struct {
        const char *name;
        const slg_tensor *t;
        unsigned types;
        int32_t axes;
        int64_t shape[2];
    } out[] = {
        { "out.loss", o->loss, DT_F32 | DT_F64, 1, { a->n, 0 } },
        { "out.prob", o->prob, DT_ROW, 2, { a->n, a->m } },
        { "out.dx", o->dx, DT_ROW, 2, { a->d1, a->d2 } },
        { "out.da1", o->da1, DT_ROW, 2, { a->n, a->d1 } },
        { "out.da2", o->da2, DT_ROW, 2, { a->m, a->d2 } },
    };
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        if (!out[i].t) continue;
        SLG_TRY(
            tensor_out(a->ctx, out[i].name, out[i].t, out[i].types, out[i].axes, out[i].axes));
        SLG_TRY(tensor_shape_is(a->ctx, out[i].name, out[i].t, out[i].axes, out[i].shape));
        bool clash = false;
        for (int k = 0; k < 4; k++) clash = clash || outputs_clash(out[i].t, a->in[k]);
        for (size_t k = 0; k < i; k++) clash = clash || outputs_clash(out[i].t, out[k].t);
        if (clash)
            return slg_fail(a->ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", out[i].name);
    }
    return SLG_OK;
}

/* ---- The call --------------------------------------------------------------------------- */

static slg_status reserve(attention *a)
{
    const slg_attention_regression_out *o = &a->out;
    SLG_TRY(open_matrix(a, a->in[0], true, &a->a1));
    SLG_TRY(open_matrix(a, a->in[2], true, &a->x));
    SLG_TRY(scratch(a->ctx, a->n, a->d2, &a->h));
    if (o->dx || o->da1) SLG_TRY(scratch(a->ctx, a->n, a->d2, &a->e));
    SLG_TRY(open_matrix(a, o->dx, false, &a->dx));
    SLG_TRY(open_matrix(a, o->da1, false, &a->da1));
    return open_matrix(a, o->da2, false, &a->da2);
}

/* The loss of the layer (H, A2), with E and dA2. */
static slg_status run_layer(attention *a)
{
    slg_squared_softmax_opts opts;
    slg_loss_out out = slg_loss_out_none();
    slg_tensor h = slg_tensor_2d(a->h.data, SLG_F32, a->n, a->d2);
    slg_tensor e = slg_tensor_2d(a->e.data, SLG_F32, a->n, a->d2);
    slg_tensor da2 = slg_tensor_2d(a->da2.data, SLG_F32, a->m, a->d2);
    h.stride[0] = a->h.ld, e.stride[0] = a->e.ld, da2.stride[0] = a->da2.ld;
    const slg_logits logits = slg_logits_layer(&h, a->in[1], NULL);
    const slg_targets targets = slg_targets_prob(a->in[3]);
    slg_logits_grad grad =
        slg_grad_layer(a->e.data ? &e : NULL, a->da2.data ? &da2 : NULL, NULL);
    slg_squared_softmax_opts_init(&opts, sizeof opts);
    opts.reduction = SLG_SUM;
    opts.prob = a->out.prob;
    out.loss = a->out.loss;
    SLG_TRY(squared_softmax_run(a->ctx, &logits, &targets, &opts, &out,
                                a->e.data || a->da2.data ? &grad : NULL));
    a->out.value = out.sum;
    return SLG_OK;
}

static slg_status attend(slg_ctx *ctx, attention *a, slg_attention_regression_out *out)
{
    a->ctx = ctx, a->out = defaults;
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", out, &a->out, sizeof a->out));
    SLG_TRY(option_reserved(ctx, "out.reserved", a->out.reserved));
    SLG_TRY(check_inputs(a));
    op_detail(ctx, a->in[3]);
    SLG_TRY(check_outputs(a));
    SLG_TRY(reserve(a));

    const int64_t n = a->n, d1 = a->d1, d2 = a->d2;
    SLG_TRY(blas_sgemm(ctx, false, false, n, d2, d1, 1, a->a1.data, a->a1.ld, a->x.data,
                       a->x.ld, 0, a->h.data, a->h.ld));
    SLG_TRY(run_layer(a));
    if (a->out.dx)
        SLG_TRY(blas_sgemm(ctx, true, false, d1, d2, n, 1, a->a1.data, a->a1.ld, a->e.data,
                           a->e.ld, 0, a->dx.data, a->dx.ld));
    if (a->out.da1)
        SLG_TRY(blas_sgemm(ctx, false, true, n, d1, d2, 1, a->e.data, a->e.ld, a->x.data,
                           a->x.ld, 0, a->da1.data, a->da1.ld));
    close_matrix(a, a->out.dx, &a->dx);
    close_matrix(a, a->out.da1, &a->da1);
    close_matrix(a, a->out.da2, &a->da2);
    options_write(out, &a->out, sizeof a->out);
    return SLG_OK;
}

slg_status slg_attention_regression(slg_ctx *ctx, const slg_tensor *a1, const slg_tensor *a2,
                                    const slg_tensor *x, const slg_tensor *target,
                                    slg_attention_regression_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    attention a = { .in = { a1, a2, x, target } };
    op_begin(ctx, "slg_attention_regression");
    return op_end(ctx, attend(ctx, &a, out));
}
