/* Comp-sum losses: make_comp-sum.py says what each name means. */
#include "golden/adapter.h"

static void one_form(run *g, const char *name, int32_t index_type, bool gradient)
{
    variation(g, name);
    slg_tensor *x = input(g, "logits", SLG_F32);
    slg_logits l = slg_logits_dense(x);
    slg_targets t = slg_targets_index(input(g, "targets", index_type));
    slg_comp_sum_opts o;
    slg_comp_sum_opts_init(&o, sizeof o);
    o.reduction = SLG_SUM;
    o.tau = scalar(g, "tau");
    o.neg_log_p = output_for(g, "neg_log_p", SLG_F32);
    slg_loss_out out = slg_loss_out_none();
    out.loss = output_for(g, "loss", SLG_F32);
    slg_logits_grad d = slg_grad_dense(gradient ? output_over(g, x) : NULL);
    check(g, slg_comp_sum(g->ctx, &l, &t, &o, &out, gradient ? &d : NULL));
    expect(g, "loss", out.loss);
    expect(g, "neg_log_p", o.neg_log_p);
    expect(g, "grad", d.dlogits);
}

static void loss(run *g)
{
    one_form(g, "value alone", SLG_I32, false);
    one_form(g, "with gradient", SLG_I64, true);
}

const adapter adapt_comp_sum[] = { { "loss", loss }, { NULL, NULL } };
