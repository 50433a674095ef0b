/*
 * pool.c - threads that join a job while it is open.
 *
 * One word, `state`, holds the job's number, how many workers may still join and how many are
 * at work. The caller opens a job, takes tasks itself until none are left, closes it, and waits
 * for those workers alone that joined: one that is asleep or late costs nothing. A worker joins
 * by one compare-and-swap, which also shows it fn and arg; the caller writes them only while
 * the job is closed and nobody is at work.
 *
 * Sleep and wake follow Dekker: a worker counts itself a sleeper, then looks at state; the
 * caller writes state, then looks for sleepers. All four are sequentially consistent, so one of
 * the two sees the other. The same holds for the caller that waits for the last worker.
 *
 * No thread survives fork(). A child, known by its process id, starts over in the same memory.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_setname_np */
#endif
#include "pool.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctx.h"
#include "fpenv.h"

/* How long threads look for work, and the caller for the end, before they sleep; and looks
   between two readings of the clock. */
enum { SPIN_NANOSECONDS = 10000, SPIN_LOOKS = 16 };

#define ACTIVE_MASK UINT64_C(0xFFFF) /* workers that joined and have not left */
#define SLOT_ONE (UINT64_C(1) << 16)
#define SLOT_MASK (UINT64_C(0xFFFF) << 16) /* workers that may still join; 0: closed */
#define JOB_SHIFT 32

typedef struct worker {
    struct pool_shared *shared;
    pthread_t thread;
    int32_t id; /* 1 to num_threads - 1; the caller's thread is 0 */
} worker;

struct pool_shared {
    _Alignas(64) _Atomic uint64_t state;
    pool_fn fn;
    void *arg;
    int64_t tasks;

    _Alignas(64) _Atomic int64_t next; /* task */

    _Alignas(64) _Atomic int32_t sleepers;
    _Atomic int32_t waiting; /* the caller sleeps until nobody is at work */
    _Atomic int32_t stop;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;

    pid_t pid;
    uint32_t job;
    int32_t started; /* workers that run */
    int64_t spin;    /* nanoseconds */
    worker workers[];
};

/* ---- Waiting --------------------------------------------------------------------------- */

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static int64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Looks until seen(s, job) or the spin time is over. */
static bool spin_until(pool_shared *s, uint32_t job, bool (*seen)(pool_shared *, uint32_t))
{
    if (!s->spin) return false;
    int64_t end = nanoseconds() + s->spin;
    do {
        for (int i = 0; i < SPIN_LOOKS; i++) {
            if (seen(s, job)) return true;
            relax();
        }
    } while (nanoseconds() < end);
    return false;
}

/* Something for a worker whose last job was `job`. */
static bool called(pool_shared *s, uint32_t job)
{
    uint64_t state = atomic_load(&s->state);
    return ((state & SLOT_MASK) && (uint32_t)(state >> JOB_SHIFT) != job) ||
           atomic_load(&s->stop);
}

static bool nobody(pool_shared *s, uint32_t job)
{
    (void)job;
    return !(atomic_load(&s->state) & ACTIVE_MASK);
}

/* ---- Workers --------------------------------------------------------------------------- */

/* The same for the caller and for those that joined. */
static void take_tasks(pool_shared *s, int32_t id)
{
    int64_t task, tasks = s->tasks;
    while ((task = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed)) < tasks)
        s->fn(s->arg, task, id);
}

static bool join(pool_shared *s, uint32_t *job)
{
    uint64_t state = atomic_load(&s->state);
    while ((state & SLOT_MASK) && (uint32_t)(state >> JOB_SHIFT) != *job) {
        if (!atomic_compare_exchange_weak(&s->state, &state, state - SLOT_ONE + 1)) continue;
        *job = (uint32_t)(state >> JOB_SHIFT);
        return true;
    }
    return false;
}

static void leave(pool_shared *s)
{
    uint64_t before = atomic_fetch_sub(&s->state, 1);
    if ((before & ACTIVE_MASK) != 1 || !atomic_load(&s->waiting)) return;
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->done);
    pthread_mutex_unlock(&s->lock);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    pool_shared *s = w->shared;
    uint32_t job = 0;
    pthread_setname_np(pthread_self(), "softlogit");
    while (!atomic_load(&s->stop)) {
        if (join(s, &job)) {
            fp_mode mode = fp_enter();
            take_tasks(s, w->id);
            fp_leave(mode);
            leave(s);
        }
        if (spin_until(s, job, called)) continue;
        pthread_mutex_lock(&s->lock);
        atomic_fetch_add(&s->sleepers, 1);
        while (!called(s, job)) pthread_cond_wait(&s->wake, &s->lock);
        atomic_fetch_sub(&s->sleepers, 1);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

/* ---- Start and end --------------------------------------------------------------------- */

/* Starts what can be started, with all signals blocked: they are the host's affair. Returns 0
   or why a thread could not be made. */
static int start(pool_shared *s, int32_t workers, int64_t spin)
{
    sigset_t all, old;
    int error = 0;
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    pthread_cond_init(&s->done, NULL);
    s->pid = getpid();
    s->spin = spin;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int32_t i = 0; i < workers && !error; i++) {
        worker *w = &s->workers[i];
        w->shared = s;
        w->id = i + 1;
        error = pthread_create(&w->thread, NULL, worker_main, w);
        if (!error) s->started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error;
}

static void stop(pool_shared *s)
{
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->stop, 1);
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    for (int32_t i = 0; i < s->started; i++) pthread_join(s->workers[i].thread, NULL);
    pthread_cond_destroy(&s->done);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
}

slg_status pool_create(slg_ctx *ctx, slg_parallel_for parallel_for, void *user)
{
    int32_t workers = ctx->num_threads - 1;
    ctx->pool = (pool){ NULL, parallel_for, user };
    if (workers < 1 || parallel_for) return SLG_OK;
    pool_shared *s = ctx_alloc(ctx, sizeof *s + (size_t)workers * sizeof(worker));
    if (!s) return SLG_ERR_MEMORY;
    /* Where threads outnumber CPUs, one that spins keeps another from its work. */
    int error = start(s, workers, ctx->num_threads <= ctx->cpus ? SPIN_NANOSECONDS : 0);
    if (error) {
        int32_t started = s->started;
        stop(s);
        ctx_free(ctx, s);
        return slg_fail(ctx, SLG_ERR_THREAD, "thread %d of %d could not be created: error %d%s",
                        (int)started + 2, (int)ctx->num_threads, error,
                        error == EAGAIN ? ", a limit of threads or memory" : "");
    }
    ctx->pool.shared = s;
    return SLG_OK;
}

void pool_free(slg_ctx *ctx)
{
    pool_shared *s = ctx->pool.shared;
    if (!s) return;
    if (s->pid == getpid()) stop(s);
    ctx_free(ctx, s);
    ctx->pool.shared = NULL;
}

/* ---- Jobs ------------------------------------------------------------------------------ */

static void wake(pool_shared *s, int64_t count)
{
    pthread_mutex_lock(&s->lock);
    if (count >= atomic_load(&s->sleepers))
        pthread_cond_broadcast(&s->wake);
    else
        while (count-- > 0) pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

static void wait_for_workers(pool_shared *s)
{
    if (spin_until(s, 0, nobody)) return;
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->waiting, 1);
    while (!nobody(s, 0)) pthread_cond_wait(&s->done, &s->lock);
    atomic_store(&s->waiting, 0);
    pthread_mutex_unlock(&s->lock);
}

static void run_shared(pool_shared *s, int64_t tasks, pool_fn fn, void *arg)
{
    int64_t slots = tasks - 1 < s->started ? tasks - 1 : s->started;
    s->fn = fn;
    s->arg = arg;
    s->tasks = tasks;
    atomic_store_explicit(&s->next, 0, memory_order_relaxed);
    s->job++;
    atomic_store(&s->state, ((uint64_t)s->job << JOB_SHIFT) | ((uint64_t)slots * SLOT_ONE));

    int64_t awake = s->started - atomic_load(&s->sleepers);
    if (slots > awake) wake(s, slots - awake);
    take_tasks(s, 0);
    if (atomic_fetch_and(&s->state, ~SLOT_MASK) & ACTIVE_MASK) wait_for_workers(s);
}

typedef struct host_job {
    _Atomic int64_t next;
    int64_t tasks, calls;
    pool_fn fn;
    void *arg;
} host_job;

/* Call i is worker i: the host makes each call once, so ids of calls at the same time differ.
 */
static void host_call(void *arg, int64_t i)
{
    host_job *h = arg;
    int64_t task;
    if (i < 0 || i >= h->calls) return;
    fp_mode mode = fp_enter();
    while ((task = atomic_fetch_add_explicit(&h->next, 1, memory_order_relaxed)) < h->tasks)
        h->fn(h->arg, task, (int32_t)i);
    fp_leave(mode);
}

void pool_run(slg_ctx *ctx, int64_t tasks, pool_fn fn, void *arg)
{
    if (tasks <= 0) return;
    pool_shared *s = ctx->pool.shared;
    if (tasks > 1 && ctx->pool.parallel_for && ctx->num_threads > 1) {
        int64_t calls = tasks < ctx->num_threads ? tasks : ctx->num_threads;
        host_job h = { 0, tasks, calls, fn, arg };
        ctx->pool.parallel_for(ctx->pool.parallel_user, calls, host_call, &h);
        return;
    }
    fp_mode mode = fp_enter();
    if (tasks > 1 && s) {
        /* What cannot be started in a child, it does without: `started` says how many there
         * are. */
        if (s->pid != getpid()) (void)start(s, ctx->num_threads - 1, s->spin);
        if (s->started) {
            run_shared(s, tasks, fn, arg);
            fp_leave(mode);
            return;
        }
    }
    for (int64_t task = 0; task < tasks; task++) fn(arg, task, 0);
    fp_leave(mode);
}

int64_t pool_ranges(const slg_ctx *ctx, int64_t items, int64_t min_items)
{
    int64_t ranges = items / (min_items > 1 ? min_items : 1);
    if (ranges > ctx->num_threads) ranges = ctx->num_threads;
    return ranges > 1 ? ranges : 1;
}
