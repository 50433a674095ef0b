/*
 * chain.c - see chain.h.
 */
#include <float.h>
#include <math.h>

#include "chain.h"
#include "core/arena.h"
#include "core/options.h"
#include "core/pool.h"

/* ---- The links --------------------------------------------------------------------------- */

static slg_status read_link(slg_ctx *ctx, const slg_transform *t, int64_t *clips)
{
    const bool perpendicular = t->kind == SLG_PERPENDICULAR;
    if (t->kind < SLG_CLIP_NORM || t->kind > SLG_SKIP_NONFINITE)
        return slg_fail(ctx, SLG_ERR_RANGE, "kind is %d, there is no such transformation",
                        t->kind);
    SLG_TRY(option_choice(ctx, "rescale", t->rescale, 0, perpendicular));
    SLG_TRY(option_choice(ctx, "skip_scalars", t->skip_scalars, 0, perpendicular));
    SLG_TRY(option_reserved(ctx, "reserved", t->reserved));
    if (perpendicular) return option_range(ctx, "threshold", t->value, 0, 1);
    if (t->kind == SLG_SKIP_NONFINITE) return SLG_OK;
    if (t->kind == SLG_CLIP_VALUE && ++*clips > 1)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "chain clips by value %lld times, at most once is possible",
                        (long long)*clips);
    return option_least(ctx, t->kind == SLG_CLIP_NORM ? "max_norm" : "limit", t->value, 0);
}

slg_status chain_read(slg_ctx *ctx, const slg_transform *links, int64_t count, chain *out)
{
    int64_t clips = 0;
    if (count < 0 || count > CHAIN_MOST)
        return slg_fail(ctx, SLG_ERR_RANGE, "count is %lld, must be from 0 to %d",
                        (long long)count, CHAIN_MOST);
    if (count > 0 && !links) return slg_fail(ctx, SLG_ERR_NULL, "links is NULL");
    for (int64_t i = 0; i < count; i++) SLG_TRY(read_link(ctx, &links[i], &clips));
    *out = (chain){ .count = count };
    for (int64_t i = 0; i < count; i++) out->links[i] = links[i];
    return SLG_OK;
}

/* ---- Sums -------------------------------------------------------------------------------- */

typedef struct measure {
    const kernel_table *k;
    const step_pieces *p;
    int64_t first;     /* piece */
    double (*sums)[3]; /* of each from there */
} measure;

/* w.u, w.w, u.u of a piece. */
static void measure_piece(const kernel_table *k, const step_tensor *t, const piece *p,
                          double out[3])
{
    const float *w = t->w + p->from, *dw = t->dw + p->from;
    const gradient_map *m = &t->map;
    const bool raw = isinf(m->clip) && m->after == 0;
    if (!raw) {
        k->update_dots((size_t)p->n, w, dw, m, out);
        return;
    }
    k->dots((size_t)p->n, w, dw, out);
    out[0] *= m->post;
    out[2] *= m->post * m->post;
}

static void measure_task(void *arg, int64_t task, int32_t worker)
{
    const measure *s = arg;
    const piece *p = &s->p->pieces[s->first + task];
    (void)worker;
    measure_piece(s->k, &s->p->tensors[p->tensor], p, s->sums[task]);
}

static bool is_finite(const step_tensor *t) { return isfinite(t->ww) && isfinite(t->gg); }

/* The sums of tensors [from, to), of gradients as their maps give them. */
static slg_status measure_tensors(slg_ctx *ctx, step_pieces *p, int64_t from, int64_t to)
{
    const arena_mark_t mark = arena_mark(ctx);
    measure s = { .k = &ctx->k, .p = p };
    int64_t last;
    while (s.first < p->tasks && p->pieces[s.first].tensor < from) s.first++;
    for (last = s.first; last < p->tasks && p->pieces[last].tensor < to;) last++;
    s.sums = arena_alloc(ctx, (size_t)(last - s.first), sizeof *s.sums);
    if (!s.sums) return SLG_ERR_MEMORY;
    pool_run(ctx, last - s.first, measure_task, &s);
    for (int64_t i = from; i < to; i++)
        p->tensors[i].ww = p->tensors[i].wg = p->tensors[i].gg = 0;
    for (int64_t i = s.first; i < last; i++) {
        step_tensor *t = &p->tensors[p->pieces[i].tensor];
        const double *sums = s.sums[i - s.first];
        t->wg += sums[0], t->ww += sums[1], t->gg += sums[2];
    }
    arena_release(ctx, mark);
    return SLG_OK;
}

/* ---- Transformations --------------------------------------------------------------------- */

static void times(step_tensor *t, double factor)
{
    t->map.post *= factor;
    t->wg *= factor;
    t->gg *= factor * factor;
}

static void clip_norm(step_pieces *p, const slg_transform *link, chain_report *r)
{
    double sum = 0;
    for (int64_t i = 0; i < p->count; i++)
        if (takes_part(&p->tensors[i], SLG_CLIP_NORM)) sum += p->tensors[i].gg;
    const double norm = sqrt(sum), factor = fmin(1, link->value / (norm + 1e-6));
    const bool clips = isfinite(norm) && factor < 1;
    if (r->norm < 0) r->norm = norm, r->factor = clips ? factor : 1;
    if (!clips) return;
    for (int64_t i = 0; i < p->count; i++)
        if (takes_part(&p->tensors[i], SLG_CLIP_NORM)) times(&p->tensors[i], factor);
}

/* What came before is folded into what is clamped: the map has no clip yet. */
static void clip_value(step_pieces *p, double limit)
{
    for (int64_t i = 0; i < p->count; i++) {
        gradient_map *m = &p->tensors[i].map;
        if (!takes_part(&p->tensors[i], SLG_CLIP_VALUE)) continue;
        *m = (gradient_map){
            .scale = m->post, .along = m->after, .clip = limit, .post = 1, .after = 0
        };
    }
}

static slg_status perpendicular(slg_ctx *ctx, step_pieces *p, int64_t i,
                                const slg_transform *link, chain_report *r)
{
    step_tensor *t = &p->tensors[i];
    const double gg = t->gg, ww = t->ww, along = t->wg / ww;
    t->cosine = is_finite(t) ? 0 : NAN;
    r->nonfinite += !is_finite(t);
    if (!is_finite(t) || ww == 0 || gg == 0) return SLG_OK;
    t->cosine = t->wg / (sqrt(ww) * sqrt(gg));
    if (link->skip_scalars && t->n == 1) return SLG_OK;
    const double after = t->map.after - along / t->map.post;
    double oo = gg - along * t->wg;
    /* Weights so small that float32 has no coefficient for them are as good as 0. */
    if (!(fabs(after) < (double)FLT_MAX)) return SLG_OK;
    t->map.after = after;
    if (!(oo > 1e-8 * gg)) { /* cancelled: from o itself */
        SLG_TRY(measure_tensors(ctx, p, i, i + 1));
        oo = t->gg;
    }
    t->ww = ww, t->wg = 0, t->gg = oo;
    if (sqrt(oo) <= link->value * sqrt(gg)) {
        times(t, 0);
        r->zeroed++;
    } else if (link->rescale) {
        times(t, sqrt(gg / oo));
    }
    return SLG_OK;
}

static void skip_nonfinite(step_pieces *p, chain_report *r)
{
    for (int64_t i = 0; i < p->count; i++)
        if (takes_part(&p->tensors[i], SLG_SKIP_NONFINITE) && !isfinite(p->tensors[i].gg))
            r->skip = true, r->nonfinite++;
}

slg_status chain_run(slg_ctx *ctx, const chain *c, double grad_scale, step_pieces *p,
                     chain_report *report)
{
    bool known = false;
    *report = (chain_report){ .norm = -1, .factor = 1 };
    for (int64_t i = 0; i < p->count; i++)
        p->tensors[i].map = (gradient_map){ .scale = 1, .clip = INFINITY, .post = grad_scale };
    for (int64_t l = 0; l < c->count && !report->skip; l++) {
        const slg_transform *link = &c->links[l];
        if (link->kind == SLG_CLIP_VALUE) {
            clip_value(p, link->value);
            known = false;
            continue;
        }
        if (!known) SLG_TRY(measure_tensors(ctx, p, 0, p->count));
        known = true;
        if (link->kind == SLG_CLIP_NORM) clip_norm(p, link, report);
        if (link->kind == SLG_SKIP_NONFINITE) skip_nonfinite(p, report);
        for (int64_t i = 0; link->kind == SLG_PERPENDICULAR && i < p->count; i++)
            if (takes_part(&p->tensors[i], SLG_PERPENDICULAR))
                SLG_TRY(perpendicular(ctx, p, i, link, report));
    }
    return SLG_OK;
}

update_grad chain_fold(const gradient_map *m, float decay)
{
    const float after = (float)m->after;
    return (update_grad){ .plain = isinf(m->clip) && m->after == 0,
                          .scale = (float)m->scale,
                          .along = (float)m->along,
                          .clip = (float)m->clip,
                          .post = (float)m->post,
                          .after = after,
                          .after_low = (float)(m->after - (double)after),
                          .decay = decay };
}
