/*
 * outputs.c - what a loss returns a row: out.loss, out.lse, and a method's own. None may share
 * memory with an input, a gradient or another.
 */
#include <math.h>

#include "core/options.h"
#include "engine.h"

static const slg_loss_out out_defaults = { .size = sizeof(slg_loss_out) };

void slg_loss_out_init(slg_loss_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

static slg_status open_out_rows(loss_call *c, const char *name, const slg_tensor *t,
                                const slg_targets *targets, const slg_logits *l, rows *out)
{
    if (!t) return SLG_OK;
    slg_ctx *ctx = c->ctx;
    SLG_TRY(tensor_out(ctx, name, t, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &c->src.rows));
    const slg_tensor *in[] = { l->dense, l->hidden, l->weight,
                               l->bias,  l->mask,   l->row_temperature };
    bool clash = targets_clash(targets, t);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        clash = clash || outputs_clash(t, in[i]);
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
    SLG_TRY(option_reserved(c->ctx, "out.reserved", c->out.reserved));
    SLG_TRY(open_out_rows(c, "out.loss", c->out.loss, targets, &l, &c->loss_rows));
    SLG_TRY(open_out_rows(c, "out.lse", c->out.lse, targets, &l, &c->lse_rows));
    if (outputs_clash(c->out.loss, c->out.lse))
        return slg_fail(c->ctx, SLG_ERR_STRIDE, "out.loss and out.lse overlap");
    const slg_tensor *d[] = { g.dlogits, g.dhidden, g.dweight, g.dbias };
    for (size_t i = 0; i < 4; i++) {
        if (!d[i]) continue;
        if (targets_clash(targets, d[i]))
            return slg_fail(c->ctx, SLG_ERR_STRIDE, "a gradient overlaps a target tensor");
        if (outputs_clash(d[i], c->out.loss) || outputs_clash(d[i], c->out.lse))
            return slg_fail(c->ctx, SLG_ERR_STRIDE, "a gradient overlaps out.loss or out.lse");
    }
    return SLG_OK;
}

slg_status loss_open_apart(loss_call *c, const char *name, const slg_tensor *t)
{
    slg_logits l;
    slg_logits_grad g, h;
    slg_logits_init(&l, sizeof l);
    slg_logits_grad_init(&g, sizeof g);
    slg_logits_grad_init(&h, sizeof h);
    SLG_TRY(options_read(c->ctx, "logits", c->given_logits, &l, sizeof l));
    if (c->given_grad) SLG_TRY(options_read(c->ctx, "grad", c->given_grad, &g, sizeof g));
    if (c->given_teacher_grad)
        SLG_TRY(options_read(c->ctx, "grad", c->given_teacher_grad, &h, sizeof h));
    const slg_tensor *in[] = { l.dense, l.hidden, l.weight, l.bias, l.mask, l.row_temperature };
    bool clash = targets_clash(c->given_targets, t);
    for (size_t j = 0; j < sizeof in / sizeof *in; j++)
        clash = clash || outputs_clash(t, in[j]);
    if (clash) return slg_fail(c->ctx, SLG_ERR_STRIDE, "%s overlaps an input", name);
    const slg_tensor *out[] = { g.dlogits,  g.dhidden, g.dweight, g.dbias,   c->out.loss,
                                c->out.lse, h.dlogits, h.dhidden, h.dweight, h.dbias };
    for (size_t j = 0; j < sizeof out / sizeof *out; j++)
        clash = clash || outputs_clash(t, out[j]);
    for (int j = 0; j < LOSS_EXTRA; j++) clash = clash || outputs_clash(t, c->extra_tensor[j]);
    if (clash) return slg_fail(c->ctx, SLG_ERR_STRIDE, "%s overlaps another output", name);
    return SLG_OK;
}

slg_status loss_open_extra(loss_call *c, int i, const char *name, const slg_tensor *t)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(c->ctx, name, t, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(c->ctx, name, t, 1, &c->src.rows));
    SLG_TRY(loss_open_apart(c, name, t));
    c->extra[i] = rows_per_row(t);
    c->extra_tensor[i] = t;
    return SLG_OK;
}

/* Appends the tensors of a gradient. */
static slg_status grad_tensors(loss_call *c, const slg_logits_grad *given,
                               const slg_tensor *t[4])
{
    slg_logits_grad g;
    slg_logits_grad_init(&g, sizeof g);
    if (given) SLG_TRY(options_read(c->ctx, "grad", given, &g, sizeof g));
    t[0] = g.dlogits, t[1] = g.dhidden, t[2] = g.dweight, t[3] = g.dbias;
    return SLG_OK;
}

slg_status loss_open_teacher_grad(loss_call *c, const slg_logits_grad *given)
{
    slg_logits l;
    slg_targets t;
    const slg_tensor *d[4], *own[4];
    slg_logits_init(&l, sizeof l);
    slg_targets_init(&t, sizeof t);
    SLG_TRY(source_grad_open(c->ctx, given, c->target.teacher, &c->teacher, &c->teacher_grad));
    SLG_TRY(options_read(c->ctx, "logits", c->given_logits, &l, sizeof l));
    SLG_TRY(options_read(c->ctx, "targets", c->given_targets, &t, sizeof t));
    SLG_TRY(grad_tensors(c, given, d));
    SLG_TRY(grad_tensors(c, c->given_grad, own));
    const slg_tensor *others[] = {
        l.dense, l.hidden, l.weight,     l.bias,         l.mask, l.row_temperature,
        t.index, t.prob,   t.row_weight, t.class_weight, own[0], own[1],
        own[2],  own[3],   c->out.loss,  c->out.lse
    };
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < sizeof others / sizeof *others; j++)
            if (outputs_clash(d[i], others[j]))
                return slg_fail(
                    c->ctx, SLG_ERR_STRIDE,
                    "a gradient of the teacher overlaps another tensor of the call");
    c->given_teacher_grad = given;
    return SLG_OK;
}

slg_status loss_check_input(loss_call *c, const char *name, const slg_tensor *t)
{
    const slg_tensor *d[4];
    SLG_TRY(grad_tensors(c, c->given_grad, d));
    bool clash = outputs_clash(t, c->out.loss) || outputs_clash(t, c->out.lse);
    for (size_t i = 0; i < 4; i++) clash = clash || outputs_clash(t, d[i]);
    if (clash) return slg_fail(c->ctx, SLG_ERR_STRIDE, "%s overlaps an output", name);
    return SLG_OK;
}

/* ---- Is the target the arg-max? --------------------------------------------------------- */

/* Is the target the arg-max, the first one on a tie? */
static bool target_leads(const loss_call *c, const loss_row *r)
{
    float scratch[KERNEL_BLOCK];
    if (r->target < 0 || r->x_target == -INFINITY) return false;
    if (r->x_target != r->rest.part.max) return r->x_target > r->rest.part.max;
    for (int64_t col = 0; col < r->target; col += KERNEL_BLOCK) {
        int64_t n = r->target - col < KERNEL_BLOCK ? r->target - col : KERNEL_BLOCK;
        const float *x = source_fetch(&c->src, r->row, col, n, scratch);
        if (c->ctx->k.find((size_t)n, x, r->x_target) < n) return false;
    }
    return true;
}

/* First index of the largest entry. */
static int64_t arg_max(const kernel_table *k, row_fetch fetch, const void *from, int64_t row,
                       int64_t cols)
{
    float scratch[KERNEL_BLOCK], best = -INFINITY;
    int64_t at = 0;
    for (int64_t col = 0; col < cols; col += KERNEL_BLOCK) {
        int64_t n = cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK;
        const float *x = fetch(from, row, col, n, scratch);
        float max = k->max((size_t)n, x);
        if (max > best) {
            best = max;
            at = col + k->find((size_t)n, x, max);
        }
    }
    return at;
}

static bool prob_leads(const loss_call *c, int64_t row)
{
    const kernel_table *k = &c->ctx->k;
    rows_source q = { k, c->target.prob };
    int64_t cols = c->src.cols;
    return cols > 0 && arg_max(k, rows_source_fetch, &q, row, cols) ==
                           arg_max(k, source_fetch, &c->src, row, cols);
}

bool loss_leads(const loss_call *c, const loss_row *r)
{
    return c->target.has_prob ? prob_leads(c, r->row) : target_leads(c, r);
}
