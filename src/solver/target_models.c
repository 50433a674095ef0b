/*
 * target_models.c - models and oracles as callbacks, and the built-in ones: see
 * softlogit/surrogate.h. Both gather the rows of a batch once, in begin.
 */
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "target_rows.h"

static const slg_target_model no_model = { .size = sizeof no_model };
static const slg_target_oracle no_oracle = { .size = sizeof no_oracle };

void slg_target_model_init(slg_target_model *model, size_t size)
{
    options_init(model, size, &no_model, sizeof no_model);
}

void slg_target_oracle_init(slg_target_oracle *oracle, size_t size)
{
    options_init(oracle, size, &no_oracle, sizeof no_oracle);
}

void slg_target_model_free(slg_target_model *model)
{
    if (!model) return;
    if (model->free) model->free(model->user);
    slg_target_model_init(model, model->size);
}

void slg_target_oracle_free(slg_target_oracle *oracle)
{
    if (!oracle) return;
    if (oracle->free) oracle->free(oracle->user);
    slg_target_oracle_init(oracle, oracle->size);
}

/* A buffer of at least `bytes`; what it held is lost. */
typedef struct buffer {
    void *data;
    size_t bytes;
} buffer;

static slg_status buffer_reserve(slg_ctx *ctx, buffer *b, int64_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, size, &bytes))
        return slg_fail(ctx, SLG_ERR_MEMORY, "%lld rows of %zu bytes are too many",
                        (long long)count, size);
    if (bytes <= b->bytes) return SLG_OK;
    ctx_free(ctx, b->data);
    *b = (buffer){ ctx_alloc(ctx, bytes), bytes };
    if (b->data) return SLG_OK;
    b->bytes = 0;
    return SLG_ERR_MEMORY;
}

static slg_status rows_known(slg_ctx *ctx, const rows *m, int64_t count, const int64_t *batch)
{
    for (int64_t i = 0; i < count; i++)
        if (batch[i] < 0 || batch[i] >= m->count)
            return slg_fail(ctx, SLG_ERR_RANGE, "rows[%lld] is %lld, there are %lld",
                            (long long)i, (long long)batch[i], (long long)m->count);
    return SLG_OK;
}

/* ---- Linear model ----------------------------------------------------------------------- */

typedef struct linear {
    slg_ctx *ctx;
    rows x;
    int64_t d, targets, count, ld;
    const float *batch; /* [count, d], rows ld apart */
    buffer own;
} linear;

static const char op_linear[] = "slg_linear_model";

static void linear_release(void *user)
{
    linear *l = user;
    slg_ctx *ctx = l->ctx;
    ctx_free(ctx, l->own.data), ctx_free(ctx, l);
}

typedef struct gather {
    const linear *l;
    const int64_t *batch;
    float *to;
} gather;

enum { GATHERED = 64 };

static void gather_task(void *arg, int64_t task, int32_t worker)
{
    const gather *g = arg;
    const linear *l = g->l;
    (void)worker;
    for (int64_t i = task * GATHERED; i < (task + 1) * GATHERED && i < l->count; i++) {
        float *to = g->to + i * l->d;
        const float *x = rows_fetch(&l->ctx->k, &l->x, g->batch[i], 0, l->d, to);
        if (x != to) memcpy(to, x, (size_t)l->d * sizeof *to);
    }
}

static slg_status linear_gather(linear *l, int64_t count, const int64_t *batch)
{
    SLG_TRY(rows_known(l->ctx, &l->x, count, batch));
    l->count = count;
    const int64_t step = l->x.outer == 1 ? l->x.stride[0] : l->d;
    if (count == l->x.count && l->x.plain && l->x.outer <= 1 && step >= l->d &&
        step <= INT32_MAX) {
        l->batch = (const float *)(const void *)l->x.data, l->ld = step;
        return SLG_OK;
    }
    SLG_TRY(buffer_reserve(l->ctx, &l->own, count, (size_t)l->d * sizeof(float)));
    gather g = { l, batch, l->own.data };
    pool_run(l->ctx, (count + GATHERED - 1) / GATHERED, gather_task, &g);
    l->batch = l->own.data, l->ld = l->d;
    return SLG_OK;
}

static slg_status linear_begin(void *user, int64_t count, const int64_t *batch)
{
    linear *l = user;
    op_begin(l->ctx, op_linear);
    return op_end(l->ctx, linear_gather(l, count, batch));
}

static slg_status linear_tangent(void *user, const float *w, float *z)
{
    linear *l = user;
    const int64_t m = l->targets;
    op_begin(l->ctx, op_linear);
    return op_end(l->ctx, blas_sgemm(l->ctx, false, false, l->count, m, l->d, 1, l->batch,
                                     l->ld, w, m, 0, z, m));
}

static slg_status linear_backward(void *user, const float *w, const float *dz, float *dw)
{
    linear *l = user;
    const int64_t m = l->targets;
    (void)w;
    op_begin(l->ctx, op_linear);
    return op_end(l->ctx, blas_sgemm(l->ctx, true, false, l->d, m, l->count, 1, l->batch, l->ld,
                                     dz, m, 0, dw, m));
}

static slg_status linear_open(slg_ctx *ctx, const slg_tensor *x, int64_t targets,
                              slg_target_model *model)
{
    size_t size;
    if (!model) return slg_fail(ctx, SLG_ERR_NULL, "model is NULL");
    SLG_TRY(options_size(ctx, "model", model, &size));
    SLG_TRY(target_like(ctx, "x", x, NULL, false));
    const int64_t d = x->shape[1];
    if (d < 1 || d > INT32_MAX || x->shape[0] > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_SHAPE,
                        "x is %lld x %lld, must have from 1 column to 2^31 - 1 of either",
                        (long long)x->shape[0], (long long)d);
    if (targets < 1 || targets > INT32_MAX / d)
        return slg_fail(ctx, SLG_ERR_RANGE, "targets is %lld, must be from 1 to %lld",
                        (long long)targets, (long long)(INT32_MAX / d));
    linear *l = ctx_alloc(ctx, sizeof *l);
    if (!l) return SLG_ERR_MEMORY;
    *l = (linear){ .ctx = ctx, .x = rows_of(x), .d = d, .targets = targets };
    options_write(model,
                  &(slg_target_model){ .rows = x->shape[0],
                                       .targets = targets,
                                       .dim = d * targets,
                                       .user = l,
                                       .begin = linear_begin,
                                       .forward = linear_tangent,
                                       .backward = linear_backward,
                                       .tangent = linear_tangent,
                                       .free = linear_release },
                  sizeof *model);
    return SLG_OK;
}

slg_status slg_linear_model(slg_ctx *ctx, const slg_tensor *x, int64_t targets,
                            slg_target_model *model)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, op_linear);
    return op_end(ctx, linear_open(ctx, x, targets, model));
}

/* ---- Losses ----------------------------------------------------------------------------- */

typedef struct oracle {
    slg_ctx *ctx;
    int32_t kind;
    rows data;
    int64_t m, count;
    buffer own; /* data of the batch: [count, m] f32, or [count] i64 */
} oracle;

static const char op_oracle[] = "slg_loss_oracle";

static void oracle_release(void *user)
{
    oracle *o = user;
    slg_ctx *ctx = o->ctx;
    ctx_free(ctx, o->own.data), ctx_free(ctx, o);
}

static slg_status oracle_gather(oracle *o, int64_t count, const int64_t *batch)
{
    const bool labels = o->kind == SLG_TARGET_SOFTMAX;
    o->count = count;
    if (labels) {
        SLG_TRY(buffer_reserve(o->ctx, &o->own, count, sizeof(int64_t)));
        int64_t *to = o->own.data;
        for (int64_t i = 0; i < count; i++) {
            if (batch[i] < 0 || batch[i] >= o->data.cols)
                return slg_fail(o->ctx, SLG_ERR_RANGE, "rows[%lld] is %lld, there are %lld",
                                (long long)i, (long long)batch[i], (long long)o->data.cols);
            to[i] = rows_get_int(&o->data, 0, batch[i]);
        }
        return SLG_OK;
    }
    SLG_TRY(rows_known(o->ctx, &o->data, count, batch));
    SLG_TRY(buffer_reserve(o->ctx, &o->own, count, (size_t)o->m * sizeof(float)));
    for (int64_t i = 0; i < count; i++) {
        float *to = (float *)o->own.data + i * o->m;
        const float *y = rows_fetch(&o->ctx->k, &o->data, batch[i], 0, o->m, to);
        if (y != to) memcpy(to, y, (size_t)o->m * sizeof *to);
    }
    return SLG_OK;
}

static slg_status oracle_begin(void *user, int64_t count, const int64_t *batch)
{
    oracle *o = user;
    op_begin(o->ctx, op_oracle);
    return op_end(o->ctx, oracle_gather(o, count, batch));
}

/* g: of a shift by s, or NULL; grad: NULL where not wanted. */
static slg_status oracle_loss(oracle *o, const float *z, const float *g, double s, double *loss,
                              float *grad)
{
    const slg_tensor tz = slg_tensor_2d(z, SLG_F32, o->count, o->m),
                     tg = slg_tensor_2d(g, SLG_F32, o->count, o->m),
                     td = slg_tensor_2d(grad, SLG_F32, o->count, o->m);
    const slg_tensor data = o->kind == SLG_TARGET_SOFTMAX
                                ? slg_tensor_1d(o->own.data, SLG_I64, o->count)
                                : slg_tensor_2d(o->own.data, SLG_F32, o->count, o->m);
    const target_loss t = { o->kind, &tz, &data, g ? &tg : NULL, grad ? &td : NULL, s };
    op_begin(o->ctx, op_oracle);
    return op_end(o->ctx, target_loss_run(o->ctx, &t, loss));
}

static slg_status oracle_evaluate(void *user, const float *z, double *loss, float *g)
{
    return oracle_loss(user, z, NULL, 0, loss, g);
}

static slg_status oracle_shifted(void *user, const float *z, const float *g, double s,
                                 double *loss)
{
    return oracle_loss(user, z, g, s, loss, NULL);
}

static slg_status oracle_open(slg_ctx *ctx, int32_t kind, const slg_tensor *data,
                              int64_t targets, slg_target_oracle *given)
{
    static const double smoothness[3][2] = { { 1, 0 }, { 0.25, 0 }, { 0.5, 1 } };
    size_t size;
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "oracle is NULL");
    SLG_TRY(options_size(ctx, "oracle", given, &size));
    if (targets < 1 || targets > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_RANGE, "targets is %lld, must be from 1 to %d",
                        (long long)targets, INT32_MAX);
    SLG_TRY(target_data_check(ctx, kind, data, data ? data->shape[0] : 0, targets));
    oracle *o = ctx_alloc(ctx, sizeof *o);
    if (!o) return SLG_ERR_MEMORY;
    *o = (oracle){ .ctx = ctx, .kind = kind, .data = rows_of(data), .m = targets };
    slg_target_oracle out = { .rows = data->shape[0],
                              .targets = targets,
                              .user = o,
                              .begin = oracle_begin,
                              .evaluate = oracle_evaluate,
                              .shifted = oracle_shifted,
                              .free = oracle_release };
    memcpy(out.smoothness, smoothness[kind], sizeof out.smoothness);
    options_write(given, &out, sizeof out);
    return SLG_OK;
}

slg_status slg_loss_oracle(slg_ctx *ctx, int32_t kind, const slg_tensor *data, int64_t targets,
                           slg_target_oracle *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, op_oracle);
    return op_end(ctx, oracle_open(ctx, kind, data, targets, out));
}
