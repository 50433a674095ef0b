/*
 * tempnet_call.c - see tempnet_call.h: options, checks, and what forward and backward both
 * need.
 */
#include "tempnet_call.h"

#include <string.h>

#include "core/options.h"
#include "softmax/parts.h"

#define PHI_MAX 80.0

static const slg_tempnet net_defaults = {
    .size = sizeof(slg_tempnet),
    .form = SLG_TEMPNET_LOGITS,
    .tau_min = 0.5,
    .tau_max = 5,
};
static const slg_tempnet_saved saved_defaults = { .size = sizeof(slg_tempnet_saved) };
static const slg_tempnet_grad grad_defaults = { .size = sizeof(slg_tempnet_grad) };

void slg_tempnet_init(slg_tempnet *net, size_t size)
{
    options_init(net, size, &net_defaults, sizeof net_defaults);
}

void slg_tempnet_saved_init(slg_tempnet_saved *saved, size_t size)
{
    options_init(saved, size, &saved_defaults, sizeof saved_defaults);
}

void slg_tempnet_grad_init(slg_tempnet_grad *grad, size_t size)
{
    options_init(grad, size, &grad_defaults, sizeof grad_defaults);
}

void tempnet_call_init(tempnet_call *c, slg_ctx *ctx)
{
    *c = (tempnet_call){
        .ctx = ctx, .net = net_defaults, .saved = saved_defaults, .grad = grad_defaults
    };
}

/* ---- Checks ----------------------------------------------------------------------------- */

slg_status tempnet_check_flat(slg_ctx *ctx, const char *name, const slg_tensor *t, int32_t ndim,
                              const int64_t *shape, bool out)
{
    if (out)
        SLG_TRY(tensor_out(ctx, name, t, DT_F32, ndim, ndim));
    else
        SLG_TRY(tensor_in(ctx, name, t, DT_F32, ndim, ndim));
    if (shape) SLG_TRY(tensor_shape_is(ctx, name, t, ndim, shape));
    if (tensor_contiguous(t)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_STRIDE, "%s must be contiguous", name);
}

static slg_status check_values(tempnet_call *c)
{
    slg_ctx *ctx = c->ctx;
    const slg_tempnet *net = &c->net;
    const double phi = (double)*(const float *)net->phi->data;
    if (!(fabs(phi) <= PHI_MAX))
        return slg_fail(ctx, SLG_ERR_RANGE, "net.phi is %g, must be from %g to %g", phi,
                        -PHI_MAX, PHI_MAX);
    if (!(net->tau_min > 0 && net->tau_max > net->tau_min && net->tau_max <= 1e30))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "net.tau_min is %g, tau_max %g: must be above 0, in order, "
                        "and at most 1e30",
                        net->tau_min, net->tau_max);
    c->sharp = exp(-phi);
    c->b = (double)*(const float *)net->b->data;
    c->w1 = net->w1->data;
    c->b1 = net->b1->data;
    c->w2 = net->w2->data;
    c->b2 = net->b2 ? net->b2->data : NULL;
    c->c = net->c->data;
    c->drop = net->drop ? net->drop->data : NULL;
    return SLG_OK;
}

slg_status tempnet_check(tempnet_call *c, const slg_tensor *x)
{
    static const int64_t one[1] = { 1 };
    slg_ctx *ctx = c->ctx;
    const slg_tempnet *net = &c->net;
    if (net->form != SLG_TEMPNET_LOGITS && net->form != SLG_TEMPNET_FEATURES)
        return slg_fail(ctx, SLG_ERR_RANGE, "net.form is %d, there is no such form", net->form);
    c->features = net->form == SLG_TEMPNET_FEATURES;
    if (c->features && net->b2)
        return slg_fail(ctx, SLG_ERR_NULL, "net.b2 must be NULL for this form");
    SLG_TRY(tensor_in(ctx, "x", x, DT_ROW, 2, 2));
    c->x = rows_of(x);
    c->rows_count = x->shape[0];
    c->cols = x->shape[1];
    SLG_TRY(tempnet_check_flat(ctx, "net.w1", net->w1, 2, NULL, false));
    SLG_TRY(tempnet_check_flat(ctx, "net.w2", net->w2, 2, NULL, false));
    c->hidden = net->w1->shape[0];
    c->m = net->w2->shape[0];
    const int64_t first[2] = { c->hidden, c->cols }, second[2] = { c->m, c->hidden };
    const int64_t dropped[2] = { c->rows_count, c->hidden };
    SLG_TRY(tensor_shape_is(ctx, "net.w1", net->w1, 2, first));
    SLG_TRY(tensor_shape_is(ctx, "net.w2", net->w2, 2, second));
    if (c->m < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "net.w2 has no rows");
    SLG_TRY(tempnet_check_flat(ctx, "net.b1", net->b1, 1, &c->hidden, false));
    if (!c->features) SLG_TRY(tempnet_check_flat(ctx, "net.b2", net->b2, 1, &c->m, false));
    SLG_TRY(tempnet_check_flat(ctx, "net.c", net->c, 1, &c->m, false));
    SLG_TRY(tempnet_check_flat(ctx, "net.b", net->b, 1, one, false));
    SLG_TRY(tempnet_check_flat(ctx, "net.phi", net->phi, 1, one, false));
    if (net->drop) SLG_TRY(tempnet_check_flat(ctx, "net.drop", net->drop, 2, dropped, false));
    return check_values(c);
}

slg_status tempnet_check_saved(tempnet_call *c, const slg_tempnet_saved *given, bool out)
{
    const int64_t s[2] = { c->rows_count, c->hidden }, v[2] = { c->rows_count, c->m };
    SLG_TRY(options_read(c->ctx, "saved", given, &c->saved, sizeof c->saved));
    SLG_TRY(option_reserved(c->ctx, "saved.reserved", c->saved.reserved));
    SLG_TRY(tempnet_check_flat(c->ctx, "saved.s", c->saved.s, 2, s, out));
    SLG_TRY(tempnet_check_flat(c->ctx, "saved.v", c->saved.v, 2, v, out));
    return tempnet_check_flat(c->ctx, "saved.w", c->saved.w, 2, v, out);
}

/* No output may touch another or an input. */
slg_status tempnet_check_apart(slg_ctx *ctx, size_t outs, const slg_tensor *const *out,
                               size_t ins, const slg_tensor *const *in)
{
    bool clash = false;
    for (size_t i = 0; i < outs; i++) {
        for (size_t j = 0; j < i; j++) clash = clash || outputs_clash(out[i], out[j]);
        for (size_t j = 0; j < ins; j++) clash = clash || outputs_clash(out[i], in[j]);
    }
    if (!clash) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_STRIDE, "an output overlaps an input or another output");
}

/* ---- Parts ------------------------------------------------------------------------------ */

float *tempnet_floats(slg_ctx *ctx, int64_t rows_count, int64_t cols)
{
    return arena_alloc(ctx, (size_t)rows_count * (size_t)cols, sizeof(float));
}

/* Prototypes of length 1, where features. */
slg_status tempnet_normalise(tempnet_call *c)
{
    if (!c->features) return SLG_OK;
    float *unit = tempnet_floats(c->ctx, c->m, c->hidden);
    c->norms = arena_alloc(c->ctx, (size_t)c->m, sizeof *c->norms);
    if (!unit || !c->norms) return SLG_ERR_MEMORY;
    for (int64_t j = 0; j < c->m; j++) {
        const float *p = c->w2 + j * c->hidden;
        double sum = 0;
        for (int64_t i = 0; i < c->hidden; i++) sum += (double)p[i] * (double)p[i];
        c->norms[j] = sqrt(sum);
        for (int64_t i = 0; i < c->hidden; i++)
            unit[j * c->hidden + i] = sum > 0 ? (float)((double)p[i] / c->norms[j]) : 0.0f;
    }
    c->w2 = unit;
    return SLG_OK;
}

void tempnet_block(tempnet_call *c, int64_t first)
{
    c->first = first;
    c->count = least(TEMPNET_ROWS, c->rows_count - first);
    c->ranges = pool_ranges(c->ctx, c->count, (1 << 13) / (c->hidden + c->m + c->cols + 1) + 1);
}

/* Where the block's rows of s, v, w are. */
void tempnet_place(tempnet_call *c, float *s, float *v, float *w)
{
    const slg_tempnet_saved *to = &c->saved;
    c->s = to->s ? (float *)to->s->data + c->first * c->hidden : s;
    c->v = to->v ? (float *)to->v->data + c->first * c->m : v;
    c->w = to->w ? (float *)to->w->data + c->first * c->m : w;
}

/* Row r of x into u: as it is, or masked classes 0 and of length 1. */
static void unit_row(const tempnet_call *c, int64_t r, float *u)
{
    const kernel_table *k = &c->ctx->k;
    float max = 0;
    for (int64_t col = 0; col < c->cols; col += KERNEL_BLOCK) {
        int64_t n = least(KERNEL_BLOCK, c->cols - col);
        const float *x = rows_fetch(k, &c->x, r, col, n, u + col);
        if (x != u + col) memcpy(u + col, x, (size_t)n * sizeof *u);
    }
    if (c->features) return;
    for (int64_t i = 0; i < c->cols; i++) {
        if (u[i] == -INFINITY) u[i] = 0;
        max = fmaxf(max, fabsf(u[i]));
    }
    /* Squares of large entries would overflow; those of entries that vanish do not matter. */
    if (max > 1e15f) k->scale((size_t)c->cols, u, 0x1p-100f, u);
    double length = sqrt(k->dot((size_t)c->cols, u, u, 0.0f));
    k->scale((size_t)c->cols, u,
             (float)(1 / (max > 1e15f || !(length < 1e-12) ? length : 1e-12)), u);
}

void tempnet_unit_rows(void *arg, int64_t task, int32_t worker)
{
    const tempnet_call *c = arg;
    (void)worker;
    int64_t to = pool_range_start(c->count, c->ranges, task + 1);
    for (int64_t r = pool_range_start(c->count, c->ranges, task); r < to; r++) {
        float *u = c->u + r * c->cols;
        if (c->dt && c->dt[r] == 0) /* backward: a row that adds nothing */
            memset(u, 0, (size_t)c->cols * sizeof *u);
        else
            unit_row(c, c->first + r, u);
    }
}

/* t of a row whose v and w are known. */
double tempnet_head(const tempnet_call *c, const float *v, const float *w)
{
    double t = c->b, even = 1 / (double)c->m;
    for (int64_t j = 0; j < c->m; j++) {
        double f = c->features ? tempnet_sigmoid((double)v[j]) : (double)v[j];
        t += (double)c->c[j] * ((double)w[j] - even) * f;
    }
    return t;
}
