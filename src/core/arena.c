/*
 * arena.c - see arena.h. A block is its header, padded to ALIGN, and the bytes it hands out. In
 * one block allocations lie end to end, so one of `high` bytes holds any call seen so far.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* madvise */
#endif
#include "arena.h"

#include <assert.h>
#include <stdint.h>
#include <sys/mman.h>

#include "ctx.h"

#if defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAN 1
#elif __has_feature(memory_sanitizer)
#define MSAN 1
#endif
#endif

#if defined(ASAN)
#include <sanitizer/asan_interface.h>
enum { GAP = 64 }; /* poisoned, after each allocation */
#define HIDE(p, n) __asan_poison_memory_region(p, n)
#define SHOW(p, n) __asan_unpoison_memory_region(p, n)
#elif defined(MSAN)
#include <sanitizer/msan_interface.h>
enum { GAP = 0 };
#define HIDE(p, n) __msan_poison(p, n)
#define SHOW(p, n) __msan_poison(p, n) /* handed out anew: uninitialised */
#else
enum { GAP = 0 };
#define HIDE(p, n) ((void)(p), (void)(n))
#define SHOW(p, n) ((void)(p), (void)(n))
#endif

enum { ALIGN = 64, SMALLEST = 1 << 16, HUGE_PAGE = 1 << 21 };

struct arena_block {
    arena_block *next;   /* older */
    size_t size, offset; /* with the header; where the free part starts */
};

_Static_assert(sizeof(arena_block) <= ALIGN, "the header fits before the first allocation");

/* Adds a block that has room for `need` bytes after its header. */
static arena_block *add_block(slg_ctx *ctx, size_t need)
{
    size_t size, round;
    if (need > SIZE_MAX / 2 - HUGE_PAGE) return NULL;
    size = need + ALIGN;
    if (size < SMALLEST) size = SMALLEST;
    round = size >= HUGE_PAGE ? HUGE_PAGE : ALIGN;
    size = (size + round - 1) / round * round;

    arena_block *b = ctx->alloc(ctx->alloc_user, round, size);
    if (!b) return NULL;
    /* The caller's own memory is not ours to give advice on. */
    if (round == HUGE_PAGE && ctx->own_alloc) (void)madvise(b, size, MADV_HUGEPAGE);
    *b = (arena_block){ ctx->arena.blocks, size, ALIGN };
    HIDE((char *)b + ALIGN, size - ALIGN);
    ctx->arena.blocks = b;
    ctx->arena.held += size;
    return b;
}

static void drop_block(slg_ctx *ctx)
{
    arena_block *b = ctx->arena.blocks;
    ctx->arena.blocks = b->next;
    ctx->arena.held -= b->size;
#if defined(ASAN)
    SHOW(b, b->size); /* the allocator may look at it */
#endif
    ctx->free(ctx->alloc_user, b);
}

void *arena_alloc(slg_ctx *ctx, size_t count, size_t size)
{
    arena *a = &ctx->arena;
    size_t bytes, need;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 4) {
        slg_fail(ctx, SLG_ERR_MEMORY, "scratch of %zu times %zu bytes is too large", count,
                 size);
        return NULL;
    }
    need = (bytes + ALIGN - 1 + (bytes == 0)) / ALIGN * ALIGN + GAP;

    arena_block *b = a->blocks;
    if (!b || b->size - b->offset < need) {
        /* Geometric, so that a call of many parts adds few blocks; arena_end makes it exact. If
           that much is not to be had, what is needed may be. */
        size_t generous = need > a->held / 2 ? need : a->held / 2;
        b = add_block(ctx, generous);
        if (!b && generous > need) b = add_block(ctx, need);
        if (!b) {
            slg_fail(ctx, SLG_ERR_MEMORY, "out of memory for %zu bytes of scratch", bytes);
            return NULL;
        }
    }
    char *p = (char *)b + b->offset;
    b->offset += need;
    a->used += need;
    if (a->used > a->high) {
        a->high = a->used;
        if (a->high > a->peak) a->peak = a->high;
    }
    SHOW(p, bytes);
    return p;
}

arena_mark_t arena_mark(slg_ctx *ctx)
{
    arena_block *b = ctx->arena.blocks;
    return (arena_mark_t){ b, b ? b->offset : 0, ctx->arena.used };
}

/* Of the blocks that came after the mark the newest, which is the largest or nearly so, stays
   for what comes next: a loop that marks and releases adds no block each time. */
void arena_release(slg_ctx *ctx, arena_mark_t mark)
{
    arena *a = &ctx->arena;
    assert(mark.used <= a->used);
    a->used = mark.used;
    if (!a->blocks) return;
    arena_block *b = a->blocks;
    if (b == mark.block) {
        HIDE((char *)b + mark.offset, b->offset - mark.offset);
        b->offset = mark.offset;
        return;
    }
    HIDE((char *)b + ALIGN, b->offset - ALIGN);
    b->offset = ALIGN;
    a->blocks = b->next;
    a->held -= b->size;
    while (a->blocks != mark.block) drop_block(ctx);
    if (mark.block) {
        HIDE((char *)mark.block + mark.offset, mark.block->offset - mark.offset);
        mark.block->offset = mark.offset;
    }
    b->next = a->blocks;
    a->blocks = b;
    a->held += b->size;
}

void arena_begin(slg_ctx *ctx)
{
    arena *a = &ctx->arena;
    a->used = 0;
    if (!a->blocks) return;
    assert(!a->blocks->next);
    HIDE((char *)a->blocks + ALIGN, a->blocks->offset - ALIGN);
    a->blocks->offset = ALIGN;
}

void arena_end(slg_ctx *ctx)
{
    arena *a = &ctx->arena;
    if (a->blocks && (a->blocks->next || a->blocks->size - ALIGN < a->high)) {
        size_t high = a->high;
        arena_free(ctx);
        a->high = high;
        (void)add_block(ctx, high); /* none: the next call tries again */
    }
    arena_begin(ctx);
}

void arena_free(slg_ctx *ctx)
{
    while (ctx->arena.blocks) drop_block(ctx);
    ctx->arena.used = ctx->arena.high = 0;
}
