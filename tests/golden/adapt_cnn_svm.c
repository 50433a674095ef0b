/* Hinge losses, the SVM layer, the re-run's convolution: make_cnn-svm.py says what each name means. */
#include "golden/adapter.h"

#include <stdio.h>

static void one_form(run *g, int32_t form, const char *name, int32_t index_type)
{
    char grad[64];
    slg_tensor *x = input(g, "scores", SLG_F32), *index = input(g, "targets", index_type);
    slg_hinge_opts o;
    slg_loss_out out = slg_loss_out_none();
    const slg_logits l = slg_logits_dense(x);
    const slg_targets t = slg_targets_index(index);
    slg_hinge_opts_init(&o, sizeof o);
    o.form = form;
    o.power = (int32_t)scalar_or(g, "power", o.power);
    o.margin = scalar_or(g, "margin", o.margin);
    o.reduction = SLG_SUM;
    out.loss = output_for(g, name, SLG_F32);
    slg_logits_grad d = slg_grad_dense(output_over(g, x));
    variation(g, name);
    check(g, slg_hinge(g->ctx, &l, &t, &o, &out, &d));
    snprintf(grad, sizeof grad, "%s.grad", name);
    expect(g, name, out.loss);
    expect(g, grad, d.dlogits);
}

static void hinge(run *g)
{
    one_form(g, SLG_ONE_VS_REST, "one_vs_rest", SLG_I32);
    one_form(g, SLG_MAX_MARGIN, "crammer_singer", SLG_I64);
    one_form(g, SLG_SUM_MARGIN, "weston_watkins", SLG_I32);
}

static void layer(run *g)
{
    slg_svm_layer_opts o;
    slg_loss_out out = slg_loss_out_none();
    slg_svm_layer_opts_init(&o, sizeof o);
    o.penalty = scalar_or(g, "penalty", o.penalty);
    o.scaling = scalar_or(g, "mean_form", 1) != 0 ? SLG_SVM_MEAN : SLG_SVM_SUM;
    o.power = (int32_t)scalar_or(g, "power", o.power);
    const slg_logits l = slg_logits_layer(input(g, "features", SLG_F32), input(g, "weights", SLG_F32),
                                          input_or_null(g, "bias", SLG_F32));
    const slg_targets t = slg_targets_index(input(g, "targets", SLG_I32));
    slg_logits_grad d = slg_grad_layer(output_for(g, "grad_features", SLG_F32), NULL,
                                       output_for(g, "grad_bias", SLG_F32));
    contiguous(g); /* rows of dweight must be */
    d.dweight = output_for(g, "grad_weights", SLG_F32);
    check(g, slg_svm_layer(g->ctx, &l, &t, &o, &out, &d));
    expect_number(g, "objective", out.value);
    expect(g, "grad_features", d.dhidden);
    expect(g, "grad_weights", d.dweight);
    expect(g, "grad_bias", d.dbias);
}

const adapter adapt_cnn_svm[] = { { "hinge", hinge }, { "layer", layer }, { NULL, NULL } };
