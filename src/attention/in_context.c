/*
 * in_context.c - the in-context predictor of a layer of linear self-attention and its
 * gradients. G = V'V is never formed: u = V'(V a) is all that a prediction needs of the
 * examples, and V'(V k) all that the gradient does, for any number of queries. Examples go
 * through products of BLOCK at a time, with tokens in the lanes; the vectors of all prompts
 * meet M in one product, and dM is one product of them.
 */
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "operands.h"
#include "softlogit/linear_attention.h"

enum { BLOCK = 64, BLOCK_STEP = BLOCK + 16 };

static const slg_in_context_inputs in_defaults = { .size = sizeof(slg_in_context_inputs) };
static const slg_in_context_opts opts_defaults = { .size = sizeof(slg_in_context_opts) };
static const slg_in_context_grad grad_defaults = { .size = sizeof(slg_in_context_grad) };

void slg_in_context_inputs_init(slg_in_context_inputs *in, size_t size)
{
    options_init(in, size, &in_defaults, sizeof in_defaults);
}

void slg_in_context_opts_init(slg_in_context_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

void slg_in_context_grad_init(slg_in_context_grad *grad, size_t size)
{
    options_init(grad, size, &grad_defaults, sizeof grad_defaults);
}

enum { IN_TOKENS, IN_X, IN_Y, IN_QUERY, IN_A, IN_M, IN_DOUT, INPUTS };
enum { OUT_Y_HAT, OUT_DA, OUT_DM, OUT_DTOKENS, OUT_DX, OUT_DY, OUT_DQUERY, OUTPUTS };

typedef struct in_context {
    slg_ctx *ctx;
    slg_in_context_inputs in;
    slg_in_context_opts opts;
    int64_t prompts, n, queries, dim; /* dim: d + 1 */
    bool many;                        /* query has three axes */
    double c;
    rows from[INPUTS], to[OUTPUTS];
    double *a, *m;         /* as given, in double */
    double *u, *g, *w, *k; /* [prompts, dim]: V'V a, sum dout_j q_j; M'u, M g */
    double *da;            /* [prompts, dim] */
    int64_t worker_floats;
    float *scratch;
} in_context;

/* A worker's scratch. */
typedef struct space {
    float *v, *vt;  /* [BLOCK, dim], [dim, BLOCK_STEP]: examples, and turned */
    float *ak, *ka; /* [2, dim]: a, k; c k, c a */
    float *sr;      /* [2, BLOCK_STEP] */
    float *sum;     /* [dim] */
    float *query;   /* [dim] */
} space;

static space space_of(const in_context *s, int32_t worker)
{
    float *at = s->scratch + worker * s->worker_floats;
    const int64_t d = s->dim;
    space t = { .v = at };
    t.vt = at += BLOCK * d;
    t.ak = at += BLOCK_STEP * d;
    t.ka = at += 2 * d;
    t.sr = at += 2 * d;
    t.sum = at += 2 * BLOCK_STEP;
    t.query = at + d;
    return t;
}

static void gemm(const in_context *s, int64_t m, int64_t n, int64_t k, const float *a,
                 ptrdiff_t row, ptrdiff_t col, const float *b, ptrdiff_t ldb, float *c,
                 ptrdiff_t ldc)
{
    const tile_product t = { (size_t)m, (size_t)n, (size_t)k, a,   row,   col,
                             b,         ldb,       c,         ldc, false, false };
    s->ctx->k.tile_gemm(&t);
}

/* ---- Prompts ----------------------------------------------------------------------------- */

/* Examples [first, first + m) of a prompt, contiguous. */
static const float *examples(const in_context *s, int64_t prompt, int64_t first, int64_t m,
                             float *scratch)
{
    const kernel_table *k = &s->ctx->k;
    const bool tokens = s->from[IN_TOKENS].data;
    const rows *x = &s->from[tokens ? IN_TOKENS : IN_X];
    const int64_t row = prompt * (s->n + tokens) + first;
    for (int64_t i = 0; i < m; i++) {
        float *to = scratch + i * s->dim;
        const float *at = rows_fetch(k, x, row + i, 0, x->cols, to);
        if (at != to) memcpy(to, at, (size_t)x->cols * sizeof *to);
        if (!tokens) to[x->cols] = (float)rows_get(&s->from[IN_Y], prompt, first + i);
    }
    return scratch;
}

static const float *query_of(const in_context *s, int64_t prompt, int64_t query, float *scratch)
{
    const bool tokens = s->from[IN_TOKENS].data;
    const rows *q = &s->from[tokens ? IN_TOKENS : IN_QUERY];
    const int64_t row = tokens ? prompt * (s->n + 1) + s->n : prompt * s->queries + query;
    const float *at = rows_fetch(&s->ctx->k, q, row, 0, q->cols, scratch);
    if (at != scratch) memcpy(scratch, at, (size_t)q->cols * sizeof *scratch);
    if (!tokens) scratch[q->cols] = 0;
    return scratch;
}

/* y_hat and dout: [B] is a row, [B, m] a row a prompt. */
static double dout_of(const in_context *s, int64_t prompt, int64_t query)
{
    const rows *m = &s->from[IN_DOUT];
    return s->many ? rows_get(m, prompt, query) : rows_get(m, 0, prompt);
}

static void vectors_to_floats(int64_t n, const double *x, double factor, float *to)
{
    for (int64_t i = 0; i < n; i++) to[i] = (float)(factor * x[i]);
}

/* u = sum of s_i v_i, s_i = v_i' a; and g. */
static void gather(void *arg, int64_t prompt, int32_t worker)
{
    const in_context *s = arg;
    const space t = space_of(s, worker);
    const int64_t d = s->dim;
    double *u = s->u + prompt * d, *g = s->g + prompt * d;
    vectors_to_floats(d, s->a, 1, t.ak);
    memset(u, 0, (size_t)d * sizeof *u);
    for (int64_t i = 0; i < s->n; i += BLOCK) {
        const int64_t m = s->n - i < BLOCK ? s->n - i : BLOCK;
        const float *v = examples(s, prompt, i, m, t.v);
        s->ctx->k.transpose((size_t)m, (size_t)d, v, d, 1.0f, t.vt, BLOCK_STEP);
        gemm(s, 1, m, d, t.ak, d, 1, t.vt, BLOCK_STEP, t.sr, BLOCK_STEP);
        gemm(s, 1, d, m, t.sr, BLOCK_STEP, 1, v, d, t.sum, d);
        for (int64_t j = 0; j < d; j++) u[j] += (double)t.sum[j];
    }
    if (!s->from[IN_DOUT].data) return;
    memset(g, 0, (size_t)d * sizeof *g);
    for (int64_t q = 0; q < s->queries; q++) {
        const float *x = query_of(s, prompt, q, t.query);
        const double dout = dout_of(s, prompt, q);
        for (int64_t j = 0; j < d; j++) g[j] += dout * (double)x[j];
    }
}

static void predict(void *arg, int64_t prompt, int32_t worker)
{
    const in_context *s = arg;
    const space t = space_of(s, worker);
    const rows *y = &s->to[OUT_Y_HAT];
    const double *w = s->w + prompt * s->dim;
    for (int64_t q = 0; q < s->queries; q++) {
        double sum = 0;
        if (s->n > 0) {
            const float *x = query_of(s, prompt, q, t.query);
            for (int64_t j = 0; j < s->dim; j++) sum += w[j] * (double)x[j];
        }
        rows_put(y, s->many ? prompt : 0, s->many ? q : prompt, s->c * sum);
    }
}

/* ---- Gradients --------------------------------------------------------------------------- */

static void write_floats(const in_context *s, const rows *to, int64_t row, const float *x)
{
    float *at = rows_stage(to, row, 0, (float *)(uintptr_t)x);
    if (at != x) memcpy(at, x, (size_t)to->cols * sizeof *at);
    rows_commit(&s->ctx->k, to, row, 0, to->cols, x);
}

/* Rows of dv of examples [first, first + m). */
static void write_examples(const in_context *s, int64_t prompt, int64_t first, int64_t m,
                           const float *dv)
{
    for (int64_t i = 0; i < m; i++) {
        const float *x = dv + i * s->dim;
        if (s->to[OUT_DTOKENS].data)
            write_floats(s, &s->to[OUT_DTOKENS], prompt * (s->n + 1) + first + i, x);
        if (s->to[OUT_DX].data) write_floats(s, &s->to[OUT_DX], prompt * s->n + first + i, x);
        if (s->to[OUT_DY].data)
            rows_put(&s->to[OUT_DY], prompt, first + i, (double)x[s->dim - 1]);
    }
}

/* dq_j = c dout_j M'u. */
static void write_queries(const in_context *s, int64_t prompt, const space *t)
{
    const bool tokens = s->to[OUT_DTOKENS].data;
    const rows *to = &s->to[tokens ? OUT_DTOKENS : OUT_DQUERY];
    for (int64_t q = 0; to->data && q < s->queries; q++) {
        const double f = s->n > 0 ? s->c * dout_of(s, prompt, q) : 0;
        const double *w = s->w + prompt * s->dim;
        for (int64_t j = 0; j < s->dim; j++) t->query[j] = s->n > 0 ? (float)(f * w[j]) : 0;
        write_floats(s, to, tokens ? prompt * (s->n + 1) + s->n : prompt * s->queries + q,
                     t->query);
    }
}

static void scatter(void *arg, int64_t prompt, int32_t worker)
{
    const in_context *s = arg;
    const space t = space_of(s, worker);
    const int64_t d = s->dim;
    const bool each = s->to[OUT_DTOKENS].data || s->to[OUT_DX].data || s->to[OUT_DY].data;
    double *da = s->da + prompt * d;
    vectors_to_floats(d, s->a, 1, t.ak);
    vectors_to_floats(d, s->k + prompt * d, 1, t.ak + d);
    vectors_to_floats(d, s->k + prompt * d, s->c, t.ka);
    vectors_to_floats(d, s->a, s->c, t.ka + d);
    memset(da, 0, (size_t)d * sizeof *da);
    for (int64_t i = 0; i < s->n; i += BLOCK) {
        const int64_t m = s->n - i < BLOCK ? s->n - i : BLOCK;
        const float *v = examples(s, prompt, i, m, t.v);
        s->ctx->k.transpose((size_t)m, (size_t)d, v, d, 1.0f, t.vt, BLOCK_STEP);
        gemm(s, 2, m, d, t.ak, d, 1, t.vt, BLOCK_STEP, t.sr, BLOCK_STEP);
        gemm(s, 1, d, m, t.sr + BLOCK_STEP, BLOCK_STEP, 1, v, d, t.sum, d);
        for (int64_t j = 0; j < d; j++) da[j] += (double)t.sum[j];
        if (!each) continue;
        gemm(s, m, d, 2, t.sr, 1, BLOCK_STEP, t.ka, d, t.v, d);
        write_examples(s, prompt, i, m, t.v);
    }
    write_queries(s, prompt, &t);
}

static slg_status write_weights(in_context *s)
{
    const int64_t d = s->dim;
    double *sum = s->a, *dm = s->m; /* spent */
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t b = 0; b < s->prompts && s->n > 0; b++)
        for (int64_t j = 0; j < d; j++) sum[j] += s->c * s->da[b * d + j];
    memset(dm, 0, (size_t)(d * d) * sizeof *dm);
    if (s->to[OUT_DM].data && s->n > 0)
        SLG_TRY(blas_dgemm(s->ctx, true, false, d, d, s->prompts, s->c, s->u, d, s->g, d, 0, dm,
                           d));
    if (s->to[OUT_DA].data) row_store(&s->to[OUT_DA], 0, sum);
    for (int64_t i = 0; s->to[OUT_DM].data && i < d; i++)
        row_store(&s->to[OUT_DM], i, dm + i * d);
    return SLG_OK;
}

/* ---- A call ------------------------------------------------------------------------------ */

/* Sizes, from tokens or from x and query. */
static slg_status read_sizes(in_context *s)
{
    const slg_in_context_inputs *in = &s->in;
    slg_ctx *ctx = s->ctx;
    s->queries = 1;
    if (in->tokens) {
        if (in->x || in->y || in->query)
            return slg_fail(ctx, SLG_ERR_OPTIONS, "in.tokens and in.%s are both given",
                            in->x   ? "x"
                            : in->y ? "y"
                                    : "query");
        SLG_TRY(tensor_in(ctx, "in.tokens", in->tokens, DT_ROW, 3, 3));
        op_detail(ctx, in->tokens);
        s->prompts = in->tokens->shape[0], s->n = in->tokens->shape[1] - 1;
        s->dim = in->tokens->shape[2];
        if (s->n < 0 || s->dim < 1)
            return slg_fail(ctx, SLG_ERR_SHAPE,
                            "in.tokens has %lld rows of %lld a prompt, must have a query",
                            (long long)s->n + 1, (long long)s->dim);
        return SLG_OK;
    }
    SLG_TRY(tensor_in(ctx, "in.x", in->x, DT_ROW, 3, 3));
    SLG_TRY(tensor_in(ctx, "in.query", in->query, DT_ROW, 2, 3));
    op_detail(ctx, in->x);
    s->prompts = in->x->shape[0], s->n = in->x->shape[1], s->dim = in->x->shape[2] + 1;
    s->many = in->query->ndim == 3;
    if (s->many) s->queries = in->query->shape[1];
    return SLG_OK;
}

static slg_status check_inputs(in_context *s, const slg_tensor *dout, bool backward,
                               operand in[INPUTS])
{
    const slg_in_context_inputs *g = &s->in;
    const int64_t b = s->prompts, n = s->n, m = s->queries, d = s->dim;
    const bool x = !g->tokens;
    const int32_t axes = s->many ? 3 : 2, flat = axes - 1;
    const operand all[INPUTS] = {
        { "in.tokens", g->tokens, DT_ROW, !x, 3, { b, n + 1, d }, &s->from[IN_TOKENS], NULL },
        { "in.x", g->x, DT_ROW, x, 3, { b, n, d - 1 }, &s->from[IN_X], NULL },
        { "in.y", g->y, DT_ROW, x, 2, { b, n }, &s->from[IN_Y], NULL },
        { "in.query",
          g->query,
          DT_ROW,
          x,
          axes,
          { b, s->many ? m : d - 1, d - 1 },
          &s->from[IN_QUERY],
          NULL },
        { "in.a", g->a, DT_F32 | DT_F64, true, 1, { d }, &s->from[IN_A], NULL },
        { "in.m", g->m, DT_F32 | DT_F64, true, 2, { d, d }, &s->from[IN_M], NULL },
        { "dout", dout, DT_F32 | DT_F64, backward, flat, { b, m }, &s->from[IN_DOUT], NULL },
    };
    memcpy(in, all, sizeof all);
    return operands_in(s->ctx, in, INPUTS);
}

static slg_status check_outputs(in_context *s, slg_tensor *y_hat,
                                const slg_in_context_grad *grad, const operand *in)
{
    const slg_in_context_inputs *g = &s->in;
    const int64_t d = s->dim;
    operand out[OUTPUTS] = {
        { "y_hat",
          y_hat,
          DT_F32 | DT_F64,
          !grad,
          s->many ? 2 : 1,
          { s->prompts, s->queries },
          &s->to[OUT_Y_HAT],
          NULL },
        { "grad.da",
          grad ? grad->da : NULL,
          DT_F32 | DT_F64,
          false,
          1,
          { d },
          &s->to[OUT_DA],
          NULL },
        { "grad.dm",
          grad ? grad->dm : NULL,
          DT_F32 | DT_F64,
          false,
          2,
          { d, d },
          &s->to[OUT_DM],
          NULL },
        in[IN_TOKENS],
        in[IN_X],
        in[IN_Y],
        in[IN_QUERY],
    };
    static const char *const names[] = { "grad.dtokens", "grad.dx", "grad.dy", "grad.dquery" };
    const slg_tensor *const t[] = { grad ? grad->dtokens : NULL, grad ? grad->dx : NULL,
                                    grad ? grad->dy : NULL, grad ? grad->dquery : NULL };
    for (int i = 0; i < 4; i++) {
        operand *o = &out[OUT_DTOKENS + i];
        o->name = names[i], o->t = t[i], o->needed = false, o->rows = &s->to[OUT_DTOKENS + i];
        if (t[i] && !in[i].t)
            return slg_fail(s->ctx, SLG_ERR_NULL, "%s is given, but not %s", names[i],
                            in[i].name);
    }
    (void)g;
    return operands_out(s->ctx, out, OUTPUTS, in, INPUTS);
}

static slg_status reserve(in_context *s)
{
    const int64_t d = s->dim;
    double **const all[] = { &s->u, &s->g, &s->w, &s->k, &s->da };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        *all[i] = arena_alloc(s->ctx, (size_t)s->prompts, (size_t)d * sizeof(double));
        if (!*all[i]) return SLG_ERR_MEMORY;
    }
    s->worker_floats = (2 * BLOCK_STEP * d + 6 * d + 2 * BLOCK_STEP + 15) / 16 * 16;
    s->scratch = arena_alloc(s->ctx, (size_t)s->ctx->num_threads,
                             (size_t)s->worker_floats * sizeof *s->scratch);
    s->a = arena_alloc(s->ctx, (size_t)d, sizeof *s->a);
    if (!s->scratch || !s->a) return SLG_ERR_MEMORY;
    row_doubles(&s->from[IN_A], 0, s->a);
    return matrix_doubles(s->ctx, &s->from[IN_M], d, &s->m);
}

static slg_status run(in_context *s, const slg_in_context_inputs *in,
                      const slg_in_context_opts *opts, const slg_tensor *dout,
                      slg_tensor *y_hat, slg_in_context_grad *given)
{
    slg_ctx *ctx = s->ctx;
    slg_in_context_grad grad = grad_defaults;
    operand inputs[INPUTS];
    s->in = in_defaults, s->opts = opts_defaults;
    if (!in) return slg_fail(ctx, SLG_ERR_NULL, "in is NULL");
    SLG_TRY(options_read(ctx, "in", in, &s->in, sizeof s->in));
    SLG_TRY(option_reserved(ctx, "in.reserved", s->in.reserved));
    SLG_TRY(options_read(ctx, "opts", opts, &s->opts, sizeof s->opts));
    SLG_TRY(option_choice(ctx, "normalise", s->opts.normalise, 0, 1));
    if (given) {
        SLG_TRY(options_read(ctx, "grad", given, &grad, sizeof grad));
        SLG_TRY(option_reserved(ctx, "grad.reserved", grad.reserved));
    }
    SLG_TRY(read_sizes(s));
    SLG_TRY(check_inputs(s, dout, given, inputs));
    SLG_TRY(check_outputs(s, y_hat, given ? &grad : NULL, inputs));
    SLG_TRY(reserve(s));
    const int64_t d = s->dim;
    s->c = s->opts.normalise && s->n > 0 ? 1 / (double)s->n : 1;
    pool_run(ctx, s->prompts, gather, s);
    SLG_TRY(blas_dgemm(ctx, false, false, s->prompts, d, d, 1, s->u, d, s->m, d, 0, s->w, d));
    if (!given) {
        pool_run(ctx, s->prompts, predict, s);
        return SLG_OK;
    }
    SLG_TRY(blas_dgemm(ctx, false, true, s->prompts, d, d, 1, s->g, d, s->m, d, 0, s->k, d));
    pool_run(ctx, s->prompts, scatter, s);
    return write_weights(s);
}

slg_status slg_in_context(slg_ctx *ctx, const slg_in_context_inputs *in,
                          const slg_in_context_opts *opts, slg_tensor *y_hat)
{
    if (!ctx) return SLG_ERR_NULL;
    in_context s = { .ctx = ctx };
    op_begin(ctx, "slg_in_context");
    return op_end(ctx, run(&s, in, opts, NULL, y_hat, NULL));
}

slg_status slg_in_context_backward(slg_ctx *ctx, const slg_in_context_inputs *in,
                                   const slg_in_context_opts *opts, const slg_tensor *dout,
                                   slg_in_context_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    in_context s = { .ctx = ctx };
    op_begin(ctx, "slg_in_context_backward");
    if (!grad) return op_end(ctx, slg_fail(ctx, SLG_ERR_NULL, "grad is NULL"));
    return op_end(ctx, run(&s, in, opts, dout, NULL, grad));
}
