/*
 * optimizer_state.c - an optimizer's state as bytes: see optimizer.h.
 */
#include <stddef.h>
#include <string.h>

#include "core/state_bytes.h"
#include "core/tensor.h"
#include "handle.h"

/* In front of the arrays. */
typedef struct state_header {
    char magic[8];
    int32_t kind, dtype;
    int64_t n, steps;
    double memory;
    uint32_t arrays;
    uint32_t layout;   /* see layout_of */
    uint64_t checksum; /* of what comes before it and of the arrays */
} state_header;

static const char magic[8] = { 's', 'l', 'g', 'o', 'p', 't', '0', '2' };

/* A hash of where the matrices are, for a rule that sees them: arrays of the same length may
   belong to others. 0 where there is none. */
static uint32_t layout_of(const slg_optimizer *o)
{
    uint64_t sum = 0;
    int64_t offset = 0;
    for (int64_t i = 0; o->rule->whole && i < o->shaped; i++) {
        const int64_t n = tensor_size(&o->shapes[i]), high = shape_rows(&o->shapes[i]);
        const int64_t matrix[3] = { offset, n, high };
        if (high > 1 && n > high)
            sum = checksum_of(sum ? sum : CHECKSUM_START, matrix, sizeof matrix);
        offset += n;
    }
    return (uint32_t)(sum ^ sum >> 32);
}

static void parts_of(const slg_optimizer *o, state_part parts[STATE_ARRAYS_MAX])
{
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++)
        parts[i] = (state_part){ o->state[i], state_array_bytes(o, i) };
}

slg_status slg_optimizer_export(slg_optimizer *o, void *buffer, int64_t capacity,
                                int64_t *bytes)
{
    state_part parts[STATE_ARRAYS_MAX];
    if (!o || !bytes) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_export");
    state_header h = { .kind = o->rule->kind,
                       .dtype = o->setup.state_dtype,
                       .n = o->n,
                       .steps = o->steps,
                       .memory = o->memory,
                       .arrays = o->arrays,
                       .layout = layout_of(o) };
    memcpy(h.magic, magic, sizeof magic);
    parts_of(o, parts);
    return op_end(o->ctx, state_write(o->ctx, &h, sizeof h, parts, STATE_ARRAYS_MAX, buffer,
                                      capacity, bytes));
}

static slg_status check_header(slg_optimizer *o, const state_header *h)
{
    slg_ctx *ctx = o->ctx;
    if (h->kind != o->rule->kind || h->n != o->n || h->arrays != o->arrays || h->steps < 0)
        return slg_fail(ctx, SLG_ERR_STATE,
                        "state is of kind %d, n %lld, arrays %x; the optimizer of %d, %lld, %x",
                        h->kind, (long long)h->n, h->arrays, o->rule->kind, (long long)o->n,
                        o->arrays);
    if (h->dtype != o->setup.state_dtype)
        return slg_fail(ctx, SLG_ERR_STATE, "state has dtype %d, the optimizer %d", h->dtype,
                        o->setup.state_dtype);
    if (h->layout != layout_of(o))
        return slg_fail(ctx, SLG_ERR_STATE, "state is that of matrices of other shapes");
    return SLG_OK;
}

static slg_status import(slg_optimizer *o, const void *buffer, int64_t bytes)
{
    state_header h;
    state_part parts[STATE_ARRAYS_MAX];
    SLG_TRY(state_open(o->ctx, "an optimizer", magic, buffer, bytes, &h, sizeof h));
    SLG_TRY(check_header(o, &h));
    parts_of(o, parts);
    const int64_t total = state_total(sizeof h, parts, STATE_ARRAYS_MAX);
    SLG_TRY(state_check(o->ctx, &h, sizeof h, total, buffer, bytes));
    state_read(buffer, sizeof h, parts, STATE_ARRAYS_MAX);
    o->steps = h.steps;
    o->memory = h.memory;
    return SLG_OK;
}

slg_status slg_optimizer_import(slg_optimizer *o, const void *buffer, int64_t bytes)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_import");
    return op_end(o->ctx, import(o, buffer, bytes));
}
