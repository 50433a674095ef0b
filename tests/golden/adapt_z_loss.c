/* The spherical family: make_z-loss.py says what each name means. */
#include "golden/adapter.h"

static slg_spherical_opts options(run *g)
{
    slg_spherical_opts o;
    slg_spherical_opts_init(&o, sizeof o);
    o.kind = (int32_t)scalar_or(g, "kind", SLG_SPHERICAL_Z);
    o.reduction = SLG_SUM;
    o.a = scalar_or(g, "a", o.a);
    o.b = scalar_or(g, "b", o.b);
    o.eps = scalar_or(g, "eps", o.eps);
    return o;
}

static void on_logits(run *g, const char *form, bool gradient, int32_t index)
{
    variation(g, form);
    slg_tensor *x = input(g, "logits", SLG_F32);
    slg_spherical_opts o = options(g);
    slg_loss_out out = slg_loss_out_none();
    slg_logits l = slg_logits_dense(x);
    slg_targets t = slg_targets_index(input(g, "targets", index));
    out.loss = output_for(g, "loss", SLG_F32);
    o.z = output_for(g, "z", SLG_F32);
    slg_logits_grad d = slg_grad_dense(gradient ? output_over(g, x) : NULL);
    check(g, slg_spherical(g->ctx, &l, &t, &o, &out, gradient ? &d : NULL));
    expect(g, "loss", out.loss);
    expect(g, "z", o.z);
    expect(g, "grad", d.dlogits);
}

static void zloss(run *g)
{
    on_logits(g, "value alone", false, SLG_I32);
    on_logits(g, "with gradient", true, SLG_I64);
}

static void terms(run *g)
{
    for (int i = 0; i < 2; i++) {
        const int32_t type = i ? SLG_F64 : SLG_F32;
        variation(g, i ? "float64" : "float32");
        slg_spherical_opts o = options(g);
        slg_tensor *loss = output_for(g, "loss", type), *ds = output_for(g, "d_sum", type);
        slg_tensor *dq = output_for(g, "d_sum_squares", type);
        slg_tensor *dt = output_for(g, "d_target_output", type);
        check(g, slg_spherical_terms(g->ctx, input(g, "sum", type), input(g, "sum_squares", type),
                                     input(g, "target_output", type),
                                     (int64_t)scalar(g, "classes"), &o, loss, ds, dq, dt));
        expect(g, "loss", loss);
        expect(g, "d_sum", ds);
        expect(g, "d_sum_squares", dq);
        expect(g, "d_target_output", dt);
    }
}

const adapter adapt_z_loss[] = { { "zloss", zloss }, { "terms", terms }, { NULL, NULL } };
