/* slg_squared_softmax: against double arithmetic, its identities and edges. */
#include "loss_test.h"

/* b is p->q where has_prob, else the label's. */
static double target_at(const problem *p, int64_t r, int64_t k)
{
    return p->has_prob ? p->q[r * p->cols + k] : p->index[r] == k;
}

static void reference(const problem *p, int64_t r, const answer *a, double *loss, double *d,
                      double *size)
{
    double s = 0, slope, all = 0;
    *loss = 0;
    for (int64_t k = 0; k < p->cols; k++) {
        double f = exp(transform(p, k, p->x[r * p->cols + k], &slope) - a->lse[r]);
        double b = target_at(p, r, k), c = f - b;
        *loss += c * c / 2;
        s += f * c;
        all += f * (f + fabs(b));
    }
    for (int64_t k = 0; k < p->cols; k++) {
        double f = exp(transform(p, k, p->x[r * p->cols + k], &slope) - a->lse[r]);
        double b = target_at(p, r, k);
        d[k] = f == 0 ? 0 : f * (f - b - s) * slope;
        size[k] = f * (f + fabs(b) + all) / p->temperature;
    }
}

static void one_round(int round, int64_t rows, int64_t cols, int32_t type, worst *w)
{
    problem p = problem_of(rows, cols);
    double *d = zeros(cols, sizeof *d), *size = zeros(cols, sizeof *size), loss;
    p.temperature = round % 4 == 3 ? 0.5 : 1;
    p.softcap = round % 4 == 2 ? 5 : 0;
    for (int64_t i = 0; i < rows * cols; i++) {
        p.x[i] = as_dtype(type, 2 * normal());
        if (i % 37 == 5) p.x[i] = -INFINITY;
    }
    for (int64_t r = 0; r < rows; r++) {
        p.x[r * cols] = 0.5; /* a live class a row */
        p.index[r] = below(cols);
    }
    answer a = answer_of(&p);
    if (round % 2) {
        p.has_prob = true;
        p.q = zeros(rows * cols, sizeof *p.q);
        for (int64_t i = 0; i < rows * cols; i++) p.q[i] = as_dtype(type, normal());
    }
    for (int32_t threads = 1; threads <= 3; threads += 2) FOR_EACH_ISA(ctx, threads)
        {
            operands o;
            operands_of(&p, type, type, SLG_I64, SLG_I32, (enum layout)(round % 4), &o);
            tensor dx = matrix(type, rows, cols, COL_GAPS),
                   losses = vector(SLG_F64, rows, CONTIGUOUS);
            tensor alone = vector(SLG_F64, rows, CONTIGUOUS);
            slg_squared_softmax_opts opts;
            slg_squared_softmax_opts_init(&opts, sizeof opts);
            opts.reduction = SLG_SUM;
            slg_loss_out value = loss_out(&alone.t, NULL), out = loss_out(&losses.t, NULL);
            slg_logits_grad g = dense_grad(round % 3 ? &o.x.t : &dx.t);
            OK(ctx, slg_squared_softmax(ctx, &o.logits, &o.targets, &opts, &value, NULL));
            OK(ctx, slg_squared_softmax(ctx, &o.logits, &o.targets, &opts, &out, &g));
            const tensor *got = round % 3 ? &o.x : &dx;
            const double more = allowance(&p);
            for (int64_t r = 0; r < rows; r++) {
                reference(&p, r, &a, &loss, d, size);
                compare("loss", r, 0, get(&losses, 0, r), loss, 2e-6 * more * (loss + 1e-3),
                        &w->loss);
                assert_true(get(&losses, 0, r) == get(&alone, 0, r));
                for (int64_t k = 0; k < cols; k++)
                    compare("dlogits", r, k, get(got, r, k), d[k],
                            1e-6 * more * size[k] + rounding(type, d[k]), &w->grad);
            }
            release(&dx), release(&losses), release(&alone), operands_free(&o);
        }
    free(d), free(size), answer_free(&a), problem_free(&p);
}

static void test_against_double(void **state)
{
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    worst w = { 0 };
    for (int round = 0; round < 12; round++)
        one_round(round, 5,
                  round < 4   ? 1 + 3 * round
                  : round < 8 ? 300
                              : 5000,
                  types[round % 3], &w);
    (void)state;
}

static void test_edges(void **state)
{
    enum { ROWS = 6, COLS = 2 };
    static const float x[ROWS][COLS] = { { 3e38f, -3e38f },        { 3e38f, 3e38f },
                                         { -INFINITY, 1 },         { NAN, 0 },
                                         { -INFINITY, -INFINITY }, { 7, -INFINITY } };
    static const float b[ROWS][COLS] = { { 0, 1 }, { 1, 0 }, { 3, 1 },
                                         { 1, 0 }, { 1, 0 }, { NAN, 0 } };
    static const double want[ROWS] = { 1, 0.25, 4.5, NAN, INFINITY, NAN };
    double loss[ROWS];
    float d[ROWS][COLS];
    FOR_EACH_ISA(ctx, 1)
    {
        slg_tensor tx = slg_tensor_2d(x, SLG_F32, ROWS, COLS),
                   tb = slg_tensor_2d(b, SLG_F32, ROWS, COLS);
        slg_tensor tl = slg_tensor_1d(loss, SLG_F64, ROWS),
                   td = slg_tensor_2d(d, SLG_F32, ROWS, COLS);
        slg_logits l = slg_logits_dense(&tx);
        slg_targets t = slg_targets_prob(&tb);
        slg_loss_out out = loss_out(&tl, NULL);
        slg_logits_grad g = dense_grad(&td);
        slg_squared_softmax_opts opts;
        slg_squared_softmax_opts_init(&opts, sizeof opts);
        opts.reduction = SLG_SUM;
        OK(ctx, slg_squared_softmax(ctx, &l, &t, &opts, &out, &g));
        double most = 0;
        for (int r = 0; r < ROWS; r++) compare("loss", r, 0, loss[r], want[r], 1e-6, &most);
        assert_true(d[0][0] == 0 && d[0][1] == 0); /* saturated: no gradient, though wrong */
        assert_true(fabs((double)d[1][0] + 0.25) < 1e-6 && fabs((double)d[1][1] - 0.25) < 1e-6);
        assert_true(d[2][0] == 0 && d[4][0] == 0 && isnan(d[3][1]) && isnan(d[5][0]));
        opts.reduction = 7;
        assert_int_equal(slg_squared_softmax(ctx, &l, &t, &opts, &out, &g), SLG_ERR_RANGE);
        opts.reduction = SLG_SUM, t.index = &tl;
        assert_int_equal(slg_squared_softmax(ctx, &l, &t, &opts, &out, &g), SLG_ERR_NULL);
    }
    (void)state;
}

/* The output layer's gradients are those of its logits carried back. */
static void test_fused(void **state)
{
    enum { ROWS = 5, DIM = 3, COLS = 40 };
    tensor h = matrix(SLG_F32, ROWS, DIM, CONTIGUOUS),
           v = matrix(SLG_F32, COLS, DIM, CONTIGUOUS);
    tensor x = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS),
           b = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
    tensor dx = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS),
           dh = matrix(SLG_F32, ROWS, DIM, CONTIGUOUS);
    for (int i = 0; i < ROWS * DIM; i++) put(&h, i / DIM, i % DIM, normal());
    for (int i = 0; i < COLS * DIM; i++) put(&v, i / DIM, i % DIM, normal());
    for (int i = 0; i < ROWS * COLS; i++) {
        double sum = 0;
        for (int j = 0; j < DIM; j++) sum += get(&h, i / COLS, j) * get(&v, i % COLS, j);
        put(&x, i / COLS, i % COLS, sum), put(&b, i / COLS, i % COLS, uniform());
    }
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_logits dense = slg_logits_dense(&x.t), layer = slg_logits_layer(&h.t, &v.t, NULL);
    slg_targets t = slg_targets_prob(&b.t);
    slg_loss_out out = slg_loss_out_none(), fused = out;
    slg_logits_grad g = slg_grad_dense(&dx.t), gl = slg_grad_layer(&dh.t, NULL, NULL);
    OK(ctx, slg_squared_softmax(ctx, &dense, &t, NULL, &out, &g));
    OK(ctx, slg_squared_softmax(ctx, &layer, &t, NULL, &fused, &gl));
    assert_true(fabs(out.value - fused.value) < 1e-6 * out.value);
    for (int i = 0; i < ROWS * DIM; i++) {
        double sum = 0;
        for (int k = 0; k < COLS; k++) sum += get(&dx, i / DIM, k) * get(&v, k, i % DIM);
        assert_true(fabs(sum - get(&dh, i / DIM, i % DIM)) < 1e-6);
    }
    release(&h), release(&v), release(&x), release(&b), release(&dx), release(&dh);
    slg_ctx_free(ctx);
    (void)state;
}

/* The probabilities: of every row, ignored, masked and NaN ones too, in any type and
   layout; the loss and the gradient have the same bits with and without them. */
static void test_prob(void **state)
{
    enum { ROWS = 6, COLS = 1500 };
    static const int32_t types[] = { SLG_F32, SLG_BF16, SLG_F16 };
    for (int round = 0; round < 6; round++) FOR_EACH_ISA(ctx, 1 + round % 3)
        {
            const int32_t type = types[round % 3];
            problem p = problem_of(ROWS, COLS);
            p.temperature = round % 2 ? 0.5 : 1;
            for (int64_t i = 0; i < ROWS * COLS; i++) p.x[i] = 2 * as_dtype(SLG_F32, normal());
            for (int64_t i = 0; i < ROWS * COLS; i++) p.x[i] = as_dtype(SLG_F32, p.x[i]);
            for (int64_t r = 0; r < ROWS; r++) p.index[r] = below(COLS);
            p.index[1] = p.index[4] = p.ignore_index;
            for (int64_t k = 0; k < COLS; k++)
                p.x[2 * COLS + k] = p.x[4 * COLS + k] = -INFINITY;
            p.x[3 * COLS + 7] = NAN, p.x[5] = -INFINITY;
            answer a = answer_of(&p);
            operands o;
            operands_of(&p, SLG_F32, SLG_F32, SLG_I64, SLG_I32, CONTIGUOUS, &o);
            tensor prob = matrix(type, ROWS, COLS, (enum layout)(round % 4)), d[2];
            slg_squared_softmax_opts opts;
            slg_loss_out out[2];
            slg_squared_softmax_opts_init(&opts, sizeof opts);
            for (int with = 0; with < 2; with++) {
                d[with] = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
                out[with] = loss_out(NULL, NULL);
                slg_logits_grad g = dense_grad(&d[with].t);
                opts.prob = with ? &prob.t : NULL;
                OK(ctx, slg_squared_softmax(ctx, &o.logits, &o.targets, &opts, &out[with], &g));
            }
            assert_int_equal(out[0].count, 4);
            assert_memory_equal(&out[0].value, &out[1].value, sizeof(double));
            assert_memory_equal(d[0].memory, d[1].memory, d[0].bytes);
            double most = 0;
            for (int64_t r = 0; r < ROWS; r++)
                for (int64_t k = 0; k < COLS; k++) {
                    const double x = p.x[r * COLS + k];
                    const double lse = a.lse[r];
                    const double want = r == 3             ? NAN
                                        : lse == -INFINITY ? 0
                                                           : exp(x / p.temperature - lse);
                    compare("prob", r, k, get(&prob, r, k), want,
                            1e-6 * want + rounding(type, want), &most);
                }
            opts.prob = &o.x.t;
            assert_int_equal(slg_squared_softmax(ctx, &o.logits, &o.targets, &opts, out, NULL),
                             SLG_ERR_STRIDE);
            opts.prob = &prob.t, prob.t.shape[1] = COLS - 1;
            assert_int_equal(slg_squared_softmax(ctx, &o.logits, &o.targets, &opts, out, NULL),
                             SLG_ERR_SHAPE);
            prob.t.shape[1] = COLS, prob.t.dtype = SLG_F64;
            assert_int_equal(slg_squared_softmax(ctx, &o.logits, &o.targets, &opts, out, NULL),
                             SLG_ERR_DTYPE);
            release(&prob), release(&d[0]), release(&d[1]);
            operands_free(&o), answer_free(&a), problem_free(&p);
        }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_against_double),
                                        cmocka_unit_test(test_edges),
                                        cmocka_unit_test(test_fused),
                                        cmocka_unit_test(test_prob) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
