/* Ordinal cross-entropy: reference, identities, gradients, edges, forms, threads, errors. */
#include "loss_test.h"

static double sp(double t) { return fmax(t, 0) + log1p(exp(-fabs(t))); }
static double sg(double t) { return t < 0 ? exp(t) / (1 + exp(t)) : 1 / (1 + exp(-t)); }

/* -log p and its slopes by the specification's formulas. */
static double reference(int64_t m, const double *eta, int64_t t, double *g)
{
    const double a = t > 0 ? eta[t - 1] : -INFINITY, b = t < m ? eta[t] : INFINITY, d = b - a;
    memset(g, 0, (size_t)m * sizeof *g);
    if (!(d > 0)) return isnan(d) && (isnan(a) || isnan(b)) ? NAN : INFINITY;
    const double r = d > 700 ? 0 : 1 / expm1(d);
    const double gap = d <= log(2) ? log(-expm1(-d)) : log1p(-exp(-d));
    if (t > 0) g[t - 1] = sg(a) + r;
    if (t < m) g[t] = -sg(-b) - r;
    return (t < m ? sp(-b) : 0) + (t > 0 ? sp(a) : 0) - gap;
}

typedef struct world {
    int64_t n, m;
    tensor eta, label, weight, loss, d, prob, log_prob, diag, off;
    slg_logits logits;
    slg_targets targets;
    slg_ordinal_cross_entropy_opts opts;
    slg_loss_out out;
    slg_ordinal_terms terms;
    slg_logits_grad grad;
} world;

static world *world_new(int64_t n, int64_t m, int32_t dtype, enum layout layout)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->n = n, w->m = m;
    w->eta = matrix(dtype, n, m, layout), w->d = matrix(dtype, n, m, layout);
    w->label = vector(SLG_I32, n, layout), w->weight = vector(SLG_F32, n, layout);
    w->loss = vector(SLG_F64, n, layout);
    w->prob = matrix(SLG_F32, n, m + 1, layout),
    w->log_prob = matrix(SLG_F32, n, m + 1, layout);
    w->diag = matrix(SLG_F32, n, m, layout);
    w->off = matrix(SLG_F32, n, m > 0 ? m - 1 : 0, layout);
    for (int64_t i = 0; i < n; i++) {
        double at = 2 * normal() - (double)m / 2;
        for (int64_t l = 0; l < m; l++) put(&w->eta, i, l, at), at += 0.1 - 2 * log(uniform());
        put(&w->label, 0, i, (double)below(m + 1)), put(&w->weight, 0, i, (double)below(4));
    }
    w->logits = slg_logits_dense(&w->eta.t), w->targets = slg_targets_index(&w->label.t);
    slg_ordinal_cross_entropy_opts_init(&w->opts, sizeof w->opts);
    w->out = loss_out(&w->loss.t, NULL), w->grad = dense_grad(&w->d.t);
    slg_ordinal_terms_init(&w->terms, sizeof w->terms);
    w->terms.prob = &w->prob.t, w->terms.log_prob = &w->log_prob.t;
    w->terms.fisher_diag = &w->diag.t, w->terms.fisher_off = &w->off.t;
    w->opts.reduction = SLG_SUM;
    return w;
}

static slg_status ask(slg_ctx *ctx, world *w)
{
    return slg_ordinal_cross_entropy(ctx, &w->logits, &w->targets, &w->opts, &w->out, &w->terms,
                                     &w->grad);
}

static void world_free(world *w)
{
    tensor *all[] = { &w->eta,  &w->d,        &w->label, &w->weight, &w->loss,
                      &w->prob, &w->log_prob, &w->diag,  &w->off };
    for (int64_t i = 0; i < COUNT(all); i++) release(all[i]);
    free(w);
}

#define NEAR(got, want, tolerance)                                                             \
    do {                                                                                       \
        const double got_ = (got), want_ = (want);                                             \
        if (!(fabs(got_ - want_) <= (tolerance)) && got_ != want_ &&                           \
            !(isnan(got_) && isnan(want_)))                                                    \
            fail_msg("line %d: %.9g, wanted %.9g", __LINE__, got_, want_);                     \
    } while (0)

/* All outputs against the formulas, with the rounding of their types. */
static void check(const world *w)
{
    double sum = 0;
    for (int64_t i = 0; i < w->n; i++) {
        double eta[64], g[64], p[65], f[65] = { 0 }, total = 0;
        const int64_t t = (int64_t)get(&w->label, 0, i);
        const double k = w->targets.row_weight ? get(&w->weight, 0, i) : 1;
        for (int64_t l = 0; l < w->m; l++) eta[l] = get(&w->eta, i, l);
        const double loss = reference(w->m, eta, t, g);
        sum += k * loss;
        NEAR(get(&w->loss, 0, i), k * loss, 2e-6 * fabs(k * loss));
        for (int64_t l = 0; l < w->m; l++)
            NEAR(get(&w->d, i, l), k * g[l],
                 3e-6 * fabs(k * g[l]) + rounding(w->d.t.dtype, k * g[l]));
        for (int64_t c = 0; c <= w->m; c++) {
            double ignored[64], log_p = -reference(w->m, eta, c, ignored);
            p[c] = exp(log_p), f[c] = c < w->m ? sg(eta[c]) : 1;
            NEAR(get(&w->log_prob, i, c), log_p, 2e-6 * fabs(log_p));
            NEAR(get(&w->prob, i, c), p[c], 3e-6 * p[c] + 1.2e-38);
            total += get(&w->prob, i, c);
            NEAR(total, f[c], 1e-6); /* they cumulate */
        }
        for (int64_t l = 0; l < w->m; l++) {
            const double s = f[l] * sg(-eta[l]),
                         next = l + 1 < w->m ? f[l + 1] * sg(-eta[l + 1]) : 0;
            const double diag = s * s * (1 / p[l] + 1 / p[l + 1]), off = -s * next / p[l + 1];
            NEAR(get(&w->diag, i, l), diag, 1e-5 * diag + 1e-37);
            if (l + 1 < w->m) NEAR(get(&w->off, i, l), off, 1e-37 - 1e-5 * off);
        }
    }
    NEAR(w->out.sum, sum, 2e-6 * sum);
    assert_int_equal(w->terms.infeasible, 0);
}

static void test_reference(void **state)
{
    static const int64_t sizes[][2] = {
        { 1, 1 }, { 5, 3 }, { 700, 4 }, { 300, 11 }, { 3, 60 }
    };
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    FOR_EACH_ISA(ctx, 2)
    for (int64_t s = 0; s < COUNT(sizes); s++)
        for (int layout = CONTIGUOUS; layout <= UPSIDE_DOWN; layout++) {
            world *w =
                world_new(sizes[s][0], sizes[s][1], types[layout % 3], (enum layout)layout);
            if (layout % 3) /* 16 bits: gaps that they hold */
                for (int64_t i = 0; i < w->n; i++)
                    for (int64_t l = 0; l < w->m; l++)
                        put(&w->eta, i, l, 0.25 * (double)(3 * l - i % 7));
            if (layout % 2) w->targets.row_weight = &w->weight.t;
            OK(ctx, ask(ctx, w));
            check(w);
            tensor *all[] = { &w->d, &w->prob, &w->log_prob, &w->diag, &w->off, &w->loss };
            for (int64_t i = 0; i < COUNT(all); i++) assert_gaps_intact(all[i]);
            world_free(w);
        }
    (void)state;
}

/* Classes reversed and scores negated: the same; two classes: the logistic loss. */
static void test_identities(void **state)
{
    FOR_EACH_ISA(ctx, 1)
    {
        world *w = world_new(200, 5, SLG_F32, CONTIGUOUS),
              *v = world_new(200, 5, SLG_F32, CONTIGUOUS);
        for (int64_t i = 0; i < w->n; i++) {
            for (int64_t l = 0; l < 5; l++) put(&v->eta, i, l, -get(&w->eta, i, 4 - l));
            put(&v->label, 0, i, 5 - get(&w->label, 0, i));
        }
        OK(ctx, ask(ctx, w));
        OK(ctx, ask(ctx, v));
        for (int64_t i = 0; i < w->n; i++)
            NEAR(get(&w->loss, 0, i), get(&v->loss, 0, i), 2e-6 * get(&v->loss, 0, i));
        world_free(w), world_free(v);
        w = world_new(50, 1, SLG_F32, CONTIGUOUS);
        OK(ctx, ask(ctx, w));
        for (int64_t i = 0; i < w->n; i++) {
            const double t = get(&w->eta, i, 0) * (get(&w->label, 0, i) == 0 ? -1 : 1);
            NEAR(get(&w->loss, 0, i), sp(t), 1e-6 * sp(t));
        }
        world_free(w);
    }
    (void)state;
}

static void test_edges(void **state)
{
    static const struct {
        double a, b;
        int label;
        double loss, da, db;
        int infeasible;
    } cases[] = {
        { -INFINITY, 0, 1, 0.6931471805599453, 0, -0.5, 0 },
        { 0, INFINITY, 1, 0.6931471805599453, 0.5, 0, 0 },
        { -INFINITY, INFINITY, 1, 0, 0, 0, 0 },
        { -INFINITY, 1, 0, INFINITY, 0, 0, 1 },
        { INFINITY, INFINITY, 0, 0, 0, 0, 0 },
        { 1, 1, 1, INFINITY, 0, 0, 1 },
        { 1, 0, 1, INFINITY, 0, 0, 1 },
        { 1, 0, 0, 0.31326168751822286, -0.2689414213699951, 0, 0 }, /* not looked at */
        { 1, 0, 2, 0.6931471805599453, 0, 0.5, 0 },
        { -1e4, 1e4, 1, 0, 0, 0, 0 },
        { 1e4, 1e38, 1, 1e4, 1, 0, 0 },
        { -1e38, -1e4, 1, 1e4, 0, -1, 0 },
        { -1e38, 1e38, 2, 1e38, 0, 1, 0 },
        { NAN, 1, 2, NAN, NAN, NAN, 0 },
        { 0, NAN, 0, NAN, NAN, NAN, 0 },
        { 1e-40, 2e-40, 1, INFINITY, 0, 0, 1 }, /* no gap is left of it */
    };
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(cases); i++) {
        world *w = world_new(1, 2, SLG_F32, CONTIGUOUS);
        put(&w->eta, 0, 0, cases[i].a), put(&w->eta, 0, 1, cases[i].b);
        put(&w->label, 0, 0, cases[i].label);
        w->grad.dlogits = &w->eta.t; /* in place */
        OK(ctx, ask(ctx, w));
        NEAR(get(&w->loss, 0, 0), cases[i].loss, 1e-6 * cases[i].loss);
        NEAR(get(&w->eta, 0, 0), cases[i].da, 1e-6);
        NEAR(get(&w->eta, 0, 1), cases[i].db, 1e-6);
        assert_int_equal(w->terms.infeasible, cases[i].infeasible);
        world_free(w);
    }
    (void)state;
}

/* No rows; one class; ignored rows; a mean; a weight of 0 hides an infinite loss. */
static void test_counts(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    world *w = world_new(0, 3, SLG_F32, CONTIGUOUS);
    OK(ctx, ask(ctx, w));
    assert_true(w->out.value == 0 && w->out.count == 0);
    world_free(w);
    w = world_new(4, 0, SLG_F32, CONTIGUOUS);
    OK(ctx, ask(ctx, w));
    for (int i = 0; i < 4; i++)
        assert_true(get(&w->loss, 0, i) == 0 && get(&w->prob, i, 0) == 1 &&
                    get(&w->log_prob, i, 0) == 0);
    world_free(w);
    w = world_new(4, 2, SLG_F32, CONTIGUOUS);
    w->targets.row_weight = &w->weight.t, w->opts.reduction = SLG_MEAN;
    for (int i = 0; i < 4; i++) put(&w->weight, 0, i, i == 1 ? 0 : i + 1);
    put(&w->label, 0, 0, -100), put(&w->label, 0, 1, 1);
    put(&w->eta, 1, 0, 2), put(&w->eta, 1, 1, 1);
    OK(ctx, ask(ctx, w));
    const double sum = get(&w->loss, 0, 2) + get(&w->loss, 0, 3);
    assert_true(w->out.count == 3 && w->out.weight == 7 && get(&w->loss, 0, 1) == 0);
    assert_int_equal(w->terms.infeasible, 1);
    NEAR(w->out.value, sum / 7, 1e-7);
    for (int l = 0; l < 2; l++) assert_true(get(&w->d, 0, l) == 0 && get(&w->d, 1, l) == 0);
    world_free(w), slg_ctx_free(ctx);
    (void)state;
}

/* The layer that makes eta, with a temperature and a soft-cap: differences of the value. */
static void test_layer(void **state)
{
    enum { ROWS = 30, P = 3, M = 4 };
    FOR_EACH_ISA(ctx, 2)
    {
        float x[ROWS * P], b[M * P], alpha[M], db[M * P], dalpha[M], dx[ROWS * P];
        int32_t y[ROWS];
        for (int i = 0; i < ROWS * P; i++) x[i] = (float)normal();
        for (int i = 0; i < M * P; i++) b[i] = (float)(0.05 * normal());
        for (int i = 0; i < M; i++) alpha[i] = (float)i * 1.5f - 2;
        for (int i = 0; i < ROWS; i++) y[i] = (int32_t)below(M + 1);
        slg_tensor tx = slg_tensor_2d(x, SLG_F32, ROWS, P),
                   tb = slg_tensor_2d(b, SLG_F32, M, P), ta = slg_tensor_1d(alpha, SLG_F32, M),
                   ty = slg_tensor_1d(y, SLG_I32, ROWS),
                   tdx = slg_tensor_2d(dx, SLG_F32, ROWS, P),
                   tdb = slg_tensor_2d(db, SLG_F32, M, P),
                   tda = slg_tensor_1d(dalpha, SLG_F32, M);
        slg_logits logits = slg_logits_layer(&tx, &tb, &ta);
        slg_targets targets = slg_targets_index(&ty);
        slg_logits_grad grad = slg_grad_layer(&tdx, &tdb, &tda);
        slg_loss_out out = slg_loss_out_none();
        logits.temperature = 1.5, logits.softcap = 6;
        OK(ctx, slg_ordinal_cross_entropy(ctx, &logits, &targets, NULL, &out, NULL, &grad));
        float *const where[] = { b, alpha, x }, *const got[] = { db, dalpha, dx };
        static const int many[] = { M * P, M, 6 };
        for (int v = 0; v < 3; v++)
            for (int i = 0; i < many[v]; i++) {
                const float keep = where[v][i], h = 0x1p-9f;
                double side[2];
                for (int s = 0; s < 2; s++) {
                    where[v][i] = keep + (s ? h : -h);
                    OK(ctx, slg_ordinal_cross_entropy(ctx, &logits, &targets, NULL, &out, NULL,
                                                      NULL));
                    side[s] = out.value;
                }
                where[v][i] = keep;
                NEAR((double)got[v][i], (side[1] - side[0]) / (2 * (double)h),
                     1e-4 + 1e-3 * fabs((double)got[v][i]));
            }
    }
    (void)state;
}

static void test_threads(void **state)
{
    world *one = world_new(5000, 4, SLG_F32, CONTIGUOUS);
    static const int32_t threads[] = { 1, 2, 3, 8 };
    unsigned char *kept[5] = { NULL };
    for (int64_t k = 0; k < COUNT(threads); k++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[k]);
        OK(ctx, ask(ctx, one));
        const tensor *all[] = { &one->d, &one->loss, &one->prob, &one->diag, &one->off };
        for (int64_t i = 0; i < COUNT(all); i++) {
            if (!kept[i]) {
                kept[i] = malloc(all[i]->bytes);
                memcpy(kept[i], all[i]->memory, all[i]->bytes);
            }
            assert_memory_equal(kept[i], all[i]->memory, all[i]->bytes);
        }
        slg_ctx_free(ctx);
    }
    for (int i = 0; i < 5; i++) free(kept[i]);
    world_free(one);
    (void)state;
}

static void refused(slg_ctx *ctx, world *w, slg_status status, const char *text)
{
    assert_int_equal(ask(ctx, w), status);
    if (!strstr(slg_ctx_message(ctx), text)) fail_msg("%s", slg_ctx_message(ctx));
    for (size_t i = 0; i < w->d.bytes; i++) assert_int_equal(w->d.memory[i], 0x7E);
    for (size_t i = 0; i < w->prob.bytes; i++) assert_int_equal(w->prob.memory[i], 0x7E);
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    world *w = world_new(6, 3, SLG_F32, CONTIGUOUS);
    slg_tensor short_prob = slg_tensor_2d(w->prob.t.data, SLG_F32, 6, 3), *keep = &w->prob.t;
    put(&w->label, 0, 2, 4), refused(ctx, w, SLG_ERR_RANGE, "is 4, must be from 0 to 3");
    put(&w->label, 0, 2, -1), refused(ctx, w, SLG_ERR_RANGE, "is -1");
    put(&w->label, 0, 2, 3);
    w->terms.prob = &short_prob, refused(ctx, w, SLG_ERR_SHAPE, "terms.prob");
    w->terms.prob = w->terms.log_prob, refused(ctx, w, SLG_ERR_STRIDE, "overlap");
    w->terms.prob = keep;
    w->logits.mask = &w->weight.t;
    w->weight.t.shape[0] = 3, refused(ctx, w, SLG_ERR_NULL, "logits.mask");
    w->weight.t.shape[0] = 6, w->logits.mask = NULL;
    w->out.lse = &w->loss.t, w->out.loss = NULL, refused(ctx, w, SLG_ERR_NULL, "out.lse");
    w->out.lse = NULL;
    w->terms.reserved = 1, refused(ctx, w, SLG_ERR_OPTIONS, "terms.reserved");
    w->terms.reserved = 0;
    w->opts.reduction = 3, refused(ctx, w, SLG_ERR_RANGE, "reduction is 3");
    w->opts.reduction = SLG_SUM;
    OK(ctx, ask(ctx, w));
    assert_int_equal(slg_ordinal_cross_entropy(NULL, NULL, NULL, NULL, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    world_free(w), slg_ctx_free(ctx);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_identities),
        cmocka_unit_test(test_edges),     cmocka_unit_test(test_counts),
        cmocka_unit_test(test_layer),     cmocka_unit_test(test_threads),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
