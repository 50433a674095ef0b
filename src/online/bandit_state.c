/*
 * bandit_state.c - what a bandit tells, and its state as bytes.
 */
#include <stddef.h>
#include <string.h>

#include "bandit_handle.h"
#include "core/state_bytes.h"
#include "core/options.h"

void slg_bandit_info_init(slg_bandit_info_t *info, size_t size)
{
    static const slg_bandit_info_t none = { .size = sizeof none };
    options_init(info, size, &none, sizeof none);
}

static slg_status tell(slg_bandit *b, slg_bandit_info_t *info)
{
    size_t size;
    SLG_TRY(options_size(b->ctx, "info", info, &size));
    const bandit_counters *c = &b->counters;
    slg_bandit_info_t ours = { .model = b->opts.model,
                               .arms = b->arms,
                               .dim = b->dim,
                               .weights = b->size,
                               .rounds = c->rounds,
                               .draws = c->draws,
                               .projections = c->projections,
                               .cost = c->cost,
                               .loss = c->loss,
                               .gamma = b->opts.gamma,
                               .step = bandit_step(b) };
    const rows t = bandit_row(b, b->theta), t0 = bandit_row(b, b->theta0);
    SLG_TRY(ball_distance(b->ctx, &t, &t0, &ours.distance));
    options_write(info, &ours, sizeof ours);
    return SLG_OK;
}

slg_status slg_bandit_info(slg_bandit *b, slg_bandit_info_t *info)
{
    if (!b || !info) return SLG_ERR_NULL;
    op_begin(b->ctx, "slg_bandit_info");
    return op_end(b->ctx, tell(b, info));
}

static slg_status read_part(slg_bandit *b, int32_t part, slg_tensor *out)
{
    const float *from = part == SLG_BANDIT_THETA    ? b->theta
                        : part == SLG_BANDIT_THETA0 ? b->theta0
                        : part == SLG_BANDIT_OUTPUT ? b->output
                                                    : NULL;
    const int64_t n = part == SLG_BANDIT_OUTPUT ? b->opts.width : b->size;
    if (!from)
        return slg_fail(b->ctx, SLG_ERR_RANGE, "part is %d, this bandit has no such part",
                        part);
    SLG_TRY(tensor_out(b->ctx, "out", out, DT_ROW | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(b->ctx, "out", out, 1, &n));
    const rows m = rows_of(out);
    for (int64_t i = 0; i < n; i++) rows_put(&m, 0, i, (double)from[i]);
    return SLG_OK;
}

slg_status slg_bandit_read(slg_bandit *b, int32_t part, slg_tensor *out)
{
    if (!b) return SLG_ERR_NULL;
    op_begin(b->ctx, "slg_bandit_read");
    return op_end(b->ctx, read_part(b, part, out));
}

/* ---- State as bytes --------------------------------------------------------------------- */

/* In front of theta and theta0. */
typedef struct state_header {
    char magic[8];
    int32_t model, width;
    int64_t arms, dim, size;
    uint64_t seed;
    bandit_counters counters;
    uint64_t checksum; /* of what comes before it and of the weights */
} state_header;

static const char magic[8] = { 's', 'l', 'g', 'b', 'n', 'd', '0', '1' };

static state_header header_of(const slg_bandit *b)
{
    state_header h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, magic, sizeof magic);
    h.model = b->opts.model, h.width = b->opts.width;
    h.arms = b->arms, h.dim = b->dim, h.size = b->size;
    h.seed = b->opts.seed, h.counters = b->counters;
    return h;
}

enum { PARTS = 2 };

static void parts_of(const slg_bandit *b, state_part parts[PARTS])
{
    const size_t bytes = (size_t)b->size * sizeof(float);
    parts[0] = (state_part){ b->theta, bytes };
    parts[1] = (state_part){ b->theta0, bytes };
}

slg_status slg_bandit_export(slg_bandit *b, void *buffer, int64_t capacity, int64_t *bytes)
{
    state_part parts[PARTS];
    if (!b || !bytes) return SLG_ERR_NULL;
    op_begin(b->ctx, "slg_bandit_export");
    state_header h = header_of(b);
    parts_of(b, parts);
    return op_end(b->ctx,
                  state_write(b->ctx, &h, sizeof h, parts, PARTS, buffer, capacity, bytes));
}

static slg_status import(slg_bandit *b, const void *buffer, int64_t bytes)
{
    slg_ctx *ctx = b->ctx;
    state_header h;
    state_part parts[PARTS];
    SLG_TRY(state_open(ctx, "a bandit", magic, buffer, bytes, &h, sizeof h));
    if (h.model != b->opts.model || h.arms != b->arms || h.dim != b->dim || h.size != b->size ||
        h.width != b->opts.width)
        return slg_fail(ctx, SLG_ERR_STATE,
                        "state is of model %d, %lld arms, dim %lld, %lld weights; the bandit "
                        "of %d, %lld, %lld, %lld",
                        h.model, (long long)h.arms, (long long)h.dim, (long long)h.size,
                        b->opts.model, (long long)b->arms, (long long)b->dim,
                        (long long)b->size);
    parts_of(b, parts);
    const int64_t total = state_total(sizeof h, parts, PARTS);
    SLG_TRY(state_check(ctx, &h, sizeof h, total, buffer, bytes));
    state_read(buffer, sizeof h, parts, PARTS);
    b->counters = h.counters;
    b->opts.seed = h.seed;
    b->shift_known = false;
    bandit_seed(b);
    return SLG_OK;
}

slg_status slg_bandit_import(slg_bandit *b, const void *buffer, int64_t bytes)
{
    if (!b) return SLG_ERR_NULL;
    op_begin(b->ctx, "slg_bandit_import");
    return op_end(b->ctx, import(b, buffer, bytes));
}
