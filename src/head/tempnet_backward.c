/*
 * tempnet_backward.c - see tempnet.h. Blocks of rows as forward has them; sums over rows in
 * double and in order.
 */
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "tempnet_call.h"

/* dv of rows, and what the sums over rows need. */
static void dv_rows(void *arg, int64_t task, int32_t worker)
{
    const tempnet_call *c = arg;
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
        double dt = g * (c->net.tau_max - c->net.tau_min) *
                    tempnet_sigmoid_slope(tempnet_head(c, v, w));
        for (int64_t j = 0; j < c->m; j++) {
            double f = c->features ? tempnet_sigmoid((double)v[j]) : (double)v[j];
            mean += (double)w[j] * (double)c->c[j] * f;
        }
        for (int64_t j = 0; j < c->m; j++) {
            double f = c->features ? tempnet_sigmoid((double)v[j]) : (double)v[j];
            double slope = c->features ? tempnet_sigmoid_slope((double)v[j]) : 1;
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
    const tempnet_call *c = arg;
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
static void add_rows(const tempnet_call *c, double *db, double *dphi)
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
            double f = c->features ? tempnet_sigmoid((double)v[j]) : (double)v[j];
            c->sum_c[j] += dt * ((double)w[j] - even) * f;
            c->sum_b2[j] += (double)dv[j];
        }
        for (int64_t i = 0; i < c->hidden; i++) c->sum_b1[i] += (double)da[i];
    }
}

static slg_status backward_block(tempnet_call *c, double *db, double *dphi)
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
    pool_run(c->ctx, c->ranges, tempnet_unit_rows, c);
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
static void put_prototypes(const tempnet_call *c)
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

/* ---- The call --------------------------------------------------------------------------- */

static slg_status check_grad(tempnet_call *c, const slg_tensor *x, const slg_tensor *dtau)
{
    static const int64_t one[1] = { 1 };
    slg_ctx *ctx = c->ctx;
    const slg_tempnet_grad *g = &c->grad;
    const slg_tempnet *net = &c->net;
    SLG_TRY(option_choice(ctx, "grad.accumulate", g->accumulate, 0, 1));
    if (c->features && g->db2)
        return slg_fail(ctx, SLG_ERR_NULL, "grad.db2 must be NULL for this form");
    if (g->dw1) SLG_TRY(tempnet_check_flat(ctx, "grad.dw1", g->dw1, 2, net->w1->shape, true));
    if (g->db1) SLG_TRY(tempnet_check_flat(ctx, "grad.db1", g->db1, 1, &c->hidden, true));
    if (g->dw2) SLG_TRY(tempnet_check_flat(ctx, "grad.dw2", g->dw2, 2, net->w2->shape, true));
    if (g->db2) SLG_TRY(tempnet_check_flat(ctx, "grad.db2", g->db2, 1, &c->m, true));
    if (g->dc) SLG_TRY(tempnet_check_flat(ctx, "grad.dc", g->dc, 1, &c->m, true));
    if (g->db) SLG_TRY(tempnet_check_flat(ctx, "grad.db", g->db, 1, one, true));
    if (g->dphi) SLG_TRY(tempnet_check_flat(ctx, "grad.dphi", g->dphi, 1, one, true));
    const slg_tensor *out[] = { g->dw1, g->db1, g->dw2, g->db2, g->dc, g->db, g->dphi };
    const slg_tensor *in[] = { x,          net->w1,    net->b1,  net->w2,   net->b2,
                               net->c,     net->b,     net->phi, net->drop, c->saved.s,
                               c->saved.v, c->saved.w, dtau };
    return tempnet_check_apart(ctx, 7, out, 13, in);
}

static slg_status backward_reserve(tempnet_call *c)
{
    slg_ctx *ctx = c->ctx;
    const int64_t n = least(TEMPNET_ROWS, c->rows_count), sums = 2 * c->m + c->hidden;
    SLG_TRY(tempnet_normalise(c));
    c->u = tempnet_floats(ctx, c->grad.dw1 ? n : 0, c->cols);
    c->dropped = tempnet_floats(ctx, n, c->hidden);
    c->dv = tempnet_floats(ctx, n, c->m);
    c->da = tempnet_floats(ctx, n, c->hidden);
    c->dw2 = tempnet_floats(ctx, c->features ? c->m : 0, c->hidden);
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

static slg_status backward(tempnet_call *c, const slg_tensor *x, const slg_tempnet *net,
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
    SLG_TRY(tempnet_check(c, x));
    SLG_TRY(tempnet_check_saved(c, saved, false));
    SLG_TRY(tensor_in(ctx, "dtau", dtau, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "dtau", dtau, 1, &c->rows_count));
    c->tau = rows_per_row(dtau);
    SLG_TRY(check_grad(c, x, dtau));
    SLG_TRY(backward_reserve(c));
    double db = 0, dphi = 0;
    int64_t first = 0;
    do { /* once without rows too: gradients are 0 then */
        tempnet_block(c, first);
        tempnet_place(c, NULL, NULL, NULL);
        SLG_TRY(backward_block(c, &db, &dphi));
        first += TEMPNET_ROWS;
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
    tempnet_call c;
    if (!ctx) return SLG_ERR_NULL;
    tempnet_call_init(&c, ctx);
    op_begin(ctx, "slg_tempnet_backward");
    return op_end(ctx, backward(&c, x, net, saved, dtau, grad));
}
