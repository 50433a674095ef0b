/*
 * 24 - Diversity or Precision? A Deep Dive into Next Token Prediction (2025).
 *
 * A policy for one step of addition modulo 10 is pre-trained with reward-shaped cross-entropy
 * on noisy labels, then trained by GRPO on chains of five steps, rewarded for the right end.
 */
#include "mlp.h"

enum {
    DIGITS = 10,
    IN = 20,
    STEPS = 5,
    PROMPTS = 32,
    GROUP = 8,
    CHAINS = PROMPTS * GROUP,
    TRIALS = 3000
};

typedef struct recipe {
    const char *name;
    double beta, tail;
    int64_t k;
} recipe;

typedef struct scores {
    double entropy, before, at40, after;
} scores;

typedef struct world {
    run_t *r;
    slg_ctx *ctx;
    mlp net;
    mlp_pass pass;
    float *x, *p;
    int32_t *y, *taken, *digit; /* digit: [chains, STEPS + 1] */
    int *at;
    double *gain;
    rng g;
} world;

static slg_optimizer *adam(world *w)
{
    slg_adamw_opts o;
    slg_optimizer *opt;
    slg_adamw_opts_init(&o, sizeof o);
    o.lr = 3e-3, o.weight_decay = 0;
    must(w->r, w->ctx, slg_optimizer_create(w->ctx, SLG_ADAMW, w->net.count, &o, &opt));
    return opt;
}

static void update(world *w, slg_optimizer *opt)
{
    slg_tensor tw = slg_tensor_1d(w->net.w, SLG_F32, w->net.count);
    slg_tensor td = slg_tensor_1d(w->net.dw, SLG_F32, w->net.count);
    must(w->r, w->ctx, slg_optimizer_step(opt, &tw, &td));
    memset(w->net.dw, 0, (size_t)w->net.count * sizeof(float));
}

static void one_hots(float *x, int carried, int digit)
{
    memset(x, 0, IN * sizeof *x);
    x[carried] = x[DIGITS + digit] = 1;
}

static void pretrain(world *w, const recipe *c)
{
    enum { BATCH = 128 };
    slg_optimizer *opt = adam(w);
    slg_reward_cross_entropy_opts o;
    slg_reward_cross_entropy_opts_init(&o, sizeof o);
    o.beta = c->beta, o.lambda_tail = c->tail, o.top_k = c->k;
    for (int step = 0; step < 400; step++) {
        for (int i = 0; i < BATCH; i++) {
            int a = (int)rng_below(&w->g, DIGITS), b = (int)rng_below(&w->g, DIGITS);
            bool wrong = rng_uniform(&w->g, 0, 1) < 0.3;
            one_hots(w->x + i * IN, a, b);
            w->y[i] = wrong ? (int32_t)rng_below(&w->g, DIGITS) : (a + b) % DIGITS;
        }
        mlp_forward(&w->net, &w->pass, w->x, BATCH);
        slg_tensor z = slg_tensor_2d(w->pass.act[1], SLG_F32, BATCH, DIGITS);
        slg_tensor d = slg_tensor_2d(w->pass.dact[1], SLG_F32, BATCH, DIGITS);
        slg_tensor y = slg_tensor_1d(w->y, SLG_I32, BATCH);
        slg_logits l = slg_logits_dense(&z);
        slg_targets t = slg_targets_index(&y);
        slg_logits_grad g = slg_grad_dense(&d);
        slg_loss_out out = slg_loss_out_none();
        must(w->r, w->ctx, slg_reward_cross_entropy(w->ctx, &l, &t, &o, &out, &g));
        mlp_backward(&w->net, &w->pass, NULL, true);
        update(w, opt);
    }
    slg_optimizer_free(opt);
}

/* Mean entropy of the policy over the 100 states. */
static double entropy(world *w)
{
    double h[DIGITS * DIGITS], sum = 0;
    for (int i = 0; i < DIGITS * DIGITS; i++) one_hots(w->x + i * IN, i / DIGITS, i % DIGITS);
    mlp_forward(&w->net, &w->pass, w->x, DIGITS * DIGITS);
    slg_tensor z = slg_tensor_2d(w->pass.act[1], SLG_F32, DIGITS * DIGITS, DIGITS);
    slg_tensor th = slg_tensor_1d(h, SLG_F64, DIGITS * DIGITS);
    slg_logits l = slg_logits_dense(&z);
    must(w->r, w->ctx, slg_entropy(w->ctx, &l, NULL, &th));
    for (int i = 0; i < DIGITS * DIGITS; i++) sum += h[i];
    return sum / (DIGITS * DIGITS);
}

/* Samples chains for the digits in w->digit. Step s's inputs are rows s * chains of w->x. */
static double sample(world *w, int chains)
{
    int good = 0;
    for (int i = 0; i < chains; i++) w->at[i] = w->digit[i * (STEPS + 1)];
    for (int s = 0; s < STEPS; s++) {
        float *x = w->x + s * chains * IN;
        for (int i = 0; i < chains; i++)
            one_hots(x + i * IN, w->at[i], w->digit[i * (STEPS + 1) + s + 1]);
        mlp_forward(&w->net, &w->pass, x, chains);
        slg_tensor z = slg_tensor_2d(w->pass.act[1], SLG_F32, chains, DIGITS);
        slg_tensor p = slg_tensor_2d(w->p, SLG_F32, chains, DIGITS);
        must(w->r, w->ctx, slg_softmax(w->ctx, &z, NULL, &p, NULL));
        for (int i = 0; i < chains; i++) {
            double u = rng_uniform(&w->g, 0, 1);
            int k = 0;
            for (; k < DIGITS - 1 && (u -= (double)w->p[i * DIGITS + k]) >= 0; k++) {
            }
            w->taken[s * chains + i] = w->at[i] = k;
        }
    }
    for (int i = 0; i < chains; i++) {
        int sum = 0;
        for (int s = 0; s <= STEPS; s++) sum += w->digit[i * (STEPS + 1) + s];
        w->gain[i] = w->at[i] == sum % DIGITS;
        good += w->gain[i] > 0;
    }
    return (double)good / chains;
}

static double pass1(world *w)
{
    for (int i = 0; i < TRIALS * (STEPS + 1); i++)
        w->digit[i] = (int32_t)rng_below(&w->g, DIGITS);
    return sample(w, TRIALS);
}

static void grpo_step(world *w, slg_optimizer *opt)
{
    for (int i = 0; i < CHAINS * (STEPS + 1); i++) {
        int chain = i / (STEPS + 1), first = chain / GROUP * GROUP;
        w->digit[i] = chain == first ? (int32_t)rng_below(&w->g, DIGITS)
                                     : w->digit[first * (STEPS + 1) + i % (STEPS + 1)];
    }
    sample(w, CHAINS);
    for (int i = 0; i < CHAINS; i += GROUP) {
        double mean = 0, var = 0;
        for (int j = 0; j < GROUP; j++) mean += w->gain[i + j] / GROUP;
        for (int j = 0; j < GROUP; j++)
            var += (w->gain[i + j] - mean) * (w->gain[i + j] - mean) / GROUP;
        for (int j = 0; j < GROUP; j++)
            w->gain[i + j] = (w->gain[i + j] - mean) / (sqrt(var) + 1e-4);
    }
    const int rows = CHAINS * STEPS;
    mlp_forward(&w->net, &w->pass, w->x, rows);
    slg_tensor z = slg_tensor_2d(w->pass.act[1], SLG_F32, rows, DIGITS);
    slg_tensor p = slg_tensor_2d(w->pass.dact[1], SLG_F32, rows, DIGITS);
    must(w->r, w->ctx, slg_softmax(w->ctx, &z, NULL, &p, NULL));
    for (int i = 0; i < rows; i++) {
        float *d = w->pass.dact[1] + i * DIGITS;
        d[w->taken[i]] -= 1;
        for (int k = 0; k < DIGITS; k++) d[k] *= (float)(w->gain[i % CHAINS] / rows);
    }
    mlp_backward(&w->net, &w->pass, NULL, true);
    update(w, opt);
}

static void one_run(world *w, const recipe *c, uint64_t seed, double part, scores *s)
{
    w->g = rng_seed(seed);
    mlp_seed(&w->net, &w->g, 1);
    pretrain(w, c);
    s->entropy += part * entropy(w);
    s->before += part * pass1(w);
    slg_optimizer *opt = adam(w);
    for (int step = 0; step < 120; step++) {
        if (step == 40) s->at40 += part * pass1(w);
        grpo_step(w, opt);
    }
    slg_optimizer_free(opt);
    s->after += part * pass1(w);
}

static void run(run_t *r)
{
    static const recipe recipes[] = { { "beta -0.25", -0.25, 0, 0 },
                                      { "beta 0", 0, 0, 0 },
                                      { "beta 0.5", 0.5, 0, 0 },
                                      { "tail -0.1, k = 3", 0, -0.1, 3 } };
    static const int sizes[] = { IN, 64, DIGITS };
    const int seeds = run_quick(r) ? 2 : 4;
    scores s[4] = { { 0, 0, 0, 0 } };
    world *w = run_memory(r, sizeof *w);
    w->r = r, w->ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    w->net = mlp_of(r, 2, sizes), w->pass = mlp_pass_of(r, &w->net, TRIALS);
    w->x = run_floats(r, (size_t)TRIALS * STEPS * IN),
    w->p = run_floats(r, (size_t)TRIALS * DIGITS);
    w->y = run_memory(r, 128 * sizeof(int32_t));
    w->taken = run_memory(r, (size_t)TRIALS * STEPS * sizeof(int32_t));
    w->digit = run_memory(r, (size_t)TRIALS * (STEPS + 1) * sizeof(int32_t));
    w->at = run_memory(r, TRIALS * sizeof(int)), w->gain = run_doubles(r, TRIALS);
    for (int i = 0; i < 4; i++) {
        for (int n = 0; n < seeds; n++)
            one_run(w, &recipes[i], (uint64_t)n + 1, 1.0 / seeds, &s[i]);
        note(r, "%s: entropy %.3f, Pass@1 before %.3f, at step 40 %.3f, after %.3f",
             recipes[i].name, s[i].entropy, s[i].before, s[i].at40, s[i].after);
    }
    const double stage[3] = { 0, 40, 120 };
    figure(r, "Pass@1 under RL", "step", "Pass@1", 0);
    for (int i = 0; i < 4; i++) {
        const double y[3] = { s[i].before, s[i].at40, s[i].after };
        series(r, recipes[i].name, 3, stage, y);
    }
    double h = fmin(s[1].entropy - s[0].entropy, s[2].entropy - s[1].entropy);
    claim(r, "entropy, least gap of beta -0.25 < 0 < 0.5", "precision lowers it", h, "nats",
          at_least(0));
    claim(r, "Pass@1 before RL, least gap of -0.25 > 0 > 0.5", "",
          fmin(s[0].before - s[1].before, s[1].before - s[2].before), "", at_least(0));
    claim(r, "Pass@1 at step 40, least gap", "a precise prior is the better start",
          fmin(s[0].at40 - s[1].at40, s[1].at40 - s[2].at40), "", at_least(0.05));
    claim(r, "Pass@1 after RL, least gap", "the same",
          fmin(s[0].after - s[1].after, s[1].after - s[2].after), "", at_least(0));
}

const paper paper_24_diversity_precision = {
    24, "diversity-precision", "Diversity or Precision? A Deep Dive into Next Token Prediction",
    run
};
