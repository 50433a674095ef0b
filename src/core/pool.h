/*
 * pool.h - threads. Tasks are numbered; which thread runs one is left open, so results must not
 * depend on it: a task's work depends on its number and the shape alone, and what tasks give is
 * added up in order afterwards.
 */
#ifndef SLG_CORE_POOL_H
#define SLG_CORE_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "softlogit/core.h"

/* task is in [0, tasks), worker in [0, ctx->num_threads): scratch is per worker. */
typedef void (*pool_fn)(void *arg, int64_t task, int32_t worker);

typedef struct pool_shared pool_shared;
typedef struct pool {
    pool_shared *shared; /* NULL where num_threads is 1 or the host runs the tasks */
    slg_parallel_for parallel_for;
    void *parallel_user;
} pool;

slg_status pool_create(slg_ctx *ctx, slg_parallel_for parallel_for, void *user);
void pool_free(slg_ctx *ctx);

/*
 * Runs fn for each task and returns when all are done. The caller's thread takes part, and runs
 * all where there is one task, one thread or no pool. Tasks are taken in order from a counter.
 * On every thread that runs tasks the floating-point mode is set (see fpenv.h) and restored.
 * After fork() the child abandons its parent's threads and starts its own.
 */
void pool_run(slg_ctx *ctx, int64_t tasks, pool_fn fn, void *arg);

/* Into how many contiguous ranges of at least min_items to split items: at most num_threads. */
int64_t pool_ranges(const slg_ctx *ctx, int64_t items, int64_t min_items);

/* First item of range i of n over items; range i ends where range i + 1 starts. */
static inline int64_t pool_range_start(int64_t items, int64_t n, int64_t i)
{
    int64_t size = items / n, more = items % n;
    return i * size + (i < more ? i : more);
}

#endif
