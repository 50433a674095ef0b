/*
 * linear_peers.c - causal linear attention, forward, and forward and backward: rows are
 * tokens, cols heads. The floor is BLAS: the products that chunks of 64 tokens need, each once,
 * the masked half of pairs included. x holds q, k, v, each [heads, tokens, dim], y holds o, dq,
 * dk, dv, grad the gradient of o.
 */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "race.h"

enum { CHUNK = 64 };

static int64_t part(const race *r) { return r->cols * r->rows * r->dim; }

static bool is_grad(const race *r) { return strstr(r->w->op->name, "grad") != NULL; }

static void setup(race *r)
{
    if (r->quick) r->rows = r->rows < 256 ? r->rows : 256, r->cols = 2;
    r->x = race_floats(r, 3 * part(r));
    r->y = race_floats(r, 4 * part(r));
    r->grad = race_floats(r, part(r));
    fill_normal(r->x, 3 * part(r), 1.0f, 18);
    fill_normal(r->grad, part(r), 1.0f, 19);
}

static void reset(race *r) { memset(r->y, 0xFF, (size_t)(4 * part(r)) * sizeof *r->y); }

/* ---- Check ------------------------------------------------------------------------------- */

/* sum over s <= t (or >= t) of (a_t . b_s) c_s, less what was found, by its scale. */
static double row_error(const race *r, int64_t h, int64_t t, bool later, const float *a,
                        const float *b, const float *c, const float *got)
{
    const int64_t d = r->dim, at = h * r->rows;
    double sum[256] = { 0 }, worst = 0, scale = 1;
    for (int64_t s = later ? t : 0; s < (later ? r->rows : t + 1); s++) {
        double ab = 0;
        for (int64_t i = 0; i < d; i++)
            ab += (double)a[(at + t) * d + i] * (double)b[(at + s) * d + i];
        for (int64_t i = 0; i < d; i++) sum[i] += ab * (double)c[(at + s) * d + i];
    }
    for (int64_t i = 0; i < d; i++) scale = fmax(scale, fabs(sum[i]));
    for (int64_t i = 0; i < d; i++) {
        const double e = fabs((double)got[(at + t) * d + i] - sum[i]) / scale;
        worst = isnan(e) || e > worst ? e : worst;
    }
    return worst;
}

static double check(race *r)
{
    const float *q = r->x, *k = q + part(r), *v = k + part(r), *g = r->grad, *o = r->y;
    const float *dq = o + part(r), *dk = dq + part(r), *dv = dk + part(r);
    double worst = 0;
    for (int64_t n = 0; n < 4; n++) {
        const int64_t h = n % r->cols, t = n * (r->rows - 1) / 3;
        const double e[] = {
            row_error(r, h, t, false, q, k, v, o),
            is_grad(r) ? row_error(r, h, t, false, g, v, k, dq) : 0,
            is_grad(r) ? row_error(r, h, t, true, v, g, q, dk) : 0,
            is_grad(r) ? row_error(r, h, t, true, k, q, g, dv) : 0,
        };
        for (int i = 0; i < 4; i++) worst = isnan(e[i]) || e[i] > worst ? e[i] : worst;
    }
    return worst;
}

/* ---- Ours -------------------------------------------------------------------------------- */

typedef struct state {
    slg_tensor q, k, v, o, dout, dq, dk, dv;
    slg_linear_attention_grad grad;
} state;

static slg_tensor heads(const race *r, float *data)
{
    return (slg_tensor){
        data, SLG_F32, 3, { r->cols, r->rows, r->dim, 1 }, { r->rows * r->dim, r->dim, 1, 1 }
    };
}

static void *prepare(race *r, const char *arg)
{
    state *s = calloc(1, sizeof *s);
    const int64_t n = part(r);
    (void)arg;
    s->q = heads(r, r->x), s->k = heads(r, r->x + n), s->v = heads(r, r->x + 2 * n);
    s->o = heads(r, r->y), s->dq = heads(r, r->y + n), s->dk = heads(r, r->y + 2 * n);
    s->dv = heads(r, r->y + 3 * n), s->dout = heads(r, r->grad);
    slg_linear_attention_grad_init(&s->grad, sizeof s->grad);
    s->grad.dq = &s->dq, s->grad.dk = &s->dk, s->grad.dv = &s->dv;
    return s;
}

static void run(race *r, void *given, int64_t times)
{
    state *s = given;
    while (times--) {
        stop(r, slg_linear_attention(r->ctx, &s->q, &s->k, &s->v, NULL, NULL, &s->o, NULL),
             "linear_attention");
        if (!is_grad(r)) continue;
        stop(r,
             slg_linear_attention_backward(r->ctx, &s->q, &s->k, &s->v, NULL, &s->dout, NULL,
                                           NULL, &s->grad),
             "linear_attention_backward");
    }
}

static void release(race *r, void *given) { (void)r, free(given); }

static const candidate ours = {
    "ours", OURS, NULL, prepare, run, scratch_memory, release, NULL
};

/* ---- The products ------------------------------------------------------------------------ */

typedef struct products {
    float *pairs, *state;
} products;

static void *floor_prepare(race *r, const char *arg)
{
    products *p = calloc(1, sizeof *p);
    (void)arg;
    p->pairs = race_floats(r, CHUNK * CHUNK), p->state = race_floats(r, r->dim * r->dim);
    return p;
}

static void multiply(bool ta, bool tb, int m, int n, int k, const float *a, int lda,
                     const float *b, int ldb, float *c, int ldc)
{
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                m, n, k, 1.0f, a, lda, b, ldb, 0.0f, c, ldc);
}

/* Forward: 4 products a chunk; backward 7 more: dO V', that and K Q' with three factors, and
   two with the states, one of which is brought up to date. */
static void floor_run(race *r, void *given, int64_t times)
{
    const products *p = given;
    const int d = (int)r->dim;
    while (times--)
        for (int64_t at = 0; at + CHUNK <= r->cols * r->rows; at += CHUNK) {
            const float *q = r->x + at * d, *k = q + part(r), *v = k + part(r);
            float *o = r->y + at * d;
            multiply(false, true, CHUNK, CHUNK, d, q, d, k, d, p->pairs, CHUNK);
            multiply(false, false, CHUNK, d, CHUNK, p->pairs, CHUNK, v, d, o, d);
            multiply(false, false, CHUNK, d, d, q, d, p->state, d, o, d);
            multiply(true, false, d, d, CHUNK, k, d, v, d, p->state, d);
            if (!is_grad(r)) continue;
            const float *g = r->grad + at * d;
            float *dq = o + part(r), *dk = dq + part(r), *dv = dk + part(r);
            multiply(false, true, CHUNK, CHUNK, d, g, d, v, d, p->pairs, CHUNK);
            multiply(false, false, CHUNK, d, CHUNK, p->pairs, CHUNK, k, d, dq, d);
            multiply(true, false, CHUNK, d, CHUNK, p->pairs, CHUNK, q, d, dk, d);
            multiply(false, true, CHUNK, CHUNK, d, k, d, q, d, p->pairs, CHUNK);
            multiply(false, false, CHUNK, d, CHUNK, p->pairs, CHUNK, g, d, dv, d);
            multiply(false, true, CHUNK, d, d, g, d, p->state, d, dq, d);
            multiply(false, true, CHUNK, d, d, v, d, p->state, d, dk, d);
            multiply(false, false, CHUNK, d, d, k, d, p->state, d, dv, d);
            multiply(true, false, d, d, CHUNK, k, d, v, d, p->state, d);
            multiply(true, false, d, d, CHUNK, q, d, g, d, p->state, d);
        }
}

static const candidate floor_chunks = { "gemms",   FLOOR, NULL,    floor_prepare,
                                        floor_run, NULL,  release, NULL };

static const candidate *const forward_field[] = { &ours, &torch_linear_attention,
                                                  &torch_linear_attention_quadratic,
                                                  &floor_chunks, NULL };
static const candidate *const grad_field[] = { &ours, &torch_linear_attention_grad,
                                               &floor_chunks, NULL };

const operation op_linear_attention = {
    "linear_attention", setup, check, reset, 1e-4, 0, "gemms", forward_field
};
const operation op_linear_attention_grad = {
    "linear_attention_grad", setup, check, reset, 1e-4, 0, "gemms", grad_field
};
