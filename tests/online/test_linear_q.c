/* Covariance of features and estimates of Q: slg_inverse_covariance, _update, slg_linear_q. */
#include "mdp_test.h"

static slg_inverse_covariance_opts covariance_opts(double gamma, int32_t normalise)
{
    slg_inverse_covariance_opts o;
    slg_inverse_covariance_opts_init(&o, sizeof o);
    o.gamma = gamma, o.normalise = normalise;
    return o;
}

/* weight NULL: ones. */
static void invert(slg_ctx *ctx, int64_t m, int64_t d, const double *phi, const double *weight,
                   double gamma, int32_t normalise, double *sigma, double *inverse)
{
    const slg_inverse_covariance_opts o = covariance_opts(gamma, normalise);
    slg_tensor p = slg_tensor_2d(phi, SLG_F64, m, d), w = F64_1(weight, m);
    slg_tensor s = F64_2(sigma, d, d), i = F64_2(inverse, d, d);
    OK(ctx, slg_inverse_covariance(ctx, &p, weight ? &w : NULL, &o, sigma ? &s : NULL, &i));
}

/* ---- Covariance -------------------------------------------------------------------------- */

static void test_inverse(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = { { 30, 5 }, { 3, 8 }, { 1, 1 }, { 0, 4 }, { 3000, 40 } };
    static const double gammas[] = { 0.5, 1e-2, 1e-5 };
    FOR_EACH_ISA(ctx, 2)
    for (int trial = 0; trial < 5 * 3 * 4; trial++) {
        const int64_t m = sizes[trial % 5][0], d = sizes[trial % 5][1];
        const double gamma = gammas[trial / 5 % 3];
        const bool weighted = trial / 15 & 1;
        const int32_t normalise = trial / 30;
        double *phi = zeros(m * d, 8), *w = zeros(m, 8), *s = zeros(d * d, 8);
        double *inverse = zeros(d * d, 8), sum = 0;
        unit_features(m, d, phi);
        for (int64_t i = 0; i < m; i++) w[i] = weighted ? uniform() * (i % 3 > 0) : 1;
        for (int64_t i = 0; i < m; i++) sum += w[i];
        invert(ctx, m, d, phi, weighted ? w : NULL, gamma, normalise, s, inverse);
        for (int64_t i = 0; i < d; i++)
            for (int64_t j = 0; j < d; j++) {
                double want = 0, one = gamma * inverse[i * d + j];
                for (int64_t k = 0; k < m; k++) want += w[k] * phi[k * d + i] * phi[k * d + j];
                if (normalise && sum > 0) want /= sum;
                assert_true(fabs(s[i * d + j] - want) <= 1e-12 * (1 + sum));
                for (int64_t k = 0; k < d; k++) one += s[i * d + k] * inverse[k * d + j];
                assert_true(fabs(one - (i == j)) <= 1e-13 / gamma * (1 + sum));
                assert_true(inverse[i * d + j] == inverse[j * d + i]);
                assert_true(s[i * d + j] == s[j * d + i]);
            }
        free(phi), free(w), free(s), free(inverse);
    }
}

/* No samples, none that weighs anything, and equal ones. */
static void test_few_samples(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const double phi[] = { 1, 0.5, 0, 1, 0.5, 0 }, none[] = { 0, 0 };
    double s[9], inverse[9];
    invert(ctx, 0, 3, NULL, NULL, 0.25, 1, s, inverse);
    for (int i = 0; i < 9; i++) assert_true(s[i] == 0 && inverse[i] == (i % 4 ? 0 : 4));
    invert(ctx, 2, 3, phi, none, 0.25, 1, s, inverse);
    for (int i = 0; i < 9; i++) assert_true(s[i] == 0 && inverse[i] == (i % 4 ? 0 : 4));
    invert(ctx, 2, 3, phi, NULL, 1e-12, 1, NULL, inverse); /* (I - phi phi' / 1.25) / gamma */
    assert_true(fabs(inverse[8] * 1e-12 - 1) <= 1e-12);
    assert_true(fabs(inverse[0] * 1e-12 - 0.2) <= 1e-3);
    assert_true(fabs(inverse[1] * 1e-12 + 0.4) <= 1e-3);
    slg_ctx_free(ctx);
}

static void test_types_of_features(void **state)
{
    (void)state;
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16, SLG_F64 };
    enum { M = 9, D = 4 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int form_ = 0; form_ < 16; form_++) {
        const enum layout layout = (enum layout)(form_ / 4);
        tensor phi = matrix(types[form_ % 4], M, D, layout);
        tensor out = matrix(form_ % 2 ? SLG_F32 : SLG_F64, D, D, layout);
        double exact[M * D], want[D * D];
        for (int64_t i = 0; i < M * D; i++) {
            put(&phi, i / D, i % D, normal());
            exact[i] = get(&phi, i / D, i % D);
        }
        const slg_inverse_covariance_opts o = covariance_opts(0.01, 1);
        OK(ctx, slg_inverse_covariance(ctx, &phi.t, NULL, &o, NULL, &out.t));
        invert(ctx, M, D, exact, NULL, 0.01, 1, NULL, want);
        for (int64_t i = 0; i < D * D; i++)
            assert_true(fabs(get(&out, i / D, i % D) - want[i]) <= 1e-7 * fabs(want[i]));
        assert_gaps_intact(&out);
        release(&phi), release(&out);
    }
    slg_ctx_free(ctx);
}

/* Sample by sample as all at once; taken out again, as before. */
static void test_update(void **state)
{
    (void)state;
    enum { M = 12, D = 5 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double phi[M * D], ones[M], want[D * D], got[D * D], start[D * D];
    float single_[D * D];
    unit_features(M, D, phi);
    for (int i = 0; i < M; i++) ones[i] = 0.3;
    invert(ctx, M, D, phi, ones, 0.1, 0, NULL, want);
    invert(ctx, 4, D, phi, ones, 0.1, 0, NULL, start);
    memcpy(got, start, sizeof got);
    for (int i = 0; i < D * D; i++) single_[i] = (float)start[i];
    slg_tensor rest = F64_2(phi + 4 * D, M - 4, D), inverse = F64_2(got, D, D);
    slg_tensor narrow = slg_tensor_2d(single_, SLG_F32, D, D);
    OK(ctx, slg_inverse_covariance_update(ctx, &rest, 0.3, &inverse));
    OK(ctx, slg_inverse_covariance_update(ctx, &rest, 0.3, &narrow));
    close_to(D * D, got, want, 1e-12);
    for (int i = 0; i < D * D; i++) assert_true(fabs((double)single_[i] - want[i]) <= 2e-5);
    OK(ctx, slg_inverse_covariance_update(ctx, &rest, -0.3, &inverse));
    close_to(D * D, got, start, 1e-11);
    /* More than was in: nothing positive definite is left, nothing changes. */
    memcpy(want, got, sizeof got);
    REFUSED_AS(ctx, slg_inverse_covariance_update(ctx, &rest, -1e3, &inverse), SLG_ERR_RANGE,
               "sample 0");
    REFUSED_AS(ctx, slg_inverse_covariance_update(ctx, &rest, NAN, &inverse), SLG_ERR_RANGE,
               "weight");
    phi[5 * D] = INFINITY;
    REFUSED_AS(ctx, slg_inverse_covariance_update(ctx, &rest, 1, &inverse), SLG_ERR_RANGE,
               "phi");
    rest.shape[1] = D - 1;
    REFUSED_AS(ctx, slg_inverse_covariance_update(ctx, &rest, 1, &inverse), SLG_ERR_SHAPE,
               "inverse");
    REFUSED_AS(ctx, slg_inverse_covariance_update(ctx, NULL, 1, &inverse), SLG_ERR_NULL, "phi");
    assert_int_equal(slg_inverse_covariance_update(NULL, &rest, 1, &inverse), SLG_ERR_NULL);
    assert_memory_equal(want, got, sizeof got);
    slg_ctx_free(ctx);
}

static void test_covariance_errors(void **state)
{
    (void)state;
    enum { M = 3, D = 2 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double phi[M * D] = { 1, 2, 3, 4, 5, 6 }, w[M] = { 1, 1, 1 }, out[D * D], s[D * D];
    for (int i = 0; i < D * D; i++) out[i] = s[i] = -9;
    slg_inverse_covariance_opts o;
    slg_tensor tp, tw, ti, ts;
#define BAD(status, text, ...)                                                                 \
    do {                                                                                       \
        o = covariance_opts(0.1, 1);                                                           \
        tp = F64_2(phi, M, D), tw = F64_1(w, M), ti = F64_2(out, D, D), ts = F64_2(s, D, D);   \
        __VA_ARGS__;                                                                           \
        REFUSED_AS(ctx, slg_inverse_covariance(ctx, &tp, &tw, &o, &ts, &ti), status, text);    \
    } while (0)
    const double bad[] = { 0, -1, NAN, INFINITY };
    for (int i = 0; i < 4; i++) BAD(SLG_ERR_RANGE, "gamma", o.gamma = bad[i]);
    for (int i = 1; i < 4; i++) {
        w[1] = bad[i];
        BAD(SLG_ERR_RANGE, "weight [1]", (void)0);
        w[1] = 1;
    }
    BAD(SLG_ERR_RANGE, "gamma is 1e-30", o.gamma = 1e-30; tp.shape[0] = tw.shape[0] = 1);
    BAD(SLG_ERR_RANGE, "normalise", o.normalise = 2);
    BAD(SLG_ERR_OPTIONS, "opts", o.size = 3);
    BAD(SLG_ERR_SHAPE, "weight", tw.shape[0] = 2);
    BAD(SLG_ERR_SHAPE, "features have 0", tp.shape[1] = 0);
    BAD(SLG_ERR_SHAPE, "inverse", ti.shape[0] = 3);
    BAD(SLG_ERR_SHAPE, "sigma", ts.shape[1] = 1);
    BAD(SLG_ERR_DTYPE, "inverse", ti.dtype = SLG_BF16);
    BAD(SLG_ERR_DTYPE, "phi", tp.dtype = SLG_I64);
    BAD(SLG_ERR_STRIDE, "overlaps", ti.data = s);
    BAD(SLG_ERR_STRIDE, "overlaps", ti.data = phi);
    phi[3] = NAN;
    BAD(SLG_ERR_RANGE, "sigma[", (void)0);
    phi[3] = 1e200;
    BAD(SLG_ERR_RANGE, "sigma[", (void)0);
#undef BAD
    assert_int_equal(slg_inverse_covariance(NULL, &tp, NULL, NULL, NULL, &ti), SLG_ERR_NULL);
    for (int i = 0; i < D * D; i++) assert_true(out[i] == -9 && s[i] == -9);
    slg_ctx_free(ctx);
}

/* ---- Estimates --------------------------------------------------------------------------- */

typedef struct estimates {
    double *plain, *offset, *reduced, *width, *bonus; /* [n] */
} estimates;

static estimates estimates_new(int64_t n)
{
    estimates e = { zeros(n, 8), zeros(n, 8), zeros(n, 8), zeros(n, 8), zeros(n, 8) };
    return e;
}

static void estimates_free(estimates *e)
{
    free(e->plain), free(e->offset), free(e->reduced), free(e->width), free(e->bonus);
}

typedef struct setting {
    int64_t states, actions, d, m; /* states 0: phi has two axes */
    double *phi, *visited, *inverse, *samples, *weight, *policy;
    double loss, horizon, beta, gamma;
} setting;

static int64_t pairs(const setting *s) { return (s->states ? s->states : 1) * s->actions; }

static setting setting_new(slg_ctx *ctx, int64_t states, int64_t actions, int64_t d, int64_t m,
                           bool weighted)
{
    setting s = { .states = states, .actions = actions, .d = d, .m = m };
    const int64_t n = pairs(&s);
    s.phi = zeros(n * d, 8), s.visited = zeros(d, 8), s.inverse = zeros(d * d, 8);
    s.samples = zeros(m * d, 8), s.policy = zeros(n, 8);
    s.weight = weighted ? zeros(m, 8) : NULL;
    unit_features(n, d, s.phi), unit_features(1, d, s.visited);
    unit_features(m, d, s.samples), distributions(states ? states : 1, actions, s.policy);
    if (weighted) uniforms(m, s.weight);
    s.horizon = 4, s.loss = 4 * uniform(), s.beta = 0.3, s.gamma = 0.05;
    invert(ctx, m, d, s.samples, s.weight, s.gamma, 1, NULL, s.inverse);
    return s;
}

static void setting_free(setting *s)
{
    free(s->phi), free(s->visited), free(s->inverse), free(s->samples), free(s->weight);
    free(s->policy);
}

static void estimate(slg_ctx *ctx, const setting *s, const double *visited, estimates *e)
{
    slg_linear_q_opts o;
    slg_linear_q_out out;
    slg_linear_q_opts_init(&o, sizeof o), slg_linear_q_out_init(&out, sizeof out);
    o.horizon = s->horizon, o.loss_to_go = s->loss, o.beta = s->beta;
    const int64_t a = s->states ? s->states : s->actions, b = s->states ? s->actions : 0;
    slg_tensor phi = s->states ? F64_3(s->phi, a, b, s->d) : F64_2(s->phi, a, s->d);
    slg_tensor v = F64_1(visited, s->d), i = F64_2(s->inverse, s->d, s->d);
    slg_tensor x = slg_tensor_2d(s->samples, SLG_F64, s->m, s->d), w = F64_1(s->weight, s->m);
    slg_tensor pi = F64_2(s->policy, a, b), t[5];
    double *const to[5] = { e->plain, e->offset, e->reduced, e->width, e->bonus };
    for (int k = 0; k < 5; k++) t[k] = F64_2(to[k], a, b);
    out.plain = &t[0], out.offset = &t[1], out.reduced = &t[2], out.width = &t[3];
    out.bonus = &t[4];
    OK(ctx, slg_linear_q(ctx, &phi, &v, &i, &x, s->weight ? &w : NULL, &pi, &o, &out));
}

static void test_estimates(void **state)
{
    (void)state;
    static const int64_t sizes[][4] = { { 0, 4, 3, 30 },  { 0, 1, 1, 1 },    { 3, 5, 4, 0 },
                                        { 0, 7, 6, 700 }, { 90, 3, 5, 300 }, { 1, 2, 9, 2 } };
    FOR_EACH_ISA(ctx, 2)
    for (int trial = 0; trial < 12; trial++) {
        const int64_t *z = sizes[trial % 6];
        setting s = setting_new(ctx, z[0], z[1], z[2], z[3], trial >= 6);
        estimates e = estimates_new(pairs(&s));
        double total = 0;
        for (int64_t k = 0; k < s.m; k++) total += s.weight ? s.weight[k] : 1;
        estimate(ctx, &s, s.visited, &e);
        for (int64_t i = 0; i < pairs(&s); i++) {
            const double *phi = s.phi + i * s.d, q = form(s.d, phi, s.inverse, s.visited);
            double offset = 0, mean = 0;
            for (int64_t k = 0; k < s.m; k++)
                offset += s.horizon * (s.weight ? s.weight[k] : 1) / total *
                          fmin(0, form(s.d, phi, s.inverse, s.samples + k * s.d));
            const double reduced = q * s.loss - s.horizon * fmin(q, 0) + offset;
            const double width = form(s.d, phi, s.inverse, phi);
            const int64_t first = i / s.actions * s.actions;
            for (int64_t k = first; k < first + s.actions; k++)
                mean += s.policy[k] * form(s.d, s.phi + k * s.d, s.inverse, s.phi + k * s.d);
            const double got[] = { e.plain[i], e.offset[i], e.reduced[i], e.width[i],
                                   e.bonus[i] };
            const double want[] = { q * s.loss, offset, reduced, width,
                                    s.beta * (width + mean) };
            close_to(5, got, want, 1e-11);
            assert_true(e.reduced[i] >= e.offset[i] - 1e-12);
            assert_true(fabs(e.plain[i]) <= s.horizon / s.gamma);
        }
        estimates_free(&e), setting_free(&s);
    }
}

/* The visited pair being one of the samples, each as likely: the same mean for a constant L. */
static void test_same_mean(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int trial = 0; trial < 10; trial++) {
        setting s = setting_new(ctx, 0, 6, 4, 40, trial % 2);
        estimates e = estimates_new(6);
        double plain[6] = { 0 }, reduced[6] = { 0 }, total = 0;
        for (int64_t k = 0; k < s.m; k++) total += s.weight ? s.weight[k] : 1;
        for (int64_t k = 0; k < s.m; k++) {
            const double w = (s.weight ? s.weight[k] : 1) / total;
            estimate(ctx, &s, s.samples + k * s.d, &e);
            for (int i = 0; i < 6; i++)
                plain[i] += w * e.plain[i], reduced[i] += w * e.reduced[i];
        }
        close_to(6, reduced, plain, 1e-13);
        estimates_free(&e), setting_free(&s);
    }
    slg_ctx_free(ctx);
}

/* One-hot features: the mean of the estimates is L as gamma goes to 0, for each pair. */
static void test_unbiased(void **state)
{
    (void)state;
    enum { D = 5 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    setting s = setting_new(ctx, 0, D, D, D, true);
    estimates e = estimates_new(D);
    double plain[D] = { 0 }, total = 0;
    for (int i = 0; i < D * D; i++) s.phi[i] = s.samples[i] = i % (D + 1) == 0;
    for (int i = 0; i < D; i++) total += s.weight[i];
    invert(ctx, D, D, s.samples, s.weight, 1e-9, 1, NULL, s.inverse);
    for (int k = 0; k < D; k++) {
        estimate(ctx, &s, s.samples + k * D, &e);
        for (int i = 0; i < D; i++) {
            plain[i] += s.weight[k] / total * e.plain[i];
            assert_true(e.offset[i] == 0 && e.reduced[i] == e.plain[i]);
            assert_true((e.plain[i] == 0) == (i != k)); /* q = 0: all terms 0 */
        }
    }
    for (int i = 0; i < D; i++) assert_true(fabs(plain[i] - s.loss) <= 1e-6 * s.loss);
    estimates_free(&e), setting_free(&s);
    slg_ctx_free(ctx);
}

static void test_estimate_errors(void **state)
{
    (void)state;
    enum { N = 3, D = 2, M = 4 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    setting s = setting_new(ctx, 0, N, D, M, true);
    double plain[N], width[N], bonus[N];
    for (int i = 0; i < N; i++) plain[i] = width[i] = bonus[i] = -9;
    slg_linear_q_opts o;
    slg_linear_q_out out;
    slg_tensor phi, v, inv, x, w, pi, tp, tw, tb;
    const slg_tensor *vp, *xp, *pp;
#define BAD(status, text, ...)                                                                 \
    do {                                                                                       \
        slg_linear_q_opts_init(&o, sizeof o), slg_linear_q_out_init(&out, sizeof out);         \
        phi = F64_2(s.phi, N, D), v = F64_1(s.visited, D), inv = F64_2(s.inverse, D, D);       \
        x = F64_2(s.samples, M, D), w = F64_1(s.weight, M), pi = F64_1(s.policy, N);           \
        tp = F64_1(plain, N), tw = F64_1(width, N), tb = F64_1(bonus, N);                      \
        vp = &v, xp = &x, pp = &pi;                                                            \
        out.reduced = &tp, out.width = &tw, out.bonus = &tb;                                   \
        __VA_ARGS__;                                                                           \
        REFUSED_AS(ctx, slg_linear_q(ctx, &phi, vp, &inv, xp, &w, pp, &o, &out), status,       \
                   text);                                                                      \
    } while (0)
    BAD(SLG_ERR_RANGE, "loss_to_go", o.loss_to_go = 1.5);
    BAD(SLG_ERR_RANGE, "loss_to_go", o.loss_to_go = -0.1);
    BAD(SLG_ERR_RANGE, "loss_to_go", o.loss_to_go = NAN);
    BAD(SLG_ERR_RANGE, "horizon", o.horizon = 0);
    BAD(SLG_ERR_RANGE, "beta", o.beta = -1);
    BAD(SLG_ERR_OPTIONS, "reserved", o.reserved = 1);
    BAD(SLG_ERR_OPTIONS, "reserved", out.reserved = 1);
    BAD(SLG_ERR_OPTIONS, "out", out.size = 3);
    BAD(SLG_ERR_NULL, "visited", vp = NULL);
    BAD(SLG_ERR_NULL, "weight is given", xp = NULL);
    BAD(SLG_ERR_NULL, "policy", pp = NULL);
    BAD(SLG_ERR_SHAPE, "inverse", inv.shape[0] = 1);
    BAD(SLG_ERR_SHAPE, "visited", v.shape[0] = 1);
    BAD(SLG_ERR_SHAPE, "samples has 1 columns", x.shape[1] = 1);
    BAD(SLG_ERR_SHAPE, "weight", w.shape[0] = M - 1);
    BAD(SLG_ERR_SHAPE, "policy", pi.shape[0] = N - 1);
    BAD(SLG_ERR_SHAPE, "width", tw.shape[0] = N - 1);
    BAD(SLG_ERR_SHAPE, "phi", phi = F64_1(s.phi, N));
    BAD(SLG_ERR_DTYPE, "bonus", tb.dtype = SLG_F16);
    BAD(SLG_ERR_DTYPE, "inverse", inv.dtype = SLG_F16);
    BAD(SLG_ERR_STRIDE, "overlap", tb.data = width);
    BAD(SLG_ERR_STRIDE, "overlaps an input", tb.data = s.policy + 1; tb.shape[0] = N);
    s.weight[2] = -1;
    BAD(SLG_ERR_RANGE, "weight [2]", (void)0);
#undef BAD
    REFUSED_AS(ctx, slg_linear_q(ctx, &phi, &v, &inv, NULL, NULL, NULL, NULL, NULL),
               SLG_ERR_NULL, "out");
    assert_int_equal(slg_linear_q(NULL, &phi, &v, &inv, NULL, NULL, NULL, NULL, &out),
                     SLG_ERR_NULL);
    for (int i = 0; i < N; i++) assert_true(plain[i] == -9 && width[i] == -9 && bonus[i] == -9);
    /* Widths alone need no visit. */
    slg_linear_q_out_init(&out, sizeof out);
    out.width = &tw;
    OK(ctx, slg_linear_q(ctx, &phi, NULL, &inv, NULL, NULL, NULL, NULL, &out));
    for (int i = 0; i < N; i++)
        assert_true(fabs(width[i] - form(D, s.phi + i * D, s.inverse, s.phi + i * D)) <= 1e-13);
    setting_free(&s);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inverse),           cmocka_unit_test(test_few_samples),
        cmocka_unit_test(test_types_of_features), cmocka_unit_test(test_update),
        cmocka_unit_test(test_covariance_errors), cmocka_unit_test(test_estimates),
        cmocka_unit_test(test_same_mean),         cmocka_unit_test(test_unbiased),
        cmocka_unit_test(test_estimate_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
