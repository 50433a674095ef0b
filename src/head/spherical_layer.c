/*
 * spherical_layer.c - the factorised output layer: life, calls, what it tells, state as bytes.
 * See spherical_layer.h for the idea, spherical_step.c for the step, spherical_state.c for
 * control.
 */
#include "spherical_layer.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/state_bytes.h"
#include "core/options.h"

static const slg_spherical_layer_opts defaults = {
    .size = sizeof(slg_spherical_layer_opts),
    .kind = SLG_SPHERICAL_Z,
    .period = 10,
    .a = 1,
    .eps = 1e-3,
    .low = 0.5,
    .high = 2,
};
static const slg_spherical_batch batch_defaults = { .size = sizeof(slg_spherical_batch),
                                                    .ignore_index = -100 };
static const slg_spherical_layer_out out_defaults = { .size = sizeof(slg_spherical_layer_out) };
static const slg_spherical_layer_info_t info_defaults = { .size = sizeof(
                                                              slg_spherical_layer_info_t) };

void slg_spherical_layer_opts_init(slg_spherical_layer_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

void slg_spherical_batch_init(slg_spherical_batch *batch, size_t size)
{
    options_init(batch, size, &batch_defaults, sizeof batch_defaults);
}

void slg_spherical_layer_out_init(slg_spherical_layer_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

void slg_spherical_layer_info_init(slg_spherical_layer_info_t *info, size_t size)
{
    options_init(info, size, &info_defaults, sizeof info_defaults);
}

/* ---- Life ------------------------------------------------------------------------------- */

static slg_status check_opts(slg_ctx *ctx, const slg_spherical_layer_opts *o)
{
    if (o->period < 0 || o->refresh < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "period is %d, refresh %d, must be at least 0",
                        o->period, o->refresh);
    if (!(o->low > 0 && o->low < 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "low is %g, must be between 0 and 1", o->low);
    if (!(o->high > 1 && o->high <= 1e6))
        return slg_fail(ctx, SLG_ERR_RANGE, "high is %g, must be above 1 and at most 1e6",
                        o->high);
    const spherical_form form = { o->kind, o->a, o->b, o->eps };
    return spherical_form_check(ctx, &form);
}

static slg_status allocate(slg_spherical_layer *l)
{
    const size_t d = (size_t)l->dim;
    double **const small[] = { &l->u, &l->p, &l->q, &l->omega, &l->wbar };
    l->v = ctx_alloc(l->ctx, (size_t)l->classes * d * sizeof *l->v);
    if (!l->v) return SLG_ERR_MEMORY;
    for (int i = 0; i < 5; i++) {
        *small[i] = ctx_alloc(l->ctx, (i < 3 ? d * d : d) * sizeof(double));
        if (!*small[i]) return SLG_ERR_MEMORY;
    }
    return SLG_OK;
}

static slg_status read_weight(slg_spherical_layer *l, const slg_tensor *weight)
{
    const size_t d = (size_t)l->dim;
    if (!weight) {
        memset(l->v, 0, (size_t)l->classes * d * sizeof *l->v);
        return SLG_OK;
    }
    rows w = rows_of(weight);
    for (int64_t r = 0; r < l->classes; r++) {
        float *v = layer_v(l, r);
        const float *x = rows_fetch(&l->ctx->k, &w, r, 0, l->dim, v);
        int bad = 0;
        if (x != v) memcpy(v, x, d * sizeof *v);
        for (size_t i = 0; i < d; i++) bad |= !(fabsf(v[i]) <= 1e30f);
        if (bad)
            return slg_fail(l->ctx, SLG_ERR_RANGE,
                            "weight has a row, %lld, with an entry that is not "
                            "finite or beyond 1e30",
                            (long long)r);
    }
    return SLG_OK;
}

static slg_status fill(slg_spherical_layer *l, const slg_tensor *weight)
{
    SLG_TRY(allocate(l));
    SLG_TRY(read_weight(l, weight));
    layer_start(l);
    return layer_gram(l);
}

static slg_status create(slg_ctx *ctx, int64_t classes, int64_t dim, const slg_tensor *weight,
                         const slg_spherical_layer_opts *opts, slg_spherical_layer **out)
{
    slg_spherical_layer_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(check_opts(ctx, &o));
    if (classes < 1 || classes > INT32_MAX || dim < 1 || dim > 32767)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "classes is %lld, dim %lld; must be from 1 to 2^31 - 1, 32767",
                        (long long)classes, (long long)dim);
    if (weight) {
        const int64_t shape[2] = { classes, dim };
        SLG_TRY(tensor_in(ctx, "weight", weight, DT_ROW | DT_F64, 2, 2));
        SLG_TRY(tensor_shape_is(ctx, "weight", weight, 2, shape));
    }
    slg_spherical_layer *l = ctx_alloc(ctx, sizeof *l);
    if (!l) return SLG_ERR_MEMORY;
    *l = (slg_spherical_layer){ .ctx = ctx, .opts = o, .classes = classes, .dim = dim };
    l->form = (spherical_form){ o.kind, o.a, o.b, o.eps };
    slg_status status = fill(l, weight);
    if (status)
        slg_spherical_layer_free(l);
    else
        *out = l;
    return status;
}

slg_status slg_spherical_layer_create(slg_ctx *ctx, int64_t classes, int64_t dim,
                                      const slg_tensor *weight,
                                      const slg_spherical_layer_opts *opts,
                                      slg_spherical_layer **layer)
{
    if (!ctx || !layer) return SLG_ERR_NULL;
    *layer = NULL;
    op_begin(ctx, "slg_spherical_layer_create");
    return op_end(ctx, create(ctx, classes, dim, weight, opts, layer));
}

void slg_spherical_layer_free(slg_spherical_layer *l)
{
    if (!l) return;
    void *const parts[] = { l->v, l->u, l->p, l->q, l->omega, l->wbar, l->batch.memory };
    slg_ctx *ctx = l->ctx;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i]) ctx_free(ctx, parts[i]);
    ctx_free(ctx, l);
}

/* ---- A batch ---------------------------------------------------------------------------- */

enum { OUTS = 5 };

/* The tensors of out, checked against the batch. */
static slg_status check_out(slg_ctx *ctx, const slg_spherical_batch *b,
                            const slg_spherical_layer_out *o)
{
    static const char *const names[OUTS] = { "out.loss", "out.sum", "out.sum_squares",
                                             "out.target_output", "out.dhidden" };
    const slg_tensor *const outs[OUTS] = { o->loss, o->sum, o->sum_squares, o->target_output,
                                           o->dhidden };
    const slg_tensor *const ins[] = { b->hidden, b->target, b->target_value, b->row_weight };
    SLG_TRY(option_reserved(ctx, "batch.reserved", b->reserved));
    SLG_TRY(option_reserved(ctx, "out.reserved", o->reserved));
    if (!b->hidden || !b->target)
        return slg_fail(ctx, SLG_ERR_NULL, "batch.hidden or batch.target is NULL");
    for (int i = 0; i < OUTS; i++) {
        if (!outs[i]) continue;
        const bool wide = i == 4;
        SLG_TRY(
            tensor_out(ctx, names[i], outs[i], wide ? DT_ROW | DT_F64 : DT_F32 | DT_F64, 1, 2));
        if (i < 3)
            SLG_TRY(tensor_shape_is(ctx, names[i], outs[i], 1, b->hidden->shape));
        else
            SLG_TRY(tensor_same_shape(ctx, names[i], outs[i],
                                      wide ? "batch.hidden" : "batch.target",
                                      wide ? b->hidden : b->target));
        for (int j = 0; j < i; j++)
            if (outs[j] && (tensor_clash(outs[i], outs[j]) || outs[i]->data == outs[j]->data) &&
                tensor_size(outs[i]) > 0)
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", names[i], names[j]);
        for (size_t j = 0; j < 4; j++)
            if (ins[j] && tensor_size(outs[i]) > 0 &&
                (tensor_clash(outs[i], ins[j]) || outs[i]->data == ins[j]->data))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps an input", names[i]);
    }
    return SLG_OK;
}

static void put_row_numbers(const slg_tensor *t, int64_t n, const double *x)
{
    if (!t) return;
    rows m = rows_per_row(t);
    for (int64_t r = 0; r < n; r++) rows_put(&m, r, 0, x[r]);
}

static void put_out(slg_spherical_layer *l, const slg_spherical_layer_out *o, float *scratch)
{
    const layer_batch *b = &l->batch;
    put_row_numbers(o->loss, b->rows, b->loss);
    put_row_numbers(o->sum, b->rows, b->s);
    put_row_numbers(o->sum_squares, b->rows, b->q);
    if (o->target_output) {
        const bool flat = o->target_output->ndim == 1;
        rows m = flat ? rows_per_row(o->target_output) : rows_of(o->target_output);
        for (int64_t r = 0; r < b->rows; r++)
            for (int64_t j = 0; j < b->slots; j++)
                rows_put(&m, r, j, b->output[r * b->slots + j]);
    }
    if (!o->dhidden) return;
    rows m = rows_of(o->dhidden);
    for (int64_t r = 0; r < b->rows; r++)
        layer_write(l->ctx, &m, r, l->dim, b->dh + r * l->dim, scratch);
}

static slg_status run(slg_spherical_layer *l, const slg_spherical_batch *batch, bool update,
                      double lr, slg_spherical_layer_out *out)
{
    slg_ctx *ctx = l->ctx;
    slg_spherical_batch b = batch_defaults;
    slg_spherical_layer_out o = out_defaults;
    l->pending = false;
    if (!batch) return slg_fail(ctx, SLG_ERR_NULL, "batch is NULL");
    SLG_TRY(options_read(ctx, "batch", batch, &b, sizeof b));
    SLG_TRY(options_read(ctx, "out", out, &o, sizeof o));
    SLG_TRY(check_out(ctx, &b, &o));
    float *scratch = arena_alloc(ctx, (size_t)l->dim, sizeof *scratch);
    if (!scratch) return SLG_ERR_MEMORY;
    SLG_TRY(layer_maintain(l));
    SLG_TRY(layer_evaluate(l, &b));
    op_detail(ctx, b.hidden);
    if (update) SLG_TRY(layer_update(l, lr));
    put_out(l, &o, scratch);
    o.value = l->batch.sum;
    o.count = l->batch.count;
    if (out) options_write(out, &o, sizeof o);
    return SLG_OK;
}

slg_status slg_spherical_layer_forward(slg_spherical_layer *l, const slg_spherical_batch *batch,
                                       slg_spherical_layer_out *out)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_forward");
    return op_end(l->ctx, run(l, batch, false, 0, out));
}

slg_status slg_spherical_layer_update(slg_spherical_layer *l, double lr)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_update");
    return op_end(l->ctx, layer_update(l, lr));
}

slg_status slg_spherical_layer_step(slg_spherical_layer *l, const slg_spherical_batch *batch,
                                    double lr, slg_spherical_layer_out *out)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_step");
    slg_status status = run(l, batch, true, lr, out);
    if (status) l->pending = false; /* of the forward inside */
    return op_end(l->ctx, status);
}

/* ---- What it tells ---------------------------------------------------------------------- */

static slg_status get_rows(slg_spherical_layer *l, const slg_tensor *index, slg_tensor *weight)
{
    slg_ctx *ctx = l->ctx;
    if (index) SLG_TRY(tensor_in(ctx, "index", index, DT_INT, 1, 1));
    const int64_t n = index ? index->shape[0] : l->classes, shape[2] = { n, l->dim };
    SLG_TRY(tensor_out(ctx, "weight", weight, DT_ROW | DT_F64, 2, 2));
    SLG_TRY(tensor_shape_is(ctx, "weight", weight, 2, shape));
    if (index && tensor_size(weight) > 0 &&
        (tensor_clash(weight, index) || weight->data == index->data))
        return slg_fail(ctx, SLG_ERR_STRIDE, "weight overlaps index");
    int64_t *at = index ? arena_alloc(ctx, (size_t)n, sizeof *at) : NULL;
    double *v = arena_alloc(ctx, V_BLOCK * (size_t)l->dim, sizeof *v);
    double *w = arena_alloc(ctx, V_BLOCK * (size_t)l->dim, sizeof *w);
    float *scratch = arena_alloc(ctx, (size_t)l->dim, sizeof *scratch);
    if ((index && !at) || !v || !w || !scratch) return SLG_ERR_MEMORY;
    if (index) {
        rows from = rows_per_row(index);
        for (int64_t r = 0; r < n; r++) {
            at[r] = rows_get_int(&from, r, 0);
            if (at[r] < 0 || at[r] >= l->classes)
                return slg_fail(ctx, SLG_ERR_RANGE,
                                "index[%lld] is %lld, must be from 0 to %lld", (long long)r,
                                (long long)at[r], (long long)l->classes - 1);
        }
    }
    rows to = rows_of(weight);
    for (int64_t first = 0; first < n; first += V_BLOCK) {
        const int64_t count = n - first < V_BLOCK ? n - first : V_BLOCK;
        SLG_TRY(layer_w_rows(l, at, first, count, v, w));
        for (int64_t r = 0; r < count; r++)
            layer_write(ctx, &to, first + r, l->dim, w + r * l->dim, scratch);
    }
    return SLG_OK;
}

slg_status slg_spherical_layer_rows(slg_spherical_layer *l, const slg_tensor *index,
                                    slg_tensor *weight)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_rows");
    return op_end(l->ctx, get_rows(l, index, weight));
}

static slg_status get_info(slg_spherical_layer *l, slg_spherical_layer_info_t *given)
{
    slg_ctx *ctx = l->ctx;
    const int64_t d = l->dim, square[2] = { d, d };
    slg_spherical_layer_info_t i = info_defaults;
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "info is NULL");
    SLG_TRY(options_read(ctx, "info", given, &i, sizeof i));
    slg_tensor *const outs[] = { i.gram, i.column_sums, i.singular };
    static const char *const names[] = { "info.gram", "info.column_sums", "info.singular" };
    for (int k = 0; k < 3; k++) {
        if (!outs[k]) continue;
        SLG_TRY(tensor_out(ctx, names[k], outs[k], DT_F32 | DT_F64, 1, 2));
        SLG_TRY(tensor_shape_is(ctx, names[k], outs[k], k ? 1 : 2, square));
        for (int j = 0; j < k; j++)
            if (outs[j] && (tensor_clash(outs[k], outs[j]) || outs[k]->data == outs[j]->data))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", names[k], names[j]);
    }
    double *scratch = arena_alloc(ctx, 2 * (size_t)d, sizeof *scratch);
    double *values = arena_alloc(ctx, (size_t)d, sizeof *values);
    double *left = i.singular ? arena_alloc(ctx, (size_t)(d * d), sizeof *left) : NULL;
    if (!scratch || !values || (i.singular && !left)) return SLG_ERR_MEMORY;
    if (i.singular) SLG_TRY(layer_singular(l, values, left));
    if (i.singular) put_row_numbers(i.singular, d, values);
    put_row_numbers(i.column_sums, d, l->wbar);
    if (i.gram) {
        rows m = rows_of(i.gram);
        for (int64_t r = 0; r < d; r++)
            for (int64_t c = 0; c < d; c++) rows_put(&m, r, c, l->q[r * d + c]);
    }
    i.pending = l->pending;
    i.classes = l->classes, i.dim = d, i.steps = l->steps;
    i.moved = l->moved, i.refactorised = l->refactorised;
    i.low_bound = l->low * l->target, i.high_bound = l->high * l->target;
    i.drift = layer_drift(l, scratch);
    options_write(given, &i, sizeof i);
    return SLG_OK;
}

slg_status slg_spherical_layer_info(slg_spherical_layer *l, slg_spherical_layer_info_t *info)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_info");
    return op_end(l->ctx, get_info(l, info));
}

/* ---- State as bytes --------------------------------------------------------------------- */

typedef struct state_header {
    char magic[8];
    int64_t classes, dim, steps, looked, refreshed, moved, refactorised;
    double target, low, high;
    uint64_t checksum; /* of what comes before it and of the arrays */
} state_header;

static const char magic[8] = { 's', 'l', 'g', 's', 'p', 'h', '0', '1' };

enum { ARRAYS = 6 };

static void parts_of(const slg_spherical_layer *l, state_part parts[ARRAYS])
{
    const size_t d = (size_t)l->dim;
    void *const all[ARRAYS] = { l->u, l->p, l->q, l->omega, l->wbar, l->v };
    for (int i = 0; i < ARRAYS; i++) {
        const size_t bytes = i < 3 ? 8 * d * d : i < 5 ? 8 * d : 4 * d * (size_t)l->classes;
        parts[i] = (state_part){ all[i], bytes };
    }
}

slg_status slg_spherical_layer_export(slg_spherical_layer *l, void *buffer, int64_t capacity,
                                      int64_t *bytes)
{
    state_part parts[ARRAYS];
    if (!l || !bytes) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_export");
    state_header h = { .classes = l->classes,
                       .dim = l->dim,
                       .steps = l->steps,
                       .looked = l->looked,
                       .refreshed = l->refreshed,
                       .moved = l->moved,
                       .refactorised = l->refactorised,
                       .target = l->target,
                       .low = l->low,
                       .high = l->high };
    memcpy(h.magic, magic, sizeof magic);
    parts_of(l, parts);
    return op_end(l->ctx,
                  state_write(l->ctx, &h, sizeof h, parts, ARRAYS, buffer, capacity, bytes));
}

static slg_status import(slg_spherical_layer *l, const void *buffer, int64_t bytes)
{
    state_header h;
    state_part parts[ARRAYS];
    SLG_TRY(state_open(l->ctx, "a spherical layer", magic, buffer, bytes, &h, sizeof h));
    if (h.classes != l->classes || h.dim != l->dim)
        return slg_fail(
            l->ctx, SLG_ERR_STATE, "state has %lld classes, dim %lld; the layer %lld, %lld",
            (long long)h.classes, (long long)h.dim, (long long)l->classes, (long long)l->dim);
    parts_of(l, parts);
    const int64_t total = state_total(sizeof h, parts, ARRAYS);
    SLG_TRY(state_check(l->ctx, &h, sizeof h, total, buffer, bytes));
    state_read(buffer, sizeof h, parts, ARRAYS);
    l->steps = h.steps, l->looked = h.looked, l->refreshed = h.refreshed;
    l->moved = h.moved, l->refactorised = h.refactorised;
    l->target = h.target, l->low = h.low, l->high = h.high;
    l->pending = false;
    return SLG_OK;
}

slg_status slg_spherical_layer_import(slg_spherical_layer *l, const void *buffer, int64_t bytes)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_import");
    return op_end(l->ctx, import(l, buffer, bytes));
}
