/*
 * Errors of slg_cross_entropy that lie in values: options, class indices, weights,
 * distributions; and memory that runs out. The code, what the message names, and that nothing
 * has changed.
 */
#include "loss_world.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),      cmocka_unit_test(test_index),
        cmocka_unit_test(test_weights),      cmocka_unit_test(test_prob),
        cmocka_unit_test(test_usable_after), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
