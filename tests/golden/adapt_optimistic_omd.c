/* Optimistic mirror descent and Hedge: make_optimistic-omd.py says what each name means. */
#include <stdlib.h>
#include <string.h>

#include "golden/adapter.h"

static slg_learner *create(run *g, int32_t kind, int64_t d)
{
    slg_learner *l = NULL;
    slg_omd_opts omd;
    slg_hedge_opts hedge;
    slg_omd_opts_init(&omd, sizeof omd);
    slg_hedge_opts_init(&hedge, sizeof hedge);
    if (kind == SLG_HEDGE) {
        hedge.bound = scalar(g, "bound");
    } else {
        omd.domain = (int32_t)scalar(g, "domain");
        omd.mode = (int32_t)scalar(g, "mode");
        omd.lo = scalar_or(g, "lo", 0);
        omd.hi = omd.radius = scalar_or(g, "hi", 1);
        if (omd.domain != SLG_DOMAIN_BALL) omd.radius = 1;
        omd.numerator = scalar_or(g, "numerator", omd.numerator);
        omd.offset = scalar_or(g, "offset", 1); /* delta + 4 G^2 */
        omd.lambda = scalar_or(g, "lambda", 1);
        omd.eta = scalar_or(g, "eta", 1);
        omd.beta = scalar_or(g, "beta", 0);
        if (omd.mode == SLG_OMD_EXP_CONCAVE) omd.grad_bound = scalar_or(g, "grad_bound", 0);
    }
    check(g,
          slg_learner_create(g->ctx, kind, d, kind == SLG_HEDGE ? (void *)&hedge : &omd, &l));
    return l;
}

/* Into a new learner, by way of the state's bytes. */
static slg_learner *moved(run *g, slg_learner *from, int32_t kind, int64_t d)
{
    int64_t bytes = 0;
    slg_learner *to = create(g, kind, d);
    check(g, slg_learner_export(from, NULL, 0, &bytes));
    void *state = malloc((size_t)bytes);
    if (!state) fail(g, "out of memory");
    slg_status status = slg_learner_export(from, state, bytes, &bytes);
    if (status == SLG_OK) status = slg_learner_import(to, state, bytes);
    free(state);
    slg_learner_free(from);
    check(g, status);
    return to;
}

static slg_tensor row(const slg_tensor *t, int64_t r)
{
    slg_tensor v = { (char *)t->data + r * t->stride[0] * (t->dtype == SLG_F64 ? 8 : 4),
                     t->dtype,
                     1,
                     { t->shape[1], 1, 1, 1 },
                     { t->stride[1], 1, 1, 1 } };
    return v;
}

static double *at(const slg_tensor *t, int64_t i)
{
    return (double *)t->data + i * t->stride[0];
}

/* Rounds, with outputs of float32 or double; every third into a new learner. */
static void play(run *g, const char *label, int32_t dtype, bool move)
{
    variation(g, label);
    slg_tensor *gradients = input(g, "gradients", SLG_F32);
    slg_tensor *x = output_for(g, "x", dtype), *center = output_for(g, "x_hat", dtype);
    slg_tensor *eta = output_for(g, "eta", SLG_F64);
    const int64_t rounds = gradients->shape[0], d = gradients->shape[1];
    slg_learner *l = create(g, SLG_OMD, d);
    slg_learner_info_t info;
    slg_learner_info_init(&info, sizeof info);
    for (int64_t t = 0; t < rounds; t++) {
        slg_tensor xt = row(x, t), gt = row(gradients, t), ct = row(center, t);
        if (move && t % 3 == 1) l = moved(g, l, SLG_OMD, d);
        check(g, slg_learner_info(l, &info));
        *at(eta, t) = info.step;
        check(g, slg_learner_decide(l, NULL, &xt));
        check(g, slg_learner_observe(l, NULL, &gt));
        check(g, slg_learner_read(l, SLG_LEARNER_CENTER, &ct));
    }
    check(g, slg_learner_info(l, &info));
    slg_learner_free(l);
    expect(g, "x", x), expect(g, "x_hat", center), expect(g, "eta", eta);
    expect_number(g, "variation", info.variation);
}

static void plays(run *g)
{
    play(g, "float32", SLG_F32, false);
    play(g, "double", SLG_F64, false);
    play(g, "exported and imported", SLG_F32, true);
}

static void hedge(run *g)
{
    slg_tensor *losses = input(g, "losses", SLG_F32), *hints = input(g, "hints", SLG_F32);
    slg_tensor *p = output_for(g, "p", SLG_F32), *eps = output_for(g, "epsilon", SLG_F64);
    const int64_t rounds = losses->shape[0], n = losses->shape[1];
    slg_learner *l = create(g, SLG_HEDGE, n);
    slg_learner_info_t info;
    slg_learner_info_init(&info, sizeof info);
    for (int64_t t = 0; t < rounds; t++) {
        slg_tensor pt = row(p, t), lt = row(losses, t), mt = row(hints, t);
        if (t % 3 == 1) l = moved(g, l, SLG_HEDGE, n);
        check(g, slg_learner_info(l, &info));
        *at(eps, t) = info.step;
        check(g, slg_learner_decide(l, &mt, &pt));
        check(g, slg_learner_observe(l, &mt, &lt));
    }
    slg_learner_free(l);
    expect(g, "p", p), expect(g, "epsilon", eps);
}

const adapter adapt_optimistic_omd[] = { { "play", plays },
                                         { "hedge", hedge },
                                         { NULL, NULL } };
