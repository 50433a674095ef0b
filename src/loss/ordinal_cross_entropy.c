/*
 * ordinal_cross_entropy.c - see ordinal.h. Rows are short, and of each only the label's two
 * boundaries count: they are gathered from some rows, then the kernel takes them side by side.
 * Where terms of all classes are wanted, rows go end to end between -inf and +inf, and each two
 * neighbours are a class.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "engine.h"
#include "softlogit/ordinal.h"

static const slg_ordinal_cross_entropy_opts defaults = {
    .size = sizeof(slg_ordinal_cross_entropy_opts),
    .reduction = SLG_MEAN,
};
static const slg_ordinal_terms no_terms = { .size = sizeof(slg_ordinal_terms) };

void slg_ordinal_cross_entropy_opts_init(slg_ordinal_cross_entropy_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

void slg_ordinal_terms_init(slg_ordinal_terms *terms, size_t size)
{
    options_init(terms, size, &no_terms, sizeof no_terms);
}

enum { CHUNK = 256 /* rows side by side, at most */, CLASSES = 4096 /* of them all */ };
enum { PROB, LOG_PROB, DIAGONAL, BESIDE, TERMS };

typedef struct job {
    const slg_ordinal_cross_entropy_opts *opts;
    slg_ordinal_terms terms;
    rows to[TERMS]; /* data NULL: not wanted */
    bool all;       /* some of them are */
    int64_t m, chunk, floats;
    float *scratch;      /* floats a worker */
    int64_t *infeasible; /* of each worker */
} job;

/* A worker's scratch. */
typedef struct desk {
    float *x, *slope, *d;                         /* [m] */
    float *a, *b, *log_p, *up, *down;             /* [chunk], of labels */
    float *row, *all_log, *p, *ups, *downs, *cut; /* [chunk, K + 1], of all classes */
} desk;

static desk desk_at(const job *j, int32_t worker)
{
    const int64_t whole = j->chunk * (j->m + 2);
    float *at = j->scratch + worker * j->floats;
    desk k = { .x = at, .slope = at + j->m, .d = at + 2 * j->m };
    at += 3 * j->m;
    k.a = at, k.b = at + j->chunk, k.log_p = at + 2 * j->chunk;
    k.up = at + 3 * j->chunk, k.down = at + 4 * j->chunk;
    at += 5 * j->chunk;
    if (!j->all) return k;
    k.row = at, k.all_log = at + whole, k.p = at + 2 * whole;
    k.ups = at + 3 * whole, k.downs = at + 4 * whole, k.cut = at + 5 * whole;
    return k;
}

/* ---- Rows ------------------------------------------------------------------------------- */

/* The label's boundaries, and the row where all are wanted. A NaN anywhere is the label's. */
static void gather(const loss_call *c, const job *j, const desk *k, int64_t r, int64_t i)
{
    const float *x = source_fetch(&c->src, r, 0, j->m, k->x);
    const float inv_t = (float)(1 / source_temperature(&c->src, r));
    const int64_t t = targets_index(&c->target, r), m = j->m;
    bool nan = false;
    for (int64_t l = 0; l < m; l++) nan = nan || isnan(x[l]);
    k->a[i] = t > 0 ? x[t - 1] * inv_t : -INFINITY;
    k->b[i] = t >= 0 && t < m ? x[t] * inv_t : INFINITY;
    if (nan) k->a[i] = NAN;
    if (!j->all) return;
    float *row = k->row + i * (m + 2);
    row[0] = -INFINITY, row[m + 1] = INFINITY;
    for (int64_t l = 0; l < m; l++) row[l + 1] = x[l] * inv_t;
}

static void put_row(const loss_call *c, const rows *to, int64_t r, const float *from)
{
    float scratch[KERNEL_BLOCK];
    for (int64_t col = 0; col < to->cols; col += KERNEL_BLOCK) {
        const int64_t n = to->cols - col < KERNEL_BLOCK ? to->cols - col : KERNEL_BLOCK;
        float *y = rows_stage(to, r, col, scratch);
        memcpy(y, from + col, (size_t)n * sizeof *y);
        rows_commit(&c->ctx->k, to, r, col, n, scratch);
    }
}

static void put_terms(const loss_call *c, const job *j, const desk *k, int64_t r, int64_t i)
{
    const int64_t m = j->m, at = i * (m + 2);
    const float *up = k->ups + at, *down = k->downs + at, *cut = k->cut + at;
    if (j->to[PROB].data) put_row(c, &j->to[PROB], r, k->p + at);
    if (j->to[LOG_PROB].data) put_row(c, &j->to[LOG_PROB], r, k->all_log + at);
    if (j->to[DIAGONAL].data) {
        for (int64_t l = 0; l < m; l++) k->slope[l] = cut[l] * (up[l] + down[l + 1]);
        put_row(c, &j->to[DIAGONAL], r, k->slope);
    }
    if (j->to[BESIDE].data && m > 1) {
        for (int64_t l = 0; l + 1 < m; l++) k->slope[l] = -cut[l] * up[l + 1];
        put_row(c, &j->to[BESIDE], r, k->slope);
    }
}

static void put_grad(const loss_call *c, const job *j, const desk *k, int64_t r, int64_t i)
{
    const int64_t t = targets_index(&c->target, r), m = j->m;
    const double mean = c->denominator > 0 ? 1 / c->denominator : 0;
    const double scale = c->gain * (c->reduction == SLG_MEAN ? mean : 1) *
                         targets_weight(&c->target, r) / source_temperature(&c->src, r);
    const bool bend = c->src.softcap > 0;
    if (bend) source_fetch_slope(&c->src, r, 0, m, k->x, k->slope);
    float *d = source_grad_stage(&c->src, &c->grad, r, 0, k->d);
    const bool nan = t >= 0 && isnan(k->log_p[i]);
    for (int64_t l = 0; l < m; l++) d[l] = nan ? NAN : 0;
    if (t > 0 && !nan) d[t - 1] = (float)(scale * (double)k->down[i]);
    if (t >= 0 && t < m && !nan) d[t] = (float)(-scale * (double)k->up[i]);
    source_grad_commit(&c->src, &c->grad, r, 0, m, bend ? k->slope : NULL, d, k->d);
}

typedef struct chunk_run {
    loss_call *call;
    int64_t first, count;
} chunk_run;

static void chunk_task(void *arg, int64_t task, int32_t worker)
{
    const chunk_run *run = arg;
    loss_call *c = run->call;
    const job *j = c->state;
    const desk k = desk_at(j, worker);
    const int64_t from = run->first + task * j->chunk, left = run->first + run->count - from;
    const int64_t n = left < j->chunk ? left : j->chunk;
    for (int64_t i = 0; i < n; i++) gather(c, j, &k, from + i, i);
    const ordinal_terms own = { .log_p = k.log_p, .up = k.up, .down = k.down };
    c->ctx->k.ordinal((size_t)n, k.a, k.b, &own);
    if (j->all) {
        const ordinal_terms every = { k.all_log, k.p, k.ups, k.downs, k.cut };
        c->ctx->k.ordinal((size_t)(n * (j->m + 2) - 1), k.row, k.row + 1, &every);
    }
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = from + i;
        const double loss = 0 - (double)k.log_p[i], w = targets_weight(&c->target, r);
        const bool ignored = targets_ignored(&c->target, r);
        c->loss[r] = ignored ? 0 : isnan(loss) ? loss : loss_term(w, loss);
        if (!ignored && isinf(loss)) j->infeasible[worker]++;
        if (j->all) put_terms(c, j, &k, r, i);
        if (c->grad.wanted) put_grad(c, j, &k, r, i);
    }
}

static void all_rows(loss_call *c, int64_t first, int64_t count)
{
    const job *j = c->state;
    chunk_run run = { c, first, count };
    pool_run(c->ctx, (count + j->chunk - 1) / j->chunk, chunk_task, &run);
}

/* ---- The call --------------------------------------------------------------------------- */

static slg_status open_terms(loss_call *c, job *j)
{
    static const char *const name[TERMS] = { "terms.prob", "terms.log_prob",
                                             "terms.fisher_diag", "terms.fisher_off" };
    const slg_ordinal_terms *t = &j->terms;
    const slg_tensor *all[TERMS] = { t->prob, t->log_prob, t->fisher_diag, t->fisher_off };
    const int64_t cols[TERMS] = { j->m + 1, j->m + 1, j->m, j->m > 0 ? j->m - 1 : 0 };
    for (int i = 0; i < TERMS; i++) {
        if (!all[i]) continue;
        const int64_t shape[2] = { c->src.rows, cols[i] };
        SLG_TRY(tensor_out(c->ctx, name[i], all[i], DT_ROW, 2, 2));
        SLG_TRY(tensor_shape_is(c->ctx, name[i], all[i], 2, shape));
        SLG_TRY(loss_open_apart(c, name[i], all[i]));
        for (int l = 0; l < i; l++)
            if (outputs_clash(all[i], all[l]))
                return slg_fail(c->ctx, SLG_ERR_STRIDE, "%s and %s overlap", name[l], name[i]);
        j->to[i] = rows_of(all[i]);
        j->all = j->all || tensor_size(all[i]) > 0;
    }
    return SLG_OK;
}

static slg_status open(loss_call *c)
{
    job *j = c->state = (job *)(uintptr_t)c->opts;
    slg_ctx *ctx = c->ctx;
    if (c->src.mask) return slg_fail(ctx, SLG_ERR_NULL, "logits.mask must be NULL");
    j->m = c->src.cols;
    SLG_TRY(open_terms(c, j));
    j->chunk = !j->all ? CHUNK : j->m < CLASSES ? CLASSES / (j->m + 2) + 1 : 1;
    if (j->chunk > CHUNK) j->chunk = CHUNK;
    j->floats = 3 * j->m + j->chunk * (5 + (j->all ? 6 * (j->m + 2) : 0));
    j->floats = (j->floats + 15) / 16 * 16;
    const size_t workers = (size_t)ctx->num_threads;
    j->scratch = arena_alloc(ctx, (size_t)j->floats * workers, sizeof *j->scratch);
    j->infeasible = arena_alloc(ctx, workers, sizeof *j->infeasible);
    if (!j->scratch || !j->infeasible) return SLG_ERR_MEMORY;
    memset(j->infeasible, 0, workers * sizeof *j->infeasible);
    return SLG_OK;
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT,
    .flags = LOSS_NO_LSE,
    .open = open,
    .rows = all_rows,
    .more_classes = 1,
};

static slg_status loss(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                       const slg_ordinal_cross_entropy_opts *opts, slg_loss_out *out,
                       slg_ordinal_terms *terms, slg_logits_grad *grad)
{
    slg_ordinal_cross_entropy_opts o = defaults;
    job j = { .opts = &o, .terms = no_terms };
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    if (terms) SLG_TRY(options_read(ctx, "terms", terms, &j.terms, sizeof j.terms));
    SLG_TRY(option_reserved(ctx, "terms.reserved", j.terms.reserved));
    SLG_TRY(loss_run(ctx, &method, &j, o.reduction, logits, targets, out, grad));
    j.terms.infeasible = 0;
    for (int32_t i = 0; i < ctx->num_threads; i++) j.terms.infeasible += j.infeasible[i];
    if (terms) options_write(terms, &j.terms, sizeof j.terms);
    return SLG_OK;
}

slg_status slg_ordinal_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                     const slg_targets *targets,
                                     const slg_ordinal_cross_entropy_opts *opts,
                                     slg_loss_out *out, slg_ordinal_terms *terms,
                                     slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_ordinal_cross_entropy");
    return op_end(ctx, loss(ctx, logits, targets, opts, out, terms, grad));
}
