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

const adapter adapt_softmax_regression[] = {
    { "softmax_regression", regression },
    { "newton", newton },
    { NULL, NULL },
};
