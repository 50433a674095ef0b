/*
 * Hinge losses against double arithmetic from their formulas, their identities and edges, and
 * the layer's objective.
 */
#include "loss_test.h"
#include "support/gradcheck.h"

/* ---- Reference: one row ------------------------------------------------------------------ */

typedef struct rule {
    int32_t form, power;
    double margin;
} rule;

static double power_of(double h, int32_t p) { return p == 2 ? h * h : h; }
static double slope_of(double h, int32_t p) { return p == 2 ? 2 * h : h > 0; }

/* Value of a row; *d gets its gradient. */
static double reference_row(const rule *u, int64_t n, const double *z, int64_t y, double *d)
{
    double loss = 0, top = 0;
    int64_t at = -1;
    for (int64_t k = 0; k < n; k++) d[k] = 0;
    for (int64_t k = 0; k < n; k++) {
        double h = u->form == SLG_ONE_VS_REST ? u->margin + (k == y ? -z[k] : z[k])
                                              : u->margin + z[k] - z[y];
        if ((k == y && u->form != SLG_ONE_VS_REST) || z[k] == -INFINITY || h <= 0) continue;
        if (u->form == SLG_MAX_MARGIN) {
            if (h > top) top = h, at = k;
            continue;
        }
        loss += power_of(h, u->power);
        d[k] += (k == y ? -1 : 1) * slope_of(h, u->power);
        if (u->form == SLG_SUM_MARGIN) d[y] -= slope_of(h, u->power);
    }
    if (at < 0) return loss;
    d[at] = slope_of(top, u->power), d[y] = -d[at];
    return power_of(top, u->power);
}

static slg_hinge_opts opts_of(const rule *u, int32_t reduction)
{
    slg_hinge_opts o;
    slg_hinge_opts_init(&o, sizeof o);
    assert_true(o.form == SLG_ONE_VS_REST && o.power == 2 && o.reduction == SLG_MEAN &&
                o.margin == 1);
    o.form = u->form, o.power = u->power, o.margin = u->margin, o.reduction = reduction;
    return o;
}

/* ---- Random problems in every form ------------------------------------------------------- */

static void check_problem(slg_ctx *ctx, const problem *p, const rule *u, int32_t type,
                          enum layout layout, bool in_place)
{
    operands o;
    operands_of(p, type, SLG_F32, SLG_I32, SLG_I32, layout, &o);
    slg_hinge_opts opts = opts_of(u, SLG_MEAN);
    tensor loss = vector(SLG_F32, p->rows, layout),
           fresh = matrix(SLG_F32, p->rows, p->cols, layout);
    tensor *dx = in_place ? &o.x : &fresh;
    slg_loss_out out = loss_out(&loss.t, NULL);
    slg_logits_grad g = dense_grad(&dx->t);
    opts.per_entry = (int32_t)(p->rows % 2);
    OK(ctx, slg_hinge(ctx, &o.logits, &o.targets, &opts, &out, &g));
    double total = 0, weight = 0, z[512], d[512], most = 0,
           per = opts.per_entry ? (double)p->cols : 1;
    for (int64_t r = 0; r < p->rows; r++)
        if (p->index[r] >= 0) weight += p->row_weight[r] * p->class_weight[p->index[r]];
    for (int64_t r = 0; r < p->rows; r++) {
        bool ignored = p->index[r] < 0;
        double w = ignored ? 0 : p->row_weight[r] * p->class_weight[p->index[r]] / per,
               value = 0, size = 0;
        for (int64_t k = 0; k < p->cols; k++)
            z[k] = p->mask && !p->mask[k] ? -INFINITY : p->x[r * p->cols + k] / p->temperature;
        for (int64_t k = 0; k < p->cols; k++) size = fmax(size, isinf(z[k]) ? 0 : fabs(z[k]));
        if (ignored)
            memset(d, 0, sizeof d);
        else
            value = reference_row(u, p->cols, z, p->index[r], d);
        compare("loss", r, 0, get(&loss, 0, r), w * value,
                w * (1e-6 * value + 1e-6 * sqrt(value) * size) + 1e-38, &most);
        for (int64_t k = 0; k < p->cols; k++) {
            double want = w * d[k] / weight * per * (1 / per) / p->temperature;
            double allowed =
                1e-6 * fabs(want) + 1e-6 * w / weight * size * (double)p->cols / p->temperature;
            compare("dlogits", r, k, get(dx, r, k), want, allowed + rounding(dx->t.dtype, want),
                    &most);
        }
        total += w * value;
    }
    compare("value", 0, 0, out.value, total / weight, 1e-5 * total / weight + 1e-9, &most);
    if (!in_place) assert_gaps_intact(&fresh);
    release(&loss), release(&fresh), operands_free(&o);
}

static void test_against_double(void **state)
{
    (void)state;
    static const int64_t widths[] = { 1, 2, 5, 37, 300 };
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(widths); i++)
        for (int form = 0; form < 6; form++) {
            const rule u = { form % 3, 1 + form / 3, i == 1 ? 0.25 : 1 };
            const int64_t rows = 6 + form % 2, cols = widths[i];
            int32_t type = i == 2 ? SLG_BF16 : SLG_F32;
            problem p = problem_of(rows, cols);
            p.row_weight = zeros(rows, sizeof(double));
            p.class_weight = zeros(cols, sizeof(double));
            p.mask = i == 3 ? zeros(cols, sizeof(int)) : NULL;
            for (int64_t k = 0; k < cols; k++) p.class_weight[k] = single(0.5 + uniform());
            for (int64_t k = 0; k < rows * cols; k++) p.x[k] = as_dtype(type, normal());
            for (int64_t r = 0; r < rows; r++) {
                p.row_weight[r] = single(uniform());
                p.index[r] = r == 2 ? -100 : below((cols + 1) / 2) * 2 % cols;
                if (p.mask && r != 2) p.index[r] -= p.index[r] % 2;
            }
            for (int64_t k = 0; p.mask && k < cols; k++) p.mask[k] = k % 4 != 1;
            if (i == 4) p.temperature = 4; /* exact in float32 */
            check_problem(ctx, &p, &u, type, (enum layout)(form % 4), false);
            check_problem(ctx, &p, &u, type, (enum layout)(form % 4), true);
            problem_free(&p);
        }
}

/* ---- Small rows -------------------------------------------------------------------------- */

/* Sum over rows, and the gradient; the scores are rows of cols. */
static double run(slg_ctx *ctx, const rule *u, int64_t rows, int64_t cols, const float *x,
                  const int32_t *y, float *d)
{
    slg_tensor tx = slg_tensor_2d((void *)(uintptr_t)x, SLG_F32, rows, cols);
    slg_tensor ty = slg_tensor_1d((void *)(uintptr_t)y, SLG_I32, rows);
    slg_tensor td = slg_tensor_2d(d, SLG_F32, rows, cols);
    const slg_logits l = slg_logits_dense(&tx);
    const slg_targets t = slg_targets_index(&ty);
    const slg_hinge_opts o = opts_of(u, SLG_SUM);
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = dense_grad(&td);
    OK(ctx, slg_hinge(ctx, &l, &t, &o, &out, d ? &g : NULL));
    return out.value;
}

typedef struct checked {
    slg_ctx *ctx;
    rule u;
    int32_t y[2];
} checked;

static double value_of(const float *x, void *arg)
{
    const checked *c = arg;
    return run(c->ctx, &c->u, 2, 4, x, c->y, NULL);
}

static void test_gradient(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int form = 0; form < 6; form++) { /* all kinks farther than 1/16 */
        float x[8] = { 0.5f, -0.25f, 1.75f, -2.5f, 0.25f, -INFINITY, 2.5f, 0.625f }, d[8];
        checked c = { ctx, { form % 3, 1 + form / 3, 1 }, { 0, 3 } };
        run(ctx, &c.u, 2, 4, x, c.y, d);
        gradcheck_result result = gradcheck(value_of, &c, x, 8, d, NULL);
        assert_true(gradcheck_ok(&result, 1e-4, "hinge"));
        double sum = 0; /* the joint forms are shift invariant, one against the rest is not */
        for (int k = 0; k < 4; k++) sum += (double)d[k];
        assert_true((fabs(sum) < 1e-6) == (form % 3 != SLG_ONE_VS_REST));
    }
    slg_ctx_free(ctx);
}

static void test_identities(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const float apart[3] = { 5, -5, -7 };
    float x[6], scaled[6], d[6], e[6];
    const int32_t y[3] = { 0, 1, 1 };
    for (int form = 0; form < 6; form++) {
        const rule u = { form % 3, 1 + form / 3, 1 }, wide = { form % 3, 1 + form / 3, 3 };
        assert_true(run(ctx, &u, 1, 3, apart, y, d) == 0); /* unlike softmax */
        for (int k = 0; k < 3; k++) assert_true(d[k] == 0);
        for (int k = 0; k < 6; k++) x[k] = (float)normal(), scaled[k] = 3 * x[k];
        double a = run(ctx, &u, 2, 3, x, y, d), b = run(ctx, &wide, 2, 3, scaled, y, e);
        assert_true(fabs(b - a * (u.power == 2 ? 9 : 3)) < 1e-5 * (b + 1)); /* homogeneous */
    }
    for (int power = 1; power <= 2; power++) { /* two classes: the joint forms agree */
        const rule max = { SLG_MAX_MARGIN, power, 1 }, sum = { SLG_SUM_MARGIN, power, 1 };
        double a = run(ctx, &max, 3, 2, x, y, d), b = run(ctx, &sum, 3, 2, x, y, e);
        assert_true(fabs(a - b) < 1e-6 * (1 + a));
        for (int k = 0; k < 6; k++) assert_true(fabsf(d[k] - e[k]) < 1e-6f);
    }
    slg_ctx_free(ctx);
}

static const struct edge {
    rule u;
    float x[3];
    int32_t y;
    double loss, d[3];
} edges[] = {
    { { SLG_ONE_VS_REST, 1, 1 }, { 1, -1, -1 }, 0, 0, { 0, 0, 0 } }, /* on the margin */
    { { SLG_MAX_MARGIN, 1, 1 }, { 1, 0, 0 }, 0, 0, { 0, 0, 0 } },
    { { SLG_MAX_MARGIN, 1, 1 },
      { .5f, .5f, .5f },
      1,
      1,
      { 1, -1, 0 } }, /* the first of tied rivals */
    { { SLG_ONE_VS_REST, 2, 1 }, { 0, -INFINITY, -2 }, 0, 1, { -2, 0, 0 } }, /* masked */
    { { SLG_SUM_MARGIN, 2, 1 }, { 0, -INFINITY, 0 }, 0, 1, { -2, 0, 2 } },
    { { SLG_MAX_MARGIN, 2, 1 }, { 0, -INFINITY, -INFINITY }, 0, 0, { 0, 0, 0 } },
    { { SLG_ONE_VS_REST, 1, 1 }, { -INFINITY, -3, -3 }, 0, INFINITY, { 0, 0, 0 } },
    { { SLG_SUM_MARGIN, 1, 1 }, { 0, INFINITY, -3 }, 0, INFINITY, { -1, 1, 0 } },
    { { SLG_MAX_MARGIN, 1, 1 }, { 0, -3, INFINITY }, 0, INFINITY, { -1, 0, 1 } },
    { { SLG_ONE_VS_REST, 2, 1 }, { -INFINITY, NAN, 0 }, 0, NAN, { NAN, NAN, NAN } },
    { { SLG_MAX_MARGIN, 1, 1 }, { 0, NAN, 0 }, 0, NAN, { NAN, NAN, NAN } },
    { { SLG_SUM_MARGIN, 2, 1 }, { NAN, 0, 0 }, 0, NAN, { NAN, NAN, NAN } },
    { { SLG_ONE_VS_REST, 2, 1 }, { 1e15f, 0, -1 }, 1, 1e30 + 2e15 + 2, { 2e15, -2, 0 } },
    { { SLG_SUM_MARGIN, 2, 1 }, { 1e25f, -1e25f, -3e25f }, 1, 4e50, { 4e25, -4e25, 0 } },
};

static void test_edges(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(edges); i++) {
        const struct edge *e = &edges[i];
        float d[3];
        double most = 0, loss = run(ctx, &e->u, 1, 3, e->x, &e->y, d);
        compare("loss", i, 0, loss, e->loss, 1e-6 * fabs(e->loss), &most);
        for (int k = 0; k < 3; k++)
            compare("d", i, k, (double)d[k], e->d[k], 1e-6 * fabs(e->d[k]), &most);
    }
}

static void test_one_class(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    const float x[2] = { 0.25f, 3 };
    const int32_t y[2] = { 0, 0 };
    float d[2];
    for (int form = 0; form < 3; form++) {
        const rule u = { form, 2, 1 };
        assert_true(run(ctx, &u, 2, 1, x, y, d) == (form ? 0 : 0.5625));
        assert_true(d[0] == (form ? 0 : -1.5f) && d[1] == 0);
        assert_true(run(ctx, &u, 0, 3, x, y, d) == 0); /* no rows */
    }
    slg_ctx_free(ctx);
}

static void test_counts_correct(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float x[12] = { 1, 2, 0, /**/ 2, 2, 0, /**/ 2, 2, 0, /**/ NAN, 9, 0 };
    int32_t y[4] = { 1, 0, 1, 1 };
    const slg_tensor tx = slg_tensor_2d(x, SLG_F32, 4, 3), ty = slg_tensor_1d(y, SLG_I32, 4);
    const slg_logits l = slg_logits_dense(&tx);
    const slg_targets t = slg_targets_index(&ty);
    slg_loss_out out = loss_out(NULL, NULL);
    OK(ctx, slg_hinge(ctx, &l, &t, NULL, &out, NULL));
    assert_int_equal(out.correct, 2);
    slg_ctx_free(ctx);
}

static void test_same_bits(void **state)
{
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    enum { N = 11, C = 4099 };
    float *x = zeros(N * C, 4), *d = zeros(N * C, 4), *first = zeros(N * C, 4);
    int32_t y[N];
    for (int i = 0; i < N; i++) y[i] = (int32_t)below(C);
    for (int i = 0; i < N * C; i++) x[i] = (float)normal();
    for (int form = 0; form < 3; form++) {
        const rule u = { form, 2, 1 };
        double value = 0;
        for (int64_t i = 0; i < COUNT(threads); i++) {
            slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
            double v = run(ctx, &u, N, C, x, y, d);
            if (i == 0) memcpy(first, d, N * C * 4), value = v;
            assert_true(v == value);
            assert_memory_equal(first, d, N * C * 4);
            slg_ctx_free(ctx);
        }
    }
    free(x), free(d), free(first);
}

/* ---- The layer --------------------------------------------------------------------------- */

typedef struct layer {
    slg_ctx *ctx;
    slg_svm_layer_opts o;
    float w[12], b[3], h[20], dw[12], db[3], dh[20];
    int32_t y[5];
} layer;

enum { ROWS = 5, CLASSES = 3, DIM = 4 };

static double layer_run(layer *a, int32_t accumulate)
{
    const slg_tensor h = slg_tensor_2d(a->h, SLG_F32, ROWS, DIM),
                     w = slg_tensor_2d(a->w, SLG_F32, CLASSES, DIM);
    const slg_tensor b = slg_tensor_1d(a->b, SLG_F32, CLASSES),
                     y = slg_tensor_1d(a->y, SLG_I32, ROWS);
    slg_tensor dh = slg_tensor_2d(a->dh, SLG_F32, ROWS, DIM),
               dw = slg_tensor_2d(a->dw, SLG_F32, CLASSES, DIM);
    slg_tensor db = slg_tensor_1d(a->db, SLG_F32, CLASSES);
    const slg_logits l = slg_logits_layer(&h, &w, &b);
    const slg_targets t = slg_targets_index(&y);
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = slg_grad_layer(&dh, &dw, &db);
    g.accumulate = accumulate;
    OK(a->ctx, slg_svm_layer(a->ctx, &l, &t, &a->o, &out, &g));
    return out.value;
}

static double layer_value(const float *w, void *arg)
{
    layer a = *(layer *)arg;
    memcpy(a.w, w, sizeof a.w);
    return layer_run(&a, 0);
}

static void test_layer(void **state)
{
    (void)state;
    layer a = { .ctx = context(SLG_ISA_AUTO, 1), .y = { 0, 1, 2, 1, 0 } };
    for (int i = 0; i < 12; i++) a.w[i] = (float)normal();
    for (int i = 0; i < 20; i++) a.h[i] = (float)normal();
    for (int scaling = 0; scaling < 2; scaling++)
        for (int form = 0; form < 3; form++) {
            slg_svm_layer_opts_init(&a.o, sizeof a.o);
            a.o.scaling = scaling, a.o.form = form, a.o.penalty = 0.5;
            layer_run(&a, 0);
            const gradcheck_opts fine = { .step = 1.0 / 512 };
            gradcheck_result result = gradcheck(layer_value, &a, a.w, 12, a.dw, &fine);
            assert_true(gradcheck_ok(&result, form == SLG_ONE_VS_REST ? 1e-3 : 2e-2, "layer"));
            layer added = a; /* accumulation, and the decay that is left to the optimizer */
            double decay = slg_svm_decay(scaling, CLASSES, DIM);
            added.o.outer_decay = 1;
            layer_run(&added, SLG_ACCUMULATE_WEIGHTS);
            for (int i = 0; i < 12; i++)
                assert_true(fabs((double)added.dw[i] - 2 * (double)a.dw[i] +
                                 decay * (double)a.w[i]) < 2e-5);
        }
    assert_true(slg_svm_decay(SLG_SVM_MEAN, 4, 8) == 1.0 / 16 &&
                slg_svm_decay(SLG_SVM_SUM, 4, 8) == 1);
    assert_true(slg_svm_decay(SLG_SVM_MEAN, 0, 8) == 0);
    slg_ctx_free(a.ctx);
}

/* Points x and -x, a machine for each class: w -> 1 / x as the penalty grows, where
   the gradient is 0. */
static void test_two_points(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float h[2] = { 4, -4 }, w[2], dw[2];
    int32_t y[2] = { 0, 1 };
    const slg_tensor th = slg_tensor_2d(h, SLG_F32, 2, 1), tw = slg_tensor_2d(w, SLG_F32, 2, 1);
    const slg_tensor ty = slg_tensor_1d(y, SLG_I32, 2);
    slg_tensor tdw = slg_tensor_2d(dw, SLG_F32, 2, 1);
    const slg_logits l = slg_logits_layer(&th, &tw, NULL);
    const slg_targets t = slg_targets_index(&ty);
    slg_svm_layer_opts o;
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = slg_grad_layer(NULL, &tdw, NULL);
    slg_svm_layer_opts_init(&o, sizeof o);
    o.scaling = SLG_SVM_SUM, o.penalty = 1000;
    /* d/dw (w^2 / 2 + 2 C (1 - 4 w)^2) = 0 */
    double best = 16 * o.penalty / (1 + 64 * o.penalty);
    w[0] = (float)best, w[1] = (float)-best;
    OK(ctx, slg_svm_layer(ctx, &l, &t, &o, &out, &g));
    assert_true(fabs(best - 0.25) < 1e-5 && fabsf(dw[0]) < 0.01f && fabsf(dw[1]) < 0.01f);
    w[0] *= 0.99f;
    OK(ctx, slg_svm_layer(ctx, &l, &t, &o, &out, &g));
    assert_true(dw[0] < -100);
    slg_ctx_free(ctx);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float x[3] = { 1, 2, 3 }, d[3] = { 7, 7, 7 };
    int32_t y = 1;
    const slg_tensor tx = slg_tensor_2d(x, SLG_F32, 1, 3), ty = slg_tensor_1d(&y, SLG_I32, 1);
    slg_tensor td = slg_tensor_2d(d, SLG_F32, 1, 3);
    const slg_logits l = slg_logits_dense(&tx);
    slg_targets t = slg_targets_index(&ty);
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = dense_grad(&td);
    static const rule bad[] = { { 3, 2, 1 }, { -1, 2, 1 }, { 0, 0, 1 },
                                { 0, 3, 1 }, { 0, 2, -1 }, { 0, 2, NAN } };
    for (int64_t i = 0; i < COUNT(bad); i++) {
        const slg_hinge_opts o = opts_of(&bad[i], SLG_MEAN);
        assert_int_equal(slg_hinge(ctx, &l, &t, &o, &out, &g), SLG_ERR_RANGE);
    }
    slg_hinge_opts o = opts_of(&(rule){ 0, 2, 1 }, SLG_MEAN);
    o.per_entry = 2;
    assert_int_equal(slg_hinge(ctx, &l, &t, &o, &out, &g), SLG_ERR_RANGE);
    slg_svm_layer_opts so;
    slg_svm_layer_opts_init(&so, sizeof so);
    assert_int_equal(slg_svm_layer(ctx, &l, &t, &so, &out, NULL), SLG_ERR_NULL); /* dense */
    assert_int_equal(slg_svm_layer(ctx, NULL, &t, &so, &out, NULL), SLG_ERR_NULL);
    so.penalty = -1;
    assert_int_equal(slg_svm_layer(ctx, &l, &t, &so, &out, NULL), SLG_ERR_RANGE);
    y = 3;
    assert_int_equal(slg_hinge(ctx, &l, &t, NULL, &out, &g), SLG_ERR_RANGE);
    y = 1, t.prob = &tx;
    assert_int_equal(slg_hinge(ctx, &l, &t, NULL, &out, &g), SLG_ERR_NULL);
    for (int k = 0; k < 3; k++) assert_true(d[k] == 7);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double), cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_identities),     cmocka_unit_test(test_edges),
        cmocka_unit_test(test_one_class),      cmocka_unit_test(test_counts_correct),
        cmocka_unit_test(test_same_bits),      cmocka_unit_test(test_layer),
        cmocka_unit_test(test_two_points),     cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
