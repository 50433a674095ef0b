/*
 * source.c - see source.h. BLAS is called here on the caller's thread, between pool runs.
 */
#include "source.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "softmax/softmax_options.h"

/* Logits in scratch: at most about this many bytes a block, 512 rows of GPT-2's vocabulary, so
   that products stay thick (with 320 rows they take 4 % longer, with 128 16 %) while the block
   is small beside a [rows, cols] matrix. */
#define BLOCK_BYTES (100u << 20)
enum { BLOCK_ROWS_MIN = 64, BLOCK_ROWS_MAX = 1024, PANEL_ROWS = 4096 };

/* ---- Checks ----------------------------------------------------------------------------- */

static const slg_logits defaults = { .size = sizeof(slg_logits), .temperature = 1.0 };

void slg_logits_init(slg_logits *logits, size_t size)
{
    options_init(logits, size, &defaults, sizeof defaults);
}

/* "logits.hidden" and the like; the longest name in use is short. */
typedef struct member_name {
    char text[40];
} member_name;

static member_name member(const char *name, const char *field)
{
    member_name m = { "" };
    size_t n = strlen(name), f = strlen(field);
    if (n + f + 2 > sizeof m.text) n = 0;
    memcpy(m.text, name, n);
    m.text[n] = '.';
    memcpy(m.text + n + 1, field, f + 1);
    return m;
}

static slg_status open_fused(slg_ctx *ctx, const char *name, const slg_logits *given,
                             logit_source *s)
{
    const member_name hidden = member(name, "hidden"), weight = member(name, "weight");
    SLG_TRY(tensor_in(ctx, hidden.text, given->hidden, DT_ROW, 2, 2));
    SLG_TRY(tensor_in(ctx, weight.text, given->weight, DT_ROW, 2, 2));
    if (given->hidden->shape[1] != given->weight->shape[1])
        return slg_fail(ctx, SLG_ERR_SHAPE, "%s has %lld columns, %s has %lld", hidden.text,
                        (long long)given->hidden->shape[1], weight.text,
                        (long long)given->weight->shape[1]);
    s->fused = true;
    s->hidden = rows_of(given->hidden);
    s->weight = rows_of(given->weight);
    s->rows = given->hidden->shape[0];
    s->cols = given->weight->shape[0];
    s->dim = given->hidden->shape[1];
    if (s->rows > INT32_MAX || s->cols > INT32_MAX || s->dim > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_SHAPE,
                        "%s: %lld rows, %lld columns, %lld wide: at most %d each", name,
                        (long long)s->rows, (long long)s->cols, (long long)s->dim, INT32_MAX);
    if (given->bias) {
        const member_name bias = member(name, "bias");
        SLG_TRY(tensor_in(ctx, bias.text, given->bias, DT_ROW, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, bias.text, given->bias, 1, &s->cols));
        s->bias = rows_of(given->bias);
    }
    return SLG_OK;
}

/* The mask as floats, in scratch. */
static slg_status open_mask(slg_ctx *ctx, const char *name, const slg_tensor *mask,
                            logit_source *s)
{
    const member_name text = member(name, "mask");
    SLG_TRY(tensor_in(ctx, text.text, mask, DT_INT | DT_F32, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, text.text, mask, 1, &s->cols));
    float *m = arena_alloc(ctx, (size_t)s->cols, sizeof *m);
    if (!m) return SLG_ERR_MEMORY;
    rows r = rows_of(mask);
    for (int64_t c = 0; c < s->cols; c++) m[c] = rows_get(&r, 0, c) != 0 ? 1.0f : 0.0f;
    s->mask = m;
    return SLG_OK;
}

static slg_status open_row_temperature(slg_ctx *ctx, const char *name, const slg_tensor *t,
                                       double factor, logit_source *s)
{
    const member_name text = member(name, "row_temperature");
    SLG_TRY(tensor_in(ctx, text.text, t, DT_F32, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, text.text, t, 1, &s->rows));
    s->row_temperature = rows_per_row(t);
    for (int64_t r = 0; r < s->rows; r++) {
        double v = rows_get(&s->row_temperature, r, 0), whole = v * factor;
        if (v > 0 && whole >= TEMPERATURE_MIN && whole <= TEMPERATURE_MAX) continue;
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "%s[%lld] is %g, must be above 0 and, times temperature, "
                        "from %g to %g",
                        text.text, (long long)r, v, TEMPERATURE_MIN, TEMPERATURE_MAX);
    }
    return SLG_OK;
}

slg_status source_open(slg_ctx *ctx, const char *name, const slg_logits *given, logit_source *s)
{
    slg_logits l = defaults;
    *s = (logit_source){ .ctx = ctx };
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", name);
    SLG_TRY(options_read(ctx, name, given, &l, sizeof l));
    if (l.reserved != 0)
        return slg_fail(ctx, SLG_ERR_OPTIONS, "%s.reserved is %d, must be 0", name, l.reserved);
    if (l.dense ? (l.hidden || l.weight || l.bias) : !(l.hidden && l.weight))
        return slg_fail(ctx, SLG_ERR_NULL,
                        "%s needs dense, or hidden and weight (and bias), and not both", name);
    if (l.dense) {
        const member_name dense = member(name, "dense");
        SLG_TRY(tensor_in(ctx, dense.text, l.dense, DT_ROW, 2, 2));
        s->dense = rows_of(l.dense);
        s->rows = l.dense->shape[0];
        s->cols = l.dense->shape[1];
    } else {
        SLG_TRY(open_fused(ctx, name, &l, s));
    }
    if (l.mask) SLG_TRY(open_mask(ctx, name, l.mask, s));
    SLG_TRY(temperature_check(ctx, l.temperature));
    /* Beyond 1e30, 1 / softcap and x / softcap would be subnormal, and so 0. */
    if (!(l.softcap >= 0 && l.softcap <= 1e30) || (l.softcap > 0 && l.softcap < 1e-30))
        return slg_fail(ctx, SLG_ERR_RANGE, "%s.softcap is %g, must be 0 or from 1e-30 to 1e30",
                        name, l.softcap);
    if (l.row_temperature)
        SLG_TRY(open_row_temperature(ctx, name, l.row_temperature, l.temperature, s));
    s->temperature = l.temperature;
    s->softcap = (float)l.softcap;
    s->arg = exp_arg_of(l.temperature, 0.0f);
    return SLG_OK;
}

/* ---- Forming a block -------------------------------------------------------------------- */

int64_t source_block_rows(const logit_source *s)
{
    if (!s->fused) return s->rows > 0 ? s->rows : 1;
    int64_t bytes = s->cols * (int64_t)sizeof(float), n = BLOCK_BYTES / (bytes > 0 ? bytes : 1);
    n = n / 64 * 64;
    if (n < BLOCK_ROWS_MIN) n = BLOCK_ROWS_MIN;
    if (n > BLOCK_ROWS_MAX) n = BLOCK_ROWS_MAX;
    if (n >= s->rows) return s->rows > 0 ? s->rows : 1;
    /* Of about the same size: a thin last block costs as much as a thick one. */
    const int64_t blocks = (s->rows + n - 1) / n;
    return ((s->rows + blocks - 1) / blocks + 63) / 64 * 64;
}

/* BLAS takes float32 rows of contiguous columns, apart by at least a row. */
static bool blas_ready(const rows *m)
{
    return m->plain && (m->outer == 0 || m->stride[0] >= m->cols);
}

static int64_t lead(const rows *m)
{
    int64_t stride = m->outer == 0 ? m->cols : m->stride[m->outer - 1];
    return stride > 0 ? stride : 1;
}

slg_status source_reserve(logit_source *s, int64_t block_rows)
{
    s->block_rows = block_rows;
    if (!s->fused) return SLG_OK;
    s->logits = arena_alloc(s->ctx, (size_t)block_rows * (size_t)s->cols, sizeof(float));
    if (!s->logits) return SLG_ERR_MEMORY;
    if (s->bias.data) {
        s->bias_row = arena_alloc(s->ctx, (size_t)s->cols, sizeof(float));
        if (!s->bias_row) return SLG_ERR_MEMORY;
        for (int64_t c = 0; c < s->cols; c++) s->bias_row[c] = (float)rows_get(&s->bias, 0, c);
    }
    if (!blas_ready(&s->hidden)) {
        s->hidden_block =
            arena_alloc(s->ctx, (size_t)block_rows * (size_t)s->dim, sizeof(float));
        if (!s->hidden_block) return SLG_ERR_MEMORY;
    }
    if (!blas_ready(&s->weight)) {
        int64_t panel = s->cols < PANEL_ROWS ? s->cols : PANEL_ROWS;
        s->weight_panel = arena_alloc(s->ctx, (size_t)panel * (size_t)s->dim, sizeof(float));
        if (!s->weight_panel) return SLG_ERR_MEMORY;
    }
    return SLG_OK;
}

/* Rows [first, first + count) of m as float32, dense in out. */
static void widen_rows(const kernel_table *k, const rows *m, int64_t first, int64_t count,
                       float *out)
{
    for (int64_t r = 0; r < count; r++) {
        for (int64_t c = 0; c < m->cols; c += KERNEL_BLOCK) {
            int64_t n = m->cols - c < KERNEL_BLOCK ? m->cols - c : KERNEL_BLOCK;
            float *to = out + r * m->cols + c;
            const float *from = rows_fetch(k, m, first + r, c, n, to);
            if (from != to) memcpy(to, from, (size_t)n * sizeof *to);
        }
    }
}

/* A block of hidden states for BLAS. */
static const float *hidden_rows(const logit_source *s, int64_t first, int64_t *ld)
{
    *ld = s->hidden_block ? s->dim : lead(&s->hidden);
    return s->hidden_block ? s->hidden_block : (const float *)rows_at(&s->hidden, first);
}

/* Rows [from, from + n) of weight for BLAS. */
static const float *weight_rows(const logit_source *s, int64_t from, int64_t n, int64_t *ld)
{
    *ld = s->weight_panel ? s->dim : lead(&s->weight);
    if (!s->weight_panel) return (const float *)rows_at(&s->weight, from);
    widen_rows(&s->ctx->k, &s->weight, from, n, s->weight_panel);
    return s->weight_panel;
}

static int64_t panel_rows(const logit_source *s)
{
    return s->weight_panel && s->cols > PANEL_ROWS ? PANEL_ROWS : s->cols;
}

slg_status source_form(logit_source *s, int64_t first, int64_t count)
{
    if (!s->fused) return SLG_OK;
    s->first = first;
    if (s->hidden_block) widen_rows(&s->ctx->k, &s->hidden, first, count, s->hidden_block);
    if (s->bias_row)
        for (int64_t r = 0; r < count; r++)
            memcpy(s->logits + r * s->cols, s->bias_row, (size_t)s->cols * sizeof(float));
    int64_t ldh, ldw, panel = panel_rows(s);
    const float *h = hidden_rows(s, first, &ldh);
    for (int64_t c = 0; c < s->cols; c += panel) {
        int64_t n = s->cols - c < panel ? s->cols - c : panel;
        const float *w = weight_rows(s, c, n, &ldw);
        SLG_TRY(blas_sgemm(s->ctx, false, true, count, n, s->dim, 1.0f, h, ldh, w, ldw,
                           s->bias_row ? 1.0f : 0.0f, s->logits + c, s->cols));
    }
    return SLG_OK;
}

double source_temperature(const logit_source *s, int64_t row)
{
    if (!s->row_temperature.data) return s->temperature;
    return s->temperature * rows_get(&s->row_temperature, row, 0);
}

const float *source_fetch(const void *self, int64_t row, int64_t col, int64_t n, float *scratch)
{
    return source_fetch_slope(self, row, col, n, scratch, NULL);
}

const float *source_fetch_slope(const logit_source *s, int64_t row, int64_t col, int64_t n,
                                float *scratch, float *slope)
{
    const kernel_table *k = &s->ctx->k;
    const float *x = s->fused ? s->logits + (row - s->first) * s->cols + col
                              : rows_fetch(k, &s->dense, row, col, n, scratch);
    if (s->softcap > 0) {
        k->softcap((size_t)n, x, s->softcap, scratch, slope);
        x = scratch;
    }
    if (s->mask) {
        k->mask((size_t)n, x, s->mask + col, scratch);
        if (s->softcap > 0 && slope) k->mul((size_t)n, s->mask + col, slope);
        x = scratch;
    }
    return x;
}

/* ---- Gradients -------------------------------------------------------------------------- */

static const slg_logits_grad grad_defaults = { .size = sizeof(slg_logits_grad) };

void slg_logits_grad_init(slg_logits_grad *grad, size_t size)
{
    options_init(grad, size, &grad_defaults, sizeof grad_defaults);
}

/* A gradient tensor of a fused source: it must not touch any input, nor another gradient. */
static slg_status open_grad(slg_ctx *ctx, const char *name, const slg_tensor *t,
                            unsigned dtypes, const slg_logits *l, int32_t ndim,
                            const int64_t *shape, rows *out)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(ctx, name, t, dtypes, ndim, ndim));
    SLG_TRY(tensor_shape_is(ctx, name, t, ndim, shape));
    const slg_tensor *in[] = { l->hidden, l->weight, l->bias, l->mask, l->row_temperature };
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        if (outputs_clash(t, in[i]))
            return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps an input", name);
    *out = rows_of(t);
    return SLG_OK;
}

static slg_status grad_dense(slg_ctx *ctx, const slg_logits_grad *given, const slg_logits *l,
                             const logit_source *s, source_grad *g)
{
    if (given->dhidden || given->dweight || given->dbias)
        return slg_fail(ctx, SLG_ERR_NULL,
                        "grad.dhidden, dweight and dbias must be NULL: the logits are dense");
    if (!given->dlogits) return SLG_OK;
    const int64_t shape[2] = { s->rows, s->cols };
    SLG_TRY(tensor_out(ctx, "grad.dlogits", given->dlogits, DT_ROW, 2, 2));
    SLG_TRY(tensor_shape_is(ctx, "grad.dlogits", given->dlogits, 2, shape));
    if (tensor_clash(given->dlogits, l->dense))
        return slg_fail(ctx, SLG_ERR_STRIDE,
                        "grad.dlogits overlaps logits.dense, and is not the same view");
    if (outputs_clash(given->dlogits, l->mask) ||
        outputs_clash(given->dlogits, l->row_temperature))
        return slg_fail(ctx, SLG_ERR_STRIDE,
                        "grad.dlogits overlaps logits.mask or logits.row_temperature");
    g->dlogits = rows_of(given->dlogits);
    g->in_place = given->dlogits->data == l->dense->data;
    if (g->in_place && g->accumulate_input && tensor_size(l->dense) > 0)
        return slg_fail(ctx, SLG_ERR_STRIDE,
                        "grad.dlogits is the logits' memory, and is to be added to");
    return SLG_OK;
}

static slg_status grad_fused(slg_ctx *ctx, const slg_logits_grad *given, const slg_logits *l,
                             const logit_source *s, source_grad *g)
{
    const int64_t hidden[2] = { s->rows, s->dim }, weight[2] = { s->cols, s->dim };
    if (given->dlogits)
        return slg_fail(ctx, SLG_ERR_NULL,
                        "grad.dlogits must be NULL: the logits are never stored");
    SLG_TRY(open_grad(ctx, "grad.dhidden", given->dhidden, DT_ROW, l, 2, hidden, &g->dhidden));
    SLG_TRY(open_grad(ctx, "grad.dweight", given->dweight, DT_F32, l, 2, weight, &g->dweight));
    SLG_TRY(open_grad(ctx, "grad.dbias", given->dbias, DT_F32, l, 1, &s->cols, &g->dbias));
    if (given->dweight && !blas_ready(&g->dweight))
        return slg_fail(ctx, SLG_ERR_STRIDE,
                        "grad.dweight has strides %lld, %lld: its rows must be "
                        "contiguous",
                        (long long)given->dweight->stride[0],
                        (long long)given->dweight->stride[1]);
    const slg_tensor *out[] = { given->dhidden, given->dweight, given->dbias };
    for (size_t i = 0; i < 3; i++)
        for (size_t j = i + 1; j < 3; j++)
            if (out[i] && out[j] &&
                (tensor_clash(out[i], out[j]) ||
                 (out[i]->data == out[j]->data && out[i]->data)))
                return slg_fail(ctx, SLG_ERR_STRIDE, "gradients overlap each other");
    return SLG_OK;
}

slg_status source_grad_open(slg_ctx *ctx, const slg_logits_grad *given,
                            const slg_logits *logits, const logit_source *s, source_grad *g)
{
    slg_logits_grad grad = grad_defaults;
    slg_logits l = defaults;
    *g = (source_grad){ 0 };
    if (!given) return SLG_OK;
    SLG_TRY(options_read(ctx, "grad", given, &grad, sizeof grad));
    SLG_TRY(options_read(ctx, "logits", logits, &l, sizeof l));
    if (grad.accumulate < 0 ||
        grad.accumulate > (SLG_ACCUMULATE_WEIGHTS | SLG_ACCUMULATE_INPUTS))
        return slg_fail(ctx, SLG_ERR_RANGE, "grad.accumulate is %d, must be from 0 to %d",
                        grad.accumulate, SLG_ACCUMULATE_WEIGHTS | SLG_ACCUMULATE_INPUTS);
    g->accumulate = grad.accumulate & SLG_ACCUMULATE_WEIGHTS;
    g->accumulate_input = grad.accumulate & SLG_ACCUMULATE_INPUTS;
    SLG_TRY(s->fused ? grad_fused(ctx, &grad, &l, s, g) : grad_dense(ctx, &grad, &l, s, g));
    g->wanted = grad.dlogits || grad.dhidden || grad.dweight || grad.dbias;
    return SLG_OK;
}

slg_status source_grad_reserve(const logit_source *s, source_grad *g)
{
    if (!g->dhidden.data || blas_ready(&g->dhidden)) return SLG_OK;
    g->dhidden_block =
        arena_alloc(s->ctx, (size_t)s->block_rows * (size_t)s->dim, sizeof(float));
    return g->dhidden_block ? SLG_OK : SLG_ERR_MEMORY;
}

float *source_grad_stage(const logit_source *s, const source_grad *g, int64_t row, int64_t from,
                         float *scratch)
{
    if (s->fused) return s->logits + (row - s->first) * s->cols + from;
    return g->accumulate_input ? scratch : rows_stage(&g->dlogits, row, from, scratch);
}

void source_grad_commit(const logit_source *s, const source_grad *g, int64_t row, int64_t from,
                        int64_t n, const float *slope, float *d, const float *scratch)
{
    const kernel_table *k = &s->ctx->k;
    if (s->softcap > 0 && slope) k->mul((size_t)n, slope, d);
    if (s->fused) return;
    if (!g->accumulate_input) {
        rows_commit(k, &g->dlogits, row, from, n, scratch);
        return;
    }
    float old[KERNEL_BLOCK];
    for (int64_t i = 0; i < n; i += KERNEL_BLOCK) {
        int64_t m = n - i < KERNEL_BLOCK ? n - i : KERNEL_BLOCK;
        k->add((size_t)m, rows_fetch(k, &g->dlogits, row, from + i, m, old), d + i);
        float *to = rows_stage(&g->dlogits, row, from + i, d + i);
        if (to != d + i) memcpy(to, d + i, (size_t)m * sizeof *to);
        rows_commit(k, &g->dlogits, row, from + i, m, d + i);
    }
}

static slg_status carry_hidden(logit_source *s, source_grad *g, int64_t first, int64_t count)
{
    int64_t ldw, ld = g->dhidden_block ? s->dim : lead(&g->dhidden), panel = panel_rows(s);
    float *out = g->dhidden_block ? g->dhidden_block : (float *)rows_at(&g->dhidden, first);
    if (s->cols == 0 && g->accumulate_input) return SLG_OK;
    if (g->dhidden_block && g->accumulate_input)
        widen_rows(&s->ctx->k, &g->dhidden, first, count, out);
    if (s->cols == 0) {
        for (int64_t r = 0; r < count; r++)
            for (int64_t i = 0; i < s->dim; i++) rows_put(&g->dhidden, first + r, i, 0.0);
        return SLG_OK;
    }
    for (int64_t c = 0; c < s->cols; c += panel) {
        int64_t n = s->cols - c < panel ? s->cols - c : panel;
        const float *w = weight_rows(s, c, n, &ldw);
        SLG_TRY(blas_sgemm(s->ctx, false, false, count, s->dim, n, 1.0f, s->logits + c, s->cols,
                           w, ldw, c == 0 && !g->accumulate_input ? 0.0f : 1.0f, out, ld));
    }
    if (!g->dhidden_block) return SLG_OK;
    for (int64_t r = 0; r < count; r++)
        for (int64_t c = 0; c < s->dim; c += KERNEL_BLOCK) {
            int64_t n = s->dim - c < KERNEL_BLOCK ? s->dim - c : KERNEL_BLOCK;
            float *to = rows_stage(&g->dhidden, first + r, c, out + r * s->dim + c);
            if (to != out + r * s->dim + c)
                memcpy(to, out + r * s->dim + c, (size_t)n * sizeof *to);
            rows_commit(&s->ctx->k, &g->dhidden, first + r, c, n, out + r * s->dim + c);
        }
    return SLG_OK;
}

typedef struct bias_sum {
    const logit_source *s;
    const source_grad *g;
    int64_t count;
    bool add;
} bias_sum;

/* Columns of one block: rows in order, so the sum does not depend on threads; some rows in
   float32, those in double, so that its error does not grow with their number. */
static void sum_bias(void *arg, int64_t task, int32_t worker)
{
    enum { FEW = 32 };
    const bias_sum *b = arg;
    const logit_source *s = b->s;
    int64_t from = task * KERNEL_BLOCK;
    int64_t n = s->cols - from < KERNEL_BLOCK ? s->cols - from : KERNEL_BLOCK;
    float few[KERNEL_BLOCK];
    double sum[KERNEL_BLOCK];
    (void)worker;
    for (int64_t i = 0; i < n; i++) sum[i] = b->add ? rows_get(&b->g->dbias, 0, from + i) : 0.0;
    for (int64_t first = 0; first < b->count; first += FEW) {
        int64_t last = b->count - first < FEW ? b->count : first + FEW;
        fill_f32(few, n, 0.0f);
        for (int64_t r = first; r < last; r++)
            s->ctx->k.add((size_t)n, s->logits + r * s->cols + from, few);
        for (int64_t i = 0; i < n; i++) sum[i] += (double)few[i];
    }
    for (int64_t i = 0; i < n; i++) rows_put(&b->g->dbias, 0, from + i, sum[i]);
}

/* A row whose gradient is 0 (ignored, or all masked) and whose hidden state is not finite: in a
   GEMM it would give 0 * NaN. */
static bool row_adds_nothing(const logit_source *s, const float *hidden, const float *gradient)
{
    int odd = 0;
    for (int64_t i = 0; i < s->dim; i++) odd |= !(fabsf(hidden[i]) <= FLT_MAX);
    if (!odd) return false;
    for (int64_t c = 0; c < s->cols; c++)
        if (gradient[c] != 0) return false;
    return true;
}

/* One GEMM, save where rows must be left out. */
static slg_status carry_weight(logit_source *s, source_grad *g, int64_t first, int64_t count,
                               bool add)
{
    int64_t ldh, to;
    const float *h = hidden_rows(s, first, &ldh);
    for (int64_t from = 0; from < count || !add; from = to + 1) {
        for (to = from; to < count; to++)
            if (row_adds_nothing(s, h + to * ldh, s->logits + to * s->cols)) break;
        if (to == from && to < count) continue;
        SLG_TRY(blas_sgemm(s->ctx, true, false, s->cols, s->dim, to > from ? to - from : 0,
                           1.0f, s->logits + from * s->cols, s->cols, h + from * ldh, ldh,
                           add ? 1.0f : 0.0f, (float *)rows_at(&g->dweight, 0),
                           lead(&g->dweight)));
        add = true;
    }
    return SLG_OK;
}

slg_status source_grad_carry(logit_source *s, source_grad *g, int64_t first, int64_t count)
{
    if (!s->fused || !g->wanted) return SLG_OK;
    bool add = g->accumulate || first > 0;
    if (g->dhidden.data) SLG_TRY(carry_hidden(s, g, first, count));
    if (g->dweight.data) SLG_TRY(carry_weight(s, g, first, count, add));
    if (g->dbias.data) {
        bias_sum b = { s, g, count, add };
        pool_run(s->ctx, (s->cols + KERNEL_BLOCK - 1) / KERNEL_BLOCK, sum_bias, &b);
    }
    return SLG_OK;
}

static void zero_rows(const rows *m)
{
    for (int64_t r = 0; r < m->count; r++)
        for (int64_t c = 0; c < m->cols; c++) rows_put(m, r, c, 0.0);
}

void source_grad_none(const logit_source *s, const source_grad *g)
{
    if (!s->fused || s->rows > 0 || g->accumulate) return;
    if (g->dweight.data) zero_rows(&g->dweight);
    if (g->dbias.data) zero_rows(&g->dbias);
}
