/*
 * gradient.c - transformations as functions: a chain of one link, whose coefficients are then
 * applied in double: see gradient.h.
 */
#include <math.h>

#include "chain.h"
#include "core/options.h"
#include "core/pool.h"
#include "core/tensor.h"

static const slg_perpendicular_opts defaults = { .size = sizeof(slg_perpendicular_opts),
                                                 .rescale = 1,
                                                 .threshold = 1e-6 };

void slg_perpendicular_opts_init(slg_perpendicular_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct apply_run {
    const kernel_table *k;
    const step_pieces *p;
} apply_run;

/* The gradients are the caller's to change: step_tensor has them as const for the updates. */
static void apply_piece(void *arg, int64_t task, int32_t worker)
{
    const apply_run *run = arg;
    const piece *p = &run->p->pieces[task];
    const step_tensor *t = &run->p->tensors[p->tensor];
    const gradient_map *m = &t->map;
    float *g = (float *)(uintptr_t)t->dw + p->from;
    (void)worker;
    if (m->post == 1 && m->after == 0 && isinf(m->clip)) return;
    if (!isinf(m->clip))
        run->k->clip((size_t)p->n, (float)m->clip, g);
    else
        run->k->lincomb((size_t)p->n, m->post * m->after, t->w + p->from, m->post, g);
}

static void fill(step_pieces *p, int64_t i, const slg_tensor *w, const slg_tensor *g)
{
    p->tensors[i].w = w->data;
    p->tensors[i].dw = g->data;
    p->tensors[i].n = tensor_size(g);
}

static slg_status run(slg_ctx *ctx, const slg_transform *link, step_pieces *p,
                      chain_report *report)
{
    chain c;
    SLG_TRY(chain_read(ctx, link, 1, &c));
    SLG_TRY(pieces_cut(ctx, p));
    SLG_TRY(chain_run(ctx, &c, 1, p, report));
    apply_run apply = { &ctx->k, p };
    pool_run(ctx, p->tasks, apply_piece, &apply);
    return SLG_OK;
}

static slg_status check_count(slg_ctx *ctx, int64_t count, bool there)
{
    if (count < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "count is %lld, must be at least 0",
                        (long long)count);
    return count > 0 && !there ? slg_fail(ctx, SLG_ERR_NULL, "w or g is NULL") : SLG_OK;
}

/* ---- Perpendicular ----------------------------------------------------------------------- */

static slg_status perpendicular(slg_ctx *ctx, int64_t count, const slg_tensor *const *w,
                                slg_tensor *const *g, const slg_perpendicular_opts *opts,
                                double *cosine)
{
    slg_perpendicular_opts o = defaults;
    step_pieces p;
    chain_report report;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o.reserved));
    SLG_TRY(check_count(ctx, count, w && g));
    for (int64_t i = 0; i < count; i++) SLG_TRY(pieces_check(ctx, "w", w[i], "g", g[i]));
    SLG_TRY(pieces_tensors(ctx, count, &p));
    for (int64_t i = 0; i < count; i++) fill(&p, i, w[i], g[i]);
    const slg_transform link = { SLG_PERPENDICULAR, o.rescale, o.skip_scalars, 0, o.threshold };
    SLG_TRY(run(ctx, &link, &p, &report));
    for (int64_t i = 0; cosine && i < count; i++) cosine[i] = p.tensors[i].cosine;
    return SLG_OK;
}

slg_status slg_perpendicular_gradient_list(slg_ctx *ctx, int64_t count,
                                           const slg_tensor *const *w, slg_tensor *const *g,
                                           const slg_perpendicular_opts *opts, double *cosine)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_perpendicular_gradient");
    return op_end(ctx, perpendicular(ctx, count, w, g, opts, cosine));
}

slg_status slg_perpendicular_gradient(slg_ctx *ctx, const slg_tensor *w, slg_tensor *g,
                                      const slg_perpendicular_opts *opts, double *cosine)
{
    return slg_perpendicular_gradient_list(ctx, 1, &w, &g, opts, cosine);
}

/* ---- Clipping ---------------------------------------------------------------------------- */

static slg_status clip(slg_ctx *ctx, int64_t count, slg_tensor *const *g, slg_transform link,
                       double *norm)
{
    step_pieces p;
    chain_report report;
    SLG_TRY(check_count(ctx, count, g));
    for (int64_t i = 0; i < count; i++) {
        SLG_TRY(tensor_out(ctx, "g", g[i], DT_F32, 1, 4));
        if (!tensor_contiguous(g[i]))
            return slg_fail(ctx, SLG_ERR_STRIDE, "g must be contiguous");
    }
    SLG_TRY(pieces_tensors(ctx, count, &p));
    for (int64_t i = 0; i < count; i++) fill(&p, i, g[i], g[i]);
    SLG_TRY(run(ctx, &link, &p, &report));
    if (norm) *norm = report.norm;
    return SLG_OK;
}

slg_status slg_clip_grad_norm(slg_ctx *ctx, int64_t count, slg_tensor *const *g,
                              double max_norm, double *norm)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_clip_grad_norm");
    return op_end(ctx, clip(ctx, count, g, slg_transform_of(SLG_CLIP_NORM, max_norm), norm));
}

slg_status slg_clip_grad_value(slg_ctx *ctx, int64_t count, slg_tensor *const *g, double limit)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_clip_grad_value");
    return op_end(ctx, clip(ctx, count, g, slg_transform_of(SLG_CLIP_VALUE, limit), NULL));
}
