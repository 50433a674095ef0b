/* Reward-shaped cross-entropy: make_diversity-precision.py says what each name means. */
#include "golden/adapter.h"

static void options(run *g, slg_reward_cross_entropy_opts *o)
{
    slg_reward_cross_entropy_opts_init(o, sizeof *o);
    o->reduction = SLG_SUM;
    o->beta = scalar(g, "beta");
    o->lambda_top = scalar(g, "lambda_top");
    o->lambda_tail = scalar(g, "lambda_tail");
    o->top_k = (int64_t)scalar(g, "k");
    o->cap = scalar(g, "cap");
}

static void one_form(run *g, const char *name, int32_t index_type, bool gradient)
{
    variation(g, name);
    slg_reward_cross_entropy_opts o;
    options(g, &o);
    slg_tensor *x = input(g, "logits", SLG_F32);
    slg_tensor *label = input(g, "label", index_type);
    slg_logits l = slg_logits_dense(x);
    slg_targets t = slg_targets_index(label);
    slg_loss_out out = slg_loss_out_none();

    /* The vectors' weight of an ignored row is that of label 0: asked for by labels of its
       own. */
    slg_tensor *clamped = output_like(g, label);
    for (int64_t i = 0; i < tensor_size(label); i++) {
        double y = tensor_get(label, i);
        int64_t at = i * clamped->stride[0];
        if (index_type == SLG_I32)
            ((int32_t *)clamped->data)[at] = y < 0 ? 0 : (int32_t)y;
        else
            ((int64_t *)clamped->data)[at] = y < 0 ? 0 : (int64_t)y;
    }
    slg_targets all = slg_targets_index(clamped);
    o.positive_weight = output_for(g, "positive_weight", SLG_F32);
    check(g, slg_reward_cross_entropy(g->ctx, &l, &all, &o, &out, NULL));
    expect(g, "positive_weight", o.positive_weight);
    o.positive_weight = NULL;

    if (gradient) { /* without an output for it, the entropy by its own function */
        slg_tensor *entropy = output_for(g, "entropy", SLG_F32);
        check(g, slg_entropy(g->ctx, &l, NULL, entropy));
        expect(g, "entropy", entropy);
    } else {
        o.entropy = output_for(g, "entropy", SLG_F32);
    }
    out.loss = output_for(g, "loss", SLG_F32);
    slg_logits_grad d = slg_grad_dense(gradient ? output_over(g, x) : NULL);
    check(g, slg_reward_cross_entropy(g->ctx, &l, &t, &o, &out, gradient ? &d : NULL));
    expect(g, "loss", out.loss);
    expect(g, "entropy", o.entropy);
    expect(g, "dlogits", d.dlogits);
}

static void reward(run *g)
{
    one_form(g, "values, entropy", SLG_I32, false);
    one_form(g, "with gradient", SLG_I64, true);
}

const adapter adapt_diversity_precision[] = { { "*", reward }, { NULL, NULL } };
