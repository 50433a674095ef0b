/* Gradient-normalised Newton: make_gns.py says what each name means. */
#include "golden/adapter.h"

/* Value, gradient and one matrix after another of an objective, which is freed. */
static void evaluate(run *g, slg_objective *o, const slg_tensor *x, int32_t which,
                     const char *dense, const char *diagonal)
{
    slg_objective_out out;
    slg_objective_out_init(&out, sizeof out);
    out.which = which;
    out.grad = output_for(g, "grad", SLG_F64);
    out.dense = output_for(g, dense, SLG_F64);
    out.diagonal = diagonal ? output_for(g, diagonal, SLG_F64) : NULL;
    slg_status status = slg_objective_evaluate(g->ctx, o, x, NULL, &out);
    check(g, status);
    expect_number(g, "value", out.value);
    expect(g, "grad", out.grad);
    expect(g, dense, out.dense);
    if (diagonal) expect(g, diagonal, out.diagonal);
}

static void logsumexp(run *g)
{
    slg_objective o;
    slg_objective_init(&o, sizeof o);
    slg_tensor *x = input(g, "x", SLG_F32);
    check(g, slg_logsumexp_objective(g->ctx, input(g, "A", SLG_F32), input(g, "b", SLG_F32),
                                     scalar(g, "mu"), &o));
    evaluate(g, &o, x, SLG_HESSIAN, "hessian", NULL);
    evaluate(g, &o, x, SLG_GAUSS_NEWTON, "weighted_gauss_newton", NULL);
    slg_objective_free(&o);
}

static slg_objective logistic_of(run *g)
{
    slg_objective o;
    slg_logistic_opts opts;
    slg_objective_init(&o, sizeof o);
    slg_logistic_opts_init(&opts, sizeof opts);
    opts.ridge = scalar_or(g, "ridge", 0);
    check(g, slg_logistic_objective(g->ctx, input(g, "A", SLG_F32), input(g, "y", SLG_I32),
                                    &opts, &o));
    return o;
}

static void logistic(run *g)
{
    slg_objective o = logistic_of(g);
    slg_tensor *x = input(g, "x", SLG_F32);
    evaluate(g, &o, x, SLG_HESSIAN, "hessian", NULL);
    evaluate(g, &o, x, SLG_FISHER, "fisher", NULL);
    slg_objective_free(&o);
}

static void multinomial(run *g)
{
    slg_objective o;
    slg_objective_init(&o, sizeof o);
    slg_tensor *w = input(g, "W", SLG_F32);
    check(g, slg_multinomial_objective(g->ctx, input(g, "X", SLG_F32),
                                       input(g, "labels", SLG_I32), w->shape[0], NULL, &o));
    evaluate(g, &o, w, SLG_HESSIAN, "hessian", "hessian_diagonal");
    evaluate(g, &o, w, SLG_FISHER, "fisher", NULL);
    slg_objective_free(&o);
}

static void step_of(run *g, const slg_tensor *h, const slg_tensor *metric,
                    const slg_step_opts *opts)
{
    slg_step_out out = { .size = sizeof out };
    slg_tensor *dx = output_for(g, "dx", SLG_F64);
    check(g, slg_regularized_step(g->ctx, h, input(g, "g", SLG_F32), scalar(g, "gamma"), metric,
                                  opts, dx, &out));
    if (!out.solved) fail(g, "H + lambda B is not positive definite");
    expect_number(g, "lambda", out.lambda);
    expect(g, "dx", dx);
    expect_number(g, "step_norm", out.norm);
}

static void step(run *g) { step_of(g, input(g, "H", SLG_F32), input(g, "B", SLG_F32), NULL); }

static void rank_one(run *g)
{
    slg_step_opts opts;
    slg_step_opts_init(&opts, sizeof opts);
    opts.form = SLG_FORM_RANK_ONE, opts.scale = scalar(g, "c");
    step_of(g, input(g, "g", SLG_F32), NULL, &opts);
}

/* A whole run, step by step. */
static void minimise(run *g)
{
    enum { MOST = 4096 };
    static const int32_t which[3] = { SLG_HESSIAN, SLG_FISHER, SLG_HESSIAN },
                         form[3] = { SLG_FORM_DENSE, SLG_FORM_DENSE, SLG_FORM_DIAGONAL };
    const int64_t steps = (int64_t)scalar(g, "iterations"),
                  kind = (int64_t)scalar(g, "curvature");
    double value[MOST], norm[MOST], gamma[MOST];
    if (steps >= MOST || kind < 0 || kind > 2) fail(g, "more steps than %d, or a kind", MOST);
    slg_objective o = logistic_of(g);
    slg_normalized_newton_opts opts;
    slg_normalized_newton_opts_init(&opts, sizeof opts);
    opts.which = which[kind], opts.form = form[kind], opts.gamma0 = scalar(g, "gamma0");
    slg_solver *s;
    slg_solver_report r = { .size = sizeof r };
    slg_solver_run_opts none;
    slg_solver_run_opts_init(&none, sizeof none);
    none.steps = 0;
    check(g, slg_solver_create(g->ctx, SLG_NORMALIZED_NEWTON, &o, input(g, "x0", SLG_F32),
                               &opts, &s));
    check(g, slg_solver_run(s, &none, &r));
    for (int64_t k = 0; k <= steps; k++) {
        value[k] = r.value, norm[k] = r.grad_norm, gamma[k] = r.radius;
        if (k < steps) check(g, slg_solver_step(s, &r));
    }
    slg_tensor tv = slg_tensor_1d(value, SLG_F64, steps + 1),
               tn = slg_tensor_1d(norm, SLG_F64, steps + 1),
               tg = slg_tensor_1d(gamma, SLG_F64, steps + 1);
    slg_tensor *x = output_for(g, "x", SLG_F64);
    check(g, slg_solver_get(s, x, NULL));
    expect(g, "x", x);
    expect(g, "values", &tv);
    expect(g, "grad_norms", &tn);
    expect(g, "gammas", &tg);
    expect_number(g, "solves", (double)r.solves);
    slg_solver_free(s), slg_objective_free(&o);
}

const adapter adapt_gns[] = {
    { "logsumexp", logsumexp },
    { "logistic", logistic },
    { "multinomial", multinomial },
    { "step", step },
    { "rank_one", rank_one },
    { "run", minimise },
    { NULL, NULL },
};
