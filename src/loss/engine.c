/*
 * engine.c - see engine.h.
 */
#include "engine.h"

#include <math.h>
#include <string.h>

#include "core/options.h"
#include "softmax/pipeline.h"

/* ---- A row's view of its source: the target left out ------------------------------------ */

typedef struct rest_source {
    const logit_source *src;
    int64_t target;
} rest_source;

static const float *rest_fetch(const void *self, int64_t row, int64_t col, int64_t n,
                               float *scratch)
{
    const rest_source *s = self;
    const float *x = source_fetch(s->src, row, col, n, scratch);
    if (s->target < col || s->target >= col + n) return x;
    if (x != scratch)
        for (int64_t i = 0; i < n; i++) scratch[i] = x[i];
    scratch[s->target - col] = -INFINITY;
    return scratch;
}

/* ---- Pass 1 ----------------------------------------------------------------------------- */

/* Does the method get to see this row? */
static bool sees(const loss_call *c, int64_t row)
{
    return !targets_ignored(&c->target, row) || (c->method->flags & LOSS_SEES_IGNORED);
}

static bool skipped(const loss_call *c, const loss_row *r)
{
    bool wanted = c->lse_rows.data || (c->method->flags & LOSS_SEES_IGNORED);
    return r->target < 0 && targets_ignored(&c->target, r->row) && !wanted;
}

/* The teacher's columns [col, col + n), or NULL. */
static const float *teacher_fetch(const loss_call *c, int64_t row, int64_t col, int64_t n,
                                  float *scratch)
{
    return c->has_teacher ? source_fetch(&c->teacher, row, col, n, scratch) : NULL;
}

static void start(void *self, int64_t row, void *state)
{
    const loss_call *c = self;
    loss_row *r = state;
    *r = (loss_row){ .row = row, .target = targets_index(&c->target, row) };
    r->weight = targets_weight(&c->target, row);
    r->scale =
        c->reduction == SLG_MEAN ? (c->denominator > 0 ? 1.0 / c->denominator : 0.0) : 1.0;
    r->scale *= c->gain;
    r->temperature = source_temperature(&c->src, row);
    r->parts[0] = r->parts[1] = r->parts[2] = LSE_EMPTY;
    const exp_arg arg =
        c->src.row_temperature.data ? exp_arg_of(r->temperature, 0.0f) : c->src.arg;
    row_start(&r->rest, &arg);
}

/* The log-sum-exp of a block, the target's entry left out and kept. */
static void reduce_block(const kernel_table *k, loss_row *r, int64_t col, int64_t n,
                         const float *x, bool lse)
{
    int64_t t = r->target - col;
    bool here = t >= 0 && t < n;
    if (here) r->x_target = x[t];
    if (!lse) return;
    row_segment(&r->rest, col);
    k->lse((size_t)(here ? t : n), x, &r->rest.arg, &r->rest.segment);
    if (here) k->lse((size_t)(n - t - 1), x + t + 1, &r->rest.arg, &r->rest.segment);
}

static void reduce(void *self, int64_t row, void *state, int64_t col, int64_t n)
{
    const loss_call *c = self;
    const kernel_table *k = &c->ctx->k;
    loss_row *r = state;
    if (skipped(c, r)) return;
    float xs[KERNEL_BLOCK], ts[KERNEL_BLOCK];
    const float *x = source_fetch(&c->src, row, col, n, xs);
    const loss_method *m = c->method;
    bool two = m->reduce || m->reduce_all || m->at_once;
    const float *t = two ? teacher_fetch(c, row, col, n, ts) : NULL;
    reduce_block(k, r, col, n, x, !m->reduce_all && !(m->flags & LOSS_NO_LSE));
    if (m->reduce_all)
        m->reduce_all(c, r, col, n, x, t);
    else if (m->reduce)
        m->reduce(c, r, col, n, x, t);
    else if (m->at_once)
        m->at_once(c, r, col, n, x, t, NULL, STORE_CACHED);
}

/* The target's share: log-odds first, so that neither side loses its relative precision. */
static void join_target(loss_row *r)
{
    row_stat *rest = &r->rest;
    double t = r->temperature, x = (double)r->x_target;
    if (r->target < 0 || r->x_target == -INFINITY) {
        r->lse = rest->lse;
        r->log_odds = INFINITY;
        r->p_target = 0;
        r->other = 1;
        return;
    }
    if (rest->kind == ROW_MASKED) {
        r->lse = x / t;
        r->log_odds = -INFINITY;
        r->p_target = 1;
        r->other = 0;
        return;
    }
    r->log_odds = rest->lse_rel + ((double)rest->arg.pre - x) / t;
    double u = exp(-fabs(r->log_odds)), small = u / (1 + u), large = 1 / (1 + u);
    r->other = r->log_odds > 0 ? large : small;
    r->p_target = r->log_odds > 0 ? small : large;
    r->lse = r->log_odds > 0 ? rest->lse + log1p(u) : x / t + log1p(u);
}

/* From the sums to lse, odds and kind; r->loss for rows that are not ordinary. True where it
   is. */
static bool settle(const loss_call *c, loss_row *r)
{
    if (c->method->flags & LOSS_NO_LSE) {
        r->rest.kind = ROW_PLAIN;
        return true;
    }
    rest_source rest = { &c->src, r->target };
    row_finish(&c->ctx->k, &r->rest, r->row, c->src.cols, rest_fetch, &rest);
    if (isnan(r->x_target)) r->rest.kind = ROW_NAN;
    if (r->x_target == INFINITY && r->rest.kind != ROW_NAN) r->rest.kind = ROW_INF;
    row_kind kind = r->rest.kind;
    if (kind == ROW_NAN || kind == ROW_INF) {
        r->lse = kind == ROW_NAN ? NAN : INFINITY;
        r->loss = NAN;
        return false;
    }
    if (r->target < 0) r->x_target = -INFINITY;
    join_target(r);
    if (r->lse > -INFINITY) return true;
    r->loss = r->weight > 0 ? (c->method->flags & LOSS_EMPTY_NAN ? NAN : INFINITY) : 0;
    return false;
}

/* The method's own outputs. */
static void put_extra(const loss_call *c, const loss_row *r, bool ordinary, bool ignored)
{
    const loss_method *m = c->method;
    for (int i = 0; i < LOSS_EXTRA; i++) {
        if (!c->extra[i].data) continue;
        double value = isnan(r->lse) || r->lse == INFINITY ? NAN : m->extra_masked[i];
        if (ordinary) value = r->extra[i];
        if (ignored && !(m->flags & LOSS_SEES_IGNORED)) value = 0;
        rows_put(&c->extra[i], r->row, 0, value);
    }
}

/* Is an ordinary row's target its arg-max? To be asked before the gradient is written, which
   may be where the logits are. */
static bool leads(const loss_call *c, const loss_row *r)
{
    unsigned flags = c->method->flags;
    if ((flags & (LOSS_NO_LSE | LOSS_HAS_MAX)) == LOSS_NO_LSE) return false;
    return !targets_ignored(&c->target, r->row) && loss_leads(c, r);
}

/* After the row's value is known. */
static void record(loss_call *c, const loss_row *r, bool ordinary, bool correct)
{
    if (c->lse_rows.data) rows_put(&c->lse_rows, r->row, 0, r->lse);
    bool ignored = targets_ignored(&c->target, r->row);
    put_extra(c, r, ordinary, ignored);
    if (!ordinary && c->method->unusual && sees(c, r->row)) c->method->unusual(c, r);
    if (ignored) return;
    c->loss[r->row] = r->loss;
    c->correct[r->row] = correct && !isnan(r->loss);
}

static void finish(void *self, int64_t row, void *state)
{
    loss_call *c = self;
    loss_row *r = state;
    c->loss[row] = 0;
    c->correct[row] = false;
    if (skipped(c, r)) {
        put_extra(c, r, false, true);
        return;
    }
    bool ordinary = settle(c, r);
    if (ordinary && sees(c, row)) c->method->solve(c, r);
    record(c, r, ordinary, ordinary && leads(c, r));
}

/* ---- Pass 2 ----------------------------------------------------------------------------- */

exp_out loss_softmax(const loss_call *call, const loss_row *r, double weight, float c)
{
    (void)call;
    return row_out(&r->rest, weight * r->other, c);
}

void loss_emit_common(const loss_call *c, const loss_row *r, int64_t n, const float *x,
                      float *d, int store)
{
    double factor = loss_factor(r);
    if (r->rest.kind == ROW_MASKED) {
        fill_f32(d, n, 0.0f); /* the target is the only live class, or there is none */
        return;
    }
    exp_out e = loss_softmax(c, r, r->a * factor, (float)(r->c * factor));
    c->ctx->k.exp_emit((size_t)n, x, &e, d, store);
}

/* The target's entry, once the row's blocks up to and with [col, col + n) are written. */
static void put_target(const loss_call *c, const loss_row *r, float *d_row, int64_t col,
                       int64_t n)
{
    int64_t from, to;
    line_cut(d_row, c->src.cols, col, n, &from, &to);
    if (r->target < from || r->target >= to) return;
    d_row[r->target] = loss_target_masked(c, r) ? 0.0f : (float)(r->at_target * loss_factor(r));
}

/* Rows whose gradient is one number: ignored or all masked (0), or with NaN or +inf (NaN). */
static bool fills(const loss_call *c, const loss_row *r, float *value)
{
    bool lse = !(c->method->flags & LOSS_NO_LSE);
    bool empty = lse && r->lse == -INFINITY && !(c->method->flags & LOSS_EMPTY_NAN);
    bool zero = targets_ignored(&c->target, r->row) || empty;
    *value = zero ? 0.0f : NAN;
    return zero || (lse && !isfinite(r->lse));
}

static void emit(void *self, int64_t row, void *state, int64_t col, int64_t n)
{
    const loss_call *c = self;
    const loss_row *r = state;
    float xs[EMIT_BLOCK], ts[EMIT_BLOCK], ds[EMIT_BLOCK], slope[EMIT_BLOCK];
    int64_t from = col, to = col + n;
    if (c->store == STORE_STREAM && c->grad.dlogits.plain)
        line_cut((const float *)rows_at(&c->grad.dlogits, row), c->src.cols, col, n, &from,
                 &to);
    if (from >= to) return;
    n = to - from;
    float *d = source_grad_stage(&c->src, &c->grad, row, from, ds);
    float fill;
    if (fills(c, r, &fill)) {
        fill_f32(d, n, fill);
        source_grad_commit(&c->src, &c->grad, row, from, n, NULL, d, ds);
        return;
    }
    const float *x = source_fetch_slope(&c->src, row, from, n, xs, slope);
    const float *t = teacher_fetch(c, row, from, n, ts);
    int store = d == ds ? STORE_CACHED : c->store;
    if (c->method->emit)
        c->method->emit(c, r, from, n, x, t, d, store);
    else
        loss_emit_common(c, r, n, x, d, store);
    if (r->target >= from && r->target < to && !(c->method->flags & LOSS_KEEP_TARGET))
        d[r->target - from] =
            loss_target_masked(c, r) ? 0.0f : (float)(r->at_target * loss_factor(r));
    source_grad_commit(&c->src, &c->grad, row, from, n, slope, d, ds);
}

/* ---- One pass ---------------------------------------------------------------------------- */

/* Rows that kernels may take as they lie, from end to end. */
static bool lies_plain(const logit_source *s)
{
    return !s->fused && s->dense.plain && s->softcap == 0 && !s->mask;
}

static bool row_at_once(const loss_call *c)
{
    return lies_plain(&c->src) && c->grad.dlogits.plain && !c->grad.in_place &&
           !c->grad.accumulate_input && (!c->has_teacher || lies_plain(&c->teacher)) &&
           (!c->target.has_prob || c->target.prob.plain);
}

/* Value and gradient of a block; of the row, with its first block, where nothing has to be
   staged: then lines of the gradient are written whole. */
static void once(void *self, int64_t row, void *state, int64_t col, int64_t n)
{
    const loss_call *c = self;
    loss_row *r = state;
    float xs[KERNEL_BLOCK], ts[KERNEL_BLOCK], ds[KERNEL_BLOCK], slope[KERNEL_BLOCK];
    if (row_at_once(c)) {
        if (col > 0) return;
        n = c->src.cols;
    }
    const float *x = source_fetch_slope(&c->src, row, col, n, xs, slope);
    const float *t = teacher_fetch(c, row, col, n, ts);
    float *d = source_grad_stage(&c->src, &c->grad, row, col, ds);
    if (d == x) x = memcpy(xs, x, (size_t)n * sizeof *xs); /* it may be read twice */
    c->method->at_once(c, r, col, n, x, t, d, d == ds ? STORE_CACHED : c->store);
    source_grad_commit(&c->src, &c->grad, row, col, n, slope, d, ds);
}

static void finish_once(void *self, int64_t row, void *state)
{
    loss_call *c = self;
    const loss_row *r = state;
    finish(self, row, state);
    for (int64_t col = 0; isnan(r->loss) && col < c->src.cols; col += KERNEL_BLOCK) {
        int64_t n = c->src.cols - col < KERNEL_BLOCK ? c->src.cols - col : KERNEL_BLOCK;
        float ds[KERNEL_BLOCK], *d = source_grad_stage(&c->src, &c->grad, row, col, ds);
        fill_f32(d, n, NAN);
        source_grad_commit(&c->src, &c->grad, row, col, n, NULL, d, ds);
    }
}

/* ---- Whole rows ------------------------------------------------------------------------- */

/* Scratch of a worker: x, t, the gradient and the soft-cap's slope of a row, the latter two
   of the teacher where it has a gradient, and the method's. */
static int64_t whole_floats(const loss_call *c)
{
    int64_t own = c->method->scratch_floats ? c->method->scratch_floats(c->src.cols) : 0;
    int64_t own_rows = c->teacher_grad.wanted ? 6 : 4;
    return (own_rows * c->src.cols + own + 15) / 16 * 16;
}

/* A row of a source as one piece: where it lies, or in scratch. */
static const float *whole_row(const logit_source *s, int64_t row, float *scratch, float *slope)
{
    const float *first = NULL;
    for (int64_t col = 0; col < s->cols; col += KERNEL_BLOCK) {
        int64_t n = s->cols - col < KERNEL_BLOCK ? s->cols - col : KERNEL_BLOCK;
        const float *x = source_fetch_slope(s, row, col, n, scratch + col, slope + col);
        if (col == 0) first = x;
    }
    return first ? first : scratch;
}

static void whole_one(loss_call *c, int64_t row, float *scratch)
{
    const int64_t cols = c->src.cols;
    float *xs = scratch, *ts = xs + cols, *ds = ts + cols, *slope = ds + cols,
          *own = slope + cols;
    float *dts = own, *t_slope = dts + cols;
    if (c->teacher_grad.wanted) own = t_slope + cols;
    loss_row r;
    start(c, row, &r);
    c->loss[row] = 0;
    c->correct[row] = false;
    bool ignored = targets_ignored(&c->target, row);
    float *d = c->grad.wanted ? source_grad_stage(&c->src, &c->grad, row, 0, ds) : NULL;
    r.store = d == ds ? STORE_CACHED : c->store;
    const float *x = NULL;
    bool ordinary = false, correct = false;
    if (!skipped(c, &r)) {
        x = whole_row(&c->src, row, xs, slope);
        for (int64_t col = 0; col < cols; col += KERNEL_BLOCK)
            reduce_block(&c->ctx->k, &r, col,
                         cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK, x + col,
                         !(c->method->flags & LOSS_NO_LSE));
        ordinary = settle(c, &r);
        correct = ordinary && leads(c, &r);
    }
    float fill;
    if (c->teacher_grad.wanted)
        r.dt = source_grad_stage(&c->teacher, &c->teacher_grad, row, 0, dts);
    float *dt = r.dt;
    if (ordinary && sees(c, row)) {
        const float *t =
            c->has_teacher ? whole_row(&c->teacher, row, ts, dt ? t_slope : ds) : NULL;
        if (ignored) r.dt = NULL;
        c->method->whole(c, &r, x, t, ignored ? NULL : d, own);
    }
    if ((ignored || !ordinary) && fills(c, &r, &fill)) {
        if (d) fill_f32(d, cols, fill);
        if (dt) fill_f32(dt, cols, fill);
        slope = t_slope = NULL;
    }
    if (x)
        record(c, &r, ordinary, correct);
    else
        put_extra(c, &r, false, true);
    if (d) source_grad_commit(&c->src, &c->grad, row, 0, cols, slope, d, ds);
    if (dt) source_grad_commit(&c->teacher, &c->teacher_grad, row, 0, cols, t_slope, dt, dts);
}

typedef struct whole_run {
    loss_call *call;
    int64_t first, count, ranges;
} whole_run;

static void whole_range(void *arg, int64_t task, int32_t worker)
{
    const whole_run *run = arg;
    int64_t to = run->first + pool_range_start(run->count, run->ranges, task + 1);
    for (int64_t r = run->first + pool_range_start(run->count, run->ranges, task); r < to; r++)
        whole_one(run->call, r, run->call->worker + worker * run->call->worker_floats);
    stream_end();
}

static void whole_rows(loss_call *c, int64_t first, int64_t count)
{
    whole_run run = { c, first, count,
                      pool_ranges(c->ctx, count, (1 << 14) / (c->src.cols + 1) + 1) };
    pool_run(c->ctx, run.ranges, whole_range, &run);
}

/* The common form, streamed, while the next row is read: where neither row asks for more. */
static bool both(void *self, int64_t row, void *before, void *now, int64_t col, int64_t n)
{
    const loss_call *c = self;
    const loss_row *r = before;
    loss_row *next = now;
    bool common = !c->method->emit || (c->method->common && c->method->common(c, r));
    bool direct =
        c->store == STORE_STREAM && !c->src.mask && c->src.dense.plain && c->grad.dlogits.plain;
    float fill;
    if (!common || !direct || c->method->reduce_all || r->c != 0 || r->rest.kind != ROW_PLAIN ||
        !r->rest.arg.plain || !next->rest.arg.plain ||
        (c->method->flags & (LOSS_NO_LSE | LOSS_KEEP_TARGET)) || fills(c, r, &fill) ||
        skipped(c, next) || (next->target >= col && next->target < col + n))
        return false;
    const float *x = (const float *)rows_at(&c->src.dense, row + 1);
    float *d = (float *)rows_at(&c->grad.dlogits, row);
    exp_out e = loss_softmax(c, r, r->a * loss_factor(r), 0.0f);
    row_emit_reduce(&c->ctx->k, &e, (const float *)rows_at(&c->src.dense, row), d, &next->rest,
                    x, c->src.cols, col, n);
    put_target(c, r, d, col, n);
    float ts[KERNEL_BLOCK];
    if (c->method->reduce)
        c->method->reduce(c, next, col, n, x + col, teacher_fetch(c, row + 1, col, n, ts));
    return true;
}

_Static_assert(sizeof(loss_row) <= ROW_STATE_MAX, "the pipeline keeps a row's state");

static const row_job value_only = { sizeof(loss_row), start, reduce, finish, NULL, NULL };
static const row_job value_and_grad = { sizeof(loss_row), start, reduce, finish, emit, both };
static const row_job in_one_pass = { sizeof(loss_row), start, once, finish_once, NULL, NULL };

/* ---- The call --------------------------------------------------------------------------- */

slg_status reduction_check(slg_ctx *ctx, int32_t reduction)
{
    if (reduction >= SLG_NONE && reduction <= SLG_SUM) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "reduction is %d, must be from %d to %d", reduction,
                    SLG_NONE, SLG_SUM);
}

/* What a mean divides by: known before the first row, so gradients need no second pass. */
static void count_rows(loss_call *c)
{
    const target_set *t = &c->target;
    for (int64_t r = 0; r < c->src.rows; r++) {
        if (targets_ignored(t, r)) continue;
        int64_t k = targets_index(t, r);
        double w = targets_weight(t, r);
        c->out.count++;
        c->denominator += k >= 0 && t->class_weight ? w * (double)t->class_weight[k] : w;
    }
}

static slg_status walk(loss_call *c)
{
    const row_job *job = !c->grad.wanted      ? &value_only
                         : c->method->at_once ? &in_one_pass
                                              : &value_and_grad;
    for (int64_t first = 0; first < c->src.rows; first += c->src.block_rows) {
        int64_t count =
            c->src.rows - first < c->src.block_rows ? c->src.rows - first : c->src.block_rows;
        SLG_TRY(source_form(&c->src, first, count));
        if (c->has_teacher) SLG_TRY(source_form(&c->teacher, first, count));
        if (c->method->rows)
            c->method->rows(c, first, count);
        else if (c->method->whole)
            whole_rows(c, first, count);
        else
            row_pipeline_run(c->ctx, job, c, first, count, c->src.cols);
        SLG_TRY(source_grad_carry(&c->src, &c->grad, first, count));
        if (c->has_teacher)
            SLG_TRY(source_grad_carry(&c->teacher, &c->teacher_grad, first, count));
    }
    source_grad_none(&c->src, &c->grad);
    if (c->has_teacher) source_grad_none(&c->teacher, &c->teacher_grad);
    return SLG_OK;
}

static void add_up(loss_call *c, slg_loss_out *out)
{
    c->out.sum = 0;
    for (int64_t r = 0; r < c->src.rows; r++) {
        c->out.sum += c->loss[r];
        c->out.correct += c->correct[r];
        if (c->loss_rows.data) rows_put(&c->loss_rows, r, 0, c->loss[r]);
    }
    c->out.weight = c->denominator;
    bool none = c->out.count == 0 || (c->reduction == SLG_MEAN && c->denominator == 0);
    c->out.value = none                       ? 0
                   : c->reduction == SLG_MEAN ? c->out.sum / c->denominator
                                              : c->out.sum;
    options_write(out, &c->out, sizeof c->out);
}

static slg_status open_teacher(loss_call *c)
{
    if (!(c->method->uses & TARGET_TEACHER)) return SLG_OK;
    SLG_TRY(source_open(c->ctx, "targets.teacher", c->target.teacher, &c->teacher));
    c->has_teacher = true;
    if (c->teacher.rows == c->src.rows && c->teacher.cols == c->src.cols) return SLG_OK;
    return slg_fail(c->ctx, SLG_ERR_SHAPE,
                    "targets.teacher has %lld rows, %lld columns, logits %lld, %lld",
                    (long long)c->teacher.rows, (long long)c->teacher.cols,
                    (long long)c->src.rows, (long long)c->src.cols);
}

/* All scratch of a call, and a block size that suits both sources. */
static slg_status reserve(loss_call *c)
{
    slg_ctx *ctx = c->ctx;
    int64_t block = source_block_rows(&c->src);
    if (c->has_teacher && source_block_rows(&c->teacher) < block)
        block = source_block_rows(&c->teacher);
    SLG_TRY(source_reserve(&c->src, block));
    if (c->has_teacher) SLG_TRY(source_reserve(&c->teacher, block));
    SLG_TRY(source_grad_reserve(&c->src, &c->grad));
    if (c->has_teacher) SLG_TRY(source_grad_reserve(&c->teacher, &c->teacher_grad));
    c->loss = arena_alloc(ctx, (size_t)c->src.rows, sizeof *c->loss);
    c->correct = arena_alloc(ctx, (size_t)c->src.rows, sizeof *c->correct);
    if (!c->loss || !c->correct) return SLG_ERR_MEMORY;
    memset(c->correct, 0, (size_t)c->src.rows * sizeof *c->correct);
    if (!c->method->whole) return SLG_OK;
    c->worker_floats = whole_floats(c);
    c->worker =
        arena_alloc(ctx, (size_t)c->worker_floats * (size_t)ctx->num_threads, sizeof(float));
    return c->worker ? SLG_OK : SLG_ERR_MEMORY;
}

slg_status loss_open(slg_ctx *ctx, const loss_method *method, const void *opts,
                     int32_t reduction, const slg_logits *logits, const slg_targets *targets,
                     slg_loss_out *out, slg_logits_grad *grad, slg_logits_grad *teacher_grad,
                     loss_call *c)
{
    *c = (loss_call){
        .ctx = ctx, .method = method, .opts = opts, .reduction = reduction, .gain = 1
    };
    SLG_TRY(reduction_check(ctx, reduction));
    SLG_TRY(source_open(ctx, "logits", logits, &c->src));
    SLG_TRY(targets_open(ctx, targets, method->uses, c->src.rows,
                         c->src.cols + method->more_classes, &c->target));
    SLG_TRY(open_teacher(c));
    SLG_TRY(source_grad_open(ctx, grad, logits, &c->src, &c->grad));
    SLG_TRY(loss_open_out(c, out, targets, logits, grad));
    c->given_logits = logits, c->given_targets = targets, c->given_grad = grad;
    c->out.value = c->out.sum = c->out.weight = 0;
    c->out.count = c->out.correct = 0;

    if (c->method->flags & LOSS_NO_LSE && c->out.lse)
        return slg_fail(ctx, SLG_ERR_NULL,
                        "out.lse must be NULL: this loss has no log-sum-exp");
    if (teacher_grad) SLG_TRY(loss_open_teacher_grad(c, teacher_grad));
    if (method->open) SLG_TRY(method->open(c));
    SLG_TRY(reserve(c));
    bool stream = !c->src.fused && !c->grad.in_place && !c->grad.accumulate_input &&
                  c->src.softcap == 0 && stream_pays(ctx, c->src.rows, c->src.cols);
    c->store = stream ? STORE_STREAM : STORE_CACHED;
    count_rows(c);
    return SLG_OK;
}

slg_status loss_execute(loss_call *c, slg_loss_out *out)
{
    SLG_TRY(walk(c));
    add_up(c, out);
    return SLG_OK;
}

slg_status loss_run(slg_ctx *ctx, const loss_method *method, const void *opts,
                    int32_t reduction, const slg_logits *logits, const slg_targets *targets,
                    slg_loss_out *out, slg_logits_grad *grad)
{
    return loss_run_pair(ctx, method, opts, reduction, logits, targets, out, grad, NULL);
}

slg_status loss_run_pair(slg_ctx *ctx, const loss_method *method, const void *opts,
                         int32_t reduction, const slg_logits *logits,
                         const slg_targets *targets, slg_loss_out *out, slg_logits_grad *grad,
                         slg_logits_grad *teacher_grad)
{
    loss_call c;
    SLG_TRY(
        loss_open(ctx, method, opts, reduction, logits, targets, out, grad, teacher_grad, &c));
    return loss_execute(&c, out);
}
