/*
 * attention.c - causal attention, forward, and forward and backward: rows are tokens, cols
 * heads. The floor is the time of as many multiply-adds at their peak. x holds q, k, v, each
 * [heads, tokens, dim], y holds o, dq, dk, dv, grad the gradient of o.
 */
#include <stdlib.h>
#include <string.h>

#include "plain.h"
#include "race.h"

/* Of every other head of LS-attention. */
enum { WINDOW = 64 };

static int64_t part(const race *r) { return r->cols * r->rows * r->dim; }

static double flops_of(const race *r);

static void attention_setup(race *r)
{
    if (r->quick) r->rows = r->rows < 256 ? r->rows : 256, r->cols = 2;
    r->x = race_floats(r, 3 * part(r));
    r->y = race_floats(r, 4 * part(r));
    r->grad = race_floats(r, part(r));
    r->row_out = race_floats(r, r->cols * r->rows);
    fill_normal(r->x, 3 * part(r), 1.0f, 6);
    fill_normal(r->grad, part(r), 1.0f, 7);
    r->flops = flops_of(r);
}

static void attention_reset(race *r)
{
    memset(r->y, 0xFF, (size_t)(4 * part(r)) * sizeof *r->y);
}

/* ---- Check ------------------------------------------------------------------------------- */

static bool is_ls(const race *r) { return !strcmp(r->w->op->name, "ls_attention"); }

static int64_t window_of(const race *r, int64_t h) { return is_ls(r) && h % 2 ? WINDOW : 0; }

/* fmax forgets a NaN, this does not. */
static double worse(double a, double b) { return isnan(b) || b > a ? b : a; }

static double dot(int64_t n, const float *a, const float *b)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Probabilities of query i of head h over keys [first, i], in float64. Returns first. */
static int64_t probabilities(const race *r, int64_t h, int64_t i, double *p)
{
    const int64_t w = window_of(r, h), first = w && i >= w ? i - w + 1 : 0, d = r->dim;
    const float *q = r->x + (h * r->rows + i) * d, *k = r->x + part(r) + h * r->rows * d;
    double max = -INFINITY, sum = 0;
    for (int64_t j = first; j <= i; j++)
        max = fmax(max, p[j] = dot(d, q, k + j * d) / sqrt((double)d));
    for (int64_t j = first; j <= i; j++) sum += p[j] = exp(p[j] - max);
    for (int64_t j = first; j <= i; j++) p[j] /= sum;
    return first;
}

/* Errors of o, and of dq where grads, for one query. */
static double query_error(const race *r, int64_t h, int64_t i, bool grads, double *p)
{
    const int64_t d = r->dim, first = probabilities(r, h, i, p);
    const float *k = r->x + part(r) + h * r->rows * d, *v = k + part(r);
    const float *got = r->y + (h * r->rows + i) * d, *dout = r->grad + (h * r->rows + i) * d;
    double worst = 0, delta = 0;
    for (int64_t j = first; j <= i; j++) delta += p[j] * dot(d, dout, v + j * d);
    for (int64_t c = 0; c < d; c++) {
        double o = 0, dq = 0;
        for (int64_t j = first; j <= i; j++) {
            o += p[j] * (double)v[j * d + c];
            if (grads) dq += p[j] * (dot(d, dout, v + j * d) - delta) * (double)k[j * d + c];
        }
        if (!grads)
            worst = worse(worst, fabs((double)got[c] - o));
        else
            worst = worse(worst, fabs((double)got[part(r) + c] - dq / sqrt((double)d)));
    }
    return worst;
}

static double check_queries(const race *r, bool grads)
{
    double *p = malloc((size_t)r->rows * sizeof *p), worst = 0;
    for (int64_t n = 0; n < 4; n++)
        worst = worse(worst, query_error(r, n % r->cols, n * (r->rows - 1) / 3, grads, p));
    free(p);
    return worst;
}

static double attention_check(race *r) { return check_queries(r, false); }

/* dk and dv as a whole: <dk, k> = <dq, q>, and the sum of dv over keys is that of dout. */
static double grad_check(race *r)
{
    const int64_t n = part(r), d = r->dim;
    const float *q = r->x, *k = q + n, *dq = r->y + n, *dk = dq + n, *dv = dk + n;
    const double a = dot(n, dq, q), b = dot(n, dk, k);
    double worst = worse(check_queries(r, true), fabs(a - b) / (1 + fabs(a)));
    for (int64_t h = 0; h < r->cols; h++)
        for (int64_t c = 0; c < d; c += 13) {
            double sum = 0, want = 0;
            for (int64_t i = 0; i < r->rows; i++) {
                sum += (double)dv[(h * r->rows + i) * d + c];
                want += (double)r->grad[(h * r->rows + i) * d + c];
            }
            worst = worse(worst, fabs(sum - want) / (1 + sqrt((double)r->rows)));
        }
    return worst;
}

/* ---- Ours -------------------------------------------------------------------------------- */

typedef struct state {
    slg_tensor q, k, v, o, lse, dout, dq, dk, dv, window;
    int32_t windows[64];
    slg_attention_inputs in;
    slg_attention_out out;
    slg_attention_grad grad;
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
    s->q = heads(r, r->x), s->k = heads(r, r->x + n), s->v = heads(r, r->x + 2 * n);
    s->o = heads(r, r->y), s->dq = heads(r, r->y + n), s->dk = heads(r, r->y + 2 * n);
    s->dv = heads(r, r->y + 3 * n), s->dout = heads(r, r->grad);
    s->lse = slg_tensor_2d(r->row_out, SLG_F32, r->cols, r->rows);
    s->window = slg_tensor_1d(s->windows, SLG_I32, r->cols);
    for (int64_t h = 0; h < r->cols && !arg; h++) s->windows[h % 64] = (int32_t)window_of(r, h);
    slg_attention_inputs_init(&s->in, sizeof s->in);
    slg_attention_out_init(&s->out, sizeof s->out);
    slg_attention_grad_init(&s->grad, sizeof s->grad);
    s->in.q = &s->q, s->in.k = &s->k, s->in.v = &s->v, s->in.window = &s->window;
    s->out.o = &s->o, s->out.lse = &s->lse;
    s->grad.dq = &s->dq, s->grad.dk = &s->dk, s->grad.dv = &s->dv;
    return s;
}

static void forward(race *r, void *given, int64_t times)
{
    state *s = given;
    while (times--) stop(r, slg_attention(r->ctx, &s->in, NULL, &s->out), "attention");
}

static void both(race *r, void *given, int64_t times)
{
    state *s = given;
    while (times--) {
        forward(r, s, 1);
        stop(r, slg_attention_backward(r->ctx, &s->in, NULL, &s->out, &s->dout, &s->grad),
             "attention_backward");
    }
}

/* Scratch as the context counts it. */
static void fetch(race *r, void *given)
{
    slg_ctx_info_t info = { .size = sizeof info };
    (void)given;
    stop(r, slg_ctx_info(r->ctx, &info), "ctx_info");
    r->memory = (double)info.scratch_peak_bytes;
}

/* The result of LS-attention, for the check. */
static void fetch_local(race *r, void *given)
{
    (void)given;
    void *s = prepare(r, NULL);
    forward(r, s, 1);
    free(s);
}

static void release(race *r, void *given) { (void)r, free(given); }

static const candidate ours = { "ours", OURS, NULL, prepare, forward, fetch, release, NULL };
static const candidate ours_both = { "ours", OURS, NULL, prepare, both, fetch, release, NULL };
static const candidate ours_global = { "all-global", FORM,        "global", prepare,
                                       forward,      fetch_local, release,  NULL };

/* ---- Plain C ----------------------------------------------------------------------------- */

static void *plain_prepare(race *r, const char *arg)
{
    (void)arg;
    return r->rows > 4096 ? NULL : race_floats(r, r->rows);
}

static void plain_run(race *r, void *scratch, int64_t times)
{
    const int64_t n = r->rows * r->dim;
    while (times--)
        for (int64_t h = 0; h < r->cols; h++)
            loop_attention(r->rows, r->dim, window_of(r, h), r->x + h * n,
                           r->x + part(r) + h * n, r->x + 2 * part(r) + h * n, r->y + h * n,
                           scratch);
}

static const candidate plain = {
    "plain", PEER, NULL, plain_prepare, plain_run, NULL, NULL, NULL
};

/* ---- The peak ---------------------------------------------------------------------------- */

/* Twelve sums that do not wait for each other: more than the latency of two ports hides. */
enum { SUMS = 12, PEAK_STEPS = 1000 };

#if defined(__AVX512F__)
#define SUM(r, i) "vfmadd231ps %%" r "12, %%" r "12, %%" r #i "\n\t"
#define ZERO(i) "vxorps %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"
#define ALL(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)
#define SUM16(i) SUM("zmm", i)
#define SUM8(i) SUM("ymm", i)
#define CLOBBER                                                                                \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",   \
        "xmm11", "xmm12"

static void peak_16(int64_t times)
{
    __asm__ volatile(ALL(ZERO) ZERO(12)::: CLOBBER);
    for (int64_t n = 0; n < times * PEAK_STEPS; n++) __asm__ volatile(ALL(SUM16)::: CLOBBER);
}

static void peak_8(int64_t times)
{
    __asm__ volatile(ALL(ZERO) ZERO(12)::: CLOBBER);
    for (int64_t n = 0; n < times * PEAK_STEPS; n++) __asm__ volatile(ALL(SUM8)::: CLOBBER);
}

static int64_t peak_length(const race *r) { return r->w->isa == SLG_ISA_AVX2 ? 8 : 16; }

static void *peak_prepare(race *r, const char *arg) { return (void)arg, r; }

static void peak_run(race *r, void *given, int64_t times)
{
    (void)given;
    if (peak_length(r) == 8)
        peak_8(times);
    else
        peak_16(times);
}
#else
static int64_t peak_length(const race *r) { return (void)r, 1; }
static void *peak_prepare(race *r, const char *arg) { return (void)r, (void)arg, NULL; }
static void peak_run(race *r, void *given, int64_t times) { (void)r, (void)given, (void)times; }
#endif

static double peak_scale(const race *r)
{
    return r->flops / (double)(2 * SUMS * PEAK_STEPS * peak_length(r)) / (double)r->w->threads;
}

/* Pairs of the method, at dim + dim multiplications and as many additions each, 2.5 times as
   many more backward. */
static double flops_of(const race *r)
{
    double pairs = 0;
    for (int64_t h = 0; h < r->cols; h++)
        for (int64_t i = 0; i < r->rows; i++) {
            const int64_t w = window_of(r, h);
            pairs += (double)(w && i >= w ? w : i + 1);
        }
    return pairs * 4 * (double)r->dim * (strstr(r->w->op->name, "grad") ? 3.5 : 1);
}

const candidate floor_peak = { "fma-peak", FLOOR, NULL, peak_prepare,
                               peak_run,   NULL,  NULL, peak_scale };

/* ---- Fields ------------------------------------------------------------------------------ */

static const candidate *const forward_field[] = { &ours, &plain, &torch_attention, &floor_peak,
                                                  NULL };
static const candidate *const grad_field[] = { &ours_both, &torch_attention_grad, &floor_peak,
                                               NULL };
static const candidate *const ls_field[] = { &ours,       &ours_global,
                                             &plain,      &torch_ls_attention,
                                             &floor_peak, NULL };

const operation op_attention = {
    "attention", attention_setup, attention_check, attention_reset, 1e-3,
    0,           "fma-peak",      forward_field
};
const operation op_attention_grad = {
    "attention_grad", attention_setup, grad_check, attention_reset, 1e-3, 0,
    "fma-peak",       grad_field
};
const operation op_ls_attention = {
    "ls_attention", attention_setup, attention_check, attention_reset, 1e-3, 0,
    "fma-peak",     ls_field
};
