/*
 * 04 - The Two-Pass Softmax Algorithm (2020).
 *
 * Speed, by the paper's protocol: x uniform in [-1000, 1000], an output that is in no cache,
 * one thread, subnormals flushed (the library does that by itself); time an element
 * of the three forms over the length, for AVX-512 and AVX2. Where two passes begin to win
 * is the machine's doing: it is where memory, not arithmetic, binds.
 * Accuracy: softmax without the maximum overflows on such a row; two passes do not.
 *
 * The bars are those of the specification, for straightforward kernels of all three forms.
 */
#include "papers.h"

enum { TWO_PASS, RECOMPUTE, RELOAD, AUTO, FORMS };
enum { LOG_FIRST = 12, LOG_LAST = 26, LOG_LAST_QUICK = 20, SIZES = LOG_LAST - LOG_FIRST + 1 };

static const char *const form_name[FORMS] = { "two-pass", "recompute", "reload",
                                              "library's choice" };
static const int32_t form_algorithm[FORMS] = { SLG_TWO_PASS, SLG_THREE_PASS_RECOMPUTE,
                                               SLG_THREE_PASS_RELOAD, SLG_ALGORITHM_AUTO };

/* Outputs by turns, out of memory of twice the last cache: when one's turn comes, it
   is cold. */
typedef struct outputs {
    float *data;
    size_t floats, at;
} outputs;

static float *next_output(outputs *o, size_t n)
{
    if (o->at + n > o->floats) o->at = 0;
    float *y = o->data + o->at;
    o->at += n;
    return y;
}

typedef struct job {
    run_t *r;
    slg_ctx *ctx;
    slg_softmax_opts opts;
    const float *x;
    size_t n;
    outputs *out;
} job;

static void softmax(const job *j, float *y)
{
    slg_tensor x = slg_tensor_1d(j->x, SLG_F32, (int64_t)j->n);
    slg_tensor out = slg_tensor_1d(y, SLG_F32, (int64_t)j->n);
    must(j->r, j->ctx, slg_softmax(j->ctx, &x, &j->opts, &out, NULL));
}

static void softmax_cold(void *arg)
{
    const job *j = arg;
    softmax(j, next_output(j->out, j->n));
}

static job make_job(run_t *r, slg_ctx *ctx, int form, const float *x, size_t n, outputs *out)
{
    job j = { .r = r, .ctx = ctx, .x = x, .n = n, .out = out };
    slg_softmax_opts_init(&j.opts, sizeof j.opts);
    j.opts.algorithm = form_algorithm[form];
    return j;
}

/* ---- Speed ------------------------------------------------------------------------------- */

typedef struct sweep {
    size_t count;
    double length[SIZES];
    double time[FORMS][SIZES]; /* ns an element */
    double gain[SIZES];        /* time of the better three-pass form / that of two passes */
    double choice[SIZES]; /* time of the best of the three / that of the library's choice */
} sweep;

static void race_forms(run_t *r, slg_ctx *ctx, const float *x, size_t n, outputs *out, sweep *s)
{
    job jobs[FORMS];
    contender c[FORMS] = { 0 };
    double ratio[FORMS];
    for (int f = 0; f < FORMS; f++) {
        jobs[f] = make_job(r, ctx, f, x, n, out);
        c[f] = (contender){ .name = form_name[f], .fn = softmax_cold, .arg = &jobs[f] };
    }
    race(r, c, FORMS, run_quick(r) ? 9 : n <= 1u << 23 ? 25 : 15, 1, ratio);
    size_t k = s->count++;
    s->length[k] = (double)n;
    for (int f = 0; f < FORMS; f++) s->time[f][k] = 1e9 * c[f].median / (double)n;
    s->gain[k] = fmin(ratio[RECOMPUTE], ratio[RELOAD]);
    s->choice[k] = fmin(1.0, s->gain[k]) / ratio[AUTO];
}

static void print_sweep(run_t *r, const char *isa, const sweep *s)
{
    note(r, "%s, ns an element:", isa);
    note(r, "  length    two-pass  recompute  reload  library's choice   two-pass is");
    for (size_t k = 0; k < s->count; k++) {
        double percent = 100 * (s->gain[k] - 1);
        note(r, "  2^%-6.0f  %8.4f  %9.4f  %6.4f  %16.4f   %.0f %% %s", log2(s->length[k]),
             s->time[TWO_PASS][k], s->time[RECOMPUTE][k], s->time[RELOAD][k], s->time[AUTO][k],
             fabs(percent), percent >= 0 ? "faster" : "slower");
    }
}

/* The extreme of v over lengths in [low, high]; sign 1: the largest, -1: the least. NaN if
   none. */
static double extreme(const sweep *s, const double *v, double low, double high, int sign)
{
    double best = (double)NAN;
    for (size_t k = 0; k < s->count; k++)
        if (s->length[k] >= low && s->length[k] <= high && !(sign * v[k] <= sign * best))
            best = v[k];
    return best;
}

/* log2 of the length from which on two passes win at every longer one; NaN if they never do. */
static double crossover(const sweep *s)
{
    size_t k = s->count;
    while (k > 0 && s->gain[k - 1] > 1) k--;
    return k < s->count ? log2(s->length[k]) : (double)NAN;
}

static void claim_range(run_t *r, const char *isa, const char *range, const char *which,
                        double value, bar b)
{
    char what[160];
    if (isnan(value)) return; /* not run: --quick */
    snprintf(what, sizeof what, "%s, %s: two-pass against the better three-pass, %s", isa,
             range, which);
    claim(r, what, "", value, "x", b);
}

static void claim_speed(run_t *r, const char *isa, bool avx512, const sweep *s)
{
    const double k = 1024, m = k * k;
    char what[160];
    double from = crossover(s);
    if (isnan(from))
        note(r, "%s: two passes do not win at the longest row", isa);
    else
        note(r, "%s: two passes win from 2^%.0f floats (x and y: %.3g MiB)", isa, from,
             exp2(from + 3) / m);

    snprintf(what, sizeof what, "%s: two-pass against the better three-pass, at best", isa);
    claim(r, what, avx512 ? "up to 1.28x" : "up to 1.18x", extreme(s, s->gain, 1, INFINITY, 1),
          "x", no_bar());
    claim_range(r, isa, "up to 64k floats", "at best (it is slower)",
                extreme(s, s->gain, 1, 64 * k, 1), avx512 ? at_most(1.0) : no_bar());
    claim_range(r, isa, "512k to 4M floats", "at least",
                extreme(s, s->gain, 512 * k, 4 * m, -1), avx512 ? at_least(1.05) : no_bar());
    claim_range(r, isa, "16M floats and more", "at least",
                extreme(s, s->gain, 16 * m, INFINITY, -1), avx512 ? at_least(1.0) : no_bar());
    snprintf(what, sizeof what, "%s: library's choice against the best of the three, at least",
             isa);
    claim(r, what, "", extreme(s, s->choice, 1, INFINITY, -1), "x", no_bar());
}

static void draw(run_t *r, const char *isa, const sweep *s)
{
    char title[80];
    snprintf(title, sizeof title, "%s: time an element", isa);
    figure(r, title, "length of the row", "ns", FIGURE_LOG_X | FIGURE_LOG_Y);
    for (int f = 0; f < FORMS; f++) series(r, form_name[f], s->count, s->length, s->time[f]);
}

static void speed(run_t *r)
{
    static const struct {
        int32_t isa;
        const char *name;
    } levels[] = { { SLG_ISA_AVX512, "AVX-512" }, { SLG_ISA_AVX2, "AVX2" } };
    const size_t longest = (size_t)1 << (run_quick(r) ? LOG_LAST_QUICK : LOG_LAST);
    slg_ctx_info_t info = { .size = sizeof info };
    slg_ctx *any = run_ctx(r, SLG_ISA_AUTO, 1);
    must(r, any, slg_ctx_info(any, &info));
    const size_t l3 = info.l3_bytes > 0 ? (size_t)info.l3_bytes : (size_t)32 << 20;
    outputs out = { .floats = 2 * l3 / sizeof(float) };
    if (out.floats < longest) out.floats = longest;
    out.data = run_floats(r, out.floats);
    float *x = run_floats(r, longest);
    rng g = rng_seed(4);
    fill_uniform(&g, longest, x, -1000, 1000);

    sweep sweeps[2] = { 0 };
    for (int i = 0; i < 2; i++) {
        slg_ctx *ctx = run_ctx(r, levels[i].isa, 1);
        if (!ctx) {
            note(r, "%s: this CPU has none", levels[i].name);
            continue;
        }
        for (size_t n = (size_t)1 << LOG_FIRST; n <= longest; n *= 2)
            race_forms(r, ctx, x, n, &out, &sweeps[i]);
        print_sweep(r, levels[i].name, &sweeps[i]);
        claim_speed(r, levels[i].name, i == 0, &sweeps[i]);
        draw(r, levels[i].name, &sweeps[i]);
    }
    figure(r, "Two-pass against the better three-pass", "length of the row", "times as fast",
           FIGURE_LOG_X);
    for (int i = 0; i < 2; i++)
        if (sweeps[i].count)
            series(r, levels[i].name, sweeps[i].count, sweeps[i].length, sweeps[i].gain);
    run_release(r, x);
    run_release(r, out.data);
}

/* ---- Accuracy ---------------------------------------------------------------------------- */

/* Of results above 1e-37, against long double. */
static double worst_error(size_t n, const float *x, const float *y, long double max,
                          long double sum)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        long double want = expl((long double)x[i] - max) / sum;
        if (want <= 1e-37L) continue;
        double error = (double)fabsl(((long double)y[i] - want) / want);
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

static void accuracy_at(run_t *r, slg_ctx *ctx, size_t n)
{
    float *x = run_floats(r, n), *y = run_floats(r, n), naive = 0;
    rng g = rng_seed(n);
    long double max = -INFINITY, sum = 0;
    char what[120];
    fill_uniform(&g, n, x, -1000, 1000);
    for (size_t i = 0; i < n; i++) max = fmaxl(max, x[i]);
    for (size_t i = 0; i < n; i++) sum += expl((long double)x[i] - max);
    for (size_t i = 0; i < n; i++) naive += expf(x[i]);

    snprintf(what, sizeof what, "softmax without the maximum, %.0e floats: its sum", (double)n);
    claim_words(r, what, "overflows", isfinite(naive) ? "finite" : "inf", "inf",
                !isfinite(naive));
    for (int f = 0; f < FORMS; f++) {
        const job j = make_job(r, ctx, f, x, n, NULL);
        softmax(&j, y);
        snprintf(what, sizeof what, "%s, %.0e floats: largest relative error", form_name[f],
                 (double)n);
        claim(r, what, "", worst_error(n, x, y, max, sum), "", at_most(1e-6));
    }
    run_release(r, x);
    run_release(r, y);
}

static void run(run_t *r)
{
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    accuracy_at(r, ctx, 1000);
    accuracy_at(r, ctx, 100000);
    if (!run_quick(r)) accuracy_at(r, ctx, 10000000);
    speed(r);
}

const paper paper_04_two_pass_softmax = { 4, "two-pass-softmax",
                                          "The Two-Pass Softmax Algorithm", run };
