/*
 * tempnet.c - forward, see tempnet.h. Blocks of rows: the GEMMs on the caller's thread, what is
 * between them a row at a time over the pool, in double.
 */
#include "core/blas.h"
#include "core/options.h"
#include "tempnet_call.h"

static void hidden_rows(void *arg, int64_t task, int32_t worker)
{
    const tempnet_call *c = arg;
    (void)worker;
    int64_t to = pool_range_start(c->count, c->ranges, task + 1);
    for (int64_t r = pool_range_start(c->count, c->ranges, task); r < to; r++) {
        float *s = c->s + r * c->hidden, *out = c->dropped + r * c->hidden;
        const float *drop = c->drop ? c->drop + (c->first + r) * c->hidden : NULL;
        for (int64_t i = 0; i < c->hidden; i++) {
            s[i] = (float)tempnet_sigmoid((double)s[i] + (double)c->b1[i]);
            if (drop) out[i] = s[i] * drop[i];
        }
    }
}

static void weight_rows(void *arg, int64_t task, int32_t worker)
{
    const tempnet_call *c = arg;
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
        double tau = c->net.tau_min +
                     (c->net.tau_max - c->net.tau_min) * tempnet_sigmoid(tempnet_head(c, v, w));
        rows_put(&c->tau, c->first + r, 0, tau);
    }
}

static slg_status forward_block(tempnet_call *c)
{
    const int64_t n = c->count;
    pool_run(c->ctx, c->ranges, tempnet_unit_rows, c);
    SLG_TRY(blas_sgemm(c->ctx, false, true, n, c->hidden, c->cols, 1.0f, c->u, c->cols, c->w1,
                       c->cols, 0.0f, c->s, c->hidden));
    if (!c->drop) c->dropped = c->s;
    pool_run(c->ctx, c->ranges, hidden_rows, c);
    SLG_TRY(blas_sgemm(c->ctx, false, true, n, c->m, c->hidden, 1.0f, c->dropped, c->hidden,
                       c->w2, c->hidden, 0.0f, c->v, c->m));
    pool_run(c->ctx, c->ranges, weight_rows, c);
    return SLG_OK;
}

static slg_status forward(tempnet_call *c, const slg_tensor *x, const slg_tempnet *net,
                          slg_tempnet_saved *saved, slg_tensor *tau)
{
    slg_ctx *ctx = c->ctx;
    if (!net) return slg_fail(ctx, SLG_ERR_NULL, "net is NULL");
    SLG_TRY(options_read(ctx, "net", net, &c->net, sizeof c->net));
    SLG_TRY(tempnet_check(c, x));
    if (saved) SLG_TRY(tempnet_check_saved(c, saved, true));
    SLG_TRY(tensor_out(ctx, "tau", tau, DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "tau", tau, 1, &c->rows_count));
    const slg_tensor *out[] = { tau, c->saved.s, c->saved.v, c->saved.w };
    const slg_tensor *in[] = { x,        c->net.w1, c->net.b1,  c->net.w2,  c->net.b2,
                               c->net.c, c->net.b,  c->net.phi, c->net.drop };
    SLG_TRY(tempnet_check_apart(ctx, 4, out, 9, in));
    c->tau = rows_per_row(tau);
    const int64_t n = least(TEMPNET_ROWS, c->rows_count);
    SLG_TRY(tempnet_normalise(c));
    float *s = tempnet_floats(ctx, n, c->hidden), *v = tempnet_floats(ctx, n, c->m),
          *w = tempnet_floats(ctx, n, c->m);
    c->u = tempnet_floats(ctx, n, c->cols);
    c->dropped = tempnet_floats(ctx, n, c->hidden);
    if (!s || !v || !w || !c->u || !c->dropped) return SLG_ERR_MEMORY;
    for (int64_t first = 0; first < c->rows_count; first += TEMPNET_ROWS) {
        tempnet_block(c, first);
        tempnet_place(c, s, v, w);
        SLG_TRY(forward_block(c));
    }
    return SLG_OK;
}

slg_status slg_tempnet_forward(slg_ctx *ctx, const slg_tensor *x, const slg_tempnet *net,
                               slg_tempnet_saved *saved, slg_tensor *tau)
{
    tempnet_call c;
    if (!ctx) return SLG_ERR_NULL;
    tempnet_call_init(&c, ctx);
    op_begin(ctx, "slg_tempnet_forward");
    return op_end(ctx, forward(&c, x, net, saved, tau));
}
