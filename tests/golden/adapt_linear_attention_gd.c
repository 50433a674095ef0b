/* Linear attention and its in-context learner: make_linear-attention-gd.py says what each name
   means. */
#include "golden/adapter.h"

/* A tensor with axes of extent 1 before its own: one prompt, or one head. */
static slg_tensor one(const slg_tensor *t)
{
    slg_tensor v = { t->data, t->dtype, t->ndim + 1, { 1, 1, 1, 1 }, { 1, 1, 1, 1 } };
    for (int32_t i = 0; i < t->ndim; i++)
        v.shape[i + 1] = t->shape[i], v.stride[i + 1] = t->stride[i];
    return v;
}

static slg_tensor *one_or_null(const slg_tensor *t, slg_tensor *v)
{
    if (!t) return NULL;
    *v = one(t);
    return v;
}

/* The query's last coordinate is its label, which x, y and query cannot say. */
static bool label_is_zero(const slg_tensor *tokens)
{
    return tensor_get(tokens, tensor_size(tokens) - 1) == 0;
}

/* As x, y and query: views of the tokens. */
static void predict_parts(run *g, const slg_tensor *tokens, const slg_in_context_inputs *whole,
                          const slg_in_context_opts *o, const slg_tensor *dout)
{
    const int64_t n = tokens->shape[0] - 1, d = tokens->shape[1] - 1;
    slg_in_context_inputs in = *whole;
    slg_in_context_grad grad;
    slg_tensor x = one(tokens), y = one(tokens), q = one(tokens);
    x.shape[1] = n, x.shape[2] = d;
    y.ndim = 2, y.shape[1] = n;
    y.data = (char *)y.data + d * tokens->stride[1] * (int64_t)sizeof(float);
    q.ndim = 2, q.shape[1] = d, q.stride[1] = tokens->stride[1];
    q.data = (char *)q.data + n * tokens->stride[0] * (int64_t)sizeof(float);
    in.tokens = NULL, in.x = &x, in.y = &y, in.query = &q;
    slg_tensor *y_hat = output_for(g, "y", SLG_F32), *da = output_for(g, "da", SLG_F64),
               *dm = output_for(g, "dM", SLG_F64);
    variation(g, "x, y, query");
    check(g, slg_in_context(g->ctx, &in, o, y_hat));
    slg_in_context_grad_init(&grad, sizeof grad);
    grad.da = da, grad.dm = dm;
    check(g, slg_in_context_backward(g->ctx, &in, o, dout, &grad));
    expect(g, "y", y_hat);
    expect(g, "da", da);
    expect(g, "dM", dm);
}

static void predict(run *g)
{
    slg_in_context_inputs in;
    slg_in_context_opts o;
    slg_in_context_grad grad;
    slg_in_context_inputs_init(&in, sizeof in);
    slg_in_context_opts_init(&o, sizeof o);
    slg_in_context_grad_init(&grad, sizeof grad);
    o.normalise = (int32_t)scalar(g, "normalise");
    slg_tensor *tokens = input(g, "tokens", SLG_F32), *dtokens = output_like(g, tokens);
    slg_tensor v = one(tokens), dv = one(dtokens);
    in.tokens = &v, in.a = input(g, "a", SLG_F32), in.m = input(g, "M", SLG_F32);
    slg_tensor *y = output_for(g, "y", SLG_F32);
    check(g, slg_in_context(g->ctx, &in, &o, y));
    double ones = 1;
    slg_tensor dout = slg_tensor_1d(&ones, SLG_F64, 1);
    grad.da = output_for(g, "da", SLG_F32), grad.dm = output_for(g, "dM", SLG_F32);
    grad.dtokens = &dv;
    check(g, slg_in_context_backward(g->ctx, &in, &o, &dout, &grad));
    expect(g, "y", y);
    expect(g, "da", grad.da);
    expect(g, "dM", grad.dm);
    expect(g, "dtokens", dtokens);
    if (label_is_zero(tokens)) predict_parts(g, tokens, &in, &o, &dout);
}

static void causal_at(run *g, int32_t chunk, int32_t state_type)
{
    slg_linear_attention_opts o;
    slg_linear_attention_grad grad;
    slg_tensor v[10];
    slg_linear_attention_opts_init(&o, sizeof o);
    slg_linear_attention_grad_init(&grad, sizeof grad);
    o.form = scalar(g, "inclusive") != 0 ? SLG_LINEAR_INCLUSIVE : SLG_LINEAR_EXCLUSIVE;
    o.chunk = chunk;
    slg_tensor *q = one_or_null(input(g, "q", SLG_F32), &v[0]),
               *k = one_or_null(input(g, "k", SLG_F32), &v[1]),
               *val = one_or_null(input(g, "v", SLG_F32), &v[2]),
               *state = one_or_null(input_or_null(g, "state", state_type), &v[3]),
               *dout = one_or_null(input(g, "do", SLG_F32), &v[4]);
    slg_tensor *out = output_for(g, "o", SLG_F32),
               *last = output_for(g, "state_out", state_type),
               *dq = output_for(g, "dq", SLG_F32), *dk = output_for(g, "dk", SLG_F32),
               *dv = output_for(g, "dv", SLG_F32), *ds = output_for(g, "dstate", state_type);
    check(g, slg_linear_attention(g->ctx, q, k, val, state, &o, one_or_null(out, &v[5]),
                                  one_or_null(last, &v[6])));
    slg_tensor grads[4];
    grad.dq = one_or_null(dq, &grads[0]), grad.dk = one_or_null(dk, &grads[1]);
    grad.dv = one_or_null(dv, &grads[2]), grad.dstate = one_or_null(ds, &grads[3]);
    check(g, slg_linear_attention_backward(g->ctx, q, k, val, state, dout, NULL, &o, &grad));
    expect(g, "o", out);
    expect(g, "state_out", last);
    expect(g, "dq", dq);
    expect(g, "dk", dk);
    expect(g, "dv", dv);
    expect(g, "dstate", ds);
}

static void causal(run *g)
{
    variation(g, "chunks of 64");
    causal_at(g, 64, SLG_F32);
    variation(g, "chunks of 7, states in double");
    causal_at(g, 7, SLG_F64);
    variation(g, "chunks of 1");
    causal_at(g, 1, SLG_F32);
}

static void optimum(run *g)
{
    for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
        slg_in_context_optimum_out o;
        double risk;
        slg_in_context_optimum_out_init(&o, sizeof o);
        slg_tensor *sigma = input(g, "sigma", type), *lambda = input(g, "lambda", type),
                   *gamma = output_for(g, "gamma", type);
        const int64_t n = (int64_t)scalar(g, "n");
        const double noise = scalar(g, "noise");
        check(g, slg_in_context_optimum(g->ctx, sigma, lambda, 0, n, noise, gamma, &o));
        expect(g, "gamma", gamma);
        expect_number(g, "risk", o.risk);
        if (!gamma) continue;
        check(g, slg_in_context_risk(g->ctx, gamma, sigma, lambda, n, noise, &risk));
        expect_number(g, "risk", risk);
    }
}

static void step(run *g)
{
    for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
        slg_tensor x = one(input(g, "X", type)), y = one(input(g, "y", type)),
                   q = one(input(g, "x", type));
        slg_one_step_opts o;
        slg_ridge_opts r;
        slg_one_step_opts_init(&o, sizeof o);
        slg_ridge_opts_init(&r, sizeof r);
        o.eta = scalar(g, "eta"), r.lambda = scalar(g, "ridge");
        slg_tensor *plain = output_for(g, "gd", type),
                   *shaped = output_for(g, "preconditioned_gd", type),
                   *ridge = output_for(g, "ridge_prediction", type);
        check(g, slg_one_step(g->ctx, &x, &y, &q, NULL, &o, NULL, plain));
        check(g, slg_one_step(g->ctx, &x, &y, &q, input(g, "preconditioner", type), &o, NULL,
                              shaped));
        check(g, slg_ridge(g->ctx, &x, &y, &q, NULL, &r, NULL, ridge));
        expect(g, "gd", plain);
        expect(g, "preconditioned_gd", shaped);
        expect(g, "ridge_prediction", ridge);
    }
}

const adapter adapt_linear_attention_gd[] = {
    { "predict", predict }, { "causal", causal }, { "optimum", optimum },
    { "step", step },       { NULL, NULL },
};
