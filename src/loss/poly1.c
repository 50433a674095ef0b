/*
 * poly1.c - see loss.h. The gradient is that of cross-entropy times a number a row.
 */
#include "engine.h"

#include "core/options.h"

static const slg_poly1_opts defaults = {
    .size = sizeof(slg_poly1_opts),
    .reduction = SLG_MEAN,
    .epsilon = 1,
};

void slg_poly1_opts_init(slg_poly1_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static void solve(const loss_call *c, loss_row *r)
{
    const slg_poly1_opts *o = c->opts;
    double w = loss_class_weight(c, r);
    double gain = 1 + o->epsilon * r->p_target;
    r->loss = loss_term(w * r->weight, loss_softplus(r->log_odds) + o->epsilon * r->other);
    r->a = w * r->weight * gain;
    r->at_target = -r->a * r->other;
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT | TARGET_CLASS_WEIGHT,
    .solve = solve,
};

static slg_status poly1(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                        const slg_poly1_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    slg_poly1_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_least(ctx, "epsilon", o.epsilon, -1));
    return loss_run(ctx, &method, &o, o.reduction, logits, targets, out, grad);
}

slg_status slg_poly1(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                     const slg_poly1_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_poly1");
    return op_end(ctx, poly1(ctx, logits, targets, opts, out, grad));
}
