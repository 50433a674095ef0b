/* StableMax and the collapse of softmax: make_stablemax-perpgrad.py says what each name means.
   The perpendicular gradient is the optimizers' affair. */
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

const adapter adapt_stablemax_perpgrad[] = { { "stablemax", stablemax },
                                             { "collapse", collapse },
                                             { NULL, NULL } };
