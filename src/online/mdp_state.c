/*
 * mdp_state.c - the policy as bytes: see mdp.h.
 */
#include <stddef.h>
#include <string.h>

#include "core/checksum.h"
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

static uint64_t checksum(const state_header *h, const char *numbers, size_t size)
{
    const uint64_t sum = checksum_of(CHECKSUM_START, h, offsetof(state_header, checksum));
    return checksum_of(sum, numbers, size);
}

slg_status slg_mdp_policy_export(slg_mdp_policy *p, void *buffer, int64_t capacity,
                                 int64_t *bytes)
{
    if (!p || !bytes) return SLG_ERR_NULL;
    op_begin(p->ctx, "slg_mdp_policy_export");
    state_header h = header_of(p);
    *bytes = state_bytes(&h);
    if (!buffer) return op_end(p->ctx, SLG_OK);
    if (capacity < *bytes)
        return op_end(p->ctx, slg_fail(p->ctx, SLG_ERR_RANGE,
                                       "capacity is %lld bytes, the state needs %lld",
                                       (long long)capacity, (long long)*bytes));
    char *numbers = (char *)buffer + sizeof h, *to = numbers;
    const size_t costs = (size_t)h.count * sizeof(double), kept = kept_bytes(&h);
    if (costs > 0) memcpy(to, p->state, costs);
    to += costs;
    for (int64_t i = 0; i < h.layers && kept > 0; i++, to += kept)
        memcpy(to, p->kept[i].v, kept);
    h.checksum = checksum(&h, numbers, (size_t)(to - numbers));
    memcpy(buffer, &h, sizeof h);
    return op_end(p->ctx, SLG_OK);
}

static slg_status read_header(slg_mdp_policy *p, const char *buffer, int64_t bytes,
                              state_header *h)
{
    const state_header ours = header_of(p);
    slg_ctx *ctx = p->ctx;
    if (!buffer) return slg_fail(ctx, SLG_ERR_NULL, "buffer is NULL");
    if (bytes < (int64_t)sizeof *h)
        return slg_fail(ctx, SLG_ERR_STATE, "%lld bytes are too few for a state",
                        (long long)bytes);
    memcpy(h, buffer, sizeof *h);
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return slg_fail(ctx, SLG_ERR_STATE, "buffer does not hold a policy's state");
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
    if (h->kept > bytes / 8 || bytes != state_bytes(h))
        return slg_fail(ctx, SLG_ERR_STATE, "state has %lld bytes, which is not its size",
                        (long long)bytes);
    if (checksum(h, buffer + sizeof *h, (size_t)bytes - sizeof *h) != h->checksum)
        return slg_fail(ctx, SLG_ERR_STATE, "state is damaged: its checksum does not fit");
    return SLG_OK;
}

static slg_status import(slg_mdp_policy *p, const char *buffer, int64_t bytes)
{
    state_header h;
    SLG_TRY(read_header(p, buffer, bytes, &h));
    if (p->kept) SLG_TRY(keep_room(p, h.kept));
    const char *from = buffer + sizeof h;
    const size_t costs = (size_t)h.count * sizeof(double), kept = kept_bytes(&h);
    if (costs > 0) memcpy(p->state, from, costs);
    from += costs;
    for (int64_t i = 0; i < h.layers && kept > 0; i++, from += kept)
        memcpy(p->kept[i].v, from, kept);
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
