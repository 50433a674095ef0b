/*
 * adversarial_comp_sum.c - see robust.h. The clean scores are the engine's logits, with rho in
 * their temperature; the perturbed ones its teacher, which here has a gradient too. Margins are
 * taken in double: their changes are differences of differences.
 */
#include "softlogit/robust.h"

#include <math.h>

#include "comp_sum.h"
#include "core/options.h"

static const slg_adversarial_comp_sum_opts defaults = {
    .size = sizeof(slg_adversarial_comp_sum_opts),
    .reduction = SLG_MEAN,
    .tau = 1.0,
    .rho = 1.0,
    .nu = 1.0,
};

void slg_adversarial_comp_sum_opts_init(slg_adversarial_comp_sum_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static const slg_margin_change_opts change_defaults = {
    .size = sizeof(slg_margin_change_opts),
    .reduction = SLG_SUM,
};

void slg_margin_change_opts_init(slg_margin_change_opts *opts, size_t size)
{
    options_init(opts, size, &change_defaults, sizeof change_defaults);
}

/* e[k] = D(A)[k] - D(H)[k] of a row, as margin_arg has it. */
typedef struct margins {
    margin_arg arg;
    double r;   /* norm of e; NaN where a row is not finite or masked */
    double sum; /* of e / r */
} margins;

/* What masks the target, in either row, makes all of e 0. */
static margin_arg margin_of(float a, double a_temperature, float h, double h_temperature)
{
    if (a == -INFINITY || h == -INFINITY) return (margin_arg){ 0, 0, 0, 0 };
    return (margin_arg){ 1 / a_temperature, 1 / h_temperature, a, h };
}

static margins margins_of(const margin_arg *arg, const double sums[2])
{
    margins m = { *arg, sqrt(sums[1]), 0 };
    m.sum = m.r > 0 ? sums[0] / m.r : 0;
    return m;
}

/* What e is multiplied by for factor dr/dA, but for the target, which gets factor sum. */
static double slope(const margins *m, double factor) { return m->r > 0 ? -factor / m->r : 0; }

/* Comp-sum's own gradient less h_unit g, g in scratch, into [from, to) of d. */
static void put_clean(const loss_call *c, const loss_row *r, double log_slope, double h_unit,
                      int64_t n, const float *x, const float *g, float *d, int store)
{
    const double factor = loss_factor(r);
    const bool masked = r->rest.kind == ROW_MASKED;
    if (!masked && r->a * factor <= LARGE_SLOPE) {
        const exp_out e = loss_softmax(c, r, r->a * factor, 0.0f);
        c->ctx->k.exp_emit_q((size_t)n, x, &e, (float)-h_unit, g, d, store);
        return;
    }
    if (masked)
        fill_f32(d, n, 0.0f);
    else
        comp_sum_emit_large(r, log_slope + log(r->weight) + log(factor), n, x, d);
    for (int64_t k = 0; k < n; k++) d[k] -= (float)(h_unit * (double)g[k]);
}

/* Both gradients, a block at a time; either may be where its scores are. */
static void put_both(const loss_call *c, const loss_row *r, const margins *m, double log_slope,
                     const float *x, const float *t, float *d)
{
    const kernel_table *k = &c->ctx->k;
    const slg_adversarial_comp_sum_opts *o = c->opts;
    const double nu = r->weight * o->nu * r->scale, own = nu * m->sum;
    const int64_t cols = c->src.cols, y = r->target;
    const int store = loss_store(c, &c->grad), t_store = loss_store(c, &c->teacher_grad);
    float g[EMIT_BLOCK];
    for (int64_t col = 0, from, to; col < cols; col += KERNEL_BLOCK) {
        line_cut(d ? d : r->dt, cols, col,
                 cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK, &from, &to);
        if (from >= to) continue;
        const size_t n = (size_t)(to - from);
        k->margin_emit(n, t + from, x + from, &m->arg, slope(m, nu), g, STORE_CACHED);
        if (d)
            put_clean(c, r, log_slope, m->arg.h_unit, to - from, x + from, g, d + from, store);
        if (r->dt)
            k->affine_emit(n, g, 1.0f, 0.0f, (float)m->arg.a_unit, 0.0f, r->dt + from, t_store);
    }
    if (r->dt) r->dt[y] = (float)(own * m->arg.a_unit);
    if (!d) return;
    const double clean = loss_target_masked(c, r) ? 0 : r->at_target * loss_factor(r);
    d[y] = (float)(clean - own * m->arg.h_unit);
}

static void whole(const loss_call *c, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const slg_adversarial_comp_sum_opts *o = c->opts;
    const margin_arg arg = margin_of(t[r->target], source_temperature(&c->teacher, r->row),
                                     r->x_target, r->temperature / o->rho);
    double sums[2];
    (void)scratch;
    c->ctx->k.margin_sums((size_t)c->src.cols, t, x, &arg, sums);
    const margins m = margins_of(&arg, sums);
    double v = comp_sum_v(r->log_odds), log_slope = comp_sum_log_slope(o->tau, v);
    r->extra[0] = m.r;
    r->loss = r->weight * (comp_sum_value(o->tau, v) + o->nu * m.r);
    if (r->weight == 0) r->loss = 0;
    r->a = r->weight == 0 ? 0 : r->weight * exp(log_slope);
    r->at_target = r->other == 0 ? 0 : -r->a * r->other;
    if (isnan(m.r)) {
        if (d) fill_f32(d, c->src.cols, NAN);
        if (r->dt) fill_f32(r->dt, c->src.cols, NAN);
    } else if (d || r->dt) {
        put_both(c, r, &m, log_slope, x, t, d);
    }
}

static slg_status open(loss_call *c)
{
    const slg_adversarial_comp_sum_opts *o = c->opts;
    return loss_open_extra(c, 0, "opts.margin_change", o->margin_change);
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT | TARGET_TEACHER,
    .flags = LOSS_LABEL_OPEN,
    .open = open,
    .whole = whole,
};

static slg_status adversarial(slg_ctx *ctx, const slg_logits *clean, const slg_targets *targets,
                              const slg_adversarial_comp_sum_opts *opts, slg_loss_out *out,
                              slg_logits_grad *dclean, slg_logits_grad *dperturbed)
{
    slg_adversarial_comp_sum_opts o = defaults;
    slg_logits scaled;
    slg_logits_init(&scaled, sizeof scaled);
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(comp_sum_check_tau(ctx, o.tau));
    SLG_TRY(option_range(ctx, "rho", o.rho, 1e-6, 1e6));
    SLG_TRY(option_range(ctx, "nu", o.nu, 0, 1e6));
    if (!clean) return slg_fail(ctx, SLG_ERR_NULL, "clean is NULL");
    SLG_TRY(options_read(ctx, "clean", clean, &scaled, sizeof scaled));
    SLG_TRY(option_range(ctx, "clean.temperature", scaled.temperature, 1e-24, 1e24));
    scaled.temperature *= o.rho;
    return loss_run_pair(ctx, &method, &o, o.reduction, &scaled, targets, out, dclean,
                         dperturbed);
}

slg_status slg_adversarial_comp_sum(slg_ctx *ctx, const slg_logits *clean,
                                    const slg_targets *targets,
                                    const slg_adversarial_comp_sum_opts *opts,
                                    slg_loss_out *out, slg_logits_grad *dclean,
                                    slg_logits_grad *dperturbed)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_adversarial_comp_sum");
    return op_end(ctx, adversarial(ctx, clean, targets, opts, out, dclean, dperturbed));
}

/* ---- The attack's inner gradient --------------------------------------------------------- */

enum { SUM, SQUARES, A_UNIT, H_UNIT, A_TARGET, H_TARGET };

static margin_arg kept(const loss_row *r)
{
    return (margin_arg){ r->sums[A_UNIT], r->sums[H_UNIT], (float)r->sums[A_TARGET],
                         (float)r->sums[H_TARGET] };
}

static void reduce_change(const loss_call *c, loss_row *r, int64_t col, int64_t n,
                          const float *x, const float *t)
{
    float at[2];
    double sums[2];
    if (r->target < 0) return;
    if (col == 0) {
        const float *a = source_fetch(&c->src, r->row, r->target, 1, &at[0]);
        const float *h = source_fetch(&c->teacher, r->row, r->target, 1, &at[1]);
        const margin_arg m =
            margin_of(*a, r->temperature, *h, source_temperature(&c->teacher, r->row));
        r->sums[A_UNIT] = m.a_unit, r->sums[H_UNIT] = m.h_unit, r->sums[A_TARGET] = (double)m.a,
        r->sums[H_TARGET] = (double)m.h;
    }
    const margin_arg arg = kept(r);
    c->ctx->k.margin_sums((size_t)n, x, t, &arg, sums);
    r->sums[SUM] += sums[0], r->sums[SQUARES] += sums[1];
}

enum { SLOPE };

static void solve_change(const loss_call *c, loss_row *r)
{
    const margin_arg arg = kept(r);
    const margins m = margins_of(&arg, r->sums);
    (void)c;
    r->loss = r->weight == 0 ? 0 : r->weight * m.r;
    r->more[SLOPE] = isnan(m.r) ? NAN : slope(&m, r->weight);
    r->at_target = isnan(m.r) ? NAN : r->weight * m.sum;
}

static void emit_change(const loss_call *c, const loss_row *r, int64_t col, int64_t n,
                        const float *x, const float *t, float *d, int store)
{
    const margin_arg arg = kept(r);
    (void)col;
    if (isnan(r->more[SLOPE]))
        fill_f32(d, n, NAN);
    else
        c->ctx->k.margin_emit((size_t)n, x, t, &arg, r->more[SLOPE] * loss_factor(r), d, store);
}

static const loss_method change_method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT | TARGET_TEACHER,
    .flags = LOSS_LABEL_OPEN,
    .reduce = reduce_change,
    .solve = solve_change,
    .emit = emit_change,
};

slg_status slg_margin_change(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                             const slg_margin_change_opts *opts, slg_loss_out *out,
                             slg_logits_grad *grad)
{
    slg_margin_change_opts o = change_defaults;
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_margin_change");
    slg_status status = options_read(ctx, "opts", opts, &o, sizeof o);
    if (!status)
        status = loss_run(ctx, &change_method, &o, o.reduction, logits, targets, out, grad);
    return op_end(ctx, status);
}
