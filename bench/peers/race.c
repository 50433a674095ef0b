/*
 * race.c - one workload, raced as performance.md ("How to compare fairly") says: same buffers,
 * one process, every candidate once a trial in turn, inner repetition until a sample is long
 * enough, results checked. One thread: pinned, thread CPU time. More: wall clock, not pinned.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "race.h"

/* ---- Clock and CPUs --------------------------------------------------------------------- */

static double clock_of(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

double wall_clock(void) { return clock_of(CLOCK_MONOTONIC); }

double race_clock(const race *r)
{
    return clock_of(r->w->threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID);
}

/* Pins to the CPU that the process is on, or gives back all CPUs that it came with. */
static void pin(bool one)
{
    static cpu_set_t all;
    static int home = -1;
    if (home < 0) {
        sched_getaffinity(0, sizeof all, &all);
        home = sched_getcpu();
        if (home < 0) home = 0;
    }
    cpu_set_t set = all;
    if (one) {
        CPU_ZERO(&set);
        CPU_SET((size_t)home, &set);
    }
    sched_setaffinity(0, sizeof set, &set);
}

/* ---- Peak memory ------------------------------------------------------------------------ */

/* A line of /proc/self/status in bytes, NAN where there is none. */
static double status_bytes(const char *name)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kib = NAN;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name))) kib = atof(line + strlen(name) + 1);
    if (f) fclose(f);
    return kib * 1024;
}

/* Sets the peak to what is resident now. Returns that, NAN where the kernel does not do it. */
static double peak_reset(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY);
    bool done = fd >= 0 && write(fd, "5", 1) == 1;
    if (fd >= 0) close(fd);
    return done ? status_bytes("VmRSS") : NAN;
}

/* ---- Candidates ------------------------------------------------------------------------- */

static void check(race *r, entry *e)
{
    const operation *o = r->w->op;
    if (e->c->role == FLOOR) return;
    if (e->c->fetch) e->c->fetch(r, e->state);
    r->checked = e->c;
    e->error = o->check(r);
    e->checked = true;
    e->wrong = !(e->error <= o->tolerance);
}

/* Prepares, runs once (the warm-up) and checks. */
static void enter(race *r, const candidate *c, result *res)
{
    entry *e = &res->field[res->num_field];
    r->why = NULL;
    r->loss = r->memory = NAN;
    r->own_outputs = 0;
    r->part = 0;
    double before = peak_reset();
    void *state = c->prepare(r, c->arg);
    if (!state) {
        if (r->why) missing_add(c->name, r->why);
        if (res->num_field == 0) res->failed = true; /* the library itself */
        return;
    }
    *e = (entry){ .c = c, .state = state, .error = NAN, .ratio = NAN, .part = r->part };
    if (c->role != FLOOR && r->w->op->reset) r->w->op->reset(r);
    c->run(r, state, 1);
    e->memory = fmax(status_bytes("VmHWM") - before - r->own_outputs, 0);
    if (isnan(before)) e->memory = NAN;
    e->resident = e->memory;
    check(r, e);
    e->memory_counted = !isnan(r->memory);
    if (e->memory_counted) e->memory = r->memory;
    res->num_field++;
}

static double sample(race *r, entry *e)
{
    if (e->inner > 1) e->c->run(r, e->state, 1); /* caches as this candidate leaves them */
    double start = race_clock(r);
    e->c->run(r, e->state, e->inner);
    return race_clock(r) - start;
}

/* Inner repetitions until a sample lasts. Near that the shorter of two counts: first runs
   compile. */
static double calibrate(race *r, entry *e)
{
    const double least = r->quick ? 2e5 : 1e6;
    for (e->inner = 1;;) {
        double t = sample(r, e);
        if (t >= least && t < 50 * least) t = fmin(t, sample(r, e));
        if (t >= least) return t;
        double more = 1.2 * least / fmax(t, 1);
        e->inner = (int64_t)((double)e->inner * fmin(fmax(more, 1.1), 100)) + 1;
    }
}

/* ---- Figures ---------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The quantile q of n values, between neighbours linearly. */
static double quantile(const double *values, int n, double q)
{
    double sorted[MAX_TRIALS];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[i];
}

static void summarise(result *res, entry *e)
{
    double ratio[MAX_TRIALS];
    for (int t = 0; t < e->trials; t++) ratio[t] = e->sample[t] / res->field[0].sample[t];
    e->ratio = quantile(ratio, e->trials, 0.5);
    e->median = quantile(e->sample, e->trials, 0.5);
    e->low = quantile(e->sample, e->trials, 0);
    e->q1 = quantile(e->sample, e->trials, 0.25);
    e->q3 = quantile(e->sample, e->trials, 0.75);
}

const entry *result_find(const result *res, const char *name)
{
    for (int i = 0; i < res->num_field; i++)
        if (!strcmp(res->field[i].c->name, name)) return &res->field[i];
    return NULL;
}

/* The value that a goal is about; NAN where what it compares with is not there. */
static double goal_value(const result *res, const goal *g)
{
    const entry *ours = &res->field[0], *of = result_find(res, g->of);
    if (g->kind == AT_MOST) return of ? 1.0 / of->ratio : NAN;
    if (g->kind == LESS_MEMORY && !strcmp(g->of, "logits"))
        return (double)(res->rows * res->cols) * sizeof(float) / ours->memory;
    if (g->kind == LESS_MEMORY) return of ? of->memory / ours->memory : NAN;
    double best = NAN;
    bool any = !strcmp(g->of, "best");
    for (int i = 1; i < res->num_field; i++) {
        const entry *e = &res->field[i];
        if ((e->c->role != PEER && (any || e->c->role != FORM)) || e->wrong) continue;
        if (any || !strncmp(e->c->name, g->of, strlen(g->of))) best = fmin(best, e->ratio);
    }
    return best;
}

/* ---- The race --------------------------------------------------------------------------- */

static void make_context(race *r, result *res)
{
    slg_ctx_opts opts;
    slg_ctx_opts_init(&opts, sizeof opts);
    opts.isa = r->w->isa;
    opts.num_threads = r->w->threads > 1 ? r->w->threads : 1;
    slg_status status = slg_ctx_create(&opts, &r->ctx);
    if (status == SLG_OK) return;
    fprintf(stderr, "peers: %s: %s\n", r->w->name, slg_status_string(status));
    res->failed = status != SLG_ERR_UNSUPPORTED; /* a level that this CPU has not */
}

static void trials(race *r, result *res)
{
    double round = 0;
    for (int i = 0; i < res->num_field; i++) round += calibrate(r, &res->field[i]);
    int n = r->quick            ? 3
            : 21 * round < 10e9 ? 21
            : 9 * round < 60e9  ? 9
            : 5 * round < 60e9  ? 5
                                : 3;
    for (int t = 0; t < n; t++) {
        for (int i = 0; i < res->num_field; i++) {
            entry *e = &res->field[i];
            double scale = e->c->scale ? e->c->scale(r) : 1;
            if (e->part) scale *= (double)r->rows / (double)e->part;
            e->sample[t] = sample(r, e) / (double)e->inner * scale;
            e->trials = t + 1;
        }
    }
}

void race_run(const workload *w, bool quick, result *res)
{
    race r = { .w = w, .quick = quick, .rows = w->rows, .cols = w->cols, .dim = w->dim };
    *res = (result){ .w = w, .quick = quick };
    pin(w->threads <= 1);
    set_peer_threads(w->threads > 1 ? w->threads : 1);
    make_context(&r, res);
    if (!r.ctx) return;
    w->op->setup(&r);
    res->rows = r.rows, res->cols = r.cols, res->dim = r.dim;

    for (const candidate *const *c = w->op->field; *c && !res->failed; c++) enter(&r, *c, res);
    if (!res->failed) {
        trials(&r, res);
        for (int i = 0; i < res->num_field; i++) summarise(res, &res->field[i]);
        for (int i = 0; i < MAX_GOALS && w->goals[i].kind; i++)
            res->goal_value[i] = goal_value(res, &w->goals[i]);
        res->failed = res->field[0].wrong;
        res->flops = r.flops, res->measure = r.measure;
        if (r.parts) r.parts(&r, res);
    }
    for (int i = 0; i < res->num_field; i++)
        if (res->field[i].c->release) res->field[i].c->release(&r, res->field[i].state);
    slg_ctx_free(r.ctx);
    race_free(&r);
    pin(false);
}
