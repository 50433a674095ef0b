/*
 * outputs.c - what a loss returns a row: out.loss, out.lse, and a method's own. None may share memory
 * with an input, a gradient or another.
 */
#include <math.h>

#include "core/options.h"
#include "engine.h"

static const slg_loss_out out_defaults = { .size = sizeof(slg_loss_out) };

void slg_loss_out_init(slg_loss_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

/* Also where both are the very same view, which tensor_clash lets pass. */
static bool shares(const slg_tensor *a, const slg_tensor *b)
{
    return a && b && (tensor_clash(a, b) || (a->data == b->data && tensor_size(a) > 0));
}

static slg_status open_out_rows(loss_call *c, const char *name, const slg_tensor *t,
                                const slg_targets *targets, const slg_logits *l, rows *out)
{
    if (!t) return SLG_OK;
    slg_ctx *ctx = c->ctx;
    SLG_TRY(tensor_out(ctx, name, t, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &c->src.rows));
    const slg_tensor *in[] = { l->dense, l->hidden, l->weight, l->bias, l->mask };
    bool clash = targets_clash(targets, t);
    for (size_t i = 0; i < 5; i++) clash = clash || shares(t, in[i]);
    if (clash) return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps an input", name);
    *out = rows_per_row(t);
    return SLG_OK;
}

slg_status loss_open_out(loss_call *c, const slg_loss_out *given, const slg_targets *targets,
                         const slg_logits *logits, const slg_logits_grad *grad)
{
    slg_logits l;
    slg_logits_grad g;
    slg_logits_init(&l, sizeof l);
    slg_logits_grad_init(&g, sizeof g);
    c->out = out_defaults;
    if (!given) return slg_fail(c->ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(c->ctx, "out", given, &c->out, sizeof c->out));
    SLG_TRY(options_read(c->ctx, "logits", logits, &l, sizeof l));
    if (grad) SLG_TRY(options_read(c->ctx, "grad", grad, &g, sizeof g));
    if (c->out.reserved != 0)
        return slg_fail(c->ctx, SLG_ERR_OPTIONS, "out.reserved is %d, must be 0", c->out.reserved);
    SLG_TRY(open_out_rows(c, "out.loss", c->out.loss, targets, &l, &c->loss_rows));
    SLG_TRY(open_out_rows(c, "out.lse", c->out.lse, targets, &l, &c->lse_rows));
    if (shares(c->out.loss, c->out.lse))
        return slg_fail(c->ctx, SLG_ERR_STRIDE, "out.loss and out.lse overlap");
    const slg_tensor *d[] = { g.dlogits, g.dhidden, g.dweight, g.dbias };
    for (size_t i = 0; i < 4; i++) {
        if (!d[i]) continue;
        if (targets_clash(targets, d[i]))
            return slg_fail(c->ctx, SLG_ERR_STRIDE, "a gradient overlaps a target tensor");
        if (shares(d[i], c->out.loss) || shares(d[i], c->out.lse))
            return slg_fail(c->ctx, SLG_ERR_STRIDE, "a gradient overlaps out.loss or out.lse");
    }
    return SLG_OK;
}

slg_status loss_open_extra(loss_call *c, int i, const char *name, const slg_tensor *t)
{
    slg_logits l;
    slg_logits_grad g;
    if (!t) return SLG_OK;
    slg_logits_init(&l, sizeof l);
    slg_logits_grad_init(&g, sizeof g);
    SLG_TRY(options_read(c->ctx, "logits", c->given_logits, &l, sizeof l));
    if (c->given_grad) SLG_TRY(options_read(c->ctx, "grad", c->given_grad, &g, sizeof g));
    SLG_TRY(open_out_rows(c, name, t, c->given_targets, &l, &c->extra[i]));
    const slg_tensor *out[] = { g.dlogits, g.dhidden, g.dweight, g.dbias, c->out.loss, c->out.lse,
                                c->extra_tensor[0], c->extra_tensor[1], c->extra_tensor[2] };
    for (size_t j = 0; j < sizeof out / sizeof *out; j++)
        if (shares(t, out[j]))
            return slg_fail(c->ctx, SLG_ERR_STRIDE, "%s overlaps another output", name);
    c->extra_tensor[i] = t;
    return SLG_OK;
}
