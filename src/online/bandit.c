/*
 * bandit.c - see softlogit/bandit.h. A step is made beside the weights and checked before it
 * takes their place. Without perturbation and ball it touches the arm's weights alone.
 */
#include "bandit_handle.h"

#include <math.h>
#include <string.h>

#include "core/options.h"
#include "core/rng.h"
#include "softlogit/layer.h"
#include "softmax/parts.h"

enum { TASK = 8 * KERNEL_BLOCK };

static const slg_bandit_opts defaults = {
    .size = sizeof(slg_bandit_opts),
    .rule = SLG_GAP_FIRST_ORDER,
    .model = SLG_BANDIT_TWO_LAYER,
    .width = 100,
    .activation = SLG_RELU,
    .signs = 2,
    .gamma = 100,
    .horizon = 1000,
    .regret = 1,
    .delta = 0.05,
    .c_p = 0.01,
    .step = NAN,
    .mu = 1,
    .radius = INFINITY,
    .variance = 2,
};

void slg_bandit_opts_init(slg_bandit_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

slg_rng bandit_stream(const slg_bandit *b, int stream)
{
    return (slg_rng){ rng_number(b->opts.seed, (uint64_t)stream), 0 };
}

rows bandit_row(const slg_bandit *b, float *weights)
{
    const slg_tensor t = slg_tensor_1d(weights, SLG_F32, b->size);
    return rows_of(&t);
}

double bandit_step(const slg_bandit *b)
{
    const double t = (double)b->counters.rounds + 1;
    return b->opts.schedule == SLG_BANDIT_INVERSE ? 1 / (b->opts.mu * t) : b->opts.step;
}

void bandit_seed(slg_bandit *b)
{
    const slg_rng g = bandit_stream(b, STREAM_OUTPUT);
    const float unit = (float)(1 / sqrt((double)b->opts.width));
    b->signs.rng = bandit_stream(b, STREAM_SIGNS);
    for (int64_t j = 0; b->output && j < b->opts.width; j++) {
        const uint64_t word = rng_number(g.seed, g.offset + (uint64_t)(j / 64));
        b->output[j] = word >> (j % 64) & 1 ? unit : -unit;
    }
}

/* ---- Life ------------------------------------------------------------------------------- */

static slg_status check_theory(slg_bandit *b)
{
    slg_bandit_opts *o = &b->opts;
    slg_ctx *ctx = b->ctx;
    SLG_TRY(option_least(ctx, "horizon", o->horizon, 0));
    SLG_TRY(option_range(ctx, "regret", o->regret, BANDIT_LEAST, BANDIT_MOST));
    if (!(o->delta > 0 && o->delta <= 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "delta is %g, must be in (0, 1]", o->delta);
    if (!isnan(o->gamma)) return option_least(ctx, "gamma", o->gamma, 0);
    return gap_gamma(ctx, o->rule, b->arms, o->horizon, o->regret, o->delta, &o->gamma);
}

static slg_status check_step(slg_bandit *b)
{
    slg_bandit_opts *o = &b->opts;
    if (isnan(o->step) && o->model != SLG_BANDIT_CALLBACKS)
        o->step =
            (o->rule == SLG_GAP_SQUARE ? 1 : 5) * (o->model == SLG_BANDIT_TWO_LAYER ? 2 : 1);
    if (isnan(o->step) && o->schedule == SLG_BANDIT_CONSTANT)
        return slg_fail(b->ctx, SLG_ERR_RANGE, "step must be given with callbacks");
    if (!isnan(o->step))
        SLG_TRY(option_range(b->ctx, "step", o->step, BANDIT_LEAST, BANDIT_MOST));
    return option_range(b->ctx, "mu", o->mu, BANDIT_LEAST, BANDIT_MOST);
}

static slg_status check_opts(slg_bandit *b)
{
    slg_bandit_opts *o = &b->opts;
    slg_ctx *ctx = b->ctx;
    SLG_TRY(option_choice(ctx, "rule", o->rule, SLG_GAP_SQUARE, SLG_GAP_FIRST_ORDER));
    SLG_TRY(option_choice(ctx, "model", o->model, SLG_BANDIT_LINEAR, SLG_BANDIT_CALLBACKS));
    SLG_TRY(option_range(ctx, "width", o->width, 1, 1 << 24));
    SLG_TRY(option_choice(ctx, "activation", o->activation, SLG_GELU, SLG_RELU));
    SLG_TRY(option_choice(ctx, "shared", o->shared, 0, 1));
    SLG_TRY(option_range(ctx, "signs", o->signs, 0, SIGNS_MOST));
    SLG_TRY(
        option_choice(ctx, "schedule", o->schedule, SLG_BANDIT_CONSTANT, SLG_BANDIT_INVERSE));
    SLG_TRY(option_range(ctx, "c_p", o->c_p, 0, BANDIT_MOST));
    SLG_TRY(option_range(ctx, "variance", o->variance, 0, BANDIT_MOST));
    SLG_TRY(check_theory(b));
    SLG_TRY(check_step(b));
    if (!(o->radius >= 0))
        return slg_fail(ctx, SLG_ERR_RANGE, "radius is %g, must be at least 0", o->radius);
    if (o->model == SLG_BANDIT_CALLBACKS && (!o->predict || !o->gradient))
        return slg_fail(ctx, SLG_ERR_NULL, "opts.predict or opts.gradient is NULL");
    return SLG_OK;
}

/* theta0 in the weights' own shape, or flat. */
static slg_status check_start(slg_bandit *b, const slg_tensor *t)
{
    const bool two = b->opts.model == SLG_BANDIT_TWO_LAYER;
    int64_t shape[3];
    int32_t axes = 0;
    if (!t && b->opts.model == SLG_BANDIT_CALLBACKS)
        return slg_fail(b->ctx, SLG_ERR_NULL, "theta0 must be given with callbacks");
    if (!t) return SLG_OK;
    SLG_TRY(tensor_in(b->ctx, "theta0", t, DT_ROW, 1, 3));
    if (b->size > b->block || (!b->opts.shared && b->opts.model != SLG_BANDIT_CALLBACKS))
        shape[axes++] = b->arms;
    shape[axes++] = b->dim;
    if (two) shape[axes++] = b->opts.width;
    if (t->ndim == 1) axes = 1, shape[0] = b->size;
    SLG_TRY(tensor_shape_is(b->ctx, "theta0", t, axes, shape));
    const rows m = rows_of(t);
    return rows_check_finite(b->ctx, "theta0", &m);
}

static void close(slg_bandit *b)
{
    void *const parts[] = { b->shift, b->f, b->theta, b->theta0, b->next, b->grad, b->output };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) ctx_free(b->ctx, parts[i]);
    ctx_free(b->ctx, b);
}

static bool allocate(slg_bandit *b)
{
    const size_t size = (size_t)b->size * sizeof(float), count = (size_t)b->signs.count;
    const bool two = b->opts.model == SLG_BANDIT_TWO_LAYER;
    if (count && !(b->shift = ctx_alloc(b->ctx, count * sizeof(double)))) return false;
    if (two && !(b->output = ctx_alloc(b->ctx, (size_t)b->opts.width * sizeof(float))))
        return false;
    return (b->f = ctx_alloc(b->ctx, (size_t)b->arms * sizeof(double))) &&
           (b->theta = ctx_alloc(b->ctx, size)) && (b->theta0 = ctx_alloc(b->ctx, size)) &&
           (b->next = ctx_alloc(b->ctx, size)) &&
           (b->grad = ctx_alloc(b->ctx, (size_t)b->block * sizeof(float)));
}

static void start(slg_bandit *b)
{
    b->counters = (bandit_counters){ 0 };
    b->shift_known = false;
    memcpy(b->theta, b->theta0, (size_t)b->size * sizeof *b->theta);
}

static slg_status create(slg_ctx *ctx, int64_t arms, int64_t dim, const slg_tensor *theta0,
                         const slg_bandit_opts *opts, slg_bandit **out)
{
    slg_bandit made = { .ctx = ctx, .opts = defaults, .arms = arms, .dim = dim };
    SLG_TRY(options_read(ctx, "opts", opts, &made.opts, sizeof made.opts));
    SLG_TRY(option_range(ctx, "arms", (double)arms, 1, 1 << 24));
    SLG_TRY(option_range(ctx, "dim", (double)dim, 1, 1 << 30));
    SLG_TRY(check_opts(&made));
    SLG_TRY(model_size(&made));
    SLG_TRY(check_start(&made, theta0));
    made.signs = (signs){ .count = made.opts.c_p > 0 ? made.opts.signs : 0, .size = made.size };
    made.scale = made.opts.c_p / sqrt(sqrt((double)made.opts.width));
    slg_bandit *b = ctx_alloc(ctx, sizeof *b);
    if (!b) return SLG_ERR_MEMORY;
    *b = made;
    if (!allocate(b)) {
        close(b);
        return SLG_ERR_MEMORY;
    }
    bandit_seed(b);
    model_start(b);
    if (theta0) {
        const rows m = rows_of(theta0);
        for (int64_t i = 0; i < b->size; i++)
            b->theta0[i] = (float)rows_get(&m, i / m.cols, i % m.cols);
    }
    start(b);
    *out = b;
    return SLG_OK;
}

slg_status slg_bandit_create(slg_ctx *ctx, int64_t arms, int64_t dim, const slg_tensor *theta0,
                             const slg_bandit_opts *opts, slg_bandit **b)
{
    if (!ctx || !b) return SLG_ERR_NULL;
    *b = NULL;
    op_begin(ctx, "slg_bandit_create");
    return op_end(ctx, create(ctx, arms, dim, theta0, opts, b));
}

void slg_bandit_free(slg_bandit *b)
{
    if (b) close(b);
}

slg_status slg_bandit_reset(slg_bandit *b)
{
    if (!b) return SLG_ERR_NULL;
    op_begin(b->ctx, "slg_bandit_reset");
    start(b);
    return op_end(b->ctx, SLG_OK);
}

/* ---- Choosing --------------------------------------------------------------------------- */

/* Shifts of theta, kept until it moves. */
static slg_status find_shift(slg_bandit *b)
{
    if (b->shift_known || b->signs.count == 0) return SLG_OK;
    const rows t = bandit_row(b, b->theta), t0 = bandit_row(b, b->theta0);
    SLG_TRY(signs_dot(b->ctx, &b->signs, &t, &t0, b->shift));
    for (int64_t s = 0; s < b->signs.count; s++) b->shift[s] *= b->scale;
    b->shift_known = true;
    return SLG_OK;
}

/* Mean over perturbations. */
static regress_point regress(const slg_bandit *b, double f, double y, double *slopes)
{
    const int64_t count = b->signs.count;
    regress_point sum = { 0 };
    if (count == 0) return regress_at(b->opts.rule, f, y);
    for (int64_t s = 0; s < count; s++) {
        const regress_point one = regress_at(b->opts.rule, f + b->shift[s], y);
        if (slopes) slopes[s] = one.slope;
        sum.prediction += one.prediction, sum.loss += one.loss, sum.slope += one.slope;
    }
    const double n = (double)count;
    return (regress_point){ sum.prediction / n, sum.loss / n, sum.slope / n };
}

static slg_status check_arms(slg_bandit *b, const char *name, const slg_tensor *t)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(b->ctx, name, t, DT_F32 | DT_F64, 1, 1));
    return tensor_shape_is(b->ctx, name, t, 1, &b->arms);
}

static slg_status check_choose(slg_bandit *b, const slg_tensor *x, const slg_tensor *mask,
                               const double *u, const slg_tensor *cost, const slg_tensor *p)
{
    slg_ctx *ctx = b->ctx;
    if (mask) {
        SLG_TRY(tensor_in(ctx, "mask", mask, DT_INT | DT_F32, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, "mask", mask, 1, &b->arms));
    }
    if (u && !(*u >= 0 && *u < 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "u is %g, must be in [0, 1)", *u);
    SLG_TRY(check_arms(b, "cost", cost));
    SLG_TRY(check_arms(b, "p", p));
    /* x of callbacks is not looked at before: it may be no tensor that we know. */
    const slg_tensor *seen = b->opts.model == SLG_BANDIT_CALLBACKS ? NULL : x;
    if (outputs_clash(cost, seen) || outputs_clash(p, seen) || outputs_clash(cost, mask) ||
        outputs_clash(p, mask) || outputs_clash(cost, p))
        return slg_fail(ctx, SLG_ERR_STRIDE, "cost or p overlaps another tensor");
    return SLG_OK;
}

/* f becomes costs. */
static slg_status costs_of(slg_bandit *b, const slg_tensor *mask, double *f)
{
    const rows m = mask ? rows_of(mask) : (rows){ 0 };
    bool open = false;
    for (int64_t a = 0; a < b->arms; a++) {
        const bool out = mask && rows_get(&m, 0, a) == 0;
        f[a] = out ? INFINITY : regress(b, f[a], 0, NULL).prediction;
        open = open || !out;
        if (!out && !isfinite(f[a]))
            return slg_fail(b->ctx, SLG_ERR_RANGE, "the prediction of arm %lld is %g",
                            (long long)a, f[a]);
    }
    return open ? SLG_OK : slg_fail(b->ctx, SLG_ERR_RANGE, "mask leaves no arm");
}

static const char op_choose[] = "slg_bandit_choose", op_observe[] = "slg_bandit_observe";

static slg_status choose(slg_bandit *b, const slg_tensor *x, const slg_tensor *mask,
                         const double *u, int64_t *arm, slg_tensor *cost, slg_tensor *p)
{
    const bool own = arm && !u;
    if (b->opts.model != SLG_BANDIT_CALLBACKS) SLG_TRY(tensor_in(b->ctx, "x", x, DT_ROW, 1, 2));
    SLG_TRY(check_choose(b, x, mask, u, cost, p));
    SLG_TRY(model_predict(b, op_choose, x, b->f));
    SLG_TRY(find_shift(b));
    SLG_TRY(costs_of(b, mask, b->f));
    const slg_rng g = bandit_stream(b, STREAM_DRAWS);
    const double number = u     ? *u
                          : own ? rng_uniform(g.seed, g.offset + (uint64_t)b->counters.draws)
                                : 0;
    const slg_tensor costs = slg_tensor_1d(b->f, SLG_F64, b->arms);
    const rows m = rows_of(&costs), to = p ? rows_of(p) : (rows){ 0 };
    const int64_t drawn = gap_draw(b->opts.rule, b->opts.gamma, &m, 0, number, p ? &to : NULL);
    if (cost) {
        const rows c = rows_of(cost);
        row_part_store(&c, 0, 0, b->arms, b->f);
    }
    if (arm) *arm = drawn;
    if (own) b->counters.draws++;
    return SLG_OK;
}

slg_status slg_bandit_choose(slg_bandit *b, const slg_tensor *x, const slg_tensor *mask,
                             const double *u, int64_t *arm, slg_tensor *cost, slg_tensor *p)
{
    if (!b) return SLG_ERR_NULL;
    op_begin(b->ctx, op_choose);
    return op_end(b->ctx, choose(b, x, mask, u, arm, cost, p));
}

/* ---- Learning --------------------------------------------------------------------------- */

typedef struct step_run {
    slg_bandit *b;
    const double *a;     /* [count]: of the signs */
    double slope;        /* of the arm's gradient */
    int64_t from, to;    /* weights that move */
    int64_t first, last; /* those of the arm */
} step_run;

static void step_task(void *arg, int64_t task, int32_t worker)
{
    const step_run *g = arg;
    slg_bandit *b = g->b;
    const int64_t start_at = g->from + task * TASK;
    const int64_t end = start_at + TASK < g->to ? start_at + TASK : g->to;
    double y[KERNEL_BLOCK];
    (void)worker;
    for (int64_t i = start_at; i < end; i += KERNEL_BLOCK) {
        const int64_t n = end - i < KERNEL_BLOCK ? end - i : KERNEL_BLOCK;
        const int64_t first = i > g->first ? i : g->first;
        const int64_t last = i + n < g->last ? i + n : g->last;
        for (int64_t j = 0; j < n; j++) y[j] = (double)b->theta[i + j];
        if (b->signs.count) signs_add(&b->ctx->k, &b->signs, g->a, i, n, y);
        for (int64_t j = first; j < last; j++)
            y[j - i] += g->slope * (double)b->grad[j - g->first];
        for (int64_t j = 0; j < n; j++) b->next[i + j] = (float)y[j];
    }
}

/* theta -> next, in the ball; *moved: it had left it. */
static slg_status make_step(slg_bandit *b, const step_run *g, bool *moved)
{
    slg_ctx *ctx = b->ctx;
    const rows next = bandit_row(b, b->next), t0 = bandit_row(b, b->theta0);
    pool_run(ctx, (g->to - g->from + TASK - 1) / TASK, step_task, (void *)(uintptr_t)g);
    if (!ctx->k.finite((size_t)(g->to - g->from), b->next + g->from))
        return slg_fail(ctx, SLG_ERR_RANGE, "the step leaves float32: make it smaller");
    if (isinf(b->opts.radius)) return SLG_OK;
    double distance;
    SLG_TRY(ball_distance(ctx, &next, &t0, &distance));
    /* What rounding adds to a point of the sphere does not leave the ball. */
    *moved = distance > b->opts.radius * (1 + 0x1p-22);
    if (*moved) ball_pull(ctx, &next, &t0, b->opts.radius, distance);
    return SLG_OK;
}

static void take_step(slg_bandit *b, const step_run *g)
{
    if (g->to - g->from < b->size) {
        memcpy(b->theta + g->from, b->next + g->from,
               (size_t)(g->to - g->from) * sizeof *b->theta);
        return;
    }
    float *old = b->theta;
    b->theta = b->next, b->next = old;
}

static slg_status check_observe(slg_bandit *b, int64_t arm, double cost)
{
    if (arm < 0 || arm >= b->arms)
        return slg_fail(b->ctx, SLG_ERR_RANGE, "arm is %lld, must be from 0 to %lld",
                        (long long)arm, (long long)b->arms - 1);
    if (b->opts.rule == SLG_GAP_FIRST_ORDER) return option_range(b->ctx, "cost", cost, 0, 1);
    return isfinite(cost) ? SLG_OK
                          : slg_fail(b->ctx, SLG_ERR_RANGE, "cost is %g, must be finite", cost);
}

static slg_status observe(slg_bandit *b, const slg_tensor *x, int64_t arm, double cost)
{
    const int64_t count = b->signs.count;
    double f;
    bool moved = false;
    SLG_TRY(check_observe(b, arm, cost));
    SLG_TRY(model_gradient(b, op_observe, x, arm, &f));
    SLG_TRY(find_shift(b));
    double *a = arena_alloc(b->ctx, (size_t)count, sizeof *a);
    if (!a) return SLG_ERR_MEMORY;
    const regress_point at = regress(b, f, cost, a);
    if (!isfinite(at.slope) || !isfinite(at.loss))
        return slg_fail(b->ctx, SLG_ERR_RANGE, "the prediction of arm %lld is %g",
                        (long long)arm, f);
    const double step = bandit_step(b);
    for (int64_t s = 0; s < count; s++) a[s] *= -step * b->scale / (double)count;
    step_run g = { .b = b, .a = a, .slope = -step * at.slope, .to = b->size };
    g.first = b->size > b->block ? arm * b->block : 0;
    g.last = g.first + b->block;
    if (count == 0 && isinf(b->opts.radius)) g.from = g.first, g.to = g.last;
    SLG_TRY(make_step(b, &g, &moved));
    take_step(b, &g);
    b->shift_known = false;
    b->counters.rounds++;
    b->counters.projections += moved;
    b->counters.cost += cost, b->counters.loss += at.loss;
    return SLG_OK;
}

slg_status slg_bandit_observe(slg_bandit *b, const slg_tensor *x, int64_t arm, double cost)
{
    if (!b) return SLG_ERR_NULL;
    op_begin(b->ctx, op_observe);
    return op_end(b->ctx, observe(b, x, arm, cost));
}
