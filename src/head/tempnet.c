/*
 * tempnet.c - see tempnet.h. Blocks of rows: the GEMMs on the caller's thread, what is between
 * them a row at a time over the pool, in double. Sums over rows are made in order.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "core/tensor.h"
#include "softlogit/tempnet.h"

enum { BLOCK_ROWS = 256 };
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

typedef struct net_call {
    slg_ctx *ctx;
    slg_tempnet net;
    slg_tempnet_saved saved;
    slg_tempnet_grad grad;
    bool features;
    int64_t rows_count, cols, hidden, m;
    rows x, tau;                               /* tau: out of forward, dtau into backward */
    const float *w1, *b1, *w2, *b2, *c, *drop; /* b2, drop NULL: none. w2: rows of length 1
                                                  where features */
    double b, sharp;                           /* sharp: exp(-phi) */
    double *norms;                             /* of w2's rows, where features */

    /* The block [first, first + count), and scratch for it. */
    int64_t first, count, ranges;
    float *u;          /* [BLOCK_ROWS, cols]    x as w1 sees it */
    float *s, *v, *w;  /* rows of the block: the caller's, or scratch */
    float *dropped;    /* [BLOCK_ROWS, hidden]  s times drop; s itself in a forward without */
    float *dv, *da;    /* [BLOCK_ROWS, M], [BLOCK_ROWS, hidden] */
    double *dt, *dphi; /* [BLOCK_ROWS] */
    double *sum_c, *sum_b2, *sum_b1; /* [M], [M], [hidden] */
    float *dw2;                      /* [M, hidden]  by the rows of length 1, where features */
} net_call;

static double sigmoid(double a)
{
    double e = exp(-fabs(a));
    return a > 0 ? 1 / (1 + e) : e / (1 + e);
}

static double sigmoid_slope(double a)
{
    double e = exp(-fabs(a));
    return e / ((1 + e) * (1 + e));
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Forward ---------------------------------------------------------------------------- */

/* Row r of x into u: as it is, or masked classes 0 and of length 1. */
static void unit_row(const net_call *c, int64_t r, float *u)
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

static void unit_rows(void *arg, int64_t task, int32_t worker)
{
    const net_call *c = arg;
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

static void hidden_rows(void *arg, int64_t task, int32_t worker)
{
    const net_call *c = arg;
    (void)worker;
    int64_t to = pool_range_start(c->count, c->ranges, task + 1);
    for (int64_t r = pool_range_start(c->count, c->ranges, task); r < to; r++) {
        float *s = c->s + r * c->hidden, *out = c->dropped + r * c->hidden;
        const float *drop = c->drop ? c->drop + (c->first + r) * c->hidden : NULL;
        for (int64_t i = 0; i < c->hidden; i++) {
            s[i] = (float)sigmoid((double)s[i] + (double)c->b1[i]);
            if (drop) out[i] = s[i] * drop[i];
        }
    }
}

/* t of a row whose v and w are known. */
static double head(const net_call *c, const float *v, const float *w)
{
    double t = c->b, even = 1 / (double)c->m;
    for (int64_t j = 0; j < c->m; j++) {
        double f = c->features ? sigmoid((double)v[j]) : (double)v[j];
        t += (double)c->c[j] * ((double)w[j] - even) * f;
    }
    return t;
}

static void weight_rows(void *arg, int64_t task, int32_t worker)
{
    const net_call *c = arg;
    (void)worker;
    int64_t to = pool_range_start(c->count, c->ranges, task + 1);
    for (int64_t r = pool_range_start(c->count, c->ranges, task); r < to; r++) {
        float *v = c->v + r * c->m, *w = c->w + r * c->m, max = -INFINITY;
        double sum = 0;
        for (int64_t j = 0; j < c->m; j++) {
            if (c->b2) v[j] += c->b2[j];
            max = fmaxf(max, v[j]);
        }
        for (int64_t j = 0; j < c->m; j++) {
            double e = exp(((double)v[j] - (double)max) * c->sharp);
            w[j] = (float)e;
            sum += e;
        }
        for (int64_t j = 0; j < c->m; j++) w[j] = (float)((double)w[j] / sum);
        double tau =
            c->net.tau_min + (c->net.tau_max - c->net.tau_min) * sigmoid(head(c, v, w));
        rows_put(&c->tau, c->first + r, 0, tau);
    }
}

/* Where the block's rows of s, v, w are. */
static void place(net_call *c, float *s, float *v, float *w)
{
    const slg_tempnet_saved *to = &c->saved;
    c->s = to->s ? (float *)to->s->data + c->first * c->hidden : s;
    c->v = to->v ? (float *)to->v->data + c->first * c->m : v;
    c->w = to->w ? (float *)to->w->data + c->first * c->m : w;
}

static slg_status forward_block(net_call *c)
{
    const int64_t n = c->count;
    pool_run(c->ctx, c->ranges, unit_rows, c);
    SLG_TRY(blas_sgemm(c->ctx, false, true, n, c->hidden, c->cols, 1.0f, c->u, c->cols, c->w1,
                       c->cols, 0.0f, c->s, c->hidden));
    if (!c->drop) c->dropped = c->s;
    pool_run(c->ctx, c->ranges, hidden_rows, c);
    SLG_TRY(blas_sgemm(c->ctx, false, true, n, c->m, c->hidden, 1.0f, c->dropped, c->hidden,
                       c->w2, c->hidden, 0.0f, c->v, c->m));
    pool_run(c->ctx, c->ranges, weight_rows, c);
    return SLG_OK;
}

/* ---- Backward --------------------------------------------------------------------------- */

/* dv of rows, and what the sums over rows need. */
static void dv_rows(void *arg, int64_t task, int32_t worker)
{
    const net_call *c = arg;
    const double even = 1 / (double)c->m;
    (void)worker;
    int64_t to = pool_range_start(c->count, c->ranges, task + 1);
    for (int64_t r = pool_range_start(c->count, c->ranges, task); r < to; r++) {
        const float *v = c->v + r * c->m, *w = c->w + r * c->m;
        const float *s = c->s + r * c->hidden;
        const float *drop = c->drop ? c->drop + (c->first + r) * c->hidden : NULL;
        float *dv = c->dv + r * c->m, *dropped = c->dropped + r * c->hidden;
        double g = rows_get(&c->tau, c->first + r, 0), mean = 0, dphi = 0;
        c->dt[r] = c->dphi[r] = 0;
        if (g == 0) {
            memset(dv, 0, (size_t)c->m * sizeof *dv);
            memset(dropped, 0, (size_t)c->hidden * sizeof *dropped);
            continue;
        }
        for (int64_t i = 0; i < c->hidden; i++) dropped[i] = drop ? s[i] * drop[i] : s[i];
        double dt = g * (c->net.tau_max - c->net.tau_min) * sigmoid_slope(head(c, v, w));
        for (int64_t j = 0; j < c->m; j++) {
            double f = c->features ? sigmoid((double)v[j]) : (double)v[j];
            mean += (double)w[j] * (double)c->c[j] * f;
        }
        for (int64_t j = 0; j < c->m; j++) {
            double f = c->features ? sigmoid((double)v[j]) : (double)v[j];
            double slope = c->features ? sigmoid_slope((double)v[j]) : 1;
            double q = (double)w[j] * ((double)c->c[j] * f - mean);
            dv[j] =
                (float)(dt * ((double)c->c[j] * ((double)w[j] - even) * slope + q * c->sharp));
            dphi -= dt * c->sharp * q * (double)v[j];
        }
        c->dt[r] = dt;
        c->dphi[r] = dphi;
    }
}

static void da_rows(void *arg, int64_t task, int32_t worker)
{
    const net_call *c = arg;
    (void)worker;
    int64_t to = pool_range_start(c->count, c->ranges, task + 1);
    for (int64_t r = pool_range_start(c->count, c->ranges, task); r < to; r++) {
        const float *s = c->s + r * c->hidden;
        const float *drop = c->drop ? c->drop + (c->first + r) * c->hidden : NULL;
        float *da = c->da + r * c->hidden;
        for (int64_t i = 0; i < c->hidden; i++) {
            if (c->dt[r] == 0)
                da[i] = 0;
            else
                da[i] *= (drop ? drop[i] : 1.0f) * s[i] * (1.0f - s[i]);
        }
    }
}

/* Adds the block's rows to the sums over rows. */
static void add_rows(const net_call *c, double *db, double *dphi)
{
    const double even = 1 / (double)c->m;
    for (int64_t r = 0; r < c->count; r++) {
        const float *v = c->v + r * c->m, *w = c->w + r * c->m, *dv = c->dv + r * c->m;
        const float *da = c->da + r * c->hidden;
        double dt = c->dt[r];
        if (dt == 0) continue;
        *db += dt;
        *dphi += c->dphi[r];
        for (int64_t j = 0; j < c->m; j++) {
            double f = c->features ? sigmoid((double)v[j]) : (double)v[j];
            c->sum_c[j] += dt * ((double)w[j] - even) * f;
            c->sum_b2[j] += (double)dv[j];
        }
        for (int64_t i = 0; i < c->hidden; i++) c->sum_b1[i] += (double)da[i];
    }
}

static slg_status backward_block(net_call *c, double *db, double *dphi)
{
    const slg_tempnet_grad *g = &c->grad;
    const float add = c->first > 0 || g->accumulate ? 1.0f : 0.0f;
    pool_run(c->ctx, c->ranges, dv_rows, c);
    SLG_TRY(blas_sgemm(c->ctx, false, false, c->count, c->hidden, c->m, 1.0f, c->dv, c->m,
                       c->w2, c->hidden, 0.0f, c->da, c->hidden));
    pool_run(c->ctx, c->ranges, da_rows, c);
    add_rows(c, db, dphi);
    if (g->dw2)
        SLG_TRY(blas_sgemm(c->ctx, true, false, c->m, c->hidden, c->count, 1.0f, c->dv, c->m,
                           c->dropped, c->hidden,
                           c->features ? (c->first > 0 ? 1.0f : 0.0f) : add,
                           c->features ? c->dw2 : (float *)g->dw2->data, c->hidden));
    if (!g->dw1) return SLG_OK;
    pool_run(c->ctx, c->ranges, unit_rows, c);
    return blas_sgemm(c->ctx, true, false, c->hidden, c->cols, c->count, 1.0f, c->da, c->hidden,
                      c->u, c->cols, add, g->dw1->data, c->cols);
}

static void put(const slg_tensor *to, int64_t n, const double *sum, bool add)
{
    float *out = to ? to->data : NULL;
    for (int64_t i = 0; out && i < n; i++)
        out[i] = (float)(sum[i] + (add ? (double)out[i] : 0.0));
}

/* From the gradient by rows of length 1 to that by the prototypes; a prototype of 0: 0. */
static void put_prototypes(const net_call *c)
{
    float *out = c->grad.dw2->data;
    for (int64_t j = 0; j < c->m; j++) {
        const float *p = c->w2 + j * c->hidden, *d = c->dw2 + j * c->hidden;
        double along = 0;
        for (int64_t i = 0; i < c->hidden; i++) along += (double)p[i] * (double)d[i];
        for (int64_t i = 0; i < c->hidden; i++) {
            float *to = out + j * c->hidden + i;
            double value =
                c->norms[j] > 0 ? ((double)d[i] - along * (double)p[i]) / c->norms[j] : 0;
            *to = (float)(value + (c->grad.accumulate ? (double)*to : 0.0));
        }
    }
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_flat(slg_ctx *ctx, const char *name, const slg_tensor *t, int32_t ndim,
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

static slg_status check_values(net_call *c)
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

static slg_status check_net(net_call *c, const slg_tensor *x)
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
    SLG_TRY(check_flat(ctx, "net.w1", net->w1, 2, NULL, false));
    SLG_TRY(check_flat(ctx, "net.w2", net->w2, 2, NULL, false));
    c->hidden = net->w1->shape[0];
    c->m = net->w2->shape[0];
    const int64_t first[2] = { c->hidden, c->cols }, second[2] = { c->m, c->hidden };
    const int64_t dropped[2] = { c->rows_count, c->hidden };
    SLG_TRY(tensor_shape_is(ctx, "net.w1", net->w1, 2, first));
    SLG_TRY(tensor_shape_is(ctx, "net.w2", net->w2, 2, second));
    if (c->m < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "net.w2 has no rows");
    SLG_TRY(check_flat(ctx, "net.b1", net->b1, 1, &c->hidden, false));
    if (!c->features) SLG_TRY(check_flat(ctx, "net.b2", net->b2, 1, &c->m, false));
    SLG_TRY(check_flat(ctx, "net.c", net->c, 1, &c->m, false));
    SLG_TRY(check_flat(ctx, "net.b", net->b, 1, one, false));
    SLG_TRY(check_flat(ctx, "net.phi", net->phi, 1, one, false));
    if (net->drop) SLG_TRY(check_flat(ctx, "net.drop", net->drop, 2, dropped, false));
    return check_values(c);
}

static slg_status check_saved(net_call *c, const slg_tempnet_saved *given, bool out)
{
    const int64_t s[2] = { c->rows_count, c->hidden }, v[2] = { c->rows_count, c->m };
    SLG_TRY(options_read(c->ctx, "saved", given, &c->saved, sizeof c->saved));
    if (c->saved.reserved != 0)
        return slg_fail(c->ctx, SLG_ERR_OPTIONS, "saved.reserved is %d, must be 0",
                        c->saved.reserved);
    SLG_TRY(check_flat(c->ctx, "saved.s", c->saved.s, 2, s, out));
    SLG_TRY(check_flat(c->ctx, "saved.v", c->saved.v, 2, v, out));
    return check_flat(c->ctx, "saved.w", c->saved.w, 2, v, out);
}

/* Also where both are the very same view. */
static bool shares(const slg_tensor *a, const slg_tensor *b)
{
    if (!a || !b) return false;
    return tensor_clash(a, b) ||
           (a->data == b->data && tensor_size(a) > 0 && tensor_size(b) > 0);
}

/* No output may touch another or an input. */
static slg_status check_apart(slg_ctx *ctx, size_t outs, const slg_tensor *const *out,
                              size_t ins, const slg_tensor *const *in)
{
    bool clash = false;
    for (size_t i = 0; i < outs; i++) {
        for (size_t j = 0; j < i; j++) clash = clash || shares(out[i], out[j]);
        for (size_t j = 0; j < ins; j++) clash = clash || shares(out[i], in[j]);
    }
    if (!clash) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_STRIDE, "an output overlaps an input or another output");
}

/* ---- Calls ------------------------------------------------------------------------------ */

static float *floats(slg_ctx *ctx, int64_t rows_count, int64_t cols)
{
    return arena_alloc(ctx, (size_t)rows_count * (size_t)cols, sizeof(float));
}

/* Prototypes of length 1, where features. */
static slg_status normalise(net_call *c)
{
    if (!c->features) return SLG_OK;
    float *unit = floats(c->ctx, c->m, c->hidden);
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

static void next_block(net_call *c, int64_t first)
{
    c->first = first;
    c->count = least(BLOCK_ROWS, c->rows_count - first);
    c->ranges = pool_ranges(c->ctx, c->count, (1 << 13) / (c->hidden + c->m + c->cols + 1) + 1);
}

static slg_status forward(net_call *c, const slg_tensor *x, const slg_tempnet *net,
                          slg_tempnet_saved *saved, slg_tensor *tau)
{
    slg_ctx *ctx = c->ctx;
    if (!net) return slg_fail(ctx, SLG_ERR_NULL, "net is NULL");
    SLG_TRY(options_read(ctx, "net", net, &c->net, sizeof c->net));
    SLG_TRY(check_net(c, x));
    if (saved) SLG_TRY(check_saved(c, saved, true));
    SLG_TRY(tensor_out(ctx, "tau", tau, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "tau", tau, 1, &c->rows_count));
    const slg_tensor *out[] = { tau, c->saved.s, c->saved.v, c->saved.w };
    const slg_tensor *in[] = { x,        c->net.w1, c->net.b1,  c->net.w2,  c->net.b2,
                               c->net.c, c->net.b,  c->net.phi, c->net.drop };
    SLG_TRY(check_apart(ctx, 4, out, 9, in));
    c->tau = rows_per_row(tau);
    const int64_t n = least(BLOCK_ROWS, c->rows_count);
    SLG_TRY(normalise(c));
    float *s = floats(ctx, n, c->hidden), *v = floats(ctx, n, c->m), *w = floats(ctx, n, c->m);
    c->u = floats(ctx, n, c->cols);
    c->dropped = floats(ctx, n, c->hidden);
    if (!s || !v || !w || !c->u || !c->dropped) return SLG_ERR_MEMORY;
    for (int64_t first = 0; first < c->rows_count; first += BLOCK_ROWS) {
        next_block(c, first);
        place(c, s, v, w);
        SLG_TRY(forward_block(c));
    }
    return SLG_OK;
}

slg_status slg_tempnet_forward(slg_ctx *ctx, const slg_tensor *x, const slg_tempnet *net,
                               slg_tempnet_saved *saved, slg_tensor *tau)
{
    net_call c = { .ctx = ctx, .net = net_defaults, .saved = saved_defaults };
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_tempnet_forward");
    return op_end(ctx, forward(&c, x, net, saved, tau));
}

static slg_status check_grad(net_call *c, const slg_tensor *x, const slg_tensor *dtau)
{
    static const int64_t one[1] = { 1 };
    slg_ctx *ctx = c->ctx;
    const slg_tempnet_grad *g = &c->grad;
    const slg_tempnet *net = &c->net;
    if (g->accumulate != 0 && g->accumulate != 1)
        return slg_fail(ctx, SLG_ERR_RANGE, "grad.accumulate is %d, must be 0 or 1",
                        g->accumulate);
    if (c->features && g->db2)
        return slg_fail(ctx, SLG_ERR_NULL, "grad.db2 must be NULL for this form");
    if (g->dw1) SLG_TRY(check_flat(ctx, "grad.dw1", g->dw1, 2, net->w1->shape, true));
    if (g->db1) SLG_TRY(check_flat(ctx, "grad.db1", g->db1, 1, &c->hidden, true));
    if (g->dw2) SLG_TRY(check_flat(ctx, "grad.dw2", g->dw2, 2, net->w2->shape, true));
    if (g->db2) SLG_TRY(check_flat(ctx, "grad.db2", g->db2, 1, &c->m, true));
    if (g->dc) SLG_TRY(check_flat(ctx, "grad.dc", g->dc, 1, &c->m, true));
    if (g->db) SLG_TRY(check_flat(ctx, "grad.db", g->db, 1, one, true));
    if (g->dphi) SLG_TRY(check_flat(ctx, "grad.dphi", g->dphi, 1, one, true));
    const slg_tensor *out[] = { g->dw1, g->db1, g->dw2, g->db2, g->dc, g->db, g->dphi };
    const slg_tensor *in[] = { x,          net->w1,    net->b1,  net->w2,   net->b2,
                               net->c,     net->b,     net->phi, net->drop, c->saved.s,
                               c->saved.v, c->saved.w, dtau };
    return check_apart(ctx, 7, out, 13, in);
}

static slg_status backward_reserve(net_call *c)
{
    slg_ctx *ctx = c->ctx;
    const int64_t n = least(BLOCK_ROWS, c->rows_count), sums = 2 * c->m + c->hidden;
    SLG_TRY(normalise(c));
    c->u = floats(ctx, c->grad.dw1 ? n : 0, c->cols);
    c->dropped = floats(ctx, n, c->hidden);
    c->dv = floats(ctx, n, c->m);
    c->da = floats(ctx, n, c->hidden);
    c->dw2 = floats(ctx, c->features ? c->m : 0, c->hidden);
    c->dt = arena_alloc(ctx, (size_t)n, sizeof(double));
    c->dphi = arena_alloc(ctx, (size_t)n, sizeof(double));
    c->sum_c = arena_alloc(ctx, (size_t)sums, sizeof(double));
    if (!c->u || !c->dropped || !c->dv || !c->da || !c->dw2 || !c->dt || !c->dphi || !c->sum_c)
        return SLG_ERR_MEMORY;
    memset(c->sum_c, 0, (size_t)sums * sizeof(double));
    c->sum_b2 = c->sum_c + c->m;
    c->sum_b1 = c->sum_b2 + c->m;
    return SLG_OK;
}

static slg_status backward(net_call *c, const slg_tensor *x, const slg_tempnet *net,
                           const slg_tempnet_saved *saved, const slg_tensor *dtau,
                           slg_tempnet_grad *grad)
{
    slg_ctx *ctx = c->ctx;
    if (!net || !saved || !grad)
        return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL",
                        !net     ? "net"
                        : !saved ? "saved"
                                 : "grad");
    SLG_TRY(options_read(ctx, "net", net, &c->net, sizeof c->net));
    SLG_TRY(options_read(ctx, "grad", grad, &c->grad, sizeof c->grad));
    SLG_TRY(check_net(c, x));
    SLG_TRY(check_saved(c, saved, false));
    SLG_TRY(tensor_in(ctx, "dtau", dtau, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "dtau", dtau, 1, &c->rows_count));
    c->tau = rows_per_row(dtau);
    SLG_TRY(check_grad(c, x, dtau));
    SLG_TRY(backward_reserve(c));
    double db = 0, dphi = 0;
    int64_t first = 0;
    do { /* once without rows too: gradients are 0 then */
        next_block(c, first);
        place(c, NULL, NULL, NULL);
        SLG_TRY(backward_block(c, &db, &dphi));
        first += BLOCK_ROWS;
    } while (first < c->rows_count);
    const bool add = c->grad.accumulate;
    put(c->grad.db1, c->hidden, c->sum_b1, add);
    put(c->grad.db2, c->m, c->sum_b2, add);
    put(c->grad.dc, c->m, c->sum_c, add);
    put(c->grad.db, 1, &db, add);
    put(c->grad.dphi, 1, &dphi, add);
    if (c->features && c->grad.dw2) put_prototypes(c);
    return SLG_OK;
}

slg_status slg_tempnet_backward(slg_ctx *ctx, const slg_tensor *x, const slg_tempnet *net,
                                const slg_tempnet_saved *saved, const slg_tensor *dtau,
                                slg_tempnet_grad *grad)
{
    net_call c = {
        .ctx = ctx, .net = net_defaults, .saved = saved_defaults, .grad = grad_defaults
    };
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_tempnet_backward");
    return op_end(ctx, backward(&c, x, net, saved, dtau, grad));
}
