/*
 * robust_test.h - what the tests of robust cross-entropy and of its optimal temperature share:
 * a row in double, and a call with a temperature a row.
 */
#ifndef TESTS_LOSS_ROBUST_TEST_H
#define TESTS_LOSS_ROBUST_TEST_H

#include "loss_test.h"

enum { ROWS = 9, COLS = 2100, DIM = 3 };

/* One row in double: x after soft-cap and mask. */
typedef struct answer_t {
    double loss, dtau, entropy;
} answer_t;

static inline answer_t reference(int64_t n, const double *x, int64_t t, double tau, double rho,
                                 double *p)
{
    double top = -INFINITY, sum = 0, live = 0, h = 0;
    for (int64_t k = 0; k < n; k++) top = fmax(top, x[k]), live += x[k] > -INFINITY;
    for (int64_t k = 0; k < n; k++) sum += exp((x[k] - top) / tau);
    for (int64_t k = 0; k < n; k++) {
        p[k] = exp((x[k] - top) / tau) / sum;
        if (p[k] > 0) h -= p[k] * ((x[k] - top) / tau - log(sum));
    }
    double loss = tau * (log(sum) - (x[t] - top) / tau) + (rho - log(live)) * tau;
    return (answer_t){ loss, h - log(live) + rho, h };
}

static inline void near(double got, double want, double absolute, const char *what)
{
    if (isnan(want) ? !isnan(got) : !(got == want || fabs(got - want) <= absolute))
        fail_msg("%s is %.9g, should be %.9g", what, got, want);
}

typedef struct data {
    float x[ROWS * COLS], d[ROWS * COLS], tau[ROWS], weight[ROWS], dtau[ROWS], entropy[ROWS];
    double loss[ROWS];
    int32_t index[ROWS], mask[COLS];
    int64_t cols;
    double softcap, rho;
    bool masked;
    int32_t reduction;
} data;

static inline void refill(data *a, int64_t cols, double scale)
{
    a->cols = cols;
    for (int64_t i = 0; i < ROWS * cols; i++) a->x[i] = (float)(scale * normal());
    for (int64_t i = 0; i < cols; i++) a->mask[i] = i % 5 != 3;
    for (int64_t r = 0; r < ROWS; r++) {
        a->tau[r] = (float)exp(normal()), a->weight[r] = r == 4 ? 0.0f : (float)uniform();
        a->index[r] = r == 2 ? -100 : (int32_t)(below(cols) / 5 * 5);
    }
}

static inline slg_status call(slg_ctx *ctx, data *a, bool in_place, slg_loss_out *out)
{
    slg_tensor x = slg_tensor_2d(a->x, SLG_F32, ROWS, a->cols);
    slg_tensor d = slg_tensor_2d(in_place ? a->x : a->d, SLG_F32, ROWS, a->cols);
    slg_tensor tau = slg_tensor_1d(a->tau, SLG_F32, ROWS),
               w = slg_tensor_1d(a->weight, SLG_F32, ROWS);
    slg_tensor index = slg_tensor_1d(a->index, SLG_I32, ROWS);
    slg_tensor mask = slg_tensor_1d(a->mask, SLG_I32, a->cols);
    slg_tensor loss = slg_tensor_1d(a->loss, SLG_F64, ROWS);
    slg_tensor dtau = slg_tensor_1d(a->dtau, SLG_F32, ROWS);
    slg_tensor entropy = slg_tensor_1d(a->entropy, SLG_F32, ROWS);
    slg_logits l = slg_logits_dense(&x);
    slg_targets t = slg_targets_index(&index);
    slg_robust_cross_entropy_opts o;
    slg_logits_grad g = slg_grad_dense(&d);
    slg_robust_cross_entropy_opts_init(&o, sizeof o);
    o.rho = a->rho, o.reduction = a->reduction;
    l.row_temperature = &tau, l.softcap = a->softcap, l.mask = a->masked ? &mask : NULL;
    t.row_weight = &w;
    *out = slg_loss_out_none();
    out->loss = &loss;
    return slg_robust_cross_entropy(ctx, &l, &t, &o, out, &g, &dtau, &entropy);
}

#endif
