/* Temperatures by DRO: make_tempnet.py says what each name means. */
#include "golden/adapter.h"

static void robust(run *g)
{
    slg_tensor *x = input(g, "logits", SLG_F32);
    slg_logits l = slg_logits_dense(x);
    slg_targets t;
    slg_loss_out out = slg_loss_out_none();
    slg_robust_cross_entropy_opts o;
    l.row_temperature = input(g, "tau", SLG_F32);
    slg_targets_init(&t, sizeof t);
    t.index = input(g, "target", SLG_I64);
    slg_robust_cross_entropy_opts_init(&o, sizeof o);
    o.rho = scalar(g, "rho");
    o.reduction = SLG_SUM; /* gradients by row */
    out.loss = output_for(g, "loss", SLG_F32);
    slg_tensor *dtau = output_for(g, "dtau", SLG_F32),
               *entropy = output_for(g, "entropy", SLG_F32);
    slg_logits_grad d = slg_grad_dense(output_over(g, x));
    check(g, slg_robust_cross_entropy(g->ctx, &l, &t, &o, &out, &d, dtau, entropy));
    expect(g, "loss", out.loss);
    expect(g, "dlogits", d.dlogits);
    expect(g, "dtau", dtau);
    expect(g, "entropy", entropy);
}

static void best_tau(run *g)
{
    slg_logits l = slg_logits_dense(input(g, "logits", SLG_F32));
    slg_optimal_temperature_opts o;
    slg_optimal_temperature_opts_init(&o, sizeof o);
    o.rho = scalar(g, "rho");
    o.tau_min = scalar(g, "tau_min");
    o.tau_max = scalar(g, "tau_max");
    slg_tensor *tau = output_for(g, "tau", SLG_F32);
    check(g, slg_optimal_temperature(g->ctx, &l, &o, tau, NULL));
    expect(g, "tau", tau);
}

/* A number of the case as a tensor [1]. */
static slg_tensor *one(run *g, const char *name)
{
    slg_tensor *t = input(g, name, SLG_F32);
    t->ndim = 1;
    t->shape[0] = t->stride[0] = 1;
    return t;
}

static void network(run *g)
{
    slg_tempnet net;
    slg_tempnet_saved saved;
    slg_tempnet_grad d;
    slg_tempnet_init(&net, sizeof net);
    slg_tempnet_saved_init(&saved, sizeof saved);
    slg_tempnet_grad_init(&d, sizeof d);
    slg_tensor *x = input(g, "x", SLG_F32), *dtau = input(g, "dtau", SLG_F32);
    slg_tensor *tau = output_for(g, "tau", SLG_F32);
    contiguous(g);
    net.tau_min = scalar(g, "tau_min");
    net.tau_max = scalar(g, "tau_max");
    net.w1 = input(g, "W1", SLG_F32);
    net.b1 = input(g, "b1", SLG_F32);
    net.w2 = input(g, "W2", SLG_F32);
    net.b2 = input(g, "b2", SLG_F32);
    net.c = input(g, "c", SLG_F32);
    net.b = one(g, "b");
    net.phi = one(g, "phi");
    const int64_t hidden[2] = { x->shape[0], net.w1->shape[0] };
    const int64_t prototypes[2] = { x->shape[0], net.w2->shape[0] };
    saved.s = output(g, SLG_F32, 2, hidden);
    saved.v = output(g, SLG_F32, 2, prototypes);
    saved.w = output(g, SLG_F32, 2, prototypes);
    d.dw1 = output_for(g, "dW1", SLG_F32);
    d.db1 = output_for(g, "db1", SLG_F32);
    d.dw2 = output_for(g, "dW2", SLG_F32);
    d.db2 = output_for(g, "db2", SLG_F32);
    d.dc = output_for(g, "dc", SLG_F32);
    d.db = output_for(g, "db", SLG_F32);
    d.dphi = output_for(g, "dphi", SLG_F32);
    check(g, slg_tempnet_forward(g->ctx, x, &net, &saved, tau));
    check(g, slg_tempnet_backward(g->ctx, x, &net, &saved, dtau, &d));
    expect(g, "tau", tau);
    expect(g, "dW1", d.dw1);
    expect(g, "db1", d.db1);
    expect(g, "dW2", d.dw2);
    expect(g, "db2", d.db2);
    expect(g, "dc", d.dc);
    expect(g, "db", d.db);
    expect(g, "dphi", d.dphi);
}

static void contrastive(run *g)
{
    slg_contrastive_pairs p;
    slg_contrastive_opts o;
    slg_contrastive_out out;
    slg_contrastive_pairs_init(&p, sizeof p);
    slg_contrastive_opts_init(&o, sizeof o);
    slg_contrastive_out_init(&out, sizeof out);
    contiguous(g);
    slg_tensor *sim = input(g, "sim", SLG_F32);
    p.sim = sim;
    p.tau_image = input(g, "tau_image", SLG_F32);
    p.tau_text = input(g, "tau_text", SLG_F32);
    slg_tensor *image = input_output(g, "logS_image", SLG_F32);
    slg_tensor *text = input_output(g, "logS_text", SLG_F32);
    o.first = (int32_t)scalar(g, "first");
    o.gamma = scalar(g, "gamma");
    o.rho = scalar(g, "rho");
    out.dtau_image = output_for(g, "dtau_image", SLG_F32);
    out.dtau_text = output_for(g, "dtau_text", SLG_F32);
    out.dsim = output_over(g, sim);
    check(g, slg_contrastive(g->ctx, &p, &o, image, text, &out));
    expect_number(g, "loss", out.value);
    expect(g, "dsim", out.dsim);
    expect(g, "new_logS_image", image);
    expect(g, "new_logS_text", text);
    expect(g, "dtau_image", out.dtau_image);
    expect(g, "dtau_text", out.dtau_text);
}

const adapter adapt_tempnet[] = { { "robust", robust },
                                  { "best_tau", best_tau },
                                  { "network", network },
                                  { "contrastive", contrastive },
                                  { NULL, NULL } };
