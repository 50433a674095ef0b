/* slg_project_ball: inside, outside, lengths that overflow, types, threads, errors. */
#include "online_test.h"

enum { N = 30001 };

static void test_values(void **state)
{
    (void)state;
    static const struct {
        double far, radius;
    } cases[] = { { 1, 3 },    { 1, 1e9 }, { 1, 0 },       { 1e-30, 1e-31 },
                  { 1e30, 5 }, { 0, 0 },   { 1, INFINITY } };
    for (int64_t i = 0; i < COUNT(cases); i++)
        for (int layout = 0; layout < 2; layout++)
            for (int type = 0; type < 4; type++) {
                const int32_t dtype = type % 2 ? SLG_F64 : SLG_F32;
                const int32_t centre = type == 0   ? SLG_BF16
                                       : type == 1 ? SLG_F64
                                       : type == 2 ? SLG_F32
                                                   : SLG_F16;
                tensor t = vector(dtype, N, layout ? COL_GAPS : CONTIGUOUS);
                tensor c = vector(centre, N, layout ? COL_GAPS : CONTIGUOUS);
                tensor first = vector(dtype, N, CONTIGUOUS);
                double sum = 0;
                for (int64_t j = 0; j < N; j++) {
                    put(&c, 0, j, cases[i].far == 0 ? 1 : cases[i].far < 1 ? 0 : normal());
                    put(&first, 0, j, get(&c, 0, j) + cases[i].far * normal());
                    sum += pow(get(&first, 0, j) - get(&c, 0, j), 2);
                }
                const double length = sqrt(sum);
                const double scale = length > cases[i].radius ? cases[i].radius / length : 1;
                for (int32_t threads = 1; threads <= 8; threads += threads < 3 ? 1 : 5)
                    FOR_EACH_ISA(ctx, threads)
                    {
                        double away = -1;
                        for (int64_t j = 0; j < N; j++) put(&t, 0, j, get(&first, 0, j));
                        OK(ctx, slg_project_ball(ctx, &c.t, cases[i].radius, &t.t, &away));
                        assert_true(fabs(away - length) <= 1e-12 * length);
                        for (int64_t j = 0; j < N; j++) {
                            const double from = get(&c, 0, j), x = get(&first, 0, j);
                            const double want = scale < 1 ? from + (x - from) * scale : x;
                            const double got = get(&t, 0, j);
                            const double parts = fabs(from) + fabs(want - from);
                            const double bound =
                                (dtype == SLG_F32 ? rounding(dtype, want) : 0) + 1e-13 * parts;
                            assert_true(scale < 1 ? fabs(got - want) <= bound : got == want);
                        }
                    }
                if (layout) assert_gaps_intact(&t);
                release(&t), release(&c), release(&first);
            }
}

/* Same bits for threads and ISAs; more axes; the origin; float64 whose squares overflow. */
static void test_forms(void **state)
{
    (void)state;
    static float first[N], got[N], want[N];
    randoms(N, 1, first);
    for (int32_t threads = 1; threads <= 8; threads++) FOR_EACH_ISA(ctx, threads)
        {
            slg_tensor t = slg_tensor_2d(got, SLG_F32, 3, N / 3);
            t.ndim = 3, t.shape[0] = 1, t.shape[1] = 3, t.shape[2] = N / 3;
            t.stride[0] = N, t.stride[1] = N / 3, t.stride[2] = 1;
            memcpy(got, first, sizeof got);
            OK(ctx, slg_project_ball(ctx, NULL, 2, &t, NULL));
            double sum = 0;
            for (int64_t i = 0; i < N / 3 * 3; i++) sum += (double)got[i] * (double)got[i];
            assert_true(fabs(sqrt(sum) - 2) <= 1e-7);
            if (threads == 1 && isa_ == SLG_ISA_PORTABLE) memcpy(want, got, sizeof want);
            assert_memory_equal(got, want, sizeof want);
        }
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double huge[] = { 3e300, -4e300 }, tiny[] = { 3e-200, 4e-200 }, away;
    slg_tensor t = slg_tensor_1d(huge, SLG_F64, 2);
    OK(ctx, slg_project_ball(ctx, NULL, 5, &t, &away));
    assert_true(fabs(away - 5e300) <= 1e286 && fabs(huge[0] - 3) < 1e-14 &&
                fabs(huge[1] + 4) < 1e-14);
    t.data = tiny;
    OK(ctx, slg_project_ball(ctx, NULL, 1e-200, &t, &away));
    assert_true(fabs(away - 5e-200) <= 1e-214 && fabs(tiny[0] - 0.6e-200) <= 1e-215);
    t.shape[0] = 0;
    OK(ctx, slg_project_ball(ctx, NULL, 1, &t, &away));
    assert_true(away == 0);
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float theta[4] = { 3, 4, 0, 0 }, theta0[4] = { 0 };
    double away = -9;
#define REFUSED(status, text, ...)                                                             \
    do {                                                                                       \
        slg_tensor t = slg_tensor_1d(theta, SLG_F32, 4);                                       \
        slg_tensor c = slg_tensor_1d(theta0, SLG_F32, 4);                                      \
        double radius = 1;                                                                     \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_project_ball(ctx, &c, radius, &t, &away), status);                \
        assert_non_null(strstr(slg_ctx_message(ctx), text));                                   \
        assert_true(theta[0] == 3 && away == -9);                                              \
    } while (0)
    REFUSED(SLG_ERR_RANGE, "radius", radius = -1);
    REFUSED(SLG_ERR_RANGE, "radius", radius = NAN);
    REFUSED(SLG_ERR_SHAPE, "theta0", c.shape[0] = 3);
    REFUSED(SLG_ERR_DTYPE, "theta", t.dtype = SLG_BF16);
    REFUSED(SLG_ERR_DTYPE, "theta0", c.dtype = SLG_I32);
    REFUSED(SLG_ERR_STRIDE, "theta", t.stride[0] = 0);
    REFUSED(SLG_ERR_STRIDE, "overlap", c.data = theta + 1; c.shape[0] = t.shape[0] = 3);
    theta[2] = NAN;
    REFUSED(SLG_ERR_RANGE, "element 2 of", (void)0);
    theta[2] = 0, theta0[3] = INFINITY;
    REFUSED(SLG_ERR_RANGE, "element 3 of", (void)0);
    double huge[] = { 1.7e308, 1.7e308 };
    REFUSED(SLG_ERR_RANGE, "past float64", t = slg_tensor_1d(huge, SLG_F64, 2); c.shape[0] = 2;
            theta0[3] = 0);
    REFUSED(SLG_ERR_NULL, "theta", t.data = NULL);
#undef REFUSED
    assert_int_equal(slg_project_ball(NULL, NULL, 1, NULL, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_project_ball(ctx, NULL, 1, NULL, NULL), SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_values),
                                        cmocka_unit_test(test_forms),
                                        cmocka_unit_test(test_errors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
