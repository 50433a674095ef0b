/*
 * backward_open.c - checks of the backward pass, and how its work is cut.
 */
#include "backward.h"

#include "core/options.h"

/* Floats of k, v and their gradients that a chunk of keys has: half of an L2 cache of 1 MiB. */
enum { CHUNK_FLOATS = 1 << 17 };

/* The most sums of dq. */
enum { MOST_PARTS = 16 };

/* ---- Checks ------------------------------------------------------------------------------ */

static slg_status dims_as_q(const attention *a, const char *name, const slg_tensor *t)
{
    if (t->ndim == a->in.q->ndim) return SLG_OK;
    return slg_fail(a->ctx, SLG_ERR_SHAPE, "%s has %d dimensions, q has %d", name, (int)t->ndim,
                    (int)a->in.q->ndim);
}

/* Of o and dout. */
static slg_status open_output(const attention *a, const char *name, const slg_tensor *t,
                              heads_view *view)
{
    SLG_TRY(heads_view_open(a->ctx, name, t, view));
    SLG_TRY(dims_as_q(a, name, t));
    return heads_view_is(a->ctx, name, view, a->batch, a->heads, a->queries, a->value_dim);
}

/* A gradient with the shape of an input. */
static slg_status open_grad(const attention *a, const char *name, slg_tensor *t,
                            unsigned dtypes, const char *like_name, const slg_tensor *like,
                            heads_view *view)
{
    *view = (heads_view){ 0 };
    if (!t) return SLG_OK;
    if (!like)
        return slg_fail(a->ctx, SLG_ERR_NULL, "%s is wanted, but %s is NULL", name, like_name);
    SLG_TRY(tensor_out(a->ctx, name, t, dtypes, 3, 4));
    SLG_TRY(tensor_same_shape(a->ctx, name, t, like_name, like));
    return heads_view_open(a->ctx, name, t, view);
}

static slg_status open_vector(const attention *a, const char *name, slg_tensor *t, int64_t n)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(a->ctx, name, t, DT_F32, 1, 1));
    return tensor_shape_is(a->ctx, name, t, 1, &n);
}

static bool touches(const slg_tensor *out, const slg_tensor *t)
{
    return t && tensor_size(t) && tensor_size(out) &&
           (t->data == out->data || tensor_clash(out, t));
}

/* No gradient overlaps an input, or another gradient. */
static slg_status open_apart(const attention *a, const slg_attention_grad *g,
                             const slg_attention_out *out, const slg_tensor *dout)
{
    const slg_tensor *const grads[] = { g->dq, g->dk, g->dv, g->dbias, g->dsinks, g->dscale };
    static const char *const names[] = { "dq", "dk", "dv", "dbias", "dsinks", "dscale" };
    const slg_tensor *const inputs[] = { out->o, out->lse, dout, g->dlse };
    static const char *const input_names[] = { "o", "lse", "dout", "dlse" };
    for (size_t i = 0; i < 6; i++) {
        if (!grads[i]) continue;
        SLG_TRY(attention_apart(a, names[i], grads[i]));
        for (size_t j = 0; j < 4; j++)
            if (touches(grads[i], inputs[j]))
                return slg_fail(a->ctx, SLG_ERR_STRIDE, "%s overlaps %s", names[i],
                                input_names[j]);
        for (size_t j = 0; j < i; j++)
            if (touches(grads[i], grads[j]))
                return slg_fail(a->ctx, SLG_ERR_STRIDE, "%s overlaps %s", names[i], names[j]);
    }
    return SLG_OK;
}

static slg_status open_saved(backward_run *r, const slg_attention_out *out,
                             const slg_tensor *dout, const slg_attention_grad *g)
{
    const attention *a = &r->a;
    SLG_TRY(open_output(a, "o", out->o, &r->o));
    SLG_TRY(open_output(a, "dout", dout, &r->dout));
    SLG_TRY(tensor_in(a->ctx, "lse", out->lse, DT_F32, 2, 3));
    SLG_TRY(attention_per_query(a, "lse", out->lse));
    r->lse = rows_per_row(out->lse);
    if (!g->dlse) return SLG_OK;
    SLG_TRY(tensor_in(a->ctx, "dlse", g->dlse, DT_F32, 2, 3));
    SLG_TRY(attention_per_query(a, "dlse", g->dlse));
    r->dlse = rows_per_row(g->dlse);
    return SLG_OK;
}

static slg_status open_grads(backward_run *r, const slg_attention_grad *g)
{
    const attention *a = &r->a;
    const slg_attention_inputs *in = &a->in;
    SLG_TRY(option_reserved(a->ctx, "grad.reserved", g->reserved));
    SLG_TRY(open_grad(a, "dq", g->dq, DT_ROW, "q", in->q, &r->dq));
    SLG_TRY(open_grad(a, "dk", g->dk, DT_ROW, "k", in->k, &r->dk));
    SLG_TRY(open_grad(a, "dv", g->dv, DT_ROW, "v", in->v, &r->dv));
    SLG_TRY(open_grad(a, "dbias", g->dbias, DT_F32, "bias", in->bias, &r->dbias));
    if (g->dsinks && !in->sinks)
        return slg_fail(a->ctx, SLG_ERR_NULL, "dsinks is wanted, but sinks is NULL");
    SLG_TRY(open_vector(a, "dsinks", g->dsinks, a->heads));
    r->dq_wanted = r->dq.rows.data || g->dscale;
    return open_vector(a, "dscale", g->dscale, in->scale ? in->scale->shape[0] : 1);
}

/* ---- How work is cut --------------------------------------------------------------------- */

/* Tasks over sequences and key heads where no gradient is a sum over them; then enough parts
   that there are some MOST_PARTS tasks. */
static void plan(backward_run *r)
{
    const attention *a = &r->a;
    const bool bias = r->dbias.rows.data != NULL;
    const int64_t per_key = 2 * (a->dim + a->value_dim) + 1;
    r->sequence_units = bias && r->dbias.batch == 1 && a->batch > 1 ? 1 : a->sequences;
    r->group_units = bias && r->dbias.heads == 1 && a->heads > 1 ? 1 : a->key_heads;
    if (r->sequence_units > a->sequences) r->sequence_units = a->sequences;
    if (r->group_units > a->key_heads) r->group_units = a->key_heads;
    r->chunk = CHUNK_FLOATS / per_key / a->key_tile * a->key_tile;
    if (r->chunk < a->key_tile) r->chunk = a->key_tile;
    const int64_t units = r->sequence_units * r->group_units;
    const int64_t chunks = (a->keys + r->chunk - 1) / r->chunk;
    r->parts = units > 0 ? MOST_PARTS / units : 1;
    if (r->parts > chunks) r->parts = chunks;
    if (r->parts < 1) r->parts = 1;
}

static void clear_rows(const heads_view *v, int64_t row)
{
    for (int64_t c = 0; c < v->dim; c++) rows_put(&v->rows, row, c, 0);
}

static void clear_bias_row(void *arg, int64_t row, int32_t worker)
{
    const backward_run *r = arg;
    (void)worker;
    clear_rows(&r->dbias, row);
}

void backward_clear(const backward_run *r)
{
    const attention *a = &r->a;
    const sequence *last = a->sequences ? &a->sequence[a->sequences - 1] : NULL;
    if (r->dbias.rows.data)
        pool_run(a->ctx, r->dbias.rows.count, clear_bias_row, (void *)(uintptr_t)r);
    if (!a->in.query_offsets) return;
    /* Tokens of packed tensors that belong to no sequence. */
    const int64_t queries = last ? last->query + last->queries : 0;
    const int64_t keys = last ? last->key + last->keys : 0;
    for (int64_t h = 0; h < a->heads; h++)
        for (int64_t i = queries; i < a->queries; i++) {
            const int64_t row = view_row(&a->q, 0, h, i);
            if (r->dq_parts)
                for (int64_t c = 0; c < r->parts * a->dim; c++)
                    r->dq_parts[((c / a->dim) * a->heads * a->queries + row) * a->dim +
                                c % a->dim] = 0.0f;
            else if (r->dq.rows.data)
                clear_rows(&r->dq, row);
        }
    for (int64_t h = 0; h < a->key_heads; h++)
        for (int64_t j = keys; j < a->keys; j++) {
            if (r->dk.rows.data) clear_rows(&r->dk, view_row(&a->k, 0, h, j));
            if (r->dv.rows.data) clear_rows(&r->dv, view_row(&a->v, 0, h, j));
        }
}

/* ---- The call ---------------------------------------------------------------------------- */

slg_status attention_backward(slg_ctx *ctx, const slg_attention_inputs *in,
                              const slg_attention_opts *opts, const slg_attention_out *saved,
                              const slg_tensor *dout, slg_attention_grad *given,
                              int64_t query_tile, int64_t key_tile)
{
    slg_attention_opts o;
    slg_attention_out out = { .size = sizeof out };
    slg_attention_grad grad = { .size = sizeof grad };
    backward_run r = { .scratch = NULL };
    if (!saved) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "grad is NULL");
    SLG_TRY(options_read(ctx, "out", saved, &out, sizeof out));
    SLG_TRY(options_read(ctx, "grad", given, &grad, sizeof grad));
    SLG_TRY(option_reserved(ctx, "out.reserved", out.reserved));
    SLG_TRY(attention_options(ctx, opts, &o));
    SLG_TRY(attention_open(ctx, in, &o, query_tile, key_tile, &r.a));
    SLG_TRY(open_saved(&r, &out, dout, &grad));
    SLG_TRY(open_grads(&r, &grad));
    SLG_TRY(open_apart(&r.a, &grad, &out, dout));
    op_detail(ctx, in->q);
    op_detail(ctx, in->k);
    plan(&r);
    return backward_run_all(&r, &grad);
}

slg_status slg_attention_backward(slg_ctx *ctx, const slg_attention_inputs *in,
                                  const slg_attention_opts *opts, const slg_attention_out *out,
                                  const slg_tensor *dout, slg_attention_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_attention_backward");
    return op_end(ctx,
                  attention_backward(ctx, in, opts, out, dout, grad, QUERY_TILE, KEY_TILE));
}
