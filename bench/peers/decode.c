/*
 * decode.c - a token of attention to a cache of keys and values. rows are the tokens kept, cols
 * the floats that keys and values of one take, so that reading x is reading as many bytes.
 * w->loss: what is kept, or how many heads have a window. x holds k, v, each [heads, tokens,
 * dim], as float32, grad the query, y the output.
 */
#include <stdlib.h>
#include <string.h>

#include "race.h"

enum { WINDOW = 64 };

static int32_t kept(const race *r)
{
    return !strcmp(r->w->loss, "bf16")  ? SLG_BF16
           : !strcmp(r->w->loss, "f16") ? SLG_F16
                                        : SLG_F32;
}

static int64_t heads(const race *r)
{
    return r->cols / (2 * r->dim) * (kept(r) == SLG_F32 ? 1 : 2);
}

static int64_t window_of(const race *r, int64_t h) { return h < atoi(r->w->loss) ? WINDOW : 0; }

static void decode_setup(race *r)
{
    if (r->quick) r->rows = 256;
    const int64_t n = heads(r) * r->rows * r->dim;
    r->x = race_floats(r, 2 * n);
    r->y = race_floats(r, heads(r) * r->dim);
    r->grad = race_floats(r, heads(r) * r->dim);
    fill_normal(r->x, 2 * n, 1.0f, 6);
    fill_normal(r->grad, heads(r) * r->dim, 1.0f, 7);
}

static void decode_reset(race *r)
{
    memset(r->y, 0xFF, (size_t)(heads(r) * r->dim) * sizeof *r->y);
}

static double dot(int64_t n, const float *a, const float *b)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static double decode_check(race *r)
{
    const int64_t d = r->dim, n = r->rows;
    double *p = malloc((size_t)n * sizeof *p), worst = 0;
    for (int64_t h = 0; h < heads(r); h++) {
        const float *k = r->x + h * n * d, *v = k + heads(r) * n * d, *q = r->grad + h * d;
        const int64_t w = window_of(r, h), first = w && w < n ? n - w : 0;
        double sum = 0;
        for (int64_t j = first; j < n; j++)
            sum += p[j] = exp(dot(d, q, k + j * d) / sqrt((double)d));
        for (int64_t c = 0; c < d; c++) {
            double o = 0;
            for (int64_t j = first; j < n; j++) o += p[j] / sum * (double)v[j * d + c];
            const double error = fabs((double)r->y[h * d + c] - o);
            if (isnan(error) || error > worst) worst = error;
        }
    }
    free(p);
    return worst;
}

typedef struct state {
    slg_attention_cache *cache;
    slg_tensor q, o;
    slg_attention_inputs in;
    slg_attention_out out;
} state;

static slg_tensor tokens(const race *r, float *data, int64_t n)
{
    return (slg_tensor){
        data, SLG_F32, 3, { heads(r), n, r->dim, 1 }, { n * r->dim, r->dim, 1, 1 }
    };
}

static void *prepare(race *r, const char *arg)
{
    state *s = calloc(1, sizeof *s);
    const int64_t n = heads(r) * r->rows * r->dim;
    int32_t windows[64];
    slg_attention_cache_opts o;
    for (int64_t h = 0; h < heads(r); h++) windows[h % 64] = arg ? 0 : (int32_t)window_of(r, h);
    const slg_tensor window = slg_tensor_1d(windows, SLG_I32, heads(r));
    const slg_tensor k = tokens(r, r->x, r->rows), v = tokens(r, r->x + n, r->rows);
    slg_attention_cache_opts_init(&o, sizeof o);
    o.dtype = kept(r);
    o.heads = (int32_t)heads(r), o.dim = (int32_t)r->dim, o.capacity = (int32_t)r->rows;
    o.window = &window;
    stop(r, slg_attention_cache_create(r->ctx, &o, &s->cache), "cache_create");
    stop(r, slg_attention_cache_append(s->cache, &k, &v), "cache_append");
    s->q = tokens(r, r->grad, 1), s->o = tokens(r, r->y, 1);
    slg_attention_inputs_init(&s->in, sizeof s->in);
    slg_attention_out_init(&s->out, sizeof s->out);
    s->in.q = &s->q, s->out.o = &s->o;
    return s;
}

static void run(race *r, void *given, int64_t times)
{
    state *s = given;
    while (times--) stop(r, slg_attention_decode(s->cache, &s->in, NULL, &s->out), "decode");
}

static void release(race *r, void *given)
{
    state *s = given;
    (void)r;
    slg_attention_cache_free(s->cache);
    free(s);
}

/* The result of local heads, for the check. */
static void fetch_local(race *r, void *given)
{
    (void)given;
    void *s = prepare(r, NULL);
    run(r, s, 1);
    release(r, s);
    scratch_memory(r, given);
}

static const candidate ours = {
    "ours", OURS, NULL, prepare, run, scratch_memory, release, NULL
};
static const candidate ours_global = { "all-global", FORM,        "global", prepare,
                                       run,          fetch_local, release,  NULL };

static const candidate *const field[] = { &ours, &floor_read, NULL };
static const candidate *const ls_field[] = { &ours, &ours_global, &floor_read, NULL };

const operation op_decode = { "decode", decode_setup, decode_check, decode_reset, 1e-2,
                              0,        "read",       field };
const operation op_ls_decode = { "ls_decode", decode_setup, decode_check, decode_reset, 1e-2,
                                 0,           "read",       ls_field };
