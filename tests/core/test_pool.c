/* The pool: each task once, worker ids, hosts' loops, fork, floating-point mode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/ctx.h"

enum { MAX_TASKS = 2000, MAX_WORKERS = 16 };

/* The child of a process with threads may start threads: it is what the fork test is about. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "die_after_fork=0"; }

static slg_ctx *make(int32_t threads, slg_parallel_for parallel_for, void *user)
{
    slg_ctx *ctx = NULL;
    slg_ctx_opts o;
    slg_ctx_opts_init(&o, sizeof o);
    o.num_threads = threads;
    o.parallel_for = parallel_for;
    o.parallel_user = user;
    assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
    return ctx;
}

typedef struct job {
    int32_t workers; /* ids must be under this */
    int64_t tasks;
    int plain[MAX_TASKS];         /* written by tasks, read by the caller: a race would show */
    atomic_int busy[MAX_WORKERS]; /* a task runs under this id */
    atomic_int wrong;
    int microseconds; /* a task takes */
} job;

/* By its effect: fegetround() tells of x87, which the library leaves alone. */
static bool rounds_to_nearest(void)
{
    volatile float one = 1.0f, less = 0x1p-25f, more = 0x1.8p-24f;
    return one + less == 1.0f && one + more == 1.0f + 0x1p-23f && -one - less == -1.0f;
}

static void one(void *arg, int64_t task, int32_t worker)
{
    job *j = arg;
    if (task < 0 || task >= j->tasks || worker < 0 || worker >= j->workers) {
        atomic_fetch_add(&j->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&j->busy[worker], 1)) atomic_fetch_add(&j->wrong, 1);
    if (!rounds_to_nearest()) atomic_fetch_add(&j->wrong, 1);
    if (j->microseconds) usleep((useconds_t)j->microseconds);
    j->plain[task]++;
    atomic_fetch_sub(&j->busy[worker], 1);
}

static void run(slg_ctx *ctx, int64_t tasks, int microseconds)
{
    static job j;
    memset(&j, 0, sizeof j);
    j.workers = ctx->num_threads;
    j.tasks = tasks;
    j.microseconds = microseconds;
    pool_run(ctx, tasks, one, &j);
    assert_int_equal(j.wrong, 0);
    for (int64_t i = 0; i < MAX_TASKS; i++) assert_int_equal(j.plain[i], i < tasks);
}

static void test_each_once(void **state)
{
    (void)state;
    const int32_t threads[] = { 1, 2, 3, 8 };
    for (size_t i = 0; i < 4; i++) {
        slg_ctx *ctx = make(threads[i], NULL, NULL);
        const int64_t tasks[] = { -1, 0, 1, 2, 3, 7, 8, 9, 100, MAX_TASKS };
        for (size_t k = 0; k < sizeof tasks / sizeof *tasks; k++) run(ctx, tasks[k], 0);
        run(ctx, 20, 1000); /* others get some; the caller or a worker comes last */
        usleep(2000);       /* all asleep */
        run(ctx, 5, 100);
        slg_ctx_free(ctx);
    }
}

static void test_takes_part(void **state)
{
    (void)state;
    slg_ctx *ctx = make(3, NULL, NULL);
    job j = { .workers = 3, .tasks = 30, .microseconds = 2000 };
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    pool_run(ctx, 30, one, &j); /* 60 ms by one thread */
    clock_gettime(CLOCK_MONOTONIC, &b);
    double ms = 1e3 * (double)(b.tv_sec - a.tv_sec) + 1e-6 * (double)(b.tv_nsec - a.tv_nsec);
    assert_int_equal(j.wrong, 0);
    assert_true(ms < 55);
    slg_ctx_free(ctx);
}

static void add(void *arg, int64_t task, int32_t worker)
{
    (void)worker;
    ((int64_t *)arg)[16 * task] += task + 1;
}

static void test_many_small(void **state)
{
    (void)state;
    const int32_t threads[] = { 2, 3, 8 };
    for (size_t i = 0; i < 3; i++) {
        slg_ctx *ctx = make(threads[i], NULL, NULL);
        int64_t sums[16 * 9] = { 0 };
        for (int k = 0; k < 10000; k++) pool_run(ctx, 2 + k % 8, add, sums);
        for (int t = 0; t < 9; t++)
            assert_int_equal(sums[16 * t], (t + 1) * (t < 2 ? 10000 : 1250 * (9 - t)));
        slg_ctx_free(ctx);
    }
    for (int k = 0; k < 200; k++) slg_ctx_free(make(3, NULL, NULL)); /* thread churn */
}

static void test_ranges(void **state)
{
    (void)state;
    slg_ctx *ctx = make(4, NULL, NULL);
    assert_int_equal(pool_ranges(ctx, 0, 1), 1);
    assert_int_equal(pool_ranges(ctx, 3, 1), 3);
    assert_int_equal(pool_ranges(ctx, 100, 1), 4);
    assert_int_equal(pool_ranges(ctx, 100, 40), 2);
    assert_int_equal(pool_ranges(ctx, 100, 0), 4);
    assert_int_equal(pool_ranges(ctx, INT64_MAX, INT64_MAX), 1);
    for (int64_t items = 0; items < 20; items++)
        for (int64_t n = 1; n < 6; n++) {
            assert_int_equal(pool_range_start(items, n, 0), 0);
            assert_int_equal(pool_range_start(items, n, n), items);
            for (int64_t i = 0; i < n; i++) {
                int64_t size =
                    pool_range_start(items, n, i + 1) - pool_range_start(items, n, i);
                assert_true(size == items / n || size == items / n + 1);
            }
        }
    slg_ctx_free(ctx);
}

/* ---- Hosts ----------------------------------------------------------------------------- */

typedef struct host {
    int order;
    int64_t calls, n;
} host;

typedef struct host_thread_t {
    slg_parallel_fn fn;
    void *arg;
    int64_t i;
} host_thread_t;

static void *host_thread(void *arg)
{
    host_thread_t *t = arg;
    t->fn(t->arg, t->i);
    return NULL;
}

/* order 0: forwards, 1: backwards, both on this thread; 2: each on a thread of its own. */
static void host_for(void *user, int64_t n, slg_parallel_fn fn, void *arg)
{
    host *h = user;
    h->calls++;
    h->n = n;
    if (h->order < 2) {
        for (int64_t i = 0; i < n; i++) fn(arg, h->order ? n - 1 - i : i);
        return;
    }
    pthread_t threads[MAX_WORKERS];
    host_thread_t args[MAX_WORKERS];
    for (int64_t i = 0; i < n; i++) {
        args[i] = (host_thread_t){ fn, arg, i };
        assert_int_equal(pthread_create(&threads[i], NULL, host_thread, &args[i]), 0);
    }
    for (int64_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

static void test_host(void **state)
{
    (void)state;
    for (int order = 0; order < 3; order++)
        for (int32_t threads = 1; threads <= 5; threads += 2) {
            host h = { order, 0, 0 };
            slg_ctx *ctx = make(threads, host_for, &h);
            assert_null(ctx->pool.shared);
            run(ctx, 1, 0);
            assert_int_equal(h.calls, 0);
            run(ctx, 2, 100);
            run(ctx, 100, 10);
            assert_int_equal(h.calls, threads > 1 ? 2 : 0);
            assert_int_equal(h.n, threads > 1 ? threads : 0);
            slg_ctx_free(ctx);
        }
}

/* ---- Fork ------------------------------------------------------------------------------ */

/* gcc's ThreadSanitizer cannot follow: it still counts the parent's threads in the child, and
   ends it ("dup thread with used id") where a new one gets the memory of one of them. */
#if defined(__SANITIZE_THREAD__)
enum { CHILD_HAS_THREADS = 0 };
#else
enum { CHILD_HAS_THREADS = 1 };
#endif

static int child(slg_ctx *ctx, bool use)
{
    alarm(5); /* a hang ends the child */
    static job j;
    if (use) {
        for (int k = 0; k < 100; k++) {
            memset(&j, 0, sizeof j);
            j.workers = ctx->num_threads;
            j.tasks = 50;
            j.microseconds = k == 50 ? 500 : 0;
            pool_run(ctx, 50, one, &j);
            if (j.wrong) return 1;
            for (int i = 0; i < 50; i++)
                if (j.plain[i] != 1) return 2;
        }
    }
    slg_ctx_free(ctx);
    return 0;
}

static void test_fork(void **state)
{
    (void)state;
    for (int k = 0; k < 8; k++) {
        slg_ctx *ctx = make(3, NULL, NULL);
        run(ctx, 100, 0);
        if (k & 1) usleep(3000); /* workers asleep, or at their spinning */
        pid_t pid = fork();
        if (pid == 0) _exit(child(ctx, CHILD_HAS_THREADS && (k & 2)));
        assert_true(pid > 0);
        run(ctx, 100, 0); /* the parent goes on */
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        run(ctx, 100, 0);
        slg_ctx_free(ctx);
    }
}

/* ---- Threads that cannot be had -------------------------------------------------------- */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                     \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#if !defined(SANITIZED) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static int threads_left = -1; /* no limit */

/* In place of libc's; sanitizers have one of their own there. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                   void *arg)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");
    if (threads_left == 0) return EAGAIN;
    if (threads_left > 0) threads_left--;
    memcpy(&real, &symbol, sizeof real);
    return real(thread, attr, fn, arg);
}

static void test_no_threads(void **state)
{
    (void)state;
    for (int left = 0; left < 3; left++) {
        slg_ctx_opts o;
        slg_ctx *ctx = NULL;
        slg_ctx_opts_init(&o, sizeof o);
        o.num_threads = 4;
        threads_left = left;
        slg_status status = slg_ctx_create(&o, &ctx);
        threads_left = -1;
        assert_int_equal(status, SLG_ERR_THREAD);
        assert_null(ctx);

        /* A child does with as many as it gets. */
        ctx = make(4, NULL, NULL);
        pid_t pid = fork();
        if (pid == 0) {
            threads_left = left;
            _exit(child(ctx, true));
        }
        int exited;
        assert_int_equal(waitpid(pid, &exited, 0), pid);
        assert_true(WIFEXITED(exited) && WEXITSTATUS(exited) == 0);
        slg_ctx_free(ctx);
    }
}
#else
static void test_no_threads(void **state) { (void)state, skip(); }
#endif

/* ---- State of threads ------------------------------------------------------------------ */

static void test_mode(void **state)
{
    (void)state;
    const int modes[] = { FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO };
    host h = { 2, 0, 0 };
    for (int kind = 0; kind < 3; kind++) {
        slg_ctx *ctx = make(kind == 0 ? 1 : 3, kind == 2 ? host_for : NULL, &h);
        for (int i = 0; i < 4; i++)
            for (int64_t tasks = 1; tasks <= 21; tasks += 20) {
                job j = { .workers = ctx->num_threads, .tasks = tasks, .microseconds = 50 };
                fesetround(modes[i]);
                feclearexcept(FE_ALL_EXCEPT);
                feraiseexcept(FE_DIVBYZERO);
                pool_run(ctx, tasks, one, &j);
                int after = fegetround();
                int flags = fetestexcept(FE_ALL_EXCEPT);
                fesetround(FE_TONEAREST);
                feclearexcept(FE_ALL_EXCEPT);
                assert_int_equal(j.wrong, 0);
                assert_int_equal(after, modes[i]);
                assert_int_equal(flags, FE_DIVBYZERO);
            }
        slg_ctx_free(ctx);
    }
}

static void subnormal(void *arg, int64_t task, int32_t worker)
{
    volatile float tiny = 0x1p-126f, half = 0.5f;
    volatile float *out = arg;
    (void)worker;
    out[task] = tiny * half;
    usleep(200);
}

static void test_flushes(void **state)
{
    (void)state;
#if defined(__x86_64__)
    slg_ctx *ctx = make(3, NULL, NULL);
    float out[20];
    memset(out, 0xFF, sizeof out);
    pool_run(ctx, 20, subnormal, out);
    for (int i = 0; i < 20; i++) assert_true(out[i] == 0.0f);
    slg_ctx_free(ctx);
#endif
}

static void signals(void *arg, int64_t task, int32_t worker)
{
    sigset_t set;
    (void)task;
    usleep(500);
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    if (worker && (!sigismember(&set, SIGINT) || !sigismember(&set, SIGALRM)))
        atomic_fetch_add((atomic_int *)arg, 1);
    if (!worker && sigismember(&set, SIGINT)) atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_signals(void **state)
{
    (void)state;
    slg_ctx *ctx = make(3, NULL, NULL);
    atomic_int wrong = 0;
    pool_run(ctx, 30, signals, &wrong);
    assert_int_equal(wrong, 0);
    slg_ctx_free(ctx);
}

/* Contexts of different threads share nothing. */
static void *own_context(void *arg)
{
    (void)arg;
    slg_ctx *ctx = NULL;
    slg_ctx_opts o;
    slg_ctx_opts_init(&o, sizeof o);
    o.num_threads = 2;
    if (slg_ctx_create(&o, &ctx)) return (void *)1;
    int64_t sums[16 * 2] = { 0 };
    for (int k = 0; k < 500; k++) {
        op_begin(ctx, "slg_test");
        if (!arena_alloc(ctx, 100, 8)) return (void *)1;
        pool_run(ctx, 2, add, sums);
        op_end(ctx, SLG_OK);
    }
    slg_ctx_free(ctx);
    return sums[0] == 500 && sums[16] == 1000 ? NULL : (void *)1;
}

static void test_contexts(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, own_context, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_once),  cmocka_unit_test(test_takes_part),
        cmocka_unit_test(test_many_small), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_host),       cmocka_unit_test(test_fork),
        cmocka_unit_test(test_mode),       cmocka_unit_test(test_flushes),
        cmocka_unit_test(test_signals),    cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_no_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
