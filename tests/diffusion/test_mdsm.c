/*
 * slg_mdsm and slg_nonnegative_score_matching against double arithmetic; gradients by finite
 * differences; what minimises them; threads, edges and errors.
 */
#include "diffusion_test.h"

static double noise_part(const setup *s, int64_t j, double t, double z)
{
    const double sigma = sigma_at(s, j);
    return (mu_at(s, j) - sigma * sigma / 2) * t + sigma * sqrt(t) * z;
}

/* ---- Values ------------------------------------------------------------------------------ */

typedef struct world {
    int64_t rows, cols;
    setup s;
    slg_mdsm_opts o;
    tensor h, x, x0, z, t, loss, dh;
    double value;
    bool by_noise;
} world;

static void world_open(world *w, int k)
{
    const enum layout layout = (enum layout)(k % 4), other = (enum layout)(k / 2 % 4);
    w->rows = shapes[k % 6][0], w->cols = shapes[k % 6][1];
    setup_open(&w->s, k / 6 % FORMS, w->cols);
    slg_mdsm_opts_init(&w->o, sizeof w->o);
    w->o.weight = k / 2 % 2, w->o.raw_score = k / 3 % 2;
    w->o.reduction = k % 3 ? SLG_MEAN : SLG_SUM;
    w->by_noise = k / 4 % 2;
    w->s.p.log_state = k % 7 == 3;
    const bool logs = w->s.p.log_state;
    w->h = random_matrix(types[k % 3], w->rows, w->cols, layout, 0, 2, false);
    w->x0 = random_matrix(SLG_F32, w->rows, w->cols, other, 0, 1, !logs);
    w->z = random_matrix(SLG_F32, w->rows, w->cols, layout, 0, 1, false);
    w->t = times(k % 2 ? SLG_F64 : SLG_F32, w->rows);
    w->x = matrix(SLG_F32, w->rows, w->cols, other);
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t j = 0; j < w->cols; j++) {
            const double e = noise_part(&w->s, j, get(&w->t, 0, i), get(&w->z, i, j));
            put(&w->x, i, j, logs ? get(&w->x0, i, j) + e : get(&w->x0, i, j) * exp(e));
        }
    w->loss = vector(k % 2 ? SLG_F64 : SLG_F32, w->rows, layout);
    w->dh = matrix(types[k / 2 % 3], w->rows, w->cols, other);
}

static void world_close(world *w)
{
    tensor *all[] = { &w->h, &w->x, &w->x0, &w->z, &w->t, &w->loss, &w->dh };
    for (int i = 0; i < 7; i++) release(all[i]);
    setup_free(&w->s);
}

static slg_status call(slg_ctx *ctx, world *w, tensor *dh)
{
    const bool noise = w->by_noise;
    return slg_mdsm(ctx, &w->h.t, noise && !w->o.raw_score ? NULL : &w->x.t,
                    noise ? NULL : &w->x0.t, noise ? &w->z.t : NULL, &w->t.t, &w->s.p, &w->o,
                    &w->loss.t, &w->value, &dh->t);
}

/* r, d r / dh, and 1 by the weight: (sigma^2 t) or 0. */
static double residual(const world *w, int64_t i, int64_t j, double *weight, double *size)
{
    const double t = get(&w->t, 0, i), sigma = sigma_at(&w->s, j), mu = mu_at(&w->s, j);
    const bool logs = w->s.p.log_state;
    const double x = get(&w->x, i, j), x0 = get(&w->x0, i, j);
    const double h = get(&w->h, i, j) * (!w->o.raw_score ? 1 : logs ? exp(x) : x);
    const double ratio = logs ? x - x0 : log(x / x0), square = sigma * sigma;
    *weight = w->o.weight == SLG_MDSM_PLAIN ? 1 : t > 0 ? 1 / (square * t) : 0;
    if (w->by_noise) {
        const double move = sigma * sqrt(t) * get(&w->z, i, j);
        *size = square * t * (fabs(h) + 1) + fabs(move);
        return square * t * (h + 1) + move;
    }
    *size = square * t * fabs(h) + fabs(ratio) + 1 + (logs ? fabs(x) : 0);
    return square * t * h + ratio + (1.5 * square - mu) * t;
}

static void check_world(const world *w)
{
    double total = 0, total_size = 0, n = w->o.reduction == SLG_MEAN ? (double)w->rows : 1;
    for (int64_t i = 0; i < w->rows; i++) {
        double loss = 0, error = 0;
        for (int64_t j = 0; j < w->cols; j++) {
            double weight, size, r = residual(w, i, j, &weight, &size);
            const double square = sigma_at(&w->s, j) * sigma_at(&w->s, j), x = get(&w->x, i, j);
            const double by = !w->o.raw_score ? 1 : w->s.p.log_state ? exp(x) : x;
            const double g = 2 / n * square * get(&w->t, 0, i) * weight * by;
            loss += weight * r * r;
            error += weight * (2 * fabs(r) + size * 1e-6) * size;
            assert_close(get(&w->dh, i, j), g * r,
                         1e-6 * fabs(g) * size + rounding(w->dh.t.dtype, g * r));
        }
        assert_close(get(&w->loss, 0, i), loss, 5e-7 * error + rounding(w->loss.t.dtype, loss));
        total += loss / n, total_size += error / n;
    }
    assert_close(w->value, total, 5e-7 * total_size);
}

static void test_values(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int k = 0; k < 84; k++) {
        world w;
        world_open(&w, k);
        OK(ctx, call(ctx, &w, &w.dh));
        check_world(&w);
        if (w.h.t.dtype == SLG_F32 && w.dh.t.dtype == SLG_F32) { /* in place */
            tensor *over = k % 2 ? &w.h : w.by_noise ? &w.z : &w.x0;
            OK(ctx, call(ctx, &w, over));
            assert_same_bits(over, &w.dh);
        }
        assert_gaps_intact(&w.dh), assert_gaps_intact(&w.loss);
        world_close(&w);
    }
    (void)state;
}

static void test_threads(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int k = 0; k < 36; k++) {
        world w;
        world_open(&w, k);
        OK(ctx, call(ctx, &w, &w.dh));
        const double value = w.value;
        tensor loss = w.loss, dh = w.dh;
        for (int32_t threads = 2; threads <= 8; threads += threads == 2 ? 1 : 5) {
            slg_ctx *many = context(isa_, threads);
            w.loss = vector(loss.t.dtype, w.rows, CONTIGUOUS);
            w.dh = matrix(dh.t.dtype, w.rows, w.cols, CONTIGUOUS);
            OK(many, call(many, &w, &w.dh));
            assert_true(value == w.value);
            assert_same_bits(&loss, &w.loss), assert_same_bits(&dh, &w.dh);
            release(&w.loss), release(&w.dh);
            slg_ctx_free(many);
        }
        w.loss = loss, w.dh = dh;
        world_close(&w);
    }
    (void)state;
}

/* ---- Identities -------------------------------------------------------------------------- */

typedef struct probe {
    slg_ctx *ctx;
    world *w;
} probe;

static double probe_value(const float *h, void *arg)
{
    probe *p = arg;
    p->w->h.t.data = (void *)(uintptr_t)h;
    OK(p->ctx, call(p->ctx, p->w, &p->w->dh));
    return p->w->value;
}

static void test_gradients(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int k = 0; k < 24; k++) {
        enum { ROWS = 3, COLS = 5 };
        world w;
        float h[ROWS * COLS], dh[ROWS * COLS];
        world_open(&w, 6 * k + 1);
        tensor x0 = random_matrix(SLG_F32, ROWS, COLS, CONTIGUOUS, 0, 0.3, !w.s.p.log_state);
        release(&w.x), release(&w.x0), release(&w.z), release(&w.dh), release(&w.h);
        release(&w.t), release(&w.loss), setup_free(&w.s);
        const int32_t log_state = w.s.p.log_state;
        setup_open(&w.s, k % FORMS, COLS);
        w.s.p.log_state = log_state, w.rows = ROWS, w.cols = COLS, w.x0 = x0;
        w.z = random_matrix(SLG_F32, ROWS, COLS, CONTIGUOUS, 0, 1, false);
        w.x = random_matrix(SLG_F32, ROWS, COLS, CONTIGUOUS, 0, 0.3, !log_state);
        w.h = random_matrix(SLG_F32, ROWS, COLS, CONTIGUOUS, 0, 1, false);
        w.dh = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
        w.t = times(SLG_F64, ROWS), w.loss = vector(SLG_F64, ROWS, CONTIGUOUS);
        w.o.reduction = SLG_SUM;
        memcpy(h, w.h.t.data, sizeof h);
        OK(ctx, call(ctx, &w, &w.dh));
        memcpy(dh, w.dh.t.data, sizeof dh);
        void *memory = w.h.t.data;
        probe p = { ctx, &w };
        gradcheck_result r = gradcheck(probe_value, &p, h, ROWS * COLS, dh, NULL);
        assert_true(gradcheck_ok(&r, 1e-4, "slg_mdsm"));
        w.h.t.data = memory;
        world_close(&w);
    }
    slg_ctx_free(ctx);
    (void)state;
}

/* r = 0 at h = h*; with x and x0 scaled together, by a power of 2 the same bits. */
static void test_target_and_scale(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int k = 0; k < 12; k++) {
        world w;
        world_open(&w, 2 * k);
        w.s.p.log_state = 0, w.o.raw_score = 0;
        for (int64_t i = 0; i < w.rows * w.cols; i++) { /* small: no subnormal, no overflow */
            put(&w.x, i / w.cols, i % w.cols, exp(0.3 * normal()));
            put(&w.x0, i / w.cols, i % w.cols, exp(0.3 * normal()));
        }
        const bool noise = w.by_noise;
        tensor h = matrix(SLG_F32, w.rows, w.cols, CONTIGUOUS), first = w.h;
        OK(ctx, slg_gbm_target(ctx, noise ? NULL : &w.x.t, noise ? NULL : &w.x0.t,
                               noise ? &w.z.t : NULL, &w.t.t, &w.s.p, &h.t));
        for (int64_t i = 0; i < w.rows * w.cols; i++)
            if (isnan(get(&h, i / w.cols, i % w.cols))) { /* t = 0: any h will do */
                put(&h, i / w.cols, i % w.cols, 0);
                put(&w.x, i / w.cols, i % w.cols, get(&w.x0, i / w.cols, i % w.cols));
            }
        w.h = h;
        OK(ctx, call(ctx, &w, &w.dh));
        for (int64_t i = 0; i < w.rows; i++)
            assert_close(get(&w.loss, 0, i), 0, 1e-11 * (double)w.cols);
        w.h = first;
        OK(ctx, call(ctx, &w, &w.dh));
        const double value = w.value;
        for (int64_t i = 0; i < w.rows * w.cols; i++) {
            put(&w.x, i / w.cols, i % w.cols, get(&w.x, i / w.cols, i % w.cols) * 0x1p90);
            put(&w.x0, i / w.cols, i % w.cols, get(&w.x0, i / w.cols, i % w.cols) * 0x1p90);
        }
        OK(ctx, call(ctx, &w, &w.dh));
        assert_true(w.value == value);
        release(&h), world_close(&w);
    }
    (void)state;
}

/* Log-normal data: regression of h* on log x_t gives the score of the noised law, and so does
   the least loss. Without noise, the least of non-negative score matching is in closed form. */
static void test_minimiser(void **state)
{
    enum { ROWS = 40000 };
    const double a = 0.4, b = 0.3, time = 0.6, square = 0.64;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    tensor x0 = random_matrix(SLG_F32, ROWS, 1, CONTIGUOUS, a, sqrt(b), true);
    tensor x = matrix(SLG_F32, ROWS, 1, CONTIGUOUS), h = matrix(SLG_F32, ROWS, 1, CONTIGUOUS);
    tensor g = matrix(SLG_F32, ROWS, 1, CONTIGUOUS), e = matrix(SLG_F32, ROWS, 1, CONTIGUOUS);
    tensor t = vector(SLG_F64, ROWS, CONTIGUOUS);
    slg_rng rng = { 11, 0 };
    fill_value(&t, time);
    OK(ctx, slg_gbm_forward(ctx, &x0.t, &t.t, NULL, &rng, NULL, &x.t, NULL, NULL, NULL));
    OK(ctx, slg_gbm_target(ctx, &x.t, &x0.t, NULL, &t.t, NULL, &h.t));
    double sy = 0, syy = 0, sh = 0, syh = 0;
    for (int64_t i = 0; i < ROWS; i++) {
        const double y = log(get(&x, i, 0)), v = get(&h, i, 0);
        sy += y / ROWS, syy += y * y / ROWS, sh += v / ROWS, syh += y * v / ROWS;
    }
    const double variance = syy - sy * sy, slope = (syh - sy * sh) / variance;
    const double spread = b + square * time;
    assert_close(slope, -1 / spread, 0.04);
    assert_close(sh - slope * sy, -1 + a / spread, 0.04);
    /* The gradient of an affine h vanishes at those numbers; of the other loss, at its own. */
    const double own = -1 / variance;
    for (int loss = 0; loss < 2; loss++) {
        const double beta = loss ? own : slope, alpha = loss ? -1 - own * sy : sh - slope * sy;
        double d_alpha = 0, d_beta = 0, value;
        for (int64_t i = 0; i < ROWS; i++) put(&h, i, 0, alpha + beta * log(get(&x, i, 0)));
        fill_value(&e, beta);
        if (loss)
            OK(ctx, slg_nonnegative_score_matching(ctx, &h.t, &e.t, SLG_MEAN, NULL, &value,
                                                   &g.t, &e.t));
        else
            OK(ctx,
               slg_mdsm(ctx, &h.t, &x.t, &x0.t, NULL, &t.t, NULL, NULL, NULL, &value, &g.t));
        for (int64_t i = 0; i < ROWS; i++) {
            d_alpha += get(&g, i, 0), d_beta += get(&g, i, 0) * log(get(&x, i, 0));
            if (loss) d_beta += get(&e, i, 0);
        }
        assert_close(d_alpha, 0, 1e-5);
        assert_close(d_beta, 0, 1e-5);
    }
    assert_close(own, slope, 0.05);
    release(&x0), release(&x), release(&h), release(&g), release(&e), release(&t);
    slg_ctx_free(ctx);
    (void)state;
}

/* ---- Non-negative score matching ----------------------------------------------------------
   */

static void test_nonnegative(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int k = 0; k < 24; k++) {
        const int64_t rows = shapes[k % 6][0], cols = shapes[k % 6][1];
        const int32_t out = types[k / 2 % 3], reduction = k / 3 % 2 ? SLG_SUM : SLG_MEAN;
        const double n = reduction == SLG_MEAN ? (double)rows : 1;
        tensor h = random_matrix(types[k % 3], rows, cols, (enum layout)(k % 4), 0, 2, false);
        tensor e =
            random_matrix(types[k / 4 % 3], rows, cols, (enum layout)(k / 2 % 4), 0, 2, false);
        tensor dh = matrix(out, rows, cols, COL_GAPS), de = matrix(out, rows, cols, ROW_GAPS);
        tensor loss = vector(SLG_F64, rows, CONTIGUOUS),
               again = vector(SLG_F64, rows, COL_GAPS);
        double value, total = 0, size = 0, same;
        OK(ctx, slg_nonnegative_score_matching(ctx, &h.t, &e.t, reduction, &loss.t, &value,
                                               &dh.t, &de.t));
        for (int64_t i = 0; i < rows; i++) {
            double row = 0, row_size = 0;
            for (int64_t j = 0; j < cols; j++) {
                const double v = get(&h, i, j), w = get(&e, i, j);
                row += v + w + v * v / 2, row_size += fabs(v) + fabs(w) + v * v / 2;
                assert_close(get(&dh, i, j), (1 + v) / n,
                             2e-7 * (1 + fabs(v)) / n + rounding(out, (1 + v) / n));
                assert_close(get(&de, i, j), 1 / n, 1e-7 / n + rounding(out, 1 / n));
            }
            assert_close(get(&loss, 0, i), row, 3e-7 * row_size);
            total += row / n, size += row_size / n;
        }
        assert_close(value, total, 3e-7 * size);
        slg_ctx *one = context(isa_, 1);
        OK(one, slg_nonnegative_score_matching(one, &h.t, &e.t, reduction, &again.t, &same,
                                               &h.t, &e.t));
        slg_ctx_free(one);
        assert_true(same == value);
        assert_same_bits(&loss, &again);
        if (h.t.dtype == out) assert_same_bits(&h, &dh);
        assert_gaps_intact(&dh), assert_gaps_intact(&de);
        tensor *all[] = { &h, &e, &dh, &de, &loss, &again };
        for (int i = 0; i < 6; i++) release(all[i]);
    }
    (void)state;
}

/* ---- Edges ------------------------------------------------------------------------------- */

/* Rows at t = 0: nothing with unit variance, whatever h is; subnormal and huge x; NaN and
   infinities of h stay in their rows; no rows, no columns. */
static void test_edges(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    {
        float h[6] = { NAN, INFINITY, 1, 2, 3, NAN }, x[6] = { 1, 2, 3e-42f, 1e30f, 1, 1 };
        float x0[6] = { 1, 2, 1.5e-42f, 2.5e29f, 1, 1 }, dh[6];
        double time[3] = { 0, 0.5, 1 }, loss[3], value;
        slg_tensor ht = slg_tensor_2d(h, SLG_F32, 3, 2), xt = ht, ot = ht, dt = ht;
        slg_tensor t = slg_tensor_1d(time, SLG_F64, 3), lt = t;
        slg_mdsm_opts o;
        slg_mdsm_opts_init(&o, sizeof o);
        o.weight = SLG_MDSM_UNIT_VARIANCE;
        xt.data = x, ot.data = x0, dt.data = dh, lt.data = loss;
        OK(ctx, slg_mdsm(ctx, &ht, &xt, &ot, NULL, &t, NULL, &o, &lt, &value, &dt));
        assert_true(loss[0] == 0 && dh[0] == 0 && dh[1] == 0);
        const double r1 = 0.32 + log((double)x[2] / (double)x0[2]) + 0.32;
        const double r2 = 0.64 + log((double)x[3] / (double)x0[3]) + 0.32;
        assert_close(loss[1], (r1 * r1 + r2 * r2) / 0.32, 1e-5);
        assert_true(isnan(loss[2]) && isnan(value) && isnan(dh[5]) && !isnan(dh[4]));
        o.weight = SLG_MDSM_PLAIN;
        h[0] = h[1] = 5;
        OK(ctx, slg_mdsm(ctx, &ht, &xt, &ot, NULL, &t, NULL, &o, &lt, &value, NULL));
        assert_true(loss[0] == 0);
        for (int empty = 0; empty < 2; empty++) {
            slg_tensor he = ht, te = t, le = lt;
            if (empty)
                he.shape[1] = 0;
            else
                he.shape[0] = te.shape[0] = le.shape[0] = 0;
            value = 7;
            OK(ctx, slg_mdsm(ctx, &he, &he, &he, NULL, &te, NULL, NULL, &le, &value, NULL));
            assert_true(value == 0);
            OK(ctx, slg_nonnegative_score_matching(ctx, &he, &he, SLG_MEAN, &le, &value, NULL,
                                                   NULL));
            assert_true(value == 0);
        }
    }
    (void)state;
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    tensor h = random_matrix(SLG_F32, 3, 2, CONTIGUOUS, 0, 1, false),
           x = random_matrix(SLG_F32, 3, 2, CONTIGUOUS, 0, 1, true);
    tensor dh = matrix(SLG_F32, 3, 2, CONTIGUOUS), wide = matrix(SLG_F32, 3, 3, CONTIGUOUS);
    tensor t = times(SLG_F64, 3), loss = vector(SLG_F64, 3, CONTIGUOUS),
           few = vector(SLG_F64, 2, CONTIGUOUS);
    slg_gbm p;
    slg_mdsm_opts o, bad;
    double value = 7;
    slg_gbm_init(&p, sizeof p), slg_mdsm_opts_init(&o, sizeof o);
    fill_value(&dh, 7), fill_value(&loss, 7);
#define MDSM(a, b, c, d, e, process, opts)                                                     \
    slg_mdsm(ctx, a, b, c, d, e, process, opts, &loss.t, &value, &dh.t)
    assert_int_equal(slg_mdsm(NULL, &h.t, &x.t, &x.t, NULL, &t.t, NULL, NULL, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    assert_refused(ctx, MDSM(NULL, &x.t, &x.t, NULL, &t.t, NULL, NULL), SLG_ERR_NULL,
                   "h is NULL");
    assert_refused(ctx, MDSM(&h.t, &x.t, &x.t, NULL, NULL, NULL, NULL), SLG_ERR_NULL,
                   "t is NULL");
    assert_refused(ctx, MDSM(&h.t, NULL, &x.t, NULL, &t.t, NULL, NULL), SLG_ERR_NULL,
                   "x is NULL");
    assert_refused(ctx, MDSM(&h.t, &x.t, NULL, NULL, &t.t, NULL, NULL), SLG_ERR_NULL,
                   "z and x0");
    assert_refused(ctx, MDSM(&h.t, &x.t, &x.t, &x.t, &t.t, NULL, NULL), SLG_ERR_OPTIONS,
                   "z and x0");
    assert_refused(ctx, MDSM(&h.t, &wide.t, &x.t, NULL, &t.t, NULL, NULL), SLG_ERR_SHAPE, "x");
    assert_refused(ctx, MDSM(&h.t, &x.t, &x.t, NULL, &few.t, NULL, NULL), SLG_ERR_SHAPE, "t");
    assert_refused(ctx,
                   slg_mdsm(ctx, &h.t, &x.t, &x.t, NULL, &t.t, NULL, NULL, &few.t, NULL, NULL),
                   SLG_ERR_SHAPE, "loss");
    assert_refused(ctx,
                   slg_mdsm(ctx, &h.t, &x.t, &x.t, NULL, &t.t, NULL, NULL, &t.t, NULL, NULL),
                   SLG_ERR_STRIDE, "loss overlaps t");
    static const struct {
        size_t at;
        int32_t value;
        const char *word;
    } options[] = { { offsetof(slg_mdsm_opts, weight), 2, "weight" },
                    { offsetof(slg_mdsm_opts, raw_score), -1, "raw_score" },
                    { offsetof(slg_mdsm_opts, reduction), SLG_NONE, "reduction" } };
    for (int i = 0; i < 3; i++) {
        bad = o;
        memcpy((char *)&bad + options[i].at, &options[i].value, 4);
        assert_refused(ctx, MDSM(&h.t, &x.t, &x.t, NULL, &t.t, NULL, &bad), SLG_ERR_RANGE,
                       options[i].word);
    }
    bad = o, bad.raw_score = 1;
    assert_refused(ctx, MDSM(&h.t, NULL, NULL, &h.t, &t.t, NULL, &bad), SLG_ERR_NULL,
                   "x is NULL");
    bad = o, bad.size = 7;
    assert_refused(ctx, MDSM(&h.t, &x.t, &x.t, NULL, &t.t, NULL, &bad), SLG_ERR_OPTIONS,
                   "opts");
    p.sigma = 0;
    assert_refused(ctx, MDSM(&h.t, &x.t, &x.t, NULL, &t.t, &p, NULL), SLG_ERR_RANGE, "> 0");
    put(&x, 1, 1, 0);
    assert_refused(ctx, MDSM(&h.t, &x.t, &x.t, NULL, &t.t, NULL, NULL), SLG_ERR_RANGE,
                   "x is 0 at row 1, column 1");
    assert_refused(
        ctx, slg_nonnegative_score_matching(ctx, &h.t, &h.t, SLG_NONE, NULL, NULL, NULL, NULL),
        SLG_ERR_RANGE, "reduction");
    assert_refused(
        ctx, slg_nonnegative_score_matching(ctx, &h.t, NULL, SLG_SUM, NULL, NULL, NULL, NULL),
        SLG_ERR_NULL, "xdh");
    assert_refused(
        ctx, slg_nonnegative_score_matching(ctx, &h.t, &x.t, SLG_SUM, NULL, NULL, &x.t, NULL),
        SLG_ERR_STRIDE, "dh overlaps xdh");
    assert_true(value == 7);
    for (int i = 0; i < 6; i++) assert_true(get(&dh, i / 2, i % 2) == 7);
    for (int i = 0; i < 3; i++) assert_true(get(&loss, 0, i) == 7);
    tensor *all[] = { &h, &x, &dh, &wide, &t, &loss, &few };
    for (int i = 0; i < 7; i++) release(all[i]);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),    cmocka_unit_test(test_threads),
        cmocka_unit_test(test_gradients), cmocka_unit_test(test_target_and_scale),
        cmocka_unit_test(test_minimiser), cmocka_unit_test(test_nonnegative),
        cmocka_unit_test(test_edges),     cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
