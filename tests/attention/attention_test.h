/*
 * attention_test.h - a call of attention from a line of settings, and the same in plain double
 * arithmetic, from the formulas of attention.h and from nothing of the library.
 */
#ifndef TESTS_ATTENTION_ATTENTION_TEST_H
#define TESTS_ATTENTION_ATTENTION_TEST_H

#include "attention/forward.h"
#include "core/rng.h"
#include "loss/loss_test.h"

enum bias_shape { NO_BIAS, BIAS_SHARED, BIAS_HEADS, BIAS_BATCH, BIAS_FULL, BIAS_3D };

typedef struct setting {
    const char *name;
    int64_t batch, heads, key_heads, queries, keys, dim, value_dim;
    int64_t window[4]; /* of head h: window[h % 4] */
    bool all_ways;     /* not causal */
    bool slopes, sinks, valid, lengths, positions, scales;
    int bias;                               /* bias_shape */
    double softcap, scale, dropout, spread; /* spread of q: 0 is 1 */
    int64_t offsets[6], key_offsets[6];     /* packed: up to a 0 after the first */
} setting;

/* ---- Data -------------------------------------------------------------------------------- */

typedef struct call {
    setting s;
    int64_t seqs;
    float *q, *k, *v, *dout, *dlse, *bias; /* contiguous; what is absent is NULL */
    float window[16], slopes[16], sinks[16], scales[16];
    float *valid;
    int64_t lengths[8], positions[8];
    int32_t windows[16];
    slg_rng rng;
    slg_tensor t[13];
    slg_attention_inputs in;
    slg_attention_opts opts;
} call;

typedef struct result { /* of either precision */
    double *o, *lse, *top, *dq, *dk, *dv, *dbias, *dsinks, *dscale;
    int64_t n[9];
} result;

static inline slg_tensor tensor_of(const void *data, int32_t dtype, int32_t ndim, int64_t a,
                                   int64_t b, int64_t c, int64_t d)
{
    slg_tensor t = { (void *)(uintptr_t)data, dtype, ndim, { a, b, c, d }, { 0 } };
    int64_t step = 1;
    for (int32_t i = ndim - 1; i >= 0; i--) t.stride[i] = step, step *= t.shape[i];
    return t;
}

static inline float *normals(int64_t n, double spread)
{
    float *x = calloc((size_t)n + 1, sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(spread * normal());
    return x;
}

static inline void bias_extents(const setting *s, int64_t *batch, int64_t *heads)
{
    *batch = s->bias == BIAS_BATCH || s->bias == BIAS_FULL ? s->batch : 1;
    *heads = s->bias == BIAS_HEADS || s->bias == BIAS_FULL || s->bias == BIAS_3D ? s->heads : 1;
}

static inline void call_vectors(call *c)
{
    const setting *s = &c->s;
    for (int64_t h = 0; h < s->heads; h++) {
        c->windows[h] = (int32_t)s->window[h % 4];
        c->slopes[h] = (float)(0.1 * uniform());
        c->sinks[h] = h % 3 == 2 ? -INFINITY : (float)normal();
        c->scales[h] = (float)(0.2 + uniform());
    }
    for (int64_t b = 0; b < s->batch; b++) {
        c->lengths[b] = b % 3 == 2 ? 0 : s->keys - below(s->keys + 1);
        c->positions[b] = below(s->keys + 1) - 2;
    }
    if (s->valid) c->valid = calloc((size_t)(s->batch * s->keys), sizeof *c->valid);
    for (int64_t i = 0; s->valid && i < s->batch * s->keys; i++) c->valid[i] = uniform() < 0.7;
}

static inline void call_inputs(call *c)
{
    const setting *s = &c->s;
    slg_attention_inputs *in = &c->in;
    slg_tensor *t = c->t;
    int64_t batch, heads;
    t[0] = tensor_of(c->q, SLG_F32, 4, s->batch, s->heads, s->queries, s->dim);
    t[1] = tensor_of(c->k, SLG_F32, 4, s->batch, s->key_heads, s->keys, s->dim);
    t[2] = tensor_of(c->v, SLG_F32, 4, s->batch, s->key_heads, s->keys, s->value_dim);
    t[3] = slg_tensor_1d(c->windows, SLG_I32, s->heads);
    t[4] = slg_tensor_1d(c->slopes, SLG_F32, s->heads);
    t[5] = slg_tensor_1d(c->sinks, SLG_F32, s->heads);
    t[6] = slg_tensor_1d(c->scales, SLG_F32, s->heads);
    t[7] = slg_tensor_2d(c->valid, SLG_F32, s->batch, s->keys);
    t[8] = slg_tensor_1d(c->lengths, SLG_I64, s->batch);
    t[9] = slg_tensor_1d(c->positions, SLG_I64, s->batch);
    bias_extents(s, &batch, &heads);
    t[10] = s->bias == BIAS_3D
                ? tensor_of(c->bias, SLG_F32, 3, heads, s->queries, s->keys, 1)
                : tensor_of(c->bias, SLG_F32, 4, batch, heads, s->queries, s->keys);
    t[11] = slg_tensor_1d(s->offsets, SLG_I64, c->seqs + 1);
    t[12] = slg_tensor_1d(s->key_offsets, SLG_I64, c->seqs + 1);
    slg_attention_inputs_init(in, sizeof *in);
    in->q = &t[0], in->k = &t[1], in->v = &t[2], in->window = &t[3];
    if (s->slopes) in->slopes = &t[4];
    if (s->sinks) in->sinks = &t[5];
    if (s->scales) in->scale = &t[6];
    if (s->valid) in->key_valid = &t[7];
    if (s->lengths) in->key_length = &t[8];
    if (s->positions) in->query_position = &t[9];
    if (s->bias) in->bias = &t[10];
    if (c->seqs) in->query_offsets = &t[11], in->key_offsets = &t[12];
    if (s->dropout > 0) in->rng = &c->rng;
    slg_attention_opts_init(&c->opts, sizeof c->opts);
    c->opts.causal = !s->all_ways;
    c->opts.softcap = s->softcap;
    c->opts.dropout = s->dropout;
    c->opts.scale = s->scale;
}

static inline void call_open(call *c, const setting *s)
{
    int64_t batch, heads;
    *c = (call){ .s = *s, .rng = { 5, 3 } };
    while (c->seqs < 5 && s->offsets[c->seqs + 1] > 0) c->seqs++;
    c->q = normals(s->batch * s->heads * s->queries * s->dim, s->spread > 0 ? s->spread : 1);
    c->k = normals(s->batch * s->key_heads * s->keys * s->dim, 1);
    c->v = normals(s->batch * s->key_heads * s->keys * s->value_dim, 1);
    c->dout = normals(s->batch * s->heads * s->queries * s->value_dim, 1);
    c->dlse = normals(s->batch * s->heads * s->queries, 1);
    bias_extents(s, &batch, &heads);
    if (s->bias) c->bias = normals(batch * heads * s->queries * s->keys, 1);
    for (int64_t i = 0; s->bias && i < batch * heads * s->queries * s->keys; i += 7)
        c->bias[i] = -INFINITY;
    call_vectors(c);
    call_inputs(c);
}

static inline void call_close(call *c)
{
    free(c->q), free(c->k), free(c->v), free(c->dout), free(c->dlse), free(c->bias),
        free(c->valid);
}

static inline void result_open(const setting *s, result *r)
{
    int64_t batch, heads;
    bias_extents(s, &batch, &heads);
    const int64_t queries = s->batch * s->heads * s->queries,
                  keys = s->batch * s->key_heads * s->keys;
    const int64_t n[9] = { queries * s->value_dim,
                           queries,
                           s->heads,
                           queries * s->dim,
                           keys * s->dim,
                           keys * s->value_dim,
                           s->bias ? batch * heads * s->queries * s->keys : 0,
                           s->sinks ? s->heads : 0,
                           s->scales ? s->heads : 1 };
    memcpy(r->n, n, sizeof n);
    double **at[9] = { &r->o,  &r->lse,   &r->top,    &r->dq,    &r->dk,
                       &r->dv, &r->dbias, &r->dsinks, &r->dscale };
    for (int i = 0; i < 9; i++) {
        *at[i] = calloc((size_t)n[i] + 1, sizeof(double));
        assert_non_null(*at[i]);
    }
}

static inline void result_close(result *r)
{
    free(r->o), free(r->lse), free(r->top), free(r->dq), free(r->dk), free(r->dv);
    free(r->dbias), free(r->dsinks), free(r->dscale);
}

/* ---- The reference ----------------------------------------------------------------------- */

/* A sequence and a head. */
typedef struct place {
    int64_t b, h, g, q0, nq, k0, nk, position;
} place;

static inline int64_t q_row(const call *c, const place *p, int64_t i)
{
    return (p->b * c->s.heads + p->h) * c->s.queries + p->q0 + i;
}
static inline int64_t k_row(const call *c, const place *p, int64_t j)
{
    return (p->b * c->s.key_heads + p->g) * c->s.keys + p->k0 + j;
}
static inline int64_t bias_at(const call *c, const place *p, int64_t i, int64_t j)
{
    int64_t batch, heads;
    bias_extents(&c->s, &batch, &heads);
    const int64_t b = batch == 1 ? 0 : p->b, h = heads == 1 ? 0 : p->h;
    return ((b * heads + h) * c->s.queries + p->q0 + i) * c->s.keys + p->k0 + j;
}

static inline double scale_of(const call *c, int64_t h)
{
    if (c->s.scales) return (double)c->scales[h];
    return (double)(float)(c->s.scale != 0 ? c->s.scale : 1 / sqrt((double)c->s.dim));
}

static inline double dot_of(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

/* a_ij, -inf where hidden; the slope of the soft-cap; <q, k>. */
static inline double logit(const call *c, const place *p, int64_t i, int64_t j, double *slope,
                           double *dot)
{
    const setting *s = &c->s;
    const int64_t at = p->position + i, w = c->windows[p->h];
    *slope = 1;
    *dot = dot_of(c->q + q_row(c, p, i) * s->dim, c->k + k_row(c, p, j) * s->dim, s->dim);
    if (!s->all_ways && j > at) return -INFINITY;
    if (w > 0 && llabs(at - j) >= w) return -INFINITY;
    if (s->valid && c->valid[p->b * s->keys + p->k0 + j] == 0) return -INFINITY;
    if (s->lengths && j >= c->lengths[p->b]) return -INFINITY;
    double x = *dot * scale_of(c, p->h);
    if (s->softcap > 0) {
        const double t = tanh(x / s->softcap);
        *slope = 1 - t * t;
        x = s->softcap * t;
    }
    if (s->bias) x += (double)c->bias[bias_at(c, p, i, j)];
    if (s->slopes) x -= (double)c->slopes[p->h] * fabs((double)(at - j));
    return x;
}

/* What p_ij is multiplied by. */
static inline double kept(const call *c, const place *p, int64_t i, int64_t j)
{
    if (c->s.dropout == 0) return 1;
    const uint64_t groups = (uint64_t)((c->s.keys + 3) / 4), key = (uint64_t)(p->k0 + j);
    const uint64_t first = c->rng.offset + (c->rng.offset & 1);
    const uint64_t n =
        rng_number(c->rng.seed, first + (uint64_t)q_row(c, p, i) * 2 * groups + key / 2);
    const uint32_t half = (uint32_t)(key % 2 ? n >> 32 : n);
    return (double)half < c->s.dropout * 0x1p32 ? 0 : 1 / (1 - c->s.dropout);
}

static inline void reference_query(const call *c, const place *p, int64_t i, bool use_dlse,
                                   result *r)
{
    const setting *s = &c->s;
    const int64_t row = q_row(c, p, i), d = s->dim, e = s->value_dim;
    double *a = malloc((size_t)(3 * p->nk + 1) * sizeof *a), *slope = a + p->nk,
           *dot = slope + p->nk;
    const double sink = s->sinks ? (double)c->sinks[p->h] : -INFINITY,
                 scale = scale_of(c, p->h);
    double max = sink, sum = 0, delta = 0;
    for (int64_t j = 0; j < p->nk; j++) {
        a[j] = logit(c, p, i, j, &slope[j], &dot[j]);
        max = fmax(max, a[j]);
        if (a[j] > -INFINITY && fabs(a[j]) > r->top[p->h]) r->top[p->h] = fabs(a[j]);
    }
    r->lse[row] = -INFINITY;
    if (max > -INFINITY) {
        for (int64_t j = 0; j < p->nk; j++) sum += exp(a[j] - max);
        sum += exp(sink - max);
        r->lse[row] = max + log(sum);
        for (int64_t j = 0; j < p->nk; j++) {
            const double w = exp(a[j] - r->lse[row]) * kept(c, p, i, j);
            for (int64_t n = 0; n < e && w != 0; n++)
                r->o[row * e + n] += w * (double)c->v[k_row(c, p, j) * e + n];
        }
        for (int64_t n = 0; n < e; n++)
            delta += r->o[row * e + n] * (double)c->dout[row * e + n];
        if (use_dlse) delta -= (double)c->dlse[row];
        if (s->sinks && sink > -INFINITY) r->dsinks[p->h] -= exp(sink - r->lse[row]) * delta;
    }
    for (int64_t j = 0; j < p->nk && max > -INFINITY; j++) {
        const int64_t at = k_row(c, p, j);
        const double prob = exp(a[j] - r->lse[row]), keep = kept(c, p, i, j);
        if (a[j] == -INFINITY) continue;
        double da = prob * (keep * dot_of(c->dout + row * e, c->v + at * e, e) - delta);
        if (s->bias) r->dbias[bias_at(c, p, i, j)] += da;
        da *= slope[j];
        r->dscale[s->scales ? p->h : 0] += da * dot[j];
        for (int64_t n = 0; n < d; n++) {
            r->dq[row * d + n] += da * scale * (double)c->k[at * d + n];
            r->dk[at * d + n] += da * scale * (double)c->q[row * d + n];
        }
        for (int64_t n = 0; n < e; n++)
            r->dv[at * e + n] += prob * keep * (double)c->dout[row * e + n];
    }
    free(a);
}

static inline void reference(const call *c, bool use_dlse, result *r)
{
    const setting *s = &c->s;
    for (int64_t i = 0; i < r->n[1]; i++) r->lse[i] = -INFINITY;
    for (int64_t n = 0; n < (c->seqs ? c->seqs : s->batch); n++)
        for (int64_t h = 0; h < s->heads; h++) {
            place p = { .h = h, .g = h * s->key_heads / s->heads };
            if (c->seqs) {
                p.q0 = s->offsets[n], p.nq = s->offsets[n + 1] - p.q0;
                p.k0 = s->key_offsets[n], p.nk = s->key_offsets[n + 1] - p.k0;
            } else {
                p.b = n, p.nq = s->queries, p.nk = s->keys;
            }
            p.position = s->positions ? c->positions[n] : p.nk - p.nq;
            for (int64_t i = 0; i < p.nq; i++) reference_query(c, &p, i, use_dlse, r);
        }
}

/* ---- The library ------------------------------------------------------------------------- */

/* Outputs of the library in float32, as the tensors of attention.h. */
typedef struct outputs {
    float *x[9];
    slg_tensor t[9], dout, dlse;
    slg_attention_out out;
    slg_attention_grad grad;
} outputs;

static inline void outputs_open(const call *c, const result *r, outputs *y)
{
    const setting *s = &c->s;
    *y = (outputs){ .x = { 0 } };
    for (int i = 0; i < 9; i++) {
        y->x[i] = malloc((size_t)(r->n[i] + 1) * sizeof(float));
        assert_non_null(y->x[i]);
        memset(y->x[i], 0x7E, (size_t)(r->n[i] + 1) * sizeof(float));
    }
    y->t[0] = tensor_of(y->x[0], SLG_F32, 4, s->batch, s->heads, s->queries, s->value_dim);
    y->t[1] = tensor_of(y->x[1], SLG_F32, 3, s->batch, s->heads, s->queries, 1);
    y->t[2] = slg_tensor_1d(y->x[2], SLG_F32, s->heads);
    for (int i = 0; i < 3; i++) y->t[3 + i] = c->t[i], y->t[3 + i].data = y->x[3 + i];
    y->t[6] = c->t[10], y->t[6].data = y->x[6];
    y->t[7] = slg_tensor_1d(y->x[7], SLG_F32, s->heads);
    y->t[8] = slg_tensor_1d(y->x[8], SLG_F32, r->n[8]);
    y->dout = y->t[0], y->dout.data = c->dout;
    y->dlse = y->t[1], y->dlse.data = c->dlse;
    slg_attention_out_init(&y->out, sizeof y->out);
    slg_attention_grad_init(&y->grad, sizeof y->grad);
    y->out.o = &y->t[0], y->out.lse = &y->t[1], y->out.max_logit = &y->t[2];
    y->grad.dq = &y->t[3], y->grad.dk = &y->t[4], y->grad.dv = &y->t[5];
    if (s->bias) y->grad.dbias = &y->t[6];
    if (s->sinks) y->grad.dsinks = &y->t[7];
    y->grad.dscale = &y->t[8];
}

static inline void outputs_close(outputs *y)
{
    for (int i = 0; i < 9; i++) free(y->x[i]);
}

static const char *const output_names[] = { "o",  "lse",   "max_logit", "dq",    "dk",
                                            "dv", "dbias", "dsinks",    "dscale" };

/* Output i against the reference, within tolerance of 1 and of the largest. */
static inline void compare_output(const char *name, const result *r, const outputs *y, int i,
                                  double tolerance)
{
    const double *const want[9] = { r->o,  r->lse,   r->top,    r->dq,    r->dk,
                                    r->dv, r->dbias, r->dsinks, r->dscale };
    double size = 1;
    for (int64_t n = 0; n < r->n[i]; n++)
        if (isfinite(want[i][n]) && fabs(want[i][n]) > size) size = fabs(want[i][n]);
    for (int64_t n = 0; n < r->n[i]; n++) {
        const double got = (double)y->x[i][n], w = want[i][n];
        if (got == w || (isnan(got) && isnan(w))) continue;
        if (!(fabs(got - w) <= tolerance * size))
            fail_msg("%s: %s[%lld] is %.9g, should be %.9g", name, output_names[i],
                     (long long)n, got, w);
    }
}

/* A call, and its outputs: forward, and backward where wanted. */
typedef struct trial {
    call c;
    result r;
    outputs y;
} trial;

static inline void trial_open(trial *t, const setting *s)
{
    call_open(&t->c, s);
    result_open(s, &t->r);
    outputs_open(&t->c, &t->r, &t->y);
}

static inline void trial_run(slg_ctx *ctx, trial *t, bool backward)
{
    OK(ctx, slg_attention(ctx, &t->c.in, &t->c.opts, &t->y.out));
    if (backward)
        OK(ctx, slg_attention_backward(ctx, &t->c.in, &t->c.opts, &t->y.out, &t->y.dout,
                                       &t->y.grad));
}

static inline void trial_close(trial *t)
{
    outputs_close(&t->y);
    result_close(&t->r);
    call_close(&t->c);
}

#endif
