/* "Utility-Probability Duality": make_utility-probability.py says what each name means. */
#include <math.h>

#include "golden/adapter.h"

static void sampled(run *g, int32_t type, slg_targets *t)
{
    if (!has_input(g, "rivals")) return;
    slg_tensor *logits = input(g, "logits", SLG_F32), *rivals = input(g, "rivals", type);
    slg_tensor *d = output_like(g, logits);
    check(g, slg_rival_gradient(g->ctx, NULL, t, NULL, NULL, rivals, d));
    expect(g, "grad_sampled", d);

    slg_rival_gradient_opts o;
    slg_rival_gradient_opts_init(&o, sizeof o);
    o.accumulate = 1;
    d = output_zero(g, SLG_F32, 2, logits->shape);
    check(g, slg_rival_gradient(g->ctx, NULL, t, &o, NULL, rivals, d));
    expect(g, "grad_sampled", d);
}

static void preference(run *g)
{
    for (int32_t type = SLG_I32; type <= SLG_I64; type++) {
        slg_tensor *x = input(g, "logits", SLG_F32);
        slg_tensor *margin = output(g, type == SLG_I32 ? SLG_F32 : SLG_F64, 1, x->shape);
        slg_targets t = slg_targets_index(input(g, "labels", type));
        slg_logits l = slg_logits_dense(x);
        slg_loss_out out = slg_loss_out_none();
        slg_preference_opts o;
        slg_preference_opts_init(&o, sizeof o);
        o.reduction = SLG_SUM;
        o.margin = margin;
        out.loss = output_for(g, "loss", SLG_F32);
        slg_tensor *d = output_over(g, x);
        slg_logits_grad dl = slg_grad_dense(d);
        check(g, slg_preference(g->ctx, &l, &t, &o, &out, &dl));
        expect(g, "loss", out.loss);
        expect(g, "margin", margin);
        expect(g, "grad", d);
        sampled(g, type, &t);
    }
}

static void transform(run *g)
{
    slg_utility_transform_opts o;
    slg_utility_transform_opts_init(&o, sizeof o);
    o.length_power = scalar_or(g, "alpha", o.length_power);
    o.temperature = scalar_or(g, "tau", o.temperature);
    for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
        const int32_t whole = type == SLG_F32 ? SLG_I32 : SLG_I64;
        slg_tensor *u = input(g, "utility", type);
        slg_tensor *length = input_or_null(g, "length", whole);
        slg_tensor *group = input_or_null(g, "group", whole);
        const int64_t groups = (int64_t)scalar_or(g, "groups", 1);
        slg_tensor *prob = output_like(g, u), *best = output(g, whole, 1, &groups);
        slg_tensor *entropy = output(g, type, 1, &groups), *log_prob = output_over(g, u);
        check(g, slg_utility_transform(g->ctx, u, length, group, groups, &o, log_prob, prob,
                                       best, entropy));
        expect(g, "log_prob", log_prob);
        expect(g, "prob", prob);
        expect(g, "best", best);
        expect(g, "entropy", entropy);
    }
}

static void mbr(run *g)
{
    slg_utility_transform_opts o;
    slg_utility_transform_opts_init(&o, sizeof o);
    o.temperature = scalar_or(g, "tau", o.temperature);
    for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
        slg_tensor *u = input(g, "utility", type), *gain = input(g, "gain", type);
        const int64_t one = 1;
        slg_tensor *prob = output_like(g, u), *best = output(g, SLG_I64, 1, &one);
        slg_tensor *expected = output(g, type, 1, gain->shape);
        check(g, slg_utility_transform(g->ctx, u, NULL, NULL, 1, &o, NULL, prob, NULL, NULL));
        expect(g, "prob", prob);
        check(g, slg_minimum_bayes_risk(g->ctx, prob, gain, expected, best));
        expect(g, "expected_gain", expected);
        expect(g, "best", best);
    }
}

static void fit_temperature(run *g)
{
    slg_logits l = slg_logits_dense(input(g, "logits", SLG_F32));
    slg_targets t = slg_targets_index(input(g, "labels", SLG_I32));
    slg_temperature_fit_out out;
    slg_temperature_fit_out_init(&out, sizeof out);
    check(g, slg_temperature_fit(g->ctx, &l, &t, NULL, &out));
    expect_number(g, "inverse_temperature", out.inverse_temperature);
    expect_number(g, "nll_before", out.nll_before);
    expect_number(g, "nll_after", out.nll_after);
}

static void sample(run *g)
{
    slg_utility_sample_opts o;
    slg_utility_sample_opts_init(&o, sizeof o);
    o.temperature = scalar_or(g, "tau", o.temperature);
    for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
        slg_tensor *x = input(g, "logits", SLG_F32), *noise = input(g, "noise", type);
        slg_tensor *index = output(g, type == SLG_F32 ? SLG_I32 : SLG_I64, 1, x->shape);
        check(g, slg_utility_sample(g->ctx, x, noise, &o, NULL, index));
        expect(g, "index", index);
    }
}

const adapter adapt_utility_probability[] = {
    { "preference", preference },           { "transform", transform }, { "mbr", mbr },
    { "fit_temperature", fit_temperature }, { "sample", sample },       { NULL, NULL },
};
