/*
 * tables.c - recursions over the layers of a table: dilated bonuses from the last layer back,
 * occupancy from the first on. What is read is the transitions, once: rows of them go to
 * threads on the way back, columns on the way on, so that each sum has one order.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "linear_mdp.h"
#include "softmax/parts.h"

/* Numbers of a task; columns of a task. */
enum { TASK = 1 << 15, COLUMNS = 512, LANES = 8 };

static const slg_dilated_bonus_opts defaults = { .size = sizeof(slg_dilated_bonus_opts),
                                                 .dilation = NAN };

void slg_dilated_bonus_opts_init(slg_dilated_bonus_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* ---- Checks ----------------------------------------------------------------------------- */

slg_status table_check(slg_ctx *ctx, const table_shape *t)
{
    int64_t pairs, all;
    if (t->layers < 1 || t->states < 1 || t->actions < 1)
        return slg_fail(ctx, SLG_ERR_SHAPE,
                        "a table of %lld layers, %lld states, %lld actions: each must be at "
                        "least 1",
                        (long long)t->layers, (long long)t->states, (long long)t->actions);
    if (__builtin_mul_overflow(t->states, t->actions, &pairs) ||
        __builtin_mul_overflow(pairs, t->layers, &all) || all > INT64_MAX / 64)
        return slg_fail(ctx, SLG_ERR_SHAPE, "a table of %lld x %lld x %lld overflows",
                        (long long)t->layers, (long long)t->states, (long long)t->actions);
    return SLG_OK;
}

slg_status transition_check(slg_ctx *ctx, const table_shape *t, const slg_tensor *transition)
{
    if (!transition && t->layers == 1) return SLG_OK;
    SLG_TRY(tensor_in(ctx, "transition", transition, DT_FEATURE, 4, 4));
    const int64_t layers = transition->shape[0] == t->layers - 1 ? t->layers - 1 : t->layers;
    const int64_t shape[4] = { layers, t->states, t->actions, t->states };
    return tensor_shape_is(ctx, "transition", transition, 4, shape);
}

/* ---- Back ------------------------------------------------------------------------------- */

typedef struct back_run {
    const rows *p;
    int64_t first, pairs, block;
    double factor;
    const double *next; /* [S] values of the next layer */
    double *total;      /* [pairs] of this one */
    double *scratch;    /* [workers, S] */
} back_run;

static void back_pairs(void *arg, int64_t task, int32_t worker)
{
    const back_run *b = arg;
    const int64_t n = b->p->cols;
    double *x = b->scratch + worker * n;
    for (int64_t r = task * b->block; r < (task + 1) * b->block && r < b->pairs; r++) {
        double lane[LANES] = { 0 }, sum = 0;
        row_doubles(b->p, b->first + r, x);
        for (int64_t i = 0; i < n; i++) lane[i % LANES] += x[i] * b->next[i];
        for (int j = 0; j < LANES; j++) sum += lane[j];
        b->total[r] += b->factor * sum;
    }
}

static void average(const table_shape *t, const double *policy, const double *total,
                    double *value)
{
    for (int64_t s = 0; s < t->states; s++) {
        value[s] = 0;
        for (int64_t i = s * t->actions; i < (s + 1) * t->actions; i++)
            value[s] += policy[i] * total[i];
    }
}

slg_status dilate(slg_ctx *ctx, const table_shape *t, const double *bonus,
                  const slg_tensor *transition, const double *policy, double factor,
                  double *total, double *value)
{
    const arena_mark_t mark = arena_mark(ctx);
    const int64_t pairs = t->states * t->actions;
    const size_t each = (size_t)t->states * (size_t)ctx->num_threads;
    rows p = { .cols = 0 };
    if (transition) p = rows_of(transition);
    back_run b = { .p = &p, .pairs = pairs, .factor = factor };
    b.block = t->states < TASK ? TASK / t->states : 1;
    b.scratch = arena_alloc(ctx, each, sizeof *b.scratch);
    if (!b.scratch) return SLG_ERR_MEMORY;
    if (total != bonus) memcpy(total, bonus, (size_t)(t->layers * pairs) * sizeof *total);
    for (int64_t h = t->layers - 1; h >= 0; h--) {
        if (h < t->layers - 1) {
            b.first = h * pairs, b.next = value + (h + 1) * t->states;
            b.total = total + h * pairs;
            pool_run(ctx, (pairs + b.block - 1) / b.block, back_pairs, &b);
        }
        average(t, policy + h * pairs, total + h * pairs, value + h * t->states);
    }
    arena_release(ctx, mark);
    return SLG_OK;
}

static slg_status bonus_run(slg_ctx *ctx, const slg_tensor *bonus, const slg_tensor *transition,
                            const slg_tensor *policy, const slg_dilated_bonus_opts *given,
                            slg_tensor *total, slg_tensor *value)
{
    slg_dilated_bonus_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, &o, sizeof o));
    SLG_TRY(option_reserved(ctx, "reserved", o.reserved));
    if (!isnan(o.dilation)) SLG_TRY(option_least(ctx, "dilation", o.dilation, 0));
    SLG_TRY(tensor_in(ctx, "bonus", bonus, DT_FEATURE, 3, 3));
    const table_shape t = { bonus->shape[0], bonus->shape[1], bonus->shape[2] };
    SLG_TRY(table_check(ctx, &t));
    SLG_TRY(transition_check(ctx, &t, transition));
    SLG_TRY(input_of(ctx, "policy", policy, DT_FEATURE, 3, bonus->shape));
    if (total) SLG_TRY(output_of(ctx, "total", total, DT_REAL, 3, bonus->shape));
    if (value) SLG_TRY(output_of(ctx, "value", value, DT_REAL, 2, bonus->shape));
    if (tensor_clash(total, bonus) || tensor_clash(total, transition) ||
        tensor_clash(total, policy) || tensor_clash(value, bonus) ||
        tensor_clash(value, transition) || tensor_clash(value, policy) ||
        outputs_clash(total, value))
        return slg_fail(ctx, SLG_ERR_STRIDE, "total or value overlaps another tensor");
    op_detail(ctx, bonus);
    double *b = tensor_doubles(ctx, bonus), *pi = tensor_doubles(ctx, policy);
    double *v = arena_alloc(ctx, (size_t)(t.layers * t.states), sizeof *v);
    if (!b || !pi || !v) return SLG_ERR_MEMORY;
    const double dilation = isnan(o.dilation) ? 1 / (double)t.layers : o.dilation;
    SLG_TRY(dilate(ctx, &t, b, transition, pi, 1 + dilation, b, v));
    doubles_write(total, b), doubles_write(value, v);
    return SLG_OK;
}

slg_status slg_dilated_bonus(slg_ctx *ctx, const slg_tensor *bonus,
                             const slg_tensor *transition, const slg_tensor *policy,
                             const slg_dilated_bonus_opts *opts, slg_tensor *total,
                             slg_tensor *value)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_dilated_bonus");
    return op_end(ctx, bonus_run(ctx, bonus, transition, policy, opts, total, value));
}

/* ---- On --------------------------------------------------------------------------------- */

typedef struct on_run {
    const kernel_table *k;
    const rows *p;
    int64_t first, pairs;
    const double *from; /* [pairs] occupancy of this layer */
    double *reach;      /* [S] of the next */
    float *scratch;     /* [workers, COLUMNS] */
} on_run;

static void on_columns(void *arg, int64_t task, int32_t worker)
{
    const on_run *o = arg;
    const int64_t col = task * COLUMNS, left = o->p->cols - col;
    const int64_t n = left < COLUMNS ? left : COLUMNS;
    float *scratch = o->scratch + worker * COLUMNS;
    for (int64_t i = 0; i < n; i++) o->reach[col + i] = 0;
    for (int64_t r = 0; r < o->pairs; r++) {
        const double w = o->from[r];
        if (w == 0) continue;
        if (o->p->dtype == SLG_F64) {
            for (int64_t i = 0; i < n; i++)
                o->reach[col + i] += w * rows_get(o->p, o->first + r, col + i);
        } else {
            const float *x = rows_fetch(o->k, o->p, o->first + r, col, n, scratch);
            for (int64_t i = 0; i < n; i++) o->reach[col + i] += w * (double)x[i];
        }
    }
}

slg_status occupy(slg_ctx *ctx, const table_shape *t, const slg_tensor *transition,
                  const double *policy, const double *start, double *occupancy)
{
    const arena_mark_t mark = arena_mark(ctx);
    const int64_t pairs = t->states * t->actions;
    const int64_t tasks = (t->states + COLUMNS - 1) / COLUMNS;
    rows p = { .cols = 0 };
    if (transition) p = rows_of(transition);
    double *reach = arena_alloc(ctx, (size_t)t->states, sizeof *reach);
    on_run o = { .k = &ctx->k, .p = &p, .pairs = pairs, .reach = reach };
    o.scratch = arena_alloc(ctx, COLUMNS * (size_t)ctx->num_threads, sizeof *o.scratch);
    if (!reach || !o.scratch) return SLG_ERR_MEMORY;
    for (int64_t s = 0; s < t->states; s++) reach[s] = start ? start[s] : s == 0;
    for (int64_t h = 0; h < t->layers; h++) {
        double *out = occupancy + h * pairs;
        for (int64_t i = 0; i < pairs; i++) {
            const double r = reach[i / t->actions];
            out[i] = r == 0 ? 0 : r * policy[h * pairs + i];
        }
        if (h == t->layers - 1) break;
        o.first = h * pairs, o.from = out;
        pool_run(ctx, tasks, on_columns, &o);
    }
    arena_release(ctx, mark);
    return SLG_OK;
}

static slg_status occupancy_run(slg_ctx *ctx, const slg_tensor *transition,
                                const slg_tensor *policy, const slg_tensor *start,
                                slg_tensor *occupancy)
{
    SLG_TRY(tensor_in(ctx, "policy", policy, DT_FEATURE, 3, 3));
    const table_shape t = { policy->shape[0], policy->shape[1], policy->shape[2] };
    SLG_TRY(table_check(ctx, &t));
    SLG_TRY(transition_check(ctx, &t, transition));
    if (start) SLG_TRY(input_of(ctx, "start", start, DT_REAL, 1, &t.states));
    SLG_TRY(output_of(ctx, "occupancy", occupancy, DT_REAL, 3, policy->shape));
    if (tensor_clash(occupancy, transition) || tensor_clash(occupancy, policy) ||
        tensor_clash(occupancy, start))
        return slg_fail(ctx, SLG_ERR_STRIDE, "occupancy overlaps another tensor");
    op_detail(ctx, policy);
    double *pi = tensor_doubles(ctx, policy), *s = NULL;
    double *out = arena_alloc(ctx, (size_t)tensor_size(policy), sizeof *out);
    if (start && !(s = tensor_doubles(ctx, start))) return SLG_ERR_MEMORY;
    if (!pi || !out) return SLG_ERR_MEMORY;
    SLG_TRY(occupy(ctx, &t, transition, pi, s, out));
    doubles_write(occupancy, out);
    return SLG_OK;
}

slg_status slg_occupancy(slg_ctx *ctx, const slg_tensor *transition, const slg_tensor *policy,
                         const slg_tensor *start, slg_tensor *occupancy)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_occupancy");
    return op_end(ctx, occupancy_run(ctx, transition, policy, start, occupancy));
}
