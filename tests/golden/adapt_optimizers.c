/* Update rules against torch.optim: make_optimizers.py says what each name means. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "golden/adapter.h"

typedef union any_opts {
    slg_sgd_opts sgd;
    slg_adamw_opts adamw;
    slg_nadam_opts nadam;
    slg_rmsprop_opts rmsprop;
    slg_lion_opts lion;
    slg_egd_opts egd;
    slg_adafactor_opts adafactor;
} any_opts;

static void read_adamw(run *g, slg_adamw_opts *o)
{
    slg_adamw_opts_init(o, sizeof *o);
    o->decoupled = (int32_t)scalar_or(g, "decoupled", o->decoupled);
    o->amsgrad = (int32_t)scalar_or(g, "amsgrad", o->amsgrad);
    o->weight_decay = scalar_or(g, "weight_decay", o->weight_decay);
    o->beta1 = scalar_or(g, "beta1", o->beta1);
    o->beta2 = scalar_or(g, "beta2", o->beta2);
    o->eps = scalar_or(g, "eps", o->eps);
}

static void read_nadam(run *g, slg_nadam_opts *o)
{
    slg_nadam_opts_init(o, sizeof *o);
    o->decoupled = (int32_t)scalar_or(g, "decoupled", o->decoupled);
    o->weight_decay = scalar_or(g, "weight_decay", o->weight_decay);
    o->beta1 = scalar_or(g, "beta1", o->beta1);
    o->beta2 = scalar_or(g, "beta2", o->beta2);
    o->eps = scalar_or(g, "eps", o->eps);
    o->momentum_decay = scalar_or(g, "momentum_decay", o->momentum_decay);
}

static void read_sgd(run *g, slg_sgd_opts *o)
{
    slg_sgd_opts_init(o, sizeof *o);
    o->momentum = scalar_or(g, "momentum", o->momentum);
    o->dampening = scalar_or(g, "dampening", o->dampening);
    o->nesterov = (int32_t)scalar_or(g, "nesterov", o->nesterov);
    o->decoupled = (int32_t)scalar_or(g, "decoupled", o->decoupled);
    o->weight_decay = scalar_or(g, "weight_decay", o->weight_decay);
}

static void read_rmsprop(run *g, slg_rmsprop_opts *o)
{
    slg_rmsprop_opts_init(o, sizeof *o);
    o->alpha = scalar_or(g, "alpha", o->alpha);
    o->eps = scalar_or(g, "eps", o->eps);
    o->momentum = scalar_or(g, "momentum", o->momentum);
    o->centered = (int32_t)scalar_or(g, "centered", o->centered);
    o->decoupled = (int32_t)scalar_or(g, "decoupled", o->decoupled);
    o->weight_decay = scalar_or(g, "weight_decay", o->weight_decay);
}

static void read_lion(run *g, slg_lion_opts *o)
{
    slg_lion_opts_init(o, sizeof *o);
    o->beta1 = scalar_or(g, "beta1", o->beta1);
    o->beta2 = scalar_or(g, "beta2", o->beta2);
    o->decoupled = (int32_t)scalar_or(g, "decoupled", o->decoupled);
    o->weight_decay = scalar_or(g, "weight_decay", o->weight_decay);
}

static void read_egd(run *g, slg_egd_opts *o)
{
    slg_egd_opts_init(o, sizeof *o);
    o->momentum = scalar_or(g, "momentum", o->momentum);
    o->floor = scalar_or(g, "floor", o->floor);
    o->cap = scalar_or(g, "cap", o->cap);
    o->weight_decay = scalar_or(g, "weight_decay", o->weight_decay);
}

static void read_adafactor(run *g, slg_adafactor_opts *o)
{
    slg_adafactor_opts_init(o, sizeof *o);
    o->relative_step = (int32_t)scalar_or(g, "relative_step", o->relative_step);
    o->scale_parameter = (int32_t)scalar_or(g, "scale_parameter", o->scale_parameter);
    o->beta1 = scalar_or(g, "beta1", o->beta1);
    o->decay_rate = scalar_or(g, "decay_rate", o->decay_rate);
    o->eps1 = scalar_or(g, "eps1", o->eps1);
    o->eps2 = scalar_or(g, "eps2", o->eps2);
    o->clip_threshold = scalar_or(g, "clip_threshold", (double)INFINITY);
    o->weight_decay = scalar_or(g, "weight_decay", o->weight_decay);
}

/* For w as it is, or for as many weights. */
static slg_optimizer *create(run *g, int32_t kind, const slg_tensor *w, bool shaped)
{
    const int64_t n = tensor_size(w);
    slg_optimizer *o = NULL;
    any_opts opts;
    if (kind == SLG_SGD) read_sgd(g, &opts.sgd);
    if (kind == SLG_ADAMW) read_adamw(g, &opts.adamw);
    if (kind == SLG_NADAM) read_nadam(g, &opts.nadam);
    if (kind == SLG_RMSPROP) read_rmsprop(g, &opts.rmsprop);
    if (kind == SLG_LION) read_lion(g, &opts.lion);
    if (kind == SLG_EGD) read_egd(g, &opts.egd);
    if (kind == SLG_ADAFACTOR) read_adafactor(g, &opts.adafactor);
    check(g, shaped ? slg_optimizer_create_list(g->ctx, kind, 1, &w, &opts, NULL, &o)
                    : slg_optimizer_create(g->ctx, kind, n, &opts, &o));
    return o;
}

static slg_tensor part(const slg_tensor *t, int64_t from, int64_t to)
{
    return slg_tensor_1d((float *)t->data + from, SLG_F32, to - from);
}

/* The gradient of step t; all of w at once, or in `pieces`. */
static slg_status step(slg_optimizer *o, slg_tensor *w, const slg_tensor *dw, int64_t t,
                       int pieces)
{
    enum { MOST = 3 };
    slg_tensor ws[MOST], dws[MOST], *w_list[MOST];
    const slg_tensor *dw_list[MOST];
    const int64_t n = tensor_size(w);
    if (pieces == 1) {
        slg_tensor now = *w;
        now.data = (float *)dw->data + t * n;
        return slg_optimizer_step(o, w, &now);
    }
    for (int i = 0; i < pieces; i++) {
        int64_t from = n * i * i / (pieces * pieces),
                to = n * (i + 1) * (i + 1) / (pieces * pieces);
        ws[i] = part(w, from, to);
        dws[i] = part(dw, t * n + from, t * n + to);
        w_list[i] = &ws[i], dw_list[i] = &dws[i];
    }
    return slg_optimizer_step_list(o, pieces, w_list, dw_list);
}

/* Into a new optimizer, by way of the state's bytes. */
static slg_optimizer *moved(run *g, slg_optimizer *from, int32_t kind, const slg_tensor *w,
                            bool shaped)
{
    int64_t bytes = 0;
    slg_optimizer *to = create(g, kind, w, shaped);
    check(g, slg_optimizer_export(from, NULL, 0, &bytes));
    void *state = malloc((size_t)bytes);
    if (!state) fail(g, "out of memory");
    slg_status status = slg_optimizer_export(from, state, bytes, &bytes);
    if (status == SLG_OK) status = slg_optimizer_import(to, state, bytes);
    free(state);
    slg_optimizer_free(from);
    check(g, status);
    return to;
}

static void path(run *g, int32_t kind, const char *label, int pieces, bool move)
{
    variation(g, label);
    contiguous(g);
    slg_tensor *w = input_output(g, "w", SLG_F32), *dw = input(g, "dw", SLG_F32);
    slg_tensor *lr = input(g, "lr", SLG_F64), *scale = input(g, "grad_scale", SLG_F32);
    slg_tensor *out = output_for(g, "w", SLG_F32);
    const int64_t n = tensor_size(w), steps = dw->shape[0], every = (int64_t)scalar(g, "every");
    const bool shaped = pieces == 1;
    slg_optimizer *o = create(g, kind, w, shaped);
    for (int64_t t = 0; t < steps; t++) {
        if (move && t % 50 == 25) o = moved(g, o, kind, w, shaped);
        check(g, slg_optimizer_set_lr(o, tensor_get(lr, t)));
        check(g, slg_optimizer_set_grad_scale(o, tensor_get(scale, t)));
        check(g, step(o, w, dw, t, pieces));
        if ((t + 1) % every == 0)
            memcpy((float *)out->data + (t + 1) / every * n - n, w->data,
                   (size_t)n * sizeof(float));
    }
    if (slg_optimizer_steps(o) != steps) fail(g, "steps is not %d", (int)steps);
    slg_optimizer_free(o);
    expect(g, "w", out);
}

static void paths(run *g, int32_t kind)
{
    path(g, kind, "one tensor", 1, false);
    path(g, kind, "a list of three", 3, false);
    path(g, kind, "exported and imported", 1, true);
}

static void sgd(run *g) { paths(g, SLG_SGD); }
static void adamw(run *g) { paths(g, SLG_ADAMW); }
static void nadam(run *g) { paths(g, SLG_NADAM); }
static void rmsprop(run *g) { paths(g, SLG_RMSPROP); }
static void lion(run *g) { paths(g, SLG_LION); }
static void egd(run *g) { paths(g, SLG_EGD); }

/* A list of pieces would be other tensors. */
static void adafactor(run *g)
{
    path(g, SLG_ADAFACTOR, "one tensor", 1, false);
    path(g, SLG_ADAFACTOR, "exported and imported", 1, true);
}

const adapter adapt_optimizers[] = {
    { "sgd", sgd },   { "adamw", adamw }, { "nadam", nadam },         { "rmsprop", rmsprop },
    { "lion", lion }, { "egd", egd },     { "adafactor", adafactor }, { NULL, NULL }
};
