/*
 * spherical_rank.c - the places of targets and the first classes, from the factors: o = V (U
 * h) + omega.h, a block of classes at a time. All blocks have one shape, the last one padded,
 * and so has the block of the targets' own rows: equal rows of V give equal outputs, and ties
 * are seen.
 */
#include <math.h>
#include <string.h>

#include "spherical_layer.h"

enum { BLOCK = 512 /* classes, and rows of hidden, at once */ };

typedef struct rank_run {
    slg_spherical_layer *l;
    int64_t rows, k; /* of this chunk; first classes wanted */
    bool magnitude;  /* order by |o| */
    float *hu;       /* [BLOCK, dim]: H U', padded */
    double *common;  /* [BLOCK]: omega.h */
    float *o;        /* [BLOCK, BLOCK] */
    float *pad;      /* [BLOCK, dim] */
    int64_t *target; /* [BLOCK]; -1: none */
    float *own;      /* [BLOCK]: key of the target */
    int64_t *above, *equal;
    float *top; /* [BLOCK, k]: outputs, best first */
    int64_t *top_at, *found;
    int64_t first, count; /* of the classes in o */
} rank_run;

static float key_of(const rank_run *t, float o) { return t->magnitude ? fabsf(o) : o; }

/* o = hu v' for one block of exactly BLOCK rows of v. */
static slg_status form(rank_run *t, const float *v)
{
    const int64_t d = t->l->dim;
    SLG_TRY(
        blas_sgemm(t->l->ctx, false, true, BLOCK, BLOCK, d, 1, t->hu, d, v, d, 0, t->o, BLOCK));
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t c = 0; c < BLOCK; c++)
            t->o[r * BLOCK + c] = (float)((double)t->o[r * BLOCK + c] + t->common[r]);
    return SLG_OK;
}

static const float *padded(rank_run *t, int64_t first, int64_t count)
{
    const int64_t d = t->l->dim;
    if (count == BLOCK) return layer_v(t->l, first);
    memset(t->pad, 0, (size_t)(BLOCK * d) * sizeof *t->pad);
    memcpy(t->pad, layer_v(t->l, first), (size_t)(count * d) * sizeof *t->pad);
    return t->pad;
}

/* Puts a class into a row's list; classes come in ascending order, so an equal one goes
   after. */
static void insert(rank_run *t, int64_t r, float o, int64_t at)
{
    float *top = t->top + r * t->k;
    int64_t *top_at = t->top_at + r * t->k, n = t->found[r], i;
    if (n == t->k && !(key_of(t, o) > key_of(t, top[n - 1]))) return;
    if (n < t->k) t->found[r] = ++n;
    for (i = n - 1; i > 0 && key_of(t, o) > key_of(t, top[i - 1]); i--)
        top[i] = top[i - 1], top_at[i] = top_at[i - 1];
    top[i] = o, top_at[i] = at;
}

static void count_row(void *arg, int64_t r, int32_t worker)
{
    rank_run *t = arg;
    const float *o = t->o + r * BLOCK, own = t->own[r];
    int64_t above = 0, equal = 0;
    (void)worker;
    if (t->target[r] >= 0) {
        for (int64_t c = 0; c < t->count; c++) {
            const float key = key_of(t, o[c]);
            above += key > own, equal += key == own;
        }
        const bool here = t->target[r] >= t->first && t->target[r] < t->first + t->count;
        t->above[r] += above;
        t->equal[r] += equal - here;
    }
    for (int64_t c = 0; t->k > 0 && c < t->count; c++) insert(t, r, o[c], t->first + c);
}

static slg_status rank_chunk(rank_run *t)
{
    const int64_t d = t->l->dim;
    memset(t->pad, 0, (size_t)(BLOCK * d) * sizeof *t->pad);
    for (int64_t r = 0; r < t->rows; r++)
        if (t->target[r] >= 0)
            memcpy(t->pad + r * d, layer_v(t->l, t->target[r]), (size_t)d * sizeof *t->pad);
    SLG_TRY(form(t, t->pad));
    for (int64_t r = 0; r < t->rows; r++) {
        t->own[r] = key_of(t, t->o[r * BLOCK + r]);
        t->above[r] = t->equal[r] = t->found[r] = 0;
    }
    for (t->first = 0; t->first < t->l->classes; t->first += BLOCK) {
        t->count = t->l->classes - t->first < BLOCK ? t->l->classes - t->first : BLOCK;
        SLG_TRY(form(t, padded(t, t->first, t->count)));
        int bad = 0;
        for (int64_t r = 0; r < t->rows; r++)
            for (int64_t c = 0; c < t->count; c++)
                bad |= !(fabsf(t->o[r * BLOCK + c]) <= 3.4e38f);
        if (bad) return slg_fail(t->l->ctx, SLG_ERR_RANGE, "an output is not finite");
        pool_run(t->l->ctx, t->rows, count_row, t);
    }
    return SLG_OK;
}

/* ---- The call --------------------------------------------------------------------------- */

typedef struct rank_args {
    const slg_tensor *hidden, *target;
    slg_tensor *out[4]; /* rank, ties, top_index, top_output */
    int64_t k;
} rank_args;

static slg_status check_args(slg_spherical_layer *l, rank_args *a)
{
    static const char *const names[] = { "rank", "ties", "top_index", "top_output" };
    slg_ctx *ctx = l->ctx;
    SLG_TRY(tensor_in(ctx, "hidden", a->hidden, DT_ROW | DT_F64, 2, 2));
    const int64_t shape[2] = { a->hidden->shape[0], l->dim };
    SLG_TRY(tensor_shape_is(ctx, "hidden", a->hidden, 2, shape));
    if (a->target) {
        SLG_TRY(tensor_in(ctx, "target", a->target, DT_INT, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "target", a->target, 1, shape));
    } else if (a->out[0] || a->out[1]) {
        return slg_fail(ctx, SLG_ERR_NULL, "target is NULL, but rank or ties are wanted");
    }
    for (int i = 0; i < 4; i++) {
        const slg_tensor *t = a->out[i];
        if (!t) continue;
        SLG_TRY(tensor_out(ctx, names[i], t, i == 3 ? DT_F32 | DT_F64 : DT_INT, i < 2 ? 1 : 2,
                           i < 2 ? 1 : 2));
        if (i >= 2 && a->k < 0) a->k = t->shape[1];
        const int64_t want[2] = { shape[0], a->k };
        SLG_TRY(tensor_shape_is(ctx, names[i], t, i < 2 ? 1 : 2, want));
        if (i >= 2 && a->k > l->classes)
            return slg_fail(ctx, SLG_ERR_SHAPE, "%s has %lld columns, there are %lld classes",
                            names[i], (long long)a->k, (long long)l->classes);
        const slg_tensor *const others[] = { a->hidden, a->target, a->out[0], a->out[1],
                                             a->out[2] };
        for (int j = 0; j < 2 + (i < 3 ? i : 3) && tensor_size(t) > 0; j++)
            if (others[j] && (tensor_clash(t, others[j]) || t->data == others[j]->data))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", names[i]);
    }
    if (a->k < 0) a->k = 0;
    if (!a->target) return SLG_OK;
    rows target = rows_per_row(a->target);
    for (int64_t r = 0; r < shape[0]; r++)
        if (rows_get_int(&target, r, 0) >= l->classes)
            return slg_fail(ctx, SLG_ERR_RANGE, "target[%lld] is %lld, there are %lld classes",
                            (long long)r, (long long)rows_get_int(&target, r, 0),
                            (long long)l->classes);
    return SLG_OK;
}

static slg_status rank_reserve(slg_ctx *ctx, int64_t d, rank_run *t)
{
    const size_t b = BLOCK, k = (size_t)t->k;
    t->hu = arena_alloc(ctx, b * (size_t)d, sizeof *t->hu);
    t->pad = arena_alloc(ctx, b * (size_t)d, sizeof *t->pad);
    t->o = arena_alloc(ctx, b * b, sizeof *t->o);
    t->common = arena_alloc(ctx, b, sizeof *t->common);
    t->own = arena_alloc(ctx, b, sizeof *t->own);
    t->target = arena_alloc(ctx, 4 * b, sizeof *t->target);
    t->top = arena_alloc(ctx, b * k, sizeof *t->top);
    t->top_at = arena_alloc(ctx, b * k, sizeof *t->top_at);
    if (!t->hu || !t->pad || !t->o || !t->common || !t->own || !t->target || !t->top ||
        !t->top_at)
        return SLG_ERR_MEMORY;
    t->above = t->target + b, t->equal = t->above + b, t->found = t->equal + b;
    return SLG_OK;
}

/* H U' and omega.h of a chunk of rows. */
static slg_status rank_hidden(rank_run *t, const rows *hidden, int64_t first, double *h,
                              double *hu, float *scratch)
{
    const slg_spherical_layer *l = t->l;
    const int64_t d = l->dim;
    for (int64_t r = 0; r < t->rows; r++) {
        layer_read(l->ctx, hidden, first + r, d, h + r * d, scratch);
        t->common[r] = 0;
        for (int64_t i = 0; i < d; i++) t->common[r] += h[r * d + i] * l->omega[i];
        if (!isfinite(t->common[r]))
            return slg_fail(l->ctx, SLG_ERR_RANGE, "hidden has a row, %lld, that is not finite",
                            (long long)(first + r));
    }
    SLG_TRY(blas_dgemm(l->ctx, false, true, t->rows, d, d, 1, h, d, l->u, d, 0, hu, d));
    memset(t->hu, 0, (size_t)(BLOCK * d) * sizeof *t->hu);
    for (int64_t i = 0; i < t->rows * d; i++) t->hu[i] = (float)hu[i];
    return SLG_OK;
}

static void rank_put(const rank_run *t, const rank_args *a, int64_t first)
{
    rows out[4] = { 0 };
    for (int i = 0; i < 4; i++)
        if (a->out[i]) out[i] = i < 2 ? rows_per_row(a->out[i]) : rows_of(a->out[i]);
    for (int64_t r = 0; r < t->rows; r++) {
        const bool there = t->target[r] >= 0;
        if (a->out[0]) rows_put(&out[0], first + r, 0, there ? 1 + (double)t->above[r] : 0);
        if (a->out[1]) rows_put(&out[1], first + r, 0, there ? (double)t->equal[r] : 0);
        for (int64_t i = 0; i < t->k; i++) {
            if (a->out[2]) rows_put(&out[2], first + r, i, (double)t->top_at[r * t->k + i]);
            if (a->out[3]) rows_put(&out[3], first + r, i, (double)t->top[r * t->k + i]);
        }
    }
}

static slg_status rank(slg_spherical_layer *l, rank_args *a)
{
    slg_ctx *ctx = l->ctx;
    const size_t d = (size_t)l->dim;
    SLG_TRY(check_args(l, a));
    rank_run t = { .l = l, .k = a->k, .magnitude = l->form.kind == SLG_SPHERICAL_LOG };
    SLG_TRY(rank_reserve(ctx, l->dim, &t));
    double *h = arena_alloc(ctx, BLOCK * d, sizeof *h),
           *hu = arena_alloc(ctx, BLOCK * d, sizeof *hu);
    float *scratch = arena_alloc(ctx, d, sizeof *scratch);
    if (!h || !hu || !scratch) return SLG_ERR_MEMORY;
    rows hidden = rows_of(a->hidden), target = { 0 };
    if (a->target) target = rows_per_row(a->target);
    const int64_t rows_all = a->hidden->shape[0];
    for (int64_t first = 0; first < rows_all; first += BLOCK) {
        t.rows = rows_all - first < BLOCK ? rows_all - first : BLOCK;
        SLG_TRY(rank_hidden(&t, &hidden, first, h, hu, scratch));
        for (int64_t r = 0; r < t.rows; r++) {
            t.target[r] = a->target ? rows_get_int(&target, first + r, 0) : -1;
            if (t.target[r] < 0) t.target[r] = -1;
        }
        SLG_TRY(rank_chunk(&t));
        rank_put(&t, a, first);
    }
    return SLG_OK;
}

slg_status slg_spherical_layer_rank(slg_spherical_layer *l, const slg_tensor *hidden,
                                    const slg_tensor *target, slg_tensor *ranks,
                                    slg_tensor *ties, slg_tensor *top_index,
                                    slg_tensor *top_output)
{
    if (!l) return SLG_ERR_NULL;
    rank_args a = { hidden, target, { ranks, ties, top_index, top_output }, -1 };
    op_begin(l->ctx, "slg_spherical_layer_rank");
    return op_end(l->ctx, rank(l, &a));
}
