/*
 * moe_gate.c - the top-K sparse softmax gate: see softlogit/moe.h. Rows go in blocks through
 * the kernel that selects; differences from a row's maximum, taken in double, through one
 * exponential a block.
 */
#include "moe_gate.h"

#include "softmax/parts.h"
#include "softmax/top_items.h"

enum { LADDER = 16, MOST_EXPERTS = 1 << 24 }; /* what the kernel takes */

static const slg_moe_gate_opts defaults = { .size = sizeof(slg_moe_gate_opts), .chosen = 2 };

void slg_moe_gate_opts_init(slg_moe_gate_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

slg_status gate_options(slg_ctx *ctx, const slg_moe_gate_opts *given, slg_moe_gate_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "bias", o->bias, SLG_MOE_BIAS_WEIGHT, SLG_MOE_BIAS_CHOICE));
    return option_choice(ctx, "accumulate", o->accumulate, 0, 1);
}

slg_status gate_open(gate_call *c, int64_t rows_count, const slg_tensor *bias,
                     const slg_tensor *noise, slg_tensor *index, slg_tensor *weight,
                     slg_tensor *dense, slg_tensor *flag)
{
    slg_ctx *ctx = c->ctx;
    const int64_t k = c->experts, chosen = c->opts.chosen;
    if (k > MOST_EXPERTS)
        return slg_fail(ctx, SLG_ERR_SHAPE, "%lld experts, at most %d are possible",
                        (long long)k, MOST_EXPERTS);
    if (chosen < 1 || chosen > k)
        return slg_fail(ctx, SLG_ERR_RANGE, "chosen is %lld, must be from 1 to %lld experts",
                        (long long)chosen, (long long)k);
    if (bias) SLG_TRY(moe_in_1d(ctx, "bias", bias, DT_F32 | DT_F64, k));
    if (noise) SLG_TRY(moe_in(ctx, "noise", noise, DT_ROW, rows_count, k));
    SLG_TRY(moe_out(ctx, "index", index, DT_I32, rows_count, chosen));
    SLG_TRY(moe_out(ctx, "weight", weight, DT_ROW, rows_count, chosen));
    if (dense) SLG_TRY(moe_out(ctx, "dense", dense, DT_ROW, rows_count, k));
    if (flag) SLG_TRY(moe_out_1d(ctx, "flag", flag, DT_I32, rows_count));
    c->index = rows_of(index), c->weight = rows_of(weight);
    c->noisy = noise != NULL, c->has_dense = dense != NULL, c->has_flag = flag != NULL;
    if (noise) c->noise = rows_of(noise);
    if (dense) c->dense = rows_of(dense);
    if (flag) c->flag = rows_per_row(flag);
    return SLG_OK;
}

/* Of a worker: a block of rows, a row; for each of the chosen its score, weight and index;
   items to sort. */
slg_status gate_scratch(gate_call *c, const slg_tensor *bias)
{
    slg_ctx *ctx = c->ctx;
    const int64_t k = c->experts, chosen = c->opts.chosen;
    if (bias) {
        double *b = moe_vector(ctx, bias, k);
        float *b_32 = arena_alloc(ctx, (size_t)k, sizeof *b_32);
        if (!b || !b_32) return SLG_ERR_MEMORY;
        for (int64_t i = 0; i < k; i++) b_32[i] = (float)b[i];
        c->bias = b, c->bias_32 = b_32;
    }
    int64_t items = chosen > LADDER ? top_k_room(k, chosen) : 0;
    c->per_worker = ((MOE_ROWS + 1) * k + 3 * MOE_ROWS * chosen + 2 * items + 15) / 16 * 16;
    c->scratch = arena_alloc(ctx, (size_t)(c->per_worker * ctx->num_threads), sizeof(float));
    return c->scratch ? SLG_OK : SLG_ERR_MEMORY;
}

/* ---- The choice -------------------------------------------------------------------------- */

/* What the choice looks at, of a row: s, and the bias where it takes part. */
static void fetch_row(const gate_call *c, int64_t r, float *to)
{
    const kernel_table *k = &c->ctx->k;
    const size_t n = (size_t)c->experts;
    const float *from = rows_fetch(k, &c->score, r, 0, c->experts, to);
    if (from != to) memcpy(to, from, n * sizeof *to);
    if (c->noisy) {
        float *noise = to + n; /* the row after it is not filled yet */
        k->add(n, rows_fetch(k, &c->noise, r, 0, c->experts, noise), to);
    }
    if (c->bias && c->opts.bias != SLG_MOE_BIAS_WEIGHT) k->add(n, c->bias_32, to);
}

/* Rows of scores as the kernel takes them: where they are, or in scratch. */
static const float *block_of(const gate_call *c, int64_t first, int64_t count, float *scratch,
                             size_t *ld)
{
    const rows *s = &c->score;
    const bool as_is = !c->noisy && (!c->bias || c->opts.bias == SLG_MOE_BIAS_WEIGHT);
    if (as_is && s->plain && s->outer <= 1 && (s->outer == 0 || s->stride[0] >= 0)) {
        *ld = s->outer ? (size_t)s->stride[0] : (size_t)s->cols;
        return (const float *)(const void *)rows_at(s, first);
    }
    *ld = (size_t)c->experts;
    for (int64_t i = 0; i < count; i++) fetch_row(c, first + i, scratch + i * c->experts);
    return scratch;
}

static bool before(top_item a, top_item b)
{
    return a.x > b.x || (a.x == b.x && a.index < b.index);
}

/* Heap sort: the best first. */
static void sort_items(top_item *a, int64_t n)
{
    for (int64_t end = n, start = n / 2; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            const top_item worst = a[0];
            a[0] = a[--end], a[end] = worst;
        }
        for (int64_t at = start, child; (child = 2 * at + 1) < end; at = child) {
            if (child + 1 < end && before(a[child], a[child + 1])) child++;
            if (!before(a[at], a[child])) break;
            const top_item t = a[at];
            a[at] = a[child], a[child] = t;
        }
    }
}

/* More than the ladder holds: the kernel's contract, a row. */
static void select_many(const gate_call *c, const float *x, top_item *items, float *value,
                        int32_t *index)
{
    const int64_t k = c->experts, chosen = c->opts.chosen;
    bool nan = false;
    for (int64_t i = 0; i < k; i++) nan |= isnan(x[i]);
    for (int64_t j = 0; nan && j < chosen; j++) value[j] = NAN, index[j] = (int32_t)j;
    if (nan) return;
    const int64_t found = top_k(&c->ctx->k, k, x, chosen, items);
    sort_items(items, found);
    for (int64_t j = 0; j < found; j++) value[j] = items[j].x, index[j] = items[j].index;
    for (int64_t i = 0, j = found; j < chosen; i++)
        if (!(x[i] > -INFINITY)) value[j] = -INFINITY, index[j++] = (int32_t)i;
}

/* ---- The weights ------------------------------------------------------------------------- */

/* s + bias of one that was chosen. Where the choice looked at another number than s, s is
   formed again. */
static double logit(const gate_call *c, int64_t r, float value, int32_t i)
{
    double s = (double)value;
    if (c->bias && c->opts.bias != SLG_MOE_BIAS_WEIGHT) {
        s = rows_get(&c->score, r, i);
        if (c->noisy) s = (double)(float)(s + rows_get(&c->noise, r, i));
    }
    return c->bias && c->opts.bias != SLG_MOE_BIAS_CHOICE ? s + c->bias[i] : s;
}

/* Those of a row, less the largest, to t; what is to be said of the row. */
static int32_t differences(const gate_call *c, int64_t r, const float *value,
                           const int32_t *index, float *t)
{
    const int64_t chosen = c->opts.chosen;
    double top = -(double)INFINITY;
    bool nan = isnan(value[0]);
    for (int64_t j = 0; j < chosen && !nan; j++) {
        const double z = logit(c, r, value[j], index[j]);
        nan = isnan(z) || z == (double)INFINITY;
        if (z > top) top = z;
    }
    const bool masked = !nan && !(top > -(double)INFINITY);
    for (int64_t j = 0; j < chosen; j++)
        t[j] = nan ? NAN : masked ? -INFINITY : (float)(logit(c, r, value[j], index[j]) - top);
    return nan ? SLG_MOE_ROW_NAN : masked ? SLG_MOE_ROW_MASKED : SLG_MOE_ROW;
}

static void write_row(const gate_call *c, int64_t r, const int32_t *index, float *weight,
                      float *row)
{
    const kernel_table *k = &c->ctx->k;
    const int64_t chosen = c->opts.chosen;
    for (int64_t j = 0; j < chosen; j++) *moe_int(&c->index, r, j) = index[j];
    float *to = rows_stage(&c->weight, r, 0, row);
    memcpy(to, weight, (size_t)chosen * sizeof *to);
    rows_commit(k, &c->weight, r, 0, chosen, to);
    if (!c->has_dense) return;
    to = rows_stage(&c->dense, r, 0, row);
    memset(to, 0, (size_t)c->experts * sizeof *to);
    for (int64_t j = 0; j < chosen; j++) to[index[j]] = weight[j];
    rows_commit(k, &c->dense, r, 0, c->experts, to);
}

static void gate_task(void *arg, int64_t task, int32_t worker)
{
    const gate_call *c = arg;
    const int64_t first = task * MOE_ROWS, chosen = c->opts.chosen;
    const int64_t count = moe_least(MOE_ROWS, c->score.count - first);
    float *block = c->scratch + worker * c->per_worker;
    float *row = block + MOE_ROWS * c->experts;
    float *value = row + c->experts, *t = value + MOE_ROWS * chosen;
    int32_t *index = (int32_t *)(void *)(t + MOE_ROWS * chosen);
    top_item *items = (top_item *)(void *)(index + MOE_ROWS * chosen);
    size_t ld;
    const float *x = block_of(c, first, count, block, &ld);
    if (chosen <= LADDER)
        c->ctx->k.select_top((size_t)count, (size_t)c->experts, x, ld, (int)chosen, value,
                             index);
    for (int64_t i = 0; i < count && chosen > LADDER; i++)
        select_many(c, x + i * (int64_t)ld, items, value + i * chosen, index + i * chosen);
    for (int64_t i = 0; i < count; i++) {
        const int32_t flag =
            differences(c, first + i, value + i * chosen, index + i * chosen, t + i * chosen);
        if (c->has_flag) *moe_int(&c->flag, first + i, 0) = flag;
    }
    const exp_out e = { exp_arg_of(1.0, 0.0f), 0.0f, 1.0f, 0.0f };
    c->ctx->k.exp_emit((size_t)(count * chosen), t, &e, t, STORE_CACHED);
    for (int64_t i = 0; i < count; i++) {
        float *w = t + i * chosen;
        double sum = 0;
        for (int64_t j = 0; j < chosen; j++) sum += (double)w[j];
        for (int64_t j = 0; j < chosen; j++)
            w[j] = sum == 0 ? 0.0f : (float)((double)w[j] / sum);
        write_row(c, first + i, index + i * chosen, w, row);
    }
}

void gate_run(gate_call *c) { pool_run(c->ctx, moe_tasks(c->score.count), gate_task, c); }

static slg_status gate(slg_ctx *ctx, const slg_tensor *score, const slg_tensor *bias,
                       const slg_tensor *noise, const slg_moe_gate_opts *opts,
                       slg_tensor *index, slg_tensor *weight, slg_tensor *dense,
                       slg_tensor *flag)
{
    gate_call c = { .ctx = ctx };
    SLG_TRY(gate_options(ctx, opts, &c.opts));
    SLG_TRY(tensor_in(ctx, "score", score, DT_ROW, 2, 2));
    c.experts = score->shape[1];
    SLG_TRY(gate_open(&c, score->shape[0], bias, noise, index, weight, dense, flag));
    const moe_operand in[] = { { "score", score }, { "bias", bias }, { "noise", noise } };
    const moe_operand out[] = {
        { "index", index }, { "weight", weight }, { "dense", dense }, { "flag", flag }
    };
    SLG_TRY(moe_apart(ctx, 4, out, 3, in));
    op_detail(ctx, score);
    c.score = rows_of(score);
    if (c.score.count == 0) return SLG_OK;
    SLG_TRY(gate_scratch(&c, bias));
    gate_run(&c);
    return SLG_OK;
}

slg_status slg_moe_gate(slg_ctx *ctx, const slg_tensor *score, const slg_tensor *bias,
                        const slg_tensor *noise, const slg_moe_gate_opts *opts,
                        slg_tensor *index, slg_tensor *weight, slg_tensor *dense,
                        slg_tensor *flag)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_gate");
    return op_end(ctx, gate(ctx, score, bias, noise, opts, index, weight, dense, flag));
}
