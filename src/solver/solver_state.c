/*
 * solver_state.c - what a solver holds: as tensors, and as bytes.
 */
#include <stddef.h>
#include <string.h>

#include "core/options.h"
#include "softmax/parts.h"
#include "solve.h"

static slg_status get(slg_solver *s, slg_tensor *x, slg_tensor *grad)
{
    if (x) SLG_TRY(flat_check(s->ctx, "x", x, s->d, true));
    if (grad) SLG_TRY(flat_check(s->ctx, "grad", grad, s->d, true));
    if (x && grad && outputs_clash(x, grad))
        return slg_fail(s->ctx, SLG_ERR_STRIDE, "x and grad overlap");
    flat_write(x, s->x);
    flat_write(grad, s->g);
    return SLG_OK;
}

slg_status slg_solver_get(slg_solver *s, slg_tensor *x, slg_tensor *grad)
{
    if (!s) return SLG_ERR_NULL;
    op_begin(s->ctx, "slg_solver_get");
    return op_end(s->ctx, get(s, x, grad));
}

/* In front of the doubles. Little-endian, as is everything that this library runs on. */
typedef struct state_header {
    char magic[8];
    int32_t kind, reserved;
    int64_t dim, doubles;
    slg_solver_report report;
    uint64_t checksum; /* of what comes before it and of the doubles */
} state_header;

static const char magic[8] = { 's', 'l', 'g', 's', 'o', 'l', '0', '1' };

/* FNV-1a over 64-bit words: enough to tell a damaged file. */
static uint64_t checksum_of(uint64_t sum, const void *bytes, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)bytes + 8 * i, 8);
        sum = (sum ^ word) * 0x100000001B3u;
    }
    return sum;
}

static uint64_t checksum(const state_header *h, const void *doubles)
{
    uint64_t sum = checksum_of(0xCBF29CE484222325u, h, offsetof(state_header, checksum) / 8);
    return checksum_of(sum, doubles, (size_t)h->doubles);
}

static slg_status export(slg_solver *s, void *buffer, int64_t capacity, int64_t *bytes)
{
    state_header h;
    memset(&h, 0, sizeof h);
    h.kind = s->m->kind, h.dim = s->d, h.doubles = 2 * s->d + s->extra, h.report = s->report;
    const int64_t need = (int64_t)sizeof h + 8 * h.doubles;
    if (buffer && capacity < need)
        return slg_fail(s->ctx, SLG_ERR_RANGE, "capacity is %lld bytes, the state needs %lld",
                        (long long)capacity, (long long)need);
    *bytes = need;
    if (!buffer) return SLG_OK;
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = checksum(&h, s->state);
    memcpy(buffer, &h, sizeof h);
    memcpy((char *)buffer + sizeof h, s->state, 8 * (size_t)h.doubles);
    return SLG_OK;
}

slg_status slg_solver_export(slg_solver *s, void *buffer, int64_t capacity, int64_t *bytes)
{
    if (!s || !bytes) return SLG_ERR_NULL;
    op_begin(s->ctx, "slg_solver_export");
    return op_end(s->ctx, export(s, buffer, capacity, bytes));
}

static slg_status import(slg_solver *s, const char *buffer, int64_t bytes)
{
    state_header h;
    if (!buffer) return slg_fail(s->ctx, SLG_ERR_NULL, "buffer is NULL");
    if (bytes < (int64_t)sizeof h)
        return slg_fail(s->ctx, SLG_ERR_STATE, "%lld bytes are too few for a state",
                        (long long)bytes);
    memcpy(&h, buffer, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return slg_fail(s->ctx, SLG_ERR_STATE, "buffer does not hold a solver's state");
    if (h.kind != s->m->kind || h.dim != s->d || h.doubles != 2 * s->d + s->extra)
        return slg_fail(s->ctx, SLG_ERR_STATE,
                        "state is of kind %d, dim %lld, %lld numbers; the solver of %d, %lld, "
                        "%lld",
                        h.kind, (long long)h.dim, (long long)h.doubles, s->m->kind,
                        (long long)s->d, (long long)(2 * s->d + s->extra));
    if (bytes != (int64_t)sizeof h + 8 * h.doubles ||
        h.checksum != checksum(&h, buffer + sizeof h))
        return slg_fail(s->ctx, SLG_ERR_STATE, "state is damaged");
    memcpy(s->state, buffer + sizeof h, 8 * (size_t)h.doubles);
    s->report = h.report;
    return SLG_OK;
}

slg_status slg_solver_import(slg_solver *s, const void *buffer, int64_t bytes)
{
    if (!s) return SLG_ERR_NULL;
    op_begin(s->ctx, "slg_solver_import");
    return op_end(s->ctx, import(s, buffer, bytes));
}
