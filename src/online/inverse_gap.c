/*
 * inverse_gap.c - inverse gap weighting: see softlogit/bandit.h. A row is read to find its
 * least cost, to add up what the others take, and to write; nothing is kept.
 */
#include <math.h>
#include <string.h>

#include "bandit_parts.h"
#include "core/options.h"
#include "core/rng.h"

/* Rows of a task. */
enum { BLOCK = 64 };

static const slg_inverse_gap_opts defaults = {
    .size = sizeof(slg_inverse_gap_opts),
    .rule = SLG_GAP_FIRST_ORDER,
    .gamma = 100,
};

void slg_inverse_gap_opts_init(slg_inverse_gap_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct gap_run {
    slg_inverse_gap_opts opts;
    rows costs, u, p, arm;
    bool has_u, has_p, has_arm;
    uint64_t seed, offset;
} gap_run;

/* Of an arm that is not the best of k. */
static double weight(int32_t rule, double gamma, double k, double cost, double least)
{
    const double gap = cost - least;
    if (isinf(cost)) return 0;
    if (rule == SLG_GAP_SQUARE) return 1 / (k + gamma * gap);
    const double down = k * least + gamma * gap;
    return down > 0 ? least / down : 1 / k;
}

static int64_t best_arm(const rows *costs, int64_t r)
{
    int64_t best = 0;
    for (int64_t a = 1; a < costs->cols; a++)
        if (rows_get(costs, r, a) < rows_get(costs, r, best)) best = a;
    return best;
}

int64_t gap_draw(int32_t rule, double gamma, const rows *costs, int64_t r, double u,
                 const rows *p)
{
    const int64_t best = best_arm(costs, r);
    const double least = rows_get(costs, r, best), k = (double)costs->cols;
    double others = 0, sum = 0;
    for (int64_t a = 0; a < costs->cols; a++)
        if (a != best) others += weight(rule, gamma, k, rows_get(costs, r, a), least);
    const double rest = others < 1 ? 1 - others : 0;
    int64_t drawn = best;
    bool found = false;
    for (int64_t a = 0; a < costs->cols; a++) {
        const double one =
            a == best ? rest : weight(rule, gamma, k, rows_get(costs, r, a), least);
        sum += one;
        if (!found && one > 0) drawn = a; /* the last that may be, where rounding leaves none */
        found = found || sum > u;
        if (p) rows_put(p, r, a, one);
    }
    return drawn;
}

static void weigh_row(const gap_run *g, int64_t r)
{
    const double u = g->has_u     ? rows_get(&g->u, r, 0)
                     : g->has_arm ? rng_uniform(g->seed, g->offset + (uint64_t)r)
                                  : 0;
    const int64_t arm =
        gap_draw(g->opts.rule, g->opts.gamma, &g->costs, r, u, g->has_p ? &g->p : NULL);
    if (g->has_arm) rows_put(&g->arm, r, 0, (double)arm);
}

static void weigh_block(void *arg, int64_t task, int32_t worker)
{
    const gap_run *g = arg;
    (void)worker;
    for (int64_t r = task * BLOCK; r < (task + 1) * BLOCK && r < g->costs.count; r++)
        weigh_row(g, r);
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_rows(slg_ctx *ctx, const gap_run *g)
{
    for (int64_t r = 0; r < g->costs.count; r++) {
        bool open = false;
        for (int64_t a = 0; a < g->costs.cols; a++) {
            const double c = rows_get(&g->costs, r, a);
            const double low = g->opts.rule == SLG_GAP_SQUARE ? -INFINITY : 0;
            open = open || isfinite(c);
            if (!(c >= low) || c == -INFINITY)
                return slg_fail(ctx, SLG_ERR_RANGE, "costs[%lld, %lld] is %g, must be %s",
                                (long long)r, (long long)a, c,
                                low < 0 ? "finite or +inf" : "at least 0");
        }
        if (!open)
            return slg_fail(ctx, SLG_ERR_RANGE, "costs of row %lld are all +inf", (long long)r);
        if (!g->has_u) continue;
        const double u = rows_get(&g->u, r, 0);
        if (!(u >= 0 && u < 1))
            return slg_fail(ctx, SLG_ERR_RANGE, "u[%lld] is %g, must be in [0, 1)",
                            (long long)r, u);
    }
    return SLG_OK;
}

static slg_status check_shapes(slg_ctx *ctx, const slg_tensor *costs, const slg_tensor *u,
                               const slg_tensor *p, const slg_tensor *arm)
{
    SLG_TRY(tensor_in(ctx, "costs", costs, DT_ROW, 2, 2));
    if (costs->shape[1] == 0 && costs->shape[0] > 0)
        return slg_fail(ctx, SLG_ERR_SHAPE, "costs has no columns: no arm to choose");
    if (u) {
        SLG_TRY(tensor_in(ctx, "u", u, DT_F32 | DT_F64, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "u", u, 1, costs->shape));
    }
    if (p) {
        SLG_TRY(tensor_out(ctx, "p", p, DT_ROW | DT_F64, 2, 2));
        SLG_TRY(tensor_same_shape(ctx, "p", p, "costs", costs));
    }
    if (arm) {
        SLG_TRY(tensor_out(ctx, "arm", arm, DT_INT, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "arm", arm, 1, costs->shape));
    }
    if (tensor_clash(p, costs) || tensor_clash(p, u) || tensor_clash(arm, costs) ||
        tensor_clash(arm, u) || tensor_clash(arm, p))
        return slg_fail(ctx, SLG_ERR_STRIDE, "p or arm overlaps another tensor");
    return SLG_OK;
}

static slg_status run(slg_ctx *ctx, const slg_tensor *costs, const slg_tensor *u,
                      const slg_inverse_gap_opts *opts, slg_rng *rng, slg_tensor *p,
                      slg_tensor *arm)
{
    gap_run g = { .opts = defaults, .has_u = u && arm, .has_p = p, .has_arm = arm };
    SLG_TRY(options_read(ctx, "opts", opts, &g.opts, sizeof g.opts));
    SLG_TRY(option_choice(ctx, "rule", g.opts.rule, SLG_GAP_SQUARE, SLG_GAP_FIRST_ORDER));
    SLG_TRY(option_least(ctx, "gamma", g.opts.gamma, 0));
    SLG_TRY(check_shapes(ctx, costs, u, p, arm));
    if (arm && !u && !rng) return slg_fail(ctx, SLG_ERR_NULL, "u and rng are NULL");
    op_detail(ctx, costs);
    g.costs = rows_of(costs);
    if (costs->shape[0] == 0) return SLG_OK;
    if (g.has_u) g.u = rows_per_row(u);
    if (p) g.p = rows_of(p);
    if (arm) g.arm = rows_per_row(arm);
    SLG_TRY(check_rows(ctx, &g));
    if (arm && !u) {
        g.seed = rng->seed, g.offset = rng->offset;
        rng->offset += (uint64_t)g.costs.count;
    }
    pool_run(ctx, (g.costs.count + BLOCK - 1) / BLOCK, weigh_block, &g);
    return SLG_OK;
}

slg_status slg_inverse_gap(slg_ctx *ctx, const slg_tensor *costs, const slg_tensor *u,
                           const slg_inverse_gap_opts *opts, slg_rng *rng, slg_tensor *p,
                           slg_tensor *arm)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_inverse_gap");
    return op_end(ctx, run(ctx, costs, u, opts, rng, p, arm));
}

/* ---- gamma ------------------------------------------------------------------------------ */

slg_status gap_gamma(slg_ctx *ctx, int32_t rule, int64_t arms, double horizon, double regret,
                     double delta, double *gamma)
{
    const double k = (double)arms;
    if (!gamma) return slg_fail(ctx, SLG_ERR_NULL, "gamma is NULL");
    SLG_TRY(option_choice(ctx, "rule", rule, SLG_GAP_SQUARE, SLG_GAP_FIRST_ORDER));
    if (arms < 1)
        return slg_fail(ctx, SLG_ERR_RANGE, "arms is %lld, must be at least 1",
                        (long long)arms);
    SLG_TRY(option_least(ctx, "horizon", horizon, 0));
    SLG_TRY(option_least(ctx, "regret", regret, 0));
    double value;
    if (rule == SLG_GAP_SQUARE) {
        if (!(delta > 0 && delta <= 1))
            return slg_fail(ctx, SLG_ERR_RANGE, "delta is %g, must be in (0, 1]", delta);
        value = sqrt(k * horizon / (regret + log(2 / delta)));
    } else {
        if (!(regret > 0)) return slg_fail(ctx, SLG_ERR_RANGE, "regret is 0, must be above");
        value = fmax(sqrt(k * horizon / (3 * regret)), 10 * k);
    }
    if (!isfinite(value)) return slg_fail(ctx, SLG_ERR_RANGE, "gamma is %g", value);
    *gamma = value;
    return SLG_OK;
}

slg_status slg_inverse_gap_gamma(slg_ctx *ctx, int32_t rule, int64_t arms, double horizon,
                                 double regret, double delta, double *gamma)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_inverse_gap_gamma");
    return op_end(ctx, gap_gamma(ctx, rule, arms, horizon, regret, delta, gamma));
}
