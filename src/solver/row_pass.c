/*
 * row_pass.c - see row_pass.h.
 */
#include "row_pass.h"

#include <string.h>

enum {
    LINE = 64,
    BLOCK_BYTES = 3 << 17, /* of data in a block: with what it is multiplied with, in the L2 */
    MOST_ROWS = 256,
    MOST_TASKS = 32
};

/* ---- Data ------------------------------------------------------------------------------- */

static int64_t padded(int64_t d, int32_t dtype)
{
    const int64_t line = LINE / (int64_t)dtype_size(dtype);
    return ((d + line - 1) / line | 1) * line;
}

typedef struct copying {
    const kernel_table *k;
    rows from;
    const row_data *to;
    int64_t ranges;
    bool ones;
} copying;

static void copy_floats(const copying *c, int64_t i)
{
    const int64_t cols = c->from.cols;
    float *row = (float *)c->to->x + i * c->to->ld;
    const float *x = rows_fetch(c->k, &c->from, i, 0, cols, row);
    if (x != row) memcpy(row, x, (size_t)cols * sizeof *row);
    for (int64_t j = cols; j < c->to->ld; j++) row[j] = c->ones && j == cols;
}

static void copy_doubles(const copying *c, int64_t i)
{
    const int64_t cols = c->from.cols;
    double *row = (double *)c->to->x + i * c->to->ld;
    if (c->from.dtype == SLG_F64 && c->from.col_stride == 1)
        memcpy(row, rows_at(&c->from, i), (size_t)cols * sizeof *row);
    else
        for (int64_t j = 0; j < cols; j++) row[j] = rows_get(&c->from, i, j);
    for (int64_t j = cols; j < c->to->ld; j++) row[j] = c->ones && j == cols;
}

static void copy_task(void *arg, int64_t task, int32_t worker)
{
    const copying *c = arg;
    const int64_t end = pool_range_start(c->to->n, c->ranges, task + 1);
    (void)worker;
    for (int64_t i = pool_range_start(c->to->n, c->ranges, task); i < end; i++)
        if (c->to->dtype == SLG_F32)
            copy_floats(c, i);
        else
            copy_doubles(c, i);
}

slg_status row_data_copy(slg_ctx *ctx, const char *name, const slg_tensor *t, bool ones,
                         int32_t dtype, row_data *to)
{
    SLG_TRY(tensor_in(ctx, name, t, DT_ROW | DT_F64, 2, 2));
    const int64_t n = t->shape[0], d = t->shape[1];
    if (n < 1 || d < 1 || d >= INT32_MAX || n > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_SHAPE, "%s is %lld x %lld, must have from 1 to 2^31 - 2",
                        name, (long long)n, (long long)d);
    op_detail(ctx, t);
    if (dtype < 0) dtype = t->dtype == SLG_F64 ? SLG_F64 : SLG_F32;
    *to = (row_data){ .n = n, .d = d + ones, .dtype = dtype };
    to->ld = padded(to->d, dtype);
    int64_t bytes;
    if (__builtin_mul_overflow(n, to->ld * (int64_t)dtype_size(dtype), &bytes))
        return slg_fail(ctx, SLG_ERR_MEMORY,
                        "%lld x %lld numbers are more than memory can hold", (long long)n,
                        (long long)d);
    to->x = ctx_alloc(ctx, (size_t)bytes);
    if (!to->x) return SLG_ERR_MEMORY;
    copying c = { .k = &ctx->k, .from = rows_of(t), .to = to, .ones = ones };
    c.ranges = pool_ranges(ctx, n, (1 << 16) / to->ld + 1);
    pool_run(ctx, c.ranges, copy_task, &c);
    return SLG_OK;
}

const double *row_data_doubles(const row_data *r, int64_t first, int64_t count, double *scratch)
{
    if (r->dtype == SLG_F64) return (const double *)r->x + first * r->ld;
    const float *x = (const float *)r->x + first * r->ld;
    for (int64_t i = 0; i < count * r->ld; i++) scratch[i] = (double)x[i];
    return scratch;
}

/* ---- The pass --------------------------------------------------------------------------- */

typedef struct pass_run {
    row_pass *p;
    int64_t block, z_ld; /* rows of a block; z's row stride */
    int64_t each;        /* doubles of a worker's scratch */
    const void *w;       /* [k, ld] of the products' type */
    double *scratch;     /* [workers, each] */
} pass_run;

static void widen(int64_t k, int64_t n, int64_t ld, const float *x, double *y)
{
    for (int64_t c = 0; c < k; c++)
        for (int64_t i = 0; i < n; i++) y[c * ld + i] = (double)x[c * ld + i];
}

static void narrow(int64_t k, int64_t n, int64_t ld, const double *x, float *y)
{
    for (int64_t c = 0; c < k; c++)
        for (int64_t i = 0; i < n; i++) y[c * ld + i] = (float)x[c * ld + i];
}

static void dots(const row_pass *p, const row_products *t)
{
    const kernel_table *k = &p->ctx->k;
    if (p->data->dtype == SLG_F64)
        k->row_dots_f64(t);
    else if (p->single)
        k->row_dots_f32(t);
    else
        k->row_dots_wide(t);
}

static void sums(const row_pass *p, const row_products *t)
{
    const kernel_table *k = &p->ctx->k;
    if (p->data->dtype == SLG_F64)
        k->row_sums_f64(t);
    else if (p->single)
        k->row_sums_f32(t);
    else
        k->row_sums_wide(t);
}

/* One block, from the row `first` of the data; the next one is fetched meanwhile. */
static void pass_block(const pass_run *r, row_block *b, float *few)
{
    const row_pass *p = r->p;
    const row_data *x = p->data;
    row_products t = { .rows = (size_t)b->count,
                       .k = (size_t)p->k,
                       .dim = (size_t)x->ld,
                       .x = (const char *)x->x +
                            (size_t)(b->first * x->ld) * dtype_size(x->dtype),
                       .ldx = x->ld,
                       .w = r->w,
                       .ldw = x->ld,
                       .out = p->single ? (void *)few : (void *)b->z,
                       .ldo = r->z_ld };
    if (b->first + 2 * r->block <= x->n) t.ahead = r->block * x->ld;
    dots(p, &t);
    if (p->single) widen(p->k, b->count, r->z_ld, few, b->z);
    p->fn(p, b);
    if (!p->back) return;
    if (p->single) narrow(p->k, b->count, r->z_ld, b->z, few);
    t.w = t.out, t.ldw = r->z_ld, t.out = b->part, t.ldo = x->ld;
    sums(p, &t);
}

static void pass_task(void *arg, int64_t task, int32_t worker)
{
    const pass_run *r = arg;
    const row_pass *p = r->p;
    const int64_t size = p->k * r->z_ld, blocks = (p->data->n + r->block - 1) / r->block,
                  end = pool_range_start(blocks, p->tasks, task + 1);
    double *scratch = r->scratch + worker * r->each;
    float *few = (float *)(void *)(scratch + size + PASS_SCRATCH * r->z_ld);
    row_block b = { .fresh = true,
                    .ld = r->z_ld,
                    .z = scratch,
                    .scratch = scratch + size,
                    .sums = p->sums + task * PASS_SUMS,
                    .part = p->back ? p->parts + task * p->k * p->data->ld : NULL,
                    .part_ld = p->data->ld };
    memset(b.sums, 0, PASS_SUMS * sizeof *b.sums);
    if (b.part) memset(b.part, 0, (size_t)(p->k * p->data->ld) * sizeof *b.part);
    for (int64_t i = pool_range_start(blocks, p->tasks, task); i < end; i++, b.fresh = false) {
        b.first = i * r->block;
        b.count = p->data->n - b.first < r->block ? p->data->n - b.first : r->block;
        pass_block(r, &b, few);
    }
}

/* w with rows as long as those of the data. */
static void *pack_weights(const row_pass *p)
{
    const int64_t d = p->data->d, ld = p->data->ld;
    double *to = arena_alloc(p->ctx, (size_t)p->k, (size_t)ld * sizeof *to);
    float *few = (float *)(void *)to;
    for (int64_t c = 0; to && c < p->k; c++)
        for (int64_t j = 0; j < ld; j++) {
            const double v = j < d ? p->w[c * d + j] : 0;
            if (p->single)
                few[c * ld + j] = (float)v;
            else
                to[c * ld + j] = v;
        }
    return to;
}

/* Tasks: some for each thread of any usual machine, while their parts stay small beside the
   data. */
static void split(pass_run *r)
{
    row_pass *p = r->p;
    const row_data *x = p->data;
    const int64_t row = x->ld * (int64_t)dtype_size(x->dtype);
    int64_t size = BLOCK_BYTES / row / 16 * 16;
    r->block = size < 16 ? 16 : size > MOST_ROWS ? MOST_ROWS : size;
    r->z_ld = r->block;
    const int64_t blocks = (x->n + r->block - 1) / r->block, fit = x->n / (4 * p->k);
    p->tasks = blocks < MOST_TASKS ? blocks : MOST_TASKS;
    if (p->back && p->tasks > fit) p->tasks = fit > 0 ? fit : 1;
}

slg_status row_pass_run(row_pass *p)
{
    pass_run r = { .p = p };
    slg_ctx *ctx = p->ctx;
    split(&r);
    r.each = (2 * p->k + PASS_SCRATCH) * r.z_ld;
    r.w = pack_weights(p);
    r.scratch = arena_alloc(ctx, (size_t)ctx->num_threads, (size_t)r.each * sizeof *r.scratch);
    p->sums = arena_alloc(ctx, (size_t)p->tasks, PASS_SUMS * sizeof *p->sums);
    const size_t part = p->back ? (size_t)(p->k * p->data->ld) * sizeof *p->parts : 0;
    p->parts = arena_alloc(ctx, (size_t)p->tasks, part);
    if (!r.w || !r.scratch || !p->sums || !p->parts) return SLG_ERR_MEMORY;
    pool_run(ctx, p->tasks, pass_task, &r);
    return SLG_OK;
}

double row_pass_sum(const row_pass *p, int which)
{
    double sum = 0;
    for (int64_t t = 0; t < p->tasks; t++) sum += p->sums[t * PASS_SUMS + which];
    return sum;
}

void row_pass_gather(const row_pass *p, double factor, const double *weight, double *to)
{
    const int64_t d = p->data->d, ld = p->data->ld;
    memset(to, 0, (size_t)(p->k * d) * sizeof *to);
    for (int64_t t = 0; t < p->tasks; t++) {
        const double *part = p->parts + t * p->k * ld, w = weight ? weight[t] : 1;
        for (int64_t c = 0; c < p->k; c++)
            for (int64_t j = 0; j < d; j++) to[c * d + j] += w * part[c * ld + j];
    }
    for (int64_t i = 0; i < p->k * d; i++) to[i] *= factor;
}
