/*
 * spherical_step.c - a batch through the factorised output layer and the exact update, at
 * a cost that does not depend on the number of classes. Seven products of rows dim^2 are left
 * of fourteen:
 *
 *   (I - H H'B) X = H P gives X = H P_new, so V's rows need no product with P_new, and P_new is
 *   P + (B H)' X;  Gamma Gamma' is as sparse as targets that rows share;  Q's update is
 *   Y'H + H'Y with Y = -lr dH + lr^2/2 M H, M = G G'.
 *
 * All factors are computed and checked before the first number of the state changes.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/options.h"
#include "spherical_layer.h"

/* Reciprocal condition of I - 2 lr H'diag(beta)H below which a step would erase a direction. */
static const double least_rcond = 1e-7;

static double dot(int64_t n, const double *a, const double *b)
{
    double s[4] = { 0 };
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int64_t j = 0; j < 4; j++) s[j] += a[i + j] * b[i + j];
    for (; i < n; i++) s[0] += a[i] * b[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

static double dot_float(int64_t n, const float *a, const double *b)
{
    double s[4] = { 0 };
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int64_t j = 0; j < 4; j++) s[j] += (double)a[i + j] * b[i + j];
    for (; i < n; i++) s[0] += (double)a[i] * b[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

static void add_scaled(int64_t n, double a, const double *x, double *y)
{
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* All within the limit, so finite? */
static bool bounded(int64_t n, const double *x)
{
    int bad = 0;
    for (int64_t i = 0; i < n; i++) bad |= !(fabs(x[i]) <= LAYER_LIMIT);
    return !bad;
}

/* ---- A batch's memory -------------------------------------------------------------------- */

/* Grows the batch's memory and lays it out; the old contents are lost. */
static slg_status batch_reserve(slg_spherical_layer *l, int64_t m, int64_t k)
{
    layer_batch *b = &l->batch;
    int64_t matrix, slots, numbers;
    if (__builtin_mul_overflow(m, l->dim, &matrix) || __builtin_mul_overflow(m, k, &slots) ||
        matrix > INT64_MAX / 512 || slots > INT64_MAX / 512)
        return slg_fail(l->ctx, SLG_ERR_SHAPE, "%lld rows with %lld targets are too many",
                        (long long)m, (long long)k);
    numbers = 5 * matrix + 7 * m + 4 * slots;
    size_t bytes = (size_t)numbers * sizeof(double);
    if (bytes > b->bytes) {
        void *memory = ctx_alloc(l->ctx, bytes);
        if (!memory) return SLG_ERR_MEMORY;
        if (b->memory) ctx_free(l->ctx, b->memory);
        b->memory = memory, b->bytes = bytes;
    }
    double *at = b->memory;
    double **const matrices[] = { &b->h, &b->hq, &b->hu, &b->e, &b->dh };
    double **const vectors[] = { &b->s,     &b->q,    &b->loss,     &b->rho,
                                 &b->alpha, &b->beta, &b->gamma_sum };
    double **const slotted[] = { &b->gamma, &b->output, &b->value };
    for (size_t i = 0; i < 5; i++) *matrices[i] = at, at += matrix;
    for (size_t i = 0; i < 7; i++) *vectors[i] = at, at += m;
    for (size_t i = 0; i < 3; i++) *slotted[i] = at, at += slots;
    b->target = (int64_t *)(void *)at;
    b->rows = m, b->slots = k;
    return SLG_OK;
}

/* ---- Reading ----------------------------------------------------------------------------- */

void layer_read(const slg_ctx *ctx, const rows *m, int64_t r, int64_t n, double *out,
                float *scratch)
{
    if (m->dtype == SLG_F64) {
        for (int64_t i = 0; i < n; i++) out[i] = rows_get(m, r, i);
        return;
    }
    const float *x = rows_fetch(&ctx->k, m, r, 0, n, scratch);
    for (int64_t i = 0; i < n; i++) out[i] = (double)x[i];
}

void layer_write(const slg_ctx *ctx, const rows *m, int64_t r, int64_t n, const double *x,
                 float *scratch)
{
    if (m->dtype == SLG_F64) {
        for (int64_t i = 0; i < n; i++) rows_put(m, r, i, x[i]);
        return;
    }
    float *to = rows_stage(m, r, 0, scratch);
    for (int64_t i = 0; i < n; i++) to[i] = (float)x[i];
    rows_commit(&ctx->k, m, r, 0, n, scratch);
}

static slg_status check_batch(slg_spherical_layer *l, const slg_spherical_batch *b)
{
    slg_ctx *ctx = l->ctx;
    SLG_TRY(tensor_in(ctx, "batch.hidden", b->hidden, DT_ROW | DT_F64, 2, 2));
    int64_t m = b->hidden->shape[0];
    const int64_t shape[2] = { m, l->dim };
    SLG_TRY(tensor_shape_is(ctx, "batch.hidden", b->hidden, 2, shape));
    SLG_TRY(tensor_in(ctx, "batch.target", b->target, DT_INT, 1, 2));
    if (b->target->shape[0] != m || (b->target->ndim == 2 && b->target->shape[1] < 1))
        return slg_fail(
            ctx, SLG_ERR_SHAPE, "batch.target has %lld rows of %lld, batch.hidden %lld rows",
            (long long)b->target->shape[0],
            (long long)(b->target->ndim == 2 ? b->target->shape[1] : 1), (long long)m);
    if (b->target_value) {
        SLG_TRY(tensor_in(ctx, "batch.target_value", b->target_value, DT_F32 | DT_F64, 1, 2));
        SLG_TRY(tensor_same_shape(ctx, "batch.target_value", b->target_value, "batch.target",
                                  b->target));
    }
    if (b->row_weight) {
        SLG_TRY(tensor_in(ctx, "batch.row_weight", b->row_weight, DT_F32 | DT_F64, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "batch.row_weight", b->row_weight, 1, &m));
    }
    return SLG_OK;
}

/* Targets of a row, their values, and how many there are. */
static slg_status read_targets(slg_spherical_layer *l, const slg_spherical_batch *given,
                               int64_t r, int64_t *there)
{
    layer_batch *b = &l->batch;
    const bool flat = given->target->ndim == 1;
    rows index = flat ? rows_per_row(given->target) : rows_of(given->target), value = { 0 };
    if (given->target_value)
        value = flat ? rows_per_row(given->target_value) : rows_of(given->target_value);
    *there = 0;
    for (int64_t j = 0; j < b->slots; j++) {
        int64_t c = rows_get_int(&index, r, j), at = r * b->slots + j;
        b->target[at] = c == given->ignore_index ? -1 : c;
        if (c == given->ignore_index) continue;
        if (c < 0 || c >= l->classes)
            return slg_fail(l->ctx, SLG_ERR_RANGE,
                            "batch.target[%lld] is %lld, must be from 0 to %lld", (long long)at,
                            (long long)c, (long long)l->classes - 1);
        __builtin_prefetch(layer_v(l, c));
        b->value[at] = value.data ? rows_get(&value, r, j) : 1;
        if (!(fabs(b->value[at]) <= 1e30))
            return slg_fail(l->ctx, SLG_ERR_RANGE, "batch.target_value[%lld] is %g",
                            (long long)at, b->value[at]);
        ++*there;
    }
    if (!value.data && l->form.kind != SLG_SPHERICAL_SQUARED)
        for (int64_t j = 0; j < b->slots; j++) b->value[r * b->slots + j] = 1 / (double)*there;
    return SLG_OK;
}

static slg_status read_batch(slg_spherical_layer *l, const slg_spherical_batch *given)
{
    layer_batch *b = &l->batch;
    rows hidden = rows_of(given->hidden), weight = { 0 };
    float *scratch = arena_alloc(l->ctx, (size_t)l->dim, sizeof *scratch);
    if (!scratch) return SLG_ERR_MEMORY;
    if (given->row_weight) weight = rows_per_row(given->row_weight);
    b->count = 0;
    for (int64_t r = 0; r < b->rows; r++) {
        int64_t there;
        SLG_TRY(read_targets(l, given, r, &there));
        b->count += there > 0;
        double w = weight.data ? rows_get(&weight, r, 0) : 1;
        if (!(fabs(w) <= 1e30))
            return slg_fail(l->ctx, SLG_ERR_RANGE, "batch.row_weight[%lld] is %g", (long long)r,
                            w);
        b->rho[r] = there > 0 ? w : 0;
        layer_read(l->ctx, &hidden, r, l->dim, b->h + r * l->dim, scratch);
        if (!bounded(l->dim, b->h + r * l->dim))
            return slg_fail(l->ctx, SLG_ERR_RANGE,
                            "batch.hidden has a row, %lld, that is not finite", (long long)r);
    }
    if (!weight.data)
        for (int64_t r = 0; r < b->rows; r++) b->rho[r] /= b->count > 0 ? (double)b->count : 1;
    return SLG_OK;
}

/* ---- Forward ----------------------------------------------------------------------------- */

/* Loss of a row and its derivatives from s, q and the targets' outputs. */
static void evaluate_row(slg_spherical_layer *l, int64_t r)
{
    layer_batch *b = &l->batch;
    const int64_t d = l->dim, *target = b->target + r * b->slots;
    const double *h = b->h + r * d, common = dot(d, l->omega, h), rho = b->rho[r];
    double *gamma = b->gamma + r * b->slots, *o = b->output + r * b->slots;
    const double *value = b->value + r * b->slots;
    const bool squared = l->form.kind == SLG_SPHERICAL_SQUARED;
    spherical_sums sums = { (double)l->classes, dot(d, h, l->wbar), dot(d, h, b->hq + r * d), 0,
                            0 };
    sums.spread = sums.q - sums.s * sums.s / sums.classes;
    double loss = 0, alpha = 0, beta = 0, gamma_sum = 0;
    bool any = false;
    for (int64_t j = 0; j < b->slots; j++) {
        gamma[j] = o[j] = 0;
        if (target[j] < 0) continue;
        any = true;
        o[j] = sums.target = dot_float(d, layer_v(l, target[j]), b->hu + r * d) + common;
        if (squared) {
            loss += value[j] * (value[j] - 2 * o[j]);
            gamma[j] = -2 * value[j];
        } else {
            spherical_value v = spherical_evaluate(&l->form, &sums);
            loss += value[j] * v.loss, alpha += value[j] * v.ds, beta += value[j] * v.dq;
            gamma[j] = value[j] * v.dt;
        }
        gamma[j] *= rho;
        gamma_sum += gamma[j];
    }
    if (squared && any) loss += sums.q, beta = 1;
    b->s[r] = sums.s, b->q[r] = sums.q, b->loss[r] = loss;
    b->alpha[r] = rho * alpha, b->beta[r] = rho * beta, b->gamma_sum[r] = gamma_sum;
}

/* e = Gamma W = (Gamma V) U + (Gamma 1) omega', and dh = alpha wbar' + 2 diag(beta) H Q + e. */
static slg_status carry(slg_spherical_layer *l, double *gamma_v)
{
    layer_batch *b = &l->batch;
    const int64_t d = l->dim;
    for (int64_t r = 0; r < b->rows; r++) {
        double *f = gamma_v + r * d, *e = b->e + r * d;
        for (int64_t i = 0; i < d; i++) f[i] = 0, e[i] = b->gamma_sum[r] * l->omega[i];
        for (int64_t j = 0; j < b->slots; j++) {
            const double g = b->gamma[r * b->slots + j];
            if (b->target[r * b->slots + j] < 0) continue;
            const float *v = layer_v(l, b->target[r * b->slots + j]);
            for (int64_t i = 0; i < d; i++) f[i] += g * (double)v[i];
        }
    }
    SLG_TRY(
        blas_dgemm(l->ctx, false, false, b->rows, d, d, 1, gamma_v, d, l->u, d, 1, b->e, d));
    for (int64_t r = 0; r < b->rows; r++) {
        const double alpha = b->alpha[r], beta = 2 * b->beta[r];
        for (int64_t i = r * d; i < (r + 1) * d; i++)
            b->dh[i] = alpha * l->wbar[i - r * d] + beta * b->hq[i] + b->e[i];
    }
    return SLG_OK;
}

/* Its matrices, vectors and gamma lie end to end. */
static bool batch_bounded(const layer_batch *b, int64_t d)
{
    return bounded(5 * b->rows * d + 7 * b->rows + b->rows * b->slots, b->h);
}

slg_status layer_evaluate(slg_spherical_layer *l, const slg_spherical_batch *given)
{
    slg_ctx *ctx = l->ctx;
    layer_batch *b = &l->batch;
    const int64_t d = l->dim;
    l->pending = false;
    SLG_TRY(check_batch(l, given));
    const int64_t m = given->hidden->shape[0];
    SLG_TRY(batch_reserve(l, m, given->target->ndim == 2 ? given->target->shape[1] : 1));
    double *gamma_v = arena_alloc(ctx, (size_t)(m * d), sizeof *gamma_v);
    if (!gamma_v) return SLG_ERR_MEMORY;
    SLG_TRY(read_batch(l, given));
    SLG_TRY(blas_dgemm(ctx, false, false, m, d, d, 1, b->h, d, l->q, d, 0, b->hq, d));
    SLG_TRY(blas_dgemm(ctx, false, true, m, d, d, 1, b->h, d, l->u, d, 0, b->hu, d));
    b->sum = 0;
    for (int64_t r = 0; r < m; r++) {
        evaluate_row(l, r);
        b->sum += b->rho[r] * b->loss[r];
    }
    SLG_TRY(carry(l, gamma_v));
    if (!batch_bounded(b, d))
        return slg_fail(ctx, SLG_ERR_RANGE, "a result is not finite, or beyond %g",
                        LAYER_LIMIT);
    l->pending = true;
    return SLG_OK;
}

/* ---- Update ------------------------------------------------------------------------------ */

/* What a step needs, all of it checked before the state changes. */
typedef struct layer_step {
    double lr;
    double *b;          /* [m]: 2 lr beta */
    double *bh, *x;     /* [m, d]: B H, and X = H P_new */
    double *xt;         /* [d, m]: X' */
    double *y;          /* [m, d] */
    double *hh;         /* [m, m]: H H' */
    double *p;          /* [d, d]: P_new where m > d, else NULL */
    double *mm, *cross; /* [m, m] */
    int64_t *order;     /* [m K]: slots, by class */
    int64_t slots;      /* of them there */
    float *v;           /* [slots, d]: new rows of V */
} layer_step;

static slg_status step_reserve(slg_spherical_layer *l, layer_step *t)
{
    const size_t m = (size_t)l->batch.rows, d = (size_t)l->dim, k = m * (size_t)l->batch.slots;
    slg_ctx *ctx = l->ctx;
    double **const wide[] = { &t->bh, &t->x, &t->xt, &t->y };
    double **const square[] = { &t->hh, &t->mm, &t->cross };
    for (int i = 0; i < 4; i++)
        if (!(*wide[i] = arena_alloc(ctx, m * d, sizeof(double)))) return SLG_ERR_MEMORY;
    for (int i = 0; i < 3; i++)
        if (!(*square[i] = arena_alloc(ctx, m * m, sizeof(double)))) return SLG_ERR_MEMORY;
    t->b = arena_alloc(ctx, m, sizeof(double));
    t->order = arena_alloc(ctx, 2 * k, sizeof *t->order);
    t->v = arena_alloc(ctx, k * d, sizeof *t->v);
    t->p = m > d ? arena_alloc(ctx, d * d, sizeof(double)) : NULL;
    return t->b && t->order && t->v && (t->p || m <= d) ? SLG_OK : SLG_ERR_MEMORY;
}

static slg_status singular(slg_ctx *ctx, double lr, double rcond)
{
    return slg_fail(
        ctx, SLG_ERR_RANGE,
        "lr %g would erase a direction of the weights: reciprocal condition %g is under %g", lr,
        rcond, least_rcond);
}

/* X' from (I - H H'B) X = H P. */
static slg_status solve_small(slg_spherical_layer *l, layer_step *t)
{
    slg_ctx *ctx = l->ctx;
    const layer_batch *b = &l->batch;
    const int64_t d = l->dim, m = b->rows;
    double rcond;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < m; j++)
            t->mm[i * m + j] = (i == j) - t->hh[i * m + j] * t->b[j];
    SLG_TRY(blas_dgemm(ctx, true, true, d, m, d, 1, l->p, d, b->h, d, 0, t->xt, m));
    SLG_TRY(blas_dsolve(ctx, m, t->mm, d, t->xt, least_rcond, &rcond));
    if (!(rcond >= least_rcond)) return singular(ctx, t->lr, rcond);
    for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < d; i++) t->x[r * d + i] = t->xt[i * m + r];
    return SLG_OK;
}

/* The same for m > d, from A = I - H'B H:  P_new = A^-1 P, X = H P_new. */
static slg_status solve_wide(slg_spherical_layer *l, layer_step *t)
{
    slg_ctx *ctx = l->ctx;
    const layer_batch *b = &l->batch;
    const int64_t d = l->dim, m = b->rows;
    double rcond, *a = arena_alloc(ctx, (size_t)(d * d), sizeof *a);
    double *pt = arena_alloc(ctx, (size_t)(d * d), sizeof *pt);
    if (!a || !pt) return SLG_ERR_MEMORY;
    SLG_TRY(blas_dgemm(ctx, true, false, d, d, m, -1, b->h, d, t->bh, d, 0, a, d));
    for (int64_t i = 0; i < d; i++) a[i * d + i] += 1;
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < d; j++) pt[j * d + i] = l->p[i * d + j];
    SLG_TRY(blas_dsolve(ctx, d, a, d, pt, least_rcond, &rcond));
    if (!(rcond >= least_rcond)) return singular(ctx, t->lr, rcond);
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < d; j++) t->p[i * d + j] = pt[j * d + i];
    return blas_dgemm(ctx, false, false, m, d, d, 1, b->h, d, t->p, d, 0, t->x, d);
}

/* By merging runs: slots by class, and in order within one. */
static void sort_slots(const layer_batch *b, int64_t n, int64_t *order, int64_t *other)
{
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t at = 0; at < n; at += 2 * width) {
            int64_t i = at, end_i = at + width < n ? at + width : n, j = end_i;
            int64_t end_j = at + 2 * width < n ? at + 2 * width : n;
            for (int64_t k = at; k < end_j; k++) {
                bool left =
                    j == end_j || (i < end_i && b->target[order[i]] <= b->target[order[j]]);
                other[k] = left ? order[i++] : order[j++];
            }
        }
        memcpy(order, other, (size_t)n * sizeof *order);
    }
}

static int64_t class_end(const layer_batch *b, const layer_step *t, int64_t from)
{
    int64_t to = from + 1;
    while (to < t->slots && b->target[t->order[to]] == b->target[t->order[from]]) to++;
    return to;
}

/* New rows of V: V[c] - lr sum gamma X. Rounded once, however often a class is a target. */
static bool new_rows(const slg_spherical_layer *l, const layer_step *t, double *row)
{
    const layer_batch *b = &l->batch;
    const int64_t d = l->dim;
    int bad = 0;
    for (int64_t from = 0, to; from < t->slots; from = to) {
        const float *old = layer_v(l, b->target[t->order[from]]);
        float *v = t->v + from * d;
        to = class_end(b, t, from);
        for (int64_t i = 0; i < d; i++) row[i] = (double)old[i];
        for (int64_t k = from; k < to; k++)
            add_scaled(d, -t->lr * b->gamma[t->order[k]], t->x + t->order[k] / b->slots * d,
                       row);
        for (int64_t i = 0; i < d; i++) {
            v[i] = (float)row[i];
            bad |= !(fabs(row[i]) <= 1e37);
        }
    }
    return !bad;
}

/* M = G G' in mm. */
static slg_status outer_gradient(slg_spherical_layer *l, layer_step *t)
{
    const layer_batch *b = &l->batch;
    const int64_t d = l->dim, m = b->rows;
    SLG_TRY(blas_dgemm(l->ctx, false, true, m, m, d, 1, b->hq, d, b->h, d, 0, t->mm, m));
    SLG_TRY(blas_dgemm(l->ctx, false, true, m, m, d, 1, b->h, d, b->e, d, 0, t->cross, m));
    const double classes = (double)l->classes;
    for (int64_t i = 0; i < m; i++) {
        const double bi = 2 * b->beta[i], ai = b->alpha[i], xi = bi * b->s[i] + b->gamma_sum[i];
        for (int64_t j = 0; j < m; j++) {
            const double bj = 2 * b->beta[j], aj = b->alpha[j],
                         xj = bj * b->s[j] + b->gamma_sum[j];
            t->mm[i * m + j] = bi * bj * t->mm[i * m + j] + classes * ai * aj + xi * aj +
                               xj * ai + bi * t->cross[i * m + j] + bj * t->cross[j * m + i];
        }
    }
    for (int64_t from = 0, to; from < t->slots; from = to) {
        to = class_end(b, t, from);
        for (int64_t i = from; i < to; i++)
            for (int64_t j = from; j < to; j++)
                t->mm[t->order[i] / b->slots * m + t->order[j] / b->slots] +=
                    b->gamma[t->order[i]] * b->gamma[t->order[j]];
    }
    return SLG_OK;
}

/* All that the state will be changed by. */
static slg_status prepare(slg_spherical_layer *l, layer_step *t)
{
    slg_ctx *ctx = l->ctx;
    const layer_batch *b = &l->batch;
    const int64_t d = l->dim, m = b->rows;
    double *row = arena_alloc(ctx, (size_t)d, sizeof *row);
    SLG_TRY(step_reserve(l, t));
    if (!row) return SLG_ERR_MEMORY;
    for (int64_t r = 0; r < m; r++) {
        t->b[r] = 2 * t->lr * b->beta[r];
        for (int64_t i = r * d; i < (r + 1) * d; i++) t->bh[i] = t->b[r] * b->h[i];
    }
    SLG_TRY(blas_dgemm(ctx, false, true, m, m, d, 1, b->h, d, b->h, d, 0, t->hh, m));
    SLG_TRY(m > d ? solve_wide(l, t) : solve_small(l, t));
    for (int64_t k = 0; k < m * b->slots; k++)
        if (b->target[k] >= 0) t->order[t->slots++] = k;
    sort_slots(b, t->slots, t->order, t->order + m * b->slots);
    bool good = bounded(m * d, t->x) && bounded(m * d, t->bh) && new_rows(l, t, row);
    SLG_TRY(outer_gradient(l, t));
    for (int64_t i = 0; i < m * d; i++) t->y[i] = -t->lr * b->dh[i];
    SLG_TRY(blas_dgemm(ctx, false, false, m, d, m, 0.5 * t->lr * t->lr, t->mm, m, b->h, d, 1,
                       t->y, d));
    good = good && bounded(m * d, t->y) && (!t->p || bounded(d * d, t->p));
    if (good) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "a result of the step with lr %g is not finite", t->lr);
}

static slg_status commit(slg_spherical_layer *l, const layer_step *t)
{
    slg_ctx *ctx = l->ctx;
    const layer_batch *b = &l->batch;
    const int64_t d = l->dim, m = b->rows;
    if (t->p)
        memcpy(l->p, t->p, (size_t)(d * d) * sizeof *l->p);
    else
        SLG_TRY(blas_dgemm(ctx, true, false, d, d, m, 1, t->bh, d, t->x, d, 1, l->p, d));
    SLG_TRY(blas_dgemm(ctx, true, false, d, d, m, -1, b->hu, d, t->bh, d, 1, l->u, d));
    SLG_TRY(blas_dsyr2k(ctx, d, m, t->y, b->h, l->q));
    for (int64_t from = 0, to; from < t->slots; from = to) {
        to = class_end(b, t, from);
        memcpy(layer_v(l, b->target[t->order[from]]), t->v + from * d,
               (size_t)d * sizeof *t->v);
    }
    const double classes = (double)l->classes;
    double change = 0;    /* square of the Frobenius norm of H'B H, which bounds its spectral
                             norm */
    double *omega = t->y; /* of no use any more: the old omega's products */
    for (int64_t r = 0; r < m; r++) omega[r] = dot(d, l->omega, b->h + r * d);
    for (int64_t r = 0; r < m; r++) {
        const double *h = b->h + r * d;
        add_scaled(d, -(t->b[r] * omega[r] + t->lr * b->alpha[r]), h, l->omega);
        add_scaled(d, -(t->b[r] * b->s[r] + t->lr * (classes * b->alpha[r] + b->gamma_sum[r])),
                   h, l->wbar);
        for (int64_t j = 0; j < m; j++)
            change += t->b[r] * t->b[j] * t->hh[r * m + j] * t->hh[r * m + j];
    }
    change = sqrt(change > 0 ? change : 0);
    l->high *= 1 + change;
    l->low *= change < 1 ? 1 - change : 0;
    l->steps++;
    return SLG_OK;
}

slg_status layer_update(slg_spherical_layer *l, double lr)
{
    layer_step t = { .lr = lr };
    SLG_TRY(option_least(l->ctx, "lr", lr, 0));
    if (!l->pending)
        return slg_fail(l->ctx, SLG_ERR_STATE, "there is no forward to update from");
    if (lr > 0 && l->batch.rows > 0) {
        SLG_TRY(prepare(l, &t));
        SLG_TRY(commit(l, &t));
    }
    l->pending = false;
    return SLG_OK;
}
