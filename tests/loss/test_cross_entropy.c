/* slg_cross_entropy on dense logits: every combination of what it takes, against double
   arithmetic and finite differences. */
#include "cross_entropy_test.h"

#include "support/gradcheck.h"

/* Every combination of everything, at one size. */
static void test_combinations(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (unsigned choice = 0; choice < CHOICES; choice++)
        for (int32_t reduction = SLG_NONE; reduction <= SLG_SUM; reduction++) {
            problem p = random_problem(9, 17, choice, reduction, SLG_F32, SLG_F32);
            check_problem(ctx, &p, SLG_F32, SLG_F32, SLG_F32, (enum layout)(choice % 4));
            problem_free(&p);
        }
}

/* Types of everything against each other. */
static void test_types(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 27 * 8; i++) {
        int32_t x = row_types[i % 3], q = row_types[i / 3 % 3], g = row_types[i / 9 % 3];
        unsigned choice = (unsigned)below(CHOICES / 2) * 2 + (unsigned)(i / 27 % 2);
        problem p = random_problem(3, i < 108 ? 100 : 2049, choice, SLG_MEAN, x, q);
        check_problem(ctx, &p, x, q, g, (enum layout)below(4));
        problem_free(&p);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    const int64_t cols[] = { 1,    2,    3,    17,   100,  2047, 2048, 2049, 2050,
                             2051, 2052, 2053, 2054, 2055, 2056, 2057, 2058, 2059,
                             2060, 2061, 2062, 2063, 2064, 2065, 5000, 70000 };
    const int64_t rows[] = { 0, 1, 3, 9 };
    FOR_EACH_ISA(ctx, 1)
    for (int64_t c = 0; c < COUNT(cols); c++)
        for (int64_t r = 0; r < COUNT(rows); r++) {
            if (cols[c] > 5000 && rows[r] == 9 && isa_ != SLG_ISA_AVX2) continue;
            for (int i = 0; i < (cols[c] <= 5000 ? 4 : 2); i++) {
                unsigned choice = (unsigned)below(CHOICES / 2) * 2 + (unsigned)(i % 2);
                int32_t x = row_types[below(4) % 3];
                problem p =
                    random_problem(rows[r], cols[c], choice, (int32_t)below(3), x, SLG_F32);
                check_problem(ctx, &p, x, SLG_F32, row_types[below(4) % 3],
                              (enum layout)below(4));
                problem_free(&p);
            }
        }
}

/* ---- Finite differences, identities ------------------------------------------------------ */

typedef struct value_arg {
    slg_ctx *ctx;
    operands *o;
} value_arg;

static double value_at(const float *x, void *arg)
{
    const value_arg *v = arg;
    const slg_tensor *t = &v->o->x.t;
    slg_loss_out out = loss_out(NULL, NULL);
    memcpy(t->data, x, (size_t)(t->shape[0] * t->shape[1]) * sizeof *x);
    OK(v->ctx,
       slg_cross_entropy(v->ctx, &v->o->logits, &v->o->targets, &v->o->opts, &out, NULL));
    return out.value;
}

static void test_finite_differences(void **state)
{
    (void)state;
    enum { ROWS = 2, COLS = 9 };
    double most = 0;
    FOR_EACH_ISA(ctx, 1)
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        problem p = random_problem(ROWS, COLS, choice, SLG_SUM, SLG_F32, SLG_F32);
        p.temperature = choice & TEMPERATURE ? 1.5 : 1;
        operands o;
        operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
        float x[ROWS * COLS], g[ROWS * COLS];
        for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)p.x[i];
        slg_tensor dx = slg_tensor_2d(g, SLG_F32, ROWS, COLS);
        slg_logits_grad grad = dense_grad(&dx);
        slg_loss_out out = loss_out(NULL, NULL);
        OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, &grad));
        value_arg arg = { ctx, &o };
        gradcheck_result r = gradcheck(value_at, &arg, x, ROWS * COLS, g, NULL);
        assert_true(gradcheck_ok(&r, 1e-4, "cross-entropy"));
        if (r.error > most) most = r.error;
        operands_free(&o);
        problem_free(&p);
    }
    print_message("finite differences: error %.2g\n", most);
}

/* Without soft-cap a row's gradient adds up to what z_loss alone gives: 2 z lse w / T. */
static void test_rows_sum(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        if (choice & SOFTCAP) continue;
        problem p = random_problem(3, 300, choice, SLG_NONE, SLG_F32, SLG_F32);
        for (int64_t r = 0; r < 3; r++)
            if (p.index[r] == p.ignore_index) p.ignore_index = -1;
        operands o;
        operands_of(&p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &o);
        tensor dx = matrix(SLG_F32, 3, 300, CONTIGUOUS), lse = vector(SLG_F32, 3, CONTIGUOUS);
        slg_logits_grad grad = dense_grad(&dx.t);
        slg_loss_out out = loss_out(NULL, &lse.t);
        if (p.ignore_index == -1 && !p.has_prob)
            for (int64_t r = 0; r < 3; r++) put(&o.index, 0, r, (double)(p.index[r] = 0));
        if (p.has_prob) o.targets.ignore_index = -100;
        OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, &grad));
        for (int64_t r = 0; r < 3; r++) {
            if (!p.has_prob && !live(&p, r, p.index[r])) continue;
            double sum = 0, size = 0, w = p.row_weight ? p.row_weight[r] : 1;
            for (int64_t c = 0; c < 300; c++) {
                sum += get(&dx, r, c);
                size += fabs(get(&dx, r, c));
            }
            double want = 2 * p.z_loss * w * get(&lse, 0, r) / p.temperature;
            if (fabs(sum - want) > 3e-7 * (size + fabs(want)))
                fail_msg("choice %u, row %lld: gradient sums to %g, should to %g; size %g",
                         choice, (long long)r, sum, want, size);
        }
        release(&dx), release(&lse);
        operands_free(&o);
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combinations), cmocka_unit_test(test_types),
        cmocka_unit_test(test_sizes),        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_rows_sum),
    };
    return cmocka_run_group_tests(tests, NULL, print_worst);
}
