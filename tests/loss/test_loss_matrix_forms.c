/*
 * What must not matter to any loss: where its operands lie and of what type they are, whether
 * logits are a matrix or a layer, the number of threads. And what every loss refuses.
 */
#include "loss_matrix.h"

void openblas_set_num_threads(int threads); /* cblas.h is not in every include path */

/* ---- Forms ------------------------------------------------------------------------------- */

/* Against the plain call: a gradient added to ones, or rounded to a type. */
static void check_rounded(const entry *e, const char *what, const result *a, const result *b,
                          int32_t type, bool added)
{
    for (int64_t r = 0; r < a->rows; r++)
        if (!alike(a->loss[r], b->loss[r])) fail_msg("%s, %s: loss", e->name, what);
    for (int64_t i = 0; i < a->rows * a->cols; i++) {
        double want = a->d[i] + added, want_t = a->dt[i] + (added && (e->is & TEACHER_GRAD));
        if (!alike(b->d[i], as_dtype(type, want)))
            close_to(e, what, b->d[i], want, 1, rounding(type, want) * 1.001);
        close_to(e, what, b->dt[i], want_t, 1, rounding(type, want_t) * 1.001);
    }
}

static void check_forms(slg_ctx *ctx, const entry *e, int64_t rows, int64_t cols)
{
    world w = world_of(rows, cols);
    if (e->is & INDEX) w.index[2] = -100;
    result a = run(ctx, e, &w, &plain), b;
    static const struct {
        const char *what;
        form f;
    } forms[] = {
        { "in place", { .in_place = true } },
        { "gaps between columns", { .layout = COL_GAPS } },
        { "gaps between rows", { .layout = ROW_GAPS } },
        { "upside down", { .layout = UPSIDE_DOWN } },
        { "gaps, in place", { .layout = COL_GAPS, .in_place = true } },
        { "bf16", { .type = SLG_BF16 } },
        { "f16, gaps", { .type = SLG_F16, .layout = COL_GAPS } },
    };
    for (int64_t i = 0; i < COUNT(forms); i++) {
        b = run(ctx, e, &w, &forms[i].f);
        same(e, forms[i].what, &a, &b);
        result_free(&b);
    }
    b = run(ctx, e, &w, &(form){ .no_grad = true });
    for (int64_t r = 0; r < rows; r++)
        if (a.loss[r] != b.loss[r]) fail_msg("%s: loss without gradient", e->name);
    assert_true(a.out.value == b.out.value && a.out.correct == b.out.correct);
    result_free(&b);
    static const struct {
        const char *what;
        form f;
    } rounded[] = {
        { "accumulated", { .accumulate = true, .grad_type = SLG_F32 } },
        { "gradient in bf16", { .grad_type = SLG_BF16 } },
        { "all bf16, in place",
          { .type = SLG_BF16, .grad_type = SLG_BF16, .layout = ROW_GAPS, .in_place = true } },
        { "all f16", { .type = SLG_F16, .grad_type = SLG_F16, .layout = UPSIDE_DOWN } },
    };
    for (int64_t i = 0; i < COUNT(rounded); i++) {
        b = run(ctx, e, &w, &rounded[i].f);
        check_rounded(e, rounded[i].what, &a, &b, rounded[i].f.grad_type,
                      rounded[i].f.accumulate);
        result_free(&b);
    }
    result_free(&a), world_free(&w);
}

static void test_forms(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    FOR_EACH_LOSS(e)
    {
        check_forms(ctx, e, 7, 37);
        check_forms(ctx, e, 3, 2100);
    }
}

/* ---- Fused ------------------------------------------------------------------------------- */

enum { DIM = 8 };

/* A layer whose product is exact in float32 in any order. */
typedef struct layer {
    tensor hidden, weight, bias, dhidden, dweight, dbias;
} layer;

static layer layer_of(int64_t rows, int64_t cols, double *logits)
{
    layer a = { matrix(SLG_F32, rows, DIM, CONTIGUOUS), matrix(SLG_F32, cols, DIM, CONTIGUOUS),
                vector(SLG_F32, cols, CONTIGUOUS),      matrix(SLG_F32, rows, DIM, CONTIGUOUS),
                matrix(SLG_F32, cols, DIM, CONTIGUOUS), vector(SLG_F32, cols, CONTIGUOUS) };
    for (int64_t i = 0; i < rows * DIM; i++)
        put(&a.hidden, i / DIM, i % DIM, coarse(normal(), 1.0 / 8));
    for (int64_t i = 0; i < cols * DIM; i++)
        put(&a.weight, i / DIM, i % DIM, coarse(normal(), 1.0 / 4));
    for (int64_t c = 0; c < cols; c++) put(&a.bias, 0, c, coarse(normal(), 1.0 / 4));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double z = get(&a.bias, 0, c);
            for (int i = 0; i < DIM; i++) z += get(&a.hidden, r, i) * get(&a.weight, c, i);
            logits[r * cols + c] = z;
        }
    return a;
}

static void layer_free(layer *a)
{
    release(&a->hidden), release(&a->weight), release(&a->bias);
    release(&a->dhidden), release(&a->dweight), release(&a->dbias);
}

/* Gradients of a layer, from those of its logits: products are summed in float32. */
static void check_layer(const entry *e, const layer *a, const double *d, int64_t rows,
                        int64_t cols)
{
    for (int64_t r = 0; r < rows; r++)
        for (int i = 0; i < DIM; i++) {
            double sum = 0, size = 1e-30;
            for (int64_t c = 0; c < cols; c++) {
                double term = d[r * cols + c] * get(&a->weight, c, i);
                sum += term, size += fabs(term);
            }
            close_to(e, "dhidden", get(&a->dhidden, r, i), sum, size, 4e-6);
        }
    for (int64_t c = 0; c < cols; c++)
        for (int i = 0; i <= DIM; i++) {
            double sum = 0, size = 1e-30;
            for (int64_t r = 0; r < rows; r++) {
                double term = d[r * cols + c] * (i < DIM ? get(&a->hidden, r, i) : 1);
                sum += term, size += fabs(term);
            }
            double got = i < DIM ? get(&a->dweight, c, i) : get(&a->dbias, 0, c);
            close_to(e, i < DIM ? "dweight" : "dbias", got, sum, size, 4e-6);
        }
}

/* The loss of two layers; losses and what is beside them to loss_of [2, rows]. */
static void run_fused(slg_ctx *ctx, const entry *e, const world *w, layer *x, layer *t,
                      double *loss_of, slg_loss_out *out)
{
    operand_set o;
    dense_operands(e, w, &(form){ .type = SLG_F32 }, &o);
    tensor loss = vector(SLG_F64, w->rows, CONTIGUOUS);
    *out = loss_out(&loss.t, NULL);
    slg_logits_grad g = slg_grad_layer(&x->dhidden.t, &x->dweight.t, &x->dbias.t);
    slg_logits_grad tg = slg_grad_layer(&t->dhidden.t, &t->dweight.t, &t->dbias.t);
    slg_logits l = slg_logits_layer(&x->hidden.t, &x->weight.t, &x->bias.t);
    o.teacher = slg_logits_layer(&t->hidden.t, &t->weight.t, &t->bias.t);
    slg_tensor extra_of_rows = slg_tensor_1d(loss_of + w->rows, SLG_F64, w->rows);
    extra = &extra_of_rows;
    OK(ctx, e->call(ctx, &l, &o.targets, w->reduction, out, &g, &tg));
    for (int64_t r = 0; r < w->rows; r++) loss_of[r] = get(&loss, 0, r);
    release(&loss), operand_set_free(&o), out->loss = NULL, extra = NULL;
}

static void test_fused(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = { { 9, 37 }, { 5, 2100 }, { 300, 20 } };
    FOR_EACH_ISA(ctx, 2)
    FOR_EACH_LOSS(e)
    for (int64_t i = 0; i < COUNT(sizes) - (e->call == expected_reward); i++) {
        const int64_t rows = sizes[i][0], cols = sizes[i][1];
        world w = world_of(rows, cols);
        layer x = layer_of(rows, cols, w.x), t = layer_of(rows, cols, w.y);
        double *loss = zeros(2 * rows, sizeof *loss);
        slg_loss_out out;
        result y = run(ctx, e, &w, &plain);
        run_fused(ctx, e, &w, &x, &t, loss, &out);
        for (int64_t r = 0; r < rows; r++)
            if (loss[r] != y.loss[r] || loss[rows + r] != y.extra[r])
                fail_msg("%s: fused loss[%d]", e->name, (int)r);
        if (out.value != y.out.value || out.correct != y.out.correct)
            fail_msg("%s: fused value %.17g, %.17g, correct %d, %d", e->name, out.value,
                     y.out.value, (int)out.correct, (int)y.out.correct);
        check_layer(e, &x, y.d, rows, cols);
        if (e->is & TEACHER_GRAD) check_layer(e, &t, y.dt, rows, cols);
        free(loss), layer_free(&x), layer_free(&t), result_free(&y), world_free(&w);
    }
}

/* ---- Threads ----------------------------------------------------------------------------- */

static void same_memory(const entry *e, int threads, const tensor *a, const tensor *b)
{
    if (memcmp(a->memory, b->memory, a->bytes) != 0)
        fail_msg("%s, %d threads: a fused gradient differs", e->name, threads);
}

static void test_threads(void **state)
{
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    static const int64_t sizes[][2] = { { 23, 2100 }, { 60, 19 } };
    FOR_EACH_LOSS(e)
    for (int64_t i = 0; i < COUNT(sizes); i++) {
        const int64_t rows = sizes[i][0], cols = sizes[i][1];
        result y[4];
        layer x[4], t[4];
        double *loss = zeros(8 * rows, sizeof *loss);
        slg_loss_out out[4];
        uint64_t start = seed;
        for (int j = 0; j < 4; j++) {
            slg_ctx *ctx = context(SLG_ISA_AUTO, threads[j]);
            seed = start;
            world w = world_of(rows, cols);
            w.reduction = SLG_MEAN;
            y[j] = run(ctx, e, &w, &plain);
            x[j] = layer_of(rows, cols, w.x), t[j] = layer_of(rows, cols, w.y);
            run_fused(ctx, e, &w, &x[j], &t[j], loss + 2 * j * rows, &out[j]);
            same(e, "threads", &y[0], &y[j]);
            assert_memory_equal(loss, loss + 2 * j * rows, 2 * (size_t)rows * sizeof *loss);
            assert_memory_equal(&out[0], &out[j], sizeof *out);
            same_memory(e, threads[j], &x[0].dhidden, &x[j].dhidden);
            same_memory(e, threads[j], &x[0].dweight, &x[j].dweight);
            same_memory(e, threads[j], &x[0].dbias, &x[j].dbias);
            same_memory(e, threads[j], &t[0].dhidden, &t[j].dhidden);
            world_free(&w), slg_ctx_free(ctx);
        }
        for (int j = 0; j < 4; j++) result_free(&y[j]), layer_free(&x[j]), layer_free(&t[j]);
        free(loss);
    }
}

/* ---- Errors ------------------------------------------------------------------------------ */

enum { BAD_ROWS = 4, BAD_COLS = 7 };

typedef struct attempt {
    slg_ctx *ctx;
    const entry *e;
    operand_set o;
    tensor loss, d, dt;
    slg_loss_out out;
    slg_logits_grad g, tg;
    int32_t reduction;
} attempt;

static void attempt_free(attempt *a)
{
    operand_set_free(&a->o);
    release(&a->loss), release(&a->d), release(&a->dt);
}

static void attempt_init(attempt *a)
{
    world w = world_of(BAD_ROWS, BAD_COLS);
    dense_operands(a->e, &w, &(form){ .type = SLG_F32 }, &a->o);
    a->loss = vector(SLG_F32, BAD_ROWS, CONTIGUOUS);
    a->d = matrix(SLG_F32, BAD_ROWS, BAD_COLS, CONTIGUOUS);
    a->dt = matrix(SLG_F32, BAD_ROWS, BAD_COLS, CONTIGUOUS);
    a->out = loss_out(&a->loss.t, NULL), a->g = dense_grad(&a->d.t),
    a->tg = dense_grad(&a->dt.t);
    a->reduction = SLG_SUM;
    world_free(&w);
}

/* The call is refused with a message, and nothing was written. */
static void refused(attempt *a, const char *what, slg_status want)
{
    slg_status status =
        a->e->call(a->ctx, &a->o.logits, &a->o.targets, a->reduction, &a->out, &a->g, &a->tg);
    const tensor *t[] = { &a->loss, &a->d, &a->dt };
    if (status != want)
        fail_msg("%s, %s: %d, %s", a->e->name, what, status, slg_ctx_message(a->ctx));
    if (strncmp(slg_ctx_message(a->ctx), "slg_", 4) != 0) fail_msg("%s, %s", a->e->name, what);
    for (int i = 0; i < 3; i++)
        for (size_t b = 0; b < t[i]->bytes; b++)
            if (t[i]->memory[b] != 0x7E) fail_msg("%s, %s: written", a->e->name, what);
}

#define REFUSED(status, what, ...)                                                             \
    do {                                                                                       \
        attempt a = { .ctx = ctx, .e = e };                                                    \
        attempt_init(&a);                                                                      \
        __VA_ARGS__;                                                                           \
        refused(&a, what, status);                                                             \
        attempt_free(&a);                                                                      \
    } while (0)

static void check_target_errors(slg_ctx *ctx, const entry *e)
{
    tensor f32 = vector(SLG_F32, BAD_ROWS, CONTIGUOUS), longer = vector(SLG_I64, 9, CONTIGUOUS);
    tensor wide = matrix(SLG_F32, BAD_ROWS, BAD_COLS + 1, CONTIGUOUS);
    slg_logits other = slg_logits_dense(&wide.t);
    if (e->is & INDEX) {
        REFUSED(SLG_ERR_SHAPE, "long index", a.o.targets.index = &longer.t);
        REFUSED(SLG_ERR_DTYPE, "index of floats", a.o.targets.index = &f32.t);
        REFUSED(SLG_ERR_RANGE, "index of cols", put(&a.o.index, 0, 3, BAD_COLS));
        REFUSED(SLG_ERR_RANGE, "index of -1", put(&a.o.index, 0, 1, -1));
    } else {
        REFUSED(SLG_ERR_SHAPE, "long row_weight", a.o.targets.row_weight = &longer.t;
                longer.t.dtype = SLG_F32);
    }
    if (e->is & PROB)
        REFUSED(SLG_ERR_SHAPE, "wide prob", a.o.targets.prob = &wide.t);
    else
        REFUSED(SLG_ERR_NULL, "prob beside the target", a.o.targets.prob = &a.o.q.t);
    if (e->is & TEACHER) {
        REFUSED(SLG_ERR_NULL, "no teacher", a.o.targets.teacher = NULL);
        REFUSED(SLG_ERR_SHAPE, "wide teacher", a.o.targets.teacher = &other);
    }
    REFUSED(SLG_ERR_RANGE, "row_weight of -1", put(&a.o.row_weight, 0, 2, -1));
    if (e->is & CLASS_WEIGHT)
        REFUSED(SLG_ERR_RANGE, "class_weight of NaN", put(&a.o.class_weight, 0, 2, NAN));
    release(&f32), release(&longer), release(&wide);
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    tensor wide = matrix(SLG_F32, BAD_ROWS, BAD_COLS + 1, CONTIGUOUS);
    tensor lse = vector(SLG_F32, BAD_ROWS, CONTIGUOUS);
    FOR_EACH_LOSS(e)
    {
        check_target_errors(ctx, e);
        REFUSED(SLG_ERR_NULL, "no logits", a.o.logits.dense = NULL);
        REFUSED(SLG_ERR_DTYPE, "logits of integers", a.o.x.t.dtype = SLG_I32);
        REFUSED(SLG_ERR_RANGE, "reduction", a.reduction = 7);
        REFUSED(SLG_ERR_SHAPE, "wide gradient", a.g.dlogits = &wide.t);
        REFUSED(SLG_ERR_STRIDE, "gradient that overlaps itself", a.d.t.stride[0] = 1);
        REFUSED(SLG_ERR_STRIDE, "loss over logits", a.loss.t.data = a.o.x.t.data);
        REFUSED(SLG_ERR_RANGE, "temperature 0", a.o.logits.temperature = 0);
        if (e->is & TEACHER_GRAD)
            REFUSED(SLG_ERR_STRIDE, "both gradients in one", a.tg.dlogits = &a.d.t);
        if (e->is & NO_MASK)
            REFUSED(SLG_ERR_UNSUPPORTED, "mask", a.o.logits.mask = &a.o.mask.t);
        if (e->is & NO_LSE) {
            attempt a = { .ctx = ctx, .e = e };
            attempt_init(&a);
            a.out.lse = &lse.t;
            assert_true(e->call(ctx, &a.o.logits, &a.o.targets, SLG_SUM, &a.out, &a.g, NULL) <
                        0);
            attempt_free(&a);
        }
    }
    release(&wide), release(&lse), slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_fused),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_errors),
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
