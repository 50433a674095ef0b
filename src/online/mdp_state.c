/*
 * mdp_state.c - the policy as bytes: see mdp.h.
 */
#include <stddef.h>
#include <string.h>

#include "core/arena.h"
#include "core/state_bytes.h"
#include "mdp_policy.h"

/* In front of the numbers. Little-endian, as is everything that this library runs on. */
typedef struct state_header {
    char magic[8];
    int32_t rule, estimator;
    int64_t layers, states, actions, dim, episodes;
    int64_t count; /* of costs or sums */
    int64_t kept;  /* vectors a layer, after those */
    uint64_t checksum;
} state_header;

static const char magic[8] = { 's', 'l', 'g', 'm', 'd', 'p', '0', '1' };

static state_header header_of(const slg_mdp_policy *p)
{
    state_header h = { .rule = p->opts.rule,
                       .estimator = p->opts.estimator,
                       .layers = p->shape.layers,
                       .states = p->shape.states,
                       .actions = p->shape.actions,
                       .dim = p->d,
                       .episodes = p->episodes,
                       .count = p->count,
                       .kept = p->kept_count };
    memcpy(h.magic, magic, sizeof magic);
    return h;
}

/* Bytes of a layer's vectors; both are of a state that there is, or that was measured. */
static size_t kept_bytes(const state_header *h)
{
    return (size_t)h->kept * (size_t)(h->dim + 2) * sizeof(double);
}

static int64_t state_bytes(const state_header *h)
{
    return (int64_t)(sizeof *h + (size_t)h->count * sizeof(double) +
                     (size_t)h->layers * kept_bytes(h));
}

/* Costs, then each layer's vectors: in scratch. */
static slg_status parts_of(const slg_mdp_policy *p, const state_header *h, state_part **parts)
{
    *parts = arena_alloc(p->ctx, (size_t)h->layers + 1, sizeof **parts);
    if (!*parts) return SLG_ERR_MEMORY;
    (*parts)[0] = (state_part){ p->state, (size_t)h->count * sizeof(double) };
    for (int64_t i = 0; i < h->layers; i++)
        (*parts)[i + 1] = (state_part){ p->kept ? p->kept[i].v : NULL, kept_bytes(h) };
    return SLG_OK;
}

static slg_status export(slg_mdp_policy *p, void *buffer, int64_t capacity, int64_t *bytes)
{
    state_header h = header_of(p);
    state_part *parts;
    SLG_TRY(parts_of(p, &h, &parts));
    return state_write(p->ctx, &h, sizeof h, parts, h.layers + 1, buffer, capacity, bytes);
}

slg_status slg_mdp_policy_export(slg_mdp_policy *p, void *buffer, int64_t capacity,
                                 int64_t *bytes)
{
    if (!p || !bytes) return SLG_ERR_NULL;
    op_begin(p->ctx, "slg_mdp_policy_export");
    return op_end(p->ctx, export(p, buffer, capacity, bytes));
}

static slg_status read_header(slg_mdp_policy *p, const void *buffer, int64_t bytes,
                              state_header *h)
{
    const state_header ours = header_of(p);
    slg_ctx *ctx = p->ctx;
    SLG_TRY(state_open(ctx, "a policy", magic, buffer, bytes, h, sizeof *h));
    if (h->rule != ours.rule || h->estimator != ours.estimator || h->layers != ours.layers ||
        h->states != ours.states || h->actions != ours.actions || h->dim != ours.dim ||
        h->count != ours.count || h->episodes < 0 || h->kept < 0 || (h->kept > 0 && !p->kept))
        return slg_fail(
            ctx, SLG_ERR_STATE,
            "state has H %lld, S %lld, A %lld, dim %lld, rule %d, estimator %d; the "
            "policy %lld, %lld, %lld, %lld, %d, %d",
            (long long)h->layers, (long long)h->states, (long long)h->actions,
            (long long)h->dim, h->rule, h->estimator, (long long)ours.layers,
            (long long)ours.states, (long long)ours.actions, (long long)ours.dim, ours.rule,
            ours.estimator);
    if (h->kept > bytes / 8)
        return slg_fail(ctx, SLG_ERR_STATE, "state has %lld bytes, which is not its size",
                        (long long)bytes);
    return state_check(ctx, h, sizeof *h, state_bytes(h), buffer, bytes);
}

static slg_status import(slg_mdp_policy *p, const void *buffer, int64_t bytes)
{
    state_header h;
    SLG_TRY(read_header(p, buffer, bytes, &h));
    if (p->kept) SLG_TRY(keep_room(p, h.kept));
    state_part *parts;
    SLG_TRY(parts_of(p, &h, &parts));
    state_read(buffer, sizeof h, parts, h.layers + 1);
    p->episodes = h.episodes, p->kept_count = h.kept;
    p->current = false;
    return SLG_OK;
}

slg_status slg_mdp_policy_import(slg_mdp_policy *p, const void *buffer, int64_t bytes)
{
    if (!p) return SLG_ERR_NULL;
    op_begin(p->ctx, "slg_mdp_policy_import");
    return op_end(p->ctx, import(p, buffer, bytes));
}
