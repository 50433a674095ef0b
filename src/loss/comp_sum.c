/*
 * comp_sum.c - see loss.h. With v = -log p[t] = log(1 + u) every member of the family
 * is a function of v, and its gradient is cross-entropy's times p[t]^(tau - 1) = exp((1 - tau)
 * v).
 */
#include "comp_sum.h"

#include <math.h>

#include "core/options.h"
#include "engine.h"

static const slg_comp_sum_opts defaults = {
    .size = sizeof(slg_comp_sum_opts),
    .reduction = SLG_MEAN,
    .tau = 1.0,
};

void slg_comp_sum_opts_init(slg_comp_sum_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

double comp_sum_value(double tau, double v)
{
    double s = 1 - tau;
    if (s == 0 || v == 0 || fabs(s * v) < 1e-12) return v;
    return expm1(s * v) / s; /* v = inf: inf, or 1 / (tau - 1) */
}

double comp_sum_log_slope(double tau, double v) { return tau == 1 ? 0 : (1 - tau) * v; }

/* log(1 + others / target): no 1 - p, no log of a p near 1. */
double comp_sum_v(double log_odds)
{
    return log_odds > 0 ? log_odds + log1p(exp(-log_odds)) : log1p(exp(log_odds));
}

enum { LOG_SLOPE };

static void solve(const loss_call *c, loss_row *r)
{
    const slg_comp_sum_opts *o = c->opts;
    double v = comp_sum_v(r->log_odds), value = comp_sum_value(o->tau, v);
    r->extra[0] = v;
    r->loss = r->weight == 0 ? 0 : r->weight * value;
    r->more[LOG_SLOPE] = comp_sum_log_slope(o->tau, v);
    double a = r->weight == 0 ? 0 : r->weight * exp(r->more[LOG_SLOPE]);
    r->a = a;
    r->at_target = r->other == 0 ? 0 : -a * r->other;
}

void comp_sum_emit_large(const loss_row *r, double log_a, int64_t n, const float *x, float *d)
{
    for (int64_t i = 0; i < n; i++) {
        double log_p =
            ((double)x[i] - (double)r->rest.arg.pre) / r->temperature - r->rest.lse_rel;
        d[i] = x[i] == -INFINITY ? 0.0f : (float)(exp(log_a + log_p) * r->other);
    }
}

/* Beyond what a float holds the common form would give inf * 0. */
static void emit(const loss_call *c, const loss_row *r, int64_t col, int64_t n, const float *x,
                 const float *t, float *d, int store)
{
    double factor = loss_factor(r);
    (void)col, (void)t;
    if (r->a * factor <= LARGE_SLOPE || r->rest.kind == ROW_MASKED) {
        loss_emit_common(c, r, n, x, d, store);
        return;
    }
    comp_sum_emit_large(r, r->more[LOG_SLOPE] + log(r->weight) + log(factor), n, x, d);
}

static slg_status open(loss_call *c)
{
    const slg_comp_sum_opts *o = c->opts;
    return loss_open_extra(c, 0, "opts.neg_log_p", o->neg_log_p);
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT,
    .flags = LOSS_LABEL_OPEN,
    .open = open,
    .solve = solve,
    .emit = emit,
    .extra_masked = { INFINITY },
};

static slg_status comp_sum(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                           const slg_comp_sum_opts *opts, slg_loss_out *out,
                           slg_logits_grad *grad)
{
    slg_comp_sum_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(comp_sum_check_tau(ctx, o.tau));
    return loss_run(ctx, &method, &o, o.reduction, logits, targets, out, grad);
}

slg_status comp_sum_check_tau(slg_ctx *ctx, double tau)
{
    if (tau >= 0 && tau <= 1e6) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "tau is %g, must be from 0 to 1e6", tau);
}

slg_status slg_comp_sum(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                        const slg_comp_sum_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_comp_sum");
    return op_end(ctx, comp_sum(ctx, logits, targets, opts, out, grad));
}
