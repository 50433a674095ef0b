/*
 * linear_attention.c - checks of linear attention, and which sweeps make it and its gradients:
 * dq_t = sum of (do_t . v_s) k_s, dk_t = sum of (v_t . do_s) q_s and dv_t = sum of (k_t . q_s)
 * do_s are linear attention themselves, the latter two from the end.
 */
#include "core/options.h"
#include "linear_sweep.h"
#include "operands.h"
#include "softlogit/linear_attention.h"

enum { MOST_CHUNK = 4096 };

static const slg_linear_attention_opts opts_defaults = {
    .size = sizeof(slg_linear_attention_opts),
    .chunk = 64,
};
static const slg_linear_attention_grad grad_defaults = {
    .size = sizeof(slg_linear_attention_grad),
};

void slg_linear_attention_opts_init(slg_linear_attention_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

void slg_linear_attention_grad_init(slg_linear_attention_grad *grad, size_t size)
{
    options_init(grad, size, &grad_defaults, sizeof grad_defaults);
}

static slg_status read_options(slg_ctx *ctx, const slg_linear_attention_opts *given,
                               slg_linear_attention_opts *o)
{
    *o = opts_defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(option_choice(ctx, "form", o->form, SLG_LINEAR_INCLUSIVE, SLG_LINEAR_FULL));
    return option_choice(ctx, "chunk", o->chunk, 1, MOST_CHUNK);
}

/* An operand [.., last two], with the leading axes of q. */
static operand shaped(const char *name, const slg_tensor *t, unsigned dtypes, bool needed,
                      const slg_tensor *q, int64_t n, int64_t m)
{
    operand o = { .name = name, .t = t, .dtypes = dtypes, .needed = needed, .axes = q->ndim };
    for (int32_t i = 0; i + 2 < q->ndim; i++) o.shape[i] = q->shape[i];
    o.shape[q->ndim - 2] = n, o.shape[q->ndim - 1] = m;
    return o;
}

enum { IN_Q, IN_K, IN_V, IN_STATE, IN_DOUT, IN_DSTATE, INPUTS };

/* A tensor without tokens may have any dimensions, and no memory: states must fit
   all the same. */
static slg_status check_sizes(slg_ctx *ctx, const slg_tensor *q, int64_t d, int64_t e)
{
    int64_t size = 64 * (int64_t)sizeof(double); /* and segments */
    bool over = d > INT32_MAX || e > INT32_MAX || __builtin_mul_overflow(size, d, &size) ||
                __builtin_mul_overflow(size, e > 0 ? e : 1, &size);
    for (int32_t i = 0; i + 2 < q->ndim; i++)
        over = over || __builtin_mul_overflow(size, q->shape[i] + 1, &size);
    if (!over) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE, "states of %lld x %lld are too large", (long long)d,
                    (long long)e);
}

/* q and v give the sizes; what is NULL is left out or an error. */
static slg_status open_inputs(slg_ctx *ctx, const slg_tensor *const t[INPUTS], bool backward,
                              operand in[INPUTS], linear_job *job)
{
    const slg_tensor *q = t[IN_Q], *v = t[IN_V];
    SLG_TRY(tensor_in(ctx, "q", q, DT_ROW, 3, 4));
    SLG_TRY(tensor_in(ctx, "v", v, DT_ROW, q->ndim, q->ndim));
    op_detail(ctx, q);
    const int64_t tokens = q->shape[q->ndim - 2], d = q->shape[q->ndim - 1],
                  e = v->shape[q->ndim - 1];
    SLG_TRY(check_sizes(ctx, q, d, e));
    in[IN_Q] = shaped("q", q, DT_ROW, true, q, tokens, d);
    in[IN_K] = shaped("k", t[IN_K], DT_ROW, true, q, tokens, d);
    in[IN_V] = shaped("v", v, DT_ROW, true, q, tokens, e);
    in[IN_STATE] = shaped("state", t[IN_STATE], DT_F32 | DT_F64, false, q, d, e);
    in[IN_DOUT] = shaped("dout", t[IN_DOUT], DT_ROW, backward, q, tokens, e);
    in[IN_DSTATE] = shaped("dstate_out", t[IN_DSTATE], DT_F32 | DT_F64, false, q, d, e);
    SLG_TRY(operands_in(ctx, in, INPUTS));
    job->ctx = ctx, job->tokens = tokens, job->heads = 1;
    for (int32_t i = 0; i + 2 < q->ndim; i++) job->heads *= q->shape[i];
    return SLG_OK;
}

static linear_state state_of(const slg_tensor *t, bool turned)
{
    return (linear_state){ t ? rows_of(t) : (rows){ 0 }, turned };
}

static slg_status forward(slg_ctx *ctx, const slg_tensor *const t[INPUTS],
                          const slg_linear_attention_opts *opts, slg_tensor *o,
                          slg_tensor *state_out)
{
    slg_linear_attention_opts own;
    operand in[INPUTS];
    linear_job job = { 0 };
    SLG_TRY(read_options(ctx, opts, &own));
    SLG_TRY(open_inputs(ctx, t, false, in, &job));
    operand out[] = {
        shaped("o", o, DT_ROW, false, t[IN_Q], in[IN_V].t->shape[t[IN_Q]->ndim - 2],
               in[IN_V].t->shape[t[IN_Q]->ndim - 1]),
        in[IN_STATE],
    };
    out[1].name = "state_out", out[1].t = state_out, out[1].may_be = t[IN_STATE];
    SLG_TRY(operands_out(ctx, out, 2, in, INPUTS));
    job.form = own.form, job.chunk = own.chunk, job.sweeps = 1;
    job.sweep[0] = (linear_sweep){ linear_view_of(t[IN_Q]),
                                   linear_view_of(t[IN_K]),
                                   linear_view_of(t[IN_V]),
                                   linear_view_of(o),
                                   state_of(t[IN_STATE], false),
                                   state_of(state_out, false),
                                   false };
    return o || state_out ? linear_run(&job) : SLG_OK;
}

slg_status slg_linear_attention(slg_ctx *ctx, const slg_tensor *q, const slg_tensor *k,
                                const slg_tensor *v, const slg_tensor *state,
                                const slg_linear_attention_opts *opts, slg_tensor *o,
                                slg_tensor *state_out)
{
    if (!ctx) return SLG_ERR_NULL;
    const slg_tensor *const t[INPUTS] = { q, k, v, state };
    op_begin(ctx, "slg_linear_attention");
    return op_end(ctx, forward(ctx, t, opts, o, state_out));
}

static void add_sweep(linear_job *job, linear_sweep w)
{
    if (w.o.rows.data || w.final.rows.data) job->sweep[job->sweeps++] = w;
}

static slg_status backward(slg_ctx *ctx, const slg_tensor *const t[INPUTS],
                           const slg_linear_attention_opts *opts,
                           slg_linear_attention_grad *given)
{
    slg_linear_attention_opts own;
    slg_linear_attention_grad grad = grad_defaults;
    operand in[INPUTS], out[4];
    linear_job job = { 0 };
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "grad is NULL");
    SLG_TRY(read_options(ctx, opts, &own));
    SLG_TRY(options_read(ctx, "grad", given, &grad, sizeof grad));
    SLG_TRY(option_reserved(ctx, "grad.reserved", grad.reserved));
    SLG_TRY(open_inputs(ctx, t, true, in, &job));
    out[0] = in[IN_Q], out[0].name = "grad.dq", out[0].t = grad.dq;
    out[1] = in[IN_K], out[1].name = "grad.dk", out[1].t = grad.dk;
    out[2] = in[IN_V], out[2].name = "grad.dv", out[2].t = grad.dv;
    out[3] = in[IN_STATE], out[3].name = "grad.dstate", out[3].t = grad.dstate;
    for (int i = 0; i < 4; i++) out[i].needed = false;
    SLG_TRY(operands_out(ctx, out, 4, in, INPUTS));
    const linear_view q = linear_view_of(t[IN_Q]), k = linear_view_of(t[IN_K]),
                      v = linear_view_of(t[IN_V]), dout = linear_view_of(t[IN_DOUT]);
    const linear_state none = { 0 };
    job.form = own.form, job.chunk = own.chunk;
    add_sweep(&job, (linear_sweep){ k, q, dout, linear_view_of(grad.dv),
                                    state_of(t[IN_DSTATE], false), state_of(grad.dstate, false),
                                    true });
    add_sweep(&job, (linear_sweep){ v, dout, q, linear_view_of(grad.dk),
                                    state_of(t[IN_DSTATE], true), none, true });
    add_sweep(&job, (linear_sweep){ dout, v, k, linear_view_of(grad.dq),
                                    state_of(t[IN_STATE], true), none, false });
    return job.sweeps > 0 ? linear_run(&job) : SLG_OK;
}

slg_status slg_linear_attention_backward(slg_ctx *ctx, const slg_tensor *q, const slg_tensor *k,
                                         const slg_tensor *v, const slg_tensor *state,
                                         const slg_tensor *dout, const slg_tensor *dstate_out,
                                         const slg_linear_attention_opts *opts,
                                         slg_linear_attention_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    const slg_tensor *const t[INPUTS] = { q, k, v, state, dout, dstate_out };
    op_begin(ctx, "slg_linear_attention_backward");
    return op_end(ctx, backward(ctx, t, opts, grad));
}

/* ---- A step of decoding ------------------------------------------------------------------ */

typedef struct step_run {
    slg_ctx *ctx;
    bool exclusive;
    rows q, k, v, state, o; /* data NULL: none */
    int64_t heads, d, e, tasks;
    double *scratch; /* d + 2 e + d doubles a worker */
    int64_t worker_doubles;
} step_run;

/* o += q_i s_i, s_i += k_i v, in the order that the form wants; s_i: a row of the state. */
static void step_row(const step_run *s, double q, double k, const double *v, double *row,
                     double *o)
{
    if (s->exclusive)
        for (int64_t j = 0; j < s->e; j++) o[j] += q * row[j];
    for (int64_t j = 0; j < s->e; j++) row[j] += k * v[j];
    if (!s->exclusive)
        for (int64_t j = 0; j < s->e; j++) o[j] += q * row[j];
}

/* A state of float32 with contiguous rows: by the kernels, in float32. */
static void step_plain(const step_run *s, int64_t head, float *q, float *k, float *v, float *o)
{
    const kernel_table *t = &s->ctx->k;
    const size_t d = (size_t)s->d, e = (size_t)s->e;
    const float *kf = rows_fetch(t, &s->k, head, 0, s->d, k);
    const float *vf = rows_fetch(t, &s->v, head, 0, s->e, v);
    const float *qf = s->q.data ? rows_fetch(t, &s->q, head, 0, s->d, q) : NULL;
    float *to = s->o.data ? rows_stage(&s->o, head, 0, o) : NULL;
    float *state = (float *)rows_at(&s->state, head * s->d);
    const ptrdiff_t ld =
        s->d > 1 ? (float *)rows_at(&s->state, head * s->d + 1) - state : (ptrdiff_t)e;
    const tile_product update = { d, e, 1, kf, 1, 1, vf, (ptrdiff_t)e, state, ld, true, false };
    const tile_product read = {
        1, e, d, qf, s->d, 1, state, ld, to, (ptrdiff_t)e, false, false
    };
    if (to && s->exclusive) t->tile_gemm(&read);
    t->tile_gemm(&update);
    if (to && !s->exclusive) t->tile_gemm(&read);
    if (to) rows_commit(t, &s->o, head, 0, s->e, to);
}

static void step_any(const step_run *s, int64_t head, double *q, double *v, double *o,
                     double *row)
{
    row_doubles(&s->v, head, v);
    if (s->q.data) row_doubles(&s->q, head, q);
    for (int64_t j = 0; j < s->e; j++) o[j] = 0;
    for (int64_t i = 0; i < s->d; i++) {
        row_doubles(&s->state, head * s->d + i, row);
        step_row(s, s->q.data ? q[i] : 0, rows_get(&s->k, head, i), v, row, o);
        row_store(&s->state, head * s->d + i, row);
    }
    if (s->o.data) row_store(&s->o, head, o);
}

static void step_heads(void *arg, int64_t number, int32_t worker)
{
    const step_run *s = arg;
    double *at = s->scratch + worker * s->worker_doubles;
    const int64_t to = pool_range_start(s->heads, s->tasks, number + 1);
    for (int64_t h = pool_range_start(s->heads, s->tasks, number); h < to; h++) {
        double *q = at, *k = q + s->d, *v = k + s->d, *o = v + s->e, *row = o + s->e;
        if (s->state.plain)
            step_plain(s, h, (float *)q, (float *)k, (float *)v, (float *)o);
        else
            step_any(s, h, q, v, o, row);
    }
}

static slg_status open_step(slg_ctx *ctx, const slg_tensor *q, const slg_tensor *k,
                            const slg_tensor *v, slg_tensor *state, slg_tensor *o, step_run *s)
{
    SLG_TRY(tensor_in(ctx, "k", k, DT_ROW, 2, 3));
    SLG_TRY(tensor_in(ctx, "v", v, DT_ROW, k->ndim, k->ndim));
    op_detail(ctx, k);
    const int32_t last = k->ndim - 1;
    s->d = k->shape[last], s->e = v->shape[last], s->heads = 1;
    operand in[] = { { "q", q, DT_ROW, o != NULL, k->ndim, { 0 }, &s->q, NULL },
                     { "k", k, DT_ROW, true, k->ndim, { 0 }, &s->k, NULL },
                     { "v", v, DT_ROW, true, k->ndim, { 0 }, &s->v, NULL } };
    operand out[] = {
        { "state", state, DT_F32 | DT_F64, true, k->ndim + 1, { 0 }, &s->state, NULL },
        { "o", o, DT_ROW, false, k->ndim, { 0 }, &s->o, NULL }
    };
    for (int32_t i = 0; i < last; i++) {
        s->heads *= k->shape[i];
        for (int j = 0; j < 3; j++) in[j].shape[i] = k->shape[i];
        out[0].shape[i] = out[1].shape[i] = k->shape[i];
    }
    in[0].shape[last] = in[1].shape[last] = out[0].shape[last] = s->d;
    in[2].shape[last] = out[1].shape[last] = out[0].shape[last + 1] = s->e;
    SLG_TRY(operands_in(ctx, in, 3));
    return operands_out(ctx, out, 2, in, 3);
}

static slg_status step(slg_ctx *ctx, const slg_tensor *q, const slg_tensor *k,
                       const slg_tensor *v, const slg_linear_attention_opts *opts,
                       slg_tensor *state, slg_tensor *o)
{
    slg_linear_attention_opts own;
    step_run s = { .ctx = ctx };
    SLG_TRY(read_options(ctx, opts, &own));
    SLG_TRY(open_step(ctx, q, k, v, state, o, &s));
    s.exclusive = own.form == SLG_LINEAR_EXCLUSIVE;
    s.worker_doubles = (2 * s.d + 3 * s.e + 7) / 8 * 8 + 8;
    s.scratch = arena_alloc(ctx, (size_t)ctx->num_threads,
                            (size_t)s.worker_doubles * sizeof *s.scratch);
    if (!s.scratch) return SLG_ERR_MEMORY;
    const int64_t size = s.d * s.e > 0 ? s.d * s.e : 1;
    s.tasks = pool_ranges(ctx, s.heads, (32768 + size - 1) / size); /* heads of a thread */
    pool_run(ctx, s.tasks, step_heads, &s);
    return SLG_OK;
}

slg_status slg_linear_attention_step(slg_ctx *ctx, const slg_tensor *q, const slg_tensor *k,
                                     const slg_tensor *v, const slg_linear_attention_opts *opts,
                                     slg_tensor *state, slg_tensor *o)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_linear_attention_step");
    return op_end(ctx, step(ctx, q, k, v, opts, state, o));
}
