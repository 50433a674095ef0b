/*
 * activation.c - GELU, SiLU, ReLU and gated linear units, element by element: a pass over
 * memory with the bias before it, and backward the bias's gradient, on the way.
 */
#include "column_sums.h"

enum { PIECE = 512 }; /* columns at a time, where rows are converted */

static const slg_activation_opts defaults = { .size = sizeof(slg_activation_opts),
                                              .kind = SLG_GELU };

void slg_activation_opts_init(slg_activation_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open_options(slg_ctx *ctx, const slg_activation_opts *given, int32_t kind,
                               slg_activation_opts *o)
{
    *o = defaults;
    o->kind = kind;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    if (o->kind < SLG_GELU || o->kind > SLG_RELU)
        return slg_fail(ctx, SLG_ERR_RANGE, "kind is %d, there is no such activation", o->kind);
    SLG_TRY(option_choice(ctx, "accumulate", o->accumulate, 0, 1));
    return SLG_OK;
}

/* Tensors of a call, all of the shape of the first. */
enum { INPUTS = 3, OUTPUTS = 2 };

typedef struct job {
    const kernel_table *k;
    bool gated, backward;
    int32_t kind;
    rows in[INPUTS], out[OUTPUTS]; /* x, dy; or gate, up, dy */
    const float *bias;
    column_sums sums;
} job;

static void piece(const job *j, int64_t r, int64_t c, int64_t n, float *dbias)
{
    float f[INPUTS][PIECE], g[OUTPUTS][PIECE];
    const float *in[INPUTS] = { 0 }, *bias = j->bias ? j->bias + c : NULL;
    float *out[OUTPUTS] = { 0 };
    const size_t size = (size_t)n;
    for (int i = 0; i < INPUTS; i++)
        if (j->in[i].data) in[i] = rows_fetch(j->k, &j->in[i], r, c, n, f[i]);
    for (int i = 0; i < OUTPUTS; i++)
        if (j->out[i].data) out[i] = rows_stage(&j->out[i], r, c, g[i]);
    if (j->gated && j->backward)
        j->k->act_gate_bwd(size, in[0], in[1], in[2], j->kind, out[0], out[1]);
    else if (j->gated)
        j->k->act_gate(size, in[0], in[1], j->kind, out[0]);
    else if (j->backward)
        j->k->act_bwd(size, in[0], bias, in[1], j->kind, out[0]);
    else
        j->k->act(size, in[0], bias, j->kind, out[0]);
    if (dbias) j->k->add(size, out[0], dbias + c);
    for (int i = 0; i < OUTPUTS; i++)
        if (j->out[i].data) rows_commit(j->k, &j->out[i], r, c, n, g[i]);
}

static void chunk(void *arg, int64_t task, int32_t worker)
{
    const job *j = arg;
    const int64_t cols = j->in[0].cols;
    float *sum[2];
    int64_t r, end = column_sums_chunk(&j->sums, task, &r, sum);
    (void)worker;
    for (; r < end; r++)
        for (int64_t c = 0; c < cols; c += PIECE)
            piece(j, r, c, cols - c < PIECE ? cols - c : PIECE, sum[0]);
}

typedef struct operand {
    const char *name;
    const slg_tensor *t;
    unsigned may_be; /* an output: bit i for input i, whose very view it may be */
} operand;

static slg_status check(slg_ctx *ctx, int inputs, const operand *in, int outputs,
                        const operand *out, const slg_tensor *bias)
{
    for (int i = 0; i < inputs + outputs; i++) {
        const operand *o = i < inputs ? &in[i] : &out[i - inputs];
        SLG_TRY(i < inputs ? tensor_in(ctx, o->name, o->t, DT_ROW, 1, 4)
                           : tensor_out(ctx, o->name, o->t, DT_ROW, 1, 4));
        if (i > 0) SLG_TRY(tensor_same_shape(ctx, o->name, o->t, in[0].name, in[0].t));
    }
    for (int i = 0; i < outputs; i++) {
        for (int k = 0; k < inputs; k++)
            SLG_TRY(layer_apart(ctx, out[i].name, out[i].t, in[k].name, in[k].t,
                                out[i].may_be >> k & 1));
        SLG_TRY(layer_apart(ctx, out[i].name, out[i].t, "bias", bias, false));
        for (int k = 0; k < i; k++)
            SLG_TRY(layer_apart(ctx, out[i].name, out[i].t, out[k].name, out[k].t, false));
    }
    return SLG_OK;
}

static slg_status run(slg_ctx *ctx, job *j, int inputs, const operand *in, int outputs,
                      const operand *out, const slg_tensor *dbias, bool accumulate)
{
    const slg_tensor *x = in[0].t;
    const int64_t dim = x->shape[x->ndim - 1], count = dim ? tensor_size(x) / dim : 0;
    SLG_TRY(column_sums_open(ctx, count, dim, dbias != NULL, false, &j->sums));
    op_detail(ctx, x);
    for (int i = 0; i < inputs; i++) j->in[i] = rows_of(in[i].t);
    for (int i = 0; i < outputs; i++) j->out[i] = rows_of(out[i].t);
    if (count > 0) pool_run(ctx, j->sums.chunks, chunk, j);
    column_sums_close(&j->sums, 0, accumulate, dbias);
    return SLG_OK;
}

static slg_status plain(slg_ctx *ctx, bool backward, const slg_tensor *x,
                        const slg_tensor *bias, const slg_tensor *dy,
                        const slg_activation_opts *opts, const slg_tensor *result,
                        const slg_tensor *dbias)
{
    slg_activation_opts o;
    const operand in[] = { { "x", x, 0 }, { "dy", dy, 0 } };
    const operand out = { backward ? "dx" : "y", result, 3 };
    const int inputs = backward ? 2 : 1;
    job j = { .k = &ctx->k, .backward = backward };
    SLG_TRY(open_options(ctx, opts, SLG_GELU, &o));
    SLG_TRY(check(ctx, inputs, in, 1, &out, bias));
    const int64_t dim = x->shape[x->ndim - 1];
    SLG_TRY(layer_vector(ctx, "bias", bias, dim, &j.bias));
    SLG_TRY(layer_vector_out(ctx, "dbias", dbias, dim));
    const operand sum = { "dbias", dbias, 0 };
    for (int i = 0; i < inputs; i++)
        SLG_TRY(layer_apart(ctx, sum.name, dbias, in[i].name, in[i].t, false));
    SLG_TRY(layer_apart(ctx, sum.name, dbias, "bias", bias, false));
    SLG_TRY(layer_apart(ctx, sum.name, dbias, out.name, result, false));
    j.kind = o.kind;
    return run(ctx, &j, inputs, in, 1, &out, dbias, o.accumulate);
}

slg_status slg_activation(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *bias,
                          const slg_activation_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_activation");
    return op_end(ctx, plain(ctx, false, x, bias, NULL, opts, y, NULL));
}

slg_status slg_activation_backward(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *bias,
                                   const slg_tensor *dy, const slg_activation_opts *opts,
                                   slg_tensor *dx, slg_tensor *dbias)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_activation_backward");
    return op_end(ctx, plain(ctx, true, x, bias, dy, opts, dx, dbias));
}

static slg_status gated(slg_ctx *ctx, bool backward, const slg_tensor *gate,
                        const slg_tensor *up, const slg_tensor *dy,
                        const slg_activation_opts *opts, const slg_tensor *result,
                        const slg_tensor *dup)
{
    slg_activation_opts o;
    const operand in[] = { { "gate", gate, 0 }, { "up", up, 0 }, { "dy", dy, 0 } };
    const operand out[] = { { backward ? "dgate" : "y", result, backward ? 1 : 3 },
                            { "dup", dup, 2 } };
    const int inputs = backward ? 3 : 2, outputs = backward ? 2 : 1;
    job j = { .k = &ctx->k, .gated = true, .backward = backward };
    SLG_TRY(open_options(ctx, opts, SLG_SILU, &o));
    SLG_TRY(check(ctx, inputs, in, outputs, out, NULL));
    j.kind = o.kind;
    return run(ctx, &j, inputs, in, outputs, out, NULL, false);
}

slg_status slg_gated_activation(slg_ctx *ctx, const slg_tensor *gate, const slg_tensor *up,
                                const slg_activation_opts *opts, slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_gated_activation");
    return op_end(ctx, gated(ctx, false, gate, up, NULL, opts, y, NULL));
}

slg_status slg_gated_activation_backward(slg_ctx *ctx, const slg_tensor *gate,
                                         const slg_tensor *up, const slg_tensor *dy,
                                         const slg_activation_opts *opts, slg_tensor *dgate,
                                         slg_tensor *dup)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_gated_activation_backward");
    return op_end(ctx, gated(ctx, true, gate, up, dy, opts, dgate, dup));
}
