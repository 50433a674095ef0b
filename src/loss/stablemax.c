/*
 * stablemax.c - see stablemax.h. A row is reduced to its sum of s(z), with an index the target
 * left out; all that follows is closed form. Rows with z = +inf are looked at again.
 */
#include <math.h>

#include "core/options.h"
#include "engine.h"
#include "softlogit/stablemax.h"
#include "softmax/pipeline.h"

static double total_of(const stable_part *p)
{
    return p->up * (double)STABLE_SCALE + p->down / (double)STABLE_SCALE;
}

static double s_of(double z) { return z >= 0 ? 1 + z : 1 / (1 - z); }

static double slope_of(double z) { return 1 / (1 + fabs(z)); }

/* Parameters of pass 2 for a s(z), where the sum of s is total. */
static stable_out out_of(double a, double total, float inv_t)
{
    float num = total < 1 ? STABLE_SCALE : 1.0f;
    return (stable_out){ .inv_t = inv_t,
                         .up = (float)a,
                         .up_scaled = (float)(a * (double)STABLE_SCALE),
                         .num = num,
                         .down = (float)(a / (double)num) };
}

static int64_t count_inf(int64_t n, const float *x, float inv_t)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += x[i] * inv_t == INFINITY;
    return count;
}

/* ---- Probabilities ---------------------------------------------------------------------- */

static const slg_stablemax_opts row_defaults = { .size = sizeof(slg_stablemax_opts),
                                                 .temperature = 1 };

void slg_stablemax_opts_init(slg_stablemax_opts *opts, size_t size)
{
    options_init(opts, size, &row_defaults, sizeof row_defaults);
}

typedef struct job {
    const kernel_table *k;
    rows x, y;
    float inv_t;
    bool log;
    int store;
} job;

typedef struct state {
    stable_part part;
    stable_out out;
    float inf_value, value; /* of rows with z = +inf (inf_count > 0), or NaN: no kernel */
    bool filled;
} state;

static void start(void *self, int64_t row, void *s)
{
    (void)self, (void)row;
    *(state *)s = (state){ .part = STABLE_EMPTY };
}

static void reduce(void *self, int64_t row, void *s, int64_t col, int64_t n)
{
    const job *j = self;
    float xs[KERNEL_BLOCK];
    j->k->stable_sum((size_t)n, rows_fetch(j->k, &j->x, row, col, n, xs), j->inv_t,
                     &((state *)s)->part);
}

static int64_t row_infinities(const job *j, int64_t row)
{
    float xs[KERNEL_BLOCK];
    int64_t count = 0;
    for (int64_t col = 0; col < j->x.cols; col += KERNEL_BLOCK) {
        int64_t n = j->x.cols - col < KERNEL_BLOCK ? j->x.cols - col : KERNEL_BLOCK;
        count += count_inf(n, rows_fetch(j->k, &j->x, row, col, n, xs), j->inv_t);
    }
    return count;
}

static void finish(void *self, int64_t row, void *state_of_row)
{
    const job *j = self;
    state *s = state_of_row;
    double total = total_of(&s->part);
    if (isnan(total) || total == 0) { /* a NaN, or every class masked */
        s->filled = true;
        s->inf_value = s->value = NAN;
    } else if (isinf(total)) {
        double count = (double)row_infinities(j, row);
        s->filled = true;
        s->inf_value = (float)(j->log ? -log(count) : 1 / count);
        s->value = j->log ? -INFINITY : 0.0f;
    } else {
        double lse = log(total);
        s->out = out_of(1 / total, total, j->inv_t);
        s->out.log_hi = (float)lse;
        s->out.log_lo = (float)(lse - (double)s->out.log_hi);
    }
}

static void emit(void *self, int64_t row, void *state_of_row, int64_t col, int64_t n)
{
    const job *j = self;
    const state *s = state_of_row;
    float xs[EMIT_BLOCK], ys[EMIT_BLOCK];
    int64_t from = col, to = col + n;
    if (j->store == STORE_STREAM && j->y.plain)
        line_cut((const float *)(const void *)rows_at(&j->y, row), j->x.cols, col, n, &from,
                 &to);
    if (from >= to) return;
    n = to - from;
    const float *x = rows_fetch(j->k, &j->x, row, from, n, xs);
    float *y = rows_stage(&j->y, row, from, ys);
    int store = y == ys ? STORE_CACHED : j->store;
    if (s->filled)
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * j->inv_t == INFINITY ? s->inf_value : s->value;
    else if (j->log)
        j->k->stable_log((size_t)n, x, &s->out, y, store);
    else
        j->k->stable_prob((size_t)n, x, &s->out, y, store);
    rows_commit(j->k, &j->y, row, from, n, ys);
}

static const row_job both_passes = { sizeof(state), start, reduce, finish, emit, NULL };

static slg_status rows_call(slg_ctx *ctx, const slg_tensor *x, const slg_stablemax_opts *opts,
                            slg_tensor *y, bool log)
{
    slg_stablemax_opts o = row_defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o.reserved));
    SLG_TRY(option_range(ctx, "temperature", o.temperature, 1e-30, 1e30));
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 1, 4));
    SLG_TRY(tensor_out(ctx, "y", y, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "y", y, "x", x));
    if (tensor_clash(y, x))
        return slg_fail(ctx, SLG_ERR_STRIDE, "y overlaps x, and is not the same view");
    op_detail(ctx, x);
    if (tensor_size(x) == 0) return SLG_OK;
    job j = { &ctx->k, rows_of(x), rows_of(y), (float)(1 / o.temperature), log, STORE_CACHED };
    if (x->data != y->data && stream_pays(ctx, j.x.count, j.x.cols)) j.store = STORE_STREAM;
    row_pipeline_run(ctx, &both_passes, &j, 0, j.x.count, j.x.cols);
    return SLG_OK;
}

slg_status slg_stablemax(slg_ctx *ctx, const slg_tensor *x, const slg_stablemax_opts *opts,
                         slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_stablemax");
    return op_end(ctx, rows_call(ctx, x, opts, y, false));
}

slg_status slg_log_stablemax(slg_ctx *ctx, const slg_tensor *x, const slg_stablemax_opts *opts,
                             slg_tensor *y)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_log_stablemax");
    return op_end(ctx, rows_call(ctx, x, opts, y, true));
}

/* ---- Cross-entropy ---------------------------------------------------------------------- */

static const slg_stablemax_loss_opts defaults = {
    .size = sizeof(slg_stablemax_loss_opts),
    .reduction = SLG_MEAN,
};

void slg_stablemax_loss_opts_init(slg_stablemax_loss_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* r->sums: the two parts of sum s(z) without the target; of q log s, and q; of q over z = +inf,
   and their number. r->more: of the gradient (p a + b q) / (1 + |z|), p by `a / total`. */
enum { UP, DOWN, Q_LOG, Q, Q_INF, INFS };
enum { TOTAL, B };

static float inv_of(const loss_row *r) { return (float)(1 / r->temperature); }

static void loss_reduce(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                        const float *teacher)
{
    (void)teacher;
    const kernel_table *k = &c->ctx->k;
    const float inv_t = inv_of(r);
    int64_t t = r->target - col, head = t >= 0 && t < n ? t : n;
    stable_part p = { r->sums[UP], r->sums[DOWN], r->rest.part.max };
    k->stable_sum((size_t)head, x, inv_t, &p);
    if (head < n) k->stable_sum((size_t)(n - head - 1), x + head + 1, inv_t, &p);
    r->sums[UP] = p.up, r->sums[DOWN] = p.down, r->rest.part.max = p.max;
    if (!c->target.has_prob) return;
    float qs[KERNEL_BLOCK];
    double sums[2];
    k->stable_dot((size_t)n, x, inv_t, rows_fetch(k, &c->target.prob, r->row, col, n, qs),
                  sums);
    r->sums[Q_LOG] += sums[0], r->sums[Q] += sums[1];
}

/* weight * value, 0 where the weight is, also of an infinite value. */
static double term(double weight, double value) { return weight == 0 ? 0 : weight * value; }

/* The number of z = +inf, and the target's mass there. */
static void see_infinities(const loss_call *c, loss_row *r, float inv_t)
{
    const kernel_table *k = &c->ctx->k;
    float xs[KERNEL_BLOCK], qs[KERNEL_BLOCK];
    for (int64_t col = 0; col < c->src.cols; col += KERNEL_BLOCK) {
        int64_t n = c->src.cols - col < KERNEL_BLOCK ? c->src.cols - col : KERNEL_BLOCK;
        const float *x = source_fetch(&c->src, r->row, col, n, xs);
        r->sums[INFS] += (double)count_inf(n, x, inv_t);
        if (!c->target.has_prob) continue;
        const float *q = rows_fetch(k, &c->target.prob, r->row, col, n, qs);
        for (int64_t i = 0; i < n; i++)
            if (x[i] * inv_t == INFINITY)
                r->sums[Q_INF] += (double)q[i];
            else if (q[i] > 0)
                r->loss = INFINITY;
    }
}

/* The classes at z = +inf share the row; no other has a probability. */
static void solve_inf(const loss_call *c, loss_row *r, double z, float inv_t)
{
    r->loss = 0;
    see_infinities(c, r, inv_t);
    double shared = log(r->sums[INFS]);
    if (c->target.has_prob)
        r->loss += term(r->sums[Q_INF], shared);
    else
        r->loss = z == INFINITY ? shared : INFINITY;
    r->loss = term(r->weight, r->loss);
    r->a = 0;
    r->more[TOTAL] = 1;
    r->more[B] = -r->weight;
    r->at_target = z == INFINITY ? 0 : -r->weight * slope_of(z);
}

static void loss_solve(const loss_call *c, loss_row *r)
{
    const float inv_t = inv_of(r);
    const stable_part part = { r->sums[UP], r->sums[DOWN], r->rest.part.max };
    const bool has_target = !c->target.has_prob;
    double rest = total_of(&part), z = has_target ? (double)(r->x_target * inv_t) : -INFINITY;
    double total = rest + s_of(z);
    if (isnan(total) || total == 0) {
        r->loss = r->a = r->at_target = r->more[TOTAL] = NAN;
        return;
    }
    if (isinf(total)) {
        solve_inf(c, r, z, inv_t);
        return;
    }
    r->more[TOTAL] = total;
    if (has_target) {
        r->a = r->weight;
        r->at_target = -r->weight * (rest / total) * slope_of(z);
        r->loss = term(r->weight, z == -INFINITY ? INFINITY : log1p(rest / s_of(z)));
    } else {
        r->a = r->weight * r->sums[Q];
        r->more[B] = -r->weight;
        r->loss = term(r->weight, r->sums[Q] * log(total) - r->sums[Q_LOG]);
    }
}

static void loss_emit(const loss_call *c, const loss_row *r, int64_t col, int64_t n,
                      const float *x, const float *teacher, float *d, int store)
{
    (void)teacher;
    const kernel_table *k = &c->ctx->k;
    const double factor = loss_factor(r);
    const float *q = NULL;
    float qs[EMIT_BLOCK];
    int64_t t = r->target - col;
    const bool here = t >= 0 && t < n; /* before d is written: it may be x */
    const stable_out e = out_of(r->a * factor / r->more[TOTAL], r->more[TOTAL], inv_of(r));
    if (c->target.has_prob) q = rows_fetch(k, &c->target.prob, r->row, col, n, qs);
    k->stable_grad((size_t)n, x, &e, (float)(r->more[B] * factor), q, d, store);
    if (here) d[t] = (float)(r->at_target * factor);
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_PROB | TARGET_ROW_WEIGHT,
    .flags = LOSS_NO_LSE | LOSS_HAS_MAX | LOSS_KEEP_TARGET,
    .reduce = loss_reduce,
    .solve = loss_solve,
    .emit = loss_emit,
};

static slg_status loss(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                       const slg_stablemax_loss_opts *opts, slg_loss_out *out,
                       slg_logits_grad *grad)
{
    slg_stablemax_loss_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    return loss_run(ctx, &method, &o, o.reduction, logits, targets, out, grad);
}

slg_status slg_stablemax_loss(slg_ctx *ctx, const slg_logits *logits,
                              const slg_targets *targets, const slg_stablemax_loss_opts *opts,
                              slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_stablemax_loss");
    return op_end(ctx, loss(ctx, logits, targets, opts, out, grad));
}
