/*
 * 31 - From Logistic Regression to the Perceptron Algorithm: Exploring Gradient Descent with
 * Large Step Sizes (2024).
 *
 * Steps until the data are separated: first the data of the paper's theorem 5.1, where plain
 * descent is slowest, and its table to the step; then pairs of digits, balanced and not.
 */
#include "papers.h"

typedef struct samples {
    int64_t n, d;
    double *a;
    int32_t *y;
} samples;

typedef struct result {
    int64_t steps; /* -1: not separated */
    double peak;   /* largest loss on the way */
} result;

static int32_t keep_peak(void *user, const slg_solver_report *r)
{
    double *peak = user;
    if (r->value > *peak) *peak = r->value;
    return 0;
}

static result separate(run_t *r, slg_ctx *ctx, const samples *s, int32_t rule, double gamma,
                       int64_t most)
{
    slg_tensor a = slg_tensor_2d(s->a, SLG_F64, s->n, s->d),
               y = slg_tensor_1d(s->y, SLG_I32, s->n);
    slg_separation_opts opts;
    slg_solver_run_opts run;
    slg_solver_report report = { .size = sizeof report };
    slg_solver *solver;
    double peak = 0;
    slg_separation_opts_init(&opts, sizeof opts);
    slg_solver_run_opts_init(&run, sizeof run);
    opts.rule = rule, opts.gamma = gamma;
    run.steps = most, run.progress = keep_peak, run.user = &peak;
    must(r, ctx, slg_separation_create(ctx, &a, &y, NULL, &opts, &solver));
    slg_status status = slg_solver_run(solver, &run, &report);
    slg_solver_free(solver);
    must(r, ctx, status);
    return (result){ report.reason == SLG_SOLVER_SEPARATED ? report.steps : -1, peak };
}

/* ---- Theorem 5.1 ------------------------------------------------------------------------- */

static samples hard_data(run_t *r, int64_t n)
{
    samples s = { n, 2, run_doubles(r, (size_t)(2 * n)), NULL };
    s.y = run_memory(r, (size_t)n * sizeof *s.y);
    for (int64_t i = 0; i < n; i++) {
        s.a[2 * i] = i == 0 ? 0.5 : -0.5, s.a[2 * i + 1] = -1;
        s.y[i] = i == 0 ? 1 : -1;
    }
    return s;
}

static void exactly(run_t *r, const char *what, const char *paper_says, int64_t got,
                    int64_t want)
{
    claim(r, what, paper_says, (double)got, "", between((double)want, (double)want));
}

static void theorem(run_t *r, slg_ctx *ctx)
{
    const samples s = hard_data(r, 1000);
    const double gammas[] = { 100, 10, 1, 0.1 };
    const int64_t want[] = { 2, 2, 16, 157 };
    static const char *const says[] = { "2", "2", "16", "157" };
    char what[120];
    for (int i = 0; i < 4; i++) {
        snprintf(what, sizeof what, "theorem 5.1: steps, normalised, step %g", gammas[i]);
        exactly(r, what, says[i],
                separate(r, ctx, &s, SLG_NORMALIZED_LOGISTIC, gammas[i], 20000).steps, want[i]);
    }
    exactly(r, "  plain, step 100", "308",
            separate(r, ctx, &s, SLG_LOGISTIC_DESCENT, 100, 20000).steps, 308);
    exactly(r, "  plain, step 1e6", "NumPy: 301",
            separate(r, ctx, &s, SLG_LOGISTIC_DESCENT, 1e6, 20000).steps, 301);
    exactly(r, "  plain, step 10", "NumPy: 729",
            separate(r, ctx, &s, SLG_LOGISTIC_DESCENT, 10, 20000).steps, 729);
    exactly(r, "  plain, step 1", "NumPy: 7313",
            separate(r, ctx, &s, SLG_LOGISTIC_DESCENT, 1, 20000).steps, 7313);
    exactly(r, "  batch perceptron", "NumPy: 301",
            separate(r, ctx, &s, SLG_BATCH_PERCEPTRON, 1, 20000).steps, 301);
    exactly(r, "  normalised batch perceptron", "NumPy: 2",
            separate(r, ctx, &s, SLG_NORMALIZED_BATCH_PERCEPTRON, 1, 20000).steps, 2);
    exactly(r, "  perceptron", "NumPy: 2", separate(r, ctx, &s, SLG_PERCEPTRON, 1, 20000).steps,
            2);
    const int64_t sizes[] = { 100, 1000, 2000, 5000 }, plain[] = { 31, 301, 601, 1501 };
    for (int i = 0; i < 4; i++) {
        const samples t = hard_data(r, sizes[i]);
        snprintf(what, sizeof what, "  n = %lld: plain, step 1e6", (long long)sizes[i]);
        exactly(r, what, "grows like n",
                separate(r, ctx, &t, SLG_LOGISTIC_DESCENT, 1e6, 20000).steps, plain[i]);
        snprintf(what, sizeof what, "  n = %lld: normalised, step 100", (long long)sizes[i]);
        exactly(r, what, "does not depend on n",
                separate(r, ctx, &t, SLG_NORMALIZED_LOGISTIC, 100, 20000).steps, 2);
    }
}

/* ---- Digits ------------------------------------------------------------------------------ */

/* All of one digit and the first `most` of another, pixels in [0, 1] and a column of ones. */
static samples pair_of(run_t *r, const csv *t, int one, int other, int64_t most)
{
    enum { PIXELS = 64 };
    samples s = { 0, PIXELS + 1, run_doubles(r, t->rows * (PIXELS + 1)), NULL };
    int64_t others = 0;
    s.y = run_memory(r, t->rows * sizeof *s.y);
    for (size_t i = 0; i < t->rows; i++) {
        const int digit = (int)csv_number(t, i, PIXELS);
        if (digit != one && (digit != other || others >= most)) continue;
        others += digit == other;
        double *row = s.a + s.n * s.d;
        for (size_t j = 0; j < PIXELS; j++) row[j] = csv_number(t, i, j) / 16;
        row[PIXELS] = 1;
        s.y[s.n++] = digit == one ? 1 : -1;
    }
    return s;
}

typedef struct pair {
    const char *name;
    int one, other;
    int64_t most;
    int64_t normalised[4], plain[4]; /* NumPy's, at 100, 10, 1, 0.1 */
} pair;

static const pair pairs[] = {
    { "3 and 8", 3, 8, 1 << 20, { 67, 52, 75, 179 }, { 69, 92, 278, 2777 } },
    { "1 and 8", 1, 8, 1 << 20, { 202, 218, 288, 925 }, { 299, 355, 2627, -1 } },
    { "3 and five 8s", 3, 8, 5, { 18, 16, 19, 45 }, { 24, 24, 130, 1303 } },
    { "1 and five 8s", 1, 8, 5, { 4, 4, 8, 40 }, { 17, 17, 101, 1012 } },
    { "4 and five 9s", 4, 9, 5, { 9, 9, 9, 24 }, { 24, 25, 96, 967 } },
};

static void one_pair(run_t *r, slg_ctx *ctx, const csv *t, const pair *p)
{
    const double gammas[] = { 100, 10, 1, 0.1 };
    const int64_t most = run_quick(r) ? 3000 : 20000;
    const samples s = pair_of(r, t, p->one, p->other, p->most);
    result normalised[4], plain[4];
    char what[160], says[120];
    for (int i = 0; i < 4; i++) {
        normalised[i] = separate(r, ctx, &s, SLG_NORMALIZED_LOGISTIC, gammas[i], most);
        plain[i] = separate(r, ctx, &s, SLG_LOGISTIC_DESCENT, gammas[i], most);
    }
    snprintf(what, sizeof what, "digits %s: steps, normalised at 100, by plain at 100",
             p->name);
    snprintf(says, sizeof says, "NumPy: %lld / %lld", (long long)p->normalised[0],
             (long long)p->plain[0]);
    claim(r, what, says, (double)normalised[0].steps / (double)plain[0].steps, "x",
          p->most == 5 ? at_most(1) : no_bar());
    snprintf(says, sizeof says, "NumPy: %lld / %lld", (long long)p->plain[0],
             (long long)p->plain[2]);
    claim(r, "  plain at 100, by plain at 1", says,
          (double)plain[0].steps / (double)plain[2].steps, "x", at_most(0.9999));
    claim(r, "  peak loss of plain at 100, by that at 1", "far higher",
          plain[0].peak / plain[2].peak, "x", at_least(1.0001));
    note(r, "%s: normalised %lld / %lld / %lld / %lld, plain %lld / %lld / %lld / %lld%s",
         p->name, (long long)normalised[0].steps, (long long)normalised[1].steps,
         (long long)normalised[2].steps, (long long)normalised[3].steps,
         (long long)plain[0].steps, (long long)plain[1].steps, (long long)plain[2].steps,
         (long long)plain[3].steps, plain[3].steps < 0 ? " (-1: not separated)" : "");
}

static void run(run_t *r)
{
    slg_ctx *ctx = run_ctx(r, SLG_ISA_AUTO, 1);
    theorem(r, ctx);
    const csv t = csv_read(r, "digits.csv.gz", ',');
    if (t.rows < 1797 || t.cols < 65) run_fail(r, "digits.csv.gz has %zu rows", t.rows);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) one_pair(r, ctx, &t, &pairs[i]);
    note(r, "1 and 8, normalised, step 100: hangs on the last bits of sums. NumPy takes 202 to "
            "251 steps, by the order of samples and of additions");
}

const paper paper_31_normalized_lr = { 31, "normalized-lr",
                                       "From Logistic Regression to the Perceptron Algorithm",
                                       run };
