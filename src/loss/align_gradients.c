/*
 * align_gradients.c - see dual_head.h. One pass for the products, cut into ranges that depend
 * on the shape alone and added up in order, so that their number and the threads do not show;
 * one pass that writes, only where there is something to write.
 */
#include "core/options.h"
#include "core/tensor.h"
#include "softlogit/dual_head.h"

static const slg_align_gradients_opts defaults = { .size = sizeof(slg_align_gradients_opts) };
static const slg_align_gradients_out out_defaults = { .size = sizeof(slg_align_gradients_out) };

void slg_align_gradients_opts_init(slg_align_gradients_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

void slg_align_gradients_out_init(slg_align_gradients_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

/* ---- A pair of tensors, in pieces -------------------------------------------------------- */

enum { PIECE = 1 << 16 }; /* elements of a task, or a whole row's blocks more */

typedef struct piece_sums {
    double v[3];
} piece_sums; /* g1 g2, g1 g1, g2 g2 */

/* data NULL: the list has no such tensor. Tasks: `per_row` to a row, or `rows` rows to one. */
typedef struct grad_pair {
    const kernel_table *k;
    rows main, auxiliary;
    int64_t rows, cols;
    int64_t row_group, col_group; /* rows and columns of a task */
    int64_t tasks;
    piece_sums *sums;                 /* [tasks] */
    double from_main, from_auxiliary; /* what is written: their combination */
    bool to_main;
} grad_pair;

/* A vector of its own where it lies in one piece. */
static rows flat(const slg_tensor *t)
{
    slg_tensor v = *t;
    if (tensor_contiguous(t)) v = slg_tensor_1d(t->data, t->dtype, tensor_size(t));
    return rows_of(&v);
}

static grad_pair pair_of(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b)
{
    grad_pair p = { .k = &ctx->k };
    /* As one vector only where both are: rows must go together. */
    bool whole = (!a || tensor_contiguous(a)) && (!b || tensor_contiguous(b));
    if (a) p.main = whole ? flat(a) : rows_of(a);
    if (b) p.auxiliary = whole ? flat(b) : rows_of(b);
    const rows *any = a ? &p.main : &p.auxiliary;
    p.rows = any->count;
    p.cols = any->cols;
    if (p.rows == 0 || p.cols == 0) return p;
    p.col_group = p.cols < PIECE ? p.cols : PIECE;
    p.row_group = PIECE / p.col_group;
    p.tasks =
        ((p.rows + p.row_group - 1) / p.row_group) * ((p.cols + p.col_group - 1) / p.col_group);
    return p;
}

/* Calls fn for each block of a task. */
typedef void (*block_fn)(grad_pair *p, int64_t task, int64_t row, int64_t col, int64_t n);

static void each_block(grad_pair *p, int64_t task, block_fn fn)
{
    const int64_t across = (p->cols + p->col_group - 1) / p->col_group;
    const int64_t row = task / across * p->row_group, col = task % across * p->col_group;
    const int64_t last_row = p->rows - row < p->row_group ? p->rows : row + p->row_group;
    const int64_t last = p->cols - col < p->col_group ? p->cols : col + p->col_group;
    for (int64_t r = row; r < last_row; r++)
        for (int64_t c = col; c < last; c += KERNEL_BLOCK)
            fn(p, task, r, c, last - c < KERNEL_BLOCK ? last - c : KERNEL_BLOCK);
}

static void sum_block(grad_pair *p, int64_t task, int64_t row, int64_t col, int64_t n)
{
    float as[KERNEL_BLOCK], bs[KERNEL_BLOCK];
    double s[3];
    const float *a = NULL, *b = NULL;
    if (p->main.data) a = rows_fetch(p->k, &p->main, row, col, n, as);
    if (p->auxiliary.data) b = rows_fetch(p->k, &p->auxiliary, row, col, n, bs);
    p->k->dots((size_t)n, a ? a : b, b ? b : a, s);
    if (a && b) p->sums[task].v[0] += s[0];
    if (a) p->sums[task].v[1] += s[1];
    if (b) p->sums[task].v[2] += s[2];
}

static void write_block(grad_pair *p, int64_t task, int64_t row, int64_t col, int64_t n)
{
    float as[KERNEL_BLOCK], bs[KERNEL_BLOCK];
    (void)task;
    const rows *to = p->to_main ? &p->main : &p->auxiliary;
    const rows *from = p->to_main ? &p->auxiliary : &p->main;
    double y = p->to_main ? p->from_main : p->from_auxiliary;
    double x = p->to_main ? p->from_auxiliary : p->from_main;
    rows_fetch(p->k, to, row, col, n, as);
    float *d = rows_stage(to, row, col, as);
    const float *other = from->data ? rows_fetch(p->k, from, row, col, n, bs) : d;
    p->k->lincomb((size_t)n, from->data ? x : 0.0, other, y, d);
    rows_commit(p->k, to, row, col, n, as);
}

static void sum_task(void *arg, int64_t task, int32_t worker)
{
    grad_pair *p = arg;
    (void)worker;
    p->sums[task] = (piece_sums){ { 0 } };
    each_block(p, task, sum_block);
}

static void write_task(void *arg, int64_t task, int32_t worker)
{
    (void)worker;
    each_block(arg, task, write_block);
}

/* ---- Checks ------------------------------------------------------------------------------ */

static slg_status check_pair(slg_ctx *ctx, int64_t i, const slg_tensor *a, const slg_tensor *b,
                             const slg_align_gradients_opts *o)
{
    if (a) SLG_TRY(tensor_out(ctx, "a tensor of main", a, DT_ROW, 1, 4));
    if (b) SLG_TRY(tensor_out(ctx, "a tensor of auxiliary", b, DT_ROW, 1, 4));
    if (a && b) return tensor_same_shape(ctx, "a tensor of main", a, "its auxiliary", b);
    if (a && !o->merge && !o->shared_only)
        return slg_fail(ctx, SLG_ERR_NULL,
                        "auxiliary[%lld] is NULL and main's is not: set merge or shared_only",
                        (long long)i);
    return SLG_OK;
}

/* Lists are of layers, not of numbers: a few hundred at most. */
static slg_status check_apart(slg_ctx *ctx, int64_t count, slg_tensor *const *main,
                              slg_tensor *const *auxiliary)
{
    for (int64_t i = 0; i < 2 * count; i++)
        for (int64_t j = 0; j < i; j++) {
            const slg_tensor *a = i < count ? main[i] : auxiliary[i - count];
            const slg_tensor *b = j < count ? main[j] : auxiliary[j - count];
            if (a && b && (tensor_clash(a, b) || (a->data == b->data && tensor_size(a) > 0)))
                return slg_fail(ctx, SLG_ERR_STRIDE,
                                "tensors %lld and %lld overlap (main first)", (long long)j,
                                (long long)i);
        }
    return SLG_OK;
}

static slg_status check(slg_ctx *ctx, int64_t count, slg_tensor *const *main,
                        slg_tensor *const *auxiliary, const slg_align_gradients_opts *o)
{
    if (count < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "count is %lld, must be at least 0",
                        (long long)count);
    if (count > 0 && !(main && auxiliary))
        return slg_fail(ctx, SLG_ERR_NULL, "main or auxiliary is NULL");
    SLG_TRY(option_choice(ctx, "merge", o->merge, 0, 1));
    SLG_TRY(option_choice(ctx, "shared_only", o->shared_only, 0, 1));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    for (int64_t i = 0; i < count; i++) SLG_TRY(check_pair(ctx, i, main[i], auxiliary[i], o));
    return check_apart(ctx, count, main, auxiliary);
}

/* ---- The call ---------------------------------------------------------------------------- */

static void sum_pair(slg_ctx *ctx, grad_pair *p, double total[3])
{
    pool_run(ctx, p->tasks, sum_task, p);
    for (int64_t i = 0; i < p->tasks; i++)
        for (int j = 0; j < 3; j++) total[j] += p->sums[i].v[j];
}

/* g2 or, merged, g1 as it becomes; by how much of g1 g2 is made less. */
static void write_pair(slg_ctx *ctx, grad_pair *p, bool merge, double less)
{
    p->from_auxiliary = 1;
    p->from_main = merge ? 1 - less : -less;
    p->to_main = merge;
    bool both = p->main.data && p->auxiliary.data;
    bool idle = !p->main.data || (!merge && !p->auxiliary.data);
    if (idle || (less == 0 && !(merge && both))) return;
    pool_run(ctx, p->tasks, write_task, p);
}

static slg_status align(slg_ctx *ctx, int64_t count, slg_tensor *const *main,
                        slg_tensor *const *auxiliary, const slg_align_gradients_opts *opts,
                        slg_align_gradients_out *out)
{
    slg_align_gradients_opts o = defaults;
    slg_align_gradients_out result = out_defaults;
    double total[3] = { 0 };
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    if (out) SLG_TRY(options_read(ctx, "out", out, &result, sizeof result));
    SLG_TRY(check(ctx, count, main, auxiliary, &o));
    grad_pair *pairs = arena_alloc(ctx, (size_t)count, sizeof *pairs);
    if (!pairs) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        pairs[i] = (grad_pair){ .k = &ctx->k };
        bool both = main[i] && auxiliary[i];
        if ((!main[i] && !auxiliary[i]) || (o.shared_only && !both)) continue;
        pairs[i] = pair_of(ctx, main[i], auxiliary[i]);
        pairs[i].sums = arena_alloc(ctx, (size_t)pairs[i].tasks, sizeof *pairs[i].sums);
        if (!pairs[i].sums) return SLG_ERR_MEMORY;
    }
    for (int64_t i = 0; i < count; i++) sum_pair(ctx, &pairs[i], total);

    bool act = total[0] < 0 && isfinite(total[0]) && total[1] > 0 && isfinite(total[1]);
    double less = act ? total[0] / total[1] : 0;
    for (int64_t i = 0; i < count; i++) write_pair(ctx, &pairs[i], o.merge, less);
    result.aligned = act;
    result.dot = total[0];
    result.main_norm2 = total[1];
    result.auxiliary_norm2 = total[2];
    if (out) options_write(out, &result, sizeof result);
    return SLG_OK;
}

slg_status slg_align_gradients(slg_ctx *ctx, int64_t count, slg_tensor *const *main,
                               slg_tensor *const *auxiliary,
                               const slg_align_gradients_opts *opts,
                               slg_align_gradients_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_align_gradients");
    return op_end(ctx, align(ctx, count, main, auxiliary, opts, out));
}
