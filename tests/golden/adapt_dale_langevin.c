/* Multiplicative diffusion, and the exponentiated gradient: make_dale-langevin.py says what
   each name means. */
#include "golden/adapter.h"

static slg_gbm process_of(run *g)
{
    slg_gbm p;
    slg_gbm_init(&p, sizeof p);
    p.mu = scalar(g, "mu"), p.sigma = scalar(g, "sigma");
    return p;
}

/* A vector of d times the scalar, for parameters by column. */
static slg_tensor *spread(run *g, int64_t d, double value)
{
    slg_tensor *v = output(g, SLG_F64, 1, &d);
    for (int64_t j = 0; j < d; j++) ((double *)v->data)[j * v->stride[0]] = value;
    return v;
}

/* The same process by columns. */
static slg_gbm by_columns(run *g, int64_t d)
{
    slg_gbm p = process_of(g);
    p.sigma_columns = spread(g, d, p.sigma), p.mu_columns = spread(g, d, p.mu);
    p.sigma = p.mu = 0;
    return p;
}

static void forward(run *g)
{
    slg_tensor *x0 = input(g, "x0", SLG_F32), *t = input(g, "t", SLG_F32);
    slg_tensor *z = input(g, "z", SLG_F32);
    slg_gbm p = by_columns(g, x0->shape[1]);
    slg_tensor *x = output_for(g, "x", SLG_F32);
    variation(g, "by columns");
    check(g, slg_gbm_forward(g->ctx, x0, t, z, NULL, &p, x, NULL, NULL, NULL));
    expect(g, "x", x);
    p = process_of(g);
    variation(g, "one process");
    x = output_over(g, x0);
    check(g, slg_gbm_forward(g->ctx, x0, t, z, NULL, &p, x, NULL, NULL, NULL));
    expect(g, "x", x);
}

static void mdsm(run *g)
{
    slg_tensor *x = input(g, "x", SLG_F32), *x0 = input(g, "x0", SLG_F32);
    slg_tensor *t = input(g, "t", SLG_F32), *h = input(g, "h", SLG_F32);
    slg_tensor *loss = output_for(g, "loss", SLG_F64);
    slg_tensor *dh = output_for(g, "grad_h", SLG_F32),
               *target = output_for(g, "target_h", SLG_F32);
    double mean = 0;
    for (int columns = 0; columns < 2; columns++) {
        slg_gbm p = columns ? by_columns(g, x->shape[1]) : process_of(g);
        variation(g, columns ? "by columns" : "one process");
        check(g, slg_mdsm(g->ctx, h, x, x0, NULL, t, &p, NULL, loss, &mean, dh));
        check(g, slg_gbm_target(g->ctx, x, x0, NULL, t, &p, target));
        expect(g, "loss", loss), expect_number(g, "loss_mean", mean), expect(g, "grad_h", dh);
        expect(g, "target_h", target);
    }
}

/* x, a step at a time; layer k of h and z. */
static slg_tensor layer(const slg_tensor *t, int64_t k)
{
    slg_tensor v = { (float *)t->data + k * t->stride[0],
                     SLG_F32,
                     2,
                     { t->shape[1], t->shape[2], 1, 1 },
                     { t->stride[1], t->stride[2], 1, 1 } };
    return v;
}

static void steps(run *g, slg_tensor *x, const slg_gbm *p, int32_t sampler)
{
    slg_tensor *h = input(g, "h", SLG_F32), *z = input(g, "z", SLG_F32);
    const int64_t count = (int64_t)scalar(g, "steps");
    slg_gbm_reverse_opts o;
    slg_gbm_reverse_opts_init(&o, sizeof o);
    o.sampler = sampler;
    o.delta = scalar(g, "delta"), o.anneal = scalar_or(g, "anneal", 1);
    for (int64_t k = 0; k < count; k++) {
        slg_tensor hk = layer(h, k), zk = layer(z, k);
        check(g, slg_gbm_reverse(g->ctx, x, &hk, &zk, NULL, p, &o, NULL));
    }
}

static void sampler(run *g)
{
    slg_gbm p = process_of(g);
    slg_tensor *x = input_output(g, "x", SLG_F32);
    variation(g, "one process");
    steps(g, x, &p, SLG_DALE_LANGEVIN);
    expect(g, "dale_langevin", x);
    x = input_output(g, "x", SLG_F32);
    steps(g, x, &p, SLG_GBM_UNCONSTRAINED);
    expect(g, "unconstrained", x);
    x = input_output(g, "x", SLG_F32);
    p = by_columns(g, x->shape[1]);
    variation(g, "by columns");
    steps(g, x, &p, SLG_DALE_LANGEVIN);
    expect(g, "dale_langevin", x);
}

static void nonnegative(run *g)
{
    slg_tensor *h = input(g, "h", SLG_F32), *e = input(g, "xdh", SLG_F32);
    slg_tensor *loss = output_for(g, "loss", SLG_F64);
    slg_tensor *dh = output_for(g, "grad_h", SLG_F32), *de = output_for(g, "grad_xdh", SLG_F32);
    check(g, slg_nonnegative_score_matching(g->ctx, h, e, SLG_MEAN, loss, NULL, dh, de));
    expect(g, "loss", loss), expect(g, "grad_h", dh), expect(g, "grad_xdh", de);
}

static void egd(run *g)
{
    contiguous(g);
    slg_tensor *w = input_output(g, "w", SLG_F32);
    slg_optimizer *o = NULL;
    slg_egd_opts opts;
    slg_egd_opts_init(&opts, sizeof opts);
    opts.lr = scalar(g, "eta"), opts.momentum = scalar_or(g, "momentum", opts.momentum);
    opts.floor = scalar_or(g, "floor", opts.floor), opts.cap = scalar_or(g, "cap", opts.cap);
    check(g, slg_optimizer_create(g->ctx, SLG_EGD, tensor_size(w), &opts, &o));
    slg_status status = slg_optimizer_step(o, w, input(g, "g", SLG_F32));
    slg_optimizer_free(o);
    check(g, status);
    expect(g, "w", w);
}

const adapter adapt_dale_langevin[] = { { "forward", forward }, { "mdsm", mdsm },
                                        { "sampler", sampler }, { "nonnegative", nonnegative },
                                        { "egd", egd },         { NULL, NULL } };
