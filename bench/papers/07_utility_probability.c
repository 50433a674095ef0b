/*
 * "Utility-Probability Duality of Neural Networks" (2023) on a task with one input and many
 * outputs: 8 positions, 10 symbols; a target is pi(x) with probability 0.6, else one of 4
 * others; 5% of targets are the empty string. A softmax network is trained by likelihood; then
 * its probabilities, and those that its utilities are turned into, are put to the same decision
 * rules.
 */
#include "papers.h"

enum {
    T = 8,
    SYMBOLS = 10,
    EOS = SYMBOLS,
    CLASSES = SYMBOLS + 1,
    BATCH = 64,
    INPUTS = 400,
    DRAWS = 64
};

typedef struct task {
    run_t *r;
    slg_ctx *ctx;
    rng g;
    slg_rng draws;
    int64_t pi[SYMBOLS], other[SYMBOLS][4];
    float w[SYMBOLS][CLASSES], b[T][CLASSES];
    float *logits; /* [INPUTS * T, CLASSES] of the test inputs */
    int x[INPUTS][T];
} task;

static void make_task(task *k)
{
    for (int64_t i = 0; i < SYMBOLS; i++) k->pi[i] = i;
    rng_shuffle(&k->g, SYMBOLS, k->pi);
    for (int s = 0; s < SYMBOLS; s++) {
        int64_t all[SYMBOLS], n = 0;
        for (int64_t i = 0; i < SYMBOLS; i++)
            if (i != k->pi[s]) all[n++] = i;
        rng_shuffle(&k->g, (size_t)n, all);
        memcpy(k->other[s], all, sizeof k->other[s]);
    }
}

/* Inputs and targets of a pair; -100 after the end. */
static void make_pair(task *k, int x[T], int64_t y[T])
{
    const bool empty = rng_uniform(&k->g, 0, 1) < 0.05;
    for (int t = 0; t < T; t++) {
        x[t] = (int)rng_below(&k->g, SYMBOLS);
        y[t] =
            rng_uniform(&k->g, 0, 1) < 0.6 ? k->pi[x[t]] : k->other[x[t]][rng_below(&k->g, 4)];
        if (empty) y[t] = t == 0 ? EOS : -100;
    }
}

static void train(task *k, int pairs, int steps)
{
    int(*x)[T] = run_memory(k->r, sizeof(int[T]) * (size_t)pairs);
    int64_t(*y)[T] = run_memory(k->r, sizeof(int64_t[T]) * (size_t)pairs);
    float z[BATCH * T][CLASSES];
    int64_t label[BATCH * T];
    int at[BATCH];
    for (int i = 0; i < pairs; i++) make_pair(k, x[i], y[i]);
    slg_tensor tz = slg_tensor_2d(z, SLG_F32, BATCH * T, CLASSES);
    slg_tensor ty = slg_tensor_1d(label, SLG_I64, BATCH * T);
    slg_logits l = slg_logits_dense(&tz);
    slg_targets target = slg_targets_index(&ty);
    slg_logits_grad d = slg_grad_dense(&tz); /* in place */
    slg_preference_opts o;
    slg_preference_opts_init(&o, sizeof o);
    o.reduction = SLG_SUM;
    for (int step = 0; step < steps; step++) {
        const float rate = (1 - (float)step / (float)steps) / BATCH;
        slg_loss_out out = slg_loss_out_none();
        for (int i = 0; i < BATCH; i++) {
            at[i] = (int)rng_below(&k->g, pairs);
            for (int t = 0; t < T; t++) {
                label[i * T + t] = y[at[i]][t];
                for (int c = 0; c < CLASSES; c++)
                    z[i * T + t][c] = k->w[x[at[i]][t]][c] + k->b[t][c];
            }
        }
        must(k->r, k->ctx, slg_preference(k->ctx, &l, &target, &o, &out, &d));
        for (int i = 0; i < BATCH * T; i++)
            for (int c = 0; c < CLASSES; c++) {
                k->w[x[at[i / T]][i % T]][c] -= 2.0f / T * rate * z[i][c];
                k->b[i % T][c] -= 0.5f * rate * z[i][c];
            }
    }
}

/* ---- Decisions -------------------------------------------------------------------------- */

/* Share of positions that are pi(x), of sequences [INPUTS][T] (EOS ends one), in percent. */
static double accuracy(const task *k, int64_t (*y)[T])
{
    int right = 0;
    for (int i = 0; i < INPUTS; i++)
        for (int t = 0; t < T && y[i][t] != EOS; t++) right += y[i][t] == k->pi[k->x[i][t]];
    return 100.0 * right / (INPUTS * T);
}

/* The sequence of the largest utility / max(length, 1)^alpha: over where it ends. */
static int best_sequences(const float *lp, double alpha, int64_t (*y)[T])
{
    int empty = 0;
    for (int i = 0; i < INPUTS; i++) {
        int64_t top[T];
        double u = 0, best = -INFINITY;
        int end = 0;
        for (int t = 0; t <= T; t++) {
            const float *row = lp + (i * T + t) * CLASSES;
            double s = (t < T ? u + (double)row[EOS] : u) / pow(t > 1 ? t : 1, alpha);
            if (s > best) best = s, end = t;
            if (t == T) break;
            top[t] = 0;
            for (int c = 1; c < SYMBOLS; c++)
                if (row[c] > row[top[t]]) top[t] = c;
            u += (double)row[top[t]];
        }
        empty += end == 0;
        for (int t = 0; t < T; t++) y[i][t] = t < end ? top[t] : EOS;
    }
    return empty;
}

static void sample(task *k, double tau, int64_t (*y)[T])
{
    slg_utility_sample_opts o;
    slg_utility_sample_opts_init(&o, sizeof o);
    o.temperature = tau;
    slg_tensor x = slg_tensor_2d(k->logits, SLG_F32, INPUTS * T, CLASSES);
    slg_tensor index = slg_tensor_1d(y, SLG_I64, INPUTS * T);
    must(k->r, k->ctx, slg_utility_sample(k->ctx, &x, NULL, &o, &k->draws, &index));
    for (int i = 0; i < INPUTS; i++)
        for (int t = 1; t < T; t++)
            if (y[i][t - 1] == EOS) y[i][t] = EOS;
}

/* log P of the first n samples of each input as candidates: [INPUTS][n]. */
static float *candidates(task *k, const float *lp, int64_t (*all)[INPUTS][T], int n,
                         double alpha, double tau)
{
    const int64_t count = (int64_t)INPUTS * n;
    float *u = run_floats(k->r, (size_t)count);
    int32_t *length = run_memory(k->r, (size_t)count * 4),
            *group = run_memory(k->r, (size_t)count * 4);
    for (int64_t j = 0; j < count; j++) {
        const int64_t i = j / n, *s = all[j % n][i];
        group[j] = (int32_t)i;
        for (int64_t t = 0; t < T; t++) {
            u[j] += lp[(i * T + t) * CLASSES + s[t]];
            if (s[t] == EOS) break;
            length[j]++;
        }
    }
    slg_utility_transform_opts o;
    slg_utility_transform_opts_init(&o, sizeof o);
    o.length_power = alpha, o.temperature = tau;
    slg_tensor tu = slg_tensor_1d(u, SLG_F32, count),
               tl = slg_tensor_1d(length, SLG_I32, count);
    slg_tensor tg = slg_tensor_1d(group, SLG_I32, count);
    must(k->r, k->ctx,
         slg_utility_transform(k->ctx, &tu, &tl, &tg, INPUTS, &o, &tu, NULL, NULL, NULL));
    return u;
}

/* One of DRAWS raw samples an input, drawn by the probability that their utilities are turned
   into. */
static double resample(task *k, const float *lp, int64_t (*all)[INPUTS][T], double alpha,
                       double tau)
{
    int64_t pick[INPUTS], y[INPUTS][T];
    float *u = candidates(k, lp, all, DRAWS, alpha, tau);
    slg_tensor tp = slg_tensor_1d(pick, SLG_I64, INPUTS),
               table = slg_tensor_2d(u, SLG_F32, INPUTS, DRAWS);
    must(k->r, k->ctx, slg_utility_sample(k->ctx, &table, NULL, NULL, &k->draws, &tp));
    for (int i = 0; i < INPUTS; i++) memcpy(y[i], all[pick[i]][i], sizeof y[i]);
    return accuracy(k, y);
}

/*
 * Minimum Bayes risk among the first n samples of each input. The gain is their agreement:
 * tokens at the same place that are equal. The weights are P, or all equal.
 */
static double least_risk(task *k, const float *lp, int64_t (*all)[INPUTS][T], int n,
                         bool weighted)
{
    static float gain[DRAWS * DRAWS], prob[DRAWS];
    int64_t y[INPUTS][T], pick = 0;
    const float *u = candidates(k, lp, all, n, 1, 0.25);
    slg_tensor tp = slg_tensor_1d(prob, SLG_F32, n), tg = slg_tensor_2d(gain, SLG_F32, n, n);
    slg_tensor best = slg_tensor_1d(&pick, SLG_I64, 1);
    for (int i = 0; i < INPUTS; i++) {
        for (int a = 0; a < n; a++) {
            prob[a] = weighted ? expf(u[i * n + a]) : 1.0f / (float)n;
            for (int b = 0; b < n; b++) {
                int same = 0;
                for (int t = 0; t < T; t++)
                    same += all[a][i][t] != EOS && all[a][i][t] == all[b][i][t];
                gain[a * n + b] = (float)same / T;
            }
        }
        must(k->r, k->ctx, slg_minimum_bayes_risk(k->ctx, &tp, &tg, NULL, &best));
        memcpy(y[i], all[pick][i], sizeof y[i]);
    }
    return accuracy(k, y);
}

/* Claims of minimum Bayes risk: what the candidates are worth by themselves is raw. */
static void least_risk_claims(task *k, const float *lp, int64_t (*all)[INPUTS][T], double raw)
{
    static const int counts[] = { 4, 16, DRAWS };
    for (int i = 0; i < 3; i++)
        for (int weighted = 0; weighted < 2; weighted++) {
            char what[96];
            snprintf(what, sizeof what, "minimum Bayes risk, %d candidates, %s: gain",
                     counts[i], weighted ? "P (alpha 1, tau 0.25)" : "equal weights");
            claim(k->r, what, "double digits",
                  least_risk(k, lp, all, counts[i], weighted) - raw, "points", at_least(10));
        }
}

static void run(run_t *r)
{
    task *k = run_memory(r, sizeof *k);
    k->r = r, k->ctx = run_ctx(r, SLG_ISA_AUTO, 1), k->g = rng_seed(7), k->draws.seed = 7;
    make_task(k);
    train(k, 5000, run_quick(r) ? 1500 : 3000);
    k->logits = run_floats(r, INPUTS * T * CLASSES);
    float *lp = run_floats(r, INPUTS * T * CLASSES);
    for (int i = 0; i < INPUTS * T; i++) {
        k->x[i / T][i % T] = (int)rng_below(&k->g, SYMBOLS);
        for (int c = 0; c < CLASSES; c++)
            k->logits[i * CLASSES + c] = k->w[k->x[i / T][i % T]][c] + k->b[i % T][c];
    }
    slg_tensor x = slg_tensor_2d(k->logits, SLG_F32, INPUTS * T, CLASSES), tlp = x;
    tlp.data = lp;
    must(r, k->ctx, slg_log_softmax(k->ctx, &x, NULL, &tlp, NULL));

    int64_t y[INPUTS][T];
    claim(r, "most probable sequence is the empty string", "paradox of MAP",
          100.0 * best_sequences(lp, 0, y) / INPUTS, "%", at_least(95));
    best_sequences(lp, 1, y);
    claim(r, "arg max of length-normalised utility: accuracy", "a good ranking", accuracy(k, y),
          "%", at_least(98));
    int64_t(*all)[INPUTS][T] = run_memory(r, sizeof(int64_t[INPUTS][T]) * DRAWS);
    double raw = 0;
    for (int j = 0; j < DRAWS; j++) {
        sample(k, 1, all[j]);
        raw += accuracy(k, all[j]) / DRAWS;
    }
    claim(r, "sampling, raw probabilities: accuracy", "", raw, "%", no_bar());
    sample(k, 0.25, y);
    claim(r, "sampling, tokens transformed at tau 0.25: gain", "double digits",
          accuracy(k, y) - raw, "points", at_least(30));
    claim(r, "one of 64 samples by P, alpha 0, tau 1: accuracy", "", resample(k, lp, all, 0, 1),
          "%", no_bar());
    claim(r, "one of 64 samples by P, alpha 1, tau 0.1: gain", "double digits",
          resample(k, lp, all, 1, 0.1) - raw, "points", at_least(20));
    least_risk_claims(k, lp, all, raw);
}

const paper paper_07_utility_probability = { 7, "utility-probability",
                                             "Utility-Probability Duality of Neural Networks",
                                             run };
