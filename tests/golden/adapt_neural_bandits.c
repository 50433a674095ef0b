/* Bandits by online regression: make_neural-bandits.py says what each name means. */
#include "golden/adapter.h"

static void igw(run *g)
{
    slg_inverse_gap_opts o;
    slg_inverse_gap_opts_init(&o, sizeof o);
    o.gamma = scalar(g, "gamma"), o.rule = (int32_t)scalar(g, "kind");
    slg_tensor *costs = input(g, "costs", SLG_F32), *u = input(g, "u", SLG_F32);
    slg_tensor *arm = output_for(g, "arm", SLG_I32);
    slg_tensor *p = output_over(g, costs);
    check(g, slg_inverse_gap(g->ctx, costs, u, &o, NULL, p, arm));
    expect(g, "p", p), expect(g, "arm", arm);
}

/* The gradient is that of f by way of its Jacobian J, and what the shifts add. */
static void perturbed(run *g)
{
    slg_perturbed_loss_opts o;
    slg_perturbed_loss_out out;
    slg_perturbed_loss_opts_init(&o, sizeof o);
    slg_perturbed_loss_out_init(&out, sizeof out);
    o.c_p = scalar(g, "c_p"), o.width = scalar(g, "width"), o.rule = (int32_t)scalar(g, "kl");
    const slg_tensor *f = input(g, "f", SLG_F32), *theta = input(g, "theta", SLG_F32);
    const slg_tensor *y = input(g, "y", SLG_F32), *jacobian = input(g, "J", SLG_F32);
    const int64_t n = f->shape[0], p = theta->shape[0];
    out.perturbed = output_for(g, "perturbed", SLG_F64);
    out.prediction = output_for(g, "prediction", SLG_F64);
    out.loss = output_for(g, "loss", SLG_F64);
    out.df = output(g, SLG_F64, 1, &n);
    out.dtheta = output_zero(g, SLG_F64, 1, &p);
    check(g, slg_perturbed_loss(g->ctx, f, y, theta, input(g, "theta0", SLG_F32),
                                input(g, "epsilon", SLG_F32), NULL, &o, &out));
    double *d = out.dtheta->data;
    for (int64_t i = 0; i < p; i++)
        for (int64_t k = 0; k < n; k++)
            d[i * out.dtheta->stride[0]] +=
                tensor_get(out.df, k) * tensor_get(jacobian, k * p + i);
    expect(g, "perturbed", out.perturbed), expect(g, "prediction", out.prediction);
    expect(g, "loss", out.loss), expect(g, "grad", out.dtheta);
}

static void project(run *g)
{
    slg_tensor *theta = input_output(g, "theta", SLG_F32);
    check(g, slg_project_ball(g->ctx, input(g, "theta0", SLG_F32), scalar(g, "radius"), theta,
                              NULL));
    expect(g, "theta", theta);
}

const adapter adapt_neural_bandits[] = {
    { "igw", igw }, { "perturbed", perturbed }, { "project", project }, { NULL, NULL }
};
