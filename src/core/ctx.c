/*
 * ctx.c - a context's life, and the begin, failure and end of every call.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* secure_getenv, madvise */
#endif
#include "ctx.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "blas.h"
#include "cpu.h"
#include "options.h"
#include "tensor.h"

enum { ALIGN = 64, HUGE_PAGE = 1 << 21, MAX_THREADS = 1024, MAX_VERBOSE = 2 };

static const char *const isa_names[] = { "auto", "portable", "avx2", "avx512" };

const char *isa_name(int32_t isa)
{
    return isa >= SLG_ISA_AUTO && isa <= SLG_ISA_AVX512 ? isa_names[isa] : "unknown";
}

/* ---- Memory ---------------------------------------------------------------------------- */

static void *default_alloc(void *user, size_t alignment, size_t size)
{
    (void)user;
    return aligned_alloc(alignment, size);
}

static void default_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

void *ctx_alloc(slg_ctx *ctx, size_t size)
{
    if (size == 0) return NULL;
    void *p = NULL;
    const size_t align = size >= HUGE_PAGE ? HUGE_PAGE : ALIGN;
    /* aligned_alloc wants a multiple of the alignment. */
    const size_t whole = (size + align - 1) / align * align;
    if (size <= SIZE_MAX / 2) p = ctx->alloc(ctx->alloc_user, align, whole);
    /* As in arena.c: the caller's own memory is not ours to give advice on. */
    if (p && align == HUGE_PAGE && ctx->own_alloc) (void)madvise(p, whole, MADV_HUGEPAGE);
    if (!p) slg_fail(ctx, SLG_ERR_MEMORY, "out of memory for %zu bytes", size);
    return p;
}

void ctx_free(slg_ctx *ctx, void *memory)
{
    if (memory) ctx->free(ctx->alloc_user, memory);
}

/* ---- What is said ---------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* text ends with a newline, which goes to stderr alone: in one write, so that lines of several
   threads do not mix. */
static void say(slg_ctx *ctx, int32_t level, char *text)
{
    size_t n = strlen(text);
    if (ctx->log) {
        text[n - 1] = 0;
        ctx->log(ctx->log_user, level, text);
        return;
    }
    const char *from = text;
    while (n) {
        ssize_t written = write(STDERR_FILENO, from, n);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return;
        from += written;
        n -= (size_t)written;
    }
}

/* Level 1. Whole numbers only, so that no locale puts a comma into the time. */
static void say_call(slg_ctx *ctx, const char *detail)
{
    char line[SLG_MESSAGE_SIZE];
    double seconds = now() - ctx->op_start;
    long long us = (long long)(seconds * 1e6 + 0.5);
    snprintf(line, sizeof line, "softlogit,%.60s,%.200s,%s,%d,%lld.%03lld\n", ctx->op, detail,
             isa_name(ctx->isa), (int)ctx->num_threads, us / 1000, us % 1000);
    say(ctx, SLG_LOG_CALL, line);
}

/* Level 2. */
static void say_error(slg_ctx *ctx, slg_status status)
{
    char line[SLG_MESSAGE_SIZE + 64];
    snprintf(line, sizeof line, "softlogit,error,%d,\"%s\"\n", (int)status, ctx->message);
    say(ctx, SLG_LOG_ERROR, line);
}

static void say_created(slg_ctx *ctx)
{
    char text[SLG_MESSAGE_SIZE];
    blas_info_t blas = blas_info(ctx->cpu_isa);
    if (blas.mistaken) {
        snprintf(text, sizeof text, "softlogit,warning,\"%s\"\n", blas.advice);
        say(ctx, SLG_LOG_WARNING, text);
    }
    if (ctx->verbose < 2) return;
    snprintf(text, sizeof text, "%s on %s with OpenBLAS %s", slg_version_string(),
             ctx->cpu_name, blas.core);
    say_call(ctx, text);
}

/* ---- Calls ----------------------------------------------------------------------------- */

void op_begin(slg_ctx *ctx, const char *name)
{
    ctx->op = name;
    ctx->message[0] = 0;
    ctx->detail[0] = 0;
    arena_begin(ctx);
    /* What runs on the caller's thread between jobs of the pool rounds as the jobs do. */
    if (!ctx->op_runs) ctx->op_mode = fp_enter();
    ctx->op_runs = true;
    if (ctx->verbose > 0) ctx->op_start = now();
}

slg_status op_end(slg_ctx *ctx, slg_status status)
{
    arena_end(ctx);
    if (ctx->op_runs) fp_leave(ctx->op_mode);
    ctx->op_runs = false;
    if (ctx->verbose > 0) {
        say_call(ctx, ctx->detail);
        if (status && ctx->verbose > 1) say_error(ctx, status);
    }
    return status;
}

void outside_begin(slg_ctx *ctx)
{
    op_end(ctx, SLG_OK);
    ctx->message[0] = 0;
}

slg_status outside_end(slg_ctx *ctx, const char *op, const char *what, slg_status status)
{
    char kept[SLG_MESSAGE_SIZE];
    memcpy(kept, ctx->message, sizeof kept);
    op_begin(ctx, op);
    if (status == SLG_OK) return SLG_OK;
    if (!kept[0]) return slg_fail(ctx, status, "%s returned %d", what, status);
    memcpy(ctx->message, kept, sizeof kept);
    return status;
}

void op_detail(slg_ctx *ctx, const slg_tensor *t)
{
    if (ctx->verbose <= 0 || !t) return;
    size_t n = strlen(ctx->detail), size = sizeof ctx->detail;
    char sep = ' ';
    if (n == 0) sep = 0;
    for (int32_t i = 0; i < t->ndim && i < 4 && n < size; i++) {
        n += (size_t)snprintf(ctx->detail + n, size - n, "%.*s%lld", sep != 0, &sep,
                              (long long)t->shape[i]);
        sep = 'x';
    }
    if (n < size) snprintf(ctx->detail + n, size - n, " %s", dtype_name(t->dtype));
}

slg_status slg_fail(slg_ctx *ctx, slg_status status, const char *format, ...)
{
    va_list args;
    int n =
        snprintf(ctx->message, sizeof ctx->message, "%s: ", ctx->op ? ctx->op : "softlogit");
    if (n < 0 || (size_t)n >= sizeof ctx->message) return status;
    va_start(args, format);
    vsnprintf(ctx->message + n, sizeof ctx->message - (size_t)n, format, args);
    va_end(args);
    return status;
}

const char *slg_ctx_message(const slg_ctx *ctx) { return ctx ? ctx->message : ""; }

/* ---- Options and environment ----------------------------------------------------------- */

static const slg_ctx_opts default_opts = { .size = sizeof default_opts, .verbose = -1 };

void slg_ctx_opts_init(slg_ctx_opts *opts, size_t size)
{
    options_init(opts, size, &default_opts, sizeof default_opts);
}

/* NULL where it is not set, or set to nothing as `NAME= program` does. */
static const char *environment(const char *name)
{
    const char *value = secure_getenv(name);
    return value && value[0] ? value : NULL;
}

static slg_status env_number(slg_ctx *ctx, const char *name, int32_t min, int32_t max,
                             int32_t *n)
{
    const char *text = environment(name);
    if (!text) return SLG_OK;
    int32_t value = 0;
    const char *p = text;
    /* Not strtol: it takes blanks and signs, and tells of errors by errno. */
    for (; *p >= '0' && *p <= '9' && value <= max; p++) value = 10 * value + (*p - '0');
    if (*p || p == text || value < min || value > max) {
        return slg_fail(ctx, SLG_ERR_ENVIRONMENT,
                        "%s is \"%.100s\", must be a number from %d to %d", name, text,
                        (int)min, (int)max);
    }
    *n = value;
    return SLG_OK;
}

static slg_status choose_isa(slg_ctx *ctx, int32_t isa)
{
    const char *from = "opts->isa";
    if (isa < SLG_ISA_AUTO || isa > SLG_ISA_AVX512)
        return slg_fail(ctx, SLG_ERR_RANGE, "opts->isa is %d, must be a slg_isa: 0 to %d",
                        (int)isa, SLG_ISA_AVX512);
    const char *word = isa == SLG_ISA_AUTO ? environment("SOFTLOGIT_ISA") : NULL;
    if (word) {
        from = "SOFTLOGIT_ISA";
        for (isa = SLG_ISA_AVX512; isa > SLG_ISA_AUTO; isa--)
            if (!strcmp(word, isa_names[isa])) break;
        if (isa == SLG_ISA_AUTO)
            return slg_fail(ctx, SLG_ERR_ENVIRONMENT,
                            "SOFTLOGIT_ISA is \"%.100s\", must be portable, avx2 or avx512",
                            word);
    }
    ctx->cpu_isa = kernels_cpu_isa();
    if (isa > ctx->cpu_isa)
        return slg_fail(ctx, SLG_ERR_UNSUPPORTED, "%s asks for %s, this CPU has only %s", from,
                        isa_name(isa), isa_name(ctx->cpu_isa));
    ctx->isa = isa == SLG_ISA_AUTO ? ctx->cpu_isa : isa;
    return SLG_OK;
}

static slg_status choose_threads(slg_ctx *ctx, int32_t threads)
{
    if (threads < 0 || threads > MAX_THREADS)
        return slg_fail(ctx, SLG_ERR_RANGE, "opts->num_threads is %d, must be from 0 to %d",
                        (int)threads, MAX_THREADS);
    if (threads == 0) {
        slg_status status = env_number(ctx, "SOFTLOGIT_NUM_THREADS", 1, MAX_THREADS, &threads);
        if (status) return status;
    }
    ctx->cpus = cpu_available(ctx);
    if (threads == 0) threads = ctx->cpus < MAX_THREADS ? ctx->cpus : MAX_THREADS;
    ctx->num_threads = threads;
    return SLG_OK;
}

static slg_status choose_verbose(slg_ctx *ctx, int32_t verbose)
{
    if (verbose < -1 || verbose > MAX_VERBOSE)
        return slg_fail(ctx, SLG_ERR_RANGE, "opts->verbose is %d, must be from -1 to %d",
                        (int)verbose, MAX_VERBOSE);
    ctx->verbose = verbose > 0 ? verbose : 0;
    if (verbose >= 0) return SLG_OK;
    return env_number(ctx, "SOFTLOGIT_VERBOSE", 0, MAX_VERBOSE, &ctx->verbose);
}

static slg_status choose_alloc(slg_ctx *ctx, const slg_ctx_opts *opts)
{
    if (!opts->alloc != !opts->free)
        return slg_fail(ctx, SLG_ERR_NULL,
                        "opts->%s is NULL, opts->%s is not: give both or neither",
                        opts->alloc ? "free" : "alloc", opts->alloc ? "alloc" : "free");
    ctx->own_alloc = !opts->alloc;
    ctx->alloc = opts->alloc ? opts->alloc : default_alloc;
    ctx->free = opts->alloc ? opts->free : default_free;
    ctx->alloc_user = opts->alloc_user;
    return SLG_OK;
}

/* ---- Creation -------------------------------------------------------------------------- */

/* Fills a context from the options; what it holds is all inside of it, so nothing to undo. */
static slg_status configure(slg_ctx *ctx, const slg_ctx_opts *given, slg_ctx_opts *opts)
{
    slg_status status = options_read(ctx, "opts", given, opts, sizeof *opts);
    if (status) {
        /* The fields that we know are sound if it is only others that we do not. */
        if (given->size >= sizeof *opts && given->size <= 4096) {
            ctx->log = given->log;
            ctx->log_user = given->log_user;
        }
        return status;
    }
    ctx->log = opts->log;
    ctx->log_user = opts->log_user;
    if ((status = choose_verbose(ctx, opts->verbose)) != SLG_OK) return status;
    if ((status = choose_alloc(ctx, opts)) != SLG_OK) return status;
    if ((status = choose_isa(ctx, opts->isa)) != SLG_OK) return status;
    if ((status = choose_threads(ctx, opts->num_threads)) != SLG_OK) return status;

    kernels_fill(&ctx->k, ctx->isa);
    cpu_caches_t caches = cpu_caches();
    ctx->l1_bytes = caches.l1 ? caches.l1 : 32 << 10;
    ctx->l2_bytes = caches.l2 ? caches.l2 : 512 << 10;
    ctx->l3_bytes = caches.l3 ? caches.l3 : 8 << 20;
    cpu_name(ctx->cpu_name, sizeof ctx->cpu_name);
    return SLG_OK;
}

slg_status slg_ctx_create(const slg_ctx_opts *given, slg_ctx **out)
{
    if (!out) return SLG_ERR_NULL;
    *out = NULL;

    /* On the stack until its own allocator is known; then moved. */
    slg_ctx draft;
    slg_ctx_opts opts = default_opts;
    memset(&draft, 0, sizeof draft);
    draft.op = "slg_ctx_create";
    draft.op_start = now();
    slg_status status = configure(&draft, given, &opts);
    slg_ctx *ctx = NULL;
    if (!status && !(ctx = ctx_alloc(&draft, sizeof *ctx))) status = SLG_ERR_MEMORY;
    if (!status) {
        memcpy(ctx, &draft, sizeof draft);
        ctx->message[0] = 0; /* a failed try of cpu_available may have left one */
        status = pool_create(ctx, opts.parallel_for, opts.parallel_user);
        if (status) {
            memcpy(draft.message, ctx->message, sizeof draft.message);
            ctx_free(ctx, ctx);
        }
    }
    if (status) {
        if (draft.log)
            draft.log(draft.log_user, SLG_LOG_ERROR, draft.message);
        else if (draft.verbose > 0)
            say_error(&draft, status);
        return status;
    }
    if (ctx->verbose > 0) say_created(ctx);
    *out = ctx;
    return SLG_OK;
}

void slg_ctx_free(slg_ctx *ctx)
{
    if (!ctx) return;
    pool_free(ctx);
    arena_free(ctx);
    ctx_free(ctx, ctx);
}

slg_status slg_ctx_trim(slg_ctx *ctx)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_ctx_trim");
    arena_free(ctx);
    return op_end(ctx, SLG_OK);
}
