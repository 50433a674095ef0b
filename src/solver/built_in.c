/*
 * built_in.c - what the built-in objectives have in common: how they are made and freed, and
 * the ops around their callbacks.
 */
#include <string.h>

#include "core/options.h"
#include "objective.h"

static slg_status value(void *user, const double *x, double *f, double *grad)
{
    const built_in *m = user;
    if (m->kind->outside) return m->kind->forward(user, x, f, grad);
    op_begin(m->ctx, m->kind->op);
    return op_end(m->ctx, m->kind->forward(user, x, f, grad));
}

static slg_status curvature(void *user, const double *x, int32_t which, int32_t form,
                            double *scale, double *h)
{
    const built_in *m = user;
    if (m->kind->outside) return m->kind->curve(user, x, which, form, scale, h);
    op_begin(m->ctx, m->kind->op);
    return op_end(m->ctx, m->kind->curve(user, x, which, form, scale, h));
}

static slg_status product(void *user, const double *x, int32_t which, const double *v,
                          double *hv)
{
    const built_in *m = user;
    (void)x; /* that of the last curvature */
    if (m->kind->outside) return m->kind->multiply(user, x, which, v, hv);
    op_begin(m->ctx, m->kind->op);
    return op_end(m->ctx, m->kind->multiply(user, x, which, v, hv));
}

static void release(void *user)
{
    built_in *m = user;
    m->kind->release(user);
    ctx_free(m->ctx, m);
}

slg_status objective_make(slg_ctx *ctx, const objective_kind *kind, const void *args,
                          slg_objective *o)
{
    size_t size;
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, kind->op);
    if (!o) return op_end(ctx, slg_fail(ctx, SLG_ERR_NULL, "o is NULL"));
    slg_status status = options_size(ctx, "o", o, &size);
    if (status) return op_end(ctx, status);
    built_in *m = ctx_alloc(ctx, kind->size);
    if (!m) return op_end(ctx, SLG_ERR_MEMORY);
    memset(m, 0, kind->size);
    m->ctx = ctx, m->kind = kind;
    status = kind->open(m, args);
    const slg_objective made = { .dim = m->dim,
                                 .user = m,
                                 .value = value,
                                 .curvature = curvature,
                                 .product = product,
                                 .free = release,
                                 .noise = m->noise };
    if (status)
        release(m);
    else
        options_write(o, &made, sizeof made);
    return op_end(ctx, status);
}
