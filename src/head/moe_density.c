/*
 * moe_density.c - the Gaussian mixture of experts: log-density, responsibilities and gradients,
 * a block of rows at a time: coefficients of a block are dense matrices [rows, experts], and
 * gradients their products with x.
 */
#include "moe_mixture.h"

static const slg_moe_density_out nothing = { .size = sizeof(slg_moe_density_out) };

void slg_moe_density_out_init(slg_moe_density_out *out, size_t size)
{
    options_init(out, size, &nothing, sizeof nothing);
}

typedef struct density_call {
    slg_ctx *ctx;
    mix_params m;
    slg_moe_density_out out;
    const double *x, *y;
    int64_t count;
    bool grads;
    double *dbeta1, *dbeta0, *da, *db, *dlog_v;
    double sum;
} density_call;

static void put_rows(const slg_tensor *t, int64_t first, int64_t count, int64_t cols,
                     const double *from)
{
    if (!t) return;
    const rows m = cols == 0 ? rows_per_row(t) : rows_of(t);
    const int64_t wide = cols == 0 ? 1 : cols;
    for (int64_t r = 0; r < count; r++)
        for (int64_t c = 0; c < wide; c++) rows_put(&m, first + r, c, from[r * wide + c]);
}

static void put_block(const density_call *c, const mix_rows *b, int64_t first)
{
    const int64_t chosen = c->m.chosen, k = c->m.experts;
    put_rows(c->out.weight, first, b->count, chosen, b->g);
    if (c->y) {
        put_rows(c->out.loglik, first, b->count, 0, b->loglik);
        put_rows(c->out.responsibility, first, b->count, chosen, b->r);
    }
    for (int64_t r = 0; c->out.index && r < b->count; r++) {
        const rows m = rows_of(c->out.index);
        for (int64_t j = 0; j < chosen; j++)
            *moe_int(&m, first + r, j) = b->index[r * chosen + j];
    }
    for (int64_t r = 0; c->out.mean && r < b->count; r++) {
        double mean = 0;
        for (int64_t j = 0; j < chosen; j++) {
            const int32_t i = b->index[r * chosen + j];
            const double g = b->g[r * chosen + j];
            if (g != 0) mean += g * (b->mu[r * k + i] + c->m.b[i]);
        }
        put_rows(c->out.mean, first + r, 1, 0, &mean);
    }
}

/* Scores become dz, means become r e / v, both times -1 / rows; the sums by expert go on. */
static void block_slopes(density_call *c, mix_rows *b)
{
    const int64_t chosen = c->m.chosen, k = c->m.experts;
    const double scale = -1 / (double)c->count;
    for (int64_t n = 0; n < b->count; n++) {
        double *dz = b->score + n * k, *pull = b->mu + n * k;
        const double y = b->y[n];
        double slope[2];
        for (int64_t j = 0; j < chosen; j++) { /* before rows are cleared */
            const int32_t i = b->index[n * chosen + j];
            const double r = b->r[n * chosen + j], e = y - pull[i] - c->m.b[i];
            const double inv = exp(-c->m.log_v[i]);
            slope[0] = r == 0 ? 0 : scale * r * e * inv;
            slope[1] = r == 0 ? 0 : scale * r * 0.5 * (e * e * inv - 1);
            b->log_g[n * chosen + j] = slope[0];
            c->db[i] += slope[0], c->dlog_v[i] += slope[1];
        }
        memset(dz, 0, (size_t)k * sizeof *dz), memset(pull, 0, (size_t)k * sizeof *pull);
        for (int64_t j = 0; j < chosen; j++) {
            const int32_t i = b->index[n * chosen + j];
            dz[i] = scale * (b->r[n * chosen + j] - b->g[n * chosen + j]);
            pull[i] = b->log_g[n * chosen + j];
            c->dbeta0[i] += dz[i];
        }
    }
}

static slg_status run(density_call *c)
{
    slg_ctx *ctx = c->ctx;
    const mix_params *m = &c->m;
    mix_rows b;
    SLG_TRY(mix_alloc(ctx, m, moe_least(c->count, MIX_BLOCK), &b));
    for (int64_t first = 0; first < c->count; first += MIX_BLOCK) {
        b.count = moe_least(MIX_BLOCK, c->count - first);
        b.x = c->x + first * m->dim, b.y = c->y ? c->y + first : NULL;
        SLG_TRY(mix_evaluate(&b));
        put_block(c, &b, first);
        for (int64_t n = 0; c->y && n < b.count; n++) c->sum += b.loglik[n];
        if (!c->grads) continue;
        block_slopes(c, &b);
        SLG_TRY(blas_dgemm(ctx, true, false, m->experts, m->dim, b.count, 1, b.score,
                           m->experts, b.x, m->dim, 1, c->dbeta1, m->dim));
        SLG_TRY(blas_dgemm(ctx, true, false, m->experts, m->dim, b.count, 1, b.mu, m->experts,
                           b.x, m->dim, 1, c->da, m->dim));
    }
    c->out.nll = c->y ? -c->sum / (double)c->count : 0;
    return SLG_OK;
}

static slg_status check_outputs(const density_call *c, const slg_tensor *x, const slg_tensor *y,
                                const slg_moe_mixture *p)
{
    slg_ctx *ctx = c->ctx;
    const slg_moe_density_out *o = &c->out;
    const int64_t n = c->count, k = c->m.experts, dim = c->m.dim, few = c->m.chosen;
    if (o->loglik) SLG_TRY(moe_out_1d(ctx, "loglik", o->loglik, DT_REAL, n));
    if (o->index) SLG_TRY(moe_out(ctx, "index", o->index, DT_I32, n, few));
    if (o->weight) SLG_TRY(moe_out(ctx, "weight", o->weight, DT_REAL, n, few));
    if (o->responsibility)
        SLG_TRY(moe_out(ctx, "responsibility", o->responsibility, DT_REAL, n, few));
    if (o->mean) SLG_TRY(moe_out_1d(ctx, "mean", o->mean, DT_REAL, n));
    if (o->dbeta1) SLG_TRY(moe_out(ctx, "dbeta1", o->dbeta1, DT_REAL, k, dim));
    if (o->dbeta0) SLG_TRY(moe_out_1d(ctx, "dbeta0", o->dbeta0, DT_REAL, k));
    if (o->da) SLG_TRY(moe_out(ctx, "da", o->da, DT_REAL, k, dim));
    if (o->db) SLG_TRY(moe_out_1d(ctx, "db", o->db, DT_REAL, k));
    if (o->dlog_variance)
        SLG_TRY(moe_out_1d(ctx, "dlog_variance", o->dlog_variance, DT_REAL, k));
    if (!y && (o->loglik || o->responsibility || c->grads))
        return slg_fail(ctx, SLG_ERR_NULL, "y is NULL, which what is wanted needs");
    const moe_operand in[] = { { "x", x },
                               { "y", y },
                               { "beta1", p->beta1 },
                               { "beta0", p->beta0 },
                               { "a", p->a },
                               { "b", p->b },
                               { "log_variance", p->log_variance } };
    const moe_operand out[] = {
        { "loglik", o->loglik }, { "index", o->index },
        { "weight", o->weight }, { "responsibility", o->responsibility },
        { "mean", o->mean },     { "dbeta1", o->dbeta1 },
        { "dbeta0", o->dbeta0 }, { "da", o->da },
        { "db", o->db },         { "dlog_variance", o->dlog_variance }
    };
    return moe_apart(ctx, 10, out, 7, in);
}

static slg_status density(density_call *c, const slg_tensor *x, const slg_tensor *y,
                          const slg_moe_mixture *given)
{
    slg_ctx *ctx = c->ctx;
    const slg_moe_density_out *o = &c->out;
    SLG_TRY(option_reserved(ctx, "out->reserved", o->reserved));
    SLG_TRY(mixture_read(ctx, "mixture", given, &c->m));
    SLG_TRY(moe_in(ctx, "x", x, DT_REAL, -1, c->m.dim));
    c->count = x->shape[0];
    if (c->count < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "x has no rows");
    if (y) SLG_TRY(moe_in_1d(ctx, "y", y, DT_REAL, c->count));
    c->grads = o->dbeta1 || o->dbeta0 || o->da || o->db || o->dlog_variance;
    SLG_TRY(check_outputs(c, x, y, given));
    op_detail(ctx, x);
    const int64_t k = c->m.experts, dim = c->m.dim;
    c->x = moe_doubles(ctx, x), c->y = y ? moe_vector(ctx, y, c->count) : NULL;
    c->dbeta1 = moe_vector(ctx, NULL, k * dim), c->da = moe_vector(ctx, NULL, k * dim);
    c->dbeta0 = moe_vector(ctx, NULL, k), c->db = moe_vector(ctx, NULL, k);
    c->dlog_v = moe_vector(ctx, NULL, k);
    if (!c->x || (y && !c->y) || !c->dbeta1 || !c->da || !c->dbeta0 || !c->db || !c->dlog_v)
        return SLG_ERR_MEMORY;
    SLG_TRY(run(c));
    moe_put(o->dbeta1, c->dbeta1, false), moe_put(o->dbeta0, c->dbeta0, false);
    moe_put(o->da, c->da, false), moe_put(o->db, c->db, false);
    moe_put(o->dlog_variance, c->dlog_v, false);
    return SLG_OK;
}

slg_status slg_moe_density(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *y,
                           const slg_moe_mixture *mixture, slg_moe_density_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_density");
    density_call c = { .ctx = ctx, .out = nothing };
    slg_status status = out ? SLG_OK : slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    if (!status) status = options_read(ctx, "out", out, &c.out, sizeof c.out);
    if (!status) status = density(&c, x, y, mixture);
    if (!status) options_write(out, &c.out, sizeof c.out);
    return op_end(ctx, status);
}
