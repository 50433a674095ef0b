/*
 * slg_bandit: each model against plain double arithmetic, callbacks against the built-in model,
 * the ball, draws, threads.
 */
#include "bandit_test.h"
#include "core/rng.h"

/* ---- The reference ---------------------------------------------------------------------- */

typedef struct reference {
    slg_bandit_opts o;
    int64_t size, block;
    double theta[MOST], theta0[MOST], v[WIDTH], scale;
    int sign[2][MOST];
    int64_t rounds, projections;
    double cost, loss;
} reference;

static void reference_start(slg_ctx *ctx, reference *r, slg_bandit *b, const slg_bandit_opts *o)
{
    memset(r, 0, sizeof *r);
    r->o = *o;
    r->block = o->model == SLG_BANDIT_LINEAR ? D : D * WIDTH;
    r->size = r->block * (o->shared ? 1 : K);
    assert_int_equal(info(ctx, b).weights, r->size);
    read_part(ctx, b, SLG_BANDIT_THETA, r->size, r->theta);
    read_part(ctx, b, SLG_BANDIT_THETA0, r->size, r->theta0);
    const uint64_t weights = rng_number(o->seed, 0), outputs = rng_number(o->seed, 1),
                   signs = rng_number(o->seed, 2);
    for (int64_t i = 0; i < r->size; i++) {
        const double w = sqrt(o->variance) * rng_normal(weights, (uint64_t)i);
        assert_true(r->theta[i] == r->theta0[i]);
        assert_true(r->theta[i] == (o->model == SLG_BANDIT_LINEAR ? 0 : (double)(float)w));
        for (int64_t s = 0; s < o->signs; s++) {
            const int64_t word = s * ((r->size + 63) / 64) + i / 64;
            r->sign[s][i] = rng_number(signs, (uint64_t)word) >> (i % 64) & 1 ? 1 : -1;
        }
    }
    for (int j = 0; j < WIDTH; j++)
        r->v[j] = (rng_number(outputs, 0) >> j & 1 ? 1 : -1) / sqrt(WIDTH);
    r->scale = o->c_p / pow(WIDTH, 0.25);
}

/* act(h), and its slope. */
static double unit(const reference *r, double h, double *slope)
{
    if (r->o.activation == SLG_RELU) {
        *slope = h > 0;
        return h > 0 ? h : 0;
    }
    const double q = 1 / (1 + exp(-h)); /* SiLU */
    *slope = q + h * q * (1 - q);
    return h * q;
}

/* f of an arm; its gradient, within the arm's block. */
static double value(const reference *r, const double *x, int64_t arm, double *grad)
{
    const double *w = r->theta + (r->o.shared ? 0 : arm * r->block);
    double f = 0;
    for (int64_t i = 0; i < D && r->o.model == SLG_BANDIT_LINEAR; i++)
        f += x[i] * w[i], grad[i] = x[i];
    for (int64_t j = 0; j < WIDTH && r->o.model == SLG_BANDIT_TWO_LAYER; j++) {
        double h = 0, slope;
        for (int64_t i = 0; i < D; i++) h += x[i] * w[i * WIDTH + j];
        f += r->v[j] * unit(r, h, &slope);
        for (int64_t i = 0; i < D; i++) grad[i * WIDTH + j] = x[i] * r->v[j] * slope;
    }
    return f;
}

/* Mean cost, loss and slope, and the slopes. */
static void regress(const reference *r, double f, double y, double out[3], double *slopes)
{
    const int64_t s = r->o.signs > 0 ? r->o.signs : 1;
    out[0] = out[1] = out[2] = 0;
    for (int64_t k = 0; k < s; k++) {
        double at = f;
        for (int64_t i = 0; i < r->size && r->o.signs > 0; i++)
            at += r->scale * r->sign[k][i] * (r->theta[i] - r->theta0[i]);
        const double q = r->o.rule == SLG_GAP_SQUARE ? at : 1 / (1 + exp(-at));
        const double loss =
            r->o.rule == SLG_GAP_SQUARE
                ? (q - y) * (q - y) / 2
                : (y > 0 ? y * log(y / q) : 0) + (y < 1 ? (1 - y) * log((1 - y) / (1 - q)) : 0);
        slopes[k] = q - y;
        out[0] += q / (double)s, out[1] += loss / (double)s, out[2] += (q - y) / (double)s;
    }
}

static void reference_observe(reference *r, const double *x, int64_t arm, double y)
{
    double grad[MOST], out[3], slopes[2];
    const double f = value(r, x, arm, grad);
    regress(r, f, y, out, slopes);
    const double eta = r->o.schedule == SLG_BANDIT_INVERSE
                           ? 1 / (r->o.mu * (double)(r->rounds + 1))
                           : r->o.step;
    const int64_t first = r->o.shared ? 0 : arm * r->block;
    double length = 0;
    for (int64_t i = 0; i < r->size; i++) {
        double g = i >= first && i < first + r->block ? out[2] * grad[i - first] : 0;
        for (int64_t s = 0; s < r->o.signs; s++)
            g += r->scale * slopes[s] * r->sign[s][i] / (double)r->o.signs;
        r->theta[i] -= eta * g;
        length += pow(r->theta[i] - r->theta0[i], 2);
    }
    length = sqrt(length);
    if (length > r->o.radius * (1 + 0x1p-22)) {
        r->projections++;
        for (int64_t i = 0; i < r->size; i++)
            r->theta[i] = r->theta0[i] + (r->theta[i] - r->theta0[i]) * r->o.radius / length;
    }
    r->rounds++, r->cost += y, r->loss += out[1];
}

/* ---- Rounds ----------------------------------------------------------------------------- */

static void weights(const slg_bandit_opts *o, const double *c, double *p)
{
    int b = 0;
    for (int a = 1; a < K; a++) b = c[a] < c[b] ? a : b;
    p[b] = 1;
    for (int a = 0; a < K; a++) {
        if (a == b) continue;
        const double gap = c[a] - c[b];
        p[a] = o->rule == SLG_GAP_SQUARE ? 1 / (K + o->gamma * gap)
                                         : c[b] / (K * c[b] + o->gamma * gap);
        p[b] -= p[a];
    }
}

/* 20 rounds of a bandit against the reference. */
static void follow(slg_ctx *ctx, const slg_bandit_opts *o)
{
    slg_bandit *b = bandit(ctx, o);
    reference r;
    reference_start(ctx, &r, b, o);
    const uint64_t draws = rng_number(o->seed, 3);
    for (int t = 0; t < 20; t++) {
        float x[K][D];
        double wide[K][D], want[K], p[K], cost[K], got[K], grad[MOST], out[3], slopes[2];
        const bool one = t % 2 && !o->shared; /* a context for all */
        randoms(K * D, 1, x[0]);
        for (int a = 0; a < K; a++)
            for (int i = 0; i < D; i++) wide[a][i] = (double)x[one ? 0 : a][i];
        slg_tensor xt = one ? slg_tensor_1d(x, SLG_F32, D) : slg_tensor_2d(x, SLG_F32, K, D);
        slg_tensor ct = slg_tensor_1d(cost, SLG_F64, K), pt = slg_tensor_1d(got, SLG_F64, K);
        int64_t arm = -1;
        OK(ctx, slg_bandit_choose(b, &xt, NULL, NULL, &arm, &ct, &pt));
        for (int a = 0; a < K; a++) {
            regress(&r, value(&r, wide[a], a, grad), 0.5, out, slopes);
            want[a] = out[0];
        }
        close_to(K, cost, want, 2e-5);
        weights(o, cost, p);
        close_to(K, got, p, 1e-13);
        const double u = rng_uniform(draws, (uint64_t)t);
        int64_t drawn = 0;
        for (double sum = got[0]; sum <= u && drawn < K - 1; sum += got[drawn]) drawn++;
        assert_int_equal(arm, drawn);
        const double y = (double)(float)uniform();
        OK(ctx, slg_bandit_observe(b, &xt, arm, y));
        reference_observe(&r, wide[arm], arm, y);
    }
    double theta[MOST];
    read_part(ctx, b, SLG_BANDIT_THETA, r.size, theta);
    close_to(r.size, theta, r.theta, 1e-4);
    const slg_bandit_info_t i = info(ctx, b);
    double length = 0;
    for (int64_t k = 0; k < r.size; k++) length += pow(theta[k] - r.theta0[k], 2);
    assert_true(i.rounds == 20 && i.draws == 20 && i.arms == K && i.dim == D);
    assert_true(i.projections == r.projections && i.model == o->model && i.gamma == o->gamma);
    assert_true(fabs(i.cost - r.cost) < 1e-12 && fabs(i.loss - r.loss) < 1e-3 * r.loss);
    assert_true(fabs(i.distance - sqrt(length)) < 1e-6);
    assert_true(i.step == (o->schedule ? 1 / (o->mu * 21) : o->step));
    if (isfinite(o->radius)) assert_true(i.projections > 0 && i.distance <= o->radius + 1e-6);
    slg_bandit_free(b);
}

static void test_models(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int v = 0; v < 128; v++) {
        slg_bandit_opts o = opts_of(v & 1, v >> 1 & 1);
        o.shared = v >> 2 & 1, o.signs = v >> 3 & 1 ? 2 : 0, o.schedule = v >> 4 & 1;
        o.activation = v >> 5 & 1 ? SLG_SILU : SLG_RELU, o.mu = 2;
        if (v >> 6) o.radius = 0.1;
        follow(ctx, &o);
    }
}

/* Many hidden units, so that there are tasks to split: the same bits for any number of
   threads. Bfloat16 contexts and steps, too. */
static void test_threads(void **state)
{
    (void)state;
    enum { ARMS = 3, FEATURES = 301, UNITS = 700, SIZE = ARMS * FEATURES * UNITS };
    static double want[SIZE], got[SIZE];
    FOR_EACH_ISA(any, 1)
    for (int32_t threads = 1; threads <= 8; threads += threads < 3 ? 1 : 5) {
        slg_ctx *ctx = context(isa_, threads);
        slg_bandit_opts o = opts_of(SLG_BANDIT_TWO_LAYER, SLG_GAP_FIRST_ORDER);
        o.width = UNITS, o.radius = 0.5, o.step = 10;
        slg_bandit *b;
        OK(ctx, slg_bandit_create(ctx, ARMS, FEATURES, NULL, &o, &b));
        seed = 77;
        for (int t = 0; t < 2; t++) {
            tensor x = matrix(SLG_BF16, ARMS, FEATURES, COL_GAPS);
            for (int64_t i = 0; i < ARMS * FEATURES; i++)
                put(&x, i / FEATURES, i % FEATURES, 0.06 * normal());
            int64_t arm;
            OK(ctx, slg_bandit_choose(b, &x.t, NULL, NULL, &arm, NULL, NULL));
            OK(ctx, slg_bandit_observe(b, &x.t, arm, t));
            release(&x);
        }
        read_part(ctx, b, SLG_BANDIT_THETA, SIZE, threads == 1 ? want : got);
        if (threads > 1) assert_memory_equal(got, want, sizeof want);
        slg_bandit_free(b);
        slg_ctx_free(ctx);
    }
}

/* ---- Callbacks -------------------------------------------------------------------------- */

/* The linear model with weights per arm, which uses the bandit's own context as well. */
typedef struct own_model {
    slg_ctx *ctx;
    slg_status status;
    double bad; /* added to f and to the gradient */
    int64_t calls;
} own_model;

static slg_status own_predict(void *user, const float *theta, const slg_tensor *x, double *f)
{
    own_model *m = user;
    const float *v = x->data;
    float scratch[64];
    slg_rng g = { 1, 0 };
    slg_tensor t = slg_tensor_1d(scratch, SLG_F32, 64);
    if (m->status) return m->status;
    m->calls++;
    OK(m->ctx, slg_random(m->ctx, &g, SLG_NORMAL, &t));
    for (int a = 0; a < K; a++) {
        f[a] = m->bad;
        for (int i = 0; i < D; i++) f[a] += (double)theta[a * D + i] * (double)v[a * D + i];
    }
    return SLG_OK;
}

static slg_status own_gradient(void *user, const float *theta, const slg_tensor *x, int64_t arm,
                               double *f, float *grad)
{
    double all[K];
    const slg_status status = own_predict(user, theta, x, all);
    const float *v = x->data;
    if (status) return status;
    memset(grad, 0, K * D * sizeof *grad);
    for (int i = 0; i < D; i++) grad[arm * D + i] = v[arm * D + i];
    *f = all[arm];
    return SLG_OK;
}

static slg_bandit *with_callbacks(slg_ctx *ctx, own_model *m, slg_bandit_opts *o)
{
    static const float zero[K * D];
    slg_tensor t0 = slg_tensor_1d(zero, SLG_F32, K * D);
    slg_bandit *b;
    o->model = SLG_BANDIT_CALLBACKS, o->user = m;
    o->predict = own_predict, o->gradient = own_gradient;
    OK(ctx, slg_bandit_create(ctx, K, K * D, &t0, o, &b));
    return b;
}

static void test_callbacks(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int v = 0; v < 4; v++) {
        slg_bandit_opts o = opts_of(SLG_BANDIT_LINEAR, v & 1);
        own_model m = { .ctx = ctx };
        if (v & 2) o.radius = 0.4;
        slg_bandit *own = bandit(ctx, &o), *b = with_callbacks(ctx, &m, &o);
        double want[K * D], got[K * D];
        float x[K * D];
        slg_tensor xt = slg_tensor_2d(x, SLG_F32, K, D);
        for (int t = 0; t < 15; t++) {
            int64_t arm, other;
            randoms(K * D, 1, x);
            OK(ctx, slg_bandit_choose(own, &xt, NULL, NULL, &arm, NULL, NULL));
            OK(ctx, slg_bandit_choose(b, &xt, NULL, NULL, &other, NULL, NULL));
            assert_int_equal(arm, other);
            OK(ctx, slg_bandit_observe(own, &xt, arm, (double)(arm % 2)));
            OK(ctx, slg_bandit_observe(b, &xt, arm, (double)(arm % 2)));
        }
        read_part(ctx, own, SLG_BANDIT_THETA, K * D, want);
        read_part(ctx, b, SLG_BANDIT_THETA, K * D, got);
        close_to(K * D, got, want, 1e-5);
        assert_int_equal(m.calls, 30);
        int64_t arm = -5;
        m.status = SLG_ERR_STOPPED;
        assert_int_equal(slg_bandit_choose(b, &xt, NULL, NULL, &arm, NULL, NULL),
                         SLG_ERR_STOPPED);
        assert_non_null(strstr(slg_ctx_message(ctx), "opts.predict returned"));
        assert_int_equal(slg_bandit_observe(b, &xt, 0, 0), SLG_ERR_STOPPED);
        assert_non_null(strstr(slg_ctx_message(ctx), "opts.gradient returned"));
        m.status = SLG_OK, m.bad = NAN;
        assert_int_equal(slg_bandit_choose(b, &xt, NULL, NULL, &arm, NULL, NULL),
                         SLG_ERR_RANGE);
        assert_int_equal(slg_bandit_observe(b, &xt, 0, 0), SLG_ERR_RANGE);
        assert_non_null(strstr(slg_ctx_message(ctx), "prediction of arm 0 is nan"));
        read_part(ctx, b, SLG_BANDIT_THETA, K * D, want);
        assert_memory_equal(got, want, sizeof want);
        assert_true(arm == -5 && info(ctx, b).rounds == 15 && info(ctx, b).draws == 15);
        slg_bandit_free(own), slg_bandit_free(b);
    }
}

/* ---- Choosing --------------------------------------------------------------------------- */

static void test_choice(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_bandit_opts o = opts_of(SLG_BANDIT_TWO_LAYER, SLG_GAP_FIRST_ORDER);
    o.gamma = 5;
    slg_bandit *b = bandit(ctx, &o);
    float x[K * D], mask[K] = { 1, 0, 1, 1 };
    double p[K], cost[K], again[K], chi = 0;
    int64_t seen[K] = { 0 }, arm;
    randoms(K * D, 1, x);
    slg_tensor xt = slg_tensor_2d(x, SLG_F32, K, D), mt = slg_tensor_1d(mask, SLG_F32, K);
    slg_tensor pt = slg_tensor_1d(p, SLG_F64, K), ct = slg_tensor_1d(cost, SLG_F64, K);
    OK(ctx, slg_bandit_choose(b, &xt, &mt, NULL, NULL, &ct, &pt));
    assert_true(info(ctx, b).draws == 0 && p[1] == 0 && cost[1] == INFINITY);
    enum { DRAWS = 100000 };
    for (int i = 0; i < DRAWS; i++) {
        OK(ctx, slg_bandit_choose(b, &xt, &mt, NULL, &arm, NULL, NULL));
        seen[arm]++;
    }
    assert_true(info(ctx, b).draws == DRAWS && info(ctx, b).rounds == 0 && seen[1] == 0);
    for (int a = 0; a < K; a++)
        if (p[a] > 0) chi += pow((double)seen[a] - DRAWS * p[a], 2) / (DRAWS * p[a]);
    assert_true(chi < 18.5); /* two degrees of freedom: once in 10,000 */
    /* By a number given, and nothing moves. */
    const double ends[] = { 0, 1 - 0x1p-53 };
    OK(ctx, slg_bandit_choose(b, &xt, &mt, &ends[0], &arm, NULL, NULL));
    assert_int_equal(arm, 0);
    OK(ctx, slg_bandit_choose(b, &xt, &mt, &ends[1], &arm, NULL, NULL));
    assert_int_equal(arm, 3);
    assert_int_equal(info(ctx, b).draws, DRAWS);
    /* The predictions are those of a bandit that has not chosen. */
    ct.data = again;
    OK(ctx, slg_bandit_choose(b, &xt, &mt, &ends[1], &arm, &ct, NULL));
    assert_memory_equal(cost, again, sizeof cost);
    slg_bandit_free(b);

    /* gamma of theory, and theta that stays. */
    double gamma;
    o.gamma = NAN, o.horizon = 1e6, o.regret = 3, o.radius = 0;
    for (o.rule = 0; o.rule < 2; o.rule++) {
        double theta[MOST], theta0[MOST];
        b = bandit(ctx, &o);
        OK(ctx, slg_inverse_gap_gamma(ctx, o.rule, K, 1e6, 3, 0.05, &gamma));
        const double want = o.rule ? sqrt(K * 1e6 / 9) : sqrt(K * 1e6 / (3 + log(2 / 0.05)));
        assert_true(fabs(gamma - want) < 1e-9 && info(ctx, b).gamma == gamma);
        for (int t = 0; t < 5; t++) OK(ctx, slg_bandit_observe(b, &xt, t % K, 1));
        read_part(ctx, b, SLG_BANDIT_THETA, MOST, theta);
        read_part(ctx, b, SLG_BANDIT_THETA0, MOST, theta0);
        assert_memory_equal(theta, theta0, sizeof theta);
        assert_true(info(ctx, b).projections == 5 && info(ctx, b).distance == 0);
        assert_true(info(ctx, b).cost == 5);
        slg_bandit_free(b);
    }
    OK(ctx, slg_inverse_gap_gamma(ctx, SLG_GAP_FIRST_ORDER, 10, 0, 1, NAN, &gamma));
    assert_true(gamma == 100);
    gamma = -9;
#define NO_GAMMA(status, ...)                                                                  \
    assert_int_equal(slg_inverse_gap_gamma(ctx, __VA_ARGS__, &gamma), status)
    NO_GAMMA(SLG_ERR_RANGE, 2, K, 1, 1, 0.5);
    NO_GAMMA(SLG_ERR_RANGE, 0, 0, 1, 1, 0.5);
    NO_GAMMA(SLG_ERR_RANGE, 0, K, -1, 1, 0.5);
    NO_GAMMA(SLG_ERR_RANGE, 0, K, 1, NAN, 0.5);
    NO_GAMMA(SLG_ERR_RANGE, 0, K, 1, 1, 0);
    NO_GAMMA(SLG_ERR_RANGE, 0, K, 1, 1, 1.5);
    NO_GAMMA(SLG_ERR_RANGE, 1, K, 1, 0, 0.5);
    NO_GAMMA(SLG_ERR_RANGE, 1, K, 1e300, 1e-310, 0.5);
#undef NO_GAMMA
    assert_true(gamma == -9);
    assert_int_equal(slg_inverse_gap_gamma(ctx, 0, K, 1, 1, 1, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_inverse_gap_gamma(NULL, 0, K, 1, 1, 1, &gamma), SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_models),
                                        cmocka_unit_test(test_threads),
                                        cmocka_unit_test(test_callbacks),
                                        cmocka_unit_test(test_choice) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
