/*
 * solver_test.h - problems for the tests of objectives and solvers.
 */
#ifndef TESTS_SOLVER_SOLVER_TEST_H
#define TESTS_SOLVER_SOLVER_TEST_H

#include "loss/loss_test.h"

enum { N = 40, D = 5, CLASSES = 3, MOST = 64 };

#define NEAR(got, want, tolerance)                                                             \
    do {                                                                                       \
        const double got_ = (got), want_ = (want);                                             \
        if (!(fabs(got_ - want_) <= (tolerance)))                                              \
            fail_msg("line %d: %.17g, wanted %.17g", __LINE__, got_, want_);                   \
    } while (0)

typedef struct dataset {
    double a[N * D], b[N], x[MOST];
    int32_t y[N], label[N];
    slg_tensor ta, tb, ty, tlabel;
} dataset;

static inline dataset *dataset_new(void)
{
    dataset *p = calloc(1, sizeof *p);
    assert_non_null(p);
    for (int i = 0; i < N * D; i++) p->a[i] = (double)(float)normal();
    for (int i = 0; i < MOST; i++) p->x[i] = normal();
    for (int i = 0; i < N; i++) {
        p->b[i] = uniform() / N;
        p->y[i] = uniform() < 0.5 ? -1 : 1;
        p->label[i] = (int32_t)below(CLASSES);
    }
    p->ta = slg_tensor_2d(p->a, SLG_F64, N, D), p->tb = slg_tensor_1d(p->b, SLG_F64, N);
    p->ty = slg_tensor_1d(p->y, SLG_I32, N), p->tlabel = slg_tensor_1d(p->label, SLG_I32, N);
    return p;
}

/* u = A x - b, or with a bend: u_i = tanh of it. */
typedef struct residual_data {
    const dataset *p;
    bool bent;
} residual_data;

static inline slg_status residual(void *user, const double *x, double *u, double *j)
{
    const residual_data *r = user;
    for (int i = 0; i < N; i++) {
        double z = -r->p->b[i];
        for (int k = 0; k < D; k++) z += r->p->a[i * D + k] * x[k];
        u[i] = r->bent ? tanh(z) : z;
        for (int k = 0; k < D && j; k++)
            j[i * D + k] = r->p->a[i * D + k] * (r->bent ? 1 - u[i] * u[i] : 1);
    }
    return SLG_OK;
}

enum { LSE, LOGISTIC, MULTINOMIAL, POWER, BENT, REGRESSION, KINDS };

static residual_data straight, bent;

static inline slg_objective objective_of(slg_ctx *ctx, const dataset *p, int kind, double ridge)
{
    slg_objective o;
    slg_logistic_opts opts;
    slg_residuals r = { .size = sizeof r, .rows = N, .dim = D, .fn = residual };
    slg_objective_init(&o, sizeof o);
    slg_logistic_opts_init(&opts, sizeof opts);
    opts.intercept = 1, opts.ridge = ridge;
    straight.p = bent.p = p, bent.bent = true;
    r.user = kind == BENT ? &bent : &straight;
    if (kind == LSE) OK(ctx, slg_logsumexp_objective(ctx, &p->ta, &p->tb, 0.7, &o));
    if (kind == LOGISTIC) OK(ctx, slg_logistic_objective(ctx, &p->ta, &p->ty, &opts, &o));
    if (kind == MULTINOMIAL)
        OK(ctx, slg_multinomial_objective(ctx, &p->ta, &p->tlabel, CLASSES, &opts, &o));
    if (kind == POWER) OK(ctx, slg_power_objective(ctx, &r, 3, &o));
    if (kind == BENT) OK(ctx, slg_power_objective(ctx, &r, 2, &o));
    if (kind == REGRESSION)
        OK(ctx, slg_softmax_regression_objective(ctx, &p->ta, &p->tb, NULL, &o));
    assert_true(o.dim <= MOST);
    return o;
}

#endif
