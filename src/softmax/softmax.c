/*
 * softmax.c - softmax, log-softmax and log-sum-exp. One job for all three: pass 1 is the same,
 * and pass 2 an exponential, an affine form, or nothing.
 *
 * Which way (design.md, "Algorithms are chosen"):
 *   x and y fit the caches    a kernel that does a whole row, one exp an element
 *   short rows beyond them    the same into a buffer, streamed from there
 *   otherwise                 the pipeline of pipeline.h, two exps, with streaming stores
 *   fewer rows than threads,  each row split over the threads by segments
 *   and long ones
 *   an algorithm by name      the paper's kernels, a thread a row
 */
#include "softlogit/softmax.h"

#include <math.h>

#include "softmax_options.h"
#include "pipeline.h"

enum result { SOFTMAX, LOG_SOFTMAX, LSE_ONLY };

typedef struct job {
    slg_ctx *ctx;
    rows_source src;
    rows y, lse;
    enum result result;
    bool want_lse;
    int store, algorithm;
    int64_t cols;
    double temperature;
    exp_arg arg;
} job;

typedef struct row_state {
    row_stat stat;
    exp_out out;
    log_arg log;
} row_state;

/* ---- The two passes --------------------------------------------------------------------- */

static void start(void *self, int64_t row, void *s)
{
    const job *j = self;
    (void)row;
    row_start(&((row_state *)s)->stat, &j->arg);
}

static void reduce(void *self, int64_t row, void *s, int64_t col, int64_t n)
{
    const job *j = self;
    float scratch[KERNEL_BLOCK];
    const float *x = rows_fetch(j->src.k, &j->src.x, row, col, n, scratch);
    row_reduce(j->src.k, &((row_state *)s)->stat, col, n, x);
}

static log_arg log_arg_of(const row_stat *s, double temperature)
{
    log_arg a = { .unit = s->arg.pre == 0 ? 1.0f : 0.5f };
    double inv = 1.0 / (temperature * (double)a.unit);
    a.s_hi = (float)inv;
    a.s_lo = (float)(inv - (double)a.s_hi);
    a.lse_hi = (float)s->lse_rel;
    a.lse_lo = (float)(s->lse_rel - (double)a.lse_hi);
    a.pre = s->arg.pre * a.unit;
    return a;
}

/* After row_finish or row_settle: what pass 2 needs, and the log-sum-exp out. */
static void prepare(const job *j, int64_t row, row_state *s)
{
    if (j->want_lse) rows_put(&j->lse, row, 0, s->stat.lse);
    if (s->stat.kind != ROW_PLAIN) return;
    if (j->result == SOFTMAX) s->out = row_out(&s->stat, 1.0, 0.0f);
    if (j->result == LOG_SOFTMAX) s->log = log_arg_of(&s->stat, j->temperature);
}

static void finish(void *self, int64_t row, void *state)
{
    const job *j = self;
    row_state *s = state;
    row_finish(j->src.k, &s->stat, row, j->cols, rows_source_fetch, &j->src);
    prepare(j, row, s);
}

static float special(const job *j, row_kind kind)
{
    if (kind != ROW_MASKED) return NAN;
    return j->result == SOFTMAX ? 0.0f : -INFINITY;
}

static void emit(void *self, int64_t row, void *state, int64_t col, int64_t n)
{
    const job *j = self;
    const row_state *s = state;
    float xs[EMIT_BLOCK], ys[EMIT_BLOCK];
    int64_t from = col, to = col + n;
    if (j->y.plain && j->src.x.plain)
        line_cut((const float *)rows_at(&j->y, row), j->cols, col, n, &from, &to);
    if (from >= to) return;
    float *y = rows_stage(&j->y, row, from, ys);
    if (s->stat.kind != ROW_PLAIN) {
        fill_f32(y, to - from, special(j, s->stat.kind));
    } else {
        const float *x = rows_fetch(j->src.k, &j->src.x, row, from, to - from, xs);
        int store = y == ys ? STORE_CACHED : j->store;
        if (j->result == SOFTMAX)
            j->src.k->exp_emit((size_t)(to - from), x, &s->out, y, store);
        else
            j->src.k->log_emit((size_t)(to - from), x, &s->log, y, store);
    }
    rows_commit(j->src.k, &j->y, row, from, to - from, ys);
}

static bool both(void *self, int64_t row, void *before, void *now, int64_t col, int64_t n)
{
    const job *j = self;
    const row_state *s = before;
    if (j->result != SOFTMAX || j->store != STORE_STREAM || !j->src.x.plain || !j->y.plain ||
        s->stat.kind != ROW_PLAIN || !s->stat.arg.plain || !j->arg.plain)
        return false;
    row_emit_reduce(j->src.k, &s->out, (const float *)rows_at(&j->src.x, row),
                    (float *)rows_at(&j->y, row), &((row_state *)now)->stat,
                    (const float *)rows_at(&j->src.x, row + 1), j->cols, col, n);
    return true;
}

static const row_job two_passes = { sizeof(row_state), start, reduce, finish, emit, both };
static const row_job one_pass = { sizeof(row_state), start, reduce, finish, NULL, NULL };

/* ---- One row at a time ------------------------------------------------------------------ */

static void any_row(const job *j, int64_t row)
{
    row_pipeline(j->result == LSE_ONLY ? &one_pass : &two_passes, (void *)(uintptr_t)j, row,
                 row + 1, j->cols);
}

/* A row that is in the cache and stays there. x and y are plain, or fit a block. */
static void cached_row(const job *j, int64_t row)
{
    float xs[KERNEL_BLOCK], ys[KERNEL_BLOCK];
    const float *x = rows_fetch(j->src.k, &j->src.x, row, 0, j->cols, xs);
    float *y = rows_stage(&j->y, row, 0, ys);
    row_state s;
    if (!j->src.k->softmax_row((size_t)j->cols, x, &j->arg, y, &s.stat.part)) {
        any_row(j, row);
        return;
    }
    rows_commit(j->src.k, &j->y, row, 0, j->cols, ys);
    if (!j->want_lse) return;
    s.stat.arg = j->arg;
    row_settle(j->src.k, &s.stat, &s.stat.part, row, j->cols, rows_source_fetch, &j->src);
    rows_put(&j->lse, row, 0, s.stat.lse);
}

/* An algorithm by name. The scratch of rows that are not plain holds x and y of a worker. */
static void named_row(const job *j, int64_t row, float *scratch)
{
    const kernel_table *k = j->src.k;
    size_t n = (size_t)j->cols;
    const float *x = rows_fetch(k, &j->src.x, row, 0, j->cols, scratch);
    float *y = rows_stage(&j->y, row, 0, scratch ? scratch + n : NULL);
    double lse, scale = 1.0 / j->temperature;
    bool done = j->algorithm == SLG_TWO_PASS ? k->softmax_two_pass(n, x, scale, y, &lse)
                : j->algorithm == SLG_THREE_PASS_RECOMPUTE
                    ? k->softmax_recompute(n, x, scale, y, &lse)
                    : k->softmax_reload(n, x, scale, y, &lse);
    if (!done) {
        any_row(j, row);
        return;
    }
    rows_commit(k, &j->y, row, 0, j->cols, scratch ? scratch + n : NULL);
    if (j->want_lse) rows_put(&j->lse, row, 0, lse);
}

typedef struct row_loop {
    const job *job;
    int64_t ranges;
    bool named;
    float *scratch; /* 2 cols a worker, or NULL */
} row_loop;

static void row_range(void *arg, int64_t task, int32_t worker)
{
    const row_loop *l = arg;
    const job *j = l->job;
    int64_t last = pool_range_start(j->src.x.count, l->ranges, task + 1);
    float *scratch = l->scratch ? l->scratch + 2 * j->cols * worker : NULL;
    for (int64_t r = pool_range_start(j->src.x.count, l->ranges, task); r < last; r++) {
        if (l->named)
            named_row(j, r, scratch);
        else
            cached_row(j, r);
    }
}

static slg_status run_rows(job *j, bool named)
{
    int64_t least = (1 << 14) / (j->cols > 0 ? j->cols : 1) + 1;
    row_loop l = { j, pool_ranges(j->ctx, j->src.x.count, least), named, NULL };
    if (named && !(j->src.x.plain && j->y.plain)) {
        size_t floats = 2 * (size_t)j->cols * (size_t)j->ctx->num_threads;
        l.scratch = arena_alloc(j->ctx, floats, sizeof(float));
        if (!l.scratch) return SLG_ERR_MEMORY;
    }
    pool_run(j->ctx, l.ranges, row_range, &l);
    return SLG_OK;
}

/* ---- Many short rows, past the caches --------------------------------------------------- */

/*
 * Rows of up to STAGED_COLS are made in a buffer in the L1, one exp an element, and leave it in
 * whole lines: the part of a line at a row's end waits for the next row. y is one piece
 * of memory.
 */
enum { STAGED_COLS = 4096 };

typedef struct stage {
    _Alignas(64) float line[STAGED_COLS + 32]; /* index i stands for y_line[i] */
    float *y_line;                             /* start of the line that index 0 stands for */
    size_t from, to;                           /* what is in the buffer */
} stage;

/* Writes what is left, with ordinary stores: before a row that goes another way, and at
   the end. */
static void stage_flush(stage *s)
{
    for (size_t i = s->from; i < s->to; i++) s->y_line[i] = s->line[i];
    s->from = s->to;
}

/* Starts at y, which may lie within a line. */
static void stage_start(stage *s, float *y)
{
    s->from = s->to = ((uintptr_t)y & 63) / sizeof(float);
    s->y_line = y - s->from;
}

/* After n more floats were put at line + to: sends the whole lines, those n times factor. */
static void stage_advance(const kernel_table *k, stage *s, size_t n, float factor)
{
    size_t end = s->to + n, lines = end / 16 * 16, head = end < 16 ? end : 16;
    for (size_t i = s->to; i < head; i++) s->line[i] *= factor;
    if (s->from > 0 && lines > 0) { /* the line that started elsewhere */
        for (size_t i = s->from; i < 16; i++) s->y_line[i] = s->line[i];
    } else if (lines > 0) {
        k->stream(16, s->line, 1.0f, s->y_line);
    }
    s->to = end;
    if (lines == 0) return;
    k->stream(lines - 16, s->line + 16, factor, s->y_line + 16);
    if (lines < end) k->scale(end - lines, s->line + lines, factor, s->line);
    s->y_line += lines;
    s->from = 0;
    s->to = end - lines;
}

/* A row into the buffer. False where it is not ordinary. */
static bool stage_row(const job *j, stage *s, int64_t row)
{
    const kernel_table *k = j->src.k;
    const float *x = (const float *)rows_at(&j->src.x, row);
    size_t n = (size_t)j->cols;
    float max = k->max(n, x);
    if (!(fabsf(max * j->arg.log2e_t) <= EXP_LIMIT)) return false;
    double sum = k->exp_store(n, x, &j->arg, rintf(max * j->arg.log2e_t), s->line + s->to, n);
    if (isnan(sum)) return false;
    stage_advance(k, s, n, (float)(1.0 / sum));
    return true;
}

typedef struct staged_loop {
    const job *job;
    int64_t ranges;
} staged_loop;

static void staged_range(void *arg, int64_t task, int32_t worker)
{
    const staged_loop *l = arg;
    const job *j = l->job;
    int64_t r = pool_range_start(j->src.x.count, l->ranges, task);
    int64_t last = pool_range_start(j->src.x.count, l->ranges, task + 1);
    stage s;
    (void)worker;
    stage_start(&s, (float *)rows_at(&j->y, r));
    for (; r < last; r++) {
        if (stage_row(j, &s, r)) continue;
        stage_flush(&s);
        any_row(j, r);
        stage_start(&s, (float *)rows_at(&j->y, r) + j->cols);
    }
    stage_flush(&s);
    stream_end();
}

static slg_status run_staged(job *j)
{
    staged_loop l = { j, pool_ranges(j->ctx, j->src.x.count, (1 << 14) / j->cols + 1) };
    pool_run(j->ctx, l.ranges, staged_range, &l);
    return SLG_OK;
}

/* ---- One long row over all threads ------------------------------------------------------ */

typedef struct split {
    const job *job;
    int64_t row;
    row_state *state;
    lse_part *parts; /* one a segment */
} split;

static void segment_range(const split *s, int64_t task, int64_t *from, int64_t *to)
{
    *from = task * ROW_SEGMENT;
    *to = *from + ROW_SEGMENT < s->job->cols ? *from + ROW_SEGMENT : s->job->cols;
}

static void reduce_segment(void *arg, int64_t task, int32_t worker)
{
    const split *s = arg;
    const job *j = s->job;
    int64_t from, to;
    float scratch[KERNEL_BLOCK];
    (void)worker;
    segment_range(s, task, &from, &to);
    lse_part part = LSE_EMPTY;
    for (int64_t col = from; col < to; col += KERNEL_BLOCK) {
        int64_t n = to - col < KERNEL_BLOCK ? to - col : KERNEL_BLOCK;
        const float *x = rows_fetch(j->src.k, &j->src.x, s->row, col, n, scratch);
        j->src.k->lse((size_t)n, x, &j->arg, &part);
    }
    s->parts[task] = part;
}

static void emit_segment(void *arg, int64_t task, int32_t worker)
{
    const split *s = arg;
    int64_t from, to;
    (void)worker;
    segment_range(s, task, &from, &to);
    for (int64_t col = from; col < to; col += KERNEL_BLOCK) {
        int64_t n = to - col < KERNEL_BLOCK ? to - col : KERNEL_BLOCK;
        emit((void *)(uintptr_t)s->job, s->row, s->state, col, n);
    }
    stream_end();
}

static slg_status run_split(job *j)
{
    int64_t tasks = (j->cols + ROW_SEGMENT - 1) / ROW_SEGMENT;
    row_state state;
    split s = { j, 0, &state, arena_alloc(j->ctx, (size_t)tasks, sizeof(lse_part)) };
    if (!s.parts) return SLG_ERR_MEMORY;
    for (s.row = 0; s.row < j->src.x.count; s.row++) {
        pool_run(j->ctx, tasks, reduce_segment, &s);
        lse_part whole = LSE_EMPTY;
        for (int64_t i = 0; i < tasks; i++) part_merge(&whole, &s.parts[i]);
        row_start(&state.stat, &j->arg);
        row_settle(j->src.k, &state.stat, &whole, s.row, j->cols, rows_source_fetch, &j->src);
        prepare(j, s.row, &state);
        if (j->result != LSE_ONLY) pool_run(j->ctx, tasks, emit_segment, &s);
    }
    return SLG_OK;
}

/* The same with one exp an element: what softmax_row does, bit for bit, in steps over all
   threads. */
static void max_segment(void *arg, int64_t task, int32_t worker)
{
    const split *s = arg;
    int64_t from, to;
    (void)worker;
    segment_range(s, task, &from, &to);
    const float *x = (const float *)rows_at(&s->job->src.x, s->row) + from;
    s->parts[task].max = s->job->src.k->max((size_t)(to - from), x);
}

static void store_segment(void *arg, int64_t task, int32_t worker)
{
    const split *s = arg;
    const job *j = s->job;
    int64_t from, to;
    (void)worker;
    segment_range(s, task, &from, &to);
    const float *x = (const float *)rows_at(&j->src.x, s->row) + from;
    float *y = (float *)rows_at(&j->y, s->row) + from;
    s->parts[task].sum =
        j->src.k->exp_store((size_t)(to - from), x, &j->arg, s->state->stat.part.ref, y, 0);
}

static void scale_segment(void *arg, int64_t task, int32_t worker)
{
    const split *s = arg;
    int64_t from, to;
    (void)worker;
    segment_range(s, task, &from, &to);
    float *y = (float *)rows_at(&s->job->y, s->row) + from;
    s->job->src.k->scale((size_t)(to - from), y, (float)(1.0 / s->state->stat.part.sum), y);
}

/* False where the row is not ordinary. */
static bool split_row_stored(const split *s, int64_t tasks)
{
    const job *j = s->job;
    lse_part *whole = &s->state->stat.part;
    *whole = LSE_EMPTY;
    pool_run(j->ctx, tasks, max_segment, (void *)(uintptr_t)s);
    for (int64_t i = 0; i < tasks; i++)
        if (s->parts[i].max > whole->max) whole->max = s->parts[i].max;
    whole->ref = rintf(whole->max * j->arg.log2e_t);
    if (!(fabsf(whole->max * j->arg.log2e_t) <= EXP_LIMIT)) return false;
    pool_run(j->ctx, tasks, store_segment, (void *)(uintptr_t)s);
    for (int64_t i = 0; i < tasks; i++) whole->sum += s->parts[i].sum;
    if (isnan(whole->sum)) return false;
    pool_run(j->ctx, tasks, scale_segment, (void *)(uintptr_t)s);
    return true;
}

static slg_status run_split_stored(job *j)
{
    int64_t tasks = (j->cols + ROW_SEGMENT - 1) / ROW_SEGMENT;
    row_state state;
    split s = { j, 0, &state, arena_alloc(j->ctx, (size_t)tasks, sizeof(lse_part)) };
    if (!s.parts) return SLG_ERR_MEMORY;
    for (s.row = 0; s.row < j->src.x.count; s.row++) {
        if (!split_row_stored(&s, tasks)) {
            any_row(j, s.row);
        } else if (j->want_lse) {
            state.stat.arg = j->arg;
            row_settle(j->src.k, &state.stat, &state.stat.part, s.row, j->cols,
                       rows_source_fetch, &j->src);
            rows_put(&j->lse, s.row, 0, state.stat.lse);
        }
    }
    return SLG_OK;
}

/* ---- A small call ----------------------------------------------------------------------- */

/*
 * One or a few short rows of plain floats, with nothing asked for: checks that would cost more
 * than the work are made here in a few comparisons. False where it is anything else, or a row
 * is not ordinary: the usual way then does it all, messages included. The floating-point mode
 * is taken as it is where it rounds to nearest and rows are short, which softmax_row allows
 * for: writing it costs as much as 16 exponentials.
 */
enum { SMALL = 1 << 14 }; /* elements: one thread's work, and in the L2 */

static bool plain_matrix(const slg_tensor *t, int64_t *count, int64_t *cols, int64_t *step)
{
    if (!t || !t->data || t->dtype != SLG_F32 || (t->ndim != 1 && t->ndim != 2)) return false;
    int32_t last = t->ndim - 1;
    *count = last ? t->shape[0] : 1;
    *cols = t->shape[last];
    if (*cols < 1 || *cols > SMALL || *count < 1 || *count > SMALL / *cols) return false;
    *step = *count > 1 ? t->stride[0] : *cols;
    return (*cols == 1 || t->stride[last] == 1) && *step >= *cols && *step < INT32_MAX &&
           (uintptr_t)t->data % sizeof(float) == 0;
}

static bool small_call(slg_ctx *ctx, const slg_tensor *x, slg_tensor *y)
{
    int64_t count, cols, x_step, y_count, y_cols, y_step;
    fp_mode mode;
    if (!plain_matrix(x, &count, &cols, &x_step) ||
        !plain_matrix(y, &y_count, &y_cols, &y_step) || count != y_count || cols != y_cols ||
        x->ndim != y->ndim || ctx->verbose > 0)
        return false;
    const float *in = x->data;
    float *out = y->data;
    if (out < in + (count - 1) * x_step + cols && in < out + (count - 1) * y_step + cols)
        return false;
    if (cols > SHORT_ROW)
        mode = fp_enter();
    else if (!fp_nearest(&mode))
        return false;
    const exp_arg arg = exp_arg_of(1.0, 0.0f);
    lse_part part;
    bool done = true;
    for (int64_t r = 0; r < count && done; r++)
        done = ctx->k.softmax_row((size_t)cols, in + r * x_step, &arg, out + r * y_step, &part);
    fp_leave(mode);
    ctx->message[0] = '\0';
    return done;
}

/* ---- Choice ----------------------------------------------------------------------------- */

/*
 * Up to how many bytes of x and y one exp an element, stored and scaled afterwards, beats two
 * and streaming stores (measured, with an output that is not in the cache): the slower exp
 * is beside memory, the more.
 */
static double one_exp_bytes(const slg_ctx *ctx)
{
    if (ctx->isa == SLG_ISA_PORTABLE) return HUGE_VAL;
    return ctx->isa == SLG_ISA_AVX2 ? (double)ctx->l3_bytes / 4 : (double)ctx->l2_bytes;
}

static slg_status run(job *j, bool reread, bool in_place)
{
    const slg_ctx *ctx = j->ctx;
    int64_t count = j->src.x.count;
    if (j->algorithm != SLG_ALGORITHM_AUTO) return run_rows(j, true);

    bool stream = !reread && !in_place && stream_pays(ctx, count, j->cols);
    bool whole = (j->src.x.plain && j->y.plain) || j->cols <= KERNEL_BLOCK;
    bool fits = (size_t)j->cols * 2 * sizeof(float) <= ctx->l2_bytes;
    /* Short rows are not worth the pipeline's steps. */
    double bytes = (double)count * (double)j->cols * 2 * sizeof(float);
    bool cached = bytes <= one_exp_bytes(ctx) || (reread && fits) || j->cols < 256;
    bool share = count < ctx->num_threads && j->cols >= 2 * ROW_SEGMENT;
    /* The shape chooses between one exp and two, threads do not: they give different bits. */
    if (j->result == SOFTMAX && whole && cached)
        return share ? run_split_stored(j) : run_rows(j, false);
    j->store = stream ? STORE_STREAM : STORE_CACHED;
    if (share) return run_split(j);

    bool dense = j->src.x.plain && j->y.plain && j->y.outer == 1 && j->y.stride[0] == j->cols;
    if (j->result == SOFTMAX && stream && dense && !j->want_lse && j->cols <= STAGED_COLS)
        return run_staged(j);
    row_pipeline_run(j->ctx, j->result == LSE_ONLY ? &one_pass : &two_passes, j, 0, count,
                     j->cols);
    return SLG_OK;
}

/* ---- Public functions ------------------------------------------------------------------- */

static slg_status softmax_call(slg_ctx *ctx, const slg_tensor *x, const slg_softmax_opts *opts,
                               slg_tensor *y, slg_tensor *lse, enum result result)
{
    slg_softmax_opts o;
    SLG_TRY(softmax_options(ctx, opts, &o));
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 1, 4));
    if (result != LSE_ONLY) {
        SLG_TRY(tensor_out(ctx, "y", y, DT_ROW, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "y", y, "x", x));
        if (tensor_clash(y, x))
            return slg_fail(ctx, SLG_ERR_STRIDE, "y overlaps x, and is not x itself");
    }
    if (lse || result == LSE_ONLY) {
        SLG_TRY(tensor_out(ctx, "lse", lse, DT_F32 | DT_F64, 1, 4));
        SLG_TRY(tensor_is_per_row(ctx, "lse", lse, "x", x));
        if (tensor_clash(lse, x) || outputs_clash(lse, y))
            return slg_fail(ctx, SLG_ERR_STRIDE, "lse overlaps %s", y ? "x or y" : "x");
    }
    op_detail(ctx, x);
    if (x->shape[x->ndim - 1] == 0 && !lse) return SLG_OK; /* any number of rows of nothing */
    job j = { .ctx = ctx, .src = { &ctx->k, rows_of(x) }, .result = result, .want_lse = lse };
    if (y) j.y = rows_of(y);
    if (lse) j.lse = rows_per_row(lse);
    j.algorithm = result == SOFTMAX ? o.algorithm : SLG_ALGORITHM_AUTO;
    j.cols = j.src.x.cols;
    j.temperature = o.temperature;
    j.arg = exp_arg_of(o.temperature, 0.0f);
    return run(&j, o.reread != 0, y && y->data == x->data);
}

slg_status slg_softmax(slg_ctx *ctx, const slg_tensor *x, const slg_softmax_opts *opts,
                       slg_tensor *y, slg_tensor *lse)
{
    if (!ctx) return SLG_ERR_NULL;
    if (!opts && !lse && small_call(ctx, x, y)) return SLG_OK;
    op_begin(ctx, "slg_softmax");
    return op_end(ctx, softmax_call(ctx, x, opts, y, lse, SOFTMAX));
}

slg_status slg_log_softmax(slg_ctx *ctx, const slg_tensor *x, const slg_softmax_opts *opts,
                           slg_tensor *y, slg_tensor *lse)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_log_softmax");
    return op_end(ctx, softmax_call(ctx, x, opts, y, lse, LOG_SOFTMAX));
}

slg_status slg_logsumexp(slg_ctx *ctx, const slg_tensor *x, const slg_softmax_opts *opts,
                         slg_tensor *lse)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_logsumexp");
    return op_end(ctx, softmax_call(ctx, x, opts, NULL, lse, LSE_ONLY));
}
