/* Linear attention, its gradients and its step, against the recurrence in double. */
#include "loss/loss_test.h"
#include "support/gradcheck.h"

typedef struct shape {
    int64_t heads, tokens, d, e;
    int32_t form, chunk;
    bool state;
} shape;

/* A call, contiguous, in double and as the library takes it. */
typedef struct call {
    shape s;
    double *q, *k, *v, *state, *dout, *dlast;     /* what the types hold */
    double *o, *last, *dq, *dk, *dv, *dstate;     /* the reference */
    double *o_size, *dq_size, *dk_size, *dv_size; /* sums of magnitudes */
    double *last_size, *ds_size;
} call;

static double *doubles(int64_t n) { return zeros(n, sizeof(double)); }

static double *randoms(int64_t n, int32_t type)
{
    double *x = doubles(n);
    for (int64_t i = 0; i < n; i++) x[i] = as_dtype(type, normal());
    return x;
}

static bool sees(int32_t form, int64_t t, int64_t s)
{
    return form == SLG_LINEAR_FULL || (form == SLG_LINEAR_INCLUSIVE ? s <= t : s < t);
}

/* A sum, and that of magnitudes. */
static void add_to(double *const to[2], int64_t i, double x)
{
    to[0][i] += x, to[1][i] += fabs(x);
}

/* o_t = S0' q_t + sum (q_t . k_s) v_s, and each gradient, pair by pair. */
static void reference_head(call *c, int64_t h)
{
    const int64_t n = c->s.tokens, d = c->s.d, e = c->s.e;
    const double *q = c->q + h * n * d, *k = c->k + h * n * d, *v = c->v + h * n * e;
    const double *g = c->dout + h * n * e, *s0 = c->state + h * d * e,
                 *gl = c->dlast + h * d * e;
    double *o[2] = { c->o + h * n * e, c->o_size + h * n * e };
    double *dq[2] = { c->dq + h * n * d, c->dq_size + h * n * d };
    double *dk[2] = { c->dk + h * n * d, c->dk_size + h * n * d };
    double *dv[2] = { c->dv + h * n * e, c->dv_size + h * n * e };
    double *last[2] = { c->last + h * d * e, c->last_size + h * d * e };
    double *ds[2] = { c->dstate + h * d * e, c->ds_size + h * d * e };
    for (int64_t i = 0; i < d * e; i++) add_to(last, i, s0[i]), add_to(ds, i, gl[i]);
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < d; i++)
            for (int64_t j = 0; j < e; j++) {
                add_to(last, i * e + j, k[t * d + i] * v[t * e + j]);
                add_to(ds, i * e + j, q[t * d + i] * g[t * e + j]);
                add_to(o, t * e + j, s0[i * e + j] * q[t * d + i]);
                add_to(dq, t * d + i, s0[i * e + j] * g[t * e + j]);
                add_to(dk, t * d + i, gl[i * e + j] * v[t * e + j]);
                add_to(dv, t * e + j, gl[i * e + j] * k[t * d + i]);
            }
    for (int64_t t = 0; t < n; t++)
        for (int64_t s = 0; s < n; s++) {
            double qk = 0, gv = 0, qk_size = 0, gv_size = 0;
            if (!sees(c->s.form, t, s)) continue;
            for (int64_t i = 0; i < d; i++)
                qk += q[t * d + i] * k[s * d + i], qk_size += fabs(q[t * d + i] * k[s * d + i]);
            for (int64_t j = 0; j < e; j++)
                gv += g[t * e + j] * v[s * e + j], gv_size += fabs(g[t * e + j] * v[s * e + j]);
            for (int64_t j = 0; j < e; j++) {
                o[0][t * e + j] += qk * v[s * e + j];
                o[1][t * e + j] += qk_size * fabs(v[s * e + j]);
                dv[0][s * e + j] += qk * g[t * e + j];
                dv[1][s * e + j] += qk_size * fabs(g[t * e + j]);
            }
            for (int64_t i = 0; i < d; i++) {
                dq[0][t * d + i] += gv * k[s * d + i];
                dq[1][t * d + i] += gv_size * fabs(k[s * d + i]);
                dk[0][s * d + i] += gv * q[t * d + i];
                dk[1][s * d + i] += gv_size * fabs(q[t * d + i]);
            }
        }
}

static call call_new(shape s, int32_t type)
{
    const int64_t qk = s.heads * s.tokens * s.d, v = s.heads * s.tokens * s.e,
                  state = s.heads * s.d * s.e;
    call c = { .s = s };
    c.q = randoms(qk, type), c.k = randoms(qk, type), c.v = randoms(v, type);
    c.dout = randoms(v, type);
    c.state = s.state ? randoms(state, SLG_F32) : doubles(state);
    c.dlast = s.state ? randoms(state, SLG_F32) : doubles(state);
    double **const out[] = { &c.o,  &c.o_size,  &c.dv,     &c.dv_size, &c.dq,   &c.dq_size,
                             &c.dk, &c.dk_size, &c.dstate, &c.ds_size, &c.last, &c.last_size };
    for (int i = 0; i < 12; i++) *out[i] = doubles(i < 4 ? v : i < 8 ? qk : state);
    for (int64_t h = 0; h < s.heads; h++) reference_head(&c, h);
    return c;
}

static void call_free(call *c)
{
    free(c->q), free(c->k), free(c->v), free(c->state), free(c->dout), free(c->dlast);
    free(c->o), free(c->last), free(c->dq), free(c->dk), free(c->dv), free(c->dstate);
    free(c->o_size), free(c->dq_size), free(c->dk_size), free(c->dv_size);
    free(c->last_size), free(c->ds_size);
}

/* A matrix [heads * rows, cols] seen as [heads, rows, cols]. */
static slg_tensor folded(const tensor *m, int64_t heads)
{
    const int64_t rows = heads ? m->t.shape[0] / heads : 0;
    slg_tensor t = { m->t.data, m->t.dtype, 3, { heads, rows, m->t.shape[1], 1 }, { 0 } };
    t.stride[0] = rows * m->t.stride[0], t.stride[1] = m->t.stride[0];
    t.stride[2] = m->t.stride[1];
    return t;
}

enum { Q, K, V, STATE, DOUT, DLAST, O, LAST, DQ, DK, DV, DSTATE, ALL };

typedef struct operand {
    tensor m[ALL];
    slg_tensor t[ALL];
    slg_linear_attention_opts opts;
    slg_linear_attention_grad grad;
} operand;

static void fill_from(tensor *m, const double *x)
{
    for (int64_t i = 0; i < m->t.shape[0]; i++)
        for (int64_t j = 0; j < m->t.shape[1]; j++) put(m, i, j, x[i * m->t.shape[1] + j]);
}

static void operand_open(operand *p, const call *c, int32_t type, int32_t state_type,
                         enum layout layout)
{
    const shape *s = &c->s;
    const double *const from[ALL] = { c->q, c->k, c->v, c->state, c->dout, c->dlast };
    memset(p, 0, sizeof *p);
    for (int i = 0; i < ALL; i++) {
        const bool is_state = i == STATE || i == DLAST || i == LAST || i == DSTATE;
        const bool values = i == V || i == DOUT || i == O || i == DV;
        p->m[i] = matrix(is_state ? state_type : type, s->heads * (is_state ? s->d : s->tokens),
                         is_state || values ? s->e : s->d, layout);
        if (from[i]) fill_from(&p->m[i], from[i]);
        p->t[i] = folded(&p->m[i], s->heads);
    }
    slg_linear_attention_opts_init(&p->opts, sizeof p->opts);
    slg_linear_attention_grad_init(&p->grad, sizeof p->grad);
    p->opts.form = s->form, p->opts.chunk = s->chunk;
    p->grad.dq = &p->t[DQ], p->grad.dk = &p->t[DK], p->grad.dv = &p->t[DV];
    p->grad.dstate = &p->t[DSTATE];
}

static void operand_free(operand *p)
{
    for (int i = 0; i < ALL; i++) release(&p->m[i]);
}

static void run_both(slg_ctx *ctx, operand *p, bool state)
{
    const slg_tensor *s = state ? &p->t[STATE] : NULL, *g = state ? &p->t[DLAST] : NULL;
    OK(ctx, slg_linear_attention(ctx, &p->t[Q], &p->t[K], &p->t[V], s, &p->opts, &p->t[O],
                                 &p->t[LAST]));
    OK(ctx, slg_linear_attention_backward(ctx, &p->t[Q], &p->t[K], &p->t[V], s, &p->t[DOUT], g,
                                          &p->opts, &p->grad));
}

static void check_one(const char *what, const tensor *m, const double *want, const double *size)
{
    double most = 0;
    const int64_t cols = m->t.shape[1];
    for (int64_t i = 0; i < m->t.shape[0]; i++)
        for (int64_t j = 0; j < cols; j++) {
            const double w = want[i * cols + j], z = size[i * cols + j];
            compare(what, i, j, get(m, i, j), w, 1e-6 * z + rounding(m->t.dtype, w) + 1e-30,
                    &most);
        }
}

static void check_all(const call *c, const operand *p)
{
    check_one("o", &p->m[O], c->o, c->o_size);
    check_one("state_out", &p->m[LAST], c->last, c->last_size);
    check_one("dq", &p->m[DQ], c->dq, c->dq_size);
    check_one("dk", &p->m[DK], c->dk, c->dk_size);
    check_one("dv", &p->m[DV], c->dv, c->dv_size);
    check_one("dstate", &p->m[DSTATE], c->dstate, c->ds_size);
}

/* Chunks of 1, 7, 64 and all tokens give the same; segments too (few heads, many tokens). */
static const shape shapes[] = {
    { 2, 33, 5, 3, SLG_LINEAR_INCLUSIVE, 64, true },
    { 1, 1, 3, 2, SLG_LINEAR_INCLUSIVE, 64, false },
    { 3, 70, 17, 16, SLG_LINEAR_EXCLUSIVE, 7, true },
    { 2, 70, 4, 33, SLG_LINEAR_FULL, 64, true },
    { 1, 150, 8, 8, SLG_LINEAR_INCLUSIVE, 150, false },
    { 9, 65, 8, 8, SLG_LINEAR_EXCLUSIVE, 64, false },
    { 1, 20, 1, 1, SLG_LINEAR_INCLUSIVE, 1, true },
    { 2, 1100, 6, 4, SLG_LINEAR_INCLUSIVE, 64, true },
    { 1, 1100, 3, 5, SLG_LINEAR_EXCLUSIVE, 48, true },
    { 1, 1100, 3, 5, SLG_LINEAR_FULL, 64, false },
    { 2, 64, 64, 64, SLG_LINEAR_INCLUSIVE, 64, true },
    { 2, 5, 0, 3, SLG_LINEAR_INCLUSIVE, 64, false },
};

static void test_values(void **state)
{
    (void)state;
    for (int64_t i = 0; i < COUNT(shapes); i++) {
        call c = call_new(shapes[i], SLG_F32);
        FOR_EACH_ISA(ctx, 2)
        {
            static const int32_t chunks[] = { 0, 1, 7, 64, 4096 };
            for (int64_t k = 0; k < COUNT(chunks); k++) {
                operand p;
                operand_open(&p, &c, SLG_F32, k % 2 ? SLG_F32 : SLG_F64,
                             k == 2   ? UPSIDE_DOWN
                             : k == 3 ? COL_GAPS
                                      : CONTIGUOUS);
                if (chunks[k]) p.opts.chunk = chunks[k];
                run_both(ctx, &p, shapes[i].state);
                check_all(&c, &p);
                for (int j = O; j < ALL; j++) assert_gaps_intact(&p.m[j]);
                operand_free(&p);
            }
        }
        call_free(&c);
    }
}

static void test_types(void **state)
{
    (void)state;
    static const int32_t types[] = { SLG_BF16, SLG_F16 };
    const shape s = { 3, 70, 9, 6, SLG_LINEAR_INCLUSIVE, 64, true };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int64_t i = 0; i < COUNT(types); i++) {
        call c = call_new(s, types[i]);
        operand p;
        operand_open(&p, &c, types[i], SLG_F32, COL_GAPS);
        run_both(ctx, &p, true);
        check_all(&c, &p);
        operand_free(&p), call_free(&c);
    }
    slg_ctx_free(ctx);
}

static void test_threads(void **state)
{
    (void)state;
    for (int64_t i = 0; i < COUNT(shapes); i++) {
        call c = call_new(shapes[i], SLG_F32);
        uint64_t first[ALL] = { 0 };
        for (int32_t threads = 1; threads <= 8; threads += threads < 3 ? 1 : 5) {
            slg_ctx *ctx = context(SLG_ISA_AUTO, threads);
            operand p;
            operand_open(&p, &c, SLG_F32, SLG_F32, CONTIGUOUS);
            run_both(ctx, &p, shapes[i].state);
            for (int j = O; j < ALL; j++) {
                uint64_t sum = 14695981039346656037u;
                for (size_t b = 0; b < p.m[j].bytes; b++)
                    sum = (sum ^ (uint8_t)p.m[j].memory[b]) * 1099511628211u;
                if (threads == 1) first[j] = sum;
                assert_true(sum == first[j]);
            }
            operand_free(&p), slg_ctx_free(ctx);
        }
        call_free(&c);
    }
}

/* A view of tokens [from, to). */
static slg_tensor tokens_of(const slg_tensor *t, int64_t from, int64_t to)
{
    slg_tensor v = *t;
    v.data = (char *)v.data + from * t->stride[1] * (int64_t)item_size(t->dtype);
    v.shape[1] = to - from;
    return v;
}

/* The state of one part is where the next begins; in place; and token by token. */
static void test_parts(void **state)
{
    (void)state;
    const shape s = { 2, 130, 12, 10, 0, 64, true };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    for (int32_t form = 0; form < 2; form++)
        for (int32_t type = SLG_F32; type <= SLG_F64; type += SLG_F64 - SLG_F32) {
            shape own = s;
            own.form = form;
            call c = call_new(own, SLG_F32);
            operand p;
            operand_open(&p, &c, SLG_F32, type, CONTIGUOUS);
            const int64_t cuts[] = { 0, 50, 51, 51, 130 };
            slg_tensor *st = &p.t[STATE];
            for (int i = 0; i < 4; i++) {
                slg_tensor v[4];
                for (int j = 0; j < 4; j++)
                    v[j] = tokens_of(&p.t[j == 3 ? O : j], cuts[i], cuts[i + 1]);
                OK(ctx, slg_linear_attention(ctx, &v[Q], &v[K], &v[V], st, &p.opts, &v[3], st));
            }
            check_one("o", &p.m[O], c.o, c.o_size);
            check_one("state", &p.m[STATE], c.last, c.last_size);
            fill_from(&p.m[STATE], c.state);
            for (int64_t t = 0; t < s.tokens; t++) {
                slg_tensor v[4];
                for (int j = 0; j < 4; j++) {
                    v[j] = tokens_of(&p.t[j == 3 ? O : j], t, t + 1);
                    v[j].ndim = 2, v[j].shape[1] = v[j].shape[2], v[j].stride[1] = 1;
                }
                OK(ctx,
                   slg_linear_attention_step(ctx, &v[Q], &v[K], &v[V], &p.opts, st, &v[3]));
            }
            for (int64_t i = 0; i < 2 * s.tokens * s.e; i++) c.o_size[i] *= 4;
            for (int64_t i = 0; i < 2 * s.d * s.e; i++) c.last_size[i] *= 4;
            check_one("o of steps", &p.m[O], c.o, c.o_size);
            check_one("state of steps", &p.m[STATE], c.last, c.last_size);
            operand_free(&p), call_free(&c);
        }
    slg_ctx_free(ctx);
}

/* Inclusive at the last token, and full, are the same; so is S_T' q. */
static void test_limits(void **state)
{
    (void)state;
    const shape s = { 2, 90, 6, 5, SLG_LINEAR_INCLUSIVE, 64, true };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    call c = call_new(s, SLG_F32);
    operand p, all;
    operand_open(&p, &c, SLG_F32, SLG_F64, CONTIGUOUS);
    operand_open(&all, &c, SLG_F32, SLG_F64, CONTIGUOUS);
    all.opts.form = SLG_LINEAR_FULL;
    run_both(ctx, &p, true), run_both(ctx, &all, true);
    for (int64_t h = 0; h < 2; h++)
        for (int64_t j = 0; j < s.e; j++) {
            const int64_t r = (h + 1) * s.tokens - 1;
            double sum = 0;
            for (int64_t i = 0; i < s.d; i++)
                sum += get(&p.m[LAST], h * s.d + i, j) * c.q[r * s.d + i];
            assert_true(fabs(get(&p.m[O], r, j) - get(&all.m[O], r, j)) < 1e-4);
            assert_true(fabs(get(&p.m[O], r, j) - sum) < 1e-4);
        }
    operand_free(&p), operand_free(&all), call_free(&c);
    slg_ctx_free(ctx);
}

/* o_1 of the exclusive form is S_0' q_1; no tokens: the state stays; NULL operands. */
static void test_edges(void **state)
{
    (void)state;
    const shape s = { 2, 3, 4, 3, SLG_LINEAR_EXCLUSIVE, 64, true };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    call c = call_new(s, SLG_F32);
    operand p;
    operand_open(&p, &c, SLG_F32, SLG_F32, CONTIGUOUS);
    run_both(ctx, &p, true);
    for (int64_t j = 0; j < s.e; j++) {
        double sum = 0;
        for (int64_t i = 0; i < s.d; i++) sum += c.state[i * s.e + j] * c.q[i];
        assert_true(fabs(get(&p.m[O], 0, j) - sum) < 1e-5);
    }
    for (int32_t form = 0; form < 3; form++) {
        slg_tensor v[5];
        slg_linear_attention_grad g = p.grad;
        slg_tensor none[3];
        p.opts.form = form;
        for (int i = 0; i < 5; i++) v[i] = tokens_of(&p.t[i == 3 ? O : i], 0, 0);
        for (int i = 0; i < 3; i++) none[i] = tokens_of(&p.t[DQ + i], 0, 0);
        g.dq = &none[0], g.dk = &none[1], g.dv = &none[2];
        OK(ctx, slg_linear_attention(ctx, &v[Q], &v[K], &v[V], &p.t[STATE], &p.opts, &v[3],
                                     &p.t[LAST]));
        OK(ctx, slg_linear_attention_backward(ctx, &v[Q], &v[K], &v[V], &p.t[STATE], &v[DOUT],
                                              &p.t[DLAST], &p.opts, &g));
        for (int64_t i = 0; i < 2 * s.d; i++)
            for (int64_t j = 0; j < s.e; j++) {
                assert_true(get(&p.m[LAST], i, j) == c.state[i * s.e + j]);
                assert_true(get(&p.m[DSTATE], i, j) == c.dlast[i * s.e + j]);
            }
        OK(ctx,
           slg_linear_attention(ctx, &v[Q], &v[K], &v[V], NULL, &p.opts, NULL, &p.t[LAST]));
        for (int64_t j = 0; j < s.e; j++) assert_true(get(&p.m[LAST], 0, j) == 0);
    }
    for (int i = 0; i < ALL; i++) p.t[i].shape[0] = 0; /* no heads */
    run_both(ctx, &p, true);
    operand_free(&p), call_free(&c);
    slg_ctx_free(ctx);
}

/* A NaN in one token reaches those that see it, and no other head. */
static void test_nan(void **state)
{
    (void)state;
    const int64_t bad = 40;
    for (int32_t form = 0; form < 2; form++)
        for (int which = Q; which <= DOUT; which++) {
            const shape s = { 2, 100, 5, 4, form, 64, true };
            if (which == STATE) continue;
            slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
            call c = call_new(s, SLG_F32);
            operand p;
            operand_open(&p, &c, SLG_F32, SLG_F32, CONTIGUOUS);
            for (int64_t j = 0; j < p.m[which].t.shape[1]; j++) put(&p.m[which], bad, j, NAN);
            run_both(ctx, &p, true);
            for (int64_t t = 0; t < 2 * s.tokens; t++) {
                const bool own = t == bad, head = t < s.tokens;
                const bool later = head && sees(form, t, bad),
                           before = head && sees(form, bad, t);
                const bool kv = which == K || which == V;
                const bool o = which == Q ? own : kv ? later : false;
                const bool dq = which == DOUT ? own : kv ? later : false;
                const bool dk = which == V ? own || false : which == K ? false : before;
                const bool dv = which == K ? own : which == V ? false : before;
                assert_true(isnan(get(&p.m[O], t, 0)) == o);
                assert_true(isnan(get(&p.m[DQ], t, 0)) == dq);
                assert_true(isnan(get(&p.m[DK], t, 0)) == dk);
                assert_true(isnan(get(&p.m[DV], t, 0)) == dv);
            }
            operand_free(&p), call_free(&c);
            slg_ctx_free(ctx);
        }
}

/* A long sequence of numbers of one sign loses no more than a chunk does. */
static void test_long(void **state)
{
    (void)state;
    enum { T = 100000 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    float *x = zeros(3 * T, sizeof *x), *all = zeros(T, sizeof *all);
    double last, want = 0;
    for (int64_t i = 0; i < T; i++) {
        x[i] = 1, x[T + i] = (float)uniform(), x[2 * T + i] = (float)uniform();
        want += (double)x[T + i] * (double)x[2 * T + i];
    }
    slg_tensor q = { x, SLG_F32, 3, { 1, T, 1, 1 }, { T, 1, 1, 1 } }, k = q, v = q, out = q;
    k.data = x + T, v.data = x + 2 * T, out.data = all;
    slg_tensor st = { &last, SLG_F64, 3, { 1, 1, 1, 1 }, { 1, 1, 1, 1 } };
    OK(ctx, slg_linear_attention(ctx, &q, &k, &v, NULL, NULL, &out, &st));
    assert_true(fabs(last / want - 1) < 1e-7);
    assert_true(fabs((double)all[T - 1] / want - 1) < 3e-7);
    free(x), free(all), slg_ctx_free(ctx);
}

/* ---- Finite differences ------------------------------------------------------------------ */

typedef struct probe {
    slg_ctx *ctx;
    operand *p;
    const call *c;
    int which;
} probe;

static double value(const float *x, void *arg)
{
    probe *b = arg;
    operand *p = b->p;
    double sum = 0;
    for (int64_t i = 0; i < b->p->m[b->which].t.shape[0]; i++)
        for (int64_t j = 0; j < p->m[b->which].t.shape[1]; j++)
            put(&p->m[b->which], i, j, (double)x[i * p->m[b->which].t.shape[1] + j]);
    OK(b->ctx, slg_linear_attention(b->ctx, &p->t[Q], &p->t[K], &p->t[V], &p->t[STATE],
                                    &p->opts, &p->t[O], &p->t[LAST]));
    for (int64_t i = 0; i < p->m[O].t.shape[0]; i++)
        for (int64_t j = 0; j < b->c->s.e; j++)
            sum += get(&p->m[O], i, j) * b->c->dout[i * b->c->s.e + j];
    for (int64_t i = 0; i < p->m[LAST].t.shape[0]; i++)
        for (int64_t j = 0; j < b->c->s.e; j++)
            sum += get(&p->m[LAST], i, j) * b->c->dlast[i * b->c->s.e + j];
    return sum;
}

static void test_gradients(void **state)
{
    (void)state;
    static const int from[] = { Q, K, V, STATE }, to[] = { DQ, DK, DV, DSTATE };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int32_t form = 0; form < 3; form++) {
        const shape s = { 2, 9, 3, 4, form, 4, true };
        call c = call_new(s, SLG_F32);
        operand p;
        operand_open(&p, &c, SLG_F32, SLG_F32, CONTIGUOUS);
        run_both(ctx, &p, true);
        for (int i = 0; i < 4; i++) {
            const tensor *m = &p.m[from[i]];
            const int64_t rows = m->t.shape[0], cols = m->t.shape[1];
            float x[128], g[128];
            for (int64_t r = 0; r < rows; r++)
                for (int64_t j = 0; j < cols; j++) {
                    x[r * cols + j] = (float)get(m, r, j);
                    g[r * cols + j] = (float)get(&p.m[to[i]], r, j);
                }
            probe b = { ctx, &p, &c, from[i] };
            gradcheck_opts o = { .step = 0.25 };
            const gradcheck_result r = gradcheck(value, &b, x, (size_t)(rows * cols), g, &o);
            assert_true(gradcheck_ok(&r, 2e-4, "linear attention"));
            for (int64_t k = 0; k < rows * cols; k++)
                put(&p.m[from[i]], k / cols, k % cols, (double)x[k]);
        }
        operand_free(&p), call_free(&c);
    }
    slg_ctx_free(ctx);
}

/* ---- Errors ------------------------------------------------------------------------------ */

#define FAILS(call, code, words)                                                               \
    do {                                                                                       \
        assert_int_equal(call, code);                                                          \
        assert_non_null(strstr(slg_ctx_message(ctx), words));                                  \
    } while (0)

static void test_errors(void **state)
{
    (void)state;
    const shape s = { 2, 6, 3, 4, 0, 64, true };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    call c = call_new(s, SLG_F32);
    operand p;
    operand_open(&p, &c, SLG_F32, SLG_F32, CONTIGUOUS);
    slg_tensor *t = p.t;
#define FORWARD                                                                                \
    slg_linear_attention(ctx, &t[Q], &t[K], &t[V], &t[STATE], &p.opts, &t[O], &t[LAST])
    p.opts.form = 3;
    FAILS(FORWARD, SLG_ERR_RANGE, "form is 3");
    p.opts.form = 0, p.opts.chunk = 0;
    FAILS(FORWARD, SLG_ERR_RANGE, "chunk is 0");
    p.opts.chunk = 4097;
    FAILS(FORWARD, SLG_ERR_RANGE, "chunk is 4097");
    p.opts.chunk = 64, p.opts.reserved = 1;
    FAILS(FORWARD, SLG_ERR_OPTIONS, "reserved");
    p.opts.reserved = 0, t[K].shape[2] = 2;
    FAILS(FORWARD, SLG_ERR_SHAPE, "k has shape");
    t[K].shape[2] = 3, t[V].shape[1] = 5;
    FAILS(FORWARD, SLG_ERR_SHAPE, "v has shape");
    t[V].shape[1] = 6, t[STATE].shape[2] = 3;
    FAILS(FORWARD, SLG_ERR_SHAPE, "state has shape");
    t[STATE].shape[2] = 4, t[Q].dtype = SLG_F64;
    FAILS(FORWARD, SLG_ERR_DTYPE, "q has");
    t[Q].dtype = SLG_F32;
    slg_tensor over = t[V];
    FAILS(slg_linear_attention(ctx, &t[Q], &t[K], &t[V], NULL, NULL, &over, NULL),
          SLG_ERR_STRIDE, "o overlaps v");
    FAILS(slg_linear_attention(ctx, NULL, &t[K], &t[V], NULL, NULL, &t[O], NULL), SLG_ERR_NULL,
          "q");
    FAILS(slg_linear_attention_backward(ctx, &t[Q], &t[K], &t[V], NULL, NULL, NULL, NULL,
                                        &p.grad),
          SLG_ERR_NULL, "dout");
    FAILS(slg_linear_attention_backward(ctx, &t[Q], &t[K], &t[V], NULL, &t[DOUT], NULL, NULL,
                                        NULL),
          SLG_ERR_NULL, "grad");
    p.grad.dk = &t[DQ];
    FAILS(slg_linear_attention_backward(ctx, &t[Q], &t[K], &t[V], NULL, &t[DOUT], NULL, NULL,
                                        &p.grad),
          SLG_ERR_STRIDE, "grad.dk overlaps grad.dq");
    slg_tensor row = tokens_of(&t[Q], 0, 1);
    row.ndim = 2, row.shape[1] = 3, row.stride[1] = 1;
    FAILS(slg_linear_attention_step(ctx, &row, &row, &row, NULL, &t[STATE], NULL),
          SLG_ERR_SHAPE, "state has shape");
    FAILS(slg_linear_attention_step(ctx, &row, &row, &row, NULL, NULL, NULL), SLG_ERR_NULL,
          "state");
    slg_tensor huge = { NULL, SLG_F32, 3, { 1, 0, INT64_C(1) << 40, 1 }, { 0 } };
    FAILS(slg_linear_attention(ctx, &huge, &huge, &huge, NULL, NULL, &huge, NULL),
          SLG_ERR_SHAPE, "too large");
    for (int j = O; j < ALL; j++) /* as they were */
        for (size_t b = 0; b < p.m[j].bytes; b++) assert_int_equal(p.m[j].memory[b], 0x7E);
    assert_int_equal(slg_linear_attention(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
                     SLG_ERR_NULL);
    operand_free(&p), call_free(&c);
    slg_ctx_free(ctx);
}

/* [batch, heads, T, d] is [batch * heads, T, d]; q, k, v packed in one array. */
static void test_batches(void **state)
{
    (void)state;
    enum { B = 2, H = 3, T = 40, D = 4, N = B * H * T * D };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    float *x = zeros(3 * N, sizeof *x), *o = zeros(2 * N, sizeof *o);
    slg_tensor t[3], out = { o, SLG_F32, 4, { B, H, T, D }, { H * T * D, T * D, D, 1 } };
    for (int i = 0; i < 3 * N; i++) x[i] = (float)normal();
    for (int i = 0; i < 3; i++) /* [B, T, 3, H, D] */
        t[i] = (slg_tensor){
            x + i * H * D, SLG_F32, 4, { B, H, T, D }, { 3 * H * T * D, D, 3 * H * D, 1 }
        };
    OK(ctx, slg_linear_attention(ctx, &t[0], &t[1], &t[2], NULL, NULL, &out, NULL));
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++) {
            slg_tensor one[3], to = { o + N, SLG_F32, 3, { 1, T, D, 1 }, { T * D, D, 1, 1 } };
            for (int i = 0; i < 3; i++)
                one[i] = (slg_tensor){ x + i * H * D + b * 3 * H * T * D + h * D,
                                       SLG_F32,
                                       3,
                                       { 1, T, D, 1 },
                                       { 0, 3 * H * D, 1, 1 } };
            OK(ctx,
               slg_linear_attention(ctx, &one[0], &one[1], &one[2], NULL, NULL, &to, NULL));
            assert_memory_equal(o + N, o + (b * H + h) * T * D, T * D * sizeof *o);
        }
    free(x), free(o), slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),    cmocka_unit_test(test_types),
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_parts),
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_edges),
        cmocka_unit_test(test_nan),       cmocka_unit_test(test_long),
        cmocka_unit_test(test_gradients), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
