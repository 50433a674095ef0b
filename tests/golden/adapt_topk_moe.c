/* Top-K gate and mixture of experts: make_topk-moe.py says what each name means. */
#include <math.h>
#include <stdio.h>

#include "golden/adapter.h"

/* dweight is dgate where chosen: the others' gradient is 0 whatever it is. */
static void gate(run *g)
{
    slg_tensor *score = input(g, "score", SLG_F32), *bias = input_or_null(g, "bias", SLG_F32);
    slg_tensor *noise = input_or_null(g, "noise", SLG_F32);
    const int64_t rows = score->shape[0], experts = score->shape[1];
    slg_moe_gate_opts o;
    slg_moe_gate_opts_init(&o, sizeof o);
    o.chosen = (int32_t)scalar(g, "K");
    const int64_t few[2] = { rows, o.chosen };
    slg_tensor *index = output(g, SLG_I32, 2, few), *weight = output(g, SLG_F32, 2, few);
    slg_tensor *dense = output_for(g, "gate", SLG_F32);
    check(g, slg_moe_gate(g->ctx, score, bias, noise, &o, index, weight, dense, NULL));
    expect(g, "selected", index);
    expect(g, "gate", dense);
    if (!has_input(g, "dgate")) return;
    slg_tensor *dgate = input(g, "dgate", SLG_F32), *dweight = output(g, SLG_F32, 2, few);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < o.chosen; j++) {
            const int64_t at = (int64_t)tensor_get(index, r * o.chosen + j);
            float *to =
                (float *)dweight->data + r * dweight->stride[0] + j * dweight->stride[1];
            *to = (float)tensor_get(dgate, r * experts + at);
        }
    slg_tensor *dscore = output_for(g, "dscore", SLG_F32);
    slg_tensor *dbias = output_for(g, "dbias", SLG_F32);
    slg_tensor *slopes = dscore ? dscore : output_like(g, score);
    check(g, slg_moe_gate_backward(g->ctx, index, weight, dweight, &o, slopes, dbias));
    expect(g, "dscore", dscore);
    expect(g, "dbias", dbias);
}

static slg_moe_mixture mixture_of(run *g, int32_t type)
{
    slg_moe_mixture m;
    slg_moe_mixture_init(&m, sizeof m);
    m.chosen = (int32_t)scalar(g, "K");
    m.beta1 = input(g, "beta1", type), m.beta0 = input(g, "beta0", type);
    m.a = input(g, "a", type), m.b = input(g, "b", type);
    m.log_variance = input(g, "log_variance", type);
    return m;
}

/* Responsibilities are given for those chosen: the vectors have them for all. */
static void density(run *g)
{
    for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
        slg_moe_mixture m = mixture_of(g, type);
        slg_tensor *x = input(g, "X", type);
        const int64_t rows = x->shape[0], experts = m.beta1->shape[0];
        const int64_t few[2] = { rows, m.chosen }, all[2] = { rows, experts };
        slg_moe_density_out o;
        slg_moe_density_out_init(&o, sizeof o);
        o.loglik = output_for(g, "loglik", type), o.index = output(g, SLG_I32, 2, few);
        o.responsibility = output(g, type, 2, few);
        o.dbeta1 = output_for(g, "dbeta1", type), o.dbeta0 = output_for(g, "dbeta0", type);
        o.da = output_for(g, "da", type), o.db = output_for(g, "db", type);
        o.dlog_variance = output_for(g, "dlog_variance", type);
        check(g, slg_moe_density(g->ctx, x, input(g, "Y", type), &m, &o));
        slg_tensor *dense = output_zero(g, SLG_F64, 2, all);
        for (int64_t i = 0; i < rows * m.chosen; i++) {
            const int64_t r = i / m.chosen, at = (int64_t)tensor_get(o.index, i);
            double *to = (double *)dense->data + r * dense->stride[0] + at * dense->stride[1];
            *to = tensor_get(o.responsibility, i);
        }
        expect(g, "loglik", o.loglik);
        expect(g, "responsibility", dense);
        expect_number(g, "nll", o.nll);
        expect(g, "dbeta1", o.dbeta1);
        expect(g, "dbeta0", o.dbeta0);
        expect(g, "da", o.da);
        expect(g, "db", o.db);
        expect(g, "dlog_variance", o.dlog_variance);
    }
}

static void em_experts(run *g)
{
    slg_moe_em_opts o;
    slg_moe_em_opts_init(&o, sizeof o);
    o.variance_floor = scalar_or(g, "variance_floor", o.variance_floor);
    slg_tensor *x = input(g, "X", SLG_F64), *r = input(g, "responsibility", SLG_F64);
    const int64_t k = r->shape[1], a_shape[2] = { k, x->shape[1] };
    slg_tensor *a = output(g, SLG_F64, 2, a_shape), *b = output(g, SLG_F64, 1, &k);
    slg_tensor *variance = output(g, SLG_F64, 1, &k);
    check(g, slg_moe_experts(g->ctx, x, input(g, "Y", SLG_F64), r, &o, a, b, variance, NULL));
    expect(g, "a", a);
    expect(g, "b", b);
    expect(g, "variance", variance);
}

/* PREFIX.variance as its logarithm. */
static slg_moe_mixture side_of(run *g, const char *prefix)
{
    static const char *const names[] = { "beta1", "beta0", "a", "b", "variance" };
    slg_tensor *t[5];
    slg_moe_mixture m;
    slg_moe_mixture_init(&m, sizeof m);
    for (int i = 0; i < 5; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s", prefix, names[i]);
        t[i] = input(g, name, SLG_F64);
    }
    slg_tensor *log_v = output_like(g, t[4]);
    for (int64_t i = 0; i < t[4]->shape[0]; i++)
        ((double *)log_v->data)[i * log_v->stride[0]] = log(tensor_get(t[4], i));
    m.chosen = 1; /* options say how many */
    m.beta1 = t[0], m.beta0 = t[1], m.a = t[2], m.b = t[3], m.log_variance = log_v;
    return m;
}

static void voronoi(run *g)
{
    const slg_moe_mixture fit = side_of(g, "fit"), truth = side_of(g, "true");
    slg_moe_voronoi_opts o;
    slg_moe_voronoi_opts_init(&o, sizeof o);
    o.chosen = (int32_t)scalar(g, "K");
    o.over_specified = (int32_t)scalar_or(g, "over_specified", 0);
    slg_tensor *cell = output_for(g, "cell", SLG_I32);
    slg_tensor *losses = output_for(g, "cell_loss", SLG_F64);
    double loss = 0;
    check(g, slg_moe_voronoi(g->ctx, &fit, &truth, &o, cell, losses, &loss));
    expect(g, "cell", cell);
    expect(g, "cell_loss", losses);
    expect_number(g, "loss", loss);
}

const adapter adapt_topk_moe[] = {
    { "gate", gate },       { "density", density }, { "em_experts", em_experts },
    { "voronoi", voronoi }, { NULL, NULL },
};
