/*
 * moe_em.c - expectation maximisation as an object: see softlogit/moe.h. A step works on a copy
 * of the parameters, which becomes the state when it is done.
 */
#include "moe_mixture.h"

struct slg_moe_em {
    slg_ctx *ctx;
    slg_moe_em_opts opts;
    mix_params m; /* points into state */
    double *state, *next;
    int64_t size; /* 2 + experts (2 dim + 3) */
};

/* Where parameters are in a state. */
static mix_params view_of(const slg_moe_em *em, const double *state)
{
    mix_params m = em->m;
    m.beta1 = state + 2, m.beta0 = m.beta1 + m.experts * m.dim;
    m.a = m.beta0 + m.experts, m.b = m.a + m.experts * m.dim, m.log_v = m.b + m.experts;
    return m;
}

/* The last expert's beta becomes 0. */
static void refer(const slg_moe_em *em)
{
    const int64_t k = em->m.experts, dim = em->m.dim;
    double *beta1 = em->state + 2, *beta0 = beta1 + k * dim;
    for (int64_t i = 0; i < k; i++) {
        for (int64_t c = 0; i < k - 1 && c < dim; c++)
            beta1[i * dim + c] -= beta1[(k - 1) * dim + c];
        if (i < k - 1) beta0[i] -= beta0[k - 1];
    }
    for (int64_t c = 0; c < dim; c++) beta1[(k - 1) * dim + c] = 0;
    beta0[k - 1] = 0;
}

static slg_status create(slg_ctx *ctx, const slg_moe_mixture *start,
                         const slg_moe_em_opts *opts, slg_moe_em **out)
{
    slg_moe_em_opts o;
    mix_params m;
    SLG_TRY(em_options(ctx, opts, &o));
    SLG_TRY(mixture_read(ctx, "start", start, &m));
    const int64_t size = 2 + m.experts * (2 * m.dim + 3);
    slg_moe_em *em = ctx_alloc(ctx, sizeof *em);
    if (!em) return SLG_ERR_MEMORY;
    *em = (slg_moe_em){ .ctx = ctx, .opts = o, .m = m, .size = size };
    em->state = ctx_alloc(ctx, 2 * (size_t)size * sizeof(double));
    if (!em->state) {
        ctx_free(ctx, em);
        return SLG_ERR_MEMORY;
    }
    em->next = em->state + size;
    const size_t wide = (size_t)(m.experts * m.dim), few = (size_t)m.experts;
    double *to = em->state;
    *to++ = 0, *to++ = NAN;
    memcpy(to, m.beta1, wide * sizeof *to), to += wide;
    memcpy(to, m.beta0, few * sizeof *to), to += few;
    memcpy(to, m.a, wide * sizeof *to), to += wide;
    memcpy(to, m.b, few * sizeof *to), to += few;
    memcpy(to, m.log_v, few * sizeof *to);
    em->m = view_of(em, em->state);
    refer(em);
    *out = em;
    return SLG_OK;
}

slg_status slg_moe_em_create(slg_ctx *ctx, const slg_moe_mixture *start,
                             const slg_moe_em_opts *opts, slg_moe_em **em)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_em_create");
    if (!em) return op_end(ctx, slg_fail(ctx, SLG_ERR_NULL, "em is NULL"));
    *em = NULL;
    return op_end(ctx, create(ctx, start, opts, em));
}

void slg_moe_em_free(slg_moe_em *em)
{
    if (!em) return;
    ctx_free(em->ctx, em->state);
    ctx_free(em->ctx, em);
}

/* ---- Steps ------------------------------------------------------------------------------- */

typedef struct em_data {
    const double *x, *y;
    int64_t count;
    int32_t *index; /* [rows, K] */
    double *r;
    double loglik; /* mean, of the parameters that index and r are of */
} em_data;

static slg_status read_data(const slg_moe_em *em, const slg_tensor *x, const slg_tensor *y,
                            em_data *d)
{
    slg_ctx *ctx = em->ctx;
    SLG_TRY(moe_in(ctx, "x", x, DT_REAL, -1, em->m.dim));
    d->count = x->shape[0];
    if (d->count < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "x has no rows");
    SLG_TRY(moe_in_1d(ctx, "y", y, DT_REAL, d->count));
    op_detail(ctx, x);
    const size_t few = (size_t)(d->count * em->m.chosen);
    d->x = moe_doubles(ctx, x), d->y = moe_vector(ctx, y, d->count);
    d->index = arena_alloc(ctx, few, sizeof *d->index);
    d->r = arena_alloc(ctx, few, sizeof *d->r);
    return d->x && d->y && d->index && d->r ? SLG_OK : SLG_ERR_MEMORY;
}

static slg_status expectation(const slg_moe_em *em, const double *state, em_data *d)
{
    const mix_params m = view_of(em, state);
    mix_rows b;
    double sum = 0;
    const arena_mark_t mark = arena_mark(em->ctx);
    SLG_TRY(mix_alloc(em->ctx, &m, moe_least(d->count, MIX_BLOCK), &b));
    for (int64_t first = 0; first < d->count; first += MIX_BLOCK) {
        b.count = moe_least(MIX_BLOCK, d->count - first);
        b.x = d->x + first * m.dim, b.y = d->y + first;
        SLG_TRY(mix_evaluate(&b));
        const size_t few = (size_t)(b.count * m.chosen);
        memcpy(d->index + first * m.chosen, b.index, few * sizeof *b.index);
        memcpy(d->r + first * m.chosen, b.r, few * sizeof *b.r);
        for (int64_t n = 0; n < b.count; n++) sum += b.loglik[n];
    }
    arena_release(em->ctx, mark);
    d->loglik = sum / (double)d->count;
    if (!isnan(d->loglik)) return SLG_OK;
    return slg_fail(em->ctx, SLG_ERR_RANGE, "the log-likelihood is not a number");
}

static slg_status fit_experts(const slg_moe_em *em, const em_data *d, double *state)
{
    slg_ctx *ctx = em->ctx;
    const mix_params m = view_of(em, state);
    double *a = state + (m.a - state), *b = state + (m.b - state);
    double *log_v = state + (m.log_v - state);
    double *weight = arena_alloc(ctx, (size_t)d->count, sizeof *weight);
    double *theta = arena_alloc(ctx, (size_t)m.dim + 1, sizeof *theta);
    if (!weight || !theta) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < m.experts; i++) {
        const arena_mark_t mark = arena_mark(ctx);
        expert_fit fit = { .theta = theta };
        int32_t how;
        for (int64_t n = 0; n < d->count; n++) {
            weight[n] = 0;
            for (int64_t j = 0; j < m.chosen; j++)
                if (d->index[n * m.chosen + j] == i) weight[n] = d->r[n * m.chosen + j];
        }
        SLG_TRY(expert_solve(ctx, d->count, m.dim, d->x, d->y, weight, &em->opts, &fit, &how));
        arena_release(ctx, mark);
        if (how == SLG_MOE_EXPERT_KEPT) continue;
        memcpy(a + i * m.dim, theta, (size_t)m.dim * sizeof *a);
        b[i] = theta[m.dim], log_v[i] = log(fit.variance);
    }
    return SLG_OK;
}

static slg_status fit_gate(const slg_moe_em *em, const em_data *d, double *state)
{
    const mix_params m = view_of(em, state);
    const int64_t width = m.dim + 1;
    double *beta1 = state + 2, *beta0 = beta1 + m.experts * m.dim;
    double *beta = arena_alloc(em->ctx, (size_t)(m.experts * width), sizeof *beta);
    if (!beta) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < m.experts; i++) {
        memcpy(beta + i * width, beta1 + i * m.dim, (size_t)m.dim * sizeof *beta);
        beta[i * width + m.dim] = beta0[i];
    }
    SLG_TRY(em_gate_step(em->ctx, d->count, d->x, &m, d->index, d->r, &em->opts, beta));
    for (int64_t i = 0; i < m.experts; i++) {
        memcpy(beta1 + i * m.dim, beta + i * width, (size_t)m.dim * sizeof *beta);
        beta0[i] = beta[i * width + m.dim];
    }
    return SLG_OK;
}

/* d holds the expectation of the state; becomes that of the next. */
static slg_status step(slg_moe_em *em, em_data *d)
{
    const arena_mark_t mark = arena_mark(em->ctx);
    memcpy(em->next, em->state, (size_t)em->size * sizeof *em->next);
    SLG_TRY(fit_experts(em, d, em->next));
    SLG_TRY(fit_gate(em, d, em->next));
    SLG_TRY(expectation(em, em->next, d));
    arena_release(em->ctx, mark);
    em->next[0] = em->state[0] + 1, em->next[1] = d->loglik;
    memcpy(em->state, em->next, (size_t)em->size * sizeof *em->next);
    return SLG_OK;
}

static slg_status steps_of(slg_moe_em *em, const slg_tensor *x, const slg_tensor *y,
                           int64_t most, bool tolerant, double *loglik, int64_t *made)
{
    em_data d = { 0 };
    SLG_TRY(read_data(em, x, y, &d));
    SLG_TRY(expectation(em, em->state, &d));
    int64_t count = 0;
    for (bool done = false; count < most && !done; count++) {
        const double before = d.loglik;
        SLG_TRY(step(em, &d));
        done = tolerant && d.loglik - before < em->opts.tolerance;
    }
    em->state[1] = d.loglik;
    if (loglik) *loglik = d.loglik;
    if (made) *made = count;
    return SLG_OK;
}

slg_status slg_moe_em_step(slg_moe_em *em, const slg_tensor *x, const slg_tensor *y,
                           double *loglik)
{
    if (!em) return SLG_ERR_NULL;
    op_begin(em->ctx, "slg_moe_em_step");
    return op_end(em->ctx, steps_of(em, x, y, 1, false, loglik, NULL));
}

slg_status slg_moe_em_fit(slg_moe_em *em, const slg_tensor *x, const slg_tensor *y,
                          double *loglik, int64_t *steps)
{
    if (!em) return SLG_ERR_NULL;
    op_begin(em->ctx, "slg_moe_em_fit");
    return op_end(em->ctx, steps_of(em, x, y, em->opts.max_steps, true, loglik, steps));
}

/* ---- State ------------------------------------------------------------------------------- */

static slg_status give(slg_moe_em *em, const slg_tensor *beta1, const slg_tensor *beta0,
                       const slg_tensor *a, const slg_tensor *b, const slg_tensor *log_v)
{
    slg_ctx *ctx = em->ctx;
    const mix_params *m = &em->m;
    const moe_operand out[] = { { "beta1", beta1 },
                                { "beta0", beta0 },
                                { "a", a },
                                { "b", b },
                                { "log_variance", log_v } };
    for (int i = 0; i < 5; i++) {
        const bool flat = i == 1 || i > 2;
        if (!out[i].t) continue;
        SLG_TRY(flat ? moe_out_1d(ctx, out[i].name, out[i].t, DT_REAL, m->experts)
                     : moe_out(ctx, out[i].name, out[i].t, DT_REAL, m->experts, m->dim));
    }
    SLG_TRY(moe_apart(ctx, 5, out, 0, NULL));
    moe_put(beta1, m->beta1, false), moe_put(beta0, m->beta0, false);
    moe_put(a, m->a, false), moe_put(b, m->b, false), moe_put(log_v, m->log_v, false);
    return SLG_OK;
}

slg_status slg_moe_em_mixture(slg_moe_em *em, slg_tensor *beta1, slg_tensor *beta0,
                              slg_tensor *a, slg_tensor *b, slg_tensor *log_variance)
{
    if (!em) return SLG_ERR_NULL;
    op_begin(em->ctx, "slg_moe_em_mixture");
    return op_end(em->ctx, give(em, beta1, beta0, a, b, log_variance));
}

slg_status slg_moe_em_save(slg_moe_em *em, slg_tensor *state)
{
    if (!em) return SLG_ERR_NULL;
    op_begin(em->ctx, "slg_moe_em_save");
    slg_status status = moe_out_1d(em->ctx, "state", state, DT_F64, em->size);
    if (!status) moe_put(state, em->state, false);
    return op_end(em->ctx, status);
}

static slg_status restore(slg_moe_em *em, const slg_tensor *state)
{
    SLG_TRY(moe_in_1d(em->ctx, "state", state, DT_F64, em->size));
    const rows m = rows_of(state);
    for (int64_t i = 0; i < em->size; i++) em->next[i] = rows_get(&m, 0, i);
    const double steps = em->next[0];
    bool good = steps >= 0 && steps < 0x1p53 && steps == floor(steps);
    for (int64_t i = 2; i < em->size; i++) good &= isfinite(em->next[i]) != 0;
    if (!good) return slg_fail(em->ctx, SLG_ERR_STATE, "the numbers are no state");
    memcpy(em->state, em->next, (size_t)em->size * sizeof *em->state);
    return SLG_OK;
}

slg_status slg_moe_em_restore(slg_moe_em *em, const slg_tensor *state)
{
    if (!em) return SLG_ERR_NULL;
    op_begin(em->ctx, "slg_moe_em_restore");
    return op_end(em->ctx, restore(em, state));
}
