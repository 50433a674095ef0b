/*
 * What attention refuses, with what words, and that nothing is written then.
 */
#include "attention_test.h"

static void expect_refused(slg_ctx *ctx, trial *t, slg_status status, const char *text)
{
    t->y.x[0][0] = 42, t->y.x[3][0] = 42;
    assert_int_equal(slg_attention(ctx, &t->c.in, &t->c.opts, &t->y.out), status);
    if (!strstr(slg_ctx_message(ctx), text))
        fail_msg("\"%s\" lacks \"%s\"", slg_ctx_message(ctx), text);
    assert_int_equal(
        slg_attention_backward(ctx, &t->c.in, &t->c.opts, &t->y.out, &t->y.dout, &t->y.grad),
        status);
    assert_true(t->y.x[0][0] == 42 && t->y.x[3][0] == 42);
}

/* Does `change` to a fresh trial and expects both calls to refuse it. */
#define REFUSED(status, text, ...)                                                             \
    do {                                                                                       \
        trial t;                                                                               \
        trial_open(&t, &s);                                                                    \
        __VA_ARGS__;                                                                           \
        expect_refused(ctx, &t, status, text);                                                 \
        trial_close(&t);                                                                       \
    } while (0)

static void test_refused(void **state)
{
    static const setting s = { "refused", 2, 4, 2, 6, 8, 3, 5, .bias = BIAS_FULL };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    REFUSED(SLG_ERR_NULL, "q is NULL", t.c.in.q = NULL);
    REFUSED(SLG_ERR_NULL, "o is NULL", t.y.out.o = NULL);
    REFUSED(SLG_ERR_SHAPE, "not a multiple of the 3 of k",
            t.c.t[1].shape[1] = t.c.t[2].shape[1] = 3,
            t.c.t[1].shape[0] = t.c.t[2].shape[0] = 2);
    REFUSED(SLG_ERR_SHAPE, "k has shape", t.c.t[1].shape[3] = 2);
    REFUSED(SLG_ERR_SHAPE, "v has shape", t.c.t[2].shape[2] = 7);
    REFUSED(SLG_ERR_SHAPE, "dimensions", t.c.t[2].ndim = 3);
    REFUSED(SLG_ERR_SHAPE, "there are 5 keys for 6 queries",
            t.c.t[1].shape[2] = t.c.t[2].shape[2] = t.c.t[10].shape[3] = 5);
    REFUSED(SLG_ERR_RANGE, "window[2] is -1", t.c.windows[2] = -1);
    REFUSED(SLG_ERR_SHAPE, "window", t.c.t[3].shape[0] = 3);
    REFUSED(SLG_ERR_SHAPE, "bias", t.c.t[10].shape[1] = 2);
    REFUSED(SLG_ERR_DTYPE, "q has dtype", t.c.t[0].dtype = SLG_I32);
    REFUSED(SLG_ERR_RANGE, "slopes[1] is", t.c.in.slopes = &t.c.t[4], t.c.slopes[1] = INFINITY);
    REFUSED(SLG_ERR_RANGE, "key_length[1] is 9", t.c.in.key_length = &t.c.t[8],
            t.c.lengths[0] = 1, t.c.lengths[1] = 9);
    REFUSED(SLG_ERR_NULL, "key_offsets is NULL", t.c.in.query_offsets = &t.c.t[11]);
    REFUSED(SLG_ERR_SHAPE, "batch is 2",
            t.c.in.query_offsets = t.c.in.key_offsets = &t.c.t[11]);
    REFUSED(SLG_ERR_NULL, "rng is NULL", t.c.opts.dropout = 0.5);
    REFUSED(SLG_ERR_RANGE, "dropout is 1", t.c.opts.dropout = 1);
    REFUSED(SLG_ERR_RANGE, "softcap is -1", t.c.opts.softcap = -1);
    REFUSED(SLG_ERR_RANGE, "scale is", t.c.opts.scale = NAN);
    REFUSED(SLG_ERR_RANGE, "causal is 2", t.c.opts.causal = 2);
    REFUSED(SLG_ERR_OPTIONS, "must be 0 where scale is given", t.c.opts.scale = 1,
            t.c.in.scale = &t.c.t[6]);
    REFUSED(SLG_ERR_OPTIONS, "reserved", t.c.in.reserved = 1);
    REFUSED(SLG_ERR_OPTIONS, "out.reserved", t.y.out.reserved = 1);
    REFUSED(SLG_ERR_OPTIONS, "opts", t.c.opts.size = 4);
    REFUSED(SLG_ERR_SHAPE, "o has shape", t.y.t[0].shape[3] = 4);
    REFUSED(SLG_ERR_SHAPE, "lse has shape", t.y.t[1].shape[2] = 5);
    slg_ctx_free(ctx);
}

/* Of one call alone. */
static void test_refused_outputs(void **state)
{
    static const setting s = { "refused", 1, 2, 2, 6, 6, 3, 3, .window = { 0 } };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    trial t;
    trial_open(&t, &s);
    trial_run(ctx, &t, true);
    t.y.t[0].data = t.c.q;
    assert_int_equal(slg_attention(ctx, &t.c.in, &t.c.opts, &t.y.out), SLG_ERR_STRIDE);
    t.y.t[0].data = t.y.x[0];
    t.y.t[0].stride[2] = 1;
    assert_int_equal(slg_attention(ctx, &t.c.in, &t.c.opts, &t.y.out), SLG_ERR_STRIDE);
    t.y.t[0].stride[2] = 3;
#define BACKWARD slg_attention_backward(ctx, &t.c.in, &t.c.opts, &t.y.out, &t.y.dout, &t.y.grad)
    t.y.t[3].data = t.c.q;
    assert_int_equal(BACKWARD, SLG_ERR_STRIDE);
    t.y.t[3].data = t.y.x[4];
    assert_int_equal(BACKWARD, SLG_ERR_STRIDE);
    t.y.t[3].data = t.c.dout;
    assert_int_equal(BACKWARD, SLG_ERR_STRIDE);
    t.y.t[3].data = t.y.x[3];
    t.y.grad.dbias = &t.y.t[6];
    assert_int_equal(BACKWARD, SLG_ERR_NULL);
    t.y.grad.dbias = NULL;
    t.y.grad.dsinks = &t.y.t[7];
    assert_int_equal(BACKWARD, SLG_ERR_NULL);
    t.y.grad.dsinks = NULL;
    t.y.out.lse = NULL;
    assert_int_equal(BACKWARD, SLG_ERR_NULL);
    t.y.out.lse = &t.y.t[1];
    assert_int_equal(BACKWARD, SLG_OK);
    assert_int_equal(slg_attention(NULL, &t.c.in, &t.c.opts, &t.y.out), SLG_ERR_NULL);
    assert_int_equal(slg_attention(ctx, NULL, NULL, &t.y.out), SLG_ERR_NULL);
    assert_int_equal(slg_attention(ctx, &t.c.in, NULL, NULL), SLG_ERR_NULL);
    trial_close(&t);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_refused),
                                        cmocka_unit_test(test_refused_outputs) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
