/*
 * utility_transform.c - see softlogit/utility.h. Groups may lie in any order, so a group
 * is a place in an array and the candidates are walked three times: maximum, sums, results.
 */
#include <float.h>
#include <math.h>

#include "core/options.h"
#include "softlogit/utility.h"
#include "softmax/parts.h"

static const slg_utility_transform_opts defaults = {
    .size = sizeof(slg_utility_transform_opts),
    .length_power = 0,
    .temperature = 1,
};

void slg_utility_transform_opts_init(slg_utility_transform_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* A group: its largest s (NaN: it holds one), the sum of weights w = exp((s - max) / tau), and
   of w (s - max) / tau. */
typedef struct group_sums {
    double max, sum, dot;
    int64_t best;
} group_sums;

typedef struct candidates {
    slg_ctx *ctx;
    slg_utility_transform_opts opts;
    rows length, group; /* data NULL: none */
    int64_t count, groups;
    bool offsets;
    group_sums *sums;
} candidates;

static double length_factor(const candidates *c, int64_t i)
{
    if (!c->length.data || c->opts.length_power == 0) return 1;
    const int64_t n = rows_get_int(&c->length, 0, i);
    if (n <= 1) return 1;
    return c->opts.length_power == 1 ? (double)n : pow((double)n, c->opts.length_power);
}

static double score(const candidates *c, const rows *utility, int64_t i)
{
    const double u = rows_get(utility, 0, i);
    return isinf(u) ? u : u / length_factor(c, i);
}

/* Walks candidates with their groups. */
typedef struct cursor {
    int64_t group;
} cursor;

static group_sums *group_of(const candidates *c, cursor *at, int64_t i)
{
    if (!c->group.data) return c->sums;
    if (!c->offsets) return c->sums + rows_get_int(&c->group, 0, i);
    while (i >= rows_get_int(&c->group, 0, at->group + 1)) at->group++;
    return c->sums + at->group;
}

static void find_best(const candidates *c, const rows *utility)
{
    cursor at = { 0 };
    for (int64_t g = 0; g < c->groups; g++) c->sums[g] = (group_sums){ -INFINITY, 0, 0, -1 };
    for (int64_t i = 0; i < c->count; i++) {
        group_sums *g = group_of(c, &at, i);
        const double s = score(c, utility, i);
        if (isnan(s) || isnan(g->max)) {
            g->max = NAN;
            g->best = -1;
        } else if (s > g->max) {
            g->max = s;
            g->best = i;
        }
    }
}

/* (s - max) / tau, at most 0; -inf for what gets nothing. Not for groups without candidates. */
static double exponent(const candidates *c, const group_sums *g, double s)
{
    if (s == g->max) return 0;
    if (g->max == INFINITY || c->opts.temperature < DBL_MIN) return -INFINITY;
    return (s - g->max) / c->opts.temperature;
}

static void add_up(const candidates *c, const rows *utility)
{
    cursor at = { 0 };
    for (int64_t i = 0; i < c->count; i++) {
        group_sums *g = group_of(c, &at, i);
        if (g->best < 0) continue;
        const double e = exponent(c, g, score(c, utility, i)), w = exp(e);
        g->sum += w;
        if (w > 0) g->dot += w * e;
    }
}

static void write_candidates(const candidates *c, const rows *utility, const rows *log_prob,
                             const rows *prob)
{
    cursor at = { 0 };
    for (int64_t i = 0; i < c->count; i++) {
        const group_sums *g = group_of(c, &at, i);
        double lp = isnan(g->max) ? NAN : -INFINITY;
        if (g->best >= 0) lp = exponent(c, g, score(c, utility, i)) - log(g->sum);
        if (log_prob->data) rows_put(log_prob, 0, i, lp);
        if (prob->data) rows_put(prob, 0, i, exp(lp));
    }
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_options(slg_ctx *ctx, const slg_utility_transform_opts *o)
{
    SLG_TRY(option_choice(ctx, "offsets", o->offsets, 0, 1));
    SLG_TRY(option_least(ctx, "length_power", o->length_power, 0));
    SLG_TRY(option_least(ctx, "temperature", o->temperature, 0));
    return SLG_OK;
}

static slg_status check_group(candidates *c)
{
    const int64_t n = c->group.cols, top = c->offsets ? c->count : c->groups - 1;
    int64_t last = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t g = rows_get_int(&c->group, 0, i);
        const bool edge =
            c->offsets && ((i == 0 && g != 0) || (i == n - 1 && g != c->count) || g < last);
        if (g < 0 || g > top || edge)
            return slg_fail(c->ctx, SLG_ERR_RANGE, "group[%lld] is %lld: must be %s %lld",
                            (long long)i, (long long)g,
                            c->offsets ? "from 0, without descent, to" : "from 0 to",
                            (long long)top);
        last = g;
    }
    return SLG_OK;
}

static slg_status open_candidates(candidates *c, int64_t count, const slg_tensor *length,
                                  const slg_tensor *group, int64_t groups,
                                  const slg_utility_transform_opts *opts)
{
    slg_ctx *ctx = c->ctx;
    c->opts = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &c->opts, sizeof c->opts));
    SLG_TRY(check_options(ctx, &c->opts));
    c->count = count, c->groups = groups, c->offsets = c->opts.offsets;
    if (groups < 0 || (!group && groups != 1) || groups > INT64_MAX / 64)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "groups is %lld, must be at least 0, and 1 without group",
                        (long long)groups);
    if (group) {
        const int64_t size = c->offsets ? groups + 1 : count;
        SLG_TRY(tensor_in(ctx, "group", group, DT_INT, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "group", group, 1, &size));
        c->group = rows_of(group);
        SLG_TRY(check_group(c));
    }
    if (length) {
        SLG_TRY(tensor_in(ctx, "length", length, DT_INT, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "length", length, 1, &count));
        c->length = rows_of(length);
        for (int64_t i = 0; i < count; i++)
            if (rows_get_int(&c->length, 0, i) < 0)
                return slg_fail(ctx, SLG_ERR_RANGE, "length[%lld] is %lld, must be at least 0",
                                (long long)i, (long long)rows_get_int(&c->length, 0, i));
    }
    c->sums = arena_alloc(ctx, (size_t)groups, sizeof *c->sums);
    return c->sums ? SLG_OK : SLG_ERR_MEMORY;
}

/* An output of one axis, which may be `over` itself, and shares no memory with the other
   tensors. */
static slg_status open_output(slg_ctx *ctx, const char *name, const slg_tensor *t,
                              unsigned dtypes, int64_t size, const slg_tensor *over,
                              const slg_tensor *const others[], size_t count, rows *out)
{
    *out = (rows){ .data = NULL };
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(ctx, name, t, dtypes, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &size));
    bool clash = over && tensor_clash(t, over);
    for (size_t i = 0; i < count; i++) clash = clash || outputs_clash(t, others[i]);
    if (clash) return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", name);
    *out = rows_of(t);
    if (tensor_size(t) == 0) out->data = NULL;
    return SLG_OK;
}

/* ---- Forward ---------------------------------------------------------------------------- */

static slg_status transform(slg_ctx *ctx, const slg_tensor *utility, const slg_tensor *length,
                            const slg_tensor *group, int64_t groups,
                            const slg_utility_transform_opts *opts, slg_tensor *log_prob,
                            slg_tensor *prob, slg_tensor *best, slg_tensor *entropy)
{
    candidates c = { .ctx = ctx };
    rows lp, p, b, h;
    SLG_TRY(tensor_in(ctx, "utility", utility, DT_F32 | DT_F64, 1, 1));
    op_detail(ctx, utility);
    const int64_t n = utility->shape[0];
    SLG_TRY(open_candidates(&c, n, length, group, groups, opts));
    const slg_tensor *all[] = { length, group, log_prob, prob, best, entropy, utility };
    SLG_TRY(open_output(ctx, "log_prob", log_prob, DT_F32 | DT_F64, n, utility, all, 2, &lp));
    SLG_TRY(open_output(ctx, "prob", prob, DT_F32 | DT_F64, n, utility, all, 3, &p));
    SLG_TRY(open_output(ctx, "best", best, DT_INT, groups, utility, all, 4, &b));
    SLG_TRY(open_output(ctx, "entropy", entropy, DT_F32 | DT_F64, groups, utility, all, 5, &h));
    if ((prob && outputs_clash(prob, utility)) || (best && outputs_clash(best, utility)) ||
        (entropy && outputs_clash(entropy, utility)))
        return slg_fail(ctx, SLG_ERR_STRIDE, "only log_prob may be utility itself");

    const rows u = rows_of(utility);
    find_best(&c, &u);
    add_up(&c, &u);
    write_candidates(&c, &u, &lp, &p);
    for (int64_t g = 0; g < groups; g++) {
        const group_sums *s = &c.sums[g];
        double value = isnan(s->max) ? NAN : s->best < 0 ? 0 : log(s->sum) - s->dot / s->sum;
        if (b.data) rows_put(&b, 0, g, (double)s->best);
        if (h.data) rows_put(&h, 0, g, value);
    }
    return SLG_OK;
}

slg_status slg_utility_transform(slg_ctx *ctx, const slg_tensor *utility,
                                 const slg_tensor *length, const slg_tensor *group,
                                 int64_t groups, const slg_utility_transform_opts *opts,
                                 slg_tensor *log_prob, slg_tensor *prob, slg_tensor *best,
                                 slg_tensor *entropy)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_utility_transform");
    return op_end(ctx, transform(ctx, utility, length, group, groups, opts, log_prob, prob,
                                 best, entropy));
}

/* ---- Backward --------------------------------------------------------------------------- */

static slg_status backward(slg_ctx *ctx, const slg_tensor *log_prob,
                           const slg_tensor *dlog_prob, const slg_tensor *length,
                           const slg_tensor *group, int64_t groups,
                           const slg_utility_transform_opts *opts, slg_tensor *dutility)
{
    candidates c = { .ctx = ctx };
    rows out;
    SLG_TRY(tensor_in(ctx, "log_prob", log_prob, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_in(ctx, "dlog_prob", dlog_prob, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_same_shape(ctx, "dlog_prob", dlog_prob, "log_prob", log_prob));
    const int64_t n = log_prob->shape[0];
    SLG_TRY(open_candidates(&c, n, length, group, groups, opts));
    if (c.opts.temperature < DBL_MIN)
        return slg_fail(ctx, SLG_ERR_RANGE, "temperature is %g, has no gradient",
                        c.opts.temperature);
    if (!dutility) return slg_fail(ctx, SLG_ERR_NULL, "dutility is NULL");
    const slg_tensor *all[] = { length, group, log_prob };
    SLG_TRY(
        open_output(ctx, "dutility", dutility, DT_F32 | DT_F64, n, dlog_prob, all, 3, &out));

    const rows lp = rows_of(log_prob), d = rows_of(dlog_prob);
    cursor at = { 0 };
    for (int64_t g = 0; g < groups; g++) c.sums[g].sum = 0;
    for (int64_t i = 0; i < n; i++) {
        group_sums *g = group_of(&c, &at, i);
        if (rows_get(&lp, 0, i) != -INFINITY) g->sum += rows_get(&d, 0, i);
    }
    at = (cursor){ 0 };
    for (int64_t i = 0; i < n; i++) {
        const group_sums *g = group_of(&c, &at, i);
        const double l = rows_get(&lp, 0, i);
        double value = 0;
        if (l != -INFINITY)
            value = (rows_get(&d, 0, i) - exp(l) * g->sum) /
                    (length_factor(&c, i) * c.opts.temperature);
        rows_put(&out, 0, i, value);
    }
    return SLG_OK;
}

slg_status slg_utility_transform_backward(slg_ctx *ctx, const slg_tensor *log_prob,
                                          const slg_tensor *dlog_prob, const slg_tensor *length,
                                          const slg_tensor *group, int64_t groups,
                                          const slg_utility_transform_opts *opts,
                                          slg_tensor *dutility)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_utility_transform_backward");
    return op_end(ctx,
                  backward(ctx, log_prob, dlog_prob, length, group, groups, opts, dutility));
}
