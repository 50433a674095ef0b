/* Target-based surrogates: make_sso.py says what each name means. */
#include <stdlib.h>

#include "golden/adapter.h"

static int32_t kind_of(run *g) { return (int32_t)scalar(g, "loss_kind"); }

static slg_tensor *data_of(run *g)
{
    return input(g, "data", kind_of(g) == SLG_TARGET_SOFTMAX ? SLG_I32 : SLG_F32);
}

/* Loss and gradient, then the surrogate from it. */
static void surrogate(run *g)
{
    slg_tensor *from = input(g, "target_t", SLG_F32), *z = input(g, "target", SLG_F32);
    slg_tensor *data = data_of(g), *grad = output_like(g, from);
    double loss;
    check(g, slg_target_loss(g->ctx, kind_of(g), from, data, &loss, grad));
    expect_number(g, "loss", loss);
    expect(g, "loss_grad", grad);
    slg_surrogate_opts o;
    slg_surrogate_out out;
    slg_surrogate_opts_init(&o, sizeof o);
    slg_surrogate_out_init(&out, sizeof out);
    o.eta = scalar(g, "eta");
    slg_tensor *d = output_over(g, z);
    check(g, slg_surrogate(g->ctx, grad, from, z, &o, d, &out));
    expect_number(g, "surrogate", out.value);
    expect(g, "surrogate_grad", d);
}

typedef struct values {
    double *at;
    int64_t size;
} values;

static int32_t record(void *user, const slg_sso_report *r)
{
    values *v = user;
    if (r->taken < v->size) v->at[r->taken] = r->value;
    return 0;
}

/* One outer step; the exact minimiser by conjugate gradients. */
static void linear_step(run *g)
{
    contiguous(g);
    slg_tensor *x = input(g, "X", SLG_F32), *w = input_output(g, "W0", SLG_F32);
    slg_tensor *data = data_of(g), *exact = output_like(g, w);
    const int64_t steps = (int64_t)scalar(g, "inner_steps");
    for (int64_t i = 0; i < tensor_size(w); i++)
        ((float *)exact->data)[i] = (float)tensor_get(w, i);
    slg_target_model model;
    slg_target_oracle oracle;
    slg_sso_opts o;
    slg_sso *s;
    slg_sso_report r = { .size = sizeof r };
    slg_target_model_init(&model, sizeof model);
    slg_target_oracle_init(&oracle, sizeof oracle);
    slg_sso_opts_init(&o, sizeof o);
    check(g, slg_linear_model(g->ctx, x, w->shape[1], &model));
    check(g, slg_loss_oracle(g->ctx, kind_of(g), data, w->shape[1], &oracle));
    values v = { calloc((size_t)steps + 1, sizeof *v.at), steps + 1 };
    o.inner = SLG_INNER_FIXED, o.inner_steps = (int32_t)steps, o.step = scalar(g, "lr");
    o.eta = scalar(g, "eta"), o.grad_norm = 0, o.progress = record, o.user = &v;
    check(g, slg_sso_create(g->ctx, &model, &oracle, &o, &s));
    check(g, slg_sso_step(s, w, &r));
    slg_sso_free(s);
    slg_tensor tv = slg_tensor_1d(v.at, SLG_F64, steps + 1);
    expect_number(g, "loss", r.loss);
    expect(g, "inner_values", &tv);
    expect(g, "W", w);
    free(v.at);

    o.inner = SLG_INNER_CONJUGATE, o.inner_steps = 200, o.grad_norm = 1e-6, o.progress = NULL;
    check(g, slg_sso_create(g->ctx, &model, &oracle, &o, &s));
    check(g, slg_sso_step(s, exact, &r));
    expect(g, "W_exact", exact);
    check(g, slg_sso_step(s, exact, &r));
    expect_number(g, "loss_exact", r.loss);
    slg_sso_free(s), slg_target_model_free(&model), slg_target_oracle_free(&oracle);
}

static void armijo(run *g)
{
    slg_tensor *z = input(g, "target", SLG_F32), *data = data_of(g), *grad = output_like(g, z);
    slg_armijo_opts o;
    slg_target_search_out out = { .size = sizeof out };
    slg_armijo_opts_init(&o, sizeof o);
    o.c = scalar(g, "c"), o.expand = scalar(g, "expand"), o.shrink = scalar(g, "shrink");
    o.step_min = scalar(g, "step_min"), o.step_max = scalar(g, "step_max");
    check(g, slg_target_loss(g->ctx, kind_of(g), z, data, NULL, grad));
    check(g,
          slg_target_search(g->ctx, kind_of(g), z, data, grad, scalar(g, "step0"), &o, &out));
    expect_number(g, "step", out.step);
}

const adapter adapt_sso[] = {
    { "surrogate", surrogate },
    { "linear_step", linear_step },
    { "armijo", armijo },
    { NULL, NULL },
};
