/*
 * entropy.c - see reward.h: entropies of rows, on the losses' engine, as a loss without value.
 */
#include "core/options.h"
#include "softlogit/reward.h"
#include "top_k.h"

static const slg_entropy_opts defaults = { .size = sizeof(slg_entropy_opts), .top_k = 100 };

void slg_entropy_opts_init(slg_entropy_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct wanted {
    slg_entropy_opts o;
    slg_tensor *entropy;
} wanted;

enum { ENTROPY, TOP_ENTROPY, TOP_MASS };

static int64_t scratch_floats(int64_t cols) { return cols; }

static void whole(const loss_call *c, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const wanted *w = c->opts;
    top_cut cut;
    (void)t, (void)d;
    r->loss = 0;
    group all = group_of(c, r, c->src.cols, x);
    r->extra[ENTROPY] = all.own_entropy;
    if (!w->o.top_entropy && !w->o.top_mass) return;
    int64_t n = top_values(&c->ctx->k, c->src.cols, x, w->o.top_k, scratch, &cut);
    group g = group_of(c, r, n, scratch);
    r->extra[TOP_ENTROPY] = g.own_entropy;
    r->extra[TOP_MASS] = g.mass < 1 ? g.mass : 1;
}

static slg_status open(loss_call *c)
{
    const wanted *w = c->opts;
    if (c->src.cols > INT32_MAX)
        return slg_fail(c->ctx, SLG_ERR_SHAPE,
                        "logits have %lld columns, at most %d are allowed",
                        (long long)c->src.cols, INT32_MAX);
    SLG_TRY(loss_open_extra(c, ENTROPY, "entropy", w->entropy));
    SLG_TRY(loss_open_extra(c, TOP_ENTROPY, "opts.top_entropy", w->o.top_entropy));
    return loss_open_extra(c, TOP_MASS, "opts.top_mass", w->o.top_mass);
}

static const loss_method method = { .open = open,
                                    .whole = whole,
                                    .scratch_floats = scratch_floats };

static slg_status entropies(slg_ctx *ctx, const slg_logits *logits,
                            const slg_entropy_opts *opts, slg_tensor *entropy)
{
    wanted w = { defaults, entropy };
    slg_targets none;
    slg_loss_out out = slg_loss_out_none();
    SLG_TRY(options_read(ctx, "opts", opts, &w.o, sizeof w.o));
    SLG_TRY(option_reserved(ctx, "opts.reserved", w.o.reserved));
    if (w.o.top_k < 1)
        return slg_fail(ctx, SLG_ERR_RANGE, "top_k is %lld, must be at least 1",
                        (long long)w.o.top_k);
    slg_targets_init(&none, sizeof none);
    return loss_run(ctx, &method, &w, SLG_SUM, logits, &none, &out, NULL);
}

slg_status slg_entropy(slg_ctx *ctx, const slg_logits *logits, const slg_entropy_opts *opts,
                       slg_tensor *entropy)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_entropy");
    return op_end(ctx, entropies(ctx, logits, opts, entropy));
}
