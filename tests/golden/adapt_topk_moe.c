/* Top-K gate and mixture of experts: make_topk-moe.py says what each name means. */
#include <math.h>

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

const adapter adapt_topk_moe[] = {
    { "gate", gate },
    { NULL, NULL },
};
