/*
 * separation.c - the parts of the logistic loss by its margins, and the weights alone: see
 * softlogit/separation.h.
 */
#include "softlogit/separation.h"

#include <float.h>

#include "core/options.h"
#include "margins.h"
#include "objective.h"
#include "softmax/parts.h"

static const slg_separation_out no_out = { .size = sizeof no_out };

void slg_separation_out_init(slg_separation_out *out, size_t size)
{
    options_init(out, size, &no_out, sizeof no_out);
}

/* ---- Outputs ---------------------------------------------------------------------------- */

typedef struct call {
    slg_ctx *ctx;
    slg_separation_out out;
    margin_data m;
    margin_query q;
    margin_sums sums;
    double *direction;       /* [outputs, d] */
    const int32_t *signs;    /* [n], of margins that have theirs; NULL: ones */
    const slg_tensor *in[3]; /* no output may overlap these; or NULL */
} call;

static slg_status check_output(call *c, const char *name, const slg_tensor *t,
                               const slg_tensor *like)
{
    if (!t) return SLG_OK;
    SLG_TRY(tensor_out(c->ctx, name, t, DT_F32 | DT_F64, like->ndim, like->ndim));
    SLG_TRY(tensor_shape_is(c->ctx, name, t, like->ndim, like->shape));
    for (int i = 0; i < 3; i++)
        if (outputs_clash(t, c->in[i]))
            return slg_fail(c->ctx, SLG_ERR_STRIDE, "%s overlaps an input", name);
    return SLG_OK;
}

/* samples: of the shape of what is an output a sample; theta NULL: there is none. */
static slg_status check_outputs(call *c, const slg_separation_out *given,
                                const slg_tensor *samples, const slg_tensor *theta)
{
    if (!given) return slg_fail(c->ctx, SLG_ERR_NULL, "out is NULL");
    c->out = no_out;
    SLG_TRY(options_read(c->ctx, "out", given, &c->out, sizeof c->out));
    SLG_TRY(option_reserved(c->ctx, "out.reserved", c->out.reserved));
    const slg_separation_out *o = &c->out;
    const slg_tensor *all[] = { o->margins, o->gradient, o->direction, o->weights, o->dscores };
    static const char *const names[] = { "out.margins", "out.gradient", "out.direction",
                                         "out.weights", "out.dscores" };
    for (int i = 0; i < 5; i++) {
        if (all[i] && i != 3 && (i < 3) != (theta != NULL))
            return slg_fail(c->ctx, SLG_ERR_RANGE, "%s is not of this function: must be NULL",
                            names[i]);
        SLG_TRY(check_output(c, names[i], all[i], i == 1 || i == 2 ? theta : samples));
        for (int k = 0; k < i; k++)
            if (outputs_clash(all[i], all[k]))
                return slg_fail(c->ctx, SLG_ERR_STRIDE, "%s overlaps %s", names[i], names[k]);
    }
    return SLG_OK;
}

/* ---- A call ----------------------------------------------------------------------------- */

/* All margins are +inf, so that none has a weight. */
static bool none_weighs(const call *c)
{
    return c->m.n > 0 && c->sums.nans == 0 && c->sums.ref == -(double)INFINITY;
}

static double weight_of(const call *c, int64_t i)
{
    if (c->sums.nans) return NAN;
    if (none_weighs(c)) return 1 / (double)c->m.n;
    const double m = c->q.margins[i];
    return margin_weight(m, exp(-fabs(m)), c->sums.ref) / c->sums.sum;
}

static void write_samples(const call *c, double gamma)
{
    const slg_tensor *all[3] = { c->out.margins, c->out.weights, c->out.dscores };
    for (int t = 0; t < 3; t++) {
        if (!all[t]) continue;
        const rows to = rows_of(all[t]);
        for (int64_t i = 0; i < c->m.n; i++) {
            double v = t == 0 ? c->q.margins[i] : weight_of(c, i);
            if (t == 2) v *= -gamma * (c->signs ? c->signs[i] : 1);
            rows_put(&to, i / to.cols, i % to.cols, v);
        }
    }
}

static void write_numbers(call *c, slg_separation_out *given)
{
    const double n = (double)c->m.n;
    c->out.loss = c->m.n ? c->sums.loss / n : 0;
    c->out.log_beta = none_weighs(c) ? INFINITY : margin_log_beta(&c->sums, c->m.n);
    c->out.min_margin = c->sums.least;
    c->out.wrong = c->sums.wrong;
    options_write(given, &c->out, sizeof c->out);
}

/* The sums and, where asked for, margins and direction. */
static slg_status run_pass(call *c, bool margins)
{
    c->q.count = c->m.n;
    if (margins) {
        c->q.margins = arena_alloc(c->ctx, (size_t)c->m.n, sizeof(double));
        if (!c->q.margins) return SLG_ERR_MEMORY;
    }
    return margin_pass(c->ctx, &c->m, &c->q, &c->sums, c->direction);
}

static void scaled(const slg_tensor *to, const double *from, double factor)
{
    const rows m = rows_of(to);
    for (int64_t i = 0; i < m.count; i++)
        for (int64_t j = 0; j < m.cols; j++)
            rows_put(&m, i, j, factor == 0 ? 0 : factor * *from++);
}

/* From sum e^-ref q_i y_i a_i. */
static slg_status write_directions(call *c)
{
    const slg_separation_out *o = &c->out;
    const double n = (double)c->m.n, mean = c->m.n ? exp(c->sums.ref) / n : 0;
    if (o->gradient) scaled(o->gradient, c->direction, -mean);
    if (!o->direction) return SLG_OK;
    double factor = c->m.n ? 1 / c->sums.sum : 0;
    if (none_weighs(c)) {
        margin_sums ignored;
        margin_query q = c->q;
        q.weights = MARGIN_EVEN, factor = 1 / n;
        SLG_TRY(margin_pass(c->ctx, &c->m, &q, &ignored, c->direction));
    }
    scaled(o->direction, c->direction, factor);
    return SLG_OK;
}

static slg_status parts(call *c, const slg_tensor *a, const slg_tensor *y,
                        const slg_tensor *theta, slg_separation_out *given)
{
    slg_ctx *ctx = c->ctx;
    SLG_TRY(tensor_in(ctx, "theta", theta, DT_F32 | DT_F64, 1, 2));
    const int64_t classes = theta->ndim == 2 ? theta->shape[0] : 0;
    if (theta->ndim == 2 && (classes < 2 || classes > INT32_MAX))
        return slg_fail(ctx, SLG_ERR_SHAPE, "theta has %lld rows, must have from 2 to %d",
                        (long long)classes, INT32_MAX);
    SLG_TRY(margin_data_read(ctx, a, y, classes, &c->m));
    const int64_t shape[2] = { classes ? classes : c->m.d, c->m.d };
    SLG_TRY(tensor_shape_is(ctx, "theta", theta, theta->ndim, shape));
    c->in[0] = a, c->in[1] = y, c->in[2] = theta;
    SLG_TRY(check_outputs(c, given, y, theta));
    const size_t size = (size_t)tensor_size(theta);
    int32_t *targets = arena_alloc(ctx, (size_t)c->m.n, sizeof *targets);
    double *weights = arena_alloc(ctx, size, sizeof *weights);
    c->direction = arena_alloc(ctx, size, sizeof *c->direction);
    if (!targets || !weights || !c->direction) return SLG_ERR_MEMORY;
    SLG_TRY(margin_targets(ctx, y, &c->m, targets));
    flat_read(theta, weights);
    c->m.y = targets, c->q.theta = weights;
    c->q.weights = c->out.gradient || c->out.direction ? MARGIN_SOFT : MARGIN_NONE;
    SLG_TRY(run_pass(c, c->out.margins || c->out.weights));
    if (c->q.weights) SLG_TRY(write_directions(c));
    write_samples(c, 1);
    write_numbers(c, given);
    return SLG_OK;
}

slg_status slg_separation_parts(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *y,
                                const slg_tensor *theta, slg_separation_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    call c = { .ctx = ctx };
    op_begin(ctx, "slg_separation_parts");
    return op_end(ctx, parts(&c, a, y, theta, out));
}

static slg_status weights(call *c, const slg_tensor *margins, const slg_tensor *y, double gamma,
                          slg_separation_out *given)
{
    slg_ctx *ctx = c->ctx;
    SLG_TRY(tensor_in(ctx, "margins", margins, DT_ROW | DT_F64, 1, 4));
    op_detail(ctx, margins);
    if (y) {
        SLG_TRY(tensor_in(ctx, "y", y, DT_INT | DT_F32 | DT_F64, 1, 4));
        SLG_TRY(tensor_same_shape(ctx, "y", y, "margins", margins));
    }
    if (!(gamma > 0 && gamma <= DBL_MAX))
        return slg_fail(ctx, SLG_ERR_RANGE, "gamma is %g, must be above 0 and finite", gamma);
    c->m = (margin_data){ .a = rows_of(margins), .n = tensor_size(margins) };
    c->in[0] = margins, c->in[1] = y;
    SLG_TRY(check_outputs(c, given, margins, NULL));
    if (y) {
        int32_t *signs = arena_alloc(ctx, (size_t)c->m.n, sizeof *signs);
        if (!signs) return SLG_ERR_MEMORY;
        SLG_TRY(margin_targets(ctx, y, &c->m, signs));
        c->signs = signs;
    }
    SLG_TRY(run_pass(c, c->out.weights || c->out.dscores));
    write_samples(c, gamma);
    write_numbers(c, given);
    return SLG_OK;
}

slg_status slg_separation_weights(slg_ctx *ctx, const slg_tensor *margins, const slg_tensor *y,
                                  double gamma, slg_separation_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    call c = { .ctx = ctx };
    op_begin(ctx, "slg_separation_weights");
    return op_end(ctx, weights(&c, margins, y, gamma, out));
}
