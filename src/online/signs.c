/*
 * signs.c - vectors of random signs: 64 a number of the stream, made where they are needed and
 * forgotten. Also the losses that are perturbed along them.
 */
#include <math.h>
#include <string.h>

#include "bandit_parts.h"
#include "core/rng.h"

/* Weights of a task; and numbers of a block. */
enum { TASK = 8 * KERNEL_BLOCK, WORDS = KERNEL_BLOCK / 64 };

static void words_of(const signs *e, int64_t s, int64_t first, int64_t n, uint64_t *words)
{
    const uint64_t at = (uint64_t)(s * ((e->size + 63) / 64) + first / 64);
    rng_numbers(e->rng.seed, e->rng.offset + at, (n + 63) / 64, words);
}

typedef struct dot_run {
    const kernel_table *k;
    const signs *e;
    const rows *x, *y;
    double *partial; /* [tasks, count] */
} dot_run;

static double given_dot(const dot_run *g, int64_t s, int64_t first, int64_t n, const float *x,
                        const float *y)
{
    float scratch[KERNEL_BLOCK];
    const float *e = rows_fetch(g->k, &g->e->epsilon, s, first, n, scratch);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)e[i] * ((double)x[i] - (double)y[i]);
    return sum;
}

static void dot_task(void *arg, int64_t task, int32_t worker)
{
    const dot_run *g = arg;
    const int64_t end = (task + 1) * TASK < g->e->size ? (task + 1) * TASK : g->e->size;
    float fx[KERNEL_BLOCK], fy[KERNEL_BLOCK];
    uint64_t words[WORDS];
    double *sum = g->partial + task * g->e->count;
    (void)worker;
    memset(sum, 0, (size_t)g->e->count * sizeof *sum);
    for (int64_t i = task * TASK; i < end; i += KERNEL_BLOCK) {
        const int64_t n = end - i < KERNEL_BLOCK ? end - i : KERNEL_BLOCK;
        const float *x = rows_fetch(g->k, g->x, 0, i, n, fx);
        const float *y = rows_fetch(g->k, g->y, 0, i, n, fy);
        for (int64_t s = 0; s < g->e->count; s++) {
            if (g->e->given) {
                sum[s] += given_dot(g, s, i, n, x, y);
                continue;
            }
            words_of(g->e, s, i, n, words);
            sum[s] += g->k->sign_dot((size_t)n, words, x, y);
        }
    }
}

slg_status signs_dot(slg_ctx *ctx, const signs *e, const rows *x, const rows *y, double *sum)
{
    const int64_t tasks = (e->size + TASK - 1) / TASK;
    dot_run g = { &ctx->k, e, x, y, NULL };
    g.partial = arena_alloc(ctx, (size_t)tasks, (size_t)e->count * sizeof *g.partial);
    if (!g.partial) return SLG_ERR_MEMORY;
    pool_run(ctx, tasks, dot_task, &g);
    memset(sum, 0, (size_t)e->count * sizeof *sum);
    for (int64_t i = 0; i < tasks * e->count; i++) sum[i % e->count] += g.partial[i];
    return SLG_OK;
}

void signs_add(const kernel_table *k, const signs *e, const double *a, int64_t first, int64_t n,
               double *y)
{
    uint64_t words[WORDS];
    float scratch[KERNEL_BLOCK];
    for (int64_t s = 0; s < e->count; s++) {
        if (e->given) {
            const float *given = rows_fetch(k, &e->epsilon, s, first, n, scratch);
            for (int64_t i = 0; i < n; i++) y[i] += a[s] * (double)given[i];
            continue;
        }
        words_of(e, s, first, n, words);
        k->sign_add((size_t)n, words, a[s], y);
    }
}

static double x_log_x(double x) { return x > 0 ? x * log(x) : 0; }

/*
 * softplus(f) - y f and q - y by e = exp(-|f|), so that neither is a difference of two large
 * numbers: they keep their digits where q is next to y, at 0 or 1.
 */
regress_point regress_at(int32_t rule, double f, double y)
{
    if (rule == SLG_GAP_SQUARE) return (regress_point){ f, (f - y) * (f - y) / 2, f - y };
    const double e = exp(-fabs(f)), near = 1 / (1 + e), far = e / (1 + e);
    const double cross = f > 0 ? (1 - y) * f : -y * f;
    const double loss = x_log_x(y) + x_log_x(1 - y) + cross + log1p(e);
    return (regress_point){ f > 0 ? near : far, fmax(0, loss),
                            f > 0 ? (1 - y) - far : far - y };
}
