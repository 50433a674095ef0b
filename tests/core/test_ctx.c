/* Contexts: options, environment, messages, information, allocators, what verbose says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/blas.h"
#include "core/ctx.h"
#include "core/options.h"
#include "core/structs.h"

#define contains(text, part)                                                                   \
    do {                                                                                       \
        if (!strstr(text, part)) fail_msg("\"%s\" lacks \"%s\"", text, part);                  \
    } while (0)

typedef struct log_t {
    int calls;
    int32_t level;
    char all[4096];
} log_t;

static void keep(void *user, int32_t level, const char *text)
{
    log_t *l = user;
    size_t n = strlen(l->all);
    l->calls++;
    l->level = level;
    snprintf(l->all + n, sizeof l->all - n, "%s\n", text);
}

static slg_ctx_opts options(log_t *log)
{
    slg_ctx_opts o;
    slg_ctx_opts_init(&o, sizeof o);
    if (log) {
        memset(log, 0, sizeof *log);
        o.log = keep;
        o.log_user = log;
    }
    return o;
}

static int clean(void **state)
{
    (void)state;
    unsetenv("SOFTLOGIT_ISA");
    unsetenv("SOFTLOGIT_NUM_THREADS");
    unsetenv("SOFTLOGIT_VERBOSE");
    return 0;
}

/* Creation must fail with this status, and tell the log this. */
static void refused(slg_ctx_opts o, log_t *log, slg_status status, const char *text)
{
    slg_ctx *ctx = (void *)&o;
    memset(log, 0, sizeof *log);
    assert_int_equal(slg_ctx_create(&o, &ctx), status);
    assert_null(ctx);
    assert_int_equal(log->calls, 1);
    assert_int_equal(log->level, SLG_LOG_ERROR);
    contains(log->all, "slg_ctx_create: ");
    contains(log->all, text);
}

static void test_defaults(void **state)
{
    (void)state;
    slg_ctx *ctx = NULL;
    slg_ctx_info_t info;
    memset(&info, 0xAA, sizeof info);
    info.size = sizeof info;
    assert_int_equal(slg_ctx_create(NULL, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
    assert_string_equal(slg_ctx_message(ctx), "");
    assert_int_equal(slg_ctx_info(ctx, &info), SLG_OK);
    assert_int_equal(info.size, sizeof info);
    assert_int_equal(info.isa, info.cpu_isa);
    assert_true(info.isa >= SLG_ISA_PORTABLE && info.isa <= SLG_ISA_AVX512);
    assert_true(info.num_threads >= 1);
    assert_true(info.blas_threads >= 1);
    assert_string_equal(info.isa_name, isa_name(info.isa));
    assert_true(strlen(info.cpu_name) > 0);
    contains(info.blas_name, "OpenBLAS");
    assert_true(strlen(info.blas_core) > 0);
    assert_int_equal(info.blas_mistaken != SLG_BLAS_FITS, strlen(info.blas_advice) > 0);
    assert_string_equal(info.version, slg_version_string());
    assert_true(info.l1_bytes >= 0 && info.l2_bytes >= 0 && info.l3_bytes >= 0);
    assert_int_equal(info.scratch_bytes, 0);
    assert_true(ctx->l1_bytes && ctx->l2_bytes && ctx->l3_bytes);
    assert_int_equal((uintptr_t)ctx % 64, 0);
    slg_ctx_free(ctx);
    slg_ctx_free(NULL);
}

static void test_info_sizes(void **state)
{
    (void)state;
    slg_ctx *ctx = NULL;
    unsigned char bytes[sizeof(slg_ctx_info_t) + 32];
    slg_ctx_info_t *info = (void *)bytes;
    assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
    assert_int_equal(slg_ctx_info(NULL, info), SLG_ERR_NULL);
    assert_int_equal(slg_ctx_info(ctx, NULL), SLG_ERR_NULL);
    assert_string_equal(slg_ctx_message(ctx), "slg_ctx_info: info is NULL");

    memset(bytes, 0xAA, sizeof bytes);
    info->size = 12; /* knows isa and cpu_isa alone */
    assert_int_equal(slg_ctx_info(ctx, info), SLG_OK);
    assert_string_equal(slg_ctx_message(ctx), "");
    assert_int_equal(info->size, 12);
    assert_int_equal(info->isa, ctx->isa);
    assert_int_equal(bytes[12], 0xAA);

    info->size = sizeof *info + 16;
    assert_int_equal(slg_ctx_info(ctx, info), SLG_OK);
    assert_int_equal(bytes[sizeof *info], 0);
    assert_int_equal(bytes[sizeof *info + 15], 0);
    assert_int_equal(bytes[sizeof *info + 16], 0xAA);

    const uint32_t bad[] = { 0, 7, 4097, UINT32_MAX };
    for (size_t i = 0; i < 4; i++) {
        info->size = bad[i];
        assert_int_equal(slg_ctx_info(ctx, info), SLG_ERR_OPTIONS);
        contains(slg_ctx_message(ctx), "info->size");
    }
    slg_ctx_free(ctx);
}

static void test_options_grow(void **state)
{
    (void)state;
    struct {
        slg_ctx_opts o;
        char more[24];
    } big;
    log_t log;
    slg_ctx *ctx = NULL;

    /* An older caller: knows isa and num_threads. */
    big.o = options(NULL);
    memset(big.more, 0, sizeof big.more);
    big.o.size = 12;
    big.o.num_threads = 3;
    big.o.verbose = 77; /* not looked at */
    assert_int_equal(slg_ctx_create(&big.o, &ctx), SLG_OK);
    assert_int_equal(ctx->num_threads, 3);
    slg_ctx_free(ctx);

    /* A newer one, with and without its new fields set. */
    memset(&big, 0xAA, sizeof big);
    slg_ctx_opts_init(&big.o, sizeof big);
    assert_int_equal(big.o.size, sizeof big);
    for (size_t i = 0; i < sizeof big.more; i++) assert_int_equal(big.more[i], 0);
    big.o.log = keep;
    big.o.log_user = &log;
    big.o.num_threads = 2;
    memset(&log, 0, sizeof log);
    assert_int_equal(slg_ctx_create(&big.o, &ctx), SLG_OK);
    assert_int_equal(ctx->num_threads, 2);
    slg_ctx_free(ctx);
    big.more[5] = 1;
    assert_int_equal(slg_ctx_create(&big.o, &ctx), SLG_ERR_OPTIONS);
    assert_null(ctx);
    assert_int_equal(log.calls, 1);
    contains(log.all, "opts has a value at byte");

    big.o.size = 4;
    assert_int_equal(slg_ctx_create(&big.o, &ctx), SLG_ERR_OPTIONS);
    big.o.size = 5000;
    assert_int_equal(slg_ctx_create(&big.o, &ctx), SLG_ERR_OPTIONS);

    slg_ctx_opts_init(NULL, 8);
    memset(&big, 0xAA, sizeof big);
    slg_ctx_opts_init(&big.o, 3);
    assert_int_equal(big.o.size, 0xAAAAAAAA);
    slg_ctx_opts_init(&big.o, 8);
    assert_int_equal(big.o.size, 8);
    assert_int_equal(big.o.isa, 0);
    assert_int_equal(big.o.num_threads, (int32_t)0xAAAAAAAA);
}

static void no_op_free(void *user, void *memory) { (void)user, (void)memory; }

static void test_options_refused(void **state)
{
    (void)state;
    log_t log;
    slg_ctx_opts o = options(&log);
    o.isa = 4;
    refused(o, &log, SLG_ERR_RANGE, "opts->isa is 4");
    o.isa = -1;
    refused(o, &log, SLG_ERR_RANGE, "opts->isa is -1");
    o = options(&log);
    o.num_threads = 1025;
    refused(o, &log, SLG_ERR_RANGE, "opts->num_threads is 1025");
    o.num_threads = -1;
    refused(o, &log, SLG_ERR_RANGE, "opts->num_threads is -1");
    o = options(&log);
    o.verbose = 3;
    refused(o, &log, SLG_ERR_RANGE, "opts->verbose is 3");
    o = options(&log);
    o.free = no_op_free;
    refused(o, &log, SLG_ERR_NULL, "opts->alloc is NULL, opts->free is not");
    for (int32_t isa = kernels_cpu_isa() + 1; isa <= SLG_ISA_AVX512; isa++) {
        o = options(&log);
        o.isa = isa;
        refused(o, &log, SLG_ERR_UNSUPPORTED, isa_name(isa));
        setenv("SOFTLOGIT_ISA", isa_name(isa), 1);
        refused(options(&log), &log, SLG_ERR_UNSUPPORTED, "SOFTLOGIT_ISA");
        unsetenv("SOFTLOGIT_ISA");
    }
}

static void test_environment(void **state)
{
    (void)state;
    log_t log;
    slg_ctx *ctx = NULL;
    slg_ctx_opts o = options(&log);

    for (int32_t isa = SLG_ISA_PORTABLE; isa <= kernels_cpu_isa(); isa++) {
        setenv("SOFTLOGIT_ISA", isa_name(isa), 1);
        assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
        assert_int_equal(ctx->isa, isa);
        assert_ptr_equal(ctx->k.lse == slg_lse_portable, isa == SLG_ISA_PORTABLE);
        slg_ctx_free(ctx);
    }
    setenv("SOFTLOGIT_ISA", "AVX2", 1);
    refused(o, &log, SLG_ERR_ENVIRONMENT,
            "SOFTLOGIT_ISA is \"AVX2\", must be portable, avx2 or avx512");
    o.isa = SLG_ISA_PORTABLE; /* options win: the variable is not looked at */
    assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
    assert_int_equal(ctx->isa, SLG_ISA_PORTABLE);
    slg_ctx_free(ctx);
    setenv("SOFTLOGIT_ISA", "", 1);

    setenv("SOFTLOGIT_NUM_THREADS", "3", 1);
    assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
    assert_int_equal(ctx->num_threads, 3);
    slg_ctx_free(ctx);
    const char *bad[] = { "0",  "1025", "-1", "x", "3x", " 3", "+3", "99999999999999999999",
                          "2.5" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("SOFTLOGIT_NUM_THREADS", bad[i], 1);
        refused(options(&log), &log, SLG_ERR_ENVIRONMENT, "SOFTLOGIT_NUM_THREADS is \"");
        contains(log.all, bad[i]);
        contains(log.all, "must be a number from 1 to 1024");
    }
    o = options(NULL);
    o.num_threads = 1;
    assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
    slg_ctx_free(ctx);
    unsetenv("SOFTLOGIT_NUM_THREADS");

    setenv("SOFTLOGIT_VERBOSE", "yes", 1);
    refused(options(&log), &log, SLG_ERR_ENVIRONMENT, "SOFTLOGIT_VERBOSE is \"yes\"");
    setenv("SOFTLOGIT_VERBOSE", "1", 1);
    o = options(&log);
    assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
    assert_int_equal(ctx->verbose, 1);
    unsetenv("SOFTLOGIT_VERBOSE"); /* read at creation alone */
    log.all[0] = 0;
    assert_int_equal(slg_ctx_trim(ctx), SLG_OK);
    contains(log.all, "softlogit,slg_ctx_trim,,");
    slg_ctx_free(ctx);
}

static void test_verbose(void **state)
{
    (void)state;
    log_t log;
    slg_ctx *ctx = NULL;
    slg_ctx_opts o = options(&log);
    float x[12];
    slg_tensor t = slg_tensor_2d(x, SLG_F32, 3, 4), u = slg_tensor_1d(x, SLG_BF16, 7);
    char want[128];

    o.verbose = 0;
    assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
    assert_int_equal(slg_ctx_info(ctx, NULL), SLG_ERR_NULL);
    assert_int_equal(log.calls, 0);
    slg_ctx_free(ctx);

    o.verbose = 2;
    o.num_threads = 2;
    assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
    contains(log.all, "softlogit,slg_ctx_create,");
    contains(log.all, slg_version_string());
    log.all[0] = 0;
    op_begin(ctx, "slg_test");
    op_detail(ctx, &t);
    op_detail(ctx, NULL);
    op_detail(ctx, &u);
    assert_int_equal(op_end(ctx, SLG_OK), SLG_OK);
    snprintf(want, sizeof want, "softlogit,slg_test,3x4 f32 7 bf16,%s,2,", isa_name(ctx->isa));
    assert_memory_equal(log.all, want, strlen(want));
    double ms = atof(log.all + strlen(want));
    assert_true(ms >= 0 && ms < 1000);
    assert_int_equal(log.level, SLG_LOG_CALL);
    op_begin(ctx, "slg_test");
    for (int i = 0; i < 40; i++) op_detail(ctx, &t); /* is cut, not overrun */
    assert_true(strlen(ctx->detail) < sizeof ctx->detail);
    op_end(ctx, slg_fail(ctx, SLG_ERR_RANGE, "x is %d", 5));
    contains(log.all, "softlogit,error,-5,\"slg_test: x is 5\"");
    assert_int_equal(log.level, SLG_LOG_ERROR);
    slg_ctx_free(ctx);
}

/* Without a log, verbose writes to fd 2; not verbose, nothing is written. */
static void test_stderr(void **state)
{
    (void)state;
    for (int32_t verbose = 0; verbose <= 2; verbose++) {
        int ends[2], old = dup(2);
        char text[2048];
        slg_ctx *ctx = NULL;
        slg_ctx_opts o = options(NULL);
        o.verbose = verbose;
        o.num_threads = 1;
        assert_int_equal(pipe(ends), 0);
        dup2(ends[1], 2);
        slg_status status = slg_ctx_create(&o, &ctx);
        slg_ctx_trim(ctx);
        slg_ctx_info(ctx, NULL);
        slg_ctx_free(ctx);
        dup2(old, 2);
        close(old);
        close(ends[1]);
        ssize_t n = read(ends[0], text, sizeof text - 1);
        close(ends[0]);
        assert_int_equal(status, SLG_OK);
        assert_true(n >= 0);
        text[n] = 0;
        if (verbose == 0) {
            assert_string_equal(text, "");
            continue;
        }
        contains(text, "softlogit,slg_ctx_trim,");
        contains(text, "softlogit,slg_ctx_info,");
        assert_int_equal(text[n - 1], '\n');
        assert_int_equal(strstr(text, "info is NULL") != NULL, verbose == 2);
        assert_int_equal(strstr(text, "slg_ctx_create") != NULL, verbose == 2);
    }
}

static void test_messages(void **state)
{
    (void)state;
    slg_ctx *ctx = NULL;
    char filler[1000];
    assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = 0;
    op_begin(ctx, "slg_test");
    assert_int_equal(op_end(ctx, slg_fail(ctx, SLG_ERR_SHAPE, "%s", filler)), SLG_ERR_SHAPE);
    assert_int_equal(strlen(slg_ctx_message(ctx)), SLG_MESSAGE_SIZE - 1);
    slg_ctx_trim(ctx);
    assert_string_equal(slg_ctx_message(ctx), "");
    assert_string_equal(slg_ctx_message(NULL), "");
    assert_int_equal(slg_ctx_trim(NULL), SLG_ERR_NULL);
    slg_ctx_free(ctx);

    for (slg_status s = SLG_ERR_THREAD; s <= SLG_OK; s++)
        contains(slg_status_string(s), s == SLG_OK ? "SLG_OK" : "SLG_ERR_");
    assert_string_equal(slg_status_string(1), "unknown status");
    assert_string_equal(slg_status_string(INT32_MIN), "unknown status");
    assert_string_equal(isa_name(9), "unknown");
}

/* Between op_begin and op_end the mode is the library's, after it the caller's, flags too. */
static void test_mode(void **state)
{
    (void)state;
    const int modes[] = { FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO };
    slg_ctx *ctx = NULL;
    /* valgrind keeps no exception flags: nothing to see there. */
    feclearexcept(FE_ALL_EXCEPT);
    feraiseexcept(FE_OVERFLOW);
    if (!(fetestexcept(FE_OVERFLOW) & FE_OVERFLOW)) skip();
    feclearexcept(FE_ALL_EXCEPT);
    assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
    for (int i = 0; i < 4; i++) {
        volatile double one = i & 1 ? 1.0 : -1.0, three = 3.0, third;
        fesetround(modes[i]);
        feclearexcept(FE_ALL_EXCEPT);
        feraiseexcept(FE_OVERFLOW);
        op_begin(ctx, "slg_test");
        third = one / three;
        op_begin(ctx, "slg_inner"); /* by mistake: still comes back to the caller's */
        op_end(ctx, SLG_OK);
        op_end(ctx, SLG_OK);
        int after = fegetround(), flags = fetestexcept(FE_OVERFLOW | FE_INEXACT);
        fesetround(FE_TONEAREST);
        feclearexcept(FE_ALL_EXCEPT);
        /* fegetround() tells of x87, which the library leaves alone. */
        assert_true(third == (i & 1 ? 1.0 : -1.0) / 3.0);
        assert_int_equal(after, modes[i]);
        assert_int_equal(flags, FE_OVERFLOW);
    }
    slg_ctx_free(ctx);
}

typedef struct failing {
    int calls, fail_at; /* -1: never */
    int live;
} failing;

static void *failing_alloc(void *user, size_t alignment, size_t size)
{
    failing *f = user;
    assert_int_equal(size % alignment, 0);
    if (f->calls++ == f->fail_at) return NULL;
    f->live++;
    return aligned_alloc(alignment, size);
}

static void failing_free(void *user, void *memory)
{
    assert_non_null(memory);
    ((failing *)user)->live--;
    free(memory);
}

static void test_alloc_fails(void **state)
{
    (void)state;
    log_t log;
    slg_ctx *ctx = NULL;
    for (int32_t threads = 1; threads <= 3; threads += 2) {
        int k = 0;
        for (;; k++) {
            failing f = { 0, k, 0 };
            slg_ctx_opts o = options(&log);
            o.alloc = failing_alloc;
            o.free = failing_free;
            o.alloc_user = &f;
            o.num_threads = threads;
            slg_status status = slg_ctx_create(&o, &ctx);
            if (status) {
                assert_int_equal(status, SLG_ERR_MEMORY);
                assert_null(ctx);
                assert_int_equal(f.live, 0);
                contains(log.all, "slg_ctx_create: out of memory");
                continue;
            }
            op_begin(ctx, "slg_test");
            void *p = arena_alloc(ctx, 1000, 4), *q = ctx_alloc(ctx, 100);
            if (!p || !q) contains(slg_ctx_message(ctx), "slg_test: out of memory");
            ctx_free(ctx, q);
            op_end(ctx, p && q ? SLG_OK : SLG_ERR_MEMORY);
            bool all = p && q;
            op_begin(ctx, "slg_test"); /* remains usable */
            assert_non_null(arena_alloc(ctx, 1000, 4));
            op_end(ctx, SLG_OK);
            slg_ctx_free(ctx);
            assert_int_equal(f.live, 0);
            if (all) break;
        }
        assert_true(k >= 3);
    }
    assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
    assert_null(ctx_alloc(ctx, 0));
    assert_null(ctx_alloc(ctx, SIZE_MAX));
    contains(slg_ctx_message(ctx), "out of memory");
    ctx_free(ctx, NULL);
    slg_ctx_free(ctx);
}

static void test_version_and_sizes(void **state)
{
    (void)state;
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", SLG_VERSION_MAJOR, SLG_VERSION_MINOR,
             SLG_VERSION_PATCH);
    assert_string_equal(slg_version_string(), text);
    assert_int_equal(slg_version(),
                     10000 * SLG_VERSION_MAJOR + 100 * SLG_VERSION_MINOR + SLG_VERSION_PATCH);
#define SAME(type) assert_int_equal(slg_struct_size(#type), sizeof(type));
    SLG_STRUCTS(SAME)
#undef SAME
    assert_int_equal(slg_struct_size("slg_tensor"), 80);
    assert_int_equal(slg_struct_size("slg_nothing"), 0);
    assert_int_equal(slg_struct_size(""), 0);
    assert_int_equal(slg_struct_size(NULL), 0);
}

/* Ends of ranges belong to them, NaN to none; messages name the field and its numbers. */
static void test_option_checks(void **state)
{
    (void)state;
    slg_ctx *ctx = NULL;
    assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
    op_begin(ctx, "slg_x");
    const double in[] = { 0.5, 0, 1 }, out[] = { -1e-9, 1.1, NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 3; i++) assert_int_equal(option_range(ctx, "a", in[i], 0, 1), SLG_OK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(option_range(ctx, "a", out[i], 0, 1), SLG_ERR_RANGE);
    option_range(ctx, "a", 1.5, 0, 1);
    assert_string_equal(slg_ctx_message(ctx), "slg_x: a is 1.5, must be from 0 to 1");
    assert_int_equal(option_least(ctx, "b", -1, -1), SLG_OK);
    const double low[] = { -1.5, NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 4; i++)
        assert_int_equal(option_least(ctx, "b", low[i], -1), SLG_ERR_RANGE);
    option_least(ctx, "b", -2, -1);
    assert_string_equal(slg_ctx_message(ctx), "slg_x: b is -2, must be finite and at least -1");
    for (int32_t i = -1; i <= 3; i++) {
        assert_int_equal(option_choice(ctx, "c", i, 0, 2), i < 0 || i > 2 ? SLG_ERR_RANGE : 0);
        assert_int_equal(option_choice(ctx, "c", i, 1, 2), i < 1 || i > 2 ? SLG_ERR_RANGE : 0);
    }
    assert_string_equal(slg_ctx_message(ctx), "slg_x: c is 3, must be 1 or 2");
    option_choice(ctx, "c", 3, 0, 2);
    assert_string_equal(slg_ctx_message(ctx), "slg_x: c is 3, must be from 0 to 2");
    assert_int_equal(option_reserved(ctx, "opts.reserved", 0), SLG_OK);
    assert_int_equal(option_reserved(ctx, "opts.reserved", 7), SLG_ERR_OPTIONS);
    assert_string_equal(slg_ctx_message(ctx), "slg_x: opts.reserved is 7, must be 0");
    op_end(ctx, SLG_OK);
    slg_ctx_free(ctx);
}

static void test_blas_info(void **state)
{
    (void)state;
    static const struct {
        const char *core;
        int32_t isa, fit;
    } cases[] = {
        { "Prescott", SLG_ISA_PORTABLE, SLG_BLAS_FITS }, /* an old CPU, rightly taken for one */
        { "Prescott", SLG_ISA_AVX2, SLG_BLAS_FAR_BELOW },
        { "Prescott", SLG_ISA_AVX512, SLG_BLAS_FAR_BELOW },
        { "Sandybridge", SLG_ISA_AVX512, SLG_BLAS_FAR_BELOW },
        { "Haswell", SLG_ISA_AVX2, SLG_BLAS_FITS },
        { "haswell", SLG_ISA_AVX512, SLG_BLAS_HALF },
        { "Zen", SLG_ISA_AVX512, SLG_BLAS_HALF },
        { "SkylakeX", SLG_ISA_AVX512, SLG_BLAS_FITS },
        { "SkylakeX", SLG_ISA_AVX2, SLG_BLAS_FITS },
        { "Cooperlake", SLG_ISA_AVX512, SLG_BLAS_FITS },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(blas_mistaken(cases[i].core, cases[i].isa), cases[i].fit);
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++) {
        blas_info_t info = blas_info(isa);
        assert_int_equal(info.mistaken, blas_mistaken(info.core, isa));
        if (info.mistaken == SLG_BLAS_FITS)
            assert_string_equal(info.advice, "");
        else
            contains(info.advice, isa == SLG_ISA_AVX512 ? "OPENBLAS_CORETYPE=SkylakeX"
                                                        : "OPENBLAS_CORETYPE=Haswell");
    }
    blas_info_t full = blas_info(SLG_ISA_AVX512);
    assert_true(full.parallel >= 0 && full.parallel <= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, clean, clean),
        cmocka_unit_test_setup_teardown(test_info_sizes, clean, clean),
        cmocka_unit_test_setup_teardown(test_options_grow, clean, clean),
        cmocka_unit_test_setup_teardown(test_options_refused, clean, clean),
        cmocka_unit_test_setup_teardown(test_environment, clean, clean),
        cmocka_unit_test_setup_teardown(test_verbose, clean, clean),
        cmocka_unit_test_setup_teardown(test_stderr, clean, clean),
        cmocka_unit_test_setup_teardown(test_messages, clean, clean),
        cmocka_unit_test_setup_teardown(test_mode, clean, clean),
        cmocka_unit_test_setup_teardown(test_alloc_fails, clean, clean),
        cmocka_unit_test(test_version_and_sizes),
        cmocka_unit_test(test_option_checks),
        cmocka_unit_test(test_blas_info),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
