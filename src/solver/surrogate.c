/*
 * surrogate.c - see softlogit/surrogate.h.
 */
#include <math.h>

#include "core/options.h"
#include "softmax/parts.h"
#include "surrogate_kl.h"

static const slg_surrogate_opts defaults = { sizeof defaults, SLG_SURROGATE_SQUARED, 1 };
static const slg_surrogate_out no_out = { .size = sizeof no_out };

void slg_surrogate_opts_init(slg_surrogate_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

void slg_surrogate_out_init(slg_surrogate_out *out, size_t size)
{
    options_init(out, size, &no_out, sizeof no_out);
}

static double divergence_of(const surrogate_run *r, const double sums[TARGET_SUMS])
{
    return r->kind == SLG_SURROGATE_KL ? sums[3] : sums[1] / 2;
}

/* 1 / eta = 0: the divergence counts for nothing, infinite too, but not where it is NaN. */
static double value_of(const surrogate_run *r, const double sums[TARGET_SUMS])
{
    const double d = divergence_of(r, sums);
    return sums[0] + (r->inv == 0 && !isnan(d) ? 0 : d * r->inv);
}

static void row_done(const void *arg, int64_t row, const double sums[TARGET_SUMS])
{
    const surrogate_run *r = arg;
    rows_put(r->values, 0, row, value_of(r, sums));
}

static void piece(const kernel_table *k, const void *arg, int64_t row, int64_t from,
                  int64_t count, float *scratch, double sums[TARGET_SUMS])
{
    const surrogate_run *r = arg;
    const rows *o = r->o.r;
    const bool kl = r->kind == SLG_SURROGATE_KL, grad = r->o.t[S_GRAD] && !kl;
    float *own = scratch + 3 * KERNEL_BLOCK;
    for (int64_t i = 0; i < count; i += KERNEL_BLOCK) {
        const int64_t col = from + i, n = count - i < KERNEL_BLOCK ? count - i : KERNEL_BLOCK;
        const float *g = rows_fetch(k, &o[S_G], row, col, n, scratch);
        const float *a = rows_fetch(k, &o[S_FROM], row, col, n, scratch + KERNEL_BLOCK);
        const float *z = rows_fetch(k, &o[S_Z], row, col, n, scratch + 2 * KERNEL_BLOCK);
        float *to = grad ? rows_stage(&o[S_GRAD], row, col, own) : NULL;
        k->surrogate((size_t)n, g, a, z, r->inv, to, sums);
        if (to == own) rows_commit(k, &o[S_GRAD], row, col, n, own);
    }
    if (kl) sums[3] = surrogate_kl_row(k, r, row, scratch);
}

static slg_status check(slg_ctx *ctx, const slg_tensor *const t[TARGET_OPERANDS],
                        const slg_surrogate_opts *given, slg_surrogate_opts *o,
                        const slg_surrogate_out *out)
{
    SLG_TRY(target_like(ctx, "g", t[S_G], NULL, false));
    SLG_TRY(target_like(ctx, "target_t", t[S_FROM], t[S_G], false));
    SLG_TRY(target_like(ctx, "target", t[S_Z], t[S_G], false));
    if (t[S_GRAD]) SLG_TRY(target_like(ctx, "grad", t[S_GRAD], t[S_G], true));
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_choice(ctx, "opts.kind", o->kind, SLG_SURROGATE_SQUARED, SLG_SURROGATE_KL));
    if (!(o->eta > 0) || !isfinite(1 / o->eta))
        return slg_fail(ctx, SLG_ERR_RANGE, "opts.eta is %g, must be positive", o->eta);
    for (int i = 0; i < S_GRAD; i++)
        if (tensor_clash(t[S_GRAD], t[i]) || outputs_clash(out->row_values, t[i]))
            return slg_fail(ctx, SLG_ERR_STRIDE, "an output overlaps g, target_t or target");
    if (!out->row_values) return SLG_OK;
    SLG_TRY(tensor_out(ctx, "out.row_values", out->row_values, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "out.row_values", out->row_values, 1, t[S_G]->shape));
    if (outputs_clash(out->row_values, t[S_GRAD]))
        return slg_fail(ctx, SLG_ERR_STRIDE, "out.row_values overlaps grad");
    return SLG_OK;
}

static slg_status surrogate(slg_ctx *ctx, const slg_tensor *const t[TARGET_OPERANDS],
                            const slg_surrogate_opts *opts, slg_surrogate_out *given)
{
    slg_surrogate_opts o = defaults;
    slg_surrogate_out out = no_out;
    if (given) SLG_TRY(options_read(ctx, "out", given, &out, sizeof out));
    SLG_TRY(option_reserved(ctx, "out.reserved", out.reserved));
    SLG_TRY(check(ctx, t, opts, &o, &out));
    op_detail(ctx, t[S_G]);
    rows values;
    double total[TARGET_SUMS];
    surrogate_run r = { .kind = o.kind, .inv = 1 / o.eta };
    for (int i = 0; i < TARGET_OPERANDS; i++) r.o.t[i] = t[i];
    if (out.row_values) values = rows_of(out.row_values), r.values = &values;
    const bool whole = o.kind == SLG_SURROGATE_KL || r.values;
    target_operands_open(&r.o, whole);
    const target_walk w = { r.o.count, r.o.cols, whole, piece, &r, r.values ? row_done : NULL };
    SLG_TRY(target_walk_run(ctx, &w, total));
    out.linear = total[0], out.divergence = divergence_of(&r, total);
    out.value = value_of(&r, total);
    out.gradient_norm = sqrt(total[2]), out.move_norm = sqrt(total[1]);
    if (given) options_write(given, &out, sizeof out);
    return SLG_OK;
}

slg_status slg_surrogate(slg_ctx *ctx, const slg_tensor *g, const slg_tensor *target_t,
                         const slg_tensor *target, const slg_surrogate_opts *opts,
                         slg_tensor *grad, slg_surrogate_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    const slg_tensor *const t[TARGET_OPERANDS] = { g, target_t, target, grad };
    op_begin(ctx, "slg_surrogate");
    return op_end(ctx, surrogate(ctx, t, opts, out));
}
