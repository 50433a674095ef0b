/*
 * target_search.c - Armijo's condition: options of its searches, and the one in the target
 * space, over any loss.
 */
#include <math.h>

#include "core/options.h"
#include "target_rows.h"

const slg_armijo_opts armijo_defaults = {
    sizeof armijo_defaults, 100, 0.5, 1.8, 0.9, 1e-4, 1e4
};
const slg_armijo_opts armijo_inner_defaults = {
    sizeof armijo_inner_defaults, 100, 0.5, 1.8, 0.9, 1e-6, 1e6
};

void slg_armijo_opts_init(slg_armijo_opts *opts, size_t size)
{
    options_init(opts, size, &armijo_defaults, sizeof armijo_defaults);
}

void slg_armijo_opts_init_inner(slg_armijo_opts *opts, size_t size)
{
    options_init(opts, size, &armijo_inner_defaults, sizeof armijo_inner_defaults);
}

static slg_status open_range(slg_ctx *ctx, const char *name, const char *field, double value,
                             double high)
{
    if (value > 0 && value < high) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "%s.%s is %g, must be above 0 and below %g", name,
                    field, value, high);
}

slg_status armijo_read(slg_ctx *ctx, const char *name, const slg_armijo_opts *given,
                       slg_armijo_opts *o)
{
    SLG_TRY(options_read(ctx, name, given, o, sizeof *o));
    if (o->max_trials < 1 || o->max_trials > 1000)
        return slg_fail(ctx, SLG_ERR_RANGE, "%s.max_trials is %d, must be from 1 to 1000", name,
                        o->max_trials);
    SLG_TRY(open_range(ctx, name, "c", o->c, 1));
    SLG_TRY(open_range(ctx, name, "shrink", o->shrink, 1));
    SLG_TRY(open_range(ctx, name, "step_min", o->step_min, (double)INFINITY));
    if (!(o->expand >= 1 && isfinite(o->expand)))
        return slg_fail(ctx, SLG_ERR_RANGE, "%s.expand is %g, must be at least 1", name,
                        o->expand);
    if (!(o->step_max >= o->step_min && isfinite(o->step_max)))
        return slg_fail(ctx, SLG_ERR_RANGE, "%s.step_max is %g, step_min is %g", name,
                        o->step_max, o->step_min);
    return SLG_OK;
}

slg_status armijo_search(const slg_armijo_opts *o, double step, double square,
                         slg_status (*at)(void *arg, double s, double *loss), void *arg,
                         slg_target_search_out *out)
{
    const double loss = out->loss_at;
    double s = o->expand * step;
    out->reason = SLG_SEARCH_NOT_FINITE, out->trials = 0, out->loss = loss;
    if (!isfinite(loss) || !isfinite(square)) {
        s = step;
    } else {
        out->reason = SLG_SEARCH_EXHAUSTED;
        while (out->reason && out->trials < o->max_trials) {
            SLG_TRY(at(arg, s, &out->loss));
            out->trials++;
            if (out->loss <= loss - o->c * s * square)
                out->reason = SLG_SEARCH_ACCEPTED;
            else
                s *= o->shrink;
        }
    }
    out->step = fmin(fmax(s, o->step_min), o->step_max);
    return SLG_OK;
}

typedef struct search_run {
    slg_ctx *ctx;
    target_loss t;
} search_run;

static slg_status loss_at(void *arg, double s, double *loss)
{
    search_run *r = arg;
    r->t.s = s;
    return target_loss_run(r->ctx, &r->t, loss);
}

static void norm_piece(const kernel_table *k, const void *arg, int64_t row, int64_t from,
                       int64_t count, float *scratch, double sums[TARGET_SUMS])
{
    const target_operands *o = arg;
    for (int64_t i = 0; i < count; i += KERNEL_BLOCK) {
        const int64_t n = count - i < KERNEL_BLOCK ? count - i : KERNEL_BLOCK;
        const float *g = rows_fetch(k, &o->r[0], row, from + i, n, scratch);
        k->surrogate((size_t)n, g, g, g, 0, NULL, sums);
    }
}

static slg_status square_of(slg_ctx *ctx, const slg_tensor *g, double *square)
{
    double total[TARGET_SUMS];
    target_operands o = { .t = { g } };
    target_operands_open(&o, false);
    const target_walk w = { o.count, o.cols, false, norm_piece, &o, NULL };
    SLG_TRY(target_walk_run(ctx, &w, total));
    *square = total[2];
    return SLG_OK;
}

static slg_status search(slg_ctx *ctx, target_loss *t, double step,
                         const slg_armijo_opts *given, slg_target_search_out *out)
{
    slg_armijo_opts o = armijo_defaults;
    slg_target_search_out now = { .size = sizeof now };
    size_t size;
    double square;
    SLG_TRY(target_like(ctx, "target", t->z, NULL, false));
    SLG_TRY(target_data_check(ctx, t->kind, t->data, t->z->shape[0], t->z->shape[1]));
    SLG_TRY(target_like(ctx, "g", t->g, t->z, false));
    SLG_TRY(armijo_read(ctx, "opts", given, &o));
    SLG_TRY(open_range(ctx, "search", "step", step, (double)INFINITY));
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_size(ctx, "out", out, &size));
    op_detail(ctx, t->z);
    search_run r = { ctx, *t };
    SLG_TRY(square_of(ctx, t->g, &square));
    SLG_TRY(loss_at(&r, 0, &now.loss_at));
    SLG_TRY(armijo_search(&o, step, square, loss_at, &r, &now));
    options_write(out, &now, sizeof now);
    return SLG_OK;
}

slg_status slg_target_search(slg_ctx *ctx, int32_t kind, const slg_tensor *target,
                             const slg_tensor *data, const slg_tensor *g, double step,
                             const slg_armijo_opts *opts, slg_target_search_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_target_search");
    target_loss t = { kind, target, data, g, NULL, 0 };
    return op_end(ctx, search(ctx, &t, step, opts, out));
}
