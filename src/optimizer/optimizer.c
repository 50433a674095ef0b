/*
 * optimizer.c - the handle: a rule, its options and its state. A step is one pass over memory,
 * in pieces that depend on n alone; each weight is updated by itself, so threads do not matter.
 */
#include <math.h>
#include <stdalign.h>
#include <stddef.h>
#include <string.h>

#include "core/tensor.h"
#include "rules.h"

/* Weights a task updates: large enough to hide the pool, small enough to share evenly. */
enum { PIECE = 1 << 16 };

struct slg_optimizer {
    slg_ctx *ctx;
    const rule *rule;
    rule_opts opts;
    int64_t n, steps;
    int32_t arrays;
    double grad_scale;
    float *state[STATE_ARRAYS_MAX];
};

const rule *rule_of(int32_t kind)
{
    static const rule *const rules[] = { &rule_sgd, &rule_adamw, &rule_optimistic };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i]->kind == kind) return rules[i];
    return NULL;
}

slg_status rule_range(slg_ctx *ctx, const char *name, double value, double low, double high,
                      bool open)
{
    if (value >= low && (open ? value < high : value <= high)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "%s is %g, must be from %g to %s%g", name, value, low,
                    open ? "below " : "", high);
}

/* ---- Life ------------------------------------------------------------------------------- */

static void zero_state(slg_optimizer *o)
{
    for (int32_t i = 0; i < o->arrays; i++)
        memset(o->state[i], 0, (size_t)o->n * sizeof(float));
    o->steps = 0;
}

static slg_status create(slg_ctx *ctx, int32_t kind, int64_t n, const void *opts,
                         slg_optimizer **out)
{
    const rule *r = rule_of(kind);
    rule_opts options;
    if (!r) return slg_fail(ctx, SLG_ERR_RANGE, "kind is %d, there is no such optimizer", kind);
    if (n < 0 || n > INT64_MAX / 64)
        return slg_fail(ctx, SLG_ERR_RANGE, "n is %lld, must be at least 0", (long long)n);
    SLG_TRY(r->open(ctx, opts, &options));
    slg_optimizer *o = ctx_alloc(ctx, sizeof *o);
    if (!o) return SLG_ERR_MEMORY;
    *o = (slg_optimizer){ .ctx = ctx, .rule = r, .opts = options, .n = n, .grad_scale = 1 };
    o->arrays = r->arrays(&options);
    for (int32_t i = 0; i < o->arrays && n > 0; i++) {
        o->state[i] = ctx_alloc(ctx, (size_t)n * sizeof(float));
        if (!o->state[i]) {
            slg_optimizer_free(o);
            return SLG_ERR_MEMORY;
        }
    }
    if (n > 0) zero_state(o);
    *out = o;
    return SLG_OK;
}

slg_status slg_optimizer_create(slg_ctx *ctx, int32_t kind, int64_t n, const void *opts,
                                slg_optimizer **o)
{
    if (!ctx || !o) return SLG_ERR_NULL;
    *o = NULL;
    op_begin(ctx, "slg_optimizer_create");
    return op_end(ctx, create(ctx, kind, n, opts, o));
}

void slg_optimizer_free(slg_optimizer *o)
{
    if (!o) return;
    slg_ctx *ctx = o->ctx;
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++)
        if (o->state[i]) ctx_free(ctx, o->state[i]);
    ctx_free(ctx, o);
}

/* ---- Steps ------------------------------------------------------------------------------ */

typedef struct step_run {
    const slg_optimizer *o;
    const void *args;
    float *w;
    const float *dw;
    int64_t n, offset; /* of this tensor in the state */
} step_run;

static void update_piece(void *arg, int64_t task, int32_t worker)
{
    const step_run *s = arg;
    int64_t from = task * PIECE, n = s->n - from < PIECE ? s->n - from : PIECE;
    float *state[STATE_ARRAYS_MAX] = { 0 };
    (void)worker;
    for (int32_t i = 0; i < s->o->arrays; i++) state[i] = s->o->state[i] + s->offset + from;
    s->o->rule->update(&s->o->ctx->k, s->args, (size_t)n, s->w + from, s->dw + from, state);
}

static slg_status check_pair(slg_optimizer *o, slg_tensor *w, const slg_tensor *dw)
{
    slg_ctx *ctx = o->ctx;
    SLG_TRY(tensor_out(ctx, "w", w, DT_F32, 1, 4));
    SLG_TRY(tensor_in(ctx, "dw", dw, DT_F32, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, "dw", dw, "w", w));
    if (!tensor_contiguous(w) || !tensor_contiguous(dw))
        return slg_fail(ctx, SLG_ERR_STRIDE, "w and dw must be contiguous");
    if (tensor_clash(w, dw) || (w->data == dw->data && tensor_size(w) > 0))
        return slg_fail(ctx, SLG_ERR_STRIDE, "w and dw overlap");
    return SLG_OK;
}

static slg_status step_list(slg_optimizer *o, int64_t count, slg_tensor *const *w,
                            const slg_tensor *const *dw)
{
    int64_t total = 0;
    if (count < 0 || (count > 0 && (!w || !dw)))
        return slg_fail(o->ctx, SLG_ERR_NULL, "w or dw is NULL, or count is %lld",
                        (long long)count);
    for (int64_t i = 0; i < count; i++) {
        SLG_TRY(check_pair(o, w[i], dw[i]));
        if (__builtin_add_overflow(total, tensor_size(w[i]), &total)) total = -1;
    }
    if (total != o->n)
        return slg_fail(o->ctx, SLG_ERR_SHAPE,
                        "w has %lld elements, the optimizer was made for %lld",
                        (long long)total, (long long)o->n);
    op_detail(o->ctx, count > 0 ? w[0] : NULL);

    alignas(16) char args[RULE_ARGS_MAX];
    o->steps++;
    o->rule->prepare(&o->opts, o->steps, o->grad_scale, args);
    int64_t offset = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t n = tensor_size(w[i]);
        step_run run = { o, args, w[i]->data, dw[i]->data, n, offset };
        pool_run(o->ctx, (n + PIECE - 1) / PIECE, update_piece, &run);
        offset += n;
    }
    return SLG_OK;
}

slg_status slg_optimizer_step_list(slg_optimizer *o, int64_t count, slg_tensor *const *w,
                                   const slg_tensor *const *dw)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_step");
    return op_end(o->ctx, step_list(o, count, w, dw));
}

slg_status slg_optimizer_step(slg_optimizer *o, slg_tensor *w, const slg_tensor *dw)
{
    return slg_optimizer_step_list(o, 1, &w, &dw);
}

slg_status slg_optimizer_set_lr(slg_optimizer *o, double lr)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_set_lr");
    slg_status status = rule_range(o->ctx, "lr", lr, 0, RATE_MAX, true);
    if (status == SLG_OK) *o->rule->lr(&o->opts) = lr;
    return op_end(o->ctx, status);
}

slg_status slg_optimizer_set_grad_scale(slg_optimizer *o, double scale)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_set_grad_scale");
    slg_status status =
        isfinite((float)scale)
            ? SLG_OK
            : slg_fail(o->ctx, SLG_ERR_RANGE, "scale is %g, must be finite in float32", scale);
    if (status == SLG_OK) o->grad_scale = scale;
    return op_end(o->ctx, status);
}

int64_t slg_optimizer_steps(const slg_optimizer *o) { return o ? o->steps : 0; }

slg_status slg_optimizer_reset(slg_optimizer *o)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_reset");
    if (o->n > 0) zero_state(o);
    o->steps = 0;
    return op_end(o->ctx, SLG_OK);
}

/* ---- State as bytes --------------------------------------------------------------------- */

/* In front of the arrays. Little-endian, as is everything that this library runs on. */
typedef struct state_header {
    char magic[8];
    int32_t kind, arrays;
    int64_t n, steps;
    uint64_t checksum; /* of what comes before it and of the arrays */
} state_header;

static const char magic[8] = { 's', 'l', 'g', 'o', 'p', 't', '0', '1' };

/* FNV-1a over 32-bit words: enough to tell a damaged file. */
static uint64_t checksum_of(uint64_t sum, const char *bytes, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, bytes + 4 * i, 4);
        sum = (sum ^ word) * 0x100000001B3u;
    }
    return sum;
}

static uint64_t checksum_start(const state_header *h)
{
    return checksum_of(0xCBF29CE484222325u, (const char *)h,
                       offsetof(state_header, checksum) / 4);
}

static int64_t state_bytes(const slg_optimizer *o)
{
    return (int64_t)sizeof(state_header) + o->arrays * o->n * (int64_t)sizeof(float);
}

slg_status slg_optimizer_export(slg_optimizer *o, void *buffer, int64_t capacity,
                                int64_t *bytes)
{
    if (!o || !bytes) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_export");
    *bytes = state_bytes(o);
    if (!buffer) return op_end(o->ctx, SLG_OK);
    if (capacity < *bytes)
        return op_end(o->ctx, slg_fail(o->ctx, SLG_ERR_RANGE,
                                       "capacity is %lld bytes, the state needs %lld",
                                       (long long)capacity, (long long)*bytes));
    state_header h = {
        .kind = o->rule->kind, .arrays = o->arrays, .n = o->n, .steps = o->steps
    };
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = checksum_start(&h);
    char *to = (char *)buffer + sizeof h;
    for (int32_t i = 0; i < o->arrays && o->n > 0; i++) {
        memcpy(to, o->state[i], (size_t)o->n * sizeof(float));
        h.checksum = checksum_of(h.checksum, to, (size_t)o->n);
        to += (size_t)o->n * sizeof(float);
    }
    memcpy(buffer, &h, sizeof h);
    return op_end(o->ctx, SLG_OK);
}

static slg_status import(slg_optimizer *o, const char *buffer, int64_t bytes)
{
    state_header h;
    if (!buffer) return slg_fail(o->ctx, SLG_ERR_NULL, "buffer is NULL");
    if (bytes < (int64_t)sizeof h)
        return slg_fail(o->ctx, SLG_ERR_STATE, "%lld bytes are too few for a state",
                        (long long)bytes);
    memcpy(&h, buffer, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return slg_fail(o->ctx, SLG_ERR_STATE, "buffer does not hold an optimizer's state");
    if (h.kind != o->rule->kind || h.n != o->n || h.arrays != o->arrays || h.steps < 0)
        return slg_fail(o->ctx, SLG_ERR_STATE,
                        "state is of kind %d, n %lld, %d arrays; the optimizer of %d, %lld, %d",
                        h.kind, (long long)h.n, h.arrays, o->rule->kind, (long long)o->n,
                        o->arrays);
    if (bytes != state_bytes(o))
        return slg_fail(o->ctx, SLG_ERR_STATE, "state has %lld bytes, must have %lld",
                        (long long)bytes, (long long)state_bytes(o));
    const char *from = buffer + sizeof h;
    size_t words = (size_t)o->arrays * (size_t)o->n;
    if (checksum_of(checksum_start(&h), from, words) != h.checksum)
        return slg_fail(o->ctx, SLG_ERR_STATE, "state is damaged: its checksum does not fit");
    for (int32_t i = 0; i < o->arrays && o->n > 0; i++)
        memcpy(o->state[i], from + (size_t)i * (size_t)o->n * sizeof(float),
               (size_t)o->n * sizeof(float));
    o->steps = h.steps;
    return SLG_OK;
}

slg_status slg_optimizer_import(slg_optimizer *o, const void *buffer, int64_t bytes)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_import");
    return op_end(o->ctx, import(o, buffer, bytes));
}
