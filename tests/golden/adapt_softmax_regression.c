/* Softmax regression: make_softmax-regression.py says what each name means. */
#include <math.h>

#include "golden/adapter.h"

static void regression(run *g)
{
    for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
        slg_softmax_regression_out o;
        slg_softmax_regression_out_init(&o, sizeof o);
        o.prob = output_for(g, "prob", type), o.dx = output_for(g, "grad_x", type);
        o.da = output_for(g, "grad_A", type), o.db = output_for(g, "grad_b", type);
        o.hessian = output_for(g, "hessian", type);
        o.gauss_newton = output_for(g, "gauss_newton", type);
        o.hessian_p = output_for(g, "hess_vec", type);
        o.gauss_newton_p = output_for(g, "gauss_newton_vec", type);
        check(g, slg_softmax_regression(g->ctx, input(g, "A", type), input(g, "x", type),
                                        input(g, "b", type), input_or_null(g, "weights", type),
                                        input_or_null(g, "p", type), &o));
        expect_number(g, "loss", o.loss);
        expect(g, "prob", o.prob);
        expect(g, "grad_x", o.dx);
        expect(g, "grad_A", o.da);
        expect(g, "grad_b", o.db);
        expect(g, "hessian", o.hessian);
        expect(g, "gauss_newton", o.gauss_newton);
        expect(g, "hess_vec", o.hessian_p);
        expect(g, "gauss_newton_vec", o.gauss_newton_p);
    }
}

/* x = h^-1 x, by elimination: h is positive definite here. h and x are overwritten. */
static void solve(run *g, int64_t d, double *h, double *x)
{
    for (int64_t i = 0; i < d; i++) {
        if (!(h[i * d + i] > 0)) fail(g, "pivot %g of the Hessian", h[i * d + i]);
        for (int64_t r = i + 1; r < d; r++) {
            const double q = h[r * d + i] / h[i * d + i];
            for (int64_t c = i; c < d; c++) h[r * d + c] -= q * h[i * d + c];
            x[r] -= q * x[i];
        }
    }
    for (int64_t i = d - 1; i >= 0; i--) {
        for (int64_t c = i + 1; c < d; c++) x[i] -= h[i * d + c] * x[c];
        x[i] /= h[i * d + i];
    }
}

/* Full steps of Newton's method: the library gives the gradient and the Hessian. */
static void newton(run *g)
{
    enum { MOST = 64 };
    slg_tensor *a = input(g, "A", SLG_F64), *b = input(g, "b", SLG_F64);
    slg_tensor *w = input(g, "weights", SLG_F64), *x0 = input(g, "x0", SLG_F64);
    const int64_t d = x0->shape[0], count = (int64_t)scalar(g, "iterations");
    double x[MOST], dx[MOST], h[MOST * MOST], objectives[MOST];
    if (d > MOST || count >= MOST) fail(g, "more than %d variables or iterations", MOST);
    for (int64_t i = 0; i < d; i++) x[i] = tensor_get(x0, i);
    slg_tensor tx = slg_tensor_1d(x, SLG_F64, d), td = slg_tensor_1d(dx, SLG_F64, d);
    slg_tensor th = slg_tensor_2d(h, SLG_F64, d, d),
               all = slg_tensor_1d(objectives, SLG_F64, count + 1);
    for (int64_t step = 0; step <= count; step++) {
        slg_softmax_regression_out o;
        slg_softmax_regression_out_init(&o, sizeof o);
        o.dx = &td, o.hessian = &th;
        check(g, slg_softmax_regression(g->ctx, a, &tx, b, w, NULL, &o));
        objectives[step] = o.value;
        if (step == count) break;
        solve(g, d, h, dx);
        for (int64_t i = 0; i < d; i++) x[i] -= dx[i];
    }
    expect(g, "x", &tx);
    expect(g, "objectives", &all);
}

/* The matrix form; float32 alone. */
static void attention(run *g)
{
    slg_attention_regression_out o;
    slg_attention_regression_out_init(&o, sizeof o);
    o.prob = output_for(g, "prob", SLG_F32), o.dx = output_for(g, "grad_X", SLG_F32);
    o.da1 = output_for(g, "grad_A1", SLG_F32), o.da2 = output_for(g, "grad_A2", SLG_F32);
    check(g, slg_attention_regression(g->ctx, input(g, "A1", SLG_F32), input(g, "A2", SLG_F32),
                                      input(g, "X", SLG_F32), input(g, "target", SLG_F32), &o));
    expect_number(g, "loss", o.value);
    expect(g, "prob", o.prob);
    expect(g, "grad_X", o.dx);
    expect(g, "grad_A1", o.da1);
    expect(g, "grad_A2", o.da2);
}

/* Steps of descent, then what their move of x is to the target and to the data. */
static void shift(run *g)
{
    for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
        slg_tensor *a = input(g, "A", type), *b = input(g, "b", type),
                   *x0 = input(g, "x0", type);
        slg_regression_descent_opts opts;
        slg_regression_descent_out down;
        slg_regression_shift_out o;
        slg_regression_descent_opts_init(&opts, sizeof opts);
        slg_regression_descent_out_init(&down, sizeof down);
        slg_regression_shift_out_init(&o, sizeof o);
        opts.step = scalar(g, "step"), opts.steps = (int32_t)scalar(g, "steps");
        slg_tensor *x = output_for(g, "x", SLG_F64); /* rounded to float32 it would move less */
        down.values = output_for(g, "losses", type);
        check(g, slg_regression_descent(g->ctx, a, b, NULL, x0, &opts, x, &down));
        o.implied_target = output_for(g, "implied_target", type);
        o.data_change = output_for(g, "data_change", type);
        check(g, slg_regression_shift(g->ctx, a, b, x0, x, NULL, &o));
        expect(g, "x", x);
        expect(g, "losses", down.values);
        expect(g, "implied_target", o.implied_target);
        expect(g, "data_change", o.data_change);
        expect_number(g, "target_shift_norm", o.target_shift);
        if (!(o.target_shift <= o.weight_bound) || !(o.target_shift <= o.data_bound))
            fail(g, "the target shifts by %g, bounds are %g and %g", o.target_shift,
                 o.weight_bound, o.data_bound);
    }
}

const adapter adapt_softmax_regression[] = {
    { "softmax_regression", regression },
    { "newton", newton },
    { "attention_form", attention },
    { "shift", shift },
    { NULL, NULL },
};
