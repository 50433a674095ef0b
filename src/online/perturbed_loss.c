/*
 * perturbed_loss.c - see softlogit/bandit.h. A shift is the same for every sample: S products
 * with theta - theta0, then S N additions.
 */
#include <math.h>
#include <string.h>

#include "bandit_parts.h"
#include "core/options.h"
#include "softmax/parts.h"

enum { SAMPLES = 256, WEIGHTS = 8 * KERNEL_BLOCK }; /* of a task */

enum { F, Y, THETA, THETA0, EPSILON, INPUTS };
enum { PERTURBED, PREDICTION, LOSS, DF, DTHETA, OUTPUTS };

static const slg_perturbed_loss_opts opts_defaults = {
    .size = sizeof(slg_perturbed_loss_opts),
    .rule = SLG_GAP_FIRST_ORDER,
    .signs = 2,
    .c_p = 0.01,
    .width = 100,
};
static const slg_perturbed_loss_out out_defaults = { .size = sizeof(slg_perturbed_loss_out) };

void slg_perturbed_loss_opts_init(slg_perturbed_loss_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

void slg_perturbed_loss_out_init(slg_perturbed_loss_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

typedef struct perturbed_run {
    slg_ctx *ctx;
    slg_perturbed_loss_opts opts;
    int64_t n, p, s; /* s at least 1: not perturbed is once with shift 0 */
    rows in[INPUTS], out[OUTPUTS];
    bool has_y, has[OUTPUTS], none;
    signs e;
    double scale;
    double *shift;   /* [s] */
    double *partial; /* [tasks, s + 1]: sums of slopes, and of losses */
    double *a;       /* [s]: of the signs, in the gradient */
} perturbed_run;

static void put(const perturbed_run *g, int out, int64_t r, int64_t c, double value)
{
    if (g->has[out]) rows_put(&g->out[out], r, c, value);
}

static void sample(const perturbed_run *g, int64_t i, double *sums)
{
    const double s = (double)g->s, f = rows_get(&g->in[F], 0, i);
    const double y = g->has_y ? rows_get(&g->in[Y], 0, i) : 0;
    regress_point sum = { 0 };
    for (int64_t k = 0; k < g->s; k++) {
        const regress_point one = regress_at(g->opts.rule, f + g->shift[k], y);
        sum.prediction += one.prediction, sum.loss += one.loss, sum.slope += one.slope;
        sums[k] += one.slope;
        put(g, PERTURBED, k, i, f + g->shift[k]);
    }
    sums[g->s] += sum.loss / s;
    put(g, PREDICTION, 0, i, sum.prediction / s);
    put(g, LOSS, 0, i, sum.loss / s);
    put(g, DF, 0, i, sum.slope / s / (double)g->n);
}

static void sample_task(void *arg, int64_t task, int32_t worker)
{
    const perturbed_run *g = arg;
    double *sums = g->partial + task * (g->s + 1);
    (void)worker;
    memset(sums, 0, (size_t)(g->s + 1) * sizeof *sums);
    for (int64_t i = task * SAMPLES; i < (task + 1) * SAMPLES && i < g->n; i++)
        sample(g, i, sums);
}

static void weight_task(void *arg, int64_t task, int32_t worker)
{
    const perturbed_run *g = arg;
    const rows *d = &g->out[DTHETA];
    double y[KERNEL_BLOCK];
    (void)worker;
    for (int64_t i = task * WEIGHTS; i < (task + 1) * WEIGHTS && i < g->p; i += KERNEL_BLOCK) {
        const int64_t n = g->p - i < KERNEL_BLOCK ? g->p - i : KERNEL_BLOCK;
        row_part_doubles(d, 0, i, n, y);
        signs_add(&g->ctx->k, &g->e, g->a, i, n, y);
        row_part_store(d, 0, i, n, y);
    }
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_input(perturbed_run *g, int which, const char *name,
                              const slg_tensor *t, int64_t n)
{
    SLG_TRY(tensor_in(g->ctx, name, t, DT_ROW, 1, 1));
    SLG_TRY(tensor_shape_is(g->ctx, name, t, 1, &n));
    g->in[which] = rows_of(t);
    return rows_check_finite(g->ctx, name, &g->in[which]);
}

static slg_status check_opts(slg_ctx *ctx, const slg_perturbed_loss_opts *o)
{
    SLG_TRY(option_choice(ctx, "rule", o->rule, SLG_GAP_SQUARE, SLG_GAP_FIRST_ORDER));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(option_range(ctx, "signs", o->signs, 0, SIGNS_MOST));
    SLG_TRY(option_range(ctx, "c_p", o->c_p, 0, BANDIT_MOST));
    return option_range(ctx, "width", o->width, BANDIT_LEAST, BANDIT_MOST);
}

/* Inputs are read again after outputs are written: not even the same view will do. */
static slg_status check_outputs(perturbed_run *g, const slg_tensor *const in[INPUTS],
                                const slg_perturbed_loss_out *o)
{
    const struct {
        const char *name;
        const slg_tensor *t;
        int32_t ndim;
        int64_t shape[2];
    } out[OUTPUTS] = {
        { "out.perturbed", o->perturbed, 2, { g->s, g->n } },
        { "out.prediction", o->prediction, 1, { g->n, 1 } },
        { "out.loss", o->loss, 1, { g->n, 1 } },
        { "out.df", o->df, 1, { g->n, 1 } },
        { "out.dtheta", o->dtheta, 1, { g->p, 1 } },
    };
    for (int i = 0; i < OUTPUTS; i++) {
        bool clash = false;
        if (!out[i].t) continue;
        SLG_TRY(tensor_out(g->ctx, out[i].name, out[i].t, DT_F32 | DT_F64, out[i].ndim,
                           out[i].ndim));
        SLG_TRY(tensor_shape_is(g->ctx, out[i].name, out[i].t, out[i].ndim, out[i].shape));
        if (i >= LOSS && !g->has_y)
            return slg_fail(g->ctx, SLG_ERR_NULL, "y is NULL, and %s is wanted", out[i].name);
        for (int k = 0; k < INPUTS; k++) clash = clash || outputs_clash(out[i].t, in[k]);
        for (int k = 0; k < i; k++) clash = clash || outputs_clash(out[i].t, out[k].t);
        if (clash)
            return slg_fail(g->ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", out[i].name);
        g->has[i] = true, g->out[i] = rows_of(out[i].t);
    }
    return SLG_OK;
}

static slg_status check_y(perturbed_run *g, const slg_tensor *y)
{
    if (!y) return SLG_OK;
    g->has_y = true;
    SLG_TRY(check_input(g, Y, "y", y, g->n));
    for (int64_t i = 0; i < g->n && g->opts.rule == SLG_GAP_FIRST_ORDER; i++) {
        const double v = rows_get(&g->in[Y], 0, i);
        if (!(v >= 0 && v <= 1))
            return slg_fail(g->ctx, SLG_ERR_RANGE, "y[%lld] is %g, must be within [0, 1]",
                            (long long)i, v);
    }
    return SLG_OK;
}

static slg_status open_signs(perturbed_run *g, const slg_tensor *epsilon, const slg_rng *rng)
{
    g->e = (signs){ .count = g->opts.signs, .size = g->p, .given = epsilon };
    if (epsilon) {
        SLG_TRY(tensor_in(g->ctx, "epsilon", epsilon, DT_ROW, 2, 2));
        g->e.count = epsilon->shape[0];
        SLG_TRY(option_range(g->ctx, "rows of epsilon", (double)g->e.count, 0, SIGNS_MOST));
        SLG_TRY(
            tensor_shape_is(g->ctx, "epsilon", epsilon, 2, (int64_t[2]){ g->e.count, g->p }));
        g->e.epsilon = rows_of(epsilon);
        SLG_TRY(rows_check_finite(g->ctx, "epsilon", &g->e.epsilon));
    }
    g->none = g->e.count == 0 || g->opts.c_p == 0;
    if (!epsilon && !g->none) {
        if (!rng) return slg_fail(g->ctx, SLG_ERR_NULL, "epsilon and rng are NULL");
        g->e.rng = *rng;
    }
    g->s = g->e.count > 0 ? g->e.count : 1;
    g->scale = g->opts.c_p / sqrt(sqrt(g->opts.width));
    return SLG_OK;
}

/* ---- The function ----------------------------------------------------------------------- */

static slg_status open(perturbed_run *g, const slg_tensor *const in[INPUTS], const slg_rng *rng)
{
    SLG_TRY(tensor_in(g->ctx, "f", in[F], DT_ROW, 1, 1));
    SLG_TRY(tensor_in(g->ctx, "theta", in[THETA], DT_ROW, 1, 1));
    op_detail(g->ctx, in[F]);
    op_detail(g->ctx, in[THETA]);
    g->n = in[F]->shape[0], g->p = in[THETA]->shape[0];
    SLG_TRY(check_input(g, F, "f", in[F], g->n));
    SLG_TRY(check_y(g, in[Y]));
    SLG_TRY(check_input(g, THETA, "theta", in[THETA], g->p));
    SLG_TRY(check_input(g, THETA0, "theta0", in[THETA0], g->p));
    return open_signs(g, in[EPSILON], rng);
}

static slg_status shifts(perturbed_run *g)
{
    g->shift = arena_alloc(g->ctx, (size_t)g->s, sizeof *g->shift);
    g->a = arena_alloc(g->ctx, (size_t)g->s, sizeof *g->a);
    if (!g->shift || !g->a) return SLG_ERR_MEMORY;
    memset(g->shift, 0, (size_t)g->s * sizeof *g->shift);
    if (g->none) return SLG_OK;
    SLG_TRY(signs_dot(g->ctx, &g->e, &g->in[THETA], &g->in[THETA0], g->shift));
    for (int64_t k = 0; k < g->s; k++) g->shift[k] *= g->scale;
    return SLG_OK;
}

static slg_status compute(perturbed_run *g, double *value)
{
    const int64_t tasks = (g->n + SAMPLES - 1) / SAMPLES, width = g->s + 1;
    SLG_TRY(shifts(g));
    g->partial = arena_alloc(g->ctx, (size_t)tasks, (size_t)width * sizeof *g->partial);
    if (!g->partial) return SLG_ERR_MEMORY;
    pool_run(g->ctx, tasks, sample_task, g);
    memset(g->a, 0, (size_t)g->s * sizeof *g->a);
    *value = 0;
    for (int64_t t = 0; t < tasks; t++) {
        for (int64_t k = 0; k < g->s; k++) g->a[k] += g->partial[t * width + k];
        *value += g->partial[t * width + g->s];
    }
    if (!g->has_y || g->n == 0) {
        *value = 0;
        return SLG_OK;
    }
    *value /= (double)g->n;
    if (!g->has[DTHETA] || g->none) return SLG_OK;
    for (int64_t k = 0; k < g->s; k++) g->a[k] *= g->scale / (double)g->n / (double)g->s;
    pool_run(g->ctx, (g->p + WEIGHTS - 1) / WEIGHTS, weight_task, g);
    return SLG_OK;
}

static slg_status run(slg_ctx *ctx, const slg_tensor *const in[INPUTS], const slg_rng *rng,
                      const slg_perturbed_loss_opts *opts, slg_perturbed_loss_out *out)
{
    perturbed_run g = { .ctx = ctx, .opts = opts_defaults };
    slg_perturbed_loss_out o = out_defaults;
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "opts", opts, &g.opts, sizeof g.opts));
    SLG_TRY(options_read(ctx, "out", out, &o, sizeof o));
    SLG_TRY(option_reserved(ctx, "out.reserved", o.reserved));
    SLG_TRY(check_opts(ctx, &g.opts));
    SLG_TRY(open(&g, in, rng));
    SLG_TRY(check_outputs(&g, in, &o));
    SLG_TRY(compute(&g, &o.value));
    options_write(out, &o, sizeof o);
    return SLG_OK;
}

slg_status slg_perturbed_loss(slg_ctx *ctx, const slg_tensor *f, const slg_tensor *y,
                              const slg_tensor *theta, const slg_tensor *theta0,
                              const slg_tensor *epsilon, const slg_rng *rng,
                              const slg_perturbed_loss_opts *opts, slg_perturbed_loss_out *out)
{
    const slg_tensor *const in[INPUTS] = { f, y, theta, theta0, epsilon };
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_perturbed_loss");
    return op_end(ctx, run(ctx, in, rng, opts, out));
}
