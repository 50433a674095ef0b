/*
 * objective.c - objectives at a point, and the helpers of objective.h.
 */
#include "objective.h"

#include <math.h>
#include <string.h>

#include "core/options.h"
#include "softmax/parts.h"

static const slg_objective no_objective = { .size = sizeof no_objective };
static const slg_objective_out no_out = { .size = sizeof no_out };
static const slg_logistic_opts logistic_defaults = { .size = sizeof logistic_defaults,
                                                     .dense_limit = 4096 };

/* Of values whose products are in float32: a few of its roundings, of which a mean over rows
   keeps what they have in common. */
static const double single_noise = 0x1p-24;

void slg_objective_init(slg_objective *objective, size_t size)
{
    options_init(objective, size, &no_objective, sizeof no_objective);
}

void slg_objective_out_init(slg_objective_out *out, size_t size)
{
    options_init(out, size, &no_out, sizeof no_out);
}

void slg_logistic_opts_init(slg_logistic_opts *opts, size_t size)
{
    options_init(opts, size, &logistic_defaults, sizeof logistic_defaults);
}

void slg_objective_free(slg_objective *objective)
{
    if (!objective) return;
    if (objective->free) objective->free(objective->user);
    slg_objective_init(objective, objective->size);
}

/* ---- Vectors and matrices --------------------------------------------------------------- */

slg_status flat_check(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t dim,
                      bool out)
{
    if (!t) return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", name);
    SLG_TRY(out ? tensor_out(ctx, name, t, DT_F32 | DT_F64, 1, 4)
                : tensor_in(ctx, name, t, DT_F32 | DT_F64, 1, 4));
    if (tensor_size(t) == dim) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE, "%s has %lld elements, must have %lld", name,
                    (long long)tensor_size(t), (long long)dim);
}

void flat_read(const slg_tensor *t, double *to)
{
    const rows m = rows_of(t);
    for (int64_t i = 0; i < m.count; i++)
        for (int64_t j = 0; j < m.cols; j++) *to++ = rows_get(&m, i, j);
}

void flat_write(const slg_tensor *to, const double *from)
{
    if (!to) return;
    const rows m = rows_of(to);
    for (int64_t i = 0; i < m.count; i++)
        for (int64_t j = 0; j < m.cols; j++) rows_put(&m, i, j, *from++);
}

double *doubles_alloc(slg_ctx *ctx, int64_t count, int64_t each, int64_t more)
{
    int64_t bytes;
    if (!__builtin_mul_overflow(count, each, &bytes) &&
        !__builtin_add_overflow(bytes, more, &bytes) &&
        !__builtin_mul_overflow(bytes, (int64_t)sizeof(double), &bytes))
        return ctx_alloc(ctx, (size_t)bytes);
    slg_fail(ctx, SLG_ERR_MEMORY, "%lld x %lld numbers are more than memory can hold",
             (long long)count, (long long)each);
    return NULL;
}

/* ---- Checks ----------------------------------------------------------------------------- */

slg_status logistic_open(built_in *is, const slg_logistic_opts *given, const char *name,
                         const slg_tensor *t, slg_logistic_opts *opts, row_data *data)
{
    slg_ctx *ctx = is->ctx;
    *opts = logistic_defaults;
    SLG_TRY(options_read(ctx, "opts", given, opts, sizeof *opts));
    SLG_TRY(option_choice(ctx, "opts.intercept", opts->intercept, 0, 1));
    SLG_TRY(option_choice(ctx, "opts.precision", opts->precision, SLG_PRECISION_DOUBLE,
                          SLG_PRECISION_SINGLE));
    SLG_TRY(option_reserved(ctx, "opts.reserved", opts->reserved));
    if (opts->dense_limit < 0)
        return slg_fail(ctx, SLG_ERR_RANGE, "opts.dense_limit is %lld, must be at least 0",
                        (long long)opts->dense_limit);
    SLG_TRY(option_least(ctx, "opts.ridge", opts->ridge, 0));
    const bool single = opts->precision == SLG_PRECISION_SINGLE;
    if (single) is->noise = single_noise;
    return row_data_copy(ctx, name, t, opts->intercept != 0, single ? SLG_F32 : -1, data);
}

double ridge_value(const slg_logistic_opts *o, int64_t width, int64_t count, const double *x)
{
    double square = 0;
    for (int64_t i = 0; i < count * width; i++)
        if (has_ridge(i, width, o->intercept)) square += x[i] * x[i];
    return 0.5 * o->ridge * square;
}

void ridge_add(const slg_logistic_opts *o, int64_t width, int64_t count, const double *x,
               double *grad)
{
    for (int64_t i = 0; i < count * width && o->ridge != 0; i++)
        if (has_ridge(i, width, o->intercept)) grad[i] += o->ridge * x[i];
}

slg_status objective_read(slg_ctx *ctx, const slg_objective *given, slg_objective *o)
{
    *o = no_objective;
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "objective is NULL");
    SLG_TRY(options_read(ctx, "objective", given, o, sizeof *o));
    SLG_TRY(option_reserved(ctx, "objective.reserved", o->reserved));
    if (!o->value) return slg_fail(ctx, SLG_ERR_NULL, "objective.value is NULL");
    if (!(o->noise >= 0 && o->noise < 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "objective.noise is %g, must be in [0, 1)",
                        o->noise);
    if (o->dim >= 1 && o->dim <= INT32_MAX) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "objective.dim is %lld, must be from 1 to %d",
                    (long long)o->dim, INT32_MAX);
}

slg_status curvature_unsupported(slg_ctx *ctx, int32_t which, int32_t form)
{
    return slg_fail(ctx, SLG_ERR_UNSUPPORTED,
                    "curvature %d in form %d is not what this objective has", which, form);
}

/* ---- At a point ------------------------------------------------------------------------- */

static const char op_evaluate[] = "slg_objective_evaluate";

typedef struct evaluation {
    slg_ctx *ctx;
    slg_objective o;
    slg_objective_out out;
    double *memory, *x, *p, *grad, *diagonal, *product, *dense;
} evaluation;

static slg_status check_outputs(evaluation *e, const slg_tensor *x, const slg_tensor *p)
{
    const slg_objective_out *o = &e->out;
    const int64_t d = e->o.dim, square[2] = { d, d };
    const slg_tensor *all[4] = { o->grad, o->diagonal, o->product, o->dense };
    static const char *const names[4] = { "out.grad", "out.diagonal", "out.product",
                                          "out.dense" };
    for (int i = 0; i < 4; i++) {
        if (!all[i]) continue;
        SLG_TRY(flat_check(e->ctx, names[i], all[i], i == 3 ? d * d : d, true));
        if (i == 3) SLG_TRY(tensor_shape_is(e->ctx, names[i], all[i], 2, square));
        bool clash = outputs_clash(all[i], x) || outputs_clash(all[i], p);
        for (int k = 0; k < i; k++) clash = clash || outputs_clash(all[i], all[k]);
        if (clash)
            return slg_fail(e->ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", names[i]);
    }
    if (o->product && !p) return slg_fail(e->ctx, SLG_ERR_NULL, "p is NULL");
    if ((o->diagonal || o->dense || o->product) && !e->o.curvature)
        return slg_fail(e->ctx, SLG_ERR_UNSUPPORTED, "objective.curvature is NULL");
    if (o->product && !e->o.product)
        return slg_fail(e->ctx, SLG_ERR_UNSUPPORTED, "objective.product is NULL");
    return SLG_OK;
}

static slg_status curvatures(evaluation *e)
{
    const slg_objective *o = &e->o;
    const int32_t which = e->out.which;
    double scale = 0;
    if (e->out.diagonal)
        SLG_TRY(o->curvature(o->user, e->x, which, SLG_FORM_DIAGONAL, &scale, e->diagonal));
    if (e->out.dense)
        SLG_TRY(o->curvature(o->user, e->x, which, SLG_FORM_DENSE, &scale, e->dense));
    if (!e->out.product) return SLG_OK;
    SLG_TRY(o->curvature(o->user, e->x, which, SLG_FORM_PRODUCT, &scale, NULL));
    return o->product(o->user, e->x, which, e->p, e->product);
}

static slg_status evaluate(evaluation *e, const slg_objective *objective, const slg_tensor *x,
                           const slg_tensor *p, slg_objective_out *out)
{
    slg_ctx *ctx = e->ctx;
    SLG_TRY(objective_read(ctx, objective, &e->o));
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "out", out, &e->out, sizeof e->out));
    const int64_t d = e->o.dim;
    SLG_TRY(flat_check(ctx, "x", x, e->o.dim, false));
    if (p) SLG_TRY(flat_check(ctx, "p", p, e->o.dim, false));
    SLG_TRY(check_outputs(e, x, p));
    e->memory = doubles_alloc(ctx, d, 5 + (e->out.dense ? d : 0), 0);
    if (!e->memory) return SLG_ERR_MEMORY;
    e->x = e->memory, e->p = e->x + d, e->grad = e->p + d, e->diagonal = e->grad + d;
    e->product = e->diagonal + d, e->dense = e->product + d;
    flat_read(x, e->x);
    if (p) flat_read(p, e->p);

    outside_begin(ctx);
    slg_status status =
        e->o.value(e->o.user, e->x, &e->out.value, e->out.grad ? e->grad : NULL);
    if (status == SLG_OK) status = curvatures(e);
    SLG_TRY(outside_end(ctx, op_evaluate, "objective.value or curvature", status));
    flat_write(e->out.grad, e->grad);
    flat_write(e->out.diagonal, e->diagonal);
    flat_write(e->out.product, e->product);
    flat_write(e->out.dense, e->dense);
    options_write(out, &e->out, sizeof e->out);
    return SLG_OK;
}

slg_status slg_objective_evaluate(slg_ctx *ctx, const slg_objective *o, const slg_tensor *x,
                                  const slg_tensor *p, slg_objective_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    evaluation e = { .ctx = ctx, .out = no_out };
    op_begin(ctx, op_evaluate);
    slg_status status = evaluate(&e, o, x, p, out);
    ctx_free(ctx, e.memory);
    return op_end(ctx, status);
}
