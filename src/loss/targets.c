/*
 * targets.c - see targets.h.
 */
#include "targets.h"

#include <math.h>

#include "core/options.h"

/* How far from 1 a row of prob may sum: float32, and the 16-bit types. */
#define PROB_TOLERANCE 1e-3
#define PROB_TOLERANCE_16 1e-2

static const slg_targets defaults = { .size = sizeof(slg_targets), .ignore_index = -100 };

void slg_targets_init(slg_targets *targets, size_t size)
{
    options_init(targets, size, &defaults, sizeof defaults);
}

static slg_status unused(slg_ctx *ctx, const char *name, const void *given, unsigned uses,
                         unsigned flag)
{
    if (!given || (uses & flag)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_NULL, "targets.%s must be NULL: this loss does not use it",
                    name);
}

static slg_status check_index(slg_ctx *ctx, const target_set *t)
{
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t c = rows_get_int(&t->index, r, 0);
        if (c == t->ignore_index || (c >= 0 && c < t->cols)) continue;
        return slg_fail(
            ctx, SLG_ERR_RANGE,
            "targets.index[%lld] is %lld, must be from 0 to %lld, or ignore_index %lld",
            (long long)r, (long long)c, (long long)t->cols - 1, (long long)t->ignore_index);
    }
    return SLG_OK;
}

static slg_status check_weights(slg_ctx *ctx, const char *name, const rows *m, int64_t count,
                                bool per_row)
{
    for (int64_t i = 0; i < count; i++) {
        double w = per_row ? rows_get(m, i, 0) : rows_get(m, 0, i);
        if (w >= 0 && isfinite(w)) continue;
        return slg_fail(ctx, SLG_ERR_RANGE, "%s[%lld] is %g, must be finite and at least 0",
                        name, (long long)i, w);
    }
    return SLG_OK;
}

/* ---- Distributions: a read of all of them, over the pool -------------------------------- */

typedef struct prob_check {
    const slg_ctx *ctx;
    const target_set *t;
    bool labels; /* TARGET_LABELS */
    int64_t ranges;
    int64_t *bad;  /* first bad row of each range, or -1 */
    double *value; /* its sum, or NaN for an entry that is negative, NaN or, of labels, above
                      1 */
} prob_check;

/* NaN where an entry is not in [0, limit]. */
static double row_sum(const kernel_table *k, const rows *m, int64_t row, float limit)
{
    float scratch[KERNEL_BLOCK];
    double sum = 0;
    const int64_t step = m->plain ? m->cols : KERNEL_BLOCK; /* nothing goes to scratch */
    for (int64_t c = 0; c < m->cols; c += step) {
        int64_t n = m->cols - c < step ? m->cols - c : step;
        double part;
        if (!k->within((size_t)n, rows_fetch(k, m, row, c, n, scratch), limit, &part))
            return NAN;
        sum += part;
    }
    return sum;
}

static void check_prob_range(void *arg, int64_t task, int32_t worker)
{
    prob_check *p = arg;
    int64_t last = pool_range_start(p->t->rows, p->ranges, task + 1);
    (void)worker;
    p->bad[task] = -1;
    for (int64_t r = pool_range_start(p->t->rows, p->ranges, task); r < last; r++) {
        double sum = row_sum(&p->ctx->k, &p->t->prob, r, p->labels ? 1.0f : INFINITY);
        double tolerance = p->t->prob.dtype == SLG_F32 ? PROB_TOLERANCE : PROB_TOLERANCE_16;
        if (p->labels ? !isnan(sum) : fabs(sum - 1) <= tolerance) continue;
        p->bad[task] = r;
        p->value[task] = sum;
        return;
    }
}

static slg_status check_prob(slg_ctx *ctx, const target_set *t, bool labels)
{
    prob_check p = { .ctx = ctx, .t = t, .labels = labels };
    p.ranges = pool_ranges(ctx, t->rows, (1 << 15) / (t->cols + 1) + 1);
    p.bad = arena_alloc(ctx, (size_t)p.ranges, sizeof *p.bad);
    p.value = arena_alloc(ctx, (size_t)p.ranges, sizeof *p.value);
    if (!p.bad || !p.value) return SLG_ERR_MEMORY;
    pool_run(ctx, p.ranges, check_prob_range, &p);
    for (int64_t i = 0; i < p.ranges; i++) {
        if (p.bad[i] < 0) continue;
        if (labels)
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "targets.prob, row %lld, has an entry that is not from 0 to 1",
                            (long long)p.bad[i]);
        if (isnan(p.value[i]))
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "targets.prob, row %lld, has a negative or NaN entry",
                            (long long)p.bad[i]);
        return slg_fail(ctx, SLG_ERR_RANGE, "targets.prob, row %lld, sums to %g, must sum to 1",
                        (long long)p.bad[i], p.value[i]);
    }
    return SLG_OK;
}

/* ---- All of them ------------------------------------------------------------------------ */

slg_status targets_class_weight(slg_ctx *ctx, const char *name, const slg_tensor *given,
                                int64_t cols, const float **out)
{
    *out = NULL;
    if (!given) return SLG_OK;
    SLG_TRY(tensor_in(ctx, name, given, DT_F32, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, given, 1, &cols));
    rows m = rows_of(given);
    SLG_TRY(check_weights(ctx, name, &m, cols, false));
    float *w = arena_alloc(ctx, (size_t)cols, sizeof *w);
    if (!w) return SLG_ERR_MEMORY;
    for (int64_t c = 0; c < cols; c++) w[c] = (float)rows_get(&m, 0, c);
    *out = w;
    return SLG_OK;
}

static slg_status open_per_row(slg_ctx *ctx, const char *name, const slg_tensor *given,
                               unsigned dtypes, int64_t count, rows *out)
{
    SLG_TRY(tensor_in(ctx, name, given, dtypes, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, given, 1, &count));
    *out = rows_per_row(given);
    return SLG_OK;
}

static slg_status check_fields(slg_ctx *ctx, const slg_targets *g, unsigned uses)
{
    SLG_TRY(unused(ctx, "index", g->index, uses, TARGET_INDEX));
    SLG_TRY(unused(ctx, "prob", g->prob, uses, TARGET_PROB));
    SLG_TRY(unused(ctx, "row_weight", g->row_weight, uses, TARGET_ROW_WEIGHT));
    SLG_TRY(unused(ctx, "class_weight", g->class_weight, uses, TARGET_CLASS_WEIGHT));
    SLG_TRY(unused(ctx, "teacher", g->teacher, uses, TARGET_TEACHER));
    SLG_TRY(option_reserved(ctx, "targets.reserved", g->reserved));
    const bool index = uses & TARGET_INDEX, prob = uses & TARGET_PROB;
    if (index && prob && !g->index == !g->prob)
        return slg_fail(ctx, SLG_ERR_NULL, "targets needs index or prob, one of the two");
    if (index && !prob && !g->index)
        return slg_fail(ctx, SLG_ERR_NULL, "targets.index is NULL");
    if (prob && !index && !g->prob) return slg_fail(ctx, SLG_ERR_NULL, "targets.prob is NULL");
    if ((uses & TARGET_TEACHER) && !g->teacher)
        return slg_fail(ctx, SLG_ERR_NULL, "targets.teacher is NULL");
    return SLG_OK;
}

slg_status targets_open(slg_ctx *ctx, const slg_targets *given, unsigned uses,
                        int64_t row_count, int64_t cols, target_set *t)
{
    slg_targets g = defaults;
    *t = (target_set){ .rows = row_count, .cols = cols };
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "targets is NULL");
    SLG_TRY(options_read(ctx, "targets", given, &g, sizeof g));
    SLG_TRY(check_fields(ctx, &g, uses));
    t->ignore_index = g.ignore_index;
    t->teacher = g.teacher;
    if (g.index) {
        SLG_TRY(open_per_row(ctx, "targets.index", g.index, DT_INT, row_count, &t->index));
        t->has_index = true;
        SLG_TRY(check_index(ctx, t));
    }
    if (g.row_weight) {
        SLG_TRY(open_per_row(ctx, "targets.row_weight", g.row_weight, DT_F32, row_count,
                             &t->row_weight));
        SLG_TRY(check_weights(ctx, "targets.row_weight", &t->row_weight, row_count, true));
    }
    SLG_TRY(targets_class_weight(ctx, "targets.class_weight", g.class_weight, cols,
                                 &t->class_weight));
    if (g.prob) {
        const int64_t shape[2] = { row_count, cols };
        SLG_TRY(tensor_in(ctx, "targets.prob", g.prob, DT_ROW, 2, 2));
        SLG_TRY(tensor_shape_is(ctx, "targets.prob", g.prob, 2, shape));
        t->prob = rows_of(g.prob);
        t->has_prob = true;
        if (!(uses & TARGET_ANY_PROB)) SLG_TRY(check_prob(ctx, t, uses & TARGET_LABELS));
    }
    return SLG_OK;
}

int64_t targets_index(const target_set *t, int64_t row)
{
    if (!t->has_index) return -1;
    int64_t c = rows_get_int(&t->index, row, 0);
    return c == t->ignore_index ? -1 : c;
}

bool targets_ignored(const target_set *t, int64_t row)
{
    return t->has_index && rows_get_int(&t->index, row, 0) == t->ignore_index;
}

double targets_weight(const target_set *t, int64_t row)
{
    return t->row_weight.data ? rows_get(&t->row_weight, row, 0) : 1.0;
}

bool targets_clash(const slg_targets *given, const slg_tensor *out)
{
    slg_targets g = defaults;
    slg_logits t;
    slg_logits_init(&t, sizeof t);
    if (!given || !out) return false;
    options_read(NULL, "targets", given, &g, sizeof g);
    if (g.teacher) options_read(NULL, "teacher", g.teacher, &t, sizeof t);
    const slg_tensor *in[] = { g.index, g.prob,           g.row_weight, g.class_weight,
                               t.dense, t.hidden,         t.weight,     t.bias,
                               t.mask,  t.row_temperature };
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        if (in[i] && (tensor_clash(out, in[i]) || (out->data && out->data == in[i]->data)))
            return true;
    return false;
}
