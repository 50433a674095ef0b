/*
 * Losses that take each class by itself (binary cross-entropy, the two binary divergences),
 * focal loss and Poly-1, against plain double arithmetic; the dual-head step and the alignment
 * of gradients by their identities.
 */
#include "loss/loss_test.h"
#include "support/gradcheck.h"

enum { BCE, KL, KL_NORM, FOCAL, POLY, KINDS };

typedef struct set {
    int64_t rows, cols;
    tensor x, t, index, d, loss, row_weight, class_weight, pos;
    slg_logits logits, teacher;
    slg_targets targets;
    slg_loss_out out;
    int32_t reduction;
} set;

static set set_of(int kind, int64_t rows, int64_t cols, int32_t dtype, enum layout layout)
{
    set s = { .rows = rows, .cols = cols, .reduction = SLG_SUM };
    s.x = matrix(dtype, rows, cols, layout), s.t = matrix(dtype, rows, cols, layout);
    s.d = matrix(dtype, rows, cols, layout);
    s.index = vector(SLG_I32, rows, layout), s.loss = vector(SLG_F64, rows, layout);
    s.row_weight = vector(SLG_F32, rows, layout);
    s.class_weight = vector(SLG_F32, cols, layout), s.pos = vector(SLG_F32, cols, layout);
    for (int64_t r = 0; r < rows; r++) {
        put(&s.row_weight, 0, r, r % 4 == 3 ? 0 : 0.5 + uniform());
        put(&s.index, 0, r, (double)below(cols));
        for (int64_t c = 0; c < cols; c++) {
            put(&s.x, r, c, 3 * normal());
            double q = c % 4 == 0 ? 0 : c % 4 == 1 ? 1 : uniform();
            put(&s.t, r, c,
                kind == BCE ? q
                : c % 3     ? 3 * normal()
                            : get(&s.x, r, c) + 0.01 * normal());
        }
    }
    for (int64_t c = 0; c < cols; c++)
        put(&s.class_weight, 0, c, c % 5 == 4 ? 0 : 0.5 + uniform()),
            put(&s.pos, 0, c, 3 * uniform());
    return s;
}

static void set_free(set *s)
{
    release(&s->x), release(&s->t), release(&s->d), release(&s->index), release(&s->loss);
    release(&s->row_weight), release(&s->class_weight), release(&s->pos);
}

/* With weights where the loss takes them. */
static slg_status run_on(slg_ctx *ctx, int kind, set *s, slg_logits *l, slg_logits_grad *d)
{
    slg_targets_init(&s->targets, sizeof s->targets);
    s->out = loss_out(s->loss.memory ? &s->loss.t : NULL, NULL);
    s->teacher = slg_logits_dense(&s->t.t);
    s->targets.row_weight = &s->row_weight.t;
    if (kind != KL && kind != KL_NORM) s->targets.class_weight = &s->class_weight.t;
    if (kind == FOCAL || kind == POLY) s->targets.index = &s->index.t;
    if (kind == BCE) {
        slg_binary_cross_entropy_opts o;
        slg_binary_cross_entropy_opts_init(&o, sizeof o);
        o.reduction = s->reduction, o.pos_weight = &s->pos.t;
        s->targets.prob = &s->t.t;
        return slg_binary_cross_entropy(ctx, l, &s->targets, &o, &s->out, d);
    }
    if (kind == FOCAL) {
        slg_focal_opts o;
        slg_focal_opts_init(&o, sizeof o);
        o.reduction = s->reduction;
        return slg_focal(ctx, l, &s->targets, &o, &s->out, d);
    }
    if (kind == POLY) {
        slg_poly1_opts o;
        slg_poly1_opts_init(&o, sizeof o);
        o.reduction = s->reduction;
        return slg_poly1(ctx, l, &s->targets, &o, &s->out, d);
    }
    slg_binary_kl_opts o;
    slg_binary_kl_opts_init(&o, sizeof o);
    o.reduction = s->reduction;
    s->targets.teacher = &s->teacher;
    return kind == KL ? slg_binary_kl(ctx, l, &s->targets, &o, &s->out, d)
                      : slg_binary_kl_normalised(ctx, l, &s->targets, &o, &s->out, d);
}

static slg_status run_dense(slg_ctx *ctx, int kind, set *s)
{
    slg_logits_grad d = slg_grad_dense(&s->d.t);
    s->logits = slg_logits_dense(&s->x.t);
    return run_on(ctx, kind, s, &s->logits, &d);
}

static double sp(double a) { return fmax(a, 0) + log1p(exp(-fabs(a))); }
static double sg(double a) { return 1 / (1 + exp(-a)); }

/* A row's loss, and gradient in dx, for the options of run_on. */
static double reference(int kind, const set *s, int64_t r, double *dx)
{
    double loss = 0, sum = 0, w = get(&s->row_weight, 0, r), k = (double)s->cols;
    int64_t t = (int64_t)get(&s->index, 0, r);
    for (int64_t c = 0; c < s->cols; c++) sum += exp(get(&s->x, r, c));
    double p = exp(get(&s->x, r, t)) / sum, nll = -log(p), at = get(&s->class_weight, 0, t);
    double gain = kind == FOCAL ? (1 - p) * (1 - p) + 2 * (1 - p) * p * nll : 1 + p;
    if (kind == FOCAL) loss = at * (1 - p) * (1 - p) * nll;
    if (kind == POLY) loss = at * (nll + 1 - p);
    for (int64_t c = 0; c < s->cols; c++) {
        double x = get(&s->x, r, c), y = get(&s->t, r, c), cw = get(&s->class_weight, 0, c) / k;
        double up = get(&s->pos, 0, c) * y, a = x / 2, b = y / 2;
        if (kind == BCE) loss += cw * (up * sp(-x) + (1 - y) * sp(x));
        if (kind == KL) loss += 4 * (sg(b) * (sp(-a) - sp(-b)) + sg(-b) * (sp(a) - sp(b)));
        if (kind == KL_NORM) loss += 4 * log(cosh((a - b) / 2));
        dx[c] = w * (kind == BCE       ? cw * ((1 - y) * sg(x) - up * sg(-x))
                     : kind == KL      ? 2 * (sg(a) - sg(b))
                     : kind == KL_NORM ? tanh((a - b) / 2)
                                       : at * gain * (exp(x) / sum - (c == t)));
    }
    return w * loss;
}

static void test_reference(void **state)
{
    static const int64_t shapes[][2] = { { 5, 1 }, { 4, 7 }, { 3, 2500 } };
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 27 * KINDS; i++) {
        int kind = i % KINDS, shape = i / KINDS % 3;
        int32_t dtype = types[i / KINDS / 3 % 3];
        set s = set_of(kind, shapes[shape][0], shapes[shape][1], dtype,
                       (enum layout)(i / KINDS / 9));
        double dx[2500], most = 0, total = 0;
        OK(ctx, run_dense(ctx, kind, &s));
        for (int64_t r = 0; r < s.rows; r++) {
            double want = reference(kind, &s, r, dx);
            total += want;
            compare("loss", r, 0, get(&s.loss, 0, r), want, 3e-6 * fabs(want) + 1e-9, &most);
            for (int64_t c = 0; c < s.cols; c++)
                compare("dx", r, c, get(&s.d, r, c), dx[c],
                        2e-6 * (fabs(dx[c]) + 0.05) + rounding(dtype, dx[c]), &most);
        }
        compare("value", 0, 0, s.out.value, total, 3e-6 * fabs(total) + 1e-9, &most);
        assert_gaps_intact(&s.d);
        set_free(&s);
    }
}

/* Dense = in place = through an output layer with the identity as weights; a softcap and a mask
   on the way; threads do not show. */
static void test_forms(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int kind = 0; kind < KINDS; kind++) {
        const int64_t cols = 40;
        set s = set_of(kind, 37, cols, SLG_F32, CONTIGUOUS);
        tensor eye = matrix(SLG_F32, cols, cols, CONTIGUOUS),
               mask = vector(SLG_I32, cols, CONTIGUOUS);
        tensor dw = matrix(SLG_F32, cols, cols, CONTIGUOUS),
               dh = matrix(SLG_F32, 37, cols, CONTIGUOUS);
        tensor again = matrix(SLG_F32, 37, cols, CONTIGUOUS);
        double most = 0;
        for (int64_t r = 0; r < cols; r++)
            for (int64_t c = 0; c < cols; c++) put(&eye, r, c, r == c);
        for (int64_t c = 0; c < cols; c++) put(&mask, 0, c, c % 6 != 5);
        for (int64_t r = 0; r < 37; r++) put(&s.index, 0, r, (double)(6 * below(6)));
        slg_logits l = slg_logits_dense(&s.x.t), fused = slg_logits_layer(&s.x.t, &eye.t, NULL);
        l.softcap = fused.softcap = 5, l.mask = fused.mask = &mask.t;
        l.temperature = fused.temperature = 1.5;
        slg_logits_grad d = slg_grad_dense(&s.d.t), df = slg_grad_layer(&dh.t, &dw.t, NULL);
        OK(ctx, run_on(ctx, kind, &s, &l, &d));
        double value = s.out.value;
        OK(ctx, run_on(ctx, kind, &s, &fused, &df));
        compare("fused", 0, 0, s.out.value, value, 1e-6 * fabs(value), &most);
        for (int64_t r = 0; r < 37; r++)
            for (int64_t c = 0; c < cols; c++) {
                compare("dhidden", r, c, get(&dh, r, c), get(&s.d, r, c), 1e-6, &most);
                if (c % 6 == 5) assert_true(get(&s.d, r, c) == 0);
            }
        for (int32_t threads = 2; threads <= 8; threads += threads == 3 ? 5 : 1) {
            slg_ctx *more = context(isa_, threads);
            slg_logits_grad da = slg_grad_dense(&again.t);
            OK(more, run_on(more, kind, &s, &l, &da));
            assert_true(s.out.value == value);
            assert_memory_equal(again.memory, s.d.memory, s.d.bytes);
            slg_ctx_free(more);
        }
        slg_logits_grad in_place = slg_grad_dense(&s.x.t);
        OK(ctx, run_on(ctx, kind, &s, &l, &in_place));
        assert_memory_equal(s.x.memory, s.d.memory, s.d.bytes);
        release(&eye), release(&mask), release(&dw), release(&dh), release(&again),
            set_free(&s);
    }
}

typedef struct check_arg {
    slg_ctx *ctx;
    set *s;
    int kind;
} check_arg;

static double value_at(const float *x, void *arg)
{
    check_arg *a = arg;
    slg_tensor view = slg_tensor_2d((void *)(uintptr_t)x, SLG_F32, a->s->rows, a->s->cols);
    slg_logits l = slg_logits_dense(&view);
    OK(a->ctx, run_on(a->ctx, a->kind, a->s, &l, NULL));
    return a->s->out.value;
}

static void test_gradcheck(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        set s = set_of(kind, 3, 11, SLG_F32, CONTIGUOUS);
        check_arg arg = { ctx, &s, kind };
        OK(ctx, run_dense(ctx, kind, &s));
        gradcheck_result r = gradcheck(value_at, &arg, s.x.t.data, 33, s.d.t.data, NULL);
        assert_true(gradcheck_ok(&r, 1e-4, "loss"));
        set_free(&s);
    }
    slg_ctx_free(ctx);
}

/* One class: what a logit and its partner give. */
static void one(slg_ctx *ctx, int kind, double x, double t, double *loss, double *dx)
{
    set s = set_of(kind, 1, 1, SLG_F32, CONTIGUOUS);
    put(&s.x, 0, 0, x), put(&s.t, 0, 0, t), put(&s.row_weight, 0, 0, 1);
    put(&s.class_weight, 0, 0, 1), put(&s.pos, 0, 0, 1);
    OK(ctx, run_dense(ctx, kind, &s));
    *loss = get(&s.loss, 0, 0), *dx = get(&s.d, 0, 0);
    set_free(&s);
}

static void test_edges(void **state)
{
    static const struct {
        int kind;
        double x, t, loss, dx;
    } cases[] = {
        { BCE, -INFINITY, 0, 0, 0 },
        { BCE, -INFINITY, 1, INFINITY, -1 },
        { BCE, INFINITY, 1, 0, 0 },
        { BCE, INFINITY, 0, INFINITY, 1 },
        { BCE, 1e38, 0, 1e38, 1 },
        { BCE, NAN, 0, NAN, NAN },
        { KL, 1.5, 1.5, 0, 0 },
        { KL, -INFINITY, -INFINITY, 0, 0 },
        { KL, INFINITY, INFINITY, 0, 0 },
        { KL, -INFINITY, -1000, INFINITY, 0 },
        { KL, INFINITY, 1, INFINITY, 2 * 0.3775406688 },
        { KL, 0, -INFINITY, 4 * 0.69314718056, 1 },
        { KL, NAN, 1, NAN, NAN },
        { KL, 1, NAN, NAN, NAN },
        { KL, 1e38, -1e38, 2e38, 2 },
        { KL, INFINITY, NAN, NAN, NAN },
        { KL_NORM, 1.5, 1.5, 0, 0 },
        { KL_NORM, 1e38, 0, 1e38, 1 },
        { KL_NORM, 3e38, -3e38, INFINITY, 1 },
        { KL_NORM, -INFINITY, 0, INFINITY, -1 },
        { KL_NORM, -INFINITY, -INFINITY, NAN, NAN },
        { KL_NORM, 0x1p-20, 0, 0x1p-43, 0x1p-22 },
        { KL_NORM, NAN, 0, NAN, NAN },
        { KL, 0x1p-20, 0, 0x1p-43, 0x1p-21 / 2 },
    };
    double loss, dx, most = 0;
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int i = 0; i < COUNT(cases); i++) {
        one(ctx, cases[i].kind, cases[i].x, cases[i].t, &loss, &dx);
        compare("loss", i, 0, loss, cases[i].loss, 1e-6 * fabs(cases[i].loss), &most);
        compare("dx", i, 0, dx, cases[i].dx, 2e-6 * fabs(cases[i].dx), &most);
    }
}

static void test_errors(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    static const double bad[] = { -0.1, 1.1, NAN };
    (void)state;
    for (int i = 0; i < 3; i++) {
        set s = set_of(BCE, 2, 3, SLG_F32, CONTIGUOUS);
        put(&s.t, 1, 2, bad[i]);
        assert_int_equal(run_dense(ctx, BCE, &s), SLG_ERR_RANGE);
        assert_non_null(strstr(slg_ctx_message(ctx), "row 1"));
        put(&s.t, 1, 2, 1), put(&s.pos, 0, 1, -1);
        assert_int_equal(run_dense(ctx, BCE, &s), SLG_ERR_RANGE);
        assert_gaps_intact(&s.loss);
        set_free(&s);
    }
    set s = set_of(KL, 2, 3, SLG_F32, CONTIGUOUS);
    OK(ctx, run_dense(ctx, KL, &s));
    slg_binary_kl_opts kl;
    slg_binary_kl_opts_init(&kl, sizeof kl);
    kl.temperature = 0;
    assert_int_equal(slg_binary_kl(ctx, &s.logits, &s.targets, &kl, &s.out, NULL),
                     SLG_ERR_RANGE);
    tensor lse = vector(SLG_F32, 2, CONTIGUOUS);
    slg_loss_out with_lse = loss_out(NULL, &lse.t);
    assert_int_equal(slg_binary_kl(ctx, &s.logits, &s.targets, NULL, &with_lse, NULL),
                     SLG_ERR_NULL);
    slg_focal_opts f;
    slg_poly1_opts p;
    slg_focal_opts_init(&f, sizeof f), slg_poly1_opts_init(&p, sizeof p);
    slg_targets t = slg_targets_index(&s.index.t);
    f.gamma = -1, p.epsilon = -1.5;
    assert_int_equal(slg_focal(ctx, &s.logits, &t, &f, &s.out, NULL), SLG_ERR_RANGE);
    assert_int_equal(slg_poly1(ctx, &s.logits, &t, &p, &s.out, NULL), SLG_ERR_RANGE);
    release(&lse), set_free(&s), slg_ctx_free(ctx);
}

static void same_step(const set *s, double value, const tensor *d)
{
    double most = 0;
    compare("value", 0, 0, s->out.value, value, 1e-14 * fabs(value), &most);
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t c = 0; c < s->cols; c++)
            compare("dx", r, c, get(&s->d, r, c), get(d, r, c), 3e-7 * fabs(get(d, r, c)),
                    &most);
}

/* gamma = 0 and epsilon = 0 are cross-entropy; focal keeps its precision where the target
   dominates. */
static void test_reduces(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    set s = set_of(FOCAL, 6, 9, SLG_F32, CONTIGUOUS);
    tensor d = matrix(SLG_F32, 6, 9, CONTIGUOUS);
    slg_focal_opts f;
    slg_poly1_opts p;
    (void)state;
    slg_focal_opts_init(&f, sizeof f), slg_poly1_opts_init(&p, sizeof p);
    f.gamma = 0, p.epsilon = 0;
    OK(ctx, run_dense(ctx, FOCAL, &s));
    slg_logits_grad ds = slg_grad_dense(&s.d.t), dd = slg_grad_dense(&d.t);
    OK(ctx, slg_cross_entropy(ctx, &s.logits, &s.targets, NULL, &s.out, &dd));
    double value = s.out.value;
    OK(ctx, slg_focal(ctx, &s.logits, &s.targets, &f, &s.out, &ds));
    same_step(&s, value, &d);
    OK(ctx, slg_poly1(ctx, &s.logits, &s.targets, &p, &s.out, &ds));
    same_step(&s, value, &d);

    float x[2] = { 0, -20 }, dx[2];
    int32_t first = 0;
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, 1, 2), ti = slg_tensor_1d(&first, SLG_I32, 1);
    slg_tensor tdx = slg_tensor_2d(dx, SLG_F32, 1, 2);
    slg_logits l = slg_logits_dense(&tx);
    slg_targets t = slg_targets_index(&ti);
    slg_logits_grad g = slg_grad_dense(&tdx);
    s.out.loss = NULL;
    OK(ctx, slg_focal(ctx, &l, &t, NULL, &s.out, &g));
    double q = exp(-20.0) / (1 + exp(-20.0)), most = 0;
    compare("focal", 0, 0, s.out.value, q * q * log1p(exp(-20.0)), 1e-6 * q * q * q, &most);
    compare("focal", 0, 1, (double)dx[1], 3 * q * q * q, 3e-6 * q * q * q, &most);
    release(&d), set_free(&s), slg_ctx_free(ctx);
}

/* The two losses apart, and together through slg_dual_head: the same bits; a shared dhidden
   is the sum. */
static void test_dual_head(void **state)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    set s = set_of(KL_NORM, 6, 5, SLG_F32, CONTIGUOUS);
    tensor h = matrix(SLG_F32, 6, 4, CONTIGUOUS), w[2], dw[2], dh[2], ew[2], eh[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        w[i] = matrix(SLG_F32, 5, 4, CONTIGUOUS), dw[i] = matrix(SLG_F32, 5, 4, CONTIGUOUS);
        dh[i] = matrix(SLG_F32, 6, 4, CONTIGUOUS), ew[i] = matrix(SLG_F32, 5, 4, CONTIGUOUS);
        eh[i] = matrix(SLG_F32, 6, 4, CONTIGUOUS);
        for (int j = 0; j < 20; j++) put(&w[i], j / 4, j % 4, normal());
    }
    for (int j = 0; j < 24; j++) put(&h, j / 4, j % 4, normal());
    slg_logits a = slg_logits_layer(&h.t, &w[0].t, NULL),
               b = slg_logits_layer(&h.t, &w[1].t, NULL);
    slg_logits_grad da = slg_grad_layer(&dh[0].t, &dw[0].t, NULL),
                    db = slg_grad_layer(&dh[1].t, &dw[1].t, NULL);
    slg_logits_grad ea = slg_grad_layer(&eh[0].t, &ew[0].t, NULL),
                    eb = slg_grad_layer(&eh[1].t, &ew[1].t, NULL);
    slg_logits teacher = slg_logits_dense(&s.t.t);
    slg_targets t = slg_targets_index(&s.index.t), t1 = t, t2;
    slg_targets_init(&t2, sizeof t2);
    t.teacher = t2.teacher = &teacher;
    slg_loss_out o1 = loss_out(NULL, NULL), o2 = o1, p1 = o1, p2 = o1;
    OK(ctx, slg_dual_head(ctx, &a, &b, &t, NULL, &o1, &o2, &da, &db));
    OK(ctx, slg_cross_entropy(ctx, &a, &t1, NULL, &p1, &ea));
    OK(ctx, slg_binary_kl_normalised(ctx, &b, &t2, NULL, &p2, &eb));
    assert_true(o1.value == p1.value && o2.value == p2.value);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(dw[i].memory, ew[i].memory, ew[i].bytes);
        assert_memory_equal(dh[i].memory, eh[i].memory, eh[i].bytes);
    }
    double most = 0;
    slg_logits_grad shared = slg_grad_layer(&dh[0].t, &dw[1].t, NULL);
    OK(ctx, slg_dual_head(ctx, &a, &b, &t, NULL, &o1, &o2, &da, &shared));
    for (int j = 0; j < 24; j++)
        compare("sum", j / 4, j % 4, get(&dh[0], j / 4, j % 4),
                get(&eh[0], j / 4, j % 4) + get(&eh[1], j / 4, j % 4), 1e-6, &most);
    slg_dual_head_opts o;
    slg_dual_head_opts_init(&o, sizeof o);
    o.auxiliary_weight = 0, o.main_weight = 2;
    OK(ctx, slg_dual_head(ctx, &a, &b, &t, &o, &o1, &o2, &da, &shared));
    for (int j = 0; j < 24; j++)
        compare("twice", j / 4, j % 4, get(&dh[0], j / 4, j % 4), 2 * get(&eh[0], j / 4, j % 4),
                1e-6, &most);
    for (int j = 0; j < 20; j++) assert_true(get(&dw[1], j / 4, j % 4) == 0);
    o.auxiliary_weight = -1;
    assert_int_equal(slg_dual_head(ctx, &a, &b, &t, &o, &o1, &o2, &da, &db), SLG_ERR_RANGE);
    db.dweight = &dw[0].t;
    assert_int_equal(slg_dual_head(ctx, &a, &b, &t, NULL, &o1, &o2, &da, &db), SLG_ERR_STRIDE);
    put(&s.index, 0, 2, -100); /* no label: counts for the auxiliary loss */
    OK(ctx, slg_dual_head(ctx, &a, &b, &t, NULL, &o1, &o2, NULL, NULL));
    assert_true(o1.count == 5 && o2.count == 6 && o2.value == p2.value);
    for (int i = 0; i < 2; i++)
        release(&w[i]), release(&dw[i]), release(&dh[i]), release(&ew[i]), release(&eh[i]);
    release(&h), set_free(&s), slg_ctx_free(ctx);
}

static double dot_of(const tensor *a, const tensor *b)
{
    double sum = 0;
    for (int64_t r = 0; r < a->t.shape[0]; r++)
        for (int64_t c = 0; c < a->t.shape[1]; c++) sum += get(a, r, c) * get(b, r, c);
    return sum;
}

/* scale: of all entries, down to where float32 could not hold a square. */
static void align_at(slg_ctx *ctx, double sign, double scale, enum layout layout)
{
    const int64_t rows = 300, cols = 301;
    tensor a = matrix(SLG_F32, rows, cols, layout), b = matrix(SLG_F32, rows, cols, layout);
    tensor old = matrix(SLG_F32, rows, cols, CONTIGUOUS);
    slg_align_gradients_out out;
    slg_align_gradients_opts o;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            put(&a, r, c, scale * normal());
            put(&b, r, c, sign * get(&a, r, c) + scale * normal());
            put(&old, r, c, get(&b, r, c));
        }
    slg_align_gradients_out_init(&out, sizeof out);
    slg_align_gradients_opts_init(&o, sizeof o);
    slg_tensor *main = &a.t, *auxiliary = &b.t;
    double dot = dot_of(&a, &b), norm = dot_of(&a, &a), most = 0;
    OK(ctx, slg_align_gradients(ctx, 1, &main, &auxiliary, &o, &out));
    compare("dot", 0, 0, out.dot, dot, 1e-10 * norm, &most);
    compare("norm", 0, 0, out.main_norm2, norm, 1e-10 * norm, &most);
    assert_int_equal(out.aligned, dot < 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double want = get(&old, r, c) - (dot < 0 ? dot / norm * get(&a, r, c) : 0);
            compare("g2", r, c, get(&b, r, c), want, 1e-7 * (fabs(want) + scale * 1e-3), &most);
        }
    if (dot < 0) assert_true(fabs(dot_of(&a, &b)) < 1e-6 * norm);
    assert_gaps_intact(&b);
    release(&a), release(&b), release(&old);
}

static void test_align(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 3)
    {
        align_at(ctx, -1, 1, CONTIGUOUS), align_at(ctx, 1, 1, ROW_GAPS);
        align_at(ctx, -0.5, 1e-24, COL_GAPS), align_at(ctx, -2, 1e18, UPSIDE_DOWN);
    }
    /* Lists: a loss that does not reach a tensor, shared_only, merge, and errors. */
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float g1[2] = { 1, 0 }, g2[2] = { -1, 5 }, only1[1] = { 1 }, only2[1] = { 7 };
    slg_tensor a = slg_tensor_1d(g1, SLG_F32, 2), b = slg_tensor_1d(g2, SLG_F32, 2);
    slg_tensor c = slg_tensor_1d(only1, SLG_F32, 1), d = slg_tensor_1d(only2, SLG_F32, 1);
    slg_tensor *main[] = { &a, &c, NULL }, *auxiliary[] = { &b, NULL, &d };
    slg_align_gradients_opts o;
    slg_align_gradients_out out;
    slg_align_gradients_opts_init(&o, sizeof o);
    slg_align_gradients_out_init(&out, sizeof out);
    assert_int_equal(slg_align_gradients(ctx, 3, main, auxiliary, &o, &out), SLG_ERR_NULL);
    o.merge = 1; /* dot -1, norm 2 */
    OK(ctx, slg_align_gradients(ctx, 3, main, auxiliary, &o, &out));
    assert_true(out.dot == -1 && out.main_norm2 == 2 && out.auxiliary_norm2 == 75 &&
                out.aligned);
    assert_true(g1[0] == 0.5f && g1[1] == 5 && only1[0] == 1.5f && only2[0] == 7 &&
                g2[0] == -1);
    g1[0] = 1, g1[1] = 0, o.merge = 0, o.shared_only = 1;
    OK(ctx, slg_align_gradients(ctx, 3, main, auxiliary, &o, &out));
    assert_true(out.main_norm2 == 1 && g2[0] == 0 && g2[1] == 5 && only1[0] == 1.5f &&
                only2[0] == 7);
    g1[0] = 0, g2[0] = -3; /* g1 = 0 */
    OK(ctx, slg_align_gradients(ctx, 1, main, auxiliary, NULL, &out));
    assert_true(!out.aligned && g2[0] == -3 && g2[1] == 5);
    assert_int_equal(slg_align_gradients(ctx, 1, main, main, NULL, &out), SLG_ERR_STRIDE);
    assert_int_equal(slg_align_gradients(ctx, -1, main, auxiliary, NULL, &out), SLG_ERR_RANGE);
    auxiliary[0] = &d;
    assert_int_equal(slg_align_gradients(ctx, 1, main, auxiliary, NULL, &out), SLG_ERR_SHAPE);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_forms),
        cmocka_unit_test(test_gradcheck), cmocka_unit_test(test_edges),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_reduces),
        cmocka_unit_test(test_dual_head), cmocka_unit_test(test_align),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
