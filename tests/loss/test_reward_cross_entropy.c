/*
 * slg_reward_cross_entropy, slg_expected_reward and slg_entropy: against brute force in double
 * over a sorted row, their identities, and the edges.
 */
#include "row_loss_test.h"

typedef struct form {
    double beta, top, tail, cap;
    int64_t k;
    int32_t form;
} form;

static slg_reward_cross_entropy_opts options(const form *f)
{
    slg_reward_cross_entropy_opts o;
    slg_reward_cross_entropy_opts_init(&o, sizeof o);
    o.beta = f->beta, o.lambda_top = f->top, o.lambda_tail = f->tail, o.top_k = f->k;
    o.form = f->form, o.cap = f->cap;
    return o;
}

static slg_status call(slg_ctx *ctx, const slg_logits *l, const slg_targets *t,
                       int32_t reduction, slg_loss_out *out, slg_logits_grad *g, void *arg)
{
    slg_reward_cross_entropy_opts o = options(arg);
    o.reduction = reduction;
    return slg_reward_cross_entropy(ctx, l, t, &o, out, g);
}

/* Rank by counting: those that come before. */
static bool is_top(int64_t cols, const double *z, int64_t a, int64_t k)
{
    int64_t before = 0;
    for (int64_t i = 0; i < cols && before < k; i++)
        before += z[i] > z[a] || (z[i] == z[a] && i < a);
    return before < k;
}

static void row(int64_t cols, const double *z, int64_t t, void *arg, double *loss, double *dz,
                double *loss_size, double *dz_size)
{
    const form *f = arg;
    double odds = log_odds_of(cols, z, t), v = log1p_exp(odds), w = 1;
    double other = odds == -INFINITY ? 0 : exp(odds - v), sum = 0, size = 0;
    if (f->beta != 0) w = exp(f->beta * (f->form ? v : odds == -INFINITY ? odds : odds - v));
    w = fmin(w, f->cap);
    *loss = w == 0 ? 0 : w * v;
    *loss_size = w * (v + fabs(f->beta) * v + v);
    bool some = f->top != 0 || f->tail != 0;
    for (int64_t k = 0; k < cols && some; k++) {
        double p = z[k] == -INFINITY ? 0 : exp(z[k] - z[t] - v);
        if (k == t || p == 0) continue;
        double lambda = is_top(cols, z, k, f->k) ? f->top : f->tail;
        sum += lambda * p, size += fabs(lambda) * p;
        *loss -= lambda * p * (z[k] - z[t] - v);
        *loss_size += fabs(lambda) * p * (1 + fabs(z[k] - z[t] - v)) * 2;
    }
    double more = 2 + fabs(f->beta) * v;
    for (int64_t k = 0; k < cols; k++) {
        double p = z[k] == -INFINITY ? 0 : exp(z[k] - z[t] - v);
        double lambda = k == t || !some ? 0 : is_top(cols, z, k, f->k) ? f->top : f->tail;
        dz[k] = k == t ? p * sum - w * other : p * (w + sum - lambda);
        dz_size[k] = (k == t ? p * size + w * other : p * (w + size + fabs(lambda))) * more;
    }
}

static void test_forms(void **state)
{
    static form forms[] = {
        { 0, 0, 0, 1e4, 5, 0 },           { -0.25, 0, 0, 1e4, 5, 0 },
        { 0.5, 0, 0, 1e4, 5, 0 },         { -0.25, 0, 0, 1e4, 5, 1 },
        { 0.5, 0, 0, 1e4, 5, 1 },         { 0, 0, -0.1, 1e4, 4, 0 },
        { -0.25, 0.05, -0.1, 1e4, 3, 0 }, { 0.5, 0.3, 0.3, 100, 3, 1 },
        { 0, 0.2, -0.1, 10, 0, 0 },       { 0, 0.2, -0.1, 10, 1 << 20, 0 },
        { 0, 0.2, -0.1, 10, 700, 0 },
    };
    (void)state;
    for (int64_t i = 0; i < COUNT(forms); i++) {
        row_loss f = { call, row, &forms[i], 1.5e-6 };
        check_forms(&f);
        check_threads(&f);
    }
}

/* ---- Small problems ---------------------------------------------------------------------- */

enum { N = 4, K = 5 };

typedef struct result {
    double loss[N], w[N], h[N];
    float d[N * K];
} result;

static result run(slg_ctx *ctx, const float *x, const int32_t *index, const form *f)
{
    result y;
    slg_tensor tx = slg_tensor_2d((void *)(uintptr_t)x, SLG_F32, N, K);
    slg_tensor ti = slg_tensor_1d((void *)(uintptr_t)index, SLG_I32, N);
    slg_tensor td = slg_tensor_2d(y.d, SLG_F32, N, K), tl = slg_tensor_1d(y.loss, SLG_F64, N);
    slg_tensor tw = slg_tensor_1d(y.w, SLG_F64, N), th = slg_tensor_1d(y.h, SLG_F64, N);
    slg_logits l = slg_logits_dense(&tx);
    slg_targets t = slg_targets_index(&ti);
    slg_loss_out out = loss_out(&tl, NULL);
    slg_logits_grad g = slg_grad_dense(&td);
    slg_reward_cross_entropy_opts o = options(f);
    o.reduction = SLG_SUM, o.positive_weight = &tw, o.entropy = &th;
    OK(ctx, slg_reward_cross_entropy(ctx, &l, &t, &o, &out, &g));
    return y;
}

static void near(double got, double want, double relative)
{
    if (!(got == want || fabs(got - want) <= relative * (fabs(want) + 1e-30)))
        fail_msg("%.9g, should be %.9g", got, want);
}

/* beta 0, lambdas 0: cross-entropy's bits; one lambda for all, the label's row added:
   nothing. */
static void test_identities(void **state)
{
    (void)state;
    enum { ROWS = 6, COLS = 900 };
    FOR_EACH_ISA(ctx, 1)
    {
        problem p = problem_of(ROWS, COLS);
        random_logits(&p, SLG_F32, 2);
        operands o;
        operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
        tensor d[2] = { matrix(SLG_F32, ROWS, COLS, CONTIGUOUS),
                        matrix(SLG_F32, ROWS, COLS, CONTIGUOUS) };
        slg_loss_out out[2] = { slg_loss_out_none(), slg_loss_out_none() };
        slg_logits_grad g[2] = { dense_grad(&d[0].t), dense_grad(&d[1].t) };
        OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, NULL, &out[0], &g[0]));
        OK(ctx, slg_reward_cross_entropy(ctx, &o.logits, &o.targets, NULL, &out[1], &g[1]));
        assert_memory_equal(d[0].memory, d[1].memory, d[0].bytes);
        assert_true(out[0].value == out[1].value && out[0].correct == out[1].correct);
        release(&d[0]), release(&d[1]), operands_free(&o), problem_free(&p);
    }
}

/* ---- Rows long enough to be sampled ------------------------------------------------------ */

enum { LONG = 20011, KINDS = 5 };

static const float *sorted; /* what places are compared by */

static int by_value(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sorted[i] != sorted[j]) return sorted[i] < sorted[j] ? 1 : -1;
    return i < j ? -1 : 1;
}

/* Random; of few values; large where a sample looks; mostly masked; all equal. */
static void long_row(int kind, float *x)
{
    for (int32_t i = 0; i < LONG; i++) {
        x[i] = (float)(3 * normal());
        if (kind == 1) x[i] = rintf(x[i]);
        if (kind == 3 && i % 8) x[i] = -INFINITY;
        if (kind == 4) x[i] = 0.75f;
    }
    for (int64_t i = 0; kind == 2 && i < 64; i++)
        for (int64_t j = 0; j < 16; j++) x[i * (LONG - 16) / 63 + j] += 20;
}

static void check_long(const float *x, int32_t label, int64_t k, const float *d, double loss)
{
    static int32_t place[LONG];
    static bool top[LONG];
    double max = -INFINITY, total = 0, mass = 0, want = 0;
    for (int32_t i = 0; i < LONG; i++) place[i] = i, max = fmax(max, (double)x[i]);
    sorted = x;
    qsort(place, LONG, sizeof *place, by_value);
    for (int32_t i = 0; i < LONG; i++) top[place[i]] = i < k;
    for (int32_t i = 0; i < LONG; i++) total += exp((double)x[i] - max);
    for (int32_t i = 0; i < LONG; i++) {
        double p = exp((double)x[i] - max) / total, lambda = top[i] ? 0.2 : -0.1;
        if (i == label) lambda = 1 / p;
        mass += lambda * p;
        if (p > 0) want -= lambda * p * ((double)x[i] - max - log(total));
    }
    if (fabs(loss - want) > 2e-6 * (1 + fabs(want))) fail_msg("loss %g, not %g", loss, want);
    for (int32_t i = 0; i < LONG; i++) {
        double p = exp((double)x[i] - max) / total;
        double w = i == label ? 1 : p * (top[i] ? 0.2 : -0.1), g = p * mass - w;
        if (fabs((double)d[i] - g) > 2e-6 * (p + fabs(w)) + 1e-38)
            fail_msg("k %d, class %d: %g, not %g", (int)k, i, (double)d[i], g);
    }
}

static void test_long_rows(void **state)
{
    static float x[KINDS * LONG], d[KINDS * LONG];
    static const int64_t ks[] = { 1, 100, 2000, 2501, 5000, 19900 };
    int32_t index[KINDS] = { 8, 16, 24, 32, 40 }; /* of live classes */
    double loss[KINDS];
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) long_row(kind, x + kind * LONG);
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, KINDS, LONG);
    slg_tensor td = slg_tensor_2d(d, SLG_F32, KINDS, LONG);
    slg_tensor ti = slg_tensor_1d(index, SLG_I32, KINDS);
    slg_tensor tl = slg_tensor_1d(loss, SLG_F64, KINDS);
    slg_logits l = slg_logits_dense(&tx);
    slg_targets t = slg_targets_index(&ti);
    FOR_EACH_ISA(ctx, 1)
    {
        for (int64_t i = 0; i < COUNT(ks); i++) {
            const form f = { 0, 0.2, -0.1, 1e4, ks[i], 0 };
            slg_reward_cross_entropy_opts o = options(&f);
            slg_loss_out out = loss_out(&tl, NULL);
            slg_logits_grad g = slg_grad_dense(&td);
            o.reduction = SLG_SUM;
            OK(ctx, slg_reward_cross_entropy(ctx, &l, &t, &o, &out, &g));
            for (int kind = 0; kind < KINDS; kind++)
                check_long(x + kind * LONG, index[kind], ks[i], d + kind * LONG, loss[kind]);
        }
    }
}

static void test_edges(void **state)
{
    (void)state;
    const float inf = INFINITY;
    FOR_EACH_ISA(ctx, 1)
    {
        const float x[N * K] = { 2, -inf, -inf, -inf, -inf, 1,    -inf, 2,    3,    -inf,
                                 1, NAN,  2,    3,    4,    -inf, -inf, -inf, -inf, -inf };
        const int32_t index[N] = { 0, 1, 0, 0 };
        for (int j = 0; j < 3; j++) {
            form f = { j - 1, 0.1, -0.1, 50, 2, 0 };
            result y = run(ctx, x, index, &f);
            assert_true(y.loss[0] == 0 &&
                        y.w[0] == (j == 0   ? 50
                                   : j == 1 ? 1
                                            : 0) &&
                        y.h[0] == 0);
            assert_true(y.loss[1] == INFINITY && y.w[1] == 1);
            for (int k = 0; k < K; k++) {
                assert_true(y.d[k] == 0 && y.d[3 * K + k] == 0);
                if (!isnan(y.d[2 * K + k])) fail_msg("not NaN");
                if (x[K + k] == -inf)
                    assert_true(y.d[K + k] == (k == 1 ? -1 : 0)); /* the
                                                                                       label's:
                                                                                       -w */
            }
            assert_true(isnan(y.loss[2]) && isnan(y.w[2]) && isnan(y.h[2]));
            assert_true(y.loss[3] == INFINITY && y.w[3] == 0 && y.h[3] == 0);
        }
        /* 1 - p = 1e-12: weight 1000; ignored row: entropy alone. */
        float big = (float)log(4e12);
        const float sure[N * K] = { big, 0, 0, 0, 0, 1, 1, 1, 1, -inf };
        const int32_t labels[N] = { 0, -100, 0, 0 };
        form f = { -0.25, 0, -0.1, 1e4, 2, 0 };
        result y = run(ctx, sure, labels, &f);
        near(y.w[0], 1000, 1e-5);
        assert_true(y.loss[1] == 0 && y.w[1] == 0 && fabs(y.h[1] - log(4)) < 1e-6);
        for (int k = 0; k < K; k++) assert_true(y.d[K + k] == 0);
    }
}

/* ---- The others -------------------------------------------------------------------------- */

static void test_expected_reward(void **state)
{
    (void)state;
    enum { ROWS = 4, COLS = 2500 };
    FOR_EACH_ISA(ctx, 2)
    {
        problem p = problem_of(ROWS, COLS);
        random_logits(&p, SLG_F32, 2);
        operands o;
        operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
        tensor table = matrix(SLG_F32, ROWS, COLS, ROW_GAPS),
               d = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
        tensor one = vector(SLG_F64, ROWS, COL_GAPS), loss = vector(SLG_F64, ROWS, CONTIGUOUS);
        for (int64_t r = 0; r < ROWS; r++) {
            put(&one, 0, r, normal());
            for (int64_t c = 0; c < COLS; c++) put(&table, r, c, normal());
        }
        slg_targets none = slg_targets_index(NULL);
        slg_expected_reward_opts e;
        slg_expected_reward_opts_init(&e, sizeof e);
        e.reduction = SLG_SUM;
        slg_loss_out out = loss_out(&loss.t, NULL);
        slg_logits_grad g = slg_grad_dense(&d.t);
        for (int sparse = 0; sparse < 2; sparse++) {
            double seen = 0;
            e.reward = sparse ? &one.t : &table.t;
            OK(ctx,
               slg_expected_reward(ctx, &o.logits, sparse ? &o.targets : &none, &e, &out, &g));
            for (int64_t r = 0; r < ROWS; r++) {
                double *z = p.x + r * COLS, top = -INFINITY, sum = 0, mean = 0;
                for (int64_t c = 0; c < COLS; c++) top = fmax(top, z[c]);
                for (int64_t c = 0; c < COLS; c++) sum += exp(z[c] - top);
                for (int64_t c = 0; c < COLS; c++) {
                    double a =
                        sparse ? (c == p.index[r] ? get(&one, 0, r) : 0) : get(&table, r, c);
                    mean += a * exp(z[c] - top) / sum;
                }
                compare("loss", r, 0, get(&loss, 0, r), -mean, 1e-6, &seen);
                for (int64_t c = 0; c < COLS; c++) {
                    double a =
                        sparse ? (c == p.index[r] ? get(&one, 0, r) : 0) : get(&table, r, c);
                    double q = exp(z[c] - top) / sum;
                    compare("dlogits", r, c, get(&d, r, c), q * (mean - a),
                            4e-6 * q * 3 + 1e-38, &seen);
                }
            }
        }
        assert_int_equal(slg_expected_reward(ctx, &o.logits, &none, &e, &out, &g),
                         SLG_ERR_DTYPE);
        assert_int_equal(slg_expected_reward(ctx, &o.logits, &none, NULL, &out, &g),
                         SLG_ERR_NULL);
        e.reward = &d.t;
        assert_int_equal(slg_expected_reward(ctx, &o.logits, &none, &e, &out, &g),
                         SLG_ERR_STRIDE);
        put(&table, 1, 7, NAN), e.reward = &table.t;
        OK(ctx, slg_expected_reward(ctx, &o.logits, &none, &e, &out, &g));
        assert_true(isnan(get(&loss, 0, 1)) && isnan(get(&d, 1, 0)) && !isnan(get(&d, 0, 0)));
        release(&table), release(&d), release(&one), release(&loss);
        operands_free(&o), problem_free(&p);
    }
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Also the selection, at every k and with many ties. */
static void test_entropy(void **state)
{
    (void)state;
    enum { ROWS = 6, COLS = 1500 };
    FOR_EACH_ISA(ctx, 2)
    {
        problem p = problem_of(ROWS, COLS);
        for (int64_t i = 0; i < ROWS * COLS; i++) p.x[i] = rint(normal() * 8) / 4;
        for (int64_t c = 0; c < COLS; c++) {
            p.x[c] = (double)c / 100, p.x[COLS + c] = -(double)c / 100; /* sorted, both ways */
            p.x[2 * COLS + c] = c % 3 ? -INFINITY : 1e5 + rint(normal() * 8) / 4;
            p.x[3 * COLS + c] = 1;
        }
        operands o;
        operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
        for (int64_t k = 1; k < 3 * COLS; k = k * 3 / 2 + 1) {
            double h[ROWS], local[ROWS], mass[ROWS], seen = 0;
            slg_tensor th = slg_tensor_1d(h, SLG_F64, ROWS),
                       tl = slg_tensor_1d(local, SLG_F64, ROWS);
            slg_tensor tm = slg_tensor_1d(mass, SLG_F64, ROWS);
            slg_entropy_opts e;
            slg_entropy_opts_init(&e, sizeof e);
            e.top_k = k, e.top_entropy = &tl, e.top_mass = &tm;
            OK(ctx, slg_entropy(ctx, &o.logits, &e, &th));
            for (int64_t r = 0; r < ROWS; r++) {
                double z[COLS], want[2], sums[2];
                for (int64_t c = 0; c < COLS; c++) z[c] = single(p.x[r * COLS + c]);
                qsort(z, COLS, sizeof *z, descending);
                for (int part = 0; part < 2; part++) {
                    double sum = 0, dot = 0;
                    for (int64_t c = 0; c < (part && k < COLS ? k : COLS); c++) {
                        if (z[c] == -INFINITY) continue;
                        sum += exp(z[c] - z[0]), dot += (z[c] - z[0]) * exp(z[c] - z[0]);
                    }
                    want[part] = log(sum) - dot / sum, sums[part] = sum;
                }
                compare("entropy", r, k, h[r], want[0], 1e-6 * (1 + want[0]), &seen);
                compare("top_entropy", r, k, local[r], want[1], 1e-6 * (1 + want[1]), &seen);
                compare("top_mass", r, k, mass[r], sums[1] / sums[0], 2e-6, &seen);
            }
        }
        slg_entropy_opts e;
        slg_entropy_opts_init(&e, sizeof e);
        e.top_k = 0;
        assert_int_equal(slg_entropy(ctx, &o.logits, &e, NULL), SLG_ERR_RANGE);
        operands_free(&o), problem_free(&p);
    }
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float x[N * K] = { 0 }, d[N * K];
    int32_t index[N] = { 0 };
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, N, K), td = slg_tensor_2d(d, SLG_F32, N, K);
    slg_tensor ti = slg_tensor_1d(index, SLG_I32, N), over = slg_tensor_1d(d, SLG_F32, N);
    slg_logits l = slg_logits_dense(&tx);
    slg_targets t = slg_targets_index(&ti);
    slg_loss_out out = slg_loss_out_none();
    slg_logits_grad g = slg_grad_dense(&td);
    slg_reward_cross_entropy_opts good, o;
    slg_reward_cross_entropy_opts_init(&good, sizeof good);
#define FAILS(status, field, value, says)                                                      \
    o = good, o.field = value;                                                                 \
    memset(d, 0x5A, sizeof d);                                                                 \
    assert_int_equal(slg_reward_cross_entropy(ctx, &l, &t, &o, &out, &g), status);             \
    if (!strstr(slg_ctx_message(ctx), says)) fail_msg("%s", slg_ctx_message(ctx));             \
    for (size_t i = 0; i < sizeof d; i++) assert_int_equal(((char *)d)[i], 0x5A);
    FAILS(SLG_ERR_RANGE, form, 2, "form is 2")
    FAILS(SLG_ERR_OPTIONS, reserved, 1, "reserved is 1")
    FAILS(SLG_ERR_RANGE, top_k, -1, "top_k is -1")
    FAILS(SLG_ERR_RANGE, beta, NAN, "beta is nan")
    FAILS(SLG_ERR_RANGE, lambda_top, INFINITY, "lambda_top is inf")
    FAILS(SLG_ERR_RANGE, cap, 0, "cap is 0")
    FAILS(SLG_ERR_RANGE, reduction, 9, "reduction is 9")
    FAILS(SLG_ERR_STRIDE, entropy, &over, "opts.entropy overlaps")
    FAILS(SLG_ERR_STRIDE, positive_weight, &over, "opts.positive_weight overlaps")
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),           cmocka_unit_test(test_identities),
        cmocka_unit_test(test_long_rows),       cmocka_unit_test(test_edges),
        cmocka_unit_test(test_expected_reward), cmocka_unit_test(test_entropy),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
