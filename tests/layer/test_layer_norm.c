/*
 * Layer and RMS normalisation and their gradients: against double arithmetic, finite
 * differences, with the addition before, far from 0, with NaN, and for any number of threads.
 */
#include "layer_test.h"

typedef struct truth_t {
    double mean, rstd;
} truth_t;

static double s_of(const array *x, const array *residual, int64_t r, int64_t c)
{
    double s = get(x, r, c);
    return residual ? (double)(float)(s + get(residual, r, c)) : s;
}

static truth_t stats_of(const array *s, int64_t r, bool rms, double eps)
{
    const int64_t n = cols_in(&s->t);
    truth_t w = { 0, 0 };
    for (int64_t c = 0; c < n && !rms; c++) w.mean += get(s, r, c) / (double)n;
    for (int64_t c = 0; c < n; c++) w.rstd += pow(get(s, r, c) - w.mean, 2) / (double)n;
    w.rstd = 1 / sqrt(w.rstd + eps);
    return w;
}

/* y and stats against double arithmetic of s. */
static void check_forward(bool rms, const array *s, const array *weight, const array *bias,
                          const array *y, const array *stats)
{
    for (int64_t r = 0; r < rows_in(&s->t); r++) {
        truth_t w = stats_of(s, r, rms, 1e-5);
        double top = 0;
        for (int64_t c = 0; c < cols_in(&s->t); c++)
            top = fmax(top, fabs(get(s, r, c) - w.mean));
        for (int64_t c = 0; c < cols_in(&s->t); c++) {
            double h = (get(s, r, c) - w.mean) * w.rstd, f = weight ? at(weight, c) : 1;
            double want = h * f + (bias ? at(bias, c) : 0);
            double error = (top * w.rstd * fabs(f) + fabs(want)) * 4e-6;
            assert_near(get(y, r, c), want, error + rounding(y->t.dtype, want),
                        "row %d column %d of %d", (int)r, (int)c, (int)cols_in(&s->t));
        }
        if (!stats) continue;
        if (!rms)
            assert_near(load(SLG_F32, element(&stats->t, r, 0)), w.mean,
                        1e-6 * (fabs(w.mean) + top), "mean of row %d", (int)r);
        double got = rms ? get_row(stats, r) : get(stats, r, 1);
        assert_near(got, w.rstd, 4e-6 * w.rstd, "rstd of row %d", (int)r);
    }
    assert_gaps(y);
}

static slg_status norm(slg_ctx *ctx, bool rms, const array *x, const array *residual,
                       const array *weight, const array *bias, array *sum, array *y,
                       array *stats)
{
    const slg_tensor *r = residual ? &residual->t : NULL, *w = weight ? &weight->t : NULL;
    slg_tensor *s = sum ? &sum->t : NULL, *st = stats ? &stats->t : NULL;
    if (rms) return slg_rms_norm(ctx, &x->t, r, w, NULL, s, &y->t, st);
    return slg_layer_norm(ctx, &x->t, r, w, bias ? &bias->t : NULL, NULL, s, &y->t, st);
}

static array new_stats(bool rms, const array *x)
{
    int64_t shape[4];
    memcpy(shape, x->t.shape, sizeof shape);
    if (rms && x->t.ndim > 1) return new_array(SLG_F32, x->t.ndim - 1, shape, DENSE);
    shape[x->t.ndim - 1] = rms ? 1 : 2;
    return new_array(SLG_F32, x->t.ndim, shape, DENSE);
}

static void test_formulas(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int k = 0; k < 2 * LAYER_CASES; k++) {
        const bool rms = k >= LAYER_CASES;
        const layer_case c = case_of(k % LAYER_CASES);
        array x = random_array(c.in, c.ndim, c.shape, c.layout, 2, k % 2 ? 3 : 0);
        array y = new_array(c.out, c.ndim, c.shape, c.other), stats = new_stats(rms, &x);
        array weight = random_vector(cols_in(&x.t), 1, 0.5),
              bias = random_vector(cols_in(&x.t), 1, 0);
        const array *w = k % 4 < 2 ? &weight : NULL, *b = k % 8 < 4 && !rms ? &bias : NULL;
        ok(norm(ctx, rms, &x, NULL, w, b, NULL, &y, &stats));
        check_forward(rms, &x, w, b, &y, &stats);
        /* With a residual: the sum is stored, rounded, and normalised as it was rounded. */
        array residual = random_array(c.out, c.ndim, c.shape, c.other, 1, 0);
        array sum = new_array(c.out, c.ndim, c.shape, c.layout);
        ok(norm(ctx, rms, &x, &residual, w, b, &sum, &y, &stats));
        for (int64_t r = 0; r < rows_in(&x.t); r++)
            for (int64_t i = 0; i < cols_in(&x.t); i++) {
                double want = s_of(&x, &residual, r, i);
                assert_near(get(&sum, r, i), want, rounding(c.out, want), "sum");
            }
        assert_gaps(&sum);
        check_forward(rms, &sum, w, b, &y, &stats);
        /* In place of x: y, and the sum. */
        array kept = copy_array(&x), into = copy_array(&x),
              other = new_array(c.in, c.ndim, c.shape, DENSE);
        ok(norm(ctx, rms, &kept, NULL, w, b, NULL, &other, NULL));
        ok(norm(ctx, rms, &into, NULL, w, b, NULL, &into, NULL));
        assert_same(&into, &other);
        array other_sum = new_array(c.in, c.ndim, c.shape, DENSE);
        ok(norm(ctx, rms, &kept, &residual, w, b, &other_sum, &other, NULL));
        ok(norm(ctx, rms, &kept, &residual, w, b, &kept, &into, NULL));
        assert_same(&kept, &other_sum);
        assert_same(&into, &other);
        array *all[] = { &x,   &y,    &stats, &weight, &bias,     &residual,
                         &sum, &kept, &into,  &other,  &other_sum };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

/* ---- Backward ---------------------------------------------------------------------------- */

static slg_status norm_back(slg_ctx *ctx, bool rms, const array *s, const array *weight,
                            const array *stats, const array *dy, const array *dsum,
                            const slg_norm_opts *o, array *ds, array *dweight, array *dbias)
{
    const slg_tensor *w = weight ? &weight->t : NULL, *add = dsum ? &dsum->t : NULL;
    slg_tensor *d = ds ? &ds->t : NULL;
    if (rms)
        return slg_rms_norm_backward(ctx, &s->t, w, &stats->t, &dy->t, add, o, d, &dweight->t);
    return slg_layer_norm_backward(ctx, &s->t, w, &stats->t, &dy->t, add, o, d, &dweight->t,
                                   &dbias->t);
}

static void check_backward(bool rms, const array *s, const array *weight, const array *dy,
                           const array *dsum, const array *ds, const array *dweight,
                           const array *dbias, double before)
{
    const int64_t n = cols_in(&s->t), count = rows_in(&s->t);
    double *dw = calloc((size_t)n, 4 * sizeof *dw);
    for (int64_t r = 0; r < count; r++) {
        truth_t t = stats_of(s, r, rms, 1e-5);
        double g = 0, gh = 0, size = 0;
        for (int64_t c = 0; c < n; c++) {
            double h = (get(s, r, c) - t.mean) * t.rstd, d = get(dy, r, c);
            double w = weight ? at(weight, c) : 1;
            g += rms ? 0 : d * w / (double)n, gh += d * w * h / (double)n;
            size = fmax(size, fabs(d * w) * (1 + fabs(h)) * (1 + fabs(h)));
            dw[c] += d * h, dw[n + c] += d;
            dw[2 * n + c] += fabs(d) * (1 + fabs(h)), dw[3 * n + c] += fabs(d);
        }
        for (int64_t c = 0; c < n && ds; c++) {
            double h = (get(s, r, c) - t.mean) * t.rstd;
            double want = t.rstd * (get(dy, r, c) * (weight ? at(weight, c) : 1) - g - h * gh);
            if (dsum) want += get(dsum, r, c);
            assert_near(get(ds, r, c), want,
                        size * t.rstd * 8e-6 + rounding(ds->t.dtype, want) + 1e-6,
                        "ds: row %d column %d of %d", (int)r, (int)c, (int)n);
        }
    }
    for (int64_t c = 0; c < n; c++) {
        assert_near(at(dweight, c), before + dw[c], 1e-5 * dw[2 * n + c] + 1e-6, "dweight");
        if (!rms)
            assert_near(at(dbias, c), before + dw[n + c], 1e-5 * dw[3 * n + c] + 1e-6, "dbias");
    }
    if (ds) assert_gaps(ds);
    free(dw);
}

static void test_gradients(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int k = 0; k < 2 * LAYER_CASES; k++) {
        const bool rms = k >= LAYER_CASES;
        const layer_case c = case_of(k % LAYER_CASES);
        slg_norm_opts o;
        slg_norm_opts_init(&o, sizeof o);
        o.accumulate = k % 3 == 1;
        array s = random_array(c.in, c.ndim, c.shape, c.layout, 2, k % 2 ? 3 : 0);
        array dy = random_array(c.out, c.ndim, c.shape, c.other, 1, 0),
              stats = new_stats(rms, &s);
        array y = new_array(SLG_F32, c.ndim, c.shape, DENSE),
              ds = new_array(c.in, c.ndim, c.shape, c.other);
        array dsum = random_array(c.in, c.ndim, c.shape, c.layout, 1, 0);
        array weight = random_vector(cols_in(&s.t), 1, 0.5);
        array dw = random_vector(cols_in(&s.t), 0, 7), db = random_vector(cols_in(&s.t), 0, 7);
        const array *w = k % 4 < 2 ? &weight : NULL, *add = k % 8 < 4 ? &dsum : NULL;
        ok(norm(ctx, rms, &s, NULL, w, NULL, NULL, &y, &stats));
        ok(norm_back(ctx, rms, &s, w, &stats, &dy, add, &o, &ds, &dw, &db));
        check_backward(rms, &s, w, &dy, add, &ds, &dw, &db, o.accumulate ? 7 : 0);
        /* ds in place of dsum, and of dy; ds not wanted. */
        array in_sum = copy_array(&dsum), in_dy = copy_array(&dy),
              again = new_array(c.out, c.ndim, c.shape, DENSE);
        array again_in = new_array(c.in, c.ndim, c.shape, DENSE);
        o.accumulate = 0;
        ok(norm_back(ctx, rms, &s, w, &stats, &dy, &dsum, &o, &again_in, &dw, &db));
        ok(norm_back(ctx, rms, &s, w, &stats, &dy, &in_sum, &o, &in_sum, &dw, &db));
        assert_same(&in_sum, &again_in);
        ok(norm_back(ctx, rms, &s, w, &stats, &dy, add, &o, &again, &dw, &db));
        ok(norm_back(ctx, rms, &s, w, &stats, &in_dy, add, &o, &in_dy, &dw, &db));
        assert_same(&in_dy, &again);
        ok(norm_back(ctx, rms, &s, w, &stats, &dy, NULL, &o, NULL, &dw, &db));
        check_backward(rms, &s, w, &dy, NULL, NULL, &dw, &db, 0);
        array *all[] = { &s,  &dy, &stats,  &y,     &ds,    &dsum,    &weight,
                         &dw, &db, &in_sum, &in_dy, &again, &again_in };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

typedef struct difference {
    slg_ctx *ctx;
    bool rms;
    array *x, *weight, *dy, *y;
} difference;

static double value(const float *x, void *arg)
{
    difference *d = arg;
    double sum = 0;
    memcpy(d->x->t.data, x, (size_t)(rows_in(&d->x->t) * cols_in(&d->x->t)) * sizeof *x);
    ok(norm(d->ctx, d->rms, d->x, NULL, d->weight, NULL, NULL, d->y, NULL));
    for (int64_t r = 0; r < rows_in(&d->y->t); r++)
        for (int64_t c = 0; c < cols_in(&d->y->t); c++)
            sum += get(d->y, r, c) * get(d->dy, r, c);
    return sum;
}

static void test_differences(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (int rms = 0; rms < 2; rms++) {
        array x = new_2d(SLG_F32, 3, 17, DENSE), y = new_2d(SLG_F32, 3, 17, DENSE),
              ds = new_2d(SLG_F32, 3, 17, DENSE);
        array dy = new_2d(SLG_F32, 3, 17, DENSE), weight = random_vector(17, 1, 0),
              stats = new_stats(rms, &x);
        array dw = random_vector(17, 1, 0), db = random_vector(17, 1, 0);
        float at_x[51];
        fill(at_x, 51, 2, 1), fill(dy.t.data, 51, 1, 0);
        difference d = { ctx, rms, &x, &weight, &dy, &y };
        value(at_x, &d);
        ok(norm(ctx, rms, &x, NULL, &weight, NULL, NULL, &y, &stats));
        ok(norm_back(ctx, rms, &x, &weight, &stats, &dy, NULL, NULL, &ds, &dw, &db));
        gradcheck_result g = gradcheck(value, &d, at_x, 51, ds.t.data, NULL);
        assert_true(gradcheck_ok(&g, 1e-4, rms ? "RMS norm" : "layer norm"));
        array *all[] = { &x, &y, &ds, &dy, &weight, &stats, &dw, &db };
        for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    }
    slg_ctx_free(ctx);
}

/* A row far from 0, huge rows, tiny rows; NaN and infinity stay in their row. */
static void test_edges(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    array x = new_2d(SLG_F32, 4, 64, DENSE), y = new_2d(SLG_F32, 4, 64, DENSE),
          stats = new_stats(false, &x);
    array dy = new_2d(SLG_F32, 4, 64, DENSE), ds = new_2d(SLG_F32, 4, 64, DENSE);
    array dw = random_vector(64, 0, 0), db = random_vector(64, 0, 0);
    fill(dy.t.data, 256, 1, 0);
    for (int64_t c = 0; c < 64; c++) {
        put(&x, 0, c, 1e6 + normal());
        put(&x, 1, c, 1e30 * normal());
        put(&x, 2, c, 1e-3 * normal());
        put(&x, 3, c, normal());
    }
    for (int rms = 0; rms < 2; rms++) {
        array st = new_stats(rms, &x);
        ok(norm(ctx, rms, &x, NULL, NULL, NULL, NULL, &y, &st));
        check_forward(rms, &x, NULL, NULL, &y, &st);
        ok(norm_back(ctx, rms, &x, NULL, &st, &dy, NULL, NULL, &ds, &dw, &db));
        check_backward(rms, &x, NULL, &dy, NULL, &ds, &dw, &db, 0);
        for (int bad = 0; bad < 2; bad++) {
            array kept = copy_array(&y);
            put(&x, 1, 5, bad ? INFINITY : NAN);
            ok(norm(ctx, rms, &x, NULL, NULL, NULL, NULL, &y, NULL));
            assert_true(isnan(get(&y, 1, 5)));
            for (int64_t c = 0; c < 64; c++) put(&kept, 1, c, 0), put(&y, 1, c, 0);
            assert_same(&y, &kept);
            for (int64_t c = 0; c < 64; c++) put(&x, 1, c, 1e30 * normal());
            ok(norm(ctx, rms, &x, NULL, NULL, NULL, NULL, &y, NULL));
            free_array(&kept);
        }
        free_array(&st);
    }
    /* No rows: gradients of weights are 0. */
    slg_tensor none = slg_tensor_2d(NULL, SLG_F32, 0, 64),
               no_stats = slg_tensor_2d(NULL, SLG_F32, 0, 2);
    ok(slg_layer_norm(ctx, &none, NULL, NULL, NULL, NULL, NULL, &none, &no_stats));
    put(&dw, 0, 3, 5), put(&db, 0, 3, 5);
    ok(slg_layer_norm_backward(ctx, &none, NULL, &no_stats, &none, NULL, NULL, &none, &dw.t,
                               &db.t));
    assert_true(get(&dw, 0, 3) == 0 && get(&db, 0, 3) == 0);
    array *all[] = { &x, &y, &stats, &dy, &ds, &dw, &db };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

static void test_threads(void **state)
{
    array first[5];
    (void)state;
    seed = 5;
    array x = new_2d(SLG_F32, 700, 96, DENSE), dy = new_2d(SLG_F32, 700, 96, DENSE);
    fill(x.t.data, 700 * 96, 2, 1), fill(dy.t.data, 700 * 96, 1, 0);
    array weight = random_vector(96, 1, 0);
    for (int32_t threads = 1; threads <= 8; threads = threads == 3 ? 8 : threads + 1) {
        slg_ctx *ctx = new_ctx(0, threads);
        array out[5] = { new_2d(SLG_F32, 700, 96, DENSE), new_stats(false, &x),
                         new_2d(SLG_F32, 700, 96, DENSE), random_vector(96, 0, 0),
                         random_vector(96, 0, 0) };
        ok(norm(ctx, false, &x, NULL, &weight, NULL, NULL, &out[0], &out[1]));
        ok(norm_back(ctx, false, &x, &weight, &out[1], &dy, NULL, NULL, &out[2], &out[3],
                     &out[4]));
        for (int i = 0; i < 5; i++) {
            if (threads == 1) {
                first[i] = out[i];
                continue;
            }
            assert_same(&out[i], &first[i]);
            free_array(&out[i]);
        }
        slg_ctx_free(ctx);
    }
    for (int i = 0; i < 5; i++) free_array(&first[i]);
    free_array(&x), free_array(&dy), free_array(&weight);
}

static void test_errors(void **state)
{
    slg_ctx *ctx = new_ctx(0, 1);
    array x = new_2d(SLG_F32, 3, 8, DENSE), y = new_2d(SLG_F32, 3, 8, DENSE),
          wide = new_2d(SLG_F32, 3, 9, DENSE);
    array weight = random_vector(9, 1, 0), stats = new_2d(SLG_F32, 3, 2, DENSE);
    slg_norm_opts o;
    (void)state;
    fill(x.t.data, 24, 1, 0);
    slg_norm_opts_init(&o, sizeof o);
    assert_int_equal(slg_layer_norm(NULL, &x.t, NULL, NULL, NULL, NULL, NULL, &y.t, NULL),
                     SLG_ERR_NULL);
    assert_refused(ctx, slg_layer_norm(ctx, &x.t, NULL, NULL, NULL, NULL, NULL, &wide.t, NULL),
                   SLG_ERR_SHAPE, "y", &wide);
    assert_refused(ctx,
                   slg_layer_norm(ctx, &x.t, NULL, &weight.t, NULL, NULL, NULL, &y.t, NULL),
                   SLG_ERR_SHAPE, "weight", &y);
    assert_refused(ctx, slg_layer_norm(ctx, &x.t, NULL, NULL, NULL, NULL, &y.t, &y.t, NULL),
                   SLG_ERR_NULL, "residual", &y);
    assert_refused(ctx, slg_layer_norm(ctx, &x.t, &x.t, NULL, NULL, NULL, &y.t, &y.t, NULL),
                   SLG_ERR_STRIDE, "y overlaps sum", &y);
    assert_refused(ctx, slg_layer_norm(ctx, &x.t, &y.t, NULL, NULL, NULL, NULL, &y.t, NULL),
                   SLG_ERR_STRIDE, "y overlaps residual", &y);
    assert_refused(ctx, slg_layer_norm(ctx, &x.t, NULL, NULL, NULL, NULL, NULL, &y.t, &wide.t),
                   SLG_ERR_SHAPE, "stats", &y);
    o.eps = -1;
    assert_refused(ctx, slg_layer_norm(ctx, &x.t, NULL, NULL, NULL, &o, NULL, &y.t, NULL),
                   SLG_ERR_RANGE, "eps is -1", &y);
    o.eps = 1e-5, o.accumulate = 2;
    assert_refused(ctx, slg_rms_norm(ctx, &x.t, NULL, NULL, &o, NULL, &y.t, NULL),
                   SLG_ERR_RANGE, "accumulate is 2", &y);
    assert_refused(ctx,
                   slg_layer_norm_backward(ctx, &x.t, NULL, &stats.t, &wide.t, NULL, NULL, &y.t,
                                           NULL, NULL),
                   SLG_ERR_SHAPE, "dy", &y);
    assert_refused(
        ctx, slg_layer_norm_backward(ctx, &x.t, NULL, NULL, &x.t, NULL, NULL, &y.t, NULL, NULL),
        SLG_ERR_NULL, "stats", &y);
    assert_refused(
        ctx,
        slg_layer_norm_backward(ctx, &x.t, NULL, &stats.t, &y.t, NULL, NULL, &x.t, NULL, NULL),
        SLG_ERR_STRIDE, "ds overlaps s", &x);
    assert_refused(ctx,
                   slg_layer_norm_backward(ctx, &x.t, NULL, &stats.t, &y.t, NULL, NULL, NULL,
                                           &weight.t, NULL),
                   SLG_ERR_SHAPE, "dweight", &weight);
    array *all[] = { &x, &y, &wide, &weight, &stats };
    for (size_t i = 0; i < COUNT(all); i++) free_array(all[i]);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_formulas), EACH_ISA(test_gradients),       EACH_ISA(test_differences),
        EACH_ISA(test_edges),    cmocka_unit_test(test_threads), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
