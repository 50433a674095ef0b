/*
 * spherical_state.c - numerical control of the factorised output layer. W = V U + 1 omega' can
 * be written in many ways; U drifts to bad condition and is brought back, W, Q and wbar
 * staying.
 *
 * A step multiplies U by I - E with |E| known from numbers that the step has anyway. The
 * product of 1 + |E| and 1 - |E| bounds U's singular values, so most looks find nothing to do
 * at no cost; then |U - target I| is tried, and last the singular values themselves. P's drift
 * from U^-1 is measured on one vector, and P computed anew where it is no longer rounding.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "spherical_layer.h"

static const double most_drift = 1e-10, most_decay = 1e6;

void layer_start(slg_spherical_layer *l)
{
    const int64_t d = l->dim;
    memset(l->u, 0, (size_t)(d * d) * sizeof *l->u);
    memset(l->p, 0, (size_t)(d * d) * sizeof *l->p);
    memset(l->omega, 0, (size_t)d * sizeof *l->omega);
    for (int64_t i = 0; i < d; i++) l->u[i * d + i] = l->p[i * d + i] = 1;
    l->target = l->low = l->high = 1;
}

static void v_read(const slg_spherical_layer *l, int64_t first, int64_t n, double *out)
{
    const float *v = layer_v(l, first);
    for (int64_t i = 0; i < n * l->dim; i++) out[i] = (double)v[i];
}

static void v_write(slg_spherical_layer *l, int64_t first, int64_t n, const double *x)
{
    float *v = layer_v(l, first);
    for (int64_t i = 0; i < n * l->dim; i++) v[i] = (float)x[i];
}

static int64_t block_at(const slg_spherical_layer *l, int64_t first)
{
    return l->classes - first < V_BLOCK ? l->classes - first : V_BLOCK;
}

static double *v_block(slg_spherical_layer *l)
{
    return arena_alloc(l->ctx, V_BLOCK * (size_t)l->dim, sizeof(double));
}

/* W's rows [first, first + n), or index[first..], in out. */
slg_status layer_w_rows(slg_spherical_layer *l, const int64_t *index, int64_t first, int64_t n,
                        double *v, double *out)
{
    const int64_t d = l->dim;
    for (int64_t r = 0; r < n; r++) {
        const float *from = layer_v(l, index ? index[first + r] : first + r);
        for (int64_t i = 0; i < d; i++)
            v[r * d + i] = (double)from[i], out[r * d + i] = l->omega[i];
    }
    return blas_dgemm(l->ctx, false, false, n, d, d, 1, v, d, l->u, d, 1, out, d);
}

/* Q and wbar anew: of W, a block of rows at a time. */
static slg_status gram_of_w(slg_spherical_layer *l, bool plain)
{
    const int64_t d = l->dim;
    double *v = v_block(l), *w = plain ? v : v_block(l);
    double *q = arena_alloc(l->ctx, (size_t)(d * d), sizeof *q);
    double *sum = arena_alloc(l->ctx, (size_t)d, sizeof *sum);
    if (!v || !w || !q || !sum) return SLG_ERR_MEMORY;
    memset(q, 0, (size_t)(d * d) * sizeof *q);
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t first = 0; first < l->classes; first += V_BLOCK) {
        const int64_t n = block_at(l, first);
        if (plain)
            v_read(l, first, n, w);
        else
            SLG_TRY(layer_w_rows(l, NULL, first, n, v, w));
        SLG_TRY(blas_dsyrk(l->ctx, d, n, 1, w, q));
        for (int64_t r = 0; r < n; r++)
            for (int64_t i = 0; i < d; i++) sum[i] += w[r * d + i];
    }
    memcpy(l->q, q, (size_t)(d * d) * sizeof *q);
    memcpy(l->wbar, sum, (size_t)d * sizeof *sum);
    l->refreshed = l->steps;
    return SLG_OK;
}

slg_status layer_gram(slg_spherical_layer *l) { return gram_of_w(l, true); }

static slg_status refactorise(slg_spherical_layer *l)
{
    double *v = v_block(l), *w = v_block(l);
    arena_mark_t mark = arena_mark(l->ctx);
    /* What layer_gram will need, so that it cannot fail half-way. */
    if (!v || !w || !v_block(l) ||
        !arena_alloc(l->ctx, (size_t)(l->dim * (l->dim + 1)), sizeof(double)))
        return SLG_ERR_MEMORY;
    arena_release(l->ctx, mark);
    for (int64_t first = 0; first < l->classes; first += V_BLOCK) {
        SLG_TRY(layer_w_rows(l, NULL, first, block_at(l, first), v, w));
        v_write(l, first, block_at(l, first), w);
    }
    layer_start(l);
    l->refactorised++;
    return layer_gram(l);
}

double layer_drift(const slg_spherical_layer *l, double *scratch)
{
    const int64_t d = l->dim;
    double *x = scratch, *y = scratch + d, worst = 0;
    for (int64_t i = 0; i < d; i++) x[i] = (uint32_t)i * 2654435761u >> 31 ? 1 : -1;
    for (int64_t i = 0; i < d; i++) {
        y[i] = 0;
        for (int64_t j = 0; j < d; j++) y[i] += l->u[i * d + j] * x[j];
    }
    for (int64_t i = 0; i < d; i++) {
        double sum = -x[i];
        for (int64_t j = 0; j < d; j++) sum += l->p[i * d + j] * y[j];
        if (!(fabs(sum) <= worst)) worst = fabs(sum);
    }
    return worst;
}

/* U^-1 in p. */
static slg_status inverse(slg_spherical_layer *l, double *p)
{
    const int64_t d = l->dim;
    double rcond, *u = arena_alloc(l->ctx, (size_t)(d * d), sizeof *u);
    if (!u) return SLG_ERR_MEMORY;
    memcpy(u, l->u, (size_t)(d * d) * sizeof *u);
    memset(p, 0, (size_t)(d * d) * sizeof *p);
    for (int64_t i = 0; i < d; i++) p[i * d + i] = 1;
    SLG_TRY(blas_dsolve(l->ctx, d, u, d, p, 1e-14, &rcond));
    if (!(rcond >= 1e-14))
        return slg_fail(l->ctx, SLG_ERR_RANGE, "the weights' factor U is singular: %g", rcond);
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < i; j++) {
            double t = p[i * d + j];
            p[i * d + j] = p[j * d + i], p[j * d + i] = t;
        }
    return SLG_OK;
}

slg_status layer_singular(slg_spherical_layer *l, double *values, double *left)
{
    double *u = arena_alloc(l->ctx, (size_t)(l->dim * l->dim), sizeof *u);
    if (!u) return SLG_ERR_MEMORY;
    memcpy(u, l->u, (size_t)(l->dim * l->dim) * sizeof *u);
    SLG_TRY(blas_dsvd(l->ctx, l->dim, u, values, left));
    for (int64_t i = 0; i < l->dim; i++) values[i] /= l->target;
    return SLG_OK;
}

/*
 * Brings `count` singular values to 1 (times the target): U <- (I + L'(1/s - 1)L) U, and V and
 * P get the inverse of that from the right. left: their vectors as rows; p: U^-1 before.
 */
static slg_status move(slg_spherical_layer *l, int64_t count, const double *values,
                       const double *left, const double *p)
{
    slg_ctx *ctx = l->ctx;
    const int64_t d = l->dim;
    double *v = v_block(l), *t = arena_alloc(ctx, V_BLOCK * (size_t)count, sizeof *t);
    double *lu = arena_alloc(ctx, (size_t)(count * d), sizeof *lu);
    double *pl = arena_alloc(ctx, (size_t)(count * d), sizeof *pl);
    if (!v || !t || !lu || !pl) return SLG_ERR_MEMORY;
    memcpy(l->p, p, (size_t)(d * d) * sizeof *p);
    SLG_TRY(blas_dgemm(ctx, false, false, count, d, d, 1, left, d, l->u, d, 0, lu, d));
    SLG_TRY(blas_dgemm(ctx, false, true, d, count, d, 1, l->p, d, left, d, 0, pl, count));
    for (int64_t k = 0; k < count; k++)
        for (int64_t i = 0; i < d; i++) {
            lu[k * d + i] *= 1 / values[k] - 1;
            pl[i * count + k] *= values[k] - 1;
        }
    SLG_TRY(blas_dgemm(ctx, true, false, d, d, count, 1, left, d, lu, d, 1, l->u, d));
    SLG_TRY(blas_dgemm(ctx, false, false, d, d, count, 1, pl, count, left, d, 1, l->p, d));
    for (int64_t first = 0; first < l->classes; first += V_BLOCK) {
        const int64_t n = block_at(l, first);
        v_read(l, first, n, v);
        SLG_TRY(blas_dgemm(ctx, false, true, n, count, d, 1, v, d, left, d, 0, t, count));
        for (int64_t i = 0; i < n * count; i++) t[i] *= values[i % count] - 1;
        SLG_TRY(blas_dgemm(ctx, false, false, n, d, count, 1, t, count, left, d, 1, v, d));
        v_write(l, first, n, v);
    }
    return SLG_OK;
}

static slg_status stabilise(slg_spherical_layer *l, int64_t *moved)
{
    slg_ctx *ctx = l->ctx;
    const int64_t d = l->dim;
    double *values = arena_alloc(ctx, (size_t)d, sizeof *values);
    double *left = arena_alloc(ctx, (size_t)(d * d), sizeof *left);
    double *p = arena_alloc(ctx, (size_t)(d * d), sizeof *p);
    if (!values || !left || !p) return SLG_ERR_MEMORY;
    SLG_TRY(inverse(l, p));
    SLG_TRY(layer_singular(l, values, left));
    int64_t count = 0;
    double low = INFINITY, high = 0;
    for (int64_t k = 0; k < d; k++) {
        const bool out = values[k] < l->opts.low || values[k] > l->opts.high;
        const double is = out ? 1 : values[k];
        low = is < low ? is : low, high = is > high ? is : high;
        if (!out) continue;
        memmove(left + count * d, left + k * d, (size_t)d * sizeof *left);
        values[count++] = values[k];
    }
    if (3 * count > d) {
        SLG_TRY(refactorise(l));
    } else if (count > 0) {
        SLG_TRY(move(l, count, values, left, p));
        l->low = low, l->high = high;
    } else {
        memcpy(l->p, p, (size_t)(d * d) * sizeof *p);
        l->low = low, l->high = high;
    }
    l->moved += count;
    l->looked = l->steps;
    *moved = count;
    return SLG_OK;
}

/* |U / target - I|, Frobenius: all singular values are within that of 1. */
static double off_identity(const slg_spherical_layer *l)
{
    double sum = 0;
    for (int64_t i = 0; i < l->dim; i++)
        for (int64_t j = 0; j < l->dim; j++) {
            double x = l->u[i * l->dim + j] / l->target - (i == j);
            sum += x * x;
        }
    return sqrt(sum);
}

static slg_status look(slg_spherical_layer *l)
{
    const int64_t d = l->dim;
    int64_t moved;
    double *scratch = arena_alloc(l->ctx, 2 * (size_t)d, sizeof *scratch);
    if (!scratch) return SLG_ERR_MEMORY;
    if (l->low < l->opts.low || l->high > l->opts.high) {
        const double off = off_identity(l);
        if (!(off < 1) || 1 - off < l->opts.low || 1 + off > l->opts.high)
            return stabilise(l, &moved);
        l->low = 1 - off, l->high = 1 + off;
    }
    if (!(layer_drift(l, scratch) <= most_drift)) {
        double *p = arena_alloc(l->ctx, (size_t)(d * d), sizeof *p);
        if (!p) return SLG_ERR_MEMORY;
        SLG_TRY(inverse(l, p));
        memcpy(l->p, p, (size_t)(d * d) * sizeof *p);
    }
    l->looked = l->steps;
    return SLG_OK;
}

slg_status layer_maintain(slg_spherical_layer *l)
{
    const slg_spherical_layer_opts *o = &l->opts;
    if (o->period > 0 && l->steps - l->looked >= o->period) SLG_TRY(look(l));
    if (o->refresh > 0 && l->steps - l->refreshed >= o->refresh) SLG_TRY(gram_of_w(l, false));
    return SLG_OK;
}

/* ---- Public ------------------------------------------------------------------------------ */

slg_status slg_spherical_layer_stabilise(slg_spherical_layer *l, int64_t *moved)
{
    int64_t count = 0;
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_stabilise");
    slg_status status = stabilise(l, &count);
    if (status == SLG_OK) l->pending = false;
    if (status == SLG_OK && moved) *moved = count;
    return op_end(l->ctx, status);
}

slg_status slg_spherical_layer_refactorise(slg_spherical_layer *l)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_refactorise");
    slg_status status = refactorise(l);
    if (status == SLG_OK) l->pending = false;
    return op_end(l->ctx, status);
}

static slg_status decay(slg_spherical_layer *l, double f)
{
    const int64_t d = l->dim;
    SLG_TRY(option_range(l->ctx, "factor", f, 1e-3, 1e3));
    l->pending = false;
    for (int64_t i = 0; i < d * d; i++) l->u[i] *= f, l->p[i] /= f, l->q[i] *= f * f;
    for (int64_t i = 0; i < d; i++) l->omega[i] *= f, l->wbar[i] *= f;
    l->target *= f;
    if (l->target >= 1 / most_decay && l->target <= most_decay) return SLG_OK;
    const double all = l->target;
    for (int64_t i = 0; i < l->classes * d; i++) l->v[i] = (float)((double)l->v[i] * all);
    for (int64_t i = 0; i < d * d; i++) l->u[i] /= all, l->p[i] *= all;
    l->target = 1;
    return SLG_OK;
}

slg_status slg_spherical_layer_decay(slg_spherical_layer *l, double factor)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_spherical_layer_decay");
    return op_end(l->ctx, decay(l, factor));
}
