/*
 * ftrl_policy.c - rows of FTRL's policies from costs, and their gradient: see mdp.h. A first
 * sweep over all rows finds the least cost of each and refuses what is no cost; a second turns
 * a row into gaps, in double, and these into probabilities.
 */
#include <math.h>

#include "core/options.h"
#include "log_barrier.h"
#include "softlogit/mdp.h"
#include "softmax/parts.h"

/* Elements of a task. */
enum { TASK = 1 << 14 };

static const slg_ftrl_policy_opts defaults = { .size = sizeof(slg_ftrl_policy_opts),
                                               .rule = SLG_FTRL_LOG_BARRIER,
                                               .eta = 1 };

void slg_ftrl_policy_opts_init(slg_ftrl_policy_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct ftrl_run {
    const kernel_table *k;
    slg_ftrl_policy_opts opts;
    rows costs, p, nu;
    bool has_p, has_nu;
    int64_t block;   /* rows of a task */
    double *least;   /* [rows]; NaN: not a row of costs */
    double *gap;     /* [workers, cols] */
    float *in, *out; /* [workers, cols] */
} ftrl_run;

static slg_status check_options(slg_ctx *ctx, const slg_ftrl_policy_opts *given,
                                slg_ftrl_policy_opts *opts)
{
    *opts = defaults;
    SLG_TRY(options_read(ctx, "opts", given, opts, sizeof *opts));
    SLG_TRY(option_choice(ctx, "rule", opts->rule, SLG_FTRL_LOG_BARRIER, SLG_FTRL_ENTROPY));
    return option_least(ctx, "eta", opts->eta, 0);
}

static int64_t last_row(const ftrl_run *f, int64_t task)
{
    const int64_t end = (task + 1) * f->block;
    return end < f->costs.count ? end : f->costs.count;
}

/* ---- The least cost --------------------------------------------------------------------- */

static double least_double(const rows *m, int64_t r)
{
    double least = INFINITY;
    for (int64_t i = 0; i < m->cols; i++) {
        const double c = rows_get(m, r, i);
        if (!(c > -INFINITY)) return NAN;
        least = fmin(least, c);
    }
    return least;
}

static void look(void *arg, int64_t task, int32_t worker)
{
    const ftrl_run *f = arg;
    for (int64_t r = task * f->block; r < last_row(f, task); r++) {
        float least = 0;
        double *to = &f->least[r];
        if (f->costs.dtype == SLG_F64) {
            *to = least_double(&f->costs, r);
        } else {
            const float *x = rows_fetch(f->k, &f->costs, r, 0, f->costs.cols,
                                        f->in + worker * f->costs.cols);
            *to = f->k->least((size_t)f->costs.cols, x, &least) ? (double)least : NAN;
        }
        if (isinf(*to)) *to = NAN;
    }
}

static slg_status refuse(slg_ctx *ctx, const ftrl_run *f, int64_t r)
{
    for (int64_t i = 0; i < f->costs.cols; i++) {
        const double c = rows_get(&f->costs, r, i);
        if (!(c > -INFINITY))
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "costs of row %lld: [%lld] is %g, must be "
                            "finite or +inf",
                            (long long)r, (long long)i, c);
    }
    return slg_fail(ctx, SLG_ERR_RANGE, "costs of row %lld are all +inf", (long long)r);
}

/* ---- A row ------------------------------------------------------------------------------ */

static double gaps_of_row(const ftrl_run *f, int64_t r, float *in, double *gap)
{
    const rows *m = &f->costs;
    const double least = f->least[r], eta = f->opts.eta;
    double sum = 0;
    if (m->dtype != SLG_F64)
        return f->k->barrier_gap((size_t)m->cols, rows_fetch(f->k, m, r, 0, m->cols, in), least,
                                 eta, gap);
    for (int64_t i = 0; i < m->cols; i++) {
        const double c = rows_get(m, r, i);
        sum += gap[i] = isinf(c) ? INFINITY : eta * (c - least);
    }
    return sum;
}

static const float *fetch_floats(const void *source, int64_t row, int64_t col, int64_t n,
                                 float *scratch)
{
    (void)row, (void)n, (void)scratch;
    return (const float *)source + col;
}

/* The library's softmax, of -gap. */
static double softmax_gaps(const ftrl_run *f, const double *gap, float *z, float *y)
{
    const int64_t n = f->costs.cols;
    const exp_arg arg = exp_arg_of(1, 0);
    row_stat s;
    for (int64_t i = 0; i < n; i++) z[i] = (float)-gap[i];
    row_start(&s, &arg);
    for (int64_t i = 0; i < n; i += KERNEL_BLOCK)
        row_reduce(f->k, &s, i, n - i < KERNEL_BLOCK ? n - i : KERNEL_BLOCK, z + i);
    row_finish(f->k, &s, 0, n, fetch_floats, z);
    const exp_out e = row_out(&s, 1, 0);
    if (f->has_p) f->k->exp_emit((size_t)n, z, &e, y, STORE_CACHED);
    return s.lse;
}

static double barrier_row(const ftrl_run *f, const double *gap, double sum, float *y)
{
    double total;
    const double nu = barrier_root(f->k, f->costs.cols, gap, sum, &total);
    if (f->has_p) f->k->barrier_emit((size_t)f->costs.cols, gap, nu, 1 / total, y);
    return nu;
}

static void solve_row(const ftrl_run *f, int64_t r, int32_t worker)
{
    const int64_t n = f->costs.cols;
    double *gap = f->gap + worker * n, nu;
    float *in = f->in + worker * n, *out = f->out + worker * n;
    const double sum = gaps_of_row(f, r, in, gap);
    if (f->has_p && f->p.dtype == SLG_F64) {
        nu = ftrl_distribution(f->k, f->opts.rule, n, gap, sum, gap);
        for (int64_t i = 0; i < n; i++) rows_put(&f->p, r, i, gap[i]);
    } else {
        float *y = f->has_p ? rows_stage(&f->p, r, 0, out) : NULL;
        nu = f->opts.rule == SLG_FTRL_ENTROPY ? softmax_gaps(f, gap, in, y)
                                              : barrier_row(f, gap, sum, y);
        if (f->has_p) rows_commit(f->k, &f->p, r, 0, n, out);
    }
    if (f->has_nu) rows_put(&f->nu, r, 0, nu);
}

static void solve_rows(void *arg, int64_t task, int32_t worker)
{
    const ftrl_run *f = arg;
    for (int64_t r = task * f->block; r < last_row(f, task); r++) solve_row(f, r, worker);
}

/* ---- The call --------------------------------------------------------------------------- */

static slg_status check_shapes(slg_ctx *ctx, const slg_tensor *costs, const slg_tensor *p,
                               const slg_tensor *nu)
{
    SLG_TRY(tensor_in(ctx, "costs", costs, DT_ROW | DT_F64, 1, 4));
    const int64_t cols = costs->shape[costs->ndim - 1];
    if (cols == 0 && rows_of(costs).count > 0)
        return slg_fail(ctx, SLG_ERR_SHAPE, "costs has no columns: no action to take");
    if (p) {
        SLG_TRY(tensor_out(ctx, "p", p, DT_ROW | DT_F64, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "p", p, "costs", costs));
    }
    if (nu) {
        SLG_TRY(tensor_out(ctx, "nu", nu, DT_F32 | DT_F64, 1, 4));
        SLG_TRY(tensor_is_per_row(ctx, "nu", nu, "costs", costs));
    }
    if (tensor_clash(p, costs) || tensor_clash(nu, costs) || outputs_clash(p, nu))
        return slg_fail(ctx, SLG_ERR_STRIDE, "p or nu overlaps another tensor");
    return SLG_OK;
}

static slg_status scratch(slg_ctx *ctx, ftrl_run *f)
{
    const size_t each = (size_t)f->costs.cols * (size_t)ctx->num_threads;
    f->least = arena_alloc(ctx, (size_t)f->costs.count, sizeof *f->least);
    f->gap = arena_alloc(ctx, each, sizeof *f->gap);
    f->in = arena_alloc(ctx, each, sizeof *f->in);
    f->out = arena_alloc(ctx, each, sizeof *f->out);
    return f->least && f->gap && f->in && f->out ? SLG_OK : SLG_ERR_MEMORY;
}

static slg_status run(slg_ctx *ctx, const slg_tensor *costs, const slg_ftrl_policy_opts *opts,
                      slg_tensor *p, slg_tensor *nu)
{
    ftrl_run f = { .k = &ctx->k, .has_p = p, .has_nu = nu };
    SLG_TRY(check_options(ctx, opts, &f.opts));
    SLG_TRY(check_shapes(ctx, costs, p, nu));
    op_detail(ctx, costs);
    f.costs = rows_of(costs);
    if (f.costs.count == 0) return SLG_OK;
    if (p) f.p = rows_of(p);
    if (nu) f.nu = rows_per_row(nu);
    f.block = f.costs.cols < TASK ? TASK / f.costs.cols : 1;
    SLG_TRY(scratch(ctx, &f));
    const int64_t tasks = (f.costs.count + f.block - 1) / f.block;
    pool_run(ctx, tasks, look, &f);
    for (int64_t r = 0; r < f.costs.count; r++)
        if (isnan(f.least[r])) return refuse(ctx, &f, r);
    if (p || nu) pool_run(ctx, tasks, solve_rows, &f);
    return SLG_OK;
}

slg_status slg_ftrl_policy(slg_ctx *ctx, const slg_tensor *costs,
                           const slg_ftrl_policy_opts *opts, slg_tensor *p, slg_tensor *nu)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_ftrl_policy");
    return op_end(ctx, run(ctx, costs, opts, p, nu));
}

/* ---- The gradient ----------------------------------------------------------------------- */

typedef struct back_run {
    const kernel_table *k;
    slg_ftrl_policy_opts opts;
    rows p, dp, dcosts;
    int64_t block;
    float *scratch; /* [workers, 3 cols] */
} back_run;

static void back_row(const back_run *b, int64_t r, float *scratch)
{
    const int64_t cols = b->p.cols;
    const size_t n = (size_t)cols;
    const float *p = rows_fetch(b->k, &b->p, r, 0, cols, scratch);
    const float *dp = rows_fetch(b->k, &b->dp, r, 0, cols, scratch + n);
    float *d = rows_stage(&b->dcosts, r, 0, scratch + 2 * n);
    double sums[2];
    if (b->opts.rule == SLG_FTRL_ENTROPY) {
        const double dot = b->k->dot(n, p, dp, 0);
        b->k->softmax_bwd(n, p, dp, (float)dot, (float)-b->opts.eta, d);
    } else {
        b->k->barrier_dots(n, p, dp, sums);
        b->k->barrier_grad(n, p, dp, -b->opts.eta, sums[0] / sums[1], d);
    }
    rows_commit(b->k, &b->dcosts, r, 0, cols, scratch + 2 * n);
}

static void back_rows(void *arg, int64_t task, int32_t worker)
{
    const back_run *b = arg;
    for (int64_t r = task * b->block; r < (task + 1) * b->block && r < b->p.count; r++)
        back_row(b, r, b->scratch + 3 * worker * b->p.cols);
}

static slg_status backward(slg_ctx *ctx, const slg_tensor *p, const slg_tensor *dp,
                           const slg_ftrl_policy_opts *opts, slg_tensor *dcosts)
{
    back_run b = { .k = &ctx->k };
    SLG_TRY(check_options(ctx, opts, &b.opts));
    SLG_TRY(tensor_in(ctx, "p", p, DT_ROW, 1, 4));
    SLG_TRY(tensor_in(ctx, "dp", dp, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "dp", dp, "p", p));
    SLG_TRY(tensor_out(ctx, "dcosts", dcosts, DT_ROW, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "dcosts", dcosts, "p", p));
    if (tensor_clash(dcosts, p) || tensor_clash(dcosts, dp))
        return slg_fail(ctx, SLG_ERR_STRIDE, "dcosts overlaps p or dp");
    op_detail(ctx, p);
    b.p = rows_of(p), b.dp = rows_of(dp), b.dcosts = rows_of(dcosts);
    if (b.p.count == 0 || b.p.cols == 0) return SLG_OK;
    b.block = b.p.cols < TASK ? TASK / b.p.cols : 1;
    b.scratch =
        arena_alloc(ctx, 3 * (size_t)b.p.cols * (size_t)ctx->num_threads, sizeof *b.scratch);
    if (!b.scratch) return SLG_ERR_MEMORY;
    pool_run(ctx, (b.p.count + b.block - 1) / b.block, back_rows, &b);
    return SLG_OK;
}

slg_status slg_ftrl_policy_backward(slg_ctx *ctx, const slg_tensor *p, const slg_tensor *dp,
                                    const slg_ftrl_policy_opts *opts, slg_tensor *dcosts)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_ftrl_policy_backward");
    return op_end(ctx, backward(ctx, p, dp, opts, dcosts));
}
