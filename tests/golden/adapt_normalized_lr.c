/* Normalised logistic regression and perceptrons: make_normalized-lr.py says what each name
   means. */
#include <string.h>

#include "golden/adapter.h"

static void parts(run *g)
{
    slg_separation_out out;
    slg_separation_out_init(&out, sizeof out);
    out.margins = output_for(g, "margins", SLG_F64);
    out.gradient = output_for(g, "gradient", SLG_F32);
    out.direction = output_for(g, "direction", SLG_F64);
    out.weights = output_for(g, "weights", SLG_F32);
    slg_tensor *y = input(g, "y", SLG_I32);
    check(g, slg_separation_parts(g->ctx, input(g, "A", SLG_F32), y, input(g, "theta", SLG_F32),
                                  &out));
    expect(g, "margins", out.margins);
    expect(g, "gradient", out.gradient);
    expect(g, "direction", out.direction);
    expect(g, "weights", out.weights);
    expect_number(g, "loss", out.loss);
    expect_number(g, "log_beta", out.log_beta);
    /* The weights alone, from those margins. */
    if (!out.margins) return;
    slg_separation_out alone;
    slg_separation_out_init(&alone, sizeof alone);
    alone.weights = output_for(g, "weights", SLG_F64);
    check(g, slg_separation_weights(g->ctx, out.margins, NULL, 1, &alone));
    expect(g, "weights", alone.weights);
    expect_number(g, "loss", alone.loss);
    expect_number(g, "log_beta", alone.log_beta);
}

/* Perceptrons rest where all is separated; their trajectories go on with that theta. */
static void steps(run *g)
{
    static const int32_t rules[] = { SLG_LOGISTIC_DESCENT, SLG_NORMALIZED_LOGISTIC,
                                     SLG_BATCH_PERCEPTRON, SLG_NORMALIZED_BATCH_PERCEPTRON,
                                     SLG_PERCEPTRON };
    slg_separation_opts opts;
    slg_solver_report r = { .size = sizeof r };
    slg_solver *s = NULL;
    contiguous(g);
    slg_separation_opts_init(&opts, sizeof opts);
    opts.rule = rules[(int)scalar(g, "kind")], opts.gamma = scalar(g, "gamma"), opts.stop = 0;
    slg_tensor *a = input(g, "A", SLG_F32), *wrong = output_for(g, "misclassified", SLG_I64);
    slg_tensor *thetas = output_for(g, "thetas", SLG_F32);
    const int64_t count = (int64_t)scalar(g, "steps"), d = a->shape[1];
    const int64_t row[] = { d };
    slg_tensor *theta = output(g, SLG_F32, 1, row);
    slg_solver_run_opts none;
    slg_solver_run_opts_init(&none, sizeof none);
    none.steps = 0;
    check(g, slg_separation_create(g->ctx, a, input(g, "y", SLG_I64), NULL, &opts, &s));
    slg_status status = slg_solver_run(s, &none, &r);
    for (int64_t t = 0; t <= count && status == SLG_OK; t++) {
        if (wrong) ((int64_t *)wrong->data)[t] = r.wrong;
        if (t == count) break;
        status = slg_solver_step(s, &r);
        if (status == SLG_OK) status = slg_solver_get(s, theta, NULL);
        if (thetas)
            memcpy((float *)thetas->data + t * d, theta->data, (size_t)d * sizeof(float));
    }
    slg_solver_free(s);
    check(g, status);
    expect(g, "thetas", thetas);
    expect(g, "misclassified", wrong);
}

const adapter adapt_normalized_lr[] = { { "parts", parts }, { "run", steps }, { NULL, NULL } };
