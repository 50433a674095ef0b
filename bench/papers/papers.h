/*
 * papers.h - what a re-run of a paper's claims is written with.
 *
 * To add a paper: one file NN_slug.c here, which defines
 *
 *     static void run(run_t *r) { ... claim(r, ...); ... }
 *     const paper paper_NN_slug = { NN, "the-slug", "The title", run };
 *
 * (underscores for the dashes of the slug in both names). CMake finds it; nothing else
 * is touched. The programs call the library through its public headers only.
 *
 * run() checks nothing by itself: what fails ends the paper by longjmp, after which its memory
 * and contexts are freed and the next paper runs. So use run_floats() and run_ctx(), not
 * malloc.
 */
#ifndef PAPERS_PAPERS_H
#define PAPERS_PAPERS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <softlogit/softlogit.h>

typedef struct run_t run_t; /* a paper being run */

typedef struct paper {
    int number;
    const char *slug, *title;
    void (*run)(run_t *r);
} paper;

/* ---- Claims: one line each --------------------------------------------------------------- */

/* What ours must be for the claim to hold. */
typedef struct bar {
    enum { BAR_NONE, BAR_AT_LEAST, BAR_AT_MOST, BAR_BETWEEN } kind;
    double low, high;
} bar;

static inline bar at_least(double low) { return (bar){ BAR_AT_LEAST, low, 0 }; }
static inline bar at_most(double high) { return (bar){ BAR_AT_MOST, 0, high }; }
static inline bar between(double low, double high) { return (bar){ BAR_BETWEEN, low, high }; }
static inline bar no_bar(void) { return (bar){ BAR_NONE, 0, 0 }; } /* a figure, not a claim */

/*
 * what: "AVX-512, 16M floats: two-pass against the better three-pass"
 * paper_says: the paper's figure in words, "up to 1.28"; "" if it has none
 * unit: "x", "%", "nats", "ms"; ""
 * A NaN does not hold. A bar that is missed does not fail the program: it is reported.
 */
void claim(run_t *r, const char *what, const char *paper_says, double ours, const char *unit,
           bar b);

/* The same where it takes words: "inf", "equal bits". */
void claim_words(run_t *r, const char *what, const char *paper_says, const char *ours,
                 const char *wanted, bool holds);

/* A remark, printed under the claims and kept in the JSON. */
void note(run_t *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- Figures: kept in the JSON, drawn by plot.py to docs/figures/NN-slug.svg ------------- */

enum { FIGURE_LOG_X = 1, FIGURE_LOG_Y = 2, FIGURE_POINTS = 4 /* scatter, no lines */ };

/* Starts a panel; the series that follow go into it. */
void figure(run_t *r, const char *title, const char *x_label, const char *y_label, int flags);
void series(run_t *r, const char *name, size_t n, const double *x, const double *y);

/* ---- The run ----------------------------------------------------------------------------- */

/* --quick: a few seconds, otherwise a minute, on two cores. */
bool run_quick(const run_t *r);

/* Ends the paper. Skip: something that it needs is not on this machine; fail: it went wrong. */
_Noreturn void run_skip(run_t *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
_Noreturn void run_fail(run_t *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Fails the paper if a call of the library did: must(r, ctx, slg_softmax(ctx, ...)). */
void must(run_t *r, const slg_ctx *ctx, slg_status status);

/* A context; freed at the end. isa: slg_isa; threads 0: as many as there are. NULL where
   the CPU lacks that isa. */
slg_ctx *run_ctx(run_t *r, int32_t isa, int32_t threads);

/* Zeroed and touched, 2 MiB-aligned on huge pages where large; freed at the end, or by
   run_release. Fails the paper where there is none. */
void *run_memory(run_t *r, size_t bytes);
void run_release(run_t *r, void *memory);
static inline float *run_floats(run_t *r, size_t n) { return run_memory(r, n * sizeof(float)); }
static inline double *run_doubles(run_t *r, size_t n)
{
    return run_memory(r, n * sizeof(double));
}

/* ---- Random numbers: seeded, the same everywhere ----------------------------------------- */

typedef struct rng {
    uint64_t state;
    double spare;
    bool has_spare;
} rng;

rng rng_seed(uint64_t seed);
uint64_t rng_bits(rng *g);
double rng_uniform(rng *g, double low, double high); /* [low, high) */
double rng_normal(rng *g, double mean, double sd);
int64_t rng_below(rng *g, int64_t n); /* [0, n) */
void rng_shuffle(rng *g, size_t n, int64_t *items);
void fill_uniform(rng *g, size_t n, float *x, double low, double high);
void fill_normal(rng *g, size_t n, float *x, double mean, double sd);

/* ---- Timing: performance.md, "How to compare fairly" ------------------------------------- */

/* Something to time. fn does the work once; it is called often enough to last 1 ms. */
typedef struct contender {
    const char *name;
    void (*fn)(void *arg);
    void *arg;
    double median, least, spread; /* out: seconds a call; spread: quartile 3 / quartile 1 */
} contender;

/*
 * Interleaved: each trial times every contender once, after one round unmeasured. threads == 1:
 * pinned to one CPU, on its CPU time; otherwise wall clock. trials: odd, 9 or more; 21 or more
 * for what is short. ratio[i], if not NULL, becomes the median over the trials of the time
 * of contender i by that of contender 0.
 */
void race(run_t *r, contender *c, size_t count, int trials, int threads, double *ratio);

double median(size_t n, double *values); /* sorts them */
double seconds(void);                    /* wall clock */

/* ---- Tables ------------------------------------------------------------------------------ */

/* A CSV file, plain or .gz, in memory. Quotes are taken off; lines that start with # left
   out. */
typedef struct csv {
    size_t rows, cols;
    char **cells; /* [rows][cols]; "" where a row is short */
} csv;

/*
 * name: a path, or a file in $SOFTLOGIT_DATA, bench/papers/data or scikit-learn's data. Skips
 * the paper where there is none. separator 0: any run of blanks. A header is row 0.
 */
csv csv_read(run_t *r, const char *name, char separator);
static inline const char *csv_text(const csv *t, size_t row, size_t col)
{
    return t->cells[row * t->cols + col];
}
double csv_number(const csv *t, size_t row, size_t col);     /* NaN if it is none */
size_t csv_column(run_t *r, const csv *t, const char *name); /* by row 0; fails if not there */

/* A whole text, 0-terminated, found as csv_read finds it. */
char *text_read(run_t *r, const char *name, size_t *length);

/* Whether text_read would find it. */
bool text_there(const char *name);

#endif
