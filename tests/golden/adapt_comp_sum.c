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

/* In place, each gradient over its own scores; so r's own function is asked first. */
static void adversarial_form(run *g, const char *name, int32_t index_type, bool gradient)
{
    variation(g, name);
    slg_tensor *h = input(g, "clean", SLG_F32), *a = input(g, "perturbed", SLG_F32);
    slg_tensor *index = input(g, "targets", index_type);
    slg_logits clean = slg_logits_dense(h), perturbed = slg_logits_dense(a);
    slg_targets t = slg_targets_index(index);
    slg_adversarial_comp_sum_opts o;
    slg_adversarial_comp_sum_opts_init(&o, sizeof o);
    slg_loss_out r = slg_loss_out_none(), out = slg_loss_out_none();
    r.loss = output_for(g, "margin_change", SLG_F32);
    t.teacher = &clean;
    check(g, slg_margin_change(g->ctx, &perturbed, &t, NULL, &r, NULL));
    expect(g, "margin_change", r.loss);
    t.teacher = &perturbed;
    o.reduction = SLG_SUM;
    o.tau = scalar(g, "tau"), o.rho = scalar(g, "rho"), o.nu = scalar(g, "nu");
    o.margin_change = output_for(g, "margin_change", SLG_F32);
    out.loss = output_for(g, "loss", SLG_F32);
    slg_logits_grad dh = slg_grad_dense(gradient ? output_over(g, h) : NULL);
    slg_logits_grad da = slg_grad_dense(gradient ? output_over(g, a) : NULL);
    check(g, slg_adversarial_comp_sum(g->ctx, &clean, &t, &o, &out, gradient ? &dh : NULL,
                                      gradient ? &da : NULL));
    expect(g, "loss", out.loss);
    expect(g, "margin_change", o.margin_change);
    expect(g, "grad_clean", dh.dlogits);
    expect(g, "grad_perturbed", da.dlogits);
}

static void adversarial(run *g)
{
    adversarial_form(g, "value alone", SLG_I32, false);
    adversarial_form(g, "with gradients", SLG_I64, true);
}

const adapter adapt_comp_sum[] = { { "loss", loss },
                                   { "adversarial", adversarial },
                                   { NULL, NULL } };
