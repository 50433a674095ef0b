/*
 * attention_step.c - a head of softmax attention beside a step of descent: see
 * softlogit/regression.h. Tasks are small and many: each is done by one thread, and what is
 * summed over tasks is summed within groups of them, then over groups in order.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "oracle.h"
#include "softlogit/regression.h"
#include "softmax/parts.h"

enum { GROUPS = 64 };

static const slg_attention_step_opts opts_defaults = {
    .size = sizeof(slg_attention_step_opts),
    .step = 1,
};
static const slg_attention_step_out out_defaults = { .size = sizeof(slg_attention_step_out) };

void slg_attention_step_opts_init(slg_attention_step_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

void slg_attention_step_out_init(slg_attention_step_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

enum { IN_A, IN_B, IN_QUERIES, IN_Q, IN_P, IN_DSCORES, INPUTS };

typedef struct attention_step {
    slg_ctx *ctx;
    const slg_tensor *in[INPUTS];
    slg_attention_step_opts opts;
    slg_attention_step_out out;
    int64_t tasks, n, m, d, groups;
    rows from[INPUTS];                          /* data NULL: not given */
    rows scores, step_x, step_scores, dqueries; /* data NULL: not wanted */
    double *q, p;                               /* [d, d] */
    double *worker;                             /* worker_doubles a worker */
    int64_t worker_doubles;
    double *sums; /* [groups, d * d + 1]: dq and dp */
} attention_step;

/* A worker's scratch. */
typedef struct task_scratch {
    double *a, *keys;          /* [n, d]: keys: Q a_j */
    double *b, *z, *w;         /* [n]: products, attention */
    double *query, *x1, *pull; /* [d]; pull: sum w_j (b_j - o) a_j, and of keys */
    double *slope;             /* [d] */
} task_scratch;

static task_scratch scratch_of(const attention_step *s, int32_t worker)
{
    double *at = s->worker + worker * s->worker_doubles;
    const int64_t n = s->n, d = s->d;
    return (task_scratch){ at,
                           at + n * d,
                           at + 2 * n * d,
                           at + 2 * n * d + n,
                           at + 2 * n * d + 2 * n,
                           at + 2 * n * d + 3 * n,
                           at + 2 * n * d + 3 * n + d,
                           at + 2 * n * d + 3 * n + 2 * d,
                           at + 2 * n * d + 3 * n + 3 * d };
}

static double dot(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static void read_row(const rows *m, int64_t r, double *to)
{
    for (int64_t j = 0; j < m->cols; j++) to[j] = rows_get(m, r, j);
}

/* a, b, keys and x1 = (eta / n) (A'b - sum(b) mean a). */
static void read_context(const attention_step *s, int64_t task, task_scratch *t)
{
    const int64_t n = s->n, d = s->d;
    double all = 0;
    read_row(&s->from[IN_B], task, t->b);
    for (int64_t j = 0; j < n; j++) {
        double *a = t->a + j * d;
        read_row(&s->from[IN_A], task * n + j, a);
        for (int64_t i = 0; i < d; i++) t->keys[j * d + i] = dot(d, s->q + i * d, a);
        all += t->b[j];
    }
    memset(t->x1, 0, (size_t)d * sizeof *t->x1);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < d; i++)
            t->x1[i] += (t->b[j] - all / (double)n) * t->a[j * d + i];
    for (int64_t i = 0; i < d; i++) t->x1[i] *= s->opts.step / (double)n;
    for (int64_t i = 0; s->step_x.data && i < d; i++) rows_put(&s->step_x, task, i, t->x1[i]);
}

/* The weighted target of the query in t. */
static double attend(const attention_step *s, task_scratch *t)
{
    bool masked = true;
    for (int64_t j = 0; j < s->n; j++) {
        t->z[j] = dot(s->d, t->query, t->keys + j * s->d);
        masked = masked && t->z[j] == -INFINITY;
    }
    if (masked)
        memset(t->w, 0, (size_t)s->n * sizeof *t->w);
    else
        softmax_f64(&s->ctx->k, s->n, t->z, t->w);
    return dot(s->n, t->w, t->b);
}

/* Of scores = p n o: adds to dq and dp, and writes dqueries. */
static void query_backward(const attention_step *s, const task_scratch *t, int64_t row,
                           double g, double o, double *sums)
{
    const int64_t n = s->n, d = s->d;
    const double factor = g * s->p * (double)n;
    memset(t->pull, 0, (size_t)d * sizeof *t->pull);
    memset(t->slope, 0, (size_t)d * sizeof *t->slope);
    for (int64_t j = 0; j < n; j++) {
        const double c = factor * t->w[j] * (t->b[j] - o);
        for (int64_t i = 0; i < d; i++) {
            t->pull[i] += c * t->a[j * d + i];
            t->slope[i] += c * t->keys[j * d + i];
        }
    }
    for (int64_t i = 0; i < d; i++)
        for (int64_t k = 0; k < d; k++) sums[i * d + k] += t->query[i] * t->pull[k];
    sums[d * d] += g * (double)n * o;
    for (int64_t i = 0; s->dqueries.data && i < d; i++)
        rows_put(&s->dqueries, row, i, t->slope[i]);
}

static void one_task(const attention_step *s, int64_t task, task_scratch *t, double *sums)
{
    read_context(s, task, t);
    for (int64_t i = 0; i < s->m; i++) {
        const int64_t row = task * s->m + i;
        read_row(&s->from[IN_QUERIES], row, t->query);
        if (s->step_scores.data) rows_put(&s->step_scores, task, i, dot(s->d, t->query, t->x1));
        if (!s->scores.data && !s->from[IN_DSCORES].data) continue;
        const double o = attend(s, t);
        if (s->scores.data) rows_put(&s->scores, task, i, s->p * (double)s->n * o);
        if (s->from[IN_DSCORES].data)
            query_backward(s, t, row, rows_get(&s->from[IN_DSCORES], task, i), o, sums);
    }
}

static void one_group(void *arg, int64_t group, int32_t worker)
{
    const attention_step *s = arg;
    task_scratch t = scratch_of(s, worker);
    double *sums = s->sums + group * (s->d * s->d + 1);
    memset(sums, 0, (size_t)(s->d * s->d + 1) * sizeof *sums);
    const int64_t to = pool_range_start(s->tasks, s->groups, group + 1);
    for (int64_t i = pool_range_start(s->tasks, s->groups, group); i < to; i++)
        one_task(s, i, &t, sums);
}

static void write_sums(const attention_step *s)
{
    const int64_t size = s->d * s->d + 1;
    double *all = s->q; /* spent */
    double dp = 0;
    for (int64_t i = 0; i + 1 < size; i++) {
        all[i] = 0;
        for (int64_t g = 0; g < s->groups; g++) all[i] += s->sums[g * size + i];
    }
    for (int64_t g = 0; g < s->groups; g++) dp += s->sums[g * size + size - 1];
    vector_write(s->out.dp, &dp);
    if (!s->out.dq) return;
    const rows m = rows_of(s->out.dq);
    for (int64_t i = 0; i < s->d; i++)
        for (int64_t j = 0; j < s->d; j++) rows_put(&m, i, j, all[i * s->d + j]);
}

/* ---- Checks ----------------------------------------------------------------------------- */

/* A name, and a shape: extents until -1. */
typedef struct operand {
    const char *name;
    const slg_tensor *t;
    int64_t shape[4];
} operand;

static int32_t axes_of(const operand *o)
{
    int32_t n = 0;
    while (n < 4 && o->shape[n] >= 0) n++;
    return n;
}

static slg_status check_inputs(attention_step *s)
{
    slg_ctx *ctx = s->ctx;
    SLG_TRY(tensor_in(ctx, "a", s->in[IN_A], DT_F32 | DT_F64, 3, 3));
    SLG_TRY(tensor_in(ctx, "queries", s->in[IN_QUERIES], DT_F32 | DT_F64, 3, 3));
    op_detail(ctx, s->in[IN_A]);
    s->tasks = s->in[IN_A]->shape[0], s->n = s->in[IN_A]->shape[1],
    s->d = s->in[IN_A]->shape[2];
    s->m = s->in[IN_QUERIES]->shape[1];
    if (s->n < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "a has no rows in a task");
    const operand all[INPUTS] = {
        { "a", s->in[IN_A], { s->tasks, s->n, s->d, -1 } },
        { "b", s->in[IN_B], { s->tasks, s->n, -1 } },
        { "queries", s->in[IN_QUERIES], { s->tasks, s->m, s->d, -1 } },
        { "q", s->in[IN_Q], { s->d, s->d, -1 } },
        { "p", s->in[IN_P], { 1, -1 } },
        { "dscores", s->in[IN_DSCORES], { s->tasks, s->m, -1 } },
    };
    for (int i = 0; i < INPUTS; i++) {
        if (!all[i].t && (i == IN_Q || i == IN_DSCORES)) continue;
        const int32_t axes = axes_of(&all[i]);
        SLG_TRY(tensor_in(ctx, all[i].name, all[i].t, DT_F32 | DT_F64, axes, axes));
        SLG_TRY(tensor_shape_is(ctx, all[i].name, all[i].t, axes, all[i].shape));
        s->from[i] = rows_of(all[i].t);
    }
    s->p = rows_get(&s->from[IN_P], 0, 0);
    if (!s->in[IN_Q] && s->p == 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "p is 0 and q is NULL: there is no step / (n p)");
    return SLG_OK;
}

static slg_status check_outputs(attention_step *s)
{
    const slg_attention_step_out *o = &s->out;
    slg_ctx *ctx = s->ctx;
    const operand out[] = {
        { "out.scores", o->scores, { s->tasks, s->m, -1 } },
        { "out.step_x", o->step_x, { s->tasks, s->d, -1 } },
        { "out.step_scores", o->step_scores, { s->tasks, s->m, -1 } },
        { "out.dq", o->dq, { s->d, s->d, -1 } },
        { "out.dp", o->dp, { 1, -1 } },
        { "out.dqueries", o->dqueries, { s->tasks, s->m, s->d, -1 } },
    };
    rows *const to[] = { &s->scores, &s->step_x, &s->step_scores, NULL, NULL, &s->dqueries };
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        if (!out[i].t) continue;
        const int32_t axes = axes_of(&out[i]);
        SLG_TRY(tensor_out(ctx, out[i].name, out[i].t, DT_F32 | DT_F64, axes, axes));
        SLG_TRY(tensor_shape_is(ctx, out[i].name, out[i].t, axes, out[i].shape));
        bool clash = false;
        for (int k = 0; k < INPUTS; k++) clash = clash || outputs_clash(out[i].t, s->in[k]);
        for (size_t k = 0; k < i; k++) clash = clash || outputs_clash(out[i].t, out[k].t);
        if (clash)
            return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", out[i].name);
        if (to[i]) *to[i] = rows_of(out[i].t);
    }
    if ((o->dq || o->dp || o->dqueries) && !s->in[IN_DSCORES])
        return slg_fail(ctx, SLG_ERR_NULL, "dscores is NULL, and a gradient is asked for");
    return SLG_OK;
}

static slg_status reserve(attention_step *s)
{
    const int64_t d = s->d;
    s->groups = s->tasks < GROUPS ? s->tasks : GROUPS;
    s->worker_doubles = (2 * s->n * d + 3 * s->n + 4 * d + 7) / 8 * 8;
    s->q = arena_alloc(s->ctx, (size_t)(d * d), sizeof *s->q);
    s->worker = arena_alloc(s->ctx, (size_t)s->ctx->num_threads,
                            (size_t)s->worker_doubles * sizeof(double));
    s->sums = arena_alloc(s->ctx, (size_t)s->groups, (size_t)(d * d + 1) * sizeof(double));
    if (!s->q || !s->worker || !s->sums) return SLG_ERR_MEMORY;
    const double plain = s->opts.step / ((double)s->n * s->p);
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < d; j++)
            s->q[i * d + j] = s->in[IN_Q] ? rows_get(&s->from[IN_Q], i, j) : i == j ? plain : 0;
    return SLG_OK;
}

static slg_status run(attention_step *s, const slg_attention_step_opts *opts,
                      slg_attention_step_out *out)
{
    slg_ctx *ctx = s->ctx;
    s->opts = opts_defaults, s->out = out_defaults;
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "opts", opts, &s->opts, sizeof s->opts));
    SLG_TRY(options_read(ctx, "out", out, &s->out, sizeof s->out));
    if (s->opts.reserved != 0 || s->out.reserved != 0)
        return slg_fail(ctx, SLG_ERR_OPTIONS, "%s.reserved must be 0",
                        s->out.reserved ? "out" : "opts");
    if (!isfinite(s->opts.step))
        return slg_fail(ctx, SLG_ERR_RANGE, "step is %g, must be finite", s->opts.step);
    SLG_TRY(check_inputs(s));
    SLG_TRY(check_outputs(s));
    SLG_TRY(reserve(s));
    pool_run(ctx, s->groups, one_group, s);
    write_sums(s);
    return SLG_OK;
}

slg_status slg_attention_step(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                              const slg_tensor *queries, const slg_tensor *q,
                              const slg_tensor *p, const slg_tensor *dscores,
                              const slg_attention_step_opts *opts, slg_attention_step_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    attention_step s = { .ctx = ctx, .in = { a, b, queries, q, p, dscores } };
    op_begin(ctx, "slg_attention_step");
    return op_end(ctx, run(&s, opts, out));
}
