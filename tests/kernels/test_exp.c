/*
 * The exponential, over the floats of its whole range, against the double one; and tanh
 * of softcap. Every 37th float for exp with T = 1, every 481st for other temperatures and
 * factors; every 97th for exp as a pair (m, n) within +-1000, every 997th beyond.
 */
#include "kernel_test.h"
#include "softmax/parts.h"

enum { N = 2048 };

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* x[i] = each stride-th float from *bits on, of this sign, below limit. Returns how many. */
static size_t next_floats(float *x, uint32_t *bits, uint32_t stride, float sign, float limit)
{
    size_t n = 0;
    const uint32_t end = bits_of(limit);
    for (; n < N && *bits <= end; *bits += stride) x[n++] = copysignf(float_of(*bits), sign);
    return n;
}

static float x[N], y[N], m[N];

/* ---- exp --------------------------------------------------------------------------------- */

/* a exp((v - pre) / T) 2^-ref of a block of neighbours; the reference is that
   of the largest. */
static void exp_block(const kernel_table *k, size_t n, double t, float pre, float a,
                      double *far, double *near)
{
    exp_out e = { .arg = exp_arg_of(t, pre), .a = a };
    float top = fmaxf(x[0], x[n - 1]);
    e.ref = rintf((top - pre) * e.arg.log2e_t);
    fp_mode mode = fp_enter();
    k->exp_emit(n, x, &e, y, STORE_CACHED);
    fp_leave(mode);
    const double shift = (double)e.ref * e.arg.unit, inv = 1 / t, factor = (double)a;
    const double zero = BOUND_zero * fmax(1, fabs(factor));
    for (size_t i = 0; i < n; i++) {
        double z = (double)(x[i] - pre) * inv - shift, want = factor * exp(z),
               got = (double)y[i];
        if (fabs(want) < zero && got == 0) continue;
        double u = error_u(got, want, fabs(want)), *worst = z > -20 ? near : far;
        if (u > *worst) *worst = u;
        if (!(u <= BOUND_exp))
            fail_msg("exp(%a) T %g pre %g a %g ref %g is %a, should be %a: %g u", (double)x[i],
                     t, (double)pre, factor, (double)e.ref, got, want, u);
    }
}

static void sweep(const kernel_table *k, uint32_t stride, double t, float pre, float a,
                  const char *isa)
{
    double far = 0, near = 0;
    const float limit = (float)((double)EXP_LIMIT * 0.69 * t);
    for (int sign = 1; sign >= -1; sign -= 2)
        for (uint32_t bits = 0; bits <= bits_of(limit);) {
            size_t n = next_floats(x, &bits, stride, (float)sign, limit);
            exp_block(k, n, t, pre, a, &far, &near);
        }
    print_message("exp %-8s T %-6g pre %-4g a %-8.3g %.3f u within e^20, %.3f u of %g\n", isa,
                  t, (double)pre, (double)a, near, fmax(near, far), BOUND_exp);
    assert_true(near <= BOUND_exp_near);
}

static void test_exp(void **state)
{
    const int32_t isa = *(const int32_t *)*state;
    const kernel_table k = kernels_at(isa);
    sweep(&k, 37, 1, 0, 1, isa_names[isa]);
    static const struct {
        double t;
        float pre, a;
    } more[] = {
        { 1, 0, 1.0f / 3 }, { 1, 0, -1e-6f }, { 1, 0, 1e6f }, { 1, 1.5f, 1 },  { 0.7, 0, 1 },
        { 7, 0, 0.6f },     { 100, 3, 1 },    { 0.03, 0, 1 }, { 1e-20, 0, 1 }, { 1e20, 0, 1 },
    };
    for (size_t i = 0; i < COUNT(more); i++)
        sweep(&k, 37 * 13 * 3, more[i].t, more[i].pre, more[i].a, isa_names[isa]);
}

/* One reference, and values from far above to far below it: where 0 begins, and that all below
   is 0, down to -FLT_MAX and -inf; that NaN of any kind is NaN. */
static void test_underflow(void **state)
{
    const kernel_table k = kernels_at(*(const int32_t *)*state);
    const float refs[] = { 0, -60, 300, EXP_LIMIT, -EXP_LIMIT };
    const float as[] = { 1, 0.999f, 0.5f, 0.75f, 1e-3f, 1e-30f, 0, -0.7f };
    for (size_t r = 0; r < COUNT(refs); r++)
        for (size_t j = 0; j < COUNT(as); j++) {
            exp_out e = { .arg = exp_arg_of(1, 0), .ref = refs[r], .a = as[j] };
            for (double below = 20; below < 300; below += 0.37) {
                for (size_t i = 0; i < N; i++)
                    x[i] = (float)((double)e.ref * e.arg.unit - below - (double)i * 0.37 / N);
                exp_block(&k, N, 1, 0, 1, &(double){ 0 }, &(double){ 0 });
                fp_mode mode = fp_enter();
                k.exp_emit(N, x, &e, y, STORE_CACHED);
                fp_leave(mode);
                for (size_t i = 0; i < N; i++) {
                    double want = (double)e.a * exp((double)x[i] - (double)e.ref * e.arg.unit);
                    if (!(error_u((double)y[i], want, fabs(want)) <= BOUND_exp))
                        fail_msg("ref %g a %g: exp(%a) is %a, should be %a", (double)e.ref,
                                 (double)e.a, (double)x[i], (double)y[i], want);
                }
            }
            const float low[] = { -FLT_MAX, -1e30f, -INFINITY, -2 * EXP_LIMIT };
            for (size_t i = 0; i < N; i++) x[i] = low[i % COUNT(low)];
            k.exp_emit(N, x, &e, y, STORE_CACHED);
            for (size_t i = 0; i < N; i++) assert_true(y[i] == 0);
            const uint32_t nans[] = { 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF };
            for (size_t i = 0; i < N; i++) x[i] = float_of(nans[i % COUNT(nans)]);
            k.exp_emit(N, x, &e, y, STORE_CACHED);
            for (size_t i = 0; i < N; i++) assert_true(isnan(y[i]));
        }
}

/* ---- exp as a pair ----------------------------------------------------------------------- */

static double ext_block(const kernel_table *k, size_t n)
{
    double worst = 0;
    k->ext_exp(n, x, m, y);
    for (size_t i = 0; i < n; i++) {
        /* x - n log(2) is exact enough in double: n has 21 bits, log(2) comes in two parts. */
        const double at = (double)y[i];
        double r = ((double)x[i] - at * 0x1.62E42FEFA3800p-1) - at * 0x1.EF35793C76730p-45;
        double want = exp(r);
        int e;
        frexp(want, &e);
        double ulp = fabs((double)m[i] - want) * ldexp(1, 24 - e);
        if (!(ulp <= worst)) worst = isnan(ulp) ? INFINITY : ulp;
        if (at != rint(at) || !(want > 0.66 && want < 1.52))
            fail_msg("exp(%a) is %a 2^%g", (double)x[i], (double)m[i], at);
        if (fabsf(x[i]) <= 1000) assert_true(m[i] >= 0.70f && m[i] <= 1.42f); /* softmax.h */
    }
    return worst;
}

static void test_ext_exp(void **state)
{
    const int32_t isa = *(const int32_t *)*state;
    const kernel_table k = kernels_at(isa);
    static const struct {
        float from, to;
        uint32_t stride;
        double bound;
    } part[] = {
        { 0, 1000, 97, BOUND_ext_exp_ulp },
        { 1000, 1e6f, 997, BOUND_ext_exp_far },
        { 1e6f, 0x1p21f, 9973, 2 * BOUND_ext_exp_far },
    };
    for (size_t p = 0; p < COUNT(part); p++) {
        double worst = 0;
        for (int sign = 1; sign >= -1; sign -= 2)
            for (uint32_t bits = bits_of(part[p].from); bits <= bits_of(part[p].to);) {
                size_t n = next_floats(x, &bits, part[p].stride, (float)sign, part[p].to);
                worst = fmax(worst, ext_block(&k, n));
            }
        print_message("ext_exp %-8s |x| <= %-8g %.3f ulp of %g\n", isa_names[isa],
                      (double)part[p].to, worst, part[p].bound);
        assert_true(worst <= part[p].bound);
    }
    const float some[] = { 89, 1000, 1e6f, -1000, -1e6f, 0, -0.0f, 1e-40f };
    for (size_t i = 0; i < COUNT(some); i++) x[i] = some[i];
    ext_block(&k, COUNT(some));
    assert_true(m[5] == 1 && y[5] == 0 && m[6] == 1 && y[6] == 0 && m[7] == 1 && y[7] == 0);
    x[0] = 0x1p21f, x[1] = 3e38f, x[2] = INFINITY, x[3] = -0x1p21f, x[4] = -3e38f,
    x[5] = -INFINITY;
    k.ext_exp(6, x, m, y);
    assert_true(fabsf(y[0] - 3025551.0f) <= 1 &&
                y[3] == -y[0]); /* 2^21 log2(e), rounded twice */
    for (int i = 1; i < 3; i++) assert_true(m[i] == m[0] && y[i] == y[0]);
    for (int i = 4; i < 6; i++) assert_true(m[i] == m[3] && y[i] == y[3]);
}

/* ---- tanh -------------------------------------------------------------------------------- */

static void test_softcap(void **state)
{
    const int32_t isa = *(const int32_t *)*state;
    const kernel_table k = kernels_at(isa);
    double worst = 0;
    for (int sign = 1; sign >= -1; sign -= 2)
        for (uint32_t bits = bits_of(FLT_MIN); bits < bits_of(200);) {
            size_t n = next_floats(x, &bits, 1499, (float)sign, 200);
            fp_mode mode = fp_enter();
            k.softcap(n, x, 1, y, NULL);
            fp_leave(mode);
            for (size_t i = 0; i < n; i++) {
                double want = tanh((double)x[i]);
                worst = fmax(worst, error_u((double)y[i], want, fabs(want)));
            }
        }
    print_message("softcap %-8s %.3f u of %g\n", isa_names[isa], worst, BOUND_softcap);
    assert_true(worst <= BOUND_softcap);
}

int main(void)
{
    static int32_t levels[] = { SLG_ISA_PORTABLE, SLG_ISA_AVX2, SLG_ISA_AVX512 };
#define AT(f, i, level)                                                                        \
    {                                                                                          \
#f " " level, f, NULL, NULL, &levels[i]                                                \
    }
#define EACH(f) AT(f, 0, "portable"), AT(f, 1, "avx2"), AT(f, 2, "avx512")
    const struct CMUnitTest tests[] = {
        EACH(test_exp),
        EACH(test_underflow),
        EACH(test_ext_exp),
        EACH(test_softcap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
