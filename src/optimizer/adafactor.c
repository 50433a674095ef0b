/*
 * adafactor.c - Adafactor: see optimizer.h. A tensor is cut into tiles, by its shape alone, so
 * that sums over rows and columns and their order do not depend on threads. A step goes over
 * the tiles of all tensors together: squares by rows and by columns; R and C from them; the
 * size of the update; the update.
 */
#include <math.h>
#include <string.h>

#include "core/arena.h"
#include "core/pool.h"
#include "handle.h"

static const slg_adafactor_opts defaults = { .size = sizeof(slg_adafactor_opts),
                                             .relative_step = 1,
                                             .scale_parameter = 1,
                                             .lr = 1e-2,
                                             .decay_rate = 0.8,
                                             .eps1 = 1e-30,
                                             .eps2 = 1e-3,
                                             .clip_threshold = 1 };

void slg_adafactor_opts_init(slg_adafactor_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status open(slg_ctx *ctx, const void *opts, rule_opts *out)
{
    slg_adafactor_opts *o = &out->adafactor;
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "relative_step", o->relative_step, 0, 1));
    SLG_TRY(option_choice(ctx, "scale_parameter", o->scale_parameter, 0, 1));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(rule_rates(ctx, o->lr, o->weight_decay));
    SLG_TRY(rule_below(ctx, "beta1", o->beta1, 0, 1));
    SLG_TRY(option_range(ctx, "decay_rate", o->decay_rate, 0, 1));
    SLG_TRY(rule_below(ctx, "eps1", o->eps1, 1e-30, RATE_MAX));
    SLG_TRY(rule_below(ctx, "eps2", o->eps2, 0, RATE_MAX));
    if (o->clip_threshold >= 1e-30) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "clip_threshold is %g, must be at least 1e-30",
                    o->clip_threshold);
}

RULE_FIELDS(adafactor)

/* ---- State ------------------------------------------------------------------------------- */

/* R, or all of v where it is not factored; C; the first moment. */
enum { ROWS, COLUMNS, MOMENT };

static uint32_t arrays(const rule_opts *o)
{
    return 1u << ROWS | 1u << COLUMNS | (o->adafactor.beta1 > 0 ? 1u << MOMENT : 0);
}

/* With one row or one column v is R or C itself: kept whole, as of a vector. */
static bool is_factored(int64_t n, int64_t rows) { return rows > 1 && n > rows; }

static int64_t length(int32_t array, int64_t n, int64_t rows)
{
    if (array == MOMENT || !is_factored(n, rows)) return array == COLUMNS ? 0 : n;
    return array == ROWS ? rows : n / rows;
}

/* ---- A step ------------------------------------------------------------------------------ */

typedef struct step_scalars {
    double rate, decay;
    double fresh; /* 1 - beta2 of the step */
} step_scalars;

static void prepare(const rule_opts *opts, int64_t t, double memory, rule_args *args)
{
    step_scalars *s = (step_scalars *)args->kernel;
    args->decay = 0;
    s->rate = opts->adafactor.lr * memory;
    s->decay = opts->adafactor.weight_decay;
    s->fresh = pow((double)t, -opts->adafactor.decay_rate);
}

/* The factor that the relative step puts on the rate: a group's comes on top of it. */
static double advance(const rule_opts *opts, int64_t t, double memory)
{
    const double root = sqrt((double)t), lr = opts->adafactor.lr;
    (void)memory;
    return opts->adafactor.relative_step && lr * root > 1 ? 1 / (lr * root) : 1;
}

/* A tensor and its tiles: number first + block * strips + strip has `height` rows from block
   * height, `width` columns from strip * width. A vector is one row. */
typedef struct matrix {
    const step_tensor *t;
    update_grad grad;
    bool factored;
    int64_t rows, cols;
    int64_t height, width, blocks, strips, first;
    float *r, *v;        /* R, C; a vector: v alone */
    char *moment;        /* NULL: none */
    double *row_sums;    /* [strips, rows] */
    double *column_sums; /* [blocks, cols] */
    double fresh, mean;  /* mean of R */
    double step, clip;
} matrix;

typedef struct factoring {
    const slg_optimizer *o;
    matrix *matrices;
    int64_t count, tiles;
    int32_t *owner;    /* matrix of a tile */
    double (*sums)[2]; /* of a tile */
    uint32_t key;
} factoring;

typedef struct tile {
    matrix *m;
    int64_t block, strip, row, rows, col, cols;
} tile;

static int64_t ceil_of(int64_t a, int64_t b) { return a / b + (a % b != 0); }

static tile tile_at(const factoring *f, int64_t task)
{
    matrix *m = &f->matrices[f->owner[task]];
    tile t = { .m = m,
               .block = (task - m->first) / m->strips,
               .strip = (task - m->first) % m->strips };
    t.row = t.block * m->height, t.col = t.strip * m->width;
    t.rows = m->rows - t.row < m->height ? m->rows - t.row : m->height;
    t.cols = m->cols - t.col < m->width ? m->cols - t.col : m->width;
    return t;
}

/* At least 8 rows a tile and at most 64 blocks of rows: column sums are then at most a quarter
   of the weights' bytes, and few for each task to add up. More rows would make strips that
   memory gives more slowly. */
enum { LEAST_ROWS = 8, MOST_BLOCKS = 64 };

static slg_status cut(slg_ctx *ctx, factoring *f, matrix *m)
{
    const int64_t least = m->rows < LEAST_ROWS ? m->rows : LEAST_ROWS, most = PIECE / least;
    m->width = m->cols < most ? m->cols : most;
    m->strips = ceil_of(m->cols, m->width);
    m->height = ceil_of(PIECE, m->width);
    if (m->height < ceil_of(m->rows, MOST_BLOCKS)) m->height = ceil_of(m->rows, MOST_BLOCKS);
    m->blocks = ceil_of(m->rows, m->height);
    m->first = f->tiles;
    f->tiles += m->blocks * m->strips;
    if (!m->factored) return SLG_OK;
    m->row_sums = arena_alloc(ctx, (size_t)(m->strips * m->rows), sizeof *m->row_sums);
    m->column_sums = arena_alloc(ctx, (size_t)(m->blocks * m->cols), sizeof *m->column_sums);
    return m->row_sums && m->column_sums ? SLG_OK : SLG_ERR_MEMORY;
}

/* Where the state of a tensor is, tensors that are left alone included. */
static slg_status gather(slg_optimizer *o, const step_pieces *p, factoring *f)
{
    size_t at[STATE_ARRAYS_MAX] = { 0 };
    f->matrices = arena_alloc(o->ctx, (size_t)p->count, sizeof *f->matrices);
    if (!f->matrices) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < p->count; i++) {
        const step_tensor *t = &p->tensors[i];
        const bool factored = is_factored(t->n, t->rows);
        if (takes_part(t, 0) && t->n > 0) {
            const rule_args *args = t->args;
            matrix *m = &f->matrices[f->count++];
            *m = (matrix){ .t = t,
                           .grad = chain_fold(&t->map, args->decay),
                           .factored = factored,
                           .rows = factored ? t->rows : 1,
                           .cols = factored ? t->n / t->rows : t->n,
                           .fresh = ((const step_scalars *)args->kernel)->fresh,
                           .clip = 1 };
            m->r = (float *)o->state[ROWS] + at[ROWS];
            m->v = factored ? (float *)o->state[COLUMNS] + at[COLUMNS] : m->r;
            if (o->state[MOMENT])
                m->moment = o->state[MOMENT] + at[MOMENT] * state_item(o, MOMENT);
            SLG_TRY(cut(o->ctx, f, m));
        }
        for (int32_t a = 0; a < STATE_ARRAYS_MAX; a++)
            at[a] += (size_t)length(a, t->n, t->rows);
    }
    f->owner = arena_alloc(o->ctx, (size_t)f->tiles, sizeof *f->owner);
    f->sums = arena_alloc(o->ctx, (size_t)f->tiles, sizeof *f->sums);
    if (!f->owner || !f->sums) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < f->count; i++)
        for (int64_t j = 0; j < f->matrices[i].blocks * f->matrices[i].strips; j++)
            f->owner[f->matrices[i].first + j] = (int32_t)i;
    return SLG_OK;
}

/* ---- Passes ------------------------------------------------------------------------------ */

/* Squares: of the gradient by rows and by columns, and of the weights, into sums[1]. A vector's
   v is there at once, and the squares of its update are sums[0]. */
static void squares_task(void *arg, int64_t task, int32_t worker)
{
    const factoring *f = arg;
    const tile t = tile_at(f, task);
    const matrix *m = t.m;
    const kernel_table *k = &f->o->ctx->k;
    const slg_adafactor_opts *opts = &f->o->opts.adafactor;
    const bool weights = opts->scale_parameter || !m->grad.plain;
    double *sums = f->sums[task];
    (void)worker;
    if (!m->factored) {
        k->factor_full((size_t)t.cols, weights ? m->t->w + t.col : NULL, m->t->dw + t.col,
                       &m->grad, (float)opts->eps1, (float)m->fresh, m->v + t.col, sums);
        return;
    }
    double *columns = m->column_sums + t.block * m->cols + t.col;
    sums[0] = sums[1] = 0;
    memset(columns, 0, (size_t)t.cols * sizeof *columns);
    for (int64_t i = t.row; i < t.row + t.rows; i++) {
        const int64_t at = i * m->cols + t.col;
        double row[2];
        k->factor_squares((size_t)t.cols, weights ? m->t->w + at : NULL, m->t->dw + at,
                          &m->grad, columns, row);
        m->row_sums[t.strip * m->rows + i] = row[0];
        sums[1] += row[1];
    }
}

/* An average with a new value. */
static float moved(float old, double value, double fresh)
{
    return (float)((1 - fresh) * (double)old + fresh * value);
}

/* R of a block of rows, and its sum into sums[0]; C of a strip of columns. */
static void join_task(void *arg, int64_t task, int32_t worker)
{
    const factoring *f = arg;
    const tile t = tile_at(f, task);
    const matrix *m = t.m;
    const double eps = f->o->opts.adafactor.eps1;
    (void)worker;
    if (!m->factored) return;
    for (int64_t i = t.row; t.strip == 0 && i < t.row + t.rows; i++) {
        double sum = 0;
        for (int64_t s = 0; s < m->strips; s++) sum += m->row_sums[s * m->rows + i];
        m->r[i] = moved(m->r[i], sum / (double)m->cols + eps, m->fresh);
        f->sums[task][0] += (double)m->r[i];
    }
    if (t.block > 0) return;
    double *total = m->column_sums + t.col;
    for (int64_t b = 1; b < m->blocks; b++)
        for (int64_t j = 0; j < t.cols; j++) total[j] += total[b * m->cols + j];
    for (int64_t j = 0; j < t.cols; j++)
        m->v[t.col + j] = moved(m->v[t.col + j], total[j] / (double)m->rows + eps, m->fresh);
}

/* 1 / sqrt(R / mean R), over what clips the update. */
static float row_factor(const matrix *m, int64_t row)
{
    return (float)((m->factored ? sqrt(m->mean / (double)m->r[row]) : 1) / m->clip);
}

/* The squares of the update, into sums[0]. */
static void norm_task(void *arg, int64_t task, int32_t worker)
{
    const factoring *f = arg;
    const tile t = tile_at(f, task);
    const matrix *m = t.m;
    (void)worker;
    if (!m->factored) return;
    f->sums[task][0] = 0;
    for (int64_t i = t.row; i < t.row + t.rows; i++) {
        const int64_t at = i * m->cols + t.col;
        f->sums[task][0] +=
            f->o->ctx->k.factor_norm((size_t)t.cols, m->grad.plain ? NULL : m->t->w + at,
                                     m->t->dw + at, &m->grad, row_factor(m, i), m->v + t.col);
    }
}

static void update_task(void *arg, int64_t task, int32_t worker)
{
    const factoring *f = arg;
    const slg_optimizer *o = f->o;
    const tile t = tile_at(f, task);
    const matrix *m = t.m;
    const rule_args *args = m->t->args;
    const double beta1 = o->opts.adafactor.beta1;
    const double decay = ((const step_scalars *)args->kernel)->decay;
    factor_arg a = { .shrink = (float)(m->step * decay),
                     .step = (float)m->step,
                     .beta1 = (float)beta1,
                     .one_beta1 = (float)(1 - beta1) };
    (void)worker;
    for (int64_t i = t.row; i < t.row + t.rows; i++) {
        const size_t at = (size_t)(i * m->cols + t.col);
        update_part part = { .half = o->setup.state_dtype == SLG_BF16,
                             .first = (uint32_t)((size_t)m->t->offset + at),
                             .key = f->key,
                             .grad = m->grad };
        part.state[0] = m->v + t.col;
        if (m->moment) part.state[1] = m->moment + at * state_item(o, MOMENT);
        a.row = row_factor(m, i);
        o->ctx->k.factor_step((size_t)t.cols, m->t->w + at, m->t->dw + at, &part, &a);
    }
}

static double sum_of(const factoring *f, const matrix *m, int which)
{
    double sum = 0;
    for (int64_t i = 0; i < m->blocks * m->strips; i++) sum += f->sums[m->first + i][which];
    return sum;
}

/* At least `least`; a NaN stays. */
static double not_below(double a, double least) { return a <= least ? least : a; }

static slg_status step(slg_optimizer *o, const step_pieces *p, uint32_t key)
{
    const slg_adafactor_opts *opts = &o->opts.adafactor;
    const bool clips = isfinite(opts->clip_threshold);
    factoring f = { .o = o, .key = key };
    SLG_TRY(gather(o, p, &f));
    pool_run(o->ctx, f.tiles, squares_task, &f);
    pool_run(o->ctx, f.tiles, join_task, &f);
    for (int64_t i = 0; i < f.count; i++) {
        matrix *m = &f.matrices[i];
        const rule_args *args = m->t->args;
        const double rms = sqrt(sum_of(&f, m, 1) / (double)m->t->n);
        m->step = ((const step_scalars *)args->kernel)->rate;
        if (opts->scale_parameter) m->step *= not_below(rms, opts->eps2);
        if (m->factored) m->mean = sum_of(&f, m, 0) / (double)m->rows;
    }
    if (clips) pool_run(o->ctx, f.tiles, norm_task, &f);
    for (int64_t i = 0; i < f.count && clips; i++) {
        matrix *m = &f.matrices[i];
        const double rms = sqrt(sum_of(&f, m, 0) / (double)m->t->n);
        m->clip = not_below(rms / opts->clip_threshold, 1);
    }
    pool_run(o->ctx, f.tiles, update_task, &f);
    return SLG_OK;
}

static const whole_rule whole = { .wide = 1u << ROWS | 1u << COLUMNS,
                                  .length = length,
                                  .step = step };

const rule rule_adafactor = { .kind = SLG_ADAFACTOR,
                              .name = "adafactor",
                              .open = open,
                              .arrays = arrays,
                              .lr = lr,
                              .decay = decay,
                              .prepare = prepare,
                              .advance = advance,
                              .whole = &whole };
