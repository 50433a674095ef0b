/*
 * linear_sweep.c - a chunk at a time: o = Q S, plus (Q K', masked) V a few queries at a time,
 * up to the keys that they see; then S += K'V. S is held in double, and as floats for the
 * products: so what is lost over a long sequence is what is lost in a chunk. Tasks are sweeps,
 * heads and, where heads are few, segments of tokens, whose sums are found first and added up
 * in order. All of that depends on the shape alone.
 */
#include "linear_sweep.h"

#include <string.h>

#include "operands.h"

enum {
    QUERIES = 16,      /* of a product with keys: the masked half of it is wasted */
    MIN_SEGMENT = 512, /* tokens */
    MOST_TASKS = 8     /* heads times segments */
};

linear_view linear_view_of(const slg_tensor *t)
{
    if (!t) return (linear_view){ 0 };
    const int32_t n = t->ndim;
    return (linear_view){ rows_of(t), t->shape[n - 2], t->shape[n - 1],
                          (ptrdiff_t)t->stride[n - 2] };
}

/* A worker's scratch. Rows of kt and p are ld apart. */
typedef struct space {
    double *state;
    float *s, *sum;       /* [k.dim, v.dim]: the state; what a chunk adds to it */
    float *kt, *p;        /* [k.dim, ld], [QUERIES, ld] */
    float *q, *k, *v, *o; /* [chunk, dim]: rows that cannot be used where they are */
    size_t ld;
} space;

static size_t place(char *base, size_t *used, size_t n, size_t item, void *to)
{
    const size_t at = *used;
    if (base) memcpy(to, &(char *){ base + at }, sizeof(char *));
    *used += (n * item + 63) / 64 * 64 + 128;
    return at;
}

/* Bytes of it; filled in where base is not NULL. */
static size_t space_of(const linear_job *job, const linear_sweep *w, char *base, space *t)
{
    const size_t k = (size_t)w->k.dim, v = (size_t)w->v.dim, chunk = (size_t)job->chunk;
    size_t used = 0;
    t->ld = (chunk + 15) / 16 * 16 + 16;
    place(base, &used, k * v, sizeof(double), &t->state);
    place(base, &used, k * v, sizeof(float), &t->s);
    place(base, &used, k * v, sizeof(float), &t->sum);
    place(base, &used, k * t->ld, sizeof(float), &t->kt);
    place(base, &used, QUERIES * t->ld, sizeof(float), &t->p);
    place(base, &used, chunk * k, sizeof(float), &t->q);
    place(base, &used, chunk * k, sizeof(float), &t->k);
    place(base, &used, chunk * v, sizeof(float), &t->v);
    place(base, &used, chunk * v, sizeof(float), &t->o);
    return used;
}

/* ---- States ------------------------------------------------------------------------------ */

static void state_read(const linear_sweep *w, int64_t head, double *s)
{
    const int64_t d = w->k.dim, e = w->v.dim;
    const rows *m = &w->init.rows;
    if (!m->data) {
        memset(s, 0, (size_t)(d * e) * sizeof *s);
    } else if (!w->init.turned) {
        for (int64_t i = 0; i < d; i++) row_doubles(m, head * d + i, s + i * e);
    } else {
        for (int64_t j = 0; j < e; j++)
            for (int64_t i = 0; i < d; i++) s[i * e + j] = rows_get(m, head * e + j, i);
    }
}

static void state_write(const linear_sweep *w, int64_t head, const double *s)
{
    const int64_t d = w->k.dim, e = w->v.dim;
    const rows *m = &w->final.rows;
    if (!m->data) return;
    if (!w->final.turned) {
        for (int64_t i = 0; i < d; i++) row_store(m, head * d + i, s + i * e);
    } else {
        for (int64_t j = 0; j < e; j++)
            for (int64_t i = 0; i < d; i++) rows_put(m, head * e + j, i, s[i * e + j]);
    }
}

/* ---- A chunk ----------------------------------------------------------------------------- */

typedef struct chunk {
    int64_t first, n; /* tokens */
    const float *q, *k, *v;
    ptrdiff_t q_step, k_step, v_step;
} chunk;

static const float *fetch(const linear_job *job, const linear_view *x, int64_t head,
                          const chunk *c, float *scratch, ptrdiff_t *step)
{
    const int64_t row = head * x->tokens + c->first;
    *step = x->rows.plain ? x->step : (ptrdiff_t)x->dim;
    if (x->rows.plain) return (const float *)rows_at(&x->rows, row);
    for (int64_t i = 0; i < c->n; i++) {
        const float *from =
            rows_fetch(&job->ctx->k, &x->rows, row + i, 0, x->dim, scratch + i * x->dim);
        if (from != scratch + i * x->dim)
            memcpy(scratch + i * x->dim, from, (size_t)x->dim * sizeof *from);
    }
    return scratch;
}

static void gemm(const linear_job *job, int64_t m, int64_t n, int64_t k, const float *a,
                 ptrdiff_t row, ptrdiff_t col, const float *b, ptrdiff_t ldb, float *c,
                 ptrdiff_t ldc, bool add)
{
    const tile_product t = { (size_t)m, (size_t)n, (size_t)k, a,   row, col,
                             b,         ldb,       c,         ldc, add, false };
    job->ctx->k.tile_gemm(&t);
}

static bool rows_are_finite(const linear_job *job, int64_t m, int64_t n, const float *x,
                            ptrdiff_t step)
{
    for (int64_t i = 0; i < m; i++)
        if (!job->ctx->k.finite((size_t)n, x + i * step)) return false;
    return true;
}

/* Keys [*from, *to) of the chunk that query i sees. */
static void seen(const linear_job *job, const linear_sweep *w, const chunk *c, int64_t i,
                 int64_t *from, int64_t *to)
{
    const int64_t own = job->form == SLG_LINEAR_INCLUSIVE;
    *from = w->reverse ? i + 1 - own : 0;
    *to = w->reverse ? c->n : i + own;
}

/* o += (Q K', masked) V. Where V is not finite one query at a time, with no key that it does
   not see: 0 times NaN is NaN. */
static void add_pairs(const linear_job *job, const linear_sweep *w, const chunk *c,
                      const space *t, float *o, ptrdiff_t ldo)
{
    const int64_t d = w->k.dim, e = w->v.dim;
    const int64_t step = rows_are_finite(job, c->n, e, c->v, c->v_step) ? QUERIES : 1;
    job->ctx->k.transpose((size_t)c->n, (size_t)d, c->k, c->k_step, 1.0f, t->kt,
                          (ptrdiff_t)t->ld);
    for (int64_t i = 0; i < c->n; i += step) {
        const int64_t m = c->n - i < step ? c->n - i : step;
        int64_t from, to, first, last;
        seen(job, w, c, i, &from, &to);
        seen(job, w, c, i + m - 1, &first, &last);
        from = from < first ? from : first, to = to > last ? to : last;
        if (from >= to) continue;
        gemm(job, m, to - from, d, c->q + i * c->q_step, c->q_step, 1, t->kt + from,
             (ptrdiff_t)t->ld, t->p, (ptrdiff_t)t->ld, false);
        for (int64_t r = 0; r < m; r++) {
            float *p = t->p + (size_t)r * t->ld;
            seen(job, w, c, i + r, &first, &last);
            for (int64_t j = from; j < first && j < to; j++) p[j - from] = 0;
            for (int64_t j = last > from ? last : from; j < to; j++) p[j - from] = 0;
        }
        gemm(job, m, e, to - from, t->p, (ptrdiff_t)t->ld, 1, c->v + from * c->v_step,
             c->v_step, o + i * ldo, ldo, true);
    }
}

static void outputs(const linear_job *job, const linear_sweep *w, int64_t head, const chunk *c,
                    const space *t)
{
    const linear_view *o = &w->o;
    const int64_t d = w->k.dim, e = w->v.dim, row = head * o->tokens + c->first;
    float *to = o->rows.plain ? (float *)rows_at(&o->rows, row) : t->o;
    const ptrdiff_t ldo = o->rows.plain ? o->step : (ptrdiff_t)e;
    gemm(job, c->n, e, d, c->q, c->q_step, 1, t->s, (ptrdiff_t)e, to, ldo, false);
    if (job->form != SLG_LINEAR_FULL) add_pairs(job, w, c, t, to, ldo);
    for (int64_t i = 0; i < c->n && !o->rows.plain; i++)
        rows_commit(&job->ctx->k, &o->rows, row + i, 0, e, t->o + i * e);
}

/* state += K'V. */
static void absorb(const linear_job *job, const linear_sweep *w, const chunk *c, const space *t,
                   double *state)
{
    const int64_t d = w->k.dim, e = w->v.dim;
    gemm(job, d, e, c->n, c->k, 1, c->k_step, c->v, c->v_step, t->sum, (ptrdiff_t)e, false);
    job->ctx->k.accumulate((size_t)(d * e), t->sum, state, t->s);
}

/* ---- Segments ---------------------------------------------------------------------------- */

typedef struct task {
    const linear_sweep *w;
    int64_t head, segment, from, to; /* chunks */
    double *state;                   /* of the segment, or the worker's */
    space t;
} task;

static task task_of(const linear_job *job, int64_t number, int32_t worker)
{
    task k = { 0 };
    const int64_t sweep = number / (job->heads * job->segments);
    const int64_t rest = number % (job->heads * job->segments);
    k.w = &job->sweep[sweep];
    k.head = rest / job->segments, k.segment = rest % job->segments;
    k.from = pool_range_start(job->chunks, job->segments, k.segment);
    k.to = pool_range_start(job->chunks, job->segments, k.segment + 1);
    space_of(job, k.w, job->scratch + (size_t)worker * job->worker_bytes, &k.t);
    k.state =
        job->states[sweep] ? job->states[sweep] + rest * k.w->k.dim * k.w->v.dim : k.t.state;
    return k;
}

static chunk chunk_of(const linear_job *job, const task *k, int64_t number, bool query)
{
    chunk c = { .first = number * job->chunk };
    c.n = job->tokens - c.first < job->chunk ? job->tokens - c.first : job->chunk;
    if (query) c.q = fetch(job, &k->w->q, k->head, &c, k->t.q, &c.q_step);
    c.k = fetch(job, &k->w->k, k->head, &c, k->t.k, &c.k_step);
    c.v = fetch(job, &k->w->v, k->head, &c, k->t.v, &c.v_step);
    return c;
}

bool linear_in_phases(const linear_job *job)
{
    return job->segments > 1 || job->form == SLG_LINEAR_FULL;
}

static void sum_segment(void *arg, int64_t number, int32_t worker)
{
    const linear_job *job = arg;
    const task k = task_of(job, number, worker);
    memset(k.state, 0, (size_t)(k.w->k.dim * k.w->v.dim) * sizeof *k.state);
    for (int64_t i = k.from; i < k.to; i++) {
        const chunk c = chunk_of(job, &k, i, false);
        absorb(job, k.w, &c, &k.t, k.state);
    }
}

/* From sums of segments to the states before them; of all, where every token sees all. */
static void join_segments(void *arg, int64_t number, int32_t worker)
{
    const linear_job *job = arg;
    const task k = task_of(job, number * job->segments, worker);
    const size_t n = (size_t)(k.w->k.dim * k.w->v.dim);
    double *state = k.t.state;
    state_read(k.w, k.head, state);
    for (int64_t i = 0; i < job->segments; i++) {
        const int64_t at = k.w->reverse ? job->segments - 1 - i : i;
        double *sum = k.state + (size_t)at * n;
        for (size_t j = 0; j < n; j++) {
            const double before = state[j];
            state[j] += sum[j];
            sum[j] = before;
        }
    }
    for (int64_t i = 0; i < job->segments && job->form == SLG_LINEAR_FULL; i++)
        memcpy(k.state + (size_t)i * n, state, n * sizeof *state);
    state_write(k.w, k.head, state);
}

static void emit_segment(void *arg, int64_t number, int32_t worker)
{
    const linear_job *job = arg;
    const task k = task_of(job, number, worker);
    const bool phases = linear_in_phases(job), out = k.w->o.rows.data;
    const size_t n = (size_t)(k.w->k.dim * k.w->v.dim);
    if (phases && !out) return;
    if (!phases) state_read(k.w, k.head, k.state);
    for (size_t j = 0; j < n; j++) k.t.s[j] = (float)k.state[j];
    for (int64_t i = k.from; i < k.to; i++) {
        const chunk c = chunk_of(job, &k, k.w->reverse ? k.from + k.to - 1 - i : i, out);
        const bool last = i + 1 == k.to && (phases || !k.w->final.rows.data);
        if (out) outputs(job, k.w, k.head, &c, &k.t);
        if (job->form != SLG_LINEAR_FULL && !last) absorb(job, k.w, &c, &k.t, k.state);
    }
    if (!phases) state_write(k.w, k.head, k.state);
}

static slg_status reserve(linear_job *job)
{
    slg_ctx *ctx = job->ctx;
    if (job->chunk > job->tokens) job->chunk = job->tokens > 0 ? job->tokens : 1;
    job->chunks = (job->tokens + job->chunk - 1) / job->chunk;
    const int64_t chunks = (MIN_SEGMENT + job->chunk - 1) / job->chunk; /* of a segment */
    job->segments = job->heads > 0 ? MOST_TASKS / job->heads : 1;
    if (job->segments > job->chunks / chunks) job->segments = job->chunks / chunks;
    if (job->segments < 1) job->segments = 1;
    for (int64_t i = 0; i < job->sweeps; i++) {
        const linear_sweep *w = &job->sweep[i];
        space unused;
        const size_t bytes = space_of(job, w, NULL, &unused);
        const size_t states = (size_t)(job->heads * job->segments);
        job->worker_bytes = bytes > job->worker_bytes ? bytes : job->worker_bytes;
        job->states[i] = NULL;
        if (!linear_in_phases(job)) continue;
        job->states[i] = arena_alloc(ctx, states, (size_t)(w->k.dim * w->v.dim) * 8);
        if (!job->states[i]) return SLG_ERR_MEMORY;
    }
    job->scratch = arena_alloc(ctx, (size_t)ctx->num_threads, job->worker_bytes);
    return job->scratch ? SLG_OK : SLG_ERR_MEMORY;
}

slg_status linear_run(linear_job *job)
{
    SLG_TRY(reserve(job));
    const int64_t heads = job->sweeps * job->heads, tasks = heads * job->segments;
    if (linear_in_phases(job)) {
        pool_run(job->ctx, tasks, sum_segment, job);
        pool_run(job->ctx, heads, join_segments, job);
    }
    pool_run(job->ctx, tasks, emit_segment, job);
    return SLG_OK;
}
