/*
 * tensor_list.h - lists of weights and gradients of given shapes, and optimizers for them.
 */
#ifndef TESTS_OPTIMIZER_TENSOR_LIST_H
#define TESTS_OPTIMIZER_TENSOR_LIST_H

#include "optimizer_test.h"

enum { MOST = 9 };

/* Weights and gradients of a list of shapes, one after the other in memory. */
typedef struct list {
    int64_t count, n;
    float *w, *g;
    slg_tensor ws[MOST], gs[MOST], *wp[MOST];
    const slg_tensor *wc[MOST], *gp[MOST];
} list;

static inline void place(list *l)
{
    int64_t at = 0;
    for (int64_t i = 0; i < l->count; i++) {
        int64_t n = 1;
        for (int32_t d = 0; d < l->ws[i].ndim; d++) n *= l->ws[i].shape[d];
        l->gs[i] = l->ws[i];
        l->ws[i].data = l->w + at, l->gs[i].data = l->g + at;
        l->wp[i] = &l->ws[i], l->wc[i] = &l->ws[i], l->gp[i] = &l->gs[i];
        at += n;
    }
    l->n = at;
}

/* shapes: { ndim, extents } each. */
static inline void make(list *l, const int64_t (*shapes)[5], int64_t count)
{
    int64_t total = 0;
    *l = (list){ .count = count };
    for (int64_t i = 0; i < count; i++) {
        slg_tensor *t = &l->ws[i];
        *t = (slg_tensor){ .dtype = SLG_F32, .ndim = (int32_t)shapes[i][0] };
        int64_t n = 1;
        for (int32_t d = t->ndim - 1; d >= 0; d--) {
            t->shape[d] = shapes[i][d + 1], t->stride[d] = n;
            n *= t->shape[d];
        }
        total += n;
    }
    l->w = random_floats(total), l->g = random_floats(total);
    place(l);
}

static inline void drop(list *l) { free(l->w), free(l->g); }

/* New gradients, rows and columns of which are of different sizes. */
static inline void gradients(list *l)
{
    for (int64_t i = 0; i < l->n; i++)
        l->g[i] = (float)(normal() * (1 + (double)(i % 5)) * (i % 7 == 3 ? 1e-3 : 1));
}

static inline slg_optimizer *create_for(slg_ctx *ctx, const list *l, const any_opts *opts,
                                        int half)
{
    slg_optimizer_setup setup;
    slg_optimizer *o;
    slg_optimizer_setup_init(&setup, sizeof setup);
    setup.state_dtype = half ? SLG_BF16 : SLG_F32;
    OK(ctx, slg_optimizer_create_list(ctx, rule->kind, l->count, l->wc, opts, &setup, &o));
    return o;
}

static const int64_t mixed[][5] = {
    { 2, 7, 5 }, { 1, 11 }, { 2, 1, 9 },   { 2, 9, 1 },      { 4, 2, 3, 1, 4 },
    { 2, 0, 5 }, { 1, 1 },  { 2, 40, 33 }, { 3, 3, 2, 700 },
};

#endif
