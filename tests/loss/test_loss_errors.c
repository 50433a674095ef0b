/*
 * Errors of slg_cross_entropy that lie in its tensors: types, shapes, strides, memory shared.
 * The code, what the message names, and that neither outputs nor out have changed.
 */
#include "loss_world.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted), cmocka_unit_test(test_null),
        cmocka_unit_test(test_dtype),    cmocka_unit_test(test_shape),
        cmocka_unit_test(test_overflow), cmocka_unit_test(test_stride),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
