/*
 * floors.c - what cannot be beaten: moving the bytes, issuing the instructions, multiplying
 * the matrices. Compiled for this CPU. Streams prefetch 4 KiB ahead, since the hardware's
 * prefetcher stops at pages, or not at all, whichever is faster here: it is tried.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cblas.h>

#include "race.h"

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 vec;
#define LEN 16
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define STREAM _mm512_stream_ps
#define MAX _mm512_max_ps
#define SET _mm512_set1_ps
#define ADD_SCALED(a, b, c) _mm512_fmadd_ps(b, c, a)
#define FENCE _mm_sfence
#elif defined(__AVX__) && defined(__FMA__)
#include <immintrin.h>
typedef __m256 vec;
#define LEN 8
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define STREAM _mm256_stream_ps
#define MAX _mm256_max_ps
#define SET _mm256_set1_ps
#define ADD_SCALED(a, b, c) _mm256_fmadd_ps(b, c, a)
#define FENCE _mm_sfence
#else /* whatever the compiler makes of it */
typedef float vec __attribute__((vector_size(16), aligned(4)));
#define LEN 4
#define LOAD(p) (*(const vec *)(const void *)(p))
#define STORE(p, v) (*(vec *)(void *)(p) = (v))
#define STREAM STORE
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define SET(a) ((vec){ a, a, a, a })
#define ADD_SCALED(a, b, c) ((a) + (b) * (c))
#define FENCE() ((void)0)
#endif

enum { UNROLL = 8, STEP = UNROLL * LEN, AHEAD = 1024 /* floats */, LINE = 16 };

static inline void prefetch(const float *x)
{
    for (int i = 0; i < STEP; i += LINE) __builtin_prefetch(x + i);
}

/* ---- Streams over [0, n), n floats; what is left over of a step is done as well ---------- */

typedef struct floats {
    const float *x;
    float *y, *w, *m, *v;
    int64_t knob; /* what is tried. Distance of prefetching, 0: the line that is loaded anyway;
                     in stream28 the length of a block */
} floats;

static volatile float sink;

static void read_part(const floats *f, int64_t n)
{
    const float *x = f->x;
    vec top[UNROLL];
    int64_t i = 0;
    for (int j = 0; j < UNROLL; j++) top[j] = SET(-INFINITY);
    for (; i + STEP <= n; i += STEP) {
        prefetch(x + i + f->knob);
        for (int j = 0; j < UNROLL; j++) top[j] = MAX(top[j], LOAD(x + i + j * LEN));
    }
    for (int j = 1; j < UNROLL; j++) top[0] = MAX(top[0], top[j]);
    float lanes[LEN], max;
    memcpy(lanes, &top[0], sizeof lanes);
    max = lanes[0];
    for (int j = 1; j < LEN; j++) max = lanes[j] > max ? lanes[j] : max;
    for (; i < n; i++) max = x[i] > max ? x[i] : max;
    sink = max;
}

static void copy_part(const floats *f, int64_t n)
{
    int64_t i = 0;
    for (; i + STEP <= n; i += STEP) {
        prefetch(f->x + i + f->knob);
        for (int j = 0; j < STEP; j += LEN) STORE(f->y + i + j, LOAD(f->x + i + j));
    }
    for (; i < n; i++) f->y[i] = f->x[i];
}

static void copy_nt_part(const floats *f, int64_t n)
{
    int64_t i = 0;
    for (; i + STEP <= n; i += STEP) {
        prefetch(f->x + i + f->knob);
        for (int j = 0; j < STEP; j += LEN) STREAM(f->y + i + j, LOAD(f->x + i + j));
    }
    for (; i < n; i++) f->y[i] = f->x[i];
    FENCE();
}

static void fill_nt_part(const floats *f, int64_t n)
{
    const vec zero = SET(0.0f);
    int64_t i = 0;
    for (; i + STEP <= n; i += STEP)
        for (int j = 0; j < STEP; j += LEN) STREAM(f->y + i + j, zero);
    for (; i < n; i++) f->y[i] = 0;
    FENCE();
}

static void read_copy_part(const floats *f, int64_t n)
{
    read_part(f, n);
    copy_part(f, n);
}

static void read_copy_nt_part(const floats *f, int64_t n)
{
    read_part(f, n);
    copy_nt_part(f, n);
}

/* The same again, to w. */
static void copy_nt_2_part(const floats *f, int64_t n)
{
    copy_nt_part(f, n);
    copy_nt_part(&(floats){ .x = f->x, .y = f->w, .knob = f->knob }, n);
}

static void read_copy_nt_2_part(const floats *f, int64_t n)
{
    read_part(f, n);
    copy_nt_2_part(f, n);
}

static volatile float nothing = 0.0f; /* not known to the compiler */

static void add_scaled(float *y, const float *x, vec a, int64_t n)
{
    for (int64_t i = 0; i < n; i += LEN) STORE(y + i, ADD_SCALED(LOAD(y + i), LOAD(x + i), a));
}

/* Reads x, w, m, v and writes w, m, v: 28 bytes an element. In blocks, one array after
   the other while x is in L1: few streams at once, or many. */
static void stream28_part(const floats *f, int64_t n)
{
    const vec a = SET(nothing);
    for (int64_t i = 0; i < n; i += f->knob) {
        int64_t k = (n - i < f->knob ? n - i : f->knob) / LEN * LEN;
        add_scaled(f->w + i, f->x + i, a, k);
        add_scaled(f->m + i, f->x + i, a, k);
        add_scaled(f->v + i, f->x + i, a, k);
    }
}

/* And x, w read once more before: what a chain of transformations with a norm needs. */
static void stream36_part(const floats *f, int64_t n)
{
    const floats weights = { .x = f->w };
    read_part(f, n);
    read_part(&weights, n);
    stream28_part(f, n);
}

/* ---- On the threads of the race ---------------------------------------------------------- */

typedef void part_fn(const floats *f, int64_t n);

typedef struct part {
    part_fn *fn;
    floats f;
    int64_t n, times;
    int threads;
    atomic_int *arrived; /* counts up by `threads` every time */
} part;

static void *part_run(void *arg)
{
    const part *p = arg;
    for (int64_t t = 0; t < p->times; t++) {
        p->fn(&p->f, p->n);
        if (p->threads == 1) continue;
        int all = (int)(t + 1) * p->threads;
        atomic_fetch_add(p->arrived, 1);
        for (int spin = 0; atomic_load(p->arrived) < all; spin++)
            if (spin > 10000) sched_yield(); /* the other one may wait for this CPU */
    }
    return NULL;
}

/* The other threads live for a sample only, so that they take no time from other candidates. */
static void split_run(const race *r, part_fn *fn, floats f, int64_t n, int64_t times)
{
    enum { MOST = 64 };
    int threads = r->w->threads > 1 ? r->w->threads : 1;
    if (threads > MOST) threads = MOST;
    pthread_t id[MOST];
    part parts[MOST] = { { 0 } };
    atomic_int arrived = 0;
    for (int i = 0; i < threads; i++) {
        int64_t from = n * i / threads / STEP * STEP, to = n * (i + 1) / threads / STEP * STEP;
        if (i == threads - 1) to = n;
        floats here = f;
        here.x += from;
        if (f.y) here.y += from;
        if (f.w) here.w += from;
        if (f.m) here.m += from, here.v += from;
        parts[i] = (part){ fn, here, to - from, times, threads, &arrived };
        if (i > 0 && pthread_create(&id[i], NULL, part_run, &parts[i])) abort();
    }
    part_run(&parts[0]);
    for (int i = 1; i < threads; i++) pthread_join(id[i], NULL);
}

/* ---- Candidates -------------------------------------------------------------------------- */

typedef struct stream {
    part_fn *fn;
    floats f;
    int64_t n;
} stream;

static void stream_run(race *r, void *state, int64_t times)
{
    const stream *s = state;
    split_run(r, s->fn, s->f, s->n, times);
}

/* The shortest of three runs, in ns of wall clock. */
static double try_stream(race *r, stream *s, int64_t knob)
{
    double best = INFINITY;
    s->f.knob = knob;
    for (int i = 0; i < 3; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        stream_run(r, s, 1);
        clock_gettime(CLOCK_MONOTONIC, &b);
        best =
            fmin(best, 1e9 * (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec));
    }
    return best;
}

static void *stream_make(race *r, part_fn *fn, floats f, int64_t n, int64_t one, int64_t other)
{
    stream *s = malloc(sizeof *s);
    *s = (stream){ fn, f, n };
    double first = try_stream(r, s, one);
    if (try_stream(r, s, other) > first) s->f.knob = one;
    return s;
}

/* Where a call lasts a microsecond, copying says nothing. */
static void *stream_prepare(race *r, part_fn *fn)
{
    int64_t n = r->rows * r->cols;
    return n < 4096 ? NULL : stream_make(r, fn, (floats){ .x = r->x, .y = r->y }, n, 0, AHEAD);
}

static void *update_prepare(race *r, part_fn *fn)
{
    floats f = { .x = r->grad, .w = r->x, .m = r->m, .v = r->v };
    return stream_make(r, fn, f, r->cols, 4 * LEN, 2048);
}

static void stream_release(race *r, void *state) { (void)r, free(state); }

#define STREAM_FLOOR(name, text, make)                                                         \
    static void *name##_prepare(race *r, const char *arg)                                      \
    {                                                                                          \
        (void)arg;                                                                             \
        return make(r, name##_part);                                                           \
    }                                                                                          \
    const candidate floor_##name = { text,       FLOOR, NULL,           name##_prepare,        \
                                     stream_run, NULL,  stream_release, NULL };
STREAM_FLOOR(read, "read", stream_prepare)

/* Of data, as often as our solver passed over them. */
static void *read_data_prepare(race *r, const char *arg)
{
    (void)arg;
    return stream_make(r, read_part, (floats){ .x = r->x }, r->rows * r->dim, 0, AHEAD);
}

static double read_data_scale(const race *r) { return r->passes; }

const candidate floor_read_data = { "read",     FLOOR, NULL,           read_data_prepare,
                                    stream_run, NULL,  stream_release, read_data_scale };
STREAM_FLOOR(copy, "copy", stream_prepare)
STREAM_FLOOR(copy_nt, "copy-nt", stream_prepare)
STREAM_FLOOR(fill_nt, "fill-nt", stream_prepare)
STREAM_FLOOR(read_copy, "read+copy", stream_prepare)
STREAM_FLOOR(read_copy_nt, "read+copy-nt", stream_prepare)

/* With gradients for two matrices. */
static void *stream_prepare_2(race *r, part_fn *fn)
{
    floats f = { .x = r->x, .y = r->y, .w = r->dother };
    return r->dother ? stream_make(r, fn, f, r->rows * r->cols, 0, AHEAD) : NULL;
}

STREAM_FLOOR(copy_nt_2, "copy-nt-twice", stream_prepare_2)
STREAM_FLOOR(read_copy_nt_2, "read+copy-nt-twice", stream_prepare_2)

STREAM_FLOOR(stream28, "stream28", update_prepare)
STREAM_FLOOR(stream36, "stream36", update_prepare)

/* ---- Issue limit ------------------------------------------------------------------------- */

/*
 * The clock: multiplications of integers that wait for each other take 3 cycles each on every
 * x86-64 CPU of the last ten years (additions of constants are done by the renamer on some).
 * Beside each run three multiply-adds on full vectors, so that the clock is that of such load.
 */
enum { CLOCK_STEPS = 1000, CLOCK_CYCLES = CLOCK_STEPS * 16 * 3 };

#if defined(__AVX512F__) || (defined(__AVX__) && defined(__FMA__))
#if defined(__AVX512F__)
#define R "zmm"
#else
#define R "ymm"
#endif
#define FMA(a) "vfmadd231ps %%" R "12, %%" R "12, %%" R #a "\n\t"
#define ZERO(a) "vxorps %%xmm" #a ", %%xmm" #a ", %%xmm" #a "\n\t"

static void issue_run(race *r, void *state, int64_t times)
{
    uint64_t x = 3;
    (void)r, (void)state;
    __asm__ volatile(ZERO(0) ZERO(1) ZERO(2) ZERO(3) ZERO(4) ZERO(5) ZERO(6) ZERO(7) ZERO(8)
                         ZERO(9) ZERO(10) ZERO(11) ZERO(12)::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                               "xmm8", "xmm9", "xmm10", "xmm11", "xmm12");
    for (int64_t i = 0; i < times * CLOCK_STEPS; i++)
        __asm__ volatile(".rept 4\n\t"
                         "imul %0, %0\n\t" FMA(0) FMA(1) FMA(2) "imul %0, %0\n\t" FMA(3) FMA(4)
                             FMA(5) "imul %0, %0\n\t" FMA(6) FMA(7)
                                 FMA(8) "imul %0, %0\n\t" FMA(9) FMA(10) FMA(11) ".endr"
                         : "+r"(x)::"cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
                           "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12");
}

static void *issue_prepare(race *r, const char *arg)
{
    (void)arg;
    return r->rows == 1 && r->cols <= 1 << 18 && r->w->isa != SLG_ISA_AVX2 ? r : NULL;
}
#else
static void issue_run(race *r, void *state, int64_t times)
{
    (void)r, (void)state, (void)times;
}
static void *issue_prepare(race *r, const char *arg) { return (void)r, (void)arg, NULL; }
#endif

/* exp and accumulate: 9 instructions on two ports for 16 elements. */
static double issue_scale(const race *r)
{
    return 4.5 * (double)(r->rows * r->cols) / 16 / CLOCK_CYCLES;
}

const candidate floor_issue = { "issue-limit", FLOOR, NULL, issue_prepare,
                                issue_run,     NULL,  NULL, issue_scale };

double clock_ghz(void)
{
    struct timespec a, b;
    double best = 0;
    for (int i = 0; i < 20; i++) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        issue_run(NULL, NULL, 10);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        double ns = 1e9 * (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec);
        best = fmax(best, ns > 0 ? 10.0 * CLOCK_CYCLES / ns : 0);
    }
    return best < 20 ? best : NAN; /* where the loop is empty */
}

/* ---- Products ---------------------------------------------------------------------------- */

typedef struct gemms {
    int64_t block;
    float *logits, *teacher;
} gemms;

/* The blocks of rows that the library took, which has run before: from its scratch. */
static void *gemms_prepare(race *r, const char *arg)
{
    slg_ctx_info_t info = { .size = sizeof info };
    gemms *s = calloc(1, sizeof *s);
    (void)arg;
    slg_ctx_info(r->ctx, &info);
    s->block = info.scratch_peak_bytes / (r->cols * (int64_t)sizeof(float));
    if (r->teacher_hidden) s->block /= 2;
    if (s->block > 64) s->block -= s->block % 64;
    if (s->block > r->rows) s->block = r->rows;
    if (s->block < 1) s->block = 1;
    s->logits = race_floats(r, s->block * r->cols);
    if (r->teacher_hidden) s->teacher = race_floats(r, s->block * r->cols);
    return s;
}

static void gemms_run(race *r, void *state, int64_t times)
{
    const gemms *s = state;
    int cols = (int)r->cols, dim = (int)r->dim, wide = (int)r->teacher_dim;
    while (times--) {
        for (int64_t at = 0; at < r->rows; at += s->block) {
            int rows = (int)(r->rows - at < s->block ? r->rows - at : s->block);
            const float *h = r->hidden + at * dim;
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, cols, dim, 1.0f, h, dim,
                        r->weight, dim, 0.0f, s->logits, cols);
            if (s->teacher)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, cols, wide, 1.0f,
                            r->teacher_hidden + at * wide, wide, r->teacher_weight, wide, 0.0f,
                            s->teacher, cols);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, dim, cols, 1.0f,
                        s->logits, cols, r->weight, dim, 0.0f, r->dhidden + at * dim, dim);
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, cols, dim, rows, 1.0f,
                        s->logits, cols, h, dim, at ? 1.0f : 0.0f, r->dweight, dim);
        }
    }
}

static void gemms_release(race *r, void *state) { (void)r, free(state); }

const candidate floor_gemms = { "gemms",   FLOOR, NULL,          gemms_prepare,
                                gemms_run, NULL,  gemms_release, NULL };
