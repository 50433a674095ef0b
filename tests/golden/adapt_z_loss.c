/* The spherical family: make_z-loss.py says what each name means. */
#include <stdlib.h>

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
        check(g,
              slg_spherical_terms(g->ctx, input(g, "sum", type), input(g, "sum_squares", type),
                                  input(g, "target_output", type),
                                  (int64_t)scalar(g, "classes"), &o, loss, ds, dq, dt));
        expect(g, "loss", loss);
        expect(g, "d_sum", ds);
        expect(g, "d_sum_squares", dq);
        expect(g, "d_target_output", dt);
    }
}

/* ---- Steps of the factorised layer ------------------------------------------------------- */

/* Step t of a [steps, ...] tensor. */
static slg_tensor slice(const slg_tensor *all, int64_t t)
{
    slg_tensor one = *all;
    const size_t item = all->dtype == SLG_F64 || all->dtype == SLG_I64 ? 8 : 4;
    one.data = (char *)all->data + t * all->stride[0] * (int64_t)item;
    one.ndim = all->ndim - 1;
    for (int d = 0; d < one.ndim; d++)
        one.shape[d] = all->shape[d + 1], one.stride[d] = all->stride[d + 1];
    for (int d = one.ndim; d < 4; d++) one.shape[d] = 1;
    return one;
}

typedef struct way {
    const char *name;
    int32_t type; /* of hidden states and gradients */
    bool apart;   /* forward, then update */
    double low, high;
    int32_t period;
} way;

static void steps_way(run *g, const way *how)
{
    variation(g, how->name);
    slg_tensor *w0 = input(g, "W0", SLG_F32), *h = input(g, "H", how->type);
    slg_tensor *targets = input(g, "targets", SLG_I64), *loss = output_for(g, "loss", SLG_F64);
    slg_tensor *dh = output_for(g, "grad_H", how->type), *w = output_for(g, "W", SLG_F64);
    slg_tensor *q = output_for(g, "Q", SLG_F64), *wbar = output_for(g, "wbar", SLG_F64);
    slg_spherical_layer_opts o;
    slg_spherical_layer *l;
    slg_spherical_layer_opts_init(&o, sizeof o);
    o.kind = (int32_t)scalar(g, "kind");
    o.a = scalar_or(g, "a", o.a);
    o.b = scalar_or(g, "b", o.b);
    o.eps = scalar_or(g, "eps", o.eps);
    o.low = how->low, o.high = how->high, o.period = how->period;
    check(g, slg_spherical_layer_create(g->ctx, w0->shape[0], w0->shape[1], w0, &o, &l));
    const int64_t rows = h->shape[1];
    double *rho = malloc((size_t)rows * sizeof *rho);
    if (!rho) fail(g, "out of memory");
    for (int64_t r = 0; r < rows; r++) rho[r] = scalar_or(g, "scale", 1);
    slg_tensor weight = slg_tensor_1d(rho, SLG_F64, rows);
    slg_status status = SLG_OK;
    for (int64_t t = 0; t < h->shape[0] && !status; t++) {
        slg_tensor ht = slice(h, t), ct = slice(targets, t), lt, dt;
        slg_spherical_batch b;
        slg_spherical_layer_out out;
        slg_spherical_batch_init(&b, sizeof b);
        slg_spherical_layer_out_init(&out, sizeof out);
        b.hidden = &ht, b.target = &ct, b.row_weight = &weight;
        if (loss) lt = slice(loss, t), out.loss = &lt;
        if (dh) dt = slice(dh, t), out.dhidden = &dt;
        if (how->apart) {
            status = slg_spherical_layer_forward(l, &b, &out);
            if (!status) status = slg_spherical_layer_update(l, scalar(g, "eta"));
        } else {
            status = slg_spherical_layer_step(l, &b, scalar(g, "eta"), &out);
        }
    }
    slg_spherical_layer_info_t info;
    slg_spherical_layer_info_init(&info, sizeof info);
    info.gram = q, info.column_sums = wbar;
    if (!status) status = slg_spherical_layer_info(l, &info);
    if (!status && w) status = slg_spherical_layer_rows(l, NULL, w);
    slg_spherical_layer_free(l);
    free(rho);
    check(g, status);
    expect(g, "loss", loss);
    expect(g, "grad_H", dh);
    expect(g, "W", w);
    expect(g, "Q", q);
    expect(g, "wbar", wbar);
}

static void steps(run *g)
{
    static const way ways[] = {
        { "one call", SLG_F32, false, 0.5, 2, 10 },
        { "forward, then update", SLG_F64, true, 0.5, 2, 10 },
        { "stabilised at every step", SLG_F32, false, 0.9, 1.1, 1 },
    };
    for (int i = 0; i < 3; i++) steps_way(g, &ways[i]);
}

const adapter adapt_z_loss[] = {
    { "zloss", zloss }, { "terms", terms }, { "steps", steps }, { NULL, NULL }
};
