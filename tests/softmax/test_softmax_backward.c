/*
 * Gradients of softmax, log-softmax and log-sum-exp: against their formulas in double, against
 * finite differences, and the rules for masked classes, NaN and memory that is shared.
 */
#include "softmax_test.h"
#include "support/gradcheck.h"

enum function { SOFTMAX, LOG_SOFTMAX };
static const char *const names[] = { "softmax", "log-softmax" };
#define U 0x1p-24

static slg_status backward(slg_ctx *ctx, enum function f, const slg_tensor *y,
                           const slg_tensor *dy, const slg_softmax_opts *o, slg_tensor *dx)
{
    return f == SOFTMAX ? slg_softmax_backward(ctx, y, dy, o, dx)
                        : slg_log_softmax_backward(ctx, y, dy, o, dx);
}

/* dx against the formula, from y as it is; errors by those of dot, live_sums and the gradient
   kernels in kernels/bounds.h. */
static void check_backward(enum function f, const array *y, const array *dy, double t,
                           const array *dx)
{
    const int64_t cols = cols_in(&y->t);
    for (int64_t r = 0; r < rows_in(&y->t); r++) {
        double sum = 0, size = 0;
        bool nan = false;
        for (int64_t c = 0; c < cols; c++) {
            double p = get(y, r, c), d = get(dy, r, c);
            nan |= isnan(p);
            if (f == SOFTMAX ? p == 0 : p == -INFINITY) continue;
            sum += f == SOFTMAX ? p * d : d;
            size += fabs(f == SOFTMAX ? p * d : d);
        }
        for (int64_t c = 0; c < cols; c++) {
            double p = get(y, r, c), d = get(dy, r, c), want, error;
            bool masked = f == SOFTMAX ? p == 0 : p == -INFINITY;
            if (f == SOFTMAX) {
                want = masked ? 0 : p * (d - sum) / t;
                error = fabs(p) / t * (4 * U * (fabs(d) + fabs(sum)) + 12 * U * size);
            } else {
                want = masked ? 0 : (d - exp(p) * sum) / t;
                error = 4 * U * fabs(d) / t + exp(p) / t * (10 * U * fabs(sum) + 22 * U * size);
            }
            if (nan && masked) continue; /* 0 or NaN */
            assert_near(get(dx, r, c), nan ? NAN : want,
                        masked ? 0 : error + rounding(dx->t.dtype, want) + 0x1p-126 / t,
                        "%s T %g row %d column %d of %d", names[f], t, (int)r, (int)c,
                        (int)cols);
        }
    }
    assert_gaps(dx);
}

/* A result of the forward function, of logits of this spread, every third class masked. */
static array results(slg_ctx *ctx, enum function f, int32_t dtype, int32_t ndim,
                     const int64_t *shape, enum layout layout, double sd)
{
    array y = random_array(dtype, ndim, shape, layout, sd, 0);
    for (int64_t r = 0; r < rows_in(&y.t); r++)
        for (int64_t c = 1; c < cols_in(&y.t); c += 3) put(&y, r, c, -INFINITY);
    ok(f == SOFTMAX ? slg_softmax(ctx, &y.t, NULL, &y.t, NULL)
                    : slg_log_softmax(ctx, &y.t, NULL, &y.t, NULL));
    return y;
}

static void test_formulas(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const double temperatures[] = { 1, 0.05, 30 };
    for (int f = 0; f < 2; f++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int64_t n = 1; n <= 20000; n = n < 140 ? n + 1 + (int64_t)t : n * 5) {
                const int64_t shape[] = { n > 1000 ? 40 : 2, n };
                const slg_softmax_opts o = options(temperatures[t], SLG_ALGORITHM_AUTO);
                array y = results(ctx, (enum function)f, SLG_F32, 2, shape, DENSE, 4);
                array dy = random_array(SLG_F32, 2, shape, GAPS, 2, n % 2 ? 0.1 : 0);
                array dx = new_array(SLG_F32, 2, shape, OFF_LINE);
                if (n % 10 == 0) /* the same all over: hard on sums */
                    for (int64_t c = 0; c < n; c++) put(&dy, 0, c, 0.1);
                ok(backward(ctx, (enum function)f, &y.t, &dy.t, &o, &dx.t));
                check_backward((enum function)f, &y, &dy, temperatures[t], &dx);
                free_array(&y), free_array(&dy), free_array(&dx);
            }
    slg_ctx_free(ctx);
}

static void test_types_layouts_in_place(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    static const struct {
        int32_t ndim;
        int64_t shape[4];
    } shapes[] = {
        { 1, { 37 } },         { 2, { 3, 67 } },   { 3, { 2, 3, 21 } },
        { 4, { 2, 2, 3, 9 } }, { 2, { 2, 2500 } },
    };
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int k = 0; k < 27; k++)
            for (int layout = 0; layout < LAYOUTS; layout++) {
                const enum function f = (enum function)((k + layout) % 2);
                const int64_t *shape = shapes[s].shape;
                const int32_t ndim = shapes[s].ndim;
                const enum layout other = (enum layout)((layout + k) % LAYOUTS);
                array y = results(ctx, f, types[k % 3], ndim, shape, (enum layout)layout, 2);
                array dy = random_array(types[k / 3 % 3], ndim, shape, other, 2, 0);
                array dx = new_array(types[k / 9], ndim, shape,
                                     (enum layout)((2 * layout + k) % LAYOUTS));
                ok(backward(ctx, f, &y.t, &dy.t, NULL, &dx.t));
                check_backward(f, &y, &dy, 1, &dx);
                /* dx = y, then dx = dy: as with a dx of its own. */
                array in_y = new_array(types[k % 3], ndim, shape, (enum layout)layout);
                array in_dy = new_array(types[k / 3 % 3], ndim, shape, other);
                ok(backward(ctx, f, &y.t, &dy.t, NULL, &in_y.t));
                ok(backward(ctx, f, &y.t, &dy.t, NULL, &in_dy.t));
                array kept = new_array(types[k % 3], ndim, shape, (enum layout)layout);
                memcpy(kept.memory, y.memory, y.bytes);
                ok(backward(ctx, f, &y.t, &dy.t, NULL, &y.t));
                assert_memory_equal(y.memory, in_y.memory, y.bytes);
                ok(backward(ctx, f, &kept.t, &dy.t, NULL, &dy.t));
                assert_memory_equal(dy.memory, in_dy.memory, dy.bytes);
                free_array(&y), free_array(&dy), free_array(&dx);
                free_array(&in_y), free_array(&in_dy), free_array(&kept);
            }
    slg_ctx_free(ctx);
}

/* What dy holds at masked classes does not matter; NaN in y stays in its row. */
static void test_masked_and_nan(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f };
    for (int f = 0; f < 2; f++)
        for (int64_t n = 3; n < 5000; n = n * 2 + 1)
            for (size_t v = 0; v < COUNT(odd); v++) {
                const int64_t shape[] = { 4, n };
                array y = results(ctx, (enum function)f, SLG_F32, 2, shape, DENSE, 3);
                array dy = random_array(SLG_F32, 2, shape, DENSE, 1, 0),
                      dx = new_array(SLG_F32, 2, shape, GAPS);
                for (int64_t c = 1; c < n; c += 3) put(&dy, 0, c, (double)odd[v]);
                for (int64_t c = 0; c < n; c++) { /* row 1: all masked */
                    put(&y, 1, c, f == SOFTMAX ? 0 : -INFINITY);
                    put(&dy, 1, c, (double)odd[v]);
                }
                for (int64_t c = 0; c < n; c++) /* a log-softmax with NaN is NaN throughout */
                    if (f == LOG_SOFTMAX || c == n * (int64_t)v / 4 / 3 * 3) put(&y, 2, c, NAN);
                ok(backward(ctx, (enum function)f, &y.t, &dy.t, NULL, &dx.t));
                check_backward((enum function)f, &y, &dy, 1, &dx);
                free_array(&y), free_array(&dy), free_array(&dx);
            }
    slg_ctx_free(ctx);
}

/* ---- Log-sum-exp ------------------------------------------------------------------------- */

static void check_lse_backward(const array *x, const array *lse, const array *dlse, double t,
                               const array *dx)
{
    for (int64_t r = 0; r < rows_in(&x->t); r++) {
        const double l = get_row(lse, r), w = dlse ? get_row(dlse, r) : 1;
        for (int64_t c = 0; c < cols_in(&x->t); c++) {
            const double v = get(x, r, c),
                         want = w *
                                (double)expl((long double)v / (long double)t - (long double)l) /
                                t;
            double error = (6e-7 + 4e-16 * fabs(l)) * fabs(want) + rounding(dx->t.dtype, want) +
                           fmax(1, fabs(w) / t) * 0x1p-124;
            assert_near(get(dx, r, c), l == -INFINITY ? 0 : want, v == -INFINITY ? 0 : error,
                        "T %g row %d column %d of %d", t, (int)r, (int)c, (int)cols_in(&x->t));
        }
    }
    assert_gaps(dx);
}

static void test_lse_backward(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    static const double temperatures[] = { 1, 0.05, 7 }, offsets[] = { 0, 100, -1e5, 1e6, 1e9 };
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    for (size_t o = 0; o < COUNT(offsets); o++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int k = 0; k < 9; k++)
                for (int64_t n = 1; n < 6000; n = n * 4 + 3) {
                    if (offsets[o] > 60000 && types[k % 3] == SLG_F16) continue;
                    const int64_t shape[] = { 3, n };
                    const slg_softmax_opts opts = options(temperatures[t], SLG_ALGORITHM_AUTO);
                    const enum layout layout = (enum layout)((k + (int)o) % LAYOUTS);
                    array x = random_array(types[k % 3], 2, shape, layout, 3 * temperatures[t],
                                           offsets[o]);
                    array dx = new_array(types[k / 3], 2, shape, (enum layout)(k % LAYOUTS));
                    array lse = new_1d(k % 2 ? SLG_F64 : SLG_F32, 3), dlse = new_1d(SLG_F32, 3);
                    for (int64_t c = 1; c < n; c += 3) put(&x, 1, c, -INFINITY);
                    for (int64_t c = 0; c < n; c++) put(&x, 2, c, -INFINITY);
                    for (int64_t r = 0; r < 3; r++) put(&dlse, 0, r, 2 * normal());
                    ok(slg_logsumexp(ctx, &x.t, &opts, &lse.t));
                    ok(slg_logsumexp_backward(ctx, &x.t, &lse.t, k % 4 ? &dlse.t : NULL, &opts,
                                              &dx.t));
                    check_lse_backward(&x, &lse, k % 4 ? &dlse : NULL, temperatures[t], &dx);
                    array z = new_array(types[k % 3], 2, shape, layout);
                    ok(slg_logsumexp_backward(ctx, &x.t, &lse.t, NULL, &opts, &z.t));
                    ok(slg_logsumexp_backward(ctx, &x.t, &lse.t, NULL, &opts, &x.t));
                    assert_memory_equal(x.memory, z.memory, x.bytes);
                    free_array(&x), free_array(&dx), free_array(&z), free_array(&lse),
                        free_array(&dlse);
                }
    slg_ctx_free(ctx);
}

/* With the log-sum-exp in double, the gradient is the softmax, however far from 0 the row
   lies. */
static void test_lse_backward_is_softmax(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    for (double offset = 1; offset < 1e9; offset *= 7)
        for (double t = 0.3; t < 40; t *= 5) {
            const int64_t n = 130;
            const slg_softmax_opts o = options(t, SLG_ALGORITHM_AUTO);
            array x = random_array(SLG_F32, 1, &n, DENSE, 3 * t, offset),
                  dx = new_1d(SLG_F32, n);
            array lse = new_1d(SLG_F64, 1);
            ok(slg_logsumexp(ctx, &x.t, &o, &lse.t));
            ok(slg_logsumexp_backward(ctx, &x.t, &lse.t, NULL, &o, &dx.t));
            truth w = truth_of(&x, 0, t);
            for (int64_t c = 0; c < n; c++) {
                double want = true_softmax(&w, get(&x, 0, c)) / t;
                assert_near(get(&dx, 0, c), want,
                            (1.3e-6 + 1e-15 * offset / t) * want + 0x1p-124, "offset %g T %g",
                            offset, t);
            }
            free_array(&x), free_array(&dx), free_array(&lse);
        }
    slg_ctx_free(ctx);
}

static void test_lse_backward_odd_rows(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    float x[4][20], dx[4][20], dlse[] = { 1, 1, 1, NAN };
    double lse[] = { NAN, INFINITY, -INFINITY, 3 };
    for (int r = 0; r < 4; r++) fill(x[r], 20, 1, 0);
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, 4, 20), tdx = slg_tensor_2d(dx, SLG_F32, 4, 20);
    slg_tensor tl = slg_tensor_1d(lse, SLG_F64, 4), td = slg_tensor_1d(dlse, SLG_F32, 4);
    ok(slg_logsumexp_backward(ctx, &tx, &tl, &td, NULL, &tdx));
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 20; c++)
            assert_near((double)dx[r][c], r == 2 ? 0 : NAN, 0, "row %d", r);
    /* A log-sum-exp far above all of the row: 0, not garbage, also past all whole steps. */
    const double above[] = { 200, 1e6, 3e9, 1e20, 3e38 * (1 + 1e-9), 1e200 };
    for (size_t i = 0; i < COUNT(above); i++) {
        for (int r = 0; r < 4; r++) lse[r] = above[i];
        ok(slg_logsumexp_backward(ctx, &tx, &tl, NULL, NULL, &tdx));
        for (int r = 0; r < 4; r++)
            for (int c = 0; c < 20; c++)
                assert_near((double)dx[r][c],
                            above[i] > 1e100 ? (isnan(dx[r][c]) ? NAN : 0) : 0, 0, "%g",
                            above[i]);
    }
    slg_ctx_free(ctx);
}

/* ---- Finite differences ------------------------------------------------------------------ */

enum { FD = 45 };
typedef struct problem {
    slg_ctx *ctx;
    slg_softmax_opts o;
    int function; /* 2: log-sum-exp */
    float weight[FD];
} problem;

static double value(const float *x, void *arg)
{
    problem *p = arg;
    float y[FD];
    double sum = 0, lse = NAN;
    slg_tensor tx = slg_tensor_1d(x, SLG_F32, FD), ty = slg_tensor_1d(y, SLG_F32, FD);
    slg_tensor tl = slg_tensor_1d(&lse, SLG_F64, 1);
    if (p->function == 2) {
        ok(slg_logsumexp(p->ctx, &tx, &p->o, &tl));
        return (double)p->weight[0] * lse;
    }
    ok(p->function ? slg_log_softmax(p->ctx, &tx, &p->o, &ty, NULL)
                   : slg_softmax(p->ctx, &tx, &p->o, &ty, NULL));
    for (int i = 0; i < FD; i++)
        if (x[i] != -INFINITY) sum += (double)p->weight[i] * (double)y[i];
    return sum;
}

static void test_finite_differences(void **state)
{
    problem p = { .ctx = ctx_of(state) };
    static const double temperatures[] = { 1, 0.7, 3 };
    for (p.function = 0; p.function < 3; p.function++)
        for (size_t t = 0; t < COUNT(temperatures); t++)
            for (int masked = 0; masked < 2; masked++) {
                float x[FD], y[FD], dx[FD];
                double lse;
                p.o = options(temperatures[t], SLG_ALGORITHM_AUTO);
                fill(x, FD, 1.5, 0), fill(p.weight, FD, 1, 0);
                for (int i = 0; masked && i < FD; i += 4) x[i] = -INFINITY;
                slg_tensor tx = slg_tensor_1d(x, SLG_F32, FD),
                           ty = slg_tensor_1d(y, SLG_F32, FD);
                slg_tensor td = slg_tensor_1d(dx, SLG_F32, FD),
                           tw = slg_tensor_1d(p.weight, SLG_F32, FD);
                slg_tensor tl = slg_tensor_1d(&lse, SLG_F64, 1),
                           tw1 = slg_tensor_1d(p.weight, SLG_F32, 1);
                if (p.function == 2) {
                    ok(slg_logsumexp(p.ctx, &tx, &p.o, &tl));
                    ok(slg_logsumexp_backward(p.ctx, &tx, &tl, &tw1, &p.o, &td));
                } else if (p.function == 1) {
                    ok(slg_log_softmax(p.ctx, &tx, &p.o, &ty, NULL));
                    ok(slg_log_softmax_backward(p.ctx, &ty, &tw, &p.o, &td));
                } else {
                    ok(slg_softmax(p.ctx, &tx, &p.o, &ty, NULL));
                    ok(slg_softmax_backward(p.ctx, &ty, &tw, &p.o, &td));
                }
                gradcheck_result r = gradcheck(value, &p, x, FD, dx, NULL);
                assert_true(gradcheck_ok(&r, 2e-4, "softmax.h"));
                double sum = 0; /* of softmax and log-softmax: no direction of all ones */
                for (int i = 0; i < FD; i++) sum += (double)dx[i];
                assert_near(sum, p.function == 2 ? (double)p.weight[0] / p.o.temperature : 0,
                            2e-5, "row sum");
            }
    slg_ctx_free(p.ctx);
}

static void test_none(void **state)
{
    slg_ctx *ctx = ctx_of(state);
    const int64_t many = INT64_C(1) << 59;
    double lse = 1;
    slg_tensor none[] = { slg_tensor_2d(NULL, SLG_F32, 3, 0),
                          slg_tensor_2d(NULL, SLG_F32, 0, 3),
                          slg_tensor_2d(NULL, SLG_F32, many, 0) };
    slg_tensor tl = { &lse, SLG_F64, 1, { many }, { 0 } }; /* an input may repeat */
    for (size_t i = 0; i < 3; i++) {
        ok(slg_softmax_backward(ctx, &none[i], &none[i], NULL, &none[i]));
        ok(slg_log_softmax_backward(ctx, &none[i], &none[i], NULL, &none[i]));
        tl.shape[0] = none[i].shape[0];
        ok(slg_logsumexp_backward(ctx, &none[i], &tl, NULL, NULL, &none[i]));
    }
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ISA(test_formulas),
        EACH_ISA(test_types_layouts_in_place),
        EACH_ISA(test_masked_and_nan),
        EACH_ISA(test_lse_backward),
        EACH_ISA(test_lse_backward_is_softmax),
        EACH_ISA(test_lse_backward_odd_rows),
        EACH_ISA(test_finite_differences),
        EACH_ISA(test_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
