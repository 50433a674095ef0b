/*
 * spherical.c - the family on logits and on sums: see spherical.h. A row is reduced to its mean
 * and the sum of squares about it, merged block by block as Chan, Golub and LeVeque do;
 * the gradient is affine in the logits.
 */
#include "softlogit/spherical.h"

#include <math.h>

#include "core/options.h"
#include "engine.h"
#include "softmax/pipeline.h"
#include "softmax/spherical_terms.h"

static const slg_spherical_opts defaults = {
    .size = sizeof(slg_spherical_opts),
    .kind = SLG_SPHERICAL_Z,
    .reduction = SLG_MEAN,
    .a = 1,
    .eps = 1e-3,
};

void slg_spherical_opts_init(slg_spherical_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static slg_status read_opts(slg_ctx *ctx, const slg_spherical_opts *given,
                            slg_spherical_opts *o, spherical_form *form)
{
    *o = defaults;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    *form = (spherical_form){ o->kind, o->a, o->b, o->eps };
    return spherical_form_check(ctx, form);
}

/* ---- On logits -------------------------------------------------------------------------- */

typedef struct spherical_call {
    spherical_form form;
    slg_tensor *z;
} spherical_call;

/* A row's sums, of the logits before the temperature. */
enum { COUNT, MEAN, SPREAD };

/* What solve leaves for emit, for a factor of 1: y = A (x UNIT - PIVOT) + C. */
enum { UNIT, PIVOT, A, C };

static slg_status open(loss_call *call)
{
    const spherical_call *own = call->opts;
    slg_ctx *ctx = call->ctx;
    if (call->src.mask)
        return slg_fail(ctx, SLG_ERR_UNSUPPORTED,
                        "logits.mask must be NULL: masked classes are no part of the family");
    return loss_open_extra(call, 0, "opts.z", own->z);
}

static void reduce(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                   const float *teacher)
{
    (void)col, (void)teacher;
    double m[2], *s = r->sums, old = s[COUNT], count = (double)n;
    c->ctx->k.moments((size_t)n, x, m);
    s[COUNT] += count;
    double delta = m[0] - s[MEAN];
    s[MEAN] += delta * (count / s[COUNT]);
    s[SPREAD] += m[1] + delta * delta * (old * count / s[COUNT]);
}

/* A power of 2 that brings x to about 1, which float32 and its inverse hold. */
static double unit_of(double x)
{
    if (!(x > 0) || !isfinite(x)) return 1;
    int e = ilogb(x);
    return ldexp(1, e > 120 ? -120 : e < -120 ? 120 : -e);
}

/* The gradient in x / T is affine in x; here T and the row's weight go into its factors. */
static void solve_gradient(loss_row *r, const spherical_form *f, const spherical_sums *v,
                           const spherical_value *value)
{
    const double n = v->classes, t = r->temperature, w = r->weight, *s = r->sums;
    double *out = r->more;
    if (f->kind != SLG_SPHERICAL_Z) {
        out[UNIT] = unit_of(sqrt((s[SPREAD] + n * s[MEAN] * s[MEAN]) / n));
        out[PIVOT] = 0;
        out[A] = w * 2 * value->dq / (t * out[UNIT]);
        out[C] = w * value->ds;
        r->at_target = w * (value->ds + 2 * value->dq * v->target + value->dt);
        return;
    }
    const double sigma = sqrt(s[SPREAD] / n), z = value->z;
    out[UNIT] = unit_of(sigma);
    if (sigma == 0) { /* PIVOT: so that no infinity arises */
        out[PIVOT] = 0, out[A] = out[C] = r->at_target = 0;
        return;
    }
    const double g = w * spherical_z_slope(f, z) * t, even = -g / (n * sigma);
    out[PIVOT] = (double)(float)s[MEAN] * out[UNIT];
    out[A] = even * z / (sigma * out[UNIT]);
    out[C] = even - out[A] * (s[MEAN] * out[UNIT] - out[PIVOT]);
    r->at_target = g / sigma * (1 - 1 / n - z * z / n);
}

static void solve(const loss_call *c, loss_row *r)
{
    const spherical_call *own = c->opts;
    const double t = r->temperature, *s = r->sums;
    spherical_sums v = { .classes = s[COUNT], .target = (double)r->x_target / t };
    v.s = s[COUNT] * s[MEAN] / t;
    v.spread = s[SPREAD] / (t * t);
    v.q = v.spread + v.s * v.s / s[COUNT];
    spherical_value value = spherical_evaluate(&own->form, &v);
    if (!isfinite(s[SPREAD])) {
        r->loss = r->weight == 0 ? 0 : NAN;
        r->at_target = NAN;
        for (int i = 0; i < 4; i++) r->more[i] = NAN;
    } else {
        r->loss = r->weight == 0 ? 0 : r->weight * value.loss;
        solve_gradient(r, &own->form, &v, &value);
    }
    r->extra[0] = spherical_z(&v);
}

static void emit(const loss_call *c, const loss_row *r, int64_t col, int64_t n, const float *x,
                 const float *teacher, float *d, int store)
{
    (void)teacher;
    const double *m = r->more, factor = loss_factor(r);
    c->ctx->k.affine_emit((size_t)n, x, (float)m[UNIT], (float)m[PIVOT], (float)(m[A] * factor),
                          (float)(m[C] * factor), d, store);
    if (r->target >= col && r->target < col + n)
        d[r->target - col] = (float)(r->at_target * factor);
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT,
    .flags = LOSS_NO_LSE | LOSS_KEEP_TARGET,
    .open = open,
    .reduce = reduce,
    .solve = solve,
    .emit = emit,
};

static slg_status spherical(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                            const slg_spherical_opts *opts, slg_loss_out *out,
                            slg_logits_grad *grad)
{
    slg_spherical_opts o;
    spherical_call own = { 0 };
    SLG_TRY(read_opts(ctx, opts, &o, &own.form));
    own.z = o.z;
    return loss_run(ctx, &method, &own, o.reduction, logits, targets, out, grad);
}

slg_status slg_spherical(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                         const slg_spherical_opts *opts, slg_loss_out *out,
                         slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_spherical");
    return op_end(ctx, spherical(ctx, logits, targets, opts, out, grad));
}

/* ---- On sums ---------------------------------------------------------------------------- */

enum { INPUTS = 3, OUTPUTS = 4 };

static slg_status terms(slg_ctx *ctx, const slg_tensor *const in[INPUTS], int64_t classes,
                        const slg_spherical_opts *opts, slg_tensor *const out[OUTPUTS])
{
    static const char *const in_names[] = { "sum", "sum_squares", "target_output" };
    static const char *const out_names[] = { "loss", "dsum", "dsum_squares", "dtarget_output" };
    slg_spherical_opts o;
    spherical_form form;
    SLG_TRY(read_opts(ctx, opts, &o, &form));
    if (o.z) return slg_fail(ctx, SLG_ERR_NULL, "opts.z must be NULL: there are no logits");
    if (classes < 1 || classes > INT64_C(1) << 52)
        return slg_fail(ctx, SLG_ERR_RANGE, "classes is %lld, must be from 1 to 2^52",
                        (long long)classes);
    rows from[INPUTS], to[OUTPUTS] = { 0 };
    for (int i = 0; i < INPUTS; i++) {
        SLG_TRY(tensor_in(ctx, in_names[i], in[i], DT_F32 | DT_F64, 1, 1));
        SLG_TRY(tensor_same_shape(ctx, in_names[i], in[i], in_names[0], in[0]));
        from[i] = rows_per_row(in[i]);
    }
    for (int j = 0; j < OUTPUTS; j++) {
        if (!out[j]) continue;
        SLG_TRY(tensor_out(ctx, out_names[j], out[j], DT_F32 | DT_F64, 1, 1));
        SLG_TRY(tensor_same_shape(ctx, out_names[j], out[j], in_names[0], in[0]));
        for (int i = 0; i < INPUTS; i++)
            if (tensor_clash(out[j], in[i]))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s, and is not the same view",
                                out_names[j], in_names[i]);
        for (int i = 0; i < j; i++)
            if (outputs_clash(out[j], out[i]))
                return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps %s", out_names[j],
                                out_names[i]);
        to[j] = rows_per_row(out[j]);
    }
    for (int64_t r = 0; r < in[0]->shape[0]; r++) {
        spherical_sums v = { (double)classes, rows_get(&from[0], r, 0),
                             rows_get(&from[1], r, 0), 0, rows_get(&from[2], r, 0) };
        v.spread = v.q - v.s * v.s / v.classes;
        spherical_value value = spherical_evaluate(&form, &v);
        double result[OUTPUTS] = { value.loss, value.ds, value.dq, value.dt };
        for (int j = 0; j < OUTPUTS; j++)
            if (to[j].data) rows_put(&to[j], r, 0, result[j]);
    }
    return SLG_OK;
}

slg_status slg_spherical_terms(slg_ctx *ctx, const slg_tensor *sum,
                               const slg_tensor *sum_squares, const slg_tensor *target_output,
                               int64_t classes, const slg_spherical_opts *opts,
                               slg_tensor *loss, slg_tensor *dsum, slg_tensor *dsum_squares,
                               slg_tensor *dtarget_output)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_spherical_terms");
    const slg_tensor *const in[INPUTS] = { sum, sum_squares, target_output };
    slg_tensor *const out[OUTPUTS] = { loss, dsum, dsum_squares, dtarget_output };
    return op_end(ctx, terms(ctx, in, classes, opts, out));
}
