/*
 * StableMax against double arithmetic from its formulas, its identities, and what it is for:
 * a loss and a gradient where softmax's are exactly 0.
 */
#include <float.h>

#include "loss_test.h"
#include "support/gradcheck.h"

static double s_of(double z) { return z >= 0 ? 1 + z : 1 / (1 - z); }
static double log_s(double z) { return copysign(log1p(fabs(z)), z); }

/* ---- Reference: one row, finite or -inf -------------------------------------------------- */

typedef struct reference {
    double loss;
    double p[512], d[512], size[512];
} reference;

static reference reference_row(int64_t n, const double *x, int64_t y, const double *q, double t)
{
    reference r = { 0 };
    double total = 0, rest = 0, mass = 0;
    for (int64_t k = 0; k < n; k++) {
        double s = x[k] == -INFINITY ? 0 : s_of(x[k] / t);
        total += s;
        if (k != y) rest += s;
        if (q) mass += q[k];
    }
    if (!q) r.loss = x[y] == -INFINITY ? INFINITY : log1p(rest / s_of(x[y] / t));
    for (int64_t k = 0; k < n; k++) {
        if (x[k] == -INFINITY) continue;
        double z = x[k] / t, slope = 1 / (1 + fabs(z)) / t, p = s_of(z) / total;
        r.p[k] = p;
        if (q) r.loss -= q[k] > 0 ? q[k] * (log_s(z) - log(total)) : 0;
        r.d[k] = q ? (mass * p - q[k]) * slope : k == y ? -rest / total * slope : p * slope;
        r.size[k] = q ? (mass * p + q[k]) * slope : fabs(r.d[k]);
    }
    return r;
}

/* ---- A problem in every form ------------------------------------------------------------- */

static slg_stablemax_loss_opts opts_of(int32_t reduction)
{
    slg_stablemax_loss_opts o;
    slg_stablemax_loss_opts_init(&o, sizeof o);
    assert_int_equal(o.reduction, SLG_MEAN);
    o.reduction = reduction;
    return o;
}

static void check_problem(slg_ctx *ctx, const problem *p, int32_t type, enum layout layout,
                          bool in_place)
{
    operands o;
    const slg_stablemax_loss_opts opts = opts_of(SLG_SUM);
    operands_of(p, type, SLG_F32, SLG_I64, SLG_I32, layout, &o);
    tensor loss = vector(SLG_F64, p->rows, layout),
           fresh = matrix(SLG_F32, p->rows, p->cols, layout);
    tensor *dx = in_place ? &o.x : &fresh;
    slg_loss_out out = loss_out(&loss.t, NULL);
    slg_logits_grad g = dense_grad(&dx->t);
    OK(ctx, slg_stablemax_loss(ctx, &o.logits, &o.targets, &opts, &out, &g));
    double sum = 0, most = 0;
    int64_t correct = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        const double *x = p->x + r * p->cols, w = p->row_weight ? p->row_weight[r] : 1;
        bool ignored = !p->has_prob && p->index[r] == p->ignore_index;
        double masked[512];
        for (int64_t k = 0; k < p->cols; k++)
            masked[k] = p->mask && !p->mask[k] ? -INFINITY : x[k];
        reference want = { 0 };
        if (!ignored)
            want = reference_row(p->cols, masked, p->has_prob ? -1 : p->index[r],
                                 p->has_prob ? p->q + r * p->cols : NULL, p->temperature);
        double size = fabs(want.loss) + (p->has_prob ? 20 : 0);
        compare("loss", r, 0, get(&loss, 0, r), w * want.loss, 1e-6 * w * size + 1e-300, &most);
        for (int64_t k = 0; k < p->cols; k++)
            compare("dlogits", r, k, get(dx, r, k), w * want.d[k],
                    1e-6 * w * want.size[k] + rounding(dx->t.dtype, w * want.d[k]), &most);
        sum += w * want.loss;
        if (!ignored)
            correct += first_max(masked, p->cols) ==
                       (p->has_prob ? first_max(p->q + r * p->cols, p->cols) : p->index[r]);
    }
    compare("sum", 0, 0, out.sum, sum, 1e-6 * (fabs(sum) + 20 * (double)p->rows), &most);
    assert_int_equal(out.correct, correct);
    if (!in_place) assert_gaps_intact(&fresh);
    release(&loss), release(&fresh), operands_free(&o);
}

static problem random_problem(int64_t rows, int64_t cols, double spread, int32_t type,
                              bool prob)
{
    problem p = problem_of(rows, cols);
    p.has_prob = prob;
    p.row_weight = zeros(rows, sizeof(double));
    if (prob) p.q = zeros(rows * cols, sizeof(double));
    for (int64_t r = 0; r < rows; r++) {
        p.row_weight[r] = single(uniform());
        p.index[r] = r % 5 == 3 ? -100 : below(cols);
        double mass = 0;
        for (int64_t k = 0; k < cols; k++) {
            p.x[r * cols + k] = as_dtype(type, spread * normal());
            if (prob) mass += p.q[r * cols + k] = k % 3 == 1 && cols > 2 ? 0 : uniform();
        }
        for (int64_t k = 0; k < cols && prob; k++)
            p.q[r * cols + k] = single(p.q[r * cols + k] / mass);
    }
    return p;
}

static void test_against_double(void **state)
{
    (void)state;
    static const int64_t widths[] = { 1, 2, 3, 17, 400 };
    static const double spreads[] = { 1e-3, 1, 30, 1e4, 1e18 };
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(widths); i++)
        for (int64_t j = 0; j < COUNT(spreads); j++)
            for (int prob = 0; prob < 2; prob++) {
                int32_t type = (i + j) % 3 == 1 && spreads[j] < 1e4 ? SLG_BF16 : SLG_F32;
                problem p = random_problem(9, widths[i], spreads[j], type, prob);
                if (i == 3) {
                    p.mask = zeros(widths[i], sizeof(int));
                    for (int64_t k = 0; k < widths[i]; k++) p.mask[k] = prob ? 1 : k % 4 != 2;
                }
                if (j == 2) p.temperature = 4; /* exact in float32 */
                check_problem(ctx, &p, type, (enum layout)((i + j) % 4), false);
                check_problem(ctx, &p, type, (enum layout)((i + j) % 4), true);
                problem_free(&p);
            }
}

/* ---- Gradients --------------------------------------------------------------------------- */

typedef struct checked {
    slg_ctx *ctx;
    int64_t rows, cols;
    const slg_targets *targets;
} checked;

static double value_of(const float *x, void *arg)
{
    const checked *c = arg;
    float copy[64];
    memcpy(copy, x, (size_t)(c->rows * c->cols) * sizeof *x);
    const slg_tensor t = slg_tensor_2d(copy, SLG_F32, c->rows, c->cols);
    const slg_logits l = slg_logits_dense(&t);
    const slg_stablemax_loss_opts o = opts_of(SLG_SUM);
    slg_loss_out out = loss_out(NULL, NULL);
    OK(c->ctx, slg_stablemax_loss(c->ctx, &l, c->targets, &o, &out, NULL));
    return out.value;
}

static void test_gradient(void **state)
{
    (void)state;
    float x[8] = { 1.5f, -2, 0.25f, -0.75f, 4, -INFINITY, 0.5f, -9 }, d[8];
    int32_t y[2] = { 1, 2 };
    float q[8] = { 0.5f, 0.25f, 0.25f, 0, 0.125f, 0, 0.375f, 0.5f };
    const slg_tensor index = slg_tensor_1d(y, SLG_I32, 2),
                     prob = slg_tensor_2d(q, SLG_F32, 2, 4);
    const slg_targets targets[2] = { slg_targets_index(&index), slg_targets_prob(&prob) };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int i = 0; i < 2; i++) {
        slg_tensor t = slg_tensor_2d(x, SLG_F32, 2, 4), dt = slg_tensor_2d(d, SLG_F32, 2, 4);
        const slg_logits l = slg_logits_dense(&t);
        const slg_stablemax_loss_opts o = opts_of(SLG_SUM);
        slg_loss_out out = loss_out(NULL, NULL);
        slg_logits_grad g = dense_grad(&dt);
        checked c = { ctx, 2, 4, &targets[i] };
        OK(ctx, slg_stablemax_loss(ctx, &l, &targets[i], &o, &out, &g));
        gradcheck_result result = gradcheck(value_of, &c, x, 8, d, NULL);
        assert_true(gradcheck_ok(&result, 1e-4, "stablemax"));
        double sum = 0; /* not softmax: no shift invariance */
        for (int k = 0; k < 4; k++) sum += (double)d[k];
        assert_true(fabs(sum) > 0.01);
    }
    slg_ctx_free(ctx);
}

/* ---- Probabilities ----------------------------------------------------------------------- */

static void test_probabilities(void **state)
{
    (void)state;
    static const double spreads[] = { 1e-5, 1, 1e3, 1e30 };
    FOR_EACH_ISA(ctx, 3)
    for (int64_t i = 0; i < COUNT(spreads) * 2; i++) {
        const int64_t cols = 300;
        int32_t type = i == 3 ? SLG_F16 : SLG_F32;
        tensor x = matrix(type, 5, cols, (enum layout)(i % 4));
        tensor y = matrix(SLG_F32, 5, cols, (enum layout)(i % 4));
        tensor ly = matrix(SLG_F32, 5, cols, CONTIGUOUS);
        double row[512], most = 0;
        for (int64_t r = 0; r < 5; r++)
            for (int64_t k = 0; k < cols; k++) {
                double v = spreads[i / 2] * normal();
                put(&x, r, k, r == 1 ? -fabs(v) : r == 2 && k % 3 == 0 ? -INFINITY : v);
            }
        OK(ctx, slg_stablemax(ctx, &x.t, NULL, &y.t));
        OK(ctx, slg_log_stablemax(ctx, &x.t, NULL, &ly.t));
        for (int64_t r = 0; r < 5; r++) {
            double sum = 0, total = 0;
            for (int64_t k = 0; k < cols; k++) row[k] = get(&x, r, k);
            for (int64_t k = 0; k < cols; k++) total += row[k] == -INFINITY ? 0 : s_of(row[k]);
            reference want = reference_row(cols, row, 0, NULL, 1);
            for (int64_t k = 0; k < cols; k++) {
                double p = get(&y, r, k), l = row[k] == -INFINITY ? -INFINITY : log_s(row[k]);
                compare("p", r, k, p, want.p[k], 1e-6 * want.p[k] + 2e-38, &most);
                compare("log p", r, k, get(&ly, r, k), l - log(total),
                        4e-7 * (1 + fabs(l) + fabs(log(total))), &most);
                sum += p;
            }
            assert_true(fabs(sum - 1) < 1e-6);
        }
        release(&x), release(&y), release(&ly);
    }
}

static void rows_of_four(slg_ctx *ctx, const float *x, float *p, float *lp)
{
    slg_tensor tx = slg_tensor_1d((void *)(uintptr_t)x, SLG_F32, 4);
    slg_tensor tp = slg_tensor_1d(p, SLG_F32, 4), tl = slg_tensor_1d(lp, SLG_F32, 4);
    OK(ctx, slg_stablemax(ctx, &tx, NULL, &tp));
    OK(ctx, slg_log_stablemax(ctx, &tx, NULL, &tl));
}

static void test_identities(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float p[4], lp[4], sp[4];
    for (double x = 1e-4; x < 1e38;
         x *= 7.7) { /* s(-x) = 1 / s(x): odds of x and 0 are those of 0 and -x */
        const float row[4] = { (float)x, 0, (float)-x, -INFINITY };
        rows_of_four(ctx, row, p, lp);
        assert_true(p[0] > p[1] && p[1] >= p[2] && p[3] == 0 && lp[3] == -INFINITY);
        assert_true(fabs((double)(lp[0] - lp[1]) - (double)(lp[1] - lp[2])) < 1e-4);
    }
    const float small[4] = { 3e-4f, -2e-4f, 1e-4f, 0 }; /* softmax to first order */
    rows_of_four(ctx, small, p, lp);
    slg_tensor ts = slg_tensor_1d((void *)(uintptr_t)small, SLG_F32, 4);
    slg_tensor tp = slg_tensor_1d(sp, SLG_F32, 4);
    OK(ctx, slg_softmax(ctx, &ts, NULL, &tp, NULL));
    for (int k = 0; k < 4; k++) assert_true(fabsf(p[k] - sp[k]) < 2e-7f);
    slg_ctx_free(ctx);
}

/* ---- Edges ------------------------------------------------------------------------------- */

static const struct edge {
    float x[4];
    int32_t y;
    double loss, d[4], p[4];
} edges[] = {
    { { INFINITY, 1, INFINITY, -2 }, 0, 0.6931471805599453, { 0, 0, 0, 0 }, { .5, 0, .5, 0 } },
    { { INFINITY, 1, -INFINITY, -2 }, 1, INFINITY, { 0, -.5, 0, 0 }, { 1, 0, 0, 0 } },
    { { INFINITY, 1, 2, 3 }, 0, 0, { 0, 0, 0, 0 }, { 1, 0, 0, 0 } },
    { { NAN, 1, -INFINITY, 3 }, 2, NAN, { NAN, NAN, NAN, NAN }, { NAN, NAN, NAN, NAN } },
    { { -INFINITY, -INFINITY, -INFINITY, -INFINITY },
      0,
      NAN,
      { NAN, NAN, NAN, NAN },
      { NAN, NAN, NAN, NAN } },
    { { -INFINITY, 1, 1, -INFINITY }, 0, INFINITY, { 0, .25, .25, 0 }, { 0, .5, .5, 0 } },
    { { -INFINITY, -7, -INFINITY, -INFINITY }, 1, 0, { 0, 0, 0, 0 }, { 0, 1, 0, 0 } },
    { { 0, -0.0f, -INFINITY, -INFINITY },
      0,
      0.6931471805599453,
      { -.5, .5, 0, 0 },
      { .5, .5, 0, 0 } },
};

static void test_edges(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(edges); i++) {
        const struct edge *e = &edges[i];
        float d[4], p[4], lp[4], x[4];
        double loss = NAN, most = 0;
        int32_t y = e->y;
        memcpy(x, e->x, sizeof x);
        const slg_tensor tx = slg_tensor_2d(x, SLG_F32, 1, 4),
                         ty = slg_tensor_1d(&y, SLG_I32, 1);
        slg_tensor td = slg_tensor_2d(d, SLG_F32, 1, 4), tl = slg_tensor_1d(&loss, SLG_F64, 1);
        const slg_logits l = slg_logits_dense(&tx);
        const slg_targets t = slg_targets_index(&ty);
        slg_loss_out out = loss_out(&tl, NULL);
        slg_logits_grad g = dense_grad(&td);
        OK(ctx, slg_stablemax_loss(ctx, &l, &t, NULL, &out, &g));
        compare("loss", i, 0, loss, e->loss, 1e-7, &most);
        rows_of_four(ctx, x, p, lp);
        for (int k = 0; k < 4; k++) {
            compare("d", i, k, (double)d[k], e->d[k], 1e-7, &most);
            compare("p", i, k, (double)p[k], e->p[k], 1e-7, &most);
            compare("log p", i, k, (double)lp[k], log(e->p[k]), 1e-6, &most);
        }
    }
}

/* A distribution on +inf entries, and beside them. */
static void test_infinite_prob(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float x[8] = { INFINITY, INFINITY, 1, -3, INFINITY, INFINITY, 1, -3 }, d[8];
    float q[8] = { 0.5f, 0.5f, 0, 0, 0.25f, 0, 0.75f, 0 };
    double loss[2];
    const slg_tensor tx = slg_tensor_2d(x, SLG_F32, 2, 4), tq = slg_tensor_2d(q, SLG_F32, 2, 4);
    slg_tensor td = slg_tensor_2d(d, SLG_F32, 2, 4), tl = slg_tensor_1d(loss, SLG_F64, 2);
    const slg_logits l = slg_logits_dense(&tx);
    const slg_targets t = slg_targets_prob(&tq);
    const slg_stablemax_loss_opts o = opts_of(SLG_SUM);
    slg_loss_out out = loss_out(&tl, NULL);
    slg_logits_grad g = dense_grad(&td);
    OK(ctx, slg_stablemax_loss(ctx, &l, &t, &o, &out, &g));
    assert_true(fabs(loss[0] - log(2)) < 1e-7 && loss[1] == INFINITY);
    for (int k = 0; k < 8; k++) assert_true(d[k] == (k == 6 ? -0.375f : 0.0f));
    slg_ctx_free(ctx);
}

/* ---- No collapse ------------------------------------------------------------------------- */

/* The gap at which softmax's loss is exactly 0 in float32 (17) and float64 (37), and far beyond
   it. */
static void test_no_collapse(void **state)
{
    (void)state;
    static const float gaps[] = { 18, 40, 1e3f, 1e6f, 1e20f, 1e30f };
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(gaps); i++) {
        float x[3] = { gaps[i], 0, 0 }, d[3], loss32 = NAN;
        double loss64 = NAN, gap = (double)gaps[i];
        int32_t y = 0;
        volatile float single_sum = 1 + expf(-gaps[i]) + expf(-gaps[i]);
        volatile double double_sum = 1 + exp(-gap) + exp(-gap);
        assert_true(single_sum == 1);
        assert_true((double_sum == 1) == (gap > 37));
        const slg_tensor tx = slg_tensor_2d(x, SLG_F32, 1, 3),
                         ty = slg_tensor_1d(&y, SLG_I32, 1);
        slg_tensor td = slg_tensor_2d(d, SLG_F32, 1, 3),
                   tl = slg_tensor_1d(&loss32, SLG_F32, 1);
        const slg_logits l = slg_logits_dense(&tx);
        const slg_targets t = slg_targets_index(&ty);
        slg_loss_out out = loss_out(&tl, NULL);
        slg_logits_grad g = dense_grad(&td);
        OK(ctx, slg_stablemax_loss(ctx, &l, &t, NULL, &out, &g));
        double want = log1p(2 / (1 + gap)), pull = -2 / (3 + gap) / (1 + gap);
        assert_true(fabs((double)loss32 / want - 1) < 1e-6);
        assert_true(gap > 1e18 || fabs((double)d[0] / pull - 1) < 1e-6);
        tl = slg_tensor_1d(&loss64, SLG_F64, 1);
        OK(ctx, slg_stablemax_loss(ctx, &l, &t, NULL, &out, NULL));
        assert_true(fabs(loss64 / want - 1) < 1e-6);
    }
}

/* At the ends of float32 the loss is finite: 2 log(3e38). */
static void test_extremes(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        float x[3] = { FLT_MAX, FLT_MAX, -FLT_MAX }, d[3];
        int32_t y = 2;
        const slg_tensor tx = slg_tensor_2d(x, SLG_F32, 1, 3),
                         ty = slg_tensor_1d(&y, SLG_I32, 1);
        slg_tensor td = slg_tensor_2d(d, SLG_F32, 1, 3);
        const slg_logits l = slg_logits_dense(&tx);
        const slg_targets t = slg_targets_index(&ty);
        slg_loss_out out = loss_out(NULL, NULL);
        slg_logits_grad g = dense_grad(&td);
        OK(ctx, slg_stablemax_loss(ctx, &l, &t, NULL, &out, &g));
        assert_true(fabs(out.value - 2 * log((double)FLT_MAX) - log(2)) < 1e-5);
        for (int k = 0; k < 3; k++) assert_true(fabsf(d[k]) < 1e-37f);
    }
}

/* ---- Threads, fused ---------------------------------------------------------------------- */

static void test_same_bits(void **state)
{
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    const int64_t rows = 13, cols = 5000;
    tensor x = matrix(SLG_F32, rows, cols, CONTIGUOUS),
           index = vector(SLG_I32, rows, CONTIGUOUS);
    float *first = zeros(rows * cols, sizeof *first);
    double value = 0;
    for (int64_t r = 0; r < rows; r++) put(&index, 0, r, (double)below(cols));
    for (int64_t i = 0; i < rows * cols; i++) put(&x, i / cols, i % cols, 50 * normal());
    for (int64_t i = 0; i < COUNT(threads); i++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
        tensor dx = matrix(SLG_F32, rows, cols, CONTIGUOUS);
        const slg_logits l = slg_logits_dense(&x.t);
        const slg_targets t = slg_targets_index(&index.t);
        slg_loss_out out = loss_out(NULL, NULL);
        slg_logits_grad g = dense_grad(&dx.t);
        OK(ctx, slg_stablemax_loss(ctx, &l, &t, NULL, &out, &g));
        if (i == 0) memcpy(first, dx.t.data, (size_t)(rows * cols) * 4), value = out.value;
        assert_memory_equal(first, dx.t.data, (size_t)(rows * cols) * 4);
        assert_true(out.value == value);
        release(&dx);
        slg_ctx_free(ctx);
    }
    free(first), release(&x), release(&index);
}

static void test_fused(void **state)
{
    (void)state;
    enum { N = 7, D = 5, C = 40 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    float h[N * D], w[C * D], x[N * C], dx[N * C], dh[N * D], dw[C * D];
    int32_t y[N];
    for (int i = 0; i < N * D; i++) h[i] = (float)normal();
    for (int i = 0; i < C * D; i++) w[i] = (float)normal();
    for (int i = 0; i < N; i++) y[i] = (int32_t)below(C);
    for (int i = 0; i < N * C; i++) {
        double sum = 0;
        for (int k = 0; k < D; k++) sum += (double)h[i / C * D + k] * (double)w[i % C * D + k];
        x[i] = (float)sum;
    }
    const slg_tensor th = slg_tensor_2d(h, SLG_F32, N, D), tw = slg_tensor_2d(w, SLG_F32, C, D);
    const slg_tensor tx = slg_tensor_2d(x, SLG_F32, N, C), ty = slg_tensor_1d(y, SLG_I32, N);
    slg_tensor tdx = slg_tensor_2d(dx, SLG_F32, N, C), tdh = slg_tensor_2d(dh, SLG_F32, N, D);
    slg_tensor tdw = slg_tensor_2d(dw, SLG_F32, C, D);
    const slg_logits dense = slg_logits_dense(&tx), layer = slg_logits_layer(&th, &tw, NULL);
    const slg_targets t = slg_targets_index(&ty);
    slg_loss_out a = loss_out(NULL, NULL), b = a;
    slg_logits_grad ga = dense_grad(&tdx), gb = slg_grad_layer(&tdh, &tdw, NULL);
    OK(ctx, slg_stablemax_loss(ctx, &dense, &t, NULL, &a, &ga));
    OK(ctx, slg_stablemax_loss(ctx, &layer, &t, NULL, &b, &gb));
    assert_true(fabs(a.value - b.value) < 1e-6 * a.value);
    for (int i = 0; i < N * D; i++) {
        double want = 0;
        for (int c = 0; c < C; c++)
            want += (double)dx[i / D * C + c] * (double)w[c * D + i % D];
        assert_true(fabs(want - (double)dh[i]) < 1e-6);
    }
    slg_ctx_free(ctx);
}

/* ---- Errors ------------------------------------------------------------------------------ */

static void test_errors(void **state)
{
    (void)state;
    float x[4] = { 1, 2, 3, 4 }, d[4] = { 7, 7, 7, 7 }, lse[1];
    int32_t y = 4;
    const slg_tensor tx = slg_tensor_2d(x, SLG_F32, 1, 4), ty = slg_tensor_1d(&y, SLG_I32, 1);
    slg_tensor td = slg_tensor_2d(d, SLG_F32, 1, 4), tl = slg_tensor_1d(lse, SLG_F32, 1);
    slg_tensor wrong = slg_tensor_2d(d, SLG_F32, 2, 2);
    const slg_logits l = slg_logits_dense(&tx);
    const slg_targets t = slg_targets_index(&ty);
    slg_stablemax_opts so;
    slg_loss_out out = loss_out(NULL, NULL), with_lse = loss_out(NULL, &tl);
    slg_logits_grad g = dense_grad(&td);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    assert_int_equal(slg_stablemax_loss(ctx, &l, &t, NULL, &out, &g), SLG_ERR_RANGE);
    y = 3;
    assert_int_equal(slg_stablemax_loss(ctx, &l, &t, NULL, &with_lse, &g), SLG_ERR_NULL);
    assert_int_equal(slg_stablemax_loss(NULL, &l, &t, NULL, &out, &g), SLG_ERR_NULL);
    const slg_stablemax_loss_opts bad = opts_of(3);
    assert_int_equal(slg_stablemax_loss(ctx, &l, &t, &bad, &out, &g), SLG_ERR_RANGE);
    slg_stablemax_opts_init(&so, sizeof so);
    so.temperature = 0;
    assert_int_equal(slg_stablemax(ctx, &tx, &so, &td), SLG_ERR_RANGE);
    assert_int_equal(slg_log_stablemax(ctx, &tx, NULL, &wrong), SLG_ERR_SHAPE);
    assert_int_equal(slg_stablemax(ctx, NULL, NULL, &td), SLG_ERR_NULL);
    for (int k = 0; k < 4; k++) assert_true(d[k] == 7);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double), cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_probabilities),  cmocka_unit_test(test_identities),
        cmocka_unit_test(test_edges),          cmocka_unit_test(test_infinite_prob),
        cmocka_unit_test(test_no_collapse),    cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_same_bits),      cmocka_unit_test(test_fused),

        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
