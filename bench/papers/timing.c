/*
 * timing.c - interleaved medians. Ratios come from one trial each, so that what the machine
 * does meanwhile touches both sides.
 */
#include "run.h"

#include <sched.h>
#include <time.h>

#define SAMPLE 1e-3 /* seconds that a sample lasts at least */

static double clock_of(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double seconds(void) { return clock_of(CLOCK_MONOTONIC); }

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(size_t n, double *values)
{
    if (n == 0) return (double)NAN;
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

static double sample(const contender *c, int64_t times, clockid_t id)
{
    double from = clock_of(id);
    for (int64_t i = 0; i < times; i++) c->fn(c->arg);
    return (clock_of(id) - from) / (double)times;
}

/* To the last CPU that this thread may use; what was allowed goes to *before. */
static void pin(cpu_set_t *before)
{
    CPU_ZERO(before);
    if (sched_getaffinity(0, sizeof *before, before) != 0) return;
    for (size_t i = CPU_SETSIZE; i-- > 0;) {
        if (!CPU_ISSET(i, before)) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(i, &one);
        sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

/* Calls a sample: one unmeasured call, then twice as many until a sample lasts. */
static int64_t calls_a_sample(const contender *c, clockid_t id)
{
    int64_t times = 1;
    c->fn(c->arg);
    for (;;) {
        double took = sample(c, times, id) * (double)times;
        if (took >= SAMPLE) return times;
        times = took < SAMPLE / 16 ? 8 * times : 2 * times;
    }
}

void race(run_t *r, contender *c, size_t count, int trials, int threads, double *ratio)
{
    const clockid_t id = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    const size_t n = (size_t)trials;
    double *t = run_doubles(r, count * n), *quotient = run_doubles(r, n);
    int64_t *times = run_memory(r, count * sizeof *times);
    cpu_set_t before;
    if (threads == 1) pin(&before);
    for (size_t i = 0; i < count; i++) times[i] = calls_a_sample(&c[i], id);
    for (size_t trial = 0; trial < n; trial++)
        for (size_t i = 0; i < count; i++) t[i * n + trial] = sample(&c[i], times[i], id);
    if (threads == 1 && CPU_COUNT(&before)) sched_setaffinity(0, sizeof before, &before);

    for (size_t i = 0; ratio && i < count; i++) {
        for (size_t trial = 0; trial < n; trial++)
            quotient[trial] = t[i * n + trial] / t[trial];
        ratio[i] = median(n, quotient);
    }
    for (size_t i = 0; i < count; i++) {
        c[i].median = median(n, t + i * n);
        c[i].least = t[i * n];
        c[i].spread = t[i * n + 3 * n / 4] / t[i * n + n / 4];
    }
    run_release(r, t);
    run_release(r, quotient);
    run_release(r, times);
}
