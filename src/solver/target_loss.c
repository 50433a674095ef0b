/*
 * target_loss.c - see softlogit/surrogate.h. A softmax row is reduced without its label, which
 * joins in the log domain: 1 - p keeps its relative precision where p is near 1. A row that is
 * moved along its gradient is made block by block.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "softmax/parts.h"
#include "target_rows.h"

/* ---- Element by element ----------------------------------------------------------------- */

enum { Z, DATA, G, GRAD };

typedef struct element_run {
    const target_loss *t;
    target_operands o;
} element_run;

/* z - s g, or z itself. */
static const float *moved(const kernel_table *k, const target_loss *t, const rows *z,
                          const rows *g, int64_t row, int64_t col, int64_t n, float *scratch)
{
    const float *x = rows_fetch(k, z, row, col, n, scratch);
    if (!t->g) return x;
    const float *d = rows_fetch(k, g, row, col, n, scratch + KERNEL_BLOCK);
    k->shifted((size_t)n, x, d, t->s, scratch);
    return scratch;
}

static void element_piece(const kernel_table *k, const void *arg, int64_t row, int64_t from,
                          int64_t count, float *scratch, double sums[TARGET_SUMS])
{
    const element_run *r = arg;
    const rows *o = r->o.r;
    for (int64_t i = 0; i < count; i += KERNEL_BLOCK) {
        const int64_t col = from + i, n = count - i < KERNEL_BLOCK ? count - i : KERNEL_BLOCK;
        float *own = scratch + 2 * KERNEL_BLOCK, *sign = own + KERNEL_BLOCK;
        float *to = r->t->grad ? rows_stage(&o[GRAD], row, col, own) : NULL;
        const float *z = moved(k, r->t, &o[Z], &o[G], row, col, n, scratch);
        const float *y = rows_fetch(k, &o[DATA], row, col, n, sign);
        if (r->t->kind == SLG_TARGET_SQUARED) {
            double square[3] = { 0 };
            k->surrogate((size_t)n, NULL, y, z, 1, to, square);
            sums[0] += square[1] / 2;
        } else {
            k->affine_emit((size_t)n, y, 1, 0, 0.5f, 0.5f, sign, STORE_CACHED);
            sums[0] += k->bce((size_t)n, z, 1, sign, NULL, NULL, 1, to, STORE_CACHED);
        }
        if (to == own) rows_commit(k, &o[GRAD], row, col, n, own);
    }
}

/* ---- Softmax rows ----------------------------------------------------------------------- */

typedef struct softmax_run {
    const target_loss *t;
    rows z, g, grad, label;
} softmax_run;

/* A row without its label, as parts.h sees it. */
typedef struct rest_source {
    const kernel_table *k;
    const softmax_run *r;
    int64_t label;
    float *side; /* two blocks */
} rest_source;

static const float *rest_fetch(const void *source, int64_t row, int64_t col, int64_t n,
                               float *scratch)
{
    const rest_source *s = source;
    const float *x = moved(s->k, s->r->t, &s->r->z, &s->r->g, row, col, n, s->side);
    if (s->label < col || s->label >= col + n) return x;
    memcpy(scratch, x, (size_t)n * sizeof *x);
    scratch[s->label - col] = -INFINITY;
    return scratch;
}

/* The label's own logit, as moved() makes it. */
static double own_logit(const rest_source *s, int64_t row)
{
    const float z = (float)rows_get(&s->r->z, row, s->label);
    if (!s->r->t->g) return (double)z;
    return (double)(float)((double)z - s->r->t->s * rows_get(&s->r->g, row, s->label));
}

/* scale: what the row's exponentials are to add up to; top: of the label's entry. */
static void softmax_gradient(const rest_source *s, const row_stat *st, int64_t row, double rest,
                             float *scratch)
{
    const softmax_run *r = s->r;
    const bool live = st->kind == ROW_PLAIN && rest == rest;
    const exp_out e = live ? row_out(st, rest, 0) : (exp_out){ 0 };
    const float fill = rest == rest ? 0.0f : NAN;
    for (int64_t col = 0; col < r->z.cols; col += KERNEL_BLOCK) {
        const int64_t n = r->z.cols - col < KERNEL_BLOCK ? r->z.cols - col : KERNEL_BLOCK;
        const float *x = rest_fetch(s, row, col, n, scratch);
        float *own = scratch + KERNEL_BLOCK, *to = rows_stage(&r->grad, row, col, own);
        if (live)
            s->k->exp_emit((size_t)n, x, &e, to, STORE_CACHED);
        else
            fill_f32(to, n, fill);
        if (s->label >= col && s->label < col + n && rest == rest)
            to[s->label - col] = 0.0f - (float)rest;
        if (to == own) rows_commit(s->k, &r->grad, row, col, n, own);
    }
}

static void softmax_piece(const kernel_table *k, const void *arg, int64_t row, int64_t from,
                          int64_t count, float *scratch, double sums[TARGET_SUMS])
{
    const softmax_run *r = arg;
    const rest_source s = { k, r, rows_get_int(&r->label, 0, row), scratch + 2 * KERNEL_BLOCK };
    const exp_arg unit = exp_arg_of(1.0, 0.0f);
    const double own = own_logit(&s, row);
    row_stat st;
    (void)from;
    row_start(&st, &unit);
    for (int64_t col = 0; col < count; col += KERNEL_BLOCK) {
        const int64_t n = count - col < KERNEL_BLOCK ? count - col : KERNEL_BLOCK;
        row_reduce(k, &st, col, n, rest_fetch(&s, row, col, n, scratch));
    }
    row_finish(k, &st, row, count, rest_fetch, &s);
    /* odds: of the others against the label, as a logarithm. */
    const double odds = own == -(double)INFINITY ? (double)INFINITY : st.lse - own;
    const bool broken =
        st.kind == ROW_NAN || st.kind == ROW_INF || isnan(own) || own == (double)INFINITY;
    const double less = exp(-fabs(odds));
    const double rest = broken ? (double)NAN : (odds < 0 ? less : 1) / (1 + less);
    sums[0] += broken ? (double)NAN : fmax(odds, 0) + log1p(less);
    if (!r->t->grad) return;
    softmax_gradient(&s, &st, row, rest, scratch);
    if (own == -(double)INFINITY && !broken) { /* a masked label: no gradient of its own */
        const rows *to = &r->grad;
        rows_put(to, row, s.label, 0);
    }
}

slg_status target_loss_run(slg_ctx *ctx, const target_loss *t, double *value)
{
    double total[TARGET_SUMS];
    if (t->kind == SLG_TARGET_SOFTMAX) {
        softmax_run r = { .t = t, .z = rows_of(t->z), .label = rows_of(t->data) };
        if (t->g) r.g = rows_of(t->g);
        if (t->grad) r.grad = rows_of(t->grad);
        const target_walk w = { r.z.count, r.z.cols, true, softmax_piece, &r, NULL };
        SLG_TRY(target_walk_run(ctx, &w, total));
    } else {
        element_run r = { .t = t, .o = { .t = { t->z, t->data, t->g, t->grad } } };
        target_operands_open(&r.o, false);
        const target_walk w = { r.o.count, r.o.cols, false, element_piece, &r, NULL };
        SLG_TRY(target_walk_run(ctx, &w, total));
    }
    *value = total[0];
    return SLG_OK;
}

/* ---- Checks and the public function ----------------------------------------------------- */

static slg_status labels_check(slg_ctx *ctx, const slg_tensor *data, int64_t n, int64_t m)
{
    SLG_TRY(tensor_in(ctx, "data", data, DT_INT, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "data", data, 1, &n));
    const rows r = rows_of(data);
    for (int64_t i = 0; i < n; i++) {
        const int64_t y = rows_get_int(&r, 0, i);
        if (y < 0 || y >= m)
            return slg_fail(ctx, SLG_ERR_RANGE, "data[%lld] is %lld, there are %lld classes",
                            (long long)i, (long long)y, (long long)m);
    }
    return SLG_OK;
}

static slg_status signs_check(slg_ctx *ctx, const slg_tensor *data)
{
    float scratch[KERNEL_BLOCK];
    target_operands o = { .t = { data } };
    target_operands_open(&o, false);
    for (int64_t r = 0; r < o.count; r++)
        for (int64_t c = 0; c < o.cols; c += KERNEL_BLOCK) {
            const int64_t n = o.cols - c < KERNEL_BLOCK ? o.cols - c : KERNEL_BLOCK;
            const float *y = rows_fetch(&ctx->k, &o.r[0], r, c, n, scratch);
            for (int64_t i = 0; i < n; i++)
                if (y[i] != 1 && y[i] != -1)
                    return slg_fail(ctx, SLG_ERR_RANGE, "data holds %g, must be -1 or 1",
                                    (double)y[i]);
        }
    return SLG_OK;
}

slg_status target_data_check(slg_ctx *ctx, int32_t kind, const slg_tensor *data, int64_t n,
                             int64_t m)
{
    SLG_TRY(option_choice(ctx, "kind", kind, SLG_TARGET_SQUARED, SLG_TARGET_SOFTMAX));
    if (!data) return slg_fail(ctx, SLG_ERR_NULL, "data is NULL");
    if (kind == SLG_TARGET_SOFTMAX) return labels_check(ctx, data, n, m);
    const int64_t shape[2] = { n, m };
    const unsigned types = kind == SLG_TARGET_LOGISTIC ? DT_ROW | DT_INT : DT_ROW;
    SLG_TRY(tensor_in(ctx, "data", data, types, 2, 2));
    SLG_TRY(tensor_shape_is(ctx, "data", data, 2, shape));
    return kind == SLG_TARGET_LOGISTIC ? signs_check(ctx, data) : SLG_OK;
}

static slg_status loss_of(slg_ctx *ctx, int32_t kind, const slg_tensor *target,
                          const slg_tensor *data, double *value, slg_tensor *grad)
{
    double sum;
    SLG_TRY(target_like(ctx, "target", target, NULL, false));
    SLG_TRY(target_data_check(ctx, kind, data, target->shape[0], target->shape[1]));
    if (grad) SLG_TRY(target_like(ctx, "grad", grad, target, true));
    if (tensor_clash(grad, target) || outputs_clash(grad, data))
        return slg_fail(ctx, SLG_ERR_STRIDE, "grad overlaps target or data");
    op_detail(ctx, target);
    const target_loss t = { kind, target, data, NULL, grad, 0 };
    SLG_TRY(target_loss_run(ctx, &t, &sum));
    if (value) *value = sum;
    return SLG_OK;
}

slg_status slg_target_loss(slg_ctx *ctx, int32_t kind, const slg_tensor *target,
                           const slg_tensor *data, double *value, slg_tensor *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_target_loss");
    return op_end(ctx, loss_of(ctx, kind, target, data, value, grad));
}
