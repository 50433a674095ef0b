/*
 * mdp_policy.c - the policy's life and what it plays: see mdp.h.
 */
#include "mdp_policy.h"

#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "log_barrier.h"
#include "softmax/parts.h"

/* States of a task; states, and vectors, of a block. */
enum { STATES = 64, BLOCK = 256 };

static const slg_mdp_policy_opts defaults = { .size = sizeof(slg_mdp_policy_opts),
                                              .rule = SLG_FTRL_LOG_BARRIER,
                                              .estimator = SLG_Q_PLAIN,
                                              .horizon = 1,
                                              .actions = 1,
                                              .eta = 0.1,
                                              .gamma = 0.01,
                                              .dilation = NAN };

void slg_mdp_policy_opts_init(slg_mdp_policy_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* ---- Life ------------------------------------------------------------------------------- */

static slg_status whole(slg_ctx *ctx, const char *name, int64_t value, int64_t least,
                        int64_t most)
{
    if (value >= least && value <= most) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "%s is %lld, must be from %lld to %lld", name,
                    (long long)value, (long long)least, (long long)most);
}

static slg_status check_options(slg_ctx *ctx, const slg_mdp_policy_opts *given,
                                slg_mdp_policy_opts *o)
{
    *o = defaults;
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "opts is NULL");
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "rule", o->rule, SLG_FTRL_LOG_BARRIER, SLG_FTRL_ENTROPY));
    SLG_TRY(option_choice(ctx, "estimator", o->estimator, SLG_Q_PLAIN, SLG_Q_REDUCED));
    SLG_TRY(option_reserved(ctx, "reserved", o->reserved));
    SLG_TRY(whole(ctx, "horizon", o->horizon, 1, 1 << 20));
    SLG_TRY(whole(ctx, "states", o->states, 0, INT32_MAX));
    if (o->states) SLG_TRY(whole(ctx, "actions", o->actions, 1, INT32_MAX));
    SLG_TRY(whole(ctx, "dim", o->dim, o->states ? 0 : 1, 1 << 20));
    SLG_TRY(option_least(ctx, "eta", o->eta, 0));
    SLG_TRY(option_range(ctx, "gamma", o->gamma, 1e-300, 1e300));
    SLG_TRY(option_least(ctx, "beta", o->beta, 0));
    return isnan(o->dilation) ? SLG_OK : option_least(ctx, "dilation", o->dilation, 0);
}

slg_status state_alloc(slg_ctx *ctx, int64_t count, double **to)
{
    *to = NULL;
    if (count == 0) return SLG_OK;
    if (count > INT64_MAX / 64)
        return slg_fail(ctx, SLG_ERR_SHAPE, "%lld numbers of state are too many",
                        (long long)count);
    *to = ctx_alloc(ctx, (size_t)count * sizeof **to);
    if (!*to) return SLG_ERR_MEMORY;
    memset(*to, 0, (size_t)count * sizeof **to);
    return SLG_OK;
}

static slg_status copy_features(slg_mdp_policy *p, const slg_tensor *t)
{
    const int64_t shape[4] = { p->shape.layers, p->shape.states, p->shape.actions, p->d };
    SLG_TRY(tensor_in(p->ctx, "features", t, DT_FEATURE, 3, 4));
    p->per_layer = t->ndim == 4;
    SLG_TRY(tensor_shape_is(p->ctx, "features", t, t->ndim, shape + !p->per_layer));
    const double *x = tensor_doubles(p->ctx, t);
    if (!x) return SLG_ERR_MEMORY;
    SLG_TRY(state_alloc(p->ctx, tensor_size(t), &p->features));
    memcpy(p->features, x, (size_t)tensor_size(t) * sizeof *x);
    return SLG_OK;
}

static slg_status open_table(slg_mdp_policy *p, const slg_tensor *features)
{
    SLG_TRY(table_check(p->ctx, &p->shape));
    if (p->d > 0)
        SLG_TRY(copy_features(p, features));
    else if (features)
        return slg_fail(p->ctx, SLG_ERR_SHAPE, "features are given, dim is 0: one-hot");
    p->count = p->shape.layers * pairs_of(p);
    SLG_TRY(state_alloc(p->ctx, p->count, &p->p));
    return state_alloc(p->ctx, p->count, &p->state);
}

static slg_status open_linear(slg_mdp_policy *p, const slg_tensor *features)
{
    const int64_t layers = p->shape.layers;
    if (features)
        return slg_fail(p->ctx, SLG_ERR_SHAPE, "features are given, states is 0: no table");
    if (p->opts.estimator == SLG_Q_REDUCED) {
        p->kept = ctx_alloc(p->ctx, (size_t)layers * sizeof *p->kept);
        if (!p->kept) return SLG_ERR_MEMORY;
        memset(p->kept, 0, (size_t)layers * sizeof *p->kept);
    }
    /* At most 2^60. */
    p->count = layers * ((p->kept ? 0 : p->d) + (p->opts.beta > 0 ? p->d * p->d : 0));
    return state_alloc(p->ctx, p->count, &p->state);
}

static slg_status create(slg_ctx *ctx, const slg_mdp_policy_opts *opts,
                         const slg_tensor *features, slg_mdp_policy **policy)
{
    slg_mdp_policy_opts o;
    SLG_TRY(check_options(ctx, opts, &o));
    slg_mdp_policy *p = ctx_alloc(ctx, sizeof *p);
    if (!p) return SLG_ERR_MEMORY;
    *p = (slg_mdp_policy){ .ctx = ctx, .opts = o, .d = o.dim };
    p->shape = (table_shape){ o.horizon, o.states, o.states ? o.actions : 0 };
    if (isnan(o.dilation)) p->opts.dilation = 1 / (double)o.horizon;
    const slg_status status = is_table(p) ? open_table(p, features) : open_linear(p, features);
    if (status == SLG_OK)
        *policy = p;
    else
        slg_mdp_policy_free(p);
    return status;
}

slg_status slg_mdp_policy_create(slg_ctx *ctx, const slg_mdp_policy_opts *opts,
                                 const slg_tensor *features, slg_mdp_policy **policy)
{
    if (!ctx || !policy) return SLG_ERR_NULL;
    *policy = NULL;
    op_begin(ctx, "slg_mdp_policy_create");
    return op_end(ctx, create(ctx, opts, features, policy));
}

void slg_mdp_policy_free(slg_mdp_policy *p)
{
    if (!p) return;
    slg_ctx *ctx = p->ctx;
    for (int64_t h = 0; p->kept && h < p->shape.layers; h++) ctx_free(ctx, p->kept[h].v);
    ctx_free(ctx, p->kept), ctx_free(ctx, p->features), ctx_free(ctx, p->state);
    ctx_free(ctx, p->p), ctx_free(ctx, p);
}

slg_status slg_mdp_policy_reset(slg_mdp_policy *p)
{
    if (!p) return SLG_ERR_NULL;
    op_begin(p->ctx, "slg_mdp_policy_reset");
    if (p->count > 0) memset(p->state, 0, (size_t)p->count * sizeof *p->state);
    p->episodes = p->kept_count = 0;
    p->current = false;
    return op_end(p->ctx, SLG_OK);
}

int64_t slg_mdp_policy_episodes(const slg_mdp_policy *p) { return p ? p->episodes : 0; }

slg_status keep_room(slg_mdp_policy *p, int64_t count)
{
    const int64_t each = p->d + 2;
    for (int64_t h = 0; h < p->shape.layers; h++) {
        kept_layer *k = &p->kept[h];
        if (count <= k->capacity) continue;
        const int64_t capacity = count > 2 * k->capacity ? count : 2 * k->capacity;
        int64_t size;
        double *v;
        if (__builtin_mul_overflow(capacity, each, &size)) size = INT64_MAX;
        SLG_TRY(state_alloc(p->ctx, size, &v));
        if (p->kept_count > 0) memcpy(v, k->v, (size_t)(p->kept_count * each) * sizeof *v);
        ctx_free(p->ctx, k->v);
        k->v = v, k->capacity = capacity;
    }
    return SLG_OK;
}

/* ---- A table's policy ------------------------------------------------------------------- */

static void play(const slg_mdp_policy *p, int64_t actions, const double *costs, double *out)
{
    const double sum = barrier_gaps(actions, p->opts.eta, costs, out);
    ftrl_distribution(&p->ctx->k, p->opts.rule, actions, out, sum, out);
}

static void play_states(void *arg, int64_t task, int32_t worker)
{
    const slg_mdp_policy *p = arg;
    const int64_t actions = p->shape.actions, states = p->shape.layers * p->shape.states;
    (void)worker;
    for (int64_t s = task * STATES; s < (task + 1) * STATES && s < states; s++)
        play(p, actions, p->state + s * actions, p->p + s * actions);
}

void table_policy(slg_mdp_policy *p)
{
    if (p->current) return;
    const int64_t states = p->shape.layers * p->shape.states;
    pool_run(p->ctx, (states + STATES - 1) / STATES, play_states, p);
    p->current = true;
}

static slg_status table(slg_mdp_policy *p, slg_tensor *probability, slg_tensor *costs)
{
    const int64_t shape[3] = { p->shape.layers, p->shape.states, p->shape.actions };
    if (!is_table(p)) return slg_fail(p->ctx, SLG_ERR_STATE, "the policy has no table");
    if (probability) SLG_TRY(output_of(p->ctx, "p", probability, DT_REAL, 3, shape));
    if (costs) SLG_TRY(output_of(p->ctx, "costs", costs, DT_REAL, 3, shape));
    if (outputs_clash(probability, costs))
        return slg_fail(p->ctx, SLG_ERR_STRIDE, "p and costs overlap");
    if (probability) table_policy(p);
    doubles_write(probability, p->p), doubles_write(costs, p->state);
    return SLG_OK;
}

slg_status slg_mdp_policy_table(slg_mdp_policy *p, slg_tensor *probability, slg_tensor *costs)
{
    if (!p) return SLG_ERR_NULL;
    op_begin(p->ctx, "slg_mdp_policy_table");
    return op_end(p->ctx, table(p, probability, costs));
}

/* ---- A state's policy by features ------------------------------------------------------- */

/* costs [n] of n pairs whose features are phi [n, d]. */
static slg_status kept_costs(slg_mdp_policy *p, int64_t h, int64_t n, const double *phi,
                             double *costs)
{
    const int64_t d = p->d, each = d + 2;
    double *g = arena_alloc(p->ctx, (size_t)n * BLOCK, sizeof *g);
    if (!g) return SLG_ERR_MEMORY;
    for (int64_t from = 0; from < p->kept_count; from += BLOCK) {
        const int64_t m = p->kept_count - from < BLOCK ? p->kept_count - from : BLOCK;
        const double *v = p->kept[h].v + from * each;
        SLG_TRY(blas_dgemm(p->ctx, false, true, n, m, d, 1, phi, d, v, each, 0, g, m));
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < m; j++) {
                const double x = g[i * m + j];
                costs[i] += v[j * each + d + (x > 0 ? 0 : 1)] * x;
            }
    }
    return SLG_OK;
}

static slg_status bonus_costs(slg_mdp_policy *p, int64_t h, int64_t n, const double *phi,
                              double *costs)
{
    const int64_t d = p->d;
    double *t = arena_alloc(p->ctx, (size_t)n * (size_t)d, sizeof *t);
    if (!t) return SLG_ERR_MEMORY;
    SLG_TRY(blas_dgemm(p->ctx, false, false, n, d, d, 1, phi, d, matrix_sum(p, h), d, 0, t, d));
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < d; k++)
            costs[i] -= p->opts.beta * phi[i * d + k] * t[i * d + k];
    return SLG_OK;
}

static slg_status linear_costs(slg_mdp_policy *p, int64_t h, const rows *phi, double *costs)
{
    slg_ctx *ctx = p->ctx;
    const arena_mark_t mark = arena_mark(ctx);
    const int64_t d = p->d, block = phi->count < BLOCK ? phi->count : BLOCK;
    double *x = arena_alloc(ctx, (size_t)block * (size_t)d, sizeof *x);
    if (!x) return SLG_ERR_MEMORY;
    for (int64_t from = 0; from < phi->count; from += BLOCK) {
        const int64_t n = phi->count - from < BLOCK ? phi->count - from : BLOCK;
        const arena_mark_t inner = arena_mark(ctx);
        double *c = costs + from;
        for (int64_t i = 0; i < n; i++) row_doubles(phi, from + i, x + i * d), c[i] = 0;
        if (p->kept)
            SLG_TRY(kept_costs(p, h, n, x, c));
        else
            SLG_TRY(blas_dgemv(ctx, false, n, d, x, d, vector_sum(p, h), false, c));
        if (p->opts.beta > 0) SLG_TRY(bonus_costs(p, h, n, x, c));
        arena_release(ctx, inner);
    }
    arena_release(ctx, mark);
    return SLG_OK;
}

static slg_status check_at(slg_mdp_policy *p, int64_t layer, const slg_tensor *phi,
                           const slg_tensor *bonus, const slg_tensor *probability,
                           const slg_tensor *costs)
{
    slg_ctx *ctx = p->ctx;
    if (is_table(p)) return slg_fail(ctx, SLG_ERR_STATE, "the policy has a table");
    SLG_TRY(whole(ctx, "layer", layer, 0, p->shape.layers - 1));
    SLG_TRY(tensor_in(ctx, "phi", phi, DT_FEATURE, 2, 3));
    const int32_t ndim = phi->ndim - 1;
    if (phi->shape[ndim] != p->d)
        return slg_fail(ctx, SLG_ERR_SHAPE, "phi has %lld columns, dim is %lld",
                        (long long)phi->shape[ndim], (long long)p->d);
    if (phi->shape[ndim - 1] == 0 && rows_of(phi).count == 0 &&
        (ndim == 1 || phi->shape[0] > 0))
        return slg_fail(ctx, SLG_ERR_SHAPE, "phi has no actions");
    if (bonus) SLG_TRY(input_of(ctx, "bonus", bonus, DT_REAL, ndim, phi->shape));
    if (probability) SLG_TRY(output_of(ctx, "p", probability, DT_REAL, ndim, phi->shape));
    if (costs) SLG_TRY(output_of(ctx, "costs", costs, DT_REAL, ndim, phi->shape));
    if (tensor_clash(probability, phi) || tensor_clash(costs, phi) ||
        tensor_clash(probability, bonus) || tensor_clash(costs, bonus) ||
        outputs_clash(probability, costs))
        return slg_fail(ctx, SLG_ERR_STRIDE, "p or costs overlaps another tensor");
    return SLG_OK;
}

static slg_status at(slg_mdp_policy *p, int64_t layer, const slg_tensor *phi,
                     const slg_tensor *bonus, slg_tensor *probability, slg_tensor *costs)
{
    slg_ctx *ctx = p->ctx;
    SLG_TRY(check_at(p, layer, phi, bonus, probability, costs));
    op_detail(ctx, phi);
    const rows m = rows_of(phi);
    const int64_t actions = phi->shape[phi->ndim - 2];
    double *c = arena_alloc(ctx, (size_t)m.count, sizeof *c), *b = NULL;
    double *out = arena_alloc(ctx, (size_t)m.count, sizeof *out);
    if (bonus && !(b = tensor_doubles(ctx, bonus))) return SLG_ERR_MEMORY;
    if (!c || !out) return SLG_ERR_MEMORY;
    SLG_TRY(linear_costs(p, layer, &m, c));
    for (int64_t i = 0; i < m.count; i++) {
        if (b) c[i] -= b[i];
        if (!isfinite(c[i]))
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "the cost of pair %lld is %g: phi and bonus "
                            "must be finite",
                            (long long)i, c[i]);
    }
    for (int64_t i = 0; i < m.count; i += actions) play(p, actions, c + i, out + i);
    doubles_write(probability, out), doubles_write(costs, c);
    return SLG_OK;
}

slg_status slg_mdp_policy_at(slg_mdp_policy *p, int64_t layer, const slg_tensor *phi,
                             const slg_tensor *bonus, slg_tensor *probability,
                             slg_tensor *costs)
{
    if (!p) return SLG_ERR_NULL;
    op_begin(p->ctx, "slg_mdp_policy_at");
    return op_end(p->ctx, at(p, layer, phi, bonus, probability, costs));
}
