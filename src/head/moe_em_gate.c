/*
 * moe_em_gate.c - the M-step of the gate: one damped Newton step on Q = sum of r ln g over the
 * betas of all experts but the last. S is held in gradient and Hessian; where the step is
 * judged it is chosen anew, and a row whose responsibility fell out of S counts for it.
 */
#include "moe_mixture.h"

enum { LOST = -1000 }; /* ln g of an expert that is no longer chosen */

typedef struct newton {
    slg_ctx *ctx;
    int64_t count, dim, experts, chosen, size; /* size = (experts - 1) (dim + 1) */
    const double *x, *r;
    const int32_t *index;
    bool blocks; /* no others than the diagonal ones */
    double *gradient, *hessian;
} newton;

/* s and z of a row's experts by beta [experts, dim + 1]. */
static void scores(const newton *w, const double *beta, const double *x, double *s)
{
    const int64_t d = w->dim + 1;
    for (int64_t i = 0; i < w->experts; i++) {
        s[i] = 0;
        for (int64_t c = 0; c < w->dim; c++) s[i] += beta[i * d + c] * x[c];
    }
}

static double log_weights(const newton *w, const double *beta, const double *s,
                          const int32_t *index, double *z)
{
    double top = -(double)INFINITY, sum = 0;
    for (int64_t j = 0; j < w->chosen; j++) {
        z[j] = s[index[j]] + beta[index[j] * (w->dim + 1) + w->dim];
        if (z[j] > top) top = z[j];
    }
    for (int64_t j = 0; j < w->chosen; j++) sum += exp(z[j] - top);
    return top + log(sum);
}

/* Q by these betas, S chosen by them. s [experts], z [chosen], index [chosen]: scratch. */
static double expected(const newton *w, const double *beta, double *s, double *z,
                       int32_t *index)
{
    double q = 0;
    for (int64_t n = 0; n < w->count; n++) {
        const double *r = w->r + n * w->chosen;
        scores(w, beta, w->x + n * w->dim, s);
        mix_choose(w->experts, w->chosen, s, index);
        const double lse = log_weights(w, beta, s, index, z);
        for (int64_t j = 0; j < w->chosen; j++) {
            if (r[j] == 0) continue;
            const int32_t i = w->index[n * w->chosen + j];
            int64_t at = 0;
            while (at < w->chosen && index[at] != i) at++;
            q += r[j] * (at < w->chosen ? z[at] - lse : LOST);
        }
    }
    return q;
}

/* to += a [x, 1] [x, 1]' at block (i, j), j <= i, of the Hessian. */
static void add_block(newton *w, int64_t i, int64_t j, double a, const double *x)
{
    const int64_t d = w->dim + 1;
    for (int64_t p = 0; p < d; p++) {
        double *row = w->hessian + (i * d + p) * w->size + j * d;
        const double ap = p < w->dim ? a * x[p] : a;
        for (int64_t c = 0; c < w->dim; c++) row[c] += ap * x[c];
        row[w->dim] += ap;
    }
}

static void add_row(newton *w, int64_t n, const double *g)
{
    const int64_t d = w->dim + 1, last = w->experts - 1;
    const int32_t *index = w->index + n * w->chosen;
    const double *x = w->x + n * w->dim, scale = 1 / (double)w->count;
    for (int64_t p = 0; p < w->chosen; p++) {
        const int64_t i = index[p];
        if (i == last) continue;
        const double slope = scale * (w->r[n * w->chosen + p] - g[p]);
        for (int64_t c = 0; c < w->dim; c++) w->gradient[i * d + c] += slope * x[c];
        w->gradient[i * d + w->dim] += slope;
        for (int64_t q = 0; q < w->chosen; q++) {
            const int64_t j = index[q];
            if (j == last || j > i || (w->blocks && j != i)) continue;
            add_block(w, i, j, scale * g[p] * ((i == j ? 1 : 0) - g[q]), x);
        }
    }
}

/* Gradient and Hessian at beta; both are filled, the Hessian whole. */
static void derivatives(newton *w, const double *beta, double ridge, double *s, double *z)
{
    const size_t size = (size_t)w->size;
    memset(w->gradient, 0, size * sizeof(double));
    memset(w->hessian, 0, size * size * sizeof(double));
    for (int64_t n = 0; n < w->count; n++) {
        const int32_t *index = w->index + n * w->chosen;
        scores(w, beta, w->x + n * w->dim, s);
        const double lse = log_weights(w, beta, s, index, z);
        for (int64_t j = 0; j < w->chosen; j++) z[j] = exp(z[j] - lse);
        add_row(w, n, z);
    }
    for (int64_t i = 0; i < w->size; i++) {
        for (int64_t j = 0; j < i; j++)
            w->hessian[j * w->size + i] = w->hessian[i * w->size + j];
        w->hessian[i * w->size + i] += ridge;
    }
}

slg_status em_gate_step(slg_ctx *ctx, int64_t count, const double *x, const mix_params *m,
                        const int32_t *index, const double *r, const slg_moe_em_opts *o,
                        double *beta)
{
    newton w = { .ctx = ctx,
                 .count = count,
                 .dim = m->dim,
                 .experts = m->experts,
                 .chosen = m->chosen,
                 .x = x,
                 .r = r,
                 .index = index,
                 .blocks = o->block_diagonal };
    w.size = (m->experts - 1) * (m->dim + 1);
    if (w.size == 0) return SLG_OK;
    const size_t size = (size_t)w.size;
    w.gradient = arena_alloc(ctx, size, sizeof(double));
    w.hessian = arena_alloc(ctx, size * size, sizeof(double));
    double *s = arena_alloc(ctx, (size_t)m->experts, sizeof *s);
    double *z = arena_alloc(ctx, (size_t)m->chosen, sizeof *z);
    int32_t *chosen = arena_alloc(ctx, (size_t)m->chosen, sizeof *chosen);
    double *moved = arena_alloc(ctx, size + (size_t)m->dim + 1, sizeof *moved);
    double rcond;
    if (!w.gradient || !w.hessian || !s || !z || !chosen || !moved) return SLG_ERR_MEMORY;
    derivatives(&w, beta, o->gate_ridge, s, z);
    SLG_TRY(blas_dposv(ctx, w.size, w.hessian, 1, w.gradient, 0, &rcond));
    if (!(rcond > 0)) return SLG_OK;
    const double before = expected(&w, beta, s, z, chosen);
    memcpy(moved, beta, (size + (size_t)m->dim + 1) * sizeof *moved);
    double step = 1;
    for (int32_t half = 0; half <= o->halvings; half++, step /= 2) {
        for (size_t i = 0; i < size; i++) moved[i] = beta[i] + step * w.gradient[i];
        if (!(expected(&w, moved, s, z, chosen) >= before)) continue;
        memcpy(beta, moved, size * sizeof *beta);
        break;
    }
    return SLG_OK;
}
