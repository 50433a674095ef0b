/*
 * optimizer_state.c - an optimizer's state as bytes: see optimizer.h.
 */
#include <stddef.h>
#include <string.h>

#include "core/checksum.h"
#include "core/tensor.h"
#include "handle.h"

/* In front of the arrays. Little-endian, as is everything that this library runs on. */
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

static uint64_t checksum_start(const state_header *h)
{
    return checksum_of(CHECKSUM_START, h, offsetof(state_header, checksum));
}

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

static int64_t state_bytes(const slg_optimizer *o)
{
    size_t bytes = sizeof(state_header);
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++) bytes += state_array_bytes(o, i);
    return (int64_t)bytes;
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
    state_header h = { .kind = o->rule->kind,
                       .dtype = o->setup.state_dtype,
                       .n = o->n,
                       .steps = o->steps,
                       .memory = o->memory,
                       .arrays = o->arrays,
                       .layout = layout_of(o) };
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = checksum_start(&h);
    char *to = (char *)buffer + sizeof h;
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++) {
        if (!o->state[i]) continue;
        memcpy(to, o->state[i], state_array_bytes(o, i));
        h.checksum = checksum_of(h.checksum, to, state_array_bytes(o, i));
        to += state_array_bytes(o, i);
    }
    memcpy(buffer, &h, sizeof h);
    return op_end(o->ctx, SLG_OK);
}

static slg_status check_header(slg_optimizer *o, const state_header *h, int64_t bytes)
{
    slg_ctx *ctx = o->ctx;
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return slg_fail(ctx, SLG_ERR_STATE, "buffer does not hold an optimizer's state");
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
    if (bytes != state_bytes(o))
        return slg_fail(ctx, SLG_ERR_STATE, "state has %lld bytes, must have %lld",
                        (long long)bytes, (long long)state_bytes(o));
    return SLG_OK;
}

static slg_status import(slg_optimizer *o, const char *buffer, int64_t bytes)
{
    state_header h;
    if (!buffer) return slg_fail(o->ctx, SLG_ERR_NULL, "buffer is NULL");
    if (bytes < (int64_t)sizeof h)
        return slg_fail(o->ctx, SLG_ERR_STATE, "%lld bytes are too few for a state",
                        (long long)bytes);
    memcpy(&h, buffer, sizeof h);
    SLG_TRY(check_header(o, &h, bytes));
    uint64_t sum = checksum_start(&h);
    const char *from = buffer + sizeof h;
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++) {
        if (!o->state[i]) continue;
        sum = checksum_of(sum, from, state_array_bytes(o, i));
        from += state_array_bytes(o, i);
    }
    if (sum != h.checksum)
        return slg_fail(o->ctx, SLG_ERR_STATE, "state is damaged: its checksum does not fit");
    from = buffer + sizeof h;
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++) {
        if (!o->state[i]) continue;
        memcpy(o->state[i], from, state_array_bytes(o, i));
        from += state_array_bytes(o, i);
    }
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
