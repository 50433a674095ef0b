/*
 * 08 - Predicting Rare Events by Shrinking Towards Proportional Odds (2023).
 *
 * The paper's design of sparse differences: 2500 rows, 10 features, 4 ordered classes of which
 * the last is rare. Mean squared error of its probability, beside that of proportional odds and
 * of logistic regression on the class alone, both by maximum likelihood. The paper has curves
 * and paired t statistics, no table.
 */
#include "papers.h"

enum { N = 2500, P = 10, M = 3, CLASSES = M + 1, LAMBDAS = 20, MOST = 12 };
enum { PRESTO, PROPORTIONAL, LOGISTIC, METHODS };

typedef struct world {
    double x[N * P], beta[M * P], rare[N], alpha_fit[M], beta_fit[M * P], prob[N * CLASSES];
    double alphas[LAMBDAS * M], betas[LAMBDAS * M * P];
    int32_t y[N], is_rare[N];
} world;

static double sigmoid(double t) { return 1 / (1 + exp(-t)); }

/* Redrawn while boundaries cross or a class is missing. */
static void draw(rng *g, double q, world *w)
{
    static const double alpha[M] = { 0, 3, 5 };
    for (bool good = false; !good;) {
        int seen[CLASSES] = { 0 };
        good = true;
        for (int j = 0; j < P; j++) {
            w->beta[j] = rng_uniform(g, 0, 1) < q ? 0.5 : 0;
            for (int l = 1; l < M; l++) {
                const double size = rng_uniform(g, 0, 1) < q ? 0.5 : 0;
                w->beta[l * P + j] =
                    w->beta[(l - 1) * P + j] + (rng_uniform(g, 0, 1) < 0.5 ? -size : size);
            }
        }
        for (int i = 0; i < N; i++) {
            double eta[M];
            for (int j = 0; j < P; j++) w->x[i * P + j] = rng_uniform(g, -1, 1);
            const double u = rng_uniform(g, 0, 1);
            w->y[i] = 0;
            for (int l = 0; l < M; l++) {
                eta[l] = alpha[l];
                for (int j = 0; j < P; j++) eta[l] += w->x[i * P + j] * w->beta[l * P + j];
                w->y[i] += u > sigmoid(eta[l]);
                if (l > 0 && eta[l] <= eta[l - 1]) good = false;
            }
            w->rare[i] = sigmoid(-eta[M - 1]);
            w->is_rare[i] = w->y[i] == M;
            seen[w->y[i]]++;
        }
        for (int c = 0; c < CLASSES; c++) good = good && seen[c] > 0;
    }
}

static double error_of(run_t *r, slg_ctx *ctx, world *w, const double *alpha,
                       const double *beta, int m)
{
    slg_tensor x = slg_tensor_2d(w->x, SLG_F64, N, P), a = slg_tensor_1d(alpha, SLG_F64, m),
               b = slg_tensor_2d(beta, SLG_F64, m, P),
               p = slg_tensor_2d(w->prob, SLG_F64, N, m + 1);
    double sum = 0;
    must(r, ctx, slg_ordinal_predict(ctx, &x, &a, &b, SLG_ORDINAL_SIGNED, &p));
    for (int i = 0; i < N; i++) {
        const double off = w->prob[i * (m + 1) + m] - w->rare[i];
        sum += off * off / N;
    }
    return sum;
}

static void compare(run_t *r, slg_ctx *ctx, world *w, uint64_t seed, double error[METHODS])
{
    slg_tensor x = slg_tensor_2d(w->x, SLG_F64, N, P), y = slg_tensor_1d(w->y, SLG_I32, N),
               rare = slg_tensor_1d(w->is_rare, SLG_I32, N),
               a = slg_tensor_1d(w->alpha_fit, SLG_F64, M),
               b = slg_tensor_2d(w->beta_fit, SLG_F64, M, P), as, bs;
    slg_rng order = { seed, 0 };
    slg_ordinal_opts o;
    slg_ordinal_path_out out;
    slg_ordinal_opts_init(&o, sizeof o);
    slg_ordinal_path_out_init(&out, sizeof out);
    as = slg_tensor_2d(w->alphas, SLG_F64, LAMBDAS, M);
    bs = (slg_tensor){ w->betas, SLG_F64, 3, { LAMBDAS, M, P, 1 }, { M * P, P, 1, 1 } };
    out.alpha = &as, out.beta = &bs;
    must(r, ctx, slg_ordinal_cv(ctx, &x, &y, CLASSES, NULL, LAMBDAS, NULL, &order, &o, &out));
    error[PRESTO] =
        error_of(r, ctx, w, w->alphas + out.best * M, w->betas + out.best * M * P, M);
    o.proportional = 1;
    must(r, ctx, slg_ordinal_fit(ctx, &x, &y, CLASSES, 0, &o, &a, &b, NULL));
    error[PROPORTIONAL] = error_of(r, ctx, w, w->alpha_fit, w->beta_fit, M);
    a.shape[0] = b.shape[0] = 1;
    must(r, ctx, slg_ordinal_fit(ctx, &x, &rare, 2, 0, &o, &a, &b, NULL));
    error[LOGISTIC] = error_of(r, ctx, w, w->alpha_fit, w->beta_fit, 1);
}

/* Mean of d by its standard error. */
static double paired_t(int n, const double *d)
{
    double mean = 0, square = 0;
    for (int i = 0; i < n; i++) mean += d[i] / n;
    for (int i = 0; i < n; i++) square += (d[i] - mean) * (d[i] - mean) / (n - 1);
    return mean / sqrt(square / n);
}

static void design(run_t *r, slg_ctx *ctx, double q, const char *name, bool bars)
{
    world *w = run_memory(r, sizeof *w);
    const int reps = run_quick(r) ? 8 : MOST;
    double mean[METHODS] = { 0 }, better[METHODS][MOST], share = 0;
    int wins[METHODS] = { 0 };
    char text[96];
    rng g = rng_seed(8);
    const double start = seconds();
    for (int i = 0; i < reps; i++) {
        double error[METHODS];
        draw(&g, q, w);
        compare(r, ctx, w, (uint64_t)i, error);
        for (int k = 0; k < METHODS; k++) {
            mean[k] += error[k] / reps;
            better[k][i] = error[k] - error[PRESTO];
            wins[k] += better[k][i] > 0;
        }
        for (int k = 0; k < N; k++) share += (double)w->is_rare[k] / N / reps;
    }
    snprintf(text, sizeof text, "q = %s: error of PRESTO by proportional odds'", name);
    claim(r, text, "lower; Python: .59 (1/2), .79 (1/3)", mean[PRESTO] / mean[PROPORTIONAL],
          "x", bars ? at_most(0.8) : at_most(1));
    claim(r, "  by logistic regression's", "lower; Python: .51, .57",
          mean[PRESTO] / mean[LOGISTIC], "x", bars ? at_most(0.9) : at_most(1));
    note(r,
         "q = %s, %d repetitions, rare %.1f %%: errors %.1e, %.1e, %.1e; better in %d and %d; "
         "t %.1f and %.1f; %.1f s",
         name, reps, 100 * share, mean[PRESTO], mean[PROPORTIONAL], mean[LOGISTIC],
         wins[PROPORTIONAL], wins[LOGISTIC], paired_t(reps, better[PROPORTIONAL]),
         paired_t(reps, better[LOGISTIC]), seconds() - start);
}

static void run(run_t *r)
{
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 0);
    design(r, ctx, 0.5, "1/2", true);
    design(r, ctx, 1 / 3.0, "1/3", false);
}

const paper paper_08_presto = { 8, "presto",
                                "Predicting Rare Events by Shrinking Towards Proportional Odds",
                                run };
