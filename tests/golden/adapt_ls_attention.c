/* Attention with a window a head: make_ls-attention.py says what each name means. */
#include "golden/adapter.h"

/* Both passes; q, k and their gradients are those of the operation. */
typedef struct pass {
    slg_attention_inputs in;
    slg_attention_opts opts;
    slg_attention_out out;
    slg_attention_grad grad;
} pass;

static void pass_init(run *g, pass *p)
{
    slg_attention_inputs_init(&p->in, sizeof p->in);
    slg_attention_opts_init(&p->opts, sizeof p->opts);
    slg_attention_out_init(&p->out, sizeof p->out);
    slg_attention_grad_init(&p->grad, sizeof p->grad);
    p->in.v = input(g, "v", SLG_F32);
    p->in.window = input(g, "window", SLG_I32);
    p->in.key_valid = input_or_null(g, "key_valid", SLG_I32);
    p->opts.causal = (int32_t)scalar_or(g, "causal", 1);
    p->out.o = output_for(g, "o", SLG_F32);
    p->out.lse = output_for(g, "lse", SLG_F32);
    p->out.max_logit = output_for(g, "max_abs_logit", SLG_F32);
    p->grad.dv = output_for(g, "dv", SLG_F32);
}

static void pass_run(run *g, pass *p)
{
    check(g, slg_attention(g->ctx, &p->in, &p->opts, &p->out));
    expect(g, "o", p->out.o);
    expect(g, "lse", p->out.lse);
    expect(g, "max_abs_logit", p->out.max_logit);
    check(g, slg_attention_backward(g->ctx, &p->in, &p->opts, &p->out, input(g, "do", SLG_F32),
                                    &p->grad));
    expect(g, "dv", p->grad.dv);
}

static void attention(run *g)
{
    pass p;
    int64_t position = (int64_t)scalar_or(g, "query_offset", 0);
    const slg_tensor first = slg_tensor_1d(&position, SLG_I64, 1);
    pass_init(g, &p);
    p.in.q = input(g, "q", SLG_F32);
    p.in.k = input(g, "k", SLG_F32);
    p.in.query_position = &first;
    p.opts.scale = scalar(g, "scale");
    p.grad.dq = output_for(g, "dq", SLG_F32);
    p.grad.dk = output_for(g, "dk", SLG_F32);
    pass_run(g, &p);
    expect(g, "dq", p.grad.dq);
    expect(g, "dk", p.grad.dk);
}

static void qk_norm(run *g)
{
    pass p;
    slg_qk_norm_opts o;
    float scale = (float)scalar(g, "scale");
    const slg_tensor learned = slg_tensor_1d(&scale, SLG_F32, 1);
    slg_tensor *q = input(g, "q", SLG_F32), *k = input(g, "k", SLG_F32);
    slg_tensor *nq = output_like(g, q), *nk = output_like(g, k);
    slg_tensor *dq = output_for(g, "dq", SLG_F32), *dk = output_for(g, "dk", SLG_F32);
    slg_qk_norm_opts_init(&o, sizeof o);
    o.eps = scalar(g, "eps");
    pass_init(g, &p);
    check(g, slg_qk_norm(g->ctx, q, NULL, &o, nq));
    check(g, slg_qk_norm(g->ctx, k, NULL, &o, nk));
    p.in.q = nq;
    p.in.k = nk;
    p.in.scale = &learned;
    p.grad.dq = output_like(g, q);
    p.grad.dk = output_like(g, k);
    p.grad.dscale = output_for(g, "dscale", SLG_F32);
    pass_run(g, &p);
    expect(g, "dscale", p.grad.dscale);
    check(g, slg_qk_norm_backward(g->ctx, q, NULL, &o, p.grad.dq, dq, NULL));
    check(g, slg_qk_norm_backward(g->ctx, k, NULL, &o, p.grad.dk, dk, NULL));
    expect(g, "dq", dq);
    expect(g, "dk", dk);
}

/* Tokens [from, from + n) of [heads, tokens, dim]. */
static slg_tensor part_of(const slg_tensor *t, int64_t from, int64_t n)
{
    slg_tensor v = *t;
    v.data = (float *)t->data + from * t->stride[1];
    v.shape[1] = n;
    return v;
}

/* A prefill, then a token at a time. */
static void decode(run *g)
{
    const slg_tensor *q = input(g, "q", SLG_F32), *k = input(g, "k", SLG_F32);
    const slg_tensor *v = input(g, "v", SLG_F32);
    const slg_tensor *o = output_for(g, "o", SLG_F32), *lse = output_for(g, "lse", SLG_F32);
    const int64_t prefill = (int64_t)scalar(g, "prefill"), tokens = q->shape[1];
    slg_attention_cache *cache;
    slg_attention_cache_opts c;
    slg_attention_inputs in;
    slg_attention_opts opts;
    slg_attention_out out;
    slg_attention_cache_opts_init(&c, sizeof c);
    slg_attention_inputs_init(&in, sizeof in);
    slg_attention_opts_init(&opts, sizeof opts);
    slg_attention_out_init(&out, sizeof out);
    c.heads = (int32_t)q->shape[0], c.key_heads = (int32_t)k->shape[0];
    c.dim = (int32_t)k->shape[2], c.value_dim = (int32_t)v->shape[2];
    c.window = input(g, "window", SLG_I32);
    opts.scale = scalar(g, "scale");
    check(g, slg_attention_cache_create(g->ctx, &c, &cache));
    for (int64_t i = 0, n; i < tokens; i += n) {
        n = i < prefill ? prefill : 1;
        const slg_tensor nk = part_of(k, i, n), nv = part_of(v, i, n), nq = part_of(q, i, n);
        slg_tensor no, nl;
        check(g, slg_attention_cache_append(cache, &nk, &nv));
        if (i < prefill) continue;
        no = part_of(o, i - prefill, 1), nl = part_of(lse, i - prefill, 1);
        in.q = &nq, out.o = &no, out.lse = &nl;
        check(g, slg_attention_decode(cache, &in, &opts, &out));
    }
    slg_attention_cache_free(cache);
    expect(g, "o", o);
    expect(g, "lse", lse);
}

const adapter adapt_ls_attention[] = { { "attention", attention },
                                       { "decode", decode },
                                       { "qk_norm", qk_norm },
                                       { NULL, NULL } };
