/* Cross-entropy: make_cross-entropy.py says what each name means. */
#include "golden/adapter.h"

typedef struct form {
    const char *name;
    int32_t index_type;
    bool gradients, accumulate; /* accumulate: fused alone */
} form;

/* The gradients that the case expects, for its kind of source. */
static void gradients(run *g, const form *f, slg_logits *l, slg_logits_grad *d)
{
    slg_logits_grad_init(d, sizeof *d);
    d->accumulate = f->accumulate;
    if (l->dense) {
        d->dlogits = output_over(g, (slg_tensor *)l->dense);
        return;
    }
    d->dhidden = output_for(g, "dhidden", SLG_F32);
    d->dbias = output_for(g, "dbias", SLG_F32);
    contiguous(g); /* rows of dweight must be */
    d->dweight = output_for(g, "dweight", SLG_F32);
    if (f->accumulate && d->dweight)
        d->dweight = output_zero(g, SLG_F32, d->dweight->ndim, d->dweight->shape);
    if (f->accumulate && d->dbias) d->dbias = output_zero(g, SLG_F32, 1, d->dbias->shape);
}

static void compare(run *g, const slg_loss_out *out, const slg_logits_grad *d)
{
    expect(g, "loss", out->loss);
    expect(g, "lse", out->lse);
    expect_number(g, "value", out->value);
    expect_number(g, "sum", out->sum);
    expect_number(g, "weight", out->weight);
    expect_number(g, "count", (double)out->count);
    expect_number(g, "correct", (double)out->correct);
    expect(g, "dlogits", d->dlogits);
    expect(g, "dhidden", d->dhidden);
    expect(g, "dweight", d->dweight);
    expect(g, "dbias", d->dbias);
}

static void one_form(run *g, const form *f)
{
    slg_logits l;
    slg_targets t;
    slg_cross_entropy_opts o;
    slg_loss_out out;
    slg_logits_grad d;
    variation(g, f->name);
    slg_logits_init(&l, sizeof l);
    l.dense = input_or_null(g, "logits", SLG_F32);
    l.hidden = input_or_null(g, "hidden", SLG_F32);
    l.weight = input_or_null(g, "weight", SLG_F32);
    l.bias = input_or_null(g, "bias", SLG_F32);
    l.mask = input_or_null(g, "mask", f->index_type);
    l.temperature = scalar_or(g, "temperature", l.temperature);
    l.softcap = scalar_or(g, "softcap", l.softcap);
    slg_targets_init(&t, sizeof t);
    t.index = input_or_null(g, "index", f->index_type);
    t.prob = input_or_null(g, "prob", SLG_F32);
    t.row_weight = input_or_null(g, "row_weight", SLG_F32);
    t.class_weight = input_or_null(g, "class_weight", SLG_F32);
    t.ignore_index = (int64_t)scalar_or(g, "ignore_index", (double)t.ignore_index);
    slg_cross_entropy_opts_init(&o, sizeof o);
    o.reduction = (int32_t)scalar_or(g, "reduction", o.reduction);
    o.label_smoothing = scalar_or(g, "label_smoothing", o.label_smoothing);
    o.z_loss = scalar_or(g, "z_loss", o.z_loss);
    slg_loss_out_init(&out, sizeof out);
    out.loss = output_for(g, "loss", SLG_F32);
    out.lse = output_for(g, "lse", SLG_F32);
    slg_logits_grad_init(&d, sizeof d);
    if (f->gradients) gradients(g, f, &l, &d);
    check(g, slg_cross_entropy(g->ctx, &l, &t, &o, &out, f->gradients ? &d : NULL));
    compare(g, &out, &d);
}

static void cross_entropy(run *g)
{
    static const form forms[] = {
        { "value alone", SLG_I32, false, false },
        { "with gradients", SLG_I32, true, false },
        { "gradients added to zeros", SLG_I64, true, true },
    };
    for (int i = 0; i < 3; i++) one_form(g, &forms[i]);
}

const adapter adapt_cross_entropy[] = { { "cross_entropy", cross_entropy }, { NULL, NULL } };
