/*
 * logistic.c - multinomial logistic regression, from the data to a solution whose gradient is
 * small enough: the library's L-BFGS against scikit-learn's. rows are samples, cols classes,
 * dim pixels: as MNIST's, three of four are 0, the others up to 1; of a tenth of the samples
 * the label is wrong. Both minimise the mean of losses + |W|^2 / (2 rows), W without the
 * intercepts (C = 1), from 0. The norm of the gradient of that is what the check finds.
 */
#include <stdlib.h>
#include <string.h>

#include "race.h"

/* 2-norm of the gradient where both may stop. */
#define GRADIENT 2e-3

static int64_t width(const race *r) { return r->dim + 1; }

static void setup(race *r)
{
    if (r->quick) r->rows = r->rows < 2000 ? r->rows : 2000;
    const int64_t n = r->rows, d = r->dim, k = r->cols;
    r->gradient = GRADIENT, r->measure = "gradient norm";
    r->x = race_floats(r, n * d);
    r->w64 = race_memory(r, (size_t)(k * width(r)) * sizeof *r->w64);
    r->target = race_memory(r, (size_t)n * sizeof *r->target);
    float *shape = race_floats(r, k * d), *chance = race_floats(r, 3 * n);
    fill_normal(shape, k * d, 1.0f, 21);
    fill_normal(chance, 3 * n, 1.0f, 22);
    fill_normal(r->x, n * d, 0.5f, 23);
    for (int64_t i = 0; i < n; i++) {
        const int64_t seen = (int64_t)(fabs((double)chance[3 * i]) * 1e6) % k;
        const float *s = shape + seen * d;
        for (int64_t j = 0; j < d; j++) {
            /* a quarter of the pixels are the class's own */
            const float own = s[j] > 0.67f ? 0.5f * s[j] : 0.0f, v = r->x[i * d + j] + own;
            r->x[i * d + j] = fminf(fmaxf(v - 0.4f, 0.0f), 1.0f);
        }
        const bool wrong = fabs((double)chance[3 * i + 1]) < 0.1257; /* of 10 % */
        r->target[i] = wrong ? (int64_t)(fabs((double)chance[3 * i + 2]) * 1e6) % k : seen;
    }
}

static void reset(race *r)
{
    memset(r->w64, 0xFF, (size_t)(r->cols * width(r)) * sizeof *r->w64);
}

/* p - onehot of sample i */
static void residual(const race *r, int64_t i, double *z)
{
    const float *x = r->x + i * r->dim;
    double top = -INFINITY, sum = 0;
    for (int64_t c = 0; c < r->cols; c++) {
        const double *w = r->w64 + c * width(r);
        z[c] = w[r->dim];
        for (int64_t j = 0; j < r->dim; j++) z[c] += w[j] * (double)x[j];
        if (!(z[c] <= top)) top = z[c];
    }
    for (int64_t c = 0; c < r->cols; c++) sum += z[c] = exp(z[c] - top);
    for (int64_t c = 0; c < r->cols; c++) z[c] = z[c] / sum - (c == r->target[i]);
}

/* The norm of the gradient at w64, in double. */
static double check(race *r)
{
    const int64_t n = r->rows, d = r->dim, k = r->cols;
    double *g = calloc((size_t)(k * width(r)), sizeof *g), z[64], square = 0;
    for (int64_t i = 0; i < n; i++) {
        residual(r, i, z);
        for (int64_t c = 0; c < k; c++) {
            double *to = g + c * width(r);
            for (int64_t j = 0; j < d; j++) to[j] += z[c] * (double)r->x[i * d + j];
            to[d] += z[c];
        }
    }
    for (int64_t i = 0; i < k * width(r); i++) {
        const double v = g[i] + (i % width(r) < d ? r->w64[i] : 0);
        square += v / (double)n * (v / (double)n);
    }
    free(g);
    return sqrt(square);
}

/* ---- The library ------------------------------------------------------------------------ */

typedef struct fit {
    int32_t precision;
} fit;

static void *prepare(race *r, const char *precision)
{
    fit *f = calloc(1, sizeof *f);
    (void)r;
    f->precision = atoi(precision);
    return f;
}

static void run_once(race *r, const fit *f)
{
    const int64_t size = r->cols * width(r);
    slg_tensor x = slg_tensor_2d(r->x, SLG_F32, r->rows, r->dim),
               y = slg_tensor_1d(r->target, SLG_I64, r->rows),
               w = slg_tensor_1d(r->w64, SLG_F64, size);
    slg_logistic_opts opts;
    slg_solver_run_opts run;
    slg_objective o;
    slg_solver *s;
    slg_solver_report report = { .size = sizeof report };
    slg_logistic_opts_init(&opts, sizeof opts);
    slg_solver_run_opts_init(&run, sizeof run);
    slg_objective_init(&o, sizeof o);
    opts.intercept = 1, opts.ridge = 1 / (double)r->rows, opts.precision = f->precision;
    run.grad_norm = GRADIENT, run.steps = 5000;
    memset(r->w64, 0, (size_t)size * sizeof *r->w64);
    stop(r, slg_multinomial_objective(r->ctx, &x, &y, r->cols, &opts, &o), "objective");
    stop(r, slg_solver_create(r->ctx, SLG_LBFGS, &o, &w, NULL, &s), "solver");
    stop(r, slg_solver_run(s, &run, &report), "run");
    stop(r, slg_solver_get(s, &w, NULL), "get");
    if (f->precision == SLG_PRECISION_SINGLE) r->passes = (double)report.values;
    slg_solver_free(s);
    slg_objective_free(&o);
}

static void run(race *r, void *state, int64_t times)
{
    while (times--) run_once(r, state);
}

static void release(race *r, void *state) { (void)r, free(state); }

static const candidate ours_single = { "ours",  OURS, "1" /* SLG_PRECISION_SINGLE */,
                                       prepare, run,  NULL,
                                       release, NULL };
static const candidate ours_double = {
    "ours-f64", FORM, "0", prepare, run, NULL, release, NULL
};

static const candidate *const field[] = { &ours_single, &ours_double,     &sklearn_f32,
                                          &sklearn_f64, &floor_read_data, NULL };
const operation op_logistic = { .name = "logistic",
                                .setup = setup,
                                .check = check,
                                .reset = reset,
                                .tolerance = GRADIENT * (1 + 1e-6),
                                .floor = "read",
                                .field = field };
