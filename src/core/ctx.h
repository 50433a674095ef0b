/*
 * ctx.h - the inside of a context, and how every public function begins, fails and ends.
 *
 *     slg_status slg_name(slg_ctx *ctx, ...)
 *     {
 *         if (!ctx) return SLG_ERR_NULL;
 *         op_begin(ctx, "slg_name");
 *         ... checks: return op_end(ctx, slg_fail(ctx, SLG_ERR_SHAPE, "x has %d axes", n));
 *         ... arena_alloc, pool_run, blas_gemm
 *         return op_end(ctx, SLG_OK);
 *     }
 */
#ifndef SLG_CORE_CTX_H
#define SLG_CORE_CTX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernels/kernels.h"
#include "softlogit/core.h"

#include "arena.h"
#include "fpenv.h"
#include "pool.h"

enum { SLG_MESSAGE_SIZE = 512 };

struct slg_ctx {
    kernel_table k; /* the kernels of this context's ISA level */
    int32_t isa, cpu_isa;
    int32_t num_threads; /* the most that pool_run uses, the caller's included */
    int32_t cpus;        /* that the affinity mask allowed at creation */
    int32_t verbose;
    pool pool;
    arena arena;
    size_t l1_bytes, l2_bytes; /* of one core; never 0: a usual size where unknown */
    size_t l3_bytes;           /* all that a core reaches; never 0 */

    void *(*alloc)(void *user, size_t alignment, size_t size);
    void (*free)(void *user, void *memory);
    void *alloc_user;
    bool own_alloc; /* aligned_alloc and free, not the caller's pair */
    slg_log_fn log;
    void *log_user;

    const char *op;  /* the public function that runs */
    char detail[96]; /* what it works on, for the verbose line: see op_detail */
    fp_mode op_mode; /* the caller's floating-point mode */
    bool op_runs;    /* between op_begin and op_end */
    double op_start; /* seconds; 0 where not verbose */
    char message[SLG_MESSAGE_SIZE];
    char cpu_name[64];
};

const char *isa_name(int32_t isa); /* "portable", "avx2", "avx512" */

/* Starts a public function: forgets the last message, empties the arena, sets
   the floating-point mode (see fpenv.h), starts the clock. */
void op_begin(slg_ctx *ctx, const char *name);

/* Ends it: restores the caller's floating-point mode, writes the verbose line. Returns
   status. */
slg_status op_end(slg_ctx *ctx, slg_status status);

/* Around a callback of the caller, which may use ctx for itself: nothing of the arena lives
   through it. Keeps the callback's message; writes one, "<what> returned <status>", where it
   has none. */
void outside_begin(slg_ctx *ctx);
slg_status outside_end(slg_ctx *ctx, const char *op, const char *what, slg_status status);

/* Where verbose: says shape and type of what op works on, as "2048x50257 f32"; further calls
   of it append. NULL is ignored. */
void op_detail(slg_ctx *ctx, const slg_tensor *t);

/* Sets the message "<op>: <text>" and returns status. */
slg_status slg_fail(slg_ctx *ctx, slg_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* In a function that returns slg_status: goes on if the expression is SLG_OK, else returns
   it. */
#define SLG_TRY(expression)                                                                    \
    do {                                                                                       \
        slg_status try_status = (expression);                                                  \
        if (try_status != SLG_OK) return try_status;                                           \
    } while (0)

/* Memory that outlives a call (handles), from the context's allocator, 64-byte aligned, in huge
   pages from 2 MiB on; NULL if there is none (the message is set) or size is 0. */
void *ctx_alloc(slg_ctx *ctx, size_t size);
void ctx_free(slg_ctx *ctx, void *memory);

#endif
