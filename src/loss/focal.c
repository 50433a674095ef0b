/*
 * focal.c - see loss.h. The gradient is that of cross-entropy times a number a row.
 */
#include "engine.h"

#include "core/options.h"

static const slg_focal_opts defaults = {
    .size = sizeof(slg_focal_opts),
    .reduction = SLG_MEAN,
    .gamma = 2,
};

void slg_focal_opts_init(slg_focal_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static void solve(const loss_call *c, loss_row *r)
{
    const slg_focal_opts *o = c->opts;
    double w = loss_class_weight(c, r);
    double nll = loss_softplus(r->log_odds), focus = pow(r->other, o->gamma);
    /* (-log p) / (1 - p) is 1 where p is; p (-log p) is 0 where p is. */
    double slope = r->p_target == 0 ? 0 : r->other > 0 ? r->p_target * nll / r->other : 1;
    double gain = focus * (1 + o->gamma * slope);
    r->loss = loss_term(w * r->weight, focus == 0 ? 0 : focus * nll);
    r->a = w * r->weight * gain;
    r->at_target = -r->a * r->other;
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT | TARGET_CLASS_WEIGHT,
    .solve = solve,
};

static slg_status focal(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                        const slg_focal_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    slg_focal_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_least(ctx, "gamma", o.gamma, 0));
    return loss_run(ctx, &method, &o, o.reduction, logits, targets, out, grad);
}

slg_status slg_focal(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                     const slg_focal_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_focal");
    return op_end(ctx, focal(ctx, logits, targets, opts, out, grad));
}
