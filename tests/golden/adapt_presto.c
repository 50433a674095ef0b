/* Ordinal regression: make_presto.py says what each name means. */
#include "golden/adapter.h"

static void row_operation(run *g)
{
    slg_tensor *eta = input(g, "eta", SLG_F32), *labels = input(g, "labels", SLG_I32);
    slg_targets targets = slg_targets_index(labels);
    slg_logits logits = slg_logits_dense(eta);
    slg_ordinal_cross_entropy_opts o;
    slg_ordinal_terms terms;
    slg_loss_out out = slg_loss_out_none();
    slg_ordinal_cross_entropy_opts_init(&o, sizeof o);
    slg_ordinal_terms_init(&terms, sizeof terms);
    o.reduction = SLG_SUM;
    out.loss = output_for(g, "loss", SLG_F32);
    terms.prob = output_for(g, "prob", SLG_F32);
    terms.log_prob = output_for(g, "log_prob", SLG_F32);
    terms.fisher_diag = output_for(g, "fisher_diag", SLG_F32);
    terms.fisher_off = output_for(g, "fisher_off", SLG_F32);
    slg_tensor *d = output_over(g, eta);
    slg_logits_grad grad = slg_grad_dense(d);
    check(g, slg_ordinal_cross_entropy(g->ctx, &logits, &targets, &o, &out, &terms, &grad));
    expect(g, "loss", out.loss), expect(g, "grad", d);
    expect(g, "prob", terms.prob), expect(g, "log_prob", terms.log_prob);
    expect(g, "fisher_diag", terms.fisher_diag), expect(g, "fisher_off", terms.fisher_off);
    expect_number(g, "infeasible", (double)terms.infeasible);
}

static slg_tensor transposed(const slg_tensor *t)
{
    slg_tensor v = *t;
    v.shape[0] = t->shape[1], v.shape[1] = t->shape[0];
    v.stride[0] = t->stride[1], v.stride[1] = t->stride[0];
    return v;
}

static void linear(run *g)
{
    slg_tensor *x = input(g, "X", SLG_F32), *labels = input(g, "labels", SLG_I32);
    slg_tensor *alpha = input(g, "alpha", SLG_F32), *b = input(g, "B", SLG_F32);
    slg_tensor weight = transposed(b), change;
    const int64_t m = weight.shape[0], p = weight.shape[1];
    slg_logits logits = slg_logits_layer(x, &weight, alpha);
    slg_targets targets = slg_targets_index(labels);
    slg_loss_out out = slg_loss_out_none();
    contiguous(g);
    slg_tensor *db = output(g, SLG_F32, 2, (int64_t[]){ m, p });
    slg_tensor *dalpha = output(g, SLG_F32, 1, &m), *dpsi = output_like(g, db);
    slg_tensor *psi = output(g, SLG_F64, 2, db->shape);
    slg_logits_grad grad = slg_grad_layer(NULL, db, dalpha);
    double penalty = 0;
    check(g, slg_ordinal_cross_entropy(g->ctx, &logits, &targets, NULL, &out, NULL, &grad));
    check(g, slg_ordinal_differences(g->ctx, SLG_ORDINAL_GRAD_PSI, db, dpsi));
    check(g, slg_ordinal_differences(g->ctx, SLG_ORDINAL_TO_PSI, &weight, psi));
    for (int64_t i = 0; i < m * p; i++) {
        const double v = tensor_get(psi, i);
        penalty += v < 0 ? -v : v;
    }
    change = transposed(db);
    expect_number(g, "loss", out.value), expect(g, "grad_alpha", dalpha);
    expect(g, "grad_B", &change), expect(g, "grad_psi", dpsi);
    expect_number(g, "penalty", penalty);
}

static void fit(run *g)
{
    slg_tensor *x = input(g, "X", SLG_F32), *labels = input(g, "labels", SLG_I32);
    const int64_t classes = (int64_t)scalar(g, "classes"), m = classes - 1, p = x->shape[1];
    slg_tensor *prob = output_for(g, "prob", SLG_F32), *alpha = output_for(g, "alpha", SLG_F32);
    slg_tensor *beta = output(g, SLG_F32, 2, (int64_t[]){ m, p }), back = transposed(beta);
    slg_tensor *psi = output(g, SLG_F64, 2, beta->shape),
               *same = output(g, SLG_I32, 2, beta->shape);
    slg_tensor *exact = output(g, SLG_F64, 2, beta->shape), *a = output(g, SLG_F64, 1, &m);
    slg_solver_report report = { .size = sizeof report };
    slg_ordinal_opts o;
    double most = 0;
    slg_ordinal_opts_init(&o, sizeof o);
    o.mix = scalar_or(g, "mix", 1), o.tolerance = 1e-13, o.max_sweeps = 2000;
    /* The file's lambda_max is that of a base that is penalised. */
    check(g, slg_ordinal_lambda_max(g->ctx, x, labels, classes, &o, &most));
    o.base_penalty = scalar_or(g, "base_penalty", 1);
    const double lambda = scalar(g, "lambda");
    check(g, slg_ordinal_fit(g->ctx, x, labels, classes, lambda, &o, alpha, beta, &report));
    check(g, slg_ordinal_fit(g->ctx, x, labels, classes, lambda, &o, a, exact, NULL));
    if (report.reason != SLG_SOLVER_DECREASE) fail(g, "reason %d", report.reason);
    check(g, slg_ordinal_predict(g->ctx, x, alpha, beta, SLG_ORDINAL_SIGNED, prob));
    for (int64_t i = 0; i < prob->shape[0] * classes; i++) { /* the file's is exp(log p) */
        float *v =
            (float *)prob->data + i / classes * prob->stride[0] + i % classes * prob->stride[1];
        if (*v < 0) *v = 0;
    }
    check(g, slg_ordinal_differences(g->ctx, SLG_ORDINAL_TO_PSI, exact, psi));
    for (int64_t l = 0; l < m; l++)
        for (int64_t j = 0; j < p; j++) {
            const double v = *((double *)psi->data + l * psi->stride[0] + j * psi->stride[1]);
            const bool zero = v < 1e-12 && v > -1e-12 && (l > 0 || o.base_penalty > 0);
            *((int32_t *)same->data + l * same->stride[0] + j * same->stride[1]) = zero;
        }
    expect_number(g, "lambda_max", most), expect_number(g, "objective", report.value);
    expect(g, "alpha", alpha), expect(g, "B", &back), expect(g, "prob", prob);
    expect(g, "zero_differences", same);
}

const adapter adapt_presto[] = {
    { "cumulative_logit", row_operation }, { "linear", linear }, { "fit", fit }, { NULL, NULL }
};
