/*
 * cache.h - how keys and values lie in a cache. Tokens are in groups of GROUP. A key head has
 * `groups` of them: K as [groups, dim, GROUP], then V as [groups * GROUP, value_dim]. The group
 * of token t is t / GROUP modulo groups: a head that keeps all has more groups than that.
 */
#ifndef SLG_ATTENTION_CACHE_H
#define SLG_ATTENTION_CACHE_H

#include "core/tensor.h"
#include "softlogit/attention_cache.h"

enum {
    GROUP = CACHE_GROUP,
    ROLLBACK = 16 /* tokens that a ring keeps beyond those that are seen */
};

typedef struct key_head {
    int64_t window; /* the largest that reads it; 0: global */
    int64_t groups;
    int64_t kept; /* the first token that is still there */
    size_t at;    /* bytes from the start of its part, for batch entry 0 */
} key_head;

/* Memory of the global heads, and of the others: they grow apart. */
typedef struct cache_part {
    char *data;   /* NULL: none */
    size_t batch; /* bytes of a batch entry */
    size_t bytes;
} cache_part;

enum { GLOBAL_PART, RING_PART, PARTS };

struct slg_attention_cache {
    slg_ctx *ctx;
    int32_t dtype;
    size_t item; /* bytes of an element */
    int64_t batch, heads, key_heads, dim, value_dim;
    int64_t length;
    int64_t *window; /* [heads] */
    key_head *head;  /* [key_heads] */
    cache_part part[PARTS];
};

static inline int part_of(const key_head *h) { return h->window ? RING_PART : GLOBAL_PART; }

static inline char *cache_k(const slg_attention_cache *c, int64_t batch, int64_t g,
                            int64_t token)
{
    const key_head *h = &c->head[g];
    const cache_part *p = &c->part[part_of(h)];
    const size_t group = (size_t)(token / GROUP % h->groups);
    return p->data + (size_t)batch * p->batch + h->at +
           group * GROUP * (size_t)c->dim * c->item;
}

static inline char *cache_v(const slg_attention_cache *c, int64_t batch, int64_t g,
                            int64_t token)
{
    const key_head *h = &c->head[g];
    const cache_part *p = &c->part[part_of(h)];
    const size_t row = (size_t)(token % (h->groups * GROUP));
    return p->data + (size_t)batch * p->batch + h->at +
           ((size_t)h->groups * GROUP * (size_t)c->dim + row * (size_t)c->value_dim) * c->item;
}

#endif
