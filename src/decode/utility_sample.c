/*
 * utility_sample.c - see softlogit/utility.h.
 */
#include <math.h>

#include "core/options.h"
#include "core/rng.h"
#include "softlogit/utility.h"
#include "softmax/draw.h"

static const slg_utility_sample_opts defaults = {
    .size = sizeof(slg_utility_sample_opts),
    .temperature = 1,
};

void slg_utility_sample_opts_init(slg_utility_sample_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct sample_run {
    slg_ctx *ctx;
    slg_utility_sample_opts opts;
    rows_source x;
    rows noise, index; /* noise.data NULL: none */
    exp_arg arg;
    uint64_t seed, offset;
    int64_t count, cols, ranges, top;
    float *worker; /* cols + top floats each, where top > 0 */
} sample_run;

/* ---- The largest `top` ------------------------------------------------------------------ */

/* Restores a heap with its least at the front after heap[0] has changed. */
static void sink(float *heap, int64_t n)
{
    for (int64_t i = 0;;) {
        int64_t child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[i] <= heap[child]) return;
        float t = heap[i];
        heap[i] = heap[child], heap[child] = t;
        i = child;
    }
}

/* Masks in x all but the largest `top`, of equals the first. A NaN stays, and makes the row
   NaN. */
static void keep_top(float *x, int64_t n, float *heap, int64_t top)
{
    int64_t equals = 0;
    if (top >= n) return;
    for (int64_t i = 0; i < top; i++) heap[i] = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] > heap[0])) continue;
        heap[0] = x[i];
        sink(heap, top);
    }
    for (int64_t i = 0; i < top; i++) equals += heap[i] == heap[0];
    for (int64_t i = 0; i < n; i++) {
        if (x[i] > heap[0] || isnan(x[i]) || (x[i] == heap[0] && equals-- > 0)) continue;
        x[i] = -INFINITY;
    }
}

static const float *fetch_row(const void *source, int64_t row, int64_t col, int64_t n,
                              float *scratch)
{
    (void)row, (void)n, (void)scratch;
    return (const float *)source + col;
}

/* ---- A row ------------------------------------------------------------------------------ */

/* The largest utility + temperature * noise; of +inf utilities the largest noise. */
static int64_t largest(const sample_run *s, int64_t row, row_fetch fetch, const void *source)
{
    float scratch[KERNEL_BLOCK];
    const bool noisy = s->noise.data && s->opts.temperature > 0;
    double best = 0;
    bool infinite = false;
    int64_t at = -1;
    for (int64_t col = 0; col < s->cols; col += KERNEL_BLOCK) {
        int64_t n = s->cols - col < KERNEL_BLOCK ? s->cols - col : KERNEL_BLOCK;
        const float *x = fetch(source, row, col, n, scratch);
        for (int64_t i = 0; i < n; i++) {
            if (isnan(x[i])) return -1;
            if (x[i] == -INFINITY || (infinite && x[i] < INFINITY)) continue;
            const double g = noisy ? rows_get(&s->noise, row, col + i) : 0;
            const bool first = x[i] == INFINITY && !infinite;
            const double v = x[i] == INFINITY ? g : (double)x[i] + s->opts.temperature * g;
            infinite = infinite || (first && !isnan(v));
            if (isnan(v) || (at >= 0 && !first && v <= best)) continue;
            best = v;
            at = col + i;
        }
    }
    return at;
}

static void sample_row(const sample_run *s, int64_t row, float *own)
{
    row_fetch fetch = rows_source_fetch;
    const void *source = &s->x;
    int64_t index;
    if (s->top > 0) {
        for (int64_t col = 0; col < s->cols; col += KERNEL_BLOCK) {
            int64_t n = s->cols - col < KERNEL_BLOCK ? s->cols - col : KERNEL_BLOCK;
            const float *x = rows_fetch(&s->ctx->k, &s->x.x, row, col, n, own + col);
            if (x == own + col) continue;
            for (int64_t i = 0; i < n; i++) own[col + i] = x[i];
        }
        keep_top(own, s->cols, own + s->cols, s->top);
        fetch = fetch_row, source = own;
    }
    if (s->noise.data || s->opts.temperature == 0) {
        index = largest(s, row, fetch, source);
    } else {
        draw_point point = { rng_uniform(s->seed, s->offset + (uint64_t)row), 0 };
        row_draw(&s->ctx->k, &s->arg, row, s->cols, fetch, source, 1, &point, &index);
    }
    rows_put(&s->index, row, 0, (double)index);
}

static void some_rows(void *arg, int64_t task, int32_t worker)
{
    const sample_run *s = arg;
    float *own = s->top > 0 ? s->worker + worker * (s->cols + s->top) : NULL;
    int64_t to = pool_range_start(s->count, s->ranges, task + 1);
    for (int64_t r = pool_range_start(s->count, s->ranges, task); r < to; r++)
        sample_row(s, r, own);
}

/* ---- The call --------------------------------------------------------------------------- */

static slg_status check_tensors(sample_run *s, const slg_tensor *utility,
                                const slg_tensor *noise, const slg_tensor *index)
{
    slg_ctx *ctx = s->ctx;
    SLG_TRY(tensor_in(ctx, "utility", utility, DT_ROW, 2, 2));
    op_detail(ctx, utility);
    s->count = utility->shape[0], s->cols = utility->shape[1];
    s->x = (rows_source){ &ctx->k, rows_of(utility) };
    if (noise) {
        SLG_TRY(tensor_in(ctx, "noise", noise, DT_F32 | DT_F64, 2, 2));
        SLG_TRY(tensor_same_shape(ctx, "noise", noise, "utility", utility));
        s->noise = rows_of(noise);
    }
    SLG_TRY(tensor_out(ctx, "index", index, DT_INT, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "index", index, 1, &s->count));
    s->index = rows_per_row(index);
    if (outputs_clash(index, utility) || outputs_clash(index, noise))
        return slg_fail(ctx, SLG_ERR_STRIDE, "index overlaps an input");
    return SLG_OK;
}

static slg_status sample(slg_ctx *ctx, const slg_tensor *utility, const slg_tensor *noise,
                         const slg_utility_sample_opts *opts, slg_rng *rng, slg_tensor *index)
{
    sample_run s = { .ctx = ctx, .opts = defaults };
    SLG_TRY(options_read(ctx, "opts", opts, &s.opts, sizeof s.opts));
    const double t = s.opts.temperature;
    if (!(t == 0 || (t >= 1e-30 && t <= 1e30)))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "temperature is %g, must be 0 or from 1e-30 to 1e30", t);
    if (s.opts.top < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "top is %d, must be at least 0", s.opts.top);
    SLG_TRY(check_tensors(&s, utility, noise, index));
    const bool draws = !noise && t > 0;
    if (draws && !rng) return slg_fail(ctx, SLG_ERR_NULL, "rng is NULL, and there is no noise");
    if (draws) s.seed = rng->seed, s.offset = rng->offset;
    s.arg = exp_arg_of(t > 0 ? t : 1, 0);
    s.top = s.opts.top < s.cols ? s.opts.top : 0;
    if (s.top > 0) {
        s.worker = arena_alloc(ctx, (size_t)(s.cols + s.top) * (size_t)ctx->num_threads,
                               sizeof(float));
        if (!s.worker) return SLG_ERR_MEMORY;
    }
    s.ranges = pool_ranges(ctx, s.count, (1 << 14) / (s.cols + 1) + 1);
    pool_run(ctx, s.ranges, some_rows, &s);
    if (draws) rng->offset += (uint64_t)s.count;
    return SLG_OK;
}

slg_status slg_utility_sample(slg_ctx *ctx, const slg_tensor *utility, const slg_tensor *noise,
                              const slg_utility_sample_opts *opts, slg_rng *rng,
                              slg_tensor *index)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_utility_sample");
    return op_end(ctx, sample(ctx, utility, noise, opts, rng, index));
}
