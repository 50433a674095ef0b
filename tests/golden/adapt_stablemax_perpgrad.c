/* StableMax, the collapse of softmax, the perpendicular gradient: make_stablemax-perpgrad.py
   says what each name means. */
#include <string.h>

#include "golden/adapter.h"

static void one_loss(run *g, int32_t index_type, bool gradient)
{
    slg_tensor *x = input(g, "logits", SLG_F32);
    const slg_logits l = slg_logits_dense(x);
    slg_targets t;
    slg_stablemax_loss_opts o;
    slg_logits_grad d;
    slg_loss_out out = slg_loss_out_none();
    slg_targets_init(&t, sizeof t);
    t.index = input_or_null(g, "targets", index_type);
    t.prob = input_or_null(g, "soft_targets", SLG_F32);
    t.row_weight = input_or_null(g, "weights", SLG_F32);
    t.ignore_index = (int64_t)scalar_or(g, "ignore_index", (double)t.ignore_index);
    slg_stablemax_loss_opts_init(&o, sizeof o);
    o.reduction = (int32_t)scalar_or(g, "reduction", SLG_SUM);
    out.loss = output_for(g, "loss", SLG_F32);
    slg_logits_grad_init(&d, sizeof d);
    d.dlogits = gradient ? output_over(g, x) : NULL;
    check(g, slg_stablemax_loss(g->ctx, &l, &t, &o, &out, gradient ? &d : NULL));
    expect(g, "loss", out.loss);
    expect(g, "grad", d.dlogits);
    expect_number(g, "value", out.value);
}

static void stablemax(run *g)
{
    slg_tensor *x = input(g, "logits", SLG_F32), *p = output_over(g, x);
    check(g, slg_stablemax(g->ctx, x, NULL, p));
    expect(g, "probabilities", p);
    x = input(g, "logits", SLG_F32);
    p = output_over(g, x);
    check(g, slg_log_stablemax(g->ctx, x, NULL, p));
    expect(g, "log_probabilities", p);
    one_loss(g, SLG_I32, false);
    one_loss(g, SLG_I64, true);
}

static void collapse(run *g)
{
    slg_targets t;
    slg_collapse_out out;
    slg_targets_init(&t, sizeof t);
    t.index = input(g, "targets", SLG_I64);
    slg_collapse_out_init(&out, sizeof out);
    out.collapsed = output_for(g, "collapsed", SLG_I32);
    out.zero_loss = output_for(g, "zero_loss", SLG_I32);
    check(g, slg_softmax_collapse(g->ctx, input(g, "logits", SLG_F32), &t, &out));
    expect(g, "collapsed", out.collapsed);
    expect(g, "zero_loss", out.zero_loss);
    expect_number(g, "fraction", out.collapsed_fraction);
}

static void perp(run *g)
{
    contiguous(g);
    slg_tensor *w = input(g, "weights", SLG_F32), *dw = input_output(g, "grad", SLG_F32);
    slg_tensor *cosine = output_for(g, "cosine", SLG_F64);
    slg_perpendicular_opts o;
    slg_perpendicular_opts_init(&o, sizeof o);
    o.rescale = (int32_t)scalar(g, "rescale");
    check(g, slg_perpendicular_gradient(g->ctx, w, dw, &o, (double *)cosine->data));
    expect(g, "projected", dw);
    expect(g, "cosine", cosine);
}

static slg_optimizer *run_optimizer(run *g, int64_t n)
{
    slg_optimizer *o = NULL;
    slg_sgd_opts sgd;
    slg_adamw_opts adamw;
    const int32_t kind = scalar(g, "adamw") != 0 ? SLG_ADAMW : SLG_SGD;
    slg_sgd_opts_init(&sgd, sizeof sgd);
    slg_adamw_opts_init(&adamw, sizeof adamw);
    sgd.lr = adamw.lr = scalar(g, "lr");
    adamw.beta1 = scalar(g, "beta1"), adamw.beta2 = scalar(g, "beta2");
    adamw.eps = scalar(g, "eps"), adamw.weight_decay = scalar(g, "weight_decay");
    check(g,
          slg_optimizer_create(g->ctx, kind, n, kind == SLG_SGD ? (void *)&sgd : &adamw, &o));
    return o;
}

/* chained: in the optimizer's own pass; else by the function, on a copy of the gradient. */
static void trajectory(run *g, bool chained)
{
    variation(g, chained ? "in the chain" : "by the function");
    contiguous(g);
    slg_tensor *w = input_output(g, "weights0", SLG_F32);
    slg_tensor *grads = input_output(g, "grads", SLG_F32);
    slg_tensor *out = output_for(g, "weights", SLG_F32);
    const int64_t steps = grads->shape[0], n = w->shape[0] * w->shape[1];
    const slg_transform link = slg_transform_of(SLG_PERPENDICULAR, 1e-6);
    slg_optimizer *o = run_optimizer(g, n);
    if (chained) check(g, slg_optimizer_set_chain(o, 1, &link));
    for (int64_t t = 0; t < steps; t++) {
        slg_tensor dw = *w;
        dw.data = (float *)grads->data + t * n;
        if (!chained) check(g, slg_perpendicular_gradient(g->ctx, w, &dw, NULL, NULL));
        check(g, slg_optimizer_step(o, w, &dw));
        memcpy((float *)out->data + t * n, w->data, (size_t)n * sizeof(float));
    }
    slg_optimizer_free(o);
    expect(g, "weights", out);
}

static void run_rule(run *g)
{
    trajectory(g, false);
    trajectory(g, true);
}

const adapter adapt_stablemax_perpgrad[] = { { "stablemax", stablemax },
                                             { "collapse", collapse },
                                             { "perp", perp },
                                             { "run", run_rule },
                                             { NULL, NULL } };
