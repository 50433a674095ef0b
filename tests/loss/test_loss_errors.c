/*
 * Every error of slg_cross_entropy: its code, what the message names, and that neither outputs
 * nor out have changed. A world is a call that works; each case spoils one thing of it.
 */
#include "loss_test.h"

enum { ROWS = 4, COLS = 6, DIM = 3 };

enum kind { DENSE, PROB, FUSED };

typedef struct world {
    /* Memory of everything; outputs come after. */
    float x[ROWS * COLS], q[ROWS * COLS], row_w[ROWS], class_w[COLS], mask_w[COLS];
    float tau_w[ROWS];
    float hidden_w[ROWS * DIM], weight_w[COLS * DIM], bias_w[COLS];
    int64_t index_w[ROWS];
    struct outputs {
        float dx[ROWS * COLS], loss[ROWS], lse[ROWS], dhidden[ROWS * DIM], dweight[COLS * DIM];
        float dbias[COLS];
    } y;
    slg_tensor dense, prob, index, row_weight, class_weight, mask, hidden, weight, bias;
    slg_tensor row_temperature, dlogits, loss, lse, dhidden, dweight, dbias;
    slg_logits logits;
    slg_targets targets;
    slg_cross_entropy_opts opts;
    slg_loss_out out;
    slg_logits_grad grad;
} world;

static slg_ctx *ctx;
static int cases;

static void world_init(world *w, enum kind kind)
{
    memset(w, 0, sizeof *w);
    for (int i = 0; i < ROWS * COLS; i++)
        w->x[i] = (float)i / 7, w->q[i] = i % COLS == 2 ? 1 : 0;
    for (int i = 0; i < ROWS; i++) w->row_w[i] = w->tau_w[i] = 1, w->index_w[i] = i;
    for (int i = 0; i < COLS; i++) w->class_w[i] = w->mask_w[i] = 1, w->bias_w[i] = 0.5f;
    for (int i = 0; i < ROWS * DIM; i++) w->hidden_w[i] = (float)i / 5;
    for (int i = 0; i < COLS * DIM; i++) w->weight_w[i] = (float)(i % 4);
    memset(&w->y, 0x5A, sizeof w->y);
    w->dense = slg_tensor_2d(w->x, SLG_F32, ROWS, COLS);
    w->prob = slg_tensor_2d(w->q, SLG_F32, ROWS, COLS);
    w->index = slg_tensor_1d(w->index_w, SLG_I64, ROWS);
    w->row_weight = slg_tensor_1d(w->row_w, SLG_F32, ROWS);
    w->class_weight = slg_tensor_1d(w->class_w, SLG_F32, COLS);
    w->mask = slg_tensor_1d(w->mask_w, SLG_F32, COLS);
    w->row_temperature = slg_tensor_1d(w->tau_w, SLG_F32, ROWS);
    w->hidden = slg_tensor_2d(w->hidden_w, SLG_F32, ROWS, DIM);
    w->weight = slg_tensor_2d(w->weight_w, SLG_F32, COLS, DIM);
    w->bias = slg_tensor_1d(w->bias_w, SLG_F32, COLS);
    w->dlogits = slg_tensor_2d(w->y.dx, SLG_F32, ROWS, COLS);
    w->loss = slg_tensor_1d(w->y.loss, SLG_F32, ROWS);
    w->lse = slg_tensor_1d(w->y.lse, SLG_F32, ROWS);
    w->dhidden = slg_tensor_2d(w->y.dhidden, SLG_F32, ROWS, DIM);
    w->dweight = slg_tensor_2d(w->y.dweight, SLG_F32, COLS, DIM);
    w->dbias = slg_tensor_1d(w->y.dbias, SLG_F32, COLS);
    slg_logits_init(&w->logits, sizeof w->logits);
    slg_targets_init(&w->targets, sizeof w->targets);
    slg_cross_entropy_opts_init(&w->opts, sizeof w->opts);
    slg_loss_out_init(&w->out, sizeof w->out);
    slg_logits_grad_init(&w->grad, sizeof w->grad);
    w->logits.mask = &w->mask;
    w->logits.row_temperature = &w->row_temperature;
    w->targets.row_weight = &w->row_weight;
    w->targets.class_weight = &w->class_weight;
    w->out.loss = &w->loss, w->out.lse = &w->lse;
    w->out.value = w->out.sum = w->out.weight = 77, w->out.count = w->out.correct = 77;
    if (kind == PROB)
        w->targets.prob = &w->prob;
    else
        w->targets.index = &w->index;
    if (kind == FUSED) {
        w->logits.hidden = &w->hidden, w->logits.weight = &w->weight, w->logits.bias = &w->bias;
        w->grad.dhidden = &w->dhidden, w->grad.dweight = &w->dweight, w->grad.dbias = &w->dbias;
    } else {
        w->logits.dense = &w->dense;
        w->grad.dlogits = &w->dlogits;
    }
}

/* The call must give `status` and a message that begins with the function's name and holds all
   of the parts, separated by |; and must have written nothing. */
static void refused_call(int line, slg_status want, const char *parts, world *w,
                         const slg_logits *l, const slg_targets *t,
                         const slg_cross_entropy_opts *o, slg_loss_out *out, slg_logits_grad *g)
{
    world before;
    memcpy(&before, w, sizeof before);
    slg_status status = slg_cross_entropy(ctx, l, t, o, out, g);
    const char *message = slg_ctx_message(ctx);
    if (status != want)
        fail_msg("line %d: status %d, should be %d; %s", line, status, want, message);
    if (strncmp(message, "slg_cross_entropy: ", 19) != 0)
        fail_msg("line %d: %s", line, message);
    for (const char *p = parts; *p;) {
        char part[80];
        size_t n = strcspn(p, "|");
        assert_true(n < sizeof part);
        memcpy(part, p, n);
        part[n] = '\0';
        if (!strstr(message, part)) fail_msg("line %d: no '%s' in '%s'", line, part, message);
        p += n + (p[n] == '|');
    }
    if (memcmp(&before, w, sizeof before) != 0)
        fail_msg("line %d: something was written", line);
    cases++;
}

static void accepted_call(int line, world *w)
{
    slg_status status =
        slg_cross_entropy(ctx, &w->logits, &w->targets, &w->opts, &w->out, &w->grad);
    if (status) fail_msg("line %d: %d, %s", line, status, slg_ctx_message(ctx));
    if (w->out.count == 77) fail_msg("line %d: out was not written", line);
}

/* The change is made to a new world w. */
#define REFUSED(kind, status, parts, ...)                                                      \
    do {                                                                                       \
        world w;                                                                               \
        world_init(&w, kind);                                                                  \
        __VA_ARGS__;                                                                           \
        refused_call(__LINE__, status, parts, &w, &w.logits, &w.targets, &w.opts, &w.out,      \
                     &w.grad);                                                                 \
    } while (0)

#define ACCEPTED(kind, ...)                                                                    \
    do {                                                                                       \
        world w;                                                                               \
        world_init(&w, kind);                                                                  \
        __VA_ARGS__;                                                                           \
        accepted_call(__LINE__, &w);                                                           \
    } while (0)

/* The worlds work, with and without what is optional: else the cases below would prove
   nothing. */
static void test_accepted(void **state)
{
    (void)state;
    for (int k = DENSE; k <= FUSED; k++) {
        enum kind kind = (enum kind)k;
        ACCEPTED(kind, (void)0);
        ACCEPTED(kind, w.out.loss = w.out.lse = NULL);
        ACCEPTED(kind, w.logits.mask = NULL; w.logits.row_temperature = NULL;
                 w.targets.row_weight = w.targets.class_weight = NULL);
        ACCEPTED(kind, w.logits.temperature = 1e-3; w.logits.softcap = 1e30);
        ACCEPTED(kind, w.logits.softcap = 1e-30);
        ACCEPTED(kind, w.opts.label_smoothing = 1; w.opts.z_loss = 5);
        ACCEPTED(kind, w.grad.dlogits = NULL;
                 w.grad.dhidden = w.grad.dweight = w.grad.dbias = NULL);
    }
    ACCEPTED(DENSE, w.grad.dlogits = &w.dense);
    ACCEPTED(FUSED, w.grad.accumulate = 1; memset(&w.y, 0, sizeof w.y));
    ACCEPTED(DENSE, w.index_w[1] = -100);
    ACCEPTED(DENSE, w.index_w[1] = w.targets.ignore_index = 3);
    ACCEPTED(DENSE, w.index_w[1] = w.targets.ignore_index = INT64_MIN);
    ACCEPTED(DENSE, w.index_w[0] = 0; w.index_w[1] = COLS - 1);
    ACCEPTED(PROB, w.q[2] = 0.9995f);
    ACCEPTED(PROB, w.targets.ignore_index = 12345);
    ACCEPTED(DENSE, w.row_w[1] = 0; w.class_w[2] = 0; w.mask_w[5] = 0);
    /* Inputs may share memory, and be broadcast. */
    ACCEPTED(PROB, w.prob.stride[0] = 0; w.dense.stride[0] = 0);
    ACCEPTED(PROB, w.logits.dense = &w.prob);
    world w;
    world_init(&w, DENSE);
    assert_int_equal(slg_cross_entropy(ctx, &w.logits, &w.targets, NULL, &w.out, NULL), SLG_OK);
}

static void test_null(void **state)
{
    (void)state;
    world whole;
    world_init(&whole, DENSE);
    assert_int_equal(slg_cross_entropy(NULL, &whole.logits, &whole.targets, &whole.opts,
                                       &whole.out, &whole.grad),
                     SLG_ERR_NULL);
    refused_call(__LINE__, SLG_ERR_NULL, "logits is NULL", &whole, NULL, &whole.targets,
                 &whole.opts, &whole.out, &whole.grad);
    refused_call(__LINE__, SLG_ERR_NULL, "targets is NULL", &whole, &whole.logits, NULL,
                 &whole.opts, &whole.out, &whole.grad);
    refused_call(__LINE__, SLG_ERR_NULL, "out is NULL", &whole, &whole.logits, &whole.targets,
                 &whole.opts, NULL, &whole.grad);

    REFUSED(DENSE, SLG_ERR_NULL, "logits|dense|hidden|weight", w.logits.dense = NULL);
    REFUSED(FUSED, SLG_ERR_NULL, "logits|hidden", w.logits.hidden = NULL);
    REFUSED(FUSED, SLG_ERR_NULL, "logits|weight", w.logits.weight = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "not both", w.logits.hidden = &w.hidden);
    REFUSED(DENSE, SLG_ERR_NULL, "not both", w.logits.weight = &w.weight);
    REFUSED(DENSE, SLG_ERR_NULL, "not both", w.logits.bias = &w.bias);
    REFUSED(FUSED, SLG_ERR_NULL, "not both", w.logits.dense = &w.dense);
    REFUSED(DENSE, SLG_ERR_NULL, "targets|index|prob", w.targets.index = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "targets|index|prob", w.targets.prob = &w.prob);
    REFUSED(DENSE, SLG_ERR_NULL, "targets.teacher", w.targets.teacher = &w.logits);
    REFUSED(DENSE, SLG_ERR_NULL, "grad.dhidden", w.grad.dhidden = &w.dhidden);
    REFUSED(DENSE, SLG_ERR_NULL, "dweight", w.grad.dweight = &w.dweight);
    REFUSED(DENSE, SLG_ERR_NULL, "dbias", w.grad.dbias = &w.dbias);
    REFUSED(FUSED, SLG_ERR_NULL, "grad.dlogits", w.grad.dlogits = &w.dlogits);
    /* Tensors without memory. */
    REFUSED(DENSE, SLG_ERR_NULL, "logits.dense", w.dense.data = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "targets.index", w.index.data = NULL);
    REFUSED(PROB, SLG_ERR_NULL, "targets.prob", w.prob.data = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "targets.row_weight", w.row_weight.data = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "targets.class_weight", w.class_weight.data = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "logits.mask", w.mask.data = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "out.loss", w.loss.data = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "out.lse", w.lse.data = NULL);
    REFUSED(DENSE, SLG_ERR_NULL, "grad.dlogits", w.dlogits.data = NULL);
    REFUSED(FUSED, SLG_ERR_NULL, "logits.hidden", w.hidden.data = NULL);
    REFUSED(FUSED, SLG_ERR_NULL, "logits.weight", w.weight.data = NULL);
    REFUSED(FUSED, SLG_ERR_NULL, "logits.bias", w.bias.data = NULL);
    REFUSED(FUSED, SLG_ERR_NULL, "grad.dhidden", w.dhidden.data = NULL);
    REFUSED(FUSED, SLG_ERR_NULL, "grad.dweight", w.dweight.data = NULL);
    REFUSED(FUSED, SLG_ERR_NULL, "grad.dbias", w.dbias.data = NULL);
}

static void test_dtype(void **state)
{
    (void)state;
    for (int32_t d = SLG_F64; d <= SLG_I64; d++) {
        REFUSED(DENSE, SLG_ERR_DTYPE, "logits.dense", w.dense.dtype = d);
        REFUSED(PROB, SLG_ERR_DTYPE, "targets.prob", w.prob.dtype = d);
        REFUSED(FUSED, SLG_ERR_DTYPE, "logits.hidden", w.hidden.dtype = d);
        REFUSED(FUSED, SLG_ERR_DTYPE, "logits.weight", w.weight.dtype = d);
        REFUSED(FUSED, SLG_ERR_DTYPE, "logits.bias", w.bias.dtype = d);
        REFUSED(DENSE, SLG_ERR_DTYPE, "grad.dlogits", w.dlogits.dtype = d);
        REFUSED(FUSED, SLG_ERR_DTYPE, "grad.dhidden", w.dhidden.dtype = d);
    }
    const int32_t narrow[] = { SLG_BF16, SLG_F16, SLG_I32, SLG_I64 };
    for (int i = 0; i < 4; i++) {
        int32_t d = narrow[i];
        REFUSED(DENSE, SLG_ERR_DTYPE, "targets.row_weight", w.row_weight.dtype = d);
        REFUSED(DENSE, SLG_ERR_DTYPE, "targets.class_weight", w.class_weight.dtype = d);
        REFUSED(DENSE, SLG_ERR_DTYPE, "out.loss", w.loss.dtype = d);
        REFUSED(DENSE, SLG_ERR_DTYPE, "out.lse", w.lse.dtype = d);
        REFUSED(FUSED, SLG_ERR_DTYPE, "grad.dweight", w.dweight.dtype = d);
        REFUSED(FUSED, SLG_ERR_DTYPE, "grad.dbias", w.dbias.dtype = d);
    }
    for (int32_t d = SLG_F32; d <= SLG_F64; d++) {
        REFUSED(DENSE, SLG_ERR_DTYPE, "targets.index", w.index.dtype = d);
        if (d != SLG_F32) REFUSED(DENSE, SLG_ERR_DTYPE, "logits.mask", w.mask.dtype = d);
    }
    REFUSED(DENSE, SLG_ERR_DTYPE, "logits.dense", w.dense.dtype = 6);
    REFUSED(DENSE, SLG_ERR_DTYPE, "logits.dense", w.dense.dtype = -1);
    REFUSED(DENSE, SLG_ERR_DTYPE, "targets.index", w.index.dtype = 1000);
}

static void test_shape(void **state)
{
    (void)state;
    REFUSED(DENSE, SLG_ERR_SHAPE, "targets.index|3|4", w.index.shape[0] = 3);
    REFUSED(DENSE, SLG_ERR_SHAPE, "targets.row_weight|5|4", w.row_weight.shape[0] = 5);
    REFUSED(DENSE, SLG_ERR_SHAPE, "targets.class_weight|4|6", w.class_weight.shape[0] = ROWS);
    REFUSED(DENSE, SLG_ERR_SHAPE, "logits.mask|4|6", w.mask.shape[0] = ROWS);
    REFUSED(DENSE, SLG_ERR_SHAPE, "out.loss|6|4", w.loss.shape[0] = COLS);
    REFUSED(DENSE, SLG_ERR_SHAPE, "out.lse|1|4", w.lse.shape[0] = 1);
    REFUSED(DENSE, SLG_ERR_SHAPE, "grad.dlogits|3|4", w.dlogits.shape[0] = 3);
    REFUSED(DENSE, SLG_ERR_SHAPE, "grad.dlogits|5|6", w.dlogits.shape[1] = 5);
    REFUSED(PROB, SLG_ERR_SHAPE, "targets.prob|5|6", w.prob.shape[1] = 5);
    REFUSED(PROB, SLG_ERR_SHAPE, "targets.prob|2|4", w.prob.shape[0] = 2);
    REFUSED(FUSED, SLG_ERR_SHAPE, "logits.hidden|2|logits.weight|3", w.hidden.shape[1] = 2);
    REFUSED(FUSED, SLG_ERR_SHAPE, "logits.bias|4|6", w.bias.shape[0] = ROWS);
    REFUSED(FUSED, SLG_ERR_SHAPE, "grad.dhidden", w.dhidden.shape[0] = 3);
    REFUSED(FUSED, SLG_ERR_SHAPE, "grad.dweight", w.dweight.shape[1] = 2);
    REFUSED(FUSED, SLG_ERR_SHAPE, "grad.dbias", w.dbias.shape[0] = 4);
    REFUSED(DENSE, SLG_ERR_SHAPE, "logits.dense", w.dense.shape[0] = -1);
    REFUSED(DENSE, SLG_ERR_SHAPE, "logits.dense", w.dense.shape[1] = INT64_MIN);
    /* Numbers of dimensions. */
    const int32_t dims[] = { -1, 0, 1, 3, 4, 5, INT32_MAX };
    for (int i = 0; i < 7; i++) {
        int32_t n = dims[i];
        REFUSED(DENSE, SLG_ERR_SHAPE, "logits.dense", w.dense.ndim = n);
        REFUSED(PROB, SLG_ERR_SHAPE, "targets.prob", w.prob.ndim = n);
        REFUSED(FUSED, SLG_ERR_SHAPE, "logits.hidden", w.hidden.ndim = n);
        REFUSED(FUSED, SLG_ERR_SHAPE, "logits.weight", w.weight.ndim = n);
        REFUSED(DENSE, SLG_ERR_SHAPE, "grad.dlogits", w.dlogits.ndim = n);
        REFUSED(FUSED, SLG_ERR_SHAPE, "grad.dhidden", w.dhidden.ndim = n);
        REFUSED(FUSED, SLG_ERR_SHAPE, "grad.dweight", w.dweight.ndim = n);
        if (n == 1) continue;
        REFUSED(DENSE, SLG_ERR_SHAPE, "targets.index", w.index.ndim = n);
        REFUSED(DENSE, SLG_ERR_SHAPE, "targets.row_weight", w.row_weight.ndim = n);
        REFUSED(DENSE, SLG_ERR_SHAPE, "targets.class_weight", w.class_weight.ndim = n);
        REFUSED(DENSE, SLG_ERR_SHAPE, "logits.mask", w.mask.ndim = n);
        REFUSED(DENSE, SLG_ERR_SHAPE, "out.loss", w.loss.ndim = n);
        REFUSED(DENSE, SLG_ERR_SHAPE, "out.lse", w.lse.ndim = n);
        REFUSED(FUSED, SLG_ERR_SHAPE, "logits.bias", w.bias.ndim = n);
        REFUSED(FUSED, SLG_ERR_SHAPE, "grad.dbias", w.dbias.ndim = n);
    }
}

/* Sizes whose products, or whose strides, overflow: refused before any memory is looked at. */
static void test_overflow(void **state)
{
    (void)state;
    const int64_t sizes[][2] = {
        { INT64_MAX, INT64_MAX }, { INT64_MAX, 2 },
        { 2, INT64_MAX },         { (int64_t)1 << 32, (int64_t)1 << 32 },
        { (int64_t)1 << 62, 1 },  { 3037000500, 3037000500 },
        { INT64_MAX, 0 }
    };
    for (size_t i = 0; i < 6; i++) {
        const int64_t *s = sizes[i];
        REFUSED(DENSE, SLG_ERR_SHAPE, "logits.dense", memcpy(w.dense.shape, s, 16);
                w.dense.stride[0] = s[1]);
        REFUSED(FUSED, SLG_ERR_SHAPE, "logits.", memcpy(w.hidden.shape, s, 16);
                w.hidden.stride[0] = s[1]);
        REFUSED(FUSED, SLG_ERR_SHAPE, "logits.", memcpy(w.weight.shape, s, 16);
                w.weight.stride[0] = s[1]);
    }
    REFUSED(DENSE, SLG_ERR_SHAPE, "logits.dense", w.dense.stride[0] = INT64_MAX);
    REFUSED(DENSE, SLG_ERR_SHAPE, "logits.dense", w.dense.stride[0] = INT64_MIN);
    REFUSED(DENSE, SLG_ERR_SHAPE, "logits.dense", w.dense.stride[1] = INT64_MAX / 4);
    REFUSED(DENSE, SLG_ERR_SHAPE, "targets.index", w.index.stride[0] = INT64_MAX / 2);
    REFUSED(DENSE, SLG_ERR_SHAPE, "grad.dlogits", w.dlogits.stride[0] = INT64_MAX / 8);
    /* What BLAS cannot take: rows that are all the same one, so memory is there. */
    const int64_t many = (int64_t)INT32_MAX + 1;
    REFUSED(FUSED, SLG_ERR_SHAPE, "2147483648|2147483647", w.hidden.shape[0] = many;
            w.hidden.stride[0] = 0);
    REFUSED(FUSED, SLG_ERR_SHAPE, "2147483648|2147483647", w.weight.shape[0] = many;
            w.weight.stride[0] = 0);
    REFUSED(FUSED, SLG_ERR_SHAPE, "2147483648|2147483647",
            w.hidden.shape[1] = w.weight.shape[1] = many;
            w.hidden.stride[1] = w.weight.stride[1] = 0);
}

static void test_stride(void **state)
{
    (void)state;
    /* Outputs whose own elements share memory. */
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits", w.dlogits.stride[0] = 0);
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits", w.dlogits.stride[0] = COLS - 1);
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits", w.dlogits.stride[1] = 0);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.loss", w.loss.stride[0] = 0);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.lse", w.lse.stride[0] = 0);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dhidden", w.dhidden.stride[0] = 0);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dbias", w.dbias.stride[0] = 0);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dweight", w.dweight.stride[0] = 1);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dweight|1, 6|contiguous", w.dweight.stride[0] = 1;
            w.dweight.stride[1] = COLS);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dweight|-3",
            w.dweight.data = w.y.dweight + (COLS - 1) * DIM;
            w.dweight.stride[0] = -DIM);

    /* Gradients over inputs. */
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits|logits.dense", w.dlogits.data = w.x + 1;
            w.dlogits.shape[0] = w.dense.shape[0] = w.index.shape[0] = w.row_weight.shape[0] =
                w.row_temperature.shape[0] = 3;
            w.loss.shape[0] = w.lse.shape[0] = 3);
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits|logits.dense",
            w.dlogits.data = w.x; /* transposed */
            w.dlogits.stride[0] = 1; w.dlogits.stride[1] = ROWS);
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits", w.dlogits.data = w.x;
            w.dlogits.dtype = SLG_BF16);
    REFUSED(PROB, SLG_ERR_STRIDE, "gradient|target", w.dlogits.data = w.q);
    REFUSED(PROB, SLG_ERR_STRIDE, "gradient|target", w.prob.data = w.y.dx + 4 - 4;
            w.prob.stride[0] = 0; memcpy(w.y.dx, w.q, sizeof w.q));
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dhidden|input", w.dhidden.data = w.hidden_w);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dhidden|input", w.dhidden.data = w.hidden_w;
            w.dhidden.dtype = SLG_F16);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dweight|input", w.dweight.data = w.weight_w);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dbias|input", w.dbias.data = w.bias_w);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dbias|input", w.dbias.data = w.mask_w);
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits|mask", w.mask.data = w.y.dx + 2);
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits|row_temperature",
            w.row_temperature.data = w.y.dx + COLS);
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits|row_temperature",
            w.row_temperature.data = w.x + COLS; /* in place: a column of the logits */
            w.row_temperature.stride[0] = COLS / 2; w.dlogits.data = w.x);
    REFUSED(DENSE, SLG_ERR_STRIDE, "grad.dlogits|row_temperature", /* one column */
            w.dense.shape[1] = w.dlogits.shape[1] = w.mask.shape[0] = 1;
            w.class_weight.shape[0] = 1; memset(w.index_w, 0, sizeof w.index_w);
            w.row_temperature.data = w.y.dx; w.row_temperature.stride[0] = COLS);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dhidden|input", w.row_temperature.data = w.y.dhidden);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dweight|input", w.row_temperature.data = w.y.dweight);
    REFUSED(FUSED, SLG_ERR_STRIDE, "grad.dbias|input", w.row_temperature.data = w.y.dbias + 1);
    REFUSED(FUSED, SLG_ERR_STRIDE, "gradient|target", w.dbias.data = w.class_w);
    /* Outputs over each other: also as the very same view. */
    REFUSED(FUSED, SLG_ERR_STRIDE, "overlap", w.dweight.data = w.y.dhidden);
    REFUSED(FUSED, SLG_ERR_STRIDE, "overlap", w.dbias.data = w.y.dweight + 2);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.loss|out.lse", w.lse.data = w.y.loss);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.loss|out.lse", w.lse.data = w.y.loss + 3);
    REFUSED(DENSE, SLG_ERR_STRIDE, "gradient|out.loss", w.loss.data = w.y.dx + 5);
    REFUSED(FUSED, SLG_ERR_STRIDE, "gradient|out.lse", w.lse.data = w.y.dbias);
    REFUSED(FUSED, SLG_ERR_STRIDE, "gradient|out.loss", /* rows == cols: the same view */
            w.hidden.shape[0] = w.index.shape[0] = w.row_weight.shape[0] =
                w.row_temperature.shape[0] = w.dhidden.shape[0] = 3;
            w.weight.shape[0] = w.bias.shape[0] = w.mask.shape[0] = w.class_weight.shape[0] = 3;
            w.dweight.shape[0] = w.dbias.shape[0] = w.loss.shape[0] = w.lse.shape[0] = 3;
            w.loss.data = w.y.dbias);
    /* Losses over inputs. */
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.loss|input", w.loss.data = w.x + 3);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.lse|input", w.lse.data = w.row_w);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.lse|input", w.lse.data = w.index_w);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.lse|input", w.lse.data = w.mask_w);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.lse|input", w.lse.data = w.tau_w);
    REFUSED(DENSE, SLG_ERR_STRIDE, "out.loss|input", w.loss.data = w.tau_w + 1);
    REFUSED(FUSED, SLG_ERR_STRIDE, "out.loss|input", w.loss.data = w.tau_w);
    REFUSED(FUSED, SLG_ERR_STRIDE, "out.lse|input", w.row_temperature.data = w.y.lse);
    REFUSED(PROB, SLG_ERR_STRIDE, "out.loss|input", w.loss.data = w.q);
    REFUSED(FUSED, SLG_ERR_STRIDE, "out.loss|input", w.loss.data = w.hidden_w);
    REFUSED(FUSED, SLG_ERR_STRIDE, "out.loss|input", w.loss.data = w.weight_w + 7);
    REFUSED(FUSED, SLG_ERR_STRIDE, "out.loss|input", w.loss.data = w.bias_w + 1);
}

static void test_options(void **state)
{
    (void)state;
    struct {
        slg_cross_entropy_opts o;
        uint64_t more[2];
    } longer = { .more = { 0, 0 } };
    slg_cross_entropy_opts_init(&longer.o, sizeof longer);
    world whole;
    world_init(&whole, DENSE);
    assert_int_equal(longer.o.size, sizeof longer);
    OK(ctx, slg_cross_entropy(ctx, &whole.logits, &whole.targets, &longer.o, &whole.out,
                              &whole.grad));
    world_init(&whole, DENSE);
    longer.more[1] = 1;
    refused_call(__LINE__, SLG_ERR_OPTIONS, "opts", &whole, &whole.logits, &whole.targets,
                 &longer.o, &whole.out, &whole.grad);
    /* An old program's shorter struct: what it lacks is the default. */
    ACCEPTED(DENSE, w.opts.size = 8; w.opts.z_loss = -1; w.opts.label_smoothing = 7);

    const uint32_t sizes[] = { 0, 1, 7, 4097, UINT32_MAX };
    for (int i = 0; i < 5; i++) {
        REFUSED(DENSE, SLG_ERR_OPTIONS, "logits|size", w.logits.size = sizes[i]);
        REFUSED(DENSE, SLG_ERR_OPTIONS, "targets|size", w.targets.size = sizes[i]);
        REFUSED(DENSE, SLG_ERR_OPTIONS, "opts|size", w.opts.size = sizes[i]);
        REFUSED(DENSE, SLG_ERR_OPTIONS, "out|size", w.out.size = sizes[i]);
        REFUSED(DENSE, SLG_ERR_OPTIONS, "grad|size", w.grad.size = sizes[i]);
    }
    REFUSED(DENSE, SLG_ERR_OPTIONS, "logits.reserved|3", w.logits.reserved = 3);
    REFUSED(DENSE, SLG_ERR_OPTIONS, "targets.reserved|-1", w.targets.reserved = -1);
    REFUSED(DENSE, SLG_ERR_OPTIONS, "out.reserved|5", w.out.reserved = 5);

    const double nothing[] = { -1, NAN, INFINITY, -INFINITY, -1e-300 };
    for (int i = 0; i < 5; i++) {
        double bad = nothing[i];
        REFUSED(DENSE, SLG_ERR_RANGE, "label_smoothing", w.opts.label_smoothing = bad);
        REFUSED(DENSE, SLG_ERR_RANGE, "z_loss", w.opts.z_loss = bad);
        REFUSED(DENSE, SLG_ERR_RANGE, "temperature", w.logits.temperature = bad);
        REFUSED(FUSED, SLG_ERR_RANGE, "softcap", w.logits.softcap = bad);
    }
    REFUSED(DENSE, SLG_ERR_RANGE, "label_smoothing|1.01", w.opts.label_smoothing = 1.01);
    REFUSED(DENSE, SLG_ERR_RANGE, "temperature|0", w.logits.temperature = 0);
    REFUSED(DENSE, SLG_ERR_RANGE, "softcap|1e+39", w.logits.softcap = 1e39);
    REFUSED(DENSE, SLG_ERR_RANGE, "softcap|3e+38",
            w.logits.softcap = 3e38); /* 1 / it is subnormal */
    REFUSED(DENSE, SLG_ERR_RANGE, "softcap|1e-39", w.logits.softcap = 1e-39);
    REFUSED(DENSE, SLG_ERR_RANGE, "reduction|3", w.opts.reduction = 3);
    REFUSED(DENSE, SLG_ERR_RANGE, "reduction|-1", w.opts.reduction = -1);
    REFUSED(FUSED, SLG_ERR_RANGE, "accumulate|4", w.grad.accumulate = 4);
    REFUSED(DENSE, SLG_ERR_RANGE, "accumulate|-1", w.grad.accumulate = -1);
}

static void test_index(void **state)
{
    (void)state;
    const struct {
        int64_t value;
        const char *parts;
    } bad[] = {
        { -1, "targets.index[2] is -1|from 0 to 5|-100" },
        { COLS, "targets.index[2] is 6" },
        { INT64_MIN, "targets.index[2] is -9223372036854775808" },
        { INT64_MAX, "targets.index[2] is 9223372036854775807" },
        { -99, "targets.index[2] is -99" },
        { (int64_t)1 << 32, "targets.index[2] is 4294967296" }, /* 0 in 32 bits */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int k = 0; k < 2; k++)
            REFUSED(k ? FUSED : DENSE, SLG_ERR_RANGE, bad[i].parts,
                    w.index_w[2] = bad[i].value);
    REFUSED(DENSE, SLG_ERR_RANGE, "targets.index[2] is -100|ignore_index 7",
            w.index_w[2] = -100;
            w.targets.ignore_index = 7);
    REFUSED(DENSE, SLG_ERR_RANGE, "targets.index[3] is 6|ignore_index 2", w.index_w[3] = 6;
            w.targets.ignore_index = 2);
    const int32_t narrow[] = { -1, COLS, INT32_MIN, INT32_MAX };
    for (int i = 0; i < 4; i++)
        REFUSED(DENSE, SLG_ERR_RANGE, "targets.index[1]", int32_t v[ROWS] = { 0, 1, 2, 3 };
                v[1] = narrow[i]; memcpy(w.index_w, v, sizeof v); w.index.dtype = SLG_I32);
    /* Beside a matrix without columns each class is out of range. */
    REFUSED(DENSE, SLG_ERR_RANGE, "targets.index[0]", w.dense.shape[1] = w.dlogits.shape[1] = 0;
            w.mask.shape[0] = w.class_weight.shape[0] = 0);
}

static void test_weights(void **state)
{
    (void)state;
    const float bad[] = { -1, -1e-30f, NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 5; i++) {
        REFUSED(DENSE, SLG_ERR_RANGE, "targets.row_weight[3]", w.row_w[3] = bad[i]);
        REFUSED(PROB, SLG_ERR_RANGE, "targets.class_weight[5]", w.class_w[5] = bad[i]);
        /* Also of rows that are ignored: all is checked. */
        REFUSED(DENSE, SLG_ERR_RANGE, "targets.row_weight[0]", w.row_w[0] = bad[i];
                w.index_w[0] = -100);
    }
}

static void test_prob(void **state)
{
    (void)state;
    REFUSED(PROB, SLG_ERR_RANGE, "targets.prob|row 1|0.99", w.q[COLS + 2] = 0.99f);
    REFUSED(PROB, SLG_ERR_RANGE, "targets.prob|row 3|1.002", w.q[3 * COLS + 2] = 1.002f);
    REFUSED(PROB, SLG_ERR_RANGE, "targets.prob|row 0|sums to 0", w.q[2] = 0);
    REFUSED(PROB, SLG_ERR_RANGE, "targets.prob|row 0|sums to inf", w.q[2] = INFINITY);
    for (int at = 0; at < COLS; at++) {
        REFUSED(PROB, SLG_ERR_RANGE, "targets.prob|row 2|NaN", w.q[2 * COLS + at] = NAN);
        REFUSED(PROB, SLG_ERR_RANGE, "targets.prob|row 2|negative", w.q[2 * COLS + at] = -0.25f;
                w.q[2 * COLS + (at + 1) % COLS] += 1.25f);
    }
    /* Rows of several blocks, in any thread's range: the first bad row is named. */
    enum { LONG_ROWS = 40, LONG_COLS = 5000 };
    const int64_t at[] = { 0, 2047, 2048, 4999 };
    slg_ctx *many = context(SLG_ISA_AUTO, 3);
    for (int i = 0; i < 4; i++)
        for (int kind = 0; kind < 3; kind++) {
            tensor x = matrix(SLG_F32, LONG_ROWS, LONG_COLS, CONTIGUOUS);
            tensor q = matrix(SLG_F32, LONG_ROWS, LONG_COLS, CONTIGUOUS);
            tensor dx = matrix(SLG_F32, LONG_ROWS, LONG_COLS, CONTIGUOUS);
            for (int64_t r = 0; r < LONG_ROWS; r++)
                for (int64_t c = 0; c < LONG_COLS; c++) put(&x, r, c, 0), put(&q, r, c, c == 7);
            double value = kind == 0 ? NAN : kind == 1 ? -0.5 : 0.5;
            put(&q, 31, at[i], value), put(&q, 17, at[i], value);
            if (kind == 1) put(&q, 31, 7, 1.5), put(&q, 17, 7, 1.5);
            slg_logits l;
            slg_targets t;
            slg_logits_init(&l, sizeof l);
            slg_targets_init(&t, sizeof t);
            l.dense = &x.t, t.prob = &q.t;
            slg_loss_out out = loss_out(NULL, NULL);
            slg_logits_grad g = dense_grad(&dx.t);
            assert_int_equal(slg_cross_entropy(many, &l, &t, NULL, &out, &g), SLG_ERR_RANGE);
            if (!strstr(slg_ctx_message(many), "row 17")) fail_msg("%s", slg_ctx_message(many));
            for (size_t b = 0; b < dx.bytes; b++) assert_int_equal(dx.memory[b], 0x7E);
            release(&x), release(&q), release(&dx);
        }
    slg_ctx_free(many);
}

/* A context is as good as new after an error. */
static void test_usable_after(void **state)
{
    (void)state;
    world a, b;
    world_init(&a, DENSE);
    accepted_call(__LINE__, &a);
    REFUSED(DENSE, SLG_ERR_RANGE, "temperature", w.logits.temperature = -1);
    world_init(&b, DENSE);
    accepted_call(__LINE__, &b);
    assert_memory_equal(&a.y, &b.y, sizeof a.y);
    assert_string_equal(slg_ctx_message(ctx), "");
}

/* ---- Memory runs out --------------------------------------------------------------------- */

static int left; /* allocations that succeed */

static void *limited_alloc(void *user, size_t alignment, size_t size)
{
    (void)user;
    return left-- > 0 ? aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
                      : NULL;
}

static void limited_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

static void test_memory(void **state)
{
    (void)state;
    slg_ctx_opts o;
    slg_ctx *keep = ctx;
    int refused = 0;
    slg_ctx_opts_init(&o, sizeof o);
    o.alloc = limited_alloc, o.free = limited_free, o.num_threads = 1;
    for (int k = DENSE; k <= FUSED; k++)
        for (int n = 0; n < 50; n++) {
            left = 1000;
            assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
            OK(ctx, slg_ctx_trim(ctx));
            left = n;
            world w, before;
            world_init(&w, (enum kind)k);
            memcpy(&before, &w, sizeof w);
            slg_status status =
                slg_cross_entropy(ctx, &w.logits, &w.targets, &w.opts, &w.out, &w.grad);
            if (status) {
                assert_int_equal(status, SLG_ERR_MEMORY);
                assert_true(strlen(slg_ctx_message(ctx)) > 20);
                assert_memory_equal(&before, &w, sizeof w);
                refused++;
                left = 1000;
                accepted_call(__LINE__, &w);
            }
            slg_ctx_free(ctx);
            if (!status) break;
        }
    ctx = keep;
    assert_true(refused >= 3);
}

static int set_up(void **state)
{
    (void)state;
    ctx = context(SLG_ISA_AUTO, 1);
    return ctx ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    print_message("%d calls refused\n", cases);
    slg_ctx_free(ctx);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),     cmocka_unit_test(test_null),
        cmocka_unit_test(test_dtype),        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_overflow),     cmocka_unit_test(test_stride),
        cmocka_unit_test(test_options),      cmocka_unit_test(test_index),
        cmocka_unit_test(test_weights),      cmocka_unit_test(test_prob),
        cmocka_unit_test(test_usable_after), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
