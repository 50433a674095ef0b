/*
 * arena.h - scratch memory of a call. It grows, is kept by the context, and is handed out anew
 * to the next call: so the second call of a shape allocates nothing. Only the caller's thread
 * may allocate; what pool tasks need is allocated for all of them before pool_run.
 */
#ifndef SLG_CORE_ARENA_H
#define SLG_CORE_ARENA_H

#include <stddef.h>

#include "softlogit/core.h"

/*
 * Blocks of memory in a list. A call takes from the newest; when it does not fit, a block of at
 * least half the whole is added. op_end merges several blocks into one that holds all that the
 * call used, so a shape's second call finds one block that fits and allocates nothing. Blocks
 * of 2 MiB and more are 2 MiB aligned and, where the allocator is our own, advised to be huge
 * pages. Freed parts are poisoned under AddressSanitizer, uninitialised under MemorySanitizer.
 */
typedef struct arena_block arena_block;
typedef struct arena {
    arena_block *blocks; /* newest first */
    size_t used, peak;   /* bytes handed out in this call; most in any call */
    size_t high;         /* most in any call since arena_free */
    size_t held;         /* bytes in all blocks */
} arena;

/* size bytes, 64-byte aligned, uninitialised; valid until the call ends. NULL with the message
   set, if there is no memory or count * size overflows. Never NULL for size 0. */
void *arena_alloc(slg_ctx *ctx, size_t count, size_t size);

/* A position to come back to, so that a loop can reuse scratch. */
typedef struct arena_mark_t {
    arena_block *block;
    size_t offset, used;
} arena_mark_t;
arena_mark_t arena_mark(slg_ctx *ctx);
void arena_release(slg_ctx *ctx, arena_mark_t mark);

void arena_begin(slg_ctx *ctx); /* op_begin */
void arena_end(slg_ctx *ctx);   /* op_end */
void arena_free(slg_ctx *ctx);  /* slg_ctx_trim, slg_ctx_free */

#endif
