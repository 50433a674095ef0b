/* Hinge losses, the SVM layer, the re-run's convolution: make_cnn-svm.py says what each name
   means. */
#include "golden/adapter.h"

#include <stdio.h>

#include "papers/conv.h"

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
    const slg_logits l =
        slg_logits_layer(input(g, "features", SLG_F32), input(g, "weights", SLG_F32),
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

/* Convolution, bias, ReLU and pooling of the re-run (bench/papers/conv.c), in plain memory. */
static void conv(run *g)
{
    contiguous(g);
    slg_tensor *x = input(g, "input", SLG_F32), *w = input(g, "kernel", SLG_F32),
               *b = input(g, "bias", SLG_F32);
    slg_tensor *up = input(g, "upstream", SLG_F32);
    const int pool = (int)scalar(g, "pool");
    const conv_shape s = { (int)x->shape[0], (int)x->shape[1], (int)x->shape[2],
                           (int)w->shape[0], (int)w->shape[2] };
    const int64_t floats[3] = { (int64_t)conv_out_floats(&s), (int64_t)conv_scratch_floats(&s),
                                tensor_size(up) };
    const size_t planes = (size_t)(s.images * s.filters);
    slg_tensor *y = output(g, SLG_F32, 1, &floats[0]),
               *scratch = output(g, SLG_F32, 1, &floats[1]);
    slg_tensor *dy = output(g, SLG_F32, 1, &floats[0]), *at = output(g, SLG_I32, 1, &floats[2]);
    slg_tensor *out = output_for(g, "output", SLG_F32),
               *dx = output_for(g, "grad_input", SLG_F32);
    slg_tensor *dw = output_for(g, "grad_kernel", SLG_F32),
               *db = output_for(g, "grad_bias", SLG_F32);
    conv_forward(&s, x->data, w->data, b->data, y->data, scratch->data);
    relu_forward(conv_out_floats(&s), y->data, y->data);
    pool_forward(planes, s.side, pool, y->data, out->data, at->data);
    pool_backward(planes, s.side, pool, up->data, at->data, dy->data);
    relu_backward(conv_out_floats(&s), y->data, dy->data, dy->data);
    conv_backward(&s, x->data, w->data, dy->data, dx->data, dw->data, db->data, scratch->data);
    expect(g, "output", out);
    expect(g, "grad_input", dx);
    expect(g, "grad_kernel", dw);
    expect(g, "grad_bias", db);
}

const adapter adapt_cnn_svm[] = {
    { "hinge", hinge }, { "layer", layer }, { "conv", conv }, { NULL, NULL }
};
