/* Policies by FTRL: slg_ftrl_policy and its gradient, and the learner SLG_FTRL. */
#include "online_test.h"

#include "core/ctx.h"
#include "online/log_barrier.h"
#include "support/gradcheck.h"

enum { A = 7 };

static slg_ftrl_policy_opts opts_of(int32_t rule, double eta)
{
    slg_ftrl_policy_opts o;
    slg_ftrl_policy_opts_init(&o, sizeof o);
    o.rule = rule, o.eta = eta;
    return o;
}

/* One row of doubles; returns nu. */
static double play(slg_ctx *ctx, int32_t rule, double eta, int64_t n, const double *c,
                   double *p)
{
    const slg_ftrl_policy_opts o = opts_of(rule, eta);
    double nu = 0;
    slg_tensor ct = slg_tensor_1d(c, SLG_F64, n), pt = slg_tensor_1d(p, SLG_F64, n);
    slg_tensor nt = slg_tensor_1d(&nu, SLG_F64, 1);
    OK(ctx, slg_ftrl_policy(ctx, &ct, &o, &pt, &nt));
    return nu;
}

/* ---- What it must be --------------------------------------------------------------------- */

/* The sum is 1; 1 / p - eta c, or log p + eta c, are equal; p falls as costs rise; a shift does
   nothing. */
static void test_conditions(void **state)
{
    (void)state;
    static const double etas[] = { 1e-3, 0.5, 1, 30 };
    FOR_EACH_ISA(ctx, 1)
    for (int trial = 0; trial < 400; trial++) {
        const int32_t rule = trial % 2;
        const double eta = etas[trial / 2 % 4], spread = trial % 3 ? 3 : 0.01;
        double c[A], shifted[A], p[A], q[A], sum = 0;
        for (int i = 0; i < A; i++) {
            c[i] = rint(spread * normal() * 1024) / 1024; /* so that a shift is exact */
            shifted[i] = c[i] - 1e6;
        }
        const double nu = play(ctx, rule, eta, A, c, p);
        const double same = play(ctx, rule, eta, A, shifted, q);
        assert_memory_equal(p, q, sizeof p);
        assert_true(nu == same);
        double least = INFINITY;
        for (int i = 0; i < A; i++) least = fmin(least, c[i]), sum += p[i];
        assert_true(fabs(sum - 1) <= 1e-14);
        assert_true(rule == SLG_FTRL_ENTROPY ? nu >= 0 && nu <= log(A) + 1e-15
                                             : nu >= 1 && nu <= A);
        for (int i = 0; i < A; i++) {
            const double gap = eta * (c[i] - least);
            const double want = rule == SLG_FTRL_ENTROPY ? exp(-gap - nu) : 1 / (gap + nu);
            assert_true(fabs(p[i] - want) <= 2e-12 * want);
            for (int j = 0; j < A; j++) assert_true(!(c[i] < c[j]) || p[i] >= p[j]);
        }
    }
}

static double objective(double eta, int64_t n, const double *c, const double *p)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += eta * p[i] * c[i] - log(p[i]);
    return sum;
}

static void test_optimum(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double c[A], p[A], q[A];
    for (int i = 0; i < A; i++) c[i] = 4 * normal();
    play(ctx, SLG_FTRL_LOG_BARRIER, 0.7, A, c, p);
    const double best = objective(0.7, A, c, p);
    for (int trial = 0; trial < 1000; trial++) {
        const double mix = trial % 2 ? 1 : 1e-3; /* near it, too */
        double sum = 0;
        for (int i = 0; i < A; i++) sum += q[i] = -log(uniform());
        for (int i = 0; i < A; i++) q[i] = (1 - mix) * p[i] + mix * q[i] / sum;
        assert_true(objective(0.7, A, c, q) >= best - 1e-12);
    }
    slg_ctx_free(ctx);
}

/* Two actions: nu^2 + (x - 2) nu - x = 0, x = eta |c_1 - c_2|. Small eta: 1 / A - eta (c -
   mean) / A^2. */
static void test_closed_forms(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (double x = 1e-8; x < 1e12; x *= 10) {
        const double c[2] = { 0, x }, b = x - 2;
        double p[2];
        const double root =
            b > 0 ? 2 * x / (b + sqrt(b * b + 4 * x)) : (-b + sqrt(b * b + 4 * x)) / 2;
        assert_true(fabs(play(ctx, SLG_FTRL_LOG_BARRIER, 1, 2, c, p) - root) <= 1e-12 * root);
        assert_true(fabs(p[1] - 1 / (x + root)) <= 1e-11 * p[1]);
    }
    double c[A], p[A], mean = 0;
    for (int i = 0; i < A; i++) c[i] = normal(), mean += c[i] / A;
    play(ctx, SLG_FTRL_LOG_BARRIER, 1e-5, A, c, p);
    for (int i = 0; i < A; i++)
        assert_true(fabs(p[i] - (1.0 / A - 1e-5 * (c[i] - mean) / (A * A))) <= 1e-10);
    slg_ctx_free(ctx);
}

static void test_edges(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const double inf = INFINITY;
    const struct {
        double eta, c[4], p[4], nu;
    } cases[] = {
        { 1, { 5, 5, 5, 5 }, { 0.25, 0.25, 0.25, 0.25 }, 4 },
        { 0, { 5, -9, 1e300, 2 }, { 0.25, 0.25, 0.25, 0.25 }, 4 },
        { 0, { 5, inf, 1, 2 }, { 1 / 3.0, 0, 1 / 3.0, 1 / 3.0 }, 3 },
        { 1, { inf, 2, inf, inf }, { 0, 1, 0, 0 }, 1 },
        { 2, { 7, 7, inf, inf }, { 0.5, 0.5, 0, 0 }, 2 },
        { 1, { 0, 1e30, 1e30, 1e30 }, { 1, 1e-30, 1e-30, 1e-30 }, 1 },
        { 1e300, { 0, 1e30, 0, 1e30 }, { 0.5, 0, 0.5, 0 }, 2 },
    };
    for (int64_t i = 0; i < COUNT(cases); i++) {
        double p[4];
        const double nu = play(ctx, SLG_FTRL_LOG_BARRIER, cases[i].eta, 4, cases[i].c, p);
        assert_true(fabs(nu - cases[i].nu) <= 1e-12);
        close_to(4, p, cases[i].p, 1e-15);
        for (int k = 0; k < 4; k++) assert_true((cases[i].p[k] == 0) == (p[k] == 0));
        play(ctx, SLG_FTRL_ENTROPY, cases[i].eta, 4, cases[i].c, p);
        for (int k = 0; k < 4; k++)
            assert_true(fabs(p[k] - (cases[i].p[k] > 1e-9 ? cases[i].p[k] : 0)) <= 1e-15);
    }
    const double one[] = { -1e30, 0, 3e38 };
    double p;
    for (int i = 0; i < 3; i++)
        for (int32_t rule = 0; rule < 2; rule++) {
            assert_true(play(ctx, rule, 5, 1, one + i, &p) == (rule == 0));
            assert_true(p == 1);
        }
    slg_ctx_free(ctx);
}

/* Sums of costs far from 0, in float32: their differences alone count. */
static void test_offsets(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int32_t rule = 0; rule < 2; rule++) {
        const slg_ftrl_policy_opts o = opts_of(rule, 0.01);
        float c[40], p[40];
        double exact[40], want[40];
        for (int i = 0; i < 40; i++) exact[i] = (double)(c[i] = (float)(1e4 * normal() - 1e5));
        if (rule) /* some that are near each other */
            for (int i = 1; i < 40; i++) exact[i] = (double)(c[i] = c[0] + (float)i / 16);
        slg_tensor ct = slg_tensor_1d(c, SLG_F32, 40), pt = slg_tensor_1d(p, SLG_F32, 40);
        OK(ctx, slg_ftrl_policy(ctx, &ct, &o, &pt, NULL));
        play(ctx, rule, 0.01, 40, exact, want);
        for (int i = 0; i < 40; i++)
            assert_true(fabs((double)p[i] - want[i]) <= (rule ? 1e-6 : 6.1e-8) * want[i]);
    }
}

/* How often a row is summed: no more than some ten times, wherever the costs lie. */
static int64_t summed;
static kernel_table plain;

static void counted_sums(size_t n, const double *gap, double nu, double out[2])
{
    summed++;
    plain.barrier_sums(n, gap, nu, out);
}

static void test_steps(void **state)
{
    (void)state;
    enum { MOST = 100000 };
    double *gap = malloc(MOST * sizeof *gap), total;
    assert_non_null(gap);
    kernels_fill(&plain, kernels_cpu_isa());
    kernel_table k = plain;
    k.barrier_sums = counted_sums;
    int64_t most = 0;
    for (int64_t n = 1; n <= MOST; n *= 10)
        for (double scale = 1e-6; scale < 1e9; scale *= 10)
            for (int shape = 0; shape < 4; shape++) {
                double sum = 0;
                for (int64_t i = 0; i < n; i++) {
                    const double u = shape == 0   ? (i % 3 > 0)
                                     : shape == 1 ? uniform()
                                     : shape == 2 ? pow(uniform(), 9)
                                                  : -log(uniform()) * (double)i / (double)n;
                    sum += gap[i] = i == 0 ? 0 : scale * u;
                }
                summed = 0;
                const double nu = barrier_root(&k, n, gap, sum, &total);
                assert_true(nu >= 1 && nu <= (double)n && fabs(total - 1) <= 1e-11);
                if (summed > most) most = summed;
            }
    print_message("at most %d sums a row\n", (int)most);
    assert_true(most <= 14);
    free(gap);
}

/* ---- Forms ------------------------------------------------------------------------------- */

static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16, SLG_F64 };

static void test_types(void **state)
{
    (void)state;
    enum { ROWS = 5, COLS = 19 };
    FOR_EACH_ISA(ctx, 1)
    for (int form = 0; form < 4 * 4 * 4 * 2; form++) {
        const int32_t in = types[form % 4], to = types[form / 4 % 4], rule = form / 64;
        const enum layout layout = (enum layout)(form / 16 % 4);
        const slg_ftrl_policy_opts o = opts_of(rule, 0.8);
        tensor c = matrix(in, ROWS, COLS, layout), p = matrix(to, ROWS, COLS, layout);
        tensor nu = vector(form % 2 ? SLG_F32 : SLG_F64, ROWS, layout);
        double exact[ROWS][COLS];
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t i = 0; i < COLS; i++) {
                const double x = i == 3 && r == 1 ? INFINITY : 5 * normal();
                put(&c, r, i, x), exact[r][i] = get(&c, r, i);
            }
        OK(ctx, slg_ftrl_policy(ctx, &c.t, &o, &p.t, &nu.t));
        for (int64_t r = 0; r < ROWS; r++) {
            double want[COLS];
            const double root = play(ctx, rule, 0.8, COLS, exact[r], want);
            assert_true(fabs(get(&nu, 0, r) - root) <= 3e-7 * (1 + root));
            for (int64_t i = 0; i < COLS; i++) {
                const double near = to == SLG_F64 ? 3e-12 : rule ? 3e-6 : 3e-12;
                const double off = to == SLG_F64 ? 0 : rounding(to, want[i]);
                assert_true(fabs(get(&p, r, i) - want[i]) <= off + near * want[i]);
            }
        }
        if (in == to) { /* in place */
            tensor q = matrix(to, ROWS, COLS, layout);
            for (int64_t r = 0; r < ROWS; r++)
                for (int64_t i = 0; i < COLS; i++) put(&q, r, i, exact[r][i]);
            OK(ctx, slg_ftrl_policy(ctx, &q.t, &o, &q.t, NULL));
            for (int64_t r = 0; r < ROWS; r++)
                for (int64_t i = 0; i < COLS; i++) assert_true(get(&q, r, i) == get(&p, r, i));
            release(&q);
        }
        assert_gaps_intact(&p), assert_gaps_intact(&nu);
        release(&c), release(&p), release(&nu);
    }
}

/* Rows and long rows: the same bits for any number of threads; the log barrier's on any ISA. */
static void test_same_bits(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = { { 3000, 17 }, { 3, 40000 }, { 1, 1 }, { 0, 5 } };
    enum { MOST = 3 * 40000 };
    float *c = malloc(MOST * 4), *p = malloc(MOST * 4), *first = malloc(MOST * 4);
    assert_true(c && p && first);
    randoms(MOST, 3, c);
    for (int64_t s = 0; s < COUNT(sizes); s++)
        for (int32_t rule = 0; rule < 2; rule++) {
            bool known = false;
            const slg_ftrl_policy_opts o = opts_of(rule, 0.5);
            const size_t bytes = (size_t)(sizes[s][0] * sizes[s][1]) * sizeof *p;
            slg_tensor ct = slg_tensor_2d(c, SLG_F32, sizes[s][0], sizes[s][1]);
            slg_tensor pt = slg_tensor_2d(p, SLG_F32, sizes[s][0], sizes[s][1]);
            for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++)
                for (int32_t threads = 1; threads <= 8; threads += threads > 2 ? 5 : 1) {
                    slg_ctx *ctx = context(isa, threads);
                    if (!ctx) continue;
                    OK(ctx, slg_ftrl_policy(ctx, &ct, &o, &pt, NULL));
                    if (known && (rule == 0 || threads > 1))
                        assert_memory_equal(p, first, bytes);
                    memcpy(first, p, bytes);
                    known = true;
                    slg_ctx_free(ctx);
                }
        }
    free(c), free(p), free(first);
}

/* ---- The gradient ------------------------------------------------------------------------ */

typedef struct gradient_case {
    slg_ctx *ctx;
    int32_t rule;
    float dp[A];
} gradient_case;

static double weighted(const float *x, void *arg)
{
    const gradient_case *g = arg;
    double c[A], p[A], sum = 0;
    for (int i = 0; i < A; i++) c[i] = (double)x[i];
    play(g->ctx, g->rule, 1.3, A, c, p);
    for (int i = 0; i < A; i++) sum += (double)g->dp[i] * p[i];
    return sum;
}

static void test_gradient(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int trial = 0; trial < 20; trial++) {
        gradient_case g = { .ctx = ctx, .rule = trial % 2 };
        const slg_ftrl_policy_opts o = opts_of(g.rule, 1.3);
        float c[A], p[A], d[A];
        randoms(A, 2, c), randoms(A, 1, g.dp);
        slg_tensor ct = slg_tensor_1d(c, SLG_F32, A), pt = slg_tensor_1d(p, SLG_F32, A);
        slg_tensor dpt = slg_tensor_1d(g.dp, SLG_F32, A), dt = slg_tensor_1d(d, SLG_F32, A);
        OK(ctx, slg_ftrl_policy(ctx, &ct, &o, &pt, NULL));
        OK(ctx, slg_ftrl_policy_backward(ctx, &pt, &dpt, &o, &dt));
        const gradcheck_result r = gradcheck(weighted, &g, c, A, d, NULL);
        assert_true(gradcheck_ok(&r, 2e-6, "costs"));
        double sum = 0;
        for (int i = 0; i < A; i++) sum += (double)d[i]; /* a shift of costs does nothing */
        assert_true(fabs(sum) <= 1e-6);
        /* dp is not looked at where p is 0; in place of dp; halves. */
        p[2] = 0, g.dp[2] = NAN;
        OK(ctx, slg_ftrl_policy_backward(ctx, &pt, &dpt, &o, &dpt));
        for (int i = 0; i < A; i++) assert_true(isfinite(g.dp[i]) && (i != 2 || g.dp[i] == 0));
        tensor hp = matrix(SLG_BF16, 2, A, COL_GAPS), hd = matrix(SLG_F16, 2, A, UPSIDE_DOWN);
        tensor out = matrix(SLG_F16, 2, A, ROW_GAPS);
        for (int r2 = 0; r2 < 2; r2++)
            for (int i = 0; i < A; i++)
                put(&hp, r2, i, (double)p[i]), put(&hd, r2, i, normal());
        OK(ctx, slg_ftrl_policy_backward(ctx, &hp.t, &hd.t, &o, &out.t));
        for (int r2 = 0; r2 < 2; r2++) {
            double top = 0, low = 0;
            for (int i = 0; i < A; i++) {
                const double q = get(&hp, r2, i), w = g.rule ? q : q * q;
                top += w * get(&hd, r2, i), low += g.rule ? 0 : w;
            }
            for (int i = 0; i < A; i++) {
                const double q = get(&hp, r2, i), w = g.rule ? q : q * q;
                const double want = -1.3 * w * (get(&hd, r2, i) - (g.rule ? top : top / low));
                assert_true(fabs(get(&out, r2, i) - want) <= 1e-3 * (fabs(want) + w) + 1e-7);
            }
        }
        assert_gaps_intact(&out);
        release(&hp), release(&hd), release(&out);
    }
}

/* ---- Errors ------------------------------------------------------------------------------ */

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    float c[2 * A], p[2 * A], nu[2] = { -9, -9 };
    slg_ftrl_policy_opts o;
    slg_tensor tc, tp, tn;
    for (int i = 0; i < 2 * A; i++) c[i] = (float)i, p[i] = -9;
#define REFUSED(status, text, ...)                                                             \
    do {                                                                                       \
        o = opts_of(0, 1);                                                                     \
        tc = slg_tensor_2d(c, SLG_F32, 2, A), tp = slg_tensor_2d(p, SLG_F32, 2, A);            \
        tn = slg_tensor_1d(nu, SLG_F32, 2);                                                    \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_ftrl_policy(ctx, &tc, &o, &tp, &tn), status);                     \
        assert_non_null(strstr(slg_ctx_message(ctx), text));                                   \
    } while (0)
    const double bad_eta[] = { -1, NAN, INFINITY };
    for (int i = 0; i < 3; i++) REFUSED(SLG_ERR_RANGE, "eta", o.eta = bad_eta[i]);
    REFUSED(SLG_ERR_RANGE, "rule", o.rule = 2);
    REFUSED(SLG_ERR_OPTIONS, "opts", o.size = 3);
    REFUSED(SLG_ERR_SHAPE, "no columns", tc.shape[1] = tp.shape[1] = 0);
    REFUSED(SLG_ERR_SHAPE, "p has", tp.shape[1] = A - 1);
    REFUSED(SLG_ERR_SHAPE, "nu", tn.shape[0] = 3);
    REFUSED(SLG_ERR_DTYPE, "costs", tc.dtype = SLG_I32);
    REFUSED(SLG_ERR_DTYPE, "nu", tn.dtype = SLG_F16);
    REFUSED(SLG_ERR_STRIDE, "p", tp.stride[1] = 0);
    REFUSED(SLG_ERR_STRIDE, "overlaps", tp.data = c + 1);
    REFUSED(SLG_ERR_STRIDE, "overlaps", tn.data = p);
    const float bad[] = { NAN, -INFINITY };
    for (int wide = 0; wide < 2; wide++)
        for (int i = 0; i < 2; i++) {
            double d[2 * A];
            c[A + 2] = bad[i];
            for (int k = 0; k < 2 * A; k++) d[k] = (double)c[k];
            REFUSED(SLG_ERR_RANGE, "row 1: [2]",
                    if (wide) tc = slg_tensor_2d(d, SLG_F64, 2, A));
            for (int k = 0; k < A; k++) d[A + k] = (double)(c[A + k] = INFINITY);
            REFUSED(SLG_ERR_RANGE, "row 1 are all +inf",
                    if (wide) tc = slg_tensor_2d(d, SLG_F64, 2, A));
            for (int k = 0; k < A; k++) c[A + k] = 0.5f;
        }
#undef REFUSED
    assert_int_equal(slg_ftrl_policy(NULL, &tc, NULL, &tp, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_ftrl_policy(ctx, NULL, NULL, &tp, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_ftrl_policy_backward(ctx, &tp, NULL, NULL, &tp), SLG_ERR_NULL);
    assert_int_equal(slg_ftrl_policy_backward(NULL, &tp, &tp, NULL, &tp), SLG_ERR_NULL);
    tn = slg_tensor_2d(c, SLG_F32, 2, A - 1);
    assert_int_equal(slg_ftrl_policy_backward(ctx, &tp, &tn, NULL, &tp), SLG_ERR_SHAPE);
    tn = slg_tensor_2d(p + 1, SLG_F32, 1, A), tc = slg_tensor_2d(p, SLG_F32, 1, A);
    assert_int_equal(slg_ftrl_policy_backward(ctx, &tc, &tc, NULL, &tn), SLG_ERR_STRIDE);
    assert_true(nu[0] == -9 && nu[1] == -9);
    for (int i = 0; i < 2 * A; i++) assert_true(p[i] == -9);
    tc = slg_tensor_2d(c, SLG_F32, 2, A);
    OK(ctx, slg_ftrl_policy(ctx, &tc, NULL, NULL, NULL)); /* a check alone */
    slg_ctx_free(ctx);
}

/* ---- The learner ------------------------------------------------------------------------- */

static void test_learner_plays(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int form = 0; form < 8; form++) {
        slg_ftrl_opts o;
        slg_ftrl_opts_init(&o, sizeof o);
        o.rule = form & 1, o.hint = form & 2 ? SLG_HINT_LAST : SLG_HINT_ZERO;
        o.decreasing = form >> 2, o.eta = 0.6;
        slg_learner *l = learner(ctx, SLG_FTRL, A, &o);
        double total[A] = { 0 }, last[A] = { 0 }, c[A], x[A], want[A], v = 0;
        for (int t = 1; t <= 30; t++) {
            float g[A];
            randoms(A, 2, g);
            if (t == 9) g[4] = INFINITY;
            if (t == 10) g[4] = NAN; /* not read any more */
            for (int i = 0; i < A; i++) c[i] = total[i] + (form & 2 ? last[i] : 0);
            decide(ctx, l, A, NULL, x);
            play(ctx, o.rule, o.eta / (o.decreasing ? sqrt(t) : 1), A, c, want);
            close_to(A, x, want, 1e-15);
            assert_true((x[4] == 0) == (t > 9));
            part(ctx, l, SLG_LEARNER_WEIGHTS, A, want);
            assert_memory_equal(x, want, sizeof x);
            observe(ctx, l, A, NULL, g);
            double most = 0;
            for (int i = 0; i < A; i++) {
                const bool out = i == 4 && t >= 9;
                const double m = form & 2 ? last[i] : 0;
                if (!out) most = fmax(most, fabs((double)g[i] - m));
                last[i] = out ? 0 : (double)g[i];
                total[i] += i == 4 && t >= 9 ? INFINITY : last[i];
            }
            v += most * most;
        }
        const slg_learner_info_t info = info_of(ctx, l);
        assert_int_equal(info.kind, SLG_FTRL);
        assert_true(fabs(info.step - 0.6 / (o.decreasing ? sqrt(31) : 1)) <= 1e-15);
        assert_true(fabs(info.variation - v) <= 1e-9 * v);
        part(ctx, l, SLG_LEARNER_TOTALS, A, x);
        assert_true(memcmp(x, total, sizeof x) == 0);
        slg_learner_free(l);
    }
}

/* Losses from -100 up, of one action a round: what Hedge's analysis does not allow. Regret is
   at most d log T / eta + eta sum p l^2, and d. */
static void test_regret(void **state)
{
    (void)state;
    enum { T = 4000 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_ftrl_opts o;
    slg_ftrl_opts_init(&o, sizeof o);
    o.eta = 0.02;
    for (int trial = 0; trial < 5; trial++) {
        slg_learner *l = learner(ctx, SLG_FTRL, A, &o);
        double total[A] = { 0 }, x[A], lost = 0, square = 0, best = INFINITY;
        for (int t = 0; t < T; t++) {
            float g[A] = { 0 };
            const int64_t i = below(A);
            decide(ctx, l, A, NULL, x);
            g[i] = (float)(uniform() < 0.1 ? -100 * uniform() : 0.3 * (double)i * uniform());
            for (int k = 0; k < A; k++) {
                lost += x[k] * (double)g[k], square += x[k] * (double)g[k] * (double)g[k];
                total[k] += (double)g[k];
            }
            observe(ctx, l, A, NULL, g);
        }
        for (int k = 0; k < A; k++) best = fmin(best, total[k]);
        const double bound = A * log(T) / o.eta + o.eta * square + A * 100;
        assert_true(lost - best <= bound);
        slg_learner_free(l);
    }
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conditions),    cmocka_unit_test(test_optimum),
        cmocka_unit_test(test_closed_forms),  cmocka_unit_test(test_edges),
        cmocka_unit_test(test_offsets),       cmocka_unit_test(test_steps),
        cmocka_unit_test(test_types),         cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_gradient),      cmocka_unit_test(test_errors),
        cmocka_unit_test(test_learner_plays), cmocka_unit_test(test_regret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
