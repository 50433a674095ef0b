/*
 * What optimizers refuse, that nothing has changed then, and memory that runs out.
 */
#include "optimizer_test.h"

static void test_create_errors(void **state)
{
    rule = *state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_optimizer *o = (slg_optimizer *)(uintptr_t)1;
    assert_int_equal(slg_optimizer_create(NULL, rule->kind, 4, NULL, &o), SLG_ERR_NULL);
    assert_int_equal(slg_optimizer_create(ctx, rule->kind, 4, NULL, NULL), SLG_ERR_NULL);
    const int32_t kinds[] = { 0, -1, 1000, INT32_MAX, INT32_MIN };
    for (int i = 0; i < 5; i++) {
        o = (slg_optimizer *)(uintptr_t)1;
        expect_error(ctx, __LINE__, slg_optimizer_create(ctx, kinds[i], 4, NULL, &o),
                     SLG_ERR_RANGE, "slg_optimizer_create: ", "kind");
        assert_null(o);
    }
    const int64_t sizes[] = { -1, INT64_MIN, INT64_MAX, INT64_MAX / 4 };
    for (int i = 0; i < 4; i++)
        expect_error(ctx, __LINE__, slg_optimizer_create(ctx, rule->kind, sizes[i], NULL, &o),
                     SLG_ERR_RANGE, "slg_optimizer_create: ", "n is ");
    const uint32_t opts_sizes[] = { 0, 7, 5000 };
    for (int i = 0; i < 3; i++) {
        uint32_t opts[64] = { opts_sizes[i] };
        expect_error(ctx, __LINE__, slg_optimizer_create(ctx, rule->kind, 4, opts, &o),
                     SLG_ERR_OPTIONS, "slg_optimizer_create: ", "opts");
    }
    slg_ctx_free(ctx);
}

/* Steps that are refused: weights, state and the count of steps stay. */
static void test_step_errors(void **state)
{
    rule = *state;
    enum { N = 12 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    slg_optimizer *o = create(ctx, N, 0);
    float w[N + 8], dw[N + 8], kept[N + 8];
    for (int i = 0; i < N + 8; i++) w[i] = (float)normal(), dw[i] = (float)normal();
    OK(ctx, step(o, w, dw, N));
    memcpy(kept, w, sizeof w);
    int64_t bytes, bytes_after;
    unsigned char *before = export_state(ctx, o, &bytes);
    const char *const op = "slg_optimizer_step";
    slg_tensor a, b;
#define STEP_REFUSED(status, part, ...)                                                        \
    do {                                                                                       \
        a = slg_tensor_1d(w, SLG_F32, N), b = slg_tensor_1d(dw, SLG_F32, N);                   \
        __VA_ARGS__;                                                                           \
        expect_error(ctx, __LINE__, slg_optimizer_step(o, &a, &b), status, op, part);          \
    } while (0)
    a = slg_tensor_1d(w, SLG_F32, N), b = slg_tensor_1d(dw, SLG_F32, N);
    assert_int_equal(slg_optimizer_step(NULL, &a, &b), SLG_ERR_NULL);
    expect_error(ctx, __LINE__, slg_optimizer_step(o, NULL, &b), SLG_ERR_NULL, op, "w");
    expect_error(ctx, __LINE__, slg_optimizer_step(o, &a, NULL), SLG_ERR_NULL, op, "dw");
    STEP_REFUSED(SLG_ERR_NULL, "w", a.data = NULL);
    STEP_REFUSED(SLG_ERR_NULL, "dw", b.data = NULL);
    for (int32_t d = SLG_BF16; d <= SLG_I64; d++) {
        STEP_REFUSED(SLG_ERR_DTYPE, "w", a.dtype = d);
        STEP_REFUSED(SLG_ERR_DTYPE, "dw", b.dtype = d);
    }
    STEP_REFUSED(SLG_ERR_SHAPE, "w", a.ndim = 0);
    STEP_REFUSED(SLG_ERR_SHAPE, "dw", b.ndim = 5);
    STEP_REFUSED(SLG_ERR_SHAPE, "dw", b.shape[0] = N - 1);
    STEP_REFUSED(SLG_ERR_SHAPE, "dw", b = slg_tensor_2d(dw, SLG_F32, 3, 4));
    STEP_REFUSED(SLG_ERR_SHAPE, "11 elements", a.shape[0] = b.shape[0] = 11);
    STEP_REFUSED(SLG_ERR_SHAPE, "13", a.shape[0] = b.shape[0] = 13);
    STEP_REFUSED(SLG_ERR_SHAPE, "0 elements", a.shape[0] = b.shape[0] = 0);
    STEP_REFUSED(SLG_ERR_SHAPE, "w", a.shape[0] = b.shape[0] = INT64_MAX);
    STEP_REFUSED(SLG_ERR_SHAPE, "w", a.shape[0] = -N);
    STEP_REFUSED(SLG_ERR_STRIDE, "contiguous", a.shape[0] = b.shape[0] = N / 2;
                 a.stride[0] = 2);
    STEP_REFUSED(SLG_ERR_STRIDE, "contiguous", b.stride[0] = 0);
    STEP_REFUSED(SLG_ERR_STRIDE, "contiguous", b.data = dw + N - 1; b.stride[0] = -1);
    STEP_REFUSED(SLG_ERR_STRIDE, "w", a.stride[0] = 0);
    STEP_REFUSED(SLG_ERR_STRIDE, "overlap", b.data = w);
    STEP_REFUSED(SLG_ERR_STRIDE, "overlap", b.data = w + 3);
#undef STEP_REFUSED
    /* The last of a list is bad: the first must not have been updated. */
    slg_tensor parts[2] = { slg_tensor_1d(w, SLG_F32, 5),
                            slg_tensor_1d(w + 5, SLG_F32, N - 5) };
    slg_tensor grads[2] = { slg_tensor_1d(dw, SLG_F32, 5),
                            slg_tensor_1d(dw + 5, SLG_F32, N - 5) };
    slg_tensor *wp[2] = { &parts[0], &parts[1] };
    const slg_tensor *dwp[2] = { &grads[0], &grads[1] };
    grads[1].dtype = SLG_F16;
    expect_error(ctx, __LINE__, slg_optimizer_step_list(o, 2, wp, dwp), SLG_ERR_DTYPE, op,
                 "dw");
    grads[1].dtype = SLG_F32;
    expect_error(ctx, __LINE__, slg_optimizer_step_list(o, 1, wp, dwp), SLG_ERR_SHAPE, op, "5");
    wp[1] = NULL;
    expect_error(ctx, __LINE__, slg_optimizer_step_list(o, 2, wp, dwp), SLG_ERR_NULL, op, "w");
    expect_error(ctx, __LINE__, slg_optimizer_step_list(o, 2, NULL, dwp), SLG_ERR_NULL, op,
                 "w");
    expect_error(ctx, __LINE__, slg_optimizer_step_list(o, 2, wp, NULL), SLG_ERR_NULL, op, "w");
    assert_true(slg_optimizer_step_list(o, -1, wp, dwp) < 0);
    assert_int_equal(slg_optimizer_step_list(NULL, 2, wp, dwp), SLG_ERR_NULL);

    const double lrs[] = { -1e-9, NAN, INFINITY, -INFINITY },
                 scales[] = { NAN, INFINITY, 1e39, -1e300 };
    for (int i = 0; i < 4; i++) {
        expect_error(ctx, __LINE__, slg_optimizer_set_lr(o, lrs[i]), SLG_ERR_RANGE,
                     "slg_optimizer_set_lr: ", "lr");
        expect_error(ctx, __LINE__, slg_optimizer_set_grad_scale(o, scales[i]), SLG_ERR_RANGE,
                     "slg_optimizer_set_grad_scale: ", "scale");
    }
    assert_int_equal(slg_optimizer_set_lr(NULL, 1), SLG_ERR_NULL);
    assert_int_equal(slg_optimizer_set_grad_scale(NULL, 1), SLG_ERR_NULL);
    assert_int_equal(slg_optimizer_reset(NULL), SLG_ERR_NULL);
    assert_int_equal(slg_optimizer_import(NULL, before, bytes), SLG_ERR_NULL);
    assert_int_equal(slg_optimizer_export(NULL, NULL, 0, &bytes_after), SLG_ERR_NULL);

    unsigned char *after = export_state(ctx, o, &bytes_after);
    assert_int_equal(bytes, bytes_after);
    assert_memory_equal(before, after, (size_t)bytes);
    assert_memory_equal(kept, w, sizeof w);
    assert_int_equal(slg_optimizer_steps(o), 1);
    /* Neither has a refused rate or scale come into force. */
    slg_optimizer *p = create(ctx, N, 0);
    OK(ctx, slg_optimizer_import(p, before, bytes));
    OK(ctx, step(o, w, dw, N));
    OK(ctx, step(p, kept, dw, N));
    assert_memory_equal(kept, w, N * sizeof *w);
    free(before), free(after);
    slg_optimizer_free(o), slg_optimizer_free(p);
    slg_ctx_free(ctx);
}

/* Each allocation of create fails once; none is lost (ASan looks). A second step of a shape
   allocates nothing. */
static int64_t left, live_blocks;

static void *limited_alloc(void *user, size_t alignment, size_t size)
{
    (void)user;
    if (left-- <= 0) return NULL;
    live_blocks++;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void counted_free(void *user, void *p)
{
    (void)user;
    live_blocks -= p != NULL;
    free(p);
}

static void test_memory(void **state)
{
    rule = *state;
    slg_ctx_opts opts;
    slg_ctx *ctx;
    slg_ctx_opts_init(&opts, sizeof opts);
    opts.alloc = limited_alloc, opts.free = counted_free, opts.num_threads = 2;
    left = 1000;
    assert_int_equal(slg_ctx_create(&opts, &ctx), SLG_OK);
    for (int variant = 0; variant < RULE_VARIANTS; variant++) {
        slg_optimizer *o;
        int64_t n = 100000, blocks = live_blocks;
        int failures = 0;
        for (left = 0;; failures++) {
            int64_t allowed = failures;
            left = allowed;
            slg_status status =
                slg_optimizer_create(ctx, rule->kind, n, rule_options(variant), &o);
            if (status == SLG_OK) break;
            assert_int_equal(status, SLG_ERR_MEMORY);
            assert_null(o);
            assert_int_equal(live_blocks, blocks);
        }
        assert_int_equal(failures, 1 + rule_arrays(variant));
        const slg_tensor shape = slg_tensor_2d(NULL, SLG_F32, 50, 7), *shapes[] = { &shape };
        slg_optimizer *listed;
        slg_status status = SLG_ERR_MEMORY;
        for (int64_t allowed = 0; status != SLG_OK; allowed++) {
            const int64_t before = live_blocks;
            left = allowed;
            status = slg_optimizer_create_list(ctx, rule->kind, 1, shapes,
                                               rule_options(variant), NULL, &listed);
            if (status == SLG_OK) break;
            assert_int_equal(status, SLG_ERR_MEMORY);
            assert_true(!listed && live_blocks == before && allowed < 6);
        }
        slg_optimizer_free(listed);
        float *w = random_floats(n), *dw = random_floats(n);
        left = 0; /* scratch: nothing has changed if there is none */
        slg_ctx_trim(ctx);
        assert_int_equal(step(o, w, dw, n), SLG_ERR_MEMORY);
        assert_int_equal(slg_optimizer_steps(o), 0);
        left = 1000;
        OK(ctx, step(o, w, dw, n));
        left = 0;
        OK(ctx, step(o, w, dw, n));
        slg_ctx_trim(ctx);
        free(w), free(dw);
        slg_optimizer_free(o);
        assert_int_equal(live_blocks, blocks);
    }
    slg_ctx_free(ctx);
    assert_int_equal(live_blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_create_errors),
                                        cmocka_unit_test(test_step_errors),
                                        cmocka_unit_test(test_memory) };
    return run_over_rules(tests, COUNT(tests));
}
