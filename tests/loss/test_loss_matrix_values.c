/*
 * The values of every loss: soft-cap, mask and temperature, differences, rows with
 * NaN, masked labels, weights and reductions.
 */
#include "loss_matrix.h"
#include "support/gradcheck.h"

/* ---- Soft-cap, temperature, mask --------------------------------------------------------- */

/* The same problem with logits as the transforms make them; slopes of both, row by row. */
static world transformed(const world *w, double *slope, double *slope_t)
{
    uint64_t start = seed;
    world v = world_of(w->rows, w->cols);
    seed = start;
    memcpy(v.index, w->index, (size_t)w->rows * sizeof *v.index);
    memcpy(v.q, w->q, (size_t)(w->rows * w->cols) * sizeof *v.q);
    memcpy(v.row_weight, w->row_weight, (size_t)w->rows * sizeof *v.row_weight);
    memcpy(v.class_weight, w->class_weight, (size_t)w->cols * sizeof *v.class_weight);
    for (int64_t i = 0; i < w->rows * w->cols; i++) {
        double t = w->temperature * (w->row_temperature ? w->row_temperature[i / w->cols] : 1);
        const problem p = { .temperature = t, .softcap = w->softcap };
        v.x[i] = single(transform(&p, 0, w->x[i], &slope[i]));
        v.y[i] = single(transform(&p, 0, w->y[i], &slope_t[i]));
    }
    return v;
}

static void check_transforms(slg_ctx *ctx, const entry *e, double temperature, double softcap,
                             bool by_row)
{
    enum { ROWS = 6, COLS = 41 };
    double slope[ROWS * COLS], slope_t[ROWS * COLS];
    world w = world_of(ROWS, COLS);
    w.temperature = temperature, w.softcap = softcap;
    if (by_row) {
        w.row_temperature = zeros(ROWS, sizeof(double));
        for (int r = 0; r < ROWS; r++) w.row_temperature[r] = r % 3 == 0 ? 1 : r % 3 * 1.5;
    }
    world v = transformed(&w, slope, slope_t);
    result y = run(ctx, e, &w, &plain), want = run(ctx, e, &v, &plain);
    for (int64_t r = 0; r < ROWS; r++) {
        close_to(e, "loss, transformed", y.loss[r], want.loss[r], 1 + fabs(want.loss[r]), 2e-5);
        double size = row_size(&want, want.d, r), size_t_ = row_size(&want, want.dt, r);
        for (int64_t i = r * COLS; i < (r + 1) * COLS; i++) {
            close_to(e, "gradient, transformed", y.d[i], want.d[i] * slope[i], size, 2e-5);
            close_to(e, "teacher's, transformed", y.dt[i], want.dt[i] * slope_t[i], size_t_,
                     2e-5);
        }
    }
    result_free(&y), result_free(&want), world_free(&w), world_free(&v);
}

/* A masked class is as one that is not there. */
static void check_mask(slg_ctx *ctx, const entry *e, int64_t cols)
{
    enum { ROWS = 5 };
    world w = world_of(ROWS, cols), v = world_of(ROWS, cols - (cols + 1) / 5);
    w.mask = zeros(cols, sizeof *w.mask);
    memcpy(v.row_weight, w.row_weight, ROWS * sizeof *v.row_weight);
    for (int64_t c = 0, n = 0; c < cols; c++) {
        w.mask[c] = c % 5 != 3;
        if (!w.mask[c]) continue;
        v.class_weight[n] = w.class_weight[c];
        for (int64_t r = 0; r < ROWS; r++) {
            v.x[r * v.cols + n] = w.x[r * cols + c], v.y[r * v.cols + n] = w.y[r * cols + c];
            v.q[r * v.cols + n] = w.q[r * cols + c];
            if (w.index[r] == c) v.index[r] = n;
        }
        n++;
    }
    for (int64_t r = 0; r < ROWS && (e->is & (CLASSWISE | TEACHER)) != CLASSWISE; r++)
        w.x[r * cols + 3] = r % 2 ? 1e30 : -INFINITY; /* what is under a mask does not matter */
    result y = run(ctx, e, &w, &plain), want = run(ctx, e, &v, &plain);
    for (int64_t r = 0; r < ROWS; r++) {
        close_to(e, "loss, masked", y.loss[r], want.loss[r], 1 + fabs(want.loss[r]), 2e-6);
        double size = row_size(&want, want.d, r), size_t_ = row_size(&want, want.dt, r);
        for (int64_t c = 0, n = 0; c < cols; c++) {
            bool live = w.mask[c];
            double d = live ? want.d[r * v.cols + n] : 0,
                   dt = live ? want.dt[r * v.cols + n] : 0;
            close_to(e, "gradient, masked", y.d[r * cols + c], d, live ? size : 0, 4e-6);
            close_to(e, "teacher's, masked", y.dt[r * cols + c], dt, live ? size_t_ : 0, 4e-6);
            n += live;
        }
    }
    result_free(&y), result_free(&want), world_free(&w), world_free(&v);
}

static void test_transforms(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    FOR_EACH_LOSS(e)
    {
        check_transforms(ctx, e, 2, 0, false);
        check_transforms(ctx, e, 0.7, 0, true);
        check_transforms(ctx, e, 1, 3, false);
        check_transforms(ctx, e, 1.3, 4, true);
        if (e->is & (NO_MASK | COUNTS_MASKED)) continue;
        check_mask(ctx, e, 32);
        check_mask(ctx, e, 2100);
    }
}

/* ---- Differences ------------------------------------------------------------------------- */

enum { SMALL_ROWS = 4, SMALL_COLS = 6 };

typedef struct probe {
    slg_ctx *ctx;
    const entry *e;
    world *w;
    double *at; /* what changes: w->x or w->y */
} probe;

static double value_at(const float *x, void *arg)
{
    const probe *p = arg;
    for (int i = 0; i < SMALL_ROWS * SMALL_COLS; i++) p->at[i] = (double)x[i];
    result y = run(p->ctx, p->e, p->w, &(form){ .no_grad = true });
    double value = y.out.value;
    result_free(&y);
    return value;
}

/* Half apart, in any order: farther from 0 and from the kinks of a hinge of margin 1.1 than a
   step is. */
static void spread(double *x)
{
    for (int r = 0; r < SMALL_ROWS; r++, x += SMALL_COLS)
        for (int c = 0; c < SMALL_COLS; c++) {
            int64_t at = below(c + 1);
            x[c] = x[at], x[at] = 0.5 * (c - 2) + 0.25;
        }
}

static void test_differences(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    FOR_EACH_LOSS(e)
    for (int side = 0; side < 1 + !!(e->is & TEACHER_GRAD); side++) {
        if (e->is & FROZEN) continue;
        world w = world_of(SMALL_ROWS, SMALL_COLS);
        spread(w.x), spread(w.y);
        if (e->is & INDEX) w.index[1] = -100;
        w.row_temperature = zeros(SMALL_ROWS, sizeof(double));
        for (int r = 0; r < SMALL_ROWS; r++) w.row_temperature[r] = r == 3 ? 1.0625 : 1;
        result y = run(ctx, e, &w, &plain);
        probe p = { ctx, e, &w, side ? w.y : w.x };
        float x[SMALL_ROWS * SMALL_COLS], d[SMALL_ROWS * SMALL_COLS];
        for (int i = 0; i < SMALL_ROWS * SMALL_COLS; i++)
            x[i] = (float)p.at[i], d[i] = (float)(side ? y.dt : y.d)[i];
        gradcheck_result found = gradcheck(value_at, &p, x, SMALL_ROWS * SMALL_COLS, d, NULL);
        if (!gradcheck_ok(&found, 2e-4, e->name)) fail();
        result_free(&y), world_free(&w);
    }
}

/* ---- Rows that are not finite ------------------------------------------------------------ */

static void check_bad_row(slg_ctx *ctx, const entry *e, const char *what, double bad,
                          bool of_teacher)
{
    enum { ROWS = 5, COLS = 40, AT = 2 };
    world w = world_of(ROWS, COLS);
    w.index[AT] = 5;
    result before = run(ctx, e, &w, &plain);
    (of_teacher ? w.y : w.x)[AT * COLS + 17] = bad;
    result y = run(ctx, e, &w, &plain);
    for (int64_t r = 0; r < ROWS; r++)
        if (r != AT) same_row(e, what, &before, &y, r);
    if (!isnan(y.loss[AT])) fail_msg("%s, %s: loss %g", e->name, what, y.loss[AT]);
    for (int64_t c = 0; c < COLS; c++)
        if (!isnan(y.d[AT * COLS + c])) fail_msg("%s, %s: gradient", e->name, what);
    w.index[AT] = -100; /* and where that row is ignored */
    if (e->is & INDEX) {
        result none = run(ctx, e, &w, &plain);
        for (int64_t c = 0; c < COLS; c++)
            if (none.d[AT * COLS + c] != 0) fail_msg("%s, ignored: gradient", e->name);
        assert_true(none.loss[AT] == 0 && isfinite(none.out.value) &&
                    none.out.count == ROWS - 1);
        result_free(&none);
    }
    result_free(&before), result_free(&y), world_free(&w);
}

static void check_empty_row(slg_ctx *ctx, const entry *e)
{
    enum { ROWS = 3, COLS = 40 };
    world w = world_of(ROWS, COLS);
    result before = run(ctx, e, &w, &plain);
    for (int64_t c = 0; c < COLS; c++) w.x[COLS + c] = -INFINITY;
    result y = run(ctx, e, &w, &plain);
    same_row(e, "nothing but -inf", &before, &y, 0);
    same_row(e, "nothing but -inf", &before, &y, 2);
    const bool nan = e->is & EMPTY_NAN;
    if (!alike(y.loss[1], nan ? (double)NAN : INFINITY))
        fail_msg("%s, nothing but -inf: loss %g", e->name, y.loss[1]);
    for (int64_t c = 0; c < COLS; c++)
        if (!alike(y.d[COLS + c], nan ? (double)NAN : 0))
            fail_msg("%s, nothing but -inf: gradient %g", e->name, y.d[COLS + c]);
    result_free(&before), result_free(&y), world_free(&w);
}

static void test_rows(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    FOR_EACH_LOSS(e)
    {
        check_bad_row(ctx, e, "NaN", NAN, false);
        if (e->is & TEACHER) check_bad_row(ctx, e, "the teacher's NaN", NAN, true);
        if (!(e->is & (CLASSWISE | INF_VALUE))) check_bad_row(ctx, e, "+inf", INFINITY, false);
        if (e->is & NO_MASK) check_bad_row(ctx, e, "-inf", -INFINITY, false);
        if (!(e->is & CLASSWISE)) check_empty_row(ctx, e);
    }
}

/* ---- Masked labels ----------------------------------------------------------------------- */

/* What -inf gives, from what -1e30 gives. */
static double limit(double x) { return fabs(x) > 1e20 ? (x > 0 ? INFINITY : -INFINITY) : x; }

/* A label whose own logit is -inf, or that the mask leaves out: the loss is the limit, so are
   the gradients of others; that of the label is 0, or the limit too. */
static void test_masked_labels(void **state)
{
    (void)state;
    enum { ROWS = 4, COLS = 40, AT = 1 };
    FOR_EACH_ISA(ctx, 1)
    FOR_EACH_LOSS(e)
    {
        if (!(e->is & INDEX) || (e->is & (NO_LIMIT | COUNTS_MASKED))) continue;
        world w = world_of(ROWS, COLS);
        double *label = &w.x[AT * COLS + w.index[AT]];
        *label = -1e30;
        result far = run(ctx, e, &w, &plain);
        *label = -INFINITY;
        result own = run(ctx, e, &w, &plain);
        w.mask = zeros(COLS, sizeof *w.mask), w.teacher_whole = true;
        for (int64_t c = 0; c < COLS; c++) w.mask[c] = c != w.index[AT];
        *label = 2;
        result masked = run(ctx, e, &w, &plain);
        close_to(e, "loss", own.loss[AT], limit(far.loss[AT]), fabs(far.loss[AT]), 1e-6);
        if (!alike(masked.loss[AT], own.loss[AT])) fail_msg("%s: loss, masked", e->name);
        for (int64_t c = 0; c < COLS; c++) {
            const int64_t i = AT * COLS + c;
            const bool here = c == w.index[AT];
            double want = here && !(e->is & OPEN_LABEL) ? 0 : limit(far.d[i]);
            close_to(e, here ? "at the label" : "beside it", own.d[i], want, fabs(want) + 1e-9,
                     2e-6);
            if (!alike(masked.d[i], here ? 0 : own.d[i]))
                fail_msg("%s: gradient[%d] is %g, masked", e->name, (int)c, masked.d[i]);
        }
        result_free(&far), result_free(&own), result_free(&masked), world_free(&w);
    }
}

/* ---- Weights and reductions -------------------------------------------------------------- */

static void test_reductions(void **state)
{
    (void)state;
    enum { ROWS = 6, COLS = 40 };
    FOR_EACH_ISA(ctx, 1)
    FOR_EACH_LOSS(e)
    {
        world w = world_of(ROWS, COLS);
        result sum = run(ctx, e, &w, &plain), y;
        double total = 0;
        for (int64_t r = 0; r < ROWS; r++) total += sum.loss[r];
        close_to(e, "sum", sum.out.sum, total, 1 + fabs(total), 1e-12);
        w.reduction = SLG_NONE;
        y = run(ctx, e, &w, &plain);
        same(e, "no reduction", &sum, &y), result_free(&y);
        w.reduction = SLG_MEAN;
        y = run(ctx, e, &w, &plain);
        close_to(e, "mean", y.out.value, total / sum.out.weight, 1 + fabs(total), 1e-12);
        for (int64_t i = 0; i < ROWS * COLS; i++) {
            double d = sum.d[i] / sum.out.weight, dt = sum.dt[i] / sum.out.weight;
            close_to(e, "gradient of a mean", y.d[i], d, row_size(&y, y.d, i / COLS), 1e-6);
            close_to(e, "gradient of a mean", y.dt[i], dt, row_size(&y, y.dt, i / COLS), 1e-6);
        }
        result_free(&y);
        /* A weight of 0, also of an infinite loss; all rows ignored. */
        w.reduction = SLG_SUM, w.row_weight[1] = 0, w.row_weight[4] *= 2;
        if (!(e->is & NO_MASK) && (e->is & INDEX)) w.x[COLS + w.index[1]] = -INFINITY;
        y = run(ctx, e, &w, &plain);
        close_to(e, "weight 2", y.loss[4], 2 * sum.loss[4], fabs(sum.loss[4]), 1e-12);
        assert_true(y.loss[1] == 0 && isfinite(y.out.value) && y.out.count == ROWS);
        for (int64_t c = 0; c < COLS; c++)
            if (y.d[COLS + c] != 0 || y.dt[COLS + c] != 0)
                fail_msg("%s: weight 0, gradient %g", e->name, y.d[COLS + c]);
        result_free(&y);
        for (int64_t r = 0; r < ROWS; r++) w.index[r] = -100;
        for (w.reduction = SLG_NONE; w.reduction <= SLG_SUM && (e->is & INDEX); w.reduction++) {
            y = run(ctx, e, &w, &plain);
            assert_true(y.out.value == 0 && y.out.count == 0 && y.out.weight == 0);
            for (int64_t i = 0; i < ROWS * COLS; i++) assert_true(y.d[i] == 0);
            result_free(&y);
        }
        result_free(&sum), world_free(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transforms), cmocka_unit_test(test_differences),
        cmocka_unit_test(test_rows),       cmocka_unit_test(test_masked_labels),
        cmocka_unit_test(test_reductions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
