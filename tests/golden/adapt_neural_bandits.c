/* Inverse gap weighting: make_neural-bandits.py says what each name means. */
#include "golden/adapter.h"

static void igw(run *g)
{
    slg_inverse_gap_opts o;
    slg_inverse_gap_opts_init(&o, sizeof o);
    o.gamma = scalar(g, "gamma"), o.rule = (int32_t)scalar(g, "kind");
    slg_tensor *costs = input(g, "costs", SLG_F32), *u = input(g, "u", SLG_F32);
    slg_tensor *arm = output_for(g, "arm", SLG_I32);
    slg_tensor *p = output_over(g, costs);
    check(g, slg_inverse_gap(g->ctx, costs, u, &o, NULL, p, arm));
    expect(g, "p", p), expect(g, "arm", arm);
}

const adapter adapt_neural_bandits[] = { { "igw", igw }, { NULL, NULL } };
