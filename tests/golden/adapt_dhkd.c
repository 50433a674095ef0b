/* Dual-head distillation: make_dhkd.py says what each name means. */
#include "golden/adapter.h"

typedef slg_status (*pair_loss)(slg_ctx *, const slg_logits *, const slg_targets *,
                                const slg_binary_kl_opts *, slg_loss_out *, slg_logits_grad *);

static void one_loss(run *g, pair_loss fn, const char *loss, const char *grad)
{
    slg_binary_kl_opts o;
    slg_targets t;
    variation(g, loss);
    slg_tensor *student = input(g, "student", SLG_F32);
    slg_logits l = slg_logits_dense(student),
               teacher = slg_logits_dense(input(g, "teacher", SLG_F32));
    slg_loss_out out = slg_loss_out_none();
    slg_binary_kl_opts_init(&o, sizeof o);
    o.reduction = SLG_NONE;
    o.temperature = scalar_or(g, "temperature", o.temperature);
    slg_targets_init(&t, sizeof t);
    t.teacher = &teacher;
    out.loss = output_for(g, loss, SLG_F32);
    slg_logits_grad d = slg_grad_dense(has_expect(g, grad) ? output_over(g, student) : NULL);
    check(g, fn(g->ctx, &l, &t, &o, &out, &d));
    expect(g, loss, out.loss);
    expect(g, grad, d.dlogits);
}

static void binary(run *g)
{
    one_loss(g, slg_binary_kl, "kl", "grad_kl");
    one_loss(g, slg_binary_kl_normalised, "kl_norm", "grad_kl_norm");
}

/* Aligns lists, merged: the sum is where main is, or where auxiliary is alone. */
static double align(run *g, int64_t count, slg_tensor **main, slg_tensor **auxiliary)
{
    slg_align_gradients_opts o;
    slg_align_gradients_out out;
    slg_align_gradients_opts_init(&o, sizeof o);
    slg_align_gradients_out_init(&out, sizeof out);
    o.merge = 1;
    check(g, slg_align_gradients(g->ctx, count, main, auxiliary, &o, &out));
    if (out.aligned != (out.dot < 0 && out.main_norm2 > 0))
        fail(g, "aligned is %d", out.aligned);
    return out.dot;
}

static void align_case(run *g)
{
    slg_tensor *main = input_output(g, "grad_main", SLG_F32);
    slg_tensor *auxiliary = input_output(g, "grad_aux", SLG_F32);
    expect_number(g, "dot", align(g, 1, &main, &auxiliary));
    expect(g, "grad", main);
}

/* out [m, n] = sum over k of a b; elements of a from row i, of b from column j. */
static slg_tensor *product(run *g, const slg_tensor *a, bool trans_a, const slg_tensor *b,
                           bool trans_b)
{
    const int64_t k = a->shape[trans_a ? 0 : 1];
    const int64_t shape[2] = { a->shape[trans_a ? 1 : 0], b->shape[trans_b ? 0 : 1] };
    slg_tensor *out = output(g, SLG_F32, 2, shape);
    for (int64_t i = 0; i < shape[0]; i++)
        for (int64_t j = 0; j < shape[1]; j++) {
            double sum = 0;
            for (int64_t r = 0; r < k; r++)
                sum += tensor_get(a, trans_a ? r * a->shape[1] + i : i * a->shape[1] + r) *
                       tensor_get(b, trans_b ? j * b->shape[1] + r : r * b->shape[1] + j);
            ((float *)out->data)[i * out->stride[0] + j * out->stride[1]] = (float)sum;
        }
    return out;
}

/* The gradients of one loss by the backbone and by its head. */
static slg_logits_grad head_grad(run *g, const slg_tensor *features, const slg_tensor *weight)
{
    return slg_grad_layer(output_like(g, features), output_like(g, weight), NULL);
}

static void step(run *g)
{
    slg_targets t;
    slg_dual_head_opts o;
    slg_tensor *x = input(g, "inputs", SLG_F32), *backbone = input(g, "backbone", SLG_F32);
    contiguous(g); /* rows of dweight must be */
    slg_tensor *w1 = input(g, "head_main", SLG_F32), *w2 = input(g, "head_aux", SLG_F32);
    slg_tensor *features = product(g, x, false, backbone, true);
    slg_logits main = slg_logits_layer(features, w1, NULL);
    slg_logits auxiliary = slg_logits_layer(features, w2, NULL);
    slg_logits teacher = slg_logits_dense(input(g, "teacher", SLG_F32));
    slg_logits_grad d1 = head_grad(g, features, w1), d2 = head_grad(g, features, w2);
    slg_loss_out out1 = slg_loss_out_none(), out2 = slg_loss_out_none();
    slg_targets_init(&t, sizeof t);
    t.index = input(g, "targets", SLG_I64);
    t.teacher = &teacher;
    slg_dual_head_opts_init(&o, sizeof o);
    o.main_weight = scalar_or(g, "gamma", o.main_weight);
    o.auxiliary_weight = scalar_or(g, "alpha", o.auxiliary_weight);
    o.temperature = scalar_or(g, "temperature", o.temperature);
    check(g, slg_dual_head(g->ctx, &main, &auxiliary, &t, &o, &out1, &out2, &d1, &d2));
    expect_number(g, "loss_main", o.main_weight * out1.value);
    expect_number(g, "loss_aux", o.auxiliary_weight * out2.value);

    slg_tensor *g1[] = { product(g, d1.dhidden, true, x, false), d1.dweight, NULL };
    slg_tensor *g2[] = { product(g, d2.dhidden, true, x, false), NULL, d2.dweight };
    const bool aligned = scalar_or(g, "aligned", 0) != 0;
    if (!aligned) {
        expect(g, "grad_main", d1.dweight);
        expect(g, "grad_aux", d2.dweight);
    }
    expect_number(g, "dot", align(g, 3, g1, g2));
    if (aligned) {
        expect(g, "grad_backbone", g1[0]);
        expect(g, "grad_main", d1.dweight);
        expect(g, "grad_aux", d2.dweight);
        return;
    }
    /* Not aligned, one dhidden for both heads: the sum. */
    d2.dhidden = d1.dhidden;
    check(g, slg_dual_head(g->ctx, &main, &auxiliary, &t, &o, &out1, &out2, &d1, &d2));
    expect(g, "grad_backbone", product(g, d1.dhidden, true, x, false));
}

const adapter adapt_dhkd[] = {
    { "binary", binary }, { "align", align_case }, { "step", step }, { NULL, NULL }
};
