/*
 * problem.c - checks of a call of attention, and its small tensors as arrays.
 */
#include "problem.h"

#include <math.h>

#include "core/options.h"

/* Positions and windows beyond this are as good as it: all sums of them fit. */
#define FAR ((int64_t)1 << 60)

/* ---- Tensors ----------------------------------------------------------------------------- */

slg_status heads_view_open(slg_ctx *ctx, const char *name, const slg_tensor *t,
                           heads_view *view)
{
    SLG_TRY(tensor_in(ctx, name, t, DT_ROW, 3, 4));
    const int32_t d = t->ndim - 3;
    *view = (heads_view){ rows_of(t),      d ? t->shape[0] : 1, t->shape[d],
                          t->shape[d + 1], t->shape[d + 2],     (ptrdiff_t)t->stride[d + 1] };
    return SLG_OK;
}

slg_status heads_view_is(slg_ctx *ctx, const char *name, const heads_view *v, int64_t batch,
                         int64_t heads, int64_t tokens, int64_t dim)
{
    if (v->batch == batch && v->heads == heads && v->tokens == tokens && v->dim == dim)
        return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE,
                    "%s has shape [%lld, %lld, %lld, %lld], must have [%lld, %lld, %lld, %lld]",
                    name, (long long)v->batch, (long long)v->heads, (long long)v->tokens,
                    (long long)v->dim, (long long)batch, (long long)heads, (long long)tokens,
                    (long long)dim);
}

slg_status attention_per_query(const attention *a, const char *name, const slg_tensor *t)
{
    const int64_t shape[3] = { a->batch, a->heads, a->queries };
    return tensor_shape_is(a->ctx, name, t, a->flat ? 2 : 3, a->flat ? shape + 1 : shape);
}

slg_status attention_apart(const attention *a, const char *name, const slg_tensor *out)
{
    const slg_attention_inputs *in = &a->in;
    const slg_tensor *const inputs[] = { in->q,
                                         in->k,
                                         in->v,
                                         in->window,
                                         in->scale,
                                         in->slopes,
                                         in->sinks,
                                         in->bias,
                                         in->key_valid,
                                         in->key_length,
                                         in->query_position,
                                         in->query_offsets,
                                         in->key_offsets };
    static const char *const names[] = {
        "q",          "k",    "v",         "window",     "scale",          "slopes",
        "sinks",      "bias", "key_valid", "key_length", "query_position", "query_offsets",
        "key_offsets"
    };
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        const slg_tensor *t = inputs[i];
        const bool same = t && t->data == out->data && tensor_size(t) && tensor_size(out);
        if (same || tensor_clash(out, t))
            return slg_fail(a->ctx, SLG_ERR_STRIDE, "%s overlaps %s", name, names[i]);
    }
    return SLG_OK;
}

/* A 1-d tensor of n numbers. */
static slg_status vector_open(slg_ctx *ctx, const char *name, const slg_tensor *t,
                              unsigned dtypes, int64_t n)
{
    SLG_TRY(tensor_in(ctx, name, t, dtypes, 1, 1));
    return tensor_shape_is(ctx, name, t, 1, &n);
}

static slg_status floats_open(attention *a, const char *name, const slg_tensor *t, float **out)
{
    *out = NULL;
    if (!t) return SLG_OK;
    SLG_TRY(vector_open(a->ctx, name, t, DT_F32, a->heads));
    float *x = arena_alloc(a->ctx, (size_t)a->heads, sizeof *x);
    if (!x) return SLG_ERR_MEMORY;
    const rows m = rows_of(t);
    for (int64_t h = 0; h < a->heads; h++) x[h] = (float)rows_get(&m, 0, h);
    *out = x;
    return SLG_OK;
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* ---- Heads ------------------------------------------------------------------------------- */

static slg_status open_bands(attention *a, const slg_tensor *window)
{
    rows m = { 0 };
    a->band = arena_alloc(a->ctx, (size_t)a->heads, sizeof *a->band);
    if (!a->band) return SLG_ERR_MEMORY;
    if (window) {
        SLG_TRY(vector_open(a->ctx, "window", window, DT_INT, a->heads));
        m = rows_of(window);
    }
    for (int64_t h = 0; h < a->heads; h++) {
        const int64_t w = window ? rows_get_int(&m, 0, h) : 0;
        if (w < 0)
            return slg_fail(a->ctx, SLG_ERR_RANGE, "window[%lld] is %lld, must be 0 or more",
                            (long long)h, (long long)w);
        const int64_t reach = w == 0 ? FAR : clamp(w, 1, FAR) - 1;
        a->band[h] = (band){ a->causal ? 0 : -reach, reach };
    }
    return SLG_OK;
}

static slg_status open_scale(attention *a, const slg_tensor *scale, double fixed)
{
    const double usual = a->dim > 0 ? 1 / sqrt((double)a->dim) : 1;
    rows m = { 0 };
    a->scale = arena_alloc(a->ctx, (size_t)a->heads, sizeof *a->scale);
    if (!a->scale) return SLG_ERR_MEMORY;
    if (scale) {
        if (fixed != 0)
            return slg_fail(a->ctx, SLG_ERR_OPTIONS,
                            "opts.scale is %g, must be 0 where scale is given as a tensor",
                            fixed);
        const bool one = scale->ndim == 1 && scale->shape[0] == 1;
        SLG_TRY(vector_open(a->ctx, "scale", scale, DT_F32, one ? 1 : a->heads));
        m = rows_of(scale);
    }
    for (int64_t h = 0; h < a->heads; h++)
        a->scale[h] = scale ? (float)rows_get(&m, 0, m.cols == 1 ? 0 : h)
                            : (float)(fixed != 0 ? fixed : usual);
    return SLG_OK;
}

static slg_status open_slopes(attention *a, const slg_attention_inputs *in)
{
    SLG_TRY(floats_open(a, "sinks", in->sinks, &a->sinks));
    SLG_TRY(floats_open(a, "slopes", in->slopes, &a->slopes));
    for (int64_t h = 0; a->slopes && h < a->heads; h++)
        if (!isfinite(a->slopes[h]))
            return slg_fail(a->ctx, SLG_ERR_RANGE, "slopes[%lld] is %g, must be finite",
                            (long long)h, (double)a->slopes[h]);
    return SLG_OK;
}

/* ---- Sequences --------------------------------------------------------------------------- */

/* Offsets 0 = o[0] <= o[1] <= ... <= o[sequences] <= tokens. */
static slg_status offsets_open(attention *a, const char *name, const slg_tensor *t,
                               int64_t tokens, rows *m)
{
    int64_t last = 0;
    SLG_TRY(vector_open(a->ctx, name, t, DT_INT, a->sequences + 1));
    *m = rows_of(t);
    for (int64_t s = 0; s <= a->sequences; s++) {
        const int64_t x = rows_get_int(m, 0, s);
        if (x < last || x > tokens || (s == 0 && x != 0))
            return slg_fail(
                a->ctx, SLG_ERR_RANGE,
                "%s[%lld] is %lld, must be 0 at first, not fall, and be at most %lld", name,
                (long long)s, (long long)x, (long long)tokens);
        last = x;
    }
    return SLG_OK;
}

static slg_status packed_sequences(attention *a, const slg_attention_inputs *in)
{
    rows q, k;
    if (!in->query_offsets || !in->key_offsets)
        return slg_fail(a->ctx, SLG_ERR_NULL, "%s is NULL, but %s is not",
                        in->query_offsets ? "key_offsets" : "query_offsets",
                        in->query_offsets ? "query_offsets" : "key_offsets");
    if (in->key_length || in->query_position)
        return slg_fail(a->ctx, SLG_ERR_OPTIONS, "%s must be NULL where there are offsets",
                        in->key_length ? "key_length" : "query_position");
    if (a->batch != 1)
        return slg_fail(a->ctx, SLG_ERR_SHAPE,
                        "batch is %lld, must be 1 where there are offsets",
                        (long long)a->batch);
    SLG_TRY(tensor_in(a->ctx, "query_offsets", in->query_offsets, DT_INT, 1, 1));
    if (in->query_offsets->shape[0] < 1)
        return slg_fail(a->ctx, SLG_ERR_SHAPE, "query_offsets is empty");
    a->sequences = in->query_offsets->shape[0] - 1;
    SLG_TRY(offsets_open(a, "query_offsets", in->query_offsets, a->queries, &q));
    SLG_TRY(offsets_open(a, "key_offsets", in->key_offsets, a->keys, &k));
    a->sequence = arena_alloc(a->ctx, (size_t)a->sequences, sizeof *a->sequence);
    if (!a->sequence) return SLG_ERR_MEMORY;
    for (int64_t s = 0; s < a->sequences; s++) {
        const int64_t q0 = rows_get_int(&q, 0, s), k0 = rows_get_int(&k, 0, s);
        sequence *to = &a->sequence[s];
        *to = (sequence){ .query = q0, .key = k0 };
        to->queries = rows_get_int(&q, 0, s + 1) - q0;
        to->keys = rows_get_int(&k, 0, s + 1) - k0;
        to->position = to->keys - to->queries;
    }
    return SLG_OK;
}

static slg_status batch_sequences(attention *a, const slg_attention_inputs *in)
{
    rows length = { 0 }, position = { 0 };
    a->sequences = a->batch;
    a->sequence = arena_alloc(a->ctx, (size_t)a->batch, sizeof *a->sequence);
    if (!a->sequence) return SLG_ERR_MEMORY;
    if (in->key_length) {
        SLG_TRY(vector_open(a->ctx, "key_length", in->key_length, DT_INT, a->batch));
        length = rows_of(in->key_length);
    }
    if (in->query_position) {
        SLG_TRY(vector_open(a->ctx, "query_position", in->query_position, DT_INT, a->batch));
        position = rows_of(in->query_position);
    }
    for (int64_t b = 0; b < a->batch; b++) {
        const int64_t n = length.data ? rows_get_int(&length, 0, b) : a->keys;
        if (n < 0 || n > a->keys)
            return slg_fail(a->ctx, SLG_ERR_RANGE,
                            "key_length[%lld] is %lld, must be from 0 to %lld", (long long)b,
                            (long long)n, (long long)a->keys);
        a->sequence[b] = (sequence){ .batch = b, .queries = a->queries, .keys = n };
        a->sequence[b].position = position.data
                                      ? clamp(rows_get_int(&position, 0, b), -FAR, FAR)
                                      : a->keys - a->queries;
    }
    return SLG_OK;
}

/* Tiles, and that positions make sense. */
static slg_status number_tiles(attention *a, const slg_attention_inputs *in)
{
    bool positions = a->causal || in->slopes;
    for (int64_t h = 0; h < a->heads; h++) positions |= a->band[h].high < FAR;
    a->tiles = 0;
    for (int64_t s = 0; s < a->sequences; s++) {
        sequence *at = &a->sequence[s];
        const int64_t keys = in->query_offsets ? at->keys : a->keys;
        if (positions && !in->query_position && keys < at->queries)
            return slg_fail(
                a->ctx, SLG_ERR_SHAPE,
                "there are %lld keys for %lld queries of sequence %lld: queries are the "
                "last of the keys' positions",
                (long long)keys, (long long)at->queries, (long long)s);
        at->tile = a->tiles;
        a->tiles += (at->queries + a->query_tile - 1) / a->query_tile;
    }
    return SLG_OK;
}

const sequence *sequence_of_tile(const attention *a, int64_t tile)
{
    int64_t low = 0, high = a->sequences; /* the last sequence that starts at tile or before */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (a->sequence[middle].tile <= tile)
            low = middle;
        else
            high = middle;
    }
    return &a->sequence[low];
}

/* ---- Masks and dropout ------------------------------------------------------------------- */

static slg_status open_valid(attention *a, const slg_tensor *t)
{
    a->valid = NULL;
    if (!t) return SLG_OK;
    const int64_t shape[2] = { a->batch, a->keys };
    SLG_TRY(tensor_in(a->ctx, "key_valid", t, DT_F32 | DT_INT, 1, 2));
    const bool shared = t->ndim == 1;
    SLG_TRY(
        tensor_shape_is(a->ctx, "key_valid", t, shared ? 1 : 2, shared ? shape + 1 : shape));
    a->valid = arena_alloc(a->ctx, (size_t)a->batch, (size_t)(a->keys > 0 ? a->keys : 1));
    if (!a->valid) return SLG_ERR_MEMORY;
    const rows m = rows_of(t);
    for (int64_t b = 0; b < a->batch; b++)
        for (int64_t j = 0; j < a->keys; j++)
            a->valid[b * a->keys + j] = rows_get(&m, shared ? 0 : b, j) != 0;
    return SLG_OK;
}

static slg_status open_bias(attention *a, const slg_tensor *t)
{
    a->bias = (heads_view){ 0 };
    if (!t) return SLG_OK;
    SLG_TRY(heads_view_open(a->ctx, "bias", t, &a->bias));
    return heads_view_is(a->ctx, "bias", &a->bias, a->bias.batch == 1 ? 1 : a->batch,
                         a->bias.heads == 1 ? 1 : a->heads, a->queries, a->keys);
}

static slg_status open_dropout(attention *a, const slg_rng *rng, double dropout)
{
    a->keep = (float)(1 / (1 - dropout));
    a->threshold = 0;
    a->seed = rng ? rng->seed : 0;
    a->next = rng ? rng->offset : 0;
    if (dropout == 0) return SLG_OK;
    if (!rng) return slg_fail(a->ctx, SLG_ERR_NULL, "rng is NULL, dropout is %g", dropout);
    const double limit = rint(dropout * 0x1p32);
    a->threshold = limit < 0x1p32 ? (uint32_t)limit : UINT32_MAX;
    a->offset = rng->offset + (rng->offset & 1);
    a->next = a->offset +
              (uint64_t)(a->batch * a->heads * a->queries) * (uint64_t)((a->keys + 3) / 4) * 2;
    return SLG_OK;
}

/* ---- All of it --------------------------------------------------------------------------- */

static slg_status open_shapes(attention *a, const slg_attention_inputs *in)
{
    SLG_TRY(heads_view_open(a->ctx, "q", in->q, &a->q));
    SLG_TRY(heads_view_open(a->ctx, "k", in->k, &a->k));
    SLG_TRY(heads_view_open(a->ctx, "v", in->v, &a->v));
    a->batch = a->q.batch, a->heads = a->q.heads, a->queries = a->q.tokens, a->dim = a->q.dim;
    a->key_heads = a->k.heads, a->keys = a->k.tokens, a->value_dim = a->v.dim;
    a->flat = in->q->ndim == 3;
    if (in->k->ndim != in->q->ndim || in->v->ndim != in->q->ndim)
        return slg_fail(a->ctx, SLG_ERR_SHAPE, "q, k, v have %d, %d and %d dimensions",
                        (int)in->q->ndim, (int)in->k->ndim, (int)in->v->ndim);
    SLG_TRY(heads_view_is(a->ctx, "k", &a->k, a->batch, a->key_heads, a->keys, a->dim));
    SLG_TRY(heads_view_is(a->ctx, "v", &a->v, a->batch, a->key_heads, a->keys, a->value_dim));
    if (a->heads != 0 && (a->key_heads == 0 || a->heads % a->key_heads))
        return slg_fail(a->ctx, SLG_ERR_SHAPE,
                        "q has %lld heads, not a multiple of the %lld of k",
                        (long long)a->heads, (long long)a->key_heads);
    return SLG_OK;
}

slg_status attention_open(slg_ctx *ctx, const slg_attention_inputs *given,
                          const slg_attention_opts *o, int64_t query_tile, int64_t key_tile,
                          attention *a)
{
    slg_attention_inputs in = { .size = sizeof in };
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "in is NULL");
    SLG_TRY(options_read(ctx, "in", given, &in, sizeof in));
    SLG_TRY(option_reserved(ctx, "in.reserved", in.reserved));
    *a = (attention){ .ctx = ctx, .query_tile = query_tile, .key_tile = key_tile };
    a->in = in;
    a->causal = o->causal != 0;
    a->softcap = (float)o->softcap;
    SLG_TRY(open_shapes(a, &in));
    SLG_TRY(open_bands(a, in.window));
    SLG_TRY(open_scale(a, in.scale, o->scale));
    SLG_TRY(open_slopes(a, &in));
    SLG_TRY(in.query_offsets || in.key_offsets ? packed_sequences(a, &in)
                                               : batch_sequences(a, &in));
    SLG_TRY(number_tiles(a, &in));
    SLG_TRY(open_valid(a, in.key_valid));
    SLG_TRY(open_bias(a, in.bias));
    return open_dropout(a, in.rng, o->dropout);
}
