/* slg_cross_entropy on dense logits: rows that are not ordinary, ties, precision where one
   class dominates. */
#include "cross_entropy_test.h"

/* ---- Rows that are not ordinary ---------------------------------------------------------- */

/* Runs p, contiguous float32, and compares all that comes out. */
static void expect_answer(slg_ctx *ctx, const problem *p)
{
    check_problem(ctx, p, SLG_F32, SLG_F32, SLG_F32, CONTIGUOUS);
    check_problem(ctx, p, SLG_F32, SLG_F32, SLG_BF16, ROW_GAPS);
}

/* The special value in each place of the middle row; the other rows are as without it. */
static void test_special_values(void **state)
{
    (void)state;
    const double values[] = { NAN, INFINITY, -INFINITY, 1e38, -1e38, 1e4, -0.0, 1e-40 };
    const int64_t widths[] = { 1, 3, 17, 100, 2049, 4100 };
    FOR_EACH_ISA(ctx, 1)
    for (int64_t w = 0; w < COUNT(widths); w++)
        for (int64_t v = 0; v < COUNT(values); v++)
            for (unsigned choice = 0; choice < CHOICES; choice += 1 + (unsigned)below(12)) {
                int64_t cols = widths[w];
                const int64_t at[] = { 0, cols / 2, cols - 1, below(cols) };
                /* Sums of 2048 times 1e38 are more than float32 holds; so is lse^2. */
                bool huge = fabs(values[v]) == 1e38;
                unsigned without = SOFTCAP | (huge ? Z_LOSS | SMOOTHING : 0u);
                problem p =
                    random_problem(3, cols, choice & ~without, SLG_SUM, SLG_F32, SLG_F32);
                int64_t k = at[below(4)];
                p.x[cols + k] = as_dtype(SLG_F32, values[v]);
                if (p.has_prob && values[v] == -INFINITY && p.q[cols + k] > 0) {
                    problem_free(&p); /* see test_masked_target */
                    continue;
                }
                expect_answer(ctx, &p);
                problem_free(&p);
            }
}

/* A masked class, by -inf or by the mask, that holds NaN or +inf before: as if it were not
   there. */
static void test_mask_hides(void **state)
{
    (void)state;
    const double values[] = { NAN, INFINITY, -INFINITY, 1e38 };
    FOR_EACH_ISA(ctx, 1)
    for (int64_t v = 0; v < COUNT(values); v++)
        for (unsigned choice = MASK; choice < CHOICES; choice += 3) {
            problem p = random_problem(3, 40, choice | MASK, SLG_MEAN, SLG_F32, SLG_F32);
            for (int64_t i = 0; i < 120; i++)
                if (!p.mask[i % 40]) p.x[i] = as_dtype(SLG_F32, values[v]);
            answer a = answer_of(&p);
            for (int64_t i = 0; i < 120; i++) assert_true(isfinite(a.dx[i]));
            answer_free(&a);
            expect_answer(ctx, &p);
            problem_free(&p);
        }
}

static void test_masked_target(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int by_mask = 0; by_mask < 2; by_mask++)
        for (int prob = 0; prob < 2; prob++)
            for (int weights = 0; weights < 2; weights++)
                for (int smooth = 0; smooth < 2; smooth++) {
                    problem p = problem_of(2, 6);
                    for (int i = 0; i < 12; i++) p.x[i] = single(normal());
                    p.index[0] = p.index[1] = 2;
                    p.smoothing = smooth ? 0.2 : 0;
                    if (by_mask) {
                        p.mask = zeros(6, sizeof *p.mask);
                        for (int i = 0; i < 6; i++) p.mask[i] = i != 2;
                    } else {
                        p.x[2] = -INFINITY;
                    }
                    if ((p.has_prob = prob)) {
                        p.q = zeros(12, sizeof *p.q);
                        p.q[2] = p.q[8] = 0.25;
                        p.q[0] = p.q[9] = 0.75;
                    }
                    if (weights) {
                        p.class_weight = zeros(6, sizeof *p.class_weight);
                        for (int i = 0; i < 6; i++) p.class_weight[i] = 1 + i;
                    }
                    answer a = answer_of(&p);
                    assert_true(a.loss[0] == INFINITY && a.dx[2] == 0);
                    assert_true(smooth || a.dx[1] > 0); /* p, however small */
                    answer_free(&a);
                    expect_answer(ctx, &p);
                    problem_free(&p);
                }
}

static void test_all_masked(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int prob = 0; prob < 2; prob++)
        for (int by_mask = 0; by_mask < 2; by_mask++)
            for (int64_t cols = 1; cols < 2100; cols = cols * 3 + 1) {
                problem p = problem_of(3, cols);
                for (int64_t i = 0; i < 3 * cols; i++)
                    p.x[i] = i / cols == 1 ? -INFINITY : single(normal());
                if (by_mask) p.mask = zeros(cols, sizeof *p.mask);
                if ((p.has_prob = prob)) {
                    p.q = zeros(3 * cols, sizeof *p.q);
                    for (int64_t r = 0; r < 3; r++) p.q[r * cols] = 1;
                }
                p.smoothing = 0.1 * by_mask, p.z_loss = 0.1;
                answer a = answer_of(&p);
                assert_true(a.loss[1] == INFINITY && a.lse[1] == -INFINITY && a.count == 3);
                answer_free(&a);
                expect_answer(ctx, &p);
                problem_free(&p);
            }
}

/* The target is the only class that is left. */
static void test_only_target(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (unsigned choice = 0; choice < 64; choice++) {
        problem p = problem_of(1, 2060);
        for (int64_t k = 0; k < 2060; k++) p.x[k] = -INFINITY;
        p.index[0] = choice & 1 ? 2050 : 3;
        p.x[p.index[0]] = 2.5;
        if (choice & 2) p.smoothing = 0.3;
        if (choice & 4) p.z_loss = 0.1;
        if (choice & 8) p.temperature = 2;
        if (choice & 16) {
            p.class_weight = zeros(2060, sizeof(double));
            for (int64_t k = 0; k < 2060; k++) p.class_weight[k] = 2;
        }
        if ((p.has_prob = choice & 32)) {
            p.q = zeros(2060, sizeof(double));
            p.q[p.index[0]] = 1;
        }
        expect_answer(ctx, &p);
        problem_free(&p);
    }
}

/* Whatever is in rows that are ignored: nothing of it comes out, save in their own lse. */
static void test_ignored(void **state)
{
    (void)state;
    const double values[] = { NAN, INFINITY, -INFINITY, 1e38 };
    FOR_EACH_ISA(ctx, 1)
    for (int64_t v = 0; v < COUNT(values); v++)
        for (int all = 0; all < 2; all++)
            for (int32_t reduction = SLG_NONE; reduction <= SLG_SUM; reduction++) {
                problem p = problem_of(5, 70);
                p.reduction = reduction, p.smoothing = 0.1, p.z_loss = 1e-3;
                for (int64_t r = 0; r < 5; r++) {
                    bool ignored = all || r % 2;
                    p.index[r] = ignored ? p.ignore_index : r;
                    for (int64_t c = 0; c < 70; c++)
                        p.x[r * 70 + c] = single(ignored ? values[v] : normal());
                }
                operands o;
                operands_of(&p, SLG_F32, SLG_F32, SLG_I64, SLG_I32, CONTIGUOUS, &o);
                answer a = answer_of(&p);
                for (int with_lse = 0; with_lse < 2; with_lse++) {
                    tensor dx = matrix(SLG_F32, 5, 70, CONTIGUOUS);
                    tensor loss = vector(SLG_F32, 5, CONTIGUOUS),
                           lse = vector(SLG_F32, 5, CONTIGUOUS);
                    slg_loss_out out = loss_out(&loss.t, with_lse ? &lse.t : NULL);
                    slg_logits_grad grad = dense_grad(&dx.t);
                    OK(ctx,
                       slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, &grad));
                    compare_out(&p, &a, &out, &loss, NULL, &overall);
                    compare_grad(&p, &a, &dx, &overall);
                    for (int64_t r = 0; r < 5; r++) {
                        if (p.index[r] >= 0) continue;
                        assert_true(get(&loss, 0, r) == 0);
                        for (int64_t c = 0; c < 70; c++) assert_true(get(&dx, r, c) == 0);
                    }
                    if (all) {
                        assert_true(out.value == 0 && out.sum == 0 && out.weight == 0);
                        assert_true(out.count == 0 && out.correct == 0);
                    }
                    release(&dx), release(&loss), release(&lse);
                }
                operands_free(&o);
                answer_free(&a);
                problem_free(&p);
            }
}

/* ---- correct ----------------------------------------------------------------------------- */

static int64_t correct_of(slg_ctx *ctx, const problem *p)
{
    operands o;
    operands_of(p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
    slg_loss_out out = loss_out(NULL, NULL);
    OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, NULL));
    operands_free(&o);
    return out.correct;
}

/* The first of several largest is the arg-max, also where another block or segment holds it. */
static void test_ties(void **state)
{
    (void)state;
    const int64_t places[] = { 0, 1, 15, 16, 17, 2047, 2048, 2049, 32767, 32768, 40000 - 1 };
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(places); i++)
        for (int64_t j = 0; j < COUNT(places); j++) {
            problem p = problem_of(1, 40000);
            for (int64_t k = 0; k < 40000; k++) p.x[k] = -1 - (double)(k % 5);
            p.x[places[i]] = p.x[places[j]] = 2;
            p.index[0] = places[i];
            assert_int_equal(correct_of(ctx, &p), i <= j);
            p.x[places[j]] = i == j ? 2 : 3;
            assert_int_equal(correct_of(ctx, &p), i == j);
            p.has_prob = true; /* ties among the probabilities too */
            p.q = zeros(40000, sizeof *p.q);
            p.q[places[i]] = p.q[places[j]] = i == j ? 1 : 0.5;
            assert_int_equal(correct_of(ctx, &p), places[j] <= places[i]);
            problem_free(&p);
        }
}

/* ---- Precision --------------------------------------------------------------------------- */

/* value and the target's and another class's gradient of one row. */
typedef struct confident {
    double loss, at_target, at_other;
} confident;

static confident run_confident(slg_ctx *ctx, const problem *p, int64_t other)
{
    operands o;
    operands_of(p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
    tensor dx = matrix(SLG_F32, 1, p->cols, CONTIGUOUS);
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad grad = dense_grad(&dx.t);
    OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, &grad));
    confident c = { out.sum, get(&dx, 0, p->index[0]), get(&dx, 0, other) };
    release(&dx);
    operands_free(&o);
    return c;
}

static void close_to(const char *what, double got, double want, double relative)
{
    if (fabs(got - want) > relative * fabs(want))
        fail_msg("%s is %.9g, should be %.9g", what, got, want);
}

/* The loss is e^-gap and not 0, wherever the target lies and whatever is added to all
   logits. */
static void test_confident(void **state)
{
    (void)state;
    const double gaps[] = { 10, 30, 60, 80, 90, 300 },
                 offsets[] = { 0, -3, 1000, 1e5, -1e5, 4e6 };
    const double temperatures[] = { 1, 0.5, 3 };
    const int64_t places[] = { 0, 5, 2048, 2999 };
    double most = 0;
    FOR_EACH_ISA(ctx, 1)
    for (int64_t g = 0; g < COUNT(gaps); g++)
        for (int64_t f = 0; f < COUNT(offsets); f++)
            for (int64_t t = 0; t < COUNT(temperatures); t++) {
                problem p = problem_of(1, 3000);
                p.temperature = temperatures[t];
                p.index[0] = places[below(4)];
                for (int64_t k = 0; k < 3000; k++)
                    p.x[k] = offsets[f] + (k == p.index[0]) * gaps[g] * temperatures[t];
                confident got = run_confident(ctx, &p, 7);
                double u = 2999 * exp(-gaps[g]), want = log1p(u),
                       d = u / (1 + u) / p.temperature;
                close_to("loss", got.loss, want, 1e-6);
                if (d / 2999 < 2e-33) { /* nearer 2^-126 precision goes: see exp.h */
                    problem_free(&p);
                    continue;
                }
                close_to("target's gradient", got.at_target, -d, 1e-6);
                close_to("another's gradient", got.at_other, d / 2999, 1e-6);
                most = fmax(most, fabs(got.loss / want - 1));
                most = fmax(most, fabs(got.at_target / -d - 1));
                most = fmax(most, fabs(got.at_other / (d / 2999) - 1));
                problem_free(&p);
            }
    print_message("confident targets: relative error %.2g\n", most);
}

/* Two classes 1 apart, far from 0: p must come from the difference. */
static void test_large_logits(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        const double at[] = { 1e4, -1e4, 1e5, -1e5, 1e6, -1e6 };
        for (int64_t i = 0; i < COUNT(at); i++) {
            problem p = problem_of(1, 3);
            p.x[0] = at[i], p.x[1] = at[i] - 1, p.x[2] = at[i] - 2;
            p.index[0] = 1;
            double u = exp(1) + exp(-1);
            confident got = run_confident(ctx, &p, 0);
            close_to("loss", got.loss, log1p(u), 1e-6);
            close_to("target's gradient", got.at_target, -u / (1 + u), 1e-6);
            close_to("another's gradient", got.at_other, exp(1) / (1 + u), 1e-6);
            problem_free(&p);
        }
        problem p = problem_of(1, 3);
        p.x[0] = as_dtype(SLG_F32, 1e38), p.x[1] = -p.x[0], p.x[2] = p.x[0];
        confident got = run_confident(ctx, &p, 1);
        close_to("loss", got.loss, log(2), 1e-6);
        close_to("target's gradient", got.at_target, -0.5, 1e-6);
        assert_true(got.at_other == 0);
        p.index[0] = 1;
        got = run_confident(ctx, &p, 0);
        close_to("loss", got.loss, 2 * p.x[0], 1e-6);
        close_to("target's gradient", got.at_target, -1, 1e-6);
        close_to("another's gradient", got.at_other, 0.5, 1e-6);
        problem_free(&p);
    }
}

/* A common offset of the logits must not reach a loss whose target adds up to 1; wherever
   the row starts: with masked classes, or with classes far below. */
static void test_offset(void **state)
{
    (void)state;
    const double starts[] = { 0, -INFINITY, -4000 };
    double most = 0;
    FOR_EACH_ISA(ctx, 1)
    for (int s = 0; s < 3; s++)
        for (int smooth = 0; smooth < 2; smooth++)
            for (int prob = 0; prob < 2; prob++) {
                problem p = problem_of(1, 5000);
                double offset = s == 2 ? 1e5 : -1e5;
                if ((p.has_prob = prob)) p.q = zeros(5000, sizeof *p.q);
                for (int64_t k = 0; k < 5000; k++) {
                    bool early = k < 2100;
                    p.x[k] = offset + (float)below(64) / 16 + (early ? starts[s] : 0);
                    if (prob)
                        p.q[k] = early && s ? 0 : as_dtype(SLG_F32, 1.0 / (s ? 2900 : 5000));
                }
                p.index[0] = 3333;
                p.smoothing = smooth && s < 2 ? 0.1 : 0;
                answer a = answer_of(&p);
                operands o;
                operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
                slg_loss_out out = loss_out(NULL, NULL);
                OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, NULL));
                if (fabs(out.sum - a.sum) > 1e-4)
                    fail_msg("start %d, smooth %d, prob %d: loss is %.9g, should be %.9g", s,
                             smooth, prob, out.sum, a.sum);
                most = fmax(most, fabs(out.sum - a.sum));
                operands_free(&o);
                answer_free(&a);
                problem_free(&p);
            }
    print_message("offset 1e5: error %.2g of a loss of about 10\n", most);
}

/* What is divided by 0 in a mean: nothing. */
static void test_no_weight(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int32_t reduction = SLG_NONE; reduction <= SLG_SUM; reduction++) {
        problem p = random_problem(3, 20, ROW_WEIGHT | SMOOTHING, reduction, SLG_F32, SLG_F32);
        for (int64_t r = 0; r < 3; r++) p.row_weight[r] = 0, p.index[r] = r;
        p.ignore_index = -100;
        operands o;
        operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
        tensor dx = matrix(SLG_F32, 3, 20, CONTIGUOUS);
        slg_logits_grad grad = dense_grad(&dx.t);
        slg_loss_out out = loss_out(NULL, NULL);
        OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, &grad));
        assert_true(out.value == 0 && out.sum == 0 && out.weight == 0 && out.count == 3);
        for (int64_t i = 0; i < 60; i++) assert_true(get(&dx, i / 20, i % 20) == 0);
        release(&dx);
        operands_free(&o);
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_special_values), cmocka_unit_test(test_mask_hides),
        cmocka_unit_test(test_masked_target),  cmocka_unit_test(test_all_masked),
        cmocka_unit_test(test_only_target),    cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_ties),           cmocka_unit_test(test_confident),
        cmocka_unit_test(test_large_logits),   cmocka_unit_test(test_offset),
        cmocka_unit_test(test_no_weight),
    };
    return cmocka_run_group_tests(tests, NULL, print_worst);
}
