/* slg_preference, slg_rival_gradient and slg_temperature_fit: against double arithmetic, and
   the identities of the paper. */
#include "loss_test.h"

#include "support/gradcheck.h"

static problem random_rows(int64_t rows, int64_t cols, double size)
{
    problem p = problem_of(rows, cols);
    for (int64_t i = 0; i < rows * cols; i++) p.x[i] = single(size * normal());
    for (int64_t r = 0; r < rows; r++) p.index[r] = below(cols);
    return p;
}

/* Margin in units of x / T; size: what its error is relative to. */
static double margin_of(const problem *p, const answer *a, int64_t r, double *size)
{
    double margin = 0, slope,
           y = transform(p, p->index[r], p->x[r * p->cols + p->index[r]], &slope);
    *size = 1e-30;
    for (int64_t k = 0; k < p->cols; k++) {
        double z = transform(p, k, p->x[r * p->cols + k], &slope), q = exp(z - a->lse[r]);
        if (q == 0) continue;
        margin += q * (y - z);
        *size += q * fabs(y - z) * (1 + allowance(p));
    }
    return margin;
}

/* Against cross-entropy's reference; dense, in place, 16-bit, every ISA and thread count. */
static void test_against_double(void **state)
{
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    worst w = { 0 };
    for (int round = 0; round < 12; round++) {
        const int32_t type = types[round % 3];
        problem p =
            random_rows(round == 0 ? 1 : 9, round < 3 ? 1 + round * 3 : 3000 * (round % 3) + 37,
                        round % 2 ? 3 : 0.2);
        for (int64_t i = 0; i < p.rows * p.cols; i++) p.x[i] = as_dtype(type, p.x[i]);
        p.reduction = round % 3;
        p.temperature = round % 4 == 3 ? 0.5 : 1;
        p.softcap = round % 4 == 2 ? 5 : 0;
        if (round > 5) p.index[2] = -100;
        answer a = answer_of(&p);
        tensor first = { 0 };
        FOR_EACH_ISA(ctx, 1 + round % 3)
        {
            operands o;
            operands_of(&p, type, SLG_F32, SLG_I64, SLG_I32, (enum layout)(round % 4), &o);
            tensor dx = matrix(type, p.rows, p.cols, CONTIGUOUS),
                   m = vector(SLG_F64, p.rows, COL_GAPS);
            slg_loss_out out = loss_out(NULL, NULL);
            slg_logits_grad g = dense_grad(round % 2 ? &o.x.t : &dx.t);
            slg_preference_opts opts;
            slg_preference_opts_init(&opts, sizeof opts);
            opts.reduction = p.reduction, opts.margin = &m.t;
            OK(ctx, slg_preference(ctx, &o.logits, &o.targets, &opts, &out, &g));
            compare_out(&p, &a, &out, NULL, NULL, &w);
            compare_grad(&p, &a, round % 2 ? &o.x : &dx, &w);
            for (int64_t r = 0; r < p.rows; r++) {
                double size = 1, want = 0;
                if (p.index[r] >= 0) want = margin_of(&p, &a, r, &size);
                compare("margin", r, 0, get(&m, 0, r), want, 2e-6 * size, &w.value);
            }
            release(&dx), release(&m), operands_free(&o);
        }
        release(&first), answer_free(&a), problem_free(&p);
    }
    (void)state;
}

static void test_margin_edges(void **state)
{
    enum { ROWS = 7, COLS = 3 };
    static const float x[ROWS][COLS] = {
        { 3e38f, 3e38f, -INFINITY },
        { -INFINITY, 1, 2 },
        { -INFINITY, -INFINITY, -INFINITY },
        { NAN, 0, 0 },
        { INFINITY, 0, 0 },
        { 5, -INFINITY, -INFINITY },
        { 100, 0, -INFINITY },
    };
    const double want[ROWS] = { 0, -INFINITY, NAN, NAN, NAN, 0, 100 * exp(-100) };
    static const double loss[ROWS] = { 0.6931471805599453, INFINITY, INFINITY, NAN, NAN, 0,
                                       3.7200759760208e-44 };
    int64_t zero[ROWS] = { 0 };
    double margin[ROWS], losses[ROWS];
    float d[ROWS][COLS];
    FOR_EACH_ISA(ctx, 1)
    {
        slg_tensor tx = slg_tensor_2d(x, SLG_F32, ROWS, COLS),
                   ti = slg_tensor_1d(zero, SLG_I64, ROWS);
        slg_tensor tm = slg_tensor_1d(margin, SLG_F64, ROWS),
                   tl = slg_tensor_1d(losses, SLG_F64, ROWS);
        slg_tensor td = slg_tensor_2d(d, SLG_F32, ROWS, COLS);
        slg_logits l = slg_logits_dense(&tx);
        slg_targets t = slg_targets_index(&ti);
        slg_loss_out out = loss_out(&tl, NULL);
        slg_logits_grad g = dense_grad(&td);
        slg_preference_opts opts;
        slg_preference_opts_init(&opts, sizeof opts);
        opts.reduction = SLG_SUM, opts.margin = &tm;
        OK(ctx, slg_preference(ctx, &l, &t, &opts, &out, &g));
        double most = 0;
        for (int r = 0; r < ROWS; r++) {
            compare("margin", r, 0, margin[r], want[r], 1e-6 * fabs(want[r]), &most);
            compare("loss", r, 0, losses[r], loss[r], 1e-6 * fabs(loss[r]), &most);
        }
        assert_true(fabs((double)d[0][0] + 0.5) < 1e-6 && fabs((double)d[0][1] - 0.5) < 1e-6 &&
                    d[0][2] == 0);
        assert_true(d[1][0] == -1 && d[1][1] > 0 && d[2][1] == 0 && d[5][0] == 0 &&
                    isnan(d[3][1]));
        opts.margin = &td;
        assert_int_equal(slg_preference(ctx, &l, &t, &opts, &out, &g), SLG_ERR_SHAPE);
        opts.margin = &tl;
        assert_int_equal(slg_preference(ctx, &l, &t, &opts, &out, &g), SLG_ERR_STRIDE);
    }
    (void)state;
}

/* The sampled gradient over all rivals, weighted by p, is the gradient; draws have frequencies
   p. */
static void test_rivals(void **state)
{
    enum { COLS = 5, DRAWS = 40000 };
    problem p = random_rows(1, COLS, 1.5);
    answer a = answer_of(&p);
    operands o;
    operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
    double sum[COLS] = { 0 };
    tensor one = matrix(SLG_I32, 1, 1, CONTIGUOUS), d = matrix(SLG_F32, 1, COLS, COL_GAPS);
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int64_t k = 0; k < COLS; k++) {
        put(&one, 0, 0, (double)k);
        OK(ctx, slg_rival_gradient(ctx, NULL, &o.targets, NULL, NULL, &one.t, &d.t));
        for (int64_t i = 0; i < COLS; i++) sum[i] += exp(p.x[k] - a.lse[0]) * get(&d, 0, i);
    }
    for (int64_t i = 0; i < COLS; i++) assert_true(fabs(sum[i] - a.dx[i]) < 1e-6);
    assert_gaps_intact(&d);
    put(&one, 0, 0, COLS);
    assert_int_equal(slg_rival_gradient(ctx, NULL, &o.targets, NULL, NULL, &one.t, &o.x.t),
                     SLG_ERR_RANGE);
    assert_int_equal(
        slg_rival_gradient(ctx, NULL, &o.targets, NULL, &(slg_rng){ 1, 0 }, &one.t, &o.x.t),
        SLG_ERR_NULL);
    slg_ctx_free(ctx);
    tensor many = matrix(SLG_I32, 1, DRAWS, CONTIGUOUS),
           dx = matrix(SLG_F32, 1, COLS, CONTIGUOUS);
    FOR_EACH_ISA(each, 1)
    {
        slg_rng g = { 9, 100 };
        double seen[COLS] = { 0 };
        OK(each, slg_rival_gradient(each, &o.x.t, &o.targets, NULL, &g, &many.t, &dx.t));
        assert_true(g.offset == 100 + DRAWS);
        for (int64_t j = 0; j < DRAWS; j++) seen[(int)get(&many, 0, j)]++;
        for (int64_t k = 0; k < COLS; k++) {
            double q = exp(p.x[k] - a.lse[0]), error = 5 * sqrt(q * (1 - q) / DRAWS) + 1e-5;
            assert_true(fabs(seen[k] / DRAWS - q) < error);
            assert_true(fabs(get(&dx, 0, k) - a.dx[k]) < error);
        }
    }
    release(&many), release(&dx), release(&one), release(&d);
    operands_free(&o), answer_free(&a), problem_free(&p);
    (void)state;
}

static void fit(slg_ctx *ctx, problem *p, slg_temperature_fit_out *out)
{
    operands o;
    operands_of(p, SLG_F32, SLG_F32, SLG_I64, SLG_I32, CONTIGUOUS, &o);
    slg_temperature_fit_out_init(out, sizeof *out);
    OK(ctx, slg_temperature_fit(ctx, &o.logits, &o.targets, NULL, out));
    operands_free(&o);
}

static void test_fit(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    {
        problem p = random_rows(300, 6, 1);
        for (int64_t r = 0; r < p.rows; r++)
            p.x[r * 6 + p.index[r]] = single(p.x[r * 6 + p.index[r]] + 1);
        slg_temperature_fit_out a, b;
        fit(ctx, &p, &a);
        assert_true(a.nll_after <= a.nll_before && a.evaluations < 20);
        /* The derivative at the optimum is 0; the margin says so. */
        p.temperature = 1 / a.inverse_temperature;
        answer want = answer_of(&p);
        double slope = 0, size;
        for (int64_t r = 0; r < p.rows; r++) slope += margin_of(&p, &want, r, &size);
        assert_true(fabs(slope / (double)p.rows) < 1e-6);
        assert_true(fabs(want.sum / (double)p.rows - a.nll_after) < 1e-6);
        answer_free(&want);
        /* Logits of k times the size: beta of 1 / k. */
        p.temperature = 0.25;
        fit(ctx, &p, &b);
        assert_true(fabs(b.inverse_temperature * 4 / a.inverse_temperature - 1) < 1e-5);
        p.temperature = 1;
        /* All labels arg-max: the bound; logits that do not matter: the other. */
        for (int64_t i = 0; i < p.rows * 6; i++) p.x[i] = i % 6 == p.index[i / 6] ? 9 : 0;
        fit(ctx, &p, &a);
        assert_true(a.inverse_temperature == 1e3);
        for (int64_t i = 0; i < p.rows * 6; i++) p.x[i] = 1;
        fit(ctx, &p, &a);
        assert_true(a.inverse_temperature == 1e-3);
        /* A label that is masked, and nothing that counts. */
        operands o;
        p.x[p.index[0]] = -INFINITY;
        operands_of(&p, SLG_F32, SLG_F32, SLG_I64, SLG_I32, CONTIGUOUS, &o);
        assert_int_equal(slg_temperature_fit(ctx, &o.logits, &o.targets, NULL, &a),
                         SLG_ERR_RANGE);
        operands_free(&o);
        for (int64_t r = 0; r < p.rows; r++) p.index[r] = -100;
        fit(ctx, &p, &a);
        assert_true(a.inverse_temperature == 1 && a.nll_after == 0);
        problem_free(&p);
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_margin_edges),
        cmocka_unit_test(test_rivals),
        cmocka_unit_test(test_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
