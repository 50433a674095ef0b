/*
 * slg_gbm_reverse and slg_gbm_sample: steps against double arithmetic, signs, saturation, how
 * the two samplers differ, and a chain whose model is known that ends at the data's law.
 */
#include "diffusion_test.h"

static slg_gbm_reverse_opts opts_of(int32_t sampler, double delta, double anneal)
{
    slg_gbm_reverse_opts o;
    slg_gbm_reverse_opts_init(&o, sizeof o);
    o.sampler = sampler, o.delta = delta, o.anneal = anneal;
    return o;
}

/* The exponent, or what the factor has beside 1, and the sum of its magnitudes. */
static double move_of(const setup *s, int64_t j, const slg_gbm_reverse_opts *o, double h,
                      double z, double *size)
{
    const double sigma = sigma_at(s, j), square = sigma * sigma;
    const double a = o->delta * square * h, c = o->anneal * sqrt(o->delta) * sigma * z;
    const double b = o->delta * ((o->sampler ? 2 : 1.5) * square - mu_at(s, j));
    *size = fabs(a) + fabs(b) + fabs(c);
    return a + b + c;
}

static void check_step(slg_ctx *ctx, int k)
{
    const int64_t rows = shapes[k % 6][0], cols = shapes[k % 6][1];
    const int32_t type = types[k / 2 % 3];
    const bool logs = k % 5 == 2;
    const slg_gbm_reverse_opts o =
        opts_of(logs ? 0 : k / 3 % 2, k % 2 ? 0.25 : 0.001, k % 4 ? 1 : 0.5);
    setup s;
    setup_open(&s, k / 6 % FORMS, cols);
    s.p.log_state = logs;
    tensor x = random_matrix(type, rows, cols, (enum layout)(k % 4), 0, 2, false);
    tensor h = random_matrix(types[k % 3], rows, cols, (enum layout)(k / 3 % 4), 0, 2, false);
    tensor z = random_matrix(SLG_F32, rows, cols, CONTIGUOUS, 0, 1, false);
    tensor from = matrix(SLG_F64, rows, cols, CONTIGUOUS);
    for (int64_t i = 0; i < rows * cols; i++)
        put(&from, i / cols, i % cols, get(&x, i / cols, i % cols));
    slg_gbm_counts counts;
    slg_gbm_counts_init(&counts, sizeof counts);
    OK(ctx, slg_gbm_reverse(ctx, &x.t, &h.t, &z.t, NULL, &s.p, &o, &counts));
    int64_t flips = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            const double was = get(&from, i, j);
            double size, e = move_of(&s, j, &o, get(&h, i, j), get(&z, i, j), &size);
            const double want = logs ? was + e : o.sampler ? was * (1 + e) : was * exp(e);
            const double scale = logs ? fabs(was) + size : fabs(was) * (1 + size);
            const double bend = !logs && !o.sampler ? exp(e) : 1;
            flips += !logs && o.sampler && 1 + e < 0;
            assert_close(get(&x, i, j), want, 3e-7 * scale * bend + rounding(type, want));
        }
    assert_int_equal(counts.saturated, 0);
    assert_int_equal(counts.sign_changes, flips);
    assert_gaps_intact(&x);
    release(&x), release(&h), release(&z), release(&from), setup_free(&s);
}

static void test_values(void **state)
{
    FOR_EACH_ISA(ctx, 2)
    for (int k = 0; k < 60; k++) check_step(ctx, k);
    (void)state;
}

/* Drawn noise is slg_random's, and the bits do not depend on threads. */
static void test_threads(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    for (int k = 0; k < 12; k++) {
        const int64_t rows = k % 6 == 5 ? 30 : shapes[k % 6][0] * 40, cols = shapes[k % 6][1];
        const slg_gbm_reverse_opts o = opts_of(k / 6, 0.1, 1);
        setup s;
        setup_open(&s, k % FORMS, cols);
        tensor x = random_matrix(SLG_F32, rows, cols, CONTIGUOUS, 0, 1, true);
        tensor h = random_matrix(SLG_F32, rows, cols, CONTIGUOUS, 0, 1, false);
        tensor z = matrix(SLG_F32, rows, cols, CONTIGUOUS), y = z;
        y = matrix(SLG_F32, rows, cols, CONTIGUOUS);
        slg_rng rng = { 5, 3 };
        OK(ctx, slg_random(ctx, &rng, SLG_NORMAL, &z.t));
        memcpy(y.memory, x.memory, x.bytes);
        OK(ctx, slg_gbm_reverse(ctx, &y.t, &h.t, &z.t, NULL, &s.p, &o, NULL));
        for (int32_t threads = 1; threads <= 8; threads += threads < 3 ? 1 : 5) {
            slg_ctx *many = context(isa_, threads);
            tensor w = matrix(SLG_F32, rows, cols, CONTIGUOUS);
            memcpy(w.memory, x.memory, x.bytes);
            slg_rng again = { 5, 3 };
            OK(many, slg_gbm_reverse(many, &w.t, &h.t, NULL, &again, &s.p, &o, NULL));
            assert_true(again.offset == rng.offset);
            assert_same_bits(&w, &y);
            release(&w);
            slg_ctx_free(many);
        }
        release(&x), release(&y), release(&z), release(&h), setup_free(&s);
    }
    (void)state;
}

/* Any number in, any h and z: the exponential keeps signs and zeros; what became an infinity or
   0 is counted, and log states do not; delta = 0 and sigma = 0 do nothing. */
static void test_edges(void **state)
{
    static const float start[] = { 1,      -1,      0.0f,  -0.0f,  1e-45f,   -1e-45f,
                                   1e-30f, -1e-30f, 1e30f, -1e30f, INFINITY, -INFINITY };
    static const float scores[] = { 0, 1, -1, 1000, -1000, 1e6f, -1e6f };
    enum { N = COUNT(start) };
    FOR_EACH_ISA(ctx, 1)
    for (int k = 0; k < COUNT(scores); k++) {
        float x[N], h[N];
        slg_gbm p;
        slg_gbm_counts counts;
        slg_rng rng = { 9, 0 };
        slg_tensor xt = slg_tensor_2d(x, SLG_F32, 1, N), ht = slg_tensor_2d(h, SLG_F32, 1, N);
        slg_gbm_reverse_opts o = opts_of(SLG_DALE_LANGEVIN, 0.1, 1);
        int64_t lost = 0;
        slg_gbm_init(&p, sizeof p), slg_gbm_counts_init(&counts, sizeof counts);
        for (int i = 0; i < N; i++) h[i] = scores[k];
        memcpy(x, start, sizeof x);
        OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, NULL, &rng, &p, &o, &counts));
        for (int i = 0; i < N; i++) {
            assert_true(!isnan(x[i]) || isinf(start[i]));
            if (!isnan(x[i])) assert_true(signbit(x[i]) == signbit(start[i]));
            if (start[i] == 0) assert_true(x[i] == 0);
            lost += start[i] != 0 && !isinf(start[i]) && (x[i] == 0 || isinf(x[i]));
        }
        assert_int_equal(counts.saturated, lost);
        if (fabsf(scores[k]) > 1e5f) assert_int_equal(lost, 8);
        /* Without noise, exactly. */
        memcpy(x, start, sizeof x);
        o.anneal = 0;
        OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, NULL, NULL, &p, &o, NULL));
        const double e = 0.064 * (double)scores[k] + 0.064;
        for (int i = 0; i < N && k < 5; i++) {
            const double want = (double)start[i] * exp(e);
            if (fabs(want) > 3.4e38)
                assert_true(isinf(x[i]));
            else
                assert_close((double)x[i], want, 1e-5 * fabs(want) + 1e-45);
        }
        p.log_state = 1;
        memcpy(x, start, sizeof x);
        OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, NULL, NULL, &p, &o, NULL));
        assert_close((double)x[0], 1 + e, 1e-6 * fabs(e) + 1e-6);
        p.log_state = 0, o.delta = 0;
        for (int sampler = 0; sampler < 2; sampler++) {
            memcpy(x, start, sizeof x);
            o.sampler = sampler;
            OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, NULL, NULL, &p, &o, NULL));
            assert_memory_equal(x, start, sizeof x);
        }
        o.delta = 0.1, p.sigma = 0, p.mu = 0, o.anneal = 1;
        OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, NULL, &rng, &p, &o, NULL));
        assert_memory_equal(x, start, sizeof x);
        xt.shape[0] = ht.shape[0] = 0;
        OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, NULL, &rng, &p, &o, NULL));
        xt.shape[0] = ht.shape[0] = 1, xt.shape[1] = ht.shape[1] = 0;
        OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, NULL, &rng, &p, &o, NULL));
        assert_true(rng.offset == 2 * N);
    }
    (void)state;
}

/* With z = +-1 the terms of order delta agree: what is left is delta^(3/2). A step of the
   linear sampler that goes too far changes the sign, and says so. */
static void test_samplers_agree(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double gap[3];
    for (int k = 0; k < 3; k++) {
        float x[2][2] = { { 1, 1 }, { 1, 1 } }, h[2] = { 0.5f, -0.5f }, z[2] = { 1, 1 };
        for (int sampler = 0; sampler < 2; sampler++) {
            const slg_gbm_reverse_opts o = opts_of(sampler, 0.25 / (1 << 2 * k), 1);
            slg_tensor xt = slg_tensor_2d(x[sampler], SLG_F32, 1, 2);
            slg_tensor ht = slg_tensor_2d(h, SLG_F32, 1, 2),
                       zt = slg_tensor_2d(z, SLG_F32, 1, 2);
            OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, &zt, NULL, NULL, &o, NULL));
        }
        gap[k] = fabs((double)x[0][0] - (double)x[1][0]);
    }
    assert_close(gap[0] / gap[1], 8, 2.5);
    assert_close(gap[1] / gap[2], 8, 1.5);
    float x[3] = { 1, -2, 0 }, h[3] = { -100, -100, -100 };
    slg_tensor xt = slg_tensor_2d(x, SLG_F32, 1, 3), ht = slg_tensor_2d(h, SLG_F32, 1, 3);
    slg_gbm_counts counts;
    slg_gbm_counts_init(&counts, sizeof counts);
    const slg_gbm_reverse_opts o = opts_of(SLG_GBM_UNCONSTRAINED, 0.5, 0);
    OK(ctx, slg_gbm_reverse(ctx, &xt, &ht, NULL, NULL, NULL, &o, &counts));
    assert_true(x[0] < 0 && x[1] > 0 && counts.sign_changes == 2 && counts.saturated == 0);
    slg_ctx_free(ctx);
    (void)state;
}

/* ---- Chains ------------------------------------------------------------------------------ */

/* Data log x_0 ~ N(a, b); a = 0 and mu = sigma^2 / 2 but where by columns. */
typedef struct known {
    slg_ctx *ctx;
    double mean, variance, last_t;
    bool logs;
    int calls, stop_at;
} known;

static slg_status exact_score(void *user, double t, const slg_tensor *x, slg_tensor *h)
{
    known *k = user;
    const double spread = k->variance + 0.64 * t;
    slg_tensor sum = slg_tensor_1d(NULL, SLG_F32, 0);
    slg_rng rng = { 1, 0 };
    OK(k->ctx, slg_random(k->ctx, &rng, SLG_UNIFORM, &sum)); /* the context may be used here */
    assert_true(t <= k->last_t), k->last_t = t;
    if (++k->calls == k->stop_at) return SLG_ERR_STOPPED;
    for (int64_t i = 0; i < x->shape[0] * x->shape[1]; i++) {
        const double v = (double)((const float *)x->data)[i], y = k->logs ? v : log(v);
        ((float *)h->data)[i] = (float)(-1 - (y - k->mean) / spread);
    }
    return SLG_OK;
}

static void test_chain(void **state)
{
    enum { ROWS = 3000, COLS = 2 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    tensor x = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS),
           h = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
    for (int form = 0; form < 3; form++) { /* by logs, by exponentials, unconstrained */
        known k = { ctx, 0.3, 0.09, 2, form == 0, 0, 0 };
        slg_gbm p;
        slg_gbm_sample_opts o;
        slg_gbm_counts counts;
        slg_rng rng = { 21, 0 };
        double sum = 0, square = 0;
        slg_gbm_init(&p, sizeof p), slg_gbm_sample_opts_init(&o, sizeof o);
        slg_gbm_counts_init(&counts, sizeof counts);
        p.log_state = form == 0, o.steps = 200, o.sampler = form == 2;
        OK(ctx, slg_random(ctx, &rng, SLG_NORMAL, &x.t));
        for (int64_t i = 0; i < ROWS * COLS; i++) {
            const double y = 0.3 + sqrt(0.73) * get(&x, i / COLS, i % COLS);
            put(&x, i / COLS, i % COLS, form == 0 ? y : exp(y));
        }
        OK(ctx, slg_gbm_sample(ctx, &x.t, &h.t, &rng, &p, &o, exact_score, &k, &counts));
        assert_int_equal(k.calls, 200);
        assert_close(k.last_t, 0.005, 1e-12);
        assert_true(rng.offset == 201 * ROWS * COLS);
        assert_true(counts.saturated == 0 && counts.sign_changes == 0);
        for (int64_t i = 0; i < ROWS * COLS; i++) {
            const double v = get(&x, i / COLS, i % COLS), y = form == 0 ? v : log(v);
            sum += y, square += y * y;
        }
        const double n = ROWS * COLS, mean = sum / n, variance = square / n - mean * mean;
        assert_close(mean, 0.3, 5 * sqrt(0.09 / n) + 0.01);
        assert_close(variance, 0.09, 0.012);
    }
    release(&x), release(&h);
    slg_ctx_free(ctx);
    (void)state;
}

/* Repeats, annealing, denoising at t = 0, a model that stops: as single steps do. */
static void test_chain_as_steps(void **state)
{
    enum { ROWS = 5, COLS = 3, STEPS = 4, REPEATS = 2, DENOISE = 3 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    tensor x = random_matrix(SLG_F32, ROWS, COLS, CONTIGUOUS, 0, 1, true);
    tensor h = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS),
           y = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
    known k = { ctx, 0, 0.1, 2, false, 0, 0 }, stopped = k;
    slg_gbm_sample_opts o;
    slg_gbm_reverse_opts step = opts_of(SLG_DALE_LANGEVIN, 0.125, 0.75);
    slg_rng rng = { 2, 5 }, other = rng;
    memcpy(y.memory, x.memory, x.bytes);
    slg_gbm_sample_opts_init(&o, sizeof o);
    o.steps = STEPS, o.repeats = REPEATS, o.denoise = DENOISE, o.start = 0.5;
    o.anneal = 0.75, o.anneal_factor = 0.5;
    tensor z = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
    memcpy(z.memory, x.memory, x.bytes);
    OK(ctx, slg_gbm_sample(ctx, &x.t, &h.t, &rng, NULL, &o, exact_score, &k, NULL));
    assert_true(k.calls == STEPS * REPEATS + DENOISE && k.last_t == 0);
    assert_true(rng.offset == 5 + STEPS * REPEATS * ROWS * COLS);
    k.last_t = 2, k.calls = 0;
    for (int i = 0; i < STEPS * REPEATS + DENOISE; i++) {
        const bool noisy = i < STEPS * REPEATS;
        const double t = noisy ? 0.5 * (STEPS - i / REPEATS) / STEPS : 0;
        if (!noisy) step.anneal = 0;
        OK(ctx, exact_score(&k, t, &y.t, &h.t));
        OK(ctx,
           slg_gbm_reverse(ctx, &y.t, &h.t, NULL, noisy ? &other : NULL, NULL, &step, NULL));
        if (i == 2) { /* what a chain stopped in its fourth call leaves */
            slg_rng third = { 2, 5 };
            stopped.stop_at = 4;
            assert_int_equal(
                slg_gbm_sample(ctx, &z.t, &h.t, &third, NULL, &o, exact_score, &stopped, NULL),
                SLG_ERR_STOPPED);
            assert_same_bits(&z, &y);
            assert_true(third.offset == 5 + 3 * ROWS * COLS);
        }
        if (i % REPEATS == REPEATS - 1) step.anneal *= 0.5;
    }
    assert_same_bits(&x, &y);
    release(&x), release(&y), release(&z), release(&h);
    slg_ctx_free(ctx);
    (void)state;
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    tensor x = matrix(SLG_F32, 3, 2, CONTIGUOUS),
           h = random_matrix(SLG_F32, 3, 2, CONTIGUOUS, 0, 1, false);
    tensor wide = matrix(SLG_F32, 3, 3, CONTIGUOUS);
    slg_rng rng = { 1, 2 };
    slg_gbm p;
    slg_gbm_reverse_opts bad;
    slg_gbm_sample_opts o, sample;
    slg_gbm_counts counts = { .size = 4 };
    known k = { ctx, 0, 0.1, 2, false, 0, 0 };
    slg_gbm_init(&p, sizeof p), slg_gbm_sample_opts_init(&sample, sizeof sample);
    fill_value(&x, 7);
#define STEP(a, b, c, d, process, opts) slg_gbm_reverse(ctx, a, b, c, d, process, opts, NULL)
    assert_int_equal(slg_gbm_reverse(NULL, &x.t, &h.t, NULL, &rng, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    assert_refused(ctx, STEP(NULL, &h.t, NULL, &rng, NULL, NULL), SLG_ERR_NULL, "x is NULL");
    assert_refused(ctx, STEP(&x.t, NULL, NULL, &rng, NULL, NULL), SLG_ERR_NULL, "h is NULL");
    assert_refused(ctx, STEP(&x.t, &h.t, NULL, NULL, NULL, NULL), SLG_ERR_NULL, "z and rng");
    assert_refused(ctx, STEP(&x.t, &h.t, &h.t, &rng, NULL, NULL), SLG_ERR_OPTIONS, "z and rng");
    assert_refused(ctx, STEP(&x.t, &wide.t, NULL, &rng, NULL, NULL), SLG_ERR_SHAPE, "h");
    assert_refused(ctx, STEP(&x.t, &x.t, NULL, &rng, NULL, NULL), SLG_ERR_STRIDE,
                   "x overlaps h");
    assert_refused(ctx, slg_gbm_reverse(ctx, &x.t, &h.t, NULL, &rng, NULL, NULL, &counts),
                   SLG_ERR_OPTIONS, "counts");
    bad = opts_of(2, 0.1, 1);
    assert_refused(ctx, STEP(&x.t, &h.t, NULL, &rng, NULL, &bad), SLG_ERR_RANGE, "sampler");
    bad = opts_of(0, -0.1, 1);
    assert_refused(ctx, STEP(&x.t, &h.t, NULL, &rng, NULL, &bad), SLG_ERR_RANGE, "delta");
    bad = opts_of(0, 0.1, NAN);
    assert_refused(ctx, STEP(&x.t, &h.t, NULL, &rng, NULL, &bad), SLG_ERR_RANGE, "anneal");
    p.log_state = 1, bad = opts_of(1, 0.1, 1);
    assert_refused(ctx, STEP(&x.t, &h.t, NULL, &rng, &p, &bad), SLG_ERR_RANGE,
                   "SLG_DALE_LANGEVIN");
#define CHAIN(a, b, c, opts, model) slg_gbm_sample(ctx, a, b, c, NULL, opts, model, &k, NULL)
    assert_refused(ctx, CHAIN(&x.t, &h.t, NULL, NULL, exact_score), SLG_ERR_NULL, "rng");
    assert_refused(ctx, CHAIN(&x.t, &h.t, &rng, NULL, NULL), SLG_ERR_NULL, "model");
    assert_refused(ctx, CHAIN(&x.t, NULL, &rng, NULL, exact_score), SLG_ERR_NULL, "h is NULL");
    assert_refused(ctx, CHAIN(&x.t, &x.t, &rng, NULL, exact_score), SLG_ERR_STRIDE, "overlaps");
    static const struct {
        size_t at;
        double value; /* of an int32_t field below 24 bytes */
        const char *word;
    } options[] = { { offsetof(slg_gbm_sample_opts, sampler), 2, "sampler" },
                    { offsetof(slg_gbm_sample_opts, steps), -1, "steps" },
                    { offsetof(slg_gbm_sample_opts, repeats), 0, "repeats" },
                    { offsetof(slg_gbm_sample_opts, denoise), -1, "denoise" },
                    { offsetof(slg_gbm_sample_opts, start), 0, "start" },
                    { offsetof(slg_gbm_sample_opts, delta), -1, "delta" },
                    { offsetof(slg_gbm_sample_opts, anneal), -1, "anneal" },
                    { offsetof(slg_gbm_sample_opts, anneal_factor), 1.5, "anneal_factor" } };
    for (int i = 0; i < COUNT(options); i++) {
        const int32_t whole = (int32_t)options[i].value;
        const bool narrow = options[i].at < offsetof(slg_gbm_sample_opts, start);
        o = sample;
        memcpy((char *)&o + options[i].at, narrow ? (const void *)&whole : &options[i].value,
               narrow ? 4 : 8);
        assert_refused(ctx, CHAIN(&x.t, &h.t, &rng, &o, exact_score), SLG_ERR_RANGE,
                       options[i].word);
    }
    o = sample, o.reserved = 1;
    assert_refused(ctx, CHAIN(&x.t, &h.t, &rng, &o, exact_score), SLG_ERR_OPTIONS, "reserved");
    assert_true(rng.offset == 2 && k.calls == 0);
    for (int i = 0; i < 6; i++) assert_true(get(&x, i / 2, i % 2) == 7);
    release(&x), release(&h), release(&wide);
    slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_edges),  cmocka_unit_test(test_samplers_agree),
        cmocka_unit_test(test_chain),  cmocka_unit_test(test_chain_as_steps),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
