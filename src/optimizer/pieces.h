/*
 * pieces.h - a list of tensors cut into tasks, evenly by elements and by the sizes alone: one
 * parallel region for a whole list, however many tensors it has.
 */
#ifndef SLG_OPTIMIZER_PIECES_H
#define SLG_OPTIMIZER_PIECES_H

#include "core/ctx.h"

/* Weights a task updates: large enough to hide the pool, small enough to share evenly. */
enum { PIECE = 1 << 16 };

/* A tensor of a step and its gradient; what the chain has made of that, see chain.h. */
typedef struct step_tensor {
    float *w;
    const float *dw;
    int64_t n, offset; /* of its weights among all */
    int64_t rows;      /* see whole_rule; 1 where that sees a vector */
    uint32_t without;  /* bit k: transformations of kind k pass it over; bit 0: frozen */
    double ww, wg, gg; /* products of w and of the gradient as it is now */
    gradient_map map;  /* which is made of dw by this */
    double cosine;     /* before SLG_PERPENDICULAR; NaN: not finite */
    const void *args;  /* the rule's scalars */
} step_tensor;

typedef struct piece {
    int64_t tensor, from, n;
} piece;

typedef struct step_pieces {
    step_tensor *tensors;
    int64_t count;
    piece *pieces;
    int64_t tasks;
} step_pieces;

/* `count` tensors with all fields 0, in the context's arena. */
slg_status pieces_tensors(slg_ctx *ctx, int64_t count, step_pieces *p);

/* The pieces of those tensors, w, dw, n and without given. */
slg_status pieces_cut(slg_ctx *ctx, step_pieces *p);

/* A pair as every step takes them: float32, the same shape, contiguous, apart. */
slg_status pieces_check(slg_ctx *ctx, const char *w_name, const slg_tensor *w,
                        const char *g_name, const slg_tensor *g);

/* Whether the tensor takes part in transformations of a kind; kind 0: in the step. */
static inline bool takes_part(const step_tensor *t, int32_t kind)
{
    return !(t->without & 1) && !(t->without >> kind & 1);
}

#endif
