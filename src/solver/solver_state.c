/*
 * solver_state.c - what a solver holds: as tensors, and as bytes.
 */
#include <stddef.h>
#include <string.h>

#include "core/options.h"
#include "core/state_bytes.h"
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

/* In front of the doubles. */
typedef struct state_header {
    char magic[8];
    int32_t kind, reserved;
    int64_t dim, doubles;
    slg_solver_report report;
    uint64_t checksum; /* of what comes before it and of the doubles */
} state_header;

static const char magic[8] = { 's', 'l', 'g', 's', 'o', 'l', '0', '1' };

static state_header header_of(const slg_solver *s)
{
    state_header h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, magic, sizeof magic);
    h.kind = s->m->kind, h.dim = s->d, h.doubles = 2 * s->d + s->extra, h.report = s->report;
    return h;
}

static state_part part_of(const slg_solver *s)
{
    return (state_part){ s->state, (size_t)(2 * s->d + s->extra) * sizeof *s->state };
}

slg_status slg_solver_export(slg_solver *s, void *buffer, int64_t capacity, int64_t *bytes)
{
    if (!s || !bytes) return SLG_ERR_NULL;
    op_begin(s->ctx, "slg_solver_export");
    state_header h = header_of(s);
    const state_part part = part_of(s);
    return op_end(s->ctx, state_write(s->ctx, &h, sizeof h, &part, 1, buffer, capacity, bytes));
}

static slg_status import(slg_solver *s, const void *buffer, int64_t bytes)
{
    const state_header ours = header_of(s);
    const state_part part = part_of(s);
    state_header h;
    SLG_TRY(state_open(s->ctx, "a solver", magic, buffer, bytes, &h, sizeof h));
    if (h.kind != ours.kind || h.dim != ours.dim || h.doubles != ours.doubles)
        return slg_fail(s->ctx, SLG_ERR_STATE,
                        "state is of kind %d, dim %lld, %lld numbers; the solver of %d, %lld, "
                        "%lld",
                        h.kind, (long long)h.dim, (long long)h.doubles, ours.kind,
                        (long long)ours.dim, (long long)ours.doubles);
    const int64_t total = state_total(sizeof h, &part, 1);
    SLG_TRY(state_check(s->ctx, &h, sizeof h, total, buffer, bytes));
    state_read(buffer, sizeof h, &part, 1);
    s->report = h.report;
    return SLG_OK;
}

slg_status slg_solver_import(slg_solver *s, const void *buffer, int64_t bytes)
{
    if (!s) return SLG_ERR_NULL;
    op_begin(s->ctx, "slg_solver_import");
    return op_end(s->ctx, import(s, buffer, bytes));
}
