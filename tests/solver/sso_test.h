/*
 * sso_test.h - problems for tests of surrogate steps: data, a linear model both built-in and as
 * callbacks, and one that bends.
 */
#ifndef TESTS_SOLVER_SSO_TEST_H
#define TESTS_SOLVER_SSO_TEST_H

#include "surrogate_test.h"

enum { N = 30, D = 4, M = 3, DIM = D * M };

typedef struct world {
    slg_ctx *ctx;
    int64_t n, m;
    bool bent; /* of the callbacks: Z is not linear in w */
    float x[N * D];
    tensor data;
    slg_tensor tx;
    const int64_t *batch; /* of the callbacks */
    int64_t count, calls;
    int fail_at;  /* the backward that fails; 0: none */
    double spoil; /* added to the oracle's loss */
    slg_target_model model, built_in;
    slg_target_oracle oracle, inside;
} world;

static inline slg_status begin(void *user, int64_t count, const int64_t *rows)
{
    world *w = user;
    w->count = count, w->batch = rows;
    return SLG_OK;
}

static inline double pre(const world *w, const float *theta, int64_t i, int64_t j)
{
    double z = 0;
    for (int k = 0; k < D; k++)
        z += (double)w->x[w->batch[i] * D + k] * (double)theta[k * w->m + j];
    return z;
}

/* Z = X W, or z + tanh(z) of it. */
static inline slg_status forward(void *user, const float *theta, float *z)
{
    const world *w = user;
    for (int64_t i = 0; i < w->count * w->m; i++) {
        const double u = pre(w, theta, i / w->m, i % w->m);
        z[i] = (float)(w->bent ? u + tanh(u) : u);
    }
    return SLG_OK;
}

static inline slg_status backward(void *user, const float *theta, const float *dz, float *dw)
{
    world *w = user;
    if (++w->calls == w->fail_at) return SLG_ERR_STOPPED;
    double sum[DIM] = { 0 };
    for (int64_t i = 0; i < w->count * w->m; i++) {
        const double t = tanh(pre(w, theta, i / w->m, i % w->m));
        const double d = (double)dz[i] * (w->bent ? 2 - t * t : 1);
        for (int k = 0; k < D; k++)
            sum[k * w->m + i % w->m] += d * (double)w->x[w->batch[i / w->m] * D + k];
    }
    for (int64_t i = 0; i < D * w->m; i++) dw[i] = (float)sum[i];
    return SLG_OK;
}

/* The built-in oracle, which may be spoiled. */
static inline slg_status spoiled(void *user, const float *z, double *loss, float *g)
{
    world *w = user;
    const slg_status status = w->inside.evaluate(w->inside.user, z, loss, g);
    *loss += w->spoil;
    return status;
}

static inline slg_status both_begin(void *user, int64_t count, const int64_t *rows)
{
    world *w = user;
    return w->inside.begin(w->inside.user, count, rows);
}

static inline slg_status shift(void *user, const float *z, const float *g, double s,
                               double *loss)
{
    world *w = user;
    return w->inside.shifted(w->inside.user, z, g, s, loss);
}

static inline world *world_new(slg_ctx *ctx, int32_t kind, int64_t n, int64_t m)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->ctx = ctx, w->n = n, w->m = m;
    for (int i = 0; i < N * D; i++) w->x[i] = (float)normal();
    w->data = random_data(kind, SLG_F32, n, m);
    w->tx = slg_tensor_2d(w->x, SLG_F32, n, D);
    slg_target_model_init(&w->built_in, sizeof w->built_in);
    slg_target_oracle_init(&w->inside, sizeof w->inside);
    OK(ctx, slg_linear_model(ctx, &w->tx, m, &w->built_in));
    OK(ctx, slg_loss_oracle(ctx, kind, &w->data.t, m, &w->inside));
    assert_true(w->built_in.dim == D * m && w->built_in.rows == n);
    w->model = (slg_target_model){ .size = sizeof w->model,
                                   .rows = n,
                                   .targets = m,
                                   .dim = D * m,
                                   .user = w,
                                   .begin = begin,
                                   .forward = forward,
                                   .backward = backward };
    w->oracle = w->inside;
    w->oracle.user = w, w->oracle.begin = both_begin, w->oracle.evaluate = spoiled;
    w->oracle.shifted = shift, w->oracle.free = NULL;
    return w;
}

static inline void world_free(world *w)
{
    slg_target_model_free(&w->built_in), slg_target_oracle_free(&w->inside);
    release(&w->data);
    free(w);
}

static inline slg_sso_opts options(int32_t inner, int32_t steps)
{
    slg_sso_opts o;
    slg_sso_opts_init(&o, sizeof o);
    o.inner = inner, o.inner_steps = steps;
    if (inner == SLG_INNER_FIXED) o.step = 0.25;
    return o;
}

static inline slg_sso *driver(world *w, bool built_in, const slg_sso_opts *o)
{
    slg_sso *s;
    OK(w->ctx, slg_sso_create(w->ctx, built_in ? &w->built_in : &w->model, &w->oracle, o, &s));
    return s;
}

static inline slg_sso_report advance(world *w, slg_sso *s, float *theta)
{
    slg_tensor t = slg_tensor_2d(theta, SLG_F32, D, w->m);
    slg_sso_report r = { .size = sizeof r };
    OK(w->ctx, slg_sso_step(s, &t, &r));
    return r;
}

static inline void start(const world *w, float *theta)
{
    seed = 4242;
    for (int64_t i = 0; i < D * w->m; i++) theta[i] = (float)(0.5 * normal());
}

/* Z of all rows, the loss there, and G. */
static inline double loss_at(world *w, int32_t kind, const float *theta, float *z, float *g)
{
    static int64_t rows[N]; /* backward looks at them later */
    double loss;
    for (int64_t i = 0; i < w->n; i++) rows[i] = i;
    begin(w, w->n, rows);
    forward(w, theta, z);
    slg_tensor tz = slg_tensor_2d(z, SLG_F32, w->n, w->m), tg = tz;
    tg.data = g;
    OK(w->ctx, slg_target_loss(w->ctx, kind, &tz, &w->data.t, &loss, &tg));
    return loss;
}

/* x = A^-1 b by Gauss and Jordan, A [n, n], b [n, m]: in place. */
static inline void solve(int64_t n, int64_t m, double *a, double *b)
{
    for (int64_t k = 0; k < n; k++) {
        const double pivot = a[k * n + k];
        for (int64_t j = 0; j < n; j++) a[k * n + j] /= pivot;
        for (int64_t j = 0; j < m; j++) b[k * m + j] /= pivot;
        for (int64_t i = 0; i < n; i++) {
            const double f = a[i * n + k];
            for (int64_t j = 0; j < n && i != k; j++) a[i * n + j] -= f * a[k * n + j];
            for (int64_t j = 0; j < m && i != k; j++) b[i * m + j] -= f * b[k * m + j];
        }
    }
}

#endif
