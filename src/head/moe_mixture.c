/*
 * moe_mixture.c - see moe_mixture.h.
 */
#include "moe_mixture.h"

static const slg_moe_mixture defaults = { .size = sizeof(slg_moe_mixture), .chosen = 2 };

void slg_moe_mixture_init(slg_moe_mixture *m, size_t size)
{
    options_init(m, size, &defaults, sizeof defaults);
}

slg_status mixture_read(slg_ctx *ctx, const char *name, const slg_moe_mixture *given,
                        mix_params *m)
{
    slg_moe_mixture p = defaults;
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", name);
    SLG_TRY(options_read(ctx, name, given, &p, sizeof p));
    SLG_TRY(tensor_in(ctx, "beta1", p.beta1, DT_REAL, 2, 2));
    const int64_t k = p.beta1->shape[0], dim = p.beta1->shape[1];
    SLG_TRY(moe_in_1d(ctx, "beta0", p.beta0, DT_REAL, k));
    SLG_TRY(moe_in(ctx, "a", p.a, DT_REAL, k, dim));
    SLG_TRY(moe_in_1d(ctx, "b", p.b, DT_REAL, k));
    SLG_TRY(moe_in_1d(ctx, "log_variance", p.log_variance, DT_REAL, k));
    if (p.chosen < 1 || p.chosen > k)
        return slg_fail(ctx, SLG_ERR_RANGE, "%s: chosen is %d, must be from 1 to %lld experts",
                        name, p.chosen, (long long)k);
    *m = (mix_params){ .experts = k, .dim = dim, .chosen = p.chosen };
    m->beta1 = moe_doubles(ctx, p.beta1), m->a = moe_doubles(ctx, p.a);
    m->beta0 = moe_vector(ctx, p.beta0, k), m->b = moe_vector(ctx, p.b, k);
    m->log_v = moe_vector(ctx, p.log_variance, k);
    return m->beta1 && m->a && m->beta0 && m->b && m->log_v ? SLG_OK : SLG_ERR_MEMORY;
}

slg_status mix_alloc(slg_ctx *ctx, const mix_params *m, int64_t most, mix_rows *b)
{
    const size_t wide = (size_t)(most * m->experts), few = (size_t)(most * m->chosen);
    *b = (mix_rows){ .ctx = ctx, .m = m };
    b->score = arena_alloc(ctx, wide, sizeof(double));
    b->mu = arena_alloc(ctx, wide, sizeof(double));
    b->index = arena_alloc(ctx, few, sizeof(int32_t));
    b->g = arena_alloc(ctx, few, sizeof(double));
    b->log_g = arena_alloc(ctx, few, sizeof(double));
    b->r = arena_alloc(ctx, few, sizeof(double));
    b->loglik = arena_alloc(ctx, (size_t)most, sizeof(double));
    return b->score && b->mu && b->index && b->g && b->log_g && b->r && b->loglik
               ? SLG_OK
               : SLG_ERR_MEMORY;
}

void mix_choose(int64_t k, int64_t chosen, const double *s, int32_t *index)
{
    int64_t held = 0;
    for (int64_t i = 0; i < k; i++) {
        if (isnan(s[i])) {
            for (int64_t j = 0; j < chosen; j++) index[j] = (int32_t)j;
            return;
        }
        if (held == chosen && !(s[i] > s[index[held - 1]])) continue;
        int64_t at = held < chosen ? held++ : held - 1;
        for (; at > 0 && s[i] > s[index[at - 1]]; at--) index[at] = index[at - 1];
        index[at] = (int32_t)i;
    }
}

/* log of the sum of exponentials; p[j] = exp(z[j] - it), which sum to 1. */
static double normalise(int64_t n, const double *z, double *p)
{
    double top = z[0], sum = 0;
    for (int64_t j = 1; j < n; j++)
        if (z[j] > top || isnan(z[j])) top = z[j];
    for (int64_t j = 0; j < n; j++) sum += p[j] = z[j] == top ? 1 : exp(z[j] - top);
    for (int64_t j = 0; j < n; j++) p[j] /= sum;
    return top + log(sum);
}

static void mix_row(void *arg, int64_t task, int32_t worker)
{
    const mix_rows *b = arg;
    const mix_params *m = b->m;
    const int64_t end = moe_least(b->count, (task + 1) * MOE_ROWS), chosen = m->chosen;
    (void)worker;
    for (int64_t n = task * MOE_ROWS; n < end; n++) {
        const double *s = b->score + n * m->experts, *mu = b->mu + n * m->experts;
        int32_t *index = b->index + n * chosen;
        double *log_g = b->log_g + n * chosen, *g = b->g + n * chosen, *r = b->r + n * chosen;
        mix_choose(m->experts, chosen, s, index);
        for (int64_t j = 0; j < chosen; j++) log_g[j] = s[index[j]] + m->beta0[index[j]];
        const double lse = normalise(chosen, log_g, g);
        for (int64_t j = 0; j < chosen; j++) log_g[j] -= lse;
        if (!b->y) continue;
        for (int64_t j = 0; j < chosen; j++) {
            const double v = m->log_v[index[j]], e = b->y[n] - mu[index[j]] - m->b[index[j]];
            r[j] = log_g[j] - 0.5 * (1.8378770664093454836 + v + e * e * exp(-v));
        }
        b->loglik[n] = normalise(chosen, r, r);
    }
}

slg_status mix_evaluate(mix_rows *b)
{
    const mix_params *m = b->m;
    SLG_TRY(blas_dgemm(b->ctx, false, true, b->count, m->experts, m->dim, 1, b->x, m->dim,
                       m->beta1, m->dim, 0, b->score, m->experts));
    SLG_TRY(blas_dgemm(b->ctx, false, true, b->count, m->experts, m->dim, 1, b->x, m->dim, m->a,
                       m->dim, 0, b->mu, m->experts));
    pool_run(b->ctx, moe_tasks(b->count), mix_row, b);
    return SLG_OK;
}
