/* The in-context predictor of linear self-attention: against the formulas in double. */
#include "attention/attention_test.h"
#include "support/gradcheck.h"

enum { MOST = 6000 };

/* A batch of prompts: tokens, and x, y, query as they would be read from it. */
typedef struct batch {
    int64_t b, n, d, m; /* d: of x */
    float tokens[MOST], x[MOST], y[MOST], query[MOST], a[64], w[64 * 64];
    double dout[MOST];
    slg_tensor t_tokens, t_x, t_y, t_query, t_a, t_w, t_dout;
    slg_in_context_inputs in;
    slg_in_context_opts opts;
} batch;

typedef struct grads {
    float dtokens[MOST], dx[MOST], dy[MOST], dquery[MOST];
    double y[MOST], da[64], dm[64 * 64];
    slg_tensor t[7];
    slg_in_context_grad grad;
} grads;

static void point(batch *p, bool parts)
{
    const int64_t b = p->b, n = p->n, d = p->d;
    p->t_tokens = tensor_of(p->tokens, SLG_F32, 3, b, n + 1, d + 1, 1);
    p->t_x = tensor_of(p->x, SLG_F32, 3, b, n, d, 1);
    p->t_y = tensor_of(p->y, SLG_F32, 2, b, n, 1, 1);
    p->t_query = p->m ? tensor_of(p->query, SLG_F32, 3, b, p->m, d, 1)
                      : tensor_of(p->query, SLG_F32, 2, b, d, 1, 1);
    p->t_a = slg_tensor_1d(p->a, SLG_F32, d + 1);
    p->t_w = slg_tensor_2d(p->w, SLG_F32, d + 1, d + 1);
    p->t_dout =
        p->m ? slg_tensor_2d(p->dout, SLG_F64, b, p->m) : slg_tensor_1d(p->dout, SLG_F64, b);
    slg_in_context_inputs_init(&p->in, sizeof p->in);
    p->in.a = &p->t_a, p->in.m = &p->t_w;
    if (parts)
        p->in.x = &p->t_x, p->in.y = &p->t_y, p->in.query = &p->t_query;
    else
        p->in.tokens = &p->t_tokens;
}

/* m queries a prompt; 0: one, without an axis of its own. Tokens have the first of them. */
static batch *batch_new(int64_t b, int64_t n, int64_t d, int64_t m, bool normalise)
{
    batch *p = zeros(1, sizeof *p);
    const int64_t queries = m ? m : 1;
    p->b = b, p->n = n, p->d = d, p->m = m;
    for (int64_t i = 0; i < b * n * d; i++) p->x[i] = (float)normal();
    for (int64_t i = 0; i < b * n; i++) p->y[i] = (float)normal();
    for (int64_t i = 0; i < b * queries * d; i++) p->query[i] = (float)normal();
    for (int64_t i = 0; i < b * queries; i++) p->dout[i] = normal();
    for (int64_t i = 0; i <= d; i++) p->a[i] = (float)normal();
    for (int64_t i = 0; i < (d + 1) * (d + 1); i++) p->w[i] = (float)normal();
    for (int64_t k = 0; k < b; k++) {
        float *t = p->tokens + k * (n + 1) * (d + 1);
        for (int64_t i = 0; i <= n; i++, t += d + 1) {
            const float *from = i < n ? p->x + (k * n + i) * d : p->query + k * queries * d;
            memcpy(t, from, (size_t)d * sizeof *t);
            t[d] = i < n ? p->y[k * n + i] : 0;
        }
    }
    slg_in_context_opts_init(&p->opts, sizeof p->opts);
    p->opts.normalise = normalise;
    point(p, m > 0);
    return p;
}

static grads *grads_new(batch *p)
{
    grads *g = zeros(1, sizeof *g);
    const int64_t b = p->b, d = p->d;
    g->t[0] = p->m ? slg_tensor_2d(g->y, SLG_F64, b, p->m) : slg_tensor_1d(g->y, SLG_F64, b);
    g->t[1] = slg_tensor_1d(g->da, SLG_F64, d + 1);
    g->t[2] = slg_tensor_2d(g->dm, SLG_F64, d + 1, d + 1);
    g->t[3] = p->t_tokens, g->t[4] = p->t_x, g->t[5] = p->t_y, g->t[6] = p->t_query;
    g->t[3].data = g->dtokens, g->t[4].data = g->dx, g->t[5].data = g->dy;
    g->t[6].data = g->dquery;
    for (int i = 3; i < 7; i++) g->t[i].dtype = SLG_F32;
    for (int i = 3; i < 7; i++) /* inputs may have any strides */
        g->t[i] = tensor_of(g->t[i].data, SLG_F32, g->t[i].ndim, g->t[i].shape[0],
                            g->t[i].shape[1], g->t[i].shape[2], 1);
    slg_in_context_grad_init(&g->grad, sizeof g->grad);
    g->grad.da = &g->t[1], g->grad.dm = &g->t[2];
    if (p->in.tokens)
        g->grad.dtokens = &g->t[3];
    else
        g->grad.dx = &g->t[4], g->grad.dy = &g->t[5], g->grad.dquery = &g->t[6];
    return g;
}

static void run(slg_ctx *ctx, batch *p, grads *g)
{
    OK(ctx, slg_in_context(ctx, &p->in, &p->opts, &g->t[0]));
    OK(ctx, slg_in_context_backward(ctx, &p->in, &p->opts, &p->t_dout, &g->grad));
}

/* ---- The formulas, with G ---------------------------------------------------------------- */

static const float *example(const batch *p, int64_t b, int64_t i)
{
    return p->tokens + (b * (p->n + 1) + i) * (p->d + 1);
}

static void query_of(const batch *p, int64_t b, int64_t j, double *q)
{
    const int64_t queries = p->m ? p->m : 1;
    for (int64_t k = 0; k < p->d; k++) q[k] = (double)p->query[(b * queries + j) * p->d + k];
    q[p->d] = p->in.tokens ? (double)example(p, b, p->n)[p->d] : 0;
}

static double near(double got, double want, double size)
{
    return isnan(want) ? !isnan(got) : !(fabs(got - want) <= 2e-6 * size + 1e-30);
}

static void check(batch *p, const grads *g)
{
    const int64_t d = p->d + 1, queries = p->m ? p->m : 1;
    const double c = p->opts.normalise && p->n ? 1 / (double)p->n : 1;
    double da[64] = { 0 }, size_a[64] = { 0 }, q[64], u[64], size_u[64], k[64];
    double *dm = zeros(2 * d * d, sizeof *dm), *size_m = dm + d * d;
    for (int64_t b = 0; b < p->b; b++) {
        double sum_q[64] = { 0 };
        for (int64_t i = 0; i < d; i++) u[i] = size_u[i] = 0;
        for (int64_t i = 0; i < p->n; i++) {
            const float *v = example(p, b, i);
            double s = 0, size = 0;
            for (int64_t j = 0; j < d; j++)
                s += (double)v[j] * (double)p->a[j],
                    size += fabs((double)v[j] * (double)p->a[j]);
            for (int64_t j = 0; j < d; j++)
                u[j] += s * (double)v[j], size_u[j] += size * fabs((double)v[j]);
        }
        for (int64_t j = 0; j < queries; j++) {
            double y = 0, size = 0;
            const double dout = p->dout[b * queries + j];
            query_of(p, b, j, q);
            for (int64_t r = 0; r < d; r++) {
                double mq = 0, mq_size = 0;
                for (int64_t s = 0; s < d; s++)
                    mq += (double)p->w[r * d + s] * q[s],
                        mq_size += fabs((double)p->w[r * d + s] * q[s]);
                y += u[r] * mq, size += size_u[r] * mq_size;
                sum_q[r] += dout * q[r];
            }
            assert_false((bool)near(g->y[b * queries + j], c * y, c * size));
            for (int64_t s = 0; s < d; s++) {
                double dq = 0, dq_size = 0;
                for (int64_t r = 0; r < d; r++)
                    dq += (double)p->w[r * d + s] * u[r],
                        dq_size += fabs((double)p->w[r * d + s]) * size_u[r];
                const double got = p->in.tokens
                                       ? (double)g->dtokens[(b * (p->n + 1) + p->n) * d + s]
                                   : s < p->d ? (double)g->dquery[(b * queries + j) * p->d + s]
                                              : c * dout * dq;
                assert_false((bool)near(got, c * dout * dq, c * fabs(dout) * dq_size));
            }
        }
        for (int64_t r = 0; r < d; r++) {
            k[r] = 0;
            for (int64_t s = 0; s < d; s++) k[r] += (double)p->w[r * d + s] * sum_q[s];
            for (int64_t s = 0; s < d; s++) {
                dm[r * d + s] += c * u[r] * sum_q[s];
                size_m[r * d + s] += c * size_u[r] * fabs(sum_q[s]);
            }
        }
        for (int64_t i = 0; i < p->n; i++) {
            const float *v = example(p, b, i);
            double s = 0, r = 0, s_size = 0, r_size = 0;
            for (int64_t j = 0; j < d; j++) {
                s += (double)v[j] * (double)p->a[j], r += (double)v[j] * k[j];
                s_size += fabs((double)v[j] * (double)p->a[j]);
                r_size += fabs((double)v[j] * k[j]);
            }
            for (int64_t j = 0; j < d; j++) {
                const double want = c * (s * k[j] + r * (double)p->a[j]);
                const double size = c * (s_size * fabs(k[j]) + r_size * fabs((double)p->a[j]));
                const double got = p->in.tokens
                                       ? (double)g->dtokens[(b * (p->n + 1) + i) * d + j]
                                   : j < p->d ? (double)g->dx[(b * p->n + i) * p->d + j]
                                              : (double)g->dy[b * p->n + i];
                assert_false((bool)near(got, want, size));
                da[j] += c * r * (double)v[j], size_a[j] += c * r_size * fabs((double)v[j]);
            }
        }
    }
    for (int64_t j = 0; j < d; j++) assert_false((bool)near(g->da[j], da[j], size_a[j]));
    for (int64_t j = 0; j < d * d; j++) assert_false((bool)near(g->dm[j], dm[j], size_m[j]));
    free(dm);
}

static const int64_t sizes[][4] = {
    { 3, 7, 4, 0 }, { 1, 1, 1, 0 },  { 2, 130, 5, 3 }, { 5, 64, 2, 1 },
    { 2, 0, 3, 0 }, { 0, 4, 3, 0 },  { 2, 5, 3, 0 },   { 1, 65, 40, 2 },
    { 2, 3, 0, 0 }, { 70, 3, 3, 0 }, { 2, 0, 3, 2 },   { 2, 4, 3, 0 },
};

static void test_values(void **state)
{
    (void)state;
    for (int64_t i = 0; i < COUNT(sizes); i++)
        for (int normalise = 0; normalise < 2; normalise++)
            for (int parts = sizes[i][3] > 0; parts < 2; parts++) {
                const int64_t *s = sizes[i];
                batch *p = batch_new(s[0], s[1], s[2], s[3], normalise);
                point(p, parts);
                if (!parts && s[0] && s[2]) /* a label of the query is read as given */
                    p->tokens[(s[1] + 1) * (s[2] + 1) - 1] = 0.5f;
                FOR_EACH_ISA(ctx, 2)
                {
                    grads *g = grads_new(p);
                    run(ctx, p, g);
                    check(p, g);
                    free(g);
                }
                free(p);
            }
}

static void test_threads(void **state)
{
    (void)state;
    batch *p = batch_new(20, 9, 4, 2, true);
    grads *first = grads_new(p);
    slg_ctx *one = context(SLG_ISA_AUTO, 1);
    run(one, p, first);
    for (int32_t threads = 2; threads <= 8; threads += threads < 3 ? 1 : 5) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
        grads *g = grads_new(p);
        run(ctx, p, g);
        assert_memory_equal(g->y, first->y, sizeof g->y);
        assert_memory_equal(g->da, first->da, sizeof g->da);
        assert_memory_equal(g->dm, first->dm, sizeof g->dm);
        assert_memory_equal(g->dx, first->dx, sizeof g->dx);
        assert_memory_equal(g->dquery, first->dquery, sizeof g->dquery);
        free(g), slg_ctx_free(ctx);
    }
    free(first), free(p), slg_ctx_free(one);
}

/* Rows with gaps, from the last to the first, bfloat16 and float16. */
static void test_layouts(void **state)
{
    (void)state;
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int t = 0; t < 3; t++) {
        batch *p = batch_new(3, 6, 4, 0, false);
        const int64_t rows = 3 * 7, cols = 5;
        tensor m = matrix(types[t], rows, cols, UPSIDE_DOWN), dm;
        for (int64_t i = 0; i < rows * cols; i++) {
            put(&m, i / cols, i % cols, (double)p->tokens[i]);
            p->tokens[i] = (float)get(&m, i / cols, i % cols);
        }
        for (int64_t b = 0; b < 3; b++)
            for (int64_t j = 0; j < 4; j++) p->query[b * 4 + j] = example(p, b, 6)[j];
        slg_tensor v = { m.t.data,
                         types[t],
                         3,
                         { 3, 7, 5, 1 },
                         { 7 * m.t.stride[0], m.t.stride[0], m.t.stride[1], 1 } };
        p->in.tokens = &v;
        grads *g = grads_new(p);
        dm = matrix(types[t], rows, cols, COL_GAPS);
        slg_tensor dv = { dm.t.data,
                          types[t],
                          3,
                          { 3, 7, 5, 1 },
                          { 7 * dm.t.stride[0], dm.t.stride[0], dm.t.stride[1], 1 } };
        run(ctx, p, g);
        check(p, g);
        g->grad.dtokens = &dv;
        run(ctx, p, g);
        for (int64_t i = 0; i < rows * cols; i++) {
            const double want = (double)g->dtokens[i];
            assert_true(fabs(get(&dm, i / cols, i % cols) - want) <=
                        2 * rounding(types[t], want) + 1e-30);
        }
        assert_gaps_intact(&dm);
        release(&m), release(&dm), free(g), free(p);
    }
    slg_ctx_free(ctx);
}

/* ---- Identities -------------------------------------------------------------------------- */

static void predict(slg_ctx *ctx, batch *p, double *y)
{
    slg_tensor t = slg_tensor_1d(y, SLG_F64, p->b);
    OK(ctx, slg_in_context(ctx, &p->in, &p->opts, &t));
}

/* a = (0, 1), M = [Gamma', 0; 0, 0]: a preconditioned step; Gamma = eta I: eta q'X'y. */
static void test_step(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int plain = 0; plain < 2; plain++) {
        batch *p = batch_new(4, 9, 5, 0, false);
        double gamma[25], y[4], want[4];
        float square[36] = { 0 };
        for (int i = 0; i < 25; i++)
            gamma[i] = plain ? (i % 6 ? 0 : 0.125) : (double)(float)normal();
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 5; j++) square[i * 6 + j] = (float)gamma[j * 5 + i];
        memcpy(p->w, square, sizeof square);
        for (int i = 0; i < 6; i++) p->a[i] = i == 5;
        predict(ctx, p, y);
        slg_one_step_opts o;
        slg_one_step_opts_init(&o, sizeof o);
        slg_tensor t = slg_tensor_2d(gamma, SLG_F64, 5, 5),
                   out = slg_tensor_1d(want, SLG_F64, 4);
        if (plain) o.eta = 0.125;
        OK(ctx,
           slg_one_step(ctx, &p->t_x, &p->t_y, &p->t_query, plain ? NULL : &t, &o, NULL, &out));
        for (int i = 0; i < 4; i++) assert_true(fabs(y[i] - want[i]) < 1e-5 * (1 + fabs(y[i])));
        free(p);
    }
    slg_ctx_free(ctx);
}

/* (t a, M / t); examples in another order; x and M_xx turned. */
static void test_invariance(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    batch *p = batch_new(2, 8, 3, 0, true);
    double y[2], other[2];
    predict(ctx, p, y);
    for (int i = 0; i < 4; i++) p->a[i] *= 4;
    for (int i = 0; i < 16; i++) p->w[i] /= 4;
    predict(ctx, p, other);
    assert_memory_equal(y, other, sizeof y); /* a power of two */
    for (int b = 0; b < 2; b++)
        for (int j = 0; j < 4; j++) {
            float *t = p->tokens + b * 36 + j;
            const float kept = t[0];
            for (int i = 0; i < 7; i++) t[i * 4] = t[(i + 1) * 4];
            t[28] = kept;
        }
    predict(ctx, p, other);
    for (int b = 0; b < 2; b++) assert_true(fabs(y[b] - other[b]) < 1e-5 * (1 + fabs(y[b])));
    /* U turns coordinates 0 and 1; M becomes U M U', a becomes U a. */
    const float c = 0.6f, s = 0.8f;
    for (int i = 0; i < 2 * 9; i++) {
        float *v = p->tokens + i * 4, x = v[0], z = v[1];
        v[0] = c * x - s * z, v[1] = s * x + c * z;
    }
    float x = p->a[0], z = p->a[1];
    p->a[0] = c * x - s * z, p->a[1] = s * x + c * z;
    for (int j = 0; j < 4; j++) {
        x = p->w[j], z = p->w[4 + j];
        p->w[j] = c * x - s * z, p->w[4 + j] = s * x + c * z;
    }
    for (int i = 0; i < 4; i++) {
        x = p->w[i * 4], z = p->w[i * 4 + 1];
        p->w[i * 4] = c * x - s * z, p->w[i * 4 + 1] = s * x + c * z;
    }
    predict(ctx, p, other);
    for (int b = 0; b < 2; b++) assert_true(fabs(y[b] - other[b]) < 1e-5 * (1 + fabs(y[b])));
    free(p), slg_ctx_free(ctx);
}

static double weighed(const float *x, void *arg)
{
    void **both = arg;
    batch *p = both[1];
    double y[8], sum = 0;
    (void)x; /* it is the tokens themselves */
    predict(both[0], p, y);
    for (int64_t b = 0; b < p->b; b++) sum += p->dout[b] * y[b];
    return sum;
}

static void test_gradcheck(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    batch *p = batch_new(2, 5, 3, 0, true);
    grads *g = grads_new(p);
    void *both[] = { ctx, p };
    float da[4], dm[16];
    run(ctx, p, g);
    for (int i = 0; i < 4; i++) da[i] = (float)g->da[i];
    for (int i = 0; i < 16; i++) dm[i] = (float)g->dm[i];
    const gradcheck_result r[] = {
        gradcheck(weighed, both, p->a, 4, da, NULL),
        gradcheck(weighed, both, p->w, 16, dm, NULL),
        gradcheck(weighed, both, p->tokens, 48, g->dtokens, NULL),
    };
    for (int i = 0; i < 3; i++) assert_true(gradcheck_ok(&r[i], 1e-3, "in-context"));
    free(p), free(g), slg_ctx_free(ctx);
}

/* ---- Edges ------------------------------------------------------------------------------- */

/* A NaN, or what overflows, stays in its prompt, but reaches da and dM. */
static void test_nan(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int large = 0; large < 2; large++) {
        batch *p = batch_new(3, 6, 4, 0, false);
        grads *clean = grads_new(p), *g = grads_new(p);
        run(ctx, p, clean);
        for (int i = 0; i < 35; i++) p->tokens[35 + i] *= large ? 1e30f : 1;
        if (!large) p->tokens[36] = NAN;
        run(ctx, p, g);
        assert_true(!isfinite(g->y[1]) || fabs(g->y[1]) > 1e60);
        assert_true(!isfinite(g->da[0]) || fabs(g->da[0]) > 1e60);
        assert_true(!isfinite(g->dm[0]) || fabs(g->dm[0]) > 1e60);
        for (int b = 0; b < 3; b += 2) {
            assert_true(g->y[b] == clean->y[b]);
            assert_memory_equal(g->dtokens + 35 * b, clean->dtokens + 35 * b,
                                35 * sizeof(float));
        }
        free(clean), free(g), free(p);
    }
    slg_ctx_free(ctx);
}

/* |v| = 1e10: G is beyond float32 as n |v|^2 |q| is, not what comes of it in double. */
static void test_magnitude(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    batch *p = batch_new(2, 6, 4, 0, false);
    for (int i = 0; i < 70; i++) p->tokens[i] *= 1e10f;
    for (int i = 0; i < 8; i++) p->query[i] *= 1e10f;
    grads *g = grads_new(p);
    run(ctx, p, g);
    check(p, g);
    free(g), free(p), slg_ctx_free(ctx);
}

#define FAILS(call, code, words)                                                               \
    do {                                                                                       \
        assert_int_equal(call, code);                                                          \
        assert_non_null(strstr(slg_ctx_message(ctx), words));                                  \
    } while (0)

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    batch *p = batch_new(2, 5, 3, 0, false);
    grads *g = grads_new(p);
    memset(g->y, 0x7E, sizeof g->y);
    p->opts.normalise = 2;
    FAILS(slg_in_context(ctx, &p->in, &p->opts, &g->t[0]), SLG_ERR_RANGE, "normalise is 2");
    p->in.x = &p->t_x;
    FAILS(slg_in_context(ctx, &p->in, NULL, &g->t[0]), SLG_ERR_OPTIONS, "in.x are both");
    p->in.x = NULL, p->t_a.shape[0] = 3;
    FAILS(slg_in_context(ctx, &p->in, NULL, &g->t[0]), SLG_ERR_SHAPE, "in.a has shape");
    p->t_a.shape[0] = 4, p->in.m = NULL;
    FAILS(slg_in_context(ctx, &p->in, NULL, &g->t[0]), SLG_ERR_NULL, "in.m");
    p->in.m = &p->t_w, p->t_tokens.shape[1] = 0;
    FAILS(slg_in_context(ctx, &p->in, NULL, &g->t[0]), SLG_ERR_SHAPE, "must have a query");
    p->t_tokens.shape[1] = 6;
    FAILS(slg_in_context(ctx, &p->in, NULL, NULL), SLG_ERR_NULL, "y_hat");
    FAILS(slg_in_context_backward(ctx, &p->in, NULL, NULL, &g->grad), SLG_ERR_NULL, "dout");
    FAILS(slg_in_context_backward(ctx, &p->in, NULL, &p->t_dout, NULL), SLG_ERR_NULL, "grad");
    g->grad.dx = &g->t[4];
    FAILS(slg_in_context_backward(ctx, &p->in, NULL, &p->t_dout, &g->grad), SLG_ERR_NULL,
          "grad.dx is given, but not in.x");
    g->grad.dx = NULL, g->grad.dtokens = &p->t_tokens;
    FAILS(slg_in_context_backward(ctx, &p->in, NULL, &p->t_dout, &g->grad), SLG_ERR_STRIDE,
          "grad.dtokens overlaps in.tokens");
    FAILS(slg_in_context(ctx, NULL, NULL, &g->t[0]), SLG_ERR_NULL, "in is NULL");
    for (size_t i = 0; i < sizeof g->y; i++) assert_int_equal(((uint8_t *)g->y)[i], 0x7E);
    free(g), free(p), slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),     cmocka_unit_test(test_threads),
        cmocka_unit_test(test_layouts),    cmocka_unit_test(test_step),
        cmocka_unit_test(test_invariance), cmocka_unit_test(test_gradcheck),
        cmocka_unit_test(test_nan),        cmocka_unit_test(test_magnitude),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
