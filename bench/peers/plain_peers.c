/*
 * plain_peers.c - the plain C loops as candidates: compiled for this CPU, or for AVX2 where
 * that is the level of the race.
 */
#include <stdlib.h>

#include "race.h"
#include "plain.h"

typedef struct loops {
    void (*softmax)(int64_t, int64_t, const float *, float *);
    void (*log_softmax)(int64_t, int64_t, const float *, float *);
    void (*logsumexp)(int64_t, int64_t, const float *, float *);
    double (*cross_entropy)(int64_t, int64_t, const float *, const int64_t *, float *);
    void (*adamw)(int64_t, float *, const float *, float *, float *, int);
} loops;

static const loops native = { loop_softmax, loop_log_softmax, loop_logsumexp,
                              loop_cross_entropy, loop_adamw };
#ifdef PEERS_AVX2
static const loops avx2 = { loop_softmax_avx2, loop_log_softmax_avx2, loop_logsumexp_avx2,
                            loop_cross_entropy_avx2, loop_adamw_avx2 };
#endif

typedef struct state {
    const loops *f;
    int step;
} state;

static void *prepare(race *r, const char *arg)
{
    state *s = calloc(1, sizeof *s);
    (void)arg;
    s->f = &native;
#ifdef PEERS_AVX2
    if (r->w->isa == SLG_ISA_AVX2) s->f = &avx2;
#else
    (void)r;
#endif
    return s;
}

#define RUN(name, call)                                                                        \
    static void name##_run(race *r, void *self, int64_t times)                                 \
    {                                                                                          \
        state *s = self;                                                                       \
        while (times--) call;                                                                  \
    }

RUN(softmax, s->f->softmax(r->rows, r->cols, r->x, r->y))
RUN(log_softmax, s->f->log_softmax(r->rows, r->cols, r->x, r->y))
RUN(logsumexp, s->f->logsumexp(r->rows, r->cols, r->x, r->row_out))
RUN(cross_entropy, r->loss = s->f->cross_entropy(r->rows, r->cols, r->x, r->target, r->y))
RUN(adamw, s->f->adamw(r->cols, r->x, r->grad, r->m, r->v, ++s->step))

static void release(race *r, void *self) { (void)r, free(self); }

#define PLAIN(name)                                                                            \
    const candidate plain_##name = { "plain",    PEER, NULL,    prepare,                       \
                                     name##_run, NULL, release, NULL };
PLAIN(softmax)
PLAIN(log_softmax)
PLAIN(logsumexp)
PLAIN(cross_entropy)
PLAIN(adamw)
