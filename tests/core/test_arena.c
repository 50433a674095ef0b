/* Scratch: alignment, reuse, growth, marks, and that a second call allocates nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/ctx.h"

typedef struct counter {
    int calls, live, limit;
} counter;

static void *counting_alloc(void *user, size_t alignment, size_t size)
{
    counter *c = user;
    c->calls++;
    if (c->limit && size > (size_t)c->limit) return NULL;
    c->live++;
    return aligned_alloc(alignment, size);
}

static void counting_free(void *user, void *memory)
{
    ((counter *)user)->live--;
    free(memory);
}

static slg_ctx *make(counter *c)
{
    slg_ctx *ctx = NULL;
    slg_ctx_opts o;
    slg_ctx_opts_init(&o, sizeof o);
    o.num_threads = 1;
    if (c) {
        o.alloc = counting_alloc;
        o.free = counting_free;
        o.alloc_user = c;
    }
    assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
    return ctx;
}

/* Allocations of many sizes, all written in full, none overlapping. */
static void call(slg_ctx *ctx, size_t largest)
{
    unsigned char *p[40];
    size_t size[40];
    op_begin(ctx, "slg_test");
    for (int i = 0; i < 40; i++) {
        size[i] = largest * (size_t)(i * 7 % 40) / 40;
        p[i] = arena_alloc(ctx, size[i], 1);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 64, 0);
        memset(p[i], i + 1, size[i]);
    }
    for (int i = 0; i < 40; i++)
        for (size_t k = 0; k < size[i]; k += 61) assert_int_equal(p[i][k], i + 1);
    op_end(ctx, SLG_OK);
}

static void test_second_call(void **state)
{
    (void)state;
    const size_t sizes[] = { 0, 1, 100, 10000, 100000, 1000000, 10, 5000000 };
    counter c = { 0 };
    slg_ctx *ctx = make(&c);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        call(ctx, sizes[i]);
        int before = c.calls;
        call(ctx, sizes[i]);
        call(ctx, sizes[i]);
        assert_int_equal(c.calls, before);
        assert_int_equal(c.live, 2); /* the context and one block */
    }
    slg_ctx_info_t info = { .size = sizeof info };
    slg_ctx_info(ctx, &info);
    assert_true(info.scratch_peak_bytes > 0 && info.scratch_bytes >= info.scratch_peak_bytes);
    int64_t peak = info.scratch_peak_bytes;
    slg_ctx_trim(ctx);
    assert_int_equal(c.live, 1);
    slg_ctx_info(ctx, &info);
    assert_int_equal(info.scratch_bytes, 0);
    assert_int_equal(info.scratch_peak_bytes, peak);
    call(ctx, 1000); /* after a trim no more is taken than this needs */
    slg_ctx_info(ctx, &info);
    assert_true(info.scratch_bytes < 200000);
    slg_ctx_free(ctx);
    assert_int_equal(c.live, 0);
    ctx = make(NULL); /* our own allocator, huge pages */
    call(ctx, 5000000);
    call(ctx, 5000000);
    slg_ctx_free(ctx);
}

static void test_limits(void **state)
{
    (void)state;
    counter c = { 0 };
    slg_ctx *ctx = make(&c);
    op_begin(ctx, "slg_test");
    assert_non_null(arena_alloc(ctx, 0, 8));
    assert_non_null(arena_alloc(ctx, 8, 0));
    assert_null(arena_alloc(ctx, SIZE_MAX, 2));
    assert_non_null(strstr(slg_ctx_message(ctx), "slg_test: scratch of"));
    assert_null(arena_alloc(ctx, SIZE_MAX, 1));
    assert_null(arena_alloc(ctx, SIZE_MAX / 2, 1));
    c.limit = 1 << 20;
    assert_null(arena_alloc(ctx, SIZE_MAX / 8, 1));
    assert_non_null(strstr(slg_ctx_message(ctx), "slg_test: out of memory"));
    /* Generous growth that is not to be had is not insisted on. */
    for (int i = 0; i < 40; i++) assert_non_null(arena_alloc(ctx, 200000, 1));
    op_end(ctx, SLG_OK); /* and one block for all cannot be had */
    call(ctx, 1000);
    slg_ctx_free(ctx);
    assert_int_equal(c.live, 0);
}

static void test_marks(void **state)
{
    (void)state;
    counter c = { 0 };
    slg_ctx *ctx = make(&c);
    for (int round = 0; round < 3; round++) {
        op_begin(ctx, "slg_test");
        arena_mark_t none = arena_mark(ctx);
        unsigned char *kept = NULL, *first = NULL;
        for (int i = 0; i < 100; i++) {
            unsigned char *p = arena_alloc(ctx, 30000, 1);
            if (i > 0) { /* the first goes into a block that the second call leaves behind */
                if (i > 2) assert_ptr_equal(p, first);
                first = p;
            }
            memset(p, 1, 30000);
            arena_release(ctx, none);
        }
        kept = arena_alloc(ctx, 1000, 1);
        memset(kept, 7, 1000);
        arena_mark_t mark = arena_mark(ctx);
        size_t used = ctx->arena.used;
        for (int i = 0; i < 50; i++) {
            int before = c.calls;
            for (int k = 0; k < 10; k++) {
                unsigned char *p = arena_alloc(ctx, 50000, 1);
                assert_non_null(p);
                memset(p, 9, 50000);
            }
            arena_release(ctx, mark);
            assert_int_equal(ctx->arena.used, used);
            if (round > 0) assert_int_equal(c.calls, before);
        }
        for (int k = 0; k < 1000; k++) assert_int_equal(kept[k], 7);
        arena_release(ctx, none);
        assert_int_equal(ctx->arena.used, 0);
        op_end(ctx, SLG_OK);
        assert_int_equal(c.live, 2);
    }
    slg_ctx_free(ctx);
    assert_int_equal(c.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_call),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
