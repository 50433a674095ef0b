/*
 * dual_head.c - see dual_head.h. Two losses opened together, so that all is checked first, then
 * run one after the other. A shared dhidden is written by the main loss and added to by
 * the auxiliary one.
 */
#include "methods.h"

#include "core/options.h"
#include "softlogit/dual_head.h"

static const slg_dual_head_opts defaults = {
    .size = sizeof(slg_dual_head_opts),
    .reduction = SLG_MEAN,
    .normalised = 1,
    .main_weight = 1,
    .auxiliary_weight = 1,
    .temperature = 2,
};

void slg_dual_head_opts_init(slg_dual_head_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status read_opts(slg_ctx *ctx, const slg_dual_head_opts *opts, slg_dual_head_opts *o)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, o, sizeof *o));
    SLG_TRY(option_least(ctx, "main_weight", o->main_weight, 0));
    SLG_TRY(option_least(ctx, "auxiliary_weight", o->auxiliary_weight, 0));
    SLG_TRY(option_range(ctx, "temperature", o->temperature, 1e-6, 1e6));
    SLG_TRY(option_choice(ctx, "normalised", o->normalised, 0, 1));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    return SLG_OK;
}

/* A head's tensors: what it reads, what it writes. */
typedef struct head {
    const slg_tensor *in[6], *out[6];
    slg_logits_grad grad;
} head;

static slg_status read_head(slg_ctx *ctx, const slg_logits *logits, const slg_logits_grad *grad,
                            const slg_loss_out *out, head *h)
{
    slg_logits l;
    slg_loss_out o;
    slg_logits_init(&l, sizeof l);
    slg_loss_out_init(&o, sizeof o);
    slg_logits_grad_init(&h->grad, sizeof h->grad);
    if (!logits) return slg_fail(ctx, SLG_ERR_NULL, "main or auxiliary is NULL");
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "main_out or auxiliary_out is NULL");
    SLG_TRY(options_read(ctx, "logits", logits, &l, sizeof l));
    SLG_TRY(options_read(ctx, "out", out, &o, sizeof o));
    if (grad) SLG_TRY(options_read(ctx, "grad", grad, &h->grad, sizeof h->grad));
    const slg_logits_grad *g = &h->grad;
    const slg_tensor *in[6] = {
        l.dense, l.hidden, l.weight, l.bias, l.mask, l.row_temperature
    };
    const slg_tensor *to[6] = { g->dlogits, g->dhidden, g->dweight, g->dbias, o.loss, o.lse };
    for (int i = 0; i < 6; i++) h->in[i] = in[i], h->out[i] = to[i];
    return SLG_OK;
}

static bool shares(const slg_tensor *a, const slg_tensor *b)
{
    return a && b && a->data && (tensor_clash(a, b) || a->data == b->data);
}

/* The same dhidden for both heads? */
static bool merged(const head *a, const head *b)
{
    const slg_tensor *x = a->grad.dhidden, *y = b->grad.dhidden;
    return x && y && x->data && x->data == y->data && !tensor_clash(x, y);
}

/* What one head writes, the other neither reads nor writes; but for a shared dhidden. */
static slg_status check_apart(slg_ctx *ctx, const head *a, const head *b,
                              const slg_targets *targets)
{
    for (int i = 0; i < 6; i++) {
        for (int j = 0; j < 6; j++) {
            bool both = i == 1 && j == 1 && merged(a, b);
            if (shares(a->out[i], b->in[j]) || shares(b->out[i], a->in[j]) ||
                (!both && shares(a->out[i], b->out[j])))
                return slg_fail(ctx, SLG_ERR_STRIDE,
                                "an output of one head overlaps a tensor of the other");
        }
        if (targets_clash(targets, a->out[i]) || targets_clash(targets, b->out[i]))
            return slg_fail(ctx, SLG_ERR_STRIDE, "an output overlaps a target tensor");
    }
    return SLG_OK;
}

static slg_status dual_head(slg_ctx *ctx, const slg_logits *main, const slg_logits *auxiliary,
                            const slg_targets *targets, const slg_dual_head_opts *opts,
                            slg_loss_out *main_out, slg_loss_out *auxiliary_out,
                            slg_logits_grad *main_grad, slg_logits_grad *auxiliary_grad)
{
    slg_dual_head_opts o;
    slg_targets t;
    head a, b;
    slg_cross_entropy_opts ce;
    slg_binary_kl_opts kl;
    slg_targets_init(&t, sizeof t);
    slg_cross_entropy_opts_init(&ce, sizeof ce);
    slg_binary_kl_opts_init(&kl, sizeof kl);
    SLG_TRY(read_opts(ctx, opts, &o));
    if (!targets) return slg_fail(ctx, SLG_ERR_NULL, "targets is NULL");
    SLG_TRY(options_read(ctx, "targets", targets, &t, sizeof t));
    if (t.prob)
        return slg_fail(ctx, SLG_ERR_NULL,
                        "targets.prob must be NULL: this loss does not use it");
    SLG_TRY(read_head(ctx, main, main_grad, main_out, &a));
    SLG_TRY(read_head(ctx, auxiliary, auxiliary_grad, auxiliary_out, &b));
    SLG_TRY(check_apart(ctx, &a, &b, targets));
    if (merged(&a, &b)) b.grad.accumulate |= SLG_ACCUMULATE_INPUTS;

    slg_targets first = t, second = t;
    first.teacher = NULL;
    second.index = second.class_weight = NULL;
    kl.temperature = o.temperature;
    loss_call calls[2];
    SLG_TRY(loss_open(ctx, &cross_entropy_method, &ce, o.reduction, main, &first, main_out,
                      main_grad ? &a.grad : NULL, NULL, &calls[0]));
    SLG_TRY(loss_open(ctx, o.normalised ? &binary_kl_normalised_method : &binary_kl_method, &kl,
                      o.reduction, auxiliary, &second, auxiliary_out,
                      auxiliary_grad ? &b.grad : NULL, NULL, &calls[1]));
    if (calls[0].src.rows != calls[1].src.rows)
        return slg_fail(ctx, SLG_ERR_SHAPE, "main has %lld rows, auxiliary %lld",
                        (long long)calls[0].src.rows, (long long)calls[1].src.rows);
    calls[0].gain = o.main_weight;
    calls[1].gain = o.auxiliary_weight;
    SLG_TRY(loss_execute(&calls[0], main_out));
    return loss_execute(&calls[1], auxiliary_out);
}

slg_status slg_dual_head(slg_ctx *ctx, const slg_logits *main, const slg_logits *auxiliary,
                         const slg_targets *targets, const slg_dual_head_opts *opts,
                         slg_loss_out *main_out, slg_loss_out *auxiliary_out,
                         slg_logits_grad *main_grad, slg_logits_grad *auxiliary_grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_dual_head");
    return op_end(ctx, dual_head(ctx, main, auxiliary, targets, opts, main_out, auxiliary_out,
                                 main_grad, auxiliary_grad));
}
