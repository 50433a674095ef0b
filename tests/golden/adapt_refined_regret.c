/* FTRL's policies, covariance, estimates, bonuses: make_refined-regret.py says what each name
   means. */
#include "golden/adapter.h"

static void play(run *g, const char *label, int32_t rule, int32_t dtype)
{
    variation(g, label);
    slg_ftrl_policy_opts o;
    slg_ftrl_policy_opts_init(&o, sizeof o);
    o.rule = rule, o.eta = scalar(g, "eta");
    slg_tensor *costs = input(g, "cumulative_loss", SLG_F32);
    slg_tensor *nu = rule == SLG_FTRL_LOG_BARRIER ? output_for(g, "nu", SLG_F64) : NULL;
    slg_tensor *p =
        dtype == SLG_F32 ? output_over(g, costs) : output(g, dtype, costs->ndim, costs->shape);
    check(g, slg_ftrl_policy(g->ctx, costs, &o, p, nu));
    expect(g, rule == SLG_FTRL_LOG_BARRIER ? "policy" : "hedge", p);
    expect(g, "nu", nu);
}

static void ftrl(run *g)
{
    play(g, "log barrier", SLG_FTRL_LOG_BARRIER, SLG_F32);
    play(g, "log barrier, double", SLG_FTRL_LOG_BARRIER, SLG_F64);
    play(g, "entropy", SLG_FTRL_ENTROPY, SLG_F32);
    play(g, "entropy, double", SLG_FTRL_ENTROPY, SLG_F64);
}

static void covariance(run *g)
{
    slg_inverse_covariance_opts o;
    slg_inverse_covariance_opts_init(&o, sizeof o);
    o.gamma = scalar(g, "gamma");
    slg_tensor *phi = input(g, "phi", SLG_F32);
    slg_tensor *sigma = output_for(g, "sigma", SLG_F32);
    slg_tensor *inverse = output_for(g, "inverse", SLG_F64);
    check(g, slg_inverse_covariance(g->ctx, phi, NULL, &o, sigma, inverse));
    expect(g, "sigma", sigma), expect(g, "inverse", inverse);
}

static void estimate(run *g)
{
    slg_inverse_covariance_opts c;
    slg_linear_q_opts o;
    slg_linear_q_out out;
    slg_inverse_covariance_opts_init(&c, sizeof c);
    slg_linear_q_opts_init(&o, sizeof o);
    slg_linear_q_out_init(&out, sizeof out);
    c.gamma = scalar(g, "gamma");
    o.loss_to_go = scalar(g, "loss_to_go"), o.horizon = scalar(g, "horizon");
    o.beta = scalar(g, "beta");
    slg_tensor *phi = input(g, "phi", SLG_F32), *visit = input(g, "phi_visit", SLG_F32);
    slg_tensor *samples = input(g, "phi_sim", SLG_F32), *policy = input(g, "policy", SLG_F32);
    const int64_t square[2] = { phi->shape[1], phi->shape[1] };
    slg_tensor *inverse = output(g, SLG_F64, 2, square);
    out.plain = output_for(g, "q_plain", SLG_F32);
    out.offset = output_for(g, "offset", SLG_F32);
    out.reduced = output_for(g, "q_reduced", SLG_F64);
    out.width = output_for(g, "width", SLG_F32);
    out.bonus = output_for(g, "bonus", SLG_F32);
    check(g, slg_inverse_covariance(g->ctx, samples, NULL, &c, NULL, inverse));
    check(g, slg_linear_q(g->ctx, phi, visit, inverse, samples, NULL, policy, &o, &out));
    expect(g, "q_plain", out.plain), expect(g, "offset", out.offset);
    expect(g, "q_reduced", out.reduced), expect(g, "width", out.width);
    expect(g, "bonus", out.bonus);
}

static void dilated(run *g)
{
    slg_dilated_bonus_opts o;
    slg_dilated_bonus_opts_init(&o, sizeof o);
    o.dilation = 1 / scalar(g, "horizon");
    slg_tensor *transition = input(g, "transition", SLG_F32);
    slg_tensor *policy = input(g, "policy", SLG_F32), *bonus = input(g, "bonus", SLG_F32);
    slg_tensor *total = output_over(g, bonus);
    check(g, slg_dilated_bonus(g->ctx, bonus, transition, policy, &o, total, NULL));
    expect(g, "dilated", total);
}

const adapter adapt_refined_regret[] = { { "ftrl", ftrl },
                                         { "covariance", covariance },
                                         { "estimate", estimate },
                                         { "dilated", dilated },
                                         { NULL, NULL } };
