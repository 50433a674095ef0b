/* The factorised output layer against the dense update in double, and what its header
   promises. */
#include "loss/loss_test.h"

typedef struct dense {
    int64_t classes, dim;
    int32_t kind;
    double a, b, eps;
    double *w;
} dense;

/* dloss/do of a row with outputs o, by sums over all classes; the loss. */
static double row_gradient(const dense *n, const double *o, int64_t k, const int64_t *c,
                           const double *value, double *g)
{
    const double D = (double)n->classes;
    double s = 0, q = 0, m2 = 0, loss = 0;
    for (int64_t i = 0; i < n->classes; i++) s += o[i], q += o[i] * o[i], g[i] = 0;
    for (int64_t i = 0; i < n->classes; i++) m2 += (o[i] - s / D) * (o[i] - s / D);
    if (n->kind == SLG_SPHERICAL_SQUARED) {
        for (int64_t i = 0; i < n->classes; i++) g[i] = 2 * o[i];
        loss = q;
    }
    for (int64_t j = 0; j < k; j++) {
        const double t = value[j], oc = o[c[j]], sigma = sqrt(m2 / D),
                     z = m2 > 0 ? (oc - s / D) / sigma : 0;
        const double taylor = D + s + q / 2, log_den = q + D * n->eps;
        double slope;
        switch (n->kind) {
        case SLG_SPHERICAL_SQUARED:
            loss += t * t - 2 * t * oc, g[c[j]] -= 2 * t;
            break;
        case SLG_SPHERICAL_TAYLOR:
            loss += t * (log(taylor) - log(1 + oc + oc * oc / 2));
            for (int64_t i = 0; i < n->classes; i++) g[i] += t * (1 + o[i]) / taylor;
            g[c[j]] -= t * (1 + oc) / (1 + oc + oc * oc / 2);
            break;
        case SLG_SPHERICAL_LOG:
            loss += t * (log(log_den) - log(oc * oc + n->eps));
            for (int64_t i = 0; i < n->classes; i++) g[i] += t * 2 * o[i] / log_den;
            g[c[j]] -= t * 2 * oc / (oc * oc + n->eps);
            break;
        default:
            loss += t * log1p(exp(n->a * (n->b - z))) / n->a;
            if (!(m2 > 0)) break; /* a constant row: no gradient */
            slope = -t / (1 + exp(-n->a * (n->b - z))) / sigma;
            for (int64_t i = 0; i < n->classes; i++)
                g[i] += slope * ((i == c[j]) - 1 / D - (o[i] - s / D) / sigma * z / D);
        }
    }
    return loss;
}

/* The dense step; losses and gradients in h. k targets a row, c < 0: not there. */
static void dense_step(dense *n, int64_t m, int64_t k, const double *h, const int64_t *c,
                       const double *value, const double *rho, double lr, double *loss,
                       double *dh)
{
    const int64_t D = n->classes, d = n->dim;
    double *o = zeros(D, sizeof *o), *g = zeros(m * D, sizeof *g);
    for (int64_t r = 0; r < m; r++) {
        int64_t there = 0, cs[8];
        double vs[8];
        for (int64_t i = 0; i < D; i++) {
            o[i] = 0;
            for (int64_t j = 0; j < d; j++) o[i] += n->w[i * d + j] * h[r * d + j];
        }
        for (int64_t j = 0; j < k; j++)
            if (c[r * k + j] >= 0)
                cs[there] = c[r * k + j], vs[there++] = value ? value[r * k + j] : 1;
        if (!value && n->kind != SLG_SPHERICAL_SQUARED)
            for (int64_t j = 0; j < there; j++) vs[j] = 1 / (double)there;
        loss[r] = there ? row_gradient(n, o, there, cs, vs, g + r * D) : 0;
        for (int64_t j = 0; j < d; j++) {
            dh[r * d + j] = 0;
            for (int64_t i = 0; i < D; i++)
                dh[r * d + j] += rho[r] * g[r * D + i] * n->w[i * d + j];
        }
    }
    for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < D; i++)
            for (int64_t j = 0; j < d; j++)
                n->w[i * d + j] -= lr * rho[r] * g[r * D + i] * h[r * d + j];
    free(o), free(g);
}

static slg_spherical_layer *layer_of(slg_ctx *ctx, const dense *n, int32_t period, double low,
                                     double high)
{
    slg_spherical_layer *l;
    slg_spherical_layer_opts o;
    slg_spherical_layer_opts_init(&o, sizeof o);
    o.kind = n->kind, o.a = n->a, o.b = n->b, o.eps = n->eps;
    o.period = period, o.low = low, o.high = high;
    slg_tensor w = slg_tensor_2d(n->w, SLG_F64, n->classes, n->dim);
    OK(ctx, slg_spherical_layer_create(ctx, n->classes, n->dim, &w, &o, &l));
    return l;
}

static dense dense_of(int32_t kind, int64_t classes, int64_t dim)
{
    dense n = { classes, dim, kind, 0.7, 1.5, 0.1, zeros(classes * dim, sizeof *n.w) };
    for (int64_t i = 0; i < classes * dim; i++) n.w[i] = single(0.5 * normal());
    return n;
}

/* W, Q = W'W, wbar = W'1 and P U = I, against the dense weights. Returns the off difference in
   W. */
static double same_weights(slg_ctx *ctx, slg_spherical_layer *l, const dense *n,
                           double tolerance)
{
    const int64_t D = n->classes, d = n->dim;
    double *w = zeros(D * d, sizeof *w), *q = zeros(d * d, sizeof *q), *s = zeros(d, sizeof *s),
           off = 0;
    slg_tensor ws = slg_tensor_2d(w, SLG_F64, D, d), qs = slg_tensor_2d(q, SLG_F64, d, d);
    slg_tensor ss = slg_tensor_1d(s, SLG_F64, d);
    slg_spherical_layer_info_t info;
    slg_spherical_layer_info_init(&info, sizeof info);
    info.gram = &qs, info.column_sums = &ss;
    OK(ctx, slg_spherical_layer_rows(l, NULL, &ws));
    OK(ctx, slg_spherical_layer_info(l, &info));
    assert_true(info.drift < 1e-8);
    for (int64_t i = 0; i < D * d; i++) off = fmax(off, fabs(w[i] - n->w[i]));
    if (!(off <= tolerance)) fail_msg("kind %d: weights off by %g", n->kind, off);
    for (int64_t i = 0; i < d; i++) {
        double sum = 0, size = 0;
        for (int64_t r = 0; r < D; r++) sum += n->w[r * d + i];
        assert_true(fabs(sum - s[i]) < 10 * tolerance * (double)D);
        for (int64_t j = 0; j < d; j++) {
            double dot = 0;
            for (int64_t r = 0; r < D; r++) {
                dot += n->w[r * d + i] * n->w[r * d + j];
                size += fabs(n->w[r * d + i] * n->w[r * d + j]);
            }
            assert_true(fabs(dot - q[i * d + j]) < 10 * tolerance * (1 + size));
        }
    }
    free(w), free(q), free(s);
    return off;
}

/* Random batches, K targets, ignored ones, values, weights; m below and above d; W moved
   about. */
static void one_run(slg_ctx *ctx, int32_t kind, int64_t m, int64_t k, bool values, double lr,
                    bool shuffle)
{
    dense n = dense_of(kind, 23, 6);
    slg_spherical_layer *l =
        layer_of(ctx, &n, shuffle ? 2 : 10, shuffle ? 0.95 : 0.5, shuffle ? 1.05 : 2);
    const int64_t d = n.dim;
    double *h = zeros(m * d, 8), *value = zeros(m * k, 8), *rho = zeros(m, 8),
           *loss = zeros(m, 8);
    double *dh = zeros(m * d, 8), *got = zeros(m, 8), *got_dh = zeros(m * d, 8),
           *o = zeros(m * k, 8);
    int64_t *c = zeros(m * k, 8), *given = zeros(m * k, 8);
    slg_tensor hs = slg_tensor_2d(h, SLG_F64, m, d), cs = slg_tensor_2d(given, SLG_I64, m, k);
    slg_tensor vs = slg_tensor_2d(value, SLG_F64, m, k), rs = slg_tensor_1d(rho, SLG_F64, m);
    slg_tensor ls = slg_tensor_1d(got, SLG_F64, m), dhs = slg_tensor_2d(got_dh, SLG_F64, m, d);
    slg_tensor os = slg_tensor_2d(o, SLG_F64, m, k);
    slg_spherical_batch b;
    slg_spherical_layer_out out;
    slg_spherical_batch_init(&b, sizeof b);
    slg_spherical_layer_out_init(&out, sizeof out);
    b.hidden = &hs, b.target = &cs, b.row_weight = &rs, b.target_value = values ? &vs : NULL;
    out.loss = &ls, out.dhidden = &dhs, out.target_output = &os;
    for (int step = 0; step < 12; step++) {
        double total = 0;
        int64_t count = 0;
        for (int64_t i = 0; i < m * d; i++) h[i] = i / d == 1 && step == 3 ? 0 : normal();
        for (int64_t i = 0; i < m * k; i++) {
            c[i] = given[i] = below(step % 2 ? 23 : 4);
            if (i % 5 == 3) c[i] = -1, given[i] = -100;
            value[i] = 0.25 + uniform();
        }
        for (int64_t r = 0; r < m; r++) rho[r] = (0.5 + uniform()) / (double)m;
        for (int64_t r = 0; r < m; r++) {
            int64_t there = 0;
            for (int64_t j = 0; j < k; j++) there += c[r * k + j] >= 0;
            count += there > 0;
            if (!there) rho[r] = 0;
        }
        dense_step(&n, m, k, h, c, values ? value : NULL, rho, lr, loss, dh);
        OK(ctx, slg_spherical_layer_step(l, &b, lr, &out));
        for (int64_t r = 0; r < m; r++) {
            total += rho[r] * loss[r];
            if (!(fabs(got[r] - loss[r]) < 2e-5 * (1 + fabs(loss[r]))))
                fail_msg("kind %d, m %d, step %d: loss %.9g, not %.9g", kind, (int)m, step,
                         got[r], loss[r]);
        }
        assert_true(fabs(out.value - total) < 2e-5 * (1 + fabs(total)) && out.count == count);
        for (int64_t i = 0; i < m * d; i++)
            if (!(fabs(got_dh[i] - dh[i]) < 2e-5))
                fail_msg("dh %.9g, not %.9g", got_dh[i], dh[i]);
        if (shuffle && step == 5) OK(ctx, slg_spherical_layer_refactorise(l));
        if (shuffle && step == 7) {
            OK(ctx, slg_spherical_layer_decay(l, 0.75));
            for (int64_t i = 0; i < n.classes * d; i++) n.w[i] *= 0.75;
        }
        if (shuffle && step == 9) OK(ctx, slg_spherical_layer_stabilise(l, NULL));
    }
    same_weights(ctx, l, &n, 3e-6);
    slg_spherical_layer_free(l);
    free(h), free(value), free(rho), free(loss), free(dh), free(got), free(got_dh), free(o),
        free(c);
    free(given), free(n.w);
}

static void test_dense(void **state)
{
    (void)state;
    static const double rates[] = { 0.03, 0.3, 0.1, 1 };
    FOR_EACH_ISA(ctx, 1)
    for (int32_t kind = 0; kind <= 3; kind++)
        for (int i = 0; i < 8; i++)
            one_run(ctx, kind, i & 1 ? 9 : 4, i & 2 ? 3 : 1, i & 4, rates[kind], i & 1);
}

/* A thousand steps: within 1e-5 of the dense update in float64; wbar stays, |W| does not
   shrink. */
static void test_thousand_steps(void **state)
{
    (void)state;
    enum { D = 200, d = 16, M = 8 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const double rates[] = { 0.01, 0.2, 0.05, 10 };
    for (int32_t kind = 0; kind <= 3; kind++) {
        dense n = dense_of(kind, D, d);
        slg_spherical_layer *l = layer_of(ctx, &n, 10, 0.5, 2);
        double h[M * d], loss[M], dh[M * d], rho[M], norm = 0, now = 0;
        int64_t c[M];
        slg_tensor hs = slg_tensor_2d(h, SLG_F64, M, d), cs = slg_tensor_1d(c, SLG_I64, M);
        slg_spherical_batch b;
        slg_spherical_batch_init(&b, sizeof b);
        b.hidden = &hs, b.target = &cs;
        for (int i = 0; i < D * d; i++) norm += n.w[i] * n.w[i];
        for (int step = 0; step < 1000; step++) {
            for (int i = 0; i < M * d; i++) h[i] = normal();
            for (int i = 0; i < M; i++) c[i] = below(D), rho[i] = 1.0 / M;
            dense_step(&n, M, 1, h, c, NULL, rho, rates[kind], loss, dh);
            OK(ctx, slg_spherical_layer_step(l, &b, rates[kind], NULL));
        }
        double off = same_weights(ctx, l, &n, 1e-5);
        for (int i = 0; i < D * d; i++) now += n.w[i] * n.w[i];
        assert_true(kind != SLG_SPHERICAL_Z || now >= norm);
        slg_spherical_layer_info_t info;
        slg_spherical_layer_info_init(&info, sizeof info);
        OK(ctx, slg_spherical_layer_info(l, &info));
        assert_int_equal(info.steps, 1000);
        print_message(
            "kind %d: weights off by %.2g after 1000 steps, %d moved, %d refactorised\n", kind,
            off, (int)info.moved, (int)info.refactorised);
        slg_spherical_layer_free(l);
        free(n.w);
    }
    slg_ctx_free(ctx);
}

/* ---- A small layer for the rest ---------------------------------------------------------- */

enum { CLASSES = 30, DIM = 5, ROWS = 4 };

typedef struct small {
    slg_ctx *ctx;
    dense n;
    slg_spherical_layer *l;
    double h[ROWS * DIM];
    int32_t c[ROWS];
    slg_tensor hs, cs;
    slg_spherical_batch b;
} small;

static void small_open(small *s, int32_t kind, int32_t isa, int32_t threads)
{
    s->ctx = context(isa, threads);
    s->n = dense_of(kind, CLASSES, DIM);
    s->l = layer_of(s->ctx, &s->n, 3, 0.9, 1.1);
    for (int i = 0; i < ROWS * DIM; i++) s->h[i] = normal();
    for (int i = 0; i < ROWS; i++) s->c[i] = (int32_t)below(CLASSES);
    s->hs = slg_tensor_2d(s->h, SLG_F64, ROWS, DIM);
    s->cs = slg_tensor_1d(s->c, SLG_I32, ROWS);
    slg_spherical_batch_init(&s->b, sizeof s->b);
    s->b.hidden = &s->hs, s->b.target = &s->cs;
}

static void small_close(small *s)
{
    slg_spherical_layer_free(s->l);
    slg_ctx_free(s->ctx);
    free(s->n.w);
}

static char *state_of(small *s, int64_t *bytes)
{
    OK(s->ctx, slg_spherical_layer_export(s->l, NULL, 0, bytes));
    char *p = zeros(*bytes, 1);
    OK(s->ctx, slg_spherical_layer_export(s->l, p, *bytes, bytes));
    return p;
}

/* The state is what `was` says, bit for bit. */
static void assert_state(small *s, const char *was)
{
    int64_t bytes;
    char *p = state_of(s, &bytes);
    assert_memory_equal(p, was, (size_t)bytes);
    free(p);
}

static void test_state(void **unused)
{
    (void)unused;
    small s, t;
    int64_t bytes;
    small_open(&s, SLG_SPHERICAL_TAYLOR, SLG_ISA_AUTO, 1);
    small_open(&t, SLG_SPHERICAL_TAYLOR, SLG_ISA_AUTO, 3);
    for (int i = 0; i < 7; i++) OK(s.ctx, slg_spherical_layer_step(s.l, &s.b, 0.3, NULL));
    char *was = state_of(&s, &bytes), *bad = zeros(bytes, 1);
    OK(t.ctx, slg_spherical_layer_import(t.l, was, bytes));
    assert_state(&t, was);
    for (int i = 0; i < 9; i++) {
        OK(s.ctx, slg_spherical_layer_step(s.l, &s.b, 0.3, NULL));
        OK(t.ctx, slg_spherical_layer_step(t.l, &s.b, 0.3, NULL));
    }
    char *now = state_of(&s, &bytes);
    assert_state(&t, now);
    /* Damaged, cut, of another layer. */
    memcpy(bad, was, (size_t)bytes);
    bad[bytes / 2] ^= 1;
    assert_int_equal(slg_spherical_layer_import(t.l, bad, bytes), SLG_ERR_STATE);
    assert_int_equal(slg_spherical_layer_import(t.l, was, bytes - 4), SLG_ERR_STATE);
    assert_int_equal(slg_spherical_layer_import(t.l, was, 10), SLG_ERR_STATE);
    bad[0] = 'x';
    assert_int_equal(slg_spherical_layer_import(t.l, bad, bytes), SLG_ERR_STATE);
    assert_int_equal(slg_spherical_layer_import(t.l, NULL, bytes), SLG_ERR_NULL);
    assert_int_equal(slg_spherical_layer_export(t.l, bad, bytes - 1, &bytes), SLG_ERR_RANGE);
    assert_state(&t, now);
    free(was), free(now), free(bad);
    small_close(&s), small_close(&t);
}

/* lr 0, a singular step, results that are not finite, bad targets: the state stays. */
static void test_failed_steps(void **unused)
{
    (void)unused;
    small s;
    int64_t bytes;
    double loss[ROWS] = { 7, 7, 7, 7 };
    small_open(&s, SLG_SPHERICAL_SQUARED, SLG_ISA_AUTO, 1);
    slg_tensor ls = slg_tensor_1d(loss, SLG_F64, ROWS),
               one_h = slg_tensor_2d(s.h, SLG_F64, 1, DIM);
    slg_tensor one_c = slg_tensor_1d(s.c, SLG_I32, 1),
               none_h = slg_tensor_2d(s.h, SLG_F64, 0, DIM);
    slg_tensor none_c = slg_tensor_1d(s.c, SLG_I32, 0);
    slg_spherical_layer_out out;
    slg_spherical_layer_out_init(&out, sizeof out);
    char *was = state_of(&s, &bytes);
    assert_int_equal(slg_spherical_layer_update(s.l, 0.1), SLG_ERR_STATE);
    OK(s.ctx, slg_spherical_layer_step(s.l, &s.b, 0, &out));
    assert_true(out.value > 0);
    assert_state(&s, was);
    out.loss = &ls;
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, -1, &out), SLG_ERR_RANGE);
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, NAN, &out), SLG_ERR_RANGE);
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, 1e200, &out), SLG_ERR_RANGE);
    /* One example whose step would erase the direction of h: 2 lr beta |h|^2 = 1. */
    double norm = 0;
    for (int i = 0; i < DIM; i++) norm += s.h[i] * s.h[i];
    slg_spherical_batch one = s.b;
    one.hidden = &one_h, one.target = &one_c;
    OK(s.ctx, slg_spherical_layer_forward(s.l, &one, NULL));
    assert_int_equal(slg_spherical_layer_update(s.l, 0.5 / norm), SLG_ERR_RANGE);
    assert_non_null(strstr(slg_ctx_message(s.ctx), "erase"));
    assert_state(&s, was);
    OK(s.ctx, slg_spherical_layer_update(s.l, 0)); /* it is still pending */
    assert_int_equal(slg_spherical_layer_update(s.l, 0), SLG_ERR_STATE);
    one.hidden = &none_h, one.target = &none_c;
    OK(s.ctx, slg_spherical_layer_step(s.l, &one, 0.1, NULL));
    s.c[2] = CLASSES;
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, 0.1, &out), SLG_ERR_RANGE);
    s.c[2] = -1;
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, 0.1, &out), SLG_ERR_RANGE);
    s.c[2] = 0, s.h[3] = NAN;
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, 0.1, &out), SLG_ERR_RANGE);
    s.h[3] = 1e80;
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, 0.1, &out), SLG_ERR_RANGE);
    s.h[3] = 1;
    out.loss = (slg_tensor *)&s.hs;
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, 0.1, &out), SLG_ERR_SHAPE);
    out.loss = NULL, out.dhidden = &s.hs;
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, 0.1, &out), SLG_ERR_STRIDE);
    s.b.target = NULL;
    assert_int_equal(slg_spherical_layer_step(s.l, &s.b, 0.1, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_spherical_layer_decay(s.l, 0), SLG_ERR_RANGE);
    assert_state(&s, was);
    for (int i = 0; i < ROWS; i++) assert_true(loss[i] == 7);
    free(was);
    small_close(&s);
}

/* Stabilising and decaying over many orders leave W. */
static void test_control(void **unused)
{
    (void)unused;
    small s;
    small_open(&s, SLG_SPHERICAL_SQUARED, SLG_ISA_AUTO, 1);
    double values[DIM], loss[ROWS], dh[ROWS * DIM], rho[ROWS];
    int64_t c[ROWS], moved = 0;
    for (int i = 0; i < ROWS; i++) c[i] = s.c[i], rho[i] = 1.0 / ROWS;
    for (int i = 0; i < 8; i++) {
        dense_step(&s.n, ROWS, 1, s.h, c, NULL, rho, 0.05, loss, dh);
        OK(s.ctx, slg_spherical_layer_step(s.l, &s.b, 0.05, NULL));
    }
    OK(s.ctx, slg_spherical_layer_stabilise(s.l, &moved));
    slg_tensor vs = slg_tensor_1d(values, SLG_F64, DIM);
    slg_spherical_layer_info_t info;
    slg_spherical_layer_info_init(&info, sizeof info);
    info.singular = &vs;
    OK(s.ctx, slg_spherical_layer_info(s.l, &info));
    assert_true(info.moved > 0 && values[0] <= 1.1 + 1e-9 && values[DIM - 1] >= 0.9 - 1e-9);
    assert_true(info.low_bound <= values[DIM - 1] + 1e-9 &&
                info.high_bound >= values[0] - 1e-9);
    same_weights(s.ctx, s.l, &s.n, 1e-6);
    double all = 1;
    for (int i = 0; i < 45; i++) {
        all *= 0.5;
        OK(s.ctx, slg_spherical_layer_decay(s.l, 0.5));
    }
    for (int i = 0; i < 45; i++) {
        all *= 2;
        OK(s.ctx, slg_spherical_layer_decay(s.l, 2));
    }
    assert_true(all == 1);
    same_weights(s.ctx, s.l, &s.n, 1e-6);
    small_close(&s);
}

static void test_rank(void **unused)
{
    (void)unused;
    enum { D = 1300, d = 7, M = 5, TOP = 6 };
    FOR_EACH_ISA(ctx, 2)
    for (int32_t kind = 2; kind <= 3; kind++) {
        dense n = dense_of(kind, D, d);
        for (int i = 0; i < d; i++)
            n.w[1200 * d + i] = n.w[3 * d + i]; /* equal rows, far
                                                                           apart */
        slg_spherical_layer *l = layer_of(ctx, &n, 10, 0.5, 2);
        double h[M * d], top[M * TOP];
        int64_t c[M] = { 3, 1200, 700, -1, 1299 }, rank[M], ties[M], at[M * TOP];
        for (int i = 0; i < M * d; i++) h[i] = normal();
        slg_tensor hs = slg_tensor_2d(h, SLG_F64, M, d), cs = slg_tensor_1d(c, SLG_I64, M);
        slg_tensor rs = slg_tensor_1d(rank, SLG_I64, M), ts = slg_tensor_1d(ties, SLG_I64, M);
        slg_tensor as = slg_tensor_2d(at, SLG_I64, M, TOP),
                   os = slg_tensor_2d(top, SLG_F64, M, TOP);
        OK(ctx, slg_spherical_layer_rank(l, &hs, &cs, &rs, &ts, &as, &os));
        for (int r = 0; r < M; r++) {
            double o[D];
            int64_t above = 0;
            for (int i = 0; i < D; i++) {
                o[i] = 0;
                for (int j = 0; j < d; j++) o[i] += n.w[i * d + j] * h[r * d + j];
                if (kind == SLG_SPHERICAL_LOG) o[i] = fabs(o[i]);
            }
            for (int i = 0; i < D && c[r] >= 0; i++) above += o[i] > o[c[r]] + 1e-5;
            assert_true(c[r] < 0 ? rank[r] == 0 && ties[r] == 0
                                 : llabs(rank[r] - 1 - above) <= 1);
            if (c[r] >= 0) assert_int_equal(ties[r], r < 2);
            for (int k = 0; k < TOP; k++) {
                int64_t before = 0;
                assert_true(at[r * TOP + k] >= 0 && at[r * TOP + k] < D);
                double own = o[at[r * TOP + k]];
                for (int i = 0; i < D; i++) before += o[i] > own + 1e-5;
                assert_true(before <= k);
                double got = top[r * TOP + k];
                assert_true(fabs((kind == SLG_SPHERICAL_LOG ? fabs(got) : got) - own) < 1e-5);
            }
        }
        slg_tensor wide = slg_tensor_2d(at, SLG_I64, 1, D + 1);
        slg_tensor one = slg_tensor_2d(h, SLG_F64, 1, d);
        assert_int_equal(slg_spherical_layer_rank(l, &one, NULL, NULL, NULL, &wide, NULL),
                         SLG_ERR_SHAPE);
        assert_int_equal(slg_spherical_layer_rank(l, &hs, NULL, &rs, NULL, NULL, NULL),
                         SLG_ERR_NULL);
        c[0] = D;
        assert_int_equal(slg_spherical_layer_rank(l, &hs, &cs, &rs, NULL, NULL, NULL),
                         SLG_ERR_RANGE);
        /* All zero: everything ties. */
        slg_spherical_layer *zero;
        c[0] = 5;
        OK(ctx, slg_spherical_layer_create(ctx, D, d, NULL, NULL, &zero));
        OK(ctx, slg_spherical_layer_rank(zero, &hs, &cs, &rs, &ts, &as, NULL));
        assert_true(rank[0] == 1 && ties[0] == D - 1 && at[0] == 0 && at[5] == 5);
        slg_spherical_layer_free(zero), slg_spherical_layer_free(l);
        free(n.w);
    }
}

static void test_rows_and_create(void **unused)
{
    (void)unused;
    small s;
    small_open(&s, SLG_SPHERICAL_Z, SLG_ISA_AUTO, 1);
    int32_t index[3] = { 7, 0, 7 };
    float w[3 * DIM];
    slg_tensor is = slg_tensor_1d(index, SLG_I32, 3), ws = slg_tensor_2d(w, SLG_F32, 3, DIM);
    OK(s.ctx, slg_spherical_layer_rows(s.l, &is, &ws));
    for (int i = 0; i < 3 * DIM; i++)
        assert_true((double)w[i] == s.n.w[index[i / DIM] * DIM + i % DIM]);
    index[1] = CLASSES;
    assert_int_equal(slg_spherical_layer_rows(s.l, &is, &ws), SLG_ERR_RANGE);
    slg_spherical_layer *l;
    slg_spherical_layer_opts o[6];
    for (int i = 0; i < 6; i++) slg_spherical_layer_opts_init(&o[i], sizeof o[i]);
    o[0].kind = 7, o[1].period = -1, o[2].low = 1, o[3].high = 1, o[4].a = 0, o[5].refresh = -1;
    for (int i = 0; i < 6; i++)
        assert_int_equal(slg_spherical_layer_create(s.ctx, 3, DIM, NULL, &o[i], &l),
                         SLG_ERR_RANGE);
    assert_int_equal(slg_spherical_layer_create(s.ctx, 0, DIM, NULL, NULL, &l), SLG_ERR_RANGE);
    assert_int_equal(slg_spherical_layer_create(s.ctx, 4, DIM, &ws, NULL, &l), SLG_ERR_SHAPE);
    w[4] = NAN;
    assert_int_equal(slg_spherical_layer_create(s.ctx, 3, DIM, &ws, NULL, &l), SLG_ERR_RANGE);
    assert_null(l);
    /* Refreshed at every step: the same, to rounding. */
    o[1].period = 10, o[1].refresh = 1;
    double loss[ROWS], dh[ROWS * DIM], rho[ROWS];
    int64_t c[ROWS];
    slg_tensor all = slg_tensor_2d(s.n.w, SLG_F64, CLASSES, DIM);
    OK(s.ctx, slg_spherical_layer_create(s.ctx, CLASSES, DIM, &all, &o[1], &l));
    s.n.a = 1, s.n.b = 0;
    for (int i = 0; i < ROWS; i++) c[i] = s.c[i], rho[i] = 1.0 / ROWS;
    for (int i = 0; i < 5; i++) {
        dense_step(&s.n, ROWS, 1, s.h, c, NULL, rho, 1, loss, dh);
        OK(s.ctx, slg_spherical_layer_step(l, &s.b, 1, NULL));
    }
    same_weights(s.ctx, l, &s.n, 1e-6);
    slg_spherical_layer_free(l), slg_spherical_layer_free(NULL);
    small_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),           cmocka_unit_test(test_thousand_steps),
        cmocka_unit_test(test_state),           cmocka_unit_test(test_failed_steps),
        cmocka_unit_test(test_control),         cmocka_unit_test(test_rank),
        cmocka_unit_test(test_rows_and_create),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
