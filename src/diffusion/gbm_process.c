/*
 * gbm_process.c - see gbm_process.h: options and checks.
 */
#include "gbm_process.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>

static const slg_gbm defaults = { .size = sizeof(slg_gbm), .sigma = 0.8, .mu = NAN };
static const slg_gbm_counts no_counts = { .size = sizeof(slg_gbm_counts) };

/* Rows as long as this make pieces of their own, so that t is one number in each. */
enum { LONG_ROW = 256, TASK_SIZE = 8 * PIECE_SIZE };

void slg_gbm_init(slg_gbm *process, size_t size)
{
    options_init(process, size, &defaults, sizeof defaults);
}

void slg_gbm_counts_init(slg_gbm_counts *counts, size_t size)
{
    options_init(counts, size, &no_counts, sizeof no_counts);
}

/* ---- Opening ----------------------------------------------------------------------------- */

static slg_status vector_in(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t size,
                            const double **at)
{
    SLG_TRY(tensor_in(ctx, name, t, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &size));
    double *v = arena_alloc(ctx, (size_t)size, sizeof *v);
    if (!v) return SLG_ERR_MEMORY;
    rows m = rows_of(t);
    for (int64_t i = 0; i < size; i++) v[i] = rows_get(&m, 0, i);
    *at = v;
    return SLG_OK;
}

/* of: "", or " at column 3". */
static slg_status check_parameters(slg_ctx *ctx, const char *of, double sigma, double mu,
                                   bool positive)
{
    if (!isfinite(sigma) || sigma < 0 || (positive && sigma == 0))
        return slg_fail(ctx, SLG_ERR_RANGE, "sigma%s is %g, must be finite and %s", of, sigma,
                        positive ? "> 0" : ">= 0");
    if (!isfinite(mu))
        return slg_fail(ctx, SLG_ERR_RANGE, "mu%s is %g, must be finite", of, mu);
    return SLG_OK;
}

static slg_status check_column(slg_ctx *ctx, int64_t j, double sigma, double mu, bool positive)
{
    char of[32];
    snprintf(of, sizeof of, " of column %lld", (long long)j);
    return check_parameters(ctx, of, sigma, mu, positive);
}

static slg_status read_columns(slg_ctx *ctx, const slg_gbm *o, bool positive, motion *p)
{
    const bool drift = !isnan(o->mu); /* else sigma^2 / 2 of the column */
    const double *sigmas = NULL, *mus = NULL;
    if (o->sigma_columns)
        SLG_TRY(vector_in(ctx, "sigma_columns", o->sigma_columns, p->cols, &sigmas));
    if (o->mu_columns) SLG_TRY(vector_in(ctx, "mu_columns", o->mu_columns, p->cols, &mus));
    if (!sigmas && !mus) {
        p->sigma = o->sigma, p->mu = drift ? o->mu : 0.5 * o->sigma * o->sigma;
        return check_parameters(ctx, "", p->sigma, p->mu, positive);
    }
    double *both = arena_alloc(ctx, (size_t)p->cols, 2 * sizeof *both);
    if (!both) return SLG_ERR_MEMORY;
    for (int64_t j = 0; j < p->cols; j++) {
        const double sigma = sigmas ? sigmas[j] : o->sigma;
        const double mu = mus ? mus[j] : drift ? o->mu : 0.5 * sigma * sigma;
        SLG_TRY(check_column(ctx, j, sigma, mu, positive));
        both[j] = sigma, both[p->cols + j] = mu;
    }
    p->sigmas = both, p->mus = both + p->cols;
    return SLG_OK;
}

static slg_status read_times(slg_ctx *ctx, const slg_tensor *t, motion *p)
{
    SLG_TRY(vector_in(ctx, "t", t, p->rows, &p->t));
    for (int64_t i = 0; i < p->rows; i++)
        if (!(p->t[i] >= 0) || !isfinite(p->t[i]))
            return slg_fail(ctx, SLG_ERR_RANGE, "t is %g at row %lld, must be >= 0 and finite",
                            p->t[i], (long long)i);
    return SLG_OK;
}

static slg_status take_scratch(slg_ctx *ctx, motion *p)
{
    p->workers = ctx->num_threads;
    const size_t workers = (size_t)p->workers;
    p->scratch = arena_alloc(ctx, workers * PIECE_BUFFERS * PIECE_SIZE, sizeof *p->scratch);
    p->lost = arena_alloc(ctx, workers * COUNT_GAP, sizeof *p->lost);
    if (!p->scratch || !p->lost) return SLG_ERR_MEMORY;
    for (size_t i = 0; i < workers * COUNT_GAP; i++) p->lost[i] = 0;
    return SLG_OK;
}

slg_status process_open(slg_ctx *ctx, const slg_gbm *given, const char *name,
                        const slg_tensor *x, const slg_tensor *t, bool positive, motion *p)
{
    slg_gbm o = defaults;
    SLG_TRY(options_read(ctx, "process", given, &o, sizeof o));
    SLG_TRY(option_choice(ctx, "log_state", o.log_state, 0, 1));
    SLG_TRY(tensor_in(ctx, name, x, DT_ROW, 2, 2));
    op_detail(ctx, x);
    *p = (motion){
        .k = &ctx->k, .rows = x->shape[0], .cols = x->shape[1], .log_state = o.log_state
    };
    SLG_TRY(read_columns(ctx, &o, positive, p));
    if (t) SLG_TRY(read_times(ctx, t, p));
    p->piece_rows = p->cols >= LONG_ROW || p->cols == 0 ? 1 : PIECE_SIZE / p->cols;
    p->parts = p->cols >= LONG_ROW ? (p->cols + PIECE_SIZE - 1) / PIECE_SIZE : 1;
    return take_scratch(ctx, p);
}

/* ---- Running ----------------------------------------------------------------------------- */

typedef struct piece_run {
    const motion *p;
    piece_fn fn;
    void *arg;
    int64_t pieces, task_pieces;
} piece_run;

static piece piece_at(const motion *p, int64_t number, int32_t worker)
{
    piece q = { .number = number, .worker = worker };
    q.row = number / p->parts * p->piece_rows;
    q.rows = p->rows - q.row < p->piece_rows ? p->rows - q.row : p->piece_rows;
    q.col = number % p->parts * PIECE_SIZE;
    q.cols = p->parts > 1 && p->cols - q.col > PIECE_SIZE ? PIECE_SIZE : p->cols - q.col;
    q.n = (size_t)(q.rows * q.cols);
    return q;
}

static void run_task(void *arg, int64_t task, int32_t worker)
{
    const piece_run *r = arg;
    const int64_t first = task * r->task_pieces;
    const fp_mode mode = fp_enter_ieee();
    for (int64_t i = first; i < r->pieces && i < first + r->task_pieces; i++) {
        const piece q = piece_at(r->p, i, worker);
        r->fn(r->arg, r->p, &q);
    }
    fp_leave(mode);
}

void process_run(slg_ctx *ctx, const motion *p, piece_fn fn, void *arg)
{
    const int64_t groups = (p->rows + p->piece_rows - 1) / p->piece_rows;
    const int64_t wide = p->cols < PIECE_SIZE ? p->piece_rows * p->cols : PIECE_SIZE;
    piece_run r = { p, fn, arg, groups * p->parts,
                    wide > 0 ? (TASK_SIZE + wide - 1) / wide : 1 };
    if (p->cols == 0) r.task_pieces = TASK_SIZE;
    pool_run(ctx, (r.pieces + r.task_pieces - 1) / r.task_pieces, run_task, &r);
}

/* ---- Domains ----------------------------------------------------------------------------- */

typedef struct domain_job {
    rows x;
    atomic_bool bad;
} domain_job;

static void check_piece(void *arg, const motion *p, const piece *q)
{
    domain_job *j = arg;
    const float *x = piece_fetch(p, &j->x, q, piece_buffer(p, q, 0));
    if (!(p->log_state ? p->k->finite(q->n, x) : p->k->positive(q->n, x)))
        atomic_store_explicit(&j->bad, true, memory_order_relaxed);
}

slg_status process_domain(slg_ctx *ctx, const motion *p, const char *name, const slg_tensor *x)
{
    domain_job j = { .x = rows_of(x) };
    process_run(ctx, p, check_piece, &j);
    if (!atomic_load(&j.bad)) return SLG_OK;
    int64_t row = 0, col = 0, count = 0;
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t c = 0; c < p->cols; c++) {
            const double v = rows_get(&j.x, r, c);
            if (isfinite(v) && (v > 0 || p->log_state)) continue;
            if (count++ == 0) row = r, col = c;
            break;
        }
    return slg_fail(
        ctx, SLG_ERR_RANGE,
        "%s is %g at row %lld, column %lld, must be %sfinite: %lld of %lld rows have "
        "such elements",
        name, rows_get(&j.x, row, col), (long long)row, (long long)col,
        p->log_state ? "" : "positive and ", (long long)count, (long long)p->rows);
}

/* ---- Operands ---------------------------------------------------------------------------- */

slg_status process_operands(slg_ctx *ctx, const char *like_name, const slg_tensor *like,
                            size_t ins, const operand *in, size_t outs, const operand *out)
{
    for (size_t i = 0; i < ins; i++) {
        if (!in[i].t) continue;
        SLG_TRY(tensor_in(ctx, in[i].name, in[i].t, DT_ROW, 2, 2));
        SLG_TRY(tensor_same_shape(ctx, in[i].name, in[i].t, like_name, like));
    }
    for (size_t i = 0; i < outs; i++) {
        if (!out[i].t) continue;
        SLG_TRY(tensor_out(ctx, out[i].name, out[i].t, DT_ROW, 2, 2));
        SLG_TRY(tensor_same_shape(ctx, out[i].name, out[i].t, like_name, like));
        if (tensor_size(out[i].t) == 0) continue;
        for (size_t j = 0; j < ins + i; j++) {
            const operand *other = j < ins ? &in[j] : &out[j - ins];
            const bool may_be = j < ins && (out[i].over >> j & 1);
            if (!other->t) continue;
            if (tensor_clash(out[i].t, other->t) ||
                (!may_be && out[i].t->data == other->t->data))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", out[i].name,
                                other->name);
        }
    }
    return SLG_OK;
}

slg_status process_apart(slg_ctx *ctx, const char *name, const slg_tensor *in, size_t outs,
                         const operand *out)
{
    for (size_t i = 0; i < outs; i++)
        if (tensor_clash(out[i].t, in) ||
            (out[i].t && tensor_size(in) > 0 && tensor_size(out[i].t) > 0 &&
             out[i].t->data == in->data))
            return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", out[i].name, name);
    return SLG_OK;
}

slg_status denoised_check(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *x0,
                          const slg_tensor *z, bool need_x)
{
    if (z && x0) return slg_fail(ctx, SLG_ERR_OPTIONS, "z and x0 are given, must be one");
    if (!z && !x0) return slg_fail(ctx, SLG_ERR_NULL, "z and x0 are NULL");
    if ((need_x || !z) && !x) return slg_fail(ctx, SLG_ERR_NULL, "x is NULL");
    return SLG_OK;
}

slg_status denoised_open(slg_ctx *ctx, const motion *p, const slg_tensor *x,
                         const slg_tensor *x0, const slg_tensor *z, denoised *d)
{
    *d = (denoised){ .given = z };
    if (x) SLG_TRY(process_domain(ctx, p, "x", x));
    if (x0) SLG_TRY(process_domain(ctx, p, "x0", x0));
    if (z) d->z = rows_of(z);
    if (x) d->x = rows_of(x);
    if (x0) d->x0 = rows_of(x0);
    return SLG_OK;
}

slg_status process_row_output(slg_ctx *ctx, const motion *p, const char *name,
                              const slg_tensor *t)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(ctx, name, t, DT_F32 | DT_F64, 1, 1));
    return tensor_shape_is(ctx, name, t, 1, &p->rows);
}

slg_status process_noise(slg_ctx *ctx, const slg_tensor *z, const slg_rng *rng, bool needed)
{
    if (z && rng) return slg_fail(ctx, SLG_ERR_OPTIONS, "z and rng are given, must be one");
    if (needed && !z && !rng) return slg_fail(ctx, SLG_ERR_NULL, "z and rng are NULL");
    return SLG_OK;
}

/* ---- Results ----------------------------------------------------------------------------- */

slg_status counts_check(slg_ctx *ctx, const slg_gbm_counts *counts)
{
    size_t size;
    return counts ? options_size(ctx, "counts", counts, &size) : SLG_OK;
}

void counts_write(const motion *p, slg_gbm_counts *counts)
{
    slg_gbm_counts out = no_counts;
    for (int32_t w = 0; w < p->workers; w++) {
        out.saturated += p->lost[w * COUNT_GAP];
        out.sign_changes += p->lost[w * COUNT_GAP + 1];
    }
    if (counts) options_write(counts, &out, sizeof out);
}

double *process_sums(slg_ctx *ctx, const motion *p)
{
    return arena_alloc(ctx, (size_t)(p->rows * p->parts), sizeof(double));
}

void process_rows_out(const motion *p, const double *sums, int32_t reduction,
                      const slg_tensor *loss, double *value)
{
    rows out = { 0 };
    double total = 0;
    if (loss) out = rows_of(loss);
    for (int64_t i = 0; i < p->rows; i++) {
        double row = 0;
        for (int64_t j = 0; j < p->parts; j++) row += sums[i * p->parts + j];
        if (loss) rows_put(&out, 0, i, row);
        total += row;
    }
    if (reduction == SLG_MEAN && p->rows > 0) total /= (double)p->rows;
    if (value) *value = total;
}
