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

/* Two score rows and what divides them. */
typedef struct margins {
    const float *a, *h;
    double a_unit, h_unit; /* 1 / temperature */
    int64_t cols, target;
    double at_target; /* A - H there */
    double r;         /* norm of the change; NaN where a row is not finite or masked */
    double sum;       /* of e / r */
} margins;

/* e[k] = D(A)[k] - D(H)[k], 0 where a class does not count. */
static double change(const margins *m, int64_t k)
{
    double a = (double)m->a[k], h = (double)m->h[k];
    if (k == m->target || a == -INFINITY || h == -INFINITY) return 0;
    return m->at_target - (a * m->a_unit - h * m->h_unit);
}

static margins margins_of(const float *a, double a_temperature, const float *h,
                          double h_temperature, int64_t cols, int64_t target)
{
    margins m = { a, h, 1 / a_temperature, 1 / h_temperature, cols, target, 0, 0, 0 };
    double squares = 0, sum = 0, odd = 0; /* odd: NaN if an entry is NaN or +inf */
    for (int64_t k = 0; k < cols; k++) {
        if (a[k] > -INFINITY || isnan(a[k])) odd += 0 * (double)a[k];
        if (h[k] > -INFINITY || isnan(h[k])) odd += 0 * (double)h[k];
    }
    m.r = odd;
    if (isnan(odd) || a[target] == -INFINITY || h[target] == -INFINITY) return m;
    m.at_target = (double)a[target] * m.a_unit - (double)h[target] * m.h_unit;
    for (int64_t k = 0; k < cols; k++) {
        double e = change(&m, k);
        squares += e * e;
        sum += e;
    }
    m.r = sqrt(squares);
    m.sum = m.r > 0 ? sum / m.r : 0;
    return m;
}

/* d[k] = factor dr/dA[k]: of the scores before their temperature. d may be a row of scores. */
static void put_change(const margins *m, double factor, float *d)
{
    for (int64_t k = 0; k < m->cols; k++) {
        double g = m->r == 0 ? 0 : k == m->target ? m->sum : -change(m, k) / m->r;
        d[k] = isnan(m->r) ? NAN : (float)(factor * g);
    }
}

/* Comp-sum's own gradient, into d. */
static void comp_sum_grad(const loss_call *c, const loss_row *r, double log_slope,
                          const float *x, float *d)
{
    double factor = loss_factor(r);
    if (r->a * factor <= LARGE_SLOPE || r->rest.kind == ROW_MASKED)
        loss_emit_common(c, r, c->src.cols, x, d, STORE_CACHED);
    else
        comp_sum_emit_large(r, log_slope + log(r->weight) + log(factor), c->src.cols, x, d);
    d[r->target] = loss_target_masked(c, r) ? 0.0f : (float)(r->at_target * factor);
}

static void whole(const loss_call *c, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const slg_adversarial_comp_sum_opts *o = c->opts;
    const double t_temperature = source_temperature(&c->teacher, r->row);
    margins m =
        margins_of(t, t_temperature, x, r->temperature / o->rho, c->src.cols, r->target);
    double v = comp_sum_v(r->log_odds), log_slope = comp_sum_log_slope(o->tau, v);
    r->extra[0] = m.r;
    r->loss = r->weight * (comp_sum_value(o->tau, v) + o->nu * m.r);
    if (r->weight == 0) r->loss = 0;
    r->a = r->weight == 0 ? 0 : r->weight * exp(log_slope);
    r->at_target = r->other == 0 ? 0 : -r->a * r->other;
    double nu = r->weight * o->nu * r->scale;
    put_change(&m, nu, scratch); /* first: d may be the row of scores itself, and so may dt */
    if (d) {
        comp_sum_grad(c, r, log_slope, x, d);
        for (int64_t k = 0; k < m.cols; k++) d[k] -= (float)(m.h_unit * (double)scratch[k]);
    }
    for (int64_t k = 0; k < m.cols && r->dt; k++)
        r->dt[k] = (float)(m.a_unit * (double)scratch[k]);
}

static int64_t scratch_floats(int64_t cols) { return cols; }

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
    .scratch_floats = scratch_floats,
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

static void whole_change(const loss_call *c, loss_row *r, const float *x, const float *t,
                         float *d, float *scratch)
{
    margins m = margins_of(x, r->temperature, t, source_temperature(&c->teacher, r->row),
                           c->src.cols, r->target);
    (void)scratch;
    r->loss = r->weight == 0 ? 0 : r->weight * m.r;
    if (d) put_change(&m, r->weight * r->scale * m.a_unit, d);
}

static const loss_method change_method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT | TARGET_TEACHER,
    .whole = whole_change,
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
