/* A step of descent, ridge regression, the optimum of linear self-attention, tasks. */
#include "attention/attention_test.h"

#define FAILS(call, code, words)                                                               \
    do {                                                                                       \
        assert_int_equal(call, code);                                                          \
        if (!strstr(slg_ctx_message(ctx), words)) fail_msg("%s", slg_ctx_message(ctx));        \
    } while (0)

/* x = a^-1 b by elimination with pivots; a [n, n] and b [n] are overwritten. */
static void solve(int n, double *a, double *b)
{
    for (int i = 0; i < n; i++) {
        int best = i;
        for (int r = i + 1; r < n; r++)
            if (fabs(a[r * n + i]) > fabs(a[best * n + i])) best = r;
        for (int c = 0; c < n; c++) {
            const double t = a[i * n + c];
            a[i * n + c] = a[best * n + c], a[best * n + c] = t;
        }
        const double t = b[i];
        b[i] = b[best], b[best] = t;
        for (int r = i + 1; r < n; r++) {
            const double f = a[r * n + i] / a[i * n + i];
            for (int c = i; c < n; c++) a[r * n + c] -= f * a[i * n + c];
            b[r] -= f * b[i];
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int c = i + 1; c < n; c++) b[i] -= a[i * n + c] * b[c];
        b[i] /= a[i * n + i];
    }
}

enum { B = 3, M = 2 };

typedef struct set {
    int n, d;
    double x[B * 64], y[B * 16], query[B * M * 8], p[64], w[B * 8], out[B * M];
    slg_tensor tx, ty, tq, tp, tw, to;
} set;

static void set_new(set *s, int n, int d)
{
    memset(s, 0, sizeof *s);
    s->n = n, s->d = d;
    for (int i = 0; i < B * n * d; i++) s->x[i] = normal();
    for (int i = 0; i < B * n; i++) s->y[i] = normal();
    for (int i = 0; i < B * M * d; i++) s->query[i] = normal();
    for (int i = 0; i < d; i++)
        for (int j = 0; j <= i; j++)
            s->p[i * d + j] = s->p[j * d + i] = i == j ? 2 + uniform() : 0.3 * normal();
    s->tx = tensor_of(s->x, SLG_F64, 3, B, n, d, 1);
    s->ty = slg_tensor_2d(s->y, SLG_F64, B, n);
    s->tq = tensor_of(s->query, SLG_F64, 3, B, M, d, 1);
    s->tp = slg_tensor_2d(s->p, SLG_F64, d, d), s->tw = slg_tensor_2d(s->w, SLG_F64, B, d);
    s->to = slg_tensor_2d(s->out, SLG_F64, B, M);
}

/* X'y of a prompt. */
static void correlation(const set *s, int b, double *z)
{
    for (int j = 0; j < s->d; j++) {
        z[j] = 0;
        for (int i = 0; i < s->n; i++)
            z[j] += s->x[(b * s->n + i) * s->d + j] * s->y[b * s->n + i];
    }
}

static void check_predictions(const set *s)
{
    for (int b = 0; b < B; b++)
        for (int q = 0; q < M; q++) {
            double sum = 0;
            for (int j = 0; j < s->d; j++)
                sum += s->w[b * s->d + j] * s->query[(b * M + q) * s->d + j];
            assert_true(fabs(s->out[b * M + q] - sum) < 1e-12 * (1 + fabs(sum)));
        }
}

static void test_step(void **state)
{
    (void)state;
    for (int gamma = 0; gamma < 2; gamma++)
        for (int32_t threads = 1; threads <= 8; threads *= 2) {
            set s;
            double z[8];
            slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
            slg_one_step_opts o;
            slg_one_step_opts_init(&o, sizeof o);
            o.eta = 0.25;
            set_new(&s, 7, 4);
            s.p[1] = 5; /* not symmetric */
            OK(ctx,
               slg_one_step(ctx, &s.tx, &s.ty, &s.tq, gamma ? &s.tp : NULL, &o, &s.tw, &s.to));
            for (int b = 0; b < B; b++) {
                correlation(&s, b, z);
                for (int i = 0; i < 4; i++) {
                    double want = gamma ? 0 : z[i];
                    for (int j = 0; j < 4 && gamma; j++) want += s.p[i * 4 + j] * z[j];
                    assert_true(fabs(s.w[b * 4 + i] - 0.25 * want) < 1e-12);
                }
            }
            check_predictions(&s);
            slg_ctx_free(ctx);
        }
}

static void test_ridge(void **state)
{
    (void)state;
    static const int shapes[][2] = { { 7, 4 }, { 3, 6 }, { 4, 4 }, { 1, 1 }, { 0, 3 } };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int i = 0; i < 5; i++)
        for (int precision = 0; precision < 2; precision++) {
            set s;
            const int n = shapes[i][0], d = shapes[i][1];
            slg_ridge_opts o;
            slg_ridge_opts_init(&o, sizeof o);
            o.lambda = 0.3;
            set_new(&s, n, d);
            OK(ctx,
               slg_ridge(ctx, &s.tx, &s.ty, &s.tq, precision ? &s.tp : NULL, &o, &s.tw, &s.to));
            for (int b = 0; b < B; b++) {
                double a[64] = { 0 }, z[8];
                correlation(&s, b, z);
                for (int r = 0; r < d; r++)
                    for (int c = 0; c < d; c++) {
                        a[r * d + c] = 0.3 * (precision ? s.p[r * d + c] : r == c);
                        for (int k = 0; k < n; k++)
                            a[r * d + c] += s.x[(b * n + k) * d + r] * s.x[(b * n + k) * d + c];
                    }
                solve(d, a, z);
                for (int j = 0; j < d; j++) assert_true(fabs(s.w[b * d + j] - z[j]) < 1e-10);
            }
            check_predictions(&s);
        }
    slg_ctx_free(ctx);
}

/* lambda = 0: fits where n < d, by the shortest w; reports where d <= n and X has no full rank.
   */
static void test_ridge_edges(void **state)
{
    (void)state;
    set s;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_ridge_opts o;
    slg_ridge_opts_init(&o, sizeof o);
    set_new(&s, 3, 6);
    OK(ctx, slg_ridge(ctx, &s.tx, &s.ty, NULL, NULL, NULL, &s.tw, NULL));
    for (int b = 0; b < B; b++) {
        double gram[9], c[3], w[6] = { 0 };
        for (int i = 0; i < 3; i++) {
            double fit = 0;
            const double *x = s.x + (b * 3 + i) * 6;
            for (int j = 0; j < 6; j++) fit += x[j] * s.w[b * 6 + j];
            assert_true(fabs(fit - s.y[b * 3 + i]) < 1e-10);
            c[i] = s.y[b * 3 + i];
            for (int k = 0; k < 3; k++) {
                gram[i * 3 + k] = 0;
                for (int j = 0; j < 6; j++) gram[i * 3 + k] += x[j] * s.x[(b * 3 + k) * 6 + j];
            }
        }
        solve(3, gram, c); /* in the span of the rows: the shortest */
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 6; j++) w[j] += c[i] * s.x[(b * 3 + i) * 6 + j];
        for (int j = 0; j < 6; j++) assert_true(fabs(w[j] - s.w[b * 6 + j]) < 1e-10);
    }
    set_new(&s, 6, 3);
    memset(s.w, 0x7E, sizeof s.w);
    for (int i = 0; i < 6; i++) s.x[18 + i * 3] = s.x[18 + i * 3 + 1]; /* of prompt 1 */
    FAILS(slg_ridge(ctx, &s.tx, &s.ty, &s.tq, NULL, &o, &s.tw, &s.to), SLG_ERR_RANGE,
          "prompt 1:");
    for (size_t i = 0; i < sizeof s.w; i++) assert_int_equal(((uint8_t *)s.w)[i], 0x7E);
    s.x[0] = NAN;
    FAILS(slg_ridge(ctx, &s.tx, &s.ty, &s.tq, NULL, &o, &s.tw, &s.to), SLG_ERR_RANGE,
          "prompt 0:");
    o.lambda = -1;
    FAILS(slg_ridge(ctx, &s.tx, &s.ty, &s.tq, NULL, &o, &s.tw, &s.to), SLG_ERR_RANGE,
          "lambda is -1");
    o.lambda = 1, s.p[1] += 1;
    FAILS(slg_ridge(ctx, &s.tx, &s.ty, &s.tq, &s.tp, &o, &s.tw, &s.to), SLG_ERR_RANGE,
          "precision is not symmetric");
    FAILS(slg_ridge(ctx, &s.tx, &s.ty, NULL, NULL, &o, NULL, &s.to), SLG_ERR_NULL, "query");
    FAILS(slg_one_step(ctx, &s.tx, &s.ty, &s.tq, &s.tx, NULL, NULL, &s.to), SLG_ERR_SHAPE,
          "gamma");
    slg_one_step_opts step;
    slg_one_step_opts_init(&step, sizeof step);
    step.eta = NAN;
    FAILS(slg_one_step(ctx, &s.tx, &s.ty, &s.tq, NULL, &step, NULL, &s.to), SLG_ERR_RANGE,
          "eta is nan");
    slg_ctx_free(ctx);
}

/* ---- The optimum ------------------------------------------------------------------------- */

static void spread_matrix(int d, double *a)
{
    double g[64];
    for (int i = 0; i < 8 * d; i++) g[i] = normal() / sqrt(8);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) {
            a[i * d + j] = 0;
            for (int k = 0; k < 8; k++) a[i * d + j] += g[k * d + i] * g[k * d + j];
        }
}

static void test_optimum(void **state)
{
    (void)state;
    enum { D = 4, N = 9 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const double noise = 0.5, eta = 1 / (N + D + 1 + noise * noise);
    double sigma[D * D], inverse[D * D], gamma[D * D], risk, least = D * (1 - N * eta);
    slg_tensor ts = slg_tensor_2d(sigma, SLG_F64, D, D),
               tl = slg_tensor_2d(inverse, SLG_F64, D, D),
               tg = slg_tensor_2d(gamma, SLG_F64, D, D);
    slg_in_context_optimum_out o;
    slg_in_context_optimum_out_init(&o, sizeof o);
    spread_matrix(D, sigma);
    for (int i = 0; i < D; i++) { /* columns of sigma^-1, which is symmetric */
        double copy[D * D];
        memcpy(copy, sigma, sizeof copy);
        for (int j = 0; j < D; j++) inverse[i * D + j] = i == j;
        solve(D, copy, inverse + i * D);
    }
    OK(ctx, slg_in_context_optimum(ctx, NULL, NULL, D, N, noise, &tg, &o));
    for (int i = 0; i < D * D; i++)
        assert_true(fabs(gamma[i] - (i % (D + 1) ? 0 : eta)) < 1e-15);
    assert_true(fabs(o.risk - least) < 1e-12 && fabs(o.eta - eta) < 1e-15);
    assert_true(fabs(o.eta_risk - least) < 1e-12 && o.zero_risk == D);
    OK(ctx, slg_in_context_optimum(ctx, &ts, &tl, 0, N, noise, &tg, &o));
    for (int i = 0; i < D * D; i++) assert_true(fabs(gamma[i] - eta * inverse[i]) < 1e-12);
    assert_true(fabs(o.risk - least) < 1e-10 && o.eta_risk > o.risk);
    spread_matrix(D, inverse); /* a general lambda, and moves from the optimum */
    OK(ctx, slg_in_context_optimum(ctx, &ts, &tl, 0, N, noise, &tg, &o));
    OK(ctx, slg_in_context_risk(ctx, &tg, &ts, &tl, N, noise, &risk));
    assert_true(fabs(risk - o.risk) < 1e-12);
    for (int k = 0; k < 50; k++) {
        double moved[D * D];
        slg_tensor tm = slg_tensor_2d(moved, SLG_F64, D, D);
        for (int i = 0; i < D * D; i++) moved[i] = gamma[i] + pow(10, -k % 4) * 0.1 * normal();
        OK(ctx, slg_in_context_risk(ctx, &tm, &ts, &tl, N, noise, &risk));
        assert_true(risk > o.risk);
    }
    double plain[D * D] = { 0 };
    slg_tensor tp = slg_tensor_2d(plain, SLG_F64, D, D);
    for (int k = -1; k < 2; k++) { /* the best of plain steps */
        for (int i = 0; i < D; i++) plain[i * (D + 1)] = o.eta * (1 + 0.01 * k);
        OK(ctx, slg_in_context_risk(ctx, &tp, &ts, &tl, N, noise, &risk));
        assert_true(k ? risk > o.eta_risk : fabs(risk - o.eta_risk) < 1e-12);
    }
    slg_ctx_free(ctx);
}

static void test_optimum_edges(void **state)
{
    (void)state;
    enum { D = 3 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double sigma[D * D], zero[D * D] = { 0 }, gamma[D * D], risk;
    slg_tensor ts = slg_tensor_2d(sigma, SLG_F64, D, D),
               tz = slg_tensor_2d(zero, SLG_F64, D, D),
               tg = slg_tensor_2d(gamma, SLG_F64, D, D);
    spread_matrix(D, sigma);
    /* noise 0 and fewer examples than d, no examples at all, d = 1 */
    OK(ctx, slg_in_context_optimum(ctx, &ts, NULL, D, 1, 0, &tg, NULL));
    for (int i = 0; i < D * D; i++) assert_true(isfinite(gamma[i]));
    slg_in_context_optimum_out o;
    slg_in_context_optimum_out_init(&o, sizeof o);
    OK(ctx, slg_in_context_optimum(ctx, &ts, NULL, 0, 0, 0.5, &tg, &o));
    assert_true(fabs(o.risk - o.zero_risk) < 1e-12 && fabs(o.eta_risk - o.zero_risk) < 1e-12);
    slg_tensor one = slg_tensor_2d(gamma, SLG_F64, 1, 1);
    OK(ctx, slg_in_context_optimum(ctx, NULL, NULL, 1, 4, 1, &one, &o));
    assert_true(fabs(gamma[0] - 1.0 / 7) < 1e-15);
    memset(gamma, 0x7E, sizeof gamma);
    FAILS(slg_in_context_optimum(ctx, NULL, &tz, 0, 3, 0, &tg, NULL), SLG_ERR_RANGE,
          "no optimum");
    FAILS(slg_in_context_optimum(ctx, &tz, NULL, 0, 3, 1, &tg, NULL), SLG_ERR_RANGE,
          "sigma is singular");
    for (int j = 0; j < D; j++) sigma[D + j] = sigma[j], sigma[j * D + 1] = sigma[j * D];
    sigma[D + 1] = sigma[0];
    FAILS(slg_in_context_optimum(ctx, &ts, NULL, 0, 3, 1, &tg, NULL), SLG_ERR_RANGE,
          "sigma is singular");
    sigma[1] += 1;
    FAILS(slg_in_context_optimum(ctx, &ts, NULL, 0, 3, 1, &tg, NULL), SLG_ERR_RANGE,
          "sigma is not symmetric");
    sigma[1] = INFINITY;
    FAILS(slg_in_context_optimum(ctx, &ts, NULL, 0, 3, 1, &tg, NULL), SLG_ERR_RANGE,
          "must be finite");
    FAILS(slg_in_context_optimum(ctx, NULL, NULL, D, -1, 1, &tg, NULL), SLG_ERR_RANGE,
          "n is -1");
    FAILS(slg_in_context_optimum(ctx, NULL, NULL, D, 1, -1, &tg, NULL), SLG_ERR_RANGE,
          "noise is -1");
    FAILS(slg_in_context_optimum(ctx, NULL, NULL, 0, 1, 1, NULL, NULL), SLG_ERR_RANGE,
          "d is 0");
    FAILS(slg_in_context_optimum(ctx, &tz, NULL, 2, 1, 1, &tg, NULL), SLG_ERR_SHAPE, "d is 2");
    FAILS(slg_in_context_risk(ctx, &tg, NULL, NULL, 1, 1, NULL), SLG_ERR_NULL, "risk");
    FAILS(slg_in_context_risk(ctx, NULL, NULL, NULL, 1, 1, &risk), SLG_ERR_NULL, "gamma");
    for (size_t i = 0; i < sizeof gamma; i++) assert_int_equal(((uint8_t *)gamma)[i], 0x7E);
    slg_ctx_free(ctx);
}

/* ---- Tasks ------------------------------------------------------------------------------- */

enum { PROMPTS = 40000, TN = 20, TD = 5 };

typedef struct sample {
    double *x, *y, *query, *label, *weights;
    slg_tensor tx, ty, tq, tl, tw;
    slg_regression_tasks_opts opts;
    slg_regression_tasks_out out;
    slg_rng rng;
} sample;

static sample sample_new(void)
{
    sample s = { .rng = { 18, 3 } };
    s.x = zeros(PROMPTS * TN * TD, 8), s.y = zeros(PROMPTS * TN, 8);
    s.query = zeros(PROMPTS * TD, 8), s.label = zeros(PROMPTS, 8);
    s.weights = zeros(PROMPTS * TD, 8);
    s.tx = tensor_of(s.x, SLG_F64, 3, PROMPTS, TN, TD, 1);
    s.ty = slg_tensor_2d(s.y, SLG_F64, PROMPTS, TN);
    s.tq = slg_tensor_2d(s.query, SLG_F64, PROMPTS, TD);
    s.tl = slg_tensor_1d(s.label, SLG_F64, PROMPTS);
    s.tw = slg_tensor_2d(s.weights, SLG_F64, PROMPTS, TD);
    slg_regression_tasks_opts_init(&s.opts, sizeof s.opts);
    slg_regression_tasks_out_init(&s.out, sizeof s.out);
    s.opts.noise = 0.5, s.opts.noisy_label = 0;
    return s;
}

static void sample_point(sample *s)
{
    s->out.x = &s->tx, s->out.y = &s->ty, s->out.query = &s->tq, s->out.label = &s->tl;
    s->out.weights = &s->tw;
}

static void sample_free(sample *s)
{
    free(s->x), free(s->y), free(s->query), free(s->label), free(s->weights);
}

/* 40000 prompts: the risk that was seen is the formula's within 2 %; both estimates of eta. */
static void test_monte_carlo(void **state)
{
    (void)state;
    static const double side[] = { 0.25, 0.5625, 1, 2.25, 4 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    double sigma[TD * TD] = { 0 }, lambda[TD * TD] = { 0 }, gamma[TD * TD];
    double *y_hat = zeros(PROMPTS, 8);
    slg_tensor ts = slg_tensor_2d(sigma, SLG_F64, TD, TD),
               tl = slg_tensor_2d(lambda, SLG_F64, TD, TD),
               tg = slg_tensor_2d(gamma, SLG_F64, TD, TD),
               out = slg_tensor_1d(y_hat, SLG_F64, PROMPTS);
    sample s = sample_new();
    sample_point(&s);
    for (int i = 0; i < TD; i++) sigma[i * 6] = side[i], lambda[i * 6] = 1 / side[i];
    for (int skewed = 0; skewed < 2; skewed++) {
        const slg_tensor *ps = skewed ? &ts : NULL, *pl = skewed ? &tl : NULL;
        slg_in_context_optimum_out o;
        slg_in_context_optimum_out_init(&o, sizeof o);
        OK(ctx, slg_regression_tasks(ctx, ps, pl, &s.opts, &s.rng, &s.out));
        OK(ctx, slg_in_context_optimum(ctx, ps, pl, TD, TN, 0.5, &tg, &o));
        OK(ctx, slg_one_step(ctx, &s.tx, &s.ty, &s.tq, &tg, NULL, NULL, &out));
        double sum = 0;
        for (int i = 0; i < PROMPTS; i++) sum += pow(y_hat[i] - s.label[i], 2);
        assert_true(fabs(sum / PROMPTS / o.risk - 1) < 0.02);
        slg_one_step_eta_out e;
        slg_one_step_eta_out_init(&e, sizeof e);
        OK(ctx,
           slg_one_step_eta(ctx, &s.tx, &s.ty, &s.tq, &s.tl, skewed ? &tg : NULL, NULL, &e));
        assert_true(fabs(e.eta / (skewed ? 1 : o.eta) - 1) < 0.02);
        if (skewed) continue;
        slg_ridge_opts r;
        slg_ridge_opts_init(&r, sizeof r);
        r.lambda = 0.25;
        OK(ctx, slg_one_step_eta(ctx, &s.tx, &s.ty, NULL, NULL, NULL, &r, &e));
        assert_true(fabs(e.eta / o.eta - 1) < 0.02);
        FAILS(slg_one_step_eta(ctx, &s.tx, &s.ty, &s.tq, NULL, NULL, &r, &e), SLG_ERR_NULL,
              "label is NULL");
    }
    free(y_hat), sample_free(&s), slg_ctx_free(ctx);
}

/* Number ((b, i), j), whatever else is drawn; moments; y = w'x + noise. */
static void test_tasks(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2), *one = context(SLG_ISA_PORTABLE, 1);
    const uint64_t stride = (TN + 1) * (TD + 1) + TD;
    sample s = sample_new();
    sample_point(&s);
    s.opts.noisy_label = 1;
    OK(ctx, slg_regression_tasks(ctx, NULL, NULL, &s.opts, &s.rng, &s.out));
    assert_true(s.rng.offset == 3 + PROMPTS * stride);
    double noise = 0, last = 0;
    for (int64_t b = 0; b < PROMPTS; b += 501)
        for (int64_t i = 0; i <= TN; i++) {
            const uint64_t at = 3 + (uint64_t)b * stride + (uint64_t)i * (TD + 1);
            const double *x = i < TN ? s.x + (b * TN + i) * TD : s.query + b * TD;
            double y = 0.5 * rng_normal(18, at + TD);
            for (uint64_t j = 0; j < TD; j++) {
                const double w =
                    rng_normal(18, 3 + (uint64_t)b * stride + (TN + 1) * (TD + 1) + j);
                assert_true(x[j] == rng_normal(18, at + j) &&
                            s.weights[b * TD + (int64_t)j] == w);
                y += w * x[j];
            }
            assert_true(fabs(y - (i < TN ? s.y[b * TN + i] : s.label[b])) < 1e-12);
        }
    for (int64_t b = 0; b < PROMPTS; b++) {
        double f = 0;
        for (int j = 0; j < TD; j++) f += s.weights[b * TD + j] * s.query[b * TD + j];
        noise += pow(s.label[b] - f, 2) / PROMPTS, last += f * f / PROMPTS;
    }
    assert_true(fabs(noise / 0.25 - 1) < 0.05 && fabs(last / TD - 1) < 0.05);
    /* Prompts 5 to 7 alone, as tokens, on another ISA. */
    float tokens[3 * (TN + 1) * (TD + 1)];
    slg_tensor t = tensor_of(tokens, SLG_F32, 3, 3, TN + 1, TD + 1, 1);
    slg_regression_tasks_out out;
    slg_regression_tasks_out_init(&out, sizeof out);
    out.tokens = &t;
    slg_rng rng = { 18, 3 + 5 * stride };
    OK(one, slg_regression_tasks(one, NULL, NULL, &s.opts, &rng, &out));
    for (int64_t b = 0; b < 3; b++)
        for (int64_t i = 0; i <= TN; i++)
            for (int64_t j = 0; j <= TD; j++) {
                const int64_t r = (b + 5) * TN + i;
                const double want = j < TD
                                        ? (i < TN ? s.x[r * TD + j] : s.query[(b + 5) * TD + j])
                                        : (i < TN ? s.y[r] : 0);
                assert_true(tokens[(b * (TN + 1) + i) * (TD + 1) + j] == (float)want);
            }
    sample_free(&s), slg_ctx_free(ctx), slg_ctx_free(one);
}

/* Covariance of x is sigma; a ReLU network is even and odd parts of its own; errors. */
static void test_shapes_and_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    double sigma[TD * TD], seen[TD * TD] = { 0 }, most = 0, power = 0;
    slg_tensor ts = slg_tensor_2d(sigma, SLG_F64, TD, TD);
    sample s = sample_new();
    sample_point(&s);
    s.opts.function = SLG_TASK_RELU;
    spread_matrix(TD, sigma);
    FAILS(slg_regression_tasks(ctx, &ts, NULL, &s.opts, &s.rng, &s.out), SLG_ERR_OPTIONS,
          "weights");
    s.out.weights = NULL;
    OK(ctx, slg_regression_tasks(ctx, &ts, NULL, &s.opts, &s.rng, &s.out));
    assert_true(s.rng.offset == 3 + PROMPTS * ((TN + 1) * (TD + 1) + 16 * (TD + 1)));
    for (int64_t b = 0; b < PROMPTS * TN; b++)
        for (int i = 0; i < TD * TD; i++)
            seen[i] += s.x[b * TD + i / TD] * s.x[b * TD + i % TD] / (PROMPTS * TN);
    for (int i = 0; i < TD * TD; i++) most = fmax(most, fabs(seen[i] - sigma[i]));
    assert_true(most < 0.02);
    OK(ctx, slg_regression_tasks(ctx, NULL, NULL, &s.opts, &s.rng, &s.out));
    for (int64_t b = 0; b < PROMPTS; b++) power += s.label[b] * s.label[b] / PROMPTS;
    assert_true(fabs(power - 0.5) < 0.02); /* E relu(z)^2 with |W_u|^2 = 1 on average */
    const slg_rng before = s.rng;
    const double kept = s.x[0];
    s.opts.units = 0;
    FAILS(slg_regression_tasks(ctx, NULL, NULL, &s.opts, &s.rng, &s.out), SLG_ERR_RANGE,
          "units is 0");
    s.opts.units = 16, s.opts.noise = -1;
    FAILS(slg_regression_tasks(ctx, NULL, NULL, &s.opts, &s.rng, &s.out), SLG_ERR_RANGE,
          "noise is -1");
    s.opts.noise = 0, s.opts.function = 2;
    FAILS(slg_regression_tasks(ctx, NULL, NULL, &s.opts, &s.rng, &s.out), SLG_ERR_RANGE,
          "function is 2");
    s.opts.function = 0;
    FAILS(slg_regression_tasks(ctx, NULL, NULL, &s.opts, NULL, &s.out), SLG_ERR_NULL, "rng");
    sigma[0] = -1;
    FAILS(slg_regression_tasks(ctx, &ts, NULL, &s.opts, &s.rng, &s.out), SLG_ERR_RANGE,
          "sigma is not positive definite");
    s.ty.shape[0]--;
    FAILS(slg_regression_tasks(ctx, NULL, NULL, &s.opts, &s.rng, &s.out), SLG_ERR_SHAPE,
          "out.y");
    s.out.x = NULL;
    FAILS(slg_regression_tasks(ctx, NULL, NULL, &s.opts, &s.rng, &s.out), SLG_ERR_NULL,
          "out.tokens and out.x");
    assert_true(s.rng.offset == before.offset && s.x[0] == kept);
    sample_free(&s), slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step),          cmocka_unit_test(test_ridge),
        cmocka_unit_test(test_ridge_edges),   cmocka_unit_test(test_optimum),
        cmocka_unit_test(test_optimum_edges), cmocka_unit_test(test_monte_carlo),
        cmocka_unit_test(test_tasks),         cmocka_unit_test(test_shapes_and_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
