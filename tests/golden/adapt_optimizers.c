/* Update rules against torch.optim: make_optimizers.py says what each name means. */
#include <stdlib.h>
#include <string.h>

#include "golden/adapter.h"

static slg_optimizer *create(run *g, int32_t kind, int64_t n)
{
    slg_optimizer *o = NULL;
    slg_sgd_opts sgd;
    slg_adamw_opts adamw;
    slg_sgd_opts_init(&sgd, sizeof sgd);
    slg_adamw_opts_init(&adamw, sizeof adamw);
    sgd.momentum = scalar_or(g, "momentum", 0);
    sgd.dampening = scalar_or(g, "dampening", 0);
    sgd.nesterov = (int32_t)scalar_or(g, "nesterov", 0);
    sgd.decoupled = adamw.decoupled = (int32_t)scalar(g, "decoupled");
    sgd.weight_decay = adamw.weight_decay = scalar(g, "weight_decay");
    adamw.beta1 = scalar_or(g, "beta1", 0.9);
    adamw.beta2 = scalar_or(g, "beta2", 0.999);
    adamw.eps = scalar_or(g, "eps", 1e-8);
    check(g,
          slg_optimizer_create(g->ctx, kind, n, kind == SLG_SGD ? (void *)&sgd : &adamw, &o));
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
    const int64_t n = w->shape[0];
    for (int i = 0; i < pieces; i++) {
        int64_t from = n * i * i / (pieces * pieces),
                to = n * (i + 1) * (i + 1) / (pieces * pieces);
        ws[i] = part(w, from, to);
        dws[i] = part(dw, t * n + from, t * n + to);
        w_list[i] = &ws[i], dw_list[i] = &dws[i];
    }
    return pieces == 1 ? slg_optimizer_step(o, w_list[0], dw_list[0])
                       : slg_optimizer_step_list(o, pieces, w_list, dw_list);
}

/* Into a new optimizer, by way of the state's bytes. */
static slg_optimizer *moved(run *g, slg_optimizer *from, int32_t kind, int64_t n)
{
    int64_t bytes = 0;
    slg_optimizer *to = create(g, kind, n);
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
    const int64_t n = w->shape[0], steps = dw->shape[0], every = (int64_t)scalar(g, "every");
    slg_optimizer *o = create(g, kind, n);
    for (int64_t t = 0; t < steps; t++) {
        if (move && t % 50 == 25) o = moved(g, o, kind, n);
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

const adapter adapt_optimizers[] = { { "sgd", sgd }, { "adamw", adamw }, { NULL, NULL } };
