/* Robust global contrastive loss: against plain double arithmetic, from sim, in place and from
   features; history, ids, edge cases, threads, errors. */
#include "loss_test.h"
#include "support/gradcheck.h"

void openblas_set_num_threads(int threads); /* cblas.h is not in every include path */

enum { MOST = 150, DIM = 4, STATE = 400 };
enum { IMAGE, TEXT };

typedef struct data {
    int64_t n;
    int32_t first;
    double gamma, rho;
    float sim[MOST * MOST], d[MOST * MOST], feature[2][MOST * DIM], dfeature[2][MOST * DIM];
    float tau[2][MOST], dtau[2][MOST], state[2][STATE];
    int64_t id[MOST];
} data;

static data a, b;

typedef struct want_t {
    double value, d[MOST * MOST], state[2][MOST], dtau[2][MOST];
} want_t;

static want_t want;

/* From the formulas; sim alone of a is looked at. */
static void reference(void)
{
    const int64_t n = a.n;
    memset(&want, 0, sizeof want);
    for (int side = 0; side < 2; side++)
        for (int64_t i = 0; i < n; i++) {
            double tau = (double)a.tau[side][i], top = -INFINITY, sum = 0, value = 0,
                   weights = 0;
            double old = (double)a.state[side][a.id[i]], self = (double)a.sim[i * n + i];
#define SIM(j) (double)(side ? a.sim[(j)*n + i] : a.sim[i * n + (j)])
            for (int64_t j = 0; j < n; j++)
                if (j != i) top = fmax(top, (SIM(j) - self) / tau);
            for (int64_t j = 0; j < n; j++)
                if (j != i) sum += exp((SIM(j) - self) / tau - top);
            double g = top + log(sum), s = g;
            if (!a.first && old > -INFINITY) {
                double x = log1p(-a.gamma) + old, y = log(a.gamma) + g, m = fmax(x, y);
                s = m + log(exp(x - m) + exp(y - m));
            }
            for (int64_t j = 0; j < n; j++) {
                if (j == i) continue;
                double w = exp((SIM(j) - self) / tau - s);
                weights += w;
                value += w * (SIM(j) - self);
                want.d[side ? j * n + i : i * n + j] += w / (double)n;
            }
            want.d[i * n + i] -= weights / (double)n;
            want.value += value / (double)n;
            want.state[side][i] = s;
            want.dtau[side][i] = (s - log((double)(n - 1)) + a.rho - value / tau) / (double)n;
        }
}

static void refill(int64_t n, int32_t first)
{
    memset(&a, 0, sizeof a);
    a.n = n, a.first = first, a.gamma = 0.8, a.rho = 7;
    for (int s = 0; s < 2; s++) {
        for (int64_t i = 0; i < n * DIM; i++) a.feature[s][i] = (float)(0.5 * normal());
        for (int64_t i = 0; i < n; i++) a.tau[s][i] = (float)(0.02 + 0.3 * uniform());
        for (int64_t i = 0; i < STATE; i++)
            a.state[s][i] = i % 5 == 2 ? (i % 2 ? -INFINITY : NAN) : (float)(3 + normal());
    }
    for (int64_t i = 0; i < n; i++) {
        a.id[i] = (i * 7 + 3) % STATE;
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int k = 0; k < DIM; k++)
                sum += (double)a.feature[0][i * DIM + k] * (double)a.feature[1][j * DIM + k];
            a.sim[i * n + j] = (float)sum;
        }
    }
}

enum form { PLAIN, IN_PLACE, FEATURES };

static slg_status call(slg_ctx *ctx, data *d, enum form form, double *value)
{
    slg_contrastive_pairs p;
    slg_contrastive_opts o;
    slg_contrastive_out out;
    slg_contrastive_pairs_init(&p, sizeof p);
    slg_contrastive_opts_init(&o, sizeof o);
    slg_contrastive_out_init(&out, sizeof out);
    slg_tensor sim = slg_tensor_2d(d->sim, SLG_F32, d->n, d->n), ds = sim, id, f[2], df[2],
               tau[2];
    slg_tensor dtau[2], st[2];
    if (form != IN_PLACE) ds.data = d->d;
    id = slg_tensor_1d(d->id, SLG_I64, d->n);
    for (int s = 0; s < 2; s++) {
        f[s] = slg_tensor_2d(d->feature[s], SLG_F32, d->n, DIM);
        df[s] = slg_tensor_2d(d->dfeature[s], SLG_F32, d->n, DIM);
        tau[s] = slg_tensor_1d(d->tau[s], SLG_F32, d->n);
        dtau[s] = slg_tensor_1d(d->dtau[s], SLG_F32, d->n);
        st[s] = slg_tensor_1d(d->state[s], SLG_F32, STATE);
    }
    p.id = &id, p.tau_image = &tau[0], p.tau_text = &tau[1];
    o.first = d->first, o.gamma = d->gamma, o.rho = d->rho;
    out.dtau_image = &dtau[0], out.dtau_text = &dtau[1];
    if (form == FEATURES)
        p.image = &f[0], p.text = &f[1], out.dimage = &df[0], out.dtext = &df[1];
    else
        p.sim = &sim, out.dsim = &ds;
    slg_status status = slg_contrastive(ctx, &p, &o, &st[0], &st[1], &out);
    *value = out.value;
    return status;
}

static void near(double got, double wanted, double absolute, double relative, const char *what)
{
    if (!(fabs(got - wanted) <= absolute + relative * fabs(wanted)))
        fail_msg("%s is %.9g, should be %.9g", what, got, wanted);
}

static void test_reference(void **state)
{
    (void)state;
    static const int64_t n[] = { 2, 7, 64, 65, MOST };
    double value;
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 30; i++) {
        enum form form = (enum form)(i % 3);
        refill(n[i / 6], i % 2);
        reference();
        b = a;
        OK(ctx, call(ctx, &b, form, &value));
        near(value, want.value, 1e-5, 1e-4, "value");
        for (int s = 0; s < 2; s++)
            for (int64_t r = 0; r < a.n; r++) {
                near((double)b.state[s][a.id[r]], want.state[s][r], 1e-5, 1e-5, "state");
                near((double)b.dtau[s][r], want.dtau[s][r], 1e-5, 1e-4, "dtau");
            }
        for (int64_t r = 0; form != FEATURES && r < a.n * a.n; r++)
            near((double)(form == PLAIN ? b.d : b.sim)[r], want.d[r], 1e-6, 1e-4, "dsim");
        for (int64_t r = 0; form == FEATURES && r < a.n * DIM; r++) {
            double di = 0, dt = 0;
            for (int64_t j = 0; j < a.n; j++) {
                di += want.d[r / DIM * a.n + j] * (double)a.feature[1][j * DIM + r % DIM];
                dt += want.d[j * a.n + r / DIM] * (double)a.feature[0][j * DIM + r % DIM];
            }
            near((double)b.dfeature[0][r], di, 2e-5, 1e-4, "dimage");
            near((double)b.dfeature[1][r], dt, 2e-5, 1e-4, "dtext");
        }
    }
}

static void test_edges(void **state)
{
    (void)state;
    double value;
    FOR_EACH_ISA(ctx, 1)
    {
        refill(1, 0); /* no negatives */
        b = a;
        OK(ctx, call(ctx, &b, PLAIN, &value));
        assert_true(value == 0 && b.d[0] == 0 && b.dtau[0][0] == 0);
        assert_memory_equal(a.state, b.state, sizeof a.state);

        refill(5, 0); /* an id twice: the later stays */
        a.id[3] = a.id[1];
        reference();
        b = a;
        OK(ctx, call(ctx, &b, PLAIN, &value));
        near((double)b.state[0][a.id[1]], want.state[0][3], 1e-5, 1e-5, "later");

        refill(5, 1); /* first: weights of a row sum to 1; row 2 has no negatives, row 4
                         a NaN */
        for (int j = 0; j < 5; j++)
            if (j != 2) a.sim[10 + j] = -INFINITY;
        a.sim[4 * 5 + 1] = NAN;
        b = a;
        OK(ctx, call(ctx, &b, PLAIN, &value));
        assert_true(isnan(value) && isnan(b.state[0][a.id[4]]) && isnan(b.dtau[0][4]));
        assert_true(b.dtau[0][2] == 0 && isfinite(b.dtau[0][0]) && isnan(b.d[21]));
        assert_true(isfinite(b.d[0]) && isfinite(b.d[3]));

        refill(6, 1); /* far beyond the range of the exponential */
        for (int i = 0; i < 36; i++) a.sim[i] *= 1e6f;
        reference();
        b = a;
        OK(ctx, call(ctx, &b, PLAIN, &value));
        near(value, want.value, 1e-5, 1e-4, "far apart");
    }
}

/* Bits of any number of threads, in all forms; in place as out of place. */
static void test_threads(void **state)
{
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    static data first[3];
    refill(MOST, 0);
    for (int i = 0; i < 4; i++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
        for (enum form form = PLAIN; form <= FEATURES; form++) {
            double value;
            b = a;
            OK(ctx, call(ctx, &b, form, &value));
            if (i == 0) first[form] = b;
            assert_memory_equal(&b, &first[form], sizeof b);
        }
        slg_ctx_free(ctx);
    }
    assert_memory_equal(first[PLAIN].d, first[IN_PLACE].sim, sizeof b.d);
    assert_memory_equal(first[PLAIN].state, first[IN_PLACE].state, sizeof b.state);
    assert_memory_equal(first[PLAIN].dtau, first[IN_PLACE].dtau, sizeof b.dtau);
}

/* The pairs in another order: the same results in that order. */
static void test_permutation(void **state)
{
    (void)state;
    static data c;
    int64_t to[MOST];
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 4; i++) {
        const int64_t n = i < 2 ? 9 : 130;
        double value, turned;
        refill(n, i % 2);
        for (int64_t r = 0; r < n; r++) to[r] = (r * 7 + 3) % n; /* 7 divides neither */
        b = c = a;
        for (int64_t r = 0; r < n; r++) {
            c.id[to[r]] = a.id[r];
            for (int s = 0; s < 2; s++) c.tau[s][to[r]] = a.tau[s][r];
            for (int64_t k = 0; k < n; k++) c.sim[to[r] * n + to[k]] = a.sim[r * n + k];
        }
        OK(ctx, call(ctx, &b, PLAIN, &value));
        OK(ctx, call(ctx, &c, PLAIN, &turned));
        near(turned, value, 1e-6, 1e-6, "permuted: value");
        for (int64_t r = 0; r < n; r++) {
            for (int s = 0; s < 2; s++) {
                near((double)c.dtau[s][to[r]], (double)b.dtau[s][r], 1e-6, 1e-5,
                     "permuted: dtau");
                near((double)c.state[s][a.id[r]], (double)b.state[s][a.id[r]], 1e-6, 1e-6,
                     "permuted: state");
            }
            for (int64_t k = 0; k < n; k++)
                near((double)c.d[to[r] * n + to[k]], (double)b.d[r * n + k], 1e-7, 1e-5,
                     "permuted: dsim");
        }
    }
}

/* All similarities higher by 2 (exact): the same results. */
static void test_shift(void **state)
{
    (void)state;
    static data c;
    FOR_EACH_ISA(ctx, 1)
    for (int i = 0; i < 2; i++) {
        double value, shifted;
        refill(70, i);
        for (int r = 0; r < 70 * 70; r++) a.sim[r] = rintf(a.sim[r] * 0x1p18f) * 0x1p-18f;
        b = c = a;
        for (int r = 0; r < 70 * 70; r++) c.sim[r] += 2;
        OK(ctx, call(ctx, &b, PLAIN, &value));
        OK(ctx, call(ctx, &c, PLAIN, &shifted));
        near(shifted, value, 1e-6, 1e-5, "shifted: value");
        for (int r = 0; r < 70 * 70; r++)
            near((double)c.d[r], (double)b.d[r], 1e-7, 2e-5, "shifted: dsim");
        for (int s = 0; s < 2; s++)
            for (int r = 0; r < 70; r++) {
                near((double)c.dtau[s][r], (double)b.dtau[s][r], 1e-6, 1e-5, "shifted: dtau");
                near((double)c.state[s][a.id[r]], (double)b.state[s][a.id[r]], 1e-5, 1e-5,
                     "shifted: state");
            }
    }
}

/* gamma = 1 forgets the history, as first does; weights of a row then sum to 1: with both sides
   the diagonal is -2 / B, and rows and columns of the gradient add up to 0 over all. */
static void test_no_memory(void **state)
{
    (void)state;
    static data c;
    FOR_EACH_ISA(ctx, 2)
    {
        double value, first, sum = 0;
        refill(90, 0);
        b = c = a;
        b.gamma = 1, c.first = 1;
        OK(ctx, call(ctx, &b, PLAIN, &value));
        OK(ctx, call(ctx, &c, PLAIN, &first));
        near(value, first, 1e-9, 1e-9, "gamma 1");
        assert_memory_equal(b.d, c.d, sizeof b.d);
        assert_memory_equal(b.dtau, c.dtau, sizeof b.dtau);
        for (int r = 0; r < 90; r++) {
            near((double)b.d[r * 91], -2.0 / 90, 1e-8, 1e-6, "sum of weights");
            for (int k = 0; k < 90; k++) sum += (double)b.d[r * 90 + k];
        }
        near(sum, 0, 1e-6, 0, "sum of the gradient");
    }
}

/* Without history the gradients are those of the mean over both sides of tau (logS - log(B-1) +
   rho): weights are no longer constants there. Features: as variables of the same. */
typedef struct check_arg {
    slg_ctx *ctx;
    enum form form;
} check_arg;

static double objective(const float *x, void *arg)
{
    const check_arg *f = arg;
    static data c;
    double value, sum = 0;
    (void)x; /* in a */
    c = a;
    OK(f->ctx, call(f->ctx, &c, f->form, &value));
    for (int s = 0; s < 2; s++)
        for (int64_t i = 0; i < a.n; i++)
            sum += (double)a.tau[s][i] *
                   ((double)c.state[s][a.id[i]] - log((double)(a.n - 1)) + a.rho);
    return sum / (double)a.n;
}

static void test_gradient(void **state)
{
    (void)state;
    const gradcheck_opts fine = { .floor = 0.1 };
    FOR_EACH_ISA(ctx, 1)
    {
        check_arg arg = { ctx, PLAIN };
        double value;
        refill(7, 1);
        for (int s = 0; s < 2; s++)
            for (int i = 0; i < 7; i++) a.tau[s][i] = (float)(1 + uniform());
        b = a;
        OK(ctx, call(ctx, &b, PLAIN, &value));
        gradcheck_result r = gradcheck(objective, &arg, a.sim, 49, b.d, &fine);
        assert_true(gradcheck_ok(&r, 2e-4, "dsim"));
        for (int s = 0; s < 2; s++) {
            r = gradcheck(objective, &arg, a.tau[s], 7, b.dtau[s], &fine);
            assert_true(gradcheck_ok(&r, 2e-4, s ? "dtau_text" : "dtau_image"));
        }
        arg.form = FEATURES;
        OK(ctx, call(ctx, &b, FEATURES, &value));
        for (int s = 0; s < 2; s++) {
            r = gradcheck(objective, &arg, a.feature[s], 7 * DIM, b.dfeature[s], &fine);
            assert_true(gradcheck_ok(&r, 2e-4, s ? "dtext" : "dimage"));
        }
    }
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    double value;
    refill(4, 0);
    b = a;
    b.tau[1][2] = 0;
    assert_int_equal(call(ctx, &b, PLAIN, &value), SLG_ERR_RANGE);
    b.tau[1][2] = 1, b.id[0] = STATE;
    assert_int_equal(call(ctx, &b, PLAIN, &value), SLG_ERR_RANGE);
    b.id[0] = 0, b.gamma = 0;
    assert_int_equal(call(ctx, &b, PLAIN, &value), SLG_ERR_RANGE);
    b.gamma = 0.5, b.rho = NAN;
    assert_int_equal(call(ctx, &b, FEATURES, &value), SLG_ERR_RANGE);
    b.rho = 1, b.first = 2;
    assert_int_equal(call(ctx, &b, PLAIN, &value), SLG_ERR_RANGE);
    assert_memory_equal(a.state, b.state, sizeof a.state);
    assert_memory_equal(a.d, b.d, sizeof a.d);
    assert_int_equal(slg_contrastive(ctx, NULL, NULL, NULL, NULL, NULL), SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_edges),
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_shift),     cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_gradient),  cmocka_unit_test(test_errors),
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
