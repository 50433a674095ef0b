/*
 * slg_cross_entropy fused with its output layer: against the same in double arithmetic, with an
 * allowance for what a float32 product may be off.
 */
#include "loss_test.h"

#include "support/gradcheck.h"

void openblas_set_num_threads(int threads); /* cblas.h is not in every include path */

enum {
    PROB = 1,
    SMOOTHING = 2,
    CLASS_WEIGHT = 4,
    ROW_WEIGHT = 8,
    Z_LOSS = 16,
    SOFTCAP = 32,
    TEMPERATURE = 64,
    MASK = 128,
    CHOICES = 256
};

static const int32_t row_types[] = { SLG_F32, SLG_BF16, SLG_F16 };
static double worst_loss, worst_hidden, worst_weight, worst_bias;

/* ---- Layers ------------------------------------------------------------------------------ */

typedef struct layer {
    int64_t dim;
    int32_t hidden_type, weight_type, bias_type, dhidden_type;
    enum layout layout, weight_layout;
    bool has_bias;
    double *hidden, *weight, *bias; /* as their types hold them */
} layer;

static void layer_free(layer *l) { free(l->hidden), free(l->weight), free(l->bias); }

static layer random_layer(const problem *p, int64_t dim, int32_t type, enum layout layout)
{
    layer l = { .dim = dim, .hidden_type = type, .weight_type = type, .bias_type = type };
    l.dhidden_type = type;
    l.layout = l.weight_layout = layout;
    l.has_bias = below(4) > 0;
    l.hidden = zeros(p->rows * dim, sizeof(double));
    l.weight = zeros(p->cols * dim, sizeof(double));
    l.bias = zeros(p->cols, sizeof(double));
    for (int64_t i = 0; i < p->rows * dim; i++) l.hidden[i] = as_dtype(type, normal());
    for (int64_t i = 0; i < p->cols * dim; i++) l.weight[i] = as_dtype(type, normal() * 0.5);
    for (int64_t i = 0; i < p->cols; i++) l.bias[i] = as_dtype(type, normal());
    return l;
}

/* Fills in p->x; for each row how far a float32 product may be off. */
static double *form(problem *p, const layer *l)
{
    double *off = zeros(p->rows, sizeof *off);
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t c = 0; c < p->cols; c++) {
            double sum = l->has_bias ? l->bias[c] : 0, size = fabs(sum);
            for (int64_t i = 0; i < l->dim; i++) {
                double term = l->hidden[r * l->dim + i] * l->weight[c * l->dim + i];
                sum += term, size += fabs(term);
            }
            p->x[r * p->cols + c] = sum;
            if (isfinite(size)) off[r] = fmax(off[r], 0x1p-23 * size);
        }
    return off;
}

static problem random_targets(int64_t rows, int64_t cols, unsigned choice, int32_t reduction)
{
    problem p = problem_of(rows, cols);
    p.reduction = reduction;
    p.has_prob = choice & PROB;
    if (choice & MASK) {
        p.mask = zeros(cols, sizeof *p.mask);
        for (int64_t c = 0; c < cols; c++) p.mask[c] = c % 3 != 1;
    }
    if (choice & CLASS_WEIGHT) {
        p.class_weight = zeros(cols, sizeof(double));
        for (int64_t c = 0; c < cols; c++) p.class_weight[c] = single(2 * uniform());
    }
    if (choice & ROW_WEIGHT) {
        p.row_weight = zeros(rows, sizeof(double));
        for (int64_t r = 0; r < rows; r++) p.row_weight[r] = single(2 * uniform());
    }
    p.smoothing = choice & SMOOTHING ? 0.1 : 0;
    p.z_loss = choice & Z_LOSS ? 1e-2 : 0;
    p.softcap = choice & SOFTCAP ? 4 : 0;
    p.temperature = choice & TEMPERATURE ? 1.7 : 1;
    if (p.has_prob) p.q = zeros(rows * cols, sizeof(double));
    for (int64_t r = 0; r < rows; r++) {
        int64_t t = below((cols + 2) / 3) * 3; /* not masked */
        p.index[r] = uniform() < 0.15 ? p.ignore_index : t;
        if (p.has_prob) p.q[r * cols + t] = 0.75, p.q[r * cols] += 0.25;
    }
    return p;
}

/* ---- A call against double --------------------------------------------------------------- */

typedef struct fused {
    operands o; /* its x is not used */
    tensor hidden, weight, bias, dhidden, dweight, dbias, loss, lse;
    slg_loss_out out;
    slg_logits_grad grad;
} fused;

static void fused_open(const problem *p, const layer *l, fused *f)
{
    operands_of(p, SLG_F32, SLG_F32, SLG_I32, SLG_I32, CONTIGUOUS, &f->o);
    f->hidden = matrix(l->hidden_type, p->rows, l->dim, l->layout);
    f->weight = matrix(l->weight_type, p->cols, l->dim, l->weight_layout);
    f->bias = vector(l->bias_type, p->cols, l->layout);
    fill(&f->hidden, l->hidden), fill(&f->weight, l->weight), fill(&f->bias, l->bias);
    f->o.logits.dense = NULL;
    f->o.logits.hidden = &f->hidden.t;
    f->o.logits.weight = &f->weight.t;
    f->o.logits.bias = l->has_bias ? &f->bias.t : NULL;
    f->dhidden = matrix(l->dhidden_type, p->rows, l->dim, l->layout);
    f->dweight =
        matrix(SLG_F32, p->cols, l->dim, l->layout == CONTIGUOUS ? CONTIGUOUS : ROW_GAPS);
    f->dbias = vector(SLG_F32, p->cols, l->layout);
    f->loss = vector(SLG_F32, p->rows, l->layout);
    f->lse = vector(SLG_F32, p->rows, l->layout);
    f->out = loss_out(&f->loss.t, &f->lse.t);
    slg_logits_grad_init(&f->grad, sizeof f->grad);
    f->grad.dhidden = &f->dhidden.t;
    f->grad.dweight = &f->dweight.t;
    f->grad.dbias = &f->dbias.t;
}

static void fused_free(fused *f)
{
    assert_gaps_intact(&f->dhidden), assert_gaps_intact(&f->dweight);
    assert_gaps_intact(&f->dbias), assert_gaps_intact(&f->loss), assert_gaps_intact(&f->lse);
    operands_free(&f->o);
    release(&f->hidden), release(&f->weight), release(&f->bias), release(&f->dhidden);
    release(&f->dweight), release(&f->dbias), release(&f->loss), release(&f->lse);
}

static slg_status fused_run(slg_ctx *ctx, fused *f)
{
    return slg_cross_entropy(ctx, &f->o.logits, &f->o.targets, &f->o.opts, &f->out, &f->grad);
}

/* Values: what the problem gives, each row's logits off by as much as `off`. */
static void compare_values(const problem *p, const answer *a, const double *off, const fused *f)
{
    double all = 0, more = allowance(p);
    bool open = a->close_call;
    for (int64_t r = 0; r < p->rows; r++) {
        double w = p->row_weight ? p->row_weight[r] : 1;
        double e = LOSS_TOLERANCE * more * a->loss_size[r] +
                   4 * off[r] / p->temperature * w * 2 * (1 + 2 * p->z_loss * fabs(a->lse[r]));
        if (!isnan(e)) all += e;
        compare("loss", r, 0, get(&f->loss, 0, r), a->loss[r], e + 1.2e-38, &worst_loss);
        compare("lse", r, 0, get(&f->lse, 0, r), a->lse[r],
                LSE_TOLERANCE * more * (1 + fabs(a->lse[r])) + 2 * off[r] / p->temperature,
                &worst_loss);
        double best = -INFINITY, second = -INFINITY;
        for (int64_t c = 0; c < p->cols; c++) {
            double x = !p->mask || p->mask[c] ? p->x[r * p->cols + c] : -INFINITY;
            if (x > best)
                second = best, best = x;
            else if (x > second)
                second = x;
        }
        open = open || best - second < 8 * off[r];
    }
    double scale = a->sum != 0 && isfinite(a->sum) ? fabs(a->value / a->sum) : 1;
    compare("sum", 0, 0, f->out.sum, a->sum, all + 1e-30, &worst_loss);
    compare("value", 0, 0, f->out.value, a->value, all * scale + 1e-30, &worst_loss);
    compare("weight", 0, 0, f->out.weight, a->weight, 1e-12 * a->weight, &worst_loss);
    assert_int_equal(f->out.count, a->count);
    if (!open) assert_int_equal(f->out.correct, a->correct);
}

/* before: what dweight and dbias held, added to; NULL: overwritten. */
static void compare_gradients(const problem *p, const layer *l, const answer *a,
                              const double *off, const fused *f, double before)
{
    const int64_t rows = p->rows, cols = p->cols, dim = l->dim;
    double *want = zeros(cols * dim, sizeof *want), *may = zeros(cols * dim, sizeof *may);
    double *bias = zeros(cols, sizeof *bias), *bias_may = zeros(cols, sizeof *bias_may);
    double *e = zeros(cols, sizeof *e);
    for (int64_t r = 0; r < rows; r++) {
        const double *dx = a->dx + r * cols;
        for (int64_t c = 0; c < cols; c++) {
            double size = a->dx_size[r * cols + c];
            e[c] = size * (GRAD_TOLERANCE * allowance(p) + 4 * off[r] / p->temperature) +
                   1e-6 * fabs(dx[c]) + 1.2e-38;
            bias[c] += dx[c], bias_may[c] += e[c];
        }
        for (int64_t i = 0; i < dim; i++) {
            double sum = 0, sum_may = 0;
            for (int64_t c = 0; c < cols; c++) {
                if (dx[c] == 0 && !isnan(dx[c])) continue;
                double w = l->weight[c * dim + i], h = l->hidden[r * dim + i];
                sum += dx[c] * w, sum_may += e[c] * fabs(w);
                want[c * dim + i] += dx[c] * h, may[c * dim + i] += e[c] * fabs(h);
            }
            compare("dhidden", r, i, get(&f->dhidden, r, i), sum,
                    sum_may + rounding(l->dhidden_type, sum), &worst_hidden);
        }
    }
    for (int64_t c = 0; c < cols; c++) {
        for (int64_t i = 0; i < dim; i++) {
            double w = want[c * dim + i] + before;
            compare("dweight", c, i, get(&f->dweight, c, i), w,
                    may[c * dim + i] + 4e-7 * fabs(before) + rounding(SLG_F32, w),
                    &worst_weight);
        }
        compare("dbias", 0, c, get(&f->dbias, 0, c), bias[c] + before,
                bias_may[c] + 4e-7 * fabs(before) + 1e-30, &worst_bias);
    }
    free(want), free(may), free(bias), free(bias_may), free(e);
}

/* Overwriting, then adding; then without gradients. */
static void check_layer(slg_ctx *ctx, problem *p, const layer *l)
{
    double *off = form(p, l);
    answer a = answer_of(p);
    fused f;
    fused_open(p, l, &f);
    OK(ctx, fused_run(ctx, &f));
    compare_values(p, &a, off, &f);
    compare_gradients(p, l, &a, off, &f, 0);

    f.grad.accumulate = 1;
    for (int64_t c = 0; c < p->cols; c++) {
        put(&f.dbias, 0, c, 3);
        for (int64_t i = 0; i < l->dim; i++) put(&f.dweight, c, i, 3);
    }
    OK(ctx, fused_run(ctx, &f));
    compare_gradients(p, l, &a, off, &f, 3);

    const slg_loss_out full = f.out;
    f.out = loss_out(NULL, NULL);
    OK(ctx, slg_cross_entropy(ctx, &f.o.logits, &f.o.targets, &f.o.opts, &f.out, NULL));
    assert_true(f.out.value == full.value || isnan(full.value));
    assert_true(f.out.count == full.count && f.out.correct == full.correct);
    fused_free(&f);
    answer_free(&a);
    free(off);
}

static void test_combinations(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        problem p = random_targets(9, 17, choice, (int32_t)(choice % 3));
        layer l = random_layer(&p, 12, SLG_F32, (enum layout)below(4));
        check_layer(ctx, &p, &l);
        layer_free(&l);
        problem_free(&p);
    }
}

static void test_types(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int i = 0; i < 81; i++) {
        problem p = random_targets(5, i % 2 ? 30 : 2060, (unsigned)below(CHOICES), SLG_MEAN);
        layer l =
            random_layer(&p, 7, SLG_BF16, (enum layout)below(4)); /* values that all hold */
        for (int64_t k = 0; k < p.cols * 7; k++) l.weight[k] = as_dtype(SLG_F16, l.weight[k]);
        for (int64_t k = 0; k < 5 * 7; k++) l.hidden[k] = as_dtype(SLG_F16, l.hidden[k]);
        for (int64_t k = 0; k < p.cols; k++) l.bias[k] = as_dtype(SLG_F16, l.bias[k]);
        l.hidden_type = row_types[i % 3], l.weight_type = row_types[i / 3 % 3];
        l.bias_type = row_types[i / 9 % 3], l.dhidden_type = row_types[i / 27];
        l.weight_layout = (enum layout)below(4);
        check_layer(ctx, &p, &l);
        layer_free(&l);
        problem_free(&p);
    }
}

static void check_size(slg_ctx *ctx, int64_t rows, int64_t cols, int64_t dim, unsigned choice,
                       int32_t type)
{
    problem p = random_targets(rows, cols, choice, SLG_MEAN);
    layer l = random_layer(&p, dim, type, CONTIGUOUS);
    check_layer(ctx, &p, &l);
    layer_free(&l);
    problem_free(&p);
}

/* Several blocks of rows (of 1024 at most), several panels of weight (of 4096 rows), and
   edges. */
static void test_sizes(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        check_size(ctx, 2500, 3, 4, 0, SLG_F32);
        check_size(ctx, 2049, 10, 3, CHOICES - 1, SLG_BF16);
        check_size(ctx, 1025, 40, 3, (CHOICES - 1) & ~(unsigned)PROB, SLG_F32);
        check_size(ctx, 70, 9000, 3, MASK | SOFTCAP, SLG_F16);
        check_size(ctx, 3, 9000, 5, PROB | TEMPERATURE, SLG_BF16);
        check_size(ctx, 1, 1, 1, 0, SLG_F32);
        check_size(ctx, 0, 20, 4, 0, SLG_F32);
        check_size(ctx, 0, 20, 4, PROB | MASK, SLG_BF16);
        check_size(ctx, 4, 20, 0, 0, SLG_F32);
    }
}

/* ---- Finite differences ------------------------------------------------------------------ */

enum { FD_ROWS = 3, FD_COLS = 7, FD_DIM = 4 };

typedef struct fd_arg {
    slg_ctx *ctx;
    fused *f;
    tensor *moved;
} fd_arg;

static double fd_value(const float *x, void *arg)
{
    const fd_arg *v = arg;
    const slg_tensor *t = &v->moved->t;
    int64_t n = t->ndim == 1 ? t->shape[0] : t->shape[0] * t->shape[1];
    memcpy(t->data, x, (size_t)n * sizeof *x);
    slg_loss_out out = loss_out(NULL, NULL);
    OK(v->ctx,
       slg_cross_entropy(v->ctx, &v->f->o.logits, &v->f->o.targets, &v->f->o.opts, &out, NULL));
    return out.value;
}

static void check_fd(slg_ctx *ctx, fused *f, tensor *moved, const tensor *gradient,
                     const char *what)
{
    float x[FD_COLS * FD_DIM], g[FD_COLS * FD_DIM];
    const slg_tensor *t = &moved->t;
    int64_t n = t->ndim == 1 ? t->shape[0] : t->shape[0] * t->shape[1];
    memcpy(x, t->data, (size_t)n * sizeof *x);
    memcpy(g, gradient->t.data, (size_t)n * sizeof *g);
    fd_arg arg = { ctx, f, moved };
    const gradcheck_opts opts = { .step = 1.0 / 64 };
    gradcheck_result r = gradcheck(fd_value, &arg, x, (size_t)n, g, &opts);
    assert_true(gradcheck_ok(&r, 2e-4, what));
    memcpy(t->data, x, (size_t)n * sizeof *x);
}

static void test_finite_differences(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (unsigned choice = 0; choice < CHOICES; choice += 5) {
        problem p = random_targets(FD_ROWS, FD_COLS, choice, SLG_SUM);
        layer l = random_layer(&p, FD_DIM, SLG_F32, CONTIGUOUS);
        l.has_bias = true;
        fused f;
        fused_open(&p, &l, &f);
        OK(ctx, fused_run(ctx, &f));
        check_fd(ctx, &f, &f.hidden, &f.dhidden, "hidden");
        check_fd(ctx, &f, &f.weight, &f.dweight, "weight");
        check_fd(ctx, &f, &f.bias, &f.dbias, "bias");
        fused_free(&f);
        layer_free(&l);
        problem_free(&p);
    }
}

/* ---- Rows that are not ordinary ---------------------------------------------------------- */

/* NaN and infinities in hidden states of ignored rows reach nothing, dweight least of all. */
static void test_ignored(void **state)
{
    (void)state;
    const double values[] = { NAN, INFINITY, -INFINITY };
    FOR_EACH_ISA(ctx, 1)
    for (int v = 0; v < 3; v++)
        for (int pattern = 0; pattern < 64; pattern++)
            for (int typed = 0; typed < 2; typed++) {
                problem p =
                    random_targets(6, 19, (unsigned)below(CHOICES) & ~(unsigned)PROB, SLG_MEAN);
                layer l =
                    random_layer(&p, 5, typed ? SLG_BF16 : SLG_F32, (enum layout)below(4));
                for (int r = 0; r < 6; r++)
                    p.index[r] = pattern >> r & 1 ? p.ignore_index : 3 * r % 18;
                double *off = form(&p, &l);
                answer a = answer_of(&p);
                for (int r = 0; r < 6; r++)
                    if (p.index[r] < 0) l.hidden[r * 5 + r % 5] = values[v];
                fused f;
                fused_open(&p, &l, &f);
                f.out.lse = NULL;
                OK(ctx, fused_run(ctx, &f));
                for (int r = 0; r < 6; r++) /* for compare_gradients: no NaN times 0 there */
                    if (p.index[r] < 0) l.hidden[r * 5 + r % 5] = 0;
                for (int r = 0; r < 6; r++)
                    compare("loss", r, 0, get(&f.loss, 0, r), a.loss[r],
                            1e-5 * (a.loss_size[r] + 1), &worst_loss);
                compare_gradients(&p, &l, &a, off, &f, 0);
                assert_int_equal(f.out.count, a.count);
                if (pattern == 63) assert_true(f.out.value == 0 && f.out.sum == 0);
                fused_free(&f);
                answer_free(&a);
                free(off);
                layer_free(&l);
                problem_free(&p);
            }
}

/* A hidden state with NaN makes its row NaN, and dweight; no other row's loss or dhidden. */
static void test_nan_row(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int bad = 0; bad < 4; bad++) {
        problem p = random_targets(4, 33, 0, SLG_SUM);
        for (int r = 0; r < 4; r++) p.index[r] = r;
        layer l = random_layer(&p, 6, SLG_F32, CONTIGUOUS);
        fused f, clean;
        fused_open(&p, &l, &clean);
        OK(ctx, fused_run(ctx, &clean));
        l.hidden[bad * 6 + 2] = NAN;
        fused_open(&p, &l, &f);
        OK(ctx, fused_run(ctx, &f));
        for (int r = 0; r < 4; r++) {
            if (r == bad) {
                assert_true(isnan(get(&f.loss, 0, r)) && isnan(get(&f.lse, 0, r)));
                for (int i = 0; i < 6; i++) assert_true(isnan(get(&f.dhidden, r, i)));
                continue;
            }
            assert_true(get(&f.loss, 0, r) == get(&clean.loss, 0, r));
            for (int i = 0; i < 6; i++)
                assert_true(get(&f.dhidden, r, i) == get(&clean.dhidden, r, i));
        }
        assert_true(isnan(f.out.value) && f.out.count == 4);
        fused_free(&f), fused_free(&clean);
        layer_free(&l);
        problem_free(&p);
    }
}

/* No classes: every row is ignored, nothing adds to dhidden. No live class: all gradients 0. */
static void test_no_classes(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        for (int typed = 0; typed < 2; typed++) {
            problem p = problem_of(3, 0);
            for (int r = 0; r < 3; r++) p.index[r] = p.ignore_index;
            layer l = random_layer(&p, 4, typed ? SLG_F16 : SLG_F32, CONTIGUOUS);
            fused f;
            fused_open(&p, &l, &f);
            OK(ctx, fused_run(ctx, &f));
            for (int i = 0; i < 12; i++) assert_true(get(&f.dhidden, i / 4, i % 4) == 0);
            assert_true(f.out.value == 0 && f.out.count == 0);
            fused_free(&f);
            layer_free(&l);
            problem_free(&p);
        }
        problem p = random_targets(3, 20, MASK, SLG_SUM);
        for (int c = 0; c < 20; c++) p.mask[c] = 0;
        for (int r = 0; r < 3; r++) p.index[r] = r;
        layer l = random_layer(&p, 4, SLG_F32, CONTIGUOUS);
        l.hidden[5] = NAN;
        fused f;
        fused_open(&p, &l, &f);
        OK(ctx, fused_run(ctx, &f));
        for (int i = 0; i < 12; i++) assert_true(get(&f.dhidden, i / 4, i % 4) == 0);
        for (int i = 0; i < 80; i++) assert_true(get(&f.dweight, i / 4, i % 4) == 0);
        for (int c = 0; c < 20; c++) assert_true(get(&f.dbias, 0, c) == 0);
        assert_true(f.out.value == INFINITY && get(&f.lse, 0, 1) == -INFINITY);
        fused_free(&f);
        layer_free(&l);
        problem_free(&p);
    }
}

/* ---- Subsets of the gradients; memory ---------------------------------------------------- */

static void test_subsets(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    problem p = random_targets(1100, 21, CHOICES - 1, SLG_MEAN);
    layer l = random_layer(&p, 6, SLG_F32, CONTIGUOUS);
    l.has_bias = true;
    fused full, f;
    fused_open(&p, &l, &full);
    OK(ctx, fused_run(ctx, &full));
    for (int set = 0; set < 8; set++) {
        fused_open(&p, &l, &f);
        if (!(set & 1)) f.grad.dhidden = NULL;
        if (!(set & 2)) f.grad.dweight = NULL;
        if (!(set & 4)) f.grad.dbias = NULL;
        OK(ctx, fused_run(ctx, &f));
        if (set & 1)
            assert_memory_equal(f.dhidden.memory, full.dhidden.memory, full.dhidden.bytes);
        if (set & 2)
            assert_memory_equal(f.dweight.memory, full.dweight.memory, full.dweight.bytes);
        if (set & 4) assert_memory_equal(f.dbias.memory, full.dbias.memory, full.dbias.bytes);
        assert_true(f.out.value == full.out.value);
        fused_free(&f);
    }
    fused_free(&full);
    layer_free(&l);
    problem_free(&p);
    slg_ctx_free(ctx);
}

static int64_t peak(int64_t rows, int64_t cols, int64_t dim)
{
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_ctx_info_t info = { .size = sizeof info };
    float *h = calloc((size_t)(rows * dim), sizeof *h),
          *w = calloc((size_t)(cols * dim), sizeof *w);
    float *dh = malloc((size_t)(rows * dim) * sizeof *dh),
          *dw = malloc((size_t)(cols * dim) * sizeof *dw);
    int64_t *index = calloc((size_t)rows, sizeof *index);
    slg_tensor hidden = slg_tensor_2d(h, SLG_F32, rows, dim),
               weight = slg_tensor_2d(w, SLG_F32, cols, dim);
    slg_tensor dhidden = slg_tensor_2d(dh, SLG_F32, rows, dim);
    slg_tensor dweight = slg_tensor_2d(dw, SLG_F32, cols, dim),
               t = slg_tensor_1d(index, SLG_I64, rows);
    slg_logits l;
    slg_targets targets;
    slg_logits_grad g;
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_init(&l, sizeof l);
    slg_targets_init(&targets, sizeof targets);
    slg_logits_grad_init(&g, sizeof g);
    l.hidden = &hidden, l.weight = &weight, targets.index = &t;
    g.dhidden = &dhidden, g.dweight = &dweight;
    OK(ctx, slg_cross_entropy(ctx, &l, &targets, NULL, &out, &g));
    assert_true(fabs(out.value - log((double)cols)) < 1e-5);
    assert_int_equal(slg_ctx_info(ctx, &info), SLG_OK);
    free(h), free(w), free(dh), free(dw), free(index);
    slg_ctx_free(ctx);
    return info.scratch_peak_bytes;
}

/* Scratch is that of a block, at most about 100 MiB, however many rows there are. */
static void test_memory(void **state)
{
    (void)state;
    const int64_t block = 100 << 20, slack = 1 << 20,
                  page = 2 << 20; /* a block of the arena is whole pages */
    int64_t few = peak(640, 30011, 4), many = peak(1800, 30011, 4),
            narrow = peak(9000, 1000, 4);
    assert_true(few <= block + slack + page);
    assert_true(many <= block + slack + page && many - few < slack + page);
    assert_true(narrow <= 1024 * 1000 * 4 + slack + page);
    print_message("scratch: %.1f MiB of %.1f for the whole; %.1f of %.1f\n",
                  (double)many / 0x1p20, 1800.0 * 30011 * 4 / 0x1p20, (double)narrow / 0x1p20,
                  9000.0 * 1000 * 4 / 0x1p20);
}

static int print_worst(void **state)
{
    (void)state;
    print_message("of what is allowed: values %.2f, dhidden %.2f, dweight %.2f, dbias %.2f\n",
                  worst_loss, worst_hidden, worst_weight, worst_bias);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combinations), cmocka_unit_test(test_types),
        cmocka_unit_test(test_sizes),        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_ignored),      cmocka_unit_test(test_nan_row),
        cmocka_unit_test(test_no_classes),   cmocka_unit_test(test_subsets),
        cmocka_unit_test(test_memory),
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, print_worst);
}
